//! The body of a block: events as columns, each column transformed and bit-packed by its own rule.
//!
//! The writer tries the transforms that can help and keeps the cheapest by exact byte count; the reader is one loop
//! over mini-blocks of 256 events with no branch per event.

use super::pack::{MINI, WORDS, pack, packed_bytes, unpack};
use tidegate_engine::Event;
use zerocopy::IntoBytes;

/// What is wrong with a body whose checksum holds: it was made by a faulty or hostile writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw(pub(super) &'static str);

/// The record as two payload words, or as four half words for payloads that are small fields side by side.
const LAYOUT_WORDS: u8 = 0;
const LAYOUT_HALVES: u8 = 1;

const PLAIN: u8 = 0;
const DELTA: u8 = 1;
const DICTIONARY: u8 = 2;
const BY_KEY: u8 = 3;

/// Marks a mini-block header that brings its own step; without it the column's last step holds.
const STEP_FOLLOWS: u8 = 0x80;

/// Largest dictionary of a column other than the key: past this, codes are about as wide as values.
const SMALL_DICTIONARY_MAX: usize = 256;
/// Columns of the widest layout.
const COLUMNS_MAX: usize = 7;
const TS: usize = 0;
const KEY: usize = 1;
const META: usize = 2;
const PAYLOAD: usize = 3;

const fn column_count(layout: u8) -> usize {
    if layout == LAYOUT_WORDS { 5 } else { 7 }
}

fn meta_of(event: &Event) -> u64 {
    u64::from(event.source) | u64::from(event.kind) << 16 | u64::from(event.flags) << 24
}

fn event_of(ts: u64, key: u64, meta: u64, payload: [u64; 2]) -> Event {
    Event {
        ts_event: ts,
        key: key as u32,
        source: meta as u16,
        kind: (meta >> 16) as u8,
        flags: (meta >> 24) as u8,
        payload,
    }
}

// ---------------------------------------------------------------------------------------------- writing

/// How one mini-block of a column is coded: `value = base + step * code`.
#[derive(Clone, Copy)]
struct Fit {
    base: u64,
    step: u64,
    width: u8,
}

/// Smallest base, largest common step. Values compare as signed, so prices around zero stay narrow.
fn fit(values: &[u64]) -> Fit {
    let (mut min, mut max) = (i64::MAX, i64::MIN);
    for &value in values {
        min = min.min(value as i64);
        max = max.max(value as i64);
    }
    let base = min as u64;
    let mut step = 0;
    for &value in values {
        let distance = value.wrapping_sub(base);
        if step == 1 {
            break;
        }
        if step == 0 || distance % step != 0 {
            step = gcd(step, distance);
        }
    }
    let step = step.max(1);
    let range = (max as u64).wrapping_sub(base) / step;
    Fit { base, step, width: (64 - range.leading_zeros()) as u8 }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn write_mini(values: &[u64], last_step: &mut u64, out: &mut Vec<u8>) {
    let mut fit = fit(values);
    // Keep the column's step when it serves as well: it saves eight bytes and the reader a reload.
    let keeps = fit.width == 0 || fit.step == *last_step;
    if fit.width == 0 {
        fit.step = *last_step;
    }
    out.push(fit.width | if keeps { 0 } else { STEP_FOLLOWS });
    if !keeps {
        out.extend_from_slice(&fit.step.to_le_bytes());
        *last_step = fit.step;
    }
    out.extend_from_slice(&fit.base.to_le_bytes());
    if fit.width > 0 {
        let mut codes = [0; MINI];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = value.wrapping_sub(fit.base) / fit.step;
        }
        pack(&codes, values.len(), usize::from(fit.width), out);
    }
}

fn write_sequence(values: &[u64], out: &mut Vec<u8>) {
    let mut step = 1;
    for mini in values.chunks(MINI) {
        write_mini(mini, &mut step, out);
    }
}

