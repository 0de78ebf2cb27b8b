//! Mails about alerts: one for all that a look told, by the mail server of the alerts, else through the daemon's own queues.
//!
//! A server of its own tells also of trouble in these queues. Where it takes nothing the mail is queued here, which is durable: it is not lost,
//! only later.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use mail_send::smtp::message::Parameters;
use mail_send::{Credentials, SmtpClient, SmtpClientBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::alert::{Telling, Told};
use crate::config::{Alerts, Config, RouteHost};
use crate::daemon::Hands;
use crate::metrics::Metrics;
use crate::mime::build::{Address, Message};
use crate::queue::system::{SystemMail, new_message};
use crate::seam::clock::Clock;
use crate::seam::random;
use crate::store::{Change, Ledger};
use crate::types::{Mailbox, MessageId, Timestamp};

/// The most mails in [`MAILS_WITHIN`]; what is told beyond them is told by events alone.
const MAILS_MAX: usize = 12;
/// The time in which they count.
const MAILS_WITHIN: Duration = Duration::from_secs(3_600);
/// How long the mail server may take for all of it.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);
/// The port of a mail server that names none.
const PORT: u16 = 587;
/// The port of implicit TLS (RFC 8314 §3.3).
const PORT_TLS: u16 = 465;
/// The most alerts that one mail tells in full.
const TOLD_MAX: usize = 50;

/// Sends mails about alerts.
pub(super) struct Post {
    pub(super) hands: Arc<Hands>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Ledger,
}

impl Post {
    /// Sends what comes until nobody sends any more.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Vec<Told>>) {
        let mut sent: Vec<Timestamp> = Vec::new();
        while let Some(told) = waiting.recv().await {
            let now = self.clock.now();
            sent.retain(|at| now.since(*at) < MAILS_WITHIN);
            if sent.len() >= MAILS_MAX {
                self.metrics.alert.mail("withheld");
                continue;
            }
            sent.push(now);
            let config = self.hands.config.load_full();
            let result = match self.send(&config, &told, now).await {
                Ok(result) => result,
                Err(error) => {
                    warn!(error = %format!("{error:#}"), "no mail about alerts");
                    "failed"
                }
            };
            self.metrics.alert.mail(result);
        }
    }

    async fn send(&self, config: &Config, told: &[Told], now: Timestamp) -> anyhow::Result<&'static str> {
        let alerts = &config.alerts;
        let from = match &alerts.mail_from {
            Some(from) => from.clone(),
            None => Mailbox::parse(&format!("posthaste@{}", config.hostname)).context("the sender of alerts")?,
        };
        let id = MessageId::new(now, random::u128());
        let octets = message(config, &from, told).build(now, &format!("{id}@{}", config.hostname), u64::MAX)?;
        if alerts.mail_server.is_some() {
            let done = tokio::time::timeout(SERVER_TIMEOUT, submit(alerts, &from, &octets)).await;
            match done.context("it took more than a minute").flatten() {
                Ok(()) => {
                    info!("a mail about alerts was sent");
                    return Ok("sent");
                }
                Err(error) => {
                    warn!(error = %format!("{error:#}"), "the mail server of the alerts took no mail, it is queued here");
                }
            }
        }
        let tenant = told.iter().find_map(|one| one.alert.tenant.clone());
        let tenant = tenant.filter(|tenant| config.tenant(tenant).is_some());
        let tenant = tenant.or_else(|| config.tenants.first().map(|t| t.name.clone())).context("there is no tenant")?;
        let from_domain = Some(from.domain().clone());
        let mail = SystemMail { id, tenant, to: alerts.mail_to.clone(), octets, from_domain, smtputf8: false };
        let queued = new_message(config, mail, "alerts", now);
        self.ledger.submit(vec![Change::Accept(Box::new(queued))]).await?;
        Ok("queued")
    }
}

/// The mail: what is worst stands in the subject, and all of it in the text.
fn message(config: &Config, from: &Mailbox, told: &[Told]) -> Message {
    let address = |mailbox: &Mailbox| Address { name: None, mailbox: mailbox.clone() };
    let word = |telling| match telling {
        Telling::Firing => "ALERT",
        Telling::Repeated => "STILL",
        Telling::Resolved => "RESOLVED",
    };
    let order = |telling| match telling {
        Telling::Firing => 0,
        Telling::Repeated => 1,
        Telling::Resolved => 2,
    };
    let mut told: Vec<&Told> = told.iter().collect();
    told.sort_by_key(|one| order(one.telling));
    let more = match told.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let head = |one: &Told| format!("{} {}: {}", word(one.telling), one.alert.name.as_str(), one.alert.subject);
    let subject = told.first().map_or(String::new(), |one| format!("[{}] {}{more}", config.hostname, head(one)));
    let mut text = String::new();
    for one in told.iter().take(TOLD_MAX) {
        let alert = &one.alert;
        text.push_str(&format!("{}\n  {}\n  since {}\n", head(one), alert.summary, alert.since));
        if one.telling != Telling::Resolved {
            text.push_str(&format!("  Likely cause: {}\n  What to do: {}\n", alert.cause, alert.fix));
        }
        text.push('\n');
    }
    if told.len() > TOLD_MAX {
        text.push_str(&format!("and {} more: posthaste alerts list\n\n", told.len() - TOLD_MAX));
    }
    text.push_str(&format!("posthaste on {}; thresholds and addresses stand in [alerts].\n", config.hostname));
    Message {
        from: Address { name: Some(format!("posthaste on {}", config.hostname)), mailbox: from.clone() },
        to: config.alerts.mail_to.iter().map(address).collect(),
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: Vec::new(),
        subject: Some(subject),
        text: Some(text),
        html: None,
        // RFC 3834 §5: nobody's vacation answers it.
        headers: vec![("Auto-Submitted".into(), "auto-generated".into())],
        attachments: Vec::new(),
    }
}

