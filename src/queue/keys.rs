//! The DKIM keys of a configuration, read from their files.
//!
//! A start or a reload reads all of them ([`load`]). A key that can't be used is reported, with file and reason; the ring holds
//! its place, so that its mail waits where the daemon runs on without it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, DkimAlgorithm, DkimKey};
use crate::dkim::{Algorithm, Key, KeyRing, KeySpec, PrivateKey, SignFor};
use crate::types::{Domain, Timestamp};

/// The largest key file that is read, in octets; an RSA key of 8,192 bits in PEM has about 6,400.
const KEY_FILE_MAX: u64 = 64 << 10;

/// A key that can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("DKIM key d={domain} s={selector}, {}: {reason}", file.display())]
pub struct KeyFileError {
    /// The signing domain.
    pub domain: Domain,
    /// The selector.
    pub selector: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What [`load`] gives: the ring, and what is wrong with some of its keys.
#[derive(Debug, Default)]
pub struct LoadedKeys {
    /// All keys; mail of those that can't be used waits.
    pub ring: KeyRing,
    /// Those that can't be used.
    pub errors: Vec<KeyFileError>,
}

impl LoadedKeys {
    /// The ring if every key can be used, else what is wrong: for a start, a reload and `posthaste check`.
    pub fn strict(self) -> Result<KeyRing, Vec<KeyFileError>> {
        if self.errors.is_empty() { Ok(self.ring) } else { Err(self.errors) }
    }
}

/// Reads all keys of a configuration. Blocks: about 0.1 ms a key.
pub fn load(config: &Config) -> LoadedKeys {
    let mut errors = Vec::new();
    let mut specs = Vec::with_capacity(config.dkim.len());
    for entry in &config.dkim {
        let mut problem = |reason: String| {
            errors.push(KeyFileError {
                domain: entry.domain.clone(),
                selector: entry.selector.clone(),
                file: entry.key_file.clone(),
                reason,
            });
        };
        let algorithm = algorithm(entry.algorithm);
        let private = checked(entry).and_then(|()| read(&entry.key_file, algorithm));
        if let Err(reason) = &private {
            problem(reason.clone());
        }
        let mut sign_for = Vec::with_capacity(entry.sign_for.len());
        for text in &entry.sign_for {
            match SignFor::parse(text) {
                Ok(rule) => sign_for.push(rule),
                Err(error) => problem(format!("sign_for {text:?}: {error}")),
            }
        }
        let active_from = active_from(entry).unwrap_or_else(|reason| {
            problem(reason);
            Some(Timestamp::NEVER)
        });
        let key = Key {
            domain: entry.domain.clone(),
            selector: entry.selector.as_str().into(),
            algorithm,
            active_from,
            private: private.map_err(Into::into),
        };
        specs.push(KeySpec { key, sign_for });
    }
    LoadedKeys { ring: KeyRing::new(specs), errors }
}

/// The algorithm of a key of the configuration.
pub fn algorithm(algorithm: DkimAlgorithm) -> Algorithm {
    match algorithm {
        DkimAlgorithm::RsaSha256 => Algorithm::RsaSha256,
        DkimAlgorithm::Ed25519Sha256 => Algorithm::Ed25519Sha256,
    }
}

/// The selector gets into a header field and a DNS name.
fn checked(entry: &DkimKey) -> Result<(), String> {
    let label_ok = |label: &str| {
        matches!(label.len(), 1..=63) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if entry.selector.len() <= 200 && entry.selector.split('.').all(label_ok) {
        Ok(())
    } else {
        Err(format!("selector {:?}: labels of letters, digits, '-' and '_', separated by dots", entry.selector))
    }
}

fn active_from(entry: &DkimKey) -> Result<Option<Timestamp>, String> {
    let Some(text) = &entry.active_from else { return Ok(None) };
    let at: jiff::Timestamp =
        text.parse().map_err(|_| format!("active_from {text:?}: not a time as 2026-12-01T00:00:00Z (RFC 3339)"))?;
    Ok(Some(Timestamp::from_millis(u64::try_from(at.as_millisecond()).unwrap_or(0))))
}

fn read(path: &Path, algorithm: Algorithm) -> Result<PrivateKey, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let metadata = file.metadata().map_err(|e| e.to_string())?;
    // What the service manager hands over is guarded by its folder; it shows an access list as the group's bits.
    let from_manager = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder));
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 && !from_manager {
        return Err(format!("group or world can read or write it (mode {mode:04o}); chmod 600 it"));
    }
    let mut pem = Vec::new();
    file.take(KEY_FILE_MAX).read_to_end(&mut pem).map_err(|e| e.to_string())?;
    PrivateKey::from_pem(&pem, algorithm).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::keygen;

    fn entry(file: &Path) -> DkimKey {
        DkimKey {
            domain: Domain::parse("acme.example").expect("valid"),
            selector: "s1".into(),
            algorithm: DkimAlgorithm::Ed25519Sha256,
            key_file: file.to_owned(),
            sign_for: Vec::new(),
            active_from: None,
        }
    }

    fn check_error(entry: DkimKey, want: &str) {
        let loaded = load(&Config { dkim: vec![entry], ..Config::default() });
        assert_eq!(loaded.ring.keys().len(), 1, "the ring keeps the place of a broken key");
        let text = loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains(want), "{text}");
        assert!(loaded.strict().is_err());
    }

    #[test]
    fn each_problem_names_the_file_and_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = folder.path().join("good.pem");
        std::fs::write(&good, keygen(Algorithm::Ed25519Sha256).expect("a key").private_pem).expect("written");
        let mode = |mode| std::fs::set_permissions(&good, std::fs::Permissions::from_mode(mode)).expect("set");
        mode(0o644);
        check_error(entry(&good), "good.pem: group or world can read or write it (mode 0644)");
        mode(0o600);
        let ring = load(&Config { dkim: vec![entry(&good)], ..Config::default() }).strict().expect("good");
        assert!(ring.keys()[0].private.is_ok());
        check_error(entry(&folder.path().join("none.pem")), "none.pem: No such file");
        check_error(DkimKey { algorithm: DkimAlgorithm::RsaSha256, ..entry(&good) }, "not a usable rsa-sha256 key");
        check_error(DkimKey { selector: "a b".into(), ..entry(&good) }, "selector \"a b\"");
        check_error(DkimKey { sign_for: vec!["a..b".into()], ..entry(&good) }, "sign_for \"a..b\"");
        check_error(DkimKey { active_from: Some("soon".into()), ..entry(&good) }, "active_from \"soon\"");
    }
}
