//! What is computed of all symbols at once, at each step: the cross-section, and the risk of a portfolio.

use super::DEVICE_LONGEST;
use super::steps::Steps;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidegate_gpu::Accel;
use tidegate_gpu::risk::{RiskRequest, Tail};
use tidegate_regime::cross::{MEMORY, regime};
use tidegate_regime::{CrossOptions, CrossReading, CrossSection};

// What `config check` asks that a restart brings back is what is asked of the steps here.
const _: () = assert!(tidegate_config::derived::LABEL_READINGS as usize == MEMORY);

/// What a step gives.
pub(super) enum Cross {
    Spectrum(Spectrum),
    Risk(RiskOf),
}

/// Correlations, and what their last readings are like together.
pub(super) struct Spectrum {
    options: CrossOptions,
    /// The last steps that were read, oldest first. What is not here is read again: a reading follows from the steps alone.
    readings: VecDeque<(u64, Option<CrossReading>)>,
}

/// A portfolio and how its risk is simulated.
pub(super) struct RiskOf {
    /// Shares by symbol; without them all have the same.
    pub(super) weights: Option<BTreeMap<String, f64>>,
    pub(super) horizon_bars: f64,
    pub(super) window: usize,
    pub(super) factors: usize,
    pub(super) tail: Tail,
    pub(super) levels: Vec<f64>,
    pub(super) paths: u64,
    pub(super) seed: u64,
}

/// Whether it says something, how many rows of returns it is of, and what it says.
pub(super) type Row = Vec<f64>;

impl Cross {
    /// Steps that must be known for it.
    pub(super) fn steps(&self) -> usize {
        match self {
            // A row of returns is between two steps, and turbulence is of the newest against the window before it.
            // Then there are as many such as a label is of.
            Self::Spectrum(of) => of.options.rows + 2 + MEMORY - 1,
            Self::Risk(risk) => risk.window + 1,
        }
    }

    /// Steps computed at once at most: of more only the newest are.
    pub(super) fn steps_at_once(&self) -> usize {
        match self {
            Self::Spectrum(_) => 256,
            Self::Risk(_) => 8,
        }
    }

    /// The row of the newest complete step, of so many columns.
    pub(super) fn row(&mut self, steps: &Steps, columns: usize, backend: &Arc<Accel>) -> Result<Row, String> {
        let times = steps.last(self.steps());
        let (known, found) = match self {
            Self::Spectrum(of) => {
                (times.len().saturating_sub(1).min(of.options.rows), of.row(steps, &times)?)
            }
            Self::Risk(risk) => {
                let known = times.len().saturating_sub(1);
                (known, if known == risk.window { risk.row(steps, &times, backend)? } else { None })
            }
        };
        let mut row = vec![f64::from(u8::from(found.is_some())), known as f64];
        row.extend(found.unwrap_or_default());
        row.resize(columns, f64::NAN);
        Ok(row)
    }
}

/// Rows of log returns between the steps, symbol beside symbol.
fn returns(steps: &Steps, times: &[u64]) -> (usize, Vec<f64>) {
    let symbols = steps.prices(&[]).count();
    let mut rows = vec![f64::NAN; symbols * times.len().saturating_sub(1)];
    for (at, (_, prices)) in steps.prices(times).enumerate() {
        let mut before = f64::NAN;
        for (row, price) in prices.enumerate() {
            if let Some(row) = row.checked_sub(1) {
                rows[row * symbols + at] = libm::log(price / before);
            }
            before = price;
        }
    }
    (symbols, rows)
}

impl Spectrum {
    pub(super) fn new(options: CrossOptions) -> Self {
        Self { options, readings: VecDeque::with_capacity(MEMORY) }
    }

