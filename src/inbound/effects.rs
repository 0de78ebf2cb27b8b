//! What a mail that came back changes: its event, a suppression, a count; all in one batch, and once.

use std::time::Duration;

use super::Inbound;
use super::origin::Origin;
use super::said::{Bounced, Said};
use super::target::Target;
use super::unsubscribe::{Unsubscribed, unsubscribe};
use crate::bounce::read::Reading;
use crate::event::{Event, EventKind, Severity, SmtpReply};
use crate::links::{RETURN_PATH_DAYS, ReturnPath, UnsubscribeToken, find_token};
use crate::queue::returns::{is_test, soft_key};
use crate::store::Change;
use crate::suppression::{Reason, Scope};
use crate::types::{Name, RowId};

/// How long it is remembered that something was said of a recipient: as long as its return path opens, and a day.
const REMEMBER: Duration = Duration::from_secs((RETURN_PATH_DAYS as u64 + 1) * 86_400);
/// How long a complaint is remembered whose token never expires.
const REMEMBER_COMPLAINT: Duration = Duration::from_secs(365 * 86_400);
/// The longest text of a mail that stands in an event, in characters.
const TEXT_MAX: usize = 512;
/// What became of a mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// A bounce.
    Bounce,
    /// A notice that it is still being tried.
    Deferral,
    /// A complaint.
    Complaint,
    /// A machine's answer.
    AutoReply,
    /// An unsubscribe.
    Unsubscribe,
    /// The message is not known any more.
    Unknown,
    /// Nobody can tell what it says.
    Unread,
    /// It is about a test send.
    Test,
    /// It was said before.
    Repeated,
    /// A DMARC aggregate.
    DmarcReport,
    /// A TLS report.
    TlsReport,
    /// A report on authentication that nobody can read.
    ReportUnread,
    /// A report about a domain of nobody here.
    ReportForeign,
    /// It was sent on to people.
    Forwarded,
}

impl Counted {
    /// The word of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Counted::Bounce => "bounce",
            Counted::Deferral => "deferral",
            Counted::Complaint => "complaint",
            Counted::AutoReply => "auto_reply",
            Counted::Unsubscribe => "unsubscribe",
            Counted::Unknown => "unknown",
            Counted::Unread => "unread",
            Counted::Test => "test",
            Counted::Repeated => "repeated",
            Counted::DmarcReport => "dmarc_report",
            Counted::TlsReport => "tls_report",
            Counted::ReportUnread => "report_unread",
            Counted::ReportForeign => "report_foreign",
            Counted::Forwarded => "forwarded",
        }
    }
}

/// Whose mail, which, and who got it.
struct About<'a> {
    tenant: &'a Name,
    path: ReturnPath,
    origin: &'a Origin,
}

impl Inbound {
    /// Acts on what a mail says to one of us.
    pub(super) async fn one(&self, target: &Target, reading: &Reading) -> Result<Counted, String> {
        match target {
            Target::Return { tenant, path } => self.returned(tenant, *path, reading).await,
            Target::Complaints { tenant } => self.complained(tenant, reading).await,
            Target::Unsubscribes { tenant } => self.unsubscribed(tenant, reading).await,
            // These never come here: they are no bounces.
            Target::Reports { .. } | Target::Postmaster { .. } => Ok(Counted::Unread),
        }
    }

    async fn returned(&self, tenant: &Name, path: ReturnPath, reading: &Reading) -> Result<Counted, String> {
        let origin = self.origin(tenant, path).await.map_err(|e| e.to_string())?;
        let Some(origin) = origin else { return Ok(Counted::Unknown) };
        let about = About { tenant, path, origin: &origin };
        match Said::of(reading, &origin.recipient) {
            Said::Bounce(bounced) => self.bounce(&about, &bounced).await,
            Said::Deferral(bounced) => {
                let mut event = self.event(&about, EventKind::Deferred);
                event.severity = Some(Severity::Temporary);
                fill(&mut event, &bounced);
                self.once(&about, Counted::Deferral, REMEMBER, vec![told(event)]).await
            }
            Said::Complaint { text, by } => self.complaint(&about, text, by, REMEMBER).await,
            Said::AutoReply { text } => {
                let mut event = self.event(&about, EventKind::AutoReplied);
                event.reason = text.map(|text| cut(&text));
                self.once(&about, Counted::AutoReply, REMEMBER, vec![told(event)]).await
            }
            Said::Unsubscribe { subject } => match self.token_in(&subject) {
                Some(token) => self.unsubscribe(&token).await,
                None => Ok(Counted::Unread),
            },
            Said::Nothing => Ok(Counted::Unread),
        }
    }

