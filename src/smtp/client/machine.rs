//! The session of a client: what it waits for, and what each reply means.
//!
//! The legal path: greeting → EHLO (or HELO) → (STARTTLS → handshake → EHLO) → (AUTH) → ready → transactions → QUIT → closed.
//! With implicit TLS the driver does the handshake before the first octet. From each state a 421, a lost
//! connection or a broken reply leads to closed.
//!
//! Replies come in the order of the commands, so one list of [`Expect`] says what each of them answers.

use std::collections::VecDeque;
use std::sync::Arc;

use super::transaction::Flight;
use super::{Capabilities, Output, Reply, ReplyError, ReplyParser, State};
use crate::event::{Severity, SmtpReply};

/// After a refused MAIL or RCPT so many transactions wait for their RCPT replies before a chunk is sent, with none ahead.
const CAUTIOUS_TRANSACTIONS: u32 = 8;

/// How TLS is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsUse {
    /// STARTTLS is never asked for.
    Never,
    /// STARTTLS where it is offered.
    IfOffered,
    /// STARTTLS, or the session fails.
    Must,
    /// The stream was encrypted from its first octet.
    Implicit,
}

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name to say in EHLO.
    pub ehlo: Arc<str>,
    /// TLS.
    pub tls: TlsUse,
    /// User name and password for AUTH.
    pub credentials: Option<Arc<(String, String)>>,
    /// Whether AUTH may go in clear: only to loopback.
    pub auth_in_clear: bool,
    /// How many transactions may be ahead of their replies.
    pub depth: u32,
    /// Whether CHUNKING is used where it is offered; not with a host that offered and then refused it.
    pub chunking: bool,
}

/// Why a session or a recipient failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Whether trying again could help.
    pub severity: Severity,
    /// The peer's reply, or our words with code 0.
    pub reply: SmtpReply,
    /// Where.
    pub state: State,
    /// Whether the peer said so.
    pub remote: bool,
    /// Whether the transaction was never looked at by the peer: another session may take it at once.
    pub untried: bool,
}

impl Fault {
    /// A fault that we state ourselves; trying again may help.
    pub(super) fn local(state: State, enhanced: &str, text: impl Into<Box<str>>) -> Self {
        let reply = SmtpReply { code: 0, enhanced: Some(enhanced.into()), text: text.into() };
        Self { severity: Severity::Temporary, reply, state, remote: false, untried: false }
    }

    /// A reply to something that belongs to the session, not to a message: it says nothing about the
    /// message for good, so trying again may help, maybe at another host.
    pub(super) fn session(state: State, reply: &Reply) -> Self {
        Self { severity: Severity::Temporary, reply: deferring(reply), state, remote: true, untried: false }
    }

    /// A refusal of a message or recipient: 4yz for now, 5yz for good (RFC 5321 §4.2.1).
    pub(super) fn refusal(state: State, reply: &Reply) -> Self {
        // RFC 5321 §4.5.3.1.10: a 552 to RCPT ("too many recipients" of old) counts as 452.
        let temporary = reply.class() == 4 || (reply.code == 552 && state == State::Rcpt);
        if temporary {
            return Self::session(state, reply);
        }
        Self { severity: Severity::Permanent, reply: reply.to_event(), state, remote: true, untried: false }
    }
}

/// A reply that defers, whatever its own class: the enhanced code says so too (RFC 3463 §2: class 4 is "persistent transient failure"),
/// and where the peer's own said 5, that stays at the head of the text.
fn deferring(reply: &Reply) -> SmtpReply {
    let mut reply = reply.to_event();
    if let Some(rest) = reply.enhanced.as_deref().and_then(|code| code.strip_prefix('5')) {
        let own = format!("5{rest} {}", reply.text);
        reply.enhanced = Some(format!("4{rest}").into());
        reply.text = own.trim_end().into();
    }
    reply
}

/// What became of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The peer took it: its final reply.
    Delivered(SmtpReply),
    /// It did not.
    Failed(Fault),
}

