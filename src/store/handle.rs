//! The handles by which the engines reach the ledger and the reader threads.
//!
//! Both are channels of requests, so that a test can stand in for the store by serving the receiving end.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Change, EntryKey, NewMessage, QueueEntry, QueueRow, Row, Run, RunCounts, Sent, Settle, StoredMessage, Table, keys,
};
use crate::event::Event;
use crate::types::{AddressHash, CampaignNo, EventSeq, Mailbox, MessageId, Name, QueueId, RowId};

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
    failed: Arc<OnceLock<Arc<str>>>,
}

/// The ledger thread's end of the channels.
#[derive(Debug)]
pub struct LedgerRequests {
    /// Submissions, bounded by [`SUBMITS_MAX`] and [`SUBMIT_BYTES_MAX`].
    pub submits: mpsc::Receiver<LedgerRequest>,
    /// Outcomes; bounded by `delivery.max_unsettled`, which the scheduler counts.
    pub settles: mpsc::UnboundedReceiver<LedgerRequest>,
    /// Why the store failed, once it has: set before the channels are closed, so that nobody is told a shutdown.
    pub failed: Arc<OnceLock<Arc<str>>>,
}

impl Ledger {
    /// A handle and the other end of it.
    pub fn channel() -> (Ledger, LedgerRequests) {
        let (submits, submits_rx) = mpsc::channel(SUBMITS_MAX);
        let (settles, settles_rx) = mpsc::unbounded_channel();
        let failed = Arc::new(OnceLock::new());
        let bytes = Arc::new(Semaphore::new(SUBMIT_BYTES_MAX));
        let ledger = Ledger { submits, settles, bytes, failed: failed.clone() };
        (ledger, LedgerRequests { submits: submits_rx, settles: settles_rx, failed })
    }

    /// Makes changes durable, all together or not at all. Waits for room, then for the commit. `Ok` means: on disk.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<(), SubmitError> {
        let bytes = changes.iter().map(change_bytes).sum::<usize>().clamp(1, SUBMIT_BYTES_MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.bytes.clone().acquire_many_owned(permits).await.map_err(|_| self.ended())?;
        let (reply, answer) = oneshot::channel();
        let request = LedgerRequest::Submit { changes, reply, room: Some(room) };
        self.submits.send(request).await.map_err(|_| self.ended())?;
        answer.await.map_err(|_| self.ended())?
    }

    /// Remembers how far a reader of events has come: a webhook, an export. One small record; once a page, not once an event.
    pub async fn save_cursor(&self, reader: &Name, at: EventSeq) -> Result<(), SubmitError> {
        self.submit(vec![Change::PutState { key: cursor_key(reader), value: at.0.to_be_bytes().to_vec() }]).await
    }

    /// Forgets a reader of events.
    pub async fn remove_cursor(&self, reader: &Name) -> Result<(), SubmitError> {
        self.submit(vec![Change::RemoveState { key: cursor_key(reader) }]).await
    }

    /// Hands over outcomes. Never blocks: the scheduler bounds them by `delivery.max_unsettled`.
    ///
    /// `Ok` does not mean that it is on disk: [`super::News::Settled`] does.
    pub fn settle(&self, settle: Settle) -> Result<(), SubmitError> {
        if self.failed.get().is_some() {
            return Err(self.ended());
        }
        self.settles.send(LedgerRequest::Settle(settle)).map_err(|_| self.ended())
    }

