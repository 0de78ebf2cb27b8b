//! The ledger thread: the only writer.
//!
//! 1. It waits for outcomes, submissions, or the next second;
//! 2. takes all that has come, and under load waits a little since the last commit for more ([`Pace`]);
//! 3. makes one batch of it ([`Work`]), writes it and syncs once;
//! 4. answers all who waited, then tells the egress side ([`Outbox`]) and the readers of events;
//! 5. moves the watermarks of queues that lost many entries, and once a second looks after the house.
//!
//! Any error of the database ends it: all who wait and all who come are told [`SubmitError::Failed`]. No sync is tried
//! again, since a failed one may have dropped what it was to write.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fjall::PersistMode;
use tokio::sync::{oneshot, watch};

use super::handle::change_bytes;
use super::house::House;
use super::outbox::Outbox;
use super::records::Last;
use super::spaces::Spaces;
use super::status::Shared;
use super::steps::Steps;
use super::table::QueueTable;
use super::work::{Work, WorkError};
use super::{Change, LedgerRequest, LedgerRequests, News, Settle, SubmitError, keys, row_records};
use crate::seam::clock::Clock;
use crate::types::{EventSeq, QueueId, RowId};

/// Under load a batch is filled until so long after the last commit: what a submitter waits for at the most besides the sync.
const FILL: Duration = Duration::from_millis(3);

/// So many requests are a full batch: more make it hardly cheaper.
const BATCH_FULL: usize = 128;

/// The most requests of each kind in a batch; the rest waits for the next.
const BATCH_MAX: usize = 1_024;

/// No more submissions are taken into a batch that has so many octets.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The most octets of rows that a batch has, besides the upload that passes this: mail does not wait for an upload's sync.
const UPLOAD_BYTES_MAX: usize = 256 << 10;

/// Between two steps of a purge or an erasure.
const PURGE_PAUSE: Duration = Duration::from_millis(20);

/// So many uploads that wait are enough not to wait for more.
const UPLOADS_FULL: usize = 8;

/// How often the house is looked after.
const TICK: Duration = Duration::from_secs(1);

/// The ledger thread's things.
pub(super) struct LedgerThread {
    pub(super) spaces: Arc<Spaces>,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: LedgerRequests,
    pub(super) table: QueueTable,
    pub(super) steps: Steps,
    pub(super) last: Last,
    pub(super) outbox: Outbox,
    pub(super) committed: watch::Sender<EventSeq>,
    pub(super) clock: Clock,
    pub(super) mode: PersistMode,
    pub(super) house: House,
    pub(super) taken: Taken,
    pub(super) pace: Pace,
}

/// A submission that was taken.
struct Submission {
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<(), SubmitError>>,
    /// Given back when the submission is done.
    _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// What was taken from the channels and waits for its batch.
#[derive(Default)]
pub(super) struct Taken {
    settles: Vec<Settle>,
    submits: Vec<Submission>,
    /// Submissions with rows: after the others, and not all in one batch.
    uploads: VecDeque<Submission>,
    /// Of `submits` and `uploads`.
    bytes: usize,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Taken {
    fn push(&mut self, request: LedgerRequest) {
        match request {
            LedgerRequest::Settle(settle) => self.settles.push(settle),
            LedgerRequest::Submit { changes, reply, room } => {
                self.bytes += changes.iter().map(change_bytes).sum::<usize>();
                let uploads = changes.iter().any(|change| matches!(change, Change::Rows(_)));
                let submission = Submission { changes, reply, _room: room };
                if uploads {
                    self.uploads.push_back(submission);
                } else {
                    self.submits.push(submission);
                }
            }
            LedgerRequest::Shutdown { reply } => self.shutdown = Some(reply),
        }
    }

    fn is_full(&self) -> bool {
        self.settles.len() + self.submits.len() >= BATCH_FULL
            || self.uploads.len() >= UPLOADS_FULL
            || self.bytes >= BATCH_BYTES_MAX
            || self.shutdown.is_some()
    }

    fn is_empty(&self) -> bool {
        self.settles.is_empty() && self.submits.is_empty() && self.uploads.is_empty()
    }

    /// How many wait for an answer.
    fn waiters(&self) -> usize {
        self.submits.len() + self.uploads.len()
    }

    /// What the next batch takes: all submissions, then uploads up to their share.
    fn for_batch(&mut self) -> Vec<Submission> {
        let mut batch = std::mem::take(&mut self.submits);
        let mut bytes = 0;
        while bytes < UPLOAD_BYTES_MAX
            && let Some(upload) = self.uploads.pop_front()
        {
            bytes += upload.changes.iter().map(change_bytes).sum::<usize>();
            batch.push(upload);
        }
        self.bytes = self.uploads.iter().flat_map(|upload| &upload.changes).map(change_bytes).sum();
        batch
    }

    fn fail_all(&mut self, error: &SubmitError) {
        self.settles.clear();
        for submission in self.submits.drain(..).chain(self.uploads.drain(..)) {
            // Nobody may be waiting any more; the answer is the same.
            let _ = submission.reply.send(Err(error.clone()));
        }
    }
}

/// When a batch is worth committing.
///
/// A commit costs 93 µs of CPU for one request and 16 each for 128, so under load it pays to wait. A submitter that is
/// alone gains nothing by that: it waits for us. So a batch goes out as soon as as many submissions have come as the
/// last batches had (which is one for a lone submitter), at the latest [`FILL`] after the last commit; when idle, at once.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    expected: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { last: None, expected: 0 }
    }

