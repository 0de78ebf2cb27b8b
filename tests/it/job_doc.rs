//! The guide to campaigns names every field of a job.

use std::fs;

/// The names of the fields of a struct, as its source has them.
fn fields(source: &str, name: &str) -> Vec<String> {
    let begin = source.find(&format!("pub struct {name} {{")).unwrap_or_else(|| panic!("job.rs has a struct {name}"));
    let body = source[begin..].split("\n}").next().unwrap_or_default();
    let field = |line: &str| line.trim().strip_prefix("pub ")?.split_once(':').map(|(name, _)| name.to_owned());
    body.lines().skip(1).filter_map(field).collect()
}

#[test]
fn the_guide_names_every_field_of_a_job() {
    // A field that is built and not told is a field that nobody uses.
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (source, guide) = (read("src/campaign/job.rs"), read("docs/campaigns.md"));
    let tables = [("Job", ""), ("Exclude", "exclude."), ("Schedule", "schedule."), ("StopIf", "stop_if.")];
    let mut missing = Vec::new();
    for (name, prefix) in tables {
        let fields = fields(&source, name);
        assert!(fields.len() >= 3, "the fields of {name} are found: {fields:?}");
        for field in fields {
            // A table is told by its own fields.
            let told = [format!("| `{prefix}{field}` |"), format!("| `{prefix}{field}.")];
            if !told.iter().any(|told| guide.contains(told.as_str())) {
                missing.push(format!("{prefix}{field}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/campaigns.md does not name {missing:?}");
}
