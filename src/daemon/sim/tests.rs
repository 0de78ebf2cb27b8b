//! Seeds: a few with every run of the tests, as many as one likes with `SIM_SEEDS=0..10000`.

use std::ops::Range;
use std::time::Instant;

use super::checker::{FAIR_MAX, check, unfairness};
use super::plan::{Plan, fair, trouble};
use super::world::{Outcome, run};

/// Seeds of an ordinary run of the tests.
const TROUBLE: Range<u64> = 0..100;
const FAIR: Range<u64> = 0..40;

/// `SIM_SEEDS`: a range `0..10000`, or one number.
fn seeds(ordinary: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else { return ordinary };
    let number = |text: &str| text.trim().parse::<u64>().expect("SIM_SEEDS is a number or a range like 0..10000");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

/// Runs all seeds, on two threads; names those that fail, and how to see one again.
fn check_all(test: &str, range: Range<u64>, make: fn(u64) -> Plan, more: fn(&Outcome) -> Vec<String>) {
    let (range, began) = (seeds(range), Instant::now());
    let one = |seed: u64| {
        let plan = make(seed);
        let outcome = run(&plan);
        let mut wrong = check(&plan, &outcome);
        wrong.extend(more(&outcome));
        if !wrong.is_empty() {
            wrong.insert(0, plan.told());
        }
        (!wrong.is_empty()).then_some((seed, wrong))
    };
    let half = |odd: u64| range.clone().filter(move |seed| seed % 2 == odd).filter_map(one).collect::<Vec<_>>();
    let failed = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut failed = half(0);
        failed.extend(other.join().expect("a run panicked"));
        failed
    });
    let many = failed.len();
    let told = failed.iter().take(5).map(|(seed, wrong)| {
        let wrong = wrong.iter().take(6).cloned().collect::<Vec<_>>().join("\n    ");
        format!("  seed {seed}: SIM_SEEDS={seed} cargo test --lib daemon::sim::tests::{test}\n    {wrong}")
    });
    let told = told.collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{many} of {} seeds failed after {:?}:\n{told}", range.count(), began.elapsed());
}

#[test]
fn all_is_well_whatever_goes_wrong() {
    check_all("all_is_well_whatever_goes_wrong", TROUBLE, trouble, |_| Vec::new());
}

#[test]
fn equal_tenants_get_equal_shares() {
    check_all("equal_tenants_get_equal_shares", FAIR, fair, |outcome| {
        let ahead = unfairness(&outcome.log, 60);
        if ahead > FAIR_MAX { vec![format!("one tenant is {ahead} messages ahead of another")] } else { Vec::new() }
    });
}

/// All that happened is the same again, to the millisecond.
#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..10 {
        let stories = [0, 1].map(|_| run(&trouble(seed)).log.story.take());
        assert!(stories[0].len() > 100, "something happened: {}", stories[0].len());
        if let Some(at) = (0..stories[0].len()).find(|i| stories[0].get(*i) != stories[1].get(*i)) {
            let [one, other] = stories.each_ref().map(|s| s[at.saturating_sub(12)..(at + 3).min(s.len())].join("\n"));
            panic!("seed {seed} differs at {at}:\n{one}\n\n{other}\n");
        }
    }
}
