//! Settling: outcomes become next states, events, notifications and log lines, in one batch.

use std::rc::Rc;
use std::sync::Arc;

use super::disposal::How;
use super::jobs::InFlight;
use super::{Action, Scheduler};
use crate::config::{OTHER, Source};
use crate::delivery::{ConnectionId, Failure, JobReport, Outcome, Peer};
use crate::effects::{Effect, Ending, Notice, Tried, effect};
use crate::event::{Event, EventKind, Severity, SmtpReply};
use crate::metrics::queue::PathMetrics;
use crate::queue::notice::{NoticeOutcome, NoticeRecipient, NoticeReport};
use crate::store::{Envelope, NewDelivery, Next, QueueEntry, Settle, StoredMessage, Via};
use crate::types::{QueueId, QueueKey, Timestamp};

/// The most octets of a reply that are kept in the queue.
const LAST_REPLY_MAX: usize = 256;

/// How something ended that was not on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended<'a> {
    /// As if it had been tried.
    Failed { failure: &'a Failure, provider: &'a Arc<str> },
    /// It became too old while it waited.
    Overdue,
}

/// Where an attempt took place, for events and the log.
struct Scene<'a> {
    delay_told: bool,
    /// Octets that were sent, where something was.
    wire_size: Option<u64>,
    provider: Option<&'a Arc<str>>,
    mx: Option<&'a str>,
    peer: Option<&'a Peer>,
    source: Option<&'a Source>,
    started: Timestamp,
}

/// What was decided for one recipient.
struct Decided {
    effect: Effect,
    notice: Option<Notice>,
}

impl Scheduler {
    /// A job ended.
    pub fn report(&mut self, now: Timestamp, conn: ConnectionId, peer: &Peer, report: JobReport) {
        self.set_now(now);
        match self.jobs.remove(&report.job.id) {
            Some(job) => self.settle_job(conn, peer, report, job),
            None => tracing::error!(target: "posthaste::queue", job = report.job.id, "a job was reported twice"),
        }
        self.finish();
    }

    fn settle_job(&mut self, id: ConnectionId, peer: &Peer, mut report: JobReport, job: InFlight) {
        let InFlight { message, site, source: source_at, recipients } = job;
        self.totals.in_flight = self.totals.in_flight.saturating_sub(recipients.len() as u32);
        let answered = report.outcomes.iter().any(|outcome| match outcome {
            Outcome::Delivered(_) => true,
            Outcome::Failed(failure) => failure.remote,
        });
        if answered && let Some(path) = self.path_mut(site, source_at) {
            path.failures = 0;
        }
        let (mx, mut provider): (Box<str>, Option<Arc<str>>) = match self.conns.get_mut(&id) {
            Some(conn) => {
                conn.jobs = conn.jobs.saturating_sub(1);
                conn.answered |= answered;
                conn.tried |= report.outcomes.iter().any(|outcome| !is_untried(outcome) && !is_unsent(outcome));
                (conn.mx.clone(), Some(conn.provider.clone()))
            }
            None => (format!("{}[{}]", peer.host, peer.address.ip()).into(), None),
        };
        if provider.is_none() {
            provider = self.site(site).map(|s| s.plan.provider.clone());
        }
        let source = self.sources.get(source_at).map(|s| s.source.clone());
        let first = recipients.first().and_then(|(queue, _)| self.queues.get(queue)).map(|q| q.key.clone());
        let Some(first) = first else { return };
        if let Some((queue, _)) = recipients.first() {
            self.charge_rest(*queue, report.wire_size.saturating_sub(report.job.size));
        }
        let mut changes = Vec::new();
        let shared = self.site(site).and_then(|s| s.paths.iter().find(|p| p.source == source_at)?.shared);
        let holds = match shared {
            Some(path) => {
                let about = |s: &Self, at: usize| {
                    let (queue, entry) = recipients.get(at)?;
                    let key = s.queues.get(queue).map(|q| q.key.clone())?;
                    Some(s.event(EventKind::Adapted, &key, &message.envelope, entry.key.delivery.index))
                };
                let provider = provider.as_deref().unwrap_or(OTHER);
                self.learn(path, provider, &mut report.outcomes, about, &mut changes)
            }
            None => Vec::new(),
        };
        let metrics = self.path_metrics(id, &first, provider.as_deref(), source.as_deref());
        if !report.outcomes.iter().all(is_unsent) {
            metrics.attempt.observe(report.ended.since(report.started).as_secs_f64());
        }
        let mut scene = Scene {
            delay_told: false,
            wire_size: Some(report.wire_size),
            provider: provider.as_ref(),
            mx: Some(&mx),
            peer: Some(peer),
            source: source.as_deref(),
            started: report.started,
        };
        let jitter = self.rng.below(2_001);
        let mut settle = Settle { settled: Vec::with_capacity(recipients.len()), owed: Vec::new(), changes };
        let lost = lost_outcome();
        let outcomes = || report.outcomes.iter().chain(std::iter::repeat(&lost));
        let decided: Vec<Decided> = recipients
            .iter()
            .zip(outcomes())
            .enumerate()
            .map(|(at, ((_, e), o))| {
                let hold = holds.get(at).copied().unwrap_or(Timestamp::ZERO);
                self.decide(&message, e, o, Some(peer), jitter, hold)
            })
            .collect();
        scene.delay_told = self.owe_notices(&mut settle, &message, &recipients, &decided, outcomes(), Some(peer));
        let (mut all_done, mut untried) = (true, Vec::new());
        for (((queue, entry), outcome), decided) in recipients.into_iter().zip(outcomes()).zip(decided) {
            if is_untried(outcome) {
                untried.push((queue, entry));
                continue;
            }
            all_done &= !matches!(decided.effect, Effect::Deferred { .. });
            self.settle_one(&mut settle, queue, entry, &message, outcome, &decided, &scene, &metrics);
        }
        // Other recipients of the message, or the same ones at once, may want it soon.
        let several = message.envelope.recipients.len() > 1;
        self.cache.unpin(message.envelope.id, (several && all_done) || !untried.is_empty());
        for (queue, entry) in untried {
            self.give_back(queue, entry);
        }
        if !settle.settled.is_empty() || !settle.changes.is_empty() {
            self.actions.push_back(Action::Settle(settle));
        }
    }

