//! The last records of a key as an Arrow IPC stream: prices and sums exact, as decimals.

use crate::body::answer;
use crate::error::ApiError;
use crate::query::Query;
use crate::record::StreamView;
use crate::rest::may_read;
use crate::server::Shared;
use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt16Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use std::sync::Arc;
use tidegate_engine::output::join;
use tidegate_engine::{BarState, BarWords, Cause, Output, output_kind};
use tidegate_proto::access::Symbols;
use tidegate_proto::{Grant, StreamKind};

/// Most records of one answer: what a hub keeps of a key at most.
const RECORDS_MAX: usize = 65_536;

pub(crate) async fn stream(
    shared: &Arc<Shared>,
    grant: &Grant,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(query, &["stream", "key", "limit"])?;
    let (number, stream) = shared.stream_of(&query)?;
    let key = query.need("key")?;
    let limit = query.count("limit", 10_000, 1, RECORDS_MAX)?;
    may_read(grant, &stream, Symbols::Name(key))?;
    let records = shared.lookback(number, key, limit).await?;
    let bytes = encode(&stream, key, &records).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("the records have no form in Arrow: {error}"),
        )
    })?;
    answer(shared, "application/vnd.apache.arrow.stream", bytes).await
}

/// Prices have 9 decimals, sizes 8, their products 17.
const PRICE: DataType = DataType::Decimal128(19, 9);
const SIZE: DataType = DataType::Decimal128(38, 8);
const NOTIONAL: DataType = DataType::Decimal128(38, 17);

struct Table<'r> {
    records: &'r [Output],
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Table<'_> {
    fn add(&mut self, name: &str, nullable: bool, column: ArrayRef) {
        self.fields.push(Field::new(name, column.data_type().clone(), nullable));
        self.columns.push(column);
    }

    fn counts(&mut self, name: &str, of: impl Fn(&Output) -> u64) {
        let column: UInt64Array = self.records.iter().map(of).collect();
        self.add(name, false, Arc::new(column));
    }

    fn times(&mut self, name: &str, of: impl Fn(&Output) -> u64) {
        // Event times end where signed nanoseconds do.
        let times = self.records.iter().map(|output| i64::try_from(of(output)).ok());
        let column: TimestampNanosecondArray = times.collect();
        let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let column =
            column.reinterpret_cast::<arrow::datatypes::TimestampNanosecondType>().with_data_type(utc);
        self.add(name, true, Arc::new(column));
    }

    fn decimals(&mut self, name: &str, kind: &DataType, of: impl Fn(&BarWords) -> Option<i128>) {
        let column: Decimal128Array = self.records.iter().map(|output| of(&output.bar())).collect();
        self.add(name, true, Arc::new(column.with_data_type(kind.clone())));
    }

    fn texts(&mut self, name: &str, of: impl Fn(&Output) -> &'static str) {
        let column: StringArray = self.records.iter().map(|output| Some(of(output))).collect();
        self.add(name, false, Arc::new(column));
    }
}

fn encode(stream: &StreamView, key: &str, records: &[Output]) -> Result<Vec<u8>, ArrowError> {
    // What is set aside as late is no record of a window and never comes from a lookback.
    let mut table = Table { records, fields: Vec::new(), columns: Vec::new() };
    table.times("ts", |output| output.ts);
    table.counts("seq", |output| output.sequence);
    let slots: UInt16Array = records.iter().map(|output| output.slot).collect();
    table.add("slot", false, Arc::new(slots));
    table.texts("state", |output| BarState::name(output.state));
    table.texts("cause", |output| Cause::name(output.cause));
    match stream.meta.kind {
        StreamKind::Bars | StreamKind::MeasureBars => {
            table.times("ts_open", |output| output.bar().ts_open);
            table.decimals("open", &PRICE, |bar| Some(bar.open.into()));
            table.decimals("high", &PRICE, |bar| Some(bar.high.into()));
            table.decimals("low", &PRICE, |bar| Some(bar.low.into()));
            table.decimals("close", &PRICE, |bar| Some(bar.close.into()));
            table.decimals("volume", &SIZE, |bar| i128::try_from(join(bar.volume)).ok());
            table.decimals("buy_volume", &SIZE, |bar| i128::try_from(join(bar.buy_volume)).ok());
            table.decimals("notional", &NOTIONAL, |bar| Some(join(bar.notional) as i128));
            table.decimals("vwap", &PRICE, |bar| bar.vwap().map(|vwap| vwap.0.into()));
            table.counts("trades", |output| output.bar().trades);
            table.counts("rev", |output| output.bar().revision.into());
            table.counts("missing", |output| output.bar().missing);
            if stream.meta.kind == StreamKind::MeasureBars {
                table.counts("first_trade", |output| output.bar().first_trade.into());
            }
        }
        StreamKind::Values => {
            for (at, column) in stream.meta.columns.iter().enumerate() {
                let value = |output: &Output| {
                    let used = at < usize::from(output.count) && output.kind == output_kind::VALUES;
                    Some(f64::from_bits(output.words[at])).filter(|value| used && value.is_finite())
                };
                let values: Float64Array = records.iter().map(value).collect();
                table.add(column, true, Arc::new(values));
            }
        }
        StreamKind::Integers | StreamKind::Hosts => {
            for (at, column) in stream.meta.columns.iter().enumerate() {
                if stream.meta.kind == StreamKind::Hosts && at == 0 {
                    table.times(column, |output| output.words[0]);
                } else {
                    table.counts(column, |output| output.words[at]);
                }
            }
        }
    }
    let metadata = [("stream".to_owned(), stream.meta.name.clone()), ("key".to_owned(), key.to_owned())];
    let schema = Arc::new(Schema::new(table.fields).with_metadata(metadata.into()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), table.columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    writer.into_inner()
}
