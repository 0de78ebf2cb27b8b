//! The reader threads: point reads and bounded scans, each request at one snapshot of the whole database.
//!
//! A thread takes a request, reads, answers, takes the next. What can't be read of a scan is counted, told to the log and left
//! out: one bad record must not hide the good ones behind it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fjall::{Readable, Snapshot};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::spaces::{Day, Spaces};
use super::{
    DecodeError, EntryKey, EventGap, EventsPage, QueueEntry, QueueRow, ReadError, ReadRequest, Refill, StateRecord,
    StoredMessage, keys, records, table,
};
use crate::event::Event;
use crate::metrics::store::StoreMetrics;
use crate::types::{EventSeq, Mailbox, MessageId, Name, QueueId, RowId};

mod log;
mod rows;

/// The most events that a page with a filter looks at; then it ends, perhaps empty, with a cursor to go on from.
const LOOKED_AT_MAX: usize = 20_000;

/// The most octets of events in a page.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Fjall(#[from] fjall::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

type Read<T> = Result<T, Failure>;

/// Serves requests until no handle is left.
pub(super) fn run(spaces: &Spaces, requests: &Mutex<mpsc::Receiver<ReadRequest>>, metrics: &StoreMetrics) {
    loop {
        // Whoever has the lock waits for a request; it is given back with the request, before the reading.
        let request = requests.lock().blocking_recv();
        let Some(request) = request else { return };
        let began = Instant::now();
        View::new(spaces, metrics).serve(request);
        metrics.read_seconds.observe(began.elapsed().as_secs_f64());
    }
}

/// The store at one moment.
struct View<'a> {
    spaces: &'a Spaces,
    /// Taken before the snapshot: a day that comes after is empty in it.
    days: Arc<Vec<Arc<Day>>>,
    at: Snapshot,
    metrics: &'a StoreMetrics,
}

impl<'a> View<'a> {
    fn new(spaces: &'a Spaces, metrics: &'a StoreMetrics) -> Self {
        Self { spaces, days: spaces.days.load_full(), at: spaces.db.snapshot(), metrics }
    }

    fn serve(&self, request: ReadRequest) {
        // An answer that nobody waits for any more is dropped: there is nothing else to do with it.
        match request {
            ReadRequest::Refill { queue, after, limit, reply } => {
                let _ = reply.send(told(self.refill(queue, after, limit)));
            }
            ReadRequest::Message { id, reply } => {
                let _ = reply.send(told(self.message(id)));
            }
            ReadRequest::Events { after, limit, tenant, reply } => {
                let _ = reply.send(told(self.events(after, limit, tenant.as_ref())));
            }
            ReadRequest::Log { after, limit, reply } => {
                let _ = reply.send(told(self.log(after, limit)));
            }
            ReadRequest::TraceAddress { tenant, address, limit, reply } => {
                let _ = reply.send(told(self.trace_address(tenant.as_ref(), &address, limit)));
            }
            ReadRequest::TraceMessage { id, limit, reply } => {
                let _ = reply.send(told(self.trace_message(id, limit)));
            }
            ReadRequest::State { prefix, limit, reply } => {
                let _ = reply.send(told(self.state(&prefix, limit)));
            }
            ReadRequest::StateGet { key, reply } => {
                let found = self.at.get(&self.spaces.state, key).map(|v| v.map(Bytes::from));
                let _ = reply.send(told(found.map_err(Failure::from)));
            }
            ReadRequest::Rows { campaign, after, limit, reply } => {
                let _ = reply.send(told(self.rows(campaign, after, limit)));
            }
            ReadRequest::Row { id, reply } => {
                let _ = reply.send(told(self.row(id)));
            }
            ReadRequest::RowsAt { ids, reply } => {
                let _ = reply.send(told(ids.into_iter().map(|id| self.row(id)).collect()));
            }
            ReadRequest::Sent { campaign, step, hashes, reply } => {
                let _ = reply.send(told(self.sent((campaign, step), &hashes)));
            }
            ReadRequest::Run { campaign, step, reply } => {
                let _ = reply.send(told(self.run((campaign, step))));
            }
            ReadRequest::TableGet { table, keys, reply } => {
                let _ = reply.send(told(self.table_get(table, &keys)));
            }
            ReadRequest::TableScan { table, prefix, after, limit, reply } => {
                let _ = reply.send(told(self.table_scan(table, prefix, after, limit)));
            }
            ReadRequest::Queues { reply } => {
                let _ = reply.send(told(self.queues()));
            }
        }
    }

