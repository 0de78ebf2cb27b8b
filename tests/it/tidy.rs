//! The habits that a compiler does not check: layers, seams, module docs, sizes, TODOs with a reason.
//!
//! 1. Every Rust file under `src` is read, and cut where its tests begin,
//! 2. each rule is a pure function of the file's path and text that answers what is wrong,
//! 3. one test runs them all over the tree; the others show that each rule can fail.

use std::path::{Path, PathBuf};

/// The modules of each layer, from the words that all share up to the daemon. DESIGN: a module imports only from
/// lower layers.
const LAYERS: [&[&str]; 7] = [
    &["types", "event", "metrics", "seam"],
    &["smtp", "mime", "dkim", "bounce", "feedback"],
    &["config", "shaping", "template", "effects", "alert"],
    &["store", "suppression", "links"],
    &["queue", "delivery", "campaign", "inbound", "webhook", "report"],
    &["smtp_server", "api", "tracking", "dashboard", "sandbox"],
    &["cli", "daemon", "logging", "main", "lib"],
];

/// Layers whose modules may use each other: words, formats, and the top that joins all.
const OPEN_LAYERS: [usize; 3] = [0, 1, 6];

/// What a module may use beside the layers below it.
const BESIDE: [(&str, &str); 10] = [
    ("alert", "config"),
    ("shaping", "config"),
    ("effects", "config"),
    ("suppression", "store"),
    ("links", "store"),
    ("queue", "delivery"),
    ("campaign", "queue"),
    ("inbound", "queue"),
    ("campaign", "delivery"),
    ("webhook", "delivery"),
];

/// Names that one module alone may say, with why.
const RESERVED: [(&str, &str, &str); 5] = [
    ("SystemTime", "seam", "the clock is a parameter, so that tests hold it in hand"),
    ("rand::", "seam", "randomness comes with a seed where a run must be repeatable"),
    ("tokio::net", "seam", "sockets are made in one place"),
    ("hickory", "seam", "the resolver can be replaced in tests"),
    ("fjall", "store", "the store alone knows its database"),
];

/// The longest file, in lines without its tests.
const LINES_MAX: usize = 600;

/// Said of a file: what is wrong, with the line where there is one.
type Wrong = Vec<String>;

/// Each import goes to a lower layer.
fn layers(path: &str, text: &str) -> Wrong {
    let modules = module_path(path);
    let Some(module) = modules.first() else { return Vec::new() };
    let Some(layer) = layer_of(module) else {
        return vec![format!("the module `{module}` stands in no layer: add it to LAYERS in tests/it/tidy.rs")];
    };
    let mut wrong = Vec::new();
    for (number, used) in used_modules(&modules, text) {
        let Some(of_used) = layer_of(&used) else { continue };
        let same = used == *module || (of_used == layer && OPEN_LAYERS.contains(&layer));
        let beside = BESIDE.contains(&(module.as_str(), used.as_str()));
        if of_used >= layer && !same && !beside {
            wrong.push(format!("line {number}: `{module}` (layer {layer}) uses `{used}` (layer {of_used})"));
        }
    }
    wrong
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// `queue/scan.rs` is `[queue, scan]`, `queue/mod.rs` is `[queue]`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The top-level modules that a text names: by `crate::` or by enough `super::`, alone or in a group.
fn used_modules(modules: &[String], text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|line| format!("{}\n", code_of(line))).collect();
    let mut to_top = "super::".repeat(modules.len());
    to_top.truncate(to_top.len().saturating_sub(2));
    let mut found = Vec::new();
    for prefix in ["crate", to_top.as_str()].into_iter().filter(|prefix| !prefix.is_empty()) {
        let pattern = format!("{prefix}::");
        for (at, _) in code.match_indices(&pattern) {
            let before = code[..at].chars().next_back();
            // `$crate::`, `x::super::` and a longer chain of `super::` are something else.
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let names = first_names(&code[at + pattern.len()..]);
            found.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first name of a path, or of each path in a group: `{a::b, c::{d, e}, f}` gives a, c, f.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(group[start..i].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(group[start..i].trim_start()));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A reserved name is said only by its module.
fn reserved(path: &str, text: &str) -> Wrong {
    let modules = module_path(path);
    let mut wrong = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for (name, owner, why) in RESERVED {
            let said = code_of(line).match_indices(name).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                // A crate's name begins a path; `SystemTime` may end one.
                let inner = name != "SystemTime" && before == Some(':');
                !inner && !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '"'))
            });
            if said && modules[0] != owner {
                wrong.push(format!("line {}: only `{owner}` says `{name}`: {why}", i + 1));
            }
        }
    }
    wrong
}

/// A line without its comment. A `//` in a string cuts too much, which hides nothing that these rules look for.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// A file begins by saying what it is.
fn module_docs(_: &str, text: &str) -> Wrong {
    match text.lines().next() {
        Some(line) if line.starts_with("//! ") && line.len() > "//! x".len() => Vec::new(),
        _ => vec!["line 1: a module begins with `//!` and what it is".into()],
    }
}

/// A TODO says why it is not done. Gaps against an RFC are marked `RFC todo`.
fn todos(_: &str, text: &str) -> Wrong {
    let mut wrong = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let Some(comment) = line.split_once("//").map(|(_, comment)| comment) else { continue };
        for word in ["TODO", "FIXME", "XXX"] {
            if let Some((_, rest)) = comment.split_once(word)
                && rest.trim_start_matches(':').split_whitespace().count() < 3
            {
                wrong.push(format!("line {}: a {word} without a reason", i + 1));
            }
        }
    }
    wrong
}

