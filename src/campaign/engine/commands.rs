//! What an operator commands: upload, start, pause, resume, cancel, change. Each is durable before it is answered, and may be said twice.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::super::error::CampaignError;
use super::super::job::{Job, OnMissing, PRIORITY_MAX, Schedule, Window, Zone, check_schedule};
use super::super::model::UploadCounters;
use super::super::model::{CampaignHead, Counts, FIRST_STEP, Overrides, Record, State, fixed_zone, present};
use super::super::ports::{Chunks, Finding, Severity, UploadRequest};
use super::super::state::Action;
use super::super::{schedule, stop};
use super::view::eta;
use super::{Campaigns, Entry, event, illegal, rate, way, window};
use crate::config::Rate;
use crate::event::EventKind;
use crate::store::{Change as StoreChange, Run, RunChange};
use crate::types::{Name, Timestamp};

/// The longest reason, in octets.
const REASON_MAX: usize = 500;

/// The answer to a start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// The campaign.
    pub id: Name,
    /// Where it stands now.
    pub state: State,
    /// Whether it had been started before: nothing was changed.
    pub already: bool,
    /// Counts of its rows.
    pub counts: Counts,
    /// When its first row is due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due: Option<Timestamp>,
    /// When it will be done by its rate and window alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimate: Option<Timestamp>,
    /// What the checks found.
    pub findings: Vec<Finding>,
}

/// The answer to a pause, resume or cancel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Paused {
    /// The campaign.
    pub id: Name,
    /// Where it stands now.
    pub state: State,
    /// Whether it stood there before: nothing was changed.
    pub already: bool,
    /// Recipients in an attempt, which can't be stopped.
    pub in_flight: u64,
    /// Rows that wait, or that a cancel took out.
    pub recipients: u64,
}

/// A change of a campaign that may be running: what is not given stays; `null` takes a rate or window away.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The rate.
    #[serde(default, deserialize_with = "present")]
    pub rate: Option<Option<Rate>>,
    /// The window.
    #[serde(default, deserialize_with = "present")]
    pub window: Option<Option<Window>>,
    /// The priority.
    #[serde(default)]
    pub priority: Option<u8>,
}

impl Campaigns {
    /// Takes recipients in. `Ok` means: they are on disk.
    pub async fn upload(
        &self,
        tenant: &Name,
        id: &Name,
        request: UploadRequest,
        body: Box<dyn Chunks + '_>,
    ) -> Result<UploadCounters, CampaignError> {
        let entry = self.entry(tenant, id)?;
        let _upload = entry.no_upload()?;
        let record = {
            let _one = entry.lock.lock().await;
            let record = entry.record();
            match way(&record, Action::Upload)? {
                Some(state) if state != record.state => {
                    self.commit(&entry, Record { state, ..Record::clone(&record) }, Vec::new()).await?
                }
                Some(_) | None => record,
            }
        };
        let head = self.head_of(&record).await?;
        if head.job.audience.is_some() {
            let reason = "the job names an audience: its recipients are not uploaded".into();
            return Err(CampaignError::Invalid { field: "audience".into(), reason });
        }
        Ok(self.parts().ports.recipients.upload(head, request, body).await?)
    }

    /// Checks a campaign as a start would, and changes nothing.
    pub async fn check(&self, tenant: &Name, id: &Name) -> Result<Vec<Finding>, CampaignError> {
        let head = self.head(tenant, id).await?;
        self.findings(head).await
    }

    /// Starts a campaign: checks, seals, makes its rows due. `force` is the reason to pass over errors of the checks.
    pub async fn start(
        &self,
        tenant: Name,
        id: Name,
        force: Option<String>,
        by: String,
    ) -> Result<Started, CampaignError> {
        check_reason("force", force.as_deref())?;
        let this = self.clone();
        self.detached(async move { this.start_now(&tenant, &id, force, by).await }).await
    }

