//! The relaxed canonical forms of RFC 6376 §3.4.2 and §3.4.4, and the fields of a header.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use memchr::memchr;

/// Octets of a body that are gathered before they are hashed; lines that are canonical as they stand are hashed in place.
const GATHER_MAX: usize = 4_096;

/// One field of a header: its name and its raw value, both as they stand, without the final CRLF.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// The fields of a header from top to bottom, and the body behind the empty line.
///
/// A line that is neither a field nor the continuation of one is passed over, as verifiers do.
pub(super) fn split(message: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut fields = Vec::with_capacity(24);
    let mut at = 0;
    while at < message.len() {
        if message[at..].starts_with(b"\r\n") {
            return (fields, &message[at + 2..]);
        }
        let end = field_end(message, at);
        let raw = message[at..end].strip_suffix(b"\r\n").unwrap_or(&message[at..end]);
        if let Some(colon) = memchr(b':', raw) {
            fields.push(Field { name: raw[..colon].trim_ascii_end(), value: &raw[colon + 1..] });
        }
        at = end;
    }
    (fields, &[])
}

/// Behind the CRLF that ends the field at `start`: one that no white space follows.
fn field_end(message: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(lf) = memchr(b'\n', &message[at..]) {
        let lf = at + lf;
        at = lf + 1;
        let continued = matches!(message.get(at), Some(b' ' | b'\t'));
        if message[start..lf].ends_with(b"\r") && !continued {
            return at;
        }
    }
    message.len()
}

/// Appends a field in relaxed form (§3.4.2), without a final CRLF: the name in lowercase, the value unfolded, runs of white
/// space as one space, none at its ends.
pub(super) fn relaxed_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let begin = out.len();
    let mut at = 0;
    let mut space = false;
    while at < value.len() {
        match value[at] {
            b' ' | b'\t' => space = true,
            b'\r' if value.get(at + 1) == Some(&b'\n') => at += 1,
            byte => {
                if space && out.len() > begin {
                    out.push(b' ');
                }
                space = false;
                out.push(byte);
            }
        }
        at += 1;
    }
}

/// The SHA-256 of a body in relaxed form (§3.4.4).
#[cfg(test)]
pub(super) fn body_hash(body: &[u8]) -> Digest {
    let mut hash = BodyHash::new();
    hash.update(body);
    hash.finish()
}

/// The SHA-256 of a body in relaxed form (§3.4.4), which may come in pieces of whole lines.
///
/// White space at line ends goes, runs of it within a line become one space, empty lines at the end go (also those that had
/// only white space), and what is left ends with CRLF; a body of nothing stays nothing.
pub(super) struct BodyHash {
    hasher: Hasher,
    /// Empty lines are counted until a line with something in it shows that they are not the last.
    empty_lines: usize,
}

impl BodyHash {
    pub(super) fn new() -> Self {
        let hasher = Hasher { context: Context::new(&SHA256), gathered: Vec::with_capacity(GATHER_MAX) };
        Self { hasher, empty_lines: 0 }
    }

    /// The next piece; all but the last end with CRLF.
    pub(super) fn update(&mut self, body: &[u8]) {
        let hasher = &mut self.hasher;
        // Lines from `clean` on are canonical as they stand and not yet hashed.
        let mut clean = 0;
        let mut at = 0;
        while at < body.len() {
            let end = line_end(body, at);
            let (line, has_crlf) = match body[at..end].strip_suffix(b"\r\n") {
                Some(line) => (line, true),
                None => (&body[at..end], false),
            };
            if is_relaxed(line) && has_crlf && self.empty_lines == 0 && !line.is_empty() {
                at = end;
                continue;
            }
            if clean < at {
                hasher.write(&body[clean..at]);
            }
            if line.iter().all(|b| matches!(b, b' ' | b'\t')) {
                self.empty_lines += 1;
                clean = end;
            } else {
                for _ in 0..std::mem::take(&mut self.empty_lines) {
                    hasher.write(b"\r\n");
                }
                if is_relaxed(line) && has_crlf {
                    clean = at;
                } else {
                    hasher.relaxed_line(line);
                    clean = end;
                }
            }
            at = end;
        }
        if clean < body.len() {
            hasher.write(&body[clean..]);
        }
    }

    pub(super) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

/// Behind the CRLF that ends the line at `start`. A lone LF or CR is an octet like any other.
fn line_end(body: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(lf) = memchr(b'\n', &body[at..]) {
        let lf = at + lf;
        if lf > start && body[lf - 1] == b'\r' {
            return lf + 1;
        }
        at = lf + 1;
    }
    body.len()
}

/// Whether a line is its own relaxed form. Written without an early end, so that the compiler makes vectors of it.
fn is_relaxed(line: &[u8]) -> bool {
    let Some((last, _)) = line.split_last() else { return true };
    if matches!(last, b' ' | b'\t') {
        return false;
    }
    let pairs = line.iter().zip(&line[1..]);
    let bad =
        pairs.fold(0_u8, |bad, (a, b)| bad | u8::from(*a == b'\t') | (u8::from(*a == b' ') & u8::from(*b == b' ')));
    bad == 0
}

/// Hashes large clean runs where they lie and gathers small pieces, since each call into the hash costs as much as many octets.
struct Hasher {
    context: Context,
    gathered: Vec<u8>,
}

impl Hasher {
    fn write(&mut self, piece: &[u8]) {
        if self.gathered.len() + piece.len() > GATHER_MAX {
            self.flush();
        }
        if piece.len() > GATHER_MAX {
            self.context.update(piece);
        } else {
            self.gathered.extend_from_slice(piece);
        }
    }

    /// A line that is not canonical as it stands, without its CRLF, and not empty.
    fn relaxed_line(&mut self, line: &[u8]) {
        let is_space = |b: &u8| matches!(b, b' ' | b'\t');
        for (i, word) in line.split(is_space).enumerate() {
            // Before every word but one at the very start of the line there is white space: one space of it stays.
            if !word.is_empty() && i > 0 {
                self.write(b" ");
            }
            self.write(word);
        }
        self.write(b"\r\n");
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.context.update(&self.gathered);
            self.gathered.clear();
        }
    }

    fn finish(mut self) -> Digest {
        self.flush();
        self.context.finish()
    }
}
