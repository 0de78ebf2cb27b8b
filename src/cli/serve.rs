//! `posthaste serve`: the daemon, in the foreground.

use std::path::PathBuf;

use super::Exit;
use crate::{config, daemon, logging};

/// Run the daemon.
///
/// Stays in the foreground, for a service manager. SIGTERM ends intake, finishes what is under way within 30 seconds and
/// exits with 0; SIGHUP reads the configuration again. Logs go to standard error.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  posthaste serve --config /etc/posthaste/posthaste.toml")]
pub(super) struct Serve {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG", default_value = "/etc/posthaste/posthaste.toml")]
    config: PathBuf,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (config, warnings) = match config::load(&self.config) {
            Ok(loaded) => loaded,
            Err(errors) => {
                for problem in errors.errors.iter().chain(&errors.warnings) {
                    eprintln!("{problem}");
                }
                return Ok(Exit::Failure);
            }
        };
        let log = logging::init(&config.log)?;
        // The daemon loads it again, and tells the warnings: here it was only asked where the log goes.
        drop((config, warnings));
        daemon::serve(&self.config, log)?;
        Ok(Exit::Success)
    }
}
