//! What waits, set at a scrape from the scheduler's summary.

use prometheus::{IntGauge, IntGaugeVec};

use super::Registry;

/// Sizes and ages of the queues.
#[derive(Clone)]
pub struct BacklogMetrics {
    queues: IntGauge,
    recipients: IntGauge,
    bytes: IntGauge,
    in_flight: IntGauge,
    unsettled: IntGauge,
    connections: IntGauge,
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
    /// Queues that hold something.
    pub queues: u64,
    /// Recipients that wait.
    pub recipients: u64,
    /// Octets of their messages.
    pub bytes: u64,
    /// Recipients in an attempt.
    pub in_flight: u64,
    /// Outcomes that are not yet on disk.
    pub unsettled: u64,
    /// Open connections.
    pub connections: u64,
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
            queues: registry.gauge("queues", "Queues that hold something."),
            recipients: registry.gauge("queue_recipients", "Recipients that wait."),
            bytes: registry.gauge("queue_bytes", "Octets of the messages that wait."),
            in_flight: registry.gauge("queue_in_flight", "Recipients in an attempt now."),
            unsettled: registry.gauge("queue_unsettled", "Outcomes that are not yet on disk."),
            connections: registry.gauge("queue_connections", "Open connections to receivers."),
            oldest: registry.gauge("queue_oldest_seconds", "Age of the recipient that waits longest."),
            held: registry.gauges("queue_held_recipients", "Recipients that wait, by what holds them.", &["reason"]),
            suspensions: registry.gauge("queue_suspensions", "Suspensions in force."),
        }
    }

    /// Sets all gauges.
    pub fn set(&self, backlog: &Backlog) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.queues, backlog.queues);
        set(&self.recipients, backlog.recipients);
        set(&self.bytes, backlog.bytes);
        set(&self.in_flight, backlog.in_flight);
        set(&self.unsettled, backlog.unsettled);
        set(&self.connections, backlog.connections);
        set(&self.oldest, backlog.oldest_seconds);
        set(&self.suspensions, backlog.suspensions);
        self.held.reset();
        for (reason, count) in &backlog.held {
            let label = HELD.into_iter().find(|word| reason.contains(word)).unwrap_or("other");
            self.held.with_label_values(&[label]).add(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}
