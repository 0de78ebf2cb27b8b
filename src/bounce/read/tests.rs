//! The corpus of real bounces with its labels, hostile mails, and mails that are cut or in a wrong charset.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::bounce::classify::Category as C;

/// The reasons of the corpus in our words: what `docs/bounces.md` documents.
fn meant(reason: &str) -> &'static [C] {
    match reason {
        "userunknown" => &[C::BadMailbox],
        "hostunknown" | "notaccept" => &[C::BadDomain],
        "mailboxfull" => &[C::QuotaIssues],
        "suspend" | "hasmoved" => &[C::InactiveMailbox],
        "expired" => &[C::MessageExpired, C::NoAnswerFromHost],
        "networkerror" => &[C::NoAnswerFromHost, C::RoutingErrors, C::BadConnection],
        "filtered" | "blocked" | "securityerror" | "speeding" | "badreputation" => &[C::PolicyRelated],
        "policyviolation" => &[C::PolicyRelated, C::ContentRelated],
        "toomanyconn" => &[C::BadConnection, C::PolicyRelated],
        "rejected" => &[C::InvalidSender],
        "authfailure" => &[C::AuthenticationFailed],
        "spamdetected" => &[C::SpamRelated],
        "virusdetected" => &[C::VirusRelated],
        "norelaying" => &[C::RelayingIssues],
        "exceedlimit" | "mesgtoobig" | "notcompliantrfc" | "contenterror" => &[C::ContentRelated],
        "syntaxerror" | "failedstarttls" => &[C::ProtocolErrors],
        "requireptr" => &[C::BadConfiguration],
        "systemerror" | "mailererror" | "onhold" | "undefined" | "reason" => &[C::Other],
        other => panic!("an unknown reason {other:?}"),
    }
}

/// Reasons that are the recipient's, whether for good or not.
const ITS_OWN: [&str; 8] =
    ["userunknown", "hostunknown", "notaccept", "hasmoved", "suspend", "filtered", "mailboxfull", "onhold"];

#[test]
fn the_corpus_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/bounces");
    let labels = std::fs::read_to_string(folder.join("labels.tsv")).expect("the labels");
    let mut files: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for line in labels.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        files.entry(columns[0]).or_default().push(columns);
    }
    let (mut all, mut found, mut hard, mut reason) = (0, 0, 0, 0);
    let (mut wrong, mut suppressed) = (Vec::new(), Vec::new());
    for (file, rows) in &files {
        let reading = read(&std::fs::read(folder.join(file)).expect("a mail"));
        for (at, row) in rows.iter().enumerate() {
            all += 1;
            let (label, is_hard) = (row[4], row[5] == "1");
            let Some(report) = reading.reports.get(at) else {
                wrong.push(format!("{file}: recipient {} of {} is missing", at + 1, rows.len()));
                continue;
            };
            found += 1;
            let understood = match label {
                "feedback" => matches!(report.kind, Kind::Complaint | Kind::Unsubscribe),
                "vacation" => report.kind == Kind::AutoReply,
                label => meant(label).contains(&report.verdict.category),
            };
            let right = matches!(label, "feedback" | "vacation") || report.verdict.permanent == is_hard;
            hard += usize::from(right);
            reason += usize::from(understood);
            if !understood || !right {
                wrong.push(format!("{file}: {label} {is_hard}, we say {:?} by {:?}", report.verdict, report.rule));
            }
            if report.kind != Kind::Complaint && report.verdict.suppress && !ITS_OWN.contains(&label) {
                suppressed.push(format!("{file}: {label}"));
            }
        }
    }
    let share = |n: usize| n as f64 / all as f64;
    let told = format!("{}\nof {all}: found {found}, permanence {hard}, reason {reason}", wrong.join("\n"));
    assert!(all > 300, "the corpus is not there");
    assert!(suppressed.is_empty(), "suppressed for a fault that is not the recipient's: {suppressed:?}");
    assert!(share(found) >= 0.97 && share(hard) >= 0.96 && share(reason) >= 0.88, "{told}");
}

#[test]
fn nested_huge_and_broken_mails_end_soon() {
    let nest = |depth: usize| {
        let mut mail = String::from("From: MAILER-DAEMON@x.example\r\nSubject: failure\r\n");
        for level in 0..depth {
            mail.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
        }
        mail
    };
    let hostile = [
        nest(10_000),
        "Content-Type: message/rfc822\r\n\r\n".repeat(10_000),
        format!("X: {}\r\n\r\n", "y".repeat(2 << 20)),
        "A: b\r\n".repeat(300_000),
        format!("Subject: failure\r\n\r\n{}", "<a@b.example>: 550 no such user\r\n".repeat(30_000)),
        format!("Subject: failure\r\n\r\n{}", "(".repeat(1 << 20)),
        format!("Subject: failure\r\n\r\n{}", "@".repeat(1 << 20)),
        format!("Subject: failure\r\n\r\n{}", "a@".repeat(1 << 19)),
    ];
    for mail in &hostile {
        assert!(read(mail.as_bytes()).reports.len() <= REPORTS_MAX);
    }
}

#[test]
fn a_report_that_is_cut_anywhere_is_no_panic_and_no_other_recipient() {
    let mail = "From: MAILER-DAEMON@mx.example\r\nTo: b@bounce.example\r\nSubject: failure\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=x-unknown\r\n\r\n\
        J\u{fffd}ne did not get it.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
        Final-Recipient: rfc822; jane@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n\r\n--b--\r\n";
    assert_eq!(read(mail.as_bytes()).reports[0].recipient, "jane@example.com");
    for end in 0..mail.len() {
        let reading = read(&mail.as_bytes()[..end]);
        assert!(
            reading
                .reports
                .iter()
                .all(|r| "jane@example.com".starts_with(&r.recipient) || r.verdict == UNKNOWN || !r.verdict.suppress),
            "{end}"
        );
    }
}

#[test]
fn an_answer_of_a_machine_is_no_bounce() {
    for (head, kind) in [
        ("Subject: Automatic reply: hello\r\nAuto-Submitted: auto-replied\r\n", Kind::AutoReply),
        ("Subject: hello\r\nX-Autoreply: yes\r\n", Kind::AutoReply),
        ("Subject: hello\r\n", Kind::Other),
        ("Subject: unsubscribe\r\n", Kind::Unsubscribe),
    ] {
        let mail =
            format!("From: jane@example.com\r\nTo: b@bounce.example\r\n{head}\r\nI am away, ask bob@example.com.\r\n");
        assert_eq!(read(mail.as_bytes()).kind, kind, "{head}");
    }
}