/// How a connection was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LostBy {
    /// The peer closed it.
    Closed,
    /// The network reported this.
    Network(String),
    /// Nothing moved for the time of the state.
    Timeout,
    /// We gave up: shutdown, or the limit of a session's life.
    Abandoned(&'static str),
}

/// What the driver is to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Do the TLS handshake, then call [`Client::tls_started`].
    StartTls,
    /// Transactions may be sent.
    Ready,
    /// A transaction ended. They end in the order in which they were sent.
    Done {
        /// One for each of its recipients, in order.
        verdicts: Vec<Verdict>,
        /// All data was sent and the final reply was lost.
        ambiguous: bool,
        /// Octets of message data as sent; 0 where none was.
        wire_size: u64,
    },
    /// The session ended; `None` where nothing went wrong.
    Closed(Option<Fault>),
}

/// What a reply answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth(AuthStep),
    Reset,
    Mail,
    Rcpt,
    Data,
    DataEnd,
    Chunk,
    Quit,
}

/// Where AUTH stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AuthStep {
    /// `AUTH PLAIN` with its response was sent.
    Plain,
    /// The response was sent again after a 334.
    PlainResponse,
    /// `AUTH LOGIN` was sent.
    Login,
    /// The user name was sent.
    LoginUser,
    /// The password was sent.
    LoginPassword,
}

impl Expect {
    fn state(self) -> State {
        match self {
            Expect::Greeting => State::Greeting,
            Expect::Ehlo | Expect::Helo => State::Hello,
            Expect::StartTls => State::StartTls,
            Expect::Auth(_) => State::Auth,
            Expect::Reset => State::Reset,
            Expect::Mail => State::Mail,
            Expect::Rcpt => State::Rcpt,
            Expect::Data => State::Data,
            Expect::DataEnd | Expect::Chunk => State::DataEnd,
            Expect::Quit => State::Quit,
        }
    }
}

/// Where the session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Handshake,
    /// The driver does the TLS handshake.
    Tls,
    Ready,
    Closed,
}

/// The client's machine: see the module's flow.
#[derive(Debug)]
pub struct Client {
    pub(super) settings: Settings,
    pub(super) phase: Phase,
    pub(super) encrypted: bool,
    pub(super) caps: Capabilities,
    parser: ReplyParser,
    pub(super) out: Output,
    pub(super) expect: VecDeque<Expect>,
    pub(super) flights: VecDeque<Flight>,
    events: VecDeque<Event>,
    /// Transactions for which nothing goes ahead of its replies.
    pub(super) caution: u32,
    /// The peer may still hold a transaction: the next one begins with RSET.
    pub(super) needs_reset: bool,
    pub(super) chunking_refused: bool,
    transactions: u32,
    /// The lines of a transaction while they are formatted.
    pub(super) scratch: Vec<u8>,
    trace: Option<Vec<String>>,
}

impl Client {
    /// A session that waits for its greeting.
    pub fn new(settings: Settings) -> Self {
        Self {
            encrypted: settings.tls == TlsUse::Implicit,
            settings,
            phase: Phase::Handshake,
            caps: Capabilities::default(),
            parser: ReplyParser::default(),
            out: Output::default(),
            expect: VecDeque::from([Expect::Greeting]),
            flights: VecDeque::new(),
            events: VecDeque::new(),
            caution: 0,
            needs_reset: false,
            chunking_refused: false,
            transactions: 0,
            scratch: Vec::new(),
            trace: None,
        }
    }

    /// What the peer offers; all absent until [`Event::Ready`].
    pub fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    /// Whether the peer offered CHUNKING and then did not know BDAT: the next session should do without.
    pub fn chunking_refused(&self) -> bool {
        self.chunking_refused
    }

    /// What is to be written.
    pub fn output(&self) -> &Output {
        &self.out
    }

    /// So many octets of [`Client::output`] were written.
    pub fn wrote(&mut self, n: usize) {
        self.out.advance(n);
    }

    /// What the driver is to know next.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Transactions whose end has not come.
    pub fn open(&self) -> usize {
        self.flights.len()
    }

