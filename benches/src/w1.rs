//! Work W1: trades of a few thousand symbols whose popularity follows Zipf's law, evenly spaced in event time.
//!
//! Every engine of the comparison reads this very sequence. It depends on [`W1`] alone: same parameters, same
//! bytes, on every machine.

use tidegate_engine::units::{PRICE_SCALE, SIZE_SCALE};
use tidegate_engine::{Event, Price, Size};

/// Event time of the first trade: 2023-11-14T22:13:20Z, a whole second.
pub const T0_NS: u64 = 1_700_000_000 * 1_000_000_000;
/// Event time between two trades: 100,000 trades a second.
pub const STEP_NS: u64 = 10_000;
/// Width of the bars of jobs A and B.
pub const BAR_NS: u64 = 1_000_000_000;
/// Smallest price step, in [`Price`] units: 0.01.
pub const TICK: i64 = PRICE_SCALE / 100;
/// Price every symbol starts near, in ticks: 100.00.
const START_TICKS: i64 = 10_000;
/// Lowest price, in ticks: the walk is held above 1.00.
const FLOOR_TICKS: i64 = 100;
/// Largest trade, in whole units.
const SIZE_MAX: u64 = 1_000;
/// Records in each run that [`reverse_runs`] turns around for the disordered variant of W1.
pub const REVERSED_RUN: usize = 100;

/// Parameters of W1. The default is the published size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct W1 {
    /// Trades.
    pub events: usize,
    /// Symbols; keys are `0..symbols`.
    pub symbols: usize,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for W1 {
    fn default() -> Self {
        Self { events: 20_000_000, symbols: 2_000, seed: 1 }
    }
}

/// The trades of W1 in event-time order.
///
/// Trade `i` is stamped `T0_NS + i * STEP_NS`. Its key is drawn from Zipf(1) over `symbols` ranks, ranks dealt to
/// keys by a shuffle. Each symbol's price walks on a 0.01 grid, one tick up, one down or none with probabilities
/// 3/8, 3/8 and 1/4, from within 5.00 of 100.00. Sizes are uniform over 1 to 1,000 whole units. Flags are 0 and the
/// source is 0.
///
/// # Panics
/// When `symbols` is 0 or over `u32::MAX`.
#[must_use]
pub fn generate(work: W1) -> Vec<Event> {
    let mut rng = Xoshiro256::new(work.seed);
    let popularity = AliasTable::zipf(work.symbols, &mut rng);
    let mut ticks: Vec<i64> =
        (0..work.symbols).map(|_| START_TICKS - 500 + rng.below(1_001) as i64).collect();
    let mut events = Vec::with_capacity(work.events);
    events.extend((0..work.events as u64).map(|i| {
        let key = popularity.draw(&mut rng);
        let word = rng.next_u64();
        let price = &mut ticks[key as usize];
        *price = (*price + WALK[(word & 7) as usize]).max(FLOOR_TICKS);
        // Lemire's multiply-shift over 32 bits: the bias is under 1e-6.
        let size = 1 + (((word >> 32) * SIZE_MAX) >> 32);
        Event::trade(T0_NS + i * STEP_NS, key, 0, Price(*price * TICK), Size(size * SIZE_SCALE), 0)
    }));
    events
}

/// Steps of the price walk, in ticks, by three random bits.
const WALK: [i64; 8] = [-1, -1, -1, 0, 0, 1, 1, 1];

/// Turns every consecutive [`REVERSED_RUN`] records around: the disordered variant of W1. Disorder stays under
/// [`REVERSED_LATENESS_NS`].
pub fn reverse_runs(events: &mut [Event]) {
    for run in events.chunks_mut(REVERSED_RUN) {
        run.reverse();
    }
}

/// A bound on how far behind the latest event any event of the reversed variant comes.
pub const REVERSED_LATENESS_NS: u64 = REVERSED_RUN as u64 * STEP_NS;

/// Blackman and Vigna's xoshiro256++, seeded through splitmix64.
#[derive(Clone, Debug)]
pub struct Xoshiro256([u64; 4]);

