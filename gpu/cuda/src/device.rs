//! A device that passed its tests, and how its kernels are called.
//!
//! One stream, and every call waits for its result: the caller's thread is the one that waits anyway. Calls from several
//! threads are safe, as the driver orders what one stream is given.

use crate::{DeviceError, Unavailable};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DeviceRepr, DriverError, LaunchArgs, LaunchConfig, sys,
};
use cudarc::nvrtc::Ptx;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

pub(crate) mod changes;
pub(crate) mod correlation;
pub(crate) mod hmm;
pub(crate) mod paths;
mod profile;
pub(crate) mod qp;
pub(crate) mod risk;
pub(crate) mod spectra;
pub(crate) mod sweep;

pub use profile::KernelTime;
use profile::Profile;
use spectra::Spectra;

/// Oldest driver that reads the kernels' PTX (ISA 8.4).
const DRIVER_LEAST: i32 = 12_040;
/// How long a driver may take to start. A machine with eight devices needs some seconds.
const START_LONGEST: Duration = Duration::from_secs(30);
/// Share of the free memory that a batch may take, in percent.
const MEMORY_PERCENT: u64 = 80;
/// Threads per block, where threads do not talk to each other.
const THREADS: u32 = 128;

/// Major capability of the devices whose machine code is shipped.
const NATIVE: i32 = 9;

/// The kernels: text that every driver since [`DRIVER_LEAST`] translates for its device, machine code for devices of capability
/// [`NATIVE`], and the names in each.
type Module = (&'static str, &'static [u8], &'static [&'static str]);

macro_rules! module {
    ($file:literal, $names:expr) => {
        (
            include_str!(concat!("../../kernels/ptx/", $file, ".ptx")),
            include_bytes!(concat!("../../kernels/cubin/", $file, ".cubin")),
            $names,
        )
    };
}

const MODULES: &[Module] = &[
    module!("paths", &["known_answer", "brownian", "payoffs"]),
    module!("risk", &["losses"]),
    module!("sweep", &["sweep_ema", "sweep_rsi", "sweep_macd", "sweep_atr", "sweep_bollinger"]),
    module!(
        "scan",
        &[
            "scan_ema",
            "scan_rsi",
            "scan_macd",
            "scan_atr",
            "scan_bollinger",
            "join_ema",
            "join_rsi",
            "join_macd",
            "join_atr",
            "join_bollinger",
            "scan_fold"
        ]
    ),
    module!("correlation", &["rank1", "roll", "centre", "window_products"]),
    module!("spectrum", &["tile_products", "fold_tiles", "shares_along", "take_out", "unit_length"]),
    module!("qp", &["admm_start", "admm"]),
    module!("hmm", &["hmm_filter_2", "hmm_filter_3", "hmm_filter_4", "hmm_fit_2", "hmm_fit_3", "hmm_fit_4"]),
    module!("changes", &["change_points"]),
];

/// What is called of the driver. The library behind it panics when one is missing, so they are looked for first.
const SYMBOLS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamSynchronize",
    "cuLaunchKernel",
    "cuGetErrorName",
    "cuGetErrorString",
];

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// The driver's version of CUDA, as 1000 times the major and 10 times the minor one.
    pub driver: i32,
    /// Whether it runs the shipped machine code; else what the driver made of the PTX.
    pub native: bool,
}

