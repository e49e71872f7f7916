//! A set of indicators and their state: one contiguous block of words per key.

use super::UNDEFINED;
use super::spec::IndicatorSpec;
use rkyv::with::AsOwned;
use std::borrow::Cow;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{BarWords, Share, ShareError, units};

/// What an indicator reads of a bar. Prices in 1e-9, volume in 1e-8, notional in 1e-17.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndicatorBar {
    /// First price; no indicator here reads it.
    pub open: i64,
    /// Highest price.
    pub high: i64,
    /// Lowest price.
    pub low: i64,
    /// Last price.
    pub close: i64,
    /// Sum of sizes.
    pub volume: u128,
    /// Exact sum of price times size.
    pub notional: i128,
}

impl From<&BarWords> for IndicatorBar {
    #[inline]
    fn from(bar: &BarWords) -> Self {
        Self {
            open: bar.open,
            high: bar.high,
            low: bar.low,
            close: bar.close,
            volume: bar.volume().0,
            notional: bar.notional().0,
        }
    }
}

/// Why a set of indicators cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndicatorError {
    /// Nothing to compute.
    #[error("the list of indicators is empty")]
    Empty,
    /// One record cannot hold the row.
    #[error("{columns} columns do not fit a record of {OUTPUT_WORDS}; split the indicators over two streams")]
    TooManyColumns {
        /// Columns asked for.
        columns: usize,
    },
    /// The same indicator twice.
    #[error("indicator `{spec}` is listed twice")]
    Duplicate {
        /// Its text.
        spec: String,
    },
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Saved<'a> {
    fingerprint: u64,
    #[rkyv(with = AsOwned)]
    words: Cow<'a, [u64]>,
}

/// Indicators compiled into steps over one block of words per key, and the blocks.
///
/// A block is `count u32 | ring position u32`, then each step's own words, which every bar touches, then the ring of the
/// last closes that all windows share. The all-zero block is the state before the first bar.
#[derive(Clone, Debug)]
pub struct IndicatorSet {
    specs: Vec<IndicatorSpec>,
    steps: Vec<Step>,
    columns: usize,
    ring: Ring,
    stride: usize,
    words: Vec<u64>,
}

/// One indicator's work per bar: where its words start, which columns it fills, its constants.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ema {
        at: usize,
        column: usize,
        window: u32,
        k: f64,
    },
    Sma {
        at: usize,
        column: usize,
        window: u32,
        scale: f64,
    },
    Bollinger {
        at: usize,
        column: usize,
        window: u32,
        scale: f64,
        reach: f64,
        narrow_max: u128,
    },
    Rsi {
        at: usize,
        column: usize,
        window: u32,
        share: f64,
    },
    Macd {
        at: usize,
        column: usize,
        spans: [u32; 3],
        k: [f64; 3],
        slow_column: Option<usize>,
    },
    Atr {
        at: usize,
        column: usize,
        window: u32,
        share: f64,
    },
    Vwap {
        at: usize,
        column: usize,
        window: u32,
    },
    /// The value is the same as another column's, by arithmetic.
    Copy {
        from: usize,
        to: usize,
    },
}

/// Where in a block the ring of closes is, in words.
#[derive(Clone, Copy, Debug)]
struct Ring {
    at: usize,
    len: usize,
}

const UNIT: f64 = units::PRICE_SCALE as f64;

impl IndicatorSet {
    /// Compiles `specs`; rows have their columns in this order.
    ///
    /// # Errors
    /// [`IndicatorError`] when the list is empty, has a duplicate or needs more than 16 columns.
    pub fn new(specs: &[IndicatorSpec]) -> Result<Self, IndicatorError> {
        if specs.is_empty() {
            return Err(IndicatorError::Empty);
        }
        if let Some((_, twice)) = specs.iter().enumerate().find(|(at, spec)| specs[..*at].contains(spec)) {
            return Err(IndicatorError::Duplicate { spec: twice.to_string() });
        }
        let columns = specs.iter().map(IndicatorSpec::column_count).sum();
        if columns > OUTPUT_WORDS {
            return Err(IndicatorError::TooManyColumns { columns });
        }
        let mut set = Self {
            specs: specs.to_vec(),
            steps: Vec::new(),
            columns,
            ring: Ring { at: 0, len: specs.iter().map(ring_of).max().unwrap_or(0) },
            stride: 1, // the head
            words: Vec::new(),
        };
        set.compile();
        set.ring.at = set.stride;
        set.stride += set.ring.len;
        // Whole cache lines, so that neighbours do not share one.
        set.stride = set.stride.next_multiple_of(8);
        Ok(set)
    }

