//! What the queue engine counts.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Registry;

/// Bounds of the time in the queue, in seconds.
const QUEUE_SECONDS: [f64; 12] =
    [0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 14_400.0, 86_400.0, 345_600.0];

/// Bounds of the duration of an attempt, in seconds.
const ATTEMPT_SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1_200.0];

/// The labels of outcomes.
const PATH: [&str; 4] = ["provider", "class", "pool", "source"];

/// The metrics of the queue engine.
#[derive(Clone)]
pub struct QueueMetrics {
    /// Recipients that a remote took.
    pub delivered: IntCounterVec,
    /// Attempts that failed for now, in recipients.
    pub deferred: IntCounterVec,
    /// Recipients that a remote refused for good.
    pub bounced: IntCounterVec,
    /// Recipients that we gave up.
    pub failed: IntCounterVec,
    /// Recipients that became too old.
    pub expired: IntCounterVec,
    /// Recipients of a tenant that were delivered or bounced in the session.
    pub tenants: IntCounterVec,
    /// Recipients that an operator took out.
    pub purged: IntCounter,
    /// Recipients that were taken out by cancelling their campaign.
    pub cancelled: IntCounter,
    /// Recipients that were not sent to since they are suppressed.
    pub suppressed: IntCounter,
    /// Recipients whose message could not be made.
    pub rendering_failed: IntCounter,
    /// From acceptance to delivery.
    pub time_in_queue: HistogramVec,
    /// From the beginning of a transaction to its last reply.
    pub attempt: HistogramVec,
    /// Queues that hold something.
    pub queues: IntGauge,
    /// Recipients that wait or are in an attempt.
    pub recipients: IntGauge,
    /// Octets of their messages.
    pub bytes: IntGauge,
    /// Recipients in an attempt.
    pub in_flight: IntGauge,
    /// Outcomes that are not yet on disk.
    pub unsettled: IntGauge,
    /// Queue entries in memory.
    pub window_entries: IntGauge,
    /// Sites that are known.
    pub sites: IntGauge,
    /// Connections that were tried.
    pub connections_tried: IntCounter,
    /// Connections that failed, by provider.
    pub connections_failed: IntCounterVec,
    /// Sources that could not be used for a fault of this host.
    pub source_holds: IntCounterVec,
    /// Pages of queues that were read.
    pub refills: IntCounter,
    /// Messages that had to be read back from the store.
    pub loads: IntCounter,
    /// The learned rate of a source towards a provider.
    pub adaptation_rate: IntGaugeVec,
    /// What a source's controller does towards a provider.
    pub adaptation_state: IntGaugeVec,
    /// Changes of what may be sent.
    pub adaptation_changes: IntCounterVec,
}

/// The handles of a source towards a provider.
#[derive(Clone, Debug)]
pub struct AdaptationMetrics {
    /// Messages a minute.
    pub rate: IntGauge,
    /// As a number.
    pub state: IntGauge,
    /// How often it was changed.
    pub changes: IntCounter,
}

/// The handles of one path: a label look-up costs 60 ns each, a handle 10.
#[derive(Clone)]
pub struct PathMetrics {
    /// Recipients that a remote took.
    pub delivered: IntCounter,
    /// Attempts that failed for now.
    pub deferred: IntCounter,
    /// Refused for good.
    pub bounced: IntCounter,
    /// Given up by us.
    pub failed: IntCounter,
    /// Too old.
    pub expired: IntCounter,
    /// From acceptance to delivery.
    pub time_in_queue: Histogram,
    /// Duration of attempts.
    pub attempt: Histogram,
}

