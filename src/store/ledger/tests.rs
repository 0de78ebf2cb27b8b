//! The store as the engines see it: what is promised, and what a crash leaves of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::tempdir;

use super::super::testing::{
    NOW, accept, entry, event, id, mailbox, message, name, open_in, options, queue_key, settle, shut,
};
use super::super::{
    EventGap, Next, OpenError, Opened, QueueEntry, Refill, Space, SpaceProbe, StoreStatus, keys, open, records,
};
use super::*;
use crate::event::EventKind;
use crate::types::Timestamp;

/// All that waits in a queue, in pages of 100.
async fn all(opened: &Opened, queue: QueueId) -> Vec<QueueEntry> {
    let mut entries: Vec<QueueEntry> = Vec::new();
    loop {
        let after = entries.last().map(|e| e.key);
        let Refill { entries: page, exhausted } = opened.reader.refill(queue, after, 100).await.expect("readable");
        entries.extend(page);
        if exhausted {
            return entries;
        }
    }
}

async fn next_news(opened: &mut Opened) -> Vec<News> {
    opened.news.recv().await.expect("the ledger lives")
}

/// Asks again until it is so, for ten seconds.
async fn eventually(mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so().await {
        assert!(Instant::now() < deadline, "it never was so");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Copies the folder as a `kill -9` would leave it: what was written is there, nothing is closed.
fn crash_copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for item in std::fs::read_dir(from).expect("readable") {
        let item = item.expect("readable");
        let target = to.join(item.file_name());
        if item.file_type().expect("known").is_dir() {
            crash_copy(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).expect("copied");
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let (dir, copy) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let mut opened = open_in(dir.path());
    assert!(opened.report.created && opened.report.cut.is_none());
    opened.ledger.submit(accept(message(1, &["a@b.example"], b"one"))).await.expect("on disk");
    opened.ledger.submit(accept(message(2, &["a@b.example"], b"two"))).await.expect("on disk");
    let queue = match &next_news(&mut opened).await[0] {
        News::Queued { queue, message: Some(message), key, .. } => {
            assert_eq!((&message.body[..], &**key), (&b"one"[..], &queue_key("b.example")));
            *queue
        }
        other => panic!("{other:?}"),
    };
    let done = event(EventKind::Delivered, id(1), Some("a@b.example"));
    let first = entry(1, 0, NOW.as_millis(), 3, 1);
    opened.ledger.settle(settle(queue, &first, Next::Done, vec![done])).expect("handed over");
    let mut seen = Vec::new();
    while !seen.iter().any(|n| matches!(n, News::Settled { .. })) {
        seen = next_news(&mut opened).await;
    }
    crash_copy(dir.path(), &copy.path().join("x"));

    let again = open_in(&copy.path().join("x"));
    assert_eq!(again.report.last, EventSeq(3));
    assert!(again.report.cut.is_none(), "{:?}", again.report);
    assert_eq!((again.report.queues, again.report.recipients), (1, 1));
    assert_eq!((again.queues[0].count, again.queues[0].bytes, again.queues[0].id), (1, 3, queue));
    assert!(again.reader.message(id(1)).await.expect("readable").is_none(), "settled, so it is gone");
    let two = again.reader.message(id(2)).await.expect("readable").expect("still there");
    assert_eq!((&two.body[..], two.envelope.tenant.as_str()), (&b"two"[..], "acme"));
    assert_eq!(all(&again, queue).await, vec![entry(2, 0, NOW.as_millis(), 3, 1)]);
    let page = again.reader.events(EventSeq(0), 10, None).await.expect("readable");
    let kinds: Vec<_> = page.events.iter().map(|e| (e.seq.0, e.event)).collect();
    assert_eq!(kinds, [(1, EventKind::Accepted), (2, EventKind::Accepted), (3, EventKind::Delivered)]);
    // The next numbers go on where the old ones ended.
    again.ledger.submit(accept(message(3, &["a@c.example"], b"x"))).await.expect("on disk");
    assert_eq!(again.reader.events_tail(), EventSeq(4));
    shut(again).await;
    shut(opened).await;
}

#[tokio::test]
async fn a_cut_journal_is_told_and_its_numbers_are_not_used_again() {
    let (dir, copy) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let opened = open_in(dir.path());
    for n in 0..5 {
        opened.ledger.submit(accept(message(n, &["a@b.example"], b"x"))).await.expect("on disk");
    }
    crash_copy(dir.path(), &copy.path().join("x"));
    shut(opened).await;
    // The mark of the later moment beside the journal of the earlier one, damaged in its middle.
    let target = copy.path().join("x");
    std::fs::copy(dir.path().join("ledger.mark"), target.join("ledger.mark")).expect("copied");
    let journal = target.join("store/0.jnl");
    let mut octets = std::fs::read(&journal).expect("readable");
    let used = octets.iter().rposition(|b| *b != 0).expect("written to");
    octets.truncate(used / 2);
    std::fs::write(&journal, octets).expect("writable");

    let again = open_in(&target);
    let cut = again.report.cut.expect("it was cut");
    assert!(cut.commits > 0 && cut.events > 0, "{cut:?}");
    assert_eq!(again.report.last, EventSeq(5), "readers have seen up to 5");
    again.ledger.submit(accept(message(9, &["a@b.example"], b"x"))).await.expect("on disk");
    assert_eq!(again.reader.events_tail(), EventSeq(6));
    shut(again).await;
    let again = open_in(&target);
    assert!(again.report.cut.is_none(), "told once: {:?}", again.report);
    shut(again).await;
}

#[tokio::test]
async fn many_submitters_share_commits() {
    let dir = tempdir().expect("a folder");
    let options = options(dir.path());
    let metrics = options.metrics.clone();
    let opened = open(options).expect("it opens");
    let mut tasks = Vec::new();
    for task in 0..64 {
        let ledger = opened.ledger.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0..20 {
                ledger.submit(accept(message(task * 100 + n, &["a@b.example"], b"x"))).await.expect("on disk");
            }
        }));
    }
    for task in tasks {
        task.await.expect("it ended");
    }
    assert_eq!(opened.reader.events_tail(), EventSeq(64 * 20));
    assert!(metrics.commits.get() < 64 * 20 / 8, "{} commits", metrics.commits.get());
    shut(opened).await;
}

