//! The recurrences, a parameter per lane.

use super::crossing;
use super::exact::{self, UNIT};
use super::{SweepCell, SweepSeries, SweepSpec};
use crate::lanes::{LANES, widest};

/// Averages below this are zero, as in the streaming indicators.
const NOTHING: f64 = 1e-100;
const OVERSOLD: f64 = 30.0;
const OVERBOUGHT: f64 = 70.0;

/// One symbol's bars as the recurrences read them.
pub(super) struct Bars<'a> {
    pub(super) close: &'a [i64],
    /// Closes in the quote currency.
    pub(super) price: Vec<f64>,
    /// Rises and falls of the close, in price units. Only where an RSI asks.
    pub(super) up: Vec<f64>,
    pub(super) down: Vec<f64>,
    /// True ranges and changes of the close. Only where an ATR asks.
    pub(super) range: Vec<f64>,
    pub(super) change: Vec<f64>,
    /// Return from this close to the one `horizon` later, where there is one.
    pub(super) ahead: Vec<f64>,
}

impl<'a> Bars<'a> {
    pub(super) fn new(series: &SweepSeries<'a>, horizon: usize, specs: &[SweepSpec]) -> Self {
        let close = series.close;
        let price: Vec<f64> = close.iter().map(|&close| close as f64 / UNIT).collect();
        let ahead =
            price.iter().zip(price.iter().skip(horizon)).map(|(now, then)| then / now - 1.0).collect();
        let wanted = |wants: fn(&SweepSpec) -> bool| if specs.iter().any(wants) { close.len() } else { 0 };
        let rsi = wanted(|spec| matches!(spec, SweepSpec::Rsi { .. }));
        let atr = wanted(|spec| matches!(spec, SweepSpec::Atr { .. }));
        let previous = |at: usize| close[at.saturating_sub(1)];
        let moved = |at: usize| close[at].abs_diff(previous(at)) as f64;
        Self {
            close,
            up: (0..rsi).map(|at| if close[at] > previous(at) { moved(at) } else { 0.0 }).collect(),
            down: (0..rsi).map(|at| if close[at] > previous(at) { 0.0 } else { moved(at) }).collect(),
            range: (0..atr).map(|at| reach(series.high[at], series.low[at], previous(at))).collect(),
            change: (0..atr).map(|at| price[at] - price[at.saturating_sub(1)]).collect(),
            price,
            ahead,
        }
    }
}

/// True range of a bar after one that closed at `before`.
#[inline(always)]
pub(super) fn reach(high: i64, low: i64, before: i64) -> f64 {
    let range = high.abs_diff(low).max(high.abs_diff(before)).max(low.abs_diff(before));
    wide(range) / UNIT
}

/// As the streaming indicators convert it.
fn wide(value: u64) -> f64 {
    i64::try_from(value).map_or(value as f64, |small| small as f64)
}

/// Signals of one indicator so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    longs: u64,
    shorts: u64,
    judged: u64,
    hits: u64,
    gain: f64,
    last: Option<usize>,
}

impl Tally {
    /// A bar's signal: 1 long, -1 short, 0 none.
    pub(super) fn signal(&mut self, bars: &Bars<'_>, at: usize, event: f64) {
        if event == 0.0 {
            return;
        }
        self.longs += u64::from(event > 0.0);
        self.shorts += u64::from(event < 0.0);
        self.last = Some(at);
        if let Some(ahead) = bars.ahead.get(at) {
            self.judged += 1;
            self.hits += u64::from(event * ahead > 0.0);
            self.gain += event * ahead;
        }
    }

    pub(super) fn cell(self, values: [f64; 3]) -> SweepCell {
        let Self { longs, shorts, judged, hits, gain, last } = self;
        SweepCell { values, longs, shorts, judged, hits, gain, last_signal: last }
    }
}

/// What to run, cut into parts of lanes of one kind.
pub(super) struct Groups(Vec<Part>);

/// Indicators of one kind, side by side, and their places among the specs.
pub(super) struct Part {
    places: Vec<usize>,
    specs: Vec<SweepSpec>,
}

