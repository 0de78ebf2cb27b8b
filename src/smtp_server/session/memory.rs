//! What the messages that are coming in hold in memory, over all sessions.
//!
//! `max_connections` times `max_message_size` is more than most machines have. So the octets that have come in and are
//! not yet stored are counted; the session that goes over the limit ends with 421, and its client comes back later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::queue::intake::Intake;

/// The most octets that all sessions together hold of messages that are coming in; then 421 4.3.2.
pub(super) const RECEIVING_OCTETS_MAX: u64 = 512 << 20;

/// One session's part of it; given back when it is dropped.
pub(super) struct Held {
    intake: Arc<Intake>,
    octets: u64,
}

impl Held {
    pub(super) fn new(intake: Arc<Intake>) -> Self {
        Self { intake, octets: 0 }
    }

    fn counter(&self) -> &AtomicU64 {
        self.intake.receiving()
    }

    /// More octets came; `false` when that is too much for all together.
    pub(super) fn add(&mut self, octets: usize) -> bool {
        let octets = octets as u64;
        self.octets += octets;
        self.counter().fetch_add(octets, Ordering::Relaxed) + octets <= RECEIVING_OCTETS_MAX
    }

    /// The message was stored or refused.
    pub(super) fn release(&mut self) {
        if self.octets > 0 {
            let octets = std::mem::take(&mut self.octets);
            self.counter().fetch_sub(octets, Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}
