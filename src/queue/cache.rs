//! Messages in memory: those just accepted, those read ahead, and those in an attempt.
//!
//! 1. a message that was just accepted comes in as fresh, so that its first attempt need not read it back;
//! 2. one that is wanted soon is read and comes in as loaded;
//! 3. while it is in an attempt it is pinned: the maker of content finds it for certain;
//! 4. after its last attempt it goes.
//!
//! Fresh and loaded messages have a byte budget each. A full budget of fresh ones refuses the newer: the older are sent first. Only what has
//! waited long (its host is down, perhaps) makes room. Loaded ones go in the order in which they came: they can be read again. But
//! nothing is read ahead of need while half of their budget is taken by what was just read ([`ContentCache::has_room_ahead`]): it would
//! push out what is wanted sooner, which would be read again, and push out in its turn.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use crate::store::StoredMessage;
use crate::types::{MessageId, Timestamp};

/// How long a fresh message may wait before a newer one may take its room.
const FRESH_MS_MAX: u64 = 10_000;

/// A loaded message that was not wanted for so long is not what is sent next.
const LOADED_MS_MAX: u64 = 2_000;

/// What a message costs besides its octets.
const OVERHEAD: usize = 512;

/// The cache; shared on the egress thread by the scheduler and the maker of content.
#[derive(Debug)]
pub struct ContentCache(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    slots: AHashMap<MessageId, Slot>,
    order: [VecDeque<(MessageId, u64)>; 2],
    bytes: [usize; 2],
    bytes_max: [usize; 2],
    sequence: u64,
}

#[derive(Debug)]
struct Slot {
    message: Arc<StoredMessage>,
    pins: u32,
    kind: usize,
    sequence: u64,
    /// When it was read; zero for what was not read ahead.
    loaded: Timestamp,
}

const FRESH: usize = 0;
const LOADED: usize = 1;

impl ContentCache {
    /// A cache that keeps `bytes_max` octets of fresh messages and half as many of loaded ones; at least one of each.
    pub fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX / 2);
        Self(RefCell::new(Inner {
            slots: AHashMap::new(),
            order: [VecDeque::new(), VecDeque::new()],
            bytes: [0; 2],
            bytes_max: [bytes_max, bytes_max / 2],
            sequence: 0,
        }))
    }

    /// The message, if it is here.
    pub fn get(&self, id: MessageId) -> Option<Arc<StoredMessage>> {
        self.0.borrow().slots.get(&id).map(|slot| slot.message.clone())
    }

    /// Whether the message is here.
    pub fn has(&self, id: MessageId) -> bool {
        self.0.borrow().slots.contains_key(&id)
    }

    /// Takes in a message that was just accepted; refuses it when there is no room.
    pub fn insert_fresh(&self, message: Arc<StoredMessage>) {
        let mut inner = self.0.borrow_mut();
        let cost = cost(&message);
        while inner.bytes[FRESH] + cost > inner.bytes_max[FRESH] && inner.bytes[FRESH] > 0 {
            let now_ms = message.envelope.accepted.as_millis();
            let oldest = inner.oldest(FRESH).and_then(|id| inner.slots.get(&id));
            let waited = oldest.is_some_and(|o| o.message.envelope.accepted.as_millis() + FRESH_MS_MAX <= now_ms);
            if !waited || !inner.evict(FRESH) {
                return;
            }
        }
        inner.insert(message, FRESH, Timestamp::ZERO);
    }

    /// Takes in a message that was read because it is wanted soon.
    pub fn insert_loaded(&self, message: Arc<StoredMessage>, now: Timestamp) {
        let mut inner = self.0.borrow_mut();
        let cost = cost(&message);
        while inner.bytes[LOADED] + cost > inner.bytes_max[LOADED] && inner.evict(LOADED) {}
        inner.insert(message, LOADED, now);
    }

    /// Whether so many octets may be read ahead of need without pushing out what was just read.
    pub fn has_room_ahead(&self, bytes: u64, now: Timestamp) -> bool {
        let mut inner = self.0.borrow_mut();
        let taken = (inner.bytes[LOADED] as u64).saturating_add(bytes);
        if taken <= inner.bytes_max[LOADED] as u64 / 2 {
            return true;
        }
        let oldest = inner.oldest(LOADED).and_then(|id| inner.slots.get(&id));
        oldest.is_some_and(|o| o.loaded.as_millis() + LOADED_MS_MAX <= now.as_millis())
    }

    /// Holds a message that is in an attempt; `None` when it is not here.
    pub fn pin(&self, id: MessageId) -> Option<Arc<StoredMessage>> {
        let inner = &mut *self.0.borrow_mut();
        let slot = inner.slots.get_mut(&id)?;
        if slot.pins == 0 {
            inner.bytes[slot.kind] -= cost(&slot.message);
        }
        slot.pins += 1;
        Some(slot.message.clone())
    }

    /// Lets go of a message after an attempt; `keep` says that somebody may want it soon.
    pub fn unpin(&self, id: MessageId, keep: bool) {
        let inner = &mut *self.0.borrow_mut();
        let Some(slot) = inner.slots.get_mut(&id) else { return };
        slot.pins = slot.pins.saturating_sub(1);
        if slot.pins > 0 {
            return;
        }
        let Some(slot) = inner.slots.remove(&id) else { return };
        if keep {
            while inner.bytes[LOADED] + cost(&slot.message) > inner.bytes_max[LOADED] && inner.evict(LOADED) {}
            inner.insert(slot.message, LOADED, Timestamp::ZERO);
        }
    }

    /// Octets held outside attempts.
    pub fn bytes(&self) -> usize {
        let inner = self.0.borrow();
        inner.bytes[FRESH] + inner.bytes[LOADED]
    }
}

