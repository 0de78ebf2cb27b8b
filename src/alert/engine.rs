//! What was told holds: the states of the alerts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::judge::{Finding, Judge, Level};
use super::{ALERTS_MAX, Alert, AlertName, AlertState, CLEAR_AFTER, Observed, REST};
use crate::config::Alerts;
use crate::types::{Name, Timestamp};

/// What is to be told about an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// It begins.
    Firing,
    /// It goes on.
    Repeated,
    /// It has ended.
    Resolved,
}

impl Telling {
    /// As it is written, in events and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Telling::Firing => "firing",
            Telling::Repeated => "repeated",
            Telling::Resolved => "resolved",
        }
    }
}

/// An alert and what is to be told about it.
#[derive(Clone, Debug)]
pub struct Told {
    /// What.
    pub telling: Telling,
    /// The alert as it is now; of one that has ended, as it was.
    pub alert: Alert,
    /// What is to be kept of it over a restart; `None` when nothing is.
    pub record: Option<Record>,
}

/// An alert that was told, as it is kept over a restart: it is not told anew. Format 1.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The format.
    pub v: u8,
    /// As it was told last.
    pub alert: Alert,
}

impl Record {
    /// The format that is written.
    pub const VERSION: u8 = 1;
}

type Key = (AlertName, String);

/// An alert that is followed.
#[derive(Clone, Debug)]
enum Followed {
    /// Bad, but not for long enough.
    Pending { since: Timestamp, finding: Box<Finding> },
    /// It was told.
    Firing {
        alert: Box<Alert>,
        good_since: Option<Timestamp>,
        /// What the events said of the cause when it was told.
        why: Option<String>,
    },
    /// It has ended; until then it does not begin again.
    Resting { until: Timestamp },
}

/// The engine; see the module.
#[derive(Debug, Default)]
pub struct Engine {
    judge: Judge,
    followed: BTreeMap<Key, Followed>,
}

impl Engine {
    /// An engine that knows what was told before a restart.
    pub fn restored(records: impl IntoIterator<Item = Record>) -> Self {
        let followed = records.into_iter().take(ALERTS_MAX).map(|record| {
            let key = (record.alert.name, record.alert.subject.clone());
            (key, Followed::Firing { alert: Box::new(record.alert), good_since: None, why: None })
        });
        Self { judge: Judge::default(), followed: followed.collect() }
    }

    /// Looks at what there is now; answers what is to be told.
    pub fn look(&mut self, config: &Alerts, seen: &Observed, now: Timestamp) -> Vec<Told> {
        let findings = if config.enabled { self.judge.judge(config, seen, now) } else { Vec::new() };
        let mut findings: BTreeMap<Key, Finding> =
            findings.into_iter().map(|finding| ((finding.name, finding.subject.clone()), finding)).collect();
        let mut told = Vec::new();
        let known: Vec<Key> = self.followed.keys().cloned().collect();
        for key in known {
            let Some(followed) = self.followed.remove(&key) else { continue };
            let next = step(followed, findings.remove(&key), config, now, &mut told);
            next.into_iter().for_each(|next| drop(self.followed.insert(key.clone(), next)));
        }
        for (key, finding) in findings.into_iter().filter(|(_, finding)| finding.level == Level::Bad) {
            if self.followed.len() >= ALERTS_MAX {
                break;
            }
            let next = begin(finding, now, now, &mut told);
            self.followed.insert(key, next);
        }
        told
    }

    /// What the events say of the cause of an alert that was told; it stands before the likely cause from now on.
    pub fn explain(&mut self, told: &mut Told, sentence: String) {
        let key = (told.alert.name, told.alert.subject.clone());
        if let Some(Followed::Firing { alert, why, .. }) = self.followed.get_mut(&key) {
            told.alert.cause = caused(Some(&sentence), &told.alert.cause);
            alert.cause.clone_from(&told.alert.cause);
            told.record = told.record.take().map(|record| Record { alert: told.alert.clone(), ..record });
            *why = Some(sentence);
        }
    }

