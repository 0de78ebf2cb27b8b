//! What `admit` answers, and that `explain` says the same.

use super::super::{Count, Pace, RateLimit};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn limits() -> Limits {
    let rate = |count, secs| Rate { count, per: Duration::from_secs(secs) };
    Limits {
        connections: Some(Count { max: 3, set_by: "shaping.default.connections".into() }),
        connection_rate: Some(RateLimit { rate: rate(6, 60), set_by: "shaping.default.connection_rate".into() }),
        message_rate: Some(RateLimit { rate: rate(1, 1), set_by: "shaping.default.message_rate".into() }),
        messages_per_connection: None,
        recipients_per_message: None,
    }
}

fn question(limits: &Limits, ask: Ask) -> Question<'_> {
    Question {
        now: NOW,
        ask,
        draining: false,
        store_failed: false,
        suspended: None,
        campaign: None,
        shared: [None; 3],
        due: NOW,
        window: Window::Ready,
        route: Route::Known,
        unsettled: 0,
        unsettled_max: 4,
        node_connections: 0,
        node_connections_max: 10,
        path: Some(PathState {
            source: "ip1",
            limits,
            source_held: None,
            host: Host::Up,
            site_connections: 0,
            site_connection_rate: Bucket::default(),
            site_message_rate: Bucket::default(),
            source_connections: 0,
            source_connections_max: Some(5),
            source_message_rate: Bucket::default(),
            source_message_rate_max: None,
            provider: None,
        }),
    }
}

/// The verdict, as words: what `queue explain` says and what it waits for.
fn check(ask: Ask, change: impl FnOnce(&mut Question<'_>), want: &str) {
    let limits = limits();
    let mut question = question(&limits, ask);
    change(&mut question);
    let verdict = admit(&question);
    let got = match verdict {
        Verdict::Go => "go".to_owned(),
        Verdict::Wait { reason, wake: Wake::At(at) } => format!("{reason} +{}ms", at.since(NOW).as_millis()),
        Verdict::Wait { reason, wake: Wake::Release(limit) } => format!("{reason} until {} free", limit.as_str()),
        Verdict::Wait { reason, wake: Wake::Event } => reason.to_string(),
    };
    assert_eq!(got, want);
    // What is explained is what was decided.
    let first = explain(&question).into_iter().map(|s| s.verdict).find(|v| *v != Verdict::Go);
    assert_eq!(first.unwrap_or(Verdict::Go), verdict);
}

fn path<'q, 'a>(q: &'q mut Question<'a>) -> &'q mut PathState<'a> {
    q.path.as_mut().expect("set above")
}

fn used(rate: &RateLimit) -> Bucket {
    let mut bucket = Bucket::default();
    bucket.take(rate.rate, NOW);
    bucket
}

#[test]
fn each_limit_holds_by_its_name() {
    use Ask::{Open, Send};
    check(Send, |_| {}, "go");
    check(Open, |_| {}, "go");
    check(Send, |q| q.draining = true, "draining: the daemon is ending");
    check(Send, |q| q.store_failed = true, "store failed");
    check(Send, |q| q.suspended = Some((7, None)), "suspended (number 7)");
    check(Send, |q| q.due = NOW.after(Duration::from_secs(1)), "retry due later +1000ms");
    check(Send, |q| q.window = Window::Full, "window: rows are being read");
    check(Send, |q| q.route = Route::Resolving, "resolving");
    check(Send, |q| q.unsettled = 4, "unsettled: too many outcomes are not yet on disk");
    check(Send, |q| q.path = None, "no source: none of the pool may send");
    check(Send, |q| path(q).host = Host::Down(NOW.after(Duration::from_secs(30))), "host down +30000ms");
    check(Send, |q| path(q).host = Host::Down(NOW), "go");
    check(Open, |q| path(q).site_connections = 3, "site connections until site connections free");
    check(Open, |q| path(q).source_connections = 5, "source connections until source connections free");
    check(Open, |q| q.node_connections = 10, "node connections until node connections free");
    let limits = limits();
    let message_rate = limits.message_rate.as_ref().expect("set above");
    let connection_rate = limits.connection_rate.as_ref().expect("set above");
    check(Send, |q| path(q).site_message_rate = used(message_rate), "site message rate +1000ms");
    check(Open, |q| path(q).site_connection_rate = used(connection_rate), "site connection rate +10000ms");
}

#[test]
fn what_is_set_for_a_campaign_holds_its_queues() {
    let rate = Rate { count: 1, per: Duration::from_secs(10) };
    let free = CampaignState { name: "spring", hold: None, rate: None, turn: Timestamp::ZERO };
    let with = |campaign: CampaignState<'static>| move |q: &mut Question<'_>| q.campaign = Some(campaign);
    let mut pace = Pace::default();
    check(Ask::Send, with(free), "go");
    check(Ask::Open, with(CampaignState { rate: Some((rate, pace)), ..free }), "go");
    pace.take(rate, NOW);
    check(Ask::Send, with(CampaignState { rate: Some((rate, pace)), ..free }), "campaign rate +10000ms");
    let turn = NOW.after(Duration::from_millis(70));
    check(Ask::Send, with(CampaignState { rate: Some((rate, Pace::default())), turn, ..free }), "campaign rate +70ms");
    check(Ask::Send, with(CampaignState { hold: Some((HoldKind::Paused, None)), ..free }), "paused");
    check(Ask::Send, with(CampaignState { hold: Some((HoldKind::Window, Some(turn))), ..free }), "window +70ms");
    check(Ask::Send, with(CampaignState { hold: Some((HoldKind::Window, Some(NOW))), ..free }), "go");
}

#[test]
fn a_connection_that_is_there_needs_no_room_for_another() {
    check(Ask::Send, |q| path(q).site_connections = 3, "go");
    check(Ask::Send, |q| q.node_connections = 10, "go");
}

#[test]
fn steps_name_value_limit_and_place() {
    let limits = limits();
    let mut question = question(&limits, Ask::Open);
    path(&mut question).site_connections = 3;
    let steps = explain(&question);
    let step = steps.iter().find(|s| s.name == "site connections").expect("listed");
    assert_eq!(step.detail, "3 of 3");
    assert_eq!(step.set_by.as_deref(), Some("shaping.default.connections"));
    assert!(steps.iter().any(|s| s.name == "site message rate" && s.detail == "1/s, token there"));
    assert!(!steps.iter().any(|s| s.name == "source message rate"), "it is not set");
}
