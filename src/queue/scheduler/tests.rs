//! Scenarios on the simulated world.

use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::config::{HumanDuration, LimitRule, Pool, PoolSource, Rate, Source};
use crate::event::{EventKind, Severity};
use crate::queue::admin::{Command, Explanation, Matcher, Reply};
use crate::queue::notice::Notice;
use crate::queue::sim::{START, Temper, World};
use crate::queue::testing;
use crate::types::Class::{Marketing, Transactional};

fn after(secs: u64) -> Timestamp {
    START.after(Duration::from_secs(secs))
}

fn dead(secs: u64) -> Temper {
    Temper { dead_until: after(secs), ..Temper::default() }
}

fn fast() -> Config {
    let mut config = Config::default();
    config.shaping.default = LimitRule { connections: Some(10), ..LimitRule::default() };
    config
}

fn ask<T>(world: &mut World, make: impl FnOnce(Reply<T>) -> Command) -> T {
    let (reply, mut answer) = oneshot::channel();
    let now = world.now;
    assert!(world.scheduler.command(now, make(reply)).is_none());
    world.carry_out();
    world.run_until(now.after(Duration::from_millis(10)));
    answer.try_recv().expect("answered").expect("carried out")
}

fn by_domain(domain: &str) -> Matcher {
    Matcher { domain: Some(testing::domain(domain)), ..Matcher::default() }
}

#[test]
fn what_is_accepted_is_delivered_once_over_few_connections() {
    let mut world = World::new(1, fast());
    for n in 0..500 {
        world.submit(n, "acme", Transactional, &[&format!("u{n}@d{}.example", n % 5)]);
    }
    world.run_for(30);
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (500, 0));
    assert!(world.received.values().all(|n| *n == 1));
    assert!(world.opens <= 50, "{}", world.opens);
    assert_eq!(world.scheduler.totals.unsettled, 0);
    assert_eq!(world.scheduler.totals.recipients, 0);
    assert!(world.scheduler.queues.is_empty(), "empty queues are forgotten");
}

#[test]
fn recipients_of_one_message_at_one_site_share_a_transaction() {
    let mut world = World::new(1, fast());
    world.hosts.insert("b.example".into(), "mx.a.example".into());
    let to: Vec<String> = (0..6).map(|n| format!("u{n}@{}.example", ["a", "b", "c"][n % 3])).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.submit(1, "acme", Transactional, &["warm@a.example", "warm@b.example", "warm@c.example"]);
    world.run_for(2);
    let before = world.transactions;
    world.submit(2, "acme", Transactional, &to);
    world.run_for(5);
    assert_eq!(world.count(EventKind::Delivered), 9);
    assert_eq!(world.transactions - before, 2, "a and b are one site, c is another");
}

#[test]
fn a_deferred_recipient_is_tried_by_the_schedule_and_expires_at_its_end() {
    let mut config = fast();
    config.retry.schedule = vec![HumanDuration::secs(60), HumanDuration::secs(600)];
    let mut world = World::new(3, config);
    world.tempers.insert("slow.example".into(), Temper { defers: 100, ..Temper::default() });
    let id = world.submit(1, "acme", Transactional, &["a@slow.example"]);
    world.run_for(5);
    let event = world.events.last().expect("tried").clone();
    assert_eq!((event.event, event.message_id, event.attempt), (EventKind::Deferred, Some(id), Some(1)));
    let wait = event.retry_at.expect("set").since(event.timestamp).as_secs();
    assert!((54..=66).contains(&wait), "{wait}");
    world.run_for(4 * 86_400 + 60);
    let last = world.events.last().expect("ended");
    assert_eq!((last.event, world.waiting()), (EventKind::Expired, 0));
    let age = last.timestamp.since(START).as_secs();
    assert!((4 * 86_400..4 * 86_400 + 5).contains(&age), "the last attempt is at its end: {age}");
}

