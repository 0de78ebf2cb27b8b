//! The sockets of the simulated receivers: one thread, one current-thread runtime, one task a connection.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::counters::Counters;
use super::profile::{ENDLESS_BYTES_MAX, Fault, Profile};
use super::session::{Next, Session, Shared};
use crate::seam::net::{TcpListener, TcpStream};

/// Room for one read: a message of ordinary size comes in one.
const READ_BYTES: usize = 64 << 10;

/// A receiver to be played.
pub struct Endpoint {
    /// Where it listens; port 0 takes a free one. Must be on loopback.
    pub address: SocketAddr,
    /// How it behaves.
    pub profile: Profile,
    /// With it, STARTTLS is offered.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Endpoint {
    /// A receiver without TLS on a free port of 127.0.0.1.
    pub fn local(profile: Profile) -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), profile, tls: None }
    }
}

/// Receivers that are being played; they end when this is dropped or stopped.
pub struct Sink {
    endpoints: Vec<(SocketAddr, Arc<Shared>)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens, then plays on a thread of its own. Fails when an address can't be bound or is not on loopback.
    pub fn start(endpoints: Vec<Endpoint>) -> io::Result<Self> {
        let mut listening = Vec::new();
        let mut bound = Vec::new();
        for endpoint in endpoints {
            if !endpoint.address.ip().is_loopback() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the sandbox listens on loopback only"));
            }
            let listener = std::net::TcpListener::bind(endpoint.address)?;
            listener.set_nonblocking(true)?;
            let shared = Arc::new(Shared {
                profile: endpoint.profile,
                counters: Counters::new(),
                struck: AtomicU32::new(0),
                stored: AtomicU64::new(0),
                tls_offered: endpoint.tls.is_some(),
            });
            bound.push((listener.local_addr()?, shared.clone()));
            listening.push((listener, shared, endpoint.tls.map(TlsAcceptor::from)));
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("sandbox-sink".into()).spawn(move || {
            runtime.block_on(async move {
                for (listener, shared, tls) in listening {
                    tokio::spawn(accept(listener, shared, tls));
                }
                let _ = stopped.await;
            });
            // Dropping the runtime ends every session, whatever it waits for.
        })?;
        Ok(Self { endpoints: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where the receiver with this number listens.
    pub fn address(&self, number: usize) -> SocketAddr {
        self.endpoints[number].0
    }

    /// What the receiver with this number saw.
    pub fn counters(&self, number: usize) -> &Counters {
        &self.endpoints[number].1.counters
    }

    /// How many receivers there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TLS server with this certificate chain and key, both PEM.
pub fn tls_from_pem(certificate: &Path, key: &Path) -> io::Result<Arc<rustls::ServerConfig>> {
    let bad = |e: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(&format_args!("{}: {e}", certificate.display())))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(&format_args!("{}: {e}", key.display())))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| bad(&e))?;
    Ok(Arc::new(config))
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                shared.counters.connections.fetch_add(1, Relaxed);
                shared.counters.open.fetch_add(1, Relaxed);
                let (shared, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    // A broken connection is a normal end of a session here.
                    let _ = connection(stream, shared.clone(), tls).await;
                    shared.counters.open.fetch_sub(1, Relaxed);
                });
            }
            // No file descriptor is free: others will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, tls: Option<TlsAcceptor>) -> io::Result<()> {
    let mut session = Session::new(shared.clone());
    let mut stream = stream;
    let mut out = Vec::with_capacity(1_024);
    let next = session.greet(&mut out);
    if next == Next::Drop {
        return Ok(());
    }
    send(&mut stream, &shared.profile, &out).await?;
    if next != Next::More {
        return stream.shutdown().await;
    }
    if converse(&mut stream, &mut session, &shared).await? != Next::StartTls {
        return stream.shutdown().await;
    }
    let Some(acceptor) = tls else { return Ok(()) };
    let mut stream = acceptor.accept(stream).await?;
    session.secured();
    converse(&mut stream, &mut session, &shared).await?;
    stream.shutdown().await
}

/// Speaks until the session ends or TLS is to begin.
async fn converse<S>(stream: &mut S, session: &mut Session, shared: &Shared) -> io::Result<Next>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut out = Vec::with_capacity(1_024);
    loop {
        if input.capacity() - input.len() < READ_BYTES / 4 {
            input.reserve(READ_BYTES);
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(Next::Close);
        }
        out.clear();
        let next = session.advance(&mut input, &mut out);
        match next {
            Next::Drop => return Ok(Next::Drop),
            Next::Endless => return endless(stream).await,
            Next::More | Next::Close | Next::StartTls => send(stream, &shared.profile, &out).await?,
        }
        if next != Next::More {
            return Ok(next);
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, profile: &Profile, out: &[u8]) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let Some(Fault::ByteByByte { pause_ms }) = profile.fault else {
        stream.write_all(out).await?;
        return stream.flush().await;
    };
    for byte in out {
        stream.write_all(std::slice::from_ref(byte)).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    Ok(())
}

async fn endless<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Next> {
    let line = b"250-AND-SO-ON and so on and so on\r\n".repeat(64);
    let mut sent = 0;
    while sent < ENDLESS_BYTES_MAX {
        stream.write_all(&line).await?;
        sent += line.len();
    }
    Ok(Next::Drop)
}
