//! Style as a test: what a reviewer should not have to look for. Each rule is a function from text to problems.

use crate::shell;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Longest file, in lines. Past it, a file holds two ideas.
const LINES_MAX: usize = 1_500;

/// Words that mean "not finished", put together here so that this file passes its own check.
const UNFINISHED: [&str; 3] = [concat!("to", "do!("), concat!("unimplemented", "!("), concat!("db", "g!(")];

/// Where somebody's own machine shows.
const MACHINES: [&str; 4] =
    [concat!("/", "home/"), concat!("/", "Users/"), concat!("/", "work/"), concat!("C:", "\\")];

/// Who may depend on whom. A crate that is not here is a problem until somebody decides.
const GRAPH: &[(&str, &[&str])] = &[
    ("tidegate-engine", &[]),
    ("tidegate-journal", &["tidegate-engine"]),
    ("tidegate-alert", &[]),
    ("tidegate-anomaly", &[]),
    ("tidegate-flow", &[]),
    ("tidegate-regime", &[]),
    ("tidegate-rules", &["tidegate-flow"]),
    ("tidegate-actors", &["tidegate-engine", "tidegate-anomaly", "tidegate-regime"]),
    ("tidegate-cuda", &[]),
    ("tidegate-gpu", &["tidegate-cuda"]),
    ("tidegate-batcher", &["tidegate-gpu", "tidegate-regime"]),
    ("tidegate-proto", &["tidegate-engine"]),
    ("tidegate-replica", &[]),
    ("tidegate-sim", &["tidegate-replica", "tidegate-journal", "tidegate-engine"]),
    // All but the journal for its tests alone: a server on such a log.
    (
        "tidegate-kafka",
        &["tidegate-journal", "tidegate-engine", "tidegate-live", "tidegate-actors", "tidegate-proto"],
    ),
    ("tidegate-live", &["tidegate-engine", "tidegate-journal", "tidegate-actors", "tidegate-proto"]),
    ("tidegate-auth", &["tidegate-proto"]),
    (
        "tidegate-quic",
        &["tidegate-engine", "tidegate-actors", "tidegate-proto", "tidegate-auth", "tidegate-live"],
    ),
    (
        "tidegate-cluster",
        &[
            "tidegate-engine",
            "tidegate-journal",
            "tidegate-actors",
            "tidegate-proto",
            "tidegate-replica",
            "tidegate-live",
            "tidegate-quic",
        ],
    ),
    (
        "tidegate-gateway",
        // `replay` for its tests alone: a generated market.
        &["tidegate-engine", "tidegate-actors", "tidegate-proto", "tidegate-live", "tidegate-replay"],
    ),
    ("tidegate-replay", &["tidegate-engine", "tidegate-actors", "tidegate-flow", "tidegate-gpu"]),
    (
        "tidegate-benches",
        &[
            "tidegate-engine",
            "tidegate-actors",
            "tidegate-gpu",
            "tidegate-proto",
            "tidegate-live",
            "tidegate-quic",
            "tidegate-gateway",
            "tidegate-replay",
        ],
    ),
    ("tidegate-config", &["tidegate-engine", "tidegate-actors", "tidegate-replay"]),
    (
        "tidegate",
        &[
            "tidegate-engine",
            "tidegate-journal",
            "tidegate-actors",
            "tidegate-alert",
            "tidegate-anomaly",
            "tidegate-config",
            "tidegate-flow",
            "tidegate-gpu",
            "tidegate-batcher",
            "tidegate-proto",
            "tidegate-auth",
            "tidegate-kafka",
            "tidegate-live",
            "tidegate-replica",
            "tidegate-quic",
            "tidegate-cluster",
            "tidegate-gateway",
            "tidegate-regime",
            "tidegate-replay",
            "tidegate-rules",
            "tidegate-benches",
        ],
    ),
    ("tidegate-example-collatz", &["tidegate-engine", "tidegate-actors"]),
    (
        "tidegate-yardstick",
        &[
            "tidegate-engine",
            "tidegate-anomaly",
            "tidegate-regime",
            "tidegate-actors",
            "tidegate-flow",
            "tidegate-gpu",
            "tidegate-replay",
        ],
    ),
    (
        "tidegate-fuzz",
        &[
            "tidegate-engine",
            "tidegate-journal",
            "tidegate-actors",
            "tidegate-proto",
            "tidegate-auth",
            "tidegate-alert",
            "tidegate-flow",
            "tidegate-replica",
            "tidegate-gateway",
            "tidegate-replay",
            "tidegate-rules",
            "tidegate-config",
        ],
    ),
    ("xtask", &[]),
];

/// Where unsafe code may stand: calls of a C interface. Such a crate denies it but in a module that says why.
const UNSAFE: [&str; 1] = ["gpu/cuda/src/"];

/// Major version of everything Arrow: two of them in one binary do not understand each other.
const ARROW: &str = "59";

