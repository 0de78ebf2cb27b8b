//! `posthaste events …`: the log for people (`tail`) and for other programs (`export`).

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::with_query;
use super::csv::{Accounting, HEADER};
use super::human::time;
use super::out::printable;
use super::{Client, Connection, Out};
use crate::api::types::{Cursors, EventsPage};
use crate::event::Event;

/// Shown by `posthaste events --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste events tail --follow
  posthaste events tail --event bounced,failed -n 100
  posthaste events export --after 0 > events.ndjson
  posthaste events export --csv --output acct.csv
  posthaste events export --after 81234 --follow | my-consumer";

/// Events that one call asks for.
const PAGE: usize = 1_000;
/// Seconds that a call waits for new events.
const WAIT_S: u64 = 30;

/// `events` and its options.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: EventsCommand,
}

/// What can be done with events.
#[derive(Subcommand, Clone, Debug)]
pub enum EventsCommand {
    /// The last events, and with --follow those to come
    Tail {
        /// How many of the last events
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u64,
        /// Which.
        #[command(flatten)]
        which: Which,
    },
    /// All events, as NDJSON or as an accounting file
    Export {
        /// The columns of an accounting file (type d, b, t, r, f, rb) instead of NDJSON
        #[arg(long)]
        csv: bool,
        /// Write to a file instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Which.
        #[command(flatten)]
        which: Which,
    },
}

/// Which events.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Events after this id
    #[arg(long, value_name = "ID")]
    pub after: Option<u64>,
    /// Wait for further events
    #[arg(short, long)]
    pub follow: bool,
    /// Only these kinds, separated by commas
    #[arg(long, value_name = "KINDS")]
    pub event: Option<String>,
    /// Only this tenant's
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Carries out a command.
pub async fn run(command: &EventsCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    match command {
        EventsCommand::Tail { lines, which } => {
            let after = match which.after {
                Some(after) => after,
                None => client.get::<Cursors>("/v1/events/cursors").await?.last.saturating_sub(*lines),
            };
            let json = out.json;
            read(client, which, after, out, |event| {
                Ok(Some(if json { serde_json::to_string(event)? } else { line(event) }))
            })
            .await
        }
        EventsCommand::Export { csv, output, which } => {
            let after = which.after.unwrap_or(0);
            let mut file = match output {
                None => None,
                Some(path) => {
                    let made = std::fs::File::create(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
                    Some(Out::to(false, Box::new(std::io::BufWriter::new(made)) as Box<dyn Write + Send>))
                }
            };
            let out = file.as_mut().unwrap_or(out);
            if !csv {
                return read(client, which, after, out, |event| Ok(Some(serde_json::to_string(event)?))).await;
            }
            out.line(HEADER)?;
            let mut accounting = Accounting::default();
            read(client, which, after, out, |event| Ok(accounting.row(event))).await
        }
    }
}

/// Reads pages to the end of the log, or for ever, and prints what `form` makes of each event.
async fn read(
    client: &Client,
    which: &Which,
    mut after: u64,
    out: &mut Out,
    mut form: impl FnMut(&Event) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    loop {
        let path = with_query(
            "/v1/events",
            &[
                ("after", Some(after.to_string())),
                ("limit", Some(PAGE.to_string())),
                ("wait", which.follow.then(|| WAIT_S.to_string())),
                ("event", which.event.clone()),
                ("tenant", which.tenant.clone()),
            ],
        );
        let page: EventsPage = client.get(&path).await?;
        for event in &page.events {
            if let Some(line) = form(event)? {
                out.line(line)?;
            }
        }
        out.flush()?;
        after = page.next.0;
        if !page.more && !which.follow {
            return Ok(());
        }
    }
}

/// An event on one line.
fn line(event: &Event) -> String {
    let mut line = format!("{:>8}  {}  {:<10}", event.seq.0, time(event.timestamp), event.event.as_str());
    let mut facts: Vec<String> = vec![event.tenant.to_string()];
    facts.extend(event.message_id.map(|id| id.to_string()));
    facts.extend(event.sender.as_ref().map(|s| format!("from {}", if s.is_empty() { "<>" } else { s })));
    facts.extend(event.recipient.as_ref().map(|r| r.to_string()));
    facts.extend(event.recipients.map(|n| format!("{n} recipients")));
    facts.extend(event.mx.as_ref().map(|mx| format!("at {mx}")));
    facts.extend(event.smtp.as_ref().map(|r| match r.code {
        // What no remote said has no code.
        0 => r.text.to_string(),
        code => format!("{code} {}", r.text),
    }));
    facts.extend(event.reason.as_ref().map(|r| r.to_string()));
    line += &format!("  {}", facts.join("  "));
    printable(&line)
}
