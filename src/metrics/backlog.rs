//! What waits, set at a scrape from the scheduler's summary.

use prometheus::{IntGauge, IntGaugeVec};

use super::Registry;

/// Ages of the queues, and what holds them; their sizes the scheduler keeps itself.
#[derive(Clone)]
pub struct BacklogMetrics {
    oldest: IntGauge,
    held: IntGaugeVec,
    suspensions: IntGauge,
}

/// What can hold a queue, as labels: found by the first of these words in the reason. Reasons themselves may name a
/// site or a number, and labels must stay few.
const HELD: [&str; 12] = [
    "suspend",
    "warm-up",
    "connection",
    "rate",
    "retry",
    "resolving",
    "window",
    "unsettled",
    "paused",
    "space",
    "store",
    "route",
];

/// The scheduler's summary, in numbers: this layer knows no queue.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// The age of the oldest recipient, in seconds.
    pub oldest_seconds: u64,
    /// Recipients by what holds them.
    pub held: Vec<(String, u64)>,
    /// Suspensions in force.
    pub suspensions: u64,
}

impl BacklogMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            oldest: registry.gauge("queue_oldest_seconds", "Age of the recipient that waits longest."),
            held: registry.gauges("queue_held_recipients", "Recipients that wait, by what holds them.", &["reason"]),
            suspensions: registry.gauge("queue_suspensions", "Suspensions in force."),
        }
    }

    /// Sets all gauges.
    pub fn set(&self, backlog: &Backlog) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.oldest, backlog.oldest_seconds);
        set(&self.suspensions, backlog.suspensions);
        self.held.reset();
        for (reason, count) in &backlog.held {
            let label = HELD.into_iter().find(|word| reason.contains(word)).unwrap_or("other");
            self.held.with_label_values(&[label]).add(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}
