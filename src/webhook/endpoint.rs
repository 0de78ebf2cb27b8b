//! One endpoint: a task that reads the log behind its cursor and sends what is wanted, in order, until it is taken.
//!
//! 1. a batch is read: events of the tenant, of the wanted kinds, as many as fit,
//! 2. it is sent, and sent again with growing waits until it is taken; the next one waits for it: order,
//! 3. then the cursor is made durable: after a crash the last batch comes once more, never is one left out,
//! 4. after three days without success (or a 410) it is dead: an alert, and a probe an hour with the batch that waits; the first success revives it,
//! 5. an operator's command interrupts any wait: to try at once, or to begin elsewhere.
//!
//! Well → failing → well | dead; dead → well. Nothing here waits for anybody else, and nobody for it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::post::{Failed, FailedKind, Outgoing, SharedPoster};
use super::record::Record;
use super::{State, format, schedule, sign};
use crate::config::{Webhook, WebhookSecret, WebhookTarget};
use crate::event::{Event, EventKind};
use crate::metrics::webhook::WebhookMetrics;
use crate::seam::clock::Clock;
use crate::seam::random::Seeded;
use crate::store::{Change, EventGap, Ledger, ReadError, Reader, SubmitError};
use crate::types::{EventSeq, Name, Timestamp};

/// The longest body, but for a single event that is longer.
const BODY_MAX: usize = 512 << 10;
/// Events that are read at a time.
const PAGE: usize = 1_000;
/// Events that are looked through for one batch where few are wanted; then what there is, is sent.
const SCAN_MAX: usize = 20_000;
/// After a commit a little more is waited for: one request for many events, and one wake-up for many commits.
const LINGER: Duration = Duration::from_millis(200);
/// Events passed over before the cursor is saved without a request.
const SAVE_EVERY: u64 = 10_000;
/// The wait after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// What an operator asks of a running endpoint.
pub(super) enum Command {
    /// Try at once; a dead one is well again if it succeeds.
    Resume { reply: oneshot::Sender<()> },
    /// Begin again after this event.
    Replay { after: EventSeq, reply: oneshot::Sender<Result<(), SubmitError>> },
}

/// What the others see of it.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub state: State,
    pub after: EventSeq,
    pub failing_since: Option<Timestamp>,
    pub dead_since: Option<Timestamp>,
    pub failures: u32,
    pub last_error: Option<String>,
    pub last_error_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    pub next_try_at: Option<Timestamp>,
    pub taken: u64,
}

/// What an endpoint is made of.
pub(super) struct Endpoint {
    pub config: Webhook,
    pub target: WebhookTarget,
    pub secrets: Vec<WebhookSecret>,
    pub authorization: Option<String>,
    pub tenant_of_alerts: Name,
    pub reader: Reader,
    pub ledger: Ledger,
    pub clock: Clock,
    pub metrics: WebhookMetrics,
    pub poster: SharedPoster,
    pub view: Arc<Mutex<View>>,
}

/// A batch: its pieces, and where it begins and ends.
#[derive(Default)]
struct Batch {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    first: EventSeq,
    last: EventSeq,
    /// The cursor once it is taken.
    next: EventSeq,
    more: bool,
}

/// How a batch ended.
enum Sent {
    Taken,
    Elsewhere,
    Ending,
}

impl Endpoint {
    /// Sends one test event, whatever the state; changes nothing.
    pub async fn test(&self) -> Result<hyper::StatusCode, Failed> {
        let now = self.clock.now();
        let event = format::test_event(self.config.format, now, self.tenant_of_alerts.clone());
        let pieces: Vec<Vec<u8>> = format::piece(self.config.format, &event).into_iter().collect();
        let id = format!("{}_test_{}", self.id_prefix(), now.as_millis());
        self.post(&id, &pieces).await
    }

