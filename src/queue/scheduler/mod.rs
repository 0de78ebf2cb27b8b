//! The scheduler: sans-I/O, on one thread; events and `now` go in, [`Action`]s come out.
//!
//! 1. [`Scheduler::on_news`] hears what was queued: it goes into the queue's window, or is only counted (`windows`),
//! 2. when the head of a queue is due and its domain is resolved (`routing`), the queue joins the ring of its site (`sites`),
//! 3. the site opens connections or wakes idle ones, as far as `shaping::admit` lets it (`pump`),
//! 4. a connection asks [`Scheduler::next`]: the site's rings give an entry by deficit round robin, and it becomes a job (`jobs`),
//! 5. [`Scheduler::report`] turns the outcomes into the next states, events and notifications: one [`Settle`] (`settle`),
//! 6. the ledger's news says that it is on disk, and its place among the unsettled is free.
//!
//! What ends without an attempt (expired, purged, moved, no route) goes through `disposal`; what an operator asks, through `admin`,
//! `sweep` and `explain`.
//!
//! Costs follow what is due or wakes: each queue, site and domain has one entry in a heap of timers, a queue that waits for a limit
//! stands in the ring of its site, and a site that waits for a limit stands in that limit's line.

mod adapt;
mod admin;
mod campaigns;
mod disposal;
mod explain;
mod holds;
mod jobs;
mod paths;
mod pump;
mod queue;
mod reactions;
mod routing;
mod runs;
mod settle;
mod shared;
mod sites;
mod sweep;
mod timers;
mod windows;

#[cfg(test)]
mod holds_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

pub use self::admin::{AdminRecords, Changes};
use self::campaigns::Campaigns;
use self::disposal::{Disposals, How};
use self::jobs::InFlight;
use self::queue::{Purpose, Queue};
use self::routing::DomainState;
use self::sites::{Conn, PoolDef, Site, SiteId, SourceState};
use self::sweep::{Mark, Sweep};
use self::timers::{TimerKey, Timers};
use super::admin::{CampaignControl, Suspension};
use super::cache::ContentCache;
use super::notice::Notifier;
use super::returns::Returns;
use crate::config::Config;
use crate::delivery::OpenRequest;
use crate::metrics::queue::QueueMetrics;
use crate::seam::random::Seeded;
use crate::store::{Change, EntryKey, News, QueueRow, Settle, StoredMessage, SubmitError};
use crate::types::{Domain, MessageId, Name, QueueId, Timestamp};

/// Sites that are looked at when a message was read, of those that wait for room to read.
const LOAD_LINE_STEP: usize = 4;

/// Something that the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Look a domain up, and answer with [`Scheduler::on_resolved`].
    Resolve(Domain),
    /// Read a page of a queue, and answer with [`Scheduler::on_read`].
    Read {
        /// The number of the question.
        ticket: u64,
        /// The queue.
        queue: QueueId,
        /// Strictly after this.
        after: Option<EntryKey>,
        /// How many at the most.
        limit: usize,
    },
    /// Read a message, and answer with [`Scheduler::on_loaded`].
    Load(MessageId),
    /// Open a connection.
    Open(OpenRequest),
    /// Wake a connection that was told to wait.
    Wake(crate::delivery::ConnectionId),
    /// Hand outcomes to the ledger.
    Settle(Settle),
    /// Make changes durable, and answer with [`Scheduler::on_submitted`].
    Submit {
        /// The number of the question.
        ticket: u64,
        /// The changes.
        changes: Vec<Change>,
    },
}

/// What a scheduler is made of.
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// The time.
    pub now: Timestamp,
    /// Seed of the jitter.
    pub seed: u64,
    /// The queues that the store holds.
    pub rows: Vec<QueueRow>,
    /// Suspensions and marks that the store holds.
    pub records: AdminRecords,
    /// What is set for campaigns.
    pub campaigns: Vec<CampaignControl>,
    /// Messages in memory.
    pub cache: Rc<ContentCache>,
    /// Who writes notifications.
    pub notifier: Rc<dyn Notifier>,
    /// Who makes return paths; without it mail goes out under the reverse-path that it came with.
    pub returns: Option<Rc<Returns>>,
    /// Where it counts.
    pub metrics: QueueMetrics,
}

/// Counts of all queues together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub recipients: u64,
    pub bytes: u64,
    pub in_flight: u32,
    pub unsettled: u32,
    pub window: usize,
    pub window_reserved: usize,
    pub connections: u32,
    /// Turns of inner loops: what the tests measure cost by.
    pub steps: u64,
}

