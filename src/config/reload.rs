//! Reloading: the whole new configuration or none of it.
//!
//! 1. Load and check the file; on any error the old configuration stays,
//! 2. refuse to take away a tenant or pool that still has mail queued, and say how much,
//! 3. keep what can't change in a running process as it is, and name it: it needs a restart,
//! 4. swap.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Config, ConfigErrors, Listener, ListenerTls, Warning, load};
use crate::types::Name;

/// How many recipients a tenant has queued for a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InUse {
    /// The tenant.
    pub tenant: Name,
    /// The pool.
    pub pool: Name,
    /// How many recipients wait.
    pub recipients: u64,
}

/// What a reload did.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct ReloadReport {
    /// The sections that changed and apply from now on.
    pub changed: Vec<String>,
    /// The keys that changed in the file but apply only after a restart.
    pub needs_restart: Vec<String>,
    /// What the check warned of.
    pub warnings: Vec<String>,
}

impl fmt::Display for ReloadReport {
    /// One line, for the log and the CLI.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changed.as_slice() {
            [] => f.write_str("nothing changed")?,
            changed => write!(f, "changed: {}", changed.join(", "))?,
        }
        if !self.needs_restart.is_empty() {
            write!(f, "; needs a restart: {}", self.needs_restart.join(", "))?;
        }
        Ok(())
    }
}

/// Why a reload was refused: the old configuration stays in force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// Something was taken away that mail is queued for: `pool "marketing" has 120 recipients queued`.
    #[error("still in use: {}", .0.join("; "))]
    InUse(Vec<String>),
    /// `[tls]` was taken away while the running listeners need it.
    #[error("[tls] can't be removed while a listener offers TLS; change the listeners too and restart")]
    TlsInUse,
}

/// Loads `path` and puts it in place of `current`.
///
/// `in_use` are the queues that hold something. On an error `current` is untouched.
pub fn reload(path: &Path, current: &ArcSwap<Config>, in_use: &[InUse]) -> Result<ReloadReport, ReloadError> {
    let (new, warnings) = load(path)?;
    let (config, mut report) = plan_reload(&current.load(), new, in_use)?;
    report.warnings = warnings.iter().map(Warning::to_string).collect();
    current.store(Arc::new(config));
    Ok(report)
}

/// What [`reload`] would put in place, and its report (without warnings): pure.
pub fn plan_reload(old: &Config, new: Config, in_use: &[InUse]) -> Result<(Config, ReloadReport), ReloadError> {
    refuse_removed(&new, in_use)?;
    let mut config = new;
    let needs_restart = keep_what_is_fixed(old, &mut config);
    if config.tls.is_none() && config.smtp.listeners.iter().any(|l| l.tls != ListenerTls::None) {
        return Err(ReloadError::TlsInUse);
    }
    let changed = changed_sections(old, &config);
    Ok((config, ReloadReport { changed, needs_restart, warnings: Vec::new() }))
}

