//! Intake: the one door by which a message becomes ours, whether it comes by SMTP or HTTP.
//!
//! 1. policy: tenant and sender domain, quotas, suppressions, space,
//! 2. the header: Date and Message-ID where missing, Received, Bcc and our own steering fields out,
//! 3. the queue key of each recipient,
//! 4. one commit. [`Accepted`] means: on disk, fsynced.

use std::net::IpAddr;

use bytes::Bytes;

use crate::store::{EnvelopeRecipient, Via};
use crate::types::{Class, MessageId, Name, Ret, ReversePath};

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

/// What steers a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steering {
    /// `X-Posthaste-Campaign`.
    pub campaign: Option<Name>,
    /// `X-Posthaste-Tag`, several, separated by commas or in several fields; at most 10.
    pub tags: Vec<Name>,
    /// `X-Posthaste-Pool`.
    pub pool: Option<Name>,
    /// `X-Posthaste-Class`.
    pub class: Option<Class>,
    /// `X-Posthaste-Metadata`, a JSON object of at most 4 KiB.
    pub metadata: Option<Box<str>>,
}

/// The message is ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
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
}
