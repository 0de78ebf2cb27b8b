//! HTTP/1.1 to the daemon: over its Unix socket, over TCP, or over TLS; a connection for each request.
//!
//! The key is sent only over TLS or to a loopback address, unless the operator's own URL says `http://` elsewhere: then with
//! a warning, since a private network may be what is meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Connection, DEFAULT_SOCKET};
use crate::seam::net::{TcpStream, UnixStream};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take to begin: a backup answers when it is done, so this is long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The largest answer that is kept in memory.
const ANSWER_MAX: usize = 512 << 20;

/// Octets of a file that are read at a time, and pieces that are read ahead of what is sent.
const PIECE: usize = 64 << 10;
const PIECES_AHEAD: usize = 4;

/// A body whose pieces come by a channel.
struct Pieces(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(context)
    }
}

/// The way to a daemon.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    key: Option<String>,
}

#[derive(Clone, Debug)]
enum Target {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: bool, authority: String },
}

/// A read-write stream of any kind.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

impl Client {
    /// Where the options point to. Nothing is connected yet.
    pub fn new(connection: &Connection) -> anyhow::Result<Self> {
        if let Some(url) = &connection.url {
            let key = match &connection.key_file {
                Some(path) => {
                    let text =
                        std::fs::read_to_string(path).with_context(|| format!("--key-file {}", path.display()))?;
                    Some(text.trim().to_owned())
                }
                None => std::env::var("POSTHASTE_KEY").ok().map(|k| k.trim().to_owned()),
            };
            if key.as_deref().is_none_or(str::is_empty) {
                bail!("--url needs a key: give --key-file or set POSTHASTE_KEY");
            }
            return Ok(Self { target: tcp_target(url)?, key });
        }
        let socket = match (&connection.socket, &connection.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(config)) => data_dir(config)?.join("control.sock"),
            (None, None) => PathBuf::from(DEFAULT_SOCKET),
        };
        Ok(Self { target: Target::Unix(socket), key: None })
    }

    /// `GET`, answered with JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None).await
    }

    /// A request with a JSON body, answered with JSON.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.call(method, path, Some(serde_json::to_vec(body)?)).await
    }

    /// A request without a body, answered with JSON.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<T> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("the daemon's answer to {path} is not what was expected"))
    }

    /// A request, answered with octets.
    pub async fn bytes(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Bytes> {
        let response = self.open(method, path, body).await?;
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        body.map(|b| b.to_bytes()).map_err(|e| anyhow!("the daemon's answer broke off: {e}"))
    }

    /// A request with a body of any media type, answered with octets.
    pub async fn bytes_of(&self, method: Method, path: &str, media: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
        let response = self.open_as(method, path, media, Some(body)).await?;
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        body.map(|b| b.to_bytes()).map_err(|e| anyhow!("the daemon's answer broke off: {e}"))
    }

    /// A request whose body is read as it is sent, however long it is; answered with octets.
    pub async fn upload(
        &self,
        method: Method,
        path: &str,
        media: &str,
        source: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    ) -> anyhow::Result<Bytes> {
        let response = self.request(method, path, Some(media), Upload(source)).await?;
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        body.map(|b| b.to_bytes()).map_err(|e| anyhow!("the daemon's answer broke off: {e}"))
    }

    /// A request whose answer's body is read as it comes. An error status is an error.
    pub async fn open(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Response<Incoming>> {
        self.open_as(method, path, "application/json", body).await
    }

    async fn open_as(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Response<Incoming>> {
        let media = body.is_some().then_some(media);
        self.request(method, path, media, Full::new(Bytes::from(body.unwrap_or_default()))).await
    }

    async fn request<B>(
        &self,
        method: Method,
        path: &str,
        media: Option<&str>,
        body: B,
    ) -> anyhow::Result<Response<Incoming>>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection is driven until both sides are done with it; its error shows in the request's.
        tokio::spawn(connection);
        let mut request = self.prepare(method, path);
        if let Some(media) = media {
            request = request.header("content-type", media);
        }
        let request = request.body(body)?;
        let response = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
            .await
            .context("the daemon did not answer in an hour")?
            .map_err(|e| anyhow!("the daemon did not answer: {e}"))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(failure(response).await)
    }

    /// The fields of an answer to `HEAD`.
    pub async fn head(&self, path: &str) -> anyhow::Result<hyper::HeaderMap> {
        Ok(self.open(Method::HEAD, path, None).await?.headers().clone())
    }

    /// Puts a file from an offset on, as a stream; `progress` hears how far it is. Answers status and body.
    pub async fn put_file(
        &self,
        path: &str,
        file: &Path,
        offset: u64,
        content_type: &str,
        headers: &[(&str, String)],
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        use tokio::io::{AsyncReadExt, AsyncSeekExt};
        let mut source = tokio::fs::File::open(file).await.with_context(|| file.display().to_string())?;
        source.seek(std::io::SeekFrom::Start(offset)).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(PIECES_AHEAD);
        let reading = tokio::spawn(async move {
            let mut sent = offset;
            loop {
                let mut piece = bytes::BytesMut::with_capacity(PIECE);
                let frame = match source.read_buf(&mut piece).await {
                    Ok(0) => return,
                    Ok(n) => {
                        sent += n as u64;
                        Ok(Frame::data(piece.freeze()))
                    }
                    Err(e) => Err(e),
                };
                // The daemon has answered already: the rest is not wanted.
                if sender.send(frame).await.is_err() {
                    return;
                }
                progress(sent);
            }
        });
        let stream = self.connect().await?;
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = self.prepare(Method::PUT, path).header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Pieces(receiver))?;
        let response = tokio::time::timeout(ANSWER_TIMEOUT, requests.send_request(request))
            .await
            .context("the daemon did not answer in an hour")?
            .map_err(|e| anyhow!("the upload broke off: {e}; the same command goes on where it broke off"))?;
        reading.abort();
        if !response.status().is_success() {
            return Err(failure(response).await);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok((status, body.map(|b| b.to_bytes()).map_err(|e| anyhow!("the daemon's answer broke off: {e}"))?))
    }

    fn prepare(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let authority = match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tcp { authority, .. } => authority,
        };
        let request = Request::builder().method(method).uri(path).header("host", authority);
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        match &self.target {
            Target::Unix(path) => {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await?;
                let stream = connected.map_err(|e| {
                    anyhow!(
                        "no daemon answers on {} ({e}); is it running? See --socket, --config, --url",
                        path.display()
                    )
                })?;
                Ok(Box::new(stream))
            }
            Target::Tcp { host, port, tls, .. } => {
                let connecting = TcpStream::connect((host.as_str(), *port));
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
                    .await
                    .map_err(|_| anyhow!("{host}:{port} did not answer in {} s", CONNECT_TIMEOUT.as_secs()))?
                    .map_err(|e| anyhow!("no connection to {host}:{port}: {e}"))?;
                stream.set_nodelay(true)?;
                if !tls {
                    return Ok(Box::new(stream));
                }
                let name = rustls::pki_types::ServerName::try_from(host.clone())?;
                let stream = tokio_rustls::TlsConnector::from(Arc::new(tls_config()?)).connect(name, stream).await;
                Ok(Box::new(stream.map_err(|e| anyhow!("TLS to {host}:{port} failed: {e}"))?))
            }
        }
    }
}

