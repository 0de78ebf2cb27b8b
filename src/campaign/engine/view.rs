//! A campaign as it is shown: state, counts, rates, forecast.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::error::CampaignError;
use super::super::job::{Job, Window};
use super::super::model::{Counts, Record, State, UploadCounters, fixed_zone};
use super::super::ports::Hold;
use super::super::schedule;
use super::{Campaigns, Entry, hold, rate, window};
use crate::config::Rate;
use crate::types::{CampaignNo, Name, Timestamp};

/// Over how long the rate of late is taken.
const SAMPLES_FOR: Duration = Duration::from_secs(120);

/// The most samples that are kept: one a second.
const SAMPLES_MAX: usize = 128;

/// Counts of late: when, and how many rows had ended and were delivered.
#[derive(Default)]
pub(super) struct Samples(VecDeque<(Timestamp, u64, u64)>);

impl Samples {
    pub(super) fn add(&mut self, now: Timestamp, counts: &Counts) {
        if self.0.back().is_some_and(|(at, ..)| now.since(*at) < Duration::from_secs(1)) {
            return;
        }
        self.0.push_back((now, counts.ended(), counts.delivered));
        while self.0.len() > SAMPLES_MAX || self.0.front().is_some_and(|(at, ..)| now.since(*at) > SAMPLES_FOR) {
            self.0.pop_front();
        }
    }

    /// Rows ended and delivered a second; `None` before there are two samples.
    fn rates(&self) -> Option<Rates> {
        let ((from, ended, delivered), (to, ended_now, delivered_now)) = (self.0.front()?, self.0.back()?);
        let seconds = to.since(*from).as_secs_f64();
        let a_second = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        (seconds > 0.0).then(|| Rates {
            ended_per_second: a_second(*ended, *ended_now),
            delivered_per_second: a_second(*delivered, *delivered_now),
        })
    }
}

/// How fast it goes, over the last two minutes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rates {
    /// Rows that ended, a second.
    pub ended_per_second: f64,
    /// Rows that were delivered, a second.
    pub delivered_per_second: f64,
}

/// A campaign as the API and the CLI show it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CampaignView {
    /// Its id.
    pub id: Name,
    /// Its number in the store.
    pub no: CampaignNo,
    /// Whose it is.
    pub tenant: Name,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Why it stands there, where somebody said so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The reason by which a failed check was passed over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub forced: Option<String>,
    /// The version of its job.
    pub version: u32,
    /// Who made it.
    pub by: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started: Option<Timestamp>,
    /// When its first row is due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Timestamp>,
    /// How many rows came to which end.
    pub counts: Counts,
    /// Rows that are in an attempt now, which nothing stops any more; not there when the scheduler does not answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_flight: Option<u64>,
    /// How fast it goes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rates: Option<Rates>,
    /// When it will be done, where that can be said: by its rate and window, or as fast as of late.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta: Option<Timestamp>,
    /// What holds it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<Hold>,
    /// The rate in force.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<Rate>,
    /// The window in force.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<Window>,
    /// The priority in force.
    pub priority: u8,
    /// What the upload has counted.
    pub upload: UploadCounters,
}

impl Campaigns {
    /// A campaign as it is now.
    pub async fn view(&self, tenant: &Name, id: &Name) -> Result<CampaignView, CampaignError> {
        let entry = self.entry(tenant, id)?;
        let record = entry.record();
        let head = self.head_of(&record).await?;
        let counts = Counts::of(&self.counts(record.no).await?.1);
        let upload = self.parts().ports.recipients.counters(Arc::clone(&head)).await?;
        let in_flight = match self.sealings().get(record.no) {
            Some(_) => self.parts().ports.steer.in_flight(record.no).await.ok().map(|rows| rows.len() as u64),
            None => Some(0),
        };
        Ok(CampaignView { in_flight, ..self.shown(&entry, &record, &head.job, counts, upload) })
    }

    fn shown(&self, entry: &Entry, record: &Record, job: &Job, counts: Counts, upload: UploadCounters) -> CampaignView {
        let now = self.now();
        let rates = match record.state {
            State::Running => {
                let mut samples = entry.samples.lock();
                samples.add(now, &counts);
                samples.rates()
            }
            _ => None,
        };
        CampaignView {
            id: record.id.clone(),
            no: record.no,
            tenant: record.tenant.clone(),
            name: record.name.clone(),
            state: record.state,
            reason: record.reason.clone(),
            forced: record.forced.clone(),
            version: record.version,
            by: record.by.clone(),
            created: record.created,
            updated: record.updated,
            started: record.started,
            due: record.due,
            ended: record.ended,
            counts,
            in_flight: None,
            rates,
            eta: eta(record, job, &counts, rates, now),
            hold: hold(record, job, now),
            rate: rate(record, job),
            window: window(record, job),
            priority: record.overrides.priority.unwrap_or(job.priority),
            upload,
        }
    }
}

/// When it will be done: `None` when it is held without an end, or nothing says how fast it goes.
pub(super) fn eta(
    record: &Record,
    job: &Job,
    counts: &Counts,
    rates: Option<Rates>,
    now: Timestamp,
) -> Option<Timestamp> {
    if !matches!(record.state, State::Scheduled | State::Running) || counts.waiting == 0 {
        return None;
    }
    let by_rate = rate(record, job).map(|rate| schedule::takes(counts.waiting, rate));
    let of_late = rates.map(|r| r.ended_per_second).filter(|per_second| *per_second > 0.0);
    let by_late = of_late.map(|per_second| counts.waiting as f64 / per_second);
    let by_late = by_late.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let work = by_rate.max(by_late)?;
    let start = record.due.unwrap_or(now).max(now);
    Some(schedule::finish(window(record, job).as_ref(), &fixed_zone(job), start, work))
}
