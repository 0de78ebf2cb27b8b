//! The built-in rules against their own examples, and what a user's rules change.

use super::*;

fn reply(text: &str) -> SmtpReply {
    parse_reply(text).expect("begins with a code")
}

#[test]
fn every_built_in_rule_matches_its_examples_and_no_other_does() {
    let rules = Rules::new(&[]).expect("built in");
    for rule in rules.all() {
        let rule = &rule.rule;
        assert_eq!(rule.problems(), [], "{}", rule.name);
        assert!(!rule.examples.is_empty(), "{} has no example", rule.name);
        for example in &rule.examples {
            for provider in &rule.providers {
                let reply = reply(example);
                let found = rules.find(provider, None, &reply).map(|m| m.rule.rule.name.clone());
                assert_eq!(found.as_ref(), Some(&rule.name), "{provider}: {example}");
                // Not only the first: no other one would have taken it.
                let others: Vec<ReplyRule> = vec![ReplyRule { disabled: true, ..rule.clone() }];
                let without = Rules::new(&others).expect("still good");
                let other = without.find(provider, None, &reply).map(|m| m.rule.rule.name.clone());
                assert_eq!(other, None, "{provider}: {example} fits {} too", rule.name);
            }
        }
    }
}

fn check(provider: &str, text: &str, expected: Option<(&str, RuleScope)>) {
    let rules = Rules::new(&[]).expect("built in");
    let found = rules.find(provider, None, &reply(text));
    let found = found.as_ref().map(|m| (m.rule.rule.name.as_str(), m.scope));
    assert_eq!(found, expected, "{provider}: {text}");
}

#[test]
fn the_reply_names_whom_the_action_hits_and_nothing_wider() {
    let name = "gmail-unusual-rate";
    let rate = "421-4.7.28 Gmail has detected an unusual rate of mail originating from your";
    check("google", &format!("{rate} IP address"), Some((name, RuleScope::Source)));
    check("google", &format!("{rate} IP Netblock [192.0.2.0 24]"), Some((name, RuleScope::Netblock)));
    check("google", &format!("{rate} DKIM domain\n421 4.7.28 [acme.example 36]"), Some((name, RuleScope::DkimDomain)));
    check("google", "421 4.7.28 an unusual rate of mail", None);
    check("yahoo", &format!("{rate} IP address"), None);
    check("google", "550 5.1.1 The email account that you tried to reach does not exist", None);
    check("other", "421 4.7.0 [TSS04] deferred", None);
}

#[test]
fn a_rule_of_the_config_takes_the_place_of_a_built_in_one_or_takes_it_out() {
    let own: File = toml::from_str(
        "[[rules]]\nname = 'yahoo-ts01'\nproviders = ['yahoo']\npattern = 'TS01'\nphases = ['banner']\nclass = 'reputation'\n\
         [[rules]]\nname = 'yahoo-ts02'\ndisabled = true",
    )
    .expect("two rules");
    let rules = Rules::new(&own.rules).expect("good");
    let find = |phase, text| rules.find("yahoo", phase, &reply(text)).map(|m| m.rule.origin);
    assert_eq!(find(Some(Phase::Banner), "421 [TS01] x"), Some(Origin::Config(0)));
    assert_eq!(find(Some(Phase::Rcpt), "421 [TS01] x"), None, "another phase");
    assert_eq!(find(None, "421 [TS02] x"), None);
    assert_eq!(find(None, "421 [TS03] x"), Some(Origin::BuiltIn));
}

#[test]
fn what_cannot_work_is_told() {
    let wrong = |toml: &str| {
        let file: File = toml::from_str(&format!("[[rules]]\nname = 'r'\n{toml}")).expect("readable");
        file.rules[0].problems().into_iter().map(|(key, ..)| key).collect::<Vec<_>>()
    };
    assert_eq!(wrong("pattern = '('"), ["pattern"]);
    assert_eq!(wrong("pattern = 'x'\nscope = 'named'"), ["scope"], "the reply can't name it");
    assert_eq!(wrong("pattern = 'x'\nphases = ['banner']\nscope = 'tenant'"), ["scope"]);
    assert_eq!(wrong("class = 'rate'"), [""], "would match every failure");
    assert_eq!(wrong("codes = ['250']"), ["codes"]);
    assert_eq!(wrong("codes = ['421']\nactions = [{ do = 'slow', for = '1h' }]"), ["actions"]);
    assert_eq!(wrong("codes = ['421']\nactions = [{ do = 'connections', count = 0, for = '1h' }]"), ["actions"]);
    assert_eq!(wrong("codes = ['421']\nactions = [{ do = 'hold' }]"), ["actions"]);
}
