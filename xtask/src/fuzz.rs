//! Fuzzing on the stable toolchain: LLVM's coverage pass by flags, libFuzzer by `libfuzzer-sys`.

use crate::shell;
use anyhow::{Context, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// What `cargo fuzz` would pass, without the sanitizers that need a nightly compiler. The code is safe Rust; what a
/// fuzzer finds here are panics, endless loops and memory without bound.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Bounds of one input: its length, the process's memory, its time.
const LIMITS: [&str; 3] = ["-max_len=65536", "-rss_limit_mb=2048", "-timeout=10"];

/// Targets run at once: one per core of the smallest machine this is meant for.
const AT_ONCE: usize = 2;

/// What a run over one target gave.
struct Finding {
    target: String,
    executions: u64,
    /// How to see it again, and the last words of the fuzzer.
    found: Option<(String, String)>,
}

/// What a run over all targets gave; prints as a table.
pub(crate) struct Report(Vec<Finding>);

impl Report {
    /// Targets that found something.
    pub(crate) fn findings(&self) -> u64 {
        self.0.iter().filter(|finding| finding.found.is_some()).count() as u64
    }

    /// Targets that found nothing.
    pub(crate) fn clean(&self) -> u64 {
        self.0.len() as u64 - self.findings()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:>12}  result", "target", "executions")?;
        for Finding { target, executions, found } in &self.0 {
            let result = if found.is_some() { "FOUND" } else { "clean" };
            writeln!(f, "{target:<12} {executions:>12}  {result}")?;
        }
        for finding in &self.0 {
            if let Some((again, words)) = &finding.found {
                writeln!(f, "\n{}: {words}\nsee it again with: {again}", finding.target)?;
            }
        }
        Ok(())
    }
}

/// Builds once and runs `only`, or every target, for `seconds` each.
pub(crate) fn run(only: Option<&str>, seconds: u32) -> Result<Report> {
    let folder = shell::root().join("fuzz");
    let targets = targets(&folder)?;
    let chosen: Vec<String> = match only {
        Some(name) => {
            let known = targets.join(", ");
            let found = targets.into_iter().find(|target| target == name);
            vec![found.with_context(|| format!("there is no fuzz target `{name}`; there are: {known}"))?]
        }
        None => targets,
    };
    let binaries = build(&folder)?;
    let mut seeds = Command::new(binaries.join("seeds"));
    anyhow::ensure!(shell::succeeds(seeds.arg(folder.join("corpus")))?, "the seeds could not be written");

    let (queue, done) = (Mutex::new(chosen.clone()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(target) = locked(&queue).pop() {
                        let finding = fuzz(&folder, &binaries, target, seconds)?;
                        locked(&done).push(finding);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked")).and_then(|result| result)
        })
    })?;
    let mut findings = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    findings.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(Report(findings))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Targets are the files of a folder, so none can be forgotten.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets; the folder with the binaries. Naming the host as the target keeps the flags away from build
/// scripts and procedural macros.
fn build(folder: &Path) -> Result<PathBuf> {
    let rustc = shell::output(Command::new("rustc").arg("-vV"))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let target = shell::target_dir()?.join("fuzz");
    let mut command = shell::cargo();
    command.current_dir(folder).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    command.args(["build", "--locked", "--bins", "--target", host, "--target-dir"]).arg(&target);
    anyhow::ensure!(shell::succeeds(&mut command)?, "the fuzz targets do not build");
    Ok(target.join(host).join("debug"))
}

fn fuzz(folder: &Path, binaries: &Path, target: String, seconds: u32) -> Result<Finding> {
    let (binary, corpus) = (binaries.join(&target), folder.join("corpus").join(&target));
    let artifacts = folder.join("artifacts").join(&target);
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(&binary);
    command.arg(&corpus).args(LIMITS).arg("-print_final_stats=1");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let output = command.stdout(Stdio::null()).output().with_context(|| binary.display().to_string())?;
    let log = String::from_utf8_lossy(&output.stderr);
    let executions = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions = executions.and_then(|count| count.trim().parse().ok());
    let found = (!output.status.success()).then(|| {
        let artifact = log.lines().find_map(|line| line.split("Test unit written to ").nth(1));
        let again = format!("{} {}", binary.display(), artifact.unwrap_or_default().trim());
        let telling = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
        let mut lines = log.lines().skip_while(|line| !telling(line)).take(3).collect::<Vec<_>>();
        if lines.is_empty() {
            lines = log.lines().rev().take(3).collect();
        }
        (again, lines.join(" | "))
    });
    // A run that ends early has no statistics; its last progress line has a count.
    let progress =
        || log.lines().rev().find_map(|line| line.strip_prefix('#')?.split_whitespace().next()?.parse().ok());
    Ok(Finding { target, executions: executions.or_else(progress).unwrap_or(0), found })
}
