//! Developer commands: ci, tidy, bench, fuzz, yardstick.

fn main() {}
