//! The public listener: unsubscribe links.

use prometheus::{IntCounter, IntCounterVec};

use super::Registry;

/// Handles of the public listener's metrics.
#[derive(Clone)]
pub struct TrackingMetrics {
    /// Requests by what became of them.
    requests: IntCounterVec,
    /// Connections refused for want of a place.
    pub connections_refused: IntCounter,
}

impl TrackingMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            requests: registry.counters(
                "public_requests_total",
                "Requests to the public listener: page, one_click, form, repeated, undone, test, unknown (a token that is not ours), \
                 not_found, limited, error.",
                &["outcome"],
            ),
            connections_refused: registry.counter(
                "public_connections_refused_total",
                "Connections to the public listener that were closed at once: there were too many.",
            ),
        }
    }

    /// One request was answered; `outcome` is one of a closed set.
    pub fn request(&self, outcome: &'static str) {
        self.requests.with_label_values(&[outcome]).inc();
    }
}
