//! The BDAT receiver (RFC 3030): octets counted, not framed; no dots are stuffed.
//!
//! CHUNKING is not BINARYMIME: the lines of a chunked message end with CRLF like all others, and a bare CR, bare LF or
//! NUL is refused as in DATA. Else such a message would smuggle on its next hop, where it goes out by DATA.

use memchr::memchr3_iter;

use super::message_buffer::MessageBuffer;

/// Takes in the chunks of one message.
#[derive(Debug)]
pub struct BdatReceiver {
    message: MessageBuffer,
    /// The last octet so far was a CR, which waits for its LF.
    cr: bool,
}

/// A bare CR, a bare LF or a NUL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl BdatReceiver {
    /// A receiver that fills `message`.
    pub fn new(message: MessageBuffer) -> Self {
        Self { message, cr: false }
    }

    /// The message so far.
    pub fn message(&self) -> &MessageBuffer {
        &self.message
    }

    /// Takes octets of a chunk in.
    pub fn feed(&mut self, input: &[u8]) -> Result<(), Malformed> {
        let Some(&last) = input.last() else { return Ok(()) };
        if self.cr && input[0] != b'\n' {
            return Err(Malformed);
        }
        for at in memchr3_iter(b'\r', b'\n', 0, input) {
            let ok = match input[at] {
                b'\r' => input.get(at + 1).is_none_or(|next| *next == b'\n'),
                b'\n' if at == 0 => self.cr,
                b'\n' => input[at - 1] == b'\r',
                _ => false,
            };
            if !ok {
                return Err(Malformed);
            }
        }
        self.cr = last == b'\r';
        self.message.push(input);
        Ok(())
    }

    /// The message, after the last chunk; an error when it ends with a lone CR.
    pub fn finish(self) -> Result<MessageBuffer, Malformed> {
        if self.cr { Err(Malformed) } else { Ok(self.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message_buffer::HEADROOM;
    use super::*;

    fn check(input: &[u8], ok: bool) {
        for step in [input.len(), 1, 2] {
            let mut receiver = BdatReceiver::new(MessageBuffer::new(None, 1 << 20));
            let result = input.chunks(step).try_for_each(|c| receiver.feed(c)).and_then(|()| receiver.finish());
            assert_eq!(result.is_ok(), ok, "{input:?} in steps of {step}");
            if let Ok(message) = result {
                assert_eq!(&message.into_octets().expect("small")[HEADROOM..], input);
            }
        }
    }

    #[test]
    fn keeps_every_octet() {
        check(b"a\r\n.\r\n..\r\nno line end", true);
    }

    #[test]
    fn refuses_what_would_smuggle_on_the_next_hop() {
        for bad in [&b"a\n.\nb"[..], b"a\rb", b"\na", b"a\r", b"a\0b", b"a\r\r\n", b"a\r\n\n"] {
            check(bad, false);
        }
    }
}
