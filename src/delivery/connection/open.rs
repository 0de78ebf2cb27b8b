//! Opening: hosts by preference, their addresses, TCP, greeting, EHLO, TLS, AUTH.
//!
//! A host without any address (NXDOMAIN and NODATA alike) fails for good, and the mail with it when all hosts of the plan do: RFC 5321
//! §5.1 wants that reported as an error, and waiting for days would help nobody. One that has addresses of the other family only fails
//! for now: another source may reach it. What this host itself lacks ends the opening at once, and no host is blamed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::io::Io;
use super::{ADDRESSES_MAX, Connector, OPENING_MAX, TRIES_MAX, local_failure};
use crate::config::{Config, TlsPolicy};
use crate::delivery::{EXHAUSTED, Failure, NO_SOURCE_ADDRESS, OpenRequest, Peer, Plan, PlanHost, tls};
use crate::event::Severity;
use crate::seam::dns::{DnsError, Family};
use crate::seam::net::{BoxStream, ConnectError};
use crate::smtp::client::{Client, Event, Settings, State, TlsUse};
use crate::types::is_private_address;

/// A session that is ready for jobs.
pub(super) struct Ready {
    pub(super) client: Client,
    pub(super) io: Io,
    pub(super) peer: Peer,
}

/// Why one address did not become ready.
enum Refused {
    /// The TLS handshake failed: in clear it may work.
    Tls(Failure),
    Other(Failure),
}

/// Tries the hosts of the plan until one is ready; else the failure that speaks most for trying again.
pub(super) async fn open(request: &OpenRequest, shared: &Connector) -> Result<Ready, Failure> {
    let mut opening = Opening {
        request,
        shared,
        config: shared.config.load_full(),
        started: Instant::now(),
        tries: 0,
        worst: None,
        ours: None,
    };
    // Each connection to a site would wait for the same dead host: what could not be reached lately comes last.
    let mut later = Vec::new();
    for host in ordered(&request.plan, shared) {
        if opening.ours.is_some() {
            break;
        }
        let addresses = match addresses(host, request, shared).await {
            Ok(addresses) => addresses,
            Err(failure) => {
                opening.note(failure);
                continue;
            }
        };
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(address, host.port);
            match check_address(address.ip(), &request.plan, &opening.config, host) {
                Ok(()) => {}
                Err(Forbidden::Private(failure)) => {
                    opening.note(failure);
                    continue;
                }
                // RFC 5321 §5.1: this host is us; those that are worse would only send the mail back here.
                Err(Forbidden::Own(failure)) => {
                    opening.note(failure);
                    return opening.try_all(later).await;
                }
            }
            if shared.is_unreachable(address) {
                later.push((host, address));
            } else if let Some(ready) = opening.attempt(host, address).await {
                return Ok(ready);
            }
        }
    }
    opening.try_all(later).await
}

/// An opening under way.
struct Opening<'a> {
    request: &'a OpenRequest,
    shared: &'a Connector,
    config: Arc<Config>,
    started: Instant,
    tries: usize,
    /// The failure that decides.
    worst: Option<Failure>,
    /// What this host lacks: nothing more is tried.
    ours: Option<Failure>,
}

impl Opening<'_> {
    /// Tries what is left; the end of the opening.
    async fn try_all(mut self, candidates: Vec<(&PlanHost, SocketAddr)>) -> Result<Ready, Failure> {
        for (host, address) in candidates {
            if let Some(ready) = self.attempt(host, address).await {
                return Ok(ready);
            }
        }
        Err(self.ours.or(self.worst).unwrap_or_else(|| no_hosts(&self.request.plan)))
    }

    /// Tries one address, unless enough was tried.
    async fn attempt(&mut self, host: &PlanHost, address: SocketAddr) -> Option<Ready> {
        if self.ours.is_some() || self.tries == TRIES_MAX || self.started.elapsed() > OPENING_MAX {
            return None;
        }
        self.tries += 1;
        match try_address(host, address, self.request, &self.config, self.shared).await {
            Ok(ready) => Some(ready),
            Err(failure) => {
                self.note(failure);
                None
            }
        }
    }

    fn note(&mut self, failure: Failure) {
        if failure.source_trouble().is_some() {
            self.ours = Some(failure);
            return;
        }
        self.shared.metrics.host_failures.with_label_values(&[failure.stage]).inc();
        // One that may pass wins over one for good, and what a host said over hosts that could not be reached.
        let rank = |f: &Failure| (f.severity == Severity::Temporary, f.stage != State::Connecting.name());
        if self.worst.as_ref().is_none_or(|worst| rank(&failure) >= rank(worst)) {
            self.worst = Some(failure);
        }
    }
}

/// The hosts by preference; equal ones in a new order each time (RFC 5321 §5.1).
fn ordered<'a>(plan: &'a Plan, shared: &Connector) -> Vec<&'a PlanHost> {
    let mut hosts: Vec<&PlanHost> = plan.hosts.iter().collect();
    shared.random.borrow_mut().shuffle(&mut hosts);
    hosts.sort_by_key(|h| h.preference);
    hosts
}

