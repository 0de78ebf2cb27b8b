//! The upload engine: one body into one campaign.
//!
//! 1. [`Recipients::upload`] claims the campaign (one upload at a time) and finds out where the body begins: a new part, or the middle of one
//!    that broke off,
//! 2. a thread reads it ([`super::reading`]) and hands over batches of rows,
//! 3. each batch is held against the campaign's rows, the one that is being committed, the suppression list and what is excluded,
//! 4. and goes to the ledger with its rejects and the new progress: all or nothing. While it is committed, the next one is screened; two
//!    are never under way, so that the progress never says more than what is on disk before it.
//!
//! The answer comes after the last commit: what it counts is on disk. A connection that breaks keeps what was committed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::body::{BodyError, Compression};
use super::limits::{BATCHES_MAX, CHUNKS_MAX, ROWS_MAX, UPLOADS_MAX};
use super::parse::{Format, Refusal};
use super::ports::{Screen, Target};
use super::reading::{Batch, Parsed, Start, read};
use super::record::{Reject, UploadRecord, chunk_key, decode_chunk, encode_chunk};
use super::row::{Reason, Rejected, UploadRow};
use crate::event::EventKind;
use crate::metrics::campaign::CampaignMetrics;
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, NewRow, NewRows, ReadError, Reader, SentStatus, SubmitError, Table};
use crate::types::{AddressHash, CampaignNo, Domain, Mailbox, QueueKey};

/// The most domains whose queue key is remembered during an upload; then they are forgotten, and made again.
const QUEUES_MAX: usize = 50_000;

/// The way in for the chunks of a body; an empty chunk says its end.
pub type Chunks = mpsc::Sender<Result<Bytes, BodyError>>;

/// The other end.
pub type ChunksReceiver = mpsc::Receiver<Result<Bytes, BodyError>>;

/// A channel for the chunks of a body: bounded, so that a connection is read as fast as its rows are committed.
pub fn chunks() -> (Chunks, ChunksReceiver) {
    mpsc::channel(CHUNKS_MAX)
}

/// What is said of a body beside its octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Input {
    /// `Content-Encoding`; without it the first octets tell.
    pub compression: Option<Compression>,
    /// `Content-Type`; without it the first octet tells.
    pub format: Option<Format>,
    /// `Upload-Offset`: where the body begins in its part; `None` begins a new part.
    pub offset: Option<u64>,
    /// The part that was begun is sent again from its beginning, whatever its offset.
    pub again: bool,
}

/// Why an upload did not come to its end. The record says what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Another upload into this campaign is under way.
    #[error("another upload into this campaign is under way")]
    Busy,
    /// Too many uploads at a time.
    #[error("{UPLOADS_MAX} uploads are under way already")]
    TooMany,
    /// The offset is not where the part ended.
    #[error("the upload goes on at offset {0}")]
    Offset(u64),
    /// The body can't be read any further.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The campaign is full.
    #[error("a campaign has at most {ROWS_MAX} rows")]
    Full,
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store could not be written.
    #[error(transparent)]
    Store(#[from] SubmitError),
    /// Something ended that should not.
    #[error("{0}")]
    Failed(String),
}

/// What an upload came to.
#[derive(Debug)]
pub struct Uploaded {
    /// What is on disk.
    pub record: UploadRecord,
    /// Rows that this body added.
    pub added: u64,
    /// Why it did not come to its end; `None` when it did.
    pub error: Option<UploadError>,
}

/// A page of rejected rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RejectsPage {
    /// The rows.
    pub rejects: Vec<Reject>,
    /// The `after` of the next page.
    pub next: u64,
    /// Whether there was more.
    pub more: bool,
}

/// The recipients of all campaigns; cheap to clone.
#[derive(Clone)]
pub struct Recipients(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    reader: Reader,
    clock: Clock,
    screen: Arc<dyn Screen>,
    metrics: Option<CampaignMetrics>,
    busy: Mutex<HashSet<CampaignNo>>,
}

/// A campaign that is being uploaded to.
struct Claim {
    inner: Arc<Inner>,
    campaign: CampaignNo,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.busy.lock().remove(&self.campaign);
        if let Some(metrics) = &self.inner.metrics {
            metrics.uploads.dec();
        }
    }
}

impl Recipients {
    /// An engine over this store.
    pub fn new(ledger: Ledger, reader: Reader, clock: Clock, screen: Arc<dyn Screen>) -> Self {
        Self(Arc::new(Inner { ledger, reader, clock, screen, metrics: None, busy: Mutex::default() }))
    }

