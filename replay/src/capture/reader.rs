//! Reading a capture: front to back as a [`Source`], by time range, or block by block from several threads.

use super::columns::{Decoder, Flaw, read_planes};
use super::format::{
    BLOCK_HEADER_BYTES, BlockInfo, CODEC_PACKED, CODEC_RAW, Chain, FOOTER_BYTES, HEADER_BYTES, INDEX_MAGIC,
    MAGIC, Opening, VERSION, opening, read_footer, read_index, read_names,
};
use super::pack::MINI;
use crate::source::{Names, Place, Progress, ReadAccount, ReadError, RejectCause, Source};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_engine::units::MODEST_FACTOR;
use tidegate_engine::{Event, EventTime, Notional, Price, Size, kind};
use zerocopy::IntoBytes;

/// What opening a capture found out; shared by all readers of it.
struct Contents {
    path: PathBuf,
    file_bytes: u64,
    blocks: Vec<BlockInfo>,
    names: Names,
    /// Where the capture stops being whole, and why.
    damage: Option<(u64, String)>,
}

/// Reads a capture.
///
/// As a [`Source`] it gives the events as recorded, in the order recorded, with the source rank they were recorded
/// under (a merger overwrites it). Watermarks and marks belong to the session that was recorded, so they are left
/// out and counted as [`RejectCause::NotAnEvent`], and so are trades that no bar could sum and times out of range;
/// [`CaptureReader::verbatim`] keeps all of them. [`CaptureReader::read_block`]
/// always gives the very bytes.
pub struct CaptureReader<R = File> {
    stream: R,
    contents: Arc<Contents>,
    account: ReadAccount,
    range: Option<(u64, u64)>,
    verbatim: bool,
    /// The next block to load.
    next: usize,
    loaded: Loaded,
    /// Some events of the loaded block must be left out, so each has to be looked at.
    sift: bool,
    /// For [`CaptureReader::read_block`], so that it does not disturb the place of the source.
    aside: Loaded,
    /// What stopped reading for good.
    stopped: Option<(u64, String)>,
}

/// A block in memory, on its way out. The buffers are reused from block to block.
#[derive(Default)]
struct Loaded {
    bytes: Vec<u8>,
    planes: Vec<u8>,
    decoder: Decoder,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    /// Events of a block that is not bit-packed, and how many of them were given out.
    whole: Vec<Event>,
    given: usize,
}

impl CaptureReader {
    /// Opens a capture and reads its index, or rebuilds it block by block where there is none.
    ///
    /// # Errors
    /// [`ReadError::Io`]; [`ReadError::UnknownFormat`] when it is no capture or of another version;
    /// [`ReadError::Damaged`] when not even the header is whole.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        Self::from_stream(file, path)
    }

    /// Another reader of the same capture, at its beginning, for another thread; the index is shared.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn fork(&self) -> Result<Self, ReadError> {
        let path = &self.contents.path;
        let file = File::open(path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        Ok(Self::over(file, Arc::clone(&self.contents)))
    }
}

impl<R: Read + Seek> CaptureReader<R> {
    /// Opens a capture on any stream; `path` is for messages.
    ///
    /// # Errors
    /// As [`CaptureReader::open`].
    pub fn from_stream(mut stream: R, path: impl Into<PathBuf>) -> Result<Self, ReadError> {
        let path = path.into();
        let contents = survey(&mut stream, &path)?;
        Ok(Self::over(stream, Arc::new(contents)))
    }

    fn over(stream: R, contents: Arc<Contents>) -> Self {
        Self {
            stream,
            contents,
            account: ReadAccount::default(),
            range: None,
            verbatim: false,
            next: 0,
            loaded: Loaded::default(),
            sift: false,
            aside: Loaded::default(),
            stopped: None,
        }
    }

