//! Databento Binary Encoding, versions 1 to 3.
//!
//! | records | events |
//! |---|---|
//! | trades | a trade |
//! | tbbo, tcbbo | the two best levels before the trade, then the trade |
//! | mbp-1, mbp-10, cmbp-1 | a trade if it is one, then all levels as a snapshot that replaces the book |
//! | bbo, cbbo | the two best levels as a snapshot |
//! | mbo | an order step, or a trade |
//! | ohlcv | none; [`read_ohlcv`] returns them as reference bars |
//! | status, definitions, statistics and so on | none |
//!
//! In `mbo` a fill comes with the cancel that takes the filled size off the book, while an execution in Tidegate takes it
//! off itself. The cancel is lessened by the fills of the same venue event, and left out when nothing remains of it, so
//! that a book built from the events counts each lot once.

use super::ReadOptions;
use super::core::{Core, Decode, Reader, Refusal};
use super::input::Input;
use crate::source::{Place, Progress, ReadError, RejectCause};
use ::dbn::decode::dbn::fsm::{DbnFsm, ProcessResult};
use ::dbn::enums::VersionUpgradePolicy;
use ::dbn::{
    BboMsg, CbboMsg, Cmbp1Msg, MboMsg, Mbp1Msg, Mbp10Msg, OhlcvMsg, RecordRef, Schema, TradeMsg, TsSymbolMap,
};
use std::path::Path;
use tidegate_engine::{Event, EventTime, OrderPayload, Price, Size, flag, kind};

/// Largest metadata that is believed. The mappings of 100,000 symbols take about 16 MB.
const METADATA_BYTES_MAX: usize = 64 << 20;
/// Fills of one venue event that are remembered; past it their cancels pass unlessened.
const FILLS_MAX: usize = 4096;

/// A bar as the file has it: the reference to compare one's own against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OhlcvBar {
    /// Symbol, or the instrument number in digits.
    pub symbol: String,
    /// Start of the bar.
    pub ts_open: EventTime,
    /// Width in nanoseconds; `None` for an end-of-day bar.
    pub width_ns: Option<u64>,
    /// First price.
    pub open: Price,
    /// Highest price.
    pub high: Price,
    /// Lowest price.
    pub low: Price,
    /// Last price.
    pub close: Price,
    /// Sum of sizes.
    pub volume: Size,
}

/// Records of one file.
struct Records {
    input: Input,
    fsm: DbnFsm,
    schema: Option<Schema>,
    symbols: Option<TsSymbolMap>,
    version: u8,
    count: u64,
}

impl Records {
    fn open(mut input: Input) -> Result<Self, ReadError> {
        let damaged = |input: &Input, reason: String| ReadError::Damaged {
            path: input.path().to_path_buf(),
            place: Place::Byte(0),
            reason,
        };
        let head = input.peek(8)?;
        let Some((&[b'D', b'B', b'N', version], length)) =
            head.split_first_chunk::<4>().and_then(|(head, rest)| Some((head, rest.first_chunk::<4>()?)))
        else {
            return Err(damaged(&input, "there is no DBN header".to_owned()));
        };
        // The library makes room for what the header says, so the header is doubted first.
        let length = u32::from_le_bytes(*length) as usize;
        if !(1..=3).contains(&version) {
            return Err(damaged(&input, format!("version {version}; versions 1 to 3 are known")));
        }
        if length > METADATA_BYTES_MAX {
            let reason = format!("{length} bytes of metadata; the limit is {METADATA_BYTES_MAX}");
            return Err(ReadError::Limit { path: input.path().to_path_buf(), place: Place::Byte(4), reason });
        }
        if input.compression().is_none() && length as u64 + 8 > input.bytes_total() {
            return Err(damaged(
                &input,
                format!("{length} bytes of metadata in a file of {}", input.bytes_total()),
            ));
        }
        // Market data has one layout in all three versions. Records are left as they are, because upgrading the rest
        // would gain nothing and read them before their length is checked.
        let fsm = DbnFsm::builder()
            .upgrade_policy(VersionUpgradePolicy::AsIs)
            .build()
            .map_err(|error| damaged(&input, error.to_string()))?;
        let mut records = Self { input, fsm, schema: None, symbols: None, version, count: 0 };
        records.metadata()?;
        Ok(records)
    }

    fn damaged(&self, reason: impl ToString) -> ReadError {
        ReadError::Damaged {
            path: self.input.path().to_path_buf(),
            place: Place::Byte(self.input.offset()),
            reason: reason.to_string(),
        }
    }

