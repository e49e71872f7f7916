//! Snapshots beside the journal: the state that the log up to a point leads to, so that recovery reads only what is behind it.
//!
//! ```text
//! header 128 bytes | { id u32, index u32, bytes u64, payload, zeros to a multiple of 16 }* | BLAKE3 of everything before (32)
//! ```
//! A file is written under another name, synced and renamed, so that a name that is there names a whole file. Nothing inside is
//! looked at before the checksum is right. What the parts mean is not known here.

use crate::format::{Chain, Lineage};
use crate::journal::Point;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the format written by this crate; older ones are read, newer ones refused.
pub const SNAPSHOT_VERSION: u16 = 1;
/// Bytes of the header.
pub const SNAPSHOT_HEADER_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"TIDESNAP";
const PART_HEAD_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const SUFFIX: &str = ".tgs";
const UNFINISHED: &str = ".tgs.part";
const SET_ASIDE: &str = ".damaged";

const _: () = assert!(size_of::<Header>() == SNAPSHOT_HEADER_BYTES);

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U16,
    header_bytes: U16,
    flags: U32,
    lineage: [u8; 16],
    offset: U64,
    chain: Chain,
    epoch: U32,
    parts: U32,
    taken_ns: U64,
    content_bytes: U64,
    digest: [u8; 16],
    settings: [u8; 16],
    reserved: [u8; 12],
    crc: U32,
}

/// What a snapshot's header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The point of the log that it is of.
    pub point: Point,
    /// Wall time when it was taken, nanoseconds since 1970.
    pub taken_ns: u64,
    /// Digest of the results up to the point.
    pub digest: [u8; 16],
    /// Hash of the settings that the state depends on: under others it means something else.
    pub settings: [u8; 16],
    /// Parts.
    pub parts: u32,
    /// Bytes of all parts, their heads included.
    pub content_bytes: u64,
}

/// What is wrong with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFault {
    /// Not ours, or destroyed.
    #[error("does not begin as a snapshot does")]
    Magic,
    /// Another length than the header says, or none at all.
    #[error("{found} bytes long, expected {expected}")]
    Length {
        /// As found.
        found: u64,
        /// As the header says; the least there must be when there is no header.
        expected: u64,
    },
    /// Bits of the header changed.
    #[error("the header's checksum is {found:#010x}, expected {expected:#010x}")]
    Header {
        /// As computed.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// Written by a newer version.
    #[error("format version {0}; this build reads 1 to {SNAPSHOT_VERSION}")]
    Version(u16),
    /// Bits that this version leaves zero.
    #[error("flags {0:#x} are not known to version {SNAPSHOT_VERSION}")]
    Flags(u32),
    /// Bits of it changed.
    #[error("the checksum does not match the content")]
    Checksum,
    /// A part does not fit into the content; only something else than this crate writes that.
    #[error("part {0} does not fit")]
    Part(u32),
}

impl SnapshotInfo {
    fn encode(&self) -> [u8; SNAPSHOT_HEADER_BYTES] {
        let mut header = Header {
            magic: MAGIC,
            version: SNAPSHOT_VERSION.into(),
            header_bytes: (SNAPSHOT_HEADER_BYTES as u16).into(),
            flags: 0.into(),
            lineage: self.point.lineage.to_le_bytes(),
            offset: self.point.offset.into(),
            chain: self.point.chain,
            epoch: self.point.epoch.into(),
            parts: self.parts.into(),
            taken_ns: self.taken_ns.into(),
            content_bytes: self.content_bytes.into(),
            digest: self.digest,
            settings: self.settings,
            reserved: [0; 12],
            crc: 0.into(),
        };
        header.crc = crc32c::crc32c(&header.as_bytes()[..SNAPSHOT_HEADER_BYTES - 4]).into();
        zerocopy::transmute!(header)
    }

    /// Reads a header; the content is not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotFault> {
        let length = SnapshotFault::Length {
            found: bytes.len() as u64,
            expected: (SNAPSHOT_HEADER_BYTES + HASH_BYTES) as u64,
        };
        let bytes: &[u8; SNAPSHOT_HEADER_BYTES] = bytes.first_chunk().ok_or(length)?;
        let header: Header = zerocopy::transmute!(*bytes);
        if header.magic != MAGIC {
            return Err(SnapshotFault::Magic);
        }
        let (found, expected) = (crc32c::crc32c(&bytes[..SNAPSHOT_HEADER_BYTES - 4]), header.crc.get());
        if found != expected {
            return Err(SnapshotFault::Header { found, expected });
        }
        if !(1..=SNAPSHOT_VERSION).contains(&header.version.get()) {
            return Err(SnapshotFault::Version(header.version.get()));
        }
        if header.flags.get() != 0 {
            return Err(SnapshotFault::Flags(header.flags.get()));
        }
        let (found, expected) = (u64::from(header.header_bytes.get()), SNAPSHOT_HEADER_BYTES as u64);
        if found != expected {
            return Err(SnapshotFault::Length { found, expected });
        }
        Ok(Self {
            point: Point {
                lineage: Lineage::from_le_bytes(header.lineage),
                offset: header.offset.get(),
                chain: header.chain,
                epoch: header.epoch.get(),
            },
            taken_ns: header.taken_ns.get(),
            digest: header.digest,
            settings: header.settings,
            parts: header.parts.get(),
            content_bytes: header.content_bytes.get(),
        })
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.content_bytes.saturating_add((SNAPSHOT_HEADER_BYTES + HASH_BYTES) as u64)
    }
}

