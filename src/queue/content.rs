//! The octets of stored messages, as a peer gets them.
//!
//! 1. What the peer can't take is refused before anything is done: SMTPUTF8 (5.6.7), size (5.3.4),
//! 2. the message comes from memory or the store ([`MessageSource`]),
//! 3. an 8-bit body for a peer without 8BITMIME is put into 7 bits; a message that is signed already is not, since that would
//!    break its signature: it fails (5.6.3),
//! 4. the keys of its From domain sign what goes out; the signatures are kept for a while, so that retries and several jobs of
//!    one message cost one signature. A key that can't be used defers the message: it never goes unsigned,
//! 5. the parts are put together without copying the body, and measured against the peer's limit once more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::sign::{PoolEnded, SignPool};
use crate::delivery::{ContentMaker, Failure, Job, LocalFuture, PeerLimits, WireMessage};
use crate::dkim::{self, Algorithm, Key, KeyRing};
use crate::event::{Severity, SmtpReply};
use crate::metrics::dkim::DkimMetrics;
use crate::mime::seven_bit::to_seven_bit;
use crate::seam::clock::Clock;
use crate::store::StoredMessage;
use crate::types::{MessageId, Timestamp};

/// The largest message that is signed on the egress thread, in octets, where all its keys are Ed25519 (20 µs). Hashing takes
/// about 1 µs a KiB, which a larger one would let all sessions wait for.
const INLINE_MAX: usize = 64 << 10;

/// Signatures that are kept for another attempt or job, in each of the two halves of the cache: about 1 KiB each. Reaching it
/// costs a signature that is made again.
const SIGNATURES_MAX: usize = 2_048;

/// How long a signature is used for. A key that took over meanwhile should not wait for long.
const SIGNATURE_AGE_MAX: Duration = Duration::from_secs(3_600);

/// The stage at which a failure happened, for people.
const STAGE: &str = "making the content";

/// Where stored messages come from: memory for the just accepted, else the store.
pub trait MessageSource {
    /// The message; `None` when there is none with this id. A failure to read is temporary.
    fn message(&self, id: MessageId) -> LocalFuture<'_, Result<Option<Arc<StoredMessage>>, Failure>>;
}

/// Makes the octets of stored messages. Lives on the egress thread.
pub struct StoredContent<S> {
    source: S,
    ring: Arc<ArcSwap<KeyRing>>,
    pool: Arc<SignPool>,
    clock: Clock,
    metrics: DkimMetrics,
    signatures: RefCell<Signatures>,
}

impl<S: MessageSource> StoredContent<S> {
    /// A maker. A reload stores another ring behind `ring`, which holds for every message from then on.
    pub fn new(
        source: S,
        ring: Arc<ArcSwap<KeyRing>>,
        pool: Arc<SignPool>,
        clock: Clock,
        metrics: DkimMetrics,
    ) -> Self {
        let signatures = RefCell::new(Signatures::new(ring.load_full()));
        Self { source, ring, pool, clock, metrics, signatures }
    }

    async fn make_message(&self, job: &Job, limits: PeerLimits) -> Result<WireMessage, Failure> {
        if job.smtputf8 && !limits.smtputf8 {
            // RFC 6531 §3.5.
            return Err(permanent(550, "5.6.7", "the peer does not support SMTPUTF8, which this message needs"));
        }
        check_size(job.size, limits)?;
        let Some(message) = self.source.message(job.message).await? else {
            return Err(permanent(554, "5.3.0", "the stored message is missing"));
        };
        let seven_bit = message.envelope.eight_bit && !limits.eight_bit;
        let octets = if seven_bit { self.seven_bit(&message.body).await? } else { message.body.clone() };
        let fields = self.signature(&message, &octets, seven_bit).await?;
        let mut parts = Vec::with_capacity(3);
        let final_crlf = (!octets.ends_with(b"\r\n")).then(|| Bytes::from_static(b"\r\n"));
        parts.extend(fields);
        parts.push(octets);
        // RFC 5321 §4.1.1.4: DATA would add it; BDAT would not, and the signature holds for both.
        parts.extend(final_crlf);
        let size = parts.iter().map(|part| part.len() as u64).sum();
        check_size(size, limits)?;
        Ok(WireMessage { parts, size, eight_bit: message.envelope.eight_bit && !seven_bit })
    }

    /// RFC 6152 §3: re-encode or fail.
    async fn seven_bit(&self, body: &Bytes) -> Result<Bytes, Failure> {
        let body = body.clone();
        let encoded = self.pool.run(move || to_seven_bit(&body)).await.map_err(pool_ended)?;
        let octets = encoded.map_err(|error| {
            permanent(
                554,
                "5.6.3",
                &format!("the peer does not support 8BITMIME, and the message can't be converted: {error}"),
            )
        })?;
        self.metrics.reencoded.inc();
        Ok(octets.into())
    }

