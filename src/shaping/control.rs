//! What stands between a source and a provider: the provider's own limits, and what was learned or planned on top of them.
//!
//! A [`ProviderState`] is one part of the question of [`admit`](super::admit()). It has
//!
//! 1. the configured limits, which hold for all sites of the provider together (Microsoft 365 has an MX for each tenant),
//! 2. a [`Control`]: a hold until a time, a lower ceiling of the rate and of the connections, the budget of a warm-up. What is `None` there
//!    lets everything go.

use std::sync::Arc;

use super::admit::{Ask, Limit, Note, Question, Reason, Verdict, Wake, check_connections, check_rate, of, tell};
use super::{Bucket, Count, Pace, Paced, RateLimit};
use crate::config::{Config, Rate};
use crate::types::Timestamp;

/// The limits of each source towards all sites of one provider.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProviderLimits {
    /// Connections at a time.
    pub connections: Option<Count>,
    /// New connections.
    pub connection_rate: Option<RateLimit>,
    /// Messages: all of them hold at once.
    pub message_rates: Vec<RateLimit>,
}

/// The limits of a provider: its own keys, else those of `[shaping.default]`.
pub fn provider_limits(config: &Config, name: &str) -> ProviderLimits {
    let Some(provider) = config.provider(name) else { return ProviderLimits::default() };
    let default = &config.shaping.default;
    let place = |own: bool, key: &str| -> Arc<str> {
        if own { format!("providers.{name}.{key}").into() } else { format!("shaping.default.{key}").into() }
    };
    let connections = provider.connections.or(default.connections).filter(|max| *max > 0);
    let connection_rate = provider.connection_rate.or(default.connection_rate);
    let rates: Vec<Rate> = match provider.message_rate.is_empty() {
        true => default.message_rate.into_iter().collect(),
        false => provider.message_rate.iter().copied().collect(),
    };
    let own_rates = !provider.message_rate.is_empty();
    ProviderLimits {
        connections: connections.map(|max| Count { max, set_by: place(provider.connections.is_some(), "connections") }),
        connection_rate: connection_rate
            .map(|rate| RateLimit { rate, set_by: place(provider.connection_rate.is_some(), "connection_rate") }),
        message_rates: rates
            .into_iter()
            .map(|rate| RateLimit { rate, set_by: place(own_rates, "message_rate") })
            .collect(),
    }
}

/// What is left of a day's budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Messages that may still go.
    pub left: u64,
    /// Messages of the whole budget, for people.
    pub of: u64,
    /// When there is more.
    pub until: Timestamp,
}

/// What was learned or planned for one source towards one provider; `None` changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Control {
    /// A rate of messages below the configured one.
    pub ceiling_rate: Option<Rate>,
    /// A number of connections below the configured one.
    pub ceiling_connections: Option<u32>,
    /// Nothing is sent before this time, and why.
    pub held: Option<(Timestamp, Arc<str>)>,
    /// The budget of a warm-up.
    pub warmup: Option<Budget>,
}

/// Limits and counters of one source towards one provider.
#[derive(Clone, Copy, Debug)]
pub struct ProviderState<'a> {
    /// The provider's name, for people.
    pub name: &'a str,
    /// The configured limits.
    pub limits: &'a ProviderLimits,
    /// Open connections of the source to all sites of the provider.
    pub connections: u32,
    /// Tokens of new connections.
    pub connection_rate: Bucket,
    /// When the next message may go, for each of the limits' rates.
    pub messages: &'a [Paced],
    /// What was learned or planned.
    pub control: &'a Control,
    /// When the next message may go under the ceiling of the rate.
    pub ceiling: Pace,
}

impl ProviderState<'_> {
    fn set_by(&self) -> Option<String> {
        Some(format!("adaptation to {}", self.name))
    }
}

fn state<'a>(q: &Question<'a>) -> Option<ProviderState<'a>> {
    q.path.and_then(|path| path.provider)
}

