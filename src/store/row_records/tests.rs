//! Round trips, hostile octets, and the fixtures of version 1.

use proptest::prelude::*;

use super::*;
use crate::types::CampaignNo;

const AT: Timestamp = Timestamp::from_millis(1_795_453_200_000);

fn sent(status: SentStatus) -> Sent {
    let row = RowId { campaign: CampaignNo(3), step: 1, queue: QueueId(70_000), slot: 9, seq: 1_000_000 };
    Sent { row, status }
}

fn run() -> Run {
    Run { accepted: AT, due: AT.after(Duration::from_secs(60)), expire_after: Duration::from_secs(345_600) }
}

fn counts() -> RunCounts {
    let events = [(EventKind::Delivered, 300), (EventKind::Opened, 2)].into_iter().collect();
    RunCounts { rows: 500, fresh: 100, queued: 7, dropped: 1, events, late_bounces: 3 }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|b| format!("{b:02x}")).collect()
}

/// What stands on disk must be read by every later program: octets of a version never change.
#[test]
fn fixtures() {
    let purge = Purge { stage: Stage::Sent, after: vec![1, 2] };
    let got = [
        hex(&encode_sent(sent(SentStatus::Waiting))),
        hex(&encode_sent(sent(SentStatus::Queued))),
        hex(&encode_sent(sent(SentStatus::Ended(EventKind::Bounced, AT)))),
        hex(&encode_run(run())),
        hex(&encode_counts(&counts())),
        hex(&encode_purge(&purge)),
        hex(&encode_row_value([7; 16], b"x")),
    ];
    let want = [
        "0100f0a20409c0843d",
        "0101f0a20409c0843d",
        "0102f0a20409c0843d0580cde6caa034",
        "0180cde6caa034e0a1eacaa03480e0e5a401",
        "02f4036407010204ac020e0203",
        "0101020102",
        "010707070707070707070707070707070778",
    ];
    assert_eq!(got.each_ref().map(|text| text.as_str()), want);
}

/// Counts of version 1 had no late bounces.
#[test]
fn counts_of_version_1_are_read() {
    let old: Vec<u8> = (0..24)
        .step_by(2)
        .map(|at| u8::from_str_radix(&"01f4036407010204ac020e02"[at..at + 2], 16).expect("hex"))
        .collect();
    assert_eq!(decode_counts(&old), Ok(RunCounts { late_bounces: 0, ..counts() }));
}

#[test]
fn everything_comes_back() {
    for status in [SentStatus::Waiting, SentStatus::Queued]
        .into_iter()
        .chain(EventKind::ALL.map(|kind| SentStatus::Ended(kind, AT)))
    {
        let value = encode_sent(sent(status));
        assert_eq!(decode_sent((CampaignNo(3), 1), &value), Ok(sent(status)));
        assert_eq!(is_waiting(&value), status == SentStatus::Waiting);
    }
    assert_eq!(decode_run(&encode_run(run())), Ok(run()));
    assert_eq!(decode_counts(&encode_counts(&counts())), Ok(counts()));
    for purge in [Purge { stage: Stage::Rows, after: Vec::new() }, Purge { stage: Stage::Sent, after: vec![9; 21] }] {
        assert_eq!(decode_purge(&encode_purge(&purge)), Ok(purge));
    }
    let value = Bytes::from(encode_row_value([7; 16], b"{\"email\":\"a@b.example\"}"));
    let row = decode_row_value(sent(SentStatus::Waiting).row, value.clone()).expect("readable");
    assert_eq!((row.hash, &row.value[..]), ([7; 16], &b"{\"email\":\"a@b.example\"}"[..]));
    assert!(value.as_ptr_range().contains(&row.value.as_ptr()), "a part of the value, not a copy");
}

proptest! {
    #[test]
    fn any_octets_end_in_a_value(mut octets: Vec<u8>) {
        if let Some(first) = octets.first_mut() { *first = 1; }
        let _ = decode_sent((CampaignNo(1), 0), &octets);
        let _ = decode_run(&octets);
        let _ = decode_counts(&octets);
        let _ = decode_purge(&octets);
        let _ = row_hash(&octets);
        let _ = decode_row_value(sent(SentStatus::Queued).row, Bytes::from(octets));
    }
}
