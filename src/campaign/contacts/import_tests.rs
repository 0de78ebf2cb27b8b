//! Tests of the import of contacts.

use super::*;
use crate::campaign::recipients::chunks;
use crate::campaign::recipients::testing::FakeStore;
use crate::seam::clock::Clock;
use crate::types::Timestamp;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}

async fn import(contacts: &Contacts, audience: &str, types: &str, body: &str) -> ImportDone {
    let (sender, receiver) = chunks();
    for chunk in [body.to_owned(), String::new()] {
        sender.send(Ok(chunk.into())).await.expect("room");
    }
    let types = types.parse().expect("types");
    let (done, error) = contacts.import(&name("acme"), &name(audience), types, Input::default(), receiver).await;
    assert!(error.is_none(), "{error:?}");
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_upserts_by_address() {
    let store = FakeStore::new();
    let clock = Clock::manual(Timestamp::from_millis(1_795_456_549_000));
    let contacts = Contacts::new(store.ledger.clone(), store.reader.clone(), clock);
    let csv = "email,name,age,since\nA@x.example,Ann,41,2026-01-02\nb@x.example,,old,\nnobody,,,\na@X.example,Anne,,\n";
    let done = import(&contacts, "customers", "age=number,since=date", csv).await;
    assert_eq!((done.read, done.created, done.updated, done.invalid), (4, 1, 1, 2));
    assert_eq!((done.rejects[0].row, &*done.rejects[0].detail), (2, "age: \"old\" is no number"));
    let json = "{\"email\":\"a@x.example\",\"vars\":{\"age\":null,\"vip\":true}}\n{\"email\":\"c@x.example\"}\n";
    let done = import(&contacts, "customers", "", json).await;
    assert_eq!((done.created, done.updated), (1, 1));
    let ann = contacts.get(&name("acme"), &name("customers"), &mailbox("a@x.example")).await.expect("readable");
    let ann = ann.expect("there");
    assert_eq!((ann.email.as_str(), ann.name.as_deref()), ("a@x.example", Some("Anne")));
    assert_eq!(Value::Object(ann.attributes).to_string(), r#"{"since":"2026-01-02","vip":true}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn audiences_are_apart_and_an_erasure_reaches_all() {
    let store = FakeStore::new();
    let contacts = Contacts::new(store.ledger.clone(), store.reader.clone(), Clock::manual(Timestamp::ZERO));
    let all: String = (0..2_500).map(|n| format!("{{\"email\":\"u{n:04}@x.example\"}}\n")).collect();
    for (audience, body) in [("a", all.as_str()), ("ab", "{\"email\":\"u0007@x.example\"}"), ("b", &all[..60])] {
        import(&contacts, audience, "", body).await;
    }
    let acme = name("acme");
    assert_eq!(contacts.audiences(&acme).await.expect("readable"), [name("a"), name("ab"), name("b")]);
    assert_eq!(contacts.audiences(&name("acm")).await.expect("readable"), []);
    let page = contacts.page(&acme, &name("a"), Some("u0998@x.example"), 2).await.expect("readable");
    assert_eq!(
        page.contacts.iter().map(|c| c.email.as_str()).collect::<Vec<_>>(),
        ["u0999@x.example", "u1000@x.example"]
    );
    assert_eq!(page.next.as_deref(), Some("u1000@x.example"));
    let erased = contacts.erase(&acme, &mailbox("U0007@x.example")).await.expect("stored");
    assert_eq!(erased, [name("a"), name("ab")]);
    assert!(!contacts.remove(&acme, &name("a"), &mailbox("u0007@x.example")).await.expect("stored"));
    assert_eq!(contacts.audiences(&acme).await.expect("readable"), [name("a"), name("b")]);
    assert_eq!(contacts.drop_audience(&acme, &name("a")).await.expect("stored"), 2_499);
}
