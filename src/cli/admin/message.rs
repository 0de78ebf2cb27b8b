//! `posthaste message trace` and `posthaste trace smtp`.

use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use hyper::Method;

use super::client::with_query;
use super::human::{relative, size, span, time};
use super::out::{Table, printable};
use super::{Client, Connection, Out};
use crate::api::types::{AddressTrace, MessageLife};
use crate::event::{Event, EventKind};
use crate::seam::clock::Clock;
use crate::types::{Domain, MessageId, Timestamp};

/// `message` and its options.
#[derive(Args, Clone, Debug)]
pub struct MessageArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: MessageCommand,
}

/// What can be done with messages.
#[derive(Subcommand, Clone, Debug)]
pub enum MessageCommand {
    /// The whole life of a message, or what became of the mail to an address
    #[command(after_long_help = "Examples:
  posthaste message trace 019ab234-5678-7abc-8def-0123456789ab
  posthaste message trace jane@example.com --limit 50")]
    Trace {
        /// The id of a message (it is in the 250 and the 202), or a recipient's address
        #[arg(value_name = "ID|ADDRESS")]
        what: String,
        /// At most so many events of an address, the newest
        #[arg(long, default_value_t = 200)]
        limit: usize,
    },
}

/// `trace` and its options.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to watch.
    #[command(subcommand)]
    pub command: TraceCommand,
}

/// What can be watched.
#[derive(Subcommand, Clone, Debug)]
pub enum TraceCommand {
    /// The SMTP sessions to a domain, live: `>` is sent, `<` is received; secrets are masked
    #[command(after_long_help = "Example:
  posthaste trace smtp example.com --once")]
    Smtp {
        /// The recipients' domain
        domain: String,
        /// End with the first session instead of waiting for the next
        #[arg(long)]
        once: bool,
    },
}

/// Carries out a command.
pub async fn run(command: &MessageCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let MessageCommand::Trace { what, limit } = command;
    let now = Clock::system().now();
    if let Ok(id) = what.parse::<MessageId>() {
        let life: MessageLife = client.get(&format!("/v1/messages/{id}")).await?;
        return if out.json { out.value(&life) } else { print_life(&life, now, out) };
    }
    anyhow::ensure!(what.contains('@'), "{what:?} is neither the id of a message nor an address");
    let query = [("address", Some(what.clone())), ("limit", Some(limit.to_string()))];
    let trace: AddressTrace = client.get(&with_query("/v1/trace", &query)).await?;
    // As an unknown id is a failure, so is an unknown address: a script can ask whether there is a trace.
    anyhow::ensure!(
        !trace.events.is_empty(),
        "no events of {}: nothing was sent there, or it is past the retention",
        printable(&trace.address)
    );
    if out.json { out.value(&trace) } else { print_trace(&trace, now, out) }
}

/// Copies sessions to the screen as they happen.
pub async fn run_trace(command: &TraceCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let TraceCommand::Smtp { domain, once } = command;
    let domain = Domain::parse(domain).map_err(|e| anyhow::anyhow!("{domain:?}: {e}"))?;
    let path = with_query("/v1/admin/trace-smtp", &[("domain", Some(domain.to_string()))]);
    loop {
        let mut body = client.open(Method::GET, &path, None).await?.into_body();
        if !out.json {
            eprintln!("waiting for a session to {domain}; end with Ctrl-C");
        }
        let mut partial = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            partial.extend_from_slice(&data);
            while let Some(end) = partial.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = partial.drain(..=end).collect();
                let line = printable(String::from_utf8_lossy(&line).trim_end());
                if out.json { out.line(serde_json::json!({ "line": line }).to_string())? } else { out.line(line)? }
            }
            out.flush()?;
        }
        if *once {
            return Ok(());
        }
    }
}

