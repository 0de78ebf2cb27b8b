//! Bounces: what a sender is told of mail that did not arrive.
//!
//! [`dsn`] writes notifications (RFC 3464). Reading and classifying those of others will stand beside it.

pub mod dsn;
mod words;
pub mod xtext;
