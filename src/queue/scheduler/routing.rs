//! Domains: which site a queue belongs to, and what becomes of it when there is no way.
//!
//! ```text
//! Unknown → Queued → Resolving → Known (until its end; then resolved again while the old plan serves)
//!                              → Failed (for now: a bounded number is deferred, the rest waits; for good: all that comes due is given up)
//! ```

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::disposal::{FailContext, How};
use super::queue::Status;
use super::timers::TimerKey;
use super::{Action, Scheduler, SiteId};
use crate::config::Config;
use crate::delivery::{Failure, Plan, Resolution};
use crate::effects;
use crate::event::Severity;
use crate::types::{Domain, QueueId, Timestamp};

/// How many recipients are deferred for one failed attempt to find or reach a host; the rest waits without an attempt.
pub(super) const FAIL_QUOTA: usize = 64;
/// How long a domain that can never be reached is not asked for again.
const FAILED_FOR_GOOD: Duration = Duration::from_secs(300);
/// When a domain is asked for again that could not be asked for, for want of descriptors here.
const OWN_TROUBLE_AGAIN: Duration = Duration::from_secs(5);
/// How long a plan without an end of its own is used, at the least.
const PLAN_MIN: Duration = Duration::from_secs(1);
/// How long a domain without queues is remembered, with its site's counters.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// The most domains without queues that are remembered.
const IDLE_DOMAINS_MAX: usize = 50_000;

#[derive(Debug)]
pub(super) struct DomainState {
    pub route: DomainRoute,
    pub queues: Vec<QueueId>,
    pub asking: bool,
    /// The question under way may be answered from an old configuration.
    ask_again: bool,
    failures: u32,
    timer: Timestamp,
    in_failing_line: bool,
    idle_since: Timestamp,
    in_idle_line: bool,
}

#[derive(Debug)]
pub(super) enum DomainRoute {
    Unknown,
    Known { site: SiteId, plan: Arc<Plan>, until: Timestamp },
    Failed { context: Rc<FailContext>, until: Timestamp, quota: usize },
}

/// Whether mail may go another way under the new configuration than under the old one.
pub(super) fn leads_elsewhere(old: &Config, new: &Config) -> bool {
    let delivery = |c: &Config| (c.delivery.tls, c.delivery.port);
    // A domain with limits of its own is a site of its own.
    let own_sites = |c: &Config| c.shaping.domains.keys().cloned().collect::<Vec<_>>();
    old.routes != new.routes
        || old.providers != new.providers
        || delivery(old) != delivery(new)
        || own_sites(old) != own_sites(new)
}

impl Scheduler {
    pub(super) fn join_domain(&mut self, domain: &Domain, id: QueueId) {
        if let Some(state) = self.domains.get_mut(domain) {
            state.queues.push(id);
            return;
        }
        let state = DomainState {
            route: DomainRoute::Unknown,
            queues: vec![id],
            asking: false,
            ask_again: false,
            failures: 0,
            timer: Timestamp::NEVER,
            in_failing_line: false,
            idle_since: Timestamp::ZERO,
            in_idle_line: false,
        };
        self.domains.insert(domain.clone(), state);
    }

    pub(super) fn leave_domain(&mut self, domain: &Domain, id: QueueId) {
        let Some(state) = self.domains.get_mut(domain) else { return };
        state.queues.retain(|q| *q != id);
        if !state.queues.is_empty() {
            return;
        }
        state.idle_since = self.now;
        if std::mem::replace(&mut state.in_idle_line, true) {
            return; // It is forgotten later than its place in line says.
        }
        if self.idle_domains.is_empty() {
            self.timers.set(self.now.after(FORGET_AFTER), TimerKey::Forget);
        }
        self.idle_domains.push_back((self.now, domain.clone()));
        if self.idle_domains.len() > IDLE_DOMAINS_MAX {
            self.forget_first_idle();
        }
    }

    pub(super) fn forget_idle_domains(&mut self) {
        while let Some((since, _)) = self.idle_domains.front() {
            let due = since.after(FORGET_AFTER);
            if due > self.now {
                return self.timers.set(due, TimerKey::Forget);
            }
            self.totals.steps += 1;
            self.forget_first_idle();
        }
    }

    /// Forgets the domain that is in line for longest, unless it has queues again, or had until lately.
    fn forget_first_idle(&mut self) {
        let Some((_, domain)) = self.idle_domains.pop_front() else { return };
        let Some(state) = self.domains.get_mut(&domain) else { return };
        state.in_idle_line = false;
        if !state.queues.is_empty() {
            return;
        }
        let recent = state.idle_since.after(FORGET_AFTER) > self.now && self.idle_domains.len() < IDLE_DOMAINS_MAX;
        if recent || state.asking {
            state.in_idle_line = true;
            // Its place is as late as the line: a while too long does no harm.
            return self.idle_domains.push_back((self.now, domain));
        }
        if let Some(DomainState { route: DomainRoute::Known { site, .. }, .. }) = self.domains.remove(&domain) {
            self.release_site(site);
        }
    }

