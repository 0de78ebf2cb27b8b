use std::time::Duration;

use bytes::Bytes;
use mail_parser::{Message, MessageParser};
use serde_json::json;

use super::test::{TEST_TAG, Tester, row_with};
use super::*;
use crate::campaign::job::{Job, TestRecipient};
use crate::campaign::model::Sealed;
use crate::delivery::{
    ContentMaker, Failure, Job as Transaction, JobRecipient, LocalFuture, PeerLimits, RENDERING, SUPPRESSED,
};
use crate::dkim::{Algorithm, Key, KeyRing, KeySpec, PrivateKey, keygen};
use crate::event::Severity;
use crate::metrics::Registry;
use crate::metrics::content::ContentMetrics;
use crate::metrics::dkim::DkimMetrics;
use crate::queue::content::{MessageSource, StoredContent};
use crate::queue::intake::testing::{START, config, intake};
use crate::queue::sign::SignPool;
use crate::seam::clock::Clock;
use crate::store::{ReadRequest, Reader, Row, StoredMessage, Via};
use crate::suppression::testing::suppressions;
use crate::suppression::{Reason, Scope, Suppressions};
use crate::types::{CampaignNo, Class, DeliveryId, Mailbox, MessageId, Notify, QueueId, ReversePath, RowId};

const ROW: &str =
    r#"{"email":"Jane.Doe@sink.test","name":"Jane Döe","vars":{"first_name":"Zoë","town":"Lyon"},"metadata":{"id":7}}"#;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}

fn outside(public: bool) -> Outside {
    let mut config = config();
    if public {
        config.public = Some(crate::config::Public {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 8080)),
            url: "https://links.acme.example/".into(),
            trusted_proxies: Vec::new(),
        });
    }
    let config = Arc::new(ArcSwap::from_pointee(config));
    Outside { links: Links::ephemeral(), key: MessageIdKey::new(&[9; 32]), config }
}

fn job(change: serde_json::Value) -> serde_json::Value {
    let mut job = json!({
        "from": {"name": "Acmé Shop", "email": "shop@acme.example"},
        "reply_to": ["help@acme.example"],
        "subject": "Grüße, {{ first_name }}!",
        "html": "<html><body class=x><p>Hello {{ first_name }} in {{ town }}</p><a href=\"{{ unsubscribe_url }}\">leave</a></body></html>",
        "headers": {"X-Town": "{{ town }}"},
        "list": "news",
        "class": "marketing",
        "on_missing": "skip",
        "priority": 5,
    });
    if let (Some(job), serde_json::Value::Object(change)) = (job.as_object_mut(), change) {
        job.extend(change);
    }
    job
}

fn sealed(change: serde_json::Value) -> Arc<Sealed> {
    let job = Job::from_json(job(change).to_string().as_bytes()).expect("a job");
    Arc::new(Sealed {
        no: CampaignNo(3),
        tenant: name("acme"),
        id: name("spring"),
        pool: name("default"),
        job: Arc::new(job),
        version: 1,
        started: START,
        due: START.after(Duration::from_secs(3_600)),
    })
}

fn blueprint(change: serde_json::Value) -> Blueprint {
    Blueprint::new(sealed(change)).expect("compiles")
}

fn row_id() -> RowId {
    RowId { campaign: CampaignNo(3), step: 0, queue: QueueId(5), slot: 4, seq: 11 }
}

fn target(row: &str) -> Target<'_> {
    Target { row: row.as_bytes(), id: Some(row_id()), test: None }
}

fn octets(blueprint: &Blueprint, row: &str, outside: &Outside) -> Vec<u8> {
    let drawn = blueprint.draw(&target(row), outside).expect("renders");
    let octets = blueprint.assemble(drawn).concat();
    for line in octets.split(|b| *b == b'\n') {
        assert!(line.len() <= 999, "{}", String::from_utf8_lossy(line));
    }
    octets
}

fn parse(octets: &[u8]) -> Message<'_> {
    MessageParser::new().parse(octets).expect("a message")
}

fn header(octets: &[u8]) -> String {
    let end = memchr::memmem::find(octets, b"\r\n\r\n").expect("an empty line");
    String::from_utf8(octets[..end].to_vec()).expect("ASCII")
}

