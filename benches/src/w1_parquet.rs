//! W1 as a Parquet file, the way a user would have it, and the answers to find in it.
//!
//! Columns: `ts` timestamp(ns), `symbol` dictionary of strings (`S0000`, by key), `price` double, `size` int64 whole
//! units. Snappy, row groups of a million rows.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, TimestampNanosecondArray};
use arrow_array::{DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tidegate_engine::units::{PRICE_SCALE, SIZE_SCALE};

use crate::hand::{Job, hand_loop};
use crate::w1::{W1, generate};

const ROW_GROUP: usize = 1_000_000;

/// Writes `path` and, beside it with `.json` added, what jobs A and B must find.
pub fn write(path: &Path, work: W1) -> Result<(), Box<dyn Error>> {
    let events = generate(work);
    let names: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..work.symbols).map(|key| format!("S{key:04}"))));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let mut writer: Option<ArrowWriter<File>> = None;
    for chunk in events.chunks(ROW_GROUP) {
        let keys = Int32Array::from_iter_values(chunk.iter().map(|event| event.key as i32));
        let columns: [(&str, ArrayRef); 4] = [
            (
                "ts",
                Arc::new(TimestampNanosecondArray::from_iter_values(
                    chunk.iter().map(|event| event.ts_event as i64),
                )),
            ),
            ("symbol", Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::clone(&names))?)),
            (
                "price",
                Arc::new(Float64Array::from_iter_values(
                    chunk.iter().map(|event| event.price() as f64 / PRICE_SCALE as f64),
                )),
            ),
            (
                "size",
                Arc::new(Int64Array::from_iter_values(
                    chunk.iter().map(|event| (event.size() / SIZE_SCALE) as i64),
                )),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(ArrowWriter::try_new(
                File::create(path)?,
                batch.schema(),
                Some(properties.clone()),
            )?),
        };
        writer.write(&batch)?;
    }
    writer.ok_or("no events to write")?.close()?;

    let (a, b) = (hand_loop(Job::A, &events, work.symbols), hand_loop(Job::B, &events, work.symbols));
    let answers = serde_json::json!({
        "events": work.events,
        "symbols": work.symbols,
        "bars": a.bars,
        // As text: JSON readers lose the low bits of a 64-bit number.
        "checksum": a.checksum.to_string(),
        "notional": a.notional,
        "indicators": b.indicators,
    });
    let mut beside = path.as_os_str().to_owned();
    beside.push(".json");
    std::fs::write(beside, answers.to_string())?;
    Ok(())
}
