//! Suppressions: the addresses that are not sent to. A tenant's key sees and changes its own; the global ones are the node's.
//!
//! An entry is known by scope, reason and address: adding it twice is the same as once, so these calls need no idempotency key.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::info;
use utoipa::ToSchema;

use super::input::{Params, media_type, read_json, unsupported_media};
use super::{Answer, Api, Caller, Problem, json};
use crate::config::HumanDuration;
use crate::store::ReadError;
use crate::suppression::{
    CSV_HEADER, Entry, Filtered, ImportError, ImportOptions, ImportReport, Owner, Reason, Scope, SuppressionError,
    Suppressions, TEXT_MAX, csv_line, parse_time,
};
use crate::types::{AddressHash, Mailbox, Name, Timestamp};

/// Entries of a page where nothing is said.
const LIST_DEFAULT: usize = 100;
/// The most entries of a page.
const LIST_MAX: usize = 10_000;
/// Pieces of an export that wait for the client; then reading waits.
const EXPORT_PIECES: usize = 2;
/// Entries in a piece of an export.
const EXPORT_PAGE: usize = 5_000;
/// How long the next part of an import may take; then 408.
const IMPORT_IDLE: Duration = Duration::from_secs(60);

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SuppressionInfo {
    /// The address; none once it was erased.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// Its keyed hash, in hexadecimal digits.
    pub hash: String,
    /// `hard_bounce`, `complaint`, `unsubscribe` (marketing mail only) or `manual`.
    #[schema(value_type = String)]
    pub reason: Reason,
    /// `global`, `tenant` or `list`.
    pub scope: String,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<Name>,
    /// The list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub list: Option<Name>,
    /// Since when.
    #[schema(value_type = String, format = "date-time")]
    pub since: Timestamp,
    /// Until when; for good without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = "date-time")]
    pub expires: Option<Timestamp>,
    /// Who or what made it.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub source: String,
    /// A note.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
}

impl SuppressionInfo {
    fn of(entry: &Entry) -> Self {
        Self {
            address: entry.address.as_ref().map(ToString::to_string),
            hash: hex(&entry.hash),
            reason: entry.reason,
            scope: entry.scope.as_str().into(),
            tenant: entry.scope.tenant().cloned(),
            list: entry.scope.list().cloned(),
            since: entry.since,
            expires: entry.expires,
            source: entry.source.to_string(),
            note: entry.note.to_string(),
        }
    }
}

/// Entries.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SuppressionsPage {
    /// The entries, in no order that means anything.
    pub suppressions: Vec<SuppressionInfo>,
    /// The `after` of the next page; none after the last. With a filter a page may be empty and have a next one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// Body of `POST /v1/suppressions`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSuppression {
    /// The address.
    pub address: String,
    /// Why: `manual` without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// Whose, for the node's keys; may be left out where there is one tenant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<Name>,
    /// Only mail to this list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub list: Option<Name>,
    /// All mail of the node; for admins.
    #[serde(default)]
    pub global: bool,
    /// Until when: a time or a date.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<String>,
    /// For how long, as `30d`; instead of `expires`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none", default)]
    pub duration: Option<String>,
    /// A note.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

/// What an import did.
#[derive(ToSchema)]
#[schema(as = ImportReport)]
#[allow(dead_code)]
pub struct ImportReportSchema {
    /// Rows that were read.
    rows: u64,
    /// Entries that are new.
    added: u64,
    /// Entries that were there.
    renewed: u64,
    /// Rows that are not valid.
    invalid: u64,
    /// The first hundred of them.
    errors: Vec<RowErrorSchema>,
    /// Columns that mean nothing here.
    ignored_columns: Vec<String>,
}

/// A row that was not taken.
#[derive(ToSchema)]
#[schema(as = RowError)]
#[allow(dead_code)]
pub struct RowErrorSchema {
    /// The line in the file, from 1.
    line: u64,
    /// Why.
    reason: String,
}

/// The scope that a change is about.
fn scope(api: &Api, caller: &Caller, tenant: Option<Name>, list: Option<Name>, global: bool) -> Result<Scope, Problem> {
    if global {
        caller.must_be_admin()?;
        return match (tenant, list) {
            (None, None) => Ok(Scope::Global),
            _ => Err(Problem::invalid("global", "a global entry has neither tenant nor list")),
        };
    }
    let config = api.config();
    let tenant = match (caller.scope(tenant)?, config.tenants.as_slice()) {
        (Some(tenant), _) => tenant,
        (None, [only]) => only.name.clone(),
        (None, _) => return Err(Problem::invalid("tenant", "whose? Give tenant, or global=true")),
    };
    if !config.tenants.iter().any(|known| known.name == tenant) {
        return Err(Problem::invalid("tenant", format!("there is no tenant {tenant}")));
    }
    Ok(Scope::of(tenant, list))
}

