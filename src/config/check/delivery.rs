//! The outgoing side: sources, pools, routes, retries and limits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, KeyPath, at};
use crate::config::{HumanDuration, LimitRule, Route, RouteHost, SendLimit, TlsPolicy};
use crate::types::Domain;

/// RFC 5321 §4.5.4.1: "the give-up time generally needs to be at least 4-5 days".
const EXPIRE_AFTER_RFC: Duration = Duration::from_secs(4 * 86_400);

/// RFC 5321 §4.5.3.2.7: a server waits at least 5 minutes for the next command.
const COMMAND_TIMEOUT_RFC: Duration = Duration::from_secs(300);

/// RFC 5321 §4.5.3.1.7: a server takes messages of at least 64 K octets.
const MESSAGE_SIZE_RFC: u64 = 64 << 10;

/// RFC 5321 §4.5.3.1.8: a server takes at least 100 recipients.
const RECIPIENTS_RFC: u32 = 100;

/// RFC 5321 §6.3: a loop is assumed at no fewer than 100 Received fields.
const RECEIVED_RFC: u32 = 100;

impl Check<'_> {
    pub(super) fn sources_and_pools(&mut self) {
        let config = self.config;
        self.unique(
            "source",
            config.sources.iter().enumerate().map(|(i, s)| (at!["sources", i, "name"], s.name.as_str())),
        );
        self.unique("pool", config.pools.iter().enumerate().map(|(i, p)| (at!["pools", i, "name"], p.name.as_str())));
        for (i, source) in config.sources.iter().enumerate() {
            if let Some(ehlo) = &source.ehlo
                && let Err(e) = Domain::parse(ehlo)
            {
                self.error(at!["sources", i, "ehlo"], format!("{ehlo:?}: {e}"), "a host name, as \"mta1.example.com\"");
            }
            if source.address.is_some_and(|address| address.is_unspecified() || address.is_multicast()) {
                self.error(
                    at!["sources", i, "address"],
                    "not an address that mail can be sent from",
                    "leave it out to let the system choose",
                );
            }
            if source.connections == Some(0) {
                self.error(
                    at!["sources", i, "connections"],
                    "0 would hold mail for ever",
                    "set its weight to 0 instead",
                );
            }
        }
        for (i, pool) in config.pools.iter().enumerate() {
            let at = at!["pools", i, "sources"];
            self.unique(
                "source of this pool",
                pool.sources.iter().enumerate().map(|(j, s)| (at.join(j).join("name"), s.name.as_str())),
            );
            if self.is_whole("sources") {
                for (j, source) in pool.sources.iter().enumerate() {
                    let defined = config.sources.iter().map(|s| &s.name);
                    self.known(at.join(j).join("name"), "source", &source.name, defined);
                }
            }
            if pool.sources.iter().all(|source| source.weight == 0) {
                self.error(at, "no source of this pool has a weight", "its mail would wait for ever");
            }
        }
    }

    pub(super) fn routes(&mut self) {
        for (pattern, route) in &self.config.routes {
            let at = at!["routes", pattern.as_str()];
            let domain = pattern.strip_prefix("*.").unwrap_or(pattern);
            if pattern != "*"
                && let Err(e) = Domain::parse(domain)
            {
                self.error(at.clone(), format!("{pattern:?}: {e}"), "a domain, \"*.example.com\" or \"*\"");
            }
            self.route(&at, route);
        }
    }

    fn route(&mut self, at: &KeyPath, route: &Route) {
        let mut all_loopback = true;
        for (i, host) in route.hosts.iter().enumerate() {
            match host.parse::<RouteHost>() {
                Ok(host) => all_loopback &= host.is_loopback(),
                Err(why) => self.error(at.join("hosts").join(i), why, "host, host:port, address:port or [v6]:port"),
            }
        }
        if route.hosts.is_empty() {
            self.error(at.join("hosts"), "a route needs a host", "remove the route to use the domain's MX");
        }
        if route.implicit_tls && route.tls == TlsPolicy::None {
            self.error(
                at.join("implicit_tls"),
                "implicit TLS with tls = \"none\"",
                "tls = \"required\" or \"verified\"",
            );
        }
        if route.connections == 0 {
            self.error(at.join("connections"), "0 would hold mail for ever", "suspend the queue instead");
        }
        match (&route.username, &route.password_file) {
            (Some(_), None) => self.error(at.join("username"), "a user without password_file", ""),
            (None, Some(_)) => self.error(at.join("password_file"), "a password without username", ""),
            (None, None) => {}
            (Some(user), Some(file)) => {
                if user.is_empty() || user.contains('\0') {
                    self.error(at.join("username"), "a user needs a name without NUL (RFC 4616)", "");
                }
                if matches!(route.tls, TlsPolicy::None | TlsPolicy::Opportunistic) && !all_loopback {
                    self.error(
                        at.join("tls"),
                        "the password would travel without TLS",
                        "tls = \"verified\", or \"required\" for any certificate",
                    );
                }
                self.password_file(at.join("password_file"), file);
            }
        }
    }

    pub(super) fn retry(&mut self) {
        let retry = &self.config.retry;
        let Some(first) = retry.schedule.first() else {
            self.error(at!["retry", "schedule"], "no delay", "at least one, as [\"5m\"]; the last repeats");
            return;
        };
        for (i, delay) in retry.schedule.iter().enumerate() {
            if delay.0 < Duration::from_secs(1) {
                self.error(at!["retry", "schedule", i], format!("{delay} is too short"), "at least 1s");
            }
        }
        if retry.expire_after < *first {
            self.error(
                at!["retry", "expire_after"],
                format!("{} is less than the first delay, {first}: nothing would be tried again", retry.expire_after),
                "",
            );
        } else if retry.expire_after.0 < EXPIRE_AFTER_RFC {
            self.warn(
                at!["retry", "expire_after"],
                format!("{} is less than the 4 to 5 days that RFC 5321 §4.5.4.1 asks for", retry.expire_after),
                "",
            );
        }
        if retry.delay_notice_after.0 > Duration::ZERO && retry.delay_notice_after >= retry.expire_after {
            self.warn(
                at!["retry", "delay_notice_after"],
                "never comes: the mail expires before",
                "\"0s\" says so openly",
            );
        }
    }

    pub(super) fn shaping(&mut self) {
        let shaping = &self.config.shaping;
        self.limit_rule(&at!["shaping", "default"], &shaping.default);
        for (site, rule) in &shaping.sites {
            let at = at!["shaping", "sites", site.as_str()];
            if let Err(e) = Domain::parse(site) {
                self.error(at.clone(), format!("{site:?}: {e}"), "the name or suffix of MX hosts, as \"google.com\"");
            }
            self.limit_rule(&at, rule);
        }
        for (domain, rule) in &shaping.domains {
            self.limit_rule(&at!["shaping", "domains", domain.as_str()], rule);
        }
    }

    pub(super) fn send_limits(&mut self) {
        let config = self.config;
        let limits = &config.limits;
        let tenants = limits.tenants.iter().map(|(name, limit)| ("tenants", name, limit));
        let pools = limits.pools.iter().map(|(name, limit)| ("pools", name, limit));
        self.send_limit(&at!["limits", "node"], &limits.node);
        for (kind, name, limit) in tenants.chain(pools) {
            let at = at!["limits", kind, name.as_str()];
            self.send_limit(&at, limit);
            if !self.is_whole(kind) {
                continue;
            }
            match kind {
                "tenants" => self.known(at, "tenant", name, config.tenants.iter().map(|t| &t.name)),
                _ => self.known(at, "pool", name, config.pools.iter().map(|p| &p.name)),
            }
        }
    }

    fn send_limit(&mut self, at: &KeyPath, limit: &SendLimit) {
        if limit.bytes_per_second.is_some_and(|size| size.0 == 0) {
            self.error(at.join("bytes_per_second"), "0 would hold mail for ever", "suspend the queue instead");
        }
    }

    pub(super) fn providers(&mut self) {
        let config = self.config;
        let built_in = crate::config::built_in();
        let mut suffixes: BTreeMap<String, &str> = BTreeMap::new();
        let mut domains: BTreeMap<&Domain, &str> = BTreeMap::new();
        for (name, provider) in &config.providers {
            let at = at!["providers", name.as_str()];
            if name.as_str() == crate::config::OTHER {
                self.error(at.clone(), "this name is kept for what belongs to no provider", "");
            }
            if provider.mx.is_empty() && provider.domains.is_empty() {
                let near = crate::types::nearest(name.as_str(), built_in.keys().map(|known| known.as_str()));
                let hint = near.map_or_else(
                    || "name its MX hosts, as mx = [\"example.com\"], or its domains".into(),
                    |near| format!("did you mean providers.{near}? A new one needs mx or domains"),
                );
                self.error(at.clone(), "an unknown provider without mx and domains: nothing belongs to it", &hint);
            }
            for (i, suffix) in provider.mx.iter().enumerate() {
                let at = at.join("mx").join(i);
                if let Err(e) = Domain::parse(suffix) {
                    self.error(
                        at.clone(),
                        format!("{suffix:?}: {e}"),
                        "the name or suffix of MX hosts, as \"google.com\"",
                    );
                }
                let key = suffix.trim_start_matches('.').to_ascii_lowercase();
                if key != *suffix {
                    self.error(
                        at.clone(),
                        format!("{suffix:?} matches nothing"),
                        &format!("as {key:?}: lowercase, without a leading dot"),
                    );
                }
                if let Some(other) = suffixes.insert(key, name.as_str()) {
                    self.error(at, format!("{suffix:?} belongs to providers.{other} too"), "keep one of them");
                }
            }
            for (i, domain) in provider.domains.iter().enumerate() {
                if let Some(other) = domains.insert(domain, name.as_str()) {
                    let at = at.join("domains").join(i);
                    self.error(at, format!("{domain} belongs to providers.{other} too"), "keep one of them");
                }
            }
            let counts = [
                ("connections", provider.connections),
                ("messages_per_connection", provider.messages_per_connection),
                ("recipients_per_message", provider.recipients_per_message),
            ];
            for (key, _) in counts.into_iter().filter(|(_, count)| *count == Some(0)) {
                self.error(at.join(key), "0 would hold mail for ever", "suspend the queue instead");
            }
        }
    }

    fn limit_rule(&mut self, at: &KeyPath, rule: &LimitRule) {
        if rule.connections == Some(0) {
            self.error(at.join("connections"), "0 would hold mail for ever", "suspend the queue instead");
        }
    }

    pub(super) fn limits(&mut self) {
        let config = self.config;
        let smtp = &config.smtp;
        let of_smtp = |key: &str| at!["smtp", key];
        self.at_least(of_smtp("max_message_size"), smtp.max_message_size.0, MESSAGE_SIZE_RFC);
        self.at_least(of_smtp("max_recipients"), smtp.max_recipients.into(), 1);
        self.at_least(of_smtp("max_connections"), smtp.max_connections.into(), 1);
        self.at_least(of_smtp("max_connections_per_client"), smtp.max_connections_per_client.into(), 1);
        self.at_least(of_smtp("max_messages_per_connection"), smtp.max_messages_per_connection.into(), 1);
        self.at_least(of_smtp("max_errors"), smtp.max_errors.into(), 1);
        self.at_least(of_smtp("max_received"), smtp.max_received.into(), 1);
        self.not_zero(of_smtp("command_timeout"), smtp.command_timeout);
        self.not_zero(of_smtp("data_timeout"), smtp.data_timeout);
        self.not_zero(of_smtp("session_timeout"), smtp.session_timeout);
        let below = "below what RFC 5321 asks for";
        if (1..RECIPIENTS_RFC).contains(&smtp.max_recipients) {
            self.warn(of_smtp("max_recipients"), below, "§4.5.3.1.8: at least 100");
        }
        if (1..RECEIVED_RFC).contains(&smtp.max_received) {
            self.warn(of_smtp("max_received"), below, "§6.3: at least 100");
        }
        if smtp.command_timeout.0 < COMMAND_TIMEOUT_RFC && smtp.command_timeout.0 > Duration::ZERO {
            self.warn(of_smtp("command_timeout"), below, "§4.5.3.2.7: at least 5 minutes");
        }
        let delivery = &config.delivery;
        let of_delivery = |key: &str| at!["delivery", key];
        self.at_least(of_delivery("port"), delivery.port.into(), 1);
        self.at_least(of_delivery("max_unsettled"), delivery.max_unsettled.into(), 1);
        self.at_least(of_delivery("max_connections"), delivery.max_connections.into(), 1);
        self.at_least(of_delivery("max_recipients"), delivery.max_recipients.into(), 1);
        self.not_zero(of_delivery("connect_timeout"), delivery.connect_timeout);
        if delivery.tls == TlsPolicy::Verified {
            self.warn(
                of_delivery("tls"),
                "few MX hosts have a certificate for their name: much mail will wait until it expires",
                "\"verified\" belongs into routes; \"opportunistic\" is what the world can do",
            );
        }
        self.at_least(at!["dns", "max_concurrent"], config.dns.max_concurrent.into(), 1);
        self.at_least(at!["dns", "cache_size"], config.dns.cache_size.into(), 1);
        self.not_zero(at!["dns", "timeout"], config.dns.timeout);
        self.at_least(at!["storage", "window_entries"], config.storage.window_entries.into(), 1);
        self.at_least(at!["storage", "cache"], config.storage.cache.0, 1 << 20);
        self.not_zero(at!["storage", "event_retention"], config.storage.event_retention);
    }

    pub(super) fn not_zero(&mut self, key: KeyPath, value: HumanDuration) {
        if value.0.is_zero() {
            self.error(key, "0 leaves no time at all", "a duration, as \"5m\"");
        }
    }
}
