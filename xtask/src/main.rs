//! Developer commands: `cargo xtask ci | score | tidy | bench | fuzz | gpu-check | sim | cluster-faults | yardstick`.
//!
//! **Invariant:** nothing of the product is linked here, so the cheap checks run before anything big is built.
#![forbid(unsafe_code)]

mod browser;
mod ci;
mod fuzz;
mod gpu;
mod shell;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Developer commands of Tidegate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything continuous integration checks, then a table and `N passed, M failed` as the last line.
    Ci,
    /// The last step of that alone: the parts of the yardstick over the public data, scored. Built with `cargo test --workspace --no-run`.
    Score,
    /// Style as a test: sizes, headers, forbidden words, who may depend on whom, links.
    Tidy,
    /// The benchmarks: `tidegate bench`, and with options more.
    Bench {
        /// Fewer events, for a first look.
        #[arg(long)]
        quick: bool,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Also the single benches behind the table (`benches/README.md`).
        #[arg(long)]
        detail: bool,
        /// Also the rivals on the same work (`benches/compare`); installs them first.
        #[arg(long)]
        compare: bool,
    },
    /// Fuzzes every decoder, or one target, and names what it found.
    Fuzz {
        /// A file of fuzz/fuzz_targets without `.rs`; all when absent.
        target: Option<String>,
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Compiles every GPU kernel, compares it with the CPU, bit by bit, and times it.
    GpuCheck {
        /// Run the kernels' text on the CPU instead of a device.
        #[arg(long)]
        no_device: bool,
        /// First renew what is committed: the PTX and the registers allowed.
        #[arg(long)]
        write: bool,
        /// Only build, into a folder that a machine with a device and without a toolchain can run.
        #[arg(long, conflicts_with = "no_device")]
        pack: Option<PathBuf>,
    },
    /// Clusters under a seeded network, disk and clock; what they promised is checked after every step.
    Sim {
        /// How many lives.
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
        /// This life alone, each step printed.
        #[arg(long)]
        seed: Option<u64>,
        /// Without each rule in turn: how many lives it takes until that is noticed. Fails when it is not.
        #[arg(long)]
        mutations: bool,
    },
    /// Three real nodes on machines of their own (network namespaces), killed, stopped and cut off under load; needs root.
    ClusterFaults {
        /// Nodes killed one after the other.
        #[arg(long, default_value_t = 200)]
        kills: u64,
        /// Other faults, each until the cluster goes on without help.
        #[arg(long, default_value_t = 36)]
        rounds: u64,
        /// What the schedule is made of.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// As few as `cargo xtask ci` has.
        #[arg(long)]
        quick: bool,
    },
    /// Writes what the scorers read: `yardstick PART --data DIR --out DIR`.
    Yardstick {
        /// Which part; the command lists them when it is none.
        part: String,
        /// Folder with the input.
        #[arg(long)]
        data: PathBuf,
        /// Folder to write to; made if need be.
        #[arg(long)]
        out: PathBuf,
        /// `nab`: also how well settings and thresholds do on folders that they were not chosen by.
        #[arg(long)]
        folds: bool,
        /// `darpa`: also MIDAS-F alone, beside the whole.
        #[arg(long)]
        baseline: bool,
    },
}

fn main() -> Result<ExitCode> {
    let good = match Arguments::parse().command {
        Command::Ci => ci::run()?,
        Command::Score => ci::scored()?,
        Command::Tidy => {
            let problems = tidy::check(&shell::root())?;
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            println!("tidy: {} problems", problems.len());
            problems.is_empty()
        }
        Command::Bench { quick, json, detail, compare } => bench(quick, json, detail, compare)?,
        Command::Fuzz { target, seconds } => {
            let report = fuzz::run(target.as_deref(), seconds)?;
            print!("{report}");
            report.findings() == 0
        }
        Command::GpuCheck { no_device: true, write, .. } => gpu::check_without_device(write)?,
        Command::GpuCheck { write, pack, .. } => gpu::check(write, pack.as_deref())?,
        Command::Sim { seeds, seed, mutations } => {
            let mut command = shell::cargo();
            command.args(["run", "--quiet", "--release", "--locked", "--package", "tidegate-sim", "--"]);
            command.args(["--seeds", &seeds.to_string()]).args(mutations.then_some("--mutations"));
            shell::succeeds(
                seed.iter().fold(&mut command, |command, seed| command.args(["--seed", &seed.to_string()])),
            )?
        }
        Command::ClusterFaults { kills, rounds, seed, quick } => {
            let mut command = shell::cargo();
            if !quick {
                command.env("TIDEGATE_FAULTS", format!("kills={kills} rounds={rounds} seed={seed}"));
                command.arg("test").arg("--release");
            } else {
                command.arg("test").env("TIDEGATE_FAULTS", format!("seed={seed}"));
            }
            command.env("TIDEGATE_LAB", "required").args([
                "--locked",
                "--package",
                "tidegate",
                "--test",
                "cluster",
            ]);
            shell::succeeds(command.args(["machines_fail", "--", "--nocapture"]))?
        }
        Command::Yardstick { part, data, out, folds, baseline } => {
            // Relative folders are the caller's, not the workspace's.
            let (data, out) = (std::path::absolute(data)?, std::path::absolute(out)?);
            let mut command = shell::cargo();
            command.args([
                "run",
                "--quiet",
                "--release",
                "--locked",
                "--package",
                "tidegate-yardstick",
                "--",
            ]);
            command.arg(part).arg("--data").arg(data).arg("--out").arg(out);
            command.args(folds.then_some("--folds")).args(baseline.then_some("--baseline"));
            shell::succeeds(&mut command)?
        }
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench(quick: bool, json: bool, detail: bool, compare: bool) -> Result<bool> {
    let release = ["run", "--quiet", "--release", "--locked", "--package"];
    let mut command = shell::cargo();
    command.args(release).args(["tidegate", "--", "bench"]);
    command.args(quick.then_some("--quick")).args(json.then_some("--json"));
    let mut good = shell::succeeds(&mut command)?;
    if detail {
        for bin in ["hand", "shard", "engine"] {
            let mut command = shell::cargo();
            command.args(release).args(["tidegate-benches", "--bin", bin, "--"]);
            command.args(quick.then_some(["2000000", "3"]).iter().flatten());
            good &= shell::succeeds(&mut command)?;
        }
    }
    if compare {
        let mut command = std::process::Command::new("sh");
        command.current_dir(shell::root()).arg("benches/compare/run.sh");
        command.args(quick.then_some(["2000000", "1"]).iter().flatten());
        good &= shell::succeeds(&mut command)?;
    }
    Ok(good)
}
