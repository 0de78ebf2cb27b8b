use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mail_parser::{MessageParser, MimeHeaders};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);
const ARRIVAL: Timestamp = Timestamp::from_millis(1_795_452_949_012);
const ORIGINAL: &[u8] = b"From: A <a@acme.example>\r\nTo: b@sink.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@acme.example>\r\n\r\nHello\r\n.\r\n";

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("valid")
}

fn reply(code: u16, enhanced: Option<&str>, text: &str) -> SmtpReply {
    SmtpReply { code, enhanced: enhanced.map(Into::into), text: text.into() }
}

fn recipient<'a>(mailbox: &'a Mailbox, action: Action, reply: &'a SmtpReply) -> Recipient<'a> {
    Recipient {
        orcpt: None,
        mailbox,
        action,
        reply: Some(reply),
        remote: true,
        host: Some("mx.sink.test"),
        last_attempt: Some(NOW),
        retry_until: None,
    }
}

fn report<'a>(to: &'a Mailbox, recipients: &'a [Recipient<'a>]) -> Report<'a> {
    Report {
        hostname: "mta1.example.com",
        to,
        message_id: "0190-dsn@mta1.example.com",
        now: NOW,
        envid: None,
        arrival: ARRIVAL,
        ret: None,
        original: ORIGINAL,
        recipients,
    }
}

fn text(dsn: &Dsn) -> String {
    let text = String::from_utf8(dsn.octets.to_vec()).expect("UTF-8");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "a bare line end");
    assert!(text.ends_with("--\r\n"));
    text
}

/// What Python's email package reads out of a report.
fn python(dsn: &Dsn) -> serde_json::Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/dsn_read.py");
    let mut child = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    child.stdin.take().expect("piped").write_all(&dsn.octets).expect("written");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "Python can't read it");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn failure_of_two_recipients() {
    let (to, b, c) = (mailbox("a@acme.example"), mailbox("b@sink.test"), mailbox("c@sink.test"));
    let gone = reply(
        550,
        Some("5.1.1"),
        "<b@sink.test>: no such user here, and this reply goes on for longer than a line holds",
    );
    let expired = reply(0, Some("4.4.7"), "given up after 4 days: connection timed out");
    let recipients = [
        Recipient { orcpt: Some("rfc822;b+2Bx@sink.test"), ..recipient(&b, Action::Failed, &gone) },
        Recipient { remote: false, ..recipient(&c, Action::Failed, &expired) },
    ];
    let dsn = write(&Report { envid: Some("QQ+2B314159"), ret: Some(Ret::Full), ..report(&to, &recipients) });
    assert!(!dsn.smtputf8 && !dsn.eight_bit);
    insta::assert_snapshot!("failed", text(&dsn).replace("\r\n", "\n"));
    let read = python(&dsn);
    assert_eq!(read["type"], "multipart/report");
    assert_eq!(read["parts"], serde_json::json!(["text/plain", "message/delivery-status", "message/rfc822"]));
    assert_eq!(read["status"][0]["Original-Envelope-Id"], "QQ+314159");
    assert_eq!(read["status"][1]["Original-Recipient"], "rfc822; b+x@sink.test");
    assert_eq!(read["status"][1]["Status"], "5.1.1");
    assert_eq!(read["status"][2]["Status"], "5.4.7");
    assert_eq!(read["original_subject"], "Grüße");
    assert_eq!(read["defects"], serde_json::json!([]));
    let parsed = MessageParser::new().parse(&dsn.octets[..]).expect("parses");
    let part = &parsed.parts[3];
    assert!(part.content_type().is_some_and(|t| t.subtype() == Some("rfc822")), "{part:?}");
    let original = &dsn.octets[part.offset_body as usize..part.offset_end as usize];
    assert_eq!(original.trim_ascii_end(), ORIGINAL.trim_ascii_end());
}

