//! Encoded words (RFC 2047) that decode to a line end: harmless where they are, a header of somebody's choice for whoever
//! decodes before parsing.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memmem;

/// Padding is left out by many, and trailing bits are wrong with some.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Whether a header value has an encoded word with CR, LF, NUL, U+0085, U+2028 or U+2029 in it.
pub(super) fn hides_line_end(value: &[u8]) -> bool {
    memmem::find_iter(value, b"=?").any(|at| word_hides_line_end(&value[at + 2..]))
}

/// `rest` begins behind `=?`.
fn word_hides_line_end(rest: &[u8]) -> bool {
    // RFC 2047 §2: 75 characters; longer ones are seen, so a whole line is looked at.
    let rest = &rest[..rest.len().min(998)];
    let mut parts = rest.splitn(3, |b| *b == b'?');
    let (Some(charset), Some(encoding), Some(text)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let Some(end) = memmem::find(text, b"?=") else { return false };
    let decoded = match encoding {
        b"Q" | b"q" => decode_q(&text[..end]),
        b"B" | b"b" => BASE64.decode(&text[..end]).unwrap_or_default(),
        _ => return false,
    };
    let utf8 = charset.len() >= 5 && charset[..5].eq_ignore_ascii_case(b"utf-8");
    memchr::memchr3(b'\r', b'\n', 0, &decoded).is_some()
        || (utf8 && String::from_utf8_lossy(&decoded).contains(['\u{85}', '\u{2028}', '\u{2029}']))
}

fn decode_q(text: &[u8]) -> Vec<u8> {
    let hex = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let pair = text.get(at + 1..at + 3).and_then(|p| Some(hex(p[0])? << 4 | hex(p[1])?));
        match pair {
            Some(octet) if text[at] == b'=' => {
                out.push(octet);
                at += 3;
            }
            _ => {
                // Folding inside of a word is not part of it.
                if !matches!(text[at], b'\r' | b'\n') {
                    out.push(text[at]);
                }
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::hides_line_end;

    #[test]
    fn finds_hidden_line_ends_only() {
        assert!(hides_line_end(b" =?utf-8?Q?a=0D=0ABcc:_v@t?="));
        assert!(hides_line_end(b" x =?iso-8859-1?q?a=0a?= y"));
        assert!(hides_line_end(b" =?utf-8?B?YQ0KQmNjOiB2QHQ=?="));
        assert!(hides_line_end(b" =?utf-8?B?YQ0KQmNjOiB2QHQ?="));
        assert!(hides_line_end("=?UTF-8?Q?a=E2=80=A8b?=".as_bytes()));
        assert!(!hides_line_end(b" =?utf-8?Q?gr=C3=BC=C3=9Fe_=3F?= =?utf-8?B?w7w=?="));
        assert!(!hides_line_end(b" =?utf-8?Q?never ends"));
        assert!(!hides_line_end(b" 1=?2?x?="));
    }
}
