//! Metrics of messages that are made from campaigns' rows.

use prometheus::{Histogram, IntCounter};

use super::Registry;

/// Upper bounds in seconds: a message takes 30 to 100 µs, with RSA half a millisecond, and waits for a thread in multiples of that.
const SECONDS: [f64; 8] = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.005, 0.05, 0.5];

/// The handles of the making of content.
#[derive(Clone)]
pub struct ContentMetrics {
    /// Messages made from rows.
    pub rendered: IntCounter,
    /// Rows that no message can be made from.
    pub failed: IntCounter,
    /// Rows whose address was found suppressed at the attempt.
    pub suppressed: IntCounter,
    /// Messages that waited for memory.
    pub waited: IntCounter,
    /// Seconds to make a message, signed, waiting for a thread included.
    pub seconds: Histogram,
}

impl ContentMetrics {
    /// Makes the group in a registry.
    pub fn register(registry: &Registry) -> Self {
        let rows = registry.counters(
            "content_rows_total",
            "Campaign rows at their attempt, by what became of them.",
            &["result"],
        );
        Self {
            rendered: rows.with_label_values(&["rendered"]),
            failed: rows.with_label_values(&["failed"]),
            suppressed: rows.with_label_values(&["suppressed"]),
            waited: registry
                .counter("content_memory_waits_total", "Messages that waited for memory before they were made."),
            seconds: registry.histogram(
                "content_make_seconds",
                "Seconds to render and sign a campaign's message, waiting for a thread included.",
                &SECONDS,
            ),
        }
    }
}
