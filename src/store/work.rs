//! One batch in the making: changes become writes.
//!
//! 1. outcomes first ([`Work::settle`]), then submissions ([`Work::submit`]), each against what is on disk and what this
//!    batch has changed already;
//! 2. events get the next numbers, and their places in the trace;
//! 3. what concerns the rows of campaigns is in `work/rows.rs`;
//! 4. [`Work::finish`] adds the rows of the queues that changed and what the ledger knows, once each.
//!
//! All writes of a batch have one sequence number in the database, so a key may stand in it only once: what can
//! change twice is kept aside until the end.

use std::sync::Arc;

use ahash::AHashMap;
use fjall::{OwnedWriteBatch, Slice};

use super::records::{Last, MessageTrace};
use super::spaces::{Day, Spaces};
use super::status::Shared;
use super::steps::Steps;
use super::table::QueueTable;
use super::{
    Change, EntryKey, NewMessage, News, Next, QueueEntry, Sent, Settle, Settled, StoredMessage, Table, keys, records,
    row_records,
};
use crate::event::{Event, EventKind};
use crate::types::{AddressHash, DeliveryId, EventSeq, MessageId, QueueId, QueueKey, RowId, Timestamp};

mod erase;
mod once;
mod rows;

/// How long the answer to a request with an `Idempotency-Key` is kept.
const IDEMPOTENCY_MS: u64 = 72 * 3_600_000;

/// Why a batch could not be made: nothing of it is written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error("{0}")]
    Fjall(#[from] fjall::Error),
}

/// A batch in the making.
pub(super) struct Work<'a> {
    spaces: &'a Spaces,
    shared: &'a Shared,
    table: &'a mut QueueTable,
    steps: &'a mut Steps,
    day: Arc<Day>,
    now: Timestamp,
    batch: OwnedWriteBatch,
    /// Queue entries that this batch writes (their octets) or removes.
    entries: AHashMap<[u8; keys::ENTRY_LEN], Option<Slice>>,
    /// Recipients left of messages that this batch changes.
    left: AHashMap<MessageId, u32>,
    /// Records of state that this batch writes or removes.
    state: AHashMap<Vec<u8>, Option<Vec<u8>>>,
    /// Addresses whose status this batch changes.
    sent: AHashMap<[u8; keys::SENT_LEN], Sent>,
    /// Records of tables that this batch writes or removes.
    tables: AHashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Rows whose value this batch empties.
    erased: AHashMap<RowId, AddressHash>,
    /// Queues that got rows while their campaign runs.
    dirty: AHashMap<QueueId, Arc<QueueKey>>,
    news: Vec<News>,
    seq: EventSeq,
    bytes: usize,
}

