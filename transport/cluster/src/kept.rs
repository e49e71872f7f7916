//! A replica's log in files, so that a node whose process died comes back with all it ever acknowledged.
//!
//! What is written is in the system's memory at once, and nothing is acknowledged before; so a process may be killed at any time. Unless
//! the cluster is a durable one it is not synced: when the machine itself goes down, an end of it may be missing, and the node comes back
//! as somebody new. Which of the two it was, the boot id in the head of the newest file tells. In a durable cluster nothing is
//! acknowledged before it is synced, and whatever is missing was never promised; the head says so.
//!
//! A log that may lack what was acknowledged is marked as such, by an empty file `lossy` beside its segments, before anything of it
//! is touched; the mark goes once metadata knows. So nobody who is killed in between comes back as if nothing were missing.
//!
//! A file is a segment, named by the offset of its first entry: the front of the log is cut off file by file.
//!
//! ```text
//! head, 64 bytes: "TGRL", version u32 = 1, lineage u64, boot id (16 bytes), offset of the first entry u64, epoch of the entry in front of
//!                 it u32, 1 where all that counts is synced u8, zeros, CRC32C of the 60 bytes in front
//! record:         bytes u32, CRC32C u32 of the entry, an entry as on the wire
//! ```
//!
//! What is packed in memory is not in a file, so that a node of the version before can be put back.

use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tidegate_live::Plain;
use tidegate_replica::{Body, Entry, Log, wire};

const MAGIC: [u8; 4] = *b"TGRL";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 64;
const RECORD_BYTES: usize = 8;
/// Bytes written at a time, unless one entry is larger.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes of a segment, about: with more the log goes on in another one.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Segments in a log that is full, at least.
const SEGMENTS_LEAST: u64 = 8;
const SUFFIX: &str = ".tgr";
/// Where in a head it says that what counts is synced.
const SYNCED_AT: usize = 44;

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

/// The mark of a log that may lack what was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Lossy(PathBuf);

impl Lossy {
    /// That of the log in `folder`.
    pub(crate) fn of(folder: &Path) -> Self {
        Self(folder.join("lossy"))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.exists()
    }

    /// Marks it, for good.
    pub(crate) fn set(&self) -> io::Result<()> {
        if self.is_set() {
            return Ok(());
        }
        File::create(&self.0)?.sync_all()?;
        self.0.parent().map_or(Ok(()), sync_folder)
    }

    /// Metadata knows.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// This start of the machine.
    pub(crate) boot: Boot,
    /// Whether what counts is synced.
    pub(crate) durable: bool,
    /// Whether a node of this folder was ever started: of a first one nobody has acknowledged anything.
    pub(crate) before: bool,
}

/// What is to be synced, and up to where the log is synced then.
pub(crate) struct Unsynced {
    files: Vec<File>,
    folder: Option<PathBuf>,
    pub(crate) end: u64,
}

impl Unsynced {
    /// Waits for the disk.
    pub(crate) fn sync(self) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)?;
        self.folder.as_deref().map_or(Ok(()), sync_folder)
    }
}

/// The files.
pub(crate) struct Kept {
    folder: PathBuf,
    boot: Boot,
    durable: bool,
    /// Segments that were written, are not written to any more, and not synced; whether the last one is to be synced, and the folder.
    behind: Vec<File>,
    dirty: bool,
    begun: bool,
    lineage: u64,
    /// One or more; the last is written to.
    segments: Vec<Segment>,
    file: File,
    segment_bytes: u64,
    scratch: Vec<u8>,
    plain: Plain,
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
    synced: bool,
    segment: Segment,
    entries: Vec<Entry<Bytes>>,
    damaged: bool,
    torn: u64,
}

