//! What the store counts.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::Registry;

/// The store's metrics.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Commits.
    pub commits: IntCounter,
    /// Requests (submissions and outcomes) in a commit.
    pub commit_requests: Histogram,
    /// Octets of keys and values in a commit.
    pub commit_bytes: Histogram,
    /// Seconds that a commit took, with its sync.
    pub commit_seconds: Histogram,
    /// Events written.
    pub events: IntCounter,
    /// Submissions refused for want of space.
    pub refused_low_space: IntCounter,
    /// Outcomes of entries that were not there: settled twice, or purged meanwhile.
    pub settled_missing: IntCounter,
    /// Times that news could not be told one by one, and queues had to be scanned again.
    pub news_dropped: IntCounter,
    /// Records that could not be read.
    pub unreadable: IntCounter,
    /// Queues that hold something.
    pub queues: IntGauge,
    /// Recipients that wait, over all queues.
    pub queued: IntGauge,
    /// Octets of the messages that they wait for.
    pub queued_bytes: IntGauge,
    /// Octets free on the store's file system.
    pub free_bytes: IntGauge,
    /// 1 while submissions are refused for want of space.
    pub low_space: IntGauge,
    /// 1 once the store has failed.
    pub failed: IntGauge,
    /// Octets on disk.
    pub disk_bytes: IntGauge,
    /// Journals on disk.
    pub journals: IntGauge,
    /// Seconds that a read took, without its waiting.
    pub read_seconds: Histogram,
}

impl StoreMetrics {
    /// Makes and registers them; once a registry.
    pub fn register(registry: &Registry) -> Self {
        let seconds = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
        let sizes = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
        let octets = &[1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6];
        Self {
            commits: registry.counter("store_commits_total", "Commits of the ledger."),
            commit_requests: registry.histogram("store_commit_requests", "Requests in one commit.", sizes),
            commit_bytes: registry.histogram("store_commit_bytes", "Octets in one commit.", octets),
            commit_seconds: registry.histogram("store_commit_seconds", "Time of a commit with its sync.", seconds),
            events: registry.counter("store_events_total", "Events written to the log."),
            refused_low_space: registry
                .counter("store_refused_low_space_total", "Submissions refused for want of disk space."),
            settled_missing: registry
                .counter("store_settled_missing_total", "Outcomes of queue entries that were not there."),
            news_dropped: registry
                .counter("store_news_dropped_total", "Times that queues had to be scanned since news had no room."),
            unreadable: registry.counter("store_unreadable_total", "Records that could not be read."),
            queues: registry.gauge("store_queues", "Queues that hold something."),
            queued: registry.gauge("store_queued", "Recipients that wait, over all queues."),
            queued_bytes: registry.gauge("store_queued_bytes", "Octets of the messages that wait, a recipient each."),
            free_bytes: registry.gauge("store_free_bytes", "Octets free on the file system of the store."),
            low_space: registry.gauge("store_low_space", "1 while intake is refused for want of disk space."),
            failed: registry.gauge("store_failed", "1 once the store has failed."),
            disk_bytes: registry.gauge("store_disk_bytes", "Octets that the store takes on disk."),
            journals: registry.gauge("store_journals", "Journals of the store on disk."),
            read_seconds: registry.histogram("store_read_seconds", "Time of a read, without its waiting.", seconds),
        }
    }
}
