//! The keys of the keyspaces. Numbers are in network order, so that keys sort as what they mean.
//!
//! - `content`: message id (16)
//! - `queue`: queue (4), due (8), delivery (20)
//! - `queues`: queue (4)
//! - `events.<day>`: sequence (8)
//! - `trace.<day>`: `a` tenant `0` hash of the address (16) sequence (8), and `m` message id (16) sequence (8)
//! - `rows`: campaign (4), step (1), queue (4), slot (1), sequence (4): the order of [`RowId`]
//! - `sent`: campaign (4), step (1), hash of the address (16)
//! - `contacts`, `suppressions`, `rollups`: whatever their owners say
//! - `state`: a kind, a slash, and whatever the kind needs

use sha2::{Digest, Sha256};

use super::EntryKey;
use super::steps::StepKey;
use crate::types::{
    AddressHash, CampaignNo, DeliveryId, EventSeq, Mailbox, MessageId, Name, QueueId, RowId, Timestamp,
};

/// `state`: the format of the whole store.
pub(super) const STATE_FORMAT: &[u8] = b"ledger/format";
/// `state`: what the ledger knew after the last commit.
pub(super) const STATE_LAST: &[u8] = b"ledger/last";
/// `state`: where the numbers went on after a cut.
pub(super) const STATE_CUT: &[u8] = b"ledger/cut";
/// `state`: how many recipients of a message are not done, where it has several.
pub(super) const STATE_LEFT: &[u8] = b"left/";
/// `state`: answers to requests with an `Idempotency-Key`; the ledger expires them.
pub(super) const STATE_IDEMPOTENCY: &[u8] = b"idempotency/";
/// `state`: how far a reader of events has come, by its name: a sequence (8).
pub(super) const STATE_CURSOR: &[u8] = b"cursor/";
/// `state`: what is done once, and until when that is remembered (8).
pub(super) const STATE_ONCE: &[u8] = b"once/";
/// `state`: what is counted over some days: until when it is kept (8), and when each was counted (8).
pub(super) const STATE_TALLY: &[u8] = b"tally/";
/// `state`: when a record expires (8), and its key.
pub(super) const STATE_EXPIRY: &[u8] = b"expiry/";
/// `state`: how the rows of a campaign's step are sent: campaign (4), step (1).
pub(super) const STATE_RUN: &[u8] = b"rows/run/";
/// `state`: the counts of a campaign's step: campaign (4), step (1).
pub(super) const STATE_COUNTS: &[u8] = b"rows/counts/";
/// `state`: a campaign that is being purged (4), and how far that is.
pub(super) const STATE_PURGE: &[u8] = b"rows/purge/";
/// `state`: an address whose events are being erased: hash (16), tenant.
pub(super) const STATE_ERASURE: &[u8] = b"erasure/";

/// The length of a key in `rows`.
pub(super) const ROW_LEN: usize = 14;

/// The length of a key in `sent`.
pub(super) const SENT_LEN: usize = 21;

/// The length of a key in `queue`.
pub(super) const ENTRY_LEN: usize = 32;

/// The key of an entry in `queue`.
pub(super) fn entry(queue: QueueId, key: EntryKey) -> [u8; ENTRY_LEN] {
    let mut octets = [0; ENTRY_LEN];
    octets[..4].copy_from_slice(&queue.0.to_be_bytes());
    octets[4..12].copy_from_slice(&key.due.as_millis().to_be_bytes());
    octets[12..].copy_from_slice(&key.delivery.to_bytes());
    octets
}

/// The queue and the place in it of a key in `queue`.
pub(super) fn parse_entry(octets: &[u8]) -> Option<(QueueId, EntryKey)> {
    let octets: &[u8; ENTRY_LEN] = octets.try_into().ok()?;
    let due = u64::from_be_bytes(part(octets, 4));
    let key = EntryKey { due: Timestamp::from_millis(due), delivery: DeliveryId::from_bytes(part(octets, 12)) };
    Some((QueueId(u32::from_be_bytes(part(octets, 0))), key))
}

