//! Zeek's connection log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::decode(tidegate_fuzz::Format::Zeek, bytes));
