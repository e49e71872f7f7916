//! Headers of segments and batches, byte by byte, and the chain of hashes. All numbers are little-endian.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the format written by this crate; older ones are read, newer ones refused.
pub const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 128;
/// Bytes of a batch's header. Batches begin at multiples of it, so a header never lies across two sectors of a disk: after a
/// crash it is there as a whole or not at all.
pub const BATCH_HEADER_BYTES: usize = 64;
/// What a disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// Most bytes of one batch's body; a header that says more is damaged, and nothing is allocated for it.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Most bytes of a segment: 4 GiB, and room for one batch that is larger than what was asked for.
pub const SEGMENT_BYTES_MAX: u64 = (4 << 30) + extent(BODY_BYTES_MAX) as u64;

const SEGMENT_MAGIC: [u8; 8] = *b"TIDEJRNL";
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"TGJB");

const _: () = assert!(size_of::<SegmentHeader>() == SEGMENT_HEADER_BYTES);
const _: () = assert!(size_of::<BatchHeader>() == BATCH_HEADER_BYTES);
const _: () = assert!(SECTOR_BYTES.is_multiple_of(BATCH_HEADER_BYTES));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(BATCH_HEADER_BYTES));

/// Which history a log is: another number means that acknowledged entries of the older one may be missing.
pub type Lineage = u128;

/// Hash over everything up to a place in the log: the first 16 bytes of BLAKE3 over the previous one, the head and the body.
pub type Chain = [u8; 16];

/// First 128 bytes of each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    magic: [u8; 8],
    version: U16,
    header_bytes: U16,
    flags: U32,
    lineage: [u8; 16],
    index: U64,
    first_offset: U64,
    previous: Chain,
    bytes: U64,
    created_ns: U64,
    epoch: U32,
    reserved: [u8; 40],
    crc: U32,
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The log's history.
    pub lineage: Lineage,
    /// Number of the segment, from 0.
    pub index: u64,
    /// Offset of its first record.
    pub first_offset: u64,
    /// Chain at the end of the segment before; zeros in the first one.
    pub previous: Chain,
    /// Bytes set aside for it.
    pub bytes: u64,
    /// Wall time when it was begun, nanoseconds since 1970; for retention by age and for people.
    pub created_ns: u64,
    /// Epoch when it was begun.
    pub epoch: u32,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Not ours, or destroyed.
    #[error("does not begin as a {0} does")]
    Magic(&'static str),
    /// Bits changed.
    #[error("the checksum of the {what}'s header is {found:#010x}, expected {expected:#010x}")]
    Crc {
        /// Segment or batch.
        what: &'static str,
        /// As computed.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// Written by a newer version.
    #[error("format version {0}; this build reads 1 to {VERSION}")]
    Version(u16),
    /// A length out of range.
    #[error("the {what} is {value} bytes long; allowed are {min} to {max}")]
    Length {
        /// Of what.
        what: &'static str,
        /// As written.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Bits that this version leaves zero.
    #[error("flags {0:#x} are not known to version {VERSION}")]
    Flags(u32),
}

impl SegmentInfo {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            version: VERSION.into(),
            header_bytes: (SEGMENT_HEADER_BYTES as u16).into(),
            flags: 0.into(),
            lineage: self.lineage.to_le_bytes(),
            index: self.index.into(),
            first_offset: self.first_offset.into(),
            previous: self.previous,
            bytes: self.bytes.into(),
            created_ns: self.created_ns.into(),
            epoch: self.epoch.into(),
            reserved: [0; 40],
            crc: 0.into(),
        };
        header.crc = crc32c::crc32c(&header.as_bytes()[..SEGMENT_HEADER_BYTES - 4]).into();
        zerocopy::transmute!(header)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let header: SegmentHeader = zerocopy::transmute!(*bytes);
        if header.magic != SEGMENT_MAGIC {
            return Err(HeaderError::Magic("segment"));
        }
        let found = crc32c::crc32c(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        if found != header.crc.get() {
            return Err(HeaderError::Crc { what: "segment", found, expected: header.crc.get() });
        }
        if !(1..=VERSION).contains(&header.version.get()) {
            return Err(HeaderError::Version(header.version.get()));
        }
        if header.flags.get() != 0 {
            return Err(HeaderError::Flags(header.flags.get()));
        }
        let size = u64::from(header.header_bytes.get());
        if size != SEGMENT_HEADER_BYTES as u64 {
            let (min, max) = (SEGMENT_HEADER_BYTES as u64, SEGMENT_HEADER_BYTES as u64);
            return Err(HeaderError::Length { what: "segment's header", value: size, min, max });
        }
        if !(SEGMENT_HEADER_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&header.bytes.get()) {
            let (value, min) = (header.bytes.get(), SEGMENT_HEADER_BYTES as u64);
            return Err(HeaderError::Length { what: "segment", value, min, max: SEGMENT_BYTES_MAX });
        }
        Ok(Self {
            lineage: Lineage::from_le_bytes(header.lineage),
            index: header.index.get(),
            first_offset: header.first_offset.get(),
            previous: header.previous,
            bytes: header.bytes.get(),
            created_ns: header.created_ns.get(),
            epoch: header.epoch.get(),
        })
    }
}

/// First 64 bytes of each batch; its body follows, and zeros up to the next multiple of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BatchHeader {
    magic: U32,
    body_bytes: U32,
    first_offset: U64,
    epoch: U32,
    count: U32,
    unsynced: U32,
    body_crc: U32,
    ingest_ns: U64,
    chain: Chain,
    zero_sectors: U32,
    crc: U32,
}

