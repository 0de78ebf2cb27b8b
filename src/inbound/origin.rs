//! The message that a return path stands for: its recipient, and what is known of its delivery.
//!
//! The trace tells: all events of a message are found by its id, those of an address by its hash. Of a campaign's row the message id says where the
//! row is, and the row has the address. What is older than the retention of events, erased or purged is not known any more.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::Inbound;
use crate::event::{Event, EventKind};
use crate::links::ReturnPath;
use crate::store::ReadError;
use crate::types::{Mailbox, Name, RowId};

/// The most events of one message that are looked through: one a recipient and attempt.
const MESSAGE_EVENTS_MAX: usize = 10_000;
/// The most events of one address that are looked through, the newest first.
const ADDRESS_EVENTS_MAX: usize = 500;

/// How often a look-up that finds nothing is made again, [`AGAIN_AFTER`] apart: a host that bounces at once may bring its bounce before the batch
/// with the delivery is on disk.
const AGAIN_MAX: u32 = 20;
/// The time between two look-ups.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Answers the recipient of a campaign's row; `None` when it is not known any more.
pub type FindRow = Arc<dyn Fn(RowId) -> RowFuture + Send + Sync>;

/// A look-up of a row.
pub type RowFuture = Pin<Box<dyn Future<Output = Result<Option<Mailbox>, ReadError>> + Send>>;

/// A recipient of a message of ours.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The recipient.
    pub(super) recipient: Mailbox,
    /// The event that tells best how it was delivered, for the fields that a new event takes over.
    pub(super) event: Event,
}

impl Inbound {
    /// What is known of a recipient; `None` when nothing is, and nothing came to be known within [`AGAIN_MAX`] look-ups.
    pub(super) async fn origin(&self, tenant: &Name, path: ReturnPath) -> Result<Option<Origin>, ReadError> {
        for _ in 0..AGAIN_MAX {
            let found = self.origin_now(tenant, path).await?;
            if found.is_some() {
                return Ok(found);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        self.origin_now(tenant, path).await
    }

    async fn origin_now(&self, tenant: &Name, path: ReturnPath) -> Result<Option<Origin>, ReadError> {
        match RowId::of(path.message) {
            Some(row) => self.origin_of_row(tenant, path, row).await,
            None => {
                let events = self.parts.reader.trace_message(path.message, MESSAGE_EVENTS_MAX).await?;
                Ok(best(tenant, path, events.into_iter().rev()))
            }
        }
    }

    async fn origin_of_row(&self, tenant: &Name, path: ReturnPath, row: RowId) -> Result<Option<Origin>, ReadError> {
        let Some(recipient) = (self.parts.rows)(row).await? else { return Ok(None) };
        if !path.is_of(&recipient) {
            return Ok(None);
        }
        let events = self.parts.reader.trace_address(Some(tenant.clone()), recipient, ADDRESS_EVENTS_MAX).await?;
        Ok(best(tenant, path, events))
    }
}

/// The newest event of a delivery among these, the newest first; else the newest of any kind.
fn best(tenant: &Name, path: ReturnPath, events: impl IntoIterator<Item = Event>) -> Option<Origin> {
    let mine = |event: &Event| {
        event.message_id == Some(path.message)
            && event.tenant == *tenant
            && event.recipient.as_ref().is_some_and(|recipient| path.is_of(recipient))
    };
    let mut newest: Option<Event> = None;
    for event in events.into_iter().filter(mine) {
        if event.event == EventKind::Delivered {
            newest = Some(event);
            break;
        }
        newest.get_or_insert(event);
    }
    let event = newest?;
    Some(Origin { recipient: event.recipient.clone()?, event })
}