    /// Hands the decoder more bytes; false at the end of the input.
    fn feed(&mut self) -> Result<bool, ReadError> {
        if !self.input.ensure(1)? {
            return Ok(false);
        }
        let space = self.fsm.space();
        let count = space.len().min(self.input.window().len());
        if count == 0 {
            return Err(self.damaged("a record is larger than any record can be"));
        }
        space[..count].copy_from_slice(&self.input.window()[..count]);
        self.fsm.fill(count);
        self.input.consume(count);
        Ok(true)
    }

    fn metadata(&mut self) -> Result<(), ReadError> {
        loop {
            match self.fsm.process() {
                ProcessResult::Metadata(metadata) => {
                    self.schema = metadata.schema;
                    // Without a mapping between symbols and instrument numbers, the numbers are the names.
                    self.symbols = TsSymbolMap::from_metadata(&metadata).ok().filter(|map| !map.is_empty());
                    return Ok(());
                }
                ProcessResult::ReadMore(_) => {
                    if !self.feed()? {
                        return Err(self.damaged("the file ends inside its metadata"));
                    }
                }
                ProcessResult::Err(error) => return Err(self.damaged(error)),
                ProcessResult::Record(()) => return Err(self.damaged("a record before the metadata")),
            }
        }
    }

    /// Has the next record at hand in [`DbnFsm::last_record`]; false at the end of the input.
    fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            // Lengths count 4 bytes but records are aligned to 8: the library asserts what an odd length breaks.
            if self.fsm.data().first().is_some_and(|words| words % 2 != 0) {
                return Err(self.damaged(format!("record {} has an impossible length", self.count + 1)));
            }
            match self.fsm.process() {
                ProcessResult::Record(()) => {
                    self.count += 1;
                    return Ok(true);
                }
                ProcessResult::ReadMore(_) => {
                    if !self.feed()? {
                        return match self.fsm.data().len() {
                            0 => Ok(false),
                            left => Err(self.damaged(format!("the file ends {left} bytes into a record"))),
                        };
                    }
                }
                ProcessResult::Metadata(_) => {}
                ProcessResult::Err(error) => return Err(self.damaged(error)),
            }
        }
    }
}

fn symbol(symbols: Option<&TsSymbolMap>, id: u32, ts: u64) -> Option<&str> {
    symbols?.get_for_ts(ts, id).map(String::as_str)
}

pub(super) struct Dbn {
    records: Records,
    fills: Vec<(u64, u32)>,
}

pub(super) fn open(input: Input, core: Core, _options: &ReadOptions) -> Result<Reader<Dbn>, ReadError> {
    Ok(Reader::new(core, Dbn { records: Records::open(input)?, fills: Vec::new() }))
}

/// Reads the bars of an ohlcv file; records of other kinds are passed over.
///
/// # Errors
/// [`ReadError`] when the file cannot be opened or is damaged.
pub fn read_ohlcv(path: &Path) -> Result<Vec<OhlcvBar>, ReadError> {
    let mut records = Records::open(Input::open(path, &ReadOptions::default())?)?;
    let mut bars = Vec::new();
    while records.advance()? {
        let Some(record) = records.fsm.last_record() else { continue };
        let Ok(bar) = record.try_get::<OhlcvMsg>() else { continue };
        let second = 1_000_000_000;
        let width_ns = match bar.hd.rtype {
            0x20 => Some(second),
            0x21 => Some(60 * second),
            0x22 => Some(3_600 * second),
            0x23 => Some(86_400 * second),
            _ => None,
        };
        let volume = Size::from_whole(bar.volume).map_err(|error| records.damaged(error))?;
        let id = bar.hd.instrument_id;
        bars.push(OhlcvBar {
            symbol: symbol(records.symbols.as_ref(), id, bar.hd.ts_event)
                .map_or_else(|| id.to_string(), str::to_owned),
            ts_open: EventTime(bar.hd.ts_event),
            width_ns,
            open: Price(bar.open),
            high: Price(bar.high),
            low: Price(bar.low),
            close: Price(bar.close),
            volume,
        });
    }
    Ok(bars)
}

fn price(raw: i64) -> Result<Price, Refusal> {
    if raw == ::dbn::UNDEF_PRICE {
        return Err((RejectCause::BadNumber, "the price is undefined".to_owned()));
    }
    Ok(Price(raw))
}

fn size(raw: u32) -> Size {
    // 2^32 times 10^8 fits.
    Size(u64::from(raw) * 100_000_000)
}

