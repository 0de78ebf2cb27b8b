//! Events: what became of every mail, in the names that users of other senders know.
//!
//! An event is made where something happens (intake, settle, an operator's command), gets its sequence
//! number from the ledger in commit order, and is read from the log by cursor. Nothing else
//! carries news between the engines. The JSON form here is the form of the HTTP API, of
//! `events tail --json` and of the log on disk.

use serde::{Deserialize, Serialize};

use crate::types::{Class, Domain, EventSeq, Mailbox, MessageId, Name, Timestamp};

/// What happened.
///
/// Terminal kinds end a recipient: exactly one of them is written for each accepted recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Durable and queued: one event a message (`recipients` counts them), one a recipient is implied.
    Accepted,
    /// Refused at intake; nothing was stored.
    Rejected,
    /// An attempt failed for now; it will be tried again.
    Deferred,
    /// A notice of delay was sent to the submitter.
    Delayed,
    /// The remote took it (terminal).
    Delivered,
    /// The remote refused it for good, in the session or later (terminal).
    Bounced,
    /// Given up by us: no route, policy (terminal).
    Failed,
    /// Given up by us: too old (terminal).
    Expired,
    /// Not sent: the address is suppressed (terminal).
    Suppressed,
    /// Not sent: its content could not be made (terminal).
    RenderingFailed,
    /// Taken out by cancelling its campaign (terminal).
    Cancelled,
    /// Taken out by an operator (terminal).
    Purged,
    /// Moved to another pool by an operator.
    Rerouted,
    /// The recipient complained.
    Complained,
    /// The recipient opened the mail.
    Opened,
    /// The recipient clicked a link.
    Clicked,
    /// The recipient unsubscribed.
    Unsubscribed,
    /// A machine answered for the recipient: a vacation notice or the like (RFC 3834). It says nothing of the delivery.
    AutoReplied,
    /// What may be sent by a source to a provider was changed: a reply rule or the controller slowed it, held it or let it grow.
    Adapted,
    /// The warm-up of a source towards a provider went on, was held, stepped back or began anew.
    WarmupChanged,
    /// A threshold was crossed, or is met again.
    Alert,
    /// A queue, domain or tenant was suspended, or released.
    Suspended,
    /// A suspension ended.
    Resumed,
    /// A campaign was started: its rows are being sent. `recipients` counts them.
    CampaignStarted,
    /// A campaign was paused.
    CampaignPaused,
    /// A campaign goes on.
    CampaignResumed,
    /// A campaign was cancelled.
    CampaignCancelled,
    /// A campaign was stopped by one of its own conditions.
    CampaignHalted,
    /// The last row of a campaign ended.
    CampaignDone,
    /// Events before this one are gone: the reader lagged behind the retention.
    Gap,
}

impl EventKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: [EventKind; 30] = [
        EventKind::Accepted,
        EventKind::Rejected,
        EventKind::Deferred,
        EventKind::Delayed,
        EventKind::Delivered,
        EventKind::Bounced,
        EventKind::Failed,
        EventKind::Expired,
        EventKind::Suppressed,
        EventKind::RenderingFailed,
        EventKind::Cancelled,
        EventKind::Purged,
        EventKind::Rerouted,
        EventKind::Complained,
        EventKind::Opened,
        EventKind::Clicked,
        EventKind::Unsubscribed,
        EventKind::AutoReplied,
        EventKind::Adapted,
        EventKind::WarmupChanged,
        EventKind::Alert,
        EventKind::Suspended,
        EventKind::Resumed,
        EventKind::CampaignStarted,
        EventKind::CampaignPaused,
        EventKind::CampaignResumed,
        EventKind::CampaignCancelled,
        EventKind::CampaignHalted,
        EventKind::CampaignDone,
        EventKind::Gap,
    ];

    /// The name as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Accepted => "accepted",
            EventKind::Rejected => "rejected",
            EventKind::Deferred => "deferred",
            EventKind::Delayed => "delayed",
            EventKind::Delivered => "delivered",
            EventKind::Bounced => "bounced",
            EventKind::Failed => "failed",
            EventKind::Expired => "expired",
            EventKind::Suppressed => "suppressed",
            EventKind::RenderingFailed => "rendering_failed",
            EventKind::Cancelled => "cancelled",
            EventKind::Purged => "purged",
            EventKind::Rerouted => "rerouted",
            EventKind::Complained => "complained",
            EventKind::Opened => "opened",
            EventKind::Clicked => "clicked",
            EventKind::Unsubscribed => "unsubscribed",
            EventKind::AutoReplied => "auto_replied",
            EventKind::Adapted => "adapted",
            EventKind::WarmupChanged => "warmup_changed",
            EventKind::Alert => "alert",
            EventKind::Suspended => "suspended",
            EventKind::Resumed => "resumed",
            EventKind::CampaignStarted => "campaign_started",
            EventKind::CampaignPaused => "campaign_paused",
            EventKind::CampaignResumed => "campaign_resumed",
            EventKind::CampaignCancelled => "campaign_cancelled",
            EventKind::CampaignHalted => "campaign_halted",
            EventKind::CampaignDone => "campaign_done",
            EventKind::Gap => "gap",
        }
    }

    /// Whether this ends a recipient's way.
    pub fn is_terminal(self) -> bool {
        match self {
            EventKind::Delivered
            | EventKind::Bounced
            | EventKind::Failed
            | EventKind::Expired
            | EventKind::Suppressed
            | EventKind::RenderingFailed
            | EventKind::Cancelled
            | EventKind::Purged => true,
            EventKind::Accepted
            | EventKind::Rejected
            | EventKind::Deferred
            | EventKind::Delayed
            | EventKind::Rerouted
            | EventKind::Complained
            | EventKind::Opened
            | EventKind::Clicked
            | EventKind::Unsubscribed
            | EventKind::AutoReplied
            | EventKind::Adapted
            | EventKind::WarmupChanged
            | EventKind::Alert
            | EventKind::Suspended
            | EventKind::Resumed
            | EventKind::CampaignStarted
            | EventKind::CampaignPaused
            | EventKind::CampaignResumed
            | EventKind::CampaignCancelled
            | EventKind::CampaignHalted
            | EventKind::CampaignDone
            | EventKind::Gap => false,
        }
    }
}

