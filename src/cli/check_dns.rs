//! `posthaste check --dns`: what the DNS says of the names in the configuration.
//!
//! 1. Host name and sources: forward and back, for receivers compare the two,
//! 2. each DKIM key: its record is there and not revoked,
//! 3. each tenant's domain: it can get mail, has a DMARC policy; each bounce domain: an MX and SPF.
//!
//! Who asks is a parameter, so that the judgement can be tested without a network.

use std::net::IpAddr;

use super::Exit;
use crate::config::{Config, Source, Tenant};

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

/// Asks the DNS and prints what is missing there.
pub(super) fn run(_config: &Config) -> anyhow::Result<Exit> {
    anyhow::bail!("this build has no resolver: --dns can't ask anybody yet")
}

/// All that is missing in the DNS, in the order of the configuration.
pub async fn check(config: &Config, ask: impl AsyncFn(Ask) -> Said) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.sources.iter().any(|source| source.ehlo.is_none())
        && let Some(words) = resolves(&ask, &config.hostname, "hostname").await
    {
        found.push(words);
    }
    for source in &config.sources {
        found.extend(check_source(config, source, &ask).await);
    }
    for key in &config.dkim {
        let name = format!("{}._domainkey.{}", key.selector, key.domain);
        found.extend(check_dkim(&ask, &name).await);
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

async fn check_dkim(ask: &impl AsyncFn(Ask) -> Said, name: &str) -> Option<Finding> {
    let texts = match ask(Ask::Texts(name.to_owned())).await {
        Said::Texts(texts) => texts,
        Said::Unknown(why) => return Some(unknown(name, &why)),
        _ => Vec::new(),
    };
    // RFC 6376 §3.6.1: an empty `p=` revokes the key.
    let key = |text: &String| text.split(';').filter_map(|tag| tag.trim().strip_prefix("p=")).map(str::len).next();
    match texts.iter().find_map(key) {
        Some(0) => Some(error(format!("{name}: the key is revoked (p= is empty)"))),
        Some(_) if texts.len() > 1 => Some(error(format!(
            "{name} has {} TXT records: which one counts is undefined (RFC 6376 §3.6.2.2)",
            texts.len()
        ))),
        Some(_) => None,
        None => Some(error(format!("{name} has no DKIM record: `posthaste dkim dns` prints it"))),
    }
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
mod tests {
    use super::*;
    use std::collections::HashMap;

    const TOML: &str = "hostname = 'mta.example'\ndata_dir = 'd'\n\
        [[sources]]\nname = 'ip1'\naddress = '203.0.113.5'\n[[sources]]\nname = 'inside'\naddress = '10.0.0.1'\n\
        [[tenants]]\nname = 'acme'\ndomains = ['acme.example', '*']\nbounce_domain = 'b.acme.example'\n\
        [[dkim]]\ndomain = 'acme.example'\nselector = 's1'\nalgorithm = 'rsa-sha256'\nkey_file = 'x'\n";

    fn texts(texts: &[&str]) -> Said {
        Said::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    /// A DNS in which all is well.
    fn zone() -> HashMap<Ask, Said> {
        let address: IpAddr = "203.0.113.5".parse().expect("an address");
        HashMap::from([
            (Ask::Addresses("mta.example".into()), Said::Addresses(vec![address])),
            (Ask::Names(address), texts(&["MTA.example."])),
            (Ask::Texts("s1._domainkey.acme.example".into()), texts(&["v=DKIM1; k=rsa; p=MIIB"])),
            (Ask::Texts("_dmarc.acme.example".into()), texts(&["v=DMARC1; p=none"])),
            (Ask::Hosts("acme.example".into()), texts(&["mx.acme.example"])),
            (Ask::Hosts("b.acme.example".into()), texts(&["mta.example"])),
            (
                Ask::Texts("b.acme.example".into()),
                texts(&["google-site-verification=1", "v=spf1 ip4:203.0.113.5 -all"]),
            ),
        ])
    }

    fn check_zone(change: impl Fn(&mut HashMap<Ask, Said>), want: &[&str]) {
        let config: Config = toml::from_str(TOML).expect("valid");
        let mut zone = zone();
        change(&mut zone);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let ask = async |ask: Ask| zone.get(&ask).cloned().unwrap_or(Said::Nothing);
        let found = runtime.block_on(check(&config, ask));
        let words: Vec<_> =
            found.iter().map(|f| format!("{} {}", if f.is_error { "error" } else { "warning" }, f.words)).collect();
        assert_eq!(words, want);
    }

    #[test]
    fn all_is_well() {
        check_zone(|_| {}, &[]);
    }

    #[test]
    fn an_empty_dns_lacks_everything() {
        check_zone(
            HashMap::clear,
            &[
                "error mta.example (hostname) has no address: add an A or AAAA record",
                "error mta.example (source ip1) does not resolve to 203.0.113.5: add the record",
                "error 203.0.113.5 (source ip1) has no name: ask its owner for a PTR record to mta.example",
                "error s1._domainkey.acme.example has no DKIM record: `posthaste dkim dns` prints it",
                "warning _dmarc.acme.example (tenant acme) has no DMARC policy: large receivers ask for one",
                "error b.acme.example (bounces of tenant acme) has no MX: late bounces get lost",
                "warning b.acme.example (tenant acme) has no SPF record: large receivers ask for one",
            ],
        );
    }

    #[test]
    fn wrong_records_are_told_from_missing_ones() {
        let address: IpAddr = "203.0.113.5".parse().expect("an address");
        check_zone(
            |zone| {
                zone.insert(Ask::Names(address), texts(&["host5.isp.example"]));
                zone.insert(Ask::Texts("s1._domainkey.acme.example".into()), texts(&["v=DKIM1; p="]));
                zone.insert(Ask::Texts("b.acme.example".into()), texts(&["v=spf1 -all", "v=spf1 +all"]));
                zone.insert(Ask::Hosts("acme.example".into()), texts(&[""]));
                zone.insert(Ask::Texts("_dmarc.acme.example".into()), Said::Unknown("SERVFAIL".into()));
            },
            &[
                "warning 203.0.113.5 (source ip1) is called host5.isp.example, and says EHLO mta.example: make the PTR record the EHLO name",
                "error s1._domainkey.acme.example: the key is revoked (p= is empty)",
                "error acme.example (tenant acme) says by a null MX that it takes no mail: receivers refuse its senders",
                "warning _dmarc.acme.example: can't be told now: SERVFAIL",
                "error b.acme.example (tenant acme) has 2 records of the kind SPF record: none counts",
            ],
        );
    }
}
