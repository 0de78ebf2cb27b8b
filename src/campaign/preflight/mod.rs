//! The check before a start: will receivers take this mail, and is it what was meant?
//!
//! 1. What is judged comes in whole as a [`Preflight`]: configuration, keys, a few rendered samples, facts about the rows,
//! 2. the rows and each sample are judged without asking anybody (`rows`, `message`, `body`),
//! 3. at the same time the DNS is asked: SPF for every source of the pool (`spf`), DKIM and DMARC (`authentication`, `dmarc`), names of
//!    the sources and the way back of bounces (`hosts`), hosts of links; and a spam filter where one is configured (`spam`),
//! 4. all that was found makes a [`Report`], the worst first. Errors block the start unless it is forced.
//!
//! It ends within [`TIME_MAX`], whoever does not answer. What the DNS does not tell now is a warning, never an error. Where mail does not
//! go to the world's receivers (only loopback sources, or a route for `*`) the DNS is not asked, and that is told.

mod authentication;
mod body;
mod dmarc;
pub mod dns;
mod hosts;
mod message;
mod report;
mod rows;
mod spam;
pub mod spf;

use std::time::Duration;

pub use report::{CODES, Finding, Report};
pub use rows::RowFacts;
pub use spam::{Scorers, SpamError, SpamFilter, SpamScore};

use crate::campaign::job::OnMissing;
use crate::config::Config;
use crate::config::{Source, Tenant};
use crate::dkim::KeyRing;
use crate::types::{Class, Domain, Mailbox, Name, Timestamp};
use authentication::Public;
use dns::{AskDns, Timed, is_public, join_all};
use report::{info, warning};

/// How long all questions together may take; what is not answered by then can't be told.
pub const TIME_MAX: Duration = Duration::from_secs(10);

/// The most samples that are judged; further ones are passed over.
pub const SAMPLES_MAX: usize = 8;

/// A message as it would be sent.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Whose it is, for the details of a finding: `row 17`, an address.
    pub of: &'a str,
    /// Its RFC 5322 octets, as signed: with its DKIM-Signature fields.
    pub raw: &'a [u8],
    /// The HTML part, decoded.
    pub html: Option<&'a str>,
    /// The text part, decoded.
    pub text: Option<&'a str>,
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Preflight<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Who sends.
    pub tenant: &'a Tenant,
    /// The keys.
    pub ring: &'a KeyRing,
    /// The class of the mail.
    pub class: Class,
    /// The pool that sends it.
    pub pool: &'a Name,
    /// The address of From.
    pub from: &'a Mailbox,
    /// A few rendered samples, the worst rows among them. With none, messages are not judged.
    pub samples: &'a [Sample<'a>],
    /// What is known of the rows.
    pub rows: &'a RowFacts,
    /// What becomes of a row that lacks a variable.
    pub on_missing: OnMissing,
    /// The most octets of a message, signed.
    pub size_max: u64,
    /// When the campaign would start, or now: for keys that become active, and for Date.
    pub now: Timestamp,
}

