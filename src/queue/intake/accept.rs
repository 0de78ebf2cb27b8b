//! The acceptance of one message, step by step.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ahash::AHashSet;
use arc_swap::ArcSwap;
use bytes::Bytes;
use tracing::debug;

use super::usage::Share;
use super::{Accepted, IntakeGate, Policies, Policy, Refusal, Submission, UsageTable, gate};
use crate::config::{Config, Rate, Tenant};
use crate::event::{Event, EventKind, Severity, SmtpReply};
use crate::metrics::intake::IntakeMetrics;
use crate::metrics::suppression::SuppressionMetrics;
use crate::mime::submission::{self, HeaderError, Parsed, Steering, Trace};
use crate::seam::clock::Clock;
use crate::seam::random;
use crate::smtp::bdat::BdatReceiver;
use crate::smtp::message_buffer::MessageBuffer;
use crate::store::{
    Change, EntryKey, Envelope, Ledger, NewDelivery, NewMessage, QueueEntry, StoredMessage, SubmitError, Via,
};
use crate::suppression::{Suppressions, Verdict};
use crate::types::{Class, DeliveryId, Domain, Mailbox, MessageId, Name, QueueKey, Timestamp};

/// The most `rejected` events of one tenant in a minute; what is refused beyond them is counted in the metrics only.
pub const REJECTED_EVENTS_PER_MINUTE: u32 = 60;

/// The door. One for the process, shared by the SMTP server and the HTTP API.
pub struct Intake {
    policies: Policies,
    usage: UsageTable,
    gate: IntakeGate,
    ledger: Ledger,
    clock: Clock,
    metrics: IntakeMetrics,
    receiving: AtomicU64,
    suppressions: Option<(Suppressions, SuppressionMetrics)>,
}

/// What was decided about a message before it is put together.
struct Decision<'a> {
    tenant: &'a Tenant,
    class: Class,
    pool: Name,
    steering: Steering,
    from_domain: Option<Domain>,
}

impl Intake {
    /// The door of a node.
    pub fn new(config: Arc<ArcSwap<Config>>, ledger: Ledger, clock: Clock, metrics: IntakeMetrics) -> Self {
        let usage = UsageTable::default();
        let policies = Policies::new(config, usage.clone(), metrics.clone());
        let receiving = AtomicU64::new(0);
        Self { policies, usage, gate: IntakeGate::default(), ledger, clock, metrics, receiving, suppressions: None }
    }

    /// The same, looking at who is not to be sent to.
    pub fn with_suppressions(self, suppressions: Suppressions, metrics: SuppressionMetrics) -> Self {
        Self { suppressions: Some((suppressions, metrics)), ..self }
    }

    /// What is open: the daemon sets it.
    pub fn gate(&self) -> &IntakeGate {
        &self.gate
    }

    /// What the tenants use: the daemon and the queue engine keep it up to date.
    pub fn usage(&self) -> &UsageTable {
        &self.usage
    }

    /// Who may send what.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Octets of messages that are coming in and not yet handed over; those who take them in keep the count.
    pub fn receiving(&self) -> &AtomicU64 {
        &self.receiving
    }

    /// Takes a message. `Ok` means: on disk, fsynced.
    ///
    /// Not to be dropped half-way: the message may be committed all the same, and its share of the quota stays taken.
    /// Whose caller may go away spawns it.
    pub async fn accept(&self, submission: Submission) -> Result<Accepted, Refusal> {
        self.accept_with_headroom(submission, 0).await
    }

    /// As [`Intake::accept`]; the first `headroom` octets of the body are free, and the message begins behind them.
    pub async fn accept_with_headroom(&self, submission: Submission, headroom: usize) -> Result<Accepted, Refusal> {
        self.accept_with(submission, headroom, |_: &Accepted| Vec::new()).await
    }