/// Everything wrong in the workspace at `root`, one line each.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in texts(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        layout(&name, &text, &mut problems);
        if name.ends_with(".rs") {
            rust(&name, &text, &mut problems);
        }
        if name.ends_with(".md") {
            links(&name, &text, |target| exists(root, &path, target), &mut problems);
        }
    }
    // The workspaces: ours, and those kept out of its lock file.
    for folder in ["", "fuzz", "benches/compare"] {
        let manifest = root.join(folder).join("Cargo.toml");
        if !manifest.is_file() {
            problems.push(format!("{folder}: there is no Cargo.toml"));
            continue;
        }
        match std::fs::read_to_string(root.join(folder).join("Cargo.lock")) {
            Ok(lock) if lock.contains("source = \"git+") => {
                problems.push(format!("{folder}/Cargo.lock: a dependency comes from git"));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{folder}/Cargo.lock: {error}")),
        }
        let mut command = shell::cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
        manifests(&serde_json::from_str(&shell::output(&mut command)?)?, &mut problems);
    }
    Ok(problems)
}

/// Text files of the project: what git knows or would take.
fn texts(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = shell::output(&mut git).context("the list of files comes from git")?;
    let text = |name: &&str| {
        let path = Path::new(name);
        let known = ["rs", "toml", "md", "sh", "py", "yml", "yaml", "json", "cu", "cuh", "h", "cpp"];
        let extension =
            path.extension().is_some_and(|extension| known.iter().any(|known| extension == *known));
        let written = !name.ends_with("package-lock.json"); // npm's, as Cargo.lock is cargo's
        written
            && (extension
                || path.extension().is_none() && !name.ends_with("LICENSE")
                || name.ends_with(".gitignore"))
    };
    let files = listed.split('\0').filter(|name| !name.is_empty()).filter(text).map(|name| root.join(name));
    Ok(files.filter(|path| path.is_file()).collect())
}

/// What holds for every text: bounded, LF, no tabs, nothing at line ends, nobody's machine.
fn layout(name: &str, text: &str, problems: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(format!("{name}: {lines} lines, more than {LINES_MAX}; split it"));
    }
    if text.contains('\r') {
        problems.push(format!("{name}: line ends with CR LF; LF alone is used here"));
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        problems.push(format!("{name}: must end with exactly one newline"));
    }
    let tabs = name.ends_with("Makefile") || name.ends_with(".mk");
    for (at, line) in text.lines().enumerate() {
        let mut problem = |what: &str| problems.push(format!("{name}:{}: {what}", at + 1));
        if !tabs && line.contains('\t') {
            problem("a tab; indent with blanks, write \\t");
        }
        if line.ends_with(' ') {
            problem("a blank at the end of the line");
        }
        if MACHINES.iter().any(|machine| line.contains(machine)) {
            problem("a path that exists on one machine only");
        }
    }
}

/// What holds for Rust: a purpose statement, no unsafe, nothing unfinished, no test that sleeps.
fn rust(name: &str, text: &str, problems: &mut Vec<String>) {
    if name.ends_with("src/lib.rs") || name.ends_with("src/main.rs") {
        if !text.starts_with("//!") {
            problems.push(format!("{name}: must begin with `//!`: what the crate is for"));
        }
        let known = UNSAFE.iter().any(|folder| name.starts_with(folder));
        let word = if known { "deny" } else { "forbid" };
        if !text.contains(&format!("#![{word}(unsafe_code)]")) {
            problems.push(format!("{name}: lacks #![{word}(unsafe_code)]"));
        }
    }
    let mut in_tests = name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs");
    for (at, line) in text.lines().enumerate() {
        let mut problem = |what: &str| problems.push(format!("{name}:{}: {what}", at + 1));
        // Tests come last in a file, so everything below their mark is theirs.
        in_tests |= line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        let code = line.split("//").next().unwrap_or_default();
        if let Some(word) = UNFINISHED.iter().find(|word| code.contains(**word)) {
            problem(&format!("`{word}..)`: finish it"));
        }
        if in_tests && code.contains(concat!("thread::", "sleep")) && !code.contains('"') {
            problem("a test that sleeps fails on a busy machine; wait for the condition itself");
        }
    }
}

/// Relative links in Markdown lead somewhere.
fn links(name: &str, text: &str, exists: impl Fn(&str) -> bool, problems: &mut Vec<String>) {
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for link in line.split("](").skip(1) {
            let target = link.split([')', ' ']).next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            let foreign = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !foreign && !exists(target) {
                problems.push(format!("{name}:{}: link to `{target}`, which does not exist", at + 1));
            }
        }
    }
}

/// Whether a link of the file at `path` leads to something inside the project.
fn exists(root: &Path, path: &Path, target: &str) -> bool {
    let mut found = path.parent().unwrap_or(root).to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir if found == root => return false,
            Component::ParentDir => drop(found.pop()),
            part => found.push(part),
        }
    }
    found.starts_with(root) && found.exists()
}

