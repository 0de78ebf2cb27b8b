//! Sums over reports, for each sending domain: who passes, who fails, from where.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Stored;
use crate::feedback::auth::{AuthResult, DmarcReport, DmarcRow, TlsFailure, TlsReport};
use crate::types::Name;

/// The most addresses that are followed of a domain; further ones are in its sums only.
const SOURCES_MAX: usize = 20_000;
/// The most domains.
const DOMAINS_MAX: usize = 5_000;
/// The most reporters that are named of a domain.
const ORGS_MAX: usize = 1_000;
/// The most failures of TLS that are told apart of a domain.
const FAILURES_MAX: usize = 1_000;

/// What receivers saw of a domain's mail.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DmarcDomain {
    /// The domain.
    pub domain: String,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<Name>,
    /// Reports.
    pub reports: u64,
    /// Messages in them.
    pub messages: u64,
    /// Those that pass DMARC: aligned DKIM or SPF.
    pub pass: u64,
    /// Those that do not.
    pub fail: u64,
    /// Those with aligned DKIM.
    pub dkim: u64,
    /// Those with aligned SPF.
    pub spf: u64,
    /// Those that were put aside.
    pub quarantined: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// The policy, as it was seen last.
    pub policy: String,
    /// Who reports, the most messages first.
    pub orgs: Vec<OrgSum>,
    /// From where, those that fail first.
    pub sources: Vec<DmarcSource>,
}

/// What one receiver saw.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct OrgSum {
    /// Who.
    pub org: String,
    /// Messages, or sessions.
    pub messages: u64,
    /// Those that failed.
    pub fail: u64,
}

/// What came from one address.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DmarcSource {
    /// The address; none for what reports sum up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_ip: Option<IpAddr>,
    /// The source of ours with this address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Name>,
    /// Messages.
    pub messages: u64,
    /// Those that pass DMARC.
    pub pass: u64,
    /// Those that do not.
    pub fail: u64,
    /// Those with aligned DKIM.
    pub dkim: u64,
    /// Those with aligned SPF.
    pub spf: u64,
    /// A domain of From.
    pub header_from: String,
    /// What the checks found, of a row that fails where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub auth: Vec<AuthResult>,
    /// Why the policy was not followed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

#[derive(Default)]
struct DmarcOpen {
    sums: DmarcDomain,
    seen: u64,
    orgs: BTreeMap<String, (u64, u64)>,
    sources: BTreeMap<Option<IpAddr>, DmarcSource>,
}

/// Adds DMARC reports up.
#[derive(Default)]
pub struct DmarcSums(BTreeMap<String, DmarcOpen>);

impl DmarcSums {
    /// Adds a report.
    pub fn add(&mut self, report: &DmarcReport, tenant: Option<&Name>) {
        if !self.0.contains_key(&report.domain) && self.0.len() >= DOMAINS_MAX {
            return;
        }
        let open = self.0.entry(report.domain.clone()).or_default();
        open.sums.reports += 1;
        open.sums.tenant = tenant.cloned().or(open.sums.tenant.take());
        if report.end >= open.seen {
            open.seen = report.end;
            open.sums.policy.clone_from(&report.policy.p);
        }
        for row in &report.rows {
            let fail = if row.dkim || row.spf { 0 } else { row.count };
            open.count(row, fail);
            if open.orgs.len() < ORGS_MAX || open.orgs.contains_key(&report.org) {
                let org = open.orgs.entry(report.org.clone()).or_default();
                *org = (org.0.saturating_add(row.count), org.1.saturating_add(fail));
            }
        }
    }

    /// Adds a stored report.
    pub fn add_stored(&mut self, stored: &Stored<DmarcReport>) {
        self.add(&stored.report, Some(&stored.tenant));
    }

    /// The sums, the domain with the most messages first; of each at most `limit` addresses. `ours` names the source of an address.
    pub fn finish(self, limit: usize, ours: impl Fn(IpAddr) -> Option<Name>) -> Vec<DmarcDomain> {
        let mut domains: Vec<DmarcDomain> = self
            .0
            .into_iter()
            .map(|(domain, open)| {
                let mut sources: Vec<DmarcSource> = open.sources.into_values().collect();
                sources.sort_by_key(|source| std::cmp::Reverse((source.fail, source.messages)));
                sources.truncate(limit);
                sources.iter_mut().for_each(|source| source.source = source.source_ip.and_then(&ours));
                DmarcDomain { domain, orgs: by_messages(open.orgs), sources, ..open.sums }
            })
            .collect();
        domains.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.domain.cmp(&b.domain)));
        domains
    }
}

