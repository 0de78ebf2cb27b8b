//! The engine: all campaigns of the node, their commands, and the task that moves them.
//!
//! 1. [`Campaigns::open`] reads all records at the daemon's start and gives the controls that the scheduler needs before it sends,
//! 2. commands (`create`, `commands`) hold the campaign's lock, commit, then tell the scheduler; each runs in a task of its own, so that
//!    a client that hangs up does not stop it half-way,
//! 3. [`Campaigns::run`] wakes at the edges of schedules and windows and after commits, at most once a second, and only while a campaign is
//!    started: it sends what is due, halts, and writes the end (`run`).

mod commands;
mod create;
mod erase;
mod run;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;

pub use commands::{Change as LiveChange, Paused, Started};
pub use create::{Created, Extra};
pub use erase::Erased;
pub use view::{CampaignView, Rates};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::error::CampaignError;
use super::job::{Job, PRIORITY_DEFAULT, Window};
use super::model::{CampaignHead, FIRST_STEP, Record, Sealed, State, fixed_zone, keys};
use super::ports::{CampaignControl, Hold, HoldKind, Ports};
use super::registry::Sealings;
use super::schedule::{self, Opening};
use super::state::{Action, Way};
use crate::config::{Config, Rate};
use crate::event::{Event, EventKind};
use crate::metrics::campaign::CampaignMetrics;
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, Reader, Run, RunCounts};
use crate::types::{CampaignNo, Name, Timestamp};

/// The most campaigns of a node, ended ones too: all their records (about 1 KB each) are in memory. More are refused until some are deleted.
pub const CAMPAIGNS_MAX: usize = 100_000;

/// What the engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// The config in force.
    pub config: Arc<ArcSwap<Config>>,
    /// The time.
    pub clock: Clock,
    /// Where changes go.
    pub ledger: Ledger,
    /// Where records, jobs and counts are read.
    pub reader: Reader,
    /// The other parts of a campaign.
    pub ports: Ports,
    /// Where the egress side finds what is started.
    pub sealings: Sealings,
    /// What is counted.
    pub metrics: CampaignMetrics,
}

/// All campaigns; cheap to clone.
#[derive(Clone)]
pub struct Campaigns(Arc<Inner>);

struct Inner {
    parts: Parts,
    all: RwLock<All>,
    /// The next number; held while a campaign is made.
    next: tokio::sync::Mutex<u32>,
    /// Wakes the task: something changed.
    wake: Notify,
}

#[derive(Default)]
struct All {
    by_id: BTreeMap<(Name, Name), Arc<Entry>>,
    by_no: HashMap<CampaignNo, Arc<Entry>>,
}

/// A campaign in memory.
struct Entry {
    record: ArcSwap<Record>,
    /// Held by a command from its look at the state to its commit.
    lock: tokio::sync::Mutex<()>,
    /// Held by an upload from its begin to its end, which may be hours: a start, an edit and a delete are refused meanwhile.
    upload: tokio::sync::Mutex<()>,
    /// What the scheduler was told last; `None` when it must be told again.
    told: Mutex<Option<CampaignControl>>,
    /// Counts of late, for the rate and the forecast.
    samples: Mutex<view::Samples>,
}

impl Entry {
    fn new(record: Record) -> Arc<Self> {
        Arc::new(Self {
            record: ArcSwap::from_pointee(record),
            lock: tokio::sync::Mutex::new(()),
            upload: tokio::sync::Mutex::new(()),
            told: Mutex::new(None),
            samples: Mutex::default(),
        })
    }

    fn record(&self) -> Arc<Record> {
        self.record.load_full()
    }

