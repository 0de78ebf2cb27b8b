//! What came in at a simulated receiver.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

/// What one receiver saw. Counting costs a few nanoseconds a message; any thread may read.
pub struct Counters {
    pub(crate) started: Instant,
    pub(crate) connections: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) taken: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) recipients: Mutex<RecipientMap>,
}

/// One address, by its hash.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// How often it was named in a RCPT.
    pub tries: u32,
    /// How often a message for it was taken; more than 1 is a duplicate.
    pub taken: u32,
    /// When the first message was taken, in microseconds since [`Counters::started`].
    pub first_taken_us: u64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// Connections so far.
    pub connections: u64,
    /// Connections now.
    pub open: u64,
    /// Messages taken.
    pub messages: u64,
    /// Octets of these, as they were on the wire.
    pub bytes: u64,
    /// Recipients of these.
    pub taken: u64,
    /// Of these, those that had been taken before.
    pub duplicates: u64,
    /// Replies of 4xx to RCPT or to the end of a message.
    pub deferred: u64,
    /// Replies of 5xx to RCPT or to the end of a message.
    pub rejected: u64,
    /// Connections broken by a fault.
    pub dropped: u64,
    /// 421 because of too many connections or messages.
    pub throttled: u64,
}

/// Addresses are hashed already: the map takes the hash as it is.
#[derive(Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Never called for a u64 key; folds, so that it would still be a hash.
        self.0 = bytes.iter().fold(self.0, |h, b| h.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Recipients by the hash of their address.
pub(crate) type RecipientMap = std::collections::HashMap<u64, Recipient, BuildHasherDefault<Identity>>;

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            recipients: Mutex::new(RecipientMap::default()),
        }
    }

    /// When counting began: the zero of [`Recipient::first_taken_us`].
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connections: self.connections.load(Relaxed),
            open: self.open.load(Relaxed),
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            taken: self.taken.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            deferred: self.deferred.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
        }
    }

    /// What is known of one address; case is ignored.
    pub fn recipient(&self, address: &str) -> Option<Recipient> {
        self.recipients.lock().get(&super::profile::address_hash(address.as_bytes())).copied()
    }

    /// Counts a RCPT; the number of this try, from 1.
    pub(crate) fn tried(&self, hash: u64) -> u32 {
        let mut map = self.recipients.lock();
        let entry = map.entry(hash).or_default();
        entry.tries = entry.tries.saturating_add(1);
        entry.tries
    }

    /// Counts a message that was taken for these recipients.
    pub(crate) fn took(&self, hashes: &[u64], bytes: u64) {
        let at_us = self.started.elapsed().as_micros() as u64;
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.taken.fetch_add(hashes.len() as u64, Relaxed);
        let mut map = self.recipients.lock();
        for hash in hashes {
            let entry = map.entry(*hash).or_default();
            if entry.taken == 0 {
                entry.first_taken_us = at_us;
            } else {
                self.duplicates.fetch_add(1, Relaxed);
            }
            entry.taken = entry.taken.saturating_add(1);
        }
    }
}
