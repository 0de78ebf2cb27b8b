//! Who asks: a bearer key over TCP, the peer's credentials over the Unix socket.
//!
//! Keys are known only by their SHA-256. The digest of what is presented is compared with all of them, each in constant
//! time, without an early end, so that neither a match's place nor a near miss shows in the time taken.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tracing::warn;

use super::{Api, Problem};
use crate::config::{Config, Role};
use crate::types::Name;

/// The longest key that is looked at, in octets; keys that we make have 43.
const KEY_LEN_MAX: usize = 512;

/// The other end of a connection; put into each request by the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Over the control socket.
    Unix {
        /// The user of the other process.
        uid: u32,
        /// Whether that is the daemon's user or root.
        admin: bool,
    },
}

/// Who asks, and what it may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The key's name, or the user at the socket: for logs and for "by whom".
    pub name: String,
    /// Whose data it sees; `None` for the node's keys: everybody's.
    pub tenant: Option<Name>,
    /// What it may do.
    pub role: Role,
    /// Where it asks from.
    pub peer: Option<SocketAddr>,
}

impl Caller {
    /// Every role may read: its tenant's data, or everybody's.
    pub fn may_send(&self) -> Result<(), Problem> {
        match self.role {
            Role::Send | Role::Admin => Ok(()),
            Role::Read => Err(Problem::forbidden(format!("key {} may only read", self.name))),
        }
    }

    /// Only the node's admin keys and the control socket.
    pub fn must_be_admin(&self) -> Result<(), Problem> {
        match self.role {
            Role::Admin => Ok(()),
            Role::Send | Role::Read => Err(Problem::forbidden(format!("key {} has not the role admin", self.name))),
        }
    }

    /// The tenant that a question is about: a tenant's key can only ask about its own.
    pub fn scope(&self, asked: Option<Name>) -> Result<Option<Name>, Problem> {
        match (&self.tenant, asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(asked)) if *own == asked => Ok(Some(asked)),
            (Some(_), Some(asked)) => {
                Err(Problem::forbidden(format!("key {} does not belong to tenant {asked}", self.name)))
            }
        }
    }

    /// Whether it may see what belongs to this tenant.
    pub fn sees(&self, tenant: &Name) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }
}

/// All keys of one version of the config.
pub struct Keys {
    config: Arc<Config>,
    keys: Vec<([u8; 32], Caller)>,
}

impl Keys {
    /// The node's and the tenants' keys. One whose digest is not 64 hexadecimal digits matches nothing.
    pub fn of(config: &Arc<Config>) -> Self {
        let node = config.http.iter().flat_map(|http| http.api_keys.iter().map(|key| (key, None)));
        let tenants = config.tenants.iter().flat_map(|t| t.api_keys.iter().map(|key| (key, Some(t.name.clone()))));
        let keys = node
            .chain(tenants)
            .filter_map(|(key, tenant)| {
                // A tenant's key is never admin, whatever the file says: the check of the config refuses it too.
                let role = if tenant.is_some() && key.role == Role::Admin { Role::Send } else { key.role };
                let caller = Caller { name: key.name.to_string(), tenant, role, peer: None };
                Some((from_hex(&key.sha256)?, caller))
            })
            .collect();
        Self { config: Arc::clone(config), keys }
    }

    /// Whether these are the keys of this config.
    pub fn is_of(&self, config: &Arc<Config>) -> bool {
        Arc::ptr_eq(&self.config, config)
    }

    /// Who presents this key.
    pub fn find(&self, presented: &str) -> Option<Caller> {
        let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let (mut found, mut place) = (Choice::from(0), 0_u64);
        for (i, (key, _)) in self.keys.iter().enumerate() {
            let equal = key.ct_eq(&digest);
            place.conditional_assign(&(i as u64), equal);
            found |= equal;
        }
        bool::from(found).then(|| self.keys[place as usize].1.clone())
    }
}

/// 64 hexadecimal digits.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.trim().as_bytes();
    let digit = |b: u8| char::from(b).to_digit(16);
    if text.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(out)
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>().copied();
        if let Some(Peer::Unix { uid, admin }) = peer {
            let name = format!("uid {uid}");
            return match admin {
                true => Ok(Caller { name, tenant: None, role: Role::Admin, peer: None }),
                false => Err(Problem::forbidden(format!("{name} is neither the daemon's user nor root"))),
            };
        }
        let address = match peer {
            Some(Peer::Tcp(address)) => Some(address),
            Some(Peer::Unix { .. }) | None => None,
        };
        let Some(given) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(Problem::unauthorized("an API key is needed: Authorization: Bearer KEY", false));
        };
        let key = given.to_str().ok().and_then(bearer).filter(|key| key.len() <= KEY_LEN_MAX);
        match key.and_then(|key| api.keys().find(key)) {
            Some(caller) => Ok(Caller { peer: address, ..caller }),
            None => {
                // fail2ban reads the address from this line; the key itself is never logged.
                let client = address.map(|a| a.ip().to_string()).unwrap_or_default();
                warn!(%client, "http authentication failed");
                Err(Problem::unauthorized("this API key is not known", true))
            }
        }
    }
}

/// The credentials of `Bearer …`; the scheme's name is case-insensitive (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