    fn decide(
        &self,
        message: &StoredMessage,
        entry: &QueueEntry,
        outcome: &Outcome,
        peer: Option<&Peer>,
        jitter: u64,
        hold: Timestamp,
    ) -> Decided {
        let envelope = &message.envelope;
        let notify =
            envelope.recipients.get(entry.key.delivery.index as usize).map_or(Default::default(), |r| Some(r.notify));
        let tried = Tried {
            accepted: entry.accepted,
            expires: entry.expires,
            attempts: entry.attempts + 1,
            delay_noticed: entry.delay_noticed,
            notify: notify.unwrap_or(crate::types::Notify::Never),
            null_reverse_path: envelope.reverse_path.mailbox().is_none(),
        };
        let ending = match outcome {
            Outcome::Delivered(_) => Ending::Delivered { peer_reports: peer.is_some_and(|p| p.dsn) },
            Outcome::Failed(f) if f.unsent().is_some() => Ending::Unsent,
            Outcome::Failed(f) => Ending::Failed { severity: f.severity, remote: f.remote },
        };
        let (mut effect, mut notice) = effect(&self.config.retry, &tried, ending, self.now, jitter);
        if let Effect::Deferred { retry_at } = &mut effect {
            *retry_at = (*retry_at).max(hold.min(entry.expires));
        }
        // A campaign's events tell, whatever its envelope says.
        if is_untried(outcome) || envelope.via == Via::Campaign {
            notice = None;
        }
        Decided { effect, notice }
    }

