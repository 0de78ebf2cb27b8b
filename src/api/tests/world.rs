//! A daemon in memory: every port of the API, with what a test wants to see or set.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::super::ports::*;
use super::super::{Api, Parts};
use crate::campaign::Campaigns;
use crate::campaign::contacts::Contacts;
use crate::config::{ApiKey, Config, Http, Role, Tenant};
use crate::event::{Event, EventKind, Severity, SmtpReply};
use crate::metrics::{Registry, register_all};
use crate::queue::admin::{
    AdminHandle, Changed, Command, CommandError, EntryInfo, ExplainStep, Explanation, QueueInfo, Summary, Suspension,
};
use crate::queue::intake::{Accepted, Refusal, Submission};
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, LedgerRequest, ReadError, StoredMessage};
use crate::types::*;

pub const ADMIN: &str = "key-admin";
pub const NODE_READ: &str = "key-node-read";
pub const ACME_READ: &str = "key-acme-read";
pub const ACME_SEND: &str = "key-acme-send";
pub const OTHER_SEND: &str = "key-other-send";

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a valid name")
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("a valid address")
}

/// What the stand-ins remember.
#[derive(Default)]
pub struct Memory {
    pub accepted: Vec<Submission>,
    pub drafts: Vec<Draft>,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub events: Vec<Event>,
    pub gap: Option<(EventSeq, EventSeq)>,
    pub messages: Vec<Arc<StoredMessage>>,
    pub queues: Vec<QueueInfo>,
    pub suspensions: Vec<Suspension>,
    pub commands: Vec<String>,
    pub health: Health,
    pub refuse: Option<Refusal>,
    pub accept_takes: Duration,
    pub trace: Vec<mpsc::Sender<String>>,
}

#[derive(Clone)]
pub struct Fake {
    pub memory: Arc<Mutex<Memory>>,
    pub last: watch::Sender<EventSeq>,
    clock: Clock,
}

pub struct World {
    pub api: Api,
    pub fake: Fake,
    pub clock: Clock,
    config: Arc<ArcSwap<Config>>,
}

/// An answer.
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

fn key(secret: &str, role: Role) -> ApiKey {
    let sha256 = Sha256::digest(secret).iter().map(|b| format!("{b:02x}")).collect();
    ApiKey { name: name(secret), sha256, role }
}

fn tenant(text: &str, keys: Vec<ApiKey>) -> Tenant {
    Tenant {
        name: name(text),
        domains: vec![format!("{text}.example")],
        bounce_domain: None,
        pool: None,
        pools: None,
        class: Class::Transactional,
        smtp_users: Vec::new(),
        api_keys: keys,
        quota: crate::config::Quota::default(),
    }
}

impl World {
    pub fn new() -> Self {
        Self::at(PathBuf::from("/nonexistent"))
    }

    /// With campaigns, for tests of theirs.
    pub fn with(campaigns: Campaigns) -> Self {
        Self::build(PathBuf::from("/nonexistent"), Some(campaigns))
    }

    /// With a data folder, for tests with listeners.
    pub fn at(data_dir: PathBuf) -> Self {
        Self::build(data_dir, None)
    }

    fn build(data_dir: PathBuf, campaigns: Option<Campaigns>) -> Self {
        let http = Http {
            address: ([127, 0, 0, 1], 0).into(),
            api_keys: vec![key(ADMIN, Role::Admin), key(NODE_READ, Role::Read)],
            max_body: crate::config::ByteSize(64 << 10),
            ..Http::default()
        };
        let config = Config {
            hostname: "mta1.test".into(),
            data_dir,
            http: Some(http),
            tenants: vec![
                tenant("acme", vec![key(ACME_READ, Role::Read), key(ACME_SEND, Role::Send)]),
                tenant("other", vec![key(OTHER_SEND, Role::Send)]),
            ],
            ..Config::default()
        };
        let config = Arc::new(ArcSwap::from_pointee(config));
        let clock = Clock::manual(Timestamp::from_millis(1_795_456_549_000));
        let memory = Memory { queues: queues(clock.now()), ..Memory::default() };
        let fake =
            Fake { memory: Arc::new(Mutex::new(memory)), last: watch::Sender::new(EventSeq(0)), clock: clock.clone() };
        let registry = Registry::new();
        let api = Api::new(Parts {
            config: Arc::clone(&config),
            clock: clock.clone(),
            intake: Arc::new(fake.clone()),
            read: Arc::new(fake.clone()),
            ledger: fake.ledger(),
            queues: fake.scheduler(),
            contacts: {
                let store = crate::campaign::recipients::testing::FakeStore::new();
                Contacts::new(store.ledger, store.reader, clock.clone())
            },
            compose: Arc::new(fake.clone()),
            control: Arc::new(fake.clone()),
            metrics: Arc::new(register_all(&registry)),
            registry,
            alerts: Default::default(),
            webhooks: None,
            suppressions: crate::suppression::testing::suppressions(clock.clone()).0,
            campaigns,
            reports: None,
        });
        Self { api, fake, clock, config }
    }

