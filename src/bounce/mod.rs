//! Bounces: what a sender is told of mail that did not arrive.
//!
//! [`dsn`] writes notifications (RFC 3464), [`read`] reads those of others and whatever else comes back, [`classify`] says what they mean.

pub mod classify;
pub mod dsn;
pub mod read;
mod words;
pub mod xtext;
