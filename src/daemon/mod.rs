//! The daemon: builds the parts, owns their threads, and ends them in order.
//!
//! 1. configuration, keys, store: whatever is wrong is told before anything listens,
//! 2. three threads with a runtime each: `intake` (SMTP sessions), `egress` (scheduler and delivery), `control` (HTTP, control
//!    socket, housekeeping); the store and the signing pool have threads of their own,
//! 3. ready once every listener is open; mail that waited is on its way by then,
//! 4. the end: intake first (transactions in hand finish, at most 30 s), then egress (attempts in hand finish and are
//!    settled, QUIT), then control, then the ledger writes what it has and ends.
//!
//! A failed store ends all at once and with an error: nothing can be settled any more.

mod alerts;
mod campaigns;
mod control;
mod egress;
mod people;
mod ports;
mod signals;
#[cfg(test)]
mod sim;
mod threads;
mod webhooks;

pub use control::{Hands, Phase};
pub use signals::serve;

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::api::{self, Api};
use crate::campaign::Campaigns;
use crate::config::{self, Config, Listener};
use crate::logging::LogHandle;
use crate::metrics::{self, Metrics, Registry};
use crate::queue::admin::{AdminHandle, Command};
use crate::queue::intake::{GateState, Intake, QUOTA_PREFIX};
use crate::queue::keys;
use crate::seam::clock::Clock;
use crate::smtp_server;
use crate::store::{self, Ledger, Opened, StoreOptions, StoreStatus, StoreThreads};
use crate::tracking;
use people::People;

/// How long the daemon takes to end after its store failed, at the most.
const FAILED_END_MAX: Duration = Duration::from_secs(10);

/// Commands of operators that may wait for the scheduler; then they wait for room.
const COMMANDS_MAX: usize = 64;
/// How often the clock is drawn towards the system's.
const SLEW_EVERY: Duration = Duration::from_secs(60);
/// A difference of the clocks above which the operator is told, in milliseconds.
const CLOCK_OFF_MS: i64 = 10_000;
/// Records of state of one kind that a start reads.
const STATE_RECORDS_MAX: usize = 1_000_000;
/// How often old reports on authentication are removed.
const REPORTS_SWEEP_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// How often a drain looks whether it is done.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(500);

/// A running daemon.
pub struct Daemon {
    hands: Arc<Hands>,
    config: Arc<Config>,
    ledger: Ledger,
    store_threads: StoreThreads,
    intake: JoinHandle<std::io::Result<()>>,
    egress: JoinHandle<()>,
    control: JoinHandle<()>,
    stop_control: watch::Sender<bool>,
    smtp: Vec<SocketAddr>,
    http: Option<SocketAddr>,
    public: Option<SocketAddr>,
}

/// Where the control thread listens.
#[derive(Clone, Copy)]
struct Addresses {
    http: Option<SocketAddr>,
    public: Option<SocketAddr>,
}

