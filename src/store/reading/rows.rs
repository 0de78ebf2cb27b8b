//! Reads of campaigns' rows, and of the tables that others lay out.
//!
//! A fresh row has no entry in `queue`: a refill makes one from the row, as long as the campaign runs. Its place among the entries is
//! known from its id and the run alone, so a cursor finds its way back into the rows.

use std::collections::BTreeSet;
use std::ops::Bound;

use ahash::AHashMap;
use bytes::Bytes;
use fjall::Readable;

use super::super::steps::StepKey;
use super::super::table::{Places, slot_due};
use super::super::{
    DecodeError, EntryKey, QueueEntry, QueueRow, Row, Run, RunCounts, Sent, SentStatus, StateRecord, Table, keys,
    row_records,
};
use super::{LOOKED_AT_MAX, Read, View};
use crate::event::Event;
use crate::types::{AddressHash, CampaignNo, DeliveryId, MessageId, QueueId, RowId, SLOT_MILLIS};

/// The fresh rows of a queue, as entries.
pub(super) struct Fresh<'v, 'a> {
    view: &'v View<'a>,
    /// `None`: the queue has none, or its campaign does not run.
    scan: Option<(fjall::Iter, Run)>,
    step: StepKey,
    places: Places,
}

impl Fresh<'_, '_> {
    /// The next one.
    pub(super) fn next_entry(&mut self) -> Read<Option<QueueEntry>> {
        let Some((scan, run)) = &mut self.scan else { return Ok(None) };
        for guard in scan {
            let (octets, value) = guard.into_inner()?;
            let row = keys::parse_row(&octets).ok_or(DecodeError::Short);
            let row = row.and_then(|row| row_records::row_hash(&value).map(|hash| (row, hash)));
            let Some((row, hash)) = self.view.readable("row", row) else { continue };
            // Behind the highest that was ever taken, nothing was taken.
            if Some((row.slot, row.seq)) <= self.places.high {
                let sent = self.view.sent_of(self.step, hash)?;
                if sent != Some(Sent { row, status: SentStatus::Waiting }) {
                    continue;
                }
            }
            let size = value.len() - row_records::ROW_HEAD;
            return Ok(Some(entry(row, hash, *run, u32::try_from(size).unwrap_or(u32::MAX))));
        }
        Ok(None)
    }
}

/// What a fresh row looks like in a queue.
fn entry(row: RowId, hash: AddressHash, run: Run, size: u32) -> QueueEntry {
    let key = place_of(row, run);
    QueueEntry {
        key,
        accepted: run.accepted,
        expires: key.due.after(run.expire_after),
        attempts: 0,
        first_try: None,
        last_try: None,
        last_reply: None,
        size,
        recipients: 1,
        delay_noticed: false,
        sent: Some(hash),
    }
}

fn place_of(row: RowId, run: Run) -> EntryKey {
    EntryKey { due: slot_due(run, row.slot), delivery: DeliveryId { message: row.message_id(), index: 0 } }
}

/// Where the rows of a queue go on behind a cursor; `None`: nowhere. `slot` and `seq` of the rows that `of` makes are free.
fn behind(cursor: EntryKey, run: Run, of: impl Fn(u8, u32) -> RowId) -> Option<Bound<RowId>> {
    if cursor.due < run.due {
        return Some(Bound::Included(of(0, 0)));
    }
    let slots = cursor.due.as_millis().saturating_sub(run.due.as_millis()) / SLOT_MILLIS;
    let slot = u8::try_from(slots).ok()?;
    if cursor < place_of(of(slot, 0), run) {
        return Some(Bound::Included(of(slot, 0)));
    }
    if cursor >= place_of(of(slot, u32::MAX), run) {
        return slot.checked_add(1).map(|slot| Bound::Included(of(slot, 0)));
    }
    // Between two rows of the slot, whose ids differ in their last 32 bits only: so it has their sequence in its own.
    RowId::of(cursor.delivery.message).map(|row| Bound::Excluded(of(slot, row.seq)))
}

