//! The files that a configuration names, read as the daemon will read them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Check, KeyPath, at};
use crate::config::load::is_unresolved;
use crate::config::source::io_reason;
use crate::config::{DkimAlgorithm, DkimKey};
use crate::types::Domain;

/// The largest key, certificate or password file; a larger one is not what it is taken for.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Check<'_> {
    pub(super) fn tls_files(&mut self) {
        let config = self.config;
        let Some(tls) = &config.tls else { return };
        let (certificate_at, key_at) = (at!["tls", "certificate_file"], at!["tls", "key_file"]);
        let chain = self.read(&certificate_at, &tls.certificate_file, false).and_then(|pem| {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            match chain {
                Ok(chain) if !chain.is_empty() => Some(chain),
                Ok(_) => {
                    self.error(certificate_at, no_pem(&tls.certificate_file, "certificate"), "");
                    None
                }
                Err(e) => {
                    self.error(certificate_at, format!("{}: {e}", tls.certificate_file.display()), "");
                    None
                }
            }
        });
        let Some(key) = self.private_key(&key_at, &tls.key_file) else { return };
        let Some(chain) = chain else { return };
        if let Err(e) = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            let message = match e {
                rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
                e => format!("{} and its key can't be used: {e}", tls.certificate_file.display()),
            };
            self.error(key_at, message, "the first certificate of certificate_file is the host's own");
        }
    }

    pub(super) fn dkim(&mut self) {
        let config = self.config;
        for (i, key) in config.dkim.iter().enumerate() {
            let at = at!["dkim", i];
            if Domain::parse(&format!("{}._domainkey.{}", key.selector, key.domain)).is_err() || key.selector.is_empty()
            {
                self.error(
                    at.join("selector"),
                    format!("{:?} is not a selector", key.selector),
                    "labels of letters, digits and hyphens in lowercase, as \"s1\" (RFC 6376 §3.1)",
                );
            }
            let same = |other: &DkimKey| other.domain == key.domain && other.selector == key.selector;
            if config.dkim[..i].iter().any(same) {
                self.error(
                    at.join("selector"),
                    format!("{} has another key with selector {:?}", key.domain, key.selector),
                    "one DNS record holds one key: give each its own selector",
                );
            }
            for (j, pattern) in key.sign_for.iter().enumerate() {
                let domain = pattern.strip_prefix("*.").unwrap_or(pattern);
                if pattern != "*"
                    && let Err(e) = Domain::parse(domain)
                {
                    let message = format!("{pattern:?}: {e}");
                    self.error(at.join("sign_for").join(j), message, "a domain, \"*.example.com\" or \"*\"");
                }
            }
            if let Some(from) = &key.active_from
                && from.parse::<jiff::Timestamp>().is_err()
            {
                let hint = "as \"2026-11-23T00:00:00Z\" (RFC 3339, with the offset)";
                self.error(at.join("active_from"), format!("{from:?} is not a time"), hint);
            }
            self.dkim_key(&at.join("key_file"), key);
        }
    }

    fn dkim_key(&mut self, at: &KeyPath, key: &DkimKey) {
        let Some(der) = self.private_key(at, &key.key_file) else { return };
        // What rustls can sign with is what aws-lc-rs can: RSA of 2,048 bits or more, and Ed25519.
        let wanted = match key.algorithm {
            DkimAlgorithm::RsaSha256 => SignatureAlgorithm::RSA,
            DkimAlgorithm::Ed25519Sha256 => SignatureAlgorithm::ED25519,
        };
        match aws_lc_rs::sign::any_supported_type(&der) {
            Ok(signer) if signer.algorithm() == wanted => {}
            Ok(signer) => self.error(
                at.clone(),
                format!("{} holds a key of another kind ({:?})", key.key_file.display(), signer.algorithm()),
                "algorithm = \"rsa-sha256\" or \"ed25519-sha256\", as the key is",
            ),
            Err(_) => self.error(
                at.clone(),
                format!("{} holds no key that can sign", key.key_file.display()),
                "RSA of 2,048 to 8,192 bits or Ed25519; `posthaste dkim new` makes one",
            ),
        }
    }

    pub(super) fn password_file(&mut self, at: KeyPath, file: &Path) {
        let Some(text) = self.read(&at, file, true) else { return };
        let text = String::from_utf8_lossy(&text);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.contains(['\n', '\r', '\0']) {
            self.error(at, format!("{} must hold one line: the password", file.display()), "");
        }
    }

    /// The text of a secret file.
    pub(super) fn secret(&mut self, at: &KeyPath, file: &Path) -> Option<String> {
        let octets = self.read(at, file, true)?;
        Some(String::from_utf8_lossy(&octets).into_owned())
    }

    fn private_key(&mut self, at: &KeyPath, file: &Path) -> Option<PrivateKeyDer<'static>> {
        let pem = self.read(at, file, true)?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => Some(key),
            Err(_) => {
                self.error(at.clone(), no_pem(file, "private key"), "PKCS #8, PKCS #1 or SEC 1, without a passphrase");
                None
            }
        }
    }

    /// Reads a file; a secret one must not be open to group or world, unless the service manager handed it over.
    fn read(&mut self, at: &KeyPath, file: &Path, secret: bool) -> Option<Vec<u8>> {
        if is_unresolved(file) || self.was_removed(at) {
            return None;
        }
        let meta = match std::fs::metadata(file) {
            Ok(meta) => meta,
            Err(e) => {
                self.error(at.clone(), format!("can't read {}: {}", file.display(), io_reason(&e)), "");
                return None;
            }
        };
        if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
            self.error(at.clone(), format!("{} is not a file of at most 1 MiB", file.display()), "");
            return None;
        }
        let mode = meta.permissions().mode() & 0o777;
        let handed_over = self.environment.credentials_dir.as_deref().is_some_and(|folder| file.starts_with(folder));
        if secret && mode & 0o077 != 0 && !handed_over {
            self.error(
                at.clone(),
                format!("others can read {} (mode {mode:04o})", file.display()),
                &format!("chmod 600 {}", file.display()),
            );
        }
        match std::fs::read(file) {
            Ok(bytes) => Some(bytes),
            Err(e) => {
                self.error(at.clone(), format!("can't read {}: {}", file.display(), io_reason(&e)), "");
                None
            }
        }
    }
}

fn no_pem(file: &Path, what: &str) -> String {
    format!("{} holds no {what} in PEM form", file.display())
}
