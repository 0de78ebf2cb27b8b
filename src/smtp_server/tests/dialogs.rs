//! Golden dialogs: each file under `dialogs/` is one conversation.
//!
//! `C:` sends a line with CRLF, `C*:` the same without; `C#5:` sends it five times. Lines of the client that follow
//! each other go out in one burst. `S:` is a reply (`{id}` stands for a message id, `...` at the end for anything; `S#5:`
//! for five times the same). `T:` the TLS handshake is wanted and done. `W: 60` so many seconds pass. `X: why` the session
//! ends. `M: from -> to to` a message was stored, with the body of the `B:` lines behind it (without `Received`).
//! `D:` is one recipient's NOTIFY and ORCPT. `G: state` sets the gate of intake, `H: n` what other sessions hold in memory, `P:` forgets what was stored. `@ key value` stands first and sets what the test needs. Escapes: `\r \n \0 \\ \u{…} \xNN`.
//!
//! Each dialog is run with bursts in one piece, octet by octet, and in odd pieces: the replies must be the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{ByteSize, Config, Listener, ListenerRole, ListenerTls};
use crate::queue::intake::testing::{START, Store, config, intake};
use crate::queue::intake::{GateState, Intake};
use crate::seam::clock::Clock;
use crate::smtp::message_buffer::HEADROOM;
use crate::smtp_server::session::{Credentials, ListenerInfo, LoginResult, Peer, Session, Step};
use crate::store::NewMessage;
use crate::types::Name;

struct Player {
    place: String,
    session: Session,
    intake: Arc<Intake>,
    clock: Clock,
    store: Store,
    step: usize,
    pending: Vec<u8>,
    replies: VecDeque<String>,
    partial: String,
    wants_tls: bool,
    closed: Option<&'static str>,
    stored: VecDeque<NewMessage>,
    body: Option<(String, String)>,
    runtime: tokio::runtime::Runtime,
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('0') => out.push(0),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("two hexadecimal digits"));
            }
            Some('u') => {
                let hex: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32).expect("a character");
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => panic!("unknown escape {other:?} in {text:?}"),
        }
    }
    out
}

/// The settings of a dialog: `@ key value`.
fn set_up(text: &str, config: &mut Config, listener: &mut Listener, client: &mut String) -> bool {
    let mut starttls = false;
    for line in text.lines().filter_map(|l| l.strip_prefix("@ ")) {
        let (key, value) = line.split_once(' ').expect("a key and a value");
        match key {
            "starttls" => starttls = value == "yes",
            "role" if value == "bounce" => listener.role = ListenerRole::Bounce,
            "relay_from" => listener.relay_from.push(value.parse().expect("a network")),
            "client" => *client = value.to_owned(),
            "max_errors" => config.smtp.max_errors = value.parse().expect("a number"),
            "max_recipients" => config.smtp.max_recipients = value.parse().expect("a number"),
            "max_messages" => config.smtp.max_messages_per_connection = value.parse().expect("a number"),
            "max_message_size" => config.smtp.max_message_size = ByteSize(value.parse().expect("a number")),
            _ => panic!("unknown setting {line:?}"),
        }
    }
    starttls
}

impl Player {
    fn new(file: &str, text: &str, step: usize) -> Self {
        let mut config = config();
        let mut client = "127.0.0.1".to_owned();
        let mut listener = Listener {
            address: "127.0.0.1:587".parse().expect("an address"),
            role: ListenerRole::Submission,
            tls: ListenerTls::None,
            relay_from: Vec::new(),
        };
        if set_up(text, &mut config, &mut listener, &mut client) {
            listener.tls = ListenerTls::Starttls;
        }
        let clock = Clock::manual(START);
        let (intake, store, _) = intake(config, clock.clone());
        let info = Arc::new(ListenerInfo::new(0, &listener, true));
        let peer = Peer { address: format!("{client}:40000").parse().expect("an address") };
        let session = Session::new(intake.clone(), info, peer, None, START);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut player = Player {
            place: file.into(),
            session,
            intake,
            clock,
            store,
            step,
            pending: Vec::new(),
            replies: VecDeque::new(),
            partial: String::new(),
            wants_tls: false,
            closed: None,
            stored: VecDeque::new(),
            body: None,
            runtime,
        };
        player.collect();
        player
    }

    fn send(&mut self, burst: &[u8]) {
        for piece in burst.chunks(self.step.min(burst.len()).max(1)) {
            self.pending.extend_from_slice(piece);
            self.pump();
            if self.wants_tls || self.closed.is_some() {
                // The rest of a burst is dropped with the buffer.
                self.pending.clear();
                return;
            }
        }
    }