#[test]
fn a_dead_host_defers_a_bounded_number_and_is_probed_by_one_connection() {
    let mut world = World::new(4, fast());
    world.tempers.insert("dead.example".into(), dead(3_000));
    for n in 0..1_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example")]);
    }
    world.run_for(20);
    let deferred = world.count(EventKind::Deferred);
    assert!((1..=64).contains(&deferred), "{deferred}");
    assert!(world.opens <= 32, "{}", world.opens);
    let opens = world.opens;
    world.run_for(600);
    assert!(world.opens - opens <= 8, "one connection a back-off: {}", world.opens - opens);
    world.run_until(after(8_000));
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (1_000, 0));
}

#[test]
fn a_million_at_a_dead_host_slow_nobody_down() {
    let steps_with = |bulk: u64| {
        let mut world = World::new(5, fast());
        world.tempers.insert("dead.example".into(), dead(1_000_000));
        if bulk > 0 {
            world.add_bulk("u@dead.example", bulk);
            world.crash();
        }
        world.run_for(120);
        let before = world.scheduler.steps();
        let begin = world.now;
        for n in 0..2_000 {
            world.submit(2_000_000 + n, "acme", Marketing, &[&format!("u{n}@live.example")]);
        }
        world.run_for(60);
        assert_eq!(world.received.len(), 2_000);
        let last = world.received_at.iter().map(|(at, ..)| *at).max().expect("delivered");
        assert!(world.window_max <= world.config.storage.window_entries as usize);
        (world.scheduler.steps() - before, last.since(begin))
    };
    let (alone, time_alone) = steps_with(0);
    let (beside, time_beside) = steps_with(1_000_000);
    assert!(beside < alone + alone / 5 + 2_000, "{beside} steps beside a million, {alone} alone");
    assert!(time_beside < time_alone * 2 + Duration::from_millis(200), "{time_beside:?} against {time_alone:?}");
}

#[test]
fn a_transactional_mail_passes_bulk_and_bulk_goes_on() {
    let mut config = fast();
    config.shaping.default.connections = Some(1);
    let mut world = World::new(6, config);
    for n in 0..2_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_for(2);
    let begin = world.now;
    for n in 0..300 {
        world.submit(10_000 + n, "other", Transactional, &[&format!("t{n}@a.example")]);
    }
    world.run_for(60);
    let since = |class| world.received_at.iter().filter(move |(at, _, c)| *at > begin && *c == class);
    let last = since(Transactional).map(|(at, ..)| *at).max().expect("delivered");
    let passed = since(Marketing).filter(|(at, ..)| *at <= last).count();
    assert_eq!(world.received.len(), 2_300);
    assert!((30..=45).contains(&passed), "one in nine: {passed}");
}

#[test]
fn queues_of_a_site_get_equal_turns() {
    let mut config = fast();
    config.shaping.default.connections = Some(1);
    let mut world = World::new(7, config);
    for n in 0..1_000 {
        world.submit(n, "big", Marketing, &[&format!("u{n}@a.example")]);
    }
    for n in 1_000..1_100 {
        world.submit(n, "small", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_for(60);
    let order: Vec<&str> = world.events.iter().map(|e| e.tenant.as_str()).collect();
    let last_small = order.iter().rposition(|t| *t == "small").expect("delivered");
    assert_eq!(world.received.len(), 1_100);
    assert!(last_small < 240, "a hundred of the small one take turns with a hundred of the big one: {last_small}");
}

#[test]
fn limits_are_kept_by_name_and_explained() {
    let mut config = fast();
    config.sources = ["ip1", "ip2"]
        .map(|name| Source {
            name: testing::name(name),
            address: None,
            ehlo: None,
            connections: Some(3),
            message_rate: Some(Rate { count: 5, per: Duration::from_secs(1) }),
        })
        .to_vec();
    config.delivery.max_connections = 4;
    config.shaping.default.connections = Some(2);
    let mut world = World::new(8, config);
    for n in 0..400 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 4)]);
    }
    world.run_for(20);
    let sent = world.received.len();
    assert!((190..=202).contains(&sent), "two sources of 5/s for 20 s: {sent}");
    assert!(world.connections_open_max <= 4, "{}", world.connections_open_max);
    assert!(world.connections_max.values().all(|n| *n <= 2), "{:?}", world.connections_max);
    let explained: Vec<Explanation> =
        ask(&mut world, |reply| Command::Explain { matcher: by_domain("d1.example"), limit: 5, reply });
    let explained = (0..20)
        .map(|_| ask(&mut world, |reply| Command::Explain { matcher: by_domain("d1.example"), limit: 5, reply }))
        .find(|e: &Vec<Explanation>| e[0].verdict != "goes now")
        .unwrap_or(explained);
    let step = explained[0].steps.iter().find(|s| s.name.starts_with("source message rate")).expect("listed");
    assert_eq!(step.set_by.as_deref(), Some("sources.ip1.message_rate"));
    assert!(explained[0].verdict.starts_with("waits: source message rate, until"), "{}", explained[0].verdict);
    world.run_for(60);
    assert_eq!(world.received.len(), 400);
}

