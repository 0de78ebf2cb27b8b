//! A message on its way out: dot-stuffing (RFC 5321 §4.5.2) and its end, without copying what needs no dot.

use bytes::Bytes;

use super::Output;

/// Why a body can't be sent: to a lenient receiver it would end early and carry a second message (smuggling).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// A CR without LF, or an LF without CR (RFC 5321 §2.3.8).
    #[error("the message has a bare CR or LF")]
    BareLineEnd,
}

/// The octets of a message, in parts, known to have only CRLF as line ends.
#[derive(Clone, Debug)]
pub struct Body {
    parts: Vec<Bytes>,
    size: u64,
    ends_line: bool,
}

impl Body {
    /// Checks the line ends; `parts` together are the message.
    pub fn new(parts: Vec<Bytes>) -> Result<Self, BodyError> {
        let mut last = 0u8;
        for part in &parts {
            check_line_ends(part, &mut last)?;
        }
        if last == b'\r' {
            return Err(BodyError::BareLineEnd);
        }
        let size: u64 = parts.iter().map(|p| p.len() as u64).sum();
        Ok(Self { parts, size, ends_line: size == 0 || last == b'\n' })
    }

    /// Octets as they are sent, without stuffing; a missing final CRLF is added and counted.
    pub fn wire_size(&self) -> u64 {
        self.size + if self.ends_line { 0 } else { 2 }
    }

    /// Queues it for BDAT: as it is, ended by CRLF.
    pub(super) fn write_chunk(self, out: &mut Output) {
        for part in self.parts {
            out.body(part);
        }
        if !self.ends_line {
            out.text(b"\r\n");
        }
    }

    /// Queues it for DATA: stuffed, ended by CRLF, dot, CRLF.
    pub(super) fn write_data(self, out: &mut Output) {
        let mut line_start = true;
        for part in self.parts {
            if part.is_empty() {
                continue;
            }
            if line_start && part[0] == b'.' {
                out.text(b".");
            }
            line_start = part[part.len() - 1] == b'\n';
            match memchr::memmem::find(&part, b"\n.") {
                None => out.body(part),
                // A body with such lines is rare: it is copied once, so that a body of dots only makes no list of slices.
                Some(_) => {
                    let mut stuffed = Vec::with_capacity(part.len() + 64);
                    let mut inside = false;
                    stuff_into(&part, &mut inside, &mut stuffed);
                    out.body(stuffed.into());
                }
            }
        }
        out.text(if self.ends_line { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

/// Appends `part` with a dot before each dot that begins a line. `line_start` says whether the part begins a line, and
/// afterwards whether the next one does.
pub fn stuff_into(part: &[u8], line_start: &mut bool, out: &mut Vec<u8>) {
    if *line_start && part.first() == Some(&b'.') {
        out.push(b'.');
    }
    let mut from = 0;
    for at in memchr::memmem::find_iter(part, b"\n.") {
        out.extend_from_slice(&part[from..=at]);
        out.push(b'.');
        from = at + 1;
    }
    out.extend_from_slice(&part[from..]);
    if let Some(last) = part.last() {
        *line_start = *last == b'\n';
    }
}

/// Each CR is followed by LF and each LF follows a CR, over part edges too; `last` is the octet before the part.
fn check_line_ends(part: &[u8], last: &mut u8) -> Result<(), BodyError> {
    let (Some(first), Some(end)) = (part.first(), part.last()) else { return Ok(()) };
    if (*last == b'\r') != (*first == b'\n') {
        return Err(BodyError::BareLineEnd);
    }
    // Without an early end the compiler makes vectors of it.
    let pairs = part.iter().zip(&part[1..]);
    let whole = pairs.fold(true, |whole, (one, next)| whole & ((*one == b'\r') == (*next == b'\n')));
    *last = *end;
    if whole { Ok(()) } else { Err(BodyError::BareLineEnd) }
}
