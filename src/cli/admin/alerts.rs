//! `posthaste alerts list`.

use clap::{Args, Subcommand};

use super::human::relative;
use super::out::printable;
use super::{Client, Connection, Out};
use crate::alert::AlertState;
use crate::api::types::{Alerts, Status};

/// `alerts` and its options.
#[derive(Args, Clone, Debug)]
pub struct AlertsArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: AlertsCommand,
}

/// What can be asked of alerts.
#[derive(Subcommand, Clone, Debug)]
pub enum AlertsCommand {
    /// The alerts that fire, with cause and fix, and those that soon may; see docs/alerts.md
    List,
}

/// Carries out a command.
pub async fn run(command: &AlertsCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let AlertsCommand::List = command;
    let answer: Alerts = client.get("/v1/alerts").await?;
    if out.json {
        return out.value(&answer);
    }
    if answer.alerts.is_empty() {
        return out.line("nothing is wrong");
    }
    let now = client.get::<Status>("/v1/admin/status").await?.now;
    for alert in &answer.alerts {
        let (name, subject) = (alert.name.as_str(), printable(&alert.subject));
        out.head(&format!("{} {name}: {subject}, since {}", alert.state.as_str(), relative(alert.since, now)))?;
        out.line(format!("  {}", printable(&alert.summary)))?;
        if alert.state == AlertState::Firing {
            out.line(format!("  cause  {}", printable(&alert.cause)))?;
            out.line(format!("  fix    {}", printable(&alert.fix)))?;
        }
    }
    Ok(())
}
