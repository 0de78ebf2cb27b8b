//! A source of mail: submits over real SMTP, on several connections that stay open.
//!
//! 1. Each session takes the next message number, until all are taken.
//! 2. MAIL, RCPT and DATA go in one flight, the message in a second; where CHUNKING is asked for and offered, all of it
//!    goes in one.
//! 3. A message counts as accepted with its 250. A 4xx is tried again after a pause, a 5xx is counted and left.
//!
//! The bodies are slices of a megabyte of random lines at random places, so that no two are alike and nothing is
//! computed for a message but its header.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::seam::net::TcpStream;
use crate::seam::random::Seeded;

/// Random text that the bodies are cut from, in octets.
const TEXT_BYTES: usize = 1 << 20;
/// Octets of a line of it, with its CRLF.
const LINE_BYTES: usize = 78;
/// The pause after a 4xx or a lost connection.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often in a row a session tries again before it gives up, so that a dead server ends the run.
const RETRIES_MAX: u32 = 200;
/// The longest silence of the server.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Writes the address of the recipient with this number.
pub type AddressOf = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// What is submitted.
#[derive(Clone)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// Connections at a time.
    pub sessions: usize,
    /// Messages, over all sessions.
    pub messages: u64,
    /// Octets of a body, rounded up to whole lines of 78.
    pub body_bytes: usize,
    /// The reverse-path, and the From of the header.
    pub sender: String,
    /// The recipient of each message.
    pub recipient: AddressOf,
    /// Use BDAT where the server offers CHUNKING and PIPELINING.
    pub chunking: bool,
    /// AUTH PLAIN with this user and password.
    pub login: Option<(String, String)>,
    /// Makes the bodies repeatable.
    pub seed: u64,
}

/// What has been submitted so far; any thread may read.
pub struct Progress {
    started: Instant,
    next: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    reconnects: AtomicU64,
    /// By message number: when its 250 came, in microseconds since `started`; 0 for not yet.
    accepted_us: Vec<AtomicU64>,
    last_refusal: parking_lot::Mutex<String>,
}

impl Progress {
    /// For so many messages.
    pub fn new(messages: u64) -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            accepted_us: (0..messages).map(|_| AtomicU64::new(0)).collect(),
            last_refusal: parking_lot::Mutex::default(),
        }
    }

    /// When it was made: the zero of [`Progress::accepted_us`].
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Messages that got their 250.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Messages that got a 5xx, or were given up.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// 4xx replies after which a message was tried again.
    pub fn retried(&self) -> u64 {
        self.retried.load(Relaxed)
    }

    /// Connections that were lost and opened again; the message in hand was submitted again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Relaxed)
    }

    /// When the 250 of a message came, in microseconds since [`Progress::started`].
    pub fn accepted_us(&self, number: u64) -> Option<u64> {
        self.accepted_us.get(number as usize).map(|at| at.load(Relaxed)).filter(|at| *at > 0)
    }

    /// [`Progress::accepted_us`] of a message; `None` past the last one.
    pub fn slot(&self, number: u64) -> Option<Option<u64>> {
        (number < self.accepted_us.len() as u64).then(|| self.accepted_us(number))
    }

    /// The last reply that refused something; empty when nothing was.
    pub fn last_refusal(&self) -> String {
        self.last_refusal.lock().clone()
    }
}

/// Submits all of it; answers how long it took. Fails when a session could not go on; what is in `progress` holds.
pub async fn run(load: Load, progress: Arc<Progress>) -> io::Result<Duration> {
    let started = Instant::now();
    let text: Arc<[u8]> = random_text(load.seed).into();
    let mut tasks = tokio::task::JoinSet::new();
    for session in 0..load.sessions.max(1) {
        let worker = Worker {
            rng: Seeded::new(load.seed.wrapping_add(session as u64 + 1)),
            load: load.clone(),
            progress: progress.clone(),
            text: text.clone(),
            out: Vec::with_capacity(load.body_bytes + 1_024),
            address: Vec::new(),
        };
        tasks.spawn(worker.work());
    }
    let mut failure = None;
    while let Some(done) = tasks.join_next().await {
        if let Err(e) = done.map_err(io::Error::other).flatten() {
            failure = Some(e);
        }
    }
    failure.map_or(Ok(started.elapsed()), Err)
}

