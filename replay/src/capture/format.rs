//! Headers, index and footer, byte by byte. `docs/capture-format.md` has the same as tables.

use crate::source::Names;
use tidegate_engine::Event;

/// First eight bytes of a capture. The line ending and the control byte betray a transfer in text mode.
pub const MAGIC: [u8; 8] = *b"TGCAP\x1a\r\n";
/// Version this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Most events in a block: bounds what a reader sets aside for one, 2 MiB.
pub const BLOCK_EVENTS_MAX: usize = 65_536;
/// Most names a capture may define.
pub const NAMES_MAX: usize = 1 << 24;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const BLOCK_HEADER_BYTES: usize = 112;
pub(super) const INDEX_HEADER_BYTES: usize = 24;
pub(super) const FOOTER_BYTES: usize = 32;
const BLOCK_MAGIC: [u8; 4] = *b"TGB1";
pub(super) const INDEX_MAGIC: [u8; 4] = *b"TGX1";
const FOOTER_MAGIC: [u8; 8] = *b"TGCEND\r\n";
/// Most names one block defines; the writer closes a block before.
pub(super) const BLOCK_NAMES_MAX: usize = 65_536;
/// Longest body: every event raw plus every name at full length, far above what a writer makes.
pub(super) const BODY_BYTES_MAX: usize = BLOCK_EVENTS_MAX * 64 + BLOCK_NAMES_MAX * (Names::BYTES_MAX + 1);

/// Events stored as they are.
pub(super) const CODEC_RAW: u8 = 0;
/// Columns, bit-packed.
pub(super) const CODEC_PACKED: u8 = 1;
/// Byte planes under zstd.
pub(super) const CODEC_PLANES: u8 = 2;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Writes the checksum of everything before the last four bytes into them.
fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
}

fn sealed(bytes: &[u8]) -> bool {
    let end = bytes.len() - 4;
    crc32fast::hash(&bytes[..end]) == u32_at(bytes, end)
}

pub(super) fn header() -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10..12].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Good,
    Foreign,
    Version(u16),
    Broken,
}

pub(super) fn opening(bytes: &[u8; HEADER_BYTES]) -> Opening {
    if bytes[..8] != MAGIC {
        return Opening::Foreign;
    }
    // The checksum first: a flipped bit in the version must not read as "made by a later build".
    match (sealed(bytes), u16_at(bytes, 8)) {
        (false, _) => Opening::Broken,
        (true, VERSION) => Opening::Good,
        (true, version) => Opening::Version(version),
    }
}

/// What the index knows of a block; the same bytes stand ahead of the block itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Where its header starts in the file.
    pub offset: u64,
    /// Events in it.
    pub events: u32,
    /// Events in all blocks before it.
    pub events_before: u64,
    /// Names it defines.
    pub names: u32,
    /// Names defined before it: its own names take the keys from here on.
    pub names_before: u32,
    /// Event time of its first event; 0 without events, like the next three.
    pub ts_first: u64,
    /// Event time of its last event.
    pub ts_last: u64,
    /// Earliest event time in it.
    pub ts_min: u64,
    /// Latest event time in it.
    pub ts_max: u64,
    kinds: [u64; 4],
    pub(super) codec: u8,
    pub(super) body_bytes: u32,
    pub(super) name_bytes: u32,
    pub(super) body_crc: u32,
}

impl BlockInfo {
    pub(super) fn of(events: &[Event]) -> Self {
        let mut info = Self {
            offset: 0,
            events: events.len() as u32,
            events_before: 0,
            names: 0,
            names_before: 0,
            ts_first: events.first().map_or(0, |event| event.ts_event),
            ts_last: events.last().map_or(0, |event| event.ts_event),
            ts_min: events.iter().map(|event| event.ts_event).min().unwrap_or(0),
            ts_max: events.iter().map(|event| event.ts_event).max().unwrap_or(0),
            kinds: [0; 4],
            codec: CODEC_RAW,
            body_bytes: 0,
            name_bytes: 0,
            body_crc: 0,
        };
        for event in events {
            info.kinds[usize::from(event.kind >> 6)] |= 1 << (event.kind & 63);
        }
        info
    }

