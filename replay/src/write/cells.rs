//! Rows as the files have them, column by column, for who judges rows in place of writing them.

use super::row::{Cell, Kind, Layout};
use crate::plan::StreamInfo;
use tidegate_engine::Output;

/// The rows of one stream as texts and numbers.
#[derive(Debug, Clone)]
pub struct Cells(Layout);

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CellValue<'a> {
    /// Text.
    Text(&'a str),
    /// A number: prices and sizes in their units, times in seconds since 1970; each the double next to what the file shows.
    Number(f64),
}

/// Units of a price, of a size, and nanoseconds of a second.
const PRICE: f64 = 1e9;
const SIZE: f64 = 1e8;
const SECOND: f64 = 1e9;

impl Cells {
    /// Rows of a stream.
    #[must_use]
    pub fn of(stream: &StreamInfo) -> Self {
        Self(Layout::of(stream))
    }

    /// The columns behind that of the key, by the names that tables have, and whether they hold texts.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, bool)> {
        self.0.columns().into_iter().skip(1).map(|column| (column.name, column.kind == Kind::Text)).collect()
    }

    /// The cells of a row in the order of [`Cells::columns`]; `None` where there is no value. Not for late events set aside.
    pub fn read<'a>(&self, output: &Output, mut push: impl FnMut(Option<CellValue<'a>>)) {
        let mut is_key = true;
        self.0.cells("", output, |cell| {
            if std::mem::take(&mut is_key) {
                return;
            }
            push(match cell {
                Cell::Text(text) => Some(CellValue::Text(text)),
                Cell::Time(ns) => Some(CellValue::Number(ns as f64 / SECOND)),
                Cell::Price(price) => price.map(|price| CellValue::Number(price.0 as f64 / PRICE)),
                Cell::Size(size) => Some(CellValue::Number(size as f64 / SIZE)),
                Cell::Integer(value) => Some(CellValue::Number(value as f64)),
                Cell::Float(value) => value.is_finite().then_some(CellValue::Number(value)),
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::StreamKind;
    use tidegate_engine::{BarState, BarWords, output_kind};

    fn read(cells: &Cells, output: &Output) -> Vec<(String, Option<CellValue<'static>>)> {
        let mut values = Vec::new();
        cells.read(output, |value| values.push(value));
        cells.columns().into_iter().map(|(name, _)| name).zip(values).collect()
    }

    #[test]
    fn a_bar_has_the_numbers_that_its_file_shows() {
        let info = StreamInfo {
            id: 0,
            name: "bars.1s".to_owned(),
            kind: StreamKind::Bars,
            columns: Vec::new(),
            definition: String::new(),
        };
        let bar = BarWords {
            ts_open: 1_500_000_000,
            close: 100_100_000_000,
            volume: [250_000_000, 0],
            ..BarWords::default()
        };
        let output = Output {
            kind: output_kind::BAR,
            state: BarState::Final as u8,
            ts: 2_000_000_000,
            words: bar.to_words(),
            ..Output::default()
        };
        let values = read(&Cells::of(&info), &output);
        let of = |name: &str| values.iter().find(|(column, _)| column == name).unwrap().1;
        assert_eq!(of("close"), Some(CellValue::Number("100.1".parse().unwrap())));
        assert_eq!(of("ts_open"), Some(CellValue::Number(1.5)));
        assert_eq!(of("volume"), Some(CellValue::Number(2.5)));
        assert_eq!((of("state"), of("vwap")), (Some(CellValue::Text("final")), Some(CellValue::Number(0.0))));
        let rows = StreamInfo {
            kind: StreamKind::Indicators,
            columns: vec!["rsi".to_owned(), "x".to_owned()],
            ..info
        };
        let mut output = Output { kind: output_kind::VALUES, count: 2, ..output };
        (output.words[0], output.words[1]) = (70.5f64.to_bits(), f64::NAN.to_bits());
        let cells = Cells::of(&rows);
        assert_eq!(cells.columns()[0], ("ts_close".to_owned(), false));
        let values = read(&cells, &output);
        assert_eq!((values[1].1, values[2].1), (Some(CellValue::Number(70.5)), None));
    }
}
