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

/// Alerts and dashboard speak of metrics that there are: one that is renamed would make an alert that never fires.
#[test]
fn monitoring_names_real_metrics() {
    let known = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the list of metrics");
    for file in ["config/monitoring/alerts.yml", "config/monitoring/grafana.json"] {
        let text = std::fs::read_to_string(root().join(file)).expect("a file");
        let end = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let names = text.match_indices("posthaste_").map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(end).unwrap_or(rest.len())]
        });
        let mut count = 0;
        for name in names {
            let base = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(known.contains(&format!("`{base}`")), "{file} names {name}, which is no metric");
            count += 1;
        }
        assert!(count > 20, "{file} names {count} metrics only");
    }
}
