//! `POST /v1/messages` and `GET /v1/messages/{id}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::*;
use crate::event::EventKind;
use crate::queue::intake::Refusal;
use crate::store::{Envelope, EnvelopeRecipient, StoredMessage, Via};
use crate::types::*;

fn message() -> Value {
    json!({
        "from": "Jane Doe <jane@acme.example>", "to": ["b@c.example", { "email": "d@e.example", "name": "D, E" }],
        "bcc": "B@c.example", "subject": "Grüße", "text": "Hallo", "tags": ["t1"], "metadata": { "k": [1] },
        "headers": { "X-Mine": "1" },
        "attachments": [{ "filename": "a.txt", "content_type": "text/plain", "content": "aGk=" }],
    })
}

#[tokio::test]
async fn json_becomes_a_submission() {
    let w = World::new();
    let got = w.post("/v1/messages", ACME_SEND, message()).await;
    assert_eq!(got.status, StatusCode::ACCEPTED, "{}", got.text);
    assert_eq!(got.header("location"), format!("/v1/messages/{}", got.json["id"].as_str().expect("an id")));
    let memory = w.fake.memory.lock();
    let (draft, submission) = (&memory.drafts[0], &memory.accepted[0]);
    assert_eq!(draft.from.name.as_deref(), Some("Jane Doe"));
    assert_eq!(draft.to[1].name.as_deref(), Some("D, E"));
    assert_eq!(draft.attachments[0].content, "hi");
    assert_eq!(submission.tenant, Some(name("acme")));
    assert_eq!(submission.reverse_path.to_string(), "jane@acme.example");
    // The Bcc is the first recipient in another case: one recipient.
    let to: Vec<_> = submission.recipients.iter().map(|r| r.mailbox.as_str()).collect();
    assert_eq!(to, ["b@c.example", "d@e.example"]);
    assert_eq!(submission.steering.metadata.as_deref(), Some("{\"k\":[1]}"));
    assert_eq!(submission.client.user.as_deref(), Some(ACME_SEND));
}

#[tokio::test]
async fn broken_json_names_line_and_column() {
    let w = World::new();
    let check = async |body: &str, status: u16, want: Value| {
        let got = w.call(Method::POST, "/v1/messages", Some(ACME_SEND), "application/json", body.into()).await;
        assert_eq!(got.status.as_u16(), status, "{body}: {}", got.text);
        for (name, value) in want.as_object().expect("an object") {
            assert_eq!(&got.json[name], value, "{name} of {}", got.text);
        }
    };
    check("{\n  \"from\": \"a@b.example\",\n  oops\n}", 400, json!({ "line": 3, "column": 3 })).await;
    check(
        "{\"from\": \"a@b.example\",\n\"subjet\": \"x\"}",
        422,
        json!({ "line": 2, "field": "subjet", "nearest": "subject" }),
    )
    .await;
    check(
        "{\"from\": \"a@b.example\",\n\"to\": [\"c@d.example\", \"nobody\"]}",
        422,
        json!({ "line": 2, "field": "to[1]" }),
    )
    .await;
    check("{\"from\": {\"mail\": \"a@b.example\"}}", 422, json!({ "field": "from.mail", "nearest": "email" })).await;
    check("{\"from\": \"a@b.example\"} trailing", 400, json!({ "line": 1 })).await;
    check("", 400, json!({ "line": 1 })).await;
    check("{\"subject\": \"x\"}", 422, json!({})).await;
}

#[tokio::test]
async fn nothing_can_be_injected_into_the_header() {
    let w = World::new();
    let check = async |field: &str, change: fn(&mut Value)| {
        let mut body = message();
        change(&mut body);
        let got = w.post("/v1/messages", ACME_SEND, body).await;
        assert_eq!((got.status.as_u16(), got.json["field"].as_str()), (422, Some(field)), "{}", got.text);
    };
    check("subject", |m| m["subject"] = json!("a\r\nBcc: v@t.example")).await;
    check("subject", |m| m["subject"] = json!("a\u{2028}b")).await;
    check("from", |m| m["from"] = json!({ "email": "a@acme.example", "name": "x\ny" })).await;
    check("to", |m| m["to"] = json!("a@b>\r\nRCPT TO:<v@t.example")).await;
    check("headers.X-Mine", |m| m["headers"]["X-Mine"] = json!("a\u{85}b")).await;
    check("headers", |m| m["headers"] = json!({ "X: y\r\nBcc": "v@t.example" })).await;
    check("headers.bcc", |m| m["headers"] = json!({ "bcc": "v@t.example" })).await;
    check("headers.X-Posthaste-Pool", |m| m["headers"] = json!({ "X-Posthaste-Pool": "p" })).await;
    check("attachments[0].filename", |m| m["attachments"][0]["filename"] = json!("a\r\nb")).await;
    check("attachments[0].content_type", |m| m["attachments"][0]["content_type"] = json!("text/plain\r\nX: y")).await;
    check("attachments[0].content", |m| m["attachments"][0]["content"] = json!("???")).await;
    check("attachments[0].content_id", |m| m["attachments"][0]["content_id"] = json!("a>b")).await;
    assert!(w.fake.memory.lock().accepted.is_empty());
}

