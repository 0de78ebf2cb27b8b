//! What holds a queue: the same question that decides, put to `shaping::explain`.

use super::queue::{Cursor, Queue, Status};
use super::routing::DomainRoute;
use super::{Scheduler, SiteId};
use crate::queue::admin::{CommandError, ExplainStep, Explanation, HeldPath, Matcher, QueueInfo, Summary, Trouble};
use crate::shaping::{Ask, HoldKind, Limit, PathState, Question, Reason, Route, Verdict, Wake, Window, admit, explain};
use crate::types::Timestamp;

impl Scheduler {
    /// What is asked for a queue through one of its sources.
    fn queue_question<'a>(&'a self, queue: &Queue, path: Option<PathState<'a>>, ask: Ask) -> Question<'a> {
        let until = |id| self.suspensions.iter().find(|s| s.id == id).and_then(|s| s.until);
        let route = match self.domains.get(&queue.key.domain) {
            None => Route::Resolving,
            Some(state) => match &state.route {
                DomainRoute::Known { .. } => Route::Known,
                DomainRoute::Failed { until, .. } => Route::Failed(*until),
                DomainRoute::Unknown => Route::Resolving,
            },
        };
        let due = queue.head_due();
        let waits = queue.window.is_empty() && queue.cursor != Cursor::All && due <= self.now;
        let window = match queue.status {
            Status::Budget => Window::Full,
            _ if waits => Window::Reading,
            _ => Window::Ready,
        };
        Question {
            suspended: queue.suspended.map(|id| (id, until(id))),
            campaign: self.campaign_state(queue),
            shared: self.shared_limits(queue),
            due: if queue.taken > 0 && due == Timestamp::NEVER { self.now } else { due },
            window,
            route,
            path,
            ..self.node_question(ask)
        }
    }

    /// The sources of a queue's pool, as far as its site is known, with what would be asked for each.
    fn paths_of(&self, queue: &Queue) -> Vec<(Option<PathState<'_>>, Ask)> {
        let site = self.site_of(queue);
        let members = self.pools.get(&queue.key.pool).map(|p| p.members.clone()).unwrap_or_default();
        let state = |source: usize| {
            let site = site?;
            let path = self.site(site)?.paths.iter().find(|p| p.source == source);
            // A connection that is there takes the mail; else one is to be opened.
            let ask = if path.is_some_and(|p| p.open > p.opening) { Ask::Send } else { Ask::Open };
            Some((self.path_state(site, source), ask))
        };
        members.iter().filter(|(_, weight)| *weight > 0).filter_map(|(source, _)| state(*source)).collect()
    }

    fn site_of(&self, queue: &Queue) -> Option<SiteId> {
        match self.domains.get(&queue.key.domain)?.route {
            DomainRoute::Known { site, .. } => Some(site),
            DomainRoute::Failed { .. } | DomainRoute::Unknown => None,
        }
    }

    /// The verdict of the source that may go first; for a queue whose site is not known yet, that of the steps before it.
    fn verdict_of(&self, queue: &Queue) -> Verdict {
        let paths = self.paths_of(queue);
        if paths.is_empty() {
            let mut question = self.queue_question(queue, None, Ask::Open);
            if question.route != Route::Known || question.suspended.is_some() || question.due > self.now {
                return admit(&question);
            }
            question.path = None;
            return admit(&question);
        }
        let wait_until = |verdict: &Verdict| match verdict {
            Verdict::Go => Timestamp::ZERO,
            Verdict::Wait { wake: Wake::At(at), .. } => *at,
            Verdict::Wait { wake: Wake::Release(_) | Wake::Event, .. } => self.now,
        };
        let verdicts = paths.into_iter().map(|(path, ask)| admit(&self.queue_question(queue, path, ask)));
        verdicts.min_by_key(wait_until).unwrap_or(Verdict::Go)
    }

    pub(super) fn queue_info(&self, queue: &Queue) -> QueueInfo {
        let verdict = self.verdict_of(queue);
        let site = self.site_of(queue).and_then(|s| self.site(s));
        let (held_by, held_until) = match verdict {
            Verdict::Go => (None, None),
            Verdict::Wait { reason, wake } => (
                Some(self.words(queue, reason)),
                match wake {
                    Wake::At(at) => Some(at),
                    Wake::Release(_) | Wake::Event => None,
                },
            ),
        };
        // Where the whole queue is in memory the oldest is known exactly.
        let exact = (queue.cursor == Cursor::All && queue.taken == 0)
            .then(|| queue.window.values().map(|e| e.accepted).min())
            .flatten();
        QueueInfo {
            key: (*queue.key).clone(),
            count: queue.count,
            bytes: queue.bytes,
            oldest: exact.unwrap_or(queue.oldest),
            next_due: queue.head_due(),
            site: site.map(|s| s.plan.name.to_string()),
            provider: site.map(|s| s.plan.provider.to_string()),
            held_by,
            held_until,
        }
    }

