//! A body becomes rows: one at a time, in flat memory, each with the place in the body where it ends.
//!
//! 1. The body is opened ([`super::body`]), its format is what was said, else what the first octet that is not blank says,
//! 2. a CSV body begins with its header; one that goes on in the middle of a file was told it ([`Dialect`]),
//! 3. [`Rows::next_row`] gives each row, or why it is none, and reading goes on at the next line: a record that is broken over several lines
//!    (a quote that is not closed) costs its first line only,
//! 4. what can't be a list at all ends the upload with a [`Refusal`]; the rows before it stand.

use std::io::{self, Read};

use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::body::{self, BodyError, Compression, Mark};
use super::buffer::RowBuffer;
use super::csv::{self, Dialect, Encoding, Field, HeaderError, Scratch, Split};
use super::limits::{BROKEN_RECORDS_MAX, ROW_BYTES_MAX, SKIP_BYTES_MAX};
use super::ndjson;
use super::row::{Given, Place, Reason, Rejected};

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An object a line.
    Ndjson,
    /// A header and records.
    Csv,
}

/// What is known of a file beside its octets: what a later part of it must be told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shape {
    /// How its rows are written, once that is known.
    pub format: Option<Format>,
    /// Its columns, for CSV.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dialect: Option<Dialect>,
    /// How it began.
    #[serde(default)]
    pub mark: Mark,
    /// How its 8-bit text is read.
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether it is compressed: then no offset in it can be gone on from.
    #[serde(default)]
    pub compressed: bool,
    /// Where its last row stood.
    #[serde(default)]
    pub place: Place,
    /// Octets of it that were understood, as they were sent.
    #[serde(default)]
    pub offset: u64,
}

/// Why a body can't be read any further. The rows before are kept.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The client went away.
    #[error("{0}")]
    BrokenOff(String),
    /// It is no list of recipients: a sentence that says where and why.
    #[error("{0}")]
    Unreadable(String),
    /// It becomes too large when decompressed.
    #[error("{0}")]
    Bomb(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<BodyError>()) {
            Some(BodyError::BrokenOff(_)) => Refusal::BrokenOff(error.to_string()),
            Some(BodyError::Compressed(..)) => Refusal::Unreadable(error.to_string()),
            Some(BodyError::Bomb(..)) => Refusal::Bomb(error.to_string()),
            None => Refusal::BrokenOff(error.to_string()),
        }
    }
}

/// The rows of a body.
pub struct Rows {
    buffer: RowBuffer,
    shape: Shape,
    fields: Vec<Field>,
    scratch: Scratch,
    broken: u64,
}

impl Rows {
    /// Opens a body from its beginning.
    pub fn open(
        body: impl Read + 'static,
        compression: Option<Compression>,
        format: Option<Format>,
    ) -> Result<Self, Refusal> {
        let plain = body::open(body, compression, None)?;
        let shape = Shape {
            format,
            mark: plain.mark,
            compressed: plain.compression.is_some(),
            offset: plain.mark.octets() as u64,
            ..Shape::default()
        };
        Self::of(plain, shape).begin()
    }

    /// Opens what follows in a file of this shape, which is not compressed.
    pub fn go_on(body: impl Read + 'static, shape: Shape) -> Result<Self, Refusal> {
        let fresh = shape.offset == 0;
        let plain = body::open(body, None, (!fresh).then_some(shape.mark))?;
        if fresh {
            let format = shape.format;
            let shape = Shape { format, mark: plain.mark, offset: plain.mark.octets() as u64, ..Shape::default() };
            return Self::of(plain, shape).begin();
        }
        Self::of(plain, shape).begin()
    }

    fn of(plain: body::Plain, shape: Shape) -> Self {
        Self { buffer: RowBuffer::new(plain.octets), shape, fields: Vec::new(), scratch: Scratch::default(), broken: 0 }
    }

    /// What is known of the file up to the last row given.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Finds out the format, and reads the header.
    fn begin(mut self) -> Result<Self, Refusal> {
        let format = match self.shape.format {
            Some(format) => format,
            None => match self.first_octet()? {
                None => return Ok(self),
                Some(b'{') => Format::Ndjson,
                Some(b'[') => {
                    let why = "the body is a JSON list: send an object a line (NDJSON), without brackets and commas around them";
                    return Err(Refusal::Unreadable(why.into()));
                }
                Some(_) => Format::Csv,
            },
        };
        self.shape.format = Some(format);
        if format == Format::Csv && self.shape.dialect.is_none() && self.first_octet()?.is_some() {
            self.header()?;
        }
        Ok(self)
    }

    /// The first octet that is not blank; blank lines before it are passed over.
    fn first_octet(&mut self) -> Result<Option<u8>, Refusal> {
        loop {
            let octets = self.buffer.octets();
            if let Some(at) = octets.iter().position(|b| !b.is_ascii_whitespace()) {
                let first = octets[at];
                // Only whole lines: a tab may be the delimiter of a header whose first name is empty.
                let lines = octets[..at].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                self.pass(lines);
                return Ok(Some(first));
            }
            if !self.buffer.fill()? {
                if self.buffer.last() {
                    return Ok(None);
                }
                let blank = self.buffer.octets().len();
                self.pass(blank);
                if self.shape.offset > SKIP_BYTES_MAX as u64 {
                    return Err(Refusal::Unreadable("the body begins with a megabyte of blanks".into()));
                }
            }
        }
    }

