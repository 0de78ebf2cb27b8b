//! Webhooks: what was sent, how it was taken, and how far each endpoint is behind.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Registry;

/// Handles of the webhooks' metrics. The label is the endpoint's name in the configuration.
#[derive(Clone)]
pub struct WebhookMetrics {
    /// Events that were taken.
    pub events: IntCounterVec,
    /// Requests, by how they ended.
    pub requests: IntCounterVec,
    /// Events of the log that are still to be looked at.
    pub behind: IntGaugeVec,
    /// 0 well, 1 failing, 2 dead, 3 not startable.
    pub state: IntGaugeVec,
}

impl WebhookMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            events: registry.counters(
                "webhook_events_total",
                "Events that a webhook's receiver took, repetitions included.",
                &["endpoint"],
            ),
            requests: registry.counters(
                "webhook_requests_total",
                "Requests of webhooks, by result: `ok`, `status` (another status than 2xx), `network`, `refused` (an address that is not allowed).",
                &["endpoint", "result"],
            ),
            behind: registry.gauges(
                "webhook_behind_events",
                "Events of the whole log that the webhook has not yet looked at.",
                &["endpoint"],
            ),
            state: registry.gauges(
                "webhook_state",
                "How a webhook is: 0 well, 1 failing and tried again, 2 dead and probed once an hour, 3 not started for want of its secret.",
                &["endpoint"],
            ),
        }
    }

    /// Forgets an endpoint that is no longer configured.
    pub fn remove(&self, endpoint: &str) {
        // An error means that there was no such series.
        let _ = self.events.remove_label_values(&[endpoint]);
        let _ = self.behind.remove_label_values(&[endpoint]);
        let _ = self.state.remove_label_values(&[endpoint]);
        for result in ["ok", "status", "network", "refused"] {
            let _ = self.requests.remove_label_values(&[endpoint, result]);
        }
    }
}
