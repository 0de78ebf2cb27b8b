//! The fuzz harness on stable: every function of `tests/fuzz/harness.rs` on its corpus, on all other corpora, and on seeded changes.
//!
//! Always the same inputs for the same seed. `FUZZ_SEED=n` takes other ones, `FUZZ_ROUNDS=n` so many for each function.

#[path = "../fuzz/harness.rs"]
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use posthaste::seam::random::Seeded;

/// Changed inputs for each function, where nothing else is said.
const ROUNDS: u64 = 400;

/// The functions that start threads, write files or sign get fewer: each costs as much as a hundred of the others.
const SLOW: &[&str] = &["config", "dkim", "rows", "template"];

/// The largest input that is made.
const INPUT_MAX: usize = 8 << 10;

/// Words that the formats hang on, put in anywhere.
const WORDS: &[&[u8]] = &[
    b"\r\n.\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\n.\n",
    b"\r\n\r\n",
    b".",
    b"\"",
    b"\\",
    b"<",
    b">",
    b"@",
    b":",
    b";",
    b",",
    b"=",
    b"+0A",
    b"=0D=0A",
    b"=?utf-8?B?DQo=?=",
    "\u{2028}".as_bytes(),
    "\u{85}".as_bytes(),
    b"\xff",
    b"250-",
    b"250 ",
    b"421 ",
    b"354 x\r\n",
    b"From: a@b.example\r\n",
    b"Bcc: x\r\n",
    b"--b\r\n",
    b"((((((((",
    b"{{",
    b"}}",
    b"{% for x in l %}",
    b"[",
    b"]",
    b"{",
    b"}",
    b" ",
    b"MAIL FROM:<",
    b"RCPT TO:<",
    b"99999999999999999999",
    b"-1",
    b"1e999",
    b"xn--",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The inputs of each corpus, in the order of their names.
fn corpora() -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut corpora = BTreeMap::new();
    for entry in std::fs::read_dir(folder().join("corpus")).expect("the corpora are there") {
        let path = entry.expect("readable").path();
        let files: BTreeSet<PathBuf> =
            std::fs::read_dir(&path).expect("a folder").map(|file| file.expect("readable").path()).collect();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        corpora.insert(name, files.iter().map(|file| std::fs::read(file).expect("readable")).collect());
    }
    corpora
}

/// Whether the function held on this input; what did not is told, with the input, for its corpus.
fn holds(name: &str, target: harness::Target, input: &[u8], what: &str) -> bool {
    let held = catch_unwind(AssertUnwindSafe(|| target(input))).is_ok();
    if !held {
        eprintln!("{name} fails on {what}; an input for tests/fuzz/corpus/{name}: b\"{}\"", input.escape_ascii());
    }
    held
}

/// A few changes: octets flipped, taken out, doubled, cut, words put in, another input joined.
fn change(random: &mut Seeded, inputs: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Seeded| inputs[random.below(inputs.len() as u64) as usize].clone();
    let mut input = pick(random);
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() as u64 + 1) as usize;
        let end = (at + random.below(16) as usize).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 => drop(input.drain(at..end)),
            2 => {
                let again = input[at..end].to_vec();
                for _ in 0..=random.below(40) {
                    input.splice(at..at, again.iter().copied());
                }
            }
            3 => input.truncate(at.max(1)),
            4 => {
                let other = pick(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                input.splice(at.., other[from..].iter().copied());
            }
            5 if at < input.len() => input[at] = random.below(256) as u8,
            _ => drop(input.splice(at..at, WORDS[random.below(WORDS.len() as u64) as usize].iter().copied())),
        }
        input.truncate(INPUT_MAX);
    }
    input
}

#[test]
fn every_function_has_its_corpus_and_its_target() {
    let names: Vec<&str> = harness::ALL.iter().map(|(name, _)| *name).collect();
    let corpora = corpora();
    assert_eq!(corpora.keys().map(String::as_str).collect::<Vec<_>>(), names);
    assert!(corpora.values().all(|inputs| inputs.len() >= 3), "too few inputs in a corpus");
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("the package of the targets");
    for name in names {
        let source = std::fs::read_to_string(folder().join(format!("targets/{name}.rs"))).expect("its target");
        assert!(source.contains(&format!("harness::{name}(")) || source.contains("harness::"), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target of the package");
    }
}

#[test]
fn all_inputs_of_all_corpora() {
    let corpora = corpora();
    let mut failed = BTreeSet::new();
    for (name, target) in harness::ALL {
        for (of, inputs) in &corpora {
            // What is of another format is as hostile as anything.
            if of != name && SLOW.contains(name) {
                continue;
            }
            for input in inputs {
                if !holds(name, *target, input, of) {
                    failed.insert(*name);
                }
            }
        }
        assert!(holds(name, *target, b"", "nothing"));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn changed_inputs() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (seed, rounds) = (number("FUZZ_SEED", 1), number("FUZZ_ROUNDS", ROUNDS));
    let mut failed = BTreeSet::new();
    for (name, inputs) in corpora() {
        let (_, target) = harness::ALL.iter().find(|(known, _)| *known == name).expect("a function for each corpus");
        let slow = SLOW.contains(&name.as_str());
        for round in 0..if slow { rounds / 4 } else { rounds } {
            let mut random = Seeded::new(seed << 32 | round);
            let input = change(&mut random, &inputs);
            if !holds(&name, *target, &input, &format!("seed {seed}, round {round}")) {
                // One input for each function is enough to begin with.
                failed.insert(name);
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