/// Whose entries are asked for: `None` for everybody's.
fn owner(params: &mut Params, caller: &Caller) -> Result<Owner, Problem> {
    let tenant = caller.scope(params.parse("tenant", Name::parse)?)?;
    match (params.switch("global")?, tenant) {
        (false, None) => Ok(Owner::All),
        (false, Some(tenant)) => Ok(Owner::Tenant(tenant)),
        (true, None) => Ok(Owner::Node),
        (true, Some(_)) => Err(Problem::invalid("global", "a global entry has no tenant").with("parameter", "global")),
    }
}

fn filtered(params: &mut Params, caller: &Caller) -> Result<Filtered, Problem> {
    Ok(Filtered {
        of: owner(params, caller)?,
        list: params.parse("list", Name::parse)?,
        reason: params.get::<Reason>("reason")?,
    })
}

/// The entries that match, by pages; with `address` all of that one.
#[utoipa::path(
    get, path = "/v1/suppressions", tag = "suppressions",
    params(
        ("address" = Option<String>, Query, description = "Only this address"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's"),
        ("global" = Option<bool>, Query, description = "Only the global ones"),
        ("list" = Option<String>, Query, description = "Only those of this list"),
        ("reason" = Option<String>, Query, description = "Only those with this reason"),
        ("limit" = Option<usize>, Query, description = "At most so many (default 100)"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, body = SuppressionsPage))
)]
pub async fn get_suppressions(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let address = params.parse("address", Mailbox::parse)?;
    let which = filtered(&mut params, &caller)?;
    let limit = params.limit("limit", LIST_DEFAULT, LIST_MAX)?;
    let after = params.parse("after", |text| from_hex(text).ok_or("not the `next` of a page"))?;
    params.finish()?;
    let suppressions = &api.parts().suppressions;
    let Some(address) = address else {
        let page = suppressions.list(&which, after, limit).await?;
        let next = page.next.map(|key| hex(&key));
        return json(&SuppressionsPage { suppressions: page.entries.iter().map(SuppressionInfo::of).collect(), next });
    };
    let owners = match which.of {
        Owner::Node => vec![None],
        Owner::Tenant(tenant) => vec![Some(tenant)],
        Owner::All => {
            [None].into_iter().chain(api.config().tenants.iter().map(|tenant| Some(tenant.name.clone()))).collect()
        }
    };
    let mut found = Vec::new();
    for owner in &owners {
        found.extend(suppressions.get(owner.as_ref(), &address).await?);
    }
    found.retain(|entry| {
        which.list.as_ref().is_none_or(|list| entry.scope.list() == Some(list))
            && which.reason.is_none_or(|reason| entry.reason == reason)
    });
    json(&SuppressionsPage { suppressions: found.iter().map(SuppressionInfo::of).collect(), next: None })
}

/// Add an entry, or renew it. 201 means: it is new; either means: on disk.
#[utoipa::path(
    post, path = "/v1/suppressions", tag = "suppressions", request_body = NewSuppression,
    responses(
        (status = 200, description = "It was there, and is as said now", body = SuppressionInfo),
        (status = 201, description = "It is new", body = SuppressionInfo),
        (status = 422, body = super::openapi::ProblemSchema),
    )
)]
pub async fn post_suppression(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    caller.may_send()?;
    let new: NewSuppression = read_json(&api, request).await?;
    let address = Mailbox::parse(new.address.trim()).map_err(|e| Problem::invalid("address", e))?;
    let scope = scope(&api, &caller, new.tenant, new.list, new.global)?;
    let expires = expires(&api, new.expires, new.duration)?;
    let note = new.note.unwrap_or_default();
    check_note(&note)?;
    let suppressions = &api.parts().suppressions;
    let reason = new.reason.unwrap_or(Reason::Manual);
    let mut entry = suppressions.entry(scope, reason, &address, &caller.name);
    (entry.expires, entry.note) = (expires, note.into());
    let (entry, is_new) = suppressions.add(entry).await?;
    count(&api, if is_new { "added" } else { "renewed" }, 1);
    info!(by = %caller.name, scope = %entry.scope, %reason, "suppression added");
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(SuppressionInfo::of(&entry))).into_response())
}

fn check_note(note: &str) -> Result<(), Problem> {
    match super::compose::not_one_line(note) {
        Some(why) => Err(Problem::invalid("note", why)),
        None if note.len() > TEXT_MAX => Err(Problem::invalid("note", format!("longer than {TEXT_MAX} octets"))),
        None => Ok(()),
    }
}

