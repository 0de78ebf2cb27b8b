//! The sandbox: simulated mailbox providers and a source of mail, for the demo, the benchmarks and the tests.
//!
//! 1. A [`Profile`] says how a receiver behaves: what it offers, whom it refuses, defers or throttles, how it breaks.
//! 2. [`Sink::start`] listens on loopback and plays the profiles; a [`session`] speaks the protocol, without sockets.
//! 3. [`Sink::counters`] and [`Counters::recipient`] tell what came in: how often each address was tried and taken.
//! 4. [`source`] submits mail over real SMTP.
//!
//! All of it is deterministic: what happens to an address follows from its hash and the profile's seed. Nothing here
//! listens or connects anywhere but on loopback, and it is cheap: what it uses of the CPU the daemon can't.

mod counters;
mod profile;
mod server;
mod session;
pub mod source;

pub use counters::{Counters, Recipient, Snapshot};
pub use profile::{Fault, Moment, Offers, Phase, Profile, Rule};
pub use server::{Endpoint, Sink, tls_from_pem};

#[cfg(test)]
mod tests;
