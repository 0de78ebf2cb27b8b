//! A message with octets above 127 for a peer that takes only 7 bits (RFC 6152 §3).
//!
//! 1. What has a signature over its octets is left alone: re-encoding would break it, so the mail must fail,
//! 2. a multipart is taken apart at its boundary; its parts are re-encoded each by itself,
//! 3. a leaf with 8-bit octets becomes quoted-printable (text) or base64 (anything else); all other octets stay.
//!
//! The result is always the same for the same message: a retry sends the octets that were signed at first.

use mail_parser::{MessageParser, MimeHeaders};
use memchr::memchr;

use super::encode::{base64_lines, quoted_printable};

/// How deep parts may be nested in parts; deeper mail is not re-encoded.
const DEPTH_MAX: usize = 16;

/// Why a message can't be re-encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SevenBitError {
    /// It carries a signature (DKIM, ARC, S/MIME, PGP) that re-encoding would break.
    #[error("it is signed, and re-encoding would break the signature")]
    Signed,
    /// A header has octets above 127: only SMTPUTF8 carries it.
    #[error("its header has 8-bit octets")]
    Header,
    /// Something is declared to be encoded but has octets above 127, or may not be encoded at all (RFC 2046 §5.2).
    #[error("a part of it can't be encoded")]
    Part,
    /// More than 16 parts within each other.
    #[error("its parts are nested too deeply")]
    Depth,
}

/// The message in 7 bits. `message` has CRLF line ends.
pub fn to_seven_bit(message: &[u8]) -> Result<Vec<u8>, SevenBitError> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 4);
    let entity = Entity::split(message);
    for signature in ["DKIM-Signature", "ARC-Message-Signature", "DomainKey-Signature"] {
        if entity.field(signature).is_some() {
            return Err(SevenBitError::Signed);
        }
    }
    write_entity(&entity, 0, true, &mut out)?;
    Ok(out)
}

/// A header and a body.
struct Entity<'a> {
    /// The fields with their CRLFs, without the empty line.
    header: &'a [u8],
    /// The empty line, where there is one.
    gap: &'a [u8],
    body: &'a [u8],
}

impl<'a> Entity<'a> {
    fn split(octets: &'a [u8]) -> Self {
        let mut at = 0;
        loop {
            if octets[at..].starts_with(b"\r\n") {
                return Self { header: &octets[..at], gap: &octets[at..at + 2], body: &octets[at + 2..] };
            }
            match memchr(b'\n', &octets[at..]) {
                Some(lf) => at += lf + 1,
                None => return Self { header: octets, gap: b"", body: b"" },
            }
        }
    }

    /// Each field with its CRLF.
    fn fields(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.header;
        std::iter::from_fn(move || {
            let mut end = 0;
            while end < rest.len() {
                end += memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |lf| lf + 1);
                if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (field, tail) = rest.split_at(end);
            rest = tail;
            (!field.is_empty()).then_some(field)
        })
    }

    /// The value of the first field with this name.
    fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|field| is_named(field, name)).map(|field| field[name.len() + 1..].trim_ascii())
    }
}

fn is_named(field: &[u8], name: &str) -> bool {
    field.get(name.len()) == Some(&b':') && field[..name.len()].eq_ignore_ascii_case(name.as_bytes())
}

