//! The engine over a store in memory: what is committed, told to the scheduler, and left after a restart.

use std::sync::atomic::Ordering;

use super::super::job::{Format, parse};
use super::super::model::Counts;
use super::super::ports::*;
use super::testing::{World, job, name};
use super::*;

#[tokio::test]
async fn the_same_job_twice_is_one_campaign_and_another_job_is_refused() {
    let w = World::new().await;
    let first = w.create(job("id = \"spring\"")).await.expect("created");
    assert!(first.new);
    let again = w.create(job("id = \"spring\"")).await.expect("the same");
    assert_eq!((again.new, again.record.no), (false, first.record.no));
    let other = w.create(job("id = \"spring\"\npriority = 9\ntags = [\"x\"]")).await.expect_err("another job");
    assert_eq!(other.to_string(), "campaign spring exists with another job: priority, tags differ");
    // Without an id each is a campaign of its own.
    let (a, b) = (w.create(job("")).await.expect("a"), w.create(job("")).await.expect("b"));
    assert_ne!(a.record.id, b.record.id);
    // After a restart, too; and numbers go on.
    let w = w.restart().await;
    assert!(!w.create(job("id = \"spring\"")).await.expect("the same").new);
    assert!(w.create(job("id = \"new\"")).await.expect("new").record.no > b.record.no);
}

#[tokio::test]
async fn a_job_is_checked_against_the_configuration_and_its_templates() {
    let w = World::new().await;
    let text = "from = \"x@stranger.example\"\nsubject = \"{{ broken\"\ntext = \"t\"\npool = \"none\"";
    let error = w.create(parse(text, Format::Toml).expect("well-formed")).await.expect_err("wrong");
    let CampaignError::Problems(problems) = error else { panic!("{error}") };
    let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["from", "pool", "subject"]);
}

#[tokio::test]
async fn a_start_writes_a_handful_of_records_and_is_done_when_the_last_row_is() {
    let w = World::new().await;
    let no = w.ready("a", 1_000_000, "rate = \"100/s\"").await;
    assert!(w.campaigns.sealings().get(no).is_none());
    let started = w.start("a", None).await.expect("started");
    assert_eq!((started.state, started.already, started.counts.total), (State::Running, false, 1_000_000));
    assert_eq!(started.estimate, Some(w.clock.now().after(std::time::Duration::from_secs(10_000))));
    assert_eq!(started.findings[0].message, "first_name is missing in 3 of 10 rows");
    assert!(w.disk.lock().largest <= 8);
    assert_eq!(w.campaigns.sealings().get(no).expect("sealed").pool, name("bulk"));
    let again = w.start("a", None).await.expect("the same");
    assert!(again.already);
    w.settle(no, EventKind::Delivered, 999_999);
    w.campaigns.tick().await;
    assert_eq!(w.state("a"), State::Running);
    w.settle(no, EventKind::Bounced, 1);
    assert_eq!(w.campaigns.tick().await, Some(Timestamp::NEVER));
    assert_eq!(w.state("a"), State::Done);
    assert_eq!(w.campaigns.tick().await, None, "nothing is watched any more");
    assert_eq!(w.events(), ["campaign_started 1000000", "campaign_done 1000000"]);
    assert!(w.campaigns.sealings().is_empty());
    assert_eq!(*w.fake.ended.lock(), [no.0]);
    assert!(w.start("a", None).await.expect("done already").already);
    assert!(w.disk.lock().runs.is_empty());
}

#[tokio::test]
async fn errors_of_the_checks_block_a_start_unless_it_is_forced_with_a_reason() {
    let w = World::new().await;
    w.ready("a", 10, "").await;
    let finding =
        Finding { severity: Severity::Error, check: "spf".into(), message: "no".into(), why: None, fix: None };
    w.fake.findings.lock().push(finding);
    let error = w.start("a", None).await.expect_err("blocked");
    assert!(matches!(&error, CampaignError::Checks(findings) if findings.len() == 2), "{error}");
    assert_eq!(w.state("a"), State::Uploading);
    assert!(w.fake.told.lock().is_empty() && w.disk.lock().runs.is_empty());
    assert!(w.start("a", Some(" ")).await.is_err(), "an empty reason is none");
    assert_eq!(w.start("a", Some("DNS is ours")).await.expect("forced").state, State::Running);
    assert_eq!(w.events(), ["campaign_started 10 forced: DNS is ours"]);
    // Nobody to send to can't be forced.
    w.ready("b", 0, "").await;
    assert!(matches!(w.start("b", Some("x")).await, Err(CampaignError::Empty(_))));
}

