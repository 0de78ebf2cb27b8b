//! The public listener: what the world sees of us over HTTP. Unsubscribe links, and nothing else.
//!
//! 1. [`Server::bind`] opens `public.address`; [`Server::run`] serves it until told to end, one task a connection, bounded in number, time and size
//!    (`server`),
//! 2. a request is routed here ([`router`]): a token that does not open is 404, always the same page, so that it tells nothing; a client that
//!    tries many is 429 (`limit`),
//! 3. `GET /u/{token}` shows a page with a button and changes nothing: mail scanners and previews open every link,
//! 4. `POST /u/{token}` unsubscribes: the one-click of RFC 8058 and the page's button alike. Entry and `unsubscribed` event are one
//!    commit; 200 means: on disk. A repetition finds the entry and writes nothing,
//! 5. `POST /u/{token}/undo` takes the unsubscribe back (a slip, or somebody else who was forwarded the mail), nothing else.
//!
//! The listener speaks plain HTTP/1.1: RFC 8058 §3.2 wants https in the link, so a proxy with a certificate stands in front, with
//! `public.trusted_proxies` naming it. No page has a script, a cookie, or the recipient's address.

mod limit;
mod page;
mod server;
#[cfg(test)]
mod tests;

pub use server::{BindError, Server};

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::{BodyExt, Limited};
use tracing::{info, warn};

use crate::config::Config;
use crate::inbound::{CampaignNames, Unsubscribed, unsubscribe};
use crate::links::{Links, UnsubscribeToken};
use crate::metrics::tracking::TrackingMetrics;
use crate::seam::clock::Clock;
use crate::suppression::{Reason, Scope, SuppressionError, Suppressions};
use crate::types::RowId;
use limit::Misses;

/// The longest body that is read: `List-Unsubscribe=One-Click`, in any of the forms of RFC 8058 §3.2.
const BODY_MAX: usize = 4 << 10;

/// What stands as `source` in an entry that a link made.
pub const SOURCE: &str = "unsubscribe link";

/// What the listener is made of.
#[derive(Clone)]
pub struct Parts {
    /// The config in force.
    pub config: Arc<ArcSwap<Config>>,
    /// The time.
    pub clock: Clock,
    /// Opens tokens.
    pub links: Links,
    /// Where unsubscribes go.
    pub suppressions: Suppressions,
    /// Names of campaigns.
    pub campaigns: CampaignNames,
    /// What is counted.
    pub metrics: TrackingMetrics,
}

/// What all handlers share.
#[derive(Clone)]
struct Public(Arc<Inner>);

struct Inner {
    parts: Parts,
    misses: Misses,
}

/// The service: these paths and no others.
pub fn router(parts: Parts) -> Router {
    let public = Public(Arc::new(Inner { misses: Misses::new(parts.clock.clone()), parts }));
    Router::new()
        .route("/u/{token}", get(show).post(act))
        .route("/u/{token}/undo", post(undo))
        .route("/healthz", get(|| async { page::plain(StatusCode::OK, "ok\n") }))
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .with_state(public)
}

async fn nothing(State(public): State<Public>, request: Request) -> Response {
    let client = public.client(&request);
    public.miss(client, "not_found")
}

async fn wrong_method(State(public): State<Public>) -> Response {
    public.count("not_found");
    page::plain(StatusCode::METHOD_NOT_ALLOWED, "GET and POST only\n")
}

/// `GET`: the page, and no change.
async fn show(State(public): State<Public>, Path(token): Path<String>, request: Request) -> Response {
    let opened = match public.opened(&token, &request) {
        Ok(opened) => opened,
        Err(answer) => return *answer,
    };
    public.count("page");
    page::confirm(&token, &opened)
}

/// `POST`: the change.
async fn act(State(public): State<Public>, Path(token): Path<String>, request: Request) -> Response {
    let opened = match public.opened(&token, &request) {
        Ok(opened) => opened,
        Err(answer) => return *answer,
    };
    let Ok(one_click) = is_one_click(request).await else {
        public.count("error");
        return page::plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
    };
    if opened.test {
        public.count("test");
        return page::test();
    }
    // In a task of its own: a client that hangs up must not stop it half-way.
    let (worker, said) = (public.clone(), opened.clone());
    let work = tokio::spawn(async move { worker.unsubscribe(&said, one_click).await });
    match work.await {
        Ok(Ok(true)) => public.count(if one_click { "one_click" } else { "form" }),
        Ok(Ok(false)) => public.count("repeated"),
        Ok(Err(error)) => return public.failed(&error),
        Err(error) => return public.failed(&error),
    }
    if one_click { page::plain(StatusCode::OK, "unsubscribed\n") } else { page::done(&token, &opened) }
}

