#![no_main]
//! See `harness::rows`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::rows(input));