    /// A complaint through a feedback loop: the token is in what it encloses, the return path or the link by which one unsubscribes.
    async fn complained(&self, tenant: &Name, reading: &Reading) -> Result<Counted, String> {
        let Said::Complaint { text, by } = Said::of_complaint(reading) else { return Ok(Counted::Unread) };
        let now = self.parts.clock.now();
        for address in Said::return_paths(reading) {
            let Ok(path) = self.parts.links.open_return_path(tenant, address.local_part(), now) else { continue };
            let origin = self.origin(tenant, path).await.map_err(|e| e.to_string())?;
            if let Some(origin) = origin {
                return self.complaint(&About { tenant, path, origin: &origin }, text, by, REMEMBER).await;
            }
        }
        for token in Said::unsubscribe_tokens(reading) {
            let Ok(token) = self.parts.links.open_unsubscribe(&token) else { continue };
            if token.test {
                return Ok(Counted::Test);
            }
            if let Some(message) = token.message {
                let path = ReturnPath::of(message, &token.address);
                let origin = self.origin(&token.tenant, path).await.map_err(|e| e.to_string())?;
                let origin = origin.unwrap_or_else(|| self.unknown_origin(&token));
                let about = About { tenant: &token.tenant, path, origin: &origin };
                return self.complaint(&about, text, by, REMEMBER_COMPLAINT).await;
            }
        }
        Ok(Counted::Unknown)
    }

    /// Of a message whose events are gone its token still says whose it was.
    fn unknown_origin(&self, token: &UnsubscribeToken) -> Origin {
        let mut event = Event::new(EventKind::Delivered, self.parts.clock.now(), token.tenant.clone());
        event.message_id = token.message;
        event.domain = Some(token.address.domain().clone());
        Origin { recipient: token.address.clone(), event }
    }

    async fn unsubscribed(&self, tenant: &Name, reading: &Reading) -> Result<Counted, String> {
        let Some(subject) = Said::subject(reading) else { return Ok(Counted::Unread) };
        match self.token_in(&subject) {
            Some(token) if token.tenant == *tenant => self.unsubscribe(&token).await,
            Some(_) | None => Ok(Counted::Unknown),
        }
    }

    fn token_in(&self, subject: &str) -> Option<UnsubscribeToken> {
        find_token(subject).find_map(|word| self.parts.links.open_unsubscribe(word).ok())
    }

    async fn unsubscribe(&self, token: &UnsubscribeToken) -> Result<Counted, String> {
        if token.test {
            return Ok(Counted::Test);
        }
        let campaign = token.message.and_then(RowId::of).and_then(|row| (self.parts.campaigns)(row.campaign));
        let said = Unsubscribed { token, campaign, how: "mail", via: "mail", source: "unsubscribe mail" };
        let new = unsubscribe(&self.parts.suppressions, &self.parts.clock, said).await.map_err(|e| e.to_string())?;
        Ok(if new { Counted::Unsubscribe } else { Counted::Repeated })
    }

    async fn bounce(&self, about: &About<'_>, bounced: &Bounced) -> Result<Counted, String> {
        let config = self.parts.config.load();
        let acts = config.bounces.suppress && !about.is_test();
        let mut event = self.event(about, EventKind::Bounced);
        event.severity = Some(if bounced.permanent { Severity::Permanent } else { Severity::Temporary });
        event.remote = Some(true);
        fill(&mut event, bounced);
        let suppressing = acts && bounced.suppress;
        event.suppress = Some(suppressing);
        let mut changes = vec![told(event)];
        if suppressing {
            let note = format!("{} {}", bounced.category, bounced.text);
            changes.push(self.suppress(about, Reason::HardBounce, "bounce mail", &note));
        } else if acts && bounced.soft {
            let entry = self.suppress(about, Reason::HardBounce, "soft bounces", &bounced.text);
            let at = config.bounces.soft_limit;
            if at > 0 {
                let key = soft_key(about.tenant, &about.origin.recipient);
                changes.push(Change::Tally { key, at, within: config.bounces.soft_within.0, changes: vec![entry] });
            }
        }
        self.once(about, Counted::Bounce, REMEMBER, changes).await
    }

