//! DNS: what the delivery engine asks, whoever answers.
//!
//! 1. A question waits for one of `max_concurrent` places,
//! 2. is answered from the cache, else from the network: absolute names, no search list, no hosts file, TCP after truncation,
//! 3. and ends as records, as "there is none" (NXDOMAIN, NODATA: for good) or as "nobody knows now" (SERVFAIL, time-out).
//!    Both are remembered for [`FAILURE_TTL`], so that a dead zone with a long queue is not asked for each recipient.
//!
//! [`Resolver::fixed`] answers from memory instead: for tests.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as HickoryDnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::metrics::delivery::DnsMetrics;
use crate::seam::net::is_exhausted;

/// How long a failure is remembered: SERVFAIL and time-outs, and NXDOMAIN and NODATA that came without a SOA, are not in
/// the resolver's cache.
pub const FAILURE_TTL: Duration = Duration::from_secs(30);

/// The most failures that are remembered; beyond, all are forgotten and asked again.
const FAILURES_MAX: usize = 16_384;

/// The most records that are taken from one answer; what follows is ignored.
const RECORDS_MAX: usize = 1_024;

/// Answers are kept for a second at least, whatever their TTL, and for a day at most.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(86_400);
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3_600);

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN): for good.
    #[error("the domain name does not exist")]
    NxDomain,
    /// The name exists without such a record (NODATA): for good.
    #[error("no such record")]
    NoData,
    /// SERVFAIL, REFUSED, time-out, network: another time.
    #[error("{0}")]
    Temporary(Arc<str>),
    /// This host or process is out of descriptors or memory: nobody was asked.
    #[error("{0}")]
    Exhausted(Arc<str>),
}

/// One MX record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MxRecord {
    /// The preference: lower is tried first.
    pub preference: u16,
    /// The host in lowercase without a trailing dot; empty for the root (`MX 0 .`).
    pub host: Arc<str>,
}

/// Records, and how long they hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<T> {
    /// The records, in the order of the answer.
    pub records: Vec<T>,
    /// How long they may be kept.
    pub ttl: Duration,
}

/// Which addresses are of use to a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Both, IPv4 first.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How questions are asked.
#[derive(Clone, Debug)]
pub struct ResolverOptions {
    /// Servers with their port; with none, the system's.
    pub servers: Vec<SocketAddr>,
    /// How long one question may take.
    pub timeout: Duration,
    /// The most answers that are cached.
    pub cache_size: u32,
    /// The most questions at a time.
    pub max_concurrent: u32,
}

/// Asks DNS questions; cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    backend: Backend,
    timeout: Duration,
    places: Semaphore,
    failures: Mutex<Failures>,
    metrics: DnsMetrics,
}

/// What failed for now, until when it is not asked again.
type Failures = HashMap<(Box<str>, RecordType), (Instant, DnsError)>;

enum Backend {
    Network(Box<TokioResolver>),
    Fixed(Zones),
    #[cfg(test)]
    Simulated(Arc<Mutex<Zones>>),
}

impl Resolver {
    /// A resolver that asks the network. Fails when the system's configuration can't be read.
    pub fn new(options: &ResolverOptions, metrics: DnsMetrics) -> Result<Self, DnsError> {
        let bad = |e: NetError| DnsError::Temporary(format!("resolver configuration: {e}").into());
        let mut builder = if options.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(bad)?
        } else {
            let servers = options.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let opts = builder.options_mut();
        opts.ndots = 0;
        opts.use_hosts_file = ResolveHosts::Never;
        opts.cache_size = u64::from(options.cache_size);
        opts.max_active_requests = (options.max_concurrent as usize * 2).max(64);
        // Two tries fit into the time of a question.
        opts.attempts = 1;
        opts.timeout = options.timeout / 2;
        opts.try_tcp_on_error = true;
        opts.case_randomization = false;
        opts.positive_min_ttl = Some(TTL_MIN);
        opts.negative_min_ttl = Some(TTL_MIN);
        opts.positive_max_ttl = Some(TTL_MAX);
        opts.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        let resolver = builder.build().map_err(bad)?;
        Ok(Self::with(Backend::Network(Box::new(resolver)), options.timeout, options.max_concurrent, metrics))
    }

    /// A resolver that knows these zones and nothing else: every other name is NXDOMAIN.
    pub fn fixed(zones: Zones, metrics: DnsMetrics) -> Self {
        Self::with(Backend::Fixed(zones), Duration::from_secs(5), 64, metrics)
    }

    /// As [`Resolver::fixed`], with zones that change under it.
    #[cfg(test)]
    pub(crate) fn simulated(zones: Arc<Mutex<Zones>>, metrics: DnsMetrics) -> Self {
        Self::with(Backend::Simulated(zones), Duration::from_secs(5), 64, metrics)
    }

