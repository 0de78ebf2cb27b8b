//! What operators ask: what changes something is submitted first, applied when it is on disk, then answered.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::adapt::{ADAPTATION_PREFIX, Kept};
use super::queue::Status;
use super::sweep::{Mark, MarkKind, SweepKind};
use super::timers::TimerKey;
use super::{Action, Scheduler};
use crate::event::{Event, EventKind};
use crate::queue::admin::{Changed, Command, CommandError, Matcher, Reply, Suspension};
use crate::store::{Change, SubmitError};
use crate::types::{Domain, Name, QueueId, QueueKey, Timestamp};

/// Keys of suspensions in the store's state.
const SUSPENSION_PREFIX: &str = "suspension/";
/// Keys of marks in the store's state.
const MARK_PREFIX: &str = "mark/";
/// Whose events are those that concern no tenant alone.
pub(super) const NODE: &str = "node";
/// The most suspensions; then no more are taken.
const SUSPENSIONS_MAX: usize = 1_000;
/// The most marks that are being swept; then no more are taken.
const MARKS_MAX: usize = 64;

/// Changes for the ledger.
pub type Changes = Vec<Change>;

/// What the store's state holds for the scheduler, read at a start.
#[derive(Debug, Default)]
pub struct AdminRecords {
    suspensions: Vec<Suspension>,
    marks: Vec<Mark>,
    learned: Vec<Kept>,
}

impl AdminRecords {
    /// The prefixes of the keys that [`AdminRecords::add`] takes.
    pub const PREFIXES: [&'static str; 3] = [SUSPENSION_PREFIX, MARK_PREFIX, ADAPTATION_PREFIX];

    /// Takes a record; answers an error in words for one that can't be read.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let bad = |e: serde_json::Error| format!("record {}: {e}", String::from_utf8_lossy(key));
        if key.starts_with(SUSPENSION_PREFIX.as_bytes()) {
            self.suspensions.push(serde_json::from_slice(value).map_err(bad)?);
        } else if key.starts_with(MARK_PREFIX.as_bytes()) {
            self.marks.push(serde_json::from_slice(value).map_err(bad)?);
        } else if key.starts_with(ADAPTATION_PREFIX.as_bytes()) {
            self.learned.push(serde_json::from_slice(value).map_err(bad)?);
        }
        Ok(())
    }
}

/// A command that waits for its commit.
#[derive(Debug)]
pub(super) enum Pending {
    Suspend(Suspension, Reply<Suspension>),
    Resume(Vec<Suspension>, Reply<Vec<Suspension>>),
    Mark(Mark, Reply<Changed>),
    /// Nobody waits: a suspension that ended by itself, a mark that was carried out.
    Nobody,
}

fn suspension_key(id: u64) -> Vec<u8> {
    format!("{SUSPENSION_PREFIX}{id:020}").into_bytes()
}

fn mark_key(id: u64) -> Vec<u8> {
    format!("{MARK_PREFIX}{id:020}").into_bytes()
}

pub(super) fn put(key: Vec<u8>, value: &impl serde::Serialize) -> Result<Change, CommandError> {
    let value = serde_json::to_vec(value).map_err(|e| CommandError::Store(e.to_string()))?;
    Ok(Change::PutState { key, value })
}

impl Scheduler {
    pub(super) fn apply_records(&mut self, records: AdminRecords) {
        for suspension in records.suspensions {
            self.next_number = self.next_number.max(suspension.id);
            if let Some(until) = suspension.until {
                self.timers.set(until, TimerKey::Suspension(suspension.id));
            }
            self.suspensions.push(suspension);
        }
        for mark in records.marks {
            self.next_number = self.next_number.max(mark.id);
            self.marks.push(Rc::new(mark));
        }
        self.apply_kept(records.learned);
    }

    pub(super) fn suspension_of(&self, key: &QueueKey) -> Option<u64> {
        self.suspensions.iter().find(|s| s.matcher.matches_queue(key)).map(|s| s.id)
    }