impl QueueMetrics {
    /// Makes and registers the group.
    pub fn register(registry: &Registry) -> Self {
        let outcome = |name, help| registry.counters(name, help, &PATH);
        Self {
            delivered: outcome("delivered_total", "Recipients that a remote took."),
            deferred: outcome("deferred_total", "Attempts that failed for now, in recipients."),
            bounced: outcome("bounced_total", "Recipients that a remote refused for good."),
            failed: outcome("failed_total", "Recipients that we gave up for another reason than age."),
            expired: outcome("expired_total", "Recipients that became too old."),
            tenants: registry.counters(
                "tenant_outcomes_total",
                "Recipients of each tenant that a remote took (delivered) or refused for good (bounced).",
                &["tenant", "outcome"],
            ),
            purged: registry.counter("purged_total", "Recipients that an operator took out."),
            cancelled: registry.counter("cancelled_total", "Recipients taken out by cancelling their campaign."),
            suppressed: registry.counter("suppressed_total", "Recipients not sent to since they are suppressed."),
            rendering_failed: registry.counter("rendering_failed_total", "Recipients whose message could not be made."),
            time_in_queue: registry.histograms(
                "time_in_queue_seconds",
                "From acceptance to delivery.",
                &["class"],
                &QUEUE_SECONDS,
            ),
            attempt: registry.histograms(
                "attempt_seconds",
                "From the beginning of a transaction to its last reply.",
                &["provider"],
                &ATTEMPT_SECONDS,
            ),
            queues: registry.gauge("queues", "Queues that hold something."),
            recipients: registry.gauge("queue_recipients", "Recipients that wait or are in an attempt."),
            bytes: registry.gauge("queue_bytes", "Octets of the messages that recipients wait for."),
            in_flight: registry.gauge("in_flight", "Recipients in an attempt."),
            unsettled: registry.gauge("unsettled", "Outcomes that are not yet on disk."),
            window_entries: registry.gauge("queue_window_entries", "Queue entries in memory."),
            sites: registry.gauge("sites", "Sites that are known."),
            connections_tried: registry.counter("connections_tried_total", "Outgoing connections that were tried."),
            connections_failed: registry.counters(
                "connections_failed_total",
                "Outgoing connections that never became ready or broke before any mail.",
                &["provider"],
            ),
            source_holds: registry.counters(
                "source_holds_total",
                "Times that a source was held because this host lacked its address, or descriptors, ports or memory.",
                &["source", "trouble"],
            ),
            refills: registry.counter("queue_refills_total", "Pages of queues that were read."),
            loads: registry.counter("queue_loads_total", "Messages that had to be read back from the store."),
            adaptation_rate: registry.gauges(
                "adaptation_rate",
                "Messages a minute that a source may send to a provider by what was learned; 0 for no limit.",
                &["source", "provider"],
            ),
            adaptation_state: registry.gauges(
                "adaptation_state",
                "What a source does towards a provider: 0 free, 1 starting, 2 holding, 3 probing, 4 held.",
                &["source", "provider"],
            ),
            adaptation_changes: registry.counters(
                "adaptation_changes_total",
                "Changes of what a source may send to a provider, by reply rules and the controller.",
                &["source", "provider"],
            ),
        }
    }

    /// The handles of a source towards a provider.
    pub fn adaptation(&self, source: &str, provider: &str) -> AdaptationMetrics {
        let labels = [source, provider];
        AdaptationMetrics {
            rate: self.adaptation_rate.with_label_values(&labels),
            state: self.adaptation_state.with_label_values(&labels),
            changes: self.adaptation_changes.with_label_values(&labels),
        }
    }

    /// The handles of a path.
    pub fn path(&self, provider: &str, class: &str, pool: &str, source: &str) -> PathMetrics {
        let labels = [provider, class, pool, source];
        PathMetrics {
            delivered: self.delivered.with_label_values(&labels),
            deferred: self.deferred.with_label_values(&labels),
            bounced: self.bounced.with_label_values(&labels),
            failed: self.failed.with_label_values(&labels),
            expired: self.expired.with_label_values(&labels),
            time_in_queue: self.time_in_queue.with_label_values(&[class]),
            attempt: self.attempt.with_label_values(&[provider]),
        }
    }
}
