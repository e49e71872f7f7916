//! Trades from Parquet.
//!
//! Only the columns that are needed are read, strings as dictionaries, so that a symbol costs one table look-up per row.
//! Row groups may be decoded ahead by threads; they are taken in file order whatever the number of threads.
//!
//! Sizes of pages are checked before they are decoded ([`super::pages`]); beyond that, arrow bounds the text of a batch's column
//! at 2 GiB.
//!
//! Integer prices and sizes are whole units unless the map says otherwise (`price=px@1e-9`). Integer timestamps are
//! recognised by magnitude like those of CSV.

use super::ReadOptions;
use super::columns::{Columns, SideMeaning, TsColumn, resolve, side_flag};
use super::core::{Core, Decode, Reader, Refusal};
use super::pages::{self, Trouble};
use super::text::{TimeForm, TimeUnit, checked_time, parse_price, parse_size, refusal};
use crate::source::{Place, Progress, ReadError, RejectCause};
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::{ChunkReader, Length};
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit as ArrowUnit};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use tidegate_engine::units::TRADE_NOTIONAL_MAX;
use tidegate_engine::{Event, Notional, Price, Size, flag};

/// Rows of one decoded batch: columns of it fit the second-level cache.
const BATCH_ROWS: usize = 16_384;
/// Batches a thread may be ahead. Two threads only work at once when each can hold about a row group.
const AHEAD_BATCHES: usize = 64;
/// Rows below which no file is suspicious, however few bytes they take.
const ROWS_FREE: u64 = 64 << 20;

/// Where the bytes are.
#[derive(Clone)]
pub(super) enum Store {
    File(Arc<File>, u64),
    Memory(Bytes),
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let io_error = |source| ReadError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io_error)?;
        let length = file.metadata().map_err(io_error)?.len();
        Ok(Self::File(Arc::new(file), length))
    }
}

impl Length for Store {
    fn len(&self) -> u64 {
        match self {
            Self::File(_, length) => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

impl ChunkReader for Store {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        match self {
            Self::File(file, _) => {
                Ok(Box::new(BufReader::new(ReadAt { file: Arc::clone(file), offset: start })))
            }
            Self::Memory(bytes) => Ok(Box::new(bytes.get_read(start)?)),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // Room is made for `length` before anything is read, and a damaged footer may say anything.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of a file of {}", self.len())));
        }
        match self {
            Self::File(file, _) => {
                let mut bytes = vec![0; length];
                ReadAt { file: Arc::clone(file), offset: start }.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
            Self::Memory(bytes) => bytes.get_bytes(start, length),
        }
    }
}

/// Reads a file from an offset of its own. Handles cloned from one file share one offset, which threads that decode
/// side by side would move under each other.
struct ReadAt {
    file: Arc<File>,
    offset: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let count = std::os::unix::fs::FileExt::read_at(&*self.file, buf, self.offset)?;
        #[cfg(windows)]
        let count = std::os::windows::fs::FileExt::seek_read(&*self.file, buf, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Runs library code over bytes nobody vouches for: its panics become errors.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        Err(format!("the reader gave up: {text}"))
    })
}

/// All that is needed to decode one row group.
#[derive(Clone)]
struct Plan {
    store: Store,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
}

impl Plan {
    fn group(&self, index: usize) -> Result<ParquetRecordBatchReader, Trouble> {
        let group =
            self.metadata.metadata().row_groups().get(index).ok_or("a row group is missing".to_owned())?;
        pages::check(&self.store, group, BATCH_ROWS as u64, |leaf| self.mask.leaf_included(leaf))?;
        let reader = guarded(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.store.clone(), self.metadata.clone())
                .with_row_groups(vec![index])
                .with_projection(self.mask.clone())
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|error| error.to_string())
        })?;
        Ok(reader)
    }
}

fn next_batch(reader: &mut ParquetRecordBatchReader) -> Result<Option<RecordBatch>, Trouble> {
    Ok(guarded(|| reader.next().transpose().map_err(|error| error.to_string()))?)
}

/// Batches in file order.
enum Batches {
    Here {
        plan: Box<Plan>,
        groups: usize,
        next: usize,
        reader: Option<Box<ParquetRecordBatchReader>>,
    },
    /// Each thread decodes every n-th row group; `None` ends a group.
    Ahead {
        threads: Vec<Receiver<Result<Option<RecordBatch>, Trouble>>>,
        groups: usize,
        at: usize,
    },
}

