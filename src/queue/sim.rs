//! A simulated world around the scheduler: a ledger in memory that commits in batches, receivers with tempers, and a clock in hand.
//!
//! 1. everything that takes time (a commit, a read, a connection, a transaction) is an event in one heap, ordered by time and number;
//! 2. [`World::run_until`] takes the next one, gives it to the scheduler, and carries out the scheduler's actions;
//! 3. [`World::crash`] drops the scheduler and all that was not committed, and starts again from the rows.
//!
//! The same seed gives the same run.

mod campaigns;
mod ledger;
pub(crate) mod peers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;

use super::admin::CampaignControl;
use super::cache::ContentCache;
use super::scheduler::{Action, AdminRecords, Scheduler, Start};
use super::testing::{self, Recorder};
use crate::config::Config;
use crate::delivery::{ConnectionId, Failure, Job, JobReport, NOT_TRIED, OpenRequest, Outcome, Resolution, Work};
use crate::event::{Event, EventKind, Severity, SmtpReply};
use crate::metrics::Registry;
use crate::metrics::queue::QueueMetrics;
use crate::seam::random::Seeded;
use crate::store::{
    Change, EntryKey, QueueEntry, QueueRow, ReadError, Refill, Run, Settle, StoredMessage, SubmitError,
};
use crate::types::{CampaignNo, Class, DeliveryId, Domain, MessageId, QueueId, QueueKey, Timestamp};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);
/// No run of these tests has so many events.
const HAPPENINGS_MAX: u64 = 1_000_000;
/// From a submission to its commit.
const COMMIT_MS: u64 = 4;

/// How a domain's host behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Temper {
    /// Nobody answers before this.
    pub dead_until: Timestamp,
    /// It greets, and closes before any mail, before this.
    pub leaves_until: Timestamp,
    /// Of a hundred recipients, so many are deferred.
    pub defers: u64,
    /// Of a hundred recipients, so many are refused.
    pub refuses: u64,
    /// The longest transaction.
    pub latency_ms: u64,
    /// The domain has no host.
    pub unknown: Option<Severity>,
}

/// A queue with very many rows that are made when they are read: row `i` is due at `START - n + i`.
pub(crate) struct Bulk {
    pub queue: QueueId,
    pub rows: u64,
    pub gone: ahash::AHashSet<u64>,
    pub to: &'static str,
}

impl Bulk {
    fn message(&self, i: u64) -> Arc<StoredMessage> {
        testing::message(i, Timestamp::from_millis(START.as_millis() - self.rows + i), &[self.to], 100)
    }

    fn number(&self, key: &EntryKey) -> u64 {
        key.due.as_millis().saturating_sub(START.as_millis() - self.rows)
    }
}

enum Happening {
    Commit,
    Page { ticket: u64, page: Result<Refill, ReadError> },
    Loaded(MessageId),
    Resolved(Domain),
    Submitted { ticket: u64 },
    Connected(ConnectionId),
    Done { conn: ConnectionId, job: Box<Job>, started: Timestamp },
    Ask(ConnectionId),
    IdleOver(ConnectionId, u64),
}

struct SimConn {
    request: OpenRequest,
    idle: Option<u64>,
}

/// What waits for the next commit.
enum Write {
    Accept { message: Arc<StoredMessage>, deliveries: Vec<(QueueKey, QueueEntry)> },
    Settle(Settle),
    Submit { ticket: u64, changes: Vec<Change> },
    Run { campaign: CampaignNo, run: Option<Run> },
}