    async fn start_now(
        &self,
        tenant: &Name,
        id: &Name,
        force: Option<String>,
        by: String,
    ) -> Result<Started, CampaignError> {
        let entry = self.entry(tenant, id)?;
        let record = {
            let _one = entry.lock.lock().await;
            let record = entry.record();
            let Some(state) = way(&record, Action::Start)? else {
                let job = self.head_of(&record).await?.job.clone();
                return self.started(&record, &job, true, Vec::new()).await;
            };
            let _upload = entry.no_upload()?;
            self.commit(&entry, Record { state, reason: None, ..Record::clone(&record) }, Vec::new()).await?
        };
        // The checks ask the DNS: without the lock, so that a cancel need not wait for them.
        let checked = self.prepare(&record).await;
        let _one = entry.lock.lock().await;
        let record = entry.record();
        if record.state != State::Checking {
            return Err(illegal(&record, Action::Start));
        }
        let (head, findings) = match checked {
            Ok((head, findings)) if force.is_some() || findings.iter().all(|f| f.severity != Severity::Error) => {
                (head, findings)
            }
            Ok((_, findings)) => {
                self.refuse(&entry, &record, "the checks found errors").await?;
                return Err(CampaignError::Checks(findings));
            }
            Err(error) => {
                self.refuse(&entry, &record, &error.to_string()).await?;
                return Err(error);
            }
        };
        let forced = force.filter(|_| findings.iter().any(|f| f.severity == Severity::Error));
        let record = match self.launch(&entry, &record, &head.job, forced).await {
            Ok(record) => record,
            Err(error) => {
                self.unseal(record.no);
                self.refuse(&entry, &record, &error.to_string()).await?;
                return Err(error);
            }
        };
        self.moved(Action::Start);
        info!(%tenant, campaign = %id, %by, rows = record.rows, state = %record.state, "campaign started");
        self.started(&record, &head.job, false, findings).await
    }

    /// What comes before the seal: an audience's rows, then the checks.
    async fn prepare(&self, record: &Record) -> Result<(Arc<CampaignHead>, Vec<Finding>), CampaignError> {
        let head = self.head_of(record).await?;
        if head.job.audience.is_some() {
            self.parts().ports.recipients.select(Arc::clone(&head)).await?;
        }
        if self.counts(record.no).await?.1.fresh == 0 {
            return Err(CampaignError::Empty("it has no recipients: upload some first".into()));
        }
        let findings = self.findings(Arc::clone(&head)).await?;
        Ok((head, findings))
    }

    async fn findings(&self, head: Arc<CampaignHead>) -> Result<Vec<Finding>, CampaignError> {
        let ports = &self.parts().ports;
        let mut findings = ports.check.check(Arc::clone(&head)).await;
        let upload = ports.recipients.counters(Arc::clone(&head)).await?;
        // A compressed one has no offset inside; that rows were read tells of it.
        if !upload.complete && (upload.offset > 0 || upload.read > 0) {
            let (here, fix) = match upload.offset {
                0 => (
                    format!("{} rows are here", upload.read),
                    "send it again from its beginning: nobody is taken twice",
                ),
                octets => (format!("{octets} octets are here"), "go on with the upload from there"),
            };
            findings.push(Finding {
                severity: Severity::Error,
                check: "upload".into(),
                message: format!("the upload has not come to its end: {here}"),
                why: Some("recipients after this place would get nothing".into()),
                fix: Some(fix.into()),
            });
        }
        for missing in ports.content.missing(Arc::clone(&head)).await? {
            let blocks = head.job.on_missing == OnMissing::Error;
            let then = match head.job.on_missing {
                OnMissing::Skip => "these rows are not sent, each with an event",
                OnMissing::Error => "on_missing is error",
                OnMissing::Blank => "nothing will stand in its place",
            };
            findings.push(Finding {
                severity: if blocks { Severity::Error } else { Severity::Warning },
                check: "missing_variables".into(),
                message: format!("{} is missing in {} of {} rows", missing.variable, missing.rows, missing.of),
                why: Some(then.into()),
                fix: Some(format!(
                    "add the variable, or give a default: {{{{ {} | default(\"…\") }}}}",
                    missing.variable
                )),
            });
        }
        findings.sort_by_key(|f| f.severity);
        Ok(findings)
    }

    async fn refuse(&self, entry: &Entry, record: &Record, reason: &str) -> Result<(), CampaignError> {
        let state = way(record, Action::Refuse)?.unwrap_or(record.state);
        let record = Record { state, reason: Some(format!("not started: {reason}")), ..Record::clone(record) };
        self.moved(Action::Refuse);
        self.commit(entry, record, Vec::new()).await.map(drop)
    }