    /// As [`Intake::accept_with_headroom`]; what `extra` makes of what is accepted is committed in the same batch, and not at
    /// all when the message is refused.
    pub async fn accept_with(
        &self,
        mut submission: Submission,
        headroom: usize,
        extra: impl FnOnce(&Accepted) -> Vec<Change>,
    ) -> Result<Accepted, Refusal> {
        let now = self.clock.now();
        let policy = self.policies.current();
        let decided = self.gate.check().and_then(|()| {
            let parsed = read_header(&policy, &submission, headroom)?;
            let decision = decide(&policy, &mut submission, &parsed)?;
            Ok((parsed, decision))
        });
        let result = match decided {
            Ok((parsed, decision)) => {
                merge_duplicates(&mut submission);
                self.commit(&policy, submission, headroom, &parsed, decision, now, extra).await
            }
            Err(refusal) => {
                self.reject(&policy, &submission, &refusal, now).await;
                Err(refusal)
            }
        };
        if let Err(refusal) = &result {
            self.metrics.refused.with_label_values(&[reason(refusal)]).inc();
            debug!(code = refusal.code, text = refusal.text, "message refused");
        }
        result
    }

    /// Steps 3 (quotas) to 6.
    #[allow(clippy::too_many_arguments)]
    async fn commit(
        &self,
        policy: &Policy,
        submission: Submission,
        headroom: usize,
        parsed: &Parsed,
        decision: Decision<'_>,
        now: Timestamp,
        extra: impl FnOnce(&Accepted) -> Vec<Change>,
    ) -> Result<Accepted, Refusal> {
        let tenant = decision.tenant;
        let usage = policy.usage(tenant).ok_or_else(|| super::policy::unknown_tenant(&tenant.name))?;
        let id = MessageId::new(now, random::u128());
        let counters = policy.accepted(&decision.pool, decision.class).cloned();
        let verdicts = self.suppressed(&submission, tenant, decision.class).await?;
        let mut message = self.put_together(&policy.config, submission, headroom, parsed, decision, id, now);
        let recipients = message.message.envelope.recipients.len() as u64;
        let (suppressed, events) = take_out(&mut message, &verdicts);
        let queued = message.deliveries.len() as u64;
        let size = message.message.body.len() as u64;
        let mut share: Share = usage.take(tenant, queued, queued * size, now)?;
        let mut changes = std::mem::take(&mut share.changes);
        changes.insert(0, Change::Accept(Box::new(message)));
        let accepted = Accepted { id, suppressed };
        changes.extend(events);
        changes.extend(extra(&accepted));

        let submitted = self.ledger.submit(changes).await;
        self.metrics.commit_seconds.observe(self.clock.now().since(now).as_secs_f64());
        match submitted {
            Ok(()) => {
                usage.committed(&share);
                if let Some(counters) = counters {
                    counters.messages.inc();
                    counters.recipients.inc_by(recipients);
                }
                self.metrics.accepted_bytes.inc_by(size);
                if let Some((_, metrics)) = &self.suppressions {
                    let held = verdicts.iter().flatten();
                    held.for_each(|verdict| metrics.suppressed.with_label_values(&[verdict.reason.as_str()]).inc());
                }
                Ok(accepted)
            }
            Err(error) => {
                usage.give_back(tenant, &share, now);
                Err(match error {
                    SubmitError::LowSpace { .. } => gate::low_space(),
                    SubmitError::Failed(_) => gate::store_failed(),
                    SubmitError::ShuttingDown => gate::shutting_down(),
                })
            }
        }
    }