    /// What is wrong now: those that fire first.
    pub fn alerts(&self) -> Vec<Alert> {
        let mut alerts: Vec<Alert> = self
            .followed
            .values()
            .filter_map(|followed| match followed {
                Followed::Pending { since, finding } => Some(alert_of(finding, AlertState::Pending, *since, None)),
                Followed::Firing { alert, .. } => Some(Alert::clone(alert)),
                Followed::Resting { .. } => None,
            })
            .collect();
        alerts.sort_by(|a, b| (a.state, a.since, a.name, &a.subject).cmp(&(b.state, b.since, b.name, &b.subject)));
        alerts
    }
}

/// What becomes of an alert that is followed; `None` when it is forgotten. A finding that is not there any more is good.
fn step(
    followed: Followed,
    finding: Option<Finding>,
    config: &Alerts,
    now: Timestamp,
    told: &mut Vec<Told>,
) -> Option<Followed> {
    let level = finding.as_ref().map_or(Level::Good, |finding| finding.level);
    match followed {
        Followed::Pending { since, finding: before } => match (level, finding) {
            (Level::Bad, Some(finding)) => Some(begin(finding, since, now, told)),
            (Level::Between, _) => Some(Followed::Pending { since, finding: before }),
            (Level::Bad, None) | (Level::Good, _) => None,
        },
        Followed::Firing { mut alert, good_since, why } => {
            if let Some(finding) = &finding {
                alert.summary.clone_from(&finding.summary);
                alert.cause = caused(why.as_deref(), &finding.cause);
                alert.fix.clone_from(&finding.fix);
            }
            let good_since = (level == Level::Good).then(|| good_since.unwrap_or(now));
            if good_since.is_some_and(|since| now.since(since) >= CLEAR_AFTER) {
                let until = alert.told.unwrap_or(alert.since).after(REST).max(now);
                told.push(Told { telling: Telling::Resolved, alert: *alert, record: None });
                return Some(Followed::Resting { until });
            }
            let again = !config.repeat.0.is_zero() && alert.told.is_none_or(|at| now.since(at) >= config.repeat.0);
            if again && good_since.is_none() {
                alert.told = Some(now);
                told.push(tell(Telling::Repeated, &alert));
            }
            Some(Followed::Firing { alert, good_since, why })
        }
        Followed::Resting { until } if now < until => Some(Followed::Resting { until }),
        Followed::Resting { .. } => match (level, finding) {
            (Level::Bad, Some(finding)) => Some(begin(finding, now, now, told)),
            (Level::Bad, None) | (Level::Between | Level::Good, _) => None,
        },
    }
}

fn caused(why: Option<&str>, likely: &str) -> String {
    why.map_or_else(|| likely.to_owned(), |why| format!("{why} {likely}"))
}

/// A bad finding: pending, or firing when it has been bad for long enough.
fn begin(finding: Finding, since: Timestamp, now: Timestamp, told: &mut Vec<Told>) -> Followed {
    let since = finding.since.map_or(since, |known: Timestamp| known.min(since));
    if now.since(since) < finding.after {
        return Followed::Pending { since, finding: Box::new(finding) };
    }
    let alert = alert_of(&finding, AlertState::Firing, since, Some(now));
    told.push(tell(Telling::Firing, &alert));
    Followed::Firing { alert: Box::new(alert), good_since: None, why: None }
}

fn tell(telling: Telling, alert: &Alert) -> Told {
    let record = Record { v: Record::VERSION, alert: alert.clone() };
    Told { telling, alert: alert.clone(), record: Some(record) }
}

fn alert_of(finding: &Finding, state: AlertState, since: Timestamp, told: Option<Timestamp>) -> Alert {
    let (subject, tenant): (String, Option<Name>) = (finding.subject.clone(), finding.tenant.clone());
    let Finding { name, summary, cause, fix, .. } = finding;
    let (summary, cause, fix) = (summary.clone(), cause.clone(), fix.clone());
    Alert { name: *name, state, subject, tenant, since, told, summary, cause, fix }
}