    fn pump(&mut self) {
        loop {
            let (used, step) = self.session.feed(&self.pending, self.clock.now());
            self.pending.drain(..used);
            match step {
                Step::Input => break,
                Step::Return(_) => self.session.returned(Ok(()), self.clock.now()),
                Step::StartTls => {
                    self.wants_tls = true;
                    break;
                }
                Step::Close(why) => {
                    self.closed = Some(why);
                    break;
                }
                Step::Login(credentials) => self.session.logged_in(check(credentials), self.clock.now()),
                Step::Submit(submission) => {
                    let result = self.runtime.block_on(self.intake.accept_with_headroom(*submission, HEADROOM));
                    self.session.submitted(result, self.clock.now());
                    self.stored.extend(self.store.messages());
                }
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        let output = self.session.take_output();
        self.partial.push_str(std::str::from_utf8(&output).expect("replies are ASCII"));
        while let Some((line, rest)) = self.partial.split_once("\r\n") {
            self.replies.push_back(line.to_owned());
            self.partial = rest.to_owned();
        }
    }

    fn expect_reply(&mut self, want: &str) {
        let got = self.replies.pop_front().unwrap_or_else(|| panic!("{}: no reply, {want:?} wanted", self.place));
        let shown = match (want.split_once("{id}"), want.strip_suffix("...")) {
            (Some((head, tail)), _) => {
                let id = got.strip_prefix(head).and_then(|g| g.strip_suffix(tail));
                id.is_some_and(|id| id.parse::<crate::types::MessageId>().is_ok())
            }
            (None, Some(head)) => got.starts_with(head),
            (None, None) => got == want,
        };
        assert!(shown, "{}: got {got:?}, wanted {want:?}", self.place);
    }

    fn expect_silence(&self) {
        assert!(self.replies.is_empty(), "{}: unexpected replies {:?}", self.place, self.replies);
    }

    fn expect_body_end(&mut self) {
        if let Some((got, want)) = self.body.take() {
            assert_eq!(got, want, "{}: the body", self.place);
        }
    }

    fn message(&mut self, want: &str) {
        let message = self.stored.pop_front().unwrap_or_else(|| panic!("{}: no message was stored", self.place));
        let envelope = &message.message.envelope;
        let to: Vec<&str> = envelope.recipients.iter().map(|r| r.mailbox.as_str()).collect();
        assert_eq!(format!("<{}> -> {}", envelope.reverse_path, to.join(" ")), want, "{}", self.place);
        let text: String = message.message.body.iter().map(|b| char::from(*b)).collect();
        // Our own field, with its folded lines.
        let received = text.match_indices("\r\n").find(|(at, _)| !text[at + 2..].starts_with('\t'));
        let rest = received.map_or("", |(at, _)| &text[at + 2..]).to_owned();
        assert!(text.starts_with("Received: "), "{}: {text:?}", self.place);
        self.body = Some((rest, String::new()));
        self.stored.push_front(message);
    }

    fn run(mut self, text: &str) {
        let mut burst = Vec::new();
        let file = self.place.clone();
        for (number, line) in (1..).zip(text.lines()) {
            self.place = format!("{file}:{number}");
            let Some((kind, value)) = line.split_once(':').map(|(k, v)| (k, v.strip_prefix(' ').unwrap_or(v))) else {
                assert!(line.is_empty() || line.starts_with(['#', '@']), "{}: not understood", self.place);
                continue;
            };
            if line.starts_with(['#', '@']) {
                continue;
            }
            let (kind, times) = kind.split_once('#').map_or((kind, 1), |(k, n)| (k, n.parse().expect("a number")));
            if !kind.starts_with('C') && !burst.is_empty() {
                self.send(&std::mem::take(&mut burst));
            }
            if !kind.starts_with('B') {
                self.expect_body_end();
            }
            match kind {
                "C" | "C*" => {
                    if burst.is_empty() {
                        self.expect_silence();
                    }
                    assert!(self.closed.is_none(), "{}: the session is closed already", self.place);
                    for _ in 0..times {
                        burst.extend_from_slice(&unescape(value));
                        burst.extend_from_slice(if kind == "C" { b"\r\n" } else { b"" });
                    }
                }
                "S" => (0..times).for_each(|_| self.expect_reply(value)),
                "T" => {
                    self.expect_silence();
                    assert!(std::mem::take(&mut self.wants_tls), "{}: no handshake is wanted", self.place);
                    self.session.tls_started("TLSv1.3 TLS13_AES_256_GCM_SHA384".into(), self.clock.now());
                }
                "W" => {
                    self.clock.advance(Duration::from_secs(value.parse().expect("seconds")));
                    if self.clock.now() >= self.session.deadline() {
                        let _ = self.session.timeout(self.clock.now());
                        self.pump();
                    }
                }
                "X" => {
                    self.expect_silence();
                    assert_eq!(self.closed.take(), Some(value), "{}: how the session ended", self.place);
                    return;
                }
                "M" => self.message(value),
                "B" | "B*" => {
                    let (_, want) = self.body.as_mut().expect("a message before its body");
                    want.extend(unescape(value).into_iter().map(char::from));
                    want.push_str(if kind == "B" { "\r\n" } else { "" });
                }
                "D" => {
                    let envelope = &self.stored.front().expect("a message").message.envelope;
                    let got: Vec<String> = envelope
                        .recipients
                        .iter()
                        .map(|r| format!("{}/{}", r.notify, r.orcpt.as_deref().unwrap_or("")))
                        .collect();
                    let envid = envelope.envid.as_deref().unwrap_or("");
                    assert_eq!(format!("{:?} {envid} {}", envelope.ret, got.join(" ")), value, "{}", self.place);
                }
                "G" => self.intake.gate().set(match value {
                    "low_space" => GateState::LowSpace,
                    "failed" => GateState::Failed,
                    _ => GateState::ShuttingDown,
                }),
                "P" => self.stored.clear(),
                "H" => {
                    let octets: u64 = value.parse().expect("octets that other sessions hold");
                    self.intake.receiving().store(octets, std::sync::atomic::Ordering::Relaxed);
                }
                _ => panic!("{}: not understood", self.place),
            }
        }
        self.place = format!("{file}: at its end");
        self.send(&burst);
        self.expect_silence();
        self.expect_body_end();
        assert_eq!(self.closed, None, "{file}: the session ended");
        drop(self.session);
    }
}

fn check(credentials: Credentials) -> LoginResult {
    match (credentials.user.as_str(), credentials.password.as_str()) {
        ("app", "secret") => LoginResult::Ok { user: credentials.user, tenant: Name::parse("acme").expect("a name") },
        ("busy", _) => LoginResult::Busy,
        _ => LoginResult::Denied,
    }
}

#[test]
fn golden_dialogs() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/smtp_server/dialogs");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() > 30, "only {} dialogs found", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for step in [usize::MAX, 1, 7] {
            Player::new(&format!("{name} (pieces of {step})"), &text, step).run(&text);
        }
    }
}