    /// No upload is under way while this is held.
    fn no_upload(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, CampaignError> {
        self.upload.try_lock().map_err(|_| CampaignError::Busy(self.record().id.to_string()))
    }
}

impl Campaigns {
    /// Reads all campaigns. Answers the controls of those that are started: the scheduler must know them before it sends anything.
    pub async fn open(parts: Parts) -> Result<(Self, Vec<CampaignControl>), CampaignError> {
        let records = parts.reader.state(keys::RECORDS, CAMPAIGNS_MAX + 1).await?;
        let mut all = All::default();
        let mut highest = 0;
        for (key, value) in records {
            let record = Record::from_json(&value)
                .map_err(|reason| CampaignError::Damaged(format!("{}: {reason}", key.escape_ascii())))?;
            highest = highest.max(record.no.0);
            parts.metrics.campaigns.with_label_values(&[record.state.as_str()]).inc();
            all.insert(Entry::new(record));
        }
        let stored = parts.reader.state_get(keys::NEXT).await?;
        let next = stored.and_then(|v| std::str::from_utf8(&v).ok().and_then(|text| text.parse().ok())).unwrap_or(0);
        // A number is never used again, also where its record was deleted.
        let next = next.max(highest.saturating_add(1)).max(1);
        let entries: Vec<Arc<Entry>> = all.by_id.values().cloned().collect();
        let inner = Inner { parts, all: RwLock::new(all), next: tokio::sync::Mutex::new(next), wake: Notify::new() };
        let campaigns = Self(Arc::new(inner));
        let mut controls = Vec::new();
        for entry in entries.iter().filter(|e| e.record().state.is_live()) {
            let record = entry.record();
            let job = campaigns.job(&record).await?;
            let sealed = campaigns.seal(&record, job);
            controls.push(campaigns.control(&record, &sealed.job, campaigns.now()));
        }
        // A cancel that the last process did not finish: nothing of it goes out until it is.
        for entry in entries.iter().filter(|e| e.record().sweeping) {
            let record = entry.record();
            let hold = Some(Hold { reason: HoldKind::Halted, until: None });
            let (tenant, campaign) = (record.tenant.clone(), record.id.clone());
            controls.push(CampaignControl { tenant, campaign, rate: None, priority: PRIORITY_DEFAULT, hold });
        }
        campaigns.0.wake.notify_one();
        Ok((campaigns, controls))
    }

    /// Where the egress side finds what is started.
    pub fn sealings(&self) -> &Sealings {
        &self.parts().sealings
    }

    /// Tenant and id of a number, also of an ended campaign; `None` when it is deleted.
    pub fn name_of(&self, no: CampaignNo) -> Option<(Name, Name)> {
        let entry = self.0.all.read().by_no.get(&no).cloned()?;
        let record = entry.record();
        Some((record.tenant.clone(), record.id.clone()))
    }

    /// A campaign with its job as it is now.
    pub async fn head(&self, tenant: &Name, id: &Name) -> Result<Arc<CampaignHead>, CampaignError> {
        let record = self.entry(tenant, id)?.record();
        self.head_of(&record).await
    }

    /// The other parts of a campaign: for what only passes through (preview, rejects).
    pub fn ports(&self) -> &Ports {
        &self.parts().ports
    }

    async fn head_of(&self, record: &Record) -> Result<Arc<CampaignHead>, CampaignError> {
        let job = match self.sealings().get(record.no).filter(|sealed| sealed.version == record.version) {
            Some(sealed) => Arc::clone(&sealed.job),
            None => self.job(record).await?,
        };
        Ok(Arc::new(CampaignHead {
            no: record.no,
            tenant: record.tenant.clone(),
            id: record.id.clone(),
            state: record.state,
            pool: self.pool(&job, &record.tenant),
            job,
            version: record.version,
        }))
    }

    async fn job(&self, record: &Record) -> Result<Arc<Job>, CampaignError> {
        let damaged =
            |reason: String| CampaignError::Damaged(format!("job {} of {}: {reason}", record.version, record.id));
        let json = self.parts().reader.state_get(keys::job(record.no, record.version)).await?;
        let json = json.ok_or_else(|| damaged("it is not there".into()))?;
        Job::from_json(&json).map(Arc::new).map_err(|e| damaged(e.to_string()))
    }

    /// Makes a started campaign known to the egress side.
    fn seal(&self, record: &Record, job: Arc<Job>) -> Arc<Sealed> {
        let sealed = Arc::new(Sealed {
            no: record.no,
            tenant: record.tenant.clone(),
            id: record.id.clone(),
            pool: self.pool(&job, &record.tenant),
            job,
            version: record.version,
            started: record.started.unwrap_or(record.updated),
            due: record.due.unwrap_or(record.updated),
        });
        self.sealings().insert(Arc::clone(&sealed));
        self.parts().ports.content.sealed(&sealed);
        sealed
    }

    /// Nothing of it is rendered any more.
    fn unseal(&self, no: CampaignNo) {
        self.sealings().remove(no);
        self.parts().ports.content.ended(no);
    }

