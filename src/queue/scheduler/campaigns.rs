//! Campaigns: what is set for all queues of one: a hold, a rate, a priority.
//!
//! 1. [`Scheduler::set_campaign`] applies a control to the queues that are there, and each new queue finds it by its key;
//! 2. a hold takes the queues out of their rings at once, so that nothing is given out any more;
//! 3. a queue that has something due and whose campaign has a rate stands in the campaign's line, not in the ring of its site: no
//!    connection is opened for it, and nobody waits behind it;
//! 4. turns are given at the pace of the rate, so that connections open no faster, and up to twice as many while messages may go that nobody
//!    sends ([`Scheduler::on_rate_timer`]); with a turn a queue joins its ring, and sends until `admit` says that the rate is used up;
//! 5. a queue that found nothing left in its turn goes as soon as a message may, before all others: a connection is there for it. One
//!    that used its turn goes to the end of the line. One that is slow for another reason stays in its ring, and keeps no turn from others.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};

use super::Scheduler;
use super::jobs::QUANTUM;
use super::queue::{Queue, Status};
use super::sites::SiteId;
use super::timers::TimerKey;
use crate::config::Rate;
use crate::queue::admin::{CampaignControl, Hold, HoldKind, PRIORITY_DEFAULT};
use crate::shaping::{CampaignState, Limit, Pace, Paced, Reason};
use crate::types::{Name, QueueId, QueueKey, Timestamp};

/// Turns are not given out more often than this.
const TURNS_EVERY: Duration = Duration::from_millis(10);
/// For so many seconds of the rate a queue may count as ready work: connections are opened by it.
const WORK_SECONDS: u128 = 4;
/// A rate with more time than this between two messages gives no turns ahead of need: the connections would not be kept for so long.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// What a queue may spend in its turn at a site, by priority.
const QUANTA: [i32; 10] = [1, 2, 3, 4, 6, QUANTUM, 12, 16, 24, 32];

/// The campaigns for which something is set.
#[derive(Debug, Default)]
pub(super) struct Campaigns {
    ids: AHashMap<(Name, Name), u64>,
    all: AHashMap<u64, Campaign>,
}

#[derive(Debug)]
struct Campaign {
    control: CampaignControl,
    pace: Paced,
    /// When the next turn may be given: by the rate, and one more where messages may go and nobody is there to send them.
    turns: [Pace; 2],
    /// Queues that found nothing left in their turn; a connection is there for them.
    back: VecDeque<QueueId>,
    /// Queues that wait for the rate; some may have gone on since.
    line: VecDeque<QueueId>,
    /// When turns are given out next.
    turns_at: Timestamp,
}

impl Campaigns {
    /// What a queue may spend in its turn.
    pub(super) fn quantum(&self, queue: &Queue) -> i32 {
        let Some(campaign) = queue.campaign.and_then(|id| self.all.get(&id)) else { return QUANTUM };
        QUANTA.get(usize::from(campaign.control.priority)).copied().unwrap_or(QUANTUM)
    }

    fn of(&self, queue: &Queue) -> Option<&Campaign> {
        self.all.get(&queue.campaign?)
    }
}

impl Campaign {
    fn hold(&self, now: Timestamp) -> Option<&Hold> {
        self.control.hold.as_ref().filter(|hold| hold.until.is_none_or(|until| until > now))
    }

    /// Whether turns of a kind are given before a message may go; not while many found nothing left.
    fn may_look_ahead(&self, kind: usize) -> bool {
        let Some(Rate { count, per }) = self.control.rate else { return false };
        let seconds = u128::from(count) * 1_000 / per.as_millis().max(1);
        kind == 0 && per <= AHEAD_MAX.saturating_mul(count) && self.back.len() as u128 <= seconds
    }

    /// When turns may be given next, if anybody waits for one.
    fn next_turns(&self, now: Timestamp) -> Option<Timestamp> {
        let rate = self.control.rate?;
        let message = self.pace.ready_at(rate, now);
        let back = (!self.back.is_empty()).then_some(message);
        let line = (!self.line.is_empty()).then(|| {
            let more = message.max(self.turns[1].ready_at(rate, now));
            if self.may_look_ahead(0) { more.min(self.turns[0].ready_at(rate, now)) } else { more }
        });
        back.into_iter().chain(line).min()
    }

    fn work_max(&self) -> usize {
        let Some(Rate { count, per }) = self.control.rate else { return usize::MAX };
        let work = u128::from(count) * WORK_SECONDS * 1_000 / per.as_millis().max(1);
        usize::try_from(work).unwrap_or(usize::MAX).max(1)
    }
}

fn is_of(control: &CampaignControl, key: &QueueKey) -> bool {
    key.tenant == control.tenant && key.campaign.as_ref() == Some(&control.campaign)
}