    /// Keeps recorded watermarks and marks.
    #[must_use]
    pub fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    /// Reads only events with `from <= ts_event < to`; blocks wholly outside are not even loaded. What is left out
    /// counts as [`RejectCause::Filtered`].
    #[must_use]
    pub fn between(mut self, from: u64, to: u64) -> Self {
        self.range = Some((from, to));
        self
    }

    /// The blocks, in file order.
    #[must_use]
    pub fn blocks(&self) -> &[BlockInfo] {
        &self.contents.blocks
    }

    /// Events in all readable blocks.
    #[must_use]
    pub fn events_total(&self) -> u64 {
        self.contents.blocks.last().map_or(0, |block| block.events_before + u64::from(block.events))
    }

    /// Where the capture stops being whole and why, if opening found out already. The blocks before are good.
    #[must_use]
    pub fn damage(&self) -> Option<(u64, &str)> {
        self.contents.damage.as_ref().map(|(at, reason)| (*at, reason.as_str()))
    }

    /// Appends all events of one block, bit for bit as recorded. Independent of [`Source::read`]'s place.
    ///
    /// # Errors
    /// [`ReadError::Io`]; [`ReadError::Damaged`] with nothing appended; [`ReadError::Limit`] for a block that is not there.
    pub fn read_block(&mut self, index: usize, events: &mut Vec<Event>) -> Result<(), ReadError> {
        let contents = Arc::clone(&self.contents);
        let block = contents.blocks.get(index).ok_or_else(|| ReadError::Limit {
            path: contents.path.clone(),
            place: Place::Row(index as u64 + 1),
            reason: format!("the capture has {} blocks", contents.blocks.len()),
        })?;
        let start = events.len();
        let aside = &mut self.aside;
        let read = aside.load(&mut self.stream, block).and_then(|()| {
            while aside.left() > 0 {
                aside.give(usize::MAX, events)?;
            }
            Ok(())
        });
        read.map_err(|trouble| {
            events.truncate(start);
            trouble.into_error(&contents.path, block.offset)
        })
    }

