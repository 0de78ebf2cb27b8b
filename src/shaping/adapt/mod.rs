//! Adaptation: one controller for each source towards each provider finds the rate that the provider takes, and stays there.
//!
//! 1. A path without history begins slowly and doubles its rate each half minute in which it was used ([`State::Starting`]),
//! 2. a reply that says slow down ends that: what was taken within the last minute is the ceiling, the rate falls a little below it,
//!    nothing is sent for a moment ([`Controller::on_slow_down`]), and then a few messages probe before the rest follows,
//! 3. in quiet the rate climbs back to just below the ceiling and stays there for long ([`State::Holding`]),
//! 4. then it probes above it, a little at first and in growing steps ([`State::Probing`]), until the provider says no again,
//! 5. a share of deferrals, or connections that fail, count as such replies; of all of them one a minute counts at most.
//!
//! It is the idea of CUBIC (RFC 9438) on a rate: a ceiling that was met is remembered, and passed carefully. Plain additive increase
//! would meet it every few minutes, and each meeting costs refusals. A success costs a counter here and nothing else.

mod change;
mod window;

#[cfg(test)]
mod sim_tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::change::{Cause, Change, Order, State};
pub use self::window::Window;
use crate::config::{Adaptation, Rate};
use crate::types::Timestamp;

/// A decrease at most this often; it is the window of most providers too.
const DECREASE_EVERY: Duration = Duration::from_secs(60);
/// Nothing is sent for this long after a slow-down; it doubles while nothing is taken.
const PAUSE: Duration = Duration::from_secs(15);
/// A pause never doubles beyond this.
const PAUSE_MAX: Duration = Duration::from_secs(900);
/// Refusals that come again within this time are a row; after [`ROW_MAX`] of them nothing is sent for [`ROW_PAUSE`], so that no
/// provider sees refusals minute after minute and takes it for a sender that does not listen.
const ROW_WITHIN: Duration = Duration::from_secs(120);
const ROW_MAX: u32 = 4;
const ROW_PAUSE: Duration = Duration::from_secs(130);
/// So many messages are to be taken after a pause or a hold before the full rate is used.
const PROBE_MESSAGES: u32 = 3;
/// While it probes after a pause it sends at a tenth of its rate, within these bounds (a minute).
const PROBE_RATE: (f64, f64) = (20.0, 60.0);
/// A path stays below its ceiling at least this long, and for so many messages, before it tries more.
const HOLD_FOR: Duration = Duration::from_secs(1_200);
/// So many messages at least between two probes: one that costs three refusals then costs a hundredth.
const HOLD_MESSAGES: u64 = 300;
/// However slow the path: after this long it tries more.
const HOLD_MAX: Duration = Duration::from_secs(7_200);
/// The part of the ceiling at which it stays.
const HOLD_SHARE: f64 = 0.97;
/// The first step above the ceiling; each next one is twice as large, up to [`PROBE_STEP_MAX`].
const PROBE_STEP: f64 = 0.02;
/// The largest step, as a part of the ceiling.
const PROBE_STEP_MAX: f64 = 0.25;
/// How long a step is tried before the next: a provider that counts by the minute must have had its minute.
const STEP_FOR: Duration = Duration::from_secs(60);
/// How long a rate is used before it is doubled at the start.
const START_STEP_FOR: Duration = Duration::from_secs(30);
/// A rate grows only where so much of it was used.
const USED_SHARE: f64 = 0.6;
/// A share of deferrals is judged from so many attempts in a minute on.
const SHARE_ATTEMPTS: u32 = 20;
/// A reply that names no number never cuts the rate below this part at once.
const CUT_MAX: f64 = 0.1;

/// How many changes are kept for people.
pub const HISTORY_MAX: usize = 16;
/// How many orders of rules a path keeps; the one that ends first gives way.
pub const ORDERS_MAX: usize = 16;