fn write_entity(entity: &Entity<'_>, depth: usize, top: bool, out: &mut Vec<u8>) -> Result<(), SevenBitError> {
    if !entity.header.is_ascii() {
        return Err(SevenBitError::Header);
    }
    if entity.body.is_ascii() {
        for part in [entity.header, entity.gap, entity.body] {
            out.extend_from_slice(part);
        }
        return Ok(());
    }
    if depth >= DEPTH_MAX {
        return Err(SevenBitError::Depth);
    }
    let encoding = entity.field("Content-Transfer-Encoding").unwrap_or(b"7bit");
    if !["7bit", "8bit", "binary"].iter().any(|known| encoding.eq_ignore_ascii_case(known.as_bytes())) {
        return Err(SevenBitError::Part);
    }
    let header = MessageParser::new().parse_headers(entity.header);
    let content_type = header.as_ref().and_then(|header| header.content_type());
    let main = content_type.map_or_else(|| "text".to_owned(), |t| t.ctype().to_ascii_lowercase());
    let sub = content_type.and_then(|t| t.subtype()).unwrap_or("plain").to_ascii_lowercase();
    match (main.as_str(), sub.as_str()) {
        ("multipart", "signed" | "encrypted") => Err(SevenBitError::Signed),
        ("multipart", _) => {
            let boundary = content_type.and_then(|t| t.attribute("boundary")).ok_or(SevenBitError::Part)?;
            write_header(entity, "7bit", top, out);
            write_multipart(entity.body, boundary.as_bytes(), depth, out)
        }
        ("message", "rfc822") => {
            write_header(entity, "7bit", top, out);
            write_entity(&Entity::split(entity.body), depth + 1, false, out)
        }
        // RFC 6532 §3.7: message/global may be encoded; RFC 2046 §5.2: the other kinds of message may not.
        ("message", sub) if !sub.starts_with("global") => Err(SevenBitError::Part),
        ("text", _) => {
            write_header(entity, "quoted-printable", top, out);
            quoted_printable(entity.body, out);
            Ok(())
        }
        (_, _) => {
            write_header(entity, "base64", top, out);
            base64_lines(entity.body, out);
            if entity.body.ends_with(b"\r\n") {
                out.extend_from_slice(b"\r\n");
            }
            Ok(())
        }
    }
}

