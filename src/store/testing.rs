//! What the tests of the store share: a store in a fresh folder, and messages to put into it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Change, EntryKey, Envelope, EnvelopeRecipient, NewDelivery, NewMessage, Next, Opened, QueueEntry, Settle, Settled,
    Space, SpaceProbe, StoreOptions, StoredMessage, Via, open,
};
use crate::config::Durability;
use crate::event::{Event, EventKind};
use crate::metrics::{Registry, store::StoreMetrics};
use crate::seam::clock::Clock;
use crate::types::{
    Class, DeliveryId, Mailbox, MessageId, Name, Notify, QueueId, QueueKey, Ret, ReversePath, Timestamp,
};

/// When the tests play: 2026-11-23T17:00:00Z.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_795_453_200_000);

/// Options for a store in `dir`: a clock that stands still, plenty of space, no sync (the tests crash no machine).
pub(super) fn options(dir: &Path) -> StoreOptions {
    let space = Space { free: 100 << 30, total: 200 << 30, inodes_free: 1 << 20, inodes: 1 << 21 };
    StoreOptions {
        dir: dir.to_owned(),
        durability: Durability::Os,
        cache: 8 << 20,
        event_retention: Duration::from_secs(3 * 86_400),
        min_free: 1 << 30,
        space: SpaceProbe::Given(Arc::new(move || space)),
        clock: Clock::manual(NOW),
        metrics: StoreMetrics::register(&Registry::new()),
        news_max: 256,
        workers: 3,
    }
}

pub(super) fn open_in(dir: &Path) -> Opened {
    open(options(dir)).expect("it opens")
}

pub(super) async fn shut(opened: Opened) {
    opened.ledger.shutdown().await;
    let Opened { ledger, reader, news, store, threads, .. } = opened;
    drop((ledger, reader, news, store));
    threads.join();
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

pub(super) fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("a mailbox")
}

pub(super) fn id(n: u64) -> MessageId {
    MessageId::new(NOW, u128::from(n) + 1)
}

pub(super) fn queue_key(domain: &str) -> QueueKey {
    QueueKey {
        class: Class::Transactional,
        tenant: name("acme"),
        campaign: None,
        pool: name("default"),
        domain: mailbox(&format!("x@{domain}")).domain().clone(),
    }
}

pub(super) fn event(kind: EventKind, message: MessageId, recipient: Option<&str>) -> Event {
    let mut event = Event::new(kind, NOW, name("acme"));
    event.message_id = Some(message);
    event.recipient = recipient.map(mailbox);
    event
}

/// A message to these recipients, due at once.
pub(super) fn message(n: u64, recipients: &[&str], body: &'static [u8]) -> NewMessage {
    let envelope = Envelope {
        id: id(n),
        tenant: name("acme"),
        class: Class::Transactional,
        campaign: Some(name("spring")),
        tags: vec![name("a"), name("b")],
        metadata: Some("{\"order\":7}".into()),
        reverse_path: ReversePath::Mailbox(mailbox("bounce@acme.example")),
        ret: Some(Ret::Headers),
        envid: Some("QQ314159".into()),
        recipients: recipients
            .iter()
            .map(|r| EnvelopeRecipient {
                mailbox: mailbox(r),
                notify: Notify::On { success: true, failure: false, delay: true },
                orcpt: Some("rfc822;x@y.example".into()),
            })
            .collect(),
        accepted: NOW,
        expires: NOW.after(Duration::from_secs(345_600)),
        smtputf8: false,
        eight_bit: true,
        from_domain: Some(mailbox("x@acme.example").domain().clone()),
        via: Via::Smtp,
        client: Some("192.0.2.1".into()),
    };
    let deliveries = recipients
        .iter()
        .enumerate()
        .map(|(index, r)| NewDelivery {
            queue: queue_key(mailbox(r).domain().as_str()),
            entry: entry(n, index as u32, NOW.as_millis(), body.len() as u32, recipients.len() as u32),
        })
        .collect();
    let message = Arc::new(StoredMessage { envelope, body: Bytes::from_static(body) });
    NewMessage { message, deliveries, event: event(EventKind::Accepted, id(n), None) }
}

pub(super) fn entry(n: u64, index: u32, due: u64, size: u32, recipients: u32) -> QueueEntry {
    QueueEntry {
        key: EntryKey { due: Timestamp::from_millis(due), delivery: DeliveryId { message: id(n), index } },
        accepted: NOW,
        expires: NOW.after(Duration::from_secs(345_600)),
        attempts: 0,
        first_try: None,
        last_try: None,
        last_reply: None,
        size,
        recipients,
        delay_noticed: false,
        sent: None,
    }
}

pub(super) fn accept(new: NewMessage) -> Vec<Change> {
    vec![Change::Accept(Box::new(new))]
}

/// An outcome of one entry.
pub(super) fn settle(queue: QueueId, entry: &QueueEntry, next: Next, events: Vec<Event>) -> Settle {
    let (key, size, recipients) = (entry.key, entry.size, entry.recipients);
    Settle {
        settled: vec![Settled { queue, key, size, recipients, sent: entry.sent, next, events }],
        owed: Vec::new(),
        changes: Vec::new(),
    }
}
