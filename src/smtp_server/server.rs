//! Listeners: opening them, taking connections, ending.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::Authenticator;
use super::driver;
use super::limits::{ConnectionLimits, Full};
use super::session::{ListenerInfo, Peer};
use super::tls::{self, TlsError};
use crate::config::{Config, ListenerRole, ListenerTls};
use crate::inbound::Inbound;
use crate::metrics::smtp_server::SmtpServerMetrics;
use crate::queue::intake::Intake;
use crate::seam::net::{self, TcpStream};
use crate::types::Timestamp;

/// How long open transactions may go on once the daemon is ending.
pub(super) const DRAIN: Duration = Duration::from_secs(30);

/// How long a listener rests when the system has no more file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// How often such a rest is logged.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(60);

/// Why the server can't start: names the listener or file.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address} ({listener}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The listener in the config.
        listener: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The certificate can't be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener wants TLS and `[tls]` is missing.
    #[error("{listener} has tls = \"{tls}\", and there is no [tls] with a certificate")]
    NoCertificate {
        /// The listener in the config.
        listener: String,
        /// What it wants.
        tls: &'static str,
    },
    /// The thread for logins can't be started.
    #[error("cannot start the thread for logins: {0}")]
    Thread(std::io::Error),
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) intake: Arc<Intake>,
    pub(super) authenticator: Authenticator,
    pub(super) metrics: SmtpServerMetrics,
    /// Swapped by a reload; a handshake takes the one that is there.
    pub(super) tls: ArcSwapOption<ServerConfig>,
    limits: Arc<ConnectionLimits>,
}

struct Bound {
    socket: std::net::TcpListener,
    info: Arc<ListenerInfo>,
    implicit_tls: bool,
}

/// The SMTP server, bound and not yet running.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Bound>,
}

/// What can be done to a running server; cheap to clone.
#[derive(Clone)]
pub struct ServerHandle(Arc<Shared>);

impl ServerHandle {
    /// Loads the certificate of this config and uses it from the next handshake on. On an error the old one stays.
    pub fn reload_tls(&self, config: &Config) -> Result<(), TlsError> {
        if let Some(config) = &config.tls {
            self.0.tls.store(Some(tls::load(config)?));
        }
        Ok(())
    }
}

impl Server {
    /// Loads the certificate and opens the listeners of the config.
    pub fn bind(config: &Config, intake: Arc<Intake>, metrics: SmtpServerMetrics) -> Result<Self, BindError> {
        let certificate = config.tls.as_ref().map(tls::load).transpose()?;
        let mut listeners = Vec::with_capacity(config.smtp.listeners.len());
        for (index, listener) in config.smtp.listeners.iter().enumerate() {
            let info = ListenerInfo::new(index, listener, certificate.is_some());
            let wants = match listener.tls {
                ListenerTls::None => None,
                ListenerTls::Starttls => Some("starttls"),
                ListenerTls::Implicit => Some("implicit"),
            };
            if let Some(tls) = wants.filter(|_| certificate.is_none()) {
                return Err(BindError::NoCertificate { listener: info.name, tls });
            }
            let socket = net::listen(listener.address).map_err(|error| BindError::Listen {
                address: listener.address,
                listener: info.name.clone(),
                error,
            })?;
            let implicit_tls = listener.tls == ListenerTls::Implicit;
            listeners.push(Bound { socket, info: Arc::new(info), implicit_tls });
        }
        let authenticator = Authenticator::new(intake.clone(), metrics.clone()).map_err(BindError::Thread)?;
        let shared =
            Shared { intake, authenticator, metrics, tls: ArcSwapOption::from(certificate), limits: Arc::default() };
        Ok(Self { shared: Arc::new(shared), listeners })
    }

    /// The server with the engine to which what comes back goes; without it `bounce` listeners refuse every recipient.
    pub fn with_inbound(mut self, inbound: &Arc<Inbound>) -> Self {
        for listener in self.listeners.iter_mut().filter(|l| l.info.role == ListenerRole::Bounce) {
            let info = ListenerInfo { inbound: Some(inbound.clone()), ..ListenerInfo::clone(&listener.info) };
            listener.info = Arc::new(info);
        }
        self
    }

