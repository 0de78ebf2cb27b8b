//! What tests of the queue are made of.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::TlsPolicy;
use crate::delivery::{Peer, Plan, PlanHost};
use crate::event::{Event, EventKind};
use crate::queue::notice::{Notice, NoticeReport, Notifier};
use crate::store::{EntryKey, Envelope, EnvelopeRecipient, NewDelivery, NewMessage, QueueEntry, StoredMessage, Via};
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
        sent: None,
    }
}

pub(crate) fn queue_key(tenant: &str, class: Class, to: &Domain) -> QueueKey {
    QueueKey { class, tenant: name(tenant), campaign: None, pool: name("default"), domain: to.clone() }
}

pub(crate) fn plan(host: &str, until: Timestamp) -> Arc<Plan> {
    Arc::new(Plan {
        site: format!("mx:{host}").into(),
        name: host.into(),
        provider: crate::config::Config::default().provider_of(None, [host]).into(),
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

/// Writes down what notifications are asked for; writes simple ones when it is told to.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub writes: Cell<bool>,
    pub told: RefCell<Vec<(Notice, MessageId, usize)>>,
}

impl Notifier for Recorder {
    fn notice(&self, report: &NoticeReport<'_>) -> Option<NewMessage> {
        let envelope = &report.message.envelope;
        assert!(envelope.reverse_path.mailbox().is_some(), "nobody is told about a notification");
        let mut told = self.told.borrow_mut();
        told.push((report.kind, envelope.id, report.recipients.len()));
        if !self.writes.get() {
            return None;
        }
        let to = envelope.reverse_path.mailbox()?.clone();
        let mut message = (*message(900_000 + told.len() as u64, report.now, &[to.as_str()], 300)).clone();
        message.envelope.reverse_path = ReversePath::Null;
        let queue = queue_key("acme", Class::Transactional, to.domain());
        let entry = entry(&message, 0);
        let event = Event::new(EventKind::Accepted, report.now, name("acme"));
        Some(NewMessage { message: Arc::new(message), deliveries: vec![NewDelivery { queue, entry }], event })
    }
}
