//! Connections against scripted peers on pipes: the peers, and what happens in sessions. Each test names what the peer does.

mod opening;
mod sessions;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};

use super::*;
use crate::config::{HumanDuration, Source, TlsPolicy};
use crate::delivery::{
    ConnectionId, Job, JobRecipient, JobReport, LocalFuture, Outcome, Peer, PeerLimits, Plan, PlanHost, WireMessage,
    Work,
};
use crate::metrics::Registry;
use crate::seam::dns::Zones;
use crate::seam::net::{BoxStream, ConnectError, Connected, Connecting};
use crate::types::{Class, DeliveryId, Mailbox, MessageId, Name, Notify, ReversePath};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.hello\r\n";

/// What a scripted peer does with a command: `None` is the usual reply.
type Respond = Rc<dyn Fn(&str) -> Option<&'static str>>;

/// Says nothing and closes.
const DROP: &str = "DROP";

/// A peer: what it offers, how it departs from the usual, and what it got.
#[derive(Clone)]
struct Script {
    greeting: &'static str,
    offer: &'static [&'static str],
    respond: Respond,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Closes behind its reply to EHLO.
    leaves: bool,
}

impl Script {
    fn new(offer: &'static [&'static str]) -> Self {
        Self { greeting: "220 mx", offer, respond: Rc::new(|_| None), tls: None, leaves: false }
    }

    fn when(mut self, prefix: &'static str, reply: &'static str) -> Self {
        let before = self.respond.clone();
        self.respond = Rc::new(move |command| if command.starts_with(prefix) { Some(reply) } else { before(command) });
        self
    }
}

/// What peers saw: commands, messages, connections, and how often we wrote.
#[derive(Default)]
struct Seen {
    commands: RefCell<Vec<String>>,
    messages: RefCell<Vec<Vec<u8>>>,
    connects: RefCell<Vec<SocketAddr>>,
    writes: Cell<usize>,
}

/// Our end of a pipe: counts the writes that took something, each a system call on a socket.
struct Counting(tokio::io::DuplexStream, Rc<Seen>);

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.1.writes.set(self.1.writes.get() + 1);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Pipes {
    peers: HashMap<SocketAddr, Script>,
    /// What this host lacks.
    trouble: Option<fn() -> ConnectError>,
    seen: Rc<Seen>,
}

impl Network for Pipes {
    fn connect(&self, remote: SocketAddr, _: Option<IpAddr>, _: Duration) -> Connecting<'_> {
        self.seen.connects.borrow_mut().push(remote);
        if let Some(trouble) = self.trouble {
            return Box::pin(async move { Err(trouble()) });
        }
        let peer = self.peers.get(&remote).cloned();
        let seen = self.seen.clone();
        let counted = self.seen.clone();
        Box::pin(async move {
            let script = peer.ok_or_else(|| ConnectError::Remote(std::io::ErrorKind::ConnectionRefused.into()))?;
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            tokio::task::spawn_local(async move {
                let _ = serve(Box::new(theirs), script, seen).await;
            });
            Ok(Connected { stream: Box::new(Counting(ours, counted)), local: None })
        })
    }
}

async fn serve(mut stream: BoxStream, script: Script, seen: Rc<Seen>) -> std::io::Result<()> {
    if script.greeting == DROP {
        return Ok(());
    }
    stream.write_all(format!("{}\r\n", script.greeting).as_bytes()).await?;
    let mut stream = BufReader::new(stream);
    let mut encrypted = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        seen.commands.borrow_mut().push(command.clone());
        let mut reply = (script.respond)(&command).map(|r| format!("{r}\r\n"));
        if command.starts_with("BDAT ") {
            let size = command.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
            let mut body = vec![0; size];
            stream.read_exact(&mut body).await?;
            seen.messages.borrow_mut().push(body);
        }
        if reply.as_deref() == Some("DROP\r\n") {
            return Ok(());
        }
        if reply.is_none() {
            reply = Some(match command.split([' ', ':']).next().unwrap_or("") {
                "EHLO" => {
                    let offer = script.offer.iter().filter(|o| !(encrypted && **o == "STARTTLS"));
                    offer.fold("250-mx\r\n".to_owned(), |text, o| text + "250-" + o + "\r\n") + "250 HELP\r\n"
                }
                "DATA" => "354 go\r\n".into(),
                "STARTTLS" => "220 go\r\n".into(),
                "QUIT" => "221 bye\r\n".into(),
                _ => "250 ok\r\n".into(),
            });
        }
        let reply = reply.unwrap_or_default();
        stream.write_all(reply.as_bytes()).await?;
        if script.leaves && command.starts_with("EHLO") {
            return Ok(());
        }
        if command == "STARTTLS" && reply.starts_with("220") {
            let Some(config) = script.tls.clone() else { return Ok(()) };
            let session = tokio_rustls::TlsAcceptor::from(config).accept(stream.into_inner()).await?;
            stream = BufReader::new(Box::new(session));
            encrypted = true;
        }
        if command == "DATA" && reply.starts_with("354") {
            let mut body = Vec::new();
            while !(body == b".\r\n" || body.ends_with(b"\r\n.\r\n")) {
                if stream.read_until(b'\n', &mut body).await? == 0 {
                    return Ok(());
                }
            }
            seen.messages.borrow_mut().push(body);
            match (script.respond)(".") {
                Some(DROP) => return Ok(()),
                other => stream.write_all(format!("{}\r\n", other.unwrap_or("250 2.0.0 queued")).as_bytes()).await?,
            }
        }
        if reply.starts_with("421") || command == "QUIT" {
            return Ok(());
        }
    }
}