    fn compile(&mut self) {
        let mut column = 0;
        let mut placed: Vec<(IndicatorSpec, usize)> = Vec::new();
        for spec in &self.specs {
            placed.push((*spec, column));
            column += spec.column_count();
        }
        let column_of = |wanted: &dyn Fn(&IndicatorSpec) -> bool| {
            placed.iter().find(|(spec, _)| wanted(spec)).map(|&(_, column)| column)
        };
        let (mut first, mut then) = (Vec::new(), Vec::new());
        for &(spec, column) in &placed {
            let at = self.stride;
            let step = match spec {
                IndicatorSpec::Ema { window } => Step::Ema { at, column, window, k: k_of(window) },
                IndicatorSpec::Sma { window } => {
                    let same = |s: &IndicatorSpec| matches!(s, IndicatorSpec::Bollinger { window: w, .. } if *w == window);
                    match column_of(&same) {
                        Some(from) => Step::Copy { from, to: column },
                        None => Step::Sma { at, column, window, scale: f64::from(window) * UNIT },
                    }
                }
                IndicatorSpec::Bollinger { window, deviations } => Step::Bollinger {
                    at,
                    column,
                    window,
                    scale: f64::from(window) * UNIT,
                    reach: deviations / (f64::from(window) * UNIT),
                    narrow_max: u128::MAX / u128::from(window),
                },
                IndicatorSpec::Rsi { window } => {
                    Step::Rsi { at, column, window, share: 1.0 / f64::from(window) }
                }
                IndicatorSpec::Macd { fast, slow, signal } => {
                    // The slow mean's seed starts at the first bar, like that of `ema:SLOW`: same numbers, one state.
                    // The fast one's starts `slow - fast` bars later, so it is nobody else's.
                    let slow_column =
                        column_of(&|s| matches!(s, IndicatorSpec::Ema { window } if *window == slow));
                    let spans = [fast, slow, signal];
                    Step::Macd { at, column, spans, k: spans.map(k_of), slow_column }
                }
                IndicatorSpec::Atr { window } => {
                    Step::Atr { at, column, window, share: 1.0 / f64::from(window) }
                }
                IndicatorSpec::Vwap { window } => Step::Vwap { at, column, window },
            };
            self.stride += step.word_count();
            // What others read comes first.
            if matches!(step, Step::Ema { .. }) { first.push(step) } else { then.push(step) }
        }
        let (copies, own): (Vec<Step>, Vec<Step>) =
            then.into_iter().partition(|step| matches!(step, Step::Copy { .. }));
        self.steps = first.into_iter().chain(own).chain(copies).collect();
    }

    /// What it computes, in column order.
    #[must_use]
    pub fn specs(&self) -> &[IndicatorSpec] {
        &self.specs
    }

