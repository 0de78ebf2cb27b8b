//! Tests of header reading and editing.

use bytes::Bytes;

use super::*;
use crate::types::{Class, Mailbox, MessageId, Timestamp};

fn refused(message: &str, wanted: &str) {
    let error = parse(message.as_bytes()).expect_err(message).to_string();
    assert!(error.contains(wanted), "{message:?}: {error}");
}

/// Both ways of putting a message together must give the same.
fn assembled(message: &str, front: &str) -> String {
    let parsed = parse(message.as_bytes()).expect("a valid header");
    let copied = assemble(Bytes::copy_from_slice(message.as_bytes()), 0, &parsed, front.as_bytes());
    let mut roomy = vec![0; 100];
    roomy.extend_from_slice(message.as_bytes());
    let in_place = assemble(Bytes::from(roomy), 100, &parsed, front.as_bytes());
    assert_eq!(copied, in_place);
    String::from_utf8(copied.to_vec()).expect("UTF-8 in, UTF-8 out")
}

#[test]
fn bcc_and_steering_go_and_nothing_else_changes() {
    let message = "X-Posthaste-Tag: a,\r\n b\r\nFrom: a@b.example\r\nBcc: x@y.example,\r\n\tz@y.example\r\n\
                   Subject:  odd   spacing\r\nX-Posthaste-Class: marketing\r\nResent-Bcc: q@y.example\r\nTo: c@d.example\r\n\r\n\
                   Bcc: stays in the body\r\n";
    let parsed = parse(message.as_bytes()).expect("valid");
    assert_eq!(parsed.steering.class, Some(Class::Marketing));
    assert_eq!(parsed.steering.tags.iter().map(|t| t.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        assembled(message, "N: 1\r\n"),
        "N: 1\r\nFrom: a@b.example\r\nSubject:  odd   spacing\r\nTo: c@d.example\r\n\r\nBcc: stays in the body\r\n"
    );
}

#[test]
fn prepending_keeps_every_octet() {
    for message in
        ["From: a@b.example\r\n\r\nbody", "From: a@b.example\r\n", "From: a@b.example", "From: a@b.example\r\n\r\n"]
    {
        assert_eq!(assembled(message, "N: 1\r\n"), format!("N: 1\r\n{message}"));
    }
}

#[test]
fn a_front_that_does_not_fit_is_copied() {
    let front = "N: ".to_owned() + &"x".repeat(300) + "\r\n";
    assert_eq!(assembled("From: a@b.example\r\nBcc: c@d.example\r\n\r\n", &front), front + "From: a@b.example\r\n\r\n");
}

/// The cost to be found: a second copy of each body.
#[test]
fn the_body_is_not_moved() {
    let mut octets = vec![0; 600];
    octets.extend_from_slice(b"From: a@b.example\r\nBcc: c@d.example\r\n\r\nbody");
    let parsed = parse(&octets[600..]).expect("valid");
    let octets = Bytes::from(octets);
    let end = octets.as_ptr_range().end;
    let whole = assemble(octets, 600, &parsed, &[b'x'; 610]);
    assert_eq!(whole.as_ptr_range().end, end);
    assert!(whole.ends_with(b"xxFrom: a@b.example\r\n\r\nbody"));
}

#[test]
fn refuses_malformed_headers() {
    refused("\r\nbody", "From: the message has none");
    refused("Subject: x\r\n\r\n", "From: the message has none");
    refused("no field\r\n\r\n", "header line 1 is not a field");
    refused("From: a@b.example\r\nFrom : c@d.example\r\n\r\n", "header line 2 is not a field");
    refused(" From: a@b.example\r\n\r\n", "header line 1 is not a field");
    refused("From: a@b.example\r\nfrom: c@d.example\r\n\r\n", "from: there is more than one");
    refused("From: a@b.example\r\nSubject: a\r\nSubject: b\r\n\r\n", "Subject: there is more than one");
    refused("From: a@b.example\r\nX: \u{1b}[2J\r\n\r\n", "X: a control character");
    refused("From: a@b.example\r\nX: a\u{2028}b\r\n\r\n", "X: a Unicode line end");
    refused("From: a@b.example\r\nX: a\u{85}b\r\n\r\n", "X: a Unicode line end");
    refused("From: a@b.example\r\nSubject: =?utf-8?Q?a=0D=0ABcc:_v@t?=\r\n\r\n", "Subject: an encoded word");
    refused("From: u@[127.0.0.1]\r\n\r\n", "From: address literals");
}

#[test]
fn refuses_bad_steering() {
    for (field, wanted) in [
        ("Tag: a b", "X-Posthaste-Tag: a name"),
        ("Tag: a,b,c,d,e,f,g,h,i,j,k", "at most 10 tags"),
        ("Class: urgent", "unknown class"),
        ("Metadata: [1]", "not a JSON object"),
        ("Metadata: {", "not JSON"),
        ("Pool: p\r\nX-Posthaste-Pool: q", "more than one"),
        ("Campain: x", "not known"),
    ] {
        refused(&format!("From: a@b.example\r\nX-Posthaste-{field}\r\n\r\n"), wanted);
    }
}

#[test]
fn a_header_is_bounded() {
    let lines = "X: y\r\n".repeat(HEADER_LINES_MAX);
    assert_eq!(parse(format!("From: a@b.example\r\n{lines}\r\n").as_bytes()), Err(HeaderError::TooLarge));
    let long = format!("From: a@b.example\r\nX: {}\r\n\r\n", "y".repeat(HEADER_OCTETS_MAX));
    assert_eq!(parse(long.as_bytes()), Err(HeaderError::TooLarge));
    // A long body is none of the header's business.
    assert!(parse(format!("From: a@b.example\r\n\r\n{}", "y".repeat(HEADER_OCTETS_MAX)).as_bytes()).is_ok());
}

#[test]
fn trace_fields_follow_the_rfc() {
    let now = Timestamp::from_millis(1_795_456_549_012);
    let id = MessageId::new(now, 1);
    let to = Mailbox::parse("c@d\u{fc}.example").expect("valid");
    let trace = Trace {
        hostname: "mta.example",
        helo: "client.example",
        address: "::ffff:192.0.2.1".parse().ok(),
        protocol: "ESMTPSA",
        tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384"),
        id,
        recipient: Some(&to),
        now,
    };
    let all = trace_fields(&trace, &Parsed::default());
    assert_eq!(
        all,
        format!(
            "Received: from client.example ([192.0.2.1])\r\n\tby mta.example with ESMTPSA id {id}\r\n\t\
             (TLSv1.3 TLS13_AES_256_GCM_SHA384)\r\n\tfor <c@xn--d-eha.example>;\r\n\tMon, 23 Nov 2026 17:55:49 +0000\r\n\
             Date: Mon, 23 Nov 2026 17:55:49 +0000\r\nMessage-ID: <{id}@mta.example>\r\n"
        )
    );
    let parsed = Parsed { has_date: true, has_message_id: true, ..Parsed::default() };
    let bare = Trace { helo: "", address: None, tls: None, recipient: None, protocol: "HTTP", ..trace };
    assert!(trace_fields(&bare, &parsed).starts_with("Received: by mta.example with HTTP id "));
}

proptest::proptest! {
    #[test]
    fn never_panics_and_both_ways_agree(fields in proptest::collection::vec(0usize..6, 0..12), junk in ".{0,40}") {
        let pieces = ["From: a@b.example\r\n", "Bcc: x@y.example\r\n", "X-Posthaste-Tag: t\r\n", "To: c@d.example\r\n", "X: 1\r\n 2\r\n", &junk];
        let message: String = fields.iter().map(|i| pieces[*i]).collect::<String>() + "\r\nbody";
        if parse(message.as_bytes()).is_ok() {
            assembled(&message, "N: 1\r\n");
        }
    }
}
