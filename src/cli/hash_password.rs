//! `posthaste hash-password`: a password's hash for `smtp_users`.

use std::io::{BufRead, IsTerminal, Read};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use argon2::{Argon2, PasswordHasher};

use super::{Exit, print};

/// The longest password that is taken, in octets: what AUTH PLAIN can carry in one line.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Make the hash of a password, for `smtp_users` in the configuration.
///
/// Reads the password from the terminal, without showing it, or its first line from standard input. Prints a PHC string of
/// argon2id (19 MiB, 2 passes). The password itself goes nowhere.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste hash-password
  pwgen -s 24 1 | tee app.password | posthaste hash-password")]
pub(super) struct HashPassword {}

impl HashPassword {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let stdin = std::io::stdin();
        let password = if stdin.is_terminal() {
            let _quiet = NoEcho::new();
            let first = prompt("Password: ")?;
            if prompt("Again: ")? != first {
                bail!("the two are not the same");
            }
            first
        } else {
            let mut line = String::new();
            stdin.lock().take(PASSWORD_BYTES_MAX as u64 + 2).read_line(&mut line).context("can't read the password")?;
            trim_line_end(&line).to_owned()
        };
        print(&hash(&password)?)?;
        Ok(Exit::Success)
    }
}

/// The hash of a password as a PHC string of argon2id, with a fresh salt.
pub(super) fn hash(password: &str) -> anyhow::Result<String> {
    if password.is_empty() {
        bail!("the password is empty");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        bail!("the password is longer than {PASSWORD_BYTES_MAX} octets");
    }
    if password.contains('\0') {
        bail!("NUL can't stand in a password (RFC 4616 §2)");
    }
    let mut salt = [0; 16];
    crate::seam::random::fill(&mut salt);
    let hash = Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|e| anyhow::anyhow!("can't hash the password: {e}"))?;
    Ok(hash.to_string())
}

fn trim_line_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn prompt(text: &str) -> anyhow::Result<String> {
    eprint!("{text}");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("can't read the password")?;
    eprintln!();
    Ok(trim_line_end(&line).to_owned())
}

/// Turns the terminal's echo off, and on again when dropped. `stty` does it: the system call would need `unsafe`.
struct NoEcho;

impl NoEcho {
    fn new() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(arg: &str) {
    // Where there is no stty the password is shown: a pity, not a reason to stop.
    let _ = Command::new("stty").arg(arg).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{PasswordHash, PasswordVerifier};

    #[test]
    fn the_hash_fits_its_password_and_no_other() {
        let text = hash("correct horse").expect("hashed");
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let parsed = PasswordHash::new(&text).expect("a PHC string");
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct hors", &parsed).is_err());
        assert_ne!(text, hash("correct horse").expect("hashed"), "each has its own salt");
    }

    #[test]
    fn refuses_what_auth_could_not_carry() {
        assert!(hash("").is_err() && hash("a\0b").is_err() && hash(&"a".repeat(1025)).is_err());
    }
}
