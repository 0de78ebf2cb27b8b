#![no_main]
//! See `harness::segment`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::segment(input));
