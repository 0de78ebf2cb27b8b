//! Tests of the upload.

use super::super::testing::FakeStore;
use super::super::zones::SlotPlan;
use super::super::{NoScreen, Select, Selected};
use super::*;
use crate::campaign::recipients::Fut;
use crate::types::{Class, Name, Timestamp};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn target() -> Target {
    Target {
        campaign: CampaignNo(7),
        step: 0,
        tenant: name("acme"),
        id: name("spring"),
        class: Class::Marketing,
        pool: name("marketing"),
        list: None,
        slots: SlotPlan::Together,
        skip_role_accounts: true,
        select: None,
        exclude_campaigns: Vec::new(),
        exclude_audiences: Vec::new(),
    }
}

struct World {
    store: FakeStore,
    recipients: Recipients,
    target: Target,
}

impl World {
    fn new() -> Self {
        Self::with(Arc::new(NoScreen))
    }

    fn with(screen: Arc<dyn Screen>) -> Self {
        let store = FakeStore::new();
        let clock = Clock::manual(Timestamp::from_millis(1_795_456_549_000));
        let recipients = Recipients::new(store.ledger.clone(), store.reader.clone(), clock, screen);
        Self { store, recipients, target: target() }
    }

    /// Sends a body in pieces; without its end when the connection breaks.
    async fn put(&self, body: &[u8], input: Input, ends: bool) -> Result<Uploaded, UploadError> {
        let (sender, receiver) = chunks();
        let pieces: Vec<Bytes> = body.chunks(10_000).map(Bytes::copy_from_slice).collect();
        tokio::spawn(async move {
            for piece in pieces {
                if sender.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
            if ends {
                let _ = sender.send(Ok(Bytes::new())).await;
            }
        });
        self.recipients.upload(Arc::new(self.target.clone()), input, receiver).await
    }

    async fn good(&self, body: &[u8]) -> Uploaded {
        let uploaded = self.put(body, Input::default(), true).await.expect("it begins");
        assert!(uploaded.error.is_none(), "{:?}", uploaded.error);
        uploaded
    }

    async fn rejects(&self) -> Vec<(u64, String, String)> {
        let page = self.recipients.rejects(CampaignNo(7), 0, 1_000_000).await.expect("readable");
        assert!(!page.more);
        page.rejects.into_iter().map(|r| (r.row, r.address.into(), r.reason.as_str().to_owned())).collect()
    }
}

fn list(rows: std::ops::Range<usize>) -> String {
    rows.map(|n| format!("{{\"email\":\"u{n}@d{}.example\",\"vars\":{{\"n\":{n}}}}}\n", n % 10)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_stored_or_told() {
    /// Knows one address.
    struct One;
    impl Screen for One {
        fn suppressed<'a>(
            &'a self,
            _: &'a Target,
            addresses: &'a [Mailbox],
        ) -> Fut<'a, Result<Vec<Option<Box<str>>>, ReadError>> {
            let why = |m: &Mailbox| (m.as_str() == "gone@x.example").then(|| "unsubscribed".into());
            Box::pin(std::future::ready(Ok(addresses.iter().map(why).collect())))
        }
    }
    /// Wants a town, and fails without one.
    struct Town;
    impl Select for Town {
        fn select(&self, row: &[u8]) -> Selected {
            let row: serde_json::Value = serde_json::from_slice(row).expect("a row");
            match row["vars"]["town"].as_str() {
                Some("Lyon") => Selected::In,
                Some(_) => Selected::Out,
                None => Selected::Failed("town is undefined".into()),
            }
        }
    }
    let mut world = World::with(Arc::new(One));
    world.target.select = Some(Arc::new(Town));
    let body = "email,town,tz\na@x.example,Lyon,\nA@X.example,Lyon,\nnobody,Lyon,\ngone@x.example,Lyon,\n\
                abuse@x.example,Lyon,\nb@x.example,Paris,\nc@x.example,,\nd@x.example,Lyon,Mars/Olympus\n";
    let uploaded = world.good(body.as_bytes()).await;
    let counters = &uploaded.record.counters;
    assert_eq!((counters.read, counters.accepted, uploaded.added), (8, 2, 2));
    assert_eq!((counters.invalid, counters.duplicate, counters.suppressed), (1, 1, 1));
    assert_eq!((counters.role, counters.excluded, uploaded.record.segment_failed), (1, 2, 1));
    assert_eq!(uploaded.record.unknown_zones, 1);
    assert_eq!(uploaded.record.failures["town is undefined"], super::super::Failures { rows: 1, first: vec![7] });
    assert_eq!((counters.complete, counters.offset), (true, body.len() as u64));
    let want = [
        (2, "A@X.example", "duplicate"),
        (3, "nobody", "invalid"),
        (4, "gone@x.example", "suppressed"),
        (5, "abuse@x.example", "role-account"),
        (6, "b@x.example", "excluded"),
        (7, "c@x.example", "segment-failed"),
    ];
    let want: Vec<_> = want.map(|(row, address, why)| (row, address.to_owned(), why.to_owned())).into();
    assert_eq!(world.rejects().await, want);
    let memory = world.store.memory.lock();
    assert_eq!(memory.values()[0], r#"{"email":"a@x.example","vars":{"town":"Lyon"}}"#);
    assert_eq!(memory.queues, ["acme/marketing/marketing/spring/x.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_upload_of_the_same_list_adds_nothing() {
    let world = World::new();
    let body = list(0..5_000);
    let first = world.good(body.as_bytes()).await;
    assert_eq!((first.added, first.record.part), (5_000, 1));
    assert!(world.store.memory.lock().commits >= 3, "batches are small");
    let second = world.good(body.as_bytes()).await;
    assert_eq!((second.added, second.record.part, second.record.counters.duplicate), (0, 2, 5_000));
    let third = world.good(list(4_990..5_010).as_bytes()).await;
    assert_eq!((third.added, third.record.counters.next_seq), (10, 5_010));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_goes_on_where_it_ended() {
    let world = World::new();
    let body = format!("email;n\n{}", (0..9_000).map(|n| format!("u{n}@x.example;{n}\n")).collect::<String>());
    let mut sent = 0;
    for cut in [3, 50_000, 50_007, 150_000] {
        let offset = (sent > 0).then_some(sent);
        let input = Input { offset, ..Input::default() };
        let uploaded = world.put(&body.as_bytes()[sent as usize..cut], input, false).await.expect("it begins");
        assert!(matches!(uploaded.error, Some(UploadError::Refused(Refusal::BrokenOff(_)))), "{:?}", uploaded.error);
        sent = uploaded.record.counters.offset;
        assert!(sent as usize <= cut && !uploaded.record.counters.complete);
        // At the end of a row.
        assert!(sent == 0 || body.as_bytes()[sent as usize - 1] == b'\n');
    }
    // A wrong offset is told the right one, and changes nothing.
    let wrong = Input { offset: Some(sent - 1), ..Input::default() };
    let refused = world.put(b"x", wrong, true).await;
    assert!(matches!(refused, Err(UploadError::Offset(right)) if right == sent));
    let right = Input { offset: Some(sent), ..Input::default() };
    let uploaded = world.put(&body.as_bytes()[sent as usize..], right, true).await.expect("it begins");
    assert!(uploaded.error.is_none());
    let counters = uploaded.record.counters;
    assert_eq!((counters.accepted, counters.duplicate, counters.invalid), (9_000, 0, 0));
    assert_eq!((counters.offset, counters.complete), (body.len() as u64, true));
    assert_eq!(world.store.memory.lock().values()[8_999], r#"{"email":"u8999@x.example","vars":{"n":"8999"}}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_upload_is_sent_again_from_its_beginning() {
    let world = World::new();
    let body = format!("{}not json\n{}", list(0..6_000), list(6_000..9_000));
    let zstd = zstd::encode_all(body.as_bytes(), 1).expect("memory");
    let cut = world.put(&zstd[..zstd.len() - 100], Input::default(), true).await.expect("it begins");
    assert!(matches!(cut.error, Some(UploadError::Refused(Refusal::Unreadable(_)))), "{:?}", cut.error);
    assert_eq!(cut.record.counters.offset, 0);
    let input = Input { offset: Some(0), ..Input::default() };
    let whole = world.put(&zstd, input, true).await.expect("it begins");
    assert!(whole.error.is_none());
    let record = whole.record;
    // What came twice is no duplicate of the list.
    assert_eq!((record.counters.accepted, record.counters.duplicate, record.counters.invalid), (9_000, 0, 1));
    assert_eq!((record.counters.read, record.part), (9_001, 1));
    assert_eq!(world.rejects().await, [(6_001, String::new(), "invalid".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_refuses_is_not_counted() {
    let world = World::new();
    world.store.memory.lock().refuse_from = Some(3);
    let body = list(0..9_000);
    let uploaded = world.put(body.as_bytes(), Input::default(), true).await.expect("it begins");
    assert!(matches!(uploaded.error, Some(UploadError::Store(SubmitError::LowSpace { .. }))));
    let rows = world.store.memory.lock().rows.len() as u64;
    assert!(rows > 0 && rows < 9_000);
    assert_eq!((uploaded.record.counters.accepted, uploaded.added), (rows, rows));
    // It goes on there, and nothing is lost or twice.
    world.store.memory.lock().refuse_from = None;
    let offset = uploaded.record.counters.offset;
    let input = Input { offset: Some(offset), ..Input::default() };
    let rest = world.put(&body.as_bytes()[offset as usize..], input, true).await.expect("it begins");
    assert_eq!((rest.record.counters.accepted, rest.record.counters.duplicate), (9_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upload_at_a_time_and_it_ends_on_its_own() {
    let world = World::new();
    let (sender, receiver) = chunks();
    let recipients = world.recipients.clone();
    let first = Arc::new(world.target.clone());
    let going = tokio::spawn(async move { recipients.upload(first, Input::default(), receiver).await });
    while !world.recipients.is_busy(CampaignNo(7)) {
        tokio::task::yield_now().await;
    }
    let second = world.put(b"", Input::default(), true).await;
    assert!(matches!(second, Err(UploadError::Busy)));
    // Whoever waited went away: what came is committed all the same.
    sender.send(Ok(list(0..3).into())).await.expect("it is read");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    going.abort();
    drop(sender);
    while world.recipients.is_busy(CampaignNo(7)) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(world.store.memory.lock().rows.len(), 3);
    let record = world.recipients.record(CampaignNo(7)).await.expect("readable");
    assert_eq!((record.counters.accepted, record.is_open()), (3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_excluded_stays_out() {
    let mut world = World::new();
    world.target.exclude_audiences = vec![name("staff")];
    world.target.exclude_campaigns = vec![CampaignNo(3)];
    let boss = Mailbox::parse("Boss@x.example").expect("an address");
    let got = Mailbox::parse("got@x.example").expect("an address");
    {
        let mut memory = world.store.memory.lock();
        let key = crate::campaign::contacts::key(&name("acme"), &name("staff"), &boss);
        memory.contacts.insert(key, b"{}".to_vec());
        let row =
            crate::types::RowId { campaign: CampaignNo(3), step: 0, queue: crate::types::QueueId(0), slot: 0, seq: 0 };
        let status = SentStatus::Ended(EventKind::Delivered, Timestamp::ZERO);
        memory.sent.insert((CampaignNo(3), 0, crate::store::address_hash(&got)), crate::store::Sent { row, status });
    }
    let uploaded = world.good(b"email\nboss@x.example\ngot@x.example\nnew@x.example\n").await;
    assert_eq!((uploaded.record.counters.accepted, uploaded.record.counters.excluded), (1, 2));
}
