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

/// `cargo xtask gpu-check --no-device`: compiles, then runs every kernel through the shim and compares it with the CPU.
pub(crate) fn check_without_device(write: bool) -> Result<bool> {
    let mut cases = Cases::default();
    if !compile(&shell::target_dir()?, write, &mut cases)? {
        return Ok(false);
    }
    let mut command = shell::cargo();
    command.args(["test", "--locked", "--package", "tidegate-gpu", "--test", "device"]);
    shell::succeeds(&mut command)
}

/// `cargo xtask gpu-check`: compiles, builds what checks and times the kernels on a device, and runs it; into `pack`, and does not
/// run it, where that is given: the folder has all that another machine needs.
pub(crate) fn check(write: bool, pack: Option<&Path>) -> Result<bool> {
    let target = shell::target_dir()?;
    if !compile(&target, write, &mut Cases::default())? {
        return Ok(false);
    }
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked", "--package", "tidegate-gpu", "--bin", "gpu-check"]);
    if !shell::succeeds(&mut build)? {
        return Ok(false);
    }
    let folder = pack.map_or_else(|| target.join("gpu-check"), Path::to_path_buf);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (program, script) = (target.join("release/gpu-check"), shell::root().join("gpu/check.sh"));
    for (from, name) in [(&program, "gpu-check"), (&script, "check.sh")] {
        let to = folder.join(name);
        std::fs::copy(from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    if pack.is_some() {
        println!("on a machine with a device: cd {} && sh check.sh ./gpu-check out", folder.display());
        return Ok(true);
    }
    let mut run = Command::new("sh");
    shell::succeeds(run.arg(folder.join("check.sh")).arg(folder.join("gpu-check")).arg(folder.join("out")))
}
