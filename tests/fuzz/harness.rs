//! What must hold for whatever octets come from outside: one function a parser, which panics where it does not.
//!
//! 1. [`ALL`] names each function; its corpus is `tests/fuzz/corpus/<name>`, its fuzz target `tests/fuzz/targets/<name>.rs`,
//! 2. `tests/it/fuzz.rs` runs all of them on the corpora and on seeded changes of these, in `cargo test`,
//! 3. `cargo +nightly fuzz run --fuzz-dir tests/fuzz <name>` looks for new inputs. What it finds goes into the corpus.
//!
//! Only public API is used, so that both callers compile this one file.

#![allow(dead_code, reason = "a fuzz target uses one of the functions")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::bounce::read::{Kind, REPORTS_MAX, read};
use posthaste::campaign::job;
use posthaste::campaign::recipients::{chunks, read_rows};
use posthaste::config::Rate;
use posthaste::dkim::{Algorithm, Key, PrivateKey, keygen, sign};
use posthaste::event::SmtpReply;
use posthaste::links::{Links, UnsubscribeToken, find_token};
use posthaste::shaping::Bucket;
use posthaste::smtp::client::{
    Body, Client, Event, LINE_MAX, LINES_MAX, LostBy, Mail, Rcpt, ReplyParser, Settings, TEXT_MAX, TlsUse, stuff_into,
};
use posthaste::smtp::command::{self, Command};
use posthaste::smtp::data::{DataReceiver, Received};
use posthaste::smtp::line::{self, COMMAND_LINE_MAX, Line};
use posthaste::smtp::message_buffer::{HEADROOM, MessageBuffer};
use posthaste::smtp::{bdat::BdatReceiver, xtext};
use posthaste::template::{Compiled, Globals, Options, Part, Segment, Sources, Vars, html_to_text};
use posthaste::types::{Domain, Mailbox, MessageId, Name, Notify, ReversePath, Timestamp};

/// A parser under test.
pub type Target = fn(&[u8]);

/// All of them.
pub const ALL: &[(&str, Target)] = &[
    ("address", address),
    ("bdat", bdat),
    ("bounce", bounce),
    ("bucket", bucket),
    ("client", client),
    ("command", smtp_command),
    ("config", config),
    ("data", data),
    ("dkim", dkim),
    ("dsn", dsn),
    ("header", header),
    ("job", job_text),
    ("mime", mime),
    ("reply", reply),
    ("rows", rows),
    ("segment", segment),
    ("stuffing", stuffing),
    ("template", template),
    ("token", token),
    ("values", values),
];

/// The largest message that the receivers keep here.
const MESSAGE_MAX: usize = 1 << 16;

/// A moment: parsers take time as a parameter.
const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);

/// A mail that came back: bounded, and no text of it can end a line of an event.
pub fn bounce(input: &[u8]) {
    let reading = read(input);
    assert!(reading.reports.len() <= REPORTS_MAX);
    for report in &reading.reports {
        assert!(!has_controls(report.diagnostic.as_deref().unwrap_or_default()), "{report:?}");
        assert!(
            !report.verdict.suppress || report.verdict.fault.may_suppress() || report.kind == Kind::Complaint,
            "{report:?}"
        );
    }
}

/// The input in pieces whose lengths its own octets say: every cut is reached by some input, and each input always cuts alike.
fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    let mut rest = input;
    while let Some(first) = rest.first() {
        let (piece, after) = rest.split_at((usize::from(*first) % 17 + 1).min(rest.len()));
        out.push(piece);
        rest = after;
    }
    out
}

