//! Endpoints over a store that answers from memory, and receivers on loopback.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::event::{Event, EventKind};
use crate::metrics::Registry;
use crate::metrics::delivery::DeliveryMetrics;
use crate::seam::dns::Zones;
use crate::store::{Change, EventsPage, LedgerRequest, ReadRequest};

/// A store in memory: a log, and `state` by key. Its tasks serve the handles until the test ends.
struct World {
    reader: Reader,
    ledger: Ledger,
    log: Arc<Mutex<Vec<Event>>>,
    state: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    committed: watch::Sender<EventSeq>,
    clock: Clock,
    folder: tempfile::TempDir,
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

impl World {
    fn new() -> Self {
        let (committed, watched) = watch::channel(EventSeq(0));
        let (reader, mut reads) = Reader::with_committed(16, watched);
        let (ledger, mut writes) = Ledger::channel();
        let log: Arc<Mutex<Vec<Event>>> = Arc::default();
        let state: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>> = Arc::default();
        let clock = Clock::manual(Timestamp::from_millis(1_795_000_000_000));
        let (of_reads, state_of_reads) = (log.clone(), state.clone());
        tokio::spawn(async move {
            while let Some(request) = reads.recv().await {
                match request {
                    ReadRequest::Events { after, limit, tenant, reply } => {
                        let log = of_reads.lock();
                        let rest: Vec<&Event> = log.iter().filter(|event| event.seq > after).collect();
                        let page = rest.iter().take(limit);
                        let next = page.clone().next_back().map_or(after, |event| event.seq);
                        let events = page.filter(|e| tenant.as_ref().is_none_or(|t| *t == e.tenant));
                        let events = events.map(|event| (*event).clone()).collect();
                        let _ = reply.send(Ok(EventsPage { events, next, more: rest.len() > limit, gap: None }));
                    }
                    ReadRequest::StateGet { key, reply } => {
                        let value = state_of_reads.lock().get(&key).cloned();
                        let _ = reply.send(Ok(value.map(bytes::Bytes::from)));
                    }
                    other => panic!("not asked by webhooks: {other:?}"),
                }
            }
        });
        let (of_writes, state_of_writes, tell) = (log.clone(), state.clone(), committed.clone());
        tokio::spawn(async move {
            while let Some(request) = writes.submits.recv().await {
                let LedgerRequest::Submit { changes, reply, .. } = request else { continue };
                for change in changes {
                    match change {
                        Change::PutState { key, value } => drop(state_of_writes.lock().insert(key, value)),
                        Change::Event(event) => drop(append(&of_writes, &tell, *event)),
                        other => panic!("not written by webhooks: {other:?}"),
                    }
                }
                let _ = reply.send(Ok(()));
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("written");
        Self { reader, ledger, log, state, committed, clock, folder }
    }

    fn engine(&self) -> Webhooks {
        let registry = Registry::new();
        Webhooks::new(Parts {
            clock: self.clock.clone(),
            reader: self.reader.clone(),
            ledger: self.ledger.clone(),
            metrics: WebhookMetrics::register(&registry),
            resolver: Resolver::fixed(Zones::new(), DeliveryMetrics::register(&Registry::new()).dns),
            tls: TlsConfigs::new().expect("TLS"),
        })
    }

    fn config(&self, url: &str, more: &str) -> Config {
        let secret = self.folder.path().join("secret");
        let text = format!(
            "hostname = 'a.example'\ndata_dir = 'd'\n[[webhooks]]\nname = 'crm'\nurl = '{url}'\nsecret_file = '{}'\n{more}",
            secret.display()
        );
        toml::from_str(&text).expect("a configuration")
    }

    fn add(&self, kind: EventKind, tenant: &str) -> EventSeq {
        append(&self.log, &self.committed, Event::new(kind, self.clock.now(), name(tenant)))
    }

    fn record(&self) -> Option<serde_json::Value> {
        let state = self.state.lock();
        state.get(b"webhook/crm".as_slice()).map(|value| serde_json::from_slice(value).expect("JSON"))
    }
}

fn append(log: &Mutex<Vec<Event>>, committed: &watch::Sender<EventSeq>, mut event: Event) -> EventSeq {
    let mut log = log.lock();
    event.seq = EventSeq(log.len() as u64 + 1);
    let seq = event.seq;
    log.push(event);
    committed.send_replace(seq);
    seq
}

/// A receiver that answers each request by `answer(number)`; keeps id and body of each.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<(String, String)>>>,
}

impl Receiver {
    fn new(answer: impl Fn(usize) -> &'static str + Send + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let got: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (kept, number) = (got.clone(), AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut text = Vec::new();
                let mut buffer = [0; 65_536];
                let (head, length) = loop {
                    let n = stream.read(&mut buffer).unwrap_or(0);
                    text.extend_from_slice(&buffer[..n]);
                    let whole = String::from_utf8_lossy(&text).into_owned();
                    if let Some((head, _)) = whole.split_once("\r\n\r\n") {
                        let length = field(head, "content-length").parse::<usize>().expect("a length");
                        break (head.to_owned(), length);
                    }
                    assert!(n > 0, "the request broke off");
                };
                let begin = head.len() + 4;
                while text.len() < begin + length {
                    let n = stream.read(&mut buffer).unwrap_or(0);
                    assert!(n > 0, "the body broke off");
                    text.extend_from_slice(&buffer[..n]);
                }
                let body = String::from_utf8_lossy(&text[begin..]).into_owned();
                kept.lock().push((field(&head, "webhook-id"), body));
                let status = answer(number.fetch_add(1, Ordering::SeqCst));
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nwell");
            }
        });
        Self { url, got }
    }