impl Batches {
    fn new(plan: Plan, groups: usize, threads: usize) -> Self {
        let threads = threads.min(groups).min(64);
        if threads == 0 {
            return Self::Here { plan: Box::new(plan), groups, next: 0, reader: None };
        }
        let ahead = if threads == 1 { 4 } else { AHEAD_BATCHES };
        let threads = (0..threads)
            .map(|first| {
                let (sender, receiver) = sync_channel(ahead);
                let plan = plan.clone();
                // A send fails once the source is dropped, and that ends the thread.
                std::thread::spawn(move || {
                    for group in (first..groups).step_by(threads) {
                        let mut reader = match plan.group(group) {
                            Ok(reader) => reader,
                            Err(error) => return drop(sender.send(Err(error))),
                        };
                        loop {
                            let batch = next_batch(&mut reader);
                            let (failed, ended) = (batch.is_err(), matches!(batch, Ok(None)));
                            if sender.send(batch).is_err() || failed {
                                return;
                            }
                            if ended {
                                break;
                            }
                        }
                    }
                });
                receiver
            })
            .collect();
        Self::Ahead { threads, groups, at: 0 }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, Trouble> {
        loop {
            match self {
                Self::Here { plan, groups, next, reader } => match reader {
                    Some(open) => match next_batch(open)? {
                        Some(batch) => return Ok(Some(batch)),
                        None => *reader = None,
                    },
                    None if next == groups => return Ok(None),
                    None => {
                        *reader = Some(Box::new(plan.group(*next)?));
                        *next += 1;
                    }
                },
                Self::Ahead { at, groups, .. } if at == groups => return Ok(None),
                Self::Ahead { threads, at, .. } => {
                    let received = threads[*at % threads.len()].recv();
                    match received.map_err(|_| "the decoding thread ended early".to_owned())?? {
                        Some(batch) => return Ok(Some(batch)),
                        None => *at += 1,
                    }
                }
            }
        }
    }
}

/// Place of each role among the columns that are read.
struct Places {
    ts: usize,
    time_of_day: Option<usize>,
    symbol: Option<usize>,
    price: usize,
    size: usize,
    side: Option<(usize, SideMeaning)>,
}

pub(super) struct Parquet {
    batches: Batches,
    places: Places,
    time: TimeForm,
    price_exponent: i8,
    size_exponent: i8,
    symbol: Option<Vec<u8>>,
    /// The batch at hand and its rows used up.
    batch: Option<(RecordBatch, usize)>,
    rows: u64,
    rows_total: u64,
    bytes_total: u64,
    symbols: SymbolTable,
    ts: Vec<u64>,
    prices: Vec<i64>,
    sizes: Vec<u64>,
    keys: Vec<u32>,
    flags: Vec<u8>,
    bad: Bad,
}

/// First refusal of each bad row of the rows at hand.
type Bad = BTreeMap<usize, Refusal>;

const UNRESOLVED: u32 = u32::MAX;

/// Keys of the values of the dictionary last seen, filled as rows ask, so that names keep the order of first appearance.
#[derive(Default)]
struct SymbolTable {
    values: Option<ArrayRef>,
    keys: Vec<u32>,
}

pub(super) fn open(store: Store, core: Core, options: &ReadOptions) -> Result<Reader<Parquet>, ReadError> {
    let path: PathBuf = core.path().to_path_buf();
    let damaged = |reason: String| ReadError::Damaged { path: path.clone(), place: Place::Byte(0), reason };
    let bytes_total = store.len();
    // Statistics and page indexes are not used, and the embedded Arrow schema is one more thing to be damaged.
    let base = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = guarded(|| ArrowReaderMetadata::load(&store, base()).map_err(|error| error.to_string()))
        .map_err(damaged)?;
    let file = metadata.metadata().file_metadata();
    let rows_total = u64::try_from(file.num_rows()).unwrap_or(0);
    if rows_total > ROWS_FREE && rows_total / bytes_total.max(1) > options.decompressed_ratio_max {
        let reason = format!("{rows_total} rows in {bytes_total} bytes look like a decompression bomb");
        return Err(ReadError::Limit { path: path.clone(), place: Place::Row(0), reason });
    }
    let schema = Arc::clone(metadata.schema());
    let headers: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| if field.data_type().is_nested() { String::new() } else { field.name().clone() })
        .collect();
    let columns = resolve(&headers, &options.map)
        .map_err(|reason| ReadError::Columns { path: path.clone(), reason })?;
    let (places, roots) = places(&columns);
    // Strings come as dictionaries, so that a value that many rows refer to is in memory once.
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| {
            if roots.contains(&at) && matches!(field.data_type(), DataType::Utf8) {
                let values = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                field.as_ref().clone().with_data_type(values)
            } else {
                field.as_ref().clone()
            }
        })
        .collect();
    let hint = Arc::new(Schema::new(fields));
    let hinted = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), base().with_schema(hint));
    let metadata = hinted.unwrap_or(metadata);
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
    let groups = metadata.metadata().num_row_groups();
    let batches = Batches::new(Plan { store, metadata, mask }, groups, options.decode_threads);
    let symbol = columns.symbol.is_none().then(|| super::symbol_from_path(&path).into_bytes());
    let decoder = Parquet {
        batches,
        places,
        time: TimeForm::default(),
        price_exponent: options.map.price_exponent,
        size_exponent: options.map.size_exponent,
        symbol,
        batch: None,
        rows: 0,
        rows_total,
        bytes_total,
        symbols: SymbolTable::default(),
        ts: Vec::new(),
        prices: Vec::new(),
        sizes: Vec::new(),
        keys: Vec::new(),
        flags: Vec::new(),
        bad: Bad::new(),
    };
    Ok(Reader::new(core, decoder))
}

