//! Fuzz target: see the library's `websocket_reader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold_fuzz::websocket_reader(data));
