//! What a report says, as values: the JSON of the API, and what the other forms are made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Counter};
use crate::types::Timestamp;

/// A column of figures: its name, and what it shows.
pub(super) type Column = (&'static str, fn(&Figures) -> String);

/// How far a report counts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AsOf {
    /// When it was made.
    pub at: Timestamp,
    /// The last event that is counted.
    pub event: u64,
    /// Events that were on disk when it was asked for and are not counted: 0 but under the heaviest load.
    pub behind: u64,
}

/// Bounces and deferrals of one class.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Refused for good in the session.
    pub bounced: u64,
    /// Reported as bounced later, by mail.
    pub late_bounces: u64,
    /// Attempts that failed for now.
    pub deferred: u64,
}

/// How long deliveries took since acceptance (a campaign's: since its start), within 1 %.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeliveryTime {
    /// Half of them at most so long, in milliseconds.
    pub p50_ms: u64,
    /// 95 % of them.
    pub p95_ms: u64,
    /// 99 % of them.
    pub p99_ms: u64,
}

/// What was counted. The words are those of the events and of a campaign's counts.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Recipients accepted.
    pub accepted: u64,
    /// Recipients refused at intake.
    pub rejected: u64,
    /// Taken by the remote.
    pub delivered: u64,
    /// Deferred attempts.
    pub deferred: u64,
    /// Refused for good by the remote in the session.
    pub bounced: u64,
    /// Of the delivered, those that a mail reported as bounced later.
    pub late_bounces: u64,
    /// Notices of delay that came by mail.
    pub late_deferrals: u64,
    /// Given up by us.
    pub failed: u64,
    /// Given up: too old.
    pub expired: u64,
    /// Not sent: suppressed.
    pub suppressed: u64,
    /// Not sent: the content could not be made.
    pub rendering_failed: u64,
    /// Not sent: taken out by a cancel or an operator.
    pub cancelled: u64,
    /// Complaints.
    pub complained: u64,
    /// Opens.
    pub opened: u64,
    /// Clicks.
    pub clicked: u64,
    /// Unsubscribes.
    pub unsubscribed: u64,
    /// Answers of machines.
    pub auto_replied: u64,
    /// Delivered, of all that came to an end at a remote or were given up; `null` without any.
    pub delivery_rate: Option<f64>,
    /// Bounced, in the session or later, of all that a remote took or refused.
    pub bounce_rate: Option<f64>,
    /// Complaints, of the delivered.
    pub complaint_rate: Option<f64>,
    /// How long deliveries took; `null` without any.
    pub delivery_time: Option<DeliveryTime>,
    /// Bounces and deferrals by class.
    pub classes: BTreeMap<String, ClassFigures>,
}

impl Figures {
    /// The figures of a cell.
    pub fn of(cell: &Cell) -> Self {
        let get = |counter| cell.get(counter);
        let times = cell.times();
        let quantile = |part| times.quantile(part).unwrap_or(0);
        let (delivered, bounced) = (get(Counter::Delivered), get(Counter::Bounced));
        let late = get(Counter::LateBounced);
        let ended = delivered + bounced + get(Counter::Failed) + get(Counter::Expired);
        Self {
            accepted: get(Counter::Accepted),
            rejected: get(Counter::Rejected),
            delivered,
            deferred: get(Counter::Deferred),
            bounced,
            late_bounces: late,
            late_deferrals: get(Counter::LateDeferred),
            failed: get(Counter::Failed),
            expired: get(Counter::Expired),
            suppressed: get(Counter::Suppressed),
            rendering_failed: get(Counter::RenderingFailed),
            cancelled: get(Counter::Cancelled),
            complained: get(Counter::Complained),
            opened: get(Counter::Opened),
            clicked: get(Counter::Clicked),
            unsubscribed: get(Counter::Unsubscribed),
            auto_replied: get(Counter::AutoReplied),
            delivery_rate: rate(delivered, ended),
            bounce_rate: rate(bounced + late, delivered + bounced),
            complaint_rate: rate(get(Counter::Complained), delivered),
            delivery_time: (times.count() > 0).then(|| DeliveryTime {
                p50_ms: quantile(0.5),
                p95_ms: quantile(0.95),
                p99_ms: quantile(0.99),
            }),
            classes: cell
                .classes()
                .iter()
                .map(|(name, c)| {
                    let class = ClassFigures { bounced: c.bounced, late_bounces: c.late, deferred: c.deferred };
                    (name.to_string(), class)
                })
                .collect(),
        }
    }

    /// By what rows are sorted: all that happened.
    pub(super) fn weight(&self) -> u64 {
        self.delivered + self.deferred + self.bounced + self.failed + self.expired + self.suppressed + self.accepted
    }
}

fn rate(part: u64, of: u64) -> Option<f64> {
    // A report on late bounces alone has nothing that they are a part of.
    (of > 0).then(|| ((part as f64 / of as f64) * 1e6).round() / 1e6)
}

