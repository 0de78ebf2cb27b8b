//! The listeners: TCP with its bounds, and the control socket.
//!
//! 1. [`Server::bind`]: the TCP port; the socket `control.sock`, made under another name with mode 0600 and then renamed,
//!    so that it never exists with wider rights. One that somebody answers on is left alone: another daemon runs.
//! 2. [`Server::run`]: one task a connection; the place for a TCP connection is taken before it is accepted, so what is
//!    too much waits in the kernel.
//! 3. At the end: no new connections, long polls answer at once, each connection finishes its request, at most 5 s.
//!
//! Bounds of a connection: 64 fields and 64 KiB of header, 30 s for the header and between requests (slowloris).

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::{Api, Peer};
use crate::seam::net::{TcpListener, UnixListener, UnixStream};

/// How long a header may take, and how long a connection may rest between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most header fields.
const HEADERS_MAX: usize = 64;
/// The read buffer, and with it the longest header: enough for a raw message's list of recipients.
const BUFFER_MAX: usize = 64 << 10;
/// The most connections on the control socket.
const UNIX_CONNECTIONS_MAX: usize = 64;
/// How long requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after accept failed: mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The name of the control socket in `data_dir`.
pub const SOCKET_NAME: &str = "control.sock";

/// Why the API can't listen: names what and where.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address of `[http]`.
    #[error("http.address {address}: {error}")]
    Tcp {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The control socket.
    #[error("the control socket {}: {error}", .path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody answers on the control socket.
    #[error("another daemon answers on {}", .0.display())]
    Running(PathBuf),
}

/// The API with its listeners.
pub struct Server {
    api: Api,
    tcp: Option<TcpListener>,
    unix: ControlSocket,
    connections: usize,
}

/// The control socket; its file goes with it.
struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The daemon's user: the owner of the socket that it made.
    uid: u32,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Server {
    /// Opens the listeners of the config in force. Must run inside the runtime that will serve them.
    pub async fn bind(api: Api) -> Result<Self, BindError> {
        let config = api.config();
        let tcp = match &config.http {
            None => None,
            Some(http) => {
                let bound = TcpListener::bind(http.address).await;
                Some(bound.map_err(|error| BindError::Tcp { address: http.address, error })?)
            }
        };
        let unix = bind_unix(&config.data_dir.join(SOCKET_NAME)).await?;
        let connections = config.http.as_ref().map_or(1, |http| http.max_connections.max(1) as usize);
        Ok(Self { api, tcp, unix, connections })
    }

    /// Where TCP is served: with a port of 0 in the config, the port that was given.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until `shutdown` turns true or its sender is gone.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let router = self.api.router();
        let mut tasks = JoinSet::new();
        let (ending, ended) = watch::channel(false);
        if let Some(address) = self.tcp_address() {
            info!(%address, "http api listening");
        }
        let uid = self.unix.uid;
        let places = Arc::new(Semaphore::new(self.connections));
        let unix_places = Arc::new(Semaphore::new(UNIX_CONNECTIONS_MAX));
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|ends| *ends) => break,
                (stream, peer, place) = accept_tcp(self.tcp.as_ref(), &places) => {
                    // Answers are small and whole: nothing is gained by waiting for more.
                    let _ = stream.set_nodelay(true);
                    let peer = Peer::Tcp(peer);
                    tasks.spawn(serve(TokioIo::new(stream), router.clone(), peer, place, ended.clone()));
                }
                (stream, place) = accept_unix(&self.unix.listener, &unix_places) => {
                    let peer_uid = stream.peer_cred().map_or(u32::MAX, |c| c.uid());
                    let peer = Peer::Unix { uid: peer_uid, admin: peer_uid == uid || peer_uid == 0 };
                    tasks.spawn(serve(TokioIo::new(stream), router.clone(), peer, place, ended.clone()));
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        self.api.0.closing.send_replace(true);
        ending.send_replace(true);
        let finish = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            warn!("http requests were cut off at the end");
        }
    }
}

/// Binds the control socket, in place of one that nobody answers on.
async fn bind_unix(path: &Path) -> Result<ControlSocket, BindError> {
    let wrong = |error| BindError::Unix { path: path.to_owned(), error };
    if path.exists() && UnixStream::connect(path).await.is_ok() {
        return Err(BindError::Running(path.to_owned()));
    }
    let made = path.with_extension(format!("{}.new", std::process::id()));
    match std::fs::remove_file(&made) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(wrong(e)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&made).map_err(wrong)?;
    let settle = || {
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, path)?;
        std::fs::metadata(path).map(|m| m.uid())
    };
    let uid = settle().map_err(wrong)?;
    Ok(ControlSocket { listener, path: path.to_owned(), uid })
}

/// The next TCP connection, once there is a place for it; never, without a listener.
async fn accept_tcp(
    listener: Option<&TcpListener>,
    places: &Arc<Semaphore>,
) -> (crate::seam::net::TcpStream, std::net::SocketAddr, OwnedSemaphorePermit) {
    let Some(listener) = listener else { return std::future::pending().await };
    let place = place(places).await;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                warn!(%error, "http accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_unix(listener: &UnixListener, places: &Arc<Semaphore>) -> (UnixStream, OwnedSemaphorePermit) {
    let place = place(places).await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                warn!(%error, "accept on the control socket failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        // The semaphore is never closed.
        Err(_) => std::future::pending().await,
    }
}

/// One connection, until it ends or the server does.
async fn serve<S>(
    io: TokioIo<S>,
    router: Router,
    peer: Peer,
    place: OwnedSemaphorePermit,
    mut ended: watch::Receiver<bool>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.max_headers(HEADERS_MAX).max_buf_size(BUFFER_MAX);
    let mut connection = pin!(builder.serve_connection(io, service));
    // The guard that `wait_for` gives must not live across the next await.
    let ended = async move { drop(ended.wait_for(|ended| *ended).await) };
    let result = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = ended => None,
    };
    let result = match result {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, ?peer, "http connection ended");
    }
    drop(place);
}
