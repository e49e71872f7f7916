//! What continuous integration runs: cheap steps first, a table at the end.

use crate::{browser, fuzz, gpu, shell, tidy};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is not in the program unless asked for, and is tested all the same.
const FEATURES: &str = "tidegate/kafka";
/// Seconds for each fuzz target: enough for the seeds, their neighbours and the first hundred thousand mutants.
const FUZZ_SECONDS: u32 = 8;

/// Lives of simulated clusters, and the most lives a missing rule may take to be noticed.
const SIM_SEEDS: &str = "20000";

/// Lives and seconds for a run that is late already: a busy machine gets a smaller answer, not none.
const SIM_SEEDS_LATE: &str = "4000";
const FUZZ_SECONDS_LATE: u32 = 2;

/// What properties draw their cases from where `CI` is set: the same for every run, so that a commit has one result and a change is not
/// held up by a case that it has nothing to do with. People's runs draw anew, and say from what.
const CASES_SEED: u64 = 1;

/// After this a run is late.
const LATE: Duration = Duration::from_secs(45 * 60);

/// After this nothing more is begun and what runs is killed, so that whoever waits for the run still reads what failed.
const LIMIT: Duration = Duration::from_secs(80 * 60);

/// Most failed cases that are run again by themselves.
pub(crate) const UNSTEADY_MOST: u64 = 5;

pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// How a step ended and how many test cases it ran.
struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
    cases: Cases,
}

/// Test cases, by result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cases {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// The failed ones, as far as the step knows their names.
    pub(crate) names: Vec<String>,
    /// Those that failed and passed when they were run again alone: counted as passed, and named in the summary, for each is a fault of
    /// the test or of what it tests.
    pub(crate) unsteady: Vec<String>,
    /// Those that have run for a minute and not ended: what was waited for, should the step be killed.
    pub(crate) slow: BTreeSet<String>,
}

impl Cases {
    /// Counts failed cases of which `good` says that they passed when they were run again.
    pub(crate) fn settle(&mut self, good: impl Fn(&str) -> bool) {
        let (steady, failed) = std::mem::take(&mut self.names).into_iter().partition(|name| good(name));
        let steady: Vec<String> = steady;
        self.passed += steady.len() as u64;
        self.failed -= steady.len() as u64;
        self.unsteady.extend(steady);
        self.names = failed;
    }

    /// Adds what a line such as `test result: ok. 5 passed; 0 failed; ...` or `test name ... FAILED` says.
    fn read(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" has been running for over 60 seconds") {
                self.slow.insert(name.to_owned());
            } else if let Some((name, result)) = test.split_once(" ... ") {
                self.slow.remove(name);
                self.names.extend((result == "FAILED").then(|| name.to_owned()));
            }
        }
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let count = |word: &str| {
            let part = counts.split([';', '.']).map(str::trim).find_map(|part| part.strip_suffix(word));
            part.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
    }
}

/// The steps so far.
#[derive(Default)]
struct Run(Vec<Step>);

impl Run {
    /// Runs a step and notes how it went; returns whether it passed.
    fn step(&mut self, name: &'static str, work: impl FnOnce(&mut Cases) -> Result<Outcome>) -> bool {
        println!("\n=== {name}");
        let (start, mut cases) = (Instant::now(), Cases::default());
        let outcome =
            if shell::is_late() { Err(anyhow::anyhow!("not run: out of time")) } else { work(&mut cases) };
        let outcome = outcome.unwrap_or_else(|error| {
            println!("{error:?}");
            Outcome::Failed
        });
        if let Outcome::Skipped(reason) = &outcome {
            println!("SKIPPED: {reason}");
        }
        let passed = !matches!(outcome, Outcome::Failed);
        self.0.push(Step { name, outcome, took: start.elapsed(), cases });
        passed
    }

    fn cargo(&mut self, name: &'static str, arguments: &[&str], environment: &[(&str, &str)]) -> bool {
        self.step(name, |cases| {
            let mut command = shell::cargo();
            command.args(arguments).envs(environment.iter().copied());
            watch(&mut command, cases)
        })
    }

