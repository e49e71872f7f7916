//! A snapshot beside a journal, as it is and with its checksums made good.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::snapshots::file(bytes));
