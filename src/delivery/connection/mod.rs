//! A connection: from a plan to a session that is ready, and through its jobs to QUIT.
//!
//! 1. [`run`] tries the plan's hosts by preference, equal ones shuffled, each with its addresses, until one is ready: a host that
//!    can't be reached, greets with 4yz or 5yz, or lacks the TLS that must be, gives way to the next,
//! 2. tells the dispatcher `opened`, and takes jobs until the dispatcher, the peer, idleness, age or shutdown ends it (`session`),
//! 3. and tells it `closed`, whatever happened: also when the task is dropped.
//!
//! One task a connection, one timer, no lock.

mod io;
mod jobs;
mod open;
mod session;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::tls::TlsConfigs;
use super::trace::TraceHub;
use super::{ContentMaker, Dispatcher, Failure, NOT_TRIED, OpenRequest};
use crate::config::Config;
use crate::event::{Severity, SmtpReply};
use crate::metrics::delivery::DeliveryMetrics;
use crate::seam::clock::Clock;
use crate::seam::dns::Resolver;
use crate::seam::net::Network;
use crate::seam::random::Seeded;
use crate::smtp::client::{Fault, State};
use crate::types::Timestamp;

/// The most addresses of one host that are tried.
pub const ADDRESSES_MAX: usize = 10;

/// The most addresses that one opening tries over all hosts.
pub const TRIES_MAX: usize = 20;

/// How long one opening may go on to further hosts.
const OPENING_MAX: Duration = Duration::from_secs(600);

/// How long a host whose TLS handshake failed is spoken to in clear (where the policy is opportunistic), and one that did
/// not know its own CHUNKING is spoken to without.
const CLEAR_TTL: Duration = Duration::from_secs(3_600);

/// How long an address that could not be connected to is tried after all others.
const UNREACHABLE_TTL: Duration = Duration::from_secs(120);

/// The most addresses that are remembered for clear text, and as unreachable; beyond, all are forgotten and tried again.
const REMEMBERED_MAX: usize = 10_000;

/// A session takes no more jobs after this.
pub const SESSION_SOFT_MAX: Duration = Duration::from_secs(3_600);

/// A session is ended after this, whatever it does: the wall clock against a peer that drips.
pub const SESSION_HARD_MAX: Duration = Duration::from_secs(7_200);

/// What all connections of a thread share.
pub struct Connector {
    config: Arc<ArcSwap<Config>>,
    resolver: Resolver,
    network: Box<dyn Network>,
    tls: TlsConfigs,
    clock: Clock,
    metrics: DeliveryMetrics,
    trace: TraceHub,
    shutdown: watch::Receiver<bool>,
    random: RefCell<Seeded>,
    /// Where TLS failed lately, until when.
    clear: RefCell<Remembered>,
    /// Who offered CHUNKING lately and then did not know it, until when.
    unchunked: RefCell<Remembered>,
    /// What could not be connected to lately, until when.
    unreachable: RefCell<Remembered>,
}

/// What a [`Connector`] is made of.
pub struct ConnectorParts {
    /// The configuration, whichever it is when a connection opens.
    pub config: Arc<ArcSwap<Config>>,
    /// Who looks up addresses.
    pub resolver: Resolver,
    /// Who opens connections: [`crate::seam::net::TcpNetwork`].
    pub network: Box<dyn Network>,
    /// TLS.
    pub tls: TlsConfigs,
    /// The clock.
    pub clock: Clock,
    /// Metrics.
    pub metrics: DeliveryMetrics,
    /// Who watches sessions.
    pub trace: TraceHub,
    /// `true` ends intake of jobs: what is in transit is finished, then QUIT.
    pub shutdown: watch::Receiver<bool>,
    /// Shuffles hosts of equal preference.
    pub random: Seeded,
}

impl Connector {
    /// From its parts.
    pub fn new(parts: ConnectorParts) -> Self {
        let ConnectorParts { config, resolver, network, tls, clock, metrics, trace, shutdown, random } = parts;
        Self {
            config,
            resolver,
            network,
            tls,
            clock,
            metrics,
            trace,
            shutdown,
            random: RefCell::new(random),
            clear: RefCell::default(),
            unchunked: RefCell::default(),
            unreachable: RefCell::default(),
        }
    }

