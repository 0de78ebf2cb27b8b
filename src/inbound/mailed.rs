//! Mail at a bounce domain that is for no program of ours' bounces: reports on authentication, and what people write to postmaster and abuse.
//!
//! A report is kept. What can't be read as one, and what is for people, is sent on whole to the address of `bounces.postmaster`, so nothing is lost; without
//! that address the peer is told to try later, until somebody gives one.

use std::time::Duration;

use bytes::Bytes;

use super::reports::{self, DAY_BYTES_MAX, DAY_REPORTS_MAX, ReportKind};
use super::{Counted, Inbound, POSTMASTER_LOCAL_PART};
use crate::config::{Config, Rate};
use crate::feedback::auth::{self, AuthReport, ReportError};
use crate::queue::intake::Refusal;
use crate::queue::system::{SystemMail, new_message};
use crate::seam::random;
use crate::shaping::Bucket;
use crate::store::Change;
use crate::types::{Domain, Mailbox, MessageId, Name, Timestamp};

/// Mails that are sent on to the postmaster, a tenth of them at once; beyond it the peer tries later.
const FORWARD_RATE: Rate = Rate { count: 300, per: Duration::from_secs(3_600) };
/// More fields `Received` than this are a loop (RFC 5321 §6.3).
const HOPS_MAX: usize = 50;
/// Reports that are read at a time: unpacked, one may need 20 MiB.
pub(super) const READERS_MAX: usize = 2;

/// What came of reports today, and of mail for people lately.
#[derive(Debug, Default)]
pub(super) struct Taken {
    day: u32,
    reports: usize,
    bytes: u64,
    forwards: Bucket,
}

impl Inbound {
    /// The address of the people who read what is not for programs.
    pub(super) fn people(config: &Config) -> Option<&Mailbox> {
        // What would come back to a bounce listener is no address of people.
        let is_ours = |to: &&Mailbox| {
            let own = config.tenants.iter().any(|t| t.bounce_domain.as_ref() == Some(to.domain()));
            let host = config.hostname.eq_ignore_ascii_case(to.domain().as_str());
            own || (host && to.local_part().eq_ignore_ascii_case(POSTMASTER_LOCAL_PART))
        };
        config.bounces.postmaster.iter().chain(&config.alerts.mail_to).find(|to| !is_ours(to))
    }

    /// Keeps the reports of a mail.
    pub(super) async fn report(&self, tenant: Option<&Name>, mail: &Bytes) -> Result<Counted, Refusal> {
        let read = {
            // The semaphore is never closed.
            let _one = self.readers.acquire().await;
            let mail = mail.clone();
            let task = tokio::task::spawn_blocking(move || auth::read_mail(&mail));
            // A reader that fails must not make the peer try for days.
            task.await.unwrap_or(Err(ReportError::NoReport))
        };
        let reports = match read {
            Ok(reports) => reports,
            Err(error) => return self.unread(tenant, mail, &error.to_string()).await,
        };
        let mut counted = Counted::Repeated;
        for report in reports {
            match self.keep(report).await? {
                Counted::Repeated => {}
                other => counted = other,
            }
        }
        Ok(counted)
    }

    async fn keep(&self, report: AuthReport) -> Result<Counted, Refusal> {
        let config = self.parts.config.load_full();
        let (kind, org, id, domain) = match &report {
            AuthReport::Dmarc(report) => {
                (ReportKind::Dmarc, &report.org, &report.report_id, reports::dmarc_domain(report))
            }
            AuthReport::Tls(report) => (ReportKind::Tls, &report.org, &report.report_id, reports::tls_domain(report)),
        };
        let Some(owner) = reports::owner_of(&config, domain) else {
            tracing::info!(kind = kind.as_str(), org, id, domain, "a report about a domain of nobody here");
            return Ok(Counted::ReportForeign);
        };
        let identity = reports::identity(kind, org, id, domain);
        let now = self.parts.clock.now();
        let failed = |error: String| self.store_failed(&error);
        if self.parts.reader.was_done(&identity, now).await.map_err(|e| failed(e.to_string()))? {
            return Ok(Counted::Repeated);
        }
        tracing::info!(kind = kind.as_str(), org, id, domain, "report on authentication");
        let remember = config.bounces.report_retention.0;
        let (size, change) = match report {
            AuthReport::Dmarc(report) => reports::kept(kind, identity, owner, report, remember, now),
            AuthReport::Tls(report) => reports::kept(kind, identity, owner, report, remember, now),
        }
        .map_err(failed)?;
        self.may_keep(size, now)?;
        self.parts.ledger.submit(vec![change]).await.map_err(|e| failed(e.to_string()))?;
        Ok(match kind {
            ReportKind::Dmarc => Counted::DmarcReport,
            ReportKind::Tls => Counted::TlsReport,
        })
    }

