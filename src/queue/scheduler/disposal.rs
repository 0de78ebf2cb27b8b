//! Disposal: what leaves its place without an attempt on a connection: no way to the host, too old, purged, moved, or made due.
//!
//! 1. whoever decides it takes the entry ([`Scheduler::dispose`]), so that no window gives it out,
//! 2. its message is read where the event or the notification needs it,
//! 3. it is settled as there is room among the unsettled, several in one batch.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

use super::settle::Ended;
use super::sweep::{Mark, MarkKind};
use super::{Action, Scheduler};
use crate::config::Source;
use crate::delivery::Failure;
use crate::effects::retry_delay;
use crate::event::{Event, EventKind, Severity};
use crate::store::{NewDelivery, Next, QueueEntry, Settle, Settled, StoredMessage};
use crate::types::{MessageId, QueueId, QueueKey};

/// The most entries that are being disposed of; then those who dispose wait.
const DISPOSALS_MAX: usize = 512;
/// The most messages that are read for disposals at a time: so many may be in memory for them.
const READS_MAX: usize = 64;
/// The most entries in one batch.
const BATCH_MAX: usize = 64;

/// Why a recipient waits whose message can't be read.
const UNREADABLE: &str = "the message could not be read from the store";

/// A failure that many recipients share, and where it happened.
#[derive(Debug)]
pub(super) struct FailContext {
    pub failure: Failure,
    pub provider: Arc<str>,
    pub source: Option<Arc<Source>>,
}

/// How an entry leaves its place.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// As if it had been tried, with this failure.
    Fail(Rc<FailContext>),
    /// It is too old.
    Expire,
    /// An operator purges or moves it.
    Mark(Rc<Mark>),
    /// An operator makes it due now.
    RetryNow,
    /// Its message is not in the store: only damage does that.
    Missing,
    /// Its message can't be read: it waits for the next retry, unless an operator takes it out or moves it.
    Unreadable,
}

#[derive(Debug)]
pub(super) struct Disposal {
    pub queue: QueueId,
    pub entry: QueueEntry,
    pub how: How,
    pub sweep: Option<u64>,
    /// Its message, once it was read for this.
    pub message: Option<Arc<StoredMessage>>,
    /// Its message can't be read, and is not needed for what the operator wants.
    pub unreadable: bool,
}

#[derive(Debug, Default)]
pub(super) struct Disposals {
    ready: VecDeque<Disposal>,
    waiting: AHashMap<MessageId, Vec<Disposal>>,
    count: usize,
}

impl Disposals {
    /// A message came: those who wait for it go on.
    pub(super) fn loaded(&mut self, id: MessageId, message: &Arc<StoredMessage>) {
        for mut disposal in self.waiting.remove(&id).unwrap_or_default() {
            disposal.message = Some(message.clone());
            self.ready.push_back(disposal);
        }
    }
}

impl Scheduler {
    pub(super) fn has_disposal_room(&self) -> bool {
        self.disposals.count < DISPOSALS_MAX
    }

    /// Disposes of an entry that was removed from its window.
    pub(super) fn dispose(&mut self, queue: QueueId, entry: QueueEntry, how: How) {
        self.take(queue, &entry);
        self.dispose_taken(queue, entry, how);
    }

    pub(super) fn dispose_taken(&mut self, queue: QueueId, entry: QueueEntry, how: How) {
        self.add_disposal(Disposal { queue, entry, how, sweep: None, message: None, unreadable: false });
    }

    pub(super) fn add_disposal(&mut self, disposal: Disposal) {
        self.disposals.count += 1;
        self.disposals.ready.push_back(disposal);
    }

