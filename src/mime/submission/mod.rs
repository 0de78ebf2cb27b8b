//! A submitted message's header: read once, then edited in place.
//!
//! 1. [`parse`] reads the header fields once, refuses what is malformed, and notes what is missing, what has to go and
//!    what steers us,
//! 2. intake decides,
//! 3. [`trace_fields`] writes `Received`, and Date and Message-ID where they are missing,
//! 4. [`assemble`] puts them in front and takes out what has to go.
//!
//! Nothing else is touched (RFC 6409 §8): a message that its author signed stays as it was signed. The body is not moved
//! when the buffer has room in front.

mod encoded_word;
mod from;
mod header;
mod rewrite;
mod steering;

#[cfg(test)]
mod tests;

pub use header::{HEADER_LINES_MAX, HEADER_OCTETS_MAX, Parsed, parse};
pub use rewrite::{Trace, assemble, trace_fields};
pub use steering::{METADATA_MAX, Steering, TAGS_MAX};

/// Why a message's header is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// More octets or lines than the limit: 552 5.3.4.
    #[error("the header is too large: at most {HEADER_LINES_MAX} lines and {HEADER_OCTETS_MAX} octets are accepted")]
    TooLarge,
    /// It is not a header: 550 5.6.0. Names the field or line.
    #[error("{0}")]
    Malformed(String),
}

impl HeaderError {
    fn field(name: &str, what: impl std::fmt::Display) -> Self {
        HeaderError::Malformed(format!("{name}: {what}"))
    }
}
