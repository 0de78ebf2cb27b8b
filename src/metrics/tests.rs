//! The committed list of metrics is what the code registers.

use std::fmt::Write;

use super::*;

/// The list as a page; `UPDATE=1` writes it.
#[test]
fn docs_list_every_metric() {
    let registry = Registry::new();
    let _groups = register_all(&registry);
    let mut page = String::from(
        "# Metrics\n\nMade by a test from what the code registers (`UPDATE=1 cargo test --lib metrics::`). `GET /metrics` shows them in the\n\
         text format of Prometheus and needs no key. No label ever has a destination domain, a recipient or a campaign.\n\n\
         | name | kind | labels | what it tells |\n|---|---|---|---|\n",
    );
    for metric in registry.described() {
        let labels = metric.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind, metric.help).expect("memory");
        assert!(metric.name.starts_with("posthaste_"), "{}", metric.name);
        assert_eq!(
            metric.kind == "counter",
            metric.name.ends_with("_total"),
            "{}: counters end with _total",
            metric.name
        );
        assert!(metric.help.ends_with('.'), "{}: help is a sentence", metric.name);
        for label in ["domain", "recipient", "campaign"] {
            assert!(!metric.labels.iter().any(|l| l == label), "{}: label {label}", metric.name);
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).expect("docs/ can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(committed, page, "docs/metrics.md is not current: run with UPDATE=1");
}

#[test]
fn reasons_become_few_labels() {
    let registry = Registry::new();
    let groups = register_all(&registry);
    groups.backlog.set(&backlog::Backlog {
        held: vec![("site connections: 3 of 3 to mx.example".into(), 4), ("???".into(), 2), ("source rate".into(), 1)],
        ..backlog::Backlog::default()
    });
    let text = registry.encode();
    assert!(text.contains("posthaste_queue_held_recipients{reason=\"connection\"} 4"), "{text}");
    assert!(text.contains("posthaste_queue_held_recipients{reason=\"other\"} 2"), "{text}");
    assert!(!text.contains("mx.example"));
}