    /// What speaks against the recipients, in their order; nothing at all where nothing does, which costs about a microsecond each.
    async fn suppressed(
        &self,
        submission: &Submission,
        tenant: &Tenant,
        class: Class,
    ) -> Result<Vec<Option<Verdict>>, Refusal> {
        // What we write ourselves answers somebody: it is no mail that an entry could mean.
        let Some((suppressions, _)) = self.suppressions.as_ref().filter(|_| submission.via != Via::Internal) else {
            return Ok(Vec::new());
        };
        let maybe = submission.recipients.iter().any(|r| suppressions.maybe(&tenant.name, &r.mailbox));
        if !maybe {
            return Ok(Vec::new());
        }
        let addresses = submission.recipients.iter().map(|r| &r.mailbox);
        suppressions.check_many(&tenant.name, None, class, addresses).await.map_err(|error| {
            debug!(%error, "the suppressions could not be read");
            gate::store_failed()
        })
    }

    /// The message as it is stored, its queue entries and its event.
    #[allow(clippy::too_many_arguments)]
    fn put_together(
        &self,
        config: &Config,
        submission: Submission,
        headroom: usize,
        parsed: &Parsed,
        decision: Decision<'_>,
        id: MessageId,
        now: Timestamp,
    ) -> NewMessage {
        let trace = Trace {
            hostname: &config.hostname,
            helo: &submission.client.helo,
            address: submission.client.address,
            protocol: submission.client.protocol,
            tls: submission.client.tls.as_deref(),
            id,
            recipient: submission.recipients.first().filter(|_| submission.recipients.len() == 1).map(|r| &r.mailbox),
            now,
        };
        let front = submission::trace_fields(&trace, parsed);
        let body = submission::assemble(submission.body, headroom, parsed, front.as_bytes());
        let expires = now.after(config.retry.expire_after.0);
        // What needs SMTPUTF8 is the message, not the client that says the word (RFC 6531 §3.4).
        let address_utf8 = submission.reverse_path.mailbox().is_some_and(Mailbox::needs_smtputf8)
            || submission.recipients.iter().any(|r| r.mailbox.needs_smtputf8());
        let header_utf8 = submission.smtputf8 && parsed.header_eight_bit;
        let client = match submission.via {
            Via::Http => submission.client.user,
            Via::Smtp | Via::Internal | Via::Campaign => submission.client.address.map(|a| a.to_string()),
        };
        let envelope = Envelope {
            id,
            tenant: decision.tenant.name.clone(),
            class: decision.class,
            campaign: decision.steering.campaign,
            tags: decision.steering.tags,
            metadata: decision.steering.metadata,
            reverse_path: submission.reverse_path,
            ret: submission.ret,
            envid: submission.envid,
            recipients: submission.recipients,
            accepted: now,
            expires,
            smtputf8: address_utf8 || header_utf8,
            eight_bit: parsed.body_eight_bit || (parsed.header_eight_bit && !header_utf8),
            from_domain: decision.from_domain,
            via: submission.via,
            client: client.map(Into::into),
        };
        let event = accepted_event(&envelope, body.len() as u64, &decision.pool);
        let deliveries = deliveries(&envelope, &body, &decision.pool);
        NewMessage { message: Arc::new(StoredMessage { envelope, body }), deliveries, event }
    }

    /// A refusal for good is told to the reports, when it is a known tenant's.
    async fn reject(&self, policy: &Policy, submission: &Submission, refusal: &Refusal, now: Timestamp) {
        let Some(tenant) = submission.tenant.as_ref().and_then(|name| policy.tenant(name)) else { return };
        let Some(usage) = policy.usage(tenant).filter(|_| !refusal.is_temporary()) else { return };
        let rate = Rate { count: REJECTED_EVENTS_PER_MINUTE, per: Duration::from_secs(60) };
        if !usage.rejected.lock().take(rate, 1, now) {
            return;
        }
        let mut event = Event::new(EventKind::Rejected, now, tenant.name.clone());
        event.sender = Some(submission.reverse_path.to_string().into());
        event.recipients = u32::try_from(submission.recipients.len()).ok();
        if let [only] = submission.recipients.as_slice() {
            event.recipient = Some(only.mailbox.clone());
            event.domain = Some(only.mailbox.domain().clone());
        }
        event.severity = Some(Severity::Permanent);
        event.reason = Some(refusal.text.as_str().into());
        event.smtp = Some(SmtpReply {
            code: refusal.code,
            enhanced: Some(refusal.enhanced.into()),
            text: refusal.text.as_str().into(),
        });
        event.via = Some(via_name(submission.via).into());
        event.client = submission.client.address.map(|a| a.to_string().into());
        // An event of a refusal is worth no more than a try: the refusal itself stands.
        if let Err(error) = self.ledger.submit(vec![Change::Event(Box::new(event))]).await {
            debug!(%error, "event of a refusal not stored");
        }
    }
}

