//! `posthaste queue …`.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::json;

use super::client::with_query;
use super::human::{count, relative, size, time};
use super::out::{Table, printable};
use super::{Client, Connection, Out};
use crate::api::types::{Entries, Explanations, Queues, Suspensions};
use crate::config::HumanDuration;
use crate::queue::admin::{Changed, Explanation, Matcher, QueueInfo, Summary, Suspension};
use crate::seam::clock::Clock;
use crate::types::{Class, Domain, MessageId, Name, Timestamp};

/// Shown by `posthaste queue --help`.
pub const EXAMPLES: &str = "Examples:
  posthaste queue summary
  posthaste queue list --tenant acme --limit 20
  posthaste queue explain example.com          why does mail to example.com wait?
  posthaste queue show example.com             the recipients that wait
  posthaste queue show --raw MESSAGE-ID        a message as it is kept
  posthaste queue suspend example.com --reason \"blocked, ticket 17\" --for 2h
  posthaste queue resume example.com
  posthaste queue retry --domain example.com
  posthaste queue purge --campaign spring --older-than 2d --reason \"sent by mistake\"
  posthaste queue reroute --tenant acme --to backup-pool";

/// `queue` and its options.
#[derive(Args, Clone, Debug)]
pub struct QueueArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// What can be done with queues.
#[derive(Subcommand, Clone, Debug)]
pub enum QueueCommand {
    /// All queues together: sizes, ages, what holds them, the largest
    Summary(Target),
    /// The queues that match, largest first
    List {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// The recipients that wait, by due time; --raw: the octets of one message
    Show {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// Print the message as it is kept; needs the id of a message
        #[arg(long)]
        raw: bool,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Why the queues that match wait: which limit, set where, until when
    Explain {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// At most so many queues
        #[arg(long, default_value_t = 5)]
        limit: usize,
    },
    /// Hold what matches, mail that comes later too
    Suspend {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
        /// For how long, as 2h or 1d12h; without it until resumed
        #[arg(long = "for", value_name = "DURATION")]
        duration: Option<HumanDuration>,
        /// Hold everything
        #[arg(long)]
        all: bool,
    },
    /// End the suspensions that match exactly, or one by its number
    Resume {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// The number of a suspension
        #[arg(long)]
        id: Option<u64>,
        /// The suspension of everything
        #[arg(long)]
        all: bool,
    },
    /// Make what matches due now; without a match, everything
    Retry(Target),
    /// Take what matches out; each recipient gets a `purged` event
    Purge {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// Why; it stands in the events
        #[arg(long)]
        reason: Option<String>,
        /// Purge everything
        #[arg(long)]
        all: bool,
    },
    /// Move what matches to another pool
    Reroute {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// The new pool
        #[arg(long = "to", value_name = "POOL", value_parser = name)]
        to: Name,
        /// Move everything
        #[arg(long)]
        all: bool,
    },
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|e| e.to_string())
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|e| e.to_string())
}

/// What is meant: all that is given must match.
#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// A recipients' domain, or the id of a message
    #[arg(value_name = "DOMAIN|MESSAGE-ID")]
    pub what: Option<String>,
    /// The tenant
    #[arg(long, value_parser = name)]
    pub tenant: Option<Name>,
    /// The recipients' domain
    #[arg(long, value_parser = domain)]
    pub domain: Option<Domain>,
    /// The campaign
    #[arg(long, value_parser = name)]
    pub campaign: Option<Name>,
    /// The pool
    #[arg(long, value_parser = name)]
    pub pool: Option<Name>,
    /// transactional or marketing
    #[arg(long)]
    pub class: Option<Class>,
    /// One message
    #[arg(long, value_name = "ID")]
    pub message: Option<MessageId>,
    /// Accepted at least so long ago, as 2d
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<HumanDuration>,
}

impl Target {
    /// The matcher that this means at `now`.
    pub fn matcher(&self, now: Timestamp) -> anyhow::Result<Matcher> {
        let mut matcher = Matcher {
            tenant: self.tenant.clone(),
            domain: self.domain.clone(),
            campaign: self.campaign.clone(),
            pool: self.pool.clone(),
            class: self.class,
            message: self.message,
            recipient: None,
            older_than: self
                .older_than
                .map(|age| Timestamp::from_millis(now.as_millis().saturating_sub(age.0.as_millis() as u64))),
        };
        let Some(what) = &self.what else { return Ok(matcher) };
        if let Ok(id) = what.parse() {
            anyhow::ensure!(matcher.message.replace(id).is_none_or(|m| m == id), "two messages are given");
        } else {
            let domain = Domain::parse(what)
                .map_err(|e| anyhow::anyhow!("{what:?} is neither a message id nor a domain: {e}"))?;
            anyhow::ensure!(
                matcher.domain.replace(domain.clone()).is_none_or(|d| d == domain),
                "two domains are given"
            );
        }
        Ok(matcher)
    }
}

