//! The commands by which an operator asks and steers a running daemon.
//!
//! 1. [`Connection`] says where the daemon is: the control socket, or a URL and a key,
//! 2. a command asks the HTTP API over it (`client`),
//! 3. and prints the answer: a table for people, JSON for programs (`out`).
//!
//! Nothing here knows more than the API does. A failure is one line on standard error and a non-zero exit.

mod alerts;
mod authreport;
mod campaign;
mod client;
mod contacts;
mod control;
mod csv;
mod events;
mod human;
mod message;
mod out;
mod queue;
mod report;
mod suppression;
mod webhook;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub use client::Client;
pub use out::Out;
pub(super) use out::{Table, printable};

/// Where the control socket is where nothing is said.
const DEFAULT_SOCKET: &str = "/var/lib/posthaste/control.sock";

/// How to reach the daemon, and how to print.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection and output")]
pub struct Connection {
    /// The daemon's control socket [default: data_dir/control.sock of --config, else /var/lib/posthaste/control.sock]
    #[arg(long, value_name = "PATH", env = "POSTHASTE_SOCKET", global = true)]
    pub socket: Option<PathBuf>,
    /// The daemon's config file: its data_dir has the control socket
    #[arg(long, value_name = "FILE", env = "POSTHASTE_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// The URL of the daemon's HTTP API, in place of the socket; needs a key
    #[arg(long, value_name = "URL", env = "POSTHASTE_URL", global = true)]
    pub url: Option<String>,
    /// A file with the API key for --url; without it the variable POSTHASTE_KEY
    #[arg(long, value_name = "FILE", global = true)]
    pub key_file: Option<PathBuf>,
    /// Print JSON for programs instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands; to be flattened into the command line's own tree.
#[derive(Subcommand, Clone, Debug)]
pub enum AdminCommand {
    /// Look at queues and steer them
    #[command(after_long_help = queue::EXAMPLES)]
    Queue(queue::QueueArgs),
    /// Campaigns: submit, upload, check, test, start, steer, watch
    #[command(after_long_help = campaign::EXAMPLES)]
    Campaign(campaign::CampaignArgs),
    /// Follow a message
    Message(message::MessageArgs),
    /// Watch live
    Trace(message::TraceArgs),
    /// Read the event log
    #[command(after_long_help = events::EXAMPLES)]
    Events(events::EventsArgs),
    /// Reports: what became of mail, by provider, source, domain, tenant; replies; one recipient
    #[command(after_long_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Keep audiences
    #[command(after_long_help = contacts::EXAMPLES)]
    Contacts(contacts::ContactsArgs),
    /// The addresses that are not sent to
    #[command(after_long_help = suppression::EXAMPLES)]
    Suppression(suppression::SuppressionArgs),
    /// Reports of receivers on DMARC and TLS
    #[command(after_long_help = authreport::EXAMPLES)]
    AuthReport(authreport::AuthReportArgs),
    /// What is wrong, why, and what to do
    Alerts(alerts::AlertsArgs),
    /// Webhooks: how they are, test, send again
    #[command(after_long_help = webhook::EXAMPLES)]
    Webhook(webhook::WebhookArgs),
    /// Write a consistent copy of the store while mail flows
    Backup(control::BackupArgs),
    /// End intake, deliver what can be delivered, then end the daemon
    Drain(control::DrainArgs),
    /// Read the config again; a bad file keeps the old one
    Reload(control::PlainArgs),
    /// How the daemon is
    Status(control::PlainArgs),
}

impl AdminCommand {
    pub(super) fn run(self) -> anyhow::Result<super::Exit> {
        // Files are read without any daemon, and what is not understood is told by the exit code.
        if let AdminCommand::AuthReport(args) = &self
            && let authreport::AuthReportCommand::Read { files } = &args.command
        {
            return authreport::read(files, &mut Out::stdout(args.connection.json));
        }
        run(self)?;
        Ok(super::Exit::Success)
    }
}

/// Carries out a command on a runtime of its own; must not be called inside one. Prints to standard output.
pub fn run(command: AdminCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let connection = match &command {
            AdminCommand::Queue(args) => &args.connection,
            AdminCommand::Campaign(args) => &args.connection,
            AdminCommand::Message(args) => &args.connection,
            AdminCommand::Trace(args) => &args.connection,
            AdminCommand::Events(args) => &args.connection,
            AdminCommand::Contacts(args) => &args.connection,
            AdminCommand::Report(args) => &args.connection,
            AdminCommand::Suppression(args) => &args.connection,
            AdminCommand::AuthReport(args) => &args.connection,
            AdminCommand::Alerts(args) => &args.connection,
            AdminCommand::Webhook(args) => &args.connection,
            AdminCommand::Backup(args) => &args.connection,
            AdminCommand::Drain(args) => &args.connection,
            AdminCommand::Reload(args) | AdminCommand::Status(args) => &args.connection,
        };
        let client = Client::new(connection)?;
        let mut out = Out::stdout(connection.json);
        execute(&command, &client, &mut out).await
    });
    match done {
        // Whoever reads has seen enough: `posthaste queue list | head`.
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => {
            Ok(())
        }
        done => done,
    }
}

/// Carries out a command against any daemon, printing anywhere.
pub async fn execute(command: &AdminCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    match command {
        AdminCommand::Queue(args) => queue::run(&args.command, client, out).await,
        AdminCommand::Campaign(args) => campaign::run(args, client, out).await,
        AdminCommand::Message(args) => message::run(&args.command, client, out).await,
        AdminCommand::Trace(args) => message::run_trace(&args.command, client, out).await,
        AdminCommand::Events(args) => events::run(&args.command, client, out).await,
        AdminCommand::Report(args) => report::run(args, client, out).await,
        AdminCommand::Contacts(args) => contacts::run(args, client, out).await,
        AdminCommand::Suppression(args) => suppression::run(&args.command, client, out).await,
        AdminCommand::AuthReport(args) => authreport::run(&args.command, client, out).await,
        AdminCommand::Alerts(args) => alerts::run(&args.command, client, out).await,
        AdminCommand::Webhook(args) => webhook::run(&args.command, client, out).await,
        AdminCommand::Backup(args) => control::backup(args, client, out).await,
        AdminCommand::Drain(args) => control::drain(args, client, out).await,
        AdminCommand::Reload(_) => control::reload(client, out).await,
        AdminCommand::Status(_) => control::status(client, out).await,
    }
}
