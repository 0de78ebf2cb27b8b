//! Adaptation at work: what peers answer reaches the reply rules and the controllers, and these set what may be sent.
//!
//! 1. Each path towards a provider has a controller; one towards another site or a route gets one when a rule orders something,
//! 2. the outcomes of a job come to [`Scheduler::learn`] before they are settled: a success is counted; each different reply of a
//!    failure is looked up in the rules (`reactions`),
//! 3. whatever changes a controller is written as an `adapted` event and becomes the path's `Control` ([`Scheduler::sync_control`]),
//! 4. a path that is used is looked at once a second; one that is not costs nothing,
//! 5. what was learned is kept as a record of state, at most once a minute a path, and taken up again after a start.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Scheduler;
use super::admin::{NODE, Pending, put};
use super::paths::PathId;
use super::reactions::Triggers;
use super::timers::TimerKey;
use crate::config::{Config, OTHER};
use crate::event::{Event, EventKind, SmtpReply};
use crate::metrics::queue::AdaptationMetrics;
use crate::queue::admin::ExplainStep;
use crate::shaping::Control;
use crate::shaping::adapt::{self, Controller, Record};
use crate::shaping::rules::{Rules, parse_reply};
use crate::store::Change;
use crate::types::{Name, Timestamp};

/// Keys of what was learned in the store's state.
pub(super) const ADAPTATION_PREFIX: &str = "adaptation/";
/// A used path is looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Without a message or a failure for so long it is not looked at any more.
const IDLE_AFTER: Duration = Duration::from_secs(120);
/// What was learned is written at most this often.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// That a path is in use is written this often.
const KEEP_USE_EVERY: Duration = Duration::from_secs(3_600);
/// The longest key of a record; a site of very many hosts begins anew after a start.
const KEY_MAX: usize = 400;
/// The most paths outside of providers that have a controller.
const OTHERS_MAX: usize = 10_000;
/// Changes that `queue explain` shows.
const SHOWN_MAX: usize = 3;

/// What is kept of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    source: Name,
    group: Box<str>,
    record: Record,
}

/// What all paths share.
pub(super) struct Adapting {
    pub rules: Arc<Rules>,
    pub triggers: Triggers,
    /// From before the start, of paths that were not used since.
    kept: BTreeMap<(Name, Box<str>), Record>,
    others: usize,
}

/// The built-in rules: most configs have no others, and to compile them takes a while.
static BUILT_IN: LazyLock<Arc<Rules>> =
    LazyLock::new(|| Arc::new(Rules::new(&[]).expect("the built-in rules compile, a test says")));

impl Adapting {
    pub(super) fn new(config: &Config) -> Self {
        Self { rules: rules_of(config), triggers: Triggers::default(), kept: BTreeMap::new(), others: 0 }
    }
}

#[cfg(test)]
impl Adapting {
    pub(super) fn others(&self) -> usize {
        self.others
    }
}

fn rules_of(config: &Config) -> Arc<Rules> {
    if config.rules.is_empty() {
        return BUILT_IN.clone();
    }
    match Rules::new(&config.rules) {
        Ok(rules) => Arc::new(rules),
        Err(error) => {
            tracing::error!(target: "posthaste::queue", error, "the reply rules can't be used, the built-in ones are");
            BUILT_IN.clone()
        }
    }
}

/// The controller of a path, and when it is to be looked at.
#[derive(Debug)]
pub(super) struct Adaptive {
    pub controller: Controller,
    tick_at: Timestamp,
    used_at: Timestamp,
    kept_at: Timestamp,
    dirty: bool,
    applied: Control,
    metrics: Option<AdaptationMetrics>,
}

impl Adaptive {
    fn new(controller: Controller, metrics: Option<AdaptationMetrics>) -> Self {
        Self {
            controller,
            tick_at: Timestamp::NEVER,
            used_at: Timestamp::ZERO,
            kept_at: Timestamp::ZERO,
            dirty: false,
            applied: Control::default(),
            metrics,
        }
    }

    /// When it is to be looked at next.
    fn next(&self, now: Timestamp) -> Timestamp {
        if now.since(self.used_at) < IDLE_AFTER {
            return now.after(TICK);
        }
        let keep = if self.dirty { self.kept_at.after(KEEP_EVERY) } else { Timestamp::NEVER };
        let order = self.controller.orders(now).map(|o| o.until).min().unwrap_or(Timestamp::NEVER);
        keep.min(order).max(now.after(TICK))
    }
}

