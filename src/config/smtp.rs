//! The SMTP server: listeners and limits.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ByteSize, HumanDuration};

/// The SMTP server.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Smtp {
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The largest message, announced as SIZE (RFC 1870). Raising it costs memory: a message is held while it comes in.
    pub max_message_size: ByteSize,
    /// The most recipients of one transaction; the next gets 452 4.5.3. RFC 5321 §4.5.3.1.8 asks for at least 100.
    pub max_recipients: u32,
    /// The most connections at a time; the next gets 421 4.3.2.
    pub max_connections: u32,
    /// The most connections at a time from one address; the next gets 421 4.7.0.
    pub max_connections_per_client: u32,
    /// The most messages in one connection; then 421 4.7.0.
    pub max_messages_per_connection: u32,
    /// The most refused commands in one connection; then 421 4.7.0.
    pub max_errors: u32,
    /// How long a client may be silent between commands. RFC 5321 §4.5.3.2.7 asks for at least 5 minutes.
    pub command_timeout: HumanDuration,
    /// How long a client may be silent inside a message.
    pub data_timeout: HumanDuration,
    /// The slowest that a message may come in, in octets a second, measured over a minute; then 421 4.4.2.
    pub min_data_rate: u32,
    /// How long a connection may last.
    pub session_timeout: HumanDuration,
    /// The most `Received` fields of a message; more is a loop: 554 5.4.6. RFC 5321 §6.3 asks for at least 100.
    pub max_received: u32,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            max_message_size: ByteSize(25 << 20),
            max_recipients: 1_000,
            max_connections: 1_000,
            max_connections_per_client: 200,
            max_messages_per_connection: 100_000,
            max_errors: 20,
            command_timeout: HumanDuration::secs(300),
            data_timeout: HumanDuration::secs(180),
            min_data_rate: 64,
            session_timeout: HumanDuration::secs(86_400),
            max_received: 100,
        }
    }
}

/// An address where the SMTP server listens.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Listener {
    /// Address and port.
    pub address: SocketAddr,
    /// What it is for. `submission`: AUTH or `relay_from`; `relay`: the same, from servers rather than people;
    /// `bounce`: only our own return paths.
    #[serde(default)]
    pub role: ListenerRole,
    /// `none`, `starttls` or `implicit`. AUTH is offered only under TLS, and in clear on loopback.
    #[serde(default)]
    pub tls: ListenerTls,
    /// Networks whose clients may send without AUTH. Their tenant is that of the reverse-path's domain.
    #[serde(default)]
    pub relay_from: Vec<IpNet>,
}

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerRole {
    /// Applications and people hand in mail (RFC 6409).
    #[default]
    Submission,
    /// Other mail servers hand in mail.
    Relay,
    /// The world returns bounces.
    Bounce,
}

/// The TLS of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTls {
    /// No TLS.
    #[default]
    None,
    /// Offered by STARTTLS (RFC 3207).
    Starttls,
    /// From the first octet (RFC 8314).
    Implicit,
}