    fn ended(&self) -> SubmitError {
        self.failed.get().map_or(SubmitError::ShuttingDown, |reason| SubmitError::Failed(reason.clone()))
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

fn cursor_key(reader: &Name) -> Vec<u8> {
    [keys::STATE_CURSOR, reader.as_str().as_bytes()].concat()
}

pub(super) fn change_bytes(change: &Change) -> usize {
    match change {
        Change::Accept(new) => new_message_bytes(new),
        Change::Event(_) => 512,
        Change::PutState { key, value } => key.len() + value.len(),
        Change::RemoveState { key } | Change::Remove { key, .. } => key.len(),
        Change::Put { key, value, .. } => key.len() + value.len(),
        Change::Once { key, changes, .. } | Change::Tally { key, changes, .. } => {
            2 * key.len() + 64 + changes.iter().map(change_bytes).sum::<usize>()
        }
        Change::Rows(new) => new.rows.iter().map(|row| 128 + row.value.len()).sum(),
        Change::Run(_) | Change::PurgeCampaign(_) | Change::EraseRow { .. } | Change::EraseEvents { .. } => 64,
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

/// A page of the event log.
#[derive(Clone, Debug, Default)]
pub struct EventsPage {
    /// The events, in order.
    pub events: Vec<Event>,
    /// The cursor for the next page: the last event that was looked at, given out or not.
    pub next: EventSeq,
    /// Whether there was more at the time of the snapshot; else wait on [`Reader::committed`].
    pub more: bool,
    /// Events between the cursor and this page that are gone: retention dropped them before this reader came.
    pub gap: Option<EventGap>,
}

/// A page of the event log as it is stored.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// The JSON of the events, in order.
    pub records: Vec<Bytes>,
    /// The cursor for the next page.
    pub next: EventSeq,
    /// Whether there was more at the time of the snapshot.
    pub more: bool,
    /// Events between the cursor and this page that are gone.
    pub gap: Option<EventGap>,
}

/// Events that are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventGap {
    /// The first that is gone.
    pub from: EventSeq,
    /// The last that is gone.
    pub to: EventSeq,
}

/// A record of `state`: its key and its value.
pub type StateRecord = (Bytes, Bytes);

/// Where an answer of the reader threads goes.
pub type ReadReply<T> = oneshot::Sender<Result<T, ReadError>>;

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
        reply: ReadReply<Refill>,
    },
    /// One message.
    Message {
        /// Which.
        id: MessageId,
        /// Where to; `None` when it is not there.
        reply: ReadReply<Option<Arc<StoredMessage>>>,
    },
    /// A page of the event log.
    Events {
        /// After this.
        after: EventSeq,
        /// How many at the most.
        limit: usize,
        /// Only this tenant's.
        tenant: Option<Name>,
        /// Where to.
        reply: ReadReply<EventsPage>,
    },
    /// A page of the event log as it is stored.
    Log {
        /// After this.
        after: EventSeq,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: ReadReply<LogPage>,
    },
    /// The events that concern an address, the newest first.
    TraceAddress {
        /// Only this tenant's.
        tenant: Option<Name>,
        /// The address; compared in its canonical form.
        address: Mailbox,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: ReadReply<Vec<Event>>,
    },
    /// The events of a message and of its recipients, the oldest first.
    TraceMessage {
        /// Which.
        id: MessageId,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: ReadReply<Vec<Event>>,
    },
    /// Records of state whose keys begin with a prefix, in order of key.
    State {
        /// The prefix; with a whole key and a limit of 1 it finds that one.
        prefix: Vec<u8>,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: ReadReply<Vec<StateRecord>>,
    },
    /// The record of state with exactly this key.
    StateGet {
        /// The key.
        key: Vec<u8>,
        /// Where to.
        reply: ReadReply<Option<Bytes>>,
    },
    /// The rows of all queues that hold something.
    Queues {
        /// Where to.
        reply: ReadReply<Vec<QueueRow>>,
    },
    /// Rows of a campaign, in the order of their ids.
    Rows {
        /// The campaign.
        campaign: CampaignNo,
        /// Strictly after this.
        after: Option<RowId>,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: ReadReply<Vec<Row>>,
    },
    /// One row of a campaign.
    Row {
        /// Which.
        id: RowId,
        /// Where to; `None` when it is not there.
        reply: ReadReply<Option<Row>>,
    },
    /// Several rows, in the order asked.
    RowsAt {
        /// Which.
        ids: Vec<RowId>,
        /// Where to; `None` for those that are not there.
        reply: ReadReply<Vec<Option<Row>>>,
    },
    /// What `sent` says of addresses, in the order asked.
    Sent {
        /// The campaign.
        campaign: CampaignNo,
        /// The step.
        step: u8,
        /// The addresses.
        hashes: Vec<AddressHash>,
        /// Where to.
        reply: ReadReply<Vec<Option<Sent>>>,
    },
    /// The run of a campaign's step, if it was started and not ended, and its counts.
    Run {
        /// The campaign.
        campaign: CampaignNo,
        /// The step.
        step: u8,
        /// Where to.
        reply: ReadReply<(Option<Run>, RunCounts)>,
    },
    /// Records of a table with these keys, in the order asked.
    TableGet {
        /// The table.
        table: Table,
        /// The keys.
        keys: Vec<Vec<u8>>,
        /// Where to.
        reply: ReadReply<Vec<Option<Bytes>>>,
    },
    /// Records of a table whose keys begin with a prefix, in order of key.
    TableScan {
        /// The table.
        table: Table,
        /// The prefix.
        prefix: Vec<u8>,
        /// Strictly after this key.
        after: Option<Vec<u8>>,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: ReadReply<Vec<StateRecord>>,
    },
}