    /// Loads the next block that can hold wanted events; false at the end.
    fn advance(&mut self) -> Result<bool, Trouble> {
        while let Some(block) = self.contents.blocks.get(self.next) {
            self.next += 1;
            if block.events == 0 {
                continue;
            }
            if self.range.is_some_and(|(from, to)| !block.overlaps(from, to)) {
                refuse(&mut self.account, RejectCause::Filtered, u64::from(block.events));
                continue;
            }
            let partly = self.range.is_some_and(|(from, to)| block.ts_min < from || block.ts_max >= to);
            let session = block.has_kind(kind::WATERMARK) || block.has_kind(kind::MARK);
            self.sift = partly || (session && !self.verbatim);
            self.loaded.load(&mut self.stream, block)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Leaves out trades that no other reader would let in: a checksum says that a file is as it was written, not that whoever
    /// wrote it was right.
    fn check(&mut self, events: &mut Vec<Event>, start: usize) {
        // One pass of sums for nearly all runs.
        let (mut magnitude, mut newest) = (0, 0);
        for event in &events[start..] {
            magnitude |= event.price().unsigned_abs() | event.size();
            newest = newest.max(event.ts_event);
        }
        if magnitude < MODEST_FACTOR && newest <= EventTime::MAX.0 {
            return;
        }
        let account = &mut self.account;
        let mut kept = start;
        for at in start..events.len() {
            let event = events[at];
            let refused = if event.is_control() {
                None
            } else if event.ts_event > EventTime::MAX.0 {
                let reason = format!("time {} is after the year 2262", event.ts_event);
                Some((RejectCause::BadTime, reason))
            } else if event.kind == kind::TRADE {
                let notional = Notional::of(Price(event.price()), Size(event.size()));
                notional.err().map(|error| (RejectCause::OutOfRange, error.to_string()))
            } else {
                None
            };
            match refused {
                Some((cause, reason)) => {
                    let row = account.units + (at - start) as u64 + 1;
                    account.refuse(cause, Place::Row(row), || reason);
                }
                None => {
                    events[kept] = event;
                    kept += 1;
                }
            }
        }
        events.truncate(kept);
    }

    /// Leaves out what is not wanted from `events[start..]` and accounts for all of it.
    fn settle(&mut self, events: &mut Vec<Event>, start: usize) {
        let seen = (events.len() - start) as u64;
        if self.sift {
            let (mut kept, mut outside) = (start, 0);
            for at in start..events.len() {
                let event = events[at];
                let wanted = self.range.is_none_or(|(from, to)| (from..to).contains(&event.ts_event));
                let session = matches!(event.kind, kind::WATERMARK | kind::MARK) && !self.verbatim;
                events[kept] = event;
                kept += usize::from(wanted && !session);
                outside += u64::from(!wanted);
            }
            events.truncate(kept);
            let kept = (kept - start) as u64;
            refuse(&mut self.account, RejectCause::Filtered, outside);
            refuse(&mut self.account, RejectCause::NotAnEvent, seen - outside - kept);
        }
        let kept = (events.len() - start) as u64;
        self.account.units += kept;
        self.account.accepted += kept;
        self.account.events += kept;
    }

    fn fill(&mut self, events: &mut Vec<Event>, end: usize) -> Result<(), Trouble> {
        while events.len() < end {
            if self.loaded.left() == 0 && !self.advance()? {
                return Ok(());
            }
            let start = events.len();
            let given = self.loaded.give(end - start, events);
            if !self.verbatim {
                self.check(events, start);
            }
            self.settle(events, start);
            given?;
        }
        Ok(())
    }
}

impl<R: Read + Seek + Send> Source for CaptureReader<R> {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let start = events.len();
        if self.stopped.is_none() {
            let end = start.saturating_add(max.max(1));
            if let Err(trouble) = self.fill(events, end) {
                let at = self.contents.blocks[self.next - 1].offset;
                // A stream that fails now may work later; what it holds will not get better.
                match trouble {
                    Trouble::Io(_) if events.len() == start => {
                        return Err(trouble.into_error(&self.contents.path, at));
                    }
                    Trouble::Io(source) => self.stopped = Some((at, source.to_string())),
                    Trouble::Flaw(reason) => self.stopped = Some((at, reason.to_owned())),
                }
            } else if events.len() == start {
                self.stopped.clone_from(&self.contents.damage);
            }
        }
        match &self.stopped {
            Some((at, reason)) if events.len() == start => Err(damaged(&self.contents.path, *at, reason)),
            _ => Ok(events.len() - start),
        }
    }

    fn names(&self) -> &Names {
        &self.contents.names
    }

    fn account(&self) -> &ReadAccount {
        &self.account
    }

    fn progress(&self) -> Progress {
        let bytes = match self.contents.blocks.get(self.next) {
            Some(block) => block.offset,
            None => self.contents.file_bytes,
        };
        Progress { bytes, bytes_total: self.contents.file_bytes }
    }

    fn format(&self) -> String {
        "tgc".to_owned()
    }
}

/// Counts many refusals that need no example.
fn refuse(account: &mut ReadAccount, cause: RejectCause, count: u64) {
    for _ in 0..count {
        account.refuse(cause, Place::Row(0), String::new);
    }
}

fn damaged(path: &Path, at: u64, reason: &str) -> ReadError {
    ReadError::Damaged { path: path.to_owned(), place: Place::Byte(at), reason: reason.to_owned() }
}

/// Why a block could not be read.
enum Trouble {
    Io(std::io::Error),
    Flaw(&'static str),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        // The file was longer when it was opened.
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Self::Flaw("the file became shorter while it was read")
        } else {
            Self::Io(error)
        }
    }
}

impl From<Flaw> for Trouble {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw.0)
    }
}