/// Hands the mail to the mail server of the alerts.
async fn submit(alerts: &Alerts, from: &Mailbox, octets: &Bytes) -> anyhow::Result<()> {
    let server = alerts.mail_server.as_deref().unwrap_or_default();
    let host: RouteHost = server.parse().map_err(anyhow::Error::msg)?;
    let port = host.port.unwrap_or(PORT);
    let name = RouteHost { port: None, ..host.clone() }.to_string();
    let plain = host.is_loopback() && port != PORT_TLS;
    let mut builder = SmtpClientBuilder::new_with_tls_connector(name.clone(), port, tls()?)
        .implicit_tls(port == PORT_TLS)
        .timeout(SERVER_TIMEOUT);
    builder.addr = format!("{name}:{port}");
    if let (Some(username), Some(file)) = (&alerts.mail_username, &alerts.mail_password_file) {
        builder = builder.credentials(Credentials::Plain { username: username.clone(), secret: password(file)? });
    }
    let local_host = builder.local_host.clone();
    if plain {
        transact(builder.connect_plain().await?, alerts, from, octets, &local_host).await
    } else {
        transact(builder.connect().await?, alerts, from, octets, &local_host).await
    }
}

async fn transact<T: AsyncRead + AsyncWrite + Unpin>(
    mut client: SmtpClient<T>,
    alerts: &Alerts,
    from: &Mailbox,
    octets: &Bytes,
    local_host: &str,
) -> anyhow::Result<()> {
    client.timeout = SERVER_TIMEOUT;
    client.capabilities(local_host, false).await?;
    client.mail_from(from.as_str(), &Parameters::new()).await?;
    for to in &alerts.mail_to {
        client.rcpt_to(to.as_str(), &Parameters::new()).await?;
    }
    // The client ends the data with a line end of its own: ours would make an empty line.
    client.data(octets.strip_suffix(b"\r\n").unwrap_or(octets)).await?;
    // The message is the server's now; a QUIT that fails changes nothing.
    let _ = client.quit().await;
    Ok(())
}

fn tls() -> anyhow::Result<tokio_rustls::TlsConnector> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .context("the system's certificates can't be used")?
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

fn password(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, AlertName, AlertState};

    fn told(telling: Telling, name: AlertName, subject: &str) -> Told {
        let alert = Alert {
            name,
            state: AlertState::Firing,
            subject: subject.into(),
            tenant: None,
            since: Timestamp::ZERO,
            told: None,
            summary: "8.1 % of the disk are free".into(),
            cause: "a backlog".into(),
            fix: "free space".into(),
        };
        Told { telling, alert, record: None }
    }

    fn text_of(told: &[Told]) -> String {
        let mut config = Config { hostname: "mta1.example.com".into(), ..Config::default() };
        config.alerts.mail_to = vec![Mailbox::parse("ops@example.com").expect("an address")];
        let from = Mailbox::parse("posthaste@mta1.example.com").expect("an address");
        let octets = message(&config, &from, told).build(Timestamp::ZERO, "1@mta1.example.com", u64::MAX);
        String::from_utf8(octets.expect("it can be written").to_vec()).expect("UTF-8")
    }

    #[test]
    fn what_begins_stands_in_the_subject_whatever_ended_before_it() {
        let text = text_of(&[
            told(Telling::Resolved, AlertName::BounceRate, "acme"),
            told(Telling::Firing, AlertName::DiskFree, "node"),
        ]);
        assert!(text.contains("\r\nSubject: [mta1.example.com] ALERT disk_free: node (and 1 more)\r\n"), "{text}");
        assert!(text.contains("\r\nAuto-Submitted: auto-generated\r\n"), "no vacation notice answers it");
        assert!(text.contains("Likely cause: a backlog") && text.contains("What to do: free space"));
        let ended = text.split("RESOLVED bounce_rate: acme").nth(1).expect("it is told, too");
        assert!(!ended.contains("Likely cause"), "what has ended needs no fix");
    }

    #[test]
    fn a_flood_is_cut() {
        let many: Vec<Told> =
            (0..500).map(|n| told(Telling::Firing, AlertName::SourceHeld, &format!("ip{n} to x"))).collect();
        let text = text_of(&many);
        assert_eq!(text.matches("ALERT source_held").count(), TOLD_MAX + 1, "the subject and fifty");
        assert!(text.contains("and 450 more: posthaste alerts list"));
    }
}
