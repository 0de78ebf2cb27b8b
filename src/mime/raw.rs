//! RFC 5322 messages that come otherwise than by SMTP: what they must be so that nothing smuggles out of them.
//!
//! SMTP ends a message by a line with a dot. A peer that takes a lone LF or CR for a line end would see such a line where we see
//! none; so what is stored has CRLF line ends and no other CR, LF or NUL.

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};

use super::encode::LINE_MAX;

/// Why a raw message is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RawError {
    /// More octets than allowed, counted with CRLF line ends.
    #[error("the message is larger than {0} octets")]
    Size(u64),
    /// A NUL octet.
    #[error("line {0}: a NUL octet is not allowed")]
    Nul(usize),
    /// A CR that no LF follows.
    #[error("line {0}: a CR without LF is not allowed")]
    BareCr(usize),
    /// An LF without CR, though other lines end with CRLF.
    #[error("line {0}: the line ends with LF alone though others end with CRLF")]
    MixedLineEnds(usize),
    /// A line of more than 998 octets.
    #[error("line {0} is longer than 998 octets (RFC 5322 §2.1.1)")]
    LongLine(usize),
    /// It does not begin with a header field.
    #[error("the message does not begin with a header field (RFC 5322 §2.2)")]
    NoHeader,
}

/// Checks a raw message and gives it the line ends of the wire.
///
/// All lines end with CRLF: it stays as it is, without a copy. All end with LF: each becomes CRLF. Both: refused, as is
/// everything that is not a line end by RFC 5322 but could be taken for one.
pub fn check_raw(message: Bytes, size_max: u64) -> Result<Bytes, RawError> {
    if message.len() as u64 > size_max {
        return Err(RawError::Size(size_max));
    }
    let line_of = |at: usize| memchr_iter(b'\n', &message[..at]).count() + 1;
    if let Some(at) = memchr(0, &message) {
        return Err(RawError::Nul(line_of(at)));
    }
    if let Some(at) = memchr_iter(b'\r', &message).find(|at| message.get(at + 1) != Some(&b'\n')) {
        return Err(RawError::BareCr(line_of(at)));
    }
    // Every CR stands before an LF now.
    let (crs, lfs) = (memchr_iter(b'\r', &message).count(), memchr_iter(b'\n', &message).count());
    let wire = if crs == lfs {
        message
    } else if crs == 0 {
        with_crlf(&message, lfs)
    } else {
        let bare = memchr_iter(b'\n', &message).find(|at| *at == 0 || message[at - 1] != b'\r').unwrap_or(0);
        return Err(RawError::MixedLineEnds(line_of(bare)));
    };
    if wire.len() as u64 > size_max {
        return Err(RawError::Size(size_max));
    }
    check_lines(&wire)?;
    Ok(wire)
}

fn with_crlf(message: &[u8], lfs: usize) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + lfs);
    let mut rest = message;
    while let Some(lf) = memchr(b'\n', rest) {
        out.extend_from_slice(&rest[..lf]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[lf + 1..];
    }
    out.extend_from_slice(rest);
    out.into()
}

fn check_lines(wire: &[u8]) -> Result<(), RawError> {
    let first = &wire[..memchr(b'\n', wire).unwrap_or(wire.len())];
    let name = memchr(b':', first).map(|colon| first[..colon].trim_ascii_end());
    if !name.is_some_and(|name| !name.is_empty() && name.iter().all(u8::is_ascii_graphic)) {
        return Err(RawError::NoHeader);
    }
    let mut start = 0;
    while wire.len() - start > LINE_MAX {
        // The next line end is looked for from the back, so that several short lines are passed at once.
        let window = &wire[start..wire.len().min(start + LINE_MAX + 2)];
        match memrchr(b'\n', window) {
            Some(lf) => start += lf + 1,
            None => return Err(RawError::LongLine(memchr_iter(b'\n', &wire[..start]).count() + 1)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &[u8], want: Result<&[u8], RawError>) {
        let got = check_raw(Bytes::copy_from_slice(message), 10_000);
        assert_eq!(got.as_deref().map_err(|e| *e), want, "{:?}", String::from_utf8_lossy(message));
    }

    #[test]
    fn line_ends_become_those_of_the_wire() {
        check(b"A: b\r\n\r\nc\r\n", Ok(b"A: b\r\n\r\nc\r\n"));
        check(b"A: b\n\nc\n", Ok(b"A: b\r\n\r\nc\r\n"));
        check(b"A: b\n\nc", Ok(b"A: b\r\n\r\nc"));
    }

    #[test]
    fn nothing_smuggles() {
        // The forms of an end of data that some servers take (SMTP smuggling).
        check(b"A: b\r\n\r\nc\n.\r\nMAIL FROM:<x>\r\n", Err(RawError::MixedLineEnds(3)));
        check(b"A: b\r\n\r\nc\r\n.\nMAIL\r\n", Err(RawError::MixedLineEnds(4)));
        check(b"A: b\r\n\r\nc\r.\r\n", Err(RawError::BareCr(3)));
        check(b"A: b\r\n\r\nc\r\n.\r\r\n", Err(RawError::BareCr(4)));
        check(b"A: b\n\nc\r.\r", Err(RawError::BareCr(3)));
        check(b"A: b\r\n\r\nc\r\n\0.\r\n", Err(RawError::Nul(4)));
    }

    #[test]
    fn forms_that_are_refused() {
        check(b"", Err(RawError::NoHeader));
        check(b"hello\r\n", Err(RawError::NoHeader));
        check(b"\r\nA: b\r\n", Err(RawError::NoHeader));
        check(&[b'x'; 10_001], Err(RawError::Size(10_000)));
        let long = |n| [&b"A: b\n\n"[..], &vec![b'x'; n], b"\n"].concat();
        assert!(check_raw(long(998).into(), 10_000).is_ok());
        check(&long(999), Err(RawError::LongLine(3)));
        check(&[&b"A: "[..], &[b'x'; 999]].concat(), Err(RawError::LongLine(1)));
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_has_only_the_line_ends_of_the_wire(
            pieces in proptest::collection::vec(proptest::sample::select(vec!["\r\n", "\n", "\r", "\0", ".", "A: b", "text"]), 0..12)
        ) {
            let raw = Bytes::from(format!("A: b{}", pieces.concat()));
            if let Ok(wire) = check_raw(raw, 10_000) {
                let text = String::from_utf8_lossy(&wire).replace("\r\n", "");
                proptest::prop_assert!(!text.contains(['\r', '\n', '\0']));
            }
        }
    }
}