    /// The entries of a queue and the fresh rows of its campaign, merged.
    fn refill(&self, queue: QueueId, after: Option<EntryKey>, limit: usize) -> Read<Refill> {
        let row = self.at.get(&self.spaces.queues, keys::queue(queue))?;
        // No row, no entries.
        let Some(row) = row else { return Ok(Refill { entries: Vec::new(), exhausted: true }) };
        let (row, watermark, places) = records::decode_row(queue, &row)?;
        let from = match after {
            Some(key) => Bound::Excluded(keys::entry(queue, key)),
            // Never from the start of the queue: a million tombstones may stand there.
            None => Bound::Included(keys::entry(queue, watermark)),
        };
        let mut refill = Refill { entries: Vec::with_capacity(limit.min(1_024)), exhausted: false };
        let mut waiting = self.at.range(&self.spaces.queue, (from, Bound::Included(keys::last_entry(queue))));
        let mut fresh = self.fresh(&row, places, after)?;
        let (mut next_waiting, mut next_fresh) = (self.next_entry(&mut waiting)?, fresh.next_entry()?);
        while refill.entries.len() < limit {
            let fresh_first = match (&next_waiting, &next_fresh) {
                (None, None) => {
                    refill.exhausted = true;
                    break;
                }
                (waiting, Some(fresh)) => waiting.as_ref().is_none_or(|waiting| fresh.key < waiting.key),
                (Some(_), None) => false,
            };
            if fresh_first {
                refill.entries.extend(std::mem::replace(&mut next_fresh, fresh.next_entry()?));
            } else {
                refill.entries.extend(std::mem::replace(&mut next_waiting, self.next_entry(&mut waiting)?));
            }
        }
        Ok(refill)
    }

