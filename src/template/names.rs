//! The names that a template uses: unknown filters, tests and functions are found before anything is rendered.
//!
//! The engine itself finds them only when it comes to them, which may be at the last recipient.

use std::collections::BTreeSet;

use crate::template::lexer::{self, Kind, Token};
use crate::types::nearest;

/// Filters: the engine's, then ours.
pub(super) const FILTERS: [&str; 61] = [
    "safe",
    "escape",
    "e",
    "lower",
    "upper",
    "title",
    "capitalize",
    "replace",
    "length",
    "count",
    "dictsort",
    "items",
    "reverse",
    "trim",
    "join",
    "split",
    "lines",
    "default",
    "d",
    "round",
    "abs",
    "int",
    "float",
    "attr",
    "first",
    "last",
    "min",
    "max",
    "sort",
    "list",
    "string",
    "bool",
    "batch",
    "slice",
    "sum",
    "indent",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "map",
    "groupby",
    "unique",
    "chain",
    "zip",
    "pprint",
    "format",
    "urlencode",
    "date",
    "number",
    "currency",
    "salutation",
    "first_word",
    "truncate",
    "nl2br",
    "days_since",
    "days_until",
    "age",
    "containing",
    "startingwith",
    "endingwith",
];

/// Tests: the engine's, then ours.
pub(super) const TESTS: [&str; 46] = [
    "undefined",
    "defined",
    "none",
    "safe",
    "escaped",
    "boolean",
    "odd",
    "even",
    "divisibleby",
    "number",
    "integer",
    "int",
    "float",
    "string",
    "sequence",
    "iterable",
    "mapping",
    "startingwith",
    "endingwith",
    "lower",
    "upper",
    "sameas",
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "in",
    "true",
    "false",
    "filter",
    "test",
    "missing",
    "containing",
    "matching",
    "callable",
];

/// Functions: the engine's, then ours.
pub(super) const FUNCTIONS: [&str; 9] =
    ["range", "dict", "namespace", "now", "days_since", "days_until", "age", "caller", "super"];

/// Words of the language that are no variables.
const KEYWORDS: [&str; 14] =
    ["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None", "loop"];

/// What a template uses.
#[derive(Default, Debug)]
pub(super) struct Used {
    /// Functions it calls.
    pub(super) called: BTreeSet<String>,
    /// Names it uses as variables.
    pub(super) plain: BTreeSet<String>,
    /// Whether its variables are named where they are used: no loops, no assignments, no look-up by a computed name.
    pub(super) is_simple: bool,
}

/// An unknown name: where, what is wrong, what was probably meant.
pub(super) type Unknown = (usize, String, Option<String>);

/// Reads the names of a template.
///
/// # Errors
/// The first unknown filter, test or function.
pub(super) fn read(source: &str) -> Result<Used, Unknown> {
    let mut used = Used { is_simple: true, ..Used::default() };
    let mut macros: BTreeSet<String> = BTreeSet::new();
    let mut calls: Vec<(usize, String)> = Vec::new();
    let mut from = 0;
    while let Some(at) = lexer::next_block(source, from) {
        let end = lexer::block_end(source, at);
        if !source[at..].starts_with("{#") {
            let tokens = tokens(source, at, end);
            if source[at..].starts_with("{%") {
                let keyword = tokens.first().map_or("", |token| token.word);
                match keyword {
                    "raw" => {
                        from = raw_end(source, end);
                        continue;
                    }
                    "macro" => macros.extend(tokens.get(1).map(|token| token.word.to_owned())),
                    _ => {}
                }
                used.is_simple &= matches!(keyword, "if" | "elif" | "else" | "endif");
            }
            read_block(&tokens, &mut used, &mut calls)?;
        }
        from = end.max(at + 2);
    }
    for (at, name) in calls {
        if !FUNCTIONS.contains(&name.as_str()) && !macros.contains(&name) && !used.plain.contains(&name) {
            return Err(unknown(at, "function", &name, &FUNCTIONS));
        }
        used.called.insert(name);
    }
    Ok(used)
}

fn raw_end(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(block) = lexer::next_block(source, at) {
        let inner = source[block + 2..].trim_start_matches(['-', '+']).trim_start();
        if source[block..].starts_with("{%") && inner.starts_with("endraw") {
            return lexer::block_end(source, block);
        }
        at = block + 2;
    }
    source.len()
}

/// The words between the marks of a block.
fn tokens(source: &str, at: usize, end: usize) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut from = at + 2;
    from += usize::from(source[from..].starts_with(['-', '+']));
    while let Ok(Some(token)) = lexer::next(source, from) {
        from = token.at + token.word.len();
        if from >= end {
            break;
        }
        tokens.push(token);
    }
    tokens
}

fn read_block(tokens: &[Token<'_>], used: &mut Used, calls: &mut Vec<(usize, String)>) -> Result<(), Unknown> {
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).map_or("", |i| tokens[i].word);
        let after = tokens.get(i + 1).map_or("", |token| token.word);
        if token.kind == Kind::Sign && token.word == "[" {
            // A list is no look-up.
            let looks_up = i > 0 && (tokens[i - 1].kind == Kind::Name && !KEYWORDS.contains(&before) || before == ")");
            used.is_simple &= !looks_up;
        }
        if token.kind != Kind::Name {
            continue;
        }
        let before_that = i.checked_sub(2).map_or("", |i| tokens[i].word);
        let is_test = before == "is" || (before == "not" && before_that == "is");
        match before {
            "|" => {
                if !FILTERS.contains(&token.word) {
                    return Err(unknown(token.at, "filter", token.word, &FILTERS));
                }
                used.is_simple &= !matches!(
                    token.word,
                    "map" | "attr" | "select" | "reject" | "selectattr" | "rejectattr" | "groupby"
                );
            }
            _ if is_test && token.word != "not" => {
                if !TESTS.contains(&token.word) && !KEYWORDS.contains(&token.word) {
                    return Err(unknown(token.at, "test", token.word, &TESTS));
                }
            }
            "." => {}
            _ if KEYWORDS.contains(&token.word) => {}
            "macro" | "call" if after == "(" => {}
            _ if after == "(" => calls.push((token.at, token.word.to_owned())),
            _ => {
                used.plain.insert(token.word.to_owned());
            }
        }
    }
    Ok(())
}

fn unknown(at: usize, what: &str, name: &str, known: &[&'static str]) -> Unknown {
    let hint = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    (at, format!("there is no {what} `{name}`"), hint)
}
