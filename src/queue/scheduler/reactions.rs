//! Reactions: a failure's reply meets the rules, and what they order is done for whom the reply names.
//!
//! 1. [`Scheduler::learn`] looks at each different reply of a job once; what treats it otherwise changes its severity,
//! 2. an action of which several replies are needed is counted in [`Triggers`],
//! 3. the recipient waits for longer; a source (or all of its network) gets an order to its controller; a tenant, a campaign or a
//!    sender's domain has its mail to the recipient's domain suspended, with the reply as the reason,
//! 4. without a rule a deferral counts in the controller's share of deferrals.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::oneshot;

use super::admin::Pending;
use super::paths::PathId;
use super::{Scheduler, SiteId};
use crate::config::{ActionKind, Phase, ReplyClass, RuleAction, RuleScope, TreatAs};
use crate::delivery::{Failure, Outcome};
use crate::event::{Event, EventKind, Severity};
use crate::queue::admin::Matcher;
use crate::shaping::adapt::{self, Order, per_minute};
use crate::shaping::rules::Match;
use crate::store::Change;
use crate::types::Timestamp;

/// What is counted at a time: more rules and scopes than that begin anew.
const TRIGGERS_MAX: usize = 10_000;
/// The most replies that one trigger counts.
const TRIGGER_COUNT_MAX: u32 = 1_000;
/// A tenant has no rate of its own at a provider: where it is to be slow it is held for this long at a time.
const SLOW_AS_HOLD: Duration = Duration::from_secs(600);
/// A suspension is renewed only when it would become longer by this.
const RENEW_FROM: Duration = Duration::from_secs(60);
/// Who suspends.
pub(super) const BY: &str = "reply rules";

/// The times of replies, for actions that need several.
#[derive(Debug, Default)]
pub(super) struct Triggers(AHashMap<(Box<str>, usize, Box<str>), VecDeque<Timestamp>>);

impl Triggers {
    /// One more reply; answers whether there are enough of them now.
    fn is_met(&mut self, rule: &str, at: usize, action: &RuleAction, whom: &str, now: Timestamp) -> bool {
        let needed = action.after.min(TRIGGER_COUNT_MAX) as usize;
        if needed <= 1 {
            return true;
        }
        if self.0.len() >= TRIGGERS_MAX {
            self.0.clear();
        }
        let times = self.0.entry((rule.into(), at, whom.into())).or_default();
        times.push_back(now);
        while times.len() > needed || times.front().is_some_and(|first| now.since(*first) > action.within.0) {
            times.pop_front();
        }
        times.len() >= needed
    }
}

/// Where a reply was heard, and about whose mail.
pub(super) struct Heard<'a> {
    pub path: PathId,
    /// An event of the message, where there is one: tenant, campaign, domain.
    pub about: Option<&'a Event>,
    pub failure: &'a Failure,
}

/// The phase of a failure, by the name of the state that the session gives it; `None` where it is not sure.
fn phase_of(stage: &str) -> Option<Phase> {
    let has = |word: &str| stage.contains(word);
    match () {
        () if has("greeting") => Some(Phase::Banner),
        () if has("EHLO") || has("HELO") || has("STARTTLS") || has("AUTH") || has("TLS") => Some(Phase::Ehlo),
        () if has("connecting") => Some(Phase::Connect),
        () if has("MAIL") => Some(Phase::Mail),
        () if has("RCPT") => Some(Phase::Rcpt),
        () if has("end of data") => Some(Phase::Final),
        () if has("DATA") => Some(Phase::Data),
        () => None,
    }
}

impl Scheduler {
    /// What the outcomes of a job teach. Answers for each of them before when it is not to be tried again; empty where there is
    /// nothing of the kind. `about` makes an event of the message for the outcome at a place.
    pub(super) fn learn(
        &mut self,
        path: PathId,
        provider: &str,
        outcomes: &mut [Outcome],
        about: impl Fn(&Self, usize) -> Option<Event>,
        changes: &mut Vec<Change>,
    ) -> Vec<Timestamp> {
        if outcomes.iter().any(|o| matches!(o, Outcome::Delivered(_))) {
            self.count_taken(path);
        }
        let mut holds = Vec::new();
        let mut last: Option<(Failure, Option<Match>, Timestamp)> = None;
        for (at, outcome) in outcomes.iter_mut().enumerate() {
            let Outcome::Failed(failure) = outcome else { continue };
            if !failure.remote || failure.not_tried() {
                continue;
            }
            // One reply is often for all recipients of a transaction.
            let same = last.as_ref().is_some_and(|(f, ..)| f.reply == failure.reply && f.stage == failure.stage);
            if !same {
                let found = self.adapting.rules.find(provider, phase_of(failure.stage), &failure.reply);
                let about = about(self, at);
                let heard = Heard { path, about: about.as_ref(), failure };
                let hold = self.react(&heard, found.as_ref(), changes);
                last = Some((failure.clone(), found, hold));
            }
            let Some((_, found, hold)) = &last else { continue };
            treat(failure, found.as_ref());
            if *hold > self.now {
                holds.resize(at + 1, Timestamp::ZERO);
                holds[at] = *hold;
            }
        }
        holds
    }

