//! Which indicators of a sweep a device goes through stretch by stretch.
//!
//! Bar by bar a device has a thread per symbol and parameter, each of which goes through all bars: enough where symbols are many.
//! Where they are few and bars many, most of the device would stand idle; there a symbol's bars are cut into stretches with a thread
//! each. The bits are the same, so the choice is a matter of time alone.

use super::{SweepPath, SweepRequest, SweepSpec};
use crate::BatchError;
use tidegate_cuda::{STRETCH_STEP, Stretches};

/// Threads that fill a device: eight warps on each of 132 processors, roughly.
const LANES_FULL: u64 = 1 << 15;
/// Shortest stretch that is worth a thread of its own, in bars.
const LENGTH_LEAST: u64 = 1_024;
/// Bar by bar must take so many times the steps of one thread.
const WORTH: u64 = 4;

impl SweepPath {
    pub(super) fn check(self) -> Result<(), BatchError> {
        let Self::Stretches { length, .. } = self else { return Ok(()) };
        let fits = |length: f64| length > 0.0 && length % STRETCH_STEP as f64 == 0.0;
        BatchError::parameter("bars of a stretch", f64::from(length), fits, "a multiple of 256")
    }
}

/// Bars after which an indicator has forgotten the guess it began with, so that as a rule not a bit of it is left. A mean of
/// weight `k` shrinks a difference by `1 - k` a bar: 53 bits take `37 / k` bars, and the last one goes by chance.
fn forgets(spec: &SweepSpec) -> u64 {
    let exponential = |window: u32| 24 * (u64::from(window) + 1);
    match *spec {
        SweepSpec::Ema { window } => exponential(window),
        // The mean of the line begins to forget when both others have.
        SweepSpec::Macd { slow, signal, .. } => exponential(slow) + exponential(signal),
        SweepSpec::Rsi { window } | SweepSpec::Atr { window } => 48 * u64::from(window),
        // Sums are exact.
        SweepSpec::Bollinger { window, .. } => window.into(),
    }
}

/// For each spec how bars are cut, or that they are not.
pub(super) fn route(request: &SweepRequest<'_>, path: SweepPath) -> Vec<Option<Stretches>> {
    let specs = request.specs;
    let filled =
        |group: &[usize]| group.iter().map(|&at| specs[at].first_defined() as u64 + 1).max().unwrap_or(0);
    if let SweepPath::Stretches { length, warm } = path {
        let all: Vec<usize> = (0..specs.len()).collect();
        let shape = Stretches { length: length.into(), warm: warm.into(), filled: filled(&all) };
        return vec![Some(shape); specs.len()];
    }
    let mut found = vec![None; specs.len()];
    if path == SweepPath::Lanes {
        return found;
    }
    let bars =
        |of: fn(u64, u64) -> u64| request.series.iter().map(|series| series.close.len() as u64).fold(0, of);
    let (longest, total) = (bars(u64::max), bars(|sum, more| sum + more));
    // Parameters that take alike long to forget go together: all of a launch run up over the same bars.
    let class = |spec: &SweepSpec| (std::mem::discriminant(spec), forgets(spec).ilog2() / 2);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for at in 0..specs.len() {
        match groups.iter_mut().find(|group| class(&specs[group[0]]) == class(&specs[at])) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    for group in groups {
        let (symbols, count) = (request.series.len() as u64, group.len() as u64);
        let warm = group.iter().map(|&at| forgets(&specs[at])).max().unwrap_or(0);
        let length = warm.max(total * count / LANES_FULL).max(LENGTH_LEAST).next_multiple_of(STRETCH_STEP);
        let idle = symbols * count * 2 <= LANES_FULL;
        if idle && WORTH * (warm + length) <= longest {
            let shape = Stretches { length, warm, filled: filled(&group) };
            group.iter().for_each(|&at| found[at] = Some(shape));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::SweepSeries;
    use super::*;

    #[test]
    fn few_long_series_are_cut_and_many_or_short_ones_are_not() {
        let close = vec![1_000_000_000; 100_000];
        let whole = SweepSeries { high: &close, low: &close, close: &close };
        let short = SweepSeries { high: &close[..5_000], low: &close[..5_000], close: &close[..5_000] };
        let specs = [
            SweepSpec::Ema { window: 20 },
            SweepSpec::Ema { window: 22 },
            SweepSpec::Rsi { window: 14 },
            SweepSpec::Ema { window: 2_000 },
            SweepSpec::Bollinger { window: 20, deviations: 2.0 },
            SweepSpec::Macd { fast: 12, slow: 26, signal: 9 },
        ];
        let of = |series: &[SweepSeries<'_>], specs: &[SweepSpec], path| {
            route(&SweepRequest { series, specs, horizon: 1 }, path)
        };
        let found = of(&[whole, short], &specs, SweepPath::Automatic);
        let shape = |warm, filled| Some(Stretches { length: 1_024, warm, filled });
        // The mean of 2,000 bars forgets too late.
        let wanted = [shape(552, 22), shape(552, 22), shape(672, 15), None, shape(20, 20), shape(888, 34)];
        assert_eq!(found, wanted);
        assert_eq!(of(&[short; 3], &specs[..2], SweepPath::Automatic), [None, None]);
        assert_eq!(of(&[whole; 2], &specs[..2], SweepPath::Lanes), [None, None]);
        // Many symbols fill the device as they are; before that, stretches are as long as fills it.
        let many = vec![whole; 8_193];
        assert_eq!(of(&many, &specs[..2], SweepPath::Automatic), [None, None]);
        let found = of(&many[..100], &specs[..2], SweepPath::Automatic)[0].unwrap();
        assert_eq!((found.length, found.warm), (1_024, 552));
        assert_eq!(of(&many[..1_000], &specs[..2], SweepPath::Automatic)[0].unwrap().length, 6_144);
        let forced = SweepPath::Stretches { length: 512, warm: 7 };
        assert_eq!(of(&[short], &specs[..1], forced), [Some(Stretches { length: 512, warm: 7, filled: 20 })]);
        for length in [0, 100, 257] {
            let error = SweepPath::Stretches { length, warm: 0 }.check().unwrap_err().to_string();
            assert_eq!(error, format!("bars of a stretch is {length}; allowed is a multiple of 256"));
        }
    }
}
