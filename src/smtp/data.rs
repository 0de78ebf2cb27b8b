//! The DATA receiver: octets in, dots un-stuffed, one and only one end.
//!
//! The states, by what has come last: at the start of a line → `.` there → `.` CR there → end with LF. Elsewhere: in a
//! line → CR → (LF) start of a line. Every other CR or LF, and every NUL, is malformed: RFC 5321 §2.3.8 forbids them,
//! and whoever takes one of them for a line end sees another message than we do (SMTP smuggling).

use memchr::memchr3;

use super::message_buffer::MessageBuffer;

/// What has come last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Last {
    LineStart,
    Text,
    Cr,
    Dot,
    DotCr,
}

/// Takes in the octets after 354.
#[derive(Debug)]
pub struct DataReceiver {
    message: MessageBuffer,
    last: Last,
}

/// What became of the octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// All were taken; the end has not come.
    More,
    /// The end has come after so many octets; what follows is the next command.
    End(usize),
    /// A bare CR, a bare LF or a NUL.
    Malformed,
}

impl DataReceiver {
    /// A receiver that fills `message`.
    pub fn new(message: MessageBuffer) -> Self {
        Self { message, last: Last::LineStart }
    }

    /// The message so far.
    pub fn message(&self) -> &MessageBuffer {
        &self.message
    }

    /// The message, after [`Received::End`].
    pub fn into_message(self) -> MessageBuffer {
        self.message
    }

    /// Takes octets in. Spans without a stuffed dot are copied whole, over line ends.
    pub fn feed(&mut self, input: &[u8]) -> Received {
        let mut at = 0;
        // What lies between `kept` and `at` belongs to the message and is not in it yet.
        let mut kept = 0;
        while at < input.len() {
            match self.last {
                Last::LineStart if input[at] == b'.' => {
                    self.message.push(&input[kept..at]);
                    at += 1;
                    kept = at;
                    self.last = Last::Dot;
                }
                Last::LineStart | Last::Text => match memchr3(b'\r', b'\n', 0, &input[at..]) {
                    None => {
                        at = input.len();
                        self.last = Last::Text;
                    }
                    Some(offset) if input[at + offset] == b'\r' => {
                        at += offset + 1;
                        self.last = Last::Cr;
                    }
                    Some(_) => return Received::Malformed,
                },
                Last::Cr if input[at] == b'\n' => {
                    at += 1;
                    self.last = Last::LineStart;
                }
                Last::Cr => return Received::Malformed,
                Last::Dot if input[at] == b'\r' => {
                    at += 1;
                    self.last = Last::DotCr;
                }
                // RFC 5321 §4.5.2: a dot with more on its line is not part of the message, whatever follows it.
                Last::Dot => self.last = Last::Text,
                Last::DotCr if input[at] == b'\n' => return Received::End(at + 1),
                Last::DotCr => return Received::Malformed,
            }
        }
        if self.last != Last::DotCr {
            self.message.push(&input[kept..]);
        }
        Received::More
    }
}

#[cfg(test)]
mod tests {
    use super::super::message_buffer::HEADROOM;
    use super::*;

    /// Feeds `input` at once and octet by octet; both must tell the same, and give `want` before the end.
    fn check(input: &[u8], want: Result<&[u8], Received>) {
        for step in [input.len(), 1, 2, 3] {
            let mut receiver = DataReceiver::new(MessageBuffer::new(None, 1 << 20));
            let mut end = Received::More;
            let mut used = 0;
            for chunk in input.chunks(step) {
                end = receiver.feed(chunk);
                match end {
                    Received::More => used += chunk.len(),
                    Received::End(n) => used += n,
                    Received::Malformed => {}
                }
                if end != Received::More {
                    break;
                }
            }
            match want {
                Ok(body) => {
                    assert!(matches!(end, Received::End(_)), "{input:?} in steps of {step}: {end:?}");
                    assert_eq!(used, input.len(), "{input:?} in steps of {step}");
                    assert_eq!(&receiver.into_message().into_octets().expect("small")[HEADROOM..], body);
                }
                Err(other) => assert_eq!(end, other, "{input:?} in steps of {step}"),
            }
        }
    }

    #[test]
    fn unstuffs() {
        check(b".\r\n", Ok(b""));
        check(b"a\r\n.\r\n", Ok(b"a\r\n"));
        check(b"..\r\n...\r\n.x\r\n.\r\n", Ok(b".\r\n..\r\nx\r\n"));
        check(b"a..b\r\n\r\n..\r\n\r\n.\r\n", Ok(b"a..b\r\n\r\n.\r\n\r\n"));
    }

    #[test]
    fn nothing_else_ends_it() {
        for tail in [
            "\n.\n",
            "\n.\r",
            "\r.\n",
            "\r.\r",
            "\n.\r\n",
            "\r.\r\n",
            "\r\n.\n",
            "\r\n\0.\r\n",
            "\r\n.\0\r\n",
            "\r\n.\r\r\n",
            "\r\r\n.\r\r\n",
            "\r\n.\rx",
        ] {
            check(format!("a{tail}").as_bytes(), Err(Received::Malformed));
        }
        check(b"a\r\n.\r", Err(Received::More));
    }
}
