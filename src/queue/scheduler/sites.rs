//! Sites: rings of ready queues, and the paths (one a source) with their connections and counters.
//!
//! A domain with a shaping rule of its own is a site of its own, so that its limits hold for it and nobody else.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::disposal::FailContext;
use super::holds::Hold;
use super::paths::{PathId, group_of, is_grouped};
use super::queue::Status;
use super::timers::TimerKey;
use super::{Action, Scheduler};
use crate::config::{Config, Pool, PoolSource, Source};
use crate::delivery::{ConnectionId, Peer, Plan};
use crate::metrics::queue::PathMetrics;
use crate::shaping::{Bucket, Limits, Share, limits_for};
use crate::types::{Class, Domain, Name, QueueId, Timestamp};

/// The place of a site in the table.
pub(super) type SiteId = usize;

/// The two lanes of a site.
pub(super) const LANES: [Class; 2] = [Class::Transactional, Class::Marketing];

pub(super) fn lane_of(class: Class) -> usize {
    match class {
        Class::Transactional => 0,
        Class::Marketing => 1,
    }
}

/// A place where mail goes.
#[derive(Debug)]
pub(super) struct Site {
    pub key: Arc<str>,
    pub plan: Arc<Plan>,
    /// The domain whose shaping rule made it a site of its own.
    pub domain: Domain,
    /// Whose limits it shares: the name of its provider, or its own key.
    pub group: Arc<str>,
    pub limits: Rc<Limits>,
    pub pools: Vec<SitePool>,
    pub paths: Vec<Path>,
    /// Domains that point here.
    pub holders: u32,
    pub connections: u32,
    /// Transactional jobs since the last one of the other lane.
    pub passed: u32,
    /// Where each lane goes on among the pools, and how long it stays.
    pub lane_at: [usize; 2],
    pub lane_turn: [usize; 2],
    pub dirty: bool,
    pub timer: Timestamp,
    pub last_take: Timestamp,
    pub failing: Option<SiteFailing>,
    pub in_node_line: bool,
    pub in_unsettled_line: bool,
}

/// A failed connection whose recipients are being deferred.
#[derive(Debug)]
pub(super) struct SiteFailing {
    pub context: Rc<FailContext>,
    pub source: usize,
    pub left: usize,
    /// After this the rest just waits.
    pub until: Timestamp,
}

/// The ready queues of one pool at a site.
#[derive(Debug)]
pub(super) struct SitePool {
    pub name: Name,
    pub share: Share,
    pub rings: [VecDeque<QueueId>; 2],
    /// Entries in the windows of these queues.
    pub backlog: [usize; 2],
}

impl SitePool {
    pub(super) fn work(&self) -> usize {
        self.backlog[0] + self.backlog[1]
    }
}

/// One source towards one site.
#[derive(Debug)]
pub(super) struct Path {
    pub source: usize,
    /// Connections, those being opened included.
    pub open: u32,
    pub opening: u32,
    pub idle: VecDeque<ConnectionId>,
    pub connection_rate: Bucket,
    pub message_rate: Bucket,
    pub failures: u32,
    pub down_until: Timestamp,
    pub in_source_line: bool,
    /// The path of the source towards the site's group.
    pub shared: Option<PathId>,
    pub in_connection_line: bool,
    pub in_time_line: bool,
}

/// A connection.
pub(super) struct Conn {
    pub site: SiteId,
    pub source: usize,
    pub opening: bool,
    pub idle: bool,
    pub idle_since: Timestamp,
    pub close: bool,
    pub messages: u32,
    pub jobs: u32,
    /// Whether a recipient's attempt was reported on it.
    pub tried: bool,
    /// Whether the peer ever took or refused something on it.
    pub answered: bool,
    pub mx: Box<str>,
    pub peer: Option<Peer>,
    pub provider: Arc<str>,
    pub metrics: Vec<(Name, Class, Rc<PathMetrics>)>,
}

/// A source and its counters.
#[derive(Debug)]
pub(super) struct SourceState {
    pub source: Arc<Source>,
    pub ehlo: Arc<str>,
    pub connections: u32,
    pub message_rate: Bucket,
    pub line: VecDeque<SiteId>,
    /// What this host lacks for it.
    pub hold: Option<Hold>,
    /// Taken out of the config: its connections close when they ask.
    pub retired: bool,
}

/// A pool: its sources and weights.
#[derive(Debug)]
pub(super) struct PoolDef {
    pub members: Vec<(usize, u32)>,
}