fn refuse_removed(new: &Config, in_use: &[InUse]) -> Result<(), ReloadError> {
    let mut missing: BTreeMap<(&str, &Name), u64> = BTreeMap::new();
    for usage in in_use.iter().filter(|usage| usage.recipients > 0) {
        if new.tenant(&usage.tenant).is_none() {
            *missing.entry(("tenant", &usage.tenant)).or_default() += usage.recipients;
        }
        if !new.pools.iter().any(|pool| pool.name == usage.pool) {
            *missing.entry(("pool", &usage.pool)).or_default() += usage.recipients;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let told = missing.iter().map(|((what, name), n)| format!("{what} {:?} has {n} recipients queued", name.as_str()));
    Err(ReloadError::InUse(told.collect()))
}

/// Sockets, the store and its sizes are made once. Each one that the file changes keeps its old value here.
fn keep_what_is_fixed(old: &Config, new: &mut Config) -> Vec<String> {
    let mut kept = Vec::new();
    macro_rules! fixed {
        ($($name:literal => $($field:ident).+),* $(,)?) => {
            $(if new.$($field).+ != old.$($field).+ {
                kept.push($name.to_owned());
                new.$($field).+ = old.$($field).+.clone();
            })*
        };
    }
    fixed! {
        "hostname" => hostname,
        "data_dir" => data_dir,
        "durability" => durability,
        "public" => public,
        "dns" => dns,
        "delivery.max_unsettled" => delivery.max_unsettled,
        "storage.cache" => storage.cache,
        "storage.content_cache" => storage.content_cache,
        "storage.window_entries" => storage.window_entries,
        "log.format" => log.format,
    }
    if sockets(&new.smtp.listeners) != sockets(&old.smtp.listeners) {
        kept.push("smtp.listeners".into());
        let wanted = std::mem::replace(&mut new.smtp.listeners, old.smtp.listeners.clone());
        for listener in &mut new.smtp.listeners {
            if let Some(same) = wanted.iter().find(|w| socket(w) == socket(listener)) {
                listener.relay_from.clone_from(&same.relay_from);
            }
        }
    }
    match (&mut new.http, &old.http) {
        (None, None) => {}
        (Some(new), Some(old)) => {
            if new.address != old.address {
                kept.push("http.address".into());
                new.address = old.address;
            }
            if new.max_connections != old.max_connections {
                kept.push("http.max_connections".into());
                new.max_connections = old.max_connections;
            }
        }
        (http, old) => {
            kept.push("http".into());
            http.clone_from(old);
        }
    }
    kept
}

/// What of a listener is fixed when its socket is opened: its networks may change at any time.
fn socket(listener: &Listener) -> (std::net::SocketAddr, super::ListenerRole, ListenerTls) {
    (listener.address, listener.role, listener.tls)
}

fn sockets(listeners: &[Listener]) -> Vec<(std::net::SocketAddr, super::ListenerRole, ListenerTls)> {
    listeners.iter().map(socket).collect()
}

fn changed_sections(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    macro_rules! compare {
        ($($field:ident),* $(,)?) => {
            $(if old.$field != new.$field {
                changed.push(stringify!($field).to_owned());
            })*
        };
    }
    compare!(smtp, tls, http, tenants, dkim, sources, pools, retry, routes, delivery, shaping, storage, log);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_with};

    fn config(toml: &str) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posthaste.toml");
        std::fs::write(&file, toml).expect("written");
        let mut config = load_with(&file, &Environment::default()).expect("valid").0;
        config.data_dir = "/data".into();
        config
    }

    const BASE: &str = "hostname = 'a.example'\ndata_dir = 'd'\n";

    fn check(old: &str, new: &str, in_use: &[InUse], want: &str) {
        let (old, new) = (config(&format!("{BASE}{old}")), config(&format!("{BASE}{new}")));
        let got = match plan_reload(&old, new, in_use) {
            Ok((_, report)) => report.to_string(),
            Err(e) => format!("refused: {e}"),
        };
        assert_eq!(got, want);
    }

    fn queued(tenant: &str, pool: &str, recipients: u64) -> InUse {
        let name = |text| Name::parse(text).expect("a name");
        InUse { tenant: name(tenant), pool: name(pool), recipients }
    }

    #[test]
    fn names_what_changed() {
        check("", "", &[], "nothing changed");
        check("", "[retry]\nexpire_after = '5d'", &[], "changed: retry");
    }

    #[test]
    fn keeps_what_needs_a_restart_and_names_it() {
        let listener = |port: u32, net: &str| {
            format!("[[smtp.listeners]]\naddress = '127.0.0.1:{port}'\nrelay_from = ['{net}']\n")
        };
        check(
            &listener(1, "10.0.0.0/8"),
            &listener(2, "10.0.0.0/8"),
            &[],
            "nothing changed; needs a restart: smtp.listeners",
        );
        check(&listener(1, "10.0.0.0/8"), &listener(1, "127.0.0.0/8"), &[], "changed: smtp");
        let old = config(BASE);
        let mut new = old.clone();
        new.hostname = "b.example".into();
        new.retry.expire_after = crate::config::HumanDuration::secs(500_000);
        let (planned, report) = plan_reload(&old, new, &[]).expect("allowed");
        assert_eq!(planned.hostname, "a.example", "the running value stays");
        assert_eq!(report.to_string(), "changed: retry; needs a restart: hostname");
    }

    #[test]
    fn refuses_to_remove_what_mail_is_queued_for() {
        let pools = "[[pools]]\nname = 'bulk'\nsources = [{ name = 'default' }]\n";
        let in_use = [queued("default", "bulk", 7), queued("default", "bulk", 5)];
        check(pools, "", &in_use, "refused: still in use: pool \"bulk\" has 12 recipients queued");
        check(pools, "", &[queued("default", "bulk", 0)], "changed: tenants, pools");
        let other = "[[tenants]]\nname = 'other'\ndomains = ['*']\nbounce_domain = 'b.example'\n";
        check(
            "",
            other,
            &[queued("default", "default", 1)],
            "refused: still in use: tenant \"default\" has 1 recipients queued",
        );
    }

    #[test]
    fn a_bad_file_keeps_the_old_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posthaste.toml");
        std::fs::write(&file, "hostname = 7").expect("written");
        let current = ArcSwap::from_pointee(config(BASE));
        let before = current.load_full();
        assert!(matches!(reload(&file, &current, &[]), Err(ReloadError::Config(_))));
        assert!(Arc::ptr_eq(&before, &current.load_full()));
        std::fs::write(&file, format!("{BASE}[retry]\nexpire_after = '6d'\n")).expect("written");
        let report = reload(&file, &current, &[]).expect("valid");
        assert_eq!(report.changed, ["retry"]);
        assert_eq!(current.load().retry.expire_after, crate::config::HumanDuration::secs(6 * 86_400));
    }
}
