//! The ledger of the simulated world: rows in memory, committed in batches.

use std::ops::Bound;
use std::sync::Arc;

use super::{Happening, START, World, Write};
use crate::queue::testing;
use crate::store::{Change, EntryKey, News, Next, QueueEntry, QueueRow, Refill, Settle, StoredMessage};
use crate::types::{DeliveryId, MessageId, QueueId, QueueKey, Timestamp};

impl World {
    pub(super) fn queue_rows(&self) -> Vec<QueueRow> {
        let mut rows = Vec::new();
        for (key, id) in &self.queue_ids {
            let range = self.rows.range((*id, min_key())..=(*id, max_key()));
            let (mut count, mut bytes, mut oldest, mut next_due) = (0, 0, Timestamp::NEVER, Timestamp::NEVER);
            for ((_, key), entry) in range {
                count += 1;
                bytes += u64::from(entry.size);
                oldest = oldest.min(entry.accepted);
                next_due = next_due.min(key.due);
            }
            if let Some(bulk) = self.bulk.as_ref().filter(|b| b.queue == *id) {
                count += bulk.rows - bulk.gone.len() as u64;
                oldest = oldest.min(Timestamp::from_millis(START.as_millis() - bulk.rows));
                next_due = next_due.min(oldest);
            }
            let (fresh, rows_of) = self.fresh(*id);
            for entry in &fresh {
                bytes += u64::from(entry.size);
                oldest = oldest.min(entry.accepted);
                next_due = next_due.min(entry.key.due);
            }
            count += rows_of.map_or(0, |rows| rows.fresh);
            if count > 0 {
                let key = Arc::new(key.clone());
                rows.push(QueueRow { id: *id, key, next_due, count, bytes, oldest, rows: rows_of });
            }
        }
        rows
    }

    pub(super) fn page(&self, queue: QueueId, after: Option<EntryKey>, limit: usize) -> Refill {
        let from = after.map_or(Bound::Included((queue, min_key())), |key| Bound::Excluded((queue, key)));
        let rows = self.rows.range((from, Bound::Included((queue, max_key()))));
        let mut entries: Vec<QueueEntry> = rows.take(limit + 1).map(|(_, e)| e.clone()).collect();
        if let Some(bulk) = self.bulk.as_ref().filter(|b| b.queue == queue) {
            let first = after.map_or(0, |key| bulk.number(&key));
            let made = (first..bulk.rows).filter(|i| !bulk.gone.contains(i));
            let made = made.map(|i| testing::entry(&bulk.message(i), 0)).filter(|e| after.is_none_or(|a| e.key > a));
            entries.extend(made.take(limit + 1));
            entries.sort_by_key(|e| e.key);
        }
        let (fresh, _) = self.fresh(queue);
        if !fresh.is_empty() {
            self.passed_over.set(self.passed_over.get() + self.done_behind(queue, after));
            entries.extend(fresh.into_iter().filter(|e| after.is_none_or(|a| e.key > a)));
            entries.sort_by_key(|e| e.key);
        }
        let exhausted = entries.len() <= limit;
        entries.truncate(limit);
        Refill { entries, exhausted }
    }

    pub(super) fn queue_id(&mut self, key: &QueueKey) -> QueueId {
        if let Some(id) = self.queue_ids.get(key) {
            return *id;
        }
        self.next_queue += 1;
        self.queue_ids.insert(key.clone(), QueueId(self.next_queue));
        QueueId(self.next_queue)
    }

    fn add_row(&mut self, key: &QueueKey, entry: QueueEntry, message: Option<Arc<StoredMessage>>) -> News {
        let id = self.queue_id(key);
        let old = self.rows.insert((id, entry.key), entry.clone());
        assert!(old.is_none(), "two rows under one key");
        News::Queued { queue: id, key: Arc::new(key.clone()), entry, message }
    }