/// A batch that is ready to be written.
pub(super) struct Ready {
    pub(super) batch: OwnedWriteBatch,
    pub(super) last: Last,
    /// Queues whose watermark is due to be moved.
    pub(super) overdue: Vec<QueueId>,
    pub(super) bytes: usize,
    pub(super) events: u64,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        spaces: &'a Spaces,
        shared: &'a Shared,
        table: &'a mut QueueTable,
        steps: &'a mut Steps,
        day: Arc<Day>,
        now: Timestamp,
        seq: EventSeq,
    ) -> Self {
        Self {
            batch: OwnedWriteBatch::with_capacity(spaces.db.clone(), 1_024),
            spaces,
            shared,
            table,
            steps,
            day,
            now,
            entries: AHashMap::new(),
            left: AHashMap::new(),
            state: AHashMap::new(),
            sent: AHashMap::new(),
            tables: AHashMap::new(),
            erased: AHashMap::new(),
            dirty: AHashMap::new(),
            news: Vec::new(),
            seq,
            bytes: 0,
        }
    }

    /// The outcomes of one attempt and the notifications that they owe.
    pub(super) fn settle(&mut self, settle: Settle) -> Result<(), WorkError> {
        let mut settled_any = settle.settled.is_empty();
        for settled in settle.settled {
            settled_any |= self.settle_one(settled)?;
        }
        // What a second settling of the same entries owes was owed and written with the first.
        if settled_any {
            for owed in settle.owed {
                self.accept(owed);
            }
            self.submit(settle.changes)?;
        }
        Ok(())
    }

    /// Answers whether the entry was there. One that is not is settled already, or purged: its events are written.
    fn settle_one(&mut self, settled: Settled) -> Result<bool, WorkError> {
        self.news.push(News::Settled { queue: settled.queue, key: settled.key });
        if let Some(row) = RowId::of(settled.key.delivery.message) {
            return self.settle_row(row, settled);
        }
        let Settled { queue, key, next, events, .. } = settled;
        let Some(entry) = self.take_entry(queue, key)? else { return Ok(self.missing(queue, key)) };
        match next {
            Next::Done => self.done(key.delivery.message, entry.recipients)?,
            Next::Retry(entry) => self.add_entry(queue, entry, None),
            Next::Move(new) => {
                let queue = self.table.id_of(&new.queue);
                self.add_entry(queue, new.entry, None);
            }
        }
        for event in events {
            self.event(event);
        }
        Ok(true)
    }

    /// What is settled is not there.
    fn missing(&self, queue: QueueId, key: EntryKey) -> bool {
        self.shared.metrics.settled_missing.inc();
        tracing::warn!(queue = queue.0, delivery = %key.delivery, due = %key.due, "settled an entry that is not there");
        false
    }

    /// Removes an entry, as far as it is there.
    fn take_entry(&mut self, queue: QueueId, key: EntryKey) -> Result<Option<QueueEntry>, WorkError> {
        let octets = keys::entry(queue, key);
        let found = match self.entries.get(&octets) {
            Some(written) => written.clone(),
            None => self.spaces.queue.get(octets)?,
        };
        let Some(value) = found else { return Ok(None) };
        let entry = match records::decode_entry(key, &value) {
            Ok(entry) => entry,
            Err(error) => {
                // It is being settled, so it was read once; whatever it says now, it must go.
                self.shared.metrics.unreadable.inc();
                tracing::error!(queue = queue.0, delivery = %key.delivery, %error, "a queue entry is not readable");
                blank_entry(key)
            }
        };
        self.entries.insert(octets, None);
        self.table.removed(queue, entry.size);
        Ok(Some(entry))
    }

    /// One recipient of a message is done; with the last one the message goes.
    fn done(&mut self, id: MessageId, recipients: u32) -> Result<(), WorkError> {
        if recipients > 1 {
            let left = match self.left.get(&id) {
                Some(left) => *left,
                None => self.left_on_disk(id)?,
            };
            self.left.insert(id, left.saturating_sub(1));
            if left > 1 {
                return Ok(());
            }
        }
        self.batch.remove(&self.spaces.content, id.to_bytes());
        Ok(())
    }

    fn left_on_disk(&self, id: MessageId) -> Result<u32, WorkError> {
        let Some(value) = self.spaces.state.get(keys::left(id))? else {
            tracing::warn!(message = %id, "nothing says how many recipients are left, the message stays");
            return Ok(u32::MAX);
        };
        Ok(records::decode_count(&value).unwrap_or_else(|error| {
            self.shared.metrics.unreadable.inc();
            tracing::error!(message = %id, %error, "the count of recipients left is not readable, the message stays");
            u32::MAX
        }))
    }

    /// A submission. It cannot fail by itself, only with the store.
    pub(super) fn submit(&mut self, changes: Vec<Change>) -> Result<(), WorkError> {
        for change in changes {
            match change {
                Change::Accept(new) => self.accept(*new),
                Change::Event(event) => self.event(*event),
                Change::PutState { key, value } => {
                    if key.starts_with(keys::STATE_IDEMPOTENCY) {
                        let at = Timestamp::from_millis(self.now.as_millis() + IDEMPOTENCY_MS);
                        self.state.insert(keys::expiry(at, &key), Some(Vec::new()));
                    }
                    self.bytes += key.len() + value.len();
                    self.state.insert(key, Some(value));
                }
                Change::RemoveState { key } => {
                    self.state.insert(key, None);
                }
                Change::Rows(new) => self.rows(*new),
                Change::Run(change) => self.run(*change),
                Change::PurgeCampaign(campaign) => self.purge(campaign),
                Change::EraseRow { id, hash, in_attempt } => self.erase_row(id, hash, in_attempt)?,
                Change::EraseEvents { tenant, hash } => self.erase_events(tenant, hash),
                Change::Put { table, key, value } => {
                    self.bytes += key.len() + value.len();
                    self.tables.insert((table, key), Some(value));
                }
                Change::Remove { table, key } => {
                    self.tables.insert((table, key), None);
                }
                Change::Once { key, remember, changes } => self.once(&key, remember, changes)?,
                Change::Tally { key, at, within, changes } => self.tally(&key, at, within, changes)?,
            }
        }
        Ok(())
    }

    fn accept(&mut self, new: NewMessage) {
        let NewMessage { message, deliveries, event } = new;
        let id = message.envelope.id;
        self.accepted_event(event, &message);
        if deliveries.is_empty() {
            return;
        }
        let value = records::encode_content(&message);
        self.bytes += value.len();
        self.batch.insert(&self.spaces.content, id.to_bytes(), value);
        // The entries say whether settling one looks at what is left: both must agree.
        if deliveries.len() > 1 || deliveries.iter().any(|d| d.entry.recipients > 1) {
            self.left.insert(id, deliveries.len() as u32);
        }
        for delivery in deliveries {
            let queue = self.table.id_of(&delivery.queue);
            self.add_entry(queue, delivery.entry, Some(message.clone()));
        }
    }

    fn add_entry(&mut self, queue: QueueId, entry: QueueEntry, message: Option<Arc<StoredMessage>>) {
        let value = Slice::from(records::encode_entry(&entry));
        self.bytes += keys::ENTRY_LEN + value.len();
        let before = self.entries.insert(keys::entry(queue, entry.key), Some(value));
        if matches!(before, Some(Some(_))) {
            tracing::warn!(queue = queue.0, delivery = %entry.key.delivery, "an entry was queued twice in one batch");
            return;
        }
        self.table.added(queue, &entry);
        if let Some(key) = self.table.key(queue) {
            self.news.push(News::Queued { queue, key, entry, message });
        }
    }

    /// The event of an acceptance: found by its message, and by the address of each recipient.
    fn accepted_event(&mut self, event: Event, message: &StoredMessage) {
        let tenant = event.tenant.clone();
        let seq = self.write_event(event);
        let recipients = message.envelope.recipients.iter().map(|r| keys::address_hash(&r.mailbox));
        let trace = MessageTrace { tenant, recipients: recipients.collect() };
        for hash in &trace.recipients {
            self.trace(trace.tenant.as_str(), *hash, seq);
        }
        let key = keys::trace_message(message.envelope.id, seq);
        self.batch.insert(&self.day.trace, key, records::encode_trace(&trace));
    }

    fn event(&mut self, event: Event) {
        self.steps.event(&event);
        let mut hash = event.recipient.as_ref().map(keys::address_hash);
        let mut event = event;
        if self.steps.is_erased(&event, hash) {
            (event, hash) = (erase::without_person(event), None);
        }
        let tenant = event.tenant.clone();
        let seq = self.write_event(event);
        if let Some(hash) = hash {
            self.trace(tenant.as_str(), hash, seq);
        }
    }

    fn write_event(&mut self, mut event: Event) -> EventSeq {
        self.seq = EventSeq(self.seq.0 + 1);
        event.seq = self.seq;
        debug_assert!(event.event != EventKind::Gap, "a gap is told by the reader, never written");
        let value = records::encode_event(&event);
        self.bytes += 8 + value.len();
        self.batch.insert(&self.day.events, keys::event(self.seq), value);
        self.seq
    }

    fn trace(&mut self, tenant: &str, hash: [u8; 16], seq: EventSeq) {
        let key = keys::trace_address(tenant, hash, seq);
        self.bytes += key.len();
        self.batch.insert(&self.day.trace, key, Slice::default());
    }

    /// Removes a record of state, as far as no submission of this batch writes it.
    pub(super) fn sweep_state(&mut self, key: &[u8]) {
        self.state.entry(key.to_vec()).or_insert(None);
    }

    /// The batch with all that is written once at its end; `None` when nothing changed. The news are told in either case.
    pub(super) fn finish(mut self, before: Last) -> (Option<Ready>, Vec<News>) {
        let Self { spaces, table, steps, .. } = self;
        for (key, value) in std::mem::take(&mut self.entries) {
            match value {
                Some(value) => self.batch.insert(&spaces.queue, key, value),
                None => self.batch.remove(&spaces.queue, key),
            }
        }
        for (id, left) in std::mem::take(&mut self.left) {
            let value = (left > 0).then(|| records::encode_count(left));
            self.state.insert(keys::left(id), value);
        }
        steps.flush(|step, counts| {
            self.state.insert(keys::step(keys::STATE_COUNTS, step), Some(row_records::encode_counts(counts)));
        });
        for (id, hash) in std::mem::take(&mut self.erased) {
            self.batch.insert(&spaces.rows, keys::row(id), row_records::encode_row_value(hash, b""));
        }
        for (key, sent) in std::mem::take(&mut self.sent) {
            self.batch.insert(&spaces.sent, key, row_records::encode_sent(sent));
        }
        for ((table, key), value) in std::mem::take(&mut self.tables) {
            match value {
                Some(value) => self.batch.insert(spaces.table(table), key, value),
                None => self.batch.remove(spaces.table(table), key),
            }
        }
        for (key, value) in std::mem::take(&mut self.state) {
            match value {
                Some(value) => self.batch.insert(&spaces.state, key, value),
                None => self.batch.remove(&spaces.state, key),
            }
        }
        let batch = &mut self.batch;
        let overdue = table.flush(|queue| {
            let key = keys::queue(queue.row.id);
            if queue.row.count == 0 {
                batch.remove(&spaces.queues, key);
            } else {
                batch.insert(&spaces.queues, key, records::encode_row(&queue.row, queue.watermark, &queue.places));
            }
        });
        if !self.dirty.is_empty() {
            self.news.push(News::Dirty {
                queues: self.dirty.drain().map(|(id, key)| super::outbox::row(table, id, key)).collect(),
            });
        }
        if self.batch.is_empty() {
            return (None, self.news);
        }
        let last = Last { commit: before.commit + 1, seq: self.seq, next_queue: table.next() };
        self.batch.insert(&spaces.state, keys::STATE_LAST, records::encode_last(last));
        let events = self.seq.0 - before.seq.0;
        let ready = Ready { batch: self.batch, last, overdue, bytes: self.bytes, events };
        (Some(ready), self.news)
    }
}

/// What is assumed of an entry whose value is not readable: that its message has other recipients, so that it stays.
fn blank_entry(key: EntryKey) -> QueueEntry {
    let DeliveryId { message, .. } = key.delivery;
    QueueEntry {
        key,
        accepted: message.timestamp(),
        expires: Timestamp::NEVER,
        attempts: 0,
        first_try: None,
        last_try: None,
        last_reply: None,
        size: 0,
        recipients: u32::MAX,
        delay_noticed: false,
        sent: None,
    }
}
