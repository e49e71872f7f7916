//! Recording a capture.

use super::columns::{Encoder, write_planes};
use super::format::{
    BLOCK_EVENTS_MAX, BLOCK_NAMES_MAX, BlockInfo, CODEC_PACKED, CODEC_PLANES, CODEC_RAW, Chain, NAMES_MAX,
    footer, header, write_index, write_names,
};
use crate::source::Names;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tidegate_engine::Event;
use zerocopy::IntoBytes;

/// Why a capture could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The operating system refused.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
    /// A name is longer than the format holds.
    #[error("a name of {bytes} bytes is over the limit of 255")]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// There is no room for another name.
    #[error("a capture holds at most {NAMES_MAX} names")]
    TooManyNames,
    /// Names given are not a continuation of the names already written.
    #[error("key {key} is named `{known}` in the capture and `{given}` in the names given")]
    NamesDiffer {
        /// The key they differ at.
        key: u32,
        /// What was written.
        known: String,
        /// What was given.
        given: String,
    },
}

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// Bit-packed columns, or byte planes under zstd for a block that those make a quarter smaller.
    #[default]
    Auto,
    /// Bit-packed columns only: fastest to read.
    Packed,
    /// Byte planes under zstd only: for comparison.
    Planes,
    /// As they are in memory: for comparison, and for a recorder with no time at all.
    Raw,
}

/// How a capture is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CaptureOptions {
    /// Events in a full block, 1 to [`BLOCK_EVENTS_MAX`]. What a crash can lose, and what a seek reads too much.
    pub block_events: usize,
    /// Compression.
    pub codec: Codec,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { block_events: 32_768, codec: Codec::Auto }
    }
}

impl CaptureOptions {
    /// With so many events in a full block; taken into 1 to [`BLOCK_EVENTS_MAX`].
    #[must_use]
    pub fn with_block_events(mut self, block_events: usize) -> Self {
        self.block_events = block_events.clamp(1, BLOCK_EVENTS_MAX);
        self
    }

    /// With this compression.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }
}

/// What a finished capture holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureSummary {
    /// Events.
    pub events: u64,
    /// Blocks.
    pub blocks: u64,
    /// Names.
    pub names: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes a capture front to back: nothing already written is ever touched again, so a crash costs the events since
/// the last whole block and the index, which a reader rebuilds.
pub struct CaptureWriter<W: Write = BufWriter<File>> {
    out: W,
    path: PathBuf,
    options: CaptureOptions,
    pending: Vec<Event>,
    names: Names,
    names_written: usize,
    chain: Chain,
    blocks: Vec<BlockInfo>,
    encoder: Encoder,
    body: Vec<u8>,
    planes: Vec<u8>,
}

impl CaptureWriter {
    /// Starts a capture at `path`, over what was there.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn create(path: impl AsRef<Path>, options: CaptureOptions) -> Result<Self, WriteError> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
        // Blocks are larger than this and go straight to the system: nothing of a whole one is lost by a crash.
        Self::to_stream(BufWriter::with_capacity(1 << 12, file), path, options)
    }

    /// Ends the capture: the last block, the index, the footer, and all of it on the disk.
    ///
    /// # Errors
    /// [`WriteError::Io`]; the blocks written so far stay readable.
    pub fn finish(self) -> Result<CaptureSummary, WriteError> {
        let path = self.path.clone();
        let (out, summary) = self.finish_stream()?;
        let io = |source| WriteError::Io { path: path.clone(), source };
        let file = out.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        Ok(summary)
    }
}

