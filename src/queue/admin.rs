//! What an operator can ask of the queues, and the answers.
//!
//! A command is a message to the scheduler's task. What changes something is committed first, then applied, then answered.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::config::Rate;
pub use crate::shaping::HoldKind;
use crate::types::{Class, DeliveryId, Domain, MessageId, Name, QueueKey, Timestamp};

/// Which queues or messages are meant: all that is given must match; with nothing given, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<Name>,
    /// The recipients' domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<Domain>,
    /// The campaign.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub campaign: Option<Name>,
    /// The pool.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<Name>,
    /// The class.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<Class>,
    /// One message. Not for suspensions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<MessageId>,
    /// One recipient of that message, by its place in the envelope: a person is erased, so the event of it names nobody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipient: Option<u32>,
    /// Accepted before this. Not for suspensions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub older_than: Option<Timestamp>,
}

impl Matcher {
    /// Whether queues with this key are meant (whatever `message` and `older_than` say).
    pub fn matches_queue(&self, key: &QueueKey) -> bool {
        self.tenant.as_ref().is_none_or(|t| *t == key.tenant)
            && self.domain.as_ref().is_none_or(|d| *d == key.domain)
            && self.campaign.as_ref().is_none_or(|c| Some(c) == key.campaign.as_ref())
            && self.pool.as_ref().is_none_or(|p| *p == key.pool)
            && self.class.is_none_or(|c| c == key.class)
    }
}

/// A hold on queues, with its reason and its end; it matches mail that comes later too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Its number.
    pub id: u64,
    /// What it holds.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` until it is resumed.
    pub until: Option<Timestamp>,
}

/// What holds a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why, for people.
    pub reason: String,
    /// What kind of hold it is.
    pub kind: HoldKind,
    /// Until when: then it ends by itself. `None` until it is set anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

/// What is set for a campaign: it holds for all queues whose key has this tenant and campaign. The scheduler does not keep it on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignControl {
    /// The tenant.
    pub tenant: Name,
    /// The campaign.
    pub campaign: Name,
    /// The most messages, over all sources and sites; no window of the rate's length ever has more.
    pub rate: Option<Rate>,
    /// From 0 to 9; 5 is that of mail without a campaign. It is what a queue of the campaign may send in its turn at a site, beside the
    /// others there: 1, 2, 3, 4, 6, 8, 12, 16, 24 and 32 messages.
    pub priority: u8,
    /// What holds it.
    pub hold: Option<Hold>,
}

/// The priority of mail without a campaign.
pub const PRIORITY_DEFAULT: u8 = 5;

impl CampaignControl {
    /// A campaign for which nothing is set: what to give when it is over, so that the scheduler forgets it.
    pub fn free(tenant: Name, campaign: Name) -> Self {
        Self { tenant, campaign, rate: None, priority: PRIORITY_DEFAULT, hold: None }
    }
}

/// One queue in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its key.
    #[serde(flatten)]
    pub key: QueueKey,
    /// Recipients that wait in it.
    pub count: u64,
    /// Octets of their messages.
    pub bytes: u64,
    /// When the oldest was accepted; a bound, not exact.
    pub oldest: Timestamp,
    /// When the next is due.
    pub next_due: Timestamp,
    /// Its site, once resolved.
    pub site: Option<String>,
    /// Its provider, once resolved.
    pub provider: Option<String>,
    /// What holds it now, as `queue explain` words it; `None` when it is being sent.
    pub held_by: Option<String>,
    /// Until when, where that is known.
    pub held_until: Option<Timestamp>,
}

/// All queues together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Queues that hold something.
    pub queues: u64,
    /// Recipients that wait.
    pub recipients: u64,
    /// Octets of their messages.
    pub bytes: u64,
    /// Recipients in an attempt now.
    pub in_flight: u64,
    /// Outcomes that are not yet on disk.
    pub unsettled: u64,
    /// Open connections.
    pub connections: u64,
    /// The oldest recipient's acceptance.
    pub oldest: Option<Timestamp>,
    /// Recipients by what holds them: reason and number, most first.
    pub held: Vec<(String, u64)>,
    /// The largest queues.
    pub top: Vec<QueueInfo>,
    /// Suspensions in force.
    pub suspensions: Vec<Suspension>,
}

/// What of the queues an operator is to be told of by himself, if it goes on.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// The queue whose mail is due for longest and is not sent, of those that nobody holds on purpose; its `next_due` says since when.
    pub overdue: Option<QueueInfo>,
    /// Sources that may not send to a provider now.
    pub held: Vec<HeldPath>,
    /// Suspensions that rules made, and that end only when an operator ends them.
    pub stopped: Vec<Suspension>,
}

/// A source that is held towards a provider.
#[derive(Clone, Debug)]
pub struct HeldPath {
    /// The source.
    pub source: Name,
    /// The provider, or the site where there is none.
    pub provider: String,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// One recipient that waits, for `queue show`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryInfo {
    /// Its message.
    pub message_id: MessageId,
    /// Its place in the envelope.
    pub index: u32,
    /// Its address, where the message could be read.
    pub recipient: Option<String>,
    /// The reverse-path.
    pub sender: Option<String>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it is due.
    pub due: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// How the last one ended.
    pub last_reply: Option<String>,
    /// Octets.
    pub size: u32,
}

