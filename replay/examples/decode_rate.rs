//! Prints how many rows per second the table decoders read: `decode_rate [rows] [file…]`.
//!
//! Without files it writes synthetic trades of 100 symbols into a temporary folder, as CSV and as Parquet with double
//! and with integer prices, and reads them back. The rate is that of decoding into events, which are then thrown away.

use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tidegate_replay::decode::{self, ReadOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(5_000_000), |rows| rows.parse())?;
    let mut files: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    if files.is_empty() {
        let folder = std::env::temp_dir().join("tidegate-decode-rate");
        std::fs::create_dir_all(&folder)?;
        files =
            vec![folder.join("trades.csv"), folder.join("double.parquet"), folder.join("integer.parquet")];
        write_csv(&files[0], rows)?;
        write_parquet(&files[1], rows, true)?;
        write_parquet(&files[2], rows, false)?;
    }
    for file in &files {
        for threads in [0, 1, 2] {
            let options = ReadOptions { decode_threads: threads, ..ReadOptions::default() };
            let started = Instant::now();
            let mut source = decode::open(file, &options)?;
            let mut events = Vec::with_capacity(1 << 15);
            loop {
                events.clear();
                if source.read(&mut events, 1 << 14)? == 0 {
                    break;
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            let units = source.account().units;
            println!(
                "{} {} decode threads {threads}: {units} rows, {:.1} M rows/s, {} faults",
                file.display(),
                source.format(),
                units as f64 / seconds / 1e6,
                source.account().faults()
            );
            if !source.format().starts_with("parquet") {
                break;
            }
        }
    }
    Ok(())
}

/// Row `n`: time, symbol, price in cents, size.
fn row(n: usize) -> (i64, usize, i64, i64) {
    let mixed = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let cents = 10_000 + (mixed % 997) as i64;
    (1_381_132_800_000_000_000 + n as i64 * 1_000, (mixed % 100) as usize, cents, 1 + (mixed % 500) as i64)
}

fn write_csv(path: &Path, rows: usize) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    writeln!(out, "ts_ns,symbol,price,size")?;
    for n in 0..rows {
        let (ts, symbol, cents, size) = row(n);
        writeln!(out, "{ts},S{symbol:03},{}.{:02},{size}", cents / 100, cents % 100)?;
    }
    out.flush()
}

fn write_parquet(path: &Path, rows: usize, double: bool) -> Result<(), Box<dyn std::error::Error>> {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(1_000_000))
        .build();
    let batch = |from: usize, to: usize| {
        let rows: Vec<_> = (from..to).map(row).collect();
        let price: ArrayRef = if double {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2 as f64 / 100.0)))
        } else {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))
        };
        RecordBatch::try_from_iter([
            ("ts", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef),
            (
                "symbol",
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("S{:03}", row.1)))) as _,
            ),
            ("price", price),
            ("size", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))) as _),
        ])
    };
    let first = batch(0, 0)?;
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path)?, first.schema(), Some(properties))?;
    for from in (0..rows).step_by(100_000) {
        writer.write(&batch(from, (from + 100_000).min(rows))?)?;
    }
    writer.close()?;
    Ok(())
}
