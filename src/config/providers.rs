//! Mailbox providers: found by the names of the MX hosts, so that hosted domains count towards them.
//!
//! 1. `config/providers.toml` is built in; an operator's `[providers.NAME]` tables replace its values key by key,
//! 2. a domain that a provider names is its; else the first MX host that matches decides, by the longest suffix of whole labels,
//! 3. what matches none is [`OTHER`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Config, Provider};
use crate::types::{Domain, Name};

/// The name where no provider matches.
pub const OTHER: &str = "other";

/// The built-in file.
pub(super) const BUILT_IN: &str = include_str!("../../config/providers.toml");

/// What the built-in file is called where a value's place is told.
pub(super) const BUILT_IN_NAME: &str = "built-in providers.toml";

static PARSED: LazyLock<BTreeMap<Name, Provider>> = LazyLock::new(|| {
    let config: Config = toml::from_str(BUILT_IN).expect("the built-in file is right: a test reads it");
    config.providers
});

/// The built-in providers.
pub fn built_in() -> &'static BTreeMap<Name, Provider> {
    &PARSED
}

/// `google.com` covers itself and `aspmx.l.google.com`, not `notgoogle.com`.
pub fn is_host_within(host: &str, suffix: &str) -> bool {
    let suffix = suffix.trim_start_matches('.');
    host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Config {
    /// All providers: the built-in ones where nothing was loaded from a file (a loaded configuration has them in it).
    pub fn all_providers(&self) -> &BTreeMap<Name, Provider> {
        if self.providers.is_empty() { built_in() } else { &self.providers }
    }

    /// The provider with this name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.all_providers().iter().find(|(known, _)| known.as_str() == name).map(|(_, provider)| provider)
    }

    /// The name of the provider of a domain with these MX hosts (lowercase, without trailing dot), or [`OTHER`].
    pub fn provider_of<'a>(&self, domain: Option<&Domain>, hosts: impl IntoIterator<Item = &'a str>) -> &str {
        let all = self.all_providers();
        let named = domain.and_then(|domain| all.iter().find(|(_, p)| p.domains.contains(domain)));
        if let Some((name, _)) = named {
            return name.as_str();
        }
        let of_host = |host: &str| {
            let suffixes = all.iter().flat_map(|(name, p)| p.mx.iter().map(move |suffix| (suffix, name)));
            suffixes.filter(|(suffix, _)| is_host_within(host, suffix)).max_by_key(|(suffix, _)| suffix.len())
        };
        hosts.into_iter().find_map(of_host).map_or(OTHER, |(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], want: &str) {
        assert_eq!(Config::default().provider_of(None, hosts.iter().copied()), want, "{hosts:?}");
    }

    #[test]
    fn providers_by_suffix_of_whole_labels() {
        check(&["aspmx.l.google.com"], "google");
        check(&["example-com.mail.protection.outlook.com"], "microsoft");
        check(&["mta5.am0.yahoodns.net"], "yahoo");
        check(&["mx01.mail.icloud.com"], "apple");
        // A look-alike must not count towards the provider.
        check(&["mx.notgoogle.com"], "other");
        check(&["google.com.evil.example"], "other");
        check(&["mx.example.org", "alt1.aspmx.l.google.com"], "google");
        check(&[], "other");
    }

    #[test]
    fn a_domain_that_is_named_belongs_whatever_its_hosts() {
        let gmail = Domain::parse("gmail.com").expect("valid");
        assert_eq!(Config::default().provider_of(Some(&gmail), ["mx.example.org"]), "google");
        assert_eq!(built_in()["google"].tls, Some(crate::config::TlsPolicy::Required));
    }
}
