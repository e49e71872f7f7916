//! Datagrams of NetFlow, IPFIX and sFlow.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::exports::run(bytes));