/// Random lines of 76 characters of the base64 alphabet: none begins with a dot.
fn random_text(seed: u64) -> Vec<u8> {
    let mut rng = Seeded::new(seed ^ 0x7465_7874);
    let mut text = Vec::with_capacity(TEXT_BYTES);
    while text.len() < TEXT_BYTES {
        let raw: Vec<u8> = (0..57).map(|_| rng.below(256) as u8).collect();
        text.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(raw).as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text
}

struct Worker {
    load: Load,
    progress: Arc<Progress>,
    text: Arc<[u8]>,
    rng: Seeded,
    out: Vec<u8>,
    address: Vec<u8>,
}

/// How a try of a message ended.
enum Tried {
    Accepted,
    Refused(String),
    TryAgain(String),
}

impl Worker {
    async fn work(mut self) -> io::Result<()> {
        let mut connection: Option<Connection> = None;
        loop {
            let number = self.progress.next.fetch_add(1, Relaxed);
            if number >= self.load.messages {
                break;
            }
            self.submit(number, &mut connection).await?;
        }
        if let Some(mut open) = connection {
            let _ = open.stream.write_all(b"QUIT\r\n").await;
        }
        Ok(())
    }

    async fn submit(&mut self, number: u64, connection: &mut Option<Connection>) -> io::Result<()> {
        for _ in 0..RETRIES_MAX {
            let open = match connection {
                Some(open) => open,
                None => match Connection::open(&self.load).await {
                    Ok(open) => connection.insert(open),
                    Err(e) => {
                        self.note(e.to_string());
                        self.progress.reconnects.fetch_add(1, Relaxed);
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                },
            };
            match self.message(number, open).await {
                Ok(Tried::Accepted) => {
                    let at_us = (self.progress.started.elapsed().as_micros() as u64).max(1);
                    if let Some(slot) = self.progress.accepted_us.get(number as usize) {
                        slot.store(at_us, Relaxed);
                    }
                    self.progress.accepted.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Ok(Tried::Refused(reply)) => {
                    self.note(reply);
                    self.progress.refused.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Ok(Tried::TryAgain(reply)) => {
                    if reply.starts_with("421") {
                        *connection = None;
                    }
                    self.note(reply);
                    self.progress.retried.fetch_add(1, Relaxed);
                }
                Err(e) => {
                    *connection = None;
                    self.note(e.to_string());
                    self.progress.reconnects.fetch_add(1, Relaxed);
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.progress.refused.fetch_add(1, Relaxed);
        Err(io::Error::other(format!("message {number} given up: {}", self.progress.last_refusal())))
    }

    fn note(&self, reply: String) {
        *self.progress.last_refusal.lock() = reply;
    }

    async fn message(&mut self, number: u64, open: &mut Connection) -> io::Result<Tried> {
        self.address.clear();
        (self.load.recipient)(number, &mut self.address);
        self.out.clear();
        self.push(&[b"MAIL FROM:<", self.load.sender.clone().as_bytes(), b">\r\nRCPT TO:<"]);
        let address = std::mem::take(&mut self.address);
        self.push(&[&address, b">\r\n"]);
        let chunked = self.load.chunking && open.chunking;
        let tried = if chunked {
            let envelope = std::mem::take(&mut self.out);
            self.content(number, &address);
            let content = std::mem::take(&mut self.out);
            self.out = envelope;
            let size = content.len().to_string();
            self.push(&[b"BDAT ", size.as_bytes(), b" LAST\r\n", &content]);
            open.stream.write_all(&self.out).await?;
            open.replies(3).await?
        } else {
            self.push(&[b"DATA\r\n"]);
            open.stream.write_all(&self.out).await?;
            let envelope = open.replies(3).await?;
            if open.last_code == 354 {
                self.out.clear();
                // RFC 2920 §3.1: a 354 in spite of a refused envelope is answered by a lone dot.
                if envelope.is_none() {
                    self.content(number, &address);
                }
                self.push(&[b".\r\n"]);
                open.stream.write_all(&self.out).await?;
                envelope.or(open.replies(1).await?)
            } else {
                envelope
            }
        };
        self.address = address;
        Ok(match tried {
            None => Tried::Accepted,
            Some(reply) => {
                if !reply.starts_with("421") {
                    open.stream.write_all(b"RSET\r\n").await?;
                    open.replies(1).await?;
                }
                if reply.starts_with('4') { Tried::TryAgain(reply) } else { Tried::Refused(reply) }
            }
        })
    }

    fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    /// Header and body of the message with this number, ending with a line end.
    fn content(&mut self, number: u64, address: &[u8]) {
        let lines = self.load.body_bytes.div_ceil(LINE_BYTES).min(TEXT_BYTES / LINE_BYTES);
        let start = self.rng.below((self.text.len() / LINE_BYTES - lines + 1) as u64) as usize * LINE_BYTES;
        let sender = self.load.sender.clone();
        let count = number.to_string();
        self.push(&[
            b"From: <",
            sender.as_bytes(),
            b">\r\nTo: <",
            address,
            b">\r\nSubject: message ",
            count.as_bytes(),
        ]);
        self.push(&[b"\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <", count.as_bytes(), b".source."]);
        let salt = self.rng.below(u64::MAX).to_string();
        self.push(&[salt.as_bytes(), b"@source.example>\r\nMIME-Version: 1.0\r\n\r\n"]);
        let text = self.text.clone();
        self.push(&[&text[start..start + lines * LINE_BYTES]]);
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    at: usize,
    chunking: bool,
    last_code: u16,
}

impl Connection {
    async fn open(load: &Load) -> io::Result<Self> {
        let stream = TcpStream::connect(load.target).await?;
        stream.set_nodelay(true)?;
        let mut open = Self { stream, input: Vec::with_capacity(4_096), at: 0, chunking: false, last_code: 0 };
        open.expect("").await?;
        let offers = open.expect("EHLO source.example\r\n").await?;
        let offered = |word: &str| offers.lines().any(|line| line.get(4..).is_some_and(|l| l.starts_with(word)));
        open.chunking = offered("CHUNKING") && offered("PIPELINING");
        if let Some((user, password)) = &load.login {
            let secret = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
            open.expect(&format!("AUTH PLAIN {secret}\r\n")).await?;
        }
        Ok(open)
    }

    /// Sends a command and reads its reply; a refusal is an error.
    async fn expect(&mut self, command: &str) -> io::Result<String> {
        self.stream.write_all(command.as_bytes()).await?;
        let reply = self.reply().await?;
        if self.last_code >= 400 { Err(io::Error::other(reply)) } else { Ok(reply) }
    }

    /// Reads so many replies; the first refusal among them. A 421 ends the reading: nothing comes after it.
    async fn replies(&mut self, count: usize) -> io::Result<Option<String>> {
        let mut refusal = None;
        for _ in 0..count {
            let reply = self.reply().await?;
            if self.last_code >= 400 {
                refusal = refusal.or(Some(reply));
            }
            if self.last_code == 421 {
                break;
            }
        }
        Ok(refusal)
    }

    /// One reply; its text only where it refuses or has several lines.
    async fn reply(&mut self) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.input[self.at..]) else {
                self.fill().await?;
                continue;
            };
            let line = &self.input[self.at..self.at + end];
            self.at += end + 1;
            let code = line.get(..3).and_then(|c| std::str::from_utf8(c).ok()).and_then(|c| c.parse::<u16>().ok());
            self.last_code = code.ok_or_else(|| io::Error::other("not a reply"))?;
            let more = line.get(3) == Some(&b'-');
            if more || self.last_code >= 400 || !text.is_empty() {
                text.push_str(&String::from_utf8_lossy(line));
                text.push('\n');
            }
            if !more {
                return Ok(text);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.input.drain(..self.at);
        self.at = 0;
        let read = tokio::time::timeout(SILENCE_MAX, self.stream.read_buf(&mut self.input)).await;
        match read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the server is silent"))?? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            _ => Ok(()),
        }
    }
}
