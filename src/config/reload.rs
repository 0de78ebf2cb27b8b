//! Reloading: the whole new configuration or none of it.
//!
//! 1. The daemon loads and checks the file; on any error the old configuration stays,
//! 2. [`plan_reload`] refuses to take away a tenant or pool that still has mail queued, and says how much,
//! 3. keeps what can't change in a running process as it is, and names it: it needs a restart,
//! 4. the daemon tries keys and certificate, and swaps.

use std::collections::BTreeMap;
use std::fmt;

use super::{Config, Listener, ListenerTls};
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
}

impl fmt::Display for ReloadReport {
    /// One line, for the log and the CLI.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.changed.as_slice(), self.needs_restart.as_slice()) {
            ([], []) => f.write_str("nothing changed: the configuration in force is what the files say"),
            ([], restart) => write!(f, "nothing changed yet: only a restart puts {} in force", restart.join(", ")),
            (changed, []) => write!(f, "the new configuration is in force; changed: {}", changed.join(", ")),
            (changed, restart) => {
                let (changed, restart) = (changed.join(", "), restart.join(", "));
                write!(
                    f,
                    "the new configuration is in force; changed: {changed}; only a restart puts {restart} in force"
                )
            }
        }
    }
}

/// Why a reload was refused: the old configuration stays in force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReloadError {
    /// Something was taken away that mail is queued for: `pool "marketing" has 120 recipients queued`.
    #[error("still in use: {}", .0.join("; "))]
    InUse(Vec<String>),
    /// `[tls]` was taken away while the running listeners need it.
    #[error("[tls] can't be removed while a listener offers TLS; change the listeners too and restart")]
    TlsInUse,
}

/// What a reload puts in place of `old`, and its report: pure. `in_use` are the queues that hold something.
pub fn plan_reload(old: &Config, new: Config, in_use: &[InUse]) -> Result<(Config, ReloadReport), ReloadError> {
    refuse_removed(&new, in_use)?;
    let mut config = new;
    let needs_restart = keep_what_is_fixed(old, &mut config);
    if config.tls.is_none() && config.smtp.listeners.iter().any(|l| l.tls != ListenerTls::None) {
        return Err(ReloadError::TlsInUse);
    }
    let changed = changed_sections(old, &config);
    Ok((config, ReloadReport { changed, needs_restart }))
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
    compare!(
        smtp, tls, http, tenants, dkim, sources, pools, retry, routes, delivery, shaping, limits, providers, webhooks,
        alerts, check, storage, log
    );
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
        check("", "", &[], "nothing changed: the configuration in force is what the files say");
        check("", "[retry]\nexpire_after = '5d'", &[], "the new configuration is in force; changed: retry");
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
            "nothing changed yet: only a restart puts smtp.listeners in force",
        );
        check(
            &listener(1, "10.0.0.0/8"),
            &listener(1, "127.0.0.0/8"),
            &[],
            "the new configuration is in force; changed: smtp",
        );
        let old = config(BASE);
        let mut new = old.clone();
        new.hostname = "b.example".into();
        new.retry.expire_after = crate::config::HumanDuration::secs(500_000);
        let (planned, report) = plan_reload(&old, new, &[]).expect("allowed");
        assert_eq!(planned.hostname, "a.example", "the running value stays");
        assert_eq!(
            report.to_string(),
            "the new configuration is in force; changed: retry; only a restart puts hostname in force"
        );
    }

    #[test]
    fn refuses_to_remove_what_mail_is_queued_for() {
        let pools = "[[pools]]\nname = 'bulk'\nsources = [{ name = 'default' }]\n";
        let in_use = [queued("default", "bulk", 7), queued("default", "bulk", 5)];
        check(pools, "", &in_use, "refused: still in use: pool \"bulk\" has 12 recipients queued");
        check(pools, "", &[queued("default", "bulk", 0)], "the new configuration is in force; changed: tenants, pools");
        let other = "[[tenants]]\nname = 'other'\ndomains = ['*']\nbounce_domain = 'b.example'\n";
        check(
            "",
            other,
            &[queued("default", "default", 1)],
            "refused: still in use: tenant \"default\" has 1 recipients queued",
        );
    }
}
