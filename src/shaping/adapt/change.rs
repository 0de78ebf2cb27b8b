//! What a controller is asked and what it tells: states, orders of rules, changes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

/// Why a path was changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A reply asked for less.
    SlowDown,
    /// Too many recipients were deferred.
    Deferrals,
    /// Connections failed, or were refused.
    Connections,
    /// A reply rule set it.
    Rule,
    /// It was quiet for long enough.
    Quiet,
    /// A hold or pause ended.
    Recovered,
}

impl Cause {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Cause::SlowDown => "a reply asked for less",
            Cause::Deferrals => "too many recipients were deferred",
            Cause::Connections => "connections failed or were refused",
            Cause::Rule => "a reply rule",
            Cause::Quiet => "it was quiet",
            Cause::Recovered => "the hold is over",
        }
    }
}

/// What a path is doing. `Starting → Holding ⇄ Probing`; each of them goes to `Holding` at a slow-down, and a path that is
/// `Free` knows no limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No limit was met, and none is kept.
    Free,
    /// Without history: doubling.
    Starting,
    /// Below the ceiling.
    Holding,
    /// Beyond the ceiling.
    Probing,
}

impl State {
    /// For people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Free => "free",
            State::Starting => "starting",
            State::Holding => "holding",
            State::Probing => "probing",
        }
    }
}

/// What a reply rule ordered, until when.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The rule.
    pub rule: Box<str>,
    /// Nothing is sent.
    pub hold: bool,
    /// Not more than this, a minute.
    pub per_minute: Option<f64>,
    /// Not more connections.
    pub connections: Option<u32>,
    /// Not more messages in a connection.
    pub messages_per_connection: Option<u32>,
    /// Until then; [`Timestamp::NEVER`] until somebody ends it.
    pub until: Timestamp,
}

/// A change, for the `adapted` event, the history and the log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub cause: Cause,
    /// The state after it.
    pub state: State,
    /// The rate before it, a minute; `None` for no limit.
    pub from: Option<f64>,
    /// The rate after it.
    pub to: Option<f64>,
    /// Connections after it; `None` for no limit.
    pub connections: Option<u32>,
    /// Nothing is sent before this.
    pub paused_until: Option<Timestamp>,
    /// The rule that ordered it.
    pub rule: Option<Box<str>>,
    /// The reply that caused it.
    pub reply: Option<Box<str>>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: Option<f64>| rate.map_or("no limit".into(), |r| format!("{r:.1}/min"));
        write!(f, "{} → {} ({}", rate(self.from), rate(self.to), self.cause.words())?;
        if let Some(rule) = &self.rule {
            write!(f, ", rule {rule}")?;
        }
        f.write_str(")")?;
        if let Some(connections) = self.connections {
            write!(f, ", {connections} connections")?;
        }
        if let Some(until) = self.paused_until {
            write!(f, ", nothing before {until}")?;
        }
        Ok(())
    }
}
