//! `posthaste check --dns`: what the DNS says of the names in the configuration.
//!
//! 1. Host name and sources: forward and back, for receivers compare the two,
//! 2. each DKIM key: its record is there, not revoked, and of this key,
//! 3. each tenant's domain: it can get mail, has a DMARC policy; each bounce domain: an MX and SPF.
//!
//! Who asks is a parameter, so that the judgement can be tested without a network.

use std::cell::Cell;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::admin::printable;
use super::check::count;
use super::{Exit, print};
use crate::config::{Config, Source, Tenant};
use crate::dkim::KeyRing;
use crate::metrics::Registry;
use crate::metrics::delivery::DnsMetrics;
use crate::seam::dns::{DnsError, Family, Resolver, ResolverOptions};

/// How long all questions together may take: a configuration has a few for each domain, and a dead resolver costs
/// `dns.timeout` for each.
const CHECK_TIME_MAX: Duration = Duration::from_secs(120);

/// A question to the DNS.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ask {
    /// A and AAAA records of a name.
    Addresses(String),
    /// The names of an address.
    Names(IpAddr),
    /// TXT records of a name, each as one text.
    Texts(String),
    /// The MX hosts of a domain; a null MX (RFC 7505) is an empty host.
    Hosts(String),
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// To [`Ask::Addresses`].
    Addresses(Vec<IpAddr>),
    /// To all others: names and texts.
    Texts(Vec<String>),
    /// No such name or record.
    Nothing,
    /// Nobody knows at the moment, and why.
    Unknown(String),
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Whether mail will be refused for it, rather than only trusted less.
    pub is_error: bool,
    /// What, and what to do.
    pub words: String,
}

/// Asks the DNS of the configuration and prints what is missing there; `quiet` leaves out warnings and the summary.
pub(super) fn run(config: &Config, ring: &KeyRing, quiet: bool) -> anyhow::Result<Exit> {
    let options = ResolverOptions {
        servers: config.dns.resolvers.clone(),
        timeout: config.dns.timeout.0,
        cache_size: config.dns.cache_size,
        max_concurrent: config.dns.max_concurrent,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        let resolver = Resolver::new(&options, DnsMetrics::register(&Registry::new()))?;
        anyhow::Ok(ask_all(config, ring, &resolver, CHECK_TIME_MAX).await)
    })?;
    let mut out = String::new();
    for finding in found.iter().filter(|finding| finding.is_error || !quiet) {
        let _ = writeln!(out, "{}: {}", if finding.is_error { "error" } else { "warning" }, printable(&finding.words));
    }
    let errors = found.iter().filter(|finding| finding.is_error).count();
    if !quiet {
        let _ = match found.len() - errors {
            0 if errors == 0 => writeln!(out, "DNS: ok"),
            warnings => writeln!(out, "DNS: {}, {}", count(errors, "error"), count(warnings, "warning")),
        };
    }
    if !out.is_empty() {
        print(&out)?;
    }
    Ok(if errors == 0 { Exit::Success } else { Exit::Failure })
}

/// Checks with a real resolver; questions that come after `limit` are not asked any more, and that is told.
async fn ask_all(config: &Config, ring: &KeyRing, resolver: &Resolver, limit: Duration) -> Vec<Finding> {
    let end = Instant::now() + limit;
    let (asked, answered) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut found = check(config, ring, async |ask| {
        let said = match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => out_of_time(),
            left => tokio::time::timeout(left, answer(resolver, ask)).await.unwrap_or_else(|_| out_of_time()),
        };
        asked.set(asked.get() + 1);
        answered.set(answered.get() + u32::from(!matches!(said, Said::Unknown(_))));
        said
    })
    .await;
    // One zone that fails for now is a warning; a resolver that answers nothing must not look like a check that passed.
    if asked.get() > 0 && answered.get() == 0 {
        found.push(error("no question was answered: is [dns] resolvers right, and does one run there?".into()));
    }
    found
}

fn out_of_time() -> Said {
    Said::Unknown("the time for all questions is over".into())
}

