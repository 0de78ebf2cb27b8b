//! The log: standard error as text or JSON; under systemd with priorities, so that journald knows them.
//!
//! What is logged is said by `POSTHASTE_LOG`, else by `[log] level`. A reload changes the level; the form stays.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

/// The variable that wins over the config.
pub const VARIABLE: &str = "POSTHASTE_LOG";

/// Why the log can't be set up: names where the bad directive stands.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A directive that can't be read.
    #[error("{place}: {error}")]
    Filter {
        /// `log.level` or the variable.
        place: &'static str,
        /// What is wrong.
        error: tracing_subscriber::filter::ParseError,
    },
    /// Set up a second time.
    #[error("the log is already set up")]
    Twice,
}

/// Changes the level later.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Takes the level of a new config. The variable still wins.
    pub fn reload(&self, log: &Log) -> Result<(), LogError> {
        let filter = filter(log)?;
        // Fails only when the subscriber is gone, at the end of the process.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// Sets up the log of the process; once.
pub fn init(log: &Log) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let journal = is_journal();
    let writer = Stderr { priorities: journal };
    let registry = tracing_subscriber::registry().with(filter);
    let done = match (log.format, journal) {
        (LogFormat::Json, _) => registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init(),
        // journald keeps the time itself, and colors would be noise in it.
        (LogFormat::Text, true) => {
            registry.with(fmt::layer().without_time().with_level(false).with_ansi(false).with_writer(writer)).try_init()
        }
        (LogFormat::Text, false) => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            registry.with(fmt::layer().with_ansi(ansi).with_writer(writer)).try_init()
        }
    };
    done.map_err(|_| LogError::Twice)?;
    Ok(LogHandle(handle))
}

fn filter(log: &Log) -> Result<EnvFilter, LogError> {
    let from_env = std::env::var(VARIABLE).ok().filter(|v| !v.trim().is_empty());
    let (place, text) = match &from_env {
        Some(text) => (VARIABLE, text.as_str()),
        None => ("log.level", log.level.as_str()),
    };
    EnvFilter::try_new(text).map_err(|error| LogError::Filter { place, error })
}

/// Whether standard error is journald's: `JOURNAL_STREAM` has its device and inode (systemd.exec(5)). The variable alone is not
/// enough, it is inherited by what a unit starts.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Standard error; with `priorities` each line begins with `<N>` (sd-daemon(3)).
struct Stderr {
    priorities: bool,
}

/// One record on its way to standard error.
struct Record {
    prefix: &'static str,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record { prefix: "" }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Record {
        Record { prefix: if self.priorities { priority(*meta.level()) } else { "" } }
    }
}

/// The syslog priorities of the levels (RFC 5424 §6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

impl Write for Record {
    /// The formatter hands over a whole record; it goes out as one write, so that lines of threads never mix.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        write_record(&mut io::stderr().lock(), self.prefix, record)?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn write_record(out: &mut impl Write, prefix: &str, record: &[u8]) -> io::Result<()> {
    if prefix.is_empty() {
        return out.write_all(record);
    }
    let mut line = Vec::with_capacity(prefix.len() + record.len());
    line.extend_from_slice(prefix.as_bytes());
    line.extend_from_slice(record);
    out.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_its_priority() {
        let mut out = Vec::new();
        write_record(&mut out, priority(Level::WARN), b"delivery deferred\n").expect("memory");
        assert_eq!(out, b"<4>delivery deferred\n");
    }

    #[test]
    fn a_bad_level_names_its_place() {
        let log = Log { level: "posthaste=loud".into(), format: LogFormat::Text };
        let error = filter(&log).expect_err("not a level").to_string();
        assert!(error.starts_with("log.level: "), "{error}");
    }
}