/// An entry that is in an attempt, about to be disposed of, or settled and not yet on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub size: u32,
    pub settled: bool,
    /// A campaign's row at its first attempt.
    pub fresh: bool,
    /// The run of its campaign ended meanwhile.
    pub ended: bool,
}

/// The scheduler.
pub struct Scheduler {
    config: Arc<Config>,
    started: Timestamp,
    now: Timestamp,
    rng: Seeded,
    cache: Rc<ContentCache>,
    notifier: Rc<dyn Notifier>,
    returns: Option<Rc<Returns>>,
    metrics: QueueMetrics,
    actions: VecDeque<Action>,
    timers: Timers,
    totals: Totals,
    draining: bool,
    store_failed: bool,
    next_number: u64,
    // Queues and their windows.
    queues: AHashMap<QueueId, Box<Queue>>,
    taken: AHashMap<EntryKey, Taken>,
    reads: AHashMap<u64, (Purpose, u32)>,
    /// Queues that wait for room to read: transactional ones first, then the others.
    window_lines: [VecDeque<QueueId>; 2],
    shed_line: VecDeque<QueueId>,
    /// Before this the windows have nothing to give.
    shed_again: Timestamp,
    // Domains and sites.
    domains: AHashMap<Domain, DomainState>,
    resolve_line: VecDeque<Domain>,
    resolving: u32,
    failing_domains: VecDeque<Domain>,
    idle_domains: VecDeque<(Timestamp, Domain)>,
    sites: Vec<Option<Box<Site>>>,
    sites_free: Vec<SiteId>,
    site_ids: AHashMap<Arc<str>, SiteId>,
    dirty_sites: VecDeque<SiteId>,
    // Sources towards providers.
    paths: Vec<Option<Box<paths::ProviderPath>>>,
    paths_free: Vec<paths::PathId>,
    path_ids: AHashMap<(usize, Arc<str>), paths::PathId>,
    /// Paths whose connections fell below their limit, perhaps.
    released_paths: Vec<paths::PathId>,
    // Sources, pools and connections.
    sources: Vec<SourceState>,
    pools: AHashMap<Name, Rc<PoolDef>>,
    conns: AHashMap<crate::delivery::ConnectionId, Conn>,
    idle_line: VecDeque<crate::delivery::ConnectionId>,
    node_line: VecDeque<SiteId>,
    /// Sources whose connections fell below their limit, perhaps.
    released_sources: Vec<usize>,
    unsettled_line: VecDeque<SiteId>,
    jobs: AHashMap<u64, InFlight>,
    /// Messages that are being read, with their sizes.
    loads: AHashMap<MessageId, u64>,
    load_bytes: u64,
    /// Sites that want to read more than there is room for.
    load_line: VecDeque<SiteId>,
    /// Who wants a message that is being read: sites to pump.
    load_waiters: AHashMap<MessageId, Vec<SiteId>>,
    // What operators asked.
    suspensions: Vec<Suspension>,
    campaigns: Campaigns,
    shared: shared::SharedLimits,
    marks: Vec<Rc<Mark>>,
    sweeps: AHashMap<u64, Sweep>,
    sweep_line: VecDeque<u64>,
    disposals: Disposals,
    // What was learned.
    adapting: adapt::Adapting,
    submits: AHashMap<u64, admin::Pending>,
}

