//! Webhooks: who is told of events.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HumanDuration;
use crate::event::EventKind;
use crate::types::Name;

/// The most events of a request.
pub const WEBHOOK_BATCH_MAX: u32 = 1_000;

/// The most webhooks of a node: each has a task, and memory for one request.
pub const WEBHOOKS_MAX: usize = 1_000;

/// The longest time that a receiver may be given, in seconds.
pub const WEBHOOK_TIMEOUT_MAX_S: u64 = 120;

/// An endpoint that is sent events by POST. docs/webhooks.md has the whole of it.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Webhook {
    /// Its name: in `posthaste webhook`, in metrics and in `webhook-id`. Another name is another endpoint, with a place of its own in the log.
    pub name: Name,
    /// Whose events it gets. Without it, those of all tenants.
    #[serde(default)]
    pub tenant: Option<Name>,
    /// Where to: `https://` or `http://`, without a user in it. Redirects are not followed.
    pub url: String,
    /// The file with the secret that signs the requests: `whsec_` and the base64 of 24 to 64 octets. Group and world must not be able to read it. With
    /// several lines (four at most) each request bears a signature by each: so a secret is changed without a gap.
    pub secret_file: PathBuf,
    /// A file with the value of an `Authorization` field, where the receiver wants one: `Bearer …`, `Basic …`, `token user:key`. As secret as `secret_file`.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// The form of the body. `posthaste`: a JSON array of events as the API gives them. `listmonk`: its bounce webhook. `mailgun`, `sendgrid`: events
    /// as those send them.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Only these events. Without it, all that the format has a form for.
    #[serde(default)]
    pub events: Vec<EventKind>,
    /// The most events in a request, 1,000 at most; a request is never longer than 512 KiB but for a single event. `listmonk` and `mailgun` take one each.
    #[serde(default = "default_batch")]
    pub batch: u32,
    /// How long a request may take, from the name's look-up to the answer. A slow receiver delays its own events and no others.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,
    /// Whether the URL may lead to a loopback, private or otherwise special address. Without it such a receiver is refused, so that nobody reaches
    /// inner services through a name that he owns.
    #[serde(default)]
    pub allow_private: bool,
}

fn default_batch() -> u32 {
    100
}

fn default_timeout() -> HumanDuration {
    HumanDuration::secs(15)
}

/// What the body of a webhook's request looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// A JSON array of events as the API gives them.
    #[default]
    Posthaste,
    /// listmonk's `/webhooks/bounce`: one bounce or complaint a request.
    Listmonk,
    /// Mailgun's webhooks: one event a request, with its `signature` in the body.
    Mailgun,
    /// SendGrid's event webhook: an array of events.
    Sendgrid,
}

impl WebhookFormat {
    /// The name as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Posthaste => "posthaste",
            Self::Listmonk => "listmonk",
            Self::Mailgun => "mailgun",
            Self::Sendgrid => "sendgrid",
        }
    }
}

impl Webhook {
    /// Scheme, host and port of `url`, and the path with its query; or what is wrong with it.
    pub fn target(&self) -> Result<WebhookTarget, String> {
        WebhookTarget::parse(&self.url)
    }
}

/// A URL that a webhook may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookTarget {
    /// Whether it is `https`.
    pub tls: bool,
    /// The host: a name in lowercase, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The `Host` field: as in the URL.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl WebhookTarget {
    /// Takes `http://` and `https://` with a host; refuses a user, and numbers that some resolvers would take for an address.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: hyper::Uri = url.parse().map_err(|_| format!("{url:?} is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{url:?} does not begin with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host"))?;
        if authority.as_str().contains('@') {
            return Err("a URL here has no user: give authorization_file".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        // RFC 3986 §7.4: `127.1`, `0x7f000001` and `2130706433` are addresses for some and names for others.
        let last = host.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        if host.parse::<std::net::IpAddr>().is_err() && (host.is_empty() || number) {
            return Err(format!("{host:?} is neither a name nor an address"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { tls, host, port, authority: authority.as_str().into(), path: path.into() })
    }

    /// Whether it leads to this machine whatever DNS says: `localhost` and all below it (RFC 6761 §6.3).
    pub fn is_localhost(&self) -> bool {
        self.host == "localhost" || self.host.ends_with(".localhost")
    }
}

/// The most secrets of an endpoint: the new one, the old one, and room.
const SECRETS_MAX: usize = 4;

/// A secret of a webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    /// As it stands in the file.
    pub text: Box<str>,
    /// The octets that it means.
    pub key: Box<[u8]>,
}

impl std::fmt::Debug for WebhookSecret {
    /// Nothing of it: it must not get into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

/// The secrets of a `secret_file`, one a line; at least one. Errors never hold a part of them.
pub fn parse_webhook_secrets(text: &str) -> Result<Vec<WebhookSecret>, String> {
    use base64::Engine;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() || lines.len() > SECRETS_MAX {
        return Err(format!("must hold one secret a line, at most {SECRETS_MAX}"));
    }
    let secret = |line: &str| {
        let encoded = line.strip_prefix("whsec_").ok_or("a secret begins with whsec_")?;
        let key = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| "not base64 behind whsec_")?;
        // Standard Webhooks, "Symmetric": 24 to 64 octets.
        if !(24..=64).contains(&key.len()) {
            return Err("a secret has 24 to 64 octets");
        }
        Ok(WebhookSecret { text: line.into(), key: key.into() })
    };
    lines.into_iter().map(|line| secret(line).map_err(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, want: Option<(bool, &str, u16, &str)>) {
        let got = WebhookTarget::parse(url).ok();
        let got = got.as_ref().map(|t| (t.tls, t.host.as_str(), t.port, t.path.as_str()));
        assert_eq!(got, want, "{url}");
    }

    #[test]
    fn urls() {
        check("https://App.example.com/hook?a=b", Some((true, "app.example.com", 443, "/hook?a=b")));
        check("http://192.0.2.1:8080", Some((false, "192.0.2.1", 8080, "/")));
        check("https://[2001:db8::1]:8443/x", Some((true, "2001:db8::1", 8443, "/x")));
        check("https://app.example.com./x", Some((true, "app.example.com", 443, "/x")));
        // What is no URL for us, or is an address in a disguise.
        for bad in [
            "ftp://a.example/",
            "file:///etc/passwd",
            "gopher://a.example:25/",
            "//a.example/",
            "a.example",
            "https:///x",
            "https://user:pass@a.example/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://127.1/",
            "http://0177.0.0.01/",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn secrets() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(parse_webhook_secrets(&format!("{one}\n")).expect("one").len(), 1);
        assert_eq!(parse_webhook_secrets(&format!("{one}\n\n{one}\r\n")).expect("two").len(), 2);
        for bad in ["", "\n", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!", "whsec_YWJj"] {
            let error = parse_webhook_secrets(bad).expect_err(bad);
            assert!(bad.trim().is_empty() || !error.contains(bad), "{error}");
        }
        assert_eq!(format!("{:?}", parse_webhook_secrets(one).expect("one")), "[WebhookSecret]");
    }
}
