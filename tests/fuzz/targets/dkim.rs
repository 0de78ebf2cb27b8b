#![no_main]
//! See `harness::dkim`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::dkim(input));