/// The price of an order in 1e-4, as the event has it.
fn order_price(raw: i64) -> Result<u32, Refusal> {
    let Price(raw) = price(raw)?;
    if raw % 100_000 != 0 {
        return Err((RejectCause::BadNumber, format!("order price {} has more than 4 decimals", Price(raw))));
    }
    u32::try_from(raw / 100_000).map_err(|_| {
        (RejectCause::OutOfRange, format!("order price {} is outside 0 to 429496.7295", Price(raw)))
    })
}

fn aggressor(side: std::ffi::c_char) -> u8 {
    match side as u8 {
        b'B' => flag::BUY,
        b'A' => flag::SELL,
        _ => 0,
    }
}

/// What the event functions need of a record's place and time.
#[derive(Clone, Copy)]
struct At {
    key: u32,
    ts: u64,
}

/// One level of both sides, whichever record it came in.
struct Pair {
    bid: (i64, u32),
    ask: (i64, u32),
}

fn push_levels(at: At, pairs: impl Iterator<Item = Pair>, flags: u8, events: &mut Vec<Event>) {
    let start = events.len();
    for pair in pairs {
        for ((price, lots), side) in [(pair.bid, flag::BID), (pair.ask, 0)] {
            if price != ::dbn::UNDEF_PRICE {
                events.push(Event {
                    ts_event: at.ts,
                    key: at.key,
                    source: 0,
                    kind: kind::BOOK_LEVEL,
                    flags: flags | side,
                    payload: [price as u64, size(lots).0],
                });
            }
        }
    }
    if let Some(last) = events[start..].last_mut() {
        last.flags |= flag::LAST;
    }
}

macro_rules! pairs {
    ($levels:expr) => {
        $levels
            .iter()
            .map(|level| Pair { bid: (level.bid_px, level.bid_sz), ask: (level.ask_px, level.ask_sz) })
    };
}

impl Dbn {
    fn record(&mut self, core: &mut Core, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let not_an_event = || (RejectCause::NotAnEvent, String::new());
        let record: RecordRef<'_> = self.records.fsm.last_record().ok_or_else(not_an_event)?;
        let symbols = self.records.symbols.as_ref();
        let mut place = |id: u32, ts_event: u64, ts_recv: u64| -> Result<At, Refusal> {
            let ts = if ts_event == ::dbn::UNDEF_TIMESTAMP { ts_recv } else { ts_event };
            EventTime::from_unsigned(ts).map_err(|error| (RejectCause::BadTime, error.to_string()))?;
            let indexed = if ts_recv == ::dbn::UNDEF_TIMESTAMP { ts } else { ts_recv };
            let key = match symbol(symbols, id, indexed).or_else(|| symbol(symbols, id, ts)) {
                Some(symbol) => core.key(symbol.as_bytes())?,
                None => core.key(id.to_string().as_bytes())?,
            };
            Ok(At { key, ts })
        };
        let trade = |at: At, raw: i64, lots: u32, side: std::ffi::c_char| -> Result<Event, Refusal> {
            super::core::trade(at.ts, at.key, price(raw)?, size(lots), aggressor(side))
        };
        let is_trade = |action: std::ffi::c_char| action as u8 == b'T';
        let tbbo = matches!(self.records.schema, Some(Schema::Tbbo | Schema::Tcbbo));
        if let Ok(msg) = record.try_get::<MboMsg>() {
            let at = place(msg.hd.instrument_id, msg.hd.ts_event, msg.ts_recv)?;
            return mbo(msg, at, &mut self.fills, events);
        }
        if let Ok(msg) = record.try_get::<TradeMsg>() {
            let at = place(msg.hd.instrument_id, msg.hd.ts_event, msg.ts_recv)?;
            events.push(trade(at, msg.price, msg.size, msg.side)?);
        } else if let Ok(msg) = record.try_get::<Mbp1Msg>() {
            let at = place(msg.hd.instrument_id, msg.hd.ts_event, msg.ts_recv)?;
            if tbbo {
                push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
            }
            if tbbo || is_trade(msg.action) {
                events.push(trade(at, msg.price, msg.size, msg.side)?);
            }
            if !tbbo {
                push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
            }
        } else if let Ok(msg) = record.try_get::<Mbp10Msg>() {
            let at = place(msg.hd.instrument_id, msg.hd.ts_event, msg.ts_recv)?;
            if is_trade(msg.action) {
                events.push(trade(at, msg.price, msg.size, msg.side)?);
            }
            push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
        } else if let Ok(msg) = record.try_get::<Cmbp1Msg>() {
            let at = place(msg.hd.instrument_id, msg.hd.ts_event, msg.ts_recv)?;
            if tbbo {
                push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
            }
            if tbbo || is_trade(msg.action) {
                events.push(trade(at, msg.price, msg.size, msg.side)?);
            }
            if !tbbo {
                push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
            }
        } else if let Ok(msg) = record.try_get::<BboMsg>() {
            // Sampled quotes: `ts_recv` ends the interval, `ts_event` is that of the last trade, long ago or undefined.
            let at = place(msg.hd.instrument_id, msg.ts_recv, msg.ts_recv)?;
            push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
        } else if let Ok(msg) = record.try_get::<CbboMsg>() {
            let at = place(msg.hd.instrument_id, msg.ts_recv, msg.ts_recv)?;
            push_levels(at, pairs!(msg.levels), flag::SNAPSHOT, events);
        } else if matches!(record.header().rtype, 0x00 | 0x01 | 0x0a | 0xa0 | 0xb1 | 0xc0..=0xc4) {
            let why = format!("a record of kind {:#04x} that is too short", record.header().rtype);
            return Err((RejectCause::Malformed, why));
        } else {
            return Err(not_an_event());
        }
        // A book with neither side (halted) has nothing to tell.
        if events.is_empty() { Err(not_an_event()) } else { Ok(()) }
    }
}

