//! The records of campaigns: rows, what became of them, runs and their counts.

use std::time::Duration;

use bytes::Bytes;

use super::codec::{DecodeError, Decoder, Encoder};
use super::steps::{Purge, Stage, StepKey};
use super::{Row, Run, RunCounts, Sent, SentStatus};
use crate::event::EventKind;
use crate::types::{AddressHash, QueueId, RowId, Timestamp};

/// The newest version of each record here that this program writes.
const VERSION: u8 = 1;
/// The version of counts: since 2 they have the late bounces.
const COUNTS_VERSION: u8 = 2;

/// What stands before the submitter's octets in the value of a row: version and hash.
pub(super) const ROW_HEAD: usize = 17;

/// The value of a row: `version, hash (16)`, then what `campaign` wrote.
pub(super) fn encode_row_value(hash: AddressHash, value: &[u8]) -> Vec<u8> {
    let mut out = Encoder::new(VERSION, ROW_HEAD + value.len());
    out.raw(&hash).raw(value);
    out.finish()
}

/// The row of a value; it shares the value's memory.
pub(super) fn decode_row_value(id: RowId, value: Bytes) -> Result<Row, DecodeError> {
    let hash = row_hash(&value)?;
    Ok(Row { id, hash, value: value.slice(ROW_HEAD..) })
}

/// Only whose row it is.
pub(super) fn row_hash(value: &[u8]) -> Result<AddressHash, DecodeError> {
    Decoder::new(value, VERSION)?.array()
}

/// What became of an address; campaign, step and address are in the key.
pub(super) fn encode_sent(sent: Sent) -> Vec<u8> {
    let mut out = Encoder::new(VERSION, 24);
    let Sent { row, status } = sent;
    out.byte(match status {
        SentStatus::Waiting => 0,
        SentStatus::Queued => 1,
        SentStatus::Ended(..) => 2,
    });
    out.number(u64::from(row.queue.0)).byte(row.slot).number(u64::from(row.seq));
    if let SentStatus::Ended(kind, at) = status {
        out.byte(kind_byte(kind)).number(at.as_millis());
    }
    out.finish()
}

pub(super) fn decode_sent((campaign, step): StepKey, value: &[u8]) -> Result<Sent, DecodeError> {
    let mut d = Decoder::new(value, VERSION)?;
    let status = d.byte()?;
    let (queue, slot, seq) = (QueueId(d.u32("queue")?), d.byte()?, d.u32("sequence")?);
    let status = match status {
        0 => SentStatus::Waiting,
        1 => SentStatus::Queued,
        2 => SentStatus::Ended(kind(d.byte()?)?, Timestamp::from_millis(d.number()?)),
        _ => return Err(DecodeError::Field("status")),
    };
    d.end()?;
    Ok(Sent { row: RowId { campaign, step, queue, slot, seq }, status })
}

/// Only whether no outcome of it is known.
pub(super) fn is_waiting(value: &[u8]) -> bool {
    value.starts_with(&[VERSION, 0])
}

pub(super) fn encode_run(run: Run) -> Vec<u8> {
    let mut out = Encoder::new(VERSION, 24);
    let expire_after = u64::try_from(run.expire_after.as_millis()).unwrap_or(u64::MAX);
    out.number(run.accepted.as_millis()).number(run.due.as_millis()).number(expire_after);
    out.finish()
}

pub(super) fn decode_run(value: &[u8]) -> Result<Run, DecodeError> {
    let mut d = Decoder::new(value, VERSION)?;
    let (accepted, due) = (Timestamp::from_millis(d.number()?), Timestamp::from_millis(d.number()?));
    let run = Run { accepted, due, expire_after: Duration::from_millis(d.number()?) };
    d.end()?;
    Ok(run)
}

pub(super) fn encode_counts(counts: &RunCounts) -> Vec<u8> {
    let mut out = Encoder::new(COUNTS_VERSION, 32 + counts.events.len() * 4);
    out.number(counts.rows).number(counts.fresh).number(counts.queued).number(counts.dropped);
    out.number(counts.events.len() as u64);
    for (kind, count) in &counts.events {
        out.byte(kind_byte(*kind)).number(*count);
    }
    out.number(counts.late_bounces);
    out.finish()
}

pub(super) fn decode_counts(value: &[u8]) -> Result<RunCounts, DecodeError> {
    let mut d = Decoder::new(value, COUNTS_VERSION)?;
    let mut counts = RunCounts {
        rows: d.number()?,
        fresh: d.number()?,
        queued: d.number()?,
        dropped: d.number()?,
        ..RunCounts::default()
    };
    for _ in 0..d.number()? {
        counts.events.insert(kind(d.byte()?)?, d.number()?);
    }
    if value.first() != Some(&1) {
        counts.late_bounces = d.number()?;
    }
    d.end()?;
    Ok(counts)
}

/// How far a purge is; its campaign is in the key.
pub(super) fn encode_purge(purge: &Purge) -> Vec<u8> {
    let mut out = Encoder::new(VERSION, 32);
    out.byte(match purge.stage {
        Stage::Rows => 0,
        Stage::Sent => 1,
    });
    out.number(purge.after.len() as u64).raw(&purge.after);
    out.finish()
}

pub(super) fn decode_purge(value: &[u8]) -> Result<Purge, DecodeError> {
    let mut d = Decoder::new(value, VERSION)?;
    let stage = match d.byte()? {
        0 => Stage::Rows,
        1 => Stage::Sent,
        _ => return Err(DecodeError::Field("stage")),
    };
    let len = usize::try_from(d.number()?).map_err(|_| DecodeError::Short)?;
    let purge = Purge { stage, after: d.raw(len)?.to_vec() };
    d.end()?;
    Ok(purge)
}

/// The octet of a kind of event. These never change: a new kind gets a new one.
fn kind_byte(kind: EventKind) -> u8 {
    match kind {
        EventKind::Accepted => 0,
        EventKind::Rejected => 1,
        EventKind::Deferred => 2,
        EventKind::Delayed => 3,
        EventKind::Delivered => 4,
        EventKind::Bounced => 5,
        EventKind::Failed => 6,
        EventKind::Expired => 7,
        EventKind::Suppressed => 8,
        EventKind::RenderingFailed => 9,
        EventKind::Cancelled => 10,
        EventKind::Purged => 11,
        EventKind::Rerouted => 12,
        EventKind::Complained => 13,
        EventKind::Opened => 14,
        EventKind::Clicked => 15,
        EventKind::Unsubscribed => 16,
        EventKind::Suspended => 17,
        EventKind::Resumed => 18,
        EventKind::CampaignStarted => 19,
        EventKind::CampaignPaused => 20,
        EventKind::CampaignResumed => 21,
        EventKind::CampaignCancelled => 22,
        EventKind::CampaignHalted => 23,
        EventKind::CampaignDone => 24,
        EventKind::Gap => 25,
        EventKind::AutoReplied => 26,
        EventKind::Adapted => 27,
        EventKind::WarmupChanged => 28,
        EventKind::Alert => 29,
    }
}

fn kind(byte: u8) -> Result<EventKind, DecodeError> {
    EventKind::ALL.into_iter().find(|kind| kind_byte(*kind) == byte).ok_or(DecodeError::Field("kind of event"))
}

#[cfg(test)]
mod tests;