#[test]
fn delay() {
    let (to, b) = (mailbox("a@acme.example"), mailbox("b@sink.test"));
    let busy = reply(451, None, "try later");
    let recipients = [Recipient { retry_until: Some(NOW), ..recipient(&b, Action::Delayed, &busy) }];
    // RET=FULL is for failures only.
    let dsn = write(&Report { ret: Some(Ret::Full), ..report(&to, &recipients) });
    insta::assert_snapshot!("delayed", text(&dsn).replace("\r\n", "\n"));
    let read = python(&dsn);
    assert_eq!(read["parts"], serde_json::json!(["text/plain", "message/delivery-status", "text/rfc822-headers"]));
    assert_eq!(read["status"][1]["Will-Retry-Until"], "Mon, 23 Nov 2026 17:55:49 +0000");
}

#[test]
fn success_and_relayed() {
    let (to, b) = (mailbox("a@acme.example"), mailbox("b@sink.test"));
    let ok = reply(250, Some("2.0.0"), "queued as 1");
    let dsn = write(&report(&to, &[recipient(&b, Action::Delivered, &ok)]));
    insta::assert_snapshot!("delivered", text(&dsn).replace("\r\n", "\n"));
    assert_eq!(python(&dsn)["status"][1]["Action"], "delivered");
    let dsn = write(&report(&to, &[recipient(&b, Action::Relayed, &ok)]));
    insta::assert_snapshot!("relayed", text(&dsn).replace("\r\n", "\n"));
    assert_eq!(python(&dsn)["status"][1]["Action"], "relayed");
}

#[test]
fn international_addresses() {
    let (ascii, utf8, b) = (mailbox("a@acme.example"), mailbox("ä@acme.example"), mailbox("bü+x@bücher.example"));
    let gone = reply(550, Some("5.1.1"), "niemand dort: ü");
    let original = "From: ä@acme.example\r\nSubject: ü\r\nMessage-ID: <1@x>\r\n\r\nü\r\n".as_bytes();
    let recipients = [recipient(&b, Action::Failed, &gone)];
    let base = Report { original, ret: Some(Ret::Full), ..report(&ascii, &recipients) };
    let dsn = write(&base);
    assert!(!dsn.smtputf8 && !dsn.eight_bit, "{}", text(&dsn));
    assert!(
        text(&dsn).contains("Final-Recipient: utf-8; b\\x{FC}\\x{2B}x@xn--bcher-kva.example\r\n"),
        "{}",
        text(&dsn)
    );
    assert_eq!(python(&dsn)["parts"][2], "text/rfc822-headers");
    let dsn = write(&Report { to: &utf8, ..base });
    assert!(dsn.smtputf8 && dsn.eight_bit);
    assert!(text(&dsn).contains("Final-Recipient: utf-8; bü+x@bücher.example\r\n"));
    assert_eq!(
        python(&dsn)["parts"],
        serde_json::json!(["text/plain", "message/global-delivery-status", "message/global"])
    );
}

#[test]
fn nothing_from_outside_ends_a_line() {
    let (to, b) = (mailbox("a@acme.example"), mailbox("b@sink.test"));
    let evil = reply(550, Some("5.1.1\r\nX: y"), "no\r\nX-Evil: yes\u{2028}\u{202e}--=_dsn_");
    let recipients = [Recipient {
        orcpt: Some("rfc822;b+0D+0AX-Evil: yes"),
        host: Some("mx\r\nX-Evil: yes"),
        ..recipient(&b, Action::Failed, &evil)
    }];
    let original = b"Subject: a\r\nMessage-ID: <1@x>\r\n <2@x>\r\nX: --=_dsn_\r\n\r\n";
    let dsn = write(&Report { envid: Some("+0D+0AX-Evil: yes"), original, ..report(&to, &recipients) });
    let text = text(&dsn);
    assert!(!text.lines().any(|line| line.starts_with("X-Evil")), "{text}");
    assert!(!text.contains("In-Reply-To"));
    assert_eq!(python(&dsn)["status"][1]["Status"], "5.0.0");
}

