//! Classes that look at all rows at once, time step by time step: the spectrum of correlations, and risk.

use crate::lane::{Answer, Ask, Lane, Said};
use crate::route::{Place, Route};
use crate::slab::{STEP, Slab, Task};
use crate::spec::SPARE_STEPS;
use crate::stats::{Counts, add};
use crate::steps::Steps;
use crate::worker::{Class, late_after};
use crate::{BatcherError, Derived, Options, RiskSpec, SpectrumSpec};
use std::sync::Arc;
use std::time::Instant;
use tidegate_gpu::Backend;
use tidegate_gpu::risk::RiskReport;
use tidegate_regime::{CrossReading, CrossSection};

/// Takes the windows of a slab and calls `ended` at the end of each step, with whether its result is wanted, and whether the
/// returns of earlier steps have changed.
fn each_step(
    steps: &mut Steps,
    slab: &mut Slab,
    counts: &Counts,
    mut ended: impl FnMut(&Steps, &mut Slab, bool, bool),
) {
    for at in 0..slab.len() {
        let entry = slab.entry(at);
        if entry.slot != STEP {
            if !steps.take(&entry) {
                add(&counts.too_late, 1);
            }
            continue;
        }
        let changed = steps.settle();
        let there = steps.end() == Some(entry.time);
        ended(steps, slab, there && entry.task == Task::Result, changed);
    }
}

pub(crate) struct Spectrum {
    steps: Steps,
    cross: CrossSection,
    rows: usize,
    leading: usize,
    /// Steps the cross-section has taken.
    fed: u64,
}

impl Spectrum {
    pub(crate) fn new(name: &str, members: usize, spec: &SpectrumSpec) -> Result<Self, BatcherError> {
        let cross = CrossSection::new(members, spec.options)
            .map_err(|error| BatcherError::Spectrum { class: name.to_owned(), error })?;
        let rows = spec.options.rows;
        let steps = Steps::new(members, rows + SPARE_STEPS);
        Ok(Self { steps, cross, rows, leading: spec.leading, fed: 0 })
    }
}

impl Class for Spectrum {
    fn run(&mut self, slab: &mut Slab, _lane: &Lane, counts: &Counts) {
        let Self { steps, cross, rows, leading, fed } = self;
        each_step(steps, slab, counts, |steps, slab, wanted, changed| {
            let (seen, members) = (steps.seen(), cross.symbols());
            if changed || seen != *fed + 1 {
                // Earlier rows are others now: all of the window anew, but for the newest.
                let before = seen.saturating_sub(1);
                let newest = steps.newest(*rows + 1);
                let kept = &newest[..newest.len().saturating_sub(members)];
                let skip = (kept.len() / members).saturating_sub(*rows) * members;
                if let Err(error) = cross.refill(before, &kept[skip..]) {
                    return counts.error(&error);
                }
            }
            *fed = seen;
            if seen == 0 {
                return;
            }
            let row = steps.newest(1);
            if !wanted {
                if let Err(error) = cross.take(row) {
                    counts.error(&error);
                }
                return;
            }
            match cross.update(row) {
                Err(error) => counts.error(&error),
                Ok(None) => {}
                Ok(Some(reading)) => {
                    let CrossReading {
                        symbols,
                        correlation,
                        mode_share,
                        effective_rank,
                        absorption,
                        turbulence,
                    } = reading;
                    let line = slab.line(None, steps.end().unwrap_or_default());
                    let turbulence = turbulence.unwrap_or(f64::NAN);
                    let fixed =
                        [symbols as f64, correlation, mode_share, effective_rank, absorption, turbulence];
                    line[..fixed.len()].copy_from_slice(&fixed);
                    for (value, found) in
                        line[fixed.len()..].iter_mut().zip(cross.eigenvalues().iter().take(*leading))
                    {
                        *value = *found;
                    }
                }
            }
        });
    }
}

pub(crate) struct Risk {
    steps: Steps,
    spec: Arc<RiskSpec>,
    route: Route,
    /// Returns on their way to the device.
    asked: Option<Vec<f64>>,
    options: Options,
}

impl Risk {
    pub(crate) fn new(members: usize, spec: &RiskSpec, options: &Options) -> Self {
        Self {
            steps: Steps::new(members, spec.history + SPARE_STEPS),
            spec: Arc::new(spec.clone()),
            route: Route::new(options.routing),
            asked: Some(Vec::new()),
            options: options.clone(),
        }
    }
}

/// The report of these returns, and where it was computed.
fn report(
    spec: &Arc<RiskSpec>,
    returns: &[f64],
    (route, asked, options): (&mut Route, &mut Option<Vec<f64>>, &Options),
    lane: &Lane,
    counts: &Counts,
) -> Option<(RiskReport, Derived)> {
    if route.choose(1, lane.free()) == Place::Device {
        let mut copy = asked.take().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(returns);
        let began = Instant::now();
        let ask = Ask::Risk { returns: copy, spec: Arc::clone(spec) };
        let (ask, answer) = lane.ask(ask, late_after(options, route.on_device(1)));
        if let Some(Ask::Risk { returns, .. }) = ask {
            *asked = Some(returns);
        }
        match answer {
            Answer::Done(Said::Report(report)) => {
                route.took(Place::Device, 1, began.elapsed());
                add(&counts.on_device, 1);
                return Some((report, Derived::DEVICE));
            }
            Answer::Busy => {}
            Answer::Late => {
                add(&counts.late, 1);
                add(&counts.recomputed, 1);
            }
            Answer::Done(_) | Answer::Failed => add(&counts.recomputed, 1),
        }
    }
    let began = Instant::now();
    match lane.accel().cpu().risk(&spec.request(returns)) {
        Ok(report) => {
            route.took(Place::Cpu, 1, began.elapsed());
            Some((report, Derived::CPU))
        }
        Err(error) => {
            counts.error(&error);
            None
        }
    }
}

impl Class for Risk {
    fn run(&mut self, slab: &mut Slab, lane: &Lane, counts: &Counts) {
        let Self { steps, spec, route, asked, options } = self;
        let members = spec.weights.len();
        each_step(steps, slab, counts, |steps, slab, wanted, _| {
            let returns = steps.whole(spec.history);
            let rows = returns.len() / members;
            if !wanted || rows < spec.least {
                return;
            }
            let Some((report, derived)) = report(spec, returns, (route, asked, options), lane, counts) else {
                return;
            };
            slab.derived = derived;
            let line = slab.line(None, steps.end().unwrap_or_default());
            let mut values = line.iter_mut();
            let mut put = |value: f64| {
                if let Some(place) = values.next() {
                    *place = value;
                }
            };
            [rows as f64, report.mean, report.deviation, report.worst].into_iter().for_each(&mut put);
            report.explained.iter().copied().for_each(&mut put);
            for level in &report.levels {
                let (low, high) = level.var_interval;
                let level_values = [level.var, low, high, level.shortfall, level.shortfall_error];
                level_values.into_iter().for_each(&mut put);
                level.parts.iter().copied().for_each(&mut put);
            }
        });
    }
}
