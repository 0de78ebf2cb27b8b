//! The erasure of a person.
//!
//! 1. A row loses its value at once ([`Work::erase_row`]); its address is known by its hash from then on;
//! 2. events about the address lose what tells who it is, in steps ([`Work::erase_step`]). The keys of the trace that led to them go in
//!    the same batch: what is left of them is what is left to do, so a step begins where the last one ended, after a crash too.

use super::super::steps::StepKey;
use super::super::{Next, Sent, SentStatus, Settled, keys, records, row_records};
use super::{Work, WorkError};
use crate::event::{Event, EventKind};
use crate::types::{AddressHash, Name, RowId};

/// The most events that a step of an erasure rewrites.
const ERASE_EVENTS_MAX: usize = 256;

impl Work<'_> {
    /// The value of a row goes.
    pub(super) fn erase_row(&mut self, id: RowId, hash: AddressHash, in_attempt: bool) -> Result<(), WorkError> {
        let Some(value) = self.spaces.rows.get(keys::row(id))? else { return Ok(()) };
        if row_records::row_hash(&value) != Ok(hash) {
            tracing::warn!(row = %id, "a row that was to be erased has another address, it stays");
            return Ok(());
        }
        self.erased.insert(id, hash);
        self.steps.erased_row(id, self.now);
        if in_attempt {
            return Ok(());
        }
        let step: StepKey = (id.campaign, id.step);
        if let Some(Sent { row, status: SentStatus::Waiting }) = self.sent_of(step, hash)?
            && row == id
        {
            let size = u32::try_from(value.len() - row_records::ROW_HEAD).unwrap_or(u32::MAX);
            let fresh = self.table.row_taken(id.queue, step, (id.slot, id.seq), size);
            self.steps.count(step, |counts| {
                let from = if fresh { &mut counts.fresh } else { &mut counts.dropped };
                *from = from.saturating_sub(1);
            });
            let status = SentStatus::Ended(EventKind::Purged, self.now);
            self.sent.insert(keys::sent(step, hash), Sent { row: id, status });
        }
        Ok(())
    }

    /// The events about an address are to be erased.
    pub(super) fn erase_events(&mut self, tenant: Name, hash: AddressHash) {
        self.state.insert(keys::erasure(&tenant, hash), Some(Vec::new()));
        self.steps.erased_address((tenant.clone(), hash), self.now);
        self.steps.erase(tenant, hash);
    }

    /// The outcome of a row that was taken as not tried when it was erased, while its attempt had just begun: how it ended counts.
    pub(super) fn settle_erased(&mut self, row: RowId, settled: Settled) -> Result<(), WorkError> {
        let step: StepKey = (row.campaign, row.step);
        let (Next::Done, Some(hash)) = (&settled.next, settled.sent) else { return Ok(()) };
        let told = |event: &&Event| matches!(event.event, EventKind::Delivered | EventKind::Bounced);
        let Some(end) = settled.events.iter().find(told) else { return Ok(()) };
        let status = SentStatus::Ended(end.event, end.timestamp);
        if matches!(self.sent_of(step, hash)?, Some(Sent { row: of, status: SentStatus::Ended(EventKind::Purged, _) }) if of == row)
        {
            self.steps.count(step, |counts| {
                let purged = counts.events.entry(EventKind::Purged).or_default();
                *purged = purged.saturating_sub(1);
            });
            self.sent.insert(keys::sent(step, hash), Sent { row, status });
            settled.events.into_iter().for_each(|event| self.event(event));
        }
        Ok(())
    }

    /// A step of an erasure. Its batch has nothing else in it, so no key of it is written twice.
    pub(in super::super) fn erase_step(&mut self, tenant: Name, hash: AddressHash) -> Result<(), WorkError> {
        let prefix = keys::trace_address_prefix(tenant.as_str(), hash);
        let mut left = ERASE_EVENTS_MAX;
        for day in self.spaces.days.load().iter() {
            for guard in day.trace.prefix(&prefix).take(left) {
                left -= 1;
                let key = guard.key()?;
                if let Some(seq) = keys::trace_seq(&key)
                    && let Some(value) = day.events.get(keys::event(seq))?
                {
                    match records::decode_event(&value) {
                        Ok(event) => {
                            let event = records::encode_event(&without_person(event));
                            self.batch.insert(&day.events, keys::event(seq), event);
                        }
                        Err(error) => {
                            // Nobody can read it, so nobody can read the address.
                            self.shared.metrics.unreadable.inc();
                            tracing::error!(seq = seq.0, %error, "an event that is to be erased is not readable, it goes");
                            self.batch.remove(&day.events, keys::event(seq));
                        }
                    }
                }
                self.batch.remove(&day.trace, key);
            }
        }
        if left > 0 {
            self.state.insert(keys::erasure(&tenant, hash), None);
            self.steps.erased(&(tenant, hash));
        }
        Ok(())
    }
}

/// An event without what tells who its recipient is. That of an acceptance with several recipients names none.
pub(super) fn without_person(mut event: Event) -> Event {
    if event.recipients.is_some_and(|recipients| recipients > 1) {
        return event;
    }
    event.recipient = None;
    event.metadata = None;
    if let Some(reply) = &mut event.smtp {
        reply.text = "".into();
    }
    event
}