/// The path of a question with the matcher in its query.
fn asked(path: &str, matcher: &Matcher, limit: Option<usize>) -> String {
    with_query(
        path,
        &[
            ("tenant", matcher.tenant.as_ref().map(Name::to_string)),
            ("domain", matcher.domain.as_ref().map(Domain::to_string)),
            ("campaign", matcher.campaign.as_ref().map(Name::to_string)),
            ("pool", matcher.pool.as_ref().map(Name::to_string)),
            ("class", matcher.class.map(|c| c.to_string())),
            ("message", matcher.message.map(|m| m.to_string())),
            ("older_than", matcher.older_than.map(Timestamp::rfc3339)),
            ("limit", limit.map(|n| n.to_string())),
        ],
    )
}

/// Carries out a command.
pub async fn run(command: &QueueCommand, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let now = Clock::system().now();
    match command {
        QueueCommand::Summary(target) => {
            let answer: Queues = client.get(&asked("/v1/queues", &target.matcher(now)?, Some(1))).await?;
            if out.json { out.value(&answer.summary) } else { print_summary(&answer.summary, now, out) }
        }
        QueueCommand::List { target, limit } => {
            let answer: Queues = client.get(&asked("/v1/queues", &target.matcher(now)?, Some(*limit))).await?;
            if out.json {
                return out.value(&answer.queues);
            }
            out.table(&queue_table(&answer.queues, now), "no queue matches")
        }
        QueueCommand::Show { target, raw: true, .. } => {
            let id = target.matcher(now)?.message;
            let id = id.ok_or_else(|| anyhow::anyhow!("--raw needs the id of a message"))?;
            let body = client.bytes(Method::GET, &format!("/v1/messages/{id}/raw"), None).await?;
            out.bytes(&body)
        }
        QueueCommand::Show { target, raw: false, limit } => {
            let answer: Entries = client.get(&asked("/v1/queues/show", &target.matcher(now)?, Some(*limit))).await?;
            if out.json { out.value(&answer.entries) } else { print_entries(&answer, now, out) }
        }
        QueueCommand::Explain { target, limit } => {
            let path = asked("/v1/queues/explain", &target.matcher(now)?, Some(*limit));
            let answer: Explanations = client.get(&path).await?;
            if out.json {
                return out.value(&answer.queues);
            }
            if answer.queues.is_empty() {
                return out.line("no queue matches: nothing waits there");
            }
            answer.queues.iter().try_for_each(|e| print_explanation(e, now, out))
        }
        QueueCommand::Suspend { target, reason, duration, all } => {
            let body = json!({
                "match": target.matcher(now)?, "all": all, "reason": reason, "for": duration.map(|d| d.to_string()),
            });
            let made: Suspension = client.send(Method::POST, "/v1/suspensions", &body).await?;
            if out.json { out.value(&made) } else { out.line(format!("suspended: {}", suspension_line(&made, now))) }
        }
        QueueCommand::Resume { target, id, all } => resume(target, *id, *all, client, out).await,
        QueueCommand::Retry(target) => {
            act(client, out, "/v1/queues/retry", "due now", &json!({ "match": target.matcher(now)? })).await
        }
        QueueCommand::Purge { target, reason, all } => {
            let body = json!({ "match": target.matcher(now)?, "all": all, "reason": reason });
            act(client, out, "/v1/queues/purge", "purged", &body).await
        }
        QueueCommand::Reroute { target, to, all } => {
            let body = json!({ "match": target.matcher(now)?, "all": all, "pool": to });
            act(client, out, "/v1/queues/reroute", "rerouted", &body).await
        }
    }
}

async fn act(client: &Client, out: &mut Out, path: &str, done: &str, body: &serde_json::Value) -> anyhow::Result<()> {
    let changed: Changed = client.send(Method::POST, path, body).await?;
    if out.json {
        return out.value(&changed);
    }
    let mut line = format!("{done}: {} recipients in {} queues", count(changed.recipients), count(changed.queues));
    if changed.in_flight > 0 {
        line += &format!("; {} are in an attempt and were left alone", count(changed.in_flight));
    }
    out.line(line)
}

async fn resume(target: &Target, id: Option<u64>, all: bool, client: &Client, out: &mut Out) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let number = id.or_else(|| target.what.as_deref().and_then(|w| w.parse().ok()));
    let path = match number {
        Some(number) => format!("/v1/suspensions/{number}"),
        None => {
            let path = asked("/v1/suspensions", &target.matcher(now)?, None);
            if all { format!("{path}{}all=true", if path.contains('?') { '&' } else { '?' }) } else { path }
        }
    };
    let ended: Suspensions = client.call(Method::DELETE, &path, None).await?;
    if out.json {
        return out.value(&ended.suspensions);
    }
    ended.suspensions.iter().try_for_each(|s| out.line(format!("resumed: {}", suspension_line(s, now))))
}