impl Scheduler {
    /// Sets what holds, paces and ranks a campaign; answers how many of its messages are in an attempt. `restart`: it was set before
    /// this process began, so its rate counts as used.
    pub(super) fn set_campaign(&mut self, mut control: CampaignControl, restart: bool) -> u64 {
        control.priority = control.priority.min(QUANTA.len() as u8 - 1);
        let name = (control.tenant.clone(), control.campaign.clone());
        let old = self.campaigns.ids.get(&name).copied();
        let free = control.rate.is_none() && control.hold.is_none() && control.priority == PRIORITY_DEFAULT;
        let queues = self.ids_where(|key| is_of(&control, key));
        match old {
            None if free => {}
            Some(id) if self.campaigns.all.get(&id).is_some_and(|c| c.control == control) => {}
            Some(id) if free => {
                self.campaigns.ids.remove(&name);
                self.campaigns.all.remove(&id);
                self.apply_campaign(&queues);
            }
            _ => {
                let id = old.unwrap_or_else(|| self.number());
                self.campaigns.ids.insert(name, id);
                self.put_campaign(id, control, restart);
                self.apply_campaign(&queues);
            }
        }
        let queues: AHashSet<QueueId> = queues.into_iter().collect();
        let in_flight = self.jobs.values().flat_map(|job| &job.recipients);
        in_flight.filter(|(queue, _)| queues.contains(queue)).count() as u64
    }

    fn put_campaign(&mut self, id: u64, control: CampaignControl, restart: bool) {
        let now = self.now;
        if let Some(until) = control.hold.as_ref().and_then(|hold| hold.until) {
            self.timers.set(until, TimerKey::CampaignHold(id));
        }
        let known = self.campaigns.all.remove(&id).map(|c| (c.control.rate, c.pace));
        let pace = match (control.rate, known) {
            (Some(new), Some((Some(old), pace))) if old == new => pace,
            // What went by the old rate, or by none, counts: a change gives nothing away.
            (Some(rate), Some(_)) => Paced::used(rate, now),
            (Some(rate), None) if restart => Paced::used(rate, now),
            (Some(_) | None, _) => Paced::default(),
        };
        let campaign = Campaign {
            control,
            pace,
            turns: [Pace::default(); 2],
            back: VecDeque::new(),
            line: VecDeque::new(),
            turns_at: Timestamp::NEVER,
        };
        self.campaigns.all.insert(id, campaign);
    }

    /// A queue learns what is set for its campaign.
    pub(super) fn attach_campaign(&self, queue: &mut Queue) {
        let id = match &queue.key.campaign {
            Some(name) if !self.campaigns.ids.is_empty() => {
                self.campaigns.ids.get(&(queue.key.tenant.clone(), name.clone())).copied()
            }
            Some(_) | None => None,
        };
        let campaign = id.and_then(|id| self.campaigns.all.get(&id));
        queue.campaign = id;
        queue.held = campaign.is_some_and(|c| c.hold(self.now).is_some());
        queue.work_max = campaign.map_or(usize::MAX, Campaign::work_max);
        queue.has_turn = false;
        queue.in_rate_line = false;
    }

    /// Takes queues out of wherever they stand and looks where they stand now.
    fn apply_campaign(&mut self, queues: &[QueueId]) {
        self.leave_rings(queues);
        for id in queues {
            self.totals.steps += 1;
            let Some(mut queue) = self.queues.remove(id) else { continue };
            self.attach_campaign(&mut queue);
            queue.status = Status::Idle;
            let (held, expires) = (queue.held, queue.expires_min);
            self.queues.insert(*id, queue);
            if held && expires < Timestamp::NEVER {
                // What is held expires without grace, so it may have to be looked at earlier.
                self.set_expiry_timer(*id, expires);
            }
            self.advance(*id);
        }
    }

    /// Takes many queues out of their rings: one walk a ring, however many leave it.
    fn leave_rings(&mut self, queues: &[QueueId]) {
        let mut sites: AHashSet<SiteId> = AHashSet::new();
        for id in queues {
            let Some(queue) = self.queues.get_mut(id).filter(|q| q.status == Status::Ready) else { continue };
            queue.status = Status::Idle;
            let (site, work, key) = (queue.site, queue.work().cast_signed(), queue.key.clone());
            if let Some(site) = site {
                sites.insert(site);
                self.count_backlog(site, &key.pool, key.class, -work);
            }
        }
        for site in sites {
            let Some(site) = self.sites.get_mut(site).and_then(|s| s.as_deref_mut()) else { continue };
            for ring in site.pools.iter_mut().flat_map(|pool| &mut pool.rings) {
                ring.retain(|id| self.queues.get(id).is_some_and(|q| q.status == Status::Ready));
            }
        }
    }

    /// A hold ended by itself.
    pub(super) fn on_hold_end(&mut self, id: u64) {
        let Some(campaign) = self.campaigns.all.get_mut(&id) else { return };
        if campaign.control.hold.as_ref().and_then(|hold| hold.until).is_some_and(|until| until <= self.now) {
            campaign.control.hold = None;
            let control = campaign.control.clone();
            let queues = self.ids_where(|key| is_of(&control, key));
            if let Some(campaign) = self.campaigns.all.get_mut(&id) {
                campaign.line.clear();
                campaign.back.clear();
            }
            self.apply_campaign(&queues);
        }
    }

