//! Rows as the files have them, for results that go elsewhere: a terminal, a pipe.

use super::csv;
use super::jsonl::Lines;
use super::row::Layout;
use crate::plan::StreamInfo;
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
pub struct Rows(Form);

enum Form {
    Csv(Layout),
    /// Of results, and of late events set aside.
    Jsonl(Lines, Lines),
}

impl Rows {
    /// Rows of a stream.
    #[must_use]
    pub fn new(stream: &StreamInfo, text: RowText) -> Self {
        let layout = Layout::of(stream);
        Self(match text {
            RowText::Csv => Form::Csv(layout),
            RowText::Jsonl => Form::Jsonl(
                Lines::new(layout, stream.name.clone()),
                Lines::new(Layout::Late, format!("{}.late", stream.name)),
            ),
        })
    }

    /// The line with the names of columns, for CSV.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        match &self.0 {
            Form::Csv(layout) => Some(csv::header(layout)),
            Form::Jsonl(..) => None,
        }
    }

    /// Appends a row with its line end. Late events set aside have columns of their own, as `STREAM.late` has them.
    pub fn write(&self, name: &str, output: &Output, out: &mut Vec<u8>) {
        let late = output.kind == output_kind::LATE;
        match &self.0 {
            Form::Csv(layout) => csv::write_row(if late { &Layout::Late } else { layout }, name, output, out),
            Form::Jsonl(results, set_aside) => {
                (if late { set_aside } else { results }).write(name, output, out);
            }
        }
    }
}
