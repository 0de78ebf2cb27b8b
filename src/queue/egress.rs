//! Egress: the task that drives the scheduler on the egress thread.
//!
//! 1. news from the ledger, commands from operators, and the scheduler's deadline are its inputs;
//! 2. connections call it directly (it is their [`Dispatcher`]): no channel, no wake-up a message;
//! 3. after each input the scheduler's actions are carried out: look-ups, reads and openings as tasks of this thread, outcomes to the
//!    ledger at once;
//! 4. at the end it drains: nothing new starts, connections finish and say QUIT, outcomes get on disk, at most [`DRAIN_MAX`].
//!
//! It runs on a `LocalSet` of a current-thread runtime. Nothing here is shared by a lock: the scheduler is in a `RefCell`, which is never
//! borrowed across an await.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::{Notify, mpsc, watch};

use super::admin::{Command, CommandError, EntryInfo, Matcher, Reply};
use super::scheduler::{Action, Scheduler};
use crate::config::Config;
use crate::delivery::{ConnectionId, Dispatcher, Failure, JobReport, LocalFuture, OpenRequest, Peer, Resolution, Work};
use crate::seam::clock::Clock;
use crate::store::{Ledger, News, ReadError, Reader, Settle, StoredMessage};
use crate::types::{Domain, MessageId, QueueId, RowId, Timestamp};

/// How long the end waits for attempts under way.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Commits whose news are taken in one go.
const NEWS_BATCH: usize = 32;
/// The longest sleep: a jump of the timer's clock is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// The most queues that `show` reads.
const SHOW_QUEUES_MAX: usize = 1_000;
/// The most recipients that `show` lists.
const SHOW_MAX: usize = 10_000;

/// Finds the way to a domain; delivery's router is one.
pub trait Resolve {
    /// Looks a domain up.
    fn resolve<'a>(&'a self, domain: &'a Domain) -> LocalFuture<'a, Resolution>;
}

/// Reads what an id stands for: a message, or the row of a campaign. The campaign engine's answers for rows: an envelope by
/// [`crate::store::Via::Campaign`] with one recipient and the row's octets for a body.
pub trait LoadMessage {
    /// The message; `None` when there is none, which ends its recipients. An error says that it waits.
    fn load(&self, id: MessageId) -> LocalFuture<'_, Loaded>;

    /// Several rows of campaigns, in the order asked. One read for all of them is cheaper than one each.
    fn load_rows<'a>(&'a self, ids: &'a [RowId]) -> LocalFuture<'a, Vec<Loaded>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(ids.len());
            for id in ids {
                all.push(self.load(id.message_id()).await);
            }
            all
        })
    }
}

/// The answer to a load.
pub type Loaded = Result<Option<Arc<StoredMessage>>, String>;

/// Messages of the store; rows wait, since nobody here can read them.
impl LoadMessage for Reader {
    fn load(&self, id: MessageId) -> LocalFuture<'_, Result<Option<Arc<StoredMessage>>, String>> {
        Box::pin(async move {
            if RowId::of(id).is_some() {
                return Err("nothing here reads the rows of campaigns".to_owned());
            }
            self.message(id).await.map_err(|e| e.to_string())
        })
    }
}

/// Opens connections; delivery's connector is one.
pub trait Connect {
    /// Spawns the task of a connection, which calls the dispatcher: `opened` and `next`, or `closed`. Must not call it before it returns.
    fn open(&self, request: OpenRequest, dispatcher: Rc<dyn Dispatcher>);
}

/// Copies sessions to an operator; delivery's trace hub is one.
pub trait TraceSessions {
    /// The next session to this domain is copied to `lines`.
    fn watch(&self, domain: Domain, lines: mpsc::Sender<String>);
}

