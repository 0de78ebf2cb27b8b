//! Metrics of the delivery engine: connections, TLS, attempts, DNS.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::Registry;

/// Handles of the delivery engine.
#[derive(Clone)]
pub struct DeliveryMetrics {
    /// Connections that are open or being opened.
    pub connections: IntGauge,
    /// Connections that became ready.
    pub connections_opened: IntCounter,
    /// Hosts that did not become ready, by the stage at which they failed.
    pub host_failures: IntCounterVec,
    /// Sessions by TLS: `TLSv1.3`, `TLSv1.2`, `none`.
    pub tls_sessions: IntCounterVec,
    /// TLS handshakes that failed.
    pub tls_failures: IntCounter,
    /// Transactions that were sent.
    pub transactions: IntCounter,
    /// From a job's hand-out to its report, in seconds.
    pub attempt_seconds: Histogram,
    /// Octets of message data sent.
    pub bytes_sent: IntCounter,
    /// Jobs whose final reply was lost after all data was sent.
    pub ambiguous: IntCounter,
    /// DNS.
    pub dns: DnsMetrics,
}

impl DeliveryMetrics {
    /// Registers the group; once a registry.
    pub fn register(registry: &Registry) -> Self {
        Self {
            connections: registry.gauge("connections", "Outgoing SMTP connections, open or opening."),
            connections_opened: registry
                .counter("connections_opened_total", "Outgoing SMTP sessions that became ready."),
            host_failures: registry.counters(
                "host_failures_total",
                "Hosts that could not be used, by the stage at which they failed.",
                &["stage"],
            ),
            tls_sessions: registry.counters(
                "outgoing_tls_sessions_total",
                "Outgoing SMTP sessions by TLS protocol; none is clear text.",
                &["protocol"],
            ),
            tls_failures: registry.counter("outgoing_tls_failures_total", "Outgoing TLS handshakes that failed."),
            transactions: registry.counter("transactions_total", "Outgoing SMTP transactions begun."),
            attempt_seconds: registry.histogram(
                "transaction_seconds",
                "Time from a job's hand-out to its outcome, in seconds.",
                &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0],
            ),
            bytes_sent: registry.counter("sent_bytes_total", "Octets of message data sent."),
            ambiguous: registry
                .counter("ambiguous_total", "Transactions whose final reply was lost after all data was sent."),
            dns: DnsMetrics::register(registry),
        }
    }
}

/// Handles of the resolver.
#[derive(Clone)]
pub struct DnsMetrics {
    /// Questions asked of the network.
    pub queries: IntCounter,
    /// Questions answered from memory.
    pub cached: IntCounter,
    /// Questions that failed for now: SERVFAIL, time-out, network.
    pub failures: IntCounter,
    /// Time of a question that went to the network, in seconds.
    pub seconds: Histogram,
}

impl DnsMetrics {
    /// Registers the group; once a registry.
    pub fn register(registry: &Registry) -> Self {
        Self {
            queries: registry.counter("dns_queries_total", "DNS questions that went to the network."),
            cached: registry.counter("dns_cached_total", "DNS questions answered from the cache."),
            failures: registry.counter("dns_failures_total", "DNS questions that failed for now: SERVFAIL, time-out."),
            seconds: registry.histogram(
                "dns_seconds",
                "Time of a DNS question that went to the network, in seconds.",
                &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0],
            ),
        }
    }
}