pub(crate) struct World {
    /// What a domain's host answers to every recipient.
    pub says: AHashMap<String, SmtpReply>,
    /// Hosts that limit, by domain.
    pub meters: AHashMap<String, peers::Meter>,
    pub recorder: Rc<Recorder>,
    /// So many jobs are reported as never looked at.
    pub not_tried: u32,
    /// The longest time that a connection takes to open.
    pub connect_ms: u64,
    /// What this host lacks for a source: the stage of the failure, until when.
    pub troubles: AHashMap<String, (&'static str, Timestamp)>,
    /// A message that the reader cannot read.
    pub unreadable: Option<MessageId>,
    /// So many pages can't be read.
    pub bad_pages: u32,
    /// The channel of news is full: queued entries are not told one by one until it is not.
    pub channel_full: bool,
    untold: std::collections::BTreeSet<QueueId>,
    /// Rows of campaigns that were done and stood in the way of a page.
    pub passed_over: std::cell::Cell<u64>,
    pub now: Timestamp,
    pub config: Arc<Config>,
    pub scheduler: Scheduler,
    pub cache: Rc<ContentCache>,
    pub tempers: AHashMap<String, Temper>,
    /// Domains that share a host with another.
    pub hosts: AHashMap<String, String>,
    pub bulk: Option<Bulk>,
    pub campaigns: BTreeMap<CampaignNo, campaigns::SimCampaign>,
    /// What the campaign engine sets again at a start.
    pub controls: Vec<CampaignControl>,
    /// What the maker of content gives up: the stage, by domain.
    pub unsent: AHashMap<String, &'static str>,
    /// When each message was given to a connection.
    pub given: Vec<(Timestamp, MessageId)>,
    // The ledger.
    rows: BTreeMap<(QueueId, EntryKey), QueueEntry>,
    queue_ids: BTreeMap<QueueKey, QueueId>,
    messages: AHashMap<MessageId, Arc<StoredMessage>>,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub events: Vec<Event>,
    pending: Vec<Write>,
    commit_planned: bool,
    next_queue: u32,
    // The receivers.
    conns: AHashMap<ConnectionId, SimConn>,
    pub received: AHashMap<DeliveryId, u32>,
    pub received_at: Vec<(Timestamp, Domain, Class)>,
    pub transactions: u64,
    pub connections_max: AHashMap<String, usize>,
    pub connections_open_max: usize,
    pub opens: u64,
    pub window_max: usize,
    // Time.
    heap: BinaryHeap<Reverse<(Timestamp, u64)>>,
    happenings: AHashMap<u64, Happening>,
    number: u64,
    happened: u64,
    rng: Seeded,
    seed: u64,
}

impl World {
    pub(crate) fn new(seed: u64, config: Config) -> Self {
        let config = Arc::new(config);
        let recorder = Rc::new(Recorder::default());
        let (scheduler, cache) = make(&config, START, seed, Vec::new(), AdminRecords::default(), &[], &recorder);
        Self {
            says: AHashMap::new(),
            meters: AHashMap::new(),
            recorder,
            troubles: AHashMap::new(),
            not_tried: 0,
            connect_ms: 30,
            unreadable: None,
            bad_pages: 0,
            channel_full: false,
            untold: Default::default(),
            passed_over: Default::default(),
            now: START,
            config,
            scheduler,
            cache,
            tempers: AHashMap::new(),
            hosts: AHashMap::new(),
            bulk: None,
            campaigns: BTreeMap::new(),
            controls: Vec::new(),
            unsent: AHashMap::new(),
            given: Vec::new(),
            rows: BTreeMap::new(),
            queue_ids: BTreeMap::new(),
            messages: AHashMap::new(),
            state: BTreeMap::new(),
            events: Vec::new(),
            pending: Vec::new(),
            commit_planned: false,
            next_queue: 0,
            conns: AHashMap::new(),
            received: AHashMap::new(),
            received_at: Vec::new(),
            transactions: 0,
            connections_max: AHashMap::new(),
            connections_open_max: 0,
            opens: 0,
            window_max: 0,
            heap: BinaryHeap::new(),
            happenings: AHashMap::new(),
            number: 0,
            happened: 0,
            rng: Seeded::new(seed),
            seed,
        }
    }

    fn plan(&mut self, after_ms: u64, happening: Happening) {
        self.number += 1;
        self.heap.push(Reverse((self.now.after(Duration::from_millis(after_ms)), self.number)));
        self.happenings.insert(self.number, happening);
    }

    fn write(&mut self, write: Write) {
        self.pending.push(write);
        if !self.commit_planned {
            self.commit_planned = true;
            self.plan(COMMIT_MS, Happening::Commit);
        }
    }