    /// Values per row.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// Names of the columns. A short name that two indicators share gets their parameters appended.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let short: Vec<String> = self.specs.iter().flat_map(IndicatorSpec::columns).collect();
        let owner = self.specs.iter().flat_map(|spec| std::iter::repeat_n(spec, spec.column_count()));
        let shared = |name: &String| short.iter().filter(|other| *other == name).count() > 1;
        let full = short.iter().zip(owner).map(|(name, spec)| {
            let text = spec.to_string();
            let parameters = text.split_once(':').map_or("", |(_, parameters)| parameters);
            if shared(name) { format!("{name}_{}", parameters.replace(':', "_")) } else { name.clone() }
        });
        full.collect()
    }

    /// Bytes of state per key.
    #[must_use]
    pub fn bytes_per_key(&self) -> usize {
        self.stride * size_of::<u64>()
    }

    /// Keys that have state.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.words.len() / self.stride
    }

    /// Makes room for keys below `keys`, so that none of them allocates later.
    pub fn reserve(&mut self, keys: usize) {
        let wanted = keys * self.stride;
        if wanted > self.words.len() {
            self.words.resize(wanted, 0);
        }
    }

    /// Takes a final bar of `key` and writes its row. Allocates only for a key beyond every one seen.
    ///
    /// # Panics
    /// When `row` is shorter than [`Self::column_count`].
    #[inline]
    pub fn update(&mut self, key: u32, bar: &IndicatorBar, row: &mut [f64; OUTPUT_WORDS]) {
        let start = key as usize * self.stride;
        if start >= self.words.len() {
            self.reserve(key as usize + 1);
        }
        let mut block = Live(&mut self.words[start..start + self.stride]);
        take(&self.steps, self.ring, &mut block, bar, row);
    }

    /// Reads a word of each cache line of the keys' blocks: loads that wait side by side here, and not one after the other
    /// between the steps.
    #[inline]
    pub(super) fn touch(&self, keys: impl Iterator<Item = u32>) {
        let mut seen = 0;
        for key in keys {
            let start = key as usize * self.stride;
            if let Some(block) = self.words.get(start..start + self.stride) {
                seen = block.iter().step_by(8).fold(seen, |seen, word| seen ^ word);
            }
        }
        std::hint::black_box(seen);
    }

    /// The row `key` would have if its forming bar closed as `bar`. State is unchanged.
    #[inline]
    pub fn peek(&self, key: u32, bar: &IndicatorBar, row: &mut [f64; OUTPUT_WORDS]) {
        let start = key as usize * self.stride;
        let block = self.words.get(start..start + self.stride).unwrap_or(&[]);
        take(&self.steps, self.ring, &mut Frozen(block), bar, row);
    }

    fn fingerprint(&self) -> u64 {
        let text: Vec<String> = self.specs.iter().map(ToString::to_string).collect();
        xxhash_rust::xxh3::xxh3_64(text.join(" ").as_bytes())
    }

    /// Appends the whole state.
    pub fn save(&self, bytes: &mut Vec<u8>) {
        let words = Cow::Borrowed(self.words.as_slice());
        snapshot::append(bytes, &Saved { fingerprint: self.fingerprint(), words });
    }

    /// Takes over a saved state of a set with the same specs in the same order.
    ///
    /// # Errors
    /// [`SnapshotError::Section`] when the bytes are another set's or do not validate; nothing is changed.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.words = self.read(bytes)?;
        Ok(())
    }

    fn read(&self, bytes: &[u8]) -> Result<Vec<u64>, SnapshotError> {
        let section = "indicators";
        let Saved { fingerprint, words } = snapshot::read(bytes, section)?;
        if fingerprint != self.fingerprint() {
            return Err(SnapshotError::Section { section, problem: "of other indicators" });
        }
        let ring = self.ring.len.max(1) as u64;
        let sound = words.len().is_multiple_of(self.stride)
            && words.chunks_exact(self.stride).all(|block| block[0] >> 32 < ring && self.rings_sound(block));
        if !sound {
            return Err(SnapshotError::Section { section, problem: "of another shape" });
        }
        Ok(words.into_owned())
    }

    /// Takes over shares of saved states of such sets, of at most `keys` keys in all.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn regroup(&mut self, keys: usize, shares: &[Share<'_>]) -> Result<(), ShareError> {
        let stride = self.stride;
        let mut words = vec![0; keys * stride];
        let mut used = 0;
        for share in shares {
            let saved = self.read(share.state())?;
            for (old, new) in share.keys() {
                // Until its first bar a key's words are zeros, whether it has some or none.
                if let Some(block) = saved.chunks_exact(stride).nth(old)
                    && block[0] != 0
                {
                    words[new * stride..][..stride].copy_from_slice(block);
                    used = used.max(new + 1);
                }
            }
        }
        words.truncate(used * stride);
        self.words = words;
        Ok(())
    }

    fn rings_sound(&self, block: &[u64]) -> bool {
        self.steps.iter().all(|step| match *step {
            Step::Vwap { at, window, .. } => block[at] < u64::from(window),
            _ => true,
        })
    }
}

