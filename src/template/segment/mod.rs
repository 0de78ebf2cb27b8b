//! Segments: an expression over a row that says whether the recipient belongs.
//!
//! 1. [`Segment::compile`] reads the expression into a tree; names become places in a list,
//! 2. a row's JSON is read once, and only the values at those places are kept, borrowed from it,
//! 3. the tree is evaluated over them.
//!
//! The language is the expressions of Jinja, with an evaluator of its own for three reasons: it is several times faster than the template
//! engine, a missing value is counted and not an error, and text that is compared with a number is a number or an error, where the
//! engine would order it by type without a word. Where values have the right types, both agree: a test compares them.

mod eval;
mod parse;
mod row;

use regex::{Regex, RegexBuilder};

use crate::template::{TemplateError, Vars};
use crate::types::{Timestamp, nearest};
use parse::Expr;
use row::Trie;

/// Octets of an expression.
pub const EXPRESSION_MAX: usize = 16 * 1024;

/// Memory of a compiled pattern; a larger one is refused. Matching is linear in the text whatever the pattern.
const PATTERN_MEMORY_MAX: usize = 1 << 20;

/// An expression over a row.
#[derive(Debug)]
pub struct Segment {
    expr: Expr,
    names: Vec<String>,
    trie: Trie,
    /// Whether a name is a field of a value that is asked for too; seldom.
    pub(super) source: String,
}

/// Why an expression has no answer for a row.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    /// A value does not fit its operation.
    #[error("{message}")]
    Type {
        /// The variable, where it is one.
        name: Option<String>,
        /// Both types, and the value.
        message: String,
    },
    /// The row is no JSON object.
    #[error("the row can't be read: {0}")]
    Row(String),
}

/// The names that rows lacked where their value was asked for: by the place of the name in [`Segment::names`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    rows: Vec<u64>,
    seen: Vec<bool>,
}

impl Missing {
    /// Names with the number of rows that lacked them, those that none lacked left out.
    pub fn counts<'a>(&'a self, segment: &'a Segment) -> impl Iterator<Item = (&'a str, u64)> {
        segment.names.iter().zip(&self.rows).filter(|(_, rows)| **rows > 0).map(|(name, rows)| (name.as_str(), *rows))
    }

    /// Adds another's counts, of the same segment.
    pub fn merge(&mut self, other: &Missing) {
        self.rows.resize(self.rows.len().max(other.rows.len()), 0);
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            *mine += theirs;
        }
    }

    fn note(&mut self, name: usize) {
        if let Some(seen) = self.seen.get_mut(name) {
            *seen = true;
        }
    }

    fn begin(&mut self, names: usize) {
        self.rows.resize(names, 0);
        self.seen.clear();
        self.seen.resize(names, false);
    }

    fn end(&mut self) {
        for (rows, seen) in self.rows.iter_mut().zip(&self.seen) {
            *rows += u64::from(*seen);
        }
    }
}

impl Segment {
    /// Reads an expression.
    ///
    /// # Errors
    /// With line and column: syntax, an unknown function, filter or test, a pattern that is none.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        let (expr, names) = parse::parse(source)?;
        let trie = Trie::new(&names);
        Ok(Self { expr, names, trie, source: source.to_owned() })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables that it names, with dots.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Names that no row has, given those that some row has in `vars`, each with the name that was probably meant.
    pub fn unknown_names<'a>(&'a self, known: &'a [&'a str]) -> Vec<(&'a str, Option<&'a str>)> {
        let own = ["email", "name", "tz"];
        let mut unknown = Vec::new();
        for name in &self.names {
            let first = name.strip_prefix("vars.").unwrap_or(name);
            let first = first.split('.').next().unwrap_or(first);
            if !(own.contains(&first) || first == "metadata" || known.contains(&first)) {
                unknown.push((name.as_str(), nearest(first, known.iter().copied().chain(own))));
            }
        }
        unknown
    }

    /// Whether a row belongs: the JSON object `{email, name?, tz?, vars{}, metadata{}}`.
    ///
    /// # Errors
    /// When a value does not fit, or the row is no such object.
    pub fn eval_row(&self, row: &[u8], now: Timestamp) -> Result<bool, SegmentError> {
        self.eval_counting(row, now, &mut Missing::default())
    }

    /// As [`Segment::eval_row`], and counts the names whose missing value made a comparison false.
    ///
    /// # Errors
    /// As there.
    pub fn eval_counting(&self, row: &[u8], now: Timestamp, missing: &mut Missing) -> Result<bool, SegmentError> {
        let values = self.trie.read(row, self.names.len())?;
        self.eval_values(&values, now, missing)
    }

    /// Whether the recipient of these variables belongs. Slower than [`Segment::eval_row`].
    ///
    /// # Errors
    /// When a value does not fit.
    pub fn eval(&self, vars: &Vars, now: Timestamp) -> Result<bool, SegmentError> {
        let found: Vec<_> = self.names.iter().map(|name| vars.get(name)).collect();
        let values: Vec<_> = found.iter().map(|value| value.as_ref().map(row::of_value).unwrap_or_default()).collect();
        self.eval_values(&values, now, &mut Missing::default())
    }

    fn eval_values(
        &self,
        values: &[row::Val<'_>],
        now: Timestamp,
        missing: &mut Missing,
    ) -> Result<bool, SegmentError> {
        missing.begin(self.names.len());
        let result = eval::Eval { values, names: &self.names, now, missing }.truth(&self.expr);
        missing.end();
        result
    }
}

/// A pattern for `matching`.
pub(super) fn pattern(source: &str) -> Result<Regex, String> {
    RegexBuilder::new(source).size_limit(PATTERN_MEMORY_MAX).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "this pattern is too large".to_owned(),
        other => format!("this is no pattern: {}", other.to_string().lines().last().unwrap_or_default().trim()),
    })
}

#[cfg(test)]
mod tests;
