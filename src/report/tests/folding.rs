//! The cells of a real store against counting by hand, with crashes at random places.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::tempdir;

use super::super::key::{Resolution, Scope, Split};
use super::super::view::Figures;
use super::super::{Fold, Keeper, Range, Reports};
use crate::config::Durability;
use crate::event::{Event, EventKind, SmtpReply};
use crate::metrics::Registry;
use crate::metrics::report::ReportMetrics;
use crate::metrics::store::StoreMetrics;
use crate::seam::clock::Clock;
use crate::store::{Change, Opened, Space, SpaceProbe, StoreOptions, open};
use crate::types::{CampaignNo, Domain, Mailbox, MessageId, Name, QueueId, RowId, Timestamp};

/// 2026-11-23T17:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_795_453_200_000);

fn start(dir: &Path) -> Opened {
    let space = Space { free: 100 << 30, total: 200 << 30, inodes_free: 1 << 20, inodes: 1 << 21 };
    open(StoreOptions {
        dir: dir.to_owned(),
        durability: Durability::Os,
        cache: 8 << 20,
        event_retention: Duration::from_secs(90 * 86_400),
        min_free: 1 << 30,
        space: SpaceProbe::Given(Arc::new(move || space)),
        clock: Clock::manual(NOW),
        metrics: StoreMetrics::register(&Registry::new()),
        news_max: 256,
        workers: 3,
    })
    .expect("it opens")
}

fn keeper(opened: &Opened) -> (Keeper, Reports) {
    let metrics = ReportMetrics::register(&Registry::new());
    Keeper::new(opened.ledger.clone(), opened.reader.clone(), Clock::manual(NOW), metrics)
}

/// The threads of the store end when no handle is left.
async fn shut(opened: Opened, reports: Reports) {
    drop(reports);
    opened.ledger.shutdown().await;
    let Opened { ledger, reader, news, store, threads, .. } = opened;
    drop((ledger, reader, news, store));
    threads.join();
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A small generator: the same seed, the same log.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }
}

fn row(campaign: u32, seq: u32) -> MessageId {
    RowId { campaign: CampaignNo(campaign), step: 0, queue: QueueId(1), slot: 0, seq }.message_id()
}

fn event(dice: &mut Dice, n: u32) -> Event {
    let kinds = [
        EventKind::Delivered,
        EventKind::Delivered,
        EventKind::Deferred,
        EventKind::Bounced,
        EventKind::Expired,
        EventKind::Suppressed,
        EventKind::Complained,
        EventKind::Accepted,
        EventKind::Adapted,
    ];
    let kind = kinds[dice.roll(kinds.len() as u64) as usize];
    let at = NOW.as_millis() - dice.roll(5 * 86_400_000);
    let mut event = Event::new(kind, Timestamp::from_millis(at), name(dice.one(&["acme", "beta"])));
    let domain = format!("d{}.test", dice.roll(8));
    if kind == EventKind::Accepted {
        event.recipients = Some(dice.roll(5) as u32 + 1);
        return event;
    }
    event.recipient = Some(Mailbox::parse(&format!("u{n}@{domain}")).expect("an address"));
    event.domain = Some(Domain::parse(&domain).expect("a domain"));
    if dice.roll(2) == 0 {
        let campaign = dice.roll(2) as u32 + 1;
        event.message_id = Some(row(campaign, n));
        event.campaign = Some(name(&format!("c{campaign}")));
    }
    if dice.roll(5) > 0 {
        event.provider = Some(dice.one(&["google", "yahoo", "other"]).into());
        event.source = Some(name(dice.one(&["ip1", "ip2"])));
    }
    match kind {
        EventKind::Delivered => event.took_ms = Some(dice.roll(10_000_000)),
        EventKind::Deferred | EventKind::Bounced => {
            event.late = (dice.roll(4) == 0).then_some(true);
            event.category = Some(dice.one(&["bad-mailbox", "spam-related", "quota-issues"]).into());
            let text = format!("\"quoted\" \\ try u{n}@{domain} again in {} s", dice.roll(1_000));
            event.smtp = Some(SmtpReply { code: 450, enhanced: Some("4.2.1".into()), text: text.into() });
        }
        _ => {}
    }
    event
}

type Place = (Scope, Split, String);

