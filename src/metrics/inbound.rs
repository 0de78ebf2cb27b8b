//! What comes back: bounces, complaints, machines' answers, unsubscribes by mail.

use prometheus::IntCounterVec;

use super::Registry;

/// Handles of the metrics of what comes back.
#[derive(Clone)]
pub struct InboundMetrics {
    mails: IntCounterVec,
    refused: IntCounterVec,
    /// Bounces and complaints by mail, of each tenant.
    pub tenants: IntCounterVec,
}

impl InboundMetrics {
    /// Makes the group.
    pub fn register(registry: &Registry) -> Self {
        Self {
            mails: registry.counters(
                "returned_mails_total",
                "Mails that came back to us, by what they said: bounce, deferral, complaint, auto_reply, unsubscribe, repeated (it was known), \
                 unknown (the message is not known any more), unread (nobody can tell what it says), test, dmarc_report, tls_report, \
                 report_unread, report_foreign (about a domain of nobody here), forwarded (to the postmaster).",
                &["kind"],
            ),
            refused: registry.counters(
                "returned_refused_total",
                "Recipients and mails that a bounce listener refused: foreign (no address of ours), forged, expired, rate, store, \
                 reports (too many in a day), postmaster (none is configured), loop.",
                &["reason"],
            ),
            tenants: registry.counters(
                "tenant_returned_total",
                "Recipients of each tenant of whom a mail told a bounce or a complaint.",
                &["tenant", "kind"],
            ),
        }
    }

    /// One mail was taken; `kind` is one of a closed set.
    pub fn mail(&self, kind: &'static str) {
        self.mails.with_label_values(&[kind]).inc();
    }

    /// One recipient or mail was refused; `reason` is one of a closed set.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}
