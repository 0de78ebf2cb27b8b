//! The egress thread: the scheduler, the sessions of delivery, and what they share.

use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::Phase;
use crate::config::Config;
use crate::dkim::KeyRing;
use crate::metrics::Metrics;
use crate::queue::admin::{Command, Summary};
use crate::queue::intake::UsageTable;
use crate::seam::clock::Clock;
use crate::store::{Ledger, News, QueueRow, Reader, StoreStatus};

/// What the egress thread is made of.
pub(super) struct Parts {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) ring: Arc<ArcSwap<KeyRing>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Ledger,
    pub(super) reader: Reader,
    pub(super) news: mpsc::Receiver<Vec<News>>,
    pub(super) queues: Vec<QueueRow>,
    pub(super) usage: UsageTable,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) phases: watch::Receiver<Phase>,
    pub(super) store_status: watch::Receiver<StoreStatus>,
}

/// Recipients that could go now.
pub(super) fn ready(summary: &Summary) -> u64 {
    summary.in_flight
}

pub(super) fn start(mut parts: Parts) -> anyhow::Result<JoinHandle<()>> {
    Ok(super::threads::spawn("egress", move || async move {
        drop((parts.config, parts.ring, parts.clock, parts.metrics, parts.ledger, parts.reader));
        drop((parts.news, parts.queues, parts.usage, parts.commands, parts.store_status));
        let _ = parts.phases.wait_for(|phase| *phase == Phase::Stopping).await;
    })?)
}
