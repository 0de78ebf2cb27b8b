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
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Connected>> + 'a>>;

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
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connection timed out"))??;
            let local = stream.local_addr().ok().map(|a| a.ip());
            Ok(Connected { stream: Box::new(stream), local })
        })
    }
}

/// A TCP connection with Nagle's algorithm off: we write whole bursts, and waiting for an ACK would cost 40 ms.
async fn connect_tcp(remote: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(remote).await
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
