//! Dialogs: golden text files, each run with whole and with single octets, and the bounds that no text file shows.
//!
//! `S:` the peer says (`\xNN` is an octet), `C:` we must have said, `=` an event must have come, `!` the driver acts, `@` settings.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::Severity;
use crate::types::{Mailbox, Notify, ReversePath};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

fn settings(options: &str) -> Settings {
    let has = |word: &str| options.split_whitespace().any(|w| w == word);
    Settings {
        ehlo: "mta.example".into(),
        tls: match () {
            () if has("tls=must") => TlsUse::Must,
            () if has("tls=may") => TlsUse::IfOffered,
            () => TlsUse::Never,
        },
        credentials: has("auth").then(|| ("user".to_owned(), "pass".to_owned()).into()),
        auth_in_clear: !has("remote"),
        depth: 4,
        chunking: !has("unchunked"),
    }
}

fn send(client: &mut Client, words: &str) {
    assert!(client.can_send(), "can't send {words:?}");
    let addresses: Vec<Mailbox> = words.split_whitespace().map(|a| Mailbox::parse(a).expect("an address")).collect();
    let from = ReversePath::Mailbox(addresses[0].clone());
    let mail = Mail { reverse_path: &from, ret: None, envid: None, eight_bit: false, smtputf8: false };
    let rcpts = addresses[1..].iter().map(|mailbox| Rcpt { mailbox, notify: Notify::Default, orcpt: None });
    client.send(&mail, rcpts, Body::new(vec![Bytes::from_static(MESSAGE)]).expect("CRLF"));
}

fn show_fault(fault: &Fault) -> String {
    let letter = if fault.severity == Severity::Permanent { 'P' } else { 'T' };
    let enhanced = fault.reply.enhanced.as_ref().map(|e| format!("/{e}")).unwrap_or_default();
    format!("{letter}{}{enhanced}({})", fault.reply.code, fault.reply.text)
}

fn show(event: &Event) -> String {
    match event {
        Event::Ready => "ready".into(),
        Event::StartTls => "starttls".into(),
        Event::Closed(None) => "closed".into(),
        Event::Closed(Some(fault)) => format!("closed {}", show_fault(fault)),
        Event::Done { verdicts, ambiguous, .. } => {
            let mut text = "done".to_owned();
            let mut untried = false;
            for verdict in verdicts {
                text.push(' ');
                match verdict {
                    Verdict::Delivered(reply) => text.push_str(&reply.code.to_string()),
                    Verdict::Failed(fault) => {
                        text.push_str(&show_fault(fault));
                        untried |= fault.untried;
                    }
                }
            }
            text.push_str(if *ambiguous { " ambiguous" } else { "" });
            text.push_str(if untried { " untried" } else { "" });
            text
        }
    }
}

/// `\xNN` → the octet.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

fn check(name: &str, dialog: &str, octets_at_a_time: usize) {
    let options = dialog.lines().find_map(|l| l.strip_prefix("@ ")).unwrap_or("");
    let mut client = Client::new(settings(options));
    let mut said = String::new();
    let mut lines = dialog.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let at = format!("{name}:{} with {octets_at_a_time} octets at a time", number + 1);
        match line.get(..2) {
            Some("S:") => {
                let mut bytes = unescape(line[2..].trim_start());
                bytes.extend_from_slice(b"\r\n");
                while let Some((_, next)) = lines.next_if(|(_, l)| l.starts_with("S:")) {
                    bytes.extend(unescape(next[2..].trim_start()));
                    bytes.extend_from_slice(b"\r\n");
                }
                for chunk in bytes.chunks(octets_at_a_time) {
                    client.input(chunk);
                }
            }
            Some("C:") => {
                said.push_str(&String::from_utf8(client_output(&mut client)).expect("text"));
                let (first, rest) =
                    said.split_once("\r\n").unwrap_or_else(|| panic!("{at}: nothing said, want {line}"));
                assert_eq!(first, line.get(3..).unwrap_or(""), "{at}");
                said = rest.to_owned();
            }
            Some("= ") => {
                let event = client.event().unwrap_or_else(|| panic!("{at}: no event"));
                assert_eq!(show(&event), &line[2..], "{at}");
            }
            Some("! ") => {
                let (verb, rest) = line[2..].split_once(' ').unwrap_or((&line[2..], ""));
                match verb {
                    "send" => send(&mut client, rest),
                    "refuse-send" => {
                        send(&mut client, "a@s.example b@r.example");
                        assert!(!client.can_send(), "{at}: nothing may go ahead");
                        client_output(&mut client);
                    }
                    "quit" => client.quit(),
                    "eof" => client.lost(&LostBy::Closed),
                    "tls" => client.tls_started(),
                    other => panic!("{at}: unknown verb {other}"),
                }
            }
            _ => assert!(line.is_empty() || line.starts_with(['#', '@']), "{at}: {line:?}"),
        }
    }
    // What was sent before an early reply is left unwritten on purpose.
    assert!(said.is_empty(), "{name}: also said {said:?}");
    assert_eq!(client.event(), None, "{name}: one more event");
}