#[tokio::test]
async fn a_raw_message_has_its_envelope_beside_it() {
    let w = World::new();
    let body = "From: a@acme.example\nTo: undisclosed\n\nhi\n";
    let path = "/v1/messages?from=a@acme.example&to=b@c.example&to=d@e.example&tag=t1&class=marketing";
    let got = w.call(Method::POST, path, Some(ACME_SEND), "message/rfc822", body.into()).await;
    assert_eq!((got.status.as_u16(), got.json["recipients"].clone()), (202, json!(2)), "{}", got.text);
    {
        let memory = w.fake.memory.lock();
        assert_eq!(&memory.accepted[0].body[..], b"From: a@acme.example\r\nTo: undisclosed\r\n\r\nhi\r\n");
        assert_eq!(memory.accepted[0].steering.class, Some(Class::Marketing));
    }
    let headers =
        [("content-type", "message/rfc822"), ("posthaste-from", ""), ("posthaste-to", "b@c.example, d@e.example")];
    let got = w.request(Method::POST, "/v1/messages", Some(ACME_SEND), &headers, Body::from(body)).await;
    assert_eq!(got.status.as_u16(), 202, "{}", got.text);
    assert_eq!(w.fake.memory.lock().accepted[1].reverse_path, ReversePath::Null);

    let smuggled = "Subject: x\r\n\r\nhi\r\n.\nMAIL FROM:<v@t.example>\r\n";
    let got = w.call(Method::POST, path, Some(ACME_SEND), "message/rfc822", smuggled.into()).await;
    assert_eq!((got.status.as_u16(), got.json["line"].clone()), (422, json!(4)), "{}", got.text);
}

#[tokio::test]
async fn bodies_are_bounded_and_never_unpacked() {
    let w = World::new();
    let big = Body::from(vec![b'x'; (64 << 10) + 1]);
    let got = w.request(Method::POST, "/v1/messages", Some(ADMIN), &[("content-type", "application/json")], big).await;
    assert_eq!((got.status.as_u16(), got.json["limit"].clone()), (413, json!(65_536)), "{}", got.text);
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let got = w.request(Method::POST, "/v1/messages", Some(ADMIN), &headers, Body::from("x")).await;
    assert_eq!(got.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let got = w.call(Method::POST, "/v1/messages", Some(ADMIN), "text/xml", "x".into()).await;
    assert_eq!(got.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_says_what_smtp_would() {
    let w = World::new();
    w.fake.memory.lock().refuse = Some(Refusal {
        code: 452,
        enhanced: "4.3.1",
        text: "the quota is used up".into(),
        http_status: 429,
        field: None,
    });
    let got = w.post("/v1/messages", ACME_SEND, message()).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "5"));
    assert_eq!(got.json["smtp"]["enhanced"], "4.3.1");
    assert_eq!(got.json["detail"], "the quota is used up");
}

#[tokio::test]
async fn a_repeated_request_is_the_same_request() {
    let w = World::new();
    let send = async |key: &str, idempotency: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", idempotency)];
        w.request(Method::POST, "/v1/messages", Some(key), &headers, Body::from(body.to_string())).await
    };
    let first = send(ACME_SEND, "k1", message()).await;
    let again = send(ACME_SEND, "k1", message()).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(first.json, again.json);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(w.fake.memory.lock().accepted.len(), 1);

    let mut other = message();
    other["subject"] = json!("another");
    let got = send(ACME_SEND, "k1", other.clone()).await;
    assert_eq!(
        (got.status.as_u16(), got.json["type"].clone()),
        (422, json!("urn:posthaste:problem:idempotency-mismatch"))
    );
    // Another tenant's key of the same name is another key.
    let mut theirs = other;
    theirs["from"] = json!("a@other.example");
    assert_eq!(send(OTHER_SEND, "k1", theirs).await.status.as_u16(), 202);

    w.clock.advance(Duration::from_secs(73 * 3_600));
    assert_eq!(send(ACME_SEND, "k1", message()).await.header("idempotent-replayed"), "");
    assert_eq!(w.fake.memory.lock().accepted.len(), 3);
}

