//! For monitoring, without a key: `/metrics`, `/healthz`, `/readyz`. Nothing in them tells of a person or a domain.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use super::{Answer, Api, Problem};
use crate::metrics::backlog::Backlog;
use crate::queue::admin::Command;

/// How long a scrape waits for the scheduler; then the gauges of the queues keep their last values.
const SUMMARY_TIMEOUT: Duration = Duration::from_secs(2);

/// All metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "monitoring", security(()), responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn get_metrics(State(api): State<Api>) -> Answer {
    let metrics = api.metrics();
    metrics.process.refresh();
    let ask = api.parts().queues.ask(|reply| Command::Summary { top: 0, reply });
    if let Ok(Ok(summary)) = tokio::time::timeout(SUMMARY_TIMEOUT, ask).await {
        metrics.backlog.set(&Backlog {
            oldest_seconds: summary.oldest.map_or(0, |oldest| api.now().since(oldest).as_secs()),
            held: summary.held,
            suspensions: summary.suspensions.len() as u64,
        });
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.parts().registry.encode())
        .into_response())
}

/// Alive: the process answers and its store works. 503 says: restart it.
#[utoipa::path(
    get, path = "/healthz", tag = "monitoring", security(()),
    responses((status = 200), (status = 503, body = super::openapi::ProblemSchema))
)]
pub async fn get_healthz(State(api): State<Api>) -> Answer {
    match api.parts().control.health().store_failed {
        None => super::json(&json!({ "status": "ok" })),
        Some(reason) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-failed", format!("the store failed: {reason}")))
        }
    }
}

/// Ready: mail is taken. 503 says why not, in `reasons`.
#[utoipa::path(
    get, path = "/readyz", tag = "monitoring", security(()),
    responses((status = 200), (status = 503, body = super::openapi::ProblemSchema))
)]
pub async fn get_readyz(State(api): State<Api>) -> Answer {
    let health = api.parts().control.health();
    let mut reasons: Vec<String> =
        health.store_failed.map(|reason| format!("the store failed: {reason}")).into_iter().collect();
    reasons.extend(health.not_ready);
    if health.draining && reasons.is_empty() {
        reasons.push("draining".into());
    }
    if reasons.is_empty() {
        return super::json(&json!({ "status": "ready" }));
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", reasons.join("; ")).with("reasons", reasons))
}
