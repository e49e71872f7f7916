//! `indicators/<name>.csv` (daily bars) -> `indicators/<name>.csv`: `date,<FUNCTION>.<output>,...`.

use crate::{YardstickError, create, inputs};
use std::path::Path;
use tidegate_actors::indicators::{IndicatorBar, IndicatorSet, IndicatorSpec};
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::{Price, Size};

/// TA-Lib's functions that we have, with its default parameters and its names of the outputs in our order.
const FUNCTIONS: [(&str, &[&str]); 6] = [
    ("sma:30", &["SMA.real", "MA.real"]),
    ("ema:30", &["EMA.real"]),
    ("rsi:14", &["RSI.real"]),
    ("macd:12:26:9", &["MACD.macd", "MACD.macdsignal", "MACD.macdhist"]),
    ("bb:20:2", &["BBANDS.middleband", "BBANDS.upperband", "BBANDS.lowerband"]),
    ("atr:14", &["ATR.real"]),
];

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let files = inputs(&data.join("indicators"), ".csv", "<name>.csv")?;
    let specs = FUNCTIONS.iter().map(|(text, _)| text.parse()).collect::<Result<Vec<IndicatorSpec>, _>>()?;
    for (stem, path) in &files {
        let mut set = IndicatorSet::new(&specs)?;
        let mut table = create(&out.join("indicators"), &format!("{stem}.csv"))?;
        table.write_field("date")?;
        table.write_record(FUNCTIONS.iter().flat_map(|(_, names)| *names))?;
        let mut rows = csv::Reader::from_path(path)?;
        let columns = Columns::find(path, rows.headers()?)?;
        let mut record = csv::StringRecord::new();
        while rows.read_record(&mut record)? {
            let (date, bar) = columns.read(path, &record)?;
            let mut row = [0.0; OUTPUT_WORDS];
            set.update(0, &bar, &mut row);
            table.write_field(date)?;
            let mut values = row.iter();
            for (spec, (_, names)) in specs.iter().zip(FUNCTIONS) {
                let own: Vec<f64> = values.by_ref().take(spec.column_count()).copied().collect();
                // A function of one output may have two names.
                let last = own.last().copied().unwrap_or(f64::NAN);
                for value in own.iter().copied().chain(std::iter::repeat(last)).take(names.len()) {
                    let text = if value.is_nan() { String::new() } else { value.to_string() };
                    table.write_field(text)?;
                }
            }
            table.write_record(None::<&[u8]>)?;
        }
        table.flush()?;
    }
    Ok(files.len())
}

/// Where the fields of a daily bar are: date, open, high, low, close, volume.
struct Columns([usize; 6]);

impl Columns {
    fn find(path: &Path, head: &csv::StringRecord) -> Result<Self, YardstickError> {
        let mut places = [0; 6];
        for (place, name) in places.iter_mut().zip(["date", "open", "high", "low", "close", "volume"]) {
            let at = head.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
            *place = at.ok_or_else(|| YardstickError::BadRow {
                path: path.to_owned(),
                line: 1,
                reason: format!("there is no column `{name}`"),
            })?;
        }
        Ok(Self(places))
    }

    fn read<'a>(
        &self,
        path: &Path,
        record: &'a csv::StringRecord,
    ) -> Result<(&'a str, IndicatorBar), YardstickError> {
        let bad = |error: tidegate_engine::UnitError| YardstickError::BadRow {
            path: path.to_owned(),
            line: record.position().map_or(0, csv::Position::line),
            reason: error.to_string(),
        };
        let field = |at: usize| record.get(self.0[at]).unwrap_or_default().trim();
        let price = |at: usize| Price::parse(field(at).as_bytes()).map(|price| price.0).map_err(bad);
        let volume = u128::from(Size::parse(field(5).as_bytes()).map_err(bad)?.0);
        let (open, high, low, close) = (price(1)?, price(2)?, price(3)?, price(4)?);
        // A daily bar has no exact notional; none of the functions here reads it.
        let bar = IndicatorBar { open, high, low, close, volume, notional: 0 };
        Ok((field(0), bar))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_column_per_output_and_rows_keep_their_date() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("indicators")).unwrap();
        let mut text = "date,open,high,low,close,volume\n".to_owned();
        for day in 1..=40 {
            text += &format!("200001{day:02},{day},{day}.5,{day},{day}.25,100.0\n");
        }
        std::fs::write(data.join("indicators/a.csv"), &text).unwrap();
        assert_eq!(write(&data, &out).unwrap(), 1);
        let table = std::fs::read_to_string(out.join("indicators/a.csv")).unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(rows[0][..3], ["date", "SMA.real", "MA.real"]);
        assert!(rows.iter().all(|row| row.len() == 12));
        assert_eq!(rows[29][..3], ["20000129", "", ""], "not defined before 30 bars");
        assert_eq!(rows[30][..3], ["20000130", "15.75", "15.75"]);
        assert_eq!(rows[15][4], "100", "prices only rose");

        std::fs::write(data.join("indicators/a.csv"), "date,open,high,low,close,volume\n1,2,3,4,x,5\n")
            .unwrap();
        let error = write(&data, &out).unwrap_err().to_string();
        assert!(error.ends_with("line 2: `x` is not a decimal number"), "{error}");
    }
}
