//! The seeded simulation: all of the daemon that speaks and decides, on simulated time, DNS, network and peers.
//!
//! 1. [`plan`] makes of a seed what happens when: submissions, moods of the peers, DNS, jumps of the clock, crashes, operators,
//! 2. [`world`] runs it: intake, both SMTP sessions, scheduler, router and connector are those of production; the time is tokio's own,
//!    paused; the ledger ([`disk`]) is in memory and keeps what it committed when the process dies,
//! 3. clients ([`clients`]) and peers ([`peers`]) speak SMTP by octets and write down what they saw ([`log`]),
//! 4. [`checker`] reads what clients and peers wrote down, and what the disk holds at the end, and says what is wrong.
//!
//! The same seed gives the same run. `SIM_SEEDS=0..10000 cargo test --profile ci --lib daemon::sim::` runs many; a failure prints its seed.

mod checker;
mod clients;
mod disk;
mod log;
mod peers;
mod plan;
mod tests;
mod world;
