//! Following the event log over HTTP, by cursor, as any program would.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::setup::{PROVIDERS, provider_of_domain};
use crate::event::{Event, EventKind};

/// Events of one page.
const PAGE: usize = 1_000;
/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// What the events told of one provider.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub delivered: u64,
    /// Events, not recipients: one may be deferred twice.
    pub deferred: u64,
    pub bounced: u64,
    /// Given up by us, for whatever reason.
    pub given_up: u64,
}

impl Tally {
    pub fn ended(&self) -> u64 {
        self.delivered + self.bounced + self.given_up
    }
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
}

/// The reader and what it has read.
pub(super) struct Watch {
    client: Client<HttpConnector, Empty<Bytes>>,
    http: SocketAddr,
    api_key: String,
    after: u64,
    /// `accepted` events of the shop's mail.
    pub accepted: u64,
    /// By provider.
    pub tallies: [Tally; PROVIDERS.len()],
}

impl Watch {
    pub fn new(http: SocketAddr, api_key: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, http, api_key: api_key.into(), after: 0, accepted: 0, tallies: Default::default() }
    }

    /// Recipients that have come to their end.
    pub fn ended(&self) -> u64 {
        self.tallies.iter().map(Tally::ended).sum()
    }

    /// Waits until the daemon says that it is ready.
    pub async fn ready(&self, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            match self.get("/readyz").await {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > end => return Err(e.context("the daemon is not ready")),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Reads all events that are new.
    pub async fn read(&mut self) -> anyhow::Result<()> {
        loop {
            let body = self.get(&format!("/v1/events?after={}&limit={PAGE}", self.after)).await?;
            let page: Page = serde_json::from_slice(&body).context("GET /v1/events: not a page of events")?;
            for event in &page.events {
                self.count(event);
            }
            if page.events.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn count(&mut self, event: &Event) {
        self.after = self.after.max(event.seq.0);
        // The daemon's own reports are no mail of the shop's: they come by neither SMTP nor HTTP, and go to the shop.
        let domain = event.recipient.as_ref().map(|r| r.domain().as_str()).unwrap_or_default();
        if event.via.as_deref() == Some("internal") || domain == "shop.demo.example" {
            return;
        }
        let tally = &mut self.tallies[provider_of_domain(domain)];
        match event.event {
            EventKind::Accepted => self.accepted += 1,
            EventKind::Delivered => tally.delivered += 1,
            EventKind::Deferred => tally.deferred += 1,
            EventKind::Bounced => tally.bounced += 1,
            kind if kind.is_terminal() => tally.given_up += 1,
            _ => {}
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(format!("http://{}{path}", self.http))
            .header("authorization", format!("Bearer {}", self.api_key))
            .body(Empty::new())?;
        let work = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            anyhow::ensure!(status.is_success(), "GET {path}: {status}: {}", String::from_utf8_lossy(&body));
            Ok(body)
        };
        tokio::time::timeout(REQUEST_TIME, work).await.with_context(|| format!("GET {path}: no answer"))?
    }
}
