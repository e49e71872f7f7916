//! `pricing/<name>.csv` -> `pricing/<name>.csv`: the columns of the market as they are, then `call`, `put` and
//! `geometric_asian_call` as estimated from quasi-random points, and of plain paths the 95 % intervals `<value>_low`, `<value>_high`.
//!
//! `compare.py` compares the values; a reference value should lie in its interval in 95 of 100 rows.

use crate::{YardstickError, create, inputs, open};
use anyhow::Context;
use std::path::Path;
use tidegate_gpu::options::{Market, OptionBatch, Payoff};
use tidegate_gpu::sobol::QuasiBatch;
use tidegate_gpu::{Backend, Cpu};

/// The market of a row, in this order.
const MARKET: [&str; 6] = ["spot", "strike", "years", "rate", "dividend_yield", "volatility"];
/// What is estimated.
const VALUES: [&str; 3] = ["call", "put", "geometric_asian_call"];
/// Points and replicates of an estimate, and paths of an interval.
const POINTS: u32 = 32_768;
const REPLICATES: u32 = 4;
const PATHS: u64 = 65_536;
/// Steps on the way, for the mean: that of the continuous path is looked for.
const STEPS: u32 = 4;

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let cpu = Cpu::new(0)?;
    let files = inputs(&data.join("pricing"), ".csv", "<name>.csv")?;
    for (stem, path) in &files {
        let mut rows = csv::Reader::from_reader(open(path)?);
        let head = rows.headers().with_context(|| format!("cannot read `{}`", path.display()))?.clone();
        let places = MARKET.map(|name| head.iter().position(|column| column == name));
        let mut table = create(&out.join("pricing"), &format!("{stem}.csv"))?;
        let intervals = VALUES.iter().flat_map(|name| [format!("{name}_low"), format!("{name}_high")]);
        let names = MARKET.iter().chain(&VALUES).map(ToString::to_string);
        table.write_record(names.chain(intervals))?;
        for (at, row) in rows.records().enumerate() {
            let line = at as u64 + 2;
            let wrong = |reason: String| YardstickError::BadRow { path: path.clone(), line, reason };
            let row = row.map_err(|error| wrong(error.to_string()))?;
            let field = |which: usize| {
                let text = places[which].and_then(|place| row.get(place));
                text.ok_or_else(|| wrong(format!("there is no column {}", MARKET[which])))
            };
            let number = |which: usize| -> anyhow::Result<f64> {
                let text = field(which)?;
                Ok(text.parse().map_err(|_| {
                    wrong(format!("`{text}` is no number, where {} should be", MARKET[which]))
                })?)
            };
            let market = Market {
                spot: number(0)?,
                rate: number(3)?,
                dividend_yield: number(4)?,
                volatility: number(5)?,
                years: number(2)?,
            };
            let strike = number(1)?;
            let payoffs =
                [Payoff::Call { strike }, Payoff::Put { strike }, Payoff::GeometricAsianCall { strike }];
            let refused = |error: tidegate_gpu::BatchError| wrong(error.to_string());
            let quasi = QuasiBatch {
                market,
                payoffs: &payoffs,
                points: POINTS,
                replicates: REPLICATES,
                steps: STEPS,
                seed: at as u32,
            };
            let values = cpu.install(|| quasi.run()).map_err(refused)?;
            let plain =
                OptionBatch { market, payoffs: &payoffs, paths: PATHS, steps: STEPS, seed: at as u64 };
            let ranges = cpu.price(&plain).map_err(refused)?;
            let mut record: Vec<String> =
                (0..MARKET.len()).map(|which| field(which).map(str::to_owned)).collect::<Result<_, _>>()?;
            record.extend(values.iter().map(|estimate| estimate.value.to_string()));
            record.extend(ranges.iter().flat_map(|estimate| {
                let (low, high) = estimate.interval95();
                [low.to_string(), high.to_string()]
            }));
            table.write_record(&record)?;
        }
        table.flush()?;
    }
    Ok(files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_valued_and_a_damaged_row_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("pricing")).unwrap();
        let path = data.join("pricing/some.csv");
        let text = "spot,strike,years,rate,dividend_yield,volatility,call\n42,40,0.5,0.1,0,0.2,4.759\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(write(&data, &out).unwrap(), 1);
        let table = std::fs::read_to_string(out.join("pricing/some.csv")).unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!((rows.len(), rows[0][6], rows[0][9]), (2, "call", "call_low"));
        let number = |column: usize| rows[1][column].parse::<f64>().unwrap();
        // The textbook's values, 4.76 and 0.81.
        assert!((number(6) - 4.7594).abs() < 4e-3 && (number(7) - 0.8086).abs() < 4e-3, "{table}");
        assert!(number(9) < number(6) && number(6) < number(10), "{table}");
        for (from, to, wrong) in [
            ("0.5", "x", "line 2: `x` is no number, where years should be"),
            ("strike", "price", "line 2: there is no column strike"),
            ("0.2", "-1", "line 2: volatility is -1"),
        ] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = write(&data, &out).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
