//! Jobs: a connection asks, the rings of its site give.
//!
//! 1. `admit` says whether a message may go on this connection now,
//! 2. the transactional lane is first; after [`LANE_RATIO`] jobs in a row the other one gets one,
//! 3. within a lane the pools that the connection's source serves take turns by their number of ready queues,
//! 4. within a pool deficit round robin: a job costs 1 and 1 more for each 16 KiB, a queue gets [`QUANTUM`] a turn,
//! 5. the head of the queue becomes a job, together with other recipients of the same message at this site.
//!
//! What is not in memory is read in the order in which it will be sent: a queue whose head is being read keeps its place, and the
//! first [`FRONT`] queues of a ring are looked at meanwhile. Only what goes next is read ahead ([`Scheduler::load_ahead`]), so that
//! a message is read once, however many queues wait.

use std::sync::Arc;

use super::disposal::How;
use super::queue::Status;
use super::sites::{LANES, SiteId};
use super::{Action, Scheduler};
use crate::delivery::{ConnectionId, Job, JobRecipient, Peer, Work};
use crate::effects;
use crate::shaping::{Ask, Limit, Question, Reason, Verdict, admit};
use crate::store::{EntryKey, QueueEntry, StoredMessage};
use crate::types::{DeliveryId, MessageId, QueueId};

/// Transactional jobs for one of the other lane.
const LANE_RATIO: u32 = 8;
/// What a queue may spend in its turn, where its campaign has no other priority.
pub(super) const QUANTUM: i32 = 8;
/// Octets for which a job costs 1 more.
const COST_BYTES: u32 = 16 << 10;
/// The most that a job costs: large mail does not stop its queue for many turns.
const COST_MAX: u32 = 16;
/// The most queues that are looked at for one job.
const TRIES_MAX: usize = 64;
/// Messages that are read ahead of need, a queue.
const READ_AHEAD: usize = 8;
/// With so many of them here nothing is read yet: what is missing is then read together, by one read in place of one each.
const AHEAD_ENOUGH: usize = 4;
/// The most recipients of a message that are looked at for one job.
const SIBLINGS_SEEN_MAX: usize = 512;
/// The most messages that are being read.
const LOADS_MAX: usize = 256;
/// Queues of a ring whose heads are read ahead when a connection is opened.
const HEADS_AHEAD: usize = 8;
/// Queues of a ring that are looked at past others whose heads are being read, and whose heads are read ahead. With more, what is
/// read for the last would push out what was read for the first.
const FRONT: usize = 32;

/// A job that a connection has.
#[derive(Debug)]
pub(super) struct InFlight {
    pub message: Arc<StoredMessage>,
    pub site: SiteId,
    pub source: usize,
    pub recipients: Vec<(QueueId, QueueEntry)>,
}

/// What one look at the head of a queue gave.
enum Head {
    Job(Box<Job>),
    /// The queue left, or its head was disposed of: look at the next one.
    Again,
    /// Not its turn.
    Rotate,
    /// Its message is being read: it keeps its place.
    Reading,
}

impl Scheduler {
    /// A connection can take a job.
    pub fn next(&mut self, now: crate::types::Timestamp, conn: ConnectionId, _peer: &Peer) -> Work {
        self.set_now(now);
        let work = self.next_work(conn);
        self.finish();
        work
    }

