//! A sweep as a device takes it.

use super::kernels::Bars;
use super::{SweepCell, SweepPath, SweepRequest, SweepSpec, route};
use tidegate_cuda::{Device, DeviceError, Stretches, SweepBars, SweepCells, SweepJob, SweepKind};

impl SweepRequest<'_> {
    /// Checks the request and how it is to be gone through.
    pub(crate) fn check_for(&self, path: SweepPath) -> Result<(), crate::BatchError> {
        path.check()?;
        self.check()
    }

    /// A checked request on the device.
    pub(crate) fn on_device(
        &self,
        device: &Device,
        path: SweepPath,
    ) -> Result<Vec<Vec<SweepCell>>, DeviceError> {
        let horizon = self.horizon as usize;
        let mut starts = vec![0u64];
        let (mut close, mut price, mut ahead) = (Vec::new(), Vec::new(), Vec::new());
        let (mut up, mut down, mut range, mut change) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for series in self.series {
            let bars = Bars::new(series, horizon, self.specs);
            close.extend_from_slice(bars.close);
            price.extend_from_slice(&bars.price);
            ahead.extend_from_slice(&bars.ahead);
            ahead.resize(price.len(), 0.0);
            up.extend_from_slice(&bars.up);
            down.extend_from_slice(&bars.down);
            range.extend_from_slice(&bars.range);
            change.extend_from_slice(&bars.change);
            starts.push(price.len() as u64);
        }
        let (starts, horizon) = (&starts[..], horizon as u64);
        let (close, price, ahead) = (&close[..], &price[..], &ahead[..]);
        let (up, down, range, change) = (&up[..], &down[..], &range[..], &change[..]);
        let bars = SweepBars { starts, close, price, ahead, up, down, range, change, horizon };
        let jobs = jobs(self.specs, &route::route(self, path));
        let found = device.sweep(&bars, &jobs, self.specs.len() as u32)?;
        Ok((0..self.series.len()).map(|series| cells(&found, series, self.specs.len())).collect())
    }
}

/// The specs by kind and by how bars are cut, those of one window next to each other, so that neighbouring threads do alike.
fn jobs(specs: &[SweepSpec], cuts: &[Option<Stretches>]) -> Vec<SweepJob> {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&at| specs[at].first_defined());
    let mut jobs: Vec<SweepJob> = Vec::new();
    for at in order {
        let (kind, windows, deviations) = match specs[at] {
            SweepSpec::Ema { window } => (SweepKind::Ema, vec![window], None),
            SweepSpec::Rsi { window } => (SweepKind::Rsi, vec![window], None),
            SweepSpec::Macd { fast, slow, signal } => (SweepKind::Macd, vec![fast, slow, signal], None),
            SweepSpec::Atr { window } => (SweepKind::Atr, vec![window], None),
            SweepSpec::Bollinger { window, deviations } => {
                (SweepKind::Bollinger, vec![window], Some(deviations))
            }
        };
        let stretches = cuts[at];
        let job = match jobs.iter().position(|job| job.kind == kind && job.stretches == stretches) {
            Some(found) => &mut jobs[found],
            None => {
                let (places, windows, deviations) = (Vec::new(), Vec::new(), Vec::new());
                jobs.push(SweepJob { kind, stretches, places, windows, deviations });
                let last = jobs.len() - 1;
                &mut jobs[last]
            }
        };
        job.places.push(at as u32);
        job.windows.extend(windows);
        job.deviations.extend(deviations);
    }
    jobs
}

fn cells(found: &SweepCells, series: usize, each: usize) -> Vec<SweepCell> {
    let span = series * each..(series + 1) * each;
    let numbers = found.numbers[4 * span.start..4 * span.end].as_chunks::<4>().0;
    let counts = found.counts[5 * span.start..5 * span.end].as_chunks::<5>().0;
    let cell = |(&[a, b, c, gain], &[longs, shorts, judged, hits, last]): (&[f64; 4], &[i64; 5])| SweepCell {
        values: [a, b, c],
        longs: longs as u64,
        shorts: shorts as u64,
        judged: judged as u64,
        hits: hits as u64,
        gain,
        last_signal: usize::try_from(last).ok(),
    };
    numbers.iter().zip(counts).map(cell).collect()
}