/// The first possible place in a queue.
pub(super) const FIRST_ENTRY: EntryKey =
    EntryKey { due: Timestamp::ZERO, delivery: DeliveryId { message: MessageId::from_bytes([0; 16]), index: 0 } };

/// The last possible place in a queue: where one stands that has no entries.
pub(super) const LAST_ENTRY: EntryKey = EntryKey {
    due: Timestamp::NEVER,
    delivery: DeliveryId { message: MessageId::from_bytes([0xff; 16]), index: u32::MAX },
};

/// The last possible key of a queue.
pub(super) fn last_entry(queue: QueueId) -> [u8; ENTRY_LEN] {
    let mut octets = [0xff; ENTRY_LEN];
    octets[..4].copy_from_slice(&queue.0.to_be_bytes());
    octets
}

/// The key in `queues`.
pub(super) fn queue(id: QueueId) -> [u8; 4] {
    id.0.to_be_bytes()
}

/// The queue of a key in `queues`.
pub(super) fn parse_queue(octets: &[u8]) -> Option<QueueId> {
    Some(QueueId(u32::from_be_bytes(octets.try_into().ok()?)))
}

/// The key in `rows`.
pub(super) fn row(id: RowId) -> [u8; ROW_LEN] {
    let mut octets = [0; ROW_LEN];
    octets[..4].copy_from_slice(&id.campaign.0.to_be_bytes());
    octets[4] = id.step;
    octets[5..9].copy_from_slice(&id.queue.0.to_be_bytes());
    octets[9] = id.slot;
    octets[10..].copy_from_slice(&id.seq.to_be_bytes());
    octets
}

/// The row of a key in `rows`.
pub(super) fn parse_row(octets: &[u8]) -> Option<RowId> {
    let octets: &[u8; ROW_LEN] = octets.try_into().ok()?;
    Some(RowId {
        campaign: CampaignNo(u32::from_be_bytes(part(octets, 0))),
        step: octets[4],
        queue: QueueId(u32::from_be_bytes(part(octets, 5))),
        slot: octets[9],
        seq: u32::from_be_bytes(part(octets, 10)),
    })
}

/// What all keys of a campaign in `rows` and `sent` begin with.
pub(super) fn campaign(campaign: CampaignNo) -> [u8; 4] {
    campaign.0.to_be_bytes()
}

/// The key in `sent`.
pub(super) fn sent((campaign, step): StepKey, hash: AddressHash) -> [u8; SENT_LEN] {
    let mut octets = [0; SENT_LEN];
    octets[..4].copy_from_slice(&campaign.0.to_be_bytes());
    octets[4] = step;
    octets[5..].copy_from_slice(&hash);
    octets
}

/// The key in `state` of a campaign's step, of the kind that `kind` says.
pub(super) fn step(kind: &[u8], (campaign, step): StepKey) -> Vec<u8> {
    [kind, &campaign.0.to_be_bytes(), &[step]].concat()
}

/// The campaign's step of such a key.
pub(super) fn parse_step(kind: &[u8], octets: &[u8]) -> Option<StepKey> {
    let octets: &[u8; 5] = octets.strip_prefix(kind)?.try_into().ok()?;
    Some((CampaignNo(u32::from_be_bytes(part(octets, 0))), octets[4]))
}

/// The key in `state` of a campaign that is being purged.
pub(super) fn purge(campaign: CampaignNo) -> Vec<u8> {
    [STATE_PURGE, &campaign.0.to_be_bytes()].concat()
}

/// The campaign of such a key.
pub(super) fn parse_purge(octets: &[u8]) -> Option<CampaignNo> {
    Some(CampaignNo(u32::from_be_bytes(octets.strip_prefix(STATE_PURGE)?.try_into().ok()?)))
}

/// The key in `state` of an address whose events are being erased.
pub(super) fn erasure(tenant: &Name, hash: AddressHash) -> Vec<u8> {
    [STATE_ERASURE, &hash, tenant.as_str().as_bytes()].concat()
}

/// The tenant and the address of such a key.
pub(super) fn parse_erasure(octets: &[u8]) -> Option<(Name, AddressHash)> {
    let (hash, tenant) = octets.strip_prefix(STATE_ERASURE)?.split_first_chunk()?;
    Some((Name::parse(std::str::from_utf8(tenant).ok()?).ok()?, *hash))
}

