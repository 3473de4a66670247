//! Fuzz target: see the library's `client_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_fuzz::client_frames(data));