/// Whether there is an octet that could end a line, or anything else, for somebody.
fn has_controls(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// Each CR has its LF, each LF its CR, and there is no NUL.
fn has_only_crlf(octets: &[u8]) -> bool {
    octets.iter().enumerate().all(|(at, octet)| match octet {
        b'\r' => octets.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && octets[at - 1] == b'\r',
        0 => false,
        _ => true,
    })
}

/// Mailboxes and domains: what is taken has no line end, prints as it was given, and its canonical form is one too.
pub fn address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(domain) = Domain::parse(text) {
        assert!(domain.as_str().is_ascii() && !has_controls(domain.as_str()), "{domain:?}");
        assert_eq!(Domain::parse(domain.as_str()).as_ref(), Ok(&domain), "the A-label form of {text:?}");
    }
    let Ok(mailbox) = Mailbox::parse(text) else { return };
    assert!(!has_controls(mailbox.as_str()), "{mailbox:?}");
    assert_eq!(mailbox.to_string(), text);
    assert!(mailbox.local_part().len() <= 64 && mailbox.domain().as_str().len() <= 255);
    let again = Mailbox::parse(&mailbox.canonical()).map(|m| m.canonical());
    // Lowercase may be longer than what it was made from; then the form is only compared, never parsed.
    if mailbox.canonical().len() == text.len() {
        assert_eq!(again.as_ref(), Ok(&mailbox.canonical()), "the canonical form of {text:?}");
    }
    for utf8 in [false, true] {
        let wire = mailbox.for_wire(utf8).into_owned();
        assert!(utf8 || mailbox.needs_smtputf8() || wire.is_ascii(), "{wire:?} in ASCII");
        assert_eq!(Mailbox::parse(&wire).map(|m| m.canonical()), Ok(mailbox.canonical()), "the wire form of {text:?}");
    }
    // What goes out in a command must come back as the same command: no address carries a second one.
    let said = format!("RCPT TO:<{text}>");
    match command::parse(said.as_bytes()) {
        Ok(Command::Rcpt(rcpt)) => assert_eq!(rcpt.mailbox.map(|m| m.canonical()), Some(mailbox.canonical())),
        Ok(other) => panic!("{said:?} is {other:?}"),
        Err(refused) => panic!("{said:?} is refused: {refused:?}"),
    }
}

/// Command lines as a session reads them: bounded, the same at any cut, and no value has a line end.
pub fn smtp_command(input: &[u8]) {
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let found = line::find(rest, COMMAND_LINE_MAX);
        let Line::Complete { line, len } = found else { break };
        assert!(len <= COMMAND_LINE_MAX && line.len() + 2 == len);
        // A line is found only when its last octet is there; until then nothing else may be said of it.
        for cut in [len - 1, len / 2] {
            assert_eq!(line::find(&rest[..cut], COMMAND_LINE_MAX), Line::Incomplete);
        }
        check_command(line);
        at += len;
    }
    check_command(input);
}

fn check_command(line: &[u8]) {
    match command::parse(line) {
        Ok(Command::Mail(mail)) => {
            assert!(mail.reverse_path.mailbox().is_none_or(|m| !has_controls(m.as_str())));
            assert!(mail.envid.as_deref().is_none_or(|id| xtext::decode(id).is_some()));
        }
        Ok(Command::Rcpt(rcpt)) => {
            assert!(rcpt.mailbox.is_none_or(|m| !has_controls(m.as_str())));
            assert!(rcpt.orcpt.is_none_or(|o| o.is_ascii() && !has_controls(&o)));
        }
        Ok(Command::Ehlo(name) | Command::Helo(name)) => assert!(!has_controls(name), "{name:?}"),
        Ok(_) => {}
        Err(refused) => {
            let mut out = Vec::new();
            refused.reply.write(&mut out);
            assert!(out.ends_with(b"\r\n") && has_only_crlf(&out), "{:?}", String::from_utf8_lossy(&out));
            assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1, "an echo makes no line of its own");
            let mut parser = ReplyParser::default();
            assert_eq!(parser.feed(&out), Ok((out.len(), true)), "our own client reads it");
            assert_eq!(parser.take().code, refused.reply.code);
        }
    }
}

/// Replies: bounded, the same at any cut, clean in events.
pub fn reply(input: &[u8]) {
    let whole = read_replies(input, [input]);
    assert_eq!(whole, read_replies(input, pieces(input)), "cut");
    assert_eq!(whole, read_replies(input, input.chunks(1)), "octet by octet");
}