fn mbo(msg: &MboMsg, at: At, fills: &mut Vec<(u64, u32)>, events: &mut Vec<Event>) -> Result<(), Refusal> {
    let last = msg.flags.is_last();
    let mut flags = 0;
    if msg.side as u8 == b'B' {
        flags |= flag::BID;
    }
    if msg.flags.is_snapshot() {
        flags |= flag::SNAPSHOT;
    }
    if last {
        flags |= flag::LAST;
    }
    let mut lots = msg.size;
    let action = msg.action as u8;
    if action == b'C' {
        for (order, filled) in fills.iter_mut().filter(|(order, _)| *order == msg.order_id) {
            debug_assert_eq!(*order, msg.order_id);
            let told = lots.min(*filled);
            lots -= told;
            *filled -= told;
        }
    }
    if action == b'F' && fills.len() < FILLS_MAX {
        fills.push((msg.order_id, msg.size));
    }
    if last {
        fills.clear();
    }
    let bits = match action {
        b'T' => {
            let (price, size) = (price(msg.price)?, size(msg.size));
            events.push(super::core::trade(at.ts, at.key, price, size, aggressor(msg.side))?);
            return Ok(());
        }
        b'A' => flag::ORDER_ADD,
        b'M' => flag::ORDER_MODIFY,
        b'C' if lots == 0 && msg.size > 0 => return Err((RejectCause::NotAnEvent, String::new())),
        b'C' => flag::ORDER_CANCEL,
        b'F' => flag::ORDER_EXECUTE,
        b'R' => flag::ORDER_CLEAR,
        b'N' => return Err((RejectCause::NotAnEvent, String::new())),
        other => return Err((RejectCause::Malformed, format!("action {other:#04x} is unknown"))),
    };
    let price = if action == b'R' { 0 } else { order_price(msg.price)? };
    let payload = OrderPayload { order_ref: msg.order_id, price, size: lots };
    events.push(Event::order(at.ts, at.key, 0, flags | bits, payload));
    Ok(())
}

impl Decode for Dbn {
    fn fill(&mut self, core: &mut Core, events: &mut Vec<Event>, target: usize) -> Result<bool, ReadError> {
        let mut unit = Vec::with_capacity(24);
        while events.len() < target && !core.stopped() {
            if !self.records.advance()? {
                return Ok(false);
            }
            unit.clear();
            match self.record(core, &mut unit) {
                Ok(()) => {
                    let start = events.len();
                    events.extend_from_slice(&unit);
                    core.finish_unit(events, start);
                }
                Err(refusal) => core.refuse_with(refusal, Place::Row(self.records.count)),
            }
        }
        Ok(true)
    }

    fn progress(&self) -> Progress {
        self.records.input.progress()
    }