/// A submitter that is alone gains nothing by waiting for others.
#[test]
fn the_pace() {
    let mut pace = Pace::new();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(pace.wait(at(0), 1, false), None, "idle: at once");
    pace.committed(at(0), 1);
    assert_eq!(pace.wait(at(1), 1, false), None, "alone: at once");
    assert_eq!(pace.wait(at(1), 0, false), Some(Duration::from_millis(2)), "outcomes can wait");
    pace.committed(at(1), 40);
    assert_eq!(pace.wait(at(2), 1, false), Some(Duration::from_millis(2)), "39 more are to come");
    assert_eq!(pace.wait(at(2), 40, false), None, "all are there");
    assert_eq!(pace.wait(at(2), 1, true), None, "full");
    assert_eq!(pace.wait(at(4), 1, false), None, "they did not come");
    for _ in 0..40 {
        pace.committed(at(4), 1);
    }
    assert_eq!(pace.wait(at(5), 1, false), None, "alone again");
}

#[tokio::test]
async fn low_space_refuses_mail_and_lets_outcomes_through() {
    let dir = tempdir().expect("a folder");
    let free = Arc::new(AtomicU64::new(10 << 30));
    let given = free.clone();
    let space = move || Space { free: given.load(Ordering::Relaxed), total: 1 << 40, inodes_free: 0, inodes: 0 };
    let mut options = options(dir.path());
    options.space = SpaceProbe::Given(Arc::new(space));
    let mut opened = open(options).expect("it opens");
    opened.ledger.submit(accept(message(1, &["a@b.example"], b"x"))).await.expect("on disk");
    let News::Queued { queue, entry, .. } = next_news(&mut opened).await.remove(0) else { panic!("queued") };

    free.store(1 << 29, Ordering::Relaxed);
    opened.status.wait_for(|s| matches!(s, StoreStatus::LowSpace { .. })).await.expect("told");
    let refused = opened.ledger.submit(accept(message(2, &["a@b.example"], b"x"))).await;
    assert_eq!(refused, Err(SubmitError::LowSpace { free: 1 << 29, min_free: 1 << 30 }));
    let small = Change::PutState { key: b"suspension/1".to_vec(), value: b"{}".to_vec() };
    assert_eq!(opened.ledger.submit(vec![small.clone()]).await, Ok(()), "an operator can still act");
    opened.ledger.settle(settle(queue, &entry, Next::Done, vec![])).expect("handed over");
    let told = loop {
        let news = next_news(&mut opened).await;
        if !news.is_empty() {
            break news;
        }
    };
    assert!(matches!(told[0], News::Settled { .. }));

    free.store(1 << 20, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(opened.ledger.submit(vec![small]).await.is_err(), "nearly nothing is left");
    free.store(10 << 30, Ordering::Relaxed);
    opened.status.wait_for(|s| *s == StoreStatus::Good).await.expect("told");
    opened.ledger.submit(accept(message(3, &["a@b.example"], b"x"))).await.expect("on disk");
    shut(opened).await;
}

#[tokio::test]
async fn a_second_opener_and_a_newer_format_are_refused() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let refused = open(options(dir.path())).err().expect("locked");
    let text = refused.to_string();
    assert!(text.contains("in use by another posthaste (pid"), "{text}");
    for folder in [dir.path().join("store"), dir.path().join("lock")] {
        let mode = std::fs::metadata(&folder).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "nobody else reads mail: {}", folder.display());
    }
    let newer = Change::PutState { key: keys::STATE_FORMAT.to_vec(), value: records::encode_count(2) };
    opened.ledger.submit(vec![newer]).await.expect("on disk");
    shut(opened).await;
    let refused = open(options(dir.path())).err().expect("newer");
    assert!(matches!(refused, OpenError::Newer { found: 2 }), "{refused}");
}

