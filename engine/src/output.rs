//! What operators emit: one fixed record for bars, indicator rows, host windows and user results, numbered
//! and digested per slot.

use crate::slot::SLOT_COUNT;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words in an output's payload.
pub const OUTPUT_WORDS: usize = 16;
const HEADER_BYTES: usize = 32;
/// Most bytes of an output that count: what is digested, stored and sent.
pub const OUTPUT_BYTES: usize = 160;

/// One result. The first 160 bytes are a pure function of the slot's input log; `key` is where this shard keeps
/// the name, known only inside one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Output {
    /// xxh3 of the symbol or host name.
    pub name: u64,
    /// Number of this record among those of its slot and stream, from 1.
    pub sequence: u64,
    /// Event time the record speaks of: a window's end.
    pub ts: u64,
    /// The name's slot.
    pub slot: u16,
    /// Which stream of the pipeline, by its place in the configuration.
    pub stream: u16,
    /// How to read `words`, see [`output_kind`].
    pub kind: u8,
    /// [`BarState`] as a byte.
    pub state: u8,
    /// [`Cause`] as a byte.
    pub cause: u8,
    /// How many of `words` are used.
    pub count: u8,
    /// The result itself.
    pub words: [u64; OUTPUT_WORDS],
    /// Dense local index of the name in this shard. Not part of the record.
    pub key: u32,
    /// Always zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Output>() == OUTPUT_BYTES + 8);
const _: () = assert!(std::mem::offset_of!(Output, key) == OUTPUT_BYTES);
const _: () = assert!(std::mem::offset_of!(Output, count) == HEADER_BYTES - 1);

/// Values of [`Output::kind`].
pub mod output_kind {
    /// A bar: words as in [`super::BarWords`].
    pub const BAR: u8 = 1;
    /// A row of `count` floats, named by the stream's columns.
    pub const VALUES: u8 = 2;
    /// A host's window: words as its operator documents.
    pub const HOST: u8 = 3;
    /// A row of `count` integers, named by the stream's columns.
    pub const INTEGERS: u8 = 4;
    /// A late event set aside: words are event time, price, size, flags, frame.
    pub const LATE: u8 = 5;
    /// Between stages only, never a result: the watermark moved to `ts`.
    pub const WATERMARK: u8 = 128;
    /// Between stages only, never a result: the input ended.
    pub const END: u8 = 129;
    /// Between stages only, never a result: the shard stands at the log's barrier number `ts`.
    pub const BARRIER: u8 = 130;
}

/// How settled a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BarState {
    /// Still open; may change without notice.
    Forming = 0,
    /// Closed by the watermark, a count, or the end of input.
    Final = 1,
    /// Closed before, changed since; replaces every earlier revision.
    Amended = 2,
}

/// Why a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The watermark passed the window's end.
    Watermark = 0,
    /// The bar's own measure was reached (ticks, volume, value).
    Filled = 1,
    /// A late event changed a closed window.
    Late = 2,
    /// A trade was taken back.
    Cancel = 3,
    /// A trade was corrected.
    Correction = 4,
    /// The source went idle and stopped holding the window open.
    Idle = 5,
    /// The input ended.
    End = 6,
}

impl BarState {
    /// Name in outputs.
    #[must_use]
    pub const fn name(state: u8) -> &'static str {
        match state {
            0 => "forming",
            1 => "final",
            2 => "amended",
            _ => "unknown",
        }
    }
}

impl Cause {
    /// Name in outputs.
    #[must_use]
    pub const fn name(cause: u8) -> &'static str {
        match cause {
            0 => "watermark",
            1 => "filled",
            2 => "late",
            3 => "cancel",
            4 => "correction",
            5 => "idle",
            6 => "end",
            _ => "unknown",
        }
    }
}

/// The words of a bar. 128-bit sums are split low word first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BarWords {
    /// Start of the window, or the first trade's event time for bars not bounded by time.
    pub ts_open: u64,
    /// Price of the earliest trade by (event time, arrival).
    pub open: i64,
    /// Highest price.
    pub high: i64,
    /// Lowest price.
    pub low: i64,
    /// Price of the latest trade by (event time, arrival).
    pub close: i64,
    /// Sum of sizes, 1e-8.
    pub volume: [u64; 2],
    /// Sum of sizes of trades where the buyer took liquidity, 1e-8.
    pub buy_volume: [u64; 2],
    /// Exact sum of price times size, 1e-17; `i128` in two words.
    pub notional: [u64; 2],
    /// Trades.
    pub trades: u64,
    /// Sequence of the input frame that held the bar's first trade.
    pub frame_first: u64,
    /// Sequence of the input frame that held the bar's last trade.
    pub frame_last: u64,
    /// Events its source is known to have lost while the window was open; 0 means complete.
    pub missing: u64,
    /// Revision, from 0.
    pub revision: u32,
    /// Bars by ticks, volume or value: number of its first trade among the key's trades, from 0 and modulo 2^32, those taken
    /// back included. With the name it says which bar a revision replaces, whose times a revision may move. 0 in other
    /// bars, which are known by their end.
    pub first_trade: u32,
}

