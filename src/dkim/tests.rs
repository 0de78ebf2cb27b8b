use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use proptest::prelude::*;

use super::canonical::{body_hash, relaxed_field, split};
use super::*;
use crate::seam::random::Seeded;
use crate::types::{Domain, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("valid")
}

fn spec(d: &str, selector: &str, algorithm: Algorithm, sign_for: &[&str], active_from: Option<u64>) -> KeySpec {
    KeySpec {
        key: Key {
            domain: domain(d),
            selector: selector.into(),
            algorithm,
            active_from: active_from.map(Timestamp::from_millis),
            private: Err("none in this test".into()),
        },
        sign_for: sign_for.iter().map(|s| SignFor::parse(s).expect("valid")).collect(),
    }
}

fn made(d: &str, selector: &str, algorithm: Algorithm) -> (Arc<Key>, DnsRecord) {
    let new = keygen(algorithm).expect("a key");
    let private = PrivateKey::from_pem(new.private_pem.as_bytes(), algorithm).expect("parses what was made");
    assert_eq!(private.public_base64().expect("public"), new.public_base64);
    let record = dns_record(selector, &domain(d), algorithm, &new.public_base64);
    let key = Key { domain: domain(d), selector: selector.into(), algorithm, active_from: None, private: Ok(private) };
    (Arc::new(key), record)
}