    /// How long to wait for more; `None`: commit now.
    fn wait(&self, now: Instant, submits: usize, full: bool) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last?);
        if full || since >= FILL || (submits > 0 && submits >= self.expected) {
            return None;
        }
        Some(FILL - since)
    }

    fn committed(&mut self, now: Instant, submits: usize) {
        self.expected = submits.max(self.expected - self.expected.div_ceil(8));
        self.last = Some(now);
    }
}

/// Makes a failure known before the answers of those who wait are dropped: a dropped one says a shutdown where no failure is known.
fn known<T>(failed: &OnceLock<Arc<str>>, result: Result<T, WorkError>) -> Result<T, WorkError> {
    result.inspect_err(|error| {
        // Only the first failure is told.
        let _ = failed.set(format!("the store can't be written: {error}").into());
    })
}

/// What the thread woke up for.
enum Woken {
    Work,
    Tick,
    Ended,
}

impl LedgerThread {
    /// Runs until a shutdown, a failure, or until no handle is left.
    pub(super) fn run(mut self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return self.end_failed(&format!("no runtime for the ledger thread: {error}")),
        };
        if let Err(error) = runtime.block_on(self.serve()) {
            self.end_failed(&format!("the store can't be written: {error}"));
        }
    }

    async fn serve(&mut self) -> Result<(), WorkError> {
        let mut next_tick = Instant::now() + TICK;
        let mut next_purge = Instant::now();
        loop {
            let purging = self.steps.has_steps();
            let until = if purging { next_tick.min(next_purge) } else { next_tick };
            match self.wait(until).await {
                Woken::Work => {
                    let ended = self.fill().await;
                    self.commit()?;
                    if let Some(reply) = self.taken.shutdown.take() {
                        return self.shut_down(reply);
                    }
                    if ended && self.taken.is_empty() {
                        return Ok(());
                    }
                }
                Woken::Tick => {}
                Woken::Ended => return Ok(()),
            }
            let now = Instant::now();
            if now >= next_purge {
                next_purge = now + PURGE_PAUSE;
                self.purge()?;
            }
            if now >= next_tick {
                next_tick = now + TICK;
                self.shared.commit_begins();
                let done = self.tick();
                self.shared.commit_ends();
                done?;
            }
        }
    }

    async fn wait(&mut self, next_tick: Instant) -> Woken {
        if !self.taken.is_empty() {
            // Uploads that the last batch had no room for.
            self.drain();
            return Woken::Work;
        }
        let waiting = self.outbox.waiting();
        let first = tokio::select! {
            biased;
            request = self.requests.settles.recv() => request,
            request = self.requests.submits.recv() => request,
            () = self.outbox.room(), if waiting => {
                self.outbox.flush(&self.table);
                return Woken::Tick;
            }
            () = tokio::time::sleep_until(next_tick.into()) => return Woken::Tick,
        };
        // Both senders live in one handle: when one channel is closed and empty, the other is closed too.
        let ended = first.is_none();
        if let Some(request) = first {
            self.taken.push(request);
        }
        self.drain();
        if ended && self.taken.is_empty() && self.taken.shutdown.is_none() { Woken::Ended } else { Woken::Work }
    }

    /// Takes what is there, without waiting.
    fn drain(&mut self) {
        while self.taken.settles.len() < BATCH_MAX
            && let Ok(request) = self.requests.settles.try_recv()
        {
            self.taken.push(request);
        }
        while self.taken.waiters() < BATCH_MAX
            && self.taken.bytes < BATCH_BYTES_MAX
            && let Ok(request) = self.requests.submits.try_recv()
        {
            self.taken.push(request);
        }
    }

    /// Waits for more as far as it is worth it. Answers whether the channels are closed.
    async fn fill(&mut self) -> bool {
        loop {
            let wait = self.pace.wait(Instant::now(), self.taken.waiters(), self.taken.is_full());
            let Some(wait) = wait else { return false };
            let next = tokio::select! {
                biased;
                request = self.requests.settles.recv() => request,
                request = self.requests.submits.recv() => request,
                () = tokio::time::sleep(wait) => return false,
            };
            let Some(request) = next else { return true };
            self.taken.push(request);
            self.drain();
        }
    }

    /// A batch under the eyes of the guard. All of it: making a day of the log syncs, too, not the write of the batch alone.
    fn commit(&mut self) -> Result<(), WorkError> {
        self.shared.commit_begins();
        let done = self.commit_batch();
        self.shared.commit_ends();
        done
    }

    /// One batch: all that was taken, written and synced; then everybody is told.
    fn commit_batch(&mut self) -> Result<(), WorkError> {
        if self.taken.is_empty() {
            return Ok(());
        }
        let metrics = &self.shared.metrics;
        let now = self.clock.now();
        // Before anything is taken: those who wait are told of a failure by `end_failed`.
        let day = self.spaces.day(now.day(), EventSeq(self.last.seq.0 + 1))?;
        let submits = self.taken.for_batch();
        let requests = self.taken.settles.len() + submits.len();
        let (table, steps) = (&mut self.table, &mut self.steps);
        let mut work = Work::new(&self.spaces, &self.shared, table, steps, day, now, self.last.seq);
        for settle in self.taken.settles.drain(..) {
            known(&self.requests.failed, work.settle(settle))?;
        }
        let mut replies = Vec::with_capacity(submits.len());
        for Submission { changes, reply, _room } in submits {
            let accepts_mail = changes.iter().any(|c| matches!(c, Change::Accept(_) | Change::Rows(_)));
            let bytes = changes.iter().map(change_bytes).sum();
            match self.shared.refusal(accepts_mail, bytes) {
                Some(refusal) => {
                    metrics.refused_low_space.inc();
                    let _ = reply.send(Err(refusal));
                }
                None => {
                    known(&self.requests.failed, work.submit(changes))?;
                    replies.push((reply, _room));
                }
            }
        }
        let (ready, news) = work.finish(self.last);
        let submits = replies.len();
        if let Some(ready) = ready {
            let began = Instant::now();
            let result = ready.batch.durability(Some(self.mode)).commit();
            if let Err(error) = result {
                let failure = SubmitError::Failed(format!("the store can't be written: {error}").into());
                for (reply, _room) in replies {
                    let _ = reply.send(Err(failure.clone()));
                }
                return Err(error.into());
            }
            self.last = ready.last;
            metrics.commits.inc();
            metrics.commit_requests.observe(requests as f64);
            metrics.commit_bytes.observe(ready.bytes as f64);
            metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
            metrics.events.inc_by(ready.events);
            if ready.events > 0 {
                // Before the answers: who was answered finds its own event.
                self.committed.send_replace(self.last.seq);
            }
            for (reply, _room) in replies {
                // Whoever is gone by now finds it in the log.
                let _ = reply.send(Ok(()));
            }
            self.tell(news);
            self.move_watermarks(ready.overdue)?;
        } else {
            for (reply, _room) in replies {
                let _ = reply.send(Ok(()));
            }
            self.tell(news);
        }
        self.pace.committed(Instant::now(), submits);
        Ok(())
    }

    fn tell(&mut self, news: Vec<News>) {
        if !self.outbox.send(news, &self.table) {
            self.shared.metrics.news_dropped.inc();
        }
    }

    /// Looks up the first entry of queues that lost many, so that no scan has to pass the tombstones again.
    fn move_watermarks(&mut self, overdue: Vec<QueueId>) -> Result<(), WorkError> {
        for id in overdue {
            let Some(queue) = self.table.get(id) else { continue };
            let range = keys::entry(id, queue.watermark).to_vec()..=keys::last_entry(id).to_vec();
            match self.spaces.queue.range(range).next() {
                Some(first) => {
                    if let Some((_, key)) = keys::parse_entry(&first.key()?) {
                        self.table.first_is(id, key);
                    }
                }
                // All that the queue counts are rows of a campaign.
                None => self.table.first_is(id, keys::LAST_ENTRY),
            }
            self.move_mark(id)?;
        }
        Ok(())
    }

    /// Looks up the first row of a queue that was not tried yet.
    fn move_mark(&mut self, id: QueueId) -> Result<(), WorkError> {
        let Some(queue) = self.table.get(id) else { return Ok(()) };
        let Some(rows) = queue.row.rows.filter(|rows| rows.fresh > 0) else { return Ok(()) };
        let (campaign, step, high) = (rows.campaign, rows.step, queue.places.high);
        let at = |(slot, seq)| keys::row(RowId { campaign, step, queue: id, slot, seq });
        for guard in self.spaces.rows.range(at(queue.places.mark)..=at((u8::MAX, u32::MAX))) {
            let (key, value) = guard.into_inner()?;
            let Some(row) = keys::parse_row(&key) else { continue };
            let place = (row.slot, row.seq);
            let waiting = Some(place) > high || {
                let Ok(hash) = row_records::row_hash(&value) else { continue };
                let sent = self.spaces.sent.get(keys::sent((campaign, step), hash))?;
                sent.is_some_and(|value| row_records::is_waiting(&value))
            };
            if waiting {
                self.table.mark_is(id, place);
                return Ok(());
            }
        }
        Ok(())
    }

    /// A step of the first purge and of the first erasure that are under way.
    fn purge(&mut self) -> Result<(), WorkError> {
        if let Some((campaign, purge)) = self.steps.next_purge() {
            self.quietly(|work| work.purge_step(campaign, purge))?;
        }
        if let Some((tenant, hash)) = self.steps.next_erasure() {
            self.quietly(|work| work.erase_step(tenant, hash))?;
        }
        Ok(())
    }

    /// A batch of the ledger's own, without events, that nobody waits for.
    fn quietly(&mut self, make: impl FnOnce(&mut Work<'_>) -> Result<(), WorkError>) -> Result<(), WorkError> {
        let now = self.clock.now();
        let day = self.spaces.day(now.day(), EventSeq(self.last.seq.0 + 1))?;
        let (table, steps) = (&mut self.table, &mut self.steps);
        let mut work = Work::new(&self.spaces, &self.shared, table, steps, day, now, self.last.seq);
        make(&mut work)?;
        if let (Some(ready), _) = work.finish(self.last) {
            ready.batch.durability(Some(self.mode)).commit()?;
            self.last = ready.last;
        }
        Ok(())
    }

    /// Once a second: a database that was poisoned by its own threads, the mark, the days, the sweeps, the figures.
    fn tick(&mut self) -> Result<(), WorkError> {
        self.spaces.db.persist(PersistMode::Buffer)?;
        let now = self.clock.now();
        let totals = self.table.totals();
        let metrics = &self.shared.metrics;
        metrics.queues.set(totals.queues as i64);
        metrics.queued.set(totals.entries as i64);
        metrics.queued_bytes.set(totals.bytes as i64);
        self.house.mark(self.last);
        self.house.tick(&self.spaces, &self.shared, now)?;
        let expired = self.house.expired(&self.spaces, now)?;
        if !expired.is_empty() {
            self.quietly(|work| {
                expired.iter().for_each(|key| work.sweep_state(key));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Commits what is still in the channels, leaves the mark, and ends.
    fn shut_down(&mut self, reply: oneshot::Sender<()>) -> Result<(), WorkError> {
        self.requests.submits.close();
        self.requests.settles.close();
        loop {
            self.drain();
            if self.taken.is_empty() {
                break;
            }
            self.commit()?;
        }
        self.outbox.flush(&self.table);
        self.spaces.db.persist(PersistMode::SyncAll)?;
        self.house.mark(self.last);
        // Who asked may have given up waiting; the thread ends either way.
        let _ = reply.send(());
        Ok(())
    }

    fn end_failed(mut self, reason: &str) {
        self.shared.fail(reason);
        let error = self.shared.failure().unwrap_or(SubmitError::ShuttingDown);
        self.requests.submits.close();
        self.requests.settles.close();
        loop {
            self.drain();
            if self.taken.is_empty() {
                break;
            }
            self.taken.bytes = 0;
            self.taken.fail_all(&error);
        }
    }
}

#[cfg(test)]
mod tests;
