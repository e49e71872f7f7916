//! Bollinger bands from exact sums, bar by bar.

use super::kernels::{Bars, Tally};
use super::{SweepCell, SweepSpec};

/// Price units in one.
pub(super) const UNIT: f64 = 1e9;

/// Runs one Bollinger indicator.
pub(super) fn bollinger(bars: &Bars<'_>, window: u32, deviations: f64) -> SweepCell {
    let close = bars.close;
    let width = window as usize;
    let (mut sum, mut squares) = (0u128, 0u128);
    let mut tally = Tally::default();
    let mut values = [f64::NAN; 3];
    let mut stood: Option<(bool, bool)> = None;
    for (at, &price) in close.iter().enumerate() {
        let price = u128::from(price.unsigned_abs()); // above 0: it was checked
        sum += price;
        squares += price * price;
        if at >= width {
            let leaving = u128::from(close[at - width].unsigned_abs());
            sum -= leaving;
            squares -= leaving * leaving;
        }
        if at + 1 < width {
            continue;
        }
        values = bands(window, deviations, sum, squares);
        let price = bars.price[at];
        let now = (price <= values[2], price >= values[1]);
        if let Some((below, above)) = stood {
            let long = below && price > values[2];
            let short = above && price < values[1];
            tally.signal(bars, at, f64::from(u8::from(long)) - f64::from(u8::from(short)));
        }
        stood = Some(now);
    }
    tally.cell(values)
}

/// Middle, upper and lower band from the sum of the window's closes and that of their squares. Window x price is below 2^64, so
/// that the window times the squares fits.
#[inline]
pub(super) fn bands(window: u32, deviations: f64, sum: u128, squares: u128) -> [f64; 3] {
    let scale = f64::from(window) * UNIT;
    let reach = deviations / scale;
    let spread = wide_to_f64(u128::from(window) * squares - sum * sum).sqrt() * reach;
    let mid = wide_to_f64(sum) / scale;
    [mid, mid + spread, mid - spread]
}

/// The same conversion as the streaming indicators': the same operations on every machine.
fn wide_to_f64(value: u128) -> f64 {
    if let Ok(small) = i64::try_from(value) {
        return small as f64;
    }
    (value >> 64) as u64 as f64 * 18_446_744_073_709_551_616.0 + value as u64 as f64
}

/// The indicator of a part that is not run in lanes.
pub(super) fn run(bars: &Bars<'_>, spec: &SweepSpec) -> SweepCell {
    match *spec {
        SweepSpec::Bollinger { window, deviations } => bollinger(bars, window, deviations),
        _ => unreachable!("only Bollinger bands are computed from exact sums"),
    }
}
