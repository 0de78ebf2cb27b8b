//! Limits, shares and turns.

use super::*;

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
