//! Logins: the check of a password, off the threads that move octets.
//!
//! 1. A credential that was verified a short while ago is known by a keyed hash of it, and costs a microsecond.
//! 2. Who has failed before waits first, longer each time.
//! 3. Everything else is one job for the one thread that runs argon2; when its queue is full, the client is told to try
//!    later (454), so a flood of logins costs one core at the most.
//! 4. An unknown user's password is checked too, against a hash that another user has, so the time tells nothing.

use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ahash::AHashMap;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::sync::oneshot;
use tracing::warn;

use super::limits::client_key;
use super::session::{Credentials, LoginResult};
use crate::config::Config;
use crate::metrics::smtp_server::SmtpServerMetrics;
use crate::queue::intake::Intake;
use crate::seam::{clock::Clock, random};
use crate::types::Timestamp;

/// Passwords that may wait to be checked; then 454. At 20 ms each, the last one waits for about a second.
const JOBS_MAX: usize = 64;

/// The most credentials that are remembered; then one is forgotten for each that comes.
const CACHE_MAX: usize = 10_000;

/// How long a credential is remembered.
const CACHE_TTL: Duration = Duration::from_secs(600);

/// The most clients whose failures are remembered; then the oldest half is forgotten.
const FAILURES_MAX: usize = 10_000;

/// How long a client's failures are remembered after the last one.
const FAILURES_TTL: Duration = Duration::from_secs(900);

/// Failures that cost no wait: a client tries PLAIN and LOGIN with one wrong password.
const FAILURES_FREE: u32 = 2;

/// The wait after the first failure beyond those; it doubles with each further one.
const DELAY_FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const DELAY_MAX: Duration = Duration::from_secs(8);

/// The most of a user name that is logged.
const USER_LOGGED_MAX: usize = 64;

/// A password that could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("cannot hash the password: {0}")]
pub struct HashError(String);

/// The PHC string of a password, for `smtp_users`: argon2id with the parameters that OWASP recommends (19 MiB, 2 passes).
pub fn hash_password(password: &str) -> Result<String, HashError> {
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|e| HashError(e.to_string()))?;
    Ok(hash.to_string())
}

