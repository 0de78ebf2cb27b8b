//! How the daemon adapts to what providers take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HumanDuration, Rate};

/// How the rate and the connections towards a provider follow what it answers.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Adaptation {
    /// Whether it adapts by itself. Without it the limits and the reply rules still hold.
    pub enabled: bool,
    /// The rate with which a source begins towards a provider that it has no history with; doubled each half minute in
    /// which it was used. A route begins without a limit. Higher: the first campaign is faster, the first refusals are more.
    pub start: Rate,
    /// It never goes below this.
    pub floor: Rate,
    /// It never grows beyond this; without it a rate that nobody refuses ends as no limit.
    pub ceiling: Option<Rate>,
    /// What is left of the ceiling after a slow-down, from 0.5 to 0.95. Higher: more throughput, more refusals.
    pub decrease: f64,
    /// The part of what is missing to the ceiling that is regained each minute, from 0.1 to 1.
    pub increase: f64,
    /// More deferrals than this within a minute, in percent of the attempts, count as a slow-down.
    pub deferral_percent: u32,
    /// After so long without trouble there may be one connection more.
    pub connection_quiet: HumanDuration,
    /// After so long without mail a source begins anew towards a provider.
    pub remember: HumanDuration,
}

impl Default for Adaptation {
    fn default() -> Self {
        Self {
            enabled: true,
            start: Rate { count: 60, per: Duration::from_secs(60) },
            floor: Rate { count: 1, per: Duration::from_secs(60) },
            ceiling: None,
            decrease: 0.9,
            increase: 0.5,
            deferral_percent: 30,
            connection_quiet: HumanDuration::secs(300),
            remember: HumanDuration::secs(14 * 86_400),
        }
    }
}
