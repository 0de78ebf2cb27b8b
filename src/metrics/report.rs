//! Metrics of the reports: how far their counters are behind the log, and what they cost.

use prometheus::{IntCounter, IntGauge};

use super::Registry;

/// Handles of the reports' metrics.
#[derive(Clone)]
pub struct ReportMetrics {
    /// Events that were counted.
    pub events: IntCounter,
    /// Cells that were written.
    pub cells: IntCounter,
    /// Events on disk that are not counted yet.
    pub lag: IntGauge,
    /// Events that were gone before they were counted.
    pub missed: IntCounter,
    /// Events and cells that could not be read.
    pub unreadable: IntCounter,
}

impl ReportMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            events: registry.counter("report_events_total", "Events that were counted for reports."),
            cells: registry.counter("report_cells_total", "Counters of reports that were written."),
            lag: registry.gauge("report_lag_events", "Events on disk that reports do not count yet."),
            missed: registry.counter(
                "report_missed_events_total",
                "Events that were past their retention before reports had counted them.",
            ),
            unreadable: registry
                .counter("report_unreadable_total", "Events and counters that reports could not read and go without."),
        }
    }
}
