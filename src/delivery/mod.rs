//! Delivery: from a recipient's domain to a peer's reply.
//!
//! 1. The router turns a domain into a [`Plan`]: which hosts, which port, which TLS, whose site (`Resolution`),
//! 2. the queue engine asks for a connection to a plan from a source,
//! 3. the connection's task connects (next host on failure), greets, starts TLS, learns what the peer offers,
//! 4. and then asks its [`Dispatcher`] for one [`Job`] after the other, has the content made by [`ContentMaker`] (rendered, signed),
//!    sends it, and reports an outcome for each recipient.
//!
//! Delivery knows no queue and no store: the two traits are all that it sees of them.

pub mod connection;
pub mod router;
pub mod sources;
pub mod tls;
pub mod trace;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Source, TlsPolicy};
use crate::event::{EventKind, Severity, SmtpReply};
use crate::shaping::SourceTrouble;
use crate::types::{Class, DeliveryId, Mailbox, MessageId, Name, Notify, Ret, ReversePath, Timestamp};

/// Where mail for a domain goes. Domains with the same `site` share connections and limits.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The key of the site: MX set or route, with TLS policy and credentials, so that a connection is only shared
    /// where all of them are the same.
    pub site: Arc<str>,
    /// The site for people: its first MX host, or `route:` and the pattern.
    pub name: Arc<str>,
    /// The mailbox provider by its MX hosts; `other` where none matches.
    pub provider: Arc<str>,
    /// The hosts, by preference.
    pub hosts: Vec<PlanHost>,
    /// TLS towards them.
    pub tls: TlsPolicy,
    /// TLS from the first octet.
    pub implicit_tls: bool,
    /// AUTH for a smart host: user name and password.
    pub credentials: Option<Arc<(String, String)>>,
    /// The pattern of the route under `[routes]`, where one applied.
    pub route: Option<Arc<str>>,
    /// When the domain is to be resolved anew.
    pub valid_until: Timestamp,
}

/// One host of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanHost {
    /// Its name (or address), as it is shown and checked against a certificate.
    pub name: Arc<str>,
    /// The MX preference; hosts with the same one are shuffled at each connection.
    pub preference: u16,
    /// The port.
    pub port: u16,
    /// Its address where the route gives it; otherwise it is looked up when it is tried.
    pub address: Option<IpAddr>,
}

/// What the router found for a domain.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// There is a way.
    Plan(Arc<Plan>),
    /// There is none, for now or for good.
    Failed(Failure),
}

/// Why something failed, for the event, the notification and `queue explain`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Whether trying again could help.
    pub severity: Severity,
    /// The peer's reply; or our own words under code 0 (network) or the code that RFC 7505 and RFC 3463 give for it.
    pub reply: SmtpReply,
    /// Where: "resolving", "connecting", "sending RCPT" … the human name of the state.
    pub stage: &'static str,
    /// Whether the remote said so.
    pub remote: bool,
}

/// The stage of a failure that is nobody's attempt: the session ended before the peer looked at the job (it was made ready
/// ahead, or sent behind one that ended the session). The queue may give it to another connection at once.
pub const NOT_TRIED: &str = "not sent: the session ended before";

/// The stage of a permanent failure of [`ContentMaker`]: the address is suppressed. It ends the recipient as `suppressed`.
pub const SUPPRESSED: &str = "suppressed";

/// The stage of a permanent failure of [`ContentMaker`]: the message could not be made. It ends the recipient as `rendering_failed`.
pub const RENDERING: &str = "rendering";

/// The stage of an opening that could not even try: this host lacks the source's address.
pub const NO_SOURCE_ADDRESS: &str = "binding the source's address";

/// The stage of an opening that could not even try: no descriptor, port or memory is left.
pub const EXHAUSTED: &str = "making a socket";

impl Failure {
    /// Whether the fault is this host's alone: no recipient was tried, and nothing is known of any destination.
    pub fn source_trouble(&self) -> Option<SourceTrouble> {
        match self.stage {
            NO_SOURCE_ADDRESS => Some(SourceTrouble::Address),
            EXHAUSTED => Some(SourceTrouble::Exhausted),
            _ => None,
        }
    }

    /// How a recipient ends that was given up before anything was sent, where that is no attempt at the peer.
    pub fn unsent(&self) -> Option<EventKind> {
        match (self.severity, self.stage) {
            (Severity::Permanent, SUPPRESSED) => Some(EventKind::Suppressed),
            (Severity::Permanent, RENDERING) => Some(EventKind::RenderingFailed),
            _ => None,
        }
    }