    fn words(&self, queue: &Queue, reason: Reason) -> String {
        match reason {
            Reason::Held(_) | Reason::Rate(Limit::CampaignRate) => self.campaign_words(queue, reason),
            Reason::Suspended(id) => match self.suspensions.iter().find(|s| s.id == id) {
                Some(s) => format!("{reason}: {} (by {})", s.reason, s.by),
                None => reason.to_string(),
            },
            other => other.to_string(),
        }
    }

    pub(super) fn list(&self, matcher: &Matcher, limit: usize) -> Vec<QueueInfo> {
        let all = self.matching(matcher).into_iter().filter_map(|(id, _)| self.queues.get(&id));
        // A queue that has just become empty is kept for a while; nobody asked for it.
        let held = all.filter(|q| q.count > 0 || !q.window.is_empty());
        held.take(limit).map(|q| self.queue_info(q)).collect()
    }

    pub(super) fn summary(&self, top: usize) -> Summary {
        let mut held: ahash::AHashMap<&'static str, u64> = ahash::AHashMap::new();
        let mut oldest = Timestamp::NEVER;
        for queue in self.queues.values() {
            oldest = oldest.min(queue.oldest);
            if let Verdict::Wait { reason, .. } = self.verdict_of(queue) {
                *held.entry(short(reason)).or_default() += queue.count;
            }
        }
        let mut held: Vec<(String, u64)> = held.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
        held.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Summary {
            queues: self.queues.len() as u64,
            recipients: self.totals.recipients,
            bytes: self.totals.bytes,
            in_flight: u64::from(self.totals.in_flight),
            unsettled: u64::from(self.totals.unsettled),
            connections: u64::from(self.totals.connections),
            oldest: (oldest < Timestamp::NEVER).then_some(oldest),
            held,
            top: self.list(&Matcher::default(), top),
            suspensions: self.suspensions.clone(),
        }
    }

    /// What may be wrong: mail that is due and does not go, sources that are held, suspensions that wait for an operator.
    pub(super) fn trouble(&self) -> Trouble {
        let few = self.config.alerts.minimum;
        let waits = |queue: &Queue| match self.verdict_of(queue) {
            Verdict::Go => true,
            Verdict::Wait { reason, .. } => is_trouble(reason, queue.count >= few),
        };
        let overdue = self.queues.values().filter(|queue| queue.count > 0 && queue.head_due() < self.now);
        let overdue = overdue.filter(|queue| waits(queue)).min_by_key(|queue| queue.head_due());
        let held = self.paths.iter().flatten().filter_map(|path| {
            let (until, why) = path.control.held.as_ref().filter(|(until, _)| *until > self.now)?;
            let source = self.sources.get(path.source)?.source.name.clone();
            let provider = if path.is_of_provider() { &path.provider } else { &path.group };
            Some(HeldPath { source, provider: provider.to_string(), until: *until, reason: why.to_string() })
        });
        let stopped = self.suspensions.iter().filter(|s| s.by == super::reactions::BY && s.until.is_none());
        Trouble {
            overdue: overdue.map(|queue| self.queue_info(queue)),
            held: held.collect(),
            stopped: stopped.cloned().collect(),
        }
    }

    pub(super) fn explain(&self, matcher: &Matcher, limit: usize) -> Result<Vec<Explanation>, CommandError> {
        let all = self.matching(matcher);
        if all.is_empty() {
            return Err(CommandError::NotFound("no queue that matches holds anything".into()));
        }
        let queues = all.into_iter().take(limit.max(1)).filter_map(|(id, _)| self.queues.get(&id));
        Ok(queues.map(|queue| self.explain_one(queue)).collect())
    }

