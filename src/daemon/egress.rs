//! The egress thread: the scheduler, the sessions of delivery, and what they share.
//!
//! 1. the records that operators left (suspensions, marks of purges and reroutes) are read,
//! 2. on its own thread, whose tasks need no locks, the scheduler gets its queues, the router, the connector and the maker of content,
//! 3. [`Egress::run`] drives it until the daemon stops; then connections are told to finish.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use super::campaigns::{ForEgress, Loader};
use super::control::Tied;
use super::{Phase, threads, when};
use crate::campaign::content::{CampaignContent, CampaignLoader, ContentParts};
use crate::config::Config;
use crate::delivery::connection::{self, Connector, ConnectorParts};
use crate::delivery::router::Router;
use crate::delivery::tls::TlsConfigs;
use crate::delivery::trace::TraceHub;
use crate::delivery::{ContentMaker, Dispatcher, Failure, LocalFuture, OpenRequest, Resolution};
use crate::dkim::KeyRing;
use crate::event::{Severity, SmtpReply};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::queue::admin::{Command, Summary};
use crate::queue::cache::ContentCache;
use crate::queue::content::{MessageSource, StoredContent};
use crate::queue::egress::{Connect, Egress, EgressParts, Resolve, TraceSessions};
use crate::queue::intake::UsageTable;
use crate::queue::notify::Reports;
use crate::queue::returns::Returns;
use crate::queue::scheduler::{AdminRecords, Scheduler, Start};
use crate::queue::sign::SignPool;
use crate::seam::clock::Clock;
use crate::seam::dns::{Resolver, ResolverOptions};
use crate::seam::net::TcpNetwork;
use crate::seam::random::{self, Seeded};
use crate::store::{Ledger, News, Next, QueueRow, Reader, Settle, StoreStatus, StoredMessage};
use crate::types::{Class, Domain, MessageId};

/// Records of one kind that a start reads.
const RECORDS_MAX: usize = 100_000;

/// What the egress thread is made of.
pub(super) struct Parts {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) reloads: watch::Receiver<Arc<Config>>,
    pub(super) ring: Arc<ArcSwap<KeyRing>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Ledger,
    pub(super) reader: Reader,
    pub(super) news: mpsc::Receiver<Vec<News>>,
    pub(super) queues: Vec<QueueRow>,
    pub(super) links: Links,
    pub(super) campaigns: ForEgress,
    pub(super) usage: UsageTable,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Ends the daemon with the thread.
    pub(super) tied: Option<Tied>,
    pub(super) phases: watch::Receiver<Phase>,
    pub(super) store_status: watch::Receiver<StoreStatus>,
}

/// Reasons that a drain does not wait for: they end at a later time, or by an operator.
const LATER: [&str; 8] =
    ["retry due", "suspended", "campaign", "no way", "no source", "source held", "host down", "warm-up"];

/// Recipients that could go now: all that wait, but for those that wait for a later time or an operator.
pub(super) fn ready(summary: &Summary) -> u64 {
    let later = |reason: &str| LATER.iter().any(|word| reason.starts_with(word));
    let waiting: u64 = summary.held.iter().filter(|(reason, _)| later(reason)).map(|(_, n)| n).sum();
    summary.recipients.saturating_sub(waiting)
}

/// Starts the thread.
pub(super) fn start(mut parts: Parts) -> anyhow::Result<JoinHandle<()>> {
    let records = read_records(&parts.reader)?;
    let config = parts.config.load_full();
    let options = ResolverOptions {
        servers: config.dns.resolvers.clone(),
        timeout: config.dns.timeout.0,
        cache_size: config.dns.cache_size,
        max_concurrent: config.dns.max_concurrent,
    };
    let tls = TlsConfigs::new().context("TLS towards receivers")?;
    let pool = Arc::new(SignPool::new().context("the threads that sign")?);
    let tied = parts.tied.take();
    Ok(threads::spawn("egress", tied, move || run(parts, records, config, options, tls, pool))?)
}

