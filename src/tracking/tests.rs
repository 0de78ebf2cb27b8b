use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::config::Public as PublicConfig;
use crate::event::EventKind;
use crate::metrics::Registry;
use crate::seam::net::TcpStream;
use crate::suppression::testing::{Memory, suppressions};
use crate::types::{CampaignNo, Class, Mailbox, Name, QueueId, Timestamp};

struct World {
    parts: Parts,
    router: axum::Router,
    memory: Arc<Mutex<Memory>>,
    registry: Registry,
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn world() -> World {
    let clock = Clock::manual(Timestamp::from_millis(1_795_456_549_012));
    let (suppressions, memory) = suppressions(clock.clone());
    let public = PublicConfig {
        address: ([127, 0, 0, 1], 0).into(),
        url: "https://l.example".into(),
        trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
    };
    let config = Config { public: Some(public), ..Config::default() };
    let registry = Registry::new();
    let parts = Parts {
        config: Arc::new(ArcSwap::from_pointee(config)),
        clock,
        links: Links::ephemeral(),
        suppressions,
        campaigns: Arc::new(|no| (no == CampaignNo(7)).then(|| name("spring"))),
        metrics: TrackingMetrics::register(&registry),
    };
    World { router: router(parts.clone()), parts, memory, registry }
}

fn token(test: bool) -> UnsubscribeToken {
    let row = RowId { campaign: CampaignNo(7), step: 0, queue: QueueId(3), slot: 0, seq: 9 };
    UnsubscribeToken {
        tenant: name("acme"),
        message: Some(row.message_id()),
        list: Some(name("news")),
        address: Mailbox::parse("jane@x.example").expect("an address"),
        test,
    }
}

impl World {
    async fn ask(&self, method: Method, path: &str, media: &str, body: &str) -> (u16, HeaderMap, String) {
        self.ask_from([192, 0, 2, 1].into(), "", method, path, media, body).await
    }

