//! One heap of timers. Each object has at most one live entry: it remembers its time, and an entry with another time is stale.
//!
//! The times at which queues are searched for expired entries lie days ahead, and queues come and go with each message: these are
//! kept apart, where one can be taken out.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::SiteId;
use super::paths::PathId;
use crate::types::{Domain, QueueId, Timestamp};

/// Whose timer, and the time that it was set to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TimerKey {
    Queue(QueueId, Timestamp),
    Expiry(QueueId, Timestamp),
    Site(SiteId, Timestamp),
    Path(PathId, Timestamp),
    Adapt(PathId, Timestamp),
    Domain(Domain, Timestamp),
    Suspension(u64),
    Sweep(u64),
    CampaignHold(u64),
    CampaignRate(u64, Timestamp),
    Shared(usize, Timestamp),
    Forget,
}

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, TimerKey)>>,
    expiries: BTreeSet<(Timestamp, QueueId)>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Timestamp, key: TimerKey) {
        if at < Timestamp::NEVER {
            self.heap.push(Reverse((at, key)));
        }
    }

    /// How many there are, stale ones included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len() + self.expiries.len()
    }

    /// Moves the time of a queue's search for expired entries; [`Timestamp::NEVER`] for none.
    pub(super) fn move_expiry(&mut self, id: QueueId, from: Timestamp, to: Timestamp) {
        if from < Timestamp::NEVER {
            self.expiries.remove(&(from, id));
        }
        if to < Timestamp::NEVER {
            self.expiries.insert((to, id));
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        let heap = self.heap.peek().map(|Reverse((at, _))| *at);
        let expiry = self.expiries.first().map(|(at, _)| *at);
        heap.into_iter().chain(expiry).min()
    }

    pub(super) fn pop(&mut self, now: Timestamp) -> Option<TimerKey> {
        if self.heap.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            return self.heap.pop().map(|Reverse((_, key))| key);
        }
        let (at, id) = *self.expiries.first()?;
        if at > now {
            return None;
        }
        self.expiries.pop_first();
        Some(TimerKey::Expiry(id, at))
    }
}
