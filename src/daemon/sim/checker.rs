//! What must hold of every run, read from what clients and peers saw and from the disk as it stands at the end.
//!
//! 1. **once**: each recipient of a 250 is exactly one of waiting and ended; when all is in order again none waits any more,
//! 2. **truth**: delivered means that a peer took it, bounced that a peer refused it for good, and nothing else is given up by us: a DNS outage
//!    bounces nothing. Without a crash, what a peer took and answered is delivered,
//! 3. **twice**: beyond replies that peers swallowed, a message arrives again only by a crash: at most unsettled outcomes and flights each,
//! 4. **limits**, of each source towards each host, from the peers' side: connections at a time, new connections and messages in any window,
//!    messages a connection,
//! 5. **age**: nothing expires before its real age, whatever the system's clock did, but after a restart with a clock that is ahead,
//! 6. **health**: mail for the host that is always in order is delivered, and soon,
//! 7. **fairness** (runs of [`super::plan::fair`]): while all of them wait, no tenant is more than [`FAIR_MAX`] messages ahead of another.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{Log, Ms, Place};
use super::plan::{EXPIRE, Op, Plan, TENANTS};
use super::world::Outcome;
use crate::config::Rate;
use crate::event::EventKind;
use crate::types::MessageId;

/// The clock is slewed by one part in twenty at the most: what takes an hour by it takes 57 minutes at least.
const SLEW: f64 = 1.06;
/// The recipients of one message, at the most.
const RECIPIENTS: u64 = 4;
/// Jobs that a connection holds beside its flight: two that are made ready and one that is sent.
const HELD: u64 = 3;
/// How long mail for the host in order may take when no process died meanwhile.
const SOON_MS: Ms = 3_600_000;
/// Fairness: how far one of three tenants with equal backlogs may be ahead of another, of 60 messages each. Shares are of octets, and
/// messages differ in size by a factor of three.
pub(super) const FAIR_MAX: usize = 16;

/// All that is wrong with a run.
pub(super) fn check(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let mut checker = Checker { plan, outcome, log: &outcome.log, endings: BTreeMap::new(), wrong: Vec::new() };
    checker.wrong.extend(outcome.log.faults.borrow().iter().cloned());
    checker.read_endings();
    checker.once();
    checker.truth();
    checker.twice();
    checker.limits();
    checker.age_and_health();
    checker.wrong
}

struct Checker<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    log: &'a Log,
    /// Of each recipient, the events that end it.
    endings: BTreeMap<(MessageId, String), Vec<(Ms, EventKind)>>,
    wrong: Vec<String>,
}

