//! One connection's task: octets between its socket and its session.
//!
//! 1. Octets are read into one buffer; the session takes all that is whole in it,
//! 2. what the session needs is done: TLS, a login, a submission,
//! 3. when it needs octets again, its replies go out in one write.
//!
//! One timer a connection. It is armed for the session's deadline; deadlines move forth with every octet, the
//! timer only when it fires and finds that it is too early. So a command costs no timer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::limits::Slot;
use super::server::{DRAIN, Shared, linger};
use super::session::{ListenerInfo, Peer, Session, Step};
use super::tls;
use crate::queue::intake::Refusal;
use crate::seam::net::TcpStream;
use crate::smtp::message_buffer::HEADROOM;
use crate::types::Timestamp;

/// The read buffer of a connection. Holds many pipelined commands, and more than the longest line.
const READ_BUFFER: usize = 32 << 10;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that was taken.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) info: Arc<ListenerInfo>,
    pub(super) implicit_tls: bool,
    pub(super) peer: Peer,
    pub(super) shutdown: watch::Receiver<bool>,
    /// Its place among the connections, given back at its end.
    pub(super) slot: Slot,
    /// Tells the server that it lives.
    pub(super) alive: mpsc::Sender<()>,
}

impl Connection {
    pub(super) async fn run(self, stream: TcpStream) {
        let Connection { shared, info, implicit_tls, peer, shutdown, slot, alive } = self;
        shared.metrics.connections.inc();
        shared.metrics.connections_open.inc();
        // Replies are small and each is waited for.
        let _ = stream.set_nodelay(true);
        let why = serve(&shared, info, implicit_tls, peer, shutdown, stream).await;
        shared.metrics.connections_open.dec();
        debug!(client = %peer.ip(), why, "smtp session ended");
        drop((slot, alive));
    }
}

async fn serve(
    shared: &Arc<Shared>,
    info: Arc<ListenerInfo>,
    implicit_tls: bool,
    peer: Peer,
    shutdown: watch::Receiver<bool>,
    mut stream: TcpStream,
) -> &'static str {
    let clock = shared.intake.clock().clone();
    let session = |tls| Session::new(shared.intake.clone(), info.clone(), peer, tls, clock.now());
    if implicit_tls {
        return match handshake(shared, stream).await {
            Some((mut stream, tls)) => {
                Driver::new(shared, session(Some(tls)), shutdown).drive_to_end(&mut stream).await
            }
            None => "handshake",
        };
    }
    let mut driver = Driver::new(shared, session(None), shutdown);
    match driver.drive(&mut stream).await {
        End::Closed(why) => driver.close(&mut stream, why).await,
        End::StartTls => match handshake(shared, stream).await {
            Some((mut stream, tls)) => {
                driver.start = 0;
                driver.end = 0;
                driver.session.tls_started(tls, clock.now());
                driver.drive_to_end(&mut stream).await
            }
            None => "handshake",
        },
    }
}

async fn handshake(shared: &Shared, stream: TcpStream) -> Option<(TlsStream<TcpStream>, Arc<str>)> {
    let config = shared.tls.load_full()?;
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await;
    match accepted {
        Ok(Ok(stream)) => {
            shared.metrics.tls.with_label_values(&["ok"]).inc();
            let described = tls::describe(stream.get_ref().1);
            Some((stream, described))
        }
        Ok(Err(error)) => {
            shared.metrics.tls.with_label_values(&["failed"]).inc();
            debug!(%error, "tls handshake failed");
            None
        }
        Err(_) => {
            shared.metrics.tls.with_label_values(&["failed"]).inc();
            None
        }
    }
}

