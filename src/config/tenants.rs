//! Tenants: those who send, what they own and how much they may send.

use serde::{Deserialize, Serialize};

use super::{ApiKey, ByteSize, Rate};
use crate::types::{Class, Domain, Name};

/// Who sends.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Tenant {
    /// Its name: in events, metrics and queue keys.
    pub name: Name,
    /// The domains from which it may send: reverse-path and From must be within one. `"*"` allows every domain.
    #[serde(default)]
    pub domains: Vec<String>,
    /// The domain of its return paths; bounces come back there.
    #[serde(default)]
    pub bounce_domain: Option<Domain>,
    /// The pool that sends its mail.
    #[serde(default)]
    pub pool: Option<Name>,
    /// The pools that its messages may name beside `pool` (`X-Posthaste-Pool`, `pool` in JSON). Without this key they may name every pool;
    /// `[]` leaves only `pool`. Give it where tenants must not send from each other's addresses.
    #[serde(default)]
    pub pools: Option<Vec<Name>>,
    /// The class of its mail where the message does not say.
    #[serde(default)]
    pub class: Class,
    /// Who may log in by SMTP.
    #[serde(default)]
    pub smtp_users: Vec<SmtpUser>,
    /// Its keys of the HTTP API.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// How much it may send and keep queued.
    #[serde(default)]
    pub quota: Quota,
}

/// A login of the SMTP server.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct SmtpUser {
    /// The user name.
    pub name: String,
    /// The password's hash, a PHC string of argon2id: `posthaste init` and `posthaste hash-password` make one.
    pub password_hash: String,
}

/// What a tenant may use; what is not given is not limited.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Quota {
    /// The most recipients that may be queued; then 452 4.3.1 or 429.
    pub queued_messages: Option<u64>,
    /// The most octets that may be queued; then 452 4.3.1 or 429.
    pub queued_bytes: Option<ByteSize>,
    /// The most recipients in a day (UTC); then 452 4.7.1 or 429.
    pub per_day: Option<u64>,
    /// How fast it may submit, in recipients; then 451 4.7.1 or 429.
    pub submission_rate: Option<Rate>,
}