    fn format(&self) -> String {
        let schema = self.records.schema.map_or("mixed", |schema| schema.as_str());
        format!("dbn {schema} v{}", self.records.version)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::{read_all, read_err, torture};
    use super::*;
    use ::dbn::encode::{DbnEncoder, EncodeRecord};
    use ::dbn::{FlagSet, MetadataBuilder, RecordHeader, SType, rtype};

    fn file<R: ::dbn::encode::DbnEncodable>(schema: Schema, records: &[R]) -> Vec<u8> {
        let metadata = MetadataBuilder::new()
            .dataset("GLBX.MDP3".to_owned())
            .schema(Some(schema))
            .start(0)
            .stype_in(Some(SType::RawSymbol))
            .stype_out(SType::InstrumentId)
            .build();
        let mut out = Vec::new();
        let mut encoder = DbnEncoder::new(&mut out, &metadata).unwrap();
        for record in records {
            encoder.encode_record(record).unwrap();
        }
        out
    }

    fn order(action: u8, id: u64, price: i64, size: u32, last: bool) -> MboMsg {
        let mut flags = FlagSet::empty();
        if last {
            flags.set_last();
        }
        MboMsg {
            hd: RecordHeader::new::<MboMsg>(rtype::MBO, 1, 42, 1_000),
            order_id: id,
            price,
            size,
            flags,
            action: action as std::ffi::c_char,
            side: b'B' as std::ffi::c_char,
            ts_recv: 1_001,
            ..MboMsg::default()
        }
    }

    fn orders() -> Vec<u8> {
        let price = 4_800_250_000_000;
        file(
            Schema::Mbo,
            &[
                order(b'R', 0, i64::MAX, 0, true),
                order(b'A', 1, price, 10, true),
                order(b'T', 0, price, 4, false),
                order(b'F', 1, price, 4, false),
                order(b'C', 1, price, 4, true),
                order(b'C', 1, price, 6, true),
                order(b'A', 2, -price, 1, true),
                order(b'A', 3, i64::MAX, 1, true),
                order(b'?', 3, price, 1, true),
            ],
        )
    }

    #[test]
    fn a_fill_takes_its_size_off_once() {
        let (events, account, names) = read_all(Format::Dbn, &orders(), &ReadOptions::default());
        assert_eq!(names, ["42"], "no mapping: the instrument number");
        assert_eq!((account.units, account.accepted), (9, 5));
        let bits: Vec<u8> = events.iter().map(|event| event.flags & !(flag::BID | flag::LAST)).collect();
        assert_eq!(bits, [flag::ORDER_CLEAR, flag::ORDER_ADD, 0, flag::ORDER_EXECUTE, flag::ORDER_CANCEL]);
        assert_eq!((events[2].kind, events[2].flags), (kind::TRADE, flag::BUY));
        assert_eq!((events[1].as_order().price, events[4].as_order().size), (48_002_500, 6));
        let refused = |cause| account.refused(cause);
        assert_eq!(refused(RejectCause::NotAnEvent), 1, "the cancel that the fill already told");
        assert_eq!((refused(RejectCause::OutOfRange), refused(RejectCause::BadNumber)), (1, 1));
        assert_eq!(refused(RejectCause::Malformed), 1);
    }

    #[test]
    fn trades_and_bars_are_read() {
        let trade = TradeMsg {
            hd: RecordHeader::new::<TradeMsg>(rtype::MBP_0, 1, 42, u64::MAX),
            price: 1_500_000_000,
            size: 3,
            action: b'T' as std::ffi::c_char,
            side: b'A' as std::ffi::c_char,
            ts_recv: 77,
            ..TradeMsg::default()
        };
        let (events, _, _) = read_all(Format::Dbn, &file(Schema::Trades, &[trade]), &ReadOptions::default());
        assert_eq!((events[0].ts_event, events[0].flags), (77, flag::SELL));
        assert_eq!((events[0].price(), events[0].size()), (1_500_000_000, 300_000_000));
        let bar = OhlcvMsg {
            hd: RecordHeader::new::<OhlcvMsg>(rtype::OHLCV_1M, 1, 42, 60),
            open: 1,
            high: 2,
            low: 1,
            close: 2,
            volume: 5,
        };
        let bytes = file(Schema::Ohlcv1M, &[bar]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.dbn");
        std::fs::write(&path, &bytes).unwrap();
        let bars = read_ohlcv(&path).unwrap();
        assert_eq!((bars[0].width_ns, bars[0].volume), (Some(60_000_000_000), Size(500_000_000)));
        let (events, account, _) = read_all(Format::Dbn, &bytes, &ReadOptions::default());
        assert_eq!((events.len(), account.refused(RejectCause::NotAnEvent)), (0, 1));
    }

    #[test]
    fn damage_never_panics_nor_allocates_what_a_header_claims() {
        let bytes = orders();
        torture(Format::Dbn, &bytes);
        let mut huge = bytes;
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = read_err(Format::Dbn, &huge, &ReadOptions::default());
        assert!(matches!(error, ReadError::Limit { .. }), "{error}");
    }
}