#[tokio::test]
async fn the_last_of_several_recipients_takes_the_message_along() {
    let dir = tempdir().expect("a folder");
    let mut opened = open_in(dir.path());
    let new = message(1, &["a@b.example", "c@b.example", "d@e.example"], b"x");
    opened.ledger.submit(accept(new)).await.expect("on disk");
    let mut queued = Vec::new();
    for news in next_news(&mut opened).await {
        let News::Queued { queue, entry, .. } = news else { panic!("queued") };
        queued.push((queue, entry));
    }
    assert_eq!(queued.len(), 3);
    // Two at once, one of them twice: the second time changes nothing.
    for (queue, entry) in [&queued[0], &queued[1], &queued[0]] {
        let events = vec![event(EventKind::Delivered, id(1), Some("a@b.example"))];
        opened.ledger.settle(settle(*queue, entry, Next::Done, events)).expect("handed over");
    }
    let mut settled = 0;
    while settled < 3 {
        settled += next_news(&mut opened).await.len();
    }
    assert!(opened.reader.message(id(1)).await.expect("readable").is_some(), "one is left");
    assert_eq!(opened.reader.events_tail(), EventSeq(3), "the second settling told nothing");
    assert_eq!(opened.reader.state(keys::STATE_LEFT, 10).await.expect("readable").len(), 1);
    let (queue, entry) = &queued[2];
    opened.ledger.settle(settle(*queue, entry, Next::Done, vec![])).expect("handed over");
    next_news(&mut opened).await;
    assert!(opened.reader.message(id(1)).await.expect("readable").is_none());
    assert_eq!(opened.reader.state(keys::STATE_LEFT, 10).await.expect("readable").len(), 0);
    assert_eq!(opened.reader.queues().await.expect("readable").len(), 0);
    shut(opened).await;
}

#[tokio::test]
async fn retries_and_moves_change_the_place() {
    let dir = tempdir().expect("a folder");
    let mut opened = open_in(dir.path());
    opened.ledger.submit(accept(message(1, &["a@b.example"], b"x"))).await.expect("on disk");
    let News::Queued { queue, entry: first, .. } = next_news(&mut opened).await.remove(0) else { panic!("queued") };
    let later = QueueEntry { attempts: 1, ..entry(1, 0, NOW.as_millis() + 60_000, 1, 1) };
    // The same place again, and then a later one, in one batch.
    let same = QueueEntry { attempts: 9, ..first.clone() };
    opened.ledger.settle(settle(queue, &first, Next::Retry(same.clone()), vec![])).expect("handed over");
    opened.ledger.settle(settle(queue, &same, Next::Retry(later.clone()), vec![])).expect("handed over");
    eventually(async || all(&opened, queue).await == [later.clone()]).await;
    let moved = super::super::NewDelivery { queue: queue_key("other.example"), entry: later.clone() };
    opened.ledger.settle(settle(queue, &later, Next::Move(moved), vec![])).expect("handed over");
    eventually(async || all(&opened, queue).await.is_empty()).await;
    let rows = opened.reader.queues().await.expect("readable");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].key.domain.as_str(), rows[0].count, rows[0].next_due), ("other.example", 1, later.key.due));
    assert_eq!(all(&opened, rows[0].id).await, [later]);
    shut(opened).await;
}

