//! `posthaste rules`: what a reply would make happen, without the daemon.

use std::fmt::Write;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;

use super::{Exit, print};
use crate::config::{self, ActionKind, Environment, OTHER, Phase, RuleAction, RuleScope, TreatAs};
use crate::shaping::rules::{Origin, Rule, Rules, parse_reply};
use crate::types::nearest;

/// Reply rules: what providers' replies mean, and what they make happen.
///
/// Everything comes from the configuration and the built-in file; the daemon is not asked.
#[derive(clap::Subcommand, Debug)]
pub(super) enum RulesCommand {
    /// List all rules, in the order in which they are looked at.
    List(List),
    /// Say what a reply would do.
    Test(Test),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only those that read this provider's replies.
    #[arg(long)]
    provider: Option<String>,
    /// The configuration.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG")]
    config: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct Test {
    /// The reply as a log shows it: `421 4.7.28 …`; several lines too. `-` reads it from standard input.
    reply: String,
    /// The provider that said it.
    #[arg(long, default_value = OTHER)]
    provider: String,
    /// The phase of the session: connect, banner, ehlo, mail, rcpt, data or final; without it rules of all phases are tried.
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
    /// The configuration; without one the built-in rules alone.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG")]
    config: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// The most octets of a reply that are read.
const REPLY_MAX: u64 = 64 << 10;

/// The phases, as they are written.
const PHASES: [(&str, Phase); 7] = [
    ("connect", Phase::Connect),
    ("banner", Phase::Banner),
    ("ehlo", Phase::Ehlo),
    ("mail", Phase::Mail),
    ("rcpt", Phase::Rcpt),
    ("data", Phase::Data),
    ("final", Phase::Final),
];

impl RulesCommand {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self {
            RulesCommand::List(list) => list.run(),
            RulesCommand::Test(test) => test.run(),
        }
    }
}

/// The rules, after a provider's name was looked up.
fn load(config: Option<&PathBuf>, provider: Option<&str>) -> anyhow::Result<Rules> {
    let config = match config {
        Some(path) => config::load_with(path, &Environment::of_process())?.0,
        None => config::Config::default(),
    };
    if let Some(provider) = provider.filter(|p| *p != OTHER && config.provider(p).is_none()) {
        let hint = nearest(provider, config.all_providers().keys().map(|known| known.as_str()));
        let hint = hint.map_or(String::new(), |near| format!("; did you mean {near}?"));
        anyhow::bail!("there is no provider {provider:?}{hint}");
    }
    Rules::new(&config.rules).map_err(anyhow::Error::msg)
}

impl List {
    fn run(self) -> anyhow::Result<Exit> {
        let rules = load(self.config.as_ref(), self.provider.as_deref())?;
        let reads = |r: &&Rule| {
            let providers = &r.rule.providers;
            self.provider.as_ref().is_none_or(|p| providers.is_empty() || providers.contains(p))
        };
        let shown: Vec<&Rule> = rules.all().map(|r| &**r).filter(reads).collect();
        if self.json {
            let all: Vec<_> = shown.iter().map(|r| &r.rule).collect();
            print(&serde_json::to_string_pretty(&all)?)?;
            return Ok(Exit::Success);
        }
        let mut out = format!("{:<32} {:<20} {:<14} DOES\n", "RULE", "PROVIDERS", "SCOPE");
        for rule in shown {
            let providers = match rule.rule.providers.is_empty() {
                true => "all".to_owned(),
                false => rule.rule.providers.join(" "),
            };
            let _ = writeln!(
                out,
                "{:<32} {providers:<20} {:<14} {}",
                rule.rule.name.as_str(),
                word(&rule.rule.scope),
                does(rule).join("; ")
            );
        }
        print(&out)?;
        Ok(Exit::Success)
    }
}

impl Test {
    fn run(self) -> anyhow::Result<Exit> {
        let text = match self.reply.as_str() {
            "-" => {
                let mut text = String::new();
                std::io::stdin().take(REPLY_MAX).read_to_string(&mut text).context("standard input")?;
                text
            }
            given => given.to_owned(),
        };
        let reply = parse_reply(&text).context("a reply begins with its code, as \"421 4.7.0 try again later\"")?;
        let phase = self.phase.as_deref().map(phase_named).transpose()?;
        let rules = load(self.config.as_ref(), Some(&self.provider))?;
        let found = rules.find(&self.provider, phase, &reply);
        if self.json {
            let found = found.as_ref().map(|f| {
                serde_json::json!({
                    "rule": f.rule.rule, "scope": f.scope, "origin": origin(f.rule.origin),
                })
            });
            let reply = serde_json::json!({ "code": reply.code, "enhanced": reply.enhanced, "text": reply.text });
            print(&serde_json::to_string_pretty(&serde_json::json!({ "reply": reply, "match": found }))?)?;
            return Ok(Exit::Success);
        }
        let mut out = String::new();
        match found {
            Some(found) => {
                let _ = writeln!(out, "rule    {} ({})", found.rule.rule.name, origin(found.rule.origin));
                let _ = writeln!(out, "class   {}", word(&found.rule.rule.class));
                let _ = writeln!(out, "scope   {}: {}", word(&found.scope), whom(found.scope));
                for line in does(&found.rule) {
                    let _ = writeln!(out, "does    {line}");
                }
            }
            None => {
                out.push_str("no rule reads this reply\n");
                let words = match (reply.code, self.provider.as_str()) {
                    (500.., _) => "the recipient bounces; nothing else changes",
                    (_, OTHER) => "the recipient is tried again later; nothing else changes",
                    _ => "the recipient is tried again later, and the deferral counts in the share of deferrals",
                };
                let _ = writeln!(out, "does    {words}");
            }
        }
        print(&out)?;
        Ok(Exit::Success)
    }
}

fn phase_named(name: &str) -> anyhow::Result<Phase> {
    let found = PHASES.iter().find(|(known, _)| *known == name).map(|(_, phase)| *phase);
    found.with_context(|| {
        let names: Vec<&str> = PHASES.iter().map(|(name, _)| *name).collect();
        format!("--phase {name}: it is one of {}", names.join(", "))
    })
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::BuiltIn => "built in".to_owned(),
        Origin::Config(at) => format!("[[rules]] number {} of the configuration", at + 1),
    }
}

