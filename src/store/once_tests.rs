//! What is done once, and what is done at the n-th time: by any number of submitters, and after a restart.

use std::time::Duration;

use tempfile::tempdir;

use super::testing::{NOW, event, open_in, shut};
use super::{Change, Table};
use crate::event::EventKind;
use crate::types::MessageId;

const DAY: Duration = Duration::from_secs(86_400);

fn put(value: u8) -> Change {
    Change::Put { table: Table::Suppressions, key: b"a\0key".to_vec(), value: vec![value] }
}

fn once(value: u8) -> Vec<Change> {
    let told = Change::Event(Box::new(event(EventKind::Complained, MessageId::new(NOW, 1), Some("a@b.example"))));
    vec![Change::Once { key: b"report".to_vec(), remember: DAY, changes: vec![put(value), told] }]
}

fn tally(value: u8) -> Vec<Change> {
    vec![Change::Tally { key: b"soft".to_vec(), at: 3, within: DAY, changes: vec![put(value)] }]
}

#[tokio::test]
async fn what_is_done_once_is_done_once_in_one_batch_in_many_and_after_a_restart() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let (a, b) = tokio::join!(opened.ledger.submit(once(1)), opened.ledger.submit(once(2)));
    a.and(b).expect("stored");
    opened.ledger.submit(once(3)).await.expect("stored");
    shut(opened).await;
    let opened = open_in(dir.path());
    opened.ledger.submit(once(4)).await.expect("stored");
    let value = opened.reader.table_get(Table::Suppressions, vec![b"a\0key".to_vec()]).await.expect("read");
    assert_eq!(value[0].as_deref(), Some(&[1][..]));
    let events = opened.reader.events(crate::types::EventSeq(0), 10, None).await.expect("read");
    assert_eq!(events.events.len(), 1);
    shut(opened).await;
}

#[tokio::test]
async fn a_tally_acts_at_its_number_and_begins_anew() {
    let dir = tempdir().expect("a folder");
    let opened = open_in(dir.path());
    let read = async |opened: &super::Opened| {
        let keys = vec![b"a\0key".to_vec()];
        opened.reader.table_get(Table::Suppressions, keys).await.expect("read")[0].as_deref().map(|v| v[0])
    };
    for (value, want) in [(1, None), (2, None), (3, Some(3)), (4, Some(3)), (5, Some(3)), (6, Some(6))] {
        opened.ledger.submit(tally(value)).await.expect("stored");
        assert_eq!(read(&opened).await, want, "after {value}");
    }
    shut(opened).await;
}
