//! What a campaign needs of parts that it does not own, as traits: other builders of this layer and the daemon implement them.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::job::{Job, Problem};
use super::model::{CampaignHead, Sealed, UploadCounters};
use crate::config::Rate;
use crate::queue::admin::{Changed, CommandError};
use crate::types::{CampaignNo, DeliveryId, Domain, Name, RowId, Timestamp};

/// A boxed future of a trait's method.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a campaign is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// Somebody paused it.
    Paused,
    /// Its window of hours is closed.
    Window,
    /// One of its own conditions stopped it.
    Halted,
}

/// What holds a campaign's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: HoldKind,
    /// Until when; `None` until it is told otherwise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

/// How the scheduler sends a campaign's rows: told at each change, and for all campaigns before the first message is sent after a start.
#[derive(Clone, PartialEq, Debug)]
pub struct CampaignControl {
    /// Whose it is.
    pub tenant: Name,
    /// Its id.
    pub campaign: Name,
    /// How fast, over all sources.
    pub rate: Option<Rate>,
    /// Its share against others, 1 to 10.
    pub priority: u8,
    /// What holds it.
    pub hold: Option<Hold>,
}

/// The scheduler's side.
pub trait Steer: Send + Sync {
    /// Applies a control at once; answers how many of its recipients are in an attempt, which can't be stopped.
    fn set(&self, control: CampaignControl) -> Fut<'_, Result<u64, CommandError>>;

    /// Which rows of a campaign are in an attempt now.
    fn in_flight(&self, campaign: CampaignNo) -> Fut<'_, Result<Vec<RowId>, CommandError>>;

    /// Takes one recipient out of its queue, with a `purged` event that names nobody. Answers when that can't be undone any more; what is in
    /// an attempt goes on, and is taken out if it would be tried again.
    fn erase(&self, tenant: &Name, domain: &Domain, what: DeliveryId, by: &str) -> Fut<'_, Result<(), CommandError>>;

    /// Takes out what is queued for another attempt, with an event each; answers what was in an attempt.
    fn cancel(&self, tenant: &Name, campaign: &Name, by: &str, reason: &str) -> Fut<'_, Result<Changed, CommandError>>;
}

/// The octets of an upload as they come.
pub trait Chunks: Send {
    /// The next octets; `None` at the end. An error means that the client is gone: what came before counts.
    fn next(&mut self) -> Fut<'_, Option<Result<Bytes, String>>>;
}

/// What a client says of an upload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UploadRequest {
    /// `Upload-Offset`: where these octets begin in the whole file.
    pub offset: Option<u64>,
    /// `Upload-Complete` (`?1`, `?0`): whether the end of these octets is the end of the file. Default: it is.
    pub complete: bool,
    /// The media type, lowercase, without parameters: `application/x-ndjson`, `text/csv`.
    pub media_type: String,
    /// `Content-Encoding`: `gzip`, `zstd`.
    pub encoding: Option<String>,
    /// Who uploads.
    pub by: String,
}

/// Why an upload was refused. What came before is on disk and counted.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum UploadError {
    /// The octets begin elsewhere than where the last ones ended: 409 with that place.
    #[error("the upload is at {expected}, not at {given}")]
    Offset {
        /// Where the next octets must begin.
        expected: u64,
        /// Where these do.
        given: u64,
    },
    /// Another upload into the campaign is under way, or too many at all: 409, and try again.
    #[error("{0}")]
    Busy(String),
    /// It can't be read: 422; names line or row and what is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It is of a kind that is not taken: 415.
    #[error("{0}")]
    Media(String),
    /// It is too large: 413.
    #[error("{0}")]
    TooLarge(String),
    /// The client is gone, or too slow.
    #[error("the upload broke off: {0}")]
    Broken(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] crate::store::SubmitError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] crate::store::ReadError),
}

