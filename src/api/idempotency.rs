//! Idempotency keys: a request that is repeated with the same key is the same request.
//!
//! 1. A key that is being worked on gives 409 ([`InFlight`]),
//! 2. a key with a record gives the recorded answer where the body is the same, else 422,
//! 3. otherwise the record goes into the batch that accepts the message: both are on disk, or neither,
//! 4. after 72 h a record is ignored, and swept away a 256th of all at a time.
//!
//! The work runs in a task of its own: a client that hangs up can't make the key free while its message is being committed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::{Api, Caller, Problem};
use crate::store::Change;
use crate::types::Timestamp;

/// How long an answer is kept.
pub const KEEP: Duration = Duration::from_secs(72 * 3_600);

/// The longest key, in octets.
pub const KEY_LEN_MAX: usize = 255;

/// The prefix of the records in `state`.
const PREFIX: &str = "idempotency/";

/// The version of the record's format.
const VERSION: u8 = 1;

/// How long the sweep rests after each of its 256 parts: a round takes an hour.
const SWEEP_PAUSE: Duration = Duration::from_secs(14);

/// The most records that one step of the sweep reads.
const SWEEP_STEP: usize = 10_000;

/// The keys that are being worked on.
#[derive(Default)]
pub struct InFlight(Mutex<HashSet<[u8; 32]>>);

/// The right to work on a key; given back when dropped.
pub struct Claim {
    all: Arc<InFlight>,
    key: [u8; 32],
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.key);
    }
}

/// What is kept for a key.
#[derive(Serialize, Deserialize)]
struct Record {
    v: u8,
    body: String,
    at: u64,
    answer: serde_json::Value,
}

/// What a key tells of its request.
pub enum Known<A> {
    /// It is new: go on, then write the record that [`Claim::record`] makes.
    New(Claim),
    /// It was answered so.
    Answered(A),
}

/// The key of a request, if it has one.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().map(str::trim).filter(|k| (1..=KEY_LEN_MAX).contains(&k.len()));
    match key {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Problem::bad_request(format!("Idempotency-Key has 1 to {KEY_LEN_MAX} printable ASCII characters"))),
    }
}

/// Claims a key: 409 while another request has it, 422 when it stands for another body.
pub async fn claim<A: DeserializeOwned>(
    api: &Api,
    caller: &Caller,
    key: &str,
    body_hash: &str,
) -> Result<Known<A>, Problem> {
    let mut digest = Sha256::new();
    digest.update(caller.tenant.as_ref().map_or("", |t| t.as_str()));
    digest.update([0]);
    digest.update(key);
    let key: [u8; 32] = digest.finalize().into();
    let all = Arc::clone(&api.0.in_flight);
    if !all.0.lock().insert(key) {
        let detail = "a request with this Idempotency-Key is under way: ask again when it has been answered";
        return Err(Problem::new(StatusCode::CONFLICT, "idempotency-busy", detail));
    }
    let claim = Claim { all, key };
    let found = api.parts().read.state_get(claim.state_key()).await?;
    let record = found.and_then(|value| serde_json::from_slice::<Record>(&value).ok());
    let Some(record) = record.filter(|r| r.v == VERSION && !is_old(r.at, api.now())) else {
        return Ok(Known::New(claim));
    };
    // An answer of another kind was given to a request of another kind.
    match serde_json::from_value(record.answer) {
        Ok(answer) if record.body == body_hash => Ok(Known::Answered(answer)),
        Ok(_) | Err(_) => {
            let detail = "this Idempotency-Key was used with another body: a new request needs a new key";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-mismatch", detail))
        }
    }
}

impl Claim {
    fn state_key(&self) -> Vec<u8> {
        format!("{PREFIX}{}", hex(&self.key)).into_bytes()
    }

    /// The change that keeps the answer; goes into the batch that it guards.
    pub fn record<A: Serialize>(&self, body_hash: &str, answer: &A, now: Timestamp) -> Vec<Change> {
        let answer = serde_json::to_value(answer).unwrap_or_default();
        let record = Record { v: VERSION, body: body_hash.to_owned(), at: now.as_millis(), answer };
        // A struct of numbers and texts can always be written.
        let value = serde_json::to_vec(&record).unwrap_or_default();
        vec![Change::PutState { key: self.state_key(), value }]
    }
}

fn is_old(at_ms: u64, now: Timestamp) -> bool {
    now.since(Timestamp::from_millis(at_ms)) > KEEP
}

/// SHA-256 over all that makes a request the same: media type, query, body.
pub fn body_hash(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        for nibble in [b >> 4, b & 15] {
            out.extend(char::from_digit(u32::from(nibble), 16));
        }
        out
    })
}

/// Removes old records, one 256th of the key space after the other, until the API closes.
pub async fn sweep_forever(api: &Api) {
    let mut closing = api.0.closing.subscribe();
    for part in (0..=u8::MAX).cycle() {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_PAUSE) => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
        match sweep(api, part).await {
            Ok(0) => {}
            Ok(removed) => debug!(removed, "old idempotency records removed"),
            Err(error) => warn!(%error, "old idempotency records could not be removed"),
        }
    }
}

async fn sweep(api: &Api, part: u8) -> anyhow::Result<usize> {
    let prefix = format!("{PREFIX}{}", hex(&[part])).into_bytes();
    let records = api.parts().read.state(prefix, SWEEP_STEP).await?;
    let now = api.now();
    let old = |value: &[u8]| serde_json::from_slice::<Record>(value).map_or(true, |r| is_old(r.at, now));
    let changes: Vec<Change> =
        records.into_iter().filter(|(_, v)| old(v)).map(|(key, _)| Change::RemoveState { key: key.to_vec() }).collect();
    let removed = changes.len();
    if removed > 0 {
        api.parts().ledger.submit(changes).await?;
    }
    Ok(removed)
}
