//! Sweeps: resumable walks over whole queues, a page at a time.
//!
//! A mark (purge, reroute) is durable before it is answered, and honoured at once: the rings dispose of what it concerns instead of
//! sending it. The sweep then finds the rest. After a restart it begins again: what is done is gone from the rows.
//!
//! A page that can't be read ends nothing: the sweep leaves the line and reads the same page again later, ever more seldom. Its mark
//! stays durable as long.
//!
//! An expiry sweep looks at what is due in a queue whose oldest entries may be too old; a retry sweep makes entries due now.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Scheduler;
use super::disposal::{Disposal, How};
use super::queue::{Purpose, Status};
use super::timers::TimerKey;
use super::windows::PAGE;
use crate::effects;
use crate::event::EventKind;
use crate::queue::admin::Matcher;
use crate::store::{EntryKey, QueueEntry, QueueRow, ReadError, Refill};
use crate::types::{Name, QueueId, QueueKey, Timestamp};

/// Sweeps that walk at the same time; the others wait in line.
const SWEEPS_ACTIVE: usize = 4;
/// Entries of one sweep that are being disposed of when the next page is read.
const OUTSTANDING_LOW: usize = 64;
/// A failed read is tried again after this, then after twice as long, and so on.
const READ_AGAIN_MIN: Duration = Duration::from_secs(1);
/// And at least so often.
const READ_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Whether a message that is to be taken out is still in an attempt is looked at so often.
const ATTEMPT_AGAIN: Duration = Duration::from_millis(250);
/// A queue is not searched for expired entries more often than this.
const EXPIRY_AGAIN_MIN: Duration = Duration::from_secs(60);
/// And not less often, while it holds entries that are not yet due.
pub(super) const EXPIRY_AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// An operator's order about mail that was accepted before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    pub id: u64,
    #[serde(rename = "match")]
    pub matcher: Matcher,
    pub kind: MarkKind,
    pub by: String,
    pub created: Timestamp,
}

/// What the order is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MarkKind {
    /// Take it out.
    Purge {
        reason: String,
        /// Because its campaign is cancelled; a record without it is of a time before campaigns.
        #[serde(default)]
        cancelled: bool,
    },
    /// Move it to another pool.
    Reroute { pool: Name },
}

impl Mark {
    /// Whether it concerns a queue: one that is in the target pool already is left alone.
    pub(super) fn concerns(&self, key: &QueueKey) -> bool {
        self.matcher.matches_queue(key) && self.target_pool().is_none_or(|pool| pool != key.pool)
    }

    fn concerns_entry(&self, entry: &QueueEntry) -> bool {
        let message = entry.key.delivery.message;
        // The id of a row tells its place, no time.
        let accepted = if entry.sent.is_some() { entry.accepted } else { message.timestamp() };
        accepted <= self.created
            && self.matcher.message.is_none_or(|m| m == message)
            && self.matcher.recipient.is_none_or(|index| index == entry.key.delivery.index)
            && self.matcher.older_than.is_none_or(|t| accepted < t)
    }

    /// Whether a person is erased: what is told of it names nobody.
    pub(super) fn is_erasure(&self) -> bool {
        self.matcher.recipient.is_some()
    }

    pub(super) fn target_pool(&self) -> Option<Name> {
        match &self.kind {
            MarkKind::Purge { .. } => None,
            MarkKind::Reroute { pool } => Some(pool.clone()),
        }
    }

    pub(super) fn event_kind(&self) -> EventKind {
        match self.kind {
            MarkKind::Purge { cancelled: true, .. } => EventKind::Cancelled,
            MarkKind::Purge { .. } => EventKind::Purged,
            MarkKind::Reroute { .. } => EventKind::Rerouted,
        }
    }

    pub(super) fn words(&self) -> String {
        match &self.kind {
            MarkKind::Purge { reason, .. } => format!("{reason} (by {})", self.by),
            MarkKind::Reroute { pool } => format!("to pool {pool} (by {})", self.by),
        }
    }
}

#[derive(Debug)]
pub(super) enum SweepKind {
    Expire {
        queue: QueueId,
        held: bool,
    },
    Mark(Rc<Mark>),
    Retry(Matcher),
    /// Make due now what no retry of ours can have set so late: the clock was ahead when it was written.
    Ahead,
}

impl SweepKind {
    fn words(&self) -> &'static str {
        match self {
            SweepKind::Expire { .. } => "expiry",
            SweepKind::Mark(mark) => match mark.kind {
                MarkKind::Purge { .. } => "purge",
                MarkKind::Reroute { .. } => "reroute",
            },
            SweepKind::Retry(_) => "retry",
            SweepKind::Ahead => "clock ahead",
        }
    }
}

#[derive(Debug)]
pub(super) struct Sweep {
    kind: SweepKind,
    queues: VecDeque<QueueId>,
    after: Option<EntryKey>,
    reading: bool,
    /// Reads that failed, one after the other.
    failed: u32,
    pub outstanding: usize,
    expires_min: Timestamp,
}

