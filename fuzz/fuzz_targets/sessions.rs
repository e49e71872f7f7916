//! What a peer says to each side of a feed's and of a subscriber's session.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::transport::sessions(bytes));