#[test]
fn pools_share_by_weight_and_weight_zero_takes_out() {
    let mut config = fast();
    let source =
        |name| Source { name: testing::name(name), address: None, ehlo: None, connections: None, message_rate: None };
    config.sources = ["a", "b", "c"].map(source).to_vec();
    let member = |name, weight| PoolSource { name: testing::name(name), weight };
    config.pools =
        vec![Pool { name: testing::name("default"), sources: vec![member("a", 3), member("b", 1), member("c", 0)] }];
    let mut world = World::new(9, config);
    for n in 0..400 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
        world.run_until(world.now.after(Duration::from_millis(100)));
    }
    world.run_for(30);
    let by = |name: &str| world.events.iter().filter(|e| e.source.as_ref().is_some_and(|s| s.as_str() == name)).count();
    assert_eq!((by("a") + by("b"), by("c")), (400, 0));
    assert!((280..=320).contains(&by("a")), "{}", by("a"));
}

#[test]
fn unsettled_outcomes_are_bounded() {
    let mut config = fast();
    config.delivery.max_unsettled = 3;
    config.shaping.default.connections = Some(2);
    let mut world = World::new(10, config);
    world.tempers.insert("a.example".into(), Temper { latency_ms: 1, ..Temper::default() });
    for n in 0..300 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    let mut most = 0;
    for _ in 0..4_000 {
        world.run_until(world.now.after(Duration::from_millis(1)));
        most = most.max(world.scheduler.totals.unsettled);
    }
    assert_eq!(world.received.len(), 300);
    assert!(most <= 3 + 2, "the bound and what was in flight when it was reached: {most}");
}

#[test]
fn what_is_suspended_waits_expires_and_goes_on_and_survives_a_restart() {
    let mut world = World::new(11, fast());
    let suspend = |until| {
        move |reply| Command::Suspend {
            matcher: by_domain("a.example"),
            reason: "blocked".into(),
            by: "test".into(),
            until,
            reply,
        }
    };
    let suspension = ask(&mut world, suspend(None));
    assert_eq!(world.state.len(), 1);
    world.submit(1, "acme", Transactional, &["u@a.example", "u@b.example"]);
    world.run_for(10);
    assert_eq!((world.received.len(), world.waiting()), (1, 1));
    world.crash();
    world.run_for(3_600);
    assert_eq!(world.received.len(), 1, "it holds after a restart");
    let explained: Vec<Explanation> =
        ask(&mut world, |reply| Command::Explain { matcher: by_domain("a.example"), limit: 1, reply });
    assert!(explained[0].verdict.contains("blocked (by test)"), "{}", explained[0].verdict);
    world.run_for(4 * 86_400);
    assert_eq!((world.count(EventKind::Expired), world.waiting()), (1, 0), "it expires while it is held");
    world.submit(2, "acme", Transactional, &["v@a.example"]);
    world.run_for(10);
    ask(&mut world, |reply| Command::Resume { id: Some(suspension.id), matcher: None, reply });
    world.run_for(10);
    assert_eq!((world.received.len(), world.state.len()), (2, 0));
    let until = world.now.after(Duration::from_secs(60));
    ask(&mut world, suspend(Some(until)));
    world.submit(3, "acme", Transactional, &["w@a.example"]);
    world.run_for(50);
    assert_eq!(world.received.len(), 2);
    world.run_for(30);
    assert_eq!((world.received.len(), world.state.len()), (3, 0), "its end came by itself");
}

