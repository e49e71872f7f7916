//! A stream of frames, in any pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::transport::frames(bytes));