fn client_output(client: &mut Client) -> Vec<u8> {
    client.out.drain_to_vec()
}

#[test]
fn dialogs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/smtp/client/dialogs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder of dialogs") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a dialog");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        for octets in [usize::MAX, 1, 3] {
            check(&name, &text, octets);
        }
        count += 1;
    }
    assert!(count > 25, "only {count} dialogs");
}

/// A client that waits for the reply to EHLO.
fn greeted() -> Client {
    let mut client = Client::new(settings(""));
    client.input(b"220 mx\r\n");
    client_output(&mut client);
    client
}

#[test]
fn endless_replies_end_the_session() {
    let mut client = greeted();
    let mut fed = 0;
    while !client.is_closed() {
        client.input(b"250-and so on\r\n");
        fed += 1;
        assert!(fed <= LINES_MAX + 1, "an endless 250- was read on");
    }
    let mut client = greeted();
    let mut fed = 0;
    while !client.is_closed() {
        client.input(&[b'x'; 100]);
        fed += 100;
        assert!(fed <= LINE_MAX + 100, "a line without end was read on");
    }
    let mut client = greeted();
    let line = format!("250-{}\r\n", "y".repeat(2_000));
    let mut fed = 0;
    while !client.is_closed() {
        client.input(line.as_bytes());
        fed += line.len();
        assert!(fed <= REPLY_MAX + line.len(), "a huge reply was read on");
    }
}

#[test]
fn capabilities_are_read_with_their_limits() {
    let mut parser = ReplyParser::default();
    let text = b"250-mx greets you SIZE 5\r\n250-size 35882577\r\n250-8bitmime\r\n250-AUTH PLAIN XOAUTH2\r\n\
        250-LIMITS RCPTMAX=20 MAILMAX=0 RCPTDOMAINMAX=1 FOO=9\r\n250-DSN\r\n250 SMTPUTF8\r\n";
    let (taken, whole) = parser.feed(text).expect("a reply");
    assert!(whole && taken == text.len());
    let caps = Capabilities::parse(&parser.take());
    let want = Capabilities {
        size: Some(35_882_577),
        eight_bit: true,
        auth_plain: true,
        rcpt_max: Some(20),
        rcpt_domain_max: Some(1),
        dsn: true,
        smtputf8: true,
        ..Capabilities::default()
    };
    assert_eq!(caps, want);
    let mut parser = ReplyParser::default();
    parser.feed(b"250-mx\r\n250 SIZE 99999999999999999999999\r\n").expect("a reply");
    // RFC 1870: a number beyond every integer is no limit, not an overflow.
    assert_eq!(Capabilities::parse(&parser.take()).size, Some(0));
}

#[test]
fn every_parameter_only_where_it_is_offered() {
    let from = ReversePath::Mailbox(Mailbox::parse("jörg@bücher.example").expect("valid"));
    let to = Mailbox::parse("a@bücher.example").expect("valid");
    let check = |offer: &str, utf8: bool, want: &str| {
        let mut client = greeted();
        client.input(format!("250-mx\r\n{offer}250 PIPELINING\r\n").as_bytes());
        let mail = Mail {
            reverse_path: &from,
            ret: Some(crate::types::Ret::Headers),
            envid: Some("QQ314"),
            eight_bit: true,
            smtputf8: utf8,
        };
        let notify = Notify::On { success: true, failure: false, delay: true };
        let rcpt = Rcpt { mailbox: &to, notify, orcpt: Some("rfc822;a+2Bb@r.example") };
        client.send(&mail, std::iter::once(rcpt), Body::new(vec![Bytes::from_static(MESSAGE)]).expect("CRLF"));
        assert_eq!(String::from_utf8(client_output(&mut client)).expect("text"), want);
    };
    check(
        "250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n",
        true,
        "MAIL FROM:<jörg@bücher.example> SIZE=21 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314\r\n\
         RCPT TO:<a@bücher.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@r.example\r\nDATA\r\n",
    );
    check("", false, "MAIL FROM:<jörg@xn--bcher-kva.example>\r\nRCPT TO:<a@xn--bcher-kva.example>\r\nDATA\r\n");
}

