//! The simulated receivers against a client of plain sockets, and against our own source.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::{Load, Progress};
use super::*;

struct Client(BufReader<TcpStream>);

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("listening");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("open");
    }

    /// The last line of a reply; "" at the end of the connection.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return String::new();
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    fn say(&mut self, text: &str) -> String {
        self.send(text);
        self.reply()
    }

    fn envelope(&mut self, to: &str) -> String {
        self.reply();
        assert!(self.say("EHLO t\r\n").starts_with("250"));
        assert!(self.say("MAIL FROM:<a@b.example>\r\n").starts_with("250"));
        self.say(&format!("RCPT TO:<{to}>\r\n"))
    }
}

fn one(profile: Profile) -> Sink {
    Sink::start(vec![Endpoint::local(profile)]).expect("loopback")
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !until() {
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn takes_odd_bodies_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = one(Profile { store: Some(folder.path().into()), ..Profile::accepting("t") });
    // Empty, a lone stuffed dot, dots, an end that comes in pieces.
    let bodies = [("", ""), ("..\r\n", ".\r\n"), ("a\r\n..b\r\n", "a\r\n.b\r\n"), ("x\r\n\r\n", "x\r\n\r\n")];
    for (number, (sent, kept)) in bodies.iter().enumerate() {
        let mut client = Client::open(sink.address(0));
        assert!(client.envelope("u@d.example").starts_with("250"));
        assert!(client.say("DATA\r\n").starts_with("354"));
        for byte in format!("{sent}.\r\n").bytes() {
            client.send(std::str::from_utf8(&[byte]).expect("ascii"));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(client.reply().starts_with("250"), "{sent:?}");
        let file = folder.path().join(format!("{number:06}.eml"));
        assert_eq!(std::fs::read_to_string(file).expect("kept"), *kept);
    }
    assert_eq!(sink.counters(0).recipient("U@d.example").expect("seen").taken, 4);
    assert_eq!(sink.counters(0).snapshot().duplicates, 3);
}

#[test]
fn answers_a_pipelined_burst_and_reads_a_chunk_that_it_refused() {
    let profile = Profile {
        rules: vec![Rule::always(1_000, "550 5.1.1 no")],
        offers: Offers { chunking: true, ..Offers::default() },
        ..Profile::accepting("t")
    };
    let sink = one(profile);
    let mut client = Client::open(sink.address(0));
    client.send("EHLO t\r\nMAIL FROM:<>\r\nRCPT TO:<u@d.example>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    let codes: Vec<String> = (0..6).map(|_| client.reply().chars().take(3).collect()).collect();
    assert_eq!(codes, ["220", "250", "250", "550", "503", "250"]);
}

#[test]
fn rules_refuse_their_share_and_only_as_often_as_they_say() {
    let profile =
        Profile { rules: vec![Rule::first(300, 1, Moment::Rcpt, "450 4.2.0 later")], ..Profile::accepting("t") };
    let covered = (0..1_000)
        .filter(|n| profile.rule_for(super::profile::address_hash(format!("u{n}@d.example").as_bytes())).is_some())
        .count();
    assert!((250..350).contains(&covered), "{covered} of 1,000");
    let sink = one(Profile { rules: vec![Rule { per_mille: 1_000, ..profile.rules[0].clone() }], ..profile });
    let mut client = Client::open(sink.address(0));
    assert_eq!(client.envelope("u@d.example"), "450 4.2.0 later");
    assert!(client.say("RCPT TO:<u@d.example>\r\n").starts_with("250"));
    assert_eq!(sink.counters(0).snapshot().deferred, 1);
}

#[test]
fn a_refusal_at_the_end_of_a_message_takes_nothing_and_421_closes() {
    let rule = Rule::first(1_000, 1, Moment::EndOfData, "421 4.7.28 slow down");
    let sink = one(Profile { rules: vec![rule], ..Profile::accepting("t") });
    let mut client = Client::open(sink.address(0));
    client.envelope("u@d.example");
    client.say("DATA\r\n");
    assert!(client.say("x\r\n.\r\n").starts_with("421"));
    assert_eq!(client.reply(), "");
    assert_eq!(sink.counters(0).snapshot().taken, 0);
}

#[test]
fn drops_at_each_phase_as_often_as_it_says() {
    for at in [Phase::Connect, Phase::Ehlo, Phase::Mail, Phase::Rcpt, Phase::Data, Phase::MidBody, Phase::FinalReply] {
        let sink = one(Profile { fault: Some(Fault::Drop { at, times: 1 }), ..Profile::accepting("t") });
        let mut client = Client::open(sink.address(0));
        let burst = "EHLO t\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@d>\r\nDATA\r\n";
        let _ = client.0.get_mut().write_all(burst.as_bytes());
        std::thread::sleep(Duration::from_millis(20));
        let _ = client.0.get_mut().write_all(b"x\r\n.\r\n");
        let mut rest = Vec::new();
        let _ = client.0.read_to_end(&mut rest);
        assert_eq!(sink.counters(0).snapshot().dropped, 1, "{at:?}");
        let kept = u64::from(at == Phase::FinalReply);
        assert_eq!(sink.counters(0).snapshot().taken, kept, "{at:?}");
        let mut again = Client::open(sink.address(0));
        assert!(again.envelope("u@d").starts_with("250"), "{at:?}: the second session behaves");
    }
}

#[test]
fn closes_with_421_and_limits_connections_and_messages() {
    let closing = Fault::ServiceClosing { at: Phase::Mail, times: 1 };
    let profile =
        Profile { fault: Some(closing), connections_max: 1, messages_per_connection: 1, ..Profile::accepting("t") };
    let sink = one(profile);
    let mut first = Client::open(sink.address(0));
    assert!(first.reply().starts_with("220"));
    assert!(Client::open(sink.address(0)).reply().starts_with("421"));
    assert!(first.say("MAIL FROM:<a@b>\r\n").starts_with("421"));
    wait("the end of both sessions", || sink.counters(0).snapshot().open == 0);
    let mut second = Client::open(sink.address(0));
    second.envelope("u@d.example");
    second.say("DATA\r\n");
    assert!(second.say("x\r\n.\r\n").starts_with("250"));
    assert!(second.say("MAIL FROM:<a@b>\r\n").starts_with("421"));
    assert_eq!(sink.counters(0).snapshot().throttled, 2);
}

#[test]
fn endless_and_slow_replies_are_bounded() {
    let sink = one(Profile { fault: Some(Fault::EndlessReply), ..Profile::accepting("t") });
    let mut client = Client::open(sink.address(0));
    client.send("EHLO t\r\n");
    let mut all = Vec::new();
    let _ = client.0.read_to_end(&mut all);
    assert!(all.len() >= 16 << 20 && all.len() < 17 << 20, "{}", all.len());
    let sink = one(Profile { fault: Some(Fault::ByteByByte { pause_ms: 1 }), ..Profile::accepting("t") });
    assert!(Client::open(sink.address(0)).envelope("u@d.example").starts_with("250"));
}

#[test]
fn speaks_tls_after_starttls_and_forgets_what_was_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["mx.t.example".into()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = tls_from_pem(&certificate, &key).expect("usable");
    let endpoint = Endpoint { tls: Some(tls), ..Endpoint::local(Profile::accepting("t")) };
    let sink = Sink::start(vec![endpoint]).expect("loopback");
    let mut client = Client::open(sink.address(0));
    assert!(client.envelope("u@d.example").starts_with("250"));
    assert!(client.say("STARTTLS\r\n").starts_with("220"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "mx.t.example".try_into().expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = BufReader::new(rustls::StreamOwned::new(session, client.0.into_inner()));
    stream.get_mut().write_all(b"RCPT TO:<u@d.example>\r\n").expect("open");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a reply");
    assert!(line.starts_with("503"), "{line}");
}

fn submit(sink: &Sink, messages: u64, chunking: bool) -> Arc<Progress> {
    let load = Load {
        target: sink.address(0),
        sessions: 5,
        messages,
        body_bytes: 4_096,
        sender: "a@source.example".into(),
        recipient: Arc::new(|n, out| out.extend_from_slice(format!("u{n}@d{}.example", n % 7).as_bytes())),
        chunking,
        login: None,
        seed: 1,
    };
    let progress = Arc::new(Progress::new(messages));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(source::run(load, progress.clone())).expect("all submitted");
    progress
}

#[test]
fn the_source_submits_each_message_once_and_tries_again_after_4xx() {
    for chunking in [false, true] {
        let profile = Profile {
            rules: vec![Rule::always(100, "550 5.1.1 no"), Rule::first(100, 2, Moment::Rcpt, "450 4.2.0 later")],
            offers: Offers { chunking, ..Offers::default() },
            messages_per_connection: 9,
            ..Profile::accepting("t")
        };
        let sink = one(profile);
        let progress = submit(&sink, 300, chunking);
        let seen = sink.counters(0).snapshot();
        assert_eq!(progress.accepted() + progress.refused(), 300);
        assert_eq!((seen.taken, seen.duplicates), (progress.accepted(), 0));
        assert!(progress.refused() > 10 && progress.retried() > 20, "{} {}", progress.refused(), progress.retried());
        assert_eq!(seen.rejected, progress.refused());
    }
}