/// The crate graph is the architecture; the manifests are where it is kept.
fn manifests(metadata: &Value, problems: &mut Vec<String>) {
    let empty = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&empty) {
        let name = package["name"].as_str().unwrap_or_default();
        // Rivals on the same work: what they need is their business, what they know of us is not.
        let rivals = name == "tidegate-compare";
        let allowed = GRAPH.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
        if allowed.is_none() && !rivals {
            problems.push(format!("crate {name}: say in xtask/src/tidy.rs whom it may depend on"));
        }
        for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
            let other = dependency["name"].as_str().unwrap_or_default();
            let wanted = dependency["req"].as_str().unwrap_or_default();
            if dependency["source"].as_str().is_some_and(|source| source.starts_with("git")) {
                problems.push(format!("crate {name}: `{other}` comes from git; use a published version"));
            }
            let ours = dependency["path"].is_string();
            if ours && allowed.is_some_and(|allowed| !allowed.contains(&other)) {
                problems.push(format!("crate {name}: must not depend on {other}"));
            }
            let arrow = other == "parquet" || other == "arrow" || other.starts_with("arrow-");
            if arrow && wanted.trim_start_matches('^').split('.').next() != Some(ARROW) {
                problems.push(format!("crate {name}: {other} {wanted}; all of Arrow is {ARROW}.x"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: impl FnOnce(&mut Vec<String>)) -> Vec<String> {
        let mut problems = Vec::new();
        rule(&mut problems);
        problems
    }

    #[test]
    fn layout_sees_what_an_editor_hides() {
        let count = |name: &str, text: &str| found(|problems| layout(name, text, problems)).len();
        assert_eq!(count("a.rs", "fn a() {}\n"), 0);
        assert_eq!(count("a.rs", ""), 0);
        assert_eq!(count("a.rs", "fn a() {} \n"), 1);
        assert_eq!(count("a.rs", "\tfn a() {}\n"), 1);
        assert_eq!(count("Makefile", "a:\n\tb\n"), 0);
        assert_eq!(count("a.md", "a\r\nb\n"), 1);
        assert_eq!(count("a.md", "a"), 1);
        assert_eq!(count("a.md", "a\n\n"), 1);
        assert_eq!(count("a.rs", &"x\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(count("a.md", &format!("see {}me/x\n", MACHINES[0])), 1);
    }

    #[test]
    fn rust_rules_know_where_they_hold() {
        let count = |name: &str, text: &str| found(|problems| rust(name, text, problems)).len();
        let head = "//! What for.\n#![forbid(unsafe_code)]\n";
        assert_eq!(count("a/src/lib.rs", head), 0);
        assert_eq!(count("a/src/lib.rs", "fn a() {}\n"), 2);
        assert_eq!(count("a/src/b.rs", "fn a() {}\n"), 0);
        assert_eq!(count("a/src/b.rs", &format!("fn a() {{ {}) }}\n", UNFINISHED[0])), 1);
        assert_eq!(count("a/src/b.rs", &format!("// {}) is forbidden\n", UNFINISHED[0])), 0);
        let sleep = concat!("std::thread::", "sleep(a);\n");
        assert_eq!(count("a/src/b.rs", sleep), 0);
        assert_eq!(count("a/tests/b.rs", sleep), 1);
        assert_eq!(count("a/src/b.rs", &format!("#[cfg(test)]\nmod tests {{\n{sleep}}}\n")), 1);
    }

    #[test]
    fn links_are_followed() {
        let text = "[a](there.md#x) [b](gone.md) [c](https://x.y/z) [d](#here)\n```\n[e](gone.md)\n```\n";
        let problems = found(|problems| links("a.md", text, |target| target == "there.md", problems));
        assert_eq!(problems, ["a.md:1: link to `gone.md`, which does not exist"]);
    }

    #[test]
    fn the_crate_graph_is_kept() {
        let check = |name: &str, dependency: Value| {
            let package = serde_json::json!({ "name": name, "dependencies": [dependency] });
            found(|problems| manifests(&serde_json::json!({ "packages": [package] }), problems))
        };
        let ours = |name: &str| serde_json::json!({ "name": name, "req": "*", "path": "x" });
        assert!(check("tidegate-actors", ours("tidegate-engine")).is_empty());
        assert_eq!(
            check("tidegate-engine", ours("tidegate-actors")),
            ["crate tidegate-engine: must not depend on tidegate-actors"]
        );
        assert_eq!(check("tidegate-gpu", ours("tidegate-actors")).len(), 1);
        assert_eq!(check("tidegate-novel", ours("tidegate-engine")).len(), 1);
        let foreign = |name: &str, req: &str| serde_json::json!({ "name": name, "req": req });
        assert!(check("tidegate-replay", foreign("arrow", "^59")).is_empty());
        assert!(check("tidegate-replay", foreign("parquet", "^59.1.0")).is_empty());
        assert_eq!(check("tidegate-replay", foreign("parquet", "^58")).len(), 1);
        let git = serde_json::json!({ "name": "x", "req": "*", "source": "git+https://x.y/z" });
        assert_eq!(check("tidegate-replay", git).len(), 1);
    }
}
