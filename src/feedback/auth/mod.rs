//! Reports on authentication that receivers mail: DMARC aggregates (RFC 7489 appendix C, RFC 9990) and TLS reports (RFC 8460).
//!
//! 1. [`read_mail`] finds the parts of a mail that may be a report, [`read_file`] takes a file as it was saved: a mail, XML, JSON, gzip or zip;
//! 2. what is packed is unpacked up to a limit (`unpack`);
//! 3. XML is a DMARC aggregate (`dmarc`), JSON a TLS report (`tls`); what their octets say counts, not their names or types.
//!
//! All of it comes from strangers. Each bound is a constant here; what exceeds it is refused as a whole, with the reason, and not read in part:
//! half a report would be a wrong one.

mod dmarc;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod tls;
mod unpack;

use std::net::IpAddr;

use mail_parser::{MessageParser, MimeHeaders, PartType};
use serde::{Deserialize, Serialize};

/// The largest mail that is read, in octets. Large providers stay far below 1 MiB.
pub const MAIL_MAX: usize = 10 << 20;
/// The most octets that a packed report becomes.
pub const UNPACKED_MAX: usize = 20 << 20;
/// The most records of a DMARC report, and the most policies and failure details of a TLS report.
pub const RECORDS_MAX: usize = 50_000;
/// The most different rows that are kept of a report; the rest is summed up in one without an address.
pub const ROWS_MAX: usize = 1_000;
/// The longest text of a report that is kept, in characters.
const TEXT_MAX: usize = 256;
/// The most parts of a mail that are looked at.
const PARTS_MAX: usize = 50;
/// The most reports in one mail.
const REPORTS_MAX: usize = 5;

/// A report.
#[derive(Clone, PartialEq, Debug)]
pub enum AuthReport {
    /// What a receiver saw of a domain's mail.
    Dmarc(DmarcReport),
    /// What a sender met when it wanted TLS towards a domain.
    Tls(TlsReport),
}

/// A DMARC aggregate report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DmarcReport {
    /// Who reports.
    pub org: String,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub email: Option<String>,
    /// The number that it gave the report.
    pub report_id: String,
    /// About which domain, in lowercase.
    pub domain: String,
    /// From when on, in seconds since 1970.
    pub begin: u64,
    /// Until when.
    pub end: u64,
    /// The policy that it found.
    pub policy: DmarcPolicy,
    /// What it saw, the most mail first.
    pub rows: Vec<DmarcRow>,
    /// What went wrong on its side.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<String>,
}

/// The policy as the receiver found it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DmarcPolicy {
    /// `none`, `quarantine` or `reject`.
    pub p: String,
    /// The same for subdomains.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sp: Option<String>,
    /// The same for subdomains that do not exist (RFC 9989).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub np: Option<String>,
    /// `r` or `s`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adkim: Option<String>,
    /// `r` or `s`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aspf: Option<String>,
    /// Of how much mail; gone in RFC 9989.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pct: Option<String>,
    /// `y` where the policy is only tried (RFC 9989).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub testing: Option<String>,
}

/// What was seen of one address with one result.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DmarcRow {
    /// From where; none in the row that sums up what is beyond [`ROWS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_ip: Option<IpAddr>,
    /// Messages.
    pub count: u64,
    /// What was done: `none`, `pass`, `quarantine`, `reject`.
    pub disposition: String,
    /// Whether DKIM passed and is aligned.
    pub dkim: bool,
    /// Whether SPF passed and is aligned.
    pub spf: bool,
    /// The domain of From.
    pub header_from: String,
    /// What each check found, of the first message of the row.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub auth: Vec<AuthResult>,
    /// Why the policy was not followed: `forwarded`, `mailing_list`, `local_policy` …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AuthResult {
    /// `dkim` or `spf`.
    pub method: String,
    /// The domain that was checked.
    pub domain: String,
    /// The selector, of DKIM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selector: Option<String>,
    /// `pass`, `fail`, `none`, `temperror` …
    pub result: String,
}

/// A TLS report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TlsReport {
    /// Who reports.
    pub org: String,
    /// How to reach it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub contact: Option<String>,
    /// The number that it gave the report.
    pub report_id: String,
    /// From when on (RFC 3339, as it stands there).
    pub begin: String,
    /// Until when.
    pub end: String,
    /// What it met, for each policy.
    pub policies: Vec<TlsPolicy>,
}

/// What a sender met under one policy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TlsPolicy {
    /// `sts`, `tlsa` or `no-policy-found`.
    pub kind: String,
    /// The domain that mail was sent to, in lowercase.
    pub domain: String,
    /// Sessions that went well.
    pub success: u64,
    /// Sessions that did not.
    pub failure: u64,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub failures: Vec<TlsFailure>,
}

