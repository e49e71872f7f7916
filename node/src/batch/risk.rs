//! `tidegate risk`: value at risk and expected shortfall of a portfolio from the bars of its symbols.

use super::args::RiskArgs;
use super::{Histories, backend, histories, note_failures};
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Tone, Ui, clean, thousands};
use anyhow::{Context, anyhow};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_actors::WindowSpec;
use tidegate_config::derived::{Horizon, TailSpec};
use tidegate_gpu::Backend;
use tidegate_gpu::risk::{RiskReport, RiskRequest, Tail};

fn in_bars(horizon: Horizon, bars: &WindowSpec) -> Result<f64, Failure> {
    horizon.in_bars(bars).ok_or_else(|| {
        Failure::usage(format!(
            "bars `{bars}` have no length in time; say the horizon in bars, e.g. --horizon 100b"
        ))
    })
}

/// As the batch says it.
pub(crate) fn tail(tail: TailSpec) -> Tail {
    match tail {
        TailSpec::Normal => Tail::Normal,
        TailSpec::StudentT(freedom) => Tail::StudentT { freedom },
    }
}

/// Log returns of all symbols over common times, and what they were made of.
struct Returns {
    symbols: Vec<String>,
    rows: usize,
    values: Vec<f64>,
}

/// A row for every time at which some symbol has a bar, from the first at which all have had one; a symbol without a bar
/// keeps its price.
fn returns(found: &Histories, symbols: Vec<String>) -> Result<Returns, Failure> {
    let histories: Vec<_> = symbols.iter().filter_map(|symbol| found.symbols.get(symbol)).collect();
    let first =
        histories.iter().filter_map(|history| history.ends.first()).max().copied().unwrap_or_default();
    let mut times: Vec<u64> = histories
        .iter()
        .flat_map(|history| history.ends.iter().copied())
        .filter(|&end| end >= first)
        .collect();
    times.sort_unstable();
    times.dedup();
    let rows = times.len().saturating_sub(1);
    if rows < 3 {
        let count = times.len();
        return Err(Failure::new(
            Exit::Input,
            anyhow!(
                "the symbols have only {count} common bars, and a risk needs 4; take narrower bars or fewer symbols"
            ),
        ));
    }
    // The newest rows, where there are more than a fit takes.
    let rows_max = usize::try_from(tidegate_gpu::correlation::WINDOW_MAX).unwrap_or(usize::MAX);
    let times = &times[(rows + 1).saturating_sub(rows_max + 1)..];
    let rows = times.len() - 1;
    let mut values = vec![0.0; rows * symbols.len()];
    for (asset, history) in histories.iter().enumerate() {
        let mut at = 0;
        let mut before = None;
        for (row, &time) in times.iter().enumerate() {
            while history.ends.get(at + 1).is_some_and(|&end| end <= time) {
                at += 1;
            }
            let price = history.close[at] as f64;
            if price <= 0.0 {
                let error = anyhow!("`{}` has a price of 0 or less, which has no return", symbols[asset]);
                return Err(Failure::new(Exit::Input, error));
            }
            if let Some(before) = before {
                // Not the platform's logarithm: streams of the same bars have these bits.
                let moved: f64 = price / before;
                values[(row - 1) * symbols.len() + asset] = libm::log(moved);
            }
            before = Some(price);
        }
    }
    Ok(Returns { symbols, rows, values })
}

/// `symbol,weight` line by line; a heading is allowed.
pub(crate) fn weights(path: &Path) -> Result<BTreeMap<String, f64>, Failure> {
    let input = |error| Failure::new(Exit::Input, error);
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))
        .map_err(input)?;
    let mut weights = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong =
            |why: String| input(anyhow!("`{}` line {}: {why}; write e.g. AAPL,0.25", path.display(), at + 1));
        let (symbol, weight) = line.rsplit_once(',').ok_or_else(|| wrong("there is no comma".into()))?;
        let (symbol, weight) = (symbol.trim(), weight.trim());
        match weight.parse::<f64>() {
            Ok(share) if share.is_finite() && share.abs() <= 1e6 => {
                if weights.insert(symbol.to_owned(), share).is_some() {
                    return Err(wrong(format!("`{symbol}` is there twice")));
                }
            }
            Err(_) if at == 0 => {} // the heading
            _ => return Err(wrong(format!("`{weight}` is no share from -1000000 to 1000000"))),
        }
    }
    if weights.is_empty() {
        return Err(input(anyhow!("`{}` has no weights; write e.g. AAPL,0.25", path.display())));
    }
    Ok(weights)
}

pub(crate) fn run(args: &RiskArgs, ui: &Ui) -> Outcome {
    let horizon = in_bars(args.horizon, &args.bars)?;
    let given = args.weights.as_deref().map(weights).transpose()?;
    let backend = backend(ui)?;
    let found = histories(&args.files, &args.bars, &args.read, ui)?;
    let (symbols, shares): (Vec<String>, Vec<f64>) = match given {
        Some(given) => {
            if let Some(symbol) = given.keys().find(|symbol| !found.symbols.contains_key(*symbol)) {
                let known: Vec<_> = found.symbols.keys().take(10).map(String::as_str).collect();
                return Err(Failure::usage(format!(
                    "`{symbol}` has a weight but no trades here; there are {} symbols, the first: {}",
                    found.symbols.len(),
                    known.join(", ")
                )));
            }
            given.into_iter().unzip()
        }
        None => {
            let share = 1.0 / found.symbols.len() as f64;
            found.symbols.keys().map(|symbol| (symbol.clone(), share)).unzip()
        }
    };
    let returns = returns(&found, symbols)?;
    let factors = (args.factors as usize).min(shares.len());
    let request = RiskRequest {
        returns: &returns.values,
        weights: &shares,
        factors,
        horizon_bars: horizon,
        paths: args.paths,
        tail: tail(args.tail),
        levels: &args.levels,
        seed: args.seed,
    };
    let report = backend.risk(&request)?;
    note_failures(&backend, ui);
    if args.json {
        ui.print_json(&to_json(args, &returns, &shares, horizon, factors, &report, backend.name()));
    } else {
        ui.print(&render(args, &returns, &shares, horizon, factors, &report, ui));
    }
    Ok(Exit::Ok)
}

