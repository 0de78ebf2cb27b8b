//! `/v1/campaigns`: jobs, their recipients and their control.
//!
//! 1. A job comes as JSON or TOML; what is wrong with it is one problem (422) with all of them in `problems`,
//! 2. a campaign is found by its id in the caller's tenant; a node's key names the tenant where the id is not enough,
//! 3. commands are 202 and may be said twice; 409 names the state in which they make no sense,
//! 4. recipients are streamed to the upload, which makes them durable as they come (`recipients`),
//! 5. progress is told by server-sent events, at most once a second (`progress`).

mod problems;
pub mod progress;
pub mod recipients;
pub mod schema;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::idempotency::{self, Known};
use super::input::{Params, media_type, read_body, read_json, read_json_or_default, unsupported_media};
use super::{Answer, Api, Caller, Problem, json};
use crate::campaign::job::{Format, Job, TestRecipient, parse};
use crate::campaign::model::{Record, State as Stage};
use crate::campaign::ports::PreviewRequest;
use crate::campaign::{CampaignError, Campaigns, LiveChange};
use crate::types::{Domain, Mailbox, Name};

/// Campaigns in a page where nothing is said.
const LIMIT_DEFAULT: usize = 100;
/// The most campaigns in a page.
const LIMIT_MAX: usize = 1_000;

/// The answer to `POST /v1/campaigns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CampaignCreated {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Name,
    /// Where it stands.
    #[schema(value_type = String)]
    pub state: Stage,
}

/// Body of a start.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    /// The reason to pass over errors of the checks; it stands in the event.
    pub force: Option<String>,
}

/// Body of a pause, resume or cancel.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// Why; it stands in the event. Needed to resume what halted by itself.
    pub reason: Option<String>,
}

/// Body of a preview: one of them, or nothing for the first row.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewBody {
    /// The row of this address.
    #[schema(value_type = Option<String>)]
    pub address: Option<Mailbox>,
    /// A row as it would be uploaded.
    #[schema(value_type = Option<Object>)]
    pub row: Option<serde_json::Map<String, serde_json::Value>>,
    /// The worst rows: longest, most blanks.
    #[serde(default)]
    pub worst: bool,
    /// A segment: how many rows fulfil it, and five of them.
    pub segment: Option<String>,
}

/// Body of a test.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestBody {
    /// Who gets it; default are the job's test recipients.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub to: Vec<TestRecipient>,
}

/// All campaigns, or why there are none.
pub(super) fn campaigns(api: &Api) -> Result<&Campaigns, Problem> {
    api.parts().campaigns.as_ref().ok_or_else(|| Problem::unavailable("campaigns are not served by this daemon"))
}

/// The campaign of a path: tenant and id. What another tenant has is not there.
pub(super) fn target(api: &Api, caller: &Caller, id: &str, asked: Option<Name>) -> Result<(Name, Name), Problem> {
    let missing = || Problem::not_found(format!("there is no campaign {id}"));
    let name = Name::parse(id).map_err(|_| missing())?;
    if let Some(tenant) = caller.scope(asked)? {
        return Ok((tenant, name));
    }
    let tenants = campaigns(api)?.tenants_of(&name);
    match <[Name; 1]>::try_from(tenants) {
        Ok([tenant]) => Ok((tenant, name)),
        Err(none) if none.is_empty() => Err(missing()),
        Err(_) => Err(Problem::invalid("tenant", format!("several tenants have a campaign {id}: say which one"))),
    }
}

/// The same with nothing else in the query.
fn only_target(api: &Api, caller: &Caller, id: &str, mut params: Params) -> Result<(Name, Name), Problem> {
    let asked = params.parse("tenant", Name::parse)?;
    params.finish()?;
    target(api, caller, id, asked)
}