/// Takes recipients in (`campaign::recipients`).
///
/// Rows go to the store with [`keys::upload`](super::model::keys::upload) in the same batches; `Ok` means: on disk.
pub trait Recipients: Send + Sync {
    /// Reads an upload to its end.
    fn upload<'a>(
        &'a self,
        campaign: Arc<CampaignHead>,
        request: UploadRequest,
        body: Box<dyn Chunks + 'a>,
    ) -> Fut<'a, Result<UploadCounters, UploadError>>;

    /// How far the upload is.
    fn counters(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<UploadCounters, UploadError>>;

    /// Makes rows of the job's audience, where it has one and this was not done yet. Called at the start, before the checks.
    fn select(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<UploadCounters, UploadError>>;

    /// A page of the rows that were not taken, as NDJSON with row number and reason, after a row number; `None` where there are no more.
    fn rejects(
        &self,
        campaign: Arc<CampaignHead>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Option<(Bytes, u64)>, UploadError>>;

    /// Records of its own that a deleted campaign leaves, as changes of the batch that deletes it.
    fn forget(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<Vec<crate::store::Change>, UploadError>>;
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It blocks a start, unless it is forced.
    Error,
    /// It is shown.
    Warning,
    /// It is fine, and said for completeness.
    Info,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was checked, a stable word: `spf`, `dkim`, `missing_variables`, …
    pub check: String,
    /// What is wrong.
    pub message: String,
    /// Why that matters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// What mends it: the DNS record to paste.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<String>,
}

/// Checks a campaign before its start (`campaign::check`).
pub trait Check: Send + Sync {
    /// All findings, the worst first. May ask the DNS and scan rows: it bounds its own time.
    fn check(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Vec<Finding>>;
}

/// A variable that rows lack.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub variable: String,
    /// How many rows lack it.
    pub rows: u64,
    /// How many rows were looked at.
    pub of: u64,
}

/// Which preview is wanted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PreviewRequest {
    /// The row of this address.
    pub address: Option<crate::types::Mailbox>,
    /// Or a row as it would be uploaded: `{email, vars}`.
    pub row: Option<serde_json::Map<String, serde_json::Value>>,
    /// Or the worst rows: longest, most blanks.
    pub worst: bool,
    /// An expression in place of the job's segment: counts and sample rows.
    pub segment: Option<String>,
}

/// Why a preview, test or scan did not work.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ContentError {
    /// No such row.
    #[error("{0}")]
    NotFound(String),
    /// The job or the request is wrong.
    #[error("{}", .0.first().map_or_else(|| "the job is wrong".to_owned(), ToString::to_string))]
    Invalid(Vec<Problem>),
    /// Not now: the store, the intake.
    #[error("{0}")]
    Unavailable(String),
}

/// Compiles and renders a campaign (`campaign::content`).
pub trait Content: Send + Sync {
    /// What is wrong with the job's templates and expressions, with line and column in them. Pure; called for each new job.
    fn problems(&self, job: &Job) -> Vec<Problem>;

    /// The variables that rows lack, by a scan over all of them.
    fn missing(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<Vec<Missing>, ContentError>>;

    /// A preview as JSON: headers, text, HTML; or counts and rows of a segment.
    fn preview(
        &self,
        campaign: Arc<CampaignHead>,
        request: PreviewRequest,
    ) -> Fut<'_, Result<serde_json::Value, ContentError>>;

    /// Sends a test to these, or to the job's test recipients; answers their message ids. Counts for nothing.
    fn test(
        &self,
        campaign: Arc<CampaignHead>,
        to: Vec<super::job::TestRecipient>,
        by: String,
    ) -> Fut<'_, Result<Vec<crate::types::MessageId>, ContentError>>;

    /// A campaign is sealed: what rendering needs of it may be prepared before the first row asks. Must not block.
    fn sealed(&self, campaign: &Arc<Sealed>);

    /// No row of it will be rendered any more: what was kept for it can go.
    fn ended(&self, no: crate::types::CampaignNo);
}

/// The ports together.
#[derive(Clone)]
pub struct Ports {
    /// The scheduler.
    pub steer: Arc<dyn Steer>,
    /// The upload.
    pub recipients: Arc<dyn Recipients>,
    /// The checks.
    pub check: Arc<dyn Check>,
    /// Templates and rendering.
    pub content: Arc<dyn Content>,
}
