//! The dashboard in a real browser: against its made-up node, and as the real binary serves it, filled by real feeds.

use crate::ci::{Cases, Outcome, UNSTEADY_MOST, no_node};
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
    let page = shell::root().join("web/dist/index.html");
    anyhow::ensure!(page.is_file(), "the dashboard was not built: see the step `web`");
    let report = target.join("browser.json");
    let tests = |files: &[String]| -> Result<Report> {
        let _ = std::fs::remove_file(&report);
        let mut command = Command::new("npx");
        command
            .args(["vitest", "run", "--project", "e2e", "--reporter=verbose", "--reporter=json"])
            // Each that fails has waited for a minute or more; of so many, a few tell why.
            .arg(format!("--bail={}", UNSTEADY_MOST + 1))
            .arg(format!("--outputFile.json={}", report.display()))
            .args(files)
            .env("CHROMIUM", &chromium)
            .env("TIDEGATE_BIN", &bin)
            .current_dir(shell::root().join("web"));
        let passed = shell::succeeds(&mut command)?;
        let report = read(&std::fs::read_to_string(&report).context("the tests left no report")?)?;
        anyhow::ensure!(passed || report.cases.failed > 0, "the tests failed, and none of them by name");
        Ok(report)
    };
    let first = tests(&[])?;
    *cases = first.cases;
    // Tests of a file go on from where the page is, so files are run again, not tests.
    let named = cases.names.len() as u64 == cases.failed;
    if (1..=UNSTEADY_MOST).contains(&cases.failed) && named && !first.files.is_empty() {
        println!("\nonce more, alone: {}", first.files.join(", "));
        let again = tests(&first.files)?;
        // What was left out because a hook failed has not passed.
        cases.settle(|name| again.good.iter().any(|good| good == name));
    }
    Ok(if cases.failed == 0 && cases.passed > 0 { Outcome::Passed } else { Outcome::Failed })
}

/// What a report of Vitest says.
struct Report {
    cases: Cases,
    /// Files in which a test failed.
    files: Vec<String>,
    /// Tests that passed.
    good: Vec<String>,
}

fn read(report: &str) -> Result<Report> {
    let report: serde_json::Value = serde_json::from_str(report)?;
    let count = |name: &str| report[name].as_u64().with_context(|| format!("no {name} in the report"));
    // A file that could not even be loaded has no tests that failed.
    let suites = count("numFailedTestSuites")?;
    let (passed, failed) = (count("numPassedTests")?, count("numFailedTests")?.max(suites.min(1)));
    let (mut names, mut files, mut good) = (Vec::new(), Vec::new(), Vec::new());
    let mut hooks = 0;
    for file in report["testResults"].as_array().into_iter().flatten() {
        let tests = || file["assertionResults"].as_array().into_iter().flatten();
        let of = |status: &str| -> Vec<String> {
            let named = tests().filter(|test| test["status"] == status);
            named.filter_map(|test| test["fullName"].as_str()).map(str::to_owned).collect()
        };
        let bad = of("failed");
        let name = file["name"].as_str().unwrap_or("?");
        if !bad.is_empty() {
            files.push(name.to_owned());
        } else if file["status"] == "failed" {
            // A hook that failed, or a file that could not be loaded, fails no test.
            names.push(format!("{name}: a hook"));
            hooks += 1;
        }
        names.extend(bad);
        good.extend(of("passed"));
    }
    let failed = failed.max(names.len() as u64);
    // A hook is not settled by tests that pass.
    let files = if hooks > 0 { Vec::new() } else { files };
    Ok(Report { cases: Cases { passed, failed, names, ..Cases::default() }, files, good })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_counted_and_a_broken_file_is_a_failure() {
        let report = |passed, failed, suites, results: &str| {
            format!(
                r#"{{"numPassedTests":{passed},"numFailedTests":{failed},"numFailedTestSuites":{suites},"testResults":[{results}]}}"#
            )
        };
        let counted = |text: String| {
            let cases = read(&text).unwrap().cases;
            (cases.passed, cases.failed, cases.names)
        };
        assert_eq!(counted(report(27, 0, 0, "")), (27, 0, vec![]));
        assert_eq!(counted(report(0, 0, 1, "")), (0, 1, vec![]));
        let results = r#"{"name":"/e2e/a.ts","assertionResults":[{"status":"passed","fullName":"keys"},{"status":"failed","fullName":"bars amend"}]},
            {"name":"/e2e/b.ts","assertionResults":[{"status":"passed","fullName":"theme"}]}"#;
        assert_eq!(counted(report(2, 1, 1, results)), (2, 1, vec!["bars amend".to_owned()]));
        let found = read(&report(2, 1, 1, results)).unwrap();
        assert_eq!(
            (found.files, found.good),
            (vec!["/e2e/a.ts".to_owned()], vec!["keys".to_owned(), "theme".to_owned()])
        );
        // Two tests ran, and what closes the page did not.
        let hook = r#"{"name":"/e2e/c.ts","status":"failed","assertionResults":[{"status":"passed","fullName":"keys"}]}"#;
        let found = read(&report(1, 0, 1, hook)).unwrap();
        assert_eq!(
            (found.cases.failed, found.cases.names, found.files),
            (1, vec!["/e2e/c.ts: a hook".to_owned()], vec![])
        );
        assert!(read("{}").is_err());
    }
}
