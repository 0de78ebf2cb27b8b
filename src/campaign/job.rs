//! A job: what a campaign sends, to whom, when and how.
//!
//! 1. [`parse()`] reads TOML or JSON into a tree, then each field into its type; what does not fit is a [`Problem`] with its place,
//! 2. [`Job::problems`] checks what types can't show: bounds, dangling names, what excludes each other,
//! 3. all problems are answered at once, each with the field, what is wrong and how to mend it.
//!
//! A job is written back as JSON with its fields in one order, so that two jobs are the same when their hashes are.

mod check;
mod parse;
mod place;
mod values;

pub use check::*;
pub use parse::{Format, inline_files, parse};
pub use place::of as place_of;
pub use values::{At, Days, JobAttachment, OnMissing, Person, TestRecipient, TimeOfDay, Zone};

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{HumanDuration, Rate};
use crate::types::{Class, Name};

/// Something that is wrong with a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The path of the field: `schedule.window.from`, `attachments[2].content`. Empty for the job as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<String>,
    /// The line in the job's text, from 1; in a template (`field` names it) the line there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<u32>,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), fix: None, line: None, column: None }
    }

    /// The same with a way to mend it.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same with its place.
    pub fn at(mut self, line: u32, column: u32) -> Self {
        (self.line, self.column) = (Some(line), Some(column));
        self
    }
}

impl fmt::Display for Problem {
    /// `3:8: subject: must not be empty (say what it is about)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.fix {
            Some(fix) => write!(f, " ({fix})"),
            None => Ok(()),
        }
    }
}

/// A campaign's job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its id, unique in the tenant; without one the server gives one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<Name>,
    /// A name for people. Default: the id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The From field.
    pub from: Person,
    /// The Reply-To field.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub reply_to: Vec<Person>,
    /// The subject, a template.
    pub subject: String,
    /// What mail programs show beside the subject, a template.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preheader: Option<String>,
    /// The plain text, a template; without it one is made from the HTML.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The HTML, a template.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub html: Option<String>,
    /// Further header fields; values are templates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub headers: BTreeMap<String, String>,
    /// Files.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attachments: Vec<JobAttachment>,
    /// The class.
    #[serde(default = "marketing")]
    pub class: Class,
    /// The pool of sources. Default: the tenant's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<Name>,
    /// The list that the recipients are subscribed to: the scope of an unsubscribe.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub list: Option<Name>,
    /// Tags; they stand in each event.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tags: Vec<Name>,
    /// The submitter's own data; it stands in terminal events.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty", default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Variables for all rows; a row's own win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub variables: BTreeMap<String, serde_json::Value>,
    /// The audience that it is sent to, in place of an uploaded list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audience: Option<Name>,
    /// An expression that a row must fulfil.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub segment: Option<String>,
    /// Who is left out.
    #[serde(skip_serializing_if = "Exclude::is_empty", default)]
    pub exclude: Exclude,
    /// When it is sent.
    #[serde(skip_serializing_if = "Schedule::is_empty", default)]
    pub schedule: Schedule,
    /// How fast it is sent, over all sources.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<Rate>,
    /// How long after it is due a row is given up. Default: `retry.expire_after`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expire_after: Option<HumanDuration>,
    /// What becomes of a row that lacks a variable.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// Who gets a test.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub test_recipients: Vec<TestRecipient>,
    /// When it stops by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_if: Option<StopIf>,
    /// Its share against the tenant's other campaigns: 1 to 10, twice the number is twice the share.
    #[serde(default = "priority_default")]
    pub priority: u8,
    /// Where its links point to, in place of `public.url`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub public_url: Option<String>,
}

fn marketing() -> Class {
    Class::Marketing
}

/// The priority where none is given.
pub const PRIORITY_DEFAULT: u8 = 5;

fn priority_default() -> u8 {
    PRIORITY_DEFAULT
}

/// Who is left out of a campaign.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exclude {
    /// Rows that fulfil this expression.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expression: Option<String>,
    /// Those who were in these campaigns of the tenant and got them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub campaigns: Vec<Name>,
    /// Those who are in these audiences of the tenant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lists: Vec<Name>,
}

impl Exclude {
    /// Whether nobody is left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When a campaign is sent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// When it begins; without it at the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<At>,
    /// The hours in which it is sent; outside of them it waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<Window>,
    /// Whose clock `at` and `window` go by. Default: UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_zone: Option<Zone>,
    /// Over how long its rows are spread evenly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spread: Option<HumanDuration>,
}

impl Schedule {
    /// Whether it is sent at the start, as fast as may be.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The hours in which a campaign is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// On which days of the week. Default: all.
    #[serde(default)]
    pub days: Days,
    /// From this time of the day on.
    pub from: TimeOfDay,
    /// Until this time, which is not part of it; before `from` it is that of the next day; `24:00` is the end of the day.
    pub to: TimeOfDay,
}

/// When a campaign stops by itself: one of the rates is passed among at least `minimum` attempts.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StopIf {
    /// Rows that were refused for good, as a share of those that ended: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hard_bounce_rate: Option<f64>,
    /// Deferred attempts, as a share of all attempts: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deferral_rate: Option<f64>,
    /// Complaints, as a share of delivered rows: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub complaint_rate: Option<f64>,
    /// The smallest sample that counts. Default: 200.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minimum: Option<u64>,
}

/// SHA-256 of a job, by which two are the same.
pub type JobHash = [u8; 32];

impl Job {
    /// The job as JSON, its fields in one order.
    pub fn to_json(&self) -> Vec<u8> {
        // A job is made of texts, numbers, lists and maps with text keys: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The job that [`Job::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// What makes it the same job: all but its id.
    pub fn hash(&self) -> JobHash {
        let without = Self { id: None, ..self.clone() };
        Sha256::digest(without.to_json()).into()
    }

    /// The names of the fields in which two jobs differ, in the order of their names.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let tree = |job: &Self| match serde_json::to_value(job) {
            Ok(serde_json::Value::Object(map)) => map,
            Ok(_) | Err(_) => serde_json::Map::new(),
        };
        let (a, b) = (tree(self), tree(other));
        let mut names: Vec<String> = a.keys().chain(b.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names.retain(|name| name != "id" && a.get(name) != b.get(name));
        names
    }
}

#[cfg(test)]
mod tests;