impl Trouble {
    fn into_error(self, path: &Path, at: u64) -> ReadError {
        match self {
            Self::Io(source) => ReadError::Io { path: path.to_owned(), source },
            Self::Flaw(reason) => damaged(path, at, reason),
        }
    }
}

impl Loaded {
    /// Reads a block whole, checks it against its checksum and makes its events ready.
    fn load<R: Read + Seek>(&mut self, stream: &mut R, block: &BlockInfo) -> Result<(), Trouble> {
        self.whole.clear();
        self.given = 0;
        self.decoder.reset();
        // The survey found the file long enough, and `BlockInfo::read` holds the body to its limit.
        self.bytes.resize(BLOCK_HEADER_BYTES + block.body_bytes as usize, 0);
        stream.seek(SeekFrom::Start(block.offset))?;
        stream.read_exact(&mut self.bytes)?;
        let (head, body) = self.bytes.split_at(BLOCK_HEADER_BYTES);
        if BlockInfo::read(head, block.offset).map_err(Trouble::Flaw)? != *block {
            return Err(Trouble::Flaw("the block is not the one the index lists"));
        }
        if crc32fast::hash(body) != block.body_crc {
            return Err(Trouble::Flaw("the block's checksum does not match"));
        }
        let (at, count) = (block.name_bytes as usize, block.events as usize);
        let stored = &body[at..];
        let raw_bytes = count * size_of::<Event>();
        match block.codec {
            _ if count == 0 => {
                if !stored.is_empty() {
                    return Err(Trouble::Flaw("a block without events has some"));
                }
            }
            CODEC_PACKED => self.decoder.begin(body, at, count)?,
            CODEC_RAW => {
                if stored.len() != raw_bytes {
                    return Err(Trouble::Flaw("a raw block is not 32 bytes an event"));
                }
                self.whole.resize(count, Event::default());
                self.whole.as_mut_bytes().copy_from_slice(stored);
            }
            _ => {
                if self.zstd.is_none() {
                    self.zstd = Some(zstd::bulk::Decompressor::new()?);
                }
                let zstd = self.zstd.as_mut().expect("made above");
                // The output is as long as the events need and never longer, whatever the frame claims.
                self.planes.resize(raw_bytes, 0);
                match zstd.decompress_to_buffer(stored, &mut self.planes[..]) {
                    Ok(length) if length == raw_bytes => read_planes(&self.planes, count, &mut self.whole),
                    _ => return Err(Trouble::Flaw("a compressed block does not unpack to its events")),
                }
            }
        }
        Ok(())
    }

    /// Events not given out yet.
    fn left(&self) -> usize {
        self.decoder.left() + self.whole.len() - self.given
    }

    /// Appends up to `max` events, rounded up to whole mini-blocks.
    fn give(&mut self, max: usize, events: &mut Vec<Event>) -> Result<(), Trouble> {
        if self.decoder.left() > 0 {
            let body = &self.bytes[BLOCK_HEADER_BYTES..];
            let count = self.decoder.left().min(max.checked_next_multiple_of(MINI).unwrap_or(usize::MAX));
            events.reserve(count);
            let end = events.len() + count;
            while events.len() < end {
                self.decoder.next(body, events)?;
            }
            return Ok(());
        }
        let count = (self.whole.len() - self.given).min(max);
        events.extend_from_slice(&self.whole[self.given..self.given + count]);
        self.given += count;
        Ok(())
    }
}