/// Writes the header with another transfer encoding, and with what RFC 2045 asks for where MIME is new to it.
fn write_header(entity: &Entity<'_>, encoding: &str, top: bool, out: &mut Vec<u8>) {
    for field in entity.fields().filter(|field| !is_named(field, "Content-Transfer-Encoding")) {
        out.extend_from_slice(field);
    }
    if top && entity.field("MIME-Version").is_none() {
        out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    }
    if entity.field("Content-Type").is_none() {
        // RFC 1428 §3 for text of which nobody said what it is.
        let charset = if std::str::from_utf8(entity.body).is_ok() { "utf-8" } else { "unknown-8bit" };
        out.extend_from_slice(format!("Content-Type: text/plain; charset={charset}\r\n").as_bytes());
    }
    out.extend_from_slice(format!("Content-Transfer-Encoding: {encoding}\r\n").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands between the delimiters of a multipart; the delimiters stay as they are.
fn write_multipart(body: &[u8], boundary: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), SevenBitError> {
    let mut at = 0;
    let mut inside = false;
    let mut begin = 0;
    loop {
        let line_end = memchr(b'\n', &body[at..]).map_or(body.len(), |lf| at + lf + 1);
        let delimiter = delimiter(&body[at..line_end], boundary);
        let done = at >= body.len();
        if delimiter.is_some() || done {
            // RFC 2046 §5.1.1: the CRLF before a delimiter belongs to the delimiter.
            let crlf = if delimiter.is_some() && at >= begin + 2 { 2 } else { 0 };
            let piece = &body[begin..at - crlf];
            if inside {
                write_entity(&Entity::split(piece), depth + 1, false, out)?;
            } else {
                // Preamble and epilogue are for nobody's eyes.
                out.extend(piece.iter().map(|b| if b.is_ascii() { *b } else { b'?' }));
            }
            out.extend_from_slice(&body[at - crlf..if done { at } else { line_end }]);
            begin = line_end;
            if let Some(closing) = delimiter {
                inside = !closing;
            }
        }
        if done {
            return Ok(());
        }
        at = line_end;
    }
}

/// Whether a line is a delimiter, and if so, whether the closing one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let (rest, closing) = rest.strip_prefix(b"--").map_or((rest, false), |rest| (rest, true));
    rest.trim_ascii().is_empty().then_some(closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, want: Result<&str, SevenBitError>) {
        let got = to_seven_bit(message.replace('\n', "\r\n").as_bytes());
        let got = got.map(|octets| String::from_utf8(octets).expect("ASCII").replace("\r\n", "\n"));
        assert_eq!(got, want.map(str::to_owned), "{message}");
    }

    #[test]
    fn text_becomes_quoted_printable() {
        check(
            "Subject: x\nContent-Transfer-Encoding: 8bit\nContent-Type: text/plain; charset=utf-8\nMIME-Version: 1.0\n\ngrüß\n",
            Ok(
                "Subject: x\nContent-Type: text/plain; charset=utf-8\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\ngr=C3=BC=C3=9F\n",
            ),
        );
        check(
            "Subject: x\n\nü\n",
            Ok(
                "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC\n",
            ),
        );
        check("Subject: x\n\nplain\n", Ok("Subject: x\n\nplain\n"));
    }

    #[test]
    fn parts_are_encoded_each_by_itself() {
        check(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"b\"\nContent-Transfer-Encoding: 8bit\n\npré\n--b\n\nü\n--b\nContent-Type: application/x\n\nü\n--b  \nContent-Type: text/plain\n\nascii\n--b--\nend\n",
            Ok(
                "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"b\"\nContent-Transfer-Encoding: 7bit\n\npr??\n--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC\n--b\nContent-Type: application/x\nContent-Transfer-Encoding: base64\n\nw7w=\n--b  \nContent-Type: text/plain\n\nascii\n--b--\nend\n",
            ),
        );
        check(
            "Content-Type: message/rfc822\nMIME-Version: 1.0\n\nSubject: in\nDKIM-Signature: old\n\nü\n",
            Ok(
                "Content-Type: message/rfc822\nMIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\n\nSubject: in\nDKIM-Signature: old\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC\n",
            ),
        );
    }

    #[test]
    fn what_would_break_is_refused() {
        check("DKIM-Signature: v=1\n\nü\n", Err(SevenBitError::Signed));
        check("Content-Type: multipart/signed; boundary=b\n\n--b\n\nü\n--b--\n", Err(SevenBitError::Signed));
        check("Subject: ü\n\nü\n", Err(SevenBitError::Header));
        check("Content-Transfer-Encoding: base64\n\nü\n", Err(SevenBitError::Part));
        check("Content-Type: message/partial\n\nü\n", Err(SevenBitError::Part));
        check("Content-Type: multipart/mixed\n\n--b\n\nü\n--b--\n", Err(SevenBitError::Part));
        let deep = "Content-Type: message/rfc822\n\n".repeat(40) + "ü\n";
        check(&deep, Err(SevenBitError::Depth));
    }

    #[test]
    fn binary_leaf_with_line_end_keeps_its_octets() {
        let octets = to_seven_bit(b"Content-Type: image/x\r\nMIME-Version: 1.0\r\n\r\n\xff\r\n").expect("encoded");
        assert!(octets.ends_with(b"base64\r\n\r\n/w0K\r\n"), "{}", String::from_utf8_lossy(&octets));
    }

    proptest::proptest! {
        /// Whatever comes in, what goes out has 7 bits and no other line ends than it had.
        #[test]
        fn anything_is_refused_or_has_seven_bits(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "\r\n", "\r\n\r\n", "--b", "--b--", "Content-Type: multipart/mixed; boundary=b\r\n", "ü", "text ", "--", "b",
                "Content-Type: message/rfc822\r\n", "Content-Type: application/x\r\n", "Content-Transfer-Encoding: 8bit\r\n",
                "MIME-Version: 1.0\r\n", ":", " ", "Content-Type: text/html", ";", "\u{1}",
            ]), 0..30)
        ) {
            if let Ok(octets) = to_seven_bit(pieces.concat().as_bytes()) {
                proptest::prop_assert!(octets.is_ascii());
                let text = String::from_utf8_lossy(&octets).replace("\r\n", "");
                proptest::prop_assert!(!text.contains(['\r', '\n']));
            }
        }

        /// What re-encoding makes of a text decodes to that text.
        #[test]
        fn text_survives(body in "(\\PC|\r\n| |\t|=|\\.){0,300}") {
            let message = format!("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nü{body}");
            let octets = to_seven_bit(message.as_bytes()).expect("encoded");
            let parsed = MessageParser::new().parse(&octets).expect("parses");
            proptest::prop_assert_eq!(parsed.body_text(0).expect("text").into_owned(), format!("ü{body}"));
            proptest::prop_assert!(octets.split(|b| *b == b'\n').all(|line| line.len() <= 78));
        }
    }
}