    fn ids(&self) -> Vec<Vec<u64>> {
        let ids = |body: &str| {
            let events: Vec<serde_json::Value> = serde_json::from_str(body).expect("an array");
            events.iter().map(|event| event["id"].as_u64().expect("an id")).collect()
        };
        self.got.lock().iter().map(|(_, body)| ids(body)).collect()
    }
}

fn field(head: &str, name: &str) -> String {
    let line =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned));
    line.unwrap_or_default()
}

async fn until(what: &str, test: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if test() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 10 s for {what}");
}

#[tokio::test]
async fn a_new_endpoint_gets_what_comes_then_in_order_and_in_batches() {
    let world = World::new();
    world.add(EventKind::Delivered, "acme");
    let receiver = Receiver::new(|_| "204 No Content");
    let engine = world.engine();
    let more = "allow_private = true\ntenant = 'acme'\nevents = ['bounced', 'delivered']\nbatch = 2\n";
    engine.apply(&world.config(&receiver.url, more));
    until("its record", || world.record().is_some()).await;
    for (kind, tenant) in [
        (EventKind::Bounced, "acme"),
        (EventKind::Accepted, "acme"),
        (EventKind::Bounced, "other"),
        (EventKind::Delivered, "acme"),
        (EventKind::Delivered, "acme"),
    ] {
        world.add(kind, tenant);
    }
    until("two requests", || receiver.got.lock().len() >= 2).await;
    assert_eq!(receiver.ids(), [vec![2, 5], vec![6]]);
    until("the cursor", || world.record().is_some_and(|record| record["after"] == 6)).await;
    let ids: Vec<String> = receiver.got.lock().iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids, ["wh_crm_0_2_5", "wh_crm_0_6_6"]);

    // Set back: the same events under another id.
    engine.replay(&name("crm"), Since::Event(EventSeq(2))).await.expect("set back");
    until("the replay", || receiver.got.lock().len() >= 3).await;
    assert_eq!(receiver.ids()[2], [5, 6]);
    assert_eq!(receiver.got.lock()[2].0, "wh_crm_1_5_6");
}

#[tokio::test]
async fn what_is_not_taken_comes_again_first_and_under_the_same_id() {
    let world = World::new();
    let receiver = Receiver::new(|number| if number < 2 { "500 Internal Server Error" } else { "200 OK" });
    let engine = world.engine();
    engine.apply(&world.config(&receiver.url, "allow_private = true\nbatch = 1\n"));
    until("its record", || world.record().is_some()).await;
    world.add(EventKind::Bounced, "acme");
    world.add(EventKind::Bounced, "acme");
    for tries in 1..=2 {
        until("a failure", || engine.status(None)[0].failures > 0 && receiver.got.lock().len() >= tries).await;
        let status = &engine.status(None)[0];
        assert_eq!((status.state, status.last_error.as_deref()), (State::Failing, Some("answered 500: well")));
        engine.resume(&name("crm")).await.expect("resumed");
    }
    until("all", || receiver.got.lock().len() >= 4).await;
    assert_eq!(receiver.ids(), [[1], [1], [1], [2]]);
    let first: Vec<String> = receiver.got.lock().iter().take(3).map(|(id, _)| id.clone()).collect();
    assert!(first.iter().all(|id| id == "wh_crm_0_1_1"), "{first:?}");
    until("well again", || engine.status(None)[0].state == State::Well).await;
}

