//! Reads a journal from its first byte to its end, and says what that end is.
//!
//! A log may end in four ways, and they are told apart by what a crash can and cannot do. A crash leaves each sector as it was
//! before a write (zeros, as segments are set aside) or as it is after it, and only sectors that were not synced. So:
//!
//! - zeros where the next batch would be: the end;
//! - a batch that lacks a sector: torn, cut off, because nobody was told that it was on disk;
//! - a batch that is all there and wrong: damage, refused. It may have been acknowledged;
//! - anything missing in front of a batch that was written when it was on disk already: damage, refused.

use crate::entry::{self, Entries, EntryError};
use crate::format::{
    BATCH_HEADER_BYTES, BatchInfo, Chain, HeaderError, Lineage, SEGMENT_HEADER_BYTES, SegmentInfo,
    zero_sectors,
};
use crate::storage::Storage;
use std::io;
use std::ops::ControlFlow;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// A batch as it was found, checked.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Its segment.
    pub segment: u64,
    /// Where in it, in bytes.
    pub at: u64,
    /// What its header says.
    pub info: BatchInfo,
    /// Its body; its entries are sound.
    pub body: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// What is in it.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries::new(self.body)
    }
}

/// What was found in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentScan {
    /// What its header says.
    pub info: SegmentInfo,
    /// Offset of the record behind its last.
    pub end_offset: u64,
    /// Bytes in use, header included.
    pub used: u64,
    /// Batches.
    pub batches: u64,
    /// Wall time of its newest batch, nanoseconds since 1970; of its begin without one.
    pub newest_ns: u64,
}

/// How the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With a whole batch and zeros.
    Clean,
    /// With the remains of writes that were never synced, to be cut off.
    Torn {
        /// The last segment.
        segment: u64,
        /// Where the remains begin, in bytes.
        at: u64,
        /// Bytes from there to the last that is not zero.
        bytes: u64,
    },
}

/// A journal, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Its history.
    pub lineage: Lineage,
    /// Its segments.
    pub segments: Vec<SegmentScan>,
    /// Offset of the oldest record that is still there.
    pub first_offset: u64,
    /// Offset the next record gets.
    pub next_offset: u64,
    /// Hash over everything.
    pub chain: Chain,
    /// Newest epoch.
    pub epoch: u32,
    /// How it ends.
    pub tail: Tail,
    /// Whether the visitor ended it early; then what is said about the end is not known.
    pub stopped: bool,
    /// Hash over everything up to the offset that [`scan_from`] began at; `None` when no batch ends there.
    pub chain_from: Option<Chain>,
}

impl Scan {
    /// Batches.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.segments.iter().map(|segment| segment.batches).sum()
    }

    /// Records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.next_offset - self.first_offset
    }
}

/// What is wrong at a place of the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} is damaged at byte {at} (log offset {offset}): {what}")]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// Byte of its file.
    pub at: u64,
    /// Offset of the first record that cannot be read.
    pub offset: u64,
    /// What is wrong.
    pub what: DamageKind,
}

/// Ways to be damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// The header of a segment or batch.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// A file is shorter than its own header.
    #[error("the file ends within its header")]
    NoHeader,
    /// The body's checksum.
    #[error(
        "the checksum of the batch is {found:#010x}, expected {expected:#010x}, and all of it was written"
    )]
    Crc {
        /// As computed.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// The batch is sound, and does not belong behind the one before.
    #[error("the chain of hashes breaks: this batch was written behind another one")]
    Chain,
    /// A number that does not follow.
    #[error("{what} is {found}, expected {expected}")]
    Order {
        /// Which number.
        what: &'static str,
        /// As found.
        found: u64,
        /// As it follows.
        expected: u64,
    },
    /// The batch's contents.
    #[error("{0}")]
    Entry(#[from] EntryError),
    /// Records are gone that were on disk once.
    #[error("records up to offset {known} were on disk, as byte {witness} shows, and are gone")]
    Missing {
        /// Offsets below were there.
        known: u64,
        /// The byte of the segment where that is written.
        witness: u64,
    },
    /// The segment belongs to another log.
    #[error("its lineage is {found:032x}, that of the segments before is {expected:032x}")]
    Lineage {
        /// As found.
        found: Lineage,
        /// As before.
        expected: Lineage,
    },
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// It is damaged. Nothing was changed.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The system does not give it.
    #[error("segment {segment} could not be read at byte {at}")]
    Read {
        /// The segment.
        segment: u64,
        /// Byte of its file.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// The segments could not be listed.
    #[error("the journal's folder could not be read")]
    List(#[source] io::Error),
}

/// Reads ahead, so that small batches do not cost a call each.
struct Window {
    bytes: Vec<u8>,
    segment: u64,
    start: u64,
    filled: usize,
}

impl Window {
    fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES], segment: u64::MAX, start: 0, filled: 0 }
    }

    /// `length` bytes at `at`; fewer at the end of the file only.
    fn at<S: Storage>(
        &mut self,
        storage: &mut S,
        segment: u64,
        at: u64,
        length: usize,
    ) -> Result<&[u8], ScanError> {
        let inside = |from: u64, filled: usize| {
            segment == self.segment && at >= from && at + length as u64 <= from + filled as u64
        };
        if !inside(self.start, self.filled) {
            if length > self.bytes.len() {
                self.bytes.resize(length, 0);
            }
            self.filled = storage.read(segment, at, &mut self.bytes).map_err(|source| ScanError::Read {
                segment,
                at,
                source,
            })?;
            (self.segment, self.start) = (segment, at);
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from.min(self.filled)..self.filled.min(from + length)])
    }
}