#[test]
fn a_purge_is_honoured_at_once_swept_to_its_end_and_survives_a_crash() {
    let mut world = World::new(12, fast());
    world.tempers.insert("dead.example".into(), dead(100_000));
    for n in 0..2_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example"), &format!("u{n}@live.example")]);
    }
    world.run_for(30);
    let changed = ask(&mut world, |reply| Command::Purge {
        matcher: by_domain("dead.example"),
        reason: "wrong list".into(),
        by: "test".into(),
        reply,
    });
    assert_eq!((changed.queues, changed.recipients), (1, 2_000));
    assert!(world.state.keys().any(|k| k.starts_with(b"mark/")));
    world.crash();
    world.submit(9_000, "acme", Marketing, &["later@dead.example"]);
    world.run_for(30);
    assert_eq!((world.count(EventKind::Purged), world.waiting()), (2_000, 1), "what came later stays");
    assert!(world.state.is_empty(), "the mark is gone with its work");
    assert_eq!(world.count(EventKind::Delivered), 2_000);
}

#[test]
fn a_reroute_moves_what_waits_to_another_pool() {
    let mut config = fast();
    let member = PoolSource { name: testing::name("a"), weight: 1 };
    config.sources =
        vec![Source { name: testing::name("a"), address: None, ehlo: None, connections: None, message_rate: None }];
    config.pools = vec![
        Pool { name: testing::name("default"), sources: Vec::new() },
        Pool { name: testing::name("other"), sources: vec![member] },
    ];
    let mut world = World::new(13, config);
    for n in 0..50 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_for(10);
    let explained: Vec<Explanation> =
        ask(&mut world, |reply| Command::Explain { matcher: Matcher::default(), limit: 1, reply });
    assert_eq!(explained[0].verdict, "waits: no source: none of the pool may send");
    let to = testing::name("other");
    ask(&mut world, |reply| Command::Reroute {
        matcher: Matcher::default(),
        pool: to.clone(),
        by: "test".into(),
        reply,
    });
    world.run_for(10);
    assert_eq!((world.count(EventKind::Rerouted), world.count(EventKind::Delivered)), (50, 50));
}

#[test]
fn retry_now_makes_everything_due_and_forgets_dead_hosts() {
    let mut world = World::new(14, fast());
    world.tempers.insert("dead.example".into(), dead(100));
    for n in 0..500 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example")]);
    }
    world.run_for(3_000);
    world.tempers.insert("dead.example".into(), dead(50_000));
    for n in 500..1_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example")]);
    }
    world.run_for(2_000);
    world.tempers.clear();
    let changed = ask(&mut world, |reply| Command::Retry { matcher: by_domain("dead.example"), reply });
    assert_eq!(changed.recipients, 500);
    world.run_for(20);
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (1_000, 0));
}

#[test]
fn a_domain_without_a_way_bounces_or_waits_by_its_severity() {
    let mut world = World::new(15, fast());
    let unknown = |severity| Temper { unknown: Some(severity), ..Temper::default() };
    world.tempers.insert("gone.example".into(), unknown(Severity::Permanent));
    world.tempers.insert("broken.example".into(), unknown(Severity::Temporary));
    for n in 0..300 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@gone.example")]);
        world.submit(n + 1_000, "acme", Marketing, &[&format!("u{n}@broken.example")]);
    }
    world.run_for(10);
    assert_eq!(world.count(EventKind::Failed), 300);
    assert!((1..=64).contains(&world.count(EventKind::Deferred)));
    assert_eq!(world.waiting(), 300);
    world.run_for(5 * 86_400);
    assert_eq!((world.count(EventKind::Expired), world.waiting()), (300, 0));
}

