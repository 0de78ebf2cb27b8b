//! The forms of a body: Posthaste's own, and those that receivers of other senders know.
//!
//! 1. [`piece`] writes an event in a form, or says that the form has no such event,
//! 2. [`body`] makes the pieces of a batch a body; it is made anew for each try, since Mailgun's has the time in it.
//!
//! Names and values of the other forms are those of their makers' documentation; what Posthaste does not know is left out, not made up.

mod listmonk;
mod mailgun;
mod sendgrid;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::config::{WebhookFormat, WebhookSecret};
use crate::event::{Event, EventKind};
use crate::types::{Mailbox, Name, Timestamp};

/// The event in a form; `None` where the form has no such event.
pub(super) fn piece(format: WebhookFormat, event: &Event) -> Option<Vec<u8>> {
    let value = match format {
        // An event is made of texts and numbers: it can always be written.
        WebhookFormat::Posthaste => return serde_json::to_vec(event).ok(),
        WebhookFormat::Listmonk => listmonk::object(event)?,
        WebhookFormat::Mailgun => mailgun::object(event)?,
        WebhookFormat::Sendgrid => sendgrid::object(event)?,
    };
    serde_json::to_vec(&value).ok()
}

/// Whether the form takes several events in a request.
pub(super) fn is_batched(format: WebhookFormat) -> bool {
    match format {
        WebhookFormat::Posthaste | WebhookFormat::Sendgrid => true,
        WebhookFormat::Listmonk | WebhookFormat::Mailgun => false,
    }
}

/// The body of these pieces. A form that is not batched has one.
pub(super) fn body(format: WebhookFormat, pieces: &[Vec<u8>], secrets: &[WebhookSecret], now: Timestamp) -> Vec<u8> {
    if is_batched(format) {
        return [b"[".as_slice(), &pieces.join(b",".as_slice()), b"]"].concat();
    }
    let piece = pieces.first().map_or(b"{}".as_slice(), Vec::as_slice);
    match format {
        WebhookFormat::Mailgun => mailgun::body(piece, secrets, now),
        WebhookFormat::Posthaste | WebhookFormat::Sendgrid | WebhookFormat::Listmonk => piece.to_vec(),
    }
}

/// The event of `posthaste webhook test`: one that the form has, about nobody.
pub(super) fn test_event(format: WebhookFormat, now: Timestamp, tenant: Name) -> Event {
    let kind = match format {
        WebhookFormat::Posthaste => EventKind::Alert,
        WebhookFormat::Listmonk | WebhookFormat::Mailgun | WebhookFormat::Sendgrid => EventKind::Bounced,
    };
    let mut event = Event::new(kind, now, tenant);
    event.reason = Some("a test of this webhook: nothing happened".into());
    if kind == EventKind::Bounced {
        event.recipient = Mailbox::parse("posthaste-test@example.invalid").ok();
        event.severity = Some(crate::event::Severity::Temporary);
    }
    event
}

/// A JSON object of what is there.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Value::Object(object.0)
    }
}

/// Whether a failure is for good, where the event says nothing of it.
fn is_permanent(event: &Event) -> bool {
    event.severity != Some(crate::event::Severity::Temporary)
}

/// What the peer said, or why we gave up.
fn why(event: &Event) -> String {
    match (&event.smtp, &event.reason) {
        (Some(reply), _) => reply.to_string(),
        (None, Some(reason)) => reason.to_string(),
        (None, None) => String::new(),
    }
}

/// The submitter's own data.
fn metadata(event: &Event) -> Option<Map<String, Value>> {
    let raw = event.metadata.as_ref()?;
    serde_json::from_str(raw.get()).ok()
}

/// An id of this event that stays the same when it is sent again.
fn event_id(event: &Event) -> String {
    format!("posthaste-{}", event.seq.0)
}
