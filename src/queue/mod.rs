//! The queue: who waits, for what, and who is next.
//!
//! 1. [`intake`] makes a message ours and names the queue of each recipient; the ledger commits it,
//! 2. [`scheduler`] hears of it by the ledger's news, keeps a window of what is due of each queue in memory, and gives jobs to
//!    connections, as far as `shaping::admit` lets it,
//! 3. [`egress`] drives it: sockets, timers, reads and commits,
//! 4. a report of an attempt becomes the next state of each recipient (`effects`), its event, and the notification that is owed ([`notify`]), in
//!    one batch for the ledger,
//! 5. [`admin`] is what an operator can ask and change.

pub mod admin;
pub mod cache;
pub mod content;
pub mod egress;
pub mod intake;
pub mod keys;
pub mod notice;
pub mod notify;
pub mod returns;
pub mod scheduler;
pub mod sign;
pub mod system;

#[cfg(test)]
mod sim;
#[cfg(test)]
pub(crate) mod testing;