/// A hold of the provider: nothing goes, not even on a connection that is open.
pub(super) fn check_held(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some((p, (until, why))) = state(q).and_then(|p| Some((p, p.control.held.as_ref()?))) else {
        return Verdict::Go;
    };
    if *until <= q.now {
        return Verdict::Go;
    }
    tell(note, || (format!("held until {until}: {why}"), p.set_by()));
    Verdict::Wait { reason: Reason::ProviderHeld, wake: Wake::At(*until) }
}

/// The budget of a warm-up.
pub(super) fn check_warmup(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some((p, budget)) = state(q).and_then(|p| Some((p, p.control.warmup?))) else { return Verdict::Go };
    tell(note, || {
        (
            format!("{} of {} left until {}", budget.left, budget.of, budget.until),
            Some(format!("warm-up to {}", p.name)),
        )
    });
    match budget.left == 0 && budget.until > q.now {
        true => Verdict::Wait { reason: Reason::WarmUp, wake: Wake::At(budget.until) },
        false => Verdict::Go,
    }
}

/// The configured rates of messages: the one that lets go last decides.
pub(super) fn check_rates(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some(p) = state(q) else { return Verdict::Go };
    let ready = |(limit, pace): (&RateLimit, &Paced)| pace.ready_at(limit.rate, q.now);
    let at = p.limits.message_rates.iter().zip(p.messages).map(ready).max().unwrap_or(q.now);
    if let Some(first) = p.limits.message_rates.first() {
        tell(note, || {
            let words = p.limits.message_rates.iter().zip(p.messages).map(|(limit, pace)| {
                let left = pace.ready_at(limit.rate, q.now).since(q.now);
                match left.is_zero() {
                    true => format!("{}, token there", limit.rate),
                    false => format!("{}, next token in {} ms", limit.rate, left.as_millis()),
                }
            });
            (words.collect::<Vec<_>>().join("; "), Some(first.set_by.to_string()))
        });
    }
    match at > q.now {
        true => Verdict::Wait { reason: Reason::Rate(Limit::ProviderMessageRate), wake: Wake::At(at) },
        false => Verdict::Go,
    }
}

/// The learned ceiling of the rate.
pub(super) fn check_ceiling_rate(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some((p, rate)) = state(q).and_then(|p| Some((p, p.control.ceiling_rate?))) else { return Verdict::Go };
    let at = p.ceiling.ready_at(rate, q.now);
    tell(note, || {
        let when = if at > q.now { format!("next at {at}") } else { "may go".into() };
        (format!("{rate}, {when}"), p.set_by())
    });
    match at > q.now {
        true => Verdict::Wait { reason: Reason::Rate(Limit::CeilingRate), wake: Wake::At(at) },
        false => Verdict::Go,
    }
}

/// The configured number of connections.
pub(super) fn check_provider_connections(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some((p, limit)) = state(q).and_then(|p| Some((p, p.limits.connections.as_ref()?))) else { return Verdict::Go };
    tell(note, || of(p.connections, limit.max, Some(limit.set_by.to_string())));
    check_connections(q.ask, p.connections, limit.max, Limit::ProviderConnections)
}

/// The learned ceiling of connections.
pub(super) fn check_ceiling_connections(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some((p, max)) = state(q).and_then(|p| Some((p, p.control.ceiling_connections?))) else { return Verdict::Go };
    tell(note, || of(p.connections, max, p.set_by()));
    check_connections(q.ask, p.connections, max, Limit::CeilingConnections)
}

/// New connections to all sites of the provider.
pub(super) fn check_provider_connection_rate(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    if q.ask == Ask::Send {
        return Verdict::Go;
    }
    let Some((p, limit)) = state(q).and_then(|p| Some((p, p.limits.connection_rate.as_ref()?))) else {
        return Verdict::Go;
    };
    let set_by = || limit.set_by.to_string();
    check_rate(q.now, Limit::ProviderConnectionRate, p.connection_rate, limit.rate, set_by, note)
}