/// What `queue explain` prints for one queue: what `admit` answered, for each source that could send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The queue.
    pub queue: QueueInfo,
    /// The hosts, as the router found them; or why there are none.
    pub route: String,
    /// One line a step of the decision, in the order in which it is made.
    pub steps: Vec<ExplainStep>,
    /// The verdict in one sentence: which limit, until when.
    pub verdict: String,
}

/// One limit or state that was looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainStep {
    /// Its name: `suspension`, `retry due`, `site connections`, `source rate`, …
    pub name: String,
    /// Whether it lets the queue go.
    pub pass: bool,
    /// Value and limit: "3 of 10", "next token at …".
    pub detail: String,
    /// Where the limit is set: `shaping.sites."google.com".connections`.
    pub set_by: Option<String>,
    /// Until when it holds.
    pub until: Option<Timestamp>,
}

/// What was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Queues that matched.
    pub queues: u64,
    /// Recipients that were changed, or are marked and will be swept.
    pub recipients: u64,
    /// Recipients in an attempt, which could not be stopped.
    pub in_flight: u64,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum CommandError {
    /// Nothing like it: names what was looked for.
    #[error("not found: {0}")]
    NotFound(String),
    /// The command makes no sense: names why.
    #[error("{0}")]
    Invalid(String),
    /// It could not be made durable.
    #[error("the store refused: {0}")]
    Store(String),
    /// The daemon is ending.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A command to the scheduler's task.
#[derive(Debug)]
pub enum Command {
    /// All queues together; `top` of the largest.
    Summary {
        /// How many queues to name.
        top: usize,
        /// Where to.
        reply: Reply<Summary>,
    },
    /// What of the queues may be wrong.
    Trouble {
        /// Where to.
        reply: Reply<Trouble>,
    },
    /// Queues that match, largest first.
    List {
        /// Which.
        matcher: Matcher,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: Reply<Vec<QueueInfo>>,
    },
    /// The recipients that wait in the queues that match, in order of due time.
    Show {
        /// Which.
        matcher: Matcher,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: Reply<Vec<EntryInfo>>,
    },
    /// Why the queues that match wait.
    Explain {
        /// Which.
        matcher: Matcher,
        /// How many at the most.
        limit: usize,
        /// Where to.
        reply: Reply<Vec<Explanation>>,
    },
    /// Hold what matches.
    Suspend {
        /// Which.
        matcher: Matcher,
        /// Why.
        reason: String,
        /// Who.
        by: String,
        /// Until when.
        until: Option<Timestamp>,
        /// Where to.
        reply: Reply<Suspension>,
    },
    /// End a suspension by number, or all that have exactly this matcher.
    Resume {
        /// The number.
        id: Option<u64>,
        /// Or the matcher.
        matcher: Option<Matcher>,
        /// Where to.
        reply: Reply<Vec<Suspension>>,
    },
    /// Make what matches due now.
    Retry {
        /// Which.
        matcher: Matcher,
        /// Where to.
        reply: Reply<Changed>,
    },
    /// Take what matches out, with a `purged` event each.
    Purge {
        /// Which.
        matcher: Matcher,
        /// Why.
        reason: String,
        /// Who.
        by: String,
        /// Where to.
        reply: Reply<Changed>,
    },
    /// Take what matches out as [`Command::Purge`] does, with a `cancelled` event each: the end of a campaign.
    Cancel {
        /// Which.
        matcher: Matcher,
        /// Why.
        reason: String,
        /// Who.
        by: String,
        /// Where to.
        reply: Reply<Changed>,
    },
    /// Set what holds, paces and ranks a campaign, in place of what was set before. It holds at once: nothing of it is given out after the
    /// answer but by what was set. Asked again it changes nothing and counts anew.
    SetCampaign {
        /// What is set.
        control: CampaignControl,
        /// Where to: how many of its messages are in an attempt now.
        reply: Reply<u64>,
    },
    /// Move what matches to another pool.
    Reroute {
        /// Which.
        matcher: Matcher,
        /// To which pool.
        pool: Name,
        /// Who.
        by: String,
        /// Where to.
        reply: Reply<Changed>,
    },
    /// How many recipients wait for each tenant and pool: a reload asks before it removes one.
    Usage {
        /// Where to: (tenant, pool, recipients).
        reply: Reply<Vec<(Name, Name, u64)>>,
    },
    /// Watch one recipient's delivery session: the next session to this domain is copied to `lines`.
    TraceSmtp {
        /// The recipients' domain.
        domain: Domain,
        /// Lines of the session, with `>` and `<`; secrets masked.
        lines: mpsc::Sender<String>,
    },
    /// Which recipient is in an attempt now.
    InFlight {
        /// Where to.
        reply: Reply<Vec<DeliveryId>>,
    },
}

/// The way to the scheduler's task; cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminHandle(pub mpsc::Sender<Command>);

impl AdminHandle {
    /// Sends a command and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(make(reply)).await.map_err(|_| CommandError::ShuttingDown)?;
        answer.await.map_err(|_| CommandError::ShuttingDown)?
    }
}