/// What the task is made of.
pub struct EgressParts {
    /// The scheduler.
    pub scheduler: Scheduler,
    /// The clock.
    pub clock: Clock,
    /// The way to the writer.
    pub ledger: Ledger,
    /// The way to the readers.
    pub reader: Reader,
    /// Who reads messages and rows; the reader itself where there are no campaigns.
    pub load: Rc<dyn LoadMessage>,
    /// The router.
    pub resolver: Rc<dyn Resolve>,
    /// The connector.
    pub connect: Rc<dyn Connect>,
    /// The trace hub.
    pub trace: Rc<dyn TraceSessions>,
    /// What the ledger tells.
    pub news: mpsc::Receiver<Vec<News>>,
    /// What operators ask.
    pub commands: mpsc::Receiver<Command>,
    /// The configuration; a new one is applied at once.
    pub config: watch::Receiver<Arc<Config>>,
    /// Hears of each settle before the ledger gets it: the tenants' usage is counted there.
    pub settling: Box<dyn Fn(&Settle)>,
}

struct Shared {
    scheduler: RefCell<Scheduler>,
    clock: Clock,
    ledger: Ledger,
    reader: Reader,
    load: Rc<dyn LoadMessage>,
    resolver: Rc<dyn Resolve>,
    connect: Rc<dyn Connect>,
    trace: Rc<dyn TraceSessions>,
    settling: Box<dyn Fn(&Settle)>,
    wakes: RefCell<AHashMap<ConnectionId, Rc<Notify>>>,
    /// Rows that are wanted, for the task that reads them; it has been spawned when there is one.
    rows: RefCell<Vec<RowId>>,
    /// The time that the task sleeps until.
    armed: Cell<Option<Timestamp>>,
    moved: Notify,
}

/// The dispatcher that connections know.
struct Door(Rc<Shared>);

/// The egress task.
pub struct Egress {
    shared: Rc<Shared>,
    news: mpsc::Receiver<Vec<News>>,
    commands: mpsc::Receiver<Command>,
    config: watch::Receiver<Arc<Config>>,
}

impl Egress {
    /// The task; nothing happens before [`Egress::run`].
    pub fn new(parts: EgressParts) -> Self {
        let shared = Rc::new(Shared {
            scheduler: RefCell::new(parts.scheduler),
            clock: parts.clock,
            ledger: parts.ledger,
            reader: parts.reader,
            load: parts.load,
            resolver: parts.resolver,
            connect: parts.connect,
            trace: parts.trace,
            settling: parts.settling,
            wakes: RefCell::default(),
            rows: RefCell::default(),
            armed: Cell::new(None),
            moved: Notify::new(),
        });
        Self { shared, news: parts.news, commands: parts.commands, config: parts.config }
    }

    /// Runs until `shutdown` and then until all is finished and on disk, at most [`DRAIN_MAX`]. Answers whether all was.
    ///
    /// Must run within a `LocalSet`.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> bool {
        let shared = self.shared.clone();
        shared.with(|scheduler, now| scheduler.tick(now));
        tokio::pin!(shutdown);
        let mut drain_until: Option<tokio::time::Instant> = None;
        let mut batch = Vec::with_capacity(NEWS_BATCH);
        loop {
            if drain_until.is_some() && shared.scheduler.borrow().is_quiet() {
                return true;
            }
            let deadline = shared.scheduler.borrow().deadline();
            shared.armed.set(deadline);
            let sleep = deadline.map_or(SLEEP_MAX, |at| at.since(shared.clock.now())).min(SLEEP_MAX);
            let drained = async {
                match drain_until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                count = self.news.recv_many(&mut batch, NEWS_BATCH) => {
                    if count == 0 {
                        // The ledger has ended: nothing can be settled any more.
                        shared.with(|scheduler, now| scheduler.on_store_failed(now));
                        return false;
                    }
                    let news = if count == 1 { batch.pop().unwrap_or_default() } else { batch.drain(..).flatten().collect() };
                    shared.with(|scheduler, now| scheduler.on_news(now, news));
                }
                Some(command) = self.commands.recv() => shared.command(command),
                () = tokio::time::sleep(sleep) => shared.with(|scheduler, now| scheduler.tick(now)),
                () = shared.moved.notified() => {}
                Ok(()) = self.config.changed() => {
                    let config = self.config.borrow_and_update().clone();
                    shared.with(|scheduler, now| scheduler.reconfigure(now, config));
                }
                () = &mut shutdown, if drain_until.is_none() => {
                    drain_until = Some(tokio::time::Instant::now() + DRAIN_MAX);
                    shared.with(|scheduler, now| scheduler.drain(now));
                }
                () = drained => return shared.scheduler.borrow().is_quiet(),
            }
        }
    }
}

