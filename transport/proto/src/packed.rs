//! Events in fewer bytes: times as differences, values without the zeros that their unit gives them, each in as many bytes as
//! it needs. A trade takes about twelve instead of 32, which is worth more than it costs: what feeds pay for is packets.
//!
//! All events of a frame are of one data kind; others go as they are. An event is two bytes, `control` and `flags`, and then its
//! fields, little-endian and without gaps. Two bits of `control` each say how many bytes they have:
//!
//! | bits | field | bytes | value |
//! |---|---|---|---|
//! | 0, 1 | time | 0, 2, 3, 8 | zig-zag of the difference to the event before (to `base` for the first), divided by 10^`scales[0]` |
//! | 2, 3 | key | 0, 1, 2, 4 | the key; in no byte the key of the event before, 0 for the first |
//! | 4, 5 | word 0 | 2, 3, 4, 8 | zig-zag of the first word of the payload as i64, divided by 10^`scales[1]` |
//! | 6, 7 | word 1 | 1, 2, 4, 8 | the second word, divided by 10^`scales[2]` |

use crate::wire::{FRAME_EVENTS_MAX, FrameError};
use tidegate_engine::{Event, kind};

/// Largest power of ten that a field may be divided by.
pub const SCALE_MAX: u8 = 15;
/// Bytes of the body in front of its events.
pub(crate) const PACKED_HEAD_BYTES: usize = 32;
/// Fewest events that are worth a frame of their own among events of other kinds.
const RUN_MIN: usize = 32;

/// Bytes of each field, by its two bits.
const WIDTHS: [[u8; 4]; 4] = [[0, 2, 3, 8], [0, 1, 2, 4], [2, 3, 4, 8], [1, 2, 4, 8]];
/// Bytes of an event that has the most.
const EVENT_BYTES_MAX: usize = 2 + 8 + 4 + 8 + 8;
/// Bytes that are looked at from the start of an event: its last field may be read with 8.
const WINDOW: usize = 40;

/// Where the fields of an event begin, and where it ends, by its control byte.
const PLACES: [[u8; 5]; 256] = {
    let mut places = [[0; 5]; 256];
    let mut control = 0;
    while control < 256 {
        let mut at = 2;
        let mut field = 0;
        while field < 4 {
            places[control][field] = at;
            at += WIDTHS[field][(control >> (2 * field)) & 3];
            field += 1;
        }
        places[control][4] = at;
        control += 1;
    }
    places
};

/// The bits of 8 bytes that belong to each field, by its two bits.
const MASKS: [[u64; 4]; 4] = {
    let mut masks = [[0; 4]; 4];
    let mut at = 0;
    while at < 16 {
        let width = WIDTHS[at / 4][at % 4];
        masks[at / 4][at % 4] = if width == 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
        at += 1;
    }
    masks
};

/// The smallest code whose width holds `value`.
#[inline]
fn code<const FIELD: usize>(value: u64) -> usize {
    let masks = &MASKS[FIELD];
    usize::from(value > masks[0]) + usize::from(value > masks[1]) + usize::from(value > masks[2])
}

const fn zigzag(value: u64) -> u64 {
    (value << 1) ^ ((value as i64 >> 63) as u64)
}

const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Division by a power of ten that tells whether it comes out even (Granlund and Montgomery, "Division by invariant integers
/// using multiplication", 1994, section 9): a product and a rotation instead of a division.
#[derive(Clone, Copy)]
struct Scale {
    exponent: u8,
    inverse: u64,
    most: u64,
}

impl Scale {
    const fn new(exponent: u8) -> Self {
        let five = 5u64.pow(exponent as u32);
        // Each step of Newton doubles the bits that are right, of which there are three at first.
        let mut inverse = five;
        let mut step = 0;
        while step < 5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(five.wrapping_mul(inverse)));
            step += 1;
        }
        Self { exponent, inverse, most: u64::MAX / 10u64.pow(exponent as u32) }
    }

    #[inline]
    fn divide(self, value: u64) -> Option<u64> {
        let quotient = value.wrapping_mul(self.inverse).rotate_right(u32::from(self.exponent));
        (quotient <= self.most).then_some(quotient)
    }

    /// As [`Scale::divide`], for an i64.
    #[inline]
    fn divide_signed(self, value: u64) -> Option<u64> {
        let quotient = self.divide((value as i64).unsigned_abs())?;
        Some(if (value as i64) < 0 { quotient.wrapping_neg() } else { quotient })
    }
}