/// The root columns to read, in file order, and where each role is among them.
fn places(columns: &Columns) -> (Places, Vec<usize>) {
    let (date, time_of_day) = match columns.ts {
        TsColumn::One(at) => (at, None),
        TsColumn::DateAndTime(date, time) => (date, Some(time)),
    };
    let mut roots = vec![date, columns.price, columns.size];
    roots.extend(time_of_day);
    roots.extend(columns.symbol);
    roots.extend(columns.side.map(|(at, _)| at));
    roots.sort_unstable();
    roots.dedup();
    let rank = |root: usize| roots.partition_point(|&other| other < root);
    let places = Places {
        ts: rank(date),
        time_of_day: time_of_day.map(rank),
        symbol: columns.symbol.map(rank),
        price: rank(columns.price),
        size: rank(columns.size),
        side: columns.side.map(|(at, meaning)| (rank(at), meaning)),
    };
    (places, roots)
}

fn null(what: &str) -> Refusal {
    (RejectCause::Malformed, format!("the {what} is null"))
}

fn mark_nulls(array: &dyn Array, what: &str, bad: &mut Bad) {
    // A dictionary's row is null when its index is or when the value behind it is.
    if let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
        for row in (0..array.len()).filter(|&row| nulls.is_null(row)) {
            bad.entry(row).or_insert_with(|| null(what));
        }
    }
}

fn as_int64(array: &ArrayRef) -> Result<Int64Array, String> {
    let cast = cast(array, &DataType::Int64).map_err(|error| error.to_string())?;
    cast.as_primitive_opt().cloned().ok_or_else(|| "a column that is no integer".to_owned())
}

fn as_float64(array: &ArrayRef) -> Result<Float64Array, String> {
    cast(array, &DataType::Float64)
        .map_err(|error| error.to_string())?
        .as_primitive_opt()
        .cloned()
        .ok_or_else(|| "a column that is no number".to_owned())
}

fn bad_time(value: impl std::fmt::Display) -> Refusal {
    (RejectCause::BadTime, format!("timestamp {value} lies before 1970 or after 2262"))
}

/// Takes values that convert one by one; a value that does not is marked, and 0 stands in.
#[inline]
fn each<T: Copy, U: Default>(
    values: &[T],
    out: &mut Vec<U>,
    bad: &mut Bad,
    convert: impl Fn(T) -> Option<U>,
    why: impl Fn(T) -> Refusal,
) {
    out.clear();
    let mut all = true;
    // Of a known length, and without a look at the reasons: those are found in a second pass, which is rare.
    out.extend(values.iter().map(|&value| {
        let converted = convert(value);
        all &= converted.is_some();
        converted.unwrap_or_default()
    }));
    if !all {
        for (row, &value) in values.iter().enumerate() {
            if convert(value).is_none() {
                bad.entry(row).or_insert_with(|| why(value));
            }
        }
    }
}

/// Texts by row. A value of a dictionary is not copied for each row that has it: a few bytes of rows can refer to a great
/// many of values.
struct Texts {
    values: StringArray,
    rows: Option<Int32Array>,
}

impl Texts {
    fn of(array: &ArrayRef) -> Result<Self, String> {
        if let Some(dictionary) = array.as_dictionary_opt::<Int32Type>()
            && let Some(values) = dictionary.values().as_string_opt::<i32>()
        {
            return Ok(Self { values: values.clone(), rows: Some(dictionary.keys().clone()) });
        }
        let cast = cast(array, &DataType::Utf8).map_err(|error| error.to_string())?;
        let values =
            cast.as_string_opt::<i32>().cloned().ok_or_else(|| "a column that is no text".to_owned())?;
        Ok(Self { values, rows: None })
    }

    fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.values.len(), Array::len)
    }

    fn get(&self, row: usize) -> Option<&str> {
        let at = match &self.rows {
            Some(rows) if rows.is_null(row) => return None,
            Some(rows) => usize::try_from(rows.value(row)).ok()?,
            None => row,
        };
        (at < self.values.len() && !self.values.is_null(at)).then(|| self.values.value(at))
    }
}

/// Takes values by their text.
fn each_text<U: Default>(
    texts: &Texts,
    out: &mut Vec<U>,
    bad: &mut Bad,
    mut parse: impl FnMut(usize, &[u8]) -> Result<U, Refusal>,
) {
    out.clear();
    for row in 0..texts.len() {
        let parsed = texts.get(row).map_or(Ok(U::default()), |text| parse(row, text.trim().as_bytes()));
        out.push(parsed.unwrap_or_else(|refused| {
            bad.entry(row).or_insert(refused);
            U::default()
        }));
    }
}

/// `value * scale` to the nearest integer, ties away from zero: what [`f64::round`] says without the call that it is on
/// processors without a rounding instruction. `None` outside `i64`, and for NaN.
#[inline]
fn round_unit(value: f64, scale: f64) -> Option<i64> {
    let scaled = value * scale;
    // The largest f64 below 2^63 is 2^63 - 1024; past 2^52 every value is whole and the remainder is 0.
    let inside = scaled.abs() < 9_223_372_036_854_775_808.0;
    if !inside {
        return None;
    }
    let whole = scaled as i64;
    let rest = scaled - whole as f64;
    Some(whole + i64::from(rest >= 0.5) - i64::from(rest <= -0.5))
}