    /// The same, with what it does counted there.
    pub fn counted(self, metrics: CampaignMetrics) -> Self {
        let Inner { ledger, reader, clock, screen, .. } = &*self.0;
        let (ledger, reader, clock, screen) = (ledger.clone(), reader.clone(), clock.clone(), screen.clone());
        Self(Arc::new(Inner { ledger, reader, clock, screen, metrics: Some(metrics), busy: Mutex::default() }))
    }

    /// What is counted.
    pub(super) fn metrics(&self) -> Option<&CampaignMetrics> {
        self.0.metrics.as_ref()
    }

    /// The store's reading side.
    pub(super) fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// What is on disk of a campaign's upload; an empty record where there is nothing.
    pub async fn record(&self, campaign: CampaignNo) -> Result<UploadRecord, ReadError> {
        match self.0.reader.state_get(UploadRecord::key(campaign)).await? {
            None => Ok(UploadRecord::default()),
            Some(json) => UploadRecord::from_json(&json).map_err(|why| ReadError(why.into())),
        }
    }

    /// Whether an upload into a campaign is under way.
    pub fn is_busy(&self, campaign: CampaignNo) -> bool {
        self.0.busy.lock().contains(&campaign)
    }

    /// Rejected rows after a cursor (0: from the first), at least `limit` of them where there are so many, in chunks.
    pub async fn rejects(&self, campaign: CampaignNo, after: u64, limit: usize) -> Result<RejectsPage, ReadError> {
        let record = self.record(campaign).await?;
        let mut page = RejectsPage { next: after, ..RejectsPage::default() };
        while page.next < record.chunks && page.rejects.len() < limit {
            if let Some(chunk) = self.0.reader.state_get(chunk_key(campaign, page.next)).await? {
                page.rejects.extend(decode_chunk(&chunk).map_err(|why| ReadError(why.into()))?);
            }
            page.next += 1;
        }
        page.more = page.next < record.chunks;
        Ok(page)
    }

    /// What removes all that an upload left beside its rows, in batches; for the purge of a campaign.
    pub async fn forget(&self, campaign: CampaignNo) -> Result<Vec<Change>, ReadError> {
        let record = self.record(campaign).await?;
        let chunks = (0..record.chunks).map(|chunk| chunk_key(campaign, chunk));
        let keys = chunks.chain([UploadRecord::key(campaign)]);
        Ok(keys.map(|key| Change::RemoveState { key }).collect())
    }

    /// Takes a body into a campaign. Goes on to the end even if nobody waits for the answer any more.
    pub async fn upload(
        &self,
        target: Arc<Target>,
        input: Input,
        body: ChunksReceiver,
    ) -> Result<Uploaded, UploadError> {
        let claim = self.claim(target.campaign)?;
        let mut record = self.record(target.campaign).await?;
        let start = begin(&mut record, input)?;
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let reading = target.clone();
        tokio::task::spawn_blocking(move || read(body, start, &reading, &sender));
        let upload = Upload {
            inner: self.0.clone(),
            target,
            saved: record.clone(),
            record,
            pending: HashSet::new(),
            queues: HashMap::new(),
            committing: None,
            added: 0,
        };
        let task = tokio::spawn(async move {
            let uploaded = upload.run(batches).await;
            drop(claim);
            uploaded
        });
        task.await.map_err(|e| UploadError::Failed(format!("the upload ended: {e}")))
    }

    fn claim(&self, campaign: CampaignNo) -> Result<Claim, UploadError> {
        let mut busy = self.0.busy.lock();
        if busy.contains(&campaign) {
            return Err(UploadError::Busy);
        }
        if busy.len() >= UPLOADS_MAX {
            return Err(UploadError::TooMany);
        }
        busy.insert(campaign);
        if let Some(metrics) = &self.0.metrics {
            metrics.uploads.inc();
        }
        Ok(Claim { inner: self.0.clone(), campaign })
    }
}

/// Where a body begins, and the record that it begins with.
fn begin(record: &mut UploadRecord, input: Input) -> Result<Start, UploadError> {
    match input.offset {
        // Rows that are there are repeats, wherever they stood the last time: an audience may have changed since.
        None if input.again => record.repeats = u64::MAX,
        Some(offset) if record.part > 0 => {
            if offset != record.counters.offset {
                return Err(UploadError::Offset(record.counters.offset));
            }
            if offset > 0 {
                record.counters.complete = false;
                return Ok(Start::Middle(record.shape.clone()));
            }
            // Sent again from its beginning: a compressed part has no other place to go on from.
            record.repeats = record.repeats.max(record.shape.place.row);
        }
        Some(offset) if offset > 0 => return Err(UploadError::Offset(0)),
        Some(_) | None => {
            record.part += 1;
            record.repeats = 0;
        }
    }
    record.counters.complete = false;
    record.counters.offset = 0;
    record.shape = Default::default();
    Ok(Start::Fresh(input.compression, input.format))
}

