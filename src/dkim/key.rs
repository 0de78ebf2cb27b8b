//! Private keys: parsed from PEM, or made.

use std::fmt;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// The shortest RSA key that is used. RFC 8301 §3.2 allows 1,024 bits and asks for 2,048; receivers treat less as no
/// signature, and aws-lc-rs does not sign with less.
pub const RSA_BITS_MIN: usize = 2_048;

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Algorithm {
    /// `rsa-sha256` (RFC 6376 §3.3.1).
    RsaSha256,
    /// `ed25519-sha256` (RFC 8463).
    Ed25519Sha256,
}

impl Algorithm {
    /// The name in `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// The name in `k=` of the published record.
    pub fn key_type(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a key can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no private key in PEM form.
    #[error("no private key in PEM form (PKCS #8, or PKCS #1 for RSA): {0}")]
    Pem(String),
    /// It is a key of another algorithm, or damaged.
    #[error("not a usable {algorithm} key: {reason}")]
    Rejected {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// What the library says.
        reason: String,
    },
    /// The system gave no randomness, or the key could not be written.
    #[error("a key could not be made")]
    Generate,
}

/// A private key, ready to sign. Its octets can't be read back, and `Debug` shows only the algorithm.
pub struct PrivateKey(Kind);

enum Kind {
    Rsa(Box<rsa::KeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.algorithm())
    }
}

impl PrivateKey {
    /// Parses the first private key of a PEM text: PKCS #8, or PKCS #1 for RSA.
    pub fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|e| KeyError::Pem(e.to_string()))?;
        let rejected = |reason: String| KeyError::Rejected { algorithm, reason };
        match (algorithm, &der) {
            (Algorithm::RsaSha256, PrivateKeyDer::Pkcs8(der)) => {
                rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).map(Self::rsa).map_err(|e| rejected(rsa_reason(e)))
            }
            (Algorithm::RsaSha256, PrivateKeyDer::Pkcs1(der)) => {
                rsa::KeyPair::from_der(der.secret_pkcs1_der()).map(Self::rsa).map_err(|e| rejected(rsa_reason(e)))
            }
            (Algorithm::Ed25519Sha256, PrivateKeyDer::Pkcs8(der)) => {
                // Version 1 has no public key to check against; that is the form that openssl writes.
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                    .map(|key| Self(Kind::Ed25519(Box::new(key))))
                    .map_err(|e| rejected(e.to_string()))
            }
            (_, _) => Err(rejected("the file holds a key of another kind".into())),
        }
    }

    fn rsa(key: rsa::KeyPair) -> Self {
        Self(Kind::Rsa(Box::new(key)))
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Kind::Rsa(_) => Algorithm::RsaSha256,
            Kind::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Its public half for `p=` of the record: base64 of the SubjectPublicKeyInfo for RSA (RFC 6376 §3.6.1), of the 32
    /// octets for Ed25519 (RFC 8463 §4).
    pub fn public_base64(&self) -> Result<String, KeyError> {
        match &self.0 {
            Kind::Rsa(key) => {
                let der: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| KeyError::Generate)?;
                Ok(STANDARD.encode(der.as_ref()))
            }
            Kind::Ed25519(key) => Ok(STANDARD.encode(key.public_key().as_ref())),
        }
    }

    /// The signature of the data whose SHA-256 this is, or `None` when the library fails (which it does for lack of
    /// memory only). RFC 8463 §3: Ed25519 signs the digest as its message.
    pub(super) fn sign_digest(&self, digest: &Digest) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(&RSA_PKCS1_SHA256, digest, &mut signature).ok()?;
                Some(signature)
            }
            Kind::Ed25519(key) => Some(key.try_sign(digest.as_ref()).ok()?.as_ref().to_vec()),
        }
    }

    /// The signature over 32 octets that stand for nothing: what a signature costs at the least, for the bench.
    #[doc(hidden)]
    pub fn sign_bare(&self) -> Option<Vec<u8>> {
        self.sign_digest(&digest(&SHA256, b"bare"))
    }
}

fn rsa_reason(error: aws_lc_rs::error::KeyRejected) -> String {
    match error.to_string().as_str() {
        "TooSmall" => format!("shorter than {RSA_BITS_MIN} bits"),
        other => other.to_owned(),
    }
}

/// A new key.
pub struct GeneratedKey {
    /// PKCS #8 in PEM: for a file that only the daemon's user can read.
    pub private_pem: String,
    /// For `p=` of the record.
    pub public_base64: String,
}

/// Makes a key: RSA of 2,048 bits (which takes tens of milliseconds or more), or Ed25519.
pub fn keygen(algorithm: Algorithm) -> Result<GeneratedKey, KeyError> {
    let (key, der) = match algorithm {
        Algorithm::RsaSha256 => {
            let key = rsa::KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
            let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| KeyError::Generate)?;
            let der = der.as_ref().to_vec();
            (PrivateKey::rsa(key), der)
        }
        Algorithm::Ed25519Sha256 => {
            let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyError::Generate)?;
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(document.as_ref()).map_err(|_| KeyError::Generate)?;
            (PrivateKey(Kind::Ed25519(Box::new(key))), document.as_ref().to_vec())
        }
    };
    Ok(GeneratedKey { private_pem: pem(&der), public_base64: key.public_base64()? })
}

/// PEM (RFC 7468) of a PKCS #8 key.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END PRIVATE KEY-----\n");
    out
}
