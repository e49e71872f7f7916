//! Results as JSON lines in the manner of exchange feeds: `t` and `T` are a bar's start and end, `x` says that it is
//! closed, prices and sizes are decimal text.

use super::OutputError;
use super::csv::late_words;
use super::part::Part;
use super::results::{Layout, ResultTable};
use std::io::Write;
use std::path::Path;
use tidegate_engine::{BarState, Cause, Output, Price, Size};

pub(super) struct JsonlTable {
    part: Part,
    layout: Layout,
    channel: String,
}

impl JsonlTable {
    pub(super) fn create(path: &Path, layout: Layout, channel: String) -> Result<Self, OutputError> {
        Ok(Self { part: Part::create(path)?, layout, channel })
    }
}

impl ResultTable for JsonlTable {
    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError> {
        let (layout, channel) = (&self.layout, &self.channel);
        self.part.record(|row| {
            // Writing to memory cannot fail.
            let _ = write_row(layout, channel, name, output, row);
            row.extend_from_slice(b"}\n");
        })
    }

    fn finish(self: Box<Self>) -> Result<u64, OutputError> {
        self.part.finish()
    }
}

pub(super) fn write_row(
    layout: &Layout,
    channel: &str,
    name: &str,
    output: &Output,
    row: &mut Vec<u8>,
) -> std::io::Result<()> {
    // Names come from files and may hold anything.
    let key = serde_json::to_string(name)?;
    write!(row, "{{\"ch\":\"{channel}\",\"k\":{key},\"seq\":{}", output.sequence)?;
    match layout {
        Layout::Bars => {
            let bar = output.bar();
            write!(
                row,
                ",\"t\":{},\"T\":{},\"o\":\"{}\",\"h\":\"{}\",\"l\":\"{}\",\"c\":\"{}\",\"v\":\"{}\",\"V\":\"{}\",",
                bar.ts_open,
                output.ts,
                Price(bar.open),
                Price(bar.high),
                Price(bar.low),
                Price(bar.close),
                bar.volume(),
                bar.buy_volume(),
            )?;
            match bar.vwap() {
                Some(vwap) => write!(row, "\"w\":\"{vwap}\"")?,
                None => write!(row, "\"w\":null")?,
            }
            write!(
                row,
                ",\"n\":{},\"x\":{},\"rev\":{},\"state\":\"{}\",\"cause\":\"{}\",\"frames\":[{},{}],\"missing\":{}",
                bar.trades,
                output.state != BarState::Forming as u8,
                bar.revision,
                BarState::name(output.state),
                Cause::name(output.cause),
                bar.frame_first,
                bar.frame_last,
                bar.missing
            )
        }
        Layout::Values(columns) => {
            write!(row, ",\"T\":{}", output.ts)?;
            for (column, value) in columns.iter().zip(output.values()) {
                match value.is_finite() {
                    true => write!(row, ",\"{column}\":{value}")?,
                    false => write!(row, ",\"{column}\":null")?,
                }
            }
            Ok(())
        }
        Layout::Hosts(columns) => {
            write!(row, ",\"t\":{},\"T\":{}", output.words[0], output.ts)?;
            for (column, word) in columns.iter().zip(output.words).skip(1) {
                write!(row, ",\"{column}\":{word}")?;
            }
            Ok(())
        }
        Layout::Late => {
            let [ts, price, size, flags, frame] = late_words(output);
            let (price, size) = (Price(price as i64), Size(size));
            write!(row, ",\"E\":{ts},\"p\":\"{price}\",\"q\":\"{size}\",\"flags\":{flags},\"frame\":{frame}")
        }
    }
}
