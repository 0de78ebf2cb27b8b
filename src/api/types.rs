//! What requests and answers look like on the wire. Types of the layers below (events, queues) go out in their own JSON form.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::Event;
use crate::queue::admin::{EntryInfo, Explanation, Matcher, QueueInfo, Summary, Suspension};
use crate::types::{Class, EventSeq, MessageId, Name, Timestamp};

/// The answer to `POST /v1/messages`: the message is on disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MessageAccepted {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: MessageId,
    /// How many recipients it has.
    pub recipients: usize,
    /// Those of them that are suppressed: they are not sent to, and each has its `suppressed` event.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub suppressed: Vec<String>,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventsPage {
    /// Events in the order of their ids.
    #[schema(value_type = Vec<super::openapi::EventSchema>)]
    pub events: Vec<Event>,
    /// The `after` of the next call.
    #[schema(value_type = u64)]
    pub next: EventSeq,
    /// Whether there is more right now.
    pub more: bool,
}

/// Body of `POST /v1/events/ack`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsAck {
    /// The cursor.
    #[schema(value_type = String)]
    pub cursor: Name,
    /// Everything up to this event is done with.
    #[schema(value_type = u64)]
    pub after: EventSeq,
}

/// A durable cursor.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CursorInfo {
    /// Its name.
    pub cursor: String,
    /// The last event that was acknowledged.
    pub after: u64,
    /// When that was.
    #[schema(value_type = String, format = "date-time")]
    pub at: Timestamp,
}

/// All durable cursors that the key may see.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Cursors {
    /// The cursors, by name.
    pub cursors: Vec<CursorInfo>,
    /// The last event of the log, to see how far each is behind.
    pub last: u64,
}

/// The whole life of a message.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MessageLife {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: MessageId,
    /// `queued` while a recipient waits, else `done`.
    pub state: String,
    /// Who sends it.
    #[schema(value_type = String)]
    pub tenant: Name,
    /// When it was accepted.
    #[schema(value_type = String, format = "date-time")]
    pub accepted: Timestamp,
    /// The reverse-path; empty for null.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    /// Octets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub class: Option<Class>,
    /// Its campaign.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub campaign: Option<Name>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Name>,
    /// How it came in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<String>,
    /// From whom.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    /// What became of each recipient.
    pub recipients: Vec<RecipientLife>,
    /// All its events, oldest first.
    #[schema(value_type = Vec<super::openapi::EventSchema>)]
    pub events: Vec<Event>,
}

/// What became of one recipient.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecipientLife {
    /// The address.
    pub recipient: String,
    /// `queued`, `deferred`, or the event that ended it: `delivered`, `bounced`, `failed`, `expired`, …
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub next_attempt: Option<Timestamp>,
    /// When it is given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub expires: Option<Timestamp>,
    /// The last reply or reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_reply: Option<String>,
}

/// What became of an address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddressTrace {
    /// The address.
    pub address: String,
    /// Its events, oldest first.
    #[schema(value_type = Vec<super::openapi::EventSchema>)]
    pub events: Vec<Event>,
}

/// The answer to `GET /v1/queues`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Queues {
    /// All together. With a tenant's key or a filter: of what matches.
    #[schema(value_type = Object)]
    pub summary: Summary,
    /// Those that match, largest first.
    #[schema(value_type = Vec<super::openapi::QueueSchema>)]
    pub queues: Vec<QueueInfo>,
}

/// The answer to `GET /v1/queues/show`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entries {
    /// Recipients in order of due time.
    #[schema(value_type = Vec<super::openapi::EntrySchema>)]
    pub entries: Vec<EntryInfo>,
}

/// The answer to `GET /v1/queues/explain`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanations {
    /// One for each queue.
    #[schema(value_type = Vec<Object>)]
    pub queues: Vec<Explanation>,
}

/// Body of `POST /v1/queues/retry|purge|reroute`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueAction {
    /// What is meant; all that is given must match.
    #[serde(rename = "match", default)]
    #[schema(value_type = super::openapi::MatchSchema)]
    pub matcher: Matcher,
    /// Needed for purge and reroute when `match` is empty: everything is meant.
    #[serde(default)]
    pub all: bool,
    /// Why; it stands in the events of a purge.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The new pool, for reroute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub pool: Option<Name>,
}

/// Body of `POST /v1/suspensions`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSuspension {
    /// What is held, mail that comes later too.
    #[serde(rename = "match", default)]
    #[schema(value_type = super::openapi::MatchSchema)]
    pub matcher: Matcher,
    /// Needed when `match` is empty: everything is held.
    #[serde(default)]
    pub all: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// For how long, as `2h` or `1d12h`. Neither this nor `until`: until it is resumed.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none", default)]
    pub duration: Option<String>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub until: Option<Timestamp>,
}

/// Suspensions in force, or those that were ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Suspensions {
    /// The suspensions.
    #[schema(value_type = Vec<super::openapi::SuspensionSchema>)]
    pub suspensions: Vec<Suspension>,
}

/// Body of `POST /v1/admin/backup`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// An absolute path on the daemon's host; the folder must be empty or not exist.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// The answer to `POST /v1/admin/reload`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// What changed, one line each.
    pub changes: Vec<String>,
}

/// The answer to `GET /v1/admin/status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// Its host name.
    pub hostname: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    #[schema(value_type = String, format = "date-time")]
    pub started: Timestamp,
    /// Its time now.
    #[schema(value_type = String, format = "date-time")]
    pub now: Timestamp,
    /// `running`, `not ready`, `draining` or `store failed`.
    pub state: String,
    /// Why no mail is taken.
    pub reasons: Vec<String>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Its data folder.
    #[schema(value_type = String)]
    pub data_dir: PathBuf,
    /// Octets free there.
    pub free_bytes: Option<u64>,
    /// Octets of memory that it holds.
    pub resident_bytes: Option<u64>,
    /// The last event of its log.
    pub last_event: u64,
    /// Its queues.
    #[schema(value_type = Object)]
    pub queues: Option<Summary>,
}

/// The answer to `GET /v1/alerts`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Alerts {
    /// Those that fire first.
    #[schema(value_type = Vec<super::openapi::AlertSchema>)]
    pub alerts: Vec<crate::alert::Alert>,
}

/// The answer to `GET /v1/auth-reports/dmarc`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DmarcReports {
    /// Reports that came from this day (UTC) on.
    pub since: String,
    /// The domains, the one with the most messages first.
    #[schema(value_type = Vec<Object>)]
    pub domains: Vec<crate::inbound::reports::DmarcDomain>,
}

/// The answer to `GET /v1/auth-reports/tls`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TlsReports {
    /// Reports that came from this day (UTC) on.
    pub since: String,
    /// The domains, the one with the most failures first.
    #[schema(value_type = Vec<Object>)]
    pub domains: Vec<crate::inbound::reports::TlsDomain>,
}
