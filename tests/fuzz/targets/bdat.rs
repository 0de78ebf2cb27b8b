#![no_main]
//! See `harness::bdat`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::bdat(input));