    /// Sends a queue whose head is due on its way: to the ring of its site, or to wait for it.
    pub(super) fn route_queue(&mut self, id: QueueId) {
        let Some(domain) = self.queues.get(&id).map(|q| q.key.domain.clone()) else { return };
        let now = self.now;
        let Some(state) = self.domains.get_mut(&domain) else { return };
        match &state.route {
            DomainRoute::Unknown => {
                self.set_status(id, Status::Routing);
                self.ask_domain(&domain);
            }
            DomainRoute::Known { site, until, .. } => {
                let (site, stale) = (*site, *until <= now);
                if stale {
                    self.ask_domain(&domain);
                }
                self.join_ring(id, site);
            }
            DomainRoute::Failed { until, .. } => {
                let (until, over) = (*until, *until <= now);
                self.set_status(id, Status::Failing);
                if over {
                    self.ask_domain(&domain);
                } else {
                    self.set_domain_timer(&domain, until);
                    self.join_failing_line(&domain);
                }
            }
        }
    }

    fn ask_domain(&mut self, domain: &Domain) {
        if let Some(state) = self.domains.get_mut(domain)
            && !state.asking
        {
            state.asking = true;
            self.resolve_line.push_back(domain.clone());
        }
    }

    /// What is known of each domain is out of date: those with mail are asked for now, the others when mail comes.
    pub(super) fn resolve_anew(&mut self) {
        let now = self.now;
        let mut wanted = Vec::new();
        for (domain, state) in &mut self.domains {
            state.ask_again = state.asking;
            match &mut state.route {
                DomainRoute::Known { until, .. } | DomainRoute::Failed { until, .. } => *until = now,
                DomainRoute::Unknown => continue,
            }
            if !state.queues.is_empty() {
                wanted.push(domain.clone());
            }
        }
        wanted.sort_unstable();
        wanted.iter().for_each(|domain| self.ask_domain(domain));
    }

    pub(super) fn drain_resolve_line(&mut self) {
        while self.resolving < self.config.dns.max_concurrent.max(1) {
            let Some(domain) = self.resolve_line.pop_front() else { return };
            self.resolving += 1;
            self.totals.steps += 1;
            self.actions.push_back(Action::Resolve(domain));
        }
    }

    /// The router answered.
    pub fn on_resolved(&mut self, now: Timestamp, domain: &Domain, resolution: Resolution) {
        self.set_now(now);
        self.resolving = self.resolving.saturating_sub(1);
        if let Some(state) = self.domains.get_mut(domain) {
            state.asking = false;
            match resolution {
                Resolution::Plan(plan) => self.on_plan(domain, plan),
                Resolution::Failed(failure) => self.on_no_plan(domain, failure),
            }
        }
        if self.domains.get_mut(domain).is_some_and(|state| std::mem::take(&mut state.ask_again)) {
            self.ask_domain(domain);
        }
        self.finish();
    }

    fn on_plan(&mut self, domain: &Domain, plan: Arc<Plan>) {
        let site = self.site_for(domain, &plan);
        let until = plan.valid_until.max(self.now.after(PLAN_MIN));
        let Some(state) = self.domains.get_mut(domain) else { return };
        state.failures = 0;
        let old = std::mem::replace(&mut state.route, DomainRoute::Known { site, plan: plan.clone(), until });
        let queues = state.queues.clone();
        let old_site = match old {
            DomainRoute::Known { site, .. } => Some(site),
            DomainRoute::Unknown | DomainRoute::Failed { .. } => None,
        };
        // The new one is held before the old one is let go, so that it keeps its connections.
        self.hold_site(site, &plan);
        if let Some(old) = old_site {
            self.release_site(old);
        }
        for id in queues {
            let Some(queue) = self.queues.get(&id) else { continue };
            if queue.status == Status::Ready && queue.site != Some(site) {
                self.set_status(id, Status::Idle);
            }
            self.advance(id);
        }
    }

