//! A clock in hand: when an alert begins, is repeated, ends, and does not flap.

use std::time::Duration;

use super::*;
use crate::config::{Alerts, HumanDuration};

const MINUTE: Duration = Duration::from_secs(60);

/// An engine with its clock, looked at once a minute.
struct World {
    engine: Engine,
    config: Alerts,
    now: Timestamp,
    seen: Observed,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_795_456_549_000);
        Self { engine: Engine::default(), config: Alerts::default(), now, seen: Observed::default() }
    }

    /// Looks each minute for so many; answers what was told, as `3 firing bounce_rate acme`.
    fn minutes(&mut self, count: u64) -> Vec<String> {
        let mut told = Vec::new();
        for minute in 0..count {
            for one in self.engine.look(&self.config, &self.seen, self.now) {
                let Alert { name, subject, .. } = &one.alert;
                told.push(format!("{minute} {} {} {subject}", one.telling.as_str(), name.as_str()));
            }
            self.now = self.now.after(MINUTE);
        }
        told
    }

    fn tenant(&mut self, delivered: u64, bounced: u64, complained: u64) {
        let name = Name::parse("acme").expect("a name");
        if self.seen.tenants.is_empty() {
            self.seen.tenants.push((name, TenantCounts::default()));
        }
        let counts = &mut self.seen.tenants[0].1;
        counts.delivered += delivered;
        counts.bounced += bounced;
        counts.complained += complained;
    }

    fn hold(&mut self, is_held: bool) {
        let held = Held {
            source: "ip1".into(),
            provider: "google".into(),
            until: self.now.after(MINUTE),
            reason: "it said so".into(),
        };
        self.seen.held = if is_held { vec![held] } else { Vec::new() };
    }
}

#[test]
fn a_bounce_rate_needs_a_sample_and_names_cause_and_fix() {
    let mut world = World::new();
    world.tenant(100, 99, 0);
    assert!(world.minutes(5).is_empty(), "199 recipients are no sample");
    world.tenant(1, 0, 0);
    assert_eq!(world.minutes(2), ["0 firing bounce_rate acme"]);
    let alerts = world.engine.alerts();
    assert_eq!(alerts[0].summary, "99 of 200 recipients bounced within 1h: 49.5 %, threshold 5.0 %");
    assert!(alerts[0].fix.contains("--tenant acme --event bounced"), "{}", alerts[0].fix);
    assert!(!alerts[0].cause.is_empty());
}

#[test]
fn five_percent_is_not_above_five_percent() {
    let mut world = World::new();
    world.tenant(950, 50, 0);
    assert!(world.minutes(10).is_empty());
    world.tenant(0, 1, 0);
    assert_eq!(world.minutes(1), ["0 firing bounce_rate acme"]);
}

#[test]
fn a_late_bounce_counts_once_in_the_whole() {
    let mut world = World::new();
    world.tenant(1_000, 0, 0);
    world.seen.tenants[0].1.late_bounces = 51;
    assert_eq!(world.minutes(1), ["0 firing bounce_rate acme"]);
    assert!(world.engine.alerts()[0].summary.starts_with("51 of 1000 recipients"));
}

#[test]
fn three_complaints_in_a_thousand_are_too_many() {
    let mut world = World::new();
    world.tenant(1_000, 0, 3);
    assert!(world.minutes(3).is_empty());
    world.tenant(0, 0, 1);
    assert_eq!(world.minutes(1), ["0 firing complaint_rate acme"]);
    assert!(world.engine.alerts()[0].summary.contains("0.40 %, threshold 0.30 %"));
}

#[test]
fn a_rate_that_leaves_the_window_ends_its_alert() {
    let mut world = World::new();
    world.tenant(100, 100, 0);
    assert_eq!(world.minutes(1), ["0 firing bounce_rate acme"]);
    // The window is an hour, and it must be good for five minutes: not enough mail is good once the window is full.
    let told = world.minutes(90);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("resolved bounce_rate acme"));
    let minute: u64 = told[0].split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!((60..=70).contains(&minute), "{told:?}");
    assert!(world.engine.alerts().is_empty());
}

#[test]
fn a_value_around_the_threshold_does_not_flap() {
    let mut world = World::new();
    let disk = |free| Some(Disk { free, total: 1_000 << 20, min_free: 0 });
    world.seen.disk = disk(99 << 20);
    assert_eq!(world.minutes(1), ["0 firing disk_free node"]);
    for _ in 0..100 {
        world.seen.disk = disk(101 << 20);
        assert!(world.minutes(6).is_empty(), "a little better is not good");
        world.seen.disk = disk(99 << 20);
        assert!(world.minutes(1).is_empty(), "it was told");
    }
}

#[test]
fn a_good_value_must_last_and_the_same_alert_rests() {
    let mut world = World::new();
    let disk = |free| Some(Disk { free, total: 1_000 << 20, min_free: 0 });
    world.seen.disk = disk(50 << 20);
    assert_eq!(world.minutes(1), ["0 firing disk_free node"]);
    world.seen.disk = disk(500 << 20);
    assert!(world.minutes(4).is_empty(), "four good minutes");
    world.seen.disk = disk(50 << 20);
    assert!(world.minutes(1).is_empty(), "bad again: nothing new");
    world.seen.disk = disk(500 << 20);
    assert_eq!(world.minutes(7), ["5 resolved disk_free node"]);
    world.seen.disk = disk(50 << 20);
    let told = world.minutes(100);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("firing disk_free node"));
    let minute: u64 = told[0].split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!((45..=50).contains(&minute), "an hour after it was told first: {told:?}");
}

