//! Tests of the check of logins.

use std::sync::Arc;
use std::time::Duration;

use crate::config::SmtpUser;
use crate::metrics::Registry;
use crate::metrics::smtp_server::SmtpServerMetrics;
use crate::queue::intake::testing::{START, cheap_hash, config, intake};
use crate::seam::clock::Clock;
use crate::smtp_server::session::{Credentials, LoginResult};
use crate::smtp_server::{Authenticator, hash_password};

fn login(user: &str, password: &str) -> Credentials {
    Credentials { user: user.into(), password: password.into() }
}

#[tokio::test]
async fn passwords_are_checked_cached_and_forgotten_at_a_reload() {
    let clock = Clock::manual(START);
    let (intake, _store, shared) = intake(config(), clock.clone());
    let metrics = SmtpServerMetrics::register(&Registry::new());
    let authenticator = Authenticator::new(intake, metrics.clone()).expect("a thread");
    let count = |result: &str| metrics.logins.with_label_values(&[result]).get();
    // Another client each time, so that nobody waits.
    let clients = std::cell::Cell::new(1_u8);
    let check = async |user: &str, password: &str| {
        clients.set(clients.get() + 1);
        let client = std::net::IpAddr::from([192, 0, 2, clients.get()]);
        matches!(authenticator.check(login(user, password), client, "test").await, LoginResult::Ok { tenant, .. } if tenant.as_str() == "acme")
    };
    assert!(check("app", "secret").await);
    assert!(check("app", "secret").await);
    assert_eq!((count("ok"), count("cached")), (1, 1));
    for (user, password) in [("app", "wrong"), ("app", ""), ("nobody", "secret"), ("", "secret"), ("app\0", "secret")] {
        assert!(!check(user, password).await, "{user:?} {password:?}");
    }
    assert_eq!(count("denied"), 5);
    clock.advance(Duration::from_secs(601));
    assert!(check("app", "secret").await);
    assert_eq!((count("ok"), count("cached")), (2, 1), "the cache forgets");

    let mut changed = config();
    changed.tenants[0].smtp_users = vec![SmtpUser { name: "app".into(), password_hash: cheap_hash("other") }];
    shared.store(Arc::new(changed));
    assert!(!check("app", "secret").await, "the old password is worth nothing after a reload");
    assert!(check("app", "other").await);
}

#[tokio::test]
async fn who_fails_waits_and_others_do_not() {
    let clock = Clock::manual(START);
    let (intake, _store, _) = intake(config(), clock.clone());
    let metrics = SmtpServerMetrics::register(&Registry::new());
    let authenticator = Authenticator::new(intake, metrics).expect("a thread");
    let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
    let (guesser, other) = (ip("2001:db8::1"), ip("2001:db8:0:1::1"));
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(authenticator.delay(guesser).as_secs());
        authenticator.count_failure(guesser);
    }
    assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 8]);
    assert_eq!(authenticator.delay(ip("2001:db8::ffff")).as_secs(), 8, "the same network");
    assert_eq!(authenticator.delay(other).as_secs(), 0);

    let begin = std::time::Instant::now();
    authenticator.check(login("app", "secret"), other, "test").await;
    for _ in 0..3 {
        authenticator.check(login("app", "wrong"), other, "test").await;
    }
    assert_eq!(authenticator.delay(other).as_secs(), 1);
    let cached = authenticator.check(login("app", "secret"), other, "test").await;
    assert!(matches!(cached, LoginResult::Ok { .. }));
    assert!(begin.elapsed().as_millis() < 900, "a credential that is known does not wait");
    let checked = authenticator.check(login("app", "wrong"), other, "test").await;
    assert_eq!(checked, LoginResult::Denied);
    assert!(begin.elapsed().as_millis() >= 1_000, "others do");

    clock.advance(Duration::from_secs(901));
    assert_eq!(authenticator.delay(guesser).as_secs(), 0, "failures are forgotten");
}

#[test]
fn a_hash_is_argon2id_and_salted() {
    let hash = hash_password("secret").expect("hashing works");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_ne!(hash, hash_password("secret").expect("hashing works"));
}
