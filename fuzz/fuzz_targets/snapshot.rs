//! A shard's snapshot with one part replaced.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::snapshot(bytes));