/// Whether trying again could help.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It would fail again.
    Permanent,
    /// It may succeed later.
    Temporary,
}

/// A peer's reply: its code, its enhanced code where it gave one (RFC 3463), its text on one line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SmtpReply {
    /// The three-digit code; 0 where there was no reply and `text` says why.
    pub code: u16,
    /// The enhanced status code, as `5.1.1`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enhanced: Option<Box<str>>,
    /// The text, lines joined by a space, controls removed, cut at 512 octets.
    pub text: Box<str>,
}

impl std::fmt::Display for SmtpReply {
    /// As it would stand in a session: `550 5.1.1 no such user`; the text alone where there was no reply.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, &self.enhanced) {
            (0, _) => f.write_str(&self.text),
            (code, Some(enhanced)) => write!(f, "{code} {enhanced} {}", self.text),
            (code, None) => write!(f, "{code} {}", self.text),
        }
    }
}

/// One record of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the log; 0 until the ledger has given it one.
    #[serde(rename = "id")]
    pub seq: EventSeq,
    /// What happened.
    pub event: EventKind,
    /// When.
    pub timestamp: Timestamp,
    /// Whose mail.
    pub tenant: Name,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_id: Option<MessageId>,
    /// The recipient, as it was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipient: Option<Mailbox>,
    /// The reverse-path; empty for null. In `accepted` and `rejected`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<Box<str>>,
    /// How many recipients the message has. In `accepted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipients: Option<u32>,
    /// The size of the message in octets. In `accepted` and `delivered`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The campaign.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub campaign: Option<Name>,
    /// The class.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<Class>,
    /// Tags of the message.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tags: Vec<Name>,
    /// The submitter's own data, a JSON object. In `accepted` and terminal events.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<serde_json::value::RawValue>>,
    /// The recipient's domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<Domain>,
    /// The mailbox provider, by its MX; `other` where none matches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<Box<str>>,
    /// The host that was tried, with its address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mx: Option<Box<str>>,
    /// The name of the source that was used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Name>,
    /// The local address that was used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_ip: Option<std::net::IpAddr>,
    /// The pool.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<Name>,
    /// Protocol and cipher suite, where TLS was used: `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<Box<str>>,
    /// Which attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// How long it took since it was accepted (a campaign's row: since its start), in milliseconds. In `delivered`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub took_ms: Option<u64>,
    /// When it will be tried again. In `deferred`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_at: Option<Timestamp>,
    /// What the peer said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smtp: Option<SmtpReply>,
    /// Whether trying again could help. In failures.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub severity: Option<Severity>,
    /// Why, where it is not the peer who says it; or the stage at which the session broke.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Box<str>>,
    /// Whether the remote (not we) said so, in `bounced`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remote: Option<bool>,
    /// Why, in the field's usual words: `bad-mailbox`, `quota-issues`, `spam-related` … In failures, and in `complained`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub category: Option<Box<str>>,
    /// Whose fault it is: `recipient`, `domain`, `sender_ip`, `sender_domain`, `content`, `transport` … In failures.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<Box<str>>,
    /// Whether the address was put on the suppression list for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suppress: Option<bool>,
    /// A mail told it after the remote had taken the message, so it comes after `delivered`. In `bounced` and `deferred`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub late: Option<bool>,
    /// Who reported it in such a mail.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reported_by: Option<Box<str>>,
    /// How it came in: `smtp`, `http` or `internal`. In `accepted` and `rejected`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<Box<str>>,
    /// The peer that handed it in. In `accepted` and `rejected`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<Box<str>>,
    /// In `alert`, where a threshold was crossed or is met again; `reason` has the values.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alert: Option<Box<AlertNote>>,
}

/// What an alert tells, in `alert` events of a threshold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AlertNote {
    /// Which: `bounce_rate`, `disk_free` …
    pub name: Box<str>,
    /// `firing` when it begins, `repeated` while it goes on, `resolved` when it has ended.
    pub state: Box<str>,
    /// What it is about: a tenant, a source and provider, a webhook, a queue; `node` for all of it.
    pub subject: Box<str>,
    /// Since when.
    pub since: Timestamp,
    /// The likely cause.
    pub cause: Box<str>,
    /// What to do.
    pub fix: Box<str>,
}

impl Event {
    /// An event with nothing but what each has; the maker fills in what it knows.
    pub fn new(event: EventKind, timestamp: Timestamp, tenant: Name) -> Self {
        Self {
            seq: EventSeq(0),
            event,
            timestamp,
            tenant,
            message_id: None,
            recipient: None,
            sender: None,
            recipients: None,
            size: None,
            campaign: None,
            class: None,
            tags: Vec::new(),
            metadata: None,
            domain: None,
            provider: None,
            mx: None,
            source: None,
            source_ip: None,
            pool: None,
            tls: None,
            attempt: None,
            took_ms: None,
            retry_at: None,
            smtp: None,
            severity: None,
            reason: None,
            remote: None,
            category: None,
            fault: None,
            suppress: None,
            late: None,
            reported_by: None,
            via: None,
            client: None,
            alert: None,
        }
    }
}
