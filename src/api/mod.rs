//! The HTTP API: on TCP with bearer keys, on the control socket for the daemon's user and root.
//!
//! 1. [`Server::bind`] opens the listeners, [`Server::run`] serves them until told to end (`server`),
//! 2. each request gets its [`Peer`]; [`Caller`] tells who asks and whose data it sees (`auth`),
//! 3. bodies and query parameters are read strictly, with bounds (`input`),
//! 4. a handler asks the ports ([`ports`]) for what it needs; it holds no state of the mail itself,
//! 5. an error leaves as a problem (RFC 9457) that names what and where (`problem`).
//!
//! A 202 means what a 250 means: on disk, fsynced.

mod admin;
mod alerts;
mod auth;
mod auth_reports;
mod campaigns;
mod compose;
mod contacts;
mod events;
mod health;
mod idempotency;
mod input;
mod messages;
mod openapi;
pub mod ports;
mod problem;
mod queues;
mod raw;
pub mod recipients;
mod reports;
mod server;
pub mod suppressions;
mod trace;
pub mod types;
pub mod webhooks;

#[cfg(test)]
pub(crate) mod tests;

pub use auth::{Caller, Peer};
pub use problem::{PROBLEM_JSON, Problem};
pub use server::{BindError, Server};

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::campaign::Campaigns;
use crate::campaign::contacts::Contacts;
use crate::config::Config;
use crate::metrics::{Metrics, Registry};
use crate::queue::admin::{AdminHandle, Command, Reply};
use crate::report::Reports;
use crate::seam::clock::Clock;
use crate::store::Ledger;
use crate::suppression::Suppressions;
use crate::types::Timestamp;
use crate::webhook::Webhooks;
use auth::Keys;
use idempotency::InFlight;
use ports::{AcceptMessage, Compose, Control, ReadSide};

/// How long the scheduler may take for an answer; then 503.
const COMMAND_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The octets of bodies that may be in memory at a time, over all requests; further ones wait, then 503.
const BODY_BYTES_MAX: usize = 256 << 20;

/// What the API is made of.
pub struct Parts {
    /// The config in force.
    pub config: Arc<ArcSwap<Config>>,
    /// The time.
    pub clock: Clock,
    /// Where messages go.
    pub intake: Arc<dyn AcceptMessage>,
    /// Where events, messages and state are read.
    pub read: Arc<dyn ReadSide>,
    /// Where cursors are written.
    pub ledger: Ledger,
    /// Where queues are asked and steered.
    pub queues: AdminHandle,
    /// How JSON becomes a message.
    pub compose: Arc<dyn Compose>,
    /// The audiences.
    pub contacts: Contacts,
    /// What the daemon does when asked.
    pub control: Arc<dyn Control>,
    /// What `/metrics` shows.
    pub registry: Registry,
    /// The campaigns; without them their routes answer 503.
    pub campaigns: Option<Campaigns>,
    /// The reports; without them their routes answer 503.
    pub reports: Option<Reports>,
    /// The groups that a scrape brings up to date.
    pub metrics: Arc<Metrics>,
    /// Who is not sent to.
    pub suppressions: Suppressions,
    /// What is wrong.
    pub alerts: crate::alert::Board,
    /// The webhooks; without them their routes answer 503.
    pub webhooks: Option<Webhooks>,
}

/// The state that all handlers share; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    parts: Parts,
    keys: ArcSwap<Keys>,
    in_flight: Arc<InFlight>,
    bodies: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    started: Timestamp,
}

impl Api {
    /// An API over these parts.
    pub fn new(parts: Parts) -> Self {
        let keys = ArcSwap::from_pointee(Keys::of(&parts.config.load_full()));
        let started = parts.clock.now();
        Self(Arc::new(Inner {
            parts,
            keys,
            in_flight: Arc::default(),
            bodies: Arc::new(Semaphore::new(BODY_BYTES_MAX)),
            closing: watch::Sender::new(false),
            started,
        }))
    }

    /// The service: all routes, with the layer that writes problems.
    pub fn router(&self) -> Router {
        let (router, document) = openapi::routes().split_for_parts();
        let document = Arc::new(openapi::document(document));
        let served = axum::routing::get(move || {
            let document = Arc::clone(&document);
            async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()) }
        });
        router
            .route("/v1/openapi.json", served)
            .fallback(|uri: axum::http::Uri| async move { Problem::not_found(format!("nothing is at {}", uri.path())) })
            .layer(axum::middleware::from_fn_with_state(self.clone(), problem::finish))
            .with_state(self.clone())
    }

    /// Removes idempotency records that are too old, little by little; runs until the API closes.
    pub async fn housekeeping(&self) {
        idempotency::sweep_forever(self).await;
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn config(&self) -> Arc<Config> {
        self.0.parts.config.load_full()
    }

    fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// The keys of the config in force; made anew after a reload.
    fn keys(&self) -> Arc<Keys> {
        let config = self.config();
        let keys = self.0.keys.load_full();
        if keys.is_of(&config) {
            return keys;
        }
        let fresh = Arc::new(Keys::of(&config));
        self.0.keys.store(Arc::clone(&fresh));
        fresh
    }

    /// Asks the scheduler.
    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        match tokio::time::timeout(COMMAND_TIMEOUT, self.0.parts.queues.ask(make)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::unavailable("the scheduler did not answer in 30 s")),
        }
    }
}

/// What a handler answers.
type Answer = Result<Response, Problem>;

/// A JSON answer.
fn json<T: Serialize>(value: &T) -> Answer {
    let body = serde_json::to_vec(value)
        .map_err(|e| Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "failed", e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
