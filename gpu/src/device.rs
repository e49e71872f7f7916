//! Requests as a device takes them. Each result is put together from the device's numbers by the code that puts the CPU's
//! together, so that they are the same to the bit.

use crate::Cpu;
use crate::accel::Trouble;
use crate::changes::{ChangeBank, ChangeSteps};
use crate::correlation::{Correlation, EwCorrelation, RollingCorrelation, Spectrum};
use crate::hmm::{FitRequest, Fitted, HmmBank, Parameters};
use crate::options::{Estimate, OptionBatch};
use crate::philox::key_of;
use crate::qp::{LongOnlyBatch, LongOnlyFound, Problem, RELAXED};
use crate::risk::{RiskReport, RiskRequest};
use crate::spectrum::{Steps, lanczos, steps_max};
use crate::sweep::{SweepCell, SweepPath, SweepRequest};
use crate::window::WindowRequest;
use tidegate_cuda::{
    ChangeState, ChangeTables, Device, DeviceError, HmmFilterState, HmmParameters, LANES, PATH_CHUNK,
    PLAN_NUMBERS, PathBlock, QpBatch, QpProblem, RiskModel, RollRows, Spectra,
};

/// Paths launched at once: a multiple of the chunk, 128 MiB on the device.
const PATHS_AT_ONCE: u64 = 1 << 24;
/// Scenarios launched at once.
const SCENARIOS_AT_ONCE: usize = 1 << 22;

const _: () = assert!(PATHS_AT_ONCE.is_multiple_of(PATH_CHUNK) && PATH_CHUNK == crate::options::CHUNK);
const _: () = assert!(LANES == crate::lanes::LANES);

impl OptionBatch<'_> {
    pub(crate) fn run_on(&self, device: &Device) -> Result<Vec<Estimate>, Trouble> {
        self.check()?;
        let numbers: Vec<f64> = self.plans().iter().flat_map(crate::options::Plan::numbers).collect();
        let (to_end, to_mean) = self.scales();
        let each = numbers.len() / PLAN_NUMBERS;
        let mut chunks = Vec::new();
        for first in (0..self.paths).step_by(PATHS_AT_ONCE as usize) {
            let count = PATHS_AT_ONCE.min(self.paths - first);
            let (key, steps) = (key_of(self.seed), self.steps);
            let sums =
                device.payoffs(&PathBlock { first, count, steps, key, plans: &numbers, to_end, to_mean })?;
            chunks.extend(sums.chunks_exact(each * 2 * LANES).map(|chunk| {
                let fold = |lanes: &[f64]| lanes.iter().sum::<f64>();
                let plan = |sums: &[f64]| [fold(&sums[..LANES]), fold(&sums[LANES..])];
                chunk.chunks_exact(2 * LANES).map(plan).collect::<Vec<[f64; 2]>>()
            }));
        }
        Ok(self.estimates(&chunks))
    }
}

impl RiskRequest<'_> {
    pub(crate) fn run_on(&self, device: &Device, cpu: &Cpu) -> Result<RiskReport, Trouble> {
        self.report(Some(cpu), |model, losses| {
            let model = RiskModel {
                factors: model.factors,
                freedom: model.freedom(),
                loadings: &model.loadings,
                own: &model.own,
                weights: &model.weights,
                key: model.key,
            };
            for (at, losses) in losses.chunks_mut(SCENARIOS_AT_ONCE).enumerate() {
                device.losses(&model, (at * SCENARIOS_AT_ONCE) as u64, losses)?;
            }
            Ok(())
        })
    }
}

impl SweepRequest<'_> {
    pub(crate) fn run_on(&self, device: &Device, path: SweepPath) -> Result<Vec<Vec<SweepCell>>, Trouble> {
        self.check_for(path)?;
        match self.on_device(device, path) {
            // Half of the symbols at a time until they fit.
            Err(DeviceError::Memory { .. }) if self.series.len() > 1 => {
                let (one, other) = self.series.split_at(self.series.len() / 2);
                let mut found = SweepRequest { series: one, ..*self }.run_on(device, path)?;
                found.extend(SweepRequest { series: other, ..*self }.run_on(device, path)?);
                Ok(found)
            }
            found => Ok(found?),
        }
    }
}

impl EwCorrelation {
    pub(crate) fn run_on(&mut self, device: &Device, rows: &[f64]) -> Result<(), Trouble> {
        let count = self.check_rows(rows)?;
        let mut next = self.clone_means();
        let mut offsets = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(self.symbols()) {
            offsets.extend_from_slice(next.take(row));
        }
        // The first row of all is the first mean: nothing is added to the triangle.
        let skip = if self.rows() == 0 && count > 0 { self.symbols() } else { 0 };
        let (keep, add) = self.factors();
        let symbols = self.symbols();
        device.rank1(self.triangle_mut(), symbols, &offsets[skip..], keep, add)?;
        self.adopt(next);
        Ok(())
    }
}

impl RollingCorrelation {
    pub(crate) fn run_on(&mut self, device: &Device, rows: &[f64]) -> Result<(), Trouble> {
        let (symbols, window) = self.shape();
        let count = self.check_rows(rows)? as u32;
        self.take_with(rows, |history, seen, sums, next| {
            let rows = RollRows { history, symbols, window: window as u32, seen, count };
            Ok(device.roll(&rows, sums, next)?)
        })
    }
}

