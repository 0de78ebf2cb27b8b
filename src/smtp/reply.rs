//! Writing replies (RFC 5321 §4.2, enhanced codes RFC 2034).

use std::borrow::Cow;

/// The longest text of one reply line in octets: RFC 5321 §4.5.3.1.5 allows 512 for the line. What is longer is cut.
const TEXT_MAX: usize = 480;

/// One reply of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The three-digit code.
    pub code: u16,
    /// The enhanced code; empty for greeting, 354 and the AUTH exchange, which have none.
    pub enhanced: &'static str,
    /// The text, on one line.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced code whose class is that of the code (RFC 2034 §4).
    pub fn new(code: u16, enhanced: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(
            enhanced.is_empty() || enhanced.as_bytes()[0] == b'0' + (code / 100) as u8,
            "{code} {enhanced}: the classes differ"
        );
        Self { code, enhanced, text: text.into() }
    }

    /// Whether the command was refused, for now or for good.
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// Writes it with its CRLF. Controls in the text become spaces: what we repeat of a client's words never makes a
    /// line of its own.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_code(out, self.code);
        out.push(b' ');
        if !self.enhanced.is_empty() {
            out.extend_from_slice(self.enhanced.as_bytes());
            out.push(b' ');
        }
        write_text(out, &self.text);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a reply of several lines without enhanced codes, as for EHLO.
pub fn write_multiline(out: &mut Vec<u8>, code: u16, lines: &[&str]) {
    for (i, line) in lines.iter().enumerate() {
        write_code(out, code);
        out.push(if i + 1 == lines.len() { b' ' } else { b'-' });
        write_text(out, line);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_code(out: &mut Vec<u8>, code: u16) {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[digit(code / 100), digit(code / 10), digit(code)]);
}

/// RFC 5321 §4.2: text is ASCII. RFC 6531 §3.7.4.1 allows UTF-8 only where SMTPUTF8 was said, so nobody gets it.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_MAX)];
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c as u8),
            // Our own texts cite RFCs as "RFC 5321 §4.1.2".
            '\u{a7}' => {}
            _ if c.is_ascii_control() => out.push(b' '),
            _ => out.push(b'?'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_stays_on_its_line() {
        let mut out = Vec::new();
        Reply::new(550, "5.7.1", "no a\r\n250 OK \x1b[2Jé §4").write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), "550 5.7.1 no a  250 OK  [2J? 4\r\n");
        out.clear();
        Reply::new(250, "2.0.0", "x".repeat(10_000)).write(&mut out);
        assert!(out.len() <= 512);
    }

    #[test]
    fn several_lines() {
        let mut out = Vec::new();
        write_multiline(&mut out, 250, &["a", "b"]);
        assert_eq!(out, b"250-a\r\n250 b\r\n");
    }
}
