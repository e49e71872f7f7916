//! Results as CSV: times in nanoseconds, prices and sizes as exact decimals, an undefined value as nothing.

use super::part::Part;
use super::results::{Layout, ResultTable};
use super::{OutputError, csv_field};
use std::io::Write;
use std::path::Path;
use tidegate_engine::{BarState, Cause, Output, Price, Size};

pub(super) struct CsvTable {
    part: Part,
    layout: Layout,
}

impl CsvTable {
    pub(super) fn create(path: &Path, layout: Layout) -> Result<Self, OutputError> {
        let mut part = Part::create(path)?;
        let header = header(&layout);
        part.record(|row| row.extend_from_slice(format!("{header}\n").as_bytes()))?;
        Ok(Self { part, layout })
    }
}

/// The names of a layout's columns.
pub(super) fn header(layout: &Layout) -> String {
    match layout {
        Layout::Bars => "symbol,ts_open,ts_close,open,high,low,close,volume,buy_volume,vwap,trades,revision,\
                             state,cause,frame_first,frame_last,missing"
            .to_owned(),
        Layout::Values(columns) => format!("symbol,ts_close,{}", columns.join(",")),
        Layout::Hosts(columns) => {
            format!("host,ts_open,ts_close,{}", columns.get(1..).unwrap_or_default().join(","))
        }
        Layout::Late => "symbol,ts_event,price,size,flags,frame".to_owned(),
    }
}

impl ResultTable for CsvTable {
    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError> {
        let layout = &self.layout;
        self.part.record(|row| {
            csv_field(name, row);
            // Writing to memory cannot fail.
            let _ = write_row(layout, output, row);
            row.push(b'\n');
        })
    }

    fn finish(self: Box<Self>) -> Result<u64, OutputError> {
        self.part.finish()
    }
}

pub(super) fn write_row(layout: &Layout, output: &Output, row: &mut Vec<u8>) -> std::io::Result<()> {
    match layout {
        Layout::Bars => {
            let bar = output.bar();
            write!(
                row,
                ",{},{},{},{},{},{},{},{},",
                bar.ts_open,
                output.ts,
                Price(bar.open),
                Price(bar.high),
                Price(bar.low),
                Price(bar.close),
                bar.volume(),
                bar.buy_volume(),
            )?;
            if let Some(vwap) = bar.vwap() {
                write!(row, "{vwap}")?;
            }
            write!(
                row,
                ",{},{},{},{},{},{},{}",
                bar.trades,
                bar.revision,
                BarState::name(output.state),
                Cause::name(output.cause),
                bar.frame_first,
                bar.frame_last,
                bar.missing
            )
        }
        Layout::Values(_) => {
            write!(row, ",{}", output.ts)?;
            for value in output.values() {
                row.push(b',');
                if !value.is_nan() {
                    write!(row, "{value}")?;
                }
            }
            Ok(())
        }
        Layout::Hosts(columns) => {
            write!(row, ",{},{}", output.words[0], output.ts)?;
            for word in output.words.iter().take(columns.len()).skip(1) {
                write!(row, ",{word}")?;
            }
            Ok(())
        }
        Layout::Late => {
            let [ts, price, size, flags, frame] = late_words(output);
            write!(row, ",{ts},{},{},{flags},{frame}", Price(price as i64), Size(size))
        }
    }
}

/// Event time, price, size, flags and frame of a late trade.
pub(super) fn late_words(output: &Output) -> [u64; 5] {
    [output.words[0], output.words[1], output.words[2], output.words[3], output.words[4]]
}