impl WindowRequest<'_> {
    pub(crate) fn run_on(&self, device: &Device) -> Result<Correlation, Trouble> {
        self.check()?;
        let (triangle, scales) = device.window(self.values, self.symbols)?;
        Ok(Correlation::whole(self.symbols, triangle.bring()?, &scales))
    }

    pub(crate) fn spectrum_on(&self, device: &Device, count: usize) -> Result<Spectrum, Trouble> {
        self.check()?;
        Correlation::check_leading(self.symbols, count)?;
        let (triangle, _) = device.window(self.values, self.symbols)?;
        lanczos(&mut triangle.spectra(steps_max(self.symbols, count))?, self.symbols, count)
    }
}

impl Correlation {
    pub(crate) fn leading_on(&self, device: &Device, count: usize) -> Result<Spectrum, Trouble> {
        Self::check_leading(self.symbols(), count)?;
        let triangle = device.triangle(self.triangle(), self.symbols())?;
        lanczos(&mut triangle.spectra(steps_max(self.symbols(), count))?, self.symbols(), count)
    }
}

impl Steps for Spectra<'_> {
    type Error = Trouble;

    fn begin(&mut self, start: &[f64]) -> Result<(), Trouble> {
        Ok(self.begin(start)?)
    }

    fn extend(&mut self, count: usize, _closed: f64) -> Result<Vec<(f64, f64)>, Trouble> {
        Ok(self.extend(count)?)
    }

    fn truncate(&mut self, vectors: usize) {
        self.truncate(vectors);
    }

    fn basis(&mut self, vectors: usize) -> Result<Vec<f64>, Trouble> {
        Ok(Spectra::basis(self, vectors)?)
    }
}

impl LongOnlyBatch<'_> {
    pub(crate) fn run_on(&self, device: &Device) -> Result<LongOnlyFound, Trouble> {
        let portfolios = self.check()?;
        let start = self.start(portfolios);
        let mut batch = device.qp_batch(&start.tilt, &start.wanted, &start.z, RELAXED)?;
        self.solve(portfolios, &mut batch)
    }
}

impl crate::qp::Steps for QpBatch<'_> {
    type Error = Trouble;

    fn load(&mut self, problem: &Problem) -> Result<(), Trouble> {
        let Problem { inverse, base, slope, rho, rescale } = problem;
        let problem = QpProblem { inverse, base, slope, rho: *rho, rescale: *rescale };
        Ok(self.load(&problem)?)
    }

    fn run(&mut self, steps: u32) -> Result<Vec<f32>, Trouble> {
        Ok(self.run(steps)?)
    }

    fn weights(&mut self) -> Result<Vec<f32>, Trouble> {
        Ok(QpBatch::weights(self)?)
    }
}

impl Parameters {
    fn to_device(&self) -> HmmParameters {
        let (initial, transition) = (self.initial.clone(), self.transition.clone());
        HmmParameters { initial, transition, means: self.means.clone(), deviations: self.deviations.clone() }
    }
}

impl HmmBank {
    pub(crate) fn run_on(&mut self, device: &Device, values: &[f64]) -> Result<(), Trouble> {
        let rows = self.check(values)?;
        let mut state = HmmFilterState {
            now: self.now.clone(),
            best: self.best.clone(),
            product: self.product.clone(),
            exponent: self.exponent.clone(),
        };
        device.hmm_filter(self.states(), &self.parameters.to_device(), &mut state, self.rows(), values)?;
        let HmmFilterState { now, best, product, exponent } = state;
        (self.now, self.best, self.product, self.exponent) = (now, best, product, exponent);
        self.rows += rows as u64;
        Ok(())
    }
}

impl FitRequest<'_> {
    pub(crate) fn run_on(&self, device: &Device) -> Result<Fitted, Trouble> {
        let rows = self.check()?;
        let (started, floors) = self.starts();
        // Restarts are independent, so as many go at once as the device has room for.
        let each = 8 * (rows * (2 * self.states + 1) + self.states * (self.states + 4)) as u64;
        let room = device.memory_free()? / 2 / each / self.series as u64;
        let at_once = usize::try_from(room).unwrap_or(usize::MAX).clamp(1, self.restarts);
        let mut found = started.empty();
        let mut likelihoods = Vec::with_capacity(started.models);
        for restart in (0..self.restarts).step_by(at_once) {
            let span = restart * self.series..(restart + at_once).min(self.restarts) * self.series;
            let mut part = started.part(span.clone()).to_device();
            let first = span.start as u64;
            likelihoods.extend(device.hmm_fit(
                self.states,
                &mut part,
                self.values,
                &floors,
                first,
                self.iterations,
            )?);
            let HmmParameters { initial, transition, means, deviations } = part;
            found.put(
                span.clone(),
                &Parameters { models: span.len(), initial, transition, means, deviations },
            );
        }
        Ok(self.choose(&found, &likelihoods))
    }
}

impl ChangeBank {
    pub(crate) fn run_on(&mut self, device: &Device, values: &[f64]) -> Result<ChangeSteps, Trouble> {
        let rows = self.check(values)?;
        if rows == 0 {
            return Ok(ChangeSteps::default());
        }
        let tables = ChangeTables {
            runs: self.options().runs,
            hazard: self.hazard(),
            prior: self.prior,
            tables: self.tables.clone(),
        };
        let mut state = ChangeState {
            chances: self.chances.clone(),
            means: self.means.clone(),
            betas: self.betas.clone(),
            ln_betas: self.ln_betas.clone(),
            evidences: self.evidences.clone(),
        };
        let (likeliest, recent) = device.change_points(&tables, &mut state, values)?;
        let ChangeState { chances, means, betas, ln_betas, evidences } = state;
        (self.chances, self.means, self.betas) = (chances, means, betas);
        (self.ln_betas, self.evidences) = (ln_betas, evidences);
        self.rows += rows as u64;
        Ok(ChangeSteps { likeliest, recent })
    }
}
