//! A replica's log in files, so that a node whose process died comes back with all it ever acknowledged.
//!
//! What is written is in the system's memory at once, and nothing is acknowledged before; so a process may be killed at any time. It is
//! not synced: when the machine itself goes down, an end of it may be missing, and the node comes back as somebody new. Which of the two
//! it was, the boot id in the head of the newest file tells.
//!
//! A file is a segment, named by the offset of its first entry: the front of the log is cut off file by file.
//!
//! ```text
//! head, 64 bytes: "TGRL", version u32 = 1, lineage u64, boot id (16 bytes), offset of the first entry u64, epoch of the entry in front of
//!                 it u32, zeros, CRC32C of the 60 bytes in front
//! record:         bytes u32, CRC32C u32 of the entry, an entry as on the wire
//! ```

use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tidegate_replica::{Entry, Log, wire};

const MAGIC: [u8; 4] = *b"TGRL";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 64;
const RECORD_BYTES: usize = 8;
/// Bytes written at a time, unless one entry is larger.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes of a segment, about: with more the log goes on in another one.
const SEGMENT_BYTES: u64 = 32 << 20;
const SUFFIX: &str = ".tgr";

/// One start of the machine.
pub(crate) type Boot = [u8; 16];

/// This start of the machine; zeros where the system does not say, and then no log counts as whole.
pub(crate) fn boot() -> Boot {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
}

/// A file of it.
struct Segment {
    path: PathBuf,
    base: u64,
    base_epoch: u32,
    /// Where each entry ends.
    ends: Vec<u64>,
}

impl Segment {
    fn new(folder: &Path, base: u64, base_epoch: u32) -> Self {
        Self { path: folder.join(format!("{base:020}{SUFFIX}")), base, base_epoch, ends: Vec::new() }
    }

    fn end(&self) -> u64 {
        self.base + self.ends.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(HEAD_BYTES as u64)
    }

    fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The files.
pub(crate) struct Kept {
    folder: PathBuf,
    boot: Boot,
    lineage: u64,
    /// One or more; the last is written to.
    segments: Vec<Segment>,
    file: File,
    segment_bytes: u64,
    scratch: Vec<u8>,
}

/// What was found in them.
pub(crate) struct Found {
    pub(crate) lineage: u64,
    pub(crate) log: Log<Bytes>,
    /// Whether that is all that was ever written.
    pub(crate) whole: bool,
    /// Whether a record was written whole and is not what was written.
    pub(crate) damaged: bool,
    /// Bytes at the end that were no entry, and were cut off.
    pub(crate) torn: u64,
}

/// One segment as it was found.
struct Read1 {
    lineage: u64,
    boot: Boot,
    segment: Segment,
    entries: Vec<Entry<Bytes>>,
    damaged: bool,
    torn: u64,
}

impl Kept {
    /// Opens the log in `folder`, and reads it; begins one with `lineage` where there is none.
    pub(crate) fn open(folder: &Path, lineage: u64, boot: Boot) -> io::Result<(Self, Found)> {
        std::fs::create_dir_all(folder)?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|suffix| SUFFIX.ends_with(suffix.to_string_lossy().as_ref())) {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        let mut found = Found { lineage, log: Log::default(), whole: false, damaged: false, torn: 0 };
        let mut segments: Vec<Segment> = Vec::new();
        let mut entries = Vec::new();
        let (mut begun, mut cut) = (false, false);
        for path in &paths {
            let read = if cut { None } else { read(folder, path)? };
            let follows = |segment: &Segment| segments.last().is_none_or(|last| last.end() == segment.base);
            let Some(read) = read.filter(|read| follows(&read.segment)) else {
                // Behind what is damaged or missing, or one that was begun and not written when the machine went down.
                found.torn += std::fs::metadata(path)?.len();
                std::fs::remove_file(path)?;
                cut = true;
                continue;
            };
            begun = true;
            (found.lineage, found.damaged) = (read.lineage, read.damaged);
            found.whole = read.boot == boot && boot != [0; 16] && !read.damaged;
            found.torn += read.torn;
            // Nothing follows a record that was being written when the process ended.
            cut = read.torn > 0 || read.damaged;
            entries.extend(read.entries);
            segments.push(read.segment);
        }
        found.whole &= begun && !(cut && paths.len() > segments.len());
        if segments.is_empty() {
            segments.push(Segment::new(folder, 0, 0));
        }
        let (first, last) = (&segments[0], &segments[segments.len() - 1]);
        found.log = Log::behind(first.base, first.base_epoch, entries);
        let file = open(&last.path)?;
        file.set_len(last.bytes().min(file.metadata()?.len()))?;
        let mut kept = Self {
            folder: folder.to_owned(),
            boot,
            lineage: found.lineage,
            segments,
            file,
            segment_bytes: SEGMENT_BYTES,
            scratch: Vec::new(),
        };
        kept.write_head()?;
        Ok((kept, found))
    }

