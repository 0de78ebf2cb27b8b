//! `posthaste dkim`: keys to sign with, and the records that publish them.
//!
//! `new`:
//! 1. make the key, and write it to a file of its own that only its owner can read and that was not there before,
//! 2. print the `[[dkim]]` entry and the record.
//!
//! `dns`:
//! 1. read the keys of a configuration, or one key file,
//! 2. print the record of each, from its public half.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::files::{SECRET, make_folder, write_new};
use super::{Exit, print};
use crate::config;
use crate::dkim::{Algorithm, DnsRecord, PrivateKey, dns_record, keygen};
use crate::queue::keys;
use crate::types::Domain;

/// The largest key file that is read, in octets; a larger one is not what it is taken for.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Keys that sign mail, and their DNS records.
#[derive(clap::Subcommand, Debug)]
pub(super) enum DkimCommand {
    New(New),
    Dns(Dns),
}

/// Make a key: a file with the private half, the entry for the configuration and the DNS record.
///
/// The file is PKCS #8 in PEM with mode 0600; nothing that is there is overwritten. Publish the record first, then add the entry
/// and reload: mail signed with a key that nobody can look up counts as unsigned.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste dkim new --domain example.com --selector s1 --out /etc/posthaste/dkim/example.com-s1.pem
  posthaste dkim new --domain example.com --selector e1 --algorithm ed25519-sha256    sign with both")]
pub(super) struct New {
    /// The signing domain.
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
    /// The selector: names the key under the domain, so that several can stand side by side.
    #[arg(long, value_name = "NAME")]
    selector: String,
    /// How it signs. Some receivers can't check Ed25519 yet; RSA has 2,048 bits.
    #[arg(long, value_enum, default_value_t = Kind::RsaSha256)]
    algorithm: Kind,
    /// The file. Default: DOMAIN-SELECTOR.pem in this folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Print the DNS record of each key of a configuration, or of one key file.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste dkim dns --config posthaste.toml
  posthaste dkim dns --config posthaste.toml --domain example.com
  posthaste dkim dns --key example.com-s1.pem --domain example.com --selector s1")]
pub(super) struct Dns {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG", default_value = "/etc/posthaste/posthaste.toml")]
    config: PathBuf,
    /// A key file in place of the configuration; needs --domain and --selector.
    #[arg(long, value_name = "FILE", requires_all = ["domain", "selector"])]
    key: Option<PathBuf>,
    /// The signing domain; with a configuration: only keys of this one.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The selector; with a configuration: only keys of this name.
    #[arg(long, value_name = "NAME")]
    selector: Option<String>,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// The algorithms, by their names in the configuration.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    #[value(name = "rsa-sha256")]
    RsaSha256,
    #[value(name = "ed25519-sha256")]
    Ed25519Sha256,
}

impl From<Kind> for Algorithm {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::RsaSha256 => Algorithm::RsaSha256,
            Kind::Ed25519Sha256 => Algorithm::Ed25519Sha256,
        }
    }
}

impl DkimCommand {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let out = match self {
            DkimCommand::New(new) => new.text()?,
            DkimCommand::Dns(dns) => dns.text()?,
        };
        print(&out)?;
        Ok(Exit::Success)
    }
}

impl New {
    fn text(&self) -> anyhow::Result<String> {
        let domain = parse_domain(&self.domain)?;
        let selector = parse_selector(&self.selector, &domain)?;
        let file = match &self.out {
            Some(file) => file.clone(),
            None => PathBuf::from(format!("{domain}-{selector}.pem")),
        };
        // The entry names the whole path: the configuration may lie in another folder.
        let file = std::path::absolute(&file).with_context(|| format!("the path {}", file.display()))?;
        let made = NewKey::write(&domain, &selector, self.algorithm.into(), &file)?;
        let entry = made.entry(&file);
        if self.json {
            let mut value = record_json(&made.record, &domain, &selector, made.algorithm);
            value["key_file"] = json!(file);
            value["config"] = json!(entry);
            return Ok(serde_json::to_string_pretty(&value)?);
        }
        Ok(format!(
            "Written: {}\n\nPublish this record:\n\n{}\nThen add this to the configuration, and `posthaste reload`:\n\n{entry}",
            file.display(),
            record_text(&made.record),
        ))
    }
}

/// A key that was made and lies in its file.
pub(super) struct NewKey {
    domain: Domain,
    selector: String,
    algorithm: Algorithm,
    /// What is to be published.
    pub(super) record: DnsRecord,
}

impl NewKey {
    /// Makes a key and its file, which must not be there yet.
    pub(super) fn write(domain: &Domain, selector: &str, algorithm: Algorithm, file: &Path) -> anyhow::Result<Self> {
        // Told before the key is made, which takes a while; `write_new` makes sure of it.
        if file.exists() {
            bail!("{} is there already; nothing was changed", file.display());
        }
        let key = keygen(algorithm)?;
        if let Some(folder) = file.parent() {
            make_folder(folder)?;
        }
        write_new(file, SECRET, &key.private_pem)?;
        let record = dns_record(selector, domain, algorithm, &key.public_base64);
        Ok(Self { domain: domain.clone(), selector: selector.to_owned(), algorithm, record })
    }

