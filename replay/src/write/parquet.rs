//! Results as Parquet: times as timestamps in UTC, prices as `decimal(38, 9)`, sizes as `decimal(38, 8)`, so that
//! nothing is rounded; counters as 64-bit integers, indicators as floats that may be null.

use super::OutputError;
use super::csv::late_words;
use super::part::Part;
use super::results::{Layout, ResultTable};
use super::trades::{parquet_error, parquet_properties};
use ::parquet::arrow::ArrowWriter;
use ::parquet::errors::ParquetError;
use arrow::array::{
    ArrayRef, Decimal128Builder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampNanosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_engine::{BarState, Cause, Output};

/// Rows of a record batch.
const BATCH_ROWS: usize = 16_384;

pub(super) struct ParquetTable {
    path: PathBuf,
    layout: Layout,
    writer: ArrowWriter<Part>,
    schema: Arc<Schema>,
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    Text(StringBuilder),
    Time(TimestampNanosecondBuilder),
    Decimal(Decimal128Builder),
    Integer(Int64Builder),
    Float(Float64Builder),
}

/// A value on its way into a column.
enum Cell<'a> {
    Text(&'a str),
    Time(u64),
    Decimal(Option<i128>),
    Integer(u64),
    Float(f64),
}

fn decimal(scale: i8) -> DataType {
    DataType::Decimal128(38, scale)
}

fn schema(layout: &Layout) -> Schema {
    let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let field = |name: &str, kind| Field::new(name, kind, true);
    let fields = match layout {
        Layout::Bars => vec![
            field("symbol", DataType::Utf8),
            field("ts_open", time()),
            field("ts_close", time()),
            field("open", decimal(9)),
            field("high", decimal(9)),
            field("low", decimal(9)),
            field("close", decimal(9)),
            field("volume", decimal(8)),
            field("buy_volume", decimal(8)),
            field("vwap", decimal(9)),
            field("trades", DataType::Int64),
            field("revision", DataType::Int64),
            field("state", DataType::Utf8),
            field("cause", DataType::Utf8),
            field("frame_first", DataType::Int64),
            field("frame_last", DataType::Int64),
            field("missing", DataType::Int64),
        ],
        Layout::Values(columns) => {
            let mut fields = vec![field("symbol", DataType::Utf8), field("ts_close", time())];
            fields.extend(columns.iter().map(|name| field(name, DataType::Float64)));
            fields
        }
        Layout::Hosts(columns) => {
            let mut fields =
                vec![field("host", DataType::Utf8), field("ts_open", time()), field("ts_close", time())];
            fields.extend(columns.iter().skip(1).map(|name| field(name, DataType::Int64)));
            fields
        }
        Layout::Late => vec![
            field("symbol", DataType::Utf8),
            field("ts_event", time()),
            field("price", decimal(9)),
            field("size", decimal(8)),
            field("flags", DataType::Int64),
            field("frame", DataType::Int64),
        ],
    };
    Schema::new(fields)
}

impl ParquetTable {
    pub(super) fn create(path: &Path, layout: Layout) -> Result<Self, OutputError> {
        let schema = Arc::new(schema(&layout));
        let writer =
            ArrowWriter::try_new(Part::create(path)?, Arc::clone(&schema), Some(parquet_properties()))
                .map_err(|error| parquet_error(path, error))?;
        let columns = schema.fields().iter().map(|field| Column::of(field.data_type())).collect();
        Ok(Self { path: path.to_owned(), layout, writer, schema, columns, rows: 0 })
    }

    fn empty(&mut self) -> Result<(), OutputError> {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(ParquetError::from)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|error| parquet_error(&self.path, error))
    }
}

impl Column {
    fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Timestamp(..) => Self::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Int64 => Self::Integer(Int64Builder::new()),
            other => Self::Decimal(Decimal128Builder::new().with_data_type(other.clone())),
        }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(column), Cell::Text(text)) => column.append_value(text),
            (Self::Time(column), Cell::Time(ns)) => column.append_option(i64::try_from(ns).ok()),
            (Self::Decimal(column), Cell::Decimal(units)) => column.append_option(units),
            // Counters stay far below 2^63; one that did not would be shown as missing.
            (Self::Integer(column), Cell::Integer(n)) => column.append_option(i64::try_from(n).ok()),
            (Self::Float(column), Cell::Float(value)) => {
                column.append_option((!value.is_nan()).then_some(value));
            }
            _ => unreachable!("rows and schema are made from one layout"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Decimal(column) => Arc::new(column.finish()),
            Self::Integer(column) => Arc::new(column.finish()),
            Self::Float(column) => Arc::new(column.finish()),
        }
    }
}

impl ResultTable for ParquetTable {
    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError> {
        let mut columns = self.columns.iter_mut();
        let mut push = |cell| {
            if let Some(column) = columns.next() {
                column.push(cell);
            }
        };
        push(Cell::Text(name));
        match &self.layout {
            Layout::Bars => {
                let bar = output.bar();
                push(Cell::Time(bar.ts_open));
                push(Cell::Time(output.ts));
                for price in [bar.open, bar.high, bar.low, bar.close] {
                    push(Cell::Decimal(Some(i128::from(price))));
                }
                push(Cell::Decimal(i128::try_from(bar.volume().0).ok()));
                push(Cell::Decimal(i128::try_from(bar.buy_volume().0).ok()));
                push(Cell::Decimal(bar.vwap().map(|vwap| i128::from(vwap.0))));
                push(Cell::Integer(bar.trades));
                push(Cell::Integer(bar.revision));
                push(Cell::Text(BarState::name(output.state)));
                push(Cell::Text(Cause::name(output.cause)));
                for counter in [bar.frame_first, bar.frame_last, bar.missing] {
                    push(Cell::Integer(counter));
                }
            }
            Layout::Values(_) => {
                push(Cell::Time(output.ts));
                output.values().for_each(|value| push(Cell::Float(value)));
            }
            Layout::Hosts(columns) => {
                push(Cell::Time(output.words[0]));
                push(Cell::Time(output.ts));
                output.words.iter().take(columns.len()).skip(1).for_each(|&word| push(Cell::Integer(word)));
            }
            Layout::Late => {
                let [ts, price, size, flags, frame] = late_words(output);
                push(Cell::Time(ts));
                push(Cell::Decimal(Some(i128::from(price as i64))));
                push(Cell::Decimal(Some(i128::from(size))));
                push(Cell::Integer(flags));
                push(Cell::Integer(frame));
            }
        }
        self.rows += 1;
        if self.rows == BATCH_ROWS { self.empty() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<u64, OutputError> {
        if self.rows > 0 {
            self.empty()?;
        }
        let path = self.path;
        self.writer.into_inner().map_err(|error| parquet_error(&path, error))?.finish()
    }
}