/// Integers of a decimal column in units of `10^-decimals`.
fn decimals(array: &Decimal128Array, wanted: i32, what: &'static str, out: &mut Vec<i128>, bad: &mut Bad) {
    let shift = wanted - i32::from(array.scale());
    let factor = 10i128.checked_pow(shift.unsigned_abs()).unwrap_or(i128::MAX);
    each(
        array.values(),
        out,
        bad,
        |value| {
            if shift >= 0 { value.checked_mul(factor) } else { (value % factor == 0).then(|| value / factor) }
        },
        |value| {
            let scale = array.scale();
            (RejectCause::BadNumber, format!("{what} {value}e-{scale} does not fit {wanted} decimals"))
        },
    );
}

impl Parquet {
    fn times(&mut self, array: &ArrayRef, time_of_day: Option<&ArrayRef>) -> Result<(), String> {
        if let Some(time_of_day) = time_of_day {
            let (dates, times) = (Texts::of(array)?, Texts::of(time_of_day)?);
            let time = &mut self.time;
            each_text(&dates, &mut self.ts, &mut self.bad, |row, date| {
                let joined = [date, b" ", times.get(row).unwrap_or_default().trim().as_bytes()].concat();
                time.parse(&joined)
            });
            return Ok(());
        }
        let integers = match array.data_type() {
            DataType::Timestamp(unit, _) => {
                self.time = TimeForm::Number(match unit {
                    ArrowUnit::Second => TimeUnit::Seconds,
                    ArrowUnit::Millisecond => TimeUnit::Millis,
                    ArrowUnit::Microsecond => TimeUnit::Micros,
                    ArrowUnit::Nanosecond => TimeUnit::Nanos,
                });
                as_int64(array)?
            }
            DataType::Date32 | DataType::Date64 => {
                self.time = TimeForm::Number(TimeUnit::Millis);
                let millis = DataType::Timestamp(ArrowUnit::Millisecond, None);
                as_int64(&cast(array, &millis).map_err(|error| error.to_string())?)?
            }
            kind if kind.is_integer() => as_int64(array)?,
            kind if kind.is_floating() => {
                let floats = as_float64(array)?;
                let unit = match self.time {
                    TimeForm::Number(unit) => unit,
                    _ => TimeUnit::guess(floats.values().iter().find(|v| **v > 0.0).map_or(0, |v| *v as u64)),
                };
                self.time = TimeForm::Number(unit);
                let factor = unit.ns() as f64;
                each(
                    floats.values(),
                    &mut self.ts,
                    &mut self.bad,
                    |value| round_unit(value, factor).and_then(|ns| u64::try_from(ns).ok()),
                    bad_time,
                );
                return Ok(());
            }
            _ => {
                let time = &mut self.time;
                each_text(&Texts::of(array)?, &mut self.ts, &mut self.bad, |_, text| time.parse(text));
                return Ok(());
            }
        };
        let unit = match self.time {
            TimeForm::Number(unit) => unit,
            _ => {
                let first = integers.values().iter().find(|value| **value > 0).copied().unwrap_or(0);
                TimeUnit::guess(first.unsigned_abs())
            }
        };
        self.time = TimeForm::Number(unit);
        let unit_ns = unit.ns();
        each(
            integers.values(),
            &mut self.ts,
            &mut self.bad,
            |value| u64::try_from(value).ok().and_then(|value| checked_time(value, unit_ns)),
            bad_time,
        );
        Ok(())
    }

    fn prices(&mut self, array: &ArrayRef) -> Result<(), String> {
        let (out, bad) = (&mut self.prices, &mut self.bad);
        match array.data_type() {
            DataType::Float64 => each(
                as_float64(array)?.values(),
                out,
                bad,
                |value| round_unit(value, 1e9),
                |value| match Price::from_f64(value) {
                    Err(error) => refusal(&error, false),
                    Ok(_) => (RejectCause::OutOfRange, format!("price {value} is out of range")),
                },
            ),
            kind if kind.is_integer() => {
                let factor = 10i64.pow(9 - u32::from(self.price_exponent.unsigned_abs().min(9)));
                each(
                    as_int64(array)?.values(),
                    out,
                    bad,
                    |value| value.checked_mul(factor),
                    |value| {
                        (
                            RejectCause::OutOfRange,
                            format!(
                                "price {value} is out of range; if it is scaled, say so with --map 'price=COLUMN@1e-9'"
                            ),
                        )
                    },
                );
            }
            DataType::Decimal128(..) => {
                let mut wide = Vec::new();
                let array: &Decimal128Array = array.as_primitive();
                decimals(array, 9, "price", &mut wide, bad);
                each(
                    &wide,
                    out,
                    bad,
                    |value| i64::try_from(value).ok(),
                    |value| (RejectCause::OutOfRange, format!("price {value}e-9 is out of range")),
                );
            }
            _ => each_text(&Texts::of(array)?, out, bad, |_, text| parse_price(text).map(|price| price.0)),
        }
        Ok(())
    }

