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

/// A config with `[limits]`.
fn limited(toml: &str) -> Config {
    Config { limits: toml::from_str(toml).expect("limits"), ..fast() }
}

fn most_within(times: impl Iterator<Item = Timestamp>, window: Duration) -> usize {
    let mut at: Vec<Timestamp> = times.collect();
    at.sort();
    (0..at.len()).map(|i| at[i..].iter().take_while(|t| t.since(at[i]) < window).count()).max().unwrap_or(0)
}

#[test]
fn limits_of_node_and_tenant_hold_over_all_domains_and_explain_names_them() {
    let mut world = World::new(40, limited("[node]\nmessage_rate = '20/s'\n[tenants.acme]\nmessage_rate = '300/min'"));
    for n in 0..400 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@d{}.example", n % 50)]);
        world.submit(1_000 + n, "other", Marketing, &[&format!("u{n}@d{}.example", n % 50)]);
    }
    world.run_for(10);
    let steps = ask(&mut world, |reply| Command::Explain { matcher: by_domain("d1.example"), limit: 9, reply });
    let steps = steps.into_iter().flat_map(|e| e.steps).collect::<Vec<_>>();
    let tenant = steps.iter().find(|s| s.name == "tenant rate").expect("told");
    assert_eq!(tenant.set_by.as_deref(), Some("limits.tenants.acme.message_rate"));
    assert!(tenant.detail.starts_with("300/min"), "{}", tenant.detail);
    assert!(steps.iter().any(|s| s.name == "node rate"));
    world.run_for(30);
    // Deliveries take up to 20 ms, so a window of the receiver's is that much longer.
    assert!(most_within(world.received_at.iter().map(|(at, ..)| *at), Duration::from_millis(980)) <= 20);
    let of = |tenant| world.events.iter().filter(|e| e.tenant.as_str() == tenant).count();
    let (acme, other) = (of("acme"), of("other"));
    assert!((150..=201).contains(&acme), "five a second of 40 seconds: {acme}");
    assert_eq!(other, 400, "what one tenant may not have, the other gets");
    world.run_for(60);
    assert_eq!((world.received.len(), world.waiting()), (800, 0));
}

#[test]
fn ten_thousand_queues_that_wait_for_a_limit_cost_nothing_a_pass() {
    let mut world = World::new(41, limited("[pools.default]\nmessage_rate = '1/h'"));
    for n in 0..10_000 {
        world.submit(n, "acme", Marketing, &[&format!("u@d{n}.example")]);
    }
    world.run_for(20);
    let before = world.scheduler.totals.steps;
    world.run_for(600);
    let steps = world.scheduler.totals.steps - before;
    assert!(steps < 100, "{steps} steps in ten minutes");
    assert!(world.received.len() <= 1);
}