impl Preflight<'_> {
    /// Judges everything, within [`TIME_MAX`].
    pub async fn run(&self, dns: &impl AskDns, filter: &impl SpamFilter) -> Report {
        let dns = Timed::new(dns, TIME_MAX);
        let mut found = rows::check(self.rows, self.on_missing);
        for sample in self.samples.iter().take(SAMPLES_MAX) {
            for finding in message::check(self, sample).into_iter().chain(body::check(self, sample)) {
                // One finding a kind: the other samples mostly say the same.
                match found.iter_mut().find(|known| known.code == finding.code && known.title == finding.title) {
                    Some(known) => {
                        for detail in finding.details {
                            if known.details.len() < SAMPLES_MAX && !known.details.contains(&detail) {
                                known.details.push(detail);
                            }
                        }
                    }
                    None => found.push(finding),
                }
            }
        }
        let raw = self.samples.first().map(|sample| sample.raw);
        let spam = spam::check(filter, raw, self.config.check.spam_threshold);
        match self.not_to_the_world() {
            Some(why) => {
                let title = format!("delivery goes {why}: DNS not checked");
                found.push(info("dns-not-checked", title, ""));
                found.extend(authentication::keys_alone(self));
                found.extend(spam.await);
            }
            None => {
                let (mut world, spam) = tokio::join!(self.world(&dns), spam);
                if dns.is_deaf() {
                    world.retain(|finding| finding.code != "dns-unknown");
                    let fix = "Is [dns] resolvers right, and does one run there?";
                    world.push(warning("dns-unknown", "the DNS can't be told now: no question was answered", fix));
                }
                found.extend(world);
                found.extend(spam);
            }
        }
        Report::new(found)
    }

    /// Everything that the DNS tells.
    async fn world<D: AskDns>(&self, dns: &Timed<'_, D>) -> Vec<Finding> {
        let (sources, mut found) = self.public_sources();
        let authentication = async {
            let spf =
                async { if sources.is_empty() { Vec::new() } else { authentication::spf(self, &sources, dns).await } };
            let (mut spf, dkim) = tokio::join!(spf, authentication::dkim_and_dmarc(self, dns));
            spf.extend(dkim);
            spf
        };
        let names = join_all(sources.iter().map(|source| hosts::names(source, dns)));
        let (authentication, names, back, from, links) = tokio::join!(
            authentication,
            names,
            hosts::return_path(self, dns),
            authentication::from_domain(self.from.domain(), dns),
            body::link_hosts(self.samples, dns),
        );
        found.extend(authentication);
        found.extend(names.into_iter().flatten());
        found.extend(back);
        found.extend(from);
        found.extend(links);
        found
    }

    /// The domain of the return path: bounces come back there, and SPF is asked for it.
    fn return_path(&self) -> Domain {
        self.tenant.bounce_domain.clone().unwrap_or_else(|| self.from.domain().clone())
    }

    /// The sources of the pool that take part.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let pool = self.config.pools.iter().find(|pool| pool.name == *self.pool);
        let names = pool.into_iter().flat_map(|pool| &pool.sources).filter(|source| source.weight > 0);
        names.filter_map(|entry| self.config.sources.iter().find(|source| source.name == entry.name))
    }

    /// Why the world's receivers do not see this mail: all of it goes by a route, or no source leaves this host.
    fn not_to_the_world(&self) -> Option<String> {
        if let Some(route) = self.config.routes.get("*") {
            return Some(format!("by route \"*\" ({})", route.hosts.join(", ")));
        }
        let mut sources = self.sources().peekable();
        sources.peek()?;
        let loopback = sources.all(|source| source.address.is_some_and(|address| address.is_loopback()));
        loopback.then(|| format!("from loopback addresses alone (pool {})", self.pool))
    }

    /// The sources whose address the world sees as it is configured, and a finding for those where it does not.
    fn public_sources(&self) -> (Vec<Public<'_>>, Vec<Finding>) {
        let (mut public, mut hidden) = (Vec::new(), Vec::new());
        for source in self.sources() {
            let ehlo = source.ehlo.as_deref().unwrap_or(&self.config.hostname);
            match source.address {
                Some(address) if is_public(&address) => {
                    public.push(Public { name: source.name.as_str(), ehlo, address });
                }
                Some(address) => hidden.push(format!("{} ({address})", source.name)),
                None => hidden.push(format!("{} (no address)", source.name)),
            }
        }
        let mut found = Vec::new();
        if !hidden.is_empty() {
            let title = format!("{} sources of pool {} have no public address in the config", hidden.len(), self.pool);
            let fix = "Give each [[sources]] its public address; behind a translator, check its outer address by hand.";
            found.push(warning("source-not-public", title, fix).details(hidden));
        }
        (public, found)
    }
}

#[cfg(test)]
mod tests;
