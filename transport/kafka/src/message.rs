//! How a batch lies in messages: a head, then a part of the batch's header and body.
//!
//! ```text
//! 0..4   "TGKB"        8..10  parts of the batch, from 1
//! 4      version, 1    10..12 zero
//! 5      zero          12..28 lineage, little endian
//! 6..8   this part     28..   the part
//! ```

use tidegate_journal::format::{BATCH_HEADER_BYTES, BODY_BYTES_MAX, BatchInfo, HeaderError};
use tidegate_journal::{EntryError, Lineage};

const MAGIC: [u8; 4] = *b"TGKB";
const VERSION: u8 = 1;
pub(crate) const HEAD_BYTES: usize = 28;
/// Bytes of a batch in one message. Brokers take 1 MiB unless told otherwise.
const PART_BYTES: usize = 900_000;
/// Parts of a batch at most.
const PARTS_MAX: usize = (BATCH_HEADER_BYTES + BODY_BYTES_MAX).div_ceil(PART_BYTES);

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It does not begin as one of a log.
    #[error("it does not begin with `TGKB` and version 1")]
    Magic,
    /// Shorter or longer than a message can be.
    #[error("{found} bytes; allowed are {min} to {max}", min = HEAD_BYTES + 1, max = HEAD_BYTES + PART_BYTES)]
    Length {
        /// Its bytes.
        found: usize,
    },
    /// Part numbers that cannot be.
    #[error("it is part {part} of {parts}; allowed are 1 to {PARTS_MAX} parts, counted from 0")]
    Part {
        /// Its number.
        part: u16,
        /// Of how many.
        parts: u16,
    },
    /// Another part was to come.
    #[error("part {found} of a batch where {expected} belongs")]
    Order {
        /// The part that came.
        found: u16,
        /// The part that was to come.
        expected: u16,
    },
    /// Of another log.
    #[error("it is of log {found:032x}, the messages in front of it are of {expected:032x}")]
    Lineage {
        /// Its log.
        found: Lineage,
        /// The one it lies in.
        expected: Lineage,
    },
    /// The batch's header is damaged.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The body's length is another than the header says.
    #[error("a body of {found} bytes, the header says {expected}")]
    Body {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: u32,
    },
    /// The body's checksum differs.
    #[error("the checksum of the body is {found:08x}, the header says {expected:08x}")]
    Crc {
        /// Of what is there.
        found: u32,
        /// As the header says.
        expected: u32,
    },
    /// What is in it cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Not the batch that follows.
    #[error("it begins at offset {found} of the log, and {expected} is next")]
    Offset {
        /// Where it begins.
        found: u64,
        /// Where it should.
        expected: u64,
    },
    /// The batches in front of it are not those it was written behind.
    #[error("it was written behind other batches than those in front of it")]
    Chain,
}

/// A batch as messages.
pub(crate) fn encode(lineage: Lineage, info: &BatchInfo, body: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = Vec::with_capacity(BATCH_HEADER_BYTES + body.len());
    whole.extend_from_slice(&info.encode());
    whole.extend_from_slice(body);
    let parts = whole.len().div_ceil(PART_BYTES) as u16;
    let message = |(part, bytes): (u16, &[u8])| {
        let mut message = Vec::with_capacity(HEAD_BYTES + bytes.len());
        message.extend_from_slice(&MAGIC);
        message.extend_from_slice(&[VERSION, 0]);
        message.extend_from_slice(&part.to_le_bytes());
        message.extend_from_slice(&parts.to_le_bytes());
        message.extend_from_slice(&[0; 2]);
        message.extend_from_slice(&lineage.to_le_bytes());
        message.extend_from_slice(bytes);
        message
    };
    (0..).zip(whole.chunks(PART_BYTES)).map(message).collect()
}

/// A message, looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) lineage: Lineage,
    pub(crate) part: u16,
    pub(crate) parts: u16,
    pub(crate) bytes: &'a [u8],
}

