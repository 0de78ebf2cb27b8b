//! The ledger in memory: batches that are committed after a while, and nothing else survives the process.
//!
//! 1. what came is gathered, the commit takes its time, then all of it is there at once,
//! 2. the answers and the news follow a moment later: a crash in between has committed what nobody was told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::log::{Log, Ms};
use crate::event::Event;
use crate::seam::random::Seeded;
use crate::store::{
    Change, EntryKey, LedgerRequest, LedgerRequests, NewMessage, News, Next, QueueEntry, QueueRow, ReadRequest, Refill,
    Settle, StoredMessage,
};
use crate::types::{DeliveryId, MessageId, QueueId, QueueKey, Timestamp};

/// The most requests of one commit.
const BATCH_MAX: usize = 128;

#[derive(Default)]
pub(super) struct Disk {
    pub rows: BTreeMap<(QueueId, EntryKey), QueueEntry>,
    queues: Vec<Arc<QueueKey>>,
    messages: BTreeMap<MessageId, (Arc<StoredMessage>, usize)>,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// With the time of the commit.
    pub events: Vec<(Ms, Event)>,
}

impl Disk {
    pub(super) fn queue_rows(&self) -> Vec<QueueRow> {
        (1..=self.queues.len()).map(|i| self.queue_row(QueueId(i as u32))).filter(|row| row.count > 0).collect()
    }

    fn queue_row(&self, id: QueueId) -> QueueRow {
        let key = self.queues[id.0 as usize - 1].clone();
        let (next_due, oldest) = (Timestamp::NEVER, Timestamp::NEVER);
        let mut row = QueueRow { id, key, next_due, count: 0, bytes: 0, oldest, rows: None };
        for (_, entry) in self.rows.range((id, first_key())..=(id, last_key())) {
            row.count += 1;
            row.bytes += u64::from(entry.size);
            row.oldest = row.oldest.min(entry.accepted);
            row.next_due = row.next_due.min(entry.key.due);
        }
        row
    }

    pub(super) fn key(&self, id: QueueId) -> &QueueKey {
        &self.queues[id.0 as usize - 1]
    }

    fn page(&self, queue: QueueId, after: Option<EntryKey>, limit: usize) -> Refill {
        let from = after.map_or(Bound::Included((queue, first_key())), |key| Bound::Excluded((queue, key)));
        let mut rows = self.rows.range((from, Bound::Included((queue, last_key())))).map(|(_, entry)| entry.clone());
        let entries: Vec<QueueEntry> = rows.by_ref().take(limit).collect();
        Refill { entries, exhausted: rows.next().is_none() }
    }

    fn add(&mut self, key: &QueueKey, entry: QueueEntry, message: Option<Arc<StoredMessage>>, log: &Log) -> News {
        let known = self.queues.iter().position(|k| **k == *key);
        let at = known.unwrap_or_else(|| {
            self.queues.push(Arc::new(key.clone()));
            self.queues.len() - 1
        });
        let queue = QueueId(at as u32 + 1);
        if self.rows.insert((queue, entry.key), entry.clone()).is_some() {
            log.fault(format!("two rows under one key: {:?}", entry.key));
        }
        News::Queued { queue, key: self.queues[at].clone(), entry, message }
    }

    fn accept(&mut self, new: NewMessage, news: &mut Vec<News>, log: &Log) {
        let message = new.message;
        self.messages.insert(message.envelope.id, (message.clone(), new.deliveries.len()));
        for delivery in new.deliveries {
            news.push(self.add(&delivery.queue, delivery.entry, Some(message.clone()), log));
        }
        self.events.push((log.now(), new.event));
    }

