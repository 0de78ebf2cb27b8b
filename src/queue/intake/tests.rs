//! Tests of the door.

use std::sync::Arc;
use std::time::Duration;

use super::testing::{START, Store, config, intake, tenant};
use super::*;
use crate::config::{ByteSize, Config, Pool, Rate};
use crate::event::EventKind;
use crate::seam::clock::Clock;
use crate::store::{Change, SubmitError};
use crate::types::{Class, Mailbox, Notify, Timestamp};

const MESSAGE: &str = "From: a@acme.example\r\nSubject: x\r\n\r\nbody\r\n";

fn submission(tenant: Option<&str>, from: &str, to: &[&str], body: &str) -> Submission {
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    Submission {
        tenant: tenant.map(|t| Name::parse(t).expect("a name")),
        via: Via::Smtp,
        client: Client { protocol: "ESMTP", helo: "c.example".into(), ..Client::default() },
        reverse_path: if from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(mailbox(from)) },
        ret: None,
        envid: None,
        smtputf8: false,
        recipients: to
            .iter()
            .map(|t| EnvelopeRecipient { mailbox: mailbox(t), notify: Notify::Default, orcpt: None })
            .collect(),
        steering: Steering::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

struct Door {
    intake: Arc<Intake>,
    store: Store,
    clock: Clock,
    shared: Arc<arc_swap::ArcSwap<Config>>,
}

fn door(config: Config) -> Door {
    let clock = Clock::manual(START);
    let (intake, store, shared) = intake(config, clock.clone());
    Door { intake, store, clock, shared }
}

impl Door {
    async fn accept(&self, submission: Submission) -> Result<Accepted, Refusal> {
        self.intake.accept(submission).await
    }

    async fn refused(&self, submission: Submission, code: u16, enhanced: &str, words: &str) {
        let refusal = self.accept(submission).await.expect_err(words);
        assert_eq!((refusal.code, refusal.enhanced), (code, enhanced), "{refusal}");
        assert!(refusal.text.contains(words), "{refusal}");
    }
}

fn with_quota(change: impl FnOnce(&mut crate::config::Quota)) -> Config {
    let mut config = config();
    change(&mut config.tenants[0].quota);
    config
}

#[tokio::test]
async fn a_message_is_stored_whole() {
    let door = door(config());
    let message = format!("X-Posthaste-Tag: t1,t2\r\nX-Posthaste-Campaign: spring\r\nBcc: z@z.example\r\n{MESSAGE}");
    let to = ["b@B.example", "c@d.example", "B@b.example"];
    let accepted = door.accept(submission(Some("acme"), "a@acme.example", &to, &message)).await.expect("valid");
    let stored = door.store.messages().pop().expect("one message");
    let envelope = &stored.message.envelope;
    assert_eq!((envelope.id, envelope.tenant.as_str()), (accepted.id, "acme"));
    assert_eq!(envelope.recipients.len(), 2, "the address given twice is one recipient");
    assert_eq!(envelope.from_domain.as_ref().map(|d| d.as_str()), Some("acme.example"));
    let queues: Vec<String> = stored.deliveries.iter().map(|d| d.queue.to_string()).collect();
    assert_eq!(queues, ["acme/default/transactional/spring/b.example", "acme/default/transactional/spring/d.example"]);
    assert_eq!(stored.deliveries[1].entry.key.delivery.index, 1);
    assert_eq!(stored.deliveries[0].entry.key.due, START);
    assert_eq!(stored.deliveries[0].entry.expires, START.after(Duration::from_secs(4 * 86_400)));
    assert_eq!((stored.event.event, stored.event.recipients), (EventKind::Accepted, Some(2)));
    assert_eq!(stored.event.tags.len(), 2);
    let body = String::from_utf8(stored.message.body.to_vec()).expect("ASCII");
    assert!(body.starts_with("Received: from c.example") || body.starts_with("Received: by mta.example"), "{body}");
    assert!(!body.contains(" for <"), "recipients are not told of each other");
    assert!(body.ends_with(MESSAGE) && !body.contains("Bcc") && !body.contains("X-Posthaste"), "{body}");
    assert!(body.contains(&format!("Message-ID: <{}@mta.example>\r\n", accepted.id)));
    assert_eq!(door.intake.usage().tenant(&envelope.tenant).queued(), (2, 2 * body.len() as u64));
}

#[tokio::test]
async fn senders_stay_in_their_domains() {
    let door = door(config());
    let to = ["b@b.example"];
    let by =
        |tenant, from: &str, header_from: &str| submission(tenant, from, &to, &format!("From: {header_from}\r\n\r\n"));
    let named = "tenant acme may not send from the domain beta.example";
    door.refused(by(Some("acme"), "a@beta.example", "a@acme.example"), 550, "5.7.1", named).await;
    door.refused(by(Some("acme"), "a@acme.example", "a@beta.example"), 550, "5.7.1", named).await;
    door.refused(by(Some("acme"), "a@acme.example", "a@acme.example, b@beta.example"), 550, "5.7.1", named).await;
    door.refused(by(Some("acme"), "a@acme.example", "a@badacme.example"), 550, "5.7.1", "badacme.example").await;
    door.refused(by(None, "a@stranger.example", "a@acme.example"), 550, "5.7.1", "stranger.example").await;
    door.refused(by(None, "", "a@stranger.example"), 550, "5.7.1", "stranger.example").await;
    door.refused(by(Some("gone"), "a@acme.example", "a@acme.example"), 550, "5.7.1", "tenant gone").await;
    // A bounce domain is one of reverse-paths only.
    door.refused(by(Some("acme"), "a@acme.example", "a@bounce.acme.test"), 550, "5.7.1", "bounce.acme.test").await;
    door.store.take();
    for (tenant, from, header_from, want) in [
        (Some("acme"), "a@sub.acme.example", "a@ACME.example", "acme"),
        (Some("acme"), "x@bounce.acme.test", "a@acme.example", "acme"),
        (Some("acme"), "", "a@acme.example", "acme"),
        (None, "a@beta.example", "a@beta.example", "beta"),
        (None, "", "a@beta.example", "beta"),
    ] {
        door.accept(by(tenant, from, header_from)).await.expect("allowed");
        assert_eq!(door.store.messages()[0].message.envelope.tenant.as_str(), want);
    }
}

#[tokio::test]
async fn the_most_exact_domain_tells_the_tenant() {
    let mut config = config();
    config.tenants.push(tenant("any", &["*"]));
    config.tenants.push(tenant("sub", &["sub.acme.example"]));
    let door = door(config);
    let policy = door.intake.policies().current();
    for (domain, want) in [("x.sub.acme.example", "sub"), ("y.acme.example", "acme"), ("other.example", "any")] {
        let domain = crate::types::Domain::parse(domain).expect("a domain");
        assert_eq!(policy.tenant_of_domain(&domain).map(|t| t.name.as_str()), Some(want));
    }
}

#[tokio::test]
async fn pools_and_classes_follow_the_steering() {
    let mut config = config();
    let pool = |name: &str| Pool { name: Name::parse(name).expect("a name"), sources: Vec::new() };
    config.pools = vec![pool("first"), pool("second")];
    let door = door(config);
    let send = |head: &str| submission(Some("acme"), "a@acme.example", &["b@b.example"], &format!("{head}{MESSAGE}"));
    door.accept(send("")).await.expect("valid");
    assert_eq!(door.store.messages()[0].deliveries[0].queue.pool.as_str(), "first");
    door.accept(send("X-Posthaste-Pool: second\r\nX-Posthaste-Class: marketing\r\n")).await.expect("valid");
    let queue = door.store.messages().remove(0).deliveries.remove(0).queue;
    assert_eq!((queue.pool.as_str(), queue.class), ("second", Class::Marketing));
    door.refused(send("X-Posthaste-Pool: third\r\n"), 550, "5.6.0", "there is no pool third").await;
}

/// A tenant whose mail must not go out from another's addresses.
#[tokio::test]
async fn a_tenant_uses_the_pools_that_are_given_to_it() {
    let mut config = config();
    let name = |name: &str| Name::parse(name).expect("a name");
    let pool = |text: &str| Pool { name: name(text), sources: Vec::new() };
    config.pools = vec![pool("first"), pool("second"), pool("third")];
    config.tenants[0].pool = Some(name("second"));
    config.tenants[0].pools = Some(vec![name("first")]);
    let door = door(config);
    let send = |head: &str| submission(Some("acme"), "a@acme.example", &["b@b.example"], &format!("{head}{MESSAGE}"));
    for (head, want) in
        [("", "second"), ("X-Posthaste-Pool: second\r\n", "second"), ("X-Posthaste-Pool: first\r\n", "first")]
    {
        door.accept(send(head)).await.expect("allowed");
        assert_eq!(door.store.messages()[0].deliveries[0].queue.pool.as_str(), want);
    }
    let told = "X-Posthaste-Pool: tenant acme may not use pool third, only second, first";
    door.refused(send("X-Posthaste-Pool: third\r\n"), 550, "5.7.1", told).await;
    // By HTTP it is a member of the request that is wrong, not a header that nobody wrote.
    let mut http = send("");
    http.steering.pool = Some(name("third"));
    let refusal = door.intake.accept(http).await.expect_err("refused");
    assert_eq!((refusal.field, refusal.http_status), (Some("pool"), 403));
    assert!(refusal.text.starts_with("pool: tenant acme may not use pool third"), "{refusal}");
}

#[tokio::test]
async fn loops_and_sizes_are_refused() {
    let mut config = config();
    config.smtp.max_received = 3;
    config.smtp.max_message_size = ByteSize(2_000);
    let door = door(config);
    let send = |body: &str| submission(Some("acme"), "a@acme.example", &["b@b.example"], body);
    door.accept(send(&format!("{}{MESSAGE}", "Received: x\r\n".repeat(3)))).await.expect("as many as allowed");
    door.refused(send(&format!("{}{MESSAGE}", "Received: x\r\n".repeat(4))), 554, "5.4.6", "loop").await;
    door.refused(send(&format!("{MESSAGE}{}", "x".repeat(2_000))), 552, "5.3.4", "larger").await;
    let mut http = send("From: a@acme.example\r\n\r\na\n.\nb");
    http.via = Via::Http;
    door.refused(http, 550, "5.6.0", "bare LF").await;
}

#[tokio::test]
async fn eight_bit_and_smtputf8_are_told_apart() {
    let door = door(config());
    for (smtputf8, head, body, want_utf8, want_eight) in [
        (false, "X: a", "a", false, false),
        (true, "X: a", "a", false, false),
        (false, "X: \u{fc}", "a", false, true),
        (true, "X: \u{fc}", "a", true, false),
        (true, "X: a", "\u{fc}", false, true),
    ] {
        let message = format!("From: a@acme.example\r\n{head}\r\n\r\n{body}\r\n");
        let mut s = submission(Some("acme"), "a@acme.example", &["b@b.example"], &message);
        s.smtputf8 = smtputf8;
        door.accept(s).await.expect("valid");
        let envelope = door.store.messages().remove(0).message.envelope.clone();
        assert_eq!((envelope.smtputf8, envelope.eight_bit), (want_utf8, want_eight), "{smtputf8} {head} {body}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_store_gives_the_share_back() {
    let door = door(with_quota(|q| q.per_day = Some(1)));
    let send = || submission(Some("acme"), "a@acme.example", &["b@b.example"], MESSAGE);
    for (error, code, enhanced) in [
        (SubmitError::LowSpace { free: 1, min_free: 2 }, 452, "4.3.1"),
        (SubmitError::Failed("x".into()), 451, "4.3.0"),
        (SubmitError::ShuttingDown, 421, "4.3.2"),
    ] {
        *door.store.answer.lock() = Some(error);
        door.refused(send(), code, enhanced, "later").await;
    }
    *door.store.answer.lock() = None;
    let name = Name::parse("acme").expect("a name");
    assert_eq!(door.intake.usage().tenant(&name).queued(), (0, 0));
    door.accept(send()).await.expect("the quota of one is still there");
}

#[tokio::test]
async fn the_gate_refuses() {
    let door = door(config());
    let send = || submission(Some("acme"), "a@acme.example", &["b@b.example"], MESSAGE);
    for (state, code, enhanced) in [
        (GateState::LowSpace, 452, "4.3.1"),
        (GateState::Failed, 451, "4.3.0"),
        (GateState::ShuttingDown, 421, "4.3.2"),
    ] {
        door.intake.gate().set(state);
        door.refused(send(), code, enhanced, "later").await;
    }
    door.intake.gate().set(GateState::Open);
    door.accept(send()).await.expect("open again");
}

#[tokio::test]
async fn quotas_of_the_queue() {
    let door = door(with_quota(|q| q.queued_messages = Some(2)));
    let send = |to: &[&str]| submission(Some("acme"), "a@acme.example", to, MESSAGE);
    door.refused(send(&["a@b.example", "b@b.example", "c@b.example"]), 452, "4.3.1", "tenant acme").await;
    door.accept(send(&["a@b.example", "b@b.example"])).await.expect("two are allowed");
    door.refused(send(&["a@b.example"]), 452, "4.3.1", "2 queued recipients").await;
    let name = Name::parse("acme").expect("a name");
    door.intake.usage().sub(&name, 1, 1);
    door.accept(send(&["a@b.example"])).await.expect("one was delivered");
    door.intake.usage().sub(&name, 100, u64::MAX);
    assert_eq!(door.intake.usage().tenant(&name).queued(), (0, 0));
}

#[tokio::test]
async fn quota_of_the_rate() {
    let rate = Rate { count: 2, per: Duration::from_secs(1) };
    let door = door(with_quota(|q| q.submission_rate = Some(rate)));
    let send = || submission(Some("acme"), "a@acme.example", &["b@b.example"], MESSAGE);
    door.accept(send()).await.expect("first");
    door.accept(send()).await.expect("second");
    door.refused(send(), 451, "4.7.1", "2/s").await;
    door.clock.advance(Duration::from_millis(500));
    door.accept(send()).await.expect("half a second later, one more");
    door.refused(send(), 451, "4.7.1", "2/s").await;
}

/// The bug to be found: a crash lets a tenant send its day's quota again.
#[tokio::test]
async fn the_day_quota_survives_a_crash_and_ends_at_midnight() {
    let door = door(with_quota(|q| q.per_day = Some(25)));
    let send = || submission(Some("acme"), "a@acme.example", &["b@b.example"], MESSAGE);
    let mut state = std::collections::BTreeMap::new();
    let mut committed = |store: &Store| {
        for change in store.take() {
            match change {
                Change::PutState { key, value } => drop(state.insert(key, value)),
                Change::RemoveState { key } => drop(state.remove(&key)),
                _ => {}
            }
        }
        state.clone()
    };
    for _ in 0..11 {
        door.accept(send()).await.expect("within the quota");
    }
    let on_disk = committed(&door.store);
    assert_eq!(on_disk.len(), 1);

    let after_crash = super::tests::door(with_quota(|q| q.per_day = Some(25)));
    for (key, value) in &on_disk {
        assert!(after_crash.intake.usage().restore(key, value, START));
    }
    let mut sent = 11;
    while after_crash.accept(send()).await.is_ok() {
        sent += 1;
    }
    assert!((16..=25).contains(&sent), "{sent} of 25");
    after_crash.refused(send(), 452, "4.7.1", "25 recipients a day").await;

    after_crash.clock.advance(Duration::from_secs(86_400));
    let before = committed(&after_crash.store);
    after_crash.accept(send()).await.expect("another day");
    let after = committed(&after_crash.store);
    assert_eq!((before.len(), after.len()), (1, 1), "the old day's record goes");
    assert_ne!(before.keys().next(), after.keys().next());
    assert!(!after_crash.intake.usage().restore(b"quota/acme/x", b"", Timestamp::ZERO));
}

#[tokio::test]
async fn rejected_events_are_for_known_tenants_and_bounded() {
    let door = door(config());
    for tenant in [None, Some("gone")] {
        let s = submission(tenant, "a@stranger.example", &["b@b.example"], MESSAGE);
        door.accept(s).await.expect_err("a stranger");
    }
    assert!(door.store.take().is_empty());
    for _ in 0..2 * REJECTED_EVENTS_PER_MINUTE {
        let s = submission(Some("acme"), "a@beta.example", &["b@b.example"], MESSAGE);
        door.accept(s).await.expect_err("not acme's");
    }
    let events = door.store.take();
    assert_eq!(events.len(), REJECTED_EVENTS_PER_MINUTE as usize);
    assert!(matches!(&events[0], Change::Event(e) if e.event == EventKind::Rejected && e.message_id.is_none()));
}

#[tokio::test]
async fn a_reload_is_seen_at_once() {
    let door = door(config());
    let send = || submission(Some("acme"), "a@new.example", &["b@b.example"], "From: a@new.example\r\n\r\n");
    door.accept(send()).await.expect_err("not acme's");
    let mut changed = config();
    changed.tenants[0].domains.push("new.example".into());
    door.shared.store(Arc::new(changed));
    door.accept(send()).await.expect("acme's now");
}

#[tokio::test]
async fn suppressed_recipients_are_told_and_not_queued() {
    use crate::suppression::{Reason, Scope, testing};
    let clock = Clock::manual(START);
    let (intake, store, _) = intake(config(), clock.clone());
    let (suppressions, _) = testing::suppressions(clock);
    let acme = Name::parse("acme").expect("a name");
    for (reason, address) in [(Reason::HardBounce, "gone@x.example"), (Reason::Unsubscribe, "left@x.example")] {
        let address = Mailbox::parse(address).expect("an address");
        let entry = suppressions.entry(Scope::Tenant(acme.clone()), reason, &address, "test");
        suppressions.add(entry).await.expect("added");
    }
    let metrics = crate::metrics::suppression::SuppressionMetrics::register(&crate::metrics::Registry::new());
    let intake = Arc::into_inner(intake).expect("one").with_suppressions(suppressions, metrics.clone());
    let accept = async |class: Class, to: &[&str]| {
        let mut message = submission(Some("acme"), "a@acme.example", to, MESSAGE);
        message.steering.class = Some(class);
        let accepted = intake.accept(message).await.expect("taken");
        let suppressed = accepted.suppressed.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (mut queued, mut events) = (Vec::new(), Vec::new());
        for change in store.take() {
            match change {
                Change::Accept(new) => {
                    assert_eq!(
                        new.event.recipients,
                        Some(to.len() as u32),
                        "accepted counts all: each ends with one event"
                    );
                    assert!(new.deliveries.iter().all(|d| d.entry.recipients == new.deliveries.len() as u32));
                    let recipients = &new.message.envelope.recipients;
                    let of = |index: u32| recipients[index as usize].mailbox.to_string();
                    queued.extend(new.deliveries.iter().map(|d| of(d.entry.key.delivery.index)));
                }
                Change::Event(event) => {
                    assert_eq!((event.event, event.message_id), (EventKind::Suppressed, Some(accepted.id)));
                    events.push(event.recipient.expect("whose").to_string());
                }
                _ => {}
            }
        }
        assert_eq!(suppressed, events);
        (queued, suppressed)
    };
    let all = ["a@x.example", "Gone@x.example", "left@x.example"];
    assert_eq!(accept(Class::Marketing, &all).await.0, ["a@x.example"]);
    let (queued, suppressed) = accept(Class::Transactional, &all).await;
    assert_eq!(queued, ["a@x.example", "left@x.example"], "an unsubscribe does not stop a receipt");
    assert_eq!(suppressed, ["Gone@x.example"]);
    assert_eq!(accept(Class::Transactional, &["gone@x.example"]).await.0, [""; 0], "taken, and at its end");
    assert_eq!(metrics.suppressed.with_label_values(&["hard_bounce"]).get(), 3);
}
