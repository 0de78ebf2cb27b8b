//! Routing: from a recipient's domain to hosts (RFC 5321 §5, RFC 7505).
//!
//! 1. A route of the configuration wins: the exact domain, else the longest `*.suffix` (subdomains only), else `*`,
//! 2. else the MX records, sorted by preference; a lone root is "no mail here" (RFC 7505); when we are among them, we and what is worse go,
//! 3. without any MX record the domain itself is the host, where it has an address (the implicit MX),
//! 4. "no such domain" is for good; "nobody knows now" is for later.
//!
//! Addresses are looked up when a host is tried, and checked then, so that a changed answer can't slip in.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{EXHAUSTED, Failure, Plan, PlanHost, Resolution};
use crate::config::{Config, Route, TlsPolicy};
use crate::event::{Severity, SmtpReply};
use crate::seam::dns::{DnsError, Family, MxRecord, Resolver};
use crate::types::{Domain, Timestamp};

/// The most MX hosts that are considered, best first.
pub const HOSTS_MAX: usize = 20;

/// A plan is resolved anew after its records' TTL, but not sooner and not later than this.
const PLAN_TTL_MIN: Duration = Duration::from_secs(60);
const PLAN_TTL_MAX: Duration = Duration::from_secs(3_600);

/// A plan of a route has no records; its password file is read anew after this.
const ROUTE_TTL: Duration = Duration::from_secs(300);

/// Where a failure of routing happens.
pub const STAGE: &str = "resolving";

/// Turns domains into plans; cheap to clone.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    config: Arc<ArcSwap<Config>>,
    resolver: Resolver,
    /// Plans of routes, for the configuration at this address: a default route serves many domains by one plan.
    routes: Mutex<RoutePlans>,
}

#[derive(Default)]
struct RoutePlans {
    config: Option<Arc<Config>>,
    plans: AHashMap<Box<str>, Arc<Plan>>,
}

impl Router {
    /// A router for this configuration, whichever it is when a domain is resolved.
    pub fn new(config: Arc<ArcSwap<Config>>, resolver: Resolver) -> Self {
        Self(Arc::new(Inner { config, resolver, routes: Mutex::default() }))
    }

    /// Where mail for `domain` goes at `now`. The number of questions at a time is bounded by the resolver.
    pub async fn resolve(&self, domain: &Domain, now: Timestamp) -> Resolution {
        let config = self.0.config.load_full();
        if let Some((pattern, route)) = find_route(&config, domain) {
            return self.route_plan(&config, pattern, route, now);
        }
        match self.0.resolver.mx(domain.as_str()).await {
            Ok(answer) => mx_plan(&config, domain, answer.records, now.after(clamp(answer.ttl))),
            Err(DnsError::NoData) => self.implicit(&config, domain, now).await,
            Err(error) => failed(domain, &error),
        }
    }

    /// RFC 5321 §5.1: without MX records the domain is its own host, where it has an address.
    async fn implicit(&self, config: &Config, domain: &Domain, now: Timestamp) -> Resolution {
        match self.0.resolver.addresses(domain.as_str(), Family::Any).await {
            Ok(answer) => {
                let record = MxRecord { preference: 0, host: domain.as_str().into() };
                mx_plan(config, domain, vec![record], now.after(clamp(answer.ttl)))
            }
            Err(DnsError::NoData) => permanent(550, "5.1.2", format!("{domain} has neither MX nor address records")),
            Err(error) => failed(domain, &error),
        }
    }

    fn route_plan(&self, config: &Arc<Config>, pattern: &str, route: &Route, now: Timestamp) -> Resolution {
        let mut cache = self.0.routes.lock();
        if cache.config.as_ref().is_none_or(|c| !Arc::ptr_eq(c, config)) {
            cache.config = Some(config.clone());
            cache.plans.clear();
        }
        if let Some(plan) = cache.plans.get(pattern).filter(|p| p.valid_until > now) {
            return Resolution::Plan(plan.clone());
        }
        match make_route_plan(config, pattern, route, now) {
            Ok(plan) => {
                let plan = Arc::new(plan);
                cache.plans.insert(pattern.into(), plan.clone());
                Resolution::Plan(plan)
            }
            Err(text) => temporary("4.3.5", text),
        }
    }
}

/// The route for a domain: exact, else the longest `*.suffix`, else `*`.
fn find_route<'a>(config: &'a Config, domain: &Domain) -> Option<(&'a str, &'a Route)> {
    if config.routes.is_empty() {
        return None;
    }
    let get = |key: &str| config.routes.get_key_value(key).map(|(k, v)| (k.as_str(), v));
    if let Some(found) = get(domain.as_str()) {
        return Some(found);
    }
    let mut rest = domain.as_str();
    while let Some((_, parent)) = rest.split_once('.') {
        if let Some(found) = get(&format!("*.{parent}")) {
            return Some(found);
        }
        rest = parent;
    }
    get("*")
}

