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
use crate::event::{Event, EventKind, Severity};
use crate::store::{NewDelivery, Next, QueueEntry, Settle, Settled, StoredMessage};
use crate::types::{MessageId, QueueId, QueueKey};

/// The most entries that are being disposed of; then those who dispose wait.
const DISPOSALS_MAX: usize = 512;
/// The most entries in one batch.
const BATCH_MAX: usize = 64;

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
}

#[derive(Debug)]
pub(super) struct Disposal {
    pub queue: QueueId,
    pub entry: QueueEntry,
    pub how: How,
    pub sweep: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Disposals {
    ready: VecDeque<Disposal>,
    waiting: AHashMap<MessageId, Vec<Disposal>>,
    count: usize,
}

impl Disposals {
    /// A message came (or never will): those who wait for it go on.
    pub(super) fn loaded(&mut self, id: MessageId) {
        self.ready.extend(self.waiting.remove(&id).unwrap_or_default());
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
        self.add_disposal(Disposal { queue, entry, how, sweep: None });
    }

    pub(super) fn add_disposal(&mut self, disposal: Disposal) {
        self.disposals.count += 1;
        self.disposals.ready.push_back(disposal);
    }

    /// The message of these entries is not in the store.
    pub(super) fn on_content_missing(&mut self, id: MessageId) {
        tracing::error!(target: "posthaste::queue", message = %id, "a queued message is not in the store");
        for mut disposal in self.disposals.waiting.remove(&id).unwrap_or_default() {
            disposal.how = How::Missing;
            self.disposals.ready.push_back(disposal);
        }
        // Those that still stand in a window of a site that wanted it.
        for site in self.load_waiters.remove(&id).unwrap_or_default() {
            let pools =
                self.site(site).map(|s| s.pools.iter().flat_map(|p| p.rings.iter().flatten().copied()).collect());
            let queues: Vec<QueueId> = pools.unwrap_or_default();
            for queue in queues {
                let Some(q) = self.queues.get(&queue) else { continue };
                let keys: Vec<_> = q.window.keys().filter(|k| k.delivery.message == id).copied().collect();
                for key in keys {
                    if let Some(entry) = self.window_remove(queue, &key) {
                        self.dispose(queue, entry, How::Missing);
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
            let mut settle = Settle::default();
            while settle.settled.len() < BATCH_MAX && self.totals.unsettled < max {
                let Some(disposal) = self.disposals.ready.pop_front() else { break };
                self.totals.steps += 1;
                self.carry_out(disposal, &mut settle);
            }
            if !settle.settled.is_empty() {
                self.actions.push_back(Action::Settle(settle));
            }
        }
    }

    fn carry_out(&mut self, disposal: Disposal, settle: &mut Settle) {
        let id = disposal.entry.key.delivery.message;
        let needs_message = !matches!(disposal.how, How::RetryNow | How::Missing);
        let message = if needs_message { self.cache.get(id) } else { None };
        if needs_message && message.is_none() {
            self.disposals.waiting.entry(id).or_default().push(disposal);
            self.load(id, None);
            return;
        }
        self.disposals.count -= 1;
        let Some(queue) = self.queues.get(&disposal.queue) else { return };
        let key = queue.key.clone();
        let Disposal { queue, entry, how, sweep } = disposal;
        self.settle_disposal(queue, &key, entry, &how, message, settle);
        if let Some(sweep) = sweep.and_then(|id| self.sweeps.get_mut(&id)) {
            sweep.outstanding = sweep.outstanding.saturating_sub(1);
        }
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
            (How::Mark(mark), Some(message)) => {
                let mut event = self.event(mark.event_kind(), key, &message.envelope, entry.key.delivery.index);
                event.reason = Some(mark.words().into());
                let next = match &mark.kind {
                    MarkKind::Purge { .. } => {
                        self.metrics.purged.inc();
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
            (How::Missing, _) | (How::Fail(_) | How::Expire | How::Mark(_), None) => {
                let mut event = Event::new(EventKind::Failed, self.now, key.tenant.clone());
                event.message_id = Some(entry.key.delivery.message);
                event.domain = Some(key.domain.clone());
                event.pool = Some(key.pool.clone());
                event.class = Some(key.class);
                event.severity = Some(Severity::Permanent);
                event.reason = Some("the message is not in the store".into());
                self.metrics.path("other", key.class.as_str(), key.pool.as_str(), "none").failed.inc();
                self.add_settled(settle, queue, &entry, Next::Done, vec![event]);
            }
        }
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
        settle.settled.push(Settled { queue, key: entry.key, size, recipients, next, events });
    }
}
