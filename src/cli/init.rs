//! `posthaste init`: a folder with everything that a first start needs.
//!
//! 1. Make the folder, open to its owner alone, and refuse one that has a configuration already,
//! 2. make an admin key: the key itself into `admin.key`, its hash into the configuration,
//! 3. write a configuration for loopback, with ports that need no root, and check it as `check` does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::files::{SECRET, make_folder, write_new};
use super::{Exit, print};
use crate::config;
use crate::types::Domain;

/// The configuration file in the folder.
const CONFIG_FILE: &str = "posthaste.toml";

/// The file with the admin key.
const KEY_FILE: &str = "admin.key";

/// Make a folder with a configuration that runs.
///
/// The daemon will listen on loopback only, on ports that need no root. Writes posthaste.toml and admin.key (the key of the HTTP
/// API, for you alone) into DIR. Nothing that is there is overwritten.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste init ./mail
  posthaste init /etc/posthaste --hostname mta1.example.com --domain example.com --data-dir /var/lib/posthaste")]
pub(super) struct Init {
    /// The folder; made where it does not exist.
    dir: PathBuf,
    /// The name of this host. Default: the system's, where it is a full name.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// The domain that you send from. Without it every domain is allowed.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The data folder. Default: `data` in DIR.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port of the SMTP listener, on 127.0.0.1.
    #[arg(long, value_name = "PORT", default_value_t = 2525)]
    smtp_port: u16,
    /// The port of the HTTP listener, on 127.0.0.1.
    #[arg(long, value_name = "PORT", default_value_t = 8025)]
    http_port: u16,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let hostname = match &self.hostname {
            Some(name) => Domain::parse(name).with_context(|| format!("host name {name:?}"))?.to_string(),
            None => system_hostname().unwrap_or_else(|| "posthaste.localhost".into()),
        };
        let domain = match &self.domain {
            Some(domain) => Some(Domain::parse(domain).with_context(|| format!("domain {domain:?}"))?),
            None => None,
        };
        let (file, key_file) = (self.dir.join(CONFIG_FILE), self.dir.join(KEY_FILE));
        for path in [&file, &key_file] {
            if path.exists() {
                bail!("{} is there already; nothing was changed", path.display());
            }
        }
        make_folder(&self.dir)?;
        let key = new_key();
        write_new(&key_file, SECRET, &format!("{key}\n"))?;
        write_new(&file, 0o640, &self.config_text(&hostname, domain.as_ref(), &key))?;
        let warnings = match config::load(&file) {
            Ok((_, warnings)) => warnings,
            Err(errors) => bail!("what was written is wrong:\n{errors}"),
        };
        let mut out = format!("Written: {}, {}\n", file.display(), key_file.display());
        for warning in warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        let _ = write!(
            out,
            "\nThe admin key of the HTTP API, not shown again (it is in {key_file}):\n  {key}\n\n\
             Next:\n  posthaste serve --config {file}\n  posthaste send --server 127.0.0.1:{port} -f you@{domain} somebody@example.org < message.eml\n",
            key_file = key_file.display(),
            file = file.display(),
            port = self.smtp_port,
            domain = domain.as_ref().map_or("example.com", Domain::as_str),
        );
        print(&out)?;
        Ok(Exit::Success)
    }

    fn config_text(&self, hostname: &str, domain: Option<&Domain>, key: &str) -> String {
        let data_dir = self.data_dir.as_deref().unwrap_or(Path::new("data"));
        let mut out = format!(
            "# Posthaste, made by `posthaste init`. All keys: `posthaste config reference`.\n\
             # After a change: `posthaste check --config {CONFIG_FILE}`, then `posthaste reload`.\n\n\
             hostname = {hostname:?}\ndata_dir = {data_dir:?}\n\n\
             # Programs on this machine may send without a password.\n\
             [[smtp.listeners]]\naddress = \"127.0.0.1:{}\"\nrelay_from = [\"127.0.0.0/8\"]\n\n\
             # API, metrics and health. The key itself is in {KEY_FILE}.\n\
             [http]\naddress = \"127.0.0.1:{}\"\n\
             api_keys = [{{ name = \"admin\", sha256 = \"{}\", role = \"admin\" }}]\n",
            self.smtp_port,
            self.http_port,
            sha256_hex(key),
        );
        if let Some(domain) = domain {
            let _ = write!(
                out,
                "\n[[tenants]]\nname = \"main\"\ndomains = [\"{domain}\"]\n# bounce_domain = \"bounce.{domain}\"\n"
            );
        }
        out
    }
}

/// A key that tells what it is when it turns up in a log or a repository: 256 random bits behind a prefix.
fn new_key() -> String {
    let mut bytes = [0; 32];
    crate::seam::random::fill(&mut bytes);
    format!("ph_{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernel's host name, where it is a full one.
fn system_hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = Domain::parse(name.trim()).ok()?;
    name.as_str().contains('.').then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn init(dir: &Path, domain: Option<&str>) -> Init {
        Init {
            dir: dir.to_owned(),
            hostname: Some("mta.example.com".into()),
            domain: domain.map(str::to_owned),
            data_dir: None,
            smtp_port: 2525,
            http_port: 8025,
        }
    }

    #[test]
    fn what_it_writes_loads_and_the_key_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("a/b");
        assert_eq!(init(&dir, Some("example.com")).run().expect("made"), Exit::Success);
        let (config, _) = config::load(&dir.join(CONFIG_FILE)).expect("valid");
        assert_eq!(config.tenants[0].domains, ["example.com"]);
        assert_eq!(config.data_dir, dir.join("data"));
        let key = std::fs::read_to_string(dir.join(KEY_FILE)).expect("read");
        assert_eq!(config.http.expect("there").api_keys[0].sha256, sha256_hex(key.trim()));
        let mode = std::fs::metadata(dir.join(KEY_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn it_overwrites_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(KEY_FILE), "mine").expect("written");
        assert!(init(folder.path(), None).run().is_err());
        assert_eq!(std::fs::read_to_string(folder.path().join(KEY_FILE)).expect("read"), "mine");
        assert!(!folder.path().join(CONFIG_FILE).exists());
    }

    #[test]
    fn the_hash_is_sha256() {
        let want = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(sha256_hex("test"), want);
    }
}