/// Exact size of [`write_sequence`]'s result.
fn sequence_bytes(values: &[u64]) -> usize {
    let mut step = 1;
    values
        .chunks(MINI)
        .map(|mini| {
            let fit = fit(mini);
            let keeps = fit.width == 0 || fit.step == step;
            if !keeps {
                step = fit.step;
            }
            9 + if keeps { 0 } else { 8 } + packed_bytes(mini.len(), usize::from(fit.width))
        })
        .sum()
}

/// A column ready to be written: its transform, what goes ahead of the mini-blocks, and the values left to pack.
struct Coded {
    transform: u8,
    head: Vec<u8>,
    values: Vec<u64>,
    bytes: usize,
}

impl Coded {
    fn new(transform: u8, head: Vec<u8>, values: Vec<u64>) -> Self {
        let bytes = head.len() + sequence_bytes(&values);
        Self { transform, head, values, bytes }
    }

    fn or(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.bytes < self.bytes => other,
            _ => self,
        }
    }
}

fn by_delta(values: &[u64]) -> Coded {
    let first = values[0];
    let mut last = first;
    let deltas =
        values.iter().map(|&value| value.wrapping_sub(std::mem::replace(&mut last, value))).collect();
    Coded::new(DELTA, first.to_le_bytes().to_vec(), deltas)
}

/// Distinct values of a block, found by open addressing; reused from block to block.
#[derive(Default)]
struct Distinct {
    slots: Vec<u32>,
    entries: Vec<u64>,
    codes: Vec<u64>,
}

impl Distinct {
    /// Fills `entries` and `codes`; false when there are more than `max` different values.
    fn collect(&mut self, values: &[u64], max: usize) -> bool {
        let size = (max * 2).next_power_of_two();
        self.slots.clear();
        self.slots.resize(size, u32::MAX);
        self.entries.clear();
        self.codes.clear();
        let shift = 64 - size.trailing_zeros();
        for &value in values {
            let mut at = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize;
            let code = loop {
                let entry = self.slots[at];
                if entry == u32::MAX {
                    if self.entries.len() == max {
                        return false;
                    }
                    self.slots[at] = self.entries.len() as u32;
                    self.entries.push(value);
                    break self.entries.len() as u64 - 1;
                }
                if self.entries[entry as usize] == value {
                    break u64::from(entry);
                }
                at = (at + 1) & (size - 1);
            };
            self.codes.push(code);
        }
        true
    }

    fn coded(&self) -> Coded {
        let mut head = (self.entries.len() as u32).to_le_bytes().to_vec();
        write_sequence(&self.entries, &mut head);
        Coded::new(DICTIONARY, head, self.codes.clone())
    }

    /// Sorted entries pack into far fewer bits than entries in order of appearance.
    fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_unstable_by_key(|&at| self.entries[at as usize]);
        let mut rank = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            rank[from as usize] = to as u64;
        }
        self.entries.sort_unstable();
        for code in &mut self.codes {
            *code = rank[*code as usize];
        }
    }
}

/// Turns events into the body of a block. Holds scratch only: every block stands alone.
#[derive(Default)]
pub(super) struct Encoder {
    columns: [Vec<u64>; COLUMNS_MAX],
    keys: Distinct,
    small: Distinct,
}

