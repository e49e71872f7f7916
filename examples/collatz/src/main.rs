//! A user-defined operator registered by name: Collatz sequence lengths with a bounded memo.

fn main() {}
