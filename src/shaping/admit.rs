//! The admission function: go, or wait for what.

use std::fmt;
use std::time::Duration;

use super::{Bucket, Limits, Pace, ProviderState, Shared, control, shared};
use crate::config::Rate;
use crate::types::Timestamp;

/// Why mail waits. The one list of reasons: nothing else holds mail back. Its text is what `queue explain` prints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The daemon is ending: nothing new starts.
    Draining,
    /// The store failed: nothing could be settled.
    StoreFailed,
    /// An operator holds it: the suspension's number.
    Suspended(u64),
    /// Its campaign is held.
    Held(HoldKind),
    /// Not due before this.
    RetryDue,
    /// Its rows are being read, or the budget of windows is used up.
    Window,
    /// Its message is being read.
    Content,
    /// Its domain's hosts are being looked up.
    Resolving,
    /// Its domain has no hosts, for now.
    Unresolved,
    /// Too many outcomes are not yet on disk.
    Unsettled,
    /// The pool has no source that may send.
    NoSource,
    /// The source can't be used for now: it is this host's trouble, no destination's.
    SourceHeld(SourceTrouble),
    /// No host of the site could be reached, some time ago.
    HostDown,
    /// A limit of connections is used up.
    Connections(Limit),
    /// A limit of a rate is used up.
    Rate(Limit),
    /// The day's warm-up budget of the source is used up.
    WarmUp,
    /// The provider asked for a pause, or answered so that one is due.
    ProviderHeld,
}

/// Why a campaign is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// Somebody paused it.
    Paused,
    /// Its window of hours is closed.
    Window,
    /// One of its own conditions stopped it.
    Halted,
}

impl HoldKind {
    /// The word that its reason begins with in `queue explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            HoldKind::Paused => "paused",
            HoldKind::Window => "window",
            HoldKind::Halted => "halted",
        }
    }
}

/// Why a source can't open connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceTrouble {
    /// This host does not have its address.
    Address,
    /// This host or process is out of file descriptors, ports or memory.
    Exhausted,
}

impl SourceTrouble {
    /// The label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            SourceTrouble::Address => "address",
            SourceTrouble::Exhausted => "exhausted",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            SourceTrouble::Address => "this host does not have its address",
            SourceTrouble::Exhausted => "this host is out of file descriptors, ports or memory",
        }
    }
}

/// A named limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Limit {
    /// Connections of this node.
    NodeConnections,
    /// Connections of the source.
    SourceConnections,
    /// Connections of the source to the site.
    SiteConnections,
    /// New connections of the source to the site.
    SiteConnectionRate,
    /// Messages of the source.
    SourceMessageRate,
    /// Messages of the source to the site.
    SiteMessageRate,
    /// Messages in one connection.
    MessagesPerConnection,
    /// Messages of a campaign.
    CampaignRate,
    /// Connections of the source to all sites of a provider.
    ProviderConnections,
    /// New connections of the source to all sites of a provider.
    ProviderConnectionRate,
    /// Messages of the source to all sites of a provider.
    ProviderMessageRate,
    /// Messages and octets of this node.
    NodeRate,
    /// Messages and octets of a tenant.
    TenantRate,
    /// Messages and octets of a pool.
    PoolRate,
    /// The ceiling of connections that was learned of a provider.
    CeilingConnections,
    /// The ceiling of the rate of messages that was learned of a provider.
    CeilingRate,
}

impl Limit {
    /// Its name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Limit::NodeConnections => "node connections",
            Limit::SourceConnections => "source connections",
            Limit::SiteConnections => "site connections",
            Limit::SiteConnectionRate => "site connection rate",
            Limit::SourceMessageRate => "source message rate",
            Limit::SiteMessageRate => "site message rate",
            Limit::MessagesPerConnection => "messages per connection",
            Limit::CampaignRate => "campaign rate",
            Limit::ProviderConnections => "provider connections",
            Limit::ProviderConnectionRate => "provider connection rate",
            Limit::ProviderMessageRate => "provider message rate",
            Limit::NodeRate => "node rate",
            Limit::TenantRate => "tenant rate",
            Limit::PoolRate => "pool rate",
            Limit::CeilingConnections => "provider connections (adapted)",
            Limit::CeilingRate => "provider message rate (adapted)",
        }
    }
}

