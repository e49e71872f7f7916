use super::*;
use crate::{Backend, Cpu};

fn walk(seed: u32, bars: usize) -> [Vec<i64>; 3] {
    let mut price = 100_000_000_000i64;
    let mut rows = [Vec::new(), Vec::new(), Vec::new()];
    for at in 0..bars {
        let [a, b, c, d] = crate::philox::philox4x32([at as u32, 0, 0, 7], [seed, 1]);
        let flat = d % 11 == 0;
        price += if flat { 0 } else { i64::from(a % 2_000_001) * 200 - 200_000_000 };
        rows[0].push(price + i64::from(b % 100_000_000));
        rows[1].push(price - i64::from(c % 100_000_000));
        rows[2].push(price);
    }
    rows
}

fn series(rows: &[Vec<i64>; 3]) -> SweepSeries<'_> {
    SweepSeries { high: &rows[0], low: &rows[1], close: &rows[2] }
}

/// The definitions, each written down plainly and without lanes: values of every bar, NaN while undefined.
fn plain(rows: &[Vec<i64>; 3], spec: SweepSpec) -> Vec<[f64; 3]> {
    let [high, low, close] = rows;
    let price: Vec<f64> = close.iter().map(|&close| close as f64 / 1e9).collect();
    let ema = |values: &[f64], n: usize| -> Vec<f64> {
        let (mut out, mut held) = (Vec::new(), 0.0);
        for (at, &value) in values.iter().enumerate() {
            held = if at >= n {
                (value - held) * (2.0 / (n as f64 + 1.0)) + held
            } else if at + 1 == n {
                (held + value) / n as f64
            } else {
                held + value
            };
            out.push(if at + 1 >= n { held } else { f64::NAN });
        }
        out
    };
    let wilder = |values: &[f64], n: usize| -> Vec<f64> {
        let (mut out, mut held) = (Vec::new(), 0.0);
        for (at, &value) in values.iter().enumerate() {
            held = if at >= n {
                (held * (n as f64 - 1.0) + value) * (1.0 / n as f64)
            } else if at + 1 == n {
                (held + value) / n as f64
            } else {
                held + value
            };
            out.push(if at + 1 >= n { held } else { f64::NAN });
        }
        out
    };
    let none = [f64::NAN; 3];
    let alone = |values: Vec<f64>| values.into_iter().map(|value| [value, f64::NAN, f64::NAN]).collect();
    let late = |values: Vec<f64>, by: usize| [vec![f64::NAN; by], values].concat();
    match spec {
        SweepSpec::Ema { window } => alone(ema(&price, window as usize)),
        SweepSpec::Rsi { window } => {
            let moved = |sign: i64| -> Vec<f64> {
                close.windows(2).map(|pair| ((pair[1] - pair[0]) * sign).max(0) as f64).collect()
            };
            let [up, down] = [1, -1].map(|sign| wilder(&moved(sign), window as usize));
            let ratio =
                |(up, down): (&f64, &f64)| if up + down == 0.0 { 0.0 } else { 100.0 * (up / (up + down)) };
            alone(late(up.iter().zip(&down).map(ratio).collect(), 1))
        }
        SweepSpec::Macd { fast, slow, signal } => {
            let slow_mean = ema(&price, slow as usize);
            let skip = (slow - fast) as usize;
            let fast_mean = late(ema(&price[skip.min(price.len())..], fast as usize), skip.min(price.len()));
            let from = (slow as usize - 1).min(price.len());
            let line: Vec<f64> = (from..price.len()).map(|at| fast_mean[at] - slow_mean[at]).collect();
            let mean = ema(&line, signal as usize);
            let row =
                |(line, mean): (&f64, &f64)| if mean.is_nan() { none } else { [*line, *mean, line - mean] };
            [vec![none; from], line.iter().zip(&mean).map(row).collect()].concat()
        }
        SweepSpec::Atr { window } => {
            let reach = |at: usize| {
                let spans = [high[at] - low[at], high[at] - close[at - 1], low[at] - close[at - 1]];
                spans.map(i64::abs).into_iter().max().unwrap() as f64 / 1e9
            };
            alone(late(wilder(&(1..close.len()).map(reach).collect::<Vec<_>>(), window as usize), 1))
        }
        SweepSpec::Bollinger { window, deviations } => {
            let n = window as usize;
            let row = |at: usize| {
                if at + 1 < n {
                    return none;
                }
                let part: Vec<i128> = close[at + 1 - n..=at].iter().map(|&close| close.into()).collect();
                let (sum, squares) = (part.iter().sum::<i128>(), part.iter().map(|p| p * p).sum::<i128>());
                let mid = sum as f64 / (n as f64 * 1e9);
                let spread =
                    ((n as i128 * squares - sum * sum) as f64).sqrt() * (deviations / (n as f64 * 1e9));
                [mid, mid + spread, mid - spread]
            };
            (0..close.len()).map(row).collect()
        }
    }
}

