//! The records of the keyspaces: how the models become octets and come back.
//!
//! Each kind has its own version. A change of a record is a new version that the decoder reads beside the old one. What has nothing
//! of a campaign in it is still written as version 1.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{DecodeError, Decoder, Encoder};
use super::table::Places;
use super::{EntryKey, Envelope, EnvelopeRecipient, QueueEntry, QueueRow, QueueRows, StoredMessage, Via};
use crate::event::Event;
use crate::types::{
    CampaignNo, Class, DeliveryId, Domain, EventSeq, Mailbox, MessageId, Name, Notify, QueueId, QueueKey, Ret,
    ReversePath, Timestamp,
};

/// The newest version of each record that this program writes.
pub(super) const RECORD_VERSION: u8 = 1;

/// The version of a queue entry, and of a queue's row, that has something of a campaign's rows behind the fields of version 1.
const ROWS_VERSION: u8 = 2;

/// The octets before the envelope in a content value: version and the envelope's length.
const CONTENT_HEAD: usize = 5;

/// Envelope and body in one value: `version, envelope length (4), envelope, body`. The body is copied once.
pub(super) fn encode_content(message: &StoredMessage) -> Vec<u8> {
    let envelope = &message.envelope;
    let guess = 256 + envelope.recipients.len() * 64 + envelope.metadata.as_ref().map_or(0, |m| m.len());
    let mut out = Encoder::new(RECORD_VERSION, CONTENT_HEAD + guess + message.body.len());
    out.raw(&[0; 4]);
    encode_envelope(&mut out, envelope);
    let len = out.len() - CONTENT_HEAD;
    // An envelope is bounded by the recipients and the metadata that intake takes: far below 4 GiB.
    out.patch_u32(1, u32::try_from(len).unwrap_or(u32::MAX));
    out.raw(&message.body);
    out.finish()
}

fn encode_envelope(out: &mut Encoder, envelope: &Envelope) {
    out.text(envelope.tenant.as_str()).byte(class_byte(envelope.class));
    out.optional_text(envelope.campaign.as_ref().map(Name::as_str)).number(envelope.tags.len() as u64);
    for tag in &envelope.tags {
        out.text(tag.as_str());
    }
    out.optional_text(envelope.metadata.as_deref());
    out.optional_text(envelope.reverse_path.mailbox().map(Mailbox::as_str));
    out.byte(match envelope.ret {
        None => 0,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    });
    out.optional_text(envelope.envid.as_deref()).number(envelope.recipients.len() as u64);
    for recipient in &envelope.recipients {
        out.text(recipient.mailbox.as_str()).byte(recipient.notify.to_byte());
        out.optional_text(recipient.orcpt.as_deref());
    }
    out.number(envelope.accepted.as_millis()).number(envelope.expires.as_millis());
    out.flag(envelope.smtputf8).flag(envelope.eight_bit);
    out.optional_text(envelope.from_domain.as_ref().map(Domain::as_str));
    out.byte(match envelope.via {
        Via::Smtp => 0,
        Via::Http => 1,
        Via::Internal => 2,
        Via::Campaign => 3,
    });
    out.optional_text(envelope.client.as_deref());
}

/// The message of a content value; its body shares the value's memory.
pub(super) fn decode_content(id: MessageId, value: Bytes) -> Result<StoredMessage, DecodeError> {
    let mut head = Decoder::new(&value, RECORD_VERSION)?;
    let len = u32::from_be_bytes(head.array()?) as usize;
    let mut fields = Decoder::bare(head.raw(len)?);
    let envelope = decode_envelope(id, &mut fields)?;
    fields.end()?;
    Ok(StoredMessage { envelope, body: value.slice(CONTENT_HEAD + len..) })
}

fn decode_envelope(id: MessageId, d: &mut Decoder<'_>) -> Result<Envelope, DecodeError> {
    Ok(Envelope {
        id,
        tenant: name(d.text("tenant")?, "tenant")?,
        class: class(d.byte()?)?,
        campaign: d.option("campaign", |d| name(d.text("campaign")?, "campaign"))?,
        tags: list(d, |d| name(d.text("tag")?, "tag"))?,
        metadata: d.optional_text("metadata")?,
        reverse_path: match d.option("reverse-path", |d| mailbox(d.text("reverse-path")?))? {
            None => ReversePath::Null,
            Some(mailbox) => ReversePath::Mailbox(mailbox),
        },
        ret: match d.byte()? {
            0 => None,
            1 => Some(Ret::Full),
            2 => Some(Ret::Headers),
            _ => return Err(DecodeError::Field("ret")),
        },
        envid: d.optional_text("envid")?,
        recipients: list(d, |d| {
            Ok(EnvelopeRecipient {
                mailbox: mailbox(d.text("recipient")?)?,
                notify: Notify::from_byte(d.byte()?).ok_or(DecodeError::Field("notify"))?,
                orcpt: d.optional_text("orcpt")?,
            })
        })?,
        accepted: time(d)?,
        expires: time(d)?,
        smtputf8: d.flag("smtputf8")?,
        eight_bit: d.flag("eight_bit")?,
        from_domain: d.option("from domain", |d| domain(d.text("from domain")?))?,
        via: match d.byte()? {
            0 => Via::Smtp,
            1 => Via::Http,
            2 => Via::Internal,
            3 => Via::Campaign,
            _ => return Err(DecodeError::Field("via")),
        },
        client: d.optional_text("client")?,
    })
}