/// Why driving ended.
enum End {
    StartTls,
    Closed(&'static str),
}

struct Driver<'a> {
    shared: &'a Arc<Shared>,
    session: Session,
    shutdown: watch::Receiver<bool>,
    ending: bool,
    buffer: Box<[u8]>,
    /// What was read and not yet used.
    start: usize,
    end: usize,
    timer: Pin<Box<Sleep>>,
    armed: Timestamp,
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Arc<Shared>, session: Session, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            shared,
            session,
            shutdown,
            ending: false,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: Timestamp::ZERO,
        }
    }

    /// Drives a session that can't start TLS any more.
    async fn drive_to_end<S: AsyncRead + AsyncWrite + Unpin>(mut self, io: &mut S) -> &'static str {
        match self.drive(io).await {
            End::Closed(why) => self.close(io, why).await,
            End::StartTls => "handshake",
        }
    }

    async fn close<S: AsyncRead + AsyncWrite + Unpin>(self, io: &mut S, why: &'static str) -> &'static str {
        self.shared.metrics.commands_refused.inc_by(self.session.refused_total());
        match why {
            "gone" => {}
            "quit" => drop(io.shutdown().await),
            _ => {
                self.shared.metrics.sessions_ended.with_label_values(&[why]).inc();
                debug!(user = self.session.user(), why, "smtp session closed by us");
                linger(io).await;
            }
        }
        why
    }

    async fn drive<S: AsyncRead + AsyncWrite + Unpin>(&mut self, io: &mut S) -> End {
        loop {
            let now = self.shared.intake.clock().now();
            let (used, step) = self.session.feed(&self.buffer[self.start..self.end], now);
            self.start += used;
            match step {
                Step::Input => {
                    if self.flush(io).await {
                        self.fill(io).await;
                    }
                }
                Step::Submit(submission) => {
                    let result = self.shared.intake.accept_with_headroom(*submission, HEADROOM).await;
                    self.session.submitted(result, self.shared.intake.clock().now());
                }
                Step::Return(mut returned) => {
                    returned.mail = returned.mail.slice(HEADROOM.min(returned.mail.len())..);
                    let inbound = self.session.listener().inbound.clone();
                    let result = match inbound {
                        Some(inbound) => inbound.take(*returned).await,
                        None => Err(Refusal::new(550, "5.1.1", 422, "Unknown bounce address")),
                    };
                    self.session.returned(result, self.shared.intake.clock().now());
                }
                Step::Login(credentials) => {
                    let (client, listener) = (self.session.peer_ip(), self.session.listener().name.clone());
                    let result = self.shared.authenticator.check(credentials, client, &listener).await;
                    self.session.logged_in(result, self.shared.intake.clock().now());
                }
                Step::StartTls => {
                    self.flush(io).await;
                    return End::StartTls;
                }
                Step::Close(why) => {
                    self.flush(io).await;
                    return End::Closed(why);
                }
            }
        }
    }

    /// Sends the output in one write. A client that does not read its replies is given up at the session's deadline:
    /// then `false`, and the session is closed.
    async fn flush<S: AsyncWrite + Unpin>(&mut self, io: &mut S) -> bool {
        if !self.session.has_output() {
            return true;
        }
        let output = self.session.take_output();
        let mut written = false;
        {
            let mut write = std::pin::pin!(async {
                io.write_all(&output).await?;
                io.flush().await
            });
            loop {
                self.arm();
                tokio::select! {
                    biased;
                    result = &mut write => {
                        written = result.is_ok();
                        break;
                    }
                    () = &mut self.timer => {
                        self.armed = Timestamp::NEVER;
                        let now = self.shared.intake.clock().now();
                        if now >= self.session.deadline() {
                            break;
                        }
                    }
                }
            }
        }
        if written {
            self.session.recycle(output);
        } else {
            self.session.abandon();
        }
        written
    }

    /// Reads octets; or ends the session because of time, of the daemon's end, or of the client's.
    async fn fill<S: AsyncRead + Unpin>(&mut self, io: &mut S) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.arm();
        tokio::select! {
            biased;
            read = io.read(&mut self.buffer[self.end..]) => match read {
                Ok(n) if n > 0 => self.end += n,
                Ok(_) | Err(_) => self.session.abandon(),
            },
            () = &mut self.timer => {
                self.armed = Timestamp::NEVER;
                // When it ends the session, the next step is to close.
                let _ = self.session.timeout(self.shared.intake.clock().now());
            }
            _ = self.shutdown.wait_for(|down| *down), if !self.ending => {
                self.ending = true;
                let _ = self.session.shutdown(self.shared.intake.clock().now().after(DRAIN));
            }
        }
    }

    /// Makes sure that the timer fires no later than the deadline.
    fn arm(&mut self) {
        let deadline = self.session.deadline();
        if deadline < self.armed || self.armed == Timestamp::ZERO {
            let wait = deadline.since(self.shared.intake.clock().now()) + Duration::from_millis(1);
            self.timer.as_mut().reset(Instant::now() + wait);
            self.armed = deadline;
        }
    }
}
