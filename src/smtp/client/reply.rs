//! Replies (RFC 5321 §4.2): read within bounds, cleaned before anybody sees them.

use crate::event::SmtpReply;

/// The longest line of a reply, in octets; a longer one ends the session. RFC 5321 §4.5.3.1.5 allows 512.
pub const LINE_MAX: usize = 2_048;

/// The most lines of a reply; more end the session.
pub const LINES_MAX: usize = 100;

/// The most octets of a reply; more end the session.
pub const REPLY_MAX: usize = 64 << 10;

/// The most octets of a reply's text that are kept in an event.
pub const TEXT_MAX: usize = 512;

/// Why what came is not a reply; the session ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplyError {
    /// A line longer than [`LINE_MAX`], or that long without an end.
    #[error("a reply line of more than 2,048 octets")]
    LineTooLong,
    /// More than [`LINES_MAX`] lines or [`REPLY_MAX`] octets.
    #[error("a reply without end")]
    TooLong,
    /// A line that does not begin with a code from 200 to 599.
    #[error("not an SMTP reply")]
    Syntax,
    /// Lines of one reply with codes of different classes: it says both yes and no.
    #[error("a reply with contradicting codes")]
    MixedCodes,
}

/// One whole reply. Its lines are raw until [`Reply::to_event`] has cleaned them.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The code of its last line.
    pub code: u16,
    /// The texts of its lines, each ended by LF.
    text: Vec<u8>,
}

impl Reply {
    /// The first digit, by which everything is decided (RFC 5321 §4.2.1).
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// 2yz: done.
    pub fn is_ok(&self) -> bool {
        self.class() == 2
    }

    /// The texts of the lines, without codes and line ends.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|b| *b == b'\n').take(self.text.iter().filter(|b| **b == b'\n').count())
    }

    /// The form for events: enhanced code apart, lines joined by a space, controls removed, cut at [`TEXT_MAX`].
    pub fn to_event(&self) -> SmtpReply {
        let mut text = String::new();
        let mut enhanced: Option<&[u8]> = None;
        for (i, line) in self.lines().enumerate() {
            let mut line = line;
            if let Some((code, rest)) = enhanced_code(line, self.class()) {
                // RFC 2034 §4: each line repeats the code.
                if i == 0 {
                    enhanced = Some(code);
                }
                if enhanced == Some(code) {
                    line = rest;
                }
            }
            if !text.is_empty() && !line.is_empty() {
                text.push(' ');
            }
            clean_into(&mut text, line, TEXT_MAX);
            if text.len() >= TEXT_MAX {
                break;
            }
        }
        let enhanced = enhanced.map(|code| String::from_utf8_lossy(code).into());
        SmtpReply { code: self.code, enhanced, text: text.into() }
    }
}

/// `5.1.1 text` → the code and the text, where the code's class is that of the reply (RFC 2034 §4).
fn enhanced_code(line: &[u8], class: u16) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let code = &line[..end];
    let mut parts = code.split(|b| *b == b'.');
    let (c, s, d) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |p: &[u8]| (1..=3).contains(&p.len()) && p.iter().all(u8::is_ascii_digit);
    if parts.next().is_some() || c.len() != 1 || u16::from(c[0].wrapping_sub(b'0')) != class || !digits(s) || !digits(d)
    {
        return None;
    }
    Some((code, line[end..].trim_ascii_start()))
}

/// Appends `raw` without controls (a peer must not draw on a terminal or end a log line), at most up to `max` octets.
pub(super) fn clean_into(out: &mut String, raw: &[u8], max: usize) {
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            let c = if c == '\t' { ' ' } else { c };
            let hidden = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
            if hidden {
                continue;
            }
            if out.len() + c.len_utf8() > max {
                return;
            }
            out.push(c);
        }
        if !chunk.invalid().is_empty() && out.len() < max {
            out.push('?');
        }
    }
}

/// Puts replies together from pieces of any size.
#[derive(Debug, Default)]
pub struct ReplyParser {
    reply: Reply,
    partial: Vec<u8>,
    lines: usize,
    octets: usize,
}

impl ReplyParser {
    /// Takes octets up to the end of a reply: how many were taken, and whether a reply is complete ([`ReplyParser::take`]).
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, bool), ReplyError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.partial.extend_from_slice(&rest[..rest.len().min(LINE_MAX + 1)]);
                if self.partial.len() > LINE_MAX {
                    return Err(ReplyError::LineTooLong);
                }
                return Ok((input.len(), false));
            };
            at += end + 1;
            let last = if self.partial.is_empty() {
                self.line(&rest[..end])?
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&rest[..end.min(LINE_MAX + 1)]);
                let last = self.line(&line);
                line.clear();
                self.partial = line;
                last?
            };
            if last {
                return Ok((at, true));
            }
        }
    }

    /// The complete reply; give its memory back with [`ReplyParser::recycle`].
    pub fn take(&mut self) -> Reply {
        self.lines = 0;
        self.octets = 0;
        std::mem::take(&mut self.reply)
    }

    /// Takes the memory of a reply for the next one.
    pub fn recycle(&mut self, mut reply: Reply) {
        reply.text.clear();
        reply.code = 0;
        if self.lines == 0 {
            self.reply = reply;
        }
    }

    /// Whether nothing of a next reply has come.
    pub fn is_empty(&self) -> bool {
        self.lines == 0 && self.partial.is_empty()
    }

    /// One line without its LF: whether it is the last of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        if line.len() > LINE_MAX {
            return Err(ReplyError::LineTooLong);
        }
        self.lines += 1;
        self.octets += line.len() + 1;
        if self.lines > LINES_MAX || self.octets > REPLY_MAX {
            return Err(ReplyError::TooLong);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, rest) = line.split_at_checked(3).ok_or(ReplyError::Syntax)?;
        let [a, b, c] = code else { return Err(ReplyError::Syntax) };
        if !matches!(a, b'2'..=b'5') || !b.is_ascii_digit() || !c.is_ascii_digit() {
            return Err(ReplyError::Syntax);
        }
        let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        // RFC 5321 §4.2.1 wants the same code on each line; peers exist that vary it within a class.
        if self.lines > 1 && self.reply.code / 100 != code / 100 {
            return Err(ReplyError::MixedCodes);
        }
        self.reply.code = code;
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(ReplyError::Syntax),
        };
        self.reply.text.extend_from_slice(text);
        self.reply.text.push(b'\n');
        Ok(last)
    }
}
