//! One transaction: how it is written, and what its replies mean for each recipient.
//!
//! 1. [`Client::send`] formats RSET (where needed), MAIL and RCPT lines; with PIPELINING all go at once, with DATA or the
//!    chunk behind them where that may be; without it one line at a time,
//! 2. replies to MAIL and RCPT are kept for the recipients; when all have come and nothing was sent ahead, the data follows
//!    if anybody is left to get it,
//! 3. the final reply settles those who were accepted.

use super::machine::{Client, Event, Expect, Fault, Verdict};
use super::{Body, Reply, State};
use crate::types::{Mailbox, Notify, Ret, ReversePath};

/// The largest body that is sent ahead of the replies to RCPT: a refusal wastes no more than this.
const AHEAD_SIZE_MAX: u64 = 256 << 10;

/// The envelope of a transaction without its recipients.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// The reverse-path.
    pub reverse_path: &'a ReversePath,
    /// `RET`.
    pub ret: Option<Ret>,
    /// `ENVID`, in xtext.
    pub envid: Option<&'a str>,
    /// Whether BODY=8BITMIME is said.
    pub eight_bit: bool,
    /// Whether SMTPUTF8 is said.
    pub smtputf8: bool,
}

/// One recipient of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Rcpt<'a> {
    /// The address.
    pub mailbox: &'a Mailbox,
    /// `NOTIFY`.
    pub notify: Notify,
    /// `ORCPT`, in xtext.
    pub orcpt: Option<&'a str>,
}

/// A transaction on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// For each recipient its refusal.
    refused: Vec<Option<Fault>>,
    /// RCPT replies that have come.
    replied: usize,
    /// Recipients that the peer accepted.
    accepted: usize,
    /// The refusal of MAIL.
    mail_refused: Option<Fault>,
    /// Commands that are not said yet, where it goes one at a time.
    lines: Vec<u8>,
    said: usize,
    /// The body until it is queued.
    body: Option<Body>,
    wire_size: u64,
    /// The place in the output behind the last octet of the data.
    data_end: Option<u64>,
    /// Whether DATA was said ahead of the RCPT replies.
    data_said: bool,
}

impl Flight {
    /// Whether all of its octets are queued, so that the next transaction may follow.
    pub(super) fn data_queued(&self) -> bool {
        self.data_end.is_some()
    }

    fn data_written(&self, written: u64) -> bool {
        self.data_end.is_some_and(|end| written >= end)
    }

    /// The session ended with `reason` before the final reply. `first` is the transaction that the peer was at.
    pub(super) fn end_with(self, reason: &Fault, first: bool, written: u64) -> Event {
        let somebody = self.mail_refused.is_none() && self.refused.iter().any(Option::is_none);
        // A reply says what became of it; silence after all data does not (RFC 1047).
        let ambiguous = !reason.remote && somebody && self.data_written(written);
        let mut fault = reason.clone();
        fault.untried = (reason.untried || !first) && !ambiguous;
        let wire_size = if self.data_written(written) { self.wire_size } else { 0 };
        let verdicts = self.verdicts(|| Verdict::Failed(fault.clone()));
        Event::Done { verdicts, ambiguous, wire_size }
    }

    /// Each recipient's own refusal, or `rest` for those who have none.
    fn verdicts(self, rest: impl Fn() -> Verdict) -> Vec<Verdict> {
        let mail = self.mail_refused;
        let one = |own: Option<Fault>| match (&mail, own) {
            (Some(fault), _) => Verdict::Failed(fault.clone()),
            (None, Some(fault)) => Verdict::Failed(fault),
            (None, None) => rest(),
        };
        self.refused.into_iter().map(one).collect()
    }
}

