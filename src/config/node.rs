//! The node: TLS, HTTP, store and log.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ByteSize, HumanDuration};
use crate::types::Name;

/// What a 250 or 202 promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The journal was synced to disk (`fdatasync`).
    #[default]
    Fsync,
    /// The journal was written to the operating system.
    Os,
}

/// The certificate of the SMTP listeners.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Tls {
    /// PEM file with the certificate and its chain, relative to the config file.
    pub certificate_file: PathBuf,
    /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1). Group and world must not be able to read it.
    pub key_file: PathBuf,
}

/// The HTTP API.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Http {
    /// Where the API, `/metrics`, `/healthz` and `/readyz` listen. Put a TLS proxy in front of anything but loopback.
    pub address: SocketAddr,
    /// The node's keys. A tenant's own keys stand under `[[tenants]]`.
    pub api_keys: Vec<ApiKey>,
    /// The largest body of a request.
    pub max_body: ByteSize,
    /// The most connections at a time; further ones wait.
    pub max_connections: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8025)),
            api_keys: Vec::new(),
            max_body: ByteSize(40 << 20),
            max_connections: 512,
        }
    }
}

/// A key of the HTTP API.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct ApiKey {
    /// Its name, for the log.
    pub name: Name,
    /// The SHA-256 of the key, in hexadecimal: the key itself is nowhere in the config.
    pub sha256: String,
    /// What it may do. Of the node: `read` or `admin`; of a tenant: `read` or `send`.
    pub role: Role,
}

/// What an API key may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Read,
    /// Look and send, for its tenant.
    Send,
    /// Everything, for all tenants.
    Admin,
}

/// The public listener: unsubscribe and tracking links, nothing else. It speaks plain HTTP: put a proxy with a certificate in front.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Public {
    /// Where it listens.
    pub address: SocketAddr,
    /// The URL by which the world reaches it.
    pub url: String,
    /// The proxies whose `X-Forwarded-For` is believed, as networks; they may open any number of connections. Without them
    /// every client behind a proxy counts as one where misses are limited.
    #[serde(default)]
    pub trusted_proxies: Vec<ipnet::IpNet>,
}

/// The check before a campaign's start.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Check {
    /// The URL of an rspamd worker that scores a sample, as `http://127.0.0.1:11333`. Only `http`: it belongs beside the daemon.
    pub rspamd: Option<String>,
    /// Address and port of a spamd (SpamAssassin) that scores a sample, as `127.0.0.1:783`.
    pub spamassassin: Option<String>,
    /// The score from which on a start is blocked; without it the filter's own.
    pub spam_threshold: Option<f64>,
}

/// The store.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Storage {
    /// Free space below which intake refuses (452 4.3.1, 507); delivery goes on from what is left. Raising it costs space.
    pub min_free: ByteSize,
    /// How long events are kept, in whole days (UTC). Raising it costs about 200 octets an event on disk.
    pub event_retention: HumanDuration,
    /// Memory for cached blocks of the store.
    pub cache: ByteSize,
    /// Memory for messages that were just accepted, so that their first attempt need not read them back.
    pub content_cache: ByteSize,
    /// The most queue entries that wait in memory, over all queues; the rest waits on disk. About 200 octets each.
    pub window_entries: u32,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            min_free: ByteSize(1 << 30),
            event_retention: HumanDuration::secs(30 * 86_400),
            cache: ByteSize(32 << 20),
            content_cache: ByteSize(32 << 20),
            window_entries: 100_000,
        }
    }
}

/// The log, written to standard error.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// What is logged, as in `info` or `posthaste::delivery=debug,info`. The variable `POSTHASTE_LOG` wins.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// The form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