/// The one value of a field, unfolded.
fn value(octets: &[u8], field: &str) -> Option<String> {
    let unfolded = header(octets).replace("\r\n ", " ");
    let mut found = unfolded.split("\r\n").filter_map(|line| line.strip_prefix(&format!("{field}: ")));
    let first = found.next().map(str::to_owned);
    assert!(found.next().is_none(), "{field} stands there twice");
    first
}

#[test]
fn the_header_is_what_peers_and_people_expect() {
    let (blueprint, outside) = (blueprint(json!({})), outside(true));
    let octets = octets(&blueprint, ROW, &outside);
    let is = |field: &str, want: &str| assert_eq!(value(&octets, field).as_deref(), Some(want));
    // The start plus an hour, and four quarter hours for the slot.
    is("Date", "Mon, 23 Nov 2026 19:55:49 +0000");
    is("Reply-To", "<help@acme.example>");
    is("X-Town", "Lyon");
    is("List-ID", "<news.acme.example>");
    is("Feedback-ID", "spring:acme:marketing:posthaste");
    is("Precedence", "bulk");
    is("MIME-Version", "1.0");
    is("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
    let parsed = parse(&octets);
    assert_eq!(parsed.subject(), Some("Grüße, Zoë!"));
    let to = parsed.to().and_then(|to| to.first()).expect("To");
    assert_eq!((to.name(), to.address()), (Some("Jane Döe"), Some("Jane.Doe@sink.test")));
    let from = parsed.from().and_then(|from| from.first()).expect("From");
    assert_eq!((from.name(), from.address()), (Some("Acmé Shop"), Some("shop@acme.example")));
    let id = parsed.message_id().expect("Message-ID");
    assert!(id.len() == 32 + "@acme.example".len() && id.ends_with("@acme.example"), "{id}");
    assert!(parsed.body_html(0).is_some_and(|html| html.contains("Hello Zoë in Lyon")));
    assert!(parsed.body_text(0).is_some_and(|text| text.contains("Hello Zoë in Lyon") && !text.contains("<p>")));
    assert!(!header(&octets).to_lowercase().contains("x-posthaste"));
}

#[test]
fn retries_and_restarts_send_the_same() {
    let outside = outside(true);
    let change = json!({"attachments": [{"name": "a.bin", "content": "AAECAwQF"}], "text": "{{ now() }} {{ town }}"});
    let first = octets(&blueprint(change.clone()), ROW, &outside);
    assert_eq!(first, octets(&blueprint(change), ROW, &outside));
    let other = ROW.replace("Jane.Doe", "john");
    let other = octets(&blueprint(json!({})), &other, &outside);
    assert_ne!(value(&first, "Message-ID"), value(&other, "Message-ID"));
    let same_person = octets(&blueprint(json!({})), &ROW.replace("Jane.Doe", "JANE.doe"), &outside);
    assert_eq!(value(&first, "Message-ID"), value(&same_person, "Message-ID"), "case makes no other recipient");
}

#[test]
fn a_variable_gets_out_of_no_place() {
    let outside = outside(true);
    let change = json!({"text": "Hi {{ first_name }}", "headers": {"X-Name": "{{ first_name }}"}, "preheader": "For {{ first_name }}"});
    let blueprint = blueprint(change);
    let plain = octets(&blueprint, ROW, &outside);
    let boundary =
        header(&plain).split("boundary=\"").nth(1).and_then(|t| t.split('"').next()).map(str::to_owned).expect("one");
    let fields = |octets: &[u8]| header(octets).replace("\r\n ", " ").replace("\r\n\t", " ").split("\r\n").count();
    for evil in [
        "x\r\nBcc: victim@t.example",
        "x\nContent-Type: text/html\n\n<b>",
        "x\r\n\r\nbody",
        "a\u{2028}b\u{85}c\u{0}d",
        "<script>alert(1)</script>",
        "\"><img src=x>",
        "{{ email }}",
        "=?utf-8?q?=0D=0ABcc:_v@t.example?=",
        &format!("x\n--{boundary}\nContent-Type: text/html\n\nforged\n--{boundary}--\n"),
        &"long".repeat(20_000),
    ] {
        let row = json!({"email": "v@sink.test", "name": evil, "vars": {"first_name": evil, "town": evil}}).to_string();
        let octets = octets(&blueprint, &row, &outside);
        assert_eq!(fields(&octets), fields(&plain), "{}", header(&octets));
        assert!(!header(&octets).replace("\r\n", "").contains(['\r', '\n', '\0']));
        let parsed = parse(&octets);
        assert_eq!(parsed.parts.len(), 3, "{evil:?}");
        assert!(parsed.bcc().is_none());
        let html = parsed.body_html(0).unwrap_or_default().into_owned();
        assert!(!html.contains("<script>") && !html.contains("<img"), "{html}");
        assert!(!parsed.subject().unwrap_or_default().contains(['\r', '\n']));
    }
}

/// The display name comes from data: it must not become another address, another field or another line.
#[test]
fn the_names_of_from_and_reply_to_are_templates() {
    let outside = outside(true);
    let change = json!({
        "from": {"name": "{{ agent }} von Acmé", "email": "shop@acme.example"},
        "reply_to": [{"name": "{{ agent | default('') }}", "email": "help@acme.example"}, "second@acme.example"],
    });
    let of = |agent: &str| {
        let row = json!({"email": "j@sink.test", "vars": {"first_name": "Z", "town": "L", "agent": agent}}).to_string();
        octets(&blueprint(change.clone()), &row, &outside)
    };
    for agent in ["Zoë", "<evil@bank.example>, x", "a\r\nBcc: all@acme.example", "\"x\" <y@z.example>", "=?utf-8?q?x?="]
    {
        let made = of(agent);
        let parsed = parse(&made);
        let from = parsed.from().expect("there").as_list().expect("a list");
        assert_eq!(from.len(), 1, "{agent:?}: {}", header(&made));
        assert_eq!(from[0].address(), Some("shop@acme.example"), "{agent:?}");
        assert!(parsed.header("Bcc").is_none(), "{agent:?}: {}", header(&made));
        let reply = parsed.reply_to().expect("there").as_list().expect("a list");
        let addresses: Vec<_> = reply.iter().filter_map(|a| a.address()).collect();
        assert_eq!(addresses, ["help@acme.example", "second@acme.example"], "{agent:?}");
    }
    let made = of("Zoë");
    assert_eq!(parse(&made).from().and_then(|a| a.first()).and_then(|a| a.name()), Some("Zoë von Acmé"));
    assert_eq!(parse(&made).reply_to().and_then(|a| a.first()).and_then(|a| a.name()), Some("Zoë"));
    // One who has no agent is found before the start; where the name may be empty, only the address stands there.
    let lacks = r#"{"email":"j@sink.test","vars":{"first_name":"Z","town":"L"}}"#;
    let made = blueprint(change.clone());
    assert_eq!(made.missing(&target(lacks), &outside).expect("readable"), ["agent"]);
    assert!(made.draw(&target(lacks), &outside).is_err());
    let only_reply = json!({"reply_to": [{"name": "{{ agent | default('') }}", "email": "help@acme.example"}]});
    let made = octets(&blueprint(only_reply), lacks, &outside);
    let parsed = parse(&made);
    assert_eq!(
        parsed.reply_to().and_then(|a| a.first()).map(|a| (a.name(), a.address())),
        Some((None, Some("help@acme.example")))
    );
    // What can't be read is told with its field.
    let broken = |change: serde_json::Value| {
        let error = Blueprint::new(sealed(change)).expect_err("it can't be read");
        super::port::problem_of(error).field
    };
    assert_eq!(broken(json!({"from": {"name": "{{ agent", "email": "shop@acme.example"}})), "from");
    assert_eq!(
        broken(json!({"reply_to": ["a@acme.example", {"name": "{{ x | nofilter }}", "email": "b@acme.example"}]})),
        "reply_to[1]"
    );
}

#[test]
fn one_click_where_it_is_owed_and_can_be_served() {
    let check = |change: serde_json::Value, public: bool, ways: usize, post: bool| {
        let octets = octets(&blueprint(change), ROW, &outside(public));
        let field = value(&octets, "List-Unsubscribe");
        assert_eq!(field.as_ref().map_or(0, |field| field.matches('<').count()), ways, "{field:?}");
        assert_eq!(value(&octets, "List-Unsubscribe-Post").is_some(), post);
    };
    check(json!({"on_missing": "blank"}), true, 2, true);
    check(json!({"on_missing": "blank"}), false, 1, false);
    check(json!({"on_missing": "blank", "class": "transactional"}), true, 0, false);
    check(json!({"on_missing": "blank", "public_url": "https://own.acme.example"}), false, 2, true);
    // RFC 8058 §3.1 asks for HTTPS.
    check(json!({"on_missing": "blank", "public_url": "http://own.acme.example"}), false, 2, false);
}

#[test]
fn a_link_acts_for_its_recipient_alone_and_never_in_a_preview_or_test() {
    let (blueprint, outside) = (blueprint(json!({})), outside(true));
    let token = |field: &str| {
        let link = field.split(['<', '>']).nth(1).and_then(|url| url.strip_prefix("https://links.acme.example/u/"));
        outside.links.open_unsubscribe(link.expect("a link")).expect("a token")
    };
    let sent = token(&value(&octets(&blueprint, ROW, &outside), "List-Unsubscribe").expect("a field"));
    assert_eq!((sent.address.as_str(), sent.test), ("Jane.Doe@sink.test", false));
    assert_eq!(sent.message, Some(row_id().message_id()));
    assert_eq!(sent.list, Some(name("news")));
    let preview = blueprint.preview(&target(ROW), &outside).expect("renders");
    let field = preview.headers.iter().find(|field| field.name == "List-Unsubscribe").expect("a field");
    assert!(token(&field.value).test, "who looks at a preview unsubscribes nobody");
    let to = TestRecipient { email: mailbox("qa@acme.example"), as_row: None, vars: serde_json::Map::new() };
    let test = blueprint.test_message(ROW.as_bytes(), &to, &outside, START).expect("renders");
    assert!(token(&value(&test, "List-Unsubscribe").expect("a field")).test);
}

#[test]
fn the_longest_address_makes_no_line_too_long() {
    let labels = vec!["ü".repeat(40); 4].join(".");
    let row =
        json!({"email": format!("{}@{labels}.example", "x".repeat(64)), "vars": {"first_name": "a", "town": "b"}});
    let long = name(&"n".repeat(64));
    octets(&blueprint(json!({"list": long})), &row.to_string(), &outside(true));
}

#[test]
fn what_is_missing_is_named_or_blank() {
    let (row, outside) = (r#"{"email":"a@sink.test","vars":{"first_name":"A"}}"#, outside(true));
    let error = blueprint(json!({})).draw(&target(row), &outside).expect_err("town is missing");
    assert_eq!(error.missing(), Some("town"), "{error}");
    let blank = blueprint(json!({"on_missing": "blank"}));
    let octets = octets(&blank, row, &outside);
    assert!(parse(&octets).body_html(0).is_some_and(|html| html.contains("Hello A in </p>")));
    assert_eq!(value(&octets, "X-Town"), None, "an empty field is left out");
    let preview = blank.preview(&target(row), &outside).expect("renders");
    assert_eq!(preview.blanks, ["town"]);
    assert!(matches!(blank.draw(&target("{}"), &outside), Err(ContentError::Row(_))));
    assert!(matches!(blank.draw(&target("[1"), &outside), Err(ContentError::Row(_))));
}

#[test]
fn a_preview_is_for_people() {
    let blueprint = blueprint(
        json!({"preheader": "Só {{ town }}", "headers": {"X-Ünused".to_lowercase().replace('ü', "u"): "é{{ town }}"}}),
    );
    let row = ROW.replace("Lyon", "Ly\\non");
    let preview = blueprint.preview(&target(&row), &outside(true)).expect("renders");
    assert_eq!(preview.subject, "Grüße, Zoë!");
    let shown = |name: &str| preview.headers.iter().find(|f| f.name == name).map(|f| f.value.as_str());
    assert_eq!(shown("Subject"), Some("Grüße, Zoë!"));
    assert_eq!(shown("To"), Some("Jane Döe <Jane.Doe@sink.test>"));
    assert_eq!(shown("x-unused"), Some("éLy on"));
    let html = preview.html.expect("HTML");
    assert!(html.starts_with("<html><body class=x><div style=\"display:none"), "{html}");
    assert!(!preview.text.expect("text").contains("Só"), "the hidden text is not part of the plain one");
    assert!(preview.warnings.iter().any(|warning| warning.contains("x-unused")), "{:?}", preview.warnings);
}

/// A message source that has one row.
#[derive(Clone)]
struct One(Option<Arc<StoredMessage>>);

impl MessageSource for One {
    fn message(&self, _: MessageId) -> LocalFuture<'_, Result<Option<Arc<StoredMessage>>, Failure>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// A reader whose store has one row.
fn reader(row: Option<&str>) -> Reader {
    let (reader, mut requests) = Reader::channel(4);
    let row = row.map(|row| Row { id: row_id(), hash: [0; 16], value: Bytes::copy_from_slice(row.as_bytes()) });
    std::thread::spawn(move || {
        while let Some(request) = requests.blocking_recv() {
            if let ReadRequest::Row { reply, .. } = request {
                let _ = reply.send(Ok(row.clone()));
            }
        }
    });
    reader
}

async fn loaded(sealed: &Arc<Sealed>, row: &str, outside: &Outside) -> Arc<StoredMessage> {
    let found = sealed.clone();
    let loader = CampaignLoader::new(reader(Some(row)), Arc::new(move |_| Some(found.clone())), outside.config.clone());
    loader.load_row(row_id()).await.expect("reads").expect("a row")
}

#[tokio::test]
async fn a_row_is_loaded_as_a_message() {
    let (outside, sealed) =
        (outside(true), sealed(json!({"tags": ["t1"], "expire_after": "1h", "metadata": {"job": 1}})));
    let message = loaded(&sealed, ROW, &outside).await;
    let envelope = &message.envelope;
    assert_eq!((envelope.id, envelope.via), (row_id().message_id(), Via::Campaign));
    assert_eq!((envelope.campaign.as_ref(), envelope.class), (Some(&name("spring")), Class::Marketing));
    assert_eq!(envelope.recipients[0].mailbox.as_str(), "Jane.Doe@sink.test");
    assert_eq!(envelope.metadata.as_deref(), Some(r#"{"id":7}"#), "the row's own metadata");
    assert_eq!(envelope.reverse_path.to_string(), "bounce@bounce.acme.test");
    assert_eq!(envelope.expires, START.after(Duration::from_secs(3 * 3_600)), "due an hour later, slot 4, one hour");
    assert_eq!(message.body, ROW.as_bytes());
    let other = loaded(&sealed, r#"{"email":"a@sink.test"}"#, &outside).await;
    assert_eq!(other.envelope.metadata.as_deref(), Some(r#"{"job":1}"#));
    for (row, known) in [(None, true), (Some("{}"), true), (Some(ROW), false)] {
        let found = known.then(|| sealed.clone());
        let loader = CampaignLoader::new(reader(row), Arc::new(move |_| found.clone()), outside.config.clone());
        assert!(loader.load_row(row_id()).await.expect("reads").is_none(), "what is gone or broken ends");
    }
}

struct World {
    content: CampaignContent<One>,
    suppressions: Suppressions,
    job: Transaction,
}

async fn world(change: serde_json::Value, row: &str, keys: Vec<KeySpec>, bytes_max: u64) -> World {
    let (outside, sealed) = (outside(true), sealed(change));
    let message = loaded(&sealed, row, &outside).await;
    let job = Transaction {
        id: 1,
        message: message.envelope.id,
        reverse_path: ReversePath::Null,
        ret: None,
        envid: None,
        smtputf8: message.envelope.smtputf8,
        eight_bit: false,
        size: row.len() as u64,
        class: Class::Marketing,
        recipients: vec![JobRecipient {
            delivery: DeliveryId { message: message.envelope.id, index: 0 },
            mailbox: message.envelope.recipients[0].mailbox.clone(),
            notify: Notify::Default,
            orcpt: None,
        }],
    };
    let (clock, source) = (Clock::manual(START), One(Some(message)));
    let ring = Arc::new(ArcSwap::from_pointee(KeyRing::new(keys)));
    let pool = Arc::new(SignPool::with_threads(1).expect("a thread"));
    let registry = Registry::new();
    let (dkim, metrics) = (DkimMetrics::register(&registry), ContentMetrics::register(&registry));
    let (suppressions, _) = suppressions(clock.clone());
    let content = CampaignContent::new(ContentParts {
        stored: StoredContent::new(source.clone(), ring.clone(), pool.clone(), clock.clone(), dkim.clone()),
        source,
        find: Arc::new(move |no| (no == CampaignNo(3)).then(|| sealed.clone())),
        suppressions: suppressions.clone(),
        outside,
        ring,
        pool,
        clock,
        dkim,
        metrics,
        bytes_max,
    });
    World { content, suppressions, job }
}

const ALL: PeerLimits = PeerLimits { eight_bit: true, smtputf8: true, size_max: 0 };

fn key(algorithm: Algorithm, usable: bool) -> KeySpec {
    let pem = keygen(algorithm).expect("a key").private_pem;
    let private = match usable {
        true => Ok(PrivateKey::from_pem(pem.as_bytes(), algorithm).expect("parses")),
        false => Err("no such file".into()),
    };
    let domain = crate::types::Domain::parse("acme.example").expect("valid");
    let key = Key { domain, selector: "s1".into(), algorithm, active_from: None, private };
    KeySpec { key, sign_for: Vec::new() }
}

#[tokio::test]
async fn rows_are_signed_and_one_click_is_part_of_it() {
    let attachment = json!({"attachments": [{"name": "a.bin", "content": "QUJD".repeat(9_000)}]});
    let world = world(attachment, ROW, vec![key(Algorithm::Ed25519Sha256, true)], 1 << 20).await;
    let first = world.content.make(&world.job, ALL).await.expect("made");
    assert!(first.parts.len() > 2, "the file is not copied");
    assert_eq!(first.size, first.parts.iter().map(|part| part.len() as u64).sum::<u64>());
    let octets = first.parts.concat();
    let signature = value(&octets, "DKIM-Signature").unwrap_or_else(|| header(&octets));
    let flat: String = header(&octets).split_whitespace().collect();
    let names = flat.split("h=").nth(1).and_then(|rest| rest.split(';').next()).expect(&signature).to_lowercase();
    for signed in ["list-unsubscribe", "list-unsubscribe-post", "list-id", "feedback-id"] {
        assert_eq!(names.split(':').filter(|name| *name == signed).count(), 2, "{signed}: {names}");
    }
    let split = dkim_body_hash(&flat);
    let rest = memchr::memmem::find(&octets, b"Date: ").expect("the message");
    let ring = KeyRing::new(vec![key(Algorithm::Ed25519Sha256, true)]);
    let whole = crate::dkim::sign(&octets[rest..], ring.keys(), START).expect("signs");
    let whole: String = String::from_utf8(whole).expect("ASCII").split_whitespace().collect();
    assert_eq!(split, dkim_body_hash(&whole), "in parts or in one piece");
    // The second time it is made on this thread, and is the same.
    let again = world.content.make(&world.job, ALL).await.expect("made");
    assert_eq!(again.parts.concat()[..], octets[..]);
}

fn dkim_body_hash(flat: &str) -> String {
    flat.split("bh=").nth(1).and_then(|rest| rest.split(';').next()).expect("bh=").to_owned()
}

#[tokio::test]
async fn what_can_not_be_sent_ends_as_what_it_is() {
    let made = async |change, row: &str, keys, limits| {
        let world = world(change, row, keys, 1 << 20).await;
        world.content.make(&world.job, limits).await.expect_err("not made")
    };
    let lacking = r#"{"email":"a@sink.test","vars":{"first_name":"A"}}"#;
    let failure = made(json!({}), lacking, vec![], ALL).await;
    assert_eq!((failure.stage, failure.severity), (RENDERING, Severity::Permanent));
    assert!(failure.reply.text.contains("town"), "{failure:?}");
    let endless = json!({"html": "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}"});
    assert_eq!(made(endless, ROW, vec![], ALL).await.stage, RENDERING);
    let failure = made(json!({}), ROW, vec![key(Algorithm::RsaSha256, false)], ALL).await;
    assert_eq!((failure.severity, failure.reply.enhanced.as_deref()), (Severity::Temporary, Some("4.7.5")));
    let failure = made(json!({}), ROW, vec![], PeerLimits { size_max: 500, ..ALL }).await;
    assert_eq!(failure.reply.enhanced.as_deref(), Some("5.3.4"));
    let utf8 = ROW.replace("Jane.Doe", "jäne");
    let failure = made(json!({}), &utf8, vec![], PeerLimits { smtputf8: false, ..ALL }).await;
    assert_eq!(failure.reply.enhanced.as_deref(), Some("5.6.7"));
}

#[tokio::test]
async fn who_left_since_the_upload_gets_nothing() {
    let world = world(json!({}), ROW, vec![], 1 << 20).await;
    assert!(world.content.make(&world.job, ALL).await.is_ok());
    let scope = Scope::List { tenant: name("acme"), list: name("news") };
    let entry = world.suppressions.entry(scope, Reason::Unsubscribe, &mailbox("jane.doe@sink.test"), "link");
    world.suppressions.add(entry).await.expect("stored");
    let failure = world.content.make(&world.job, ALL).await.expect_err("suppressed");
    assert_eq!((failure.stage, failure.severity), (SUPPRESSED, Severity::Permanent));
    assert!(failure.reply.text.contains("unsubscribe"), "{failure:?}");
}

#[tokio::test]
async fn memory_is_given_back_when_a_message_was_sent() {
    // One message takes the whole budget.
    let world = world(json!({}), ROW, vec![], 1).await;
    let first = world.content.make(&world.job, ALL).await.expect("made");
    let mut second = world.content.make(&world.job, ALL);
    let waits = tokio::time::timeout(Duration::from_millis(100), second.as_mut()).await;
    assert!(waits.is_err(), "it waits for the first");
    drop(first);
    let made = tokio::time::timeout(Duration::from_secs(2), second).await;
    assert!(made.is_ok_and(|made| made.is_ok()), "its memory is free at once");
}

#[test]
fn the_variables_of_a_test_win() {
    let vars = json!({"town": "Nice", "n": 1});
    let row = row_with(ROW.as_bytes(), vars.as_object().expect("an object")).expect("a row");
    let row: serde_json::Value = serde_json::from_slice(&row).expect("JSON");
    assert_eq!(row["vars"], json!({"first_name": "Zoë", "town": "Nice", "n": 1}));
    assert_eq!(row["email"], "Jane.Doe@sink.test");
}

#[tokio::test]
async fn a_test_is_mail_like_any_other_and_counts_for_nothing() {
    let outside = outside(true);
    let (door, store, _) = intake(config(), Clock::manual(START));
    let tester = Tester { intake: door, outside: outside.clone(), clock: Clock::manual(START) };
    let vars = json!({"town": "Nice"}).as_object().cloned().unwrap_or_default();
    let to = TestRecipient { email: mailbox("qa@acme.example"), as_row: None, vars };
    let sent = tester.send(&blueprint(json!({})), ROW.as_bytes(), &to, Some("ops".into())).await.expect("accepted");
    let stored = store.messages().pop().expect("a message");
    let envelope = &stored.message.envelope;
    assert_eq!((envelope.id, &envelope.campaign, envelope.class), (sent.message_id, &None, Class::Marketing));
    assert_eq!(envelope.tags, [name(TEST_TAG)]);
    assert_eq!(envelope.recipients[0].mailbox.as_str(), "qa@acme.example");
    let parsed = parse(&stored.message.body);
    assert_eq!(parsed.subject(), Some("[TEST] Grüße, Zoë!"));
    assert_eq!(parsed.to().and_then(|to| to.first()).and_then(|to| to.address()), Some("qa@acme.example"));
    assert!(parsed.body_html(0).is_some_and(|html| html.contains("in Nice")));
}

#[tokio::test]
async fn the_key_of_message_ids_lasts() {
    let (ledger, reader, _) = crate::suppression::testing::store();
    let id = |key: &MessageIdKey| {
        let domain = crate::types::Domain::parse("acme.example").expect("valid");
        key.message_id(CampaignNo(1), 0, &mailbox("A@b.example"), None, &domain)
    };
    let first = MessageIdKey::open(&reader, &ledger).await.expect("made");
    let second = MessageIdKey::open(&reader, &ledger).await.expect("read");
    assert_eq!(id(&first), id(&second));
    let domain = crate::types::Domain::parse("acme.example").expect("valid");
    let tests: Vec<_> = [1, 2]
        .iter()
        .map(|at| first.message_id(CampaignNo(1), 0, &mailbox("a@b.example"), Some(*at), &domain))
        .collect();
    assert!(tests[0] != tests[1] && tests[0] != id(&first));
}