#[tokio::test]
async fn news_without_room_become_dirty_queues() {
    let dir = tempdir().expect("a folder");
    let mut options = options(dir.path());
    options.news_max = 1;
    let metrics = options.metrics.clone();
    let mut opened = open(options).expect("it opens");
    let recipients: &[&str] = &["a@b.example"];
    for n in 0..3 {
        opened.ledger.submit(accept(message(n, recipients, b"x"))).await.expect("on disk");
    }
    eventually(async || metrics.news_dropped.get() == 2).await;
    let News::Queued { queue, entry, .. } = next_news(&mut opened).await.remove(0) else { panic!("queued") };
    // An outcome is never forgotten, however full it is.
    opened.ledger.settle(settle(queue, &entry, Next::Done, vec![])).expect("handed over");
    // Who follows the news knows the count: one was told.
    let (mut dirty, mut settled, mut count) = (Vec::new(), 0, 1);
    while settled == 0 || dirty.is_empty() {
        for news in next_news(&mut opened).await {
            match news {
                News::Dirty { queues } => {
                    count = queues[0].count;
                    dirty.extend(queues);
                }
                News::Settled { .. } => {
                    settled += 1;
                    count -= 1;
                }
                News::Queued { .. } | News::Run { .. } => panic!("there was no room"),
            }
        }
    }
    assert_eq!((dirty[0].id, dirty[0].key.domain.as_str(), count), (queue, "b.example", 2));
    assert_eq!(all(&opened, queue).await.len(), 2);
    shut(opened).await;
}

#[tokio::test]
async fn old_days_are_dropped_and_a_lagging_reader_is_told() {
    let dir = tempdir().expect("a folder");
    let options = options(dir.path());
    let clock = options.clock.clone();
    let opened = open(options).expect("it opens");
    for n in 0..6 {
        opened.ledger.submit(accept(message(n, &["a@b.example"], b"x"))).await.expect("on disk");
        clock.advance(Duration::from_secs(86_400));
    }
    let today = clock.now().day();
    assert_eq!(opened.store.spaces().drop_days_before(today - 3, today).expect("dropped"), 3);
    let page = opened.reader.events(EventSeq(1), 2, None).await.expect("readable");
    assert_eq!(page.gap, Some(EventGap { from: EventSeq(2), to: EventSeq(3) }));
    assert_eq!(page.events.iter().map(|e| e.seq.0).collect::<Vec<_>>(), [4, 5]);
    assert!(page.more);
    let page = opened.reader.events(page.next, 2, None).await.expect("readable");
    assert_eq!((page.gap, page.events.len(), page.more), (None, 1, false));
    let from_start = opened.reader.events(EventSeq(0), 9, None).await.expect("readable");
    assert_eq!((from_start.gap, from_start.events.len()), (None, 3));
    let other = opened.reader.events(EventSeq(0), 9, Some(name("other"))).await.expect("readable");
    assert_eq!((other.events.len(), other.next), (0, EventSeq(6)));
    shut(opened).await;
    let again = open_in(dir.path());
    assert!(again.report.cut.is_none(), "{:?}", again.report);
    assert_eq!(again.reader.events(EventSeq(3), 9, None).await.expect("readable").events.len(), 3);
    shut(again).await;
}

