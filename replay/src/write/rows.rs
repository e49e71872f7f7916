//! Rows as the files have them, for results that go elsewhere: a terminal, a pipe.

use super::results::Layout;
use super::{csv, csv_field, jsonl};
use crate::plan::{StreamInfo, StreamKind};
use tidegate_engine::{Output, output_kind};

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowText {
    /// As in `STREAM.csv`.
    Csv,
    /// As in `STREAM.jsonl`.
    Jsonl,
}

/// Writes the rows of one stream.
pub struct Rows {
    text: RowText,
    channel: String,
    layout: Layout,
}

impl Rows {
    /// Rows of a stream.
    #[must_use]
    pub fn new(stream: &StreamInfo, text: RowText) -> Self {
        let layout = match stream.kind {
            StreamKind::Bars => Layout::Bars,
            StreamKind::Indicators => Layout::Values(stream.columns.clone()),
            StreamKind::Hosts => Layout::Hosts(stream.columns.clone()),
        };
        Self { text, channel: stream.name.clone(), layout }
    }

    /// The line with the names of columns, for CSV.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        (self.text == RowText::Csv).then(|| csv::header(&self.layout))
    }

    /// Appends a row with its line end. Late events set aside have columns of their own, as `STREAM.late` has them.
    pub fn write(&self, name: &str, output: &Output, out: &mut Vec<u8>) {
        let late = output.kind == output_kind::LATE;
        let layout = if late { &Layout::Late } else { &self.layout };
        // Writing to memory cannot fail.
        match self.text {
            RowText::Csv => {
                csv_field(name, out);
                let _ = csv::write_row(layout, output, out);
                out.push(b'\n');
            }
            RowText::Jsonl => {
                let late = format!("{}.late", self.channel);
                let channel = if *layout == Layout::Late { &late } else { &self.channel };
                let _ = jsonl::write_row(layout, channel, name, output, out);
                out.extend_from_slice(b"}\n");
            }
        }
    }
}
