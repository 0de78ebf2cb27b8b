//! What a signature costs, and how much of it is not the signature itself.
//!
//! `cargo bench --bench dkim`. Compare `rsa_2048` with `rsa_2048_bare`: the difference is splitting, canonical forms, hashes
//! and the making of the field, which should stay below 30 µs for 4 KB.

use std::sync::Arc;

use posthaste::dkim::{Algorithm, Key, PrivateKey, keygen, sign};
use posthaste::types::{Domain, Timestamp};

fn main() {
    divan::main();
}

fn key(algorithm: Algorithm) -> Arc<Key> {
    let pem = keygen(algorithm).expect("a key").private_pem;
    let private = PrivateKey::from_pem(pem.as_bytes(), algorithm).expect("parses what was made");
    let domain = Domain::parse("acme.example").expect("valid");
    Arc::new(Key { domain, selector: "s1".into(), algorithm, active_from: None, private: Ok(private) })
}

/// A mail as an application makes it, with a body of about `size` octets.
fn message(size: usize, line: &str) -> Vec<u8> {
    let mut message = b"Received: from app.acme.example (app.acme.example [10.0.0.5])\r\n\tby mta1.example.com with ESMTPSA id 0190;\r\n\tMon, 23 Nov 2026 17:55:49 +0000\r\n\
        From: Acme Shop <shop@acme.example>\r\nTo: Jane Doe <jane@sink.test>\r\nSubject: Your order 4711 is on its way\r\n\
        Date: Mon, 23 Nov 2026 17:55:49 +0000\r\nMessage-ID: <0190.4711@acme.example>\r\nReply-To: help@acme.example\r\n\
        MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\
        List-Unsubscribe: <https://links.acme.example/u/abcdefghijklmnopqrstuvwxyz0123456789>\r\n\
        List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n"
        .to_vec();
    while message.len() < size {
        message.extend_from_slice(line.as_bytes());
    }
    message
}

const CLEAN: &str = "The quick brown fox jumps over the lazy dog, and then it does it once more.\r\n";
const DIRTY: &str = "The quick  brown fox\tjumps over the lazy dog,  and then it does it again. \r\n\r\n";
const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);

#[divan::bench]
fn rsa_2048_bare(bencher: divan::Bencher<'_, '_>) {
    let key = key(Algorithm::RsaSha256);
    bencher.bench(|| key.private.as_ref().ok().and_then(PrivateKey::sign_bare));
}

#[divan::bench]
fn rsa_2048_4k(bencher: divan::Bencher<'_, '_>) {
    let (keys, message) = ([key(Algorithm::RsaSha256)], message(4_096, CLEAN));
    bencher.bench(|| sign(&message, &keys, NOW));
}

#[divan::bench]
fn ed25519_bare(bencher: divan::Bencher<'_, '_>) {
    let key = key(Algorithm::Ed25519Sha256);
    bencher.bench(|| key.private.as_ref().ok().and_then(PrivateKey::sign_bare));
}

#[divan::bench]
fn ed25519_4k(bencher: divan::Bencher<'_, '_>) {
    let (keys, message) = ([key(Algorithm::Ed25519Sha256)], message(4_096, CLEAN));
    bencher.bench(|| sign(&message, &keys, NOW));
}

#[divan::bench]
fn ed25519_4k_with_white_space(bencher: divan::Bencher<'_, '_>) {
    let (keys, message) = ([key(Algorithm::Ed25519Sha256)], message(4_096, DIRTY));
    bencher.bench(|| sign(&message, &keys, NOW));
}

#[divan::bench]
fn both_4k(bencher: divan::Bencher<'_, '_>) {
    let (keys, message) = ([key(Algorithm::RsaSha256), key(Algorithm::Ed25519Sha256)], message(4_096, CLEAN));
    bencher.bench(|| sign(&message, &keys, NOW));
}

#[divan::bench]
fn ed25519_1m(bencher: divan::Bencher<'_, '_>) {
    let (keys, message) = ([key(Algorithm::Ed25519Sha256)], message(1 << 20, CLEAN));
    bencher.bench(|| sign(&message, &keys, NOW));
}