#[tokio::test]
async fn the_same_key_at_the_same_time_is_a_conflict() {
    let w = Arc::new(World::new());
    w.fake.memory.lock().accept_takes = Duration::from_millis(200);
    let send = |w: Arc<World>| async move {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
        w.request(Method::POST, "/v1/messages", Some(ACME_SEND), &headers, Body::from(message().to_string())).await
    };
    let (a, b) = tokio::join!(send(Arc::clone(&w)), send(Arc::clone(&w)));
    let mut got = [a.status.as_u16(), b.status.as_u16()];
    got.sort_unstable();
    assert_eq!(got, [202, 409]);
    // A refused request leaves its key free, with nothing recorded.
    w.fake.memory.lock().refuse =
        Some(Refusal { code: 550, enhanced: "5.7.1", text: "no".into(), http_status: 422, field: None });
    let headers = [("content-type", "application/json"), ("idempotency-key", "k2")];
    for _ in 0..2 {
        let body = Body::from(message().to_string());
        let got = w.request(Method::POST, "/v1/messages", Some(ACME_SEND), &headers, body).await;
        assert_eq!(got.json["smtp"]["code"], 550, "{}", got.text);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_free_its_key() {
    let w = World::new();
    w.fake.memory.lock().accept_takes = Duration::from_millis(150);
    let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
    let body = || Body::from(message().to_string());
    let hung_up = w.request(Method::POST, "/v1/messages", Some(ACME_SEND), &headers, body());
    assert!(tokio::time::timeout(Duration::from_millis(50), hung_up).await.is_err());
    let got = w.request(Method::POST, "/v1/messages", Some(ACME_SEND), &headers, body()).await;
    assert_eq!(got.status, StatusCode::CONFLICT);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let got = w.request(Method::POST, "/v1/messages", Some(ACME_SEND), &headers, body()).await;
    assert_eq!((got.status.as_u16(), got.header("idempotent-replayed")), (202, "true"));
    assert_eq!(w.fake.memory.lock().accepted.len(), 1);
}

/// A queued message with two recipients, one of them delivered.
pub fn queued(w: &World) -> MessageId {
    let id = MessageId::new(w.clock.now(), 77);
    let recipient = |text| EnvelopeRecipient { mailbox: mailbox(text), notify: Notify::Default, orcpt: None };
    let envelope = Envelope {
        id,
        tenant: name("acme"),
        class: Class::Transactional,
        campaign: None,
        tags: Vec::new(),
        metadata: None,
        reverse_path: ReversePath::Mailbox(mailbox("a@acme.example")),
        ret: None,
        envid: None,
        recipients: vec![recipient("b@slow.example"), recipient("c@fast.example")],
        accepted: w.clock.now(),
        expires: w.clock.now().after(Duration::from_secs(86_400)),
        smtputf8: false,
        eight_bit: false,
        from_domain: None,
        via: Via::Http,
        client: Some("crm".into()),
    };
    w.fake.memory.lock().messages.push(Arc::new(StoredMessage { envelope, body: "Subject: x\r\n\r\nhi\r\n".into() }));
    w.fake.event(EventKind::Accepted, "acme", |e| {
        (e.message_id, e.recipients, e.sender) = (Some(id), Some(2), Some("a@acme.example".into()));
    });
    w.fake.event(EventKind::Delivered, "acme", |e| {
        (e.message_id, e.recipient, e.attempt) = (Some(id), Some(mailbox("c@fast.example")), Some(1));
    });
    w.fake.event(EventKind::Deferred, "acme", |e| {
        let full = full_event();
        (e.message_id, e.recipient, e.attempt) = (Some(id), Some(mailbox("b@slow.example")), Some(1));
        (e.smtp, e.mx, e.tls, e.retry_at) = (full.smtp, full.mx, full.tls, full.retry_at);
    });
    id
}

#[tokio::test]
async fn the_life_of_a_message_is_drawn_together() {
    let w = World::new();
    let id = queued(&w);
    let got = w.get(&format!("/v1/messages/{id}"), Some(ACME_READ)).await;
    assert_eq!(got.status, StatusCode::OK, "{}", got.text);
    let (b, c) = (&got.json["recipients"][0], &got.json["recipients"][1]);
    assert_eq!((b["state"].as_str(), c["state"].as_str()), (Some("deferred"), Some("delivered")));
    assert_eq!(b["last_reply"], "450 4.2.1 try, \"later\"");
    assert!(c.get("next_attempt").is_none() && c.get("expires").is_none());
    assert_eq!((got.json["state"].as_str(), got.json["events"].as_array().map(Vec::len)), (Some("queued"), Some(3)));

    assert_eq!(w.get(&format!("/v1/messages/{id}"), Some(OTHER_SEND)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(w.get("/v1/messages/nonsense", Some(ADMIN)).await.status, StatusCode::NOT_FOUND);
    let raw = format!("/v1/messages/{id}/raw");
    assert_eq!(w.get(&raw, Some(ADMIN)).await.text, "Subject: x\r\n\r\nhi\r\n");
    assert_eq!(w.get(&raw, Some(ACME_SEND)).await.status, StatusCode::FORBIDDEN);

    let trace = "/v1/trace?address=B@SLOW.example";
    assert_eq!(w.get(trace, Some(ADMIN)).await.json["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(w.get(trace, Some(OTHER_SEND)).await.json["events"].as_array().map(Vec::len), Some(0));
}
