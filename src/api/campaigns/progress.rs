//! `…/progress`: a campaign as server-sent events, at most one a second, until it has ended.
//!
//! 1. The first event is sent at once; the next when a commit has changed something of it,
//! 2. what changes nothing sends nothing: an idle campaign costs a comment every 15 seconds, so that proxies keep the line,
//! 3. the last event is the ended campaign; then the server ends the stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{campaigns, only_target};
use crate::api::input::Params;
use crate::api::{Answer, Api, Caller, Problem};
use crate::campaign::{CampaignView, Campaigns};
use crate::types::Name;

/// The shortest time between two events.
const EVERY: Duration = Duration::from_secs(1);

/// How often a silent stream says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Events that wait for a slow client; then the next ones wait, and so tell what is newer.
const WAITING: usize = 2;

/// Follow a campaign: `progress` events with what `GET /v1/campaigns/{id}` answers, until it has ended.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/progress", tag = "campaigns",
    params(("id" = String, Path, description = "Its id"), ("tenant" = Option<String>, Query, description = "Whose it is")),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = crate::api::openapi::ProblemSchema))
)]
pub async fn get_progress(State(api): State<Api>, caller: Caller, Path(id): Path<String>, params: Params) -> Answer {
    let (tenant, id) = only_target(&api, &caller, &id, params)?;
    let campaigns = campaigns(&api)?.clone();
    let first = campaigns.view(&tenant, &id).await?;
    let (lines, receiver) = mpsc::channel(WAITING);
    tokio::spawn(follow(api, campaigns, tenant, id, first, lines));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Stream(receiver))).into_response())
}

async fn follow(
    api: Api,
    campaigns: Campaigns,
    tenant: Name,
    id: Name,
    first: CampaignView,
    lines: mpsc::Sender<Bytes>,
) {
    let mut committed = api.parts().read.last_sequence();
    let mut closing = api.0.closing.subscribe();
    let (mut view, mut told) = (first, None);
    loop {
        let news = changed(&view);
        if told.as_ref() != Some(&news) {
            if lines.send(message(&view)).await.is_err() || view.state.is_ended() {
                return;
            }
            told = Some(news);
        }
        // `wait_for` gives a guard that must not live across an await: what woke is told by a value.
        let silent = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = lines.closed() => return,
            done = committed.changed() => match done {
                Ok(()) => false,
                Err(_) => return,
            },
            () = tokio::time::sleep(ALIVE_EVERY) => true,
        };
        if silent && lines.send(Bytes::from_static(b": alive\n\n")).await.is_err() {
            return;
        }
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        committed.mark_unchanged();
        view = match campaigns.view(&tenant, &id).await {
            Ok(view) => view,
            Err(error) => {
                let detail = Problem::from(error).into_text();
                let _ = lines.send(Bytes::from(format!("event: error\ndata: {detail}\n\n"))).await;
                return;
            }
        };
    }
}

/// What makes a view worth telling: all but what moves by the clock alone.
fn changed(view: &CampaignView) -> CampaignView {
    CampaignView { rates: None, eta: None, in_flight: None, ..view.clone() }
}

fn message(view: &CampaignView) -> Bytes {
    // A view is made of texts and numbers: it can always be written, and JSON has no line break of its own.
    let data = serde_json::to_string(view).unwrap_or_default();
    Bytes::from(format!("event: progress\ndata: {data}\n\n"))
}

/// A body that is made of messages as they come.
struct Stream(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
