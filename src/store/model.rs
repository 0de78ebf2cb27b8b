//! What the store keeps and what it is asked to change, as the engines see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::event::{Event, EventKind};
use crate::types::{
    AddressHash, CampaignNo, Class, DeliveryId, Domain, Mailbox, MessageId, Name, Notify, QueueId, QueueKey, Ret,
    ReversePath, RowId, Timestamp,
};

/// How a message came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// By SMTP.
    Smtp,
    /// By the HTTP API.
    Http,
    /// Made by us: a notification.
    Internal,
    /// Rendered from a campaign's row at the attempt: the stored octets are the row, not the message.
    Campaign,
}

/// All that is known of a message besides its octets.
#[derive(Clone, PartialEq, Debug)]
pub struct Envelope {
    /// Its id.
    pub id: MessageId,
    /// Who sends it.
    pub tenant: Name,
    /// Its class.
    pub class: Class,
    /// Its campaign.
    pub campaign: Option<Name>,
    /// Tags.
    pub tags: Vec<Name>,
    /// The submitter's own data: a JSON object.
    pub metadata: Option<Box<str>>,
    /// The reverse-path as it goes out.
    pub reverse_path: ReversePath,
    /// `RET` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461 §4.4), still in xtext.
    pub envid: Option<Box<str>>,
    /// Those who get it; a [`DeliveryId`]'s index points in here.
    pub recipients: Vec<EnvelopeRecipient>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// Whether its header or an address needs SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether its body has octets above 127 (RFC 6152).
    pub eight_bit: bool,
    /// The domain of its From: what DKIM aligns with.
    pub from_domain: Option<Domain>,
    /// How it came in.
    pub via: Via,
    /// The peer that handed it in: address, or the name of an API key.
    pub client: Option<Box<str>>,
}

/// One recipient of an envelope.
#[derive(Clone, PartialEq, Debug)]
pub struct EnvelopeRecipient {
    /// The address, as it was given.
    pub mailbox: Mailbox,
    /// `NOTIFY` (RFC 3461 §4.1).
    pub notify: Notify,
    /// `ORCPT` (RFC 3461 §4.2), still in xtext: `rfc822;a@b`.
    pub orcpt: Option<Box<str>>,
}

/// A message as it is kept: the envelope and the RFC 5322 octets, CRLF line ends, without our signature.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredMessage {
    /// The envelope.
    pub envelope: Envelope,
    /// The octets. Cheap to clone.
    pub body: Bytes,
}

/// Where an entry stands in its queue: the key by which it is found and removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryKey {
    /// When it is due.
    pub due: Timestamp,
    /// Which recipient of which message.
    pub delivery: DeliveryId,
}

/// A recipient that waits: small, so that many can wait in memory.
#[derive(Clone, PartialEq, Debug)]
pub struct QueueEntry {
    /// Where it stands.
    pub key: EntryKey,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// The first attempt.
    pub first_try: Option<Timestamp>,
    /// The last attempt.
    pub last_try: Option<Timestamp>,
    /// What the last attempt ended with, on one line, at most 256 octets.
    pub last_reply: Option<Box<str>>,
    /// The message's size in octets.
    pub size: u32,
    /// How many recipients the message had at acceptance; 1 means that settling this one removes the message.
    pub recipients: u32,
    /// Whether a notice of delay was sent (RFC 3461).
    pub delay_noticed: bool,
    /// For a campaign's row (its message id is a [`RowId`]): the address by which `sent` knows it.
    pub sent: Option<AddressHash>,
}

/// One recipient of a message that is being accepted.
#[derive(Clone, PartialEq, Debug)]
pub struct NewDelivery {
    /// Its queue; made when it is new.
    pub queue: QueueKey,
    /// Its first entry. `key.delivery.index` is its place in the envelope.
    pub entry: QueueEntry,
}

/// A message that is being accepted: content, queue entries and event in one batch.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Envelope and octets.
    pub message: Arc<StoredMessage>,
    /// Its recipients.
    pub deliveries: Vec<NewDelivery>,
    /// The `accepted` event.
    pub event: Event,
}

/// What becomes of a queue entry.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// It is done: the entry goes, and the message with its last recipient.
    Done,
    /// It waits again in the same queue, under a new key.
    Retry(QueueEntry),
    /// It waits in another queue (reroute).
    Move(NewDelivery),
}