/// Sessions that failed for one reason.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TlsFailure {
    /// `starttls-not-supported`, `certificate-expired`, `validation-failure` …
    pub result: String,
    /// Sessions.
    pub count: u64,
    /// The sender's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sending_ip: Option<String>,
    /// The host that it came to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receiving_mx: Option<String>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receiving_ip: Option<String>,
    /// More, in its own words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// Why it could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReportError {
    /// The mail has nothing in it that could be a report.
    #[error("no part is a report")]
    NoReport,
    /// A limit was exceeded.
    #[error("too large: more than {0}")]
    TooLarge(String),
    /// gzip or zip that can't be unpacked.
    #[error("can't be unpacked: {0}")]
    Packed(String),
    /// It is no XML, or XML that no report needs: an entity, a document type.
    #[error("bad XML: {0}")]
    Xml(String),
    /// It is no JSON of RFC 8460.
    #[error("bad JSON: {0}")]
    Json(String),
    /// Something is missing without which it says nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// Reads the reports of a mail.
///
/// # Errors
/// There is none, or the first that can't be read: then the mail as a whole is not understood.
pub fn read_mail(mail: &[u8]) -> Result<Vec<AuthReport>, ReportError> {
    if mail.len() > MAIL_MAX {
        return Err(ReportError::TooLarge(format!("{MAIL_MAX} octets of mail")));
    }
    let message = MessageParser::default().parse(mail).ok_or(ReportError::NoReport)?;
    let mut reports = Vec::new();
    for part in message.parts.iter().take(PARTS_MAX) {
        let subtype = part.content_type().and_then(|t| t.subtype()).unwrap_or_default().to_ascii_lowercase();
        let name = part.attachment_name().unwrap_or_default().to_ascii_lowercase();
        let said = ["xml", "json", "gzip", "zip"].iter().any(|word| subtype.contains(word) || name.ends_with(word));
        let may_be = match &part.body {
            PartType::Binary(_) | PartType::InlineBinary(_) => true,
            // The text for people may begin with any character.
            PartType::Text(_) | PartType::Html(_) => said || name.ends_with("gz"),
            PartType::Message(_) | PartType::Multipart(_) => false,
        };
        let octets = part.contents();
        if !may_be || kind_of(octets).is_none() {
            continue;
        }
        if reports.len() >= REPORTS_MAX {
            return Err(ReportError::TooLarge(format!("{REPORTS_MAX} reports in a mail")));
        }
        reports.push(read_report(octets)?);
    }
    if reports.is_empty() { Err(ReportError::NoReport) } else { Ok(reports) }
}

/// Reads a file: a report as it is or packed, or a mail with reports.
///
/// # Errors
/// See [`read_mail`].
pub fn read_file(octets: &[u8]) -> Result<Vec<AuthReport>, ReportError> {
    match kind_of(octets) {
        Some(_) => read_report(octets).map(|report| vec![report]),
        None => read_mail(octets),
    }
}

/// What octets may be, by their beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Gzip,
    Zip,
    Xml,
    Json,
}

fn kind_of(octets: &[u8]) -> Option<Form> {
    match octets {
        [0x1f, 0x8b, ..] => Some(Form::Gzip),
        [b'P', b'K', 3, 4, ..] => Some(Form::Zip),
        // UTF-16 has its mark before the first character.
        [0xff, 0xfe, b'<', ..] | [0xfe, 0xff, 0, b'<', ..] => Some(Form::Xml),
        _ => {
            let text = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
            match text.trim_ascii_start().first() {
                Some(b'<') => Some(Form::Xml),
                Some(b'{') => Some(Form::Json),
                Some(_) | None => None,
            }
        }
    }
}

fn read_report(octets: &[u8]) -> Result<AuthReport, ReportError> {
    let unpacked;
    let octets = match kind_of(octets) {
        Some(Form::Gzip) => {
            unpacked = unpack::gzip(octets)?;
            &unpacked
        }
        Some(Form::Zip) => {
            unpacked = unpack::zip(octets)?;
            &unpacked
        }
        Some(Form::Xml | Form::Json) | None => octets,
    };
    if octets.len() > UNPACKED_MAX {
        return Err(ReportError::TooLarge(format!("{UNPACKED_MAX} octets")));
    }
    match kind_of(octets) {
        Some(Form::Xml) => dmarc::read(octets).map(AuthReport::Dmarc),
        Some(Form::Json) => tls::read(octets).map(AuthReport::Tls),
        // Packed twice is nothing that a receiver does.
        Some(Form::Gzip | Form::Zip) => Err(ReportError::Packed("it is packed more than once".into())),
        None => Err(ReportError::NoReport),
    }
}

/// Text from outside: one line, without controls, not too long.
fn clean(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect();
    clean.trim().to_owned()
}

/// A domain as it is compared: lowercase, without a dot at the end.
fn domain(text: &str) -> String {
    clean(text).trim_end_matches('.').to_ascii_lowercase()
}
