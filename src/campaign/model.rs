//! What is kept of a campaign: its record, its sealed job, and the keys under which they stand in `state`.
//!
//! 1. `campaign/<tenant>\0<id>` → [`Record`]: small, rewritten at each change of state,
//! 2. `campaign-job/<no>/<version>` → the job as JSON: written once, with its attachments,
//! 3. `campaign-no/<no>` → tenant and id, for what is known by its number: a row, a link, a return path,
//! 4. `campaign-upload/<no>` → [`UploadCounters`], written by the upload in the batches of its rows,
//! 5. `campaign-next` → the next number.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::job::{Job, Window, Zone};
use crate::config::Rate;
use crate::store::RunCounts;
use crate::types::{CampaignNo, Name, Timestamp};

/// The version of the records here; a daemon that finds a newer one does not start.
pub const RECORD_VERSION: u8 = 1;

/// Where a campaign stands.
///
/// `draft → uploading → checking → scheduled → running ⇄ paused → done | cancelled | halted`; the legal ways are one table
/// ([`State::after`](super::state)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is a job and no recipient.
    Draft,
    /// Recipients come in, or have come.
    Uploading,
    /// A start was asked for; the job and its recipients are being checked.
    Checking,
    /// It is sealed; its rows are due later.
    Scheduled,
    /// Its rows are sent.
    Running,
    /// An operator holds its rows.
    Paused,
    /// The last row has ended.
    Done,
    /// An operator ended it; what was not sent is not sent.
    Cancelled,
    /// It stopped by `stop_if`: its rows are held until it is resumed with a reason, or cancelled.
    Halted,
}

impl State {
    /// All states, in the order of their way.
    pub const ALL: [State; 9] = [
        State::Draft,
        State::Uploading,
        State::Checking,
        State::Scheduled,
        State::Running,
        State::Paused,
        State::Done,
        State::Cancelled,
        State::Halted,
    ];

    /// The state as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Draft => "draft",
            State::Uploading => "uploading",
            State::Checking => "checking",
            State::Scheduled => "scheduled",
            State::Running => "running",
            State::Paused => "paused",
            State::Done => "done",
            State::Cancelled => "cancelled",
            State::Halted => "halted",
        }
    }

    /// Whether its job and recipients may still change.
    pub fn is_open(self) -> bool {
        matches!(self, State::Draft | State::Uploading)
    }

    /// Whether it was started and has not ended: its rows are in the queues.
    pub fn is_live(self) -> bool {
        matches!(self, State::Scheduled | State::Running | State::Paused | State::Halted)
    }

    /// Whether it has ended for good.
    pub fn is_ended(self) -> bool {
        matches!(self, State::Done | State::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an operator changed of a started campaign; it wins over the sealed job.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Overrides {
    /// The rate; the outer `Some` says that it was changed, the inner `None` that there is no limit any more.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "present")]
    pub rate: Option<Option<Rate>>,
    /// The window, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "present")]
    pub window: Option<Option<Window>>,
    /// The priority.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<u8>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What is written at all is `Some`, `null` too: serde alone takes a `null` for what is not there.
pub fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// The record of a campaign.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub v: u8,
    /// Its number.
    pub no: CampaignNo,
    /// Whose it is.
    pub tenant: Name,
    /// Its id, unique in the tenant; the `campaign` of its events and queues.
    pub id: Name,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Why it stands there, where somebody said so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The version of its job, from 1; each edit makes a new one, a start seals it.
    pub version: u32,
    /// SHA-256 of that job in hexadecimal digits.
    pub hash: String,
    /// Who made it.
    pub by: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started: Option<Timestamp>,
    /// When its first row is due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Timestamp>,
    /// When its rows were first sent: its `campaign_started` event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running_since: Option<Timestamp>,
    /// Since when an operator or one of its conditions holds it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_since: Option<Timestamp>,
    /// How long it was held before that, all holds together, in milliseconds: its rows are given up so much later.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub held_ms: u64,
    /// Whether rows that wait for another attempt are still to be taken out of the queues, after a cancel.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub sweeping: bool,
    /// Rows at the start.
    #[serde(default)]
    pub rows: u64,
    /// The reason by which a failed check was passed over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub forced: Option<String>,
    /// What was changed since the start.
    #[serde(default)]
    pub overrides: Overrides,
    /// Counts at the last resume from a halt: `stop_if` looks at what came after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_base: Option<StopBase>,
}

/// The counts that `stop_if` subtracts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StopBase {
    /// Rows delivered.
    pub delivered: u64,
    /// Rows bounced.
    pub bounced: u64,
    /// Deferred attempts.
    pub deferred: u64,
    /// Complaints.
    pub complained: u64,
    /// Rows that ended otherwise.
    pub other: u64,
}

impl Record {
    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        // A record is made of texts and numbers: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From what is stored; an error names what can't be read.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            v: u8,
        }
        let found: Version = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if found.v != RECORD_VERSION {
            return Err(format!("version {} is not known, only {RECORD_VERSION}", found.v));
        }
        serde_json::from_slice(json).map_err(|e| e.to_string())
    }
}