fn read_replies<'a>(input: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<SmtpReply, String>> {
    let mut parser = ReplyParser::default();
    let mut out = Vec::new();
    for mut part in parts {
        while !part.is_empty() {
            match parser.feed(part) {
                Ok((used, whole)) => {
                    assert!(used <= part.len() && (whole || used == part.len()));
                    part = &part[used..];
                    if !whole {
                        continue;
                    }
                    let reply = parser.take();
                    assert!((200..600).contains(&reply.code) && reply.lines().count() <= LINES_MAX);
                    assert!(reply.lines().all(|line| line.len() <= LINE_MAX));
                    let event = reply.to_event();
                    assert!(event.text.len() <= TEXT_MAX && !has_controls(&event.text), "{:?}", event.text);
                    out.push(Ok(event));
                    parser.recycle(reply);
                }
                Err(error) => {
                    out.push(Err(error.to_string()));
                    return out;
                }
            }
        }
        assert!(out.len() <= input.len());
    }
    out
}

/// DATA: only CRLF dot CRLF ends it, wherever it is cut; what is taken has no other line end.
pub fn data(input: &[u8]) {
    let whole = receive_data([input]);
    assert_eq!(whole, receive_data(pieces(input)), "cut");
    assert_eq!(whole, receive_data(input.chunks(1)), "octet by octet");
    let (end, used, message) = whole;
    match end {
        Received::End(_) => {
            assert!(used == 3 || input[..used].ends_with(b"\r\n.\r\n"), "ended by {:?}", &input[..used]);
            assert!(has_only_crlf(&input[..used]), "a bare line end or a NUL was taken");
            let message = message.unwrap_or_default();
            assert!(message.is_empty() || message.ends_with(b"\r\n"));
        }
        Received::More => assert!(!input.starts_with(b".\r\n") && find(input, b"\r\n.\r\n").is_none()),
        Received::Malformed => {}
    }
}

fn find(input: &[u8], what: &[u8]) -> Option<usize> {
    input.windows(what.len()).position(|window| window == what)
}

/// How it ended, the octets used, the message.
fn receive_data<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Received, usize, Option<Vec<u8>>) {
    let mut receiver = DataReceiver::new(MessageBuffer::new(None, MESSAGE_MAX));
    let mut used = 0;
    for part in parts {
        match receiver.feed(part) {
            Received::More => used += part.len(),
            Received::End(n) => {
                let message = receiver.into_message().into_octets().map(|octets| octets[HEADROOM..].to_vec());
                return (Received::End(0), used + n, message);
            }
            Received::Malformed => return (Received::Malformed, 0, None),
        }
    }
    (Received::More, used, None)
}

/// BDAT: every octet is kept, or the message is refused; the same at any cut.
pub fn bdat(input: &[u8]) {
    let receive = |parts: &[&[u8]]| {
        let mut receiver = BdatReceiver::new(MessageBuffer::new(Some(input.len() as u64), MESSAGE_MAX));
        let taken = parts.iter().try_for_each(|part| receiver.feed(part));
        taken.and_then(|()| receiver.finish()).map(|message| message.into_octets().map(|o| o[HEADROOM..].to_vec()))
    };
    let whole = receive(&[input]);
    assert_eq!(whole, receive(&pieces(input)));
    assert_eq!(whole, receive(&input.chunks(1).collect::<Vec<_>>()));
    assert_eq!(whole.is_ok(), has_only_crlf(input));
    if let Ok(Some(message)) = whole {
        assert_eq!(message, input);
    }
}

/// Dot-stuffing there and back: what is put into DATA comes out of it, and its end is at its end.
pub fn stuffing(input: &[u8]) {
    // Any octets as a message with the line ends of the wire.
    let mut message = Vec::new();
    for octet in input {
        match octet {
            b'\n' => message.extend_from_slice(b"\r\n"),
            b'\r' | 0 => message.push(b'.'),
            other => message.push(*other),
        }
    }
    let mut sent = Vec::new();
    let mut line_start = true;
    for part in pieces(&message) {
        stuff_into(part, &mut line_start, &mut sent);
    }
    if !message.is_empty() && !message.ends_with(b"\r\n") {
        sent.extend_from_slice(b"\r\n");
        message.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b".\r\n");
    let (end, used, got) = receive_data(pieces(&sent));
    assert_eq!((end, used), (Received::End(0), sent.len()), "it ended elsewhere");
    if message.len() <= MESSAGE_MAX {
        assert_eq!(got, Some(message));
    }
}