    fn with(backend: Backend, timeout: Duration, max_concurrent: u32, metrics: DnsMetrics) -> Self {
        let places = Semaphore::new(max_concurrent.max(1) as usize);
        Self(Arc::new(Inner { backend, timeout, places, failures: Mutex::new(HashMap::new()), metrics }))
    }

    /// The MX records of a domain given as A-labels, in the order of the answer. Targets that are no host name are left out.
    pub async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, DnsError> {
        self.ask(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => {
                let host = host_name(&mx.exchange)?;
                Some(MxRecord { preference: mx.preference, host })
            }
            _ => None,
        })
        .await
    }

    /// The addresses of a host.
    pub async fn addresses(&self, host: &str, family: Family) -> Result<Answer<IpAddr>, DnsError> {
        match family {
            Family::V4 => self.v4(host).await,
            Family::V6 => self.v6(host).await,
            Family::Any => match tokio::join!(self.v4(host), self.v6(host)) {
                (Ok(mut v4), Ok(v6)) => {
                    v4.ttl = v4.ttl.min(v6.ttl);
                    v4.records.extend(v6.records);
                    Ok(v4)
                }
                (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
                // Only what both know for good is for good.
                (Err(e @ (DnsError::Temporary(_) | DnsError::Exhausted(_))), _)
                | (_, Err(e @ (DnsError::Temporary(_) | DnsError::Exhausted(_)))) => Err(e),
                (Err(DnsError::NxDomain), _) | (_, Err(DnsError::NxDomain)) => Err(DnsError::NxDomain),
                (Err(DnsError::NoData), Err(DnsError::NoData)) => Err(DnsError::NoData),
            },
        }
    }

    /// The TXT records of a name, each as one text: its strings joined, as SPF, DKIM and DMARC want them (RFC 7208 §3.3). Octets
    /// that are not UTF-8 are replaced.
    pub async fn txt(&self, name: &str) -> Result<Answer<String>, DnsError> {
        let pick = |data: &RData| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        };
        self.ask(name, RecordType::TXT, pick).await
    }

    /// The names of an address (PTR), in lowercase without a trailing dot. Those that are no host name are left out.
    pub async fn names(&self, address: IpAddr) -> Result<Answer<Arc<str>>, DnsError> {
        let pick = |data: &RData| if let RData::PTR(name) = data { host_name(&name.0) } else { None };
        self.ask(&reverse_name(address), RecordType::PTR, pick).await
    }

    async fn v4(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        let pick = |data: &RData| if let RData::A(a) = data { Some(IpAddr::V4(a.0)) } else { None };
        self.ask(host, RecordType::A, pick).await
    }

    async fn v6(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        let pick = |data: &RData| if let RData::AAAA(a) = data { Some(IpAddr::V6(a.0)) } else { None };
        self.ask(host, RecordType::AAAA, pick).await
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        let resolver = match &self.0.backend {
            Backend::Network(resolver) => resolver,
            Backend::Fixed(zones) => return zones.answer(name, kind, pick),
            #[cfg(test)]
            Backend::Simulated(zones) => return zones.lock().answer(name, kind, pick),
        };
        if let Some(error) = self.known_failure(name, kind) {
            self.0.metrics.cached.inc();
            return Err(error);
        }
        // The semaphore is never closed.
        let _place = self.0.places.acquire().await;
        let Ok(mut absolute) = Name::from_ascii(name) else { return Err(DnsError::NxDomain) };
        absolute.set_fqdn(true);
        let started = Instant::now();
        let lookup = pin!(resolver.lookup(absolute, kind));
        let (cached, answer) = match tokio::time::timeout(self.0.timeout, watched(lookup)).await {
            Ok(result) => result,
            Err(_) => (false, Err(NetError::Timeout)),
        };
        if cached {
            self.0.metrics.cached.inc();
        } else {
            self.0.metrics.queries.inc();
            self.0.metrics.seconds.observe(started.elapsed().as_secs_f64());
        }
        match answer {
            Ok(lookup) => {
                let records: Vec<T> = lookup.answers().iter().filter_map(|r| pick(&r.data)).take(RECORDS_MAX).collect();
                let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
                if records.is_empty() { Err(DnsError::NoData) } else { Ok(Answer { records, ttl }) }
            }
            Err(error) => {
                let error = classify(&error, name, kind);
                if matches!(error, DnsError::Temporary(_) | DnsError::Exhausted(_)) {
                    self.0.metrics.failures.inc();
                }
                // What this host lacks for a moment says nothing of the name.
                if !matches!(error, DnsError::Exhausted(_)) {
                    self.remember_failure(name, kind, &error);
                }
                Err(error)
            }
        }
    }

    fn known_failure(&self, name: &str, kind: RecordType) -> Option<DnsError> {
        let failures = self.0.failures.lock();
        if failures.is_empty() {
            return None;
        }
        let (until, error) = failures.get(&(Box::from(name), kind))?;
        (*until > Instant::now()).then(|| error.clone())
    }

    fn remember_failure(&self, name: &str, kind: RecordType, error: &DnsError) {
        let now = Instant::now();
        let mut failures = self.0.failures.lock();
        if failures.len() >= FAILURES_MAX {
            failures.retain(|_, (until, _)| *until > now);
            if failures.len() >= FAILURES_MAX {
                failures.clear();
            }
        }
        failures.insert((name.into(), kind), (now + FAILURE_TTL, error.clone()));
    }
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    NameServerConfig::new(server.ip(), true, connections)
}

