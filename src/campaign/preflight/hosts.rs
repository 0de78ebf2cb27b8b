//! Our hosts as the world sees them: names of sources, and where the return path leads.

use std::net::IpAddr;

use super::Preflight;
use super::authentication::Public;
use super::dns::{Ask, AskDns, NameTrouble, Said, check_names, same_name};
use super::report::{Finding, error, unknown, warning};

/// PTR and EHLO name of a source, forward and back.
pub(super) async fn names(source: &Public<'_>, dns: &impl AskDns) -> Vec<Finding> {
    let Public { name, ehlo, address } = source;
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    let ptr = format!("Ask the owner of {address} for a PTR record to {ehlo}.");
    let troubles = check_names(dns, ehlo, *address).await;
    let finding = |trouble| match trouble {
        NameTrouble::NotForward => {
            let title = format!("{ehlo}, the EHLO name of source {name}, does not resolve to {address}");
            error("ehlo-not-forward", title, format!("Publish this record:\n{ehlo}. IN {kind} {address}"))
        }
        NameTrouble::NoName => error("ptr-missing", format!("{address} (source {name}) has no name"), ptr.clone()),
        NameTrouble::OtherName(names, false) => {
            let title = format!("{address} (source {name}) is called {}, which is not its name", names.join(", "));
            error("ptr-not-confirmed", title, ptr.clone())
        }
        NameTrouble::OtherName(names, true) => {
            let title = format!("{address} (source {name}) is called {}, and says EHLO {ehlo}", names.join(", "));
            warning("ptr-not-ehlo", title, ptr.clone())
        }
        NameTrouble::Unknown(what, why) => unknown(&what, &why),
    };
    troubles.into_iter().map(finding).collect()
}

/// Whether late bounces come back to this node.
pub(super) async fn return_path(check: &Preflight<'_>, dns: &impl AskDns) -> Option<Finding> {
    let config = check.config;
    let Some(domain) = &check.tenant.bounce_domain else {
        let fix = format!(
            "Give tenant {} a bounce_domain, as \"bounce.{}\", and publish:\nbounce.{1}. IN MX 10 {}.",
            check.tenant.name,
            check.from.domain(),
            config.hostname
        );
        let title = format!("tenant {} has no bounce domain: late bounces go to the sender", check.tenant.name);
        return Some(warning("bounce-domain-missing", title, fix));
    };
    let fix = format!("Publish this record:\n{domain}. IN MX 10 {}.", config.hostname);
    let hosts = match dns.ask(Ask::Hosts(domain.to_string())).await {
        Said::Texts(hosts) => hosts,
        Said::Unknown(why) => return Some(unknown(&format!("MX of {domain}"), &why)),
        _ => Vec::new(),
    };
    if hosts.iter().all(String::is_empty) {
        return Some(error("bounce-mx-missing", format!("{domain}, where bounces go, has no MX record"), fix));
    }
    let ours = |host: &String| {
        let ehlo = config.sources.iter().filter_map(|source| source.ehlo.as_deref());
        ehlo.chain([config.hostname.as_str()]).any(|name| same_name(name, host))
    };
    if hosts.iter().any(ours) {
        return None;
    }
    let mut known: Vec<IpAddr> = config.sources.iter().filter_map(|source| source.address).collect();
    known.extend(config.smtp.listeners.iter().map(|listener| listener.address.ip()));
    if let Said::Addresses(addresses) = dns.ask(Ask::Addresses(config.hostname.clone())).await {
        known.extend(addresses);
    }
    for host in &hosts {
        match dns.ask(Ask::Addresses(host.clone())).await {
            Said::Addresses(addresses) if addresses.iter().any(|address| known.contains(address)) => return None,
            Said::Unknown(why) => return Some(unknown(host, &why)),
            _ => {}
        }
    }
    let title = format!("the MX of {domain} is {}, which is not this node", hosts.join(", "));
    Some(warning("bounce-mx-elsewhere", title, fix))
}
