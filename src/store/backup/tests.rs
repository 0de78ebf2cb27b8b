//! A copy of a store in use is a store.

use tempfile::tempdir;

use super::super::testing::{accept, id, mailbox, message, open_in, shut};
use super::*;
use crate::types::EventSeq;

const BODY: &[u8] = &[b'x'; 5_000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_starts_on_a_backup() {
    let (dir, target) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let opened = open_in(dir.path());
    for n in 0..2_000 {
        let new = message(n, &["a@b.example"], BODY);
        opened.ledger.submit(accept(new)).await.expect("on disk");
    }
    let store = opened.store.clone();
    let to = target.path().to_owned();
    let mut calls = 0;
    let copying = tokio::task::spawn_blocking(move || {
        let report = store.backup(&to, |progress| {
            calls += 1;
            progress.of_bytes > 0
        });
        (report, calls)
    });
    // The store goes on while it is copied.
    for n in 2_000..2_200 {
        opened.ledger.submit(accept(message(n, &["a@b.example"], BODY))).await.expect("on disk");
    }
    let (report, calls) = copying.await.expect("it ended");
    let report = report.expect("copied").expect("not broken off");
    assert!(report.records > 2_000 * 5 && report.bytes > 2_000 * 5_000, "{report:?}");
    assert!(calls > 0);
    let again = opened.store.backup(target.path(), |_| true);
    assert!(matches!(again, Err(BackupError::Exists(_))));
    shut(opened).await;

    let restored = open_in(target.path());
    assert!(restored.report.cut.is_none() && !restored.report.created, "{:?}", restored.report);
    let last = restored.report.last;
    assert!((2_000..=2_200).contains(&last.0), "{last:?}");
    assert_eq!(restored.report.recipients, last.0, "one moment: as many events as recipients");
    let found = restored.reader.message(id(1_999)).await.expect("readable").expect("there");
    assert_eq!(found.body, BODY);
    let page = restored.reader.events(EventSeq(1_990), 5, None).await.expect("readable");
    assert_eq!(page.events.len(), 5);
    assert_eq!(restored.reader.trace_address(None, mailbox("a@b.example"), 7).await.expect("readable").len(), 7);
    // And it is written on.
    restored.ledger.submit(accept(message(9_999, &["a@b.example"], BODY))).await.expect("on disk");
    assert_eq!(restored.reader.events_tail().0, last.0 + 1);
    shut(restored).await;
}

#[tokio::test]
async fn a_backup_that_is_broken_off_leaves_nothing() {
    let (dir, target) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    let opened = open_in(dir.path());
    for n in 0..1_000 {
        opened.ledger.submit(accept(message(n, &["a@b.example"], BODY))).await.expect("on disk");
    }
    assert_eq!(opened.store.backup(target.path(), |_| false).expect("no error"), None);
    assert_eq!(std::fs::read_dir(target.path()).expect("readable").count(), 0);
    shut(opened).await;
}
