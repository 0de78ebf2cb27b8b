//! SPF (RFC 7208): would a receiver let this address send for this domain?
//!
//! 1. The one record of the domain is found and read whole: an error anywhere in it is a permanent error (§4.6),
//! 2. its mechanisms are tried from left to right; the first that matches decides, by its qualifier,
//! 3. without a match `redirect=` goes to another domain's record; without that the result is neutral.
//!
//! Bounds of §4.6.4: ten terms that cause look-ups, ten hosts of an MX or PTR, two answers without a record.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use super::dns::{Ask, AskDns, OneText, Said, one_text};

/// §4.6.4: the most terms that ask the DNS; then a permanent error.
pub const LOOKUPS_MAX: u32 = 10;
/// §4.6.4: the most look-ups that may find nothing; then a permanent error.
pub const VOIDS_MAX: u32 = 2;
/// §4.6.4: the most hosts of one `mx` or `ptr`.
const HOSTS_MAX: usize = 10;

/// The result of a check (§2.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpfResult {
    /// The address may send.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// Nothing is said of it.
    Neutral,
    /// There is no record.
    None,
    /// The DNS did not answer.
    TempError(String),
    /// The record can't be used.
    PermError(String),
}

impl SpfResult {
    /// The word of §2.6.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::TempError(_) => "temperror",
            Self::PermError(_) => "permerror",
        }
    }
}

/// A check that ended before its result: `TempError` or `PermError`.
type Early<T> = Result<T, SpfResult>;

/// Checks `ip` for `domain`, as the reverse-path `sender` says it (`local@domain`).
pub async fn check_host(dns: &impl AskDns, ip: IpAddr, domain: &str, sender: &str, helo: &str) -> SpfResult {
    // RFC 4291 §2.5.5.2: an IPv4-mapped address is an IPv4 address (§5 of RFC 7208).
    let mut run = Run { dns, ip: ip.to_canonical(), sender, helo, lookups: 0, voids: 0 };
    run.check(domain.to_owned()).await.unwrap_or_else(|early| early)
}

/// A term of a record, parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mechanism {
    qualifier: char,
    name: String,
    value: Option<String>,
    cidr4: u8,
    cidr6: u8,
}

struct Run<'a, D> {
    dns: &'a D,
    ip: IpAddr,
    sender: &'a str,
    helo: &'a str,
    lookups: u32,
    voids: u32,
}

