//! Campaigns: rows that run, pause, restart, end; rates, priorities, and what their events say.

use super::*;
use crate::config::Rate;
use crate::delivery::{RENDERING, SUPPRESSED};
use crate::queue::admin::{CampaignControl, Hold, HoldKind};
use crate::types::{CampaignNo, RowId};

const DAYS_4: Duration = Duration::from_secs(4 * 86_400);

fn addresses(n: usize, domains: usize) -> Vec<String> {
    (0..n).map(|i| format!("u{i}@d{}.example", i % domains)).collect()
}

fn free(name: &str) -> CampaignControl {
    CampaignControl::free(testing::name("acme"), testing::name(name))
}

fn paused(name: &str) -> CampaignControl {
    let hold = Hold { reason: "wrong subject".into(), kind: HoldKind::Paused, until: None };
    CampaignControl { hold: Some(hold), ..free(name) }
}

fn per_second(name: &str, count: u32) -> CampaignControl {
    CampaignControl { rate: Some(Rate { count, per: Duration::from_secs(1) }), ..free(name) }
}

/// Sets it as the campaign engine does: kept for a restart, and told at once. Answers what is in flight.
fn set(world: &mut World, control: CampaignControl) -> u64 {
    world.controls.retain(|c| c.campaign != control.campaign);
    world.controls.push(control.clone());
    let (reply, mut answer) = oneshot::channel();
    assert!(world.scheduler.command(world.now, Command::SetCampaign { control, reply }).is_none());
    world.carry_out();
    answer.try_recv().expect("answered at once").expect("carried out")
}

fn of_campaign(name: &str) -> Matcher {
    Matcher { tenant: Some(testing::name("acme")), campaign: Some(testing::name(name)), ..Matcher::default() }
}

fn explained(world: &mut World, name: &str) -> Explanation {
    let matcher = of_campaign(name);
    ask(world, |reply| Command::Explain { matcher, limit: 1, reply }).remove(0)
}

fn no(message: MessageId) -> Option<u32> {
    RowId::of(message).map(|row| row.campaign.0)
}

fn assert_nothing_is_left(world: &World) {
    let s = &world.scheduler;
    assert_eq!((s.totals.recipients, s.totals.window, s.totals.unsettled, s.totals.bytes), (0, 0, 0, 0));
    assert!(s.taken.is_empty() && s.queues.is_empty(), "{:?}", s.queues.values().next());
}

/// Given out per window of the rate's length, at the most.
fn most_in_a_window(world: &World, of: u32, window: Duration) -> usize {
    let at: Vec<Timestamp> = world.given.iter().filter(|(_, m)| no(*m) == Some(of)).map(|(at, _)| *at).collect();
    let count = |i: usize| at[i..].iter().take_while(|t| t.since(at[i]) < window).count();
    (0..at.len()).map(count).max().unwrap_or(0)
}

#[test]
fn rows_are_sent_only_while_their_campaign_runs_and_each_once() {
    let mut world = World::new(50, fast());
    world.upload(1, "spring", &addresses(1_000, 7), 1);
    world.run_for(60);
    world.crash();
    world.run_for(60);
    assert_eq!((world.received.len(), world.scheduler.totals.recipients), (0, 0), "nothing before the start");
    world.run_campaign(1, true, DAYS_4);
    world.run_for(60);
    assert_eq!((world.count(EventKind::Delivered), world.received.len()), (1_000, 1_000));
    assert!(world.received.values().all(|n| *n == 1));
    let event = world.events.iter().find(|e| e.event == EventKind::Delivered).expect("delivered");
    assert_eq!(event.message_id.and_then(no), Some(1));
    assert_eq!((event.size, event.campaign.as_ref().map(|c| c.as_str())), (Some(1_120), Some("spring")));
    assert_eq!(event.tags, [testing::name("news")]);
    assert!(event.metadata.is_some() && event.recipient.is_some());
    // Told again, it changes nothing.
    world.run_campaign(1, true, DAYS_4);
    world.run_campaign(1, false, DAYS_4);
    world.run_campaign(1, false, DAYS_4);
    world.run_for(60);
    assert_eq!(world.received.len(), 1_000);
    assert_nothing_is_left(&world);
}