/// The controller of one source towards one provider.
///
/// What it may send is [`Controller::rate`], [`Controller::connections`] and [`Controller::held_until`]; none of them changes
/// without a call, so an admission reads fields.
#[derive(Clone, Debug)]
pub struct Controller {
    state: State,
    /// Messages a minute.
    rate: Option<f64>,
    /// The rate that the provider refused last.
    ceiling: Option<f64>,
    connections: Option<u32>,
    /// When the state or its step began, and what was taken since.
    since: Timestamp,
    taken_since: u64,
    step: f64,
    last_decrease: Timestamp,
    last_connection_change: Timestamp,
    paused_until: Timestamp,
    pause: Duration,
    /// Refusals in a row, and the last one.
    row: u32,
    last_refusal: Timestamp,
    /// Messages that are still to be taken before the full rate is used.
    probes_left: u32,
    /// Since when the path was used without a pause.
    unbroken_since: Timestamp,
    window: Window,
    orders: Vec<Order>,
    history: std::collections::VecDeque<Change>,
    last_used: Timestamp,
    dirty: bool,
}

/// What is kept of a controller over a restart. Format 1.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The format of this record.
    pub format: u32,
    /// What it was doing.
    pub state: State,
    /// Its rate, a minute.
    pub rate: Option<f64>,
    /// The ceiling that it met.
    pub ceiling: Option<f64>,
    /// Connections.
    pub connections: Option<u32>,
    /// Nothing before this.
    pub paused_until: Timestamp,
    /// When it was last used.
    pub last_used: Timestamp,
    /// What rules ordered.
    pub orders: Vec<Order>,
    /// The last changes, oldest first.
    pub history: Vec<Change>,
}

impl Controller {
    /// A path without history. `slow_start` is false where the operator himself said where mail goes (a route).
    pub fn new(config: &Adaptation, slow_start: bool, now: Timestamp) -> Self {
        let starts = config.enabled && slow_start;
        Self {
            state: if starts { State::Starting } else { State::Free },
            rate: starts.then(|| per_minute(config.start)),
            ceiling: None,
            connections: None,
            since: now,
            taken_since: 0,
            step: PROBE_STEP,
            last_decrease: Timestamp::ZERO,
            last_connection_change: Timestamp::ZERO,
            paused_until: Timestamp::ZERO,
            pause: PAUSE,
            row: 0,
            last_refusal: Timestamp::ZERO,
            probes_left: 0,
            unbroken_since: now,
            window: Window::default(),
            orders: Vec::new(),
            history: std::collections::VecDeque::new(),
            last_used: now,
            dirty: false,
        }
    }

    /// From what was kept; a path that was idle for longer than `[adaptation] remember` begins anew, with its orders.
    pub fn restore(config: &Adaptation, record: Record, slow_start: bool, now: Timestamp) -> Self {
        let mut made = Self::new(config, slow_start, now);
        if config.enabled && now.since(record.last_used) < config.remember.0 {
            // Beyond the ceiling is no place to begin at after a pause.
            made.state = if record.state == State::Probing { State::Holding } else { record.state };
            made.rate = match (record.rate, record.ceiling) {
                (Some(rate), Some(ceiling)) => Some(rate.min(ceiling * HOLD_SHARE)),
                (rate, _) => rate,
            };
            made.ceiling = record.ceiling;
            made.connections = record.connections;
            made.paused_until = record.paused_until;
        }
        made.orders = record.orders;
        made.orders.retain(|o| o.until > now);
        made.history = record.history.into();
        made
    }

    /// So many were taken within the last minute, before it was made.
    pub fn assume_taken(&mut self, count: u32, now: Timestamp) {
        (0..count).for_each(|_| self.window.taken(now));
    }

    /// Whether a few messages are to be taken before the full rate is used.
    pub fn is_probing(&self) -> bool {
        self.probes_left > 0
    }

    /// Whether it limits nothing and has nothing to remember.
    pub fn is_spent(&self, now: Timestamp) -> bool {
        self.state == State::Free
            && self.rate.is_none()
            && self.connections.is_none()
            && self.held_until(now).is_none()
            && self.orders(now).next().is_none()
    }

    /// What is to be kept.
    pub fn record(&self) -> Record {
        Record {
            format: 1,
            state: self.state,
            rate: self.rate,
            ceiling: self.ceiling,
            connections: self.connections,
            paused_until: self.paused_until,
            last_used: self.last_used,
            orders: self.orders.clone(),
            history: self.history.iter().cloned().collect(),
        }
    }

    /// Whether something changed that is worth keeping, since this was asked last.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// The ceiling that was met, a minute.
    pub fn ceiling(&self) -> Option<f64> {
        self.ceiling
    }