/// The relaxed form as RFC 6376 §3.4.4 words it, step by step and without a thought for speed.
fn plain_relaxed_body(body: &[u8]) -> Vec<u8> {
    let text: String = body.iter().map(|b| char::from(*b)).collect();
    let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    for line in &mut lines {
        let trimmed = line.trim_end_matches([' ', '\t']).replace('\t', " ");
        let mut squeezed = trimmed;
        while squeezed.contains("  ") {
            squeezed = squeezed.replace("  ", " ");
        }
        *line = squeezed;
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.iter().flat_map(|l| l.chars().map(|c| c as u8).chain(*b"\r\n")).collect()
}

fn check_body(body: &[u8], canonical: &[u8]) {
    assert_eq!(plain_relaxed_body(body), canonical, "the plain form of {body:?}");
    assert_eq!(body_hash(body).as_ref(), digest(&SHA256, canonical).as_ref(), "{:?}", String::from_utf8_lossy(body));
}

#[test]
fn bodies_with_odd_ends() {
    check_body(b"", b"");
    check_body(b"\r\n", b"");
    check_body(b"\r\n\r\n\r\n", b"");
    check_body(b" \r\n\t\r\n", b"");
    check_body(b"  ", b"");
    check_body(b"a", b"a\r\n");
    check_body(b"a\r\n  ", b"a\r\n");
    check_body(b"a\r\n \r\n\t \r\n", b"a\r\n");
    check_body(b"a \r\n \r\n b\t\tc  \r\n", b"a\r\n\r\n b c\r\n");
    check_body(b".\r\n..\r\n", b".\r\n..\r\n");
    check_body(b" a\r\n", b" a\r\n");
    check_body(b"\t a\r\n", b" a\r\n");
    check_body(b"a\rb\nc\r\n", b"a\rb\nc\r\n");
    check_body("ü\r\n".as_bytes(), "ü\r\n".as_bytes());
    // RFC 6376 §3.4.5's example.
    check_body(b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n");
    let long = [vec![b'x'; 10_000], b"\r\n\r\ny  z \r\n".to_vec()].concat();
    check_body(&long, &[vec![b'x'; 10_000], b"\r\n\r\ny z\r\n".to_vec()].concat());
}

#[test]
fn fields_in_relaxed_form() {
    // RFC 6376 §3.4.5's example.
    let (fields, body) = split(b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\n");
    let mut out = Vec::new();
    for field in fields {
        relaxed_field(field.name, field.value, &mut out);
        out.extend_from_slice(b"\r\n");
    }
    assert_eq!(out, b"a:X\r\nb:Y Z\r\n");
    assert_eq!(body, b" C \r\n");
    assert!(split(b"A: b").1.is_empty());
}

proptest! {
    #[test]
    fn any_body_hashes_as_the_rfc_words_it(
        pieces in proptest::collection::vec(
            prop_oneof![
                4 => Just(b"\r\n".to_vec()), 3 => Just(b" ".to_vec()), 2 => Just(b"\t".to_vec()), 4 => Just(b"word".to_vec()),
                1 => Just(b"\r".to_vec()), 1 => Just(b"\n".to_vec()), 1 => Just(vec![b'l'; 5_000]), 1 => Just(vec![0xfc, b'.']),
            ],
            0..40,
        )
    ) {
        let body = pieces.concat();
        let canonical = plain_relaxed_body(&body);
        let (got, want) = (body_hash(&body), digest(&SHA256, &canonical));
        prop_assert_eq!(got.as_ref(), want.as_ref());
    }
}

#[test]
fn every_field_that_matters_is_oversigned() {
    let (key, _) = made("acme.example", "e1", Algorithm::Ed25519Sha256);
    let message = b"From: a@acme.example\r\nReceived: x\r\nSubject: one\r\nsubject: two\r\nList-Id: <l>\r\n\r\nx\r\n";
    let field = String::from_utf8(sign(message, &[key], NOW).expect("signs")).expect("ASCII");
    let flat: String = field.split_whitespace().collect();
    let h = flat.split("h=").nth(1).and_then(|rest| rest.split(';').next()).expect("h=");
    let count = |name: &str| h.split(':').filter(|n| n.eq_ignore_ascii_case(name)).count();
    assert_eq!((count("From"), count("Subject"), count("List-Id")), (2, 3, 2));
    assert_eq!((count("Reply-To"), count("List-Unsubscribe"), count("Received")), (1, 0, 0));
    assert!(!flat.contains(";l=") && !flat.contains(";x="), "{flat}");
    assert!(field.lines().all(|line| line.len() <= 78), "{field}");
    assert!(field.ends_with("\r\n") && !field.contains("\r\n\r\n"));
}

#[test]
fn a_broken_key_stops_the_message() {
    let (good, _) = made("acme.example", "e1", Algorithm::Ed25519Sha256);
    let broken = Arc::new(spec("acme.example", "r1", Algorithm::RsaSha256, &[], None).key);
    let error = sign(b"From: a@acme.example\r\n\r\n", &[good, broken], NOW).expect_err("not unsigned");
    assert_eq!(error.to_string(), "DKIM key of d=acme.example s=r1: none in this test");
}

#[test]
fn the_ring_chooses() {
    use Algorithm::{Ed25519Sha256 as Ed, RsaSha256 as Rsa};
    let ring = KeyRing::new(vec![
        spec("acme.example", "old", Rsa, &[], None),
        spec("acme.example", "new", Rsa, &[], Some(1_000)),
        spec("acme.example", "next", Rsa, &[], Some(9_000)),
        spec("acme.example", "ed", Ed, &[], None),
        spec("news.acme.example", "n", Rsa, &[], None),
        spec("esp.example", "fbl", Rsa, &["*"], None),
        spec("esp.example", "cust", Ed, &["customer.example", "*.other.example"], None),
    ]);
    let names = |from: &str, reverse: Option<&str>, now: u64| {
        let reverse = reverse.map(domain);
        let from = (!from.is_empty()).then(|| domain(from));
        let keys = ring.for_message(from.as_ref(), reverse.as_ref(), Timestamp::from_millis(now));
        keys.iter().map(|k| k.selector.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("acme.example", None, 0), "old ed fbl");
    assert_eq!(names("acme.example", None, 1_000), "new ed fbl");
    assert_eq!(names("shop.acme.example", None, 10_000), "next ed fbl");
    assert_eq!(names("news.acme.example", None, 0), "n fbl");
    assert_eq!(names("notacme.example", None, 0), "fbl");
    assert_eq!(names("customer.example", None, 0), "fbl cust");
    assert_eq!(names("a.customer.example", None, 0), "fbl");
    assert_eq!(names("a.b.other.example", None, 0), "fbl cust");
    assert_eq!(names("other.example", None, 0), "fbl");
    assert_eq!(names("", Some("bounce.acme.example"), 0), "old ed fbl");
    assert_eq!(names("elsewhere.example", Some("acme.example"), 0), "old ed fbl");
    assert!(ring.covers(&domain("acme.example")) && !ring.covers(&domain("esp.example")));
}

#[test]
fn keys_that_are_refused() {
    let ed = keygen(Algorithm::Ed25519Sha256).expect("a key").private_pem;
    let rsa = PrivateKey::from_pem(ed.as_bytes(), Algorithm::RsaSha256);
    assert!(matches!(rsa, Err(KeyError::Rejected { .. })), "{rsa:?}");
    assert!(matches!(PrivateKey::from_pem(b"hello", Algorithm::RsaSha256), Err(KeyError::Pem(_))));
    let small = PrivateKey::from_pem(SMALL_RSA.as_bytes(), Algorithm::RsaSha256).expect_err("1,024 bits");
    assert!(small.to_string().contains("shorter than 2048 bits"), "{small}");
}

/// 1,024 bits, made for this test.
const SMALL_RSA: &str = include_str!("testdata/rsa-1024.pem");
/// PKCS #1, 2,048 bits, made for this test.
const PKCS1_RSA: &str = include_str!("testdata/rsa-2048-pkcs1.pem");

#[test]
fn pkcs1_is_read_too() {
    PrivateKey::from_pem(PKCS1_RSA.as_bytes(), Algorithm::RsaSha256).expect("PKCS #1");
}

#[test]
fn records_are_split_where_needed() {
    let new = keygen(Algorithm::RsaSha256).expect("a key");
    let record = dns_record("s1", &domain("acme.example"), Algorithm::RsaSha256, &new.public_base64);
    assert_eq!(record.name, "s1._domainkey.acme.example");
    assert!(record.value.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBg"), "{}", record.value);
    let strings: Vec<&str> = record.zone_line.split('"').skip(1).step_by(2).collect();
    assert!(strings.len() == 2 && strings.iter().all(|s| s.len() <= TXT_STRING_MAX), "{}", record.zone_line);
    assert_eq!(strings.concat(), record.value);
    let ed = dns_record("e1", &domain("acme.example"), Algorithm::Ed25519Sha256, "AAAA");
    assert_eq!(ed.zone_line, "e1._domainkey.acme.example. IN TXT \"v=DKIM1; k=ed25519; p=AAAA\"");
}

/// Bodies that verifiers disagree on when the canonical form is wrong, and random ones of the same stuff.
fn odd_bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        &b""[..],
        b"\r\n",
        b"\r\n\r\n",
        b" \r\n",
        b"Hello\r\n",
        b"Hello",
        b"Hello\r\n\r\n\r\n",
        b"Hello\r\n   \r\n\t\r\n",
        b"Hello  \r\n \r\n",
        b"a\r\n  ",
        b".\r\n",
        b"..\r\n.a\r\n.\r\n",
        b"  indented\r\n\ttab\r\n",
        b"a  b\t\tc \t d\r\n",
        b"gr\xfc\xdfe \xe2\x82\xac\r\n",
        b" \t \r\nafter blank\r\n",
        b"--boundary\r\n\r\n--boundary--\r\n\r\n",
    ]
    .iter()
    .map(|b| b.to_vec())
    .collect();
    bodies.push([vec![b'y'; 5_000], b"\r\n".to_vec()].concat());
    bodies.push(b"spaced  line \r\n".repeat(800));
    let mut random = Seeded::new(7);
    let pieces: [&[u8]; 8] = [b"\r\n", b"\r\n", b" ", b"\t", b"word", b".", b"\xc3\xbc", b"longer piece of text"];
    for _ in 0..120 {
        let len = random.below(30);
        bodies.push((0..len).flat_map(|_| pieces[random.below(8) as usize].to_vec()).collect());
    }
    bodies
}

const HEADERS: [&str; 4] = [
    "From: A <a@acme.example>\r\nTo: b@sink.test\r\nSubject: plain\r\nDate: Mon, 23 Nov 2026 17:55:49 +0000\r\nMessage-ID: <1@acme.example>\r\n",
    "From:a@acme.example\r\nSubject:  folded\r\n\t over  two\r\n   lines \r\nTo:b@sink.test\r\nX-Odd:\r\n",
    "Received: by x\r\nFROM: a@acme.example\r\nReferences: <1@x>\r\n <2@x>\r\nTo: b@sink.test\r\nTo: c@sink.test\r\nSubject:\r\n",
    "From: =?utf-8?q?=C3=BC?= <a@acme.example>\r\nSubject: \u{fc} raw\r\nList-Unsubscribe: <https://x.test/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
];

/// A folder of signed messages, as on the wire, and the records of their keys; how many messages it holds.
fn signed_folder() -> (tempfile::TempDir, Vec<DnsRecord>, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (rsa, rsa_record) = made("acme.example", "s1", Algorithm::RsaSha256);
    let (ed, ed_record) = made("acme.example", "e1", Algorithm::Ed25519Sha256);
    let bodies = odd_bodies();
    for (i, body) in bodies.iter().enumerate() {
        let message = [HEADERS[i % HEADERS.len()].as_bytes(), b"\r\n", body].concat();
        let mut wire = sign(&message, &[rsa.clone(), ed.clone()], NOW).expect("signs");
        wire.extend_from_slice(&message);
        // RFC 5321 §4.1.1.4: what has no final CRLF gets one on the wire.
        if !wire.ends_with(b"\r\n") {
            wire.extend_from_slice(b"\r\n");
        }
        std::fs::write(folder.path().join(format!("{i:03}.eml")), wire).expect("written");
    }
    (folder, vec![rsa_record, ed_record], bodies.len())
}

#[test]
fn dkimpy_verifies_every_signature() {
    let (folder, records, count) = signed_folder();
    let keys: std::collections::BTreeMap<_, _> = records.into_iter().map(|r| (r.name, r.value)).collect();
    let keys = serde_json::to_string(&keys).expect("JSON");
    std::fs::write(folder.path().join("keys.json"), keys).expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/dkim_verify.py");
    let output = Command::new("python3").arg(script).arg(folder.path()).output().expect("python3 is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dkimpy refuses, or it or PyNaCl is missing:\n{text}{errors}");
    assert_eq!(text.trim(), (2 * count).to_string());
}

#[test]
fn opendkim_verifies_every_signature() {
    let (folder, records, count) = signed_folder();
    let at = |name: &str| folder.path().join(name);
    let keys: String = records.iter().map(|r| format!("{} {}\n", r.name, r.value)).collect();
    std::fs::write(at("keys"), keys).expect("written");
    let conf = format!("TestPublicKeys {}\nMode v\nSyslog no\nInternalHosts /dev/null\n", at("keys").display());
    std::fs::write(at("conf"), conf).expect("written");
    for i in 0..count {
        let mut command = Command::new("opendkim");
        // Daemons live where the PATH of a user may not look.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.args(["-f", "-vv", "-x"]).arg(at("conf")).arg("-t").arg(at(&format!("{i:03}.eml")));
        let output = command.output().expect("opendkim is installed");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(text.matches("\tdkim=pass").count(), 2, "{i:03}.eml:\n{text}");
    }
}
