//! With the driver that needs no device: it runs the kernels' own text, and misbehaves as it is told. Each test starts this
//! program anew with the driver on the library path.

use crate::market::{bars, classes, equal, of_files, run, take, windows};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;
use tidegate_batcher::{ClassStats, Feeder, GpuPolicy, Options, Routing};

/// The folder of the driver.
fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/shim/driver.cpp");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("batcher-driver");
        std::fs::create_dir_all(&folder).unwrap();
        let made = folder.join(format!("made-by-{}", std::process::id()));
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let mut command = Command::new(&compiler);
        // -ffp-contract=off: products are fused only where a kernel says so.
        command.args(["-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wno-unknown-pragmas"]);
        if cfg!(target_arch = "x86_64") && std::arch::is_x86_feature_detected!("fma") {
            command.arg("-mfma");
        }
        let output = command.arg("-o").arg(&made).arg(source).output();
        let output =
            output.unwrap_or_else(|error| panic!("{compiler}: {error}; a C++ compiler is needed (CXX)"));
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&made, folder.join("libcuda.so")).unwrap();
        folder
    })
}

pub(crate) fn child(test: &str, folder: Option<&Path>, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    if let Some(folder) = folder {
        command.env("LD_LIBRARY_PATH", folder);
    }
    command.envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
pub(crate) fn passes(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

/// Runs the class named by `CLASS` with a device where there is one, beside the spectrum; every result must be there and be the CPU's.
fn drill(policy: GpuPolicy, late: Duration) -> crate::market::Found {
    let (rows, steps) = (4, 16);
    let bars = bars(21, rows, steps);
    let mut classes = classes(rows, 64);
    let only = std::env::var("CLASS").unwrap();
    classes.retain(|class| class.name == only || class.name == "spectrum");
    classes.sort_by_key(|class| class.name == "spectrum");
    let options = Options {
        rows,
        threads: 1,
        max_batch: 24,
        steps_behind: 1_000,
        routing: Routing::Device,
        late_least: late,
        late_first: late,
        ..Options::default()
    };
    let all = windows(&bars);
    let found = run(&classes, options, policy, |mut feeders: Vec<Feeder>| {
        for window in &all {
            take(feeders[0].push(*window));
            feeders[0].watermark(window.close_ts - 1);
        }
    });
    equal(&found.lines, &of_files(&bars, &classes));
    while found.stats.rebuilding() {
        std::thread::yield_now();
    }
    found
}

/// Those that a device can compute.
const CLASSES: [&str; 2] = ["surface", "risk"];
const PATIENT: Duration = Duration::from_secs(600);

#[test]
#[ignore = "run by the tests below, with a driver"]
fn child_equal() {
    let found = drill(GpuPolicy::Require, PATIENT);
    let stats = found.stats.class(0);
    assert!(stats.on_device > 0, "{stats:?}");
    assert_eq!((stats.recomputed, stats.late), (0, 0));
    assert!(found.devices.contains(&"cuda"));
}

#[test]
fn on_a_device_the_bits_are_the_same() {
    for class in CLASSES {
        passes(&child("device::child_equal", Some(driver()), &[("CLASS", class)]));
    }
}

#[test]
#[ignore = "run by the tests below, with a driver"]
fn child_without() {
    let found = drill(GpuPolicy::Auto, PATIENT);
    assert!(found.devices.iter().all(|device| *device == "cpu"));
    println!("unavailable: {:?}", found.stats.unavailable());
}

#[test]
fn a_driver_that_will_not_do_is_named_and_nothing_is_missing() {
    for (mode, reason) in [
        ("no_device", "opening the first device failed: CUDA_ERROR_NO_DEVICE"),
        ("old_driver", "the NVIDIA driver speaks CUDA 11.4"),
        ("wrong_numbers", "failed its known-answer test"),
    ] {
        let environment = [("FAKE_CUDA", mode), ("CLASS", "risk")];
        let text = passes(&child("device::child_without", Some(driver()), &environment));
        assert!(text.contains("unavailable: Some(") && text.contains(reason), "{mode}: {text}");
    }
}

#[test]
#[ignore = "run by the tests below, with a driver"]
fn child_fails() {
    let found = drill(GpuPolicy::Auto, PATIENT);
    let ClassStats { recomputed, late, .. } = found.stats.class(0);
    println!("recomputed {recomputed} rebuilt {}", found.stats.rebuilt());
    assert_eq!(late, 0);
}

/// How many calls the driver gets until a device is open, and until a class is through.
fn calls(class: &str) -> (u64, u64) {
    let counted = |test: &str| -> u64 {
        let text = passes(&child(test, Some(driver()), &[("FAKE_CUDA_COUNT", "1"), ("CLASS", class)]));
        let line = text.lines().find_map(|line| line.strip_prefix("fake driver: "));
        line.and_then(|line| line.strip_suffix(" calls")).unwrap().parse().unwrap()
    };
    (counted("device::child_opens"), counted("device::child_equal"))
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_opens() {
    tidegate_gpu::Accel::open(GpuPolicy::Require, 1).unwrap();
}

/// Wherever a call of the driver fails or does not return, once or from then on, every result is there and is the CPU's.
#[test]
fn a_device_that_fails_or_hangs_costs_no_result_and_delays_one_batch() {
    for class in CLASSES {
        let (opened, all) = calls(class);
        let of = all - opened;
        assert!(of > 20, "{class}: {opened} {all}");
        for (mode, place) in [
            (format!("fail:{}:1", opened + 2), 0),
            (format!("fail:{}", opened + of / 2), 1),
            (format!("fail:{}:1", opened + of * 2 / 3), 0),
        ] {
            let environment = [("FAKE_CUDA", mode.as_str()), ("CLASS", class)];
            let text = passes(&child("device::child_fails", Some(driver()), &environment));
            // The one call that failed may have been the one that frees, after a batch's last result.
            assert!(place == 0 || !text.contains("recomputed 0 "), "{class} {mode}: {text}");
        }
        for mode in [format!("hang:{}", opened + 4), format!("slow:{}", opened + of / 2)] {
            let environment = [("FAKE_CUDA", mode.as_str()), ("CLASS", class)];
            passes(&child("device::child_hangs", Some(driver()), &environment));
        }
    }
}

#[test]
#[ignore = "run by the test above, with a driver"]
fn child_hangs() {
    let found = drill(GpuPolicy::Require, Duration::from_secs(5));
    let stats = found.stats.class(0);
    // Once by what the driver does; a machine that is busy elsewhere may add to it, up to what a device is given.
    assert!((1..8).contains(&stats.late) && stats.recomputed == stats.late, "{stats:?}");
    assert_eq!(found.stats.rebuilt(), stats.late);
    assert!(found.stats.device().is_some());
}
