//! The device where there is one, the CPU where not or where it failed, with the same answers.

use crate::changes::{ChangeBank, ChangeSteps};
use crate::correlation::{Correlation, EwCorrelation, RollingCorrelation, Spectrum};
use crate::hmm::{FitRequest, Fitted, HmmBank};
use crate::options::{Estimate, Market, OptionBatch, Payoff};
use crate::qp::{LongOnlyBatch, LongOnlyFound};
use crate::risk::{RiskReport, RiskRequest};
use crate::sweep::{SweepCell, SweepPath, SweepRequest};
use crate::window::WindowRequest;
use crate::{Backend, BatchError, Cpu};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tidegate_cuda::{Device, DeviceError, DeviceInfo, KernelTime, StretchCounts, Unavailable};

/// Most times a device that failed is opened anew in the life of an [`Accel`].
pub const REBUILDS_MAX: u32 = 8;
/// Times it is tried each time, for who resets a device or puts in another driver needs a while: over an hour.
const TRIES_MAX: u32 = 24;
/// How long until the second try; each further pause is twice the last one, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(300);

/// Whether to look for a device: what `TIDEGATE_GPU` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GpuPolicy {
    /// Never.
    Off,
    /// Use one if it is there.
    #[default]
    Auto,
    /// Fail without one.
    Require,
}

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no policy for the GPU; allowed are off, auto and require")]
pub struct UnknownPolicy(pub String);

impl FromStr for GpuPolicy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            "require" => Ok(Self::Require),
            _ => Err(UnknownPolicy(text.to_owned())),
        }
    }
}

/// What went on so far.
#[derive(Debug, Clone, PartialEq)]
pub struct AccelStatus {
    /// The device that takes batches at the moment.
    pub device: Option<DeviceInfo>,
    /// Batches computed on a device.
    pub on_device: u64,
    /// Batches computed on the CPU, those below among them.
    pub on_cpu: u64,
    /// Batches that a device failed at or does not cover.
    pub recomputed: u64,
    /// Times a device was opened anew after it failed.
    pub rebuilt: u64,
    /// Times it could not be opened anew, and was left alone for a while.
    pub refused: u64,
    /// Stretches of sweeps on the device since it was last opened.
    pub stretches: StretchCounts,
    /// Why the last batch was recomputed.
    pub last_error: Option<DeviceError>,
}

/// Computes on a device behind a breaker. A batch that the device fails at is computed on the CPU, and the device gets nothing
/// more until it was opened anew, behind the caller's back, and gave its known answers.
#[derive(Debug)]
pub struct Accel {
    cpu: Cpu,
    slot: Arc<Mutex<Slot>>,
    unavailable: Option<Unavailable>,
    /// Whether the last batch was computed on the device; before the first, whether there is one.
    last_on_device: AtomicBool,
    on_device: AtomicU64,
    on_cpu: AtomicU64,
    recomputed: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    device: Option<Arc<Device>>,
    /// What the CPU gave for [`KNOWN`].
    known: Vec<Estimate>,
    rebuilding: bool,
    rebuilds_left: u32,
    rebuilt: u64,
    refused: u64,
    last_error: Option<DeviceError>,
}

/// What a device has to compute as the CPU does, before it gets work: kernels, copies, roots, divisions and fused products.
const KNOWN: OptionBatch<'_> = OptionBatch {
    market: Market { spot: 42.0, rate: 0.1, dividend_yield: 0.02, volatility: 0.2, years: 0.5 },
    payoffs: &[Payoff::Call { strike: 40.0 }, Payoff::GeometricAsianCall { strike: 44.0 }],
    paths: 5_000,
    steps: 6,
    seed: 1,
};

/// A device that passed its own tests and this one.
fn opened(known: &[Estimate]) -> Result<Arc<Device>, Unavailable> {
    let device = Device::open()?;
    match KNOWN.run_on(&device) {
        Ok(found) if found == known => Ok(Arc::new(device)),
        Ok(_) => {
            Err(Unavailable::WrongAnswer { what: "simulated option values are not the CPU's".to_owned() })
        }
        Err(Trouble::Device(error)) => Err(Unavailable::Failed(error)),
        Err(Trouble::Batch(error)) => Err(Unavailable::WrongAnswer { what: error.to_string() }),
    }
}

