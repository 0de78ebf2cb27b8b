#![no_main]
//! See `harness::mime`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::mime(input));