    /// The next entry of a scan that is readable.
    fn next_entry(&self, scan: &mut fjall::Iter) -> Read<Option<QueueEntry>> {
        for guard in scan {
            let (octets, value) = guard.into_inner()?;
            let entry = keys::parse_entry(&octets)
                .ok_or(DecodeError::Short)
                .and_then(|(_, key)| records::decode_entry(key, &value));
            if let Some(entry) = self.readable("queue entry", entry) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn message(&self, id: MessageId) -> Read<Option<Arc<StoredMessage>>> {
        let Some(value) = self.at.get(&self.spaces.content, id.to_bytes())? else { return Ok(None) };
        Ok(Some(Arc::new(records::decode_content(id, Bytes::from(value))?)))
    }

    fn queues(&self) -> Read<Vec<QueueRow>> {
        let mut rows = Vec::new();
        let runs = self.runs()?;
        for guard in self.at.iter(&self.spaces.queues) {
            let (key, value) = guard.into_inner()?;
            let row = keys::parse_queue(&key).ok_or(DecodeError::Short).and_then(|id| records::decode_row(id, &value));
            let row = self.readable("queue", row);
            rows.extend(row.map(|(row, _, places)| {
                let run = row.rows.and_then(|rows| runs.get(&(rows.campaign, rows.step)).copied());
                table::told(&row, &places, run)
            }));
        }
        Ok(rows)
    }

    fn state(&self, prefix: &[u8], limit: usize) -> Read<Vec<StateRecord>> {
        let mut records = Vec::new();
        for guard in self.at.prefix(&self.spaces.state, prefix).take(limit) {
            let (key, value) = guard.into_inner()?;
            records.push((Bytes::from(key), Bytes::from(value)));
        }
        Ok(records)
    }

    fn events(&self, after: EventSeq, limit: usize, tenant: Option<&Name>) -> Read<EventsPage> {
        let mut page = EventsPage { next: after, gap: self.gap(after), ..EventsPage::default() };
        let (mut looked_at, mut bytes) = (0, 0);
        for (index, day) in self.days.iter().enumerate() {
            // A day ends where the next one begins.
            if self.days.get(index + 1).is_some_and(|next| next.first.0 <= after.0.saturating_add(1)) {
                continue;
            }
            let from = Bound::Excluded(keys::event(page.next));
            for guard in self.at.range(&day.events, (from, Bound::Unbounded)) {
                if page.events.len() >= limit || looked_at >= LOOKED_AT_MAX || bytes >= PAGE_BYTES_MAX {
                    page.more = true;
                    return Ok(page);
                }
                let (key, value) = guard.into_inner()?;
                looked_at += 1;
                page.next = keys::parse_event(&key).unwrap_or(page.next);
                let wanted = match tenant {
                    Some(tenant) => self.readable("event", records::event_is_of(&value, tenant)).unwrap_or(false),
                    None => true,
                };
                if wanted {
                    bytes += value.len();
                    page.events.extend(self.readable("event", records::decode_event(&value)));
                }
            }
        }
        Ok(page)
    }

    /// What is missing between a cursor and the oldest event there is. A cursor of 0 asks for what there is, not for all there ever was.
    fn gap(&self, after: EventSeq) -> Option<EventGap> {
        let oldest = self.days.first()?.first;
        let missing = after.0 > 0 && oldest.0 > after.0 + 1;
        missing.then(|| EventGap { from: EventSeq(after.0 + 1), to: EventSeq(oldest.0 - 1) })
    }

    fn trace_address(&self, tenant: Option<&Name>, address: &Mailbox, limit: usize) -> Read<Vec<Event>> {
        let hash = keys::address_hash(address);
        let canonical = address.canonical();
        let mut found = BTreeSet::new();
        for day in self.days.iter().rev() {
            if found.len() >= limit {
                break;
            }
            match tenant {
                Some(tenant) => self.trace_tenant(day, tenant.as_str(), hash, limit, &mut found)?,
                None => {
                    for tenant in self.tenants(day)? {
                        self.trace_tenant(day, &tenant, hash, limit, &mut found)?;
                    }
                }
            }
        }
        // A hash of 128 bits that two addresses share would be a discovery; still, nobody sees another's events.
        let is_it = |event: &Event| event.recipient.as_ref().is_none_or(|r| r.canonical() == canonical);
        let mut events = Vec::new();
        for seq in found.into_iter().rev().take(limit) {
            events.extend(self.event(seq)?.filter(is_it));
        }
        Ok(events)
    }

    fn trace_tenant(
        &self,
        day: &Day,
        tenant: &str,
        hash: [u8; 16],
        limit: usize,
        found: &mut BTreeSet<EventSeq>,
    ) -> Read<()> {
        let prefix = keys::trace_address_prefix(tenant, hash);
        for guard in self.at.prefix(&day.trace, prefix).rev().take(limit) {
            found.extend(keys::trace_seq(&guard.key()?));
        }
        Ok(())
    }

    /// The tenants with an event on that day: a jump from one to the next, not a scan.
    fn tenants(&self, day: &Day) -> Read<Vec<String>> {
        let mut tenants = Vec::new();
        let mut from = keys::TRACE_ADDRESSES.to_vec();
        loop {
            let end = keys::TRACE_MESSAGES.to_vec();
            let Some(guard) = self.at.range(&day.trace, from..end).next() else { return Ok(tenants) };
            let key = guard.key()?;
            let Some(tenant) = keys::trace_tenant(&key) else { return Ok(tenants) };
            tenants.push(tenant.to_owned());
            from = keys::trace_tenant_prefix(tenant);
            // Behind the NUL that ends the name: what follows belongs to the next tenant.
            if let Some(last) = from.last_mut() {
                *last = 1;
            }
        }
    }

    fn trace_message(&self, id: MessageId, limit: usize) -> Read<Vec<Event>> {
        if let Some(row) = RowId::of(id) {
            return self.trace_row(row, limit);
        }
        // The id says when it was accepted; the log's clock may have been a day behind. From there on all days, whatever their
        // numbers: the clock may have jumped since.
        let earliest = id.timestamp().day().saturating_sub(1);
        let mut found = BTreeSet::new();
        let mut trace = None;
        for day in self.days.iter().skip_while(|day| day.label.number < earliest) {
            if trace.is_none()
                && let Some(guard) = self.at.prefix(&day.trace, keys::trace_message_prefix(id)).next()
            {
                let (key, value) = guard.into_inner()?;
                found.extend(keys::trace_seq(&key));
                trace = Some(records::decode_trace(&value)?);
            }
            let Some(trace) = &trace else { continue };
            for hash in &trace.recipients {
                if found.len() >= LOOKED_AT_MAX {
                    break;
                }
                self.trace_tenant(day, trace.tenant.as_str(), *hash, LOOKED_AT_MAX, &mut found)?;
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

    fn event(&self, seq: EventSeq) -> Read<Option<Event>> {
        let Some(day) = self.days.iter().rev().find(|day| day.first <= seq) else { return Ok(None) };
        let Some(value) = self.at.get(&day.events, keys::event(seq))? else { return Ok(None) };
        Ok(self.readable("event", records::decode_event(&value)))
    }

    fn readable<T>(&self, what: &str, record: Result<T, DecodeError>) -> Option<T> {
        record
            .inspect_err(|error| {
                self.metrics.unreadable.inc();
                tracing::error!(what, %error, "a record is not readable, it is left out");
            })
            .ok()
    }
}

fn told<T>(read: Read<T>) -> Result<T, ReadError> {
    read.map_err(|failure| ReadError(failure.to_string().into()))
}