    fn id_prefix(&self) -> String {
        // The parts of what is signed are joined by full stops: there is none in an id.
        format!("wh_{}", self.config.name.as_str().replace('.', "_"))
    }

    async fn post(&self, id: &str, pieces: &[Vec<u8>]) -> Result<hyper::StatusCode, Failed> {
        let now = self.clock.now();
        let body = format::body(self.config.format, pieces, &self.secrets, now);
        let signature = sign::signatures(&self.secrets, id, now.as_secs(), &body);
        let done = self
            .poster
            .post(Outgoing {
                target: &self.target,
                allow_private: self.config.allow_private,
                timeout: self.config.timeout.0,
                authorization: self.authorization.as_deref(),
                id,
                timestamp_s: now.as_secs(),
                signature,
                body,
            })
            .await;
        let result = done.as_ref().map_or_else(|failed| failed.kind.as_str(), |_| "ok");
        self.metrics.requests.with_label_values(&[self.config.name.as_str(), result]).inc();
        done
    }

    /// Whether an event is wanted.
    fn wants(&self, kind: EventKind) -> bool {
        self.config.events.is_empty() || self.config.events.contains(&kind)
    }

    /// What of a gap in the log is told.
    fn gap(&self, gap: EventGap) -> Event {
        let mut event = Event::new(EventKind::Gap, self.clock.now(), self.tenant_of_alerts.clone());
        event.seq = gap.to;
        event.reason = Some(format!("events {} to {} were removed by retention", gap.from.0, gap.to.0).into());
        event
    }

    /// Reads events after `after` until a batch is full, or nothing is new.
    async fn batch(&self, after: EventSeq) -> Result<Batch, ReadError> {
        let most = if format::is_batched(self.config.format) { self.config.batch as usize } else { 1 };
        let mut batch = Batch { next: after, ..Batch::default() };
        let mut scanned = 0;
        loop {
            let page = self.reader.events(batch.next, PAGE, self.config.tenant.clone()).await?;
            let gap = page.gap.map(|gap| self.gap(gap));
            scanned += page.events.len();
            for event in gap.into_iter().chain(page.events) {
                let wanted = self.wants(event.event) || event.event == EventKind::Gap;
                if wanted && let Some(piece) = format::piece(self.config.format, &event) {
                    if !batch.pieces.is_empty() && batch.bytes + piece.len() + 1 > BODY_MAX {
                        batch.more = true;
                        return Ok(batch);
                    }
                    batch.bytes += piece.len() + 1;
                    if batch.pieces.is_empty() {
                        batch.first = event.seq;
                    }
                    batch.last = event.seq;
                    batch.pieces.push(piece);
                }
                batch.next = event.seq;
                if batch.pieces.len() >= most {
                    batch.more = true;
                    return Ok(batch);
                }
            }
            batch.next = batch.next.max(page.next);
            batch.more = page.more;
            if !page.more || scanned >= SCAN_MAX {
                return Ok(batch);
            }
        }
    }
}

/// The running task.
pub(super) struct Runner {
    endpoint: Arc<Endpoint>,
    record: Record,
    saved: EventSeq,
    failures: u32,
    committed: watch::Receiver<EventSeq>,
    commands: mpsc::Receiver<Command>,
    jitter: Seeded,
}

