//! When a request that was not taken is tried again, and when an endpoint is given up.
//!
//! 5 s, doubled up to an hour, for three days; then the endpoint is dead and is probed once an hour. Pure: the caller knows the time.

use std::time::Duration;

/// The wait after the first failure.
pub(super) const FIRST: Duration = Duration::from_secs(5);
/// The longest wait; also that between the probes of a dead endpoint.
pub(super) const LONGEST: Duration = Duration::from_secs(3_600);
/// An endpoint that has taken nothing for so long, of what was offered, is dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(3 * 86_400);

/// How long to wait after this many failures in a row (from 1). `asked` is the receiver's `Retry-After`: it may only lengthen the wait, up to
/// [`LONGEST`]. `jitter` is from 0 to 99: up to a tenth is added, so that endpoints that broke together do not come together.
pub(super) fn wait(failures: u32, asked: Option<Duration>, dead: bool, jitter: u64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let base = if dead { LONGEST } else { doubled.max(asked.unwrap_or_default()).min(LONGEST) };
    base + base.mul_f64(jitter.min(99) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, asked_s: Option<u64>, dead: bool, want_s: u64) {
        let got = wait(failures, asked_s.map(Duration::from_secs), dead, 0);
        assert_eq!(got, Duration::from_secs(want_s), "{failures} {asked_s:?} {dead}");
    }

    #[test]
    fn it_doubles_up_to_an_hour() {
        for (failures, want_s) in [(1, 5), (2, 10), (3, 20), (9, 1_280), (10, 2_560), (11, 3_600), (12, 3_600)] {
            check(failures, None, false, want_s);
        }
        check(u32::MAX, None, false, 3_600);
    }

    #[test]
    fn a_receiver_can_ask_for_more_but_not_for_ever() {
        check(1, Some(60), false, 60);
        check(5, Some(1), false, 80);
        check(1, Some(1_000_000), false, 3_600);
    }

    #[test]
    fn a_dead_one_is_probed_once_an_hour() {
        check(1, None, true, 3_600);
        check(100, Some(7), true, 3_600);
        assert!(wait(1, None, true, 99) < LONGEST.mul_f64(1.1));
        assert!(wait(1, None, false, 99) > FIRST);
    }

    #[test]
    fn it_tries_often_enough_before_it_is_given_up() {
        let (mut at, mut tries) = (Duration::ZERO, 0);
        while at < DEAD_AFTER {
            tries += 1;
            at += wait(tries, None, false, 0);
        }
        assert!((80..90).contains(&tries), "{tries}");
    }
}
