//! Prices, sizes and times from text and floats.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::units(bytes));
