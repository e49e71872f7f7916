//! Trades in Parquet. The library panics on some damaged files; the decoder catches that and says so, and only what
//! gets past it is a finding. libFuzzer would abort in the panic hook, so the hook is replaced.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: tidegate_fuzz::keep_panics_quiet(),
    |bytes: &[u8]| tidegate_fuzz::loudly(|| tidegate_fuzz::decode(tidegate_fuzz::Format::Parquet, bytes))
);