impl Reason {
    /// Whether it is one of a source towards a provider: all sites of the provider wait in one line for it.
    pub const fn is_of_path(self) -> bool {
        matches!(
            self,
            Reason::ProviderHeld
                | Reason::WarmUp
                | Reason::Rate(Limit::ProviderMessageRate | Limit::ProviderConnectionRate | Limit::CeilingRate)
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Draining => f.pad("draining: the daemon is ending"),
            Reason::StoreFailed => f.pad("store failed"),
            Reason::Suspended(id) => write!(f, "suspended (number {id})"),
            Reason::Held(kind) => f.pad(kind.as_str()),
            Reason::RetryDue => f.pad("retry due later"),
            Reason::Window => f.pad("window: rows are being read"),
            Reason::Content => f.pad("content: the message is being read"),
            Reason::Resolving => f.pad("resolving"),
            Reason::Unresolved => f.pad("no way to the domain for now"),
            Reason::Unsettled => f.pad("unsettled: too many outcomes are not yet on disk"),
            Reason::NoSource => f.pad("no source: none of the pool may send"),
            Reason::SourceHeld(trouble) => write!(f, "source held: {}", trouble.words()),
            Reason::HostDown => f.pad("host down"),
            Reason::Connections(limit) | Reason::Rate(limit) => f.pad(limit.as_str()),
            Reason::WarmUp => f.pad("warm-up"),
            Reason::ProviderHeld => f.pad("provider held"),
        }
    }
}

/// What ends a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// A time.
    At(Timestamp),
    /// A connection of this limit is released.
    Release(Limit),
    /// Something that tells by itself: an answer, a commit, an operator.
    Event,
}

/// The answer of [`admit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It may go now.
    Go,
    /// It waits.
    Wait {
        /// Why.
        reason: Reason,
        /// Until when.
        wake: Wake,
    },
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A connection is to be opened.
    Open,
    /// A message is to be sent on a connection that is there.
    Send,
}

/// What is known of the hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// They are known.
    Known,
    /// They are being looked up.
    Resolving,
    /// There are none; it is looked up again at this time.
    Failed(Timestamp),
}

/// What of the queue is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// Its head is there.
    Ready,
    /// It is being read.
    Reading,
    /// It waits for memory: the budget of entries is used up.
    Full,
}

/// Whether the hosts can be reached from the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// As far as is known.
    Up,
    /// Not tried again before this.
    Down(Timestamp),
}

/// Limits and counters of one source towards one site.
#[derive(Clone, Copy, Debug)]
pub struct PathState<'a> {
    /// The name of the source, for people.
    pub source: &'a str,
    /// The site's limits.
    pub limits: &'a Limits,
    /// What keeps the source from opening connections, and until when.
    pub source_held: Option<(SourceTrouble, Timestamp)>,
    /// Whether the hosts answered.
    pub host: Host,
    /// Open connections of this source to the site.
    pub site_connections: u32,
    /// Tokens of new connections to the site.
    pub site_connection_rate: Bucket,
    /// Tokens of messages to the site.
    pub site_message_rate: Bucket,
    /// Open connections of this source.
    pub source_connections: u32,
    /// Their limit.
    pub source_connections_max: Option<u32>,
    /// Tokens of messages of this source.
    pub source_message_rate: Bucket,
    /// Their limit.
    pub source_message_rate_max: Option<Rate>,
    /// What holds towards the site's provider; `None` before anything went there.
    pub provider: Option<ProviderState<'a>>,
}

