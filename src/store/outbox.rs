//! News to the egress side: sent after each commit, never waited for.
//!
//! When the channel is full, outcomes are kept (their number is bounded by `delivery.max_unsettled`, which counts them until
//! they are told) and of queued entries only the queues are remembered: the scheduler scans those again. Waiting here instead
//! would close a circle: the egress side may itself be waiting for the ledger.

use std::sync::Arc;

use ahash::AHashMap;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::News;
use crate::types::{QueueId, QueueKey};

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
    pub(super) fn send(&mut self, news: Vec<News>) -> bool {
        self.flush();
        if news.is_empty() {
            return true;
        }
        if self.waiting() {
            self.keep(news);
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
    pub(super) fn flush(&mut self) {
        if !self.waiting() {
            return;
        }
        let mut news = std::mem::take(&mut self.settled);
        if !self.dirty.is_empty() {
            news.push(News::Dirty { queues: self.dirty.drain().collect() });
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
                News::Dirty { queues } => self.dirty.extend(queues),
                News::Settled { .. } | News::Run { .. } => self.settled.push(one),
            }
        }
    }
}
