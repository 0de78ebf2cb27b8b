//! One session of a simulated receiver, without sockets: octets in, replies out.
//!
//! 1. [`Session::greet`] begins it.
//! 2. [`Session::advance`] eats all complete commands and as much of a message as is there, and writes the replies;
//!    [`Next`] says what the driver does after it has sent them.
//! 3. At a RCPT and at the end of a message the profile's rules are asked; at each phase its fault.
//!
//! The parser is lenient on purpose: it finds the address between `<` and `>` and believes it. It isn't the parser of
//! the daemon, which is strict, and mustn't be used as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use bytes::{Buf, BytesMut};

use super::counters::Counters;
use super::profile::{Fault, Moment, Phase, Profile, address_hash};

/// The longest command line; a longer one ends the session with 500.
const LINE_MAX: usize = 16 << 10;

/// The end of a message, with the line end before it.
const END: &[u8] = b"\r\n.\r\n";

/// What sessions of one receiver share.
pub(crate) struct Shared {
    pub profile: Profile,
    pub counters: Counters,
    /// How often the fault has struck.
    pub struck: AtomicU32,
    /// The number of the next stored message.
    pub stored: AtomicU64,
    /// Whether STARTTLS is offered.
    pub tls_offered: bool,
}

/// What the driver does after it has sent the replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Reads on.
    More,
    /// Closes in good order.
    Close,
    /// Closes at once, without sending what was written for this burst.
    Drop,
    /// Sends `250-` lines without end.
    Endless,
    /// Begins TLS.
    StartTls,
}

enum State {
    Command,
    /// Inside DATA; `fresh` until its first octet was eaten.
    Data {
        fresh: bool,
    },
    /// Inside a chunk of BDAT; `keep` is false for a chunk that is read only to be forgotten.
    Chunk {
        left: u64,
        last: bool,
        keep: bool,
    },
}

/// One session.
pub(crate) struct Session {
    shared: Arc<Shared>,
    state: State,
    tls: bool,
    messages: u32,
    mail: bool,
    /// Hashes of the recipients that were not refused.
    recipients: Vec<u64>,
    /// The refusal that waits for the end of the message.
    refusal: Option<String>,
    size: u64,
    /// Envelope and octets, only where they are kept.
    envelope: Vec<String>,
    octets: Vec<u8>,
}