/// Whose a new campaign is: the key's tenant; else the one that is named, the only one, or that of the sender's domain.
fn owner(api: &Api, caller: &Caller, asked: Option<Name>, job: &Job) -> Result<Name, Problem> {
    if let Some(tenant) = caller.scope(asked)? {
        return Ok(tenant);
    }
    let config = api.config();
    let domain = job.from.mailbox.domain();
    let owns = |text: &String| Domain::parse(text).is_ok_and(|own| domain.is_within(&own));
    let tenant = match config.tenants.as_slice() {
        [] => Name::parse("default").ok(),
        [only] => Some(only.name.clone()),
        several => several.iter().find(|t| t.domains.iter().any(owns)).map(|t| t.name.clone()),
    };
    tenant.ok_or_else(|| {
        Problem::invalid("tenant", format!("no tenant has the domain {domain}: say whose campaign it is"))
    })
}

/// Reads a job from the body: JSON or TOML.
async fn read_job(api: &Api, request: Request) -> Result<(Job, String), Problem> {
    let (parts, body) = request.into_parts();
    let media = media_type(&parts.headers);
    let format = match media.as_str() {
        "" | "application/json" => Format::Json,
        "application/toml" | "text/toml" | "text/x-toml" => Format::Toml,
        _ => return Err(unsupported_media(&media, "application/json or application/toml")),
    };
    let received = read_body(api, &parts.headers, body).await?;
    let query = parts.uri.query().unwrap_or_default();
    let hash = idempotency::body_hash(&[b"campaign", media.as_bytes(), query.as_bytes(), &received.bytes]);
    let text = std::str::from_utf8(&received.bytes)
        .map_err(|e| Problem::bad_request(format!("the job is not UTF-8 after octet {}", e.valid_up_to())))?;
    let job = parse(text, format).map_err(CampaignError::Problems)?;
    Ok((job, hash))
}

/// Make a campaign of a job.
///
/// The same job under the same id again answers 200 with the campaign that is there; another job under that id is 409 and names what differs.
#[utoipa::path(
    post, path = "/v1/campaigns", tag = "campaigns",
    params(
        ("tenant" = Option<String>, Query, description = "Whose it is, with a key of the node"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repetition within 72 h gets the first answer"),
    ),
    request_body(content((schema::JobSchema = "application/json"), (String = "application/toml"))),
    responses(
        (status = 201, description = "It is on disk, as a draft", body = CampaignCreated),
        (status = 200, description = "It was there with the same job", body = CampaignCreated),
        (status = 409, description = "Another job has this id", body = super::openapi::ProblemSchema),
        (status = 422, description = "The job is wrong: `problems` has all of it", body = super::openapi::ProblemSchema),
    )
)]
pub async fn post_campaign(State(api): State<Api>, caller: Caller, mut params: Params, request: Request) -> Answer {
    caller.may_send()?;
    let asked = params.parse("tenant", Name::parse)?;
    params.finish()?;
    let campaigns = campaigns(&api)?.clone();
    let key = idempotency::key_of(request.headers())?;
    let (job, hash) = read_job(&api, request).await?;
    let tenant = owner(&api, &caller, asked, &job)?;
    let claim = match key {
        None => None,
        Some(key) => match idempotency::claim::<CampaignCreated>(&api, &caller, &key, &hash).await? {
            Known::Answered(answer) => return Ok(created(&answer, StatusCode::CREATED, true)),
            Known::New(claim) => Some(Arc::new(claim)),
        },
    };
    let (kept, now) = (claim.clone(), api.now());
    let extra = Box::new(move |id: &Name| match &kept {
        Some(claim) => claim.record(&hash, &CampaignCreated { id: id.clone(), state: Stage::Draft }, now),
        None => Vec::new(),
    });
    let made = campaigns.create(tenant, job, caller.name, extra).await?;
    drop(claim);
    let status = if made.new { StatusCode::CREATED } else { StatusCode::OK };
    let answer = CampaignCreated { id: made.record.id.clone(), state: made.record.state };
    Ok(created(&answer, status, false))
}

fn created(answer: &CampaignCreated, status: StatusCode, replayed: bool) -> Response {
    let location = format!("/v1/campaigns/{}", answer.id);
    let mut response = (status, [(header::LOCATION, location)], axum::Json(answer)).into_response();
    if replayed {
        response.headers_mut().insert("idempotent-replayed", header::HeaderValue::from_static("true"));
    }
    response
}

