//! Tests of the driver: real sockets on loopback, real TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::config::{Config, HumanDuration, Listener, ListenerRole, ListenerTls, Tls};
use crate::metrics::Registry;
use crate::metrics::smtp_server::SmtpServerMetrics;
use crate::queue::intake::testing::{Store, config, intake};
use crate::seam::clock::Clock;
use crate::seam::net::TcpStream;
use crate::smtp_server::{BindError, Server, ServerHandle};

struct Running {
    addresses: Vec<std::net::SocketAddr>,
    store: Store,
    shutdown: watch::Sender<bool>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    handle: ServerHandle,
    registry: Registry,
    _folder: tempfile::TempDir,
    certificate: CertificateDer<'static>,
    config: Config,
}

fn write_certificate(folder: &std::path::Path) -> (Tls, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["mta.example".to_owned()]).expect("a certificate");
    let path = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(path("cert.pem"), made.cert.pem()).expect("writing works");
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("writing works");
    let tls = Tls { certificate_file: path("cert.pem"), key_file: path("key.pem") };
    (tls, made.cert.der().clone())
}

fn listener(tls: ListenerTls, relay: bool) -> Listener {
    Listener {
        address: "127.0.0.1:0".parse().expect("an address"),
        role: ListenerRole::Submission,
        tls,
        relay_from: if relay { vec!["127.0.0.0/8".parse().expect("a network")] } else { Vec::new() },
    }
}

/// A server with three listeners: STARTTLS, implicit TLS, and a relay in clear.
fn start(change: impl FnOnce(&mut Config)) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let (tls, certificate) = write_certificate(folder.path());
    let mut config = config();
    config.tls = Some(tls);
    config.smtp.listeners = vec![
        listener(ListenerTls::Starttls, false),
        listener(ListenerTls::Implicit, false),
        listener(ListenerTls::None, true),
    ];
    change(&mut config);
    let (intake, store, _) = intake(config.clone(), Clock::system());
    let registry = Registry::new();
    let server = Server::bind(&config, intake, SmtpServerMetrics::register(&registry)).expect("free ports");
    let addresses = server.addresses().expect("bound");
    let handle = server.handle();
    let (shutdown, watching) = watch::channel(false);
    let task = tokio::spawn(server.run(watching));
    Running { addresses, store, shutdown, task, handle, registry, _folder: folder, certificate, config }
}

/// A client that speaks in bursts and reads whole replies.
struct Client<S> {
    io: S,
    read: Vec<u8>,
    /// How many reads the last replies took.
    reads: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(io: S) -> Self {
        Self { io, read: Vec::new(), reads: 0 }
    }

    async fn say(&mut self, burst: &str) {
        self.io.write_all(burst.as_bytes()).await.expect("writing works");
        self.io.flush().await.expect("flushing works");
    }

    /// The last line of each of the next `n` replies.
    async fn replies(&mut self, n: usize) -> Vec<String> {
        let mut found = Vec::new();
        self.reads = 0;
        loop {
            while let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 2);
                if line.as_bytes().get(3) == Some(&b' ') {
                    found.push(line);
                }
                if found.len() == n {
                    return found;
                }
            }
            let mut buffer = [0; 65_536];
            let got = tokio::time::timeout(Duration::from_secs(10), self.io.read(&mut buffer)).await;
            let got = got.expect("a reply in time").expect("reading works");
            assert!(got > 0, "closed after {found:?}");
            self.read.extend_from_slice(&buffer[..got]);
            self.reads += 1;
        }
    }

    async fn ask(&mut self, command: &str, want: &str) {
        self.say(&format!("{command}\r\n")).await;
        let reply = self.replies(1).await.remove(0);
        assert!(reply.starts_with(want), "{command}: {reply}");
    }

    async fn expect(&mut self, want: &str) {
        let reply = self.replies(1).await.remove(0);
        assert!(reply.starts_with(want), "{want}: {reply}");
    }

    async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), self.io.read_to_end(&mut rest)).await;
        read.expect("the end in time").expect("a clean end, not a reset");
        assert_eq!(rest, b"");
    }

    async fn send_mail(&mut self, body: &str) {
        self.say("MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n").await;
        let replies = self.replies(3).await;
        assert!(replies[2].starts_with("354"), "{replies:?}");
        self.say(&format!("From: a@acme.example\r\n\r\n{body}\r\n.\r\n")).await;
        self.expect("250 2.0.0 Ok: queued as ").await;
    }
}

