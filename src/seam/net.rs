//! Sockets: the only place that names `tokio::net`.

pub use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
