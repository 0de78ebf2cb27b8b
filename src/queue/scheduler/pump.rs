//! The pump of a site: how many connections its ready work deserves, and from which sources.
//!
//! 1. recipients of a failed connection are deferred first (`fail_site`),
//! 2. each pool with ready work wants one connection for eight entries, at least one;
//! 3. the source whose turn it is wakes an idle connection, or opens one, as far as `shaping::admit` lets it;
//! 4. what holds it is noted: a time in the site's timer, a limit in that limit's line.

use std::rc::Rc;
use std::time::Duration;

use super::disposal::{FailContext, How};
use super::paths::ProviderPath;
use super::queue::Status;
use super::routing::FAIL_QUOTA;
use super::sites::{Conn, LANES, SiteFailing, SiteId};
use super::{Action, Scheduler};
use crate::delivery::router::STAGE as RESOLVING;
use crate::delivery::{ConnectionId, Failure, NOT_TRIED, OpenRequest, Peer};
use crate::effects;
use crate::event::Severity;
use crate::shaping::{Ask, Bucket, Host, Limit, PathState, Question, Reason, Route, Verdict, Wake, Window, admit};
use crate::types::{QueueId, Timestamp};

/// Entries that one connection is expected to take soon.
const WORK_PER_CONNECTION: usize = 8;
/// The most connections that one look at a site opens or wakes.
const STARTS_MAX: usize = 32;
/// So many connections may be opened at a time to a host that none is open to.
const OPENING_MIN: usize = 2;
/// After so long without a job taken, a site with work wants one more connection.
const STALL: Duration = Duration::from_secs(1);
/// How long recipients are looked for that a failed connection defers.
const FAIL_FOR: Duration = Duration::from_secs(5);

