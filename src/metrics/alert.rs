//! Alerts: what is wrong now, and how often it was told.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Registry;

/// Handles of the alerts.
#[derive(Clone)]
pub struct AlertMetrics {
    current: IntGaugeVec,
    told: IntCounterVec,
    mails: IntCounterVec,
}

impl AlertMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            current: registry.gauges(
                "alerts",
                "Alerts by name and state: firing, or pending where the threshold was crossed too short a time ago.",
                &["alert", "state"],
            ),
            told: registry.counters(
                "alerts_told_total",
                "Events of alerts, by name and what they told: firing, repeated, resolved.",
                &["alert", "state"],
            ),
            mails: registry.counters(
                "alert_mails_total",
                "Mails about alerts: sent (by the mail server of the alerts), queued (here), failed, or withheld since there were too many.",
                &["result"],
            ),
        }
    }

    /// How many are in a state now; both names are of a closed set.
    pub fn set(&self, alert: &'static str, state: &'static str, count: i64) {
        self.current.with_label_values(&[alert, state]).set(count);
    }

    /// One was told.
    pub fn told(&self, alert: &'static str, state: &'static str) {
        self.told.with_label_values(&[alert, state]).inc();
    }

    /// What became of a mail.
    pub fn mail(&self, result: &'static str) {
        self.mails.with_label_values(&[result]).inc();
    }
}