#[tokio::test]
async fn after_three_days_it_is_dead_with_an_alert_and_comes_back() {
    let world = World::new();
    let receiver = Receiver::new(|number| if number < 3 { "503 Service Unavailable" } else { "200 OK" });
    let engine = world.engine();
    let config = world.config(&receiver.url, "allow_private = true\nevents = ['bounced']\n");
    engine.apply(&config);
    until("its record", || world.record().is_some()).await;
    world.add(EventKind::Bounced, "acme");
    let alerts = || -> Vec<String> {
        let log = world.log.lock();
        let alerts = log.iter().filter(|event| event.event == EventKind::Alert);
        alerts.map(|event| event.reason.as_deref().unwrap_or_default().to_owned()).collect()
    };
    until("the first failure", || world.record().is_some_and(|r| r.get("failing_since").is_some())).await;
    world.clock.advance(Duration::from_secs(3 * 86_400 - 1));
    engine.resume(&name("crm")).await.expect("resumed");
    until("the second", || receiver.got.lock().len() == 2).await;
    assert_eq!(alerts(), Vec::<String>::new());
    world.clock.advance(Duration::from_secs(1));
    // A restart in between does not begin the three days anew.
    drop(engine);
    let engine = world.engine();
    engine.apply(&config);
    until("its death", || engine.status(None)[0].state == State::Dead).await;
    until("the alert", || alerts().len() == 1).await;
    assert!(alerts()[0].starts_with("webhook crm is dead, it took nothing since 2026-11-"), "{:?}", alerts());
    assert_eq!(world.record().expect("kept")["after"], 0, "the cursor waits");
    engine.resume(&name("crm")).await.expect("resumed");
    until("the second alert", || alerts().len() == 2).await;
    assert_eq!(alerts()[1], "webhook crm takes events again");
    assert_eq!(engine.status(None)[0].state, State::Well);
}

#[tokio::test]
async fn an_inner_address_is_refused_and_a_redirect_not_followed() {
    let world = World::new();
    let receiver = Receiver::new(|_| "302 Found\r\nLocation: http://127.0.0.1:1/");
    let engine = world.engine();
    engine.apply(&world.config(&receiver.url, ""));
    let test = engine.test(&name("crm")).await.expect("asked");
    assert!(
        !test.ok && test.error.as_deref().is_some_and(|why| why.starts_with("127.0.0.1 is a loopback")),
        "{test:?}"
    );
    assert_eq!(receiver.got.lock().len(), 0, "nothing was connected to");
    engine.apply(&world.config(&receiver.url, "allow_private = true\n"));
    let test = engine.test(&name("crm")).await.expect("asked");
    assert_eq!(test.error.as_deref(), Some("answered 302, a redirect: none is followed"));
    let unknown = engine.test(&name("other")).await.expect_err("there is none");
    assert_eq!(unknown.to_string(), "there is no webhook other");
}

#[tokio::test]
async fn a_time_is_found_in_the_log() {
    let world = World::new();
    let engine = world.engine();
    let begin = world.clock.now();
    for _ in 0..100 {
        world.add(EventKind::Delivered, "acme");
        world.clock.advance(Duration::from_secs(1));
    }
    for (seconds, want) in [(0, 0), (1, 1), (40, 40), (99, 99), (1_000, 100)] {
        let time = begin.after(Duration::from_secs(seconds));
        let got = engine.before(time, world.reader.events_tail()).await.expect("read");
        assert_eq!(got, EventSeq(want), "{seconds} s");
    }
}

#[tokio::test]
async fn without_its_secret_it_is_broken_and_says_why() {
    let world = World::new();
    let engine = world.engine();
    let config = world.config("https://a.example/", "");
    std::fs::remove_file(world.folder.path().join("secret")).expect("removed");
    engine.apply(&config);
    assert_eq!(engine.status(None)[0].state, State::Broken);
    let error = engine.test(&name("crm")).await.expect_err("broken").to_string();
    assert!(error.contains("No such file"), "{error}");
    engine.apply(&Config::default());
    assert_eq!(engine.status(None), []);
}
