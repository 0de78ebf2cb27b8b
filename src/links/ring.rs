//! The ring of keys: `state` has a record `key/link/<id>` for each: version (1), when it was made (8), key (32).

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::seam::random;
use crate::store::{Change, Ledger, ReadError, Reader, SubmitError};
use crate::types::Timestamp;

/// What the keys of the records begin with; the number of the key follows, as three digits.
const STATE_PREFIX: &str = "key/link/";
/// The version of a record.
const VERSION: u8 = 1;
/// The length of a key.
const KEY_LEN: usize = 32;
/// The length of a code.
pub(super) const CODE_LEN: usize = 8;
/// The most keys: their number is one octet of each token.
pub const KEYS_MAX: usize = 256;
/// What the tokens are for: a token of another kind does not open here.
const UNSUBSCRIBE: &[u8] = b"unsubscribe 1";

/// Why the ring could not be read or grown.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RingError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new key was not stored.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A record is not readable: links made with its key would not open.
    #[error("the record {0} of the store is not readable: restore it from a backup")]
    Record(String),
    /// There is no number left.
    #[error("the ring has {KEYS_MAX} keys: there is no room for another")]
    Full,
    /// The ring is not kept anywhere.
    #[error("this ring of keys is not kept")]
    Ephemeral,
}

/// The keys, by their numbers. The one with the highest number makes the tokens.
pub(super) struct Ring {
    keys: BTreeMap<u8, [u8; KEY_LEN]>,
    ready: BTreeMap<u8, LessSafeKey>,
}

impl Ring {
    fn of(keys: BTreeMap<u8, [u8; KEY_LEN]>) -> Self {
        let ready = keys.iter().filter_map(|(id, key)| {
            // A key of this length is always taken.
            Some((*id, LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).ok()?)))
        });
        Self { ready: ready.collect(), keys }
    }

    pub(super) async fn read(reader: &Reader) -> Result<Self, RingError> {
        let mut keys = BTreeMap::new();
        for (name, value) in reader.state(STATE_PREFIX, KEYS_MAX).await? {
            let parsed = parse(&name, &value);
            let (id, key) = parsed.ok_or_else(|| RingError::Record(String::from_utf8_lossy(&name).into_owned()))?;
            keys.insert(id, key);
        }
        Ok(Self::of(keys))
    }

    pub(super) fn ephemeral() -> Self {
        Self::of(BTreeMap::from([(0, new_key())]))
    }

    /// The ring with one more key, which is on disk.
    pub(super) async fn grown(&self, ledger: &Ledger, now: Timestamp) -> Result<Self, RingError> {
        let id = match self.keys.last_key_value() {
            None => 0,
            Some((last, _)) => last.checked_add(1).ok_or(RingError::Full)?,
        };
        let key = new_key();
        let value = [[VERSION].as_slice(), &now.as_millis().to_be_bytes(), &key].concat();
        ledger.submit(vec![Change::PutState { key: format!("{STATE_PREFIX}{id:03}").into_bytes(), value }]).await?;
        let mut keys = self.keys.clone();
        keys.insert(id, key);
        Ok(Self::of(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn newest_id(&self) -> u8 {
        self.ready.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Number of the key, ciphertext, tag.
    pub(super) fn seal(&self, mut plain: Vec<u8>) -> Vec<u8> {
        let (id, key) = self.ready.last_key_value().expect("a ring is made with a key");
        let (nonce, aad) = with(*id);
        // It fails only for messages of gigabytes; a token has at most a kilobyte.
        key.seal_in_place_append_tag(nonce, aad, &mut plain).expect("a short message can be sealed");
        plain.insert(0, *id);
        plain
    }

    /// A code that only this ring can make for these octets, under its newest key; and the number of that key.
    pub(super) fn code(&self, purpose: &[u8], octets: &[&[u8]]) -> (u8, [u8; CODE_LEN]) {
        let (id, key) = self.keys.last_key_value().expect("a ring is made with a key");
        (*id, code(key, purpose, octets))
    }

    /// Whether this ring made a code, by any of its keys.
    pub(super) fn made(&self, id: u8, purpose: &[u8], octets: &[&[u8]], given: &[u8; CODE_LEN]) -> bool {
        self.keys.get(&id).is_some_and(|key| code(key, purpose, octets).ct_eq(given).into())
    }

    pub(super) fn open(&self, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (id, rest) = sealed.split_first_mut()?;
        let (nonce, aad) = with(*id);
        let plain = self.ready.get(id)?.open_in_place(nonce, aad, rest).ok()?;
        Some(plain.to_vec())
    }
}

/// One nonce for all: see the module's words on the cipher. What a token is for is bound to it.
fn with(id: u8) -> (Nonce, Aad<Vec<u8>>) {
    (Nonce::assume_unique_for_key([0; NONCE_LEN]), Aad::from([UNSUBSCRIBE, &[id]].concat()))
}

/// HMAC-SHA256 (RFC 2104), cut to its first octets (§5): 64 bits that somebody would have to guess in our sessions, one guess a command.
fn code(key: &[u8; KEY_LEN], purpose: &[u8], octets: &[&[u8]]) -> [u8; CODE_LEN] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(purpose);
    octets.iter().for_each(|part| mac.update(part));
    let full = mac.finalize().into_bytes();
    let mut short = [0; CODE_LEN];
    short.copy_from_slice(&full[..CODE_LEN]);
    short
}

fn new_key() -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    random::fill(&mut key);
    key
}

fn parse(name: &[u8], value: &[u8]) -> Option<(u8, [u8; KEY_LEN])> {
    let id = std::str::from_utf8(name).ok()?.strip_prefix(STATE_PREFIX)?.parse().ok()?;
    Some((id, value.strip_prefix(&[VERSION])?.get(8..)?.try_into().ok()?))
}