    pub fn config(&self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(&self.config.load());
        change(&mut config);
        self.config.store(Arc::new(config));
    }

    pub fn health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.fake.memory.lock().health);
    }

    pub async fn get(&self, path: &str, key: Option<&str>) -> Got {
        self.request(Method::GET, path, key, &[], Body::empty()).await
    }

    pub async fn call(&self, method: Method, path: &str, key: Option<&str>, media: &str, body: String) -> Got {
        self.request(method, path, key, &[("content-type", media)], Body::from(body)).await
    }

    pub async fn post(&self, path: &str, key: &str, body: Value) -> Got {
        self.call(Method::POST, path, Some(key), "application/json", body.to_string()).await
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a valid request");
        let response = self.api.router().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        Got {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            json: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }
}

impl Fake {
    /// Adds an event to the log, as a commit would.
    pub fn event(&self, kind: EventKind, tenant: &str, fill: impl FnOnce(&mut Event)) -> EventSeq {
        let mut memory = self.memory.lock();
        let seq = EventSeq(self.last.borrow().0 + 1);
        let mut event = Event::new(kind, self.clock.now(), name(tenant));
        event.seq = seq;
        fill(&mut event);
        memory.events.push(event);
        drop(memory);
        self.last.send_replace(seq);
        seq
    }

    fn ledger(&self) -> Ledger {
        let (ledger, mut requests) = Ledger::channel();
        let memory = Arc::clone(&self.memory);
        tokio::spawn(async move {
            while let Some(request) = requests.submits.recv().await {
                if let LedgerRequest::Submit { changes, reply, .. } = request {
                    apply(&memory, changes);
                    let _ = reply.send(Ok(()));
                }
            }
        });
        ledger
    }

    fn scheduler(&self) -> AdminHandle {
        let (sender, mut commands) = mpsc::channel(16);
        let memory = Arc::clone(&self.memory);
        let clock = self.clock.clone();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                answer(command, &mut memory.lock(), clock.now());
            }
        });
        AdminHandle(sender)
    }
}

fn apply(memory: &Mutex<Memory>, changes: Vec<Change>) {
    let mut memory = memory.lock();
    for change in changes {
        match change {
            Change::PutState { key, value } => drop(memory.state.insert(key, value)),
            Change::RemoveState { key } => drop(memory.state.remove(&key)),
            _ => {}
        }
    }
}

fn queues(now: Timestamp) -> Vec<QueueInfo> {
    let queue = |tenant: &str, domain: &str, count: u64, held: Option<&str>| QueueInfo {
        key: QueueKey {
            class: Class::Transactional,
            tenant: name(tenant),
            campaign: None,
            pool: name("main"),
            domain: Domain::parse(domain).expect("valid"),
        },
        count,
        bytes: count * 4_096,
        oldest: Timestamp::from_millis(now.as_millis() - 125_000),
        next_due: now.after(Duration::from_secs(290)),
        site: Some("mx.example".into()),
        provider: Some("other".into()),
        held_by: held.map(str::to_owned),
        held_until: held.map(|_| now.after(Duration::from_secs(290))),
    };
    vec![queue("acme", "slow.example", 2, Some("retry due")), queue("other", "fast.example", 1, None)]
}

