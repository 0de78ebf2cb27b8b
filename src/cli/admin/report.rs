//! `posthaste report`, and how `campaign report` prints.

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;

use super::client::with_query;
use super::{Client, Connection, Out};
use crate::types::Name;

/// Examples for the help.
pub const EXAMPLES: &str = "Examples:
  posthaste report providers --since 2026-11-01
  posthaste report replies --provider google --since 2026-11-24T08:00:00Z
  posthaste report domains --tenant acme --campaign spring --format csv > domains.csv
  posthaste report summary --format html > november.html
  posthaste report recipient jane@example.com";

/// `report` and its options.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to report.
    #[command(subcommand)]
    pub command: ReportCommand,
}

/// In which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// Tables for a terminal.
    #[default]
    Text,
    /// A page that needs nothing else, with charts; it prints well.
    Html,
    /// JSON.
    Json,
    /// CSV with a header.
    Csv,
}

impl Format {
    /// Its word; `--json` wins.
    pub fn of(self, out: &Out) -> &'static str {
        match self {
            _ if out.json => "json",
            Format::Text => "text",
            Format::Html => "html",
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }
}

/// What limits a report.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// From this time on (RFC 3339, or a day); hours count whole
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this tenant's mail
    #[arg(long, value_parser = name)]
    tenant: Option<Name>,
    /// Only mail of this campaign
    #[arg(long, value_parser = name)]
    campaign: Option<Name>,
    /// In which form
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What can be reported.
#[derive(Subcommand, Clone, Debug)]
pub enum ReportCommand {
    /// All mail together, in time
    Summary(Limits),
    /// By the recipients' providers
    Providers(Limits),
    /// By the sources that sent it
    Sources(Limits),
    /// By the recipients' domains
    Domains(Limits),
    /// By tenant
    Tenants(Limits),
    /// By campaign, of one tenant
    Campaigns(Limits),
    /// The replies that were not a yes, those that are alike together, to be pasted to a provider's postmaster
    Replies {
        /// What limits it.
        #[command(flatten)]
        limits: Limits,
        /// Only replies of this provider
        #[arg(long)]
        provider: Option<String>,
        /// At most so many groups
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Everything that happened to one recipient, oldest first
    Recipient {
        /// The address
        address: String,
        /// Only this tenant's mail
        #[arg(long, value_parser = name)]
        tenant: Option<Name>,
        /// At most so many events
        #[arg(long, default_value_t = 500)]
        limit: usize,
        /// After this event
        #[arg(long)]
        after: Option<u64>,
    },
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|e| e.to_string())
}

/// Carries out a command.
pub async fn run(args: &ReportArgs, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let (by, limits, provider, limit) = match &args.command {
        ReportCommand::Summary(limits) => ("summary", limits, None, None),
        ReportCommand::Providers(limits) => ("providers", limits, None, None),
        ReportCommand::Sources(limits) => ("sources", limits, None, None),
        ReportCommand::Domains(limits) => ("domains", limits, None, None),
        ReportCommand::Tenants(limits) => ("tenants", limits, None, None),
        ReportCommand::Campaigns(limits) => ("campaigns", limits, None, None),
        ReportCommand::Replies { limits, provider, limit } => ("replies", limits, provider.clone(), Some(*limit)),
        ReportCommand::Recipient { address, tenant, limit, after } => {
            anyhow::ensure!(address.contains('@'), "{address:?} is no address");
            // An address may have any character in its local part.
            let address: String = address
                .bytes()
                .map(|b| match b {
                    b if b.is_ascii_alphanumeric() || matches!(b, b'@' | b'.' | b'-' | b'_') => {
                        char::from(b).to_string()
                    }
                    b => format!("%{b:02X}"),
                })
                .collect();
            let format = if out.json { "json" } else { "text" };
            let pairs = [
                ("tenant", tenant.as_ref().map(ToString::to_string)),
                ("limit", Some(limit.to_string())),
                ("after", after.map(|after| after.to_string())),
                ("format", Some(format.to_owned())),
            ];
            return print(&with_query(&format!("/v1/contacts/{address}/timeline"), &pairs), client, out).await;
        }
    };
    let pairs = [
        ("since", limits.since.clone()),
        ("until", limits.until.clone()),
        ("tenant", limits.tenant.as_ref().map(ToString::to_string)),
        ("campaign", limits.campaign.as_ref().map(ToString::to_string)),
        ("provider", provider),
        ("limit", limit.map(|limit| limit.to_string())),
        ("format", Some(limits.format.of(out).to_owned())),
    ];
    print(&with_query(&format!("/v1/reports/{by}"), &pairs), client, out).await
}

/// Prints a report as the daemon made it: it is clean already.
pub async fn print(path: &str, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let body = client.bytes(Method::GET, path, None).await?;
    out.bytes(&body)?;
    if !body.ends_with(b"\n") {
        out.line("")?;
    }
    Ok(())
}
