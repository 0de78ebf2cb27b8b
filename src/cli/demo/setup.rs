//! The stage of the demo: folder, providers, config.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::sandbox::{Endpoint, Profile, Sink};
use crate::seam::random;

/// Who sends.
pub(super) const SENDER: &str = "news@shop.demo.example";
/// Domains that share the small strict host.
const OTHER_DOMAINS: u64 = 10;

/// The providers: name, domain, share in percent. The last one has the rest, under several domains.
pub(super) const PROVIDERS: [(&str, &str, u64); 4] = [
    ("gmail-like", "gmail.demo.example", 45),
    ("yahoo-like", "yahoo.demo.example", 20),
    ("outlook-like", "outlook.demo.example", 20),
    ("strict others", "others.demo.example", 15),
];

/// Which provider the message with this number goes to: a place in [`PROVIDERS`].
pub(super) fn provider_of(number: u64) -> usize {
    // 37 has no factor in common with 100, so a hundred messages in a row meet each provider by its share.
    let place = number * 37 % 100;
    let mut end = 0;
    PROVIDERS
        .iter()
        .position(|(_, _, share)| {
            end += share;
            place < end
        })
        .unwrap_or(PROVIDERS.len() - 1)
}

/// Which provider a domain belongs to.
pub(super) fn provider_of_domain(domain: &str) -> usize {
    PROVIDERS.iter().position(|(_, of, _)| *of == domain).unwrap_or(PROVIDERS.len() - 1)
}

/// Writes the recipient of the message with this number.
pub(super) fn write_recipient(number: u64, out: &mut Vec<u8>) {
    let provider = provider_of(number);
    let domain = PROVIDERS[provider].1;
    let address = if provider == PROVIDERS.len() - 1 {
        format!("reader{number}@d{}.{domain}", number % OTHER_DOMAINS)
    } else {
        format!("reader{number}@{domain}")
    };
    out.extend_from_slice(address.as_bytes());
}

/// Everything that is there before the daemon; the folder goes when it is dropped.
pub(super) struct Stage {
    folder: PathBuf,
    sink: Sink,
    smtp: SocketAddr,
    http: SocketAddr,
    public: SocketAddr,
    api_key: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What can't be removed is left to the system's own cleaning of its temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Stage {
    /// Makes the folder, starts the providers, writes the config.
    pub fn set(seed: u64, dkim_key: Option<&str>) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("posthaste-demo-{:016x}", random::u128() as u64));
        make_private_folder(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let providers = [Profile::gmail_like(), Profile::yahoo_like(), Profile::outlook_like(), Profile::strict()];
        let mut profiles = providers.map(|profile| Profile { seed, ..profile }).to_vec();
        // After the providers: where the shop itself gets the reports of failed mail.
        profiles.push(Profile::accepting("shop"));
        let sink = start_sink(profiles)?;
        let api_key = format!("demo-{:032x}", random::u128());
        let stage =
            Self { folder, sink, smtp: free_address()?, http: free_address()?, public: free_address()?, api_key };
        if let Some(pem) = dkim_key {
            write_private(&stage.folder.join("dkim.pem"), pem)?;
        }
        std::fs::write(stage.config_file(), stage.config(dkim_key.is_some()))?;
        Ok(stage)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.join("posthaste.toml")
    }

    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    pub fn smtp(&self) -> SocketAddr {
        self.smtp
    }

    pub fn http(&self) -> SocketAddr {
        self.http
    }

    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The config: short retries, so that what is deferred comes to its end while one looks on.
    pub fn config(&self, dkim: bool) -> String {
        let data = toml::Value::String(self.folder.join("data").display().to_string());
        let sha256: String = Sha256::digest(self.api_key.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        let mut text = format!(
            r#"# Made by `posthaste demo`.
hostname = "mta.demo.example"
data_dir = {data}

[[smtp.listeners]]
address = "{smtp}"
role = "submission"
tls = "none"
relay_from = ["127.0.0.0/8"]

[http]
address = "{http}"
api_keys = [{{ name = "demo", sha256 = "{sha256}", role = "admin" }}]

[public]
address = "{public}"
url = "https://links.shop.demo.example"

[[tenants]]
name = "shop"
domains = ["shop.demo.example"]
bounce_domain = "bounce.shop.demo.example"

[retry]
schedule = ["1s", "2s", "4s"]
expire_after = "1h"
delay_notice_after = "0s"

[shaping.default]
connections = 20
connection_rate = "1000/s"
message_rate = "10000/s"
messages_per_connection = 1000

[storage]
min_free = "64MiB"

[log]
level = "error"

# The reports of failed mail go back to the shop.
[routes."shop.demo.example"]
hosts = ["{shop}"]
tls = "none"
"#,
            smtp = self.smtp,
            http = self.http,
            public = self.public,
            shop = self.sink.address(PROVIDERS.len()),
        );
        for (number, (name, domain, _)) in PROVIDERS.iter().enumerate() {
            let pattern = if number == PROVIDERS.len() - 1 { "*" } else { domain };
            let (connections, messages) = [(5, 50), (10, 20), (5, 50), (10, 100)][number];
            text.push_str(&format!(
                "\n# {name}\n[routes.\"{pattern}\"]\nhosts = [\"{}\"]\ntls = \"none\"\nconnections = {connections}\n\
                 messages_per_connection = {messages}\n",
                self.sink.address(number)
            ));
        }
        if dkim {
            text.push_str(
                "\n[[dkim]]\ndomain = \"shop.demo.example\"\nselector = \"demo\"\nalgorithm = \"ed25519-sha256\"\n\
                 key_file = \"dkim.pem\"\n",
            );
        }
        text
    }

    /// Where everything is, and what to try.
    pub fn directions(&self) -> String {
        let (host, port) = (self.smtp.ip(), self.smtp.port());
        format!(
            "\nEverything stays up until Ctrl-C.\n\n  SMTP      {smtp}   (relay from loopback, as {SENDER})\n  \
             HTTP      http://{http}   (API and /metrics)\n  API key   {key}\n  config    {config}\n\nTry:\n  \
             posthaste --help\n  posthaste queue summary --config {config}\n  posthaste message trace \
             reader0@{gmail} --config {config}\n  swaks --server {host} --port {port} --from {SENDER} --to \
             you@{gmail}\n  curl -H 'Authorization: Bearer {key}' 'http://{http}/v1/events?after=0&limit=5'\n  curl \
             http://{http}/metrics\n",
            smtp = self.smtp,
            http = self.http,
            key = self.api_key,
            config = self.config_file().display(),
            gmail = PROVIDERS[0].1,
        )
    }
}

/// Each provider on an address of its own where the system has all of 127.0.0.0/8, as Linux does; else on 127.0.0.1.
fn start_sink(profiles: Vec<Profile>) -> anyhow::Result<Sink> {
    let endpoints = |own_addresses: bool| {
        let place = |(n, profile): (usize, Profile)| {
            let last = if own_addresses { n as u8 + 2 } else { 1 };
            Endpoint { address: SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)), profile, tls: None }
        };
        profiles.iter().cloned().enumerate().map(place).collect()
    };
    Sink::start(endpoints(true))
        .or_else(|_| Sink::start(endpoints(false)))
        .context("can't start the simulated providers")
}

/// A loopback address with a port that is free now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}

#[cfg(unix)]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir(folder)
}

fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    std::io::Write::write_all(&mut options.open(file)?, text.as_bytes())
}