/// One recipient's outcome.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The queue that it stands in.
    pub queue: QueueId,
    /// Where it stands.
    pub key: EntryKey,
    /// The message's size in octets, for the counts of the queue.
    pub size: u32,
    /// How many recipients the message had at acceptance.
    pub recipients: u32,
    /// For a campaign's row: the address by which `sent` knows it.
    pub sent: Option<AddressHash>,
    /// What becomes of it.
    pub next: Next,
    /// The events that tell it.
    pub events: Vec<Event>,
}

/// The outcomes of one attempt and the notifications that they owe, in one batch.
#[derive(Clone, Debug, Default)]
pub struct Settle {
    /// The outcomes.
    pub settled: Vec<Settled>,
    /// Notifications (RFC 3464) that are queued with them.
    pub owed: Vec<NewMessage>,
    /// What else follows from them: addresses that are not sent to any more.
    pub changes: Vec<Change>,
}

/// A change that somebody submits and waits for.
#[derive(Clone, Debug)]
pub enum Change {
    /// A message is accepted.
    Accept(Box<NewMessage>),
    /// Something happened.
    Event(Box<Event>),
    /// A record of state is written. The key begins with its kind and a slash: `suspension/…`.
    PutState {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// A record of state is removed.
    RemoveState {
        /// The key.
        key: Vec<u8>,
    },
    /// Rows of a campaign are uploaded.
    Rows(Box<NewRows>),
    /// A campaign's rows may be sent, or not any more.
    Run(Box<RunChange>),
    /// All that the store has of a campaign but its events goes: rows, `sent`, counts. In steps, by the ledger itself.
    PurgeCampaign(CampaignNo),
    /// A person is erased: address and variables of this row go, if its address has this hash. What became of it stays in `sent`, by the
    /// hash only, so that it is not sent again. A row that was never tried ends as purged; one that waits for another attempt keeps
    /// nothing to make a message of, so take it out of its queue first.
    EraseRow {
        /// The row.
        id: RowId,
        /// Its address.
        hash: AddressHash,
        /// It is in an attempt: it ends as that does.
        in_attempt: bool,
    },
    /// A person is erased: the events about the address lose it, with the peer's words and the metadata, and the trace forgets it. In
    /// steps, by the ledger itself.
    EraseEvents {
        /// Whose mail.
        tenant: Name,
        /// The address.
        hash: AddressHash,
    },
    /// A record of a table is written.
    Put {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// These changes, unless the same was done before: a report that comes twice counts once, whoever sends it. The ledger looks, so that two
    /// at the same time don't both count.
    Once {
        /// What is done once.
        key: Vec<u8>,
        /// How long it is remembered.
        remember: Duration,
        /// The changes.
        changes: Vec<Change>,
    },
    /// One more of something that is counted over some days; these changes when it comes to so many within that time, and the count
    /// begins anew.
    Tally {
        /// What is counted.
        key: Vec<u8>,
        /// The number at which the changes are made; at most [`TALLY_MAX`].
        at: u32,
        /// The time in which they count.
        within: Duration,
        /// The changes.
        changes: Vec<Change>,
    },
    /// A record of a table is removed.
    Remove {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
    },
}

/// The largest number that [`Change::Tally`] counts to.
pub const TALLY_MAX: u32 = 100;

/// Tables of records that their owners lay out; keys that a tenant owns begin with its name and a zero octet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Table {
    /// Contacts of audiences.
    Contacts,
    /// Addresses that are not sent to.
    Suppressions,
    /// What reports are made of.
    Rollups,
}

/// Rows of a campaign that are being uploaded. Whoever submits has looked that none of their addresses is in `sent`.
///
/// A queue has fresh rows of one step at a time: those of another step that are uploaded meanwhile are stored, but counted as dropped.
/// A submission with rows goes after the others of its commit, and only some 256 KB of them go into one: about so much should be in each.
#[derive(Clone, Debug)]
pub struct NewRows {
    /// The campaign.
    pub campaign: CampaignNo,
    /// The step.
    pub step: u8,
    /// The rows.
    pub rows: Vec<NewRow>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// Its queue; made when it is new. Nothing is sent from it before the campaign runs.
    pub queue: Arc<QueueKey>,
    /// See [`RowId::slot`](crate::types::RowId).
    pub slot: u8,
    /// Its number among the rows of the campaign; used once only.
    pub seq: u32,
    /// Its address.
    pub hash: AddressHash,
    /// Address and variables, as `campaign` writes them.
    pub value: Bytes,
}

/// What a run changes to. A step that was ended is not begun again: the rows that the end dropped stand where they stood.
#[derive(Clone, Debug)]
pub struct RunChange {
    /// The campaign.
    pub campaign: CampaignNo,
    /// The step.
    pub step: u8,
    /// How its rows are sent; `None` ends it: rows that were never tried are not sent any more, those that wait for another attempt
    /// stay in their queues.
    pub run: Option<Run>,
}

/// How the rows of a campaign are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// When it was started: the time of acceptance of its rows.
    pub accepted: Timestamp,
    /// When the rows of slot 0 are due; those of slot n are due n × 15 min later.
    pub due: Timestamp,
    /// How long after it is due a row is given up.
    pub expire_after: Duration,
}

