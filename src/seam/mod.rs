//! The seams to the world: clock, randomness, DNS and sockets.
//!
//! Only this module names `SystemTime`, `rand`, a resolver or `tokio::net`, so that all else can be run
//! in a test with a clock and a seed in hand.

pub mod clock;
pub mod dns;
pub mod net;
pub mod random;