    /// The message of these entries is not in the store, or can't be read: they end, or wait, without it.
    pub(super) fn on_content_unusable(&mut self, id: MessageId, how: &How) {
        for mut disposal in self.disposals.waiting.remove(&id).unwrap_or_default() {
            if let (How::Mark(mark), How::Unreadable) = (&disposal.how, how) {
                tracing::error!(
                    target: "posthaste::queue",
                    delivery = %disposal.entry.key.delivery,
                    what = mark.event_kind().as_str(),
                    "an operator's order is carried out on a message that can't be read: its event has no recipient"
                );
                disposal.unreadable = true;
            } else {
                disposal.how = how.clone();
            }
            self.disposals.ready.push_back(disposal);
        }
        // Those that still stand in a window of a site that wanted it.
        for site in self.load_waiters.get(&id).cloned().unwrap_or_default() {
            let rings =
                self.site(site).map(|s| s.pools.iter().flat_map(|p| p.rings.iter().flatten().copied()).collect());
            let queues: Vec<QueueId> = rings.unwrap_or_default();
            for queue in queues {
                let Some(q) = self.queues.get(&queue) else { continue };
                let keys: Vec<_> = q.window.keys().filter(|k| k.delivery.message == id).copied().collect();
                for key in keys {
                    if let Some(entry) = self.window_remove(queue, &key) {
                        self.dispose(queue, entry, how.clone());
                    }
                }
                self.advance(queue);
            }
        }
    }

    /// Settles what is ready, as far as there is room among the unsettled.
    pub(super) fn drain_disposals(&mut self) {
        let max = self.config.delivery.max_unsettled.max(1);
        while !self.disposals.ready.is_empty() && self.totals.unsettled < max && !self.store_failed {
            let (mut settle, mut blocked) = (Settle::default(), false);
            while settle.settled.len() < BATCH_MAX && self.totals.unsettled < max {
                let Some(disposal) = self.disposals.ready.pop_front() else { break };
                self.totals.steps += 1;
                if let Some(disposal) = self.carry_out(disposal, &mut settle) {
                    self.disposals.ready.push_front(disposal);
                    blocked = true;
                    break;
                }
            }
            if !settle.settled.is_empty() {
                self.actions.push_back(Action::Settle(settle));
            }
            if blocked {
                return;
            }
        }
    }

    /// Settles one, or has its message read; gives it back when too many are being read.
    fn carry_out(&mut self, mut disposal: Disposal, settle: &mut Settle) -> Option<Disposal> {
        let id = disposal.entry.key.delivery.message;
        let erased = matches!(&disposal.how, How::Mark(mark) if mark.is_erasure());
        let needs_message =
            !disposal.unreadable && !matches!(disposal.how, How::RetryNow | How::Missing | How::Unreadable) && !erased;
        let message = if needs_message { disposal.message.take().or_else(|| self.cache.get(id)) } else { None };
        if needs_message && message.is_none() {
            if self.disposals.waiting.len() >= READS_MAX {
                return Some(disposal);
            }
            self.disposals.waiting.entry(id).or_default().push(disposal);
            self.load_anyway(id);
            return None;
        }
        self.disposals.count -= 1;
        let key = self.queues.get(&disposal.queue)?.key.clone();
        let Disposal { queue, entry, how, sweep, message: _, unreadable: _ } = disposal;
        self.settle_disposal(queue, &key, entry, &how, message, settle);
        if let Some(sweep) = sweep.and_then(|id| self.sweeps.get_mut(&id)) {
            sweep.outstanding = sweep.outstanding.saturating_sub(1);
        }
        None
    }