#[tokio::test]
async fn a_trace_tells_the_whole_life() {
    let dir = tempdir().expect("a folder");
    let mut opened = open_in(dir.path());
    opened.ledger.submit(accept(message(1, &["a@b.example"], b"x"))).await.expect("on disk");
    opened.ledger.submit(accept(message(2, &["A@B.example", "c@b.example"], b"x"))).await.expect("on disk");
    let News::Queued { queue, entry: first, .. } = next_news(&mut opened).await.remove(0) else { panic!("queued") };
    let later = entry(1, 0, NOW.as_millis() + 60_000, 1, 1);
    let deferred = event(EventKind::Deferred, id(1), Some("a@b.example"));
    opened.ledger.settle(settle(queue, &first, Next::Retry(later.clone()), vec![deferred])).expect("handed over");
    let bounced = event(EventKind::Bounced, id(1), Some("a@b.example"));
    opened.ledger.settle(settle(queue, &later, Next::Done, vec![bounced])).expect("handed over");
    opened.reader.committed().wait_for(|seq| seq.0 == 4).await.expect("told");

    let kinds = |events: Vec<crate::event::Event>| events.iter().map(|e| (e.seq.0, e.event)).collect::<Vec<_>>();
    use EventKind::{Accepted, Bounced, Deferred};
    let life = opened.reader.trace_message(id(1), 100).await.expect("readable");
    assert_eq!(kinds(life), [(1, Accepted), (3, Deferred), (4, Bounced)]);
    // By address: whoever's spelling, the newest first, of all tenants or one.
    let all = [(4, Bounced), (3, Deferred), (2, Accepted), (1, Accepted)];
    for tenant in [None, Some(name("acme"))] {
        let found = opened.reader.trace_address(tenant, mailbox("A@b.EXAMPLE"), 100).await.expect("readable");
        assert_eq!(kinds(found), all);
    }
    let two = opened.reader.trace_address(None, mailbox("a@b.example"), 2).await.expect("readable");
    assert_eq!(kinds(two), all[..2]);
    let none = opened.reader.trace_address(Some(name("acm")), mailbox("a@b.example"), 9).await.expect("readable");
    assert_eq!(kinds(none), []);
    assert_eq!(kinds(opened.reader.trace_message(id(7), 9).await.expect("readable")), []);
    shut(opened).await;
}

/// A million tombstones before the first entry cost a scan 0.4 s: the watermark passes them.
#[tokio::test]
async fn the_watermark_follows_what_is_gone() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let total = u64::from(super::super::table::REMOVED_MAX) + 500;
    let accept_due = |n: u64, due: u64| {
        let mut new = message(n, &["a@b.example"], b"x");
        new.deliveries[0].entry.key.due = Timestamp::from_millis(due);
        Change::Accept(Box::new(new))
    };
    opened.ledger.submit((0..total).map(|n| accept_due(n, 1_000 + n)).collect()).await.expect("on disk");
    let queue = opened.reader.queues().await.expect("readable")[0].id;
    for n in 0..total - 100 {
        let entry = entry(n, 0, 1_000 + n, 1, 1);
        opened.ledger.settle(settle(queue, &entry, Next::Done, vec![])).expect("handed over");
    }
    let mut n = total;
    eventually(async || {
        // Another commit takes the moved watermark along.
        n += 1;
        opened.ledger.submit(vec![accept_due(n, 9_999_999)]).await.expect("on disk");
        let value = opened.store.spaces().queues.get(keys::queue(queue)).expect("readable").expect("a row");
        let (row, watermark, _) = records::decode_row(queue, &value).expect("readable");
        let most = 1_000 + total - 100;
        assert!(watermark.due.as_millis() <= most, "nothing stands before it");
        row.count == 100 + (n - total) && watermark.due.as_millis() > 1_000
    })
    .await;
    assert_eq!(all(&opened, queue).await.first().map(|e| e.key.due.as_millis()), Some(1_000 + total - 100));
    // What comes in before the watermark is found too.
    opened.ledger.submit(vec![accept_due(n + 1, 7)]).await.expect("on disk");
    assert_eq!(all(&opened, queue).await[0].key.due.as_millis(), 7);
    shut(opened).await;
}

#[tokio::test]
async fn cursors_are_kept() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let hook = name("hook");
    assert_eq!(opened.reader.cursor(&hook).await, Ok(EventSeq(0)));
    opened.ledger.save_cursor(&hook, EventSeq(7)).await.expect("on disk");
    shut(opened).await;
    let opened = open_in(dir.path());
    assert_eq!(opened.reader.cursor(&hook).await, Ok(EventSeq(7)));
    opened.ledger.remove_cursor(&hook).await.expect("on disk");
    assert_eq!(opened.reader.cursor(&hook).await, Ok(EventSeq(0)));
    shut(opened).await;
}

#[tokio::test]
async fn idempotency_records_expire() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let put = |key: &[u8]| Change::PutState { key: key.to_vec(), value: b"v".to_vec() };
    let twice = vec![put(b"idempotency/acme/1"), put(b"idempotency/acme/1"), put(b"cursor/hook")];
    opened.ledger.submit(twice).await.expect("on disk");
    let spaces = opened.store.spaces();
    let soon = NOW.after(Duration::from_secs(71 * 3_600));
    assert!(super::super::house::expired(spaces, soon).expect("readable").is_empty());
    let later = NOW.after(Duration::from_secs(73 * 3_600));
    let expired = super::super::house::expired(spaces, later).expect("readable");
    assert!(expired.contains(&b"idempotency/acme/1".to_vec()), "{expired:?}");
    assert_eq!(expired.len(), 2, "the record and what says that it expires");
    assert_eq!(opened.reader.state_get("cursor/hook").await.expect("readable").as_deref(), Some(&b"v"[..]));
    shut(opened).await;
}

