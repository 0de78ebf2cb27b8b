//! What the store keeps and what it is asked to change, as the engines see it.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::Event;
use crate::types::{
    Class, DeliveryId, Domain, Mailbox, MessageId, Name, Notify, QueueId, QueueKey, Ret, ReversePath, Timestamp,
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
    /// The channel was full: these queues have entries that were not told one by one, and must be scanned.
    Dirty {
        /// The queues as they stand, all news before this counted, and nothing that is told after it.
        queues: Vec<QueueRow>,
    },
}
