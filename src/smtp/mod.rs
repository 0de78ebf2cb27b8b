//! SMTP as words and machines: no sockets, no clock, no store.

pub mod client;
