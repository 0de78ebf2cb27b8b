//! Times, masks, pieces of time, and the forms of a report.

use super::super::key::Resolution;
use super::super::query::{Range, pieces};
use super::super::view::{AsOf, CampaignFacts, ReplyGroup, Report, Row};
use super::super::{Times, csv, html, mask, text};
use crate::types::Timestamp;

/// Off by more than 1 %, a percentile says something else than the log.
#[test]
fn percentiles_are_within_one_per_cent() {
    let check = |mut all: Vec<u64>| {
        let mut parts = [Times::default(), Times::default(), Times::default()];
        for (i, ms) in all.iter().enumerate() {
            parts[i * 7 % 3].add(*ms);
        }
        let mut times = Times::default();
        parts.iter().for_each(|part| times.merge(part));
        all.sort_unstable();
        assert_eq!(times.count(), all.len() as u64);
        for part in [0.001, 0.5, 0.95, 0.99, 1.0] {
            let rank = ((part * all.len() as f64).ceil() as usize).max(1);
            let (exact, told) = (all[rank - 1], times.quantile(part).expect("there are some"));
            let off = (told as f64 - exact as f64).abs();
            // A whole millisecond can't be told within less than half of one.
            assert!(off <= (exact as f64 * 0.01).max(0.5), "{part}: {exact} is told as {told}");
        }
    };
    check((0..5_000).collect());
    check((0..2_000).map(|i| i * i * 37 % 400_000_000).collect());
    check(vec![3_600_000; 5]);
    check((1..300).map(|i| 1 << (i % 31)).collect());
    assert_eq!(Times::default().quantile(0.5), None);
}

/// Each recipient had a group of his own: the id of the session stood in the reply.
#[test]
fn replies_that_are_alike_have_one_template() {
    let check = |a: &str, b: &str, template: &str| {
        assert_eq!(mask::template(a, "ex.test"), template);
        assert_eq!(mask::template(b, "ex.test"), template);
    };
    check(
        "4.7.28 Gmail has detected an unusual rate from [192.0.2.7]. d9443c01a7336-2a0si12345pli.12 - gsmtp",
        "4.7.28 Gmail has detected an unusual rate from [203.0.113.99]. 5a1f03c9dd0-1b2si777abc.9 - gsmtp",
        "4.7.28 Gmail has detected an unusual rate from [<ip>]. <id> - gsmtp",
    );
    check(
        "5.1.1 <jane.roe@ex.test>: Recipient address rejected: User unknown",
        "5.1.1  <x+y@other.test>: Recipient address rejected: User unknown",
        "5.1.1 <<address>>: Recipient address rejected: User unknown",
    );
    check("mx7.ex1.test said 300 seconds", "mx12.ex1.test said 45 seconds", "<host> said <n> seconds");
    check("ex.test over quota [TSS04] S3150", "EX.test over quota [TSS04] S3150", "<domain> over quota [TSS04] S3150");
    assert_eq!(mask::example("550 no jane@ex.test\u{1b}[2J here"), "550 no <address> [2J here");
    assert!(mask::template(&"9a".repeat(10_000), "").len() < 300);
}

#[test]
fn a_time_is_days_and_the_hours_at_its_ends() {
    let now = Timestamp::from_millis(1_795_456_549_000);
    let (day, hour) = (Resolution::Day, Resolution::Hour);
    let at = |text: &str| Some(serde_json::from_str::<Timestamp>(&format!("\"{text}\"")).expect("a time"));
    let today = now.day();
    let first = today - 3;
    let check = |since, until, want: &[(Resolution, u32, u32)]| {
        assert_eq!(pieces(Range { since, until }, now), want);
    };
    check(None, None, &[(day, 0, u32::MAX / 24)]);
    check(
        at("2026-11-20T22:10:00Z"),
        at("2026-11-23T02:00:00Z"),
        &[(hour, first * 24 + 22, (first + 1) * 24), (day, first + 1, today), (hour, today * 24, today * 24 + 2)],
    );
    check(at("2026-11-23T02:00:00Z"), at("2026-11-23T03:30:00Z"), &[(hour, today * 24 + 2, today * 24 + 4)]);
    // Hours are gone: the day counts whole.
    let old = at("2026-01-05T13:00:00Z").expect("a time").day();
    check(at("2026-01-05T13:00:00Z"), at("2026-01-06T05:00:00Z"), &[(day, old, old + 2)]);
}

fn hostile() -> Report {
    let evil = "<script>alert('x')</script>\u{202e}\"&\u{1b}[31m";
    let group = ReplyGroup {
        provider: evil.into(),
        event: "bounced".into(),
        count: 3,
        code: 550,
        template: format!("=cmd()|{evil}"),
        example: evil.into(),
        category: evil.into(),
        ..ReplyGroup::default()
    };
    let row = Row { name: evil.into(), ..Row::default() };
    Report {
        report: "campaign".into(),
        as_of: AsOf::default(),
        campaign: Some(CampaignFacts {
            id: "a".into(),
            name: evil.into(),
            state: "done".into(),
            ..CampaignFacts::default()
        }),
        providers: Some(vec![row.clone()]),
        domains: Some(vec![row]),
        replies: Some(vec![group]),
        ..Report::default()
    }
}

/// A remote's reply is shown to an operator in a browser and in a terminal.
#[test]
fn nothing_from_outside_acts_in_a_page_or_a_terminal() {
    let report = hostile();
    let page = html::render(&report);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "a page needs nothing from elsewhere");
    let lines = text::render(&report);
    assert!(!lines.contains('\u{1b}') && !lines.contains('\u{202e}'), "{lines}");
    let csv = csv::render(&Report { campaign: None, ..report });
    assert!(csv.contains("\"'=cmd()|<script>"), "a formula begins a cell: {csv}");
}