fn no_hosts(plan: &Plan) -> Failure {
    let text = format!("no host of {} could be tried", plan.name);
    local_failure(State::Connecting, Severity::Temporary, "4.4.4", text)
}

async fn addresses(host: &PlanHost, request: &OpenRequest, shared: &Connector) -> Result<Vec<IpAddr>, Failure> {
    let local = request.source.address;
    let known = match host.address {
        Some(address) => vec![address],
        None if &*host.name == "localhost" => {
            vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]
        }
        None => return look_up(&host.name, local, shared).await,
    };
    let fits = |address: &IpAddr| local.is_none_or(|local| local.is_ipv4() == address.is_ipv4());
    let fitting: Vec<IpAddr> = known.into_iter().filter(fits).collect();
    match local {
        Some(local) if fitting.is_empty() => Err(other_family(&host.name, local)),
        Some(_) | None => Ok(fitting),
    }
}

/// The addresses of a host that a source can reach.
async fn look_up(name: &str, local: Option<IpAddr>, shared: &Connector) -> Result<Vec<IpAddr>, Failure> {
    let (family, other) = match local {
        None => (Family::Any, None),
        Some(IpAddr::V4(_)) => (Family::V4, Some(Family::V6)),
        Some(IpAddr::V6(_)) => (Family::V6, Some(Family::V4)),
    };
    let mut error = match shared.resolver.addresses(name, family).await {
        Ok(answer) => return Ok(answer.records),
        Err(error) => error,
    };
    if let (DnsError::NoData, Some(other), Some(local)) = (&error, other, local) {
        match shared.resolver.addresses(name, other).await {
            Ok(_) => return Err(other_family(name, local)),
            Err(second) => error = second,
        }
    }
    let (stage, severity, enhanced) = match &error {
        DnsError::NxDomain | DnsError::NoData => ("resolving", Severity::Permanent, "5.4.4"),
        DnsError::Temporary(_) => ("resolving", Severity::Temporary, "4.4.3"),
        DnsError::Exhausted(_) => (EXHAUSTED, Severity::Temporary, "4.3.1"),
    };
    Err(local_failure_at(stage, severity, enhanced, format!("no address of {name}: {error}")))
}

