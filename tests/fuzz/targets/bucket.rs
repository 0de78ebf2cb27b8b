#![no_main]
//! See `harness::bucket`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::bucket(input));