fn to_json(
    args: &RiskArgs,
    returns: &Returns,
    shares: &[f64],
    horizon: f64,
    factors: usize,
    report: &RiskReport,
    device: &str,
) -> serde_json::Value {
    let levels = report.levels.iter().map(|level| {
        let parts = returns.symbols.iter().zip(&level.parts);
        json!({
            "level": level.level, "var": level.var, "var_low": level.var_interval.0, "var_high": level.var_interval.1,
            "shortfall": level.shortfall, "shortfall_error": level.shortfall_error,
            "parts": parts.map(|(symbol, part)| (symbol.clone(), json!(part))).collect::<serde_json::Map<_, _>>(),
        })
    });
    json!({
        "bars": args.bars.to_string(), "rows": returns.rows, "horizon_bars": horizon, "paths": args.paths,
        "seed": args.seed, "factors": factors, "explained": report.explained,
        "weights": returns.symbols.iter().zip(shares).map(|(symbol, share)| (symbol.clone(), json!(share)))
            .collect::<serde_json::Map<_, _>>(),
        "mean_loss": report.mean, "deviation": report.deviation, "worst": report.worst,
        "levels": levels.collect::<Vec<_>>(), "derived": { "device": device },
    })
}

fn render(
    args: &RiskArgs,
    returns: &Returns,
    shares: &[f64],
    horizon: f64,
    factors: usize,
    report: &RiskReport,
    ui: &Ui,
) -> String {
    let percent = |share: f64| format!("{:.3} %", 100.0 * share);
    let mut facts = Table::facts();
    facts.fact("symbols", thousands(returns.symbols.len() as u64));
    facts.fact("returns", format!("{} of {} bars", thousands(returns.rows as u64), args.bars));
    facts.fact("horizon", format!("{horizon} bars"));
    let explained = report.explained.iter().sum::<f64>();
    facts.fact("factors", format!("{factors}, which explain {:.1} % of the variance", 100.0 * explained));
    facts.fact("paths", thousands(args.paths));
    facts.fact("deviation", percent(report.deviation));
    facts.fact("worst", percent(report.worst));
    let mut levels = Table::new(&["level", ">VaR", ">95 % interval", ">shortfall", ">error"]);
    for level in &report.levels {
        let (low, high) = level.var_interval;
        levels.row([
            &format!("{} %", (level.level * 1e6).round() / 1e4),
            &percent(level.var),
            &format!("{} to {}", percent(low), percent(high)),
            &percent(level.shortfall),
            &percent(level.shortfall_error),
        ]);
    }
    let mut text = format!("{}\n{}", facts.render(ui, 0), levels.render(ui, 0));
    if let Some(deepest) = report.levels.iter().max_by(|a, b| a.level.total_cmp(&b.level)) {
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by(|&a, &b| deepest.parts[b].total_cmp(&deepest.parts[a]).then(a.cmp(&b)));
        let mut parts = Table::new(&["symbol", ">weight", ">part of the shortfall"]);
        for &at in order.iter().take(args.top as usize) {
            parts.cells(vec![
                (Tone::Plain, clean(&returns.symbols[at])),
                (Tone::Plain, percent(shares[at])),
                (Tone::Plain, percent(deepest.parts[at])),
            ]);
        }
        text.push('\n');
        text.push_str(&parts.render(ui, 0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::History;

    #[test]
    fn weights_are_read_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            weights(&path).map_err(|failure| failure.error.to_string())
        };
        let good = BTreeMap::from([("A".to_owned(), 0.5), ("B".to_owned(), -0.25)]);
        assert_eq!(read("symbol,weight\nA,0.5\nB, -0.25\n"), Ok(good));
        for (text, wrong) in [
            ("", "has no weights"),
            ("A;1", "line 1: there is no comma"),
            ("A,1\nB,x", "line 2: `x` is no share"),
            ("A,1\nA,2", "line 2: `A` is there twice"),
            ("A,inf", "line 1: `inf` is no share"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn returns_are_of_common_times_and_carry_prices_on() {
        let history = |bars: &[(u64, i64)]| {
            let mut history = History::default();
            bars.iter().for_each(|&(end, close)| {
                history.take(end, end, [close; 3]);
            });
            history
        };
        let mut found = Histories::default();
        found.symbols.insert("A".into(), history(&[(1, 90), (2, 100), (3, 110), (5, 121)]));
        found.symbols.insert("B".into(), history(&[(2, 50), (4, 100), (6, 100)]));
        let made = returns(&found, vec!["A".into(), "B".into()]).unwrap_or_else(|f| panic!("{:#}", f.error));
        assert_eq!((made.rows, made.values.len()), (4, 8)); // from 2 to 6
        let want = [1.1f64, 1.0, 1.0, 2.0, 1.1, 1.0, 1.0, 1.0];
        for (value, want) in made.values.iter().zip(want) {
            assert!((value - want.ln()).abs() < 1e-12, "{:?}", made.values);
        }
        found.symbols.insert("C".into(), history(&[(6, 1)]));
        let late = returns(&found, vec!["A".into(), "C".into()]).err().map(|f| f.error.to_string()).unwrap();
        assert!(late.contains("only 1 common bars"), "{late}");
    }
}