const _: () = assert!(size_of::<BarWords>() == OUTPUT_WORDS * 8);

impl BarWords {
    /// The words as an output carries them.
    #[must_use]
    pub fn to_words(self) -> [u64; OUTPUT_WORDS] {
        zerocopy::transmute!(self)
    }

    /// Total volume.
    #[must_use]
    pub fn volume(&self) -> crate::Volume {
        crate::Volume(join(self.volume))
    }

    /// Volume bought aggressively.
    #[must_use]
    pub fn buy_volume(&self) -> crate::Volume {
        crate::Volume(join(self.buy_volume))
    }

    /// Exact notional.
    #[must_use]
    pub fn notional(&self) -> crate::Notional {
        crate::Notional(join(self.notional) as i128)
    }

    /// Volume-weighted average price; it lies within `[low, high]` by arithmetic. `None`
    /// when only zero sizes traded.
    #[must_use]
    pub fn vwap(&self) -> Option<crate::Price> {
        self.notional().vwap(self.volume())
    }
}

/// Splits a 128-bit sum into two words, low first.
#[must_use]
pub const fn split(sum: u128) -> [u64; 2] {
    [sum as u64, (sum >> 64) as u64]
}

/// Inverse of [`split`].
#[must_use]
pub const fn join(words: [u64; 2]) -> u128 {
    words[0] as u128 | (words[1] as u128) << 64
}

impl Output {
    /// The payload of a [`output_kind::BAR`].
    #[must_use]
    pub fn bar(&self) -> BarWords {
        zerocopy::transmute!(self.words)
    }

    /// The values of a [`output_kind::VALUES`] row.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.words[..usize::from(self.count).min(OUTPUT_WORDS)].iter().map(|&word| f64::from_bits(word))
    }

    /// Reads what [`Output::record_bytes`] gave off the front of `bytes`; returns the record, and what is behind it. `None` when it
    /// is cut short or says that it has more words than there can be.
    #[must_use]
    pub fn read_record(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut output = Self::default();
        let count = usize::from(*bytes.get(HEADER_BYTES - 1)?);
        if count > OUTPUT_WORDS {
            return None;
        }
        let (record, rest) = bytes.split_at_checked(HEADER_BYTES + 8 * count)?;
        output.as_mut_bytes()[..record.len()].copy_from_slice(record);
        Some((output, rest))
    }

    /// The bytes that count: the header and the words in use.
    #[must_use]
    pub fn record_bytes(&self) -> &[u8] {
        &self.as_bytes()[..HEADER_BYTES + 8 * usize::from(self.count).min(OUTPUT_WORDS)]
    }
}

/// Where a full emit buffer goes: a ring, the next operator, a file, or nowhere.
pub trait OutputSink {
    /// Takes outputs in order. They are already numbered and digested.
    fn accept(&mut self, outputs: &[Output]);
}

impl<F: FnMut(&[Output])> OutputSink for F {
    fn accept(&mut self, outputs: &[Output]) {
        self(outputs);
    }
}

/// What a lane keeps of one slot, side by side because every record needs both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SlotAccount {
    /// The last number given.
    pub sequence: u64,
    /// Sum of the records' XXH3-64 hashes, modulo 2^64. A record carries its own number, so a sum tells order too.
    pub digest: u64,
}

/// One stage's numbering, digest and buffer. Numbers run per slot, so they do not depend on which other slots
/// share the shard.
pub struct Lane {
    stream: u16,
    accounts: Box<[SlotAccount]>,
    /// Records not yet handed on: the first `held` of a fixed buffer, so that each is written where it stays.
    buffer: Box<[Output]>,
    held: usize,
    emitted: u64,
}

impl Lane {
    /// Outputs buffered before they are handed to the sink. 64 records are 10 KiB: they stay in L1 until read.
    pub const BUFFER_MAX: usize = 64;

    /// A lane for the `stream`-th stream of the pipeline.
    #[must_use]
    pub fn new(stream: u16) -> Self {
        Self {
            stream,
            accounts: vec![SlotAccount::default(); SLOT_COUNT].into_boxed_slice(),
            buffer: vec![Output::default(); Self::BUFFER_MAX].into_boxed_slice(),
            held: 0,
            emitted: 0,
        }
    }

    /// Outputs so far.
    #[must_use]
    pub fn emitted(&self) -> u64 {
        self.emitted
    }

    /// The stream's number.
    #[must_use]
    pub fn stream(&self) -> u16 {
        self.stream
    }

    /// Numbering and digest per slot, of everything flushed.
    #[must_use]
    pub fn accounts(&self) -> &[SlotAccount] {
        &self.accounts
    }

    /// Goes on behind these numbers, one per slot: those of a stream of the same name that ended before.
    pub fn begin_behind(&mut self, last: &[u64]) {
        self.accounts.iter_mut().zip(last).for_each(|(account, last)| account.sequence = *last);
    }

    /// Puts numbering and digests back as a snapshot had them.
    ///
    /// # Panics
    /// When there is not one account per slot; the snapshot reader has checked that.
    pub fn restore(&mut self, accounts: &[SlotAccount], emitted: u64) {
        self.accounts.copy_from_slice(accounts);
        self.emitted = emitted;
        self.held = 0;
    }
}

