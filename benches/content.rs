//! What a campaign's message costs from its row to its octets: 10 KB of HTML, a text made from it, ten variables, all header fields.
//!
//! `cargo bench --bench content`. The aim is at most 80 µs for `made`; `ed25519` and `rsa_2048` add hashing and a signature, `with_a_file` shows that
//! a shared file costs nothing but its hash, and nothing without a signature.

use std::sync::Arc;

use arc_swap::ArcSwap;
use divan::Bencher;
use posthaste::campaign::content::{Blueprint, MessageIdKey, Outside, Target};
use posthaste::campaign::job::Job;
use posthaste::campaign::model::Sealed;
use posthaste::config::{Config, Public};
use posthaste::dkim::{Algorithm, Key, PrivateKey, keygen, sign_parts};
use posthaste::links::Links;
use posthaste::mime::skeleton::Assembled;
use posthaste::types::{CampaignNo, Domain, Name, QueueId, RowId, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);
const ROW: &str = r#"{"email":"jane.doe@sink.test","name":"Zoë Martin","tz":"Europe/Paris","vars":{"first_name":"Zoë","town":"Lyon","age":41,"plan":"gold","ref":"0000004711","v6":"six","v7":"seven","v8":"eight","v9":"nine","v10":"ten"},"metadata":{"id":7}}"#;

fn main() {
    divan::main();
}

fn blueprint(file: Option<usize>) -> Blueprint {
    let mut html = String::from("<!doctype html>\n<html><body>\n<table>\n");
    for name in ["first_name", "town", "age", "plan", "ref", "v6", "v7", "v8", "v9", "v10"] {
        let words = "Lorem ipsum dolor sit amet, consectetur. ".repeat(23);
        html.push_str(&format!("<tr><td style=\"padding:8px\">\n<p>{words}{{{{ {name} }}}}</p>\n</td></tr>\n"));
    }
    html.push_str("</table>\n<a href=\"{{ unsubscribe_url }}\">leave</a>\n</body></html>\n");
    let attachments: Vec<_> = file
        .map(|size| serde_json::json!({"name": "a.pdf", "type": "application/pdf", "content": "QUJD".repeat(size / 3)}))
        .into_iter()
        .collect();
    let job = serde_json::json!({
        "from": "Acme Shop <shop@acme.example>", "reply_to": ["help@acme.example"], "subject": "{{ first_name }}, news from {{ town }}",
        "html": html, "list": "news", "class": "marketing", "attachments": attachments,
    });
    let job = Job::from_json(job.to_string().as_bytes()).expect("a job");
    let name = |text: &str| Name::parse(text).expect("a name");
    let (no, version) = (CampaignNo(1), 1);
    let (tenant, id, pool, job) = (name("acme"), name("spring"), name("default"), Arc::new(job));
    Blueprint::new(Arc::new(Sealed { no, tenant, id, pool, job, version, started: NOW, due: NOW })).expect("compiles")
}

fn outside() -> Outside {
    let public = Public {
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 8080)),
        url: "https://links.acme.example".into(),
        trusted_proxies: Vec::new(),
    };
    let config = Config { public: Some(public), ..Config::default() };
    let config = Arc::new(ArcSwap::from_pointee(config));
    Outside { links: Links::ephemeral(), key: MessageIdKey::new(&[7; 32]), config }
}

fn made(blueprint: &Blueprint, outside: &Outside) -> Assembled {
    let id = RowId { campaign: CampaignNo(1), step: 0, queue: QueueId(5), slot: 0, seq: 9 };
    let target = Target { row: ROW.as_bytes(), id: Some(id), test: None };
    blueprint.assemble(blueprint.draw(&target, outside).expect("renders"))
}

fn signed(bencher: Bencher<'_, '_>, algorithm: Algorithm, file: Option<usize>) {
    let pem = keygen(algorithm).expect("a key").private_pem;
    let private = PrivateKey::from_pem(pem.as_bytes(), algorithm).expect("parses");
    let domain = Domain::parse("acme.example").expect("valid");
    let keys = [Arc::new(Key { domain, selector: "s1".into(), algorithm, active_from: None, private: Ok(private) })];
    let (blueprint, outside) = (blueprint(file), outside());
    bencher.bench(|| {
        let message = made(&blueprint, &outside);
        let (header, first) = message.split();
        let body = std::iter::once(first).chain(message.parts.iter().skip(1).map(|part| &part[..]));
        let fields = sign_parts(header, body, &keys, NOW).expect("signs");
        (fields, message)
    });
}

#[divan::bench(name = "made")]
fn only_made(bencher: Bencher<'_, '_>) {
    let (blueprint, outside) = (blueprint(None), outside());
    bencher.bench(|| made(&blueprint, &outside));
}

#[divan::bench]
fn with_a_file(bencher: Bencher<'_, '_>) {
    let (blueprint, outside) = (blueprint(Some(1 << 20)), outside());
    bencher.bench(|| made(&blueprint, &outside));
}

#[divan::bench]
fn ed25519(bencher: Bencher<'_, '_>) {
    signed(bencher, Algorithm::Ed25519Sha256, None);
}

#[divan::bench]
fn rsa_2048(bencher: Bencher<'_, '_>) {
    signed(bencher, Algorithm::RsaSha256, None);
}
