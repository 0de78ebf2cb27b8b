//! Alerts: what an operator is to be told without asking, and when it is told.
//!
//! 1. Whoever drives it gathers what there is to see ([`Observed`]) once a minute: counters, the queues' trouble, disk, webhooks;
//! 2. counters become shares over a window ([`shares`]), and all of it findings: which threshold, about what, how bad ([`judge`]);
//! 3. [`Engine::look`] holds them against what was told before: an alert begins when its finding has been bad for long enough, is repeated at most
//!    so often, ends when it has been good for a while, and begins again only after a time. The answer is what to tell: [`Told`].
//!
//! Pure: the time is a parameter, nothing is sent or stored here. The states of an alert:
//!
//! ```text
//! (none) → pending → firing → resting → (none)
//!             ↓                  ↓
//!          (none)             pending
//! ```

mod engine;
mod judge;
mod shares;
#[cfg(test)]
mod tests;
mod why;
mod words;

pub use engine::{Engine, Record, Telling, Told};
pub use judge::Finding;
pub use why::tally;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Name, Timestamp};

/// Which threshold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertName {
    /// Too many of a tenant's recipients bounce.
    BounceRate,
    /// Too many of a tenant's recipients complain.
    ComplaintRate,
    /// A provider defers too much of what a source sends.
    DeferralRate,
    /// Mail that is due is not sent.
    QueueAge,
    /// The disk fills up.
    DiskFree,
    /// A source is held towards a provider.
    SourceHeld,
    /// A reply rule stopped mail until an operator goes on.
    MailStopped,
    /// A webhook fails.
    WebhookFailing,
}

impl AlertName {
    /// All of them.
    pub const ALL: [AlertName; 8] = [
        AlertName::BounceRate,
        AlertName::ComplaintRate,
        AlertName::DeferralRate,
        AlertName::QueueAge,
        AlertName::DiskFree,
        AlertName::SourceHeld,
        AlertName::MailStopped,
        AlertName::WebhookFailing,
    ];

    /// As it is written, in events and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertName::BounceRate => "bounce_rate",
            AlertName::ComplaintRate => "complaint_rate",
            AlertName::DeferralRate => "deferral_rate",
            AlertName::QueueAge => "queue_age",
            AlertName::DiskFree => "disk_free",
            AlertName::SourceHeld => "source_held",
            AlertName::MailStopped => "mail_stopped",
            AlertName::WebhookFailing => "webhook_failing",
        }
    }
}

/// What there is to see at one time. Counts are totals since the process began; the engine takes the differences.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What became of each tenant's mail.
    pub tenants: Vec<(Name, TenantCounts)>,
    /// What each source met at each provider.
    pub paths: Vec<PathCounts>,
    /// Mail that is due for longest and is not sent.
    pub overdue: Option<Overdue>,
    /// The disk under `data_dir`.
    pub disk: Option<Disk>,
    /// Sources that may not send to a provider now.
    pub held: Vec<Held>,
    /// What rules stopped until an operator goes on.
    pub stopped: Vec<Stopped>,
    /// Webhooks that fail.
    pub webhooks: Vec<FailingEndpoint>,
}

/// What became of a tenant's mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TenantCounts {
    /// Taken by the remote.
    pub delivered: u64,
    /// Refused for good in the session.
    pub bounced: u64,
    /// Bounced by mail; these stand among the delivered too.
    pub late_bounces: u64,
    /// Complained about.
    pub complained: u64,
}

/// What a source met at a provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathCounts {
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// Attempts that ended: taken, deferred or refused.
    pub attempts: u64,
    /// Those of them that were deferred.
    pub deferred: u64,
}

/// Mail that is due and is not sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overdue {
    /// Since when it is due.
    pub since: Timestamp,
    /// Whose.
    pub tenant: Name,
    /// To which domain.
    pub domain: String,
    /// Recipients in that queue.
    pub count: u64,
    /// What holds it, as `queue explain` says it.
    pub held_by: Option<String>,
}

/// A file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Octets that are free for us.
    pub free: u64,
    /// All of it.
    pub total: u64,
    /// Free octets below which intake refuses.
    pub min_free: u64,
}

/// A source that may not send to a provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// Until when, for now.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// Mail that a reply rule stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// The suspension's number.
    pub id: u64,
    /// Whose, where it is one tenant's.
    pub tenant: Option<Name>,
    /// Why.
    pub reason: String,
}

/// A webhook whose requests are not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailingEndpoint {
    /// Its name.
    pub name: Name,
    /// Whose events; none means all.
    pub tenant: Option<Name>,
    /// Since when.
    pub since: Timestamp,
    /// What the last failure was.
    pub error: String,
}

/// The alerts of the last look, for those who ask.
pub type Board = std::sync::Arc<arc_swap::ArcSwap<Vec<Alert>>>;

/// An alert as an operator sees it in a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// Which.
    pub name: AlertName,
    /// `firing` or `pending`.
    pub state: AlertState,
    /// What it is about: a tenant, a source and provider, a webhook; `node` for all of it.
    pub subject: String,
    /// Whose mail, where it is one tenant's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<Name>,
    /// Since when.
    pub since: Timestamp,
    /// When it was told last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub told: Option<Timestamp>,
    /// The values.
    pub summary: String,
    /// The likely cause.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// How an alert is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It was told, and goes on.
    Firing,
    /// The threshold is crossed, but not for long enough to tell.
    Pending,
}

impl AlertState {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertState::Firing => "firing",
            AlertState::Pending => "pending",
        }
    }
}

/// How long a finding must be good before its alert ends.
const CLEAR_AFTER: Duration = Duration::from_secs(300);
/// How long after an alert was told it rests: the same begins again no earlier.
const REST: Duration = Duration::from_secs(3_600);
/// The part of a threshold below which (for free space: the reciprocal above which) a value counts as good again.
const CLEAR_SHARE: f64 = 0.8;
/// The most alerts that are followed; further findings wait until one ends. A finding costs about 500 octets.
const ALERTS_MAX: usize = 1_000;
