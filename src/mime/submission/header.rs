//! Reading the header fields of a submitted message, once.

use std::ops::Range;

use memchr::memchr;

use super::{HeaderError, Steering, encoded_word, from};
use crate::types::Mailbox;

/// The most octets of a header; a larger one is refused. Real ones have 2 to 20 KiB.
pub const HEADER_OCTETS_MAX: usize = 256 << 10;

/// The most lines of a header; more are refused.
pub const HEADER_LINES_MAX: usize = 10_000;

/// What a header says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parsed {
    /// Octets of the header, without the empty line behind it.
    pub header_len: usize,
    /// Fields that have to go: Bcc, Resent-Bcc and those that steer us; in order.
    pub remove: Vec<Range<usize>>,
    /// Whether there is a Date.
    pub has_date: bool,
    /// Whether there is a Message-ID.
    pub has_message_id: bool,
    /// The mailboxes of From; at least one.
    pub from: Vec<Mailbox>,
    /// How many `Received` fields there are.
    pub received: u32,
    /// Whether the header has octets above 127.
    pub header_eight_bit: bool,
    /// Whether the body has octets above 127.
    pub body_eight_bit: bool,
    /// What steers us.
    pub steering: Steering,
}

/// The fields of which RFC 5322 §3.6 allows one, and which receivers read: two of them show one thing to a filter and
/// another to a reader.
#[derive(Default)]
struct Seen {
    from: bool,
    date: bool,
    message_id: bool,
    subject: bool,
}

/// Reads the header of a message with CRLF line ends.
pub fn parse(message: &[u8]) -> Result<Parsed, HeaderError> {
    let mut parsed = Parsed::default();
    let mut seen = Seen::default();
    let mut at = 0;
    let mut lines = 0;
    while at < message.len() && !message[at..].starts_with(b"\r\n") {
        let (end, field_lines) = field_end(message, at)?;
        lines += field_lines;
        if lines > HEADER_LINES_MAX {
            return Err(HeaderError::TooLarge);
        }
        parse_field(message, at..end, lines, &mut seen, &mut parsed)?;
        at = end;
    }
    parsed.header_len = at;
    parsed.has_date = seen.date;
    parsed.has_message_id = seen.message_id;
    if !seen.from {
        // RFC 5322 §3.6: From is a must. RFC 6409 §8 lets a server add one; whose it would be is a guess.
        return Err(HeaderError::field("From", "the message has none (RFC 5322 §3.6)"));
    }
    parsed.header_eight_bit = !message[..at].is_ascii();
    parsed.body_eight_bit = !message[at..].is_ascii();
    Ok(parsed)
}

/// The end of the field that begins at `start`, with its continuation lines, and how many lines it has.
fn field_end(message: &[u8], start: usize) -> Result<(usize, usize), HeaderError> {
    let window = &message[..message.len().min(HEADER_OCTETS_MAX)];
    let (mut at, mut lines) = (start, 0);
    loop {
        let Some(lf) = memchr(b'\n', &window[at..]) else {
            // The last line of a message that came by BDAT may have no line end.
            return if window.len() == message.len() {
                Ok((message.len(), lines + 1))
            } else {
                Err(HeaderError::TooLarge)
            };
        };
        at += lf + 1;
        lines += 1;
        if !matches!(window.get(at), Some(b' ' | b'\t')) {
            return Ok((at, lines));
        }
    }
}

fn parse_field(
    message: &[u8],
    range: Range<usize>,
    line: usize,
    seen: &mut Seen,
    parsed: &mut Parsed,
) -> Result<(), HeaderError> {
    let field = &message[range.clone()];
    let colon = memchr(b':', field).filter(|&c| c > 0 && field[..c].iter().all(|b| matches!(b, b'!'..=b'~')));
    let Some(colon) = colon else {
        return Err(HeaderError::Malformed(format!("header line {line} is not a field (RFC 5322 §2.2)")));
    };
    // Checked above: printable ASCII.
    let name = std::str::from_utf8(&field[..colon]).unwrap_or_default();
    let value = &field[colon + 1..];
    if let Some(what) = forbidden(value) {
        return Err(HeaderError::field(cut(name), what));
    }
    let once = |flag: &mut bool| {
        if std::mem::replace(flag, true) {
            return Err(HeaderError::field(name, "there is more than one (RFC 5322 §3.6)"));
        }
        Ok(())
    };
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    match name.as_bytes()[0] | 0x20 {
        b'f' if is("From") => {
            once(&mut seen.from)?;
            parsed.from = from::mailboxes(&unfold(value)).map_err(|e| HeaderError::field("From", e))?;
        }
        b'd' if is("Date") => once(&mut seen.date)?,
        b'm' if is("Message-ID") => once(&mut seen.message_id)?,
        b's' if is("Subject") => once(&mut seen.subject)?,
        b'r' if is("Received") => parsed.received += 1,
        // RFC 5322 §3.6.3: who is meant to be blind is not told to the others.
        b'b' if is("Bcc") => parsed.remove.push(range),
        b'r' if is("Resent-Bcc") => parsed.remove.push(range),
        b'x' if super::steering::is_steering(name) => {
            parsed.steering.read(name, unfold(value).trim()).map_err(|e| HeaderError::field(cut(name), e))?;
            parsed.remove.push(range);
        }
        _ => {}
    }
    Ok(())
}

/// A name as it may stand in a reply.
fn cut(name: &str) -> &str {
    &name[..name.len().min(64)]
}

/// What a value must not have: controls, the line ends of Unicode, or encoded words that hide them.
fn forbidden(value: &[u8]) -> Option<&'static str> {
    let control = |b: &u8| (*b < b' ' && !matches!(*b, b'\t' | b'\r' | b'\n')) || *b == 0x7f;
    if value.iter().any(control) {
        return Some("a control character");
    }
    if !value.is_ascii() && std::str::from_utf8(value).is_ok_and(|v| v.contains(['\u{85}', '\u{2028}', '\u{2029}'])) {
        return Some("a Unicode line end");
    }
    if encoded_word::hides_line_end(value) {
        return Some("an encoded word that hides a line end");
    }
    None
}

/// The value on one line (RFC 5322 §2.2.3); octets that are not UTF-8 become U+FFFD.
fn unfold(value: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(value).into_owned();
    text.retain(|c| c != '\r' && c != '\n');
    text
}
