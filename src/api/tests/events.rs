//! `GET /v1/events`.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::*;
use crate::event::EventKind;
use crate::types::EventSeq;

fn ids(page: &Value) -> Vec<u64> {
    page["events"].as_array().expect("events").iter().filter_map(|e| e["id"].as_u64()).collect()
}

fn with_events(n: usize) -> World {
    let w = World::new();
    for i in 0..n {
        let (kind, tenant) = if i % 2 == 0 { (EventKind::Accepted, "acme") } else { (EventKind::Delivered, "other") };
        w.fake.event(kind, tenant, |_| {});
    }
    w
}

#[tokio::test]
async fn pages_follow_each_other_without_loss() {
    let w = with_events(5);
    let first = w.get("/v1/events?limit=2", Some(ADMIN)).await.json;
    assert_eq!((ids(&first), first["next"].clone(), first["more"].clone()), (vec![1, 2], json!(2), json!(true)));
    let rest = w.get("/v1/events?after=2", Some(ADMIN)).await.json;
    assert_eq!((ids(&rest), rest["more"].clone()), (vec![3, 4, 5], json!(false)));
    let end = w.get("/v1/events?after=latest", Some(ADMIN)).await.json;
    assert_eq!((ids(&end), end["next"].clone()), (vec![], json!(5)));
}

#[tokio::test]
async fn a_tenant_sees_its_own_and_its_cursor_passes_the_others() {
    let w = with_events(6);
    let page = w.get("/v1/events", Some(ACME_READ)).await.json;
    assert_eq!((ids(&page), page["next"].clone()), (vec![1, 3, 5], json!(6)));
    assert_eq!(w.get("/v1/events?tenant=other", Some(ACME_READ)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ids(&w.get("/v1/events?tenant=other", Some(ADMIN)).await.json), [2, 4, 6]);
}

#[tokio::test]
async fn a_filter_reads_on_until_it_finds_something() {
    let w = with_events(9);
    let page = w.get("/v1/events?event=delivered&limit=2", Some(ADMIN)).await.json;
    assert_eq!((ids(&page), page["next"].clone(), page["more"].clone()), (vec![2, 4], json!(4), json!(true)));
    let got = w.get("/v1/events?event=deliverd", Some(ADMIN)).await;
    assert!(got.json["detail"].as_str().is_some_and(|d| d.contains("did you mean delivered?")), "{}", got.text);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_next_commit() {
    let w = with_events(1);
    let fake = w.fake.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        fake.event(EventKind::Bounced, "acme", |_| {});
    });
    let got = tokio::time::timeout(Duration::from_secs(5), w.get("/v1/events?after=1&wait=30", Some(ADMIN))).await;
    assert_eq!(ids(&got.expect("woken long before 30 s").json), [2]);
    let got = w.get("/v1/events?after=2&wait=61", Some(ADMIN)).await;
    assert_eq!(got.status.as_u16(), 422);
}

#[tokio::test]
async fn a_durable_cursor_moves_only_when_acknowledged() {
    let w = with_events(4);
    let read = async || w.get("/v1/events?cursor=crm&limit=2", Some(ADMIN)).await.json;
    assert_eq!(ids(&read().await), [1, 2]);
    // The consumer crashed before it acknowledged: the same again.
    assert_eq!(ids(&read().await), [1, 2]);
    assert_eq!(ids(&w.get("/v1/events?cursor=crm&after=2&limit=1", Some(ADMIN)).await.json), [3]);
    assert_eq!(ids(&read().await), [3, 4]);
    let ack = w.post("/v1/events/ack", ADMIN, json!({ "cursor": "crm", "after": 4 })).await;
    assert_eq!(ack.status, StatusCode::OK, "{}", ack.text);
    assert_eq!(ids(&read().await), Vec::<u64>::new());
    assert!(w.fake.memory.lock().state.contains_key(&b"cursor/crm"[..]));

    let beyond = w.post("/v1/events/ack", ADMIN, json!({ "cursor": "crm", "after": 5 })).await;
    assert_eq!(beyond.status.as_u16(), 422, "a cursor ahead of the log would skip what is to come");
    // A tenant's cursor of the same name is another one.
    assert_eq!(ids(&w.get("/v1/events?cursor=crm", Some(ACME_READ)).await.json), [1, 3]);
    let list = w.get("/v1/events/cursors", Some(ADMIN)).await.json;
    assert_eq!((list["last"].clone(), list["cursors"][0]["after"].clone()), (json!(4), json!(4)));
    let gone = w.request(Method::DELETE, "/v1/events/cursors/crm", Some(ADMIN), &[], Body::empty()).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(ids(&read().await), [1, 2]);
}

#[tokio::test]
async fn what_retention_took_is_said() {
    let w = with_events(5);
    {
        let mut memory = w.fake.memory.lock();
        memory.events.drain(..3);
        memory.gap = Some((EventSeq(1), EventSeq(3)));
    }
    let page = w.get("/v1/events?limit=1", Some(ADMIN)).await.json;
    assert_eq!((page["events"][0]["event"].as_str(), page["next"].clone()), (Some("gap"), json!(3)));
    assert_eq!(ids(&w.get("/v1/events?after=3", Some(ADMIN)).await.json), [4, 5]);
}

#[tokio::test]
async fn lines_on_request() {
    let w = with_events(2);
    let headers = [("accept", "application/x-ndjson")];
    let got = w.request(Method::GET, "/v1/events", Some(ADMIN), &headers, Body::empty()).await;
    assert_eq!((got.header("content-type"), got.header("posthaste-next")), ("application/x-ndjson", "2"));
    assert_eq!(got.text.lines().count(), 2);
    assert!(got.text.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
}
