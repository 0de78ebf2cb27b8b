//! Notifications that are owed: the report on an outcome as a message that is queued in the same batch as the outcome.
//!
//! 1. NOTIFY decides who is told of what (RFC 3461 §4.1); a null reverse-path is never told anything,
//! 2. [`crate::bounce::dsn`] writes the report,
//! 3. it gets an envelope of its own: null reverse-path, the original's tenant, transactional class, the tenant's pool.
//!
//! The caller puts the result into [`crate::store::Settle::owed`].

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::notice::{Notice, NoticeOutcome, NoticeReport, Notifier};
use super::system::{self, SystemMail};
use crate::bounce::dsn::{self, Action};
use crate::config::Config;
use crate::delivery::Peer;
use crate::event::SmtpReply;
use crate::seam::random;
use crate::store::{NewMessage, StoredMessage};
use crate::types::{Domain, MessageId, Name, Notify, Timestamp};

/// What became of one recipient, as the sender may be told.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// The recipient's place in the envelope.
    pub index: u32,
    /// What became of it.
    pub action: Action,
    /// The last reply: the peer's, or our own words.
    pub reply: Option<&'a SmtpReply>,
    /// Whether the peer said it.
    pub remote: bool,
    /// The host that was tried.
    pub host: Option<&'a str>,
    /// The last attempt.
    pub last_attempt: Option<Timestamp>,
}

/// Whether a sender wants to be told that this became of a recipient.
pub fn is_wanted(notify: Notify, action: Action) -> bool {
    match action {
        Action::Failed => notify.failure(),
        Action::Delayed => notify.delay(),
        Action::Delivered | Action::Relayed | Action::Expanded => notify.success(),
    }
}

/// What to tell of a recipient that a peer took: nothing where the peer reports itself, or nobody asked (RFC 3461 §5.2.2).
pub fn on_delivery(notify: Notify, peer_has_dsn: bool) -> Option<Action> {
    (notify.success() && !peer_has_dsn).then_some(Action::Relayed)
}

/// The report on these outcomes of a message, or `None` when nobody is to be told.
///
/// `random` gives the report's id; `config` the names, the tenant's pool and the time of expiry.
pub fn compose(
    message: &StoredMessage,
    outcomes: &[Told<'_>],
    now: Timestamp,
    config: &Config,
    random: u128,
) -> Option<NewMessage> {
    let original = &message.envelope;
    // RFC 3464 §2, RFC 5321 §6.1: never a notification of a notification.
    let to = original.reverse_path.mailbox()?;
    let recipients: Vec<dsn::Recipient<'_>> = outcomes
        .iter()
        .filter_map(|told| {
            let recipient = original.recipients.get(told.index as usize)?;
            is_wanted(recipient.notify, told.action).then_some(dsn::Recipient {
                orcpt: recipient.orcpt.as_deref(),
                mailbox: &recipient.mailbox,
                action: told.action,
                reply: told.reply,
                remote: told.remote,
                host: told.host,
                last_attempt: told.last_attempt,
                retry_until: Some(original.expires),
            })
        })
        .collect();
    if recipients.is_empty() {
        return None;
    }
    let id = MessageId::new(now, random);
    let report = dsn::write(&dsn::Report {
        hostname: &config.hostname,
        to,
        message_id: &format!("{id}@{}", config.hostname),
        now,
        envid: original.envid.as_deref(),
        arrival: original.accepted,
        ret: original.ret,
        original: &message.body,
        recipients: &recipients,
    });
    let mail = SystemMail {
        id,
        tenant: original.tenant.clone(),
        to: vec![to.clone()],
        octets: report.octets,
        from_domain: Domain::parse(&config.hostname).ok(),
        smtputf8: report.smtputf8,
    };
    Some(system::new_message(config, mail, &format!("notification of message {}", original.id), now))
}

/// The pool that sends a tenant's mail; without one of its own the first that there is.
pub(super) fn pool_of(config: &Config, tenant: &Name) -> Name {
    let own = config.tenant(tenant).and_then(|tenant| tenant.pool.clone());
    let first = || config.pools.first().map(|pool| pool.name.clone());
    own.or_else(first).unwrap_or_else(|| Name::parse("default").expect("a literal that is a name"))
}

/// Writes what the queue engine owes, with the names of the configuration in force.
pub struct Reports {
    /// The configuration.
    pub config: Arc<ArcSwap<Config>>,
}

impl Notifier for Reports {
    fn notice(&self, report: &NoticeReport<'_>) -> Option<NewMessage> {
        let action = match report.kind {
            Notice::Failure => Action::Failed,
            Notice::Delay => Action::Delayed,
            Notice::Relayed => Action::Relayed,
        };
        let hosts: Vec<Option<String>> = report.recipients.iter().map(|r| r.peer.map(host_of)).collect();
        let expiries: Vec<Option<SmtpReply>> = report.recipients.iter().map(|r| expiry(&r.outcome)).collect();
        let told: Vec<Told<'_>> = report
            .recipients
            .iter()
            .zip(hosts.iter().zip(&expiries))
            .map(|(recipient, (host, expiry))| {
                let (reply, remote) = match &recipient.outcome {
                    NoticeOutcome::Relayed(reply) => (Some(*reply), true),
                    NoticeOutcome::Failed(failure) => (Some(&failure.reply), failure.remote),
                    NoticeOutcome::Expired { .. } => (expiry.as_ref(), false),
                };
                let (index, last_attempt) = (recipient.index, recipient.last_attempt);
                Told { index, action, reply, remote, host: host.as_deref(), last_attempt }
            })
            .collect();
        compose(report.message, &told, report.now, &self.config.load(), random::u128())
    }
}

fn host_of(peer: &Peer) -> String {
    peer.host.to_string()
}

/// RFC 3463 §3.5: X.4.7, delivery time expired; with the last words that were heard.
fn expiry(outcome: &NoticeOutcome<'_>) -> Option<SmtpReply> {
    let NoticeOutcome::Expired { failure, last_reply } = outcome else { return None };
    let last = match failure {
        Some(failure) => Some(failure.reply.to_string()),
        None => last_reply.map(str::to_owned),
    };
    let text = match last {
        Some(last) => format!("delivery time expired; the last attempt ended with: {last}"),
        None => "delivery time expired before an attempt could be made".into(),
    };
    Some(SmtpReply { code: 0, enhanced: Some("5.4.7".into()), text: text.into() })
}

#[cfg(test)]
mod tests;
