//! Writes the seeds: `seeds FOLDER` makes a folder per target, with small valid inputs.
#![forbid(unsafe_code)]

// The coverage pass calls into the fuzzer's runtime, so it must be linked here too.
use libfuzzer_sys as _;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("corpus"), PathBuf::from);
    for (target, seeds) in tidegate_fuzz::seeds::all() {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder)?;
        for (at, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{at:02}")), seed)?;
        }
    }
    Ok(())
}