#[test]
fn slots_are_due_by_quarter_hours_and_rows_expire_by_their_run() {
    let mut world = World::new(51, fast());
    world.upload(1, "spring", &addresses(300, 3), 3);
    world.tempers.insert("d0.example".into(), Temper { defers: 100, ..Temper::default() });
    world.run_campaign(1, true, Duration::from_secs(7_200));
    world.run_for(60);
    assert_eq!(world.received.len(), 0, "the first slot is d0's alone");
    world.run_for(900);
    assert_eq!(world.received.len(), 100);
    world.run_for(900);
    assert_eq!(world.received.len(), 200);
    world.run_for(6_000);
    assert_eq!((world.count(EventKind::Expired), world.waiting()), (100, 0));
    assert!(world.recorder.told.borrow().is_empty(), "a campaign makes no notifications");
    assert_nothing_is_left(&world);
}

#[test]
fn a_pause_gives_nothing_more_out_survives_a_restart_and_says_why() {
    let mut world = World::new(52, fast());
    world.upload(1, "spring", &addresses(5_000, 5), 1);
    world.run_campaign(1, true, DAYS_4);
    world.run_until(world.now.after(Duration::from_millis(400)));
    let before = world.given.len();
    assert!((100..4_000).contains(&before), "{before}");
    let in_flight = set(&mut world, paused("spring"));
    assert_eq!(in_flight, u64::from(world.scheduler.totals.in_flight));
    assert!(in_flight > 0);
    world.submit(1, "acme", Marketing, &["other@d1.example"]);
    world.run_for(100);
    assert_eq!(world.given.len(), before + 1, "only what is not of the campaign");
    assert_eq!(set(&mut world, paused("spring")), 0, "asked again it only counts");
    world.crash();
    world.run_for(100);
    assert_eq!(world.given.len(), before + 1, "it holds after a restart");
    let said = explained(&mut world, "spring");
    assert_eq!(said.verdict, "waits: paused: wrong subject");
    assert!(said.steps.iter().any(|s| s.name == "campaign" && !s.pass));
    set(&mut world, free("spring"));
    world.run_for(60);
    assert_eq!((world.received.len(), world.waiting()), (5_001, 0));
    assert!(world.received.values().all(|n| *n == 1), "a resume repeats none");
    assert_nothing_is_left(&world);
}

#[test]
fn a_window_opens_by_itself() {
    let mut world = World::new(53, fast());
    let until = after(600);
    let hold = Hold { reason: "08:00 to 20:00".into(), kind: HoldKind::Window, until: Some(until) };
    set(&mut world, CampaignControl { hold: Some(hold), ..free("spring") });
    world.upload(1, "spring", &addresses(50, 2), 1);
    world.run_campaign(1, true, DAYS_4);
    world.run_for(500);
    let said = explained(&mut world, "spring");
    assert_eq!((said.queue.held_by, said.queue.held_until), (Some(format!("window: opens at {until}")), Some(until)));
    assert_eq!(world.received.len(), 0);
    world.run_for(120);
    assert_eq!(world.received.len(), 50);
}

#[test]
fn what_is_paused_expires() {
    let mut world = World::new(54, fast());
    world.upload(1, "spring", &addresses(40, 2), 1);
    set(&mut world, paused("spring"));
    world.run_campaign(1, true, Duration::from_secs(5_400));
    world.run_for(5_000);
    assert_eq!(world.count(EventKind::Expired), 0);
    world.run_for(600);
    assert_eq!((world.count(EventKind::Expired), world.given.len()), (40, 0));
    set(&mut world, free("spring"));
    world.run_for(1);
    assert_nothing_is_left(&world);
}

