//! Metrics of intake: what became ours, what was refused, and how long the commit took.

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Registry;

/// Handles of intake's metrics.
#[derive(Clone)]
pub struct IntakeMetrics {
    /// Messages accepted, by class and pool.
    pub accepted_messages: IntCounterVec,
    /// Recipients accepted, by class and pool.
    pub accepted_recipients: IntCounterVec,
    /// Octets accepted.
    pub accepted_bytes: IntCounter,
    /// Messages refused, by reason.
    pub refused: IntCounterVec,
    /// Time from handing a message to the ledger until it is on disk.
    pub commit_seconds: Histogram,
}

impl IntakeMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Self {
        let labels = &["class", "pool"];
        Self {
            accepted_messages: registry.counters(
                "accepted_messages_total",
                "Messages accepted: on disk and acknowledged.",
                labels,
            ),
            accepted_recipients: registry.counters("accepted_recipients_total", "Recipients accepted.", labels),
            accepted_bytes: registry.counter("accepted_bytes_total", "Octets of the messages accepted."),
            refused: registry.counters(
                "intake_refused_total",
                "Messages refused at intake: content, policy, quota, space or store.",
                &["reason"],
            ),
            commit_seconds: registry.histogram(
                "intake_commit_seconds",
                "Time from handing a message to the ledger until it is on disk.",
                &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0],
            ),
        }
    }
}