/// How long a connection that waits for a token keeps its place against others that need one.
const IDLE_WITH_WORK: Duration = Duration::from_secs(1);

/// A source or pool that stands in for an empty config.
const DEFAULT_NAME: &str = "default";

impl Scheduler {
    /// Takes over sources and pools; counters of sources that stay are kept.
    pub(super) fn apply_sources(&mut self, config: &Config) {
        let default_name = Name::parse(DEFAULT_NAME).expect("a valid literal");
        let default_source =
            Source { name: default_name.clone(), address: None, ehlo: None, connections: None, message_rate: None };
        let sources =
            if config.sources.is_empty() { std::slice::from_ref(&default_source) } else { &config.sources[..] };
        for old in &mut self.sources {
            old.retired = !sources.iter().any(|s| s.name == old.source.name);
        }
        for source in sources {
            let ehlo: Arc<str> = source.ehlo.as_deref().unwrap_or(&config.hostname).into();
            match self.sources.iter_mut().find(|s| s.source.name == source.name) {
                Some(state) => {
                    if state.source.message_rate != source.message_rate {
                        state.message_rate = Bucket::default();
                    }
                    if state.source.address != source.address {
                        state.hold = None;
                    }
                    state.source = Arc::new(source.clone());
                    state.ehlo = ehlo;
                }
                None => self.sources.push(SourceState {
                    source: Arc::new(source.clone()),
                    ehlo,
                    connections: 0,
                    message_rate: Bucket::default(),
                    line: VecDeque::new(),
                    hold: None,
                    retired: false,
                }),
            }
        }
        let default_pool = Pool {
            name: default_name,
            sources: sources.iter().map(|s| PoolSource { name: s.name.clone(), weight: 1 }).collect(),
        };
        let pools = if config.pools.is_empty() { std::slice::from_ref(&default_pool) } else { &config.pools[..] };
        self.pools.clear();
        for pool in pools {
            let index = |name: &Name| self.sources.iter().position(|s| s.source.name == *name && !s.retired);
            let members = pool.sources.iter().filter_map(|s| Some((index(&s.name)?, s.weight))).collect();
            self.pools.insert(pool.name.clone(), Rc::new(PoolDef { members }));
        }
    }

    /// Works out the limits of all sites anew, after a reload.
    pub(super) fn apply_limits(&mut self) {
        self.apply_provider_limits();
        for id in 0..self.sites.len() {
            let Some(site) = self.sites[id].as_deref_mut() else { continue };
            let limits = site_limits(&self.config, &site.domain, &site.plan);
            if limits.connection_rate != site.limits.connection_rate {
                site.paths.iter_mut().for_each(|p| p.connection_rate = Bucket::default());
            }
            if limits.message_rate != site.limits.message_rate {
                site.paths.iter_mut().for_each(|p| p.message_rate = Bucket::default());
            }
            site.limits = Rc::new(limits);
            for pool in &mut site.pools {
                pool.share = share_of(self.pools.get(&pool.name));
            }
            self.mark_dirty(id);
        }
    }

    pub(super) fn site_mut(&mut self, id: SiteId) -> Option<&mut Site> {
        self.sites.get_mut(id)?.as_deref_mut()
    }

    pub(super) fn site(&self, id: SiteId) -> Option<&Site> {
        self.sites.get(id)?.as_deref()
    }

    /// The site of a plan for mail to `domain`; made when it is new.
    pub(super) fn site_for(&mut self, domain: &Domain, plan: &Arc<Plan>) -> SiteId {
        let own_rule = plan.route.is_none() && self.config.shaping.domains.contains_key(domain);
        let key: Arc<str> = if own_rule { format!("{}|{domain}", plan.site).into() } else { plan.site.clone() };
        if let Some(id) = self.site_ids.get(&key) {
            return *id;
        }
        let site = Box::new(Site {
            key: key.clone(),
            plan: plan.clone(),
            domain: domain.clone(),
            group: group_of(plan, &key),
            limits: Rc::new(site_limits(&self.config, domain, plan)),
            pools: Vec::new(),
            paths: Vec::new(),
            holders: 0,
            connections: 0,
            passed: 0,
            lane_at: [0; 2],
            lane_turn: [0; 2],
            dirty: false,
            timer: Timestamp::NEVER,
            last_take: self.now,
            failing: None,
            in_node_line: false,
            in_unsettled_line: false,
        });
        let id = match self.sites_free.pop() {
            Some(id) => {
                self.sites[id] = Some(site);
                id
            }
            None => {
                self.sites.push(Some(site));
                self.sites.len() - 1
            }
        };
        self.site_ids.insert(key, id);
        id
    }

