//! The limits of a site, each with the place in the config where it is set.

use std::sync::Arc;

use crate::config::{Config, LimitRule, Rate, is_host_within};
use crate::types::Domain;

/// A limit of a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Count {
    /// The most.
    pub max: u32,
    /// Where it is set: `shaping.sites."google.com".connections`.
    pub set_by: Arc<str>,
}

/// A limit of a rate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// How many in how long.
    pub rate: Rate,
    /// Where it is set.
    pub set_by: Arc<str>,
}

/// What holds for each source towards one site; what is `None` is not limited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Connections at a time.
    pub connections: Option<Count>,
    /// New connections.
    pub connection_rate: Option<RateLimit>,
    /// Messages (transactions).
    pub message_rate: Option<RateLimit>,
    /// Messages in one connection.
    pub messages_per_connection: Option<Count>,
    /// Recipients in one transaction.
    pub recipients_per_message: Option<Count>,
}

/// The limits for mail to `domain` at a site whose first host is `first_host`, by `route` if there is one.
///
/// A route has limits of its own. Else each key is taken from the most exact rule that has it: the domain's, then the site
/// rule with the longest suffix of the first host's name, then the default.
///
/// Where the site belongs to a `provider`, the limits of its connections and rates that no rule of the site or the domain sets are
/// those of the provider, for all of its sites together (see [`provider_limits`](super::provider_limits)), and not found here.
pub fn limits_for(
    config: &Config,
    route: Option<&str>,
    provider: Option<&str>,
    first_host: &str,
    domain: &Domain,
) -> Limits {
    if let Some((pattern, route)) = route.and_then(|pattern| Some((pattern, config.routes.get(pattern)?))) {
        let set_by = |key: &str| Arc::from(format!("routes.\"{pattern}\".{key}"));
        return Limits {
            connections: Some(Count { max: route.connections.max(1), set_by: set_by("connections") }),
            connection_rate: route.connection_rate.map(|rate| RateLimit { rate, set_by: set_by("connection_rate") }),
            message_rate: route.message_rate.map(|rate| RateLimit { rate, set_by: set_by("message_rate") }),
            messages_per_connection: (route.messages_per_connection > 0)
                .then(|| Count { max: route.messages_per_connection, set_by: set_by("messages_per_connection") }),
            recipients_per_message: None,
        };
    }
    let shaping = &config.shaping;
    let mut rules: Vec<(String, &LimitRule)> = Vec::with_capacity(3);
    if let Some(rule) = shaping.domains.get(domain) {
        rules.push((format!("shaping.domains.\"{domain}\""), rule));
    }
    let host = first_host.to_ascii_lowercase();
    let site = shaping.sites.iter().filter(|(suffix, _)| is_host_within(&host, suffix)).max_by_key(|(s, _)| s.len());
    if let Some((suffix, rule)) = site {
        rules.push((format!("shaping.sites.\"{suffix}\""), rule));
    }
    let own = provider.and_then(|name| Some((name, config.provider(name)?)));
    let of_provider = own.map(|(name, own)| {
        let rule = LimitRule { messages_per_connection: own.messages_per_connection, ..LimitRule::default() };
        (format!("providers.{name}"), rule)
    });
    rules.extend(of_provider.iter().map(|(place, rule)| (place.clone(), rule)));
    let rest = LimitRule { messages_per_connection: shaping.default.messages_per_connection, ..LimitRule::default() };
    rules.push(("shaping.default".into(), if own.is_some() { &rest } else { &shaping.default }));
    let count = |key: &str, get: fn(&LimitRule) -> Option<u32>| {
        let (place, max) = rules.iter().find_map(|(place, rule)| Some((place, get(rule)?)))?;
        (max > 0).then(|| Count { max, set_by: format!("{place}.{key}").into() })
    };
    let rate = |key: &str, get: fn(&LimitRule) -> Option<Rate>| {
        let (place, rate) = rules.iter().find_map(|(place, rule)| Some((place, get(rule)?)))?;
        Some(RateLimit { rate, set_by: format!("{place}.{key}").into() })
    };
    Limits {
        connections: count("connections", |r| r.connections),
        connection_rate: rate("connection_rate", |r| r.connection_rate),
        message_rate: rate("message_rate", |r| r.message_rate),
        messages_per_connection: count("messages_per_connection", |r| r.messages_per_connection),
        recipients_per_message: own.and_then(|(name, own)| {
            let set_by = format!("providers.{name}.recipients_per_message").into();
            Some(Count { max: own.recipients_per_message?, set_by })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        let rule = |connections, messages_per_connection| LimitRule {
            connections,
            messages_per_connection,
            ..LimitRule::default()
        };
        config.shaping.sites.insert("google.com".into(), rule(Some(5), Some(50)));
        config.shaping.sites.insert("l.google.com".into(), rule(Some(6), None));
        let domain = Domain::parse("big.example").expect("valid");
        config.shaping.domains.insert(domain, rule(None, Some(7)));
        config
    }

    fn check(domain: &str, host: &str, connections: (u32, &str), messages: (u32, &str)) {
        let domain = Domain::parse(domain).expect("valid");
        let limits = limits_for(&config(), None, None, host, &domain);
        let got = |c: Option<Count>| c.map(|c| (c.max, c.set_by.to_string()));
        assert_eq!(got(limits.connections), Some((connections.0, connections.1.to_string())));
        assert_eq!(got(limits.messages_per_connection), Some((messages.0, messages.1.to_string())));
    }

    #[test]
    fn the_most_exact_rule_wins_key_by_key() {
        let default = "shaping.default.";
        check(
            "a.example",
            "mx.a.example",
            (10, &format!("{default}connections")),
            (100, &format!("{default}messages_per_connection")),
        );
        check(
            "a.example",
            "aspmx.l.google.com",
            (6, "shaping.sites.\"l.google.com\".connections"),
            (100, &format!("{default}messages_per_connection")),
        );
        check(
            "big.example",
            "mx.google.com",
            (5, "shaping.sites.\"google.com\".connections"),
            (7, "shaping.domains.\"big.example\".messages_per_connection"),
        );
        check(
            "a.example",
            "mx.notgoogle.com",
            (10, &format!("{default}connections")),
            (100, &format!("{default}messages_per_connection")),
        );
    }
}
