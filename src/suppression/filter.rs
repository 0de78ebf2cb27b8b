//! Fingerprints of what is suppressed: a set that is read without a lock.
//!
//! A slot is a number of 64 bits, 0 means empty; the set only grows, and doubles when it is half full. Removing an entry leaves its
//! fingerprint until the next start: it then costs a read, and nothing is wrong. Beyond [`FINGERPRINTS_MAX`] it gives up and
//! answers "maybe" to all, so that memory stays bounded and every check reads the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::types::AddressHash;

/// The most fingerprints; at 16 to 32 octets each that is at most 512 MiB. Beyond them every check reads the store.
const FINGERPRINTS_MAX: usize = 16 << 20;

/// The slots of a set that has something in it.
const SLOTS_MIN: usize = 1 << 10;

/// The set.
pub(super) struct Filter {
    slots: ArcSwap<Vec<AtomicU64>>,
    len: AtomicUsize,
    full: AtomicBool,
    max: usize,
    /// One writer at a time: readers never wait for it.
    writing: Mutex<()>,
}

impl Default for Filter {
    fn default() -> Self {
        Self::with_max(FINGERPRINTS_MAX)
    }
}

/// The fingerprint of an address of a tenant, or of the node (`""`).
pub(super) fn fingerprint(tenant: &str, hash: &AddressHash) -> u64 {
    let (first, last) = hash.split_at(8);
    let part = |octets: &[u8]| octets.iter().fold(0_u64, |n, b| (n << 8) | u64::from(*b));
    // The hash is keyed and even; the tenant only has to move it elsewhere (FNV-1a).
    let of_tenant = tenant.bytes().fold(part(last), |n, b| (n ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (part(first) ^ of_tenant).max(1)
}

impl Filter {
    pub(super) fn with_max(max: usize) -> Self {
        Self {
            slots: ArcSwap::from_pointee(slots(SLOTS_MIN)),
            len: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            max,
            writing: Mutex::new(()),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Whether this one may be among them; always, once there are too many.
    pub(super) fn contains(&self, fingerprint: u64) -> bool {
        if self.full.load(Ordering::Acquire) {
            return true;
        }
        let slots = self.slots.load();
        matches!(find(&slots, fingerprint), Place::Taken)
    }

    /// Adds one.
    pub(super) fn insert(&self, fingerprint: u64) {
        let _one = self.writing.lock();
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let mut slots_now = self.slots.load_full();
        if self.len() * 2 >= slots_now.len() {
            if self.len() >= self.max {
                // What is dropped is the set: the answer is "maybe" from now on.
                self.full.store(true, Ordering::Release);
                self.slots.store(Arc::new(Vec::new()));
                return;
            }
            let larger = slots(slots_now.len() * 2);
            for slot in slots_now.iter() {
                let value = slot.load(Ordering::Relaxed);
                if value != 0 {
                    put(&larger, value);
                }
            }
            slots_now = Arc::new(larger);
            self.slots.store(slots_now.clone());
        }
        if put(&slots_now, fingerprint) {
            self.len.fetch_add(1, Ordering::Release);
        }
    }
}

enum Place {
    Taken,
    Free(usize),
}

/// Where it is, or where it would go: the first empty slot after its own. At most half of the slots are taken, so there is one.
fn find(slots: &[AtomicU64], fingerprint: u64) -> Place {
    let mask = slots.len().wrapping_sub(1);
    let mut at = fingerprint as usize & mask;
    while let Some(slot) = slots.get(at) {
        match slot.load(Ordering::Acquire) {
            0 => return Place::Free(at),
            value if value == fingerprint => return Place::Taken,
            _ => at = (at + 1) & mask,
        }
    }
    // Only a set that has given up has no slots.
    Place::Taken
}

fn put(slots: &[AtomicU64], fingerprint: u64) -> bool {
    match find(slots, fingerprint) {
        Place::Taken => false,
        Place::Free(at) => {
            slots[at].store(fingerprint, Ordering::Release);
            true
        }
    }
}

fn slots(count: usize) -> Vec<AtomicU64> {
    std::iter::repeat_with(|| AtomicU64::new(0)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_and_nothing_else() {
        let filter = Filter::default();
        assert!(filter.is_empty() && !filter.contains(7));
        // Even numbers only, more than fit into the first table.
        (1..=5_000_u64).for_each(|n| filter.insert(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1));
        filter.insert(0x9e37_79b9_7f4a_7c15 & !1);
        assert_eq!(filter.len(), 5_000);
        assert!((1..=5_000_u64).all(|n| filter.contains(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1)));
        assert!((1..=5_000_u64).all(|n| !filter.contains(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)));
    }

    #[test]
    fn too_many_mean_maybe() {
        let filter = Filter::with_max(SLOTS_MIN / 2);
        (1..=SLOTS_MIN as u64 / 2).for_each(|n| filter.insert(n));
        assert!(!filter.contains(1 << 40));
        filter.insert(1 << 41);
        assert!(filter.contains(1 << 40) && filter.contains(1), "what does not fit must not be missed");
    }

    #[test]
    fn tenants_and_the_node_have_their_own() {
        let hash = [7; 16];
        assert_ne!(fingerprint("acme", &hash), fingerprint("beta", &hash));
        assert_ne!(fingerprint("acme", &hash), fingerprint("", &hash));
    }
}