    async fn complaint(
        &self,
        about: &About<'_>,
        text: Option<String>,
        by: Option<String>,
        remember: Duration,
    ) -> Result<Counted, String> {
        let acts = self.parts.config.load().bounces.suppress && !about.is_test();
        let mut event = self.event(about, EventKind::Complained);
        event.category = Some("spam-related".into());
        event.reported_by = by.map(|by| cut(&by));
        event.reason = text.as_deref().map(cut);
        event.suppress = Some(acts);
        let mut changes = vec![told(event)];
        if acts {
            changes.push(self.suppress(about, Reason::Complaint, "feedback loop", text.as_deref().unwrap_or_default()));
        }
        self.once(about, Counted::Complaint, remember, changes).await
    }

    fn suppress(&self, about: &About<'_>, reason: Reason, source: &str, note: &str) -> Change {
        let scope = Scope::Tenant(about.tenant.clone());
        let mut entry = self.parts.suppressions.entry(scope, reason, &about.origin.recipient, source);
        entry.note = cut(note);
        self.parts.suppressions.put(&entry)
    }

    /// An event about a recipient, with what is known of its delivery.
    fn event(&self, about: &About<'_>, kind: EventKind) -> Event {
        let known = &about.origin.event;
        let mut event = Event::new(kind, self.parts.clock.now(), about.tenant.clone());
        event.message_id = Some(about.path.message);
        event.recipient = Some(about.origin.recipient.clone());
        event.campaign = known.campaign.clone();
        event.class = known.class;
        event.tags = known.tags.clone();
        event.metadata = known.metadata.clone();
        event.domain = known.domain.clone().or_else(|| Some(about.origin.recipient.domain().clone()));
        event.provider = known.provider.clone();
        event.mx = known.mx.clone();
        event.source = known.source.clone();
        event.source_ip = known.source_ip;
        event.pool = known.pool.clone();
        event.via = Some("mail".into());
        event.late = Some(true);
        event
    }

    /// Stores changes, unless the same was said of the recipient before. The look-up only tells what is counted: it is the ledger that keeps two at
    /// the same time apart.
    async fn once(
        &self,
        about: &About<'_>,
        what: Counted,
        remember: Duration,
        changes: Vec<Change>,
    ) -> Result<Counted, String> {
        let key = [what.as_str().as_bytes(), b"/", about.path.to_bytes().as_slice()].concat();
        let known = self.parts.reader.was_done(&key, self.parts.clock.now()).await.map_err(|e| e.to_string())?;
        if known {
            return Ok(Counted::Repeated);
        }
        let once = Change::Once { key, remember, changes };
        self.parts.ledger.submit(vec![once]).await.map_err(|e| e.to_string())?;
        if matches!(what, Counted::Bounce | Counted::Complaint) && !about.is_test() {
            self.parts.metrics.tenants.with_label_values(&[about.tenant.as_str(), what.as_str()]).inc();
        }
        Ok(if about.is_test() { Counted::Test } else { what })
    }
}

impl About<'_> {
    /// A test send's recipients are colleagues: what comes back of it is told, and changes nothing.
    fn is_test(&self) -> bool {
        is_test(&self.origin.event)
    }
}

fn told(event: Event) -> Change {
    Change::Event(Box::new(event))
}

fn fill(event: &mut Event, bounced: &Bounced) {
    event.category = Some(bounced.category.into());
    event.fault = Some(bounced.fault.into());
    event.reported_by = bounced.reported_by.as_deref().map(cut);
    let enhanced = bounced.status.as_deref().map(Box::from);
    event.smtp = Some(SmtpReply { code: bounced.smtp_code.unwrap_or(0), enhanced, text: cut(&bounced.text) });
}

/// Text from outside, for an event: one line, without controls, not too long.
fn cut(text: &str) -> Box<str> {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect();
    clean.trim().into()
}