/// A short name for settings: the first 16 bytes of their BLAKE3.
#[must_use]
pub fn fingerprint(settings: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(settings.as_bytes()).as_bytes()[..16]);
    short
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// What it is.
    pub id: u32,
    /// Which of them, where there are several.
    pub index: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A snapshot in memory, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// What its header says.
    pub info: SnapshotInfo,
    /// Its parts, in order.
    pub parts: Vec<Part<'a>>,
}

impl<'a> Snapshot<'a> {
    /// Checks a file's bytes, and finds the parts.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SnapshotFault> {
        let info = SnapshotInfo::decode(bytes)?;
        let (found, expected) = (bytes.len() as u64, info.file_bytes());
        if found != expected {
            return Err(SnapshotFault::Length { found, expected });
        }
        let (sealed, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        if blake3::hash(sealed).as_bytes() != hash {
            return Err(SnapshotFault::Checksum);
        }
        let mut rest = &sealed[SNAPSHOT_HEADER_BYTES..];
        let mut parts = Vec::new();
        for nth in 0..info.parts {
            let wrong = SnapshotFault::Part(nth);
            let (head, tail) = rest.split_first_chunk::<PART_HEAD_BYTES>().ok_or(wrong)?;
            let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let length = u64::from(number(8)) | u64::from(number(12)) << 32;
            let length = usize::try_from(length).map_err(|_| wrong)?;
            let padded = length.checked_next_multiple_of(16).ok_or(wrong)?;
            let (payload, next) = tail.split_at_checked(padded).ok_or(wrong)?;
            parts.push(Part { id: number(0), index: number(4), bytes: &payload[..length] });
            rest = next;
        }
        if !rest.is_empty() {
            return Err(SnapshotFault::Part(info.parts));
        }
        Ok(Self { info, parts })
    }

    /// The parts of this kind, in order.
    pub fn parts_of(&self, id: u32) -> impl Iterator<Item = Part<'a>> + '_ {
        self.parts.iter().filter(move |part| part.id == id).copied()
    }
}

