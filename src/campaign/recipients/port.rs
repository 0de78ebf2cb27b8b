//! The recipients as the campaign engine and the API ask them: the campaign's record becomes a [`Target`], their words become ours.
//!
//! `Upload-Offset` counts the octets of a part's body as they are sent. It stands at the end of a row, so a part that broke off goes on
//! there: `PUT` with `Upload-Offset: n` sends the octets from n on. A `PUT` without the field begins a new part. A compressed part has no
//! such place: its offset stays 0 until it is complete, and it is sent again from its beginning; rows that are there already are counted as
//! repeated, not as duplicates.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::body::{BodyError, Compression};
use super::parse::{Format, Refusal};
use super::ports::{Screen, Select, Target};
use super::upload::{Chunks, Input, Recipients, UploadError, Uploaded, chunks};
use crate::campaign::contacts::Contacts;
use crate::campaign::model::{CampaignHead, Record, UploadCounters, keys};
use crate::campaign::ports::{self, Fut, UploadRequest};
use crate::config::Config;
use crate::metrics::campaign::CampaignMetrics;
use crate::seam::clock::Clock;
use crate::store::{Change, ReadError};
use crate::suppression::Suppressions;
use crate::types::{CampaignNo, Mailbox, Name};

/// Compiles the segment and the exclusion of a job; an error is a sentence for whoever uploads.
pub type Compile = Arc<dyn Fn(&CampaignHead) -> Result<Option<Arc<dyn Select>>, String> + Send + Sync>;

impl Screen for Suppressions {
    fn suppressed<'a>(
        &'a self,
        target: &'a Target,
        addresses: &'a [Mailbox],
    ) -> Fut<'a, Result<Vec<Option<Box<str>>>, ReadError>> {
        Box::pin(async move {
            let list = target.list.as_ref();
            let verdicts = self.check_many(&target.tenant, list, target.class, addresses).await?;
            Ok(verdicts.into_iter().map(|verdict| verdict.map(|v| v.to_string().into())).collect())
        })
    }
}

/// The port of `campaign::ports`.
pub struct RecipientsPort {
    recipients: Recipients,
    contacts: Contacts,
    config: Arc<ArcSwap<Config>>,
    clock: Clock,
    compile: Compile,
}

impl RecipientsPort {
    /// Over these engines; `compile` makes the segment.
    pub fn new(
        recipients: Recipients,
        contacts: Contacts,
        config: Arc<ArcSwap<Config>>,
        clock: Clock,
        compile: Compile,
    ) -> Self {
        Self { recipients, contacts, config, clock, compile }
    }

    /// What is uploaded to.
    pub async fn target(&self, head: &CampaignHead) -> Result<Target, ports::UploadError> {
        let select = (self.compile)(head).map_err(ports::UploadError::Invalid)?;
        let config = self.config.load();
        let tenant = config.tenants.iter().find(|tenant| tenant.name == head.tenant);
        // As intake does it: the job's, the tenant's, the first of the node.
        let first = || config.pools.first().map(|pool| pool.name.clone());
        let pool = head.job.pool.clone().or_else(|| tenant.and_then(|t| t.pool.clone())).or_else(first);
        let pool = match pool {
            Some(pool) => pool,
            None => Name::parse(DEFAULT_POOL).map_err(|e| ports::UploadError::Invalid(e.to_string()))?,
        };
        let mut excluded = Vec::new();
        for id in &head.job.exclude.campaigns {
            excluded.push(self.number(&head.tenant, id).await?);
        }
        Ok(Target::of(head, pool, self.clock.now(), select, excluded))
    }

    async fn number(&self, tenant: &Name, id: &Name) -> Result<CampaignNo, ports::UploadError> {
        let record = self.recipients.reader().state_get(keys::record(tenant, id)).await?;
        let Some(record) = record else {
            return Err(ports::UploadError::Invalid(format!("exclude.campaigns: there is no campaign {id}")));
        };
        Record::from_json(&record).map(|record| record.no).map_err(|why| ReadError(why.into()).into())
    }

    async fn take(
        &self,
        head: &CampaignHead,
        request: UploadRequest,
        body: Box<dyn ports::Chunks + '_>,
    ) -> Result<UploadCounters, ports::UploadError> {
        let input = input_of(&request)?;
        let target = Arc::new(self.target(head).await?);
        let (sender, receiver) = chunks();
        let given = request.offset.unwrap_or(0);
        let (uploaded, ()) = tokio::join!(
            self.recipients.upload(target, input, receiver),
            pump(body, sender, request.complete, self.recipients.metrics())
        );
        answer(uploaded, given, request.complete)
    }
}

/// The pool of a config that has none.
const DEFAULT_POOL: &str = "default";

/// Hands on what comes. Where the file does not end here, its last line may be half a row: that is the same as a break.
async fn pump(
    mut body: Box<dyn ports::Chunks + '_>,
    sender: Chunks,
    complete: bool,
    metrics: Option<&CampaignMetrics>,
) {
    loop {
        let chunk = match body.next().await {
            // An empty chunk says the end in the channel.
            Some(Ok(chunk)) if chunk.is_empty() => continue,
            Some(Ok(chunk)) => {
                metrics.inspect(|m| m.upload_octets.inc_by(chunk.len() as u64));
                Ok(chunk)
            }
            Some(Err(why)) => Err(BodyError::BrokenOff(why)),
            None if complete => Ok(Bytes::new()),
            None => Err(BodyError::BrokenOff("more is to come".into())),
        };
        let ends = chunk.as_ref().map_or(true, Bytes::is_empty);
        // An error means that the upload has ended: it refused the body.
        if sender.send(chunk).await.is_err() || ends {
            return;
        }
    }
}

