//! Days of the log under clocks that jump.

use std::path::Path;
use std::time::Duration;

use tempfile::tempdir;

use super::super::house::{House, Mark};
use super::super::testing::{NOW, accept, id, mailbox, message, options, shut};
use super::super::{Opened, open};
use crate::seam::clock::Clock;
use crate::types::{EventSeq, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
const RETENTION: u32 = 3;

/// A start under a clock that says this.
fn start(dir: &Path, now: Timestamp) -> Opened {
    let mut options = options(dir);
    options.clock = Clock::manual(now);
    open(options).expect("it opens")
}

async fn accept_one(opened: &Opened, n: u64) {
    opened.ledger.submit(accept(message(n, &["a@b.example"], b"x"))).await.expect("on disk");
}

fn labels(opened: &Opened) -> Vec<String> {
    opened.store.spaces().days.load().iter().map(|day| day.label.to_string()).collect()
}

/// The sequences that a reader gets who reads one event a page.
async fn read(opened: &Opened, mut after: EventSeq) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let page = opened.reader.events(after, 1, None).await.expect("readable");
        found.extend(page.events.iter().map(|e| e.seq.0));
        if page.events.is_empty() && !page.more {
            return found;
        }
        after = page.next;
    }
}

/// The house of a daemon that was started at `started`.
fn house(dir: &Path, opened: &Opened, started: Timestamp) -> House {
    let (mark, _) = Mark::open(&dir.join("other.mark")).expect("made");
    House::new(mark, RETENTION, opened.store.spaces().believed_day(), started)
}

/// One commit under a clock 30 days ahead once took all later events into that far day, until it came.
#[tokio::test]
async fn days_follow_a_clock_that_went_ahead_and_came_back() {
    let (dir, today) = (tempdir().expect("a folder"), NOW.day());
    let mut started = start(dir.path(), NOW);
    accept_one(&started, 1).await;
    shut(started).await;

    let ahead = NOW.after(30 * DAY);
    started = start(dir.path(), ahead);
    let mut keeper = house(dir.path(), &started, ahead);
    accept_one(&started, 2).await;
    assert_eq!(keeper.drop_days(started.store.spaces(), ahead).expect("looked"), 0, "the log is not dropped at once");
    shut(started).await;
    // Not even where it starts again and again.
    started = start(dir.path(), ahead);
    keeper = house(dir.path(), &started, ahead);
    assert_eq!(keeper.drop_days(started.store.spaces(), ahead).expect("looked"), 0);
    shut(started).await;

    for n in 0..5_u32 {
        let now = NOW.after(n * DAY);
        started = start(dir.path(), now);
        accept_one(&started, 3 + u64::from(n)).await;
        assert_eq!(read(&started, EventSeq(0)).await.len() as u32, 3 + n, "all are found, across every jump");
        assert_eq!(read(&started, EventSeq(1)).await.len() as u32, 2 + n);
        shut(started).await;
    }
    started = start(dir.path(), NOW.after(4 * DAY));
    let wanted = [0, 30].map(|d| format!("{}", today + d)).into_iter().chain([format!("{today}.1")]);
    let wanted: Vec<_> = wanted.chain((1..5).map(|d| format!("{}", today + d))).collect();
    assert_eq!(labels(&started), wanted);
    let trace = started.reader.trace_address(None, mailbox("a@b.example"), 99).await.expect("readable");
    assert_eq!(trace.len(), 7);
    for n in 1..=7 {
        assert_eq!(started.reader.trace_message(id(n), 9).await.expect("readable").len(), 1, "message {n}");
    }

    // The far day goes with its neighbours, and nothing younger than the retention does.
    let keeper = house(dir.path(), &started, NOW.after(4 * DAY));
    assert_eq!(keeper.drop_days(started.store.spaces(), NOW.after(3 * DAY)).expect("dropped"), 2);
    assert_eq!(labels(&started)[0], format!("{today}.1"));
    assert_eq!(keeper.drop_days(started.store.spaces(), NOW.after(4 * DAY)).expect("dropped"), 1);
    assert_eq!(read(&started, EventSeq(0)).await, [4, 5, 6, 7]);
    assert_eq!(keeper.drop_days(started.store.spaces(), NOW.after(40 * DAY)).expect("dropped"), 3, "the newest stays");
    // A day whose name was in use once, and dropped, comes for the first time by a clock that is right.
    let day = started.store.spaces().day(today + 30, EventSeq(8)).expect("made");
    assert_eq!(day.label.to_string(), format!("{}", today + 30));
    shut(started).await;
}

/// A board without a battery begins in 1970: what it writes before it knows the time must not go when it does.
#[tokio::test]
async fn what_was_written_under_a_clock_that_ran_behind_is_kept() {
    let dir = tempdir().expect("a folder");
    let mut started = start(dir.path(), Timestamp::from_millis(60_000));
    accept_one(&started, 1).await;
    shut(started).await;
    started = start(dir.path(), NOW);
    accept_one(&started, 2).await;
    let keeper = house(dir.path(), &started, NOW);
    for (days, dropped) in [(0, 0), (1, 0), (2, 0), (3, 1)] {
        let now = NOW.after(days * DAY);
        assert_eq!(keeper.drop_days(started.store.spaces(), now).expect("looked"), dropped, "after {days} days");
    }
    shut(started).await;
}

/// After a long downtime retention lags a day, not for ever.
#[tokio::test]
async fn a_clock_far_ahead_is_believed_after_a_day() {
    let dir = tempdir().expect("a folder");
    let mut started = start(dir.path(), NOW);
    accept_one(&started, 1).await;
    shut(started).await;
    let later = NOW.after(30 * DAY);
    started = start(dir.path(), later);
    let keeper = house(dir.path(), &started, later);
    accept_one(&started, 2).await;
    started.store.spaces().day(later.day() + 1, EventSeq(3)).expect("made");
    for (hours, dropped) in [(0_u32, 0), (23, 0), (24 * 3, 1)] {
        let now = later.after(hours * Duration::from_secs(3_600));
        assert_eq!(keeper.drop_days(started.store.spaces(), now).expect("looked"), dropped, "after {hours} hours");
    }
    shut(started).await;
}

#[tokio::test]
async fn a_clock_that_swings_makes_a_bounded_number_of_days() {
    let dir = tempdir().expect("a folder");
    let started = start(dir.path(), NOW);
    let spaces = started.store.spaces();
    for n in 0..200 {
        let number = NOW.day() + if n % 2 == 0 { 0 } else { 30 };
        spaces.day(number, EventSeq(n + 1)).expect("made");
    }
    assert!(labels(&started).len() <= 33, "{:?}", labels(&started));
    shut(started).await;
}
