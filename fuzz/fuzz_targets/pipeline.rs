//! Any events, as a capture or a wire could carry them, through sequencer and shard.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::pipeline(bytes));