/// A whole session of the client against any peer: each transaction ends once, and nothing grows.
pub fn client(input: &[u8]) {
    let Some((first, script)) = input.split_first() else { return };
    let tls = [TlsUse::Never, TlsUse::IfOffered, TlsUse::Must, TlsUse::Implicit][usize::from(first & 3)];
    let credentials = (first & 4 != 0).then(|| Arc::new(("user".to_owned(), "password".to_owned())));
    let settings = Settings {
        ehlo: "mta.example".into(),
        tls,
        credentials,
        auth_in_clear: first & 8 != 0,
        depth: u32::from(first >> 4 & 7),
        chunking: first & 128 == 0,
    };
    let mailbox = Mailbox::parse("u@dest.example").expect("valid");
    let reverse = ReversePath::Mailbox(Mailbox::parse("s@acme.example").expect("valid"));
    let mail = Mail { reverse_path: &reverse, ret: None, envid: None, eight_bit: false, smtputf8: false };
    let mut client = Client::new(settings);
    let (mut sent, mut done, mut verdicts, mut closed) = (0, 0, 0, 0);
    let mut take = |client: &mut Client| {
        while let Some(event) = client.event() {
            match event {
                Event::StartTls => client.tls_started(),
                Event::Ready => {}
                Event::Done { verdicts: some, .. } => {
                    done += 1;
                    verdicts += some.len();
                }
                Event::Closed(_) => closed += 1,
            }
        }
    };
    for piece in pieces(script) {
        client.input(piece);
        take(&mut client);
        if sent < 20 && client.can_send() {
            let rcpt = Rcpt { mailbox: &mailbox, notify: Notify::Never, orcpt: None };
            let body = Body::new(vec![Bytes::from_static(b"Subject: x\r\n\r\n.\r\nx\r\n")]).expect("CRLF only");
            client.send(&mail, [rcpt; 2].into_iter(), body);
            sent += 1;
        }
        // The socket takes some of it, or all.
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let count = client.output().fill(&mut slices);
        let octets: usize = slices[..count].iter().map(|s| s.len()).sum();
        client.wrote(if piece.len() % 2 == 0 { octets } else { octets / 2 });
        take(&mut client);
    }
    client.lost(&LostBy::Closed);
    take(&mut client);
    assert_eq!((done, verdicts, client.open()), (sent, sent * 2, 0), "each transaction ends once");
    assert!(closed <= 1, "closed {closed} times");
    assert!(client.is_closed());
}

/// The header of a submission: ranges lie within it, and the message that is put together has what was not to go.
pub fn header(input: &[u8]) {
    use posthaste::mime::submission::{Trace, assemble, parse, trace_fields};
    let Ok(parsed) = parse(input) else { return };
    assert!(parsed.header_len <= input.len() && !parsed.from.is_empty());
    let mut last = 0;
    for range in &parsed.remove {
        assert!(
            last <= range.start && range.start < range.end && range.end <= parsed.header_len,
            "{:?}",
            parsed.remove
        );
        last = range.end;
    }
    let trace = Trace {
        hostname: "mta.example",
        helo: "client.example",
        address: None,
        protocol: "ESMTP",
        tls: None,
        id: MessageId::new(NOW, 1),
        recipient: None,
        now: NOW,
    };
    let front = trace_fields(&trace, &parsed);
    let mut with_room = vec![0; HEADROOM];
    with_room.extend_from_slice(input);
    let in_place = assemble(with_room.clone().into(), HEADROOM, &parsed, front.as_bytes());
    let shared = Bytes::from(with_room);
    let kept = shared.clone();
    let copied = assemble(shared, HEADROOM, &parsed, front.as_bytes());
    assert_eq!(kept.len(), HEADROOM + input.len());
    assert_eq!(in_place, copied, "both ways of putting it together");
    let removed: usize = parsed.remove.iter().map(ExactSizeIterator::len).sum();
    assert_eq!(copied.len(), front.len() + input.len() - removed);
    assert!(copied.starts_with(front.as_bytes()) && copied.ends_with(&input[parsed.header_len..]));
}