    /// The table and the sum; whether all is well.
    fn report(&self, took: Duration) -> bool {
        println!("\n{:<12} {:>8} {:>9} {:>9} {:>9}", "step", "result", "passed", "failed", "seconds");
        for step in &self.0 {
            let result = match step.outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAILED",
                Outcome::Skipped(_) => "skipped",
            };
            let Cases { passed, failed, .. } = step.cases;
            println!(
                "{:<12} {result:>8} {passed:>9} {failed:>9} {:>9.1}",
                step.name,
                step.took.as_secs_f64()
            );
        }
        for step in &self.0 {
            if let Outcome::Skipped(reason) = &step.outcome {
                println!("{} was skipped: {reason}", step.name);
            }
        }
        for step in &self.0 {
            step.cases.slow.iter().for_each(|name| println!("{}: KILLED, out of time: {name}", step.name));
            step.cases.names.iter().for_each(|name| println!("{}: FAILED: {name}", step.name));
            step.cases
                .unsteady
                .iter()
                .for_each(|name| println!("{}: unsteady, passed when run again alone: {name}", step.name));
        }
        println!("all of it took {:.0} seconds", took.as_secs_f64());
        let sum = self.sum();
        println!("{} passed, {} failed", sum.passed, sum.failed);
        sum.failed == 0
    }

    /// A failed step without failed cases (a lint, a build) counts as one.
    fn sum(&self) -> Cases {
        self.0.iter().fold(Cases::default(), |sum, step| {
            let failed = matches!(step.outcome, Outcome::Failed);
            let counted = step.cases.failed.max(u64::from(failed));
            Cases { passed: sum.passed + step.cases.passed, failed: sum.failed + counted, ..sum }
        })
    }
}

/// Runs a command as [`watch`] does; with what it said on standard error.
fn watch_both(command: &mut Command, cases: &mut Cases) -> Result<(Outcome, Vec<String>)> {
    let (reader, writer) = std::io::pipe()?;
    command.stderr(writer);
    let listener = std::thread::spawn(move || {
        let mut said = Vec::new();
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{line}");
            said.push(line);
        }
        said
    });
    let outcome = watch(command, cases);
    // The command holds our end of the pipe.
    command.stderr(Stdio::inherit());
    let said = listener.join().map_err(|_| anyhow::anyhow!("nobody listened to standard error"))?;
    Ok((outcome?, said))
}

/// Runs a command, shows its output and counts the test cases in it.
fn watch(command: &mut Command, cases: &mut Cases) -> Result<Outcome> {
    let mut started = shell::start(command.stdout(Stdio::piped()))?;
    let stdout = started.child.stdout.take().context("no output to read")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        cases.read(&line);
    }
    Ok(if started.wait()?.success() { Outcome::Passed } else { Outcome::Failed })
}

/// Runs all tests of the workspace, and those that fail once more without the others beside them.
fn tests(environment: &[(&str, &str)], cases: &mut Cases) -> Result<Outcome> {
    let all = ["test", "--workspace", "--locked", "--features", FEATURES];
    let mut command = shell::cargo();
    command.args(all).arg("--no-fail-fast").envs(environment.iter().copied());
    let (outcome, complaints) = watch_both(&mut command, cases)?;
    let targets = failed_targets(&complaints);
    // An abort or a failure of many is not a matter of who ran beside it, and examples in documentation wait for nobody.
    let named = cases.names.len() as u64 == cases.failed && cases.failed <= UNSTEADY_MOST;
    if matches!(outcome, Outcome::Passed) || !named || targets.is_empty() || targets.contains(&"--doc") {
        return Ok(outcome);
    }
    println!("\nonce more, alone: {}", cases.names.join(", "));
    let mut again = Cases::default();
    let mut command = shell::cargo();
    command.args(all).arg("--no-fail-fast").envs(environment.iter().copied()).args(targets);
    command.args(["--", "--exact", "--test-threads=1"]).args(&cases.names);
    watch(&mut command, &mut again)?;
    // Each must have run: a name that nothing answers to fails nowhere.
    if again.passed + again.failed >= cases.failed {
        cases.settle(|name| !again.names.iter().any(|failed| failed == name));
    }
    Ok(if cases.failed == 0 { Outcome::Passed } else { Outcome::Failed })
}

