//! The queue: who waits, for what, and who is next.

pub mod admin;
pub mod intake;
