//! Randomness: from the system for secrets and ids, from a seed where a run must be repeatable.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// A 128-bit random number from the thread's cryptographic generator.
pub fn u128() -> u128 {
    #[cfg(test)]
    if let Some(number) = simulated::u128() {
        return number;
    }
    rand::rng().random()
}

/// Fills `bytes` from the thread's cryptographic generator.
pub fn fill(bytes: &mut [u8]) {
    #[cfg(test)]
    if simulated::fill(bytes) {
        return;
    }
    rand::rng().fill_bytes(bytes);
}

/// A small, fast, seeded generator for shuffles and jitter: never for secrets.
pub struct Seeded(SmallRng);

impl Seeded {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A generator with a seed from the system.
    pub fn from_system() -> Self {
        Self::new(rand::rng().random())
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// Shuffles `items` in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The generator of a simulated run, for the thread that it runs on: ids and secrets are part of what a seed repeats.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;

    use rand::rngs::SmallRng;
    use rand::{Rng, RngExt, SeedableRng};

    thread_local! {
        static GENERATOR: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    }

    /// This thread's randomness follows from the seed; with `None`, from the system again.
    pub(crate) fn set(seed: Option<u64>) {
        GENERATOR.with_borrow_mut(|generator| *generator = seed.map(SmallRng::seed_from_u64));
    }

    pub(super) fn u128() -> Option<u128> {
        GENERATOR.with_borrow_mut(|generator| generator.as_mut().map(|g| g.random()))
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        GENERATOR.with_borrow_mut(|generator| generator.as_mut().map(|g| g.fill_bytes(bytes))).is_some()
    }
}