#[test]
fn the_last_attempt_comes_before_expiry_after_a_downtime() {
    let mut world = World::new(16, fast());
    world.submit(1, "acme", Transactional, &["u@a.example"]);
    world.tempers.insert("a.example".into(), Temper { defers: 100, ..Temper::default() });
    world.run_for(1);
    world.tempers.clear();
    world.now = after(10 * 86_400);
    world.crash();
    world.run_for(10);
    assert_eq!(world.count(EventKind::Delivered), 1);
}

#[test]
fn windows_stay_within_their_budget() {
    let mut config = fast();
    config.storage.window_entries = 600;
    config.storage.content_cache = crate::config::ByteSize(100_000);
    let mut world = World::new(17, config);
    world.tempers.insert("d0.example".into(), dead(5_000));
    for n in 0..20_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 200)]);
        if n % 100 == 0 {
            world.run_until(world.now.after(Duration::from_millis(5)));
        }
    }
    world.run_for(400);
    assert!(world.window_max <= 600, "{}", world.window_max);
    assert_eq!(world.received.len(), 20_000 - 100);
    world.run_until(after(40_000));
    assert_eq!(world.received.len(), 20_000);
}

#[test]
fn many_queues_cost_only_when_they_are_due() {
    let mut world = World::new(18, fast());
    let mut rows = Vec::new();
    for n in 0..100_000_u32 {
        let to = testing::domain(&format!("d{n}.example"));
        let key = Arc::new(testing::queue_key("acme", Marketing, &to));
        let due = after(86_400 + u64::from(n));
        rows.push(QueueRow { id: QueueId(1_000_000 + n), key, next_due: due, count: 1, bytes: 1, oldest: START });
    }
    for row in rows {
        world.scheduler.add_row(row);
    }
    let before = world.scheduler.steps();
    for n in 0..100 {
        world.submit(n, "acme", Transactional, &[&format!("u{n}@live.example")]);
    }
    world.run_for(3_600);
    let steps = world.scheduler.steps() - before;
    assert_eq!(world.received.len(), 100);
    assert!(steps < 6_000, "{steps} steps for a hundred messages beside 100,000 queues");
}

/// A few thousand messages with everything that goes wrong, and crashes; answers the log of events for comparison.
fn chaos(seed: u64, crashes: u64) -> Vec<String> {
    let mut config = fast();
    let window = [1_000, 300, 100_000][seed as usize % 3];
    config.storage.window_entries = window;
    config.storage.content_cache = crate::config::ByteSize([200_000, 20_000, 64 << 20][seed as usize % 3]);
    config.delivery.max_unsettled = [64, 5, 256][seed as usize % 3];
    config.retry.schedule = vec![HumanDuration::secs(30), HumanDuration::secs(120)];
    config.retry.expire_after = HumanDuration::secs(4 * 86_400);
    let mut world = World::new(seed, config);
    let mut dice = Seeded::new(seed);
    let temper = |dead_secs, defers, refuses, latency_ms| Temper {
        dead_until: after(dead_secs),
        defers,
        refuses,
        latency_ms,
        unknown: None,
    };
    world.tempers.insert("d1.example".into(), temper(0, 30, 5, 50));
    world.tempers.insert("d2.example".into(), temper(400, 10, 0, 50));
    world.tempers.insert("d3.example".into(), temper(0, 0, 50, 200));
    world.tempers.insert("d4.example".into(), Temper { unknown: Some(Severity::Permanent), ..Temper::default() });
    world.hosts.insert("d6.example".into(), "mx.d5.example".into());
    let mut accepted = Vec::new();
    let mut in_flight_most = 0;
    let mut crashed = 0;
    for n in 0..3_000_u64 {
        let to: Vec<String> = (0..1 + dice.below(3)).map(|i| format!("u{n}-{i}@d{}.example", dice.below(8))).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let class = if dice.below(4) == 0 { Transactional } else { Marketing };
        let tenant = ["acme", "bulk", "shop"][dice.below(3) as usize];
        let id = world.submit(n, tenant, class, &to);
        // It counts once it is committed: nobody crashes before the next step is over.
        accepted.extend(to.iter().map(|to| (id, (*to).to_owned())));
        if dice.below(10) == 0 {
            world.run_until(world.now.after(Duration::from_millis(10 + dice.below(200))));
            in_flight_most = in_flight_most.max(world.scheduler.totals.in_flight + world.scheduler.totals.unsettled);
            if crashed < crashes && dice.below(300 / crashes.max(1)) == 0 {
                crashed += 1;
                world.crash();
            }
        }
    }
    world.run_until(after(5 * 86_400));
    let endings = world.endings();
    if world.waiting() > 0 {
        let stuck: Vec<Explanation> =
            ask(&mut world, |reply| Command::Explain { matcher: Matcher::default(), limit: 3, reply });
        panic!("seed {seed}: {} wait: {stuck:#?} {:#?}", world.waiting(), world.scheduler.queues.values().next());
    }
    for recipient in &accepted {
        let ends = endings.get(recipient).map_or(0, Vec::len);
        assert_eq!(ends, 1, "seed {seed}: {recipient:?}");
    }
    assert_eq!(endings.len(), accepted.len());
    let duplicates: u32 = world.received.values().map(|n| n - 1).sum();
    let bound = crashed as u32 * (world.config.delivery.max_unsettled + 80);
    assert!(duplicates <= bound, "seed {seed}: {duplicates} duplicates of at most {bound}");
    assert!(world.connections_max.values().all(|n| *n <= 10), "seed {seed}: {:?}", world.connections_max);
    assert!(world.window_max <= window as usize, "seed {seed}");
    assert_eq!(world.scheduler.totals.recipients, 0, "seed {seed}");
    assert_eq!(world.scheduler.totals.window, 0, "seed {seed}");
    assert!(world.scheduler.taken.is_empty(), "seed {seed}");
    world.events.iter().map(|e| format!("{:?} {:?} {:?}", e.timestamp, e.event, e.message_id)).collect()
}

