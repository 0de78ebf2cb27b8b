//! The node: host name, folder, listeners, HTTP and the log.

use std::net::SocketAddr;

use super::{Check, KeyPath, at};
use crate::config::{ListenerRole, ListenerTls};
use crate::types::Domain;

impl Check<'_> {
    pub(super) fn node(&mut self) {
        let hostname = self.config.hostname.as_str();
        if hostname.is_empty() {
            self.error(at!["hostname"], "the host name is missing", "the name of this host, as \"mta1.example.com\"");
        } else if let Err(e) = Domain::parse(hostname) {
            self.error(at!["hostname"], format!("{hostname:?}: {e}"), "the name of this host, as \"mta1.example.com\"");
        } else if !hostname.contains('.') {
            self.warn(
                at!["hostname"],
                format!("{hostname:?} is not a full name"),
                "many receivers refuse an EHLO name without a domain",
            );
        }
        if self.config.data_dir.as_os_str().is_empty() {
            self.error(at!["data_dir"], "the data folder is missing", "as in \"/var/lib/posthaste\"");
        } else if self.config.data_dir.exists() && !self.config.data_dir.is_dir() {
            self.error(at!["data_dir"], format!("{} is not a folder", self.config.data_dir.display()), "");
        }
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&self.config.log.level) {
            self.error(
                at!["log", "level"],
                format!("{:?} is not a level: {e}", self.config.log.level),
                "error, warn, info, debug or trace, alone or for a module: \"posthaste::delivery=debug,info\"",
            );
        }
    }

    /// What comes back.
    pub(super) fn bounces(&mut self) {
        let bounces = &self.config.bounces;
        if bounces.soft_limit > crate::config::SOFT_LIMIT_MAX {
            let message = format!("{} is more than {}", bounces.soft_limit, crate::config::SOFT_LIMIT_MAX);
            self.error(at!["bounces", "soft_limit"], message, "0 never suppresses for soft bounces");
        }
        if bounces.soft_limit > 0 && bounces.soft_within.0.is_zero() {
            self.error(at!["bounces", "soft_within"], "no time to count in", "as \"30d\"");
        }
        let bounce_domains = || self.config.tenants.iter().filter_map(|t| t.bounce_domain.as_ref());
        if let Some(to) = &bounces.postmaster
            && bounce_domains().any(|domain| domain == to.domain())
        {
            let message = format!("{to} would come back to where it is sent on from");
            self.error(at!["bounces", "postmaster"], message, "an address that is not at a bounce domain");
        }
        if bounces.report_retention.0 < std::time::Duration::from_secs(86_400) {
            self.error(at!["bounces", "report_retention"], "less than a day", "as \"180d\"");
        }
        if bounces.client_rate.count == 0 {
            self.error(at!["bounces", "client_rate"], "nobody could bring a bounce", "as \"600/min\"");
        }
    }

    /// The filters that score a campaign before its start.
    pub(super) fn filters(&mut self) {
        let check = &self.config.check;
        if let Some(url) = &check.rspamd {
            let is_http = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
            if !is_http {
                self.error(
                    at!["check", "rspamd"],
                    format!("{url:?} is not an http URL"),
                    "as \"http://127.0.0.1:11333\"",
                );
            }
        }
        if let Some(address) = &check.spamassassin {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                let message = format!("{address:?} is not a host with a port");
                self.error(at!["check", "spamassassin"], message, "as \"127.0.0.1:783\"");
            }
        }
        if check.spam_threshold.is_some_and(|threshold| !threshold.is_finite()) {
            self.error(at!["check", "spam_threshold"], "not a number", "a score, as 5.0");
        }
    }

    pub(super) fn listeners(&mut self) {
        let config = self.config;
        for (i, listener) in config.smtp.listeners.iter().enumerate() {
            let at = |key: &str| at!["smtp", "listeners", i, key];
            if listener.tls != ListenerTls::None && config.tls.is_none() {
                self.error(
                    at("tls"),
                    "TLS needs a certificate, and there is no [tls]",
                    "add [tls] with certificate_file and key_file",
                );
            }
            for (j, net) in listener.relay_from.iter().enumerate() {
                if net.prefix_len() == 0 {
                    self.error(
                        at("relay_from").join(j),
                        format!("{net} is everybody: this would be an open relay"),
                        "name the networks of your own clients",
                    );
                }
            }
            if listener.role == ListenerRole::Bounce && !listener.relay_from.is_empty() {
                self.error(
                    at("relay_from"),
                    "a bounce listener takes only bounces",
                    "make it a `submission` or `relay` listener of its own",
                );
            }
            let may_auth = listener.tls != ListenerTls::None || listener.address.ip().is_loopback();
            let users = config.tenants.iter().any(|tenant| !tenant.smtp_users.is_empty());
            if listener.role != ListenerRole::Bounce && listener.relay_from.is_empty() && !(may_auth && users) {
                let why = if users { "AUTH needs TLS here" } else { "no tenant has smtp_users" };
                self.warn(
                    at!["smtp", "listeners", i],
                    format!("nobody can send by {}: there is no relay_from, and {why}", listener.address),
                    "",
                );
            }
        }
        if config.smtp.listeners.is_empty() && config.http.is_none() {
            self.warn(at!["smtp"], "no listener takes mail", "add [[smtp.listeners]] or [http]");
        }
        self.clashes();
    }

    /// Two sockets can't share a port on the same address, nor on one address and all of its family.
    fn clashes(&mut self) {
        let config = self.config;
        let mut all: Vec<(KeyPath, SocketAddr)> = Vec::new();
        for (i, listener) in config.smtp.listeners.iter().enumerate() {
            all.push((at!["smtp", "listeners", i, "address"], listener.address));
        }
        if let Some(http) = &config.http {
            all.push((at!["http", "address"], http.address));
        }
        if let Some(public) = &config.public {
            all.push((at!["public", "address"], public.address));
        }
        for i in 0..all.len() {
            let clash = all[..i].iter().find(|(_, other)| overlap(*other, all[i].1)).cloned();
            if let Some((key, other)) = clash {
                self.error(
                    all[i].0.clone(),
                    format!("{} clashes with {other} of {key}", all[i].1),
                    "give each listener its own address or port",
                );
            }
        }
    }

    pub(super) fn http(&mut self) {
        let config = self.config;
        if let Some(http) = &config.http {
            if !http.address.ip().is_loopback() {
                self.warn(
                    at!["http", "address"],
                    format!("{} can be reached from outside, without TLS", http.address),
                    "listen on 127.0.0.1 and put a TLS proxy in front",
                );
            }
            self.at_least(at!["http", "max_body"], http.max_body.0, 1 << 10);
            self.at_least(at!["http", "max_connections"], http.max_connections.into(), 1);
        }
        if let Some(public) = &config.public {
            match url_host(&public.url) {
                Err(why) => {
                    self.error(
                        at!["public", "url"],
                        format!("{:?}: {why}", public.url),
                        "as in \"https://links.example.com\"",
                    );
                }
                Ok(true) => {}
                Ok(false) => self.warn(
                    at!["public", "url"],
                    "links without TLS",
                    "RFC 8058 §3.2 asks for https in the one-click unsubscribe link",
                ),
            }
        }
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    // Port 0 lets the system choose, so two of them never clash. `::` takes IPv4 too where the system lets it.
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any_of(a, b) || any_of(b, a))
}

fn any_of(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4()
}

/// Checks `http(s)://host[:port][/path]`; answers whether it is https.
fn url_host(url: &str) -> Result<bool, String> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("not an http or https URL".into()),
    };
    if url.bytes().any(|b| b <= b' ' || b >= 0x7f || b"\"<>\\^`{|}?#@".contains(&b)) {
        return Err("only scheme, host, port and path may stand in it".into());
    }
    let host = rest.split('/').next().unwrap_or("");
    host.parse::<crate::config::RouteHost>().map(|_| secure)
}