#[tokio::test]
async fn a_pause_tells_what_is_in_flight_survives_a_restart_and_costs_no_age() {
    let w = World::new().await;
    let no = w.ready("a", 10, "expire_after = \"1d\"").await;
    w.start("a", None).await.expect("started");
    w.fake.in_flight.store(3, Ordering::Relaxed);
    let pause = || w.campaigns.pause(name("acme"), name("a"), Some("lunch".into()), "me".into());
    let paused = pause().await.expect("paused");
    assert_eq!((paused.state, paused.already, paused.in_flight, paused.recipients), (State::Paused, false, 3, 10));
    assert!(pause().await.expect("again").already);
    assert_eq!(w.last_told().hold, Some(Hold { reason: HoldKind::Paused, until: None }));
    let w = w.restart().await;
    assert_eq!(w.controls.len(), 1, "the scheduler must know before it sends");
    assert_eq!(w.controls[0].hold, Some(Hold { reason: HoldKind::Paused, until: None }));
    assert!(w.campaigns.sealings().get(no).is_some());
    let hours = std::time::Duration::from_secs(3_600);
    w.clock.advance(hours * 48);
    let resumed = w.campaigns.resume(name("acme"), name("a"), None, "me".into()).await.expect("resumed");
    assert_eq!(resumed.state, State::Running);
    assert_eq!(w.last_told().hold, None);
    assert_eq!(w.disk.lock().runs[&no.0].expire_after, hours * 72);
    assert_eq!(w.events(), ["campaign_started 10", "campaign_paused 10 lunch", "campaign_resumed 10"]);
    // A change writes how its rows are sent anew: what the pauses have added is not forgotten, in a second one neither.
    let change = |rate: &str| LiveChange { rate: Some(rate.parse().ok()), ..LiveChange::default() };
    w.campaigns.change(name("acme"), name("a"), change("10/min"), "me".into()).await.expect("changed");
    assert_eq!(w.disk.lock().runs[&no.0].expire_after, hours * 72);
    w.campaigns.pause(name("acme"), name("a"), None, "me".into()).await.expect("paused");
    w.clock.advance(hours * 5);
    w.campaigns.change(name("acme"), name("a"), change("20/min"), "me".into()).await.expect("changed");
    w.campaigns.resume(name("acme"), name("a"), None, "me".into()).await.expect("resumed");
    assert_eq!(w.disk.lock().runs[&no.0].expire_after, hours * 77);
}

#[tokio::test]
async fn a_view_tells_what_is_in_flight_and_metrics_where_campaigns_stand() {
    let w = World::new().await;
    w.ready("a", 10, "").await;
    w.fake.in_flight.store(4, Ordering::Relaxed);
    let in_flight = || async { w.campaigns.view(&name("acme"), &name("a")).await.expect("there").in_flight };
    assert_eq!(in_flight().await, Some(0), "nothing of a draft is sent");
    w.start("a", None).await.expect("started");
    assert_eq!(in_flight().await, Some(4));
    let stand = |w: &World, state: State| w.metrics.campaigns.with_label_values(&[state.as_str()]).get();
    let moved = |w: &World, action: &str| w.metrics.actions.with_label_values(&[action]).get();
    assert_eq!((stand(&w, State::Draft), stand(&w, State::Running), moved(&w, "start")), (0, 1, 1));
    w.campaigns.pause(name("acme"), name("a"), None, "me".into()).await.expect("paused");
    assert_eq!((stand(&w, State::Running), stand(&w, State::Paused), moved(&w, "pause")), (0, 1, 1));
    let w = w.restart().await;
    assert_eq!(
        (stand(&w, State::Paused), moved(&w, "pause")),
        (1, 0),
        "gauges are of what is, counters of this process"
    );
    w.campaigns.cancel(name("acme"), name("a"), None, "me".into()).await.expect("cancelled");
    w.campaigns.delete(name("acme"), name("a")).await.expect("deleted");
    assert!(State::ALL.iter().all(|state| stand(&w, *state) == 0));
}

