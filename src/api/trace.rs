//! What became of a message, or of an address: the events, drawn together.
//!
//! Tenants see only their own; what is another's is not found, so that an id tells nothing.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;

use super::input::Params;
use super::types::{AddressTrace, MessageLife, RecipientLife};
use super::{Answer, Api, Caller, Problem, json};
use crate::event::{Event, EventKind};
use crate::queue::admin::{Command, EntryInfo, Matcher};
use crate::store::StoredMessage;
use crate::types::{Mailbox, MessageId, Name};

/// The most events of one message that are read.
const MESSAGE_EVENTS_MAX: usize = 10_000;
/// The most waiting recipients of one message that are asked for.
const ENTRIES_MAX: usize = 10_000;
/// Events of an address where nothing is said.
const ADDRESS_EVENTS_DEFAULT: usize = 200;
/// The most events of an address.
const ADDRESS_EVENTS_MAX: usize = 10_000;

/// The whole life of a message.
#[utoipa::path(
    get, path = "/v1/messages/{id}", tag = "messages",
    params(("id" = String, Path, description = "The message's id")),
    responses((status = 200, body = MessageLife), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_message(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    params.finish()?;
    let id = parse_id(&id)?;
    let read = &api.parts().read;
    let stored = read.message(id).await?;
    let events = read.trace_message(id, MESSAGE_EVENTS_MAX).await?;
    let owner = stored.as_ref().map(|m| m.envelope.tenant.clone()).or_else(|| events.first().map(|e| e.tenant.clone()));
    let Some(tenant) = owner.filter(|t| caller.sees(t)) else { return Err(unknown(id)) };
    let waiting = match &stored {
        None => Vec::new(),
        Some(_) => {
            let matcher = Matcher { message: Some(id), ..Matcher::default() };
            api.ask(|reply| Command::Show { matcher, limit: ENTRIES_MAX, reply }).await?
        }
    };
    json(&life(id, tenant, stored.as_deref(), &waiting, events))
}

/// The octets of a message that is still queued.
#[utoipa::path(
    get, path = "/v1/messages/{id}/raw", tag = "messages",
    params(("id" = String, Path, description = "The message's id")),
    responses(
        (status = 200, description = "As it is kept, without our signature", content_type = "message/rfc822", body = String),
        (status = 404, description = "It is not there any more", body = super::openapi::ProblemSchema),
    )
)]
pub async fn get_raw(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    params.finish()?;
    caller.must_be_admin()?;
    let id = parse_id(&id)?;
    match api.parts().read.message(id).await? {
        Some(message) => Ok(([(header::CONTENT_TYPE, "message/rfc822")], message.body.clone()).into_response()),
        None => Err(unknown(id)),
    }
}

/// What became of an address.
#[utoipa::path(
    get, path = "/v1/trace", tag = "messages",
    params(
        ("address" = String, Query, description = "The recipient"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's mail"),
        ("limit" = Option<usize>, Query, description = "At most so many events, the newest (default 200)"),
    ),
    responses((status = 200, body = AddressTrace))
)]
pub async fn get_trace(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let address = params.parse("address", Mailbox::parse)?;
    let tenant = params.parse("tenant", Name::parse)?;
    let limit = params.limit("limit", ADDRESS_EVENTS_DEFAULT, ADDRESS_EVENTS_MAX)?;
    params.finish()?;
    let address = address.ok_or_else(|| Problem::invalid("address", "whose mail? ?address=a@b.example"))?;
    let tenant = caller.scope(tenant)?;
    let mut events = api.parts().read.trace_address(tenant, address.clone(), limit).await?;
    events.sort_by_key(|e: &Event| e.seq);
    json(&AddressTrace { address: address.to_string(), events })
}

fn parse_id(text: &str) -> Result<MessageId, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("{text:?} is not the id of a message")))
}

fn unknown(id: MessageId) -> Problem {
    Problem::not_found(format!("no message {id} is known: it never was, or its events are past their retention"))
}

