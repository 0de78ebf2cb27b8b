//! What is in memory, and what it costs.

use super::*;

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
        rows.push(QueueRow {
            id: QueueId(1_000_000 + n),
            key,
            next_due: due,
            count: 1,
            bytes: 1,
            oldest: START,
            rows: None,
        });
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

/// After a full channel the counts once read 0 with mail queued, and a reload could then remove its tenant.
#[test]
fn counts_are_right_again_after_news_were_not_told() {
    let mut world = World::new(41, fast());
    world.tempers.insert("dead.example".into(), dead(100_000));
    world.submit(0, "acme", Marketing, &["first@dead.example"]);
    world.run_for(30);
    world.channel_full = true;
    for n in 1..=300 {
        world.submit(n, "acme", Marketing, &[&format!("u{n}@dead.example"), &format!("u{n}@live.example")]);
        world.run_until(world.now.after(Duration::from_millis(10)));
    }
    world.channel_full = false;
    world.submit(900, "acme", Marketing, &["last@dead.example"]);
    world.run_for(30);
    let usage = ask(&mut world, |reply| Command::Usage { reply });
    let queued: u64 = usage.iter().map(|(_, _, count)| count).sum();
    assert_eq!((queued, world.waiting()), (302, 302), "{usage:?}");
    assert_eq!(world.scheduler.totals.recipients, 302);
    assert_eq!(world.count(EventKind::Delivered), 300);
    world.tempers.remove("dead.example");
    world.run_for(3 * 3_600);
    assert_eq!((world.waiting(), world.scheduler.totals.recipients, world.scheduler.totals.bytes), (0, 0, 0));
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
