//! Tokens, credentials and keys of a peer, and what a signer would have to sign to be believed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::token::token(bytes));