/// Bytes of the batch header that the chain covers; behind them the chain itself.
const CHAINED: usize = 40;

/// What a batch's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Offset of its first record.
    pub first_offset: u64,
    /// The leader's epoch when it was accepted.
    pub epoch: u32,
    /// Records in it: each event and each other entry counts one.
    pub count: u32,
    /// Records just before `first_offset` that were not known to be on disk when this was written. The others were: if they are
    /// not there now, the disk has lost what it confirmed.
    pub unsynced: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// CRC32C of the body.
    pub body_crc: u32,
    /// Wall time when it was accepted, nanoseconds since 1970.
    pub ingest_ns: u64,
    /// Hash over the log up to and including this batch.
    pub chain: Chain,
    /// Sectors that the body has a part in which is all zeros, as written. One more of them is a sector that never came.
    pub zero_sectors: u32,
}

impl BatchInfo {
    /// Offset of the record behind the batch.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first_offset + u64::from(self.count)
    }

    /// Offsets below this were on disk when the batch was written.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.first_offset.saturating_sub(u64::from(self.unsynced))
    }

    /// Bytes from this batch's begin to the next one's.
    #[must_use]
    pub fn extent(&self) -> usize {
        extent(self.body_bytes as usize)
    }

    fn header(&self) -> BatchHeader {
        BatchHeader {
            magic: BATCH_MAGIC.into(),
            body_bytes: self.body_bytes.into(),
            first_offset: self.first_offset.into(),
            epoch: self.epoch.into(),
            count: self.count.into(),
            unsynced: self.unsynced.into(),
            body_crc: self.body_crc.into(),
            ingest_ns: self.ingest_ns.into(),
            chain: self.chain,
            zero_sectors: self.zero_sectors.into(),
            crc: 0.into(),
        }
    }

    /// The chain that follows from the one before, this header and this body.
    #[must_use]
    pub fn chained(&self, previous: &Chain, body: &[u8]) -> Chain {
        let header = self.header();
        let mut hasher = blake3::Hasher::new();
        hasher.update(previous).update(&header.as_bytes()[..CHAINED]).update(body);
        let mut chain = Chain::default();
        chain.copy_from_slice(&hasher.finalize().as_bytes()[..size_of::<Chain>()]);
        chain
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut header = self.header();
        header.crc = crc32c::crc32c(&header.as_bytes()[..BATCH_HEADER_BYTES - 4]).into();
        zerocopy::transmute!(header)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let header: BatchHeader = zerocopy::transmute!(*bytes);
        if header.magic.get() != BATCH_MAGIC {
            return Err(HeaderError::Magic("batch"));
        }
        let found = crc32c::crc32c(&bytes[..BATCH_HEADER_BYTES - 4]);
        if found != header.crc.get() {
            return Err(HeaderError::Crc { what: "batch", found, expected: header.crc.get() });
        }
        let body = u64::from(header.body_bytes.get());
        if !(1..=BODY_BYTES_MAX as u64).contains(&body) {
            return Err(HeaderError::Length {
                what: "batch",
                value: body,
                min: 1,
                max: BODY_BYTES_MAX as u64,
            });
        }
        let first_offset = header.first_offset.get();
        if header.count.get() == 0 || first_offset.checked_add(u64::from(header.count.get())).is_none() {
            let (value, max) = (u64::from(header.count.get()), u64::MAX - first_offset);
            return Err(HeaderError::Length { what: "count of a batch", value, min: 1, max });
        }
        Ok(Self {
            first_offset,
            epoch: header.epoch.get(),
            count: header.count.get(),
            unsynced: header.unsynced.get(),
            body_bytes: header.body_bytes.get(),
            body_crc: header.body_crc.get(),
            ingest_ns: header.ingest_ns.get(),
            chain: header.chain,
            zero_sectors: header.zero_sectors.get(),
        })
    }
}