impl<W: Write> CaptureWriter<W> {
    /// Starts a capture on any stream; `path` is for messages.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn to_stream(out: W, path: impl Into<PathBuf>, options: CaptureOptions) -> Result<Self, WriteError> {
        let block_events = options.block_events.clamp(1, BLOCK_EVENTS_MAX);
        let mut writer = Self {
            out,
            path: path.into(),
            options: CaptureOptions { block_events, ..options },
            pending: Vec::with_capacity(block_events),
            names: Names::default(),
            names_written: 0,
            chain: Chain::default(),
            blocks: Vec::new(),
            encoder: Encoder::default(),
            body: Vec::new(),
            planes: Vec::new(),
        };
        writer.write(&header())?;
        Ok(writer)
    }

    /// Names defined so far.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The key of `name` in this capture, given now if it is new. It is written with the next block.
    ///
    /// # Errors
    /// [`WriteError::NameTooLong`], [`WriteError::TooManyNames`], and [`WriteError::Io`] when a block had to go out.
    pub fn define(&mut self, name: &str) -> Result<u32, WriteError> {
        if let Some(key) = self.names.get(name) {
            return Ok(key);
        }
        if name.len() > Names::BYTES_MAX {
            return Err(WriteError::NameTooLong { bytes: name.len() });
        }
        if self.names.len() == NAMES_MAX {
            return Err(WriteError::TooManyNames);
        }
        if self.names.len() - self.names_written == BLOCK_NAMES_MAX {
            self.write_block()?;
        }
        Ok(self.names.intern(name))
    }

    /// Takes over what is new in a source's dictionary, which only grows; call it before pushing the source's events.
    ///
    /// # Errors
    /// As [`CaptureWriter::define`], and [`WriteError::NamesDiffer`] when the dictionaries are not the same one.
    pub fn define_all(&mut self, names: &Names) -> Result<(), WriteError> {
        for (key, name) in names.iter().enumerate().skip(self.names.len()) {
            let given = self.define(name)? as usize;
            if given != key {
                return Err(WriteError::NamesDiffer {
                    key: key as u32,
                    known: self.names.name(key as u32).map(|name| name.to_string()).unwrap_or_default(),
                    given: name.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Appends events; whole blocks go out as they fill.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn push(&mut self, mut events: &[Event]) -> Result<(), WriteError> {
        while !events.is_empty() {
            let room = self.options.block_events - self.pending.len();
            let (now, later) = events.split_at(room.min(events.len()));
            self.pending.extend_from_slice(now);
            events = later;
            if self.pending.len() == self.options.block_events {
                self.write_block()?;
            }
        }
        Ok(())
    }

    /// Writes a short block now, so that a crash from here on loses nothing pushed before.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if !self.pending.is_empty() || self.names_written < self.names.len() {
            self.write_block()?;
        }
        self.out.flush().map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    /// Ends the capture and hands the stream back.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn finish_stream(mut self) -> Result<(W, CaptureSummary), WriteError> {
        self.flush()?;
        let index = write_index(&self.blocks, &self.names);
        self.write(&index)?;
        self.write(&footer(self.chain.offset(), index.len() as u64))?;
        self.out.flush().map_err(|source| WriteError::Io { path: self.path.clone(), source })?;
        let summary = CaptureSummary {
            events: self.chain.events(),
            blocks: self.blocks.len() as u64,
            names: self.names.len() as u64,
            bytes: self.chain.offset() + (index.len() + footer(0, 0).len()) as u64,
        };
        Ok((self.out, summary))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes).map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    fn write_block(&mut self) -> Result<(), WriteError> {
        let mut block = BlockInfo::of(&self.pending);
        self.body.clear();
        let new = self.names.iter().skip(self.names_written).map(|name| &**name);
        write_names(new, &mut self.body);
        block.names_before = self.names_written as u32;
        block.names = (self.names.len() - self.names_written) as u32;
        block.name_bytes = self.body.len() as u32;
        block.codec = self.write_events()?;
        block.body_bytes = self.body.len() as u32;
        block.body_crc = crc32fast::hash(&self.body);
        block.offset = self.chain.offset();
        block.events_before = self.chain.events();
        self.chain.take(&block).expect("a block is built from the chain it joins");
        self.write(&block.to_bytes())?;
        let body = std::mem::take(&mut self.body);
        let written = self.write(&body).and_then(|()| {
            self.out.flush().map_err(|source| WriteError::Io { path: self.path.clone(), source })
        });
        self.body = body;
        self.blocks.push(block);
        self.names_written = self.names.len();
        self.pending.clear();
        written
    }

    /// Appends the events to the body and says how.
    fn write_events(&mut self) -> Result<u8, WriteError> {
        let (events, start) = (&self.pending[..], self.body.len());
        let raw_bytes = size_of_val(events);
        if events.is_empty() || self.options.codec == Codec::Raw {
            self.body.extend_from_slice(events.as_bytes());
            return Ok(CODEC_RAW);
        }
        let mut codec = CODEC_PACKED;
        if self.options.codec != Codec::Planes {
            self.encoder.encode(events, &mut self.body);
        }
        let packed_bytes = self.body.len() - start;
        let wide = self.options.codec == Codec::Auto && packed_bytes > events.len() * 10;
        if wide || self.options.codec == Codec::Planes {
            self.planes.clear();
            write_planes(events, &mut self.planes);
            let planes = zstd::bulk::compress(&self.planes, 1)
                .map_err(|source| WriteError::Io { path: self.path.clone(), source })?;
            // Byte planes read several times slower, so they must be worth it.
            if !wide || planes.len() < packed_bytes / 4 * 3 {
                self.body.truncate(start);
                self.body.extend_from_slice(&planes);
                codec = CODEC_PLANES;
            }
        }
        if self.body.len() - start >= raw_bytes {
            self.body.truncate(start);
            self.body.extend_from_slice(events.as_bytes());
            codec = CODEC_RAW;
        }
        Ok(codec)
    }
}
