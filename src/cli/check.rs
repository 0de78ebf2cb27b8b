//! `posthaste check`: everything that is wrong with a configuration, at once.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Exit, check_dns, print};
use crate::config;

/// Check a configuration and all the files that it names.
///
/// Prints every error and warning as `file:line:column: key: message`, with a hint where there is one. Run it as the
/// daemon's user, so that it can read what the daemon can. Exits with 0 where there is no error (warnings are allowed),
/// else with 1.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste check --config posthaste.toml
  posthaste check --config posthaste.toml --dns      and what the DNS says of its names")]
pub(super) struct Check {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG", default_value = "/etc/posthaste/posthaste.toml")]
    config: PathBuf,
    /// Also ask the DNS: host name and sources both ways, DKIM records, bounce domains.
    #[arg(long)]
    dns: bool,
    /// Only errors, no warnings and no summary.
    #[arg(short, long)]
    quiet: bool,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (config, errors, warnings) = match config::load(&self.config) {
            Ok((config, warnings)) => (Some(config), Vec::new(), warnings),
            Err(found) => (None, found.errors, found.warnings),
        };
        let mut out = String::new();
        for error in &errors {
            let _ = writeln!(out, "error: {error}");
        }
        if !self.quiet {
            for warning in &warnings {
                let _ = writeln!(out, "warning: {warning}");
            }
            let _ = writeln!(out, "{}", summary(&self.config, errors.len(), warnings.len()));
        }
        if !out.is_empty() {
            print(&out)?;
        }
        match config {
            None => Ok(Exit::Failure),
            Some(config) if self.dns => check_dns::run(&config, self.quiet),
            Some(_) => Ok(Exit::Success),
        }
    }
}

/// `1 error`, `2 errors`.
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn summary(file: &std::path::Path, errors: usize, warnings: usize) -> String {
    let file = file.display();
    match (errors, warnings) {
        (0, 0) => format!("{file}: ok"),
        (0, n) => format!("{file}: ok, with {}", count(n, "warning")),
        (e, w) => format!("{file}: {}, {}", count(e, "error"), count(w, "warning")),
    }
}