/// The value of a queue entry; its place is in the key.
pub(super) fn encode_entry(entry: &QueueEntry) -> Vec<u8> {
    let version = if entry.sent.is_some() { ROWS_VERSION } else { RECORD_VERSION };
    let mut out = Encoder::new(version, 64 + entry.last_reply.as_ref().map_or(0, |r| r.len()));
    out.number(entry.accepted.as_millis()).number(entry.expires.as_millis()).number(u64::from(entry.attempts));
    for at in [entry.first_try, entry.last_try] {
        out.option(at, |e, at| {
            e.number(at.as_millis());
        });
    }
    out.optional_text(entry.last_reply.as_deref());
    out.number(u64::from(entry.size)).number(u64::from(entry.recipients)).flag(entry.delay_noticed);
    if let Some(hash) = entry.sent {
        out.raw(&hash);
    }
    out.finish()
}

pub(super) fn decode_entry(key: EntryKey, value: &[u8]) -> Result<QueueEntry, DecodeError> {
    let mut d = Decoder::new(value, ROWS_VERSION)?;
    let entry = QueueEntry {
        key,
        accepted: time(&mut d)?,
        expires: time(&mut d)?,
        attempts: d.u32("attempts")?,
        first_try: d.option("first try", time)?,
        last_try: d.option("last try", time)?,
        last_reply: d.optional_text("last reply")?,
        size: d.u32("size")?,
        recipients: d.u32("recipients")?,
        delay_noticed: d.flag("delay noticed")?,
        sent: if value[0] == ROWS_VERSION { Some(d.array()?) } else { None },
    };
    d.end()?;
    Ok(entry)
}

/// The row of a queue, its watermark (no entry stands before that) and where it is in its campaign's rows.
pub(super) fn encode_row(row: &QueueRow, watermark: EntryKey, places: &Places) -> Vec<u8> {
    let mut out = Encoder::new(if row.rows.is_some() { ROWS_VERSION } else { RECORD_VERSION }, 192);
    let key = &row.key;
    out.byte(class_byte(key.class)).text(key.tenant.as_str());
    out.optional_text(key.campaign.as_ref().map(Name::as_str)).text(key.pool.as_str()).text(key.domain.as_str());
    out.number(row.next_due.as_millis()).number(row.count).number(row.bytes).number(row.oldest.as_millis());
    out.number(watermark.due.as_millis()).raw(&watermark.delivery.to_bytes());
    if let Some(rows) = row.rows {
        out.number(u64::from(rows.campaign.0)).byte(rows.step).number(rows.fresh).number(places.bytes);
        out.byte(places.mark.0).number(u64::from(places.mark.1));
        out.option(places.high, |e, (slot, seq)| {
            e.byte(slot).number(u64::from(seq));
        });
    }
    out.finish()
}

/// Whether the campaign runs is not in it: that is known once for all its queues.
pub(super) fn decode_row(id: QueueId, value: &[u8]) -> Result<(QueueRow, EntryKey, Places), DecodeError> {
    let mut d = Decoder::new(value, ROWS_VERSION)?;
    let key = QueueKey {
        class: class(d.byte()?)?,
        tenant: name(d.text("tenant")?, "tenant")?,
        campaign: d.option("campaign", |d| name(d.text("campaign")?, "campaign"))?,
        pool: name(d.text("pool")?, "pool")?,
        domain: domain(d.text("domain")?)?,
    };
    let mut row = QueueRow {
        id,
        key: Arc::new(key),
        next_due: time(&mut d)?,
        count: d.number()?,
        bytes: d.number()?,
        oldest: time(&mut d)?,
        rows: None,
    };
    let watermark = EntryKey { due: time(&mut d)?, delivery: DeliveryId::from_bytes(d.array()?) };
    let mut places = Places::default();
    if value[0] == ROWS_VERSION {
        let (campaign, step) = (CampaignNo(d.u32("campaign")?), d.byte()?);
        row.rows = Some(QueueRows { campaign, step, fresh: d.number()?, running: false });
        places.bytes = d.number()?;
        places.mark = (d.byte()?, d.u32("mark")?);
        places.high = d.option("high", |d| Ok((d.byte()?, d.u32("high")?)))?;
    }
    d.end()?;
    Ok((row, watermark, places))
}

