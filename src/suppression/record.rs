//! Entries, and how they stand in the store.
//!
//! - key: owner (a tenant's name; nothing for the node) `0`, keyed hash of the address (16), reason (1), name of the list (nothing for
//!   all of the owner's mail)
//! - value, version 1: version (1), since (8), expires (8; 0 for never), then address, source and note, each with its length (2). An
//!   erased entry has an empty address.

use std::fmt;

use crate::types::{AddressHash, Class, Mailbox, Name, Timestamp};

/// The version of the value that is written.
const VERSION: u8 = 1;

/// The longest source or note, in octets; what is longer is cut.
pub const TEXT_MAX: usize = 500;

/// Why an address is suppressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The mailbox does not exist.
    HardBounce,
    /// The recipient reported a mail as unwanted.
    Complaint,
    /// The recipient unsubscribed.
    Unsubscribe,
    /// An operator or application said so.
    Manual,
}

impl Reason {
    /// All reasons, the weightiest first.
    pub const ALL: [Reason; 4] = [Reason::Complaint, Reason::HardBounce, Reason::Manual, Reason::Unsubscribe];

    /// The name as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::HardBounce => "hard_bounce",
            Reason::Complaint => "complaint",
            Reason::Unsubscribe => "unsubscribe",
            Reason::Manual => "manual",
        }
    }

    /// Whether mail of this class is held back for it.
    pub fn blocks(self, class: Class) -> bool {
        match (self, class) {
            (Reason::HardBounce | Reason::Complaint | Reason::Manual, _) => true,
            (Reason::Unsubscribe, Class::Marketing) => true,
            (Reason::Unsubscribe, Class::Transactional) => false,
        }
    }

    /// In keys on disk: never to be changed.
    fn byte(self) -> u8 {
        match self {
            Reason::HardBounce => 1,
            Reason::Complaint => 2,
            Reason::Unsubscribe => 3,
            Reason::Manual => 4,
        }
    }

    fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.byte() == byte)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str().eq_ignore_ascii_case(text));
        known.ok_or_else(|| "expected hard_bounce, complaint, unsubscribe or manual".into())
    }
}

/// How far an entry reaches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// All mail of the node.
    Global,
    /// All mail of a tenant.
    Tenant(Name),
    /// A tenant's mail to one of its lists.
    List {
        /// The tenant.
        tenant: Name,
        /// The list.
        list: Name,
    },
}

impl Scope {
    /// A tenant's, or one of its lists'.
    pub fn of(tenant: Name, list: Option<Name>) -> Self {
        match list {
            Some(list) => Scope::List { tenant, list },
            None => Scope::Tenant(tenant),
        }
    }

    /// `global`, `tenant` or `list`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Scope::Global => "global",
            Scope::Tenant(_) => "tenant",
            Scope::List { .. } => "list",
        }
    }

    /// Whose it is; `None` for the node's.
    pub fn tenant(&self) -> Option<&Name> {
        match self {
            Scope::Global => None,
            Scope::Tenant(tenant) | Scope::List { tenant, .. } => Some(tenant),
        }
    }

    /// The list, where it reaches no further.
    pub fn list(&self) -> Option<&Name> {
        match self {
            Scope::Global | Scope::Tenant(_) => None,
            Scope::List { list, .. } => Some(list),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Global => f.write_str("global"),
            Scope::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Scope::List { tenant, list } => write!(f, "list {list} of {tenant}"),
        }
    }
}

