//! Queues and suspensions: questions for every key about its own, changes for admins.

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::input::{Params, read_json, read_json_or_default};
use super::types::{Entries, Explanations, NewSuspension, QueueAction, Queues, Suspensions};
use super::{Answer, Api, Caller, Problem, json};
use crate::config::HumanDuration;
use crate::queue::admin::{Changed, Command, Matcher, QueueInfo, Summary, Suspension};
use crate::types::{Domain, Name, Timestamp};

/// Queues in a list where nothing is said.
const LIST_DEFAULT: usize = 100;
/// The most queues in a list.
const LIST_MAX: usize = 100_000;
/// Recipients where nothing is said.
const SHOW_DEFAULT: usize = 100;
/// The most recipients.
const SHOW_MAX: usize = 10_000;
/// Explanations where nothing is said.
const EXPLAIN_DEFAULT: usize = 5;
/// The most explanations.
const EXPLAIN_MAX: usize = 100;
/// The largest queues in a summary.
const TOP: usize = 10;
/// The longest reason, in octets.
const REASON_MAX: usize = 500;

/// The matcher in the query, inside what the caller sees.
fn matcher(params: &mut Params, caller: &Caller) -> Result<Matcher, Problem> {
    let older = params.get::<HumanTime>("older_than")?.map(|t| t.0);
    Ok(Matcher {
        tenant: caller.scope(params.parse("tenant", Name::parse)?)?,
        domain: params.parse("domain", Domain::parse)?,
        campaign: params.parse("campaign", Name::parse)?,
        pool: params.parse("pool", Name::parse)?,
        class: params.get("class")?,
        message: params.get("message")?,
        recipient: None,
        older_than: older,
    })
}

/// A time as RFC 3339.
struct HumanTime(Timestamp);

impl std::str::FromStr for HumanTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_value(serde_json::Value::from(text)).map(Self).map_err(|e| e.to_string())
    }
}

/// All queues together, and those that match, largest first.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues",
    params(super::openapi::MatchParams, ("limit" = Option<usize>, Query, description = "At most so many queues (default 100)")),
    responses((status = 200, body = Queues))
)]
pub async fn get_queues(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let matcher = matcher(&mut params, &caller)?;
    let limit = params.limit("limit", LIST_DEFAULT, LIST_MAX)?;
    params.finish()?;
    if matcher == Matcher::default() {
        let summary = api.ask(|reply| Command::Summary { top: TOP, reply }).await?;
        let queues = api.ask(|reply| Command::List { matcher, limit, reply }).await?;
        return json(&Queues { summary, queues });
    }
    // The scheduler sums up all queues; what a tenant or a filter may see is summed up here.
    let asked = matcher.clone();
    let mut queues = api.ask(|reply| Command::List { matcher: asked, limit: LIST_MAX, reply }).await?;
    let all = api.ask(|reply| Command::Summary { top: 0, reply }).await?;
    let suspensions = all.suspensions.into_iter().filter(|s| concerns(s, &matcher, &caller)).collect();
    let summary = sum_up(&queues, suspensions);
    queues.truncate(limit);
    json(&Queues { summary, queues })
}

fn sum_up(queues: &[QueueInfo], suspensions: Vec<Suspension>) -> Summary {
    let mut held: Vec<(String, u64)> = Vec::new();
    for queue in queues {
        let Some(reason) = &queue.held_by else { continue };
        match held.iter_mut().find(|(r, _)| r == reason) {
            Some((_, count)) => *count += queue.count,
            None => held.push((reason.clone(), queue.count)),
        }
    }
    held.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Summary {
        queues: queues.len() as u64,
        recipients: queues.iter().map(|q| q.count).sum(),
        bytes: queues.iter().map(|q| q.bytes).sum(),
        in_flight: 0,
        unsettled: 0,
        connections: 0,
        oldest: queues.iter().filter(|q| q.count > 0).map(|q| q.oldest).min(),
        held,
        top: queues.iter().take(TOP).cloned().collect(),
        suspensions,
    }
}

