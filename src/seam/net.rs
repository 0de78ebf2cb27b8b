//! Sockets: the only place that names `tokio::net`.

pub use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

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
