//! Those who send: what is theirs, who logs in, and by which keys.

use argon2::password_hash::phc::PasswordHash;

use super::{Check, KeyPath, at};
use crate::config::{ApiKey, Role, Tenant};
use crate::types::Domain;

/// SHA-256 of nothing: a key that was lost on the way to the hash.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl Check<'_> {
    pub(super) fn tenants(&mut self, explicit: bool) {
        let config = self.config;
        let names = config.tenants.iter().enumerate().map(|(i, t)| (at!["tenants", i, "name"], t.name.as_str()));
        self.unique("tenant", names);
        let mut owners: Vec<(String, &Tenant)> = Vec::new();
        for (i, tenant) in config.tenants.iter().enumerate() {
            if let Some(pool) = &tenant.pool
                && self.is_whole("pools")
            {
                self.known(at!["tenants", i, "pool"], "pool", pool, config.pools.iter().map(|p| &p.name));
            }
            for (j, pool) in tenant.pools.iter().flatten().enumerate() {
                if self.is_whole("pools") {
                    self.known(at!["tenants", i, "pools", j], "pool", pool, config.pools.iter().map(|p| &p.name));
                }
            }
            if !explicit {
                continue;
            }
            if tenant.domains.is_empty() {
                self.warn(
                    at!["tenants", i],
                    "no domains: it can send nothing",
                    "domains = [\"example.com\"], or [\"*\"] for every domain",
                );
            }
            for (j, text) in tenant.domains.iter().enumerate() {
                let key = at!["tenants", i, "domains", j];
                self.tenant_domain(&key, tenant, text);
                let text = text.to_ascii_lowercase();
                match owners.iter().find(|(domain, _)| *domain == text) {
                    Some((_, owner)) => {
                        let message =
                            format!("{text:?} belongs to {} too: mail without AUTH counts as theirs", owner.name);
                        self.warn(key, message, "let one tenant own a domain");
                    }
                    None => owners.push((text, tenant)),
                }
            }
            if tenant.bounce_domain.is_none() {
                self.warn(
                    at!["tenants", i],
                    format!(
                        "tenant {} has no bounce_domain: late bounces go to the submitter, unread by us",
                        tenant.name
                    ),
                    "bounce_domain = \"bounce.example.com\", whose MX is a `bounce` listener",
                );
            }
        }
    }

    fn tenant_domain(&mut self, key: &KeyPath, tenant: &Tenant, text: &str) {
        if text == "*" {
            return;
        }
        let domain = match Domain::parse(text) {
            Ok(domain) => domain,
            Err(e) => {
                let hint = match text.strip_prefix("*.") {
                    Some(parent) => format!("{parent:?} covers its subdomains"),
                    None => "a domain, or \"*\" for every domain".into(),
                };
                self.error(key.clone(), format!("{text:?}: {e}"), &hint);
                return;
            }
        };
        let covered = self.config.dkim.iter().any(|k| domain.is_within(&k.domain));
        if !covered && self.is_whole("dkim") {
            self.warn(
                key.clone(),
                format!("{domain} of tenant {} has no DKIM key: large receivers refuse its mail", tenant.name),
                "`posthaste dkim new` makes one; then add [[dkim]]",
            );
        }
    }

    pub(super) fn users_and_keys(&mut self) {
        let config = self.config;
        let users = config.tenants.iter().enumerate().flat_map(|(i, tenant)| {
            let users = tenant.smtp_users.iter().enumerate();
            users.map(move |(j, user)| (at!["tenants", i, "smtp_users", j, "name"], user.name.as_str()))
        });
        // The login alone tells the tenant, so a user name is unique over all of them.
        self.unique("user", users);
        for (i, tenant) in config.tenants.iter().enumerate() {
            for (j, user) in tenant.smtp_users.iter().enumerate() {
                let at = |key: &str| at!["tenants", i, "smtp_users", j, key];
                if user.name.is_empty() || user.name.contains('\0') {
                    self.error(at("name"), "a user needs a name without NUL (RFC 4616)", "");
                }
                if let Err(why) = password_hash(&user.password_hash) {
                    self.error(at("password_hash"), why, "`posthaste hash-password` makes one");
                }
            }
        }
        let mut keys: Vec<(KeyPath, &ApiKey, [Role; 2])> = Vec::new();
        for (i, key) in config.http.iter().flat_map(|http| &http.api_keys).enumerate() {
            keys.push((at!["http", "api_keys", i], key, [Role::Read, Role::Admin]));
        }
        for (i, tenant) in config.tenants.iter().enumerate() {
            for (j, key) in tenant.api_keys.iter().enumerate() {
                keys.push((at!["tenants", i, "api_keys", j], key, [Role::Read, Role::Send]));
            }
        }
        self.api_keys(&keys);
    }

    fn api_keys(&mut self, keys: &[(KeyPath, &ApiKey, [Role; 2])]) {
        for (i, (at, key, roles)) in keys.iter().enumerate() {
            let hash = key.sha256.to_ascii_lowercase();
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                self.error(
                    at.join("sha256"),
                    "not a SHA-256 in hexadecimal (64 digits)",
                    "printf %s \"$KEY\" | sha256sum",
                );
            } else if hash == SHA256_OF_NOTHING {
                self.error(at.join("sha256"), "this is the SHA-256 of nothing: no key is this key", "");
            } else if keys[..i].iter().any(|(_, other, _)| other.sha256.to_ascii_lowercase() == hash) {
                self.error(at.join("sha256"), "another entry has the same key", "make a key for each");
            }
            if !roles.contains(&key.role) {
                let (place, allowed) = if roles.contains(&Role::Admin) {
                    ("the node", "read or admin; a key that sends stands under its tenant")
                } else {
                    ("a tenant", "read or send; a key that rules the node stands under [http]")
                };
                let role = format!("{:?}", key.role).to_lowercase();
                self.error(at.join("role"), format!("{role:?} is not a role of {place}"), allowed);
            }
        }
    }
}

/// Whether this is a PHC string of argon2id with its salt and hash.
fn password_hash(text: &str) -> Result<(), String> {
    let hash = PasswordHash::new(text).map_err(|_| "not a PHC string such as \"$argon2id$v=19$…\"".to_owned())?;
    if hash.algorithm != argon2::ARGON2ID_IDENT {
        return Err(format!("{} is not argon2id", hash.algorithm));
    }
    argon2::Params::try_from(&hash).map_err(|e| format!("the parameters of the hash are wrong: {e}"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("the salt or the hash is missing".into());
    }
    Ok(())
}