async fn run(
    mut parts: Parts,
    records: AdminRecords,
    config: Arc<Config>,
    options: ResolverOptions,
    tls: TlsConfigs,
    pool: Arc<SignPool>,
) {
    let (clock, metrics) = (parts.clock.clone(), parts.metrics.clone());
    let resolver = match Resolver::new(&options, metrics.delivery.dns.clone()) {
        Ok(resolver) => resolver,
        Err(problem) => {
            // Routes with addresses need no DNS: a node that has only those must run where there is no resolver at all.
            warn!(%problem, "DNS can't be used, only routes with addresses work");
            Resolver::fixed(crate::seam::dns::Zones::new().broken(), metrics.delivery.dns.clone())
        }
    };
    let cache = Rc::new(ContentCache::new(config.storage.content_cache.0));
    let scheduler = Scheduler::new(Start {
        config: config.clone(),
        now: clock.now(),
        seed: random::u128() as u64,
        rows: parts.queues,
        records,
        campaigns: std::mem::take(&mut parts.campaigns.controls),
        cache: cache.clone(),
        notifier: Rc::new(Reports { config: parts.config.clone() }),
        returns: Some(Rc::new(Returns::new(parts.links, parts.campaigns.suppressions.clone(), &config))),
        metrics: metrics.queue.clone(),
    });
    show_paths(&metrics, &config);
    let trace = TraceHub::new();
    let stopping = when(parts.phases.clone(), |phase| phase == Phase::Stopping);
    let connector = Rc::new(Connector::new(ConnectorParts {
        config: parts.config.clone(),
        resolver: resolver.clone(),
        network: Box::new(TcpNetwork),
        tls,
        clock: clock.clone(),
        metrics: metrics.delivery.clone(),
        trace: trace.clone(),
        shutdown: stopping.clone(),
        random: Seeded::from_system(),
    }));
    let ForEgress { find, outside, suppressions, .. } = parts.campaigns;
    let source = Messages { cache, reader: parts.reader.clone() };
    let (ring, dkim) = (parts.ring, metrics.dkim.clone());
    let stored = StoredContent::new(source.clone(), ring.clone(), pool.clone(), clock.clone(), dkim.clone());
    let content = CampaignContent::new(ContentParts {
        stored,
        source,
        find: find.clone(),
        suppressions,
        outside,
        ring,
        pool,
        clock: clock.clone(),
        dkim,
        metrics: metrics.content.clone(),
        bytes_max: config.storage.content_cache.0,
    });
    let rows = CampaignLoader::new(parts.reader.clone(), find, parts.config.clone());
    let load = Rc::new(Loader { rows, reader: parts.reader.clone() });
    let usage = parts.usage;
    let egress = Egress::new(EgressParts {
        scheduler,
        clock: clock.clone(),
        ledger: parts.ledger,
        load,
        reader: parts.reader,
        resolver: Rc::new(Lookup { router: Router::new(parts.config, resolver), clock: clock.clone() }),
        connect: Rc::new(Dial { connector, content: Rc::new(content) }),
        trace: Rc::new(Watch(trace)),
        settling: Box::new(move |settle| count(&usage, settle)),
        news: parts.news,
        commands: parts.commands,
        config: parts.reloads,
    });
    let finished = egress.run(ended(stopping, parts.store_status)).await;
    if !finished {
        error!("the end did not wait for all attempts; what was in one may be sent twice");
    }
}

/// A counter that is there from the start, at zero, can be alerted on; the providers come as mail goes to them.
fn show_paths(metrics: &Metrics, config: &Config) {
    for pool in &config.pools {
        for source in pool.sources.iter().filter(|source| source.weight > 0) {
            for class in [Class::Transactional, Class::Marketing] {
                metrics.queue.path("other", class.as_str(), pool.name.as_str(), source.name.as_str());
            }
        }
    }
}

/// Until the daemon stops, or the store has failed.
async fn ended(mut stopping: watch::Receiver<bool>, mut status: watch::Receiver<StoreStatus>) {
    let failed = status.wait_for(|status| matches!(status, StoreStatus::Failed(_)));
    tokio::select! {
        _ = stopping.wait_for(|stops| *stops) => {}
        _ = failed => {}
    }
}

fn read_records(reader: &Reader) -> anyhow::Result<AdminRecords> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut records = AdminRecords::default();
    for prefix in AdminRecords::PREFIXES {
        for (key, value) in runtime.block_on(reader.state(prefix, RECORDS_MAX))? {
            if let Err(problem) = records.add(&key, &value) {
                error!(key = %String::from_utf8_lossy(&key), problem, "an operator's record can't be read, it has no effect");
            }
        }
    }
    Ok(records)
}

/// What leaves the queues, or is added to them by us, counts in the tenants' quotas.
pub(super) fn count(usage: &UsageTable, settle: &Settle) {
    // Rows of campaigns were never added.
    for settled in settle.settled.iter().filter(|settled| settled.next == Next::Done && settled.sent.is_none()) {
        if let Some(event) = settled.events.last() {
            usage.sub(&event.tenant, 1, u64::from(settled.size));
        }
    }
    for owed in &settle.owed {
        let recipients = owed.deliveries.len() as u64;
        usage.add(&owed.message.envelope.tenant, recipients, recipients * owed.message.body.len() as u64);
    }
}

pub(super) struct Lookup {
    pub(super) router: Router,
    pub(super) clock: Clock,
}

impl Resolve for Lookup {
    fn resolve<'a>(&'a self, domain: &'a Domain) -> LocalFuture<'a, Resolution> {
        Box::pin(self.router.resolve(domain, self.clock.now()))
    }
}

pub(super) struct Dial {
    pub(super) connector: Rc<Connector>,
    pub(super) content: Rc<dyn ContentMaker>,
}

impl Connect for Dial {
    fn open(&self, request: OpenRequest, dispatcher: Rc<dyn Dispatcher>) {
        tokio::task::spawn_local(connection::run(request, dispatcher, self.content.clone(), self.connector.clone()));
    }
}

struct Watch(TraceHub);

impl TraceSessions for Watch {
    fn watch(&self, domain: Domain, lines: mpsc::Sender<String>) {
        if !self.0.watch(domain, lines.clone()) {
            // Full of watchers: the stream ends with the reason.
            let _ = lines.try_send("* too many sessions are being watched".into());
        }
    }
}

/// Messages from memory, else from the store.
#[derive(Clone)]
pub(super) struct Messages {
    pub(super) cache: Rc<ContentCache>,
    pub(super) reader: Reader,
}

impl MessageSource for Messages {
    fn message(&self, id: MessageId) -> LocalFuture<'_, Result<Option<Arc<StoredMessage>>, Failure>> {
        if let Some(message) = self.cache.get(id) {
            return Box::pin(std::future::ready(Ok(Some(message))));
        }
        Box::pin(async move {
            self.reader.message(id).await.map_err(|error| Failure {
                severity: Severity::Temporary,
                reply: SmtpReply { code: 0, enhanced: Some("4.3.0".into()), text: error.to_string().into() },
                stage: "reading the message",
                remote: false,
            })
        })
    }
}
