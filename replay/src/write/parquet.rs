//! Results as Parquet: times as timestamps in UTC, prices as `decimal(38, 9)`, sizes as `decimal(38, 8)`, so that
//! nothing is rounded; counters as 64-bit integers, indicators as floats that may be null.

use super::OutputError;
use super::part::Part;
use super::results::ResultTable;
use super::row::{Cell, Column, Kind, Layout};
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
use tidegate_engine::Output;

/// Rows of a record batch.
const BATCH_ROWS: usize = 16_384;

pub(super) struct ParquetTable {
    path: PathBuf,
    layout: Layout,
    writer: ArrowWriter<Part>,
    schema: Arc<Schema>,
    columns: Vec<Builder>,
    rows: usize,
}

enum Builder {
    Text(StringBuilder),
    Time(TimestampNanosecondBuilder),
    Decimal(Decimal128Builder),
    Integer(Int64Builder),
    Float(Float64Builder),
}

fn schema(layout: &Layout) -> Schema {
    let kind = |kind| match kind {
        Kind::Text => DataType::Utf8,
        Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        Kind::Price => DataType::Decimal128(38, 9),
        Kind::Size => DataType::Decimal128(38, 8),
        Kind::Integer => DataType::Int64,
        Kind::Float => DataType::Float64,
    };
    let field = |column: Column| Field::new(column.name, kind(column.kind), true);
    Schema::new(layout.columns().into_iter().map(field).collect::<Vec<_>>())
}

impl ParquetTable {
    pub(super) fn create(path: &Path, layout: Layout) -> Result<Self, OutputError> {
        let schema = Arc::new(schema(&layout));
        let writer =
            ArrowWriter::try_new(Part::create(path)?, Arc::clone(&schema), Some(parquet_properties()))
                .map_err(|error| parquet_error(path, error))?;
        let columns = schema.fields().iter().map(|field| Builder::of(field.data_type())).collect();
        Ok(Self { path: path.to_owned(), layout, writer, schema, columns, rows: 0 })
    }

    fn empty(&mut self) -> Result<(), OutputError> {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(ParquetError::from)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|error| parquet_error(&self.path, error))
    }
}

impl Builder {
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
            (Self::Decimal(column), Cell::Price(price)) => {
                column.append_option(price.map(|price| i128::from(price.0)));
            }
            (Self::Decimal(column), Cell::Size(size)) => column.append_option(i128::try_from(size).ok()),
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
        self.layout.cells(name, output, |cell| {
            if let Some(column) = columns.next() {
                column.push(cell);
            }
        });
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