/// The queue's side: hands out jobs, then idleness; keeps what it is told.
#[derive(Default)]
struct Queue {
    jobs: RefCell<VecDeque<Job>>,
    given: Cell<u64>,
    reports: RefCell<Vec<JobReport>>,
    opened: RefCell<Vec<Peer>>,
    closed: RefCell<Vec<Option<Failure>>>,
    wake: Rc<tokio::sync::Notify>,
    made: Cell<u32>,
    eight_bit: Cell<bool>,
    stuck: Cell<bool>,
}

impl Dispatcher for Queue {
    fn next(&self, _: ConnectionId, _: &Peer) -> Work {
        match self.jobs.borrow_mut().pop_front() {
            Some(job) => {
                self.given.set(self.given.get() + 1);
                Work::Job(Box::new(job))
            }
            None => Work::Idle,
        }
    }

    fn wake_handle(&self, _: ConnectionId) -> Rc<tokio::sync::Notify> {
        self.wake.clone()
    }

    fn report(&self, _: ConnectionId, _: &Peer, report: JobReport) {
        assert_eq!(report.outcomes.len(), report.job.recipients.len());
        self.reports.borrow_mut().push(report);
    }

    fn opened(&self, _: ConnectionId, peer: &Peer) {
        self.opened.borrow_mut().push(peer.clone());
    }

    fn closed(&self, _: ConnectionId, failure: Option<Failure>) {
        self.closed.borrow_mut().push(failure);
    }
}

impl ContentMaker for Queue {
    fn make<'a>(&'a self, _: &'a Job, _: PeerLimits) -> LocalFuture<'a, Result<WireMessage, Failure>> {
        Box::pin(async move {
            self.made.set(self.made.get() + 1);
            if self.stuck.get() {
                std::future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
            let parts = vec![Bytes::from_static(b"DKIM-Signature: v=1\r\n"), Bytes::from_static(MESSAGE)];
            let size = parts.iter().map(|p| p.len() as u64).sum();
            Ok(WireMessage { parts, size, eight_bit: self.eight_bit.get() })
        })
    }
}

fn job(id: u64, recipients: &[&str]) -> Job {
    let message = MessageId::new(Timestamp::from_millis(1), u128::from(id));
    let recipient = |(index, text): (usize, &&str)| JobRecipient {
        delivery: DeliveryId { message, index: index as u32 },
        mailbox: Mailbox::parse(text).expect("an address"),
        notify: Notify::Default,
        orcpt: None,
    };
    Job {
        id,
        message,
        reverse_path: ReversePath::Mailbox(Mailbox::parse("a@s.example").expect("an address")),
        ret: None,
        envid: None,
        smtputf8: false,
        eight_bit: false,
        size: MESSAGE.len() as u64,
        class: Class::Transactional,
        recipients: recipients.iter().enumerate().map(recipient).collect(),
    }
}

fn jobs(count: u64) -> Vec<Job> {
    (0..count).map(|i| job(i, &["b@r.example"])).collect()
}

/// One run: peers by address, a plan, jobs.
struct Scene {
    peers: HashMap<SocketAddr, Script>,
    zones: Zones,
    plan: Plan,
    config: Config,
    queue: Rc<Queue>,
    seen: Rc<Seen>,
    stop: watch::Sender<bool>,
    trace: TraceHub,
    /// The address of the source.
    local: Option<IpAddr>,
    trouble: Option<fn() -> ConnectError>,
    /// Who may sign certificates, instead of the system's authorities.
    authority: Option<rustls::RootCertStore>,
}

const FIRST: &str = "192.0.2.1:25";
const SECOND: &str = "192.0.2.2:25";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("address and port")
}

