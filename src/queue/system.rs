//! Mail of our own: what the daemon itself has to say, queued as any other mail is.
//!
//! Policy and suppressions are not asked: nobody submitted it, and its recipients stand in the configuration. It has a null reverse-path, so
//! nothing ever comes back for it (RFC 5321 §4.5.5), and nobody is told what became of it (RFC 3461 §6.1).

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Config;
use crate::event::{Event, EventKind};
use crate::store::{EntryKey, Envelope, EnvelopeRecipient, NewDelivery, NewMessage, QueueEntry, StoredMessage, Via};
use crate::types::{Class, DeliveryId, Domain, Mailbox, MessageId, Name, Notify, QueueKey, ReversePath, Timestamp};

/// A mail of our own.
#[derive(Clone, Debug)]
pub struct SystemMail {
    /// Its id.
    pub id: MessageId,
    /// By whose pool it goes.
    pub tenant: Name,
    /// Who gets it.
    pub to: Vec<Mailbox>,
    /// The message, CRLF line ends.
    pub octets: Bytes,
    /// The domain of its From: what signs it.
    pub from_domain: Option<Domain>,
    /// Whether it needs SMTPUTF8.
    pub smtputf8: bool,
}

/// The message as it is queued; `what` says in its event why it is sent. Submit it as [`crate::store::Change::Accept`].
pub fn new_message(config: &Config, mail: SystemMail, what: &str, now: Timestamp) -> NewMessage {
    let SystemMail { id, tenant, to, octets, from_domain, smtputf8 } = mail;
    let eight_bit = octets.iter().any(|octet| *octet > 127);
    let envelope = Envelope {
        id,
        tenant: tenant.clone(),
        class: Class::Transactional,
        campaign: None,
        tags: Vec::new(),
        metadata: None,
        reverse_path: ReversePath::Null,
        ret: None,
        envid: None,
        recipients: to
            .into_iter()
            .map(|mailbox| EnvelopeRecipient { mailbox, notify: Notify::Never, orcpt: None })
            .collect(),
        accepted: now,
        expires: now.after(config.retry.expire_after.0),
        smtputf8,
        eight_bit,
        from_domain,
        via: Via::Internal,
        client: None,
    };
    let pool = super::notify::pool_of(config, &tenant);
    let (size, count) = (octets.len() as u64, u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX));
    let mut event = Event::new(EventKind::Accepted, now, tenant.clone());
    event.message_id = Some(id);
    event.sender = Some("".into());
    event.recipients = Some(count);
    event.size = Some(size);
    event.class = Some(Class::Transactional);
    event.pool = Some(pool.clone());
    event.via = Some("internal".into());
    event.reason = Some(what.into());
    let delivery = |(index, recipient): (u32, &EnvelopeRecipient)| NewDelivery {
        queue: QueueKey {
            class: Class::Transactional,
            tenant: tenant.clone(),
            campaign: None,
            pool: pool.clone(),
            domain: recipient.mailbox.domain().clone(),
        },
        entry: QueueEntry {
            key: EntryKey { due: now, delivery: DeliveryId { message: id, index } },
            accepted: now,
            expires: envelope.expires,
            attempts: 0,
            first_try: None,
            last_try: None,
            last_reply: None,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            recipients: count,
            delay_noticed: false,
            sent: None,
        },
    };
    let deliveries = (0..).zip(&envelope.recipients).map(delivery).collect();
    NewMessage { message: Arc::new(StoredMessage { envelope, body: octets }), deliveries, event }
}
