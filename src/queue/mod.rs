//! The queue: who waits, for what, and who is next.

pub mod admin;
pub mod content;
pub mod intake;
pub mod keys;
pub mod notify;
pub mod sign;
