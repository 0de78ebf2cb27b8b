//! What a mail says of one recipient, in the words that have effects; the rest is seen by the strangers' tests, on the wire.

use super::said::Said;
use crate::bounce::read::read;
use crate::types::Mailbox;

fn said(mail: &str) -> Said {
    Said::of(&read(mail.replace('\n', "\r\n").as_bytes()), &Mailbox::parse("jane@example.com").expect("an address"))
}

const REPORT: &str = "From: MAILER-DAEMON@mx.example\nTo: b@bounce.example\nSubject: failure\nMIME-Version: 1.0\n\
Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n\
Reporting-MTA: dns; mx.example\n\nFinal-Recipient: rfc822; other@far.example\nAction: delayed\nStatus: 4.4.1\n\n\
Final-Recipient: rfc822; jane@example.com\nAction: failed\nStatus: STATUS\nDiagnostic-Code: smtp; DIAGNOSTIC\n\n--b--\n";

fn report(status: &str, diagnostic: &str) -> String {
    REPORT.replace("STATUS", status).replace("DIAGNOSTIC", diagnostic)
}

#[test]
fn the_report_about_the_recipient_is_the_one_that_counts() {
    let Said::Bounce(bounced) = said(&report("5.1.1", "550 5.1.1 no such user")) else { panic!("no bounce") };
    assert_eq!((bounced.permanent, bounced.suppress, bounced.soft), (true, true, false));
    assert_eq!((bounced.category, bounced.smtp_code), ("bad-mailbox", Some(550)));
    assert_eq!(bounced.reported_by.as_deref(), Some("mx.example"));
}

#[test]
fn only_faults_of_the_recipient_suppress() {
    for (status, diagnostic, suppress, soft) in [
        ("5.2.2", "550 5.2.2 mailbox full", false, true),
        ("5.7.1", "554 5.7.1 blocked using zen.spamhaus.org", false, false),
        ("5.7.26", "550 5.7.26 unauthenticated email", false, false),
        ("5.1.2", "550 5.1.2 host unknown", true, false),
    ] {
        let Said::Bounce(bounced) = said(&report(status, diagnostic)) else { panic!("no bounce: {diagnostic}") };
        assert_eq!((bounced.suppress, bounced.soft), (suppress, soft), "{diagnostic}");
    }
}

#[test]
fn a_report_that_it_was_no_spam_is_no_complaint() {
    let arf = |kind: &str| {
        format!(
            "From: f@p.example\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\
             Content-Type: message/feedback-report\n\nFeedback-Type: {kind}\nVersion: 1\n\n--b--\n"
        )
    };
    assert!(matches!(said(&arf("abuse")), Said::Complaint { .. }));
    assert!(matches!(said(&arf("not-spam")), Said::Nothing));
}
