//! From a file to a configuration that the engines can trust.
//!
//! 1. Read the file and what it includes into one tree (`source`),
//! 2. read the tree into the types, with all errors at once (`read`),
//! 3. make relative paths absolute to the file that names them, and find credentials,
//! 4. put in what is implied: the tenant, source and pool `default`, each tenant's pool, the built-in limits,
//! 5. check what no single value can show (`check`).

use std::path::{Path, PathBuf};

use super::check::check;
use super::problem::{ConfigErrors, KeyPath, Problem, Warning, at};
use super::providers::{BUILT_IN, BUILT_IN_NAME};
use super::read::read;
use super::source::Sources;
use super::{Config, Pool, PoolSource, Shaping, Source, Tenant};
use crate::types::Name;

/// Before a name in the service manager's credentials folder, in place of a file name.
const CREDENTIAL_PREFIX: &str = "credential:";

/// What a configuration may refer to outside its files.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The folder of the service manager's credentials (systemd's `LoadCredential=`): `$CREDENTIALS_DIRECTORY`.
    pub credentials_dir: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        Self { credentials_dir: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }
}

/// Reads and checks the configuration at `path`.
///
/// Success means: every value is in its range, every name is defined, every key and certificate file can be read and
/// fits, and every path is absolute or relative to the working folder. Errors tell everything that could be found
/// at once; warnings come with both results.
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    load_with(path, &Environment::of_process())
}

/// As [`load`], with the environment given.
pub fn load_with(path: &Path, environment: &Environment) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    load_with_places(path, environment).map(|(config, warnings, _)| (config, warnings))
}

/// Where the values of a configuration stand.
pub struct Places(Sources);

impl Places {
    /// File and line of the value at these keys, as `posthaste.toml:12` or `built-in providers.toml:7`; `None` where no file gives it.
    pub fn of(&self, keys: &[&str]) -> Option<String> {
        let path = KeyPath(keys.iter().map(|key| super::problem::Step::from(*key)).collect());
        let place = self.0.find(&path)?;
        let found = self.0.problem(place, &path, String::new(), None);
        Some(format!("{}:{}", found.file.display(), found.line))
    }
}

/// As [`load_with`], with the places of the values.
pub fn load_with_places(
    path: &Path,
    environment: &Environment,
) -> Result<(Config, Vec<Warning>, Places), ConfigErrors> {
    let mut sources = Sources::read(path);
    sources.underlay("providers", BUILT_IN_NAME, BUILT_IN);
    let reading = read(&mut sources);
    let mut config = reading.config;
    let mut errors = std::mem::take(&mut sources.problems);
    // A file that can't be parsed to its end has lost keys: to say that they are missing would only confuse.
    let whole = errors.is_empty();
    errors.extend(reading.problems);
    errors.extend(resolve_paths(&mut config, &sources, environment));
    let mut warnings = Vec::new();
    if whole {
        let explicit_tenants = !config.tenants.is_empty();
        fill_in(&mut config);
        let found = check(&config, explicit_tenants, &sources, &reading.removed, environment);
        errors.extend(found.errors);
        warnings = found.warnings;
    }
    let order = |a: &Problem, b: &Problem| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column));
    errors.sort_by(order);
    warnings.sort_by(order);
    if errors.is_empty() { Ok((config, warnings, Places(sources))) } else { Err(ConfigErrors { errors, warnings }) }
}

/// Every path in the configuration; a test compares this list with the types.
pub(super) fn paths_of(config: &mut Config) -> Vec<(KeyPath, &mut PathBuf)> {
    let mut paths = vec![(at!["data_dir"], &mut config.data_dir)];
    for (i, file) in config.include.iter_mut().enumerate() {
        paths.push((at!["include", i], file));
    }
    if let Some(tls) = &mut config.tls {
        paths.push((at!["tls", "certificate_file"], &mut tls.certificate_file));
        paths.push((at!["tls", "key_file"], &mut tls.key_file));
    }
    for (i, key) in config.dkim.iter_mut().enumerate() {
        paths.push((at!["dkim", i, "key_file"], &mut key.key_file));
    }
    for (name, route) in &mut config.routes {
        if let Some(file) = &mut route.password_file {
            paths.push((at!["routes", name.as_str(), "password_file"], file));
        }
    }
    if let Some(file) = &mut config.alerts.mail_password_file {
        paths.push((at!["alerts", "mail_password_file"], file));
    }
    for (i, webhook) in config.webhooks.iter_mut().enumerate() {
        paths.push((at!["webhooks", i, "secret_file"], &mut webhook.secret_file));
        if let Some(file) = &mut webhook.authorization_file {
            paths.push((at!["webhooks", i, "authorization_file"], file));
        }
    }
    paths
}

fn resolve_paths(config: &mut Config, sources: &Sources, environment: &Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, path) in paths_of(config) {
        if path.as_os_str().is_empty() {
            continue;
        }
        let Some(name) = path.to_str().and_then(|text| text.strip_prefix(CREDENTIAL_PREFIX)) else {
            if path.is_relative() {
                *path = sources.folder_of(&key).join(&*path);
            }
            continue;
        };
        let mut wrong = |message: &str, hint: &str| {
            problems.push(sources.problem(sources.place_of(&key), &key, message.into(), Some(hint.into())));
        };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            wrong("not the name of a credential", "as in \"credential:dkim-s1\", the name given to LoadCredential=");
            continue;
        }
        match &environment.credentials_dir {
            Some(folder) => *path = folder.join(name),
            None => wrong(
                "$CREDENTIALS_DIRECTORY is not set, so there are no credentials",
                "run under systemd with LoadCredential=, or name a file",
            ),
        }
    }
    problems
}

/// Whether a path is a credential that could not be found (reported already).
pub(super) fn is_unresolved(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(CREDENTIAL_PREFIX))
}

/// Puts in what the operator left to us.
fn fill_in(config: &mut Config) {
    let default = default_name();
    if config.sources.is_empty() {
        let name = default.clone();
        config.sources.push(Source { name, address: None, ehlo: None, connections: None, message_rate: None });
    }
    if config.pools.is_empty() {
        let sources = config.sources.iter().map(|s| PoolSource { name: s.name.clone(), weight: 1 }).collect();
        config.pools.push(Pool { name: default.clone(), sources });
    }
    if config.tenants.is_empty() {
        config.tenants.push(Tenant {
            name: default,
            domains: vec!["*".into()],
            bounce_domain: None,
            pool: None,
            pools: None,
            class: crate::types::Class::default(),
            smtp_users: Vec::new(),
            api_keys: Vec::new(),
            quota: super::Quota::default(),
        });
    }
    let first_pool = config.pools.first().map(|pool| pool.name.clone());
    for tenant in &mut config.tenants {
        if tenant.pool.is_none() {
            tenant.pool.clone_from(&first_pool);
        }
    }
    // A `[shaping.default]` that names one limit keeps the built-in others: else one line would lift all limits.
    let built_in = Shaping::default().default;
    let rule = &mut config.shaping.default;
    rule.connections = rule.connections.or(built_in.connections);
    rule.connection_rate = rule.connection_rate.or(built_in.connection_rate);
    rule.message_rate = rule.message_rate.or(built_in.message_rate);
    rule.messages_per_connection = rule.messages_per_connection.or(built_in.messages_per_connection);
}

fn default_name() -> Name {
    Name::parse("default").expect("seven letters")
}