fn print_life(life: &MessageLife, now: Timestamp, out: &mut Out) -> anyhow::Result<()> {
    out.head(&format!("message {}  {}", life.id, life.state))?;
    let from = match life.sender.as_deref() {
        None => "-".into(),
        Some("") => "<> (a notification)".into(),
        Some(sender) => printable(sender),
    };
    out.line(format!("  from      {from}"))?;
    let by = match (&life.via, &life.client) {
        (Some(via), Some(client)) => format!(", by {via} from {client}"),
        (Some(via), None) => format!(", by {via}"),
        (None, _) => String::new(),
    };
    let by = printable(&by);
    out.line(format!("  accepted  {} ({}){by}", time(life.accepted), relative(life.accepted, now)))?;
    let mut facts = vec![format!("tenant {}", life.tenant)];
    facts.extend(life.class.map(|c| format!("class {c}")));
    facts.extend(life.campaign.as_ref().map(|c| format!("campaign {c}")));
    facts.extend(life.size.map(size));
    facts.extend(
        (!life.tags.is_empty())
            .then(|| format!("tags {}", life.tags.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", "))),
    );
    out.line(format!("  {}", facts.join(", ")))?;
    out.line("")?;
    let mut table = Table::new(&["RECIPIENT", "STATE", "#TRIES", "NEXT", "EXPIRES", "LAST REPLY"]);
    for r in &life.recipients {
        table.row([
            r.recipient.clone(),
            r.state.clone(),
            r.attempts.to_string(),
            r.next_attempt.map_or("-".into(), |t| relative(t, now)),
            r.expires.map_or("-".into(), |t| relative(t, now)),
            r.last_reply.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    out.table(&table, "its recipients are not known any more")?;
    out.line("")?;
    for event in &life.events {
        let after = format!("+{}", span(event.timestamp.since(life.accepted)));
        print_event(event, &after, now, out)?;
    }
    Ok(())
}

fn print_trace(trace: &AddressTrace, now: Timestamp, out: &mut Out) -> anyhow::Result<()> {
    // Messages in the order in which they first show, each with its events together.
    let mut order: Vec<Option<MessageId>> = Vec::new();
    for event in &trace.events {
        if !order.contains(&event.message_id) {
            order.push(event.message_id);
        }
    }
    for id in order {
        match id {
            Some(id) => out.head(&format!("message {id}  accepted {}", time(id.timestamp())))?,
            None => out.head("without a message")?,
        }
        for event in trace.events.iter().filter(|e| e.message_id == id) {
            let since = id.map_or(String::new(), |id| format!("+{}", span(event.timestamp.since(id.timestamp()))));
            print_event(event, &since, now, out)?;
        }
        out.line("")?;
    }
    Ok(())
}

/// One event on a line, with what the peer said below it.
fn print_event(event: &Event, after: &str, now: Timestamp, out: &mut Out) -> anyhow::Result<()> {
    let mut line = format!("  {}  {after:>8}  {:<10}", time(event.timestamp), event.event.as_str());
    if let Some(recipient) = &event.recipient {
        line += &format!("  {recipient}");
    }
    let mut facts: Vec<String> = Vec::new();
    if event.event == EventKind::Accepted {
        facts.extend(event.recipients.map(|n| format!("{n} recipients")));
        facts.extend(event.size.map(size));
    }
    facts.extend(event.attempt.map(|n| format!("attempt {n}")));
    facts.extend(event.mx.as_ref().map(|mx| format!("at {mx}")));
    facts.extend(event.source.as_ref().map(|source| match event.source_ip {
        Some(ip) => format!("from {source} ({ip})"),
        None => format!("from {source}"),
    }));
    if event.mx.is_some() {
        facts.push(event.tls.as_ref().map_or("in clear".into(), |tls| tls.to_string()));
    }
    if !facts.is_empty() {
        line += &format!("  {}", facts.join(", "));
    }
    out.line(printable(&line))?;
    let below = |text: String| format!("{:36}{}", "", printable(&text));
    if let Some(reply) = &event.smtp {
        let code = if reply.code == 0 { String::new() } else { format!("{} ", reply.code) };
        let enhanced = reply.enhanced.as_deref().filter(|e| !reply.text.starts_with(*e));
        out.line(below(format!("{code}{}{}", enhanced.map_or(String::new(), |e| format!("{e} ")), reply.text)))?;
    }
    if let Some(reason) = &event.reason {
        out.line(below(reason.to_string()))?;
    }
    match event.retry_at {
        Some(at) => out.line(below(format!("next attempt {} ({})", time(at), relative(at, now)))),
        None => Ok(()),
    }
}