#[test]
fn rows_that_were_never_tried_go_with_the_end_of_their_run() {
    let mut world = World::new(55, fast());
    world.upload(1, "spring", &addresses(4_000, 4), 1);
    world.tempers.insert("d0.example".into(), Temper { defers: 50, latency_ms: 20, ..Temper::default() });
    world.run_campaign(1, true, DAYS_4);
    world.run_until(world.now.after(Duration::from_millis(400)));
    world.run_campaign(1, false, DAYS_4);
    world.run_until(world.now.after(Duration::from_millis(10)));
    let given = world.given.len();
    assert!(given < 3_000);
    world.run_for(10);
    assert_eq!(world.given.len(), given, "nothing is given out after the end");
    let retries = world.count(EventKind::Deferred);
    assert_eq!((world.waiting(), world.scheduler.totals.recipients), (retries, retries as u64));
    world.tempers.clear();
    world.run_for(3_600);
    assert_eq!((world.count(EventKind::Delivered), world.waiting()), (given, 0), "what was tried goes on");
    assert_eq!(world.campaigns[&CampaignNo(1)].dropped.len(), 4_000 - given);
    assert_nothing_is_left(&world);
}

#[test]
fn a_row_given_back_untried_after_the_end_of_its_run_is_not_sent() {
    let mut world = World::new(65, fast());
    world.upload(1, "spring", &addresses(400, 4), 1);
    world.run_campaign(1, true, DAYS_4);
    world.run_until(world.now.after(Duration::from_millis(80)));
    world.run_campaign(1, false, DAYS_4);
    world.run_until(world.now.after(Duration::from_millis(4)));
    let (given, in_flight) = (world.given.len(), world.scheduler.totals.in_flight);
    assert!(in_flight > 0 && given < 400, "{in_flight} of {given}");
    world.not_tried = 1_000;
    world.run_for(10);
    assert_eq!((world.given.len(), world.not_tried), (given, 1_000 - in_flight));
    world.run_for(60);
    assert_nothing_is_left(&world);
}

#[test]
fn a_cancel_takes_out_what_waits_for_another_attempt() {
    let mut world = World::new(56, fast());
    world.upload(1, "spring", &addresses(400, 4), 1);
    world.tempers.insert("d0.example".into(), Temper { defers: 100, latency_ms: 20, ..Temper::default() });
    world.run_campaign(1, true, DAYS_4);
    world.run_for(20);
    assert_eq!((world.count(EventKind::Deferred), world.waiting()), (100, 100));
    world.run_campaign(1, false, DAYS_4);
    world.run_for(1);
    let cancel = |reply| Command::Cancel {
        matcher: of_campaign("spring"),
        reason: "wrong list".into(),
        by: "test".into(),
        reply,
    };
    assert_eq!(ask(&mut world, cancel).recipients, 100);
    world.run_for(10);
    assert_eq!((world.count(EventKind::Cancelled), world.count(EventKind::Purged), world.waiting()), (100, 0, 0));
    assert!(world.state.is_empty());
    world.run_for(60);
    assert_nothing_is_left(&world);
}

#[test]
fn a_mark_of_a_time_before_campaigns_is_a_purge() {
    let old =
        r#"{"id":7,"match":{},"kind":{"purge":{"reason":"old"}},"by":"ops","created":"2026-11-23T00:00:00.000Z"}"#;
    let created = serde_json::to_value(START).expect("a time");
    let old = old.replace("\"2026-11-23T00:00:00.000Z\"", &created.to_string());
    let mut world = World::new(57, fast());
    world.tempers.insert("dead.example".into(), dead(1_000));
    world.submit(1, "acme", Marketing, &["u@dead.example"]);
    world.run_for(1);
    let old = old.replace(&created.to_string(), &serde_json::to_string(&world.now).expect("a time"));
    world.state.insert(b"mark/00000000000000000007".to_vec(), old.into_bytes());
    world.crash();
    world.run_for(5);
    assert_eq!((world.count(EventKind::Purged), world.waiting()), (1, 0));
}