    fn next_work(&mut self, id: ConnectionId) -> Work {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return Work::Close };
        let (site, source, messages) = (conn.site, conn.source, conn.messages);
        if std::mem::replace(&mut conn.idle, false)
            && let Some(path) = self.path_mut(site, source)
        {
            path.idle.retain(|c| *c != id);
        }
        let limit = self.site(site).and_then(|s| s.limits.messages_per_connection.as_ref().map(|c| c.max));
        let shared = self.site(site).and_then(|s| s.paths.iter().find(|p| p.source == source)?.shared);
        let ordered = shared.and_then(|id| self.path(id)?.messages_per_connection);
        let over = limit.into_iter().chain(ordered).min().is_some_and(|max| messages >= max);
        let retired = self.sources.get(source).is_none_or(|s| s.retired);
        let Some(conn) = self.conns.get_mut(&id) else { return Work::Close };
        if self.draining || retired || over || conn.close {
            conn.close = true;
            return Work::Close;
        }
        let verdict = admit(&self.question(site, source, Ask::Send));
        if verdict == Verdict::Go {
            if let Some(job) = self.pick(site, source) {
                return self.start_job(id, job);
            }
        } else if self.site(site).is_some_and(|s| s.pools.iter().any(|p| p.work() > 0)) {
            self.wait_for(site, source, verdict);
        }
        if self.is_wanted_elsewhere(site, source) {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.close = true;
            }
            return Work::Close;
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.idle = true;
            conn.idle_since = now;
        }
        if let Some(path) = self.path_mut(site, source) {
            path.idle.push_back(id);
        }
        self.idle_line.push_back(id);
        if self.idle_line.len() > 64 + 4 * self.conns.len() {
            let conns = &self.conns;
            let mut seen = ahash::AHashSet::new();
            self.idle_line.retain(|c| conns.get(c).is_some_and(|c| c.idle) && seen.insert(*c));
        }
        Work::Idle
    }

    /// Whether a connection without work takes a place that another site waits for.
    fn is_wanted_elsewhere(&self, site: SiteId, source: usize) -> bool {
        let shared = self.site(site).and_then(|s| s.paths.iter().find(|p| p.source == source)?.shared);
        let waited_for = !self.node_line.is_empty()
            || self.sources.get(source).is_some_and(|s| !s.line.is_empty())
            || shared.and_then(|id| self.path(id)).is_some_and(|p| p.has_connection_line());
        waited_for && self.site(site).is_none_or(|s| s.pools.iter().all(|p| p.work() == 0))
    }

    fn start_job(&mut self, id: ConnectionId, job: Box<Job>) -> Work {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return Work::Close };
        conn.messages += 1;
        conn.jobs += 1;
        let (site, source) = (conn.site, conn.source);
        if let Some(rate) = self.sources[source].source.message_rate {
            self.sources[source].message_rate.take(rate, now);
        }
        let rate = self.site(site).and_then(|s| s.limits.message_rate.as_ref().map(|r| r.rate));
        if let (Some(rate), Some(path)) = (rate, self.path_mut(site, source)) {
            path.message_rate.take(rate, now);
        }
        let shared = self.path_mut(site, source).and_then(|p| p.shared);
        shared.and_then(|id| self.provider_path_mut(id)).into_iter().for_each(|path| path.count_message(now));
        if let Some(site) = self.site_mut(site) {
            site.last_take = now;
        }
        Work::Job(job)
    }

    /// The next job for a source at a site.
    fn pick(&mut self, site: SiteId, source: usize) -> Option<Box<Job>> {
        let s = self.site_mut(site)?;
        let bulk_first = s.passed >= LANE_RATIO;
        let order = if bulk_first { [1, 0] } else { [0, 1] };
        for lane in order {
            if let Some(job) = self.pick_lane(site, source, lane) {
                let s = self.site_mut(site)?;
                s.passed = if lane == 0 { s.passed.saturating_add(1) } else { 0 };
                return Some(job);
            }
        }
        None
    }

    fn pick_lane(&mut self, id: SiteId, source: usize, lane: usize) -> Option<Box<Job>> {
        let pools = self.site(id)?.pools.len();
        let mut first_tried = false;
        // One step more than there are pools: the first one's turn may have ended, and then it is the only one with work.
        for step in 0..=pools {
            let site = self.site(id)?;
            let at = site.lane_at[lane] % pools.max(1);
            let pool = site.pools.get(at)?;
            let ready = pool.rings[lane].len();
            let on_turn = site.lane_turn[lane] < ready * QUANTUM as usize;
            let usable = ready > 0 && on_turn && pool.share.has(source) && !(step == pools && first_tried);
            first_tried |= step == 0 && usable;
            if usable
                && !self.gives_way(id, at, source)
                && let Some(job) = self.pick_ring(id, at, source, lane)
            {
                if let Some(site) = self.site_mut(id) {
                    site.lane_turn[lane] += 1;
                    site.pools[at].share.charge(source);
                }
                return Some(job);
            }
            let site = self.site_mut(id)?;
            site.lane_at[lane] = (at + 1) % pools;
            site.lane_turn[lane] = 0;
        }
        None
    }

    /// Whether another source with an idle connection is so far behind that it is its turn; then it is woken.
    fn gives_way(&mut self, id: SiteId, pool: usize, source: usize) -> bool {
        let Some(site) = self.site(id) else { return false };
        let share = &site.pools[pool].share;
        let gives = site.paths.iter().any(|p| {
            p.source != source
                && !p.idle.is_empty()
                && share.has(p.source)
                && share.is_ahead(source, p.source)
                && admit(&self.question(id, p.source, Ask::Send)) == Verdict::Go
        });
        if gives {
            self.mark_dirty(id);
        }
        gives
    }

    fn pick_ring(&mut self, site: SiteId, pool: usize, source: usize, lane: usize) -> Option<Box<Job>> {
        let mut tries = self.site(site)?.pools[pool].rings[lane].len().saturating_mul(3).min(TRIES_MAX);
        let mut at = 0;
        while tries > 0 && at < FRONT {
            tries -= 1;
            self.totals.steps += 1;
            let queue = *self.site(site)?.pools[pool].rings[lane].get(at)?;
            match self.look_at_head(queue, site, source) {
                Head::Job(job) => {
                    self.after_take(queue, site, pool, lane, &job);
                    return Some(job);
                }
                Head::Again => {}
                Head::Reading => at += 1,
                Head::Rotate => self.send_back(queue, site, pool, lane),
            }
        }
        None
    }

    /// A queue of the front goes to the end of its ring.
    fn send_back(&mut self, id: QueueId, site: SiteId, pool: usize, lane: usize) {
        let Some(ring) = self.site_mut(site).and_then(|s| s.pools.get_mut(pool)).map(|p| &mut p.rings[lane]) else {
            return;
        };
        if ring.front() == Some(&id) {
            ring.rotate_left(1);
        } else if let Some(at) = ring.iter().take(FRONT).position(|queue| *queue == id) {
            ring.remove(at);
            ring.push_back(id);
        }
    }

    fn look_at_head(&mut self, id: QueueId, site: SiteId, source: usize) -> Head {
        let now = self.now;
        let Some(queue) = self.queues.get_mut(&id) else { return Head::Rotate };
        if queue.deficit <= 0 {
            let quantum = self.campaigns.quantum(queue);
            queue.deficit += quantum;
            if queue.deficit <= 0 {
                return Head::Rotate;
            }
        }
        let Some((key, entry)) = queue.window.first_key_value() else {
            self.advance(id);
            return self.again_unless_front(id);
        };
        let (key, message) = (*key, key.delivery.message);
        if key.due > now {
            self.advance(id);
            return self.again_unless_front(id);
        }
        let overdue = effects::is_overdue(entry.expires, false, self.started, now) && entry.key.due < entry.expires;
        let marked = !queue.marks.is_empty();
        if overdue || marked {
            let marked = marked.then(|| entry.clone());
            let how = marked.and_then(|entry| self.mark_for(id, &entry));
            if let Some(how) = how.or(overdue.then_some(How::Expire)) {
                if !self.has_disposal_room() {
                    return Head::Rotate;
                }
                if let Some(entry) = self.window_remove(id, &key) {
                    self.dispose(id, entry, how);
                }
                return Head::Again;
            }
        }
        if self.queues.get(&id).is_some_and(|q| q.campaign.is_some())
            && let Some(head) = self.ask_campaign(id, site, source)
        {
            return head;
        }
        // The last job of another queue may have used the limit up since it was asked.
        if self.queues.get(&id).is_some_and(|q| q.shared != [None; 3]) && self.waits_for_shared(id) {
            return Head::Again;
        }
        let Some(message) = self.cache.pin(message) else {
            self.want_load(id, site);
            return Head::Reading;
        };
        match self.make_job(id, site, source, key, message) {
            Some(job) => {
                self.charge_campaign(id);
                self.charge_shared(id, job.size);
                Head::Job(job)
            }
            None => Head::Again,
        }
    }

    /// Whether the campaign of a queue lets its head go; a queue that waits for its rate leaves the ring, so that nobody waits behind it.
    fn ask_campaign(&mut self, id: QueueId, site: SiteId, source: usize) -> Option<Head> {
        let campaign = self.campaign_state(self.queues.get(&id)?)?;
        match admit(&Question { campaign: Some(campaign), ..self.question(site, source, Ask::Send) }) {
            Verdict::Go => None,
            Verdict::Wait { reason: Reason::Rate(Limit::CampaignRate), .. } => {
                self.wait_for_rate(id);
                Some(Head::Again)
            }
            Verdict::Wait { .. } => Some(Head::Rotate),
        }
    }

    /// A queue that left the ring is not at its front any more; one that stayed must not be looked at for ever.
    fn again_unless_front(&self, id: QueueId) -> Head {
        if self.queues.get(&id).is_some_and(|q| q.status == Status::Ready) { Head::Rotate } else { Head::Again }
    }

    fn make_job(
        &mut self,
        id: QueueId,
        site: SiteId,
        source: usize,
        key: EntryKey,
        message: Arc<StoredMessage>,
    ) -> Option<Box<Job>> {
        let mut recipients = Vec::with_capacity(1);
        let entry = self.window_remove(id, &key)?;
        let returns = self.returns.clone();
        let bounces = returns.as_ref().and_then(|r| Some((r, r.domain(&self.config, &message.envelope)?)));
        // One that has a return path of its own is alone in its transaction.
        let several = entry.recipients > 1 && bounces.is_none();
        self.take(id, &entry);
        recipients.push((id, entry));
        if several {
            self.take_siblings(id, site, key, &message, &mut recipients);
        }
        let envelope = &message.envelope;
        let class = self.queues.get(&id).map_or(envelope.class, |q| q.key.class);
        let number = self.number();
        let job_recipients: Vec<JobRecipient> = recipients
            .iter()
            .filter_map(|(_, entry)| {
                let recipient = envelope.recipients.get(entry.key.delivery.index as usize)?;
                Some(JobRecipient {
                    delivery: entry.key.delivery,
                    mailbox: recipient.mailbox.clone(),
                    notify: recipient.notify,
                    orcpt: recipient.orcpt.clone(),
                })
            })
            .collect();
        if job_recipients.len() != recipients.len() {
            // The row points past the envelope: only damage does that. It must not be lost without a word.
            self.cache.unpin(envelope.id, false);
            for (queue, entry) in recipients {
                self.dispose_taken(queue, entry, How::Missing);
            }
            return None;
        }
        let reverse_path = match (&bounces, job_recipients.first()) {
            (Some((returns, domain)), Some(first)) => returns.return_path(domain, envelope, &first.mailbox, self.now),
            (Some(_), None) | (None, _) => envelope.reverse_path.clone(),
        };
        let job = Box::new(Job {
            id: number,
            message: envelope.id,
            reverse_path,
            ret: envelope.ret,
            envid: envelope.envid.clone(),
            smtputf8: envelope.smtputf8,
            eight_bit: envelope.eight_bit,
            size: message.body.len() as u64,
            class,
            recipients: job_recipients,
        });
        self.totals.in_flight += recipients.len() as u32;
        self.jobs.insert(number, InFlight { message, site, source, recipients });
        Some(job)
    }

    /// Other recipients of the same message that wait at this site, due at the same time: in this queue, and in those of other
    /// domains that differ in nothing else.
    fn take_siblings(
        &mut self,
        id: QueueId,
        site: SiteId,
        head: EntryKey,
        message: &StoredMessage,
        recipients: &mut Vec<(QueueId, QueueEntry)>,
    ) {
        let of_site = self.site(site).and_then(|s| s.limits.recipients_per_message.as_ref().map(|c| c.max));
        let most = self.config.delivery.max_recipients.min(of_site.unwrap_or(u32::MAX)).max(1) as usize;
        let all = &message.envelope.recipients;
        let mut last_domain = None;
        let mut last_queue = None;
        // Those before it had their turn as heads, mostly; a message to thousands must not be walked through for each of them.
        let first = head.delivery.index as usize + 1;
        for (index, recipient) in all.iter().enumerate().skip(first).take(SIBLINGS_SEEN_MAX) {
            if recipients.len() >= most {
                return;
            }
            let Ok(index) = u32::try_from(index) else { return };
            self.totals.steps += 1;
            let domain = recipient.mailbox.domain();
            if last_domain != Some(domain) {
                last_domain = Some(domain);
                last_queue = self.sibling_queue(id, domain, site);
            }
            let Some(queue) = last_queue else { continue };
            let key = EntryKey { due: head.due, delivery: DeliveryId { message: head.delivery.message, index } };
            if self.queues.get(&queue).is_some_and(|q| !q.marks.is_empty()) {
                continue;
            }
            if let Some(entry) = self.window_remove(queue, &key) {
                self.take(queue, &entry);
                recipients.push((queue, entry));
                if queue != id && self.queues.get(&queue).is_some_and(|q| q.window.is_empty()) {
                    self.advance(queue);
                }
            }
        }
    }

    fn sibling_queue(&self, id: QueueId, domain: &crate::types::Domain, site: SiteId) -> Option<QueueId> {
        let key = &self.queues.get(&id)?.key;
        if key.domain == *domain {
            return Some(id);
        }
        self.domains.get(domain)?.queues.iter().copied().find(|other| {
            self.queues.get(other).is_some_and(|q| {
                q.status == Status::Ready
                    && q.site == Some(site)
                    && q.key.class == key.class
                    && q.key.tenant == key.tenant
                    && q.key.campaign == key.campaign
                    && q.key.pool == key.pool
            })
        })
    }

    fn after_take(&mut self, id: QueueId, site: SiteId, pool: usize, lane: usize, job: &Job) {
        let cost = 1 + (job.size / u64::from(COST_BYTES)).min(u64::from(COST_MAX - 1));
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.deficit -= cost as i32;
        let spent = queue.deficit <= 0;
        let next = queue.window.first_key_value().map(|(key, _)| (key.due, key.delivery.message));
        let stays = next.is_some_and(|(due, _)| due <= self.now);
        if !stays {
            self.advance(id);
        } else {
            self.refill(id);
            if !spent && next.is_some_and(|(_, message)| !self.cache.has(message)) {
                self.want_load(id, site);
            }
        }
        if spent && self.queues.get(&id).is_some_and(|q| q.status == Status::Ready) {
            self.send_back(id, site, pool, lane);
            self.read_front(site, pool, lane);
        }
    }

    /// A queue left the front of a ring: what comes into it is read.
    fn read_front(&mut self, site: SiteId, pool: usize, lane: usize) {
        let Some(ring) = self.site(site).and_then(|s| s.pools.get(pool)).map(|p| &p.rings[lane]) else { return };
        let Some(last) = ring.get(ring.len().min(FRONT).saturating_sub(1)).copied() else { return };
        let head = self.queues.get(&last).and_then(|q| q.window.first_key_value());
        if head.is_some_and(|(key, _)| !self.cache.has(key.delivery.message)) {
            self.read_ahead(last);
        }
    }

    /// Reads the head of a queue, and the next ones ahead of need; the site is looked at when the head comes. Answers whether there
    /// was room for the head.
    fn want_load(&mut self, id: QueueId, site: SiteId) -> bool {
        let head = self.queues.get(&id).and_then(|q| q.window.first_key_value());
        let Some((message, size)) = head.map(|(key, entry)| (key.delivery.message, entry.size)) else { return true };
        let room = self.cache.has(message) || self.load(message, size, site);
        if room {
            self.read_ahead(id);
        }
        room
    }

    /// Reads the next messages of a queue as far as there is room.
    fn read_ahead(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        let now = self.now;
        let mut wanted: [Option<(MessageId, u32)>; READ_AHEAD] = [None; READ_AHEAD];
        let heads = queue.window.values().take_while(|e| e.key.due <= now);
        let ahead = heads.take(READ_AHEAD).map(|e| (e.key.delivery.message, e.size)).enumerate();
        let mut missing =
            ahead.filter(|(_, (message, _))| !self.loads.contains_key(message) && !self.cache.has(*message)).peekable();
        if missing.peek().is_none_or(|(place, _)| *place >= AHEAD_ENOUGH) {
            return;
        }
        wanted.iter_mut().zip(missing).for_each(|(slot, (_, message))| *slot = Some(message));
        for (message, size) in wanted.into_iter().flatten() {
            if !self.load_ahead(message, size) {
                return;
            }
        }
    }

    /// Asks for a message that nobody waits for yet, as far as there is room. What it would push out is wanted sooner.
    fn load_ahead(&mut self, message: MessageId, size: u32) -> bool {
        let bytes = self.load_bytes + u64::from(size);
        let room = self.loads.len() < LOADS_MAX && self.cache.has_room_ahead(bytes, self.now);
        // Two recipients of one message may stand one behind the other.
        if room && !self.loads.contains_key(&message) {
            self.start_load(message, u64::from(size));
        }
        room
    }

    /// Asks for a message on behalf of a site. No more is read at a time than half of what the cache keeps of read messages, so that
    /// none is pushed out before its turn; without room the site waits in line.
    fn load(&mut self, message: MessageId, size: u32, site: SiteId) -> bool {
        if !self.loads.contains_key(&message) {
            let room = self.config.storage.content_cache.0 / 4;
            let full = self.load_bytes + u64::from(size) > room || self.loads.len() >= LOADS_MAX;
            if full && !self.loads.is_empty() {
                if !self.load_line.contains(&site) {
                    self.load_line.push_back(site);
                }
                return false;
            }
            self.start_load(message, u64::from(size));
        }
        let waiters = self.load_waiters.entry(message).or_default();
        if !waiters.contains(&site) {
            waiters.push(site);
        }
        true
    }

    fn start_load(&mut self, message: MessageId, size: u64) {
        self.loads.insert(message, size);
        self.load_bytes += size;
        self.metrics.loads.inc();
        self.actions.push_back(Action::Load(message));
    }

    /// Asks for a message that is needed to end something; those who ask bound themselves.
    pub(super) fn load_anyway(&mut self, message: MessageId) {
        if !self.loads.contains_key(&message) {
            self.start_load(message, 0);
        }
    }

    /// Reads the heads of a pool's queues, so that a connection that opens finds work.
    pub(super) fn want_loads(&mut self, site: SiteId, pool: usize) {
        let mut heads: [Option<QueueId>; 2 * HEADS_AHEAD] = [None; 2 * HEADS_AHEAD];
        if let Some(p) = self.site(site).and_then(|s| s.pools.get(pool)) {
            let first = (0..LANES.len()).flat_map(|lane| p.rings[lane].iter().take(HEADS_AHEAD));
            heads.iter_mut().zip(first).for_each(|(slot, id)| *slot = Some(*id));
        }
        for id in heads.into_iter().flatten() {
            let head = self.queues.get(&id).and_then(|q| q.window.first_key_value());
            let Some(message) = head.map(|(key, _)| key.delivery.message) else { continue };
            if !self.cache.has(message) && !self.want_load(id, site) {
                return;
            }
        }
    }

    /// Recipients in an attempt.
    pub fn in_flight(&self) -> impl Iterator<Item = DeliveryId> + '_ {
        self.jobs.values().flat_map(|job| job.recipients.iter().map(|(_, entry)| entry.key.delivery))
    }
}