/// Step 2, with the limits of a message.
fn read_header(policy: &Policy, submission: &Submission, headroom: usize) -> Result<Parsed, Refusal> {
    let message = &submission.body[headroom..];
    let size_max = policy.config.smtp.max_message_size;
    if message.len() as u64 > size_max.0 {
        return Err(Refusal::new(552, "5.3.4", 413, format!("The message is larger than {size_max}")));
    }
    match submission.via {
        Via::Smtp => {}
        // The session has looked at each octet that came by SMTP; nobody has at the others.
        Via::Http | Via::Internal | Via::Campaign => check_line_ends(message)?,
    }
    let parsed = submission::parse(message).map_err(|error| match error {
        HeaderError::TooLarge => Refusal::new(552, "5.3.4", 413, error.to_string()),
        HeaderError::Malformed(text) => Refusal::new(550, "5.6.0", 422, text),
    })?;
    let received_max = policy.config.smtp.max_received;
    if parsed.received > received_max {
        // RFC 5321 §6.3.
        let text = format!("More than {received_max} Received fields: the message is in a loop");
        return Err(Refusal::new(554, "5.4.6", 422, text));
    }
    Ok(parsed)
}

/// What goes out must not smuggle, however it came in.
fn check_line_ends(message: &[u8]) -> Result<(), Refusal> {
    let mut check = BdatReceiver::new(MessageBuffer::new(Some(0), 0));
    check.feed(message).and_then(|()| check.finish()).map(|_| ()).map_err(|_| {
        Refusal::new(550, "5.6.0", 422, "The message has a bare CR, a bare LF or a NUL: lines end with CRLF")
    })
}

/// Step 3 without the quotas. Notes the tenant in the submission when the sender's domain tells it.
fn decide<'a>(policy: &'a Policy, submission: &mut Submission, parsed: &Parsed) -> Result<Decision<'a>, Refusal> {
    let from_domain = parsed.from.first().map(|m| m.domain().clone());
    let tenant = match policy.sender(submission.tenant.as_ref(), &submission.reverse_path)? {
        Some(tenant) => tenant,
        None => {
            let first = parsed.from.first().ok_or_else(|| Refusal::new(550, "5.7.1", 403, "From: no address"))?;
            policy.tenant_of_domain(first.domain()).ok_or_else(|| super::policy::no_tenant(first.domain()))?
        }
    };
    if submission.tenant.is_none() {
        submission.tenant = Some(tenant.name.clone());
    }
    for mailbox in &parsed.from {
        policy.check_sender(tenant, mailbox.domain(), "From")?;
    }
    let by_header = parsed.steering.pool.is_some();
    let steering = parsed.steering.clone().or(std::mem::take(&mut submission.steering));
    let pool = policy.pool(steering.pool.as_ref(), by_header, tenant)?;
    let class = steering.class.unwrap_or(tenant.class);
    Ok(Decision { tenant, class, pool, steering, from_domain })
}

/// The same address twice in one transaction is one recipient; what was said of it first counts.
fn merge_duplicates(submission: &mut Submission) {
    if submission.recipients.len() > 1 {
        let mut seen = AHashSet::with_capacity(submission.recipients.len());
        submission.recipients.retain(|r| seen.insert(r.mailbox.canonical()));
    }
}

