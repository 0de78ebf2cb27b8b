//! `posthaste check --dns`: what the DNS says of the names in the configuration.
//!
//! 1. Host name and sources: forward and back, for receivers compare the two,
//! 2. each DKIM key: its record is there, not revoked, and of this key,
//! 3. each tenant's domain: it can get mail, has a DMARC policy; each bounce domain: an MX and SPF.
//!
//! Who asks is a parameter, so that the judgement can be tested without a network.

use std::fmt::Write;
use std::time::Duration;

use super::admin::printable;
use super::check::count;
use super::{Exit, print};
use crate::campaign::preflight::dns::{
    Ask, AskDns, KeyTrouble, NameTrouble, OneText, Said, Timed, check_key, check_names, is_public, one_text,
};
use crate::config::{Config, Source, Tenant};
use crate::dkim::KeyRing;
use crate::metrics::Registry;
use crate::metrics::delivery::DnsMetrics;
use crate::seam::dns::{Resolver, ResolverOptions};

/// How long all questions together may take: a configuration has a few for each domain, and a dead resolver costs
/// `dns.timeout` for each.
const CHECK_TIME_MAX: Duration = Duration::from_secs(120);

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
    let dns = Timed::new(resolver, limit);
    let mut found = check(config, ring, &dns).await;
    // One zone that fails for now is a warning; a resolver that answers nothing must not look like a check that passed.
    if dns.is_deaf() {
        found.push(error("no question was answered: is [dns] resolvers right, and does one run there?".into()));
    }
    found
}

/// All that is missing in the DNS, in the order of the configuration.
pub async fn check(config: &Config, ring: &KeyRing, dns: &impl AskDns) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.sources.iter().any(|source| source.ehlo.is_none())
        && let Some(words) = resolves(dns, &config.hostname, "hostname").await
    {
        found.push(words);
    }
    for source in &config.sources {
        found.extend(check_source(config, source, dns).await);
    }
    for key in ring.keys() {
        let name = format!("{}._domainkey.{}", key.selector, key.domain);
        let ours = key.private.as_ref().ok().and_then(|private| private.public_base64().ok());
        found.extend(check_dkim(dns, &name, ours.as_deref()).await);
    }
    for tenant in &config.tenants {
        found.extend(check_tenant(tenant, dns).await);
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

async fn resolves(dns: &impl AskDns, name: &str, what: &str) -> Option<Finding> {
    match dns.ask(Ask::Addresses(name.to_owned())).await {
        Said::Addresses(addresses) if !addresses.is_empty() => None,
        Said::Unknown(why) => Some(unknown(name, &why)),
        _ => Some(error(format!("{name} ({what}) has no address: add an A or AAAA record"))),
    }
}

/// Forward and back: many receivers refuse a client whose address has no name, or whose name is not its address.
async fn check_source(config: &Config, source: &Source, dns: &impl AskDns) -> Vec<Finding> {
    let mut found = Vec::new();
    let ehlo = source.ehlo.as_deref().unwrap_or(&config.hostname);
    let of = format!("source {}", source.name);
    let Some(address) = source.address.filter(is_public) else {
        if source.ehlo.is_some() {
            found.extend(resolves(dns, ehlo, &of).await);
        }
        return found;
    };
    for trouble in check_names(dns, ehlo, address).await {
        found.push(match trouble {
            NameTrouble::NotForward => error(format!("{ehlo} ({of}) does not resolve to {address}: add the record")),
            NameTrouble::OtherName(names, _) => warning(format!(
                "{address} ({of}) is called {}, and says EHLO {ehlo}: make the PTR record the EHLO name",
                names.join(", ")
            )),
            NameTrouble::NoName => {
                error(format!("{address} ({of}) has no name: ask its owner for a PTR record to {ehlo}"))
            }
            NameTrouble::Unknown(what, why) => unknown(&what, &why),
        });
    }
    found
}

/// `ours` is the public half of the key that signs, as it should stand in the record.
async fn check_dkim(dns: &impl AskDns, name: &str, ours: Option<&str>) -> Option<Finding> {
    let said = match check_key(dns, name, ours).await {
        Ok(()) => return None,
        Err(KeyTrouble::Unknown(why)) => return Some(unknown(name, &why)),
        Err(KeyTrouble::Revoked) => "the key is revoked (p= is empty)".to_owned(),
        Err(KeyTrouble::Several(n)) => {
            format!("{n} TXT records: which one counts is undefined (RFC 6376 §3.6.2.2)")
        }
        Err(KeyTrouble::OtherKey) => {
            "the record is of another key, so every signature fails: `posthaste dkim dns` prints the right one".into()
        }
        Err(KeyTrouble::Missing) => "no DKIM record: `posthaste dkim dns` prints it".into(),
    };
    Some(error(format!("{name}: {said}")))
}

async fn check_tenant(tenant: &Tenant, dns: &impl AskDns) -> Vec<Finding> {
    let mut found = Vec::new();
    let of = format!("tenant {}", tenant.name);
    for domain in tenant.domains.iter().filter(|domain| *domain != "*") {
        if let Said::Texts(hosts) = dns.ask(Ask::Hosts(domain.clone())).await
            && hosts.iter().all(String::is_empty)
            && !hosts.is_empty()
        {
            found.push(error(format!(
                "{domain} ({of}) says by a null MX that it takes no mail: receivers refuse its senders"
            )));
        }
        found.extend(has_text(dns, &format!("_dmarc.{domain}"), "v=DMARC1", "DMARC policy", &of).await);
    }
    if let Some(domain) = &tenant.bounce_domain {
        let domain = domain.as_str();
        match dns.ask(Ask::Hosts(domain.to_owned())).await {
            Said::Texts(hosts) if hosts.iter().any(|host| !host.is_empty()) => {}
            Said::Unknown(why) => found.push(unknown(domain, &why)),
            _ => found.push(error(format!("{domain} (bounces of {of}) has no MX: late bounces get lost"))),
        }
        found.extend(has_text(dns, domain, "v=spf1", "SPF record", &of).await);
    } else {
        for domain in tenant.domains.iter().filter(|domain| *domain != "*") {
            found.extend(has_text(dns, domain, "v=spf1", "SPF record", &of).await);
        }
    }
    found
}

/// Exactly one TXT record that begins with `prefix`: two of them are a permanent error (RFC 7208 §4.5, RFC 7489 §6.6.3).
async fn has_text(dns: &impl AskDns, name: &str, prefix: &str, what: &str, of: &str) -> Option<Finding> {
    match one_text(dns, name, prefix).await {
        OneText::One(_) => None,
        OneText::Missing => Some(warning(format!("{name} ({of}) has no {what}: large receivers ask for one"))),
        OneText::Several(n) => Some(error(format!("{name} ({of}) has {n} records of the kind {what}: none counts"))),
        OneText::Unknown(why) => Some(unknown(name, &why)),
    }
}

#[cfg(test)]
mod tests;
