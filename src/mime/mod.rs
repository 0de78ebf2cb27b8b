//! MIME: messages made, checked and re-encoded (RFC 5322, 2045–2049).

pub mod build;
pub mod encode;
pub mod raw;
pub mod seven_bit;
//! Messages as a format (RFC 5322, MIME): no sockets, no store.

pub mod submission;
