use super::*;
use crate::dkim::{KeySpec, PrivateKey, SignFor, keygen};
use crate::metrics::Registry;
use crate::store::{Envelope, Via};
use crate::types::{Class, Domain, Name, ReversePath};

const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);
const PLAIN: &str = "From: a@acme.example\r\nSubject: x\r\n\r\nhello\r\n";
const EIGHT_BIT: &str = "From: a@acme.example\r\nSubject: x\r\n\r\nh\u{e4}llo\r\n";
const ALL: PeerLimits = PeerLimits { eight_bit: true, smtputf8: true, size_max: 0 };

/// Serves one message, whatever the id.
struct One(Option<Arc<StoredMessage>>);

impl MessageSource for One {
    fn message(&self, _id: MessageId) -> LocalFuture<'_, Result<Option<Arc<StoredMessage>>, Failure>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fn stored(body: &str) -> StoredMessage {
    StoredMessage {
        envelope: Envelope {
            id: MessageId::new(NOW, 1),
            tenant: Name::parse("acme").expect("valid"),
            class: Class::Transactional,
            campaign: None,
            tags: Vec::new(),
            metadata: None,
            reverse_path: ReversePath::Null,
            ret: None,
            envid: None,
            recipients: Vec::new(),
            accepted: NOW,
            expires: NOW,
            smtputf8: false,
            eight_bit: !body.is_ascii(),
            from_domain: Some(Domain::parse("acme.example").expect("valid")),
            via: Via::Smtp,
            client: None,
        },
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn key(selector: &str, algorithm: Algorithm, usable: bool) -> KeySpec {
    let private = match usable {
        true => {
            let pem = keygen(algorithm).expect("a key").private_pem;
            Ok(PrivateKey::from_pem(pem.as_bytes(), algorithm).expect("parses"))
        }
        false => Err("no such file".into()),
    };
    let domain = Domain::parse("acme.example").expect("valid");
    KeySpec {
        key: Key { domain, selector: selector.into(), algorithm, active_from: None, private },
        sign_for: vec![SignFor::Own],
    }
}

fn maker(message: Option<StoredMessage>, keys: Vec<KeySpec>) -> StoredContent<One> {
    let ring = Arc::new(ArcSwap::from_pointee(KeyRing::new(keys)));
    let pool = Arc::new(SignPool::with_threads(1).expect("a thread"));
    let metrics = DkimMetrics::register(&Registry::new());
    StoredContent::new(One(message.map(Arc::new)), ring, pool, Clock::manual(NOW), metrics)
}

fn job(body: &str) -> Job {
    Job {
        id: 1,
        message: MessageId::new(NOW, 1),
        reverse_path: ReversePath::Null,
        ret: None,
        envid: None,
        smtputf8: false,
        eight_bit: !body.is_ascii(),
        size: body.len() as u64,
        class: Class::Transactional,
        recipients: Vec::new(),
    }
}

fn made(wire: &WireMessage) -> String {
    assert_eq!(wire.size, wire.parts.iter().map(|p| p.len() as u64).sum::<u64>());
    String::from_utf8(wire.parts.concat()).expect("UTF-8")
}

#[tokio::test(flavor = "current_thread")]
async fn signed_by_each_key_and_the_body_is_not_copied() {
    let message = stored(PLAIN);
    let body = message.body.clone();
    let keys = vec![key("r", Algorithm::RsaSha256, true), key("e", Algorithm::Ed25519Sha256, true)];
    let maker = maker(Some(message), keys);
    let wire = maker.make(&job(PLAIN), ALL).await.expect("made");
    let text = made(&wire);
    assert_eq!(text.matches("DKIM-Signature:").count(), 2);
    assert!(text.ends_with(PLAIN));
    assert_eq!(wire.parts[1].as_ptr(), body.as_ptr());
    assert!(!wire.eight_bit);
}

#[tokio::test(flavor = "current_thread")]
async fn several_jobs_and_retries_share_one_signature() {
    let maker = maker(Some(stored(PLAIN)), vec![key("r", Algorithm::RsaSha256, true)]);
    let job = job(PLAIN);
    let (a, b) = tokio::join!(maker.make(&job, ALL), maker.make(&job, ALL));
    let c = maker.make(&job, ALL).await;
    let (a, b, c) = (a.expect("made"), b.expect("made"), c.expect("made"));
    assert_eq!((a.parts[0].as_ptr(), a.parts[0].as_ptr()), (b.parts[0].as_ptr(), c.parts[0].as_ptr()));
    // Other keys, or an hour later: another signature.
    maker.clock.advance(SIGNATURE_AGE_MAX);
    let d = maker.make(&job, ALL).await.expect("made");
    assert_ne!(made(&a), made(&d));
    maker.ring.store(Arc::new(KeyRing::new(vec![key("next", Algorithm::Ed25519Sha256, true)])));
    let e = maker.make(&job, ALL).await.expect("made");
    assert!(made(&e).contains("s=next;"));
    maker.ring.store(Arc::new(KeyRing::default()));
    assert_eq!(made(&maker.make(&job, ALL).await.expect("made")), PLAIN);
}

#[tokio::test(flavor = "current_thread")]
async fn a_dropped_session_does_not_block_the_others() {
    let maker = maker(Some(stored(PLAIN)), vec![key("r", Algorithm::RsaSha256, true)]);
    let job = job(PLAIN);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut busy = Box::pin(maker.pool.run(move || held.recv()));
    assert!(busy.as_mut().poll(&mut context).is_pending());
    {
        let mut gone = maker.make(&job, ALL);
        assert!(gone.as_mut().poll(&mut context).is_pending(), "RSA is not made on this thread");
    }
    release.send(()).expect("held");
    maker.make(&job, ALL).await.expect("made by the next");
}

#[tokio::test(flavor = "current_thread")]
async fn a_key_that_cannot_be_used_defers() {
    let keys = vec![key("e", Algorithm::Ed25519Sha256, true), key("r", Algorithm::RsaSha256, false)];
    let failure = maker(Some(stored(PLAIN)), keys).make(&job(PLAIN), ALL).await.expect_err("never unsigned");
    assert_eq!(failure.severity, Severity::Temporary);
    assert_eq!(&*failure.reply.text, "DKIM key of d=acme.example s=r: no such file");
}

async fn check_refused(body: &str, change: impl FnOnce(&mut Job), limits: PeerLimits, want: &str) {
    let maker = maker(Some(stored(body)), vec![key("e", Algorithm::Ed25519Sha256, true)]);
    let mut job = job(body);
    change(&mut job);
    let failure = maker.make(&job, limits).await.expect_err(want);
    assert_eq!((failure.severity, failure.remote), (Severity::Permanent, false));
    assert_eq!(failure.reply.enhanced.as_deref(), Some(want), "{}", failure.reply.text);
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_peer_cannot_take_is_refused() {
    check_refused(PLAIN, |job| job.smtputf8 = true, PeerLimits { smtputf8: false, ..ALL }, "5.6.7").await;
    check_refused(PLAIN, |_| {}, PeerLimits { size_max: 20, ..ALL }, "5.3.4").await;
    // Small enough as it is stored, too large with its signature.
    check_refused(PLAIN, |_| {}, PeerLimits { size_max: PLAIN.len() as u64 + 20, ..ALL }, "5.3.4").await;
    let signed = format!("DKIM-Signature: v=1\r\n{EIGHT_BIT}");
    check_refused(&signed, |_| {}, PeerLimits { eight_bit: false, ..ALL }, "5.6.3").await;
    let gone = maker(None, Vec::new()).make(&job(PLAIN), ALL).await.expect_err("missing");
    assert_eq!(gone.reply.enhanced.as_deref(), Some("5.3.0"));
}

#[tokio::test(flavor = "current_thread")]
async fn eight_bits_become_seven_where_they_must() {
    let maker = maker(Some(stored(EIGHT_BIT)), vec![key("e", Algorithm::Ed25519Sha256, true)]);
    let job = job(EIGHT_BIT);
    let wire = maker.make(&job, ALL).await.expect("made");
    assert!(wire.eight_bit && made(&wire).ends_with(EIGHT_BIT));
    let seven = maker.make(&job, PeerLimits { eight_bit: false, ..ALL }).await.expect("made");
    let text = made(&seven);
    assert!(!seven.eight_bit && text.is_ascii(), "{text}");
    assert!(text.ends_with("Content-Transfer-Encoding: quoted-printable\r\n\r\nh=C3=A4llo\r\n"), "{text}");
    assert_ne!(wire.parts[0], seven.parts[0], "each form has a signature of its own");
}

#[tokio::test(flavor = "current_thread")]
async fn a_missing_final_line_end_is_added() {
    let body = "From: a@acme.example\r\n\r\nhello  ";
    let maker = maker(Some(stored(body)), vec![key("e", Algorithm::Ed25519Sha256, true)]);
    let text = made(&maker.make(&job(body), ALL).await.expect("made"));
    assert!(text.ends_with("hello  \r\n"));
}

#[test]
fn signatures_are_bounded() {
    let ring = Arc::new(KeyRing::default());
    let mut signatures = Signatures::new(ring.clone());
    let first = signatures.cell((MessageId::new(NOW, 0), false), &ring, NOW);
    for i in 1..SIGNATURES_MAX as u128 * 5 {
        signatures.cell((MessageId::new(NOW, i), false), &ring, NOW);
        assert!(signatures.young.len() + signatures.old.len() <= 2 * SIGNATURES_MAX);
        // What is asked for stays.
        let again = signatures.cell((MessageId::new(NOW, 0), false), &ring, NOW);
        assert!(Rc::ptr_eq(&first, &again));
    }
}
