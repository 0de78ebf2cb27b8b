//! The alerts of this daemon: sees what there is, has it judged, and tells what the engine says.
//!
//! 1. twice a minute [`Watch::run`] gathers what there is to see (`gather`): counters, the scheduler's trouble, the disk, webhooks;
//! 2. [`crate::alert::Engine`] says what begins, goes on and has ended;
//! 3. each of that is an event, stored together with what a restart must know of it, a metric, a line of the log, and with the others of the same
//!    look a mail (`mail`).

mod gather;
mod mail;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Hands;
use crate::alert::{AlertName, AlertState, Board, Engine, FailingEndpoint, Record, Telling, Told, tally};
use crate::event::{AlertNote, Event, EventKind, Severity};
use crate::metrics::Metrics;
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger};
use crate::types::{EventSeq, Name, Timestamp};
use crate::webhook::{State, Webhooks};

/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The first look: mail that waited over a restart has had a moment.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Keys of what a restart must know.
const PREFIX: &str = "alert/";
/// Records that a start reads.
const RECORDS_MAX: usize = 1_000;
/// The newest events that are read for the cause of an alert that begins: some 20 ms of a reader thread.
const WHY_EVENTS_MAX: u64 = 5_000;
/// Mails that may wait to be sent; further ones are counted as withheld.
const MAILS_WAIT_MAX: usize = 16;

/// The task and what it needs.
pub(super) struct Watch {
    hands: Arc<Hands>,
    clock: Clock,
    metrics: Arc<Metrics>,
    ledger: Ledger,
    /// The alerts of the last look.
    pub(super) board: Board,
    webhooks: Option<Webhooks>,
}

impl Watch {
    pub(super) fn new(hands: &Arc<Hands>, clock: &Clock, metrics: &Arc<Metrics>, ledger: &Ledger) -> Self {
        Self {
            hands: hands.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            ledger: ledger.clone(),
            board: Board::default(),
            webhooks: None,
        }
    }

    /// Watches these webhooks, too.
    pub(super) fn follow(&mut self, webhooks: Webhooks) {
        self.webhooks = Some(webhooks);
    }

    /// The webhooks that fail, are dead or can't run.
    fn failing(&self) -> Vec<FailingEndpoint> {
        let all = self.webhooks.iter().flat_map(|webhooks| webhooks.status(None));
        let failing = all.filter(|hook| hook.state != State::Well).map(|hook| FailingEndpoint {
            // One that can't run has no such time: it counts from the first look.
            since: hook.failing_since.or(hook.dead_since).unwrap_or_else(|| self.clock.now()),
            error: hook.last_error.unwrap_or_else(|| "no reason is known".into()),
            name: hook.name,
            tenant: hook.tenant,
        });
        failing.collect()
    }

    /// Runs until its task is ended.
    pub(super) async fn run(self) {
        let mut engine = Engine::restored(self.records().await);
        self.show(&engine);
        let (mails, waiting) = mpsc::channel(MAILS_WAIT_MAX);
        let post = mail::Post {
            hands: self.hands.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            ledger: self.ledger.clone(),
        };
        let post = tokio::task::spawn_local(post.run(waiting));
        tokio::time::sleep(FIRST_LOOK).await;
        while !post.is_finished() {
            let config = self.hands.config.load_full();
            let seen = self.gather().await;
            let mut told = seen.map(|seen| engine.look(&config.alerts, &seen, self.clock.now())).unwrap_or_default();
            self.find_why(&mut engine, &mut told).await;
            self.show(&engine);
            if !told.is_empty() {
                self.tell(&told).await;
                if !config.alerts.mail_to.is_empty() && mails.try_send(told).is_err() {
                    self.metrics.alert.mail("withheld");
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What was told before the restart. A record that can't be read is passed over: its alert is told anew.
    async fn records(&self) -> Vec<Record> {
        let records = self.hands.reader.state(PREFIX, RECORDS_MAX).await.unwrap_or_else(|error| {
            warn!(%error, "alerts that were told can't be read, they may be told again");
            Vec::new()
        });
        let read = |value: &[u8]| serde_json::from_slice::<Record>(value).ok().filter(|r| r.v == Record::VERSION);
        records.iter().filter_map(|(_, value)| read(value)).collect()
    }

    fn show(&self, engine: &Engine) {
        let alerts = engine.alerts();
        for name in AlertName::ALL {
            for state in [AlertState::Firing, AlertState::Pending] {
                let count = alerts.iter().filter(|alert| alert.name == name && alert.state == state).count();
                self.metrics.alert.set(name.as_str(), state.as_str(), i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        self.board.store(Arc::new(alerts));
    }

    /// Has the newest events say more about the cause of what begins.
    async fn find_why(&self, engine: &mut Engine, told: &mut [Told]) {
        let begins = |one: &Told| one.telling == Telling::Firing;
        let by_events = |one: &Told| {
            matches!(one.alert.name, AlertName::BounceRate | AlertName::ComplaintRate | AlertName::DeferralRate)
        };
        if !told.iter().any(|one| begins(one) && by_events(one)) {
            return;
        }
        let after = EventSeq(self.hands.reader.events_tail().0.saturating_sub(WHY_EVENTS_MAX));
        // Without them the likely cause stands alone.
        let Ok(page) = self.hands.reader.events(after, WHY_EVENTS_MAX as usize, None).await else { return };
        for one in told.iter_mut().filter(|one| begins(one)) {
            if let Some(sentence) = tally(&one.alert, &page.events) {
                engine.explain(one, sentence);
            }
        }
    }

    /// Events, records, metrics and lines of the log.
    async fn tell(&self, told: &[Told]) {
        let now = self.clock.now();
        let mut changes = Vec::with_capacity(2 * told.len());
        for one in told {
            let (name, state) = (one.alert.name.as_str(), one.telling.as_str());
            self.metrics.alert.told(name, state);
            let (subject, summary) = (one.alert.subject.as_str(), one.alert.summary.as_str());
            match one.telling {
                Telling::Firing | Telling::Repeated => warn!(name, state, subject, summary, "alert"),
                Telling::Resolved => info!(name, state, subject, summary, "alert"),
            }
            let key = format!("{PREFIX}{name}/{subject}").into_bytes();
            let value = one.record.as_ref().and_then(|record| serde_json::to_vec(record).ok());
            changes.push(match value {
                Some(value) => Change::PutState { key, value },
                None => Change::RemoveState { key },
            });
            changes.push(Change::Event(Box::new(event(one, now))));
        }
        if let Err(error) = self.ledger.submit(changes).await {
            warn!(%error, "alerts could not be stored");
        }
    }
}

/// The event of an alert: of its tenant, else of the node.
fn event(told: &Told, now: Timestamp) -> Event {
    let alert = &told.alert;
    let node = || Name::parse("node").expect("a literal that is a name");
    let mut event = Event::new(EventKind::Alert, now, alert.tenant.clone().unwrap_or_else(node));
    event.severity = (told.telling != Telling::Resolved).then_some(Severity::Temporary);
    event.reason = Some(alert.summary.as_str().into());
    event.alert = Some(Box::new(AlertNote {
        name: alert.name.as_str().into(),
        state: told.telling.as_str().into(),
        subject: alert.subject.as_str().into(),
        since: alert.since,
        cause: alert.cause.as_str().into(),
        fix: alert.fix.as_str().into(),
    }));
    event
}
