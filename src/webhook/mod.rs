//! Webhooks: readers of the event log that send it to the outside.
//!
//! 1. [`Webhooks::run`] starts a task for each `[[webhooks]]` and keeps that so over reloads (`endpoint`),
//! 2. a task reads behind its own durable cursor (`record`), writes events in the receiver's form (`format`), signs (`sign`), posts (`post`), and tries again
//!    by its own schedule (`schedule`): a slow or broken receiver delays nobody else,
//! 3. operators look and steer by [`Webhooks`]: status, test, replay, resume.
//!
//! At least once, in the order of the log for each endpoint. Nothing is lost but what retention removes, and that is told by a `gap` event.

mod endpoint;
mod format;
mod post;
mod record;
mod schedule;
mod sign;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use crate::config::{Config, Webhook, WebhookSecret, parse_webhook_secrets};
use crate::delivery::tls::TlsConfigs;
use crate::metrics::webhook::WebhookMetrics;
use crate::seam::clock::Clock;
use crate::seam::dns::Resolver;
use crate::store::{Ledger, ReadError, Reader, SubmitError};
use crate::types::{EventSeq, Name, Timestamp};
use endpoint::{Command, Endpoint, View};
use post::Poster;

/// How often it is looked whether every endpoint still runs, and whether a secret that could not be read now can.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Commands that may wait for an endpoint; then operators wait.
const COMMANDS_MAX: usize = 8;
/// How long an operator's command may take: a request that is under way comes first.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(150);

/// How an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The last request was taken, or there was none.
    #[default]
    Well,
    /// The last request was not taken; it is tried again.
    Failing,
    /// Given up after three days, or told 410; probed once an hour.
    Dead,
    /// Not running: its secret can't be read.
    Broken,
}

impl State {
    /// Its value in the metric.
    fn gauge(self) -> i64 {
        match self {
            Self::Well => 0,
            Self::Failing => 1,
            Self::Dead => 2,
            Self::Broken => 3,
        }
    }
}

/// An endpoint as an operator sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// Its name.
    pub name: Name,
    /// Whose events; none means all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<Name>,
    /// Where to.
    pub url: String,
    /// The form of the body.
    pub format: String,
    /// How it is.
    pub state: State,
    /// The last event that is done.
    pub after: EventSeq,
    /// Events of the whole log behind that one.
    pub behind: u64,
    /// Events that were taken since the daemon started.
    pub taken: u64,
    /// Failures in a row since then.
    pub failures: u32,
    /// Since when nothing is taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failing_since: Option<Timestamp>,
    /// Since when it is dead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dead_since: Option<Timestamp>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_try_at: Option<Timestamp>,
    /// When a request was last taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_success_at: Option<Timestamp>,
    /// Why the last failed one was not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error_at: Option<Timestamp>,
}

/// What came of a test.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WebhookTest {
    /// Whether it was taken.
    pub ok: bool,
    /// The receiver's status, where it was taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

/// Why a command was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WebhookError {
    /// There is none of that name.
    #[error("there is no webhook {0}")]
    Unknown(Name),
    /// It does not run.
    #[error("webhook {0} does not run: {1}")]
    Broken(Name, String),
    /// It is busy or the daemon is ending.
    #[error("webhook {0} did not answer")]
    Busy(Name),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was not stored.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Where a replay begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// With the first event at or after this time.
    Time(Timestamp),
    /// With the first event after this one.
    Event(EventSeq),
}

/// What the engine is made of.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// The log.
    pub reader: Reader,
    /// Where cursors are kept.
    pub ledger: Ledger,
    /// Its metrics.
    pub metrics: WebhookMetrics,
    /// Who finds the receivers.
    pub resolver: Resolver,
    /// TLS towards them.
    pub tls: TlsConfigs,
}

/// The engine; cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    clock: Clock,
    reader: Reader,
    ledger: Ledger,
    metrics: WebhookMetrics,
    poster: Arc<Poster>,
    endpoints: Mutex<BTreeMap<Name, Slot>>,
}

/// A configured endpoint.
struct Slot {
    config: Webhook,
    view: Arc<Mutex<View>>,
    running: Option<Running>,
}

