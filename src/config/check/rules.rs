//! Reply rules and adaptation: what can't hold together.

use super::Check;
use crate::config::problem::at;
use crate::config::{RULES_MAX, Rate};

impl Check<'_> {
    /// Each rule by itself, its examples, and the providers that it names.
    pub(super) fn rules(&mut self) {
        let rules = &self.config.rules;
        if rules.len() > RULES_MAX {
            self.error(at!["rules"], format!("{} rules are too many", rules.len()), "at most 1000");
        }
        self.unique("rule", rules.iter().enumerate().map(|(i, r)| (at!["rules", i, "name"], r.name.as_str())));
        for (i, rule) in rules.iter().enumerate() {
            for (key, message, hint) in rule.problems() {
                let at = at!["rules", i];
                self.error(if key.is_empty() { at } else { at.join(key) }, message, hint);
            }
        }
    }

    /// Factors that would never slow down, or never grow again.
    pub(super) fn adaptation(&mut self) {
        let adaptation = &self.config.adaptation;
        let of = |key: &str| at!["adaptation", key];
        let mut not_zero = |key: &str, rate: Rate| {
            if rate.count == 0 {
                self.error(of(key), "0 would hold mail for ever", "suspend the queue instead");
            }
        };
        not_zero("start", adaptation.start);
        not_zero("floor", adaptation.floor);
        adaptation.ceiling.into_iter().for_each(|rate| not_zero("ceiling", rate));
        let per_minute = |rate: Rate| f64::from(rate.count) / rate.per.as_secs_f64();
        if let Some(ceiling) = adaptation.ceiling {
            for (key, rate) in [("floor", adaptation.floor), ("start", adaptation.start)] {
                if per_minute(rate) > per_minute(ceiling) {
                    self.error(of(key), "above the ceiling", "floor and start are at most the ceiling");
                }
            }
        }
        if !(0.5..=0.95).contains(&adaptation.decrease) {
            self.error(of("decrease"), format!("{} is out of range", adaptation.decrease), "from 0.5 to 0.95");
        }
        if !(0.1..=1.0).contains(&adaptation.increase) {
            self.error(of("increase"), format!("{} is out of range", adaptation.increase), "from 0.1 to 1");
        }
        if !(1..=100).contains(&adaptation.deferral_percent) {
            let message = format!("{} is out of range", adaptation.deferral_percent);
            self.error(of("deferral_percent"), message, "from 1 to 100");
        }
        self.not_zero(of("connection_quiet"), adaptation.connection_quiet);
        self.not_zero(of("remember"), adaptation.remember);
    }
}
