//! Sockets: the only place that names `tokio::net`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
pub use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A stream of octets in both directions: a socket, a TLS session, or a pipe in a test.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A stream, whatever it is made of.
pub type BoxStream = Box<dyn Stream>;

/// An opening connection.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + 'a>>;

/// Why a connection did not open, by whose fault.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The remote does not answer, refuses, or there is no way to it.
    #[error("{0}")]
    Remote(io::Error),
    /// Our own address can't be used: this host does not have it.
    #[error("{0}")]
    Source(io::Error),
    /// This host or process is out of descriptors, ports or memory: no remote could be tried.
    #[error("{0}")]
    Exhausted(io::Error),
}

impl ConnectError {
    /// Of an error in making our own end: the socket and its address.
    fn of_local_end(error: io::Error) -> Self {
        match error.kind() {
            // Port 0 was asked for: all are in use.
            io::ErrorKind::AddrInUse => Self::Exhausted(error),
            _ if is_exhausted(&error) => Self::Exhausted(error),
            _ => Self::Source(error),
        }
    }
}

/// Whether an error says that this process or host is out of descriptors or memory, which says nothing of anybody else.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// An open connection.
pub struct Connected {
    /// The stream.
    pub stream: BoxStream,
    /// Our address.
    pub local: Option<IpAddr>,
}

/// Opens connections: the system's sockets, or a test's pipes.
pub trait Network {
    /// Connects to `remote` from `local` (or from where the system likes), within `timeout`.
    fn connect(&self, remote: SocketAddr, local: Option<IpAddr>, timeout: Duration) -> Connecting<'_>;
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

impl Network for TcpNetwork {
    fn connect(&self, remote: SocketAddr, local: Option<IpAddr>, timeout: Duration) -> Connecting<'_> {
        Box::pin(async move {
            let stream = tokio::time::timeout(timeout, connect_tcp(remote, local))
                .await
                .map_err(|_| ConnectError::Remote(io::Error::new(io::ErrorKind::TimedOut, "connection timed out")))??;
            let local = stream.local_addr().ok().map(|a| a.ip());
            Ok(Connected { stream: Box::new(stream), local })
        })
    }
}

/// A TCP connection with Nagle's algorithm off: we write whole bursts, and waiting for an ACK would cost 40 ms.
async fn connect_tcp(remote: SocketAddr, local: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| match ConnectError::of_local_end(error) {
        // The host has no IPv6 at all: without an address of our own that is a remote which can't be reached.
        ConnectError::Source(error) if local.is_none() => ConnectError::Remote(error),
        other => other,
    })?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0)).map_err(ConnectError::of_local_end)?;
    }
    // What a connect says of the local end (no port towards this remote, no route) is about this remote alone.
    let remote_fault =
        |error| if is_exhausted(&error) { ConnectError::Exhausted(error) } else { ConnectError::Remote(error) };
    socket.set_nodelay(true).map_err(remote_fault)?;
    socket.connect(remote).await.map_err(remote_fault)
}

/// Whether this host has an address to send from: a socket is bound to it and closed again, nothing is sent.
pub fn can_bind(address: IpAddr) -> io::Result<()> {
    let address = SocketAddr::new(address, 0);
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.bind(&address.into())
}

/// How many connections the system keeps for a listener that is busy.
const BACKLOG: i32 = 1_024;

/// Opens a listening socket. Not yet part of a runtime, so that privileges can be dropped in between: see [`adopt`].
pub fn listen(address: std::net::SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Else a listener on [::]:587 would clash with one on 0.0.0.0:587.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes a listening socket part of the current runtime.
pub fn adopt(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listener)
}
