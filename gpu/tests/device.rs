//! The CUDA backend without a device: the driver of `kernels/shim`, built here with the system's C++ compiler, runs the kernels'
//! own text on the CPU and misbehaves as it is told. Each test that needs it starts this program anew, with the driver on the
//! library path.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate_gpu::changes::{ChangeBank, ChangeOptions};
use tidegate_gpu::correlation::{EwCorrelation, RollingCorrelation};
use tidegate_gpu::hmm::{FitRequest, HmmBank};
use tidegate_gpu::options::{Market, OptionBatch, Payoff};
use tidegate_gpu::philox::philox4x32;
use tidegate_gpu::portfolio::Assets;
use tidegate_gpu::qp::{Aim, LongOnlyBatch};
use tidegate_gpu::risk::{RiskRequest, Tail};
use tidegate_gpu::sweep::{SweepPath, SweepRequest, SweepSeries, SweepSpec};
use tidegate_gpu::window::WindowRequest;
use tidegate_gpu::{Accel, Backend, BatchError, Cpu, GpuPolicy, Unavailable};

fn compile(folder: &str, source: &Path, more: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let made = folder.join(format!("made-by-{}", std::process::id()));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut command = Command::new(&compiler);
    // -ffp-contract=off: products are fused only where a kernel says so.
    command.args(["-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra"]);
    // Jumps from one stack to another are what a fortified library calls broken.
    command.args(["-Wno-unknown-pragmas", "-Wno-unused-function", "-U_FORTIFY_SOURCE"]).args(more);
    command.arg("-o").arg(&made).arg(source);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; a C++ compiler is needed (CXX)"));
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    // The name that is looked for first, so that a driver of the machine's own does not come before it.
    std::fs::rename(&made, folder.join("libcuda.so")).unwrap();
    folder
}

/// The folder of the driver.
fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/shim/driver.cpp");
        // Hardware products and sums in one where there are, for speed: the library's give the same bits.
        let fma = if cfg!(target_arch = "x86_64") && std::arch::is_x86_feature_detected!("fma") {
            "-mfma"
        } else {
            "-O2"
        };
        compile("driver", &source, &[fma])
    })
}

