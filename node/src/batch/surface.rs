//! `tidegate surface`: indicators over a range of parameters, and what their signals were worth.

use super::args::{SurfaceArgs, SurfaceOutput};
use super::{Histories, backend, histories, note_failures};
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Tone, Ui, clean, instant, thousands};
use serde_json::json;
use std::fmt::Write as _;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_config::derived::{Sweep, swept};
use tidegate_gpu::Backend;
use tidegate_gpu::sweep::{SweepCell, SweepRequest, SweepSpec};

/// As the batch writes an indicator; `None` for one that it has not.
pub(crate) fn sweepable(spec: &IndicatorSpec) -> Option<SweepSpec> {
    Some(match *spec {
        IndicatorSpec::Ema { window } => SweepSpec::Ema { window },
        IndicatorSpec::Rsi { window } => SweepSpec::Rsi { window },
        IndicatorSpec::Atr { window } => SweepSpec::Atr { window },
        IndicatorSpec::Macd { fast, slow, signal } => SweepSpec::Macd { fast, slow, signal },
        IndicatorSpec::Bollinger { window, deviations } => SweepSpec::Bollinger { window, deviations },
        _ => return None,
    })
}

/// The indicators of all items, each once, as people and as the batch write them.
pub(crate) fn specs(sweeps: &[Sweep]) -> Result<Vec<(String, IndicatorSpec, SweepSpec)>, Failure> {
    let spec = |spec: IndicatorSpec| {
        let name = spec.to_string();
        let batch = sweepable(&spec).ok_or_else(|| Failure::usage(format!("`{name}` cannot be swept")))?;
        Ok((name, spec, batch))
    };
    swept(sweeps).into_iter().map(spec).collect()
}

pub(crate) fn run(args: &SurfaceArgs, ui: &Ui) -> Outcome {
    let specs = specs(&args.sweep)?;
    let parameters: Vec<SweepSpec> = specs.iter().map(|(_, _, swept)| *swept).collect();
    let backend = backend(ui)?;
    let found = histories(&args.files, &args.bars, &args.read, ui)?;
    let series: Vec<_> = found.symbols.values().map(super::History::series).collect();
    let cells = backend.sweep(&SweepRequest { series: &series, specs: &parameters, horizon: args.ahead })?;
    note_failures(&backend, ui);
    let rows = || {
        let symbols = found.symbols.iter().zip(&cells);
        symbols.flat_map(|((symbol, history), cells)| {
            specs.iter().zip(cells).map(move |(spec, cell)| (symbol, history, spec, cell))
        })
    };
    match args.output {
        SurfaceOutput::Table => ui.print(&table(&found, &specs, &cells, args, ui)),
        SurfaceOutput::Csv => {
            let mut text =
                "symbol,indicator,bars,value,longs,shorts,judged,hits,hit_rate,mean_gain,last_signal\n"
                    .to_owned();
            for (symbol, history, (name, spec, _), cell) in rows() {
                let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
                let last = cell.last_signal.map_or_else(String::new, |at| instant(history.ends[at]));
                let _ = writeln!(
                    text,
                    "{},{name},{},{},{},{},{},{},{},{},{last}",
                    field(symbol),
                    history.close.len(),
                    number(main_value(spec, cell)),
                    cell.longs,
                    cell.shorts,
                    cell.judged,
                    cell.hits,
                    number(cell.hit_rate()),
                    number(cell.mean_gain()),
                );
            }
            ui.print(&text);
        }
        SurfaceOutput::Jsonl => {
            let mut text = String::new();
            for (symbol, history, (name, spec, _), cell) in rows() {
                let columns = spec.columns();
                let values =
                    columns.into_iter().zip(cell.values).map(|(column, value)| (column, json!(value)));
                let row = json!({
                    "symbol": symbol, "indicator": name, "bars": history.close.len(),
                    "values": serde_json::Value::Object(values.collect()),
                    "longs": cell.longs, "shorts": cell.shorts, "judged": cell.judged, "hits": cell.hits,
                    "hit_rate": cell.hit_rate(), "mean_gain": cell.mean_gain(),
                    "last_signal_ns": cell.last_signal.map(|at| history.ends[at]),
                    "derived": { "device": backend.name() },
                });
                let _ = writeln!(text, "{row}");
            }
            ui.print(&text);
        }
    }
    Ok(Exit::Ok)
}

/// The value people look at: of a MACD the histogram. `None` while undefined.
fn main_value(spec: &IndicatorSpec, cell: &SweepCell) -> Option<f64> {
    let value = match spec {
        IndicatorSpec::Macd { .. } => cell.values[2],
        _ => cell.values[0],
    };
    (!value.is_nan()).then_some(value)
}