    /// One more domain points to a site; its plan is the newest.
    pub(super) fn hold_site(&mut self, id: SiteId, plan: &Arc<Plan>) {
        if let Some(site) = self.site_mut(id) {
            site.holders += 1;
            site.plan = plan.clone();
        }
    }

    /// One domain less points to a site.
    pub(super) fn release_site(&mut self, id: SiteId) {
        if let Some(site) = self.site_mut(id) {
            site.holders = site.holders.saturating_sub(1);
        }
        self.forget_site(id);
    }

    /// Removes a site that nothing refers to.
    pub(super) fn forget_site(&mut self, id: SiteId) {
        if self.site(id).is_some_and(|s| s.holders == 0 && s.connections == 0)
            && let Some(site) = self.sites[id].take()
        {
            // Lines and timers may still name it: they find nothing, or a new site, which they only wake.
            self.site_ids.remove(&site.key);
            site.paths.iter().filter_map(|p| p.shared).for_each(|shared| self.release_path(shared));
            self.sites_free.push(id);
        }
    }

    /// Something changed at a site: it is looked at before this input ends.
    pub(super) fn mark_dirty(&mut self, id: SiteId) {
        if let Some(site) = self.site_mut(id)
            && !site.dirty
        {
            site.dirty = true;
            self.dirty_sites.push_back(id);
        }
    }

    pub(super) fn set_site_timer(&mut self, id: SiteId, at: Timestamp) {
        let at = at.max(self.now.after(Duration::from_millis(1)));
        let Some(site) = self.site_mut(id) else { return };
        if at < site.timer {
            site.timer = at;
            self.timers.set(at, TimerKey::Site(id, at));
        }
    }

    pub(super) fn on_site_timer(&mut self, id: SiteId, at: Timestamp) {
        if let Some(site) = self.site_mut(id)
            && site.timer == at
        {
            site.timer = Timestamp::NEVER;
            self.mark_dirty(id);
        }
    }

    /// The pool's place at a site; made when it is new.
    fn site_pool(&mut self, id: SiteId, pool: &Name) -> Option<usize> {
        let share = self.pools.get(pool);
        let site = self.sites.get_mut(id)?.as_deref_mut()?;
        if let Some(at) = site.pools.iter().position(|p| p.name == *pool) {
            return Some(at);
        }
        let pool = SitePool { name: pool.clone(), share: share_of(share), rings: Default::default(), backlog: [0; 2] };
        site.pools.push(pool);
        Some(site.pools.len() - 1)
    }

    /// Puts a queue whose head is due at the end of its ring.
    pub(super) fn join_ring(&mut self, id: QueueId, site: SiteId) {
        let Some(queue) = self.queues.get(&id) else { return };
        if queue.status == Status::Ready && queue.site == Some(site) {
            return self.mark_dirty(site);
        }
        self.set_status(id, Status::Idle);
        let Some(queue) = self.queues.get(&id) else { return };
        let (pool, lane, entries) = (queue.key.pool.clone(), lane_of(queue.key.class), queue.work());
        let Some(at) = self.site_pool(site, &pool) else { return };
        if let Some(s) = self.site_mut(site) {
            s.pools[at].rings[lane].push_back(id);
            s.pools[at].backlog[lane] += entries;
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.site = Some(site);
            queue.status = Status::Ready;
            queue.deficit = queue.deficit.min(0);
        }
        self.mark_dirty(site);
    }

    pub(super) fn leave_ring(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        let (Some(site), lane, entries) = (queue.site, lane_of(queue.key.class), queue.work()) else { return };
        let pool = queue.key.pool.clone();
        let Some(s) = self.site_mut(site) else { return };
        let Some(pool) = s.pools.iter_mut().find(|p| p.name == pool) else { return };
        pool.backlog[lane] = pool.backlog[lane].saturating_sub(entries);
        // It is the first one when it runs empty, which is how queues mostly leave.
        if let Some(at) = pool.rings[lane].iter().position(|q| *q == id) {
            pool.rings[lane].remove(at);
        }
    }