impl Encoder {
    /// Appends the packed body of `events`, which must not be empty.
    pub(super) fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) {
        for column in &mut self.columns {
            column.clear();
        }
        self.columns[TS].extend(events.iter().map(|event| event.ts_event));
        self.columns[KEY].extend(events.iter().map(|event| u64::from(event.key)));
        self.columns[META].extend(events.iter().map(meta_of));
        let whole_key = Coded::new(PLAIN, Vec::new(), self.columns[KEY].clone());
        let keys = self.keys.collect(&self.columns[KEY], events.len()).then(|| {
            self.keys.sort();
            self.keys.coded()
        });

        let words = self.payload(events, LAYOUT_WORDS);
        let cost = |columns: &[Coded]| columns.iter().map(|column| column.bytes).sum::<usize>();
        // Half words pay only where words stay wide; trades never get here, so their blocks cost one pass.
        let halves = (cost(&words) > events.len() * 5)
            .then(|| self.payload(events, LAYOUT_HALVES))
            .filter(|halves| cost(halves) < cost(&words));
        let (layout, payload) = halves.map_or((LAYOUT_WORDS, words), |halves| (LAYOUT_HALVES, halves));

        let needs_keys = payload.iter().any(|column| column.transform == BY_KEY);
        let key = match keys {
            Some(keys) if needs_keys || keys.bytes < whole_key.bytes => keys,
            _ => whole_key,
        };
        let mut columns = vec![self.plain_or_delta(TS), key, self.any(META)];
        columns.extend(payload);

        out.push(layout);
        for column in &columns {
            out.push(column.transform);
            out.extend_from_slice(&column.head);
        }
        let mut steps = [1; COLUMNS_MAX];
        for start in (0..events.len()).step_by(MINI) {
            let end = events.len().min(start + MINI);
            for (column, step) in columns.iter().zip(&mut steps) {
                write_mini(&column.values[start..end], step, out);
            }
        }
    }

    fn payload(&mut self, events: &[Event], layout: u8) -> Vec<Coded> {
        let parts = column_count(layout) - PAYLOAD;
        (0..parts)
            .map(|part| {
                let column = PAYLOAD + part;
                self.columns[column].clear();
                if layout == LAYOUT_WORDS {
                    self.columns[column].extend(events.iter().map(|event| event.payload[part]));
                } else {
                    let shift = 32 * (part & 1);
                    self.columns[column]
                        .extend(events.iter().map(|event| event.payload[part / 2] >> shift & 0xffff_ffff));
                }
                let any = self.any(column);
                let by_key = self.by_key(column);
                any.or(Some(by_key))
            })
            .collect()
    }

    fn plain_or_delta(&self, column: usize) -> Coded {
        let values = &self.columns[column];
        Coded::new(PLAIN, Vec::new(), values.clone()).or(Some(by_delta(values)))
    }

    fn any(&mut self, column: usize) -> Coded {
        let coded = self.plain_or_delta(column);
        let distinct = self.small.collect(&self.columns[column], SMALL_DICTIONARY_MAX);
        coded.or(distinct.then(|| self.small.coded()))
    }

    /// Difference to the last value of the same key; the first value of each key goes ahead.
    fn by_key(&self, column: usize) -> Coded {
        let values = &self.columns[column];
        let mut last: Vec<Option<u64>> = vec![None; self.keys.entries.len()];
        let mut first = vec![0; last.len()];
        let deltas = values
            .iter()
            .zip(&self.keys.codes)
            .map(|(&value, &code)| {
                let code = code as usize;
                let before = last[code].replace(value).unwrap_or_else(|| {
                    first[code] = value;
                    value
                });
                value.wrapping_sub(before)
            })
            .collect();
        let mut head = Vec::new();
        write_sequence(&first, &mut head);
        Coded::new(BY_KEY, head, deltas)
    }
}

/// Appends `events` as 32 byte planes (all first bytes, all second bytes, ...) with the time as differences: what a
/// general compressor likes best when the columns have no structure that bit packing can use.
pub(super) fn write_planes(events: &[Event], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + events.len() * 32, 0);
    let planes = &mut out[start..];
    let mut last = 0;
    for (at, event) in events.iter().enumerate() {
        let mut event = *event;
        let ts = event.ts_event;
        event.ts_event = ts.wrapping_sub(last);
        last = ts;
        for (plane, &byte) in event.as_bytes().iter().enumerate() {
            planes[plane * events.len() + at] = byte;
        }
    }
}

// ---------------------------------------------------------------------------------------------- reading

/// A bounded cursor: nothing is read past the end, nothing is allocated by a number just read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        self.at += count;
        taken.ok_or(Flaw("a column ends early"))
    }

    fn byte(&mut self) -> Result<u8, Flaw> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u64, Flaw> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }
}

