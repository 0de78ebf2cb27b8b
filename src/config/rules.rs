//! Reply rules as they are written: what a provider's reply means, and what is to be done.

use serde::{Deserialize, Serialize};

use super::{HumanDuration, Rate};
use crate::types::Name;

/// What a reply means and what it makes happen. One of the name of a built-in rule takes its place; others are added, and
/// looked at before the built-in ones.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct ReplyRule {
    /// Its name: in events, in `queue explain`, and to replace it.
    pub name: Name,
    /// Takes the built-in rule of this name out; nothing else is needed then.
    #[serde(default)]
    pub disabled: bool,
    /// The providers whose replies it reads; empty for all.
    #[serde(default)]
    pub providers: Vec<String>,
    /// The phases of the session that it reads: `connect`, `banner`, `ehlo`, `mail`, `rcpt`, `data`, `final`; empty for all.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// The codes: `421`, or `4xx` and `5xx`; empty for all failures.
    #[serde(default)]
    pub codes: Vec<String>,
    /// The enhanced codes (RFC 3463): `4.7.28`, or `x.7.23` for both severities; empty for all, and for replies without one.
    #[serde(default)]
    pub enhanced: Vec<String>,
    /// A regular expression that is looked for in the text, without regard to case; empty for any text. Groups named `source`,
    /// `netblock`, `sending_domain`, `dkim_domain` and `url_domain` say whom the reply names.
    #[serde(default)]
    pub pattern: String,
    /// What the reply means.
    #[serde(default)]
    pub class: ReplyClass,
    /// What the actions apply to.
    #[serde(default)]
    pub scope: RuleScope,
    /// Takes a permanent refusal as a temporary one, or the other way round; the recipient follows it.
    #[serde(default)]
    pub treat_as: Option<TreatAs>,
    /// What is done, each as soon as its own trigger is met.
    #[serde(default)]
    pub actions: Vec<RuleAction>,
    /// Replies that it is for; the check of the config tries them.
    #[serde(default)]
    pub examples: Vec<String>,
}

/// Something that a rule does.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct RuleAction {
    /// What.
    #[serde(rename = "do")]
    pub action: ActionKind,
    /// The rate, with `slow`.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// The number, with `connections` and `messages_per_connection`.
    #[serde(default)]
    pub count: Option<u32>,
    /// How long; `stop` lasts until somebody resumes it.
    #[serde(default, rename = "for")]
    pub duration: Option<HumanDuration>,
    /// After so many such replies …
    #[serde(default = "one")]
    pub after: u32,
    /// … within this time.
    #[serde(default = "hour")]
    pub within: HumanDuration,
}

fn one() -> u32 {
    1
}

fn hour() -> HumanDuration {
    HumanDuration::secs(3_600)
}

/// What can be done about a reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// The controller goes below the ceiling that it met.
    Decrease,
    /// Not more than `rate`.
    Slow,
    /// Nothing; a few messages probe when it ends.
    Hold,
    /// Nothing, and an alert.
    HoldAndAlert,
    /// Not more than `count` connections.
    Connections,
    /// Not more than `count` messages in a connection.
    MessagesPerConnection,
    /// The recipient is not tried again before.
    HoldRecipient,
    /// Nothing until an operator resumes it, and an alert.
    Stop,
}

/// A phase of the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before anything was read.
    Connect,
    /// The greeting.
    Banner,
    /// EHLO, STARTTLS and AUTH.
    Ehlo,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, or a part of the message.
    Data,
    /// After all of the message.
    Final,
}

/// What a reply means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyClass {
    /// Too much mail.
    Rate,
    /// Too many connections, or too many messages in one.
    Connections,
    /// The source is thought badly of.
    Reputation,
    /// The source is on a block list.
    Blocklist,
    /// SPF, DKIM, DMARC, PTR or TLS is missing or wrong.
    Authentication,
    /// The content is refused.
    Content,
    /// It is for this recipient alone.
    Recipient,
    /// The first attempt is put off.
    Greylisting,
    /// The recipient is unknown.
    BadMailbox,
    /// The mailbox is full.
    Quota,
    /// Anything else.
    #[default]
    Other,
}

/// What an action applies to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleScope {
    /// The recipient.
    Recipient,
    /// The source towards the provider.
    #[default]
    Source,
    /// All sources of its network (/24 or /64) towards the provider.
    Netblock,
    /// Mail of the sender's domain to the provider.
    SendingDomain,
    /// Mail signed by the domain, to the provider.
    DkimDomain,
    /// Mail of the tenant to the provider.
    Tenant,
    /// Mail of the campaign to the provider; of its tenant where it has none.
    Campaign,
    /// What the pattern's named group says.
    Named,
}

/// How a refusal is taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TreatAs {
    /// Tried again.
    Temporary,
    /// Given up.
    Permanent,
}

/// The most rules of a config. Each costs memory, and a failure's look at its text.
pub const RULES_MAX: usize = 1_000;
/// The largest pattern, in octets.
pub const PATTERN_MAX: usize = 2_000;

/// The groups of a pattern that name somebody.
pub const NAMED_GROUPS: [&str; 5] = ["source", "netblock", "sending_domain", "dkim_domain", "url_domain"];

