//! One heap of timers. Each object has at most one live entry: it remembers its time, and an entry with another time is stale.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::SiteId;
use crate::types::{Domain, QueueId, Timestamp};

/// Whose timer, and the time that it was set to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TimerKey {
    Queue(QueueId, Timestamp),
    Expiry(QueueId, Timestamp),
    Site(SiteId, Timestamp),
    Domain(Domain, Timestamp),
    Suspension(u64),
    Forget,
}

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, TimerKey)>>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Timestamp, key: TimerKey) {
        if at < Timestamp::NEVER {
            self.heap.push(Reverse((at, key)));
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop(&mut self, now: Timestamp) -> Option<TimerKey> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }
}
