//! The HTTP API.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec};

use super::Registry;

/// Requests and how long they took.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    seconds: Histogram,
}

impl HttpMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        let buckets = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
        Self {
            requests: registry.counters(
                "http_requests_total",
                "HTTP requests by the status of the answer.",
                &["status"],
            ),
            seconds: registry.histogram(
                "http_request_seconds",
                "How long HTTP requests took, long polls too.",
                &buckets,
            ),
        }
    }

    /// One request was answered.
    pub fn observe(&self, status: u16, took: Duration) {
        // The statuses that we answer are few; a path never becomes a label.
        self.requests.with_label_values(&[status.to_string().as_str()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
