//! The queues as the ledger knows them: one small row each, nothing per entry.
//!
//! 1. A key's first entry makes a row, with an id that is never used again;
//! 2. each entry that comes or goes changes count, octets, bounds; the row is written once a batch;
//! 3. rows of a campaign are counted as entries too, but stand in `rows` ([`Places`]): see `table/rows.rs`;
//! 4. with the last entry the row goes from disk, and stays in memory for a while, so that a queue that is emptied and
//!    filled again every second keeps its id.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use super::{EntryKey, QueueEntry, QueueRow, keys};
use crate::types::{QueueId, QueueKey, Timestamp};
pub(super) use rows::{Places, slot_due, told};

mod rows;

/// Empty queues that are kept in memory; beyond it the one that has been empty longest is forgotten.
const IDLE_QUEUES_MAX: usize = 10_000;

/// After so many removals the watermark is moved: a scan skips at most so many tombstones before its first entry.
pub(super) const REMOVED_MAX: u32 = 2_048;

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) row: QueueRow,
    /// No entry stands before this.
    pub(super) watermark: EntryKey,
    /// Where it is in its campaign's rows, if `row.rows` says that it has some.
    pub(super) places: Places,
    /// Removals since the watermark was moved.
    pub(super) removed: u32,
    touched: bool,
    idle: bool,
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct QueueTable {
    by_id: AHashMap<QueueId, Queue>,
    by_key: AHashMap<Arc<QueueKey>, QueueId>,
    touched: Vec<QueueId>,
    idle: VecDeque<QueueId>,
    next: u32,
    total: Totals,
}

/// Over all queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) queues: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl QueueTable {
    /// The table with these rows; new queues get ids from `next`.
    pub(super) fn new(rows: Vec<(QueueRow, EntryKey, Places)>, next: u32) -> Self {
        let mut table = Self { next: next.max(1), ..Self::default() };
        for (row, watermark, places) in rows {
            table.next = table.next.max(row.id.0.saturating_add(1));
            table.total.queues += 1;
            table.total.entries += row.count;
            table.total.bytes += row.bytes;
            table.by_key.insert(row.key.clone(), row.id);
            table.by_id.insert(row.id, Queue { row, watermark, places, removed: 0, touched: false, idle: false });
        }
        table
    }

    /// The id that the next new queue gets.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn totals(&self) -> Totals {
        self.total
    }

    pub(super) fn get(&self, id: QueueId) -> Option<&Queue> {
        self.by_id.get(&id)
    }

    /// The key of a queue, if it is known.
    pub(super) fn key(&self, id: QueueId) -> Option<Arc<QueueKey>> {
        self.by_id.get(&id).map(|q| q.row.key.clone())
    }

    /// The queue with this key; made when it is new.
    pub(super) fn id_of(&mut self, key: &QueueKey) -> QueueId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let id = QueueId(self.next);
        // 2³² queues: a thousand new ones a second for 49 days; ids of queues long gone would come again only then.
        self.next = self.next.checked_add(1).unwrap_or(1);
        let key = Arc::new(key.clone());
        let row = QueueRow {
            id,
            key: key.clone(),
            next_due: Timestamp::NEVER,
            count: 0,
            bytes: 0,
            oldest: Timestamp::NEVER,
            rows: None,
        };
        self.by_key.insert(key, id);
        let (watermark, places) = (keys::FIRST_ENTRY, Places::default());
        self.by_id.insert(id, Queue { row, watermark, places, removed: 0, touched: false, idle: false });
        id
    }

    /// An entry came into a queue that [`QueueTable::id_of`] gave, or that held an entry.
    pub(super) fn added(&mut self, id: QueueId, entry: &QueueEntry) {
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        if queue.row.count == 0 {
            self.total.queues += 1;
            queue.row.next_due = entry.key.due;
            queue.row.oldest = entry.accepted;
        }
        queue.row.count += 1;
        queue.row.bytes = queue.row.bytes.saturating_add(u64::from(entry.size));
        queue.row.next_due = queue.row.next_due.min(entry.key.due);
        queue.row.oldest = queue.row.oldest.min(entry.accepted);
        queue.watermark = queue.watermark.min(entry.key);
        self.total.entries += 1;
        self.total.bytes += u64::from(entry.size);
        self.touch(id);
    }

    /// An entry went.
    pub(super) fn removed(&mut self, id: QueueId, size: u32) {
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        queue.row.count = queue.row.count.saturating_sub(1);
        queue.row.bytes = queue.row.bytes.saturating_sub(u64::from(size));
        queue.removed = queue.removed.saturating_add(1);
        self.total.entries = self.total.entries.saturating_sub(1);
        self.total.bytes = self.total.bytes.saturating_sub(u64::from(size));
        if queue.row.count == 0 {
            queue.row.bytes = 0;
            self.total.queues = self.total.queues.saturating_sub(1);
        }
        self.touch(id);
    }

    /// The first entry of a queue was looked up: nothing stands before it.
    pub(super) fn first_is(&mut self, id: QueueId, first: EntryKey) {
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        queue.watermark = first;
        queue.row.next_due = first.due;
        queue.removed = 0;
        self.touch(id);
    }

    fn touch(&mut self, id: QueueId) {
        if let Some(queue) = self.by_id.get_mut(&id)
            && !queue.touched
        {
            queue.touched = true;
            self.touched.push(id);
        }
    }

    /// Calls `write` for each queue that changed since the last call; one without entries is to be removed.
    /// Answers those whose watermark is due to be moved.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&Queue)) -> Vec<QueueId> {
        let mut overdue = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let Some(queue) = self.by_id.get_mut(&id) else { continue };
            queue.touched = false;
            write(queue);
            if queue.row.count == 0 {
                if !queue.idle {
                    queue.idle = true;
                    self.idle.push_back(id);
                }
            } else if queue.removed >= REMOVED_MAX {
                overdue.push(id);
            }
        }
        while self.idle.len() > IDLE_QUEUES_MAX {
            self.forget_longest_idle();
        }
        overdue
    }

    fn forget_longest_idle(&mut self) {
        let Some(id) = self.idle.pop_front() else { return };
        let Some(queue) = self.by_id.get_mut(&id) else { return };
        queue.idle = false;
        if queue.row.count == 0
            && let Some(queue) = self.by_id.remove(&id)
        {
            self.by_key.remove(&queue.row.key);
        }
    }
}