/// What selects the targets that failed, of lines such as `-p tidegate-engine --lib`. The packages stay those of the whole workspace:
/// others would have other features and be compiled again.
fn failed_targets(complaints: &[String]) -> Vec<&str> {
    let targets = complaints.iter().filter_map(|line| {
        let line = line.trim().strip_prefix("`-p ")?.strip_suffix('`')?;
        line.split_once(' ').map(|(_package, target)| target)
    });
    let targets: BTreeSet<&str> = targets.collect();
    targets.into_iter().flat_map(str::split_whitespace).collect()
}

/// Runs every step; whether all passed.
pub(crate) fn run() -> Result<bool> {
    let start = Instant::now();
    let is_late = || start.elapsed() > LATE;
    if std::env::var_os("CI").is_some() {
        shell::end_by(start + LIMIT);
    }
    let target = shell::target_dir()?;
    let mut run = Run::default();
    run.cargo("fmt", &["fmt", "--all", "--check"], &[]);
    run.step("tidy", |cases| {
        let problems = tidy::check(&shell::root())?;
        problems.iter().for_each(|problem| println!("{problem}"));
        cases.failed = problems.len() as u64;
        Ok(if problems.is_empty() { Outcome::Passed } else { Outcome::Failed })
    });
    run.step("web", web);
    run.step("kernels", |cases| {
        let good = gpu::compile(&target, false, cases)?;
        Ok(if good { Outcome::Passed } else { Outcome::Failed })
    });
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--features",
        FEATURES,
        "--",
        "-D",
        "warnings",
    ];
    run.cargo("clippy", &clippy, &[]);
    let strict = [("RUSTDOCFLAGS", "-Dwarnings")];
    run.cargo("doc", &["doc", "--no-deps", "--workspace", "--locked", "--features", FEATURES], &strict);
    if run.cargo("build", &["test", "--workspace", "--locked", "--features", FEATURES, "--no-run"], &[]) {
        let cases_seed = cases_seed();
        println!("properties draw their cases from PROPTEST_RNG_SEED={cases_seed}");
        let mut environment = vec![(SEED, cases_seed.as_str())];
        // Where namespaces are to be had, no test that needs them may be left out, whatever else it misses.
        run.step("namespaces", |_| {
            Ok(match no_namespaces() {
                Some(why) => Outcome::Skipped(why),
                None => {
                    environment.push(("TIDEGATE_LAB", "required"));
                    Outcome::Passed
                }
            })
        });
        run.step("test", |cases| tests(&environment, cases));
        run.step("browser", |cases| browser::run(&target, cases));
        loom(&mut run, &target);
        let sim = ["run", "--quiet", "--release", "--locked", "--package", "tidegate-sim", "--"];
        let seeds = if is_late() { SIM_SEEDS_LATE } else { SIM_SEEDS };
        run.cargo("sim", &[&sim[..], &["--seeds", seeds]].concat(), &[]);
        run.cargo("large cluster", &[&sim[..], &["--scale"]].concat(), &[]);
        run.cargo("mutations", &[&sim[..], &["--seeds", SIM_SEEDS, "--mutations"]].concat(), &[]);
        run.step("fuzz", |cases| {
            let seconds = if is_late() { FUZZ_SECONDS_LATE } else { FUZZ_SECONDS };
            println!("{seconds} seconds for each target");
            let report = fuzz::run(None, seconds)?;
            print!("{report}");
            *cases = Cases { passed: report.clean(), failed: report.findings(), ..Cases::default() };
            Ok(if cases.failed == 0 { Outcome::Passed } else { Outcome::Failed })
        });
        run.step("yardstick", |cases| score(&target, cases));
    } else {
        println!(
            "the workspace does not build: tests, browser, loom, fuzz and yardstick would only say so again"
        );
    }
    Ok(run.report(start.elapsed()))
}

/// Where properties read their seed.
const SEED: &str = "PROPTEST_RNG_SEED";

/// What properties draw their cases from in this run: what the caller says, else as [`CASES_SEED`] has it.
fn cases_seed() -> String {
    let drawn = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(CASES_SEED, |since| since.as_nanos() as u64)
    };
    std::env::var(SEED).unwrap_or_else(|_| {
        let seed = if std::env::var_os("CI").is_some() { CASES_SEED } else { drawn() };
        seed.to_string()
    })
}