impl Kept {
    /// Opens the log in `folder`, and reads it; begins one with `lineage` where there is none.
    pub(crate) fn open(folder: &Path, lineage: u64, opening: Opening) -> io::Result<(Self, Found)> {
        let Opening { boot, durable, before } = opening;
        std::fs::create_dir_all(folder)?;
        if durable {
            folder.canonicalize()?.ancestors().skip(1).take(2).try_for_each(sync_folder)?;
        }
        let lossy = Lossy::of(folder);
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
        let (mut begun, mut cut, mut rest) = (false, false, Vec::new());
        // Whether something is missing that may have counted; whether the one before ends where nothing had been promised yet.
        let (mut lost, mut unfinished) = (false, false);
        for path in &paths {
            let read = if cut { None } else { read(folder, path)? };
            // Begun, and not written when its process or the machine went down.
            let headless = !cut && read.is_none() && Some(path) == paths.last();
            let follows = |segment: &Segment| segments.last().is_none_or(|last| last.end() == segment.base);
            let Some(read) = read.filter(|read| follows(&read.segment)) else {
                // Behind what is damaged or missing, or one that was begun and not written when the machine went down.
                found.torn += std::fs::metadata(path)?.len();
                rest.push(path);
                // Nothing was promised of a file without a head, nor, where all that counts is synced, behind a torn end.
                lost |= !(headless || unfinished);
                cut = true;
                continue;
            };
            begun = true;
            (found.lineage, found.damaged) = (read.lineage, read.damaged);
            found.whole = (read.synced || read.boot == boot && boot != [0; 16]) && !read.damaged;
            found.torn += read.torn;
            // Nothing follows a record that was being written when the process ended.
            cut = read.torn > 0 || read.damaged;
            unfinished = read.synced && read.torn > 0 && !read.damaged;
            entries.extend(read.entries);
            segments.push(read.segment);
        }
        found.whole &= begun && !lost && !lossy.is_set();
        if !found.whole && before {
            lossy.set()?;
        }
        rest.into_iter().try_for_each(std::fs::remove_file)?;
        if durable {
            // What a process that was killed had written, and not synced any more.
            segments.iter().try_for_each(|segment| File::open(&segment.path)?.sync_data())?;
        }
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
            durable,
            behind: Vec::new(),
            dirty: true,
            begun: true,
            lineage: found.lineage,
            segments,
            file,
            segment_bytes: SEGMENT_BYTES,
            scratch: Vec::new(),
            plain: Plain::default(),
        };
        kept.write_head()?;
        if let Some(unsynced) = kept.unsynced()? {
            unsynced.sync()?;
        }
        Ok((kept, found))
    }

    /// Segments of a log that may grow to `bytes` are short enough for some of them to be cut off long before: only whole ones are.
    pub(crate) fn limit_segments(&mut self, bytes: u64) {
        self.segment_bytes = SEGMENT_BYTES.min(bytes / SEGMENTS_LEAST);
    }

    /// What was written since this was asked last, of a log that is to be synced.
    pub(crate) fn unsynced(&mut self) -> io::Result<Option<Unsynced>> {
        if !self.durable || !(self.dirty || self.begun || !self.behind.is_empty()) {
            return Ok(None);
        }
        let mut files = std::mem::take(&mut self.behind);
        files.push(self.file.try_clone()?);
        let folder = self.begun.then(|| self.folder.clone());
        (self.dirty, self.begun) = (false, false);
        Ok(Some(Unsynced { files, folder, end: self.end() }))
    }

    /// Goes on in another file.
    fn goes_on_in(&mut self, path: &Path) -> io::Result<()> {
        let before = std::mem::replace(&mut self.file, open(path)?);
        if self.durable && self.dirty {
            self.behind.push(before);
        }
        (self.dirty, self.begun) = (true, true);
        Ok(())
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
        head[SYNCED_AT] = u8::from(self.durable);
        let crc = crc32c::crc32c(&head[..HEAD_BYTES - 4]);
        head[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        self.dirty = true;
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
        self.goes_on_in(&self.last().path.clone())?;
        self.write_head()
    }

    /// The log is as it was up to `from`, and goes on there with `entries`.
    pub(crate) fn write(&mut self, from: u64, entries: &[Entry<Bytes>]) -> io::Result<()> {
        self.write_behind(None, from, entries)
    }

    /// The same, where the epoch in front of `from` is known: then a segment may end there too, and does so however few entries come at
    /// once. Only whole segments can be cut off.
    pub(crate) fn write_behind(
        &mut self,
        epoch: Option<u32>,
        from: u64,
        entries: &[Entry<Bytes>],
    ) -> io::Result<()> {
        if from < self.segments[0].base {
            return Err(io::Error::other(format!("offset {from} is in front of the log")));
        }
        let popped = self.segments.len() > 1 && from < self.last().base;
        while self.segments.len() > 1 && from < self.last().base {
            if let Some(segment) = self.segments.pop() {
                segment.remove()?;
            }
            self.goes_on_in(&self.last().path.clone())?;
        }
        if popped || from < self.end() {
            let count = from - self.last().base;
            let last = self.segments.len() - 1;
            self.segments[last].ends.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            self.file.set_len(self.last().bytes())?;
            // It may be of an older start of the machine, and counts as this one's from here on.
            self.write_head()?;
        }
        self.dirty |= !entries.is_empty();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut at = self.begin_writing()?;
        scratch.clear();
        let mut before = epoch;
        for entry in entries {
            if at >= self.segment_bytes
                && let Some(epoch) = before
                && !self.last().ends.is_empty()
            {
                self.file.write_all(&scratch)?;
                scratch.clear();
                let next = Segment::new(&self.folder, self.end(), epoch);
                self.goes_on_in(&next.path)?;
                self.file.set_len(0)?;
                self.segments.push(next);
                self.write_head()?;
                at = self.begin_writing()?;
            }
            before = Some(entry.epoch);
            let start = scratch.len();
            scratch.extend_from_slice(&[0; RECORD_BYTES]);
            let input = if let Body::Input { input, .. } = &entry.body { &input[..] } else { &[] };
            wire::encode_entry_head(entry, Plain::bytes(input), &mut scratch);
            self.plain.pieces(input, |piece| scratch.extend_from_slice(piece));
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
        // Whoever is killed in between must not come back with the rest as if it were all.
        let marked = Lossy::of(&self.folder).set();
        self.segments.iter().rev().try_for_each(Segment::remove).and(marked)
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
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let bytes = Bytes::from(bytes);
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let synced = head[SYNCED_AT] == 1;
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
    let mut read = Read1 { lineage, boot, synced, segment, entries: Vec::new(), damaged: false, torn: 0 };
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
                read.damaged = !(synced && unwritten(&bytes, at));
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

/// Whether a page of the record at a place was never written: zeros to the end of the page, or of the file. Of what was not synced the machine
/// may leave such when it goes down, though all around it is there.
fn unwritten(bytes: &[u8], at: usize) -> bool {
    const PAGE: usize = 4_096;
    let length = bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let end = (at + RECORD_BYTES).saturating_add(length as usize).min(bytes.len());
    (at / PAGE..end.div_ceil(PAGE)).any(|page| {
        let page = &bytes[(page * PAGE).max(at)..((page + 1) * PAGE).min(bytes.len())];
        page.iter().all(|byte| *byte == 0)
    })
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
    // A machine that went down may leave the length of what was written, and zeros in its place.
    if end > bytes.len() || length == 0 && bytes[at..].iter().all(|byte| *byte == 0) {
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

    const BOOT: Boot = [7; 16];

    fn opening(boot: Boot) -> Opening {
        Opening { boot, durable: false, before: false }
    }

    fn entry(epoch: u32, sequence: u64) -> Entry<Bytes> {
        let input = vec![sequence as u8; sequence as usize % 50].into();
        Entry { epoch, body: Body::Input { source: 0, sequence, input } }
    }

    fn open_small(path: &Path, lineage: u64, boot: Boot) -> (Kept, Found) {
        let (mut kept, found) = Kept::open(path, lineage, opening(boot)).unwrap();
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
            let (kept, found) = Kept::open(&path, 9, opening(boot)).unwrap();
            assert_eq!((found.lineage, found.whole, found.torn), (lineage, whole, 0));
            assert_eq!((found.log.entries(), kept.end()), (&log[..], log.len() as u64));
        }
        let (mut kept, _) = Kept::open(&path, 9, opening(BOOT)).unwrap();
        kept.reset(2, 0, 0).unwrap();
        kept.write(0, &log[..1]).unwrap();
        drop(kept);
        let (_, found) = Kept::open(&path, 9, opening(BOOT)).unwrap();
        assert_eq!((found.lineage, found.log.entries()), (2, &log[..1]));
    }

    /// Killed before metadata knows what is missing, it is as much missing the next time.
    #[test]
    fn what_may_be_missing_is_not_forgotten_before_metadata_knows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        written(&path);
        let again = |boot| Opening { before: true, ..opening(boot) };
        assert!(Kept::open(&path, 9, again(BOOT)).unwrap().1.whole);
        for _ in 0..3 {
            let (_, found) = Kept::open(&path, 9, again([8; 16])).unwrap();
            assert!(!found.whole && found.log.end() > 0 && Lossy::of(&path).is_set());
        }
        Lossy::of(&path).clear().unwrap();
        assert!(Kept::open(&path, 9, again([8; 16])).unwrap().1.whole);
        // Nor is a folder that was emptied.
        std::fs::remove_dir_all(&path).unwrap();
        for _ in 0..2 {
            assert!(!Kept::open(&path, 9, again([8; 16])).unwrap().1.whole);
        }
    }

    #[test]
    fn what_is_synced_outlives_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let durable = |boot| Opening { boot, durable: true, before: true };
        let log: Vec<_> = (1..=40).map(|sequence| entry(1, sequence)).collect();
        let (mut kept, _) = Kept::open(&path, 1, durable(BOOT)).unwrap();
        Lossy::of(&path).clear().unwrap();
        assert!(kept.unsynced().unwrap().is_none(), "opening syncs");
        kept.segment_bytes = 300;
        let count = |kept: &mut Kept| {
            kept.unsynced().unwrap().map(|work| (work.files.len(), work.folder.is_some(), work.end))
        };
        kept.write(0, &log[..2]).unwrap();
        assert_eq!(count(&mut kept), Some((1, false, 2)));
        assert_eq!(count(&mut kept), None);
        kept.write(2, &log[2..]).unwrap();
        let segments = files(&path).len();
        let (synced, begun, end) = count(&mut kept).unwrap();
        assert!(segments > 3 && synced == segments && begun && end == 40, "{synced} of {segments}");
        kept.write(39, &log[..1]).unwrap();
        assert_eq!(count(&mut kept), Some((1, false, 40)));
        drop(kept);
        // Zeros where the machine went down while it wrote: never promised.
        let last = files(&path).pop().unwrap();
        let size = std::fs::metadata(&last).unwrap().len();
        OpenOptions::new().write(true).open(&last).unwrap().set_len(size + 100).unwrap();
        let (kept, found) = Kept::open(&path, 1, durable([8; 16])).unwrap();
        assert_eq!((found.whole, found.torn, found.log.end()), (true, 100, 40));
        drop(kept);
        // Another time without syncs: then the end is in doubt after the next start of the machine.
        let (mut kept, found) = Kept::open(&path, 1, Opening { durable: false, ..durable([9; 16]) }).unwrap();
        assert!(found.whole && kept.unsynced().unwrap().is_none());
        drop(kept);
        assert!(!Kept::open(&path, 1, durable([10; 16])).unwrap().1.whole);
    }

    /// What a machine leaves that goes down while a durable log is written and nothing of that was promised: a page that was never written,
    /// a next file that was only begun, without a byte or with zeros.
    #[test]
    fn what_was_never_promised_costs_a_durable_log_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let opening = |boot, durable| Opening { boot, durable, before: true };
        let body = |byte| Body::Input { source: 0, sequence: 1, input: vec![byte; 20_000].into() };
        for (durable, whole) in [(true, true), (false, false)] {
            let _ = std::fs::remove_dir_all(&path);
            let (mut kept, _) = Kept::open(&path, 1, opening(BOOT, durable)).unwrap();
            Lossy::of(&path).clear().unwrap();
            kept.write(0, &[1, 2].map(|byte| Entry { epoch: 1, body: body(byte) })).unwrap();
            drop(kept);
            let file = files(&path).pop().unwrap();
            let mut bytes = std::fs::read(&file).unwrap();
            // Of the second entry, whose ends are there.
            bytes[28_672..32_768].fill(0);
            std::fs::write(&file, &bytes).unwrap();
            let (_, found) = Kept::open(&path, 1, opening([8; 16], durable)).unwrap();
            assert_eq!((found.whole, found.damaged, found.log.end()), (whole, !durable, 1));
            assert!(found.torn > 20_000);
            Lossy::of(&path).clear().unwrap();
            for begun in [0, 40, 64, 500] {
                let next = path.join(format!("{:020}{SUFFIX}", 1));
                std::fs::write(&next, vec![0; begun]).unwrap();
                let (kept, found) = Kept::open(&path, 1, opening([8; 16], durable)).unwrap();
                assert_eq!((found.whole, found.log.end(), kept.end()), (true, 1, 1), "{begun}");
                assert!(!next.exists());
            }
            // A bit that turned is no page that was never written.
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[9_000] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            let (_, found) = Kept::open(&path, 1, opening([8; 16], durable)).unwrap();
            assert_eq!((found.whole, found.damaged, found.log.end()), (false, true, 0));
        }
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

    #[test]
    fn segments_end_however_few_entries_come_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut kept, _) = open_small(&path, 1, BOOT);
        let log: Vec<_> = (0..60).map(|at| entry(1 + u32::from(at >= 30), at)).collect();
        let mut memory = Log::behind(0, 0, Vec::new());
        for (at, entry) in log.iter().enumerate() {
            let from = at as u64;
            kept.write_behind(Some(memory.epoch_before(from)), from, std::slice::from_ref(entry)).unwrap();
            memory = Log::behind(0, 0, log[..=at].to_vec());
        }
        assert!(files(&path).len() > 5, "{:?}", files(&path));
        let base = kept.cut(45).unwrap();
        assert!(base > 30 && base <= 45, "{base}");
        drop(kept);
        let (_, found) = open_small(&path, 1, BOOT);
        assert_eq!((found.log.base(), found.log.end(), found.log.epoch_before(base)), (base, 60, 2));
        assert_eq!(found.log.entries(), &log[base as usize..]);
    }

    #[test]
    fn files_have_what_packed_inputs_stand_for() {
        let [packed, plain] = crate::machine::packed_and_plain();
        let entry = |input: &Bytes| Entry {
            epoch: 1,
            body: Body::Input { source: 0, sequence: 1, input: input.clone() },
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut kept, _) = Kept::open(&path, 1, opening(BOOT)).unwrap();
        kept.write(0, &[entry(&packed), entry(&plain)]).unwrap();
        drop(kept);
        let (_, found) = Kept::open(&path, 1, opening(BOOT)).unwrap();
        assert_eq!(found.log.entries(), [entry(&plain), entry(&plain)]);
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
                assert_eq!(found.whole, last, "{nth} cut at {cut}");
                let count = found.log.entries().len();
                assert_eq!(found.log.entries(), &log[..count], "{nth} cut at {cut}");
                kept.write(count as u64, &log[count..]).unwrap();
                assert_eq!(kept.end(), log.len() as u64);
                drop(kept);
                assert_eq!(Kept::open(&path, 1, opening(BOOT)).unwrap().1.log.entries(), log);
            }
            for at in (0..HEAD_BYTES).step_by(5) {
                restore();
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(file, &flipped).unwrap();
                let refused = Kept::open(&path, 1, opening(BOOT)).err().expect("a damaged head");
                assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
                assert_eq!(std::fs::read(file).unwrap(), flipped, "nothing was changed");
            }
            for at in (HEAD_BYTES..bytes.len()).step_by(3) {
                restore();
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(file, &flipped).unwrap();
                let (_, found) = Kept::open(&path, 1, opening(BOOT)).unwrap();
                let count = found.log.entries().len();
                assert!(count < log.len() && found.torn > 0, "{nth} flipped at {at}");
                assert_eq!(found.log.entries(), &log[..count], "{nth} flipped at {at}");
                assert!(last || !found.whole);
            }
        }
    }
}