impl Groups {
    pub(super) fn new(specs: &[SweepSpec]) -> Self {
        let kind = |spec: &SweepSpec| match spec {
            SweepSpec::Ema { .. } => 0,
            SweepSpec::Rsi { .. } => 1,
            SweepSpec::Macd { .. } => 2,
            SweepSpec::Atr { .. } => 3,
            SweepSpec::Bollinger { .. } => 4,
        };
        // Neighbours warm up at about the same time, so that few bars run the slow way.
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by_key(|&at| (kind(&specs[at]), specs[at].first_defined(), at));
        let mut parts: Vec<Part> = Vec::new();
        for at in order {
            let spec = specs[at];
            let width = match kind(&spec) {
                0 => crossing::WIDE,
                4 => 1,
                _ => LANES,
            };
            match parts.last_mut() {
                Some(part) if part.specs.len() < width && kind(&part.specs[0]) == kind(&spec) => {
                    part.places.push(at);
                    part.specs.push(spec);
                }
                _ => parts.push(Part { places: vec![at], specs: vec![spec] }),
            }
        }
        Self(parts)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl Part {
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    pub(super) fn run(&self, bars: &Bars<'_>) -> Vec<SweepCell> {
        let specs = &self.specs;
        match specs[0] {
            SweepSpec::Ema { .. } => crossing::run(bars, specs),
            SweepSpec::Rsi { .. } => {
                let window = spread(specs, |spec| match spec {
                    SweepSpec::Rsi { window } => *window,
                    _ => 1,
                });
                drive(
                    Rsi {
                        wilder: Wilder::new(window),
                        gain: ZERO,
                        loss: ZERO,
                        low: ZERO,
                        high: ZERO,
                        value: ZERO,
                    },
                    bars,
                    specs,
                )
            }
            SweepSpec::Macd { .. } => {
                let pick = |which: usize| {
                    spread(specs, move |spec| match spec {
                        SweepSpec::Macd { fast, slow, signal } => [*fast, *slow, *signal][which],
                        _ => 1,
                    })
                };
                let windows = [pick(0), pick(1), pick(2)];
                let k = [k_of(&windows[0]), k_of(&windows[1]), k_of(&windows[2])];
                drive(Macd { windows, k, held: [ZERO; 3], line: ZERO, above: ZERO }, bars, specs)
            }
            SweepSpec::Atr { .. } => {
                let window = spread(specs, |spec| match spec {
                    SweepSpec::Atr { window } => *window,
                    _ => 1,
                });
                drive(Atr { wilder: Wilder::new(window), held: ZERO }, bars, specs)
            }
            SweepSpec::Bollinger { .. } => specs.iter().map(|spec| exact::run(bars, spec)).collect(),
        }
    }
}

type Row = [f64; LANES];
const ZERO: Row = [0.0; LANES];

/// A parameter of every lane, lanes to spare taking the last one's.
fn spread(specs: &[SweepSpec], of: impl Fn(&SweepSpec) -> u32) -> Row {
    std::array::from_fn(|lane| f64::from(of(&specs[lane.min(specs.len() - 1)])))
}

fn k_of(window: &Row) -> Row {
    window.map(|window| 2.0 / (window + 1.0))
}

/// A recurrence over lanes. `WARM` says that lanes may still be filling up, and `index` then counts from 0.
trait Recurrence: Copy {
    /// Takes bar `at` and returns each lane's signal: 1 long, -1 short, 0 none.
    fn step<const WARM: bool>(&mut self, bars: &Bars<'_>, at: usize) -> Row;
    fn values(&self, lane: usize) -> [f64; 3];
}

#[inline(always)]
pub(super) fn settle(average: f64) -> f64 {
    if average.abs() < NOTHING { 0.0 } else { average }
}

#[inline(always)]
pub(super) fn exponential<const WARM: bool>(held: f64, value: f64, index: f64, window: f64, k: f64) -> f64 {
    if !WARM || index >= window {
        (value - held) * k + held
    } else if index + 1.0 == window {
        (held + value) / window
    } else {
        held + value
    }
}

/// Relative strength from the means of rises and falls in 1e-9.
#[inline(always)]
pub(super) fn strength(gain: f64, loss: f64) -> f64 {
    let total = gain + loss;
    if total < 1e-14 * UNIT { 0.0 } else { 100.0 * (gain / total) }
}

#[inline(always)]
fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

/// Constants of Wilder's mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wilder {
    window: Row,
    less: Row,
    share: Row,
}

impl Wilder {
    pub(super) fn new(window: Row) -> Self {
        Self { window, less: window.map(|window| window - 1.0), share: window.map(|window| 1.0 / window) }
    }

    #[inline(always)]
    pub(super) fn mean<const WARM: bool>(&self, lane: usize, held: f64, value: f64, index: f64) -> f64 {
        if !WARM || index >= self.window[lane] {
            settle((held * self.less[lane] + value) * self.share[lane])
        } else if index + 1.0 == self.window[lane] {
            (held + value) / self.window[lane]
        } else {
            held + value
        }
    }
}

#[derive(Clone, Copy)]
struct Rsi {
    wilder: Wilder,
    gain: Row,
    loss: Row,
    low: Row,
    high: Row,
    value: Row,
}

impl Recurrence for Rsi {
    #[inline(always)]
    fn step<const WARM: bool>(&mut self, bars: &Bars<'_>, at: usize) -> Row {
        let mut event = ZERO;
        if WARM && at == 0 {
            return event;
        }
        let (up, down, index) = (bars.up[at], bars.down[at], at as f64);
        for lane in 0..LANES {
            let gain = self.wilder.mean::<WARM>(lane, self.gain[lane], up, index - 1.0);
            let loss = self.wilder.mean::<WARM>(lane, self.loss[lane], down, index - 1.0);
            self.gain[lane] = gain;
            self.loss[lane] = loss;
            let value = strength(gain, loss);
            let (low, high) = (flag(value <= OVERSOLD), flag(value >= OVERBOUGHT));
            event[lane] = self.low[lane] * (1.0 - low) - self.high[lane] * (1.0 - high);
            self.low[lane] = low;
            self.high[lane] = high;
            self.value[lane] = value;
            if WARM && index <= self.wilder.window[lane] {
                event[lane] = 0.0;
            }
        }
        event
    }

    fn values(&self, lane: usize) -> [f64; 3] {
        [self.value[lane], f64::NAN, f64::NAN]
    }
}

#[derive(Clone, Copy)]
struct Macd {
    windows: [Row; 3],
    k: [Row; 3],
    /// Fast mean, slow mean, mean of the line.
    held: [Row; 3],
    line: Row,
    above: Row,
}

impl Recurrence for Macd {
    #[inline(always)]
    fn step<const WARM: bool>(&mut self, bars: &Bars<'_>, at: usize) -> Row {
        let (close, index) = (bars.price[at], at as f64);
        let mut event = ZERO;
        for lane in 0..LANES {
            let [fast, slow, signal] = [0, 1, 2].map(|which| self.windows[which][lane]);
            let [kf, ks, kl] = [0, 1, 2].map(|which| self.k[which][lane]);
            let held_slow = exponential::<WARM>(self.held[1][lane], close, index, slow, ks);
            let late = index - (slow - fast); // the fast seed ends where the slow one does
            let mut held_fast = exponential::<WARM>(self.held[0][lane], close, late, fast, kf);
            if WARM && late < 0.0 {
                held_fast = 0.0;
            }
            let line = held_fast - held_slow;
            let since = index - (slow - 1.0);
            let mut mean = settle(exponential::<WARM>(self.held[2][lane], line, since, signal, kl));
            if WARM && since < 0.0 {
                mean = 0.0;
            }
            self.held[0][lane] = held_fast;
            self.held[1][lane] = held_slow;
            self.held[2][lane] = mean;
            self.line[lane] = line;
            let above = flag(line - mean > 0.0);
            event[lane] = above - self.above[lane];
            self.above[lane] = above;
            if WARM && since < signal {
                event[lane] = 0.0;
            }
        }
        event
    }

    fn values(&self, lane: usize) -> [f64; 3] {
        let (line, mean) = (self.line[lane], self.held[2][lane]);
        [line, mean, line - mean]
    }
}

#[derive(Clone, Copy)]
struct Atr {
    wilder: Wilder,
    held: Row,
}

impl Recurrence for Atr {
    #[inline(always)]
    fn step<const WARM: bool>(&mut self, bars: &Bars<'_>, at: usize) -> Row {
        let mut event = ZERO;
        if WARM && at == 0 {
            return event;
        }
        let (range, change, index) = (bars.range[at], bars.change[at], at as f64);
        for lane in 0..LANES {
            let held = self.wilder.mean::<WARM>(lane, self.held[lane], range, index - 1.0);
            self.held[lane] = held;
            event[lane] = flag(change > held) - flag(change < -held);
            if WARM && index < self.wilder.window[lane] {
                event[lane] = 0.0;
            }
        }
        event
    }

    fn values(&self, lane: usize) -> [f64; 3] {
        [self.held[lane], f64::NAN, f64::NAN]
    }
}

/// Signals of every lane so far; counts are whole numbers, which doubles hold exactly.
#[derive(Clone, Copy)]
struct Tallies {
    events: Row,
    net: Row,
    judged: Row,
    hits: Row,
    gain: Row,
    last: Row,
}

/// Runs all bars: those on which some lane still warms up, those that can be judged, and the rest.
fn drive<R: Recurrence>(mut state: R, bars: &Bars<'_>, specs: &[SweepSpec]) -> Vec<SweepCell> {
    let count = bars.price.len();
    // One more, as on its first defined bar an indicator only takes its stand.
    let warm = specs.iter().map(SweepSpec::first_defined).max().unwrap_or(0).saturating_add(1).min(count);
    let mut tally =
        Tallies { events: ZERO, net: ZERO, judged: ZERO, hits: ZERO, gain: ZERO, last: [-1.0; LANES] };
    widest(
        #[inline(always)]
        || {
            let judged = bars.ahead.len();
            // Local copies: registers, not memory that might alias.
            let (mut own, mut sums) = (state, tally);
            for at in 0..warm {
                let event = own.step::<true>(bars, at);
                let ahead = bars.ahead.get(at).copied();
                sums.add(&event, ahead.unwrap_or(0.0), at);
                if ahead.is_some() {
                    sums.judged = sums.events;
                }
            }
            for at in warm..judged.max(warm) {
                let event = own.step::<false>(bars, at);
                sums.add(&event, bars.ahead[at], at);
            }
            if judged > warm {
                sums.judged = sums.events;
            }
            for at in judged.max(warm)..count {
                let event = own.step::<false>(bars, at);
                sums.add(&event, 0.0, at);
            }
            (state, tally) = (own, sums);
        },
    );
    let cell = |(lane, spec): (usize, &SweepSpec)| {
        let defined = count > spec.first_defined();
        let values = if defined { state.values(lane) } else { [f64::NAN; 3] };
        let (events, net) = (tally.events[lane], tally.net[lane]);
        SweepCell {
            values,
            longs: ((events + net) / 2.0) as u64,
            shorts: ((events - net) / 2.0) as u64,
            judged: tally.judged[lane] as u64,
            hits: tally.hits[lane] as u64,
            gain: tally.gain[lane],
            last_signal: (tally.last[lane] >= 0.0).then(|| tally.last[lane] as usize),
        }
    };
    specs.iter().enumerate().map(cell).collect()
}

impl Tallies {
    #[inline(always)]
    fn add(&mut self, event: &Row, ahead: f64, at: usize) {
        let bar = at as f64;
        for lane in 0..LANES {
            let event = event[lane];
            let gain = event * ahead;
            self.events[lane] += event.abs();
            self.net[lane] += event;
            self.gain[lane] += gain;
            self.hits[lane] += flag(gain > 0.0);
            self.last[lane] = if event == 0.0 { self.last[lane] } else { bar };
        }
    }
}