/// A file that is too long has a state, a verb or a type that wants a room of its own.
fn size(_: &str, text: &str) -> Wrong {
    let lines = text.lines().count();
    if lines > LINES_MAX { vec![format!("{lines} lines, of {LINES_MAX} at most")] } else { Vec::new() }
}

const RULES: [fn(&str, &str) -> Wrong; 5] = [layers, reserved, module_docs, todos, size];

/// What stands before the tests inside a file; files of tests have nothing before.
fn without_tests<'t>(path: &str, text: &'t str) -> Option<&'t str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name == "tests.rs" || path.split('/').any(|part| part == "tests") {
        return None;
    }
    let inline = text.find("\n#[cfg(test)]\nmod ").filter(|at| {
        let header = text[at + 1..].lines().nth(1).unwrap_or("");
        header.ends_with('{')
    });
    Some(inline.map_or(text, |at| &text[..=at]))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    for entry in entries.map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            rust_files(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

#[test]
fn the_tree_is_tidy() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files.sort();
    assert!(files.len() > 20, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).expect("below src").to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(&file).expect("the file can be read");
        let Some(text) = without_tests(&path, &text) else { continue };
        for rule in RULES {
            wrong.extend(rule(&path, text).into_iter().map(|what| format!("src/{path}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn check(rule: fn(&str, &str) -> Wrong, path: &str, text: &str, want: &[&str]) {
    assert_eq!(rule(path, text), want, "{path}:\n{text}");
}

#[test]
fn an_import_against_the_layers_is_found() {
    check(layers, "types/ids.rs", "use crate::config::Config;", &["line 1: `types` (layer 0) uses `config` (layer 2)"]);
    check(
        layers,
        "delivery/mod.rs",
        "//! x\nuse crate::queue::Q;",
        &["line 2: `delivery` (layer 4) uses `queue` (layer 4)"],
    );
    check(layers, "queue/mod.rs", "use crate::delivery::D; use crate::queue::x; use crate::types::y;", &[]);
    check(
        layers,
        "smtp/data.rs",
        "let x = crate::store::Ledger::new();",
        &["line 1: `smtp` (layer 1) uses `store` (layer 3)"],
    );
    check(
        layers,
        "config/mod.rs",
        "use crate::{\n    types::{Name, Domain},\n    api::Server,\n};",
        &["line 1: `config` (layer 2) uses `api` (layer 5)"],
    );
    check(
        layers,
        "store/disk/scan.rs",
        "use super::super::super::queue::Q;",
        &["line 1: `store` (layer 3) uses `queue` (layer 4)"],
    );
    check(layers, "store/disk/scan.rs", "use super::super::queue::Q; // crate::api", &[]);
    check(layers, "report/mod.rs", "use crate::webhook::W;", &["line 1: `report` (layer 4) uses `webhook` (layer 4)"]);
    check(layers, "attic/mod.rs", "", &["the module `attic` stands in no layer: add it to LAYERS in tests/it/tidy.rs"]);
}

#[test]
fn a_reserved_name_is_found() {
    check(
        reserved,
        "queue/mod.rs",
        "let now = SystemTime::now();",
        &["line 1: only `seam` says `SystemTime`: the clock is a parameter, so that tests hold it in hand"],
    );
    check(
        reserved,
        "api/mod.rs",
        "\nuse tokio::net::TcpListener;",
        &["line 2: only `seam` says `tokio::net`: sockets are made in one place"],
    );
    check(reserved, "store/mod.rs", "use fjall::Database;", &[]);
    check(reserved, "queue/mod.rs", "// like fjall does\nuse aws_lc_rs::rand::X; operand::x", &[]);
    check(reserved, "seam/dns.rs", "use hickory_resolver::X; use rand::Rng;", &[]);
    assert_eq!(reserved("delivery/mx.rs", "use hickory_resolver::X; use rand::Rng;").len(), 2);
}

#[test]
fn missing_docs_are_found() {
    check(module_docs, "a.rs", "use std::fmt;", &["line 1: a module begins with `//!` and what it is"]);
    check(module_docs, "a.rs", "//! x\n", &["line 1: a module begins with `//!` and what it is"]);
    check(module_docs, "a.rs", "//! Parses replies.\n", &[]);
}

#[test]
fn a_todo_without_a_reason_is_found() {
    check(todos, "a.rs", "x(); // TODO\n", &["line 1: a TODO without a reason"]);
    check(todos, "a.rs", "// FIXME: later\n", &["line 1: a FIXME without a reason"]);
    check(todos, "a.rs", "// TODO: BDAT, when a peer needs it\n// RFC todo 3461 §6.3: relayed\n", &[]);
}

#[test]
fn a_long_file_is_found() {
    check(size, "a.rs", &"x\n".repeat(600), &[]);
    check(size, "a.rs", &"x\n".repeat(601), &["601 lines, of 600 at most"]);
}

#[test]
fn tests_are_left_out() {
    assert_eq!(without_tests("a/tests.rs", "x"), None);
    assert_eq!(without_tests("a/tests/b.rs", "x"), None);
    assert_eq!(without_tests("a.rs", "x\n#[cfg(test)]\nmod tests {\n y"), Some("x\n"));
    assert_eq!(without_tests("a.rs", "x\n#[cfg(test)]\nmod tests;\ny"), Some("x\n#[cfg(test)]\nmod tests;\ny"));
}
