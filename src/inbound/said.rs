//! What a mail says of one recipient, in the few words that have effects.

use crate::bounce::classify::Verdict;
use crate::bounce::read::{Kind, Reading, Report};
use crate::links::find_token;
use crate::types::Mailbox;

/// The most candidates for a token that are tried in one mail: each costs a decryption.
const TOKENS_MAX: usize = 8;

/// Kinds of feedback that are no complaint (RFC 5965 §7.3, RFC 6591).
const NO_COMPLAINT: [&str; 3] = ["not-spam", "auth-failure", "dmarc"];

/// What a mail says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// The recipient will not get the message.
    Bounce(Bounced),
    /// It is still being tried.
    Deferral(Bounced),
    /// The recipient complained.
    Complaint {
        /// What kind of complaint.
        text: Option<String>,
        /// Who reports it.
        by: Option<String>,
    },
    /// A machine answered.
    AutoReply {
        /// What it says, in a line.
        text: Option<String>,
    },
    /// Somebody wants no more of it.
    Unsubscribe {
        /// The subject, which has the token.
        subject: String,
    },
    /// Nobody can tell.
    Nothing,
}

/// A bounce, or a notice that it has not worked yet.
#[derive(Clone, Debug)]
pub(super) struct Bounced {
    /// Whether it would fail again.
    pub(super) permanent: bool,
    /// Whether the address is not to be sent to any more.
    pub(super) suppress: bool,
    /// Whether it counts as a soft bounce: the recipient's fault, that may pass.
    pub(super) soft: bool,
    /// The field's usual word.
    pub(super) category: &'static str,
    /// Whose fault.
    pub(super) fault: &'static str,
    /// The SMTP code.
    pub(super) smtp_code: Option<u16>,
    /// The enhanced code.
    pub(super) status: Option<String>,
    /// The diagnostic text.
    pub(super) text: String,
    /// Who reports it.
    pub(super) reported_by: Option<String>,
}

impl Said {
    /// What a mail to the return path of a recipient says. The path tells who it is: what the mail calls him may be where he has his mail sent on to.
    pub(super) fn of(reading: &Reading, recipient: &Mailbox) -> Self {
        let reports = || reading.reports.iter();
        let named = reports().find(|r| r.recipient.eq_ignore_ascii_case(recipient.as_str()));
        let told = named.or_else(|| reports().find(|r| r.kind == reading.kind)).or_else(|| reports().next());
        match (reading.kind, told) {
            (Kind::Bounce, Some(told)) => Said::Bounce(Bounced::of(told)),
            (Kind::Deferral, Some(told)) => Said::Deferral(Bounced::of(told)),
            (Kind::Complaint, _) => Self::of_complaint(reading),
            (Kind::AutoReply, told) => Said::AutoReply { text: told.and_then(|r| r.diagnostic.clone()) },
            (Kind::Unsubscribe, _) => Said::Unsubscribe { subject: reading.subject.clone().unwrap_or_default() },
            (Kind::Bounce | Kind::Deferral, None) | (Kind::Other, _) => Said::Nothing,
        }
    }

    /// What a mail to the address for complaints says. A report that says that it was no spam is none.
    pub(super) fn of_complaint(reading: &Reading) -> Self {
        let told = reading.reports.first();
        let text = told.and_then(|r| r.diagnostic.clone());
        if reading.kind != Kind::Complaint || text.as_deref().is_some_and(|kind| NO_COMPLAINT.contains(&kind)) {
            return Said::Nothing;
        }
        Said::Complaint { text, by: told.and_then(|r| r.reported_by.clone()) }
    }

    /// Addresses in the enclosed message that may be a return path of ours.
    pub(super) fn return_paths(reading: &Reading) -> Vec<Mailbox> {
        let some = reading.return_paths.iter().take(TOKENS_MAX);
        some.filter_map(|address| Mailbox::parse(address).ok()).collect()
    }

    /// Words in the enclosed message that may be an unsubscribe token of ours.
    pub(super) fn unsubscribe_tokens(reading: &Reading) -> Vec<String> {
        let field = reading.list_unsubscribe.as_deref().unwrap_or_default();
        find_token(field).take(TOKENS_MAX).map(str::to_owned).collect()
    }

    /// The subject of an unsubscribe.
    pub(super) fn subject(reading: &Reading) -> Option<String> {
        reading.subject.clone()
    }
}

impl Bounced {
    fn of(report: &Report) -> Self {
        let Verdict { category, fault, permanent, suppress, soft, .. } = report.verdict;
        Self {
            permanent: permanent || report.status.as_deref().is_none_or(|status| status.starts_with('5')),
            suppress,
            soft,
            category: category.as_str(),
            fault: fault.as_str(),
            smtp_code: report.smtp_code,
            status: report.status.clone(),
            text: report.diagnostic.clone().unwrap_or_default(),
            reported_by: report.reported_by.clone(),
        }
    }
}