#[tokio::test]
async fn a_cancel_ends_the_run_and_takes_out_what_waits_for_another_attempt() {
    let w = World::new().await;
    let no = w.ready("a", 10, "").await;
    w.start("a", None).await.expect("started");
    let cancelled = w.campaigns.cancel(name("acme"), name("a"), None, "me".into()).await.expect("cancelled");
    assert_eq!((cancelled.state, cancelled.recipients), (State::Cancelled, 10));
    assert_eq!(*w.fake.cancelled.lock(), ["a"]);
    assert_eq!(Counts::of(&w.disk.lock().counts[&no.0]).cancelled, 10);
    assert!(w.start("a", None).await.is_err());
    w.campaigns.tick().await;
    assert!(w.campaigns.sealings().get(no).is_some(), "what is taken out is read for its event");
    w.clock.advance(std::time::Duration::from_secs(601));
    w.campaigns.tick().await;
    assert!(w.campaigns.sealings().is_empty());
    w.campaigns.delete(name("acme"), name("a")).await.expect("deleted");
    let left: Vec<Vec<u8>> = w.disk.lock().state.keys().cloned().collect();
    assert_eq!(left, [keys::NEXT.to_vec()]);
}

#[tokio::test]
async fn a_cancel_that_a_crash_cut_off_is_finished_at_the_next_start() {
    let w = World::new().await;
    w.ready("a", 10, "").await;
    w.start("a", None).await.expect("started");
    w.campaigns.cancel(name("acme"), name("a"), None, "me".into()).await.expect("cancelled");
    let record = w.campaigns.entry(&name("acme"), &name("a")).expect("there").record();
    let cut = Record { sweeping: true, ..Record::clone(&record) };
    w.disk.lock().state.insert(keys::record(&name("acme"), &name("a")), cut.to_json());
    let w = w.restart().await;
    assert!(w.controls[0].hold.is_some(), "held until it is swept");
    let (close, closing) = tokio::sync::watch::channel(false);
    let campaigns = w.campaigns.clone();
    let task = tokio::spawn(async move { campaigns.run(closing).await });
    while w.fake.cancelled.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    close.send_replace(true);
    task.await.expect("it ends");
}

#[tokio::test]
async fn a_campaign_halts_by_its_own_condition_and_goes_on_only_with_a_reason() {
    let w = World::new().await;
    let no = w.ready("a", 1_000, "stop_if = { hard_bounce_rate = 0.1, minimum = 100 }").await;
    w.start("a", None).await.expect("started");
    w.settle(no, EventKind::Delivered, 80);
    w.settle(no, EventKind::Bounced, 20);
    w.campaigns.tick().await;
    assert_eq!(w.state("a"), State::Halted);
    assert_eq!(w.last_told().hold, Some(Hold { reason: HoldKind::Halted, until: None }));
    assert_eq!(w.events()[1], "campaign_halted 900 hard bounce rate 20.00 % is above 10.00 %: 20 of 100 recipients");
    let resume =
        |reason: Option<&str>| w.campaigns.resume(name("acme"), name("a"), reason.map(str::to_owned), "me".into());
    assert!(resume(None).await.expect_err("a reason is needed").to_string().contains("a reason is needed"));
    resume(Some("a typo in one domain")).await.expect("resumed");
    w.campaigns.tick().await;
    assert_eq!(w.state("a"), State::Running, "what was before does not halt it again");
    w.settle(no, EventKind::Bounced, 100);
    w.campaigns.tick().await;
    assert_eq!(w.state("a"), State::Halted);
}