    /// The signature fields of a message; `None` when no key is meant for it.
    async fn signature(
        &self,
        message: &StoredMessage,
        octets: &Bytes,
        seven_bit: bool,
    ) -> Result<Option<Bytes>, Failure> {
        let now = self.clock.now();
        let envelope = &message.envelope;
        let reverse = envelope.reverse_path.mailbox().map(|mailbox| mailbox.domain());
        let (keys, cell) = {
            // Let go before anything is awaited: there are few places for those who hold on to a ring.
            let ring = self.ring.load();
            let keys = ring.for_message(envelope.from_domain.as_ref(), reverse, now);
            if keys.is_empty() {
                return Ok(None);
            }
            (keys, self.signatures.borrow_mut().cell((envelope.id, seven_bit), &ring, now))
        };
        if let Some(fields) = cell.get() {
            self.metrics.reused.inc();
            return Ok(Some(fields.clone()));
        }
        // Of several jobs of one message that ask at the same time one signs, and the others wait for it.
        let fields = cell.get_or_try_init(|| self.sign(octets.clone(), keys, now)).await?;
        Ok(Some(fields.clone()))
    }

    async fn sign(&self, octets: Bytes, keys: Vec<Arc<Key>>, now: Timestamp) -> Result<Bytes, Failure> {
        let begun = Instant::now();
        let algorithms: Vec<Algorithm> = keys.iter().map(|key| key.algorithm).collect();
        let quick = octets.len() <= INLINE_MAX && algorithms.iter().all(|a| *a == Algorithm::Ed25519Sha256);
        let signed = if quick {
            dkim::sign(&octets, &keys, now)
        } else {
            self.pool.run(move || dkim::sign(&octets, &keys, now)).await.map_err(pool_ended)?
        };
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        match signed {
            Ok(fields) => {
                for algorithm in algorithms {
                    match algorithm {
                        Algorithm::RsaSha256 => self.metrics.rsa.inc(),
                        Algorithm::Ed25519Sha256 => self.metrics.ed25519.inc(),
                    }
                }
                Ok(fields.into())
            }
            Err(error) => {
                self.metrics.failures.inc();
                // RFC 3463 §3.8: X.7.5, cryptographic failure.
                Err(failure(Severity::Temporary, 451, "4.7.5", &error.to_string()))
            }
        }
    }
}

impl<S: MessageSource> ContentMaker for StoredContent<S> {
    fn make<'a>(&'a self, job: &'a Job, limits: PeerLimits) -> LocalFuture<'a, Result<WireMessage, Failure>> {
        Box::pin(self.make_message(job, limits))
    }
}

/// Refuses what is larger than the peer takes.
pub(crate) fn check_size(size: u64, limits: PeerLimits) -> Result<(), Failure> {
    if limits.size_max > 0 && size > limits.size_max {
        // RFC 1870 §6.1, before the peer has to say so.
        let text = format!("the message has {size} octets, the peer takes {}", limits.size_max);
        return Err(permanent(552, "5.3.4", &text));
    }
    Ok(())
}

/// The failure of work that no thread does any more: it can be tried again.
pub(crate) fn pool_ended(error: PoolEnded) -> Failure {
    failure(Severity::Temporary, 451, "4.3.0", &error.to_string())
}

fn permanent(code: u16, enhanced: &str, text: &str) -> Failure {
    failure(Severity::Permanent, code, enhanced, text)
}

fn failure(severity: Severity, code: u16, enhanced: &str, text: &str) -> Failure {
    let reply = SmtpReply { code, enhanced: Some(enhanced.into()), text: text.into() };
    Failure { severity, reply, stage: STAGE, remote: false }
}

/// A message and whether it was put into 7 bits: what a signature holds for.
type SignedForm = (MessageId, bool);

/// A signature that is there or being made.
type Cell = Rc<OnceCell<Bytes>>;

/// Signatures by message. What was not asked for while [`SIGNATURES_MAX`] others were added is forgotten: the younger half takes
/// what is new or used, and when it is full it becomes the older one, whose content goes.
struct Signatures {
    ring: Arc<KeyRing>,
    young: HashMap<SignedForm, (Timestamp, Cell), ahash::RandomState>,
    old: HashMap<SignedForm, (Timestamp, Cell), ahash::RandomState>,
}

impl Signatures {
    fn new(ring: Arc<KeyRing>) -> Self {
        Self { ring, young: HashMap::default(), old: HashMap::default() }
    }

    fn cell(&mut self, form: SignedForm, ring: &Arc<KeyRing>, now: Timestamp) -> Cell {
        if !Arc::ptr_eq(&self.ring, ring) {
            // The keys are others: what the old ones signed may have lost its record.
            *self = Self::new(ring.clone());
        }
        let fresh = |made: Timestamp| now.since(made) < SIGNATURE_AGE_MAX;
        if let Some((made, cell)) = self.young.get(&form)
            && fresh(*made)
        {
            return cell.clone();
        }
        let kept = self.old.remove(&form).filter(|(made, _)| fresh(*made));
        let (made, cell) = kept.unwrap_or_else(|| (now, Cell::default()));
        if self.young.len() >= SIGNATURES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(form, (made, cell.clone()));
        cell
    }
}

#[cfg(test)]
mod tests;
