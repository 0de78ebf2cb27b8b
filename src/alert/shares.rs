//! Totals become what was counted within a window: one sample a minute is kept of each series.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::types::Timestamp;

/// Two samples are at least so far apart; a window of a day then has 1,440.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
/// The most series: a tenant is one, a source towards a provider is one. Beyond it new ones are not followed.
const SERIES_MAX: usize = 2_000;

/// Totals of several counters of the same thing.
pub(super) type Totals = [u64; 4];

/// The samples of some series.
#[derive(Debug)]
pub(super) struct Shares<K> {
    series: BTreeMap<K, VecDeque<(Timestamp, Totals)>>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { series: BTreeMap::new() }
    }
}

impl<K: Ord + Clone + Hash> Shares<K> {
    /// Takes the totals of a series now; answers what was counted within the window before, as far back as there are samples.
    pub(super) fn take(&mut self, key: &K, totals: Totals, window: Duration, now: Timestamp) -> Totals {
        if !self.series.contains_key(key) && self.series.len() >= SERIES_MAX {
            return Totals::default();
        }
        // What was counted before the first look belongs to this process, too, and so to the window.
        let samples = self.series.entry(key.clone()).or_insert_with(|| VecDeque::from([(now, Totals::default())]));
        // The newest sample that is as old as the window is where it begins.
        while samples.get(1).is_some_and(|(at, _)| now.since(*at) >= window) {
            samples.pop_front();
        }
        let base = samples.front().map_or(Totals::default(), |(_, totals)| *totals);
        if samples.back().is_none_or(|(at, _)| now.since(*at) >= SAMPLE_EVERY) {
            samples.push_back((now, totals));
        }
        std::array::from_fn(|i| totals[i].saturating_sub(base[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_in_the_window_and_forgets_the_rest() {
        let mut shares = Shares::default();
        let minute = |n: u64| Timestamp::from_millis(n * 60_000);
        let window = Duration::from_secs(600);
        let mut take = |at: u64, total: u64| shares.take(&"a", [total, 0, 0, 0], window, minute(at))[0];
        assert_eq!(take(0, 5), 5, "what came before the first look counts");
        for at in 1..=9 {
            assert_eq!(take(at, 5 + at), 5 + at);
        }
        assert_eq!(take(10, 15), 15, "the first sample is as old as the window");
        assert_eq!(take(11, 16), 16 - 6, "now only what came after minute 1");
        assert_eq!(take(60, 16), 0, "nothing new in an hour");
        assert_eq!(shares.series[&"a"].len(), 2, "no more samples than the window has");
    }
}
