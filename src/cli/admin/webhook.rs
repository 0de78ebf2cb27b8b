//! `posthaste webhook …`.

use clap::{Args, Subcommand};
use hyper::Method;

use super::client::with_query;
use super::human::{count, time};
use super::out::Table;
use super::{Client, Connection, Out};
use crate::api::webhooks::{ReplayRequest, Replayed, WebhookList};
use crate::types::Name;
use crate::webhook::{State, WebhookStatus, WebhookTest};

/// Shown by `posthaste webhook --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste webhook list
  posthaste webhook status crm
  posthaste webhook test crm
  posthaste webhook replay crm --since 2h
  posthaste webhook resume crm";

/// `webhook` and its options.
#[derive(Args, Clone, Debug)]
pub struct WebhookArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: WebhookCommand,
}

/// What can be done with webhooks.
#[derive(Subcommand, Clone, Debug)]
pub enum WebhookCommand {
    /// All webhooks of the configuration, and how they are
    List {
        /// Only this tenant's
        #[arg(long, value_parser = |text: &str| Name::parse(text))]
        tenant: Option<Name>,
    },
    /// All that is known of one webhook, or of each; fails when one is not well
    Status {
        /// Its name
        name: Option<String>,
    },
    /// Send a test event now, beside what waits; fails when it is not taken
    Test {
        /// Its name
        name: String,
    },
    /// Send events again
    Replay {
        /// Its name
        name: String,
        /// From when on: a time, a date, or how long ago, as 2h
        #[arg(long, required_unless_present = "after")]
        since: Option<String>,
        /// After which event of the log
        #[arg(long, conflicts_with = "since")]
        after: Option<u64>,
    },
    /// Try at once, also one that is dead
    Resume {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(command: &WebhookCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    match command {
        WebhookCommand::List { tenant } => {
            let query = [("tenant", tenant.as_ref().map(ToString::to_string))];
            let list: WebhookList = client.get(&with_query("/v1/webhooks", &query)).await?;
            if out.json { out.value(&list) } else { print(&list.webhooks, out) }
        }
        WebhookCommand::Status { name } => status(name.as_deref(), client, out).await,
        WebhookCommand::Test { name } => {
            let done: WebhookTest = client.call(Method::POST, &path(name, "test")?, None).await?;
            if out.json {
                out.value(&done)?;
            } else if let Some(status) = done.status {
                out.line(format!("taken: {status}, in {} ms", done.took_ms))?;
            }
            match done.error {
                Some(why) => anyhow::bail!("webhook {name}: {}", super::printable(&why)),
                None => Ok(()),
            }
        }
        WebhookCommand::Replay { name, since, after } => {
            let body = ReplayRequest { since: since.clone(), after: *after };
            let done: Replayed = client.send(Method::POST, &path(name, "replay")?, &body).await?;
            if out.json { out.value(&done) } else { out.line(format!("{name} goes on behind event {}", done.after)) }
        }
        WebhookCommand::Resume { name } => {
            let list: WebhookList = client.call(Method::POST, &path(name, "resume")?, None).await?;
            if out.json { out.value(&list) } else { out.line(format!("{name} tries now")) }
        }
    }
}

/// A name with a slash or a question mark in it would be another path.
fn path(name: &str, verb: &str) -> anyhow::Result<String> {
    let name = Name::parse(name)?;
    Ok(format!("/v1/webhooks/{name}/{verb}"))
}

async fn status(name: Option<&str>, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let mut list: WebhookList = client.get("/v1/webhooks").await?;
    list.webhooks.retain(|webhook| name.is_none_or(|name| webhook.name.as_str() == name));
    if let Some(name) = name
        && list.webhooks.is_empty()
    {
        anyhow::bail!("there is no webhook {name:?}");
    }
    if out.json {
        out.value(&list)?;
    } else {
        for webhook in &list.webhooks {
            details(webhook, out)?;
        }
    }
    match list.webhooks.iter().find(|webhook| webhook.state != State::Well) {
        Some(webhook) => anyhow::bail!("webhook {} is {}", webhook.name, word(webhook.state)),
        None => Ok(()),
    }
}

fn details(webhook: &WebhookStatus, out: &mut Out) -> anyhow::Result<()> {
    out.head(webhook.name.as_str())?;
    let mut line = |name: &str, value: String| out.line(super::printable(&format!("  {name:<13} {value}")));
    line("state", word(webhook.state).into())?;
    line("url", webhook.url.clone())?;
    line("format", webhook.format.clone())?;
    line("tenant", webhook.tenant.as_ref().map_or_else(|| "(all)".into(), ToString::to_string))?;
    line("behind", format!("{} events, after event {}", count(webhook.behind), webhook.after.0))?;
    line("taken", format!("{} events since the start", count(webhook.taken)))?;
    let times = [
        ("last success", webhook.last_success_at),
        ("failing since", webhook.failing_since),
        ("dead since", webhook.dead_since),
        ("next try", webhook.next_try_at),
    ];
    for (name, at) in times {
        if let Some(at) = at {
            line(name, time(at))?;
        }
    }
    match (&webhook.last_error, webhook.last_error_at) {
        (Some(error), Some(at)) => line("last error", format!("{}: {error}", time(at))),
        (Some(error), None) => line("last error", error.clone()),
        (None, _) => Ok(()),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Well => "well",
        State::Failing => "failing",
        State::Dead => "dead",
        State::Broken => "broken",
    }
}

fn print(webhooks: &[WebhookStatus], out: &mut Out) -> anyhow::Result<()> {
    let mut table = Table::new(&["name", "tenant", "state", "#behind", "#taken", "next try", "url", "last error"]);
    for webhook in webhooks {
        table.row([
            webhook.name.to_string(),
            webhook.tenant.as_ref().map_or_else(|| "(all)".into(), ToString::to_string),
            word(webhook.state).into(),
            count(webhook.behind),
            count(webhook.taken),
            webhook.next_try_at.map(time).unwrap_or_default(),
            webhook.url.clone(),
            // One that is well again need not be worried about.
            webhook.last_error.clone().filter(|_| webhook.state != State::Well).unwrap_or_default(),
        ]);
    }
    out.table(&table, "no webhooks: [[webhooks]] in the configuration makes one")
}
