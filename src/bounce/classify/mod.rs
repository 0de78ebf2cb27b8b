//! What a refusal means: whose fault it is, whether the address is bad for good, and what the field calls it.
//!
//! 1. [`Rules`] are read from data: the built-in `config/bounce-rules.toml`, or a file that an operator gives in its place,
//! 2. [`Rules::classify`] puts the text into one form (lowercase, single spaces) and finds all patterns that match in one pass of linear time,
//! 3. the first rule whose conditions all hold decides ([`Verdict`]); with none, the class of the code does.
//!
//! One engine reads replies in the session and bounces that come by mail.

mod rules;
#[cfg(test)]
mod tests;

pub use rules::{Rules, RulesError};

use crate::event::Severity;

/// The field's usual words for why mail did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// The mailbox does not exist.
    BadMailbox,
    /// It exists and is not used: disabled, suspended, moved.
    InactiveMailbox,
    /// The domain does not exist, or takes no mail.
    BadDomain,
    /// It is full.
    QuotaIssues,
    /// Its host does not answer.
    NoAnswerFromHost,
    /// The host does not take mail for it.
    RelayingIssues,
    /// The way to it is broken.
    RoutingErrors,
    /// The connection was refused or lost.
    BadConnection,
    /// What is in the message.
    ContentRelated,
    /// The sender's address.
    InvalidSender,
    /// It was tried for too long.
    MessageExpired,
    /// A policy of the host.
    PolicyRelated,
    /// The dialogue.
    ProtocolErrors,
    /// It was taken for spam.
    SpamRelated,
    /// It was taken for a virus.
    VirusRelated,
    /// Our own configuration: names, PTR.
    BadConfiguration,
    /// SPF, DKIM, DMARC.
    AuthenticationFailed,
    /// Anything else.
    Other,
}

impl Category {
    /// All of them.
    pub const ALL: [Category; 18] = [
        Category::BadMailbox,
        Category::InactiveMailbox,
        Category::BadDomain,
        Category::QuotaIssues,
        Category::NoAnswerFromHost,
        Category::RelayingIssues,
        Category::RoutingErrors,
        Category::BadConnection,
        Category::ContentRelated,
        Category::InvalidSender,
        Category::MessageExpired,
        Category::PolicyRelated,
        Category::ProtocolErrors,
        Category::SpamRelated,
        Category::VirusRelated,
        Category::BadConfiguration,
        Category::AuthenticationFailed,
        Category::Other,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::BadMailbox => "bad-mailbox",
            Category::InactiveMailbox => "inactive-mailbox",
            Category::BadDomain => "bad-domain",
            Category::QuotaIssues => "quota-issues",
            Category::NoAnswerFromHost => "no-answer-from-host",
            Category::RelayingIssues => "relaying-issues",
            Category::RoutingErrors => "routing-errors",
            Category::BadConnection => "bad-connection",
            Category::ContentRelated => "content-related",
            Category::InvalidSender => "invalid-sender",
            Category::MessageExpired => "message-expired",
            Category::PolicyRelated => "policy-related",
            Category::ProtocolErrors => "protocol-errors",
            Category::SpamRelated => "spam-related",
            Category::VirusRelated => "virus-related",
            Category::BadConfiguration => "bad-configuration",
            Category::AuthenticationFailed => "authentication-failed",
            Category::Other => "other",
        }
    }
}

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The recipient's address or mailbox.
    Recipient,
    /// The recipient's domain.
    Domain,
    /// The address that it was sent from.
    SenderIp,
    /// The domain that it was sent from.
    SenderDomain,
    /// The message.
    Content,
    /// The way to the host.
    Transport,
    /// The host.
    System,
    /// Nobody can tell.
    Unknown,
}

impl Fault {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Recipient => "recipient",
            Fault::Domain => "domain",
            Fault::SenderIp => "sender_ip",
            Fault::SenderDomain => "sender_domain",
            Fault::Content => "content",
            Fault::Transport => "transport",
            Fault::System => "system",
            Fault::Unknown => "unknown",
        }
    }

    /// Only the recipient, or its domain, can be the reason not to send to it again.
    pub fn may_suppress(self) -> bool {
        matches!(self, Fault::Recipient | Fault::Domain)
    }
}

/// What else would get the same answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This recipient.
    Recipient,
    /// All recipients of the domain.
    Domain,
    /// All mail from this address of ours.
    Source,
    /// All mail of the sending domain.
    SendingDomain,
    /// This message, to anybody.
    Message,
    /// What goes this way.
    Path,
}

/// What a refusal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The field's word.
    pub category: Category,
    /// Whose fault.
    pub fault: Fault,
    /// Whether the address, or its domain, is bad for good: a hard bounce.
    pub permanent: bool,
    /// Whether it is not to be sent to any more.
    pub suppress: bool,
    /// The recipient's fault that may pass: counted, and suppressed when it does not.
    pub soft: bool,
    /// What else is concerned.
    pub scope: Scope,
}

/// What is known of a refusal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply<'a> {
    /// The SMTP code; 0 where there was none.
    pub code: u16,
    /// The enhanced status code, as `5.1.1`.
    pub enhanced: Option<&'a str>,
    /// The words.
    pub text: &'a str,
    /// The mailbox provider, where it is known.
    pub provider: Option<&'a str>,
    /// What it answers to, where that is known.
    pub phase: Option<Phase>,
}

/// What a refusal answers to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// The connection, EHLO, STARTTLS or AUTH.
    Connect,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, BDAT, or the message itself.
    Data,
}

impl Reply<'_> {
    /// Whether the codes say that it would fail again.
    pub fn severity(&self) -> Severity {
        let class = match self.enhanced.and_then(|e| e.bytes().next()) {
            Some(class) => class,
            None => b'0' + u8::try_from(self.code / 100 % 10).unwrap_or(0),
        };
        if class == b'4' { Severity::Temporary } else { Severity::Permanent }
    }
}

/// A user that is said to be unknown when the message was there already, or nobody knows when: some gateways filter in these words. The next bounces
/// will tell.
pub(super) const FILTERED: Verdict = Verdict {
    category: Category::PolicyRelated,
    fault: Fault::Recipient,
    permanent: false,
    suppress: false,
    soft: true,
    scope: Scope::Recipient,
};

/// The verdict where no rule says anything.
pub(super) const UNKNOWN: Verdict = Verdict {
    category: Category::Other,
    fault: Fault::Unknown,
    permanent: false,
    suppress: false,
    soft: false,
    scope: Scope::Recipient,
};
