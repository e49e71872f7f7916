//! Running other programs.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::time::Instant;

/// When everything started here has to have ended.
static DEADLINE: OnceLock<Instant> = OnceLock::new();

/// From now on what [`start`] starts is killed then, with all that it started itself. Such processes no longer hear a Ctrl-C of this
/// terminal: for machines, not for people.
pub(crate) fn end_by(deadline: Instant) {
    DEADLINE.set(deadline).expect("once");
}

/// Whether that time has come.
pub(crate) fn is_late() -> bool {
    DEADLINE.get().is_some_and(|deadline| Instant::now() >= *deadline)
}

/// Starts a program that ends in time.
pub(crate) fn start(command: &mut Command) -> Result<Started> {
    #[cfg(unix)]
    if DEADLINE.get().is_some() {
        std::os::unix::process::CommandExt::process_group(command, 0);
    }
    let name = command.get_program().to_owned();
    let child = command.spawn().with_context(|| format!("could not start {name:?}"))?;
    let (ended, end) = mpsc::channel::<()>();
    if let Some(deadline) = DEADLINE.get() {
        let group = format!("-{}", child.id());
        std::thread::spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            if end.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("OUT OF TIME: {name:?} is killed");
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            }
        });
    }
    Ok(Started { child, ended: Some(ended) })
}

/// A program that runs until its end or the deadline.
pub(crate) struct Started {
    pub(crate) child: Child,
    ended: Option<mpsc::Sender<()>>,
}

impl Started {
    /// How it ended.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        let status = self.child.wait()?;
        drop(self.ended.take());
        Ok(status)
    }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo in the workspace's folder, without what the cargo that started us told only us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_BIN_")
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs to the end with our own output; whether it exited with 0.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(start(command)?.wait()?.success())
}

/// Standard output of a program that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("could not start {:?}", command.get_program()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} failed: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Where builds go, as cargo sees it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(folder.into())
}
