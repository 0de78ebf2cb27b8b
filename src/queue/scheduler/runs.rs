//! Runs of campaigns: rows that begin to be sent, and that are sent no more.
//!
//! 1. the store tells of a run that began, with its queues as they are on disk: their rows are read as any others are;
//! 2. one that ended: what was never tried leaves the windows, and pages that are under way are read again;
//! 3. what is in an attempt then is settled as it ends; given back untried, the disk says whether it still waits.
//!
//! Both may be told twice.

use ahash::AHashMap;

use super::Scheduler;
use super::queue::{Cursor, just_before};
use super::sweep::EXPIRY_AGAIN_MAX;
use crate::store::{QueueEntry, QueueRow};
use crate::types::{CampaignNo, QueueId, RowId, Timestamp};

/// A queue without the rows of a campaign that does not run: what of it can be sent.
pub(super) fn live(mut row: QueueRow) -> QueueRow {
    if let Some(rows) = row.rows.filter(|rows| !rows.running && rows.fresh > 0) {
        let all = row.count.max(1);
        row.count = row.count.saturating_sub(rows.fresh);
        // The rows' own octets are not told apart.
        row.bytes = u64::try_from(u128::from(row.bytes) * u128::from(row.count) / u128::from(all)).unwrap_or(row.bytes);
    }
    row
}

/// Where to begin to read a queue that stands so on disk.
fn begin_of(row: &QueueRow) -> (Cursor, Timestamp) {
    if row.count > 0 { (Cursor::Start, row.next_due) } else { (Cursor::All, Timestamp::NEVER) }
}

impl Scheduler {
    pub(super) fn on_run(&mut self, campaign: CampaignNo, running: bool, rows: Vec<QueueRow>) {
        if running {
            return rows.into_iter().for_each(|row| self.begin_run(row));
        }
        let mut in_attempt: AHashMap<QueueId, u64> = AHashMap::new();
        for (key, taken) in self.taken.iter_mut().filter(|(_, taken)| taken.fresh) {
            if let Some(row) = RowId::of(key.delivery.message).filter(|row| row.campaign == campaign) {
                taken.ended = true;
                *in_attempt.entry(row.queue).or_default() += 1;
            }
        }
        for row in rows {
            let taken = in_attempt.get(&row.id).copied().unwrap_or(0);
            self.end_run(campaign, row, taken);
        }
    }

    fn begin_run(&mut self, row: QueueRow) {
        self.totals.steps += 1;
        if !self.queues.contains_key(&row.id) {
            if row.count > 0 {
                self.add_row(row);
            }
            return;
        }
        let id = row.id;
        self.set_counts(&row, 0);
        if let Some(queue) = self.queues.get_mut(&id) {
            (queue.cursor, queue.next_due) = begin_of(&row);
            queue.epoch = queue.epoch.wrapping_add(1);
        }
        // They may expire sooner than what is known of this queue: one look finds out.
        self.set_expiry_timer(id, self.now.after(EXPIRY_AGAIN_MAX));
        self.advance(id);
    }

    /// `in_attempt`: rows that are not on disk any more, but will be settled here.
    fn end_run(&mut self, campaign: CampaignNo, row: QueueRow, in_attempt: u64) {
        self.totals.steps += 1;
        let row = live(row);
        let id = row.id;
        let Some(queue) = self.queues.get_mut(&id) else {
            if row.count > 0 {
                self.add_row(row);
            }
            return;
        };
        queue.epoch = queue.epoch.wrapping_add(1);
        (queue.cursor, queue.next_due) = begin_of(&row);
        let of_run = |entry: &&QueueEntry| {
            let place = RowId::of(entry.key.delivery.message);
            entry.attempts == 0 && entry.sent.is_some() && place.is_some_and(|row| row.campaign == campaign)
        };
        // A row that was moved or made due is on disk as an entry: it is read again.
        let fresh: Vec<_> = queue.window.values().filter(of_run).map(|entry| entry.key).collect();
        for key in fresh {
            self.totals.steps += 1;
            self.window_remove(id, &key);
        }
        self.set_counts(&row, in_attempt);
        self.advance(id);
    }

    fn set_counts(&mut self, row: &QueueRow, more: u64) {
        let Some(queue) = self.queues.get_mut(&row.id) else { return };
        let count = row.count + more;
        self.totals.recipients = self.totals.recipients.saturating_sub(queue.count) + count;
        self.totals.bytes = self.totals.bytes.saturating_sub(queue.bytes) + row.bytes;
        queue.count = count;
        queue.bytes = row.bytes;
        queue.oldest = row.oldest;
    }

    /// A row was given back untried after its run ended.
    pub(super) fn forget_row(&mut self, id: QueueId, entry: &QueueEntry) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.count = queue.count.saturating_sub(1);
        self.totals.recipients = self.totals.recipients.saturating_sub(1);
        queue.cursor = queue.cursor.min(just_before(&entry.key));
        queue.next_due = queue.next_due.min(entry.key.due);
        queue.epoch = queue.epoch.wrapping_add(1);
    }
}
