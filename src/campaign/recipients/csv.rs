//! CSV as people have it (RFC 4180 and its neighbours): the dialect is found out, a record is split in place, a row is made of it.
//!
//! 1. [`Dialect::of_header`] reads the first record: the delimiter that occurs most in it, what its columns are,
//! 2. [`split`] finds where a record ends and where its fields stand, without a copy,
//! 3. [`Dialect::row`] makes the row: special columns by name, `metadata.x` to the metadata, all others are variables, as text. An empty
//!    cell is not set, so that `on_missing` and the scan before the start see it.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};

use super::limits::{COLUMNS_MAX, VARIABLE_NAME_MAX};
use super::row::{Given, Rejected, write_text};

/// The delimiters that are looked for; the first wins where two occur as often.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Names of the column with the address, the best first: where there is an `email`, an `address` is a variable (a street).
const ADDRESS_COLUMNS: [&str; 5] = ["email", "e-mail", "email_address", "mail", "address"];

/// How 8-bit text is read. Found out by the first record that is not ASCII, and kept from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// All was ASCII so far.
    #[default]
    Unknown,
    /// UTF-8.
    Utf8,
    /// Windows-1252, which contains ISO 8859-1: what old spreadsheets write.
    Windows1252,
}

impl Encoding {
    /// The text of a record's octets; `None` where they are not in the encoding of the records before.
    pub fn decode(&mut self, octets: &[u8]) -> Option<()> {
        if octets.is_ascii() {
            return Some(());
        }
        let utf8 = std::str::from_utf8(octets).is_ok();
        match (*self, utf8) {
            (Encoding::Unknown, true) => *self = Encoding::Utf8,
            (Encoding::Unknown, false) => *self = Encoding::Windows1252,
            (Encoding::Utf8, false) => return None,
            (Encoding::Utf8, true) | (Encoding::Windows1252, _) => {}
        }
        Some(())
    }

    /// The text of octets of a record that [`Self::decode`] agreed to.
    fn text(self, octets: &[u8]) -> Cow<'_, str> {
        match self {
            Encoding::Windows1252 => encoding_rs::WINDOWS_1252.decode_without_bom_handling(octets).0,
            Encoding::Unknown | Encoding::Utf8 => String::from_utf8_lossy(octets),
        }
    }
}

/// What a column is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Column {
    /// The address.
    Email,
    /// The recipient's name.
    Name,
    /// The recipient's time zone.
    Tz,
    /// A variable.
    Var(Box<str>),
    /// A member of the metadata.
    Metadata(Box<str>),
}

/// How a file is written: what a later part of the same file, which has no header, must be told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dialect {
    /// What separates fields.
    pub delimiter: u8,
    /// The columns.
    pub columns: Vec<Column>,
}

/// Why the first record is no header; the whole upload is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// No column has the addresses.
    #[error("no column is named email, e-mail or address: the first line must be the header; it has {0}")]
    NoEmail(String),
    /// Two columns are named the same.
    #[error("two columns are named {0:?}")]
    Twice(String),
    /// A column has no name.
    #[error("column {0} has no name")]
    NoName(usize),
    /// Too many.
    #[error("there are more than {COLUMNS_MAX} columns")]
    TooMany,
    /// A name is too long.
    #[error("the name of column {0} is longer than {VARIABLE_NAME_MAX} octets")]
    LongName(usize),
    /// A quote is not closed.
    #[error("a quote in the header is not closed, or text follows it")]
    Quotes,
    /// Lines end with CR alone.
    #[error("lines end with CR alone: save the file with LF or CRLF")]
    BareCr,
}

/// A field of a record: where it stands, without its quotes, and whether it has doubled quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    from: usize,
    to: usize,
    escaped: bool,
}

/// What [`split`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// A record of so many octets, its line end included.
    Record(usize),
    /// The record does not end here: more octets are needed.
    Incomplete,
    /// Text stands behind a closing quote.
    TextAfterQuote,
    /// The octets end inside quotes.
    OpenQuote,
    /// It has too many fields.
    TooMany,
}

/// Finds the end of the first record and its fields. `last` says that nothing follows the octets.
pub fn split(octets: &[u8], delimiter: u8, last: bool, fields: &mut Vec<Field>) -> Split {
    fields.clear();
    let mut at = 0;
    loop {
        if fields.len() >= COLUMNS_MAX {
            return Split::TooMany;
        }
        if octets.get(at) == Some(&b'"') {
            let (to, escaped) = match closing_quote(octets, at + 1, last) {
                Ok(found) => found,
                Err(split) => return split,
            };
            fields.push(Field { from: at + 1, to, escaped });
            match octets[to + 1..] {
                [b, ..] if b == delimiter => at = to + 2,
                [b'\n', ..] => return Split::Record(to + 2),
                [b'\r', b'\n', ..] => return Split::Record(to + 3),
                [] | [b'\r'] if last => return Split::Record(octets.len()),
                [] | [b'\r'] => return Split::Incomplete,
                [..] => return Split::TextAfterQuote,
            }
            continue;
        }
        let Some(len) = memchr2(delimiter, b'\n', &octets[at..]) else {
            if !last {
                return Split::Incomplete;
            }
            fields.push(Field { from: at, to: without_cr(octets, at, octets.len()), escaped: false });
            return Split::Record(octets.len());
        };
        let end = at + len;
        if octets[end] == delimiter {
            fields.push(Field { from: at, to: end, escaped: false });
            at = end + 1;
        } else {
            fields.push(Field { from: at, to: without_cr(octets, at, end), escaped: false });
            return Split::Record(end + 1);
        }
    }
}

