//! Links: tokens that stand for somebody without saying who, under a ring of keys that lasts.
//!
//! 1. [`Links::open`] reads the ring from the store, or makes its first key; [`Links::rotate`] adds one, and old keys stay: a link never
//!    expires, so a key that made one is never taken away,
//! 2. [`Links::unsubscribe_url`] seals what an unsubscribe needs (whose mail, which message, which list, which address) into a token,
//! 3. [`Links::open_unsubscribe`] gives it back, from the token alone: nothing is looked up, and nothing need be kept for it.
//!
//! The token is base64url of `key id (1), ciphertext, tag (16)` with AES-256-GCM-SIV (RFC 8452). That cipher needs no random nonce: equal
//! contents give equal tokens, which is what a message needs that is rendered again at each attempt, and different ones show
//! nothing but their length. It also saves 12 octets. With one nonce its bound is the birthday bound of its 128-bit tag: after 2^48
//! tokens under one key the odds of a clash are one in 2^32.
//!
//! 4. [`Links::return_path`] makes the return path of one recipient, and [`Links::open_return_path`] reads it: a short code instead of a token
//!    (`return_path`), since it must fit into a local part.
//!
//! A token does not fit into a local part (64 octets, and letter case may get lost there): for mail, [`Links::unsubscribe_mailto`] puts it into the
//! subject (RFC 2369 §3.2, RFC 6068), where [`find_token`] finds it again behind whatever a client puts around it.

mod return_path;
mod ring;
#[cfg(test)]
mod tests;
mod token;

pub use return_path::{RETURN_PATH_DAYS, RETURN_PATH_PREFIX, ReturnPath, ReturnPathError};
pub use ring::{KEYS_MAX, RingError};
pub use token::UnsubscribeToken;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::seam::clock::Clock;
use crate::store::{Ledger, Reader};
use crate::types::Domain;
use ring::Ring;

/// The longest token that is looked at, in characters: the longest names and the longest address give about 1,100.
pub const TOKEN_LEN_MAX: usize = 1_600;

/// The shortest token that can be one, in characters.
const TOKEN_LEN_MIN: usize = 24;

/// The path in front of a token of an unsubscribe link.
pub const UNSUBSCRIBE_PATH: &str = "/u/";

/// The local part to which unsubscribes are mailed, at a tenant's bounce domain.
pub const UNSUBSCRIBE_LOCAL_PART: &str = "unsubscribe";

/// A token is not one of ours. It is not told apart why: tampered, cut, or of another node's ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token is not known")]
pub struct TokenError;

/// Makes and opens tokens; cheap to clone, used from any thread, never waits.
#[derive(Clone)]
pub struct Links {
    ring: Arc<ArcSwap<Ring>>,
    store: Option<(Ledger, Clock)>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("keys", &self.ring.load().len()).finish_non_exhaustive()
    }
}

impl Links {
    /// Reads the ring; makes the first key when there is none. `Ok` means: the key is on disk, so links made with it will work.
    pub async fn open(reader: &Reader, ledger: Ledger, clock: Clock) -> Result<Self, RingError> {
        let mut ring = Ring::read(reader).await?;
        if ring.len() == 0 {
            ring = ring.grown(&ledger, clock.now()).await?;
        }
        Ok(Self { ring: Arc::new(ArcSwap::from_pointee(ring)), store: Some((ledger, clock)) })
    }

    /// With one key that nothing keeps: for tests, previews and the sandbox.
    pub fn ephemeral() -> Self {
        Self { ring: Arc::new(ArcSwap::from_pointee(Ring::ephemeral())), store: None }
    }

    /// Adds a key, with which links are made from now on; answers its number. The others go on opening theirs.
    pub async fn rotate(&self) -> Result<u8, RingError> {
        let (ledger, clock) = self.store.as_ref().ok_or(RingError::Ephemeral)?;
        let grown = self.ring.load().grown(ledger, clock.now()).await?;
        let id = grown.newest_id();
        self.ring.store(Arc::new(grown));
        Ok(id)
    }

    /// The token of an unsubscribe: the same for the same contents, while the key is the same. A few microseconds.
    pub fn seal_unsubscribe(&self, token: &UnsubscribeToken) -> String {
        URL_SAFE_NO_PAD.encode(self.ring.load().seal(token.encode()))
    }

    /// The link of an unsubscribe. `base` is `public.url`, with or without a slash at its end.
    pub fn unsubscribe_url(&self, base: &str, token: &UnsubscribeToken) -> String {
        format!("{}{UNSUBSCRIBE_PATH}{}", base.trim_end_matches('/'), self.seal_unsubscribe(token))
    }

    /// The `mailto:` of an unsubscribe, at a tenant's bounce domain: the token is the subject.
    pub fn unsubscribe_mailto(&self, bounce_domain: &Domain, token: &UnsubscribeToken) -> String {
        format!("mailto:{UNSUBSCRIBE_LOCAL_PART}@{bounce_domain}?subject={}", self.seal_unsubscribe(token))
    }

    /// What a token says.
    pub fn open_unsubscribe(&self, token: &str) -> Result<UnsubscribeToken, TokenError> {
        if !(TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&token.len()) {
            return Err(TokenError);
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError)?;
        let plain = self.ring.load().open(sealed).ok_or(TokenError)?;
        UnsubscribeToken::decode(&plain).ok_or(TokenError)
    }
}

/// The words of a subject that could be a token, the longest first: clients put `Re:` and the like around it.
pub fn find_token(subject: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let mut words: Vec<&str> =
        subject.split(word).filter(|word| (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&word.len())).collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    words.into_iter()
}