fn mx_plan(config: &Config, domain: &Domain, mut records: Vec<MxRecord>, valid_until: Timestamp) -> Resolution {
    // RFC 7505 §3: a lone root says that the domain takes no mail; beside others it is no host.
    if records.iter().all(|r| r.host.is_empty()) {
        return permanent(556, "5.1.10", format!("{domain} accepts no mail (null MX)"));
    }
    records.retain(|r| !r.host.is_empty());
    records.sort_by(|a, b| (a.preference, &a.host).cmp(&(b.preference, &b.host)));
    records.dedup_by(|b, a| a.host == b.host);
    // RFC 5321 §5.1: we are a host of the domain: only better ones may get the mail, else it would go in circles.
    if let Some(own) = records.iter().find(|r| is_own_name(config, &r.host)).map(|r| r.preference) {
        records.retain(|r| r.preference < own);
        if records.is_empty() {
            return permanent(550, "5.4.6", format!("mail for {domain} loops back to this host"));
        }
    }
    records.truncate(HOSTS_MAX);
    let port = config.delivery.port;
    let host = |r: MxRecord| PlanHost { name: r.host, preference: r.preference, port, address: None };
    let hosts: Vec<PlanHost> = records.into_iter().map(host).collect();
    let provider = config.provider_of(Some(domain), hosts.iter().map(|h| &*h.name));
    let demand = config.provider(provider).and_then(|p| p.tls).unwrap_or(TlsPolicy::None);
    let tls = config.delivery.tls.max(demand);
    let mut names: Vec<&str> = hosts.iter().map(|h| &*h.name).collect();
    names.sort_unstable();
    let site = format!("mx:{}:{}", digest(names.iter().copied()), tls_name(tls));
    Resolution::Plan(Arc::new(Plan {
        site: site.into(),
        name: hosts[0].name.clone(),
        provider: provider.into(),
        hosts,
        tls,
        implicit_tls: false,
        credentials: None,
        route: None,
        valid_until,
    }))
}

fn make_route_plan(config: &Config, pattern: &str, route: &Route, now: Timestamp) -> Result<Plan, String> {
    let mut hosts = Vec::new();
    for (i, text) in route.hosts.iter().take(HOSTS_MAX).enumerate() {
        let preference = u16::try_from(i).unwrap_or(u16::MAX);
        let port = if route.implicit_tls { 465 } else { config.delivery.port };
        hosts.push(parse_host(text, port, preference).ok_or_else(|| format!("route {pattern}: bad host {text:?}"))?);
    }
    if hosts.is_empty() {
        return Err(format!("route {pattern} has no hosts"));
    }
    let credentials = match (&route.username, &route.password_file) {
        (Some(user), Some(file)) => Some(Arc::new((user.clone(), read_password(file)?))),
        (Some(_), None) => return Err(format!("route {pattern}: a username without password_file")),
        (None, _) => None,
    };
    let ports: Vec<String> = hosts.iter().map(|h| format!("{}:{}", h.name, h.port)).collect();
    let user = credentials.as_ref().map_or("", |c| c.0.as_str());
    let key = digest(ports.iter().map(String::as_str).chain(["|", user]));
    let implicit = if route.implicit_tls { ":implicit" } else { "" };
    Ok(Plan {
        site: format!("route:{pattern}:{key}:{}{implicit}", tls_name(route.tls)).into(),
        name: format!("route:{pattern}").into(),
        provider: config.provider_of(None, hosts.iter().map(|h| &*h.name)).into(),
        hosts,
        tls: route.tls,
        implicit_tls: route.implicit_tls,
        credentials,
        route: Some(pattern.into()),
        valid_until: now.after(ROUTE_TTL),
    })
}

/// `host`, `host:port`, `address`, `address:port`, `[v6]` or `[v6]:port`.
fn parse_host(text: &str, port: u16, preference: u16) -> Option<PlanHost> {
    let fixed = |address: IpAddr, port: u16| PlanHost {
        name: address.to_string().into(),
        preference,
        port,
        address: Some(address),
    };
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(fixed(socket.ip(), socket.port()));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(fixed(address, port));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, number)) => (name, number.parse().ok()?),
        None => (text, port),
    };
    let name = name.to_ascii_lowercase();
    let ok = name == "localhost" || Domain::parse(&name).is_ok();
    ok.then(|| PlanHost { name: name.into(), preference, port, address: None })
}

fn read_password(file: &PathBuf) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}

fn is_own_name(config: &Config, host: &str) -> bool {
    host.eq_ignore_ascii_case(&config.hostname)
        || config.sources.iter().any(|s| s.ehlo.as_deref().is_some_and(|e| e.eq_ignore_ascii_case(host)))
}

/// 64 bits of a hash over texts, in hexadecimal: the same in each process, so that it may be stored and compared.
fn digest<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn tls_name(tls: TlsPolicy) -> &'static str {
    match tls {
        TlsPolicy::None => "none",
        TlsPolicy::Opportunistic => "opportunistic",
        TlsPolicy::Required => "required",
        TlsPolicy::Verified => "verified",
    }
}

fn clamp(ttl: Duration) -> Duration {
    ttl.clamp(PLAN_TTL_MIN, PLAN_TTL_MAX)
}

fn failed(domain: &Domain, error: &DnsError) -> Resolution {
    match error {
        DnsError::NxDomain => permanent(550, "5.1.2", format!("the domain {domain} does not exist")),
        DnsError::NoData => permanent(550, "5.1.2", format!("the domain {domain} has no mail hosts")),
        DnsError::Temporary(text) => temporary("4.4.3", format!("DNS: {text}")),
        DnsError::Exhausted(text) => {
            let failure = failure(Severity::Temporary, 0, "4.3.1", format!("DNS: {text}"));
            Resolution::Failed(Failure { stage: EXHAUSTED, ..failure })
        }
    }
}

fn permanent(code: u16, enhanced: &str, text: String) -> Resolution {
    Resolution::Failed(failure(Severity::Permanent, code, enhanced, text))
}

fn temporary(enhanced: &str, text: String) -> Resolution {
    Resolution::Failed(failure(Severity::Temporary, 0, enhanced, text))
}

fn failure(severity: Severity, code: u16, enhanced: &str, text: String) -> Failure {
    let reply = SmtpReply { code, enhanced: Some(enhanced.into()), text: text.into() };
    Failure { severity, reply, stage: STAGE, remote: false }
}

#[cfg(test)]
mod tests;