impl Step {
    const fn word_count(&self) -> usize {
        match *self {
            Self::Copy { .. } => 0,
            Self::Ema { .. } | Self::Atr { .. } => 1,
            Self::Rsi { .. } | Self::Sma { .. } => 2,
            Self::Macd { slow_column: Some(_), .. } => 2,
            Self::Macd { slow_column: None, .. } => 3,
            Self::Bollinger { .. } => 5,
            Self::Vwap { window, .. } => 5 + 4 * window as usize,
        }
    }
}

/// Closes that an indicator needs kept.
const fn ring_of(spec: &IndicatorSpec) -> usize {
    match *spec {
        IndicatorSpec::Sma { window } | IndicatorSpec::Bollinger { window, .. } => window as usize,
        IndicatorSpec::Rsi { .. } | IndicatorSpec::Atr { .. } => 1,
        _ => 0,
    }
}

/// Smoothing constant of an exponential mean.
fn k_of(window: u32) -> f64 {
    2.0 / (f64::from(window) + 1.0)
}

/// A key's words, to change or only to look at.
trait Block {
    fn word(&self, at: usize) -> u64;
    fn set(&mut self, at: usize, word: u64);

    #[inline(always)]
    fn float(&self, at: usize) -> f64 {
        f64::from_bits(self.word(at))
    }

    #[inline(always)]
    fn set_float(&mut self, at: usize, value: f64) {
        self.set(at, value.to_bits());
    }

    #[inline(always)]
    fn wide(&self, at: usize) -> u128 {
        u128::from(self.word(at)) | u128::from(self.word(at + 1)) << 64
    }

    #[inline(always)]
    fn set_wide(&mut self, at: usize, sum: u128) {
        self.set(at, sum as u64);
        self.set(at + 1, (sum >> 64) as u64);
    }
}

struct Live<'a>(&'a mut [u64]);
struct Frozen<'a>(&'a [u64]);

impl Block for Live<'_> {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        self.0[at]
    }

    #[inline(always)]
    fn set(&mut self, at: usize, word: u64) {
        self.0[at] = word;
    }
}

impl Block for Frozen<'_> {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0) // a key without state is one before its first bar
    }

    #[inline(always)]
    fn set(&mut self, _: usize, _: u64) {}
}

/// Recursive averages below this are zero: they are far under a price unit, and without it a symbol that stopped
/// moving would compute on denormals for ever.
const NOTHING: f64 = 1e-100;

#[inline(always)]
fn settle(average: f64) -> f64 {
    if average.abs() < NOTHING { 0.0 } else { average }
}

/// Wilder's mean: sum, then `(previous * (n - 1) + value) / n`. `index` counts values from 0, `share` is `1 / n`: a
/// product costs a fifth of a quotient, and its rounding decays like everything in the mean.
#[inline(always)]
fn wilder(held: f64, value: f64, index: u32, window: u32, share: f64) -> f64 {
    if index >= window {
        settle((held * f64::from(window - 1) + value) * share)
    } else if index + 1 == window {
        (held + value) / f64::from(window)
    } else {
        held + value
    }
}

/// Exponential mean seeded by a simple one. `index` counts values from 0; defined from `window - 1` on.
#[inline(always)]
fn exponential(held: f64, value: f64, index: u32, window: u32, k: f64) -> f64 {
    if index >= window {
        (value - held) * k + held
    } else if index + 1 == window {
        (held + value) / f64::from(window)
    } else {
        held + value
    }
}

/// Exactly rounded below 2^64 in magnitude, where sums of real prices are.
#[inline(always)]
fn sum_to_f64(sum: i128) -> f64 {
    // One instruction, and the same number as below.
    if let Ok(small) = i64::try_from(sum) {
        return small as f64;
    }
    let magnitude = wide_to_f64(sum.unsigned_abs());
    if sum < 0 { -magnitude } else { magnitude }
}

/// The same operations on every machine, unlike a library's conversion.
#[inline(always)]
fn wide_to_f64(value: u128) -> f64 {
    if let Ok(small) = i64::try_from(value) {
        return small as f64;
    }
    (value >> 64) as u64 as f64 * 18_446_744_073_709_551_616.0 + value as u64 as f64
}

