//! What decides which queue a recipient waits in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{Domain, Name};

/// How urgent mail is, and which rules of law and courtesy it is under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Mail that somebody waits for: receipts, passwords, our own notifications. Its lane passes bulk.
    #[default]
    Transactional,
    /// Mail to many: newsletters and campaigns.
    Marketing,
}

impl Class {
    /// The class as it is written in headers, the config and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Transactional => "transactional",
            Class::Marketing => "marketing",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.to_ascii_lowercase().as_str() {
            "transactional" => Ok(Class::Transactional),
            "marketing" => Ok(Class::Marketing),
            _ => Err(format!("unknown class {s:?}: transactional or marketing")),
        }
    }
}

/// The key of a queue: recipients with the same key wait in one queue, ordered by due time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct QueueKey {
    /// The class of the mail.
    pub class: Class,
    /// Who sends.
    pub tenant: Name,
    /// The campaign that the mail belongs to, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub campaign: Option<Name>,
    /// The pool of sources that sends it.
    pub pool: Name,
    /// The recipients' domain.
    pub domain: Domain,
}

impl fmt::Display for QueueKey {
    /// `tenant/pool/class/campaign/domain`; a `-` stands for no campaign.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let campaign = self.campaign.as_ref().map_or("-", Name::as_str);
        write!(f, "{}/{}/{}/{campaign}/{}", self.tenant, self.pool, self.class, self.domain)
    }
}
