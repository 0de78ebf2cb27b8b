//! `posthaste completions`: the shell completes our commands.

use clap::CommandFactory;

use super::{Cli, Exit, print};

/// Print the completions for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  posthaste completions bash > /etc/bash_completion.d/posthaste")]
pub(super) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut out = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "posthaste", &mut out);
        print(&String::from_utf8_lossy(&out))?;
        Ok(Exit::Success)
    }
}