    /// What `admit` is told of a queue's campaign.
    pub(super) fn campaign_state(&self, queue: &Queue) -> Option<CampaignState<'_>> {
        let campaign = self.campaigns.of(queue)?;
        Some(CampaignState {
            name: campaign.control.campaign.as_str(),
            hold: campaign.hold(self.now).map(|hold| (hold.kind, hold.until)),
            rate: campaign.control.rate.map(|rate| (rate, campaign.pace.pace())),
            turn: if queue.status == Status::Rate { campaign.turns_at } else { Timestamp::ZERO },
        })
    }

    /// What `queue explain` says of a campaign that waits.
    pub(super) fn campaign_words(&self, queue: &Queue, reason: Reason) -> String {
        let Some(campaign) = self.campaigns.of(queue) else { return reason.to_string() };
        let control = &campaign.control;
        match (reason, &control.hold, control.rate) {
            (Reason::Rate(Limit::CampaignRate), _, Some(rate)) => {
                format!("rate {rate} of campaign {}", control.campaign)
            }
            (Reason::Held(HoldKind::Window), Some(Hold { until: Some(until), .. }), _) => {
                format!("window: opens at {until}")
            }
            (Reason::Held(kind), Some(hold), _) => format!("{}: {}", kind.as_str(), hold.reason),
            (other, ..) => other.to_string(),
        }
    }

    /// Whether a queue with something due must wait for the rate of its campaign; then it stands in line.
    pub(super) fn waits_for_rate(&mut self, id: QueueId) -> bool {
        let Some(queue) = self.queues.get(&id) else { return false };
        let paced = self.campaigns.of(queue).is_some_and(|c| c.control.rate.is_some());
        if !paced || queue.has_turn {
            return false;
        }
        if queue.status != Status::Rate {
            self.join_rate_line(id, false);
        }
        true
    }

    /// The turn of a queue is over: nothing is left of the rate.
    pub(super) fn wait_for_rate(&mut self, id: QueueId) {
        let unused = self.queues.get(&id).is_some_and(|q| !q.used_turn);
        self.join_rate_line(id, unused);
    }

    fn join_rate_line(&mut self, id: QueueId, first: bool) {
        self.set_status(id, Status::Rate);
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.has_turn = false;
        let Some(no) = queue.campaign else { return };
        let Some(campaign) = self.campaigns.all.get_mut(&no) else { return };
        if !std::mem::replace(&mut queue.in_rate_line, true) {
            // Whoever came last has a connection for certain; that of one who waits for long is closed.
            if first { campaign.back.push_front(id) } else { campaign.line.push_back(id) }
        }
        self.set_rate_timer(no);
    }

    fn set_rate_timer(&mut self, no: u64) {
        let now = self.now;
        let Some(campaign) = self.campaigns.all.get_mut(&no) else { return };
        let Some(at) = campaign.next_turns(now) else { return };
        let at = at.max(now.after(TURNS_EVERY));
        if at < campaign.turns_at {
            campaign.turns_at = at;
            self.timers.set(at, TimerKey::CampaignRate(no, at));
        }
    }

    /// Gives out turns: first to those who have a connection and may send now, then to those in line.
    pub(super) fn on_rate_timer(&mut self, no: u64, at: Timestamp) {
        let now = self.now;
        let Some(campaign) = self.campaigns.all.get_mut(&no).filter(|c| c.turns_at == at) else { return };
        campaign.turns_at = Timestamp::NEVER;
        let Some(rate) = campaign.control.rate else { return };
        let mut messages = campaign.pace.ready(rate, now);
        while messages > 0 {
            let Some(id) = self.campaigns.all.get_mut(&no).and_then(|c| c.back.pop_front()) else { break };
            messages -= usize::from(self.give_turn(no, id));
        }
        for kind in 0..2 {
            let Some(campaign) = self.campaigns.all.get_mut(&no) else { return };
            let mut turns = campaign.turns[kind].ready(rate, now);
            if campaign.may_look_ahead(kind) || (kind == 1 && messages > 0) {
                while turns > 0 {
                    let Some(id) = self.campaigns.all.get_mut(&no).and_then(|c| c.line.pop_front()) else { break };
                    if self.give_turn(no, id) {
                        turns -= 1;
                        self.campaigns.all.get_mut(&no).into_iter().for_each(|c| c.turns[kind].take(rate, now));
                    }
                }
            }
        }
        self.set_rate_timer(no);
    }

    /// Answers whether the queue still waited for it.
    fn give_turn(&mut self, no: u64, id: QueueId) -> bool {
        self.totals.steps += 1;
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        queue.in_rate_line = false;
        if queue.status != Status::Rate || queue.campaign != Some(no) {
            return false;
        }
        queue.has_turn = true;
        queue.used_turn = false;
        self.advance(id);
        true
    }

    /// A message of a queue was given to a connection.
    pub(super) fn charge_campaign(&mut self, id: QueueId) {
        let now = self.now;
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let Some(campaign) = queue.campaign.and_then(|no| self.campaigns.all.get_mut(&no)) else { return };
        queue.used_turn = true;
        if let Some(rate) = campaign.control.rate {
            campaign.pace.take(rate, now);
        }
    }
}