/// Why no network of our own can be made here, if it cannot: then real servers, machines of a cluster and captures off an interface
/// are not tested. Tried as the tests make theirs. That a tool is missing is no reason to leave tests out: they then fail and name it.
fn no_namespaces() -> Option<String> {
    let said = |command: &mut Command| match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{}: {error}", command.get_program().to_string_lossy())),
    };
    let ip = |line: &str| said(Command::new("ip").args(line.split(' ')));
    // Where there is no `ip`, the kernel is asked by what every Linux has.
    let made = if Command::new("ip").arg("-V").output().is_err() {
        said(Command::new("unshare").args(["--net", "true"]))
    } else {
        let probe = format!("tidegate-ci-{}", std::process::id());
        let made = ip(&format!("netns add {probe}"))
            .and_then(|()| ip(&format!("-n {probe} link add name br0 type bridge")))
            .and_then(|()| ip(&format!("-n {probe} link add one type veth peer name other")));
        // Where it could not be made there is none to take away.
        let _ = ip(&format!("netns del {probe}"));
        made
    };
    made.err().map(|why| {
        format!("network namespaces are not allowed here ({why}); tests that need them say so and pass")
    })
}

/// Oldest Node.js that the dashboard's tools run on.
const NODE: (u32, u32) = (20, 19);

/// Why the dashboard's tools cannot run here, if they cannot.
pub(crate) fn no_node() -> Option<String> {
    let version =
        Command::new("node").arg("--version").output().ok().filter(|output| output.status.success());
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let number = version.as_deref().and_then(|text| {
        let mut parts = text.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    });
    let (major, minor) = NODE;
    number.is_none_or(|number| number < NODE).then(|| {
        let found = version.map_or_else(|| "no Node.js".to_owned(), |version| format!("Node.js {version}"));
        format!("found {found}; the dashboard needs {major}.{minor} or newer")
    })
}

/// Types, style and logic of the dashboard, and that it builds. It is built first, so that what follows is tested with it.
fn web(cases: &mut Cases) -> Result<Outcome> {
    if let Some(reason) = no_node() {
        return Ok(Outcome::Skipped(reason));
    }
    for arguments in [&["ci", "--no-progress"][..], &["run", "check"], &["test"], &["run", "build"]] {
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(shell::root().join("web"));
        if shell::succeeds(&mut command)? {
            cases.passed += 1;
        } else {
            cases.failed += 1;
            cases.names.push(format!("npm {}", arguments.join(" ")));
        }
    }
    // A fault of style must not keep the dashboard from being built: without it every test in a browser would wait for minutes.
    Ok(if cases.failed == 0 { Outcome::Passed } else { Outcome::Failed })
}

/// Every interleaving of the ring's closing handshake. Its own folder: the flag reaches every dependency.
fn loom(run: &mut Run, target: &Path) {
    let folder = target.join("loom");
    let folder = folder.to_string_lossy();
    let arguments =
        ["test", "--locked", "--package", "tidegate-engine", "--lib", "--target-dir", &folder, "loom"];
    run.cargo("loom", &arguments, &[("RUSTFLAGS", "--cfg loom")]);
}

/// Where the public data is: TIDEGATE_DATA, or `../shared/data` beside the workspace.
fn data() -> PathBuf {
    std::env::var_os("TIDEGATE_DATA").map_or_else(|| shell::root().join("../shared/data"), PathBuf::from)
}

/// What the change points must reach on the public half of the data set.
const CHANGE_POINTS: [(&str, f64); 2] = [("f1", 0.72), ("covering", 0.70)];

/// What the anomalies must reach on the public half of the benchmark, by profile.
const ANOMALIES: [(&str, f64); 3] =
    [("standard", 72.0), ("reward_low_FP_rate", 66.0), ("reward_low_FN_rate", 77.0)];

/// What alerts on the public captures must reach: shares of the attacks, of 1. The capture whose label is a family's name and whose packets
/// are refused connections is told as those.
const CAPTURES: [(&str, f64); 3] = [("detected", 1.0), ("attacker_named", 1.0), ("kind_right", 0.85)];