/// One question to a resolver.
async fn answer(resolver: &Resolver, ask: Ask) -> Said {
    let said = match ask {
        Ask::Addresses(name) => {
            resolver.addresses(&name, Family::Any).await.map(|answer| Said::Addresses(answer.records))
        }
        Ask::Names(address) => {
            resolver.names(address).await.map(|a| Said::Texts(a.records.iter().map(ToString::to_string).collect()))
        }
        Ask::Texts(name) => resolver.txt(&name).await.map(|answer| Said::Texts(answer.records)),
        Ask::Hosts(domain) => {
            resolver.mx(&domain).await.map(|a| Said::Texts(a.records.iter().map(|mx| mx.host.to_string()).collect()))
        }
    };
    match said {
        Ok(said) => said,
        Err(DnsError::NxDomain | DnsError::NoData) => Said::Nothing,
        Err(DnsError::Temporary(why) | DnsError::Exhausted(why)) => Said::Unknown(why.to_string()),
    }
}

/// All that is missing in the DNS, in the order of the configuration.
pub async fn check(config: &Config, ring: &KeyRing, ask: impl AsyncFn(Ask) -> Said) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.sources.iter().any(|source| source.ehlo.is_none())
        && let Some(words) = resolves(&ask, &config.hostname, "hostname").await
    {
        found.push(words);
    }
    for source in &config.sources {
        found.extend(check_source(config, source, &ask).await);
    }
    for key in ring.keys() {
        let name = format!("{}._domainkey.{}", key.selector, key.domain);
        let ours = key.private.as_ref().ok().and_then(|private| private.public_base64().ok());
        found.extend(check_dkim(&ask, &name, ours.as_deref()).await);
    }
    for tenant in &config.tenants {
        found.extend(check_tenant(tenant, &ask).await);
    }
    found
}

fn error(words: String) -> Finding {
    Finding { is_error: true, words }
}

fn warning(words: String) -> Finding {
    Finding { is_error: false, words }
}

fn unknown(name: &str, why: &str) -> Finding {
    warning(format!("{name}: can't be told now: {why}"))
}

async fn resolves(ask: &impl AsyncFn(Ask) -> Said, name: &str, what: &str) -> Option<Finding> {
    match ask(Ask::Addresses(name.to_owned())).await {
        Said::Addresses(addresses) if !addresses.is_empty() => None,
        Said::Unknown(why) => Some(unknown(name, &why)),
        _ => Some(error(format!("{name} ({what}) has no address: add an A or AAAA record"))),
    }
}

/// Forward and back: many receivers refuse a client whose address has no name, or whose name is not its address.
async fn check_source(config: &Config, source: &Source, ask: &impl AsyncFn(Ask) -> Said) -> Vec<Finding> {
    let mut found = Vec::new();
    let ehlo = source.ehlo.as_deref().unwrap_or(&config.hostname);
    let of = format!("source {}", source.name);
    let Some(address) = source.address.filter(is_public) else {
        if source.ehlo.is_some() {
            found.extend(resolves(ask, ehlo, &of).await);
        }
        return found;
    };
    match ask(Ask::Addresses(ehlo.to_owned())).await {
        Said::Addresses(addresses) if addresses.contains(&address) => {}
        Said::Unknown(why) => found.push(unknown(ehlo, &why)),
        _ => found.push(error(format!("{ehlo} ({of}) does not resolve to {address}: add the record"))),
    }
    match ask(Ask::Names(address)).await {
        Said::Texts(names) if names.iter().any(|name| same_name(name, ehlo)) => {}
        Said::Texts(names) if !names.is_empty() => found.push(warning(format!(
            "{address} ({of}) is called {}, and says EHLO {ehlo}: make the PTR record the EHLO name",
            names.join(", ")
        ))),
        Said::Unknown(why) => found.push(unknown(&address.to_string(), &why)),
        _ => found.push(error(format!("{address} ({of}) has no name: ask its owner for a PTR record to {ehlo}"))),
    }
    found
}