#[tokio::test]
async fn schedule_window_and_changes_reach_the_scheduler_at_their_edges() {
    let w = World::new().await;
    let hours = std::time::Duration::from_secs(3_600);
    // It is Monday 17:55 UTC. Due in 4 hours, window from 8 to 20 o'clock.
    let more =
        "[schedule]\nat = \"2026-11-23T21:55:49Z\"\nspread = \"10h\"\nwindow = { from = \"08:00\", to = \"20:00\" }";
    w.ready("a", 36_000, more).await;
    let started = w.start("a", None).await.expect("started");
    assert_eq!(started.state, State::Scheduled);
    assert!(w.events().is_empty(), "nothing is sent yet");
    assert_eq!((w.last_told().rate.map(|r| r.to_string()), w.last_told().hold), (Some("60/min".into()), None));
    let at = |text: &str| {
        text.parse::<jiff::Timestamp>().map(|t| Timestamp::from_millis(t.as_millisecond() as u64)).expect("a time")
    };
    assert_eq!(w.campaigns.tick().await, Some(at("2026-11-23T20:00:00Z")));
    w.clock.advance(hours * 4);
    assert_eq!(w.campaigns.tick().await, Some(at("2026-11-24T08:00:00Z")));
    assert_eq!(w.state("a"), State::Running);
    assert_eq!(w.last_told().hold, Some(Hold { reason: HoldKind::Window, until: Some(at("2026-11-24T08:00:00Z")) }));
    let told = w.fake.told.lock().len();
    w.campaigns.tick().await;
    assert_eq!(w.fake.told.lock().len(), told, "nothing new, nothing told");
    let change = LiveChange { window: Some(None), priority: Some(9), rate: Some("10/min".parse().ok()) };
    w.campaigns.change(name("acme"), name("a"), change, "me".into()).await.expect("changed");
    let control = w.last_told();
    assert_eq!((control.hold, control.priority, control.rate.map(|r| r.to_string())), (None, 9, Some("10/min".into())));
    // It survives a restart, a window that was taken away, too.
    let w = w.restart().await;
    assert_eq!(w.controls, [control]);
    let bad = LiveChange { priority: Some(0), ..LiveChange::default() };
    assert!(w.campaigns.change(name("acme"), name("a"), bad, "me".into()).await.is_err());
    drop(w.committed);
}

#[tokio::test]
async fn a_start_that_a_crash_cut_off_is_not_half_started() {
    let w = World::new().await;
    w.ready("a", 10, "").await;
    let record = w.campaigns.entry(&name("acme"), &name("a")).expect("there").record();
    let cut = Record { state: State::Checking, ..Record::clone(&record) };
    w.disk.lock().state.insert(keys::record(&name("acme"), &name("a")), cut.to_json());
    let w = w.restart().await;
    let (close, closing) = tokio::sync::watch::channel(false);
    let campaigns = w.campaigns.clone();
    let task = tokio::spawn(async move { campaigns.run(closing).await });
    while w.state("a") == State::Checking {
        tokio::task::yield_now().await;
    }
    assert_eq!(w.state("a"), State::Uploading);
    assert!(w.start("a", None).await.is_ok());
    close.send_replace(true);
    task.await.expect("it ends");
}

#[tokio::test]
async fn a_job_changes_until_its_start_only() {
    let w = World::new().await;
    w.ready("a", 10, "").await;
    let edit = |job| w.campaigns.edit(name("acme"), name("a"), job);
    let edited = edit(job("priority = 7")).await.expect("edited");
    assert_eq!(edited.version, 2);
    assert_eq!(edit(job("priority = 7")).await.expect("the same").version, 2);
    assert_eq!(w.campaigns.head(&name("acme"), &name("a")).await.expect("a head").job.priority, 7);
    w.start("a", None).await.expect("started");
    let error = edit(job("priority = 1")).await.expect_err("too late").to_string();
    assert_eq!(
        error,
        "campaign a is running: it can't be edited: make a new one, or change its rate, window or priority"
    );
    assert!(w.campaigns.delete(name("acme"), name("a")).await.is_err());
}