/// What was set for a campaign, and how much of its rate is used.
#[derive(Clone, Copy, Debug)]
pub struct CampaignState<'a> {
    /// Its name, for people.
    pub name: &'a str,
    /// What holds it, and until when.
    pub hold: Option<(HoldKind, Option<Timestamp>)>,
    /// Its rate, and when the next message may go.
    pub rate: Option<(Rate, Pace)>,
    /// Not before this is it the queue's turn: others of the campaign wait before it for the rate.
    pub turn: Timestamp,
}

/// All that decides.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The time.
    pub now: Timestamp,
    /// What is to be done.
    pub ask: Ask,
    /// Whether the daemon is ending.
    pub draining: bool,
    /// Whether the store failed.
    pub store_failed: bool,
    /// The suspension that holds the queue: number and end.
    pub suspended: Option<(u64, Option<Timestamp>)>,
    /// The queue's campaign, where something was set for it.
    pub campaign: Option<CampaignState<'a>>,
    /// The limits of the node, of the queue's tenant and of its pool, in this order, where they are set.
    pub shared: [Option<&'a Shared>; 3],
    /// When the head of the queue is due.
    pub due: Timestamp,
    /// What of the queue is in memory.
    pub window: Window,
    /// What is known of the hosts.
    pub route: Route,
    /// Outcomes that are not yet on disk.
    pub unsettled: u32,
    /// Their limit.
    pub unsettled_max: u32,
    /// Open connections of this node.
    pub node_connections: u32,
    /// Their limit.
    pub node_connections_max: u32,
    /// The source; `None` when the pool has none.
    pub path: Option<PathState<'a>>,
}

/// One step of the decision, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it lets the mail go.
    pub verdict: Verdict,
    /// Value and limit.
    pub detail: String,
    /// Where the limit is set.
    pub set_by: Option<String>,
}

