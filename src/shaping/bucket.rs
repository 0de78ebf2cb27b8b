//! Token buckets as the generic cell rate algorithm, in integers: no drift, one number of state.

use crate::config::Rate;
use crate::types::Timestamp;

/// A bucket tells when the next token is there.
///
/// A tenth of the rate's count (at least one token) may go at once. It is taken off what comes later in the window, so that no
/// window of the rate's length, wherever it begins, ever has more than the count; a long run gets nine tenths of it. Its state is
/// the theoretical arrival time of the next token, in units of `1 / steady` milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    next_scaled: u128,
}

impl Bucket {
    /// How many tokens may go at once: a tenth of the count. All of it would allow twice the rate in one window.
    pub fn burst(rate: Rate) -> u32 {
        (rate.count / 10).max(1)
    }

    /// How many come in one window besides those that may go at once.
    fn steady(rate: Rate) -> u128 {
        u128::from(rate.count.saturating_add(1).saturating_sub(Self::burst(rate)).max(1))
    }

    /// When a token is there: `now` or before means at once.
    pub fn ready_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        let count = Self::steady(rate);
        let slack = u128::from(Self::burst(rate) - 1) * rate.per.as_millis();
        let earliest = self.next_scaled.saturating_sub(slack);
        if earliest <= u128::from(now.as_millis()) * count {
            return now;
        }
        Timestamp::from_millis(u64::try_from(earliest.div_ceil(count)).unwrap_or(u64::MAX))
    }

    /// Takes a token, whether it is there or not: the caller asked [`Bucket::ready_at`] before.
    pub fn take(&mut self, rate: Rate, now: Timestamp) {
        let count = Self::steady(rate);
        let now_scaled = u128::from(now.as_millis()) * count;
        self.next_scaled = self.next_scaled.max(now_scaled) + rate.per.as_millis();
    }

    /// Whether nothing is owed at `now`: the bucket may be forgotten.
    pub fn is_full(&self, rate: Rate, now: Timestamp) -> bool {
        self.next_scaled <= u128::from(now.as_millis()) * Self::steady(rate)
    }

    /// The bucket after its rate changed: what is owed stays the same time.
    pub fn rescale(&mut self, old: Rate, new: Rate) {
        self.next_scaled = self.next_scaled / Self::steady(old) * Self::steady(new);
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
        assert_eq!(run(rate(30_000, 1_000), 10_000), (3_000 + 269_982, 3_000));
        assert_eq!(run(rate(100, 60_000), 600_000), (10 + 909, 10));
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

    /// Asked at odd times and in bursts, against a count that knows nothing of buckets.
    #[test]
    fn no_window_ever_has_more_than_the_count() {
        let mut seed: u64 = 7;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let per = [1_000, 60_000, 3_600_000, 86_400_000][random(4) as usize];
            let rate = Rate { count: 1 + random(400) as u32, per: Duration::from_millis(per) };
            let (mut bucket, mut now, mut taken) = (Bucket::default(), 1_795_000_000_000, Vec::new());
            for _ in 0..3_000 {
                now += random(1 + 4 * per / u64::from(rate.count));
                let at = Timestamp::from_millis(now);
                while bucket.ready_at(rate, at) <= at {
                    bucket.take(rate, at);
                    taken.push(now);
                }
            }
            let n = rate.count as usize;
            assert!(taken.windows(n + 1).all(|w| w[n] - w[0] >= per), "{rate}");
        }
    }
}
