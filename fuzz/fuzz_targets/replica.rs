//! What a member of a cluster may send to a leader and to a follower.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::replica::messages(bytes));
