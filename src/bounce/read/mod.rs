//! Reading what comes back: bounces in every form that is about, complaints, machines' answers, unsubscribes.
//!
//! 1. The mail is taken apart (`mail`): its own header, the text for people, the report for programs, the header of the message that it encloses; with
//!    limits on size, parts and lines, so that a hostile mail costs no more than a large one,
//! 2. a feedback report (RFC 5965, and the older forms of some providers) is a complaint (`crate::feedback`),
//! 3. a delivery status (RFC 3464) tells each recipient (`status`); what it leaves out is looked for in the text,
//! 4. without one, addresses and replies are looked for in the text (`text`), as the many mailers write them that know no RFC 3464,
//! 5. what says that it comes from a machine, and tells of no failure, is an answer of one (`auto`, RFC 3834),
//! 6. what each recipient's reply means, the rules say (`crate::bounce::classify`).

mod auto;
pub(in crate::bounce) mod codes;
mod mail;
mod status;
#[cfg(test)]
mod tests;
mod text;

pub use mail::{Fields, Mail, fields, get};
pub use text::addresses;

use super::classify::{Phase, Reply, Rules, UNKNOWN, Verdict};
use crate::feedback;

/// The largest part of a mail that is looked at, in octets: reports come first, what is enclosed comes last.
pub const MAIL_MAX: usize = 1 << 20;

/// The most recipients that one mail tells of.
pub const REPORTS_MAX: usize = 1_000;

/// The longest diagnostic that is kept, in characters.
const DIAGNOSTIC_MAX: usize = 1_024;

/// What a mail is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Kind {
    /// The recipient will not get the message.
    Bounce,
    /// It is still being tried.
    Deferral,
    /// The recipient complained.
    Complaint,
    /// A machine answered.
    AutoReply,
    /// Somebody wants no more of it.
    Unsubscribe,
    /// Something else, or nobody can tell.
    #[default]
    Other,
}

impl Kind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Bounce => "bounce",
            Kind::Deferral => "deferral",
            Kind::Complaint => "complaint",
            Kind::AutoReply => "auto-reply",
            Kind::Unsubscribe => "unsubscribe",
            Kind::Other => "other",
        }
    }
}

/// What a mail says.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What it is.
    pub kind: Kind,
    /// What it says of each recipient. Of a complaint or an answer: who it is from, where that is known.
    pub reports: Vec<Report>,
    /// Its subject, decoded.
    pub subject: Option<String>,
    /// The Message-ID of the message that it is about, with its angle brackets.
    pub original_message_id: Option<String>,
    /// Addresses in the enclosed message that may be its return path.
    pub return_paths: Vec<String>,
    /// The `List-Unsubscribe` of the enclosed message.
    pub list_unsubscribe: Option<String>,
}

/// What it says of one recipient.
#[derive(Clone, Debug)]
pub struct Report {
    /// The address; empty where it is not told (a redacted complaint).
    pub recipient: String,
    /// What it is for this one.
    pub kind: Kind,
    /// `failed`, `delayed`, `delivered`, `relayed` or `expanded` (RFC 3464 §2.3.3); of other kinds nothing.
    pub action: Option<String>,
    /// The enhanced status code.
    pub status: Option<String>,
    /// The SMTP code.
    pub smtp_code: Option<u16>,
    /// What the remote said, on one line.
    pub diagnostic: Option<String>,
    /// What it means.
    pub verdict: Verdict,
    /// The rule that says so.
    pub rule: Option<String>,
    /// Who reports it.
    pub reported_by: Option<String>,
}

/// Reads a mail; CRLF or LF line ends. Whatever it is, this ends soon and takes no more memory than a few times its size.
pub fn read(octets: &[u8]) -> Reading {
    read_with(octets, Rules::built_in())
}

