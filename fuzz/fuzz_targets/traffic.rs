//! Packets and flow logs through the flow table and the detectors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::traffic::run(bytes));