const SCALES: [Scale; SCALE_MAX as usize + 1] = {
    let mut scales = [Scale::new(0); SCALE_MAX as usize + 1];
    let mut exponent = 0;
    while exponent <= SCALE_MAX {
        scales[exponent as usize] = Scale::new(exponent);
        exponent += 1;
    }
    scales
};

/// The largest power of ten, at most `most`, that divides `value`.
fn exponent(value: u64, most: u8) -> u8 {
    (0..=most).rev().find(|&at| SCALES[usize::from(at)].divide(value).is_some()).unwrap_or(0)
}

/// A run of packed events as it lies in its frame, read up to its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    /// Sequence of the first; the others follow one by one.
    pub sequence: u64,
    /// Names the feed has defined before them.
    pub names: u32,
    /// How many there are: 1 to [`FRAME_EVENTS_MAX`].
    pub count: u16,
    /// Their kind.
    pub kind: u8,
    pub(crate) base: u64,
    pub(crate) scales: [u8; 3],
    /// The events and the padding behind them, and where in the stream they are.
    pub(crate) bytes: &'a [u8],
    pub(crate) offset: u64,
}

/// Bytes of [`Packed::head`].
pub const RUN_HEAD_BYTES: usize = 20;

impl<'a> Packed<'a> {
    /// What a log keeps in front of [`Packed::bytes`]: the body of a frame from `count` on.
    #[must_use]
    pub fn head(&self) -> [u8; RUN_HEAD_BYTES] {
        let mut head = [0; RUN_HEAD_BYTES];
        head[..2].copy_from_slice(&self.count.to_le_bytes());
        head[2] = self.kind;
        head[4..12].copy_from_slice(&self.base.to_le_bytes());
        head[12..15].copy_from_slice(&self.scales);
        head
    }

    /// The events as they lie in the frame, and the padding behind them.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A run of a log: the head, and what was behind it. `None` for a head that no frame has; whether the events are in order,
    /// [`Packed::unpack`] finds out.
    #[must_use]
    pub fn of_log(sequence: u64, names: u32, run: &'a [u8]) -> Option<Self> {
        let (head, bytes) = run.split_first_chunk::<RUN_HEAD_BYTES>()?;
        let count = u16::from_le_bytes([head[0], head[1]]);
        let mut base = [0; 8];
        base.copy_from_slice(&head[4..12]);
        let scales = [head[12], head[13], head[14]];
        let sound = (1..=FRAME_EVENTS_MAX).contains(&usize::from(count))
            && (1..kind::CONTROL).contains(&head[2])
            && head[3] == 0
            && scales.iter().all(|scale| *scale <= SCALE_MAX)
            && head[15..] == [0; 5];
        let base = u64::from_le_bytes(base);
        sound.then_some(Self { sequence, names, count, kind: head[2], base, scales, bytes, offset: 0 })
    }

    /// Puts the events into `into`, which is emptied first; their `source` is 0.
    ///
    /// # Errors
    /// [`FrameError`] when the body ends inside an event, when more than padding follows them, or when a value does not fit its
    /// word. `into` is of no use then.
    pub fn unpack(&self, into: &mut Vec<Event>) -> Result<(), FrameError> {
        into.resize(usize::from(self.count), Event::default());
        self.read(into.iter_mut(), |place, event| *place = event)
    }

    /// Whether [`Packed::unpack`] would find anything wrong, for less than it takes.
    ///
    /// # Errors
    /// As [`Packed::unpack`].
    pub fn check(&self) -> Result<(), FrameError> {
        self.read(0..self.count, |_, _| ())
    }

