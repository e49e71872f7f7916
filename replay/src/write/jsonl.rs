//! Results as JSON lines in the manner of exchange feeds: `t` and `T` are a bar's start and end, `x` says that it is
//! closed, prices and sizes are decimal text.

use super::OutputError;
use super::part::Part;
use super::results::ResultTable;
use super::row::{Cell, Column, Layout};
use std::io::Write;
use std::path::Path;
use tidegate_engine::{BarState, Output, Volume};

pub(super) struct JsonlTable {
    part: Part,
    lines: Lines,
}

/// How the lines of one stream are written.
pub(super) struct Lines {
    layout: Layout,
    columns: Vec<Column>,
    channel: String,
}

impl Lines {
    pub(super) fn new(layout: Layout, channel: String) -> Self {
        let columns = layout.columns();
        Self { layout, columns, channel }
    }

    /// Appends a row with its line end.
    pub(super) fn write(&self, name: &str, output: &Output, row: &mut Vec<u8>) {
        let Self { layout, columns, channel } = self;
        // Writing to memory cannot fail.
        let _ = write!(row, "{{\"ch\":\"{channel}\",\"seq\":{}", output.sequence);
        if layout.is_bars() {
            let _ = write!(row, ",\"x\":{}", output.state != BarState::Forming as u8);
        }
        let mut columns = columns.iter();
        layout.cells(name, output, |cell| {
            if let Some(column) = columns.next() {
                let _ = write!(row, ",\"{}\":", column.key).and_then(|()| write_cell(cell, row));
            }
        });
        row.extend_from_slice(b"}\n");
    }
}

impl JsonlTable {
    pub(super) fn create(path: &Path, layout: Layout, channel: String) -> Result<Self, OutputError> {
        Ok(Self { part: Part::create(path)?, lines: Lines::new(layout, channel) })
    }
}

impl ResultTable for JsonlTable {
    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError> {
        let Self { part, lines } = self;
        part.record(|row| lines.write(name, output, row))
    }

    fn finish(self: Box<Self>) -> Result<u64, OutputError> {
        self.part.finish()
    }
}

fn write_cell(cell: Cell<'_>, row: &mut Vec<u8>) -> std::io::Result<()> {
    match cell {
        // Names come from files and may hold anything.
        Cell::Text(text) => Ok(serde_json::to_writer(row, text)?),
        Cell::Time(number) | Cell::Integer(number) => write!(row, "{number}"),
        Cell::Price(Some(price)) => write!(row, "\"{price}\""),
        Cell::Size(size) => write!(row, "\"{}\"", Volume(size)),
        Cell::Float(value) if value.is_finite() => write!(row, "{value}"),
        Cell::Price(None) | Cell::Float(_) => write!(row, "null"),
    }
}
