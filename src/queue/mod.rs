//! The queue: who waits, for what, and who is next.

pub mod intake;