impl Scheduler {
    /// A scheduler that knows these queues; call [`Scheduler::tick`] to begin.
    pub fn new(start: Start) -> Self {
        let mut scheduler = Self {
            config: start.config.clone(),
            started: start.now,
            now: start.now,
            rng: Seeded::new(start.seed),
            cache: start.cache,
            notifier: start.notifier,
            returns: start.returns,
            metrics: start.metrics,
            actions: VecDeque::new(),
            timers: Timers::default(),
            totals: Totals::default(),
            draining: false,
            store_failed: false,
            next_number: 1,
            queues: AHashMap::new(),
            taken: AHashMap::new(),
            reads: AHashMap::new(),
            window_lines: Default::default(),
            shed_line: VecDeque::new(),
            shed_again: Timestamp::ZERO,
            domains: AHashMap::new(),
            resolve_line: VecDeque::new(),
            resolving: 0,
            failing_domains: VecDeque::new(),
            idle_domains: VecDeque::new(),
            sites: Vec::new(),
            sites_free: Vec::new(),
            site_ids: AHashMap::new(),
            dirty_sites: VecDeque::new(),
            paths: Vec::new(),
            paths_free: Vec::new(),
            path_ids: AHashMap::new(),
            released_paths: Vec::new(),
            sources: Vec::new(),
            pools: AHashMap::new(),
            conns: AHashMap::new(),
            idle_line: VecDeque::new(),
            node_line: VecDeque::new(),
            released_sources: Vec::new(),
            unsettled_line: VecDeque::new(),
            jobs: AHashMap::new(),
            loads: AHashMap::new(),
            load_bytes: 0,
            load_line: VecDeque::new(),
            load_waiters: AHashMap::new(),
            suspensions: Vec::new(),
            campaigns: Campaigns::default(),
            shared: shared::SharedLimits::new(&start.config, start.now),
            marks: Vec::new(),
            sweeps: AHashMap::new(),
            sweep_line: VecDeque::new(),
            disposals: Disposals::default(),
            adapting: adapt::Adapting::new(&start.config),
            submits: AHashMap::new(),
        };
        scheduler.apply_sources(&start.config);
        scheduler.apply_records(start.records);
        for control in start.campaigns {
            scheduler.set_campaign(control, true);
        }
        let mut ahead = VecDeque::new();
        for row in start.rows.into_iter().map(runs::live).filter(|row| row.count > 0) {
            if scheduler.is_ahead(&row) {
                ahead.push_back(row.id);
            }
            scheduler.add_row(row);
        }
        scheduler.begin_marks();
        scheduler.begin_ahead(ahead);
        scheduler.finish();
        scheduler
    }