    pub(super) fn count_backlog(&mut self, site: SiteId, pool: &Name, class: Class, by: isize) {
        let Some(site) = self.site_mut(site) else { return };
        if let Some(pool) = site.pools.iter_mut().find(|p| p.name == *pool) {
            let backlog = &mut pool.backlog[lane_of(class)];
            *backlog = backlog.saturating_add_signed(by);
        }
    }

    /// The path of a source at a site; made when it is new.
    pub(super) fn path_mut(&mut self, id: SiteId, source: usize) -> Option<&mut Path> {
        let at = match self.site(id)?.paths.iter().position(|p| p.source == source) {
            Some(at) => at,
            None => {
                let shared = self.shared_path(id, source);
                let site = self.site_mut(id)?;
                site.paths.push(Path {
                    source,
                    open: 0,
                    opening: 0,
                    idle: VecDeque::new(),
                    connection_rate: Bucket::default(),
                    message_rate: Bucket::default(),
                    failures: 0,
                    down_until: Timestamp::ZERO,
                    in_source_line: false,
                    shared,
                    in_connection_line: false,
                    in_time_line: false,
                });
                site.paths.len() - 1
            }
        };
        self.site_mut(id)?.paths.get_mut(at)
    }

    /// Whether all that could send for a site is down or held for longer than `for_long`.
    pub(super) fn is_held_long(&self, id: SiteId, for_long: Duration) -> bool {
        let Some(site) = self.site(id) else { return true };
        let until = self.now.after(for_long);
        !site.paths.is_empty() && site.paths.iter().all(|p| p.down_until.max(self.source_held_until(p.source)) > until)
    }

    /// When the first of a site's sources may be tried again.
    pub(super) fn up_at(&self, id: SiteId) -> Timestamp {
        let up = |p: &Path| p.down_until.max(self.source_held_until(p.source));
        let first = self.site(id).and_then(|s| s.paths.iter().map(up).min());
        first.unwrap_or(self.now).max(self.now.after(Duration::from_millis(1)))
    }

    /// Idle connections are told to close: they ask, and hear it.
    pub(super) fn close_idle_connections(&mut self) {
        while self.close_one_idle(|_| true) {}
    }

    /// Closes the idle connection to a path's group that is idle for longest.
    pub(super) fn close_one_idle_of_path(&mut self, path: Option<PathId>) {
        let Some((source, group)) = path.and_then(|id| self.path(id)).map(|p| (p.source, p.group.clone())) else {
            return;
        };
        let sites: ahash::AHashSet<SiteId> = self
            .idle_line
            .iter()
            .filter_map(|id| self.conns.get(id))
            .map(|conn| conn.site)
            .filter(|site| self.site(*site).is_some_and(|s| s.group == group))
            .collect();
        if !sites.is_empty() {
            self.close_one_idle(|conn| conn.source == source && sites.contains(&conn.site));
        }
    }

    /// Closes the connection that is idle for longest, of those that `wanted` takes: somebody else needs its place.
    pub(super) fn close_one_idle(&mut self, wanted: impl Fn(&Conn) -> bool) -> bool {
        for _ in 0..self.idle_line.len() {
            let Some(id) = self.idle_line.pop_front() else { return false };
            self.totals.steps += 1;
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if !conn.idle || conn.close || conn.jobs > 0 {
                continue;
            }
            // One that waits for a token has work; it gives way only when it waits for long.
            let (site, recent) = (conn.site, conn.idle_since.after(IDLE_WITH_WORK) > self.now);
            let has_work =
                self.sites.get(site).and_then(|s| s.as_deref()).is_some_and(|s| s.pools.iter().any(|p| p.work() > 0));
            let kept = !self.draining && has_work && recent;
            if kept || !wanted(conn) {
                self.idle_line.push_back(id);
                continue;
            }
            conn.close = true;
            conn.idle = false;
            let (site, source) = (conn.site, conn.source);
            if let Some(path) = self.path_mut(site, source) {
                path.idle.retain(|c| *c != id);
            }
            self.actions.push_back(Action::Wake(id));
            return true;
        }
        false
    }
}

fn site_limits(config: &Config, domain: &Domain, plan: &Plan) -> Limits {
    let host = plan.hosts.first().map_or("", |h| &*h.name);
    let provider = is_grouped(plan).then_some(&*plan.provider);
    limits_for(config, plan.route.as_deref(), provider, host, domain)
}

fn share_of(pool: Option<&Rc<PoolDef>>) -> Share {
    Share::new(pool.iter().flat_map(|p| p.members.iter().copied()))
}
