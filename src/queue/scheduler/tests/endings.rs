//! How recipients end: retries, expiry, reports, damage.

use super::*;

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
