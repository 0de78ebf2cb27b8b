//! Round trips, hostile octets, and the fixtures of version 1.

use proptest::prelude::*;

use super::super::testing::{NOW, entry, event, id, message, name, queue_key};
use super::*;
use crate::event::EventKind;

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|b| format!("{b:02x}")).collect()
}

fn row() -> (QueueRow, EntryKey) {
    let key = Arc::new(QueueKey { campaign: Some(name("spring")), ..queue_key("b.example") });
    let row = QueueRow { id: QueueId(7), key, next_due: NOW, count: 3, bytes: 4_096, oldest: NOW, rows: None };
    (row, entry(1, 2, 99, 5, 1).key)
}

fn tried() -> QueueEntry {
    QueueEntry {
        attempts: 3,
        first_try: Some(NOW),
        last_try: Some(Timestamp::from_millis(NOW.as_millis() + 60_000)),
        last_reply: Some("451 4.7.1 later".into()),
        delay_noticed: true,
        ..entry(1, 0, 5, 300, 2)
    }
}

/// What stands on disk of version 1 must be read by every later program: these octets never change.
#[test]
fn fixtures_of_version_1() {
    let stored = (*message(1, &["a@b.example"], b"Subject: x\r\n\r\nhi\r\n").message).clone();
    let (row, watermark) = row();
    let trace = MessageTrace { tenant: name("acme"), recipients: vec![[9; 16]] };
    let last = Last { commit: 300, seq: EventSeq(70_000), next_queue: 5 };
    let want = [
        ("content", hex(&encode_content(&stored)), CONTENT_V1),
        ("entry", hex(&encode_entry(&tried())), ENTRY_V1),
        ("row", hex(&encode_row(&row, watermark, &Places::default())), ROW_V1),
        ("trace", hex(&encode_trace(&trace)), TRACE_V1),
        ("last", hex(&encode_last(last)), "01ac02f0a20405"),
        ("count", hex(&encode_count(1)), "0101"),
    ];
    for (what, got, want) in want {
        assert_eq!(got, want, "{what}");
    }
}

const CONTENT_V1: &str = "010000008a0461636d65000106737072696e670201610162010b7b226f72646572223a377d0113626f756e63654061636d652e6578616d706c650201085151333134313539010b6140622e6578616d706c651501127266633832323b7840792e6578616d706c6580cde6caa03480adccefa1340001010c61636d652e6578616d706c650001093139322e302e322e315375626a6563743a20780d0a0d0a68690d0a";
const ENTRY_V1: &str =
    "0180cde6caa03480adccefa134030180cde6caa03401e0a1eacaa034010f34353120342e372e31206c61746572ac020201";
const ROW_V1: &str = "01000461636d650106737072696e670764656661756c7409622e6578616d706c6580cde6caa03403802080cde6caa0346301a20959a6807000800000000000000200000002";
const TRACE_V1: &str = "010461636d650109090909090909090909090909090909";

#[test]
fn everything_comes_back() {
    let stored = (*message(1, &["a@b.example", "\u{fc}@b\u{fc}cher.example"], b"body").message).clone();
    let value = Bytes::from(encode_content(&stored));
    let back = decode_content(stored.envelope.id, value.clone()).expect("readable");
    assert_eq!(back, stored);
    // The body is a part of the value, not a copy of it.
    assert!(value.as_ptr_range().contains(&back.body.as_ptr()));

    assert_eq!(decode_entry(tried().key, &encode_entry(&tried())), Ok(tried()));
    let (row, watermark) = row();
    assert_eq!(
        decode_row(row.id, &encode_row(&row, watermark, &Places::default())),
        Ok((row, watermark, Places::default()))
    );
    let said = decode_event(&encode_event(&event(EventKind::Delivered, id(1), Some("a@b.example")))).expect("readable");
    assert_eq!((said.event, said.message_id), (EventKind::Delivered, Some(id(1))));
    assert_eq!(event_is_of(&encode_event(&said), &name("acme")), Ok(true));
    assert_eq!(event_is_of(&encode_event(&said), &name("other")), Ok(false));
}

#[test]
fn a_newer_version_is_named() {
    let mut value = encode_entry(&tried());
    value[0] = 3;
    assert_eq!(decode_entry(tried().key, &value), Err(DecodeError::Version { found: 3, known: 2 }));
    assert_eq!(event_is_of(b"\x02{}", &name("a")), Err(DecodeError::Version { found: 2, known: 1 }));
}

/// A damaged disk: whatever stands there, reading it ends with a value.
#[test]
fn cut_records_are_errors() {
    let stored = (*message(1, &["a@b.example"], b"").message).clone();
    let value = encode_content(&stored);
    for len in 0..value.len() {
        assert!(decode_content(id(1), Bytes::copy_from_slice(&value[..len])).is_err(), "{len}");
    }
    let value = encode_entry(&tried());
    for len in 0..value.len() {
        assert!(decode_entry(tried().key, &value[..len]).is_err(), "{len}");
    }
    let mut long = value;
    long.push(0);
    assert_eq!(decode_entry(tried().key, &long), Err(DecodeError::Trailing(1)));
}

proptest! {
    #[test]
    fn numbers_round_trip(n: u64) {
        let mut out = Encoder::new(1, 0);
        out.number(n);
        let out = out.finish();
        let mut d = Decoder::new(&out, 1).expect("version 1");
        prop_assert_eq!(d.number(), Ok(n));
        prop_assert_eq!(d.end(), Ok(()));
    }

    #[test]
    fn entries_round_trip(
        due: u64, accepted: u64, expires: u64, attempts: u32, first: Option<u64>, last: Option<u64>,
        reply: Option<String>, size: u32, recipients: u32, delay_noticed: bool,
    ) {
        let at = Timestamp::from_millis;
        let entry = QueueEntry {
            accepted: at(accepted), expires: at(expires), attempts, first_try: first.map(at), last_try: last.map(at),
            last_reply: reply.map(Into::into), delay_noticed, ..entry(1, 0, due, size, recipients)
        };
        prop_assert_eq!(decode_entry(entry.key, &encode_entry(&entry)), Ok(entry));
    }

    #[test]
    fn any_octets_end_in_a_value(mut octets: Vec<u8>) {
        if let Some(first) = octets.first_mut() { *first = 1; }
        let _ = decode_entry(tried().key, &octets);
        let _ = decode_row(QueueId(1), &octets);
        let _ = decode_trace(&octets);
        let _ = decode_last(&octets);
        let _ = decode_count(&octets);
        let _ = decode_event(&octets);
        let _ = decode_content(id(1), Bytes::from(octets));
    }
}