impl Checker<'_> {
    fn read_endings(&mut self) {
        for (at, event) in &self.outcome.disk.borrow().events {
            if let (true, Some(id), Some(to)) = (event.event.is_terminal(), event.message_id, &event.recipient) {
                self.endings.entry((id, to.as_str().to_owned())).or_default().push((*at, event.event));
            }
        }
    }

    fn crashes(&self) -> u64 {
        self.plan.count(|op| matches!(op, Op::Crash(_)))
    }

    fn jumps(&self) -> bool {
        self.plan.count(|op| matches!(op, Op::Jump(_))) > 0
    }

    /// The recipients that were acknowledged: tag, id, address, time of the 250.
    fn acknowledged(&self) -> Vec<(String, MessageId, String, Ms)> {
        let sent = self.log.sent.borrow();
        let known = sent.iter().filter_map(|(tag, sent)| Some((tag, sent, sent.acknowledged?)));
        known
            .flat_map(|(tag, sent, (id, at))| sent.recipients.iter().map(move |to| (tag.clone(), id, to.clone(), at)))
            .collect()
    }

    fn once(&mut self) {
        let disk = self.outcome.disk.borrow();
        let mut waiting: BTreeMap<MessageId, usize> = BTreeMap::new();
        for ((queue, key), entry) in &disk.rows {
            *waiting.entry(key.delivery.message).or_default() += 1;
            let key = disk.key(*queue);
            let what = format!("{}", key.domain);
            self.wrong.push(format!("waits at the end: {what}, attempts {}, due {}", entry.attempts, entry.key.due));
        }
        let mut recipients: BTreeMap<MessageId, usize> = BTreeMap::new();
        let mut ended: BTreeMap<MessageId, usize> = BTreeMap::new();
        for (tag, id, to, _) in self.acknowledged() {
            *recipients.entry(id).or_default() += 1;
            let ends = self.endings.get(&(id, to.clone())).map_or(0, Vec::len);
            *ended.entry(id).or_default() += ends;
            let waits = waiting.get(&id).copied().unwrap_or(0);
            if ends > 1 || (ends == 0 && waits == 0) {
                self.wrong.push(format!("{tag} to {to}: ended {ends} times, {waits} of the message wait"));
            }
        }
        for (id, n) in recipients {
            let (ends, waits) = (ended[&id], waiting.get(&id).copied().unwrap_or(0));
            if ends + waits != n {
                self.wrong.push(format!("{id}: of {n} recipients {ends} ended and {waits} wait"));
            }
        }
        // Those that nobody acknowledged, and our own notifications, end once too.
        for ((id, to), ends) in &self.endings {
            if ends.len() > 1 {
                self.wrong.push(format!("{id} to {to} ended as {ends:?}"));
            }
        }
    }

    fn truth(&mut self) {
        let (taken, refused) = (self.log.taken.borrow(), self.log.refused.borrow());
        let took: BTreeSet<(&str, &str)> = taken.iter().map(|t| (t.tag.as_str(), t.recipient.as_str())).collect();
        let answered: BTreeSet<(&str, &str)> =
            taken.iter().filter(|t| t.replied).map(|t| (t.tag.as_str(), t.recipient.as_str())).collect();
        let one: BTreeSet<&str> = refused.iter().filter_map(|r| r.recipient.as_deref()).collect();
        let all: BTreeSet<usize> = refused.iter().filter(|r| r.recipient.is_none()).map(|r| r.host).collect();
        let purged: BTreeSet<u64> = self.domains(|op| if let Op::Purge { domain } = op { Some(*domain) } else { None });
        for (tag, id, to, _) in self.acknowledged() {
            let Some((at, kind)) = self.endings.get(&(id, to.clone())).and_then(|ends| ends.last()).copied() else {
                continue;
            };
            let place = (tag.as_str(), to.as_str());
            let domain = domain_of(&to);
            let lies = match kind {
                EventKind::Delivered => !took.contains(&place),
                EventKind::Bounced => !one.contains(to.as_str()) && all.is_empty(),
                EventKind::Purged => !purged.contains(&domain),
                EventKind::Expired => false,
                _ => true,
            };
            if lies {
                self.wrong
                    .push(format!("{tag} to {to} ended as {kind:?} at {at} ms, and no peer or operator knows why"));
            }
            if self.crashes() == 0 && answered.contains(&place) && kind != EventKind::Delivered {
                self.wrong.push(format!("{tag} to {to}: a peer took it and said so, but it ended as {kind:?}"));
            }
        }
    }

    fn twice(&mut self) {
        let mut copies: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for taken in self.log.taken.borrow().iter().filter(|t| t.tag != "ours") {
            let (all, silent) = copies.entry((taken.tag.clone(), taken.recipient.clone())).or_default();
            *all += 1;
            *silent += u64::from(!taken.replied);
        }
        let excess: u64 = copies.values().map(|(all, silent)| (all - 1).saturating_sub(*silent)).sum();
        let config = &self.plan.config;
        let depth = u64::from(config.delivery.flight_depth) + 1;
        let flights = self.most_open() * depth * RECIPIENTS;
        let bound = self.crashes() * (u64::from(config.delivery.max_unsettled) + flights);
        if excess > bound {
            self.wrong.push(format!("{excess} copies too many, at most {bound} by {} crashes", self.crashes()));
        }
    }

    fn most_open(&self) -> u64 {
        let lines = self.log.lines.borrow();
        most_at_once(lines.iter().map(|line| (line.opened, line.closed.unwrap_or(Ms::MAX))).collect())
    }

    fn limits(&mut self) {
        let rule = self.plan.config.shaping.default.clone();
        let lines = self.log.lines.borrow();
        let mut places: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
        for (i, line) in lines.iter().enumerate() {
            places.entry(line.place).or_default().push(i);
        }
        let depth = u64::from(self.plan.config.delivery.flight_depth);
        let slew = if self.jumps() { SLEW } else { 1.0 };
        for (place, of) in &places {
            let spans = of.iter().map(|i| (lines[*i].opened, lines[*i].closed.unwrap_or(Ms::MAX))).collect();
            let (most, max) = (most_at_once(spans), u64::from(rule.connections.unwrap_or(u32::MAX)));
            if most > max {
                self.wrong.push(format!("{most} connections at a time, of {max}: {place:?}"));
            }
            let max = u64::from(rule.messages_per_connection.unwrap_or(u32::MAX));
            if let Some(n) = of.iter().map(|i| lines[*i].mails.len() as u64).find(|n| *n > max) {
                self.wrong.push(format!("{n} messages on a connection, of {max}: {place:?}"));
            }
            let mails: Vec<Ms> = of.iter().flat_map(|i| lines[*i].mails.iter().copied()).collect();
            let held = max_or(rule.connections) * (depth + HELD);
            if let Some(rate) = rule.message_rate {
                self.wrong.extend(over_rate("messages", rate, mails, held, slew, place));
            }
        }
        let mut tries: BTreeMap<Place, Vec<Ms>> = BTreeMap::new();
        for (at, place) in self.log.tries.borrow().iter() {
            tries.entry(*place).or_default().push(*at);
        }
        for (place, at) in tries {
            if let Some(rate) = rule.connection_rate {
                self.wrong.extend(over_rate("connections", rate, at, 0, slew, &place));
            }
        }
    }

    fn age_and_health(&mut self) {
        // A restart believes the system's clock.
        let ahead = self.crashes() > 0 && self.plan.count(|op| matches!(op, Op::Jump(by) if *by > 0)) > 0;
        let least = (EXPIRE.as_millis() as f64 / SLEW) as Ms;
        for (tag, id, to, at) in self.acknowledged() {
            let Some((end, kind)) = self.endings.get(&(id, to.clone())).and_then(|ends| ends.last()).copied() else {
                continue;
            };
            let age = end.saturating_sub(at);
            if kind == EventKind::Expired && age < least && !ahead {
                self.wrong.push(format!("{tag} to {to} expired {age} ms after its 250"));
            }
            if domain_of(&to) == 0 && kind != EventKind::Delivered {
                self.wrong.push(format!("{tag} to {to}, whose host is in order, ended as {kind:?}"));
            }
            let hurt = self.crashes() > 0 || self.plan.count(|op| matches!(op, Op::Names(_))) > 0;
            if domain_of(&to) == 0 && age > SOON_MS && !hurt {
                self.wrong.push(format!("{tag} to {to} took {age} ms, and its host is in order"));
            }
        }
    }

    fn domains(&self, which: impl Fn(&Op) -> Option<u64>) -> BTreeSet<u64> {
        self.plan.ops.iter().filter_map(|(_, op)| which(op)).collect()
    }
}

