//! `…/recipients`: the way of an upload to the port that reads it.
//!
//! 1. `HEAD` tells where the upload goes on (`Upload-Offset`), and whether it has come to its end (`Upload-Complete`),
//! 2. `PUT` with that `Upload-Offset` hands the octets over as they come; nothing is gathered here, so memory stays flat,
//! 3. the answer's counts are on disk. A client that breaks off asks again by `HEAD`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::problems::UPLOAD_OFFSET;
use super::{campaigns, only_target, schema, target};
use crate::api::input::{Params, media_type};
use crate::api::{Answer, Api, Caller, Problem, json};
use crate::campaign::CampaignError;
use crate::campaign::model::UploadCounters;
use crate::campaign::ports::{Chunks, Fut, UploadRequest};
use crate::types::Name;

/// How long a client may be silent in an upload; then it is broken off, and what came is kept.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The options of an upload that its query may have; the upload checks their values.
const OPTIONS: [&str; 5] = ["delimiter", "header", "charset", "email_column", "keep_roles"];

/// Rows in a page of rejected rows where nothing is said.
const LIMIT_DEFAULT: usize = 1_000;
/// The most rows in a page of rejected rows.
const LIMIT_MAX: usize = 100_000;

/// Whether an upload has come to its end (`?1`) or not (`?0`): a boolean of RFC 9651 §3.3.6.
const UPLOAD_COMPLETE: &str = "upload-complete";

/// The body of a request, a frame at a time.
struct Frames(Body);

impl Chunks for Frames {
    fn next(&mut self) -> Fut<'_, Option<Result<Bytes, String>>> {
        Box::pin(async {
            loop {
                let frame = match tokio::time::timeout(SILENCE_MAX, self.0.frame()).await {
                    Ok(frame) => frame?,
                    Err(_) => return Some(Err(format!("nothing came for {} s", SILENCE_MAX.as_secs()))),
                };
                match frame.map(|frame| frame.into_data()) {
                    Ok(Ok(data)) if data.is_empty() => {}
                    Ok(Ok(data)) => return Some(Ok(data)),
                    // Trailers say nothing about the rows.
                    Ok(Err(_)) => {}
                    Err(error) => return Some(Err(error.to_string())),
                }
            }
        })
    }
}

/// Upload recipients: NDJSON or CSV, alone or compressed by gzip or zstd; resumable.
#[utoipa::path(
    put, path = "/v1/campaigns/{id}/recipients", tag = "campaigns",
    params(
        ("id" = String, Path, description = "The campaign"),
        ("tenant" = Option<String>, Query, description = "Whose it is"),
        ("delimiter" = Option<String>, Query, description = "Of CSV; else it is found out"),
        ("header" = Option<String>, Query, description = "Of CSV: the columns, where the first line does not name them"),
        ("charset" = Option<String>, Query, description = "Else it is found out"),
        ("email_column" = Option<String>, Query, description = "Of CSV: the column of the address"),
        ("keep_roles" = Option<String>, Query, description = "Whether addresses of roles (info@) are sent to"),
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
    let mut options = Vec::new();
    for name in OPTIONS {
        if let Some(value) = params.text(name)? {
            options.push((name.to_owned(), value));
        }
    }
    params.finish()?;
    let (tenant, id) = target(&api, &caller, &id, asked)?;
    let (parts, body) = request.into_parts();
    let upload = upload_request(&parts.headers, options, caller.name)?;
    let counters = campaigns(&api)?.upload(&tenant, &id, upload, Box::new(Frames(body))).await?;
    let mut response = json(&counters)?;
    place(&counters, &mut response);
    Ok(response)
}

fn upload_request(headers: &HeaderMap, options: Vec<(String, String)>, by: String) -> Result<UploadRequest, Problem> {
    let text = |name: &str| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim())),
        Some(Err(_)) => Err(Problem::bad_request(format!("{name} is not text"))),
    };
    let offset = text("upload-offset")?.map(str::parse).transpose();
    let offset = offset.map_err(|_| Problem::bad_request("Upload-Offset is a number of octets"))?;
    let complete = match text(UPLOAD_COMPLETE)? {
        None | Some("?1") => true,
        Some("?0") => false,
        Some(_) => return Err(Problem::bad_request("Upload-Complete is ?1 or ?0")),
    };
    let encoding = text(header::CONTENT_ENCODING.as_str())?.map(str::to_ascii_lowercase);
    let encoding = encoding.filter(|encoding| !encoding.is_empty() && encoding != "identity");
    Ok(UploadRequest { offset, complete, media_type: media_type(headers), encoding, options, by })
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
    let mut response = StatusCode::NO_CONTENT.into_response();
    place(&counters, &mut response);
    Ok(response)
}

fn place(counters: &UploadCounters, response: &mut Response) {
    let complete = if counters.complete { "?1" } else { "?0" };
    response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(counters.offset));
    response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static(complete));
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