    /// Counts what is kept of a day: strangers must not fill the disk.
    fn may_keep(&self, size: u64, now: Timestamp) -> Result<(), Refusal> {
        let mut taken = self.taken.lock();
        if taken.day != now.day() {
            *taken = Taken { day: now.day(), forwards: taken.forwards, ..Taken::default() };
        }
        if taken.reports >= DAY_REPORTS_MAX || taken.bytes + size > DAY_BYTES_MAX {
            self.parts.metrics.refused("reports");
            return Err(Refusal::new(452, "4.3.1", 429, "Too many reports today, try again tomorrow"));
        }
        taken.reports += 1;
        taken.bytes += size;
        Ok(())
    }

    /// As many reports came today as are taken.
    #[cfg(test)]
    pub(super) fn fill_the_day(&self) {
        let day = self.parts.clock.now().day();
        *self.taken.lock() = Taken { day, reports: DAY_REPORTS_MAX, ..Taken::default() };
    }

    /// What nobody can read goes to people, with the reason in the log.
    async fn unread(&self, tenant: Option<&Name>, mail: &Bytes, reason: &str) -> Result<Counted, Refusal> {
        let from = mail_parser::MessageParser::default().parse_headers(&mail[..]);
        let from = from.as_ref().and_then(|m| m.from()).and_then(|from| from.first()).and_then(|from| from.address());
        tracing::warn!(reason, from, octets = mail.len(), "a report on authentication can't be read");
        if Self::people(&self.parts.config.load()).is_some() {
            self.forward(tenant, mail, "a report that can't be read").await?;
        }
        Ok(Counted::ReportUnread)
    }

    /// Sends a mail on to people.
    pub(super) async fn forward(&self, tenant: Option<&Name>, mail: &Bytes, what: &str) -> Result<Counted, Refusal> {
        let config = self.parts.config.load_full();
        let later = |text: &str| Refusal::new(451, "4.3.5", 503, text);
        let to = Self::people(&config).ok_or_else(|| later("No postmaster is configured, try again later"))?;
        if hops(mail) > HOPS_MAX {
            self.parts.metrics.refused("loop");
            return Err(Refusal::new(554, "5.4.6", 422, "Too many hops, this is a loop"));
        }
        let now = self.parts.clock.now();
        {
            let mut taken = self.taken.lock();
            if taken.forwards.ready_at(FORWARD_RATE, now) > now {
                self.parts.metrics.refused("rate");
                return Err(Refusal::new(451, "4.7.1", 429, "Too much mail for the postmaster, try again later"));
            }
            taken.forwards.take(FORWARD_RATE, now);
        }
        let id = MessageId::new(now, random::u128());
        let host = config.hostname.as_str();
        let trace = format!("Received: by {host} (bounce listener) id {id}\r\n\tfor <{to}>; {}\r\n", now.rfc5322());
        let octets = Bytes::from([trace.as_bytes(), mail].concat());
        let tenant = tenant.cloned().or_else(|| config.tenants.first().map(|t| t.name.clone()));
        let from_domain = Domain::parse(host).ok();
        let (Some(tenant), Some(from_domain)) = (tenant, from_domain) else {
            return Err(later("No way to send this on, try again later"));
        };
        let mail =
            SystemMail { id, tenant, to: vec![to.clone()], octets, from_domain: Some(from_domain), smtputf8: false };
        let queued = Change::Accept(Box::new(new_message(&config, mail, what, now)));
        self.parts.ledger.submit(vec![queued]).await.map_err(|e| self.store_failed(&e.to_string()))?;
        Ok(Counted::Forwarded)
    }

    pub(super) fn store_failed(&self, error: &str) -> Refusal {
        tracing::warn!(error, "what came back could not be stored");
        self.parts.metrics.refused("store");
        Refusal::new(451, "4.3.0", 503, "Local problem, try again later")
    }
}

/// The fields `Received` of a header.
fn hops(mail: &[u8]) -> usize {
    let lines = mail.split(|octet| *octet == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    lines.filter(|line| line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"received:"))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_header_counts_for_a_loop() {
        assert_eq!(
            hops(b"Received: a\r\n\tReceived: folded\r\nRECEIVED: b\r\nReceived-SPF: x\r\n\r\nReceived: body\r\n"),
            2
        );
        assert_eq!(hops(b""), 0);
    }
}