fn cost(message: &StoredMessage) -> usize {
    message.body.len() + OVERHEAD + message.envelope.recipients.len() * 64
}

impl Inner {
    fn insert(&mut self, message: Arc<StoredMessage>, kind: usize, loaded: Timestamp) {
        let id = message.envelope.id;
        if self.slots.contains_key(&id) {
            return;
        }
        self.sequence += 1;
        self.bytes[kind] += cost(&message);
        self.order[kind].push_back((id, self.sequence));
        self.slots.insert(id, Slot { message, pins: 0, kind, sequence: self.sequence, loaded });
        // Places of messages that were pinned and gone stay in line; they are dropped when they are more than the live ones.
        if self.order[kind].len() > 64 + 2 * self.slots.len() {
            let slots = &self.slots;
            self.order[kind].retain(|(id, sequence)| slots.get(id).is_some_and(|s| s.sequence == *sequence));
        }
    }

    /// The oldest that is not pinned; drops what stands before it.
    fn oldest(&mut self, kind: usize) -> Option<MessageId> {
        while let Some((id, sequence)) = self.order[kind].front().copied() {
            if self.slots.get(&id).is_some_and(|s| s.sequence == sequence && s.pins == 0) {
                return Some(id);
            }
            self.order[kind].pop_front();
        }
        None
    }

    fn evict(&mut self, kind: usize) -> bool {
        let Some(slot) = self.oldest(kind).and_then(|id| self.slots.remove(&id)) else { return false };
        self.order[kind].pop_front();
        self.bytes[kind] -= cost(&slot.message);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing;

    fn message(n: u64, ms: u64) -> Arc<StoredMessage> {
        testing::message(n, Timestamp::from_millis(ms), &["a@t.example"], 1_000)
    }

    #[test]
    fn is_bounded_and_prefers_what_came_first() {
        let cache = ContentCache::new(10_000);
        let all: Vec<_> = (0..20).map(|n| message(n, n)).collect();
        all.iter().for_each(|m| cache.insert_fresh(m.clone()));
        assert!(cache.bytes() <= 10_000, "{}", cache.bytes());
        assert!(cache.has(all[0].envelope.id));
        assert!(!cache.has(all[19].envelope.id));
        let late = message(99, FRESH_MS_MAX + 1);
        cache.insert_fresh(late.clone());
        assert!(cache.has(late.envelope.id), "what waited long makes room");
        assert!(!cache.has(all[0].envelope.id));
    }

    #[test]
    fn reading_ahead_pushes_out_only_what_nobody_wanted() {
        let cache = ContentCache::new(40_000);
        let now = Timestamp::from_millis(10_000);
        assert!(cache.has_room_ahead(10_000, now));
        assert!(!cache.has_room_ahead(10_001, now), "half of the budget of loaded messages");
        (0..6).for_each(|n| cache.insert_loaded(message(n, n), now));
        assert!(!cache.has_room_ahead(2_000, now));
        assert!(cache.has_room_ahead(2_000, Timestamp::from_millis(10_000 + LOADED_MS_MAX)));
        // What was in an attempt and is kept does not stop it.
        (0..6).for_each(|n| assert!(cache.pin(message(n, n).envelope.id).is_some()));
        (0..6).for_each(|n| cache.unpin(message(n, n).envelope.id, true));
        assert!(cache.has_room_ahead(2_000, now));
    }

    #[test]
    fn what_is_pinned_stays_and_what_is_done_goes() {
        let cache = ContentCache::new(4_000);
        let first = message(1, 1);
        cache.insert_loaded(first.clone(), Timestamp::ZERO);
        assert!(cache.pin(first.envelope.id).is_some());
        (2..50).for_each(|n| cache.insert_loaded(message(n, n), Timestamp::ZERO));
        assert!(cache.get(first.envelope.id).is_some());
        assert!(cache.bytes() <= 2_000);
        cache.unpin(first.envelope.id, false);
        assert!(!cache.has(first.envelope.id));
        assert!(cache.pin(first.envelope.id).is_none());
    }
}
