//! The steps of campaigns as the ledger knows them: whether their rows are sent, and their counts.
//!
//! 1. An upload or a run makes a step known;
//! 2. each outcome and each event of its rows changes the counts, which are written once a batch;
//! 3. a purge forgets the campaign at once and leaves a [`Purge`], by which the rest goes in steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ahash::AHashMap;

use super::{Run, RunCounts};
use crate::event::{Event, EventKind};
use crate::types::{AddressHash, CampaignNo, Name, RowId, Timestamp};

/// How long it is remembered who was erased: longer than an attempt takes, with all its time-outs.
const ERASED_FOR: Duration = Duration::from_secs(7_200);

/// A step of a campaign.
pub(super) type StepKey = (CampaignNo, u8);

/// One step.
#[derive(Debug, Default)]
struct Step {
    run: Option<Run>,
    counts: RunCounts,
    touched: bool,
}

/// What of a campaign goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Rows,
    Sent,
}

/// How far a purge is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Purge {
    pub(super) stage: Stage,
    /// The last key that went; empty at the beginning of a stage.
    pub(super) after: Vec<u8>,
}

/// All steps.
#[derive(Debug, Default)]
pub(super) struct Steps {
    known: AHashMap<StepKey, Step>,
    touched: Vec<StepKey>,
    purges: BTreeMap<CampaignNo, Purge>,
    erasures: BTreeSet<(Name, AddressHash)>,
    /// Who was erased lately, and when: attempts that had begun before still tell of them.
    erased_addresses: AHashMap<(Name, AddressHash), Timestamp>,
    erased_rows: AHashMap<RowId, Timestamp>,
}

impl Steps {
    /// A step as it was found on disk.
    pub(super) fn load_run(&mut self, key: StepKey, run: Run) {
        self.known.entry(key).or_default().run = Some(run);
    }

    /// The counts of a step as they were found on disk.
    pub(super) fn load_counts(&mut self, key: StepKey, counts: RunCounts) {
        self.known.entry(key).or_default().counts = counts;
    }

    /// The run of a step, if it is on.
    pub(super) fn run(&self, key: StepKey) -> Option<Run> {
        self.known.get(&key)?.run
    }

    pub(super) fn knows(&self, key: StepKey) -> bool {
        self.known.contains_key(&key)
    }

    /// The run of a step from now on; the step is known then.
    pub(super) fn set_run(&mut self, key: StepKey, run: Option<Run>) {
        self.known.entry(key).or_default().run = run;
        self.count(key, |_| {});
    }

    /// Rows were uploaded: the step is known from now on.
    pub(super) fn uploaded(&mut self, key: StepKey, rows: u64) {
        self.known.entry(key).or_default();
        self.count(key, |counts| {
            counts.rows += rows;
            counts.fresh += rows;
        });
    }

    /// Changes the counts of a step, as far as it is known.
    pub(super) fn count(&mut self, key: StepKey, change: impl FnOnce(&mut RunCounts)) {
        let Some(step) = self.known.get_mut(&key) else { return };
        change(&mut step.counts);
        if !step.touched {
            step.touched = true;
            self.touched.push(key);
        }
    }

    /// Counts an event, if it is about a row. What a mail reported later does not end a row a second time.
    pub(super) fn event(&mut self, event: &Event) {
        let Some(row) = event.message_id.and_then(RowId::of) else { return };
        let kind = event.event;
        self.count((row.campaign, row.step), |counts| match (event.late, kind) {
            (Some(true), EventKind::Bounced) => counts.late_bounces += 1,
            (Some(true), EventKind::Deferred) => {}
            (Some(_) | None, _) => *counts.events.entry(kind).or_default() += 1,
        });
    }

    /// Calls `write` for each step whose counts changed since the last call.
    pub(super) fn flush(&mut self, mut write: impl FnMut(StepKey, &RunCounts)) {
        for key in std::mem::take(&mut self.touched) {
            let Some(step) = self.known.get_mut(&key) else { continue };
            step.touched = false;
            write(key, &step.counts);
        }
    }

    /// Forgets a campaign; answers its steps. What is on disk of it waits in [`Steps::next_purge`].
    pub(super) fn purge(&mut self, campaign: CampaignNo) -> (Vec<StepKey>, Purge) {
        let steps: Vec<StepKey> = self.known.keys().filter(|(c, _)| *c == campaign).copied().collect();
        self.known.retain(|(c, _), _| *c != campaign);
        let purge = Purge { stage: Stage::Rows, after: Vec::new() };
        self.purges.insert(campaign, purge.clone());
        (steps, purge)
    }

    /// A purge that is under way.
    pub(super) fn next_purge(&self) -> Option<(CampaignNo, Purge)> {
        self.purges.first_key_value().map(|(campaign, purge)| (*campaign, purge.clone()))
    }

    /// How far a purge is from now on; `None`: it is done.
    pub(super) fn set_purge(&mut self, campaign: CampaignNo, purge: Option<Purge>) {
        match purge {
            Some(purge) => drop(self.purges.insert(campaign, purge)),
            None => drop(self.purges.remove(&campaign)),
        }
    }

    /// An address whose events are to be erased.
    pub(super) fn erase(&mut self, tenant: Name, hash: AddressHash) {
        self.erasures.insert((tenant, hash));
    }

    /// An erasure that is under way.
    pub(super) fn next_erasure(&self) -> Option<(Name, AddressHash)> {
        self.erasures.first().cloned()
    }

    /// An erasure is done.
    pub(super) fn erased(&mut self, erasure: &(Name, AddressHash)) {
        self.erasures.remove(erasure);
    }

    /// An address is erased from now on.
    pub(super) fn erased_address(&mut self, who: (Name, AddressHash), now: Timestamp) {
        self.erased_addresses.retain(|_, at| at.after(ERASED_FOR) > now);
        self.erased_addresses.insert(who, now);
    }

    /// A row is erased from now on.
    pub(super) fn erased_row(&mut self, row: RowId, now: Timestamp) {
        self.erased_rows.retain(|_, at| at.after(ERASED_FOR) > now);
        self.erased_rows.insert(row, now);
    }

    /// Whether a row was erased lately.
    pub(super) fn is_erased_row(&self, row: RowId) -> bool {
        self.erased_rows.contains_key(&row)
    }

    /// Whether an event tells of somebody who was erased after its message was accepted. What he is sent later is another matter.
    pub(super) fn is_erased(&self, event: &Event, hash: Option<AddressHash>) -> bool {
        if self.erased_addresses.is_empty() && self.erased_rows.is_empty() {
            return false;
        }
        let Some(message) = event.message_id else { return false };
        match (RowId::of(message), hash) {
            (Some(row), _) => self.is_erased_row(row),
            (None, Some(hash)) => {
                let at = self.erased_addresses.get(&(event.tenant.clone(), hash));
                at.is_some_and(|at| message.timestamp() <= *at)
            }
            (None, None) => false,
        }
    }

    /// Whether a purge or an erasure is under way.
    pub(super) fn has_steps(&self) -> bool {
        !self.purges.is_empty() || !self.erasures.is_empty()
    }
}
