//! The dashboard in a real browser: against its made-up node, and as the real binary serves it, filled by real feeds.

use crate::ci::{Cases, Outcome, no_node};
use crate::shell;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names under which browsers of the kind are installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// A Chromium that starts: CHROMIUM, one on the path, or the newest that Playwright installed.
fn chromium() -> Option<PathBuf> {
    let starts = |path: &PathBuf| {
        let mut command = Command::new(path);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Some(PathBuf::from(path)).filter(starts);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = NAMES
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .filter(|path| path.is_file())
        .collect();
    let cache = std::env::var_os("PLAYWRIGHT_BROWSERS_PATH")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/ms-playwright")));
    let mut kept: Vec<PathBuf> = cache
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .flat_map(|folder| ["chrome-linux/chrome", "chrome-linux64/chrome"].map(|name| folder.join(name)))
        .filter(|path| path.is_file())
        .collect();
    kept.sort();
    found.extend(kept.into_iter().rev());
    found.into_iter().find(starts)
}

/// Runs the tests in a browser; counts each.
pub(crate) fn run(target: &Path, cases: &mut Cases) -> Result<Outcome> {
    if let Some(reason) = no_node() {
        return Ok(Outcome::Skipped(reason));
    }
    let Some(chromium) = chromium() else {
        println!("NO BROWSER: nothing that a reader of the dashboard sees is tested.");
        println!("`.ci/needs test` installs one (Debian: apt-get install chromium); or set CHROMIUM to one.");
        anyhow::bail!("no Chromium was found that starts");
    };
    println!("{}", chromium.display());
    // The step "test" has built it, with the dashboard that the step "web" has built.
    let bin = target.join("debug/tidegate");
    anyhow::ensure!(bin.is_file(), "{} was not built", bin.display());
    let report = target.join("browser.json");
    let _ = std::fs::remove_file(&report);
    let mut command = Command::new("npx");
    command
        .args(["vitest", "run", "--project", "e2e", "--reporter=default", "--reporter=json"])
        .arg(format!("--outputFile.json={}", report.display()))
        .env("CHROMIUM", &chromium)
        .env("TIDEGATE_BIN", &bin)
        .current_dir(shell::root().join("web"));
    let passed = shell::succeeds(&mut command)?;
    let report = std::fs::read_to_string(&report).context("the tests left no report")?;
    *cases = read(&report)?;
    Ok(if passed && cases.failed == 0 && cases.passed > 0 { Outcome::Passed } else { Outcome::Failed })
}

/// What a report of Vitest counts.
fn read(report: &str) -> Result<Cases> {
    let report: serde_json::Value = serde_json::from_str(report)?;
    let count = |name: &str| report[name].as_u64().with_context(|| format!("no {name} in the report"));
    // A file that could not even be loaded has no tests that failed.
    let suites = count("numFailedTestSuites")?;
    Ok(Cases { passed: count("numPassedTests")?, failed: count("numFailedTests")?.max(suites.min(1)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_counted_and_a_broken_file_is_a_failure() {
        let report = |passed, failed, suites| {
            format!(
                r#"{{"numPassedTests":{passed},"numFailedTests":{failed},"numFailedTestSuites":{suites}}}"#
            )
        };
        assert_eq!(read(&report(27, 0, 0)).unwrap(), Cases { passed: 27, failed: 0 });
        assert_eq!(read(&report(25, 2, 1)).unwrap(), Cases { passed: 25, failed: 2 });
        assert_eq!(read(&report(0, 0, 1)).unwrap(), Cases { passed: 0, failed: 1 });
        assert!(read("{}").is_err());
    }
}