    fn sizes(&mut self, array: &ArrayRef) -> Result<(), String> {
        let (out, bad) = (&mut self.sizes, &mut self.bad);
        let out_of_range = |value: i128| {
            let cause = if value < 0 { RejectCause::BadNumber } else { RejectCause::OutOfRange };
            (cause, format!("size {value} is outside 0 to 184467440737"))
        };
        match array.data_type() {
            DataType::Float64 => each(
                as_float64(array)?.values(),
                out,
                bad,
                |value| match round_unit(value, 1e8) {
                    Some(units) => u64::try_from(units).ok(),
                    None => Size::from_f64(value).ok().map(|size| size.0),
                },
                |value| match Size::from_f64(value) {
                    Err(error) => refusal(&error, value < 0.0),
                    Ok(_) => (RejectCause::OutOfRange, format!("size {value} is out of range")),
                },
            ),
            kind if kind.is_integer() => {
                let factor = 10u64.pow(8 - u32::from(self.size_exponent.unsigned_abs().min(8)));
                each(
                    as_int64(array)?.values(),
                    out,
                    bad,
                    |value| u64::try_from(value).ok().and_then(|value| value.checked_mul(factor)),
                    |value| out_of_range(value.into()),
                );
            }
            DataType::Decimal128(..) => {
                let mut wide = Vec::new();
                let array: &Decimal128Array = array.as_primitive();
                decimals(array, 8, "size", &mut wide, bad);
                each(&wide, out, bad, |value| u64::try_from(value).ok(), out_of_range);
            }
            _ => each_text(&Texts::of(array)?, out, bad, |_, text| parse_size(text).map(|size| size.0)),
        }
        Ok(())
    }

    fn names(&mut self, array: Option<&ArrayRef>, rows: usize, core: &mut Core) -> Result<(), String> {
        let (keys, bad) = (&mut self.keys, &mut self.bad);
        keys.clear();
        let Some(array) = array else {
            let key = core.key(self.symbol.as_deref().unwrap_or_default());
            let key = key.unwrap_or_else(|refused| {
                for row in 0..rows {
                    bad.entry(row).or_insert_with(|| refused.clone());
                }
                0
            });
            keys.resize(rows, key);
            return Ok(());
        };
        mark_nulls(array, "symbol", bad);
        if let Some(dictionary) = array.as_any().downcast_ref::<DictionaryArray<Int32Type>>()
            && let Some(values) = dictionary.values().as_string_opt::<i32>()
        {
            let table = &mut self.symbols;
            // Every batch comes with an array of its own over the same bytes. The known one is held, so its memory cannot have
            // become another's.
            let same =
                table.values.as_ref().and_then(|known| known.as_string_opt::<i32>()).is_some_and(|known| {
                    known.len() == values.len()
                        && std::ptr::eq(known.value_data(), values.value_data())
                        && known.offsets().inner().ptr_eq(values.offsets().inner())
                });
            if !same {
                table.values = Some(Arc::clone(dictionary.values()));
                table.keys.clear();
                table.keys.resize(values.len(), UNRESOLVED);
            }
            for (row, &index) in dictionary.keys().values().iter().enumerate() {
                let index = index as usize;
                let mut key = table.keys.get(index).copied().unwrap_or(UNRESOLVED);
                if key == UNRESOLVED {
                    key = 0;
                    if !bad.contains_key(&row) && index < values.len() {
                        match core.key(values.value(index).as_bytes()) {
                            Ok(found) => {
                                key = found;
                                table.keys[index] = found;
                            }
                            Err(refused) => drop(bad.insert(row, refused)),
                        }
                    }
                }
                keys.push(key);
            }
            return Ok(());
        }
        if array.data_type().is_integer() {
            let integers = as_int64(array)?;
            let table = &mut self.symbols.keys;
            table.resize(1 << 16, UNRESOLVED);
            for (row, &value) in integers.values().iter().enumerate() {
                let known = usize::try_from(value).ok().and_then(|at| table.get(at).copied());
                if let Some(key) = known.filter(|&key| key != UNRESOLVED) {
                    keys.push(key);
                    continue;
                }
                if bad.contains_key(&row) {
                    keys.push(0);
                    continue;
                }
                // Digits are a good name, so only an overfull dictionary could refuse, and that has a key too.
                let key = core.key(value.to_string().as_bytes()).unwrap_or(0);
                if let Some(slot) = usize::try_from(value).ok().and_then(|at| table.get_mut(at)) {
                    *slot = key;
                }
                keys.push(key);
            }
            return Ok(());
        }
        each_text(&Texts::of(array)?, keys, bad, |_, text| core.key(text));
        Ok(())
    }

