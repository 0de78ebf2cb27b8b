//! Receivers that speak SMTP by octets, each with its mood: what they do wrong, how often, at every phase.
//!
//! 1. [`Wire::connect`] is the network: it refuses, hangs, or gives one end of a pipe and writes down the other's life,
//! 2. [`serve`] is a receiver: it reads commands, rolls the dice at each phase, and answers, late or not at all.
//!
//! They live outside the process under test: its crash leaves them with what they have taken.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::clients::{body_of, tag_of};
use super::log::{Line, Log, Place, Refused, Taken};
use crate::seam::net::{ConnectError, Connected, Connecting, Network};
use crate::seam::random::Seeded;

/// Octets that a pipe holds in one direction, as the buffers of a socket do.
const PIPE: usize = 64 << 10;
/// How long a silent peer says nothing: longer than every time-out of RFC 5321 §4.5.3.2.
const SILENCE: Duration = Duration::from_secs(1_200);

/// How a host behaves; in percent where nothing else is said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mood {
    /// Nobody listens.
    pub refuses: bool,
    /// Connections are never answered.
    pub hangs: bool,
    /// Something goes wrong at a phase.
    pub trouble: u64,
    /// Of the recipients, so many do not exist.
    pub unknown: u64,
    /// Of the messages, so many are taken without a word.
    pub mute: u64,
    /// The longest time before an ordinary reply, in milliseconds.
    pub latency_ms: u64,
    /// What is offered changes from connection to connection.
    pub flaps: bool,
}

/// The moods of all hosts, as they are now.
pub(super) type Moods = Rc<RefCell<Vec<Mood>>>;

/// The network of one life of the process.
pub(super) struct Wire {
    pub moods: Moods,
    pub log: Rc<Log>,
    pub life: u32,
    /// Where new ends of pipes are served.
    pub arrivals: mpsc::UnboundedSender<(DuplexStream, usize)>,
}

/// The host of an address of the simulation.
pub(super) fn host_at(address: IpAddr) -> Option<usize> {
    let IpAddr::V4(v4) = address else { return None };
    let [10, 9, 9, host] = v4.octets() else { return None };
    Some(usize::from(host))
}

/// The source that connects from an address.
fn source_at(address: IpAddr) -> Option<u8> {
    if let IpAddr::V4(v4) = address { v4.octets().last().copied() } else { None }
}

impl Network for Wire {
    fn connect(&self, remote: SocketAddr, local: Option<IpAddr>, timeout: Duration) -> Connecting<'_> {
        Box::pin(async move {
            let refused = |kind: ErrorKind| ConnectError::Remote(Error::from(kind));
            let host = host_at(remote.ip()).ok_or_else(|| refused(ErrorKind::HostUnreachable))?;
            let mood = self.moods.borrow()[host];
            let place = Place { source: local.and_then(source_at), host, life: self.life };
            self.log.tries.borrow_mut().push((self.log.now(), place));
            self.log.tell(|| format!("connect to {host}"));
            if mood.hangs {
                tokio::time::sleep(timeout).await;
                return Err(refused(ErrorKind::TimedOut));
            }
            let mut lines = self.log.lines.borrow_mut();
            if mood.refuses {
                return Err(refused(ErrorKind::ConnectionRefused));
            }
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let opened = self.log.now();
            lines.push(Line { place, opened, closed: None, mails: Vec::new() });
            let number = lines.len() - 1;
            let _ = self.arrivals.send((theirs, number));
            let stream = Box::new(End { pipe: ours, number, log: self.log.clone() });
            Ok(Connected { stream, local: None })
        })
    }
}