fn answer(command: Command, memory: &mut Memory, now: Timestamp) {
    let changed = Changed { queues: 1, recipients: 2, in_flight: 1 };
    match command {
        Command::Summary { top, reply } => {
            let queues = &memory.queues;
            let summary = Summary {
                queues: queues.len() as u64,
                recipients: queues.iter().map(|q| q.count).sum(),
                bytes: queues.iter().map(|q| q.bytes).sum(),
                in_flight: 1,
                unsettled: 0,
                connections: 1,
                oldest: queues.iter().map(|q| q.oldest).min(),
                held: vec![("retry due".into(), 2)],
                top: queues.iter().take(top).cloned().collect(),
                suspensions: memory.suspensions.clone(),
            };
            let _ = reply.send(Ok(summary));
        }
        Command::List { matcher, limit, reply } => {
            let matching = memory.queues.iter().filter(|q| matcher.matches_queue(&q.key));
            let _ = reply.send(Ok(matching.take(limit).cloned().collect()));
        }
        Command::Show { matcher, reply, .. } => {
            memory.commands.push(format!("show {}", serde_json::to_string(&matcher).expect("json")));
            let message = memory.messages.first().map(|m| m.envelope.id);
            let entry = |id| EntryInfo {
                message_id: id,
                index: 0,
                recipient: Some("b@slow.example".into()),
                sender: Some("a@acme.example".into()),
                accepted: now,
                due: now.after(Duration::from_secs(60)),
                expires: now.after(Duration::from_secs(86_400)),
                attempts: 1,
                last_reply: Some("450 \u{1b}[31mlater".into()),
                size: 4_096,
            };
            let _ = reply.send(Ok(message.into_iter().map(entry).collect()));
        }
        Command::Explain { reply, .. } => {
            let step = ExplainStep {
                name: "site connections".into(),
                pass: false,
                detail: "3 of 3".into(),
                set_by: Some("shaping.default.connections".into()),
                until: None,
            };
            let _ = reply.send(Ok(vec![Explanation {
                queue: memory.queues[0].clone(),
                route: "mx.example (MX 10)".into(),
                steps: vec![step],
                verdict: "waits for a connection to mx.example".into(),
            }]));
        }
        Command::Suspend { matcher, reason, by, until, reply } => {
            let id = memory.suspensions.len() as u64 + 1;
            let made = Suspension { id, matcher, reason, by, since: now, until };
            memory.suspensions.push(made.clone());
            let _ = reply.send(Ok(made));
        }
        Command::Resume { id, matcher, reply } => {
            let meant = |s: &Suspension| Some(s.id) == id || Some(&s.matcher) == matcher.as_ref();
            let (ended, kept) = std::mem::take(&mut memory.suspensions).into_iter().partition(meant);
            memory.suspensions = kept;
            let _ = reply.send(Ok(ended));
        }
        Command::Cancel { reply, .. } => drop(reply.send(Ok(changed))),
        Command::SetCampaign { reply, .. } => drop(reply.send(Ok(0))),
        Command::Retry { matcher, reply } => {
            memory.commands.push(format!("retry {}", serde_json::to_string(&matcher).expect("json")));
            let _ = reply.send(Ok(changed));
        }
        Command::Purge { matcher, reason, by, reply } => {
            let matcher = serde_json::to_string(&matcher).expect("json");
            memory.commands.push(format!("purge {matcher} {reason} {by}"));
            let _ = reply.send(Ok(changed));
        }
        Command::Reroute { pool, reply, .. } => {
            let unknown = CommandError::NotFound(format!("pool {pool}"));
            let _ = reply.send(if pool.as_str() == "main" { Ok(changed) } else { Err(unknown) });
        }
        Command::TraceSmtp { lines, .. } => memory.trace.push(lines),
        Command::Trouble { reply } => drop(reply.send(Ok(crate::queue::admin::Trouble::default()))),
        Command::Usage { reply } => drop(reply.send(Ok(Vec::new()))),
        Command::InFlight { reply } => drop(reply.send(Ok(Vec::new()))),
    }
}

impl AcceptMessage for Fake {
    fn accept_with(&self, submission: Submission, extra: Extra) -> Fut<'_, Result<Accepted, Refusal>> {
        Box::pin(async move {
            let (takes, refuse) = {
                let memory = self.memory.lock();
                (memory.accept_takes, memory.refuse.clone())
            };
            tokio::time::sleep(takes).await;
            if let Some(refusal) = refuse {
                return Err(refusal);
            }
            let count = self.memory.lock().accepted.len() as u128;
            let id = MessageId::new(self.clock.now(), count);
            let accepted = Accepted { id, suppressed: Vec::new() };
            apply(&self.memory, extra(&accepted));
            self.memory.lock().accepted.push(submission);
            Ok(accepted)
        })
    }
}