/// `POST …/undo`: takes the unsubscribe back, and no other entry.
async fn undo(State(public): State<Public>, Path(token): Path<String>, request: Request) -> Response {
    let opened = match public.opened(&token, &request) {
        Ok(opened) => opened,
        Err(answer) => return *answer,
    };
    if opened.test {
        public.count("test");
        return page::test();
    }
    // Back and forth costs a commit each time: whoever plays with it is stopped.
    let client = public.client(&request);
    if !public.0.misses.may(client) {
        return public.limited();
    }
    public.0.misses.note(client);
    let scope = Scope::of(opened.tenant.clone(), opened.list.clone());
    match public.0.parts.suppressions.remove(&scope, Some(Reason::Unsubscribe), &opened.address).await {
        Ok(removed) => {
            if !removed.is_empty() {
                info!(tenant = %opened.tenant, %scope, "unsubscribe taken back by its link");
            }
            public.count("undone");
            page::undone(&token)
        }
        Err(error) => public.failed(&error),
    }
}

impl Public {
    fn count(&self, outcome: &'static str) {
        self.0.parts.metrics.request(outcome);
    }

    /// What the token says, or the answer to one that says nothing.
    fn opened(&self, token: &str, request: &Request) -> Result<UnsubscribeToken, Box<Response>> {
        match self.0.parts.links.open_unsubscribe(token) {
            Ok(opened) => Ok(opened),
            Err(_) => Err(Box::new(self.miss(self.client(request), "unknown"))),
        }
    }

    /// Not found; too often, too many requests.
    fn miss(&self, client: IpAddr, outcome: &'static str) -> Response {
        if !self.0.misses.may(client) {
            return self.limited();
        }
        self.0.misses.note(client);
        self.count(outcome);
        page::not_found()
    }

    fn limited(&self) -> Response {
        self.count("limited");
        page::plain(StatusCode::TOO_MANY_REQUESTS, "too many requests\n")
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Response {
        warn!(%error, "an unsubscribe was not stored");
        self.count("error");
        page::later()
    }

    /// Stores the unsubscribe and its event together; `false` when it is there already.
    async fn unsubscribe(&self, token: &UnsubscribeToken, one_click: bool) -> Result<bool, SuppressionError> {
        let parts = &self.0.parts;
        let campaign = token.message.and_then(RowId::of).and_then(|row| (parts.campaigns)(row.campaign));
        let how = if one_click { "one-click" } else { "page" };
        let said = Unsubscribed { token, campaign, how, via: "link", source: SOURCE };
        unsubscribe(&parts.suppressions, &parts.clock, said).await
    }

    /// The client: the peer, or whom a trusted proxy names last.
    fn client(&self, request: &Request) -> IpAddr {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let config = self.0.parts.config.load();
        let Some(public) = &config.public else { return peer };
        let trusted = |ip: IpAddr| public.trusted_proxies.iter().any(|net| net.contains(&ip.to_canonical()));
        if trusted(peer) { forwarded(request.headers(), trusted).unwrap_or(peer) } else { peer }
    }
}

/// The last address of `X-Forwarded-For` that is no trusted proxy: whatever stands before it, the client could have written itself.
fn forwarded(headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let values = headers.get_all("x-forwarded-for").into_iter().rev().filter_map(|value| value.to_str().ok());
    for part in values.flat_map(|value| value.rsplit(',')) {
        let part = part.trim();
        let bare = part.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(part, |(ip, _)| ip);
        let ip: IpAddr = bare.parse().ok()?;
        if !trusted(ip) {
            return Some(ip);
        }
    }
    None
}

/// Whether the body says `List-Unsubscribe=One-Click`, as a form of either kind (RFC 8058 §3.2). Any other body acts as well: who sends a POST
/// means it, and this only tells which answer fits. An error means: too large.
async fn is_one_click(request: Request) -> Result<bool, ()> {
    let (parts, body): (_, Body) = request.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| ())?.to_bytes();
    let has = |needle: &[u8]| body.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
    let multipart = |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data");
    Ok(match parts.headers.get(header::CONTENT_TYPE) {
        Some(value) if multipart(value) => has(b"List-Unsubscribe") && has(b"One-Click"),
        Some(_) | None => has(b"List-Unsubscribe=One-Click"),
    })
}