#[test]
fn retry_reroute_and_purge_work_on_rows() {
    let mut config = fast();
    let source = Source { name: testing::name("a"), address: None, ehlo: None, connections: None, message_rate: None };
    config.sources = vec![source];
    let member = |weight| PoolSource { name: testing::name("a"), weight };
    config.pools = vec![
        Pool { name: testing::name("default"), sources: vec![member(1)] },
        Pool { name: testing::name("other"), sources: vec![member(1)] },
        Pool { name: testing::name("none"), sources: vec![member(0)] },
    ];
    let mut world = World::new(58, config);
    world.upload(1, "spring", &addresses(60, 1), 2);
    world.run_campaign(1, true, DAYS_4);
    world.run_for(10);
    assert_eq!(world.received.len(), 30);
    ask(&mut world, |reply| Command::Retry { matcher: of_campaign("spring"), reply });
    world.run_for(10);
    assert_eq!(world.received.len(), 60, "what is due by another slot goes when somebody says so");
    world.upload(2, "summer", &addresses(40, 1), 2);
    set(&mut world, paused("summer"));
    world.run_campaign(2, true, DAYS_4);
    world.run_for(1);
    let to = |pool: &str| {
        let (pool, matcher) = (testing::name(pool), of_campaign("summer"));
        move |reply| Command::Reroute { matcher, pool, by: "test".into(), reply }
    };
    ask(&mut world, to("none"));
    world.run_for(10);
    assert_eq!((world.count(EventKind::Rerouted), world.waiting()), (40, 40));
    set(&mut world, free("summer"));
    // They are entries now, which the end of the run leaves alone.
    world.run_campaign(2, false, DAYS_4);
    world.run_for(2_000);
    assert_eq!((world.received.len(), world.waiting()), (60, 40));
    ask(&mut world, to("other"));
    world.run_for(10);
    assert_eq!((world.received.len(), world.waiting()), (100, 0));
    assert_nothing_is_left(&world);
}

#[test]
fn a_rate_is_never_exceeded_nearly_reached_and_slows_nobody_else() {
    let mut world = World::new(59, fast());
    world.upload(1, "spring", &addresses(3_000, 150), 1);
    world.upload(2, "summer", &addresses(6_000, 150), 1);
    set(&mut world, per_second("spring", 40));
    world.run_campaign(1, true, DAYS_4);
    world.run_campaign(2, true, DAYS_4);
    world.run_for(20);
    let of = |world: &World, n| world.given.iter().filter(|(_, m)| no(*m) == Some(n)).count();
    let sent = of(&world, 1);
    assert!((792..=800).contains(&sent), "40/s for 20 s: {sent}");
    assert_eq!(of(&world, 2), 6_000, "the other one is not paced");
    let last = world.given.iter().filter(|(_, m)| no(*m) == Some(2)).map(|(at, _)| *at).max().expect("sent");
    assert!(last < after(10), "{last}");
    let said = explained(&mut world, "spring");
    assert!(said.verdict.starts_with("waits: rate 40/s of campaign spring, until"), "{}", said.verdict);
    assert!(said.steps.iter().any(|s| s.name == "campaign rate" && s.detail.starts_with("40/s, next at ")));
    world.crash();
    world.run_for(20);
    set(&mut world, per_second("spring", 20));
    world.run_for(20);
    assert!(most_in_a_window(&world, 1, Duration::from_secs(1)) <= 40);
    set(&mut world, free("spring"));
    world.run_for(60);
    assert_eq!((world.received.len(), world.waiting()), (9_000, 0));
    assert!(world.received.values().all(|n| *n <= 2), "a crash repeats what was in flight");
    assert_nothing_is_left(&world);
}

