//! The kernels of `gpu/kernels`: compiled without a device, and compared with the CPU.

use crate::ci::{Cases, venv};
use crate::shell;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// The compiler's wheel. One release, as another writes other text; an old one, as its text suits older drivers.
const NVRTC: &str = "nvidia-cuda-nvrtc-cu12==12.4.127";

/// Compiles every kernel for sm_80 and sm_90 with the NVRTC wheel, and holds registers and shipped PTX to what is committed;
/// `write` renews both instead. A case per kernel and architecture.
pub(crate) fn compile(target: &Path, write: bool, cases: &mut Cases) -> Result<bool> {
    let found = "import nvidia.cuda_nvrtc as m; print(list(m.__path__)[0] + '/lib/libnvrtc.so.12')";
    let python = venv(target, found, &[NVRTC])?;
    let library = shell::output(Command::new(&python).args(["-c", found]))?;
    let mut command = Command::new(&python);
    command.arg(shell::root().join("gpu/kernels/compile.py")).arg(library.trim());
    command.args(write.then_some("--write"));
    let output = command.output().context("could not start Python")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    cases.failed = text.lines().filter(|line| line.starts_with("problem: ")).count() as u64;
    let kernels = text.lines().filter(|line| line.contains(" registers, ")).count() as u64;
    cases.passed = kernels.saturating_sub(cases.failed);
    Ok(output.status.success() && kernels > 0)
}

/// `cargo xtask gpu-check`: compiles, then runs every kernel and compares it with the CPU: through the shim, or on the device.
pub(crate) fn check(no_device: bool, write: bool) -> Result<bool> {
    let mut cases = Cases::default();
    if !compile(&shell::target_dir()?, write, &mut cases)? {
        return Ok(false);
    }
    let mut command = shell::cargo();
    command.args(["test", "--locked", "--package", "tidegate-gpu", "--test", "device", "--"]);
    if !no_device {
        // The test that the shim's tests start, here with the driver of the machine.
        command.args(["--ignored", "--exact", "child_equal", "--nocapture"]).env("SIZE", "64");
    }
    shell::succeeds(&mut command)
}