/// A field of CSV.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The best of every symbol by mean gain, of those with signals enough to be judged.
fn table(
    found: &Histories,
    specs: &[(String, IndicatorSpec, SweepSpec)],
    cells: &[Vec<SweepCell>],
    args: &SurfaceArgs,
    ui: &Ui,
) -> String {
    let mut text = String::new();
    for ((symbol, history), cells) in found.symbols.iter().zip(cells) {
        let _ = writeln!(
            text,
            "{}  {} {} bars, {} indicators; gain {} bars after a signal",
            ui.paint(Tone::Strong, &clean(symbol)),
            thousands(history.close.len() as u64),
            args.bars,
            thousands(specs.len() as u64),
            args.ahead
        );
        let mut order: Vec<usize> = (0..specs.len()).filter(|&at| cells[at].judged >= args.least).collect();
        let left_out = specs.len() - order.len();
        let gain = |at: usize| cells[at].mean_gain().unwrap_or(f64::NEG_INFINITY);
        order.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)).then(a.cmp(&b)));
        let mut table =
            Table::new(&["indicator", ">value", ">longs", ">shorts", ">hits", ">mean gain", ">last signal"]);
        for &at in order.iter().take(args.top as usize) {
            let ((name, spec, _), cell) = (&specs[at], &cells[at]);
            let value = main_value(spec, cell).map_or("-".into(), |value| format!("{value:.4}"));
            let hits = cell.hit_rate().map_or("-".into(), |rate| format!("{:.1} %", 100.0 * rate));
            let mean = cell.mean_gain().map_or("-".into(), |gain| format!("{:+.2} bp", 1e4 * gain));
            let tone = if gain(at) > 0.0 { Tone::Good } else { Tone::Plain };
            let last = cell.last_signal.map_or("-".into(), |at| instant(history.ends[at]));
            table.cells(vec![
                (Tone::Plain, name.clone()),
                (Tone::Plain, value),
                (Tone::Plain, thousands(cell.longs)),
                (Tone::Plain, thousands(cell.shorts)),
                (Tone::Plain, hits),
                (tone, mean),
                (Tone::Faint, last),
            ]);
        }
        if order.is_empty() {
            let _ = writeln!(text, "  no indicator had {} signals that could be judged", args.least);
        } else {
            text.push_str(&table.render(ui, 2));
        }
        let more = order.len().saturating_sub(args.top as usize);
        if more + left_out > 0 {
            let _ = writeln!(
                text,
                "  {}",
                ui.paint(
                    Tone::Faint,
                    &format!("{more} more; {left_out} with under {} judged signals left out", args.least)
                )
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_actors::indicators::{IndicatorBar, IndicatorSet};
    use tidegate_gpu::Cpu;
    use tidegate_gpu::sweep::SweepSeries;

    /// The promise of the sweep: each value is that of a stream of the same bars, bit for bit.
    #[test]
    fn every_value_is_the_streaming_indicators_own() {
        let texts = ["ema:1..33", "rsi:1..21", "atr:1..9", "macd:1..5:4..9:3", "bb:1..20:2"];
        let sweeps: Vec<Sweep> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let specs = specs(&sweeps).unwrap_or_else(|failure| panic!("{:#}", failure.error));
        let swept: Vec<SweepSpec> = specs.iter().map(|(_, _, swept)| *swept).collect();
        let (mut state, mut price) = (7u64, 95_432_100_000i64);
        let bars: Vec<IndicatorBar> = (0..120)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (a, b) = ((state >> 33) as i64 % 500_000_000, (state >> 13) as i64 % 90_000_000);
                price += if state >> 62 == 0 { 0 } else { a - 250_000_000 };
                IndicatorBar {
                    high: price + b.abs(),
                    low: price - (a / 7).abs(),
                    close: price,
                    ..IndicatorBar::default()
                }
            })
            .collect();
        let column = |of: fn(&IndicatorBar) -> i64| bars.iter().map(of).collect::<Vec<_>>();
        let (high, low, close) = (column(|b| b.high), column(|b| b.low), column(|b| b.close));
        // Every beginning of the series is a series, and its sweep shows the values at its last bar.
        let series: Vec<_> = (1..=bars.len())
            .map(|len| SweepSeries { high: &high[..len], low: &low[..len], close: &close[..len] })
            .collect();
        let request = SweepRequest { series: &series, specs: &swept, horizon: 1 };
        let cells = Cpu::new(2).unwrap().sweep(&request).unwrap();
        for (which, (name, spec, _)) in specs.iter().enumerate() {
            let mut stream = IndicatorSet::new(&[*spec]).unwrap();
            for (at, bar) in bars.iter().enumerate() {
                let mut row = [0.0; 16];
                stream.update(0, bar, &mut row);
                for (column, &want) in row.iter().enumerate().take(spec.column_count()) {
                    let found = cells[at][which].values[column];
                    let same = want.to_bits() == found.to_bits() || want.is_nan() && found.is_nan();
                    assert!(same, "{name} at bar {at}, column {column}: {found} for {want}");
                }
            }
        }
    }
}