    /// Reads the events, one for each of `to`.
    #[inline]
    fn read<P>(&self, to: impl Iterator<Item = P>, mut put: impl FnMut(P, Event)) -> Result<(), FrameError> {
        let units = self.scales.map(|exponent| 10u64.pow(u32::from(exponent.min(SCALE_MAX))));
        // The smallest i64 is one further from zero than the largest.
        let most = [i64::MAX as u64 / units[1] + u64::from(units[1] == 1), u64::MAX / units[2]];
        let (mut time, mut key, mut at) = (self.base, 0u32, 0usize);
        let mut magnitudes = [0u64; 2];
        let mut tail;
        for slot in to {
            // Behind the end of the body are zeros; that it was passed shows once, below.
            let window = match self.bytes.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>) {
                Some(window) => window,
                None => {
                    let rest = self.bytes.get(at..).unwrap_or_default();
                    tail = [0; WINDOW];
                    tail[..rest.len()].copy_from_slice(rest);
                    &tail
                }
            };
            let control = usize::from(window[0]);
            let places = &PLACES[control];
            let field = |place: usize| -> u64 {
                // At most 22, so that 8 bytes are always there; the mask shows that to the compiler.
                let from = usize::from(places[place]) & 31;
                let bytes = window[from..from + 8].try_into().unwrap_or_default();
                u64::from_le_bytes(bytes) & MASKS[place][(control >> (2 * place)) & 3]
            };
            time = time.wrapping_add(unzigzag(field(0)).wrapping_mul(units[0]));
            key = if control & 0b1100 == 0 { key } else { field(1) as u32 };
            let (first, second) = (unzigzag(field(2)), field(3));
            magnitudes[0] = magnitudes[0].max((first as i64).unsigned_abs());
            magnitudes[1] = magnitudes[1].max(second);
            let event = Event {
                ts_event: time,
                key,
                source: 0,
                kind: self.kind,
                flags: window[1],
                payload: [first.wrapping_mul(units[1]), second.wrapping_mul(units[2])],
            };
            put(slot, event);
            at += usize::from(places[4]);
        }
        if at > self.bytes.len() {
            let (needed, left) = (at as u64, self.bytes.len() as u64);
            return Err(FrameError::Cut { offset: self.offset, field: "events", needed, left });
        }
        for (field, found, max) in [("word 0", magnitudes[0], most[0]), ("word 1", magnitudes[1], most[1])] {
            if found > max {
                return Err(FrameError::Field { offset: self.offset, field, found, min: 0, max });
            }
        }
        let padding = &self.bytes[at..];
        if padding.len() >= 8 || padding.iter().any(|&byte| byte != 0) {
            let (offset, found) = (self.offset + at as u64, padding.len() as u64);
            return Err(FrameError::Field { offset, field: "padding", found, min: 0, max: 7 });
        }
        Ok(())
    }
}

/// How a run was packed, to begin the next one with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) base: u64,
    pub(crate) scales: [u8; 3],
}

/// How many events from the front of a run in two parts are worth packing: those of one data kind, unless they are few among
/// others.
pub(crate) fn packable(runs: [&[Event]; 2]) -> usize {
    let all = runs[0].len() + runs[1].len();
    let Some(first) = runs.into_iter().flatten().next() else { return 0 };
    if first.is_control() || first.kind == 0 {
        return 0;
    }
    let like = |run: &[Event]| run.iter().take_while(|event| event.kind == first.kind).count();
    let front = like(runs[0]);
    let count = if front == runs[0].len() { front + like(runs[1]) } else { front };
    let count = count.min(FRAME_EVENTS_MAX);
    if count < RUN_MIN && count < all { 0 } else { count }
}