impl DmarcOpen {
    fn count(&mut self, row: &DmarcRow, fail: u64) {
        let add = |to: &mut u64, part: u64| *to = to.saturating_add(part);
        let (dkim, spf) = (if row.dkim { row.count } else { 0 }, if row.spf { row.count } else { 0 });
        let sums = &mut self.sums;
        add(&mut sums.messages, row.count);
        add(&mut sums.pass, row.count - fail);
        add(&mut sums.fail, fail);
        add(&mut sums.dkim, dkim);
        add(&mut sums.spf, spf);
        match row.disposition.as_str() {
            "quarantine" => add(&mut sums.quarantined, row.count),
            "reject" => add(&mut sums.rejected, row.count),
            _ => {}
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&row.source_ip) {
            return;
        }
        let source = self.sources.entry(row.source_ip).or_default();
        // What fails says more than what passes.
        if source.messages == 0 || (fail > 0 && source.fail == 0) {
            source.header_from.clone_from(&row.header_from);
            source.auth.clone_from(&row.auth);
            source.reason.clone_from(&row.reason);
        }
        source.source_ip = row.source_ip;
        add(&mut source.messages, row.count);
        add(&mut source.pass, row.count - fail);
        add(&mut source.fail, fail);
        add(&mut source.dkim, dkim);
        add(&mut source.spf, spf);
    }
}

fn by_messages(orgs: BTreeMap<String, (u64, u64)>) -> Vec<OrgSum> {
    let mut orgs: Vec<OrgSum> =
        orgs.into_iter().map(|(org, (messages, fail))| OrgSum { org, messages, fail }).collect();
    orgs.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.org.cmp(&b.org)));
    orgs
}

/// What senders met when they wanted TLS towards a domain of ours.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TlsDomain {
    /// The domain.
    pub domain: String,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<Name>,
    /// Reports.
    pub reports: u64,
    /// Sessions that went well.
    pub success: u64,
    /// Sessions that did not.
    pub failure: u64,
    /// Kinds of policies that were found: `sts`, `tlsa`, `no-policy-found`.
    pub policies: Vec<String>,
    /// Who reports, the most sessions first.
    pub orgs: Vec<OrgSum>,
    /// Why sessions failed, the most first.
    pub failures: Vec<TlsFailure>,
}

/// What makes failures the same: result, host and address.
type FailureKey = (String, Option<String>, Option<String>);

#[derive(Default)]
struct TlsOpen {
    sums: TlsDomain,
    orgs: BTreeMap<String, (u64, u64)>,
    failures: BTreeMap<FailureKey, TlsFailure>,
}

/// Adds TLS reports up.
#[derive(Default)]
pub struct TlsSums(BTreeMap<String, TlsOpen>);

impl TlsSums {
    /// Adds a report.
    pub fn add(&mut self, report: &TlsReport, tenant: Option<&Name>) {
        for policy in &report.policies {
            if !self.0.contains_key(&policy.domain) && self.0.len() >= DOMAINS_MAX {
                continue;
            }
            let open = self.0.entry(policy.domain.clone()).or_default();
            open.sums.reports += 1;
            open.sums.tenant = tenant.cloned().or(open.sums.tenant.take());
            open.sums.success = open.sums.success.saturating_add(policy.success);
            open.sums.failure = open.sums.failure.saturating_add(policy.failure);
            if !open.sums.policies.contains(&policy.kind) && open.sums.policies.len() < FAILURES_MAX {
                open.sums.policies.push(policy.kind.clone());
            }
            if open.orgs.len() < ORGS_MAX || open.orgs.contains_key(&report.org) {
                let org = open.orgs.entry(report.org.clone()).or_default();
                let sessions = policy.success.saturating_add(policy.failure);
                *org = (org.0.saturating_add(sessions), org.1.saturating_add(policy.failure));
            }
            for failure in &policy.failures {
                let key = (failure.result.clone(), failure.receiving_mx.clone(), failure.receiving_ip.clone());
                if open.failures.len() >= FAILURES_MAX && !open.failures.contains_key(&key) {
                    continue;
                }
                let sum = open.failures.entry(key).or_insert_with(|| TlsFailure { count: 0, ..failure.clone() });
                sum.count = sum.count.saturating_add(failure.count);
            }
        }
    }

    /// Adds a stored report.
    pub fn add_stored(&mut self, stored: &Stored<TlsReport>) {
        self.add(&stored.report, Some(&stored.tenant));
    }

    /// The sums, the domain with the most failures first; of each at most `limit` failures.
    pub fn finish(self, limit: usize) -> Vec<TlsDomain> {
        let mut domains: Vec<TlsDomain> = self
            .0
            .into_iter()
            .map(|(domain, open)| {
                let mut failures: Vec<TlsFailure> = open.failures.into_values().collect();
                failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
                failures.truncate(limit);
                TlsDomain { domain, orgs: by_messages(open.orgs), failures, ..open.sums }
            })
            .collect();
        domains.sort_by(|a, b| (b.failure, b.success, &a.domain).cmp(&(a.failure, a.success, &b.domain)));
        domains
    }
}