/// Signals of every bar from its values, as the table of the module says.
fn signals(rows: &[Vec<i64>; 3], values: &[[f64; 3]], spec: SweepSpec) -> Vec<f64> {
    let price: Vec<f64> = rows[2].iter().map(|&close| close as f64 / 1e9).collect();
    let sign = |long: bool, short: bool| {
        if long {
            1.0
        } else if short {
            -1.0
        } else {
            0.0
        }
    };
    let one = |at: usize| {
        if values[at][0].is_nan() {
            return 0.0;
        }
        if let SweepSpec::Atr { .. } = spec {
            let moved = price[at] - price[at - 1];
            return sign(moved > values[at][0], moved < -values[at][0]);
        }
        if at == 0 || values[at - 1][0].is_nan() {
            return 0.0;
        }
        let (was, now) = (values[at - 1], values[at]);
        let crossed = |was: bool, now: bool| sign(!was && now, was && !now);
        match spec {
            SweepSpec::Ema { .. } => crossed(price[at - 1] > was[0], price[at] > now[0]),
            SweepSpec::Macd { .. } => crossed(was[2] > 0.0, now[2] > 0.0),
            SweepSpec::Rsi { .. } => {
                let (long, short) = (was[0] <= 30.0 && now[0] > 30.0, was[0] >= 70.0 && now[0] < 70.0);
                f64::from(u8::from(long)) - f64::from(u8::from(short))
            }
            _ => {
                let long = price[at - 1] <= was[2] && price[at] > now[2];
                let short = price[at - 1] >= was[1] && price[at] < now[1];
                f64::from(u8::from(long)) - f64::from(u8::from(short))
            }
        }
    };
    (0..price.len()).map(one).collect()
}

fn specs() -> Vec<SweepSpec> {
    let mut specs: Vec<SweepSpec> = (1..40).map(|window| SweepSpec::Ema { window }).collect();
    specs.extend((1..20).map(|window| SweepSpec::Rsi { window }));
    specs.extend((1..20).map(|window| SweepSpec::Atr { window }));
    for (fast, slow, signal) in [(1, 2, 1), (12, 26, 9), (3, 10, 4), (5, 35, 5)] {
        specs.push(SweepSpec::Macd { fast, slow, signal });
    }
    for (window, deviations) in [(1, 2.0), (2, 0.5), (20, 2.0), (37, 1.0)] {
        specs.push(SweepSpec::Bollinger { window, deviations });
    }
    // Kinds and windows mixed, so that places are kept.
    specs.rotate_left(23);
    specs
}

