//! What the API needs of the parts that it does not own, as traits: the daemon implements them, tests stand in for them.
//!
//! Each answers with a boxed future that may move between threads: an HTTP request costs far more than the box.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::event::Event;
use crate::queue::intake::{Accepted, Refusal, Submission};
use crate::store::{Change, ReadError, StoredMessage};
use crate::types::{EventSeq, Mailbox, MessageId, Name};

/// A boxed future of a trait's method.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes the changes that go into the batch of an acceptance, once it is known what is accepted.
pub type Extra = Box<dyn FnOnce(&Accepted) -> Vec<Change> + Send>;

/// The door by which a message becomes ours (`queue::intake`).
pub trait AcceptMessage: Send + Sync {
    /// Accepts a message; `extra` makes changes that are committed in the same batch (the idempotency record).
    /// `Ok` means: on disk. With a refusal nothing was stored, `extra` neither.
    fn accept_with(&self, submission: Submission, extra: Extra) -> Fut<'_, Result<Accepted, Refusal>>;
}

/// A page of the event log.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// Events in the order of their sequence.
    pub events: Vec<Event>,
    /// Up to where the log was read: the `after` of the next page. With a tenant it passes over the events of others.
    pub next: EventSeq,
    /// Whether there was more at the time of the read; else [`ReadSide::last_sequence`] wakes.
    pub more: bool,
    /// The first and last event after `after` that are gone by retention.
    pub gap: Option<(EventSeq, EventSeq)>,
}

/// The reading side of the store.
pub trait ReadSide: Send + Sync {
    /// Events after a sequence, at most `limit`, of one tenant or of all. An empty page means: nothing new.
    fn events(&self, after: EventSeq, limit: usize, tenant: Option<Name>) -> Fut<'_, Result<EventPage, ReadError>>;

    /// The newest events of one recipient address, of one tenant or of all, at most `limit`, in any order.
    fn trace_address(
        &self,
        tenant: Option<Name>,
        address: Mailbox,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Event>, ReadError>>;

    /// The events of one message, oldest first, at most `limit`; none when it is unknown or long gone.
    fn trace_message(&self, id: MessageId, limit: usize) -> Fut<'_, Result<Vec<Event>, ReadError>>;

    /// A message that is still queued.
    fn message(&self, id: MessageId) -> Fut<'_, Result<Option<Arc<StoredMessage>>, ReadError>>;

    /// Records of state whose key begins with `prefix`, in order of their keys, at most `limit`.
    fn state(&self, prefix: Vec<u8>, limit: usize) -> Fut<'_, Result<StateRecords, ReadError>>;

    /// The record of state with this key.
    fn state_get(&self, key: Vec<u8>) -> Fut<'_, Result<Option<Bytes>, ReadError>>;

    /// The sequence of the last committed event; a change wakes those who wait for events.
    fn last_sequence(&self) -> watch::Receiver<EventSeq>;
}

/// Records of state: key and value.
pub type StateRecords = Vec<(Bytes, Bytes)>;

/// A message in the parts in which an application gives it; all values are checked (no controls in header values).
#[derive(Clone, Debug)]
pub struct Draft {
    /// From.
    pub from: Person,
    /// To.
    pub to: Vec<Person>,
    /// Cc. There is no Bcc: it only stands in the envelope.
    pub cc: Vec<Person>,
    /// Reply-To.
    pub reply_to: Vec<Person>,
    /// Subject, unencoded.
    pub subject: String,
    /// The plain text, any line ends.
    pub text: Option<String>,
    /// The HTML, any line ends.
    pub html: Option<String>,
    /// Further fields: names are tokens, values are one line, unencoded; none that the draft itself makes.
    pub headers: Vec<(String, String)>,
    /// Attachments.
    pub attachments: Vec<DraftAttachment>,
}

/// An address with a display name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// The display name, unencoded.
    pub name: Option<String>,
    /// The address.
    pub mailbox: Mailbox,
}

/// A file in a message.
#[derive(Clone, Debug)]
pub struct DraftAttachment {
    /// Its file name, unencoded.
    pub filename: String,
    /// Its media type.
    pub content_type: String,
    /// Its octets.
    pub content: Bytes,
    /// Its Content-ID without brackets, for `cid:` links.
    pub content_id: Option<String>,
    /// Whether it is shown inside the message.
    pub inline: bool,
}

/// Makes the octets of a message (`mime::build`).
pub trait Compose: Send + Sync {
    /// The RFC 5322 octets with CRLF line ends. Date and Message-ID may be missing: intake adds them.
    fn compose(&self, draft: Draft) -> Result<Bytes, ComposeError>;
}

/// Why a draft could not be made into a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ComposeError {
    /// The field of the request.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is only its size that is wrong.
    pub too_large: bool,
}

/// What the daemon does when an operator asks.
pub trait Control: Send + Sync {
    /// Reads the config again and swaps it; the answer says what changed, one line each. On an error the old one stays.
    fn reload(&self) -> Fut<'_, Result<Vec<String>, ControlError>>;

    /// Writes a consistent copy of the store into a folder that does not exist or is empty.
    fn backup(&self, dir: PathBuf) -> Fut<'_, Result<BackupDone, ControlError>>;

    /// Ends intake, delivers what can be delivered, then ends the daemon. Answers once intake has ended.
    fn drain(&self) -> Fut<'_, Result<(), ControlError>>;

    /// How the daemon is; cheap, asked by every probe.
    fn health(&self) -> Health;
}

/// Why the daemon did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// What was asked can't be done as asked: a bad config file, a folder in use. Names what and where.
    #[error("{0}")]
    Refused(String),
    /// It went wrong.
    #[error("{0}")]
    Failed(String),
}

/// A finished backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupDone {
    /// Where it is.
    pub dir: PathBuf,
    /// Its size in octets.
    pub bytes: u64,
    /// The last event in it.
    pub last_sequence: EventSeq,
}

/// How the daemon is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Why the store does not work; `None` when it does.
    pub store_failed: Option<String>,
    /// Why no mail is taken, each as a sentence: low space, starting, draining. Empty means: ready.
    pub not_ready: Vec<String>,
    /// Whether intake has ended for good.
    pub draining: bool,
    /// Octets free under `data_dir`, where known.
    pub free_bytes: Option<u64>,
    /// Where the daemon listens, as `smtp submission 0.0.0.0:587 (starttls)`.
    pub listeners: Vec<String>,
}