async fn connect(running: &Running, listener: usize) -> Client<TcpStream> {
    Client::new(TcpStream::connect(running.addresses[listener]).await.expect("connecting works"))
}

async fn tls(
    io: TcpStream,
    certificate: &CertificateDer<'static>,
) -> Client<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).expect("a valid certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("mta.example").expect("a name");
    Client::new(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, io).await.expect("a handshake"))
}

#[tokio::test]
async fn a_burst_gets_one_write_and_the_mail_is_stored() {
    let running = start(|_| {});
    let mut client = connect(&running, 2).await;
    client.expect("220 mta.example").await;
    client.ask("EHLO c.example", "250 ").await;
    client
        .say("MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@b.example>\r\nRCPT TO:<c@b.example>\r\nNOOP\r\nDATA\r\n")
        .await;
    assert_eq!(client.replies(5).await.len(), 5);
    assert_eq!(client.reads, 1, "five replies in one segment");
    client.say("From: a@acme.example\r\n\r\nx\r\n.\r\nQUIT\r\n").await;
    let replies = client.replies(2).await;
    assert!(replies[0].starts_with("250 2.0.0 Ok: queued as ") && replies[1].starts_with("221"), "{replies:?}");
    client.expect_end().await;
    assert_eq!(running.store.messages().len(), 1);
    assert!(running.registry.encode().contains("posthaste_smtp_server_connections_total 1"));
}

#[tokio::test]
async fn starttls_then_auth_then_mail() {
    let running = start(|_| {});
    let mut clear = connect(&running, 0).await;
    clear.expect("220").await;
    clear.ask("EHLO c.example", "250 ").await;
    clear.ask("MAIL FROM:<a@acme.example>", "530 5.7.0").await;
    clear.ask("STARTTLS", "220 2.0.0").await;
    let mut client = tls(clear.io, &running.certificate).await;
    client.ask("EHLO c.example", "250 AUTH PLAIN LOGIN").await;
    client.ask("AUTH PLAIN AGFwcAB3cm9uZw==", "535 5.7.8").await;
    client.ask("AUTH PLAIN AGFwcABzZWNyZXQ=", "235 2.7.0").await;
    client.send_mail("x").await;
    let stored = running.store.messages().remove(0);
    let body = String::from_utf8(stored.message.body.to_vec()).expect("ASCII");
    assert!(body.contains("with ESMTPSA id ") && body.contains("(TLSv1.3 TLS13_"), "{body}");
    client.ask("QUIT", "221").await;
    client.expect_end().await;
}

#[tokio::test]
async fn implicit_tls_and_a_new_certificate_at_a_reload() {
    let running = start(|_| {});
    let mut client = tls(connect(&running, 1).await.io, &running.certificate).await;
    client.expect("220").await;
    client.ask("EHLO c.example", "250 AUTH PLAIN LOGIN").await;

    let other = tempfile::tempdir().expect("a folder");
    let (tls_config, certificate) = write_certificate(other.path());
    let mut changed = running.config.clone();
    changed.tls = Some(tls_config);
    running.handle.reload_tls(&changed).expect("a valid certificate");
    let mut again = tls(connect(&running, 1).await.io, &certificate).await;
    again.expect("220").await;
    client.ask("NOOP", "250").await;

    changed.tls = Some(Tls { certificate_file: "/nowhere/cert.pem".into(), key_file: "/nowhere/key.pem".into() });
    let error = running.handle.reload_tls(&changed).expect_err("no such file").to_string();
    assert!(error.contains("/nowhere/cert.pem: cannot read the certificate"), "{error}");
    let mut third = tls(connect(&running, 1).await.io, &certificate).await;
    third.expect("220").await;
}

/// The attack: TLS 1.1 and plain text at a TLS port.
#[tokio::test]
async fn what_is_no_tls_gets_no_session() {
    let running = start(|_| {});
    let mut client = connect(&running, 1).await;
    // The ClientHello of a client that speaks TLS 1.1 at the most.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    client.io.write_all(&hello).await.expect("writing works");
    let mut answer = Vec::new();
    let _ = client.io.read_to_end(&mut answer).await;
    assert!(answer.first() == Some(&0x15), "an alert: {answer:?}");
    let mut plain = connect(&running, 1).await;
    plain.say("EHLO c.example\r\n").await;
    let mut answer = Vec::new();
    let _ = plain.io.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"220") && !answer.starts_with(b"250"), "{answer:?}");
}