fn record_key(source: &Name, group: &str) -> Option<Vec<u8>> {
    let key = format!("{ADAPTATION_PREFIX}{source}/{group}").into_bytes();
    (key.len() <= KEY_MAX).then_some(key)
}

impl Scheduler {
    /// What was learned before the start; what is too old to be used is forgotten.
    pub(super) fn apply_kept(&mut self, kept: Vec<Kept>) {
        let (now, remember) = (self.now, self.config.adaptation.remember.0);
        let mut over = Vec::new();
        for Kept { source, group, record } in kept {
            let is_over = now.since(record.last_used) >= remember && record.orders.iter().all(|o| o.until <= now);
            if is_over || record.format != 1 {
                over.extend(record_key(&source, &group).map(|key| Change::RemoveState { key }));
            } else {
                self.adapting.kept.insert((source, group), record);
            }
        }
        if !over.is_empty() {
            self.submit(over, Pending::Nobody);
        }
    }

    /// A new configuration: its rules hold from the next reply on.
    pub(super) fn apply_rules(&mut self, old: &Config) {
        if old.rules != self.config.rules {
            self.adapting.rules = rules_of(&self.config);
        }
    }

    /// A path is new: towards a provider it adapts from the beginning, elsewhere when there is something to remember.
    pub(super) fn begin_adapting(&mut self, id: PathId) {
        let Some((source, group, grouped)) = self.path(id).map(|p| (p.source, p.group.clone(), p.is_of_provider()))
        else {
            return;
        };
        let Some(source) = self.sources.get(source).map(|s| s.source.name.clone()) else { return };
        let record = self.adapting.kept.remove(&(source, Box::from(&*group)));
        if record.is_some() || (grouped && self.config.adaptation.enabled) {
            self.make_adaptive(id, record);
        }
    }

    fn make_adaptive(&mut self, id: PathId, record: Option<Record>) {
        let (config, now) = (self.config.clone(), self.now);
        let Some(path) = self.path(id) else { return };
        let grouped = path.is_of_provider();
        if !grouped && self.adapting.others >= OTHERS_MAX {
            return;
        }
        let controller = match record {
            Some(record) => Controller::restore(&config.adaptation, record, grouped, now),
            None => {
                let mut new = Controller::new(&config.adaptation, grouped, now);
                new.assume_taken(path.taken_lately(now), now);
                new
            }
        };
        // Labels must stay few: sites outside of providers have none.
        let source = self.sources.get(path.source).map(|s| s.source.name.clone());
        let metrics = source.filter(|_| grouped).map(|s| self.metrics.adaptation(s.as_str(), &path.provider));
        self.adapting.others += usize::from(!grouped);
        if let Some(path) = self.provider_path_mut(id) {
            path.adaptive = Some(Box::new(Adaptive::new(controller, metrics)));
        }
        self.sync_control(id);
        self.arm(id);
    }

    /// The controller of a path, made where there is none.
    pub(super) fn controller(&mut self, id: PathId) -> Option<&mut Controller> {
        if self.path(id)?.adaptive.is_none() {
            self.make_adaptive(id, None);
        }
        let now = self.now;
        let adaptive = self.provider_path_mut(id)?.adaptive.as_mut()?;
        adaptive.used_at = now;
        Some(&mut adaptive.controller)
    }

    /// Has a path looked at in time.
    pub(super) fn arm(&mut self, id: PathId) {
        let now = self.now;
        let Some(adaptive) = self.provider_path_mut(id).and_then(|p| p.adaptive.as_mut()) else { return };
        let at = adaptive.next(now);
        if at < adaptive.tick_at {
            adaptive.tick_at = at;
            self.timers.set(at, TimerKey::Adapt(id, at));
        }
    }

    /// A message was taken.
    pub(super) fn count_taken(&mut self, id: PathId) {
        let now = self.now;
        let Some(adaptive) = self.provider_path_mut(id).and_then(|p| p.adaptive.as_mut()) else { return };
        let was_probing = adaptive.controller.is_probing();
        adaptive.controller.on_taken(now);
        adaptive.used_at = now;
        let (probed, arm) = (was_probing && !adaptive.controller.is_probing(), adaptive.tick_at > now.after(TICK));
        if probed {
            self.sync_control(id);
        }
        if arm {
            self.arm(id);
        }
    }