    /// Seals it and makes its rows due: one batch of a handful of records.
    async fn launch(
        &self,
        entry: &Entry,
        record: &Record,
        job: &Arc<Job>,
        forced: Option<String>,
    ) -> Result<Arc<Record>, CampaignError> {
        let now = self.now();
        let due = schedule::first_due(&job.schedule, now);
        let rows = self.counts(record.no).await?.1.fresh;
        let mut record =
            Record { started: Some(now), due: Some(due), rows, forced, reason: None, ..Record::clone(record) };
        record.state = if due > now { State::Scheduled } else { State::Running };
        let mut changes = vec![self.run_change(&record, job)];
        changes.extend(begin(&mut record, now));
        // The egress side asks for it as soon as the commit is told; so the scheduler's control comes first, too.
        self.seal(&record, Arc::clone(job));
        let control = self.control(&record, job, now);
        self.parts().ports.steer.set(control.clone()).await?;
        let record = self.commit(entry, record, changes).await?;
        *entry.told.lock() = Some(control);
        Ok(record)
    }

    /// How its rows are sent. How long it was held before does not count as their age.
    fn run_change(&self, record: &Record, job: &Job) -> StoreChange {
        let held = Duration::from_millis(record.held_ms);
        let accepted = record.started.unwrap_or(record.updated);
        let due = record.due.unwrap_or(accepted);
        let expire_after = match job.expire_after {
            Some(given) => given.0,
            None => {
                // Where nobody set an age, a slow rate must not let rows expire before their first turn.
                let base = self.parts().config.load().retry.expire_after.0;
                let end = rate(record, job).map(|rate| {
                    let work = schedule::takes(record.rows, rate);
                    schedule::finish(window(record, job).as_ref(), &fixed_zone(job), due, work)
                });
                base.saturating_add(end.map_or(Duration::ZERO, |end| end.since(due) * 2))
            }
        };
        let run = Run { accepted, due, expire_after: expire_after.saturating_add(held) };
        StoreChange::Run(Box::new(RunChange { campaign: record.no, step: FIRST_STEP, run: Some(run) }))
    }

    async fn started(
        &self,
        record: &Record,
        job: &Job,
        already: bool,
        findings: Vec<Finding>,
    ) -> Result<Started, CampaignError> {
        let counts = Counts::of(&self.counts(record.no).await?.1);
        let estimate = eta(record, job, &counts, None, self.now());
        let (id, state, due) = (record.id.clone(), record.state, record.due);
        Ok(Started { id, state, already, counts, due, estimate, findings })
    }

    /// Holds a campaign at once; what is in an attempt goes on, and is counted in the answer.
    pub async fn pause(
        &self,
        tenant: Name,
        id: Name,
        reason: Option<String>,
        by: String,
    ) -> Result<Paused, CampaignError> {
        check_reason("reason", reason.as_deref())?;
        let this = self.clone();
        self.detached(async move {
            let entry = this.entry(&tenant, &id)?;
            let _one = entry.lock.lock().await;
            this.hold_now(&entry, Action::Pause, reason, &by).await
        })
        .await
    }

    /// Holds it, by an operator or by itself. The lock is held.
    pub(super) async fn hold_now(
        &self,
        entry: &Entry,
        action: Action,
        reason: Option<String>,
        by: &str,
    ) -> Result<Paused, CampaignError> {
        let record = entry.record();
        let counts = Counts::of(&self.counts(record.no).await?.1);
        let Some(state) = way(&record, action)? else { return Ok(answer(&record, true, 0, counts.waiting)) };
        let kind = if action == Action::Halt { EventKind::CampaignHalted } else { EventKind::CampaignPaused };
        let now = self.now();
        let told = event(kind, &record, now, counts.waiting, reason.as_deref());
        let job = self.head_of(&record).await?.job.clone();
        let record = Record { state, reason, held_since: Some(now), ..Record::clone(&record) };
        let record = self.commit(entry, record, vec![StoreChange::Event(Box::new(told))]).await?;
        self.moved(action);
        let in_flight = self.tell(entry, &job).await?;
        info!(tenant = %record.tenant, campaign = %record.id, by, state = %record.state, in_flight, "campaign held");
        Ok(answer(&record, false, in_flight, counts.waiting))
    }