/// A value as the configuration writes it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn whom(scope: RuleScope) -> &'static str {
    match scope {
        RuleScope::Recipient => "the recipient alone",
        RuleScope::Source => "this source towards the provider",
        RuleScope::Netblock => "all sources of this source's network towards the provider",
        RuleScope::SendingDomain | RuleScope::DkimDomain | RuleScope::Tenant => {
            "mail of the tenant to the recipient's domain"
        }
        RuleScope::Campaign => "mail of the campaign (else of the tenant) to the recipient's domain",
        RuleScope::Named => "what the reply names",
    }
}

/// What a rule does, a line each.
fn does(rule: &Rule) -> Vec<String> {
    let treated = rule.rule.treat_as.map(|treat| match treat {
        TreatAs::Temporary => "takes it as temporary: it is tried again".to_owned(),
        TreatAs::Permanent => "takes it as permanent: it is given up".to_owned(),
    });
    let mut all: Vec<String> = treated.into_iter().chain(rule.rule.actions.iter().map(words)).collect();
    if all.is_empty() {
        all.push("nothing but the usual retry or bounce".to_owned());
    }
    all
}

fn words(action: &RuleAction) -> String {
    let count = action.count.unwrap_or(0);
    let mut out = match action.action {
        ActionKind::Decrease => "goes below the rate that was refused".to_owned(),
        ActionKind::Slow => format!("at most {}", action.rate.map_or(String::new(), |rate| rate.to_string())),
        ActionKind::Hold => "holds".to_owned(),
        ActionKind::HoldAndAlert => "holds, with an alert".to_owned(),
        ActionKind::Connections => format!("at most {count} connections"),
        ActionKind::MessagesPerConnection => format!("at most {count} messages a connection"),
        ActionKind::HoldRecipient => "holds the recipient".to_owned(),
        ActionKind::Stop => "stops until an operator goes on, with an alert".to_owned(),
    };
    if let Some(duration) = action.duration {
        let _ = write!(out, " for {duration}");
    }
    if action.after > 1 {
        let _ = write!(out, ", after {} such replies within {}", action.after, action.within);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_each_action_does() {
        let rules = Rules::new(&[]).expect("the built-in rules");
        let reply = parse_reply(
            "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address.",
        );
        let found = rules.find("google", None, &reply.expect("a reply")).expect("a rule");
        assert_eq!((found.rule.rule.name.as_str(), found.scope), ("gmail-unusual-rate", RuleScope::Source));
        assert_eq!(does(&found.rule), ["at most 10/min for 1h", "holds for 30m, after 2 such replies within 1h"]);
        assert!(rules.all().all(|r| does(r).iter().all(|line| !line.is_empty())));
    }

    #[test]
    fn knows_each_phase_by_its_name() {
        assert!(PHASES.iter().all(|(name, phase)| word(phase) == *name && phase_named(name).ok() == Some(*phase)));
        assert!(phase_named("rctp").is_err());
    }
}