/// The future's result, and whether it was there at once: an answer from the cache.
async fn watched(
    mut lookup: std::pin::Pin<&mut impl Future<Output = Result<Lookup, NetError>>>,
) -> (bool, Result<Lookup, NetError>) {
    let mut polls = 0u32;
    let result = std::future::poll_fn(|cx| {
        polls += 1;
        lookup.as_mut().poll(cx)
    })
    .await;
    (polls == 1, result)
}

fn classify(error: &NetError, name: &str, kind: RecordType) -> DnsError {
    match error {
        NetError::Dns(HickoryDnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsError::NxDomain,
            ResponseCode::NoError => DnsError::NoData,
            code => DnsError::Temporary(format!("{kind} {name}: {code}").into()),
        },
        NetError::Dns(HickoryDnsError::ResponseCode(ResponseCode::NXDomain)) => DnsError::NxDomain,
        NetError::Io(error) if is_exhausted(error) => DnsError::Exhausted(format!("{kind} {name}: {error}").into()),
        other => DnsError::Temporary(format!("{kind} {name}: {other}").into()),
    }
}

/// Where the names of an address stand, below `in-addr.arpa` or `ip6.arpa` (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_name(address: IpAddr) -> String {
    let name = Name::from(address).to_ascii();
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

/// A host name in lowercase without trailing dot; empty for the root; `None` for what is no host name.
fn host_name(name: &Name) -> Option<Arc<str>> {
    let text = name.to_ascii();
    let text = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
    let ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    ok.then(|| text.into())
}

/// Zones in memory: for tests, and for a node without a resolver.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    records: HashMap<Box<str>, Vec<RData>>,
    failing: Vec<Box<str>>,
    broken: bool,
}

impl Zones {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// An MX record; a host of `.` is the root.
    pub fn mx(mut self, domain: &str, preference: u16, host: &str) -> Self {
        use hickory_resolver::proto::rr::rdata::MX;
        if let Ok(host) = Name::from_ascii(host) {
            self.records.entry(domain.into()).or_default().push(RData::MX(MX::new(preference, host)));
        }
        self
    }

    /// An A or AAAA record.
    pub fn address(mut self, host: &str, address: IpAddr) -> Self {
        let data = match address {
            IpAddr::V4(a) => RData::A(a.into()),
            IpAddr::V6(a) => RData::AAAA(a.into()),
        };
        self.records.entry(host.into()).or_default().push(data);
        self
    }

    /// A TXT record of these strings.
    pub fn txt(mut self, name: &str, strings: &[&str]) -> Self {
        use hickory_resolver::proto::rr::rdata::TXT;
        let strings = strings.iter().map(|text| (*text).to_owned()).collect();
        self.records.entry(name.into()).or_default().push(RData::TXT(TXT::new(strings)));
        self
    }

    /// The name of an address.
    pub fn name(mut self, address: IpAddr, host: &str) -> Self {
        use hickory_resolver::proto::rr::rdata::PTR;
        if let Ok(host) = Name::from_ascii(host) {
            self.records.entry(reverse_name(address).into()).or_default().push(RData::PTR(PTR(host)));
        }
        self
    }

    /// A name with no records.
    pub fn empty(mut self, name: &str) -> Self {
        self.records.entry(name.into()).or_default();
        self
    }

    /// Every question fails for now: for a node without a resolver.
    pub fn broken(mut self) -> Self {
        self.broken = true;
        self
    }

    /// A name whose questions fail for now.
    pub fn failing(mut self, name: &str) -> Self {
        self.failing.push(name.into());
        self
    }

    fn answer<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        if self.broken || self.failing.iter().any(|f| **f == *name) {
            return Err(DnsError::Temporary(format!("{kind} {name}: SERVFAIL").into()));
        }
        let records = self.records.get(name).ok_or(DnsError::NxDomain)?;
        let records: Vec<T> = records.iter().filter_map(pick).take(RECORDS_MAX).collect();
        if records.is_empty() { Err(DnsError::NoData) } else { Ok(Answer { records, ttl: Duration::from_secs(300) }) }
    }
}

#[cfg(test)]
mod tests;