/// Raw messages, and MIME that must go in 7 bits.
pub fn mime(input: &[u8]) {
    use posthaste::mime::{raw::check_raw, seven_bit::to_seven_bit};
    if let Ok(seven) = to_seven_bit(input) {
        assert!(seven.is_ascii(), "8-bit octets are left");
        assert_eq!(to_seven_bit(input).as_ref(), Ok(&seven), "it is always the same");
    }
    let Ok(wire) = check_raw(Bytes::copy_from_slice(input), MESSAGE_MAX as u64) else { return };
    assert!(has_only_crlf(&wire) && wire.len() <= MESSAGE_MAX);
    assert_eq!(check_raw(wire.clone(), MESSAGE_MAX as u64).as_ref(), Ok(&wire), "it is taken again, as it is");
    assert!(Body::new(vec![wire.clone()]).is_ok(), "what was taken can be sent");
    if let Ok(seven) = to_seven_bit(&wire) {
        assert!(has_only_crlf(&seven), "re-encoding makes no bare line end");
    }
    let _ = posthaste::mime::submission::parse(&wire);
}

/// Lists of recipients: CSV, NDJSON, compressed or not. The first octet says in which pieces they come.
pub fn rows(input: &[u8]) {
    let Some((first, list)) = input.split_first() else { return };
    let size = usize::from(first % 64) + 1;
    let whole = read_list(list, list.len().max(1));
    assert_eq!(whole, read_list(list, size), "in pieces of {size}");
}

/// The rows, or what is wrong with each, and how it ended.
fn read_list(list: &[u8], size: usize) -> (Vec<String>, String) {
    let (to_rows, receiver) = chunks();
    let (batches, mut read) = tokio::sync::mpsc::channel(1);
    let globals = Arc::new(Globals::new());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in list.chunks(size) {
                if to_rows.blocking_send(Ok(Bytes::copy_from_slice(piece))).is_err() {
                    return;
                }
            }
            let _ = to_rows.blocking_send(Ok(Bytes::new()));
        });
        scope.spawn(move || {
            read_rows(receiver, None, None, &batches, |given| {
                let members = [b"{\"vars\":{", given.vars, b"},\"metadata\":{", given.metadata, b"}}"].concat();
                // What a row is kept as must be read by the templates.
                assert!(Vars::parse(&members, &globals).is_ok(), "{:?}", String::from_utf8_lossy(&members));
                Ok((format!("{} {:?} {:?}", given.email, given.name, given.tz), given.email.len()))
            });
        });
        let (mut out, mut end) = (Vec::new(), String::from("none"));
        while let Some(batch) = read.blocking_recv() {
            for (place, row) in batch.rows {
                assert!(place.row > 0 && place.line > 0);
                out.push(format!("{} {}: {row:?}", place.row, place.line));
            }
            if let Some(how) = batch.end {
                end = format!("{:?}", how.map_err(|refusal| refusal.to_string()));
            }
        }
        (out, end)
    })
}

/// A configuration: errors have places, and nothing panics. `include` and file names are the operator's; inputs with them are left out.
pub fn config(input: &[u8]) {
    if ["include", "file", "dir"].iter().any(|word| find(input, word.as_bytes()).is_some()) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("posthaste.toml");
    std::fs::write(&path, input).expect("written");
    let environment = posthaste::config::Environment { credentials_dir: None };
    if let Err(errors) = posthaste::config::load_with(&path, &environment) {
        assert!(!errors.errors.is_empty());
        assert!(!errors.to_string().is_empty());
    }
}

/// Durations, sizes, rates, names.
pub fn values(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = text.parse::<posthaste::config::HumanDuration>();
    let _ = text.parse::<posthaste::config::ByteSize>();
    let _ = text.parse::<MessageId>().map(|id| assert_eq!(id.to_string().parse(), Ok(id)));
    if let Ok(rate) = text.parse::<Rate>() {
        assert!(rate.count > 0 && rate.per > Duration::ZERO, "{text:?} is {rate:?}");
    }
    if let Ok(name) = Name::parse(text) {
        assert!(!has_controls(name.as_str()));
    }
    let octets = xtext::encode(input);
    assert!(octets.bytes().all(|b| b.is_ascii_graphic()), "{octets:?}");
    if !text.chars().any(|c| c.is_ascii_control()) {
        assert_eq!(xtext::decode(&octets).as_deref(), Some(input));
    }
    if let Some(decoded) = xtext::decode(text) {
        assert_eq!(xtext::decode(&xtext::encode(&decoded)), Some(decoded));
    }
    assert!(!posthaste::bounce::xtext::decode(text).chars().any(char::is_control) || has_controls(text));
}

