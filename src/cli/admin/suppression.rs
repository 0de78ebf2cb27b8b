//! `posthaste suppression …`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;

use super::client::with_query;
use super::human::time;
use super::out::Table;
use super::{Client, Connection, Out};
use crate::api::suppressions::{NewSuppression, SuppressionInfo, SuppressionsPage};
use crate::suppression::{ImportReport, Reason};
use crate::types::Name;

/// Shown by `posthaste suppression --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste suppression add jane@example.com --tenant acme --note \"asked by phone\"
  posthaste suppression add jane@example.com --tenant acme --list news --reason unsubscribe
  posthaste suppression show jane@example.com
  posthaste suppression remove jane@example.com --tenant acme --all
  posthaste suppression list --tenant acme --reason complaint
  posthaste suppression import bounces.csv --tenant acme --reason hard_bounce
  posthaste suppression export --tenant acme > suppressions.csv";

/// `suppression` and its options.
#[derive(Args, Clone, Debug)]
pub struct SuppressionArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: SuppressionCommand,
}

/// Whose entries are meant.
#[derive(Args, Clone, Debug, Default)]
pub struct Whose {
    /// The tenant; may be left out where there is only one
    #[arg(long, value_parser = name)]
    tenant: Option<Name>,
    /// One of the tenant's lists
    #[arg(long, value_parser = name, conflicts_with = "global")]
    list: Option<Name>,
    /// The global ones: they hold for all tenants
    #[arg(long, conflicts_with = "tenant")]
    global: bool,
    /// Why: hard_bounce, complaint, unsubscribe or manual
    #[arg(long)]
    reason: Option<Reason>,
}

/// What can be done with suppressions.
#[derive(Subcommand, Clone, Debug)]
pub enum SuppressionCommand {
    /// Do not send to an address any more; an unsubscribe holds back marketing mail only
    Add {
        /// The address
        address: String,
        /// How far.
        #[command(flatten)]
        whose: Whose,
        /// Until when: a time or a date
        #[arg(long)]
        expires: Option<String>,
        /// For how long, as 30d
        #[arg(long = "for", value_name = "DURATION", conflicts_with = "expires")]
        duration: Option<String>,
        /// A note
        #[arg(long)]
        note: Option<String>,
    },
    /// Send to an address again
    Remove {
        /// The address
        address: String,
        /// Which.
        #[command(flatten)]
        whose: Whose,
        /// Those of all the tenant's lists, too
        #[arg(long)]
        all: bool,
    },
    /// All that speaks against an address
    Show {
        /// The address
        address: String,
    },
    /// The entries that match
    List {
        /// Which.
        #[command(flatten)]
        whose: Whose,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Add all addresses of a CSV file
    Import {
        /// The file, with a column `email`; `-` is standard input
        file: PathBuf,
        /// How far, where a row does not say it.
        #[command(flatten)]
        whose: Whose,
        /// A note, where a row has none
        #[arg(long)]
        note: Option<String>,
    },
    /// Write all entries that match as CSV, or with --json as NDJSON
    Export {
        /// Which.
        #[command(flatten)]
        whose: Whose,
    },
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|e| e.to_string())
}

impl Whose {
    fn query(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("tenant", self.tenant.as_ref().map(ToString::to_string)),
            ("list", self.list.as_ref().map(ToString::to_string)),
            ("global", self.global.then(|| "true".to_owned())),
            ("reason", self.reason.map(|reason| reason.to_string())),
        ]
    }
}