/// Draws a message's life together from what is kept of it, where it waits, and its events.
fn life(
    id: MessageId,
    tenant: Name,
    stored: Option<&StoredMessage>,
    waiting: &[EntryInfo],
    events: Vec<Event>,
) -> MessageLife {
    let accepted = events.iter().find(|e| e.event == EventKind::Accepted);
    let envelope = stored.map(|m| &m.envelope);
    let recipients = recipients(stored, waiting, &events);
    let waits = stored.is_some() || recipients.iter().any(|r| matches!(r.state.as_str(), "queued" | "deferred"));
    MessageLife {
        id,
        state: if waits { "queued" } else { "done" }.into(),
        tenant,
        accepted: envelope.map_or(id.timestamp(), |e| e.accepted),
        sender: envelope
            .map(|e| e.reverse_path.to_string())
            .or_else(|| accepted.and_then(|e| e.sender.as_deref().map(str::to_owned))),
        size: stored.map(|m| m.body.len() as u64).or_else(|| accepted.and_then(|e| e.size)),
        class: envelope.map(|e| e.class).or_else(|| accepted.and_then(|e| e.class)),
        campaign: envelope.and_then(|e| e.campaign.clone()).or_else(|| accepted.and_then(|e| e.campaign.clone())),
        tags: envelope.map(|e| e.tags.clone()).or_else(|| accepted.map(|e| e.tags.clone())).unwrap_or_default(),
        via: accepted.and_then(|e| e.via.as_deref().map(str::to_owned)),
        client: accepted
            .and_then(|e| e.client.as_deref().map(str::to_owned))
            .or_else(|| envelope.and_then(|e| e.client.as_deref().map(str::to_owned))),
        recipients,
        events,
    }
}

/// One line for each recipient: in the order of the envelope where it is still there, else of the events.
fn recipients(stored: Option<&StoredMessage>, waiting: &[EntryInfo], events: &[Event]) -> Vec<RecipientLife> {
    let mut order: Vec<String> = Vec::new();
    let mut by_address: BTreeMap<String, RecipientLife> = BTreeMap::new();
    let envelope = stored.into_iter().flat_map(|m| m.envelope.recipients.iter().map(|r| &r.mailbox));
    for mailbox in envelope.chain(events.iter().filter_map(|e| e.recipient.as_ref())) {
        by_address.entry(mailbox.canonical()).or_insert_with(|| {
            order.push(mailbox.canonical());
            RecipientLife {
                recipient: mailbox.to_string(),
                state: "queued".into(),
                attempts: 0,
                next_attempt: None,
                expires: stored.map(|m| m.envelope.expires),
                last_reply: None,
            }
        });
    }
    for event in events {
        if let Some(life) = event.recipient.as_ref().and_then(|r| by_address.get_mut(&r.canonical())) {
            apply(life, event);
        }
    }
    for entry in waiting {
        let address = stored.and_then(|m| m.envelope.recipients.get(entry.index as usize));
        if let Some(life) = address.and_then(|r| by_address.get_mut(&r.mailbox.canonical())) {
            life.attempts = life.attempts.max(entry.attempts);
            life.next_attempt = Some(entry.due);
            life.expires = Some(entry.expires);
        }
    }
    order.iter().filter_map(|address| by_address.remove(address)).collect()
}

fn apply(life: &mut RecipientLife, event: &Event) {
    life.attempts = life.attempts.max(event.attempt.unwrap_or(0));
    if event.event.is_terminal() {
        life.state = event.event.as_str().into();
        (life.next_attempt, life.expires) = (None, None);
    } else if event.event == EventKind::Deferred {
        life.state = "deferred".into();
        life.next_attempt = event.retry_at;
    }
    let reply = event.smtp.as_ref().map(|r| match (&r.enhanced, r.code) {
        (_, 0) => r.text.to_string(),
        (Some(enhanced), code) if !r.text.starts_with(&**enhanced) => format!("{code} {enhanced} {}", r.text),
        (_, code) => format!("{code} {}", r.text),
    });
    if let Some(reply) = reply.or_else(|| event.reason.as_deref().map(str::to_owned)) {
        life.last_reply = Some(reply);
    }
}
