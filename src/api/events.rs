//! `GET /v1/events`: the log by cursor, as pages or lines, with a long poll.
//!
//! 1. Where to begin: `after`, or the durable cursor's place, or the oldest event that is kept,
//! 2. with a cursor, `after` acknowledges: it is made durable before anything is answered,
//! 3. pages are read until one has events, or nothing is new; then up to `wait` seconds for the next commit,
//! 4. what retention removed before it was read shows as one `gap` event.
//!
//! A consumer that crashes before it acknowledges gets the same events again: at least once.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::input::{Params, read_json};
use super::types::{CursorInfo, Cursors, EventsAck, EventsPage};
use super::{Answer, Api, Caller, Problem, json};
use crate::event::{Event, EventKind};
use crate::store::Change;
use crate::types::{EventSeq, Name, Timestamp, nearest};

/// Events in a page where nothing is said.
const LIMIT_DEFAULT: usize = 100;
/// The most events in a page.
const LIMIT_MAX: usize = 10_000;
/// The longest wait, in seconds: proxies cut longer ones.
const WAIT_MAX_S: u64 = 60;
/// The most events that one call reads through to find those that a filter wants; then it answers with what it has.
const SCAN_MAX: usize = 100_000;
/// The most cursors of a tenant, and of the node.
const CURSORS_MAX: usize = 100;
/// The prefix of the cursors in `state`.
const PREFIX: &str = "cursor/";
/// The version of a cursor's record.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct CursorRecord {
    v: u8,
    after: u64,
    at: Timestamp,
}

/// What a call asks for.
struct Query {
    after: EventSeq,
    limit: usize,
    wait: Duration,
    tenant: Option<Name>,
    kinds: Vec<EventKind>,
    campaign: Option<Name>,
}