/// Where reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: u64,
    offset: u64,
    chain: Chain,
    epoch: u32,
}

enum Step {
    /// A batch; its body begins behind the header.
    Batch(BatchInfo),
    /// No batch, and no part of one.
    Nothing,
    /// Part of a batch.
    Torn,
}

fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Looks at what is at a place.
fn step<S: Storage>(
    storage: &mut S,
    window: &mut Window,
    segment: u64,
    place: &Place,
) -> Result<Step, ScanError> {
    let damage = |what| ScanError::Damage(Damage { segment, at: place.at, offset: place.offset, what });
    let bytes = window.at(storage, segment, place.at, BATCH_HEADER_BYTES)?;
    if zero(bytes) {
        return Ok(Step::Nothing);
    }
    // A file that was cut, by a crash or a copy that did not end.
    let Some(header) = bytes.first_chunk() else { return Ok(Step::Torn) };
    let info = BatchInfo::decode(header).map_err(|error| damage(error.into()))?;
    if info.first_offset != place.offset {
        let (found, expected) = (info.first_offset, place.offset);
        return Err(damage(DamageKind::Order { what: "the offset of the batch", found, expected }));
    }
    if info.epoch < place.epoch {
        let (found, expected) = (u64::from(info.epoch), u64::from(place.epoch));
        return Err(damage(DamageKind::Order { what: "the epoch of the batch", found, expected }));
    }
    let whole = window.at(storage, segment, place.at, BATCH_HEADER_BYTES + info.body_bytes as usize)?;
    let Some(body) = whole.get(BATCH_HEADER_BYTES..).filter(|body| body.len() == info.body_bytes as usize)
    else {
        return Ok(Step::Torn);
    };
    let found = crc32c::crc32c(body);
    if found != info.body_crc {
        if zero_sectors(place.at + BATCH_HEADER_BYTES as u64, body) > info.zero_sectors {
            return Ok(Step::Torn);
        }
        return Err(damage(DamageKind::Crc { found, expected: info.body_crc }));
    }
    if info.chained(&place.chain, body) != info.chain {
        return Err(damage(DamageKind::Chain));
    }
    entry::check(body, info.count).map_err(|error| damage(error.into()))?;
    Ok(Step::Batch(info))
}

/// What lies behind the end of the log in its last segment: nothing, or the remains of writes that were never synced.
fn remains<S: Storage>(
    storage: &mut S,
    window: &mut Window,
    segment: u64,
    place: &Place,
) -> Result<Tail, ScanError> {
    let (mut at, mut last) = (place.at, place.at);
    loop {
        let bytes = window.at(storage, segment, at, READ_BYTES)?;
        if let Some(end) = bytes.iter().rposition(|byte| *byte != 0) {
            last = at + end as u64 + 1;
            for (index, chunk) in bytes[..=end].chunks(BATCH_HEADER_BYTES).enumerate() {
                let Some(Ok(info)) = chunk.first_chunk().map(BatchInfo::decode) else { continue };
                if info.synced() > place.offset {
                    let witness = at + (index * BATCH_HEADER_BYTES) as u64;
                    let what = DamageKind::Missing { known: info.synced(), witness };
                    return Err(Damage { segment, at: place.at, offset: place.offset, what }.into());
                }
            }
        }
        let read = bytes.len();
        at += read as u64;
        if read < READ_BYTES {
            break;
        }
    }
    let (at, bytes) = (place.at, last - place.at);
    Ok(if bytes == 0 { Tail::Clean } else { Tail::Torn { segment, at, bytes } })
}

