//! Whether intake takes anything: set by the daemon, asked at MAIL and at each message.

use std::sync::atomic::{AtomicU8, Ordering};

use super::Refusal;

/// Why nothing is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum GateState {
    /// Mail is taken.
    Open = 0,
    /// Too little space is left; delivery goes on.
    LowSpace = 1,
    /// The store failed.
    Failed = 2,
    /// The daemon is ending.
    ShuttingDown = 3,
}

/// One octet that all sessions look at.
#[derive(Debug, Default)]
pub struct IntakeGate(AtomicU8);

impl IntakeGate {
    /// Opens or closes it.
    pub fn set(&self, state: GateState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    /// How it stands.
    pub fn state(&self) -> GateState {
        match self.0.load(Ordering::Relaxed) {
            0 => GateState::Open,
            1 => GateState::LowSpace,
            2 => GateState::Failed,
            _ => GateState::ShuttingDown,
        }
    }

    /// What a submitter is told, unless it is open.
    pub fn check(&self) -> Result<(), Refusal> {
        match self.state() {
            GateState::Open => Ok(()),
            GateState::LowSpace => Err(low_space()),
            GateState::Failed => Err(store_failed()),
            GateState::ShuttingDown => Err(shutting_down()),
        }
    }
}

pub(super) fn low_space() -> Refusal {
    Refusal::new(452, "4.3.1", 507, "Low on disk space, try again later")
}

pub(super) fn store_failed() -> Refusal {
    Refusal::new(451, "4.3.0", 503, "The store does not answer, try again later")
}

pub(super) fn shutting_down() -> Refusal {
    Refusal::new(421, "4.3.2", 503, "Shutting down, try again later")
}