    /// Whether an event of this kind is in the block.
    #[must_use]
    pub fn has_kind(&self, kind: u8) -> bool {
        self.kinds[usize::from(kind >> 6)] >> (kind & 63) & 1 == 1
    }

    /// Bytes of the block in the file, header included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Whether any event of the block can lie in `[from, to)`.
    #[must_use]
    pub fn overlaps(&self, from: u64, to: u64) -> bool {
        self.events > 0 && self.ts_max >= from && self.ts_min < to
    }

    pub(super) fn to_bytes(self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4] = self.codec;
        for (at, word) in [
            (8, self.body_bytes),
            (12, self.events),
            (16, self.names),
            (20, self.name_bytes),
            (24, self.names_before),
            (28, self.body_crc),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let words = [self.events_before, self.ts_first, self.ts_last, self.ts_min, self.ts_max];
        for (at, word) in words.iter().chain(&self.kinds).enumerate() {
            bytes[32 + at * 8..40 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut bytes);
        bytes
    }

    /// Reads a header that stands at `offset`, with every count checked against its limit.
    pub(super) fn read(bytes: &[u8], offset: u64) -> Result<Self, &'static str> {
        if bytes.len() != BLOCK_HEADER_BYTES || bytes[..4] != BLOCK_MAGIC {
            return Err("no block starts here");
        }
        if !sealed(bytes) {
            return Err("the block header's checksum does not match");
        }
        let word = |at: usize| u64_at(bytes, 32 + at * 8);
        let info = Self {
            offset,
            codec: bytes[4],
            body_bytes: u32_at(bytes, 8),
            events: u32_at(bytes, 12),
            names: u32_at(bytes, 16),
            name_bytes: u32_at(bytes, 20),
            names_before: u32_at(bytes, 24),
            body_crc: u32_at(bytes, 28),
            events_before: word(0),
            ts_first: word(1),
            ts_last: word(2),
            ts_min: word(3),
            ts_max: word(4),
            kinds: [word(5), word(6), word(7), word(8)],
        };
        if info.events as usize > BLOCK_EVENTS_MAX {
            return Err("a block claims more than 65,536 events");
        }
        if info.body_bytes as usize > BODY_BYTES_MAX {
            return Err("a block's body is longer than any writer makes");
        }
        if info.name_bytes > info.body_bytes || u64::from(info.names) > u64::from(info.name_bytes) {
            return Err("a block claims more names than its body holds");
        }
        if info.names_before as usize + info.names as usize > NAMES_MAX {
            return Err("the capture defines more than 16,777,216 names");
        }
        if info.codec > CODEC_PLANES {
            return Err("a block uses a codec this build does not know");
        }
        Ok(info)
    }
}

/// Appends names as `length u8, bytes`.
pub(super) fn write_names<'a>(names: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    for name in names {
        debug_assert!(name.len() <= Names::BYTES_MAX);
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
    }
}

/// Reads exactly `count` names from exactly these bytes into `names`.
pub(super) fn read_names(mut bytes: &[u8], count: u32, names: &mut Names) -> Result<(), &'static str> {
    for _ in 0..count {
        let (&length, rest) = bytes.split_first().ok_or("the dictionary of names ends early")?;
        let (name, rest) =
            rest.split_at_checked(usize::from(length)).ok_or("the dictionary of names ends early")?;
        let name = std::str::from_utf8(name).map_err(|_| "a name is not UTF-8")?;
        let next = names.len();
        if names.intern(name) as usize != next {
            return Err("a name is defined twice");
        }
        bytes = rest;
    }
    if bytes.is_empty() { Ok(()) } else { Err("bytes follow the dictionary of names") }
}