#[test]
fn a_slow_rate_opens_no_connections_in_vain_and_slow_hosts_keep_no_turns() {
    let mut world = World::new(60, fast());
    world.upload(1, "spring", &addresses(2_000, 1_000), 1);
    for n in 0..300 {
        world.tempers.insert(format!("d{n}.example"), dead(100_000));
    }
    set(&mut world, per_second("spring", 5));
    world.run_campaign(1, true, DAYS_4);
    let steps = world.scheduler.steps();
    world.run_for(300);
    let live = world.received.len();
    assert!(live >= 1_000, "the hosts that are dead do not use the rate up: {live}");
    assert!(most_in_a_window(&world, 1, Duration::from_secs(1)) <= 5);
    // One a message, and four a dead host by its back-off.
    assert!(world.opens < 1_500 + 4 * 300 + 100, "{}", world.opens);
    let steps = world.scheduler.steps() - steps;
    assert!(steps < 200_000, "{steps}");
}

#[test]
fn slow_openings_cost_few_connections_that_find_nothing_left() {
    let mut world = World::new(64, fast());
    world.connect_ms = 4_000;
    world.upload(1, "spring", &addresses(2_000, 2_000), 1);
    set(&mut world, per_second("spring", 5));
    world.run_campaign(1, true, DAYS_4);
    world.run_for(100);
    let sent = world.given.len();
    assert!((440..=500).contains(&sent), "5/s for 100 s: {sent}");
    let sites = world.connections_max.len();
    assert!(sites <= sent + 30, "{sites} sites were connected to for {sent} messages");
    assert!(most_in_a_window(&world, 1, Duration::from_secs(1)) <= 5);
}

#[test]
fn one_large_queue_reaches_its_rate() {
    let mut world = World::new(61, fast());
    world.tempers.insert("d0.example".into(), Temper { latency_ms: 80, ..Temper::default() });
    world.upload(1, "spring", &addresses(6_000, 1), 1);
    set(&mut world, per_second("spring", 100));
    world.run_campaign(1, true, DAYS_4);
    world.run_for(30);
    let sent = world.given.len();
    assert!((2_970..=3_000).contains(&sent), "100/s for 30 s: {sent}");
    assert!(most_in_a_window(&world, 1, Duration::from_secs(1)) <= 100);
}

#[test]
fn a_priority_is_a_share_of_a_site() {
    let mut config = fast();
    config.shaping.default.connections = Some(1);
    let mut world = World::new(62, config);
    world.upload(1, "spring", &addresses(4_000, 1), 1);
    world.upload(2, "summer", &addresses(4_000, 1), 1);
    set(&mut world, CampaignControl { priority: 9, ..free("spring") });
    set(&mut world, CampaignControl { priority: 3, ..free("summer") });
    world.run_campaign(1, true, DAYS_4);
    world.run_campaign(2, true, DAYS_4);
    while world.given.len() < 1_000 {
        world.run_until(world.now.after(Duration::from_millis(50)));
    }
    let first = world.given.iter().filter(|(_, m)| no(*m) == Some(1)).count();
    let share = first as f64 / world.given.len() as f64;
    assert!((0.84..=0.93).contains(&share), "32 against 4: {share}");
}

#[test]
fn what_is_not_to_be_sent_ends_without_an_attempt_and_says_nothing_of_the_host() {
    let mut world = World::new(63, fast());
    world.upload(1, "spring", &addresses(90, 3), 1);
    world.unsent.insert("d0.example".into(), SUPPRESSED);
    world.unsent.insert("d1.example".into(), RENDERING);
    world.run_campaign(1, true, DAYS_4);
    world.run_for(10);
    let counts = [EventKind::Suppressed, EventKind::RenderingFailed, EventKind::Delivered].map(|k| world.count(k));
    assert_eq!((counts, world.waiting()), ([30, 30, 30], 0));
    let event = world.events.iter().find(|e| e.event == EventKind::Suppressed).expect("there");
    assert_eq!(event.reason.as_deref(), Some("not for this address"));
    assert!(event.remote.is_none() && event.mx.is_none() && event.attempt.is_none() && event.smtp.is_none());
    assert!(event.metadata.is_some() && event.recipient.is_some());
    assert_eq!((world.scheduler.metrics.suppressed.get(), world.scheduler.metrics.rendering_failed.get()), (30, 30));
    assert!(world.recorder.told.borrow().is_empty());
    assert_nothing_is_left(&world);
}