/// Why a device gave no result.
pub(crate) enum Trouble {
    Batch(BatchError),
    Device(DeviceError),
}

impl From<BatchError> for Trouble {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<DeviceError> for Trouble {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl Accel {
    /// Looks for a device as `policy` says; `threads` are the CPU's, 0 is one per core.
    ///
    /// # Errors
    /// [`BatchError::NoDevice`] where one is required and none can be used; else as [`Cpu::new`].
    pub fn open(policy: GpuPolicy, threads: usize) -> Result<Self, BatchError> {
        let cpu = Cpu::new(threads)?;
        let known = if policy == GpuPolicy::Off { Vec::new() } else { cpu.price(&KNOWN)? };
        let (device, unavailable) = match policy {
            GpuPolicy::Off => (None, None),
            GpuPolicy::Auto | GpuPolicy::Require => match opened(&known) {
                Ok(device) => (Some(device), None),
                Err(reason) if policy == GpuPolicy::Require => return Err(BatchError::NoDevice(reason)),
                Err(reason) => (None, Some(reason)),
            },
        };
        let last_on_device = AtomicBool::new(device.is_some());
        let slot = Slot {
            device,
            known,
            rebuilding: false,
            rebuilds_left: REBUILDS_MAX,
            rebuilt: 0,
            refused: 0,
            last_error: None,
        };
        Ok(Self {
            cpu,
            slot: Arc::new(Mutex::new(slot)),
            unavailable,
            last_on_device,
            on_device: AtomicU64::new(0),
            on_cpu: AtomicU64::new(0),
            recomputed: AtomicU64::new(0),
        })
    }

    /// Why there is no device, where one was looked for and none can be used.
    #[must_use]
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.unavailable.as_ref()
    }

    /// What went on so far.
    #[must_use]
    pub fn status(&self) -> AccelStatus {
        let slot = lock(&self.slot);
        AccelStatus {
            device: slot.device.as_ref().map(|device| device.info().clone()),
            on_device: self.on_device.load(Ordering::Relaxed),
            on_cpu: self.on_cpu.load(Ordering::Relaxed),
            recomputed: self.recomputed.load(Ordering::Relaxed),
            rebuilt: slot.rebuilt,
            refused: slot.refused,
            stretches: slot.device.as_ref().map_or_else(StretchCounts::default, |device| device.stretches()),
            last_error: slot.last_error.clone(),
        }
    }

    /// Runs `work` and says how long each kernel took that it had a device compute, by the device's clock; `None` where there is no
    /// device.
    ///
    /// # Errors
    /// As [`Device::profiled`].
    pub fn profiled<R>(&self, work: impl FnOnce() -> R) -> Option<Result<(R, Vec<KernelTime>), DeviceError>> {
        let device = lock(&self.slot).device.clone()?;
        Some(device.profiled(work))
    }

    /// Whether a device's room for results is filled with NaN before kernels get it; `None` where there is no device.
    ///
    /// # Errors
    /// As [`Device::poison`].
    pub fn poison(&self, wanted: bool) -> Option<Result<(), DeviceError>> {
        let device = lock(&self.slot).device.clone()?;
        Some(device.poison(wanted))
    }

    /// Whether a device that failed is being opened anew at this moment, and not left alone until the next try.
    #[must_use]
    pub fn rebuilding(&self) -> bool {
        lock(&self.slot).rebuilding
    }

    /// The threads that compute where there is no device.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Whether there is a device that takes batches at the moment.
    #[must_use]
    pub fn has_device(&self) -> bool {
        lock(&self.slot).device.is_some()
    }