/// Reads one mini-block of `count` codes and leaves `(base, step)` to be applied by the caller's own loop.
fn read_mini(
    cursor: &mut Cursor<'_>,
    count: usize,
    last_step: &mut u64,
    words: &mut [u64; WORDS],
    codes: &mut [u64; MINI],
) -> Result<(u64, u64), Flaw> {
    let head = cursor.byte()?;
    if head & STEP_FOLLOWS != 0 {
        *last_step = cursor.word()?;
    }
    let width = usize::from(head & !STEP_FOLLOWS);
    if width > 64 {
        return Err(Flaw("a width is over 64 bits"));
    }
    let base = cursor.word()?;
    let packed = cursor.take(packed_bytes(count, width))?;
    words.as_mut_bytes()[..packed.len()].copy_from_slice(packed);
    unpack(words, width, codes);
    Ok((base, *last_step))
}

fn read_sequence(
    cursor: &mut Cursor<'_>,
    count: usize,
    words: &mut [u64; WORDS],
    values: &mut Vec<u64>,
) -> Result<(), Flaw> {
    values.clear();
    let mut step = 1;
    let mut codes = [0; MINI];
    while values.len() < count {
        let mini = MINI.min(count - values.len());
        let (base, step) = read_mini(cursor, mini, &mut step, words, &mut codes)?;
        values.extend(codes[..mini].iter().map(|code| base.wrapping_add(code.wrapping_mul(step))));
    }
    Ok(())
}

struct Column {
    transform: u8,
    step: u64,
    last: u64,
    /// Dictionary entries, or the last value by key code; filled up to a power of two, so that the disjunction of all
    /// codes shows whether any is out of range (a maximum of 64-bit words has no vector instruction before AVX-512).
    table: Vec<u64>,
    /// Entries that count.
    entries: usize,
    values: [u64; MINI],
}

impl Default for Column {
    fn default() -> Self {
        Self { transform: PLAIN, step: 1, last: 0, table: Vec::new(), entries: 0, values: [0; MINI] }
    }
}

/// Reads a packed body, 256 events at a time. Reused from block to block, so that steady reading allocates nothing.
pub(super) struct Decoder {
    columns: Box<[Column; COLUMNS_MAX]>,
    words: Box<[u64; WORDS]>,
    codes: Box<[u64; MINI]>,
    key_codes: Box<[u64; MINI]>,
    layout: u8,
    at: usize,
    left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            columns: Box::default(),
            words: Box::new([0; WORDS]),
            codes: Box::new([0; MINI]),
            key_codes: Box::new([0; MINI]),
            layout: LAYOUT_WORDS,
            at: 0,
            left: 0,
        }
    }
}

impl Decoder {
    /// Starts on the body at `body[at..]`, which holds `count` events.
    pub(super) fn begin(&mut self, body: &[u8], at: usize, count: usize) -> Result<(), Flaw> {
        let mut cursor = Cursor { bytes: body, at };
        self.left = 0;
        self.layout = cursor.byte()?;
        if self.layout > LAYOUT_HALVES {
            return Err(Flaw("unknown column layout"));
        }
        for index in 0..column_count(self.layout) {
            let (keys, column) = {
                let (head, tail) = self.columns.split_at_mut(index);
                (head.get(KEY), &mut tail[0])
            };
            column.transform = cursor.byte()?;
            column.step = 1;
            column.table.clear();
            match column.transform {
                PLAIN => {}
                DELTA => column.last = cursor.word()?,
                DICTIONARY => {
                    let entries =
                        u32::from_le_bytes(cursor.take(4)?.try_into().expect("four bytes")) as usize;
                    if entries == 0 || entries > count {
                        return Err(Flaw("a dictionary is larger than the block"));
                    }
                    read_sequence(&mut cursor, entries, &mut self.words, &mut column.table)?;
                    column.entries = entries;
                    let last = column.table[entries - 1];
                    column.table.resize(entries.next_power_of_two(), last);
                }
                BY_KEY => {
                    let keys = keys
                        .filter(|keys| index >= PAYLOAD && keys.transform == DICTIONARY)
                        .ok_or(Flaw("a column refers to a key dictionary that is not there"))?;
                    read_sequence(&mut cursor, keys.entries, &mut self.words, &mut column.table)?;
                    column.table.resize(keys.table.len(), 0);
                }
                _ => return Err(Flaw("unknown column transform")),
            }
        }
        self.at = cursor.at;
        self.left = count;
        Ok(())
    }