    /// A submission; accepted at its commit.
    pub(crate) fn submit(&mut self, n: u64, tenant: &str, class: Class, to: &[&str]) -> MessageId {
        let size = 200 + (n % 50) as usize * 100;
        self.submit_message(testing::message(n, self.now, to, size), tenant, class)
    }

    pub(crate) fn submit_message(&mut self, message: Arc<StoredMessage>, tenant: &str, class: Class) -> MessageId {
        let id = message.envelope.id;
        let deliveries = (0..message.envelope.recipients.len() as u32).map(|i| {
            let to = message.envelope.recipients[i as usize].mailbox.domain();
            (testing::queue_key(tenant, class, to), testing::entry(&message, i))
        });
        let deliveries = deliveries.collect();
        self.write(Write::Accept { message, deliveries });
        id
    }

    /// A queue with very many rows at a dead host, there from the start.
    pub(crate) fn add_bulk(&mut self, to: &'static str, rows: u64) {
        let (_, domain) = to.split_once('@').expect("an address");
        let key = testing::queue_key("acme", Class::Marketing, &testing::domain(domain));
        let queue = self.queue_id(&key);
        self.bulk = Some(Bulk { queue, rows, gone: Default::default(), to });
    }

    /// Starts anew from what is committed.
    pub(crate) fn crash(&mut self) {
        self.pending.clear();
        self.commit_planned = false;
        self.conns.clear();
        self.heap.clear();
        self.happenings.clear();
        let rows = self.queue_rows();
        let mut records = AdminRecords::default();
        for (key, value) in &self.state {
            records.add(key, value).expect("a record that was written");
        }
        (self.scheduler, self.cache) =
            make(&self.config, self.now, self.seed ^ self.number, rows, records, &self.controls, &self.recorder);
        self.carry_out();
    }

    /// Runs until `until`, or until nothing more happens.
    pub(crate) fn run_until(&mut self, until: Timestamp) {
        loop {
            let happening = self.heap.peek().map_or(Timestamp::NEVER, |Reverse((at, _))| *at);
            let deadline = self.scheduler.deadline().unwrap_or(Timestamp::NEVER);
            let next = happening.min(deadline);
            if next > until || next == Timestamp::NEVER {
                self.now = self.now.max(until.min(next));
                return;
            }
            self.now = self.now.max(next);
            // A run of this size needs far less: more is a circle.
            self.happened += 1;
            assert!(self.happened < HAPPENINGS_MAX, "the world turns in a circle at {}", self.now);
            if deadline <= happening {
                self.scheduler.tick(self.now);
            } else if let Some(Reverse((_, number))) = self.heap.pop()
                && let Some(happening) = self.happenings.remove(&number)
            {
                self.happen(happening);
            }
            self.carry_out();
        }
    }

    pub(crate) fn run_for(&mut self, secs: u64) {
        self.run_until(self.now.after(Duration::from_secs(secs)));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Commit => self.commit(),
            Happening::Page { ticket, page } => self.scheduler.on_read(self.now, ticket, page),
            Happening::Loaded(id) => {
                let message = self.read_message(id);
                let answer = if self.unreadable == Some(id) { Err("damaged".to_owned()) } else { Ok(message) };
                self.scheduler.on_loaded(self.now, id, answer);
            }
            Happening::Resolved(domain) => {
                let temper = self.temper(&domain);
                let resolution = match temper.unknown {
                    None => {
                        let host = self.host(&domain);
                        Resolution::Plan(testing::plan(&host, self.now.after(Duration::from_secs(300))))
                    }
                    Some(severity) => Resolution::Failed(failure(severity, "no such domain", false)),
                };
                self.scheduler.on_resolved(self.now, &domain, resolution);
            }
            Happening::Submitted { ticket } => self.scheduler.on_submitted(self.now, ticket, Ok::<_, SubmitError>(())),
            Happening::Connected(conn) => self.connected(conn),
            Happening::Ask(conn) => self.ask(conn),
            Happening::Done { conn, job, started } => self.done(conn, job, started),
            Happening::IdleOver(conn, number) => {
                if self.conns.get(&conn).is_some_and(|c| c.idle == Some(number)) {
                    self.conns.remove(&conn);
                    self.scheduler.closed(self.now, conn, None);
                }
            }
        }
    }

