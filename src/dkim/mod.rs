//! DKIM signing (RFC 6376, 8301, 8463).
//!
//! 1. A [`PrivateKey`] is parsed once from PEM (or made by [`keygen`], with the record to publish from [`dns_record`]),
//! 2. the keys of a configuration make a [`KeyRing`], indexed by sender domain,
//! 3. for each message the ring names the keys that sign it ([`KeyRing::for_message`]): those that `sign_for` matches, of each
//!    (signing domain, algorithm) the newest that is active,
//! 4. [`sign()`] canonicalises once (relaxed/relaxed), whatever the number of keys, and gives one DKIM-Signature field a key,
//!    to be sent before the message.
//!
//! Success means: these very octets verify. The message must be in the form in which it goes out: CRLF line ends, final CRLF.
//!
//! Why not the signer of `mail-auth`: it signs each field once (no oversigning), takes its time from the system's clock, makes
//! the canonical form anew for each key, and hashes bodies that end in lines of white space in a form that other verifiers
//! reject. What is left, the signature itself, comes from aws-lc-rs, the provider that rustls uses too.

mod canonical;
mod key;
mod record;
mod ring;
mod sign;

pub use key::{Algorithm, GeneratedKey, KeyError, PrivateKey, RSA_BITS_MIN, keygen};
pub use record::{DnsRecord, TXT_STRING_MAX, dns_record};
pub use ring::{Key, KeyRing, KeySpec, SignFor};
pub use sign::{SignError, sign, sign_parts};

#[cfg(test)]
mod tests;
