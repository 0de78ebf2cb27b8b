//! Bounces: delivery status notifications written (RFC 3464).

pub mod dsn;
