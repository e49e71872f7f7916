//! What a row holds, in one place for every format: its columns and its cells.

use crate::plan::{StreamInfo, StreamKind};
use tidegate_engine::{BarState, Cause, Output, Price};

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    Bars,
    /// Bars that say their first trade, by which they are known.
    MeasureBars,
    Values(Vec<String>),
    /// The first column is `ts_open`.
    Hosts(Vec<String>),
    Late,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Nanoseconds since 1970.
    Time,
    Price,
    Size,
    Integer,
    Float,
}

/// A column: its name in tables, its name in JSON lines (short, as exchanges have them), and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) kind: Kind,
}

/// A value on its way into a column of its kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    Time(u64),
    Price(Option<Price>),
    /// 1e-8 units.
    Size(u128),
    Integer(u64),
    /// NaN where there is no value.
    Float(f64),
}

impl Layout {
    pub(super) fn of(stream: &StreamInfo) -> Self {
        match stream.kind {
            StreamKind::Bars => Self::Bars,
            StreamKind::MeasureBars => Self::MeasureBars,
            StreamKind::Indicators => Self::Values(stream.columns.clone()),
            StreamKind::Hosts => Self::Hosts(stream.columns.clone()),
        }
    }

    pub(super) fn is_bars(&self) -> bool {
        matches!(self, Self::Bars | Self::MeasureBars)
    }

    pub(super) fn columns(&self) -> Vec<Column> {
        let column = |name: &str, key: &str, kind| Column { name: name.into(), key: key.into(), kind };
        let named = |name: &String, kind| column(name, name, kind);
        match self {
            Self::Bars | Self::MeasureBars => {
                let mut columns = vec![
                    column("symbol", "k", Kind::Text),
                    column("ts_open", "t", Kind::Time),
                    column("ts_close", "T", Kind::Time),
                    column("open", "o", Kind::Price),
                    column("high", "h", Kind::Price),
                    column("low", "l", Kind::Price),
                    column("close", "c", Kind::Price),
                    column("volume", "v", Kind::Size),
                    column("buy_volume", "V", Kind::Size),
                    column("vwap", "w", Kind::Price),
                    column("trades", "n", Kind::Integer),
                    column("revision", "rev", Kind::Integer),
                    column("state", "state", Kind::Text),
                    column("cause", "cause", Kind::Text),
                    column("frame_first", "frame_first", Kind::Integer),
                    column("frame_last", "frame_last", Kind::Integer),
                    column("missing", "missing", Kind::Integer),
                ];
                if *self == Self::MeasureBars {
                    columns.push(column("first_trade", "first_trade", Kind::Integer));
                }
                columns
            }
            Self::Values(names) => {
                let mut columns =
                    vec![column("symbol", "k", Kind::Text), column("ts_close", "T", Kind::Time)];
                columns.extend(names.iter().map(|name| named(name, Kind::Float)));
                columns
            }
            Self::Hosts(names) => {
                let mut columns = vec![
                    column("host", "k", Kind::Text),
                    column("ts_open", "t", Kind::Time),
                    column("ts_close", "T", Kind::Time),
                ];
                columns.extend(names.iter().skip(1).map(|name| named(name, Kind::Integer)));
                columns
            }
            Self::Late => vec![
                column("symbol", "k", Kind::Text),
                column("ts_event", "E", Kind::Time),
                column("price", "p", Kind::Price),
                column("size", "q", Kind::Size),
                column("flags", "flags", Kind::Integer),
                column("frame", "frame", Kind::Integer),
            ],
        }
    }

    /// The cells of a row, in the order of [`Layout::columns`].
    pub(super) fn cells<'a>(&self, name: &'a str, output: &Output, mut push: impl FnMut(Cell<'a>)) {
        let words = output.words;
        push(Cell::Text(name));
        match self {
            Self::Bars | Self::MeasureBars => {
                let bar = output.bar();
                push(Cell::Time(bar.ts_open));
                push(Cell::Time(output.ts));
                for price in [bar.open, bar.high, bar.low, bar.close] {
                    push(Cell::Price(Some(Price(price))));
                }
                push(Cell::Size(bar.volume().0));
                push(Cell::Size(bar.buy_volume().0));
                push(Cell::Price(bar.vwap()));
                push(Cell::Integer(bar.trades));
                push(Cell::Integer(bar.revision.into()));
                push(Cell::Text(BarState::name(output.state)));
                push(Cell::Text(Cause::name(output.cause)));
                for counter in [bar.frame_first, bar.frame_last, bar.missing] {
                    push(Cell::Integer(counter));
                }
                if *self == Self::MeasureBars {
                    push(Cell::Integer(bar.first_trade.into()));
                }
            }
            Self::Values(names) => {
                push(Cell::Time(output.ts));
                output.values().take(names.len()).for_each(|value| push(Cell::Float(value)));
            }
            Self::Hosts(names) => {
                push(Cell::Time(words[0]));
                push(Cell::Time(output.ts));
                words.iter().take(names.len()).skip(1).for_each(|&word| push(Cell::Integer(word)));
            }
            Self::Late => {
                push(Cell::Time(words[0]));
                push(Cell::Price(Some(Price(words[1] as i64))));
                push(Cell::Size(words[2].into()));
                push(Cell::Integer(words[3]));
                push(Cell::Integer(words[4]));
            }
        }
    }
}
