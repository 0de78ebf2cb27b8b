//! The rows of campaigns in a batch.
//!
//! 1. An upload writes rows, and their addresses as waiting ([`Work::rows`]); nobody is told before the campaign runs;
//! 2. a run is one record, whatever the number of rows ([`Work::run`]);
//! 3. an outcome takes the row ([`Work::settle_row`]): from `queue` if it was tried before, else it was fresh, and `sent` says so;
//! 4. a purge forgets the campaign at once and removes what it has in steps ([`Work::purge_step`]).

use std::ops::Bound;

use super::super::steps::{Purge, Stage, StepKey};
use super::super::{NewRows, News, Next, QueueEntry, RunChange, Sent, SentStatus, Settled, keys, row_records};
use super::{Work, WorkError};
use crate::event::{Event, EventKind};
use crate::types::{AddressHash, CampaignNo, RowId, Timestamp};

/// The most keys that a step of a purge removes: about 100 KB of journal, and a few milliseconds.
const PURGE_KEYS_MAX: usize = 4_096;

/// A row that was taken to be settled.
struct Taken {
    /// Its address; `None` for an entry that does not say it.
    hash: Option<AddressHash>,
    /// As what it was counted.
    from: From,
}

/// As what a row was counted before its outcome.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Never tried.
    Fresh,
    /// In flight when its run ended.
    Dropped,
    /// Waiting for another attempt.
    Queued,
}