/// Reads a whole journal and hands each batch to `visit`, in order. Changes nothing. `None` for a journal without segments.
///
/// # Errors
/// [`ScanError::Damage`] with the place; batches in front of it were visited.
pub fn scan<S: Storage>(
    storage: &mut S,
    visit: impl FnMut(BatchView<'_>) -> ControlFlow<()>,
) -> Result<Option<Scan>, ScanError> {
    scan_from(storage, 0, None, visit)
}

/// The header of a segment.
fn header<S: Storage>(
    storage: &mut S,
    window: &mut Window,
    segment: u64,
    offset: u64,
) -> Result<SegmentInfo, ScanError> {
    let damage = |what| ScanError::Damage(Damage { segment, at: 0, offset, what });
    let header = window.at(storage, segment, 0, SEGMENT_HEADER_BYTES)?;
    let header = header.first_chunk().ok_or_else(|| damage(DamageKind::NoHeader))?;
    let info = SegmentInfo::decode(header).map_err(|error| damage(error.into()))?;
    if info.index != segment {
        let (found, expected) = (info.index, segment);
        return Err(damage(DamageKind::Order { what: "the number in the header", found, expected }));
    }
    Ok(info)
}

/// What the first segment says: the log's history, and the offset of the oldest record that is still there. `None` for a journal
/// without segments.
///
/// # Errors
/// As [`scan`].
pub fn begin<S: Storage>(storage: &mut S) -> Result<Option<(Lineage, u64)>, ScanError> {
    let indexes = storage.segments().map_err(ScanError::List)?;
    let Some(&first) = indexes.first() else { return Ok(None) };
    let info = header(storage, &mut Window::new(), first, 0)?;
    Ok(Some((info.lineage, info.first_offset)))
}

/// What the segments' headers say, and the segments' bytes.
///
/// # Errors
/// As [`scan`].
pub fn headers<S: Storage>(storage: &mut S) -> Result<Vec<(SegmentInfo, u64)>, ScanError> {
    let indexes = storage.segments().map_err(ScanError::List)?;
    let mut window = Window::new();
    let mut found = Vec::with_capacity(indexes.len());
    for segment in indexes {
        let info = header(storage, &mut window, segment, 0)?;
        let bytes = storage.bytes(segment).map_err(|source| ScanError::Read { segment, at: 0, source })?;
        found.push((info, bytes));
    }
    Ok(found)
}

/// As [`scan`], of the batches from offset `from` on. Of segments that end in front of it only the headers are read; the one that
/// holds it is read whole, so that the chain of hashes up to there is known; is it not `expected`, reading stops there and nothing
/// is visited.
///
/// # Errors
/// As [`scan`].
pub fn scan_from<S: Storage>(
    storage: &mut S,
    from: u64,
    expected: Option<Chain>,
    mut visit: impl FnMut(BatchView<'_>) -> ControlFlow<()>,
) -> Result<Option<Scan>, ScanError> {
    let indexes = storage.segments().map_err(ScanError::List)?;
    let mut window = Window::new();
    let mut found: Option<Scan> = None;
    let mut infos = Vec::with_capacity(indexes.len());
    for &segment in &indexes {
        infos.push(header(storage, &mut window, segment, 0)?);
        if from == 0 {
            break; // each is read in its turn
        }
    }
    // The last one that begins at or in front of the place.
    let start = infos.iter().rposition(|info| info.first_offset <= from).unwrap_or(0);
    for (nth, &segment) in indexes.iter().enumerate() {
        let offset = found.as_ref().map_or(0, |scan| scan.next_offset);
        let damage = |what| ScanError::Damage(Damage { segment, at: 0, offset, what });
        let order = |what, found, expected| damage(DamageKind::Order { what, found, expected });
        let info = header(storage, &mut window, segment, offset)?;
        let scan = found.get_or_insert_with(|| Scan {
            lineage: info.lineage,
            segments: Vec::with_capacity(indexes.len()),
            first_offset: info.first_offset,
            next_offset: info.first_offset,
            chain: info.previous,
            epoch: 0,
            tail: Tail::Clean,
            stopped: false,
            chain_from: None,
        });
        if nth > 0 {
            if segment != indexes[nth - 1] + 1 {
                return Err(order("the number of the segment", segment, indexes[nth - 1] + 1));
            }
            if info.lineage != scan.lineage {
                return Err(damage(DamageKind::Lineage { found: info.lineage, expected: scan.lineage }));
            }
            if info.first_offset != scan.next_offset {
                // The segment before ends too early: that is where something is gone.
                let before = scan.segments[nth - 1];
                let what = DamageKind::Missing { known: info.first_offset, witness: 0 };
                let (segment, at) = (before.info.index, before.used);
                return Err(Damage { segment, at, offset: scan.next_offset, what }.into());
            }
            if info.previous != scan.chain {
                return Err(damage(DamageKind::Chain));
            }
        }
        if info.epoch < scan.epoch {
            return Err(order("the epoch of the segment", u64::from(info.epoch), u64::from(scan.epoch)));
        }
        let mut place = Place {
            at: SEGMENT_HEADER_BYTES as u64,
            offset: scan.next_offset,
            chain: scan.chain,
            epoch: info.epoch,
        };
        if nth < start {
            // Its end is where the next one begins; what is in it somebody else answers for.
            let next = infos[nth + 1];
            if next.first_offset < info.first_offset {
                return Err(order("the offset of the next segment", next.first_offset, info.first_offset));
            }
            (scan.next_offset, scan.chain, scan.epoch) = (next.first_offset, next.previous, info.epoch);
            scan.segments.push(SegmentScan {
                info,
                end_offset: next.first_offset,
                used: info.bytes,
                batches: 0,
                newest_ns: next.created_ns,
            });
            continue;
        }
        let (mut batches, mut newest_ns) = (0, info.created_ns);
        let mut foreign = false;
        if place.offset == from {
            scan.chain_from = Some(place.chain);
            foreign = expected.is_some_and(|expected| expected != place.chain);
        }
        while !foreign && let Step::Batch(info) = step(storage, &mut window, segment, &place)? {
            let length = BATCH_HEADER_BYTES + info.body_bytes as usize;
            let whole = window.at(storage, segment, place.at, length)?;
            let body = &whole[BATCH_HEADER_BYTES..];
            let wanted = info.first_offset >= from;
            let flow = if wanted {
                visit(BatchView { segment, at: place.at, info, body })
            } else {
                ControlFlow::Continue(())
            };
            place = Place {
                at: place.at + info.extent() as u64,
                offset: info.end(),
                chain: info.chain,
                epoch: info.epoch,
            };
            if place.offset == from {
                scan.chain_from = Some(place.chain);
                foreign = expected.is_some_and(|expected| expected != place.chain);
            } else if place.offset > from {
                // Past it without a batch that ends there.
                foreign = expected.is_some() && scan.chain_from.is_none();
            }
            batches += u64::from(wanted);
            newest_ns = newest_ns.max(info.ingest_ns);
            if flow.is_break() {
                scan.stopped = true;
                break;
            }
        }
        scan.stopped |= foreign;
        (scan.next_offset, scan.chain, scan.epoch) = (place.offset, place.chain, place.epoch);
        scan.segments.push(SegmentScan {
            info,
            end_offset: place.offset,
            used: place.at,
            batches,
            newest_ns,
        });
        if scan.stopped {
            break;
        }
        if nth + 1 == indexes.len() {
            scan.tail = remains(storage, &mut window, segment, &place)?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Batch;
    use crate::journal::{Journal, JournalOptions};
    use crate::sim::{Random, SimDisk};
    use tidegate_engine::Event;

    /// One segment, cut off.
    struct Cut<'a>(&'a [u8]);

    impl Storage for Cut<'_> {
        fn segments(&mut self) -> io::Result<Vec<u64>> {
            Ok(vec![0])
        }

        fn bytes(&mut self, _: u64) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read(&mut self, _: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
            let from = self.0.get(at as usize..).unwrap_or_default();
            let count = from.len().min(into.len());
            into[..count].copy_from_slice(&from[..count]);
            Ok(count)
        }

        fn create(&mut self, _: u64, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("scanning writes nothing")
        }

        fn write(&mut self, _: u64, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("scanning writes nothing")
        }

        fn sync(&mut self, _: u64) -> io::Result<()> {
            unreachable!("scanning writes nothing")
        }

        fn clear(&mut self, _: u64, _: u64, _: u64) -> io::Result<()> {
            unreachable!("scanning writes nothing")
        }

        fn remove(&mut self, _: u64) -> io::Result<()> {
            unreachable!("scanning writes nothing")
        }

        fn free_bytes(&mut self) -> io::Result<u64> {
            unreachable!("scanning writes nothing")
        }
    }

    /// A log of one segment of `bytes` bytes, filled, and where its batches begin.
    fn log(bytes: u64) -> (Vec<u8>, Vec<Place>) {
        let disk = SimDisk::new(bytes * 2);
        let options = JournalOptions { segment_bytes: bytes, lineage: 5, ..JournalOptions::default() };
        let (mut journal, _) = Journal::open(disk.clone(), options, 1, |_| {}).unwrap();
        let (mut random, mut batch, mut sequence) = (Random(1), Batch::new(), 1);
        loop {
            let events: Vec<Event> = (0..1 + random.below(200))
                .map(|_| Event { ts_event: random.draw(), kind: 1, ..Event::default() })
                .collect();
            batch.clear();
            assert!(batch.events(0, sequence, 1, &events));
            sequence += events.len() as u64;
            journal.append(&batch, 1, 1).unwrap();
            if journal.segments() > 1 {
                break;
            }
            if random.chance(1, 3) {
                journal.sync().unwrap();
            }
        }
        let content = disk.content(0).unwrap();
        let mut places = Vec::new();
        scan(&mut Cut(&content), |batch| {
            let (at, offset, epoch) = (batch.at, batch.info.first_offset, batch.info.epoch);
            places.push(Place { at, offset, chain: Chain::default(), epoch });
            ControlFlow::Continue(())
        })
        .unwrap();
        let mut chain = Chain::default();
        let mut at = 0;
        scan(&mut Cut(&content), |batch| {
            places[at].chain = chain;
            chain = batch.info.chain;
            at += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        (content, places)
    }

    /// Each batch of a log of 1 MiB is looked at as if the file ended at each of its bytes: never more is read than was
    /// whole, and never is a cut called damage.
    #[test]
    fn a_megabyte_cut_at_every_byte_is_read_up_to_the_cut() {
        let (content, places) = log(1 << 20);
        assert!(places.len() > 100);
        let mut window = Window::new();
        for (nth, place) in places.iter().enumerate() {
            let end = places.get(nth + 1).map_or(content.len(), |next| next.at as usize);
            let mut whole = None;
            for cut in place.at as usize..end {
                window.segment = u64::MAX; // another file each time
                let found = step(&mut Cut(&content[..cut]), &mut window, 0, place);
                match found.unwrap_or_else(|error| panic!("cut at {cut}: {error}")) {
                    Step::Batch(info) => {
                        let used = place.at as usize + BATCH_HEADER_BYTES + info.body_bytes as usize;
                        assert!(cut >= used, "a batch of {used} bytes was read from {cut}");
                        whole.get_or_insert(cut);
                    }
                    Step::Torn => assert!(whole.is_none() && cut > place.at as usize),
                    // Zeros at the begin of a header would be no header.
                    Step::Nothing => assert!(cut == place.at as usize, "nothing at {cut}"),
                }
            }
            let used = place.at as usize + BATCH_HEADER_BYTES;
            assert!(whole.is_none_or(|whole| whole > used));
        }
        // The same through the whole reader, at places spread over the file.
        for cut in (SEGMENT_HEADER_BYTES..content.len()).step_by(7_919) {
            let found = scan(&mut Cut(&content[..cut]), |_| ControlFlow::Continue(())).unwrap().unwrap();
            let expected = places.iter().skip(1).filter(|next| next.at as usize <= cut).count();
            assert!(found.batches() >= expected as u64 && found.batches() <= expected as u64 + 1);
        }
    }

    /// Any bit of a written batch that changes is damage, at the place of the batch.
    #[test]
    fn a_flipped_bit_of_a_megabyte_is_refused_where_it_is() {
        let (mut content, places) = log(1 << 20);
        let (mut random, mut window) = (Random(7), Window::new());
        for _ in 0..20_000 {
            let nth = random.below(places.len() as u64) as usize;
            let place = places[nth];
            let Ok(info) = BatchInfo::decode(content[place.at as usize..].first_chunk().unwrap()) else {
                panic!()
            };
            let written = BATCH_HEADER_BYTES + info.body_bytes as usize;
            let bit = place.at * 8 + random.below(written as u64 * 8);
            content[bit as usize / 8] ^= 1 << (bit % 8);
            window.segment = u64::MAX;
            let found = step(&mut Cut(&content), &mut window, 0, &place);
            let Err(ScanError::Damage(damage)) = found else { panic!("bit {bit} went unnoticed") };
            assert_eq!((damage.at, damage.offset), (place.at, place.offset));
            content[bit as usize / 8] ^= 1 << (bit % 8);
        }
    }
}