/// Reads a mail by these rules.
pub fn read_with(octets: &[u8], rules: &Rules) -> Reading {
    let mail = Mail::parse(&octets[..octets.len().min(MAIL_MAX)]);
    let mut reading = Reading {
        subject: mail.subject.clone(),
        original_message_id: mail.original_message_id(),
        return_paths: mail.return_paths(),
        list_unsubscribe: mail.original("list-unsubscribe").map(str::to_owned),
        ..Reading::default()
    };
    if let Some(complaint) = feedback::read(mail.feedback.as_deref(), &mail) {
        reading.kind = Kind::Complaint;
        reading.return_paths.extend(complaint.return_paths);
        reading.reports =
            complaint.recipients.into_iter().map(|r| complained(r, complaint.by.clone(), &complaint.kind)).collect();
        return reading;
    }
    if mail.is_unsubscribe() {
        reading.kind = Kind::Unsubscribe;
        reading.reports = mail.from.iter().map(|from| plain(from, Kind::Unsubscribe)).collect();
        return reading;
    }
    let told = status::reports(&mail);
    let mut found = match told.is_empty() && (!auto::is_answer(&mail) || text::is_surely_bounce(&mail)) {
        true => text::reports(&mail),
        false => told,
    };
    found.truncate(REPORTS_MAX);
    if found.is_empty() {
        if auto::is_answer(&mail) {
            reading.kind = Kind::AutoReply;
            reading.reports = auto::from(&mail).iter().map(|from| plain(from, Kind::AutoReply)).collect();
            let said = mail.text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
            reading.reports.iter_mut().for_each(|r| r.diagnostic = said.clone());
        }
        return reading;
    }
    reading.reports = found.into_iter().map(|found| judged(found, &mail, rules)).collect();
    let kinds = |kind| reading.reports.iter().any(|r| r.kind == kind);
    reading.kind = [Kind::Bounce, Kind::Deferral].into_iter().find(|kind| kinds(*kind)).unwrap_or(Kind::Other);
    reading
}

/// What was found of a recipient, before anybody says what it means.
#[derive(Clone, Debug, Default)]
struct Found {
    recipient: String,
    action: Option<String>,
    status: Option<String>,
    smtp_code: Option<u16>,
    diagnostic: Option<String>,
    reported_by: Option<String>,
    /// What was refused.
    phase: Option<Phase>,
    /// Other words about it, for when the diagnostic says nothing.
    context: String,
}

fn judged(found: Found, mail: &Mail, rules: &Rules) -> Report {
    let Found { recipient, action, status, smtp_code, diagnostic, reported_by, context, phase } = found;
    let words = diagnostic.as_deref().unwrap_or_default();
    let code = smtp_code.or_else(|| codes::smtp_code_in(words)).or_else(|| codes::smtp_code_in(&context));
    let inner = codes::enhanced_in(words);
    // A status that says nothing (5.0.0) gives way to the one that the remote gave.
    let status = match (status, inner) {
        (Some(outer), Some(inner)) if codes::is_vague(&outer) && !codes::is_vague(&inner) => Some(inner),
        (Some(outer), _) => Some(outer),
        (None, inner) => inner.or_else(|| codes::enhanced_in(&context)),
    };
    let phase = phase.or_else(|| codes::phase_in(words)).or_else(|| codes::phase_in(&context));
    let judge = |text: &str| {
        let reply = Reply { code: code.unwrap_or(0), enhanced: status.as_deref(), text, provider: None, phase };
        let rule = rules.find(&reply);
        (rule.is_some_and(|rule| rule.decides_by_words()), rules.classify(&reply), rule.map(|rule| rule.name.clone()))
    };
    let mut verdict = (false, UNKNOWN, None);
    for text in [words, &context, mail.subject.as_deref().unwrap_or_default()] {
        let now = judge(text);
        if verdict.1 == UNKNOWN || now.0 {
            verdict = now;
        }
        if verdict.0 {
            break;
        }
    }
    let action = action.unwrap_or_else(|| if mail.is_delay_notice() { "delayed" } else { "failed" }.to_owned());
    let kind = match action.as_str() {
        "delayed" => Kind::Deferral,
        "failed" => Kind::Bounce,
        _ => Kind::Other,
    };
    let (_, mut verdict, rule) = verdict;
    if kind != Kind::Bounce {
        verdict = Verdict { permanent: false, suppress: false, soft: false, ..verdict };
    }
    Report {
        recipient,
        kind,
        action: Some(action),
        status,
        smtp_code: code,
        diagnostic: diagnostic.or_else(|| Some(context).filter(|c| !c.is_empty())).map(|d| one_line(&d)),
        verdict,
        rule,
        reported_by: reported_by.or_else(|| mail.reported_by()),
    }
}

fn plain(recipient: &str, kind: Kind) -> Report {
    Report {
        recipient: recipient.to_owned(),
        kind,
        action: None,
        status: None,
        smtp_code: None,
        diagnostic: None,
        verdict: UNKNOWN,
        rule: None,
        reported_by: None,
    }
}

fn complained(recipient: String, by: Option<String>, what: &str) -> Report {
    use super::classify::{Category, Fault};
    let verdict = Verdict { category: Category::SpamRelated, fault: Fault::Content, suppress: true, ..UNKNOWN };
    Report { verdict, diagnostic: Some(what.to_owned()), reported_by: by, ..plain(&recipient, Kind::Complaint) }
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(DIAGNOSTIC_MAX).collect()
}