/// Jobs in both forms: problems have a place within the text; what is taken can be written and read again.
pub fn job_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = text.split('\n').count() as u32;
    for format in [job::Format::Json, job::Format::Toml] {
        match job::parse(text, format) {
            Ok(job) => {
                let again = serde_json::to_string(&job).expect("a job is JSON");
                let read = job::parse(&again, job::Format::Json).expect("what we write we read");
                assert_eq!(serde_json::to_string(&read).expect("JSON"), again);
            }
            Err(problems) => {
                assert!(!problems.is_empty());
                for problem in problems {
                    assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
                }
            }
        }
    }
}

/// Templates: errors or a bounded text; a header's value stays on one line.
pub fn template(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let options = Options { fuel: 20_000, output_max: 1 << 16, ..Options::default() };
    let globals = Arc::new(Globals::new());
    let row = br#"{"email":"u@dest.example","name":"A\r\nBcc: v@w","vars":{"a":"x\r\ny","n":3,"l":[1,2,{"b":null}]}}"#;
    let vars = Vars::parse(row, &globals).expect("a row");
    let sources = Sources { subject: text, html: Some(text), ..Sources::default() };
    if let Ok(compiled) = Compiled::new(&sources, &options) {
        let _ = (compiled.missing(&vars, NOW), compiled.undeclared().count());
        for part in [Part::Subject, Part::Html, Part::Text] {
            let Ok(rendered) = compiled.render(part, &vars, NOW) else { continue };
            assert_eq!(compiled.render(part, &vars, NOW).ok(), Some(rendered.clone()), "the same text each time");
            if part == Part::Subject {
                assert!(!rendered.text.contains(['\r', '\n']), "{:?}", rendered.text);
            }
        }
    }
    let _ = (html_to_text(text), posthaste::template::links(text), posthaste::template::images_without_alt(text));
}