/// Looks at a message.
pub(crate) fn decode(message: &[u8]) -> Result<Part<'_>, MessageError> {
    if message.len() <= HEAD_BYTES || message.len() > HEAD_BYTES + PART_BYTES {
        return Err(MessageError::Length { found: message.len() });
    }
    let (head, bytes) = message.split_at(HEAD_BYTES);
    if head[..4] != MAGIC || head[4] != VERSION {
        return Err(MessageError::Magic);
    }
    let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (part, parts) = (word(6), word(8));
    if parts == 0 || usize::from(parts) > PARTS_MAX || part >= parts {
        return Err(MessageError::Part { part, parts });
    }
    let mut lineage = [0; 16];
    lineage.copy_from_slice(&head[12..]);
    Ok(Part { lineage: Lineage::from_le_bytes(lineage), part, parts, bytes })
}

/// A batch out of its parts, its checksums and entries checked.
pub(crate) fn batch(whole: &[u8]) -> Result<(BatchInfo, &[u8]), MessageError> {
    let Some((header, body)) = whole.split_first_chunk::<BATCH_HEADER_BYTES>() else {
        return Err(MessageError::Length { found: whole.len() });
    };
    let info = BatchInfo::decode(header)?;
    if body.len() != info.body_bytes as usize {
        return Err(MessageError::Body { found: body.len(), expected: info.body_bytes });
    }
    let found = crc32c::crc32c(body);
    if found != info.body_crc {
        return Err(MessageError::Crc { found, expected: info.body_crc });
    }
    tidegate_journal::entry::check(body, info.count)?;
    Ok((info, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_journal::Batch;
    use tidegate_journal::format::Chain;
    use tidegate_journal::sim::Random;

    /// Messages of a batch in several parts.
    fn sample() -> Vec<Vec<u8>> {
        let mut batch = Batch::new();
        let event =
            tidegate_engine::Event { ts_event: 5, key: 1, source: 0, kind: 1, flags: 0, payload: [7, 9] };
        for chunk in 0..40 {
            assert!(batch.events(0, 1 + chunk * 1_000, 2, &[event; 1_000]));
        }
        let body = batch.body();
        let mut info = BatchInfo {
            first_offset: 3,
            epoch: 1,
            count: batch.count(),
            unsynced: 0,
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body),
            ingest_ns: 8,
            chain: Chain::default(),
            zero_sectors: 0,
        };
        info.chain = info.chained(&Chain::default(), body);
        encode(7, &info, body)
    }

    /// What the parts are put together to.
    fn read(messages: &[Vec<u8>]) -> Result<(Lineage, Vec<u8>), MessageError> {
        let (mut whole, mut lineage) = (Vec::new(), 0);
        for message in messages {
            let part = decode(message)?;
            lineage = part.lineage;
            whole.extend_from_slice(part.bytes);
        }
        batch(&whole)?;
        Ok((lineage, whole))
    }

    #[test]
    fn what_is_damaged_anywhere_is_refused() {
        let messages = sample();
        assert!(messages.len() > 1);
        let (lineage, whole) = read(&messages).unwrap();
        assert_eq!(lineage, 7);
        let mut random = Random(1);
        for _ in 0..2_000 {
            let mut copy = messages.clone();
            let which = random.below(copy.len() as u64) as usize;
            let near = random.chance(1, 2);
            let bound = if near { 128 } else { copy[which].len() as u64 };
            let at = random.below(bound) as usize;
            copy[which][at] ^= 1 << random.below(8);
            // Part numbers and lineage are looked at by whoever puts parts together; the rest is covered by checksums.
            let head = (5..HEAD_BYTES).contains(&at);
            if let Ok((_, found)) = read(&copy) {
                assert!(head && found == whole, "byte {at} of part {which}");
            }
        }
        for length in (0..200).chain([HEAD_BYTES + PART_BYTES + 1]) {
            let mut random_bytes = vec![0; length];
            random_bytes.iter_mut().for_each(|byte| *byte = random.draw() as u8);
            assert!(decode(&random_bytes).is_err());
        }
    }
}
