//! Metrics: one registry, one group of handles an engine.
//!
//! An engine gets its group at its making and keeps the handles: a look-up by label costs 60 ns, a handle 10 ns.
//! No label ever has a destination domain, a recipient or a campaign: its values are a closed set (provider, class, reason, …) or
//! names of the configuration (pool, source).
//! The list in `docs/metrics.md` is made from the registry.

pub mod alert;
pub mod backlog;
pub mod campaign;
pub mod content;
pub mod delivery;
pub mod dkim;
pub mod http;
pub mod inbound;
pub mod intake;
pub mod process;
pub mod queue;
pub mod report;
pub mod smtp_server;
pub mod store;
pub mod suppression;
pub mod tracking;
pub mod webhook;

use std::sync::Arc;

use parking_lot::Mutex;

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder,
};

/// The registry of the process. All names begin with `posthaste_`.
#[derive(Clone, Default)]
pub struct Registry {
    inner: prometheus::Registry,
    list: Arc<Mutex<Vec<Described>>>,
}

/// A metric as the documentation lists it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Described {
    /// Its full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it tells.
    pub help: String,
}

/// The groups that the daemon makes: one of each engine.
pub struct Metrics {
    /// The process.
    pub process: process::ProcessMetrics,
    /// What waits.
    pub backlog: backlog::BacklogMetrics,
    /// The HTTP API.
    pub http: http::HttpMetrics,
    /// The SMTP server.
    pub smtp_server: smtp_server::SmtpServerMetrics,
    /// Intake.
    pub intake: intake::IntakeMetrics,
    /// The store.
    pub store: store::StoreMetrics,
    /// Signing.
    pub dkim: dkim::DkimMetrics,
    /// The queues.
    pub queue: queue::QueueMetrics,
    /// Connections to receivers, and DNS.
    pub delivery: delivery::DeliveryMetrics,
    /// Campaigns.
    pub campaign: campaign::CampaignMetrics,
    /// Content of campaigns.
    pub content: content::ContentMetrics,
    /// Suppressions.
    pub suppression: suppression::SuppressionMetrics,
    /// What comes back.
    pub inbound: inbound::InboundMetrics,
    /// Alerts.
    pub alert: alert::AlertMetrics,
    /// Reports.
    pub report: report::ReportMetrics,
    /// The public listener.
    pub tracking: tracking::TrackingMetrics,
    /// Webhooks.
    pub webhook: webhook::WebhookMetrics,
}

/// Makes every group. `docs/metrics.md` lists what this registers.
pub fn register_all(registry: &Registry) -> Metrics {
    Metrics {
        process: process::ProcessMetrics::register(registry),
        backlog: backlog::BacklogMetrics::register(registry),
        http: http::HttpMetrics::register(registry),
        smtp_server: smtp_server::SmtpServerMetrics::register(registry),
        intake: intake::IntakeMetrics::register(registry),
        store: store::StoreMetrics::register(registry),
        queue: queue::QueueMetrics::register(registry),
        dkim: dkim::DkimMetrics::register(registry),
        delivery: delivery::DeliveryMetrics::register(registry),
        campaign: campaign::CampaignMetrics::register(registry),
        content: content::ContentMetrics::register(registry),
        suppression: suppression::SuppressionMetrics::register(registry),
        inbound: inbound::InboundMetrics::register(registry),
        alert: alert::AlertMetrics::register(registry),
        report: report::ReportMetrics::register(registry),
        tracking: tracking::TrackingMetrics::register(registry),
        webhook: webhook::WebhookMetrics::register(registry),
    }
}

impl Registry {
    /// A registry with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter `posthaste_<name>`; by convention the name ends with `_total`.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep("counter", IntCounter::with_opts(opts(name, help)))
    }

    /// A counter of a quantity that has parts of a unit, as seconds.
    pub fn counter_f64(&self, name: &str, help: &str) -> Counter {
        self.keep("counter", Counter::with_opts(opts(name, help)))
    }

    /// A counter for each value of these labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep("counter", IntCounterVec::new(opts(name, help), labels))
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep("gauge", IntGauge::with_opts(opts(name, help)))
    }

    /// A gauge for each value of these labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep("gauge", IntGaugeVec::new(opts(name, help), labels))
    }

    /// A histogram with these upper bounds, in the unit that the name ends with.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(format!("posthaste_{name}"), help).buckets(buckets.to_vec());
        self.keep("histogram", Histogram::with_opts(opts))
    }

    /// A histogram for each value of these labels.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(format!("posthaste_{name}"), help).buckets(buckets.to_vec());
        self.keep("histogram", HistogramVec::new(opts, labels))
    }

    /// All metrics in the text format of Prometheus.
    pub fn encode(&self) -> String {
        let mut out = Vec::new();
        // Writing into memory fails only for a metric without a name; `opts` gives every one a name.
        let _ = TextEncoder::new().encode(&self.inner.gather(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Every metric that was registered, by name.
    pub fn described(&self) -> Vec<Described> {
        let mut list = self.list.lock().clone();
        list.sort();
        list
    }

    fn keep<C: Collector + Clone + 'static>(&self, kind: &'static str, made: prometheus::Result<C>) -> C {
        // Names and labels are literals of this program; the test of the committed list makes every group once.
        let metric = made.expect("a valid name and valid labels");
        self.inner.register(Box::new(metric.clone())).expect("each name is registered once");
        self.list.lock().extend(metric.desc().into_iter().map(|desc| Described {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        }));
        metric
    }
}

/// What a group of counters counted, by the values of these labels, in their order. For those who judge by numbers that are counted anyway.
pub fn counted(counters: &IntCounterVec, labels: &[&str]) -> Vec<(Vec<String>, u64)> {
    let mut out = Vec::new();
    for family in counters.collect() {
        for metric in family.get_metric() {
            let value = |name: &&str| {
                let pair = metric.get_label().iter().find(|pair| pair.name() == *name);
                pair.map_or(String::new(), |pair| pair.value().to_owned())
            };
            let count = metric.get_counter().get_value();
            out.push((labels.iter().map(value).collect(), count as u64));
        }
    }
    out
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("posthaste_{name}"), help)
}

#[cfg(test)]
mod tests;