impl Scheduler {
    /// What a mark says about an entry, if one concerns it.
    pub(super) fn mark_for(&self, id: QueueId, entry: &QueueEntry) -> Option<How> {
        let ids = &self.queues.get(&id)?.marks;
        if ids.is_empty() {
            return None;
        }
        let mark = self.marks.iter().find(|m| ids.contains(&m.id) && m.concerns_entry(entry))?;
        Some(How::Mark(mark.clone()))
    }

    pub(super) fn start_sweep(&mut self, kind: SweepKind, queues: VecDeque<QueueId>) {
        let id = self.number();
        let sweep = Sweep {
            kind,
            queues,
            after: None,
            reading: false,
            failed: 0,
            outstanding: 0,
            expires_min: Timestamp::NEVER,
        };
        self.sweeps.insert(id, sweep);
        self.sweep_line.push_back(id);
    }

    /// Marks that were there at the start are carried out to their end.
    pub(super) fn begin_marks(&mut self) {
        for mark in self.marks.clone() {
            let concerned = self.ids_where(|key| mark.concerns(key));
            self.start_sweep(SweepKind::Mark(mark), concerned.into());
        }
    }

    /// Queues that were written by a clock which was ahead of ours: it was set back while we were down. Without this their mail would wait
    /// until the clock has caught up. Campaigns are left alone: their rows may be due at any time.
    pub(super) fn begin_ahead(&mut self, queues: VecDeque<QueueId>) {
        if !queues.is_empty() {
            tracing::warn!(target: "posthaste::queue", queues = queues.len(), "the clock was set back: mail that is due too late is due now");
            self.start_sweep(SweepKind::Ahead, queues);
        }
    }

    /// Whether all of a queue is due later than we could have said, or came in later than now.
    pub(super) fn is_ahead(&self, row: &QueueRow) -> bool {
        row.rows.is_none() && (row.next_due > self.retry_horizon() || row.oldest > self.now)
    }

    /// The latest time that a retry set now can have, jitter included.
    fn retry_horizon(&self) -> Timestamp {
        let most = self.config.retry.schedule.iter().map(|d| d.0).max().unwrap_or(Duration::from_secs(60));
        self.now.after(most + most / 10)
    }

    pub(super) fn drain_sweeps(&mut self) {
        let mut at = 0;
        while at < self.sweep_line.len().min(SWEEPS_ACTIVE) {
            let id = self.sweep_line[at];
            self.totals.steps += 1;
            if self.step_sweep(id) {
                self.sweep_line.remove(at);
                self.end_sweep(id);
            } else {
                at += 1;
            }
        }
    }

    /// Answers whether the sweep is at its end.
    fn step_sweep(&mut self, id: u64) -> bool {
        loop {
            let room = self.has_disposal_room();
            let Some(sweep) = self.sweeps.get_mut(&id) else { return true };
            if sweep.reading || sweep.outstanding > OUTSTANDING_LOW || !room {
                return false;
            }
            let Some(queue) = sweep.queues.front().copied() else { return sweep.outstanding == 0 };
            if !self.queues.contains_key(&queue) {
                sweep.queues.pop_front();
                sweep.after = None;
                continue;
            }
            sweep.reading = true;
            let after = sweep.after;
            self.read_page(Purpose::Sweep(queue, id), after, PAGE);
            return false;
        }
    }

    /// `stale`: the queue's rows were put in or taken out since the page was asked for, so it is read again.
    pub(super) fn on_sweep_page(&mut self, id: u64, queue: QueueId, page: Result<Refill, ReadError>, stale: bool) {
        let Some(mut sweep) = self.sweeps.remove(&id) else { return };
        sweep.reading = false;
        if stale && page.is_ok() {
            self.sweeps.insert(id, sweep);
            return;
        }
        match page {
            Ok(page) => {
                sweep.failed = 0;
                let mut over = page.exhausted;
                for entry in page.entries {
                    self.totals.steps += 1;
                    sweep.after = Some(entry.key);
                    if let SweepKind::Expire { .. } = sweep.kind
                        && entry.key.due > self.now
                    {
                        // What is not due will have an attempt of its own when it is.
                        sweep.expires_min = sweep.expires_min.min(self.now.after(EXPIRY_AGAIN_MAX)).min(entry.expires);
                        over = true;
                        break;
                    }
                    if self.is_ghost(queue, &entry.key) {
                        continue;
                    }
                    match self.sweep_entry(&sweep, &entry) {
                        Some(how) => {
                            self.window_remove(queue, &entry.key);
                            self.take(queue, &entry);
                            sweep.outstanding += 1;
                            self.add_disposal(Disposal {
                                queue,
                                entry,
                                how,
                                sweep: Some(id),
                                message: None,
                                unreadable: false,
                            });
                        }
                        None => sweep.expires_min = sweep.expires_min.min(entry.expires),
                    }
                }
                if over {
                    sweep.queues.pop_front();
                    sweep.after = None;
                }
                self.advance(queue);
            }
            Err(error) => {
                let key = self.queues.get(&queue).map(|q| q.key.to_string()).unwrap_or_default();
                let again = READ_AGAIN_MIN.saturating_mul(1 << sweep.failed.min(16)).min(READ_AGAIN_MAX);
                sweep.failed = sweep.failed.saturating_add(1);
                tracing::error!(
                    target: "posthaste::queue",
                    queue = key,
                    what = sweep.kind.words(),
                    failed = sweep.failed,
                    again_in_s = again.as_secs(),
                    %error,
                    "a sweep could not read its queue, it is tried again"
                );
                // Others use its place until then.
                self.sweep_line.retain(|other| *other != id);
                self.timers.set(self.now.after(again), TimerKey::Sweep(id));
            }
        }
        self.sweeps.insert(id, sweep);
    }

