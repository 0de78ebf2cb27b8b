//! MIME: messages made, checked and re-encoded (RFC 5322, 2045–2049).

pub mod build;
pub mod encode;
pub mod field;
pub mod raw;
pub mod seven_bit;
pub mod skeleton;

pub mod submission;
pub use raw::{RawError, check_raw};