    fn header(&mut self) -> Result<(), Refusal> {
        loop {
            let octets = self.buffer.octets();
            let delimiter = csv::delimiter(octets);
            let wrong = match csv::split(octets, delimiter, self.buffer.last(), &mut self.fields) {
                Split::Incomplete => {
                    if self.buffer.fill()? || self.buffer.last() {
                        continue;
                    }
                    if octets_have_cr_only(self.buffer.octets()) {
                        return Err(Refusal::Unreadable(HeaderError::BareCr.to_string()));
                    }
                    let why = format!("the first line is longer than {ROW_BYTES_MAX} octets: this is no list");
                    return Err(Refusal::Unreadable(why));
                }
                Split::Record(len) => {
                    let record = &octets[..len];
                    match Dialect::of_header(record, &self.fields, delimiter, &mut self.shape.encoding) {
                        Ok(dialect) => {
                            self.shape.dialect = Some(dialect);
                            self.pass(len);
                            return Ok(());
                        }
                        Err(wrong) => wrong,
                    }
                }
                Split::TooMany => HeaderError::TooMany,
                Split::TextAfterQuote | Split::OpenQuote => HeaderError::Quotes,
            };
            return Err(Refusal::Unreadable(wrong.to_string()));
        }
    }

    /// The next row, made by `make` of what was given, or why it is none; `None` at the end. Its place is in [`Self::shape`] then.
    pub fn next_row<T>(
        &mut self,
        make: impl FnOnce(Given<'_>) -> Result<T, Rejected>,
    ) -> Result<Option<Result<T, Rejected>>, Refusal> {
        loop {
            let octets = self.buffer.octets();
            // Its LF may not have come yet: it must not make a row of the CR, wherever the body is cut.
            if octets == b"\r" && !self.buffer.last() && self.buffer.fill()? {
                continue;
            }
            let octets = self.buffer.octets();
            let blank = blank_line(octets, self.buffer.last());
            if blank > 0 {
                self.pass(blank);
                continue;
            }
            if octets.is_empty() {
                if self.buffer.fill()? {
                    continue;
                }
                return Ok(None);
            }
            break;
        }
        match self.shape.format {
            Some(Format::Csv) => self.next_csv(make).map(Some),
            Some(Format::Ndjson) | None => self.next_json(make).map(Some),
        }
    }

    fn next_json<T>(
        &mut self,
        make: impl FnOnce(Given<'_>) -> Result<T, Rejected>,
    ) -> Result<Result<T, Rejected>, Refusal> {
        let Some((line, len)) = self.line()? else { return self.too_long() };
        let made = ndjson::row(&self.buffer.octets()[..line], make);
        self.take(len);
        Ok(made)
    }

    fn next_csv<T>(
        &mut self,
        make: impl FnOnce(Given<'_>) -> Result<T, Rejected>,
    ) -> Result<Result<T, Rejected>, Refusal> {
        let Some(dialect) = self.shape.dialect.take() else {
            return Err(Refusal::Unreadable("the header is not known".into()));
        };
        let row = self.csv_record(&dialect, make);
        self.shape.dialect = Some(dialect);
        row
    }

    fn csv_record<T>(
        &mut self,
        dialect: &Dialect,
        make: impl FnOnce(Given<'_>) -> Result<T, Rejected>,
    ) -> Result<Result<T, Rejected>, Refusal> {
        loop {
            let octets = self.buffer.octets();
            match csv::split(octets, dialect.delimiter, self.buffer.last(), &mut self.fields) {
                Split::Record(len) if len <= ROW_BYTES_MAX => {
                    let record = &octets[..len];
                    if self.fields.len() != dialect.columns.len() && several_lines(record) {
                        return self.broken_record("a quote is not closed where it should be");
                    }
                    if self.shape.encoding.decode(record).is_none() {
                        self.take(len);
                        return Ok(Err(Rejected::invalid("", "not valid UTF-8, as the rows before are")));
                    }
                    let made = dialect.row(record, &self.fields, self.shape.encoding, &mut self.scratch, make);
                    self.take(len);
                    return Ok(made);
                }
                Split::Record(_) => return self.too_long(),
                Split::Incomplete => {
                    if self.buffer.fill()? || self.buffer.last() {
                        continue;
                    }
                    // A row's worth is there and no end: a quote that is not closed, or one endless line.
                    if several_lines(self.buffer.octets()) {
                        return self.broken_record("a quote is not closed within 64 KiB");
                    }
                    return self.too_long();
                }
                Split::OpenQuote => return self.broken_record("a quote is not closed"),
                Split::TextAfterQuote => {
                    return self.broken_record("text stands behind a closing quote: double the quotes inside a field");
                }
                Split::TooMany => return self.broken_record("more fields than a file may have columns"),
            }
        }
    }

    /// A record that is no record: its first line is given up, the next one is tried.
    fn broken_record<T>(&mut self, detail: &str) -> Result<Result<T, Rejected>, Refusal> {
        self.broken += 1;
        if self.broken > BROKEN_RECORDS_MAX {
            let why =
                format!("line {}: more than {BROKEN_RECORDS_MAX} rows have broken quotes", self.shape.place.line + 1);
            return Err(Refusal::Unreadable(why));
        }
        let Some((line, len)) = self.line()? else { return self.too_long() };
        let text = String::from_utf8_lossy(&self.buffer.octets()[..line.min(80)]).into_owned();
        let at = self.shape.dialect.as_ref().map_or(b',', |d| d.delimiter);
        let address = text.split(char::from(at)).find(|part| part.contains('@')).unwrap_or_default();
        let rejected = Rejected::invalid(address.trim_matches(['"', ' ']), detail);
        self.take(len);
        Ok(Err(rejected))
    }

    /// The first line: its length without and with its end; `None` when it is too long.
    fn line(&mut self) -> Result<Option<(usize, usize)>, Refusal> {
        loop {
            let octets = self.buffer.octets();
            let (line, len) = match memchr(b'\n', octets) {
                Some(at) => (at, at + 1),
                None if self.buffer.last() => (octets.len(), octets.len()),
                None => {
                    if self.buffer.fill()? || self.buffer.last() {
                        continue;
                    }
                    return Ok(None);
                }
            };
            if len > ROW_BYTES_MAX {
                return Ok(None);
            }
            let line = if octets[..line].ends_with(b"\r") { line - 1 } else { line };
            return Ok(Some((line, len)));
        }
    }

    /// Passes over a line that is too long; one that never ends refuses the upload.
    fn too_long<T>(&mut self) -> Result<Result<T, Rejected>, Refusal> {
        let start = String::from_utf8_lossy(&self.buffer.octets()[..80.min(self.buffer.octets().len())]).into_owned();
        let mut skipped = 0;
        let mut octets = 0;
        loop {
            match memchr(b'\n', self.buffer.octets()) {
                Some(at) => {
                    octets += self.pass(at);
                    self.take(1);
                    break;
                }
                None => {
                    let len = self.buffer.octets().len();
                    octets += self.pass(len);
                    skipped += len;
                }
            }
            if skipped > SKIP_BYTES_MAX {
                let line = self.shape.place.line + 1;
                return Err(Refusal::Unreadable(format!(
                    "line {line} does not end within {SKIP_BYTES_MAX} octets: this is no list of rows"
                )));
            }
            if !self.buffer.fill()? && self.buffer.last() && self.buffer.octets().is_empty() {
                self.shape.place.row += 1;
                self.shape.place.line += 1;
                break;
            }
        }
        let detail = format!("longer than {ROW_BYTES_MAX} octets: {octets}; it begins with {start:?}");
        Ok(Err(Rejected::new(Reason::TooLong, "", detail)))
    }

    /// Passes over a row. The last one may have no line end; it stands on a line of its own all the same.
    fn take(&mut self, len: usize) {
        self.shape.place.row += 1;
        if !self.buffer.octets()[..len].ends_with(b"\n") {
            self.shape.place.line += 1;
        }
        self.pass(len);
    }

    /// Passes over octets, and counts them as they were sent.
    fn pass(&mut self, len: usize) -> usize {
        let octets = &self.buffer.octets()[..len];
        let sent = match self.shape.mark.is_utf16() {
            false => octets.len(),
            true => utf16_len(octets) * 2,
        };
        self.shape.place.line += memchr::memchr_iter(b'\n', octets).count() as u64;
        self.shape.offset += sent as u64;
        self.buffer.consume(len);
        sent
    }
}

/// How many units of UTF-16 some UTF-8 is: counted by lead octets, so that a cut inside a character does no harm.
fn utf16_len(octets: &[u8]) -> usize {
    octets.iter().map(|b| usize::from(b & 0xc0 != 0x80) + usize::from(*b >= 0xf0)).sum()
}

/// The length of blank lines at the start, with their ends; 0 where the first is not blank, or its end is not there.
fn blank_line(octets: &[u8], last: bool) -> usize {
    match octets {
        [b'\n', ..] => octets.iter().take_while(|b| **b == b'\n').count(),
        [b'\r', b'\n', ..] => 2,
        [b' ', ..] => match memchr(b'\n', octets) {
            Some(at) if octets[..at].trim_ascii().is_empty() => at + 1,
            None if last && octets.trim_ascii().is_empty() => octets.len(),
            Some(_) | None => 0,
        },
        [b'\r'] if last => 1,
        [] | [_, ..] => 0,
    }
}

/// Whether a line end stands inside, not only at the end.
fn several_lines(record: &[u8]) -> bool {
    memchr(b'\n', record).is_some_and(|at| at + 1 < record.len())
}

fn octets_have_cr_only(octets: &[u8]) -> bool {
    octets.contains(&b'\r') && !octets.contains(&b'\n')
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
