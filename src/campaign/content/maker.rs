//! Messages made at the attempt: rows are rendered and signed, stored messages come as they are.
//!
//! 1. The row is there: the queue loaded it before it gave the job out,
//! 2. an address that was suppressed since the upload ends here,
//! 3. octets of memory are taken from a budget, and given back when the message has been sent,
//! 4. rendering and signing happen in one go: on this thread where that is quick, else on the threads that sign,
//! 5. the result is measured against the peer's limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Outside;
use super::blueprint::{Blueprint, ContentError, Target, row_of};
use super::cache::{Blueprints, FindSealed};
use crate::delivery::{ContentMaker, Failure, Job, LocalFuture, PeerLimits, RENDERING, SUPPRESSED, WireMessage};
use crate::dkim::{self, Algorithm, Key, KeyRing, SignError};
use crate::event::{Severity, SmtpReply};
use crate::metrics::content::ContentMetrics;
use crate::metrics::dkim::DkimMetrics;
use crate::mime::skeleton::Assembled;
use crate::queue::content::{MessageSource, StoredContent, check_size, pool_ended};
use crate::queue::sign::SignPool;
use crate::seam::clock::Clock;
use crate::store::StoredMessage;
use crate::suppression::Suppressions;
use crate::types::{Mailbox, Name, RowId, Timestamp};

/// What a rendering may cost, in microseconds, to happen on the egress thread: handing it over and back costs about a third of this, and
/// every other session waits meanwhile.
const INLINE_US_MAX: u32 = 120;

/// How long a message waits for memory. Then it is made all the same: what is ready and not yet sent is bounded by the connections too,
/// and they must not wait for each other without end.
const BUDGET_WAIT: Duration = Duration::from_secs(5);

/// What a permit of the budget stands for, in octets.
const PERMIT_OCTETS: usize = 1_024;

/// The stage of failures that are neither rendering's nor suppression's.
const STAGE: &str = "making the content";

/// What the maker is made of.
pub struct ContentParts<S> {
    /// Makes what is not a row.
    pub stored: StoredContent<S>,
    /// Where rows come from, as messages: the queue's cache, which the loader fills.
    pub source: S,
    /// Finds started campaigns.
    pub find: FindSealed,
    /// Who is not sent to.
    pub suppressions: Suppressions,
    /// Links, keys, configuration.
    pub outside: Outside,
    /// The DKIM keys; the same that `stored` has.
    pub ring: Arc<ArcSwap<KeyRing>>,
    /// The threads that sign.
    pub pool: Arc<SignPool>,
    /// The clock.
    pub clock: Clock,
    /// Metrics of signing.
    pub dkim: DkimMetrics,
    /// Metrics of rendering.
    pub metrics: ContentMetrics,
    /// Octets that rendered messages may take until they are sent.
    pub bytes_max: u64,
}

/// Makes all content: of rows and of stored messages. Lives on the egress thread.
pub struct CampaignContent<S> {
    stored: StoredContent<S>,
    source: S,
    blueprints: Blueprints,
    suppressions: Suppressions,
    outside: Outside,
    ring: Arc<ArcSwap<KeyRing>>,
    pool: Arc<SignPool>,
    clock: Clock,
    dkim: DkimMetrics,
    metrics: ContentMetrics,
    budget: Arc<Semaphore>,
    budget_permits: u32,
}

impl<S: MessageSource> CampaignContent<S> {
    /// A maker.
    pub fn new(parts: ContentParts<S>) -> Self {
        let permits = usize::try_from(parts.bytes_max).unwrap_or(usize::MAX) / PERMIT_OCTETS;
        let budget_permits = u32::try_from(permits.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX).max(1);
        Self {
            stored: parts.stored,
            source: parts.source,
            blueprints: Blueprints::new(parts.find, parts.pool.clone()),
            suppressions: parts.suppressions,
            outside: parts.outside,
            ring: parts.ring,
            pool: parts.pool,
            clock: parts.clock,
            dkim: parts.dkim,
            metrics: parts.metrics,
            budget: Arc::new(Semaphore::new(budget_permits as usize)),
            budget_permits,
        }
    }

    async fn make_row(&self, id: RowId, job: &Job, limits: PeerLimits) -> Result<WireMessage, Failure> {
        if job.smtputf8 && !limits.smtputf8 {
            // RFC 6531 §3.5.
            return Err(failure(
                Severity::Permanent,
                550,
                "5.6.7",
                STAGE,
                "the peer does not support SMTPUTF8, which this address needs",
            ));
        }
        let Some(message) = self.source.message(job.message).await? else {
            return Err(gone("the campaign's row is gone"));
        };
        let Some(recipient) = message.envelope.recipients.first() else {
            return Err(gone("the campaign's row has no address"));
        };
        let Some(blueprint) = self.blueprints.get(id.campaign).await.map_err(pool_ended)? else {
            return Err(gone("the campaign is gone"));
        };
        let blueprint = blueprint.map_err(|error| {
            self.metrics.failed.inc();
            rendering(&error.to_string())
        })?;
        let list = blueprint.sealed().job.list.as_ref();
        self.check_suppression(&message, list, &recipient.mailbox).await?;
        let permit = self.memory(blueprint.octets_for(message.body.len())).await;
        let (assembled, fields) = self.render_and_sign(id, blueprint, message).await?;
        let mut parts = Vec::with_capacity(assembled.parts.len() + 1);
        parts.extend(fields);
        // The memory is free again when the last who holds the message lets it go.
        let mut assembled = assembled.parts.into_iter();
        parts.extend(assembled.next().map(|octets| Bytes::from_owner(Held { octets, _permit: permit })));
        parts.extend(assembled);
        let size = parts.iter().map(|part| part.len() as u64).sum();
        check_size(size, limits)?;
        // All bodies are in 7 bits; only an address in the header may not be.
        Ok(WireMessage { parts, size, eight_bit: job.smtputf8 && limits.eight_bit })
    }

