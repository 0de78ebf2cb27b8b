//! Messages as a format (RFC 5322, MIME): no sockets, no store.

pub mod submission;