/// Carries out the command.
pub async fn run(command: &SuppressionCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    match command {
        SuppressionCommand::Add { address, whose, expires, duration, note } => {
            let new = NewSuppression {
                address: address.clone(),
                reason: whose.reason,
                tenant: whose.tenant.clone(),
                list: whose.list.clone(),
                global: whose.global,
                expires: expires.clone(),
                duration: duration.clone(),
                note: note.clone(),
            };
            let made: SuppressionInfo = client.send(Method::POST, "/v1/suppressions", &new).await?;
            if out.json { out.value(&made) } else { print(&[made], out) }
        }
        SuppressionCommand::Remove { address, whose, all } => {
            let mut query = whose.query();
            query.extend([("address", Some(address.clone())), ("all", all.then(|| "true".to_owned()))]);
            let path = with_query("/v1/suppressions", &query);
            let removed: SuppressionsPage = client.call(Method::DELETE, &path, None).await?;
            if out.json {
                return out.value(&removed);
            }
            out.line(format!("{} removed:", removed.suppressions.len()))?;
            print(&removed.suppressions, out)
        }
        SuppressionCommand::Show { address } => {
            let path = with_query("/v1/suppressions", &[("address", Some(address.clone()))]);
            let found: SuppressionsPage = client.get(&path).await?;
            if out.json { out.value(&found) } else { print(&found.suppressions, out) }
        }
        SuppressionCommand::List { whose, limit } => list(whose, *limit, client, out).await,
        SuppressionCommand::Import { file, whose, note } => import(file, whose, note.clone(), client, out).await,
        SuppressionCommand::Export { whose } => export(whose, client, out).await,
    }
}

/// The most entries that one request asks for.
const PAGE: usize = 10_000;

async fn list(whose: &Whose, limit: usize, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let (mut all, mut after) = (Vec::new(), None);
    while all.len() < limit {
        let mut query = whose.query();
        query.extend([("limit", Some((limit - all.len()).min(PAGE).to_string())), ("after", after.take())]);
        let page: SuppressionsPage = client.get(&with_query("/v1/suppressions", &query)).await?;
        all.extend(page.suppressions);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if out.json { out.value(&SuppressionsPage { suppressions: all, next: after }) } else { print(&all, out) }
}

async fn import(
    file: &PathBuf,
    whose: &Whose,
    note: Option<String>,
    client: &Client,
    out: &mut Out,
) -> anyhow::Result<()> {
    let source: Box<dyn tokio::io::AsyncRead + Unpin + Send> = match file.as_os_str() == "-" {
        true => Box::new(tokio::io::stdin()),
        false => Box::new(tokio::fs::File::open(file).await.with_context(|| file.display().to_string())?),
    };
    let mut query = whose.query();
    query.push(("note", note));
    let path = with_query("/v1/suppressions/import", &query);
    let answer = client.upload(Method::POST, &path, "text/csv", source).await?;
    let report: ImportReport =
        serde_json::from_slice(&answer).context("the daemon's answer is not what was expected")?;
    if out.json {
        return out.value(&report);
    }
    out.line(format!(
        "{} rows: {} added, {} were there, {} not valid",
        report.rows, report.added, report.renewed, report.invalid
    ))?;
    for error in &report.errors {
        out.line(super::out::printable(&format!("line {}: {}", error.line, error.reason)))?;
    }
    if !report.ignored_columns.is_empty() {
        out.line(super::out::printable(&format!("columns passed over: {}", report.ignored_columns.join(", "))))?;
    }
    Ok(())
}

async fn export(whose: &Whose, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    use http_body_util::BodyExt;
    let mut query = whose.query();
    query.push(("format", Some(if out.json { "ndjson" } else { "csv" }.to_owned())));
    let response = client.open(Method::GET, &with_query("/v1/suppressions/export", &query), None).await?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the export broke off: it is not whole")?.into_data() {
            out.bytes(&data)?;
        }
    }
    out.flush()
}

fn print(entries: &[SuppressionInfo], out: &mut Out) -> anyhow::Result<()> {
    let mut table = Table::new(&["address", "reason", "scope", "since", "expires", "source", "note"]);
    for entry in entries {
        let scope = match (&entry.tenant, &entry.list) {
            (None, _) => "global".into(),
            (Some(tenant), None) => tenant.to_string(),
            (Some(tenant), Some(list)) => format!("{tenant}/{list}"),
        };
        table.row([
            entry.address.clone().unwrap_or_else(|| format!("(erased) {}", entry.hash)),
            entry.reason.to_string(),
            scope,
            time(entry.since),
            entry.expires.map(time).unwrap_or_default(),
            entry.source.clone(),
            entry.note.clone(),
        ]);
    }
    out.table(&table, "no suppressions")
}