    /// RFC 8058 and everybody's patience: who unsubscribed since the upload gets no more.
    async fn check_suppression(
        &self,
        message: &StoredMessage,
        list: Option<&Name>,
        address: &Mailbox,
    ) -> Result<(), Failure> {
        let envelope = &message.envelope;
        if !self.suppressions.maybe(&envelope.tenant, address) {
            return Ok(());
        }
        let verdict = self.suppressions.check(&envelope.tenant, list, envelope.class, address).await;
        match verdict {
            Ok(None) => Ok(()),
            Ok(Some(verdict)) => {
                self.metrics.suppressed.inc();
                Err(failure(Severity::Permanent, 550, "5.7.1", SUPPRESSED, &verdict.to_string()))
            }
            Err(error) => Err(failure(Severity::Temporary, 451, "4.3.0", STAGE, &error.to_string())),
        }
    }

    /// Memory for a message; `None` when there was none for long.
    async fn memory(&self, octets: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(octets.div_ceil(PERMIT_OCTETS)).unwrap_or(u32::MAX).min(self.budget_permits);
        if let Ok(permit) = self.budget.clone().try_acquire_many_owned(permits) {
            return Some(permit);
        }
        let permit = tokio::time::timeout(BUDGET_WAIT, self.budget.clone().acquire_many_owned(permits)).await;
        self.metrics.waited.inc();
        permit.ok().and_then(Result::ok)
    }

    async fn render_and_sign(
        &self,
        id: RowId,
        blueprint: Arc<Blueprint>,
        message: Arc<StoredMessage>,
    ) -> Result<(Assembled, Option<Bytes>), Failure> {
        let begun = Instant::now();
        let now = self.clock.now();
        let envelope = &message.envelope;
        let reverse = envelope.reverse_path.mailbox().map(Mailbox::domain);
        let keys = self.ring.load().for_message(envelope.from_domain.as_ref(), reverse, now);
        let algorithms: Vec<Algorithm> = keys.iter().map(|key| key.algorithm).collect();
        let is_quick = blueprint.cost_us().is_some_and(|us| us <= INLINE_US_MAX)
            && algorithms.iter().all(|algorithm| *algorithm == Algorithm::Ed25519Sha256);
        let made = if is_quick {
            make(&blueprint, id, &message.body, &self.outside, &keys, now)
        } else {
            let outside = self.outside.clone();
            let task = move || make(&blueprint, id, &message.body, &outside, &keys, now);
            self.pool.run(task).await.map_err(pool_ended)?
        };
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        match made {
            Ok(made) => {
                self.metrics.rendered.inc();
                for algorithm in algorithms {
                    match algorithm {
                        Algorithm::RsaSha256 => self.dkim.rsa.inc(),
                        Algorithm::Ed25519Sha256 => self.dkim.ed25519.inc(),
                    }
                }
                Ok(made)
            }
            Err(NotMade::Content(error)) => {
                self.metrics.failed.inc();
                Err(rendering(&error.to_string()))
            }
            Err(NotMade::Sign(error)) => {
                self.dkim.failures.inc();
                // RFC 3463 §3.8: X.7.5, cryptographic failure. It waits for the key; it never goes unsigned.
                Err(failure(Severity::Temporary, 451, "4.7.5", STAGE, &error.to_string()))
            }
        }
    }
}

impl<S: MessageSource> ContentMaker for CampaignContent<S> {
    fn make<'a>(&'a self, job: &'a Job, limits: PeerLimits) -> LocalFuture<'a, Result<WireMessage, Failure>> {
        match row_of(job.message) {
            Some(id) => Box::pin(self.make_row(id, job, limits)),
            None => self.stored.make(job, limits),
        }
    }
}

/// The first part of a message, with the memory that the whole takes.
struct Held {
    octets: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

enum NotMade {
    Content(ContentError),
    Sign(SignError),
}

/// A row as octets and its signature fields.
fn make(
    blueprint: &Blueprint,
    id: RowId,
    row: &[u8],
    outside: &Outside,
    keys: &[Arc<Key>],
    now: Timestamp,
) -> Result<(Assembled, Option<Bytes>), NotMade> {
    let begun = Instant::now();
    let target = Target { row, id: Some(id), test: None };
    let drawn = blueprint.draw(&target, outside).map_err(NotMade::Content)?;
    let assembled = blueprint.assemble(drawn);
    blueprint.note_cost(begun.elapsed());
    if keys.is_empty() {
        return Ok((assembled, None));
    }
    let (header, first) = assembled.split();
    let body = std::iter::once(first).chain(assembled.parts.iter().skip(1).map(|part| &part[..]));
    let fields = dkim::sign_parts(header, body, keys, now).map_err(NotMade::Sign)?;
    Ok((assembled, Some(fields.into())))
}

fn gone(text: &str) -> Failure {
    failure(Severity::Permanent, 554, "5.3.0", STAGE, text)
}

fn rendering(text: &str) -> Failure {
    // RFC 3463 §3.7: X.6.0, other or undefined media error.
    failure(Severity::Permanent, 554, "5.6.0", RENDERING, text)
}

fn failure(severity: Severity, code: u16, enhanced: &str, stage: &'static str, text: &str) -> Failure {
    let reply = SmtpReply { code, enhanced: Some(enhanced.into()), text: text.into() };
    Failure { severity, reply, stage, remote: false }
}