#[test]
fn fields_are_folded_and_hold_one_line() {
    let check = |value: &str, want: &str| {
        let mut out = Vec::new();
        write_field("X", value, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), want);
    };
    check("a\r\nB: c\0", "X: a??B: c?\r\n");
    let long = "y".repeat(80);
    check(&format!("a {long} b"), &format!("X: a\r\n {long}\r\n b\r\n"));
}

#[test]
fn status_agrees_with_what_happened() {
    let check = |action, enhanced, want| assert_eq!(status(action, Some(&reply(550, enhanced, "x"))), want);
    check(Action::Failed, Some("5.7.1"), "5.7.1");
    check(Action::Failed, Some("4.2.2"), "5.2.2");
    check(Action::Failed, Some("2.0.0"), "5.0.0");
    check(Action::Delayed, Some("5.7.1"), "4.0.0");
    check(Action::Delayed, None, "4.0.0");
    check(Action::Relayed, Some("250"), "2.0.0");
    check(Action::Failed, Some("5.1.1.1"), "5.0.0");
    assert_eq!(status(Action::Failed, None), "5.0.0");
}

#[test]
fn large_originals_come_back_as_header() {
    let (to, b) = (mailbox("a@acme.example"), mailbox("b@sink.test"));
    let gone = reply(550, None, "no");
    let recipients = [recipient(&b, Action::Failed, &gone)];
    let large = [ORIGINAL, &vec![b'x'; FULL_MAX]].concat();
    let dsn = write(&Report { ret: Some(Ret::Full), original: &large, ..report(&to, &recipients) });
    assert_eq!(python(&dsn)["parts"][2], "text/rfc822-headers");
    let endless = b"X-Long: yes\r\n".repeat(HEADER_MAX);
    let dsn = write(&Report { original: &endless, ..report(&to, &recipients) });
    assert!(dsn.octets.len() < HEADER_MAX + 4_096);
    let eight = [ORIGINAL, "ü\r\n".as_bytes()].concat();
    let dsn = write(&Report { ret: Some(Ret::Full), original: &eight, ..report(&to, &recipients) });
    assert!(dsn.eight_bit && !dsn.smtputf8);
    crate::mime::seven_bit::to_seven_bit(&dsn.octets).expect("can go to a peer without 8BITMIME");
}

proptest::proptest! {
    /// Whatever a peer says and a submitter gives, a report keeps its three parts and its line ends.
    #[test]
    fn no_input_breaks_the_form(
        said in "(\\PC|\r|\n|\t|=|--| ){0,200}", enhanced in "[245]?\\.?[0-9.]{0,8}", envid in "[!-~]{0,60}", code in 0_u16..999,
        header in "(([A-Za-z-]{1,9}: )?(\\PC{0,40})\r\n){0,5}",
    ) {
        let (to, b) = (mailbox("a@acme.example"), mailbox("b@sink.test"));
        let reply = reply(code, Some(&enhanced), &said);
        let recipients = [Recipient { orcpt: Some(&envid), host: Some(&said), ..recipient(&b, Action::Failed, &reply) }];
        let original = format!("{header}\r\nbody\r\n");
        for ret in [Ret::Full, Ret::Headers] {
            let base = report(&to, &recipients);
            let dsn = write(&Report { envid: Some(&envid), ret: Some(ret), original: original.as_bytes(), ..base });
            let octets = text(&dsn);
            proptest::prop_assert!(octets.is_ascii() || (dsn.eight_bit && ret == Ret::Full));
            let parts = octets.lines().filter(|line| line.starts_with("--=_dsn_0190dsnmta1examplecom")).count();
            proptest::prop_assert_eq!(parts, 4);
            let parsed = MessageParser::new().parse(&dsn.octets[..]).expect("parses");
            let status = String::from_utf8_lossy(parsed.parts[2].contents()).into_owned();
            proptest::prop_assert!(status.lines().any(|line| line.starts_with("Status: 5.")), "{}", status);
        }
    }
}
