//! Metrics of signing.

use prometheus::{Histogram, IntCounter};

use super::Registry;

/// Upper bounds in seconds: Ed25519 takes 20 µs, RSA 0.4 ms, and what waits for a thread waits in multiples of that.
const SECONDS: [f64; 8] = [0.000_05, 0.000_2, 0.000_5, 0.001, 0.002, 0.01, 0.1, 1.0];

/// The handles of the signing of messages.
#[derive(Clone)]
pub struct DkimMetrics {
    /// Signatures made with rsa-sha256.
    pub rsa: IntCounter,
    /// Signatures made with ed25519-sha256.
    pub ed25519: IntCounter,
    /// Messages that went out with a signature that was made for an earlier attempt or another job.
    pub reused: IntCounter,
    /// Messages that wait because a key can't be used.
    pub failures: IntCounter,
    /// Seconds from asking for the signatures of a message until they are there, waiting for a thread included.
    pub seconds: Histogram,
    /// Messages that were put into 7 bits for a peer without 8BITMIME.
    pub reencoded: IntCounter,
}

impl DkimMetrics {
    /// Makes the group in a registry.
    pub fn register(registry: &Registry) -> Self {
        let signatures = registry.counters("dkim_signatures_total", "DKIM signatures made.", &["algorithm"]);
        Self {
            rsa: signatures.with_label_values(&["rsa-sha256"]),
            ed25519: signatures.with_label_values(&["ed25519-sha256"]),
            reused: registry.counter("dkim_signatures_reused_total", "Messages sent with signatures made before."),
            failures: registry.counter("dkim_failures_total", "Messages deferred because a DKIM key can't be used."),
            seconds: registry.histogram(
                "dkim_sign_seconds",
                "Seconds until a message was signed, waiting for a thread included.",
                &SECONDS,
            ),
            reencoded: registry
                .counter("content_reencoded_total", "Messages put into 7 bits for a peer without 8BITMIME."),
        }
    }
}
