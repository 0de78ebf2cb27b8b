//! The clock: wall time for people, which no jump of the system's clock can move.
//!
//! The wall clock is read once, at the start; from then on the monotonic clock moves it. So a jump inside
//! a running process expires nothing and releases nothing early. The difference to the system's clock is
//! slewed away at one part in twenty: an hour is made up within a day, and no delay is ever off by more than 5 %.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::Timestamp;

/// Where the drivers get `now` from; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

enum Inner {
    System {
        start: Instant,
        wall_at_start_ms: u64,
        slew_ms: AtomicI64,
    },
    Manual {
        now_ms: AtomicU64,
    },
    #[cfg(test)]
    Simulated {
        start: tokio::time::Instant,
        wall_at_start_ms: u64,
        slew_ms: AtomicI64,
        jumped_ms: Arc<AtomicI64>,
    },
}

/// The most by which the clock is slewed: 50 milliseconds a second. NTP's 500 parts in a million would need 83 days for the
/// hour that a paused machine is late by, and all times in events and signatures were wrong so long.
const SLEW_PPM: u64 = 50_000;

impl Clock {
    /// The system's clock, anchored now.
    pub fn system() -> Self {
        Self(Arc::new(Inner::System {
            start: Instant::now(),
            wall_at_start_ms: system_ms(),
            slew_ms: AtomicI64::new(0),
        }))
    }

    /// A clock that stands still until [`Clock::advance`] moves it: for tests and the planner.
    pub fn manual(now: Timestamp) -> Self {
        Self(Arc::new(Inner::Manual { now_ms: AtomicU64::new(now.as_millis()) }))
    }

    /// As [`Clock::system`], on the paused time of a runtime: the system's clock shows `wall` now, and jumps by what is put into
    /// `jumped_ms` later.
    #[cfg(test)]
    pub(crate) fn simulated(wall: Timestamp, jumped_ms: Arc<AtomicI64>) -> Self {
        let (start, wall_at_start_ms) = (tokio::time::Instant::now(), wall.as_millis());
        Self(Arc::new(Inner::Simulated { start, wall_at_start_ms, slew_ms: AtomicI64::new(0), jumped_ms }))
    }

    /// The time now; never earlier than an answer before it by more than the slew.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Inner::System { start, wall_at_start_ms, slew_ms } => {
                let elapsed_ms = start.elapsed().as_millis() as u64;
                let ms = wall_at_start_ms.saturating_add(elapsed_ms);
                Timestamp::from_millis(ms.saturating_add_signed(slew_ms.load(Ordering::Relaxed)))
            }
            Inner::Manual { now_ms } => Timestamp::from_millis(now_ms.load(Ordering::Relaxed)),
            #[cfg(test)]
            Inner::Simulated { start, wall_at_start_ms, slew_ms, .. } => {
                let ms = wall_at_start_ms.saturating_add(start.elapsed().as_millis() as u64);
                Timestamp::from_millis(ms.saturating_add_signed(slew_ms.load(Ordering::Relaxed)))
            }
        }
    }

    /// Moves a manual clock forward; a system clock is left alone.
    pub fn advance(&self, by: Duration) {
        match &*self.0 {
            Inner::Manual { now_ms } => {
                now_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
            }
            Inner::System { .. } => {}
            #[cfg(test)]
            Inner::Simulated { .. } => {}
        }
    }

    /// Draws the clock towards the system's after `since_last`; answers what difference is left, in milliseconds.
    pub fn slew(&self, since_last: Duration) -> i64 {
        match &*self.0 {
            Inner::System { slew_ms, .. } => self.draw(slew_ms, system_ms(), since_last),
            #[cfg(test)]
            Inner::Simulated { start, wall_at_start_ms, slew_ms, jumped_ms } => {
                let shown = wall_at_start_ms.saturating_add(start.elapsed().as_millis() as u64);
                self.draw(slew_ms, shown.saturating_add_signed(jumped_ms.load(Ordering::Relaxed)), since_last)
            }
            Inner::Manual { .. } => 0,
        }
    }

    /// One step towards what the system's clock shows.
    fn draw(&self, slew_ms: &AtomicI64, shown_ms: u64, since_last: Duration) -> i64 {
        let left = shown_ms.cast_signed() - self.now().as_millis().cast_signed();
        let most = (since_last.as_millis() as u64 * SLEW_PPM / 1_000_000).max(1).cast_signed();
        slew_ms.fetch_add(left.clamp(-most, most), Ordering::Relaxed);
        left
    }
}

fn system_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