fn expires(api: &Api, until: Option<String>, duration: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let at = match (until, duration) {
        (None, None) => return Ok(None),
        (Some(text), None) => parse_time(&text).map_err(|e| Problem::invalid("expires", e))?,
        (None, Some(text)) => {
            let duration: HumanDuration = text.parse().map_err(|e| Problem::invalid("for", e))?;
            api.now().after(duration.0)
        }
        (Some(_), Some(_)) => return Err(Problem::invalid("expires", "give either for or expires")),
    };
    if at <= api.now() { Err(Problem::invalid("expires", "this is in the past")) } else { Ok(Some(at)) }
}

/// Remove entries of an address: those of exactly this scope, or with `all` those of every list of the tenant, too.
#[utoipa::path(
    delete, path = "/v1/suppressions", tag = "suppressions",
    params(
        ("address" = String, Query, description = "The address"),
        ("tenant" = Option<String>, Query, description = "Whose"),
        ("list" = Option<String>, Query, description = "Only this list's"),
        ("global" = Option<bool>, Query, description = "The global ones; for admins"),
        ("reason" = Option<String>, Query, description = "Only those with this reason"),
        ("all" = Option<bool>, Query, description = "The tenant's and those of all its lists"),
    ),
    responses((status = 200, description = "What was removed", body = SuppressionsPage), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn delete_suppression(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    caller.may_send()?;
    let address = params.parse("address", Mailbox::parse)?;
    let address = address.ok_or_else(|| Problem::invalid("address", "which address?").with("parameter", "address"))?;
    let (tenant, list) = (params.parse("tenant", Name::parse)?, params.parse("list", Name::parse)?);
    let (global, reason) = (params.switch("global")?, params.get::<Reason>("reason")?);
    let all = params.switch("all")?;
    params.finish()?;
    let scope = scope(&api, &caller, tenant, list, global)?;
    let suppressions = &api.parts().suppressions;
    let mut scopes = vec![scope.clone()];
    if all {
        let there = suppressions.get(scope.tenant(), &address).await?;
        scopes.extend(there.into_iter().map(|entry| entry.scope));
        scopes.sort();
        scopes.dedup();
    }
    let mut removed = Vec::new();
    for scope in &scopes {
        removed.extend(suppressions.remove(scope, reason, &address).await?);
    }
    if removed.is_empty() {
        return Err(Problem::not_found(format!("no suppression of this address is like that ({scope})")));
    }
    count(&api, "removed", removed.len() as u64);
    info!(by = %caller.name, %scope, count = removed.len(), "suppressions removed");
    json(&SuppressionsPage { suppressions: removed.iter().map(SuppressionInfo::of).collect(), next: None })
}

/// Import a CSV file of any length: `email`, and where wanted `reason`, `scope`, `tenant`, `list`, `since`, `expires`, `source`, `note`.
///
/// Rows that are not valid are told with their line; the others are taken. What an error in between says is stored, stays.
#[utoipa::path(
    post, path = "/v1/suppressions/import", tag = "suppressions",
    params(
        ("tenant" = Option<String>, Query, description = "Whose"),
        ("list" = Option<String>, Query, description = "Of this list, where a row does not say it"),
        ("global" = Option<bool>, Query, description = "Global where a row names no tenant; for admins"),
        ("reason" = Option<String>, Query, description = "Where a row does not say it (default manual)"),
        ("note" = Option<String>, Query, description = "Where a row does not say it"),
    ),
    request_body(content((String = "text/csv"))),
    responses((status = 200, body = ImportReportSchema), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn import_suppressions(
    State(api): State<Api>,
    caller: Caller,
    mut params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, list) = (params.parse("tenant", Name::parse)?, params.parse("list", Name::parse)?);
    let (global, reason) = (params.switch("global")?, params.get::<Reason>("reason")?);
    let note = params.text("note")?.unwrap_or_default();
    params.finish()?;
    check_note(&note)?;
    let scope = scope(&api, &caller, tenant, list, global)?;
    let media = media_type(request.headers());
    if !matches!(media.as_str(), "" | "text/csv" | "text/plain" | "application/octet-stream") {
        return Err(unsupported_media(&media, "text/csv"));
    }
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING) {
        let detail = format!("Content-Encoding {encoding:?} is not supported: send the file as it is");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", detail));
    }
    let options = ImportOptions {
        any_owner: scope == Scope::Global,
        scope,
        reason: reason.unwrap_or(Reason::Manual),
        source: format!("import by {}", caller.name),
        note,
    };
    let report = run_import(&api, options, request.into_body()).await?;
    info!(by = %caller.name, rows = report.rows, added = report.added, invalid = report.invalid, "suppressions imported");
    json(&report)
}

