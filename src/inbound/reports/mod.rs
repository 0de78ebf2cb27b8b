//! Reports on authentication that were mailed to us: kept by day of arrival, summed up by domain.
//!
//! 1. [`Stored`] is a report with its tenant; its key begins with the day on which it came, not with one that a stranger wrote into it, so that what is
//!    old is found at the front;
//! 2. a report is kept once, by who reports, its number and its domain, however often it comes;
//! 3. whoever shows them reads day by day ([`day_prefix`], [`Stored::decode`]) into a summary ([`DmarcSums`], [`TlsSums`]);
//! 4. [`sweep`] removes what is older than the retention.

mod sums;
#[cfg(test)]
mod tests;

pub use sums::{DmarcDomain, DmarcSource, DmarcSums, OrgSum, TlsDomain, TlsSums};

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::feedback::auth::{DmarcReport, TlsReport};
use crate::store::{Change, Ledger, Reader};
use crate::types::{Domain, Name, Timestamp};

/// The prefix of all of them in `state`.
const PREFIX: &str = "authreport/";
/// The format that is written.
const VERSION: u8 = 1;
/// Records that a sweep looks at in one step.
const SWEEP_STEP: usize = 500;
/// The most reports of a day that are read for a summary; as many are taken.
pub const DAY_REPORTS_MAX: usize = 5_000;
/// The most octets of reports that are kept of a day; beyond it they are refused for now.
pub const DAY_BYTES_MAX: u64 = 32 << 20;

/// Which kind of report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportKind {
    /// DMARC aggregates.
    Dmarc,
    /// TLS reports.
    Tls,
}

impl ReportKind {
    /// As it stands in keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReportKind::Dmarc => "dmarc",
            ReportKind::Tls => "tls",
        }
    }
}

/// A report as it is kept. Format 1.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stored<R> {
    /// The format.
    pub v: u8,
    /// Whose domain it is about.
    pub tenant: Name,
    /// When it came.
    pub received: Timestamp,
    /// The report.
    pub report: R,
}

impl<R: DeserializeOwned> Stored<R> {
    /// A record of `state`; `None` when it can't be read.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(value).ok().filter(|stored| stored.v == VERSION)
    }
}

/// Where the reports of a day begin.
pub fn day_prefix(kind: ReportKind, day: u32) -> String {
    format!("{PREFIX}{}/{day:08}/", kind.as_str())
}

/// Whose domain it is: the tenant with the longest domain that covers it; `None` when it is nobody's.
pub(super) fn owner_of(config: &Config, domain: &str) -> Option<Name> {
    let domain = Domain::parse(domain).ok()?;
    let covers = |own: &Domain| domain.is_within(own).then(|| own.as_str().len());
    let mut best: Option<(usize, &Name)> = None;
    for tenant in &config.tenants {
        let own = tenant.domains.iter().filter_map(|own| Domain::parse(own).ok());
        for length in own.chain(tenant.bounce_domain.clone()).filter_map(|own| covers(&own)) {
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, &tenant.name));
            }
        }
    }
    let any = || config.tenants.iter().find(|t| t.domains.iter().any(|d| d == "*")).map(|t| &t.name);
    best.map(|(_, name)| name).or_else(any).cloned()
}

/// What names a report: who reports and its number, and the domain, since some give all reports of a day one number.
pub(super) fn identity(kind: ReportKind, org: &str, report_id: &str, domain: &str) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in [org.to_ascii_lowercase().as_bytes(), report_id.as_bytes(), domain.as_bytes()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let hex: String = digest[..16].iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{PREFIX}{}/{hex}", kind.as_str()).into_bytes()
}

/// A report as changes of the store: kept unless it is there. Answers its key of [`Change::Once`], its size and the change.
pub(super) fn kept<R: Serialize>(
    kind: ReportKind,
    identity: Vec<u8>,
    tenant: Name,
    report: R,
    remember: Duration,
    now: Timestamp,
) -> Result<(u64, Change), String> {
    let name = identity.rsplit(|octet| *octet == b'/').next().unwrap_or_default();
    let key = [day_prefix(kind, now.day()).as_bytes(), name].concat();
    let stored = Stored { v: VERSION, tenant, received: now, report };
    let value = serde_json::to_vec(&stored).map_err(|e| e.to_string())?;
    let size = value.len() as u64;
    Ok((size, Change::Once { key: identity, remember, changes: vec![Change::PutState { key, value }] }))
}

/// About which domain a TLS report is, for its identity and owner: that of its first policy.
pub(super) fn tls_domain(report: &TlsReport) -> &str {
    report.policies.iter().map(|policy| policy.domain.as_str()).find(|domain| !domain.is_empty()).unwrap_or_default()
}

/// About which domain a DMARC report is.
pub(super) fn dmarc_domain(report: &DmarcReport) -> &str {
    &report.domain
}

/// Removes reports that came more than `retention` ago; answers how many.
///
/// # Errors
/// The store can't be read or written, in its own words; what was removed before stays removed.
pub async fn sweep(reader: &Reader, ledger: &Ledger, retention: Duration, now: Timestamp) -> Result<u64, String> {
    let days = u32::try_from(retention.as_secs() / 86_400).unwrap_or(u32::MAX);
    let first_kept = now.day().saturating_sub(days);
    let mut removed = 0;
    for kind in [ReportKind::Dmarc, ReportKind::Tls] {
        let end = day_prefix(kind, first_kept);
        loop {
            let prefix = format!("{PREFIX}{}/", kind.as_str());
            let records = reader.state(prefix, SWEEP_STEP).await.map_err(|e| e.to_string())?;
            let old = records.into_iter().map(|(key, _)| key).take_while(|key| key[..] < *end.as_bytes());
            let changes: Vec<Change> = old.map(|key| Change::RemoveState { key: key.to_vec() }).collect();
            if changes.is_empty() {
                break;
            }
            removed += changes.len() as u64;
            ledger.submit(changes).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(removed)
}
