//! The pace of a campaign: a rate that no window of its length ever exceeds, spread evenly, and all of which can be used.
//!
//! 1. [`Pace`] spreads: a [`Bucket`](super::Bucket) by which at most 50 ms worth may go at once, so that a late timer costs nothing;
//! 2. [`Paced`] remembers what went within the last window, and never lets more go than the rate: what a bucket allows at once would come on
//!    top of it. Taking that off the bucket's rate keeps the bound, too, but gives a twentieth of the rate away.
//!
//! A message that is late is so for the window behind it as well: what is lost of the rate is the delay of a timer by the window, which is
//! a few thousandths of a rate by the second and nothing of one by the minute.

use std::collections::VecDeque;

use crate::config::Rate;
use crate::types::Timestamp;

/// What may go at once, in milliseconds of the rate: late timers cost nothing up to this.
const AT_ONCE_MS: u128 = 50;

/// Into how many parts the memory of a window is divided at the most: a part is forgotten as a whole, when its last message is.
const PARTS_MAX: u64 = 1_024;

/// When the next message may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pace {
    /// The theoretical time of the next message in units of `1 / count` ms.
    next_scaled: u128,
    /// Until then the window is full.
    full_until: Timestamp,
}

/// How many may go at once.
fn at_once(rate: Rate) -> u128 {
    (u128::from(rate.count) * AT_ONCE_MS / rate.per.as_millis().max(1)).max(1)
}

fn count(rate: Rate) -> u128 {
    u128::from(rate.count.max(1))
}

impl Pace {
    /// When a message may go: `now` means at once.
    pub fn ready_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        let slack = (at_once(rate) - 1) * rate.per.as_millis();
        let at = self.next_scaled.saturating_sub(slack).div_ceil(count(rate));
        now.max(Timestamp::from_millis(u64::try_from(at).unwrap_or(u64::MAX))).max(self.full_until)
    }

    /// How many may go now.
    pub fn ready(&self, rate: Rate, now: Timestamp) -> usize {
        if self.full_until > now {
            return 0;
        }
        let now_scaled = u128::from(now.as_millis()) * count(rate);
        let per = rate.per.as_millis().max(1);
        let until = now_scaled + at_once(rate) * per;
        let n = until.saturating_sub(self.next_scaled.max(now_scaled)) / per;
        usize::try_from(n).unwrap_or(usize::MAX)
    }

    /// A message goes: the caller asked [`Pace::ready_at`] before.
    pub fn take(&mut self, rate: Rate, now: Timestamp) {
        let now_scaled = u128::from(now.as_millis()) * count(rate);
        self.next_scaled = self.next_scaled.max(now_scaled) + rate.per.as_millis();
    }
}

/// A pace, and what went within the last window.
#[derive(Clone, Debug, Default)]
pub struct Paced {
    pace: Pace,
    /// The last time of a part of the window, and how many went in it.
    gone: VecDeque<(Timestamp, u32)>,
    /// How many went, of those that are remembered.
    total: u64,
}

impl Paced {
    /// A pace of which all is used: what was sent before, perhaps by the process before this one, counts as much as it can.
    pub fn used(rate: Rate, now: Timestamp) -> Self {
        // In any time the one before sent at most what is due in it and what may go at once; this one begins that much later.
        let next = u128::from(now.as_millis()) * count(rate) + 2 * at_once(rate) * rate.per.as_millis();
        Self { pace: Pace { next_scaled: next, full_until: Timestamp::ZERO }, ..Self::default() }
    }

    /// The pace as it is now, for those who only look.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// When a message may go: `now` means at once.
    pub fn ready_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        self.pace.ready_at(rate, now)
    }

    /// How many may go now.
    pub fn ready(&mut self, rate: Rate, now: Timestamp) -> usize {
        self.forget(rate, now);
        let room = usize::try_from(u64::from(rate.count).saturating_sub(self.total)).unwrap_or(usize::MAX);
        self.pace.ready(rate, now).min(room)
    }

    /// How many may go now, for those who only look.
    pub fn may(&self, rate: Rate, now: Timestamp) -> usize {
        let over = self.gone.iter().take_while(|(last, _)| last.after(rate.per) <= now).map(|(_, n)| u64::from(*n));
        let total = self.total.saturating_sub(over.sum());
        let room = usize::try_from(u64::from(rate.count).saturating_sub(total)).unwrap_or(usize::MAX);
        self.pace.ready(rate, now).min(room)
    }

    /// A message goes: the caller asked [`Paced::ready_at`] before.
    pub fn take(&mut self, rate: Rate, now: Timestamp) {
        self.forget(rate, now);
        self.pace.take(rate, now);
        let part = u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX).div_ceil(PARTS_MAX).max(1);
        self.total += 1;
        match self.gone.back_mut() {
            Some((last, n)) if last.as_millis() / part == now.as_millis() / part => {
                *last = now.max(*last);
                *n = n.saturating_add(1);
            }
            Some(_) | None => self.gone.push_back((now, 1)),
        }
        let full = self.total >= u64::from(rate.count);
        let oldest = self.gone.front().map_or(now, |(last, _)| *last);
        self.pace.full_until = if full { oldest.after(rate.per) } else { Timestamp::ZERO };
    }

    /// Forgets what went a whole window ago.
    fn forget(&mut self, rate: Rate, now: Timestamp) {
        while let Some((last, n)) = self.gone.front()
            && last.after(rate.per) <= now
        {
            self.total = self.total.saturating_sub(u64::from(*n));
            self.gone.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes whatever is there every `step` ms; answers the times.
    fn run(rate: Rate, mut pace: Paced, for_ms: u64, step: usize) -> Vec<u64> {
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
            let times = run(rate, Paced::default(), 10 * per_ms, step);
            let most = most_in_a_window(&times, per_ms);
            assert!(most <= count as usize, "{most} of {rate}");
            // What a timer is late is lost once a window.
            let least = (0.998 - step as f64 / per_ms as f64) * 10.0 * f64::from(count);
            assert!(times.len() as f64 >= least.floor(), "{} of 10 x {rate}", times.len());
        }
    }

    #[test]
    fn a_restart_gives_nothing_away() {
        let rate = Rate { count: 600, per: Duration::from_secs(60) };
        let begin = Timestamp::from_millis(1_795_000_000_000);
        let mut times = run(rate, Paced::default(), 30_000, 1);
        // The other process begins at the same time of its own clock, 30 s later.
        let after = run(rate, Paced::used(rate, begin), 60_000, 1);
        times.extend(after.iter().map(|ms| ms + 30_000));
        assert!(most_in_a_window(&times, 60_000) <= 600);
        assert!(after.len() > 585, "{}", after.len());
    }
}