    /// The row of the last of these steps; `None` while fewer than two symbols have moved.
    fn row(&mut self, steps: &Steps, times: &[u64]) -> Result<Option<Row>, String> {
        // A row of returns is between two steps, and turbulence is of the newest against the window before it.
        let window = self.options.rows + 2;
        let first = times.len().saturating_sub(MEMORY);
        let oldest = times.get(first).copied().unwrap_or(0);
        while self.readings.front().is_some_and(|(time, _)| *time < oldest) {
            self.readings.pop_front();
        }
        let mut last = Vec::with_capacity(MEMORY);
        for (at, &time) in times.iter().enumerate().skip(first) {
            let known = self.readings.iter().find(|(of, _)| *of == time).map(|(_, reading)| *reading);
            last.push((
                time,
                match known {
                    Some(reading) => reading,
                    None => reading(self.options, steps, &times[(at + 1).saturating_sub(window)..=at])?,
                },
            ));
        }
        self.readings = last.into();
        let Some((_, Some(newest))) = self.readings.back() else { return Ok(None) };
        let CrossReading { symbols, correlation, mode_share, effective_rank, absorption, turbulence } =
            *newest;
        let readings: Vec<CrossReading> = self.readings.iter().filter_map(|(_, reading)| *reading).collect();
        let regime = regime(&readings).map_err(|error| error.to_string())?;
        Ok(Some(vec![
            symbols as f64,
            correlation,
            mode_share,
            effective_rank,
            absorption,
            turbulence.unwrap_or(f64::NAN),
            regime.map_or(f64::NAN, |regime| f64::from(regime.label.number())),
            regime.map_or(f64::NAN, |regime| regime.change_probability),
        ]))
    }
}

/// What the last of these steps shows; `None` while the window is not full, or fewer than two symbols have moved.
fn reading(options: CrossOptions, steps: &Steps, times: &[u64]) -> Result<Option<CrossReading>, String> {
    if times.len() <= options.rows {
        return Ok(None);
    }
    let (symbols, rows) = returns(steps, times);
    if symbols < 2 {
        return Ok(None);
    }
    let mut cross = CrossSection::new(symbols, options).map_err(|error| error.to_string())?;
    let Some((newest, older)) = rows.len().checked_sub(symbols).map(|at| (&rows[at..], &rows[..at])) else {
        return Ok(None);
    };
    for row in older.chunks_exact(symbols) {
        cross.take(row).map_err(|error| error.to_string())?;
    }
    cross.update(newest).map_err(|error| error.to_string())
}

impl RiskOf {
    /// `None` while a symbol with a share has no price at the window's beginning; without shares those that have none are left
    /// out.
    fn row(&self, steps: &Steps, times: &[u64], backend: &Arc<Accel>) -> Result<Option<Row>, String> {
        let mut weights = Vec::new();
        let mut columns: Vec<Vec<f64>> = Vec::new();
        let mut missing = self.weights.as_ref().map_or(0, BTreeMap::len);
        for (name, prices) in steps.prices(times) {
            let share = match &self.weights {
                Some(weights) => match weights.get(name) {
                    Some(&share) => share,
                    None => continue,
                },
                None => 1.0,
            };
            let prices: Vec<f64> = prices.collect();
            if prices.iter().any(|price| price.is_nan()) {
                continue;
            }
            missing = missing.saturating_sub(1);
            weights.push(share);
            columns.push(prices.windows(2).map(|pair| libm::log(pair[1] / pair[0])).collect());
        }
        if missing > 0 || columns.is_empty() {
            return Ok(None);
        }
        let assets = columns.len();
        if self.weights.is_none() {
            weights.fill(1.0 / assets as f64);
        }
        let returns: Vec<f64> =
            (0..self.window).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
        let request = RiskRequest {
            returns: &returns,
            weights: &weights,
            factors: self.factors.min(assets),
            horizon_bars: self.horizon_bars,
            paths: self.paths,
            tail: self.tail,
            levels: &self.levels,
            seed: self.seed,
        };
        let report = backend.risk_within(&request, DEVICE_LONGEST).map_err(|error| error.to_string())?;
        let mut row = vec![assets as f64, report.explained.iter().sum(), report.deviation, report.worst];
        for level in &report.levels {
            let (low, high) = level.var_interval;
            row.extend([level.var, low, high, level.shortfall, level.shortfall_error]);
        }
        Ok(Some(row))
    }
}
