//! The accumulator of one bar.

use std::hint::select_unpredictable;
use std::ops::{Deref, DerefMut};
use tidegate_engine::output::split;
use tidegate_engine::{BarState, BarWords, Cause, Context, Event, KeyMeta, Output, flag, output_kind};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Start of an accumulator that holds no bar: further than any width from every valid stamp, so the hot path's
/// one comparison also finds out that nothing is open.
pub(super) const EMPTY: u64 = 1 << 63;

/// One bar being built: two cache lines. The first is all a trade's prices need, the second its sums. Sums wrap, but no
/// trade that an edge lets in ([`tidegate_engine::units::TRADE_NOTIONAL_MAX`]) gets them there.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Acc {
    /// Time bars: window start. Measure bars: ordinal of the first trade among the key's trades. [`EMPTY`] if none.
    pub(super) start: u64,
    pub(super) first_ts: u64,
    pub(super) last_ts: u64,
    pub(super) open: i64,
    pub(super) high: i64,
    pub(super) low: i64,
    pub(super) close: i64,
    pub(super) trades: u64,
    /// Volume by whether the buyer took liquidity: one sum to update per trade instead of a total and a part of it.
    pub(super) sides: [u128; 2],
    pub(super) notional: i128,
    pub(super) frame_first: u64,
    pub(super) frame_last: u64,
}

const _: () = assert!(size_of::<Acc>() == 128);

/// An [`Acc`] that starts where a cache line does: the bars that every trade touches lie in these.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(64))]
pub(super) struct Aligned(pub(super) Acc);

impl Aligned {
    pub(super) const VACANT: Self = Self(Acc::VACANT);
}

impl Deref for Aligned {
    type Target = Acc;

    #[inline(always)]
    fn deref(&self) -> &Acc {
        &self.0
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Acc {
        &mut self.0
    }
}

/// Index into [`Acc::sides`].
const _: () = assert!(flag::BUY == 1);

#[inline(always)]
fn side_of(flags: u8) -> usize {
    usize::from(flags & flag::BUY)
}

impl Acc {
    pub(super) const VACANT: Self = Self {
        start: EMPTY,
        first_ts: u64::MAX,
        last_ts: 0,
        open: 0,
        high: i64::MIN,
        low: i64::MAX,
        close: 0,
        trades: 0,
        sides: [0; 2],
        notional: 0,
        frame_first: 0,
        frame_last: 0,
    };

    /// An empty bar at `start`, first touched in `frame`.
    pub(super) fn at(start: u64, frame: u64) -> Self {
        Self { start, frame_first: frame, frame_last: frame, ..Self::VACANT }
    }

    pub(super) fn is_open(&self) -> bool {
        self.start != EMPTY
    }

    /// Adds a trade. Open and close follow (event time, arrival), so any order of arrival gives the same bar up to
    /// equal stamps. Selects instead of branches: disorder makes them unpredictable.
    #[inline(always)]
    pub(super) fn add(&mut self, event: &Event, frame: u64) {
        let (ts, price) = (event.ts_event, event.price());
        self.close = select_unpredictable(ts >= self.last_ts, price, self.close);
        self.last_ts = self.last_ts.max(ts);
        if ts < self.first_ts {
            self.open = price;
            self.first_ts = ts;
        }
        self.add_sums(event, event.flags, frame);
    }

    /// Adds a trade known to be no older than any before it, to a bar that has one: then it is the close, and not
    /// the open. Same result as [`Acc::add`], without its comparisons.
    #[inline(always)]
    pub(super) fn add_newest(&mut self, event: &Event, flags: u8, frame: u64) {
        debug_assert!(event.ts_event >= self.last_ts && self.trades > 0);
        self.close = event.price();
        self.last_ts = event.ts_event;
        self.add_sums(event, flags, frame);
    }

    #[inline(always)]
    fn add_sums(&mut self, event: &Event, flags: u8, frame: u64) {
        let (price, size) = (event.price(), event.size());
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.trades += 1;
        self.add_volume(flags, size);
        self.notional = self.notional.wrapping_add(i128::from(price) * i128::from(size));
        self.frame_last = frame;
    }

