//! What operators ask.

use super::*;

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

/// A purge that met a failed read once forgot the queue, and its mark, with the rest of the mail still there.
#[test]
fn a_purge_survives_reads_that_fail_and_messages_that_cannot_be_read() {
    let mut world = World::new(31, fast());
    world.tempers.insert("dead.example".into(), dead(100_000));
    let mut broken = None;
    for n in 0..1_000 {
        broken = Some(world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example")]));
    }
    world.run_for(30);
    // After a crash no message is in memory any more.
    world.crash();
    world.unreadable = broken;
    world.bad_pages = 4;
    ask(&mut world, |reply| Command::Purge {
        matcher: by_domain("dead.example"),
        reason: "wrong list".into(),
        by: "test".into(),
        reply,
    });
    world.run_for(2);
    assert!(world.bad_pages < 4, "a read has failed");
    assert!(world.state.keys().any(|k| k.starts_with(b"mark/")), "the mark outlives a failed read");
    world.run_for(60);
    assert_eq!((world.bad_pages, world.count(EventKind::Purged), world.waiting()), (0, 1_000, 0));
    assert!(world.state.is_empty(), "the mark is gone with its work");
    let bare: Vec<_> = world.events.iter().filter(|e| e.event == EventKind::Purged && e.recipient.is_none()).collect();
    assert_eq!(bare.len(), 1);
    assert_eq!(bare[0].message_id, broken);
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

/// The second order once made a second suspension, and a resume of the first left the mail held.
#[test]
fn the_same_suspension_twice_is_one_with_the_later_end() {
    let mut world = World::new(42, fast());
    let suspend = |reason: &str, until: Option<Timestamp>| {
        let (matcher, reason) = (by_domain("a.example"), reason.to_owned());
        move |reply| Command::Suspend { matcher, reason, by: "test".into(), until, reply }
    };
    let first = ask(&mut world, suspend("maintenance", Some(after(60))));
    let second = ask(&mut world, suspend("it takes longer", None));
    assert_eq!((first.id, second.since, &*second.reason), (second.id, first.since, "it takes longer"));
    assert_eq!(world.state.len(), 1);
    let (one, mut early) = oneshot::channel();
    let (two, mut late) = oneshot::channel();
    let now = world.now;
    for reply in [one, two] {
        let matcher = by_domain("b.example");
        let command = Command::Suspend { matcher, reason: "x".into(), by: "test".into(), until: None, reply };
        assert!(world.scheduler.command(now, command).is_none());
    }
    world.carry_out();
    world.run_for(120);
    let ids = [&mut early, &mut late].map(|r| r.try_recv().expect("answered").expect("carried out").id);
    assert_eq!(ids[0], ids[1], "also while the first is on its way to the disk");
    world.submit(1, "acme", Marketing, &["u@a.example"]);
    world.run_for(120);
    assert_eq!((world.waiting(), world.scheduler.suspensions.len()), (1, 2), "the first end does not count any more");
    ask(&mut world, |reply| Command::Resume { id: None, matcher: Some(by_domain("a.example")), reply });
    world.run_for(60);
    assert_eq!((world.waiting(), world.state.len()), (0, 1));
}

#[test]
fn trouble_is_what_nobody_wanted() {
    let mut config = fast();
    config.alerts.minimum = 3;
    let mut world = World::new(21, config);
    let trouble = |world: &mut World| ask(world, |reply| Command::Trouble { reply });
    assert!(trouble(&mut world).overdue.is_none());
    // What an operator holds is as he wants it, however long.
    let _held: Suspension = ask(&mut world, |reply| Command::Suspend {
        matcher: by_domain("a.example"),
        reason: "blocked".into(),
        by: "test".into(),
        until: None,
        reply,
    });
    world.submit(1, "acme", Transactional, &["u@a.example"]);
    world.run_for(600);
    assert_eq!(world.waiting(), 1);
    let seen = trouble(&mut world);
    assert!(seen.overdue.is_none() && seen.held.is_empty() && seen.stopped.is_empty(), "{seen:?}");
}

#[test]
fn mail_that_is_due_and_limited_is_overdue_and_names_its_limit() {
    let mut config = fast();
    config.sources = vec![Source {
        name: testing::name("ip1"),
        address: None,
        ehlo: None,
        connections: None,
        message_rate: Some(Rate { count: 1, per: Duration::from_secs(60) }),
    }];
    let mut world = World::new(22, config);
    for n in 0..20 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@a.example")]);
    }
    world.run_for(300);
    assert!(world.waiting() > 10);
    let seen: crate::queue::admin::Trouble = ask(&mut world, |reply| Command::Trouble { reply });
    let overdue = seen.overdue.expect("it is due for minutes");
    assert_eq!(overdue.key.domain.as_str(), "a.example");
    assert!(overdue.held_by.expect("a limit").contains("rate"));
}
