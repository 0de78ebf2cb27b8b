//! What requests and answers about campaigns look like, for the document; the types of the layer below know no HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::campaign::model::State;
use crate::types::{Name, Timestamp};

/// A campaign in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CampaignSummary {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Name,
    /// Whose it is.
    #[schema(value_type = String)]
    pub tenant: Name,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    #[schema(value_type = String)]
    pub state: State,
    /// Why it stands there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The version of its job.
    pub version: u32,
    /// Rows at the start.
    pub rows: u64,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    pub created: Timestamp,
    /// When it changed last.
    #[schema(value_type = String, format = "date-time")]
    pub updated: Timestamp,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub started: Option<Timestamp>,
    /// When its first row is due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub due: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub ended: Option<Timestamp>,
}

/// A page of campaigns.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CampaignList {
    /// In the order of tenant and id.
    pub campaigns: Vec<CampaignSummary>,
    /// The `after` of the next page, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// A job. `from`, `subject` and one of `text` and `html` are needed.
#[derive(ToSchema)]
#[schema(as = Job)]
#[allow(dead_code)]
pub struct JobSchema {
    /// Its id, unique in the tenant; without one the server gives one.
    id: Option<String>,
    /// A name for people.
    name: Option<String>,
    /// `"Name <a@b.example>"`, or an object with `email` and `name`.
    #[schema(value_type = Object)]
    from: Value,
    /// One address or a list.
    #[schema(value_type = Option<Vec<Object>>)]
    reply_to: Option<Value>,
    /// A template.
    subject: String,
    /// A template.
    preheader: Option<String>,
    /// A template; without it one is made from the HTML.
    text: Option<String>,
    /// A template.
    html: Option<String>,
    /// Further header fields; values are templates.
    #[schema(value_type = Option<Object>)]
    headers: Option<Value>,
    /// Objects with `name`, `type`, `content` (base64) and `cid`.
    #[schema(value_type = Option<Vec<Object>>)]
    attachments: Option<Value>,
    /// `marketing` (default) or `transactional`.
    class: Option<String>,
    /// The pool of sources.
    pool: Option<String>,
    /// The list that an unsubscribe is for.
    list: Option<String>,
    /// Tags.
    tags: Option<Vec<String>>,
    /// Your own data, an object.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Variables for all rows; a row's own win.
    #[schema(value_type = Option<Object>)]
    variables: Option<Value>,
    /// The audience, in place of an uploaded list.
    audience: Option<String>,
    /// An expression that a row must fulfil.
    segment: Option<String>,
    /// `expression`, `campaigns` and `lists` that leave rows out.
    #[schema(value_type = Option<Object>)]
    exclude: Option<Value>,
    /// `at`, `window` (`days`, `from`, `to`), `time_zone` and `spread`.
    #[schema(value_type = Option<Object>)]
    schedule: Option<Value>,
    /// As `1000/min`.
    rate: Option<String>,
    /// As `2d`.
    expire_after: Option<String>,
    /// `skip` (default), `error` or `blank`.
    on_missing: Option<String>,
    /// Addresses, or objects with `email`, `as_row` and `vars`.
    #[schema(value_type = Option<Vec<Object>>)]
    test_recipients: Option<Value>,
    /// `hard_bounce_rate`, `deferral_rate`, `complaint_rate` (0 to 1) and `minimum`.
    #[schema(value_type = Option<Object>)]
    stop_if: Option<Value>,
    /// 1 to 10, default 5.
    priority: Option<u8>,
    /// Where its links point to.
    public_url: Option<String>,
}

/// A campaign.
#[derive(ToSchema)]
#[schema(as = Campaign)]
#[allow(dead_code)]
pub struct CampaignSchema {
    /// Its id.
    id: String,
    /// Its number in the store.
    no: u32,
    /// Whose it is.
    tenant: String,
    /// Its name for people.
    name: String,
    /// `draft`, `uploading`, `checking`, `scheduled`, `running`, `paused`, `done`, `cancelled` or `halted`.
    state: String,
    /// Why it stands there.
    reason: Option<String>,
    /// The reason by which a failed check was passed over.
    forced: Option<String>,
    /// The version of its job.
    version: u32,
    /// Who made it.
    by: String,
    /// When it was made.
    created: String,
    /// When it changed last.
    updated: String,
    /// When it was started.
    started: Option<String>,
    /// When its first row is due.
    due: Option<String>,
    /// When it ended.
    ended: Option<String>,
    /// How many rows came to which end.
    counts: CountsSchema,
    /// Rows that are in an attempt now, which nothing stops any more.
    in_flight: Option<u64>,
    /// `ended_per_second` and `delivered_per_second` of the last two minutes.
    #[schema(value_type = Option<Object>)]
    rates: Option<Value>,
    /// When it will be done, where that can be said.
    eta: Option<String>,
    /// What holds it: `reason` (`paused`, `window`, `halted`) and `until`.
    #[schema(value_type = Option<Object>)]
    hold: Option<Value>,
    /// The rate in force.
    rate: Option<String>,
    /// The window in force.
    #[schema(value_type = Option<Object>)]
    window: Option<Value>,
    /// The priority in force.
    priority: u8,
    /// What the upload has counted.
    upload: UploadSchema,
}

