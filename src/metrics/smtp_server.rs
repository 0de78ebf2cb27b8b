//! Metrics of the SMTP server: connections, logins, TLS and what was refused.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::Registry;

/// Handles of the SMTP server's metrics.
#[derive(Clone)]
pub struct SmtpServerMetrics {
    /// Connections taken.
    pub connections: IntCounter,
    /// Connections open.
    pub connections_open: IntGauge,
    /// Connections refused at once, by reason.
    pub connections_refused: IntCounterVec,
    /// TLS handshakes, by result.
    pub tls: IntCounterVec,
    /// Logins, by result.
    pub logins: IntCounterVec,
    /// Commands refused.
    pub commands_refused: IntCounter,
    /// Sessions ended by us, by reason.
    pub sessions_ended: IntCounterVec,
}

impl SmtpServerMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Self {
        Self {
            connections: registry.counter("smtp_server_connections_total", "Connections taken by the SMTP server."),
            connections_open: registry.gauge("smtp_server_connections_open", "Connections open at the SMTP server."),
            connections_refused: registry.counters(
                "smtp_server_connections_refused_total",
                "Connections refused at once, for the limit of all (total), of one client (client), or for want of file \
                 descriptors (resources).",
                &["reason"],
            ),
            tls: registry.counters(
                "smtp_server_tls_handshakes_total",
                "TLS handshakes of clients: ok or failed.",
                &["result"],
            ),
            logins: registry.counters(
                "smtp_server_logins_total",
                "Logins: ok, cached (ok without hashing), denied, busy.",
                &["result"],
            ),
            commands_refused: registry.counter(
                "smtp_server_commands_refused_total",
                "Commands that got a 4xx or 5xx reply.",
            ),
            sessions_ended: registry.counters(
                "smtp_server_sessions_ended_total",
                "Sessions ended by us: timeout, slow, malformed, errors, limit, memory, shutdown.",
                &["reason"],
            ),
        }
    }
}
