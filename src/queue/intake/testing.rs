//! A door with a ledger of a test behind it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Intake;
use crate::config::{Config, SmtpUser, Tenant};
use crate::metrics::Registry;
use crate::metrics::intake::IntakeMetrics;
use crate::seam::clock::Clock;
use crate::store::{Change, Ledger, LedgerRequest, NewMessage, SubmitError};
use crate::types::{Class, Domain, Name, Timestamp};

/// The time at which tests begin.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_795_456_549_012);

/// argon2id of "secret" with parameters that cost nothing.
pub(crate) fn cheap_hash(password: &str) -> String {
    use argon2::password_hash::PasswordHasher as _;
    let params = argon2::Params::new(8, 1, 1, None).expect("valid parameters");
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon2.hash_password(password.as_bytes()).expect("hashing works").to_string()
}

pub(crate) fn tenant(name: &str, domains: &[&str]) -> Tenant {
    Tenant {
        name: Name::parse(name).expect("a name"),
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        bounce_domain: None,
        pool: None,
        pools: None,
        class: Class::Transactional,
        smtp_users: Vec::new(),
        api_keys: Vec::new(),
        quota: Default::default(),
    }
}

/// Two tenants: acme with a login and a bounce domain, beta.
pub(crate) fn config() -> Config {
    let mut acme = tenant("acme", &["acme.example"]);
    acme.bounce_domain = Domain::parse("bounce.acme.test").ok();
    acme.smtp_users = vec![SmtpUser { name: "app".into(), password_hash: cheap_hash("secret") }];
    Config {
        hostname: "mta.example".into(),
        tenants: vec![acme, tenant("beta", &["beta.example"])],
        ..Config::default()
    }
}

/// What the ledger of a test was given, and what it answers.
#[derive(Clone, Default)]
pub(crate) struct Store {
    changes: Arc<Mutex<Vec<Change>>>,
    pub(crate) answer: Arc<Mutex<Option<SubmitError>>>,
}

impl Store {
    pub(crate) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut self.changes.lock())
    }

    pub(crate) fn messages(&self) -> Vec<NewMessage> {
        let accepted = |change| match change {
            Change::Accept(new) => Some(*new),
            _ => None,
        };
        self.take().into_iter().filter_map(accepted).collect()
    }
}

/// A door whose ledger answers at once.
pub(crate) fn intake(config: Config, clock: Clock) -> (Arc<Intake>, Store, Arc<ArcSwap<Config>>) {
    let (ledger, mut requests) = Ledger::channel();
    let store = Store::default();
    let behind = store.clone();
    std::thread::spawn(move || {
        while let Some(request) = requests.submits.blocking_recv() {
            if let LedgerRequest::Submit { changes, reply, .. } = request {
                let answer = behind.answer.lock().clone();
                if answer.is_none() {
                    behind.changes.lock().extend(changes);
                }
                let _ = reply.send(answer.map_or(Ok(()), Err));
            }
        }
    });
    let config = Arc::new(ArcSwap::from_pointee(config));
    let intake = Intake::new(config.clone(), ledger, clock, IntakeMetrics::register(&Registry::new()));
    (Arc::new(intake), store, config)
}