    fn settle(&mut self, settle: Settle, news: &mut Vec<News>, log: &Log) {
        for settled in settle.settled {
            if self.rows.remove(&(settled.queue, settled.key)).is_none() {
                log.fault(format!("a row is settled that is not there: {:?}", settled.key));
                continue;
            }
            news.push(News::Settled { queue: settled.queue, key: settled.key });
            match settled.next {
                Next::Done => self.leave(settled.key.delivery.message),
                Next::Retry(entry) => {
                    let key = self.key(settled.queue).clone();
                    news.push(self.add(&key, entry, None, log));
                }
                Next::Move(delivery) => news.push(self.add(&delivery.queue, delivery.entry, None, log)),
            }
            let at = log.now();
            self.events.extend(settled.events.into_iter().map(|event| (at, event)));
        }
        for owed in settle.owed {
            self.accept(owed, news, log);
        }
    }

    fn leave(&mut self, id: MessageId) {
        if let Some((_, left)) = self.messages.get_mut(&id) {
            *left -= 1;
            if *left == 0 {
                self.messages.remove(&id);
            }
        }
    }

    fn change(&mut self, change: Change, news: &mut Vec<News>, log: &Log) {
        match change {
            Change::Accept(new) => self.accept(*new, news, log),
            Change::Event(event) => self.events.push((log.now(), *event)),
            Change::PutState { key, value } => drop(self.state.insert(key, value)),
            Change::RemoveState { key } => drop(self.state.remove(&key)),
            other => log.fault(format!("nobody here asks for {other:?}")),
        }
    }
}

/// The writer of one life. `alive` ends with the process: what is dropped with it must not write any more.
pub(super) async fn write(
    disk: Rc<RefCell<Disk>>,
    mut requests: LedgerRequests,
    news: mpsc::Sender<Vec<News>>,
    alive: Rc<Cell<bool>>,
    mut dice: Seeded,
    log: Rc<Log>,
) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            Some(request) = requests.settles.recv() => batch.push(request),
            Some(request) = requests.submits.recv() => batch.push(request),
            else => return,
        }
        tokio::time::sleep(Duration::from_millis(1 + dice.below(20))).await;
        while batch.len() < BATCH_MAX
            && let Some(request) = requests.settles.try_recv().ok().or_else(|| requests.submits.try_recv().ok())
        {
            batch.push(request);
        }
        if !alive.get() {
            return;
        }
        let (mut told, mut waiting) = (Vec::new(), Vec::new());
        for request in batch {
            match request {
                LedgerRequest::Submit { changes, reply, room: _ } => {
                    changes.into_iter().for_each(|change| disk.borrow_mut().change(change, &mut told, &log));
                    waiting.push(reply);
                }
                LedgerRequest::Settle(settle) => disk.borrow_mut().settle(settle, &mut told, &log),
                LedgerRequest::Shutdown { reply } => drop(reply.send(())),
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.below(3))).await;
        waiting.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
        if news.send(told).await.is_err() {
            return;
        }
    }
}

/// The readers of one life: a snapshot at the question, the answer later, and not in the order of the questions.
pub(super) async fn read(disk: Rc<RefCell<Disk>>, mut requests: mpsc::Receiver<ReadRequest>, mut dice: Seeded) {
    while let Some(request) = requests.recv().await {
        let later = Duration::from_millis(1 + dice.below(8));
        match request {
            ReadRequest::Refill { queue, after, limit, reply } => {
                let page = disk.borrow().page(queue, after, limit);
                answer(later, reply, page);
            }
            ReadRequest::Message { id, reply } => {
                let message = disk.borrow().messages.get(&id).map(|(message, _)| message.clone());
                answer(later, reply, message);
            }
            // Nobody else asks here; who asks is told that nobody answers.
            other => drop(other),
        }
    }
}

fn answer<T: 'static>(later: Duration, reply: crate::store::ReadReply<T>, value: T) {
    tokio::task::spawn_local(async move {
        tokio::time::sleep(later).await;
        let _ = reply.send(Ok(value));
    });
}

fn first_key() -> EntryKey {
    let delivery = DeliveryId { message: MessageId::from_bytes([0; 16]), index: 0 };
    EntryKey { due: Timestamp::ZERO, delivery }
}

fn last_key() -> EntryKey {
    let delivery = DeliveryId { message: MessageId::from_bytes([0xff; 16]), index: u32::MAX };
    EntryKey { due: Timestamp::NEVER, delivery }
}