/// Events after a place in the log.
///
/// With `Accept: application/x-ndjson` each line is an event, and the header field `Posthaste-Next` has the next `after`.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "Events after this id; `latest` for the end of the log. With `cursor` it acknowledges up to this id"),
        ("limit" = Option<usize>, Query, description = "At most so many events (default 100, most 10000)"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for an event where there is none (most 60)"),
        ("cursor" = Option<String>, Query, description = "A durable cursor: begins where it was acknowledged"),
        ("event" = Option<String>, Query, description = "Only these kinds, separated by commas"),
        ("campaign" = Option<String>, Query, description = "Only this campaign's"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's"),
    ),
    responses((status = 200, body = EventsPage), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn get_events(State(api): State<Api>, caller: Caller, headers: HeaderMap, mut params: Params) -> Answer {
    let after = params.text("after")?;
    let cursor = params.parse("cursor", Name::parse)?;
    let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let wait = params.get::<u64>("wait")?.unwrap_or(0);
    let kinds = params.parse("event", parse_kinds)?.unwrap_or_default();
    let campaign = params.parse("campaign", Name::parse)?;
    let tenant = caller.scope(params.parse("tenant", Name::parse)?)?;
    params.finish()?;
    if wait > WAIT_MAX_S {
        return Err(Problem::invalid("wait", format!("{wait} is more than {WAIT_MAX_S} seconds")));
    }
    let last = *api.parts().read.last_sequence().borrow();
    let after = match after.as_deref() {
        None => None,
        Some("latest") => Some(last),
        Some(text) => Some(text.parse().map(EventSeq).map_err(|_| {
            Problem::invalid("after", format!("{text:?} is neither the id of an event nor \"latest\""))
        })?),
    };
    let after = match (&cursor, after) {
        (None, after) => after.unwrap_or_default(),
        (Some(cursor), Some(after)) => {
            acknowledge(&api, &caller, cursor, after).await?;
            after
        }
        (Some(cursor), None) => EventSeq(stored(&api, &caller, cursor).await?.map_or(0, |c| c.after)),
    };
    let query = Query { after, limit, wait: Duration::from_secs(wait), tenant, kinds, campaign };
    let page = read(&api, query).await?;
    let lines = headers.get(header::ACCEPT).is_some_and(|a| a.as_bytes().starts_with(b"application/x-ndjson"));
    if lines { ndjson(&page) } else { json(&page) }
}

/// The events of one campaign, by the same rules but without cursors.
pub(super) async fn of_campaign(api: &Api, mut params: Params, tenant: Name, campaign: Name) -> Answer {
    let after = EventSeq(params.get::<u64>("after")?.unwrap_or(0));
    let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    let wait = params.get::<u64>("wait")?.unwrap_or(0);
    let kinds = params.parse("event", parse_kinds)?.unwrap_or_default();
    params.finish()?;
    if wait > WAIT_MAX_S {
        return Err(Problem::invalid("wait", format!("{wait} is more than {WAIT_MAX_S} seconds")));
    }
    let (tenant, campaign) = (Some(tenant), Some(campaign));
    json(&read(api, Query { after, limit, wait: Duration::from_secs(wait), tenant, kinds, campaign }).await?)
}

fn parse_kinds(text: &str) -> Result<Vec<EventKind>, String> {
    let kind = |name: &str| {
        let found = EventKind::ALL.into_iter().find(|k| k.as_str() == name);
        let hint = || nearest(name, EventKind::ALL.map(EventKind::as_str));
        found.ok_or_else(|| {
            format!("no event is called {name:?}{}", hint().map_or(String::new(), |n| format!(", did you mean {n}?")))
        })
    };
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(kind).collect()
}

/// Reads on until there is something to answer or nothing new, then waits.
async fn read(api: &Api, query: Query) -> Result<EventsPage, Problem> {
    let mut last = api.parts().read.last_sequence();
    let mut closing = api.0.closing.subscribe();
    let deadline = tokio::time::Instant::now() + query.wait;
    let mut out = EventsPage { events: Vec::new(), next: query.after, more: false };
    let mut scanned = 0;
    loop {
        last.mark_unchanged();
        let page = api.parts().read.events(out.next, query.limit, query.tenant.clone()).await?;
        if let Some(lost) = page.gap {
            out.events.push(gap(api, lost, query.tenant.as_ref()));
            out.next = out.next.max(lost.1);
        }
        let (read, before) = (page.events.len(), out.next);
        scanned += read;
        out.next = page.next.max(before);
        let wanted = |e: &Event| {
            let kind = query.kinds.is_empty() || query.kinds.contains(&e.event);
            let campaign = query.campaign.is_none() || query.campaign == e.campaign;
            e.event == EventKind::Gap || (kind && campaign)
        };
        let room = query.limit.saturating_sub(out.events.len());
        let mut wanted: Vec<Event> = page.events.into_iter().filter(wanted).collect();
        if wanted.len() > room {
            wanted.truncate(room);
            out.next = wanted.last().map_or(before, |e| e.seq);
        }
        out.events.append(&mut wanted);
        let cut = out.next < page.next;
        out.more = cut || page.more;
        // Without progress there is nothing to go on with, whatever the store says of more.
        if out.events.len() >= query.limit || scanned >= SCAN_MAX || (out.more && out.next == before) {
            return Ok(out);
        }
        if out.more {
            continue;
        }
        if !out.events.is_empty() || query.wait.is_zero() {
            return Ok(out);
        }
        tokio::select! {
            changed = last.changed() => if changed.is_err() { return Ok(out) },
            () = tokio::time::sleep_until(deadline) => return Ok(out),
            _ = closing.wait_for(|closing| *closing) => return Ok(out),
        }
    }
}

/// Says which events are gone. Its id is the last of them: reading on from it loses nothing more.
fn gap(api: &Api, lost: (EventSeq, EventSeq), tenant: Option<&Name>) -> Event {
    let node = || Name::parse("node").expect("a valid name");
    let mut event = Event::new(EventKind::Gap, api.now(), tenant.cloned().unwrap_or_else(node));
    event.seq = lost.1;
    event.reason =
        Some(format!("events {} to {} were removed by retention before they were read", lost.0.0, lost.1.0).into());
    event
}

fn ndjson(page: &EventsPage) -> Answer {
    let mut body = Vec::with_capacity(page.events.len() * 512);
    for event in &page.events {
        // An event is made of texts and numbers: it can always be written.
        let _ = serde_json::to_writer(&mut body, event);
        body.push(b'\n');
    }
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (header::HeaderName::from_static("posthaste-next"), page.next.0.to_string()),
        (header::HeaderName::from_static("posthaste-more"), page.more.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// Acknowledge events: the cursor will begin after this one.
#[utoipa::path(
    post, path = "/v1/events/ack", tag = "events", request_body = EventsAck,
    responses((status = 200, body = CursorInfo), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn ack_events(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    let ack: EventsAck = read_json(&api, request).await?;
    let at = acknowledge(&api, &caller, &ack.cursor, ack.after).await?;
    json(&CursorInfo { cursor: ack.cursor.to_string(), after: ack.after.0, at })
}

/// The durable cursors, and how far the log goes.
#[utoipa::path(get, path = "/v1/events/cursors", tag = "events", responses((status = 200, body = Cursors)))]
pub async fn get_cursors(State(api): State<Api>, caller: Caller, params: Params) -> Answer {
    params.finish()?;
    let last = *api.parts().read.last_sequence().borrow();
    let prefix = cursor_prefix(&caller);
    let records = api.parts().read.state(prefix.clone().into_bytes(), CURSORS_MAX * 100).await?;
    let cursors = records.iter().filter_map(|(key, value)| {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&prefix)?;
        let record: CursorRecord = serde_json::from_slice(value).ok()?;
        Some(CursorInfo { cursor: name.to_owned(), after: record.after, at: record.at })
    });
    json(&Cursors { cursors: cursors.collect(), last: last.0 })
}

/// Forget a cursor.
#[utoipa::path(
    delete, path = "/v1/events/cursors/{cursor}", tag = "events",
    params(("cursor" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn delete_cursor(
    State(api): State<Api>,
    caller: Caller,
    axum::extract::Path(cursor): axum::extract::Path<String>,
) -> Answer {
    let name = Name::parse(&cursor).map_err(|e| Problem::invalid("cursor", e))?;
    if stored(&api, &caller, &name).await?.is_none() {
        return Err(Problem::not_found(format!("there is no cursor {name}")));
    }
    api.parts().ledger.submit(vec![Change::RemoveState { key: cursor_key(&caller, &name) }]).await?;
    Ok(axum::http::StatusCode::NO_CONTENT.into_response())
}

/// A tenant's cursors lie below its name, the node's directly below the prefix.
fn cursor_prefix(caller: &Caller) -> String {
    match &caller.tenant {
        Some(tenant) => format!("{PREFIX}{tenant}/"),
        None => PREFIX.to_owned(),
    }
}

fn cursor_key(caller: &Caller, name: &Name) -> Vec<u8> {
    format!("{}{name}", cursor_prefix(caller)).into_bytes()
}

async fn stored(api: &Api, caller: &Caller, name: &Name) -> Result<Option<CursorRecord>, Problem> {
    let found = api.parts().read.state_get(cursor_key(caller, name)).await?;
    Ok(found.and_then(|value| serde_json::from_slice(&value).ok()).filter(|c: &CursorRecord| c.v == VERSION))
}

/// Makes a cursor's place durable. It never moves past the end of the log; moving back is allowed: to read again.
async fn acknowledge(api: &Api, caller: &Caller, name: &Name, after: EventSeq) -> Result<Timestamp, Problem> {
    let last = *api.parts().read.last_sequence().borrow();
    if after > last {
        return Err(Problem::invalid("after", format!("{} is after the last event, {}", after.0, last.0)));
    }
    match stored(api, caller, name).await? {
        Some(record) if record.after == after.0 => return Ok(record.at),
        Some(_) => {}
        None => {
            let own = api.parts().read.state(cursor_prefix(caller).into_bytes(), CURSORS_MAX + 1).await?;
            if own.len() > CURSORS_MAX {
                return Err(Problem::invalid("cursor", format!("there are {CURSORS_MAX} cursors already: delete one")));
            }
        }
    }
    let at = api.now();
    // A struct of numbers can always be written.
    let value = serde_json::to_vec(&CursorRecord { v: VERSION, after: after.0, at }).unwrap_or_default();
    api.parts().ledger.submit(vec![Change::PutState { key: cursor_key(caller, name), value }]).await?;
    Ok(at)
}