    /// The last changes, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Change> {
        self.history.iter()
    }

    /// What rules ordered, as far as it still holds.
    pub fn orders(&self, now: Timestamp) -> impl Iterator<Item = &Order> {
        self.orders.iter().filter(move |o| o.until > now)
    }

    /// Messages a minute that may be sent now; `None` for no limit.
    pub fn per_minute(&self, now: Timestamp) -> Option<f64> {
        let ordered = self.orders(now).filter_map(|o| o.per_minute);
        let rate = ordered.chain(self.rate).fold(None, |least: Option<f64>, r| Some(least.map_or(r, |l| l.min(r))));
        match (rate, self.probes_left) {
            (rate, 0) => rate,
            (rate, _) => {
                let full = rate.unwrap_or(f64::MAX);
                Some((full / 10.0).clamp(PROBE_RATE.0, PROBE_RATE.1).min(full))
            }
        }
    }

    /// The same for a bucket: no bursts.
    pub fn rate(&self, now: Timestamp) -> Option<Rate> {
        self.per_minute(now).map(smooth)
    }

    /// Connections at a time; `None` for no limit. Never 0: what sends nothing is held.
    pub fn connections(&self, now: Timestamp) -> Option<u32> {
        self.orders(now).filter_map(|o| o.connections).chain(self.connections).min().map(|n| n.max(1))
    }

    /// Messages in a connection; `None` for no limit.
    pub fn messages_per_connection(&self, now: Timestamp) -> Option<u32> {
        self.orders(now).filter_map(|o| o.messages_per_connection).min()
    }

    /// Nothing may be sent before this, and the rule that says so.
    pub fn held_until(&self, now: Timestamp) -> Option<(Timestamp, Option<&str>)> {
        let order = self.orders(now).filter(|o| o.hold).max_by_key(|o| o.until);
        match order {
            Some(order) if order.until >= self.paused_until => Some((order.until, Some(&*order.rule))),
            _ => (self.paused_until > now).then_some((self.paused_until, None)),
        }
    }

    /// A message was taken. This is all that a success costs; the rest is done by [`Controller::tick`].
    pub fn on_taken(&mut self, now: Timestamp) {
        self.window.taken(now);
        self.taken_since += 1;
        self.last_used = now;
        if self.probes_left > 0 {
            self.probes_left -= 1;
            if self.probes_left == 0 {
                self.pause = PAUSE;
            }
        }
    }

    /// A recipient was deferred, and no rule says that this is about him alone. A high share of these counts as a slow-down.
    pub fn on_deferred(&mut self, config: &Adaptation, now: Timestamp, reply: &str) -> Option<Change> {
        self.window.deferred(now);
        let (taken, deferred) = self.window.last_minute(now);
        let attempts = taken + deferred;
        let high = f64::from(deferred) * 100.0 > f64::from(attempts) * f64::from(config.deferral_percent);
        (attempts >= SHARE_ATTEMPTS && high).then(|| self.slow(config, now, Cause::Deferrals, reply))?
    }

    /// A reply asked for less.
    pub fn on_slow_down(&mut self, config: &Adaptation, now: Timestamp, reply: &str) -> Option<Change> {
        self.window.deferred(now);
        self.slow(config, now, Cause::SlowDown, reply)
    }

    fn slow(&mut self, config: &Adaptation, now: Timestamp, cause: Cause, reply: &str) -> Option<Change> {
        if !config.enabled {
            return None;
        }
        if now < self.paused_until {
            // What was in flight when it was paused says nothing new.
            return None;
        }
        let before = self.rate;
        let probing_after_pause = self.probes_left > 0;
        if probing_after_pause {
            // It is not over: wait twice as long, with the same rate.
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        if !probing_after_pause && now.since(self.last_decrease) >= DECREASE_EVERY {
            self.decrease(config, now);
        }
        self.row = if now.since(self.last_refusal) <= ROW_WITHIN { self.row + 1 } else { 1 };
        self.last_refusal = now;
        let mut pause = self.pause;
        if self.row >= ROW_MAX {
            self.row = 0;
            pause = pause.max(ROW_PAUSE);
        }
        self.paused_until = now.after(pause);
        self.probes_left = PROBE_MESSAGES;
        self.unbroken_since = self.paused_until;
        Some(self.changed(now, cause, before, None, Some(reply)))
    }

    /// Finds the ceiling from what was taken, and goes below it.
    fn decrease(&mut self, config: &Adaptation, now: Timestamp) {
        let floor = per_minute(config.floor);
        // One more: a count is rounded down, and of six a minute one is much.
        let taken = f64::from(self.window.last_minute(now).0) + 1.0;
        let unbroken = now.since(self.unbroken_since) >= DECREASE_EVERY;
        let rate = self.rate.unwrap_or(taken.max(floor / CUT_MAX));
        let least = match (self.state, unbroken) {
            // What was taken is all that is known.
            (State::Starting | State::Free, _) => rate * CUT_MAX,
            (State::Holding | State::Probing, true) => rate * 0.5,
            // There was a gap within the last minute, so its count is too low.
            (State::Holding | State::Probing, false) => rate * config.decrease * config.decrease,
        };
        let mut ceiling = taken.clamp(least.min(rate), rate);
        if self.state == State::Holding && self.ceiling.is_some_and(|old| rate <= old) {
            // Refused below what was remembered: that was too high (RFC 9438 §4.7).
            ceiling = ceiling.min(rate * (1.0 + config.decrease) / 2.0);
        }
        let ceiling = ceiling.max(floor);
        self.ceiling = Some(ceiling);
        self.rate = Some((ceiling * config.decrease).max(floor));
        self.state = State::Holding;
        self.last_decrease = now;
        self.begin(now);
        self.step = PROBE_STEP;
    }

    fn begin(&mut self, now: Timestamp) {
        self.since = now;
        self.taken_since = 0;
    }

    /// Connections failed or were refused: fewer of them, at most once a minute. `open` are those that there were.
    pub fn on_connection_trouble(
        &mut self,
        config: &Adaptation,
        now: Timestamp,
        open: u32,
        reply: &str,
    ) -> Option<Change> {
        if !config.enabled || now.since(self.last_connection_change) < DECREASE_EVERY {
            return None;
        }
        let had = self.connections.unwrap_or(open).max(1);
        let to = (had / 2).max(1);
        self.last_connection_change = now;
        if self.connections == Some(to) {
            return None;
        }
        self.connections = Some(to);
        Some(self.changed(now, Cause::Connections, self.rate, None, Some(reply)))
    }

    /// A rule orders something. An order of the same rule is replaced, and never shortened.
    pub fn on_order(&mut self, now: Timestamp, order: Order, reply: &str) -> Option<Change> {
        self.orders.retain(|o| o.until > now);
        let before = self.per_minute(now);
        let same = |o: &&mut Order| {
            o.rule == order.rule
                && o.hold == order.hold
                && o.per_minute == order.per_minute
                && o.connections == order.connections
                && o.messages_per_connection == order.messages_per_connection
        };
        if let Some(old) = self.orders.iter_mut().find(same) {
            // Said again within it: longer, but nothing to tell.
            old.until = old.until.max(order.until);
            self.dirty = true;
            return None;
        }
        let (rule, hold, until) = (order.rule.clone(), order.hold, order.until);
        if self.orders.len() >= ORDERS_MAX
            && let Some(first) = (0..self.orders.len()).min_by_key(|at| self.orders[*at].until)
        {
            self.orders.swap_remove(first);
        }
        self.orders.push(order);
        if hold {
            // When it ends, a few messages go first.
            self.probes_left = PROBE_MESSAGES;
            self.unbroken_since = until;
        }
        let mut change = self.changed(now, Cause::Rule, before, Some(rule), Some(reply));
        change.to = self.per_minute(now);
        if hold {
            change.paused_until = Some(until);
        }
        if let Some(last) = self.history.back_mut() {
            *last = change.clone();
        }
        Some(change)
    }

    /// Ends what rules ordered and what it paused by itself; a few messages probe first.
    pub fn release(&mut self, now: Timestamp) -> Option<Change> {
        let held = self.held_until(now).is_some() || !self.orders.is_empty();
        if !held {
            return None;
        }
        let before = self.per_minute(now);
        self.orders.clear();
        self.paused_until = now;
        self.probes_left = PROBE_MESSAGES;
        Some(self.changed(now, Cause::Recovered, before, None, None))
    }

    /// Time goes on: growth, where it is due. Once a second is often enough; it costs nothing where nothing is due.
    pub fn tick(&mut self, config: &Adaptation, now: Timestamp) -> Option<Change> {
        if !config.enabled || now < self.paused_until || self.probes_left > 0 {
            return None;
        }
        if let Some(change) = self.grow_connections(config, now) {
            return Some(change);
        }
        let rate = self.rate?;
        let before = self.rate;
        let elapsed = now.since(self.since);
        let step = match self.state {
            State::Starting => START_STEP_FOR,
            State::Free | State::Holding | State::Probing => STEP_FOR,
        };
        if elapsed < step {
            return None;
        }
        let used = self.taken_since as f64 / (elapsed.as_secs_f64() / 60.0);
        let is_used = used >= rate * USED_SHARE;
        let ceiling = self.ceiling.unwrap_or(rate);
        let most = config.ceiling.map(per_minute);
        let to = match self.state {
            State::Free => return None,
            _ if !is_used && self.state != State::Holding => {
                // Nobody wants more: what was not tried proves nothing.
                self.begin(now);
                return None;
            }
            State::Starting => rate * 2.0,
            State::Holding if rate < ceiling * HOLD_SHARE * 0.999 => {
                // Back to the ceiling: half of what is missing, each minute.
                let goal = ceiling * HOLD_SHARE;
                let missing = goal - rate;
                if missing < goal * 0.02 { goal } else { rate + missing * config.increase }
            }
            State::Holding => {
                let enough = (elapsed >= HOLD_FOR && self.taken_since >= HOLD_MESSAGES) || elapsed >= HOLD_MAX;
                if !enough {
                    return None;
                }
                if !is_used {
                    self.begin(now);
                    return None;
                }
                self.state = State::Probing;
                self.step = PROBE_STEP;
                ceiling * (1.0 + PROBE_STEP)
            }
            State::Probing => {
                self.step = (self.step * 2.0).min(PROBE_STEP_MAX);
                rate + ceiling * self.step
            }
        };
        let to = most.map_or(to, |most| to.min(most));
        self.begin(now);
        if most.is_none() && to >= FREE_FROM {
            self.state = State::Free;
            self.rate = None;
        } else if to <= rate {
            return None;
        } else {
            self.rate = Some(to);
        }
        Some(self.changed(now, Cause::Quiet, before, None, None))
    }

    fn grow_connections(&mut self, config: &Adaptation, now: Timestamp) -> Option<Change> {
        let connections = self.connections?;
        if now.since(self.last_connection_change) < config.connection_quiet.0
            || self.last_used < self.last_connection_change
        {
            return None;
        }
        self.last_connection_change = now;
        self.connections = (connections < CONNECTIONS_FREE_FROM).then(|| connections + 1);
        Some(self.changed(now, Cause::Quiet, self.rate, None, None))
    }

    fn changed(
        &mut self,
        now: Timestamp,
        cause: Cause,
        before: Option<f64>,
        rule: Option<Box<str>>,
        reply: Option<&str>,
    ) -> Change {
        let change = Change {
            at: now,
            cause,
            state: self.state,
            from: before,
            to: self.rate,
            connections: self.connections,
            paused_until: (self.paused_until > now).then_some(self.paused_until),
            rule,
            reply: reply.map(Box::from),
        };
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(change.clone());
        self.dirty = true;
        change
    }
}

/// Beyond this a rate is no limit any more (messages a minute).
const FREE_FROM: f64 = 600_000.0;
/// Beyond this the connections are no limit of the controller any more.
const CONNECTIONS_FREE_FROM: u32 = 500;
/// Tokens of a smooth rate: so few that no bucket lets two go at once.
const SMOOTH_TOKENS: u32 = 19;
/// Faster than this one token may be made up for: a timer that is a little late each time would cost a part of the rate.
const CATCH_UP_FROM: f64 = 60.0;

/// A rate in messages a minute.
pub fn per_minute(rate: Rate) -> f64 {
    f64::from(rate.count) * 60.0 / rate.per.as_secs_f64().max(0.001)
}

/// A rate without bursts: a provider that counts by the minute would see a burst as too much.
fn smooth(per_minute: f64) -> Rate {
    let count = if per_minute > CATCH_UP_FROM { SMOOTH_TOKENS + 1 } else { SMOOTH_TOKENS };
    let ms = (f64::from(count) * 60_000.0 / per_minute.max(0.001)).ceil();
    Rate { count, per: Duration::from_millis((ms as u64).max(1)) }
}
