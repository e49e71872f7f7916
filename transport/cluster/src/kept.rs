//! A replica's log in a file, so that a node whose process died comes back with all it ever acknowledged.
//!
//! What is written is in the system's memory at once, and nothing is acknowledged before; so a process may be killed at any time. It is
//! not synced: when the machine itself goes down, an end of it may be missing, and the node comes back as somebody new. Which of the two
//! it was, the boot id in the head of the file tells.
//!
//! ```text
//! head, 64 bytes: "TGRL", version u32 = 1, lineage u64, boot id (16 bytes), zeros, CRC32C of the 60 bytes in front
//! record:         bytes u32, CRC32C u32 of the entry, an entry as on the wire
//! ```

use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use tidegate_replica::{Entry, wire};

const MAGIC: [u8; 4] = *b"TGRL";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 64;
const RECORD_BYTES: usize = 8;
/// Bytes written at a time, unless one entry is larger.
const WRITE_BYTES: usize = 1 << 20;

/// One start of the machine.
pub(crate) type Boot = [u8; 16];

/// This start of the machine; zeros where the system does not say, and then no log counts as whole.
pub(crate) fn boot() -> Boot {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
}

/// The file.
pub(crate) struct Kept {
    file: File,
    boot: Boot,
    lineage: u64,
    /// Where each entry ends.
    ends: Vec<u64>,
    scratch: Vec<u8>,
}

/// What was found in it.
pub(crate) struct Found {
    pub(crate) lineage: u64,
    pub(crate) entries: Vec<Entry<Bytes>>,
    /// Whether that is all that was ever written.
    pub(crate) whole: bool,
    /// Whether a record was written whole and is not what was written.
    pub(crate) damaged: bool,
    /// Bytes at the end that were no entry, and were cut off.
    pub(crate) torn: u64,
}

impl Kept {
    /// Opens the log in `path`, and reads it; begins one with `lineage` where there is none.
    pub(crate) fn open(path: &Path, lineage: u64, boot: Boot) -> io::Result<(Self, Found)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut kept = Self { file, boot, lineage, ends: Vec::new(), scratch: Vec::new() };
        let mut bytes = Vec::new();
        kept.file.read_to_end(&mut bytes)?;
        let bytes = Bytes::from(bytes);
        let head = bytes.first_chunk().and_then(read_head);
        if head.is_none() && bytes.len() >= HEAD_BYTES {
            let why = "its head is damaged; nothing was changed. Move it away, and the node fetches the log from the leader";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut found = Found { lineage, entries: Vec::new(), whole: false, damaged: false, torn: 0 };
        let mut at = HEAD_BYTES;
        if let Some((lineage, before)) = head {
            (kept.lineage, found.lineage) = (lineage, lineage);
            found.whole = before == boot && boot != [0; 16];
            loop {
                match record(&bytes, at) {
                    Record::Sound(entry, end) => {
                        found.entries.push(entry);
                        kept.ends.push(end as u64);
                        at = end;
                    }
                    Record::Short => break,
                    // Not what a killed process leaves behind.
                    Record::Damaged => {
                        (found.whole, found.damaged) = (false, true);
                        break;
                    }
                }
            }
        }
        // Zeros or half a record: what was being written when the process or the machine went down.
        found.torn = (bytes.len() as u64).saturating_sub(at as u64);
        kept.file.set_len(at.min(bytes.len()) as u64)?;
        kept.write_head()?;
        Ok((kept, found))
    }

    fn write_head(&mut self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&VERSION.to_le_bytes());
        head[8..16].copy_from_slice(&self.lineage.to_le_bytes());
        head[16..32].copy_from_slice(&self.boot);
        let crc = crc32c::crc32c(&head[..HEAD_BYTES - 4]);
        head[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&head)
    }

    /// The log goes on as another history.
    pub(crate) fn set_lineage(&mut self, lineage: u64) -> io::Result<()> {
        if lineage == self.lineage {
            return Ok(());
        }
        self.lineage = lineage;
        self.write_head()
    }

    /// The log is as it was up to `from`, and goes on there with `entries`.
    pub(crate) fn write(&mut self, from: u64, entries: &[Entry<Bytes>]) -> io::Result<()> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.ends.len());
        if from < self.ends.len() {
            self.ends.truncate(from);
            self.file.set_len(self.end())?;
        }
        let mut at = self.end();
        self.file.seek(SeekFrom::Start(at))?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        for entry in entries {
            let start = scratch.len();
            scratch.extend_from_slice(&[0; RECORD_BYTES]);
            wire::encode_entry(entry, &mut scratch);
            let bytes = scratch.len() - start - RECORD_BYTES;
            let crc = crc32c::crc32c(&scratch[start + RECORD_BYTES..]);
            scratch[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
            scratch[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
            at += (RECORD_BYTES + bytes) as u64;
            self.ends.push(at);
            if scratch.len() >= WRITE_BYTES {
                self.file.write_all(&scratch)?;
                scratch.clear();
            }
        }
        self.file.write_all(&scratch)?;
        self.scratch = scratch;
        Ok(())
    }

    /// Entries in it.
    pub(crate) fn entries(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Bytes in it.
    pub(crate) fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(HEAD_BYTES as u64)
    }
}