    /// Whether a TLS handshake with this host failed lately.
    fn is_clear(&self, address: SocketAddr) -> bool {
        self.clear.borrow().holds(address, self.clock.now())
    }

    fn remember_clear(&self, address: SocketAddr) {
        self.clear.borrow_mut().add(address, self.clock.now().after(CLEAR_TTL));
    }

    fn is_unchunked(&self, address: SocketAddr) -> bool {
        self.unchunked.borrow().holds(address, self.clock.now())
    }

    fn remember_unchunked(&self, address: SocketAddr) {
        self.unchunked.borrow_mut().add(address, self.clock.now().after(CLEAR_TTL));
    }

    /// Whether this address could not be connected to lately.
    fn is_unreachable(&self, address: SocketAddr) -> bool {
        self.unreachable.borrow().holds(address, self.clock.now())
    }

    fn remember_unreachable(&self, address: SocketAddr) {
        self.unreachable.borrow_mut().add(address, self.clock.now().after(UNREACHABLE_TTL));
    }
}

/// Addresses with the time until which something is held against them.
#[derive(Default)]
struct Remembered(AHashMap<SocketAddr, Timestamp>);

impl Remembered {
    fn holds(&self, address: SocketAddr, now: Timestamp) -> bool {
        self.0.get(&address).is_some_and(|until| *until > now)
    }

    fn add(&mut self, address: SocketAddr, until: Timestamp) {
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(address, until);
    }
}

/// Opens a connection and works on it until it ends. `opened` is called at most once, `closed` exactly once, `report` once for
/// each job that was taken; that holds too when the future is dropped.
pub async fn run(
    request: OpenRequest,
    dispatcher: Rc<dyn Dispatcher>,
    content: Rc<dyn ContentMaker>,
    shared: Rc<Connector>,
) {
    let failure = Failure {
        severity: Severity::Temporary,
        reply: SmtpReply { code: 0, enhanced: None, text: "the connection was given up".into() },
        stage: NOT_TRIED,
        remote: false,
    };
    let mut ending =
        Ending { request: &request, dispatcher: dispatcher.clone(), shared: shared.clone(), failure: Some(failure) };
    shared.metrics.connections.inc();
    let opened = tokio::select! {
        biased;
        opened = open::open(&request, &shared) => opened,
        () = shutdown(shared.shutdown.clone()) => Err(stopped()),
    };
    ending.failure = match opened {
        Ok(ready) => {
            shared.metrics.connections_opened.inc();
            dispatcher.opened(request.conn, &ready.peer);
            session::run(request.conn, ready, dispatcher, content, shared).await
        }
        Err(failure) => Some(failure),
    };
}

/// Calls `closed` at the end of a connection, however it ends.
struct Ending<'a> {
    request: &'a OpenRequest,
    dispatcher: Rc<dyn Dispatcher>,
    shared: Rc<Connector>,
    failure: Option<Failure>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.shared.metrics.connections.dec();
        if let Some(failure) = &self.failure {
            tracing::debug!(
                conn = self.request.conn.0,
                site = %self.request.plan.name,
                stage = failure.stage,
                code = failure.reply.code,
                text = %failure.reply.text,
                "connection failed"
            );
        }
        self.dispatcher.closed(self.request.conn, self.failure.take());
    }
}

/// Ends when the daemon is told to.
async fn shutdown(mut watch: watch::Receiver<bool>) {
    if watch.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}

fn stopped() -> Failure {
    local_failure(State::Connecting, Severity::Temporary, "4.3.2", "the delivery engine is shutting down".into())
}

/// A failure in our own words.
fn local_failure(state: State, severity: Severity, enhanced: &str, text: String) -> Failure {
    let reply = SmtpReply { code: 0, enhanced: Some(enhanced.into()), text: text.into() };
    Failure { severity, reply, stage: state.name(), remote: false }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let stage = if fault.untried { NOT_TRIED } else { fault.state.name() };
        Failure { severity: fault.severity, reply: fault.reply, stage, remote: fault.remote }
    }
}