/// Runs an ignored test of this program with `folder` on the library path.
fn child(test: &str, folder: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("LD_LIBRARY_PATH", folder).envs(environment.iter().copied());
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn passes(output: &Output) -> String {
    let text = text(output);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

/// Numbers of 0 to 1, by address.
fn unit(at: usize, of: u32) -> f64 {
    f64::from(philox4x32([at as u32, of, 0, 0], [6, 6])[0]) / 4_294_967_296.0
}

/// Every kind of batch once, as text: floats are written so that they read back to the same bits.
fn every_batch(backend: &dyn Backend, size: usize) -> Vec<String> {
    let mut found = Vec::new();

    let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.02, volatility: 0.3, years: 0.5 };
    let payoffs = [
        Payoff::Call { strike: 40.0 },
        Payoff::Put { strike: 20.0 },
        Payoff::GeometricAsianCall { strike: 44.0 },
    ];
    for steps in [1, 6, 11] {
        let batch = OptionBatch { market, payoffs: &payoffs, paths: 1_000 * size as u64 + 3, steps, seed: 7 };
        found.push(format!("{:?}", backend.price(&batch)));
    }

    let rows: Vec<[Vec<i64>; 3]> = (0..3 * size)
        .map(|symbol| {
            let mut price = 100_000_000_000i64;
            let mut bars = [Vec::new(), Vec::new(), Vec::new()];
            // Of any length, one bar among them.
            for at in 0..1 + 61 * symbol {
                if at % 13 != 5 {
                    price += ((unit(at, symbol as u32) - 0.5) * 4e8) as i64;
                }
                bars[0].push(price + (unit(at, 100) * 1e8) as i64);
                bars[1].push(price - (unit(at, 101) * 1e8) as i64);
                bars[2].push(price);
            }
            bars
        })
        .collect();
    let series: Vec<_> = rows.iter().map(|[high, low, close]| SweepSeries { high, low, close }).collect();
    let mut specs: Vec<SweepSpec> = (1..24).map(|window| SweepSpec::Ema { window }).collect();
    specs.extend((1..12).map(|window| SweepSpec::Rsi { window }));
    specs.extend((1..12).map(|window| SweepSpec::Atr { window }));
    specs.extend([(1, 2, 1), (12, 26, 9), (3, 10, 4)].map(|(fast, slow, signal)| SweepSpec::Macd {
        fast,
        slow,
        signal,
    }));
    specs.extend(
        [(1, 2.0), (2, 0.5), (20, 2.0)]
            .map(|(window, deviations)| SweepSpec::Bollinger { window, deviations }),
    );
    specs.rotate_left(17);
    for horizon in [1, 9, 4_000] {
        let request = SweepRequest { series: &series, specs: &specs, horizon };
        found.push(format!("{:?}", backend.sweep(&request)));
        if size > 1 || horizon == 9 {
            let path = SweepPath::Stretches { length: 256, warm: 40 };
            found.push(format!("{:?}", backend.sweep_by(&request, path)));
        }
    }

    let assets = 7;
    let returns: Vec<f64> = (0..40 * assets).map(|at| 0.02 * (unit(at, 200) - 0.5)).collect();
    let weights: Vec<f64> = (0..assets).map(|at| unit(at, 201) - 0.3).collect();
    for tail in [Tail::Normal, Tail::StudentT { freedom: 5 }] {
        let (paths, horizon_bars, levels) = (1_000 * size as u64 + 5, 10.0, &[0.9, 0.95][..]);
        let (returns, weights) = (&returns[..], &weights[..]);
        let request =
            RiskRequest { returns, weights, factors: 3, horizon_bars, paths, tail, levels, seed: 3 };
        found.push(format!("{:?}", backend.risk(&request)));
    }

    let symbols = 70;
    let moves: Vec<f64> = (0..5 * size * symbols).map(|at| unit(at, 300)).collect();
    let mut state = EwCorrelation::new(symbols, 0.97).unwrap();
    for rows in [&moves[..symbols], &moves[symbols..]] {
        found.push(format!("{:?}", backend.correlate(&mut state, rows)));
    }
    found.push(format!("{state:?}"));

    let count = 37;
    let values: Vec<f64> = (0..30 * size * count)
        .map(|at| {
            unit(at, 400) - 0.5
                + if at / count % 20 < 9 { 0.0 } else { 2.0 }
                + 1e3 * f64::from(u8::from(at == 999))
        })
        .collect();
    for states in 2..=4 {
        let (values, series) = (&values[..], count);
        let (iterations, restarts, deviation_floor) = (3, 3, 1e-3);
        let request = FitRequest { values, series, states, iterations, restarts, deviation_floor, seed: 5 };
        let fitted = backend.hmm_fit(&request).unwrap();
        found.push(format!("{fitted:?}"));
        let mut bank = HmmBank::new(&fitted.models()).unwrap();
        for rows in [&values[..count], &values[count..]] {
            found.push(format!("{:?}", backend.hmm_filter(&mut bank, rows)));
        }
        found.push(format!("{bank:?}"));
    }

    let series = 3;
    let mut bank = ChangeBank::new(series, ChangeOptions { runs: 96, ..ChangeOptions::default() }).unwrap();
    for rows in [&values[..series], &values[series..120 * series]] {
        found.push(format!("{:?}", backend.change_points(&mut bank, rows)));
    }
    found.push(format!("{bank:?}"));
    found.extend(matrices(backend, &moves, symbols, size));
    found
}

/// Rolling windows, windows as a whole, eigenvalues and portfolios; at size 1 few of what takes the shim long.
fn matrices(backend: &dyn Backend, moves: &[f64], symbols: usize, size: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut rolling = RollingCorrelation::new(symbols, 3).unwrap();
    for rows in [&moves[..symbols], &moves[symbols..3 * symbols], &moves[3 * symbols..]] {
        found.push(format!("{:?}", backend.roll(&mut rolling, rows)));
    }
    found.push(format!("{rolling:?}"));
    // Through all rows and symbols, and few of both; a symbol that never moves.
    let mut values = moves.to_vec();
    values.iter_mut().skip(5).step_by(symbols).for_each(|value| *value = 1.5);
    let all = WindowRequest { values: &values, symbols };
    let few = WindowRequest { values: &values[..35], symbols: 5 };
    found.push(format!("{:?}", backend.window_correlation(&few)));
    let correlation = backend.window_correlation(&all).unwrap();
    found.push(format!("{correlation:?}"));
    found.push(format!("{:?}", backend.window_spectrum(&few, 3)));
    if size > 1 {
        found.push(format!("{:?}", backend.window_spectrum(&all, 3)));
        found.push(format!("{:?}", backend.leading(&correlation, 2)));
        // Nobody moves: one eigenvalue, as often as there are symbols, so that the method starts anew again and again.
        let still = RollingCorrelation::new(9, 2).unwrap().correlation();
        found.push(format!("{:?}", backend.leading(&still, 4)));
    }

    let mut covariances = vec![0.0; symbols * symbols];
    let load = |asset: usize, factor: u32| 0.02 * (unit(asset, factor) - 0.3);
    for row in 0..symbols {
        for column in 0..symbols {
            covariances[row * symbols + column] =
                (500..505).map(|factor| load(row, factor) * load(column, factor)).sum();
        }
        covariances[row * symbols + row] += 1e-4 * (0.5 + unit(row, 510));
    }
    let means: Vec<f64> = (0..symbols).map(|asset| 1e-3 * unit(asset, 511)).collect();
    let assets = Assets::new(&means, &covariances).unwrap();
    let aversions: Vec<f64> = (0..66).map(|at| 1.2f64.powi(at)).collect();
    let steps = if size > 1 { 35 } else { 3 };
    let middle = [means.iter().sum::<f64>() / symbols as f64, 3e-4, 6e-4];
    let returns: Vec<f64> = (0..2 * symbols).map(|at| 1e-3 * unit(at, 512)).collect();
    for aim in
        [Aim::Aversions(&aversions), Aim::Means(&middle), Aim::Views { returns: &returns, aversion: 2.0 }]
    {
        found.push(format!("{:?}", backend.long_only(&LongOnlyBatch { assets: &assets, aim, steps })));
    }
    found
}

/// Batches of [`every_batch`] that go to the device, at size 1 and at others.
const BATCHES: u64 = 3 + 4 + 2 + 2 + 3 * 3 + 2 + (3 + 3 + 3);
const BATCHES_MORE: u64 = BATCHES + 2 + 3;

#[track_caller]
fn equal(found: &[String], wanted: &[String]) {
    assert_eq!(found.len(), wanted.len());
    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        if found != wanted {
            let place = found.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
            let near =
                |text: &str| text.chars().skip(place.saturating_sub(120)).take(240).collect::<String>();
            panic!("result {at} differs at {place}:\n{}\n{}", near(found), near(wanted));
        }
    }
}

