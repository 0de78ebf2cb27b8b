//! `posthaste status`, `reload`, `backup` and `drain`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::human::{count, relative, size, span, time};
use super::out::{printable, printable_lines};
use super::{Client, Connection, Out};
use crate::api::ports::BackupDone;
use crate::api::types::{Reloaded, Status};

/// How often `drain --wait` looks.
const LOOK: Duration = Duration::from_secs(1);

/// A command without options of its own.
#[derive(Args, Clone, Debug)]
pub struct PlainArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
}

/// `backup` and its options.
#[derive(Args, Clone, Debug)]
#[command(
    after_long_help = "The folder must be empty or not exist; it is on the daemon's host. Restore: stop the daemon, put the folder in place of
the store under data_dir, start it. See docs/api.md.

Example:
  posthaste backup /var/backups/posthaste/2026-11-23"
)]
pub struct BackupArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// The folder to write
    pub dir: PathBuf,
}

/// `drain` and its options.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// Return only when the daemon has ended, showing what is left
    #[arg(long)]
    pub wait: bool,
}

/// Has a backup written.
pub async fn backup(args: &BackupArgs, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    let done: BackupDone = client.send(Method::POST, "/v1/admin/backup", &json!({ "dir": dir })).await?;
    if out.json {
        return out.value(&done);
    }
    out.line(format!("{}: {}, up to event {}", done.dir.display(), size(done.bytes), done.last_sequence.0))
}

/// Has the config read again.
pub async fn reload(client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let done: Reloaded = client.call(Method::POST, "/v1/admin/reload", None).await?;
    if out.json {
        return out.value(&done);
    }
    done.changes.iter().enumerate().try_for_each(|(i, change)| {
        let indent = if i == 0 { "" } else { "  " };
        out.line(format!("{indent}{}", printable_lines(change)))
    })
}

/// Ends intake, and with `--wait` waits for the end.
pub async fn drain(args: &DrainArgs, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let answer: Value = client.call(Method::POST, "/v1/admin/drain", None).await?;
    if out.json {
        out.value(&answer)?;
    } else {
        out.line("intake has ended; what is queued is being delivered")?;
    }
    if !args.wait {
        return Ok(());
    }
    loop {
        tokio::time::sleep(LOOK).await;
        // No answer means that it has ended: that is what was waited for.
        let Ok(status) = client.get::<Status>("/v1/admin/status").await else { break };
        let left = status.queues.map_or(0, |q| q.recipients);
        if !out.json {
            out.line(format!("{} recipients left", count(left)))?;
            out.flush()?;
        }
    }
    if out.json { Ok(()) } else { out.line("the daemon has ended") }
}

/// Shows how the daemon is.
pub async fn status(client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let s: Status = client.get("/v1/admin/status").await?;
    if out.json {
        return out.value(&s);
    }
    out.head(&format!("posthaste {} on {}: {}", s.version, printable(&s.hostname), s.state))?;
    for reason in &s.reasons {
        out.line(format!("  !         {}", printable(reason)))?;
    }
    out.line(format!("  process   {}, up {} since {}", s.pid, span(s.now.since(s.started)), time(s.started)))?;
    if let Some(resident) = s.resident_bytes {
        out.line(format!("  memory    {}", size(resident)))?;
    }
    let free = s.free_bytes.map_or(String::new(), |free| format!(", {} free", size(free)));
    out.line(format!("  data      {}{free}, {} events", s.data_dir.display(), count(s.last_event)))?;
    for listener in &s.listeners {
        out.line(format!("  listens   {}", printable(listener)))?;
    }
    let Some(queues) = &s.queues else { return out.line("  queues    the scheduler does not answer") };
    let oldest = queues.oldest.map_or(String::new(), |t| format!(", oldest {}", relative(t, s.now)));
    out.line(format!(
        "  queues    {} recipients in {} queues, {} in an attempt{oldest}",
        count(queues.recipients),
        count(queues.queues),
        count(queues.in_flight)
    ))
}
