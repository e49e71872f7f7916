//! How long kernels took, by the device's own clock.

use super::{Device, driver_error, failed, sys};
use crate::DeviceError;
use cudarc::driver::{CudaSlice, DevicePtrMut, DeviceRepr, result};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

/// What is called of the driver beside what every batch needs.
const SYMBOLS: &[&str] =
    &["cuEventCreate", "cuEventRecord", "cuEventSynchronize", "cuEventElapsedTime", "cuEventDestroy_v2"];

/// Time spent in kernels that were launched one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// The kernel, or the group of them.
    pub name: &'static str,
    /// Steps in it that are alike.
    pub steps: u64,
    /// From the first launch to the end of the last one.
    pub milliseconds: f64,
}

/// Times of the batches of a run that is profiled; `None` while none is.
pub(super) type Profile = Mutex<Option<Vec<KernelTime>>>;

impl Device {
    /// Runs `work` and says how long each kernel took that it had computed: copies and waits of this machine are not in it. A batch
    /// waits for its kernels one more time then.
    ///
    /// # Errors
    /// [`DeviceError::NotCovered`] when the driver has no events.
    pub fn profiled<R>(&self, work: impl FnOnce() -> R) -> Result<(R, Vec<KernelTime>), DeviceError> {
        // SAFETY: the library was loaded when the device was opened; symbols are looked up and not called.
        let library = unsafe { sys::culib() };
        for symbol in SYMBOLS {
            // SAFETY: as above.
            if unsafe { library.get::<*const ()>(symbol.as_bytes()) }.is_err() {
                return Err(DeviceError::NotCovered {
                    what: "events",
                    found: 0,
                    allowed: "a driver that has them",
                });
            }
        }
        *self.profile.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        let found = work();
        let times = self.profile.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((found, times.unwrap_or_default()))
    }

    /// Whether room for results is filled with NaN before kernels get it, so that a number which none of them wrote is seen.
    ///
    /// # Errors
    /// [`DeviceError::NotCovered`] when the driver cannot fill memory.
    pub fn poison(&self, wanted: bool) -> Result<(), DeviceError> {
        // SAFETY: the library was loaded when the device was opened; the symbol is looked up and not called.
        let known = unsafe { sys::culib().get::<*const ()>(b"cuMemsetD8Async") }.is_ok();
        if wanted && !known {
            return Err(DeviceError::NotCovered {
                what: "filling",
                found: 0,
                allowed: "a driver that has it",
            });
        }
        self.poisoned.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn fill_with_nan<T: DeviceRepr>(&self, room: &mut CudaSlice<T>) -> Result<(), DeviceError> {
        let bytes = room.num_bytes();
        let (place, _kept) = room.device_ptr_mut(&self.stream);
        // SAFETY: the room is of so many bytes and ours alone, and any bits are numbers.
        let filled = unsafe { result::memset_d8_async(place, 0xff, bytes, self.stream.cu_stream()) };
        filled.map_err(failed("filling memory of the device"))
    }

    /// Launches kernels, and notes how long they took where that is asked for.
    pub(super) fn timed<R>(
        &self,
        name: &'static str,
        steps: u64,
        launch: impl FnOnce() -> Result<R, DeviceError>,
    ) -> Result<(), DeviceError> {
        let wanted = self.profile.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !wanted {
            return launch().map(drop);
        }
        let event = || {
            let event = self.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(failed("recording an event"))
        };
        let begin = event()?;
        launch()?;
        let end = event()?;
        let milliseconds =
            begin.elapsed_ms(&end).map_err(|error| driver_error("computing on the device", error))?;
        if let Some(times) = &mut *self.profile.lock().unwrap_or_else(PoisonError::into_inner) {
            times.push(KernelTime { name, steps, milliseconds: milliseconds.into() });
        }
        Ok(())
    }
}