/// A device that is there, reads our kernels and gives known answers.
pub struct Device {
    stream: Arc<CudaStream>,
    functions: BTreeMap<&'static str, CudaFunction>,
    info: DeviceInfo,
    profile: Profile,
    /// Whether room for results is filled with NaN first.
    poisoned: AtomicBool,
    stretches: sweep::StretchTally,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Device {
    /// The first device, after its tests. Runs on a thread of its own, so that a driver which panics or hangs costs no more
    /// than that thread.
    ///
    /// # Errors
    /// [`Unavailable`]: the first thing that is not as it must be.
    pub fn open() -> Result<Self, Unavailable> {
        Self::open_within(START_LONGEST)
    }

    /// As [`Self::open`], with another limit than 30 seconds.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(longest: Duration) -> Result<Self, Unavailable> {
        let (answer, opened) = mpsc::sync_channel(1);
        let work = move || {
            let found = catch_unwind(AssertUnwindSafe(Self::start)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                Err(Unavailable::Panicked { what: text.to_owned() })
            });
            // Nobody waits any more after a timeout; then the device is dropped here.
            let _ = answer.send(found);
        };
        let started = std::thread::Builder::new().name("cuda-start".to_owned()).spawn(work);
        started.map_err(|error| Unavailable::Panicked { what: error.to_string() })?;
        match opened.recv_timeout(longest) {
            Ok(found) => found,
            Err(_) => Err(Unavailable::TimedOut { milliseconds: longest.as_millis() as u64 }),
        }
    }

    fn start() -> Result<Self, Unavailable> {
        // SAFETY: loads the driver's library, whose initialisers are trusted as the driver is.
        if !unsafe { sys::is_culib_present() } {
            return Err(Unavailable::NoLibrary);
        }
        // SAFETY: as above; the symbols are looked up and not called.
        let library = unsafe { sys::culib() };
        for &symbol in SYMBOLS {
            // SAFETY: the type is not used: nothing is called through it.
            if unsafe { library.get::<*const ()>(symbol.as_bytes()) }.is_err() {
                return Err(Unavailable::Symbol { symbol });
            }
        }
        let failed = |call: &'static str| move |error| Unavailable::Failed(driver_error(call, error));
        let mut driver = 0;
        // SAFETY: writes one int to a place that is one.
        let version = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
        version.result().map_err(failed("asking for the driver's version"))?;
        if driver < DRIVER_LEAST {
            return Err(Unavailable::OldDriver { found: driver, least: DRIVER_LEAST });
        }
        let context = CudaContext::new(0).map_err(failed("opening the first device"))?;
        // SAFETY: there is one stream, which alone frees, reads and writes what is allocated on it, in order.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability().map_err(failed("asking for the capability"))?;
        if major < 8 {
            return Err(Unavailable::OldDevice { major, minor });
        }
        let name = context.name().map_err(failed("asking for the device's name"))?;
        let mut functions = BTreeMap::new();
        let mut native = major == NATIVE;
        for &(text, code, names) in MODULES {
            let shipped = native.then(|| context.load_module(Ptx::from_binary(code.to_vec())).ok()).flatten();
            let module = match shipped {
                Some(module) => module,
                None => {
                    native = false;
                    context.load_module(Ptx::from_src(text)).map_err(failed("loading kernels"))?
                }
            };
            for &name in names {
                functions.insert(name, module.load_function(name).map_err(failed("finding a kernel"))?);
            }
        }
        let info = DeviceInfo { name, capability: (major, minor), driver, native };
        let profile = Profile::default();
        let device = Self {
            stream: context.default_stream(),
            functions,
            info,
            profile,
            poisoned: AtomicBool::new(false),
            stretches: sweep::StretchTally::default(),
        };
        device.known_answers()?;
        Ok(device)
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes a batch may take at the moment.
    ///
    /// # Errors
    /// [`DeviceError::Driver`].
    pub fn memory_free(&self) -> Result<u64, DeviceError> {
        let (free, _) = self.stream.context().mem_get_info().map_err(failed("asking for free memory"))?;
        Ok(free as u64 / 100 * MEMORY_PERCENT)
    }

    /// Refuses a batch of so many numbers of eight bytes when it does not fit, before anything is allocated.
    fn fits(&self, numbers: &[Option<u64>]) -> Result<(), DeviceError> {
        let sum = numbers.iter().try_fold(0u64, |sum, &more| sum.checked_add(more?));
        let needed = sum.and_then(|sum| sum.checked_mul(8)).unwrap_or(u64::MAX);
        let free = self.memory_free()?;
        if needed <= free { Ok(()) } else { Err(DeviceError::Memory { needed, free }) }
    }

    /// A copy of `values`; of one number where there are none, as a device has no empty buffers.
    fn copy<T: DeviceRepr + Default + Clone>(&self, values: &[T]) -> Result<CudaSlice<T>, DeviceError> {
        let some = [T::default()];
        let values = if values.is_empty() { &some[..] } else { values };
        self.stream.clone_htod(values).map_err(failed("copying to the device"))
    }

    /// Room for results. What is in it is not ours: the kernel must write all of it.
    fn room<T: DeviceRepr>(&self, count: u64) -> Result<CudaSlice<T>, DeviceError> {
        let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX / 16);
        // SAFETY: every bit pattern is a value of the number types this is used for, and none is read before a kernel wrote it.
        let mut room = unsafe { self.stream.alloc(count) }.map_err(failed("allocating on the device"))?;
        if self.poisoned.load(Ordering::Relaxed) {
            self.fill_with_nan(&mut room)?;
        }
        Ok(room)
    }

    /// Waits for what was launched and brings the first numbers of a buffer back into `to`.
    fn bring<T: DeviceRepr>(&self, from: &CudaSlice<T>, to: &mut [T]) -> Result<(), DeviceError> {
        if to.is_empty() {
            return Ok(());
        }
        self.stream.memcpy_dtoh(&from.slice(..to.len()), to).map_err(failed("copying from the device"))?;
        self.stream.synchronize().map_err(failed("computing on the device"))
    }

    fn call(&self, kernel: &'static str) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.functions[kernel])
    }
}

/// Blocks of `threads` for so many of them in all.
fn blocks(count: u64, threads: u32) -> Result<LaunchConfig, DeviceError> {
    let blocks = count.div_ceil(u64::from(threads)).max(1);
    let not_covered =
        DeviceError::NotCovered { what: "threads", found: count, allowed: "at most 2^31 blocks" };
    let blocks = i32::try_from(blocks).map_err(|_| not_covered)? as u32;
    Ok(LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 })
}

fn failed(call: &'static str) -> impl Fn(DriverError) -> DeviceError {
    move |error| driver_error(call, error)
}

fn driver_error(call: &'static str, error: DriverError) -> DeviceError {
    let name = match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("error {}", error.0 as u32),
    };
    DeviceError::Driver { call, name }
}

/// A product of a shape, `None` where it overflows.
fn product(of: &[u64]) -> Option<u64> {
    of.iter().try_fold(1u64, |product, &factor| product.checked_mul(factor))
}
