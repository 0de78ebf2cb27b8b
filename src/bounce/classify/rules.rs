//! The rules as data, and as one machine that looks for all patterns at once.

use std::sync::LazyLock;

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

use super::{Category, FILTERED, Fault, Phase, Reply, Scope, UNKNOWN, Verdict};
use crate::bounce::read::codes;
use crate::event::Severity;

/// The rules that come with the program.
const BUILT_IN: &str = include_str!("../../../config/bounce-rules.toml");
/// The longest text that is looked at, in octets.
const TEXT_MAX: usize = 2 << 10;
/// The most rules of a file.
const RULES_MAX: usize = 1_000;
/// The largest machine that the patterns of a file may make, in octets.
const MACHINE_MAX: usize = 32 << 20;

/// Why a file of rules can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is not TOML, or has an unknown key or word.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A pattern does not compile, or all of them are too much.
    #[error("{0}")]
    Pattern(#[from] regex::Error),
    /// A rule contradicts itself.
    #[error("rule {name:?}: {problem}")]
    Rule {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Rule>,
}

/// One rule, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::bounce) struct Rule {
    pub(in crate::bounce) name: String,
    category: Category,
    fault: Fault,
    scope: Scope,
    #[serde(default)]
    permanent: bool,
    #[serde(default)]
    suppress: bool,
    #[serde(default)]
    soft: bool,
    /// It is believed only in answer to RCPT, or with a status of addresses: gateways say it of messages that they dislike.
    #[serde(default)]
    needs_rcpt: bool,
    /// It does not fit what is said to pass.
    #[serde(default)]
    lasting: bool,
    #[serde(default)]
    patterns: Vec<String>,
    /// Patterns with which it does not fit.
    #[serde(default)]
    unless: Vec<String>,
    #[serde(default)]
    enhanced: Vec<String>,
    #[serde(default)]
    codes: Vec<String>,
    #[serde(default)]
    providers: Vec<String>,
    #[serde(default)]
    pub(super) examples: Vec<String>,
}

/// All rules, ready to use; shared by all threads.
pub struct Rules {
    pub(super) rules: Vec<Rule>,
    set: RegexSet,
    /// Which rule a pattern belongs to, and whether it is one that keeps it from fitting.
    owners: Vec<(usize, bool)>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

impl Rules {
    /// The rules that come with the program.
    pub fn built_in() -> &'static Self {
        static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::parse(BUILT_IN).expect("the built-in rules are valid"));
        &RULES
    }

    /// Reads a file of rules.
    ///
    /// # Errors
    /// Names the line, or the rule, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let File { rules } = toml::from_str(text)?;
        let wrong = |name: &str, problem: String| RulesError::Rule { name: name.into(), problem };
        if rules.len() > RULES_MAX {
            return Err(wrong("", format!("more than {RULES_MAX} rules")));
        }
        for rule in &rules {
            if rule.suppress && !rule.fault.may_suppress() {
                let fault = rule.fault.as_str();
                return Err(wrong(&rule.name, format!("suppresses the recipient for a fault of {fault}")));
            }
            if rule.patterns.is_empty() && rule.enhanced.is_empty() && rule.codes.is_empty() {
                return Err(wrong(&rule.name, "fits everything: give patterns, enhanced or codes".into()));
            }
        }
        let mut patterns = Vec::new();
        let mut owners = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            patterns.extend(rule.patterns.iter().chain(&rule.unless));
            owners.extend(rule.patterns.iter().map(|_| (at, false)));
            owners.extend(rule.unless.iter().map(|_| (at, true)));
        }
        let set = RegexSetBuilder::new(patterns).unicode(false).size_limit(MACHINE_MAX).build()?;
        Ok(Self { rules, set, owners })
    }

    /// The examples that another rule understands, or none: told as `rule: got: example`.
    pub fn misunderstood(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for rule in &self.rules {
            for example in &rule.examples {
                let enhanced = codes::enhanced_in(example);
                let reply = Reply {
                    code: codes::smtp_code_in(example).unwrap_or(0),
                    enhanced: enhanced.as_deref(),
                    text: example,
                    provider: rule.providers.first().map(String::as_str),
                    phase: Some(Phase::Rcpt),
                };
                let found = self.rule(&reply);
                if found != Some(rule.name.as_str()) {
                    wrong.push(format!("{}: got {}: {example}", rule.name, found.unwrap_or("nothing")));
                }
            }
        }
        wrong
    }

    /// What a reply means.
    pub fn classify(&self, reply: &Reply<'_>) -> Verdict {
        match self.find(reply) {
            Some(rule) => rule.verdict(reply),
            None => UNKNOWN,
        }
    }

    /// The rule that decides, by name; for people.
    pub fn rule(&self, reply: &Reply<'_>) -> Option<&str> {
        self.find(reply).map(|rule| rule.name.as_str())
    }

    pub(in crate::bounce) fn find(&self, reply: &Reply<'_>) -> Option<&Rule> {
        let text = normal(reply.text);
        let mut said = vec![(false, false); self.rules.len()];
        for pattern in self.set.matches(text.as_bytes()) {
            let (rule, unless) = self.owners[pattern];
            if unless { said[rule].1 = true } else { said[rule].0 = true }
        }
        let fits = |(rule, (said, unless)): &(&Rule, (bool, bool))| {
            (*said || rule.patterns.is_empty()) && !unless && rule.has_codes_of(reply)
        };
        self.rules.iter().zip(said).find(fits).map(|(rule, _)| rule)
    }
}

