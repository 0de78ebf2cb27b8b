//! Token buckets as the generic cell rate algorithm, in integers: no drift, one number of state.

use crate::config::Rate;
use crate::types::Timestamp;

/// A bucket tells when the next token is there.
///
/// Its state is the theoretical arrival time of the next token, in units of `1 / count` milliseconds, so that any rate
/// is exact. A tenth of the rate's count (at least one token) may go at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    next_scaled: u128,
}

impl Bucket {
    /// How many tokens may go at once: a tenth of the count. All of it would allow twice the rate in one window.
    pub fn burst(rate: Rate) -> u32 {
        (rate.count / 10).max(1)
    }

    /// When a token is there: `now` or before means at once.
    pub fn ready_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        let count = u128::from(rate.count.max(1));
        let slack = u128::from(Self::burst(rate) - 1) * rate.per.as_millis();
        let earliest = self.next_scaled.saturating_sub(slack);
        if earliest <= u128::from(now.as_millis()) * count {
            return now;
        }
        Timestamp::from_millis(u64::try_from(earliest.div_ceil(count)).unwrap_or(u64::MAX))
    }

    /// Takes a token, whether it is there or not: the caller asked [`Bucket::ready_at`] before.
    pub fn take(&mut self, rate: Rate, now: Timestamp) {
        let count = u128::from(rate.count.max(1));
        let now_scaled = u128::from(now.as_millis()) * count;
        self.next_scaled = self.next_scaled.max(now_scaled) + rate.per.as_millis();
    }

    /// Whether nothing is owed at `now`: the bucket may be forgotten.
    pub fn is_full(&self, rate: Rate, now: Timestamp) -> bool {
        self.next_scaled <= u128::from(now.as_millis()) * u128::from(rate.count.max(1))
    }

    /// The bucket after its rate changed: what is owed stays the same time.
    pub fn rescale(&mut self, old: Rate, new: Rate) {
        self.next_scaled = self.next_scaled / u128::from(old.count.max(1)) * u128::from(new.count.max(1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(rate: Rate, for_ms: u64) -> (u64, u64) {
        let start = 1_795_000_000_000;
        let (mut bucket, mut total, mut at_once) = (Bucket::default(), 0, 0);
        for ms in start..start + for_ms {
            let now = Timestamp::from_millis(ms);
            while bucket.ready_at(rate, now) <= now {
                bucket.take(rate, now);
                total += 1;
                at_once += u64::from(ms == start);
            }
        }
        (total, at_once)
    }

    #[test]
    fn keeps_any_rate_exactly_and_bursts_a_tenth() {
        let rate = |count, ms| Rate { count, per: Duration::from_millis(ms) };
        assert_eq!(run(rate(7, 1_000), 100_000), (700, 1));
        assert_eq!(run(rate(30_000, 1_000), 10_000), (3_000 + 300_000 - 30, 3_000));
        assert_eq!(run(rate(100, 60_000), 600_000), (10 + 999, 10));
        assert_eq!(run(rate(1, 3_600_000), 7_200_000), (2, 1));
    }

    #[test]
    fn tells_when_the_next_token_comes() {
        let rate = Rate { count: 3, per: Duration::from_secs(1) };
        let now = Timestamp::from_millis(10_000);
        let mut bucket = Bucket::default();
        bucket.take(rate, now);
        assert_eq!(bucket.ready_at(rate, now), Timestamp::from_millis(10_334), "a third of a second, rounded up");
        assert!(!bucket.is_full(rate, now));
        assert!(bucket.is_full(rate, Timestamp::from_millis(10_334)));
    }
}