    fn last(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    fn write_head(&mut self) -> io::Result<()> {
        let last = self.last();
        let (base, base_epoch) = (last.base, last.base_epoch);
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&VERSION.to_le_bytes());
        head[8..16].copy_from_slice(&self.lineage.to_le_bytes());
        head[16..32].copy_from_slice(&self.boot);
        head[32..40].copy_from_slice(&base.to_le_bytes());
        head[40..44].copy_from_slice(&base_epoch.to_le_bytes());
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

    /// The log begins anew, empty, behind an offset. What was there goes first, so that nothing of it is taken for the new one's.
    pub(crate) fn reset(&mut self, lineage: u64, base: u64, base_epoch: u32) -> io::Result<()> {
        for segment in self.segments.iter().rev() {
            segment.remove()?;
        }
        self.lineage = lineage;
        self.segments = vec![Segment::new(&self.folder, base, base_epoch)];
        self.file = open(&self.last().path)?;
        self.write_head()
    }

    /// The log is as it was up to `from`, and goes on there with `entries`.
    pub(crate) fn write(&mut self, from: u64, entries: &[Entry<Bytes>]) -> io::Result<()> {
        if from < self.segments[0].base {
            return Err(io::Error::other(format!("offset {from} is in front of the log")));
        }
        while self.segments.len() > 1 && from < self.last().base {
            if let Some(segment) = self.segments.pop() {
                segment.remove()?;
            }
            self.file = open(&self.last().path)?;
        }
        if from < self.end() {
            let count = from - self.last().base;
            let last = self.segments.len() - 1;
            self.segments[last].ends.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            self.file.set_len(self.last().bytes())?;
            // It may be of an older start of the machine, and counts as this one's from here on.
            self.write_head()?;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut at = self.begin_writing()?;
        scratch.clear();
        let mut before = None;
        for entry in entries {
            if at >= self.segment_bytes
                && let Some(epoch) = before
            {
                self.file.write_all(&scratch)?;
                scratch.clear();
                let next = Segment::new(&self.folder, self.end(), epoch);
                self.file = open(&next.path)?;
                self.file.set_len(0)?;
                self.segments.push(next);
                self.write_head()?;
                at = self.begin_writing()?;
            }
            before = Some(entry.epoch);
            let start = scratch.len();
            scratch.extend_from_slice(&[0; RECORD_BYTES]);
            wire::encode_entry(entry, &mut scratch);
            let bytes = scratch.len() - start - RECORD_BYTES;
            let crc = crc32c::crc32c(&scratch[start + RECORD_BYTES..]);
            scratch[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
            scratch[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
            at += (RECORD_BYTES + bytes) as u64;
            let last = self.segments.len() - 1;
            self.segments[last].ends.push(at);
            if scratch.len() >= WRITE_BYTES {
                self.file.write_all(&scratch)?;
                scratch.clear();
            }
        }
        self.file.write_all(&scratch)?;
        self.scratch = scratch;
        Ok(())
    }

    fn begin_writing(&mut self) -> io::Result<u64> {
        let at = self.last().bytes();
        self.file.seek(SeekFrom::Start(at))
    }

    /// What is in front of `offset` may go; whole segments of it do. Returns where the log begins now.
    pub(crate) fn cut(&mut self, offset: u64) -> io::Result<u64> {
        let gone = self.segments.windows(2).take_while(|pair| pair[1].base <= offset).count();
        for segment in self.segments.drain(..gone) {
            segment.remove()?;
        }
        Ok(self.segments[0].base)
    }

    /// Removes all of it; whoever opens it next begins anew.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.segments.iter().rev().try_for_each(Segment::remove)
    }

    /// Offset behind its last entry.
    pub(crate) fn end(&self) -> u64 {
        self.last().end()
    }

    /// Bytes in it.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Its history.
    pub(crate) fn lineage(&self) -> u64 {
        self.lineage
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// A segment; nothing where a machine that went down left less than a head.
fn read(folder: &Path, path: &Path) -> io::Result<Option<Read1>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let bytes = Bytes::from(bytes);
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let Some((lineage, boot, base, base_epoch)) = read_head(head) else {
        let why = format!(
            "the head of {} is damaged; nothing was changed. Move the folder away, and the node fetches the log from the leader",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    };
    let segment = Segment::new(folder, base, base_epoch);
    if segment.path != path {
        let why = format!("{} holds what begins at offset {base}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut read = Read1 { lineage, boot, segment, entries: Vec::new(), damaged: false, torn: 0 };
    let mut at = HEAD_BYTES;
    loop {
        match record(&bytes, at) {
            Record::Sound(entry, end) => {
                read.entries.push(entry);
                read.segment.ends.push(end as u64);
                at = end;
            }
            Record::Short => break,
            // Not what a killed process leaves behind.
            Record::Damaged => {
                read.damaged = true;
                break;
            }
        }
    }
    // Zeros or half a record: what was being written when the process or the machine went down.
    read.torn = (bytes.len() - at) as u64;
    Ok(Some(read))
}

fn read_head(head: &[u8; HEAD_BYTES]) -> Option<(u64, Boot, u64, u32)> {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
    let sound = head[..4] == MAGIC
        && number(4) == VERSION
        && number(HEAD_BYTES - 4) == crc32c::crc32c(&head[..HEAD_BYTES - 4]);
    let boot = head[16..].first_chunk().copied()?;
    sound.then_some((long(8), boot, long(32), number(40)))
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

    fn open_small(path: &Path, lineage: u64, boot: Boot) -> (Kept, Found) {
        let (mut kept, found) = Kept::open(path, lineage, boot).unwrap();
        kept.segment_bytes = 300;
        (kept, found)
    }

    fn files(path: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort_unstable();
        files
    }

    fn written(path: &Path) -> Vec<Entry<Bytes>> {
        let (mut kept, found) = open_small(path, 1, BOOT);
        assert!(found.log.end() == 0 && !found.whole);
        let mut log: Vec<_> = (1..=20).map(|sequence| entry(1, sequence)).collect();
        kept.write(0, &log[..15]).unwrap();
        kept.write(15, &log[15..]).unwrap();
        // Another leader's entries in place of the last.
        log.truncate(12);
        log.extend((13..=18).map(|sequence| entry(2, sequence + 40)));
        log.push(Entry { epoch: 2, body: Body::Digest { at: 12, value: 99 } });
        kept.write(12, &log[12..]).unwrap();
        let bytes: u64 = files(path).iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
        assert!(kept.bytes() == bytes && files(path).len() > 2, "{:?}", files(path));
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
            assert_eq!((found.log.entries(), kept.end()), (&log[..], log.len() as u64));
        }
        let (mut kept, _) = Kept::open(&path, 9, BOOT).unwrap();
        kept.reset(2, 0, 0).unwrap();
        kept.write(0, &log[..1]).unwrap();
        drop(kept);
        let (_, found) = Kept::open(&path, 9, BOOT).unwrap();
        assert_eq!((found.lineage, found.log.entries()), (2, &log[..1]));
    }

    #[test]
    fn the_front_goes_file_by_file_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = written(&path);
        let (mut kept, _) = open_small(&path, 1, BOOT);
        assert_eq!(kept.cut(0).unwrap(), 0);
        let before = files(&path).len();
        let base = kept.cut(14).unwrap();
        assert!(base > 0 && base <= 14 && files(&path).len() < before, "{base}");
        assert!(kept.write(base - 1, &[]).is_err(), "what was cut off is gone");
        kept.write(19, &[entry(3, 7)]).unwrap();
        drop(kept);
        let (mut kept, found) = open_small(&path, 1, BOOT);
        assert_eq!((found.log.base(), found.log.end(), found.whole), (base, 20, true));
        assert_eq!(found.log.epoch_before(base), log[base as usize - 1].epoch);
        assert_eq!(found.log.slice(base, 3), &log[base as usize..base as usize + 3]);
        // Even all of it: what is written to stays.
        assert!(kept.cut(99).unwrap() <= 20);
        kept.reset(4, 70, 3).unwrap();
        kept.write(70, &log[..2]).unwrap();
        drop(kept);
        let (_, found) = open_small(&path, 1, BOOT);
        assert_eq!((found.lineage, found.log), (4, Log::behind(70, 3, log[..2].to_vec())));
    }

    /// Cut anywhere it is a beginning of what was written; what is flipped ends it, and is never something else.
    #[test]
    fn a_torn_or_damaged_end_is_cut_and_nothing_is_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = written(&path);
        let all: Vec<(PathBuf, Vec<u8>)> =
            files(&path).into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
        let restore = || {
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            all.iter().for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
        };
        for (nth, (file, bytes)) in all.iter().enumerate() {
            let last = nth + 1 == all.len();
            for cut in (0..bytes.len()).step_by(if last { 1 } else { 7 }) {
                restore();
                std::fs::write(file, &bytes[..cut]).unwrap();
                let (mut kept, found) = open_small(&path, 1, BOOT);
                assert_eq!(found.whole, last && cut >= HEAD_BYTES, "{nth} cut at {cut}");
                let count = found.log.entries().len();
                assert_eq!(found.log.entries(), &log[..count], "{nth} cut at {cut}");
                kept.write(count as u64, &log[count..]).unwrap();
                assert_eq!(kept.end(), log.len() as u64);
                drop(kept);
                assert_eq!(Kept::open(&path, 1, BOOT).unwrap().1.log.entries(), log);
            }
            for at in (0..HEAD_BYTES).step_by(5) {
                restore();
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(file, &flipped).unwrap();
                let refused = Kept::open(&path, 1, BOOT).err().expect("a damaged head");
                assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
                assert_eq!(std::fs::read(file).unwrap(), flipped, "nothing was changed");
            }
            for at in (HEAD_BYTES..bytes.len()).step_by(3) {
                restore();
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(file, &flipped).unwrap();
                let (_, found) = Kept::open(&path, 1, BOOT).unwrap();
                let count = found.log.entries().len();
                assert!(count < log.len() && found.torn > 0, "{nth} flipped at {at}");
                assert_eq!(found.log.entries(), &log[..count], "{nth} flipped at {at}");
                assert!(last || !found.whole);
            }
        }
    }
}