/// A body that is read as it is sent.
struct Upload<R>(R);

impl<R: tokio::io::AsyncRead + Unpin> hyper::body::Body for Upload<R> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let mut piece = vec![0; 64 << 10];
        let mut buffer = tokio::io::ReadBuf::new(&mut piece);
        std::task::ready!(std::pin::Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        let len = buffer.filled().len();
        piece.truncate(len);
        std::task::Poll::Ready((len > 0).then(|| Ok(hyper::body::Frame::data(piece.into()))))
    }
}

fn tls_config() -> anyhow::Result<rustls::ClientConfig> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_platform_verifier()?.with_no_client_auth())
}

fn tcp_target(url: &str) -> anyhow::Result<Target> {
    let bad = || anyhow!("--url {url:?}: expected http://host:port or https://host");
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad()),
    };
    if !matches!(uri.path(), "" | "/") {
        bail!("--url {url:?}: give it without a path");
    }
    let authority = uri.authority().ok_or_else(bad)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if !tls && !loopback {
        eprintln!("warning: the key goes to {host} in clear; use https");
    }
    Ok(Target::Tcp { host, port, tls, authority: authority.as_str().to_owned() })
}

/// `data_dir` of a config file, relative to the file; nothing else of the file is read, so that a file with a mistake still
/// finds its daemon.
fn data_dir(config: &Path) -> anyhow::Result<PathBuf> {
    let place = || format!("--config {}", config.display());
    let text = std::fs::read_to_string(config).with_context(place)?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| anyhow!("{}: {}", place(), e.message()))?;
    let dir = table.get("data_dir").and_then(|v| v.as_str());
    let dir = dir.ok_or_else(|| anyhow!("{}: it has no data_dir; give --socket", place()))?;
    Ok(config.parent().unwrap_or(Path::new(".")).join(dir))
}

/// The daemon's problem, and its status.
async fn failure(response: Response<Incoming>) -> anyhow::Error {
    /// The largest problem that is read.
    const PROBLEM_MAX: usize = 1 << 20;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), PROBLEM_MAX).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = problem["detail"].as_str().or(problem["title"].as_str()).map(super::out::printable_lines);
    let text = text.unwrap_or_else(|| format!("the daemon answered {status}"));
    match status {
        StatusCode::UNAUTHORIZED => anyhow!("{text} (401): see --key-file"),
        // The hints of a configuration's problems stand on lines of their own.
        _ if text.contains('\n') => anyhow!("{text}"),
        _ => anyhow!("{text} ({})", status.as_u16()),
    }
}

/// A path with query parameters; those without a value are left out.
pub fn with_query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        out.push(separator);
        separator = '&';
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}