impl<'a> View<'a> {
    /// The fresh rows of a queue strictly behind a cursor, or from its mark.
    pub(super) fn fresh<'v>(
        &'v self,
        queue: &QueueRow,
        places: Places,
        after: Option<EntryKey>,
    ) -> Read<Fresh<'v, 'a>> {
        let none = Fresh { view: self, scan: None, step: (CampaignNo(0), 0), places };
        let Some(rows) = queue.rows.filter(|rows| rows.fresh > 0) else { return Ok(none) };
        let step = (rows.campaign, rows.step);
        let Some(run) = self.run_of(step)? else { return Ok(none) };
        let of = |slot, seq| row_of(step, queue.id, slot, seq);
        let mark = of(places.mark.0, places.mark.1);
        let from = match after.map(|cursor| behind(cursor, run, of)) {
            None => Bound::Included(mark),
            Some(None) => return Ok(none),
            Some(Some(Bound::Excluded(row))) if row >= mark => Bound::Excluded(row),
            Some(Some(Bound::Included(row))) if row >= mark => Bound::Included(row),
            Some(Some(_)) => Bound::Included(mark),
        };
        let to = Bound::Included(keys::row(of(u8::MAX, u32::MAX)));
        let scan = self.at.range(&self.spaces.rows, (from.map(keys::row), to));
        Ok(Fresh { view: self, scan: Some((scan, run)), step, places })
    }

    /// All runs that are on.
    pub(super) fn runs(&self) -> Read<AHashMap<StepKey, Run>> {
        let mut runs = AHashMap::new();
        for guard in self.at.prefix(&self.spaces.state, keys::STATE_RUN) {
            let (key, value) = guard.into_inner()?;
            let run = keys::parse_step(keys::STATE_RUN, &key).ok_or(DecodeError::Short);
            let run = run.and_then(|step| Ok((step, row_records::decode_run(&value)?)));
            runs.extend(self.readable("run", run));
        }
        Ok(runs)
    }

    fn run_of(&self, step: StepKey) -> Read<Option<Run>> {
        let value = self.at.get(&self.spaces.state, keys::step(keys::STATE_RUN, step))?;
        Ok(value.map(|value| row_records::decode_run(&value)).transpose()?)
    }

    /// The run of a step and its counts.
    pub(super) fn run(&self, step: StepKey) -> Read<(Option<Run>, RunCounts)> {
        let value = self.at.get(&self.spaces.state, keys::step(keys::STATE_COUNTS, step))?;
        let counts = value.map(|value| row_records::decode_counts(&value)).transpose()?;
        Ok((self.run_of(step)?, counts.unwrap_or_default()))
    }

    /// Rows of a campaign, strictly behind one of them.
    pub(super) fn rows(&self, campaign: CampaignNo, after: Option<RowId>, limit: usize) -> Read<Vec<Row>> {
        let first = row_of((campaign, 0), QueueId(0), 0, 0);
        let from = after.map_or(Bound::Included(first), Bound::Excluded).map(keys::row);
        let to = keys::row(row_of((campaign, u8::MAX), QueueId(u32::MAX), u8::MAX, u32::MAX));
        let mut rows = Vec::new();
        // A cursor of another campaign finds nothing, instead of a range that ends before it begins.
        if after.is_some_and(|row| row.campaign != campaign) {
            return Ok(rows);
        }
        for guard in self.at.range(&self.spaces.rows, (from, Bound::Included(to))).take(limit) {
            let (key, value) = guard.into_inner()?;
            let row = keys::parse_row(&key).ok_or(DecodeError::Short);
            let row = row.and_then(|id| row_records::decode_row_value(id, Bytes::from(value)));
            rows.extend(self.readable("row", row));
        }
        Ok(rows)
    }

    /// One row.
    pub(super) fn row(&self, id: RowId) -> Read<Option<Row>> {
        let value = self.at.get(&self.spaces.rows, keys::row(id))?;
        Ok(value.map(|value| row_records::decode_row_value(id, Bytes::from(value))).transpose()?)
    }

    /// What `sent` says of addresses.
    pub(super) fn sent(&self, step: StepKey, hashes: &[AddressHash]) -> Read<Vec<Option<Sent>>> {
        hashes.iter().map(|hash| self.sent_of(step, *hash)).collect()
    }

    fn sent_of(&self, step: StepKey, hash: AddressHash) -> Read<Option<Sent>> {
        let value = self.at.get(&self.spaces.sent, keys::sent(step, hash))?;
        Ok(value.map(|value| row_records::decode_sent(step, &value)).transpose()?)
    }

    /// Records of a table.
    pub(super) fn table_get(&self, table: Table, keys: &[Vec<u8>]) -> Read<Vec<Option<Bytes>>> {
        let space = self.spaces.table(table);
        keys.iter().map(|key| Ok(self.at.get(space, key)?.map(Bytes::from))).collect()
    }

    /// Records of a table whose keys begin with a prefix.
    pub(super) fn table_scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Read<Vec<StateRecord>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let mut records = Vec::new();
        for guard in self.at.range(self.spaces.table(table), (from, Bound::Unbounded)).take(limit) {
            let (key, value) = guard.into_inner()?;
            if !key.starts_with(&prefix) {
                break;
            }
            records.push((Bytes::from(key), Bytes::from(value)));
        }
        Ok(records)
    }

    /// The events of a row, by its address. Which tenant it is of stands in its campaign, not here: the row's queue may be gone.
    pub(super) fn trace_row(&self, row: RowId, limit: usize) -> Read<Vec<Event>> {
        let Some(Row { hash, .. }) = self.row(row)? else { return Ok(Vec::new()) };
        let id: MessageId = row.message_id();
        let mut found = BTreeSet::new();
        for day in self.days.iter() {
            for tenant in self.tenants(day)? {
                self.trace_tenant(day, &tenant, hash, LOOKED_AT_MAX, &mut found)?;
            }
        }
        let mut events = Vec::new();
        for seq in found {
            if events.len() >= limit {
                break;
            }
            events.extend(self.event(seq)?.filter(|event| event.message_id == Some(id)));
        }
        Ok(events)
    }
}

fn row_of((campaign, step): StepKey, queue: QueueId, slot: u8, seq: u32) -> RowId {
    RowId { campaign, step, queue, slot, seq }
}
