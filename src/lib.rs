//! Posthaste: a self-hosted mail delivery server for campaigns and transactional mail.
//!
//! The layers, from the words that all share up to the daemon, are described in `ARCHITECTURE.md`; a module imports
//! only from lower layers, and `tests/it/tidy.rs` checks it.

pub mod config;
pub mod delivery;
pub mod event;
pub mod metrics;
pub mod queue;
pub mod seam;
pub mod smtp;
pub mod store;
pub mod types;
