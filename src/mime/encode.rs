//! Transfer encodings (RFC 2045 §6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;

/// The longest line of an encoded body, without its CRLF (RFC 2045 §6.7, §6.8).
pub const ENCODED_LINE_MAX: usize = 76;

/// The longest line of a message, without its CRLF (RFC 5322 §2.1.1).
pub const LINE_MAX: usize = 998;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends text with CRLF line ends in quoted-printable. Line ends stay; a CR or LF alone is encoded.
pub fn quoted_printable(text: &[u8], out: &mut Vec<u8>) {
    let mut column = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if text[at..].starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            column = 0;
            at += 2;
            continue;
        }
        let rest = &text[at + 1..];
        let line_ends = rest.is_empty() || rest.starts_with(b"\r\n");
        let plain = match byte {
            b'=' => false,
            // White space at the end of a line would get lost on the way.
            b' ' | b'\t' => !line_ends,
            _ => byte.is_ascii_graphic(),
        };
        let width = if plain { 1 } else { 3 };
        let room = if line_ends { ENCODED_LINE_MAX } else { ENCODED_LINE_MAX - 1 };
        if column + width > room {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if plain {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        column += width;
        at += 1;
    }
}

/// Appends octets in base64, in lines of [`ENCODED_LINE_MAX`], each but the last with a CRLF.
pub fn base64_lines(octets: &[u8], out: &mut Vec<u8>) {
    // 57 octets make a line of 76 characters.
    let mut line = [0; ENCODED_LINE_MAX];
    for (i, chunk) in octets.chunks(ENCODED_LINE_MAX / 4 * 3).enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\r\n");
        }
        // The line has room for a chunk's encoding, so this can't fail.
        let len = STANDARD.encode_slice(chunk, &mut line).unwrap_or(0);
        out.extend_from_slice(&line[..len]);
    }
}

/// Whether a text can go as it is in a body of 7 bits: ASCII without NUL or lone CR or LF, in lines of at most
/// [`LINE_MAX`] octets, none of which ends in white space.
pub fn is_plain_text(text: &[u8]) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let (line, tail) = match memchr(b'\n', rest) {
            Some(lf) if rest[..lf].ends_with(b"\r") => (&rest[..lf - 1], &rest[lf + 1..]),
            Some(_) => return false,
            None => (rest, &rest[rest.len()..]),
        };
        let is_plain = line.iter().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t'));
        if !is_plain || line.len() > LINE_MAX || line.ends_with(b" ") || line.ends_with(b"\t") {
            return false;
        }
        rest = tail;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qp(text: &[u8]) -> String {
        let mut out = Vec::new();
        quoted_printable(text, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn quoted_printable_keeps_lines_and_hides_what_would_get_lost() {
        assert_eq!(qp("ü = \r\n end \t".as_bytes()), "=C3=BC =3D=20\r\n end =09");
        assert_eq!(qp(b"a\rb\nc"), "a=0Db=0Ac");
        let long = qp(&[b'x'; 200]);
        assert!(long.split("\r\n").all(|l| l.len() <= ENCODED_LINE_MAX), "{long}");
        assert_eq!(long.replace("=\r\n", ""), "x".repeat(200));
        assert_eq!(qp(&[b'x'; 76]), "x".repeat(76));
    }

    #[test]
    fn base64_in_lines() {
        let mut out = Vec::new();
        base64_lines(&[0; 58], &mut out);
        assert_eq!(out.len(), 76 + 2 + 4);
        assert!(out.ends_with(b"\r\nAA=="));
        out.clear();
        base64_lines(b"", &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn plain_text_is_what_survives_as_it_is() {
        for good in [&b""[..], b"a\r\n", b"a", b"a\r\n\r\nb", b"a\tb"] {
            assert!(is_plain_text(good), "{good:?}");
        }
        for bad in [&b"a\n"[..], b"a\r", b"a\rb\r\n", b"a \r\n", b"a\t", b"\0", b"\xfc\r\n"] {
            assert!(!is_plain_text(bad), "{bad:?}");
        }
        assert!(!is_plain_text(&[b'x'; LINE_MAX + 1]));
    }
}