/// One bar through all steps.
#[inline(always)]
fn take<B: Block>(
    steps: &[Step],
    ring: Ring,
    block: &mut B,
    bar: &IndicatorBar,
    row: &mut [f64; OUTPUT_WORDS],
) {
    let head = block.word(0);
    let (index, position) = (head as u32, (head >> 32) as usize);
    let close = bar.close as f64 / UNIT; // exactly rounded: the double nearest to the decimal price
    let back = |window: u32| {
        let window = window as usize;
        ring.at + if position >= window { position - window } else { position + ring.len - window }
    };
    let previous = if ring.len > 0 { block.word(back(1)) as i64 } else { 0 };

    for step in steps {
        match *step {
            Step::Ema { at, column, window, k } => {
                let mean = exponential(block.float(at), close, index, window, k);
                block.set_float(at, mean);
                row[column] = if index + 1 >= window { mean } else { UNDEFINED };
            }
            Step::Sma { at, column, window, scale } => {
                let leaving = if index >= window { block.word(back(window)) as i64 } else { 0 };
                let sum = block.wide(at) as i128 + i128::from(bar.close) - i128::from(leaving);
                block.set_wide(at, sum as u128);
                row[column] = if index + 1 >= window { sum_to_f64(sum) / scale } else { UNDEFINED };
            }
            Step::Bollinger { at, column, window, scale, reach, narrow_max } => {
                let leaving = if index >= window { block.word(back(window)) as i64 } else { 0 };
                let sum = block.wide(at) as i128 + i128::from(bar.close) - i128::from(leaving);
                // Squares need up to 143 bits: 126 for one, 17 for the window. The fifth word takes what overflows.
                let square = u128::from(bar.close.unsigned_abs()) * u128::from(bar.close.unsigned_abs());
                let leaving = u128::from(leaving.unsigned_abs()) * u128::from(leaving.unsigned_abs());
                let (more, carry) = block.wide(at + 2).overflowing_add(square);
                let (squares, borrow) = more.overflowing_sub(leaving);
                let top = (block.word(at + 4) + u64::from(carry)).wrapping_sub(u64::from(borrow));
                block.set_wide(at, sum as u128);
                block.set_wide(at + 2, squares);
                block.set(at + 4, top);
                if index + 1 < window {
                    row[column] = UNDEFINED;
                    row[column + 1] = UNDEFINED;
                    row[column + 2] = UNDEFINED;
                    continue;
                }
                // n^2 times the variance, exactly: n * sum of squares - square of sum.
                let spread = if top == 0 && squares <= narrow_max {
                    let magnitude = sum.unsigned_abs();
                    let square = match u64::try_from(magnitude) {
                        // Where real sums are: one product instead of three.
                        Ok(small) => u128::from(small) * u128::from(small),
                        Err(_) => magnitude.wrapping_mul(magnitude),
                    };
                    wide_to_f64((u128::from(window) * squares).wrapping_sub(square))
                } else {
                    spread_wide(window, top, squares, sum)
                };
                let mid = sum_to_f64(sum) / scale;
                let reach = spread.sqrt() * reach;
                row[column] = mid;
                row[column + 1] = mid + reach;
                row[column + 2] = mid - reach;
            }
            Step::Rsi { at, column, window, share } => {
                if index == 0 {
                    row[column] = UNDEFINED;
                    continue;
                }
                let moved = wide_to_f64(bar.close.abs_diff(previous).into()); // a ratio needs no unit
                let (up, down) = if bar.close > previous { (moved, 0.0) } else { (0.0, moved) };
                let gain = wilder(block.float(at), up, index - 1, window, share);
                let loss = wilder(block.float(at + 1), down, index - 1, window, share);
                block.set_float(at, gain);
                block.set_float(at + 1, loss);
                let total = gain + loss;
                row[column] = if index < window {
                    UNDEFINED
                } else if total < 1e-14 * UNIT {
                    0.0 // TA-Lib's `TA_IS_ZERO`
                } else {
                    100.0 * (gain / total)
                };
            }
            Step::Macd { at, column, spans: [fast, slow, signal], k, slow_column } => {
                row[column] = UNDEFINED;
                row[column + 1] = UNDEFINED;
                row[column + 2] = UNDEFINED;
                let slow_mean = match slow_column {
                    Some(ema) => row[ema],
                    None => {
                        let mean = exponential(block.float(at + 2), close, index, slow, k[1]);
                        block.set_float(at + 2, mean);
                        mean
                    }
                };
                if index < slow - fast {
                    continue;
                }
                let fast_mean = exponential(block.float(at), close, index - (slow - fast), fast, k[0]);
                block.set_float(at, fast_mean);
                if index + 1 < slow {
                    continue;
                }
                let (line, since) = (fast_mean - slow_mean, index - (slow - 1));
                let mean = settle(exponential(block.float(at + 1), line, since, signal, k[2]));
                block.set_float(at + 1, mean);
                if since + 1 >= signal {
                    row[column] = line;
                    row[column + 1] = mean;
                    row[column + 2] = line - mean;
                }
            }
            Step::Atr { at, column, window, share } => {
                if index == 0 {
                    row[column] = UNDEFINED;
                    continue;
                }
                let range = bar.high.abs_diff(bar.low);
                let reach = range.max(bar.high.abs_diff(previous)).max(bar.low.abs_diff(previous));
                let mean =
                    wilder(block.float(at), wide_to_f64(reach.into()) / UNIT, index - 1, window, share);
                block.set_float(at, mean);
                row[column] = if index >= window { mean } else { UNDEFINED };
            }
            Step::Vwap { at, column, window } => {
                let place = block.word(at) as usize;
                let slot = at + 5 + 4 * place;
                // The ring starts as zeros, so what leaves during warm-up is nothing.
                let notional =
                    block.wide(at + 1).wrapping_add(bar.notional as u128).wrapping_sub(block.wide(slot))
                        as i128;
                let volume = block.wide(at + 3).wrapping_add(bar.volume).wrapping_sub(block.wide(slot + 2));
                block.set_wide(at + 1, notional as u128);
                block.set_wide(at + 3, volume);
                block.set_wide(slot, bar.notional as u128);
                block.set_wide(slot + 2, bar.volume);
                let next = place + 1;
                block.set(at, if next == window as usize { 0 } else { next as u64 });
                row[column] = if index + 1 >= window && volume > 0 {
                    notional as f64 / volume as f64 / UNIT
                } else {
                    UNDEFINED
                };
            }
            Step::Copy { from, to } => row[to] = row[from],
        }
    }

    if ring.len > 0 {
        block.set(ring.at + position, bar.close as u64);
    }
    let position = if position + 1 >= ring.len { 0 } else { position + 1 };
    block.set(0, u64::from(index.saturating_add(1)) | (position as u64) << 32);
}