/// A source of one family can't reach a host that has addresses of the other only.
fn other_family(name: &str, local: IpAddr) -> Failure {
    let (theirs, ours) = if local.is_ipv4() { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
    let text = format!("{name} has only {theirs} addresses, and the source has only {ours} ({local})");
    local_failure_at("resolving", Severity::Temporary, "4.4.4", text)
}

fn local_failure_at(stage: &'static str, severity: Severity, enhanced: &str, text: String) -> Failure {
    Failure { stage, ..local_failure(State::Connecting, severity, enhanced, text) }
}

/// Why an address is not contacted.
enum Forbidden {
    /// It is ours.
    Own(Failure),
    /// It is in a private network.
    Private(Failure),
}

/// An MX must not lead into our networks or to ourselves; routes are the operator's own words.
fn check_address(address: IpAddr, plan: &Plan, config: &Config, host: &PlanHost) -> Result<(), Forbidden> {
    if plan.route.is_some() || config.delivery.allow_private_addresses {
        return Ok(());
    }
    let failure = |what: &str, enhanced: &str| {
        let text = format!("{} has the address {address}, which is {what}", host.name);
        local_failure(State::Connecting, Severity::Permanent, enhanced, text)
    };
    if is_own(address, config) {
        Err(Forbidden::Own(failure("our own: mail loops back", "5.4.6")))
    } else if is_private_address(address) {
        Err(Forbidden::Private(failure("private", "5.4.4")))
    } else {
        Ok(())
    }
}

fn is_own(address: IpAddr, config: &Config) -> bool {
    config.sources.iter().any(|s| s.address == Some(address))
}

async fn try_address(
    host: &PlanHost,
    address: SocketAddr,
    request: &OpenRequest,
    config: &Config,
    shared: &Connector,
) -> Result<Ready, Failure> {
    let plan = &*request.plan;
    let opportunistic = plan.tls == TlsPolicy::Opportunistic && !plan.implicit_tls;
    let tls = match plan.tls {
        _ if plan.implicit_tls => TlsUse::Implicit,
        TlsPolicy::None => TlsUse::Never,
        TlsPolicy::Opportunistic if shared.is_clear(address) => TlsUse::Never,
        TlsPolicy::Opportunistic => TlsUse::IfOffered,
        TlsPolicy::Required | TlsPolicy::Verified => TlsUse::Must,
    };
    match try_with(host, address, tls, request, config, shared).await {
        Ok(ready) => Ok(ready),
        Err(Refused::Tls(_)) if opportunistic => {
            // Old peers have only what rustls rightly lacks; clear text is what they get elsewhere too.
            shared.remember_clear(address);
            match try_with(host, address, TlsUse::Never, request, config, shared).await {
                Ok(ready) => Ok(ready),
                Err(Refused::Tls(failure) | Refused::Other(failure)) => Err(failure),
            }
        }
        Err(Refused::Tls(failure) | Refused::Other(failure)) => Err(failure),
    }
}

async fn try_with(
    host: &PlanHost,
    address: SocketAddr,
    tls: TlsUse,
    request: &OpenRequest,
    config: &Config,
    shared: &Connector,
) -> Result<Ready, Refused> {
    let plan = &*request.plan;
    let timeout = config.delivery.connect_timeout.0;
    let connected = shared.network.connect(address, request.source.address, timeout).await;
    let connected =
        connected.map_err(|error| Refused::Other(connect_failure(error, host, address, request, shared)))?;
    let mut described = None;
    let mut stream = connected.stream;
    if tls == TlsUse::Implicit {
        (stream, described) = start_tls(stream, host, plan.tls, shared).await?;
    }
    let mut client = Client::new(Settings {
        ehlo: request.ehlo.clone(),
        tls,
        credentials: plan.credentials.clone(),
        auth_in_clear: address.ip().is_loopback(),
        depth: config.delivery.flight_depth,
        chunking: !shared.is_unchunked(address),
    });
    client.set_trace(shared.trace.is_active());
    let mut io = Io::new(stream);
    loop {
        match client.event() {
            Some(Event::Ready) => break,
            Some(Event::StartTls) => {
                let (stream, described_now) = start_tls(io.take_stream(), host, plan.tls, shared).await?;
                io.set_stream(stream);
                described = described_now;
                client.tls_started();
            }
            Some(Event::Closed(fault)) => {
                let failure = fault.map_or_else(|| no_hosts(plan), Failure::from);
                return Err(Refused::Other(failure));
            }
            Some(Event::Done { .. }) => {}
            None => {
                let step = std::future::poll_fn(|cx| io.poll(cx, &mut client, State::Idle.timeout())).await;
                if let Err(lost) = step {
                    client.lost(&lost);
                }
            }
        }
    }
    let protocol = described.as_deref().map_or("none", |d: &str| d.split(' ').next().unwrap_or(d));
    shared.metrics.tls_sessions.with_label_values(&[protocol]).inc();
    let peer = Peer {
        host: host.name.clone(),
        address,
        local: connected.local,
        tls: described,
        dsn: client.capabilities().dsn,
    };
    Ok(Ready { client, io, peer })
}

/// The failure of a connection that did not open, by whose fault it is.
fn connect_failure(
    error: ConnectError,
    host: &PlanHost,
    address: SocketAddr,
    request: &OpenRequest,
    shared: &Connector,
) -> Failure {
    let ours = |stage, enhanced, error| {
        let from = request.source.address.map_or_else(String::new, |a| format!(" [{a}]"));
        let text = format!("source {}{from}: {error}", request.source.name.as_str());
        local_failure_at(stage, Severity::Temporary, enhanced, text)
    };
    match error {
        ConnectError::Source(error) => ours(NO_SOURCE_ADDRESS, "4.3.5", error),
        ConnectError::Exhausted(error) => ours(EXHAUSTED, "4.3.1", error),
        ConnectError::Remote(error) => {
            shared.remember_unreachable(address);
            let text = format!("{} [{address}]: {error}", host.name);
            local_failure(State::Connecting, Severity::Temporary, "4.4.1", text)
        }
    }
}

async fn start_tls(
    stream: BoxStream,
    host: &PlanHost,
    policy: TlsPolicy,
    shared: &Connector,
) -> Result<(BoxStream, Option<Arc<str>>), Refused> {
    let failed = |text: String| {
        shared.metrics.tls_failures.inc();
        let text = format!("{}: {text}", host.name);
        Refused::Tls(local_failure(State::Handshake, Severity::Temporary, "4.7.5", text))
    };
    let config = match policy {
        TlsPolicy::Verified => shared.tls.verified.clone().map_err(|e| failed(e.to_string()))?,
        TlsPolicy::None | TlsPolicy::Opportunistic | TlsPolicy::Required => shared.tls.any.clone(),
    };
    let name = match host.address {
        Some(address) => ServerName::from(address),
        None => ServerName::try_from(host.name.to_string()).map_err(|e| failed(e.to_string()))?,
    };
    let handshake = TlsConnector::from(config).connect(name, stream);
    let session = tokio::time::timeout(State::Handshake.timeout(), handshake)
        .await
        .map_err(|_| failed("the TLS handshake timed out".to_owned()))?
        .map_err(|e| failed(format!("the TLS handshake failed: {e}")))?;
    let described = tls::describe(session.get_ref().1);
    Ok((Box::new(session), Some(described)))
}