impl Client {
    /// Sends a transaction; only when [`Client::can_send`] says so. Parameters that the peer does not offer are left out,
    /// so the caller must have checked SMTPUTF8, 8BITMIME and SIZE.
    pub fn send<'a>(&mut self, mail: &Mail<'_>, rcpts: impl ExactSizeIterator<Item = Rcpt<'a>>, body: Body) {
        self.count_transaction();
        let count = rcpts.len();
        let wire_size = body.wire_size();
        // A chunk may follow another one whose fate is open; RFC 3030 §2: after a failed one only RSET makes it clear where
        // the peer is, and asking for it ahead costs one reply. After DATA the end of data is clear in any case.
        let reset = self.needs_reset || (self.caps.chunking && !self.flights.is_empty());
        let mut lines = std::mem::take(&mut self.scratch);
        lines.clear();
        if reset {
            lines.extend_from_slice(b"RSET\r\n");
        }
        self.format_mail(mail, wire_size, &mut lines);
        for rcpt in rcpts {
            self.format_rcpt(&rcpt, mail.smtputf8, &mut lines);
        }
        self.needs_reset = false;
        let mut flight = Flight {
            refused: vec![None; count],
            replied: 0,
            accepted: 0,
            mail_refused: None,
            lines: Vec::new(),
            said: 0,
            body: Some(body),
            wire_size,
            data_end: None,
            data_said: false,
        };
        if !self.caps.pipelining {
            flight.lines = lines;
            self.flights.push_back(flight);
            return self.say_next_line();
        }
        self.say_lines(&lines);
        self.scratch = lines;
        if reset {
            self.expect.push_back(Expect::Reset);
        }
        self.expect.push_back(Expect::Mail);
        self.expect.extend(std::iter::repeat_n(Expect::Rcpt, count));
        if !self.caps.chunking {
            flight.data_said = true;
            self.say("DATA", Expect::Data);
        } else if self.caution == 0 && wire_size <= AHEAD_SIZE_MAX {
            self.send_chunk(&mut flight);
        }
        self.flights.push_back(flight);
    }

    fn format_mail(&self, mail: &Mail<'_>, wire_size: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MAIL FROM:<");
        if let Some(mailbox) = mail.reverse_path.mailbox() {
            out.extend_from_slice(mailbox.for_wire(mail.smtputf8).as_bytes());
        }
        out.push(b'>');
        if self.caps.size.is_some() {
            out.extend_from_slice(b" SIZE=");
            push_number(wire_size, out);
        }
        if mail.eight_bit && self.caps.eight_bit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if mail.smtputf8 && self.caps.smtputf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if self.caps.dsn {
            match mail.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = mail.envid.filter(|e| is_xtext(e)) {
                out.extend_from_slice(b" ENVID=");
                out.extend_from_slice(envid.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn format_rcpt(&self, rcpt: &Rcpt<'_>, smtputf8: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"RCPT TO:<");
        out.extend_from_slice(rcpt.mailbox.for_wire(smtputf8).as_bytes());
        out.push(b'>');
        if self.caps.dsn {
            if rcpt.notify != Notify::Default {
                out.extend_from_slice(format!(" NOTIFY={}", rcpt.notify).as_bytes());
            }
            if let Some(orcpt) = rcpt.orcpt.filter(|o| is_xtext(o)) {
                out.extend_from_slice(b" ORCPT=");
                out.extend_from_slice(orcpt.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Without PIPELINING: the next command of the only transaction, or its data.
    fn say_next_line(&mut self) {
        let Some(flight) = self.flights.front_mut() else { return };
        let rest = &flight.lines[flight.said..];
        let Some(end) = memchr::memchr(b'\n', rest) else { return self.after_rcpts() };
        let expect = match rest.get(..2) {
            Some(b"RS") => Expect::Reset,
            Some(b"MA") => Expect::Mail,
            _ => Expect::Rcpt,
        };
        let line = rest[..=end].to_vec();
        flight.said += end + 1;
        self.say_lines(&line);
        self.expect.push_back(expect);
    }

    pub(super) fn after_reset(&mut self) {
        if !self.caps.pipelining {
            self.say_next_line();
        }
    }

    pub(super) fn on_mail_reply(&mut self, reply: &Reply) {
        if !self.check_class(State::Mail, reply) {
            return;
        }
        if reply.is_ok() {
            if !self.caps.pipelining {
                self.say_next_line();
            }
            return;
        }
        self.be_cautious();
        let Some(flight) = self.flights.front_mut() else { return };
        flight.mail_refused = Some(Fault::refusal(State::Mail, reply));
        if !self.caps.pipelining {
            self.finish_unsent();
        }
    }

    pub(super) fn on_rcpt_reply(&mut self, reply: &Reply) {
        if !self.check_class(State::Rcpt, reply) {
            return;
        }
        let mut cautious = false;
        let Some(flight) = self.flights.front_mut() else { return };
        if flight.mail_refused.is_none() {
            if reply.is_ok() {
                flight.accepted += 1;
            } else if let Some(slot) = flight.refused.get_mut(flight.replied) {
                *slot = Some(Fault::refusal(State::Rcpt, reply));
                cautious = true;
            }
        }
        flight.replied += 1;
        let all = flight.replied == flight.refused.len();
        let waits = flight.data_end.is_none() && !flight.data_said;
        if cautious {
            self.be_cautious();
        }
        if !self.caps.pipelining {
            self.say_next_line();
        } else if all && waits {
            self.after_rcpts();
        }
    }

    /// A 421 to RCPT: this recipient got no answer of its own; the session ends for all who are open.
    pub(super) fn note_shutdown_at_rcpt(&mut self, reply: &Reply) {
        if let Some(flight) = self.flights.front_mut()
            && let Some(slot) = flight.refused.get_mut(flight.replied)
            && flight.mail_refused.is_none()
        {
            *slot = Some(Fault::session(State::Rcpt, reply));
        }
    }

    /// All RCPT replies are in and nothing was sent ahead: the data, where anybody is left to get it.
    fn after_rcpts(&mut self) {
        let Some(flight) = self.flights.front() else { return };
        if flight.accepted == 0 {
            return self.finish_unsent();
        }
        if !self.caps.chunking {
            return self.say("DATA", Expect::Data);
        }
        if let Some(mut flight) = self.flights.pop_front() {
            self.send_chunk(&mut flight);
            self.flights.push_front(flight);
        }
    }

    /// RFC 3030 §2: the chunk follows its command at once, unstuffed.
    fn send_chunk(&mut self, flight: &mut Flight) {
        let Some(body) = flight.body.take() else { return };
        self.say(&format!("BDAT {} LAST", flight.wire_size), Expect::Chunk);
        body.write_chunk(&mut self.out);
        flight.data_end = Some(self.out.queued());
        let size = flight.wire_size;
        self.trace_note(|| format!("> [{size} octets]"));
    }

    pub(super) fn on_data_reply(&mut self, reply: &Reply) {
        let Some(flight) = self.flights.front_mut() else { return };
        match reply.class() {
            3 if flight.accepted == 0 => {
                // RFC 2920 §3.1: a 354 though nobody was accepted: an empty message, whose reply says nothing.
                self.out.text(b".\r\n");
                flight.body = None;
                flight.data_end = Some(self.out.queued());
                self.trace_note(|| "> .".to_owned());
                self.expect.push_back(Expect::DataEnd);
            }
            3 => {
                let Some(body) = flight.body.take() else { return };
                body.write_data(&mut self.out);
                flight.data_end = Some(self.out.queued());
                let size = flight.wire_size;
                self.trace_note(|| format!("> [{size} octets]"));
                self.trace_note(|| "> .".to_owned());
                self.expect.push_back(Expect::DataEnd);
            }
            4 | 5 => {
                self.needs_reset = true;
                self.finish(|| Verdict::Failed(Fault::refusal(State::Data, reply)));
            }
            _ => self.senseless(State::Data, reply),
        }
    }

    pub(super) fn on_final_reply(&mut self, expect: Expect, reply: &Reply) {
        let written = self.out.written();
        let Some(flight) = self.flights.front() else { return };
        let nobody = flight.accepted == 0 || flight.mail_refused.is_some();
        // A chunk for nobody is refused before it is out, and still has to go out.
        let chunk_for_nobody = nobody && expect == Expect::Chunk;
        if !flight.data_written(written) && !chunk_for_nobody {
            return self.on_early_reply(reply);
        }
        match reply.class() {
            2 if !nobody => {
                self.caution = self.caution.saturating_sub(1);
                let reply = reply.to_event();
                self.finish(|| Verdict::Delivered(reply.clone()));
            }
            // A middlebox that passes the offer of CHUNKING and then does not know BDAT says nothing about the message.
            5 if expect == Expect::Chunk && !nobody && matches!(reply.code, 500 | 502 | 504) => {
                self.chunking_refused = true;
                self.needs_reset = true;
                let fault = Fault::session(State::DataEnd, reply);
                self.finish(|| Verdict::Failed(fault.clone()));
                // What follows would be read as commands; whoever is behind goes by another session, without CHUNKING.
                let mut ended = Fault::session(State::DataEnd, reply);
                ended.untried = true;
                self.close(Some(ended));
            }
            // Nobody was accepted: each recipient has its own refusal, and this reply only ends the data.
            2 | 4 | 5 => {
                if expect == Expect::Chunk && self.flights.len() == 1 {
                    self.needs_reset = true;
                }
                self.finish(|| Verdict::Failed(Fault::refusal(State::DataEnd, reply)));
            }
            _ => self.senseless(State::DataEnd, reply),
        }
    }

    /// A reply before all data was sent. A refusal stands; but the rest of the data would be read as commands, and its
    /// end can't be sent without sending it all, so the session ends.
    fn on_early_reply(&mut self, reply: &Reply) {
        if !matches!(reply.class(), 4 | 5) {
            return self.senseless(State::Body, reply);
        }
        self.finish(|| Verdict::Failed(Fault::refusal(State::Body, reply)));
        let mut fault = Fault::session(State::Body, reply);
        fault.untried = true;
        self.close(Some(fault));
    }

    /// Ends the first transaction before its data: everybody was refused.
    fn finish_unsent(&mut self) {
        // After a refused MAIL there is no transaction at the peer; a RSET would do no harm, but costs a round trip.
        self.needs_reset = self.flights.front().is_some_and(|f| f.mail_refused.is_none());
        self.caution = self.caution.saturating_sub(1);
        self.finish(|| Verdict::Failed(Fault::local(State::Rcpt, "4.5.0", "no recipient was accepted")));
    }

    fn finish(&mut self, rest: impl Fn() -> Verdict) {
        let Some(flight) = self.flights.pop_front() else { return };
        let sent = flight.data_written(self.out.written()) && flight.accepted > 0;
        let wire_size = if sent { flight.wire_size } else { 0 };
        let verdicts = flight.verdicts(rest);
        self.push_event(Event::Done { verdicts, ambiguous: false, wire_size });
    }

    /// MAIL and RCPT are answered by 2yz, 4yz or 5yz.
    fn check_class(&mut self, state: State, reply: &Reply) -> bool {
        let good = matches!(reply.class(), 2 | 4 | 5);
        if !good {
            self.senseless(state, reply);
        }
        good
    }

    /// A reply that makes no sense here: who knows what the peer believes. The session ends.
    fn senseless(&mut self, state: State, reply: &Reply) {
        let mut fault = Fault::session(state, reply);
        fault.reply.text = format!("an unexpected reply: {}", fault.reply.text).into();
        self.close(Some(fault));
    }
}

/// Printable ASCII without space: what RFC 3461 §4 allows in ENVID and ORCPT; anything else is not passed on.
fn is_xtext(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn push_number(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
