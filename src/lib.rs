//! Posthaste: a self-hosted mail delivery server for campaigns and transactional mail.
//!
//! The layers, from the words that all share up to the daemon, are described in `ARCHITECTURE.md`; a module imports
//! only from lower layers, and `tests/it/tidy.rs` checks it.

pub mod alert;
pub mod api;
pub mod bounce;
pub mod campaign;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod dkim;
pub mod effects;
pub mod event;
pub mod feedback;
pub mod inbound;
pub mod links;
pub mod logging;
pub mod metrics;
pub mod mime;
pub mod queue;
pub mod report;
pub mod sandbox;
pub mod seam;
pub mod shaping;
pub mod smtp;
pub mod smtp_server;
pub mod store;
pub mod suppression;
pub mod template;
pub mod tracking;
pub mod types;
pub mod webhook;