#[test]
fn an_alert_that_goes_on_is_repeated_by_its_time() {
    let mut world = World::new();
    world.config.repeat = HumanDuration::secs(6 * 3_600);
    world.seen.disk = Some(Disk { free: 1, total: 1_000, min_free: 0 });
    let told = world.minutes(24 * 60);
    let repeated = told.iter().filter(|told| told.contains("repeated")).count();
    assert_eq!((told.len(), repeated), (4, 3), "{told:?}");
    world.config.repeat = HumanDuration::secs(0);
    assert!(world.minutes(48 * 60).is_empty(), "once, and no more");
}

#[test]
fn space_below_what_intake_needs_is_told_whatever_the_share() {
    let mut world = World::new();
    world.seen.disk = Some(Disk { free: 900 << 20, total: 1_000 << 20, min_free: 1 << 30 });
    assert_eq!(world.minutes(1), ["0 firing disk_free node"]);
}

#[test]
fn a_source_is_told_when_its_hold_lasts() {
    let mut world = World::new();
    world.hold(true);
    assert!(world.minutes(15).is_empty());
    assert_eq!(world.engine.alerts()[0].state, AlertState::Pending);
    assert_eq!(world.minutes(1), ["0 firing source_held ip1 to google"]);
    world.hold(false);
    assert_eq!(world.minutes(10), ["5 resolved source_held ip1 to google"]);
    // A short pause is how every provider is met: it is none.
    let mut world = World::new();
    for _ in 0..50 {
        world.hold(true);
        assert!(world.minutes(5).is_empty());
        world.hold(false);
        assert!(world.minutes(1).is_empty());
    }
}

#[test]
fn deferrals_are_judged_by_source_and_provider() {
    let mut world = World::new();
    let path = |provider: &str, attempts, deferred| PathCounts {
        source: "ip1".into(),
        provider: provider.into(),
        attempts,
        deferred,
    };
    world.seen.paths = vec![path("google", 1_000, 501), path("yahoo", 1_000, 500), path("apple", 150, 150)];
    assert_eq!(world.minutes(3), ["0 firing deferral_rate ip1 to google"]);
    assert!(world.engine.alerts()[0].cause.starts_with("google slows ip1 down"));
}

#[test]
fn mail_that_is_due_for_hours_and_failing_webhooks_are_told() {
    let mut world = World::new();
    let name = |text| Name::parse(text).expect("a name");
    world.seen.overdue = Some(Overdue {
        since: world.now,
        tenant: name("acme"),
        domain: "far.example".into(),
        count: 7,
        held_by: Some("no source".into()),
    });
    let failing = FailingEndpoint { name: name("crm"), tenant: None, since: world.now, error: "500".into() };
    world.seen.webhooks = vec![failing];
    let told = world.minutes(250);
    assert_eq!(told, ["60 firing webhook_failing crm", "241 firing queue_age node"]);
    let alerts = world.engine.alerts();
    let age = alerts.iter().find(|a| a.name == AlertName::QueueAge).expect("it fires");
    assert_eq!(age.cause, "It waits for: no source.");
    assert_eq!(age.fix, "posthaste queue explain --domain far.example says which limit, and where it is set.");
}

#[test]
fn a_restart_tells_nothing_twice() {
    let mut world = World::new();
    world.tenant(100, 100, 0);
    let told = world.engine.look(&world.config, &world.seen, world.now);
    let record = told[0].record.clone().expect("it is kept");
    let json = serde_json::to_vec(&record).expect("JSON");
    world.engine = Engine::restored([serde_json::from_slice::<Record>(&json).expect("the same")]);
    world.seen.tenants[0].1 = TenantCounts::default();
    assert!(world.minutes(30).is_empty(), "nothing is known yet, so it goes on as it was");
    assert_eq!(world.engine.alerts().len(), 1);
    let told = world.minutes(60);
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("resolved bounce_rate acme"), "{told:?}");
}

#[test]
fn a_threshold_of_zero_is_off_and_so_is_the_whole() {
    let mut world = World::new();
    world.config = Alerts { bounce_rate: 0.0, disk_free: 0.0, ..Alerts::default() };
    world.tenant(100, 100, 0);
    world.seen.disk = Some(Disk { free: 1, total: 1_000, min_free: 0 });
    assert!(world.minutes(10).is_empty());
    world.config = Alerts { enabled: false, ..Alerts::default() };
    assert!(world.minutes(10).is_empty());
}

#[test]
fn the_number_of_alerts_is_bounded() {
    let mut world = World::new();
    world.seen.stopped = (0..5_000).map(|id| Stopped { id, tenant: None, reason: "blocked".into() }).collect();
    assert_eq!(world.minutes(1).len(), ALERTS_MAX);
    assert_eq!(world.engine.alerts().len(), ALERTS_MAX);
}
