//! The keys of a configuration, found by the sender's domain.
//!
//! 1. [`KeySpec`]s come in, with a key that was parsed or the reason why it was not,
//! 2. each is filed under the domains of its `sign_for`,
//! 3. a message asks with its From domain; up to one look-up a label, whatever the number of keys.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Algorithm, PrivateKey};
use crate::types::{Domain, Timestamp};

/// Whose mail a key signs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignFor {
    /// Its own domain and what is below it; a domain below with a key of its own takes that one alone. The default.
    Own,
    /// From addresses of exactly this domain.
    Exact(Domain),
    /// From addresses below this domain: `*.example.com`.
    Below(Domain),
    /// Everybody: the operator's own signature, for feedback loops.
    All,
}

impl SignFor {
    /// Parses an entry of `sign_for`: a domain, `*.domain` or `*`.
    pub fn parse(text: &str) -> Result<Self, crate::types::AddressError> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(SignFor::All),
            Some(below) => Domain::parse(below).map(SignFor::Below),
            None => Domain::parse(text).map(SignFor::Exact),
        }
    }
}

/// A key of the ring.
#[derive(Debug)]
pub struct Key {
    /// The signing domain, `d=`.
    pub domain: Domain,
    /// The selector, `s=`.
    pub selector: Box<str>,
    /// The algorithm, `a=`.
    pub algorithm: Algorithm,
    /// From when it signs; `None` from ever.
    pub active_from: Option<Timestamp>,
    /// The key, or why there is none: mail that it should sign then waits, it never goes unsigned.
    pub private: Result<PrivateKey, Box<str>>,
}

/// A key and whose mail it signs.
#[derive(Debug)]
pub struct KeySpec {
    /// The key.
    pub key: Key,
    /// Whose mail it signs; empty means [`SignFor::Own`].
    pub sign_for: Vec<SignFor>,
}

/// The keys of a configuration. Immutable: a reload makes a new one.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<Arc<Key>>,
    own: HashMap<Domain, Vec<usize>>,
    exact: HashMap<Domain, Vec<usize>>,
    below: HashMap<Domain, Vec<usize>>,
    all: Vec<usize>,
}

impl KeyRing {
    /// A ring of these keys, in the order of the configuration.
    pub fn new(specs: Vec<KeySpec>) -> Self {
        let mut ring = KeyRing::default();
        for (i, KeySpec { key, sign_for }) in specs.into_iter().enumerate() {
            let own = [SignFor::Own];
            for rule in if sign_for.is_empty() { &own[..] } else { &sign_for } {
                match rule {
                    SignFor::Own => ring.own.entry(key.domain.clone()).or_default().push(i),
                    SignFor::Exact(domain) => ring.exact.entry(domain.clone()).or_default().push(i),
                    SignFor::Below(domain) => ring.below.entry(domain.clone()).or_default().push(i),
                    SignFor::All => ring.all.push(i),
                }
            }
            ring.keys.push(Arc::new(key));
        }
        ring
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All keys, in the order of the configuration.
    pub fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// Whether some key, active now or later, is meant for mail From this domain, besides those for everybody.
    pub fn covers(&self, from: &Domain) -> bool {
        !self.matching(from, None).is_empty()
    }

    /// The keys that sign a message: of each (signing domain, algorithm) the newest that is active.
    ///
    /// The From domain decides, since DMARC aligns with it; where no key is meant for it, the reverse-path's domain does.
    /// Keys for everybody come in addition. One whose file could not be read is in the answer: the caller defers.
    pub fn for_message(&self, from: Option<&Domain>, reverse: Option<&Domain>, now: Timestamp) -> Vec<Arc<Key>> {
        if self.keys.is_empty() {
            return Vec::new();
        }
        let mut found = from.map(|domain| self.matching(domain, Some(now))).unwrap_or_default();
        if found.is_empty() {
            found = reverse.map(|domain| self.matching(domain, Some(now))).unwrap_or_default();
        }
        found.extend(self.all.iter().copied().filter(|i| self.is_active(*i, now)));
        self.newest(found)
    }

    /// Keys meant for a domain; only the active ones where a time is given.
    fn matching(&self, domain: &Domain, now: Option<Timestamp>) -> Vec<usize> {
        let active = |i: &usize| now.is_none_or(|now| self.is_active(*i, now));
        let mut found: Vec<usize> = Vec::new();
        found.extend(self.exact.get(domain).into_iter().flatten().copied().filter(active));
        let mut own_found = false;
        let mut name = domain.as_str();
        loop {
            if !own_found && let Some(keys) = self.own.get(name) {
                let before = found.len();
                found.extend(keys.iter().copied().filter(active));
                // The nearest domain signs: its signature aligns best, and one more would cost as much again.
                own_found = found.len() > before;
            }
            let Some((_, parent)) = name.split_once('.') else { break };
            found.extend(self.below.get(parent).into_iter().flatten().copied().filter(active));
            name = parent;
        }
        found
    }

    fn is_active(&self, index: usize, now: Timestamp) -> bool {
        self.keys[index].active_from.is_none_or(|from| from <= now)
    }

    /// Of each (domain, algorithm) the one with the latest `active_from`; the later in the file where that is the same.
    fn newest(&self, mut found: Vec<usize>) -> Vec<Arc<Key>> {
        found.sort_unstable();
        found.dedup();
        let mut chosen: Vec<&Arc<Key>> = Vec::with_capacity(found.len());
        for key in found.into_iter().map(|i| &self.keys[i]) {
            let same = chosen.iter_mut().find(|k| k.algorithm == key.algorithm && k.domain == key.domain);
            match same {
                Some(older) if older.active_from <= key.active_from => *older = key,
                Some(_) => {}
                None => chosen.push(key),
            }
        }
        chosen.into_iter().cloned().collect()
    }
}
