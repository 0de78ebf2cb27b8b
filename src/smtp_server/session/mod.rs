//! One SMTP session as a machine: octets and `now` in, replies and [`Step`]s out. It owns no socket, timer or thread.
//!
//! The legal paths, in words. A session begins greeted and knows nobody. EHLO makes it ready. STARTTLS takes it back to
//! greeted, now under TLS, with all forgotten. AUTH from ready, in one line or several, makes it ready with a login. MAIL
//! opens a transaction, RCPT adds to it; DATA or BDAT take the message in; when its last octet is there, the message
//! is submitted, and the answer ends the transaction: ready again. RSET and EHLO end a transaction at any
//! command. QUIT, a time-out, a limit, a malformed octet or the daemon's end close the session from everywhere.
//!
//! One burst of octets gives one burst of replies: they gather in [`Session::take_output`] until a step needs them sent.
//!
//! Limits and what happens on reaching them: each is in `[smtp]` of the config or a constant here, and each has its reply.

mod command;
mod login;
mod memory;
mod message;
mod timing;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{Listener, ListenerRole, ListenerTls};
use crate::inbound::{Inbound, Returned, Target};
use crate::queue::intake::{Accepted, Intake, Policy, Refusal, Submission};
use crate::smtp::command::MailFrom;
use crate::smtp::data::DataReceiver;
use crate::smtp::reply::Reply;
use crate::store::EnvelopeRecipient;
use crate::types::{Name, Timestamp};

use login::AuthDialog;
pub use login::{Credentials, LoginResult};
use memory::Held;
use message::{Chunk, Chunked};
use timing::DataClock;

/// The most failed logins of one session; then 421. A client may try every mechanism with one wrong password.
const LOGIN_FAILURES_MAX: u32 = 10;

/// Recipients beyond `smtp.max_recipients` that are refused with 452 before they count as errors: a client that sends a
/// burst can't know better (RFC 5321 §4.5.3.1.10).
const RECIPIENTS_OVERSHOOT_MAX: u32 = 1_000;

/// Octets of a message that was refused already that are still read, so that the client sees its reply; then the
/// session is closed.
const DISCARD_OCTETS_MAX: u64 = 64 << 20;

/// A listener as its sessions see it.
#[derive(Clone, Debug)]
pub struct ListenerInfo {
    /// How the config calls it: `smtp.listeners[0]`.
    pub name: String,
    /// What it is for.
    pub role: ListenerRole,
    /// Whether STARTTLS is offered: the listener wants it and there is a certificate.
    pub starttls: bool,
    /// Networks that need no login.
    pub relay_from: Vec<IpNet>,
    /// Where the mail of a `bounce` listener goes; without it every recipient is refused.
    pub inbound: Option<Arc<Inbound>>,
}

