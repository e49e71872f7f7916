//! A device that does not answer in time: nobody waits for it any longer, and the CPU computes.

use crate::accel::Accel;
use crate::risk::{RiskReport, RiskRequest};
use crate::sweep::{SweepCell, SweepRequest, SweepSeries};
use crate::{Backend, BatchError};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

impl Accel {
    /// [`Backend::sweep`], but a device that has not answered within `longest` counts as one that failed: it is given up, and the CPU
    /// computes. The device gets a copy, which it keeps while it hangs.
    ///
    /// # Errors
    /// As [`Backend::sweep`].
    pub fn sweep_within(
        self: &Arc<Self>,
        request: &SweepRequest<'_>,
        longest: Duration,
    ) -> Result<Vec<Vec<SweepCell>>, BatchError> {
        let on_device = || {
            let series: Vec<[Vec<i64>; 3]> =
                request.series.iter().map(|of| [of.high, of.low, of.close].map(<[i64]>::to_vec)).collect();
            let (specs, horizon) = (request.specs.to_vec(), request.horizon);
            self.within(longest, move |accel| {
                let series: Vec<_> =
                    series.iter().map(|[high, low, close]| SweepSeries { high, low, close }).collect();
                accel.sweep_on_device(&SweepRequest { series: &series, specs: &specs, horizon })
            })
        };
        let found = if self.has_device() { on_device() } else { None };
        found.unwrap_or_else(|| self.on_cpu(|cpu| cpu.sweep(request)))
    }

    /// [`Backend::risk`], within `longest` as [`Self::sweep_within`].
    ///
    /// # Errors
    /// As [`Backend::risk`].
    pub fn risk_within(
        self: &Arc<Self>,
        request: &RiskRequest<'_>,
        longest: Duration,
    ) -> Result<RiskReport, BatchError> {
        let on_device = || {
            let RiskRequest { factors, horizon_bars, paths, tail, seed, .. } = *request;
            let [returns, weights, levels] =
                [request.returns, request.weights, request.levels].map(<[f64]>::to_vec);
            self.within(longest, move |accel| {
                let (returns, weights, levels) = (&returns[..], &weights[..], &levels[..]);
                let request =
                    RiskRequest { returns, weights, factors, horizon_bars, paths, tail, levels, seed };
                accel.risk_on_device(&request)
            })
        };
        let found = if self.has_device() { on_device() } else { None };
        found.unwrap_or_else(|| self.on_cpu(|cpu| cpu.risk(request)))
    }

    /// What a thread of its own finds, if it does so in time. One that hangs in the driver ends when the driver answers it, if ever; there
    /// are no more of those than times a device is opened anew.
    fn within<T: Send + 'static>(
        self: &Arc<Self>,
        longest: Duration,
        work: impl FnOnce(&Self) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let (back, answer) = sync_channel(1);
        let accel = Arc::clone(self);
        let run = move || {
            // Nobody is there any more when it was late.
            let _ = back.send(work(&accel));
        };
        std::thread::Builder::new().name("batch-device".to_owned()).spawn(run).ok()?;
        // An end without an answer is a bug that panicked: what became of the device nobody knows either.
        answer.recv_timeout(longest).unwrap_or_else(|_| {
            self.give_up();
            None
        })
    }
}