/// An upload that is under way.
struct Upload {
    inner: Arc<Inner>,
    target: Arc<Target>,
    /// As of the batch that was screened last.
    record: UploadRecord,
    /// As of the last commit.
    saved: UploadRecord,
    /// The addresses of the batch that is being committed.
    pending: HashSet<AddressHash>,
    queues: HashMap<Domain, Arc<QueueKey>>,
    committing: Option<(UploadRecord, JoinHandle<Result<(), SubmitError>>)>,
    added: u64,
}

impl Upload {
    async fn run(mut self, mut batches: mpsc::Receiver<Batch>) -> Uploaded {
        let before = self.record.counters.accepted;
        let error = self.take_all(&mut batches).await.err();
        // Whatever happened: what is under way is waited for, so that the answer says what is on disk.
        let error = match (error, self.settle().await) {
            (None, settled) => settled.err(),
            (error, _) => error,
        };
        self.added = self.saved.counters.accepted - before;
        if let Some(metrics) = &self.inner.metrics {
            metrics.uploads_broken.inc_by(u64::from(error.is_some()));
        }
        Uploaded { record: self.saved, added: self.added, error }
    }

    async fn take_all(&mut self, batches: &mut mpsc::Receiver<Batch>) -> Result<(), UploadError> {
        while let Some(batch) = batches.recv().await {
            let Batch { rows, shape, end } = batch;
            let changes = self.screen(rows).await?;
            let refusal = match end {
                None => None,
                Some(Ok(())) => {
                    self.record.counters.complete = true;
                    None
                }
                Some(Err(refusal)) => Some(refusal),
            };
            let complete = self.record.counters.complete;
            // Inside compressed data there is no place to go on from.
            self.record.counters.offset = if shape.compressed && !complete { 0 } else { shape.offset };
            self.record.shape = shape;
            self.commit(changes).await?;
            if let Some(refusal) = refusal {
                return Err(refusal.into());
            }
            if complete {
                return Ok(());
            }
        }
        Err(UploadError::Failed("the reading of the body ended".into()))
    }

    /// Waits for the commit that is under way.
    async fn settle(&mut self) -> Result<(), UploadError> {
        let Some((record, commit)) = self.committing.take() else { return Ok(()) };
        commit.await.map_err(|e| UploadError::Failed(e.to_string()))??;
        if let Some(metrics) = &self.inner.metrics {
            metrics.rows.inc_by(record.counters.accepted.saturating_sub(self.saved.counters.accepted));
        }
        self.saved = record;
        Ok(())
    }

    /// Hands a batch over, once the one before is on disk.
    async fn commit(&mut self, (rows, rejects): (Vec<NewRow>, Vec<Reject>)) -> Result<(), UploadError> {
        self.settle().await?;
        self.pending.clear();
        self.pending.extend(rows.iter().map(|row| row.hash));
        let Target { campaign, step, .. } = *self.target;
        let mut changes = Vec::with_capacity(3);
        if !rejects.is_empty() {
            let key = chunk_key(campaign, self.record.chunks);
            changes.push(Change::PutState { key, value: encode_chunk(&rejects) });
            self.record.chunks += 1;
        }
        self.record.updated = self.inner.clock.now();
        if !rows.is_empty() {
            changes.push(Change::Rows(Box::new(NewRows { campaign, step, rows })));
        }
        changes.push(Change::PutState { key: UploadRecord::key(campaign), value: self.record.to_json() });
        let ledger = self.inner.ledger.clone();
        let commit = tokio::spawn(async move { ledger.submit(changes).await });
        self.committing = Some((self.record.clone(), commit));
        Ok(())
    }

