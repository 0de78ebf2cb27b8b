//! The webhooks of this daemon: the engine with its resolver and TLS.

use anyhow::Context;

use super::Hands;
use crate::delivery::tls::TlsConfigs;
use crate::metrics::Metrics;
use crate::seam::clock::Clock;
use crate::seam::dns::{Resolver, ResolverOptions, Zones};
use crate::store::Ledger;
use crate::webhook::{self, Webhooks};

/// Makes the engine; must run inside the runtime that will run it. Nothing is sent before it runs.
pub(super) fn open(hands: &Hands, clock: &Clock, metrics: &Metrics, ledger: &Ledger) -> anyhow::Result<Webhooks> {
    let config = hands.config.load();
    let options = ResolverOptions {
        servers: config.dns.resolvers.clone(),
        timeout: config.dns.timeout.0,
        cache_size: config.dns.cache_size,
        max_concurrent: config.dns.max_concurrent,
    };
    let dns = metrics.delivery.dns.clone();
    // Without any resolver each request fails and says so; endpoints with addresses still work.
    let resolver = Resolver::new(&options, dns.clone()).unwrap_or_else(|_| Resolver::fixed(Zones::new().broken(), dns));
    Ok(Webhooks::new(webhook::Parts {
        clock: clock.clone(),
        reader: hands.reader.clone(),
        ledger: ledger.clone(),
        metrics: metrics.webhook.clone(),
        resolver,
        tls: TlsConfigs::new().context("TLS towards webhooks")?,
    }))
}