/// Whether a suspension could hold something of what is asked; a tenant sees none that names another.
fn concerns(suspension: &Suspension, asked: &Matcher, caller: &Caller) -> bool {
    fn meets<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
        a.is_none() || b.is_none() || a == b
    }
    let m = &suspension.matcher;
    m.tenant.as_ref().is_none_or(|t| caller.sees(t))
        && meets(&m.tenant, &asked.tenant)
        && meets(&m.domain, &asked.domain)
        && meets(&m.campaign, &asked.campaign)
        && meets(&m.pool, &asked.pool)
        && meets(&m.class, &asked.class)
}

/// The recipients that wait in the queues that match.
#[utoipa::path(
    get, path = "/v1/queues/show", tag = "queues",
    params(super::openapi::MatchParams, ("limit" = Option<usize>, Query, description = "At most so many (default 100)")),
    responses((status = 200, body = Entries))
)]
pub async fn show_queues(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let matcher = matcher(&mut params, &caller)?;
    let limit = params.limit("limit", SHOW_DEFAULT, SHOW_MAX)?;
    params.finish()?;
    json(&Entries { entries: api.ask(|reply| Command::Show { matcher, limit, reply }).await? })
}

/// Why the queues that match wait: what admission answered, which limit, until when.
#[utoipa::path(
    get, path = "/v1/queues/explain", tag = "queues",
    params(super::openapi::MatchParams, ("limit" = Option<usize>, Query, description = "At most so many queues (default 5)")),
    responses((status = 200, body = Explanations))
)]
pub async fn explain_queues(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    let matcher = matcher(&mut params, &caller)?;
    let limit = params.limit("limit", EXPLAIN_DEFAULT, EXPLAIN_MAX)?;
    params.finish()?;
    json(&Explanations { queues: api.ask(|reply| Command::Explain { matcher, limit, reply }).await? })
}

/// Everything is only meant when it is said.
fn check_all(matcher: &Matcher, all: bool) -> Result<(), Problem> {
    if *matcher == Matcher::default() && !all {
        return Err(Problem::invalid("match", "it is empty: give what is meant, or \"all\": true for everything"));
    }
    Ok(())
}

fn check_reason(reason: &str) -> Result<(), Problem> {
    match super::compose::not_one_line(reason) {
        Some(why) => Err(Problem::invalid("reason", why)),
        None if reason.len() > REASON_MAX => {
            Err(Problem::invalid("reason", format!("longer than {REASON_MAX} octets")))
        }
        None => Ok(()),
    }
}

