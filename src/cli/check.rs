//! `posthaste check`: everything that is wrong with a configuration, at once.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Exit, check_dns, print};
use crate::config;
use crate::delivery::sources;
use crate::queue::keys;

/// Check a configuration and all the files that it names.
///
/// Prints every error and warning as `file:line:column: key: message`, with a hint where there is one. Run it as the
/// daemon's user and on its host, so that it can read what the daemon can: it also tries whether the host has the
/// sources' addresses (nothing is sent). Exits with 0 where there is no error (warnings are allowed),
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
        let (loaded, errors, warnings) = match config::load(&self.config) {
            Ok((config, warnings)) => {
                // The keys are read once more as the daemon reads them: nothing else tells that it will start.
                let (loaded, errors) = match keys::load(&config).strict() {
                    Ok(ring) => (Some((config, ring)), Vec::new()),
                    Err(errors) => (None, errors.iter().map(ToString::to_string).collect()),
                };
                (loaded, errors, warnings)
            }
            Err(found) => (None, found.errors.iter().map(ToString::to_string).collect(), found.warnings),
        };
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        // The file can be right and this host the wrong one.
        warnings.extend(loaded.iter().flat_map(|(config, _)| sources::unusable(config)));
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
        match loaded {
            None => Ok(Exit::Failure),
            Some((config, ring)) if self.dns => check_dns::run(&config, &ring, self.quiet),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The daemon would not start with it, and the configuration's own check takes it.
    #[test]
    fn a_key_that_the_daemon_would_refuse_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key.pem");
        let made = crate::dkim::keygen(crate::dkim::Algorithm::Ed25519Sha256).expect("a key");
        let config = folder.path().join("posthaste.toml");
        let text = "hostname = 'mta.example'\ndata_dir = 'd'\n[[dkim]]\ndomain = 'acme.example'\nselector = 's1'\n\
                    algorithm = 'ed25519-sha256'\nkey_file = 'key.pem'\n";
        std::fs::write(&config, text).expect("written");
        let check = |key_text: &str, want: Exit| {
            let _ = std::fs::remove_file(&key);
            super::super::files::write_new(&key, 0o600, key_text).expect("written");
            let check = Check { config: config.clone(), dns: false, quiet: true };
            assert_eq!(check.run().expect("checked"), want);
        };
        check(&made.private_pem, Exit::Success);
        // More than the daemon reads of a key file stands before the key.
        check(&format!("{}{}", "# \n".repeat(30_000), made.private_pem), Exit::Failure);
    }
}