/// The key in `events.<day>`.
pub(super) fn event(seq: EventSeq) -> [u8; 8] {
    seq.0.to_be_bytes()
}

/// The sequence of a key in `events.<day>`.
pub(super) fn parse_event(octets: &[u8]) -> Option<EventSeq> {
    Some(EventSeq(u64::from_be_bytes(octets.try_into().ok()?)))
}

/// 128 bits by which an address is found, in `sent` and in the trace: of its canonical form, so that all its spellings meet.
pub fn address_hash(mailbox: &Mailbox) -> AddressHash {
    let digest = Sha256::digest(mailbox.canonical().as_bytes());
    part(&digest, 0)
}

/// What all keys in `trace.<day>` of one tenant and address begin with.
pub(super) fn trace_address_prefix(tenant: &str, hash: [u8; 16]) -> Vec<u8> {
    let mut octets = trace_tenant_prefix(tenant);
    octets.extend_from_slice(&hash);
    octets
}

/// The key in `trace.<day>` of an event that concerns an address.
pub(super) fn trace_address(tenant: &str, hash: [u8; 16], seq: EventSeq) -> Vec<u8> {
    let mut octets = trace_address_prefix(tenant, hash);
    octets.extend_from_slice(&seq.0.to_be_bytes());
    octets
}

/// What all keys in `trace.<day>` of addresses begin with.
pub(super) const TRACE_ADDRESSES: &[u8] = b"a";

/// What all keys in `trace.<day>` of messages begin with.
pub(super) const TRACE_MESSAGES: &[u8] = b"m";

/// What all keys in `trace.<day>` of one tenant begin with. A name has no NUL, so no tenant's keys mix with another's.
pub(super) fn trace_tenant_prefix(tenant: &str) -> Vec<u8> {
    let mut octets = Vec::with_capacity(1 + tenant.len() + 1 + 24);
    octets.extend_from_slice(TRACE_ADDRESSES);
    octets.extend_from_slice(tenant.as_bytes());
    octets.push(0);
    octets
}

/// The tenant in a key of an address in `trace.<day>`.
pub(super) fn trace_tenant(octets: &[u8]) -> Option<&str> {
    let rest = octets.strip_prefix(TRACE_ADDRESSES)?;
    let end = rest.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The sequence at the end of a key in `trace.<day>`.
pub(super) fn trace_seq(octets: &[u8]) -> Option<EventSeq> {
    Some(EventSeq(u64::from_be_bytes(octets.last_chunk().copied()?)))
}

/// What the keys in `trace.<day>` of one message begin with: `m` and its id.
pub(super) fn trace_message_prefix(id: MessageId) -> [u8; 17] {
    let mut octets = [b'm'; 17];
    octets[1..].copy_from_slice(&id.to_bytes());
    octets
}

/// The key in `trace.<day>` of a message's acceptance.
pub(super) fn trace_message(id: MessageId, seq: EventSeq) -> [u8; 25] {
    let mut octets = [0; 25];
    octets[..17].copy_from_slice(&trace_message_prefix(id));
    octets[17..].copy_from_slice(&seq.0.to_be_bytes());
    octets
}

/// The key in `state` of the recipients that a message has left.
pub(super) fn left(id: MessageId) -> Vec<u8> {
    [STATE_LEFT, &id.to_bytes()].concat()
}

/// The key in `state` that says when `key` expires.
pub(super) fn expiry(at: Timestamp, key: &[u8]) -> Vec<u8> {
    [STATE_EXPIRY, &at.as_millis().to_be_bytes(), key].concat()
}

/// The time and the key that an expiry speaks of.
pub(super) fn parse_expiry(octets: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (at, key) = octets.strip_prefix(STATE_EXPIRY)?.split_first_chunk()?;
    Some((Timestamp::from_millis(u64::from_be_bytes(*at)), key))
}

/// `N` octets from `at`; the callers' slices are long enough by their types.
fn part<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&octets[at..at + N]);
    array
}