#[test]
fn every_cell_is_what_the_definition_says() {
    let specs = specs();
    let rows: Vec<_> = [1, 2, 3, 40, 41, 300].map(|bars| walk(bars as u32, bars)).to_vec();
    let series: Vec<_> = rows.iter().map(series).collect();
    for horizon in [1, 7, 500] {
        let found =
            Cpu::new(1).unwrap().sweep(&SweepRequest { series: &series, specs: &specs, horizon }).unwrap();
        for (rows, cells) in rows.iter().zip(&found) {
            let price: Vec<f64> = rows[2].iter().map(|&close| close as f64 / 1e9).collect();
            for (&spec, cell) in specs.iter().zip(cells) {
                let values = plain(rows, spec);
                let events = signals(rows, &values, spec);
                let mut want = SweepCell { values: *values.last().unwrap(), ..SweepCell::default() };
                for (at, &event) in events.iter().enumerate().filter(|(_, event)| **event != 0.0) {
                    if event > 0.0 {
                        want.longs += 1
                    } else {
                        want.shorts += 1
                    }
                    want.last_signal = Some(at);
                    if let Some(then) = price.get(at + horizon as usize) {
                        let gain = event * (then / price[at] - 1.0);
                        want.judged += 1;
                        want.hits += u64::from(gain > 0.0);
                        want.gain += gain;
                    }
                }
                let bits = |cell: &SweepCell| {
                    cell.values.map(|value| if value.is_nan() { 0 } else { value.to_bits() })
                };
                assert_eq!(bits(cell), bits(&want), "{spec:?} of {} bars", price.len());
                let rest = |cell: &SweepCell| SweepCell { values: [0.0; 3], ..*cell };
                assert_eq!(rest(cell), rest(&want), "{spec:?} of {} bars, horizon {horizon}", price.len());
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let rows: Vec<_> = (0..9).map(|seed| walk(seed, 200 + seed as usize)).collect();
    let series: Vec<_> = rows.iter().map(series).collect();
    let specs = specs();
    let request = SweepRequest { series: &series, specs: &specs, horizon: 3 };
    let text = |threads| format!("{:?}", Cpu::new(threads).unwrap().sweep(&request).unwrap());
    assert_eq!(text(1), text(3));
}

#[test]
fn wrong_requests_are_refused_by_name() {
    let rows = walk(1, 10);
    let good = series(&rows);
    let refuse = |series: &[SweepSeries<'_>], specs: &[SweepSpec], horizon: u32| {
        SweepRequest { series, specs, horizon }.check().unwrap_err().to_string()
    };
    let ema = [SweepSpec::Ema { window: 3 }];
    assert_eq!(refuse(&[], &ema, 1), "series: 0; allowed are 1 to 1048576");
    assert_eq!(refuse(&[good], &[], 1), "indicators: 0; allowed are 1 to 16777216");
    assert_eq!(refuse(&[good], &ema, 0), "horizon in bars: 0; allowed are 1 to 2147483648");
    let empty = SweepSeries { high: &[], low: &[], close: &[] };
    assert_eq!(refuse(&[empty], &ema, 1), "bars of a symbol: 0; allowed are 1 to 2147483648");
    assert_eq!(
        refuse(&[SweepSeries { high: &[], ..good }], &ema, 1),
        "high prices: length 0, but 10 is needed"
    );
    assert_eq!(
        refuse(&[good], &[SweepSpec::Rsi { window: 0 }], 1),
        "window is 0; allowed is 1 to 100000 bars"
    );
    let macd = [SweepSpec::Macd { fast: 9, slow: 9, signal: 1 }];
    assert_eq!(refuse(&[good], &macd, 1), "fast window is 9; allowed is less than the slow one");
    for deviations in [0.0, -1.0, f64::NAN, f64::INFINITY, 101.0] {
        let text = refuse(&[good], &[SweepSpec::Bollinger { window: 2, deviations }], 1);
        assert!(text.ends_with("allowed is above 0 and at most 100"), "{text}");
    }
    let zero = [0];
    let zero = SweepSeries { high: &zero, low: &zero, close: &zero };
    assert_eq!(refuse(&[zero], &ema, 1), "close is 0; allowed is above 0");
    let dear = [i64::MAX];
    let dear = SweepSeries { high: &dear, low: &dear, close: &dear };
    let text = refuse(&[dear], &[SweepSpec::Bollinger { window: 100_000, deviations: 2.0 }], 1);
    assert!(text.starts_with("window x price in 1e-9: 100000 x 9223372036854775807"), "{text}");
    let many = vec![ema[0]; 1 << 12];
    let text = refuse(&vec![good; 1 << 13], &many, 1);
    assert!(text.starts_with("symbols x indicators: 8192 x 4096 of them"), "{text}");
}

#[test]
fn kept_up_bar_by_bar_every_value_is_that_of_a_sweep_of_all_bars_so_far() {
    let specs = specs();
    let live = LiveSweep::new(&specs).unwrap();
    let rows = walk(9, 300);
    let mut state = vec![0.0; live.state_len()];
    let mut out = vec![0.0; live.width()];
    let cpu = Cpu::new(1).unwrap();
    for at in 0..300 {
        let [high, low, close] = rows.each_ref().map(|row| row[at]);
        live.take(&mut state, at as u64, rows[2][at.saturating_sub(1)], LiveBar { high, low, close });
        live.values(&state, at as u64, |ago| rows[2][at - ago as usize], &mut out);
        let [high, low, close] = rows.each_ref().map(|row| &row[..=at]);
        let series = [SweepSeries { high, low, close }];
        let cells = cpu.sweep(&SweepRequest { series: &series, specs: &specs, horizon: 1 }).unwrap();
        let mut want = out.iter();
        for (spec, cell) in specs.iter().zip(&cells[0]) {
            for (column, value) in cell.values[..spec.columns()].iter().enumerate() {
                let found = want.next().unwrap();
                let same = found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan();
                assert!(same, "{spec:?} at bar {at}, column {column}: {found} for {value}");
            }
        }
        assert!(want.next().is_none());
    }
    // What a sweep refuses has no band.
    let huge = LiveSweep::new(&[SweepSpec::Bollinger { window: 3, deviations: 1.0 }]).unwrap();
    let mut out = [0.0; 3];
    huge.values(&[], 5, |_| i64::MAX, &mut out);
    assert!(out.iter().all(|value| value.is_nan()));
    let error = LiveSweep::new(&[SweepSpec::Rsi { window: 0 }]).unwrap_err().to_string();
    assert_eq!(error, "window is 0; allowed is 1 to 100000 bars");
}
