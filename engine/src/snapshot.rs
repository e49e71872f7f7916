//! Snapshots: a checked, versioned envelope around flat state.
//!
//! ```text
//! magic "TGSNAP\0" + version u8 | section count u32 | reserved u32 | { id u32, bytes u64, payload }* | BLAKE3 (32)
//! ```
//! The checksum is verified before anything inside is read, so damage is refused, never interpreted. What never leaves memory, or is
//! sealed as a part of something larger, goes without it ([`Writer::unsealed`]): a shard that saves itself between two turns then
//! only copies.

/// Version written; [`Reader::open`] reads this one.
pub const SNAPSHOT_VERSION: u8 = 1;
const MAGIC: [u8; 7] = *b"TGSNAP\0";
const HEADER_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Why a snapshot cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Too short to hold header and checksum.
    #[error("snapshot of {len} bytes is cut short: at least {min} are needed")]
    Truncated {
        /// Bytes found.
        len: usize,
        /// Bytes needed.
        min: usize,
    },
    /// Not a snapshot.
    #[error("not a Tidegate snapshot (magic {found:02x?})")]
    Magic {
        /// The first bytes.
        found: [u8; 7],
    },
    /// Written by a version this build cannot read.
    #[error("snapshot version {found} cannot be read by this build (it reads {SNAPSHOT_VERSION})")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The checksum over the content is wrong.
    #[error("snapshot checksum does not match its content")]
    Checksum,
    /// A part that should be there is not, or has the wrong shape.
    #[error("snapshot section `{section}` is {problem}")]
    Section {
        /// Which part.
        section: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Memory with room for `room` bytes, each page of it written to once: what the system gives is there only then, and for a shard that fills
/// it between two turns that would take longer than the filling.
#[must_use]
pub fn touched(mut bytes: Vec<u8>, room: usize) -> Vec<u8> {
    bytes.clear();
    bytes.reserve_exact(room);
    // Not zeros, which the system need not write.
    bytes.resize(room, 1);
    bytes.clear();
    bytes
}

/// Builds a snapshot out of numbered sections.
pub struct Writer {
    bytes: Vec<u8>,
    sections: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// An empty snapshot.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Vec::with_capacity(1 << 16))
    }

    /// An empty snapshot in memory that was used before: what is in it is lost, its room is not.
    #[must_use]
    pub fn over(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.extend_from_slice(&MAGIC);
        bytes.push(SNAPSHOT_VERSION);
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, sections: 0 }
    }

    /// Adds a section whose payload `fill` appends.
    pub fn section(&mut self, id: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(&id.to_le_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        fill(&mut self.bytes);
        let length = (self.bytes.len() - length_at - 8) as u64;
        self.bytes[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        self.sections += 1;
    }

    /// The finished snapshot.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.unsealed();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// The finished snapshot without its checksum, for [`Reader::unsealed`].
    #[must_use]
    pub fn unsealed(mut self) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&self.sections.to_le_bytes());
        self.bytes
    }
}

/// A verified snapshot, read section by section in the order they were written.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    sections_left: u32,
}