fn answer(
    uploaded: Result<Uploaded, UploadError>,
    given: u64,
    complete: bool,
) -> Result<UploadCounters, ports::UploadError> {
    let (counters, error) = match uploaded {
        Ok(Uploaded { record, error, .. }) => (Some(record.counters), error),
        Err(error) => (None, Some(error)),
    };
    match (counters, error) {
        (Some(counters), None) => Ok(counters),
        (Some(counters), Some(UploadError::Refused(Refusal::BrokenOff(_)))) if !complete => Ok(counters),
        (_, Some(error)) => Err(said(error, given)),
        (None, None) => Err(ports::UploadError::Broken("nothing was read".into())),
    }
}

fn said(error: UploadError, given: u64) -> ports::UploadError {
    use ports::UploadError as Said;
    match error {
        UploadError::Busy | UploadError::TooMany => Said::Busy(error.to_string()),
        UploadError::Offset(expected) => Said::Offset { expected, given },
        UploadError::Refused(Refusal::BrokenOff(why)) => Said::Broken(why),
        UploadError::Refused(Refusal::Unreadable(why)) => Said::Invalid(why),
        UploadError::Refused(Refusal::Bomb(why)) => Said::TooLarge(why),
        UploadError::Full => Said::TooLarge(error.to_string()),
        UploadError::Read(error) => Said::Read(error),
        UploadError::Store(error) => Said::Store(error),
        UploadError::Failed(why) => Said::Broken(why),
    }
}

/// What a request says of its body. `Content-Type` may be missing or general; a type that is something else is refused.
pub fn input_of(request: &UploadRequest) -> Result<Input, ports::UploadError> {
    let format = match request.media_type.as_str() {
        "" | "application/octet-stream" | "text/plain" | "application/x-www-form-urlencoded" => None,
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/json-lines"
        | "application/json" => Some(Format::Ndjson),
        "text/csv" | "application/csv" | "text/tab-separated-values" | "application/vnd.ms-excel" => Some(Format::Csv),
        // Compression by its media type: the octets tell.
        "application/gzip" | "application/x-gzip" | "application/zstd" => None,
        other => {
            let why = format!("Content-Type {other:?} is not taken here: application/x-ndjson or text/csv");
            return Err(ports::UploadError::Media(why));
        }
    };
    let compression = match request.encoding.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => None,
        Some("gzip" | "x-gzip") => Some(Compression::Gzip),
        Some("zstd") => Some(Compression::Zstd),
        Some(other) => {
            let why = format!("Content-Encoding {other:?} is not taken here: gzip or zstd");
            return Err(ports::UploadError::Media(why));
        }
    };
    Ok(Input { compression, format, offset: request.offset, again: false })
}

impl ports::Recipients for RecipientsPort {
    fn upload<'a>(
        &'a self,
        campaign: Arc<CampaignHead>,
        request: UploadRequest,
        body: Box<dyn ports::Chunks + 'a>,
    ) -> Fut<'a, Result<UploadCounters, ports::UploadError>> {
        Box::pin(async move { self.take(&campaign, request, body).await })
    }

    fn counters(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<UploadCounters, ports::UploadError>> {
        Box::pin(async move { Ok(self.recipients.record(campaign.no).await?.counters) })
    }

    fn select(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<UploadCounters, ports::UploadError>> {
        Box::pin(async move {
            let record = self.recipients.record(campaign.no).await?;
            let Some(audience) = &campaign.job.audience else { return Ok(record.counters) };
            if record.part > 0 && record.counters.complete {
                return Ok(record.counters);
            }
            let target = Arc::new(self.target(&campaign).await?);
            let (sender, receiver) = chunks();
            let input = Input { format: Some(Format::Ndjson), again: record.part > 0, ..Input::default() };
            let (uploaded, ()) = tokio::join!(
                self.recipients.upload(target, input, receiver),
                self.contacts.pour(&campaign.tenant, audience, sender),
            );
            answer(uploaded, 0, true)
        })
    }

    fn rejects(
        &self,
        campaign: Arc<CampaignHead>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Option<(Bytes, u64)>, ports::UploadError>> {
        Box::pin(async move {
            let page = self.recipients.rejects(campaign.no, after, limit).await?;
            if page.rejects.is_empty() {
                return Ok(None);
            }
            let mut lines = Vec::new();
            for reject in &page.rejects {
                // Texts and numbers can always be written.
                let _ = serde_json::to_writer(&mut lines, reject);
                lines.push(b'\n');
            }
            Ok(Some((lines.into(), page.next)))
        })
    }

    fn forget(&self, campaign: Arc<CampaignHead>) -> Fut<'_, Result<Vec<Change>, ports::UploadError>> {
        Box::pin(async move { Ok(self.recipients.forget(campaign.no).await?) })
    }
}