    /// [`Backend::sweep`] on the device alone: `None` where there is none or it failed, for who computes it elsewhere then.
    pub fn sweep_on_device(
        &self,
        request: &SweepRequest<'_>,
    ) -> Option<Result<Vec<Vec<SweepCell>>, BatchError>> {
        self.device_only(|device| request.run_on(device, SweepPath::Automatic))
    }

    /// [`Backend::risk`] on the device alone: as [`Self::sweep_on_device`].
    pub fn risk_on_device(&self, request: &RiskRequest<'_>) -> Option<Result<RiskReport, BatchError>> {
        self.device_only(|device| request.run_on(device, &self.cpu))
    }

    /// Gives the device up that has not answered in time: it gets nothing more, and one is opened anew as after a failure. Whoever
    /// still waits for it may go on doing so.
    pub fn expire(&self) {
        let device = lock(&self.slot).device.clone();
        if let Some(device) = device {
            let name = "no answer in time".to_owned();
            self.trip(&device, DeviceError::Driver { call: "computing on the device", name });
        }
    }

    /// Runs `work` on the device, or `fallback` on the CPU where there is none or it fails.
    fn run<T>(
        &self,
        work: impl FnOnce(&Device) -> Result<T, Trouble>,
        fallback: impl FnOnce(&Cpu) -> Result<T, BatchError>,
    ) -> Result<T, BatchError> {
        if let Some(found) = self.device_only(work) {
            return found;
        }
        self.on_cpu(fallback)
    }

    /// Computes on the CPU whether or not there is a device.
    pub(crate) fn on_cpu<T>(&self, work: impl FnOnce(&Cpu) -> T) -> T {
        self.on_cpu.fetch_add(1, Ordering::Relaxed);
        self.last_on_device.store(false, Ordering::Relaxed);
        work(&self.cpu)
    }

    /// A batch that was given to the device is not the device's: it was late.
    pub(crate) fn give_up(&self) {
        self.recomputed.fetch_add(1, Ordering::Relaxed);
        self.expire();
    }

    fn device_only<T>(
        &self,
        work: impl FnOnce(&Device) -> Result<T, Trouble>,
    ) -> Option<Result<T, BatchError>> {
        let device = lock(&self.slot).device.clone()?;
        match work(&device) {
            Ok(found) => {
                self.on_device.fetch_add(1, Ordering::Relaxed);
                self.last_on_device.store(true, Ordering::Relaxed);
                Some(Ok(found))
            }
            Err(Trouble::Batch(error)) => Some(Err(error)),
            Err(Trouble::Device(error)) => {
                self.recomputed.fetch_add(1, Ordering::Relaxed);
                self.trip(&device, error);
                None
            }
        }
    }

    /// Opens the breaker if the device itself failed, and has the device opened anew.
    fn trip(&self, failed: &Arc<Device>, error: DeviceError) {
        let mut slot = lock(&self.slot);
        let broken = error.broken();
        slot.last_error = Some(error);
        let current = slot.device.as_ref().is_some_and(|device| Arc::ptr_eq(device, failed));
        if !broken || !current {
            return;
        }
        slot.device = None;
        if slot.rebuilds_left == 0 {
            return;
        }
        slot.rebuilds_left -= 1;
        slot.rebuilding = true;
        let (shared, known) = (Arc::downgrade(&self.slot), slot.known.clone());
        let rebuild = move || reopen(&shared, &known);
        if std::thread::Builder::new().name("cuda-rebuild".to_owned()).spawn(rebuild).is_err() {
            slot.rebuilding = false;
        }
    }
}

/// Opens a device anew, with growing pauses between tries, until that works or nobody wants it any more.
fn reopen(slot: &Weak<Mutex<Slot>>, known: &[Estimate]) {
    let mut pause = PAUSE_FIRST;
    for _ in 0..TRIES_MAX {
        let opened = opened(known);
        {
            let Some(slot) = slot.upgrade() else { return };
            let mut slot = lock(&slot);
            slot.rebuilding = false;
            match opened {
                Ok(device) => {
                    slot.device = Some(device);
                    slot.rebuilt += 1;
                    return;
                }
                Err(_) => slot.refused += 1,
            }
        }
        std::thread::sleep(pause);
        pause = (2 * pause).min(PAUSE_LONGEST);
        let Some(slot) = slot.upgrade() else { return };
        lock(&slot).rebuilding = true;
    }
    if let Some(slot) = slot.upgrade() {
        lock(&slot).rebuilding = false;
    }
}

/// The slot holds no invariant that a panic could break half way.
fn lock(slot: &Mutex<Slot>) -> std::sync::MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for Accel {
    /// What the last batch was computed on; before the first, what it will be tried on.
    fn name(&self) -> &'static str {
        if self.last_on_device.load(Ordering::Relaxed) { "cuda" } else { "cpu" }
    }

