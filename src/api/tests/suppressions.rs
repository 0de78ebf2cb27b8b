//! `/v1/suppressions`.

use axum::http::Method;
use serde_json::json;

use super::world::*;

const PATH: &str = "/v1/suppressions";

#[tokio::test]
async fn a_tenant_sees_and_changes_its_own() {
    let w = World::new();
    let add =
        json!({"address": "Jane@X.example", "list": "news", "reason": "unsubscribe", "for": "30d", "note": "asked"});
    let made = w.post(PATH, ACME_SEND, add.clone()).await;
    assert_eq!(
        (made.status.as_u16(), &made.json["scope"], &made.json["tenant"]),
        (201, &json!("list"), &json!("acme"))
    );
    assert_eq!(w.post(PATH, ACME_SEND, add).await.status, 200, "the same again is the same");
    assert_eq!(w.post(PATH, ADMIN, json!({"address": "jane@x.example", "global": true})).await.status, 201);
    let count = async |key: &str, query: &str| {
        let got = w.get(&format!("{PATH}{query}"), Some(key)).await;
        assert_eq!(got.status, 200, "{}", got.text);
        got.json["suppressions"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count(ACME_READ, "?address=JANE@x.example").await, 1, "the node's are not a tenant's");
    assert_eq!(count(ACME_READ, "").await, 1);
    assert_eq!(count(OTHER_SEND, "").await, 0);
    assert_eq!(count(NODE_READ, "?address=jane@x.example").await, 2);
    assert_eq!(count(NODE_READ, "?global=true").await, 1);
    assert_eq!(count(ACME_READ, "?reason=complaint").await, 0);
    // A page's key of somebody else's leads nowhere.
    let next =
        w.get(&format!("{PATH}?limit=1"), Some(ADMIN)).await.json["next"].as_str().unwrap_or_default().to_owned();
    assert_eq!(count(OTHER_SEND, &format!("?after={next}")).await, 0);
    assert_eq!(count(OTHER_SEND, "?after=00").await, 0);

    for (key, body, status) in [
        (ACME_READ, json!({"address": "a@x.example"}), 403),
        (ACME_SEND, json!({"address": "a@x.example", "global": true}), 403),
        (ACME_SEND, json!({"address": "a@x.example", "tenant": "other"}), 403),
        (ADMIN, json!({"address": "a@x.example"}), 422),
        (ADMIN, json!({"address": "a@x.example", "tenant": "nobody"}), 422),
        (ACME_SEND, json!({"address": "nonsense"}), 422),
        (ACME_SEND, json!({"address": "a@x.example", "expires": "2020-01-01"}), 422),
        (ACME_SEND, json!({"address": "a@x.example", "reason": "whim"}), 422),
        (ACME_SEND, json!({"address": "a@x.example", "note": "two\nlines"}), 422),
    ] {
        let got = w.post(PATH, key, body.clone()).await;
        assert_eq!(got.status.as_u16(), status, "{body}: {}", got.text);
    }
    let delete = async |key: &str, query: &str| {
        w.call(Method::DELETE, &format!("{PATH}?address=jane@x.example{query}"), Some(key), "", String::new())
            .await
            .status
    };
    assert_eq!(delete(OTHER_SEND, "").await, 404);
    assert_eq!(delete(ACME_SEND, "").await, 404, "the tenant's own scope has none");
    assert_eq!(delete(ACME_READ, "&all=true").await, 403);
    assert_eq!(delete(ACME_SEND, "&all=true").await, 200);
    assert_eq!(delete(ADMIN, "&global=true").await, 200);
    assert_eq!(count(ADMIN, "").await, 0);
}

#[tokio::test]
async fn files_go_in_and_out() {
    let w = World::new();
    // Longer than `http.max_body`: an import is streamed.
    let mut file = String::from("email,reason\nnonsense,\n");
    (0..5_000).for_each(|n| file.push_str(&format!("person{n}@x.example,complaint\n")));
    let path = format!("{PATH}/import?tenant=acme");
    let got = w.call(Method::POST, &path, Some(ADMIN), "text/csv", file.clone()).await;
    assert_eq!(
        (got.status.as_u16(), &got.json["added"], &got.json["invalid"]),
        (200, &json!(5_000), &json!(1)),
        "{}",
        got.text
    );
    assert_eq!(got.json["errors"][0]["line"], 2);
    let again = w.call(Method::POST, &path, Some(ACME_SEND), "text/csv", file).await;
    assert_eq!((&again.json["added"], &again.json["renewed"]), (&json!(0), &json!(5_000)));
    let refused = w.call(Method::POST, &path, Some(ADMIN), "text/csv", "town\nLyon\n".into()).await;
    assert_eq!((refused.status.as_u16(), &refused.json["added"]), (422, &json!(0)));
    assert_eq!(w.call(Method::POST, &path, Some(ADMIN), "image/png", String::new()).await.status, 415);

    let csv = w.get(&format!("{PATH}/export"), Some(ACME_READ)).await;
    assert_eq!((csv.header("content-type"), csv.text.lines().count()), ("text/csv; charset=utf-8", 5_001));
    let ndjson = w.get(&format!("{PATH}/export?format=ndjson"), Some(ACME_READ)).await;
    assert!(ndjson.text.lines().count() == 5_000 && ndjson.text.contains("\"reason\":\"complaint\""));
    assert_eq!(w.get(&format!("{PATH}/export"), Some(OTHER_SEND)).await.text.lines().count(), 1);
}