/// An operator's pen: numbers, digests and buffers what it emits.
pub struct Emit<'a> {
    lane: &'a mut Lane,
    sink: &'a mut dyn OutputSink,
}

impl<'a> Emit<'a> {
    /// A pen for `lane` that hands full buffers to `sink`.
    pub fn new(lane: &'a mut Lane, sink: &'a mut dyn OutputSink) -> Self {
        Self { lane, sink }
    }

    /// Emits one record. `slot`, `name`, `key` and the payload are the caller's; `stream` is set here, `sequence` by
    /// [`Emit::flush`].
    #[inline]
    pub fn push(&mut self, output: Output) {
        self.push_with(|place| *place = output);
    }

    /// Like [`Emit::push`], filling the record where it will stay. `fill` finds the record that stood there before, and
    /// sets `name`, `ts`, `slot`, `kind`, `state`, `cause`, `count`, `key` and the first `count` words; what is left of
    /// the words is zeroed here.
    #[inline]
    pub fn push_with(&mut self, fill: impl FnOnce(&mut Output)) {
        let lane = &mut *self.lane;
        let output = &mut lane.buffer[lane.held];
        let before = output.count;
        fill(output);
        // A lane's records are mostly of one length, so there is mostly nothing left over.
        if output.count < before {
            let rest = usize::from(output.count)..usize::from(before).min(OUTPUT_WORDS);
            output.words[rest].fill(0);
        }
        output.stream = lane.stream;
        output.reserved = 0;
        lane.emitted += 1;
        lane.held += 1;
        if lane.held == Lane::BUFFER_MAX {
            self.flush();
        }
    }

    /// Numbers and digests what is buffered and hands it to the sink.
    pub fn flush(&mut self) {
        let Lane { accounts, buffer, held, .. } = &mut *self.lane;
        let held = std::mem::take(held);
        if held == 0 {
            return;
        }
        // Slots are scattered over more memory than stays in the nearest cache: here their loads wait side by side.
        for output in &mut buffer[..held] {
            let account = &mut accounts[usize::from(output.slot) % SLOT_COUNT];
            account.sequence += 1;
            output.sequence = account.sequence;
        }
        // Digested here and not in `push_with`: the hash reads wider than the record is written, and right after the
        // writes it would wait for the store buffer.
        for output in &buffer[..held] {
            let account = &mut accounts[usize::from(output.slot) % SLOT_COUNT];
            account.digest = account.digest.wrapping_add(xxh3_64(output.record_bytes()));
        }
        self.sink.accept(&self.lane.buffer[..held]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(slot: u16, word: u64) -> Output {
        Output { slot, name: u64::from(slot), count: 1, words: [word; OUTPUT_WORDS], ..Output::default() }
    }

    #[test]
    fn digests_do_not_depend_on_how_slots_are_grouped() {
        let emit_all = |slots: &[u16]| {
            let mut lane = Lane::new(3);
            let mut seen = Vec::new();
            let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
            let mut emit = Emit::new(&mut lane, &mut sink);
            for word in 0..100 {
                for &slot in slots {
                    emit.push(output(slot, word));
                }
            }
            emit.flush();
            assert_eq!(seen.len(), slots.len() * 100);
            lane
        };
        let (both, one, two) = (emit_all(&[1, 2]), emit_all(&[1]), emit_all(&[2]));
        assert_eq!(both.accounts()[1], one.accounts()[1]);
        assert_eq!(both.accounts()[2], two.accounts()[2]);
        assert_ne!(both.accounts()[1].digest, both.accounts()[2].digest);
    }

    #[test]
    fn a_record_reads_back_and_no_cut_one_does() {
        for count in 0..=OUTPUT_WORDS as u8 {
            let written =
                Output { count, sequence: 3, words: std::array::from_fn(|at| at as u64), ..output(9, 0) };
            let mut bytes = written.record_bytes().to_vec();
            bytes.push(7);
            let (read, rest) = Output::read_record(&bytes).unwrap();
            assert_eq!((read.record_bytes(), rest), (written.record_bytes(), &[7][..]));
            bytes.pop();
            for cut in 0..bytes.len() {
                assert!(Output::read_record(&bytes[..cut]).is_none(), "{cut} of {count} words");
            }
            bytes[HEADER_BYTES - 1] = OUTPUT_WORDS as u8 + 1;
            bytes.resize(OUTPUT_BYTES * 2, 0);
            assert!(Output::read_record(&bytes).is_none());
        }
    }

    #[test]
    fn the_local_key_is_not_part_of_the_record() {
        let digest_with_key = |key| {
            let mut lane = Lane::new(0);
            let mut sink = |_: &[Output]| {};
            let mut emit = Emit::new(&mut lane, &mut sink);
            emit.push(Output { key, ..output(9, 1) });
            emit.flush();
            lane.accounts()[9].digest
        };
        assert_eq!(digest_with_key(1), digest_with_key(2));
    }
}