#[test]
fn secrets_stay_out_of_the_trace() {
    let mut client = Client::new(settings("auth"));
    client.set_trace(true);
    client.input(b"220 mx\r\n");
    client.input(b"250-mx\r\n250 AUTH PLAIN\r\n");
    client.input(b"235 \x1b[31mfine\r\n");
    let want =
        ["< 220 mx", "> EHLO mta.example", "< 250-mx", "< 250 AUTH PLAIN", "> AUTH PLAIN ****", "< 235 [31mfine"];
    assert_eq!(client.trace_lines(), want);
}

#[test]
fn long_text_is_cut() {
    let mut parser = ReplyParser::default();
    let text = format!("550 5.7.1 {}\r\n", "ä".repeat(900));
    parser.feed(text.as_bytes()).expect("a reply");
    let reply = parser.take().to_event();
    assert_eq!(reply.text.len(), TEXT_MAX);
    assert_eq!(reply.enhanced.as_deref(), Some("5.7.1"));
    let mut parser = ReplyParser::default();
    parser.feed(b"550 4.7.1 class of the code differs\r\n").expect("a reply");
    assert_eq!(parser.take().to_event().enhanced, None);
}

#[test]
fn every_state_has_a_time_and_a_name() {
    for state in State::ALL {
        assert!(!state.name().is_empty());
        assert!(state == State::Closed || !state.timeout().is_zero(), "{state:?}");
    }
}

#[test]
fn bare_line_ends_are_not_sent() {
    let check = |parts: &[&'static [u8]], good: bool| {
        let body = Body::new(parts.iter().map(|p| Bytes::from_static(p)).collect());
        assert_eq!(body.is_ok(), good, "{parts:?}");
    };
    check(&[b"a\r\n", b"b\r\n"], true);
    check(&[b"a\r", b"\nb"], true);
    check(&[], true);
    check(&[b"\r\n.\r\n"], true);
    // Each of these would end the message for somebody (smuggling).
    for bad in [
        &b"a\n.\nb"[..],
        b"a\n.\r\n",
        b"\r.\r\n",
        b"a\r.\r",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\n",
        b"\r",
        b"a\r\r\n",
        b"\r\n\r",
        b"\n\r",
    ] {
        check(&[bad], false);
    }
    check(&[b"a\r", b"b\n"], false);
    check(&[b"a", b"\nb"], false);
}

/// What a receiver makes of the data: lines until a lone dot, one leading dot taken off.
fn unstuff(sent: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let end = at + memchr::memmem::find(&sent[at..], b"\r\n").expect("a whole line") + 2;
        let line = &sent[at..end];
        at = end;
        if line == b".\r\n" {
            return (out, at);
        }
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
}

fn data(parts: Vec<Bytes>) -> Vec<u8> {
    let mut out = Output::default();
    Body::new(parts).expect("CRLF").write_data(&mut out);
    out.drain_to_vec()
}

proptest! {
    #[test]
    fn unstuffing_gives_the_message_back(
        lines in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'.'), Just(b'a'), Just(0u8)], 0..4), 0..12),
        final_crlf: bool,
        cuts in prop::collection::vec(0usize..64, 0..5),
    ) {
        let mut message = lines.join(&b"\r\n"[..]);
        if final_crlf {
            message.extend_from_slice(b"\r\n");
        }
        let mut parts = Vec::new();
        let mut rest = Bytes::from(message.clone());
        for cut in cuts {
            parts.push(rest.split_to(cut.min(rest.len())));
        }
        parts.push(rest);
        let sent = data(parts);
        let (mut got, end) = unstuff(&sent);
        prop_assert_eq!(end, sent.len(), "the message ended early");
        if !message.is_empty() && !message.ends_with(b"\r\n") {
            message.extend_from_slice(b"\r\n");
        }
        prop_assert_eq!(std::mem::take(&mut got), message);
    }

    #[test]
    fn any_octets_from_the_peer_do_no_harm(input in prop::collection::vec(any::<u8>(), 0..300), pieces in 1usize..20) {
        let mut client = greeted();
        client.input(b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        send(&mut client, "a@s.example b@r.example");
        client_output(&mut client);
        for piece in input.chunks(pieces) {
            client.input(piece);
        }
        client.lost(&LostBy::Closed);
        let mut done = 0;
        while let Some(event) = client.event() {
            done += usize::from(matches!(event, Event::Done { .. }));
        }
        prop_assert_eq!(done, 1);
    }
}