/// Where the closing quote stands, and whether quotes before it are doubled.
fn closing_quote(octets: &[u8], mut at: usize, last: bool) -> Result<(usize, bool), Split> {
    let open = if last { Split::OpenQuote } else { Split::Incomplete };
    let mut escaped = false;
    loop {
        let Some(len) = memchr(b'"', octets.get(at..).unwrap_or_default()) else { return Err(open) };
        let quote = at + len;
        match octets.get(quote + 1) {
            Some(b'"') => {
                escaped = true;
                at = quote + 2;
            }
            None if !last => return Err(Split::Incomplete),
            Some(_) | None => return Ok((quote, escaped)),
        }
    }
}

fn without_cr(octets: &[u8], from: usize, to: usize) -> usize {
    if to > from && octets[to - 1] == b'\r' { to - 1 } else { to }
}

/// The delimiter that stands most often outside quotes in the first line.
pub fn delimiter(header: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut quoted = false;
    for byte in header {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            byte if !quoted => {
                if let Some(i) = DELIMITERS.iter().position(|d| d == byte) {
                    counts[i] += 1;
                }
            }
            _ => {}
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.iter().position(|c| *c == most).map_or(b',', |i| DELIMITERS[i])
}

impl Dialect {
    /// Reads the header: a record that [`split`] found with this delimiter.
    pub fn of_header(
        record: &[u8],
        fields: &[Field],
        delimiter: u8,
        encoding: &mut Encoding,
    ) -> Result<Self, HeaderError> {
        // A first record in neither encoding is not possible: the first one decides.
        let _ = encoding.decode(record);
        let names: Vec<String> = fields.iter().map(|f| cell(record, *f, *encoding).trim().to_owned()).collect();
        if names.iter().any(|name| name.contains('\r')) {
            return Err(HeaderError::BareCr);
        }
        if let Some(at) = names.iter().position(|name| name.len() > VARIABLE_NAME_MAX) {
            return Err(HeaderError::LongName(at + 1));
        }
        let lower: Vec<String> = names.iter().map(|n| n.to_lowercase().replace(' ', "_")).collect();
        let place = |name: &&str| lower.iter().position(|l| l == name);
        let Some(email) = ADDRESS_COLUMNS.iter().find_map(place) else {
            return Err(HeaderError::NoEmail(listed(&names)));
        };
        if let Some(at) = names.iter().position(String::is_empty) {
            return Err(HeaderError::NoName(at + 1));
        }
        let mut columns = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let column = match lower[at].as_str() {
                _ if at == email => Column::Email,
                "name" => Column::Name,
                "tz" => Column::Tz,
                _ => match name.split_once('.') {
                    Some((what, name)) if what.eq_ignore_ascii_case("metadata") => Column::Metadata(name.into()),
                    Some((what, name)) if what.eq_ignore_ascii_case("vars") => Column::Var(identifier(name).into()),
                    Some(_) | None => Column::Var(identifier(name).into()),
                },
            };
            // The names as they are known in the end: `first name` and `first_name` are one.
            if columns.contains(&column) || (lower[at] == lower[email] && at != email) {
                return Err(HeaderError::Twice(name.clone()));
            }
            columns.push(column);
        }
        Ok(Self { delimiter, columns })
    }

    /// The row of a record, and what else is in it; the address is not parsed yet.
    pub fn row<T>(
        &self,
        record: &[u8],
        fields: &[Field],
        encoding: Encoding,
        scratch: &mut Scratch,
        then: impl FnOnce(Given<'_>) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        scratch.vars.clear();
        scratch.metadata.clear();
        let (mut email, mut name, mut tz) = (Cow::Borrowed(""), Cow::Borrowed(""), Cow::Borrowed(""));
        for (field, column) in fields.iter().zip(&self.columns) {
            if field.from == field.to {
                continue;
            }
            let text = cell(record, *field, encoding);
            match column {
                Column::Email => email = text,
                Column::Name => name = text,
                Column::Tz => tz = text,
                Column::Var(key) => member(&mut scratch.vars, key, &text),
                Column::Metadata(key) => member(&mut scratch.metadata, key, &text),
            }
        }
        if fields.len() != self.columns.len() {
            let detail = format!("{} fields, the header has {}", fields.len(), self.columns.len());
            return Err(Rejected::invalid(email.trim(), detail));
        }
        let set = |text: &'_ str| !text.trim().is_empty();
        then(Given {
            email: email.trim(),
            name: Some(name.trim()).filter(|t| set(t)),
            tz: Some(tz.trim()).filter(|t| set(t)),
            vars: &scratch.vars,
            metadata: &scratch.metadata,
        })
    }
}

/// Room that is used again for each row.
#[derive(Debug, Default)]
pub struct Scratch {
    vars: Vec<u8>,
    metadata: Vec<u8>,
}

fn member(out: &mut Vec<u8>, key: &str, text: &str) {
    if !out.is_empty() {
        out.push(b',');
    }
    write_text(out, key);
    out.push(b':');
    write_text(out, text);
}

/// The text of a field.
fn cell(record: &[u8], field: Field, encoding: Encoding) -> Cow<'_, str> {
    let text = encoding.text(&record[field.from..field.to]);
    if field.escaped { Cow::Owned(text.replace("\"\"", "\"")) } else { text }
}

/// A column's name as a template can say it: `First name` is `First_name`, `2nd` is `_2nd`.
fn identifier(name: &str) -> String {
    let mut out: String = name.trim().chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if out.chars().next().is_none_or(|c| c.is_numeric()) {
        out.insert(0, '_');
    }
    out
}

/// The names for an error: the first ten.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|n| format!("{:?}", super::row::cut(n, 40))).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