    #[inline(always)]
    pub(super) fn add_volume(&mut self, flags: u8, size: u64) {
        let side = &mut self.sides[side_of(flags)];
        *side = side.wrapping_add(u128::from(size));
    }

    pub(super) fn volume(&self) -> u128 {
        self.sides[0].wrapping_add(self.sides[1])
    }

    pub(super) fn buy_volume(&self) -> u128 {
        self.sides[1]
    }

    /// Holds no bar from now on. Only `start` says so; opening writes the rest.
    pub(super) fn vacate(&mut self) {
        self.start = EMPTY;
    }

    /// Takes a trade's sums back. Its prices may still stand in open, high, low or close: see [`Acc::needs_rebuild`].
    pub(super) fn subtract(&mut self, event: &Event) {
        let (price, size) = (event.price(), event.size());
        self.trades -= 1;
        let side = &mut self.sides[side_of(event.flags)];
        *side = side.wrapping_sub(u128::from(size));
        self.notional = self.notional.wrapping_sub(i128::from(price) * i128::from(size));
    }

    /// Whether taking `event` back may change open, high, low or close.
    pub(super) fn needs_rebuild(&self, event: &Event) -> bool {
        let price = event.price();
        price >= self.high
            || price <= self.low
            || event.ts_event <= self.first_ts
            || event.ts_event >= self.last_ts
    }

    /// Forgets all prices and takes them anew from the trades that remain, in log order.
    pub(super) fn rebuild_prices<'a>(&mut self, trades: impl Iterator<Item = &'a Event>) {
        let vacant = Self::VACANT;
        (self.first_ts, self.last_ts) = (vacant.first_ts, vacant.last_ts);
        (self.open, self.high, self.low, self.close) = (vacant.open, vacant.high, vacant.low, vacant.close);
        for event in trades {
            let (ts, price) = (event.ts_event, event.price());
            if ts >= self.last_ts {
                (self.close, self.last_ts) = (price, ts);
            }
            if ts < self.first_ts {
                (self.open, self.first_ts) = (price, ts);
            }
            self.high = self.high.max(price);
            self.low = self.low.min(price);
        }
    }

    /// The bar as a record. `bounds` are the window's: `ts_open` and `ts`.
    pub(super) fn output(
        &self,
        context: &Context,
        key: u32,
        bounds: (u64, u64),
        state: BarState,
        cause: Cause,
        revision: u32,
    ) -> Output {
        let mut output = Output::default();
        self.fill(context, key, bounds, state, cause, revision, &mut output);
        output
    }

    /// [`Acc::output`], written where it will stay.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the in-place form of `output`")]
    pub(super) fn fill(
        &self,
        context: &Context,
        key: u32,
        (ts_open, ts): (u64, u64),
        state: BarState,
        cause: Cause,
        revision: u32,
        output: &mut Output,
    ) {
        let meta: KeyMeta = context.keys()[key as usize];
        // A bar whose every trade was taken back has no prices: it says so by `trades == 0` and zeros.
        let [open, high, low, close] =
            if self.trades > 0 { [self.open, self.high, self.low, self.close] } else { [0; 4] };
        let words: &mut BarWords = zerocopy::transmute_mut!(&mut output.words);
        words.ts_open = ts_open;
        words.open = open;
        words.high = high;
        words.low = low;
        words.close = close;
        words.volume = split(self.volume());
        words.buy_volume = split(self.buy_volume());
        words.notional = split(self.notional as u128);
        words.trades = self.trades;
        words.frame_first = self.frame_first;
        words.frame_last = self.frame_last;
        words.missing = context.missing(meta.source, ts_open, ts);
        words.revision = revision;
        words.first_trade = 0;
        output.name = meta.name;
        output.ts = ts;
        output.slot = meta.slot;
        output.kind = output_kind::BAR;
        output.state = state as u8;
        output.cause = cause as u8;
        output.count = tidegate_engine::output::OUTPUT_WORDS as u8;
        output.key = key;
    }
}