    fn sides(&mut self, array: &ArrayRef, meaning: SideMeaning) -> Result<(), String> {
        let flags = &mut self.flags;
        flags.clear();
        if let Some(booleans) = array.as_boolean_opt() {
            let of = |value: bool| match (meaning, value) {
                (SideMeaning::BuyerIsMaker, true) => flag::SELL,
                (SideMeaning::BuyerIsMaker, false) => flag::BUY,
                (SideMeaning::Aggressor, _) => 0,
            };
            flags.extend(booleans.iter().map(|value| value.map_or(0, of)));
        } else {
            let text = Texts::of(array)?;
            let of = |row| text.get(row).map_or(0, |text| side_flag(text.as_bytes(), meaning));
            flags.extend((0..text.len()).map(of));
        }
        Ok(())
    }

    /// Converts some rows and accounts for each.
    fn convert(
        &mut self,
        core: &mut Core,
        batch: &RecordBatch,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let rows = batch.num_rows();
        self.bad.clear();
        let column = |at: usize| batch.columns().get(at).ok_or_else(|| "a column is missing".to_owned());
        mark_nulls(column(self.places.ts)?, "time", &mut self.bad);
        mark_nulls(column(self.places.price)?, "price", &mut self.bad);
        mark_nulls(column(self.places.size)?, "size", &mut self.bad);
        let time_of_day = self.places.time_of_day.map(column).transpose()?;
        if let Some(time_of_day) = time_of_day {
            mark_nulls(time_of_day, "time", &mut self.bad);
        }
        self.times(column(self.places.ts)?, time_of_day)?;
        self.prices(column(self.places.price)?)?;
        self.sizes(column(self.places.size)?)?;
        let symbol = self.places.symbol.map(column).transpose()?;
        self.names(symbol, rows, core)?;
        match self.places.side {
            Some((at, meaning)) => self.sides(column(at)?, meaning)?,
            None => {
                self.flags.clear();
                self.flags.resize(rows, 0);
            }
        }
        // Two passes that vectorise say of almost every batch that no product in it can be too large.
        let highest = self.prices.iter().fold(0, |highest, price| highest.max(price.unsigned_abs()));
        let largest = self.sizes.iter().fold(0, |largest, size| (*size).max(largest));
        if u128::from(highest) * u128::from(largest) > TRADE_NOTIONAL_MAX.unsigned_abs() {
            for (row, (&price, &size)) in self.prices.iter().zip(&self.sizes).enumerate() {
                if let Err(error) = Notional::of(Price(price), Size(size)) {
                    self.bad.entry(row).or_insert((RejectCause::OutOfRange, error.to_string()));
                }
            }
        }
        let columns = self.ts.iter().zip(&self.prices).zip(&self.sizes).zip(&self.keys).zip(&self.flags);
        let made = columns.map(|((((&ts, &price), &size), &key), &flags)| {
            Event::trade(ts, key, 0, Price(price), Size(size), flags)
        });
        if self.bad.is_empty() && core.passes_all() {
            let start = events.len();
            events.extend(made);
            core.accept_each(&events[start..]);
            return Ok(());
        }
        for (row, event) in made.enumerate() {
            if let Some(refused) = self.bad.remove(&row) {
                core.refuse_with(refused, Place::Row(self.rows + row as u64 + 1));
                if core.stopped() {
                    break;
                }
            } else if core.outside(event.ts_event) {
                core.refuse_filtered();
            } else {
                core.accept_one(events, event);
            }
        }
        Ok(())
    }
}

impl Decode for Parquet {
    fn fill(&mut self, core: &mut Core, events: &mut Vec<Event>, target: usize) -> Result<bool, ReadError> {
        while events.len() < target && !core.stopped() {
            let (batch, used) = match self.batch.take() {
                Some(at_hand) => at_hand,
                None => match self.batches.next().map_err(|trouble| refused(core, self.rows, trouble))? {
                    Some(batch) => (batch, 0),
                    None => return Ok(false),
                },
            };
            let rows = (batch.num_rows() - used).min(target - events.len());
            let part = if rows == batch.num_rows() { batch.clone() } else { batch.slice(used, rows) };
            self.convert(core, &part, events)
                .map_err(|reason| core.damaged(Place::Row(self.rows + 1), shown_all(&reason)))?;
            self.rows += rows as u64;
            if used + rows < batch.num_rows() {
                self.batch = Some((batch, used + rows));
            }
        }
        Ok(true)
    }

    fn progress(&self) -> Progress {
        let share = self.rows as f64 / self.rows_total.max(1) as f64;
        Progress { bytes: (share * self.bytes_total as f64) as u64, bytes_total: self.bytes_total }
    }

    fn format(&self) -> String {
        format!("parquet (time in {})", self.time.name())
    }
}

/// What is wrong behind `rows` rows, as an error of the source.
fn refused(core: &Core, rows: u64, trouble: Trouble) -> ReadError {
    match trouble {
        Trouble::Damaged(reason) => core.damaged(Place::Row(rows + 1), shown_all(&reason)),
        Trouble::DamagedAt(place, reason) => core.damaged(place, shown_all(&reason)),
        Trouble::Limit(place, reason) => {
            ReadError::Limit { path: core.path().to_path_buf(), place, reason: shown_all(&reason) }
        }
    }
}