    /// Transactions begun since the session's beginning.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// What the session waits for.
    pub fn state(&self) -> State {
        match (self.phase, self.expect.front()) {
            (Phase::Closed, _) => State::Closed,
            (Phase::Tls, _) => State::Handshake,
            (_, Some(Expect::DataEnd | Expect::Chunk)) if !self.out.is_empty() => State::Body,
            (_, Some(expect)) => expect.state(),
            (_, None) => State::Idle,
        }
    }

    /// Keeps lines of the session for [`Client::trace_lines`], or stops that.
    pub fn set_trace(&mut self, on: bool) {
        if on != self.trace.is_some() {
            self.trace = on.then(Vec::new);
        }
    }

    /// The lines since the last call: `>` what we said, `<` what the peer said, secrets masked.
    pub fn trace_lines(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes what was read; how many whole replies were in it.
    pub fn input(&mut self, mut input: &[u8]) -> usize {
        let mut replies = 0;
        while !input.is_empty() && self.phase != Phase::Closed {
            // RFC 3207 §4.2 and its injection attack: nothing that came in clear is believed after STARTTLS.
            if self.phase == Phase::Tls {
                self.close(Some(Fault::local(
                    State::StartTls,
                    "4.7.0",
                    "the peer sent data behind its reply to STARTTLS",
                )));
                break;
            }
            match self.parser.feed(input) {
                Ok((taken, whole)) => {
                    input = &input[taken..];
                    if !whole {
                        break;
                    }
                }
                Err(error) => {
                    self.broken(error);
                    break;
                }
            }
            replies += 1;
            let reply = self.parser.take();
            self.trace_reply(&reply);
            self.on_reply(&reply);
            self.parser.recycle(reply);
        }
        replies
    }

    /// The TLS handshake is done: what was known is forgotten, EHLO is said anew (RFC 3207 §4.2). A session that closed meanwhile,
    /// since the peer sent data behind its reply to STARTTLS, stays closed.
    pub fn tls_started(&mut self) {
        if self.phase != Phase::Tls {
            return;
        }
        self.encrypted = true;
        self.phase = Phase::Handshake;
        self.caps = Capabilities::default();
        self.parser = ReplyParser::default();
        self.say_hello();
    }

    /// Says QUIT; [`Event::Closed`] follows with its reply, or by [`Client::lost`].
    pub fn quit(&mut self) {
        match self.phase {
            Phase::Ready if !self.expect.contains(&Expect::Quit) => self.say("QUIT", Expect::Quit),
            Phase::Ready | Phase::Closed => {}
            Phase::Handshake | Phase::Tls => self.close(None),
        }
    }

    /// The connection is lost: open transactions end, the last event is [`Event::Closed`].
    pub fn lost(&mut self, by: &LostBy) {
        let state = self.state();
        if state == State::Closed {
            return;
        }
        // The peer may leave when nothing is open, and the end of QUIT interests nobody.
        if matches!(state, State::Idle | State::Quit) && self.flights.is_empty() {
            return self.close(None);
        }
        let (enhanced, text) = match by {
            LostBy::Closed => ("4.4.2", format!("the peer closed the connection while {}", state.name())),
            LostBy::Network(error) => ("4.4.2", format!("the connection broke while {}: {error}", state.name())),
            LostBy::Timeout => ("4.4.2", format!("timed out while {}", state.name())),
            LostBy::Abandoned(why) => ("4.3.2", format!("{why} while {}", state.name())),
        };
        let mut fault = Fault::local(state, enhanced, text);
        // A connection that was kept for more may have been closed by the peer while our command was on its way: no reply
        // to MAIL says that the transaction was not looked at. The first one of a session gets no such grace.
        let closed = matches!(by, LostBy::Closed | LostBy::Network(_));
        fault.untried = closed && matches!(state, State::Mail | State::Reset) && self.transactions > 1;
        self.close(Some(fault));
    }

    /// Whether another transaction may be sent now.
    pub fn can_send(&self) -> bool {
        if self.phase != Phase::Ready || self.expect.contains(&Expect::Quit) {
            return false;
        }
        let Some(last) = self.flights.back() else { return true };
        let depth = if self.caps.chunking { self.settings.depth } else { self.settings.depth.min(1) };
        self.caps.pipelining
            && (self.caution == 0 || !self.caps.chunking)
            && last.data_queued()
            && self.flights.len() <= depth as usize
    }

    pub(super) fn count_transaction(&mut self) {
        self.transactions += 1;
    }

    pub(super) fn be_cautious(&mut self) {
        self.caution = CAUTIOUS_TRANSACTIONS;
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Queues a command without secrets and what its reply will answer.
    pub(super) fn say(&mut self, line: &str, expect: Expect) {
        self.say_masked(line, line, expect);
    }

    /// Queues a command that the trace shows as `shown`.
    pub(super) fn say_masked(&mut self, line: &str, shown: &str, expect: Expect) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("> {shown}"));
        }
        self.out.command(|out| {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        });
        self.expect.push_back(expect);
    }

    /// Queues commands that are formatted already; each line is one of the trace.
    pub(super) fn say_lines(&mut self, lines: &[u8]) {
        self.out.text(lines);
        if let Some(trace) = &mut self.trace {
            for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                trace.push(format!("> {}", String::from_utf8_lossy(line).trim_end()));
            }
        }
    }

    pub(super) fn trace_note(&mut self, note: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(note());
        }
    }

    fn trace_reply(&mut self, reply: &Reply) {
        let Some(trace) = &mut self.trace else { return };
        let count = reply.lines().count();
        for (i, line) in reply.lines().enumerate() {
            let mut text = format!("< {}{}", reply.code, if i + 1 < count { '-' } else { ' ' });
            let max = text.len() + super::TEXT_MAX;
            super::reply::clean_into(&mut text, line, max);
            trace.push(text);
        }
    }

    fn on_reply(&mut self, reply: &Reply) {
        let Some(expect) = self.expect.pop_front() else {
            // A 421 may come at any time (RFC 5321 §3.8); when nothing is open it harms nobody.
            let fault = (reply.code != 421)
                .then(|| Fault::local(State::Idle, "4.5.0", format!("an unexpected reply {}", reply.code)));
            return self.close(fault);
        };
        let state = expect.state();
        if expect == Expect::Quit {
            return self.close(None);
        }
        // RFC 5321 §3.8: the peer closes after a 421, whatever it answers.
        if reply.code == 421 {
            if matches!(expect, Expect::Rcpt) {
                self.note_shutdown_at_rcpt(reply);
            }
            return self.close(Some(Fault::session(state, reply)));
        }
        match expect {
            Expect::Greeting | Expect::Ehlo | Expect::Helo | Expect::StartTls | Expect::Auth(_) => {
                self.on_handshake_reply(expect, reply);
            }
            Expect::Reset if reply.is_ok() => self.after_reset(),
            Expect::Reset => self.close(Some(Fault::session(state, reply))),
            Expect::Mail => self.on_mail_reply(reply),
            Expect::Rcpt => self.on_rcpt_reply(reply),
            Expect::Data => self.on_data_reply(reply),
            Expect::DataEnd | Expect::Chunk => self.on_final_reply(expect, reply),
            Expect::Quit => {}
        }
    }

    fn broken(&mut self, error: ReplyError) {
        let fault = Fault::local(self.state(), "4.5.0", format!("{error} while {}", self.state().name()));
        self.close(Some(fault));
    }

    /// Ends the session. What is open ends with the fault; those behind the first were not looked at, unless all of their
    /// data is out and the peer said nothing.
    pub(super) fn close(&mut self, fault: Option<Fault>) {
        if self.phase == Phase::Closed {
            return;
        }
        let reason = fault
            .clone()
            .unwrap_or_else(|| Fault::local(State::Idle, "4.4.2", "the session ended before the message was sent"));
        let written = self.out.written();
        let mut first = true;
        while let Some(flight) = self.flights.pop_front() {
            let event = flight.end_with(&reason, first, written);
            self.events.push_back(event);
            first = false;
        }
        self.phase = Phase::Closed;
        self.expect.clear();
        self.out.discard();
        self.events.push_back(Event::Closed(fault));
    }
}