#[test]
fn every_recipient_ends_once_whatever_happens() {
    for seed in 0..4 {
        chaos(seed, 0);
    }
    for seed in 100..110 {
        chaos(seed, 5);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(chaos(7, 3), chaos(7, 3));
}

#[test]
fn failures_are_told_in_one_report_a_message_and_never_about_reports() {
    let mut world = World::new(20, fast());
    world.recorder.writes.set(true);
    world.tempers.insert("no.example".into(), Temper { refuses: 100, ..Temper::default() });
    world.tempers.insert("acme.example".into(), Temper { refuses: 100, ..Temper::default() });
    let id = world.submit(1, "acme", Transactional, &["a@no.example", "b@no.example", "c@yes.example"]);
    world.run_for(10);
    assert_eq!(*world.recorder.told.borrow(), [(Notice::Failure, id, 2)], "one report, none about it");
    assert_eq!((world.count(EventKind::Bounced), world.count(EventKind::Delivered), world.waiting()), (3, 1, 0));
}

#[test]
fn a_delay_is_told_once_with_its_event() {
    let mut world = World::new(21, fast());
    world.recorder.writes.set(true);
    world.tempers.insert("slow.example".into(), Temper { defers: 100, ..Temper::default() });
    let id = world.submit(1, "acme", Transactional, &["a@slow.example"]);
    world.run_for(2 * 86_400);
    assert_eq!(*world.recorder.told.borrow(), [(Notice::Delay, id, 1)]);
    assert_eq!(world.count(EventKind::Delayed), 1);
    world.run_for(3 * 86_400);
    assert_eq!(*world.recorder.told.borrow(), [(Notice::Delay, id, 1), (Notice::Failure, id, 1)]);
}

#[test]
fn a_job_that_the_peer_never_looked_at_goes_again_without_an_attempt() {
    let mut world = World::new(22, fast());
    world.not_tried = 3;
    world.submit(1, "acme", Transactional, &["a@a.example", "b@a.example"]);
    world.run_for(10);
    assert_eq!((world.count(EventKind::Deferred), world.count(EventKind::Delivered)), (0, 2));
    assert!(world.events.iter().all(|e| e.attempt == Some(1)));
    assert_eq!((world.waiting(), world.not_tried), (0, 0));
}

#[test]
fn a_message_that_is_gone_or_cannot_be_read_is_never_a_loop_nor_silent() {
    let mut world = World::new(23, fast());
    let gone = world.submit(1, "acme", Transactional, &["a@a.example"]);
    let broken = world.submit(2, "acme", Transactional, &["b@a.example"]);
    world.submit(3, "acme", Transactional, &["c@a.example"]);
    world.run_until(world.now.after(Duration::from_millis(5)));
    world.lose(gone);
    world.unreadable = Some(broken);
    world.crash();
    world.run_for(30);
    assert_eq!((world.count(EventKind::Failed), world.count(EventKind::Deferred)), (1, 1));
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (1, 1));
    world.unreadable = None;
    world.run_for(120);
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (2, 0));
}