/// Make what matches due now. An empty match means everything.
#[utoipa::path(
    post, path = "/v1/queues/retry", tag = "queues", request_body = QueueAction,
    responses((status = 200, body = super::openapi::ChangedSchema), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn retry_queues(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    caller.must_be_admin()?;
    let action: QueueAction = read_json_or_default(&api, request).await?;
    let changed: Changed = api.ask(|reply| Command::Retry { matcher: action.matcher, reply }).await?;
    json(&changed)
}

/// Take what matches out; each recipient gets a `purged` event.
#[utoipa::path(
    post, path = "/v1/queues/purge", tag = "queues", request_body = QueueAction,
    responses((status = 200, body = super::openapi::ChangedSchema), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn purge_queues(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    caller.must_be_admin()?;
    let action: QueueAction = read_json(&api, request).await?;
    check_all(&action.matcher, action.all)?;
    let reason = action.reason.unwrap_or_else(|| "purged by an operator".into());
    check_reason(&reason)?;
    let (matcher, by) = (action.matcher, caller.name);
    let changed: Changed = api.ask(|reply| Command::Purge { matcher, reason, by, reply }).await?;
    json(&changed)
}

/// Move what matches to another pool.
#[utoipa::path(
    post, path = "/v1/queues/reroute", tag = "queues", request_body = QueueAction,
    responses((status = 200, body = super::openapi::ChangedSchema), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn reroute_queues(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    caller.must_be_admin()?;
    let action: QueueAction = read_json(&api, request).await?;
    check_all(&action.matcher, action.all)?;
    let pool = action.pool.ok_or_else(|| Problem::invalid("pool", "to which pool?"))?;
    let (matcher, by) = (action.matcher, caller.name);
    let changed: Changed = api.ask(|reply| Command::Reroute { matcher, pool, by, reply }).await?;
    json(&changed)
}

/// The suspensions in force.
#[utoipa::path(get, path = "/v1/suspensions", tag = "queues", responses((status = 200, body = Suspensions)))]
pub async fn get_suspensions(State(api): State<Api>, caller: Caller, params: Params) -> Answer {
    params.finish()?;
    let all = api.ask(|reply| Command::Summary { top: 0, reply }).await?.suspensions;
    let seen = |s: &Suspension| s.matcher.tenant.as_ref().is_none_or(|t| caller.sees(t));
    json(&Suspensions { suspensions: all.into_iter().filter(seen).collect() })
}

/// Hold what matches, mail that comes later too.
#[utoipa::path(
    post, path = "/v1/suspensions", tag = "queues", request_body = NewSuspension,
    responses((status = 201, body = super::openapi::SuspensionSchema), (status = 422, body = super::openapi::ProblemSchema))
)]
pub async fn post_suspension(State(api): State<Api>, caller: Caller, request: Request) -> Answer {
    caller.must_be_admin()?;
    let new: NewSuspension = read_json(&api, request).await?;
    check_all(&new.matcher, new.all)?;
    if new.matcher.message.is_some() || new.matcher.older_than.is_some() {
        return Err(Problem::invalid("match", "a suspension holds queues: it can't match by message or older_than"));
    }
    check_reason(&new.reason)?;
    let until = match (new.duration, new.until) {
        (None, until) => until,
        (Some(text), None) => {
            let duration: HumanDuration = text.parse().map_err(|e| Problem::invalid("for", e))?;
            Some(api.now().after(duration.0))
        }
        (Some(_), Some(_)) => return Err(Problem::invalid("until", "give either for or until")),
    };
    if until.is_some_and(|until| until <= api.now()) {
        return Err(Problem::invalid("until", "this is in the past"));
    }
    let (matcher, reason, by) = (new.matcher, new.reason, caller.name);
    let made = api.ask(|reply| Command::Suspend { matcher, reason, by, until, reply }).await?;
    let location = format!("/v1/suspensions/{}", made.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(made)).into_response())
}

/// End a suspension.
#[utoipa::path(
    delete, path = "/v1/suspensions/{id}", tag = "queues",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, body = Suspensions), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn delete_suspension(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.must_be_admin()?;
    let id = id.parse().map_err(|_| Problem::not_found(format!("{id:?} is not the number of a suspension")))?;
    resume(&api, Some(id), None).await
}

/// End the suspensions that have exactly this match.
#[utoipa::path(
    delete, path = "/v1/suspensions", tag = "queues",
    params(super::openapi::MatchParams, ("all" = Option<bool>, Query, description = "Needed for the suspension of everything")),
    responses((status = 200, body = Suspensions), (status = 404, body = super::openapi::ProblemSchema))
)]
pub async fn delete_suspensions(State(api): State<Api>, caller: Caller, mut params: Params) -> Answer {
    caller.must_be_admin()?;
    let matcher = matcher(&mut params, &caller)?;
    let all = params.switch("all")?;
    params.finish()?;
    check_all(&matcher, all)?;
    resume(&api, None, Some(matcher)).await
}

async fn resume(api: &Api, id: Option<u64>, matcher: Option<Matcher>) -> Answer {
    let ended = api.ask(|reply| Command::Resume { id, matcher, reply }).await?;
    if ended.is_empty() {
        return Err(Problem::not_found("no suspension is like that"));
    }
    json(&Suspensions { suspensions: ended })
}