    /// A connection was refused, or never became ready. Answers the failure as the rules take it.
    pub(super) fn learn_of_connection(
        &mut self,
        site: SiteId,
        source: usize,
        provider: &str,
        mut failure: Failure,
    ) -> Failure {
        let Some(path) = self.site(site).and_then(|s| s.paths.iter().find(|p| p.source == source)?.shared) else {
            return failure;
        };
        let mut changes = Vec::new();
        if failure.remote {
            let found = self.adapting.rules.find(provider, phase_of(failure.stage), &failure.reply);
            let heard = Heard { path, about: None, failure: &failure };
            self.react(&heard, found.as_ref(), &mut changes);
            treat(&mut failure, found.as_ref());
        }
        // One dead site of many says nothing of the provider.
        let is_of_all = failure.remote || self.path(path).is_some_and(|p| p.holders == 1);
        if is_of_all && self.path(path).is_some_and(|p| p.is_of_provider() && p.adaptive.is_some()) {
            let (config, now) = (self.config.clone(), self.now);
            let open = self.path(path).map_or(0, |p| p.connections);
            let words = failure.reply.to_string();
            let change =
                self.controller(path).and_then(|c| c.on_connection_trouble(&config.adaptation, now, open, &words));
            self.note_change(path, change, None, &mut changes);
        }
        if !changes.is_empty() {
            self.submit(changes, Pending::Nobody);
        }
        failure
    }

    /// Does what a rule orders; without a rule the deferral counts. Answers until when the recipient waits.
    fn react(&mut self, heard: &Heard<'_>, found: Option<&Match>, changes: &mut Vec<Change>) -> Timestamp {
        let (now, words) = (self.now, heard.failure.reply.to_string());
        let mut hold = Timestamp::ZERO;
        let mut slowed = false;
        let temporary = heard.failure.severity == Severity::Temporary;
        if let Some(found) = found {
            let rule = &found.rule.rule;
            let whom = self.whom(heard, found.scope);
            for (at, action) in rule.actions.iter().enumerate() {
                if !self.adapting.triggers.is_met(rule.name.as_str(), at, action, &whom, now) {
                    continue;
                }
                match (action.action, found.scope) {
                    (ActionKind::HoldRecipient, _) | (_, RuleScope::Recipient) => {
                        hold = hold.max(action.duration.map_or(now, |d| now.after(d.0)));
                    }
                    (ActionKind::Decrease, _) => {
                        slowed = true;
                        self.slow_down(heard, &words, changes);
                    }
                    (_, RuleScope::Source) => self.order(heard.path, heard, found, action, &words, changes),
                    (_, RuleScope::Netblock) => {
                        for path in self.paths_of_netblock(heard.path) {
                            self.order(path, heard, found, action, &words, changes);
                        }
                    }
                    _ => self.suspend_by_rule(heard, found, action, &words, changes),
                }
            }
        }
        let alone = found.is_some_and(|f| {
            f.scope == RuleScope::Recipient
                || matches!(
                    f.rule.rule.class,
                    ReplyClass::Recipient | ReplyClass::Greylisting | ReplyClass::BadMailbox | ReplyClass::Quota
                )
        });
        if temporary && !slowed && !alone && self.path(heard.path).is_some_and(|p| p.is_of_provider()) {
            let config = self.config.clone();
            if config.adaptation.enabled {
                let change = self.controller(heard.path).and_then(|c| c.on_deferred(&config.adaptation, now, &words));
                self.note_change(heard.path, change, heard.about, changes);
            }
        }
        hold
    }

    fn slow_down(&mut self, heard: &Heard<'_>, words: &str, changes: &mut Vec<Change>) {
        let (config, now) = (self.config.clone(), self.now);
        let change = self.controller(heard.path).and_then(|c| c.on_slow_down(&config.adaptation, now, words));
        self.note_change(heard.path, change, heard.about, changes);
    }

    /// A change becomes an event, and what may be sent.
    fn note_change(
        &mut self,
        path: PathId,
        change: Option<adapt::Change>,
        about: Option<&Event>,
        changes: &mut Vec<Change>,
    ) {
        if let Some(change) = change {
            let event = self.adapted_event(path, &change, about);
            changes.extend(event.map(|e| Change::Event(Box::new(e))));
        }
        self.sync_control(path);
        self.arm(path);
    }

    fn order(
        &mut self,
        path: PathId,
        heard: &Heard<'_>,
        found: &Match,
        action: &RuleAction,
        words: &str,
        changes: &mut Vec<Change>,
    ) {
        let now = self.now;
        let kind = action.action;
        let order = Order {
            rule: found.rule.rule.name.as_str().into(),
            hold: matches!(kind, ActionKind::Hold | ActionKind::HoldAndAlert | ActionKind::Stop),
            per_minute: action.rate.filter(|_| kind == ActionKind::Slow).map(per_minute),
            connections: action.count.filter(|_| kind == ActionKind::Connections),
            messages_per_connection: action.count.filter(|_| kind == ActionKind::MessagesPerConnection),
            until: match (kind, action.duration) {
                (ActionKind::Stop, _) | (_, None) => Timestamp::NEVER,
                (_, Some(duration)) => now.after(duration.0),
            },
        };
        let change = self.controller(path).and_then(|c| c.on_order(now, order, words));
        let before = changes.len();
        self.note_change(path, change, heard.about, changes);
        if let Some(Change::Event(event)) = changes.get(before).filter(|_| is_alerting(kind)) {
            changes.push(Change::Event(Box::new(Event { event: EventKind::Alert, ..Event::clone(event) })));
        }
    }