    /// The pool that sends it: its own, the tenant's, or the first.
    fn pool(&self, job: &Job, tenant: &Name) -> Name {
        let config = self.parts().config.load();
        let tenants = || config.tenant(tenant).and_then(|t| t.pool.clone());
        let first = || config.pools.first().map(|pool| pool.name.clone());
        let default = || Name::parse("default").expect("a valid name");
        job.pool.clone().or_else(tenants).or_else(first).unwrap_or_else(default)
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn now(&self) -> Timestamp {
        self.parts().clock.now()
    }

    fn entry(&self, tenant: &Name, id: &Name) -> Result<Arc<Entry>, CampaignError> {
        let found = self.0.all.read().by_id.get(&(tenant.clone(), id.clone())).cloned();
        found.ok_or_else(|| CampaignError::NotFound(id.to_string()))
    }

    async fn counts(&self, no: CampaignNo) -> Result<(Option<Run>, RunCounts), CampaignError> {
        Ok(self.parts().reader.run(no, FIRST_STEP).await?)
    }

    /// Makes a record durable with what belongs to it, then known.
    async fn commit(
        &self,
        entry: &Entry,
        mut record: Record,
        mut changes: Vec<Change>,
    ) -> Result<Arc<Record>, CampaignError> {
        record.updated = self.now();
        changes.push(Change::PutState { key: keys::record(&record.tenant, &record.id), value: record.to_json() });
        self.parts().ledger.submit(changes).await?;
        let record = Arc::new(record);
        let before = entry.record.swap(Arc::clone(&record));
        if before.state != record.state {
            self.stands(before.state, -1);
            self.stands(record.state, 1);
        }
        self.0.wake.notify_one();
        Ok(record)
    }

    /// So many campaigns more stand in a state.
    fn stands(&self, state: State, by: i64) {
        self.parts().metrics.campaigns.with_label_values(&[state.as_str()]).add(by);
    }

    /// Something moved a campaign.
    fn moved(&self, action: Action) {
        self.parts().metrics.actions.with_label_values(&[action.as_str()]).inc();
    }

    /// Runs a command to its end, also when nobody waits for the answer any more.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CampaignError>> + Send + 'static,
    ) -> Result<T, CampaignError> {
        tokio::spawn(work).await.unwrap_or(Err(CampaignError::Ended))
    }

    /// How the scheduler sends it at `now`.
    fn control(&self, record: &Record, job: &Job, now: Timestamp) -> CampaignControl {
        CampaignControl {
            tenant: record.tenant.clone(),
            campaign: record.id.clone(),
            rate: rate(record, job),
            priority: record.overrides.priority.unwrap_or(job.priority),
            hold: hold(record, job, now),
        }
    }

    /// Tells the scheduler how a campaign is sent now, unless it knows; answers what is in an attempt.
    async fn tell(&self, entry: &Entry, job: &Job) -> Result<u64, CampaignError> {
        let control = self.control(&entry.record(), job, self.now());
        if entry.told.lock().as_ref() == Some(&control) {
            return Ok(0);
        }
        let in_flight = self.parts().ports.steer.set(control.clone()).await?;
        *entry.told.lock() = Some(control);
        Ok(in_flight)
    }
}

impl All {
    fn insert(&mut self, entry: Arc<Entry>) {
        let record = entry.record();
        self.by_no.insert(record.no, Arc::clone(&entry));
        self.by_id.insert((record.tenant.clone(), record.id.clone()), entry);
    }
}

/// The window in force.
fn window(record: &Record, job: &Job) -> Option<Window> {
    record.overrides.window.unwrap_or(job.schedule.window)
}

/// The rate in force: the slower of what was set and what the spread asks for.
fn rate(record: &Record, job: &Job) -> Option<Rate> {
    let set = record.overrides.rate.unwrap_or(job.rate);
    let spread = job.schedule.spread.filter(|_| record.rows > 0);
    schedule::slower(set, spread.map(|spread| schedule::spread_rate(record.rows, spread.0)))
}

fn hold(record: &Record, job: &Job, now: Timestamp) -> Option<Hold> {
    let window = || match opening(record, job, now)? {
        Opening::Open(_) => None,
        Opening::Closed(until) => Some(Hold { reason: HoldKind::Window, until: Some(until) }),
    };
    match record.state {
        State::Paused => Some(Hold { reason: HoldKind::Paused, until: None }),
        State::Halted => Some(Hold { reason: HoldKind::Halted, until: None }),
        State::Scheduled | State::Running => window(),
        State::Draft | State::Uploading | State::Checking | State::Done | State::Cancelled => None,
    }
}

/// Whether the window is open; `None` without one.
fn opening(record: &Record, job: &Job, now: Timestamp) -> Option<Opening> {
    Some(schedule::opening(&window(record, job)?, &fixed_zone(job), now))
}

/// An event of a campaign.
fn event(kind: EventKind, record: &Record, now: Timestamp, recipients: u64, reason: Option<&str>) -> Event {
    let mut event = Event::new(kind, now, record.tenant.clone());
    event.campaign = Some(record.id.clone());
    event.recipients = Some(u32::try_from(recipients).unwrap_or(u32::MAX));
    event.reason = reason.map(Into::into);
    event
}

fn illegal(record: &Record, action: Action) -> CampaignError {
    CampaignError::Illegal { id: record.id.to_string(), state: record.state, action }
}

/// The state that an action leads to; `None` when it was done before.
fn way(record: &Record, action: Action) -> Result<Option<State>, CampaignError> {
    match record.state.after(action) {
        Way::To(state) => Ok(Some(state)),
        Way::Already => Ok(None),
        Way::Illegal => Err(illegal(record, action)),
    }
}