/// Runs a campaign through whatever the dice say; each row ends once, or was never tried when its run ended.
fn campaign_chaos(seed: u64) {
    let mut config = fast();
    config.storage.window_entries = [1_000, 300, 100_000][seed as usize % 3];
    config.delivery.max_unsettled = [64, 5, 256][seed as usize % 3];
    config.retry.schedule = vec![HumanDuration::secs(30), HumanDuration::secs(120)];
    let mut world = World::new(seed, config);
    let mut dice = Seeded::new(seed);
    let temper = |defers, refuses, secs| Temper {
        dead_until: after(secs),
        defers,
        refuses,
        latency_ms: 60,
        ..Temper::default()
    };
    world.tempers.insert("d1.example".into(), temper(30, 5, 0));
    world.tempers.insert("d2.example".into(), temper(10, 0, 300));
    world.unsent.insert("d3.example".into(), SUPPRESSED);
    world.upload(1, "spring", &addresses(3_000, 12), 2);
    world.run_campaign(1, true, DAYS_4);
    let mut crashes = 0;
    for _ in 0..60 {
        match dice.below(12) {
            0 => {
                // What was committed is there again; a start that was not yet is told again.
                crashes += 1;
                world.crash();
                world.run_campaign(1, true, DAYS_4);
            }
            1 | 2 => drop(set(&mut world, paused("spring"))),
            3 => drop(set(&mut world, per_second("spring", 1 + dice.below(200) as u32))),
            4 | 5 => drop(set(&mut world, free("spring"))),
            6 => world.not_tried = 3,
            _ => {}
        }
        world.run_until(world.now.after(Duration::from_millis(1 + dice.below(1_500))));
    }
    let ends = seed.is_multiple_of(2);
    if ends {
        world.run_campaign(1, false, DAYS_4);
    }
    set(&mut world, free("spring"));
    world.run_until(after(5 * 86_400));
    let endings = world.endings();
    let dropped = world.campaigns[&CampaignNo(1)].dropped.len();
    assert_eq!((endings.len() + dropped, world.waiting()), (3_000, 0), "seed {seed}");
    assert!(ends || dropped == 0, "seed {seed}");
    assert!(endings.values().all(|kinds| kinds.len() == 1), "seed {seed}: each ends once");
    let duplicates: u32 = world.received.values().map(|n| n - 1).sum();
    assert!(duplicates <= crashes * (world.config.delivery.max_unsettled + 80), "seed {seed}: {duplicates}");
    assert_nothing_is_left(&world);
}

#[test]
fn every_row_ends_once_whatever_happens() {
    (0..12).for_each(campaign_chaos);
}

#[test]
fn a_page_does_not_pass_over_the_rows_that_are_done() {
    let mut config = fast();
    // Room for a part of the queues only: windows give way to each other all the time, and are read again.
    config.storage.window_entries = 1_024;
    let mut world = World::new(67, config);
    for domain in 0..40 {
        world.hosts.insert(format!("d{domain}.example"), "mx.one.example".into());
    }
    world.upload(1, "spring", &addresses(12_000, 40), 1);
    world.run_campaign(1, true, DAYS_4);
    world.run_for(600);
    assert_eq!(world.received.len(), 12_000);
    let passed = world.passed_over.get();
    assert!(passed < 100, "{passed} rows that were done were looked at again");
    assert_nothing_is_left(&world);
}