impl ReadSide for Fake {
    fn events(&self, after: EventSeq, limit: usize, tenant: Option<Name>) -> Fut<'_, Result<EventPage, ReadError>> {
        let memory = self.memory.lock();
        let gap = memory.gap.filter(|gap| gap.1 > after);
        let mut page = EventPage { next: after, gap, ..EventPage::default() };
        for event in memory.events.iter().filter(|e| e.seq > after) {
            if page.events.len() == limit {
                page.more = true;
                break;
            }
            page.next = event.seq;
            if tenant.as_ref().is_none_or(|t| *t == event.tenant) {
                page.events.push(event.clone());
            }
        }
        Box::pin(async move { Ok(page) })
    }

    fn trace_address(
        &self,
        tenant: Option<Name>,
        address: Mailbox,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Event>, ReadError>> {
        let memory = self.memory.lock();
        let meant = |e: &&Event| {
            tenant.as_ref().is_none_or(|t| *t == e.tenant)
                && e.recipient.as_ref().is_some_and(|r| r.canonical() == address.canonical())
        };
        let found = memory.events.iter().rev().filter(meant).take(limit).cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn trace_message(&self, id: MessageId, limit: usize) -> Fut<'_, Result<Vec<Event>, ReadError>> {
        let memory = self.memory.lock();
        let found = memory.events.iter().filter(|e| e.message_id == Some(id)).take(limit).cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn message(&self, id: MessageId) -> Fut<'_, Result<Option<Arc<StoredMessage>>, ReadError>> {
        let found = self.memory.lock().messages.iter().find(|m| m.envelope.id == id).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn state(&self, prefix: Vec<u8>, limit: usize) -> Fut<'_, Result<StateRecords, ReadError>> {
        let memory = self.memory.lock();
        let found = memory.state.iter().filter(|(k, _)| k.starts_with(&prefix)).take(limit);
        let found = found.map(|(k, v)| (Bytes::from(k.clone()), Bytes::from(v.clone()))).collect();
        Box::pin(async move { Ok(found) })
    }

    fn state_get(&self, key: Vec<u8>) -> Fut<'_, Result<Option<Bytes>, ReadError>> {
        let found = self.memory.lock().state.get(&key).cloned().map(Bytes::from);
        Box::pin(async move { Ok(found) })
    }

    fn last_sequence(&self) -> watch::Receiver<EventSeq> {
        self.last.subscribe()
    }
}

impl Compose for Fake {
    fn compose(&self, draft: Draft) -> Result<Bytes, ComposeError> {
        let text = draft.text.clone().unwrap_or_default();
        let body = format!("Subject: {}\r\n\r\n{text}", draft.subject);
        self.memory.lock().drafts.push(draft);
        Ok(body.into())
    }
}

impl Control for Fake {
    fn reload(&self) -> Fut<'_, Result<Vec<String>, ControlError>> {
        Box::pin(async {
            Err(ControlError::Refused("posthaste.toml:3:1: unknown key `hostnam`, did you mean `hostname`?".into()))
        })
    }

    fn backup(&self, dir: PathBuf) -> Fut<'_, Result<BackupDone, ControlError>> {
        Box::pin(async move { Ok(BackupDone { dir, bytes: 5_000, last_sequence: EventSeq(7) }) })
    }

    fn drain(&self) -> Fut<'_, Result<(), ControlError>> {
        self.memory.lock().health.draining = true;
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> Health {
        self.memory.lock().health.clone()
    }
}

/// An event with every member set.
pub fn full_event() -> Event {
    let mut event = Event::new(EventKind::Deferred, Timestamp::from_millis(1_795_456_549_000), name("acme"));
    event.seq = EventSeq(9);
    event.message_id = Some(MessageId::new(Timestamp::from_millis(1_795_456_540_000), 1));
    event.recipient = Some(mailbox("b@slow.example"));
    event.sender = Some("a@acme.example".into());
    event.recipients = Some(1);
    event.size = Some(4_096);
    event.campaign = Some(name("spring"));
    event.class = Some(Class::Marketing);
    event.tags = vec![name("t1")];
    event.metadata = Some(serde_json::value::RawValue::from_string("{\"k\":1}".into()).expect("json"));
    event.domain = Some(Domain::parse("slow.example").expect("valid"));
    event.provider = Some("other".into());
    event.mx = Some("mx.slow.example [192.0.2.25]".into());
    event.source = Some(name("ip1"));
    event.source_ip = Some([192, 0, 2, 10].into());
    event.pool = Some(name("main"));
    event.tls = Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".into());
    event.attempt = Some(1);
    event.took_ms = Some(9_000);
    event.retry_at = Some(Timestamp::from_millis(1_795_456_609_000));
    event.smtp = Some(SmtpReply { code: 450, enhanced: Some("4.2.1".into()), text: "try, \"later\"".into() });
    event.severity = Some(Severity::Temporary);
    event.reason = Some("rcpt".into());
    event.remote = Some(true);
    event.via = Some("http".into());
    event.client = Some("crm".into());
    event.alert = Some(Box::new(crate::event::AlertNote {
        name: "disk_free".into(),
        state: "firing".into(),
        subject: "node".into(),
        since: Timestamp::from_millis(1_795_456_549_000),
        cause: "full".into(),
        fix: "free some".into(),
    }));
    event
}
