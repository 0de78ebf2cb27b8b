//! Each form with an event, as its receiver would read it.

use serde_json::{Value, json};

use super::*;
use crate::config::parse_webhook_secrets;
use crate::event::{Severity, SmtpReply};
use crate::types::{EventSeq, MessageId};

fn event(kind: EventKind) -> Event {
    let now = Timestamp::from_millis(1_795_456_549_012);
    let mut event = Event::new(kind, now, Name::parse("acme").expect("a name"));
    event.seq = EventSeq(41);
    event.message_id = Some(MessageId::new(now, 7));
    event.recipient = Some(Mailbox::parse("jane@dest.example").expect("an address"));
    event.severity = Some(Severity::Permanent);
    event.category = Some("bad-mailbox".into());
    event.fault = Some("recipient".into());
    event.attempt = Some(2);
    event.smtp = Some(SmtpReply { code: 550, enhanced: Some("5.1.1".into()), text: "no such user".into() });
    let own = r#"{"order":"A1","event":"mine"}"#.to_owned();
    event.metadata = Some(serde_json::value::RawValue::from_string(own).expect("JSON"));
    event
}

fn read(format: WebhookFormat, event: &Event) -> Option<Value> {
    piece(format, event).map(|octets| serde_json::from_slice(&octets).expect("JSON"))
}

fn check(format: WebhookFormat, event: &Event, path: &str, want: Value) {
    let got = read(format, event).expect("the form has it");
    assert_eq!(got.pointer(path), Some(&want), "{format:?} {path}: {got}");
}

#[test]
fn our_own_is_what_the_api_gives() {
    let event = event(EventKind::Bounced);
    let got = read(WebhookFormat::Posthaste, &event).expect("every event");
    assert_eq!(got, serde_json::to_value(&event).expect("JSON"));
    let pieces = vec![b"{\"a\":1}".to_vec(), b"{}".to_vec()];
    assert_eq!(body(WebhookFormat::Posthaste, &pieces, &[], event.timestamp), b"[{\"a\":1},{}]");
}

#[test]
fn listmonk_gets_bounces_and_complaints_and_nothing_else() {
    use WebhookFormat::Listmonk;
    let mut bounced = event(EventKind::Bounced);
    check(Listmonk, &bounced, "/email", json!("jane@dest.example"));
    check(Listmonk, &bounced, "/type", json!("hard"));
    check(Listmonk, &bounced, "/source", json!("posthaste"));
    assert_eq!(read(Listmonk, &bounced).expect("it").get("campaign_uuid"), None);
    bounced.campaign = Name::parse("9f86b50d-5711-41c8-ab03-bc91c43d711b").ok();
    check(Listmonk, &bounced, "/campaign_uuid", json!("9f86b50d-5711-41c8-ab03-bc91c43d711b"));
    bounced.severity = Some(Severity::Temporary);
    check(Listmonk, &bounced, "/type", json!("soft"));
    check(Listmonk, &event(EventKind::Complained), "/type", json!("complaint"));
    let meta = read(Listmonk, &bounced).expect("it")["meta"].as_str().map(str::to_owned).expect("a text");
    assert_eq!(serde_json::from_str::<Value>(&meta).expect("JSON in it")["id"], "posthaste-41");
    for other in [EventKind::Deferred, EventKind::Delivered, EventKind::Accepted, EventKind::Alert] {
        assert_eq!(read(Listmonk, &event(other)), None, "{other:?}");
    }
}

#[test]
fn mailgun_has_severity_status_and_its_own_signature() {
    use WebhookFormat::Mailgun;
    let bounced = event(EventKind::Bounced);
    check(Mailgun, &bounced, "/event", json!("failed"));
    check(Mailgun, &bounced, "/severity", json!("permanent"));
    check(Mailgun, &bounced, "/reason", json!("bounce"));
    check(Mailgun, &bounced, "/delivery-status/code", json!(550));
    check(Mailgun, &bounced, "/delivery-status/enhanced-code", json!("5.1.1"));
    check(Mailgun, &bounced, "/user-variables/order", json!("A1"));
    check(Mailgun, &bounced, "/timestamp", json!(1_795_456_549.012));
    let deferred = Event { severity: None, ..event(EventKind::Deferred) };
    check(Mailgun, &deferred, "/severity", json!("temporary"));
    assert_eq!(read(Mailgun, &event(EventKind::CampaignDone)), None);

    let secrets = parse_webhook_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let got = body(Mailgun, &[b"{\"event\":\"failed\"}".to_vec()], &secrets, bounced.timestamp);
    let got: Value = serde_json::from_slice(&got).expect("JSON");
    assert_eq!(got["event-data"]["event"], "failed");
    let signature = &got["signature"];
    let token = signature["token"].as_str().expect("a token");
    assert_eq!((signature["timestamp"].as_str(), token.len()), (Some("1795456549"), 50));
    let tag = crate::webhook::sign::hmac_sha256(secrets[0].text.as_bytes(), &[b"1795456549", token.as_bytes()]);
    assert_eq!(signature["signature"], data_encoding::HEXLOWER.encode(&tag));
}

#[test]
fn sendgrid_is_flat_and_its_own_fields_win() {
    use WebhookFormat::Sendgrid;
    let mut bounced = event(EventKind::Bounced);
    check(Sendgrid, &bounced, "/event", json!("bounce"));
    check(Sendgrid, &bounced, "/type", json!("bounce"));
    check(Sendgrid, &bounced, "/status", json!("5.1.1"));
    check(Sendgrid, &bounced, "/reason", json!("550 5.1.1 no such user"));
    check(Sendgrid, &bounced, "/timestamp", json!(1_795_456_549));
    check(Sendgrid, &bounced, "/order", json!("A1"));
    bounced.fault = Some("sender_ip".into());
    check(Sendgrid, &bounced, "/type", json!("blocked"));
    check(Sendgrid, &event(EventKind::Complained), "/event", json!("spamreport"));
    check(Sendgrid, &event(EventKind::Deferred), "/attempt", json!("2"));
    assert_eq!(read(Sendgrid, &event(EventKind::Adapted)), None);
}

#[test]
fn a_test_is_something_that_the_form_has() {
    for format in [WebhookFormat::Posthaste, WebhookFormat::Listmonk, WebhookFormat::Mailgun, WebhookFormat::Sendgrid] {
        let event = test_event(format, Timestamp::from_millis(1), Name::parse("acme").expect("a name"));
        assert!(piece(format, &event).is_some(), "{format:?}");
    }
}