/// What a session answers to octets in pieces of these sizes.
fn converse(octets: &[u8], sizes: &[usize]) -> (String, Option<&'static str>) {
    thread_local! { static SHARED: (Arc<Intake>, Store, Arc<arc_swap::ArcSwap<Config>>) = intake(config(), Clock::manual(START)); }
    let info = ListenerInfo {
        name: "test".into(),
        role: ListenerRole::Submission,
        starttls: false,
        relay_from: vec!["127.0.0.0/8".parse().expect("a network")],
        inbound: None,
    };
    let peer = Peer { address: "127.0.0.1:1".parse().expect("an address") };
    let intake = SHARED.with(|(intake, ..)| intake.clone());
    let mut session = Session::new(intake, Arc::new(info), peer, None, START);
    let (mut pending, mut closed, mut rest) = (Vec::new(), None, octets);
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() && closed.is_none() {
        let size = (*sizes.next().unwrap_or(&1)).clamp(1, rest.len());
        pending.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        loop {
            let (used, step) = session.feed(&pending, START);
            pending.drain(..used);
            match step {
                Step::Input => break,
                Step::Close(why) => closed = Some(why),
                Step::Return(_) => session.returned(Ok(()), START),
                Step::Login(credentials) => session.logged_in(check(credentials), START),
                Step::Submit(submission) => {
                    let size = submission.body.len() as u64;
                    let refusal = crate::queue::intake::Refusal::new(550, "5.6.0", 422, format!("{size} octets"));
                    session.submitted(Err(refusal), START);
                }
                Step::StartTls => panic!("not offered"),
            }
            if closed.is_some() {
                break;
            }
        }
    }
    (String::from_utf8(session.take_output()).expect("ASCII"), closed)
}

proptest::proptest! {
    /// However a client's octets are cut into segments, the answers are the same; and none of them panics.
    #[test]
    fn segments_do_not_matter(
        parts in proptest::collection::vec((0usize..24, proptest::collection::vec(proptest::num::u8::ANY, 0..12)), 0..30),
        sizes in proptest::collection::vec(1usize..40, 1..8),
    ) {
        const LINES: [&[u8]; 24] = [
            b"EHLO c.example\r\n", b"MAIL FROM:<a@acme.example>\r\n", b"RCPT TO:<b@b.example>\r\n", b"DATA\r\n",
            b".\r\n", b"..x\r\n", b"From: a@acme.example\r\n", b"\r\n", b"BDAT 5\r\n", b"BDAT 3 LAST\r\n", b"RSET\r\n",
            b"AUTH PLAIN\r\n", b"*\r\n", b"AUTH LOGIN YXBw\r\n", b"c2VjcmV0\r\n", b"NOOP\r\n", b"\r", b"\n", b"QUIT\r\n",
            b"MAIL FROM:<> SIZE=5\r\n", b"abc\r\n", b"STARTTLS\r\n", b"AUTH PLAIN AGFwcABzZWNyZXQ=\r\n", b"",
        ];
        let mut octets = Vec::new();
        for (line, junk) in &parts {
            if LINES[*line].is_empty() { octets.extend_from_slice(junk) } else { octets.extend_from_slice(LINES[*line]) }
        }
        let whole = converse(&octets, &[usize::MAX]);
        proptest::prop_assert_eq!(converse(&octets, &sizes), whole.clone());
        proptest::prop_assert_eq!(converse(&octets, &[1]), whole);
    }
}