impl Scheduler {
    /// What `admit` is asked for one source at a site: the only place that makes this question for a decision.
    pub(super) fn question<'a>(&'a self, site: SiteId, source: usize, ask: Ask) -> Question<'a> {
        Question { path: self.path_state(site, source), ..self.node_question(ask) }
    }

    /// The part of the question that is the same for all.
    pub(super) fn node_question(&self, ask: Ask) -> Question<'static> {
        Question {
            now: self.now,
            ask,
            draining: self.draining,
            store_failed: self.store_failed,
            suspended: None,
            campaign: None,
            shared: [None; 3],
            due: Timestamp::ZERO,
            window: Window::Ready,
            route: Route::Known,
            unsettled: self.totals.unsettled,
            unsettled_max: self.config.delivery.max_unsettled.max(1),
            node_connections: self.totals.connections,
            node_connections_max: self.config.delivery.max_connections.max(1),
            path: None,
        }
    }

    pub(super) fn path_state(&self, site: SiteId, source: usize) -> Option<PathState<'_>> {
        let state = self.sources.get(source).filter(|s| !s.retired)?;
        let site = self.site(site)?;
        let path = site.paths.iter().find(|p| p.source == source);
        let shared = path.map_or_else(|| self.path_id(source, &site.group), |p| p.shared);
        Some(PathState {
            provider: shared.and_then(|id| self.path(id)).map(ProviderPath::state),
            source: state.source.name.as_str(),
            limits: &site.limits,
            source_held: self.source_hold(source),
            host: path.map_or(Host::Up, |p| if p.down_until > self.now { Host::Down(p.down_until) } else { Host::Up }),
            site_connections: path.map_or(0, |p| p.open),
            site_connection_rate: path.map_or(Bucket::default(), |p| p.connection_rate),
            site_message_rate: path.map_or(Bucket::default(), |p| p.message_rate),
            source_connections: state.connections,
            source_connections_max: state.source.connections,
            source_message_rate: state.message_rate,
            source_message_rate_max: state.source.message_rate,
        })
    }

    /// Looks at a site anew.
    pub(super) fn pump(&mut self, site: SiteId) {
        self.totals.steps += 1;
        self.fail_site(site);
        let pools = self.site(site).map_or(0, |s| s.pools.len());
        let mut starts = 0;
        for at in 0..pools {
            while starts < STARTS_MAX && self.wants_connection(site, at) {
                self.totals.steps += 1;
                if !self.start_one(site, at) {
                    break;
                }
                starts += 1;
            }
        }
    }

    /// Whether the ready work of a pool deserves one more active connection.
    fn wants_connection(&mut self, id: SiteId, pool: usize) -> bool {
        let now = self.now;
        let Some(site) = self.site(id) else { return false };
        let [urgent, bulk] = site.pools[pool].backlog;
        let work = urgent + bulk;
        if work == 0 || site.failing.is_some() {
            return false;
        }
        let (mut active, mut opening) = (0, 0);
        for path in site.paths.iter().filter(|p| site.pools[pool].share.has(p.source)) {
            active += path.open as usize - path.idle.len().min(path.open as usize);
            opening += path.opening;
        }
        // Somebody waits for transactional mail: it gets twice as many.
        let want = (work + urgent).div_ceil(WORK_PER_CONNECTION);
        // As many are opened at a time as are open already: a host that is dead is not asked by all of them at once.
        let open = site.connections as usize - (opening as usize).min(site.connections as usize);
        let may_open = (opening as usize) < OPENING_MIN.max(open);
        let idle = site.paths.iter().any(|p| !p.idle.is_empty() && site.pools[pool].share.has(p.source));
        if !idle && !may_open {
            return false;
        }
        if active < want {
            return true;
        }
        // All are busy with something long: a message must not wait for another one's slow host.
        let stalled_at = site.last_take.after(STALL);
        if opening > 0 {
            return false;
        }
        if stalled_at <= now {
            if let Some(site) = self.site_mut(id) {
                site.last_take = now;
            }
            return true;
        }
        self.set_site_timer(id, stalled_at);
        false
    }

    /// Wakes or opens one connection for a pool; notes what holds it otherwise.
    fn start_one(&mut self, site: SiteId, pool: usize) -> bool {
        let Some(s) = self.site(site) else { return false };
        let mut waits: Vec<(usize, Verdict)> = Vec::new();
        let chosen = s.pools[pool].share.next(|source| {
            let path = s.paths.iter().find(|p| p.source == source);
            let idle = path.is_some_and(|p| !p.idle.is_empty());
            let verdict = if idle {
                admit(&self.question(site, source, Ask::Send))
            } else if path.is_some_and(|p| p.failures > 0 && p.open > 0) {
                // One connection finds out whether the host is back; its end wakes the site.
                return false;
            } else {
                admit(&self.question(site, source, Ask::Open))
            };
            if verdict != Verdict::Go {
                waits.push((source, verdict));
            }
            verdict == Verdict::Go
        });
        let Some(source) = chosen else {
            for (source, verdict) in waits {
                self.wait_for(site, source, verdict);
            }
            return false;
        };
        // Only now: what is held needs no message in memory.
        self.want_loads(site, pool);
        let idle = self.path_mut(site, source).and_then(|p| p.idle.pop_back());
        match idle {
            Some(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.idle = false;
                }
                self.actions.push_back(Action::Wake(conn));
            }
            None => self.open(site, pool, source),
        }
        true
    }

    /// A site waits for what ends its wait.
    pub(super) fn wait_for(&mut self, site: SiteId, source: usize, verdict: Verdict) {
        let Verdict::Wait { reason, wake } = verdict else { return };
        match wake {
            Wake::At(at) if reason == Reason::Rate(Limit::ProviderConnectionRate) => {
                self.park_for_connection(site, source, Some(at));
            }
            // In the path's line, however many sites wait: one timer wakes as many as may go.
            Wake::At(at) if reason.is_of_path() => self.park_until(site, source, at),
            Wake::Release(Limit::ProviderConnections | Limit::CeilingConnections) => {
                self.park_for_connection(site, source, None);
            }
            Wake::At(at) => self.set_site_timer(site, at),
            Wake::Release(Limit::NodeConnections) => {
                if let Some(s) = self.site_mut(site).filter(|s| !s.in_node_line) {
                    s.in_node_line = true;
                    self.node_line.push_back(site);
                    self.close_one_idle(|_| true);
                }
            }
            Wake::Release(Limit::SourceConnections) => {
                if self.path_mut(site, source).is_some_and(|p| !std::mem::replace(&mut p.in_source_line, true)) {
                    self.sources[source].line.push_back(site);
                    self.close_one_idle(|conn| conn.source == source);
                }
            }
            // Its own connections wake it when they end.
            Wake::Release(_) => {}
            Wake::Event => {
                if reason == Reason::Unsettled {
                    self.wait_for_settles(site);
                }
            }
        }
    }

    pub(super) fn wait_for_settles(&mut self, site: SiteId) {
        if let Some(s) = self.site_mut(site).filter(|s| !s.in_unsettled_line) {
            s.in_unsettled_line = true;
            self.unsettled_line.push_back(site);
        }
    }

    fn open(&mut self, site: SiteId, pool: usize, source: usize) {
        let conn = ConnectionId(self.number());
        let (now, limits) = (self.now, self.site(site).map(|s| s.limits.clone()));
        let rate = limits.and_then(|l| l.connection_rate.as_ref().map(|r| r.rate));
        let Some(path) = self.path_mut(site, source) else { return };
        path.open += 1;
        path.opening += 1;
        if let Some(rate) = rate {
            path.connection_rate.take(rate, now);
        }
        let shared = path.shared;
        shared.and_then(|id| self.provider_path_mut(id)).into_iter().for_each(|path| path.count_open(now));
        let Some(s) = self.site_mut(site) else { return };
        s.connections += 1;
        let (plan, pool) = (s.plan.clone(), s.pools[pool].name.clone());
        self.totals.connections += 1;
        self.metrics.connections_tried.inc();
        let state = &mut self.sources[source];
        state.connections += 1;
        let request =
            OpenRequest { conn, plan: plan.clone(), source: state.source.clone(), ehlo: state.ehlo.clone(), pool };
        let connection = Conn {
            site,
            source,
            opening: true,
            idle: false,
            idle_since: now,
            close: false,
            messages: 0,
            jobs: 0,
            tried: false,
            answered: false,
            mx: Box::default(),
            peer: None,
            provider: plan.provider.clone(),
            metrics: Vec::new(),
        };
        self.conns.insert(conn, connection);
        self.note_probe(source, conn);
        self.actions.push_back(Action::Open(request));
    }

    /// A connection is ready for work.
    pub fn opened(&mut self, now: Timestamp, conn: ConnectionId, peer: &Peer) {
        self.set_now(now);
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let was_opening = std::mem::replace(&mut c.opening, false);
        c.mx = format!("{}[{}]", peer.host, peer.address.ip()).into();
        c.peer = Some(peer.clone());
        let (site, source) = (c.site, c.source);
        self.free_source(source);
        if let Some(path) = self.path_mut(site, source) {
            path.opening -= u32::from(was_opening);
            path.down_until = Timestamp::ZERO;
        }
        self.mark_dirty(site);
        self.finish();
    }

    /// A connection ended.
    pub fn closed(&mut self, now: Timestamp, conn: ConnectionId, failure: Option<Failure>) {
        self.set_now(now);
        let Some(c) = self.conns.remove(&conn) else { return };
        let back_off = {
            let failures = self.path_mut(c.site, c.source).map_or(0, |p| p.failures);
            effects::host_back_off(&self.config.retry, failures + 1)
        };
        let until = self.now.after(back_off);
        let now = self.now;
        let mut news = failure.is_some() && !c.answered && !self.was_kept(&c);
        match failure.as_ref().map(|failure| (failure, failure.source_trouble())) {
            Some((failure, Some(trouble))) => {
                self.hold_source(c.source, conn, trouble, failure);
                news = false;
            }
            // A host that answered or did not was at least asked.
            Some((failure, None)) if c.opening && ![RESOLVING, NOT_TRIED].contains(&failure.stage) => {
                self.free_source(c.source);
            }
            Some((_, None)) | None => {}
        }
        self.totals.connections = self.totals.connections.saturating_sub(1);
        if let Some(source) = self.sources.get_mut(c.source) {
            source.connections = source.connections.saturating_sub(1);
        }
        if let Some(site) = self.site_mut(c.site) {
            site.connections = site.connections.saturating_sub(1);
        }
        if let Some(path) = self.path_mut(c.site, c.source) {
            path.open = path.open.saturating_sub(1);
            path.opening = path.opening.saturating_sub(u32::from(c.opening));
            path.idle.retain(|id| *id != conn);
            // A connection that broke before any answer says as little good of a host as one that never opened; an idle
            // one that the peer ends says nothing.
            // Several that fail at a time are one failure.
            news &= path.down_until <= now;
            if news {
                path.failures += 1;
                path.down_until = until;
            }
        }
        if let Some(failure) = failure.filter(|_| news) {
            self.metrics.connections_failed.with_label_values(&[&c.provider]).inc();
            let failure = self.learn_of_connection(c.site, c.source, &c.provider, failure);
            self.on_failed_open(&c, failure);
        }
        self.count_closed(c.site, c.source);
        if self.sources.get(c.source).is_some_and(|s| !s.line.is_empty()) {
            self.released_sources.push(c.source);
        }
        self.mark_dirty(c.site);
        self.forget_site(c.site);
        self.finish();
    }

    /// Whether a connection stood idle for want of work, so that its end says nothing of the host. One that never had a job although
    /// there is work (the message is being read) and is left at once does say something.
    fn was_kept(&self, conn: &Conn) -> bool {
        let has_work = || self.site(conn.site).is_some_and(|s| s.pools.iter().any(|p| p.work() > 0));
        conn.idle && !(conn.messages == 0 && conn.idle_since.after(STALL) > self.now && has_work())
    }

    /// Every host failed, or the session broke before any mail was looked at: some of those who wait are deferred with it, the rest waits for the host.
    fn on_failed_open(&mut self, conn: &Conn, failure: Failure) {
        if conn.tried {
            return; // Its jobs were reported with what happened to them.
        }
        // What fails for good fails for all, as fast as they can be settled; else a few are told, and the rest waits.
        let (left, until) = match failure.severity {
            Severity::Permanent => (usize::MAX, Timestamp::NEVER),
            Severity::Temporary => (FAIL_QUOTA, self.now.after(FAIL_FOR)),
        };
        let source = self.sources.get(conn.source).map(|s| s.source.clone());
        let context = Rc::new(FailContext { failure, provider: conn.provider.clone(), source });
        if let Some(site) = self.site_mut(conn.site) {
            site.failing = Some(SiteFailing { context, source: conn.source, left, until });
        }
    }

    /// Defers the first recipients in line with the failure of a connection, unless another source may still try.
    fn fail_site(&mut self, id: SiteId) {
        let Some(failing) = self.site_mut(id).and_then(|s| s.failing.take()) else { return };
        if failing.until <= self.now {
            return;
        }
        let mut left = failing.left;
        let pools = self.site(id).map_or(0, |s| s.pools.len());
        'pools: for at in 0..pools {
            if !self.all_down(id, at, failing.source) {
                continue;
            }
            for lane in 0..LANES.len() {
                let queues = self.site(id).map_or(0, |s| s.pools[at].rings[lane].len());
                // Each queue in its turn, one entry at a time.
                for _ in 0..queues.saturating_mul(FAIL_QUOTA).min(4 * FAIL_QUOTA) {
                    if left == 0 || !self.has_disposal_room() {
                        break 'pools;
                    }
                    let Some(queue) = self.rotate(id, at, lane) else { break };
                    left -= usize::from(self.fail_head(queue, &failing.context));
                }
            }
        }
        let for_good = failing.until == Timestamp::NEVER && left < failing.left;
        if left > 0 && (for_good || !self.has_disposal_room()) {
            if let Some(site) = self.site_mut(id) {
                site.failing = Some(SiteFailing { left, ..failing });
            }
            self.set_site_timer(id, self.now.after(Duration::from_millis(50)));
        }
    }

    fn rotate(&mut self, site: SiteId, pool: usize, lane: usize) -> Option<QueueId> {
        self.totals.steps += 1;
        let ring = &mut self.site_mut(site)?.pools.get_mut(pool)?.rings[lane];
        let queue = ring.pop_front()?;
        ring.push_back(queue);
        Some(queue)
    }

    fn fail_head(&mut self, id: QueueId, context: &Rc<FailContext>) -> bool {
        let now = self.now;
        let head = self.queues.get(&id).and_then(|q| q.window.first_key_value()).map(|(key, _)| *key);
        let Some(key) = head.filter(|key| key.due <= now) else {
            self.advance(id);
            return false;
        };
        let Some(entry) = self.window_remove(id, &key) else { return false };
        self.dispose(id, entry, How::Fail(context.clone()));
        if self.queues.get(&id).is_some_and(|q| q.window.is_empty() && q.status == Status::Ready) {
            self.advance(id);
        }
        true
    }

    /// Whether no source of a pool can be tried at a site now, and `source` is one of it.
    fn all_down(&self, id: SiteId, pool: usize, source: usize) -> bool {
        let Some(site) = self.site(id) else { return false };
        let share = &site.pools[pool].share;
        let is_down = |s: usize| site.paths.iter().any(|p| p.source == s && p.down_until > self.now);
        share.has(source) && share.sources().all(is_down)
    }
}