fn read_head(head: &[u8; HEAD_BYTES]) -> Option<(u64, Boot)> {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let sound = head[..4] == MAGIC
        && number(4) == VERSION
        && number(HEAD_BYTES - 4) == crc32c::crc32c(&head[..HEAD_BYTES - 4]);
    let lineage = u64::from(number(8)) | u64::from(number(12)) << 32;
    let boot = head[16..].first_chunk().copied()?;
    sound.then_some((lineage, boot))
}

/// What is at a place of the file.
enum Record {
    /// An entry, and where it ends.
    Sound(Entry<Bytes>, usize),
    /// The end, or a record that was being written when the process ended.
    Short,
    /// Something else.
    Damaged,
}

fn record(bytes: &Bytes, at: usize) -> Record {
    let Some(head) = bytes.get(at..).and_then(<[u8]>::first_chunk::<RECORD_BYTES>) else {
        return Record::Short;
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let (start, end) = (at + RECORD_BYTES, (at + RECORD_BYTES).saturating_add(length));
    if end > bytes.len() {
        return Record::Short;
    }
    if crc32c::crc32c(&bytes[start..end]) != crc {
        return Record::Damaged;
    }
    let mut entry = bytes.slice(start..end);
    match wire::decode_entry(&mut entry) {
        Ok(found) if entry.is_empty() => Record::Sound(found, end),
        _ => Record::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_replica::Body;

    const BOOT: Boot = [7; 16];

    fn entry(epoch: u32, sequence: u64) -> Entry<Bytes> {
        let input = vec![sequence as u8; sequence as usize % 50].into();
        Entry { epoch, body: Body::Input { source: 0, sequence, input } }
    }

    fn written(path: &Path) -> Vec<Entry<Bytes>> {
        let (mut kept, found) = Kept::open(path, 1, BOOT).unwrap();
        assert!(found.entries.is_empty() && !found.whole);
        let mut log: Vec<_> = (1..=20).map(|sequence| entry(1, sequence)).collect();
        kept.write(0, &log[..15]).unwrap();
        kept.write(15, &log[15..]).unwrap();
        // Another leader's entries in place of the last.
        log.truncate(12);
        log.extend((13..=18).map(|sequence| entry(2, sequence + 40)));
        log.push(Entry { epoch: 2, body: Body::Digest { at: 12, value: 99 } });
        kept.write(12, &log[12..]).unwrap();
        assert_eq!(kept.end(), std::fs::metadata(path).unwrap().len());
        log
    }

    #[test]
    fn what_was_written_is_read_again_in_the_same_boot_only_as_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = written(&path);
        for (boot, lineage, whole) in
            [(BOOT, 1, true), ([8; 16], 1, false), ([8; 16], 1, true), ([0; 16], 1, false)]
        {
            let (kept, found) = Kept::open(&path, 9, boot).unwrap();
            assert_eq!((found.lineage, found.whole, found.torn), (lineage, whole, 0));
            assert_eq!((found.entries, kept.entries()), (log.clone(), log.len() as u64));
        }
        let (mut kept, _) = Kept::open(&path, 9, BOOT).unwrap();
        kept.set_lineage(2).unwrap();
        kept.write(0, &log[..1]).unwrap();
        drop(kept);
        let (_, found) = Kept::open(&path, 9, BOOT).unwrap();
        assert_eq!((found.lineage, found.entries), (2, log[..1].to_vec()));
    }

    /// Cut anywhere it is a beginning of what was written; what is flipped ends it, and is never something else.
    #[test]
    fn a_torn_or_damaged_end_is_cut_and_nothing_is_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = written(&path);
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (mut kept, found) = Kept::open(&path, 1, BOOT).unwrap();
            assert_eq!(found.whole, cut >= HEAD_BYTES, "cut at {cut}");
            assert_eq!(found.entries, log[..found.entries.len()], "cut at {cut}");
            let count = found.entries.len();
            kept.write(count as u64, &log[count..]).unwrap();
            assert_eq!(kept.entries(), log.len() as u64);
            drop(kept);
            assert_eq!(Kept::open(&path, 1, BOOT).unwrap().1.entries, log);
        }
        for at in 0..HEAD_BYTES {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            let refused = Kept::open(&path, 1, BOOT).err().expect("a damaged head");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
            assert_eq!(std::fs::read(&path).unwrap(), flipped, "nothing was changed");
        }
        for at in (HEAD_BYTES..bytes.len()).step_by(3) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            let (_, found) = Kept::open(&path, 1, BOOT).unwrap();
            assert!(found.entries.len() < log.len() && found.torn > 0, "flipped at {at}");
            assert_eq!(found.entries, log[..found.entries.len()], "flipped at {at}");
        }
    }
}
