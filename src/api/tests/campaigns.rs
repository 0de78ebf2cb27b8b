//! Campaigns over HTTP: the engine over a store in memory, behind the real routes.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;

use super::world::*;
use crate::campaign::testing;
use crate::event::EventKind;
use crate::store::RunCounts;

const SEND: &str = ACME_SEND;

async fn worlds() -> (testing::World, World) {
    let inner = testing::World::new().await;
    let outer = World::with(inner.campaigns.clone());
    (inner, outer)
}

fn job(id: &str) -> serde_json::Value {
    json!({ "id": id, "from": "news@acme.example", "subject": "s", "text": "t" })
}

#[tokio::test]
async fn a_job_comes_as_json_or_toml_and_twice_is_once() {
    let (_inner, w) = worlds().await;
    let made = w.post("/v1/campaigns", SEND, job("spring")).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::CREATED, "/v1/campaigns/spring"));
    assert_eq!(made.json, json!({ "id": "spring", "state": "draft" }));
    let toml = "id = \"spring\"\nfrom = \"news@acme.example\"\nsubject = \"s\"\ntext = \"t\"\n";
    let again = w.call(Method::POST, "/v1/campaigns", Some(SEND), "application/toml", toml.into()).await;
    assert_eq!(again.status, StatusCode::OK);
    let other = json!({ "id": "spring", "from": "news@acme.example", "subject": "another", "text": "t" });
    let other = w.post("/v1/campaigns", SEND, other).await;
    assert_eq!((other.status, &other.json["differs"]), (StatusCode::CONFLICT, &json!(["subject"])));
    // A key of another tenant does not see it, one that may only read makes none.
    assert_eq!(w.get("/v1/campaigns/spring", Some(OTHER_SEND)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(w.post("/v1/campaigns", ACME_READ, job("x")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(w.get("/v1/campaigns/spring", Some(ADMIN)).await.json["tenant"], "acme");
    let list = w.get("/v1/campaigns?state=draft", Some(SEND)).await.json;
    assert_eq!(list["campaigns"][0]["id"], "spring");
}

#[tokio::test]
async fn all_that_is_wrong_with_a_job_is_one_answer() {
    let (_inner, w) = worlds().await;
    let text = "{\"from\": \"x@stranger.example\",\n \"subjct\": 1, \"text\": \"t\"}";
    let got = w.call(Method::POST, "/v1/campaigns", Some(SEND), "application/json", text.into()).await;
    assert_eq!(got.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", got.text);
    let fields: Vec<&str> = got.json["problems"]
        .as_array()
        .map_or(Vec::new(), |all| all.iter().filter_map(|p| p["field"].as_str()).collect());
    assert_eq!(fields, ["subject", "subjct"]);
    assert_eq!(got.json["problems"][1]["line"], 2);
    assert_eq!(got.json["problems"][1]["fix"], "did you mean subject?");
}

#[tokio::test]
async fn an_idempotency_key_makes_one_campaign_of_two_requests() {
    let (_inner, w) = worlds().await;
    let body = json!({ "from": "news@acme.example", "subject": "s", "text": "t" }).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
    let send = |body: String| w.request(Method::POST, "/v1/campaigns", Some(SEND), &headers, Body::from(body));
    // The two stores of this test are apart: the record is put where the API reads.
    let first = send(body.clone()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let records = _inner.disk.lock().state.clone();
    w.fake.memory.lock().state.extend(records);
    let again = send(body).await;
    assert_eq!((again.json["id"].as_str(), again.header("idempotent-replayed")), (first.json["id"].as_str(), "true"));
    let other = send(json!({ "from": "news@acme.example", "subject": "z", "text": "t" }).to_string()).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn commands_are_202_twice_and_409_where_they_make_no_sense() {
    let (inner, w) = worlds().await;
    let no = inner.ready("a", 10, "").await;
    let command =
        async |what: &str, body: serde_json::Value| w.post(&format!("/v1/campaigns/a/{what}"), SEND, body).await;
    let early = command("pause", json!({})).await;
    assert_eq!((early.status, &early.json["state"]), (StatusCode::CONFLICT, &json!("draft")));
    let started = command("start", json!({})).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.text);
    assert_eq!((&started.json["state"], &started.json["counts"]["total"]), (&json!("running"), &json!(10)));
    assert_eq!(command("start", json!({})).await.json["already"], true);
    let paused = command("pause", json!({ "reason": "lunch" })).await;
    assert_eq!((paused.status, &paused.json["in_flight"]), (StatusCode::ACCEPTED, &json!(0)));
    let patched =
        w.call(Method::PATCH, "/v1/campaigns/a", Some(SEND), "application/json", r#"{"rate":"5/s"}"#.into()).await;
    assert_eq!(
        (&patched.json["rate"], &patched.json["hold"]["reason"]),
        (&json!("5/s"), &json!("paused")),
        "{}",
        patched.text
    );
    assert_eq!(command("resume", json!({})).await.status, StatusCode::ACCEPTED);
    assert_eq!(command("resume", json!({ "raeson": "x" })).await.json["nearest"], "reason");
    let delete = w.call(Method::DELETE, "/v1/campaigns/a", Some(SEND), "", String::new()).await;
    assert_eq!(delete.status, StatusCode::CONFLICT);
    assert_eq!(command("cancel", json!({})).await.json["recipients"], 10);
    let view = w.get("/v1/campaigns/a", Some(ACME_READ)).await.json;
    assert_eq!((&view["state"], &view["counts"]["cancelled"]), (&json!("cancelled"), &json!(10)));
    let delete = w.call(Method::DELETE, "/v1/campaigns/a", Some(SEND), "", String::new()).await;
    assert_eq!(delete.status, StatusCode::NO_CONTENT);
    assert!(!inner.disk.lock().counts.contains_key(&no.0));
}

#[tokio::test]
async fn progress_is_told_until_the_end_and_events_are_the_campaigns_own() {
    let (inner, w) = worlds().await;
    let no = inner.ready("a", 2, "").await;
    w.post("/v1/campaigns/a/start", SEND, json!({})).await;
    let done = RunCounts { rows: 2, events: [(EventKind::Delivered, 2)].into(), ..RunCounts::default() };
    inner.disk.lock().counts.insert(no.0, done);
    let (close, closing) = tokio::sync::watch::channel(false);
    let campaigns = inner.campaigns.clone();
    let task = tokio::spawn(async move { campaigns.run(closing).await });
    let finish = async {
        // A commit of the API's own store wakes the stream.
        for _ in 0..100 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            w.fake.event(EventKind::Delivered, "acme", |e| e.campaign = Some(name("a")));
            w.fake.event(EventKind::Delivered, "acme", |e| e.campaign = Some(name("b")));
        }
    };
    let stream = tokio::select! {
        got = w.get("/v1/campaigns/a/progress", Some(SEND)) => got,
        () = finish => panic!("the stream does not end with the campaign"),
    };
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let last = stream.text.trim_end().rsplit("data: ").next().unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((&last["state"], &last["counts"]["delivered"]), (&json!("done"), &json!(2)));
    close.send_replace(true);
    task.await.expect("it ends");
    w.fake.event(EventKind::Delivered, "acme", |e| e.campaign = Some(name("b")));
    let events = w.get("/v1/events?campaign=b&limit=1", Some(SEND)).await.json;
    assert_eq!(events["events"][0]["campaign"], "b");
    assert_eq!(w.get("/v1/campaigns/none/events", Some(SEND)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn recipients_go_to_the_upload_with_what_the_client_says_of_them() {
    let (inner, w) = worlds().await;
    inner.ready("a", 0, "").await;
    let put = async |headers: &[(&str, &str)], path: &str| {
        w.request(Method::PUT, path, Some(SEND), headers, Body::from("{}\n")).await
    };
    let path = "/v1/campaigns/a/recipients";
    let got = put(&[("content-type", "application/x-ndjson"), ("upload-offset", "0")], path).await;
    assert_eq!((got.status, got.header("upload-offset")), (StatusCode::OK, "0"), "{}", got.text);
    assert_eq!(put(&[("upload-offset", "x")], path).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(put(&[("upload-complete", "no")], path).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(put(&[], "/v1/campaigns/a/recipients?tenent=a").await.json["nearest"], "tenant");
    let head = w.call(Method::HEAD, path, Some(SEND), "", String::new()).await;
    assert_eq!((head.status, head.header("upload-complete")), (StatusCode::NO_CONTENT, "?0"));
    assert_eq!(w.get("/v1/campaigns/a", Some(SEND)).await.json["state"], "uploading");
}

#[tokio::test]
async fn without_campaigns_their_routes_say_so() {
    let w = World::new();
    assert_eq!(w.get("/v1/campaigns", Some(SEND)).await.status, StatusCode::SERVICE_UNAVAILABLE);
}