impl ReplyRule {
    /// What is wrong with the rule by itself: the key below it (empty for the rule), what, and what would mend it.
    pub fn problems(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut found = Vec::new();
        if self.disabled {
            return found;
        }
        let compiled = compile_pattern(&self.pattern);
        match &compiled {
            Err(error) => found.push(("pattern", format!("not a regular expression: {error}"), "")),
            Ok(regex) => {
                let names = || regex.capture_names().flatten();
                if let Some(name) = names().find(|name| !NAMED_GROUPS.contains(name)) {
                    found.push(("pattern", format!("nothing knows a group named {name:?}"), GROUPS));
                }
                if self.scope == RuleScope::Named && names().next().is_none() {
                    found.push(("scope", "the pattern has no group that names anybody".into(), GROUPS));
                }
            }
        }
        if self.pattern.is_empty() && self.codes.is_empty() && self.enhanced.is_empty() {
            found.push(("", "it would match every failure".into(), "give it codes, enhanced or a pattern"));
        }
        if let Some(bad) = self.codes.iter().find(|c| !is_code(c)) {
            found.push(("codes", format!("{bad:?} is not the code of a failure"), "as \"421\", \"4xx\" or \"5xx\""));
        }
        if let Some(bad) = self.enhanced.iter().find(|e| !is_enhanced(e)) {
            found.push(("enhanced", format!("{bad:?} is not an enhanced code"), "as \"4.7.28\" or \"x.7.28\""));
        }
        if self.scope == RuleScope::Recipient && self.actions.iter().any(|a| a.action != ActionKind::HoldRecipient) {
            let message = "a reply about one recipient can only hold that recipient";
            found.push(("scope", message.into(), "do = \"hold_recipient\", or another scope"));
        }
        let before_sender = |p: &Phase| matches!(p, Phase::Connect | Phase::Banner | Phase::Ehlo);
        let is_of_mail = !matches!(self.scope, RuleScope::Source | RuleScope::Netblock | RuleScope::Named);
        if is_of_mail && !self.phases.is_empty() && self.phases.iter().all(before_sender) {
            let message = "a reply before MAIL can't name whose mail it is";
            found.push(("scope", message.into(), "\"source\" or \"netblock\", or a later phase"));
        }
        let path_only = |a: &RuleAction| {
            matches!(
                a.action,
                ActionKind::Decrease | ActionKind::Connections | ActionKind::MessagesPerConnection | ActionKind::Slow
            )
        };
        if is_of_mail && self.actions.iter().any(path_only) {
            let message = "this scope can be held or stopped, but has no rate or connections of its own";
            found.push(("scope", message.into(), "\"source\" or \"netblock\""));
        }
        self.actions.iter().for_each(|a| a.problems(&mut found));
        found
    }
}

const GROUPS: &str = "(?<source>…), (?<netblock>…), (?<sending_domain>…), (?<dkim_domain>…), (?<url_domain>…)";

impl RuleAction {
    fn problems(&self, found: &mut Vec<(&'static str, String, &'static str)>) {
        let mut need = |missing: bool, message: &str, hint: &'static str| {
            if missing {
                found.push(("actions", message.to_owned(), hint));
            }
        };
        let none = |duration: Option<HumanDuration>| duration.is_none_or(|d| d.0.is_zero());
        match self.action {
            ActionKind::Slow => {
                need(self.rate.is_none_or(|r| r.count == 0), "`slow` needs a rate above 0", "rate = \"10/min\"");
            }
            ActionKind::Connections | ActionKind::MessagesPerConnection => {
                need(self.count.is_none_or(|n| n == 0), "this needs a count above 0", "count = 1");
            }
            ActionKind::Decrease
            | ActionKind::Hold
            | ActionKind::HoldAndAlert
            | ActionKind::HoldRecipient
            | ActionKind::Stop => {}
        }
        let timed = !matches!(self.action, ActionKind::Decrease | ActionKind::Stop);
        need(timed && none(self.duration), "this needs to know for how long", "for = \"1h\"");
        need(self.after == 0, "`after` counts from 1", "leave it out to act at once");
        need(self.after > 1 && self.within.0.is_zero(), "`within` is no time at all", "within = \"1h\"");
    }
}

/// The pattern as it is used: case does not matter, and its size is bounded.
pub fn compile_pattern(pattern: &str) -> Result<regex::Regex, String> {
    if pattern.len() > PATTERN_MAX {
        return Err(format!("longer than {PATTERN_MAX} octets"));
    }
    let built = regex::RegexBuilder::new(pattern).case_insensitive(true).size_limit(PATTERN_SIZE_MAX).build();
    // The crate's words show the place in several lines; the last one says what it is.
    built.map_err(|e| e.to_string().lines().last().unwrap_or("unknown").trim_start_matches("error: ").to_owned())
}

/// The most octets that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1 << 20;

fn is_code(text: &str) -> bool {
    text == "4xx" || text == "5xx" || text.parse().is_ok_and(|code: u16| (400..600).contains(&code))
}

fn is_enhanced(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &str| part.len() <= 3 && part.parse::<u16>().is_ok();
    matches!(&parts[..], [class, subject, detail]
        if matches!(*class, "4" | "5" | "x") && number(subject) && (number(detail) || *detail == "x"))
}