/// Where the labels of scored rows are (file, column), and the area under the ROC curve that is to be reached.
const LABELLED: [(&str, &str, u32, f64); 2] =
    [("darpa", "darpa/darpa_dev.csv.xz", 3, 0.97), ("nslkdd", "nslkdd/train20.csv.gz", 41, 0.96)];

/// How often the recall of MIDAS-F alone, over types of attacks, that of the whole must be.
const MIDAS_TIMES: f64 = 2.0;

/// The mean recall over types of attacks, of what the scorer says; 0 where there is none.
fn over_types(scores: &serde_json::Value) -> f64 {
    let types = scores["by_type"].as_object();
    let attacks =
        types.into_iter().flatten().filter(|(name, _)| !["-", "0", "", "normal"].contains(&name.as_str()));
    let recalls: Vec<f64> = attacks.filter_map(|(_, of)| of["recall"].as_f64()).collect();
    recalls.iter().sum::<f64>() / recalls.len().max(1) as f64
}

/// One column of a table without a heading, with one: what the scorer reads.
const LABELS: &str = "import sys, pandas as pd\n\
    labels = pd.read_csv(sys.argv[1], header=None, usecols=[int(sys.argv[2])], dtype=str, keep_default_na=False)\n\
    labels.to_csv(sys.argv[3], header=['label'], index=False)\n";

/// The yardstick's step alone; whether all is as it must be.
pub(crate) fn scored() -> Result<bool> {
    let (start, target, mut run) = (Instant::now(), shell::target_dir()?, Run::default());
    run.step("yardstick", |cases| score(&target, cases));
    Ok(run.report(start.elapsed()))
}

