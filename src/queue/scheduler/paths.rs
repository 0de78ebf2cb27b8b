//! Paths: one source towards one provider, over all of its sites; where no provider matches, towards one site.
//!
//! 1. A site's path of a source finds its shared one when it is made ([`Scheduler::shared_path`]),
//! 2. connections and messages are counted there, and `admit` is asked with its limits and its [`Control`],
//! 3. a site that has to wait for it parks in one of its two lines: for a connection, or for its turn to send. The release of a
//!    connection wakes one site; the timer wakes as many as there are tokens. So it costs nothing how many wait.
//!
//! What adapts or warms up sets the [`Control`] of a path by [`Scheduler::set_control`].

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Scheduler;
use super::adapt::{Adaptive, Lately, is_of_provider};
use super::sites::SiteId;
use super::timers::TimerKey;
use crate::config::{Config, OTHER};
use crate::delivery::Plan;
use crate::shaping::{Bucket, Control, Paced, ProviderLimits, ProviderState, provider_limits};
use crate::types::Timestamp;

/// The place of a path in the table.
pub(super) type PathId = usize;

/// The most sites that one look at a line wakes.
const WAKE_MAX: usize = 64;
/// When a line is looked at again whose woken sites may have had nothing to send.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One source towards one provider, or towards one site that belongs to none.
#[derive(Debug)]
pub(super) struct ProviderPath {
    pub source: usize,
    /// The provider's name, or the key of the site.
    pub group: Arc<str>,
    /// The label of metrics: `other` for a site that belongs to none.
    pub provider: Arc<str>,
    pub limits: Rc<ProviderLimits>,
    pub connections: u32,
    pub connection_rate: Bucket,
    pub messages: Vec<Paced>,
    pub control: Control,
    pub ceiling: Paced,
    /// What it learns.
    pub adaptive: Option<Box<Adaptive>>,
    /// What rules allow in one connection.
    pub messages_per_connection: Option<u32>,
    lately: Lately,
    /// Sites of which a path is here.
    pub holders: u32,
    connection_line: VecDeque<SiteId>,
    time_line: VecDeque<SiteId>,
    timer: Timestamp,
}

impl ProviderPath {
    /// What `admit` is asked with.
    pub(super) fn state(&self) -> ProviderState<'_> {
        ProviderState {
            name: &self.provider,
            limits: &self.limits,
            connections: self.connections,
            connection_rate: self.connection_rate,
            messages: &self.messages,
            control: &self.control,
            ceiling: self.ceiling.pace(),
        }
    }

    /// Whether it is that of a provider, over all of its sites.
    pub(super) fn is_of_provider(&self) -> bool {
        is_of_provider(&self.group, &self.provider)
    }

    /// Messages of the last minute, about.
    pub(super) fn taken_lately(&self, now: Timestamp) -> u32 {
        self.lately.taken(now)
    }

    pub(super) fn count_message(&mut self, now: Timestamp) {
        self.lately.count(now);
        for (limit, pace) in self.limits.message_rates.iter().zip(&mut self.messages) {
            pace.take(limit.rate, now);
        }
        if let Some(rate) = self.control.ceiling_rate {
            self.ceiling.take(rate, now);
        }
    }

    pub(super) fn count_open(&mut self, now: Timestamp) {
        self.connections += 1;
        if let Some(limit) = &self.limits.connection_rate {
            self.connection_rate.take(limit.rate, now);
        }
    }

    pub(super) fn has_connection_line(&self) -> bool {
        !self.connection_line.is_empty()
    }

    /// When the next connection may be opened, as far as its rate says.
    fn open_at(&self, now: Timestamp) -> Timestamp {
        self.limits.connection_rate.as_ref().map_or(now, |l| self.connection_rate.ready_at(l.rate, now))
    }

    /// When the next message may go; `now` means at once.
    fn send_at(&self, now: Timestamp) -> Timestamp {
        let rates = self.limits.message_rates.iter().zip(&self.messages).map(|(l, pace)| pace.ready_at(l.rate, now));
        let ceiling = self.control.ceiling_rate.map(|rate| self.ceiling.ready_at(rate, now));
        let held = self.control.held.as_ref().map(|(until, _)| *until);
        let budget = self.control.warmup.filter(|b| b.left == 0).map(|b| b.until);
        rates.chain(ceiling).chain(held).chain(budget).fold(now, Timestamp::max)
    }

    fn is_full(&self) -> bool {
        let max = self.limits.connections.as_ref().map(|c| c.max);
        [max, self.control.ceiling_connections].into_iter().flatten().any(|max| self.connections >= max)
    }

    /// How many messages may go now.
    fn ready(&self, now: Timestamp) -> usize {
        let paces = self.limits.message_rates.iter().zip(&self.messages).map(|(l, pace)| pace.may(l.rate, now));
        let ceiling = self.control.ceiling_rate.map(|rate| self.ceiling.may(rate, now));
        paces.chain(ceiling).min().unwrap_or(usize::MAX)
    }

    fn apply_limits(&mut self, config: &Config, now: Timestamp) {
        let limits = provider_limits(config, &self.group);
        if limits.connection_rate.as_ref().map(|l| l.rate) != self.limits.connection_rate.as_ref().map(|l| l.rate) {
            self.connection_rate = Bucket::default();
        }
        // A rate that stays keeps what is used of it; of a new one all counts as used, so that no change gives anything away.
        let old = |rate| self.limits.message_rates.iter().zip(&self.messages).find(|(l, _)| l.rate == rate);
        self.messages = limits
            .message_rates
            .iter()
            .map(|l| old(l.rate).map_or_else(|| Paced::used(l.rate, now), |(_, pace)| pace.clone()))
            .collect();
        self.limits = Rc::new(limits);
    }
}