impl Scene {
    /// Two hosts, `mx1` (better) and `mx2`, of which those with a script answer.
    fn new(first: Option<Script>, second: Option<Script>) -> Self {
        let host = |name: &str, preference: u16| PlanHost { name: name.into(), preference, port: 25, address: None };
        let zones = Zones::new().address("mx1.r.example", at(FIRST).ip()).address("mx2.r.example", at(SECOND).ip());
        let mut config = Config::default();
        // The documentation's addresses are private to us.
        config.delivery.allow_private_addresses = true;
        config.delivery.idle_timeout = HumanDuration(Duration::from_millis(30));
        let mut peers = HashMap::new();
        peers.extend(first.map(|s| (at(FIRST), s)));
        peers.extend(second.map(|s| (at(SECOND), s)));
        Self {
            peers,
            zones,
            plan: Plan {
                site: "mx:test".into(),
                name: "mx1.r.example".into(),
                provider: "other".into(),
                hosts: vec![host("mx2.r.example", 20), host("mx1.r.example", 10)],
                tls: TlsPolicy::Opportunistic,
                implicit_tls: false,
                credentials: None,
                route: None,
                valid_until: Timestamp::NEVER,
            },
            config,
            queue: Rc::default(),
            seen: Rc::default(),
            stop: watch::channel(false).0,
            trace: TraceHub::new(),
            local: None,
            trouble: None,
            authority: None,
        }
    }

    fn jobs(self, jobs: Vec<Job>) -> Self {
        self.queue.jobs.borrow_mut().extend(jobs);
        self
    }

    /// The connection's future.
    fn connection(&self) -> impl Future<Output = ()> + use<> {
        self.connection_of(self.connector())
    }

    fn connector(&self) -> Rc<Connector> {
        let registry = Registry::new();
        let metrics = DeliveryMetrics::register(&registry);
        Rc::new(Connector::new(ConnectorParts {
            config: Arc::new(ArcSwap::from_pointee(self.config.clone())),
            resolver: Resolver::fixed(self.zones.clone(), metrics.dns.clone()),
            network: Box::new(Pipes { peers: self.peers.clone(), trouble: self.trouble, seen: self.seen.clone() }),
            tls: self.tls(),
            clock: Clock::system(),
            metrics,
            trace: self.trace.clone(),
            shutdown: self.stop.subscribe(),
            random: Seeded::new(7),
        }))
    }

    fn tls(&self) -> TlsConfigs {
        let mut configs = TlsConfigs::new().expect("TLS");
        if let Some(roots) = self.authority.clone() {
            let config =
                rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                    .with_safe_default_protocol_versions()
                    .expect("versions")
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            configs.verified = Ok(Arc::new(config));
        }
        configs
    }

    fn connection_of(&self, connector: Rc<Connector>) -> impl Future<Output = ()> + use<> {
        let name = Name::parse("default").expect("a name");
        let source =
            Source { name: name.clone(), address: self.local, ehlo: None, connections: None, message_rate: None };
        let request = OpenRequest {
            conn: ConnectionId(1),
            plan: Arc::new(self.plan.clone()),
            source: Arc::new(source),
            ehlo: "mta.example".into(),
            pool: name,
        };
        run(request, self.queue.clone(), self.queue.clone(), connector)
    }

    /// Runs the connection to its end.
    fn run(self) -> Self {
        on_thread(self.connection());
        self.checked()
    }

    /// Whatever happened, these hold.
    fn checked(self) -> Self {
        assert_eq!(self.queue.reports.borrow().len() as u64, self.queue.given.get(), "one report a job");
        assert_eq!(self.queue.closed.borrow().len(), 1, "closed exactly once");
        self
    }

    /// All outcomes, in short: code, `!` for permanent, `~` for not tried, `?` for ambiguous.
    fn outcomes(&self) -> String {
        let mut reports: Vec<_> = self.queue.reports.borrow().iter().cloned().collect();
        reports.sort_by_key(|r| r.job.id);
        let one = |r: &JobReport| {
            let each = r.outcomes.iter().map(|o| match o {
                Outcome::Delivered(reply) => reply.code.to_string(),
                Outcome::Failed(f) => {
                    let mark = if f.not_tried() { "~" } else { "" };
                    let severity = if f.severity == Severity::Permanent { "!" } else { "" };
                    format!("{}{severity}{mark}{}", f.reply.code, if r.ambiguous { "?" } else { "" })
                }
            });
            each.collect::<Vec<_>>().join(",")
        };
        reports.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn check(&self, outcomes: &str) {
        assert_eq!(self.outcomes(), outcomes);
    }

    fn failure(&self) -> Option<Failure> {
        self.queue.closed.borrow()[0].clone()
    }

    fn commands(&self, prefix: &str) -> usize {
        self.seen.commands.borrow().iter().filter(|c| c.starts_with(prefix)).count()
    }
}

fn on_thread(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), future).await.expect("ends in time");
    });
}