#[test]
#[ignore = "run by the tests below, with a driver"]
fn child_equal() {
    let accel = Accel::open(GpuPolicy::Require, 2).unwrap();
    assert_eq!(accel.name(), "cuda");
    let size = std::env::var("SIZE").map_or(1, |size| size.parse().unwrap());
    equal(&every_batch(&accel, size), &every_batch(&Cpu::new(1).unwrap(), size));
    let status = accel.status();
    let batches = if size == 1 { BATCHES } else { BATCHES_MORE };
    assert_eq!((status.on_device, status.on_cpu, status.recomputed), (batches, 0, 0), "{status:?}");
}

#[test]
fn every_kernel_gives_the_bits_of_the_cpu_in_any_order_of_threads() {
    for (order, size) in [("0", "6"), ("1", "2"), ("70221", "2")] {
        passes(&child("child_equal", driver(), &[("CUDA_SHIM_ORDER", order), ("SIZE", size)]));
    }
}

/// Bars of a symbol that wander, and stand still from `still` on for so many bars.
fn bars(count: usize, of: u32, still: std::ops::Range<usize>) -> [Vec<i64>; 3] {
    let mut price = 100_000_000_000i64;
    let mut rows = [Vec::new(), Vec::new(), Vec::new()];
    for at in 0..count {
        let moves = !still.contains(&at);
        let reach = if moves { 1e8 } else { 0.0 };
        if moves {
            price = (price + ((unit(at, of) - 0.5) * 4e8) as i64).max(1_000_000_000);
        }
        rows[0].push(price + (unit(at, of + 1) * reach) as i64);
        rows[1].push(price - (unit(at, of + 2) * reach) as i64);
        rows[2].push(price);
    }
    rows
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_stretches() {
    let accel = Accel::open(GpuPolicy::Require, 1).unwrap();
    let cpu = Cpu::new(1).unwrap();
    let stretches = || {
        let found = accel.status().stretches;
        (found.computed, found.again)
    };
    // One bar, stretches to the bar and one bar over, and one symbol that stands still over many of them.
    let rows: Vec<_> = [(1, 0..0), (2, 0..0), (255, 0..0), (256, 0..0), (257, 0..0), (20_000, 0..0)]
        .into_iter()
        .chain([(30_011, 9_000..16_000)])
        .enumerate()
        .map(|(at, (count, still))| bars(count, 700 + 10 * at as u32, still))
        .collect();
    let series: Vec<_> = rows.iter().map(|[high, low, close]| SweepSeries { high, low, close }).collect();
    let specs = [
        SweepSpec::Ema { window: 1 },
        SweepSpec::Ema { window: 12 },
        SweepSpec::Bollinger { window: 20, deviations: 2.0 },
        SweepSpec::Rsi { window: 2 },
        SweepSpec::Rsi { window: 14 },
        SweepSpec::Macd { fast: 5, slow: 12, signal: 4 },
        SweepSpec::Atr { window: 14 },
        SweepSpec::Bollinger { window: 300, deviations: 0.5 },
        SweepSpec::Ema { window: 3_000 },
    ];
    let request = |horizon| SweepRequest { series: &series, specs: &specs, horizon };
    let wanted = format!("{:?}", cpu.sweep(&request(7)));
    let same =
        |path| equal(&[format!("{:?}", accel.sweep_by(&request(7), path))], std::slice::from_ref(&wanted));

    same(SweepPath::Lanes);
    assert_eq!(stretches(), (0, 0));
    // By its shape: all but the mean that forgets too late, in stretches of 1,024 bars.
    same(SweepPath::Automatic);
    let (computed, again) = stretches();
    println!("automatic: {computed} stretches, {again} of them again");
    assert_eq!(computed, (5 + 20 + 30) * 8);
    // Where nothing moves for longer than a stretch runs up, two means stop at two places: those are gone through again, few others.
    assert!((1..=60).contains(&again), "{again} of {computed}");
    // Without a bar to run up over hardly one guess is right, and with all bars before every one is.
    same(SweepPath::Stretches { length: 256, warm: 0 });
    let (cold, wrong) = stretches();
    let (cold, wrong) = (cold - computed, wrong - again);
    println!("cold: {cold} stretches, {wrong} of them again");
    assert_eq!(cold, (1 + 1 + 1 + 1 + 2 + 79 + 118) * 9);
    assert!(wrong * 10 > cold * 6, "{wrong} of {cold}");
    let before = stretches();
    same(SweepPath::Stretches { length: 2_560, warm: 40_000 });
    assert_eq!(stretches(), (before.0 + (5 + 8 + 12) * 9, before.1));
    for (length, warm) in [(256, 100), (512, 3_000), (40_192, 5)] {
        same(SweepPath::Stretches { length, warm });
    }
    // No signal has a bar ahead, and each has.
    for horizon in [1, 29_990, 1 << 20] {
        let wanted = format!("{:?}", cpu.sweep(&request(horizon)));
        let path = SweepPath::Stretches { length: 1_024, warm: 700 };
        equal(&[format!("{:?}", accel.sweep_by(&request(horizon), path))], &[wanted]);
    }
    // What is refused is refused before anything goes to the device.
    let sent = accel.status().on_device;
    let length = SweepPath::Stretches { length: 100, warm: 0 };
    let error = accel.sweep_by(&request(7), length).unwrap_err().to_string();
    assert_eq!(error, "bars of a stretch is 100; allowed is a multiple of 256");
    assert_eq!(cpu.sweep_by(&request(7), length).unwrap_err().to_string(), error);
    let none = SweepRequest { series: &[], ..request(7) };
    let error = accel.sweep_by(&none, SweepPath::Stretches { length: 256, warm: 0 }).unwrap_err().to_string();
    assert_eq!(error, "series: 0; allowed are 1 to 1048576");
    let status = accel.status();
    assert_eq!((status.on_device, status.on_cpu, status.recomputed), (sent, 0, 0), "{status:?}");
}

#[test]
fn stretches_of_few_long_series_have_the_bits_of_the_whole_whatever_was_guessed() {
    for order in ["0", "70221"] {
        passes(&child("child_stretches", driver(), &[("CUDA_SHIM_ORDER", order)]));
    }
}

#[test]
#[ignore = "run by the tests below, with a driver"]
fn child_open() {
    let auto = Accel::open(GpuPolicy::Auto, 1).unwrap();
    println!("auto: {} {:?}", auto.name(), auto.unavailable().map(ToString::to_string));
    match Accel::open(GpuPolicy::Require, 1) {
        Ok(accel) => println!("require: {:?}", accel.status().device),
        Err(BatchError::NoDevice(reason)) => println!("require fails: {reason}"),
        Err(error) => panic!("{error}"),
    }
    println!("off: {} {:?}", Accel::open(GpuPolicy::Off, 1).unwrap().name(), auto.status().device);
    // Whatever was wrong, there is an answer.
    let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.0, volatility: 0.2, years: 0.5 };
    let batch =
        OptionBatch { market, payoffs: &[Payoff::Call { strike: 40.0 }], paths: 5_000, steps: 1, seed: 7 };
    assert_eq!(auto.price(&batch), Cpu::new(1).unwrap().price(&batch));
}

