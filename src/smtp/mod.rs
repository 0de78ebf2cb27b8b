//! SMTP as a format (RFC 5321 and its extensions): no sockets, no clock, no store.
//!
//! What both sides share lives here: line framing, commands, replies, xtext. A "not enough octets yet" is a value
//! everywhere, never an error.
//!
//! The way of octets through the server side:
//! 1. [`mod@line`] finds a command line in the buffer,
//! 2. [`command`] parses it into a [`command::Command`] that can only hold valid values,
//! 3. [`data`] and [`bdat`] take the octets of a message in, straight into the buffer that is kept,
//! 4. [`reply`] writes the answers.

pub mod bdat;
pub mod client;
pub mod command;
pub mod data;
pub mod line;
pub mod message_buffer;
mod params;
pub mod reply;
pub mod xtext;
