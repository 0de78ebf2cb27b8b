//! How the store is: told to the daemon, shared by the threads of the store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use super::SubmitError;
use crate::metrics::store::StoreMetrics;

/// How the store is. The daemon watches it: on [`StoreStatus::Failed`] delivery stops and the process exits non-zero.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum StoreStatus {
    /// All is well.
    #[default]
    Good,
    /// Submissions are refused; outcomes are still written.
    LowSpace {
        /// Octets free.
        free: u64,
        /// `storage.min_free`.
        min_free: u64,
    },
    /// Nothing can be written any more. Final.
    Failed(Arc<str>),
}

/// What the threads of the store know together.
pub(super) struct Shared {
    pub(super) metrics: StoreMetrics,
    status: watch::Sender<StoreStatus>,
    failed: Arc<OnceLock<Arc<str>>>,
    anchor: Instant,
    /// Milliseconds from `anchor` at which the commit that is under way began, plus one; 0 when none is.
    commit_began: AtomicU64,
    low: AtomicBool,
    free: AtomicU64,
    min_free: u64,
}

impl Shared {
    /// `failed` is the cell that the handles look into.
    pub(super) fn new(metrics: StoreMetrics, failed: Arc<OnceLock<Arc<str>>>, min_free: u64) -> Self {
        Self {
            metrics,
            status: watch::Sender::new(StoreStatus::Good),
            failed,
            anchor: Instant::now(),
            commit_began: AtomicU64::new(0),
            low: AtomicBool::new(false),
            free: AtomicU64::new(u64::MAX),
            min_free,
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<StoreStatus> {
        self.status.subscribe()
    }

    /// The store has failed: the first reason stays.
    pub(super) fn fail(&self, reason: &str) {
        if self.failed.set(reason.into()).is_ok() {
            tracing::error!(reason, "the store has failed, nothing more is accepted or delivered");
            self.metrics.failed.set(1);
            self.status.send_replace(StoreStatus::Failed(reason.into()));
        }
    }

    /// What a submitter is told if the store has failed.
    pub(super) fn failure(&self) -> Option<SubmitError> {
        self.failed.get().map(|reason| SubmitError::Failed(reason.clone()))
    }

    /// What a submitter is told if there is too little space for a submission of this many octets. Small ones (an
    /// operator's command, a cursor) go on until a quarter of `min_free` is left.
    pub(super) fn refusal(&self, accepts_mail: bool, bytes: usize) -> Option<SubmitError> {
        if !self.low.load(Ordering::Relaxed) {
            return None;
        }
        let free = self.free.load(Ordering::Relaxed);
        let small = !accepts_mail && bytes <= SMALL_SUBMIT_BYTES && free >= self.min_free / 4;
        (!small).then_some(SubmitError::LowSpace { free, min_free: self.min_free })
    }

    /// What was found free; `low` says whether that is too little, in octets or in inodes.
    pub(super) fn set_free(&self, free: u64, low: bool) {
        self.free.store(free, Ordering::Relaxed);
        self.metrics.free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
        if self.low.swap(low, Ordering::Relaxed) == low {
            return;
        }
        self.metrics.low_space.set(i64::from(low));
        let min_free = self.min_free;
        if low {
            tracing::warn!(free, min_free, "low on disk space, intake refuses, delivery goes on");
        } else {
            tracing::info!(free, min_free, "enough disk space again, intake goes on");
        }
        self.status.send_if_modified(|status| match status {
            StoreStatus::Failed(_) => false,
            StoreStatus::Good | StoreStatus::LowSpace { .. } => {
                *status = if low { StoreStatus::LowSpace { free, min_free } } else { StoreStatus::Good };
                true
            }
        });
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed)).filter(|free| *free < u64::MAX)
    }

    pub(super) fn commit_begins(&self) {
        self.commit_began.store(self.millis() + 1, Ordering::Relaxed);
    }

    pub(super) fn commit_ends(&self) {
        self.commit_began.store(0, Ordering::Relaxed);
    }

    /// For how many milliseconds the commit that is under way has been so.
    pub(super) fn commit_millis(&self) -> u64 {
        match self.commit_began.load(Ordering::Relaxed) {
            0 => 0,
            began => self.millis().saturating_sub(began - 1),
        }
    }

    fn millis(&self) -> u64 {
        self.anchor.elapsed().as_millis() as u64
    }
}

/// A submission without mail of at most this many octets is still taken when space is low.
const SMALL_SUBMIT_BYTES: usize = 64 << 10;
