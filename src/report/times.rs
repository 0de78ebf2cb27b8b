//! Delivery times: a sparse histogram whose percentiles are right within 1 %.
//!
//! Bounds grow by a ratio of [`RATIO`], so a value that is told as the middle of its step is off by 0.9 % at the most. Two histograms add up to
//! that of both, whatever was split how: percentiles of days, campaigns and providers come from the same cells.

use std::collections::BTreeMap;

use super::cell::{Octets, put_number};

/// How much each bound is above the one before.
const RATIO: f64 = 1.0175;

/// The last step: some 40 days. What took longer counts there.
const STEP_MAX: u16 = 1_270;

/// How often something took how long.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Times(BTreeMap<u16, u64>);

impl Times {
    /// One more that took `ms` milliseconds.
    pub fn add(&mut self, ms: u64) {
        *self.0.entry(step(ms)).or_default() += 1;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Times) {
        for (step, count) in &other.0 {
            *self.0.entry(*step).or_default() += count;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time within which this part of all (0 to 1) was done, in milliseconds; `None` without any.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        // The smallest value that is not below `part` of all: the nearest-rank definition, which needs no interpolation.
        let rank = ((part * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (step, count) in &self.0 {
            seen += count;
            if seen >= rank {
                return Some(middle(*step));
            }
        }
        None
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.0.len() as u64);
        let mut before = 0;
        for (step, count) in &self.0 {
            put_number(out, u64::from(step - before));
            put_number(out, *count);
            before = *step;
        }
    }

    pub(super) fn decode(from: &mut Octets<'_>) -> Option<Self> {
        let mut times = Self::default();
        let mut step = 0_u16;
        for _ in 0..from.number()? {
            step = step.checked_add(u16::try_from(from.number()?).ok()?)?;
            *times.0.entry(step).or_default() += from.number()?;
        }
        Some(times)
    }
}

fn step(ms: u64) -> u16 {
    if ms == 0 {
        return 0;
    }
    let step = ((ms as f64).ln() / RATIO.ln()).floor();
    (step as u16).saturating_add(1).min(STEP_MAX)
}

/// The geometric middle of a step.
fn middle(step: u16) -> u64 {
    if step == 0 {
        return 0;
    }
    RATIO.powf(f64::from(step - 1) + 0.5).round() as u64
}
