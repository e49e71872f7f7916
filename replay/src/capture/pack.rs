//! Bit packing of up to 256 integers at one width, in four interleaved lanes.
//!
//! Value `i` lies in lane `i % 4`, row `i / 4`. Each lane is an ordinary little-endian bit stream and the four streams
//! are interleaved word by word, so one shift distance serves four neighbouring values: the compiler turns a row into
//! vector shifts without a shuffle, and the values come out in their own order.

/// Values in a mini-block.
pub(super) const MINI: usize = 256;
/// Interleaved bit streams.
const LANES: usize = 4;
/// Values per lane.
const ROWS: usize = MINI / LANES;
/// Words of a full mini-block at width 64, and one row more so that a value's upper half may always be loaded.
pub(super) const WORDS: usize = (ROWS + 1) * LANES;

/// Bytes that `count` values of `width` bits take.
pub(super) const fn packed_bytes(count: usize, width: usize) -> usize {
    (count.div_ceil(LANES) * width).div_ceil(64) * LANES * 8
}

/// Appends the low `width` bits of the first `count` codes.
pub(super) fn pack(codes: &[u64; MINI], count: usize, width: usize, out: &mut Vec<u8>) {
    let mut words = [0u64; WORDS];
    for (row, codes) in codes.as_chunks::<LANES>().0.iter().take(count.div_ceil(LANES)).enumerate() {
        let (word, shift) = (row * width / 64 * LANES, row * width % 64);
        for (lane, &code) in codes.iter().enumerate() {
            words[word + lane] |= code << shift;
            // Two steps, because a shift by 64 is not defined.
            words[word + LANES + lane] |= code >> 1 >> (63 - shift);
        }
    }
    for word in &words[..packed_bytes(count, width) / 8] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Reads all 256 codes; those past the packed count are whatever `words` holds.
pub(super) fn unpack(words: &[u64; WORDS], width: usize, out: &mut [u64; MINI]) {
    macro_rules! by_width {
        ($($w:literal)*) => {
            match width {
                0 => out.fill(0),
                $($w => unpack_at::<$w>(words, out),)*
                _ => unpack_at::<64>(words, out),
            }
        };
    }
    // A constant width makes mask and word steps constants; it is worth a third of the time of a width read at run time.
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
}

fn unpack_at<const W: usize>(words: &[u64; WORDS], out: &mut [u64; MINI]) {
    let mask = u64::MAX >> (64 - W);
    for (row, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (word, shift) = (row * W / 64 * LANES, row * W % 64);
        let low: &[u64; LANES] = words[word..word + LANES].try_into().expect("four words");
        let high: &[u64; LANES] = words[word + LANES..word + 2 * LANES].try_into().expect("four words");
        for lane in 0..LANES {
            out[lane] = ((low[lane] >> shift) | (high[lane] << 1 << (63 - shift))) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_count_round_trips() {
        for width in 0..=64usize {
            for count in [1, 2, 3, 4, 5, 63, 64, 65, 255, 256] {
                let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
                let mut codes = [0; MINI];
                let mut state = width as u64;
                for code in &mut codes[..count] {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    *code = (state ^ (state >> 29)) & mask;
                }
                let mut bytes = Vec::new();
                pack(&codes, count, width, &mut bytes);
                assert_eq!(bytes.len(), packed_bytes(count, width));
                let mut words = [u64::MAX; WORDS];
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
                let mut back = [1; MINI];
                unpack(&words, width, &mut back);
                assert_eq!(back[..count], codes[..count], "width {width}, count {count}");
            }
        }
    }
}
