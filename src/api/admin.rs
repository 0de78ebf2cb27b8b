//! What only operators ask: status, reload, backup, drain, and a live session.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::input::{Params, read_json};
use super::types::{BackupRequest, Reloaded, Status};
use super::{Answer, Api, Caller, Problem, json};
use crate::queue::admin::Command;
use crate::types::Domain;

/// Lines of a live session that may wait for a slow reader; then the session's further lines are lost, not delayed.
const TRACE_LINES: usize = 1_024;

/// The largest queues in a status.
const TOP: usize = 5;

/// How the daemon is.
#[utoipa::path(get, path = "/v1/admin/status", tag = "admin", responses((status = 200, body = Status)))]
pub async fn get_status(State(api): State<Api>, caller: Caller, params: Params) -> Answer {
    params.finish()?;
    if caller.tenant.is_some() {
        return Err(Problem::forbidden("the status is for the node's keys"));
    }
    let (config, health) = (api.config(), api.parts().control.health());
    let state = match (&health.store_failed, health.draining, health.not_ready.is_empty()) {
        (Some(_), _, _) => "store failed",
        (None, true, _) => "draining",
        (None, false, true) => "running",
        (None, false, false) => "not ready",
    };
    let queues = api.ask(|reply| Command::Summary { top: TOP, reply }).await.ok();
    json(&Status {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: config.hostname.clone(),
        pid: std::process::id(),
        started: api.0.started,
        now: api.now(),
        state: state.into(),
        reasons: health.store_failed.into_iter().chain(health.not_ready).collect(),
        listeners: health.listeners,
        data_dir: config.data_dir.clone(),
        free_bytes: health.free_bytes,
        resident_bytes: crate::metrics::process::resident_bytes(),
        last_event: api.parts().read.last_sequence().borrow().0,
        queues,
    })
}

/// Read the config again.
#[utoipa::path(
    post, path = "/v1/admin/reload", tag = "admin",
    responses((status = 200, body = Reloaded), (status = 422, description = "The old config stays", body = super::openapi::ProblemSchema))
)]
pub async fn post_reload(State(api): State<Api>, caller: Caller) -> Answer {
    caller.must_be_admin()?;
    json(&Reloaded { changes: api.parts().control.reload().await? })
}

/// Write a consistent copy of the store, while mail flows.
#[utoipa::path(
    post, path = "/v1/admin/backup", tag = "admin", request_body = BackupRequest,
    responses((status = 200, body = super::openapi::BackupSchema), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn post_backup(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    caller.must_be_admin()?;
    let asked: BackupRequest = read_json(&api, request).await?;
    if !asked.dir.is_absolute() {
        return Err(Problem::invalid("dir", "give an absolute path: the daemon's working folder is not yours"));
    }
    json(&api.parts().control.backup(asked.dir).await?)
}

/// End intake, deliver what can be delivered, then end the daemon.
#[utoipa::path(
    post, path = "/v1/admin/drain", tag = "admin",
    responses((status = 202, description = "Intake has ended; the daemon ends when its queues are empty"))
)]
pub async fn post_drain(State(api): State<Api>, caller: Caller) -> Answer {
    caller.must_be_admin()?;
    api.parts().control.drain().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(serde_json::json!({ "state": "draining" }))).into_response())
}

/// The next delivery session to a domain, line by line, live; ends with the session.
#[utoipa::path(
    get, path = "/v1/admin/trace-smtp", tag = "admin",
    params(("domain" = String, Query, description = "The recipients' domain")),
    responses((status = 200, description = "Lines with `>` and `<`; secrets are masked", content_type = "text/plain", body = String))
)]
pub async fn trace_smtp(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    caller.must_be_admin()?;
    let domain = params.parse("domain", Domain::parse)?;
    params.finish()?;
    let domain = domain.ok_or_else(|| Problem::invalid("domain", "which one? ?domain=example.com"))?;
    let (lines, receiver) = mpsc::channel(TRACE_LINES);
    let sent = api.parts().queues.0.send(Command::TraceSmtp { domain, lines }).await;
    sent.map_err(|_| Problem::unavailable("the daemon is shutting down"))?;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Lines(receiver))).into_response())
}

/// A body that is made of lines as they come.
struct Lines(mpsc::Receiver<String>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(Bytes::from(line + "\n")))))
    }
}