    fn on_no_plan(&mut self, domain: &Domain, failure: Failure) {
        let Some(state) = self.domains.get_mut(domain) else { return };
        state.failures += 1;
        let now = self.now;
        let (until, quota) = match failure.severity {
            Severity::Permanent => (now.after(FAILED_FOR_GOOD), usize::MAX),
            // This host's own trouble: nobody is charged for it, and it is asked again soon.
            Severity::Temporary if failure.source_trouble().is_some() => {
                state.failures = state.failures.saturating_sub(1);
                (now.after(OWN_TROUBLE_AGAIN), 0)
            }
            Severity::Temporary => {
                let back_off = effects::host_back_off(&self.config.retry, state.failures);
                // A resolver that fails for a moment does not stop mail to hosts that are known.
                if let DomainRoute::Known { until, .. } = &mut state.route
                    && state.failures <= 3
                {
                    *until = now.after(back_off);
                    return;
                }
                (now.after(back_off), FAIL_QUOTA)
            }
        };
        let context = Rc::new(FailContext { failure, provider: "other".into(), source: None });
        let old = std::mem::replace(&mut state.route, DomainRoute::Failed { context, until, quota });
        let queues = state.queues.clone();
        if let DomainRoute::Known { site, .. } = old {
            for id in &queues {
                if self.queues.get(id).is_some_and(|q| q.status == Status::Ready) {
                    self.set_status(*id, Status::Idle);
                }
            }
            self.release_site(site);
        }
        for id in queues {
            self.advance(id);
        }
        self.set_domain_timer(domain, until);
        self.join_failing_line(domain);
    }

    fn set_domain_timer(&mut self, domain: &Domain, at: Timestamp) {
        if let Some(state) = self.domains.get_mut(domain)
            && at < state.timer
        {
            state.timer = at;
            self.timers.set(at, TimerKey::Domain(domain.clone(), at));
        }
    }

    pub(super) fn on_domain_timer(&mut self, domain: &Domain, at: Timestamp) {
        let Some(state) = self.domains.get_mut(domain) else { return };
        if state.timer != at {
            return;
        }
        state.timer = Timestamp::NEVER;
        for id in state.queues.clone() {
            if self.queues.get(&id).is_some_and(|q| q.status == Status::Failing) {
                self.advance(id);
            }
        }
    }

    fn join_failing_line(&mut self, domain: &Domain) {
        if let Some(state) = self.domains.get_mut(domain)
            && !state.in_failing_line
        {
            state.in_failing_line = true;
            self.failing_domains.push_back(domain.clone());
        }
    }

    /// Gives up or defers what is due for domains without a way, as far as their quota and the room for disposals go.
    pub(super) fn drain_failing_domains(&mut self) {
        for _ in 0..self.failing_domains.len() {
            if !self.has_disposal_room() {
                return;
            }
            let Some(domain) = self.failing_domains.pop_front() else { return };
            let more = self.fail_domain(&domain);
            match self.domains.get_mut(&domain) {
                Some(_) if more => self.failing_domains.push_back(domain),
                Some(state) => state.in_failing_line = false,
                None => {}
            }
        }
    }

    /// Answers whether there is more to do when there is room again.
    fn fail_domain(&mut self, domain: &Domain) -> bool {
        let Some(state) = self.domains.get(domain) else { return false };
        let queues = state.queues.clone();
        for id in queues {
            while self.queues.get(&id).is_some_and(|q| q.status == Status::Failing) {
                self.totals.steps += 1;
                if !self.has_disposal_room() {
                    return true;
                }
                let now = self.now;
                let Some(DomainState { route: DomainRoute::Failed { context, until, quota }, .. }) =
                    self.domains.get_mut(domain)
                else {
                    return false;
                };
                if *quota == 0 || *until <= now {
                    return false;
                }
                let context = context.clone();
                let Some(queue) = self.queues.get(&id) else { break };
                match queue.window.first_key_value().map(|(key, _)| *key) {
                    Some(key) if key.due <= now => {
                        *quota -= 1;
                        let Some(entry) = self.window_remove(id, &key) else { break };
                        self.dispose(id, entry, How::Fail(context));
                    }
                    Some(_) | None => {
                        self.advance(id);
                        break;
                    }
                }
            }
        }
        false
    }

    /// Forgets failures, so that the next attempt is made at once: an operator said "retry".
    pub(super) fn forget_failures(&mut self, domain: &Domain) {
        let Some(state) = self.domains.get_mut(domain) else { return };
        state.failures = 0;
        match &mut state.route {
            DomainRoute::Failed { until, .. } => {
                *until = self.now;
                let queues = state.queues.clone();
                queues.into_iter().for_each(|id| self.advance(id));
            }
            DomainRoute::Known { site, .. } => {
                let site = *site;
                self.free_sources_of(site);
                self.release_holds_of(site);
                if let Some(site) = self.site_mut(site) {
                    for path in &mut site.paths {
                        path.failures = 0;
                        path.down_until = Timestamp::ZERO;
                    }
                }
                self.mark_dirty(site);
            }
            DomainRoute::Unknown => {}
        }
    }
}