    fn read_message(&self, id: MessageId) -> Option<Arc<StoredMessage>> {
        self.messages.get(&id).cloned().or_else(|| self.read_row(id)).or_else(|| {
            let bulk = self.bulk.as_ref()?;
            let i = id.timestamp().as_millis().checked_sub(START.as_millis() - bulk.rows)?;
            (i < bulk.rows).then(|| bulk.message(i))
        })
    }

    fn temper(&self, domain: &Domain) -> Temper {
        self.tempers.get(domain.as_str()).copied().unwrap_or(Temper { latency_ms: 20, ..Temper::default() })
    }

    fn host(&self, domain: &Domain) -> String {
        self.hosts.get(domain.as_str()).cloned().unwrap_or_else(|| format!("mx.{domain}"))
    }

    pub(crate) fn carry_out(&mut self) {
        while let Some(action) = self.scheduler.next_action() {
            match action {
                Action::Resolve(domain) => self.plan(3, Happening::Resolved(domain)),
                Action::Read { ticket, queue, after, limit } => {
                    // The snapshot is taken now, the answer comes later.
                    let mut page = Ok(self.page(queue, after, limit));
                    if self.bad_pages > 0 {
                        self.bad_pages -= 1;
                        page = Err(ReadError("damaged".into()));
                    }
                    let ms = 1 + self.rng.below(5);
                    self.plan(ms, Happening::Page { ticket, page });
                }
                Action::Load(id) => self.plan(2, Happening::Loaded(id)),
                Action::Open(request) => {
                    let ms = 1 + self.rng.below(self.connect_ms);
                    self.opens += 1;
                    let conn = request.conn;
                    let place = format!("{}>{}", request.source.name, request.plan.name);
                    self.conns.insert(conn, SimConn { request, idle: None });
                    let open = self
                        .conns
                        .values()
                        .filter(|c| format!("{}>{}", c.request.source.name, c.request.plan.name) == place)
                        .count();
                    let most = self.connections_max.entry(place).or_default();
                    *most = (*most).max(open);
                    self.connections_open_max = self.connections_open_max.max(self.conns.len());
                    self.plan(ms, Happening::Connected(conn));
                }
                Action::Wake(conn) => {
                    if let Some(c) = self.conns.get_mut(&conn) {
                        c.idle = None;
                        self.plan(0, Happening::Ask(conn));
                    }
                }
                Action::Settle(settle) => self.write(Write::Settle(settle)),
                Action::Submit { ticket, changes } => self.write(Write::Submit { ticket, changes }),
            }
        }
        self.window_max = self.window_max.max(self.scheduler.window_entries());
    }

    fn ask(&mut self, conn: ConnectionId) {
        let Some(c) = self.conns.get(&conn) else { return };
        let peer = testing::peer(&c.request.plan.name);
        match self.scheduler.next(self.now, conn, &peer) {
            Work::Job(job) => {
                self.transactions += 1;
                self.given.push((self.now, job.message));
                let most = self.temper(job.recipients[0].mailbox.domain()).latency_ms.max(1);
                let ms = 1 + self.rng.below(most);
                self.plan(ms, Happening::Done { conn, job, started: self.now });
            }
            Work::Idle => {
                let number = self.number;
                if let Some(c) = self.conns.get_mut(&conn) {
                    c.idle = Some(number);
                }
                self.plan(5_000, Happening::IdleOver(conn, number));
            }
            Work::Close => {
                self.conns.remove(&conn);
                self.scheduler.closed(self.now, conn, None);
            }
        }
    }

