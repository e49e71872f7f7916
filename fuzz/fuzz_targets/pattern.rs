//! Patterns of records in sequence.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::rules::pattern(bytes));