fn queue_table(queues: &[QueueInfo], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "DOMAIN", "TENANT", "POOL", "CLASS", "CAMPAIGN", "#WAITING", "#SIZE", "OLDEST", "NEXT", "PROVIDER", "HELD BY",
    ]);
    for q in queues {
        let until = q.held_until.map(|t| format!(" ({})", relative(t, now))).unwrap_or_default();
        table.row([
            q.key.domain.to_string(),
            q.key.tenant.to_string(),
            q.key.pool.to_string(),
            q.key.class.to_string(),
            q.key.campaign.as_ref().map_or("-".into(), Name::to_string),
            count(q.count),
            size(q.bytes),
            relative(q.oldest, now),
            relative(q.next_due, now),
            q.provider.clone().unwrap_or_else(|| "-".into()),
            q.held_by.as_ref().map_or("-".into(), |h| format!("{h}{until}")),
        ]);
    }
    table
}

fn print_summary(s: &Summary, now: Timestamp, out: &mut Out) -> anyhow::Result<()> {
    out.line(format!(
        "waiting      {} recipients in {} queues, {}",
        count(s.recipients),
        count(s.queues),
        size(s.bytes)
    ))?;
    out.line(format!(
        "in progress  {} in an attempt, {} not yet settled, {} connections",
        count(s.in_flight),
        count(s.unsettled),
        count(s.connections)
    ))?;
    out.line(format!("oldest       {}", s.oldest.map_or("-".into(), |t| relative(t, now))))?;
    if !s.held.is_empty() {
        out.line("")?;
        let mut table = Table::new(&["#RECIPIENTS", "HELD BY"]);
        s.held.iter().for_each(|(reason, n)| table.row([count(*n), reason.clone()]));
        out.table(&table, "")?;
    }
    if !s.suspensions.is_empty() {
        out.line("")?;
        out.head("SUSPENDED")?;
        for suspension in &s.suspensions {
            out.line(suspension_line(suspension, now))?;
        }
    }
    if s.top.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.table(&queue_table(&s.top, now), "")
}

fn suspension_line(s: &Suspension, now: Timestamp) -> String {
    let m = &s.matcher;
    let mut what: Vec<String> = Vec::new();
    what.extend(m.tenant.iter().map(|t| format!("tenant {t}")));
    what.extend(m.domain.iter().map(|d| format!("domain {d}")));
    what.extend(m.campaign.iter().map(|c| format!("campaign {c}")));
    what.extend(m.pool.iter().map(|p| format!("pool {p}")));
    what.extend(m.class.iter().map(|c| format!("class {c}")));
    let what = if what.is_empty() { "everything".into() } else { what.join(", ") };
    let until = s.until.map_or("until resumed".into(), |t| format!("until {} ({})", time(t), relative(t, now)));
    let reason = if s.reason.is_empty() { String::new() } else { format!(": {}", printable(&s.reason)) };
    format!("#{} {what}, {until}, by {}{reason}", s.id, printable(&s.by))
}

fn print_entries(answer: &Entries, now: Timestamp, out: &mut Out) -> anyhow::Result<()> {
    let mut table =
        Table::new(&["MESSAGE", "RECIPIENT", "FROM", "ACCEPTED", "DUE", "EXPIRES", "#TRIES", "#SIZE", "LAST REPLY"]);
    for e in &answer.entries {
        table.row([
            e.message_id.to_string(),
            e.recipient.clone().unwrap_or_else(|| format!("#{}", e.index)),
            e.sender.clone().map_or("-".into(), |s| if s.is_empty() { "<>".into() } else { s }),
            relative(e.accepted, now),
            relative(e.due, now),
            relative(e.expires, now),
            count(u64::from(e.attempts)),
            size(u64::from(e.size)),
            e.last_reply.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    out.table(&table, "nothing waits there")
}

fn print_explanation(e: &Explanation, now: Timestamp, out: &mut Out) -> anyhow::Result<()> {
    out.head(&format!("{}: {} waiting, {}", e.queue.key, count(e.queue.count), size(e.queue.bytes)))?;
    out.line(format!("  route    {}", printable(&e.route)))?;
    for step in &e.steps {
        let mut line = format!("  {}  {}: {}", if step.pass { "ok  " } else { "WAIT" }, step.name, step.detail);
        if let Some(place) = &step.set_by {
            line += &format!("  [{place}]");
        }
        if let Some(until) = step.until {
            line += &format!("  until {} ({})", time(until), relative(until, now));
        }
        out.line(printable(&line))?;
    }
    out.line(format!("  verdict  {}", printable(&e.verdict)))?;
    out.line("")
}