/// Segments over any row: `expression LF row`.
pub fn segment(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (expression, row) =
        text.split_once('\n').unwrap_or((text, r#"{"email":"u@d.example","vars":{"town":"Lyon","age":30}}"#));
    let _ = Vars::parse(row.as_bytes(), &Arc::new(Globals::new()));
    let Ok(segment) = Segment::compile(expression) else { return };
    assert_eq!(Segment::compile(segment.source()).map(|s| s.names().to_vec()).ok().as_deref(), Some(segment.names()));
    let first = segment.eval_row(row.as_bytes(), NOW);
    assert_eq!(format!("{first:?}"), format!("{:?}", segment.eval_row(row.as_bytes(), NOW)));
}

/// Tokens of links: nothing that we did not seal is opened; what we sealed is.
pub fn token(input: &[u8]) {
    thread_local!(static LINKS: Links = Links::ephemeral());
    let text = String::from_utf8_lossy(input);
    LINKS.with(|links| {
        assert!(links.open_unsubscribe(&text).is_err(), "a forged token was opened");
        for word in find_token(&text) {
            assert!(links.open_unsubscribe(word).is_err());
        }
        let Ok(address) = Mailbox::parse(&text) else { return };
        let made = UnsubscribeToken {
            tenant: Name::parse("acme").expect("a name"),
            message: Some(MessageId::new(NOW, u128::from(input[0]))),
            list: input.len().is_multiple_of(2).then(|| Name::parse("news").expect("a name")),
            address,
            test: input.len().is_multiple_of(3),
        };
        let sealed = links.seal_unsubscribe(&made);
        assert_eq!(links.open_unsubscribe(&sealed).as_ref().ok(), Some(&made));
        let mut bent = sealed.into_bytes();
        let at = usize::from(input[0]) % bent.len();
        // Another letter of the alphabet, not only other padding bits: the last one may carry some.
        bent[at] = if bent[at] == b'A' { b'z' } else { b'A' };
        let bent = String::from_utf8(bent).expect("ASCII");
        assert!(links.open_unsubscribe(&bent).is_err(), "a changed token was opened");
    });
}

/// A report to a sender: what the original and the peer's words are made of must not make fields of their own.
pub fn dsn(input: &[u8]) {
    use posthaste::bounce::dsn::{Action, Recipient, Report, write};
    let (words, original) = input.split_at(input.len() / 2);
    let text = String::from_utf8_lossy(words);
    let reply = SmtpReply { code: 550, enhanced: Some("5.1.1".into()), text: text.as_ref().into() };
    let mailbox = Mailbox::parse("u@dest.example").expect("valid");
    let orcpt = format!("rfc822;{}", xtext::encode(words));
    let recipient = Recipient {
        orcpt: Some(&orcpt),
        mailbox: &mailbox,
        action: Action::Failed,
        reply: Some(&reply),
        remote: true,
        host: Some("mx.dest.example"),
        last_attempt: Some(NOW),
        retry_until: None,
    };
    let report = Report {
        hostname: "mta.example",
        to: &mailbox,
        message_id: "1@mta.example",
        now: NOW,
        envid: None,
        arrival: NOW,
        ret: None,
        original,
        recipients: &[recipient],
    };
    let dsn = write(&report);
    assert!(dsn.octets.is_ascii() || dsn.eight_bit);
    assert!(posthaste::mime::submission::parse(&dsn.octets).is_ok(), "its header is one");
    // The report's own two parts, before whatever the original has in it.
    let ours = find(&dsn.octets, b"Final-Recipient:").expect("the part for programs");
    let end = find(&dsn.octets[ours..], b"\r\n\r\n").map_or(dsn.octets.len(), |n| ours + n);
    let status = String::from_utf8_lossy(&dsn.octets[ours..end]);
    assert!(!status.replace("\r\n", "").contains(['\r', '\n', '\0']), "{status:?}");
    for line in status.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])) {
        let name = line.split(':').next().unwrap_or_default();
        let known = ["Final-Recipient", "Original-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"];
        assert!(
            known.contains(&name) || ["Last-Attempt-Date", "Will-Retry-Until", "Final-Log-ID"].contains(&name),
            "{line:?}"
        );
    }
}

/// A signature over any message that could be sent verifies, by a verifier of its own that follows RFC 6376's words.
pub fn dkim(input: &[u8]) {
    use posthaste::mime::raw::check_raw;
    thread_local!(static KEY: (Arc<Key>, Vec<u8>) = key());
    let Ok(wire) = check_raw(Bytes::copy_from_slice(input), MESSAGE_MAX as u64) else { return };
    // A header whose fields are none is never signed: intake refuses it.
    if posthaste::mime::submission::parse(&wire).is_err() {
        return;
    }
    KEY.with(|(key, public)| {
        let field = sign(&wire, &[Arc::clone(key)], NOW).expect("signs");
        assert!(has_only_crlf(&field) && field.ends_with(b"\r\n"));
        verify(&wire, &field, public);
    });
}

fn key() -> (Arc<Key>, Vec<u8>) {
    let algorithm = Algorithm::Ed25519Sha256;
    let made = keygen(algorithm).expect("a key");
    let private = PrivateKey::from_pem(made.private_pem.as_bytes(), algorithm).expect("parses");
    let public = decode_base64(&made.public_base64);
    let domain = Domain::parse("acme.example").expect("valid");
    (Arc::new(Key { domain, selector: "e1".into(), algorithm, active_from: None, private: Ok(private) }), public)
}

fn decode_base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