    /// Paths of all sources in the network of a path's source, towards the same provider.
    fn paths_of_netblock(&self, id: PathId) -> Vec<PathId> {
        let Some(path) = self.path(id) else { return Vec::new() };
        let address = |source: usize| self.sources.get(source).and_then(|s| s.source.address);
        let Some(block) = address(path.source).map(netblock) else { return vec![id] };
        let others = (0..self.sources.len()).filter(|s| address(*s).map(netblock) == Some(block));
        others.filter_map(|s| self.path_id(s, &path.group)).collect()
    }

    /// Whom an action hits, as the key of its trigger.
    fn whom(&self, heard: &Heard<'_>, scope: RuleScope) -> String {
        match (scope, heard.about) {
            (RuleScope::Recipient, Some(e)) => e.recipient.as_ref().map_or(String::new(), |r| r.as_str().to_owned()),
            (RuleScope::Source | RuleScope::Netblock | RuleScope::Named, _) | (_, None) => format!("{}", heard.path),
            (_, Some(e)) => format!(
                "{}/{}/{}",
                e.tenant,
                e.campaign.as_ref().filter(|_| scope == RuleScope::Campaign).map_or("", |c| c.as_str()),
                e.domain.as_ref().map_or("", |d| d.as_str())
            ),
        }
    }

    /// Suspends mail to the recipient's domain: that of the campaign, or of the tenant (queues know no sender's domain).
    fn suspend_by_rule(
        &mut self,
        heard: &Heard<'_>,
        found: &Match,
        action: &RuleAction,
        words: &str,
        changes: &mut Vec<Change>,
    ) {
        let Some(about) = heard.about else { return };
        let now = self.now;
        let lasts = match (action.action, action.duration) {
            (ActionKind::Hold | ActionKind::HoldAndAlert, Some(d)) => Some(d.0),
            (ActionKind::Slow, Some(d)) => Some(d.0.min(SLOW_AS_HOLD)),
            (ActionKind::Stop, _) => None,
            // It has no connections of its own; the check of the config says so.
            _ => return,
        };
        let until = lasts.map(|d| now.after(d));
        let campaign = about.campaign.clone().filter(|_| found.scope == RuleScope::Campaign);
        let matcher = Matcher {
            tenant: Some(about.tenant.clone()),
            domain: about.domain.clone(),
            campaign,
            ..Matcher::default()
        };
        if let Some(old) = self.same_suspension(&matcher)
            && old.until.is_none_or(|old| until.is_some_and(|until| until.since(old) < RENEW_FROM))
        {
            return;
        }
        let reason = format!("rule {}: {words}", found.rule.rule.name);
        match self.new_suspension(matcher, reason.clone(), BY.to_owned(), until) {
            Ok((suspension, made)) => {
                // Nobody waits for the answer.
                let (reply, _) = oneshot::channel();
                self.submit(made, Pending::Suspend(suspension, reply));
            }
            Err(error) => tracing::warn!(target: "posthaste::queue", %error, reason, "a rule could not suspend"),
        }
        if is_alerting(action.action) {
            let mut alert = self.alert_about(about);
            alert.reason = Some(reason.into());
            alert.smtp = Some(heard.failure.reply.clone());
            changes.push(Change::Event(Box::new(alert)));
        }
    }

    fn alert_about(&self, about: &Event) -> Event {
        let mut alert = Event::new(EventKind::Alert, self.now, about.tenant.clone());
        alert.message_id = about.message_id;
        alert.campaign = about.campaign.clone();
        alert.domain = about.domain.clone();
        alert.pool = about.pool.clone();
        alert.class = about.class;
        alert
    }
}

fn is_alerting(kind: ActionKind) -> bool {
    matches!(kind, ActionKind::HoldAndAlert | ActionKind::Stop)
}

fn treat(failure: &mut Failure, found: Option<&Match>) {
    match found.and_then(|f| f.rule.rule.treat_as) {
        Some(TreatAs::Temporary) => failure.severity = Severity::Temporary,
        Some(TreatAs::Permanent) => failure.severity = Severity::Permanent,
        None => {}
    }
}

/// The network of an address: /24 or /64.
fn netblock(address: IpAddr) -> [u8; 8] {
    let mut block = [0; 8];
    match address {
        IpAddr::V4(v4) => block[..3].copy_from_slice(&v4.octets()[..3]),
        IpAddr::V6(v6) => block.copy_from_slice(&v6.octets()[..8]),
    }
    block
}