async fn run_import(api: &Api, options: ImportOptions, mut body: Body) -> Result<ImportReport, Problem> {
    let mut importer = api.parts().suppressions.importer(options);
    loop {
        let frame = match tokio::time::timeout(IMPORT_IDLE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(e))) => return Err(Problem::bad_request(format!("the body could not be read: {e}"))),
            Err(_) => {
                let detail = format!("nothing came for {} s", IMPORT_IDLE.as_secs());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if let Err(error) = importer.feed(&data).await {
            return Err(broken_off(error, importer.report()));
        }
    }
    let so_far = importer.report().clone();
    let report = importer.finish().await.map_err(|error| broken_off(error, &so_far))?;
    count(api, "added", report.added);
    count(api, "renewed", report.renewed);
    Ok(report)
}

/// The problem, and what is stored all the same.
fn broken_off(error: ImportError, report: &ImportReport) -> Problem {
    let problem = match error {
        ImportError::Store(error) => error.into(),
        ImportError::Records(_) | ImportError::Columns => Problem::invalid("body", error),
    };
    problem.with("added", report.added).with("renewed", report.renewed)
}

/// All entries that match, as CSV (the columns that an import reads) or NDJSON, as they are read.
#[utoipa::path(
    get, path = "/v1/suppressions/export", tag = "suppressions",
    params(
        ("format" = Option<String>, Query, description = "`csv` (default) or `ndjson`"),
        ("tenant" = Option<String>, Query, description = "Only this tenant's"),
        ("global" = Option<bool>, Query, description = "Only the global ones"),
        ("list" = Option<String>, Query, description = "Only those of this list"),
        ("reason" = Option<String>, Query, description = "Only those with this reason"),
    ),
    responses((status = 200, content((String = "text/csv"), (String = "application/x-ndjson"))))
)]
pub async fn export_suppressions(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let ndjson = params.parse("format", |text| match text {
        "csv" => Ok(false),
        "ndjson" => Ok(true),
        _ => Err("csv or ndjson"),
    })?;
    let ndjson = ndjson.unwrap_or(false);
    let which = filtered(&mut params, &caller)?;
    params.finish()?;
    let (pieces, receiver) = mpsc::channel(EXPORT_PIECES);
    tokio::spawn(write_export(api.parts().suppressions.clone(), which, ndjson, pieces));
    let media = if ndjson { "application/x-ndjson" } else { "text/csv; charset=utf-8" };
    Ok(([(header::CONTENT_TYPE, media)], Body::new(Pieces(receiver))).into_response())
}

type Piece = Result<Bytes, ReadError>;

/// Reads page by page; ends when the client is gone.
async fn write_export(suppressions: Suppressions, which: Filtered, ndjson: bool, pieces: mpsc::Sender<Piece>) {
    if !ndjson && pieces.send(Ok(format!("{CSV_HEADER}\n").into())).await.is_err() {
        return;
    }
    let mut after = None;
    loop {
        let (text, next) = match suppressions.list(&which, after.take(), EXPORT_PAGE).await {
            Ok(page) if ndjson => (page.entries.iter().map(json_line).collect::<String>(), page.next),
            Ok(page) => (page.entries.iter().map(csv_line).collect::<String>(), page.next),
            Err(error) => return drop(pieces.send(Err(error)).await),
        };
        if !text.is_empty() && pieces.send(Ok(text.into())).await.is_err() {
            return;
        }
        match next {
            Some(next) => after = Some(next),
            None => return,
        }
    }
}

fn json_line(entry: &Entry) -> String {
    // A struct of texts and times can always be written.
    let mut line = serde_json::to_string(&SuppressionInfo::of(entry)).unwrap_or_default();
    line.push('\n');
    line
}

/// A body that ends with its channel; an error breaks it off, so that nobody takes a part for the whole.
struct Pieces(mpsc::Receiver<Piece>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn count(api: &Api, change: &str, by: u64) {
    api.metrics().suppression.changes.with_label_values(&[change]).inc_by(by);
}

impl From<SuppressionError> for Problem {
    fn from(error: SuppressionError) -> Self {
        match error {
            SuppressionError::Read(error) => error.into(),
            SuppressionError::Submit(error) => error.into(),
            SuppressionError::Key => Problem::unavailable(error.to_string()),
        }
    }
}

/// A key of at most a tenant, a hash, a reason and a list.
const KEY_LEN_MAX: usize = 2 * Name::LEN_MAX + 1 + size_of::<AddressHash>() + 1;

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 2 * KEY_LEN_MAX || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