/// A row of a table.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// The provider, source, domain, tenant or campaign; `(none)` for none, `(other)` for those beyond the bound.
    pub name: String,
    /// What was counted.
    #[serde(flatten)]
    pub figures: Figures,
}

/// A point of a time series.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// Recipients accepted.
    pub accepted: u64,
    /// Delivered.
    pub delivered: u64,
    /// Deferred attempts.
    pub deferred: u64,
    /// Bounced in the session.
    pub bounced: u64,
    /// Bounced later.
    pub late_bounces: u64,
    /// Given up: failed and expired.
    pub given_up: u64,
    /// Complaints.
    pub complained: u64,
    /// Half of the deliveries took at most so long, in milliseconds.
    pub p50_ms: Option<u64>,
}

impl Point {
    pub(super) fn of(at: Timestamp, cell: &Cell) -> Self {
        Self {
            at,
            accepted: cell.get(Counter::Accepted),
            delivered: cell.get(Counter::Delivered),
            deferred: cell.get(Counter::Deferred),
            bounced: cell.get(Counter::Bounced),
            late_bounces: cell.get(Counter::LateBounced),
            given_up: cell.get(Counter::Failed) + cell.get(Counter::Expired),
            complained: cell.get(Counter::Complained),
            p50_ms: cell.times().quantile(0.5),
        }
    }
}

/// A time series: each step from the first to the last in which something happened.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// `5min`, `hour` or `day`.
    pub resolution: String,
    /// The points, without gaps.
    pub points: Vec<Point>,
}

/// Replies that are alike.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReplyGroup {
    /// The provider that said it.
    pub provider: String,
    /// What it led to: `deferred`, `bounced`, `failed`, `expired`.
    pub event: String,
    /// How often.
    pub count: u64,
    /// Of those, how often a mail said it later.
    pub late: u64,
    /// The code; 0 where it was no reply.
    pub code: u16,
    /// The enhanced code.
    pub enhanced: String,
    /// What they have in common; what differs is masked.
    pub template: String,
    /// One of them, without addresses.
    pub example: String,
    /// The source that got it.
    pub source: String,
    /// Its class.
    pub category: String,
}

/// The campaign that a report is about.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CampaignFacts {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Timestamp>,
    /// Rows that still wait.
    pub waiting: u64,
}

/// Another campaign to compare with.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    pub campaign: CampaignFacts,
    /// Its figures.
    pub total: Figures,
}

/// A report. What does not belong to one is not there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What it is: `campaign`, `providers`, `sources`, `domains`, `tenants`, `campaigns`, `replies`, `summary`.
    pub report: String,
    /// How far it counts.
    pub as_of: AsOf,
    /// Whose mail, where it is of one tenant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// The campaign that single messages name, or that `campaign` tells of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// From when.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<Timestamp>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// The campaign.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub campaign: Option<CampaignFacts>,
    /// The campaign's own counts, as `GET /v1/campaigns/{id}` answers them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counts: Option<serde_json::Value>,
    /// All together.
    pub total: Figures,
    /// Other campaigns.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub compared: Vec<Compared>,
    /// By provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub providers: Option<Vec<Row>>,
    /// By source.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sources: Option<Vec<Row>>,
    /// By recipients' domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domains: Option<Vec<Row>>,
    /// By tenant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenants: Option<Vec<Row>>,
    /// By campaign.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub campaigns: Option<Vec<Row>>,
    /// In time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub series: Option<Series>,
    /// The replies that were not a yes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replies: Option<Vec<ReplyGroup>>,
}

impl Report {
    /// Its tables with their headings.
    pub fn tables(&self) -> impl Iterator<Item = (&'static str, &Vec<Row>)> {
        let tables = [
            ("provider", &self.providers),
            ("source", &self.sources),
            ("domain", &self.domains),
            ("tenant", &self.tenants),
            ("campaign", &self.campaigns),
        ];
        tables.into_iter().filter_map(|(by, rows)| Some((by, rows.as_ref()?)))
    }

    /// What it is about, in words.
    pub fn title(&self) -> String {
        let mut title = match &self.campaign {
            Some(campaign) => format!("Campaign {}", campaign.id),
            None => {
                let mut word = self.report.clone();
                if let Some(first) = word.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                word
            }
        };
        if let Some(tenant) = &self.tenant {
            title.push_str(&format!(" of {tenant}"));
        }
        if let Some(label) = self.label.as_ref().filter(|_| self.campaign.is_none()) {
            title.push_str(&format!(", campaign {label}"));
        }
        title
    }

    /// Its time, in words.
    pub fn time(&self) -> String {
        match (self.since, self.until) {
            (None, None) => "all time".into(),
            (Some(since), None) => format!("since {}", minute(since)),
            (None, Some(until)) => format!("until {}", minute(until)),
            (Some(since), Some(until)) => format!("{} to {}", minute(since), minute(until)),
        }
    }
}

/// A time to the minute, UTC.
pub(super) fn minute(at: Timestamp) -> String {
    let text = at.rfc3339();
    format!("{} {} UTC", &text[..10], &text[11..16])
}