impl ListenerInfo {
    /// The listener at this place of the config.
    pub fn new(index: usize, listener: &Listener, have_certificate: bool) -> Self {
        Self {
            name: format!("smtp.listeners[{index}]"),
            role: listener.role,
            starttls: listener.tls == ListenerTls::Starttls && have_certificate,
            relay_from: listener.relay_from.clone(),
            inbound: None,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address and port.
    pub address: SocketAddr,
}

impl Peer {
    /// The address, an IPv4 one as such even when it came through an IPv6 socket.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// What a session needs next. Before [`Step::Input`], [`Step::StartTls`] and [`Step::Close`] its output is to be sent.
#[derive(Debug)]
pub enum Step {
    /// More octets.
    Input,
    /// A TLS handshake, then [`Session::tls_started`]. Octets that were read behind the command are dropped.
    StartTls,
    /// A login checked, then [`Session::logged_in`].
    Login(Credentials),
    /// A message taken, then [`Session::submitted`]. The body begins behind
    /// [`HEADROOM`](crate::smtp::message_buffer::HEADROOM) free octets.
    Submit(Box<Submission>),
    /// A mail that came back taken, then [`Session::returned`]. Free octets stand before it as well.
    Return(Box<Returned>),
    /// The end; the word says why, for logs and metrics.
    Close(&'static str),
}

/// What the session waits for.
enum Phase {
    /// A command line.
    Command,
    /// A line of an AUTH exchange.
    Auth(AuthDialog),
    /// The octets after 354.
    Data(Box<DataReceiver>),
    /// The octets of a BDAT chunk.
    Chunk(Chunk),
    /// The driver's answer: to a handshake, a login or a submission.
    Driver,
    /// Nothing.
    Closed(&'static str),
}

/// What a handler leaves to its caller.
enum Progress {
    /// So many octets were used; go on.
    Used(usize),
    /// So many octets were used, and this is needed.
    Step(usize, Step),
}

/// An open transaction: from MAIL until the message's answer, RSET or EHLO.
struct Transaction {
    /// The policy when it was opened: one transaction sees one config.
    policy: Arc<Policy>,
    mail: MailFrom,
    tenant: Option<Name>,
    recipients: Vec<EnvelopeRecipient>,
    /// To whom of us it comes back, on a `bounce` listener.
    targets: Vec<Target>,
    /// Recipients that came beyond the limit.
    overshoot: u32,
    /// The message so far, when it comes in chunks.
    chunked: Chunked,
}

impl Transaction {
    fn has_no_recipient(&self) -> bool {
        self.recipients.is_empty() && self.targets.is_empty()
    }
}

/// A session.
pub struct Session {
    intake: Arc<Intake>,
    listener: Arc<ListenerInfo>,
    peer: Peer,
    policy: Arc<Policy>,
    out: Vec<u8>,
    phase: Phase,
    /// The client's name, and whether it said EHLO.
    helo: Option<(String, bool)>,
    tls: Option<Arc<str>>,
    login: Option<(String, Name)>,
    transaction: Option<Transaction>,
    errors: u32,
    login_failures: u32,
    messages: u32,
    refused_total: u64,
    started: Timestamp,
    /// Since when it waits for what it waits for: the end of the last command, or the last octet of a message.
    since: Timestamp,
    data: DataClock,
    held: Held,
    /// The daemon is ending, and this transaction may live until then.
    ends_at: Option<Timestamp>,
}

impl Session {
    /// A session with a client that has just connected; its output holds the greeting. `tls` names protocol and
    /// cipher suite when the connection began with a handshake.
    pub fn new(
        intake: Arc<Intake>,
        listener: Arc<ListenerInfo>,
        peer: Peer,
        tls: Option<Arc<str>>,
        now: Timestamp,
    ) -> Self {
        let policy = intake.policies().current();
        let held = Held::new(intake.clone());
        let mut session = Self {
            intake,
            listener,
            peer,
            policy,
            out: Vec::new(),
            phase: Phase::Command,
            helo: None,
            tls,
            login: None,
            transaction: None,
            errors: 0,
            login_failures: 0,
            messages: 0,
            refused_total: 0,
            started: now,
            since: now,
            data: DataClock::default(),
            held,
            ends_at: None,
        };
        let greeting = format!("{} ESMTP Posthaste", session.policy.config.hostname);
        session.answer(Reply::new(220, "", greeting));
        session
    }

    /// Takes octets in. Answers how many were used, and what is needed next; with [`Step::Input`], what was not used
    /// is the beginning of a line and is to be given again with more behind it.
    pub fn feed(&mut self, input: &[u8], now: Timestamp) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let progress = match &self.phase {
                Phase::Command => self.feed_command(rest, now),
                Phase::Auth(_) => self.feed_auth(rest, now),
                Phase::Data(_) => self.feed_data(rest, now),
                Phase::Chunk(_) => self.feed_chunk(rest, now),
                Phase::Driver => Progress::Step(0, Step::Input),
                Phase::Closed(why) => return (input.len(), Step::Close(why)),
            };
            match progress {
                Progress::Used(n) => used += n,
                // RFC 3207 §4.2: what came in clear behind STARTTLS is dropped, or somebody else's words go under TLS.
                Progress::Step(_, Step::StartTls) => return (input.len(), Step::StartTls),
                Progress::Step(n, step) => return (used + n, step),
            }
        }
    }

    /// Whether there is output.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// The output to be sent; the caller gives the buffer back empty by [`Session::recycle`], if it likes.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Takes an empty buffer back, so that the next output needs no allocation. Output made meanwhile is kept.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.out.is_empty() {
            buffer.clear();
            self.out = buffer;
        }
    }

    /// The handshake is done: the client is a stranger again (RFC 3207 §4.2).
    pub fn tls_started(&mut self, tls: Arc<str>, now: Timestamp) {
        self.tls = Some(tls);
        self.helo = None;
        self.login = None;
        self.transaction = None;
        self.phase = Phase::Command;
        self.since = now;
    }

    /// The answer to [`Step::Submit`].
    pub fn submitted(&mut self, result: Result<Accepted, Refusal>, now: Timestamp) {
        self.held.release();
        self.phase = Phase::Command;
        self.transaction = None;
        self.since = now;
        match result {
            Ok(accepted) => {
                self.messages += 1;
                self.errors = 0;
                self.answer(Reply::new(250, "2.0.0", format!("Ok: queued as {}", accepted.id)));
            }
            Err(refusal) => self.refuse_with(refusal),
        }
        self.end_if_draining();
    }

    /// The answer to [`Step::Return`].
    pub fn returned(&mut self, result: Result<(), Refusal>, now: Timestamp) {
        self.held.release();
        self.phase = Phase::Command;
        self.since = now;
        match result {
            Ok(()) => {
                self.messages += 1;
                self.errors = 0;
                self.answer(Reply::new(250, "2.0.0", "Ok: taken"));
            }
            Err(refusal) => self.refuse_with(refusal),
        }
        self.end_if_draining();
    }

    /// The daemon is ending: closes an idle session, and lets an open transaction end until `until`.
    pub fn shutdown(&mut self, until: Timestamp) -> Step {
        self.ends_at = Some(until);
        self.end_if_draining();
        match self.phase {
            Phase::Closed(why) => Step::Close(why),
            _ => Step::Input,
        }
    }

    /// Commands refused so far, for the metrics.
    pub fn refused_total(&self) -> u64 {
        self.refused_total
    }

    /// The login's name, for the log.
    pub fn user(&self) -> Option<&str> {
        self.login.as_ref().map(|(user, _)| user.as_str())
    }

    /// The client's address.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The listener that it came by.
    pub fn listener(&self) -> &ListenerInfo {
        &self.listener
    }

    /// Closes without a word: the peer is gone.
    pub fn abandon(&mut self) {
        self.transaction = None;
        self.phase = Phase::Closed("gone");
    }

    fn end_if_draining(&mut self) {
        let idle = matches!(self.phase, Phase::Command | Phase::Auth(_)) && self.transaction.is_none();
        if self.ends_at.is_some() && idle {
            self.close(Reply::new(421, "4.3.2", "Shutting down, come back later"), "shutdown");
        }
    }

    /// A reply that is no refusal, or one that is not the client's fault.
    fn answer(&mut self, reply: Reply) {
        reply.write(&mut self.out);
    }

    /// A refusal that counts; the last one that is allowed ends the session.
    fn refuse(&mut self, reply: Reply) {
        self.refused_total += 1;
        self.errors += 1;
        if self.errors >= self.policy.config.smtp.max_errors {
            self.close(Reply::new(421, "4.7.0", "Too many errors"), "errors");
        } else {
            self.answer(reply);
        }
    }

    /// A refusal of intake: one that is our fault does not count, one with 421 ends the session.
    fn refuse_with(&mut self, refusal: Refusal) {
        let reply = Reply::new(refusal.code, refusal.enhanced, refusal.text);
        match reply.code {
            421 => self.close(reply, "shutdown"),
            400..=499 => {
                self.refused_total += 1;
                self.answer(reply);
            }
            _ => self.refuse(reply),
        }
    }

    fn close(&mut self, reply: Reply, why: &'static str) {
        if reply.is_refusal() {
            self.refused_total += 1;
        }
        self.answer(reply);
        self.held.release();
        self.transaction = None;
        self.phase = Phase::Closed(why);
    }

    /// RFC 5321 §2.3.8: CR and LF only together, and no NUL. Nobody knows what such a client means, so it ends here.
    fn close_malformed_message(&mut self) {
        let text = "The message has a bare CR, a bare LF or a NUL: lines end with CRLF";
        self.close(Reply::new(550, "5.6.0", text), "malformed");
    }
}
