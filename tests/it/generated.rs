//! Files that are made from the source are current. `UPDATE=1 cargo test --test it generated` writes them.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a committed file with what the source says, or writes it.
fn check(file: &str, want: &str) {
    let path: PathBuf = root().join(file);
    if std::env::var_os("UPDATE").is_some() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("the folder can be made");
        }
        std::fs::write(&path, want).expect("the file can be written");
        return;
    }
    let got = std::fs::read_to_string(&path).unwrap_or_default();
    let first = got.lines().zip(want.lines()).position(|(got, want)| got != want);
    let line = first.unwrap_or_else(|| got.lines().count().min(want.lines().count())) + 1;
    assert!(
        got == want,
        "{file} is not current (line {line}):\n  committed: {:?}\n  source:    {:?}\n\
         run `UPDATE=1 cargo test --test it generated`",
        got.lines().nth(line - 1),
        want.lines().nth(line - 1),
    );
}

#[test]
fn config_reference() {
    check("docs/config.md", &posthaste::config::reference::markdown());
}

#[test]
fn commented_config() {
    check("config/posthaste.toml", &posthaste::config::reference::commented_toml());
}

#[test]
fn the_committed_config_loads() {
    let file = root().join("config/posthaste.toml");
    let (_, warnings) = posthaste::config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);
}

#[test]
fn cli_reference() {
    check("docs/cli.md", &posthaste::cli::reference());
}
