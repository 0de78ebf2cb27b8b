//! The task that moves campaigns: at the edges of schedules and windows, and after commits.
//!
//! 1. With no campaign started it sleeps until one is: it costs nothing,
//! 2. else it wakes at the next edge, and after a commit, at most once a second,
//! 3. each started campaign is looked at: is it due, is its window open, must it halt, has its last row ended?

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use super::super::error::CampaignError;
use super::super::job::Job;
use super::super::model::{Counts, FIRST_STEP, Record, State};
use super::super::schedule::Opening;
use super::super::state::Action;
use super::super::stop;
use super::commands::begin;
use super::{Campaigns, Entry, event, opening, way};
use crate::event::EventKind;
use crate::store::{Change as StoreChange, RunChange};
use crate::types::Timestamp;

/// How long after its cancel a campaign's rows may still be asked for.
const UNSEAL_AFTER: Duration = Duration::from_secs(600);

/// The shortest time between two looks.
const TICK: Duration = Duration::from_secs(1);

/// The longest sleep while a campaign is started: the clock may be slewed under a timer.
const SLEEP_MAX: Duration = Duration::from_secs(60);

impl Campaigns {
    /// Runs until `closing` is true, or whoever could say so is gone.
    pub async fn run(&self, mut closing: watch::Receiver<bool>) {
        let mut committed = self.parts().reader.committed();
        self.recover().await;
        let mut commits = true;
        loop {
            committed.mark_unchanged();
            let next = self.tick().await;
            let idle = next.is_none();
            let sleep = next.map_or(SLEEP_MAX, |at| at.since(self.now())).clamp(TICK, SLEEP_MAX);
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return,
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(sleep), if !idle => {}
                changed = committed.changed(), if !idle && commits => commits = changed.is_ok(),
            }
            // What comes in this second is looked at together.
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return,
                () = tokio::time::sleep(TICK), if !idle => {}
                () = std::future::ready(()), if idle => {}
            }
        }
    }

    /// What a daemon that ended in the midst of it left behind.
    async fn recover(&self) {
        let entries: Vec<Arc<Entry>> = self.0.all.read().by_no.values().cloned().collect();
        for entry in entries {
            let _one = entry.lock.lock().await;
            let record = entry.record();
            let done = match record.state {
                State::Checking => {
                    let reason = Some("not started: the daemon ended during the checks".to_owned());
                    self.commit(
                        &entry,
                        Record { state: State::Uploading, reason, ..Record::clone(&record) },
                        Vec::new(),
                    )
                    .await
                    .map(drop)
                }
                State::Cancelled if record.sweeping => self.sweep(&entry, "posthaste").await.map(drop),
                _ => Ok(()),
            };
            if let Err(error) = done {
                error!(campaign = %record.id, %error, "a campaign could not be put in order");
            }
        }
    }

    /// Looks at all started campaigns; answers when the next edge is, `None` when none is started.
    pub(super) async fn tick(&self) -> Option<Timestamp> {
        let live: Vec<Arc<Entry>> = {
            let all = self.0.all.read();
            all.by_no.values().filter(|e| self.is_watched(&e.record())).cloned().collect()
        };
        let mut next = None::<Timestamp>;
        for entry in live {
            // A command works on it: that wakes the task when it is done.
            let at = match entry.lock.try_lock() {
                Err(_) => self.now().after(TICK),
                Ok(_one) => match self.look(&entry).await {
                    Ok(at) => at,
                    Err(error) => {
                        error!(campaign = %entry.record().id, %error, "a campaign could not be moved; it is tried again");
                        self.now().after(TICK)
                    }
                },
            };
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        next
    }

    /// Looks at one campaign, whose lock is held; answers its next edge.
    async fn look(&self, entry: &Entry) -> Result<Timestamp, CampaignError> {
        let mut record = entry.record();
        let now = self.now();
        let counts = Counts::of(&self.counts(record.no).await?.1);
        if !record.state.is_live() {
            // Cancelled: what was in an attempt may still be rendered, and what is taken out is read for its event.
            let quiet = record.ended.unwrap_or(now).after(UNSEAL_AFTER);
            if counts.waiting > 0 || now < quiet {
                return Ok(quiet.max(now.after(TICK)));
            }
            self.unseal(record.no);
            return Ok(Timestamp::NEVER);
        }
        let job = self.head_of(&record).await?.job.clone();
        if record.state == State::Scheduled && record.due.is_none_or(|due| due <= now) {
            let state = way(&record, Action::Run)?.unwrap_or(State::Running);
            let mut running = Record { state, ..Record::clone(&record) };
            let changes = begin(&mut running, now).into_iter().collect();
            record = self.commit(entry, running, changes).await?;
            self.moved(Action::Run);
        }
        if counts.waiting == 0 {
            self.finish(entry, &record, &counts).await?;
            return Ok(Timestamp::NEVER);
        }
        if record.state == State::Running {
            entry.samples.lock().add(now, &counts);
            let base = record.stop_base.unwrap_or_default();
            if let Some(reason) = job.stop_if.as_ref().and_then(|rules| stop::why(rules, &counts, base)) {
                self.hold_now(entry, Action::Halt, Some(reason), "stop_if").await?;
                return Ok(Timestamp::NEVER);
            }
        }
        self.tell(entry, &job).await?;
        Ok(edge(&record, &job, now))
    }

    /// Whether the task must look at it: started, or cancelled with something that may still be in an attempt.
    fn is_watched(&self, record: &Record) -> bool {
        record.state.is_live() || (record.state.is_ended() && self.sealings().get(record.no).is_some())
    }

    async fn finish(&self, entry: &Entry, record: &Record, counts: &Counts) -> Result<(), CampaignError> {
        let Some(state) = way(record, Action::Finish)? else { return Ok(()) };
        let now = self.now();
        let told = event(EventKind::CampaignDone, record, now, counts.total, None);
        let ended = Record { state, ended: Some(now), held_since: None, reason: None, ..Record::clone(record) };
        let run = RunChange { campaign: record.no, step: FIRST_STEP, run: None };
        let changes = vec![StoreChange::Event(Box::new(told)), StoreChange::Run(Box::new(run))];
        let record = self.commit(entry, ended, changes).await?;
        self.unseal(record.no);
        self.moved(Action::Finish);
        info!(tenant = %record.tenant, campaign = %record.id, delivered = counts.delivered, total = counts.total, "campaign done");
        Ok(())
    }
}

/// When something changes by the clock alone.
fn edge(record: &Record, job: &Job, now: Timestamp) -> Timestamp {
    let due = record.due.filter(|due| record.state == State::Scheduled && *due > now);
    let window = match opening(record, job, now) {
        Some(Opening::Open(until) | Opening::Closed(until)) if record.state != State::Paused => Some(until),
        Some(Opening::Open(_) | Opening::Closed(_)) | None => None,
    };
    [due, window].into_iter().flatten().min().unwrap_or(Timestamp::NEVER)
}