impl Rule {
    /// Whether it is the words that it goes by, not a code alone.
    pub(in crate::bounce) fn decides_by_words(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn has_codes_of(&self, reply: &Reply<'_>) -> bool {
        let enhanced = reply.enhanced.unwrap_or_default();
        let begins = |prefixes: &[String], text: &str| {
            prefixes.iter().any(|p| text == p || (text.starts_with(p.as_str()) && (p.ends_with('.') || p.len() == 1)))
        };
        let code = reply.code.to_string();
        if self.lasting && reply.severity() == Severity::Temporary {
            return false;
        }
        (self.enhanced.is_empty() || begins(&self.enhanced, enhanced))
            && (self.codes.is_empty()
                || begins(&self.codes, &code)
                || (reply.code == 0 && begins(&self.codes, enhanced.get(..1).unwrap_or_default())))
            && (self.providers.is_empty()
                || reply.provider.is_some_and(|p| self.providers.iter().any(|known| known == p)))
    }

    /// What can pass is not for good, whatever the words are.
    fn verdict(&self, reply: &Reply<'_>) -> Verdict {
        let temporary = reply.severity() == Severity::Temporary;
        let believed = reply.phase == Some(Phase::Rcpt) || reply.enhanced.is_some_and(|e| e.starts_with("5.1."));
        if self.needs_rcpt && !temporary && !believed {
            let inactive = reply.enhanced == Some("5.2.1");
            return Verdict {
                category: if inactive { Category::InactiveMailbox } else { FILTERED.category },
                ..FILTERED
            };
        }
        Verdict {
            category: self.category,
            fault: self.fault,
            permanent: self.permanent && !temporary,
            suppress: self.suppress && !temporary,
            soft: self.soft || (self.suppress && temporary),
            scope: self.scope,
        }
    }
}

/// The text as the patterns see it: ASCII lowercase, single spaces, no typographic apostrophes, not too long.
fn normal(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_MAX));
    let mut space = false;
    for c in text.chars() {
        if out.len() >= TEXT_MAX {
            break;
        }
        if c.is_whitespace() || c.is_control() {
            space = !out.is_empty();
            continue;
        }
        if std::mem::take(&mut space) {
            out.push(' ');
        }
        out.push(match c {
            '\u{2018}' | '\u{2019}' => '\'',
            c => c.to_ascii_lowercase(),
        });
    }
    // What a mailer writes around every refusal says nothing of this one.
    out.replace("unknown address error", "")
}
