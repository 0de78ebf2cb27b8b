//! Rows of campaigns in the table: counted like entries, but they stand in `rows` and are never moved.
//!
//! A queue has fresh rows of one step of one campaign at a time. Of them the table knows two places: before the `mark` none is fresh,
//! behind `high` none was ever taken. So a scan begins at the mark, and looks into `sent` up to `high` only.

use std::time::Duration;

use super::super::steps::StepKey;
use super::super::{QueueRow, QueueRows, Run};
use super::{Queue, QueueTable};
use crate::types::{QueueId, SLOT_MILLIS, Timestamp};

/// A place among the rows of a queue: slot, then sequence.
pub(in super::super) type Place = (u8, u32);

/// Where a queue is in its campaign's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in super::super) struct Places {
    /// No fresh row stands before this.
    pub(in super::super) mark: Place,
    /// No row behind this was ever taken; `None`: none was.
    pub(in super::super) high: Option<Place>,
    /// Octets of the fresh rows: a part of the queue's.
    pub(in super::super) bytes: u64,
}

/// When the rows of a slot are due.
pub(in super::super) fn slot_due(run: Run, slot: u8) -> Timestamp {
    run.due.after(Duration::from_millis(u64::from(slot) * SLOT_MILLIS))
}

/// A queue as others see it: its bounds include the fresh rows if the campaign runs.
pub(in super::super) fn told(row: &QueueRow, places: &Places, run: Option<Run>) -> QueueRow {
    let mut row = row.clone();
    if let Some(rows) = &mut row.rows {
        rows.running = run.is_some();
        if let Some(run) = run.filter(|_| rows.fresh > 0) {
            row.next_due = row.next_due.min(slot_due(run, places.mark.0));
            row.oldest = row.oldest.min(run.accepted);
        }
    }
    row
}

impl QueueTable {
    /// A row came into a queue that [`QueueTable::id_of`] gave. `false`: it has fresh rows of another step, so this one can't be sent.
    pub(in super::super) fn row_added(&mut self, id: QueueId, step: StepKey, place: Place, size: u32) -> bool {
        let Some(queue) = self.by_id.get_mut(&id) else { return false };
        let rows = queue.row.rows.get_or_insert_with(|| fresh_of(step));
        if (rows.campaign, rows.step) != step {
            if rows.fresh > 0 {
                return false;
            }
            *rows = fresh_of(step);
            queue.places = Places::default();
        }
        queue.places.mark = if rows.fresh == 0 { place } else { queue.places.mark.min(place) };
        rows.fresh += 1;
        queue.places.bytes += u64::from(size);
        if queue.row.count == 0 {
            self.total.queues += 1;
            queue.row.next_due = Timestamp::NEVER;
            queue.row.oldest = Timestamp::NEVER;
        }
        queue.row.count += 1;
        queue.row.bytes += u64::from(size);
        self.total.entries += 1;
        self.total.bytes += u64::from(size);
        self.touch(id);
        true
    }

    /// A row was taken that was waiting. Answers whether it was fresh; else its run had ended while it was in flight.
    pub(in super::super) fn row_taken(&mut self, id: QueueId, step: StepKey, place: Place, size: u32) -> bool {
        let Some(queue) = self.by_id.get_mut(&id) else { return false };
        let Some(rows) = &mut queue.row.rows else { return false };
        if (rows.campaign, rows.step) != step || rows.fresh == 0 || place < queue.places.mark {
            return false;
        }
        rows.fresh -= 1;
        queue.places.bytes = queue.places.bytes.saturating_sub(u64::from(size));
        queue.places.high = queue.places.high.max(Some(place));
        self.removed(id, size);
        true
    }

    /// The first fresh row of a queue was looked up.
    pub(in super::super) fn mark_is(&mut self, id: QueueId, mark: Place) {
        if let Some(queue) = self.by_id.get_mut(&id) {
            queue.places.mark = mark;
            queue.removed = 0;
            self.touch(id);
        }
    }

    /// The rows of a step are sent from now on: its queues, as they are told.
    pub(in super::super) fn run_began(&self, step: StepKey, run: Run) -> Vec<QueueRow> {
        let of_step = self.by_id.values().filter(|q| has_rows_of(q, step) && q.row.count > 0);
        of_step.map(|queue| told(&queue.row, &queue.places, Some(run))).collect()
    }

    /// The rows of a step are not sent any more: how many there were, and the queues that still hold something.
    pub(in super::super) fn run_ended(&mut self, step: StepKey) -> (u64, Vec<QueueRow>) {
        let ids: Vec<QueueId> =
            self.by_id.values().filter(|q| has_rows_of(q, step)).map(|queue| queue.row.id).collect();
        let (mut dropped, mut left) = (0, Vec::new());
        for id in ids {
            dropped += self.drop_fresh(id);
            // The emptied ones too: whoever holds rows of them in memory must let go.
            let Some(queue) = self.by_id.get(&id) else { continue };
            left.push(told(&queue.row, &queue.places, None));
        }
        (dropped, left)
    }

    fn drop_fresh(&mut self, id: QueueId) -> u64 {
        let Some(queue) = self.by_id.get_mut(&id) else { return 0 };
        let Some(rows) = &mut queue.row.rows else { return 0 };
        let (fresh, bytes) = (std::mem::take(&mut rows.fresh), std::mem::take(&mut queue.places.bytes));
        if fresh == 0 {
            return 0;
        }
        queue.row.count = queue.row.count.saturating_sub(fresh);
        queue.row.bytes = queue.row.bytes.saturating_sub(bytes);
        self.total.entries = self.total.entries.saturating_sub(fresh);
        self.total.bytes = self.total.bytes.saturating_sub(bytes);
        if queue.row.count == 0 {
            self.total.queues = self.total.queues.saturating_sub(1);
        }
        self.touch(id);
        fresh
    }
}

fn fresh_of((campaign, step): StepKey) -> QueueRows {
    QueueRows { campaign, step, fresh: 0, running: false }
}

fn has_rows_of(queue: &Queue, step: StepKey) -> bool {
    queue.row.rows.is_some_and(|rows| (rows.campaign, rows.step) == step)
}