/// Bytes that a batch with such a body takes in a segment.
#[must_use]
pub const fn extent(body_bytes: usize) -> usize {
    (BATCH_HEADER_BYTES + body_bytes).next_multiple_of(BATCH_HEADER_BYTES)
}

/// Sectors in which `bytes`, at byte `at` of a file, have a part that is all zeros.
#[must_use]
pub fn zero_sectors(at: u64, bytes: &[u8]) -> u32 {
    let first = SECTOR_BYTES - at as usize % SECTOR_BYTES;
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    let zero = |part: &[u8]| u32::from(part.iter().all(|byte| *byte == 0));
    zero(head) + rest.chunks(SECTOR_BYTES).map(zero).sum::<u32>()
}

/// A chain or lineage for people.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: BatchInfo = BatchInfo {
        first_offset: 7,
        epoch: 3,
        count: 2,
        unsynced: 1,
        body_bytes: 100,
        body_crc: 9,
        ingest_ns: 5,
        chain: [4; 16],
        zero_sectors: 0,
    };

    #[test]
    fn headers_read_back() {
        assert_eq!(BatchInfo::decode(&INFO.encode()), Ok(INFO));
        let segment = SegmentInfo {
            lineage: 0x0123_4567_89ab_cdef,
            index: 2,
            first_offset: 99,
            previous: [7; 16],
            bytes: 1 << 20,
            created_ns: 1,
            epoch: 4,
        };
        assert_eq!(SegmentInfo::decode(&segment.encode()), Ok(segment));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..BATCH_HEADER_BYTES * 8 {
            let mut bytes = INFO.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchInfo::decode(&bytes).is_err(), "bit {bit}");
        }
        let segment = SegmentInfo {
            lineage: 1,
            index: 0,
            first_offset: 0,
            previous: [0; 16],
            bytes: 4096,
            created_ns: 0,
            epoch: 0,
        };
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = segment.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentInfo::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_out_of_range_are_refused_before_anything_is_allocated() {
        for (body_bytes, count) in [(0, 1), (BODY_BYTES_MAX as u32 + 1, 1), (u32::MAX, 1), (1, 0)] {
            let info = BatchInfo { body_bytes, count, ..INFO };
            assert!(matches!(BatchInfo::decode(&info.encode()), Err(HeaderError::Length { .. })));
        }
        let last = BatchInfo { first_offset: u64::MAX, count: 1, ..INFO };
        assert!(matches!(BatchInfo::decode(&last.encode()), Err(HeaderError::Length { .. })));
    }

    #[test]
    fn the_chain_depends_on_all_it_covers() {
        let chain = INFO.chained(&[0; 16], b"body");
        assert_ne!(chain, INFO.chained(&[1; 16], b"body"));
        assert_ne!(chain, INFO.chained(&[0; 16], b"bodx"));
        assert_ne!(chain, BatchInfo { epoch: 4, ..INFO }.chained(&[0; 16], b"body"));
        assert_eq!(chain, BatchInfo { chain: [9; 16], ..INFO }.chained(&[0; 16], b"body"));
    }
}