/// The index: every block's place and header, then the whole dictionary, then a checksum.
pub(super) fn write_index(blocks: &[BlockInfo], names: &Names) -> Vec<u8> {
    let mut out = Vec::with_capacity(INDEX_HEADER_BYTES + blocks.len() * (8 + BLOCK_HEADER_BYTES) + 64);
    out.extend_from_slice(&INDEX_MAGIC);
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&(blocks.len() as u64).to_le_bytes());
    out.extend_from_slice(&(names.len() as u64).to_le_bytes());
    for block in blocks {
        out.extend_from_slice(&block.offset.to_le_bytes());
        out.extend_from_slice(&block.to_bytes());
    }
    write_names(names.iter().map(|name| &**name), &mut out);
    out.extend_from_slice(&[0; 4]);
    seal(&mut out);
    out
}

/// Reads an index; `end` is where it starts in the file, so where the last block must end.
pub(super) fn read_index(bytes: &[u8], end: u64) -> Result<(Vec<BlockInfo>, Names), &'static str> {
    if bytes.len() < INDEX_HEADER_BYTES + 4 || bytes[..4] != INDEX_MAGIC {
        return Err("no index stands where the footer points");
    }
    if !sealed(bytes) {
        return Err("the index's checksum does not match");
    }
    let entries = &bytes[INDEX_HEADER_BYTES..bytes.len() - 4];
    let (block_count, name_count) = (u64_at(bytes, 8), u64_at(bytes, 16));
    const ENTRY: usize = 8 + BLOCK_HEADER_BYTES;
    if block_count > (entries.len() / ENTRY) as u64 || name_count > entries.len() as u64 {
        return Err("the index claims more than it holds");
    }
    let (entries, name_bytes) = entries.split_at(block_count as usize * ENTRY);
    let mut blocks = Vec::with_capacity(block_count as usize);
    let mut chain = Chain::default();
    for entry in entries.chunks_exact(ENTRY) {
        let block = BlockInfo::read(&entry[8..], u64_at(entry, 0))?;
        chain.take(&block)?;
        blocks.push(block);
    }
    if chain.offset() != end || u64::from(chain.names) != name_count {
        return Err("the index does not add up");
    }
    let mut names = Names::default();
    read_names(name_bytes, name_count as u32, &mut names)?;
    Ok((blocks, names))
}

/// Checks that blocks follow each other without a hole, in bytes, events and names.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Chain {
    bytes: u64,
    events: u64,
    names: u32,
}

impl Chain {
    /// Where the next block must start.
    pub(super) fn offset(&self) -> u64 {
        HEADER_BYTES as u64 + self.bytes
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn take(&mut self, block: &BlockInfo) -> Result<(), &'static str> {
        if (block.offset, block.events_before, block.names_before) != (self.offset(), self.events, self.names)
        {
            return Err("a block does not follow the one before it");
        }
        self.bytes += block.bytes();
        self.events += u64::from(block.events);
        self.names += block.names;
        Ok(())
    }
}

pub(super) fn footer(index_offset: u64, index_bytes: u64) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    bytes[..8].copy_from_slice(&index_offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&index_bytes.to_le_bytes());
    bytes[16..24].copy_from_slice(&FOOTER_MAGIC);
    seal(&mut bytes);
    bytes
}

/// Offset and length of the index, if these are the last bytes of a finished capture of `file_bytes`.
pub(super) fn read_footer(bytes: &[u8; FOOTER_BYTES], file_bytes: u64) -> Option<(u64, u64)> {
    let (offset, length) = (u64_at(bytes, 0), u64_at(bytes, 8));
    let fits = offset.checked_add(length)?.checked_add(FOOTER_BYTES as u64)? == file_bytes;
    (bytes[16..24] == FOOTER_MAGIC && sealed(bytes) && fits && offset >= HEADER_BYTES as u64)
        .then_some((offset, length))
}
