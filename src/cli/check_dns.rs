//! `posthaste check --dns`: what the DNS says of the names in the configuration.

use super::Exit;
use crate::config::Config;

/// Asks the DNS and prints what is missing there.
pub(super) fn run(_config: &Config) -> anyhow::Result<Exit> {
    anyhow::bail!("this build has no resolver: --dns can't ask anybody yet")
}
