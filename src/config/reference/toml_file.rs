//! The commented configuration file, `config/posthaste.toml`.

use std::fmt::Write;

use serde_json::Value;

use super::parse::TypeDoc;
use super::{Section, Shape, inner, says_nothing, sections, shape, toml_value, type_doc};

/// The width at which comments are wrapped.
const WIDTH: usize = 100;

/// What stands in the file without a `#`: what a first start on loopback needs.
const ACTIVE: [&str; 7] = [
    "hostname",
    "data_dir",
    "[[smtp.listeners]]",
    "[[smtp.listeners]] address",
    "[[smtp.listeners]] relay_from",
    "[http]",
    "[http] address",
];

const HEAD: &str = "\
# Posthaste: the configuration, with every key.
#
# A line `#key = value` shows a default or, where there is none, an example: take away the # to set it.
# Unknown keys are errors. `posthaste check --config FILE` tells everything that is wrong, at once.
# After a change: `posthaste reload`, or SIGHUP; a file with errors changes nothing.
#
# Made from the source by `UPDATE=1 cargo test --test it generated`; the same in prose is docs/config.md.
";

/// `config/posthaste.toml`: every key with its purpose and its default or an example.
pub fn commented_toml() -> String {
    let mut out = HEAD.to_owned();
    for section in sections() {
        write_section(&mut out, &section);
    }
    out
}

fn write_section(out: &mut String, section: &Section) {
    let values: Vec<_> = section.ty.fields.iter().filter(|f| matches!(shape(f), Shape::Value)).collect();
    if values.is_empty() {
        return;
    }
    out.push('\n');
    if !section.header.is_empty() {
        let _ = writeln!(out, "# {}", "-".repeat(WIDTH - 2));
        comment(out, "", &section.doc);
        let mark = if ACTIVE.contains(&section.header.as_str()) { "" } else { "#" };
        let _ = writeln!(out, "{mark}{}", section.header);
    }
    for (i, field) in values.iter().enumerate() {
        if i > 0 || !section.header.is_empty() {
            out.push('\n');
        }
        comment(out, "", &field.doc);
        let ty = type_doc(inner(&field.ty).0);
        for variant in ty.iter().flat_map(|t| &t.variants) {
            comment(out, "  ", &format!("{:?}: {}", variant.name, variant.doc));
        }
        if let Some(entries) = ty.filter(|t| !t.fields.is_empty()) {
            inline_keys(out, entries);
        }
        let default = &section.defaults[&field.name];
        let example = &section.example[&field.name];
        let id =
            if section.header.is_empty() { field.name.clone() } else { format!("{} {}", section.header, field.name) };
        let active = ACTIVE.contains(&id.as_str());
        let no_default = field.required || says_nothing(default);
        let value: &Value = if (no_default || active) && !example.is_null() { example } else { default };
        let mark = if active { "" } else { "#" };
        let _ = writeln!(out, "{mark}{} = {}", field.name, toml_value(value));
    }
}

/// The keys of a table that is written inline.
fn inline_keys(out: &mut String, ty: &TypeDoc) {
    for field in &ty.fields {
        comment(out, "  ", &format!("{}: {}", field.name, field.doc));
    }
}

/// A comment, wrapped; further lines are indented under the first where that is indented.
fn comment(out: &mut String, indent: &str, text: &str) {
    let mut line = format!("# {indent}");
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = format!("# {indent}{indent}");
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_with};

    #[test]
    fn it_loads_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posthaste.toml");
        std::fs::write(&file, commented_toml()).expect("written");
        let (config, warnings) = load_with(&file, &Environment::default()).expect("valid");
        assert_eq!(warnings, []);
        assert_eq!(config.hostname, "mta1.example.com");
        assert_eq!(config.smtp.listeners.len(), 1);
    }

    #[test]
    fn every_commented_key_is_known_and_of_its_type() {
        let text: String = commented_toml()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posthaste.toml");
        std::fs::write(&file, &text).expect("written");
        std::fs::write(folder.path().join("providers.toml"), "").expect("written");
        let environment = Environment { credentials_dir: Some(folder.path().to_owned()) };
        let errors = load_with(&file, &environment).expect_err("its files are not there").errors;
        let others: Vec<_> = errors.iter().filter(|e| !e.message.starts_with("can't read ")).collect();
        assert_eq!(others, Vec::<&crate::config::Problem>::new(), "{text}");
        assert!(errors.len() >= 4, "certificate, two keys and a password: {errors:?}");
    }

    #[test]
    fn nothing_is_without_a_purpose() {
        for section in sections() {
            assert!(section.header.is_empty() || !section.doc.is_empty(), "{}", section.header);
            for field in &section.ty.fields {
                assert!(field.doc.len() > 5, "{}.{}", section.ty.name, field.name);
            }
        }
    }
}