/// The sender's end of a pipe: the network sees when it is closed.
struct End {
    pipe: DuplexStream,
    number: usize,
    log: Rc<Log>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.log.lines.borrow_mut()[self.number].closed = Some(self.log.now());
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A receiver's side of one connection.
pub(super) struct Receiver {
    pub pipe: DuplexStream,
    pub number: usize,
    pub host: usize,
    pub moods: Moods,
    pub log: Rc<Log>,
    pub dice: Seeded,
    input: Vec<u8>,
    chunking: bool,
    from: bool,
    recipients: Vec<String>,
    chunks: Vec<u8>,
}

/// Ends the connection without a word.
struct Gone;

impl From<Error> for Gone {
    fn from(_: Error) -> Self {
        Self
    }
}

impl Receiver {
    pub(super) fn new(pipe: DuplexStream, number: usize, moods: Moods, log: Rc<Log>, dice: Seeded) -> Self {
        let host = log.lines.borrow()[number].place.host;
        let (input, recipients, chunks) = Default::default();
        Self { pipe, number, host, moods, log, dice, input, chunking: false, from: false, recipients, chunks }
    }

    pub(super) async fn serve(mut self) {
        // It ends in the only way a connection can.
        let _: Result<(), Gone> = self.talk().await;
    }

    fn mood(&self) -> Mood {
        self.moods.borrow()[self.host]
    }

    async fn talk(&mut self) -> Result<(), Gone> {
        if !self.trouble("greeting", None).await? {
            self.say("220 mx ESMTP").await?;
        }
        loop {
            let line = self.line().await?;
            let upper = line.to_ascii_uppercase();
            let verb = upper.split([' ', ':']).next().unwrap_or("");
            match verb {
                "EHLO" => self.ehlo().await?,
                "HELO" => {
                    self.reset();
                    self.chunking = false;
                    self.say("250 mx").await?;
                }
                "MAIL" => self.mail().await?,
                "RCPT" => self.rcpt(&line).await?,
                "DATA" => self.data().await?,
                "BDAT" => self.bdat(&upper).await?,
                "RSET" => {
                    self.reset();
                    self.say("250 ok").await?;
                }
                "QUIT" => {
                    self.say("221 bye").await?;
                    return Err(Gone);
                }
                _ => {
                    self.log.fault(format!("host {} did not understand {line:?}", self.host));
                    self.say("500 what?").await?;
                }
            }
        }
    }

    async fn ehlo(&mut self) -> Result<(), Gone> {
        self.reset();
        if self.trouble("EHLO", None).await? {
            return Ok(());
        }
        let kind = if self.mood().flaps { self.dice.below(8) } else { self.host as u64 % 8 };
        self.chunking = kind & 2 != 0;
        let mut text = "250-mx\r\n".to_owned();
        for (bit, word) in [(1, "PIPELINING"), (2, "CHUNKING"), (4, "8BITMIME")] {
            if kind & bit != 0 {
                text += &format!("250-{word}\r\n");
            }
        }
        self.say(&(text + "250 SIZE 1000000")).await
    }

