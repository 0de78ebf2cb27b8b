//! The log: where it goes and in which form.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime as LogTime;

use crate::config::{Log, LogFormat};

/// The variable that wins over `[log] level`.
pub const LEVEL_VARIABLE: &str = "POSTHASTE_LOG";

/// Sends the log of this process to standard error, as `[log]` asks. Under journald the time is left to it.
///
/// Called once, before anything logs; a second call is an error.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let level = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| log.level.clone());
    let filter = EnvFilter::try_new(&level).map_err(|e| anyhow::anyhow!("the log level {level:?} is wrong: {e}"))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text if under_journald => builder.without_time().try_init(),
        LogFormat::Text => builder.with_timer(LogTime).try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("the log can't be started: {e}"))
}
