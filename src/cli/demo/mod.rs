//! `posthaste demo`: the whole way of mail on one machine, in under a minute, without DNS and without root.
//!
//! 1. [`setup`] makes a fresh data folder and a config, and starts simulated mailbox providers on loopback,
//! 2. the daemon is started in this process, as [`Running`],
//! 3. a source submits some thousand messages over real SMTP,
//! 4. [`watch`] follows the event log over HTTP, as any program would, and draws the progress,
//! 5. [`report`] tells what became of the mail, and whether the daemon's events and the providers' own counts agree,
//! 6. [`campaign`] plays a campaign, from the list to its report,
//! 7. then everything ends, unless `--keep` asks for it to stay.

mod campaign;
mod report;
mod setup;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::daemon::Daemon;
use crate::dkim;
use crate::sandbox::source::{self, Load, Progress};
use report::Report;
use setup::Stage;
use watch::Watch;

/// How long the whole may take before it is called a failure.
const TIME_MAX: Duration = Duration::from_secs(55);
/// How often the progress is drawn on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How often it is told where no terminal is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Show a whole mail server on this machine: simulated providers, real SMTP, live progress.
///
/// Starts a daemon with a fresh data folder on loopback, simulated mailbox providers that accept, defer, reject and
/// throttle like real ones, and submits messages over SMTP. Needs no DNS and no root, and leaves nothing behind.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  posthaste demo
  posthaste demo --messages 10000 --recipients 100000 --keep")]
pub struct Demo {
    /// How many messages to submit.
    #[arg(short, long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    messages: u64,
    /// How many recipients the campaign has; 0 for none.
    #[arg(short = 'r', long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    recipients: u64,
    /// How many connections submit at a time.
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// Leave everything up at the end, and print where it is; Ctrl-C ends it.
    #[arg(short, long)]
    keep: bool,
    /// Varies whom the providers refuse.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A daemon in this process.
pub trait Running {
    /// Ends it in good order, and waits for that.
    fn stop(self: Box<Self>) -> anyhow::Result<()>;
}

impl Running for Daemon {
    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Daemon::stop(*self)
    }
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<super::Exit> {
        let key = dkim::keygen(dkim::Algorithm::Ed25519Sha256)?;
        let good = self.run_with(Some(&key.private_pem), |path| Ok(Box::new(Daemon::start(path, None)?)))?;
        Ok(if good { super::Exit::Success } else { super::Exit::Failure })
    }

    /// Runs it; whether all mail came to its end and all counts agree.
    ///
    /// `start` starts the daemon with a config file and returns when its listeners are open; the daemon's threads are
    /// its own, this one is blocked. `dkim_key` is an Ed25519 key as PKCS #8 PEM to sign with; without it nothing is signed.
    pub fn run_with(
        self,
        dkim_key: Option<&str>,
        start: impl FnOnce(&Path) -> anyhow::Result<Box<dyn Running>>,
    ) -> anyhow::Result<bool> {
        let began = Instant::now();
        let stage = Stage::set(self.seed, dkim_key)?;
        say(&format!("Simulated providers are up; the data folder is {}.", stage.folder().display()))?;
        let daemon = start(&stage.config_file()).context("the daemon did not start")?;
        let played = self.play(&stage, began);
        if self.keep && played.is_ok() {
            say(&stage.directions())?;
            wait_for_interrupt()?;
        }
        // Its end is waited for even when the play went wrong, so that no thread writes into a folder that is gone.
        let stopped = daemon.stop().context("the daemon did not end well");
        let good = played?;
        stopped?;
        Ok(good)
    }

    fn play(&self, stage: &Stage, began: Instant) -> anyhow::Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut watch = Watch::new(stage.http(), stage.api_key());
        runtime.block_on(watch.ready(Duration::from_secs(20)))?;
        let cpu_before = report::daemon_cpu();
        let progress = Arc::new(Progress::new(self.messages));
        let source = self.submit(stage, progress.clone())?;
        let drawn = runtime.block_on(self.follow(stage, &mut watch, &progress, began));
        // The source ends by itself: it gives up on a server that is gone.
        let submitted = source.join().map_err(|_| anyhow::anyhow!("the source of mail panicked"))?;
        drawn?;
        submitted.context("submitting the messages")?;
        let cpu = report::daemon_cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        let report = Report::make(stage, &watch, &progress, began.elapsed(), cpu);
        say(&report.render())?;
        let mut problems = report.problems();
        if self.recipients > 0 {
            let act = campaign::Act::new(stage, self.recipients)?;
            let more = runtime.block_on(act.play())?;
            let agree =
                if more.is_empty() { "Its counts and the providers' agree." } else { "Its counts do NOT agree:" };
            say(agree)?;
            for problem in &more {
                say(&format!("  {problem}"))?;
            }
            problems.extend(more);
        }
        Ok(problems.is_empty())
    }

    fn submit(
        &self,
        stage: &Stage,
        progress: Arc<Progress>,
    ) -> anyhow::Result<std::thread::JoinHandle<io::Result<Duration>>> {
        let load = Load {
            target: stage.smtp(),
            sessions: usize::from(self.connections),
            messages: self.messages,
            body_bytes: 2_000,
            sender: setup::SENDER.into(),
            recipient: Arc::new(setup::write_recipient),
            chunking: true,
            login: None,
            seed: self.seed,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(source::run(load, progress));
        Ok(std::thread::Builder::new().name("sandbox-source".into()).spawn(work)?)
    }

    /// Reads events and draws until each message that was submitted has come to its end.
    async fn follow(
        &self,
        stage: &Stage,
        watch: &mut Watch,
        progress: &Progress,
        began: Instant,
    ) -> anyhow::Result<()> {
        let terminal = io::stdout().is_terminal();
        let every = if terminal { DRAW_EVERY } else { TELL_EVERY };
        let mut next_draw = Instant::now();
        let mut lines = 0;
        loop {
            watch.read().await?;
            let submitted = progress.accepted() + progress.refused();
            let done = submitted >= self.messages && watch.ended() >= progress.accepted();
            if done || Instant::now() >= next_draw {
                next_draw = Instant::now() + every;
                lines = report::draw(stage, watch, progress, began.elapsed(), terminal, lines)?;
            }
            if done {
                return Ok(());
            }
            anyhow::ensure!(
                began.elapsed() < TIME_MAX.max(Duration::from_millis(self.messages * 10)),
                "after {} s {} of {} messages had not come to their end",
                began.elapsed().as_secs(),
                self.messages - watch.ended().min(self.messages),
                self.messages
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Writes a line to standard output.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn wait_for_interrupt() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(tokio::signal::ctrl_c())?)
}

#[cfg(test)]
mod tests;