/// Takes the suppressed recipients out of the queues; they stay in the envelope, by which they are traced. Answers them and their events.
fn take_out(new: &mut NewMessage, verdicts: &[Option<Verdict>]) -> (Vec<Mailbox>, Vec<Change>) {
    if verdicts.iter().all(Option::is_none) {
        return (Vec::new(), Vec::new());
    }
    let held = |index: u32| verdicts.get(index as usize).copied().flatten();
    new.deliveries.retain(|delivery| held(delivery.entry.key.delivery.index).is_none());
    let left = new.deliveries.len() as u32;
    new.deliveries.iter_mut().for_each(|delivery| delivery.entry.recipients = left);
    let mut suppressed = Vec::new();
    let mut events = Vec::new();
    for (recipient, verdict) in new.message.envelope.recipients.iter().zip(verdicts) {
        let Some(verdict) = verdict else { continue };
        let mut event = Event { event: EventKind::Suppressed, ..new.event.clone() };
        (event.sender, event.recipients, event.size, event.via, event.client) = (None, None, None, None, None);
        event.recipient = Some(recipient.mailbox.clone());
        event.domain = Some(recipient.mailbox.domain().clone());
        event.severity = Some(Severity::Permanent);
        event.reason = Some(verdict.to_string().into());
        events.push(Change::Event(Box::new(event)));
        suppressed.push(recipient.mailbox.clone());
    }
    (suppressed, events)
}

fn deliveries(envelope: &Envelope, body: &Bytes, pool: &Name) -> Vec<NewDelivery> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let recipients = envelope.recipients.len() as u32;
    let one = |(index, recipient): (u32, &crate::store::EnvelopeRecipient)| NewDelivery {
        queue: QueueKey {
            class: envelope.class,
            tenant: envelope.tenant.clone(),
            campaign: envelope.campaign.clone(),
            pool: pool.clone(),
            domain: recipient.mailbox.domain().clone(),
        },
        entry: QueueEntry {
            key: EntryKey { due: envelope.accepted, delivery: DeliveryId { message: envelope.id, index } },
            accepted: envelope.accepted,
            expires: envelope.expires,
            attempts: 0,
            first_try: None,
            last_try: None,
            last_reply: None,
            size,
            recipients,
            delay_noticed: false,
            sent: None,
        },
    };
    (0..).zip(&envelope.recipients).map(one).collect()
}

fn accepted_event(envelope: &Envelope, size: u64, pool: &Name) -> Event {
    let mut event = Event::new(EventKind::Accepted, envelope.accepted, envelope.tenant.clone());
    event.message_id = Some(envelope.id);
    event.sender = Some(envelope.reverse_path.to_string().into());
    event.recipients = Some(envelope.recipients.len() as u32);
    if let [only] = envelope.recipients.as_slice() {
        event.recipient = Some(only.mailbox.clone());
        event.domain = Some(only.mailbox.domain().clone());
    }
    event.size = Some(size);
    event.campaign = envelope.campaign.clone();
    event.class = Some(envelope.class);
    event.tags = envelope.tags.clone();
    // Checked to be JSON when it was read.
    event.metadata = envelope.metadata.as_deref().and_then(|m| serde_json::value::RawValue::from_string(m.into()).ok());
    event.pool = Some(pool.clone());
    event.via = Some(via_name(envelope.via).into());
    event.client = envelope.client.clone();
    event
}

fn via_name(via: Via) -> &'static str {
    match via {
        Via::Smtp => "smtp",
        Via::Http => "http",
        Via::Internal => "internal",
        Via::Campaign => "campaign",
    }
}

/// The label of a refusal.
fn reason(refusal: &Refusal) -> &'static str {
    match (refusal.code, refusal.http_status) {
        (_, 429) => "quota",
        (_, 507) => "space",
        (421 | 451, _) => "store",
        (_, 403) => "policy",
        _ => "content",
    }
}