#[tokio::test]
async fn after_a_shutdown_and_a_failure_submitters_are_told_which() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let ledger = opened.ledger.clone();
    // What is in the channel at a shutdown is still written.
    let waiting = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.submit(accept(message(1, &["a@b.example"], b"x"))).await }
    });
    tokio::task::yield_now().await;
    ledger.shutdown().await;
    assert_eq!(waiting.await.expect("it ended"), Ok(()));
    assert_eq!(ledger.submit(vec![]).await, Err(SubmitError::ShuttingDown));
    drop(ledger);
    shut(opened).await;
}

/// A disk that fails under a commit: those who wait, those who come and the daemon are all told.
#[tokio::test]
async fn a_failed_commit_ends_everything() {
    let dir = tempdir().expect("a folder");
    let options = options(dir.path());
    let clock = options.clock.clone();
    let opened = open(options).expect("it opens");
    opened.ledger.submit(accept(message(1, &["a@b.example"], b"x"))).await.expect("on disk");
    let mut status = opened.status.clone();
    // The folder of the keyspaces is gone: the next day's keyspaces can't be made.
    std::fs::remove_dir_all(dir.path().join("store")).expect("removed");
    clock.advance(Duration::from_secs(86_400));
    let told = opened.ledger.submit(accept(message(2, &["a@b.example"], b"x"))).await;
    assert!(matches!(told, Err(SubmitError::Failed(_))), "{told:?}");
    status.wait_for(|s| matches!(s, StoreStatus::Failed(_))).await.expect("told");
    let told = opened.ledger.submit(vec![]).await;
    assert!(matches!(told, Err(SubmitError::Failed(_))), "{told:?}");
    assert!(matches!(opened.ledger.settle(Settle::default()), Err(SubmitError::Failed(_))));
}

/// An idle keyspace pins journals: after a quiet minute everything is flushed, and nothing is lost by it.
#[tokio::test]
async fn a_quiet_minute_flushes_everything() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    for n in 0..50 {
        opened.ledger.submit(accept(message(n, &["a@b.example"], &[b'x'; 4_000]))).await.expect("on disk");
    }
    let spaces = opened.store.spaces();
    let (mark, _) = super::super::house::Mark::open(&dir.path().join("other.mark")).expect("made");
    let mut house = House::new(mark, 3, None, NOW);
    house.mark(Last { commit: 50, ..Last::default() });
    house.unpin(spaces, 1).expect("the first look");
    house.unpin(spaces, 1).expect("a minute later");
    while spaces.all().iter().any(|(_, space)| space.sealed_memtable_count() > 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let written = |space: &fjall::Keyspace| space.first_key_value().is_some();
    assert!(spaces.all().iter().filter(|(_, s)| written(s)).count() >= 6, "all but what campaigns need");
    assert!(spaces.all().iter().all(|(_, s)| s.table_count() > 0 || !written(s)), "each has something on disk");
    let found = opened.reader.message(id(49)).await.expect("readable").expect("there");
    assert_eq!(found.body.len(), 4_000);
    shut(opened).await;
    let opened = open_in(dir.path());
    assert_eq!((opened.report.recipients, opened.report.cut), (50, None));
    shut(opened).await;
}

/// A commit that never ends is told by another thread.
#[tokio::test]
async fn a_hanging_commit_is_a_failure() {
    let failed = Arc::default();
    let metrics = crate::metrics::store::StoreMetrics::register(&crate::metrics::Registry::new());
    let shared = Shared::new(metrics, failed, 0);
    assert_eq!(shared.commit_millis(), 0);
    shared.commit_begins();
    std::thread::sleep(Duration::from_millis(20));
    assert!(shared.commit_millis() >= 20);
    shared.commit_ends();
    assert_eq!(shared.commit_millis(), 0);
    let mut status = shared.watch();
    shared.fail("it hangs");
    shared.fail("another reason");
    shared.set_free(0, true);
    let told = status.wait_for(|s| *s != StoreStatus::Good).await.expect("told").clone();
    assert_eq!(told, StoreStatus::Failed("it hangs".into()), "the first reason stays, whatever comes");
    assert_eq!(shared.failure(), Some(SubmitError::Failed("it hangs".into())));
}