    /// The next thing to do; call until `None` after each input.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Scheduler::tick`] is to be called next, at the latest.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Timestamp) {
        self.set_now(now);
        while let Some(key) = self.timers.pop(self.now) {
            self.totals.steps += 1;
            match key {
                TimerKey::Queue(id, at) => self.on_queue_timer(id, at),
                TimerKey::Expiry(id, at) => self.on_expiry_timer(id, at),
                TimerKey::Site(id, at) => self.on_site_timer(id, at),
                TimerKey::Path(id, at) => self.on_path_timer(id, at),
                TimerKey::Adapt(id, at) => self.on_adapt_timer(id, at),
                TimerKey::Domain(domain, at) => self.on_domain_timer(&domain, at),
                TimerKey::Suspension(id) => self.on_suspension_end(id),
                TimerKey::Sweep(id) => self.resume_sweep(id),
                TimerKey::CampaignHold(id) => self.on_hold_end(id),
                TimerKey::CampaignRate(id, at) => self.on_rate_timer(id, at),
                TimerKey::Shared(at, time) => self.on_shared_timer(at, time),
                TimerKey::Forget => self.forget_idle_domains(),
            }
        }
        self.finish();
    }

    /// The ledger committed.
    pub fn on_news(&mut self, now: Timestamp, news: Vec<News>) {
        self.set_now(now);
        for item in news {
            match item {
                News::Queued { queue, key, entry, message } => self.on_queued(queue, key, entry, message),
                News::Settled { queue, key } => self.on_settled(queue, key),
                News::Run { campaign, running, queues } => self.on_run(campaign, running, queues),
                News::Dirty { queues } => {
                    for row in queues {
                        self.on_dirty(row);
                    }
                }
            }
        }
        self.finish();
    }

    /// A message was read; `None` when it is not there.
    pub fn on_loaded(&mut self, now: Timestamp, id: MessageId, message: Result<Option<Arc<StoredMessage>>, String>) {
        self.set_now(now);
        let expected = self.loads.remove(&id).unwrap_or(0);
        self.load_bytes = self.load_bytes.saturating_sub(expected);
        match message {
            Ok(Some(message)) => {
                self.disposals.loaded(id, &message);
                self.cache.insert_loaded(message, self.now);
            }
            Ok(None) => {
                tracing::error!(target: "posthaste::queue", message = %id, "a queued message is not in the store");
                self.on_content_unusable(id, &How::Missing);
            }
            Err(error) => {
                tracing::error!(target: "posthaste::queue", message = %id, error, "a message could not be read");
                self.on_content_unusable(id, &How::Unreadable);
            }
        }
        for _ in 0..LOAD_LINE_STEP {
            let Some(site) = self.load_line.pop_front() else { break };
            self.mark_dirty(site);
        }
        for site in self.load_waiters.remove(&id).unwrap_or_default() {
            self.mark_dirty(site);
        }
        self.finish();
    }

    /// Nothing new starts; connections are told to close when they ask or are idle.
    pub fn drain(&mut self, now: Timestamp) {
        self.set_now(now);
        self.draining = true;
        self.keep_all();
        self.close_idle_connections();
        self.finish();
    }

    /// The store failed: nothing can be settled, so nothing starts.
    pub fn on_store_failed(&mut self, now: Timestamp) {
        self.set_now(now);
        self.store_failed = true;
    }

    /// Whether nothing is in an attempt, unsettled, or connected; a connection that is still being opened carries nothing.
    pub fn is_quiet(&self) -> bool {
        self.totals.in_flight == 0 && self.totals.unsettled == 0 && self.conns.values().all(|c| c.opening)
    }

    /// A new configuration: limits, sources, pools and routes change at once; what is open stays open.
    pub fn reconfigure(&mut self, now: Timestamp, config: Arc<Config>) {
        self.set_now(now);
        let old = std::mem::replace(&mut self.config, config.clone());
        self.apply_sources(&config);
        self.apply_limits();
        if old.limits != config.limits {
            self.apply_shared();
        }
        self.apply_rules(&old);
        if routing::leads_elsewhere(&old, &config) {
            self.resolve_anew();
        }
        self.finish();
    }

    /// A submission that an operator's command made ended.
    pub fn on_submitted(&mut self, now: Timestamp, ticket: u64, result: Result<(), SubmitError>) {
        self.set_now(now);
        self.finish_command(ticket, result);
        self.finish();
    }

    /// Turns of inner loops so far: what tests measure cost by.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        self.totals.steps
    }

    /// Queue entries in memory, and those that are being read.
    #[cfg(test)]
    pub(crate) fn window_entries(&self) -> usize {
        self.totals.window + self.totals.window_reserved
    }

    fn set_now(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// What every input ends with: the consequences, until nothing more follows.
    fn finish(&mut self) {
        loop {
            self.drain_failing_domains();
            self.drain_disposals();
            self.drain_sweeps();
            self.drain_window_lines();
            self.drain_resolve_line();
            let Some(site) = self.dirty_sites.pop_front() else {
                if self.release_one() {
                    continue;
                }
                break;
            };
            if let Some(s) = self.site_mut(site) {
                s.dirty = false;
                self.pump(site);
            }
        }
        self.set_gauges();
    }

    /// Wakes one site that waits for a limit with room again. One at a time: it may not want it any more, and then the next one
    /// gets its turn; whoever still has to wait stands at the end of the line again, and then there is no room.
    fn release_one(&mut self) -> bool {
        let site = self.released_site();
        if let Some(site) = site {
            self.totals.steps += 1;
            self.mark_dirty(site);
        }
        site.is_some()
    }

    fn released_site(&mut self) -> Option<SiteId> {
        if !self.node_line.is_empty() && self.totals.connections < self.config.delivery.max_connections.max(1) {
            let site = self.node_line.pop_front()?;
            self.site_mut(site).into_iter().for_each(|s| s.in_node_line = false);
            return Some(site);
        }
        if !self.unsettled_line.is_empty() && self.totals.unsettled < self.config.delivery.max_unsettled.max(1) {
            let site = self.unsettled_line.pop_front()?;
            self.site_mut(site).into_iter().for_each(|s| s.in_unsettled_line = false);
            return Some(site);
        }
        if !self.load_line.is_empty() && self.loads.is_empty() {
            return self.load_line.pop_front();
        }
        if let Some(site) = self.released_by_path() {
            return Some(site);
        }
        while let Some(at) = self.released_sources.last().copied() {
            let source = self.sources.get_mut(at)?;
            let full = source.source.connections.is_some_and(|max| source.connections >= max);
            let Some(site) = (!full).then(|| source.line.pop_front()).flatten() else {
                self.released_sources.pop();
                continue;
            };
            if let Some(path) = self.site_mut(site).and_then(|s| s.paths.iter_mut().find(|p| p.source == at)) {
                path.in_source_line = false;
            }
            return Some(site);
        }
        None
    }

    fn set_gauges(&self) {
        let m = &self.metrics;
        m.queues.set(self.queues.len().cast_signed() as i64);
        m.recipients.set(self.totals.recipients.cast_signed());
        m.bytes.set(self.totals.bytes.cast_signed());
        m.in_flight.set(i64::from(self.totals.in_flight));
        m.unsettled.set(i64::from(self.totals.unsettled));
        m.window_entries.set(self.totals.window.cast_signed() as i64);
        m.sites.set(self.site_ids.len().cast_signed() as i64);
    }
}