/// The way to the reader threads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    requests: mpsc::Sender<ReadRequest>,
    committed: watch::Receiver<EventSeq>,
}

impl Reader {
    /// A handle and the other end of it. No event is ever told by it: for tests that stand in for the store.
    pub fn channel(capacity: usize) -> (Reader, mpsc::Receiver<ReadRequest>) {
        Self::with_committed(capacity, watch::channel(EventSeq(0)).1)
    }

    /// A handle and the other end of it; `committed` tells the last event on disk.
    pub fn with_committed(
        capacity: usize,
        committed: watch::Receiver<EventSeq>,
    ) -> (Reader, mpsc::Receiver<ReadRequest>) {
        let (requests, receiver) = mpsc::channel(capacity);
        (Reader { requests, committed }, receiver)
    }

    /// The last event on disk, and a way to wait for the next: `changed().await`, then page by cursor.
    pub fn committed(&self) -> watch::Receiver<EventSeq> {
        self.committed.clone()
    }

    /// The last event on disk: where a reader begins that wants only what is to come.
    pub fn events_tail(&self) -> EventSeq {
        *self.committed.borrow()
    }

    /// Entries of a queue, strictly after a key (or from its watermark), at most `limit`.
    pub async fn refill(&self, queue: QueueId, after: Option<EntryKey>, limit: usize) -> Result<Refill, ReadError> {
        self.ask(|reply| ReadRequest::Refill { queue, after, limit, reply }).await
    }

    /// One message, or `None` when it is gone.
    pub async fn message(&self, id: MessageId) -> Result<Option<Arc<StoredMessage>>, ReadError> {
        self.ask(|reply| ReadRequest::Message { id, reply }).await
    }

    /// Events after a cursor, at most `limit`, only those of a tenant if one is given. `EventSeq(0)` begins with the oldest there is.
    pub async fn events(&self, after: EventSeq, limit: usize, tenant: Option<Name>) -> Result<EventsPage, ReadError> {
        self.ask(|reply| ReadRequest::Events { after, limit, tenant, reply }).await
    }

    /// Events after a cursor as they are stored: for a reader that looks at little of each.
    pub async fn log(&self, after: EventSeq, limit: usize) -> Result<LogPage, ReadError> {
        self.ask(|reply| ReadRequest::Log { after, limit, reply }).await
    }

    /// What became of an address: its events, the newest first, at most `limit`.
    pub async fn trace_address(
        &self,
        tenant: Option<Name>,
        address: Mailbox,
        limit: usize,
    ) -> Result<Vec<Event>, ReadError> {
        self.ask(|reply| ReadRequest::TraceAddress { tenant, address, limit, reply }).await
    }

    /// What became of a message: its acceptance and all events of its recipients, the oldest first, at most `limit`.
    /// Empty when it is not known, or its events are older than the retention. The message itself need not exist any more.
    pub async fn trace_message(&self, id: MessageId, limit: usize) -> Result<Vec<Event>, ReadError> {
        self.ask(|reply| ReadRequest::TraceMessage { id, limit, reply }).await
    }