    async fn ask_from(
        &self,
        peer: IpAddr,
        forwarded: &str,
        method: Method,
        path: &str,
        media: &str,
        body: &str,
    ) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path).header("content-type", media);
        if !forwarded.is_empty() {
            request = request.header("x-forwarded-for", forwarded);
        }
        let request = request.extension(ConnectInfo(SocketAddr::new(peer, 4_000))).body(Body::from(body.to_owned()));
        let response = self.router.clone().oneshot(request.expect("a request")).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let text = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(text.to_vec()).expect("text"))
    }

    async fn suppressed(&self, class: Class) -> bool {
        let token = token(false);
        let verdict = self.parts.suppressions.check(&token.tenant, token.list.as_ref(), class, &token.address).await;
        verdict.expect("read").is_some()
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn get_changes_nothing_and_post_acts_once() {
    let w = world();
    let path = format!("/u/{}", w.parts.links.seal_unsubscribe(&token(false)));
    // Scanners open every link, some with HEAD first.
    for method in [Method::GET, Method::HEAD, Method::GET] {
        let (status, headers, page) = w.ask(method.clone(), &path, "", "").await;
        assert_eq!(status, 200);
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(headers["content-security-policy"].to_str().expect("text").starts_with("default-src 'none'"));
        if method == Method::GET {
            assert!(page.contains("<form method=\"post\"") && page.contains("news") && !page.contains("<script"));
            assert!(!page.contains("jane"), "the address is on no page: {page}");
        }
    }
    assert_eq!(w.memory.lock().commits, 0);

    let (status, headers, text) = w.ask(Method::POST, &path, FORM, "List-Unsubscribe=One-Click").await;
    assert_eq!((status, text.as_str()), (200, "unsubscribed\n"));
    assert!(headers["content-type"].to_str().expect("text").starts_with("text/plain"));
    assert!(w.suppressed(Class::Marketing).await && !w.suppressed(Class::Transactional).await);
    {
        let memory = w.memory.lock();
        assert_eq!((memory.table.len(), memory.commits), (1, 1), "entry and event are one commit");
        let [event] = memory.events.as_slice() else { panic!("one event: {:?}", memory.events) };
        assert_eq!(event.event, EventKind::Unsubscribed);
        assert_eq!(event.campaign, Some(name("spring")));
        assert_eq!(event.message_id, token(false).message);
        assert_eq!(event.recipient.as_ref().map(Mailbox::as_str), Some("jane@x.example"));
        assert_eq!(event.reason.as_deref(), Some("one-click, list news"));
    }
    // Again, in the other forms: an answer, and no commit.
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n";
    let (status, _, text) = w.ask(Method::POST, &path, "multipart/form-data; boundary=b", multipart).await;
    assert_eq!((status, text.as_str()), (200, "unsubscribed\n"));
    let (status, _, page) = w.ask(Method::POST, &path, FORM, "confirm=yes").await;
    assert!(status == 200 && page.contains("You are unsubscribed") && page.contains("/undo"));
    assert_eq!(w.memory.lock().commits, 1);
    let metrics = w.registry.encode();
    for line in ["outcome=\"page\"} 3", "outcome=\"one_click\"} 1", "outcome=\"repeated\"} 2"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn it_can_be_taken_back() {
    let w = world();
    let sealed = w.parts.links.seal_unsubscribe(&token(false));
    let (path, undo) = (format!("/u/{sealed}"), format!("/u/{sealed}/undo"));
    let address = token(false).address;
    let scope = Scope::of(name("acme"), Some(name("news")));
    let complaint = w.parts.suppressions.entry(scope, Reason::Complaint, &address, "fbl");
    w.parts.suppressions.add(complaint).await.expect("added");
    assert_eq!(w.ask(Method::POST, &path, FORM, "confirm=yes").await.0, 200);
    assert_eq!(w.ask(Method::GET, &undo, "", "").await.0, 405);
    assert_eq!(w.ask(Method::POST, &undo, FORM, "").await.0, 200);
    assert_eq!(w.memory.lock().table.len(), 1, "a complaint stays");
    // Back and forth: not for ever.
    let mut last = 0;
    for _ in 0..40 {
        last = w.ask(Method::POST, &undo, FORM, "").await.0;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn a_test_mail_does_nothing_and_says_so() {
    let w = world();
    let path = format!("/u/{}", w.parts.links.seal_unsubscribe(&token(true)));
    assert!(w.ask(Method::GET, &path, "", "").await.2.contains("test mail"));
    for path in [path.clone(), format!("{path}/undo")] {
        let (status, _, page) = w.ask(Method::POST, &path, FORM, "List-Unsubscribe=One-Click").await;
        assert!(status == 200 && page.contains("nothing was changed"));
    }
    assert_eq!(w.memory.lock().commits, 0);
}

#[tokio::test]
async fn what_is_not_ours_tells_nothing() {
    let w = world();
    let sealed = w.parts.links.seal_unsubscribe(&token(false));
    let foreign = Links::ephemeral().seal_unsubscribe(&token(false));
    let mut flipped = sealed.clone().into_bytes();
    flipped[30] = if flipped[30] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).expect("text");
    let long = "A".repeat(5_000);
    let mut pages = std::collections::BTreeSet::new();
    for token in [foreign.as_str(), &flipped, &sealed[..40], "x", &long, "%00", "..%2f..%2fetc"] {
        for method in [Method::GET, Method::POST] {
            let (status, headers, page) = w.ask(method, &format!("/u/{token}"), FORM, "").await;
            assert_eq!(status, 404, "{token}");
            pages.insert((page, format!("{headers:?}")));
        }
    }
    for path in ["/", "/v1/queues", "/metrics", "/u/", "/u"] {
        pages.insert({
            let (status, headers, page) = w.ask(Method::GET, path, "", "").await;
            assert_eq!(status, 404, "{path}");
            (page, format!("{headers:?}"))
        });
    }
    assert_eq!(pages.len(), 1, "one page for all: {pages:?}");
    assert_eq!(w.ask(Method::PUT, &format!("/u/{sealed}"), FORM, "").await.0, 405);
    assert_eq!(w.ask(Method::GET, "/healthz", "", "").await.0, 200);
    assert_eq!(w.memory.lock().commits, 0);
    let large = "x".repeat(BODY_MAX + 1);
    assert_eq!(w.ask(Method::POST, &format!("/u/{sealed}"), FORM, &large).await.0, 413);
}

#[tokio::test]
async fn who_guesses_is_stopped_and_nobody_else() {
    let w = world();
    let good = format!("/u/{}", w.parts.links.seal_unsubscribe(&token(false)));
    let get = async |peer: [u8; 4], forwarded: &str, path: &str| {
        w.ask_from(peer.into(), forwarded, Method::GET, path, "", "").await.0
    };
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(get([192, 0, 2, 1], "198.51.100.7", "/u/guess").await);
    }
    assert_eq!(answers.iter().filter(|status| **status == 404).count(), 30);
    assert_eq!(answers.last(), Some(&429));
    // A good link always works, from there too; and others are not concerned.
    assert_eq!(get([192, 0, 2, 1], "", &good).await, 200);
    assert_eq!(get([192, 0, 2, 2], "", "/u/guess").await, 404);
    w.parts.clock.advance(Duration::from_secs(10));
    assert_eq!(get([192, 0, 2, 1], "", "/u/guess").await, 404, "it recovers");
    // Behind the proxy it is the address that the proxy saw, not what the client claims.
    for n in 0..31 {
        get([10, 0, 0, 1], &format!("203.0.113.{n}, 198.51.100.9, 10.0.0.2"), "/u/guess").await;
    }
    assert_eq!(get([10, 0, 0, 1], "198.51.100.9", "/u/guess").await, 429);
    assert_eq!(get([10, 0, 0, 1], "198.51.100.10", "/u/guess").await, 404);
}

#[tokio::test]
async fn the_listener_has_bounds() {
    let w = world();
    let server = Server::bind(w.parts.clone()).expect("bound").expect("configured");
    let address = server.address().expect("a port");
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(server.run(stopped));
    let ask = async |request: &str| {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        // A refused connection may be reset.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    };
    let good = w.parts.links.unsubscribe_url("", &token(false));
    let ok = format!("GET {good} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(ask(&ok).await.starts_with("HTTP/1.1 200 "));
    let long = format!("GET /u/{} HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(20_000));
    assert!(!ask(&long).await.starts_with("HTTP/1.1 2"));
    let fields: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    assert!(!ask(&format!("GET {good} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await.starts_with("HTTP/1.1 2"));

    // One client does not take all places: those beyond 64 are closed at once.
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(TcpStream::connect(address).await.expect("connected"));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ask(&ok).await, "");
    drop(held);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(ask(&ok).await.starts_with("HTTP/1.1 200 "));
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(3), running).await.expect("ends").expect("no panic");
}
