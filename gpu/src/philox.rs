//! Random numbers by address: Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405).
//!
//! A counter and a key give four words, so path 700,000 of a simulation can be had without the 699,999 before it, on any
//! thread.

use crate::lanes::{LANES, ln_f32, sin_cos_turns_f32};

const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const LOW: u64 = 0xffff_ffff;

/// Four words for `counter` under `key`: ten rounds. Equal to Random123 bit for bit.
#[must_use]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut lanes = counter.map(|word| [u64::from(word)]);
    rounds(&mut lanes, key);
    lanes.map(|[word]| word as u32)
}

/// Words stand in the low halves of 64-bit lanes, where the products are made.
#[inline(always)]
fn rounds<const N: usize>(words: &mut [[u64; N]; 4], mut key: [u32; 2]) {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let [k0, k1] = key.map(u64::from);
        for lane in 0..N {
            let a = (words[0][lane] & LOW) * MULTIPLIERS[0];
            let c = (words[2][lane] & LOW) * MULTIPLIERS[1];
            words[0][lane] = (c >> 32) ^ words[1][lane] ^ k0;
            words[2][lane] = (a >> 32) ^ words[3][lane] ^ k1;
            words[1][lane] = c & LOW;
            words[3][lane] = a & LOW;
        }
    }
}

/// Four standard normal numbers for each of [`LANES`] neighbouring addresses `first..`, at place `block` of `stream`: two
/// Box-Muller pairs in single precision. Longest tail 6.7 deviations.
#[inline(always)]
pub(crate) fn normals(first: u64, block: u32, stream: u32, key: [u32; 2]) -> [[f32; LANES]; 4] {
    let mut words = [[u64::from(block); LANES], [0; LANES], [0; LANES], [u64::from(stream); LANES]];
    for lane in 0..LANES {
        let address = first.wrapping_add(lane as u64);
        words[1][lane] = address & LOW;
        words[2][lane] = address >> 32;
    }
    rounds(&mut words, key);
    let mut normals = [[0.0; LANES]; 4];
    for pair in 0..2 {
        for lane in 0..LANES {
            // Half open at 0: the smallest is 2^-32.
            let radius = unit(words[2 * pair][lane] as u32);
            let turns = unit(words[2 * pair + 1][lane] as u32);
            let r = (-2.0 * ln_f32(radius)).sqrt();
            let (s, c) = sin_cos_turns_f32(turns);
            normals[2 * pair][lane] = r * c;
            normals[2 * pair + 1][lane] = r * s;
        }
    }
    normals
}

/// A word as a number in `(0, 1]`.
#[inline(always)]
fn unit(word: u32) -> f32 {
    ((word >> 1) as i32 as f32).mul_add(4.656_613e-10, 2.328_306_4e-10)
}

/// The key a seed stands for.
pub(crate) const fn key_of(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::widest;

    /// Known answers of Random123, `kat_vectors`.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in cases {
            assert_eq!(philox4x32(counter, key), words);
        }
    }

    #[test]
    fn normals_are_normal_and_belong_to_their_address() {
        let key = key_of(42);
        let (mut moments, mut count) = ([0.0f64; 4], 0.0);
        let mut lag = 0.0;
        for first in (0..200_000u64).step_by(LANES) {
            let rows = widest(|| normals(first, 3, 1, key));
            let shifted = normals(first + 1, 3, 1, key);
            for (row, other) in rows.iter().zip(&shifted) {
                assert_eq!(row[1..], other[..LANES - 1], "the same address, the same number, at any width");
                for (at, &z) in row.iter().enumerate() {
                    let z = f64::from(z);
                    count += 1.0;
                    for (power, moment) in moments.iter_mut().enumerate() {
                        *moment += z.powi(power as i32 + 1);
                    }
                    lag += z * f64::from(row[(at + 1) % LANES]);
                }
            }
        }
        let [mean, second, third, fourth] = moments.map(|moment| moment / count);
        let sd = 1.0 / count.sqrt();
        assert!(mean.abs() < 4.0 * sd && (lag / count).abs() < 4.0 * sd, "{mean} {lag}");
        assert!((second - 1.0).abs() < 4.0 * 2f64.sqrt() * sd, "{second}");
        assert!(third.abs() < 4.0 * 15f64.sqrt() * sd && (fourth - 3.0).abs() < 4.0 * 96f64.sqrt() * sd);
    }
}
