//! Transfer encodings (RFC 2045 §6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;

/// The longest line of an encoded body, without its CRLF (RFC 2045 §6.7, §6.8).
pub const ENCODED_LINE_MAX: usize = 76;

/// The longest line of a message, without its CRLF (RFC 5322 §2.1.1).
pub const LINE_MAX: usize = 998;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Octets that stand for themselves in quoted-printable within a line.
const QP_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut octet = b' ';
    while octet <= b'~' {
        plain[octet as usize] = octet != b'=';
        octet += 1;
    }
    plain[b'\t' as usize] = true;
    plain
};

/// Appends text with CRLF line ends in quoted-printable. Line ends stay; a CR or LF alone is encoded.
pub fn quoted_printable(text: &[u8], out: &mut Vec<u8>) {
    let mut begin = 0;
    let mut at = 0;
    while let Some(lf) = memchr(b'\n', &text[at..]) {
        at += lf + 1;
        if let Some(line) = text[begin..at].strip_suffix(b"\r\n") {
            quoted_printable_line(line, out);
            out.extend_from_slice(b"\r\n");
            begin = at;
        }
    }
    quoted_printable_line(&text[begin..], out);
}

/// How many octets at the start stand for themselves.
fn plain_run(piece: &[u8]) -> usize {
    // The same as the table says, in a form of which the compiler makes vectors: most chunks are plain.
    let is_plain = |octet: &u8| (matches!(*octet, b' '..=b'~') & (*octet != b'=')) | (*octet == b'\t');
    let plain = piece.chunks_exact(16).take_while(|chunk| chunk.iter().fold(true, |all, octet| all & is_plain(octet)));
    let whole = plain.count() * 16;
    let rest = piece[whole..].iter().position(|octet| !QP_PLAIN[usize::from(*octet)]);
    whole + rest.unwrap_or(piece.len() - whole)
}

/// One line, without its CRLF. What needs no encoding is copied in runs: a large HTML part is made for each recipient.
fn quoted_printable_line(line: &[u8], out: &mut Vec<u8>) {
    // White space at the end of a line would get lost on the way.
    let (inner, last) = match line.split_last() {
        Some((last @ (b' ' | b'\t'), inner)) => (inner, Some(*last)),
        _ => (line, None),
    };
    let mut column = 0;
    let mut rest = inner;
    while !rest.is_empty() {
        // What ends the line may fill it; before anything else there must be room for the `=` of a soft line end.
        let fits = last.is_none() && rest.len() <= ENCODED_LINE_MAX - column;
        let room = if fits { rest.len() } else { ENCODED_LINE_MAX - 1 - column };
        let piece = &rest[..rest.len().min(room)];
        let run = plain_run(piece);
        out.extend_from_slice(&piece[..run]);
        column += run;
        rest = &rest[run..];
        if run == piece.len() {
            if !rest.is_empty() {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
        } else {
            let at_end = rest.len() == 1 && last.is_none();
            quoted_printable_octet(rest[0], at_end, &mut column, out);
            rest = &rest[1..];
        }
    }
    if let Some(last) = last {
        quoted_printable_octet(last, true, &mut column, out);
    }
}

fn quoted_printable_octet(octet: u8, at_end: bool, column: &mut usize, out: &mut Vec<u8>) {
    let room = if at_end { ENCODED_LINE_MAX } else { ENCODED_LINE_MAX - 1 };
    if *column + 3 > room {
        out.extend_from_slice(b"=\r\n");
        *column = 0;
    }
    out.extend_from_slice(&[b'=', HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]]);
    *column += 3;
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
        // Without an early end the compiler makes vectors of it.
        let is_plain = line.iter().fold(true, |plain, b| plain & (matches!(b, b' '..=b'~') | (*b == b'\t')));
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
    fn runs_end_where_the_table_says() {
        for octet in 0..=u8::MAX {
            for at in [0, 5, 15, 16, 17, 31, 40] {
                let mut line = [b'x'; 48];
                line[at] = octet;
                let expected = if QP_PLAIN[usize::from(octet)] { line.len() } else { at };
                assert_eq!(plain_run(&line), expected, "{octet} at {at}");
            }
        }
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