/// RFC 6376 §6.1.3, for `c=relaxed/relaxed`, without a thought for speed.
fn verify(message: &[u8], field: &[u8], public: &[u8]) {
    use aws_lc_rs::digest::{SHA256, digest};
    let split = find(message, b"\r\n\r\n");
    let (header, body) = split.map_or((message, &b""[..]), |at| (&message[..at + 2], &message[at + 4..]));
    let text = String::from_utf8(field.to_vec()).expect("a signature is ASCII");
    let value = text.split_once(':').expect("a field").1;
    let tag = |name: &str| -> String {
        let found = value.split(';').find_map(|tag| tag.trim().strip_prefix(name)?.trim_start().strip_prefix('='));
        found.expect("the tag is there").split_whitespace().collect()
    };
    assert_eq!(tag("c"), "relaxed/relaxed");
    let body_hash = digest(&SHA256, &relaxed_body(body));
    assert_eq!(decode_base64(&tag("bh")), body_hash.as_ref(), "bh of {:?}", String::from_utf8_lossy(body));
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in header.split_inclusive(|b| *b == b'\n') {
        match fields.last_mut() {
            Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => last.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    let mut signed = Vec::new();
    for name in tag("h").split(':') {
        // From the bottom, each instance once; a name without one stands for nothing.
        let is = |f: &Vec<u8>| relaxed(f).0.eq_ignore_ascii_case(name.as_bytes());
        if let Some(at) = fields.iter().rposition(is) {
            let (name, value) = relaxed(&fields.remove(at));
            signed.extend_from_slice(&[&name[..], b":", &value, b"\r\n"].concat());
        }
    }
    let signature = tag("b");
    // The field itself with an empty b=, which is its last tag.
    let at = text.rfind("b=").expect("b=");
    let (name, value) = relaxed(&text.as_bytes()[..at + 2]);
    signed.extend_from_slice(&[&name[..], b":", &value].concat());
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
    let hash = digest(&SHA256, &signed);
    assert!(key.verify(hash.as_ref(), &decode_base64(&signature)).is_ok(), "the signature is wrong: {text}");
}

/// RFC 6376 §3.4.2: name and value.
fn relaxed(field: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let colon = field.iter().position(|b| *b == b':').unwrap_or(field.len());
    let name = field[..colon].trim_ascii_end().to_ascii_lowercase();
    let value: Vec<u8> =
        field.get(colon + 1..).unwrap_or_default().iter().filter(|b| !matches!(b, b'\r' | b'\n')).copied().collect();
    (name, squeeze(&value).trim_ascii().to_vec())
}

/// Each run of spaces and tabs as one space.
fn squeeze(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for octet in text {
        let blank = matches!(octet, b' ' | b'\t');
        if !(blank && out.last() == Some(&b' ')) {
            out.push(if blank { b' ' } else { *octet });
        }
    }
    out
}

/// RFC 6376 §3.4.4.
fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = find(rest, b"\r\n").unwrap_or(rest.len());
        let line = squeeze(&rest[..end]);
        lines.push(line.strip_suffix(b" ").unwrap_or(&line).to_vec());
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines.iter().flat_map(|line| line.iter().copied().chain(*b"\r\n")).collect()
}

/// Token buckets against a count of their own: in no window of `per` goes more than the rate and its burst.
pub fn bucket(input: &[u8]) {
    let [count, per, steps @ ..] = input else { return };
    let rate = Rate { count: u32::from(*count) + 1, per: Duration::from_millis(u64::from(*per) * 37 + 1) };
    let per_ms = rate.per.as_millis() as u64;
    let mut bucket = Bucket::default();
    let mut now = NOW.as_millis();
    let mut taken: Vec<u64> = Vec::new();
    for step in steps.iter().take(500) {
        // Waits of all lengths, and sometimes to the moment that the bucket itself names.
        now = match step % 4 {
            0 => bucket.ready_at(rate, Timestamp::from_millis(now)).as_millis(),
            1 => now,
            2 => now + u64::from(step / 4),
            _ => now + u64::from(*step) * per_ms / 256,
        };
        let at = Timestamp::from_millis(now);
        while bucket.ready_at(rate, at) <= at && taken.len() < 5_000 {
            bucket.take(rate, at);
            taken.push(now);
        }
    }
    let most = rate.count as usize + Bucket::burst(rate) as usize;
    let mut first = 0;
    for (last, at) in taken.iter().enumerate() {
        while taken[first] + per_ms <= *at {
            first += 1;
        }
        assert!(last + 1 - first <= most, "{} in {per_ms} ms, with {rate:?}", last + 1 - first);
    }
}