/// An event: the version and its JSON, in the form that the API gives out.
pub(super) fn encode_event(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.push(RECORD_VERSION);
    // It has only strings, numbers and a map whose keys are field names: writing that into memory can't fail.
    serde_json::to_writer(&mut out, event).expect("an event is always JSON");
    out
}

pub(super) fn decode_event(value: &[u8]) -> Result<Event, DecodeError> {
    serde_json::from_slice(event_json(value)?).map_err(|_| DecodeError::Field("event"))
}

/// Only whose mail an event is about: what a reader of one tenant's events looks at first.
pub(super) fn event_is_of(value: &[u8], tenant: &Name) -> Result<bool, DecodeError> {
    #[derive(serde::Deserialize)]
    struct Owner<'a> {
        #[serde(borrow)]
        tenant: std::borrow::Cow<'a, str>,
    }
    let owner: Owner<'_> = serde_json::from_slice(event_json(value)?).map_err(|_| DecodeError::Field("event"))?;
    Ok(owner.tenant == tenant.as_str())
}

/// The JSON of an event.
pub(super) fn event_json(value: &[u8]) -> Result<&[u8], DecodeError> {
    match value.split_first() {
        None => Err(DecodeError::Short),
        Some((&RECORD_VERSION, json)) => Ok(json),
        Some((&found, _)) => Err(DecodeError::Version { found, known: RECORD_VERSION }),
    }
}

/// What the trace knows of a message: enough to find its events when its content is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MessageTrace {
    pub(super) tenant: Name,
    /// The hashes of its recipients' addresses.
    pub(super) recipients: Vec<[u8; 16]>,
}

pub(super) fn encode_trace(trace: &MessageTrace) -> Vec<u8> {
    let mut out = Encoder::new(RECORD_VERSION, 32 + trace.recipients.len() * 16);
    out.text(trace.tenant.as_str()).number(trace.recipients.len() as u64);
    for hash in &trace.recipients {
        out.raw(hash);
    }
    out.finish()
}

pub(super) fn decode_trace(value: &[u8]) -> Result<MessageTrace, DecodeError> {
    let mut d = Decoder::new(value, RECORD_VERSION)?;
    let trace = MessageTrace { tenant: name(d.text("tenant")?, "tenant")?, recipients: list(&mut d, Decoder::array)? };
    d.end()?;
    Ok(trace)
}

/// What the ledger knew after a commit; written in every batch, so it is never out of step with the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Last {
    /// How many commits there were.
    pub(super) commit: u64,
    /// The last event's number.
    pub(super) seq: EventSeq,
    /// The next new queue's number.
    pub(super) next_queue: u32,
}

pub(super) fn encode_last(last: Last) -> Vec<u8> {
    let mut out = Encoder::new(RECORD_VERSION, 32);
    out.number(last.commit).number(last.seq.0).number(u64::from(last.next_queue));
    out.finish()
}

pub(super) fn decode_last(value: &[u8]) -> Result<Last, DecodeError> {
    let mut d = Decoder::new(value, RECORD_VERSION)?;
    let last = Last { commit: d.number()?, seq: EventSeq(d.number()?), next_queue: d.u32("next queue")? };
    d.end()?;
    Ok(last)
}

/// A bare count with a version: recipients left, the format.
pub(super) fn encode_count(count: u32) -> Vec<u8> {
    let mut out = Encoder::new(RECORD_VERSION, 6);
    out.number(u64::from(count));
    out.finish()
}

pub(super) fn decode_count(value: &[u8]) -> Result<u32, DecodeError> {
    let mut d = Decoder::new(value, RECORD_VERSION)?;
    let count = d.u32("count")?;
    d.end()?;
    Ok(count)
}

fn class_byte(class: Class) -> u8 {
    match class {
        Class::Transactional => 0,
        Class::Marketing => 1,
    }
}

fn class(byte: u8) -> Result<Class, DecodeError> {
    match byte {
        0 => Ok(Class::Transactional),
        1 => Ok(Class::Marketing),
        _ => Err(DecodeError::Field("class")),
    }
}

fn time(d: &mut Decoder<'_>) -> Result<Timestamp, DecodeError> {
    d.number().map(Timestamp::from_millis)
}

fn name(text: &str, field: &'static str) -> Result<Name, DecodeError> {
    Name::parse(text).map_err(|_| DecodeError::Field(field))
}

fn domain(text: &str) -> Result<Domain, DecodeError> {
    Domain::parse(text).map_err(|_| DecodeError::Field("domain"))
}

fn mailbox(text: &str) -> Result<Mailbox, DecodeError> {
    Mailbox::parse(text).map_err(|_| DecodeError::Field("mailbox"))
}

fn list<'a, T>(
    d: &mut Decoder<'a>,
    mut read: impl FnMut(&mut Decoder<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = d.number()?;
    // The count is not trusted with memory: a list grows as its items are really there.
    let mut items = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(64));
    for _ in 0..count {
        items.push(read(d)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests;
