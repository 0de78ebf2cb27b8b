//! `posthaste init`: a folder with everything that a first start needs.
//!
//! 1. Make the folder, closed to the world, and refuse one that has any of the files already,
//! 2. make the secrets, each in a file of its owner's alone: the admin key, the password of an SMTP user, a DKIM key,
//! 3. write a configuration for loopback, with ports that need no root and hashes of the secrets, and check it as `check` does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::dkim::{NewKey, record_text};
use super::files::{SECRET, make_folder, write_new};
use super::{Exit, hash_password, print};
use crate::config;
use crate::dkim::Algorithm;
use crate::queue::keys;
use crate::types::Domain;

/// The configuration file in the folder.
const CONFIG_FILE: &str = "posthaste.toml";

/// The file with the admin key.
const KEY_FILE: &str = "admin.key";

/// The file with the password of [`SMTP_USER`].
const PASSWORD_FILE: &str = "smtp.password";

/// The user that may send by SMTP.
const SMTP_USER: &str = "app";

/// The selector of the DKIM key.
const SELECTOR: &str = "s1";

/// Make a folder with a configuration that runs.
///
/// The daemon will listen on loopback only, on ports that need no root. Writes into DIR, with secrets for you alone to read:
/// posthaste.toml; admin.key, the key of the HTTP API; smtp.password, of the SMTP user "app"; and a DKIM key in dkim/.
/// Nothing that is there is overwritten.
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
    /// The domain that you send from. Without it every domain is allowed, and the DKIM key is for the host name's domain.
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

/// The secrets of a new configuration, as it names them.
struct Secrets {
    admin_sha256: String,
    password_hash: String,
    dkim_entry: String,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let hostname = match &self.hostname {
            Some(name) => Domain::parse(name).with_context(|| format!("host name {name:?}"))?,
            None => system_hostname().map_or_else(|| Domain::parse("posthaste.localhost"), Ok)?,
        };
        let domain = match &self.domain {
            Some(domain) => Some(Domain::parse(domain).with_context(|| format!("domain {domain:?}"))?),
            None => None,
        };
        let signing = domain.clone().unwrap_or_else(|| mail_domain(&hostname));
        let dkim_file = PathBuf::from(format!("dkim/{signing}-{SELECTOR}.pem"));
        let [file, key_file, password_file, dkim_path] =
            [Path::new(CONFIG_FILE), Path::new(KEY_FILE), Path::new(PASSWORD_FILE), &dkim_file]
                .map(|name| self.dir.join(name));
        let files = [&file, &key_file, &password_file, &dkim_path];
        if let Some(path) = files.iter().find(|path| path.exists()) {
            bail!("{} is there already; nothing was changed", path.display());
        }
        make_folder(&self.dir)?;
        let (key, password) = (format!("ph_{}", random_text()), random_text());
        let dkim = NewKey::write(&signing, SELECTOR, Algorithm::RsaSha256, &dkim_path)?;
        write_new(&key_file, SECRET, &format!("{key}\n"))?;
        write_new(&password_file, SECRET, &format!("{password}\n"))?;
        let secrets = Secrets {
            admin_sha256: sha256_hex(&key),
            password_hash: hash_password::hash(&password)?,
            dkim_entry: dkim.entry(&dkim_file),
        };
        // The configuration comes last: where it is, everything is.
        write_new(&file, 0o640, &self.config_text(&hostname, domain.as_ref(), &secrets))?;
        let warnings = check(&file)?;
        let mut out = String::from("Written:\n");
        for path in files {
            let _ = writeln!(out, "  {}", path.display());
        }
        for warning in warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        let _ = write!(
            out,
            "\nThe admin key of the HTTP API, not shown again (it is in {key_file}):\n  {key}\n\n\
             Publish this record, so that receivers can check the signatures:\n\n{record}\n\
             Next:\n  posthaste serve --config {file}\n  \
             posthaste send --server 127.0.0.1:{port} -f you@{signing} somebody@example.org < message.eml\n\
             Programs that log in do so as {SMTP_USER:?}, with the password in {password_file}.\n",
            key_file = key_file.display(),
            password_file = password_file.display(),
            record = record_text(&dkim.record),
            file = file.display(),
            port = self.smtp_port,
        );
        print(&out)?;
        Ok(Exit::Success)
    }

    fn config_text(&self, hostname: &Domain, domain: Option<&Domain>, secrets: &Secrets) -> String {
        let data_dir = self.data_dir.as_deref().unwrap_or(Path::new("data"));
        let data_dir = toml::Value::String(data_dir.display().to_string());
        let Secrets { admin_sha256, password_hash, dkim_entry } = secrets;
        let mut out = format!(
            "# Posthaste, made by `posthaste init`. All keys: `posthaste config reference`.\n\
             # After a change: `posthaste check --config {CONFIG_FILE}`, then `posthaste reload`.\n\n\
             hostname = \"{hostname}\"\ndata_dir = {data_dir}\n\n\
             # Programs on this machine may send without a password.\n\
             [[smtp.listeners]]\naddress = \"127.0.0.1:{}\"\nrelay_from = [\"127.0.0.0/8\"]\n\n\
             # API, metrics and health. The key itself is in {KEY_FILE}.\n\
             [http]\naddress = \"127.0.0.1:{}\"\n\
             api_keys = [{{ name = \"admin\", sha256 = \"{admin_sha256}\", role = \"admin\" }}]\n\n",
            self.smtp_port, self.http_port,
        );
        out.push_str(&match domain {
            Some(domain) => format!(
                "[[tenants]]\nname = \"main\"\ndomains = [\"{domain}\"]\n# bounce_domain = \"bounce.{domain}\"\n"
            ),
            None => "[[tenants]]\nname = \"main\"\n# Every domain; better name your own.\ndomains = [\"*\"]\n".into(),
        });
        let _ = write!(
            out,
            "# The password is in {PASSWORD_FILE}.\n\
             smtp_users = [{{ name = \"{SMTP_USER}\", password_hash = \"{password_hash}\" }}]\n\n\
             # `posthaste dkim dns --config {CONFIG_FILE}` prints the record to publish.\n{dkim_entry}"
        );
        out
    }
}

/// What was written must load as the daemon loads it; answers the warnings.
fn check(file: &Path) -> anyhow::Result<Vec<config::Warning>> {
    let (config, warnings) = match config::load(file) {
        Ok(loaded) => loaded,
        Err(errors) => bail!("what was written is wrong:\n{errors}"),
    };
    match keys::load(&config).strict() {
        Ok(_) => Ok(warnings),
        Err(errors) => bail!("what was written is wrong: {}", errors[0]),
    }
}

/// The domain whose mail a host most likely sends: `example.com` of `mta1.example.com`, but never a top level.
fn mail_domain(hostname: &Domain) -> Domain {
    let parent = hostname.as_str().split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
    parent.and_then(|parent| Domain::parse(parent).ok()).unwrap_or_else(|| hostname.clone())
}

/// A secret of 256 random bits, of letters, digits, `-` and `_`.
fn random_text() -> String {
    let mut bytes = [0; 32];
    crate::seam::random::fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernel's host name, where it is a full one.
fn system_hostname() -> Option<Domain> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = Domain::parse(name.trim()).ok()?;
    name.as_str().contains('.').then_some(name)
}

#[cfg(test)]
mod tests;
