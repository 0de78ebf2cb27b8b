//! What no single value can show: names that lead nowhere, listeners that clash, keys that others can read.
//!
//! 1. The node: host name, folder, listeners, HTTP (`node`),
//! 2. those who send: tenants, users, keys (`tenants`),
//! 3. the outgoing side: sources, pools, routes, retries, limits (`delivery`),
//! 4. webhooks (`webhooks`),
//! 5. the files: certificates, keys and passwords, as the daemon will read them (`files`).
//!
//! Nothing here changes the configuration. An error keeps the daemon from starting; a warning is told and no more.

mod alerts;
mod delivery;
mod files;
mod node;
mod rules;
mod tenants;
#[cfg(test)]
mod tests;
mod webhooks;

use super::problem::{KeyPath, Problem, Step, Warning, at};
use super::source::Sources;
use super::{Config, Environment};
use crate::types::{Name, nearest};

/// What was found.
#[derive(Default)]
pub(super) struct Findings {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Warning>,
}

/// Checks a whole configuration whose implied parts are filled in.
///
/// `removed` are the values that could not be read: what depends on them is passed over. `explicit_tenants` tells
/// whether the operator named any.
pub(super) fn check(
    config: &Config,
    explicit_tenants: bool,
    sources: &Sources,
    removed: &[KeyPath],
    environment: &Environment,
) -> Findings {
    let mut check = Check { config, sources, removed, environment, found: Findings::default() };
    check.node();
    check.listeners();
    check.http();
    check.bounces();
    check.filters();
    check.tenants(explicit_tenants);
    check.users_and_keys();
    check.sources_and_pools();
    check.routes();
    check.retry();
    check.shaping();
    check.send_limits();
    check.providers();
    check.adaptation();
    check.rules();
    check.alerts();
    check.webhooks();
    check.limits();
    check.tls_files();
    check.dkim();
    check.found
}

/// The checks share what they look at and where they write.
struct Check<'a> {
    config: &'a Config,
    sources: &'a Sources,
    removed: &'a [KeyPath],
    environment: &'a Environment,
    found: Findings,
}

impl Check<'_> {
    fn error(&mut self, key: KeyPath, message: impl Into<String>, hint: &str) {
        if !self.was_removed(&key) {
            let problem = self.problem(&key, message.into(), hint);
            self.found.errors.push(problem);
        }
    }

    fn warn(&mut self, key: KeyPath, message: impl Into<String>, hint: &str) {
        if !self.was_removed(&key) {
            let problem = self.problem(&key, message.into(), hint);
            self.found.warnings.push(problem);
        }
    }

    fn problem(&self, key: &KeyPath, message: String, hint: &str) -> Problem {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.sources.problem(self.sources.place_of(key), key, message, hint)
    }

    /// Whether the value or what holds it was wrong already.
    fn was_removed(&self, key: &KeyPath) -> bool {
        self.removed.iter().any(|removed| key.0.starts_with(&removed.0))
    }

    /// Whether all of a section could be read, so that a name that is not there is not defined.
    fn is_whole(&self, section: &str) -> bool {
        !self.removed.iter().any(|removed| removed.0.first() == Some(&Step::from(section)))
    }

    /// Each name but the first of its kind is an error.
    fn unique<'n>(&mut self, what: &str, names: impl Iterator<Item = (KeyPath, &'n str)>) {
        let mut seen: Vec<&str> = Vec::new();
        for (key, name) in names {
            if seen.contains(&name) {
                self.error(key, format!("there is another {what} {name:?}"), "give each its own name");
            } else {
                seen.push(name);
            }
        }
    }

    /// A name must be one of `defined`.
    fn known<'n>(&mut self, key: KeyPath, what: &str, name: &Name, defined: impl Iterator<Item = &'n Name> + Clone) {
        if defined.clone().any(|n| n == name) {
            return;
        }
        let hint = match nearest(name.as_str(), defined.clone().map(Name::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("defined: {}", defined.map(Name::as_str).collect::<Vec<_>>().join(", ")),
        };
        self.error(key, format!("there is no {what} {:?}", name.as_str()), &hint);
    }

    /// A number must be at least `min`.
    fn at_least(&mut self, key: KeyPath, value: u64, min: u64) {
        if value < min {
            self.error(key, format!("{value} is too small"), &format!("at least {min}"));
        }
    }
}