    fn sweep(&self, request: &SweepRequest<'_>) -> Result<Vec<Vec<SweepCell>>, BatchError> {
        self.sweep_by(request, SweepPath::Automatic)
    }

    fn sweep_by(
        &self,
        request: &SweepRequest<'_>,
        path: SweepPath,
    ) -> Result<Vec<Vec<SweepCell>>, BatchError> {
        self.run(|device| request.run_on(device, path), |cpu| cpu.sweep_by(request, path))
    }

    fn price(&self, batch: &OptionBatch<'_>) -> Result<Vec<Estimate>, BatchError> {
        self.run(|device| batch.run_on(device), |cpu| cpu.price(batch))
    }

    fn risk(&self, request: &RiskRequest<'_>) -> Result<RiskReport, BatchError> {
        self.run(|device| request.run_on(device, &self.cpu), |cpu| cpu.risk(request))
    }

    fn correlate(&self, state: &mut EwCorrelation, rows: &[f64]) -> Result<(), BatchError> {
        let shared = std::cell::RefCell::new(state);
        self.run(
            |device| shared.borrow_mut().run_on(device, rows),
            |cpu| cpu.correlate(&mut shared.borrow_mut(), rows),
        )
    }

    fn hmm_filter(&self, bank: &mut HmmBank, values: &[f64]) -> Result<(), BatchError> {
        let shared = std::cell::RefCell::new(bank);
        self.run(
            |device| shared.borrow_mut().run_on(device, values),
            |cpu| cpu.hmm_filter(&mut shared.borrow_mut(), values),
        )
    }

    fn hmm_fit(&self, request: &FitRequest<'_>) -> Result<Fitted, BatchError> {
        self.run(|device| request.run_on(device), |cpu| cpu.hmm_fit(request))
    }

    fn change_points(&self, bank: &mut ChangeBank, values: &[f64]) -> Result<ChangeSteps, BatchError> {
        let shared = std::cell::RefCell::new(bank);
        self.run(
            |device| shared.borrow_mut().run_on(device, values),
            |cpu| cpu.change_points(&mut shared.borrow_mut(), values),
        )
    }

    fn roll(&self, state: &mut RollingCorrelation, rows: &[f64]) -> Result<(), BatchError> {
        let shared = std::cell::RefCell::new(state);
        self.run(
            |device| shared.borrow_mut().run_on(device, rows),
            |cpu| cpu.roll(&mut shared.borrow_mut(), rows),
        )
    }

    fn window_correlation(&self, request: &WindowRequest<'_>) -> Result<Correlation, BatchError> {
        self.run(|device| request.run_on(device), |cpu| cpu.window_correlation(request))
    }

    fn window_spectrum(&self, request: &WindowRequest<'_>, count: usize) -> Result<Spectrum, BatchError> {
        self.run(|device| request.spectrum_on(device, count), |cpu| cpu.window_spectrum(request, count))
    }

    fn leading(&self, correlation: &Correlation, count: usize) -> Result<Spectrum, BatchError> {
        self.run(|device| correlation.leading_on(device, count), |cpu| cpu.leading(correlation, count))
    }

    fn long_only(&self, batch: &LongOnlyBatch<'_>) -> Result<LongOnlyFound, BatchError> {
        self.run(|device| self.cpu.install(|| batch.run_on(device)), |cpu| cpu.long_only(batch))
    }
}