impl Xoshiro256 {
    /// A generator whose whole sequence follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `0..bound`; biased by at most `bound / 2^64`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// Walker's alias table: draws from a fixed discrete distribution in constant time.
#[derive(Clone, Debug)]
pub struct AliasTable {
    /// Per column: keep it when the low 32 bits drawn are below this, otherwise take the alias.
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Out of 2^32.
    keep_below: u64,
    own: u32,
    alias: u32,
}

impl AliasTable {
    /// Zipf's law with exponent 1 over `count` ranks; which outcome has which rank is shuffled by `rng`.
    ///
    /// # Panics
    /// When `count` is 0 or over `u32::MAX`.
    #[must_use]
    pub fn zipf(count: usize, rng: &mut Xoshiro256) -> Self {
        assert!(
            count > 0 && u32::try_from(count).is_ok(),
            "Zipf's law needs 1 to 2^32 - 1 ranks, not {count}"
        );
        let mut outcomes: Vec<u32> = (0..count as u32).collect();
        for i in (1..count).rev() {
            outcomes.swap(i, rng.below(i as u64 + 1) as usize);
        }
        let harmonic: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
        // In units of the mean column, so a full column weighs 1.
        let mut weight: Vec<f64> = (1..=count).map(|rank| count as f64 / (rank as f64 * harmonic)).collect();
        let mut columns: Vec<Column> =
            outcomes.iter().map(|&own| Column { keep_below: 1 << 32, own, alias: own }).collect();
        let (mut light, mut heavy): (Vec<usize>, Vec<usize>) = (0..count).partition(|&i| weight[i] < 1.0);
        while let (Some(poor), Some(&rich)) = (light.pop(), heavy.last()) {
            columns[poor].keep_below = (weight[poor] * 2f64.powi(32)) as u64;
            columns[poor].alias = outcomes[rich];
            weight[rich] -= 1.0 - weight[poor];
            if weight[rich] < 1.0 {
                heavy.pop();
                light.push(rich);
            }
        }
        Self { columns }
    }

    /// Draws one outcome.
    #[inline]
    pub fn draw(&self, rng: &mut Xoshiro256) -> u32 {
        let word = rng.next_u64();
        let column = self.columns[(((word >> 32) * self.columns.len() as u64) >> 32) as usize];
        if word & 0xffff_ffff < column.keep_below { column.own } else { column.alias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: W1 = W1 { events: 200_000, symbols: 50, seed: 7 };

    #[test]
    fn the_same_seed_gives_the_same_work() {
        assert_eq!(generate(SMALL), generate(SMALL));
        assert_ne!(generate(SMALL), generate(W1 { seed: 8, ..SMALL }));
    }

    #[test]
    fn popularity_follows_zipf() {
        let mut counts = [0u32; SMALL.symbols];
        generate(SMALL).iter().for_each(|event| counts[event.key as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let harmonic: f64 = (1..=SMALL.symbols).map(|rank| 1.0 / rank as f64).sum();
        for (rank, &count) in counts.iter().enumerate().take(10) {
            let expected = SMALL.events as f64 / ((rank + 1) as f64 * harmonic);
            assert!((f64::from(count) / expected - 1.0).abs() < 0.05, "rank {rank}: {count}, {expected}");
        }
    }

    #[test]
    fn fields_are_in_range_and_times_evenly_spaced() {
        for (i, event) in generate(SMALL).iter().enumerate() {
            assert_eq!(event.ts_event, T0_NS + i as u64 * STEP_NS);
            assert!(event.price() >= FLOOR_TICKS * TICK && event.price() % TICK == 0);
            assert!(event.size() % SIZE_SCALE == 0 && (1..=SIZE_MAX).contains(&(event.size() / SIZE_SCALE)));
        }
    }

    #[test]
    fn reversing_keeps_every_event_within_the_lateness_bound() {
        let ordered = generate(SMALL);
        let mut reversed = ordered.clone();
        reverse_runs(&mut reversed);
        let mut latest = 0;
        for event in &reversed {
            latest = latest.max(event.ts_event);
            assert!(latest - event.ts_event < REVERSED_LATENESS_NS);
        }
        reversed.sort_unstable_by_key(|event| event.ts_event);
        assert_eq!(reversed, ordered);
    }
}
