//! Audiences over HTTP.

use axum::body::Body;
use axum::http::{Method, StatusCode};

use super::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_is_imported_read_and_forgotten() {
    let world = World::new();
    let csv = "email,age\na@x.example,41\nb@x.example,old\nc@x.example,7\n".to_owned();
    let path = "/v1/contacts/customers?types=age%3Dnumber";
    let got = world.call(Method::PUT, path, Some(ACME_SEND), "text/csv", csv.clone()).await;
    assert_eq!(got.status, StatusCode::OK, "{}", got.text);
    assert_eq!((&got.json["created"], &got.json["invalid"]), (&2.into(), &1.into()));
    assert_eq!(got.json["rejects"][0]["address"], "b@x.example");
    let got = world.get("/v1/contacts/customers?limit=1", Some(ACME_READ)).await;
    assert_eq!((&got.json["contacts"][0]["attributes"]["age"], &got.json["next"]), (&41.into(), &"a@x.example".into()));
    let got = world.get("/v1/contacts/customers/C@x.example", Some(ACME_READ)).await;
    assert_eq!(got.json["email"], "c@x.example");
    // Another tenant sees nothing of it; a key that may only read changes nothing.
    let got = world.get("/v1/contacts/customers/c@x.example", Some(OTHER_SEND)).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    let got = world.call(Method::PUT, path, Some(ACME_READ), "text/csv", csv).await;
    assert_eq!(got.status, StatusCode::FORBIDDEN);
    let delete = |path: &'static str| world.request(Method::DELETE, path, Some(ACME_SEND), &[], Body::empty());
    let got = delete("/v1/contacts/customers/c@x.example?erase=true").await;
    assert_eq!((&got.json["audiences"][0], &got.json["erased"]), (&"customers".into(), &true.into()));
    let got = delete("/v1/contacts/customers/c@x.example").await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    let got = world.get("/v1/contacts?tenant=acme", Some(ADMIN)).await;
    assert_eq!(got.json["audiences"], serde_json::json!(["customers"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_list_says_why() {
    let world = World::new();
    for (media, body, status, part) in [
        ("text/csv", "name\nx\n", 422, "no column is named email"),
        ("application/pdf", "x", 415, "not taken here"),
        ("text/csv", "email,a,a\n", 422, "two columns"),
        ("", "[{}]", 422, "a JSON list"),
    ] {
        let got = world.call(Method::PUT, "/v1/contacts/x", Some(ACME_SEND), media, body.into()).await;
        assert_eq!(got.status.as_u16(), status, "{}", got.text);
        assert!(got.text.contains(part), "{}", got.text);
    }
}