    /// Records of state whose keys begin with `prefix`, in order of key, at most `limit`.
    pub async fn state(&self, prefix: impl Into<Vec<u8>>, limit: usize) -> Result<Vec<StateRecord>, ReadError> {
        let prefix = prefix.into();
        self.ask(|reply| ReadRequest::State { prefix, limit, reply }).await
    }

    /// The record of state with this key.
    pub async fn state_get(&self, key: impl Into<Vec<u8>>) -> Result<Option<Bytes>, ReadError> {
        let key = key.into();
        self.ask(|reply| ReadRequest::StateGet { key, reply }).await
    }

    /// Whether a [`Change::Once`] with this key was done, and is remembered at `now`.
    pub async fn was_done(&self, key: &[u8], now: crate::types::Timestamp) -> Result<bool, ReadError> {
        let value = self.state_get([keys::STATE_ONCE, key].concat()).await?;
        let until = value.and_then(|value| value.first_chunk().map(|at| u64::from_be_bytes(*at)));
        Ok(until.is_some_and(|until| until > now.as_millis()))
    }

    /// How far a reader of events had come: what [`Ledger::save_cursor`] saved last. Unknown readers begin with the oldest event.
    pub async fn cursor(&self, reader: &Name) -> Result<EventSeq, ReadError> {
        let value = self.state_get(cursor_key(reader)).await?;
        let Some(value) = value else { return Ok(EventSeq(0)) };
        let octets = <[u8; 8]>::try_from(&value[..]).map_err(|_| ReadError("the cursor is not readable".into()))?;
        Ok(EventSeq(u64::from_be_bytes(octets)))
    }

    /// The rows of all queues that hold something, as they are on disk.
    pub async fn queues(&self) -> Result<Vec<QueueRow>, ReadError> {
        self.ask(|reply| ReadRequest::Queues { reply }).await
    }

    /// Rows of a campaign in the order of their ids, strictly after one of them, at most `limit`.
    pub async fn rows(&self, campaign: CampaignNo, after: Option<RowId>, limit: usize) -> Result<Vec<Row>, ReadError> {
        self.ask(|reply| ReadRequest::Rows { campaign, after, limit, reply }).await
    }

    /// One row of a campaign, or `None` when it is not there.
    pub async fn row(&self, id: RowId) -> Result<Option<Row>, ReadError> {
        self.ask(|reply| ReadRequest::Row { id, reply }).await
    }

    /// Rows of campaigns in the order asked, in one read; `None` for those that are not there. One that can't be read fails them all: whoever
    /// asks can ask for each by itself then.
    pub async fn rows_at(&self, ids: Vec<RowId>) -> Result<Vec<Option<Row>>, ReadError> {
        self.ask(|reply| ReadRequest::RowsAt { ids, reply }).await
    }

    /// What became of addresses in a step of a campaign, in the order asked; `None` for those that are not in it.
    pub async fn sent(
        &self,
        campaign: CampaignNo,
        step: u8,
        hashes: Vec<AddressHash>,
    ) -> Result<Vec<Option<Sent>>, ReadError> {
        self.ask(|reply| ReadRequest::Sent { campaign, step, hashes, reply }).await
    }

    /// The run of a campaign's step, if it was started and not ended, and its counts.
    pub async fn run(&self, campaign: CampaignNo, step: u8) -> Result<(Option<Run>, RunCounts), ReadError> {
        self.ask(|reply| ReadRequest::Run { campaign, step, reply }).await
    }

    /// Records of a table, in the order asked.
    pub async fn table_get(&self, table: Table, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, ReadError> {
        self.ask(|reply| ReadRequest::TableGet { table, keys, reply }).await
    }

    /// Records of a table whose keys begin with `prefix`, in order of key, strictly after a key, at most `limit`.
    pub async fn table_scan(
        &self,
        table: Table,
        prefix: impl Into<Vec<u8>>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Vec<StateRecord>, ReadError> {
        let prefix = prefix.into();
        self.ask(|reply| ReadRequest::TableScan { table, prefix, after, limit, reply }).await
    }

    async fn ask<T>(&self, make: impl FnOnce(ReadReply<T>) -> ReadRequest) -> Result<T, ReadError> {
        let ended = || ReadError("the reader threads have ended".into());
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}