#[test]
fn a_reload_changes_limits_sources_and_pools_at_once() {
    let mut config = fast();
    config.shaping.default.message_rate = Some(Rate { count: 1, per: Duration::from_secs(60) });
    let mut world = World::new(24, config.clone());
    for n in 0..20 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_for(30);
    assert_eq!(world.received.len(), 1);
    config.shaping.default.message_rate = None;
    world.scheduler.reconfigure(world.now, Arc::new(config));
    world.carry_out();
    world.run_for(10);
    assert_eq!(world.received.len(), 20);
}

#[test]
fn a_message_rate_holds_in_every_window() {
    let mut config = fast();
    config.shaping.default.message_rate = Some(Rate { count: 100, per: Duration::from_secs(10) });
    let mut world = World::new(25, config);
    for n in 0..500 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_for(60);
    let mut at: Vec<Timestamp> = world.received_at.iter().map(|(at, ..)| *at).collect();
    at.sort();
    // A tenth may come at once, and a transaction takes up to 20 ms.
    let most =
        (0..at.len()).map(|i| at[i..].iter().take_while(|t| t.since(at[i]) <= Duration::from_millis(9_980)).count());
    assert!(most.max().is_some_and(|most| most <= 111));
    assert_eq!(at.len(), 500);
}

#[test]
fn draining_starts_nothing_and_ends_when_all_is_settled() {
    let mut world = World::new(26, fast());
    for n in 0..200 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_until(world.now.after(Duration::from_millis(100)));
    let taken = world.transactions;
    assert!(!world.scheduler.is_quiet());
    world.scheduler.drain(world.now);
    world.carry_out();
    world.run_for(10);
    assert_eq!(world.transactions, taken, "nothing new starts");
    assert!(world.scheduler.is_quiet());
    assert_eq!(world.received.len() + world.waiting(), 200);
}

#[test]
fn nobody_is_forgotten_in_the_line_of_a_limit() {
    let mut config = fast();
    config.delivery.max_connections = 1;
    config.delivery.max_unsettled = 1;
    let mut world = World::new(27, config);
    for n in 0..300 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{n}.example")]);
    }
    // What waited in line is taken away, and the others still get their turn.
    world.run_for(1);
    ask(&mut world, |reply| Command::Suspend {
        matcher: by_domain("d150.example"),
        reason: "test".into(),
        by: "test".into(),
        until: None,
        reply,
    });
    world.run_for(300);
    assert_eq!((world.received.len(), world.waiting()), (299, 1));
}

#[test]
fn idle_domains_and_sites_are_forgotten() {
    let mut world = World::new(28, fast());
    for n in 0..2_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 50)]);
        world.run_until(world.now.after(Duration::from_millis(50)));
    }
    assert!(world.scheduler.idle_domains.len() <= 50, "one place a domain");
    world.run_for(1_000);
    assert_eq!(world.received.len(), 2_000);
    assert!(world.scheduler.domains.is_empty());
    assert!(world.scheduler.site_ids.is_empty());
    assert!(world.scheduler.sites.iter().all(Option::is_none));
}

