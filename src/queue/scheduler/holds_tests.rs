//! What this host lacks holds a source and charges nobody; a peer that leaves before any mail is told to those who wait.

use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::config::{LimitRule, Pool, PoolSource, Source};
use crate::delivery::{EXHAUSTED, NO_SOURCE_ADDRESS};
use crate::event::EventKind;
use crate::queue::admin::{Command, Explanation, Matcher};
use crate::queue::sim::{START, Temper, World};
use crate::queue::testing;
use crate::types::Class::Transactional;

fn after(secs: u64) -> Timestamp {
    START.after(Duration::from_secs(secs))
}

/// Sources of one pool.
fn config(sources: &[&str]) -> Config {
    let mut config = Config::default();
    config.shaping.default = LimitRule { connections: Some(10), ..LimitRule::default() };
    let source = |name: &&str| Source {
        name: testing::name(name),
        address: None,
        ehlo: None,
        connections: None,
        message_rate: None,
    };
    config.sources = sources.iter().map(source).collect();
    let member = |name: &&str| PoolSource { name: testing::name(name), weight: 1 };
    config.pools = vec![Pool { name: testing::name("default"), sources: sources.iter().map(member).collect() }];
    config
}

fn explain(world: &mut World) -> Explanation {
    let (reply, mut answer) = oneshot::channel();
    let command = Command::Explain { matcher: Matcher::default(), limit: 1, reply };
    assert!(world.scheduler.command(world.now, command).is_none());
    answer.try_recv().expect("answered").expect("explained").remove(0)
}

fn by(world: &World, source: &str) -> usize {
    let of = |e: &&crate::event::Event| e.source.as_ref().is_some_and(|s| s.as_str() == source);
    world.events.iter().filter(|e| e.event == EventKind::Delivered).filter(of).count()
}

#[test]
fn a_missing_address_holds_the_source_and_charges_nobody() {
    for (stage, words) in [(NO_SOURCE_ADDRESS, "does not have its address"), (EXHAUSTED, "out of file descriptors")] {
        let mut world = World::new(31, config(&["a"]));
        world.troubles.insert("a".into(), (stage, after(600)));
        for n in 0..100 {
            world.submit(n, "acme", Transactional, &[&format!("u{n}@d{}.example", n % 10)]);
        }
        world.run_for(20);
        let told = explain(&mut world);
        assert!(told.verdict.contains("source held") && told.verdict.contains(words), "{}", told.verdict);
        let step = told.steps.iter().find(|s| s.name == "source").expect("a step");
        assert!(!step.pass && step.until.is_some() && step.set_by.as_deref() == Some("sources.a"), "{step:?}");
        world.run_until(after(590));
        assert_eq!((world.count(EventKind::Deferred), world.waiting()), (0, 100), "nobody was tried");
        // Ten sites, and as many probes as one source needs.
        assert!(world.opens <= 60, "{} openings", world.opens);
        world.run_until(after(1_000));
        assert_eq!((world.count(EventKind::Delivered), world.waiting()), (100, 0));
        assert!(world.events.iter().all(|e| e.attempt.is_none_or(|n| n == 1)), "no attempt was charged");
    }
}

#[test]
fn a_healthy_source_of_the_pool_takes_over() {
    let mut world = World::new(32, config(&["a", "b"]));
    world.troubles.insert("a".into(), (NO_SOURCE_ADDRESS, after(60)));
    for n in 0..200 {
        world.submit(n, "acme", Transactional, &[&format!("u{n}@x.example")]);
    }
    world.run_for(10);
    assert_eq!((by(&world, "a"), by(&world, "b")), (0, 200));
    // Back again, it gets its share.
    world.run_until(after(120));
    for n in 200..400 {
        world.submit(n, "acme", Transactional, &[&format!("u{n}@x.example")]);
        world.run_until(world.now.after(Duration::from_millis(100)));
    }
    world.run_for(10);
    assert!(by(&world, "a") >= 50, "{}", by(&world, "a"));
    assert_eq!(world.waiting(), 0);
}

#[test]
fn a_peer_that_leaves_before_any_mail_defers_those_who_wait() {
    let mut world = World::new(33, config(&["a"]));
    let leaves = Temper { leaves_until: after(3_000), ..Temper::default() };
    world.tempers.insert("rude.example".into(), leaves);
    for n in 0..50 {
        world.submit(n, "acme", Transactional, &[&format!("u{n}@rude.example")]);
    }
    world.run_for(20);
    assert_eq!(world.count(EventKind::Deferred), 50, "each is told why it waits");
    let first = world.events.iter().find(|e| e.event == EventKind::Deferred).expect("one").clone();
    assert!(first.smtp.expect("a cause").text.contains("closed the connection before any mail"));
    assert!(first.retry_at.is_some());
    assert!(world.opens <= 32, "{} openings in 20 s", world.opens);
    world.run_until(after(2_900));
    // At once, after 1, 5 and 20 minutes: an event for each step of the schedule, as far as the host's back-off lets it.
    let deferred = world.count(EventKind::Deferred);
    assert!((150..=200).contains(&deferred), "{deferred}");
    assert!(world.opens <= 50, "{} openings", world.opens);
    world.run_until(after(12_000));
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (50, 0));
}

#[test]
fn a_crowd_at_a_peer_that_leaves_is_told_in_bounded_numbers() {
    let mut world = World::new(34, config(&["a"]));
    let leaves = Temper { leaves_until: after(3_000), ..Temper::default() };
    world.tempers.insert("rude.example".into(), leaves);
    for n in 0..2_000 {
        world.submit(n, "acme", Transactional, &[&format!("u{n}@rude.example")]);
    }
    world.run_for(20);
    let deferred = world.count(EventKind::Deferred);
    assert!((1..=300).contains(&deferred), "{deferred}");
    world.run_until(after(20_000));
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (2_000, 0));
}
