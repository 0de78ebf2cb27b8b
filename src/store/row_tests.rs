//! Campaigns' rows as the engines see them: the life of a row, and what a restart at each point leaves of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::{TempDir, tempdir};

use super::testing::{NOW, event, mailbox, open_in, queue_key, shut};
use super::{
    Change, EntryKey, NewDelivery, NewRow, NewRows, News, Next, Opened, QueueEntry, Refill, Run, RunChange, RunCounts,
    Sent, SentStatus, Settle, Settled, Table, address_hash,
};
use crate::event::EventKind;
use crate::types::{CampaignNo, QueueId, QueueKey, RowId, SLOT_MILLIS, Timestamp};

const CAMPAIGN: CampaignNo = CampaignNo(7);
const STEP: u8 = 0;

fn key_of(domain: &str) -> QueueKey {
    QueueKey { campaign: Some(super::testing::name("spring")), ..queue_key(domain) }
}

fn address(seq: u32, domain: &str) -> String {
    format!("r{seq}@{domain}")
}

/// A row whose value has `10 + seq % 3` octets.
fn new_row(seq: u32, slot: u8, domain: &str) -> NewRow {
    let value = Bytes::from(vec![b'v'; 10 + (seq % 3) as usize]);
    NewRow { queue: Arc::new(key_of(domain)), slot, seq, hash: hash(seq, domain), value }
}

fn hash(seq: u32, domain: &str) -> [u8; 16] {
    address_hash(&mailbox(&address(seq, domain)))
}

fn run() -> Run {
    Run { accepted: NOW, due: NOW.after(Duration::from_secs(60)), expire_after: Duration::from_secs(86_400) }
}

fn upload(rows: Vec<NewRow>) -> Vec<Change> {
    vec![Change::Rows(Box::new(NewRows { campaign: CAMPAIGN, step: STEP, rows }))]
}

fn change(run: Option<Run>) -> Vec<Change> {
    vec![Change::Run(Box::new(RunChange { campaign: CAMPAIGN, step: STEP, run }))]
}

struct World {
    dir: TempDir,
    opened: Opened,
}

impl World {
    fn new() -> Self {
        let dir = tempdir().expect("a folder");
        let opened = open_in(dir.path());
        Self { dir, opened }
    }

    async fn restart(self) -> Self {
        let Self { dir, opened } = self;
        shut(opened).await;
        let opened = open_in(dir.path());
        assert!(opened.report.cut.is_none(), "{:?}", opened.report);
        Self { dir, opened }
    }

    async fn submit(&self, changes: Vec<Change>) {
        self.opened.ledger.submit(changes).await.expect("on disk");
    }

    async fn queue(&self, domain: &str) -> Option<super::QueueRow> {
        let rows = self.opened.reader.queues().await.expect("readable");
        rows.into_iter().find(|row| *row.key == key_of(domain))
    }

    async fn all(&self, queue: QueueId, page: usize) -> Vec<QueueEntry> {
        let mut entries: Vec<QueueEntry> = Vec::new();
        loop {
            let after = entries.last().map(|e| e.key);
            let Refill { entries: more, exhausted } =
                self.opened.reader.refill(queue, after, page).await.expect("readable");
            entries.extend(more);
            if exhausted {
                return entries;
            }
        }
    }

    /// Settles an entry and waits until that is on disk.
    async fn settle(&mut self, queue: QueueId, entry: &QueueEntry, kind: EventKind, next: Next) -> Vec<News> {
        let row = RowId::of(entry.key.delivery.message).expect("a row");
        let told = event(kind, row.message_id(), Some(&address(row.seq, "b.example")));
        let (key, size, recipients, sent) = (entry.key, entry.size, entry.recipients, entry.sent);
        let settled = Settled { queue, key, size, recipients, sent, next, events: vec![told] };
        self.opened
            .ledger
            .settle(Settle { settled: vec![settled], owed: Vec::new(), changes: Vec::new() })
            .expect("handed over");
        loop {
            let news = self.opened.news.recv().await.expect("the ledger lives");
            if news.iter().any(|n| matches!(n, News::Settled { key, .. } if *key == entry.key)) {
                return news;
            }
        }
    }

