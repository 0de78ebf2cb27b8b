//! xtext (RFC 3461 §4): printable ASCII in which `+`, `=` and everything else is `+` and two hexadecimal digits.

/// Decodes xtext; `None` when it is not valid, and when an octet decodes to a control: no parameter has a right to one,
/// and in a notification it would make a line of its own.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let decoded = match octet {
            b'+' => hex_digit(octets.next()?)? << 4 | hex_digit(octets.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        };
        if decoded < b' ' || decoded == 0x7f {
            return None;
        }
        out.push(decoded);
    }
    Some(out)
}

/// Encodes octets as xtext.
pub fn encode(octets: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(octets.len());
    for &octet in octets {
        match octet {
            b'+' | b'=' | 0..=b' ' | 0x7f.. => {
                out.push('+');
                out.push(char::from(HEX[usize::from(octet >> 4)]));
                out.push(char::from(HEX[usize::from(octet & 15)]));
            }
            _ => out.push(char::from(octet)),
        }
    }
    out
}

/// RFC 3461 §4 asks for uppercase digits; lowercase ones are seen in the wild and mean the same.
fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in ["a@b", "a+b=c d", "ü"] {
            assert_eq!(decode(&encode(text.as_bytes())).expect("valid"), text.as_bytes());
        }
        assert_eq!(encode(b"a+b"), "a+2Bb");
    }

    #[test]
    fn refuses_line_ends_and_halves() {
        for bad in ["a+0D+0Ab", "a+00", "a+", "a+2", "a+2g", "a=b", "a b", "\u{85}"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