    /// Whether the peer never looked at the job: another connection may take it at once, and it is no attempt.
    pub fn not_tried(&self) -> bool {
        self.stage == NOT_TRIED
    }
}

/// The number of a connection, for its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// One transaction to do: one message, one or more recipients at the same site.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number, never used again.
    pub id: u64,
    /// The message.
    pub message: MessageId,
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// `RET`.
    pub ret: Option<Ret>,
    /// `ENVID`, in xtext.
    pub envid: Option<Box<str>>,
    /// Whether it needs SMTPUTF8.
    pub smtputf8: bool,
    /// Whether its body is 8-bit.
    pub eight_bit: bool,
    /// Octets, before signing.
    pub size: u64,
    /// The class.
    pub class: Class,
    /// Those who get it.
    pub recipients: Vec<JobRecipient>,
}

/// One recipient of a job.
#[derive(Clone, Debug)]
pub struct JobRecipient {
    /// Which one.
    pub delivery: DeliveryId,
    /// The address.
    pub mailbox: Mailbox,
    /// `NOTIFY`.
    pub notify: Notify,
    /// `ORCPT`, in xtext.
    pub orcpt: Option<Box<str>>,
}

/// What a connection is told when it asks for work.
#[derive(Debug)]
pub enum Work {
    /// Do this.
    Job(Box<Job>),
    /// Nothing now: wait for [`Dispatcher::wake_handle`], at most for the idle time-out, then say QUIT.
    Idle,
    /// Say QUIT: the connection has done its share, or is not wanted any more.
    Close,
}

/// Who a connection talks to, and how; fixed once it is ready.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The host's name.
    pub host: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// Our address.
    pub local: Option<IpAddr>,
    /// Protocol and cipher suite.
    pub tls: Option<Arc<str>>,
    /// Whether it takes DSN parameters (RFC 3461).
    pub dsn: bool,
}

/// What became of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The peer took it: its final reply.
    Delivered(SmtpReply),
    /// It did not work. `severity` says whether trying again could help.
    Failed(Failure),
}

/// What became of a job: an outcome for each recipient, in the order of the job.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The job.
    pub job: Box<Job>,
    /// One for each recipient.
    pub outcomes: Vec<Outcome>,
    /// Whether the final reply was lost after all data was sent: the message may arrive twice (RFC 1047).
    pub ambiguous: bool,
    /// Octets sent as message data, with signature.
    pub wire_size: u64,
    /// When the attempt began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// What the queue engine is for a connection.
pub trait Dispatcher {
    /// The connection can take a job. Asked again after each job; ahead of replies when the peer allows it.
    fn next(&self, conn: ConnectionId, peer: &Peer) -> Work;
    /// Wakes a connection that was told [`Work::Idle`].
    fn wake_handle(&self, conn: ConnectionId) -> Rc<tokio::sync::Notify>;
    /// A job ended: once for every job that was given out, whatever happened.
    fn report(&self, conn: ConnectionId, peer: &Peer, report: JobReport);
    /// The connection is ready for work.
    fn opened(&self, conn: ConnectionId, peer: &Peer);
    /// The connection ended: `Some` when it never became ready (every host failed; the last failure), or when it broke
    /// or was refused later.
    fn closed(&self, conn: ConnectionId, failure: Option<Failure>);
}

/// What the peer can take, for the making of content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerLimits {
    /// It offers 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// It offers SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Its SIZE limit in octets (RFC 1870); 0 for none.
    pub size_max: u64,
}

/// The octets to send: signature fields first, then the stored message; together RFC 5322 with CRLF line ends.
#[derive(Clone, Debug)]
pub struct WireMessage {
    /// The parts, in order; not dot-stuffed.
    pub parts: Vec<Bytes>,
    /// Their length together.
    pub size: u64,
    /// Whether BODY=8BITMIME is to be said.
    pub eight_bit: bool,
}

/// A future on the egress thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Makes the octets of a job: from the store, or rendered from a campaign; signed.
pub trait ContentMaker {
    /// The octets for a peer with these limits; a failure settles all recipients of the job with it.
    fn make<'a>(&'a self, job: &'a Job, limits: PeerLimits) -> LocalFuture<'a, Result<WireMessage, Failure>>;
}

/// A request to open a connection; the queue engine makes it, the connection's task carries it out.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The connection's number.
    pub conn: ConnectionId,
    /// Where to.
    pub plan: Arc<Plan>,
    /// From where.
    pub source: Arc<Source>,
    /// The EHLO name.
    pub ehlo: Arc<str>,
    /// The pool on whose behalf, for logs and metrics.
    pub pool: Name,
}
