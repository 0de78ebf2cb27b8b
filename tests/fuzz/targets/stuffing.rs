#![no_main]
//! See `harness::stuffing`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::stuffing(input));