/// Reads header, footer and index, or walks the blocks where the end is missing.
fn survey<R: Read + Seek>(stream: &mut R, path: &Path) -> Result<Contents, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let file_bytes = stream.seek(SeekFrom::End(0)).map_err(io)?;
    let mut first = [0; HEADER_BYTES];
    let first_bytes = file_bytes.min(HEADER_BYTES as u64) as usize;
    stream.seek(SeekFrom::Start(0)).map_err(io)?;
    stream.read_exact(&mut first[..first_bytes]).map_err(io)?;
    let unknown = |reason: String| ReadError::UnknownFormat { path: path.to_owned(), reason };
    if first_bytes < HEADER_BYTES {
        let known = MAGIC.len().min(first_bytes);
        return Err(if known > 0 && first[..known] == MAGIC[..known] {
            damaged(path, file_bytes, "the capture ends inside its header")
        } else {
            unknown("it does not begin like a Tidegate capture".to_owned())
        });
    }
    match opening(&first) {
        Opening::Good => {}
        Opening::Foreign => return Err(unknown("it does not begin like a Tidegate capture".to_owned())),
        Opening::Version(version) => {
            return Err(unknown(format!(
                "it is a capture of version {version}, and this build reads version {VERSION}"
            )));
        }
        Opening::Broken => return Err(damaged(path, 0, "the capture header's checksum does not match")),
    }

    let mut contents = Contents {
        path: path.to_owned(),
        file_bytes,
        blocks: Vec::new(),
        names: Names::default(),
        damage: None,
    };
    let body_end = file_bytes.saturating_sub(FOOTER_BYTES as u64);
    let mut reason = "the capture was not finished: index and footer are missing";
    if body_end >= HEADER_BYTES as u64 {
        let mut last = [0; FOOTER_BYTES];
        stream.seek(SeekFrom::Start(body_end)).map_err(io)?;
        stream.read_exact(&mut last).map_err(io)?;
        if let Some((offset, length)) = read_footer(&last, file_bytes) {
            // `length` is inside the file, so this sets aside no more than the file holds.
            let mut index = vec![0; length as usize];
            stream.seek(SeekFrom::Start(offset)).map_err(io)?;
            stream.read_exact(&mut index).map_err(io)?;
            match read_index(&index, offset) {
                Ok((blocks, names)) => {
                    (contents.blocks, contents.names) = (blocks, names);
                    return Ok(contents);
                }
                Err(why) => reason = why,
            }
        }
    }
    scan(stream, &mut contents, reason).map_err(io)?;
    Ok(contents)
}

/// Rebuilds the index from the blocks themselves. Every body is checked here, since what follows a damaged one
/// cannot be trusted to be a block.
fn scan<R: Read + Seek>(stream: &mut R, contents: &mut Contents, missing: &str) -> std::io::Result<()> {
    let mut chain = Chain::default();
    let mut bytes = Vec::new();
    loop {
        let at = chain.offset();
        let left = contents.file_bytes - at;
        let mut head = [0; BLOCK_HEADER_BYTES];
        let head_bytes = left.min(BLOCK_HEADER_BYTES as u64) as usize;
        stream.seek(SeekFrom::Start(at))?;
        stream.read_exact(&mut head[..head_bytes])?;
        if head_bytes == 0 || head[..4] == INDEX_MAGIC {
            contents.damage = Some((at, missing.to_owned()));
            return Ok(());
        }
        let block = if head_bytes < BLOCK_HEADER_BYTES {
            Err("the capture ends inside a block header")
        } else {
            BlockInfo::read(&head, at).and_then(|block| {
                if block.bytes() > left {
                    return Err("the capture ends inside a block");
                }
                let mut next = chain;
                next.take(&block)?;
                Ok((block, next))
            })
        };
        let taken = match block {
            Ok((block, next)) => {
                bytes.resize(block.body_bytes as usize, 0);
                stream.read_exact(&mut bytes)?;
                if crc32fast::hash(&bytes) == block.body_crc {
                    read_names(&bytes[..block.name_bytes as usize], block.names, &mut contents.names)
                        .map(|()| (block, next))
                } else {
                    Err("the block's checksum does not match")
                }
            }
            Err(reason) => Err(reason),
        };
        match taken {
            Ok((block, next)) => {
                contents.blocks.push(block);
                chain = next;
            }
            Err(reason) => {
                contents.damage = Some((at, reason.to_owned()));
                return Ok(());
            }
        }
    }
}
