//! Envelope and message from what a program writes; exit codes from what a server answers.

use super::message::{Asked, Prepared, prepare};
use super::*;

fn asked() -> Asked<'static> {
    Asked { from: None, full_name: None, recipients: &[], read_recipients: true, dot_ends: true }
}

fn data(prepared: &Prepared) -> String {
    String::from_utf8_lossy(&prepared.data).into_owned()
}

#[test]
fn recipients_from_the_header_and_no_bcc() {
    let raw = "To: Jane <jane@a.example>,\n  \"Doe, Joe\" <joe@b.example>\nBcc: secret@c.example,\n\tJANE@a.example\nFrom: me@x.example\nSubject: s\n\nbody\n";
    let got = prepare(raw.as_bytes(), &asked()).expect("prepared");
    assert_eq!(got.from, "me@x.example");
    assert_eq!(got.recipients, ["jane@a.example", "joe@b.example", "secret@c.example"]);
    assert!(!data(&got).contains("Bcc") && !data(&got).contains("secret"), "{}", data(&got));
    assert!(data(&got).ends_with("Subject: s\r\n\r\nbody\r\n"));
}

#[test]
fn a_dot_ends_the_message_unless_told_otherwise() {
    let raw = b"From: me@x.example\nTo: a@a.example\n\none\n.\ntwo\n";
    assert!(data(&prepare(raw, &asked()).expect("prepared")).ends_with("\r\n\r\none\r\n"));
    let got = prepare(raw, &Asked { dot_ends: false, ..asked() }).expect("prepared");
    assert!(data(&got).ends_with("one\r\n.\r\ntwo\r\n"));
}

#[test]
fn text_without_a_header_is_a_body() {
    let recipients = ["a@a.example".to_owned()];
    let asked = Asked {
        from: Some("<me@x.example>"),
        full_name: Some("A \"B\""),
        recipients: &recipients,
        read_recipients: false,
        dot_ends: true,
    };
    let got = prepare(b"Dear all,\n\nhello: world\n", &asked).expect("prepared");
    assert_eq!(data(&got), "From: \"A \\\"B\\\"\" <me@x.example>\r\n\r\nDear all,\r\n\r\nhello: world\r\n");
    let mbox = prepare(b"From me Mon Nov 23\nSubject: x\n\nb\n", &asked).expect("prepared");
    assert!(data(&mbox).ends_with("Subject: x\r\n\r\nb\r\n") && !data(&mbox).contains("From me"), "{}", data(&mbox));
}

#[test]
fn addresses_can_not_carry_commands() {
    for bad in ["a@b.example>\r\nRCPT TO:<v@t.example", "a", "@", "a@[127.0.0.1]", "a b@c.example"] {
        let recipients = [bad.to_owned()];
        let with = Asked { from: Some("me@x.example"), recipients: &recipients, read_recipients: false, ..asked() };
        assert!(prepare(b"\nx\n", &with).is_err(), "{bad:?}");
        let recipients = ["a@a.example".to_owned()];
        let with = Asked { from: Some(bad), recipients: &recipients, read_recipients: false, ..asked() };
        assert!(prepare(b"\nx\n", &with).is_err(), "{bad:?}");
    }
    assert!(prepare(b"From: me@x.example\n\nx\n", &asked()).is_err(), "no recipients");
    assert!(prepare(b"To: a@a.example\n\nx\n", &asked()).is_err(), "no sender");
}

#[test]
fn null_sender_and_utf8() {
    let with = Asked { from: Some("<>"), ..asked() };
    let got = prepare("From: x@x.example\nTo: müller@a.example\n\nñ\n".as_bytes(), &with).expect("prepared");
    assert_eq!(got.from, "");
    assert!(got.is_8bit && got.needs_smtputf8);
}

#[test]
fn tls_follows_the_server() {
    assert_eq!(mode(TlsMode::Auto, "127.0.0.1", 587), TlsMode::None);
    assert_eq!(mode(TlsMode::Auto, "::1", 465), TlsMode::Implicit);
    assert_eq!(mode(TlsMode::Auto, "mta.example", 587), TlsMode::Starttls);
    assert_eq!(mode(TlsMode::None, "mta.example", 587), TlsMode::None);
    assert_eq!(host_and_port("[::1]:25").expect("valid"), ("::1".to_owned(), 25));
    assert!(host_and_port("mta.example").is_err());
}

/// A server that reads a line for each answer and gives it; `DATA`'s text is read to its dot.
fn serve(answers: &'static [&'static str]) -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        let mut stream = stream;
        for (i, answer) in answers.iter().enumerate() {
            if i > 0 {
                let mut line = String::new();
                let in_data = answers[i - 1].starts_with("354");
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if !in_data || line == ".\r\n" {
                        break;
                    }
                    line.clear();
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn submit_to(answers: &'static [&'static str]) -> Result<String, Exit> {
    let port = serve(answers);
    let message = prepare(b"From: me@x.example\nTo: a@a.example, b@b.example\n\nx\n", &asked()).expect("prepared");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(submit("127.0.0.1", port, TlsMode::None, None, &message)).map_err(|refusal| refusal.exit)
}

#[test]
fn exits_with_what_the_server_said() {
    const HI: &str = "220 hi\r\n";
    const EHLO: &str = "250-me\r\n250 8BITMIME\r\n";
    const OK: &str = "250 2.0.0 ok\r\n";
    const GO: &str = "354 go\r\n";
    let all = submit_to(&[HI, EHLO, EHLO, OK, OK, OK, GO, "250 2.0.0 queued as 7\r\n", "221 bye\r\n"]);
    assert_eq!(all, Ok("queued as 7".to_owned()));
    assert_eq!(submit_to(&[HI, EHLO, EHLO, OK, OK, "550 5.1.1 who?\r\n"]), Err(Exit::SendRefused));
    assert_eq!(submit_to(&[HI, EHLO, EHLO, OK, OK, OK, GO, "452 4.3.1 full\r\n"]), Err(Exit::SendLater));
    assert_eq!(submit_to(&[HI, EHLO, EHLO, "530 5.7.0 log in\r\n"]), Err(Exit::SendLogin));
    assert_eq!(submit_to(&["554 no\r\n"]), Err(Exit::SendRefused));
    assert_eq!(submit_to(&["what?\r\n"]), Err(Exit::SendProtocol));
}

#[test]
fn nobody_there_is_for_later() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let message = prepare(b"From: me@x.example\nTo: a@a.example\n\nx\n", &asked()).expect("prepared");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refusal = runtime.block_on(submit("127.0.0.1", port, TlsMode::None, None, &message)).expect_err("nobody");
    assert_eq!(refusal.exit, Exit::SendLater, "{}", refusal.words);
}
