#![no_main]
//! See `harness::dsn`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::dsn(input));