impl Shared {
    /// Gives the scheduler an input and carries out what follows.
    fn with<T>(self: &Rc<Self>, input: impl FnOnce(&mut Scheduler, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let answer = input(&mut self.scheduler.borrow_mut(), now);
        self.carry_out();
        answer
    }

    fn carry_out(self: &Rc<Self>) {
        loop {
            let action = self.scheduler.borrow_mut().next_action();
            let Some(action) = action else { break };
            self.carry_out_one(action);
        }
        let deadline = self.scheduler.borrow().deadline();
        let earlier = deadline.is_some_and(|at| self.armed.get().is_none_or(|armed| at < armed));
        if earlier {
            // The task sets its timer anew; told once.
            self.armed.set(deadline);
            self.moved.notify_one();
        }
    }

    fn carry_out_one(self: &Rc<Self>, action: Action) {
        match action {
            Action::Wake(conn) => {
                if let Some(wake) = self.wakes.borrow().get(&conn) {
                    wake.notify_one();
                }
            }
            Action::Settle(settle) => {
                (self.settling)(&settle);
                if self.ledger.settle(settle).is_err() {
                    let now = self.clock.now();
                    self.scheduler.borrow_mut().on_store_failed(now);
                }
            }
            Action::Open(request) => {
                self.wakes.borrow_mut().insert(request.conn, Rc::new(Notify::new()));
                self.connect.open(request, Rc::new(Door(self.clone())));
            }
            Action::Resolve(domain) => {
                let shared = self.clone();
                tokio::task::spawn_local(async move {
                    let resolution = shared.resolver.resolve(&domain).await;
                    shared.with(|scheduler, now| scheduler.on_resolved(now, &domain, resolution));
                });
            }
            Action::Read { ticket, queue, after, limit } => {
                let shared = self.clone();
                tokio::task::spawn_local(async move {
                    let page = shared.reader.refill(queue, after, limit).await;
                    shared.with(|scheduler, now| scheduler.on_read(now, ticket, page));
                });
            }
            Action::Load(id) if RowId::of(id).is_some() => self.want_row(id),
            Action::Load(id) => {
                let shared = self.clone();
                tokio::task::spawn_local(async move {
                    let message = shared.load.load(id).await;
                    shared.with(|scheduler, now| scheduler.on_loaded(now, id, message));
                });
            }
            Action::Submit { ticket, changes } => {
                let shared = self.clone();
                tokio::task::spawn_local(async move {
                    let result = shared.ledger.submit(changes).await;
                    shared.with(|scheduler, now| scheduler.on_submitted(now, ticket, result));
                });
            }
        }
    }

    /// Asks for a row of a campaign, together with all that are asked for before the task that reads them has its turn.
    fn want_row(self: &Rc<Self>, id: MessageId) {
        let mut wanted = self.rows.borrow_mut();
        wanted.extend(RowId::of(id));
        if wanted.len() > 1 {
            return;
        }
        let shared = self.clone();
        tokio::task::spawn_local(async move {
            let ids = shared.rows.take();
            let loaded = shared.load.load_rows(&ids).await;
            shared.with(|scheduler, now| {
                for (id, message) in ids.iter().zip(loaded) {
                    scheduler.on_loaded(now, id.message_id(), message);
                }
            });
        });
    }

    fn command(self: &Rc<Self>, command: Command) {
        match self.with(|scheduler, now| scheduler.command(now, command)) {
            Some(Command::Show { matcher, limit, reply }) => {
                let shared = self.clone();
                tokio::task::spawn_local(async move { shared.show(matcher, limit, reply).await });
            }
            Some(Command::TraceSmtp { domain, lines }) => self.trace.watch(domain, lines),
            // The scheduler gives back no other.
            Some(_) | None => {}
        }
    }

    async fn show(self: &Rc<Self>, matcher: Matcher, limit: usize, reply: Reply<Vec<EntryInfo>>) {
        let queues = self.scheduler.borrow().matching(&matcher);
        let limit = limit.clamp(1, SHOW_MAX);
        let mut found = Vec::new();
        for (queue, _) in queues.into_iter().take(SHOW_QUEUES_MAX) {
            if let Err(error) = self.show_queue(queue, &matcher, limit, &mut found).await {
                return drop(reply.send(Err(CommandError::Store(error.to_string()))));
            }
        }
        found.sort_by_key(|info: &EntryInfo| (info.due, info.message_id, info.index));
        found.truncate(limit);
        let mut last = None;
        for info in &mut found {
            if last.as_ref().is_none_or(|(id, _)| *id != info.message_id) {
                last = Some((info.message_id, self.load.load(info.message_id).await.ok().flatten()));
            }
            if let Some((_, Some(message))) = &last {
                let envelope = &message.envelope;
                info.recipient = envelope.recipients.get(info.index as usize).map(|r| r.mailbox.as_str().to_owned());
                info.sender = Some(envelope.reverse_path.to_string());
            }
        }
        drop(reply.send(Ok(found)));
    }

    /// The first `limit` entries of one queue that are meant.
    async fn show_queue(
        &self,
        queue: QueueId,
        matcher: &Matcher,
        limit: usize,
        found: &mut Vec<EntryInfo>,
    ) -> Result<(), ReadError> {
        let (mut after, mut count) = (None, 0);
        loop {
            let page = self.reader.refill(queue, after, limit.min(1_000)).await?;
            for entry in &page.entries {
                let meant = matcher.message.is_none_or(|m| m == entry.key.delivery.message)
                    && matcher.older_than.is_none_or(|t| entry.accepted < t);
                if meant && count < limit {
                    count += 1;
                    found.push(EntryInfo {
                        message_id: entry.key.delivery.message,
                        index: entry.key.delivery.index,
                        recipient: None,
                        sender: None,
                        accepted: entry.accepted,
                        due: entry.key.due,
                        expires: entry.expires,
                        attempts: entry.attempts,
                        last_reply: entry.last_reply.as_deref().map(str::to_owned),
                        size: entry.size,
                    });
                }
            }
            after = page.entries.last().map(|e| e.key);
            if page.exhausted || count >= limit || after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Dispatcher for Door {
    fn next(&self, conn: ConnectionId, peer: &Peer) -> Work {
        self.0.with(|scheduler, now| scheduler.next(now, conn, peer))
    }

    fn wake_handle(&self, conn: ConnectionId) -> Rc<Notify> {
        self.0.wakes.borrow_mut().entry(conn).or_default().clone()
    }

    fn report(&self, conn: ConnectionId, peer: &Peer, report: JobReport) {
        self.0.with(|scheduler, now| scheduler.report(now, conn, peer, report));
    }

    fn opened(&self, conn: ConnectionId, peer: &Peer) {
        self.0.with(|scheduler, now| scheduler.opened(now, conn, peer));
    }

    fn closed(&self, conn: ConnectionId, failure: Option<Failure>) {
        self.0.wakes.borrow_mut().remove(&conn);
        self.0.with(|scheduler, now| scheduler.closed(now, conn, failure));
        // The end may have been waiting for this connection.
        self.0.moved.notify_one();
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