impl Daemon {
    /// Starts the daemon of this configuration; returns once every listener is open. `log` is told of reloads.
    pub fn start(path: &Path, log: Option<LogHandle>) -> anyhow::Result<Daemon> {
        let (config, warnings) = config::load(path)?;
        for warning in &warnings {
            warn!(problem = %warning, "configuration");
        }
        for warning in crate::delivery::sources::unusable(&config) {
            warn!(problem = %warning, "source");
        }
        make_data_dir(&config.data_dir)?;
        let ring = keys::load(&config)
            .strict()
            .map_err(|errors| anyhow::anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let clock = Clock::system();
        let registry = Registry::new();
        let metrics = Arc::new(metrics::register_all(&registry));
        let opened = open_store(&config, &clock, &metrics)?;
        let shared = Arc::new(ArcSwap::from_pointee(config));
        let config = shared.load_full();
        let intake = Intake::new(shared.clone(), opened.ledger.clone(), clock.clone(), metrics.intake.clone());
        let people = people::open(&opened, &clock)?;
        let intake = Arc::new(intake.with_suppressions(people.suppressions.clone(), metrics.suppression.clone()));
        restore_usage(&intake, &opened)?;

        let smtp = smtp_server::Server::bind(&config, intake.clone(), metrics.smtp_server.clone())?;
        let smtp_addresses = smtp.addresses()?;
        let (phase, phases) = watch::channel(Phase::Running);
        let (commands, commands_rx) = mpsc::channel(COMMANDS_MAX);
        let ring = Arc::new(ArcSwap::from_pointee(ring));
        let (reloaded, reloads) = watch::channel(config.clone());
        let hands = Arc::new(Hands {
            path: path.to_owned(),
            config: shared.clone(),
            ring: ring.clone(),
            intake: intake.clone(),
            smtp: smtp.handle(),
            queues: AdminHandle(commands),
            reader: opened.reader.clone(),
            store: opened.store.clone(),
            store_status: opened.status.clone(),
            log,
            phase,
            reloaded,
            listeners: Mutex::new(Vec::new()),
            reloading: tokio::sync::Mutex::new(()),
            backing_up: AtomicBool::new(false),
        });

        let (campaigns, for_egress) = campaigns::open(campaigns::Needs {
            config: shared.clone(),
            ring: ring.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            ledger: opened.ledger.clone(),
            reader: opened.reader.clone(),
            intake: intake.clone(),
            queues: hands.queues.clone(),
            people: &people,
        })?;
        let inbound = people.inbound(&hands, &clock, &metrics, &opened.ledger, &campaigns, &for_egress);
        let smtp = smtp.with_inbound(&Arc::new(inbound));
        let links = people.links.clone();
        let (stop_control, control_stops) = watch::channel(false);
        let (control, addresses) = start_control(
            hands.clone(),
            registry,
            metrics.clone(),
            clock.clone(),
            opened.ledger.clone(),
            people,
            campaigns,
            control_stops,
        )?;
        let egress = egress::start(egress::Parts {
            config: shared,
            reloads,
            ring,
            clock,
            metrics,
            ledger: opened.ledger.clone(),
            reader: opened.reader,
            news: opened.news,
            queues: opened.queues,
            links,
            campaigns: for_egress,
            usage: intake.usage().clone(),
            commands: commands_rx,
            tied: Some(hands.tied("egress", Phase::Stopping)),
            phases: phases.clone(),
            store_status: opened.status,
        })?;
        let intake = threads::spawn("intake", hands.tied("intake", Phase::Draining), move || {
            smtp.run(when(phases, |phase| phase > Phase::Running))
        })?;
        *hands.listeners.lock() = describe(&config.smtp.listeners, &smtp_addresses, addresses);
        for listener in hands.listeners.lock().iter() {
            info!(%listener, "listening");
        }
        let (ledger, store_threads) = (opened.ledger, opened.threads);
        let (smtp, Addresses { http, public }) = (smtp_addresses, addresses);
        Ok(Daemon { hands, config, ledger, store_threads, intake, egress, control, stop_control, smtp, http, public })
    }

    /// What can be asked of it.
    pub fn hands(&self) -> &Arc<Hands> {
        &self.hands
    }

    /// The configuration that it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where SMTP is served, in the order of the configuration.
    pub fn smtp_addresses(&self) -> &[SocketAddr] {
        &self.smtp
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where unsubscribe links are served.
    pub fn public_address(&self) -> Option<SocketAddr> {
        self.public
    }

    /// Ends the daemon in order and waits for it; an error when the store had failed. Blocking.
    pub fn stop(self) -> anyhow::Result<()> {
        self.hands.advance(Phase::Stopping);
        let panicked = |name: &'static str| move |_| anyhow::anyhow!("the {name} thread panicked");
        // Errors are kept until every thread has had its turn.
        let intake = self.intake.join().map_err(panicked("intake"));
        let egress = self.egress.join().map_err(panicked("egress"));
        self.stop_control.send_replace(true);
        let control = self.control.join().map_err(panicked("control"));
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut status = self.hands.store_status.clone();
        let failed = async move { status.wait_for(|s| matches!(s, StoreStatus::Failed(_))).await.is_ok() };
        let written = runtime.block_on(async {
            tokio::select! {
                () = self.ledger.shutdown() => true,
                failed = failed => !failed,
            }
        });
        // A commit that hangs is a failure, too: whoever waited for its thread would wait for ever.
        if written {
            self.store_threads.join_ledger();
        }
        intake?.context("the SMTP server")?;
        egress?;
        control?;
        match self.hands.store_status.borrow().clone() {
            StoreStatus::Failed(reason) => anyhow::bail!("the store failed: {reason}"),
            StoreStatus::Good | StoreStatus::LowSpace { .. } => Ok(()),
        }
    }
}

fn make_data_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).with_context(|| format!("can't make the data folder {}", dir.display()))
}

fn open_store(config: &Config, clock: &Clock, metrics: &Metrics) -> anyhow::Result<Opened> {
    let options = StoreOptions::from_config(
        &config.data_dir,
        config.durability,
        &config.storage,
        clock.clone(),
        metrics.store.clone(),
    );
    let opened = store::open(options).context("data_dir")?;
    let report = &opened.report;
    for warning in &report.warnings {
        warn!(%warning, "store");
    }
    if let Some(cut) = report.cut {
        // The store has said so too, with what it compared; a start must not bury it.
        tracing::error!(
            commits = cut.commits,
            events = cut.events,
            "the journal was cut: commits that were made are gone"
        );
    }
    info!(
        queues = report.queues,
        recipients = report.recipients,
        took_ms = report.took.as_millis() as u64,
        "store open"
    );
    Ok(opened)
}