/// What a report must say, counted by hand: delivered, deferred, bounced, late, expired, suppressed, complained, accepted.
fn counted(events: &[Event], range: impl Fn(u64) -> bool) -> BTreeMap<Place, [u64; 8]> {
    let mut all: BTreeMap<Place, [u64; 8]> = BTreeMap::new();
    for event in events.iter().filter(|event| range(event.timestamp.as_millis())) {
        let late = event.late == Some(true);
        let (at, by) = match event.event {
            EventKind::Delivered => (0, 1),
            EventKind::Deferred if late => continue,
            EventKind::Deferred => (1, 1),
            EventKind::Bounced if late => (3, 1),
            EventKind::Bounced => (2, 1),
            EventKind::Expired => (4, 1),
            EventKind::Suppressed => (5, 1),
            EventKind::Complained => (6, 1),
            EventKind::Accepted => (7, u64::from(event.recipients.unwrap_or(1))),
            _ => continue,
        };
        let mut scopes = vec![Scope::All, Scope::Tenant(event.tenant.clone())];
        if let Some(row) = event.message_id.and_then(RowId::of) {
            scopes.push(Scope::Campaign(row.campaign));
        }
        for scope in scopes {
            let mut add = |split, name: &str| all.entry((scope.clone(), split, name.to_owned())).or_default()[at] += by;
            add(Split::Total, "");
            if scope == Scope::All {
                add(Split::Tenant, event.tenant.as_str());
            }
            if event.event != EventKind::Accepted {
                add(Split::Provider, event.provider.as_deref().unwrap_or("(none)"));
                add(Split::Source, event.source.as_ref().map_or("(none)", Name::as_str));
                add(Split::Domain, event.domain.as_ref().map_or("(none)", Domain::as_str));
            }
        }
    }
    all
}

fn of(f: &Figures) -> [u64; 8] {
    [f.delivered, f.deferred, f.bounced, f.late_bounces, f.expired, f.suppressed, f.complained, f.accepted]
}

async fn told(reports: &Reports, range: Range) -> BTreeMap<Place, [u64; 8]> {
    let mut all = BTreeMap::new();
    let scopes = [
        Scope::All,
        Scope::Tenant(name("acme")),
        Scope::Tenant(name("beta")),
        Scope::Campaign(CampaignNo(1)),
        Scope::Campaign(CampaignNo(2)),
    ];
    for scope in scopes {
        for split in [Split::Total, Split::Provider, Split::Source, Split::Domain, Split::Tenant] {
            for row in reports.table(&scope, split, range).await.expect("readable") {
                // What only has a late deferral has a row of nothing here.
                if of(&row.figures) != [0; 8] {
                    all.insert((scope.clone(), split, row.name), of(&row.figures));
                }
            }
        }
    }
    all
}

/// Counts that a crash doubles or loses make every report wrong for ever.
#[tokio::test]
async fn cells_are_what_the_log_says_through_crashes() {
    let dir = tempdir().expect("a folder");
    let mut dice = Dice(7);
    let mut log = Vec::new();
    for _ in 0..6 {
        let opened = start(dir.path());
        let (keeper, reports) = keeper(&opened);
        let task = tokio::spawn(keeper.run());
        for _ in 0..dice.roll(12) + 2 {
            let events: Vec<Event> =
                (0..dice.roll(60) + 1).map(|i| event(&mut dice, log.len() as u32 + i as u32)).collect();
            let changes = events.iter().map(|e| Change::Event(Box::new(e.clone()))).collect();
            log.extend(events);
            opened.ledger.submit(changes).await.expect("on disk");
            if dice.roll(3) == 0 {
                reports.fresh().await;
            }
            if dice.roll(3) == 0 {
                tokio::time::sleep(Duration::from_millis(dice.roll(20))).await;
            }
        }
        // In the middle of whatever it does.
        task.abort();
        let _ = task.await;
        shut(opened, reports).await;
    }
    let opened = start(dir.path());
    let (keeper, reports) = keeper(&opened);
    let task = tokio::spawn(keeper.run());
    let as_of = reports.fresh().await;
    assert_eq!((as_of.behind, as_of.event), (0, log.len() as u64));
    assert_eq!(told(&reports, Range::default()).await, counted(&log, |_| true));
    let hour = Resolution::Hour.ms();
    let (since, until) = (NOW.as_millis() - 3 * 86_400_000 - 5 * hour, NOW.as_millis() - 7 * hour);
    let range = Range { since: Some(Timestamp::from_millis(since)), until: Some(Timestamp::from_millis(until)) };
    assert_eq!(told(&reports, range).await, counted(&log, |at| (since..until).contains(&at)));
    classes_and_replies(&reports, &log).await;
    series(&reports, &log).await;
    task.abort();
    let _ = task.await;
    shut(opened, reports).await;
}