/// One entry: an address, how far, why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// How far it reaches.
    pub scope: Scope,
    /// Why.
    pub reason: Reason,
    /// The address as it was given; `None` once it was erased.
    pub address: Option<Mailbox>,
    /// Its keyed hash.
    pub hash: AddressHash,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` for good.
    pub expires: Option<Timestamp>,
    /// Who or what made it: a key's name, a link, an event.
    pub source: Box<str>,
    /// Whatever is worth knowing.
    pub note: Box<str>,
}

impl Entry {
    /// Whether it blocks anything at this time.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|at| at > now)
    }

    pub(super) fn key(&self) -> Vec<u8> {
        key(self.scope.tenant(), &self.hash, self.reason, self.scope.list())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let address = self.address.as_ref().map_or("", Mailbox::as_str);
        let mut out = Vec::with_capacity(24 + address.len() + self.source.len() + self.note.len());
        out.push(VERSION);
        out.extend_from_slice(&self.since.as_millis().to_be_bytes());
        out.extend_from_slice(&self.expires.map_or(0, Timestamp::as_millis).to_be_bytes());
        for text in [address, cut(&self.source), cut(&self.note)] {
            // An address has at most 64 + 1 + 1000 octets, and the others are cut.
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (tenant, hash) = owner_and_hash(key)?;
        let (reason, list) = key[tenant.len() + 1 + 16..].split_first()?;
        let tenant = if tenant.is_empty() { None } else { Some(Name::parse(tenant).ok()?) };
        let list = if list.is_empty() { None } else { Some(Name::parse(std::str::from_utf8(list).ok()?).ok()?) };
        let scope = match (tenant, list) {
            (None, None) => Scope::Global,
            (None, Some(_)) => return None,
            (Some(tenant), list) => Scope::of(tenant, list),
        };
        let (since, mut rest) = value.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let mut texts = [""; 3];
        let expires = expires(value)?;
        rest = rest.get(8..)?;
        for text in &mut texts {
            let (len, after) = rest.split_first_chunk()?;
            let (octets, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            *text = std::str::from_utf8(octets).ok()?;
            rest = after;
        }
        let [address, source, note] = texts;
        Some(Self {
            scope,
            reason: Reason::of_byte(*reason)?,
            address: if address.is_empty() { None } else { Some(Mailbox::parse(address).ok()?) },
            hash,
            since: Timestamp::from_millis(u64::from_be_bytes(*since)),
            expires,
            source: source.into(),
            note: note.into(),
        })
    }
}

/// When a record expires, without reading the rest of it; `None` when it is not readable.
pub(super) fn expires(value: &[u8]) -> Option<Option<Timestamp>> {
    let at = u64::from_be_bytes(*value.strip_prefix(&[VERSION])?.get(8..)?.first_chunk()?);
    Some((at != 0).then_some(Timestamp::from_millis(at)))
}

/// The owner in a key (`""` for the node), and the hash.
pub(super) fn owner_and_hash(key: &[u8]) -> Option<(&str, AddressHash)> {
    let end = key.iter().position(|b| *b == 0)?;
    let tenant = std::str::from_utf8(&key[..end]).ok()?;
    Some((tenant, *key[end + 1..].first_chunk()?))
}

/// What all keys of an owner begin with. A name has no NUL, so no tenant's keys mix with another's.
pub(super) fn owner_prefix(owner: Option<&Name>) -> Vec<u8> {
    [owner.map_or("", Name::as_str).as_bytes(), &[0]].concat()
}

/// What all keys of an owner for one address begin with.
pub(super) fn address_prefix(owner: Option<&Name>, hash: &AddressHash) -> Vec<u8> {
    let mut key = owner_prefix(owner);
    key.extend_from_slice(hash);
    key
}

fn key(owner: Option<&Name>, hash: &AddressHash, reason: Reason, list: Option<&Name>) -> Vec<u8> {
    let mut key = address_prefix(owner, hash);
    key.push(reason.byte());
    key.extend_from_slice(list.map_or("", Name::as_str).as_bytes());
    key
}

/// The keys that would block mail of this class, the widest scope first; as many for each address.
pub(super) fn blocking_keys(
    tenant: &Name,
    list: Option<&Name>,
    class: Class,
    hash: &AddressHash,
) -> impl Iterator<Item = Vec<u8>> {
    let scopes = [Some((None, None)), Some((Some(tenant), None)), list.map(|list| (Some(tenant), Some(list)))];
    let reasons = || Reason::ALL.into_iter().filter(move |reason| reason.blocks(class));
    let all: Vec<_> = scopes
        .into_iter()
        .flatten()
        .flat_map(|(owner, list)| reasons().map(move |reason| key(owner, hash, reason, list)))
        .collect();
    all.into_iter()
}

/// A key for a log: the owner and the hash.
pub(super) fn printable_key(key: &[u8]) -> String {
    match owner_and_hash(key) {
        Some((owner, hash)) => format!("{owner} {:032x}", u128::from_be_bytes(hash)),
        None => format!("{} octets", key.len()),
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}