/// How many rows of a campaign came to which end.
#[derive(ToSchema)]
#[schema(as = CampaignCounts)]
#[allow(dead_code)]
pub struct CountsSchema {
    /// Rows uploaded.
    total: u64,
    /// Taken by the remote.
    delivered: u64,
    /// Deferred attempts.
    deferred: u64,
    /// Refused for good by the remote.
    bounced: u64,
    /// Given up by us.
    failed: u64,
    /// Not sent: suppressed.
    suppressed: u64,
    /// Given up: too old.
    expired: u64,
    /// Not sent: the content could not be made.
    rendering_failed: u64,
    /// Not sent: taken out.
    cancelled: u64,
    /// Complaints.
    complained: u64,
    /// Of the delivered, those that a mail reported as bounced later.
    late_bounces: u64,
    /// Rows that wait.
    waiting: u64,
    /// Of those, rows that were tried before.
    retrying: u64,
}

/// What an upload has counted.
#[derive(ToSchema)]
#[schema(as = Upload)]
#[allow(dead_code)]
pub struct UploadSchema {
    /// Where it goes on.
    offset: u64,
    /// Whether it has come to its end.
    complete: bool,
    /// Rows that were read.
    read: u64,
    /// Rows that will be sent to.
    accepted: u64,
    /// Rows whose address is not valid.
    invalid: u64,
    /// Rows whose address was there before.
    duplicate: u64,
    /// Rows whose address is suppressed.
    suppressed: u64,
    /// Rows that the segment or `exclude` leaves out.
    excluded: u64,
    /// Rows with the address of a role.
    role: u64,
    /// The next row's number.
    next_seq: u32,
}

/// What is changed of a campaign; `null` takes a rate or window away.
#[derive(ToSchema)]
#[schema(as = CampaignChange)]
#[allow(dead_code)]
pub struct ChangeSchema {
    /// As `1000/min`.
    rate: Option<String>,
    /// `days`, `from`, `to`.
    #[schema(value_type = Option<Object>)]
    window: Option<Value>,
    /// 1 to 10.
    priority: Option<u8>,
}

/// The answer to a start.
#[derive(ToSchema)]
#[schema(as = CampaignStarted)]
#[allow(dead_code)]
pub struct StartedSchema {
    /// The campaign.
    id: String,
    /// Where it stands now.
    state: String,
    /// Whether it had been started before.
    already: bool,
    /// Counts of its rows.
    counts: CountsSchema,
    /// When its first row is due.
    due: Option<String>,
    /// When it will be done by its rate and window alone.
    estimate: Option<String>,
    /// What the checks found.
    findings: Vec<FindingSchema>,
}

/// The answer to a pause, resume or cancel.
#[derive(ToSchema)]
#[schema(as = CampaignHeld)]
#[allow(dead_code)]
pub struct PausedSchema {
    /// The campaign.
    id: String,
    /// Where it stands now.
    state: String,
    /// Whether it stood there before.
    already: bool,
    /// Recipients in an attempt, which can't be stopped.
    in_flight: u64,
    /// Rows that wait, or that a cancel took out.
    recipients: u64,
}

/// What a check found.
#[derive(ToSchema)]
#[schema(as = Finding)]
#[allow(dead_code)]
pub struct FindingSchema {
    /// `error`, `warning` or `info`.
    severity: String,
    /// What was checked.
    check: String,
    /// What is wrong.
    message: String,
    /// Why that matters.
    why: Option<String>,
    /// What mends it.
    fix: Option<String>,
}

/// What all checks found.
#[derive(ToSchema)]
#[schema(as = Findings)]
#[allow(dead_code)]
pub struct FindingsSchema {
    /// The worst first.
    findings: Vec<FindingSchema>,
}
