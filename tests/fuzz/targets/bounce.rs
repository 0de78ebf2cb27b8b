#![no_main]
//! See `harness::bounce`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::bounce(input));