/// Appends the events, all of one kind, without the head of the body; says how they were packed.
pub(crate) fn pack(runs: [&[Event]; 2], out: &mut Vec<u8>) -> Plan {
    debug_assert!(runs.iter().flat_map(|run| run.iter()).all(|event| event.kind < kind::CONTROL));
    let base = runs.into_iter().flatten().next().map_or(0, |event| event.ts_event);
    let mut scales = guess(runs);
    let start = out.len();
    loop {
        match try_pack(runs, base, scales, out) {
            Ok(()) => return Plan { base, scales },
            Err(less) => {
                // One of them went down, so this ends.
                scales = less;
                out.truncate(start);
            }
        }
    }
}

/// Powers of ten that divide a few of the events: mostly they divide all.
fn guess(runs: [&[Event]; 2]) -> [u8; 3] {
    let mut scales = [SCALE_MAX; 3];
    for run in runs {
        let step = run.len().div_ceil(4).max(1);
        let mut before: Option<&Event> = None;
        for event in run.iter().step_by(step) {
            lower(
                &mut scales,
                before.map_or(0, |before| event.ts_event.wrapping_sub(before.ts_event)),
                event,
            );
            before = Some(event);
        }
    }
    scales
}

fn lower(scales: &mut [u8; 3], passed: u64, event: &Event) {
    let magnitudes = [passed, event.payload[0]].map(|value| (value as i64).unsigned_abs());
    scales[0] = exponent(magnitudes[0], scales[0]);
    scales[1] = exponent(magnitudes[1], scales[1]);
    scales[2] = exponent(event.payload[1], scales[2]);
}

