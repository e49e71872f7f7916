//! Texts that say what to compute: bars, indicators, parameters, columns.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::specs(bytes));
