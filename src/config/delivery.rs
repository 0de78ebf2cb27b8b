//! The outgoing side: sources, pools, routes, retries, DNS, DKIM and limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{HumanDuration, Rate, Rates};
use crate::types::{Domain, Name};

/// A local address that mail is sent from.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// The address to bind; without it the system chooses.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The EHLO name; should resolve to the address and back. Default: `hostname`.
    #[serde(default)]
    pub ehlo: Option<String>,
    /// The most connections at a time from this source, over all sites.
    #[serde(default)]
    pub connections: Option<u32>,
    /// The most messages from this source, over all sites.
    #[serde(default)]
    pub message_rate: Option<Rate>,
}

/// A weighted group of sources.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Pool {
    /// Its name.
    pub name: Name,
    /// Its sources.
    pub sources: Vec<PoolSource>,
}

/// A source in a pool.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct PoolSource {
    /// The source.
    pub name: Name,
    /// Its share of the pool's mail, relative to the others. 0 takes it out.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// When a deferred recipient is tried again.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Retry {
    /// The delays after each attempt; the last one repeats. Each is varied by up to 10 %, so that retries spread.
    pub schedule: Vec<HumanDuration>,
    /// How long after acceptance a recipient is given up. RFC 5321 §4.5.4.1 asks for at least 4 to 5 days.
    pub expire_after: HumanDuration,
    /// How long after acceptance the submitter is told of a delay (RFC 3461 §4.1 `DELAY`); `0s` never tells.
    pub delay_notice_after: HumanDuration,
}

impl Default for Retry {
    fn default() -> Self {
        let m = |minutes: u64| HumanDuration::secs(minutes * 60);
        Self {
            schedule: vec![m(1), m(5), m(20), m(60), m(120), m(240)],
            expire_after: HumanDuration::secs(4 * 86_400),
            delay_notice_after: HumanDuration::secs(4 * 3_600),
        }
    }
}

/// Where mail for a domain goes instead of its MX.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Route {
    /// `host`, `host:port`, `address:port` or `[v6]:port`, tried in this order.
    pub hosts: Vec<String>,
    /// `none`, `opportunistic`, `required` (encrypted, any certificate) or `verified` (a certificate for the host).
    #[serde(default)]
    pub tls: TlsPolicy,
    /// TLS from the first octet (port 465) instead of STARTTLS.
    #[serde(default)]
    pub implicit_tls: bool,
    /// User name for a smart host (AUTH PLAIN or LOGIN); needs `tls` of `required` or `verified`, or a host on loopback.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password, one line. Group and world must not be able to read it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The most connections at a time, for each source.
    #[serde(default = "route_connections")]
    pub connections: u32,
    /// The most messages in one connection; 0 for no limit.
    #[serde(default)]
    pub messages_per_connection: u32,
    /// The most new connections, for each source.
    #[serde(default)]
    pub connection_rate: Option<Rate>,
    /// The most messages, for each source.
    #[serde(default)]
    pub message_rate: Option<Rate>,
}

fn route_connections() -> u32 {
    20
}

/// How TLS is used towards a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    /// Never.
    None,
    /// Where offered, with any certificate; in clear when the handshake fails.
    #[default]
    Opportunistic,
    /// Always, with any certificate; else the mail waits.
    Required,
    /// Always, with a certificate that a known authority signed for the host; else the mail waits.
    Verified,
}

/// Who answers DNS questions.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Dns {
    /// Servers with their port; with none, the system's (`/etc/resolv.conf`).
    pub resolvers: Vec<SocketAddr>,
    /// How long one question may take.
    pub timeout: HumanDuration,
    /// The most answers that are cached. About 500 octets each.
    pub cache_size: u32,
    /// The most questions at a time.
    pub max_concurrent: u32,
}

impl Default for Dns {
    fn default() -> Self {
        Self { resolvers: Vec::new(), timeout: HumanDuration::secs(5), cache_size: 100_000, max_concurrent: 256 }
    }
}