#[test]
fn what_comes_into_a_held_queue_expires_without_a_restart() {
    let mut world = World::new(29, fast());
    ask(&mut world, |reply| Command::Suspend {
        matcher: by_domain("held.example"),
        reason: "test".into(),
        by: "test".into(),
        until: None,
        reply,
    });
    world.tempers.insert("dead.example".into(), dead(1_000_000_000));
    for n in 0..300 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@held.example")]);
        world.submit(1_000 + n, "acme", Marketing, &[&format!("u{n}@dead.example")]);
    }
    world.run_for(4 * 86_400 - 60);
    assert_eq!((world.count(EventKind::Expired), world.waiting()), (0, 600));
    world.run_for(1_800);
    assert_eq!((world.count(EventKind::Expired), world.waiting()), (600, 0));
}

#[test]
fn queues_that_come_and_go_leave_no_timers() {
    let mut world = World::new(30, fast());
    world.tempers.insert("slow.example".into(), Temper { defers: 90, ..Temper::default() });
    for n in 0..2_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 5)]);
        if n % 100 == 0 {
            world.submit(10_000 + n, "acme", Marketing, &["u@slow.example"]);
        }
        world.run_until(world.now.after(Duration::from_millis(500)));
    }
    world.run_for(3_600);
    let timers = world.scheduler.timers.len();
    assert!(timers < 100, "{timers} timers for {} queues", world.scheduler.queues.len());
}

#[test]
fn a_reload_takes_queued_mail_another_way_at_once() {
    let mut config = fast();
    let mut world = World::new(31, config.clone());
    world.tempers.insert("dead.example".into(), dead(1_000_000));
    world.tempers.insert("none.example".into(), Temper { unknown: Some(Severity::Temporary), ..Temper::default() });
    for n in 0..200 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example"), &format!("u{n}@none.example")]);
    }
    world.run_for(100);
    assert_eq!((world.received.len(), world.waiting()), (0, 400));
    world.tempers.remove("none.example");
    for domain in ["dead.example", "none.example"] {
        world.hosts.insert(domain.into(), "mx.live.example".into());
    }
    let route = toml::from_str("hosts = [\"mx.live.example\"]").expect("a route");
    config.routes.insert("*".into(), route);
    world.scheduler.reconfigure(world.now, Arc::new(config));
    world.carry_out();
    world.run_for(20);
    let waited = world.waiting();
    assert!(waited <= 256, "only what has a time of its own waits on: {waited}");
    assert!(world.received.len() >= 144);
}

#[test]
fn slow_queues_do_not_keep_the_windows_from_others() {
    let mut config = fast();
    config.storage.window_entries = 600;
    config.shaping.default.message_rate = Some(Rate { count: 1, per: Duration::from_secs(10) });
    let mut world = World::new(32, config);
    for n in 0..8_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 40)]);
    }
    world.run_for(400);
    world.submit(9_000, "acme", Transactional, &["u@fresh.example"]);
    world.run_for(60);
    assert!(world.received_at.iter().any(|(_, domain, _)| domain.as_str() == "fresh.example"), "it is not starved");
    world.run_for(3_000);
    let served: std::collections::BTreeSet<_> = world.received_at.iter().map(|(_, domain, _)| domain.clone()).collect();
    assert_eq!(served.len(), 41, "each gets its turn");
}

#[test]
fn a_backlog_of_many_queues_is_read_back_once() {
    let mut config = fast();
    // A tenth of what waits: with eight messages for each of 300 queues, all would push each other out.
    config.storage.content_cache = crate::config::ByteSize(192 << 10);
    let mut world = World::new(33, config);
    for domain in 0..300 {
        world.hosts.insert(format!("d{domain}.example"), "mx.one.example".into());
    }
    world.tempers.insert("one.example".into(), dead(5));
    for n in 0..3_000 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 300)]);
    }
    world.run_for(1);
    world.crash();
    world.run_for(3_000);
    assert_eq!(world.received.len(), 3_000);
    let loads = world.scheduler.metrics.loads.get();
    assert!((2_000..4_500).contains(&loads), "{loads} reads of 3,000 messages");
}