#[test]
fn a_driver_that_will_not_do_is_said_to_be_so_once_and_the_cpu_computes() {
    let refusals = [
        ("no_device", "does not start: opening the first device failed: CUDA_ERROR_NO_DEVICE"),
        ("old_driver", "the NVIDIA driver speaks CUDA 11.4; the kernels need 12.4 or newer"),
        ("old_ptx", "does not start: loading kernels failed: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        ("wrong_answers", "failed its known-answer test: word 0 of Philox is"),
        ("wrong_numbers", "failed its known-answer test: simulated option values are not the CPU's"),
        ("fail:0", "asking for the driver's version failed"),
    ];
    for (mode, reason) in refusals {
        let text = passes(&child("child_open", driver(), &[("FAKE_CUDA", mode)]));
        assert!(text.contains("auto: cpu Some(") && text.contains("require fails: "), "{mode}: {text}");
        assert!(text.contains("off: cpu None"), "{mode}: {text}");
        assert_eq!(text.matches(reason).count(), 2, "{mode}: {text}");
    }
    // With the machine code that fits, or with the PTX where the driver will not have that.
    for (mode, native) in [("", "native: true"), ("no_code", "native: false")] {
        let text = passes(&child("child_open", driver(), &[("FAKE_CUDA", mode)]));
        assert!(text.contains("auto: cuda None"), "{mode}: {text}");
        assert!(
            text.contains("require: Some(DeviceInfo { name: \"shim\"") && text.contains(native),
            "{text}"
        );
    }
}

#[test]
fn a_library_that_is_no_driver_or_half_of_one_is_refused_without_a_panic() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, source, reason) in [
        ("empty", "", "the NVIDIA driver lacks cuInit"),
        (
            "half",
            "extern \"C\" int cuInit(unsigned) { return 0; } extern \"C\" int cuDriverGetVersion(int*) { return 0; }",
            "the NVIDIA driver lacks cuDeviceGet;",
        ),
    ] {
        let file = folder.join(format!("{name}.cpp"));
        std::fs::write(&file, source).unwrap();
        let text = passes(&child("child_open", &compile(name, &file, &[]), &[]));
        assert_eq!(text.matches(reason).count(), 2, "{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_hangs() {
    let opened = tidegate_cuda::Device::open_within(Duration::from_millis(200));
    assert_eq!(opened.unwrap_err(), Unavailable::TimedOut { milliseconds: 200 });
}

#[test]
fn a_driver_that_hangs_is_given_up() {
    passes(&child("child_hangs", driver(), &[("FAKE_CUDA", "hang")]));
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_drill() {
    let wanted = every_batch(&Cpu::new(1).unwrap(), 1);
    let Ok(accel) = Accel::open(GpuPolicy::Require, 1) else {
        println!("failed while starting");
        return;
    };
    for _ in 0..2 {
        equal(&every_batch(&accel, 1), &wanted);
        while accel.rebuilding() {
            std::thread::yield_now();
        }
    }
    let status = accel.status();
    assert_eq!(status.on_device + status.on_cpu, 2 * BATCHES, "{status:?}");
    println!("recomputed {} rebuilt {} on the CPU {}", status.recomputed, status.rebuilt, status.on_cpu);
    // One call failed: one batch was recomputed, or what failed was the freeing of memory after its last.
    if std::env::var("FAKE_CUDA").is_ok_and(|mode| mode.ends_with(":1")) {
        assert!(status.recomputed <= 1 && status.rebuilt == status.recomputed, "{status:?}");
        assert!(status.device.is_some(), "{status:?}");
    }
}

/// Wherever a call of the driver fails, once or from then on, every result is there and is the CPU's.
#[test]
fn a_device_that_fails_at_any_call_costs_no_result() {
    let text = passes(&child("child_drill", driver(), &[("FAKE_CUDA_COUNT", "1")]));
    let calls = text
        .lines()
        .find_map(|line| line.strip_prefix("fake driver: "))
        .expect("the driver counts its calls");
    let calls: u64 = calls.trim_end_matches(" calls").parse().unwrap();
    assert!(calls > 400, "{text}");
    // Not all of them, as each is a process: 40 places over two rounds of batches, among them all kinds of calls.
    let (next, step) = (AtomicU64::new(0), calls / 20 + 1);
    let recomputed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at * step / 2 >= calls {
                        return;
                    }
                    // Every second one fails for good.
                    let place = at * step / 2;
                    let mode = if at.is_multiple_of(2) {
                        format!("fail:{place}:1")
                    } else {
                        format!("fail:{place}")
                    };
                    let text = passes(&child("child_drill", driver(), &[("FAKE_CUDA", &mode)]));
                    let again = text.contains("recomputed 1 ") || text.contains("recomputed 2 ");
                    recomputed.fetch_add(u64::from(again), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(recomputed.into_inner() > 10, "the drill must reach the middle of batches");
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_limited() {
    let accel = Arc::new(Accel::open(GpuPolicy::Require, 1).unwrap());
    let cpu = Cpu::new(1).unwrap();
    let closes: Vec<i64> = (0..300).map(|at| 100_000_000_000 + (unit(at, 7) * 4e9) as i64).collect();
    let series = [SweepSeries { high: &closes, low: &closes, close: &closes }];
    let specs: Vec<SweepSpec> = (2..9).map(|window| SweepSpec::Ema { window }).collect();
    let sweep = SweepRequest { series: &series, specs: &specs, horizon: 3 };
    let returns: Vec<f64> = (0..40).map(|at| 0.02 * (unit(at, 8) - 0.5)).collect();
    let (weights, levels) = ([0.5, 0.5], [0.9]);
    let risk = RiskRequest {
        returns: &returns,
        weights: &weights,
        factors: 1,
        horizon_bars: 2.0,
        paths: 1_000,
        tail: Tail::Normal,
        levels: &levels,
        seed: 3,
    };
    println!("open");
    let longest = Duration::from_secs(5);
    for _ in 0..2 {
        if std::env::var("ASK").unwrap() == "sweep" {
            let (found, wanted) = (accel.sweep_within(&sweep, longest), cpu.sweep(&sweep));
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
        } else {
            let (found, wanted) = (accel.risk_within(&risk, longest), cpu.risk(&risk));
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
        }
    }
    while accel.rebuilding() {
        std::thread::yield_now();
    }
    let status = accel.status();
    println!("recomputed {} rebuilt {}", status.recomputed, status.rebuilt);
    assert_eq!(status.on_device + status.on_cpu, 2, "{status:?}");
}

/// How often the driver is called by a test of this program.
fn calls(test: &str, environment: &[(&str, &str)]) -> u64 {
    let text = passes(&child(test, driver(), &[&[("FAKE_CUDA_COUNT", "1")], environment].concat()));
    let line = text.lines().find_map(|line| line.strip_prefix("fake driver: "));
    line.and_then(|line| line.strip_suffix(" calls")).expect("it counts its calls").parse().unwrap()
}

#[test]
#[ignore = "run by the tests below, with a driver"]
fn child_opens() {
    Accel::open(GpuPolicy::Require, 1).unwrap();
}

/// Without a limit whoever asks a device that hangs would wait for ever.
#[test]
fn a_device_that_hangs_in_a_sweep_or_a_risk_is_given_up_and_the_cpu_computes() {
    let opened = calls("child_opens", &[]);
    for ask in ["sweep", "risk"] {
        let text = passes(&child("child_limited", driver(), &[("ASK", ask)]));
        assert!(text.contains("recomputed 0 rebuilt 0"), "{ask}: {text}");
        let hang = format!("hang:{}", opened + 3);
        let text = passes(&child("child_limited", driver(), &[("ASK", ask), ("FAKE_CUDA", &hang)]));
        assert!(!text.contains("recomputed 0"), "{ask}: {text}");
    }
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_reopens() {
    let accel = Accel::open(GpuPolicy::Require, 1).unwrap();
    let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.0, volatility: 0.2, years: 0.5 };
    let batch =
        OptionBatch { market, payoffs: &[Payoff::Call { strike: 40.0 }], paths: 5_000, steps: 1, seed: 7 };
    let wanted = Cpu::new(1).unwrap().price(&batch);
    let mut asked = 0;
    while accel.status().recomputed == 0 {
        assert!(asked < 100, "the driver fails at some call");
        assert_eq!(accel.price(&batch), wanted);
        asked += 1;
    }
    // Sooner or later it is there again.
    while accel.status().device.is_none() {
        std::thread::yield_now();
    }
    assert_eq!(accel.price(&batch), wanted);
    let status = accel.status();
    println!("refused {} rebuilt {}", status.refused, status.rebuilt);
    assert!(status.on_device > 0, "{status:?}");
}

/// Somebody resets the device: it cannot be opened at first, and can a little later.
#[test]
fn a_device_that_cannot_be_opened_anew_is_tried_again() {
    let place = calls("child_opens", &[]) + 2;
    // How many calls go with the device that failed, before another one is opened, is the driver's matter.
    let refused = (2..40).step_by(4).any(|calls| {
        let mode = format!("fail:{place}:{calls}");
        let text = passes(&child("child_reopens", driver(), &[("FAKE_CUDA", &mode)]));
        assert!(text.contains(" rebuilt 1"), "{mode}: {text}");
        !text.contains("refused 0")
    });
    assert!(refused, "a try to open it must have failed");
}

#[test]
#[ignore = "run by the test below, with a driver"]
fn child_small() {
    let accel = Accel::open(GpuPolicy::Require, 1).unwrap();
    equal(&every_batch(&accel, 12), &every_batch(&Cpu::new(1).unwrap(), 12));
    let status = accel.status();
    assert!(
        status.device.is_some() && status.rebuilt == 0,
        "too little memory does not break a device: {status:?}"
    );
    assert!(status.recomputed > 0 && status.on_device > 0, "{status:?}");
}

#[test]
fn what_does_not_fit_on_the_device_goes_to_the_cpu_and_breaks_nothing() {
    passes(&child("child_small", driver(), &[("FAKE_CUDA", "small")]));
}

/// The script and the program of `cargo xtask gpu-check`, with the driver that has no device.
#[test]
fn the_check_of_a_device_compares_and_times_every_kernel_and_says_what_is_wrong() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("check.sh");
    let check = |mode: &str| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("check-{mode}"));
        let mut command = Command::new("sh");
        command.arg(&script).arg(env!("CARGO_BIN_EXE_gpu-check")).arg(&out);
        let output = command
            .env("LD_LIBRARY_PATH", driver())
            .env("FAKE_CUDA", mode)
            .env("SMALL", "1")
            .output()
            .unwrap();
        (output.status.success(), text(&output), std::fs::read_to_string(out.join("table.md")))
    };
    let (good, text, table) = check("");
    assert!(good && text.ends_with("gpu-check: all good\n"), "{text}");
    assert!(text.contains("results of a device whose memory held NaN: 0 not the CPU's"), "{text}");
    assert!(!text.contains("NOT computed on the device"), "{text}");
    let table = table.unwrap();
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("| ") && !line.contains("goal")).collect();
    assert!(rows.len() == 11 && rows.iter().all(|row| row.ends_with("| yes |")), "{table}");
    for work in [
        "sweep, EMA",
        "sweep by stretches",
        "sweep by lanes",
        "Baum-Welch",
        "change points",
        "exponential",
        "window of",
        "rolling",
        "eigenvalues",
        "paths",
        "portfolios",
    ] {
        assert_eq!(rows.iter().filter(|row| row.contains(work)).count(), 1, "{work}: {table}");
    }
    // No machine of continuous integration has a sanitizer; where one is, it says that there is no device.
    assert!(text.contains("NOT CHECKED: "), "{text}");

    let (good, text, _) = check("wrong_late");
    assert!(!good && text.contains("DIFFERS: ") && text.contains("gpu-check ended with 1"), "{text}");
    assert!(text.ends_with("gpu-check: FAILED\n"), "{text}");
    let (good, text, _) = check("no_device");
    assert!(
        !good && text.contains("gpu-check: a GPU is required: the NVIDIA driver does not start"),
        "{text}"
    );
    assert!(text.contains("gpu-check ended with 2"), "{text}");
}

#[test]
fn policies_are_read_by_name() {
    for (text, policy) in
        [("off", GpuPolicy::Off), ("auto", GpuPolicy::Auto), ("require", GpuPolicy::Require)]
    {
        assert_eq!(text.parse(), Ok(policy));
    }
    let error = "yes".parse::<GpuPolicy>().unwrap_err().to_string();
    assert_eq!(error, "`yes` is no policy for the GPU; allowed are off, auto and require");
}