/// Writes a snapshot; `info` is completed with what follows from the parts.
///
/// # Errors
/// What the writer says.
pub fn encode(mut info: SnapshotInfo, parts: &[Part<'_>], out: &mut impl Write) -> io::Result<SnapshotInfo> {
    let extent = |part: &Part<'_>| PART_HEAD_BYTES + part.bytes.len().next_multiple_of(16);
    info.parts = u32::try_from(parts.len()).map_err(|_| io::Error::other("too many parts"))?;
    info.content_bytes = parts.iter().map(|part| extent(part) as u64).sum();
    let mut hasher = blake3::Hasher::new();
    let mut write = |bytes: &[u8]| {
        hasher.update(bytes);
        out.write_all(bytes)
    };
    write(&info.encode())?;
    for part in parts {
        let mut head = [0; PART_HEAD_BYTES];
        head[..4].copy_from_slice(&part.id.to_le_bytes());
        head[4..8].copy_from_slice(&part.index.to_le_bytes());
        head[8..].copy_from_slice(&(part.bytes.len() as u64).to_le_bytes());
        write(&head)?;
        // In pieces, so that what is hashed is still near when it is written.
        for piece in part.bytes.chunks(1 << 18) {
            write(piece)?;
        }
        write(&[0; 15][..part.bytes.len().next_multiple_of(16) - part.bytes.len()])?;
    }
    let hash = hasher.finalize();
    out.write_all(hash.as_bytes())?;
    Ok(info)
}

/// A snapshot's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Offset of its point, as its name says.
    pub offset: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Why a snapshot's file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFileError {
    /// It is damaged.
    #[error("the snapshot {path} is damaged: {fault}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        fault: SnapshotFault,
    },
    /// It is whole, and of another offset than its name says.
    #[error("the snapshot {path} is of offset {found}")]
    Name {
        /// The file.
        path: PathBuf,
        /// As its header says.
        found: u64,
    },
    /// The system does not give it.
    #[error("the snapshot {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SnapshotFile {
    fn damaged(&self, fault: SnapshotFault) -> SnapshotFileError {
        SnapshotFileError::Damaged { path: self.path.clone(), fault }
    }

    fn read_error(&self, source: io::Error) -> SnapshotFileError {
        SnapshotFileError::Read { path: self.path.clone(), source }
    }

    fn named(&self, info: SnapshotInfo) -> Result<SnapshotInfo, SnapshotFileError> {
        if info.point.offset == self.offset {
            return Ok(info);
        }
        Err(SnapshotFileError::Name { path: self.path.clone(), found: info.point.offset })
    }

    /// Reads its header.
    ///
    /// # Errors
    /// [`SnapshotFileError`].
    pub fn info(&self) -> Result<SnapshotInfo, SnapshotFileError> {
        let mut header = Vec::with_capacity(SNAPSHOT_HEADER_BYTES);
        let file = File::open(&self.path).map_err(|error| self.read_error(error))?;
        file.take(SNAPSHOT_HEADER_BYTES as u64)
            .read_to_end(&mut header)
            .map_err(|error| self.read_error(error))?;
        self.named(SnapshotInfo::decode(&header).map_err(|fault| self.damaged(fault))?)
    }

    /// Reads all of it into `bytes`, checked.
    ///
    /// # Errors
    /// [`SnapshotFileError`].
    pub fn read<'b>(&self, bytes: &'b mut Vec<u8>) -> Result<Snapshot<'b>, SnapshotFileError> {
        // Its length first: nothing is allocated for a file that is not as long as it says.
        let info = self.info()?;
        let (found, expected) = (self.bytes, info.file_bytes());
        if found != expected {
            return Err(self.damaged(SnapshotFault::Length { found, expected }));
        }
        bytes.clear();
        File::open(&self.path)
            .and_then(|file| file.take(expected).read_to_end(bytes))
            .map_err(|error| self.read_error(error))?;
        let snapshot = Snapshot::decode(bytes).map_err(|fault| self.damaged(fault))?;
        self.named(snapshot.info)?;
        Ok(snapshot)
    }
}

/// The snapshots in a journal's folder. Snapshot of offset 700 is `00000000000000000700.tgs`.
#[derive(Clone, Debug)]
pub struct SnapshotFolder {
    folder: PathBuf,
}