    pub(super) fn commit(&mut self) {
        self.commit_planned = false;
        let mut news = Vec::new();
        for write in std::mem::take(&mut self.pending) {
            match write {
                Write::Accept { message, deliveries } => {
                    self.messages.insert(message.envelope.id, message.clone());
                    for (key, entry) in deliveries {
                        news.push(self.add_row(&key, entry, Some(message.clone())));
                    }
                }
                Write::Settle(settle) => self.commit_settle(settle, &mut news),
                Write::Run { campaign, run } => self.commit_run(campaign, run, &mut news),
                Write::Submit { ticket, changes } => {
                    for change in changes {
                        match change {
                            Change::PutState { key, value } => drop(self.state.insert(key, value)),
                            Change::RemoveState { key } => drop(self.state.remove(&key)),
                            Change::Event(event) => self.events.push(*event),
                            other => unreachable!("the scheduler does not ask for {other:?}"),
                        }
                    }
                    self.plan(0, Happening::Submitted { ticket });
                }
            }
        }
        if self.channel_full || !self.untold.is_empty() {
            for one in news.extract_if(.., |one| matches!(one, News::Queued { .. })) {
                if let News::Queued { queue, .. } = one {
                    self.untold.insert(queue);
                }
            }
        }
        if !self.channel_full && !self.untold.is_empty() {
            let untold = std::mem::take(&mut self.untold);
            news.push(News::Dirty { queues: untold.into_iter().map(|id| self.queue_row(id)).collect() });
        }
        self.scheduler.on_news(self.now, news);
    }

    pub(super) fn queue_row(&self, id: QueueId) -> QueueRow {
        if let Some(row) = self.queue_rows().into_iter().find(|row| row.id == id) {
            return row;
        }
        let (key, _) = self.queue_ids.iter().find(|(_, known)| **known == id).expect("a queue that was told has a key");
        let (next_due, oldest) = (Timestamp::NEVER, Timestamp::NEVER);
        QueueRow { id, key: Arc::new(key.clone()), next_due, count: 0, bytes: 0, oldest, rows: None }
    }

    fn commit_settle(&mut self, settle: Settle, news: &mut Vec<News>) {
        for owed in settle.owed {
            self.messages.insert(owed.message.envelope.id, owed.message.clone());
            for delivery in owed.deliveries {
                news.push(self.add_row(&delivery.queue, delivery.entry, Some(owed.message.clone())));
            }
        }
        for settled in settle.settled {
            let was = self.rows.remove(&(settled.queue, settled.key)).is_some();
            let bulk = self.bulk.as_mut().filter(|b| !was && b.queue == settled.queue);
            let was = was
                || bulk.is_some_and(|b| {
                    let number = b.number(&settled.key);
                    b.gone.insert(number)
                });
            let was = was || self.settle_fresh(settled.queue, &settled.key);
            assert!(was, "a row is settled that is not there: {:?}", settled.key);
            news.push(News::Settled { queue: settled.queue, key: settled.key });
            let queue = self.queue_ids.iter().find(|(_, id)| **id == settled.queue).map(|(key, _)| key.clone());
            match settled.next {
                Next::Done => {}
                Next::Retry(entry) => {
                    let queue = queue.expect("a queue that holds a row has a key");
                    news.push(self.add_row(&queue, entry, None));
                }
                Next::Move(delivery) => news.push(self.add_row(&delivery.queue, delivery.entry, None)),
            }
            self.events.extend(settled.events);
        }
        for change in settle.changes {
            match change {
                Change::Event(event) => self.events.push(*event),
                other => unreachable!("the scheduler does not ask for {other:?} here"),
            }
        }
    }
}

fn min_key() -> EntryKey {
    let delivery = DeliveryId { message: MessageId::from_bytes([0; 16]), index: 0 };
    EntryKey { due: Timestamp::ZERO, delivery }
}

fn max_key() -> EntryKey {
    let delivery = DeliveryId { message: MessageId::from_bytes([0xff; 16]), index: u32::MAX };
    EntryKey { due: Timestamp::NEVER, delivery }
}