/// The bug to be found: closing with octets unread resets the connection, and the client never sees the 550.
#[tokio::test]
async fn a_smuggler_sees_why_and_the_end() {
    let running = start(|_| {});
    let mut client = connect(&running, 2).await;
    client.expect("220").await;
    client.ask("HELO c.example", "250").await;
    client.say("MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n").await;
    client.replies(3).await;
    let mut burst = "From: a@acme.example\r\n\r\nx\n.\nMAIL FROM:<v@acme.example>\r\n".to_owned();
    burst.push_str(&"x".repeat(200_000));
    client.say(&burst).await;
    client.expect("550 5.6.0").await;
    client.expect_end().await;
    assert!(running.store.messages().is_empty());
}

#[tokio::test]
async fn large_messages_arrive_whole() {
    let running = start(|_| {});
    let mut client = connect(&running, 2).await;
    client.expect("220").await;
    client.ask("HELO c.example", "250").await;
    let line = "0123456789abcdef".repeat(4) + "\r\n..\r\n";
    client.send_mail(&line.repeat(30_000)).await;
    let stored = running.store.messages().remove(0);
    let want = line.repeat(30_000).replace("\r\n..\r\n", "\r\n.\r\n");
    assert!(stored.message.body.ends_with(format!("\r\n\r\n{want}\r\n").as_bytes()));
}

#[tokio::test]
async fn connections_are_limited() {
    let running = start(|config| {
        config.smtp.max_connections = 3;
        config.smtp.max_connections_per_client = 2;
    });
    let mut first = connect(&running, 2).await;
    first.expect("220").await;
    let mut second = connect(&running, 2).await;
    second.expect("220").await;
    connect(&running, 2).await.expect("421 4.7.0").await;
    first.ask("QUIT", "221").await;
    first.expect_end().await;
    // The place is free once the server has seen the end.
    for attempt in 0.. {
        let reply = connect(&running, 2).await.replies(1).await.remove(0);
        if reply.starts_with("220") {
            break;
        }
        assert!(attempt < 100, "{reply}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn silence_is_ended_by_the_timer() {
    let running = start(|config| {
        config.smtp.command_timeout = HumanDuration("300ms".parse::<HumanDuration>().map_or(Duration::ZERO, |d| d.0))
    });
    let mut client = connect(&running, 2).await;
    client.expect("220").await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.ask("NOOP", "250").await;
    }
    client.expect("421 4.4.2").await;
    client.expect_end().await;
}

#[tokio::test]
async fn shutdown_lets_an_open_transaction_end() {
    let running = start(|_| {});
    let mut idle = connect(&running, 2).await;
    idle.expect("220").await;
    let mut busy = connect(&running, 2).await;
    busy.expect("220").await;
    busy.ask("HELO c.example", "250").await;
    busy.say("MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n").await;
    busy.replies(3).await;
    running.shutdown.send(true).expect("the server listens");
    idle.expect("421 4.3.2").await;
    idle.expect_end().await;
    busy.say("From: a@acme.example\r\n\r\nx\r\n.\r\n").await;
    busy.expect("250 2.0.0 Ok: queued as ").await;
    busy.expect("421 4.3.2").await;
    busy.expect_end().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), running.task).await;
    ended.expect("it ends").expect("without a panic").expect("and without an error");
    assert!(TcpStream::connect(running.addresses[2]).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let running = start(|_| {});
    let mut config = running.config.clone();
    config.smtp.listeners = vec![listener(ListenerTls::None, true)];
    config.smtp.listeners[0].address = running.addresses[2];
    let (intake, ..) = intake(config.clone(), Clock::system());
    let error = Server::bind(&config, intake.clone(), SmtpServerMetrics::register(&Registry::new()))
        .err()
        .expect("taken")
        .to_string();
    assert!(error.contains(&format!("cannot listen on {} (smtp.listeners[0]): ", running.addresses[2])), "{error}");
    config.smtp.listeners = vec![listener(ListenerTls::Implicit, true)];
    config.tls = None;
    let error = Server::bind(&config, intake, SmtpServerMetrics::register(&Registry::new())).err();
    assert!(matches!(error, Some(BindError::NoCertificate { tls: "implicit", .. })));
}
