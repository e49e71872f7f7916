//! Exponential means of many windows over one symbol: where the close crosses them, and what that was worth.
//!
//! A lane per window, wide enough that one lane's recurrence need not wait for the last bar's. What a bar does to the counts
//! is done with masks: a crossing is seldom, but which lane has one no branch can foretell.

use super::kernels::Bars;
use super::{SweepCell, SweepSpec};
use crate::lanes::widest;

/// Windows side by side: four of the widest registers of doubles.
pub(super) const WIDE: usize = 32;
const SIGN: u64 = 1 << 63;

/// All ones where a lane says yes.
type Masks = [u64; WIDE];

#[derive(Clone, Copy)]
struct Lanes {
    k: [f64; WIDE],
    held: [f64; WIDE],
    above: Masks,
    events: Masks,
    hits: Masks,
    gain: [f64; WIDE],
    last: Masks,
}

/// Means of one kind, at most [`WIDE`] of them.
pub(super) fn run(bars: &Bars<'_>, specs: &[SweepSpec]) -> Vec<SweepCell> {
    let count = bars.price.len();
    let window = |lane: usize| match specs[lane.min(specs.len() - 1)] {
        SweepSpec::Ema { window } => window as usize,
        _ => unreachable!("only exponential means are run here"),
    };
    let windows: [usize; WIDE] = std::array::from_fn(window);
    let mut lanes = Lanes {
        k: windows.map(|window| 2.0 / (window as f64 + 1.0)),
        held: [0.0; WIDE],
        above: [0; WIDE],
        events: [0; WIDE],
        hits: [0; WIDE],
        gain: [0.0; WIDE],
        last: [0; WIDE],
    };
    // Where each lane took its stand, and its events that could be judged.
    let (mut stood, mut judged) = ([0; WIDE], [0; WIDE]);
    let warm = windows.iter().copied().max().unwrap_or(0).min(count);
    for lane in 0..WIDE {
        lanes.warm(lane, windows[lane], warm, bars, &mut stood[lane], &mut judged[lane]);
    }
    let end = bars.ahead.len().max(warm);
    lanes.take(&bars.price[warm..end], bars.ahead.get(warm..).unwrap_or_default(), warm as u64);
    if bars.ahead.len() > warm {
        judged = lanes.events;
    }
    lanes.take(&bars.price[end..], &[], end as u64);
    let cell = |(lane, spec): (usize, &SweepSpec)| {
        // Crossings alternate, so the number of rises follows from where it stood first and stands last.
        let events = lanes.events[lane];
        let net = (lanes.above[lane] & 1) as i64 - (stood[lane] & 1) as i64;
        let longs = (events as i64 + net) as u64 / 2;
        let defined = count > spec.first_defined();
        SweepCell {
            values: [if defined { lanes.held[lane] } else { f64::NAN }, f64::NAN, f64::NAN],
            longs,
            shorts: events - longs,
            judged: judged[lane],
            hits: lanes.hits[lane],
            gain: lanes.gain[lane],
            last_signal: (events > 0).then_some(lanes.last[lane] as usize),
        }
    };
    specs.iter().enumerate().map(cell).collect()
}

impl Lanes {
    /// One lane through the bars up to `warm`, on the first of which it still fills up.
    fn warm(
        &mut self,
        lane: usize,
        window: usize,
        warm: usize,
        bars: &Bars<'_>,
        stood: &mut u64,
        judged: &mut u64,
    ) {
        let (mut held, mut above) = (0.0, 0);
        for (at, &close) in bars.price[..warm].iter().enumerate() {
            held = if at >= window {
                (close - held) * self.k[lane] + held
            } else if at + 1 == window {
                (held + close) / window as f64
            } else {
                held + close
            };
            let now = if close > held { u64::MAX } else { 0 };
            if at < window {
                *stood = now;
            } else if now != above {
                let ahead = bars.ahead.get(at).copied();
                let gain = ahead.map_or(0.0, |ahead| if now != 0 { ahead } else { -ahead });
                self.events[lane] += 1;
                self.hits[lane] += u64::from(gain > 0.0);
                self.gain[lane] += gain;
                self.last[lane] = at as u64;
                *judged += u64::from(ahead.is_some());
            }
            above = now;
        }
        (self.held[lane], self.above[lane]) = (held, above);
    }

    /// All lanes through bars on which all are defined; a bar without a return ahead is not judged.
    fn take(&mut self, price: &[f64], ahead: &[f64], first: u64) {
        let mut own = *self;
        widest(
            #[inline(always)]
            || {
                // A local copy: registers, not memory that might alias.
                let mut lanes = own;
                for (at, &close) in price.iter().enumerate() {
                    let ahead = ahead.get(at).copied().unwrap_or(0.0);
                    lanes.bar(close, ahead, first + at as u64);
                }
                own = lanes;
            },
        );
        *self = own;
    }

    #[inline(always)]
    fn bar(&mut self, close: f64, ahead: f64, at: u64) {
        let up = if ahead > 0.0 { u64::MAX } else { 0 };
        let down = if ahead < 0.0 { u64::MAX } else { 0 };
        let bits = ahead.to_bits();
        for lane in 0..WIDE {
            let held = (close - self.held[lane]) * self.k[lane] + self.held[lane];
            self.held[lane] = held;
            let above = if close > held { u64::MAX } else { 0 };
            let crossed = above ^ self.above[lane];
            self.above[lane] = above;
            // Through the mean upwards it is long, else short; 0 is added where nothing crossed.
            self.gain[lane] += f64::from_bits(crossed & (bits ^ (!above & SIGN)));
            self.events[lane] = self.events[lane].wrapping_sub(crossed);
            let hit = crossed & ((above & up) | (!above & down));
            self.hits[lane] = self.hits[lane].wrapping_sub(hit);
            self.last[lane] = (crossed & at) | (!crossed & self.last[lane]);
        }
    }
}
