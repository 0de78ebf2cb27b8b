//! The text forms: CSV records cut out of a stream, and lines of an export.

use super::record::Entry;
use crate::types::{Name, Timestamp};

/// The longest record of a CSV file, in octets: an address, a note and a few words. A file without line ends is refused there.
pub const RECORD_LEN_MAX: usize = 16 << 10;

/// The columns of an export, in their order. An import reads the same, in any order.
pub const CSV_HEADER: &str = "email,reason,scope,tenant,list,since,expires,source,note";

/// A record is longer than [`RECORD_LEN_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {0}: the record is longer than 16 KiB: is a quote not closed, or is this no CSV file?")]
pub struct RecordsError(pub u64);

/// Cuts a stream into pieces that hold whole records: a line end within quotes ends none (RFC 4180 §2.6).
#[derive(Debug)]
pub struct Records {
    buffer: Vec<u8>,
    scanned: usize,
    ended: usize,
    quoted: bool,
    line: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self { buffer: Vec::new(), scanned: 0, ended: 0, quoted: false, line: 1 }
    }
}

impl Records {
    /// Takes what came; answers the records that are whole now, and the number of the line on which they begin, from 1.
    pub fn feed(&mut self, octets: &[u8]) -> Result<Option<(u64, Vec<u8>)>, RecordsError> {
        self.buffer.extend_from_slice(octets);
        for (i, octet) in self.buffer[self.scanned..].iter().enumerate() {
            match octet {
                b'"' => self.quoted = !self.quoted,
                b'\n' if !self.quoted => self.ended = self.scanned + i + 1,
                _ => {}
            }
        }
        self.scanned = self.buffer.len();
        let begins = self.line;
        let whole = (self.ended > 0).then(|| {
            let rest = self.buffer.split_off(self.ended);
            let whole = std::mem::replace(&mut self.buffer, rest);
            self.line += whole.iter().filter(|b| **b == b'\n').count() as u64;
            (self.scanned, self.ended) = (self.buffer.len(), 0);
            (begins, whole)
        });
        if self.buffer.len() > RECORD_LEN_MAX {
            return Err(RecordsError(self.line));
        }
        Ok(whole)
    }

    /// What is left at the end: a last line without its end.
    pub fn finish(self) -> Option<(u64, Vec<u8>)> {
        (!self.buffer.is_empty()).then_some((self.line, self.buffer))
    }
}

/// An entry as a line of CSV with its line end. An erased one has no address.
pub fn csv_line(entry: &Entry) -> String {
    let name = |name: Option<&Name>| name.map_or("", Name::as_str).to_owned();
    let fields = [
        entry.address.as_ref().map_or("", |a| a.as_str()).to_owned(),
        entry.reason.as_str().to_owned(),
        entry.scope.as_str().to_owned(),
        name(entry.scope.tenant()),
        name(entry.scope.list()),
        entry.since.rfc3339(),
        entry.expires.map(Timestamp::rfc3339).unwrap_or_default(),
        entry.source.to_string(),
        entry.note.to_string(),
    ];
    let quoted = fields.iter().map(|field| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

/// A text without controls and without blanks at its ends, so that it stays on one line of a log or a table.
pub(super) fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().to_owned()
}

/// A time as RFC 3339, or a date, which means its beginning in UTC.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    serde_json::from_value(serde_json::Value::from(whole))
        .map_err(|_| format!("{text:?} is not a time as 2027-01-31T12:00:00Z, nor a date as 2027-01-31"))
}