/// What shares limits with a plan's site: its provider, or nothing but itself. Explicit routes have limits of their own.
pub(super) fn group_of(plan: &Plan, site: &Arc<str>) -> Arc<str> {
    if is_grouped(plan) { plan.provider.clone() } else { site.clone() }
}

/// Whether the limits of a plan's site belong to its provider.
pub(super) fn is_grouped(plan: &Plan) -> bool {
    plan.route.is_none() && &*plan.provider != OTHER
}

impl Scheduler {
    /// The path of a source towards a site's group; made when it is new. `None` when there is no such site.
    pub(super) fn shared_path(&mut self, site: SiteId, source: usize) -> Option<PathId> {
        let s = self.site(site)?;
        let (group, provider) = (s.group.clone(), s.plan.provider.clone());
        let key = (source, group.clone());
        if let Some(id) = self.path_ids.get(&key).copied() {
            self.paths.get_mut(id).and_then(Option::as_mut).into_iter().for_each(|p| p.holders += 1);
            return Some(id);
        }
        let limits = Rc::new(provider_limits(&self.config, &group));
        // What the process before this one sent counts as much as it can: a restart gives nothing away.
        let messages = limits.message_rates.iter().map(|l| Paced::used(l.rate, self.started));
        let path = Box::new(ProviderPath {
            source,
            group,
            provider,
            messages: messages.collect(),
            limits,
            connections: 0,
            connection_rate: Bucket::default(),
            control: Control::default(),
            ceiling: Paced::default(),
            adaptive: None,
            messages_per_connection: None,
            lately: Lately::default(),
            holders: 1,
            connection_line: VecDeque::new(),
            time_line: VecDeque::new(),
            timer: Timestamp::NEVER,
        });
        let id = match self.paths_free.pop() {
            Some(id) => {
                self.paths[id] = Some(path);
                id
            }
            None => {
                self.paths.push(Some(path));
                self.paths.len() - 1
            }
        };
        self.path_ids.insert(key, id);
        self.begin_adapting(id);
        Some(id)
    }

    /// A site's path is gone. That of a provider stays, with what was learned; that of a site goes with it.
    pub(super) fn release_path(&mut self, id: PathId) {
        let Some(path) = self.paths.get_mut(id).and_then(Option::as_mut) else { return };
        path.holders = path.holders.saturating_sub(1);
        self.forget_path(id);
    }

    /// Removes the path of a site that is gone, where nothing is known of it.
    pub(super) fn forget_path(&mut self, id: PathId) {
        let Some(path) = self.path(id) else { return };
        if path.holders == 0
            && &*path.provider == OTHER
            && path.control == Control::default()
            && path.adaptive.is_none()
        {
            let key = (path.source, path.group.clone());
            self.path_ids.remove(&key);
            self.paths[id] = None;
            self.paths_free.push(id);
        }
    }

    pub(super) fn path(&self, id: PathId) -> Option<&ProviderPath> {
        self.paths.get(id)?.as_deref()
    }

    pub(super) fn provider_path_mut(&mut self, id: PathId) -> Option<&mut ProviderPath> {
        self.paths.get_mut(id)?.as_deref_mut()
    }

    /// The path of a source towards a group (the name of a provider, or the key of a site), as far as something went there.
    pub(super) fn path_id(&self, source: usize, group: &Arc<str>) -> Option<PathId> {
        self.path_ids.get(&(source, group.clone())).copied()
    }

    /// Sets what was learned or planned for a path; whoever waits for it is looked at anew.
    pub(super) fn set_control(&mut self, id: PathId, control: Control) {
        let now = self.now;
        let Some(path) = self.provider_path_mut(id) else { return };
        if path.control.ceiling_rate != control.ceiling_rate
            && let Some(rate) = control.ceiling_rate
        {
            path.ceiling = Paced::used(rate, now);
        }
        path.control = control;
        self.released_paths.push(id);
        self.wake_time_line(id);
    }