    /// Where it listens, in the order of the config: for ports that the system chose.
    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|l| l.socket.local_addr()).collect()
    }

    /// A handle for reloads.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.shared.clone())
    }

    /// Takes connections until `shutdown` says true (or its sender is gone), then lets open transactions end, for 30 s
    /// at the most. Runs on a current-thread runtime as well as on any other.
    pub async fn run(self, shutdown: watch::Receiver<bool>) -> std::io::Result<()> {
        // Each task holds a sender; when the last one is dropped, all have ended.
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        for bound in self.listeners {
            let address = bound.socket.local_addr()?;
            let listener = net::adopt(bound.socket)?;
            info!(%address, listener = bound.info.name, "smtp server listening");
            let accepting = Accepting {
                shared: self.shared.clone(),
                info: bound.info,
                implicit_tls: bound.implicit_tls,
                shutdown: shutdown.clone(),
                alive: alive.clone(),
            };
            tokio::spawn(accepting.run(listener));
        }
        drop(alive);
        let mut shutdown = shutdown;
        // An error means that the sender is gone: the daemon ends as well.
        let _ = shutdown.wait_for(|down| *down).await;
        let grace = DRAIN + Duration::from_secs(5);
        if tokio::time::timeout(grace, all_ended.recv()).await.is_err() {
            warn!("smtp sessions did not end in time");
        }
        Ok(())
    }
}

/// One listener's task.
struct Accepting {
    shared: Arc<Shared>,
    info: Arc<ListenerInfo>,
    implicit_tls: bool,
    shutdown: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
}

impl Accepting {
    async fn run(self, listener: net::TcpListener) {
        let mut shutdown = self.shutdown.clone();
        let mut logged = Timestamp::ZERO;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|down| *down) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.take(stream, address),
                Err(error) if is_lack(&error) => {
                    // The connection stays in the backlog: clients wait, the queue drains meanwhile.
                    self.shared.metrics.connections_refused.with_label_values(&["resources"]).inc();
                    let now = self.shared.intake.clock().now();
                    if now.since(logged) >= ACCEPT_LOG_EVERY {
                        logged = now;
                        warn!(%error, listener = self.info.name, "cannot take connections for now");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The client gave up before its turn.
                Err(_) => {}
            }
        }
    }

    fn take(&self, stream: TcpStream, address: SocketAddr) {
        let peer = Peer { address };
        let policy = self.shared.intake.policies().current();
        let limits = &policy.config.smtp;
        let slot = match self.shared.limits.admit(peer.ip(), limits.max_connections, limits.max_connections_per_client)
        {
            Ok(slot) => slot,
            Err(full) => return self.refuse(stream, full),
        };
        let connection = driver::Connection {
            shared: self.shared.clone(),
            info: self.info.clone(),
            implicit_tls: self.implicit_tls,
            peer,
            shutdown: self.shutdown.clone(),
            slot,
            alive: self.alive.clone(),
        };
        tokio::spawn(connection.run(stream));
    }

    /// Says why, where that is possible at once: a task for it would be what the limit is against.
    fn refuse(&self, stream: TcpStream, full: Full) {
        let (reason, reply) = match full {
            Full::Total => ("total", "421 4.3.2 Too many connections, try again later\r\n"),
            Full::Client => ("client", "421 4.7.0 Too many connections from your address\r\n"),
        };
        self.shared.metrics.connections_refused.with_label_values(&[reason]).inc();
        if !self.implicit_tls {
            // A new socket has room for a line; when it has not, the client sees the end without a word.
            let _ = stream.try_write(reply.as_bytes());
        }
    }
}

/// Whether the system lacks file descriptors or memory.
fn is_lack(error: &std::io::Error) -> bool {
    crate::seam::net::is_exhausted(error)
}

/// Ends a connection politely: our last words out, then what the client still sends is read for a while. To close
/// with octets unread would reset the connection, and the client would never see why.
pub(super) async fn linger<S>(io: &mut S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    const TIME: Duration = Duration::from_secs(2);
    const OCTETS_MAX: usize = 1 << 20;
    let drain = async {
        let mut sink = vec![0; 8 << 10];
        let mut seen = 0;
        if io.shutdown().await.is_err() {
            return;
        }
        while seen < OCTETS_MAX {
            match tokio::io::AsyncReadExt::read(io, &mut sink).await {
                Ok(n) if n > 0 => seen += n,
                Ok(_) | Err(_) => return,
            }
        }
    };
    // Whether it ends or the time is up is all the same.
    let _ = tokio::time::timeout(TIME, drain).await;
}