    /// Has the notifications written that are owed: one for each kind, about all recipients that want it. Answers whether a delay
    /// was told.
    fn owe_notices<'a>(
        &self,
        settle: &mut Settle,
        message: &Arc<StoredMessage>,
        recipients: &[(QueueId, QueueEntry)],
        decided: &[Decided],
        outcomes: impl Iterator<Item = &'a Outcome> + Clone,
        peer: Option<&Peer>,
    ) -> bool {
        let mut delay_told = false;
        for kind in [Notice::Failure, Notice::Delay, Notice::Relayed] {
            if !decided.iter().any(|d| d.notice == Some(kind)) {
                continue;
            }
            let about = recipients.iter().zip(outcomes.clone()).zip(decided).filter(|(_, d)| d.notice == Some(kind));
            let recipients = about.map(|(((_, entry), outcome), decided)| NoticeRecipient {
                index: entry.key.delivery.index,
                outcome: match (outcome, decided.effect) {
                    (Outcome::Delivered(reply), _) => NoticeOutcome::Relayed(reply),
                    (Outcome::Failed(failure), Effect::Expired) => {
                        NoticeOutcome::Expired { failure: Some(failure), last_reply: entry.last_reply.as_deref() }
                    }
                    (Outcome::Failed(failure), _) => NoticeOutcome::Failed(failure),
                },
                peer,
                last_attempt: Some(self.now),
                attempts: entry.attempts + 1,
                retry_until: entry.expires,
            });
            let report = NoticeReport { kind, message, recipients: recipients.collect(), now: self.now };
            let written = self.notifier.notice(&report);
            delay_told |= kind == Notice::Delay && written.is_some();
            settle.owed.extend(written);
        }
        delay_told
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact of the outcome")]
    fn settle_one(
        &mut self,
        settle: &mut Settle,
        queue: QueueId,
        entry: QueueEntry,
        message: &Arc<StoredMessage>,
        outcome: &Outcome,
        decided: &Decided,
        scene: &Scene<'_>,
        metrics: &PathMetrics,
    ) {
        let Some(key) = self.queues.get(&queue).map(|q| q.key.clone()) else { return };
        let index = entry.key.delivery.index;
        let (kind, reply) = match (decided.effect, outcome) {
            (Effect::Delivered, Outcome::Delivered(reply)) => (EventKind::Delivered, reply),
            (Effect::Deferred { .. }, Outcome::Failed(f)) => (EventKind::Deferred, &f.reply),
            (Effect::Bounced, Outcome::Failed(f)) => (EventKind::Bounced, &f.reply),
            (Effect::Failed, Outcome::Failed(f)) => (EventKind::Failed, &f.reply),
            (Effect::Expired, Outcome::Failed(f)) => (EventKind::Expired, &f.reply),
            (Effect::Unsent, Outcome::Failed(f)) => (f.unsent().unwrap_or(EventKind::Failed), &f.reply),
            (_, Outcome::Delivered(reply)) => (EventKind::Delivered, reply),
            (Effect::Delivered, Outcome::Failed(f)) => (EventKind::Deferred, &f.reply),
        };
        let mut event = self.event(kind, &key, &message.envelope, index);
        if decided.effect == Effect::Unsent {
            event.attempt = (entry.attempts > 0).then_some(entry.attempts);
            event.severity = Some(Severity::Permanent);
            event.reason = Some(reply.text.clone());
            self.log_attempt(kind, &event, &entry);
            let counter = match kind {
                EventKind::Suppressed => &self.metrics.suppressed,
                _ => &self.metrics.rendering_failed,
            };
            counter.inc();
            return self.add_settled(settle, queue, &entry, Next::Done, vec![event]);
        }
        event.provider = scene.provider.map(|p| Box::from(&**p));
        event.mx = scene.mx.map(Box::from);
        event.source = scene.source.map(|s| s.name.clone());
        event.source_ip = scene.peer.and_then(|p| p.local).or(scene.source.and_then(|s| s.address));
        event.tls = scene.peer.and_then(|p| p.tls.as_deref()).map(Box::from);
        event.attempt = Some(entry.attempts + 1);
        event.smtp = Some(reply.clone());
        if let Outcome::Failed(failure) = outcome {
            event.severity = Some(failure.severity);
            event.remote = (kind == EventKind::Bounced).then_some(failure.remote);
            if !failure.remote {
                event.reason = Some(failure.stage.into());
            }
            if let Some(returns) = &self.returns {
                settle.changes.extend(returns.judge(&self.config, failure, &mut event));
            }
        } else {
            // Of a campaign the row is stored, the message was made at the attempt.
            let stored = Some(message.body.len() as u64);
            event.size = if message.envelope.via == Via::Campaign { scene.wire_size } else { stored };
        }
        self.log_attempt(kind, &event, &entry);
        let mut events = Vec::with_capacity(1);
        let next = match decided.effect {
            Effect::Delivered => {
                metrics.delivered.inc();
                self.count_outcome(message, &key, "delivered");
                let took = self.now.since(entry.accepted);
                event.took_ms = u64::try_from(took.as_millis()).ok();
                metrics.time_in_queue.observe(took.as_secs_f64());
                Next::Done
            }
            Effect::Bounced => {
                metrics.bounced.inc();
                self.count_outcome(message, &key, "bounced");
                Next::Done
            }
            Effect::Failed | Effect::Unsent => {
                metrics.failed.inc();
                Next::Done
            }
            Effect::Expired => {
                metrics.expired.inc();
                event.severity = Some(Severity::Permanent);
                Next::Done
            }
            Effect::Deferred { retry_at } => {
                metrics.deferred.inc();
                event.retry_at = Some(retry_at);
                self.defer(&key, queue, &entry, message, decided, reply, retry_at, scene, &mut events)
            }
        };
        events.insert(0, event);
        self.add_settled(settle, queue, &entry, next, events);
    }

    /// Of a tenant's mail; what we say ourselves is none.
    fn count_outcome(&self, message: &StoredMessage, key: &QueueKey, outcome: &str) {
        if message.envelope.via != Via::Internal {
            self.metrics.tenants.with_label_values(&[key.tenant.as_str(), outcome]).inc();
        }
    }

    /// The next state of a deferred recipient, unless an operator's mark takes it out.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the outcome")]
    fn defer(
        &mut self,
        key: &Arc<QueueKey>,
        queue: QueueId,
        entry: &QueueEntry,
        message: &Arc<StoredMessage>,
        decided: &Decided,
        reply: &SmtpReply,
        retry_at: Timestamp,
        scene: &Scene<'_>,
        events: &mut Vec<Event>,
    ) -> Next {
        let mut again = entry.clone();
        again.key.due = retry_at;
        again.attempts += 1;
        again.first_try = again.first_try.or(Some(scene.started));
        again.last_try = Some(self.now);
        again.last_reply = Some(last_reply(reply));
        if decided.notice == Some(Notice::Delay) {
            // Also where none could be written: it would not be possible the next time either.
            again.delay_noticed = true;
        }
        if decided.notice == Some(Notice::Delay) && scene.delay_told {
            events.push(self.event(EventKind::Delayed, key, &message.envelope, entry.key.delivery.index));
        }
        match self.mark_for(queue, entry) {
            Some(How::Mark(mark)) => {
                let mut event = match mark.is_erasure() {
                    true => self.bare_event(mark.event_kind(), key, entry),
                    false => self.event(mark.event_kind(), key, &message.envelope, entry.key.delivery.index),
                };
                event.reason = Some(mark.words().into());
                events.push(event);
                match mark.target_pool() {
                    Some(pool) => {
                        Next::Move(NewDelivery { queue: QueueKey { pool, ..QueueKey::clone(key) }, entry: again })
                    }
                    None => {
                        self.count_taken_out(mark.event_kind());
                        Next::Done
                    }
                }
            }
            Some(_) | None => Next::Retry(again),
        }
    }

    /// Settles what ended without a connection.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the outcome")]
    pub(super) fn settle_ended(
        &mut self,
        queue: QueueId,
        key: &Arc<QueueKey>,
        entry: QueueEntry,
        message: &Arc<StoredMessage>,
        ended: Ended<'_>,
        source: Option<&Source>,
        settle: &mut Settle,
    ) {
        match ended {
            Ended::Failed { failure, provider } => {
                let outcome = Outcome::Failed(failure.clone());
                let jitter = self.rng.below(2_001);
                let decided = self.decide(message, &entry, &outcome, None, jitter, Timestamp::ZERO);
                let recipients = [(queue, entry)];
                let decided = [decided];
                let outcomes = std::iter::once(&outcome);
                let delay_told = self.owe_notices(settle, message, &recipients, &decided, outcomes, None);
                let scene = Scene {
                    delay_told,
                    wire_size: None,
                    provider: Some(provider),
                    mx: None,
                    peer: None,
                    source,
                    started: self.now,
                };
                let source = source.map_or("none", |s| s.name.as_str());
                let metrics = self.metrics.path(provider, key.class.as_str(), key.pool.as_str(), source);
                let ([(queue, entry)], [decided]) = (recipients, decided);
                self.settle_one(settle, queue, entry, message, &outcome, &decided, &scene, &metrics);
            }
            Ended::Overdue => self.settle_overdue(queue, key, entry, message, settle),
        }
    }

    fn settle_overdue(
        &mut self,
        queue: QueueId,
        key: &Arc<QueueKey>,
        entry: QueueEntry,
        message: &Arc<StoredMessage>,
        settle: &mut Settle,
    ) {
        let index = entry.key.delivery.index;
        let recipient = message.envelope.recipients.get(index as usize);
        let wanted = recipient.is_some_and(|r| r.notify.failure()) && message.envelope.reverse_path.mailbox().is_some();
        if wanted && message.envelope.via != Via::Campaign {
            let recipient = NoticeRecipient {
                index,
                outcome: NoticeOutcome::Expired { failure: None, last_reply: entry.last_reply.as_deref() },
                peer: None,
                last_attempt: entry.last_try,
                attempts: entry.attempts,
                retry_until: entry.expires,
            };
            let report = NoticeReport { kind: Notice::Failure, message, recipients: vec![recipient], now: self.now };
            settle.owed.extend(self.notifier.notice(&report));
        }
        let mut event = self.event(EventKind::Expired, key, &message.envelope, index);
        event.attempt = Some(entry.attempts);
        event.severity = Some(Severity::Permanent);
        event.reason = Some("it became too old while it waited".into());
        if let Some(text) = &entry.last_reply {
            event.smtp = Some(SmtpReply { code: 0, enhanced: None, text: text.clone() });
        }
        self.log_attempt(EventKind::Expired, &event, &entry);
        self.metrics.path("other", key.class.as_str(), key.pool.as_str(), "none").expired.inc();
        self.add_settled(settle, queue, &entry, Next::Done, vec![event]);
    }

    /// An event about one recipient, with what each of them has.
    pub(super) fn event(&self, kind: EventKind, key: &QueueKey, envelope: &Envelope, index: u32) -> Event {
        let mut event = Event::new(kind, self.now, key.tenant.clone());
        event.message_id = Some(envelope.id);
        event.recipient = envelope.recipients.get(index as usize).map(|r| r.mailbox.clone());
        event.campaign = key.campaign.clone();
        event.class = Some(key.class);
        event.tags = envelope.tags.clone();
        event.domain = Some(key.domain.clone());
        event.pool = Some(key.pool.clone());
        if kind.is_terminal() {
            let parse = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).ok();
            event.metadata = envelope.metadata.as_deref().and_then(parse);
        }
        event
    }

    fn path_metrics(
        &mut self,
        conn: ConnectionId,
        key: &QueueKey,
        provider: Option<&str>,
        source: Option<&Source>,
    ) -> Rc<PathMetrics> {
        let known =
            self.conns.get(&conn).and_then(|c| c.metrics.iter().find(|(p, c, _)| *p == key.pool && *c == key.class));
        if let Some((_, _, metrics)) = known {
            return metrics.clone();
        }
        let source = source.map_or("none", |s| s.name.as_str());
        let metrics =
            Rc::new(self.metrics.path(provider.unwrap_or("other"), key.class.as_str(), key.pool.as_str(), source));
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.metrics.push((key.pool.clone(), key.class, metrics.clone()));
        }
        metrics
    }

    /// One line an attempt, in the words that people search a mail log for.
    fn log_attempt(&self, kind: EventKind, event: &Event, entry: &QueueEntry) {
        if !tracing::enabled!(target: "posthaste::delivery", tracing::Level::INFO) {
            return;
        }
        let status = match kind {
            EventKind::Delivered => "sent",
            EventKind::Deferred => "deferred",
            EventKind::Bounced => "bounced",
            EventKind::Expired => "expired",
            EventKind::Suppressed => "suppressed",
            // Every other end is ours: no route, policy, rendering.
            _ => "failed",
        };
        let delay = self.now.since(entry.accepted).as_millis();
        let reply = event.smtp.as_ref();
        let default = if kind == EventKind::Delivered { "2.0.0" } else { "-" };
        tracing::info!(
            target: "posthaste::delivery",
            "status={status} id={} to=<{}> relay={} delay={}.{:03} attempt={} source={} dsn={} stat=\"{}\"",
            entry.key.delivery.message,
            event.recipient.as_ref().map_or("", |r| r.as_str()),
            event.mx.as_deref().unwrap_or("none"),
            delay / 1_000,
            delay % 1_000,
            event.attempt.unwrap_or(0),
            event.source.as_ref().map_or("none", |s| s.as_str()),
            reply.and_then(|r| r.enhanced.as_deref()).unwrap_or(default),
            reply.map_or_else(String::new, ToString::to_string),
        );
    }
}

fn last_reply(reply: &SmtpReply) -> Box<str> {
    let mut text = reply.to_string();
    if text.len() > LAST_REPLY_MAX {
        let end = (0..=LAST_REPLY_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text.into()
}

/// Whether the peer never looked at it: that is no attempt, and it may go again at once.
fn is_untried(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered(_) => false,
        Outcome::Failed(failure) => failure.not_tried(),
    }
}

/// Whether it was given up before anything was sent, for its own sake: that says nothing about the peer.
fn is_unsent(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered(_) => false,
        Outcome::Failed(failure) => failure.unsent().is_some(),
    }
}

/// Stands in where a report has fewer outcomes than its job has recipients: tried again, never lost.
fn lost_outcome() -> Outcome {
    Outcome::Failed(Failure {
        severity: Severity::Temporary,
        reply: SmtpReply { code: 0, enhanced: None, text: "the session ended without an outcome".into() },
        stage: "delivery",
        remote: false,
    })
}