/// The campaigns.
#[utoipa::path(
    get, path = "/v1/campaigns", tag = "campaigns",
    params(
        ("tenant" = Option<String>, Query, description = "Only this tenant's"),
        ("state" = Option<String>, Query, description = "Only those in this state"),
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "At most so many (default 100, most 1000)"),
    ),
    responses((status = 200, body = schema::CampaignList))
)]
pub async fn get_campaigns(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let tenant = caller.scope(params.parse("tenant", Name::parse)?)?;
    let state = params.parse("state", parse_state)?;
    let after = params.parse("after", parse_place)?;
    let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    params.finish()?;
    let mut records = campaigns(&api)?.list(tenant.as_ref(), state, after, limit + 1);
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|r| format!("{}/{}", r.tenant, r.id));
    json(&schema::CampaignList { campaigns: records.iter().map(|r| schema::CampaignSummary::of(r)).collect(), next })
}

fn parse_state(text: &str) -> Result<Stage, String> {
    let names = || Stage::ALL.map(Stage::as_str).join(", ");
    Stage::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| format!("not a state: one of {}", names()))
}

/// Where a page begins: `tenant/id`.
fn parse_place(text: &str) -> Result<(Name, Name), String> {
    let (tenant, id) = text.split_once('/').ok_or("not the next of a page")?;
    let name = |text| Name::parse(text).map_err(|e| e.to_string());
    Ok((name(tenant)?, name(id)?))
}

/// A campaign: state, counts, rates, forecast.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 200, body = schema::CampaignSchema), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_campaign(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    json(&campaigns(&api)?.view(&tenant, &id).await?)
}

/// The job of a campaign, as it is now.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/job", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 200, body = schema::JobSchema), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_job(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let head = campaigns(&api)?.head(&tenant, &id).await?;
    json(&*head.job)
}

/// Give a campaign another job, before its start.
#[utoipa::path(
    put, path = "/v1/campaigns/{id}", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    request_body(content((schema::JobSchema = "application/json"), (String = "application/toml"))),
    responses(
        (status = 200, body = schema::CampaignSummary),
        (status = 409, description = "It was started", body = super::openapi::ProblemSchema),
        (status = 422, description = "The job is wrong", body = super::openapi::ProblemSchema),
    )
)]
pub async fn put_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let (job, _) = read_job(&api, request).await?;
    let record = campaigns(&api)?.edit(tenant, id, job).await?;
    json(&schema::CampaignSummary::of(&record))
}

/// Change rate, window or priority; of a running campaign at once.
#[utoipa::path(
    patch, path = "/v1/campaigns/{id}", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    request_body = schema::ChangeSchema,
    responses(
        (status = 200, body = schema::CampaignSchema),
        (status = 409, description = "It has ended", body = super::openapi::ProblemSchema),
    )
)]
pub async fn patch_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let change: LiveChange = read_json(&api, request).await?;
    let campaigns = campaigns(&api)?;
    campaigns.change(tenant.clone(), id.clone(), change, caller.name).await?;
    json(&campaigns.view(&tenant, &id).await?)
}

/// Delete a campaign that was not started, or has ended. The same job and list would then be sent again.
#[utoipa::path(
    delete, path = "/v1/campaigns/{id}", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 204, description = "It is gone"), (status = 409, description = "It is being sent", body = super::openapi::ProblemSchema))
)]
pub async fn delete_campaign(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    campaigns(&api)?.delete(tenant, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Start a campaign: check, seal, send.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/start", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    request_body = StartBody,
    responses(
        (status = 202, description = "It is started, or was before", body = schema::StartedSchema),
        (status = 409, description = "Not in this state", body = super::openapi::ProblemSchema),
        (status = 422, description = "The checks found errors: `findings` has them", body = super::openapi::ProblemSchema),
    )
)]
pub async fn start_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let body: StartBody = read_json_or_default(&api, request).await?;
    let health = api.parts().control.health();
    if health.draining {
        return Err(Problem::unavailable("the server is draining: it starts no campaign"));
    }
    let started = campaigns(&api)?.start(tenant, id, body.force, caller.name).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(started)).into_response())
}

