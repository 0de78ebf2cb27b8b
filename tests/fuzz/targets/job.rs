#![no_main]
//! See `harness::job_text`.

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::job_text(input));
