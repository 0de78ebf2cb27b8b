//! The handles by which the engines reach the ledger and the reader threads.
//!
//! Both are channels of requests, so that a test can stand in for the store by serving the receiving end.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Change, EntryKey, NewMessage, QueueEntry, Settle, StoredMessage};
use crate::types::{MessageId, QueueId};

/// The most submissions that may wait for the ledger; then submitters wait for room.
pub const SUBMITS_MAX: usize = 1_024;

/// The most octets of submissions that may wait for the ledger; then submitters wait for room.
pub const SUBMIT_BYTES_MAX: usize = 64 << 20;

/// Why a change was not made durable. Nothing of it was stored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// Too little space is left (`storage.min_free`): 452 4.3.1, 507. Delivery goes on.
    #[error("low on disk space: {free} octets free, {min_free} wanted")]
    LowSpace {
        /// Octets free.
        free: u64,
        /// `storage.min_free`.
        min_free: u64,
    },
    /// The store failed; the daemon is about to end: 451 4.3.0, 503.
    #[error("the store failed: {0}")]
    Failed(Arc<str>),
    /// The daemon is ending: 421 4.3.2, 503.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// A request to the ledger thread.
#[derive(Debug)]
pub enum LedgerRequest {
    /// Changes that somebody waits for. Committed all together or not at all.
    Submit {
        /// What changes.
        changes: Vec<Change>,
        /// Told after the sync.
        reply: oneshot::Sender<Result<(), SubmitError>>,
        /// Room in the channel's byte budget; given back when the request is done.
        room: Option<tokio::sync::OwnedSemaphorePermit>,
    },
    /// Outcomes of an attempt; [`super::News::Settled`] tells when they are on disk.
    Settle(Settle),
    /// Write what has come so far, then end the thread.
    Shutdown {
        /// Told at the end.
        reply: oneshot::Sender<()>,
    },
}

/// The way to the ledger thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    submits: mpsc::Sender<LedgerRequest>,
    settles: mpsc::UnboundedSender<LedgerRequest>,
    bytes: Arc<Semaphore>,
}

/// The ledger thread's end of the channels.
#[derive(Debug)]
pub struct LedgerRequests {
    /// Submissions, bounded by [`SUBMITS_MAX`] and [`SUBMIT_BYTES_MAX`].
    pub submits: mpsc::Receiver<LedgerRequest>,
    /// Outcomes; bounded by `delivery.max_unsettled`, which the scheduler counts.
    pub settles: mpsc::UnboundedReceiver<LedgerRequest>,
}

impl Ledger {
    /// A handle and the other end of it.
    pub fn channel() -> (Ledger, LedgerRequests) {
        let (submits, submits_rx) = mpsc::channel(SUBMITS_MAX);
        let (settles, settles_rx) = mpsc::unbounded_channel();
        let ledger = Ledger { submits, settles, bytes: Arc::new(Semaphore::new(SUBMIT_BYTES_MAX)) };
        (ledger, LedgerRequests { submits: submits_rx, settles: settles_rx })
    }

    /// Makes changes durable, all together or not at all. Waits for room, then for the commit. `Ok` means: on disk.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<(), SubmitError> {
        let bytes = changes.iter().map(change_bytes).sum::<usize>().clamp(1, SUBMIT_BYTES_MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.bytes.clone().acquire_many_owned(permits).await.map_err(|_| SubmitError::ShuttingDown)?;
        let (reply, answer) = oneshot::channel();
        let request = LedgerRequest::Submit { changes, reply, room: Some(room) };
        self.submits.send(request).await.map_err(|_| SubmitError::ShuttingDown)?;
        answer.await.map_err(|_| SubmitError::ShuttingDown)?
    }

    /// Hands over outcomes. Never blocks: the scheduler bounds them by `delivery.max_unsettled`.
    pub fn settle(&self, settle: Settle) -> Result<(), SubmitError> {
        self.settles.send(LedgerRequest::Settle(settle)).map_err(|_| SubmitError::ShuttingDown)
    }

    /// Commits what has come so far and ends the ledger thread.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        if self.settles.send(LedgerRequest::Shutdown { reply }).is_ok() {
            // An error means that the thread is gone already: that is what was wanted.
            let _ = answer.await;
        }
    }
}

fn change_bytes(change: &Change) -> usize {
    match change {
        Change::Accept(new) => new_message_bytes(new),
        Change::Event(_) => 512,
        Change::PutState { key, value } => key.len() + value.len(),
        Change::RemoveState { key } => key.len(),
    }
}

fn new_message_bytes(new: &NewMessage) -> usize {
    512 + new.message.body.len() + new.deliveries.len() * 256
}

/// A page of a queue.
#[derive(Clone, Debug, Default)]
pub struct Refill {
    /// Entries in order of [`EntryKey`], strictly after the key that was asked for.
    pub entries: Vec<QueueEntry>,
    /// Whether there was nothing more after them at the time of the snapshot.
    pub exhausted: bool,
}

/// Why a read failed: the store's own words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("reading the store failed: {0}")]
pub struct ReadError(pub Arc<str>);

/// A request to the reader threads, each answered from one snapshot.
#[derive(Debug)]
pub enum ReadRequest {
    /// Entries of a queue, strictly after a key.
    Refill {
        /// The queue.
        queue: QueueId,
        /// After this; `None` from the queue's watermark.
        after: Option<EntryKey>,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: oneshot::Sender<Result<Refill, ReadError>>,
    },
    /// One message.
    Message {
        /// Which.
        id: MessageId,
        /// Where to; `None` when it is not there.
        reply: oneshot::Sender<Result<Option<Arc<StoredMessage>>, ReadError>>,
    },
}

/// The way to the reader threads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    requests: mpsc::Sender<ReadRequest>,
}

impl Reader {
    /// A handle and the other end of it.
    pub fn channel(capacity: usize) -> (Reader, mpsc::Receiver<ReadRequest>) {
        let (requests, receiver) = mpsc::channel(capacity);
        (Reader { requests }, receiver)
    }

    /// Entries of a queue, strictly after a key, at most `limit`.
    pub async fn refill(&self, queue: QueueId, after: Option<EntryKey>, limit: usize) -> Result<Refill, ReadError> {
        self.ask(|reply| ReadRequest::Refill { queue, after, limit, reply }).await
    }

    /// One message, or `None` when it is gone.
    pub async fn message(&self, id: MessageId) -> Result<Option<Arc<StoredMessage>>, ReadError> {
        self.ask(|reply| ReadRequest::Message { id, reply }).await
    }

    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, ReadError>>) -> ReadRequest,
    ) -> Result<T, ReadError> {
        let ended = || ReadError("the reader threads have ended".into());
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}
