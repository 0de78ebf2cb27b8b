//! News to the egress side: sent after each commit, never waited for.
//!
//! When the channel is full, outcomes are kept (their number is bounded by `delivery.max_unsettled`, which counts them until
//! they are told) and of queued entries only the queues are remembered: the scheduler scans those again, and takes their counts from
//! the ledger's table, exact at the moment of telling. Waiting here instead
//! would close a circle: the egress side may itself be waiting for the ledger.

use std::sync::Arc;

use ahash::AHashMap;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::table::QueueTable;
use super::{News, QueueRow};
use crate::types::{QueueId, QueueKey, Timestamp};

/// The news that wait for room.
pub(super) struct Outbox {
    channel: mpsc::Sender<Vec<News>>,
    settled: Vec<News>,
    dirty: AHashMap<QueueId, Arc<QueueKey>>,
}

impl Outbox {
    pub(super) fn new(channel: mpsc::Sender<Vec<News>>) -> Self {
        Self { channel, settled: Vec::new(), dirty: AHashMap::new() }
    }

    /// Sends the news of a commit, after those that wait. Answers whether they were told one by one.
    pub(super) fn send(&mut self, news: Vec<News>, table: &QueueTable) -> bool {
        if news.is_empty() {
            self.flush(table);
            return true;
        }
        if self.waiting() {
            // Together with what waits: the table counts this commit already, so nothing of it may be told a second time.
            self.keep(news);
            self.flush(table);
            return false;
        }
        match self.channel.try_send(news) {
            // A closed channel: delivery has ended, and nobody wants to know.
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(news)) => {
                self.keep(news);
                false
            }
        }
    }

    /// Whether something waits for room.
    pub(super) fn waiting(&self) -> bool {
        !self.settled.is_empty() || !self.dirty.is_empty()
    }

    /// Resolves when there is room, or nobody to tell.
    pub(super) async fn room(&self) {
        // The permit is given back at once: only this thread sends, so the room stays.
        let _ = self.channel.reserve().await;
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self, table: &QueueTable) {
        if !self.waiting() {
            return;
        }
        let mut news = std::mem::take(&mut self.settled);
        if !self.dirty.is_empty() {
            news.push(News::Dirty { queues: self.dirty.drain().map(|(id, key)| row(table, id, key)).collect() });
        }
        if let Err(TrySendError::Full(news)) = self.channel.try_send(news) {
            self.keep(news);
        }
    }

    fn keep(&mut self, news: Vec<News>) {
        for one in news {
            match one {
                News::Queued { queue, key, .. } => {
                    self.dirty.insert(queue, key);
                }
                News::Dirty { queues } => self.dirty.extend(queues.into_iter().map(|row| (row.id, row.key))),
                News::Settled { .. } | News::Run { .. } => self.settled.push(one),
            }
        }
    }
}

/// A queue as it stands. One that the table has forgotten is empty.
pub(super) fn row(table: &QueueTable, id: QueueId, key: Arc<QueueKey>) -> QueueRow {
    let known = table.get(id).map(|queue| queue.row.clone());
    known.unwrap_or(QueueRow {
        id,
        key,
        next_due: Timestamp::NEVER,
        count: 0,
        bytes: 0,
        oldest: Timestamp::NEVER,
        rows: None,
    })
}
