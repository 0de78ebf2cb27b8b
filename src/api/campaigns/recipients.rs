//! `…/recipients`: the way of an upload to the port that reads it.
//!
//! 1. `HEAD` tells where the upload goes on (`Upload-Offset`), and whether it has come to its end (`Upload-Complete`),
//! 2. `PUT` with that `Upload-Offset` hands the octets over as they come; nothing is gathered here, so memory stays flat,
//! 3. the answer's counts are on disk. A client that breaks off asks again by `HEAD`.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;

use super::{campaigns, only_target, schema, target};
use crate::api::input::Params;
use crate::api::recipients::{BodyChunks, upload_answer, upload_request};
use crate::api::{Answer, Api, Caller, json};
use crate::campaign::CampaignError;
use crate::types::Name;

/// Rows in a page of rejected rows where nothing is said.
const LIMIT_DEFAULT: usize = 1_000;
/// The most rows in a page of rejected rows.
const LIMIT_MAX: usize = 100_000;

/// Upload recipients: NDJSON or CSV, alone or compressed by gzip or zstd; resumable.
#[utoipa::path(
    put, path = "/v1/campaigns/{id}/recipients", tag = "campaigns",
    params(
        ("id" = String, Path, description = "The campaign"),
        ("tenant" = Option<String>, Query, description = "Whose it is"),
        ("Upload-Offset" = Option<u64>, Header, description = "Where these octets begin in the whole list"),
        ("Upload-Complete" = Option<String>, Header, description = "`?0` when more follows; default is `?1`"),
    ),
    request_body(content((String = "application/x-ndjson"), (String = "text/csv"))),
    responses(
        (status = 200, description = "The rows are on disk", body = schema::UploadSchema),
        (status = 409, description = "The upload is elsewhere (`offset`), or not in this state", body = crate::api::openapi::ProblemSchema),
        (status = 422, description = "It can't be read", body = crate::api::openapi::ProblemSchema),
    )
)]
pub async fn put_recipients(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    mut params: Params,
    request: Request,
) -> Answer {
    caller.may_send()?;
    let asked = params.parse("tenant", Name::parse)?;
    params.finish()?;
    let (tenant, id) = target(&api, &caller, &id, asked)?;
    let (parts, body) = request.into_parts();
    let upload = upload_request(&parts.headers, &caller.name)?;
    let counters = campaigns(&api)?.upload(&tenant, &id, upload, Box::new(BodyChunks::new(body))).await?;
    Ok(upload_answer(&counters, json(&counters)?))
}

/// How far the upload is.
#[utoipa::path(
    head, path = "/v1/campaigns/{id}/recipients", tag = "campaigns",
    params(("id" = String, Path, description = "The campaign"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses(
        (status = 204, description = "`Upload-Offset` and `Upload-Complete` tell it"),
        (status = 404, description = "There is none"),
    )
)]
pub async fn head_recipients(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let campaigns = campaigns(&api)?;
    let head = campaigns.head(&tenant, &id).await?;
    let counters = campaigns.ports().recipients.counters(head).await.map_err(CampaignError::from)?;
    Ok(upload_answer(&counters, StatusCode::NO_CONTENT))
}

/// The rows that were not taken, each with its number and why.
///
/// Lines of JSON; the header field `Posthaste-Next` has the `after` of the next page, where there is one.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/rejects", tag = "campaigns",
    params(
        ("id" = String, Path, description = "The campaign"),
        ("tenant" = Option<String>, Query, description = "Whose it is"),
        ("after" = Option<u64>, Query, description = "After this row number"),
        ("limit" = Option<usize>, Query, description = "At most so many (default 1000, most 100000)"),
    ),
    responses((status = 200, content_type = "application/x-ndjson", body = String))
)]
pub async fn get_rejects(State(api): State<Api>, caller: Caller, Path(id): Path<String>, mut params: Params) -> Answer {
    let asked = params.parse("tenant", Name::parse)?;
    let after = params.get::<u64>("after")?.unwrap_or(0);
    let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX)?;
    params.finish()?;
    let (tenant, id) = target(&api, &caller, &id, asked)?;
    let campaigns = campaigns(&api)?;
    let head = campaigns.head(&tenant, &id).await?;
    let page = campaigns.ports().recipients.rejects(head, after, limit).await.map_err(CampaignError::from)?;
    let (lines, next) = page.map_or((Bytes::new(), None), |(lines, next)| (lines, Some(next)));
    let mut response = ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response();
    if let Some(next) = next {
        response.headers_mut().insert("posthaste-next", HeaderValue::from(next));
    }
    Ok(response)
}
