//! What tests of the queue are made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::TlsPolicy;
use crate::delivery::{Peer, Plan, PlanHost};
use crate::store::{EntryKey, Envelope, EnvelopeRecipient, QueueEntry, StoredMessage, Via};
use crate::types::{Class, DeliveryId, Domain, Mailbox, MessageId, Name, Notify, QueueKey, ReversePath, Timestamp};

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).expect("a valid name")
}

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a valid domain")
}

/// A message with a number as its random bits.
pub(crate) fn message(n: u64, accepted: Timestamp, to: &[&str], size: usize) -> Arc<StoredMessage> {
    let recipient = |to: &&str| EnvelopeRecipient {
        mailbox: Mailbox::parse(to).expect("a valid mailbox"),
        notify: Notify::Default,
        orcpt: None,
    };
    Arc::new(StoredMessage {
        envelope: Envelope {
            id: MessageId::new(accepted, u128::from(n)),
            tenant: name("acme"),
            class: Class::Transactional,
            campaign: None,
            tags: Vec::new(),
            metadata: None,
            reverse_path: ReversePath::Mailbox(Mailbox::parse("sender@acme.example").expect("a valid mailbox")),
            ret: None,
            envid: None,
            recipients: to.iter().map(recipient).collect(),
            accepted,
            expires: accepted.after(Duration::from_secs(4 * 86_400)),
            smtputf8: false,
            eight_bit: false,
            from_domain: None,
            via: Via::Smtp,
            client: None,
        },
        body: Bytes::from(vec![b'x'; size]),
    })
}

/// The first entry of one recipient.
pub(crate) fn entry(message: &StoredMessage, index: u32) -> QueueEntry {
    let envelope = &message.envelope;
    QueueEntry {
        key: EntryKey { due: envelope.accepted, delivery: DeliveryId { message: envelope.id, index } },
        accepted: envelope.accepted,
        expires: envelope.expires,
        attempts: 0,
        first_try: None,
        last_try: None,
        last_reply: None,
        size: message.body.len() as u32,
        recipients: envelope.recipients.len() as u32,
        delay_noticed: false,
    }
}

pub(crate) fn queue_key(tenant: &str, class: Class, to: &Domain) -> QueueKey {
    QueueKey { class, tenant: name(tenant), campaign: None, pool: name("default"), domain: to.clone() }
}

pub(crate) fn plan(host: &str, until: Timestamp) -> Arc<Plan> {
    Arc::new(Plan {
        site: format!("mx:{host}").into(),
        name: host.into(),
        provider: "other".into(),
        hosts: vec![PlanHost { name: host.into(), preference: 10, port: 25, address: None }],
        tls: TlsPolicy::None,
        implicit_tls: false,
        credentials: None,
        route: None,
        valid_until: until,
    })
}

pub(crate) fn peer(host: &str) -> Peer {
    let address = SocketAddr::from(([192, 0, 2, 1], 25));
    Peer { host: host.into(), address, local: None, tls: None, dsn: false }
}
