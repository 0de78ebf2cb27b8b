//! The API against stand-ins for everything below it.

mod alerts;
mod campaigns;
mod contacts;
mod events;
mod messages;
mod queues;
mod server;
mod suppressions;
pub(crate) mod world;

use axum::http::{Method, StatusCode};
use serde_json::json;

pub(crate) use messages::queued as messages_queued;
use world::{ACME_READ, ADMIN, NODE_READ, OTHER_SEND, World};

#[tokio::test]
async fn without_a_key_nothing_but_monitoring_answers() {
    let w = World::new();
    for path in ["/v1/events", "/v1/queues", "/v1/admin/status", "/v1/trace?address=a@b.example"] {
        let got = w.get(path, None).await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(got.header("www-authenticate"), "Bearer realm=\"posthaste\"");
        assert_eq!(got.json["instance"], path.split('?').next().expect("a path"));
    }
    let got = w.get("/v1/events", Some("wrong")).await;
    assert!(got.header("www-authenticate").contains("invalid_token"));
    for path in ["/metrics", "/healthz", "/readyz", "/v1/openapi.json"] {
        assert_eq!(w.get(path, None).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn each_role_may_do_its_own() {
    let w = World::new();
    let message = json!({ "from": "a@acme.example", "to": "b@c.example", "text": "x" });
    let check = async |method: Method, path: &str, key: &str, body: serde_json::Value, want: u16| {
        let got = w.call(method, path, Some(key), "application/json", body.to_string()).await;
        assert_eq!(got.status.as_u16(), want, "{path} with {key}: {}", got.json);
    };
    check(Method::POST, "/v1/messages", ACME_READ, message.clone(), 403).await;
    check(Method::POST, "/v1/messages", NODE_READ, message.clone(), 403).await;
    check(Method::POST, "/v1/messages", OTHER_SEND, message.clone(), 202).await;
    check(Method::POST, "/v1/queues/retry", OTHER_SEND, json!({}), 403).await;
    check(Method::POST, "/v1/queues/retry", NODE_READ, json!({}), 403).await;
    check(Method::POST, "/v1/queues/retry", ADMIN, json!({}), 200).await;
    check(Method::POST, "/v1/admin/drain", OTHER_SEND, json!({}), 403).await;
    check(Method::GET, "/v1/admin/status", ACME_READ, json!({}), 403).await;
    check(Method::GET, "/v1/admin/status", NODE_READ, json!({}), 200).await;
}

#[tokio::test]
async fn a_tenants_admin_key_in_the_file_is_not_admin() {
    // A mistake in the config must not make a tenant's key the node's.
    let w = World::new();
    w.config(|c| c.tenants[0].api_keys[0].role = crate::config::Role::Admin);
    let got = w.call(Method::POST, "/v1/queues/retry", Some(ACME_READ), "application/json", "{}".into()).await;
    assert_eq!(got.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_reload_changes_the_keys_at_once() {
    let w = World::new();
    assert_eq!(w.get("/v1/events", Some(ADMIN)).await.status, StatusCode::OK);
    w.config(|c| c.http.as_mut().expect("has http").api_keys.clear());
    assert_eq!(w.get("/v1/events", Some(ADMIN)).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let w = World::new();
    let got = w.get("/v1/nothing", None).await;
    assert_eq!((got.status, got.json["status"].clone()), (StatusCode::NOT_FOUND, json!(404)));
    assert_eq!(got.header("content-type"), "application/problem+json");
    assert_eq!(got.json["instance"], "/v1/nothing");

    let got = w.call(Method::PUT, "/v1/messages", Some(ADMIN), "application/json", String::new()).await;
    assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(got.json["type"], "urn:posthaste:problem:method-not-allowed");
    assert_eq!(got.header("allow"), "POST");
}

#[tokio::test]
async fn a_misspelt_parameter_is_not_ignored() {
    // `?domian=x` ignored would list, or worse retry, everything.
    let w = World::new();
    let got = w.get("/v1/queues?domian=x.example", Some(ADMIN)).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
    assert_eq!((got.json["parameter"].clone(), got.json["nearest"].clone()), (json!("domian"), json!("domain")));
    let got = w.get("/v1/queues?limit=0", Some(ADMIN)).await;
    assert_eq!((got.status.as_u16(), got.json["field"].clone()), (422, json!("limit")));
}

#[tokio::test]
async fn readiness_tells_why_not() {
    let w = World::new();
    w.health(|h| h.not_ready = vec!["low on disk space: 3 octets free".into()]);
    let got = w.get("/readyz", None).await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(got.json["reasons"], json!(["low on disk space: 3 octets free"]));
    assert_eq!(w.get("/healthz", None).await.status, StatusCode::OK);
    w.health(|h| h.store_failed = Some("poisoned".into()));
    let got = w.get("/healthz", None).await;
    assert_eq!((got.status.as_u16(), got.json["detail"].clone()), (503, json!("the store failed: poisoned")));
}

#[tokio::test]
async fn metrics_show_the_queues() {
    let w = World::new();
    let text = w.get("/metrics", None).await.text;
    assert!(text.contains("posthaste_queue_held_recipients{"), "{text}");
    assert!(text.contains("posthaste_process_resident_memory_bytes"));
}

#[tokio::test]
async fn the_document_has_every_route_and_every_member_of_an_event() {
    let w = World::new();
    let document = w.get("/v1/openapi.json", None).await.json;
    let paths = document["paths"].as_object().expect("paths");
    for path in
        ["/v1/messages", "/v1/messages/{id}", "/v1/events", "/v1/queues/explain", "/v1/suspensions/{id}", "/readyz"]
    {
        assert!(paths.contains_key(path), "{path} of {:?}", paths.keys());
    }
    let event = serde_json::to_value(world::full_event()).expect("can be written");
    let documented =
        document["components"]["schemas"]["Event"]["properties"].as_object().expect("the schema of events");
    let (mut written, mut named): (Vec<_>, Vec<_>) =
        (event.as_object().expect("an object").keys().collect(), documented.keys().collect());
    written.sort();
    named.sort();
    assert_eq!(written, named);
}