/// Whether a password is that of a PHC string.
fn verify(password: &str, phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else { return false };
    phc.starts_with("$argon2id$") && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

struct Job {
    password: String,
    hash: Arc<str>,
    reply: oneshot::Sender<bool>,
}

/// Checks logins.
pub struct Authenticator {
    intake: Arc<Intake>,
    clock: Clock,
    jobs: mpsc::SyncSender<Job>,
    /// Keys the hashes of the cache: nobody who reads them later can try passwords on them.
    key: [u8; 32],
    cache: Mutex<Cache>,
    failures: Mutex<AHashMap<IpAddr, (u32, Timestamp)>>,
    /// What an unknown user is checked against when there is no user at all.
    dummy: Arc<str>,
    metrics: SmtpServerMetrics,
}

#[derive(Default)]
struct Cache {
    /// The config under which they were verified; another one starts anew.
    config: Option<Arc<Config>>,
    verified: AHashMap<[u8; 32], Timestamp>,
}

impl Authenticator {
    /// Starts the thread; it ends when the authenticator is dropped.
    pub fn new(intake: Arc<Intake>, metrics: SmtpServerMetrics) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(JOBS_MAX);
        std::thread::Builder::new().name("auth".into()).spawn(move || {
            for job in queue {
                // The client may have gone meanwhile.
                let _ = job.reply.send(verify(&job.password, &job.hash));
            }
        })?;
        let mut key = [0; 32];
        random::fill(&mut key);
        let dummy = hash_password("no user has this password").map_err(std::io::Error::other)?.into();
        let clock = intake.clock().clone();
        Ok(Self { intake, clock, jobs, key, cache: Mutex::default(), failures: Mutex::default(), dummy, metrics })
    }

    /// Checks a login of a client at a listener. May take seconds for one that has failed before.
    pub async fn check(&self, credentials: Credentials, client: IpAddr, listener: &str) -> LoginResult {
        let policy = self.intake.policies().current();
        let user = policy.user(&credentials.user);
        let tenant = user.map(|(tenant, _)| tenant.name.clone());
        let hash = user.map(|(_, hash)| hash).or_else(|| policy.any_hash()).unwrap_or(&self.dummy).clone();
        let key = self.cache_key(&credentials, &hash);
        if let Some(tenant) = &tenant
            && self.is_cached(&policy.config, &key)
        {
            self.metrics.logins.with_label_values(&["cached"]).inc();
            return LoginResult::Ok { user: credentials.user, tenant: tenant.clone() };
        }
        tokio::time::sleep(self.delay(client)).await;
        let (reply, answer) = oneshot::channel();
        if self.jobs.try_send(Job { password: credentials.password, hash, reply }).is_err() {
            self.metrics.logins.with_label_values(&["busy"]).inc();
            return LoginResult::Busy;
        }
        let Ok(verified) = answer.await else { return LoginResult::Busy };
        match tenant.filter(|_| verified) {
            Some(tenant) => {
                self.remember(&policy.config, key);
                self.failures.lock().remove(&client_key(client));
                self.metrics.logins.with_label_values(&["ok"]).inc();
                LoginResult::Ok { user: credentials.user, tenant }
            }
            None => {
                self.count_failure(client);
                self.metrics.logins.with_label_values(&["denied"]).inc();
                let user = &credentials.user[..credentials.user.floor_char_boundary(USER_LOGGED_MAX)];
                warn!(%client, user, listener, "authentication failed");
                LoginResult::Denied
            }
        }
    }

    fn cache_key(&self, credentials: &Credentials, hash: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        for part in [credentials.user.as_str(), credentials.password.as_str(), hash] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    fn is_cached(&self, config: &Arc<Config>, key: &[u8; 32]) -> bool {
        let mut cache = self.cache.lock();
        cache.of(config).get(key).is_some_and(|until| self.clock.now() < *until)
    }

    fn remember(&self, config: &Arc<Config>, key: [u8; 32]) {
        let now = self.clock.now();
        let mut cache = self.cache.lock();
        let verified = cache.of(config);
        if verified.len() >= CACHE_MAX {
            verified.retain(|_, until| now < *until);
        }
        if verified.len() >= CACHE_MAX
            && let Some(any) = verified.keys().next().copied()
        {
            verified.remove(&any);
        }
        verified.insert(key, now.after(CACHE_TTL));
    }

    /// How long this client waits before its next password is looked at.
    pub(super) fn delay(&self, client: IpAddr) -> Duration {
        let failures = self.failures.lock();
        match failures.get(&client_key(client)) {
            Some((count, last)) if self.clock.now().since(*last) < FAILURES_TTL => {
                match count.checked_sub(FAILURES_FREE + 1) {
                    Some(beyond) => DELAY_FIRST.saturating_mul(1 << beyond.min(10)).min(DELAY_MAX),
                    None => Duration::ZERO,
                }
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    pub(super) fn count_failure(&self, client: IpAddr) {
        let now = self.clock.now();
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURES_MAX {
            failures.retain(|_, (_, last)| now.since(*last) < FAILURES_TTL);
            if failures.len() >= FAILURES_MAX {
                let mut times: Vec<Timestamp> = failures.values().map(|(_, last)| *last).collect();
                let middle = times.len() / 2;
                let (_, median, _) = times.select_nth_unstable(middle);
                let median = *median;
                failures.retain(|_, (_, last)| *last > median);
            }
        }
        let entry = failures.entry(client_key(client)).or_insert((0, now));
        if now.since(entry.1) >= FAILURES_TTL {
            entry.0 = 0;
        }
        *entry = (entry.0 + 1, now);
    }
}

impl Cache {
    fn of(&mut self, config: &Arc<Config>) -> &mut AHashMap<[u8; 32], Timestamp> {
        if !self.config.as_ref().is_some_and(|c| Arc::ptr_eq(c, config)) {
            self.config = Some(config.clone());
            self.verified.clear();
        }
        &mut self.verified
    }
}