/// Runs the parts that are there over the public data and compares them with the references.
fn score(target: &Path, cases: &mut Cases) -> Result<Outcome> {
    let data = data();
    let scorer = data.join("../score/compare.py");
    if !data.is_dir() || !scorer.is_file() {
        return Ok(Outcome::Skipped(format!("no data and scorers at {}; set TIDEGATE_DATA", data.display())));
    }
    let data = data.canonicalize()?;
    let python = venv(target, "import numpy, pandas", &["numpy", "pandas"])?;
    let out = target.join("yardstick");
    for part in ["bars", "indicators", "nab", "tcpd", "regime", "portfolio", "pcap", "darpa", "nslkdd"] {
        // The tests of its crate have built it; cargo run would build its dependencies again, with fewer features.
        let mut command = Command::new(target.join("debug/tidegate-yardstick"));
        command.arg(part).arg("--data").arg(&data).arg("--out").arg(&out);
        command.args((part == "darpa").then_some("--baseline"));
        anyhow::ensure!(shell::succeeds(&mut command)?, "the yardstick could not write its {part}");
    }
    let mut compare = |reference: &Path, result: &Path, more: &[&str]| -> Result<()> {
        let mut command = Command::new(&python);
        command.arg(&scorer).arg(reference).arg(result).args(more);
        println!("{}", result.display());
        let agrees = shell::succeeds(&mut command)?;
        *if agrees { &mut cases.passed } else { &mut cases.failed } += 1;
        Ok(())
    };
    for result in files(&out.join("bars"), ".csv")? {
        // spy_20131007_1s.csv is judged by trades/bars/spy_1s.csv.gz.
        let name = result.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (Some((symbol, _)), Some((_, width))) = (name.split_once('_'), name.rsplit_once('_')) else {
            continue;
        };
        let reference = data.join(format!("trades/bars/{symbol}_{width}.gz"));
        if reference.is_file() {
            compare(&reference, &result, &["--key", "start_ns"])?;
        }
    }
    let references = files(&data.join("indicators"), ".csv.gz")?;
    for (result, reference) in files(&out.join("indicators"), ".csv")?.iter().zip(&references) {
        let text = std::fs::read_to_string(result)?;
        let columns = text.lines().next().and_then(|head| head.split_once(',')).unwrap_or_default().1;
        compare(reference, result, &["--key", "date", "--columns", columns])?;
    }
    for reference in files(&data.join("hamilton"), ".csv")? {
        // Its last two columns are the probabilities, under names of their own.
        let text = std::fs::read_to_string(&reference)?;
        let probabilities = text.lines().skip(1).map(|line| {
            let mut fields = line.rsplitn(3, ',');
            let (smoothed, filtered) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            format!("{filtered},{smoothed}\n")
        });
        let table: String =
            ["p1_filtered,p1_smoothed\n".to_owned()].into_iter().chain(probabilities).collect();
        let renamed = out.join("regime-reference.csv");
        std::fs::write(&renamed, table)?;
        let result = out.join("regime").join(reference.file_name().unwrap_or_default());
        compare(&renamed, &result, &["--rtol", "0", "--atol", "1e-5"])?;
    }
    for result in files(&out.join("portfolio"), ".csv")? {
        // frontier1.csv is judged by portef1.txt: mean and variance, without a heading.
        let name = result.file_stem().unwrap_or_default().to_string_lossy().replace("frontier", "portef");
        let reference = data.join(format!("portfolio/{name}.txt"));
        if reference.is_file() {
            let text = std::fs::read_to_string(&reference)?;
            let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(",") + "\n");
            let table: String = ["mean,variance\n".to_owned()].into_iter().chain(rows).collect();
            let renamed = out.join("portfolio-reference.csv");
            std::fs::write(&renamed, table)?;
            compare(&renamed, &result, &["--rtol", "0", "--atol", "1e-6"])?;
        }
    }
    let mut command = Command::new(&python);
    command.arg(data.join("../score/tcpd.py")).arg("--data").arg(data.join("tcpd")).arg("--annotations");
    command.arg(data.join("tcpd/annotations.json")).arg("--out").arg(out.join("tcpd")).arg("--json");
    let scores: serde_json::Value = serde_json::from_str(&shell::output(&mut command)?)?;
    for (name, least) in CHANGE_POINTS {
        let found = scores["mean"][name].as_f64().unwrap_or_default();
        println!("change points, {name}: {found:.3}, at least {least}");
        *if found >= least { &mut cases.passed } else { &mut cases.failed } += 1;
    }
    let mut command = Command::new(&python);
    command.arg(data.join("../score/nab.py")).arg("--data").arg(data.join("nab")).arg("--windows");
    command.arg(data.join("nab/windows.json")).arg("--out").arg(out.join("nab")).arg("--json");
    let scores: serde_json::Value = serde_json::from_str(&shell::output(&mut command)?)?;
    for (name, least) in ANOMALIES {
        let found = scores[name]["score"].as_f64().unwrap_or_default();
        println!("anomalies, {name}: {found:.1}, at least {least}");
        *if found >= least { &mut cases.passed } else { &mut cases.failed } += 1;
    }
    let mut command = Command::new(&python);
    command.arg(data.join("../score/alerts.py")).arg("--labels").arg(data.join("pcap/labels.csv"));
    command.arg("--alerts").arg(out.join("pcap/alerts.csv")).arg("--json");
    let scores: serde_json::Value = serde_json::from_str(&shell::output(&mut command)?)?;
    let mut judge = |what: &str, found: f64, good: bool, bound: &str| {
        println!("{what}: {found:.3}, {bound}");
        *if good { &mut cases.passed } else { &mut cases.failed } += 1;
    };
    for (name, least) in CAPTURES {
        let found = scores[name].as_f64().unwrap_or_default();
        judge(&format!("captures, {name}"), found, found >= least, &format!("at least {least}"));
    }
    let false_alarms = scores["false_alarms"].as_f64().unwrap_or(f64::INFINITY);
    judge("captures, false alarms", false_alarms, false_alarms == 0.0, "none");
    for (part, file, column, least) in LABELLED {
        let labels = out.join(format!("{part}.labels"));
        let mut command = Command::new(&python);
        command.args(["-c", LABELS]).arg(data.join(file)).arg(column.to_string()).arg(&labels);
        anyhow::ensure!(shell::succeeds(&mut command)?, "no labels of {part}");
        let mut command = Command::new(&python);
        command.arg(data.join("../score/auc.py")).arg("--labels").arg(&labels).arg("--scores");
        command.arg(out.join(format!("{part}.csv"))).args(["--by-type", "--json"]);
        let scores: serde_json::Value = serde_json::from_str(&shell::output(&mut command)?)?;
        let found = scores["roc_auc"].as_f64().unwrap_or_default();
        judge(&format!("{part}, area under the curve"), found, found >= least, &format!("at least {least}"));
        if part != "darpa" {
            continue;
        }
        let mut command = Command::new(&python);
        command.arg(data.join("../score/auc.py")).arg("--labels").arg(&labels).arg("--scores");
        command.arg(out.join("darpa_midas.csv")).args(["--by-type", "--json"]);
        let alone: serde_json::Value = serde_json::from_str(&shell::output(&mut command)?)?;
        let (found, alone) = (over_types(&scores), over_types(&alone));
        let least = MIDAS_TIMES * alone;
        let what = "darpa, recall over types at 1 % false positives";
        judge(what, found, alone > 0.0 && found >= least, &format!("at least {least:.3}, twice MIDAS-F"));
    }
    Ok(if cases.failed == 0 && cases.passed > 0 { Outcome::Passed } else { Outcome::Failed })
}

fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A Python in which `test` runs, made and filled with `packages` where it does not yet.
pub(crate) fn venv(target: &Path, test: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = target.join("venv");
    let python = folder.join("bin/python");
    let ready = |test: &str| {
        let mut command = Command::new(&python);
        command.args(["-c", test]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !ready("import pip") {
        let mut make = Command::new("python3");
        anyhow::ensure!(shell::succeeds(make.args(["-m", "venv"]).arg(&folder))?, "python3 -m venv failed");
    }
    if !ready(test) {
        let mut fill = Command::new(&python);
        let fill = fill.args(["-m", "pip", "install", "--quiet"]).args(packages);
        anyhow::ensure!(shell::succeeds(fill)?, "pip could not install {}", packages.join(" and "));
        anyhow::ensure!(ready(test), "{} is installed, but `{test}` fails", packages.join(" and "));
    }
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed() {
        let mut cases = Cases::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test a ... ok",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "running 3 tests",
        ] {
            cases.read(line);
        }
        assert_eq!(cases, Cases { passed: 15, failed: 2, ..Cases::default() });
        for name in ["net::a_cut_heals", "net::a_hang"] {
            cases.read(&format!("test {name} has been running for over 60 seconds"));
        }
        cases.read("test net::a_cut_heals ... FAILED");
        cases.read("test net::a_feed_ends ... FAILED");
        cases.settle(|name| name == "net::a_feed_ends");
        let (names, unsteady) = (vec!["net::a_cut_heals".to_owned()], vec!["net::a_feed_ends".to_owned()]);
        let slow = BTreeSet::from(["net::a_hang".to_owned()]);
        assert_eq!(cases, Cases { passed: 16, failed: 1, names, unsteady, slow });
    }

    #[test]
    fn recalls_are_averaged_over_types_of_attacks() {
        let said = serde_json::json!({"by_type": {"-": {"recall": 0.01}, "smurf": {"recall": 0.5}, "satan": {"recall": 0.25}}});
        assert_eq!(over_types(&said), 0.375);
        assert_eq!(over_types(&serde_json::json!({})), 0.0);
    }

    #[test]
    fn failed_targets_are_read_from_what_cargo_says() {
        let said = "error: 3 targets failed:\n    `-p tidegate --test cluster`\n    `-p tidegate-engine --lib`\n    `-p tidegate-live --lib`";
        let said: Vec<String> = said.lines().map(str::to_owned).collect();
        assert_eq!(failed_targets(&said), ["--lib", "--test", "cluster"]);
    }

    #[test]
    fn a_failed_step_is_never_lost_in_the_sum() {
        let step = |outcome, passed, failed| Step {
            name: "step",
            outcome,
            took: Duration::ZERO,
            cases: Cases { passed, failed, ..Cases::default() },
        };
        let run = Run(vec![
            step(Outcome::Passed, 5, 0),
            step(Outcome::Failed, 0, 0),
            step(Outcome::Failed, 2, 3),
            step(Outcome::Skipped("why".to_owned()), 0, 0),
        ]);
        assert_eq!(run.sum(), Cases { passed: 7, failed: 4, ..Cases::default() });
    }
}