    /// Lets a campaign go on. One that halted by itself needs a reason; its conditions count anew from here.
    pub async fn resume(
        &self,
        tenant: Name,
        id: Name,
        reason: Option<String>,
        by: String,
    ) -> Result<Paused, CampaignError> {
        check_reason("reason", reason.as_deref())?;
        let this = self.clone();
        self.detached(async move { this.resume_now(&tenant, &id, reason, by).await }).await
    }

    async fn resume_now(
        &self,
        tenant: &Name,
        id: &Name,
        reason: Option<String>,
        by: String,
    ) -> Result<Paused, CampaignError> {
        let entry = self.entry(tenant, id)?;
        let _one = entry.lock.lock().await;
        let before = entry.record();
        let (run, counts) = self.counts(before.no).await?;
        let counts = Counts::of(&counts);
        if way(&before, Action::Resume)?.is_none() {
            return Ok(answer(&before, true, 0, counts.waiting));
        }
        if before.state == State::Halted && reason.is_none() {
            let why = before.reason.as_deref().unwrap_or("a condition of its own");
            return Err(CampaignError::Invalid {
                field: "reason".into(),
                reason: format!("it halted by {why}: a reason is needed"),
            });
        }
        let job = self.head_of(&before).await?.job.clone();
        let now = self.now();
        let held = before.held_since.map_or(Duration::ZERO, |since| now.since(since));
        let held_ms = before.held_ms.saturating_add(u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
        let mut record = Record { reason: None, held_since: None, held_ms, ..Record::clone(&before) };
        record.state = if record.due.is_some_and(|due| due > now) { State::Scheduled } else { State::Running };
        if before.state == State::Halted {
            record.stop_base = Some(stop::base(&counts));
        }
        let told = event(EventKind::CampaignResumed, &record, now, counts.waiting, reason.as_deref());
        let mut changes = vec![StoreChange::Event(Box::new(told))];
        if let Some(run) = run {
            // A week's pause must not be a week of age: else a resume would only expire.
            let run = Run { expire_after: run.expire_after.saturating_add(held), ..run };
            changes.push(StoreChange::Run(Box::new(RunChange {
                campaign: record.no,
                step: FIRST_STEP,
                run: Some(run),
            })));
        }
        changes.extend(begin(&mut record, now));
        let record = self.commit(&entry, record, changes).await?;
        let in_flight = self.tell(&entry, &job).await?;
        self.moved(Action::Resume);
        info!(%tenant, campaign = %id, %by, "campaign resumed");
        Ok(answer(&record, false, in_flight, counts.waiting))
    }

    /// Ends a campaign: rows that were never tried are not sent, those that wait for another attempt are taken out.
    pub async fn cancel(
        &self,
        tenant: Name,
        id: Name,
        reason: Option<String>,
        by: String,
    ) -> Result<Paused, CampaignError> {
        check_reason("reason", reason.as_deref())?;
        let this = self.clone();
        self.detached(async move { this.cancel_now(&tenant, &id, reason, by).await }).await
    }

    async fn cancel_now(
        &self,
        tenant: &Name,
        id: &Name,
        reason: Option<String>,
        by: String,
    ) -> Result<Paused, CampaignError> {
        let entry = self.entry(tenant, id)?;
        let _one = entry.lock.lock().await;
        let before = entry.record();
        let waiting = Counts::of(&self.counts(before.no).await?.1).waiting;
        let Some(state) = way(&before, Action::Cancel)? else { return Ok(answer(&before, true, 0, waiting)) };
        let now = self.now();
        let told = event(EventKind::CampaignCancelled, &before, now, waiting, reason.as_deref());
        let live = before.state.is_live();
        let ended = Some(now);
        let record = Record { state, reason, ended, held_since: None, sweeping: live, ..Record::clone(&before) };
        let mut changes = vec![StoreChange::Event(Box::new(told))];
        if live {
            changes.push(StoreChange::Run(Box::new(RunChange { campaign: record.no, step: FIRST_STEP, run: None })));
        }
        let record = self.commit(&entry, record, changes).await?;
        self.moved(Action::Cancel);
        info!(%tenant, campaign = %id, %by, waiting, "campaign cancelled");
        let in_flight = if live { self.sweep(&entry, &by).await? } else { 0 };
        Ok(answer(&record, false, in_flight, waiting))
    }

    /// Takes out what a cancelled campaign still has queued. The lock is held.
    pub(super) async fn sweep(&self, entry: &Entry, by: &str) -> Result<u64, CampaignError> {
        let record = entry.record();
        let reason = record.reason.as_deref().unwrap_or("the campaign was cancelled");
        let changed = self.parts().ports.steer.cancel(&record.tenant, &record.id, by, reason).await?;
        let swept = Record { sweeping: false, ..Record::clone(&record) };
        if let Err(error) = self.commit(entry, swept, Vec::new()).await {
            warn!(campaign = %record.id, %error, "a cancelled campaign is swept again at the next start");
        }
        Ok(changed.in_flight)
    }

    /// Changes rate, window or priority; of a running campaign at once.
    pub async fn change(
        &self,
        tenant: Name,
        id: Name,
        change: Change,
        by: String,
    ) -> Result<Arc<Record>, CampaignError> {
        let this = self.clone();
        self.detached(async move { this.change_now(&tenant, &id, change, by).await }).await
    }

    async fn change_now(
        &self,
        tenant: &Name,
        id: &Name,
        change: Change,
        by: String,
    ) -> Result<Arc<Record>, CampaignError> {
        let entry = self.entry(tenant, id)?;
        let _one = entry.lock.lock().await;
        let record = entry.record();
        if record.state.is_ended() || record.state == State::Checking {
            return Err(illegal(&record, Action::Edit));
        }
        let job = self.head_of(&record).await?.job.clone();
        check_change(&change, &job)?;
        let old = &record.overrides;
        let overrides = Overrides {
            rate: change.rate.or(old.rate),
            window: change.window.or(old.window),
            priority: change.priority.or(old.priority),
        };
        if overrides == *old {
            return Ok(record);
        }
        let record = Record { overrides, ..Record::clone(&record) };
        // A slower rate makes it longer: its rows must not expire by that.
        let changes = if record.state.is_live() { vec![self.run_change(&record, &job)] } else { Vec::new() };
        let record = self.commit(&entry, record, changes).await?;
        if record.state.is_live() {
            self.tell(&entry, &job).await?;
        }
        info!(%tenant, campaign = %id, %by, "campaign changed");
        Ok(record)
    }
}

/// What a campaign writes when its rows become due, once.
pub(super) fn begin(record: &mut Record, now: Timestamp) -> Option<StoreChange> {
    if record.state != State::Running || record.running_since.is_some() {
        return None;
    }
    record.running_since = Some(now);
    let forced = record.forced.as_ref().map(|reason| format!("forced: {reason}"));
    let event = event(EventKind::CampaignStarted, record, now, record.rows, forced.as_deref());
    Some(StoreChange::Event(Box::new(event)))
}

fn answer(record: &Record, already: bool, in_flight: u64, recipients: u64) -> Paused {
    Paused { id: record.id.clone(), state: record.state, already, in_flight, recipients }
}

fn check_reason(field: &str, reason: Option<&str>) -> Result<(), CampaignError> {
    let Some(text) = reason else { return Ok(()) };
    let wrong = match text {
        text if text.trim().is_empty() => Some("is empty: say why".to_owned()),
        text if text.len() > REASON_MAX => Some(format!("is longer than {REASON_MAX} octets")),
        text if text.chars().any(char::is_control) => Some("has a control character".into()),
        _ => None,
    };
    wrong.map_or(Ok(()), |reason| Err(CampaignError::Invalid { field: field.into(), reason }))
}

fn check_change(change: &Change, job: &Job) -> Result<(), CampaignError> {
    let invalid = |field: &str, reason: String| Err(CampaignError::Invalid { field: field.into(), reason });
    if let Some(priority) = change.priority.filter(|p| !(1..=PRIORITY_MAX).contains(p)) {
        return invalid("priority", format!("{priority} is not between 1 and {PRIORITY_MAX}"));
    }
    let Some(Some(window)) = change.window else { return Ok(()) };
    if job.schedule.time_zone == Some(Zone::Recipient) {
        return invalid("window", "the campaign goes by the recipient's time zone".into());
    }
    let mut problems = Vec::new();
    check_schedule(&Schedule { window: Some(window), ..Schedule::default() }, &mut problems);
    problems.first().map_or(Ok(()), |problem| invalid("window", problem.message.clone()))
}