/// `n * squares - sum^2` when it may need more than 128 bits: four limbs, low first.
#[cold]
fn spread_wide(window: u32, top: u64, squares: u128, sum: i128) -> f64 {
    let (n, mut limbs, mut carry) = (u128::from(window), [0u64; 4], 0u128);
    for (limb, word) in limbs.iter_mut().zip([squares as u64, (squares >> 64) as u64, top, 0]) {
        let product = n * u128::from(word) + carry;
        *limb = product as u64;
        carry = product >> 64;
    }
    // |sum| < 2^80: low 64 bits and at most 16 above.
    let (low, high) = (sum.unsigned_abs() & u128::from(u64::MAX), sum.unsigned_abs() >> 64);
    let (low_low, cross) = (low * low, 2 * low * high); // cross < 2^81
    let mid = (low_low >> 64) + (cross & u128::from(u64::MAX));
    let above = (mid >> 64) + (cross >> 64) + high * high;
    let square = [low_low as u64, mid as u64, above as u64, (above >> 64) as u64];
    let mut borrow = false;
    for (limb, word) in limbs.iter_mut().zip(square) {
        let (less, under) = limb.overflowing_sub(word);
        let (less, under_again) = less.overflowing_sub(u64::from(borrow));
        *limb = less;
        borrow = under | under_again;
    }
    limbs.iter().rev().fold(0.0, |value, &limb| value * 18_446_744_073_709_551_616.0 + limb as f64)
}
