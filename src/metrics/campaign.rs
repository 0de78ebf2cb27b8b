//! Metrics of the campaigns: where they stand, what moved them, what was uploaded.
//!
//! What becomes of rows is counted where it happens: rendering in `content`, outcomes in `queue`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Registry;

/// Handles of the campaigns' metrics.
#[derive(Clone)]
pub struct CampaignMetrics {
    /// Campaigns by state.
    pub campaigns: IntGaugeVec,
    /// What moved campaigns: start, pause, resume, halt, cancel, …
    pub actions: IntCounterVec,
    /// Octets of lists that were read, as they came.
    pub upload_octets: IntCounter,
    /// Uploads that are under way.
    pub uploads: IntGauge,
    /// Uploads that did not come to their end.
    pub uploads_broken: IntCounter,
    /// Rows that were stored.
    pub rows: IntCounter,
    /// Rows that were not taken, by reason.
    pub rejected: IntCounterVec,
    /// Rows and single messages that the erasure of a person took out.
    pub erased: IntCounterVec,
}

impl CampaignMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            campaigns: registry.gauges("campaigns", "Campaigns by state, ended ones too.", &["state"]),
            actions: registry.counters(
                "campaign_actions_total",
                "What moved campaigns: start, refuse, run, pause, resume, halt, cancel, finish, delete.",
                &["action"],
            ),
            upload_octets: registry.counter(
                "campaign_upload_octets_total",
                "Octets of recipients' lists that came in, as they were sent.",
            ),
            uploads: registry.gauge("campaign_uploads", "Uploads of recipients that are under way."),
            uploads_broken: registry.counter(
                "campaign_uploads_broken_total",
                "Uploads of recipients that were refused, or broke off before their end.",
            ),
            rows: registry.counter("campaign_rows_total", "Rows of recipients that were taken: they are on disk."),
            rejected: registry.counters(
                "campaign_rows_rejected_total",
                "Rows of recipients that were not taken, by reason.",
                &["reason"],
            ),
            erased: registry.counters(
                "campaign_erased_total",
                "What erasures of persons took: rows of campaigns, and single messages that still waited.",
                &["what"],
            ),
        }
    }
}