impl<'a> Reader<'a> {
    /// Verifies magic, version and checksum.
    ///
    /// # Errors
    /// [`SnapshotError`] by what is wrong; nothing was interpreted.
    pub fn open(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let min = HEADER_BYTES + HASH_BYTES;
        if bytes.len() < min {
            return Err(SnapshotError::Truncated { len: bytes.len(), min });
        }
        let (content, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        let reader = Self::unsealed(content)?;
        if blake3::hash(content).as_bytes() != hash {
            return Err(SnapshotError::Checksum);
        }
        Ok(reader)
    }

    /// Reads what [`Writer::unsealed`] gave: whoever kept it answers for it.
    ///
    /// # Errors
    /// [`SnapshotError`] by what is wrong with magic or version.
    pub fn unsealed(content: &'a [u8]) -> Result<Self, SnapshotError> {
        if content.len() < HEADER_BYTES {
            return Err(SnapshotError::Truncated { len: content.len(), min: HEADER_BYTES });
        }
        if content[..7] != MAGIC {
            let mut found = [0; 7];
            found.copy_from_slice(&content[..7]);
            return Err(SnapshotError::Magic { found });
        }
        if content[7] != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found: content[7] });
        }
        let sections_left = u32::from_le_bytes([content[8], content[9], content[10], content[11]]);
        Ok(Self { rest: &content[HEADER_BYTES..], sections_left })
    }

    /// The next section, which must have this id.
    ///
    /// # Errors
    /// [`SnapshotError::Section`] when it is absent, another one, or cut short.
    pub fn section(&mut self, id: u32, name: &'static str) -> Result<&'a [u8], SnapshotError> {
        let wrong = |problem| SnapshotError::Section { section: name, problem };
        if self.sections_left == 0 {
            return Err(wrong("absent"));
        }
        let (head, rest) = self.rest.split_at_checked(12).ok_or_else(|| wrong("cut short"))?;
        let found = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if found != id {
            return Err(wrong("not the next one: the pipeline differs from the one that was saved"));
        }
        let mut length = [0; 8];
        length.copy_from_slice(&head[4..12]);
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| wrong("too long"))?;
        let (payload, rest) = rest.split_at_checked(length).ok_or_else(|| wrong("cut short"))?;
        self.rest = rest;
        self.sections_left -= 1;
        Ok(payload)
    }
}

/// The end of a snapshot, written in place: positions count from where it begins, as its reader's will.
pub struct Tail<'s> {
    snapshot: &'s mut Vec<u8>,
    start: usize,
}

impl rkyv::ser::Positional for Tail<'_> {
    fn pos(&self) -> usize {
        self.snapshot.len() - self.start
    }
}

impl<E> rkyv::ser::Writer<E> for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.snapshot.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends `value` as flat rkyv bytes.
///
/// # Panics
/// When serialisation fails, which for the plain-data states of operators only an allocation failure could cause.
pub fn append<T>(snapshot: &mut Vec<u8>, value: &T)
where
    T: for<'a, 's> rkyv::Serialize<
            rkyv::api::high::HighSerializer<
                Tail<'s>,
                rkyv::ser::allocator::ArenaHandle<'a>,
                rkyv::rancor::Error,
            >,
        >,
{
    let start = snapshot.len();
    let tail = Tail { snapshot, start };
    rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Error>(value, tail).expect("plain data serialises");
}

/// Reads back what [`append`] wrote, validated.
///
/// # Errors
/// [`SnapshotError::Section`] naming `section` when the bytes do not validate.
pub fn read<T>(bytes: &[u8], section: &'static str) -> Result<T, SnapshotError>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    // rkyv reads in place, so the bytes must sit at its alignment.
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<T, rkyv::rancor::Error>(&aligned)
        .map_err(|_| SnapshotError::Section { section, problem: "not valid state" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new();
        writer.section(1, |bytes| append(bytes, &vec![1u64, 2, 3]));
        writer.section(2, |bytes| bytes.extend_from_slice(b"xyz"));
        writer.finish()
    }

    #[test]
    fn sections_come_back_in_order() {
        let bytes = sample();
        let mut reader = Reader::open(&bytes).unwrap();
        assert_eq!(read::<Vec<u64>>(reader.section(1, "one").unwrap(), "one").unwrap(), [1, 2, 3]);
        assert_eq!(reader.section(2, "two").unwrap(), b"xyz");
        assert!(matches!(reader.section(3, "three"), Err(SnapshotError::Section { problem: "absent", .. })));
    }

    #[test]
    fn what_is_not_sealed_reads_back_and_memory_is_used_again() {
        let mut writer = Writer::over(vec![9; 4_096]);
        writer.section(7, |bytes| append(bytes, &(3u64, vec![5u32; 100])));
        let bytes = writer.unsealed();
        assert!(bytes.capacity() >= 4_096);
        let mut reader = Reader::unsealed(&bytes).unwrap();
        let section = reader.section(7, "seven").unwrap();
        assert_eq!(read::<(u64, Vec<u32>)>(section, "seven").unwrap(), (3, vec![5; 100]));
        assert!(Reader::open(&bytes).is_err(), "nobody takes it for a sealed one");
        for cut in 0..HEADER_BYTES {
            assert!(Reader::unsealed(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_refused() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert!(Reader::open(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(Reader::open(&damaged).is_err(), "flip at {at}");
        }
    }
}
