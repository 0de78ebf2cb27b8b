//! The listeners, with real sockets on loopback.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::world::*;
use crate::api::{BindError, Server};
use crate::seam::net::{TcpStream, UnixListener, UnixStream};

/// Sends a request that ends the connection; answers with all that came back.
async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn tcp_needs_a_key_and_the_socket_knows_its_user() {
    let dir = tempfile::tempdir().expect("a folder");
    let w = World::at(dir.path().to_owned());
    let server = Server::bind(w.api.clone()).await.expect("bound");
    let address = server.tcp_address().expect("a port");
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(server.run(stopped));

    let tcp = TcpStream::connect(address).await.expect("connected");
    assert!(exchange(tcp, &get("/v1/queues")).await.starts_with("HTTP/1.1 401 "));
    let path = dir.path().join("control.sock");
    assert_eq!(std::fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
    let unix = UnixStream::connect(&path).await.expect("connected");
    assert!(exchange(unix, &get("/v1/queues")).await.starts_with("HTTP/1.1 200 "));

    // A long poll does not hold up the end, and the socket's file goes.
    let mut poll = UnixStream::connect(&path).await.expect("connected");
    poll.write_all(get("/v1/events?wait=60").as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(3), running).await.expect("ends at once").expect("no panic");
    assert!(!path.exists());
    let mut answer = String::new();
    poll.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn another_user_at_the_socket_is_refused() {
    use axum::Extension;
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;
    let w = World::new();
    let ask = async |uid, admin| {
        let router = w.api.router().layer(Extension(crate::api::Peer::Unix { uid, admin }));
        let request = Request::get("/v1/queues").header("authorization", format!("Bearer {ADMIN}"));
        let request = request.body(Body::empty()).expect("valid");
        router.oneshot(request).await.expect("infallible").status().as_u16()
    };
    assert_eq!(ask(0, true).await, 200);
    assert_eq!(ask(1_234, false).await, 403);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("control.sock");
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a daemon that was killed leaves its socket");
    let w = World::at(dir.path().to_owned());
    let server = Server::bind(w.api.clone()).await.expect("nobody answers there");
    let second = Server::bind(w.api.clone()).await;
    assert!(matches!(second, Err(BindError::Running(_))));
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let taken = crate::seam::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let w = World::at(dir.path().to_owned());
    let address = taken.local_addr().expect("an address");
    w.config(|c| c.http.as_mut().expect("has http").address = address);
    let error = Server::bind(w.api.clone()).await.err().expect("taken").to_string();
    assert!(error.starts_with(&format!("http.address {address}: ")), "{error}");
}

#[tokio::test]
async fn a_live_session_is_streamed() {
    let dir = tempfile::tempdir().expect("a folder");
    let w = World::at(dir.path().to_owned());
    let server = Server::bind(w.api.clone()).await.expect("bound");
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(server.run(stopped));
    let unix = UnixStream::connect(dir.path().join("control.sock")).await.expect("connected");
    let fake = w.fake.clone();
    let session = tokio::spawn(async move {
        loop {
            let lines = fake.memory.lock().trace.pop();
            match lines {
                Some(lines) => break lines.send("> EHLO mta1.test".into()).await.expect("somebody reads"),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    let answer = exchange(unix, &get("/v1/admin/trace-smtp?domain=slow.example")).await;
    assert!(answer.contains("> EHLO mta1.test\n"), "{answer}");
    session.await.expect("no panic");
    running.abort();
}