    fn explain_one(&self, queue: &Queue) -> Explanation {
        let paths = self.paths_of(queue);
        let several = paths.len() > 1;
        let paths = if paths.is_empty() { vec![(None, Ask::Open)] } else { paths };
        let mut steps: Vec<ExplainStep> = Vec::new();
        for (path, ask) in paths {
            for step in explain(&self.queue_question(queue, path, ask)) {
                let name = match path {
                    Some(path) if several && of_path(step.name) => format!("{} ({})", step.name, path.source),
                    _ => step.name.to_owned(),
                };
                if steps.iter().any(|s| s.name == name) {
                    continue;
                }
                let (pass, until, detail) = match step.verdict {
                    Verdict::Go => (true, None, step.detail),
                    Verdict::Wait { reason: Reason::Suspended(id), wake } => {
                        (false, time_of(wake), self.words(queue, Reason::Suspended(id)))
                    }
                    Verdict::Wait { reason: reason @ Reason::Held(_), wake } => {
                        (false, time_of(wake), self.words(queue, reason))
                    }
                    Verdict::Wait { wake, .. } => (false, time_of(wake), step.detail),
                };
                steps.push(ExplainStep { name, pass, detail, set_by: step.set_by, until });
            }
        }
        let site = self.site_of(queue).and_then(|s| self.site(s));
        for path in site.map(|s| &s.paths[..]).unwrap_or_default() {
            let source = self.sources.get(path.source).map_or("", |s| s.source.name.as_str());
            let name = if several { format!("adaptation ({source})") } else { "adaptation".to_owned() };
            steps.extend(path.shared.and_then(|id| self.explain_adaptation(name, id)));
        }
        let info = self.queue_info(queue);
        let verdict = match (&info.held_by, info.held_until) {
            (None, _) => "goes now".to_owned(),
            (Some(reason), Some(until)) => format!("waits: {reason}, until {until}"),
            (Some(reason), None) => format!("waits: {reason}"),
        };
        Explanation { route: self.route_words(queue), queue: info, steps, verdict }
    }

    fn route_words(&self, queue: &Queue) -> String {
        match self.domains.get(&queue.key.domain).map(|state| &state.route) {
            Some(DomainRoute::Known { plan, until, .. }) => {
                let hosts: Vec<String> = plan.hosts.iter().map(|h| format!("{}:{}", h.name, h.port)).collect();
                let by = plan.route.as_ref().map_or("MX".to_owned(), |r| format!("route {r:?}"));
                format!("{by}: {} (until {until})", hosts.join(", "))
            }
            Some(DomainRoute::Failed { context, .. }) => {
                format!("none: {} ({})", context.failure.reply.text, context.failure.stage)
            }
            Some(DomainRoute::Unknown) | None => "not looked up yet".to_owned(),
        }
    }
}

fn of_path(name: &str) -> bool {
    ["site ", "source", "provider", "warm-up"].iter().any(|start| name.starts_with(start)) || name == "host"
}

fn time_of(wake: Wake) -> Option<Timestamp> {
    match wake {
        Wake::At(at) => Some(at),
        Wake::Release(_) | Wake::Event => None,
    }
}

/// A reason without its particulars, for counting.
/// Whether mail that is due and waits for this is something to look at. What somebody wanted to hold is not, and a dead host only where
/// many recipients wait for it.
fn is_trouble(reason: Reason, many: bool) -> bool {
    match reason {
        Reason::Draining
        | Reason::Suspended(_)
        | Reason::Held(_)
        | Reason::RetryDue
        | Reason::WarmUp
        | Reason::Rate(Limit::CampaignRate) => false,
        Reason::Unresolved | Reason::HostDown => many,
        Reason::StoreFailed
        | Reason::Window
        | Reason::Content
        | Reason::Resolving
        | Reason::Unsettled
        | Reason::NoSource
        | Reason::SourceHeld(_)
        | Reason::Connections(_)
        | Reason::Rate(_)
        | Reason::ProviderHeld => true,
    }
}

fn short(reason: Reason) -> &'static str {
    match reason {
        Reason::Draining => "draining",
        Reason::StoreFailed => "store failed",
        Reason::Suspended(_) => "suspended",
        Reason::Held(HoldKind::Paused) => "campaign paused",
        Reason::Held(HoldKind::Window) => "campaign window",
        Reason::Held(HoldKind::Halted) => "campaign halted",
        Reason::RetryDue => "retry due later",
        Reason::Window => "window",
        Reason::Content => "content",
        Reason::Resolving => "resolving",
        Reason::Unresolved => "no way for now",
        Reason::Unsettled => "unsettled",
        Reason::NoSource => "no source",
        Reason::SourceHeld(_) => "source held",
        Reason::HostDown => "host down",
        Reason::Connections(limit) | Reason::Rate(limit) => limit.as_str(),
        Reason::WarmUp => "warm-up",
        Reason::ProviderHeld => "provider held",
    }
}