impl Session {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            state: State::Command,
            tls: false,
            messages: 0,
            mail: false,
            recipients: Vec::new(),
            refusal: None,
            size: 0,
            envelope: Vec::new(),
            octets: Vec::new(),
        }
    }

    /// The greeting, or 421 where there are too many connections.
    pub fn greet(&mut self, out: &mut Vec<u8>) -> Next {
        let profile = &self.shared.profile;
        let open = self.shared.counters.open.load(Relaxed);
        if profile.connections_max > 0 && open > u64::from(profile.connections_max) {
            self.shared.counters.throttled.fetch_add(1, Relaxed);
            say(out, &format!("421 4.7.0 {} Too many concurrent connections from your address", profile.host));
            return Next::Close;
        }
        if let Some(next) = self.fault(Phase::Connect, out) {
            return next;
        }
        say(out, &format!("220 {} ESMTP sandbox", self.shared.profile.host));
        Next::More
    }

    /// TLS is on: what was said before is forgotten (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.tls = true;
        self.reset();
    }

    /// Eats what is complete in `input` and appends the replies to `out`.
    pub fn advance(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Next {
        loop {
            let next = match self.state {
                State::Command => match memchr::memchr(b'\n', input) {
                    Some(end) => {
                        let line = input.split_to(end + 1);
                        Some(self.command(trim(&line), out))
                    }
                    None if input.len() > LINE_MAX => {
                        say(out, "500 5.5.2 Line too long");
                        Some(Next::Close)
                    }
                    None => None,
                },
                State::Data { fresh } => self.data(fresh, input, out),
                State::Chunk { left, last, keep } => self.chunk(left, last, keep, input, out),
            };
            match next {
                Some(Next::More) => {}
                Some(end) => return end,
                None => return Next::More,
            }
        }
    }

    fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let mut verb = [0; 4];
        for (to, from) in verb.iter_mut().zip(line) {
            *to = from.to_ascii_uppercase();
        }
        match &verb {
            b"EHLO" | b"HELO" => self.ehlo(&verb == b"EHLO", out),
            b"MAIL" => self.mail(line, out),
            b"RCPT" => self.rcpt(line, out),
            b"DATA" => self.begin_data(out),
            b"BDAT" => self.begin_chunk(line, out),
            b"RSET" => {
                self.reset();
                say(out, "250 2.0.0 OK")
            }
            b"NOOP" => say(out, "250 2.0.0 OK"),
            b"VRFY" => say(out, "252 2.1.5 Send some mail, I'll try my best"),
            b"STAR" if self.shared.tls_offered && !self.tls => {
                say(out, "220 2.0.0 Ready to start TLS");
                Next::StartTls
            }
            b"QUIT" => {
                say(out, "221 2.0.0 Bye");
                Next::Close
            }
            _ => say(out, "502 5.5.1 Command not implemented"),
        }
    }

    fn ehlo(&mut self, extended: bool, out: &mut Vec<u8>) -> Next {
        self.reset();
        if let Some(next) = self.fault(Phase::Ehlo, out) {
            return next;
        }
        let profile = &self.shared.profile;
        if matches!(profile.fault, Some(Fault::EndlessReply)) {
            return Next::Endless;
        }
        if !extended {
            return say(out, &format!("250 {}", profile.host));
        }
        let offers = &profile.offers;
        let mut line = |text: &str| {
            say(out, &format!("250-{text}"));
        };
        line(&profile.host);
        for (on, keyword) in [
            (offers.pipelining, "PIPELINING"),
            (offers.chunking, "CHUNKING"),
            (offers.eight_bit, "8BITMIME"),
            (offers.smtputf8, "SMTPUTF8"),
            (offers.dsn, "DSN"),
            (self.shared.tls_offered && !self.tls, "STARTTLS"),
        ] {
            if on {
                line(keyword);
            }
        }
        if let Some(size) = offers.size_max {
            line(&format!("SIZE {size}"));
        }
        say(out, "250 ENHANCEDSTATUSCODES")
    }

    fn mail(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let profile = &self.shared.profile;
        if profile.messages_per_connection > 0 && self.messages >= profile.messages_per_connection {
            self.shared.counters.throttled.fetch_add(1, Relaxed);
            say(out, "421 4.7.0 Max message per connection reached, closing transmission channel");
            return Next::Close;
        }
        if let Some(next) = self.fault(Phase::Mail, out) {
            return next;
        }
        let Some(address) = address(line) else { return say(out, "501 5.1.7 Bad sender address syntax") };
        let address = self.kept().then(|| String::from_utf8_lossy(address).into_owned());
        self.reset();
        self.mail = true;
        self.envelope.extend(address);
        say(out, "250 2.1.0 OK")
    }

    fn rcpt(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        if let Some(next) = self.fault(Phase::Rcpt, out) {
            return next;
        }
        if !self.mail {
            return say(out, "503 5.5.1 MAIL first");
        }
        let Some(address) = address(line) else { return say(out, "501 5.1.3 Bad recipient address syntax") };
        let hash = address_hash(address);
        let attempt = self.shared.counters.tried(hash);
        if let Some(rule) = self.shared.profile.rule_for(hash).filter(|rule| attempt <= rule.times) {
            match rule.moment {
                Moment::Rcpt => return self.refuse(&rule.reply.clone(), out),
                Moment::EndOfData => self.refusal = Some(rule.reply.clone()),
            }
        }
        if self.kept() {
            self.envelope.push(String::from_utf8_lossy(address).into_owned());
        }
        self.recipients.push(hash);
        say(out, "250 2.1.5 OK")
    }

    fn begin_data(&mut self, out: &mut Vec<u8>) -> Next {
        if let Some(next) = self.fault(Phase::Data, out) {
            return next;
        }
        if self.recipients.is_empty() {
            return say(out, "554 5.5.1 No valid recipients");
        }
        self.state = State::Data { fresh: true };
        say(out, "354 Go ahead")
    }

    fn begin_chunk(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        if let Some(next) = self.fault(Phase::Data, out) {
            return next;
        }
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace().skip(1);
        let Some(left) = words.next().and_then(|n| n.parse::<u64>().ok()) else {
            return say(out, "501 5.5.4 BDAT needs a size");
        };
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        // A chunk that is not wanted must be read all the same (RFC 3030 §2), and is answered after its last octet.
        self.state = State::Chunk { left, last, keep: !self.recipients.is_empty() };
        Next::More
    }

    /// `None` when more octets are needed.
    fn data(&mut self, fresh: bool, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Next> {
        if !input.is_empty()
            && let Some(next) = self.fault(Phase::MidBody, out)
        {
            return Some(next);
        }
        if fresh {
            // The line end of the DATA command is the one before a first line of a lone dot.
            if input.starts_with(&END[2..]) {
                input.advance(3);
                return Some(self.end_of_message(out));
            }
            if input.is_empty() || END[2..].starts_with(input) {
                return None;
            }
            self.state = State::Data { fresh: false };
        }
        if let Some(at) = memchr::memmem::find(input, END) {
            self.eat(at + 2, input);
            input.advance(END.len() - 2);
            return Some(self.end_of_message(out));
        }
        // The last four octets may be the beginning of the end.
        self.eat(input.len().saturating_sub(END.len() - 1), input);
        None
    }

    fn chunk(&mut self, left: u64, last: bool, keep: bool, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Next> {
        if !input.is_empty()
            && let Some(next) = self.fault(Phase::MidBody, out)
        {
            return Some(next);
        }
        let now = left.min(input.len() as u64);
        self.eat(now as usize, input);
        if now < left {
            self.state = State::Chunk { left: left - now, last, keep };
            return None;
        }
        self.state = State::Command;
        if !keep {
            self.size = 0;
            return Some(say(out, "503 5.5.1 No valid recipients"));
        }
        Some(if last { self.end_of_message(out) } else { say(out, "250 2.0.0 OK") })
    }

    fn eat(&mut self, count: usize, input: &mut BytesMut) {
        if self.kept() {
            self.octets.extend_from_slice(&input[..count]);
        }
        self.size += count as u64;
        input.advance(count);
    }

    fn end_of_message(&mut self, out: &mut Vec<u8>) -> Next {
        let by_data = matches!(self.state, State::Data { .. });
        self.state = State::Command;
        if let Some(reply) = self.refusal.take() {
            self.reset();
            return self.refuse(&reply, out);
        }
        if self.shared.profile.offers.size_max.is_some_and(|max| self.size > max) {
            self.reset();
            return self.refuse("552 5.3.4 Message size exceeds fixed limit", out);
        }
        self.shared.counters.took(&self.recipients, self.size);
        self.messages += 1;
        if self.kept() {
            self.keep(by_data);
        }
        self.reset();
        // The message is kept and its reply lost: what a sender has to take for ambiguous (RFC 1047).
        if let Some(next) = self.fault(Phase::FinalReply, out) {
            return next;
        }
        say(out, "250 2.0.0 OK queued")
    }

    fn refuse(&self, reply: &str, out: &mut Vec<u8>) -> Next {
        let counters = &self.shared.counters;
        let counter = if reply.starts_with('5') { &counters.rejected } else { &counters.deferred };
        counter.fetch_add(1, Relaxed);
        say(out, reply);
        if reply.starts_with("421") { Next::Close } else { Next::More }
    }

    fn kept(&self) -> bool {
        self.shared.profile.store.is_some()
    }

    /// Writes message and envelope; a folder that can't be written is the tester's fault and shows as a missing file.
    fn keep(&self, by_data: bool) {
        let Some(folder) = &self.shared.profile.store else { return };
        let number = self.shared.stored.fetch_add(1, Relaxed);
        let envelope = serde_json::json!({
            "from": self.envelope.first(),
            "to": self.envelope.get(1..).unwrap_or_default(),
            "chunked": !by_data,
            "tls": self.tls,
        });
        let octets = if by_data { unstuffed(&self.octets) } else { self.octets.clone() };
        let _ = std::fs::write(folder.join(format!("{number:06}.eml")), octets);
        let _ = std::fs::write(folder.join(format!("{number:06}.json")), envelope.to_string());
    }

    fn fault(&self, phase: Phase, out: &mut Vec<u8>) -> Option<Next> {
        let (at, times, closing) = match &self.shared.profile.fault {
            Some(Fault::Drop { at, times }) => (*at, *times, false),
            Some(Fault::ServiceClosing { at, times }) => (*at, *times, true),
            Some(Fault::ByteByByte { .. } | Fault::EndlessReply) | None => return None,
        };
        if at != phase || self.shared.struck.fetch_add(1, Relaxed) >= times {
            return None;
        }
        self.shared.counters.dropped.fetch_add(1, Relaxed);
        if !closing {
            return Some(Next::Drop);
        }
        say(out, "421 4.3.2 Service not available, closing transmission channel");
        Some(Next::Close)
    }

    fn reset(&mut self) {
        self.mail = false;
        self.recipients.clear();
        self.refusal = None;
        self.size = 0;
        self.envelope.clear();
        self.octets.clear();
    }
}

fn say(out: &mut Vec<u8>, text: &str) -> Next {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
    Next::More
}

fn trim(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn address(line: &[u8]) -> Option<&[u8]> {
    let start = memchr::memchr(b'<', line)? + 1;
    let end = memchr::memrchr(b'>', line)?;
    line.get(start..end)
}

/// Takes away the dot that RFC 5321 §4.5.2 puts before a line that begins with one.
fn unstuffed(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    let mut line_start = true;
    for (i, &byte) in octets.iter().enumerate() {
        if !(line_start && byte == b'.') {
            out.push(byte);
        }
        line_start = byte == b'\n' && i > 0 && octets[i - 1] == b'\r';
    }
    out
}
