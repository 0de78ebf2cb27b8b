//! Windows: what of each queue is in memory.
//!
//! A window has every row whose key is at or before its cursor, except those that are taken (in an attempt, or unsettled). Rows
//! after the cursor are only counted. Extra rows after the cursor do no harm: a row that is seen twice merges.
//!
//! ```text
//! arrival at or before the cursor → window           arrival after it → counted; next_due says when to look
//! no room, or due only later      → the cursor goes back before it (the row is on disk anyway)
//! window low and rows after it    → Read strictly after the cursor → merge, skip what is taken, the cursor moves on
//! ```
//!
//! A page is a snapshot. What was settled after it was taken must not come back: such keys are remembered as ghosts while a read is
//! under way. What arrived meanwhile may be missing from it: the cursor moves at most to the earliest of these.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Cursor, Purpose, Queue, Status, before, just_before};
use super::runs::live;
use super::sweep::EXPIRY_AGAIN_MAX;
use super::timers::TimerKey;
use super::{Scheduler, Taken};
use crate::store::{EntryKey, QueueEntry, QueueRow, ReadError, Refill, StoredMessage};
use crate::types::{Class, DeliveryId, MessageId, QueueId, QueueKey, Timestamp};

/// Rows in a page.
pub(super) const PAGE: usize = 256;
/// The fewest rows that are asked for at once, however many queues there are: each read has its price.
const PAGE_MIN: usize = 32;
/// A window with fewer entries than this is refilled ahead of need.
const LOW_WATER: usize = 64;
/// The most entries of one queue in memory, where the budget is large.
const QUEUE_ENTRIES_MAX: usize = 4_096;
/// What is due later than this is left on disk until then.
const AHEAD: Duration = Duration::from_secs(1);
/// How many other windows are looked at to make room for one.
const SHED_STEPS_MAX: usize = 32;
/// How long after a look at other windows that gave nothing the next one is taken.
const SHED_REST: Duration = Duration::from_millis(5);
/// A site that is held for longer than this gives up its windows first.
const SHED_HELD: Duration = Duration::from_secs(2);
/// What is too old already when it comes is looked for after this, together with others.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long after a failed read the queue is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl Scheduler {
    pub(super) fn add_row(&mut self, row: QueueRow) {
        let mut expires = row.oldest.after(self.config.retry.expire_after.0);
        if row.rows.is_some() {
            // A campaign has an expiry of its own: one look finds out.
            expires = expires.min(self.now.after(EXPIRY_AGAIN_MAX));
        }
        self.make_queue(row.id, row.key, Cursor::Start);
        if let Some(queue) = self.queues.get_mut(&row.id) {
            queue.count = row.count;
            queue.bytes = row.bytes;
            queue.oldest = row.oldest;
            queue.next_due = row.next_due;
        }
        self.totals.recipients += row.count;
        self.totals.bytes += row.bytes;
        // After a downtime one attempt comes first.
        self.set_expiry_timer(row.id, expires.max(self.now.after(Duration::from_secs(60))));
        self.advance(row.id);
    }

    pub(super) fn make_queue(&mut self, id: QueueId, key: Arc<QueueKey>, cursor: Cursor) {
        if self.queues.contains_key(&id) {
            return;
        }
        let mut queue = Box::new(Queue::new(id, key, cursor));
        queue.suspended = self.suspension_of(&queue.key);
        self.attach_campaign(&mut queue);
        queue.shared = self.shared.of(&queue.key);
        queue.marks = self.marks.iter().filter(|m| m.concerns(&queue.key)).map(|m| m.id).collect();
        self.join_domain(&queue.key.domain, id);
        self.queues.insert(id, queue);
    }

    /// An entry was added on disk.
    pub(super) fn on_queued(
        &mut self,
        id: QueueId,
        key: Arc<QueueKey>,
        entry: QueueEntry,
        message: Option<Arc<StoredMessage>>,
    ) {
        self.totals.steps += 1;
        // A queue that is not known has nothing else on disk: those that had are known from the start.
        self.make_queue(id, key, Cursor::All);
        if let Some(message) = message {
            self.cache.insert_fresh(message);
        }
        let room = self.window_room() > 0;
        let cap = self.queue_cap();
        let now = self.now;
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.count += 1;
        queue.bytes += u64::from(entry.size);
        queue.oldest = queue.oldest.min(entry.accepted);
        self.totals.recipients += 1;
        self.totals.bytes += u64::from(entry.size);
        let entry_key = entry.key;
        let had_head = queue.head_due();
        self.expires_at(id, entry.expires);
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.covers(&entry_key) && room && queue.window.len() < cap && entry_key.due <= now.after(AHEAD) {
            self.window_insert(id, entry);
        } else {
            queue.uncover(&entry_key);
        }
        let Some(queue) = self.queues.get(&id) else { return };
        match queue.status {
            Status::Ready => {
                if let Some(site) = queue.site {
                    self.mark_dirty(site);
                }
            }
            _ if queue.head_due() < had_head || queue.status == Status::Idle => self.advance(id),
            _ => {}
        }
    }

    /// An outcome is on disk.
    pub(super) fn on_settled(&mut self, id: QueueId, key: EntryKey) {
        let Some(taken) = self.taken.remove(&key) else { return };
        if taken.settled {
            self.totals.unsettled = self.totals.unsettled.saturating_sub(1);
        }
        self.totals.recipients = self.totals.recipients.saturating_sub(1);
        self.totals.bytes = self.totals.bytes.saturating_sub(u64::from(taken.size));
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.count = queue.count.saturating_sub(1);
            queue.bytes = queue.bytes.saturating_sub(u64::from(taken.size));
            queue.taken = queue.taken.saturating_sub(1);
            if queue.reads > 0 {
                queue.ghosts.push(key);
            }
            if queue.taken == 0 && queue.window.is_empty() {
                self.advance(id);
            }
        }
    }

    /// Entries came that were not told one by one: the ledger's counts are right, ours are not.
    pub(super) fn on_dirty(&mut self, row: QueueRow) {
        let row = live(row);
        let id = row.id;
        self.make_queue(id, row.key, Cursor::Start);
        let now = self.now;
        if let Some(queue) = self.queues.get_mut(&id) {
            self.totals.recipients = self.totals.recipients.saturating_sub(queue.count) + row.count;
            self.totals.bytes = self.totals.bytes.saturating_sub(queue.bytes) + row.bytes;
            queue.count = row.count;
            queue.bytes = row.bytes;
            queue.oldest = row.oldest;
            queue.cursor = Cursor::Start;
            queue.next_due = Timestamp::ZERO;
            if queue.reading {
                let least = DeliveryId { message: MessageId::from_bytes([0; 16]), index: 0 };
                queue.arrived_min = Some(EntryKey { due: Timestamp::ZERO, delivery: least });
            }
            // Nobody told when they expire: one look finds out.
            self.set_expiry_timer(id, now.after(EXPIRY_AGAIN_MAX));
        }
        self.advance(id);
    }

    /// A page was read.
    pub fn on_read(&mut self, now: Timestamp, ticket: u64, page: Result<Refill, ReadError>) {
        self.set_now(now);
        let asked = self.reads.remove(&ticket);
        let stale = |id: &QueueId, epoch| self.queues.get(id).is_none_or(|q| q.epoch != epoch);
        match asked.map(|(purpose, epoch)| match purpose {
            Purpose::Window(id, _) | Purpose::Sweep(id, _) => (purpose, stale(&id, epoch)),
        }) {
            Some((Purpose::Window(id, reserved), stale)) => {
                self.totals.window_reserved -= reserved;
                if stale {
                    self.drop_page(id);
                } else {
                    self.on_window_page(id, reserved, page);
                }
            }
            Some((Purpose::Sweep(id, sweep), stale)) => {
                self.on_sweep_page(sweep, id, page, stale);
                self.end_read(id);
            }
            None => {}
        }
        self.finish();
    }

    fn on_window_page(&mut self, id: QueueId, reserved: usize, page: Result<Refill, ReadError>) {
        let ahead = self.now.after(AHEAD);
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.reading = false;
        let arrived_min = queue.arrived_min.take();
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(target: "posthaste::queue", queue = %queue.key, %error, "a queue could not be read");
                queue.next_due = self.now.after(READ_AGAIN);
                self.end_read(id);
                self.advance(id);
                return;
            }
        };
        let mut cursor = if page.exhausted { Cursor::All } else { queue.cursor };
        let mut next_due = if page.exhausted { Timestamp::NEVER } else { queue.next_due };
        let mut fresh = Vec::with_capacity(page.entries.len().min(reserved));
        for entry in page.entries.into_iter().take(reserved.max(1)) {
            self.totals.steps += 1;
            if entry.key.due > ahead {
                cursor = cursor.min(before(entry.key.due)).max(queue.cursor);
                next_due = entry.key.due;
                break;
            }
            if !page.exhausted {
                cursor = Cursor::At(entry.key);
                next_due = entry.key.due;
            }
            if !self.taken.contains_key(&entry.key) && !queue.ghosts.contains(&entry.key) {
                fresh.push(entry);
            }
        }
        if let Some(arrived) = arrived_min {
            cursor = cursor.min(just_before(&arrived)).max(queue.cursor);
            next_due = next_due.min(arrived.due);
        }
        queue.cursor = cursor;
        queue.next_due = next_due;
        for entry in fresh {
            self.window_insert(id, entry);
        }
        self.end_read(id);
        self.advance(id);
    }

    /// The page is out of date: it is read again.
    fn drop_page(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.reading = false;
            queue.arrived_min = None;
        }
        self.end_read(id);
        self.advance(id);
    }

    fn end_read(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.reads = queue.reads.saturating_sub(1);
            if queue.reads == 0 {
                queue.ghosts = Vec::new();
            }
        }
    }

    /// Whether an outcome of this key came after the page was asked for.
    pub(super) fn is_ghost(&self, id: QueueId, key: &EntryKey) -> bool {
        self.taken.contains_key(key) || self.queues.get(&id).is_some_and(|q| q.ghosts.contains(key))
    }

    /// Asks for a page, for a sweep or a window.
    pub(super) fn read_page(&mut self, purpose: Purpose, after: Option<EntryKey>, limit: usize) {
        let (Purpose::Window(id, _) | Purpose::Sweep(id, _)) = purpose;
        let ticket = self.number();
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.reads += 1;
        let epoch = queue.epoch;
        self.reads.insert(ticket, (purpose, epoch));
        self.metrics.refills.inc();
        self.actions.push_back(super::Action::Read { ticket, queue: id, after, limit });
    }

    /// Reads on when the window is low; answers whether room was found (or nothing was to do).
    pub(super) fn refill(&mut self, id: QueueId) -> bool {
        let cap = self.queue_cap();
        let page = self.fair_page();
        let Some(queue) = self.queues.get(&id) else { return true };
        let low = LOW_WATER.min(cap / 2).min(page / 2);
        let head_is_due = queue.window.first_key_value().is_some_and(|(key, _)| key.due <= self.now);
        let low = if head_is_due { low } else { cap - 1 };
        // What has something to send reads ahead only while nobody waits for room to read at all.
        let gives_way = head_is_due && !self.window_lines.iter().all(VecDeque::is_empty);
        if queue.reading
            || gives_way
            || queue.cursor == Cursor::All
            || queue.window.len() > low
            || queue.next_due > self.now.after(AHEAD)
        {
            return true;
        }
        let wanted = page.min(cap - queue.window.len().min(cap - 1));
        let room = self.make_room(id, wanted);
        if room == 0 {
            return false;
        }
        let Some(queue) = self.queues.get_mut(&id) else { return true };
        queue.reading = true;
        queue.arrived_min = None;
        let after = match queue.cursor {
            Cursor::At(key) => Some(key),
            Cursor::Start | Cursor::All => None,
        };
        self.totals.window_reserved += room;
        self.read_page(Purpose::Window(id, room), after, room);
        true
    }

    fn window_room(&self) -> usize {
        let budget = self.config.storage.window_entries as usize;
        budget.max(PAGE).saturating_sub(self.totals.window + self.totals.window_reserved)
    }

    /// Rows that a window asks for: where many share the budget, what is beyond its share would be read, dropped for others, and read again.
    fn fair_page(&self) -> usize {
        let budget = self.config.storage.window_entries as usize;
        let sharing = self.shed_line.len() + self.window_lines.iter().map(VecDeque::len).sum::<usize>();
        let share = budget / sharing.max(1);
        // Of very many queues most have a row or two: small pages would only let more of them read at a time, and fill the budget sooner.
        if share < PAGE_MIN { PAGE } else { share.min(PAGE) }
    }

    fn queue_cap(&self) -> usize {
        (self.config.storage.window_entries as usize / 8).clamp(32, QUEUE_ENTRIES_MAX)
    }

    /// Room for up to `wanted` entries; takes it from windows that are not used now.
    fn make_room(&mut self, for_queue: QueueId, wanted: usize) -> usize {
        let before = self.totals.window;
        for _ in 0..SHED_STEPS_MAX {
            if self.window_room() >= wanted || self.now < self.shed_again {
                break;
            }
            let Some(id) = self.shed_line.pop_front() else { break };
            self.totals.steps += 1;
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.in_shed_line = false;
            }
            if id != for_queue {
                self.shed(id);
            }
            self.join_shed_line(id);
        }
        // A hundred thousand windows of one row each give nothing: who asked at every input would do nothing else.
        if self.window_room() < wanted && self.totals.window == before && self.now >= self.shed_again {
            self.shed_again = self.now.after(SHED_REST);
        }
        wanted.min(self.window_room())
    }

    /// Drops what of a window will not be needed soon: all of one that is held, half of a large one.
    fn shed(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        let held = match queue.status {
            Status::Suspended | Status::Failing | Status::Routing | Status::Idle | Status::Rate | Status::Limited => {
                true
            }
            Status::Ready => queue.site.is_some_and(|s| self.is_held_long(s, SHED_HELD)),
            Status::Reading | Status::Budget => false,
        };
        let keep = if held { 0 } else { (queue.window.len() / 2).max(PAGE / 4) };
        while self.queues.get(&id).is_some_and(|q| q.window.len() > keep) {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            let Some((key, _)) = queue.window.pop_last() else { return };
            queue.uncover(&key);
            self.totals.steps += 1;
            self.count_window(id, -1);
        }
        let Some(queue) = self.queues.get(&id) else { return };
        if let (true, Status::Ready, Some(site)) = (queue.window.is_empty(), queue.status, queue.site) {
            // It comes back when its site may be tried again, and reads what it needs then.
            let back = self.up_at(site);
            self.set_status(id, Status::Idle);
            self.set_queue_timer(id, back);
        }
    }

    fn join_shed_line(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && !queue.in_shed_line
            && !queue.window.is_empty()
        {
            queue.in_shed_line = true;
            self.shed_line.push_back(id);
        }
    }

    fn window_insert(&mut self, id: QueueId, entry: QueueEntry) {
        self.expires_at(id, entry.expires);
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.window.insert(entry.key, entry).is_none() {
            self.count_window(id, 1);
            self.join_shed_line(id);
        }
    }

    /// An entry that expires at this time is in the queue: it is found then, whatever holds it.
    fn expires_at(&mut self, id: QueueId, at: Timestamp) {
        if self.queues.get(&id).is_some_and(|q| at < q.expires_min) {
            self.set_expiry_timer(id, at.max(self.now.after(LOOK_AGAIN)));
        }
    }

    /// Takes an entry out of a window.
    pub(super) fn window_remove(&mut self, id: QueueId, key: &EntryKey) -> Option<QueueEntry> {
        let entry = self.queues.get_mut(&id)?.window.remove(key)?;
        self.count_window(id, -1);
        Some(entry)
    }

    fn count_window(&mut self, id: QueueId, by: isize) {
        self.totals.window = self.totals.window.saturating_add_signed(by);
        let Some(queue) = self.queues.get(&id) else { return };
        if let (Status::Ready, Some(site)) = (queue.status, queue.site) {
            let (pool, class) = (queue.key.pool.clone(), queue.key.class);
            let before = queue.window.len().saturating_add_signed(-by).min(queue.work_max);
            let by = queue.work().cast_signed() - before.cast_signed();
            self.count_backlog(site, &pool, class, by);
        }
    }

    /// Marks an entry as taken: no page brings it back.
    pub(super) fn take(&mut self, id: QueueId, entry: &QueueEntry) {
        let fresh = entry.sent.is_some() && entry.attempts == 0;
        self.taken.insert(entry.key, Taken { size: entry.size, settled: false, fresh, ended: false });
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.taken += 1;
        }
    }

    /// Gives an entry back that was taken and then not tried.
    pub(super) fn give_back(&mut self, id: QueueId, entry: QueueEntry) {
        let taken = self.taken.remove(&entry.key);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.taken = queue.taken.saturating_sub(1);
        }
        if taken.is_some_and(|t| t.ended) {
            // The run of its campaign is over: what is on disk says whether it still waits.
            self.forget_row(id, &entry);
        } else {
            self.window_insert(id, entry);
        }
        self.advance(id);
    }

    pub(super) fn on_queue_timer(&mut self, id: QueueId, at: Timestamp) {
        if let Some(queue) = self.queues.get_mut(&id)
            && queue.timer == at
        {
            queue.timer = Timestamp::NEVER;
            self.advance(id);
        }
    }

    fn set_queue_timer(&mut self, id: QueueId, at: Timestamp) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        // An earlier timer finds nothing due and sets the next: that keeps one entry a queue in the heap.
        if at < queue.timer {
            queue.timer = at;
            self.timers.set(at, TimerKey::Queue(id, at));
        }
    }

    /// Finds out where a queue stands now: what it waits for, or that it is ready, or gone.
    pub(super) fn advance(&mut self, id: QueueId) {
        self.totals.steps += 1;
        let Some(queue) = self.queues.get(&id) else { return };
        if queue.is_gone() {
            return self.remove_queue(id);
        }
        if queue.suspended.is_some() || queue.held {
            return self.set_status(id, Status::Suspended);
        }
        if queue.campaign.is_some() && queue.head_due() <= self.now && self.waits_for_rate(id) {
            return;
        }
        let Some(queue) = self.queues.get(&id) else { return };
        if queue.shared != [None; 3] && queue.head_due() <= self.now && self.waits_for_shared(id) {
            return;
        }
        let Some(queue) = self.queues.get(&id) else { return };
        let head_is_due = queue.window.first_key_value().is_some_and(|(key, _)| key.due <= self.now);
        if !head_is_due {
            let due = queue.head_due();
            if due > self.now {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.has_turn = false;
                }
                self.set_status(id, Status::Idle);
                return self.set_queue_timer(id, due);
            }
            // Rows that are not in memory are due, whatever stands in the window.
            let found_room = self.refill(id);
            let reading = self.queues.get(&id).is_some_and(|q| q.reading);
            if found_room && !reading {
                // The window is full of what is due in a moment: the rest follows when that is gone.
                let head = self.queues.get(&id).and_then(|q| q.window.first_key_value()).map(|(key, _)| key.due);
                self.set_status(id, Status::Idle);
                self.set_queue_timer(id, head.unwrap_or(self.now.after(READ_AGAIN)));
            } else if found_room {
                self.set_status(id, Status::Reading);
            } else if self.queues.get(&id).is_some_and(|q| q.status != Status::Budget) {
                self.set_status(id, Status::Budget);
                let bulk = self.queues.get(&id).is_some_and(|q| q.key.class != Class::Transactional);
                self.window_lines[usize::from(bulk)].push_back(id);
            }
            return;
        }
        // Ahead of need; without room the window goes on until it is empty.
        self.refill(id);
        self.route_queue(id);
    }

    pub(super) fn set_status(&mut self, id: QueueId, status: Status) {
        let Some(queue) = self.queues.get(&id) else { return };
        if queue.status == status {
            return;
        }
        let was_ready = queue.status == Status::Ready;
        if was_ready {
            self.leave_ring(id);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.has_turn &= !was_ready;
            queue.status = status;
        }
    }

    fn remove_queue(&mut self, id: QueueId) {
        self.set_status(id, Status::Idle);
        if let Some(queue) = self.queues.remove(&id) {
            self.timers.move_expiry(id, queue.expiry_timer, Timestamp::NEVER);
            // Nothing is left of it, whatever an outcome that was told twice made of its counts.
            self.totals.recipients = self.totals.recipients.saturating_sub(queue.count);
            self.totals.bytes = self.totals.bytes.saturating_sub(queue.bytes);
            self.leave_domain(&queue.key.domain, id);
        }
    }

    /// Queues that wait for room: transactional mail before all other, each in the order in which they came.
    pub(super) fn drain_window_lines(&mut self) {
        for _ in 0..self.window_lines.iter().map(VecDeque::len).sum::<usize>().min(SHED_STEPS_MAX) {
            if self.window_room() < PAGE / 4 {
                // Somebody must wait; but what is held may be shed for them.
                let Some(first) = self.window_lines.iter().find_map(|line| line.front().copied()) else { return };
                if self.make_room(first, PAGE / 4) < PAGE / 4 && self.totals.window > 0 {
                    return;
                }
            }
            let Some(id) = self.window_lines.iter_mut().find_map(VecDeque::pop_front) else { return };
            if self.queues.get(&id).is_some_and(|q| q.status == Status::Budget) {
                self.set_status(id, Status::Idle);
                self.advance(id);
            }
        }
    }
}
