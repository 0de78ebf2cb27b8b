//! The whole way, with crashes and whatever else happens.

use super::*;

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
        leaves_until: Timestamp::ZERO,
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