fn same_name(a: &str, b: &str) -> bool {
    a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.'))
}

/// Addresses that the world could see; those behind a translator are not ours to judge.
fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_private() && !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unique_local() && !v6.is_unicast_link_local(),
    }
}

/// `ours` is the public half of the key that signs, as it should stand in the record.
async fn check_dkim(ask: &impl AsyncFn(Ask) -> Said, name: &str, ours: Option<&str>) -> Option<Finding> {
    let texts = match ask(Ask::Texts(name.to_owned())).await {
        Said::Texts(texts) => texts,
        Said::Unknown(why) => return Some(unknown(name, &why)),
        _ => Vec::new(),
    };
    // RFC 6376 §3.2, §3.6.1: white space may stand around `=` and within the key; an empty `p=` revokes it.
    let key = |text: &String| {
        let mut tags = text.split(';').filter_map(|tag| tag.split_once('='));
        let value = tags.find(|(name, _)| name.trim() == "p").map(|(_, value)| value);
        value.map(|value| value.split_ascii_whitespace().collect::<String>())
    };
    let said = match texts.iter().find_map(key) {
        Some(key) if key.is_empty() => "the key is revoked (p= is empty)".to_owned(),
        Some(_) if texts.len() > 1 => {
            format!("{} TXT records: which one counts is undefined (RFC 6376 §3.6.2.2)", texts.len())
        }
        Some(key) if ours.is_some_and(|ours| ours != key) => {
            "the record is of another key, so every signature fails: `posthaste dkim dns` prints the right one".into()
        }
        Some(_) => return None,
        None => "no DKIM record: `posthaste dkim dns` prints it".into(),
    };
    Some(error(format!("{name}: {said}")))
}

async fn check_tenant(tenant: &Tenant, ask: &impl AsyncFn(Ask) -> Said) -> Vec<Finding> {
    let mut found = Vec::new();
    let of = format!("tenant {}", tenant.name);
    for domain in tenant.domains.iter().filter(|domain| *domain != "*") {
        if let Said::Texts(hosts) = ask(Ask::Hosts(domain.clone())).await
            && hosts.iter().all(String::is_empty)
            && !hosts.is_empty()
        {
            found.push(error(format!(
                "{domain} ({of}) says by a null MX that it takes no mail: receivers refuse its senders"
            )));
        }
        found.extend(has_text(ask, &format!("_dmarc.{domain}"), "v=DMARC1", "DMARC policy", &of).await);
    }
    if let Some(domain) = &tenant.bounce_domain {
        let domain = domain.as_str();
        match ask(Ask::Hosts(domain.to_owned())).await {
            Said::Texts(hosts) if hosts.iter().any(|host| !host.is_empty()) => {}
            Said::Unknown(why) => found.push(unknown(domain, &why)),
            _ => found.push(error(format!("{domain} (bounces of {of}) has no MX: late bounces get lost"))),
        }
        found.extend(has_text(ask, domain, "v=spf1", "SPF record", &of).await);
    } else {
        for domain in tenant.domains.iter().filter(|domain| *domain != "*") {
            found.extend(has_text(ask, domain, "v=spf1", "SPF record", &of).await);
        }
    }
    found
}

/// Exactly one TXT record that begins with `prefix`: two of them are a permanent error (RFC 7208 §4.5, RFC 7489 §6.6.3).
async fn has_text(ask: &impl AsyncFn(Ask) -> Said, name: &str, prefix: &str, what: &str, of: &str) -> Option<Finding> {
    let texts = match ask(Ask::Texts(name.to_owned())).await {
        Said::Texts(texts) => texts,
        Said::Unknown(why) => return Some(unknown(name, &why)),
        _ => Vec::new(),
    };
    let begins = |text: &&String| text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    match texts.iter().filter(begins).count() {
        1 => None,
        0 => Some(warning(format!("{name} ({of}) has no {what}: large receivers ask for one"))),
        n => Some(error(format!("{name} ({of}) has {n} records of the kind {what}: none counts"))),
    }
}

#[cfg(test)]
mod tests;
