//! Fuzz target: see the library's `replies_of`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_fuzz::replies_of(data));
