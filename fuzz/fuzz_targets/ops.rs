//! A message of a WebSocket client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::gateway::ops(bytes));
