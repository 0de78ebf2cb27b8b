//! The daemon in the foreground, under a service manager: signals in, readiness out.

use std::path::Path;
use std::process;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::{Daemon, Phase};
use crate::logging::LogHandle;

/// Runs the daemon until SIGTERM, SIGINT, a finished drain or a failed store. SIGHUP loads the configuration again.
///
/// Tells the service manager what it waits for (sd_notify): ready, reloading, stopping.
pub fn serve(path: &Path, log: LogHandle) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything starts: a signal that comes meanwhile waits its turn, and ends the daemon in order.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let daemon = Daemon::start(path, Some(log))?;
    runtime.block_on(wait(&daemon, signals));
    tell(&[NotifyState::Stopping]);
    daemon.stop()?;
    info!("ended");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Must run inside a runtime.
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("SIGHUP")?,
        })
    }
}

async fn wait(daemon: &Daemon, mut signals: Signals) {
    let mut phases = daemon.hands().phase.subscribe();
    tell(&[NotifyState::Ready]);
    info!(pid = process::id(), version = env!("CARGO_PKG_VERSION"), "ready");
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {
                info!("SIGTERM: ending");
                return;
            }
            _ = signals.interrupt.recv() => {
                info!("SIGINT: ending");
                return;
            }
            _ = signals.hangup.recv() => {
                reload(daemon).await;
            }
            _ = phases.wait_for(|phase| *phase == Phase::Stopping) => return,
        }
    }
}

async fn reload(daemon: &Daemon) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    if let Err(problem) = daemon.hands().reload_config().await {
        error!(%problem, "reload refused, the old configuration stays");
    }
    tell(&[NotifyState::Ready]);
}

/// Outside a service manager there is nobody to tell.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
