//! Results as CSV: times in nanoseconds, prices and sizes as exact decimals, an undefined value as nothing.

use super::part::Part;
use super::results::ResultTable;
use super::row::{Cell, Layout};
use super::{OutputError, csv_field};
use std::io::Write;
use std::path::Path;
use tidegate_engine::{Output, Volume};

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

impl ResultTable for CsvTable {
    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError> {
        let layout = &self.layout;
        self.part.record(|row| write_row(layout, name, output, row))
    }

    fn finish(self: Box<Self>) -> Result<u64, OutputError> {
        self.part.finish()
    }
}

/// The names of a layout's columns.
pub(super) fn header(layout: &Layout) -> String {
    let names: Vec<String> = layout.columns().into_iter().map(|column| column.name).collect();
    names.join(",")
}

/// Appends a row with its line end.
pub(super) fn write_row(layout: &Layout, name: &str, output: &Output, row: &mut Vec<u8>) {
    let mut between = false;
    layout.cells(name, output, |cell| {
        if std::mem::replace(&mut between, true) {
            row.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = write_cell(cell, row);
    });
    row.push(b'\n');
}

fn write_cell(cell: Cell<'_>, row: &mut Vec<u8>) -> std::io::Result<()> {
    match cell {
        Cell::Text(text) => {
            csv_field(text, row);
            Ok(())
        }
        Cell::Time(number) | Cell::Integer(number) => write!(row, "{number}"),
        Cell::Price(Some(price)) => write!(row, "{price}"),
        Cell::Size(size) => write!(row, "{}", Volume(size)),
        Cell::Float(value) if !value.is_nan() => write!(row, "{value}"),
        Cell::Price(None) | Cell::Float(_) => Ok(()),
    }
}