impl Work<'_> {
    /// Rows are uploaded.
    pub(super) fn rows(&mut self, new: NewRows) {
        let NewRows { campaign, step, rows } = new;
        let key: StepKey = (campaign, step);
        let running = self.steps.run(key).is_some();
        let (mut uploaded, mut unsendable) = (0, 0);
        for row in rows {
            let sent_key = keys::sent(key, row.hash);
            if self.sent.contains_key(&sent_key) {
                tracing::warn!(
                    campaign = campaign.0,
                    row = row.seq,
                    "an address was uploaded twice at a time, the first row counts"
                );
                continue;
            }
            let queue = self.table.id_of(&row.queue);
            let size = u32::try_from(row.value.len()).unwrap_or(u32::MAX);
            if !self.table.row_added(queue, key, (row.slot, row.seq), size) {
                tracing::error!(campaign = campaign.0, step, queue = queue.0, "a queue has rows of another step");
                unsendable += 1;
            } else if running {
                self.dirty.insert(queue, row.queue);
            }
            let id = RowId { campaign, step, queue, slot: row.slot, seq: row.seq };
            let value = row_records::encode_row_value(row.hash, &row.value);
            self.bytes += keys::ROW_LEN + value.len() + keys::SENT_LEN + 12;
            self.batch.insert(&self.spaces.rows, keys::row(id), value);
            self.sent.insert(sent_key, Sent { row: id, status: SentStatus::Waiting });
            uploaded += 1;
        }
        self.steps.uploaded(key, uploaded);
        if unsendable > 0 {
            self.steps.count(key, |counts| {
                counts.fresh -= unsendable;
                counts.dropped += unsendable;
            });
        }
    }

    /// A run begins, changes or ends.
    pub(super) fn run(&mut self, change: RunChange) {
        let RunChange { campaign, step, run } = change;
        let key: StepKey = (campaign, step);
        self.steps.set_run(key, run);
        self.state.insert(keys::step(keys::STATE_RUN, key), run.map(row_records::encode_run));
        let queues = match run {
            Some(run) => self.table.run_began(key, run),
            None => {
                let (dropped, left) = self.table.run_ended(key);
                self.steps.count(key, |counts| {
                    counts.fresh = counts.fresh.saturating_sub(dropped);
                    counts.dropped += dropped;
                });
                left
            }
        };
        self.news.push(News::Run { campaign, running: run.is_some(), queues });
    }

    /// The outcome of a row. Answers whether the row was there.
    pub(super) fn settle_row(&mut self, row: RowId, settled: Settled) -> Result<bool, WorkError> {
        let step: StepKey = (row.campaign, row.step);
        let Some(Taken { hash, from }) = self.take_row(row, &settled)? else {
            if self.steps.is_erased_row(row) {
                self.settle_erased(row, settled)?;
                return Ok(true);
            }
            return Ok(self.missing(settled.queue, settled.key));
        };
        let Settled { queue, next, events, .. } = settled;
        let again = match next {
            Next::Done => None,
            Next::Retry(entry) => Some((queue, entry)),
            Next::Move(new) => Some((self.table.id_of(&new.queue), new.entry)),
        };
        let status = match again {
            None => Some(ended(&events, self.now)),
            // Its run has ended, and so many queues since that this one is forgotten: it is dropped like the others.
            Some((queue, _)) if self.table.get(queue).is_none() => None,
            Some((queue, entry)) => {
                self.add_entry(queue, QueueEntry { sent: hash, ..entry }, None);
                Some(SentStatus::Queued)
            }
        };
        if let (Some(status), Some(hash)) = (status, hash) {
            self.sent.insert(keys::sent(step, hash), Sent { row, status });
        }
        if let Some(status) = status {
            self.steps.count(step, |counts| {
                let from = match from {
                    From::Fresh => &mut counts.fresh,
                    From::Dropped => &mut counts.dropped,
                    From::Queued => &mut counts.queued,
                };
                *from = from.saturating_sub(1);
                if status == SentStatus::Queued {
                    counts.queued += 1;
                }
            });
        }
        for event in events {
            self.event(event);
        }
        Ok(true)
    }

    /// Takes a row from where it is: fresh, or in `queue`. `None`: it is settled already, or its campaign is purged.
    fn take_row(&mut self, row: RowId, settled: &Settled) -> Result<Option<Taken>, WorkError> {
        let step: StepKey = (row.campaign, row.step);
        let known = match settled.sent.filter(|_| self.steps.knows(step)) {
            Some(hash) => self.sent_of(step, hash)?,
            None => None,
        };
        if let Some(Sent { row: of, status: SentStatus::Waiting }) = known
            && of == row
        {
            let fresh = self.table.row_taken(row.queue, step, (row.slot, row.seq), settled.size);
            return Ok(Some(Taken { hash: settled.sent, from: if fresh { From::Fresh } else { From::Dropped } }));
        }
        let Some(entry) = self.take_entry(settled.queue, settled.key)? else { return Ok(None) };
        Ok(Some(Taken { hash: settled.sent.or(entry.sent), from: From::Queued }))
    }

    /// What `sent` says of an address, with what this batch has changed.
    pub(super) fn sent_of(&self, step: StepKey, hash: AddressHash) -> Result<Option<Sent>, WorkError> {
        let key = keys::sent(step, hash);
        if let Some(sent) = self.sent.get(&key) {
            return Ok(Some(*sent));
        }
        let Some(value) = self.spaces.sent.get(key)? else { return Ok(None) };
        Ok(row_records::decode_sent(step, &value)
            .inspect_err(|error| {
                self.shared.metrics.unreadable.inc();
                tracing::error!(campaign = step.0.0, %error, "what became of an address is not readable");
            })
            .ok())
    }

    /// A campaign goes: what is small at once, the rest in steps.
    pub(super) fn purge(&mut self, campaign: CampaignNo) {
        let (steps, purge) = self.steps.purge(campaign);
        self.state.insert(keys::purge(campaign), Some(row_records::encode_purge(&purge)));
        for step in steps {
            self.table.run_ended(step);
            self.state.insert(keys::step(keys::STATE_RUN, step), None);
            self.state.insert(keys::step(keys::STATE_COUNTS, step), None);
        }
    }

    /// A step of a purge.
    pub(in super::super) fn purge_step(&mut self, campaign: CampaignNo, purge: Purge) -> Result<(), WorkError> {
        let space = match purge.stage {
            Stage::Rows => &self.spaces.rows,
            Stage::Sent => &self.spaces.sent,
        };
        let prefix = keys::campaign(campaign);
        let from = match &purge.after[..] {
            [] => Bound::Included(prefix.to_vec()),
            // Strictly behind what is gone: nobody passes its tombstones again.
            after => Bound::Excluded(after.to_vec()),
        };
        let (mut removed, mut last) = (0, Vec::new());
        for guard in space.range((from, Bound::Unbounded)).take(PURGE_KEYS_MAX) {
            let key = guard.key()?;
            if !key.starts_with(&prefix) {
                break;
            }
            removed += 1;
            last = key.to_vec();
            self.batch.remove(space, key);
        }
        let next = match (removed == PURGE_KEYS_MAX, purge.stage) {
            (true, stage) => Some(Purge { stage, after: last }),
            (false, Stage::Rows) => Some(Purge { stage: Stage::Sent, after: Vec::new() }),
            (false, Stage::Sent) => None,
        };
        self.state.insert(keys::purge(campaign), next.as_ref().map(row_records::encode_purge));
        self.steps.set_purge(campaign, next);
        Ok(())
    }
}

/// How a row ended: by its terminal event. Without one, an operator took it out.
fn ended(events: &[Event], now: Timestamp) -> SentStatus {
    let terminal = events.iter().find(|event| event.event.is_terminal());
    terminal.map_or(SentStatus::Ended(EventKind::Purged, now), |event| SentStatus::Ended(event.event, event.timestamp))
}
