//! Suppressions: how many there are, and what they held back.

use prometheus::{IntCounterVec, IntGauge};

use super::Registry;

/// Handles of the suppressions' metrics.
#[derive(Clone)]
pub struct SuppressionMetrics {
    /// Fingerprints in memory.
    pub fingerprints: IntGauge,
    /// Recipients that were not sent to, by reason of the entry.
    pub suppressed: IntCounterVec,
    /// Entries added, renewed and removed by operators and links, by what was done.
    pub changes: IntCounterVec,
}

impl SuppressionMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            fingerprints: registry.gauge(
                "suppression_fingerprints",
                "Suppressed addresses whose fingerprints are in memory; those removed since the start are still counted.",
            ),
            suppressed: registry.counters(
                "suppressed_recipients_total",
                "Recipients that were not sent to because they are suppressed, by reason.",
                &["reason"],
            ),
            changes: registry.counters(
                "suppression_changes_total",
                "Suppressions that were added, renewed, removed or erased, outcomes of delivery not counted.",
                &["change"],
            ),
        }
    }
}
