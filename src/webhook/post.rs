//! One request: where to, whether that is allowed, and what came of it.
//!
//! 1. the name is looked up once; each of its addresses must be allowed, not only the one that is used,
//! 2. the connection goes to that very address (pinned: no second look-up that could answer otherwise), by TLS with a certificate of a known authority
//!    for the name,
//! 3. one POST; a redirect is an answer like any other that is not 2xx: nothing is followed,
//! 4. of the answer the status counts, and a little of its text for the operator.
//!
//! All of it within the endpoint's time. A connection for each request: they are batched, and a pinned one would outlive its look-up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::WebhookTarget;
use crate::delivery::tls::TlsConfigs;
use crate::seam::dns::{Family, Resolver};
use crate::seam::net::TcpStream;
use crate::types::is_private_address;

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 3;
/// How long one address may take to connect where there is another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Octets of an answer that are read for the operator.
const ANSWER_MAX: usize = 512;
/// The read buffer, and with it the longest head of an answer.
const HEAD_MAX: usize = 16 << 10;
/// The most fields of an answer.
const FIELDS_MAX: usize = 64;

/// Why a request was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failed {
    /// What kind of failure: a label of the metric.
    pub kind: FailedKind,
    /// For the operator, one line.
    pub why: String,
    /// The receiver's `Retry-After`, where it gave one in seconds.
    pub retry_after: Option<Duration>,
}

/// The kinds of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FailedKind {
    /// Another status than 2xx.
    Status,
    /// 410 Gone: it says that it wants no more.
    Gone,
    /// DNS, connection, TLS, time.
    Network,
    /// An address that is not allowed.
    Refused,
}

impl FailedKind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status | Self::Gone => "status",
            Self::Network => "network",
            Self::Refused => "refused",
        }
    }
}

fn network(why: impl std::fmt::Display) -> Failed {
    Failed { kind: FailedKind::Network, why: why.to_string(), retry_after: None }
}

/// What a request is made of.
pub(super) struct Outgoing<'a> {
    pub target: &'a WebhookTarget,
    pub allow_private: bool,
    pub timeout: Duration,
    pub authorization: Option<&'a str>,
    pub id: &'a str,
    pub timestamp_s: u64,
    pub signature: String,
    pub body: Vec<u8>,
}

/// Makes requests; cheap to clone.
#[derive(Clone)]
pub(super) struct Poster {
    pub resolver: Resolver,
    pub tls: TlsConfigs,
}

impl Poster {
    /// Sends it. `Ok` means: answered with 2xx.
    pub async fn post(&self, out: Outgoing<'_>) -> Result<StatusCode, Failed> {
        let timeout = out.timeout;
        match tokio::time::timeout(timeout, self.exchange(out)).await {
            Ok(done) => done,
            Err(_) => Err(network(format!("no answer in {} s", timeout.as_secs()))),
        }
    }

    async fn exchange(&self, out: Outgoing<'_>) -> Result<StatusCode, Failed> {
        let addresses = self.addresses(out.target).await?;
        allowed(&addresses, out.allow_private)?;
        let stream = connect(&addresses, out.target.port).await?;
        if !out.target.tls {
            return send(stream, out).await;
        }
        let config = self.tls.verified.clone().map_err(network)?;
        let name = ServerName::try_from(out.target.host.clone()).map_err(network)?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(|e| network(format!("TLS: {e}")))?;
        send(stream, out).await
    }

    async fn addresses(&self, target: &WebhookTarget) -> Result<Vec<IpAddr>, Failed> {
        if let Ok(address) = target.host.parse() {
            return Ok(vec![address]);
        }
        if target.is_localhost() {
            return Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        }
        let found = self.resolver.addresses(&target.host, Family::Any).await;
        Ok(found.map_err(|e| network(format!("{}: {e}", target.host)))?.records)
    }
}

/// Whether all addresses may be connected to. One that may not spoils them all: who answers with an inner address among others is after something.
fn allowed(addresses: &[IpAddr], allow_private: bool) -> Result<(), Failed> {
    match addresses.iter().find(|address| is_private_address(**address)) {
        Some(address) if !allow_private => Err(Failed {
            kind: FailedKind::Refused,
            why: format!("{address} is a loopback, private or special address; allow_private = true would allow it"),
            retry_after: None,
        }),
        Some(_) | None => Ok(()),
    }
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Failed> {
    let mut last = network("the name has no address");
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let remote = SocketAddr::new(*address, port);
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(remote)).await {
            Ok(Ok(stream)) => {
                // Without it the request's end could wait for an acknowledgement; an error costs only that.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => last = network(format!("{remote}: {e}")),
            Err(_) => last = network(format!("{remote}: no connection in {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }
    Err(last)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    out: Outgoing<'_>,
) -> Result<StatusCode, Failed> {
    let mut request = Request::post(&out.target.path)
        .header(HOST, &out.target.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("posthaste/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", out.id)
        .header("webhook-timestamp", out.timestamp_s)
        .header("webhook-signature", out.signature);
    if let Some(value) = out.authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(Bytes::from(out.body))).map_err(network)?;
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(HEAD_MAX).max_headers(FIELDS_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(network)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| network(reason(&e)))?;
        answer(response).await
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // The connection may end as soon as the answer is whole, or break at what follows it; an answer that was read is then still there.
        ended = connection => match (exchange.await, ended) {
            (Err(Failed { kind: FailedKind::Network, .. }), Err(broke)) => Err(network(reason(&broke))),
            (answered, _) => answered,
        },
    }
}

/// hyper's words and those of what is below: "connection error" alone says little.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

async fn answer(response: Response<hyper::body::Incoming>) -> Result<StatusCode, Failed> {
    let status = response.status();
    if status.is_success() {
        return Ok(status);
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let mut why = format!("answered {}", status.as_u16());
    if status.is_redirection() {
        why.push_str(", a redirect: none is followed");
    } else {
        let text = beginning(response.into_body()).await;
        if !text.is_empty() {
            why = format!("{why}: {text}");
        }
    }
    let kind = if status == StatusCode::GONE { FailedKind::Gone } else { FailedKind::Status };
    Err(Failed { kind, why, retry_after })
}

/// The first octets of a body, on one line without controls.
async fn beginning(mut body: hyper::body::Incoming) -> String {
    let mut octets = Vec::new();
    while octets.len() < ANSWER_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            octets.extend_from_slice(&data[..data.len().min(ANSWER_MAX - octets.len())]);
        }
    }
    let text: String = String::from_utf8_lossy(&octets).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

/// Shared by all endpoints.
pub(super) type SharedPoster = Arc<Poster>;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], allow_private: bool, want: bool) {
        let parsed: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        let got = allowed(&parsed, allow_private);
        assert_eq!(got.is_ok(), want, "{addresses:?}");
        assert!(got.is_ok() || got.is_err_and(|failed| failed.kind == FailedKind::Refused));
    }

    #[test]
    fn inner_addresses_need_to_be_allowed() {
        for inner in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.5.5",
            "192.168.0.10",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            check(&[inner], false, false);
            check(&[inner], true, true);
            // One among good ones: a name that is to be rebound.
            check(&["8.8.8.8", inner], false, false);
        }
        check(&["8.8.8.8", "2a00:1450:4001::1"], false, true);
    }
}