    pub(super) fn on_adapt_timer(&mut self, id: PathId, at: Timestamp) {
        let (config, now) = (self.config.clone(), self.now);
        let Some(path) = self.provider_path_mut(id) else { return };
        let Some(adaptive) = path.adaptive.as_mut().filter(|a| a.tick_at == at) else { return };
        adaptive.tick_at = Timestamp::NEVER;
        let change = adaptive.controller.tick(&config.adaptation, now);
        let mut changes: Vec<Change> = Vec::new();
        if let Some(change) = change {
            let event = self.adapted_event(id, &change, None);
            changes.extend(event.map(|e| Change::Event(Box::new(e))));
        }
        self.sync_control(id);
        changes.extend(self.keep(id, false));
        changes.extend(self.end_spent(id));
        if !changes.is_empty() {
            self.submit(changes, Pending::Nobody);
        }
        self.arm(id);
    }

    /// The record of a path, where it is time for it.
    fn keep(&mut self, id: PathId, at_once: bool) -> Option<Change> {
        let now = self.now;
        let path = self.path(id)?;
        let (source, group) = (self.sources.get(path.source)?.source.name.clone(), path.group.clone());
        let adaptive = self.provider_path_mut(id)?.adaptive.as_mut()?;
        adaptive.dirty |= adaptive.controller.take_dirty();
        let since = now.since(adaptive.kept_at);
        let in_use = adaptive.used_at > adaptive.kept_at && since >= KEEP_USE_EVERY;
        if !(adaptive.dirty && (at_once || since >= KEEP_EVERY)) && !in_use {
            return None;
        }
        adaptive.dirty = false;
        adaptive.kept_at = now;
        let kept = Kept { record: adaptive.controller.record(), group: Box::from(&*group), source: source.clone() };
        put(record_key(&source, &group)?, &kept).ok()
    }

    /// Outside of providers a controller that has nothing more to say goes, with its record.
    fn end_spent(&mut self, id: PathId) -> Option<Change> {
        let now = self.now;
        let path = self.provider_path_mut(id)?;
        let adaptive = path.adaptive.as_ref().filter(|_| !is_of_provider(&path.group, &path.provider))?;
        let is_quiet = now.since(adaptive.used_at) >= IDLE_AFTER && !adaptive.dirty;
        if !is_quiet || !adaptive.controller.is_spent(now) {
            return None;
        }
        path.adaptive = None;
        let (source, group) = (path.source, path.group.clone());
        self.adapting.others = self.adapting.others.saturating_sub(1);
        self.forget_path(id);
        let source = self.sources.get(source)?.source.name.clone();
        Some(Change::RemoveState { key: record_key(&source, &group)? })
    }

    /// Writes all that was learned and not yet kept: the daemon ends.
    pub(super) fn keep_all(&mut self) {
        let changes: Vec<Change> = (0..self.paths.len()).filter_map(|id| self.keep(id, true)).collect();
        if !changes.is_empty() {
            self.submit(changes, Pending::Nobody);
        }
    }

    /// Makes what the controller says the path's control. What is planned for it (a warm-up) stays.
    pub(super) fn sync_control(&mut self, id: PathId) {
        let now = self.now;
        let Some(path) = self.provider_path_mut(id) else { return };
        let warmup = path.control.warmup;
        let Some(adaptive) = path.adaptive.as_mut() else { return };
        let controller = &adaptive.controller;
        let held = controller.held_until(now).map(|(until, rule)| match &adaptive.applied.held {
            Some((same, why)) if *same == until => (until, why.clone()),
            _ => (until, why(controller, rule)),
        });
        let control = Control {
            ceiling_rate: controller.rate(now),
            ceiling_connections: controller.connections(now),
            held,
            warmup: None,
        };
        path.messages_per_connection = controller.messages_per_connection(now);
        if let Some(metrics) = &adaptive.metrics {
            metrics.rate.set(controller.per_minute(now).map_or(0, |rate| rate.round() as i64));
            metrics.state.set(if control.held.is_some() { STATE_HELD } else { controller.state() as i64 });
        }
        if control != adaptive.applied {
            adaptive.applied = control.clone();
            self.set_control(id, Control { warmup, ..control });
        }
    }