    /// Carries a command out. Gives back what needs the store's reader: `Show`; and `TraceSmtp`, which is delivery's.
    pub fn command(&mut self, now: Timestamp, command: Command) -> Option<Command> {
        self.set_now(now);
        // An answer that nobody waits for any more is no error: the command was carried out.
        match command {
            Command::Summary { top, reply } => drop(reply.send(Ok(self.summary(top)))),
            Command::Trouble { reply } => drop(reply.send(Ok(self.trouble()))),
            Command::List { matcher, limit, reply } => drop(reply.send(Ok(self.list(&matcher, limit)))),
            Command::Explain { matcher, limit, reply } => drop(reply.send(self.explain(&matcher, limit))),
            Command::Usage { reply } => drop(reply.send(Ok(self.usage()))),
            Command::InFlight { reply } => drop(reply.send(Ok(self.in_flight().collect()))),
            Command::Suspend { matcher, reason, by, until, reply } => {
                let made = self.new_suspension(matcher, reason, by, until);
                self.submit_command(made, reply, Pending::Suspend);
            }
            Command::Resume { id, matcher, reply } => {
                let made = self.resume_changes(id, matcher.as_ref());
                self.submit_command(made, reply, Pending::Resume);
            }
            Command::Retry { matcher, reply } => drop(reply.send(Ok(self.retry_now(matcher)))),
            Command::Purge { matcher, reason, by, reply } => {
                let made = self.new_mark(matcher, MarkKind::Purge { reason, cancelled: false }, by);
                self.submit_command(made, reply, Pending::Mark);
            }
            Command::Cancel { matcher, reason, by, reply } => {
                let made = self.new_mark(matcher, MarkKind::Purge { reason, cancelled: true }, by);
                self.submit_command(made, reply, Pending::Mark);
            }
            Command::SetCampaign { control, reply } => {
                let in_flight = self.set_campaign(control, false);
                drop(reply.send(Ok(in_flight)));
            }
            Command::Reroute { matcher, pool, by, reply } => {
                let made = if self.pools.contains_key(&pool) {
                    self.new_mark(matcher, MarkKind::Reroute { pool }, by)
                } else {
                    Err(CommandError::NotFound(format!("pool {pool}")))
                };
                self.submit_command(made, reply, Pending::Mark);
            }
            other @ (Command::Show { .. } | Command::TraceSmtp { .. }) => return Some(other),
        }
        self.finish();
        None
    }

