//! Reply rules: what a failure's reply means, whom it names, and what is to be done.
//!
//! 1. [`Rules::new`] takes the config's rules, then the built-in ones (`config/reply-rules.toml`) that they do not replace,
//! 2. each provider gets its own list in that order, and one `RegexSet` over its patterns: a reply is read once, in linear time,
//! 3. [`Rules::find`] answers with the first rule whose provider, phase, codes and pattern all fit, and whom the reply names.
//!
//! Only failures come here; a delivered message never does.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::config::{Phase, ReplyRule, RuleScope, compile_pattern};
use crate::event::SmtpReply;

/// The rules that are built in, as they are written.
pub const BUILT_IN: &str = include_str!("../../../config/reply-rules.toml");

/// The most octets that the patterns of one provider may take together.
const SET_SIZE_MAX: usize = 16 << 20;

/// Where a rule stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is built in.
    BuiltIn,
    /// It is in the config, at this place of `[[rules]]`, from 0.
    Config(usize),
}

/// A rule that is ready to be used.
#[derive(Debug)]
pub struct Rule {
    /// As it is written.
    pub rule: ReplyRule,
    /// Where it is defined.
    pub origin: Origin,
    regex: Regex,
}

/// What a rule said of a reply.
#[derive(Clone, Debug)]
pub struct Match {
    /// The rule.
    pub rule: Arc<Rule>,
    /// What its actions apply to: never [`RuleScope::Named`], the reply has named it.
    pub scope: RuleScope,
}

/// The rules of one provider, and one set of their patterns in the same order.
#[derive(Debug)]
struct List {
    rules: Vec<Arc<Rule>>,
    set: RegexSet,
}

/// All rules.
#[derive(Debug)]
pub struct Rules {
    all: Vec<Arc<Rule>>,
    providers: BTreeMap<Box<str>, List>,
    /// For providers that no rule names.
    any: List,
}

#[derive(Deserialize)]
struct File {
    rules: Vec<ReplyRule>,
}

impl Rules {
    /// The config's rules before the built-in ones. The error names the rule; a config that was checked has none, except where
    /// its patterns are too large together.
    pub fn new(config: &[ReplyRule]) -> Result<Self, String> {
        let file: File = toml::from_str(BUILT_IN).map_err(|e| format!("the built-in rules: {e}"))?;
        let built_in = file.rules.into_iter().filter(|b| !config.iter().any(|c| c.name == b.name));
        let own =
            config.iter().cloned().enumerate().filter(|(_, r)| !r.disabled).map(|(at, r)| (r, Origin::Config(at)));
        let mut all = Vec::new();
        for (rule, origin) in own.chain(built_in.map(|r| (r, Origin::BuiltIn))) {
            let regex = compile_pattern(&rule.pattern).map_err(|e| format!("rule {}: {e}", rule.name))?;
            all.push(Arc::new(Rule { rule, origin, regex }));
        }
        let mut providers = BTreeMap::new();
        for provider in all.iter().flat_map(|r| &r.rule.providers) {
            if !providers.contains_key(&**provider) {
                let of = |r: &Rule| r.rule.providers.is_empty() || r.rule.providers.contains(provider);
                providers.insert(Box::from(&**provider), List::new(&all, of)?);
            }
        }
        let any = List::new(&all, |r| r.rule.providers.is_empty())?;
        Ok(Self { all, providers, any })
    }

    /// All of them, in the order in which they are looked at.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.all.iter()
    }

    /// The first rule that fits; `phase` is `None` where it is not known, and then fits all.
    pub fn find(&self, provider: &str, phase: Option<Phase>, reply: &SmtpReply) -> Option<Match> {
        let list = self.providers.get(provider).unwrap_or(&self.any);
        let enhanced = reply.enhanced.as_deref();
        // The enhanced code is looked at with the text too: some providers have families of codes.
        let text = match enhanced {
            Some(enhanced) => format!("{enhanced} {}", reply.text),
            None => reply.text.to_string(),
        };
        let fits = |rule: &ReplyRule| {
            (rule.phases.is_empty() || phase.is_none_or(|p| rule.phases.contains(&p)))
                && (rule.codes.is_empty() || rule.codes.iter().any(|c| is_code(c, reply.code)))
                && (rule.enhanced.is_empty()
                    || enhanced.is_some_and(|e| rule.enhanced.iter().any(|r| is_enhanced(r, e))))
        };
        let matches = list.set.matches(&text);
        let rule = matches.iter().filter_map(|at| list.rules.get(at)).find(|r| fits(&r.rule))?;
        Some(Match { rule: rule.clone(), scope: rule.scope_of(&text)? })
    }
}

impl List {
    fn new(all: &[Arc<Rule>], of: impl Fn(&Rule) -> bool) -> Result<Self, String> {
        let rules: Vec<Arc<Rule>> = all.iter().filter(|r| of(r)).cloned().collect();
        let mut builder = RegexSetBuilder::new(rules.iter().map(|r| &r.rule.pattern));
        let set = builder.case_insensitive(true).size_limit(SET_SIZE_MAX).build().map_err(|e| e.to_string())?;
        Ok(Self { rules, set })
    }
}

impl Rule {
    /// What the actions apply to; `None` where the reply should name it and does not.
    fn scope_of(&self, text: &str) -> Option<RuleScope> {
        if self.rule.scope != RuleScope::Named {
            return Some(self.rule.scope);
        }
        let captures = self.regex.captures(text)?;
        let groups = [
            ("source", RuleScope::Source),
            ("netblock", RuleScope::Netblock),
            ("sending_domain", RuleScope::SendingDomain),
            ("dkim_domain", RuleScope::DkimDomain),
            ("url_domain", RuleScope::Campaign),
        ];
        groups.into_iter().find(|(name, _)| captures.name(name).is_some()).map(|(_, scope)| scope)
    }
}

fn is_code(wanted: &str, code: u16) -> bool {
    match wanted {
        "4xx" => (400..500).contains(&code),
        "5xx" => (500..600).contains(&code),
        number => number.parse() == Ok(code),
    }
}

/// `x` stands for any number: `x.7.23`.
fn is_enhanced(wanted: &str, code: &str) -> bool {
    let (mut wanted, mut code) = (wanted.split('.'), code.split('.'));
    loop {
        match (wanted.next(), code.next()) {
            (None, None) => return true,
            (Some(w), Some(c)) if w == "x" || w == c => {}
            _ => return false,
        }
    }
}

/// A reply as somebody pastes it: `421 4.7.28 text` or `421-4.7.28 text`, several lines too. `None` where no code begins it.
pub fn parse_reply(text: &str) -> Option<SmtpReply> {
    let (mut code, mut enhanced, mut words) = (0, None, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let digits = line.get(..3).and_then(|d| d.parse().ok()).filter(|code| (200..600).contains(code));
        let rest = match digits {
            Some(digits) => {
                code = digits;
                line.get(3..).unwrap_or_default().trim_start_matches(['-', ' '])
            }
            None => line,
        };
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_status = first.split('.').count() == 3 && first.split('.').all(|p| p.parse::<u16>().is_ok());
        if is_status && matches!(first.as_bytes().first(), Some(b'2' | b'4' | b'5')) {
            enhanced = Some(Box::from(first));
            words.push(after.trim());
        } else {
            words.push(rest);
        }
    }
    (code > 0).then(|| SmtpReply { code, enhanced, text: words.join(" ").into() })
}
