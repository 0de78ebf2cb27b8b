//! The pace of a campaign: a rate that no window of its length ever exceeds, spread evenly.
//!
//! A [`Bucket`](super::Bucket) allows a tenth more than its rate in one window, since it starts full. A pace does not: what may go at once (50 ms
//! worth, at least one) is taken off what comes in the window. So it reaches at least 95 % of the rate, and never more than all of it.

use crate::config::Rate;
use crate::types::Timestamp;

/// What may go at once, in milliseconds of the rate: late timers cost nothing up to this.
const AT_ONCE_MS: u128 = 50;

/// When the next message may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pace {
    /// The theoretical time of the next message in units of `1 / steady` ms.
    next_scaled: u128,
}

/// How many may go at once.
fn at_once(rate: Rate) -> u128 {
    (u128::from(rate.count) * AT_ONCE_MS / rate.per.as_millis().max(1)).max(1)
}

/// How many come in one window besides the first ones that may go at once.
fn steady(rate: Rate) -> u128 {
    (u128::from(rate.count) + 1).saturating_sub(at_once(rate)).max(1)
}

impl Pace {
    /// A pace of which all is used: what was sent before, perhaps by the process before this one, counts as much as it can.
    pub fn used(rate: Rate, now: Timestamp) -> Self {
        let next = u128::from(now.as_millis()) * steady(rate) + at_once(rate) * rate.per.as_millis();
        Self { next_scaled: next }
    }

    /// When a message may go: `now` means at once.
    pub fn ready_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        let slack = (at_once(rate) - 1) * rate.per.as_millis();
        let at = self.next_scaled.saturating_sub(slack).div_ceil(steady(rate));
        now.max(Timestamp::from_millis(u64::try_from(at).unwrap_or(u64::MAX)))
    }

    /// How many may go now.
    pub fn ready(&self, rate: Rate, now: Timestamp) -> usize {
        let now_scaled = u128::from(now.as_millis()) * steady(rate);
        let per = rate.per.as_millis().max(1);
        let until = now_scaled + at_once(rate) * per;
        let n = until.saturating_sub(self.next_scaled.max(now_scaled)) / per;
        usize::try_from(n).unwrap_or(usize::MAX)
    }

    /// A message goes: the caller asked [`Pace::ready_at`] before.
    pub fn take(&mut self, rate: Rate, now: Timestamp) {
        let now_scaled = u128::from(now.as_millis()) * steady(rate);
        self.next_scaled = self.next_scaled.max(now_scaled) + rate.per.as_millis();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes whatever is there every `step` ms; answers the times.
    fn run(rate: Rate, mut pace: Pace, for_ms: u64, step: usize) -> Vec<u64> {
        let start = 1_795_000_000_000;
        let mut taken = Vec::new();
        for ms in (start..start + for_ms).step_by(step) {
            let now = Timestamp::from_millis(ms);
            let ready = pace.ready(rate, now);
            let mut count = 0;
            while pace.ready_at(rate, now) <= now {
                pace.take(rate, now);
                taken.push(ms);
                count += 1;
            }
            assert_eq!(ready, count, "what it says is what it gives");
        }
        taken
    }

    fn most_in_a_window(times: &[u64], window: u64) -> usize {
        (0..times.len()).map(|i| times[i..].iter().take_while(|t| **t < times[i] + window).count()).max().unwrap_or(0)
    }

    #[test]
    fn no_window_has_more_than_the_rate_and_long_runs_nearly_all_of_it() {
        for (count, per_ms, step) in
            [(1, 1_000, 1), (7, 1_000, 3), (100, 1_000, 20), (1_000, 1_000, 7), (600, 60_000, 10), (90, 60_000, 1)]
        {
            let rate = Rate { count, per: Duration::from_millis(per_ms) };
            let times = run(rate, Pace::default(), 10 * per_ms, step);
            let most = most_in_a_window(&times, per_ms);
            assert!(most <= count as usize, "{most} of {rate}");
            assert!(times.len() as f64 >= 0.94 * 10.0 * f64::from(count), "{} of 10 x {rate}", times.len());
        }
    }

    #[test]
    fn a_restart_gives_nothing_away() {
        let rate = Rate { count: 600, per: Duration::from_secs(60) };
        let begin = Timestamp::from_millis(1_795_000_000_000);
        let mut times = run(rate, Pace::default(), 30_000, 1);
        let again = begin.after(Duration::from_secs(30));
        let after = run(rate, Pace::used(rate, again), 60_000, 1);
        times.extend(after.iter().map(|ms| ms + 30_000));
        assert!(most_in_a_window(&times, 60_000) <= 600);
        assert!(after.len() > 560, "{}", after.len());
    }
}
