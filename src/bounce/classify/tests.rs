//! The rules' own examples, and what no rule may do.

use super::*;
use crate::bounce::read::codes::{enhanced_in, smtp_code_in};

fn reply<'a>(text: &'a str, enhanced: Option<&'a str>, provider: Option<&'a str>) -> Reply<'a> {
    Reply { code: smtp_code_in(text).unwrap_or(0), enhanced, text, provider, phase: Some(Phase::Rcpt) }
}

#[test]
fn each_example_is_understood_by_its_rule() {
    let rules = Rules::built_in();
    let mut wrong = Vec::new();
    for rule in &rules.rules {
        assert!(!rule.examples.is_empty(), "{} has no example", rule.name);
        for example in &rule.examples {
            let enhanced = enhanced_in(example);
            let provider = if rule.name.contains("in-spite") { Some("qq") } else { None };
            let found = rules.rule(&reply(example, enhanced.as_deref(), provider));
            if found != Some(rule.name.as_str()) {
                wrong.push(format!("{} got {found:?}: {example}", rule.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
