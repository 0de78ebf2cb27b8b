//! SPF, DKIM and DMARC of a campaign's mail.

use std::net::IpAddr;

use super::Preflight;
use super::dmarc::{is_aligned, walk};
use super::dns::{Ask, AskDns, KeyTrouble, OneText, Said, check_key, one_text};
use super::report::{Finding, error, info, unknown, warning};
use super::spf::{SpfResult, allows_everybody, check_host, record_with};
use crate::dkim::dns_record;
use crate::types::{Class, Domain};

/// A source with an address that the world sees.
pub(super) struct Public<'a> {
    pub name: &'a str,
    pub ehlo: &'a str,
    pub address: IpAddr,
}

/// SPF of the return path's domain, for each source.
pub(super) async fn spf(check: &Preflight<'_>, sources: &[Public<'_>], dns: &impl AskDns) -> Vec<Finding> {
    let domain = check.return_path();
    let addresses: Vec<IpAddr> = sources.iter().map(|source| source.address).collect();
    let paste = |record: Option<&str>, missing: &[IpAddr]| {
        format!("Publish this record:\n{domain}. IN TXT \"{}\"", record_with(record, missing))
    };
    let record = match one_text(dns, domain.as_str(), "v=spf1").await {
        OneText::One(record) => record,
        OneText::Unknown(why) => return vec![unknown(&format!("SPF of {domain}"), &why)],
        OneText::Several(n) => {
            let title = format!("{domain} has {n} SPF records: none counts");
            return vec![error("spf-invalid", title, "Join them into one TXT record that begins with v=spf1.")];
        }
        OneText::Missing => {
            let title = format!("{domain}, the domain of the return path, has no SPF record");
            return vec![error("spf-missing", title, paste(None, &addresses))];
        }
    };
    let mut found = Vec::new();
    let (mut missing, mut details, mut invalid, mut untold) = (Vec::new(), Vec::new(), None, None);
    let sender = format!("bounce@{domain}");
    for source in sources {
        match check_host(dns, source.address, domain.as_str(), &sender, source.ehlo).await {
            SpfResult::Pass => {}
            SpfResult::PermError(why) => invalid = Some(why),
            SpfResult::TempError(why) => untold = Some(why),
            result => {
                missing.push(source.address);
                details.push(format!("{} ({}): {}", source.name, source.address, result.as_str()));
            }
        }
    }
    if let Some(why) = invalid {
        let fix = format!("Mend the TXT record of {domain}; ip4: and ip6: terms cost no look-up.");
        found.push(error("spf-invalid", format!("the SPF record of {domain} can't be used: {why}"), fix));
    }
    if let Some(why) = untold {
        found.push(unknown(&format!("SPF of {domain}"), &why));
    }
    if !missing.is_empty() {
        let title = format!(
            "the SPF record of {domain} does not cover {} of {} sources of pool {}",
            missing.len(),
            sources.len(),
            check.pool
        );
        found.push(error("spf-missing-source", title, paste(Some(&record), &missing)).details(details));
    }
    if allows_everybody(&record) {
        let fix = paste(Some(&record.replace("+all", "-all").replace(" all", " -all")), &[]);
        found.push(warning("spf-allows-everybody", format!("the SPF record of {domain} ends in +all"), fix));
    }
    found
}