/// Hold a campaign at once.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/pause", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    request_body = ReasonBody,
    responses((status = 202, body = schema::PausedSchema), (status = 409, body = super::openapi::ProblemSchema))
)]
pub async fn pause_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let body: ReasonBody = read_json_or_default(&api, request).await?;
    let paused = campaigns(&api)?.pause(tenant, id, body.reason, caller.name).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(paused)).into_response())
}

/// Let a campaign go on.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/resume", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    request_body = ReasonBody,
    responses((status = 202, body = schema::PausedSchema), (status = 409, body = super::openapi::ProblemSchema))
)]
pub async fn resume_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let body: ReasonBody = read_json_or_default(&api, request).await?;
    let resumed = campaigns(&api)?.resume(tenant, id, body.reason, caller.name).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(resumed)).into_response())
}

/// End a campaign: what was not sent is not sent.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/cancel", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    request_body = ReasonBody,
    responses((status = 202, body = schema::PausedSchema), (status = 409, body = super::openapi::ProblemSchema))
)]
pub async fn cancel_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let body: ReasonBody = read_json_or_default(&api, request).await?;
    let cancelled = campaigns(&api)?.cancel(tenant, id, body.reason, caller.name).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(cancelled)).into_response())
}

/// Check a campaign as a start would.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/check", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 200, body = schema::FindingsSchema), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn check_campaign(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let findings = campaigns(&api)?.check(&tenant, &id).await?;
    json(&serde_json::json!({ "findings": findings }))
}

/// See what a recipient would get, or how many rows a segment has.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/preview", tag = "campaigns", request_body = PreviewBody,
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 200, body = Object), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn preview_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let body: PreviewBody = read_json_or_default(&api, request).await?;
    let campaigns = campaigns(&api)?;
    let head = campaigns.head(&tenant, &id).await?;
    let PreviewBody { address, row, worst, segment } = body;
    let request = PreviewRequest { address, row, worst, segment };
    json(&campaigns.ports().content.preview(head, request).await.map_err(CampaignError::from)?)
}

/// Send a test to the test recipients; it counts for nothing.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/test", tag = "campaigns", request_body = TestBody,
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 202, body = Object), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn test_campaign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let body: TestBody = read_json_or_default(&api, request).await?;
    let campaigns = campaigns(&api)?;
    let head = campaigns.head(&tenant, &id).await?;
    let to = if body.to.is_empty() { head.job.test_recipients.clone() } else { body.to };
    if to.is_empty() {
        return Err(Problem::invalid("to", "nobody: give addresses, or test_recipients in the job"));
    }
    let ids = campaigns.ports().content.test(head, to, caller.name).await.map_err(CampaignError::from)?;
    Ok((StatusCode::ACCEPTED, axum::Json(serde_json::json!({ "messages": ids }))).into_response())
}

/// The events of a campaign: `/v1/events` with only these.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/events", tag = "campaigns",
    params(
        ("id" = String, Path, description = "Its id"),
        ("tenant" = Option<String>, Query, description = "Whose it is"),
        ("after" = Option<u64>, Query, description = "Events after this id"),
        ("limit" = Option<usize>, Query, description = "At most so many (default 100, most 10000)"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for an event where there is none (most 60)"),
        ("event" = Option<String>, Query, description = "Only these kinds, separated by commas"),
    ),
    responses((status = 200, body = super::types::EventsPage), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn get_campaign_events(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    mut params: Params,
) -> Answer {
    let asked = params.parse("tenant", Name::parse)?;
    let (tenant, id) = target(&api, &caller, &id, asked)?;
    // Who asks for what is not there is told so, rather than waiting for events that never come.
    campaigns(&api)?.head(&tenant, &id).await?;
    super::events::of_campaign(&api, params, tenant, id).await
}

impl schema::CampaignSummary {
    fn of(record: &Record) -> Self {
        Self {
            id: record.id.clone(),
            tenant: record.tenant.clone(),
            name: record.name.clone(),
            state: record.state,
            reason: record.reason.clone(),
            version: record.version,
            rows: record.rows,
            created: record.created,
            updated: record.updated,
            started: record.started,
            due: record.due,
            ended: record.ended,
        }
    }
}
