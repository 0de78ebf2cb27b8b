//! Campaigns: one job, one list, one mail for each row; sent, paused and counted as one thing.
//!
//! 1. A [`job::Job`] is parsed from TOML or JSON; all that is wrong with it is told at once (`job`),
//! 2. it is stored as a draft under a number that is never used again (`model`, `registry`),
//! 3. recipients are uploaded or selected: each is a row of the store, which waits but is not sent (a port),
//! 4. a start checks the job (a port), seals a version of it and makes the rows due: a handful of records, whatever their number (`engine`),
//! 5. the scheduler sends the rows under the campaign's rate, priority and holds; a row's message is made at its attempt (a port),
//! 6. the engine pauses, resumes and cancels, keeps to the window, halts by `stop_if`, and writes the end when the last row has ended.
//!
//! Each change of state is on disk, with its event, before it is answered.

pub mod contacts;
pub mod content;
mod engine;
mod error;
pub mod job;
pub mod model;
pub mod ports;
pub mod preflight;
pub mod recipients;
mod registry;
pub mod schedule;
pub mod state;
mod stop;

#[cfg(test)]
pub(crate) use engine::testing;
pub use engine::{
    CAMPAIGNS_MAX, CampaignView, Campaigns, Created, Erased, Extra, LiveChange, Parts, Paused, Rates, Started,
};
pub use error::CampaignError;
pub use registry::Sealings;
