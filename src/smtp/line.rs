//! Line framing: where a command line ends.
//!
//! A line ends with CRLF and nothing else. A bare LF does not end one quietly, as many servers let it: what one side
//! takes for the end of a line and the other does not is how commands are smuggled.

use memchr::memchr;

/// The longest command line in octets, with its CRLF. RFC 5321 §4.5.3.1.4 asks for 512, the parameters of SMTPUTF8, DSN
/// and AUTH for about 1,700 more. A longer one gets 500 and ends the session.
pub const COMMAND_LINE_MAX: usize = 2_048;

/// The longest line of an AUTH exchange in octets, with its CRLF (RFC 4954 §4).
pub const AUTH_LINE_MAX: usize = 12_288;

/// What stands at the beginning of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// No whole line yet.
    Incomplete,
    /// A line, without its CRLF; the next one begins after `len` octets.
    Complete {
        /// The line.
        line: &'a [u8],
        /// Octets to take off the buffer.
        len: usize,
    },
    /// No line end within the limit.
    TooLong,
    /// A CR or LF that stands alone, or a NUL.
    Malformed,
}

/// Looks for a line at the beginning of `buffer`, at most `max` octets long with its CRLF.
pub fn find(buffer: &[u8], max: usize) -> Line<'_> {
    let window = &buffer[..buffer.len().min(max)];
    let Some(lf) = memchr(b'\n', window) else {
        return match window.len() == max {
            _ if has_bare_control(window) => Line::Malformed,
            true => Line::TooLong,
            false => Line::Incomplete,
        };
    };
    let Some(line) = window[..lf].strip_suffix(b"\r") else { return Line::Malformed };
    if memchr::memchr2(b'\r', 0, line).is_some() {
        return Line::Malformed;
    }
    Line::Complete { line, len: lf + 1 }
}

/// Whether a line without its end yet already can't become valid: a NUL, or a CR with another octet behind it. Seen
/// early, so that the answer does not depend on where the client's segments end.
fn has_bare_control(window: &[u8]) -> bool {
    memchr::memchr2(b'\r', 0, window).is_some_and(|at| window[at] == 0 || at + 1 < window.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(find(b"NOOP\r\nX", 512), Line::Complete { line: b"NOOP", len: 6 });
        assert_eq!(find(b"NOOP", 512), Line::Incomplete);
        assert_eq!(find(b"NOOP\r", 512), Line::Incomplete);
        assert_eq!(find(b"NOOP\n", 512), Line::Malformed);
        assert_eq!(find(b"NO\rOP\r\n", 512), Line::Malformed);
        assert_eq!(find(b"NO\rOP", 512), Line::Malformed);
        assert_eq!(find(b"NO\0", 512), Line::Malformed);
        assert_eq!(find(b"\r\r\n", 512), Line::Malformed);
    }

    #[test]
    fn a_line_is_bounded() {
        assert_eq!(find(b"NOOP\r\n", 6), Line::Complete { line: b"NOOP", len: 6 });
        assert_eq!(find(b"NOOPX\r\n", 6), Line::TooLong);
        assert_eq!(find(b"NOOPX", 6), Line::Incomplete);
    }
}