/// The outgoing side.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Delivery {
    /// The port of MX hosts.
    pub port: u16,
    /// Whether an MX may lie in a private or loopback network. Routes with explicit hosts may always.
    pub allow_private_addresses: bool,
    /// The most outcomes that are not yet on disk; with the deliveries in flight this bounds the duplicates of a crash.
    pub max_unsettled: u32,
    /// The most connections at a time, over all sources and sites.
    pub max_connections: u32,
    /// How many messages may be sent ahead of their replies on a connection that offers CHUNKING and PIPELINING. Counts
    /// into the duplicates of a crash.
    pub flight_depth: u32,
    /// How long a connection without work is kept for the next message.
    pub idle_timeout: HumanDuration,
    /// How long a TCP connection may take to open.
    pub connect_timeout: HumanDuration,
    /// TLS towards MX hosts where no route says otherwise.
    pub tls: TlsPolicy,
    /// The most recipients in one transaction. RFC 5321 §4.5.3.1.8: a server takes at least 100.
    pub max_recipients: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            port: 25,
            allow_private_addresses: false,
            max_unsettled: 256,
            max_connections: 2_000,
            flight_depth: 4,
            idle_timeout: HumanDuration::secs(5),
            connect_timeout: HumanDuration::secs(60),
            tls: TlsPolicy::Opportunistic,
            max_recipients: 100,
        }
    }
}

/// A DKIM key (RFC 6376).
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct DkimKey {
    /// The signing domain, `d=`.
    pub domain: Domain,
    /// The selector, `s=`.
    pub selector: String,
    /// `rsa-sha256` or `ed25519-sha256` (RFC 8463). Several keys of a domain sign several times.
    pub algorithm: DkimAlgorithm,
    /// PEM file (PKCS #8, or PKCS #1 for RSA). Group and world must not be able to read it.
    pub key_file: PathBuf,
    /// Sender domains whose mail it signs; default its own domain and what is below it. `["*"]` signs everybody's mail.
    #[serde(default)]
    pub sign_for: Vec<String>,
    /// From when it signs (RFC 3339); of several keys of a domain and algorithm the one that came last is used.
    #[serde(default)]
    pub active_from: Option<String>,
}

/// The algorithm of a DKIM key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize, Serialize)]
pub enum DkimAlgorithm {
    /// RSA with SHA-256; 2,048 bits or more (RFC 8301).
    #[serde(rename = "rsa-sha256")]
    RsaSha256,
    /// Ed25519 with SHA-256 (RFC 8463).
    #[serde(rename = "ed25519-sha256")]
    Ed25519Sha256,
}

/// Limits towards receivers. The most exact rule wins key by key: domain, then site, then default.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Shaping {
    /// For every site that no other rule names.
    pub default: LimitRule,
    /// By the name or suffix of the site's MX hosts: `google.com` covers `aspmx.l.google.com`.
    pub sites: BTreeMap<String, LimitRule>,
    /// By recipient domain.
    pub domains: BTreeMap<Domain, LimitRule>,
}

impl Default for Shaping {
    fn default() -> Self {
        let default = LimitRule {
            connections: Some(10),
            connection_rate: Some(Rate { count: 100, per: std::time::Duration::from_secs(60) }),
            message_rate: Some(Rate { count: 100, per: std::time::Duration::from_secs(1) }),
            messages_per_connection: Some(100),
        };
        Self { default, sites: BTreeMap::new(), domains: BTreeMap::new() }
    }
}

/// Limits for each source towards one site or domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct LimitRule {
    /// The most connections at a time.
    pub connections: Option<u32>,
    /// The most new connections.
    pub connection_rate: Option<Rate>,
    /// The most messages (transactions).
    pub message_rate: Option<Rate>,
    /// The most messages in one connection.
    pub messages_per_connection: Option<u32>,
}

/// A group of hosts that speak for one sender's reputation: a mailbox provider. Each key that is given replaces the built-in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Provider {
    /// Names or suffixes of MX hosts (whole labels) that belong to it; the longest that matches wins.
    pub mx: Vec<String>,
    /// Recipient domains that belong to it whatever their MX.
    pub domains: Vec<Domain>,
    /// The most connections at a time of each source to all of its hosts together.
    pub connections: Option<u32>,
    /// The most new connections of each source.
    pub connection_rate: Option<Rate>,
    /// The most messages of each source: one rate or several that hold at once, as `["5/s", "2000/h"]`. They are spread evenly over their time.
    pub message_rate: Rates,
    /// The most messages in one connection.
    pub messages_per_connection: Option<u32>,
    /// The most recipients in one transaction.
    pub recipients_per_message: Option<u32>,
    /// TLS towards its hosts, where it is stricter than `[delivery] tls`.
    pub tls: Option<TlsPolicy>,
}
