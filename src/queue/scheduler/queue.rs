//! A queue and where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SiteId;
use crate::store::{EntryKey, QueueEntry};
use crate::types::{DeliveryId, MessageId, QueueId, QueueKey, Timestamp};

/// Where the window ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cursor {
    /// Nothing is covered: the next page begins at the queue's watermark.
    Start,
    /// Covered up to here.
    At(EntryKey),
    /// All rows are covered.
    All,
}

/// The greatest key that is due before `at`.
pub(super) fn before(at: Timestamp) -> Cursor {
    match at.as_millis().checked_sub(1) {
        None => Cursor::Start,
        Some(ms) => {
            let delivery = DeliveryId { message: MessageId::from_bytes([0xff; 16]), index: u32::MAX };
            Cursor::At(EntryKey { due: Timestamp::from_millis(ms), delivery })
        }
    }
}

/// The greatest key before this one. Rows of a campaign are all due at one time: a cursor that went back to the time would have every row
/// that is done already passed over again.
pub(super) fn just_before(key: &EntryKey) -> Cursor {
    let EntryKey { due, delivery: DeliveryId { message, index } } = *key;
    if let Some(index) = index.checked_sub(1) {
        return Cursor::At(EntryKey { due, delivery: DeliveryId { message, index } });
    }
    match u128::from_be_bytes(message.to_bytes()).checked_sub(1) {
        Some(value) => {
            let message = MessageId::from_bytes(value.to_be_bytes());
            Cursor::At(EntryKey { due, delivery: DeliveryId { message, index: u32::MAX } })
        }
        None => before(due),
    }
}

/// Where a queue stands.
///
/// ```text
/// Idle (⇄ Rate | Limited) ⇄ Reading | Budget → Routing (→ Failing) → Ready → Idle;   any ⇄ Suspended
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Nothing is due, as far as is known; a timer waits for `next_due`.
    Idle,
    /// The head is being read.
    Reading,
    /// It waits for room in the budget of windows.
    Budget,
    /// Its domain is being resolved.
    Routing,
    /// Its domain has no way.
    Failing,
    /// It stands in the ring of its site.
    Ready,
    /// It waits for its turn at the rate of its campaign.
    Rate,
    /// It waits in the line of a limit of the node, its tenant or its pool.
    Limited,
    /// An operator holds it, or its campaign is held.
    Suspended,
}

/// Why a page is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Window(QueueId, usize),
    Sweep(QueueId, u64),
}

/// A queue that holds something.
#[derive(Debug)]
pub(super) struct Queue {
    pub id: QueueId,
    pub key: Arc<QueueKey>,
    pub count: u64,
    pub bytes: u64,
    pub oldest: Timestamp,
    pub window: BTreeMap<EntryKey, QueueEntry>,
    pub cursor: Cursor,
    /// Nothing after the cursor is due before this.
    pub next_due: Timestamp,
    pub status: Status,
    pub site: Option<SiteId>,
    pub deficit: i32,
    /// Entries in an attempt, about to be disposed of, or unsettled.
    pub taken: u32,
    pub suspended: Option<u64>,
    pub marks: Vec<u64>,
    pub timer: Timestamp,
    pub expiry_timer: Timestamp,
    pub expires_min: Timestamp,
    /// The sweep that looks for expired entries in it.
    pub sweeping_expiry: Option<u64>,
    pub reading: bool,
    pub arrived_min: Option<EntryKey>,
    pub reads: u32,
    pub ghosts: Vec<EntryKey>,
    pub in_shed_line: bool,
    /// What was set for its campaign.
    pub campaign: Option<u64>,
    /// Its campaign is held.
    pub held: bool,
    /// At most so many of its entries count as ready work: more would not get a turn within seconds.
    pub work_max: usize,
    /// It has a turn at the rate of its campaign, until it leaves its ring.
    pub has_turn: bool,
    /// It sent something in this turn.
    pub used_turn: bool,
    pub in_rate_line: bool,
    /// The limits of the node, its tenant and its pool, and in whose line it stands.
    pub shared: [Option<usize>; 3],
    pub shared_line: Option<usize>,
    /// Raised when rows are put in or taken out behind the news: what is being read is out of date.
    pub epoch: u32,
}

impl Queue {
    pub(super) fn new(id: QueueId, key: Arc<QueueKey>, cursor: Cursor) -> Self {
        Self {
            id,
            key,
            count: 0,
            bytes: 0,
            oldest: Timestamp::NEVER,
            window: BTreeMap::new(),
            cursor,
            next_due: Timestamp::NEVER,
            status: Status::Idle,
            site: None,
            deficit: 0,
            taken: 0,
            suspended: None,
            marks: Vec::new(),
            timer: Timestamp::NEVER,
            expiry_timer: Timestamp::NEVER,
            expires_min: Timestamp::NEVER,
            sweeping_expiry: None,
            reading: false,
            arrived_min: None,
            reads: 0,
            ghosts: Vec::new(),
            in_shed_line: false,
            campaign: None,
            held: false,
            work_max: usize::MAX,
            has_turn: false,
            used_turn: false,
            in_rate_line: false,
            shared: [None; 3],
            shared_line: None,
            epoch: 0,
        }
    }

    /// When the earliest entry that may still be taken is due.
    pub(super) fn head_due(&self) -> Timestamp {
        let head = self.window.first_key_value().map_or(Timestamp::NEVER, |(key, _)| key.due);
        head.min(if self.cursor == Cursor::All { Timestamp::NEVER } else { self.next_due })
    }

    /// Entries that count as ready work.
    pub(super) fn work(&self) -> usize {
        self.window.len().min(self.work_max)
    }

    pub(super) fn covers(&self, key: &EntryKey) -> bool {
        match self.cursor {
            Cursor::Start => false,
            Cursor::At(cursor) => *key <= cursor,
            Cursor::All => true,
        }
    }

    /// The row stays on disk only. A page that is under way began after it, so its end must not become the cursor.
    pub(super) fn uncover(&mut self, key: &EntryKey) {
        if self.reading {
            self.arrived_min = Some(self.arrived_min.map_or(*key, |k| k.min(*key)));
        }
        self.cursor = self.cursor.min(just_before(key));
        self.next_due = self.next_due.min(key.due);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.window.is_empty()
            && self.taken == 0
            && self.cursor == Cursor::All
            && self.reads == 0
            && self.sweeping_expiry.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(due: u64, message: u128, index: u32) -> EntryKey {
        let message = MessageId::from_bytes(message.to_be_bytes());
        EntryKey { due: Timestamp::from_millis(due), delivery: DeliveryId { message, index } }
    }

    #[test]
    fn nothing_fits_between_a_key_and_what_is_just_before_it() {
        assert_eq!(just_before(&key(9, 7, 3)), Cursor::At(key(9, 7, 2)));
        assert_eq!(just_before(&key(9, 7, 0)), Cursor::At(key(9, 6, u32::MAX)));
        assert_eq!(just_before(&key(9, 0, 0)), Cursor::At(key(8, u128::MAX, u32::MAX)));
        assert_eq!(just_before(&key(0, 0, 0)), Cursor::Start);
    }
}