impl<D: AskDns> Run<'_, D> {
    fn check(&mut self, domain: String) -> Pin<Box<dyn Future<Output = Early<SpfResult>> + Send + '_>> {
        Box::pin(async move {
            let record = match one_text(self.dns, &domain, "v=spf1").await {
                OneText::One(record) => record,
                OneText::Missing => return Ok(SpfResult::None),
                OneText::Several(n) => return Err(SpfResult::PermError(format!("{domain} has {n} SPF records"))),
                OneText::Unknown(why) => return Err(SpfResult::TempError(why)),
            };
            let (mechanisms, redirect) =
                parse(&record).map_err(|why| SpfResult::PermError(format!("{domain}: {why}")))?;
            for mechanism in &mechanisms {
                if self.matches(mechanism, &domain).await? {
                    return Ok(match mechanism.qualifier {
                        '-' => SpfResult::Fail,
                        '~' => SpfResult::SoftFail,
                        '?' => SpfResult::Neutral,
                        _ => SpfResult::Pass,
                    });
                }
            }
            let Some(redirect) = redirect else { return Ok(SpfResult::Neutral) };
            self.count_lookup()?;
            let target = self.expand(&redirect, &domain)?;
            match self.check(target.clone()).await? {
                SpfResult::None => Err(SpfResult::PermError(format!("redirect={target} has no SPF record"))),
                result => Ok(result),
            }
        })
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Early<bool> {
        let target = match &mechanism.value {
            Some(value) if !matches!(mechanism.name.as_str(), "ip4" | "ip6") => self.expand(value, domain)?,
            _ => domain.to_owned(),
        };
        match mechanism.name.as_str() {
            "all" => Ok(true),
            "ip4" | "ip6" => {
                let address = mechanism.value.as_deref().and_then(|value| value.parse::<IpAddr>().ok());
                Ok(address.is_some_and(|address| self.is_within(address, mechanism)))
            }
            "include" => {
                self.count_lookup()?;
                match self.check(target.clone()).await? {
                    SpfResult::Pass => Ok(true),
                    SpfResult::None => Err(SpfResult::PermError(format!("include:{target} has no SPF record"))),
                    _ => Ok(false),
                }
            }
            "a" => {
                self.count_lookup()?;
                let addresses = self.addresses(target, true).await?;
                Ok(addresses.into_iter().any(|address| self.is_within(address, mechanism)))
            }
            "mx" => {
                self.count_lookup()?;
                let hosts = self.texts(Ask::Hosts(target.clone())).await?;
                if hosts.len() > HOSTS_MAX {
                    return Err(SpfResult::PermError(format!("{target} has more than {HOSTS_MAX} MX hosts")));
                }
                for host in hosts.into_iter().filter(|host| !host.is_empty()) {
                    let addresses = self.addresses(host, true).await?;
                    if addresses.into_iter().any(|address| self.is_within(address, mechanism)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            "exists" => {
                self.count_lookup()?;
                // §5.7: the look-up is for A, also where the client has an IPv6 address.
                Ok(self.addresses(target, true).await?.iter().any(IpAddr::is_ipv4))
            }
            _ => {
                self.count_lookup()?;
                self.ptr(&target).await
            }
        }
    }

    /// §5.5: some name of the address lies in the domain and resolves to the address. A failure is no match, never an error.
    async fn ptr(&mut self, target: &str) -> Early<bool> {
        let Said::Texts(names) = self.dns.ask(Ask::Names(self.ip)).await else { return Ok(false) };
        let target = target.to_ascii_lowercase();
        for name in names.iter().take(HOSTS_MAX) {
            let name = name.to_ascii_lowercase();
            let is_below = name.strip_suffix(&target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            if is_below
                && let Said::Addresses(addresses) = self.dns.ask(Ask::Addresses(name)).await
                && addresses.contains(&self.ip)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn addresses(&mut self, name: String, counts: bool) -> Early<Vec<IpAddr>> {
        match self.dns.ask(Ask::Addresses(name)).await {
            Said::Addresses(addresses) if !addresses.is_empty() => Ok(addresses),
            Said::Unknown(why) => Err(SpfResult::TempError(why)),
            _ => {
                if counts {
                    self.count_void()?;
                }
                Ok(Vec::new())
            }
        }
    }

    async fn texts(&mut self, ask: Ask) -> Early<Vec<String>> {
        match self.dns.ask(ask).await {
            Said::Texts(texts) if !texts.is_empty() => Ok(texts),
            Said::Unknown(why) => Err(SpfResult::TempError(why)),
            _ => {
                self.count_void()?;
                Ok(Vec::new())
            }
        }
    }

    fn count_lookup(&mut self) -> Early<()> {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX {
            return Err(SpfResult::PermError(format!("the record needs more than {LOOKUPS_MAX} look-ups")));
        }
        Ok(())
    }

    fn count_void(&mut self) -> Early<()> {
        self.voids += 1;
        if self.voids > VOIDS_MAX {
            return Err(SpfResult::PermError(format!("more than {VOIDS_MAX} of its look-ups find nothing")));
        }
        Ok(())
    }

    fn is_within(&self, network: IpAddr, mechanism: &Mechanism) -> bool {
        match (self.ip, network) {
            (IpAddr::V4(ip), IpAddr::V4(net)) => {
                let shift = 32 - u32::from(mechanism.cidr4.min(32));
                u64::from(ip.to_bits()) >> shift == u64::from(net.to_bits()) >> shift
            }
            (IpAddr::V6(ip), IpAddr::V6(net)) => {
                let shift = 128 - u32::from(mechanism.cidr6.min(128));
                shift == 128 || ip.to_bits() >> shift == net.to_bits() >> shift
            }
            _ => false,
        }
    }

    /// §7: macros in a domain-spec. `%{p}` is "unknown", as §7.3 recommends to those who don't look it up.
    fn expand(&self, text: &str, domain: &str) -> Early<String> {
        let bad = || SpfResult::PermError(format!("bad macro in {text:?}"));
        let (local, sender_domain) = self.sender.rsplit_once('@').unwrap_or(("postmaster", self.sender));
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            rest = match after.chars().next() {
                Some('%') => {
                    out.push('%');
                    &after[1..]
                }
                Some('_') => {
                    out.push(' ');
                    &after[1..]
                }
                Some('-') => {
                    out.push_str("%20");
                    &after[1..]
                }
                Some('{') => {
                    let (body, tail) = after[1..].split_once('}').ok_or_else(bad)?;
                    let letter = body.chars().next().ok_or_else(bad)?;
                    let value = match letter.to_ascii_lowercase() {
                        's' => format!("{local}@{sender_domain}"),
                        'l' => local.to_owned(),
                        'o' => sender_domain.to_owned(),
                        'd' => domain.to_owned(),
                        'i' => dotted(self.ip),
                        'h' => self.helo.to_owned(),
                        'v' => if self.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
                        'p' => "unknown".to_owned(),
                        _ => return Err(bad()),
                    };
                    out.push_str(&transformed(&value, &body[letter.len_utf8()..]).ok_or_else(bad)?);
                    tail
                }
                _ => return Err(bad()),
            };
        }
        out.push_str(rest);
        Ok(out.trim_end_matches('.').to_owned())
    }
}

/// §7.3: IPv4 dotted, IPv6 as nibbles with dots.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 0xf]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// §7.3: `2r-`: split at the delimiters, reverse, keep the last so many, join with dots.
fn transformed(value: &str, transformers: &str) -> Option<String> {
    let digits: String = transformers.chars().take_while(char::is_ascii_digit).collect();
    let mut rest = &transformers[digits.len()..];
    let reverse = rest.starts_with(['r', 'R']);
    if reverse {
        rest = &rest[1..];
    }
    if !rest.chars().all(|c| ".-+,/_=".contains(c)) {
        return None;
    }
    let delimiters = if rest.is_empty() { "." } else { rest };
    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
    if reverse {
        parts.reverse();
    }
    if !digits.is_empty() {
        let keep = digits.parse::<usize>().ok().filter(|keep| *keep > 0)?;
        parts.drain(..parts.len().saturating_sub(keep));
    }
    Some(parts.join("."))
}

/// The mechanisms of a record and its redirect.
fn parse(record: &str) -> Result<(Vec<Mechanism>, Option<String>), String> {
    let (mut mechanisms, mut redirect) = (Vec::new(), None);
    for term in record.split(' ').skip(1).filter(|term| !term.is_empty()) {
        // §6: a modifier has `=` before any `:` or `/`; unknown ones are ignored.
        if let Some(at) = term.find(['=', ':', '/'])
            && term.as_bytes()[at] == b'='
        {
            let (name, value) = (&term[..at], &term[at + 1..]);
            if name.eq_ignore_ascii_case("redirect") && redirect.replace(value.to_owned()).is_some() {
                return Err("redirect= stands twice".into());
            }
            continue;
        }
        mechanisms.push(mechanism(term).ok_or_else(|| format!("{term:?} is no valid term"))?);
    }
    // §5.1: what stands behind `all` is never reached, and redirect is ignored then.
    if mechanisms.iter().any(|mechanism| mechanism.name == "all") {
        redirect = None;
    }
    Ok((mechanisms, redirect))
}

fn mechanism(term: &str) -> Option<Mechanism> {
    let qualifier = term.chars().next().filter(|c| "+-~?".contains(*c));
    let rest = &term[qualifier.map_or(0, char::len_utf8)..];
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let name = rest[..end].to_ascii_lowercase();
    let (mut cidr4, mut cidr6) = (32, 128);
    let prefix = |text: &str, max: u8| text.parse::<u8>().ok().filter(|length| *length <= max);
    let value = match name.as_str() {
        "ip4" => {
            let (address, length) = split_length(rest[end..].strip_prefix(':')?);
            address.parse::<std::net::Ipv4Addr>().ok()?;
            cidr4 = length.map_or(Some(32), |length| prefix(length, 32))?;
            Some(address)
        }
        "ip6" => {
            let (address, length) = split_length(rest[end..].strip_prefix(':')?);
            address.parse::<std::net::Ipv6Addr>().ok()?;
            cidr6 = length.map_or(Some(128), |length| prefix(length, 128))?;
            Some(address)
        }
        "a" | "mx" => {
            let (mut value, six) = match rest[end..].split_once("//") {
                Some((value, six)) => (value, Some(six)),
                None => (&rest[end..], None),
            };
            cidr6 = six.map_or(Some(128), |length| prefix(length, 128))?;
            // A macro may hold a slash as a delimiter: the length is what stands behind the last one, outside of braces.
            if let Some((head, length)) = value.rsplit_once('/').filter(|(_, length)| !length.contains('}')) {
                cidr4 = prefix(length, 32)?;
                value = head;
            }
            match value.strip_prefix(':') {
                Some("") => return None,
                Some(domain) => Some(domain),
                None if value.is_empty() => None,
                None => return None,
            }
        }
        "include" | "exists" => Some(rest[end..].strip_prefix(':').filter(|domain| !domain.is_empty())?),
        "ptr" => match rest[end..].strip_prefix(':') {
            Some("") => return None,
            domain => domain,
        },
        "all" if end == rest.len() => None,
        _ => return None,
    };
    Some(Mechanism { qualifier: qualifier.unwrap_or('+'), name, value: value.map(str::to_owned), cidr4, cidr6 })
}

fn split_length(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)))
}

/// Whether a record lets everybody send: `all` with `+` or without a qualifier.
pub(super) fn allows_everybody(record: &str) -> bool {
    record.split(' ').any(|term| term.eq_ignore_ascii_case("all") || term.eq_ignore_ascii_case("+all"))
}

/// The record to publish: the one that there is with the missing addresses at its front, or a new one.
pub(super) fn record_with(record: Option<&str>, missing: &[IpAddr]) -> String {
    let terms = missing.iter().map(|ip| match ip.to_canonical() {
        IpAddr::V4(v4) => format!(" ip4:{v4}"),
        IpAddr::V6(v6) => format!(" ip6:{v6}"),
    });
    let terms: String = terms.collect();
    match record {
        // The front: they match before an `all` or an include that fails, and cost no look-up.
        Some(record) => format!("v=spf1{terms}{}", &record["v=spf1".len()..]),
        None => format!("v=spf1{terms} -all"),
    }
}

#[cfg(test)]
mod tests;