    /// Parts a batch into rows to store and rejects to keep, and counts both.
    async fn screen(&mut self, parsed: Vec<Parsed>) -> Result<(Vec<NewRow>, Vec<Reject>), UploadError> {
        let verdicts = self.verdicts(&parsed).await?;
        let mut verdicts = verdicts.into_iter();
        let (mut rows, mut rejects) = (Vec::with_capacity(parsed.len()), Vec::new());
        for (place, row) in parsed {
            let verdict = match row {
                Err(rejected) => Err(rejected),
                Ok(row) => match verdicts.next().flatten() {
                    None => Ok(row),
                    Some((reason, detail)) => Err(Rejected::new(reason, row.mailbox.as_str(), detail)),
                },
            };
            let again = place.row <= self.record.repeats;
            match verdict {
                Ok(row) => {
                    self.record.counters.read += 1;
                    rows.push(self.accept(row)?);
                }
                Err(_) if again => self.record.repeated += 1,
                Err(rejected) => {
                    self.record.counters.read += 1;
                    self.record.count(place, &rejected);
                    if let Some(metrics) = &self.inner.metrics {
                        metrics.rejected.with_label_values(&[rejected.reason.as_str()]).inc();
                    }
                    if self.record.keeps_reject() {
                        let Rejected { reason, address, detail } = rejected;
                        let part = self.record.part;
                        rejects.push(Reject { part, row: place.row, line: place.line, address, reason, detail });
                    }
                }
            }
        }
        Ok((rows, rejects))
    }

    fn accept(&mut self, row: UploadRow) -> Result<NewRow, UploadError> {
        let counters = &mut self.record.counters;
        if counters.next_seq >= ROWS_MAX {
            return Err(UploadError::Full);
        }
        let seq = counters.next_seq;
        counters.next_seq += 1;
        counters.accepted += 1;
        self.record.unknown_zones += u64::from(row.unknown_zone);
        if self.queues.len() >= QUEUES_MAX {
            self.queues.clear();
        }
        let queue = match self.queues.get(row.mailbox.domain()) {
            Some(queue) => queue.clone(),
            None => {
                let queue = Arc::new(self.target.queue(&row.mailbox));
                self.queues.insert(row.mailbox.domain().clone(), queue.clone());
                queue
            }
        };
        Ok(NewRow { queue, slot: row.slot, seq, hash: row.hash, value: row.value })
    }

    /// For each row that can be read: why it is not sent to, if so.
    async fn verdicts(&self, parsed: &[Parsed]) -> Result<Vec<Option<(Reason, String)>>, ReadError> {
        let rows: Vec<&UploadRow> = parsed.iter().filter_map(|(_, row)| row.as_ref().ok()).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let hashes: Vec<AddressHash> = rows.iter().map(|row| row.hash).collect();
        let mailboxes: Vec<Mailbox> = rows.iter().map(|row| row.mailbox.clone()).collect();
        let Target { campaign, step, .. } = *self.target;
        let sent = self.inner.reader.sent(campaign, step, hashes.clone()).await?;
        let suppressed = self.inner.screen.suppressed(&self.target, &mailboxes).await?;
        let excluded = self.excluded(&hashes, &mailboxes).await?;
        let mut here = HashSet::with_capacity(rows.len());
        let mut verdicts = Vec::with_capacity(rows.len());
        for (((hash, sent), suppressed), excluded) in hashes.iter().zip(sent).zip(suppressed).zip(excluded) {
            let there = sent.is_some() || self.pending.contains(hash) || !here.insert(*hash);
            verdicts.push(match (there, suppressed, excluded) {
                (true, _, _) => Some((Reason::Duplicate, String::new())),
                (false, Some(why), _) => Some((Reason::Suppressed, why.into())),
                (false, None, Some(why)) => Some((Reason::Excluded, why)),
                (false, None, None) => None,
            });
        }
        Ok(verdicts)
    }

    /// Who got an excluded campaign, or is in an excluded audience.
    async fn excluded(&self, hashes: &[AddressHash], mailboxes: &[Mailbox]) -> Result<Vec<Option<String>>, ReadError> {
        let mut excluded = vec![None; hashes.len()];
        for campaign in &self.target.exclude_campaigns {
            let sent = self.inner.reader.sent(*campaign, self.target.step, hashes.to_vec()).await?;
            for (place, sent) in excluded.iter_mut().zip(sent) {
                if sent.is_some_and(|s| matches!(s.status, SentStatus::Ended(EventKind::Delivered, _))) {
                    *place = Some("got an excluded campaign".to_owned());
                }
            }
        }
        for audience in &self.target.exclude_audiences {
            let key = |mailbox: &Mailbox| crate::campaign::contacts::key(&self.target.tenant, audience, mailbox);
            let found = self.inner.reader.table_get(Table::Contacts, mailboxes.iter().map(key).collect()).await?;
            for (place, found) in excluded.iter_mut().zip(found) {
                if found.is_some() {
                    *place = Some(format!("is in the audience {audience}"));
                }
            }
        }
        Ok(excluded)
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
