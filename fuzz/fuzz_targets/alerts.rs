//! Stores of alerts, and rows of logs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::rules::alerts(bytes));
