//! Webhooks: how they are, and what an operator can do about them. A tenant's key sees and steers its own.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::input::{Params, past, read_json};
use super::{Answer, Api, Caller, Problem, json};
use crate::types::{EventSeq, Name};
use crate::webhook::{Since, WebhookError, WebhookStatus, Webhooks};

/// The endpoints.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookList {
    /// In order of their names.
    #[schema(value_type = Vec<WebhookStatusSchema>)]
    pub webhooks: Vec<WebhookStatus>,
}

/// Body of `POST /v1/webhooks/{name}/replay`: one of both.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// From when on: a time or a date, or how long ago, as `2h`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<String>,
    /// After which event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
}

/// Where an endpoint goes on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// With the event after this one.
    pub after: u64,
}

/// An endpoint.
#[derive(ToSchema)]
#[schema(as = Webhook)]
#[allow(dead_code)]
pub struct WebhookStatusSchema {
    /// Its name.
    name: String,
    /// Whose events; none means all.
    tenant: Option<String>,
    /// Where to.
    url: String,
    /// `posthaste`, `listmonk`, `mailgun` or `sendgrid`.
    format: String,
    /// `well`, `failing`, `dead` or `broken`.
    state: String,
    /// The last event that is done.
    after: u64,
    /// Events of the whole log behind that one.
    behind: u64,
    /// Events that were taken since the daemon started.
    taken: u64,
    /// Failures in a row.
    failures: u32,
    /// Since when nothing is taken.
    failing_since: Option<String>,
    /// Since when it is dead.
    dead_since: Option<String>,
    /// When it is tried again.
    next_try_at: Option<String>,
    /// When a request was last taken.
    last_success_at: Option<String>,
    /// Why the last failed one was not.
    last_error: Option<String>,
    /// When that was.
    last_error_at: Option<String>,
}

/// What came of a test.
#[derive(ToSchema)]
#[schema(as = WebhookTest)]
#[allow(dead_code)]
pub struct WebhookTestSchema {
    /// Whether it was taken.
    ok: bool,
    /// The receiver's status, where it was taken.
    status: Option<u16>,
    /// Why it was not.
    error: Option<String>,
    /// How long it took.
    took_ms: u64,
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Unknown(_) => Problem::not_found(error.to_string()),
            WebhookError::Broken(..) => Problem::new(StatusCode::CONFLICT, "webhook-broken", error.to_string()),
            WebhookError::Busy(_) => Problem::unavailable(error.to_string()),
            WebhookError::Read(error) => error.into(),
            WebhookError::Submit(error) => error.into(),
        }
    }
}

fn engine(api: &Api) -> Result<&Webhooks, Problem> {
    api.parts().webhooks.as_ref().ok_or_else(|| Problem::unavailable("this daemon has no webhooks"))
}

/// The endpoint of this name, if the caller may steer it. That of another tenant is not told to exist.
fn named(api: &Api, caller: &Caller, name: &str) -> Result<(Webhooks, Name), Problem> {
    caller.may_send()?;
    let unknown = || Problem::not_found(format!("there is no webhook {name:?}"));
    let engine = engine(api)?.clone();
    let name = Name::parse(name).map_err(|_| unknown())?;
    let tenant = engine.tenant_of(&name).map_err(|_| unknown())?;
    let seen = match (&caller.tenant, &tenant) {
        (None, _) => true,
        (Some(own), Some(of)) => own == of,
        // That of all tenants is the node's.
        (Some(_), None) => false,
    };
    if seen { Ok((engine, name)) } else { Err(unknown()) }
}

/// How the webhooks are.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    params(("tenant" = Option<String>, Query, description = "Only this tenant's")),
    responses((status = 200, body = WebhookList))
)]
pub async fn get_webhooks(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let tenant = caller.scope(params.parse("tenant", Name::parse)?)?;
    params.finish()?;
    json(&WebhookList { webhooks: engine(&api)?.status(tenant.as_ref()) })
}

/// Send a test event now, beside whatever waits. The answer says what the receiver said.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/test", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook")),
    responses((status = 200, body = WebhookTestSchema), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn test_webhook(State(api): State<Api>, caller: Caller, Path(name): Path<String>) -> Answer {
    let (engine, name) = named(&api, &caller, &name)?;
    json(&engine.test(&name).await?)
}

/// Send events again, from a time or an event on. 200 means: the new place is on disk.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/replay", tag = "webhooks", request_body = ReplayRequest,
    params(("name" = String, Path, description = "The webhook")),
    responses(
        (status = 200, body = Replayed),
        (status = 404, body = super::openapi::ProblemSchema),
        (status = 422, body = super::openapi::ProblemSchema),
    )
)]
pub async fn replay_webhook(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Answer {
    let (engine, name) = named(&api, &caller, &name)?;
    let asked: ReplayRequest = read_json(&api, request).await?;
    let since = match (asked.since, asked.after) {
        (None, Some(after)) => Since::Event(EventSeq(after)),
        (Some(text), None) => Since::Time(past(&text, api.now()).map_err(|e| Problem::invalid("since", e))?),
        (None, None) | (Some(_), Some(_)) => return Err(Problem::invalid("since", "give either since or after")),
    };
    let after = engine.replay(&name, since).await?;
    info!(by = %caller.name, endpoint = %name, after = after.0, "webhook set back");
    json(&Replayed { after: after.0 })
}

/// Let it try at once; one that was dead is well again if that succeeds.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/resume", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook")),
    responses((status = 200, body = WebhookList), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn resume_webhook(State(api): State<Api>, caller: Caller, Path(name): Path<String>) -> Answer {
    let (engine, name) = named(&api, &caller, &name)?;
    engine.resume(&name).await?;
    info!(by = %caller.name, endpoint = %name, "webhook resumed");
    let webhooks = engine.status(None).into_iter().filter(|status| status.name == name).collect();
    json(&WebhookList { webhooks })
}