/// How far one tenant was ahead of another while all of them had something to send; as the peers took it.
pub(super) fn unfairness(log: &Log, each: usize) -> usize {
    let mut counts = [0_usize; TENANTS.len()];
    let mut worst = 0;
    for taken in log.taken.borrow().iter() {
        let Some(at) = TENANTS.iter().position(|tenant| taken.tag.starts_with(tenant)) else { continue };
        counts[at] += 1;
        if counts[at] == each {
            break;
        }
        let (most, least) = (counts.iter().max().copied(), counts.iter().min().copied());
        worst = worst.max(most.unwrap_or(0) - least.unwrap_or(0));
    }
    worst
}

fn domain_of(address: &str) -> u64 {
    let domain = address.split("@d").nth(1).unwrap_or("");
    domain.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX)
}

fn max_or(count: Option<u32>) -> u64 {
    count.map_or(0, u64::from)
}

/// The most spans that overlap; what ends when another begins does not overlap it.
fn most_at_once(spans: Vec<(Ms, Ms)>) -> u64 {
    let mut ends: Vec<(Ms, i64)> = spans.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
    ends.sort_unstable();
    let (mut open, mut most) = (0_i64, 0_i64);
    for (_, step) in ends {
        open += step;
        most = most.max(open);
    }
    most.unsigned_abs()
}

/// Windows of one, ten and sixty times the rate's time: in each at most the rate, a tenth of it at once, and what was held ready.
fn over_rate(what: &str, rate: Rate, mut at: Vec<Ms>, held: u64, slew: f64, place: &Place) -> Option<String> {
    at.sort_unstable();
    let burst = u64::from((rate.count / 10).max(1));
    for times in [1, 10, 60] {
        let window = rate.per.as_millis() as Ms * times;
        let max = (f64::from(rate.count) * times as f64 * slew).ceil() as u64 + burst + held;
        for (i, from) in at.iter().enumerate() {
            let n = at[i..].partition_point(|t| *t < from + window) as u64;
            if n > max {
                return Some(format!("{n} {what} in {window} ms from {from}, of {max}: {place:?}"));
            }
        }
    }
    None
}
