#![no_main]
//! See `harness::reply`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::reply(input));