    fn settle_disposal(
        &mut self,
        queue: QueueId,
        key: &Arc<QueueKey>,
        entry: QueueEntry,
        how: &How,
        message: Option<Arc<StoredMessage>>,
        settle: &mut Settle,
    ) {
        match (how, message) {
            (How::Fail(context), Some(message)) => {
                let ended = Ended::Failed { failure: &context.failure, provider: &context.provider };
                let source = context.source.clone();
                self.settle_ended(queue, key, entry, &message, ended, source.as_deref(), settle);
            }
            (How::Expire, Some(message)) => {
                self.settle_ended(queue, key, entry, &message, Ended::Overdue, None, settle);
            }
            (How::Mark(mark), message) => {
                let mut event = match &message {
                    Some(message) if !mark.is_erasure() => {
                        self.event(mark.event_kind(), key, &message.envelope, entry.key.delivery.index)
                    }
                    Some(_) | None => self.bare_event(mark.event_kind(), key, &entry),
                };
                event.reason = Some(mark.words().into());
                let next = match &mark.kind {
                    MarkKind::Purge { .. } => {
                        self.count_taken_out(mark.event_kind());
                        Next::Done
                    }
                    MarkKind::Reroute { pool } => {
                        event.pool = Some(pool.clone());
                        let to = QueueKey { pool: pool.clone(), ..QueueKey::clone(key) };
                        Next::Move(NewDelivery { queue: to, entry: entry.clone() })
                    }
                };
                self.add_settled(settle, queue, &entry, next, vec![event]);
            }
            (How::RetryNow, _) => {
                let mut again = entry.clone();
                again.key.due = self.now;
                self.add_settled(settle, queue, &entry, Next::Retry(again), Vec::new());
            }
            (How::Unreadable, _) if entry.expires <= self.now => {
                let mut event = self.bare_event(EventKind::Expired, key, &entry);
                event.severity = Some(Severity::Permanent);
                event.reason = Some(UNREADABLE.into());
                self.metrics.path("other", key.class.as_str(), key.pool.as_str(), "none").expired.inc();
                self.add_settled(settle, queue, &entry, Next::Done, vec![event]);
            }
            (How::Unreadable, _) => {
                let delay = retry_delay(&self.config.retry, entry.attempts + 1, self.rng.below(2_001));
                let mut again = entry.clone();
                again.key.due = self.now.after(delay).min(entry.expires);
                again.attempts += 1;
                again.last_reply = Some(UNREADABLE.into());
                let mut event = self.bare_event(EventKind::Deferred, key, &entry);
                event.retry_at = Some(again.key.due);
                event.severity = Some(Severity::Temporary);
                event.reason = Some(UNREADABLE.into());
                self.add_settled(settle, queue, &entry, Next::Retry(again), vec![event]);
            }
            (How::Missing, _) | (How::Fail(_) | How::Expire, None) => {
                let mut event = self.bare_event(EventKind::Failed, key, &entry);
                event.severity = Some(Severity::Permanent);
                event.reason = Some("the message is not in the store".into());
                self.metrics.path("other", key.class.as_str(), key.pool.as_str(), "none").failed.inc();
                self.add_settled(settle, queue, &entry, Next::Done, vec![event]);
            }
        }
    }

    pub(super) fn count_taken_out(&self, kind: EventKind) {
        if kind == EventKind::Cancelled { &self.metrics.cancelled } else { &self.metrics.purged }.inc();
    }

    /// An event about a recipient whose message is not at hand.
    pub(super) fn bare_event(&self, kind: EventKind, key: &QueueKey, entry: &QueueEntry) -> Event {
        let mut event = Event::new(kind, self.now, key.tenant.clone());
        event.message_id = Some(entry.key.delivery.message);
        event.campaign = key.campaign.clone();
        event.domain = Some(key.domain.clone());
        event.pool = Some(key.pool.clone());
        event.class = Some(key.class);
        event.attempt = Some(entry.attempts);
        event
    }

    /// Counts an outcome as unsettled and puts it into a batch.
    pub(super) fn add_settled(
        &mut self,
        settle: &mut Settle,
        queue: QueueId,
        entry: &QueueEntry,
        next: Next,
        events: Vec<Event>,
    ) {
        self.totals.unsettled += 1;
        if let Some(taken) = self.taken.get_mut(&entry.key) {
            taken.settled = true;
        }
        let (size, recipients) = (entry.size, entry.recipients);
        settle.settled.push(Settled { queue, key: entry.key, size, recipients, sent: entry.sent, next, events });
    }
}