    /// An event about a change; of the tenant of the message that caused it, where there was one.
    pub(super) fn adapted_event(&self, id: PathId, change: &adapt::Change, cause: Option<&Event>) -> Option<Event> {
        let path = self.path(id)?;
        let source = self.sources.get(path.source)?;
        if let Some(metrics) = path.adaptive.as_ref().and_then(|a| a.metrics.as_ref()) {
            metrics.changes.inc();
        }
        let node = || Name::parse(NODE).expect("a valid literal");
        let mut event = Event::new(EventKind::Adapted, self.now, cause.map_or_else(node, |e| e.tenant.clone()));
        if let Some(cause) = cause {
            event.message_id = cause.message_id;
            event.campaign = cause.campaign.clone();
            event.class = cause.class;
            event.domain = cause.domain.clone();
            event.pool = cause.pool.clone();
        }
        event.provider = Some(Box::from(&*path.provider));
        event.source = Some(source.source.name.clone());
        event.source_ip = source.source.address;
        event.reason = Some(change.to_string().into());
        event.smtp = change
            .reply
            .as_deref()
            .map(|text| parse_reply(text).unwrap_or_else(|| SmtpReply { code: 0, enhanced: None, text: text.into() }));
        Some(event)
    }

    /// Ends what holds the paths of a site: an operator wants it tried. A few messages go first.
    pub(super) fn release_holds_of(&mut self, site: super::SiteId) {
        let now = self.now;
        let shared: Vec<PathId> =
            self.site(site).map(|s| s.paths.iter().filter_map(|p| p.shared).collect()).unwrap_or_default();
        for id in shared {
            let Some(adaptive) = self.provider_path_mut(id).and_then(|p| p.adaptive.as_mut()) else { continue };
            let Some(change) = adaptive.controller.release(now) else { continue };
            let event = self.adapted_event(id, &change, None).map(|e| Change::Event(Box::new(e)));
            self.submit(event.into_iter().collect(), Pending::Nobody);
            self.sync_control(id);
            self.arm(id);
        }
    }

    /// What `queue explain` says of a path: its state, the rules that act, and the last changes.
    pub(super) fn explain_adaptation(&self, name: String, id: PathId) -> Option<ExplainStep> {
        let now = self.now;
        let controller = &self.path(id)?.adaptive.as_ref()?.controller;
        let mut detail = controller.state().as_str().to_owned();
        match controller.per_minute(now) {
            Some(rate) => detail.push_str(&format!(", {rate:.1}/min")),
            None => detail.push_str(", no limit"),
        }
        if let Some(ceiling) = controller.ceiling() {
            detail.push_str(&format!(", met its ceiling at {ceiling:.1}/min"));
        }
        for order in controller.orders(now) {
            detail.push_str(&format!("; rule {} until {}", order.rule, order.until));
        }
        let changes: Vec<&adapt::Change> = controller.history().collect();
        for change in changes.iter().rev().take(SHOWN_MAX) {
            detail.push_str(&format!("; {}: {change}", change.at));
            if let Some(reply) = &change.reply {
                detail.push_str(&format!(" \"{reply}\""));
            }
        }
        let held = controller.held_until(now);
        Some(ExplainStep {
            name,
            pass: held.is_none(),
            detail,
            set_by: Some("[adaptation] and the reply rules".into()),
            until: held.map(|(until, _)| until),
        })
    }
}

/// The state of a held path in metrics, beside those of [`adapt::State`] from 0.
const STATE_HELD: i64 = 4;

fn why(controller: &Controller, rule: Option<&str>) -> Arc<str> {
    let last = controller.history().filter(|c| c.reply.is_some()).last();
    let reply = last.and_then(|c| c.reply.as_deref()).unwrap_or("no reply is known");
    match rule {
        Some(rule) => format!("rule {rule}: {reply}").into(),
        None => format!("it asked for less: {reply}").into(),
    }
}

/// Messages of this minute and the one before: what a controller begins with that is made late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    minute: u64,
    counts: [u32; 2],
}

impl Lately {
    pub(super) fn count(&mut self, now: Timestamp) {
        self.turn(now);
        self.counts[0] = self.counts[0].saturating_add(1);
    }

    /// Within the last minute, about: the minute before counts as far as it reaches into it.
    pub(super) fn taken(mut self, now: Timestamp) -> u32 {
        self.turn(now);
        let left = 60 - (now.as_secs() % 60);
        self.counts[0].saturating_add((u64::from(self.counts[1]) * left / 60) as u32)
    }

    fn turn(&mut self, now: Timestamp) {
        let minute = now.as_secs() / 60;
        match minute.saturating_sub(self.minute) {
            0 => {}
            1 => self.counts = [0, self.counts[0]],
            _ => self.counts = [0; 2],
        }
        self.minute = self.minute.max(minute);
    }
}

/// Whether a path is that of a provider, with limits over all of its sites.
pub(super) fn is_of_provider(group: &str, provider: &str) -> bool {
    provider != OTHER && group == provider
}
