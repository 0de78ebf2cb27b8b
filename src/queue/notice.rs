//! Notifications: what the queue knows when one is owed, and who writes it.

use std::sync::Arc;

use crate::delivery::{Failure, Peer};
pub use crate::effects::Notice;
use crate::event::SmtpReply;
use crate::store::{NewMessage, StoredMessage};
use crate::types::Timestamp;

/// What a notification tells, for one message.
#[derive(Debug)]
pub struct NoticeReport<'a> {
    /// Which kind.
    pub kind: Notice,
    /// The message that it is about; its reverse-path is not null.
    pub message: &'a Arc<StoredMessage>,
    /// The recipients that it is about; at least one, and all of them want this kind.
    pub recipients: Vec<NoticeRecipient<'a>>,
    /// When.
    pub now: Timestamp,
}

/// One recipient in a notification.
#[derive(Debug)]
pub struct NoticeRecipient<'a> {
    /// Its place in the envelope.
    pub index: u32,
    /// How its last attempt ended.
    pub outcome: NoticeOutcome<'a>,
    /// Who said so, where a peer did.
    pub peer: Option<&'a Peer>,
    /// When it was last tried.
    pub last_attempt: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// Until when it is tried: RFC 3464 §2.3.9, `Will-Retry-Until`. For delays.
    pub retry_until: Timestamp,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum NoticeOutcome<'a> {
    /// The peer took it, with these words.
    Relayed(&'a SmtpReply),
    /// It failed.
    Failed(&'a Failure),
    /// It became too old; the words of its last attempt, where there was one.
    Expired {
        /// The last failure of this attempt, if it expired in one.
        failure: Option<&'a Failure>,
        /// Else the last reply as the queue kept it.
        last_reply: Option<&'a str>,
    },
}

/// Writes notifications (RFC 3464).
pub trait Notifier {
    /// The notification as a message to be queued; `None` when there is none to send (nobody to send it to, or it can't be written).
    fn notice(&self, report: &NoticeReport<'_>) -> Option<NewMessage>;
}

/// Tells nobody: for tests and the planner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Notifier for Silent {
    fn notice(&self, _: &NoticeReport<'_>) -> Option<NewMessage> {
        None
    }
}