    fn submit_command<T, R>(
        &mut self,
        made: Result<(T, Changes), CommandError>,
        reply: oneshot::Sender<Result<R, CommandError>>,
        pending: impl FnOnce(T, oneshot::Sender<Result<R, CommandError>>) -> Pending,
    ) {
        match made {
            Ok((made, changes)) => self.submit(changes, pending(made, reply)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn submit(&mut self, changes: Changes, pending: Pending) {
        let ticket = self.number();
        self.submits.insert(ticket, pending);
        self.actions.push_back(Action::Submit { ticket, changes });
    }

    /// The commit ended: what it changes is applied, and the operator answered.
    pub(super) fn finish_command(&mut self, ticket: u64, result: Result<(), SubmitError>) {
        let Some(pending) = self.submits.remove(&ticket) else { return };
        let refused = result.err().map(|e| match e {
            SubmitError::ShuttingDown => CommandError::ShuttingDown,
            SubmitError::LowSpace { .. } | SubmitError::Failed(_) => CommandError::Store(e.to_string()),
        });
        match (pending, refused) {
            (Pending::Suspend(_, reply), Some(error)) => drop(reply.send(Err(error))),
            (Pending::Resume(_, reply), Some(error)) => drop(reply.send(Err(error))),
            (Pending::Mark(_, reply), Some(error)) => drop(reply.send(Err(error))),
            (Pending::Suspend(suspension, reply), None) => {
                self.apply_suspension(suspension.clone());
                drop(reply.send(Ok(suspension)));
            }
            (Pending::Resume(ended, reply), None) => {
                self.end_suspensions(&ended);
                drop(reply.send(Ok(ended)));
            }
            (Pending::Mark(mark, reply), None) => drop(reply.send(Ok(self.apply_mark(mark)))),
            (Pending::Nobody, Some(error)) => {
                tracing::error!(target: "posthaste::queue", %error, "a record of state could not be written");
            }
            (Pending::Nobody, None) => {}
        }
    }

    fn node_event(&self, kind: EventKind, matcher: &Matcher, reason: String) -> Event {
        let node = || Name::parse(NODE).expect("a valid literal");
        let mut event = Event::new(kind, self.now, matcher.tenant.clone().unwrap_or_else(node));
        event.domain = matcher.domain.clone();
        event.campaign = matcher.campaign.clone();
        event.pool = matcher.pool.clone();
        event.class = matcher.class;
        event.reason = Some(reason.into());
        event
    }

    pub(super) fn new_suspension(
        &mut self,
        matcher: Matcher,
        reason: String,
        by: String,
        until: Option<Timestamp>,
    ) -> Result<(Suspension, Changes), CommandError> {
        if matcher.message.is_some() || matcher.older_than.is_some() {
            return Err(CommandError::Invalid("a suspension holds queues, not single messages".into()));
        }
        if until.is_some_and(|until| until <= self.now) {
            return Err(CommandError::Invalid("the end of a suspension lies in the past".into()));
        }
        // The same again takes the place of the first, under its number: one resume ends it.
        let (id, since) = match self.same_suspension(&matcher) {
            Some(first) => (first.id, first.since),
            None if self.suspensions.len() >= SUSPENSIONS_MAX => {
                return Err(CommandError::Invalid(format!("there are {SUSPENSIONS_MAX} suspensions already")));
            }
            None => (self.number(), self.now),
        };
        let suspension = Suspension { id, matcher, reason, by, since, until };
        let words = format!("{} (by {})", suspension.reason, suspension.by);
        let event = self.node_event(EventKind::Suspended, &suspension.matcher, words);
        let changes = vec![put(suspension_key(id), &suspension)?, Change::Event(Box::new(event))];
        Ok((suspension, changes))
    }

    /// The suspension of just this, in force or on its way to the disk.
    pub(super) fn same_suspension(&self, matcher: &Matcher) -> Option<&Suspension> {
        let on_their_way = self.submits.values().filter_map(|pending| match pending {
            Pending::Suspend(suspension, _) => Some(suspension),
            Pending::Resume(..) | Pending::Mark(..) | Pending::Nobody => None,
        });
        self.suspensions.iter().chain(on_their_way).find(|s| s.matcher == *matcher)
    }

    fn apply_suspension(&mut self, suspension: Suspension) {
        if let Some(until) = suspension.until {
            self.timers.set(until, TimerKey::Suspension(suspension.id));
        }
        let matched: Vec<QueueId> = self.matching_ids(&suspension.matcher);
        self.suspensions.retain(|s| s.id != suspension.id);
        self.suspensions.push(suspension);
        self.review_suspensions(matched);
    }

    /// Looks at queues anew after suspensions came or went.
    fn review_suspensions(&mut self, queues: Vec<QueueId>) {
        for id in queues {
            let Some(key) = self.queues.get(&id).map(|q| q.key.clone()) else { continue };
            let suspended = self.suspension_of(&key);
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let was = std::mem::replace(&mut queue.suspended, suspended);
            let expires = queue.expires_min;
            if suspended.is_some() {
                // What is held expires without grace, so it may have to be looked at earlier.
                self.set_expiry_timer(id, expires);
            }
            if was.is_some() != suspended.is_some() {
                if let Some(queue) = self.queues.get_mut(&id).filter(|q| q.status == Status::Suspended) {
                    queue.status = Status::Idle;
                }
                self.advance(id);
            }
        }
    }

    fn resume_changes(
        &mut self,
        id: Option<u64>,
        matcher: Option<&Matcher>,
    ) -> Result<(Vec<Suspension>, Changes), CommandError> {
        if id.is_none() && matcher.is_none() {
            return Err(CommandError::Invalid("resume needs a number or what was suspended".into()));
        }
        let meant = |s: &&Suspension| id.is_none_or(|id| id == s.id) && matcher.is_none_or(|m| *m == s.matcher);
        let ended: Vec<Suspension> = self.suspensions.iter().filter(meant).cloned().collect();
        if ended.is_empty() {
            return Err(CommandError::NotFound("no such suspension".into()));
        }
        let changes = self.removal_of(&ended, "resumed");
        Ok((ended, changes))
    }

    fn removal_of(&self, ended: &[Suspension], words: &str) -> Changes {
        let both = |s: &Suspension| {
            let event = self.node_event(EventKind::Resumed, &s.matcher, format!("{words}: {}", s.reason));
            [Change::RemoveState { key: suspension_key(s.id) }, Change::Event(Box::new(event))]
        };
        ended.iter().flat_map(both).collect()
    }

    fn end_suspensions(&mut self, ended: &[Suspension]) {
        self.suspensions.retain(|s| !ended.iter().any(|e| e.id == s.id));
        let mut held: Vec<QueueId> = self
            .queues
            .values()
            .filter(|q| q.suspended.is_some_and(|id| ended.iter().any(|e| e.id == id)))
            .map(|q| q.id)
            .collect();
        held.sort_unstable();
        self.review_suspensions(held);
    }

    pub(super) fn on_suspension_end(&mut self, id: u64) {
        let over = |s: &&Suspension| s.id == id && s.until.is_some_and(|until| until <= self.now);
        let ended: Vec<Suspension> = self.suspensions.iter().filter(over).cloned().collect();
        if !ended.is_empty() {
            // It is over whether or not its record can be removed: the record names its end.
            let changes = self.removal_of(&ended, "its time was over");
            self.end_suspensions(&ended);
            self.submit(changes, Pending::Nobody);
        }
    }

    fn new_mark(&mut self, matcher: Matcher, kind: MarkKind, by: String) -> Result<(Mark, Changes), CommandError> {
        if self.marks.len() >= MARKS_MAX {
            return Err(CommandError::Invalid("too many purges and reroutes are under way: wait for them".into()));
        }
        let id = self.number();
        let mark = Mark { id, matcher, kind, by, created: self.now };
        let change = put(mark_key(id), &mark)?;
        Ok((mark, vec![change]))
    }

    fn apply_mark(&mut self, mark: Mark) -> Changed {
        let mark = Rc::new(mark);
        let mut changed = Changed::default();
        let concerned: VecDeque<QueueId> = self.ids_where(|key| mark.concerns(key)).into();
        for id in &concerned {
            let Some(queue) = self.queues.get_mut(id) else { continue };
            queue.marks.push(mark.id);
            changed.queues += 1;
            changed.recipients += queue.count;
        }
        changed.in_flight = self.in_flight_of(&concerned);
        changed.recipients = changed.recipients.saturating_sub(changed.in_flight);
        self.marks.push(mark.clone());
        self.start_sweep(SweepKind::Mark(mark), concerned);
        changed
    }

    fn in_flight_of(&self, queues: &VecDeque<QueueId>) -> u64 {
        let queues: ahash::AHashSet<QueueId> = queues.iter().copied().collect();
        let all = self.jobs.values().flat_map(|j| &j.recipients);
        all.filter(|(queue, _)| queues.contains(queue)).count() as u64
    }

    /// A mark was carried out: its record goes.
    pub(super) fn end_mark(&mut self, mark: &Mark) {
        self.marks.retain(|m| m.id != mark.id);
        for queue in self.queues.values_mut() {
            queue.marks.retain(|id| *id != mark.id);
        }
        self.submit(vec![Change::RemoveState { key: mark_key(mark.id) }], Pending::Nobody);
    }

    /// Makes what matches due now, and forgets what is known of dead hosts and failed look-ups on its way.
    fn retry_now(&mut self, matcher: Matcher) -> Changed {
        let ids = self.matching_ids(&matcher);
        let mut changed = Changed { queues: ids.len() as u64, ..Changed::default() };
        let mut domains: Vec<Domain> = Vec::new();
        for id in &ids {
            let Some(queue) = self.queues.get(id) else { continue };
            changed.recipients += queue.count;
            domains.push(queue.key.domain.clone());
        }
        domains.sort();
        domains.dedup();
        domains.iter().for_each(|domain| self.forget_failures(domain));
        let ids: VecDeque<QueueId> = ids.into();
        changed.in_flight = self.in_flight_of(&ids);
        self.start_sweep(SweepKind::Retry(matcher), ids);
        changed
    }

    pub(super) fn matching_ids(&self, matcher: &Matcher) -> Vec<QueueId> {
        self.ids_where(|key| matcher.matches_queue(key))
    }

    /// The queues with such keys in the order in which they came: what is done to them one by one is done alike in each run of a seed.
    pub(super) fn ids_where(&self, which: impl Fn(&QueueKey) -> bool) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = self.queues.values().filter(|q| which(&q.key)).map(|q| q.id).collect();
        ids.sort_unstable();
        ids
    }

    /// The queues that match, largest first: for reading their rows.
    pub fn matching(&self, matcher: &Matcher) -> Vec<(QueueId, Arc<QueueKey>)> {
        let mut all: Vec<_> = self.queues.values().filter(|q| matcher.matches_queue(&q.key)).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        all.into_iter().map(|q| (q.id, q.key.clone())).collect()
    }

    fn usage(&self) -> Vec<(Name, Name, u64)> {
        let mut usage = std::collections::BTreeMap::new();
        for queue in self.queues.values() {
            *usage.entry((queue.key.tenant.clone(), queue.key.pool.clone())).or_default() += queue.count;
        }
        usage.into_iter().map(|((tenant, pool), count)| (tenant, pool, count)).collect()
    }
}