    /// Its entry of the configuration, with the file named so.
    pub(super) fn entry(&self, file: &Path) -> String {
        // TOML's own quoting: a path may hold anything.
        let file = toml::Value::String(file.display().to_string());
        format!(
            "[[dkim]]\ndomain = \"{}\"\nselector = \"{}\"\nalgorithm = \"{}\"\nkey_file = {file}\n",
            self.domain, self.selector, self.algorithm
        )
    }
}

impl Dns {
    fn text(&self) -> anyhow::Result<String> {
        let found = match &self.key {
            Some(file) => vec![self.of_file(file)?],
            None => self.of_config()?,
        };
        if self.json {
            let records: Vec<Value> =
                found.iter().map(|f| record_json(&f.record, &f.domain, &f.selector, f.algorithm)).collect();
            return Ok(serde_json::to_string_pretty(&records)?);
        }
        Ok(found.iter().map(|f| record_text(&f.record)).collect::<Vec<_>>().join("\n"))
    }

    fn of_file(&self, file: &Path) -> anyhow::Result<NewKey> {
        // clap asks for both.
        let (Some(domain), Some(selector)) = (&self.domain, &self.selector) else {
            bail!("--key needs --domain and --selector");
        };
        let domain = parse_domain(domain)?;
        let selector = parse_selector(selector, &domain)?;
        let pem = read_key(file)?;
        let tried = PrivateKey::from_pem(&pem, Algorithm::RsaSha256)
            .or_else(|why| PrivateKey::from_pem(&pem, Algorithm::Ed25519Sha256).map_err(|_| why));
        let key = tried.with_context(|| format!("{} holds no key for DKIM", file.display()))?;
        let record = dns_record(&selector, &domain, key.algorithm(), &key.public_base64()?);
        Ok(NewKey { domain, selector, algorithm: key.algorithm(), record })
    }

    fn of_config(&self) -> anyhow::Result<Vec<NewKey>> {
        let domain = self.domain.as_deref().map(parse_domain).transpose()?;
        let (config, _) = config::load(&self.config)?;
        let ring = match keys::load(&config).strict() {
            Ok(ring) => ring,
            Err(errors) => bail!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        };
        let mut found = Vec::new();
        for key in ring.keys() {
            let asked = domain.as_ref().is_none_or(|domain| *domain == key.domain)
                && self.selector.as_deref().is_none_or(|selector| *selector == *key.selector);
            // A strict ring has every private key.
            if let (true, Ok(private)) = (asked, &key.private) {
                let record = dns_record(&key.selector, &key.domain, key.algorithm, &private.public_base64()?);
                let (domain, selector) = (key.domain.clone(), key.selector.to_string());
                found.push(NewKey { domain, selector, algorithm: key.algorithm, record });
            }
        }
        if found.is_empty() {
            bail!("{} has no such DKIM key: `posthaste dkim new` makes one", self.config.display());
        }
        Ok(found)
    }
}

fn read_key(file: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut pem = Vec::new();
    let opened = std::fs::File::open(file).and_then(|f| f.take(KEY_FILE_BYTES_MAX).read_to_end(&mut pem));
    opened.with_context(|| format!("can't read {}", file.display()))?;
    Ok(pem)
}

fn parse_domain(text: &str) -> anyhow::Result<Domain> {
    Domain::parse(text).with_context(|| format!("domain {text:?}"))
}

/// RFC 6376 §3.1: a selector is one or more DNS labels; those that the configuration takes.
fn parse_selector(text: &str, domain: &Domain) -> anyhow::Result<String> {
    let selector = text.to_ascii_lowercase();
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !selector.split('.').all(label) || Domain::parse(&format!("{selector}._domainkey.{domain}")).is_err() {
        bail!("selector {text:?}: letters, digits and hyphens, as \"s1\" (RFC 6376 §3.1)");
    }
    Ok(selector)
}

/// The record for people: as a form of a DNS hoster wants it, and as a zone file does.
pub(super) fn record_text(record: &DnsRecord) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "  Name:   {}\n  Type:   TXT\n  Value:  {}\n", record.name, record.value);
    let _ = writeln!(out, "As a line of a zone file:\n\n{}", record.zone_line);
    out
}

fn record_json(record: &DnsRecord, domain: &Domain, selector: &str, algorithm: Algorithm) -> Value {
    json!({
        "domain": domain.as_str(),
        "selector": selector,
        "algorithm": algorithm.as_str(),
        "record": { "name": record.name, "type": "TXT", "value": record.value, "zone_line": record.zone_line },
    })
}

#[cfg(test)]
mod tests;
