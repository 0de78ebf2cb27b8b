//! The socket and its bounds.
//!
//! Anybody may connect, so each bound is small: a header of 16 KiB and 64 fields in 10 s, a request in 20 s, ten minutes and 10 s of rest a
//! connection; where [`CONNECTIONS_MAX`] are open, further ones are closed at once, and one client has at most [`CLIENT_CONNECTIONS_MAX`], unless
//! it is a trusted proxy.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::{Parts, page, router};
use crate::seam::net::{self, TcpListener, TcpStream};

/// The most connections; further ones are closed at once.
const CONNECTIONS_MAX: usize = 2_048;
/// The most connections of one client that is no trusted proxy; further ones are closed at once.
const CLIENT_CONNECTIONS_MAX: usize = 64;
/// How long a header may take, and how long a connection may rest between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take, from its header to its answer; then 408.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection lives: nobody needs one for longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// The most header fields.
const HEADERS_MAX: usize = 64;
/// The read buffer, and with it the longest header.
const BUFFER_MAX: usize = 16 << 10;
/// How long requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after accept failed: mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the public listener can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("public.address {address}: {error}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

/// The public listener.
pub struct Server {
    listener: TcpListener,
    parts: Parts,
    router: Router,
    clients: Clients,
}

impl Server {
    /// Opens the listener of the config; `None` when it has none. Must run inside the runtime that will serve it.
    pub fn bind(parts: Parts) -> Result<Option<Self>, BindError> {
        let config = parts.config.load_full();
        let Some(public) = &config.public else { return Ok(None) };
        let address = public.address;
        let listener = net::listen(address).and_then(net::adopt).map_err(|error| BindError { address, error })?;
        let router = router(parts.clone()).layer(axum::middleware::from_fn(in_time));
        Ok(Some(Self { listener, parts, router, clients: Clients::default() }))
    }

    /// Where it listens: with a port of 0 in the config, the port that was given.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `shutdown` turns true or its sender is gone.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let (ending, ended) = watch::channel(false);
        if let Some(address) = self.address() {
            info!(%address, "public listener open");
        }
        loop {
            let (stream, peer) = tokio::select! {
                _ = shutdown.wait_for(|ends| *ends) => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                accepted = accept(&self.listener) => accepted,
            };
            let place = self.clients.enter(peer.ip(), self.is_trusted(peer.ip()));
            let Some(place) = place.filter(|_| tasks.len() < CONNECTIONS_MAX) else {
                self.parts.metrics.connections_refused.inc();
                continue;
            };
            let (router, ended) = (self.router.clone(), ended.clone());
            tasks.spawn(async move {
                let _place = place;
                serve(stream, peer, router, ended).await;
            });
        }
        ending.send_replace(true);
        let finish = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            warn!("requests to the public listener were cut off at the end");
        }
    }

    fn is_trusted(&self, ip: IpAddr) -> bool {
        let config = self.parts.config.load();
        config.public.iter().flat_map(|public| &public.trusted_proxies).any(|net| net.contains(&ip.to_canonical()))
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "accept on the public listener failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => page::plain(StatusCode::REQUEST_TIMEOUT, "the request took too long\n"),
    }
}

/// One connection, until it ends, grows old, or the server ends.
async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, mut ended: watch::Receiver<bool>) {
    // Answers are small and whole: nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.layer(axum::Extension(ConnectInfo(peer))));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.max_headers(HEADERS_MAX).max_buf_size(BUFFER_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let over = async move {
        // The guard that `wait_for` gives must not live across the next await.
        let ended = async move { drop(ended.wait_for(|ended| *ended).await) };
        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, ended).await;
    };
    let result = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = over => None,
    };
    let result = match result {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(REQUEST_TIMEOUT, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, %peer, "public connection ended");
    }
}

/// Connections by client.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's place; given back when dropped.
struct Place {
    clients: Clients,
    ip: Option<IpAddr>,
}

impl Clients {
    /// A place, if this client has not too many; a trusted proxy is not counted.
    fn enter(&self, ip: IpAddr, trusted: bool) -> Option<Place> {
        if trusted {
            return Some(Place { clients: self.clone(), ip: None });
        }
        let mut clients = self.0.lock();
        let count = clients.entry(ip).or_insert(0);
        if *count >= CLIENT_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Place { clients: self.clone(), ip: Some(ip) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut clients = self.clients.0.lock();
        if let Some(count) = clients.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&ip);
            }
        }
    }
}