/// A check: it answers, and where `note` is there it words what it saw.
type Check = fn(&Question<'_>, Option<&mut Note>) -> Verdict;

/// What a check saw, in words.
#[derive(Default)]
pub(super) struct Note {
    detail: String,
    set_by: Option<String>,
}

/// The steps, in the order in which they are looked at. The first that says wait decides.
const CHECKS: [(&str, Check); 26] = [
    ("draining", |q, note| {
        tell(note, || (if q.draining { "ending" } else { "running" }.into(), None));
        wait_if(q.draining, Reason::Draining, Wake::Event)
    }),
    ("store", |q, note| {
        tell(note, || (if q.store_failed { "failed" } else { "working" }.into(), None));
        wait_if(q.store_failed, Reason::StoreFailed, Wake::Event)
    }),
    ("suspension", |q, note| {
        tell(note, || (q.suspended.map_or("none".into(), |(id, _)| format!("number {id}")), None));
        match q.suspended {
            Some((id, until)) => {
                Verdict::Wait { reason: Reason::Suspended(id), wake: until.map_or(Wake::Event, Wake::At) }
            }
            None => Verdict::Go,
        }
    }),
    ("campaign", |q, note| {
        let Some(campaign) = q.campaign else { return Verdict::Go };
        match campaign.hold.filter(|(_, until)| until.is_none_or(|until| until > q.now)) {
            Some((kind, until)) => {
                tell(note, || (kind.as_str().into(), Some(format!("campaign {}", campaign.name))));
                Verdict::Wait { reason: Reason::Held(kind), wake: until.map_or(Wake::Event, Wake::At) }
            }
            None => {
                tell(note, || ("not held".into(), Some(format!("campaign {}", campaign.name))));
                Verdict::Go
            }
        }
    }),
    ("retry due", |q, note| {
        tell(note, || (if q.due == Timestamp::NEVER { "unknown".into() } else { format!("at {}", q.due) }, None));
        wait_if(q.due > q.now, Reason::RetryDue, Wake::At(q.due))
    }),
    (Limit::CampaignRate.as_str(), |q, note| {
        let Some((campaign, (rate, pace))) = q.campaign.and_then(|c| Some((c, c.rate?))) else { return Verdict::Go };
        let at = pace.ready_at(rate, q.now).max(campaign.turn);
        tell(note, || {
            let when = if at > q.now { format!("next at {at}") } else { "may go".into() };
            (format!("{rate}, {when}"), Some(format!("campaign {}", campaign.name)))
        });
        wait_if(at > q.now, Reason::Rate(Limit::CampaignRate), Wake::At(at))
    }),
    (Limit::NodeRate.as_str(), |q, note| shared::check(q, 0, note)),
    (Limit::TenantRate.as_str(), |q, note| shared::check(q, 1, note)),
    (Limit::PoolRate.as_str(), |q, note| shared::check(q, 2, note)),
    ("window", |q, note| {
        let word = match q.window {
            Window::Ready => "in memory",
            Window::Reading => "being read",
            Window::Full => "waits for memory",
        };
        tell(note, || (word.into(), Some("storage.window_entries".into())));
        wait_if(q.window != Window::Ready, Reason::Window, Wake::Event)
    }),
    ("route", |q, note| {
        let word = match q.route {
            Route::Known => "known",
            Route::Resolving => "being looked up",
            Route::Failed(_) => "none",
        };
        tell(note, || (word.into(), None));
        match q.route {
            Route::Known => Verdict::Go,
            Route::Resolving => Verdict::Wait { reason: Reason::Resolving, wake: Wake::Event },
            Route::Failed(until) => Verdict::Wait { reason: Reason::Unresolved, wake: Wake::At(until) },
        }
    }),
    ("unsettled", |q, note| {
        tell(note, || of(q.unsettled, q.unsettled_max, Some("delivery.max_unsettled".into())));
        wait_if(q.unsettled >= q.unsettled_max, Reason::Unsettled, Wake::Event)
    }),
    ("source", |q, note| {
        let Some(path) = q.path else {
            tell(note, || ("none of the pool may send".into(), Some("pools".into())));
            return Verdict::Wait { reason: Reason::NoSource, wake: Wake::Event };
        };
        // A connection that is open does not need what is missing.
        match path.source_held.filter(|(_, until)| q.ask == Ask::Open && *until > q.now) {
            Some((trouble, until)) => {
                let words = || format!("{:?} is held, tried again at {until}: {}", path.source, trouble.words());
                tell(note, || (words(), Some(format!("sources.{}", path.source))));
                Verdict::Wait { reason: Reason::SourceHeld(trouble), wake: Wake::At(until) }
            }
            None => {
                tell(note, || (format!("{:?}", path.source), Some("pools".into())));
                Verdict::Go
            }
        }
    }),
    ("host", |q, note| {
        let Some(path) = q.path else { return Verdict::Go };
        match path.host {
            Host::Down(until) if until > q.now => {
                tell(note, || (format!("down, tried again at {until}"), None));
                Verdict::Wait { reason: Reason::HostDown, wake: Wake::At(until) }
            }
            Host::Down(_) | Host::Up => {
                tell(note, || ("up, as far as is known".into(), None));
                Verdict::Go
            }
        }
    }),
    ("provider hold", control::check_held),
    ("warm-up", control::check_warmup),
    (Limit::SourceMessageRate.as_str(), |q, note| {
        let Some((path, rate)) = q.path.and_then(|p| Some((p, p.source_message_rate_max?))) else { return Verdict::Go };
        let set_by = || format!("sources.{}.message_rate", path.source);
        check_rate(q.now, Limit::SourceMessageRate, path.source_message_rate, rate, set_by, note)
    }),
    (Limit::ProviderMessageRate.as_str(), control::check_rates),
    (Limit::CeilingRate.as_str(), control::check_ceiling_rate),
    (Limit::SiteMessageRate.as_str(), |q, note| {
        let Some((path, limit)) = q.path.and_then(|p| Some((p, p.limits.message_rate.as_ref()?))) else {
            return Verdict::Go;
        };
        let set_by = || limit.set_by.to_string();
        check_rate(q.now, Limit::SiteMessageRate, path.site_message_rate, limit.rate, set_by, note)
    }),
    (Limit::ProviderConnections.as_str(), control::check_provider_connections),
    (Limit::CeilingConnections.as_str(), control::check_ceiling_connections),
    (Limit::SiteConnections.as_str(), |q, note| {
        let Some((path, limit)) = q.path.and_then(|p| Some((p, p.limits.connections.as_ref()?))) else {
            return Verdict::Go;
        };
        tell(note, || of(path.site_connections, limit.max, Some(limit.set_by.to_string())));
        check_connections(q.ask, path.site_connections, limit.max, Limit::SiteConnections)
    }),
    (Limit::SourceConnections.as_str(), |q, note| {
        let Some((path, max)) = q.path.and_then(|p| Some((p, p.source_connections_max?))) else { return Verdict::Go };
        tell(note, || of(path.source_connections, max, Some(format!("sources.{}.connections", path.source))));
        check_connections(q.ask, path.source_connections, max, Limit::SourceConnections)
    }),
    (Limit::NodeConnections.as_str(), |q, note| {
        tell(note, || of(q.node_connections, q.node_connections_max, Some("delivery.max_connections".into())));
        check_connections(q.ask, q.node_connections, q.node_connections_max, Limit::NodeConnections)
    }),
    (Limit::ProviderConnectionRate.as_str(), control::check_provider_connection_rate),
];

/// The last step, apart because only it costs a token when a connection is opened.
fn check_connection_rate(q: &Question<'_>, note: Option<&mut Note>) -> Verdict {
    let Some((path, limit)) = q.path.and_then(|p| Some((p, p.limits.connection_rate.as_ref()?))) else {
        return Verdict::Go;
    };
    if q.ask == Ask::Send {
        return Verdict::Go;
    }
    let set_by = || limit.set_by.to_string();
    check_rate(q.now, Limit::SiteConnectionRate, path.site_connection_rate, limit.rate, set_by, note)
}

pub(super) fn tell(note: Option<&mut Note>, words: impl FnOnce() -> (String, Option<String>)) {
    if let Some(note) = note {
        (note.detail, note.set_by) = words();
    }
}

pub(super) fn of(used: u32, max: u32, set_by: Option<String>) -> (String, Option<String>) {
    (format!("{used} of {max}"), set_by)
}

fn wait_if(wait: bool, reason: Reason, wake: Wake) -> Verdict {
    if wait { Verdict::Wait { reason, wake } } else { Verdict::Go }
}

pub(super) fn check_connections(ask: Ask, used: u32, max: u32, limit: Limit) -> Verdict {
    wait_if(ask == Ask::Open && used >= max, Reason::Connections(limit), Wake::Release(limit))
}

pub(super) fn check_rate(
    now: Timestamp,
    limit: Limit,
    bucket: Bucket,
    rate: Rate,
    set_by: impl FnOnce() -> String,
    note: Option<&mut Note>,
) -> Verdict {
    let at = bucket.ready_at(rate, now);
    tell(note, || {
        let left = at.since(now);
        let when = if left == Duration::ZERO {
            "token there".into()
        } else {
            format!("next token in {} ms", left.as_millis())
        };
        (format!("{rate}, {when}"), Some(set_by()))
    });
    wait_if(at > now, Reason::Rate(limit), Wake::At(at))
}

/// Whether mail may go now: the first step that says wait decides.
pub fn admit(question: &Question<'_>) -> Verdict {
    for (_, check) in &CHECKS {
        let verdict = check(question, None);
        if verdict != Verdict::Go {
            return verdict;
        }
    }
    check_connection_rate(question, None)
}

/// The steps of [`admit`], in words; those of limits that are not set are left out.
pub fn explain(question: &Question<'_>) -> Vec<Step> {
    let last: (&'static str, Check) = (Limit::SiteConnectionRate.as_str(), check_connection_rate);
    let all = CHECKS.iter().copied().chain([last]);
    all.filter_map(|(name, check)| {
        let mut note = Note::default();
        let verdict = check(question, Some(&mut note));
        (!note.detail.is_empty()).then_some(Step { name, verdict, detail: note.detail, set_by: note.set_by })
    })
    .collect()
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
