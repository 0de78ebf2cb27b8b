//! Limits of the node, its tenants and its pools: each has one line, in which queues wait.
//!
//! 1. A queue knows the limits that concern it ([`SharedLimits::of`]) from its making,
//! 2. when it has something due and one of them lets nothing go, it stands in the line of the one that lets go last,
//! 3. the line's timer wakes as many as messages may go; whoever waits costs nothing,
//! 4. a job is charged to all of them, and at its end what it sent beyond its stored size. Each is asked again before, so what was woken in vain
//!    stands in line again.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;

use super::Scheduler;
use super::queue::{Queue, Status};
use super::timers::TimerKey;
use crate::config::{Config, SendLimit};
use crate::shaping::{Ask, Question, Reason, SHARED_LIMITS, Shared, Verdict, admit};
use crate::types::{Name, QueueId, QueueKey, Timestamp};

/// The most queues that one look at a line wakes.
const WAKE_MAX: usize = 64;
/// When a line is looked at again whose woken queues may have had nothing to send.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Line {
    key: String,
    limit: Shared,
    waiting: VecDeque<QueueId>,
    timer: Timestamp,
}

/// The limits that are set.
#[derive(Debug, Default)]
pub(super) struct SharedLimits {
    lines: Vec<Line>,
    node: Option<usize>,
    tenants: AHashMap<Name, usize>,
    pools: AHashMap<Name, usize>,
}

impl SharedLimits {
    pub(super) fn new(config: &Config, now: Timestamp) -> Self {
        Self::from(config, now, Vec::new())
    }

    /// A limit that did not change keeps what is used of it.
    fn from(config: &Config, now: Timestamp, mut old: Vec<Line>) -> Self {
        let mut all = Self::default();
        let mut add = |config: &SendLimit, key: String| {
            let known = old.iter().position(|line| line.key == key && line.limit.config() == config);
            let limit = match known {
                Some(at) => old.swap_remove(at).limit,
                None => Shared::used(config, &key, now)?,
            };
            all.lines.push(Line { key, limit, waiting: VecDeque::new(), timer: Timestamp::NEVER });
            Some(all.lines.len() - 1)
        };
        let limits = &config.limits;
        all.node = add(&limits.node, "limits.node".into());
        let named = |(name, at): (&Name, Option<usize>)| Some((name.clone(), at?));
        all.tenants = limits
            .tenants
            .iter()
            .map(|(name, l)| (name, add(l, format!("limits.tenants.{name}"))))
            .filter_map(named)
            .collect();
        all.pools = limits
            .pools
            .iter()
            .map(|(name, l)| (name, add(l, format!("limits.pools.{name}"))))
            .filter_map(named)
            .collect();
        all
    }

    /// The limits that concern a queue, in the order of [`SHARED_LIMITS`].
    pub(super) fn of(&self, key: &QueueKey) -> [Option<usize>; 3] {
        [self.node, self.tenants.get(&key.tenant).copied(), self.pools.get(&key.pool).copied()]
    }
}

impl Scheduler {
    /// What `admit` is told of a queue's limits.
    pub(super) fn shared_limits(&self, queue: &Queue) -> [Option<&Shared>; 3] {
        queue.shared.map(|at| self.shared.lines.get(at?).map(|line| &line.limit))
    }

    /// Whether a queue with something due must wait for one of its limits; then it stands in the line of that one.
    pub(super) fn waits_for_shared(&mut self, id: QueueId) -> bool {
        let Some(queue) = self.queues.get(&id) else { return false };
        let shared = self.shared_limits(queue);
        // No more is asked than the limits: what else decides was asked, or is asked of the site.
        let question = Question { shared, unsettled: 0, draining: false, ..self.node_question(Ask::Send) };
        let Verdict::Wait { reason: Reason::Rate(limit), .. } = admit(&question) else { return false };
        let Some(at) = SHARED_LIMITS.iter().position(|l| *l == limit).and_then(|place| queue.shared[place]) else {
            return false;
        };
        self.set_status(id, Status::Limited);
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        if queue.shared_line.replace(at) != Some(at)
            && let Some(line) = self.shared.lines.get_mut(at)
        {
            line.waiting.push_back(id);
        }
        self.set_shared_timer(at, self.now);
        true
    }

    /// A message of a queue was given to a connection.
    pub(super) fn charge_shared(&mut self, id: QueueId, size: u64) {
        let now = self.now;
        let Some(queue) = self.queues.get(&id) else { return };
        for at in queue.shared.into_iter().flatten() {
            self.shared.lines.get_mut(at).into_iter().for_each(|line| line.limit.take(size, now));
        }
    }

    /// An attempt ended, and more octets were sent than it was charged for: of a campaign the row is stored, the message is made at the attempt.
    pub(super) fn charge_rest(&mut self, id: QueueId, octets: u64) {
        let now = self.now;
        let Some(queue) = self.queues.get(&id).filter(|_| octets > 0) else { return };
        for at in queue.shared.into_iter().flatten() {
            self.shared.lines.get_mut(at).into_iter().for_each(|line| line.limit.owe(octets, now));
        }
    }

    fn set_shared_timer(&mut self, at: usize, earliest: Timestamp) {
        let now = self.now;
        let Some(line) = self.shared.lines.get_mut(at).filter(|line| !line.waiting.is_empty()) else { return };
        let time = line.limit.ready_at(now).max(earliest).max(now.after(Duration::from_millis(1)));
        if time < line.timer {
            line.timer = time;
            self.timers.set(time, TimerKey::Shared(at, time));
        }
    }

    /// Wakes as many queues as messages may go now.
    pub(super) fn on_shared_timer(&mut self, at: usize, time: Timestamp) {
        let now = self.now;
        let Some(line) = self.shared.lines.get_mut(at).filter(|line| line.timer == time) else { return };
        line.timer = Timestamp::NEVER;
        let n = line.limit.ready(now).min(WAKE_MAX).min(line.waiting.len());
        let woken: Vec<QueueId> = line.waiting.drain(..n).collect();
        for id in woken {
            self.totals.steps += 1;
            let Some(queue) = self.queues.get_mut(&id).filter(|q| q.shared_line == Some(at)) else { continue };
            queue.shared_line = None;
            if queue.status == Status::Limited {
                queue.status = Status::Idle;
                self.advance(id);
            }
        }
        // Those that were woken take their tokens a little later, or have nothing to send any more.
        self.set_shared_timer(at, now.after(LOOK_AGAIN));
    }

    /// The limits anew, after a reload; whoever stood in a line is looked at again.
    pub(super) fn apply_shared(&mut self) {
        let old = std::mem::take(&mut self.shared).lines;
        self.shared = SharedLimits::from(&self.config, self.now, old);
        let ids: Vec<QueueId> = self.queues.keys().copied().collect();
        for id in ids {
            self.totals.steps += 1;
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            queue.shared = self.shared.of(&queue.key);
            queue.shared_line = None;
            if queue.status == Status::Limited {
                queue.status = Status::Idle;
                self.advance(id);
            }
        }
    }
}