#[test]
fn output_keeps_its_order_over_partial_writes() {
    let mut out = Output::default();
    let mut want = Vec::new();
    let mut got = Vec::new();
    for i in 0..2_000u32 {
        let command = format!("RCPT TO:<user{i}@example.org>\r\n");
        out.text(command.as_bytes());
        want.extend_from_slice(command.as_bytes());
        let body = Bytes::from(format!("body {i}\r\n"));
        want.extend_from_slice(&body);
        out.body(body);
        // A socket that takes 37 octets at a time.
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let n = out.fill(&mut slices);
        let mut taken = 0;
        for slice in &slices[..n] {
            let take = slice.len().min(37 - taken);
            got.extend_from_slice(&slice[..take]);
            taken += take;
        }
        out.advance(taken);
    }
    got.extend(out.drain_to_vec());
    assert!(got == want);
    assert_eq!(out.written(), want.len() as u64);
}

/// Lets a peer that says no more wait in simulated seconds: when the time of the state is over, and what comes of it.
fn wait_out(mut client: Client) -> (u64, String) {
    let mut clock = 0;
    while clock < client.state().timeout().as_secs() {
        clock += 1;
        assert_eq!(client.event(), None);
    }
    client.lost(&LostBy::Timeout);
    let events: Vec<String> = std::iter::from_fn(|| client.event()).map(|e| show(&e)).collect();
    (clock, events.join("; "))
}

/// See the table.
type Silence = (&'static [&'static str], bool, bool, u64, &'static str, bool);

/// RFC 5321 §4.5.3.2: each phase has a time of its own, and silence in it defers; only behind the final dot is it ambiguous.
#[test]
fn silence_in_each_phase_ends_after_its_own_time() {
    const HELLO: &str = "250-mx\r\n250 PIPELINING\r\n";
    const LOCKSTEP: &str = "250 mx\r\n";
    // The peer's words before it falls silent; whether a message is sent, and written to its last octet; seconds; phase; ambiguous.
    let table: [Silence; 9] = [
        (&[], false, true, 300, "waiting for the greeting", false),
        (&["220 mx\r\n"], false, true, 300, "sending EHLO", false),
        (&["220 mx\r\n", LOCKSTEP], true, true, 300, "sending MAIL", false),
        (&["220 mx\r\n", LOCKSTEP, "250 ok\r\n"], true, true, 300, "sending RCPT", false),
        (&["220 mx\r\n", LOCKSTEP, "250 ok\r\n", "250 ok\r\n"], true, true, 120, "sending DATA", false),
        (&["220 mx\r\n", HELLO, "250 ok\r\n250 ok\r\n"], true, true, 120, "sending DATA", false),
        (
            &["220 mx\r\n", LOCKSTEP, "250 ok\r\n", "250 ok\r\n", "354 go\r\n"],
            true,
            false,
            180,
            "sending the message",
            false,
        ),
        (
            &["220 mx\r\n", LOCKSTEP, "250 ok\r\n", "250 ok\r\n", "354 go\r\n"],
            true,
            true,
            600,
            "sending end of data: the message may be sent twice",
            true,
        ),
        (&["220 mx\r\n", "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"], true, true, 300, "sending MAIL", true),
    ];
    for (words, sends, written, secs, phase, ambiguous) in table {
        let mut client = Client::new(settings(""));
        for (i, said) in words.iter().enumerate() {
            client.input(said.as_bytes());
            if i == 1 {
                assert_eq!(client.event(), Some(Event::Ready));
                if sends {
                    send(&mut client, "a@s.example b@r.example");
                }
            }
            if written || i + 1 < words.len() {
                client_output(&mut client);
            }
        }
        if written {
            client_output(&mut client);
        }
        let fault = format!("T0/4.4.2(timed out while {phase})");
        let done = format!("done {fault}{}; ", if ambiguous { " ambiguous" } else { "" });
        let want = format!("{}closed {fault}", if sends { done.as_str() } else { "" });
        assert_eq!(wait_out(client), (secs, want), "{words:?}");
    }
}

#[test]
fn what_defers_says_class_4_and_keeps_the_peers_words() {
    let check = |phase: State, line: &str, want: &str| {
        let mut parser = ReplyParser::default();
        parser.feed(format!("{line}\r\n").as_bytes()).expect("a reply");
        assert_eq!(show_fault(&Fault::refusal(phase, &parser.take())), want);
    };
    // RFC 5321 §4.5.3.1.10: a 552 to RCPT is a 452.
    check(State::Rcpt, "552 5.2.2 mailbox full", "T552/4.2.2(5.2.2 mailbox full)");
    check(State::Rcpt, "552 too many", "T552(too many)");
    check(State::Rcpt, "550 5.1.1 no", "P550/5.1.1(no)");
    check(State::Rcpt, "452 4.2.2 full", "T452/4.2.2(full)");
    check(State::DataEnd, "552 5.3.4 too big", "P552/5.3.4(too big)");
}