/// Runs an endpoint until its commands end.
pub(super) async fn run(endpoint: Arc<Endpoint>, commands: mpsc::Receiver<Command>) {
    let committed = endpoint.reader.committed();
    let record = loop {
        match first_record(&endpoint).await {
            Ok(record) => break record,
            Err(error) => {
                warn!(endpoint = %endpoint.config.name, %error, "webhook waits for the store");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    };
    let saved = record.after;
    let jitter = Seeded::from_system();
    Runner { endpoint, record, saved, failures: 0, committed, commands, jitter }.run().await;
}

/// What is kept of it, or for a new one the end of the log: it is told what is to come. That is durable at once, so that nothing is missed
/// between the first start and the first event.
async fn first_record(endpoint: &Endpoint) -> Result<Record, String> {
    let name = &endpoint.config.name;
    if let Some(record) = Record::read(&endpoint.reader, name).await.map_err(|e| e.to_string())? {
        return Ok(record);
    }
    let record = Record::new(endpoint.reader.events_tail());
    endpoint.ledger.submit(vec![record.put(name)]).await.map_err(|e| e.to_string())?;
    info!(endpoint = %name, after = record.after.0, "a new webhook begins with the next event");
    Ok(record)
}

impl Runner {
    async fn run(mut self) {
        self.show(None);
        loop {
            self.committed.borrow_and_update();
            let batch = match self.endpoint.batch(self.record.after).await {
                Ok(batch) => batch,
                Err(error) => {
                    warn!(endpoint = %self.endpoint.config.name, %error, "webhook can't read the events");
                    tokio::time::sleep(STORE_PAUSE).await;
                    continue;
                }
            };
            let more = batch.more;
            if batch.pieces.is_empty() {
                self.pass(batch.next).await;
            } else {
                match self.deliver(batch).await {
                    Sent::Taken | Sent::Elsewhere => {}
                    Sent::Ending => return,
                }
            }
            if !more && !self.wait_for_news().await {
                return;
            }
        }
    }

    /// Nothing of it was wanted: the cursor goes on in memory, and is saved from time to time.
    async fn pass(&mut self, next: EventSeq) {
        self.record.after = next;
        if next.0.saturating_sub(self.saved.0) >= SAVE_EVERY {
            // What is not saved is looked through again after a start.
            let _ = self.save(None).await;
        }
        self.show(None);
    }

    /// Waits for a commit, and a little longer. False when the endpoint ends.
    async fn wait_for_news(&mut self) -> bool {
        tokio::select! {
            changed = self.committed.changed() => {
                if changed.is_err() {
                    return false;
                }
                tokio::time::sleep(LINGER).await;
                true
            }
            command = self.commands.recv() => match command {
                Some(command) => { self.obey(command).await; true }
                None => false,
            },
        }
    }

    /// Sends a batch until it is taken, or a command leads elsewhere.
    async fn deliver(&mut self, batch: Batch) -> Sent {
        let id = format!("{}_{}_{}_{}", self.endpoint.id_prefix(), self.record.replays, batch.first.0, batch.last.0);
        loop {
            let failed = match self.endpoint.post(&id, &batch.pieces).await {
                Ok(_) => {
                    self.taken(&batch).await;
                    return Sent::Taken;
                }
                Err(failed) => failed,
            };
            self.failed(&failed).await;
            let jitter = self.jitter.below(100);
            let dead = self.record.dead_since.is_some();
            let wait = schedule::wait(self.failures, failed.retry_after, dead, jitter);
            self.show(Some(self.endpoint.clock.now().after(wait)));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                command = self.commands.recv() => match command {
                    None => return Sent::Ending,
                    Some(command) => {
                        if self.obey(command).await {
                            return Sent::Elsewhere;
                        }
                    }
                },
            }
        }
    }

    async fn taken(&mut self, batch: &Batch) {
        let (endpoint, now) = (self.endpoint.clone(), self.endpoint.clock.now());
        self.record.after = batch.next;
        let was_dead = self.record.dead_since.take().is_some();
        let was_failing = self.record.failing_since.take().is_some();
        let alert = was_dead.then(|| self.alert("takes events again".into()));
        if was_failing {
            info!(endpoint = %endpoint.config.name, "webhook takes events again");
        }
        self.failures = 0;
        {
            let mut view = endpoint.view.lock();
            view.taken += batch.pieces.len() as u64;
            view.last_success_at = Some(now);
        }
        endpoint.metrics.events.with_label_values(&[endpoint.config.name.as_str()]).inc_by(batch.pieces.len() as u64);
        if let Err(error) = self.save(alert).await {
            // It goes on in memory: a crash now would send this batch again, which is allowed.
            warn!(endpoint = %endpoint.config.name, %error, "the place of a webhook was not saved");
        }
        self.show(None);
    }

    /// Notes a failure; the first and the last of a row of them are durable, so that a restart does not begin the three days anew.
    async fn failed(&mut self, failed: &Failed) {
        let (endpoint, now) = (self.endpoint.clone(), self.endpoint.clock.now());
        self.failures = self.failures.saturating_add(1);
        {
            let mut view = endpoint.view.lock();
            view.last_error = Some(failed.why.clone());
            view.last_error_at = Some(now);
        }
        let is_first = self.record.failing_since.is_none();
        let since = *self.record.failing_since.get_or_insert(now);
        let gives_up = failed.kind == FailedKind::Gone || now.since(since) >= schedule::DEAD_AFTER;
        let dies = gives_up && self.record.dead_since.is_none();
        if !is_first && !dies {
            return;
        }
        let mut alert = None;
        if dies {
            self.record.dead_since = Some(now);
            warn!(endpoint = %endpoint.config.name, why = %failed.why, "webhook is dead: it is probed once an hour");
            alert = Some(self.alert(format!(
                "is dead, it took nothing since {since}: {}. It is probed once an hour; `posthaste webhook resume {}` tries at once",
                failed.why, endpoint.config.name
            )));
        } else {
            warn!(endpoint = %endpoint.config.name, why = %failed.why, "webhook fails, it is tried again");
        }
        if let Err(error) = self.save(alert).await {
            warn!(endpoint = %endpoint.config.name, %error, "the state of a webhook was not saved");
        }
    }

    fn alert(&self, what: String) -> Event {
        let (config, now) = (&self.endpoint.config, self.endpoint.clock.now());
        let mut event = Event::new(EventKind::Alert, now, self.endpoint.tenant_of_alerts.clone());
        event.reason = Some(format!("webhook {} {what}", config.name).into());
        event
    }

    /// Carries out a command; true when the batch in hand is no longer the next.
    async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Resume { reply } => {
                self.failures = 0;
                // Whoever asked may have gone.
                let _ = reply.send(());
                false
            }
            Command::Replay { after, reply } => {
                let before = self.record.clone();
                self.record.after = after;
                self.record.replays = self.record.replays.wrapping_add(1);
                let saved = self.save(None).await;
                let done = saved.is_ok();
                if !done {
                    self.record = before;
                }
                let _ = reply.send(saved);
                self.show(None);
                done
            }
        }
    }

    /// Record and alert in one batch.
    async fn save(&mut self, alert: Option<Event>) -> Result<(), SubmitError> {
        let put = self.record.put(&self.endpoint.config.name);
        let alert = alert.map(|event| Change::Event(Box::new(event)));
        self.endpoint.ledger.submit([put].into_iter().chain(alert).collect()).await?;
        self.saved = self.record.after;
        Ok(())
    }

    /// Tells view and metrics how it is.
    fn show(&self, next_try_at: Option<Timestamp>) {
        let state = match (self.record.dead_since, self.record.failing_since) {
            (Some(_), _) => State::Dead,
            (None, Some(_)) => State::Failing,
            (None, None) => State::Well,
        };
        let endpoint = &self.endpoint;
        {
            let mut view = endpoint.view.lock();
            view.state = state;
            view.after = self.record.after;
            view.failing_since = self.record.failing_since;
            view.dead_since = self.record.dead_since;
            view.failures = self.failures;
            view.next_try_at = next_try_at;
        }
        let name = &[endpoint.config.name.as_str()];
        endpoint.metrics.state.with_label_values(name).set(state.gauge());
        let behind = endpoint.reader.events_tail().0.saturating_sub(self.record.after.0);
        endpoint.metrics.behind.with_label_values(name).set(i64::try_from(behind).unwrap_or(i64::MAX));
    }
}
