//! xtext (RFC 3461 §4): how ENVID and ORCPT hide octets that SMTP could trip over.

/// Decodes xtext; what is no valid escape stays as it is. Octets that are not printable ASCII become `?`: they would end a line
/// of the report or hide something from its reader.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        let byte = match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'+', Some(high), Some(low)) => {
                at += 2;
                // Two hexadecimal digits are an octet.
                (high * 16 + low) as u8
            }
            (byte, _, _) => byte,
        };
        out.push(if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' });
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn decodes_and_lets_no_line_end_through() {
        assert_eq!(decode("a+2Bb+3Dc@x"), "a+b=c@x");
        assert_eq!(decode("a+0D+0AX: y"), "a??X: y");
        assert_eq!(decode("+2"), "+2");
        assert_eq!(decode("+zz+"), "+zz+");
        assert_eq!(decode("ü"), "??");
    }
}