/// What is queued and what was sent today counts against the quotas from the first message on.
fn restore_usage(intake: &Intake, opened: &Opened) -> anyhow::Result<()> {
    // Rows of campaigns are not submissions: the quotas of queued messages do not count them.
    for row in opened.queues.iter().filter(|row| row.rows.is_none()) {
        intake.usage().add(&row.key.tenant, row.count, row.bytes);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let records = runtime.block_on(opened.reader.state(QUOTA_PREFIX, STATE_RECORDS_MAX))?;
    let now = intake.clock().now();
    for (key, value) in records {
        if !intake.usage().restore(&key, &value, now) {
            warn!(key = %String::from_utf8_lossy(&key), "a quota record can't be read, it counts as nothing");
        }
    }
    Ok(())
}

/// A watch that turns true when the phase does what `test` asks.
fn when(mut phases: watch::Receiver<Phase>, test: fn(Phase) -> bool) -> watch::Receiver<bool> {
    let (turn, turned) = watch::channel(test(*phases.borrow()));
    tokio::task::spawn_local(async move {
        // An error means that the daemon is gone, and this task with it.
        let _ = phases.wait_for(|phase| test(*phase)).await;
        turn.send_replace(true);
        turn.closed().await;
    });
    turned
}

fn describe(listeners: &[Listener], addresses: &[SocketAddr], others: Addresses) -> Vec<String> {
    let smtp = listeners.iter().zip(addresses).map(|(listener, address)| {
        let (role, tls) = (format!("{:?}", listener.role), format!("{:?}", listener.tls));
        format!("smtp {} {address} (tls {})", role.to_lowercase(), tls.to_lowercase())
    });
    let http = others.http.map(|address| format!("http {address}"));
    smtp.chain(http).chain(others.public.map(|address| format!("public {address}"))).collect()
}

/// The control thread: API, clock, gate, drain.
#[expect(clippy::too_many_arguments, reason = "each is one part of the daemon")]
fn start_control(
    hands: Arc<Hands>,
    registry: Registry,
    metrics: Arc<Metrics>,
    clock: Clock,
    ledger: Ledger,
    people: People,
    campaigns: Campaigns,
    stops: watch::Receiver<bool>,
) -> anyhow::Result<(JoinHandle<()>, Addresses)> {
    let (keeper, reports) =
        crate::report::Keeper::new(ledger.clone(), hands.reader.clone(), clock.clone(), metrics.report.clone());
    let mut watch = alerts::Watch::new(&hands, &clock, &metrics, &ledger);
    let (hooks_ledger, reports_ledger) = (ledger.clone(), ledger.clone());
    let mut parts = api::Parts {
        config: hands.config.clone(),
        clock: clock.clone(),
        intake: Arc::new(ports::Door(hands.intake.clone())),
        read: Arc::new(hands.reader.clone()),
        contacts: crate::campaign::contacts::Contacts::new(ledger.clone(), hands.reader.clone(), clock.clone()),
        ledger,
        queues: hands.queues.clone(),
        compose: Arc::new(ports::Writer { config: hands.config.clone(), clock: clock.clone() }),
        control: hands.clone(),
        registry,
        metrics: metrics.clone(),
        suppressions: people.suppressions.clone(),
        campaigns: Some(campaigns.clone()),
        alerts: watch.board.clone(),
        webhooks: None,
        reports: Some(reports),
    };
    let public = people.public(&hands, &clock, &metrics, &campaigns);
    let (bound, told) = std::sync::mpsc::channel();
    let thread = threads::spawn("control", hands.tied("control", Phase::Stopping), move || async move {
        // Here, since their resolver belongs to this runtime.
        let webhooks = match webhooks::open(&hands, &clock, &metrics, &hooks_ledger) {
            Ok(webhooks) => webhooks,
            Err(error) => {
                hands.advance(Phase::Stopping);
                return drop(bound.send(Err(error)));
            }
        };
        watch.follow(webhooks.clone());
        parts.webhooks = Some(webhooks.clone());
        let api = Api::new(parts);
        let server = match api::Server::bind(api.clone()).await {
            Ok(server) => server,
            Err(error) => {
                // The start fails with this: the thread's end is no news.
                hands.advance(Phase::Stopping);
                return drop(bound.send(Err(anyhow::Error::from(error))));
            }
        };
        let public = match tracking::Server::bind(public) {
            Ok(public) => public,
            Err(error) => {
                hands.advance(Phase::Stopping);
                return drop(bound.send(Err(error.into())));
            }
        };
        let public_address = public.as_ref().and_then(tracking::Server::address);
        // The receiver waits for exactly this.
        let _ = bound.send(Ok(Addresses { http: server.tcp_address(), public: public_address }));
        let (public_stops, campaigns_stop, webhooks_stop) = (stops.clone(), stops.clone(), stops.clone());
        let configs = hands.reloaded.subscribe();
        let public = tokio::task::spawn_local(async move {
            if let Some(public) = public {
                public.run(public_stops).await;
            }
        });
        let side_tasks = [
            tokio::task::spawn_local(async move { api.housekeeping().await }),
            tokio::task::spawn_local(keep_reports(hands.clone(), reports_ledger, clock.clone())),
            tokio::task::spawn_local(keep_time(clock)),
            tokio::task::spawn_local(keep_gate(hands.clone())),
            tokio::task::spawn_local(people.keep(metrics)),
            tokio::task::spawn_local(async move { campaigns.run(campaigns_stop).await }),
            tokio::task::spawn_local(async move { webhooks.run(configs, webhooks_stop).await }),
            tokio::task::spawn_local(drain(hands)),
            tokio::task::spawn_local(watch.run()),
            tokio::task::spawn_local(keeper.run()),
        ];
        server.run(stops).await;
        // It ends by the same watch; a panic there is logged by its thread's hook.
        let _ = public.await;
        side_tasks.iter().for_each(tokio::task::JoinHandle::abort);
    })?;
    let http = told.recv().context("the control thread ended at its start")??;
    Ok((thread, http))
}

/// Removes reports on authentication that are older than their retention, once in a while.
async fn keep_reports(hands: Arc<Hands>, ledger: Ledger, clock: Clock) {
    loop {
        tokio::time::sleep(REPORTS_SWEEP_EVERY).await;
        let retention = hands.config.load().bounces.report_retention.0;
        match crate::inbound::reports::sweep(&hands.reader, &ledger, retention, clock.now()).await {
            Ok(0) => {}
            Ok(removed) => info!(removed, "old reports on authentication were removed"),
            Err(error) => warn!(%error, "old reports on authentication were not removed"),
        }
    }
}

async fn keep_time(clock: Clock) {
    loop {
        tokio::time::sleep(SLEW_EVERY).await;
        let left_ms = clock.slew(SLEW_EVERY);
        if left_ms.abs() > CLOCK_OFF_MS {
            warn!(left_ms, "the system's clock jumped; the daemon's own follows slowly, so that nothing expires early");
        }
    }
}

/// Ends the process some time after the store failed, whatever its threads wait for: a session waits for the answer to a commit that hangs,
/// and nothing can be saved any more by waiting with it.
fn end_anyway() {
    let end = || {
        std::thread::sleep(FAILED_END_MAX);
        tracing::error!("the store has failed and the threads do not end by themselves: ending now");
        std::process::exit(1);
    };
    // Without a thread the end takes as long as the threads take.
    if let Err(error) = std::thread::Builder::new().name("end".into()).spawn(end) {
        warn!(%error, "no thread to end the daemon in time");
    }
}

/// Opens and closes intake as the store's state changes; a failed store ends the daemon.
async fn keep_gate(hands: Arc<Hands>) {
    let mut status = hands.store_status.clone();
    loop {
        let gate = match &*status.borrow_and_update() {
            StoreStatus::Good => GateState::Open,
            StoreStatus::LowSpace { .. } => GateState::LowSpace,
            StoreStatus::Failed(_) => GateState::Failed,
        };
        if *hands.phase.borrow() == Phase::Running || gate == GateState::Failed {
            hands.intake.gate().set(gate);
        }
        if gate == GateState::Failed {
            hands.advance(Phase::Stopping);
            end_anyway();
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Ends the daemon once a drain is done: nothing is in an attempt, and all that still waits, waits for a later time.
async fn drain(hands: Arc<Hands>) {
    let mut phases = hands.phase.subscribe();
    if phases.wait_for(|phase| *phase == Phase::Draining).await.is_err() {
        return;
    }
    // Twice in a row: what was accepted last may not have reached the queues at the first look.
    let mut quiet = false;
    loop {
        tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        let Ok(summary) = hands.queues.ask(|reply| Command::Summary { top: 0, reply }).await else { return };
        let busy = summary.in_flight + summary.unsettled + egress::ready(&summary);
        if busy == 0 && !std::mem::replace(&mut quiet, true) {
            continue;
        }
        quiet &= busy == 0;
        if busy == 0 {
            info!(left = summary.recipients, "drained: what is left waits for a later time");
            return hands.advance(Phase::Stopping);
        }
    }
}