    fn done(&mut self, conn: ConnectionId, job: Box<Job>, started: Timestamp) {
        let Some(c) = self.conns.get(&conn) else { return };
        let peer = testing::peer(&c.request.plan.name);
        let mut outcomes = Vec::new();
        let not_tried = self.not_tried > 0;
        self.not_tried = self.not_tried.saturating_sub(1);
        for recipient in &job.recipients {
            if not_tried {
                let mut failure = failure(Severity::Temporary, "the session ended", false);
                failure.stage = NOT_TRIED;
                outcomes.push(Outcome::Failed(failure));
                continue;
            }
            if let Some(stage) = self.unsent.get(recipient.mailbox.domain().as_str()).copied() {
                let failure = failure(Severity::Permanent, "not for this address", false);
                outcomes.push(Outcome::Failed(Failure { stage, ..failure }));
                continue;
            }
            if let Some(reply) = self.answer(recipient.mailbox.domain()) {
                let severity = if reply.code < 500 { Severity::Temporary } else { Severity::Permanent };
                outcomes.push(Outcome::Failed(Failure { severity, reply, stage: "sending RCPT", remote: true }));
                continue;
            }
            let temper = self.temper(recipient.mailbox.domain());
            let dice = self.rng.below(100);
            outcomes.push(if dice < temper.refuses {
                Outcome::Failed(failure(Severity::Permanent, "no such user", true))
            } else if dice < temper.refuses + temper.defers {
                Outcome::Failed(failure(Severity::Temporary, "try again later", true))
            } else {
                *self.received.entry(recipient.delivery).or_default() += 1;
                self.received_at.push((self.now, recipient.mailbox.domain().clone(), job.class));
                Outcome::Delivered(SmtpReply { code: 250, enhanced: Some("2.0.0".into()), text: "ok".into() })
            });
        }
        // A row becomes a message; what goes out is longer than what is stored.
        let wire_size = job.size + 1_000;
        let report = JobReport { job, outcomes, ambiguous: false, wire_size, started, ended: self.now };
        self.scheduler.report(self.now, conn, &peer, report);
        self.carry_out();
        self.ask(conn);
    }

    /// Loses a message: only damage does that.
    pub(crate) fn lose(&mut self, id: MessageId) {
        self.messages.remove(&id);
    }

    /// Rows on disk, those that are made included.
    pub(crate) fn waiting(&self) -> usize {
        self.rows.len() + self.bulk.as_ref().map_or(0, |b| (b.rows - b.gone.len() as u64) as usize)
    }

    pub(crate) fn count(&self, kind: EventKind) -> usize {
        self.events.iter().filter(|e| e.event == kind).count()
    }

    /// The committed terminal events of each recipient.
    pub(crate) fn endings(&self) -> AHashMap<(MessageId, String), Vec<EventKind>> {
        let mut endings: AHashMap<_, Vec<_>> = AHashMap::new();
        for event in self.events.iter().filter(|e| e.event.is_terminal()) {
            if let (Some(id), Some(to)) = (event.message_id, &event.recipient) {
                endings.entry((id, to.as_str().to_owned())).or_default().push(event.event);
            }
        }
        endings
    }
}

fn make(
    config: &Arc<Config>,
    now: Timestamp,
    seed: u64,
    rows: Vec<QueueRow>,
    records: AdminRecords,
    campaigns: &[CampaignControl],
    recorder: &Rc<Recorder>,
) -> (Scheduler, Rc<ContentCache>) {
    let cache = Rc::new(ContentCache::new(config.storage.content_cache.0));
    let scheduler = Scheduler::new(Start {
        config: config.clone(),
        now,
        seed,
        rows,
        records,
        campaigns: campaigns.to_vec(),
        cache: cache.clone(),
        notifier: recorder.clone(),
        returns: None,
        metrics: QueueMetrics::register(&Registry::new()),
    });
    (scheduler, cache)
}

pub(crate) fn failure(severity: Severity, text: &str, remote: bool) -> Failure {
    let code = match (remote, severity) {
        (false, _) => 0,
        (true, Severity::Permanent) => 550,
        (true, Severity::Temporary) => 451,
    };
    let stage = if remote { "sending RCPT" } else { "connecting" };
    Failure { severity, reply: SmtpReply { code, enhanced: None, text: text.into() }, stage, remote }
}
