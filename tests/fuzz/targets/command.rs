#![no_main]
//! See `harness::smtp_command`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::smtp_command(input));
