//! `posthaste providers`: who is known, and what holds towards them, with the place where each value is set.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::{Exit, print};
use crate::config::{self, Config, Environment, OTHER, Places, Provider};
use crate::types::{Domain, nearest};

/// Mailbox providers: their hosts, limits and demands.
///
/// Everything comes from the configuration and the built-in file; the daemon is not asked.
#[derive(clap::Subcommand, Debug)]
pub(super) enum ProvidersCommand {
    /// List all providers.
    List(List),
    /// Show what holds towards a provider or a domain, and the file and line where each value is set.
    Show(Show),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG", default_value = "/etc/posthaste/posthaste.toml")]
    config: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// The provider.
    #[arg(required_unless_present = "domain", conflicts_with = "domain")]
    name: Option<String>,
    /// The provider of this recipient domain.
    #[arg(long)]
    domain: Option<String>,
    /// An MX host of the domain, as the DNS gives it; without one only the domains that providers name are known.
    #[arg(long, value_name = "HOST", requires = "domain")]
    mx: Vec<String>,
    /// The configuration.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG", default_value = "/etc/posthaste/posthaste.toml")]
    config: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// A setting, its value, and where it is set.
type Setting = (&'static str, String, String);

/// What a value without a line of its own is set by.
const BUILT_IN_DEFAULT: &str = "built-in default";

impl ProvidersCommand {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self {
            ProvidersCommand::List(list) => list.run(),
            ProvidersCommand::Show(show) => show.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<Exit> {
        let (config, _, places) = config::load_with_places(&self.config, &Environment::of_process())?;
        if self.json {
            print(&serde_json::to_string_pretty(config.all_providers())?)?;
            return Ok(Exit::Success);
        }
        let mut out = format!("{:<14} {:>11}  {:<48} SET AT\n", "PROVIDER", "CONNECTIONS", "MX");
        for (name, provider) in config.all_providers() {
            let connections = provider.connections.map_or("-".to_owned(), |n| n.to_string());
            let place = places.of(&["providers", name.as_str()]).unwrap_or_default();
            let _ = writeln!(out, "{:<14} {connections:>11}  {:<48} {place}", name.as_str(), provider.mx.join(" "));
        }
        print(&out)?;
        Ok(Exit::Success)
    }
}

impl Show {
    fn run(self) -> anyhow::Result<Exit> {
        let (config, _, places) = config::load_with_places(&self.config, &Environment::of_process())?;
        let domain = self.domain.as_deref().map(Domain::parse).transpose().context("--domain")?;
        let name = match (&self.name, &domain) {
            (Some(name), _) => name.clone(),
            (None, domain) => {
                let hosts: Vec<String> = self.mx.iter().map(|h| h.trim_end_matches('.').to_ascii_lowercase()).collect();
                config.provider_of(domain.as_ref(), hosts.iter().map(String::as_str)).to_owned()
            }
        };
        let provider = config.provider(&name);
        if provider.is_none() && name != OTHER {
            let known = config.all_providers().keys().map(|known| known.as_str());
            let hint = nearest(&name, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
            anyhow::bail!("there is no provider {name:?}{hint}");
        }
        let settings = settings(&config, &places, &name, provider, domain.as_ref());
        if self.json {
            let values: Vec<_> = settings
                .iter()
                .map(|(key, value, set_at)| serde_json::json!({ "key": key, "value": value, "set_at": set_at }))
                .collect();
            print(&serde_json::to_string_pretty(&serde_json::json!({ "provider": name, "settings": values }))?)?;
            return Ok(Exit::Success);
        }
        print(&table(&name, domain.as_ref(), self.mx.is_empty(), &settings))?;
        Ok(Exit::Success)
    }
}

fn table(name: &str, domain: Option<&Domain>, no_hosts: bool, settings: &[Setting]) -> String {
    let mut out = match domain {
        Some(domain) => format!("{domain} belongs to {name}\n"),
        None => format!("provider {name}\n"),
    };
    if domain.is_some() && name == OTHER && no_hosts {
        out.push_str("(by its name alone: its MX hosts decide; give them with --mx)\n");
    }
    for (key, value, set_at) in settings {
        let _ = writeln!(out, "  {key:<24} {value:<44} {set_at}");
    }
    out
}

/// What holds for each source, in the order in which the most exact rule is looked for: domain, provider, default.
fn settings(
    config: &Config,
    places: &Places,
    name: &str,
    provider: Option<&Provider>,
    domain: Option<&Domain>,
) -> Vec<Setting> {
    let own = provider.cloned().unwrap_or_default();
    let default = &config.shaping.default;
    let place = |keys: &[&str]| places.of(keys).unwrap_or_else(|| BUILT_IN_DEFAULT.to_owned());
    let of_provider = |key: &str| place(&["providers", name, key]);
    let of_default = |key: &str| place(&["shaping", "default", key]);
    let mut out: Vec<Setting> = Vec::new();
    if provider.is_some() {
        out.push(("mx", own.mx.join(" "), of_provider("mx")));
        let domains: Vec<&str> = own.domains.iter().map(Domain::as_str).collect();
        if !domains.is_empty() {
            out.push(("domains", domains.join(" "), of_provider("domains")));
        }
    }
    let mut either = |key: &'static str, own: Option<String>, default: Option<String>| match (own, default) {
        (Some(value), _) => out.push((key, value, of_provider(key))),
        (None, Some(value)) => out.push((key, value, of_default(key))),
        (None, None) => {}
    };
    let text = |n: Option<u32>| n.map(|n| n.to_string());
    let rates: Vec<String> = own.message_rate.iter().map(ToString::to_string).collect();
    either("connections", text(own.connections), text(default.connections));
    either(
        "connection_rate",
        own.connection_rate.map(|r| r.to_string()),
        default.connection_rate.map(|r| r.to_string()),
    );
    either("message_rate", (!rates.is_empty()).then(|| rates.join(", ")), default.message_rate.map(|r| r.to_string()));
    either("messages_per_connection", text(own.messages_per_connection), text(default.messages_per_connection));
    let recipients = own.recipients_per_message.filter(|n| *n <= config.delivery.max_recipients);
    match recipients {
        Some(n) => out.push(("recipients_per_message", n.to_string(), of_provider("recipients_per_message"))),
        None => out.push((
            "recipients_per_message",
            config.delivery.max_recipients.to_string(),
            place(&["delivery", "max_recipients"]),
        )),
    }
    let word = |tls: config::TlsPolicy| format!("{tls:?}").to_ascii_lowercase();
    match own.tls.filter(|tls| *tls > config.delivery.tls) {
        Some(tls) => out.push(("tls", word(tls), of_provider("tls"))),
        None => out.push(("tls", word(config.delivery.tls), place(&["delivery", "tls"]))),
    }
    if let Some((domain, rule)) = domain.and_then(|d| Some((d, config.shaping.domains.get(d)?))) {
        let at = |key: &str| place(&["shaping", "domains", domain.as_str(), key]);
        let rate = |r: Option<config::Rate>| r.map(|r| r.to_string());
        let own = [
            ("domain connections", text(rule.connections), at("connections")),
            ("domain connection_rate", rate(rule.connection_rate), at("connection_rate")),
            ("domain message_rate", rate(rule.message_rate), at("message_rate")),
            ("domain messages_per_conn", text(rule.messages_per_connection), at("messages_per_connection")),
        ];
        out.extend(own.into_iter().filter_map(|(key, value, at)| Some((key, value?, at))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_tells_where_it_is_set() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posthaste.toml");
        let text = "hostname = 'mta.example'\ndata_dir = 'd'\n[shaping.default]\nconnection_rate = '50/min'\n\
                    [providers.google]\nmessage_rate = ['5/s', '2000/h']\n";
        std::fs::write(&file, text).expect("written");
        let (config, _, places) = config::load_with_places(&file, &Environment::default()).expect("valid");
        let settings = settings(&config, &places, "google", config.provider("google"), None);
        let get = |key: &str| {
            let (_, value, place) = settings.iter().find(|(k, ..)| *k == key).expect("there");
            (value.as_str(), place.rsplit('/').next().unwrap_or_default().to_owned())
        };
        let built_in = |word: &str| {
            let google = include_str!("../../config/providers.toml").lines().position(|l| l == "[providers.google]");
            let lines = include_str!("../../config/providers.toml").lines().skip(google.expect("there"));
            let at = lines.take_while(|l| !l.is_empty()).position(|l| l.starts_with(word)).expect("there");
            format!("built-in providers.toml:{}", google.expect("there") + at + 1)
        };
        assert_eq!(get("message_rate"), ("5/s, 2000/h", "posthaste.toml:6".to_owned()));
        assert_eq!(get("connection_rate"), ("50/min", "posthaste.toml:4".to_owned()));
        assert_eq!(get("connections"), ("5", built_in("connections")));
        assert_eq!(get("tls"), ("required", built_in("tls")));
        assert_eq!(get("recipients_per_message").1, BUILT_IN_DEFAULT);
    }
}