    /// A site waits in a path's line for a connection: for the release of one, or for the time at which one may be opened.
    pub(super) fn park_for_connection(&mut self, site: SiteId, source: usize, at: Option<Timestamp>) {
        let Some(path) = self.path_mut(site, source) else { return };
        let (shared, waits) = (path.shared, std::mem::replace(&mut path.in_connection_line, true));
        let Some((id, path)) = shared.and_then(|id| Some((id, self.provider_path_mut(id)?))) else { return };
        if !waits {
            path.connection_line.push_back(site);
        }
        match at {
            Some(at) => self.set_path_timer(id, at),
            None if !waits => self.close_one_idle_of_path(shared),
            None => {}
        }
    }

    /// A site waits in a path's line for a time.
    pub(super) fn park_until(&mut self, site: SiteId, source: usize, at: Timestamp) {
        let Some(path) = self.path_mut(site, source) else { return };
        let (shared, waits) = (path.shared, std::mem::replace(&mut path.in_time_line, true));
        let Some((id, path)) = shared.and_then(|id| Some((id, self.provider_path_mut(id)?))) else { return };
        if !waits {
            path.time_line.push_back(site);
        }
        self.set_path_timer(id, at);
    }

    pub(super) fn on_path_timer(&mut self, id: PathId, at: Timestamp) {
        if let Some(path) = self.provider_path_mut(id)
            && path.timer == at
        {
            path.timer = Timestamp::NEVER;
            self.released_paths.push(id);
            self.wake_time_line(id);
        }
    }

    /// Wakes as many sites as messages may go now; the timer is set for the rest.
    fn wake_time_line(&mut self, id: PathId) {
        let now = self.now;
        let Some(path) = self.provider_path_mut(id) else { return };
        let (source, at) = (path.source, path.send_at(now));
        let n = if at > now { 0 } else { path.ready(now).clamp(1, WAKE_MAX).min(path.time_line.len()) };
        let woken: Vec<SiteId> = path.time_line.drain(..n).collect();
        if !path.time_line.is_empty() {
            // Those that were woken take their tokens a little later, or have nothing to send any more.
            self.set_path_timer(id, at.max(now.after(LOOK_AGAIN)));
        }
        for site in woken {
            self.totals.steps += 1;
            if let Some(path) = self.site_mut(site).and_then(|s| s.paths.iter_mut().find(|p| p.source == source)) {
                path.in_time_line = false;
            }
            self.mark_dirty(site);
        }
    }

    fn set_path_timer(&mut self, id: PathId, at: Timestamp) {
        let at = at.max(self.now.after(Duration::from_millis(1)));
        let Some(path) = self.provider_path_mut(id).filter(|p| at < p.timer) else { return };
        path.timer = at;
        self.timers.set(at, TimerKey::Path(id, at));
    }

    /// A connection of a path ended.
    pub(super) fn count_closed(&mut self, site: SiteId, source: usize) {
        let Some(id) = self.path_mut(site, source).and_then(|p| p.shared) else { return };
        let Some(path) = self.provider_path_mut(id) else { return };
        path.connections = path.connections.saturating_sub(1);
        if path.has_connection_line() {
            self.released_paths.push(id);
        }
    }

    /// The next site that waits for a connection of a path that has room again.
    pub(super) fn released_by_path(&mut self) -> Option<SiteId> {
        let now = self.now;
        while let Some(id) = self.released_paths.last().copied() {
            let waits = self.path(id).filter(|p| p.has_connection_line() && !p.is_full()).map(|p| p.open_at(now));
            if let Some(at) = waits.filter(|at| *at > now) {
                self.set_path_timer(id, at);
                self.released_paths.pop();
                continue;
            }
            let next = self.provider_path_mut(id).and_then(|path| {
                let site = if path.is_full() { None } else { path.connection_line.pop_front() };
                Some((path.source, site?))
            });
            let Some((source, site)) = next else {
                self.released_paths.pop();
                continue;
            };
            if let Some(path) = self.site_mut(site).and_then(|s| s.paths.iter_mut().find(|p| p.source == source)) {
                path.in_connection_line = false;
            }
            return Some(site);
        }
        None
    }

    /// Limits of all paths anew, after a reload.
    pub(super) fn apply_provider_limits(&mut self) {
        let (config, now) = (self.config.clone(), self.now);
        for id in 0..self.paths.len() {
            let Some(path) = self.paths[id].as_deref_mut() else { continue };
            path.apply_limits(&config, now);
            self.released_paths.push(id);
            self.wake_time_line(id);
        }
    }
}