    async fn mail(&mut self) -> Result<(), Gone> {
        let now = self.log.now();
        self.log.lines.borrow_mut()[self.number].mails.push(now);
        if self.trouble("MAIL", None).await? {
            return Ok(());
        }
        self.reset();
        self.from = true;
        self.say("250 ok").await
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Gone> {
        if !self.from {
            return self.say("503 5.5.1 MAIL first").await;
        }
        let to = line.split(['<', '>']).nth(1).unwrap_or("").to_owned();
        if self.trouble("RCPT", Some(&to)).await? {
            return Ok(());
        }
        if self.dice.below(100) < self.mood().unknown {
            self.log.refused.borrow_mut().push(Refused { host: self.host, recipient: Some(to) });
            return self.say("550 5.1.1 no such user").await;
        }
        self.recipients.push(to);
        self.say("250 ok").await
    }

    async fn data(&mut self) -> Result<(), Gone> {
        if self.recipients.is_empty() {
            return self.say("554 5.5.1 no valid recipients").await;
        }
        if self.trouble("DATA", None).await? {
            return Ok(());
        }
        self.say("354 go").await?;
        let end = loop {
            if let Some(at) = self.input.windows(5).position(|w| w == b"\r\n.\r\n") {
                break at + 5;
            }
            self.read().await?;
        };
        let body: Vec<u8> = self.input.drain(..end).collect();
        let body = String::from_utf8_lossy(&body[..end - 3]).replace("\r\n..", "\r\n.");
        self.message(body.strip_prefix('.').unwrap_or(&body).as_bytes()).await
    }

    async fn bdat(&mut self, line: &str) -> Result<(), Gone> {
        let size = line.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        while self.input.len() < size {
            self.read().await?;
        }
        let chunk: Vec<u8> = self.input.drain(..size).collect();
        if !self.chunking {
            return self.say("500 5.5.1 what?").await;
        }
        if self.recipients.is_empty() {
            return self.say("554 5.5.1 no valid recipients").await;
        }
        self.chunks.extend(chunk);
        if !line.ends_with(" LAST") {
            return self.say("250 ok").await;
        }
        let body = std::mem::take(&mut self.chunks);
        self.message(&body).await
    }

    /// The whole message is here.
    async fn message(&mut self, body: &[u8]) -> Result<(), Gone> {
        let recipients = std::mem::take(&mut self.recipients);
        self.from = false;
        if self.trouble("end of data", None).await? {
            return Ok(());
        }
        let tag = tag_of(body).unwrap_or_else(|| "ours".to_owned());
        if tag != "ours" && !body.ends_with(body_of(&tag).as_bytes()) {
            self.log.fault(format!("message {tag} came with another body"));
        }
        self.log.tell(|| format!("host {} takes {tag} for {recipients:?}", self.host));
        let first = self.log.taken.borrow().len();
        for recipient in recipients {
            let taken = Taken { tag: tag.clone(), recipient, replied: false };
            self.log.taken.borrow_mut().push(taken);
        }
        let last = self.log.taken.borrow().len();
        if self.dice.below(100) < self.mood().mute {
            if self.dice.below(2) == 0 {
                tokio::time::sleep(SILENCE).await;
            }
            return Err(Gone);
        }
        self.say("250 2.0.0 taken").await?;
        self.log.taken.borrow_mut()[first..last].iter_mut().for_each(|taken| taken.replied = true);
        Ok(())
    }

    fn reset(&mut self) {
        self.from = false;
        self.recipients.clear();
        self.chunks.clear();
    }

    /// Rolls the dice at a phase: `true` when a refusal was said in place of the usual.
    async fn trouble(&mut self, phase: &str, recipient: Option<&str>) -> Result<bool, Gone> {
        if self.dice.below(100) >= self.mood().trouble {
            return Ok(false);
        }
        let kind = self.dice.below(12);
        self.log.tell(|| format!("host {} trouble {kind} at {phase}", self.host));
        match kind {
            0 | 1 => Err(Gone),
            2 => {
                tokio::time::sleep(SILENCE).await;
                Err(Gone)
            }
            3 | 4 => {
                tokio::time::sleep(Duration::from_millis(self.dice.below(150_000))).await;
                Ok(false)
            }
            5 => {
                // RFC 5321 §3.8: it says so and leaves.
                self.say("421 4.3.2 shutting down").await?;
                Err(Gone)
            }
            6 => {
                // Half a reply, and then nothing more.
                self.pipe.write_all(b"25").await?;
                Err(Gone)
            }
            7 => {
                self.log.refused.borrow_mut().push(Refused { host: self.host, recipient: recipient.map(Into::into) });
                self.say("554 5.7.1 not wanted").await?;
                if phase == "greeting" { Err(Gone) } else { Ok(true) }
            }
            8 => {
                self.say("450-4.2.0 later\r\n450 4.2.0 please").await?;
                Ok(true)
            }
            _ => {
                self.say("451 4.3.0 try again").await?;
                if phase == "greeting" { Err(Gone) } else { Ok(true) }
            }
        }
    }

    async fn say(&mut self, text: &str) -> Result<(), Gone> {
        let latency = self.mood().latency_ms;
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(self.dice.below(latency))).await;
        }
        self.pipe.write_all(format!("{text}\r\n").as_bytes()).await?;
        Ok(())
    }

    async fn line(&mut self) -> Result<String, Gone> {
        loop {
            if let Some(at) = self.input.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Gone> {
        let mut buffer = [0; 4_096];
        let n = self.pipe.read(&mut buffer).await?;
        if n == 0 {
            return Err(Gone);
        }
        self.input.extend_from_slice(&buffer[..n]);
        Ok(())
    }
}
