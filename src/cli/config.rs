//! `posthaste config`: the reference of the configuration.

use super::{Exit, print};
use crate::config::reference;

/// About the configuration file.
#[derive(clap::Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Print the reference of all keys.
    Reference {
        /// As a commented configuration file to edit.
        #[arg(long)]
        toml: bool,
    },
}

impl ConfigCommand {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let ConfigCommand::Reference { toml } = self;
        print(&if toml { reference::commented_toml() } else { reference::markdown() })?;
        Ok(Exit::Success)
    }
}