    async fn counts(&self) -> RunCounts {
        self.opened.reader.run(CAMPAIGN, STEP).await.expect("readable").1
    }

    async fn status(&self, seq: u32) -> Option<SentStatus> {
        let sent = self.opened.reader.sent(CAMPAIGN, STEP, vec![hash(seq, "b.example")]).await.expect("readable");
        sent[0].map(|sent: Sent| sent.status)
    }
}

fn later(entry: &QueueEntry, millis: u64) -> QueueEntry {
    let due = entry.key.due.after(Duration::from_millis(millis));
    QueueEntry { key: EntryKey { due, ..entry.key }, attempts: entry.attempts + 1, ..entry.clone() }
}

fn seqs(entries: &[QueueEntry]) -> Vec<u32> {
    entries.iter().map(|e| RowId::of(e.key.delivery.message).expect("a row").seq).collect()
}

fn counted(rows: u64, fresh: u64, queued: u64, dropped: u64, events: &[(EventKind, u64)]) -> RunCounts {
    RunCounts { rows, fresh, queued, dropped, events: events.iter().copied().collect(), late_bounces: 0 }
}

/// The whole way, with a restart at each point.
#[tokio::test]
async fn the_life_of_rows() {
    let mut world = World::new();
    world.submit(upload((0..5).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    for _ in 0..2 {
        let row = world.queue("b.example").await.expect("it holds rows");
        let rows = row.rows.expect("of a campaign");
        assert_eq!((row.count, row.bytes, rows.fresh, rows.running), (5, 10 + 11 + 12 + 10 + 11, 5, false));
        assert_eq!(row.next_due, Timestamp::NEVER);
        assert!(world.all(row.id, 3).await.is_empty(), "nothing is sent before the start");
        assert_eq!(world.status(4).await, Some(SentStatus::Waiting));
        assert_eq!(world.status(5).await, None);
        assert_eq!(world.counts().await, counted(5, 5, 0, 0, &[]));
        world = world.restart().await;
        assert_eq!(world.opened.queues, vec![row]);
    }
    assert!(world.opened.news.try_recv().is_err(), "an upload is not told");

    world.submit(change(Some(run()))).await;
    let News::Run { campaign: CAMPAIGN, running: true, queues } =
        world.opened.news.recv().await.expect("the ledger lives").remove(0)
    else {
        panic!("a start is told")
    };
    let queue = queues[0].id;
    assert_eq!((queues.len(), queues[0].next_due, queues[0].oldest), (1, run().due, NOW));
    assert!(queues[0].rows.expect("rows").running);
    for _ in 0..2 {
        let entries = world.all(queue, 2).await;
        assert_eq!(seqs(&entries), [0, 1, 2, 3, 4]);
        assert_eq!(entries[1].expires, run().due.after(run().expire_after));
        assert_eq!((entries[1].size, entries[1].recipients, entries[1].sent), (11, 1, Some(hash(1, "b.example"))));
        world = world.restart().await;
        assert_eq!(world.opened.queues, vec![world.queue("b.example").await.expect("there")]);
        assert_eq!(world.opened.queues[0].next_due, run().due);
    }

    let entries = world.all(queue, 10).await;
    world.settle(queue, &entries[1], EventKind::Delivered, Next::Done).await;
    let retry = later(&entries[2], 1_000);
    let news = world.settle(queue, &entries[2], EventKind::Deferred, Next::Retry(retry.clone())).await;
    assert!(news.iter().any(|n| matches!(n, News::Queued { entry, .. } if *entry == retry)));
    for _ in 0..2 {
        assert_eq!(seqs(&world.all(queue, 1).await), [0, 3, 4, 2]);
        let events = [(EventKind::Delivered, 1), (EventKind::Deferred, 1)];
        assert_eq!(world.counts().await, counted(5, 3, 1, 0, &events));
        assert_eq!(world.status(1).await, Some(SentStatus::Ended(EventKind::Delivered, NOW)));
        assert_eq!(world.status(2).await, Some(SentStatus::Queued));
        assert_eq!(world.queue("b.example").await.expect("there").count, 4);
        world = world.restart().await;
    }
    // Twice is once.
    world.settle(queue, &entries[1], EventKind::Delivered, Next::Done).await;
    assert_eq!(world.counts().await.events[&EventKind::Delivered], 1);

    world.submit(change(None)).await;
    let ended = world.queue("b.example").await.expect("one waits for another attempt");
    assert_eq!((ended.count, ended.rows.map(|r| (r.fresh, r.running))), (1, Some((0, false))));
    assert_eq!(seqs(&world.all(queue, 5).await), [2]);
    // One was in flight when the run ended, and another too, which is deferred.
    world.settle(queue, &entries[0], EventKind::Bounced, Next::Done).await;
    world.settle(queue, &entries[3], EventKind::Deferred, Next::Retry(later(&entries[3], 5))).await;
    world = world.restart().await;
    assert_eq!(seqs(&world.all(queue, 5).await), [3, 2]);
    world.settle(queue, &later(&entries[3], 5), EventKind::Failed, Next::Done).await;
    world.settle(queue, &retry, EventKind::Expired, Next::Done).await;
    assert!(world.queue("b.example").await.is_none());
    let events = [
        (EventKind::Deferred, 2),
        (EventKind::Delivered, 1),
        (EventKind::Bounced, 1),
        (EventKind::Failed, 1),
        (EventKind::Expired, 1),
    ];
    assert_eq!(world.counts().await, counted(5, 0, 0, 1, &events));
    let traced = world.opened.reader.trace_message(entries[3].key.delivery.message, 9).await.expect("readable");
    assert_eq!(traced.iter().map(|e| e.event).collect::<Vec<_>>(), [EventKind::Deferred, EventKind::Failed]);
    shut(world.opened).await;
}

/// Slots are due one after another, and what was tried stands among them where it is due.
#[tokio::test]
async fn a_refill_merges_in_order_from_any_cursor() {
    let mut world = World::new();
    let slots = [3, 0, 255, 3, 1, 0];
    world.submit(upload((0..6).map(|seq| new_row(seq, slots[seq as usize], "b.example")).collect())).await;
    world.submit(change(Some(run()))).await;
    let queue = world.queue("b.example").await.expect("there").id;
    assert_eq!(seqs(&world.all(queue, 9).await), [1, 5, 4, 0, 3, 2]);
    let entries = world.all(queue, 9).await;
    assert_eq!(entries[2].key.due, run().due.after(Duration::from_millis(SLOT_MILLIS)));
    // Row 5 waits for another attempt between the slots 1 and 3; row 3 at the same moment as its slot.
    let again = [later(&entries[1], SLOT_MILLIS + 1), later(&entries[4], 0)];
    world.settle(queue, &entries[1], EventKind::Deferred, Next::Retry(again[0].clone())).await;
    world.settle(queue, &entries[4], EventKind::Deferred, Next::Retry(again[1].clone())).await;
    let merged = world.all(queue, 1).await;
    assert_eq!(seqs(&merged), [1, 4, 5, 0, 3, 2]);
    assert!(merged.windows(2).all(|pair| pair[0].key < pair[1].key));
    for limit in [1, 2, 5, 6, 7] {
        assert_eq!(world.all(queue, limit).await, merged, "pages of {limit}");
    }
    // From each entry, and from a moment before and behind it.
    for (index, entry) in merged.iter().enumerate() {
        let before = EntryKey { due: Timestamp::from_millis(entry.key.due.as_millis() - 1), ..entry.key };
        let behind = EntryKey { due: entry.key.due.after(Duration::from_millis(1)), ..super::keys::FIRST_ENTRY };
        for (cursor, from) in [(before, index), (entry.key, index + 1)] {
            let want: Vec<_> = merged.iter().filter(|e| e.key > cursor).cloned().collect();
            assert!(cursor != entry.key || want.len() == merged.len() - from);
            assert_eq!(world.opened.reader.refill(queue, Some(cursor), 9).await.expect("readable").entries, want);
        }
        let want: Vec<_> = merged.iter().filter(|e| e.key > behind).cloned().collect();
        assert_eq!(world.opened.reader.refill(queue, Some(behind), 9).await.expect("readable").entries, want);
    }
    // A row that is uploaded while the campaign runs, before the mark: its queue is to be scanned.
    while world.opened.news.try_recv().is_ok() {}
    world.submit(upload(vec![new_row(9, 0, "b.example")])).await;
    let news = world.opened.news.recv().await.expect("the ledger lives");
    assert!(matches!(&news[..], [News::Dirty { queues }] if queues[0].id == queue), "{news:?}");
    assert_eq!(seqs(&world.all(queue, 9).await), [1, 9, 4, 5, 0, 3, 2]);
    shut(world.opened).await;
}

/// A scan never walks what is finished: the mark follows, and stands there after a restart.
#[tokio::test]
async fn the_mark_follows_what_is_taken() {
    let mut world = World::new();
    let count = super::table::REMOVED_MAX + 500;
    world.submit(upload((0..count).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    world.submit(change(Some(run()))).await;
    let queue = world.queue("b.example").await.expect("there").id;
    let entries = world.all(queue, 1_000).await;
    assert_eq!(entries.len(), count as usize);
    // All but row 7 of those that make the mark move; in any order.
    let taken = super::table::REMOVED_MAX as usize + 1;
    let mut settled = Vec::new();
    for entry in entries[..taken].iter().rev().filter(|e| seqs(std::slice::from_ref(e)) != [7]) {
        let (key, size, recipients, sent) = (entry.key, entry.size, entry.recipients, entry.sent);
        settled.push(Settled { queue, key, size, recipients, sent, next: Next::Done, events: Vec::new() });
    }
    world.opened.ledger.settle(Settle { settled, owed: Vec::new(), changes: Vec::new() }).expect("handed over");
    world.submit(vec![Change::PutState { key: b"x/y".to_vec(), value: Vec::new() }]).await;
    let mut rest = vec![7];
    rest.extend(taken as u32..count);
    for _ in 0..2 {
        assert_eq!(seqs(&world.all(queue, 300).await), rest);
        // The mark reaches the disk with the next change of its queue.
        let last = world.all(queue, 1_000).await.pop().expect("one");
        rest.pop();
        world.settle(queue, &last, EventKind::Delivered, Next::Done).await;
        let stored = {
            let value = world.opened.store.spaces().queues.get(super::keys::queue(queue)).expect("readable");
            super::records::decode_row(queue, &value.expect("there")).expect("readable")
        };
        assert_eq!(stored.2.mark, (0, 7));
        assert!(stored.2.high >= Some((0, count - 2)));
        world = world.restart().await;
    }
    assert_eq!(world.counts().await.fresh, rest.len() as u64);
    shut(world.opened).await;
}

/// A purge goes on after a restart, takes all of its campaign and nothing of another.
#[tokio::test]
async fn a_purge_takes_all_of_a_campaign() {
    let world = World::new();
    let count: u32 = 10_000;
    for from in (0..count).step_by(1_000) {
        world.submit(upload((from..from + 1_000).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    }
    let other = CampaignNo(8);
    let rows = vec![new_row(1, 0, "c.example")];
    world.submit(vec![Change::Rows(Box::new(NewRows { campaign: other, step: STEP, rows }))]).await;
    world.submit(change(Some(run()))).await;
    let queue = world.queue("b.example").await.expect("there").id;
    let entry = world.all(queue, 1).await.remove(0);
    world.submit(vec![Change::PurgeCampaign(CAMPAIGN)]).await;
    assert!(world.queue("b.example").await.is_none(), "at once");
    assert_eq!(world.opened.reader.run(CAMPAIGN, STEP).await.expect("readable"), (None, RunCounts::default()));
    let mut world = world.restart().await;
    // One that was in flight comes too late, whether its `sent` is gone by now or not.
    world.settle(queue, &entry, EventKind::Deferred, Next::Retry(later(&entry, 1))).await;
    let mut left = usize::MAX;
    for _ in 0..1_000 {
        let rows = world.opened.reader.rows(CAMPAIGN, None, 20_000).await.expect("readable").len();
        assert!(rows <= left);
        left = rows;
        let purges = world.opened.reader.state(super::keys::STATE_PURGE, 9).await.expect("readable");
        if purges.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(left, 0);
    let hashes = (0..count).map(|seq| hash(seq, "b.example")).collect();
    let sent = world.opened.reader.sent(CAMPAIGN, STEP, hashes).await.expect("readable");
    assert!(sent.iter().all(Option::is_none));
    assert!(world.queue("b.example").await.is_none());
    assert_eq!(world.opened.reader.rows(other, None, 9).await.expect("readable").len(), 1);
    assert_eq!(world.queue("c.example").await.expect("there").count, 1);
    let world = world.restart().await;
    assert!(world.opened.reader.state("rows/purge/", 9).await.expect("readable").is_empty());
    shut(world.opened).await;
}

/// A reroute: the row stands in another queue from then on, and is settled there.
#[tokio::test]
async fn a_row_moves_to_another_queue() {
    let mut world = World::new();
    world.submit(upload((0..2).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    world.submit(change(Some(run()))).await;
    let queue = world.queue("b.example").await.expect("there").id;
    let entries = world.all(queue, 9).await;
    let moved = NewDelivery { queue: key_of("c.example"), entry: entries[0].clone() };
    world.settle(queue, &entries[0], EventKind::Rerouted, Next::Move(moved)).await;
    let mut world = world.restart().await;
    let other = world.queue("c.example").await.expect("made").id;
    assert_eq!((seqs(&world.all(queue, 9).await), seqs(&world.all(other, 9).await)), (vec![1], vec![0]));
    let entry = world.all(other, 9).await.remove(0);
    assert_eq!(entry.sent, Some(hash(0, "b.example")));
    world.settle(other, &entry, EventKind::Delivered, Next::Done).await;
    assert_eq!(world.status(0).await, Some(SentStatus::Ended(EventKind::Delivered, NOW)));
    let events = [(EventKind::Rerouted, 1), (EventKind::Delivered, 1)];
    assert_eq!(world.counts().await, counted(2, 1, 0, 0, &events));
    shut(world.opened).await;
}

#[tokio::test]
async fn rows_and_tables_are_paged() {
    let world = World::new();
    let rows = (0..7).map(|seq| new_row(seq, 0, ["b.example", "c.example"][seq as usize % 2])).collect();
    world.submit(upload(rows)).await;
    let reader = &world.opened.reader;
    let mut found = Vec::new();
    loop {
        let page = reader.rows(CAMPAIGN, found.last().map(|row: &super::Row| row.id), 3).await.expect("readable");
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found.iter().map(|row| row.id.seq).collect::<Vec<_>>(), [0, 2, 4, 6, 1, 3, 5]);
    let one = reader.row(found[4].id).await.expect("readable").expect("there");
    assert_eq!((one.hash, &one.value[..]), (hash(1, "c.example"), &[b'v'; 11][..]));
    assert!(reader.row(RowId { seq: 99, ..one.id }).await.expect("readable").is_none());

    let put = |key: &str, value: &str| Change::Put { table: Table::Contacts, key: key.into(), value: value.into() };
    let remove = |key: &str| Change::Remove { table: Table::Contacts, key: key.into() };
    world.submit(vec![put("acme\0a", "1"), put("acme\0b", "2"), put("acme\0b", "3"), put("acmf\0c", "4")]).await;
    world.submit(vec![put("acme\0d", "5"), remove("acme\0a")]).await;
    let get = reader.table_get(Table::Contacts, vec![b"acme\0b".to_vec(), b"acme\0a".to_vec()]).await;
    assert_eq!(get.expect("readable"), [Some(Bytes::from_static(b"3")), None]);
    let none = reader.table_get(Table::Suppressions, vec![b"acme\0b".to_vec()]).await.expect("readable");
    assert_eq!(none, [None]);
    let first = reader.table_scan(Table::Contacts, "acme\0", None, 1).await.expect("readable");
    let rest = reader.table_scan(Table::Contacts, "acme\0", Some(first[0].0.to_vec()), 9).await.expect("readable");
    assert_eq!((&first[0].1[..], rest.len(), &rest[0].0[..]), (&b"3"[..], 1, &b"acme\0d"[..]));
    shut(world.opened).await;
}

/// Mail does not wait for an upload: what is uploaded at a time is split over commits, and all of it is on disk at the end.
#[tokio::test]
async fn uploads_at_a_time_are_all_there() {
    let world = World::new();
    let uploads = (0..40_u32).map(|n| {
        let ledger = world.opened.ledger.clone();
        let rows =
            (0..50).map(|i| NewRow { value: Bytes::from(vec![b'v'; 400]), ..new_row(n * 50 + i, 0, "b.example") });
        let rows = rows.collect();
        tokio::spawn(async move { ledger.submit(upload(rows)).await })
    });
    let uploads: Vec<_> = uploads.collect();
    for upload in uploads {
        upload.await.expect("it ended").expect("on disk");
    }
    let before = world.opened.report.last;
    assert_eq!(world.opened.reader.rows(CAMPAIGN, None, 9_999).await.expect("readable").len(), 2_000);
    let world = world.restart().await;
    assert_eq!((world.counts().await.fresh, world.opened.report.last), (2_000, before));
    shut(world.opened).await;
}

/// A person is erased: the row's value goes, it is not sent any more, and its events say no address; a restart breaks nothing off.
#[tokio::test]
async fn an_erasure_takes_the_person() {
    let mut world = World::new();
    world.submit(upload((0..3).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    world.submit(change(Some(run()))).await;
    let queue = world.queue("b.example").await.expect("there").id;
    let entries = world.all(queue, 9).await;
    world.settle(queue, &entries[0], EventKind::Deferred, Next::Retry(later(&entries[0], 1))).await;
    world.settle(queue, &later(&entries[0], 1), EventKind::Delivered, Next::Done).await;
    for n in 0..600 {
        let mut told = event(EventKind::Opened, entries[0].key.delivery.message, Some("R0@b.example"));
        told.reason = Some(format!("{n}").into());
        world.submit(vec![Change::Event(Box::new(told))]).await;
    }
    world.settle(queue, &entries[1], EventKind::Delivered, Next::Done).await;
    let erase = |index: usize| Change::EraseRow {
        id: RowId::of(entries[index].key.delivery.message).expect("a row"),
        hash: hash(index as u32, "b.example"),
        in_attempt: false,
    };
    let wrong = Change::EraseRow {
        id: RowId::of(entries[1].key.delivery.message).expect("a row"),
        hash: [0; 16],
        in_attempt: false,
    };
    let events = Change::EraseEvents { tenant: super::testing::name("acme"), hash: hash(0, "b.example") };
    world.submit(vec![erase(0), erase(2), wrong, events]).await;
    let world = world.restart().await;
    let reader = &world.opened.reader;
    let rows = reader.rows(CAMPAIGN, None, 9).await.expect("readable");
    assert_eq!(rows.iter().map(|row| row.value.len()).collect::<Vec<_>>(), [0, 11, 0]);
    assert_eq!(world.status(0).await, Some(SentStatus::Ended(EventKind::Delivered, NOW)));
    assert_eq!(world.status(2).await, Some(SentStatus::Ended(EventKind::Purged, NOW)));
    assert!(world.queue("b.example").await.is_none(), "nothing is left to send");
    assert_eq!(world.counts().await.fresh, 0);
    for _ in 0..1_000 {
        if reader.state(super::keys::STATE_ERASURE, 9).await.expect("readable").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let events = reader.events(crate::types::EventSeq(0), 999, None).await.expect("readable").events;
    assert_eq!(events.len(), 603, "none is missing");
    let named: Vec<_> = events.iter().filter_map(|e| e.recipient.as_ref()).map(|r| r.as_str()).collect();
    assert_eq!(named, ["r1@b.example"]);
    assert!(reader.trace_address(None, mailbox("r0@b.example"), 9).await.expect("readable").is_empty());
    assert_eq!(reader.trace_address(None, mailbox("r1@b.example"), 9).await.expect("readable").len(), 1);
    shut(world.opened).await;
}

/// An erasure does not call back what is in an attempt: it ends as that does, once, and its event names nobody. One whose attempt had begun
/// unseen was taken for not tried: how it ended counts.
#[tokio::test]
async fn a_row_in_an_attempt_keeps_its_end_when_it_is_erased() {
    let mut world = World::new();
    world.submit(upload((0..3).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    world.submit(change(Some(run()))).await;
    let queue = world.queue("b.example").await.expect("there").id;
    let entries = world.all(queue, 9).await;
    let id = |index: usize| RowId::of(entries[index].key.delivery.message).expect("a row");
    let erase = |index: usize, in_attempt: bool| {
        let hash = hash(index as u32, "b.example");
        let mut changes = vec![Change::EraseRow { id: id(index), hash, in_attempt }];
        if !in_attempt {
            changes.push(Change::Event(Box::new(event(EventKind::Purged, id(index).message_id(), None))));
        }
        changes.push(Change::EraseEvents { tenant: super::testing::name("acme"), hash });
        changes
    };
    world.submit(erase(0, true)).await;
    world.submit(erase(1, false)).await;
    world.submit(erase(2, false)).await;
    assert_eq!(world.status(0).await, Some(SentStatus::Waiting));
    for entry in &entries[..2] {
        world.settle(queue, entry, EventKind::Delivered, Next::Done).await;
    }
    assert_eq!(world.counts().await, counted(3, 0, 0, 0, &[(EventKind::Delivered, 2), (EventKind::Purged, 1)]));
    for index in 0..2 {
        assert!(matches!(world.status(index).await, Some(SentStatus::Ended(EventKind::Delivered, _))));
    }
    assert!(matches!(world.status(2).await, Some(SentStatus::Ended(EventKind::Purged, _))));
    let events = world.opened.reader.events(crate::types::EventSeq(0), 999, None).await.expect("readable").events;
    let delivered = events.iter().filter(|e| e.event == EventKind::Delivered).count();
    assert_eq!((delivered, events.iter().filter(|e| e.recipient.is_some()).count()), (2, 0));
    shut(world.opened).await;
}

/// A copy has the rows too, and goes on where the campaign was.
#[tokio::test]
async fn a_backup_has_the_rows() {
    let target = tempdir().expect("a folder");
    let mut world = World::new();
    world.submit(upload((0..3).map(|seq| new_row(seq, 0, "b.example")).collect())).await;
    world.submit(change(Some(run()))).await;
    world.submit(vec![Change::Put { table: Table::Suppressions, key: b"k".to_vec(), value: b"v".to_vec() }]).await;
    let queue = world.queue("b.example").await.expect("there").id;
    let entries = world.all(queue, 9).await;
    world.settle(queue, &entries[0], EventKind::Delivered, Next::Done).await;
    world.opened.store.backup(target.path(), |_| true).expect("copied");
    shut(world.opened).await;
    let opened = open_in(target.path());
    let world = World { dir: target, opened };
    assert_eq!(seqs(&world.all(queue, 9).await), [1, 2]);
    assert_eq!(world.counts().await, counted(3, 2, 0, 0, &[(EventKind::Delivered, 1)]));
    let get = world.opened.reader.table_get(Table::Suppressions, vec![b"k".to_vec()]).await.expect("readable");
    assert_eq!(get, [Some(Bytes::from_static(b"v"))]);
    shut(world.opened).await;
}
