//! The command line: what an operator types, and what it exits with.
//!
//! 1. [`run`] parses the arguments into a [`Command`]; called as `sendmail` (by a link) it is `posthaste send`,
//! 2. each command is a struct of its own module with the method `run`, which prints and answers an [`Exit`],
//! 3. an error is told on standard error with its causes, and exits with 1.
//!
//! A new command is one line in `commands!`. Only this module and what is below it print.

pub mod admin;
mod bounce;
mod check;
pub mod check_dns;
mod completions;
mod config;
pub mod demo;
mod dkim;
mod exit;
mod files;
mod hash_password;
mod init;
mod print;
mod providers;
mod rules;
mod send;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use exit::Exit;
use print::print;

/// A self-hosted mail delivery server for campaigns and transactional mail.
#[derive(Parser, Debug)]
#[command(name = "posthaste", version, max_term_width = 110, propagate_version = true)]
#[command(after_help = "\
Begin with:
  posthaste init ./mail                              make a configuration to begin with
  posthaste check --config ./mail/posthaste.toml     tell everything that is wrong with it
  posthaste serve --config ./mail/posthaste.toml     run

Exit codes: 0 success; 1 failure; 2 wrong arguments. `send` uses those of sysexits.h, see its help.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Makes the enum of commands and its dispatch from one line a command.
macro_rules! commands {
    ($($(#[$meta:meta])* $name:ident($args:ty),)*) => {
        /// What to do.
        #[derive(Subcommand, Debug)]
        enum Command {
            $($(#[$meta])* $name($args),)*
        }

        impl Command {
            fn run(self) -> anyhow::Result<Exit> {
                match self {
                    $(Command::$name(args) => args.run(),)*
                }
            }
        }
    };
}

commands! {
    Serve(serve::Serve),
    Init(init::Init),
    Check(check::Check),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    #[command(subcommand)]
    Providers(providers::ProvidersCommand),
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    #[command(subcommand)]
    Dkim(dkim::DkimCommand),
    #[command(subcommand)]
    Bounce(bounce::BounceCommand),
    Send(send::Send),
    HashPassword(hash_password::HashPassword),
    Completions(completions::Completions),
    Demo(demo::Demo),
    #[command(flatten)]
    Admin(admin::AdminCommand),
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    run_with(std::env::args_os().collect()).into()
}

fn run_with(mut args: Vec<OsString>) -> Exit {
    if called_as_sendmail(&args) {
        args.insert(1, "send".into());
    }
    let is_send = args.get(1).is_some_and(|arg| arg == "send");
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version come as errors too; they go to standard output and are a success.
            let wrong = e.use_stderr();
            let _ = e.print();
            return match wrong {
                false => Exit::Success,
                true if is_send => Exit::SendUsage,
                true => Exit::Usage,
            };
        }
    };
    match cli.command.run() {
        Ok(exit) => exit,
        Err(e) if is_broken_pipe(&e) => Exit::Success,
        Err(e) => {
            eprintln!("posthaste: {e:#}");
            Exit::Failure
        }
    }
}

/// A reader such as `head` that has seen enough is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn called_as_sendmail(args: &[OsString]) -> bool {
    let name = args.first().map(std::path::Path::new).and_then(|path| path.file_name());
    name.is_some_and(|name| name == "sendmail")
}

/// The help of every command, as it stands in `docs/cli.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# The commands\n\nMade from the source by `UPDATE=1 cargo test --test it generated`; `posthaste help COMMAND` prints it.\n",
    );
    let mut root = Cli::command().term_width(100);
    root.build();
    append_help(&mut out, &mut root, "posthaste");
    out
}

fn append_help(out: &mut String, command: &mut clap::Command, path: &str) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    out.push_str(&format!("\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        if let Some(sub) = command.find_subcommand_mut(name) {
            let path = format!("{path} {name}");
            append_help(out, sub, &path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_agrees_with_itself() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_exit_with_their_codes() {
        let run = |args: &[&str]| run_with(args.iter().map(OsString::from).collect());
        assert_eq!(run(&["posthaste", "serv"]), Exit::Usage);
        assert_eq!(run(&["posthaste", "send", "--nonsense"]), Exit::SendUsage);
        assert_eq!(run(&["/usr/sbin/sendmail", "--nonsense"]), Exit::SendUsage);
        assert_eq!(run(&["posthaste", "check", "--config", "/nowhere.toml"]), Exit::Failure);
    }
}
