//! Names that an operator or an application gives to things: tenants, pools, sources, campaigns, tags.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
///
/// Safe as a label of a metric, a part of a file name, a field of a log line and a query parameter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than [`Name::LEN_MAX`] characters.
    #[error("a name has 1 to 64 characters")]
    Length,
    /// A character outside the allowed set, or a first one that is neither letter nor digit.
    #[error("a name has only letters, digits, '.', '_' and '-', and begins with a letter or digit")]
    Character,
}

impl Name {
    /// The longest name, in characters.
    pub const LEN_MAX: usize = 64;

    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > Self::LEN_MAX {
            return Err(NameError::Length);
        }
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !text.bytes().all(ok) || !text.as_bytes()[0].is_ascii_alphanumeric() {
            return Err(NameError::Character);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