    /// A sweep whose read failed has waited long enough.
    pub(super) fn resume_sweep(&mut self, id: u64) {
        if self.sweeps.contains_key(&id) {
            self.sweep_line.push_back(id);
        }
    }

    fn sweep_entry(&self, sweep: &Sweep, entry: &QueueEntry) -> Option<How> {
        match &sweep.kind {
            SweepKind::Expire { held, .. } => {
                effects::is_overdue(entry.expires, *held, self.started, self.now).then_some(How::Expire)
            }
            SweepKind::Mark(mark) => mark.concerns_entry(entry).then(|| How::Mark(mark.clone())),
            SweepKind::Retry(matcher) => {
                let accepted = entry.accepted;
                let meant = matcher.message.is_none_or(|m| m == entry.key.delivery.message)
                    && matcher.older_than.is_none_or(|t| accepted < t);
                (meant && entry.key.due > self.now).then_some(How::RetryNow)
            }
            SweepKind::Ahead => (entry.key.due > self.retry_horizon()).then_some(How::RetryNow),
        }
    }

    fn end_sweep(&mut self, id: u64) {
        let Some(sweep) = self.sweeps.remove(&id) else { return };
        if let SweepKind::Mark(mark) = &sweep.kind
            && self.is_in_attempt(mark)
        {
            // Tried again after this it would be as if nobody had ordered it: the mark stays until the attempt has ended.
            self.sweeps.insert(id, sweep);
            self.timers.set(self.now.after(ATTEMPT_AGAIN), TimerKey::Sweep(id));
            return;
        }
        match sweep.kind {
            SweepKind::Expire { queue, held } => self.end_expiry(queue, sweep.expires_min, held),
            SweepKind::Mark(mark) => self.end_mark(&mark),
            SweepKind::Retry(_) | SweepKind::Ahead => {}
        }
    }

    /// Whether a message that a mark names is in an attempt. Others are not waited for: their next attempt may be hours ahead.
    fn is_in_attempt(&self, mark: &Mark) -> bool {
        let Some(message) = mark.matcher.message else { return false };
        let all = self.jobs.values().flat_map(|job| &job.recipients);
        all.map(|(_, entry)| entry).any(|entry| entry.key.delivery.message == message && mark.concerns_entry(entry))
    }

    fn end_expiry(&mut self, id: QueueId, expires_min: Timestamp, held: bool) {
        let grace = if held { Duration::ZERO } else { effects::LAST_ATTEMPT_GRACE };
        if let Some(queue) = self.queues.get_mut(&id) {
            let expires_min = expires_min.min(queue.expires_min);
            let next = expires_min.after(grace).max(self.now.after(EXPIRY_AGAIN_MIN));
            queue.sweeping_expiry = None;
            queue.expires_min = Timestamp::NEVER;
            if expires_min < Timestamp::NEVER {
                self.set_expiry_timer(id, next);
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.expires_min = expires_min;
                }
            }
        }
        self.advance(id);
    }

    /// Looks for expired entries at this time, unless it does so earlier anyway.
    pub(super) fn set_expiry_timer(&mut self, id: QueueId, at: Timestamp) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.expires_min = queue.expires_min.min(at);
        if at < queue.expiry_timer && queue.sweeping_expiry.is_none() {
            self.timers.move_expiry(id, queue.expiry_timer, at);
            queue.expiry_timer = at;
        }
    }

    pub(super) fn on_expiry_timer(&mut self, id: QueueId, at: Timestamp) {
        let held = self.is_held(id);
        let number = self.next_number + 1;
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.expiry_timer != at {
            return;
        }
        queue.expiry_timer = Timestamp::NEVER;
        // From here on it tells of what came during the sweep, which may miss it.
        queue.expires_min = Timestamp::NEVER;
        queue.sweeping_expiry = Some(number);
        self.start_sweep(SweepKind::Expire { queue: id, held }, VecDeque::from([id]));
    }

    /// Whether something else than its turn keeps a queue from an attempt.
    pub(super) fn is_held(&self, id: QueueId) -> bool {
        let Some(queue) = self.queues.get(&id) else { return false };
        let no_source =
            self.pools.get(&queue.key.pool).is_none_or(|p| p.members.iter().all(|(_, weight)| *weight == 0));
        match queue.status {
            Status::Suspended | Status::Failing => true,
            Status::Ready => no_source || queue.site.is_some_and(|s| self.is_held_long(s, Duration::ZERO)),
            Status::Idle | Status::Reading | Status::Budget | Status::Routing | Status::Rate | Status::Limited => {
                no_source
            }
        }
    }
}
