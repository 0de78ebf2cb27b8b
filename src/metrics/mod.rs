//! Metrics: one registry, one group of handles an engine.
//!
//! An engine gets its group at its making and keeps the handles: a look-up by label costs 60 ns, a handle 10 ns.
//! No label ever has a destination domain, a recipient or a campaign: provider, class, pool, source, tenant only.
//! The list in `docs/metrics.md` is made from the registry.

pub mod delivery;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder,
};

/// The registry of the process. All names begin with `posthaste_`.
#[derive(Clone, Default)]
pub struct Registry(prometheus::Registry);

impl Registry {
    /// A registry with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter `posthaste_<name>`; by convention the name ends with `_total`.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(opts(name, help)))
    }

    /// A counter for each value of these labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(opts(name, help), labels))
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(opts(name, help)))
    }

    /// A gauge for each value of these labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(opts(name, help), labels))
    }

    /// A histogram with these upper bounds, in the unit that the name ends with.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(format!("posthaste_{name}"), help).buckets(buckets.to_vec());
        self.keep(Histogram::with_opts(opts))
    }

    /// A histogram for each value of these labels.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(format!("posthaste_{name}"), help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, labels))
    }

    /// All metrics in the text format of Prometheus.
    pub fn encode(&self) -> String {
        let mut out = Vec::new();
        // Writing into memory fails only for a metric without a name; `opts` gives every one a name.
        let _ = TextEncoder::new().encode(&self.0.gather(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        // Names and labels are literals of this program; the test of the committed list makes every group once.
        let metric = made.expect("a valid name and valid labels");
        self.0.register(Box::new(metric.clone())).expect("each name is registered once");
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("posthaste_{name}"), help)
}
