//! The engines as the HTTP API sees them: one small adapter each.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::api::ports::{
    AcceptMessage, Compose, ComposeError, Draft, EventPage, Extra, Fut, Person, ReadSide, StateRecords,
};
use crate::config::Config;
use crate::event::Event;
use crate::mime::build;
use crate::queue::intake::{Accepted, Intake, Refusal, Submission};
use crate::seam::clock::Clock;
use crate::seam::random;
use crate::store::{ReadError, Reader, StoredMessage};
use crate::types::{EventSeq, Mailbox, MessageId, Name};

/// Intake for requests: a client that goes away leaves its message to a task of its own.
pub(super) struct Door(pub Arc<Intake>);

impl AcceptMessage for Door {
    fn accept_with(&self, submission: Submission, extra: Extra) -> Fut<'_, Result<Accepted, Refusal>> {
        let intake = self.0.clone();
        Box::pin(async move {
            // Dropping an acceptance half-way would leave its share of the quota taken: it runs to its end.
            let task = tokio::spawn(async move { intake.accept_with(submission, 0, extra).await });
            task.await.unwrap_or_else(|_| Err(Refusal::new(451, "4.3.0", 500, "Internal error, try again later")))
        })
    }
}

impl ReadSide for Reader {
    fn events(&self, after: EventSeq, limit: usize, tenant: Option<Name>) -> Fut<'_, Result<EventPage, ReadError>> {
        Box::pin(async move {
            let page = Reader::events(self, after, limit, tenant).await?;
            Ok(EventPage {
                events: page.events,
                next: page.next,
                more: page.more,
                gap: page.gap.map(|gap| (gap.from, gap.to)),
            })
        })
    }

    fn trace_address(
        &self,
        tenant: Option<Name>,
        address: Mailbox,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Event>, ReadError>> {
        Box::pin(Reader::trace_address(self, tenant, address, limit))
    }

    fn trace_message(&self, id: MessageId, limit: usize) -> Fut<'_, Result<Vec<Event>, ReadError>> {
        Box::pin(Reader::trace_message(self, id, limit))
    }

    fn message(&self, id: MessageId) -> Fut<'_, Result<Option<Arc<StoredMessage>>, ReadError>> {
        Box::pin(Reader::message(self, id))
    }

    fn state(&self, prefix: Vec<u8>, limit: usize) -> Fut<'_, Result<StateRecords, ReadError>> {
        Box::pin(Reader::state(self, prefix, limit))
    }

    fn state_get(&self, key: Vec<u8>) -> Fut<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(Reader::state_get(self, key))
    }

    fn last_sequence(&self) -> watch::Receiver<EventSeq> {
        self.committed()
    }
}

/// Writes the messages that come as JSON.
pub(super) struct Writer {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) clock: Clock,
}

impl Compose for Writer {
    fn compose(&self, draft: Draft) -> Result<Bytes, ComposeError> {
        let config = self.config.load();
        let now = self.clock.now();
        let message = build::Message {
            from: address(draft.from),
            to: draft.to.into_iter().map(address).collect(),
            cc: draft.cc.into_iter().map(address).collect(),
            bcc: Vec::new(),
            reply_to: draft.reply_to.into_iter().map(address).collect(),
            subject: Some(draft.subject),
            text: draft.text,
            html: draft.html,
            headers: draft.headers,
            attachments: draft.attachments.into_iter().map(attachment).collect(),
        };
        let message_id = format!("{}@{}", MessageId::new(now, random::u128()), config.hostname);
        message.build(now, &message_id, config.smtp.max_message_size.0).map_err(|error| ComposeError {
            field: error.field,
            reason: error.reason,
            too_large: error.too_large,
        })
    }
}

fn address(person: Person) -> build::Address {
    build::Address { name: person.name, mailbox: person.mailbox }
}

fn attachment(file: crate::api::ports::DraftAttachment) -> build::Attachment {
    build::Attachment {
        filename: Some(file.filename),
        content_type: file.content_type,
        content: file.content.to_vec(),
        content_id: file.content_id,
    }
}
