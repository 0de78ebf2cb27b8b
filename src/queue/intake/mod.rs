//! Intake: the one door by which a message becomes ours, whether it comes by SMTP or HTTP.
//!
//! 1. [`IntakeGate`]: whether anything is taken at all,
//! 2. the header is read once ([`crate::mime::submission`]),
//! 3. policy ([`Policy`]): tenant, sender domains of reverse-path and From, pool; then quotas ([`UsageTable`]),
//! 4. the header is edited: Received in front, Date and Message-ID where missing, Bcc and our own steering fields out,
//! 5. recipients that are suppressed ([`crate::suppression`]) get their `suppressed` event at once, the queue key of each other one,
//! 6. one commit. [`Accepted`] means: on disk, fsynced.
//!
//! What is decided where the RFCs leave a choice:
//! - The null reverse-path is taken from a login, as others do (applications send notices with it), and from a relay
//!   network, where the tenant is then that of the From domain. From must be within the tenant's domains in any case.
//! - A reverse-path may also be within the tenant's bounce domain.
//! - A domain covers its subdomains. In a relay network the most exact domain tells the tenant, `"*"` comes last.
//! - 8-bit octets in a header without SMTPUTF8 are taken as they are and make the message 8-bit, as others do; with
//!   SMTPUTF8 they make it one that needs SMTPUTF8.
//! - A message without From is refused: whose it would be is a guess.
//! - A suppressed recipient is accepted, not refused: whether it is suppressed depends on the class, which stands in the header, behind all
//!   RCPT commands. It is told by its `suppressed` event and in the HTTP answer, not by a DSN: SES, SendGrid and Mailgun
//!   do the same, and whoever submits for a list would get back one bounce a recipient for what it asked for itself. A message
//!   whose recipients are all suppressed is accepted, too, and ends there.
//! - A refusal for good of a known tenant's message is a `rejected` event, at most [`REJECTED_EVENTS_PER_MINUTE`] a
//!   tenant, so that nobody fills the disk with mail that is refused. Strangers make none.

mod accept;
mod gate;
mod policy;
mod usage;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use accept::{Intake, REJECTED_EVENTS_PER_MINUTE};
pub use gate::{GateState, IntakeGate};
pub use policy::{Policies, Policy};
pub use usage::{QUOTA_PREFIX, TenantUsage, UsageTable};

use std::net::IpAddr;

use bytes::Bytes;

pub use crate::mime::submission::Steering;
use crate::store::{EnvelopeRecipient, Via};
use crate::types::{Mailbox, MessageId, Name, Ret, ReversePath};

/// A message that somebody hands in.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who sends: of the login or key; `None` for a relay network, where the reverse-path's domain tells.
    pub tenant: Option<Name>,
    /// How it came in.
    pub via: Via,
    /// The client, for `Received` and the event.
    pub client: Client,
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// `RET` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461 §4.4), in xtext.
    pub envid: Option<Box<str>>,
    /// Whether the client said SMTPUTF8.
    pub smtputf8: bool,
    /// The recipients; at least one.
    pub recipients: Vec<EnvelopeRecipient>,
    /// What steers it, where it is not said in the header. A field of the header wins over this.
    pub steering: Steering,
    /// The message with CRLF line ends.
    pub body: Bytes,
}

/// Who hands a message in.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Its address.
    pub address: Option<IpAddr>,
    /// What it called itself at EHLO; empty for HTTP.
    pub helo: String,
    /// The user name of the login, or the name of the API key.
    pub user: Option<String>,
    /// The protocol as it stands in `Received` (RFC 3848): ESMTPSA, ESMTPA, ESMTPS, ESMTP, UTF8SMTPSA …, HTTP.
    pub protocol: &'static str,
    /// Protocol and cipher suite.
    pub tls: Option<String>,
}

/// The message is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// Those of its recipients that are suppressed: nothing is queued for them, and their `suppressed` events are on disk.
    pub suppressed: Vec<Mailbox>,
}

/// The message is not ours: nothing was stored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code} {enhanced} {text}")]
pub struct Refusal {
    /// The SMTP code.
    pub code: u16,
    /// The enhanced code (RFC 3463).
    pub enhanced: &'static str,
    /// What and where, on one line.
    pub text: String,
    /// The HTTP status for the same thing.
    pub http_status: u16,
    /// The member of a request that is at fault, where one is.
    pub field: Option<&'static str>,
}

impl Refusal {
    /// A refusal and its HTTP status.
    pub fn new(code: u16, enhanced: &'static str, http_status: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced, text: text.into(), http_status, field: None }
    }

    /// Whether trying again could help.
    pub fn is_temporary(&self) -> bool {
        self.code < 500
    }
}