impl SnapshotFolder {
    /// Those in a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The files, newest first; none in a folder that is not there. What is in them is not looked at.
    ///
    /// # Errors
    /// What the system says; as of all calls.
    pub fn list(&self) -> io::Result<Vec<SnapshotFile>> {
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
            if number.len() == 20
                && let Ok(offset) = number.parse()
            {
                found.push(SnapshotFile { offset, path: entry.path(), bytes: entry.metadata()?.len() });
            }
        }
        found.sort_unstable_by_key(|file| std::cmp::Reverse(file.offset));
        Ok(found)
    }

    /// Removes what a crash left half written.
    ///
    /// # Errors
    /// As [`SnapshotFolder::list`].
    pub fn tidy(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(UNFINISHED)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes a snapshot. When this returns it is there for good, whole; when it fails it is not there.
    ///
    /// # Errors
    /// As [`SnapshotFolder::list`].
    pub fn write(&self, info: SnapshotInfo, parts: &[Part<'_>]) -> io::Result<(SnapshotFile, SnapshotInfo)> {
        let path = self.folder.join(format!("{:020}{SUFFIX}", info.point.offset));
        let part = self.folder.join(format!("{:020}{UNFINISHED}", info.point.offset));
        let made = (|| {
            let mut out = io::BufWriter::with_capacity(1 << 20, File::create(&part)?);
            let info = encode(info, parts, &mut out)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(info)
        })();
        match made {
            Ok(info) => {
                let (offset, bytes) = (info.point.offset, info.file_bytes());
                Ok((SnapshotFile { offset, path, bytes }, info))
            }
            Err(error) => {
                let _ = std::fs::remove_file(&part);
                Err(error)
            }
        }
    }

    /// Once there are `keep` of ours, by their headers, keeps the newest of them and removes all others; returns ours that are left,
    /// newest first.
    ///
    /// # Errors
    /// As [`SnapshotFolder::list`].
    pub fn prune(&self, keep: usize, ours: impl Fn(&SnapshotInfo) -> bool) -> io::Result<Vec<SnapshotFile>> {
        let files = self.list()?;
        let (mut kept, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.info().is_ok_and(|info| ours(&info)));
        if kept.len() >= keep.max(1) {
            for file in kept.drain(keep.max(1)..).chain(others) {
                std::fs::remove_file(&file.path)?;
            }
        }
        Ok(kept)
    }

    /// Gives a file that is of no use another name, so that it is not taken for a snapshot again and can still be looked at.
    ///
    /// # Errors
    /// As [`SnapshotFolder::list`].
    pub fn set_aside(&self, file: &SnapshotFile) -> io::Result<()> {
        let mut name = file.path.clone().into_os_string();
        name.push(SET_ASIDE);
        std::fs::rename(&file.path, name)
    }

    /// Bytes that could still be written.
    ///
    /// # Errors
    /// As [`SnapshotFolder::list`].
    pub fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(offset: u64) -> SnapshotInfo {
        let point = Point { lineage: 7, offset, chain: [3; 16], epoch: 1 };
        SnapshotInfo { point, taken_ns: 99, digest: [5; 16], settings: [6; 16], ..SnapshotInfo::default() }
    }

    fn parts() -> [Part<'static>; 3] {
        let part = |id, index, bytes| Part { id, index, bytes };
        [part(1, 0, b"ingest"), part(2, 0, &[9; 32]), part(2, 1, b"")]
    }

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(info(700), &parts(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn parts_come_back_in_order() {
        let bytes = sample();
        let snapshot = Snapshot::decode(&bytes).unwrap();
        assert_eq!(snapshot.parts, parts());
        assert_eq!(snapshot.parts_of(2).map(|part| part.index).collect::<Vec<_>>(), [0, 1]);
        let SnapshotInfo { point, digest, parts: count, .. } = snapshot.info;
        assert_eq!((point, digest, count), (info(700).point, [5; 16], 3));
        assert_eq!(snapshot.info.file_bytes(), bytes.len() as u64);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert!(Snapshot::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Snapshot::decode(&damaged).is_err(), "bit {bit}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(Snapshot::decode(&longer), Err(SnapshotFault::Length { .. })));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_though_the_checksum_is_right() {
        // What only another writer would seal.
        let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sample();
            bytes.truncate(bytes.len() - HASH_BYTES);
            change(&mut bytes);
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            bytes
        };
        assert!(Snapshot::decode(&sealed(&|_| {})).is_ok());
        for at in 8..16 {
            let bytes = sealed(&|bytes| bytes[SNAPSHOT_HEADER_BYTES + at] = 0xff);
            assert!(matches!(Snapshot::decode(&bytes), Err(SnapshotFault::Part(_))), "byte {at}");
        }
    }

    #[test]
    fn a_folder_keeps_the_newest_and_forgets_what_was_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = SnapshotFolder::new(dir.path());
        assert!(SnapshotFolder::new(&dir.path().join("none")).list().unwrap().is_empty());
        for offset in [5, 900, 70] {
            folder.write(info(offset), &parts()).unwrap();
        }
        std::fs::write(dir.path().join("00000000000000001000.tgs.part"), b"half").unwrap();
        std::fs::write(dir.path().join("mine.tgs"), b"somebody's").unwrap();
        folder.tidy().unwrap();
        let offsets = |files: &[SnapshotFile]| files.iter().map(|file| file.offset).collect::<Vec<_>>();
        assert_eq!(offsets(&folder.list().unwrap()), [900, 70, 5]);
        let ours = |info: &SnapshotInfo| info.settings == [6; 16];
        folder.write(SnapshotInfo { settings: [8; 16], ..info(901) }, &parts()).unwrap();
        assert_eq!(offsets(&folder.prune(4, ours).unwrap()), [900, 70, 5], "too few yet");
        assert_eq!(offsets(&folder.list().unwrap()), [901, 900, 70, 5]);
        assert_eq!(offsets(&folder.prune(2, ours).unwrap()), [900, 70]);
        let files = folder.list().unwrap();
        assert_eq!(offsets(&files), [900, 70]);
        let mut bytes = Vec::new();
        assert_eq!(files[0].read(&mut bytes).unwrap().parts, parts());
        assert!(dir.path().join("mine.tgs").exists() && std::fs::read_dir(dir.path()).unwrap().count() == 3);

        std::fs::rename(&files[0].path, dir.path().join("00000000000000000901.tgs")).unwrap();
        let moved = &folder.list().unwrap()[0];
        assert!(matches!(moved.info(), Err(SnapshotFileError::Name { found: 900, .. })));
        let whole = std::fs::read(&moved.path).unwrap();
        std::fs::remove_file(&moved.path).unwrap();
        std::fs::write(&files[0].path, &whole[..whole.len() - 1]).unwrap();
        let cut = &folder.list().unwrap()[0];
        assert!(matches!(
            cut.read(&mut bytes),
            Err(SnapshotFileError::Damaged { fault: SnapshotFault::Length { .. }, .. })
        ));
        folder.set_aside(cut).unwrap();
        assert_eq!(offsets(&folder.list().unwrap()), [70]);
    }
}
