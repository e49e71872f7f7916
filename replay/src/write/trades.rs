//! Trades as tables that other tools, and our own readers, take.

use super::part::Part;
use super::{OutputError, csv_field};
use crate::source::Names;
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, Decimal128Builder, RecordBatch, StringBuilder, TimestampNanosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::{Event, Price, Size, flag, kind};

/// Rows of a Parquet record batch.
const BATCH_ROWS: usize = 65_536;

/// The tables trades can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradeFormat {
    /// `ts_event,symbol,price,size,side`, times in nanoseconds, prices and sizes exact.
    Csv,
    /// The same columns: timestamp (ns, UTC), string, `decimal(38, 9)`, `decimal(38, 8)`, string.
    Parquet,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TradeSummary {
    /// Rows.
    pub trades: u64,
    /// Events the table has no row for: everything but plain trades.
    pub left_out: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes trades. Events other than plain trades (cancels, corrections, gaps) are left out and counted.
pub struct TradeWriter {
    out: Sink,
    trades: u64,
    left_out: u64,
}

enum Sink {
    Csv(Part),
    Parquet(Box<Table>),
}

struct Table {
    path: std::path::PathBuf,
    writer: ArrowWriter<Part>,
    schema: Arc<Schema>,
    ts: TimestampNanosecondBuilder,
    symbol: StringBuilder,
    price: Decimal128Builder,
    size: Decimal128Builder,
    side: StringBuilder,
    rows: usize,
}

fn side(flags: u8) -> &'static str {
    match (flags & flag::BUY != 0, flags & flag::SELL != 0) {
        (true, false) => "buy",
        (false, true) => "sell",
        _ => "",
    }
}

impl TradeWriter {
    /// Starts a table at `path`.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn create(path: &Path, format: TradeFormat) -> Result<Self, OutputError> {
        let mut part = Part::create(path)?;
        let out = match format {
            TradeFormat::Csv => {
                part.record(|row| row.extend_from_slice(b"ts_event,symbol,price,size,side\n"))?;
                Sink::Csv(part)
            }
            TradeFormat::Parquet => Sink::Parquet(Box::new(Table::new(part)?)),
        };
        Ok(Self { out, trades: 0, left_out: 0 })
    }

    /// Appends events whose keys are of `names`.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn push(&mut self, events: &[Event], names: &Names) -> Result<(), OutputError> {
        for event in events {
            let name = names.name(event.key);
            let (true, 0, Some(name)) = (event.kind == kind::TRADE, event.flags & flag::TRADE_SPECIAL, name)
            else {
                self.left_out += 1;
                continue;
            };
            self.trades += 1;
            match &mut self.out {
                Sink::Csv(part) => part.record(|row| {
                    // Writing to memory cannot fail.
                    let _ = write!(row, "{},", event.ts_event);
                    csv_field(name, row);
                    let (price, size) = (Price(event.price()), Size(event.size()));
                    let _ = writeln!(row, ",{price},{size},{}", side(event.flags));
                })?,
                Sink::Parquet(table) => table.push(event, name)?,
            }
        }
        Ok(())
    }

    /// Ends the table and gives the file its name.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn finish(self) -> Result<TradeSummary, OutputError> {
        let bytes = match self.out {
            Sink::Csv(part) => part.finish()?,
            Sink::Parquet(table) => table.finish()?,
        };
        Ok(TradeSummary { trades: self.trades, left_out: self.left_out, bytes })
    }
}

/// Unwraps what the encoder met: the disk's refusals are typed, the rest is text.
pub(super) fn parquet_error(path: &Path, error: ParquetError) -> OutputError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(source) => OutputError::from_write(path, 0, *source),
            Err(other) => OutputError::Encode { path: path.to_owned(), reason: other.to_string() },
        },
        other => OutputError::Encode { path: path.to_owned(), reason: other.to_string() },
    }
}

/// How every Parquet file of ours is written.
pub(super) fn parquet_properties() -> WriterProperties {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build()
}

impl Table {
    fn new(part: Part) -> Result<Self, OutputError> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("ts_event", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
            Field::new("symbol", DataType::Utf8, false),
            Field::new("price", DataType::Decimal128(38, 9), false),
            Field::new("size", DataType::Decimal128(38, 8), false),
            Field::new("side", DataType::Utf8, false),
        ]));
        let path = part.path().to_owned();
        let writer = ArrowWriter::try_new(part, Arc::clone(&schema), Some(parquet_properties()))
            .map_err(|error| parquet_error(&path, error))?;
        Ok(Self {
            path,
            writer,
            schema,
            ts: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            symbol: StringBuilder::new(),
            price: Decimal128Builder::new().with_data_type(DataType::Decimal128(38, 9)),
            size: Decimal128Builder::new().with_data_type(DataType::Decimal128(38, 8)),
            side: StringBuilder::new(),
            rows: 0,
        })
    }

    fn push(&mut self, event: &Event, name: &str) -> Result<(), OutputError> {
        self.ts.append_value(event.ts_event as i64);
        self.symbol.append_value(name);
        self.price.append_value(i128::from(event.price()));
        self.size.append_value(i128::from(event.size()));
        self.side.append_value(side(event.flags));
        self.rows += 1;
        if self.rows == BATCH_ROWS { self.empty() } else { Ok(()) }
    }

    fn empty(&mut self) -> Result<(), OutputError> {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.ts.finish()),
            Arc::new(self.symbol.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.side.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(ParquetError::from)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|error| parquet_error(&self.path, error))
    }

    fn finish(mut self) -> Result<u64, OutputError> {
        if self.rows > 0 {
            self.empty()?;
        }
        let path = self.path;
        self.writer.into_inner().map_err(|error| parquet_error(&path, error))?.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{ReadOptions, open};

    #[test]
    fn what_is_written_reads_back() {
        let mut names = Names::default();
        let (a, b) = (names.intern("A"), names.intern("B, \"quoted\""));
        let events = [
            Event::trade(1_767_623_400_000_000_001, a, 0, Price(1_234_567_890), Size(31), flag::BUY),
            Event::trade(1_767_623_400_000_000_002, b, 0, Price(-1), Size(100_000_000), flag::SELL),
            Event::trade(1_767_623_400_000_000_003, a, 0, Price(5), Size(6), 0),
        ];
        let cancel = Event { flags: flag::CANCEL, ..events[0] };
        for (format, file) in [(TradeFormat::Csv, "t.csv"), (TradeFormat::Parquet, "t.parquet")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(file);
            let mut writer = TradeWriter::create(&path, format).unwrap();
            writer.push(&events, &names).unwrap();
            writer.push(&[cancel], &names).unwrap();
            let summary = writer.finish().unwrap();
            assert_eq!((summary.trades, summary.left_out), (3, 1));
            let mut source = open(&path, &ReadOptions::default()).unwrap();
            let mut read = Vec::new();
            while source.read(&mut read, 100).unwrap() > 0 {}
            assert_eq!(read, events, "{file}: {:?}", source.account());
            assert_eq!(source.names().name(1).map(|name| &**name), Some("B, \"quoted\""));
        }
    }
}
