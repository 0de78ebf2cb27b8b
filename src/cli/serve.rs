//! `posthaste serve`: the daemon, in the foreground.

use std::path::PathBuf;

use anyhow::Context;

use super::Exit;
use crate::config;

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
                errors.errors.iter().for_each(|error| eprintln!("error: {error}"));
                errors.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                return Ok(Exit::Failure);
            }
        };
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("can't make the data folder {}", config.data_dir.display()))?;
        anyhow::bail!("this build has no daemon: the engines are not joined yet")
    }
}
