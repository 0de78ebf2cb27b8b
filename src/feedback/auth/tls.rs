//! TLS reports (RFC 8460 §4.4): JSON, read leniently where senders differ.

use serde::{Deserialize, Deserializer};

use super::{RECORDS_MAX, ROWS_MAX, ReportError, TlsFailure, TlsPolicy, TlsReport, clean, domain};

#[derive(Deserialize)]
struct Report {
    #[serde(rename = "organization-name", default)]
    org: Option<String>,
    #[serde(rename = "contact-info", default)]
    contact: Option<String>,
    #[serde(rename = "report-id", default)]
    report_id: Option<String>,
    #[serde(rename = "date-range", default)]
    range: Option<Range>,
    #[serde(default)]
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
struct Range {
    #[serde(rename = "start-datetime")]
    start: String,
    #[serde(rename = "end-datetime")]
    end: String,
}

#[derive(Deserialize)]
struct Policy {
    policy: Described,
    #[serde(default)]
    summary: Summary,
    #[serde(rename = "failure-details", default)]
    failures: Option<Vec<Failure>>,
}

#[derive(Deserialize)]
struct Described {
    #[serde(rename = "policy-type", default)]
    kind: String,
    #[serde(rename = "policy-domain", default)]
    domain: String,
}

#[derive(Deserialize, Default)]
struct Summary {
    #[serde(rename = "total-successful-session-count", default, deserialize_with = "count")]
    success: u64,
    // Some write what an erratum of RFC 8460 corrected.
    #[serde(
        rename = "total-failure-session-count",
        alias = "total-failed-session-count",
        default,
        deserialize_with = "count"
    )]
    failure: u64,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "result-type", default)]
    result: String,
    #[serde(rename = "failed-session-count", default, deserialize_with = "count")]
    count: u64,
    #[serde(rename = "sending-mta-ip", default)]
    sending_ip: Option<String>,
    #[serde(rename = "receiving-mx-hostname", default)]
    receiving_mx: Option<String>,
    #[serde(rename = "receiving-ip", default)]
    receiving_ip: Option<String>,
    #[serde(rename = "additional-information", default)]
    information: Option<String>,
    #[serde(rename = "failure-reason-code", default)]
    code: Option<String>,
}

/// A number, which some write as a text, and some leave null.
fn count<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(u64),
        Text(String),
        None(()),
    }
    match Count::deserialize(d)? {
        Count::Number(n) => Ok(n),
        Count::Text(text) => text.trim().parse().map_err(serde::de::Error::custom),
        Count::None(()) => Ok(0),
    }
}

/// Reads a report.
pub(super) fn read(octets: &[u8]) -> Result<TlsReport, ReportError> {
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    let report: Report = serde_json::from_slice(octets).map_err(|e| ReportError::Json(clean(&e.to_string())))?;
    let text = |text: Option<String>, what| {
        text.map(|text| clean(&text)).filter(|text| !text.is_empty()).ok_or(ReportError::Missing(what))
    };
    let org = text(report.org, "organization-name")?;
    let report_id = text(report.report_id, "report-id")?;
    let range = report.range.ok_or(ReportError::Missing("date-range"))?;
    let details: usize = report.policies.iter().map(|p| 1 + p.failures.as_ref().map_or(0, Vec::len)).sum();
    if details > RECORDS_MAX {
        return Err(ReportError::TooLarge(format!("{RECORDS_MAX} policies and failures")));
    }
    let policies: Vec<TlsPolicy> = report.policies.into_iter().take(ROWS_MAX).map(policy).collect();
    if policies.is_empty() || policies.iter().all(|policy| policy.domain.is_empty()) {
        return Err(ReportError::Missing("the policy-domain"));
    }
    let contact = report.contact.map(|text| clean(&text));
    Ok(TlsReport { org, contact, report_id, begin: clean(&range.start), end: clean(&range.end), policies })
}

fn policy(policy: Policy) -> TlsPolicy {
    let some = |text: Option<String>| text.map(|text| clean(&text)).filter(|text| !text.is_empty());
    let mut failures: Vec<TlsFailure> = policy
        .failures
        .unwrap_or_default()
        .into_iter()
        .map(|failure| TlsFailure {
            result: clean(&failure.result).to_ascii_lowercase(),
            count: failure.count,
            sending_ip: some(failure.sending_ip),
            receiving_mx: some(failure.receiving_mx),
            receiving_ip: some(failure.receiving_ip),
            detail: some(failure.code).or_else(|| some(failure.information)),
        })
        .collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    failures.truncate(ROWS_MAX);
    TlsPolicy {
        kind: clean(&policy.policy.kind).to_ascii_lowercase(),
        domain: domain(&policy.policy.domain),
        success: policy.summary.success,
        failure: policy.summary.failure,
        failures,
    }
}
