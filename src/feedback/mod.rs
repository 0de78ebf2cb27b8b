//! Complaints: reports of feedback loops (ARF, RFC 5965), redacted ones too (RFC 6590), and the older forms of some providers.
//!
//! 1. A `message/feedback-report` names its kind and, where it is not redacted, the recipient; what it does not name is looked for in the enclosed
//!    message,
//! 2. Microsoft's JMRP encloses the message with a field of its own and nothing else,
//! 3. who complained may be hidden: then the tokens in the enclosed message tell it, to whoever made them.

pub mod auth;

use crate::bounce::read::{Fields, Mail, addresses, fields, get};

/// The most recipients of one report.
const RECIPIENTS_MAX: usize = 100;

/// A complaint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// `abuse`, `fraud`, `virus`, `other`, `not-spam`, `auth-failure`, `opt-out` (RFC 5965 §7.3, RFC 6591); as it stands there, in lowercase.
    pub kind: String,
    /// Who complained; `[""]` where that is redacted.
    pub recipients: Vec<String>,
    /// Who reports it.
    pub by: Option<String>,
    /// Addresses that may be the return path of what was complained about.
    pub return_paths: Vec<String>,
}

/// Reads a complaint; `None` where it is none. `report` is the octets of a `message/feedback-report`.
pub fn read(report: Option<&str>, mail: &Mail) -> Option<Complaint> {
    match report {
        Some(report) => Some(of_report(&fields(report), mail)),
        None => of_jmrp(mail).or_else(|| of_notification(mail)),
    }
}

fn of_report(report: &Fields, mail: &Mail) -> Complaint {
    let all = |name: &str| {
        report.iter().filter(|(n, _)| n == name).flat_map(|(_, value)| addresses(value)).collect::<Vec<_>>()
    };
    let kind = get(report, "feedback-type").unwrap_or("abuse").trim().to_ascii_lowercase();
    let mut recipients = Vec::new();
    for found in [all("original-rcpt-to"), all("removal-recipient")].into_iter().chain(of_original(mail)) {
        if !found.is_empty() {
            recipients = found;
            break;
        }
    }
    recipients.truncate(RECIPIENTS_MAX);
    if recipients.is_empty() {
        recipients.push(String::new());
    }
    let agent = get(report, "user-agent").map(|agent| agent.trim().to_owned());
    let by = get(report, "reporting-mta").and_then(|v| v.split_once(';').map(|(_, host)| host.trim().to_owned()));
    Complaint {
        kind,
        recipients,
        by: by.or_else(|| mail.reported_by()).or(agent),
        return_paths: all("original-mail-from"),
    }
}

/// Who got the message, by its own header.
fn of_original(mail: &Mail) -> [Vec<String>; 1] {
    let names = ["x-hmxmroriginalrecipient", "x-original-to", "delivered-to", "x-envelope-to", "to"];
    let found = names.iter().filter_map(|name| mail.original(name)).map(addresses).find(|found| !found.is_empty());
    [found.unwrap_or_default()]
}

/// Amazon's notification of a complaint, as JSON in a mail.
fn of_notification(mail: &Mail) -> Option<Complaint> {
    // Its only line was broken on the way.
    let text = mail.text.trim_start().replace("\n ", "").replace('\n', "");
    if !text.starts_with('{') {
        return None;
    }
    let value = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>().next()?.ok()?;
    let complaint =
        value.get("complaint").filter(|_| value.get("notificationType").is_some_and(|t| t == "Complaint"))?;
    let told = complaint.get("complainedRecipients")?.as_array()?.iter();
    let recipients =
        told.filter_map(|r| r.get("emailAddress")?.as_str()).take(RECIPIENTS_MAX).map(str::to_owned).collect();
    let kind = complaint.get("complaintFeedbackType").and_then(|k| k.as_str()).unwrap_or("abuse").to_owned();
    let source = value.get("mail").and_then(|m| m.get("source")).and_then(|s| s.as_str());
    let return_paths = source.map(addresses).unwrap_or_default();
    Some(Complaint { kind, recipients, by: Some("amazonses.com".to_owned()), return_paths })
}

/// Microsoft's junk mail reporting: the recipient stands in a field of the enclosed message, or of the mail itself.
fn of_jmrp(mail: &Mail) -> Option<Complaint> {
    let named = mail.original("x-hmxmroriginalrecipient").or_else(|| mail.field("x-hmxmroriginalrecipient"));
    let from = mail.from.as_deref().unwrap_or_default().to_ascii_lowercase();
    let subject = mail.subject.as_deref().unwrap_or_default().to_ascii_lowercase();
    let staff = from.starts_with("staff@hotmail.com") && subject.contains("complaint about message from");
    if named.is_none() && !staff {
        return None;
    }
    let mut recipients: Vec<String> = named.map(addresses).unwrap_or_default();
    if recipients.is_empty() {
        recipients = of_original(mail).into_iter().flatten().collect();
    }
    recipients.truncate(RECIPIENTS_MAX);
    if recipients.is_empty() {
        recipients.push(String::new());
    }
    let by = mail.reported_by();
    Some(Complaint { kind: "abuse".to_owned(), recipients, by, return_paths: Vec::new() })
}
