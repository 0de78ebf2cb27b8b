//! What the daemon does when an operator asks: reload, backup, drain; and how it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::api::ports::{BackupDone, Control, ControlError, Fut, Health};
use crate::config::{self, Config, InUse};
use crate::dkim::KeyRing;
use crate::logging::LogHandle;
use crate::queue::admin::{AdminHandle, Command};
use crate::queue::intake::{GateState, Intake};
use crate::queue::keys;
use crate::smtp_server::ServerHandle;
use crate::store::{Reader, Store, StoreStatus};

/// What the daemon is asked to become; only ever moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Taking and delivering.
    Running,
    /// Intake has ended; what is due is delivered, then it ends.
    Draining,
    /// Ending: what is in an attempt is finished.
    Stopping,
}

/// The daemon's hands, shared by the API, the signals and the owner of the process.
pub struct Hands {
    pub(super) path: PathBuf,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) ring: Arc<ArcSwap<KeyRing>>,
    pub(super) intake: Arc<Intake>,
    pub(super) smtp: ServerHandle,
    pub(super) queues: AdminHandle,
    pub(super) reader: Reader,
    pub(super) store: Store,
    pub(super) store_status: watch::Receiver<StoreStatus>,
    pub(super) log: Option<LogHandle>,
    pub(super) phase: watch::Sender<Phase>,
    /// Tells the scheduler of a new configuration.
    pub(super) reloaded: watch::Sender<Arc<Config>>,
    pub(super) listeners: Mutex<Vec<String>>,
    /// One reload at a time: two would report each other's changes.
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) backing_up: AtomicBool,
}

/// Ties the daemon to one of its threads: when that one ends, by a panic or whatever it is, the daemon ends, too. One that took
/// mail and delivered none, or the other way round, would look well for a long time.
pub(super) struct Tied {
    hands: Arc<Hands>,
    thread: &'static str,
    /// The phase from which on it is to end.
    ends_in: Phase,
}

impl Drop for Tied {
    fn drop(&mut self) {
        if *self.hands.phase.borrow() >= self.ends_in {
            return;
        }
        error!(thread = self.thread, "a thread ended by itself, and the daemon with it");
        self.hands.advance(Phase::Stopping);
    }
}

impl Hands {
    /// What a thread holds on to while it runs. It is to end in a phase, not before: intake ends when a drain begins, and what is queued
    /// then goes on for as long as it takes.
    pub(super) fn tied(self: &Arc<Self>, thread: &'static str, ends_in: Phase) -> Tied {
        Tied { hands: self.clone(), thread, ends_in }
    }

    /// Moves on to a later phase; an earlier one is passed over.
    pub fn advance(&self, to: Phase) {
        if to > Phase::Running && self.intake.gate().state() != GateState::Failed {
            self.intake.gate().set(GateState::ShuttingDown);
        }
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Loads the configuration again: all of it or nothing.
    pub async fn reload_config(&self) -> Result<Vec<String>, ControlError> {
        let _one = self.reloading.lock().await;
        let usage = self.queues.ask(|reply| Command::Usage { reply }).await;
        let usage = usage.map_err(|e| ControlError::Failed(e.to_string()))?;
        let in_use: Vec<InUse> =
            usage.into_iter().map(|(tenant, pool, recipients)| InUse { tenant, pool, recipients }).collect();
        let refused = |e: &dyn std::fmt::Display| ControlError::Refused(e.to_string());
        // All that can be refused comes before anything is swapped; the certificate is the last that can be.
        let (fresh, warnings) = config::load(&self.path).map_err(|e| refused(&e))?;
        let (fresh, report) = config::plan_reload(&self.config.load(), fresh, &in_use).map_err(|e| refused(&e))?;
        let ring = keys::load(&fresh).strict().map_err(|errors| {
            ControlError::Refused(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        if let Some(log) = &self.log {
            log.reload(&fresh.log).map_err(|e| refused(&e))?;
        }
        self.smtp.reload_tls(&fresh).map_err(|e| refused(&e))?;
        let unusable = crate::delivery::sources::unusable(&fresh);
        self.config.store(Arc::new(fresh));
        self.ring.store(Arc::new(ring));
        self.reloaded.send_replace(self.config.load_full());
        let mut lines = vec![report.to_string()];
        lines.extend(warnings.iter().map(|warning| format!("warning: {}", one_line(&warning.to_string()))));
        lines.extend(unusable.iter().map(|warning| format!("warning: {warning}")));
        info!(report = %report, "configuration reloaded");
        Ok(lines)
    }

    async fn copy_store(&self, dir: PathBuf) -> Result<BackupDone, ControlError> {
        if self.backing_up.swap(true, Ordering::AcqRel) {
            return Err(ControlError::Refused("a backup is under way".into()));
        }
        let (store, target) = (self.store.clone(), dir.clone());
        let copied = tokio::task::spawn_blocking(move || {
            store.backup(&target, |progress| {
                info!(records = progress.records, bytes = progress.bytes, of = progress.of_bytes, "backup under way");
                true
            })
        })
        .await;
        self.backing_up.store(false, Ordering::Release);
        match copied {
            Ok(Ok(Some(report))) => {
                info!(dir = %dir.display(), records = report.records, bytes = report.bytes, "backup done");
                Ok(BackupDone { dir, bytes: report.bytes, last_sequence: self.reader.events_tail() })
            }
            Ok(Ok(None)) => Err(ControlError::Failed("the backup was broken off".into())),
            Ok(Err(e @ crate::store::BackupError::Exists(_))) => Err(ControlError::Refused(e.to_string())),
            Ok(Err(e)) => Err(ControlError::Failed(e.to_string())),
            Err(_) => Err(ControlError::Failed("the backup's thread panicked".into())),
        }
    }
}

/// A warning and its hint, which stands on a line of its own elsewhere.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

impl Control for Hands {
    fn reload(&self) -> Fut<'_, Result<Vec<String>, ControlError>> {
        Box::pin(async {
            let done = self.reload_config().await;
            if let Err(problem) = &done {
                error!(%problem, "reload refused, the old configuration stays");
            }
            done
        })
    }

    fn backup(&self, dir: PathBuf) -> Fut<'_, Result<BackupDone, ControlError>> {
        Box::pin(self.copy_store(dir))
    }

    fn drain(&self) -> Fut<'_, Result<(), ControlError>> {
        Box::pin(async {
            warn!("draining: intake has ended, what is due is delivered, then the daemon ends");
            self.advance(Phase::Draining);
            Ok(())
        })
    }

    fn health(&self) -> Health {
        let status = self.store_status.borrow().clone();
        let phase = *self.phase.borrow();
        let mut health =
            Health { draining: phase > Phase::Running, free_bytes: self.store.free_bytes(), ..Health::default() };
        match status {
            StoreStatus::Good => {}
            StoreStatus::LowSpace { free, min_free } => {
                health.not_ready.push(format!("low on disk space: {free} octets free, {min_free} wanted"));
            }
            StoreStatus::Failed(reason) => health.store_failed = Some(reason.to_string()),
        }
        match phase {
            Phase::Running => {}
            Phase::Draining => health.not_ready.push("draining".into()),
            Phase::Stopping => health.not_ready.push("shutting down".into()),
        }
        health.listeners.clone_from(&self.listeners.lock());
        health
    }
}