    /// Forgets a body that was not read to its end.
    pub(super) fn reset(&mut self) {
        self.left = 0;
    }

    /// Events not yet read.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Appends the next mini-block; with the last one, checks that the body ends there.
    pub(super) fn next(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), Flaw> {
        let count = self.left.min(MINI);
        let mut cursor = Cursor { bytes: body, at: self.at };
        let mut keys = 0;
        for (index, column) in self.columns[..column_count(self.layout)].iter_mut().enumerate() {
            let codes = &mut *self.codes;
            let (base, step) = read_mini(&mut cursor, count, &mut column.step, &mut self.words, codes)?;
            let values = &mut column.values;
            match column.transform {
                PLAIN => {
                    for (value, code) in values.iter_mut().zip(codes) {
                        *value = base.wrapping_add(code.wrapping_mul(step));
                    }
                }
                DELTA => {
                    // Codes past `count` are junk, and the sum must not run over them.
                    let mut last = column.last;
                    for (value, code) in values[..count].iter_mut().zip(codes) {
                        last = last.wrapping_add(base.wrapping_add(code.wrapping_mul(step)));
                        *value = last;
                    }
                    column.last = last;
                }
                DICTIONARY => {
                    let mut seen = 0;
                    for code in &mut codes[..count] {
                        *code = base.wrapping_add(code.wrapping_mul(step));
                        seen |= *code;
                    }
                    let table = &column.table[..];
                    if seen >= table.len() as u64 {
                        return Err(Flaw("a code points past its dictionary"));
                    }
                    for (value, &code) in values[..count].iter_mut().zip(codes.iter()) {
                        *value = table[code as usize];
                    }
                    if index == KEY {
                        keys = table.len();
                        self.key_codes[..count].copy_from_slice(&codes[..count]);
                    }
                }
                _ => {
                    let last = &mut column.table[..keys];
                    for ((value, code), &key) in
                        values[..count].iter_mut().zip(codes).zip(self.key_codes.iter())
                    {
                        let last = &mut last[key as usize];
                        *last = last.wrapping_add(base.wrapping_add(code.wrapping_mul(step)));
                        *value = *last;
                    }
                }
            }
        }
        let [ts, key, meta, p0, p1, p2, p3] = &*self.columns;
        if self.layout == LAYOUT_WORDS {
            let payload = p0.values[..count].iter().zip(&p1.values);
            let head = ts.values.iter().zip(&key.values).zip(&meta.values);
            events.extend(
                payload.zip(head).map(|((&p0, &p1), ((&ts, &key), &meta))| event_of(ts, key, meta, [p0, p1])),
            );
        } else {
            events.extend((0..count).map(|at| {
                let word = |low: &Column, high: &Column| low.values[at] & 0xffff_ffff | high.values[at] << 32;
                event_of(ts.values[at], key.values[at], meta.values[at], [word(p0, p1), word(p2, p3)])
            }));
        }
        self.at = cursor.at;
        self.left -= count;
        if self.left == 0 && self.at != body.len() {
            return Err(Flaw("bytes follow the last column"));
        }
        Ok(())
    }
}

/// Inverse of [`write_planes`].
pub(super) fn read_planes(planes: &[u8], count: usize, events: &mut Vec<Event>) {
    debug_assert_eq!(planes.len(), count * 32);
    let start = events.len();
    events.resize(start + count, Event::default());
    // 64 events at a time, so that the part being filled stays in the first-level cache over the 32 passes.
    for first in (0..count).step_by(64) {
        let end = count.min(first + 64);
        for plane in 0..32 {
            let bytes = &planes[plane * count + first..plane * count + end];
            for (event, &byte) in events[start + first..].iter_mut().zip(bytes) {
                event.as_mut_bytes()[plane] = byte;
            }
        }
    }
    let mut last = 0u64;
    for event in &mut events[start..] {
        last = last.wrapping_add(event.ts_event);
        event.ts_event = last;
    }
}
