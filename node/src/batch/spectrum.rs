//! `tidegate spectrum`: how much of all symbols' moves is one move, bar by bar.

use super::args::SpectrumArgs;
use super::{Histories, histories};
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Ui, instant, thousands};
use anyhow::anyhow;
use serde_json::json;
use std::collections::VecDeque;
use std::io::Write;
use tidegate_regime::cross::SYMBOLS_MAX;
use tidegate_regime::{CrossOptions, CrossReading, CrossRegime, CrossRegimes, CrossSection};

/// How the readings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SpectrumOutput {
    Table,
    Csv,
    Jsonl,
}

/// What one row says, and when it ended.
struct Moment {
    end: u64,
    reading: CrossReading,
    /// With those before it; none until there are enough.
    regime: Option<CrossRegime>,
}

/// Log returns of every symbol, a row for every time at which some symbol has a bar. A symbol without one keeps its price; before its
/// first it has no return.
fn rows(found: &Histories, mut each: impl FnMut(u64, &[f64]) -> Result<(), Failure>) -> Result<(), Failure> {
    let histories: Vec<_> = found.symbols.iter().collect();
    let mut times: Vec<u64> =
        histories.iter().flat_map(|(_, history)| history.ends.iter().copied()).collect();
    times.sort_unstable();
    times.dedup();
    let mut at = vec![0; histories.len()];
    let mut prices = vec![f64::NAN; histories.len()];
    let mut row = vec![f64::NAN; histories.len()];
    for time in times {
        for (symbol, (name, history)) in histories.iter().enumerate() {
            let before = prices[symbol];
            // Bars by trades may end at one time: the newest counts.
            while history.ends.get(at[symbol]).is_some_and(|&end| end <= time) {
                prices[symbol] = history.close[at[symbol]] as f64;
                at[symbol] += 1;
            }
            if prices[symbol] <= 0.0 {
                let error = anyhow!("`{name}` has a price of 0 or less, which has no return");
                return Err(Failure::new(Exit::Input, error));
            }
            row[symbol] = libm::log(prices[symbol] / before);
        }
        each(time, &row)?;
    }
    Ok(())
}

fn cells(moment: &Moment) -> [String; 9] {
    let CrossReading { symbols, correlation, mode_share, effective_rank, absorption, turbulence } =
        moment.reading;
    let none = || "\u{2013}".to_owned();
    [
        instant(moment.end),
        thousands(symbols as u64),
        format!("{correlation:.3}"),
        format!("{mode_share:.3}"),
        format!("{effective_rank:.1}"),
        format!("{absorption:.3}"),
        turbulence.map_or_else(none, |turbulence| format!("{turbulence:.2}")),
        moment.regime.map_or_else(none, |regime| regime.label.name().to_owned()),
        moment.regime.map_or_else(none, |regime| format!("{:.2}", regime.change_probability)),
    ]
}

pub(crate) fn run(args: &SpectrumArgs, ui: &Ui) -> Outcome {
    match write(args, ui) {
        // A reader of the pipe that has seen enough is no failure.
        Err(Failure { error, .. })
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            Ok(Exit::Ok)
        }
        outcome => outcome,
    }
}

fn write(args: &SpectrumArgs, ui: &Ui) -> Outcome {
    let options = CrossOptions { rows: args.window as usize, shrink: args.shrink };
    // Before anything is read.
    CrossSection::new(2, options).map_err(Failure::usage)?;
    let found = histories(&args.files, &args.bars, &args.read, ui)?;
    let symbols = found.symbols.len();
    if !(2..=SYMBOLS_MAX).contains(&symbols) {
        let error = anyhow!("there are {symbols} symbols, and a cross-section is of 2 to {SYMBOLS_MAX}");
        return Err(Failure::new(Exit::Input, error));
    }
    let mut cross = CrossSection::new(symbols, options).map_err(Failure::usage)?;
    let mut regimes = CrossRegimes::default();
    let (mut seen, mut read) = (0u64, 0u64);
    let mut newest: VecDeque<Moment> = VecDeque::new();
    let mut most: Option<Moment> = None;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let gone = |error: std::io::Error| Failure::new(Exit::Output, error);
    if args.output == SpectrumOutput::Csv {
        writeln!(out, "end_ns,symbols,correlation,mode_share,effective_rank,absorption,turbulence,label,change_probability")
            .map_err(gone)?;
    }
    rows(&found, |end, row| {
        seen += 1;
        let Some(reading) = cross.update(row).map_err(|error| Failure::new(Exit::Input, error))? else {
            regimes.interrupt();
            return Ok(());
        };
        let regime = regimes.take(reading).map_err(Failure::internal)?;
        read += 1;
        let CrossReading { symbols, correlation, mode_share, effective_rank, absorption, turbulence } =
            reading;
        match args.output {
            SpectrumOutput::Csv => {
                let text = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
                let (turbulence, change) =
                    (text(turbulence), text(regime.map(|regime| regime.change_probability)));
                let label = regime.map_or_else(String::new, |regime| regime.label.number().to_string());
                writeln!(
                    out,
                    "{end},{symbols},{correlation},{mode_share},{effective_rank},{absorption},{turbulence},{label},{change}"
                )
                .map_err(gone)?;
            }
            SpectrumOutput::Jsonl => {
                let line = json!({
                    "end_ns": end.to_string(), "symbols": symbols, "correlation": correlation, "mode_share": mode_share,
                    "effective_rank": effective_rank, "absorption": absorption, "turbulence": turbulence,
                    "label": regime.map(|regime| regime.label.number()),
                    "change_probability": regime.map(|regime| regime.change_probability),
                });
                writeln!(out, "{line}").map_err(gone)?;
            }
            SpectrumOutput::Table => {
                let height = |moment: &Moment| moment.reading.turbulence.unwrap_or(0.0);
                if most.as_ref().is_none_or(|most| turbulence.unwrap_or(0.0) > height(most)) {
                    most = Some(Moment { end, reading, regime });
                }
                if newest.len() == args.last as usize {
                    newest.pop_front();
                }
                newest.push_back(Moment { end, reading, regime });
            }
        }
        Ok(())
    })?;
    out.flush().map_err(gone)?;
    drop(out);
    if read == 0 {
        let error = anyhow!(
            "no two symbols have moved in a window of {} bars (there are {seen}); take a shorter --window or narrower --bars",
            options.rows
        );
        return Err(Failure::new(Exit::Input, error));
    }
    if args.output == SpectrumOutput::Table {
        let head = [
            "end",
            ">symbols",
            ">correlation",
            ">mode share",
            ">effective rank",
            ">absorption",
            ">turbulence",
            "label",
            ">change",
        ];
        let mut table = Table::new(&head);
        newest.iter().for_each(|moment| table.row(cells(moment).each_ref().map(String::as_str)));
        let mut text = table.render(ui, 0);
        if let Some(most) = most.filter(|most| most.reading.turbulence.is_some()) {
            let turbulence = most.reading.turbulence.unwrap_or_default();
            text += &format!(
                "\n{} rows of bars {}, window {}; most turbulent: {} at {turbulence:.2}\n",
                thousands(read),
                args.bars,
                options.rows,
                instant(most.end)
            );
        }
        ui.print(&text);
    }
    Ok(Exit::Ok)
}