/// The keys that sign, their records, and DMARC with the alignment of both.
pub(super) async fn dkim_and_dmarc(check: &Preflight<'_>, dns: &impl AskDns) -> Vec<Finding> {
    let (from, return_path) = (check.from.domain(), check.return_path());
    let keys = check.ring.for_message(Some(from), Some(&return_path), check.now);
    let mut found = unusable_keys(check);
    for key in &keys {
        let Ok(private) = &key.private else { continue };
        let Ok(public) = private.public_base64() else { continue };
        let record = dns_record(&key.selector, &key.domain, key.algorithm, &public);
        let paste = format!("Publish this record:\n{}", record.zone_line);
        let wrong = |why: &str| Some(error("dkim-record-wrong", format!("{}: {why}", record.name), paste.clone()));
        found.extend(match check_key(dns, &record.name, Some(&public)).await {
            Ok(()) => None,
            Err(KeyTrouble::Unknown(why)) => Some(unknown(&record.name, &why)),
            Err(KeyTrouble::Missing) => {
                Some(error("dkim-record-missing", format!("there is no DKIM record at {}", record.name), paste))
            }
            Err(KeyTrouble::Revoked) => wrong("the key is revoked (p= is empty)"),
            Err(KeyTrouble::OtherKey) => wrong("the record is of another key than the one that signs"),
            Err(KeyTrouble::Several(n)) => wrong(&format!("{n} TXT records: which one counts is undefined")),
        });
    }
    let walked = walk(dns, from).await;
    let example = format!("_dmarc.{}. IN TXT \"v=DMARC1; p=none; rua=mailto:postmaster@{from}\"", walked.organisation);
    let fix = format!("Publish this record, and move on to p=quarantine and p=reject:\n{example}");
    match (&walked.record, &walked.broken, &walked.unknown) {
        (Some(record), ..) if record.policy == "none" => {
            found.push(info("dmarc-none", format!("_dmarc.{} says p=none", record.at), "Move on to p=quarantine."));
        }
        (Some(_), ..) => {}
        (None, _, Some(why)) => found.push(unknown(&format!("DMARC of {from}"), why)),
        (None, Some(why), None) => found.push(error("dmarc-invalid", why.clone(), fix)),
        (None, None, None) => {
            let title = format!("{from} has no DMARC record");
            found.push(match check.class {
                Class::Marketing => error("dmarc-missing", title, fix),
                Class::Transactional => warning("dmarc-missing", title, fix),
            });
        }
    }
    let strict = |pick: fn(&super::dmarc::Record) -> bool| walked.record.as_ref().is_some_and(pick);
    let mut signs_for_from = false;
    for key in &keys {
        signs_for_from |= is_aligned(dns, from, &walked, &key.domain, strict(|record| record.strict_dkim)).await;
    }
    let spf_aligned = is_aligned(dns, from, &walked, &return_path, strict(|record| record.strict_spf)).await;
    // A walk that the DNS cut short finds no organisation: what it says of alignment may be wrong.
    let fault = if walked.unknown.is_some() { warning } else { error };
    let signers: Vec<_> = keys.iter().map(|key| format!("DKIM d={}", key.domain)).collect();
    if !signs_for_from && !spf_aligned {
        let title = format!("neither DKIM nor the return path ({return_path}) is aligned with From ({from})");
        let fix = format!("Add a [[dkim]] key with domain = \"{}\".", walked.organisation);
        found.push(fault("dmarc-not-aligned", title, fix).details(signers));
    } else if !signs_for_from && !keys.is_empty() {
        let title = format!("no DKIM key is aligned with From ({from})");
        let fix = format!("Add a [[dkim]] key with domain = \"{}\".", walked.organisation);
        found.push(warning("dkim-not-aligned", title, fix).details(signers));
    } else if !spf_aligned {
        let title = format!("the return path ({return_path}) is not aligned with From ({from})");
        let fix = format!("Make bounce_domain a subdomain of {}.", walked.organisation);
        found.push(info("return-path-not-aligned", title, fix));
    }
    found
}

/// Keys that are not there, or can't be read. No DNS is needed for this.
fn unusable_keys(check: &Preflight<'_>) -> Vec<Finding> {
    let from = check.from.domain();
    let keys = check.ring.for_message(Some(from), Some(&check.return_path()), check.now);
    if keys.is_empty() {
        let fix = format!("`posthaste dkim new {from}` makes a key and prints its [[dkim]] section and DNS record.");
        return vec![error("dkim-missing", format!("no DKIM key signs mail from {from}"), fix)];
    }
    let unreadable = keys.iter().filter_map(|key| {
        let why = key.private.as_ref().err()?;
        let title = format!("the DKIM key {} of {} can't be used: {why}", key.selector, key.domain);
        Some(error(
            "dkim-key-unreadable",
            title,
            "Put the key file where [[dkim]] says, readable for the daemon alone.",
        ))
    });
    unreadable.collect()
}

/// What is said of keys where the DNS is not asked: a route has no use for a record, but a missing file stops mail all the same.
pub(super) fn keys_alone(check: &Preflight<'_>) -> Vec<Finding> {
    unusable_keys(check).into_iter().filter(|finding| finding.code == "dkim-key-unreadable").collect()
}

/// Whether a domain can be answered: an MX, or an address in its place (RFC 5321 §5.1); never a null MX (RFC 7505).
pub(super) async fn from_domain(from: &Domain, dns: &impl AskDns) -> Option<Finding> {
    let fix = format!("Publish an MX record for a host that takes mail for {from}.");
    match dns.ask(Ask::Hosts(from.to_string())).await {
        Said::Texts(hosts) if hosts.iter().any(|host| !host.is_empty()) => None,
        Said::Texts(_) => {
            let title = format!("{from} says by a null MX that it takes no mail");
            Some(error("from-domain-no-mail", title, fix))
        }
        Said::Unknown(why) => Some(unknown(&format!("MX of {from}"), &why)),
        _ => match dns.ask(Ask::Addresses(from.to_string())).await {
            Said::Addresses(_) => None,
            Said::Unknown(why) => Some(unknown(&format!("addresses of {from}"), &why)),
            _ => Some(error("from-domain-no-mail", format!("{from} has neither MX nor address"), fix)),
        },
    }
}