/// # Errors
/// Smaller scales, because these do not divide every event.
fn try_pack(runs: [&[Event]; 2], base: u64, scales: [u8; 3], out: &mut Vec<u8>) -> Result<(), [u8; 3]> {
    /// Events between two looks at the capacity of `out`.
    const BLOCK: usize = 64;
    let [of_time, of_first, of_second] = scales.map(|exponent| SCALES[usize::from(exponent)]);
    let (mut time, mut key) = (base, 0u32);
    let mut block = [0u8; BLOCK * EVENT_BYTES_MAX + 8];
    for chunk in runs.into_iter().flat_map(|run| run.chunks(BLOCK)) {
        let mut at = 0;
        for event in chunk {
            let passed = event.ts_event.wrapping_sub(time);
            let parts = (
                of_time.divide_signed(passed),
                of_first.divide_signed(event.payload[0]),
                of_second.divide(event.payload[1]),
            );
            let (Some(passed), Some(first), Some(second)) = parts else {
                let mut less = scales;
                lower(&mut less, passed, event);
                return Err(less);
            };
            let (passed, first) = (zigzag(passed), zigzag(first));
            let key_code = if event.key == key { 0 } else { code::<1>(u64::from(event.key)).max(1) };
            let control = code::<0>(passed) | key_code << 2 | code::<2>(first) << 4 | code::<3>(second) << 6;
            let places = &PLACES[control & 255];
            block[at] = control as u8;
            block[at + 1] = event.flags;
            // Each is written with 8 bytes; what is too much, the next one overwrites.
            for (place, value) in [(0, passed), (1, u64::from(event.key)), (2, first), (3, second)] {
                let from = at + usize::from(places[place]);
                block[from..from + 8].copy_from_slice(&value.to_le_bytes());
            }
            at += usize::from(places[4]);
            (time, key) = (event.ts_event, event.key);
        }
        out.extend_from_slice(&block[..at]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FrameBuffer, HEAD_BYTES};
    use crate::{Frame, FrameWriter};
    use proptest::prelude::*;

    fn round_trip(events: &[Event], split: usize) -> (Vec<Event>, usize) {
        let (a, b) = events.split_at(split);
        let mut bytes = Vec::new();
        assert_eq!(FrameWriter::new(&mut bytes).packed(7, 9, [a, b]), events.len());
        let mut buffer = FrameBuffer::new(1);
        assert_eq!(buffer.push(&bytes), bytes.len());
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        let Frame::Packed(packed) = Frame::read(offset, &head, body).unwrap() else {
            panic!("a packed frame")
        };
        assert_eq!((packed.sequence, packed.names, usize::from(packed.count)), (7, 9, events.len()));
        let mut found = Vec::new();
        packed.unpack(&mut found).unwrap();
        (found, bytes.len() - HEAD_BYTES)
    }

    fn event() -> impl Strategy<Value = Event> {
        let word = prop_oneof![
            any::<u64>(),
            (0..1_000_000u64).prop_map(|ticks| ticks * 10_000_000),
            (-1_000i64..1_000).prop_map(|ticks| (ticks * 1_000_000_000) as u64),
            Just(i64::MIN as u64),
            Just(i64::MAX as u64),
            Just(0),
        ];
        let time = prop_oneof![any::<u64>(), 1_000_000_000_000_000_000..1_000_000_001_000_000_000u64];
        (time, prop_oneof![any::<u32>(), 0..300u32], any::<u8>(), word.clone(), word).prop_map(
            |(ts_event, key, flags, first, second)| Event {
                ts_event,
                key,
                source: 0,
                kind: kind::TRADE,
                flags,
                payload: [first, second],
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_unpacked_is_what_was_packed(events in prop::collection::vec(event(), 1..300), at in any::<prop::sample::Index>()) {
            let (found, bytes) = round_trip(&events, at.index(events.len() + 1));
            prop_assert_eq!(&found, &events);
            prop_assert!(bytes <= PACKED_HEAD_BYTES + events.len() * EVENT_BYTES_MAX + 7);
        }

        #[test]
        fn division_says_whether_it_comes_out_even(value in any::<u64>(), exponent in 0..=SCALE_MAX) {
            let (scale, power) = (SCALES[usize::from(exponent)], 10u64.pow(u32::from(exponent)));
            prop_assert_eq!(scale.divide(value), value.is_multiple_of(power).then(|| value / power));
            let even = value / power * power;
            prop_assert_eq!(scale.divide(even), Some(even / power));
        }
    }

    fn trades(count: usize) -> Vec<Event> {
        let trade = |i: usize| Event {
            ts_event: 1_700_000_000_000_000_000 + 20_000 * i as u64,
            key: (i * 7 % 1_000) as u32,
            source: 0,
            kind: kind::TRADE,
            flags: 1,
            payload: [(15_000 + i as u64 % 90) * 10_000_000, (1 + i as u64 % 200) * 100_000_000],
        };
        (0..count).map(trade).collect()
    }

    #[test]
    fn a_run_of_a_log_is_the_frames() {
        let events: Vec<Event> = (0..40)
            .map(|at| Event {
                ts_event: 1_000 + at * 10,
                kind: 1,
                payload: [at * 100, at],
                ..Event::default()
            })
            .collect();
        let mut bytes = Vec::new();
        assert_eq!(FrameWriter::new(&mut bytes).packed(7, 9, [&events, &[]]), events.len());
        let mut buffer = FrameBuffer::new(1);
        assert_eq!(buffer.push(&bytes), bytes.len());
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        let Frame::Packed(packed) = Frame::read(offset, &head, body).unwrap() else { panic!("not packed") };
        let run = [&packed.head()[..], packed.bytes()].concat();
        let again = Packed::of_log(7, 9, &run).unwrap();
        let mut back = Vec::new();
        again.unpack(&mut back).unwrap();
        assert_eq!((back, again.head()), (events, packed.head()));
        for (at, byte) in [(1, 255), (2, 0), (2, 200), (3, 1), (12, SCALE_MAX + 1), (15, 1), (19, 1)] {
            let mut wrong = run.clone();
            wrong[at] = byte;
            assert!(Packed::of_log(7, 9, &wrong).is_none(), "byte {at}");
        }
        assert!(Packed::of_log(7, 9, &run[..RUN_HEAD_BYTES - 1]).is_none());
        let cut = Packed::of_log(7, 9, &run[..run.len() - 8]).unwrap();
        assert!(cut.unpack(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_trade_takes_a_third_of_its_bytes() {
        let events = trades(FRAME_EVENTS_MAX);
        let (found, bytes) = round_trip(&events, 100);
        assert_eq!(found, events);
        assert!(bytes < events.len() * 11, "{bytes} bytes for {} trades", events.len());
    }

    #[test]
    fn a_price_off_the_grid_costs_its_frame_and_is_kept() {
        let mut events = trades(500);
        events[333].payload[0] += 1;
        assert_eq!(round_trip(&events, 0).0, events);
    }

    #[test]
    fn runs_are_packed_up_to_an_event_of_another_kind() {
        let mut events = trades(100);
        events[40].kind = kind::BOOK_LEVEL;
        events[41].kind = kind::GAP;
        assert_eq!(packable([&events, &[]]), 40);
        assert_eq!(packable([&events[..20], &events[20..]]), 40);
        assert_eq!(packable([&events[20..], &[]]), 0, "too few among others");
        assert_eq!(packable([&events[20..40], &[]]), 20, "few, and no others");
        assert_eq!(packable([&events[41..], &[]]), 0, "a control record");
    }

    #[test]
    fn a_frame_cut_or_changed_anywhere_is_refused_or_read_as_other_events() {
        let events = trades(40);
        let mut bytes = Vec::new();
        FrameWriter::new(&mut bytes).packed(1, 0, [&events, &[]]);
        let read = |bytes: &[u8]| -> Result<Vec<Event>, FrameError> {
            let mut buffer = FrameBuffer::new(1);
            buffer.push(bytes);
            let Some((offset, head, body)) = buffer.next_frame()? else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            if let Frame::Packed(packed) = Frame::read(offset, &head, body)? {
                let unpacked = packed.unpack(&mut found);
                assert_eq!(packed.check(), unpacked, "checking finds what unpacking finds");
                unpacked?;
            }
            Ok(found)
        };
        assert_eq!(read(&bytes).unwrap(), events);
        // Shorter by whole words, with a length that says so: no event may come out of bytes that are not there.
        for cut in (HEAD_BYTES + 40..bytes.len()).step_by(8) {
            let mut short = bytes[..cut].to_vec();
            short[8..12].copy_from_slice(&((cut - HEAD_BYTES) as u32).to_le_bytes());
            assert!(read(&short).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.extend_from_slice(&[0; 8]);
        longer[8..12].copy_from_slice(&((bytes.len() + 8 - HEAD_BYTES) as u32).to_le_bytes());
        assert!(matches!(read(&longer), Err(FrameError::Field { field: "padding", .. })));
        // Behind sequence and names there is no bit that means nothing.
        for at in HEAD_BYTES + 12..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(read(&changed).as_ref(), Ok(&events), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_value_that_does_not_fit_its_word_is_refused() {
        let body = |scales: [u8; 3], first: u64, second: u64| {
            let mut bytes = vec![0b1111_0000u8, 0];
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&second.to_le_bytes());
            bytes.resize(24, 0);
            let packed = Packed {
                sequence: 1,
                names: 0,
                count: 1,
                kind: kind::TRADE,
                base: 0,
                scales,
                bytes: &bytes,
                offset: 0,
            };
            let unpacked = packed.unpack(&mut Vec::new());
            assert_eq!(packed.check(), unpacked, "checking finds what unpacking finds");
            unpacked
        };
        let limit = i64::MAX as u64 / 1_000;
        assert_eq!(body([0, 3, 0], zigzag(limit), u64::MAX), Ok(()));
        assert_eq!(body([0, 0, 0], zigzag(i64::MIN as u64), 0), Ok(()));
        let error = body([0, 3, 0], zigzag(limit + 1), 0).unwrap_err();
        assert!(matches!(error, FrameError::Field { field: "word 0", max, .. } if max == limit), "{error}");
        let error = body([0, 0, 1], 0, u64::MAX / 10 + 1).unwrap_err();
        assert!(matches!(error, FrameError::Field { field: "word 1", .. }), "{error}");
    }
}
