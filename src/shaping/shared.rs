//! Limits that all mail of the node, a tenant or a pool shares, whoever receives it.
//!
//! 1. Messages: a [`Paced`] for each rate, so that no window of a rate's length has more than its count,
//! 2. octets: a debt that is paid off at the rate. A message goes when nothing is owed; so a time has at most the rate's octets and one message more.

use std::sync::Arc;

use super::admit::{Limit, Note, Question, Reason, Verdict, Wake, tell};
use super::{Paced, RateLimit};
use crate::config::SendLimit;
use crate::types::Timestamp;

/// The limits in the order of `Question::shared`.
pub const SHARED_LIMITS: [Limit; 3] = [Limit::NodeRate, Limit::TenantRate, Limit::PoolRate];

/// A limit and its counters.
#[derive(Clone, Debug)]
pub struct Shared {
    config: SendLimit,
    rates: Vec<(RateLimit, Paced)>,
    /// Octets a second; when the next message may go, in `1 / octets` seconds of a thousandth.
    bytes: Option<(u64, u128)>,
    set_by: Arc<str>,
}

impl Shared {
    /// A limit of which all counts as used: a restart or a change gives nothing away. `None` where nothing is limited.
    pub fn used(config: &SendLimit, set_by: &str, now: Timestamp) -> Option<Self> {
        if config.message_rate.is_empty() && config.bytes_per_second.is_none() {
            return None;
        }
        let key: Arc<str> = format!("{set_by}.message_rate").into();
        let rates = config.message_rate.iter();
        let rates = rates.map(|rate| (RateLimit { rate: *rate, set_by: key.clone() }, Paced::used(*rate, now)));
        // What the one before owed is not known: a second is let pass.
        let bytes = config
            .bytes_per_second
            .map(|max| (max.0.max(1), u128::from(now.as_millis() + 1_000) * u128::from(max.0.max(1))));
        Some(Self {
            config: config.clone(),
            rates: rates.collect(),
            bytes,
            set_by: format!("{set_by}.bytes_per_second").into(),
        })
    }

    /// What was configured.
    pub fn config(&self) -> &SendLimit {
        &self.config
    }

    fn bytes_at(&self, now: Timestamp) -> Timestamp {
        let Some((max, next)) = self.bytes else { return now };
        let at = next.div_ceil(u128::from(max));
        now.max(Timestamp::from_millis(u64::try_from(at).unwrap_or(u64::MAX)))
    }

    /// When the next message may go: `now` means at once.
    pub fn ready_at(&self, now: Timestamp) -> Timestamp {
        self.rates.iter().map(|(limit, pace)| pace.ready_at(limit.rate, now)).fold(self.bytes_at(now), Timestamp::max)
    }

    /// How many messages may go now, as far as the rates tell; at most one may go past what is owed in octets.
    pub fn ready(&self, now: Timestamp) -> usize {
        match self.ready_at(now) > now {
            true => 0,
            false => self.rates.iter().map(|(limit, pace)| pace.may(limit.rate, now)).min().unwrap_or(usize::MAX),
        }
    }

    /// A message goes: the caller asked [`Shared::ready_at`] before.
    pub fn take(&mut self, size: u64, now: Timestamp) {
        for (limit, pace) in &mut self.rates {
            pace.take(limit.rate, now);
        }
        self.owe(size, now);
    }

    /// More octets of a message that went than [`Shared::take`] was told of.
    pub fn owe(&mut self, octets: u64, now: Timestamp) {
        if let Some((max, next)) = &mut self.bytes {
            *next = (*next).max(u128::from(now.as_millis()) * u128::from(*max)) + u128::from(octets) * 1_000;
        }
    }

    fn words(&self, now: Timestamp) -> (String, Option<String>) {
        let when = |at: Timestamp| match at.since(now) {
            left if left.is_zero() => "may go".to_owned(),
            left => format!("next in {} ms", left.as_millis()),
        };
        let rates = self.rates.iter().map(|(limit, pace)| {
            let at = pace.ready_at(limit.rate, now);
            (at, format!("{}, {}", limit.rate, when(at)), &limit.set_by)
        });
        let bytes = self.config.bytes_per_second.map(|max| {
            let at = self.bytes_at(now);
            (at, format!("{max} a second, {}", when(at)), &self.set_by)
        });
        let all: Vec<_> = rates.chain(bytes).collect();
        // The one that lets go last binds.
        let set_by = all.iter().rev().max_by_key(|(at, ..)| *at).map(|(_, _, key)| key.to_string());
        (all.into_iter().map(|(_, words, _)| words).collect::<Vec<_>>().join("; "), set_by)
    }
}

/// The limit at a place of the question.
pub(super) fn check(q: &Question<'_>, place: usize, note: Option<&mut Note>) -> Verdict {
    let Some(limit) = q.shared[place] else { return Verdict::Go };
    tell(note, || limit.words(q.now));
    let at = limit.ready_at(q.now);
    match at > q.now {
        true => Verdict::Wait { reason: Reason::Rate(SHARED_LIMITS[place]), wake: Wake::At(at) },
        false => Verdict::Go,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked at odd times with messages of odd sizes, against counts that know nothing of paces.
    #[test]
    fn no_window_has_more_messages_than_the_count_and_no_more_octets_than_one_message_over() {
        let mut seed: u64 = 11;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..60 {
            let (second, minute, bytes) = (1 + random(40), 20 + random(600), 1_000 + random(200_000));
            let config = format!("message_rate = ['{second}/s', '{minute}/min']\nbytes_per_second = {bytes}");
            let config: SendLimit = toml::from_str(&config).expect("valid");
            let begin = 1_795_000_000_000;
            let mut limit = Shared::used(&config, "limits.node", Timestamp::from_millis(begin)).expect("limited");
            let (mut now, mut sent, mut size_max) = (begin, Vec::new(), 0);
            for _ in 0..4_000 {
                now += random(100);
                let at = Timestamp::from_millis(now);
                while limit.ready_at(at) <= at {
                    assert!(limit.ready(at) > 0, "what may go is counted as such");
                    let size = random(30_000);
                    limit.take(size, at);
                    sent.push((now, size));
                    size_max = size_max.max(size);
                }
            }
            assert!(sent.len() > 100);
            for (first, (from, _)) in sent.iter().enumerate() {
                let within = |ms| sent[first..].iter().take_while(move |(at, _)| *at < from + ms);
                assert!(within(1_000).count() as u64 <= second);
                assert!(within(60_000).count() as u64 <= minute);
                let octets: u64 = within(1_000).map(|(_, size)| size).sum();
                assert!(octets <= bytes + size_max, "{octets} of {bytes}");
            }
        }
    }
}
