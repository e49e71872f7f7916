//! Nanoseconds per bar for RSI(14), EMA(12), EMA(26), MACD(12, 26, 9) and Bollinger(20, 2) over 2,000 symbols:
//! `cargo run --release -p tidegate-actors --example indicator_bench`.

use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate_actors::indicators::{IndicatorAnalyzer, IndicatorBar, IndicatorSet, IndicatorSpec};
use tidegate_engine::{Analyzer, BarState, BarWords, Emit, Lane, Output, output_kind};

const KEYS: u32 = 2_000;
const ROUNDS: u32 = 500;

fn main() {
    let specs: Vec<IndicatorSpec> = ["rsi:14", "ema:12", "ema:26", "macd:12:26:9", "bb:20:2"]
        .iter()
        .map(|text| text.parse().expect("a valid indicator"))
        .collect();
    // Second by second, all symbols; a fixed pseudo-random walk in cents.
    let mut closes = vec![10_000i64; KEYS as usize];
    let mut seed = 1u64;
    let bars: Vec<Output> = (0..ROUNDS)
        .flat_map(|second| (0..KEYS).map(move |key| (second, key)))
        .map(|(second, key)| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let close = &mut closes[key as usize];
            *close += (seed >> 33) as i64 % 21 - 10;
            let price = *close * 10_000_000;
            let words =
                BarWords { open: price, high: price, low: price, close: price, ..BarWords::default() };
            Output {
                name: u64::from(key),
                slot: (key % 4096) as u16,
                ts: u64::from(second) * 1_000_000_000,
                kind: output_kind::BAR,
                state: BarState::Final as u8,
                key,
                words: zerocopy::transmute!(words),
                ..Output::default()
            }
        })
        .collect();

    let (mut best_set, mut best_all, mut best_emit) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..5 {
        let mut set = IndicatorSet::new(&specs).expect("valid indicators");
        set.reserve(KEYS as usize);
        let mut row = [0.0; 16];
        best_set = best_set.min(ns_per_bar(&bars, |batch| {
            for bar in batch {
                set.update(
                    bar.key,
                    &IndicatorBar::from(zerocopy::transmute_ref!(&bar.words) as &BarWords),
                    &mut row,
                );
                black_box(&row);
            }
        }));

        let mut analyzer = IndicatorAnalyzer::new(0, &specs).expect("valid indicators");
        analyzer.reserve(KEYS as usize);
        let (mut lane, mut sink) = (Lane::new(1), |rows: &[Output]| {
            black_box(rows);
        });
        let mut emit = Emit::new(&mut lane, &mut sink);
        best_all = best_all.min(ns_per_bar(&bars, |batch| analyzer.on_outputs(batch, &mut emit)));

        let (mut lane, mut sink) = (Lane::new(1), |rows: &[Output]| {
            black_box(rows);
        });
        let mut emit = Emit::new(&mut lane, &mut sink);
        best_emit = best_emit.min(ns_per_bar(&bars, |batch| batch.iter().for_each(|bar| emit.push(*bar))));
    }
    let set = IndicatorSet::new(&specs).expect("valid indicators");
    println!("{} symbols, {} bars, {} bytes/key, best of 5", KEYS, bars.len(), set.bytes_per_key());
    println!("indicators and state:           {best_set:6.1} ns/bar");
    println!("with read, digest and emit:     {best_all:6.1} ns/bar");
    println!("of which digest and emit alone: {best_emit:6.1} ns/bar");
}

/// Runs `work` over batches of 64 bars that lie in L1, as a lane hands them over; only the work is timed.
fn ns_per_bar(bars: &[Output], mut work: impl FnMut(&[Output])) -> f64 {
    let mut batch = [Output::default(); Lane::BUFFER_MAX];
    let mut total = Duration::ZERO;
    for some in bars.chunks_exact(batch.len()) {
        batch.copy_from_slice(some);
        let start = Instant::now();
        work(&batch);
        total += start.elapsed();
    }
    total.as_nanos() as f64 / bars.len() as f64
}
