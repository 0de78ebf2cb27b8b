//! `posthaste contacts …`: audiences that the daemon keeps.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;

use super::client::with_query;
use super::human::size;
use super::out::{Table, printable};
use super::{Client, Connection, Out};
use crate::campaign::contacts::{Contact, ImportDone};

/// Shown by `posthaste contacts --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste contacts import customers list.csv --types age=number,last_purchase=date
  posthaste contacts export customers > customers.ndjson
  posthaste contacts show customers jane@example.com
  posthaste contacts delete customers jane@example.com --erase";

/// Contacts that one call asks for.
const PAGE: usize = 5_000;

/// `contacts` and its options.
#[derive(Args, Clone, Debug)]
pub struct ContactsArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// Whose audiences: needed on the control socket and with a key of the node
    #[arg(long, global = true)]
    pub tenant: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: ContactsCommand,
}

/// What can be done with audiences.
#[derive(Subcommand, Clone, Debug)]
pub enum ContactsCommand {
    /// The audiences
    List,
    /// Import NDJSON or CSV (plain, gzip or zstd); contacts that are there are brought up to date
    Import {
        /// The audience
        audience: String,
        /// The file
        file: PathBuf,
        /// Types of CSV columns: age=number,since=date,tags=list,vip=bool
        #[arg(long)]
        types: Option<String>,
    },
    /// All contacts as NDJSON
    Export {
        /// The audience
        audience: String,
        /// Write to a file instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// One contact
    Show {
        /// The audience
        audience: String,
        /// The address
        address: String,
    },
    /// Take a contact out of an audience
    Delete {
        /// The audience
        audience: String,
        /// The address
        address: String,
        /// Out of all that is kept of the tenant: audiences, rows of campaigns, waiting messages, events
        #[arg(long)]
        erase: bool,
    },
}

#[derive(Deserialize)]
struct Page {
    contacts: Vec<Contact>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Audiences {
    audiences: Vec<String>,
}

/// Carries out a command.
pub async fn run(args: &ContactsArgs, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let path = |audience: &str, more: &[(&str, Option<String>)]| {
        let tenant = [("tenant", args.tenant.clone())];
        with_query(&format!("/v1/contacts/{}", segment(audience)), &[&tenant, more].concat())
    };
    let one = |audience: &str, address: &str| format!("{audience}/{address}");
    match &args.command {
        ContactsCommand::List => {
            let all: Audiences = client.get(&with_query("/v1/contacts", &[("tenant", args.tenant.clone())])).await?;
            if out.json {
                return out.value(&all.audiences);
            }
            let mut table = Table::new(&["audience"]);
            all.audiences.into_iter().for_each(|name| table.row([name]));
            out.table(&table, "no audience")
        }
        ContactsCommand::Import { audience, file, types } => {
            let length = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
            let path = path(audience, &[("types", types.clone())]);
            // As a stream: the daemon takes it batch by batch, so its size does not matter on either side. Sent again after a break it
            // changes nothing of what is there.
            let progress = progress(length, out);
            let is_shown = progress.is_some();
            let tell = move |sent| progress.iter().for_each(|tell| tell(sent));
            let answer = client.put_file(&path, file, 0, "application/octet-stream", &[], tell).await;
            if is_shown {
                eprintln!();
            }
            imported(&serde_json::from_slice(&answer?.1)?, out)
        }
        ContactsCommand::Export { audience, output } => {
            let mut file = match output {
                None => None,
                Some(path) => {
                    let made = std::fs::File::create(path).with_context(|| path.display().to_string())?;
                    Some(Out::to(false, Box::new(std::io::BufWriter::new(made)) as Box<dyn Write + Send>))
                }
            };
            let out = file.as_mut().unwrap_or(out);
            let mut after = None;
            loop {
                let page: Page =
                    client.get(&path(audience, &[("after", after), ("limit", Some(PAGE.to_string()))])).await?;
                for contact in &page.contacts {
                    out.line(row(contact)?)?;
                }
                out.flush()?;
                match page.next {
                    Some(next) => after = Some(next),
                    None => return Ok(()),
                }
            }
        }
        ContactsCommand::Show { audience, address } => {
            let contact: Contact = client.get(&path(&one(audience, address), &[])).await?;
            out.value(&contact)
        }
        ContactsCommand::Delete { audience, address, erase } => {
            let path = path(&one(audience, address), &[("erase", erase.then(|| "true".to_owned()))]);
            let gone: Audiences = client.call(Method::DELETE, &path, None).await?;
            if out.json {
                return out.value(&gone.audiences);
            }
            let from = if gone.audiences.is_empty() {
                "no audience: it was in none".into()
            } else {
                gone.audiences.join(", ")
            };
            out.line(printable(&format!("{address} is taken out of {from}")))
        }
    }
}

/// What shows how much was sent, where somebody looks.
fn progress(length: u64, out: &Out) -> Option<impl Fn(u64) + Send + Sync + use<>> {
    (std::io::stderr().is_terminal() && !out.json).then_some(move |sent: u64| {
        let share = sent.saturating_mul(100).checked_div(length).unwrap_or(100);
        eprint!("\r{share:>3} %  {} of {} sent ", size(sent), size(length));
    })
}

/// A contact as a row that can be imported again, without the times.
fn row(contact: &Contact) -> anyhow::Result<String> {
    let row = serde_json::json!({
        "email": contact.email, "name": contact.name, "tz": contact.tz, "vars": contact.attributes,
    });
    Ok(serde_json::to_string(&row)?)
}

fn imported(done: &ImportDone, out: &mut Out) -> anyhow::Result<()> {
    if out.json {
        return out.value(done);
    }
    out.line(format!(
        "{} rows: {} new, {} brought up to date, {} not valid",
        done.read, done.created, done.updated, done.invalid
    ))?;
    for reject in &done.rejects {
        out.line(printable(&format!(
            "  row {} (line {}): {} {}",
            reject.row, reject.line, reject.address, reject.detail
        )))?;
    }
    let more = done.invalid.saturating_sub(done.rejects.len() as u64);
    if more > 0 {
        out.line(format!("  and {more} more"))?;
    }
    Ok(())
}

/// A part of a path: what could end it or begin a query is encoded; a slash parts audience and address.
fn segment(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~@+/!$&'*=".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