/// What the upload, the checks and a preview know a campaign by: number, names, and the job as it is now.
#[derive(Clone, PartialEq, Debug)]
pub struct CampaignHead {
    /// Its number.
    pub no: CampaignNo,
    /// Whose it is.
    pub tenant: Name,
    /// Its id.
    pub id: Name,
    /// Where it stood when this was made.
    pub state: State,
    /// The pool that sends it: the job's, else the tenant's.
    pub pool: Name,
    /// Its job.
    pub job: Arc<Job>,
    /// The job's version.
    pub version: u32,
}

/// A started campaign as its rows are rendered from: it never changes while it is sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Sealed {
    /// Its number.
    pub no: CampaignNo,
    /// Whose it is.
    pub tenant: Name,
    /// Its id.
    pub id: Name,
    /// The pool that sends it: the job's, else the tenant's.
    pub pool: Name,
    /// Its job.
    pub job: Arc<Job>,
    /// The job's version.
    pub version: u32,
    /// When it was started: `now()` of its templates.
    pub started: Timestamp,
    /// When the rows of slot 0 are due.
    pub due: Timestamp,
}

/// The step of a campaign's own mail: the only one until there are follow-ups.
pub const FIRST_STEP: u8 = 0;

/// What the upload has counted. Written in the batches of the rows, so it is never out of step with them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadCounters {
    /// Octets of the upload that are on disk as rows: where it goes on.
    pub offset: u64,
    /// Whether the upload has come to its end.
    pub complete: bool,
    /// Rows that were read.
    pub read: u64,
    /// Rows that will be sent to.
    pub accepted: u64,
    /// Rows that can't be read, are too long, or whose address is not valid.
    pub invalid: u64,
    /// Rows whose address was there before.
    pub duplicate: u64,
    /// Rows whose address is suppressed.
    pub suppressed: u64,
    /// Rows that the segment or `exclude` leaves out, or for which the segment can't be worked out.
    pub excluded: u64,
    /// Rows with the address of a role (`info@`), where these are left out.
    pub role: u64,
    /// The next row's number.
    pub next_seq: u32,
}

/// How many rows came to which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Rows uploaded.
    pub total: u64,
    /// Taken by the remote.
    pub delivered: u64,
    /// Deferred attempts.
    pub deferred: u64,
    /// Refused for good by the remote.
    pub bounced: u64,
    /// Given up by us.
    pub failed: u64,
    /// Not sent: suppressed.
    pub suppressed: u64,
    /// Given up: too old.
    pub expired: u64,
    /// Not sent: the content could not be made.
    pub rendering_failed: u64,
    /// Not sent: taken out by a cancel or an operator.
    pub cancelled: u64,
    /// Complaints.
    pub complained: u64,
    /// Of the delivered, those that a mail reported as bounced later.
    pub late_bounces: u64,
    /// Rows that wait for their first or another attempt.
    pub waiting: u64,
    /// Of those, rows that were tried before.
    pub retrying: u64,
}

impl Counts {
    /// The counts in the words of the API.
    pub fn of(run: &RunCounts) -> Self {
        use crate::event::EventKind as Kind;
        let events = |kind: Kind| run.events.get(&kind).copied().unwrap_or(0);
        Self {
            total: run.rows,
            delivered: events(Kind::Delivered),
            deferred: events(Kind::Deferred),
            bounced: events(Kind::Bounced),
            failed: events(Kind::Failed),
            suppressed: events(Kind::Suppressed),
            expired: events(Kind::Expired),
            rendering_failed: events(Kind::RenderingFailed),
            cancelled: events(Kind::Cancelled) + events(Kind::Purged) + run.dropped,
            complained: events(Kind::Complained),
            late_bounces: run.late_bounces,
            waiting: run.fresh + run.queued,
            retrying: run.queued,
        }
    }

    /// Rows that have ended, whatever the end.
    pub fn ended(&self) -> u64 {
        self.delivered
            + self.bounced
            + self.failed
            + self.suppressed
            + self.expired
            + self.rendering_failed
            + self.cancelled
    }
}

/// The keys of `state`.
pub mod keys {
    use super::*;

    /// The prefix of all records.
    pub const RECORDS: &[u8] = b"campaign/";
    /// The prefix of all jobs.
    pub const JOBS: &[u8] = b"campaign-job/";
    /// The next number.
    pub const NEXT: &[u8] = b"campaign-next";

    /// A record.
    pub fn record(tenant: &Name, id: &Name) -> Vec<u8> {
        [RECORDS, tenant.as_str().as_bytes(), b"\0", id.as_str().as_bytes()].concat()
    }

    /// The tenant and id of a number, separated by a zero octet.
    pub fn number(no: CampaignNo) -> Vec<u8> {
        format!("campaign-no/{:08x}", no.0).into_bytes()
    }

    /// A version of a job.
    pub fn job(no: CampaignNo, version: u32) -> Vec<u8> {
        format!("campaign-job/{:08x}/{version:08x}", no.0).into_bytes()
    }

    /// The counters of an upload; the upload may put records of its own below it.
    pub fn upload(no: CampaignNo) -> Vec<u8> {
        format!("campaign-upload/{:08x}", no.0).into_bytes()
    }
}

/// Whose clock a started campaign goes by, where it is a fixed one.
pub fn fixed_zone(job: &Job) -> jiff::tz::TimeZone {
    match &job.schedule.time_zone {
        Some(Zone::Fixed(zone)) => zone.clone(),
        Some(Zone::Recipient) | None => jiff::tz::TimeZone::UTC,
    }
}