/// A library's message made fit for ours.
fn shown_all(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{drain, read_all, read_err, torture};
    use super::super::{Format, open, open_bytes};
    use super::*;
    use ::parquet::arrow::ArrowWriter;
    use ::parquet::file::properties::WriterProperties;
    use arrow::array::{
        BooleanArray, Float32Array, StringDictionaryBuilder, TimestampMicrosecondArray, UInt32Array,
    };

    fn file(columns: Vec<(&str, ArrayRef)>, group_rows: usize) -> Vec<u8> {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, a)| (name, a, true)))
                .unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        let mut out = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        out
    }

    fn plain(rows: usize, group_rows: usize) -> Vec<u8> {
        let n = || 0..rows as i64;
        file(
            vec![
                ("ts", Arc::new(Int64Array::from_iter_values(n().map(|n| 1_381_132_800_000_000_000 + n)))),
                ("symbol", Arc::new(StringArray::from_iter_values(n().map(|n| format!("S{}", n % 7))))),
                ("price", Arc::new(Float64Array::from_iter_values(n().map(|n| 100.0 + n as f64 / 100.0)))),
                ("size", Arc::new(Int64Array::from_iter_values(n().map(|n| n % 5)))),
            ],
            group_rows,
        )
    }

    #[test]
    fn any_number_of_threads_and_any_batch_gives_the_same_events() {
        let bytes = plain(50_000, 3_000);
        let mut all = Vec::new();
        for threads in [0, 1, 2, 5] {
            for max in [1 << 20, 777] {
                let options = ReadOptions { decode_threads: threads, ..ReadOptions::default() };
                let mut source = open_bytes(Format::Parquet, bytes.clone(), &options).unwrap();
                let mut events = Vec::new();
                while source.read(&mut events, max).unwrap() > 0 {}
                assert_eq!((source.account().accepted, source.account().imbalance()), (50_000, 0));
                assert_eq!(source.names().iter().map(|n| &**n).collect::<Vec<_>>()[..2], ["S0", "S1"]);
                all.push(events);
            }
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        let last = all[0][49_999];
        assert_eq!((last.price(), last.size(), last.key), (599_990_000_000, 400_000_000, 49_999 % 7));
    }

    #[test]
    fn threads_share_a_file_without_moving_each_others_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        std::fs::write(&path, plain(200_000, 10_000)).unwrap();
        let read = |threads| {
            let options = ReadOptions { decode_threads: threads, ..ReadOptions::default() };
            let (events, error) = drain(open(&path, &options).unwrap().as_mut());
            assert!(error.is_none(), "{error:?}");
            events
        };
        assert_eq!(read(0), read(4));
    }

    #[test]
    fn rounding_is_that_of_the_units() {
        for value in [
            0.0,
            -0.0,
            0.49e-9,
            0.5e-9,
            -0.5e-9,
            1.5e-9,
            167.41,
            -3.7e9,
            9.2e9,
            1e10,
            f64::NAN,
            f64::INFINITY,
        ] {
            assert_eq!(round_unit(value, 1e9), Price::from_f64(value).ok().map(|price| price.0), "{value}");
        }
    }

    #[test]
    fn types_of_every_kind_are_read() {
        let mut symbols = StringDictionaryBuilder::<Int32Type>::new();
        symbols.append_value("B");
        symbols.append_value("A");
        symbols.append_null();
        let decimal = Decimal128Array::from(vec![16_741, 1_394, 1]).with_precision_and_scale(10, 2).unwrap();
        let bytes = file(
            vec![
                ("time", Arc::new(TimestampMicrosecondArray::from(vec![1, -1, 3]).with_timezone("UTC"))),
                ("ticker", Arc::new(symbols.finish())),
                ("px", Arc::new(decimal)),
                ("qty", Arc::new(Int32Array::from(vec![100, 1, 1]))),
                ("is_buyer_maker", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ],
            100,
        );
        let (events, account, names) = read_all(Format::Parquet, &bytes, &ReadOptions::default());
        assert_eq!((events.len(), account.refused(RejectCause::BadTime)), (1, 1));
        assert_eq!(account.refused(RejectCause::Malformed), 1, "a null symbol: {account:?}");
        assert_eq!(names[0], "B");
        assert_eq!(
            (events[0].ts_event, events[0].price(), events[0].flags),
            (1_000, 167_410_000_000, flag::SELL)
        );

        let bytes = file(
            vec![
                ("t", Arc::new(StringArray::from(vec!["2013-10-07T08:00:00Z", "x"]))),
                ("s", Arc::new(UInt32Array::from(vec![7, 7]))),
                ("p", Arc::new(StringArray::from(vec!["-1.5", "1"]))),
                ("v", Arc::new(Float32Array::from(vec![0.25, 1.0]))),
            ],
            100,
        );
        let (events, _, names) = read_all(Format::Parquet, &bytes, &ReadOptions::default());
        assert_eq!((events.len(), names[0].as_str()), (1, "7"));
        assert_eq!((events[0].price(), events[0].size()), (-1_500_000_000, 25_000_000));
    }

    #[test]
    fn bad_values_are_counted_by_cause() {
        let bytes = file(
            vec![
                (
                    "ts",
                    Arc::new(Int64Array::from(vec![
                        Some(1),
                        Some(-1),
                        None,
                        Some(1),
                        Some(1),
                        Some(1),
                        Some(1),
                        Some(1),
                    ])),
                ),
                (
                    "price",
                    Arc::new(Float64Array::from(vec![
                        f64::NAN,
                        1.0,
                        1.0,
                        f64::INFINITY,
                        1e12,
                        1.0,
                        2.0,
                        9e9,
                    ])),
                ),
                ("size", Arc::new(Int64Array::from(vec![1, 1, 1, 1, 1, -1, 1, 100_000_000_000]))),
            ],
            100,
        );
        let (events, account, names) = read_all(Format::Parquet, &bytes, &ReadOptions::default());
        assert_eq!((events.len(), account.units, names[0].as_str()), (1, 8, "MEMORY"));
        assert_eq!(account.refused(RejectCause::BadNumber), 3, "{account:?}");
        assert_eq!(
            account.refused(RejectCause::OutOfRange),
            2,
            "one price, and one product of price and size"
        );
        assert_eq!((account.refused(RejectCause::BadTime), account.refused(RejectCause::Malformed)), (1, 1));
        assert_eq!(account.examples[0].1, Place::Row(1));
    }

    #[test]
    fn files_are_found_by_their_magic_and_columns_by_the_map() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spy_x.bin");
        let column = || Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
        std::fs::write(&path, file(vec![("a", column()), ("b", column()), ("c", column())], 10)).unwrap();
        let error = open(&path, &ReadOptions::default()).err().unwrap();
        assert!(
            matches!(error, ReadError::Columns { .. }) && error.to_string().contains("a, b, c"),
            "{error}"
        );
        let map = "ts=a,price=b@1e-9,size=c".parse().unwrap();
        let mut source = open(&path, &ReadOptions { map, ..ReadOptions::default() }).unwrap();
        let (events, _) = drain(source.as_mut());
        assert_eq!((events.len(), events[1].price(), events[1].size()), (2, 2, 200_000_000));
        assert_eq!(&**source.names().name(0).unwrap(), "SPY");
    }

    /// Where the pages of the first row group's columns begin.
    fn first_pages(bytes: &[u8]) -> Vec<usize> {
        let store = Store::Memory(bytes.to_vec().into());
        let metadata = ArrowReaderMetadata::load(&store, ArrowReaderOptions::new()).unwrap();
        let columns = metadata.metadata().row_group(0).columns();
        columns
            .iter()
            .map(|column| column.dictionary_page_offset().unwrap_or(column.data_page_offset()) as usize)
            .collect()
    }

    #[test]
    fn a_page_that_claims_to_unpack_to_too_much_is_refused_unread() {
        for threads in [0, 2] {
            let options = ReadOptions { decode_threads: threads, ..ReadOptions::default() };
            let bytes = plain(20_000, 20_000);
            for at in first_pages(&bytes) {
                let mut forged = bytes.clone();
                pages::forge::unpacks_to(&mut forged, at, i64::from(i32::MAX));
                assert_eq!(forged.len(), bytes.len());
                let (events, error) = drain(open_bytes(Format::Parquet, forged, &options).unwrap().as_mut());
                let Some(ReadError::Limit { place, reason, .. }) = error else { panic!("{error:?}") };
                assert_eq!((events.len(), place), (0, Place::Byte(at as u64)));
                assert!(reason.contains("2147483647 bytes; 134217728 are allowed"), "{reason}");
            }
        }
    }

    #[test]
    fn a_long_text_of_many_rows_is_in_memory_once() {
        // Ten gigabytes if each of the rows had its own.
        let rows = 20_000;
        let mut long = StringDictionaryBuilder::<Int32Type>::new();
        let text = "9".repeat(500_000);
        (0..rows).for_each(|_| long.append_value(&text));
        let long: ArrayRef = Arc::new(long.finish());
        let bytes = file(
            vec![
                ("ts", Arc::new(Int64Array::from_iter_values(1..=rows))),
                ("price", Arc::clone(&long)),
                ("size", long),
            ],
            20_000,
        );
        assert!(bytes.len() < 4 << 20, "{}", bytes.len());
        let (events, account, _) = read_all(Format::Parquet, &bytes, &ReadOptions::default());
        assert_eq!((events.len(), account.units - account.accepted), (0, rows as u64));
    }

    #[test]
    fn damage_never_panics_through() {
        // The library's own panics are caught; keep their text out of the test's output.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let bytes = plain(20, 10);
        let result = catch_unwind(|| torture(Format::Parquet, &bytes));
        std::panic::set_hook(hook);
        assert!(result.is_ok());
        assert!(matches!(
            read_err(Format::Parquet, b"PAR1", &ReadOptions::default()),
            ReadError::Damaged { .. }
        ));
    }
}