async fn classes_and_replies(reports: &Reports, log: &[Event]) {
    let all = reports.total(&Scope::All, Range::default()).await.expect("readable");
    let figures = Figures::of(&all);
    let bounced: u64 = figures.classes.values().map(|c| c.bounced).sum();
    assert_eq!(bounced, figures.bounced);
    assert_eq!(figures.classes.values().map(|c| c.late_bounces).sum::<u64>(), figures.late_bounces);
    let groups = reports.replies(&Scope::All, Range::default(), None, 1_000).await.expect("readable");
    let said = log.iter().filter(|e| e.smtp.is_some()).count() as u64;
    assert_eq!(groups.iter().map(|g| g.count).sum::<u64>(), said);
    // By provider, by what it led to: not one a recipient.
    assert!(groups.len() <= 4 * 2 * 3, "{} groups", groups.len());
    assert!(groups.iter().all(|g| g.template.contains("<n> s") && !g.example.contains('@')), "{groups:?}");
    let google = reports.replies(&Scope::All, Range::default(), Some("google"), 1).await.expect("readable");
    assert!(google.len() == 1 && google[0].provider == "google");
}

async fn series(reports: &Reports, log: &[Event]) {
    let series = reports.series(&Scope::All, Range::default()).await.expect("readable");
    assert_eq!(series.resolution, "hour", "five days are too many points of 5 minutes");
    let delivered = log.iter().filter(|e| e.event == EventKind::Delivered).count() as u64;
    assert_eq!(series.points.iter().map(|p| p.delivered).sum::<u64>(), delivered);
    let since = NOW.as_millis() - 6 * 3_600_000;
    let range = Range { since: Some(Timestamp::from_millis(since)), until: None };
    let fine = reports.series(&Scope::All, range).await.expect("readable");
    assert_eq!(fine.resolution, "5min");
    let recent = |e: &&Event| e.event == EventKind::Delivered && e.timestamp.as_millis() >= since;
    assert_eq!(fine.points.iter().map(|p| p.delivered).sum::<u64>(), log.iter().filter(recent).count() as u64);
}

/// A list with a million domains must not make a million cells.
#[tokio::test]
async fn names_beyond_the_bound_count_together() {
    let dir = tempdir().expect("a folder");
    let opened = start(dir.path());
    let (keeper, reports) = keeper(&opened);
    let task = tokio::spawn(keeper.run());
    let most = u64::from(Split::Domain.names_max());
    let mut dice = Dice(1);
    for batch in 0..3 {
        let delivered = |i: u64| {
            let mut event = event(&mut dice, i as u32);
            event.event = EventKind::Delivered;
            event.timestamp = NOW;
            event.domain = Some(Domain::parse(&format!("d{i}.test")).expect("a domain"));
            Change::Event(Box::new(event))
        };
        let changes = (batch * 300..(batch + 1) * 300).map(delivered).collect();
        opened.ledger.submit(changes).await.expect("on disk");
        reports.fresh().await;
    }
    let rows = reports.table(&Scope::All, Split::Domain, Range::default()).await.expect("readable");
    assert_eq!(rows.len() as u64, most + 1);
    assert_eq!(rows.iter().map(|r| r.figures.delivered).sum::<u64>(), 900);
    let other = rows.last().expect("rows");
    assert_eq!((other.name.as_str(), other.figures.delivered), ("(other)", 900 - most));
    task.abort();
    let _ = task.await;
    shut(opened, reports).await;
}

/// What it costs to count an event; told, and bounded far above what it should be.
#[test]
fn folding_is_cheap() {
    let mut dice = Dice(3);
    let mut events: Vec<Vec<u8>> = Vec::new();
    while events.len() < 2_000 {
        let mut event = event(&mut dice, events.len() as u32);
        if matches!(event.event, EventKind::Delivered) {
            event.smtp =
                Some(SmtpReply { code: 250, enhanced: Some("2.0.0".into()), text: "OK queued as 12345".into() });
            event.mx = Some("mx1.provider.test [192.0.2.1]".into());
            event.tls = Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".into());
            events.push(serde_json::to_vec(&event).expect("JSON"));
        }
    }
    let mut fold = Fold::default();
    let began = std::time::Instant::now();
    for _ in 0..10 {
        events.iter().for_each(|json| fold.event(json).expect("an event"));
    }
    let each = began.elapsed() / 20_000;
    assert!(each < Duration::from_micros(50), "{each:?}");
    assert!(!fold.is_empty() && !fold.take().is_empty() && fold.is_empty());
}