/// What `sent` says of an address in a step of a campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Where its row stands.
    pub row: RowId,
    /// What became of it.
    pub status: SentStatus,
}

/// What became of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SentStatus {
    /// It was uploaded, and no outcome is known.
    Waiting,
    /// It was tried and waits in `queue` for another attempt.
    Queued,
    /// It ended with this event, at this time.
    Ended(EventKind, Timestamp),
}

/// Counts of a campaign's step, part of the batches that they count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunCounts {
    /// Rows uploaded.
    pub rows: u64,
    /// Rows that were never tried and will be, if the campaign runs.
    pub fresh: u64,
    /// Rows that wait for another attempt.
    pub queued: u64,
    /// Rows that will not be tried, since the run was ended before.
    pub dropped: u64,
    /// Events of its rows by kind, but for bounces that came late.
    pub events: std::collections::BTreeMap<EventKind, u64>,
    /// Rows that a mail reported as bounced after the remote had taken them: these stand among the delivered too.
    pub late_bounces: u64,
}

/// A row as it is read.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where it stands.
    pub id: RowId,
    /// Its address.
    pub hash: AddressHash,
    /// Address and variables, as `campaign` writes them.
    pub value: Bytes,
}

/// What a start reads of a queue.
#[derive(Clone, PartialEq, Debug)]
pub struct QueueRow {
    /// Its number.
    pub id: QueueId,
    /// Its key.
    pub key: Arc<QueueKey>,
    /// Nothing in it is due before this.
    pub next_due: Timestamp,
    /// Entries in it.
    pub count: u64,
    /// Octets of the messages that these entries point to.
    pub bytes: u64,
    /// When its oldest entry was accepted, at the latest write; a bound, not exact.
    pub oldest: Timestamp,
    /// For the queue of a campaign: whose rows it has, and whether they are sent. Rows of a campaign that does not run are counted here too.
    pub rows: Option<QueueRows>,
}

/// What a queue has of a campaign's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueRows {
    /// The campaign.
    pub campaign: CampaignNo,
    /// The step.
    pub step: u8,
    /// Rows that were never tried; they are part of the queue's count.
    pub fresh: u64,
    /// Whether the campaign runs.
    pub running: bool,
}

/// What the ledger tells the egress side after a commit.
#[derive(Clone, Debug)]
pub enum News {
    /// An entry was added to a queue (accepted, retried or moved). `message` is there for the just accepted.
    Queued {
        /// The queue's number.
        queue: QueueId,
        /// The queue's key.
        key: Arc<QueueKey>,
        /// The entry.
        entry: QueueEntry,
        /// The message, so that its first attempt need not read it back.
        message: Option<Arc<StoredMessage>>,
    },
    /// An outcome is on disk: its place among the unsettled is free.
    Settled {
        /// The queue's number.
        queue: QueueId,
        /// Where the entry stood.
        key: EntryKey,
    },
    /// A campaign's run began (its queues, as they are now on disk), or ended (all its queues, with what is left in them). Sent before any outcome
    /// of it, and never dropped.
    Run {
        /// The campaign.
        campaign: CampaignNo,
        /// Whether it runs.
        running: bool,
        /// Its queues.
        queues: Vec<QueueRow>,
    },
    /// The channel was full: these queues have entries that were not told one by one, and must be scanned.
    Dirty {
        /// The queues as they stand, all news before this counted, and nothing that is told after it.
        queues: Vec<QueueRow>,
    },
}
