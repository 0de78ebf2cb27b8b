//! What was taken and deferred within the last minute, second by second.

use crate::types::Timestamp;

/// Seconds that are remembered.
const SECONDS: usize = 60;

/// Counts of the last minute in a ring of seconds.
#[derive(Clone, Debug)]
pub struct Window {
    taken: [u32; SECONDS],
    deferred: [u32; SECONDS],
    /// The second that was counted last.
    at: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { taken: [0; SECONDS], deferred: [0; SECONDS], at: 0 }
    }
}

impl Window {
    /// One was taken.
    pub fn taken(&mut self, now: Timestamp) {
        let at = self.turn(now);
        self.taken[at] = self.taken[at].saturating_add(1);
    }

    /// One was deferred.
    pub fn deferred(&mut self, now: Timestamp) {
        let at = self.turn(now);
        self.deferred[at] = self.deferred[at].saturating_add(1);
    }

    /// Taken and deferred within the last minute.
    pub fn last_minute(&mut self, now: Timestamp) -> (u32, u32) {
        self.turn(now);
        let sum = |ring: &[u32]| ring.iter().fold(0, |sum: u32, n| sum.saturating_add(*n));
        (sum(&self.taken), sum(&self.deferred))
    }

    /// Goes on to the second of `now`; those between were empty. A clock that jumps back counts into its last second.
    fn turn(&mut self, now: Timestamp) -> usize {
        let second = now.as_secs().max(self.at);
        for passed in 1..=(second - self.at).min(SECONDS as u64) {
            let at = ((self.at + passed) % SECONDS as u64) as usize;
            self.taken[at] = 0;
            self.deferred[at] = 0;
        }
        // After a longer gap the loop has emptied all of them.
        self.at = second;
        (second % SECONDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_older_than_a_minute() {
        let at = |s: u64| Timestamp::from_millis(1_795_000_000_000 + s * 1_000);
        let mut window = Window::default();
        for s in 0..90 {
            window.taken(at(s));
        }
        window.deferred(at(89));
        assert_eq!(window.last_minute(at(89)), (60, 1));
        assert_eq!(window.last_minute(at(119)), (30, 1));
        assert_eq!(window.last_minute(at(500)), (0, 0));
        window.taken(at(400));
        assert_eq!(window.last_minute(at(500)), (1, 0), "a clock that jumps back does not lose what comes");
    }
}