/// One that runs. Its task ends with it, also in the midst of a request: that comes again.
struct Running {
    endpoint: Arc<Endpoint>,
    commands: mpsc::Sender<Command>,
    task: tokio::task::AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Webhooks {
    /// An engine without endpoints; [`Webhooks::run`] starts them.
    pub fn new(parts: Parts) -> Self {
        let Parts { clock, reader, ledger, metrics, resolver, tls } = parts;
        let poster = Arc::new(Poster { resolver, tls });
        Self(Arc::new(Inner { clock, reader, ledger, metrics, poster, endpoints: Mutex::default() }))
    }

    /// Keeps a task for each endpoint of the configuration in force; ends them when `stops` turns true.
    pub async fn run(&self, mut configs: watch::Receiver<Arc<Config>>, mut stops: watch::Receiver<bool>) {
        loop {
            let config = configs.borrow_and_update().clone();
            self.apply(&config);
            tokio::select! {
                changed = configs.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(LOOK_EVERY) => {}
                // An error means that the daemon is gone.
                _ = stops.wait_for(|stop| *stop) => break,
            }
        }
        self.0.endpoints.lock().clear();
    }

    /// Starts what is new, changed or ended; ends what is no longer configured. Its place in the log stays in the store.
    fn apply(&self, config: &Config) {
        let mut slots = self.0.endpoints.lock();
        slots.retain(|name, _| {
            let stays = config.webhooks.iter().any(|webhook| webhook.name == *name);
            if !stays {
                self.0.metrics.remove(name.as_str());
            }
            stays
        });
        for webhook in &config.webhooks {
            let secrets = read_secrets(webhook);
            let unchanged = slots.get(&webhook.name).is_some_and(|slot| slot.is_as(webhook, &secrets));
            if unchanged {
                continue;
            }
            // The old task ends before the new one begins: never two on one cursor.
            slots.remove(&webhook.name);
            let slot = self.start(webhook, secrets, config);
            slots.insert(webhook.name.clone(), slot);
        }
    }

    fn start(&self, webhook: &Webhook, secrets: Result<Secrets, String>, config: &Config) -> Slot {
        let inner = &self.0;
        let view = Arc::new(Mutex::new(View::default()));
        let target = webhook.target();
        let (secrets, target) = match (secrets, target) {
            (Ok(secrets), Ok(target)) => (secrets, target),
            (Err(why), _) | (_, Err(why)) => {
                error!(endpoint = %webhook.name, %why, "webhook not started");
                *view.lock() = View { state: State::Broken, last_error: Some(why), ..View::default() };
                let state = inner.metrics.state.with_label_values(&[webhook.name.as_str()]);
                state.set(State::Broken.gauge());
                return Slot { config: webhook.clone(), view, running: None };
            }
        };
        // An alert about the endpoint of all tenants belongs to somebody: the first. There is always one.
        let first = config.tenants.first().map(|tenant| tenant.name.clone());
        let tenant_of_alerts = webhook.tenant.clone().or(first).unwrap_or_else(|| webhook.name.clone());
        let endpoint = Arc::new(Endpoint {
            config: webhook.clone(),
            target,
            secrets: secrets.keys,
            authorization: secrets.authorization,
            tenant_of_alerts,
            reader: inner.reader.clone(),
            ledger: inner.ledger.clone(),
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            poster: inner.poster.clone(),
            view: view.clone(),
        });
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let task = tokio::spawn(endpoint::run(endpoint.clone(), receiver)).abort_handle();
        info!(endpoint = %webhook.name, "webhook started");
        Slot { config: webhook.clone(), view, running: Some(Running { endpoint, commands, task }) }
    }

    /// The endpoints of a tenant, or with `None` all.
    pub fn status(&self, tenant: Option<&Name>) -> Vec<WebhookStatus> {
        let tail = self.0.reader.events_tail();
        let slots = self.0.endpoints.lock();
        let of_tenant = slots.values().filter(|slot| tenant.is_none() || slot.config.tenant.as_ref() == tenant);
        of_tenant.map(|slot| slot.status(tail)).collect()
    }

    /// Whose an endpoint is; an error when there is none of that name.
    pub fn tenant_of(&self, name: &Name) -> Result<Option<Name>, WebhookError> {
        let slots = self.0.endpoints.lock();
        let slot = slots.get(name).ok_or_else(|| WebhookError::Unknown(name.clone()))?;
        Ok(slot.config.tenant.clone())
    }

    /// Sends a test event now, beside whatever waits; it changes neither state nor cursor.
    pub async fn test(&self, name: &Name) -> Result<WebhookTest, WebhookError> {
        let endpoint = self.running(name)?.0;
        let began = self.0.clock.now();
        let done = endpoint.test().await;
        let took_ms = self.0.clock.now().since(began).as_millis() as u64;
        Ok(match done {
            Ok(status) => WebhookTest { ok: true, status: Some(status.as_u16()), error: None, took_ms },
            Err(failed) => WebhookTest { ok: false, status: None, error: Some(failed.why), took_ms },
        })
    }

    /// Sets an endpoint back (or forward), durably; answers the event after which it goes on.
    pub async fn replay(&self, name: &Name, since: Since) -> Result<EventSeq, WebhookError> {
        let commands = self.running(name)?.1;
        let tail = self.0.reader.events_tail();
        let after = match since {
            Since::Event(after) => after.min(tail),
            Since::Time(time) => self.before(time, tail).await?,
        };
        let (reply, answer) = oneshot::channel();
        self.command(name, &commands, Command::Replay { after, reply }, answer).await??;
        Ok(after)
    }

    /// Lets an endpoint try at once.
    pub async fn resume(&self, name: &Name) -> Result<(), WebhookError> {
        let commands = self.running(name)?.1;
        let (reply, answer) = oneshot::channel();
        self.command(name, &commands, Command::Resume { reply }, answer).await
    }

    async fn command<T>(
        &self,
        name: &Name,
        commands: &mpsc::Sender<Command>,
        command: Command,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, WebhookError> {
        let busy = || WebhookError::Busy(name.clone());
        let asked = async {
            commands.send(command).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(COMMAND_TIMEOUT, asked).await.ok().flatten().ok_or_else(busy)
    }

    fn running(&self, name: &Name) -> Result<(Arc<Endpoint>, mpsc::Sender<Command>), WebhookError> {
        let slots = self.0.endpoints.lock();
        let slot = slots.get(name).ok_or_else(|| WebhookError::Unknown(name.clone()))?;
        match &slot.running {
            Some(running) => Ok((running.endpoint.clone(), running.commands.clone())),
            None => {
                let why = slot.view.lock().last_error.clone().unwrap_or_default();
                Err(WebhookError::Broken(name.clone(), why))
            }
        }
    }

    /// The last event before a time: the log is in order of commit, so its times rise, and halving finds the place.
    async fn before(&self, time: Timestamp, tail: EventSeq) -> Result<EventSeq, ReadError> {
        let (mut low, mut high) = (0, tail.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.0.reader.events(EventSeq(middle), 1, None).await?;
            match page.events.first() {
                Some(event) if event.timestamp < time => low = event.seq.0.max(middle + 1),
                Some(_) | None => high = middle,
            }
        }
        Ok(EventSeq(low.min(tail.0)))
    }
}

impl Slot {
    fn is_as(&self, webhook: &Webhook, secrets: &Result<Secrets, String>) -> bool {
        let Some(running) = &self.running else { return false };
        let Ok(secrets) = secrets else {
            // What runs goes on with the secret that it has.
            return self.config == *webhook && !running.task.is_finished();
        };
        self.config == *webhook
            && !running.task.is_finished()
            && running.endpoint.secrets == secrets.keys
            && running.endpoint.authorization == secrets.authorization
    }

    fn status(&self, tail: EventSeq) -> WebhookStatus {
        let view = self.view.lock().clone();
        WebhookStatus {
            name: self.config.name.clone(),
            tenant: self.config.tenant.clone(),
            url: self.config.url.clone(),
            format: self.config.format.as_str().into(),
            state: view.state,
            after: view.after,
            behind: tail.0.saturating_sub(view.after.0),
            taken: view.taken,
            failures: view.failures,
            failing_since: view.failing_since,
            dead_since: view.dead_since,
            next_try_at: view.next_try_at,
            last_success_at: view.last_success_at,
            last_error: view.last_error,
            last_error_at: view.last_error_at,
        }
    }
}

/// What an endpoint's files say.
struct Secrets {
    keys: Vec<WebhookSecret>,
    authorization: Option<String>,
}

/// Reads both files. Their rights were checked with the configuration.
fn read_secrets(webhook: &Webhook) -> Result<Secrets, String> {
    let read = |file: &Path| std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()));
    let keys = parse_webhook_secrets(&read(&webhook.secret_file)?)
        .map_err(|why| format!("{}: {why}", webhook.secret_file.display()))?;
    let authorization = webhook.authorization_file.as_deref().map(read).transpose()?;
    Ok(Secrets { keys, authorization: authorization.map(|text| text.trim().to_owned()) })
}
