//! Queues, suspensions and the operator's commands.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;

use super::world::*;

#[tokio::test]
async fn a_tenant_sees_its_own_queues() {
    let w = World::new();
    let all = w.get("/v1/queues", Some(NODE_READ)).await.json;
    assert_eq!((all["summary"]["recipients"].clone(), all["queues"].as_array().map(Vec::len)), (json!(3), Some(2)));
    let own = w.get("/v1/queues", Some(ACME_READ)).await.json;
    assert_eq!((own["summary"]["recipients"].clone(), own["queues"].as_array().map(Vec::len)), (json!(2), Some(1)));
    assert_eq!(own["summary"]["held"], json!([["retry due", 2]]));
    assert_eq!(own["queues"][0]["tenant"], "acme");
    assert_eq!(w.get("/v1/queues?tenant=other", Some(ACME_READ)).await.status, StatusCode::FORBIDDEN);
    w.get("/v1/queues/show?domain=slow.example", Some(ACME_READ)).await;
    let asked = w.fake.memory.lock().commands.clone();
    assert_eq!(asked, [r#"show {"tenant":"acme","domain":"slow.example"}"#]);
}

#[tokio::test]
async fn everything_is_only_meant_when_it_is_said() {
    // An empty match from a script with an empty variable must not purge the whole spool.
    let w = World::new();
    for path in ["/v1/queues/purge", "/v1/queues/reroute", "/v1/suspensions"] {
        let got = w.post(path, ADMIN, json!({ "pool": "main" })).await;
        let refused = got.status.as_u16() == 422;
        assert!(refused, "{path}: {}", got.text);
    }
    let got = w.post("/v1/queues/purge", ADMIN, json!({ "all": true, "reason": "test" })).await;
    assert_eq!(got.json, json!({ "queues": 1, "recipients": 2, "in_flight": 1 }));
    assert_eq!(w.fake.memory.lock().commands, ["purge {} test key-admin"]);
    let got = w.post("/v1/queues/purge", ADMIN, json!({ "match": { "domian": "x.example" } })).await;
    assert_eq!((got.json["field"].clone(), got.json["nearest"].clone()), (json!("match.domian"), json!("domain")));
    let got = w.post("/v1/queues/reroute", ADMIN, json!({ "all": true, "pool": "nowhere" })).await;
    assert_eq!((got.status.as_u16(), got.json["detail"].clone()), (404, json!("not found: pool nowhere")));
}

#[tokio::test]
async fn suspensions_come_and_go() {
    let w = World::new();
    let hold = json!({ "match": { "domain": "slow.example" }, "reason": "ticket 17", "for": "2h" });
    let made = w.post("/v1/suspensions", ADMIN, hold).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::CREATED, "/v1/suspensions/1"));
    assert_eq!(
        (made.json["by"].as_str(), made.json["until"].as_str()),
        (Some(ADMIN), Some("2026-11-23T19:55:49.000Z"))
    );
    let theirs = json!({ "match": { "tenant": "other" }, "reason": "unpaid" });
    assert_eq!(w.post("/v1/suspensions", ADMIN, theirs).await.status, StatusCode::CREATED);
    // A tenant learns of what holds it, not of another tenant.
    let seen = w.get("/v1/suspensions", Some(ACME_READ)).await.json;
    assert_eq!(seen["suspensions"].as_array().map(Vec::len), Some(1));
    assert!(!seen.to_string().contains("unpaid"));

    let end = async |path: &str| w.request(Method::DELETE, path, Some(ADMIN), &[], Body::empty()).await.status.as_u16();
    assert_eq!(end("/v1/suspensions?domain=other.example").await, 404);
    assert_eq!(end("/v1/suspensions?domain=slow.example").await, 200);
    assert_eq!(end("/v1/suspensions/2").await, 200);
    assert_eq!(end("/v1/suspensions/2").await, 404);
    let past = json!({ "all": true, "until": "2020-01-01T00:00:00Z" });
    assert_eq!(w.post("/v1/suspensions", ADMIN, past).await.status.as_u16(), 422);
}

#[tokio::test]
async fn operators_commands_reach_the_daemon() {
    let w = World::new();
    let got = w.post("/v1/admin/reload", ADMIN, json!({})).await;
    assert_eq!(got.status.as_u16(), 422);
    assert!(got.json["detail"].as_str().is_some_and(|d| d.starts_with("posthaste.toml:3:1: ")), "{}", got.text);
    assert_eq!(w.post("/v1/admin/backup", ADMIN, json!({ "dir": "relative" })).await.status.as_u16(), 422);
    assert_eq!(w.post("/v1/admin/backup", ADMIN, json!({ "dir": "/tmp/b" })).await.json["bytes"], 5_000);
    assert_eq!(w.post("/v1/admin/drain", ADMIN, json!({})).await.status, StatusCode::ACCEPTED);
    assert_eq!(w.get("/v1/admin/status", Some(ADMIN)).await.json["state"], "draining");
    assert_eq!(w.get("/readyz", None).await.json["reasons"], json!(["draining"]));
    let message = json!({ "from": "a@acme.example", "to": "b@c.example", "text": "x" });
    assert_eq!(w.post("/v1/messages", ACME_SEND, message).await.status, StatusCode::SERVICE_UNAVAILABLE);
}
