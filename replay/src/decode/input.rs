//! Bytes in: one buffered window over a plain, gzip or Zstandard stream, with a guard against decompression bombs.

use super::ReadOptions;
use crate::source::{Place, Progress, ReadError};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Decompressed bytes below which no ratio is suspicious: small files of zeros are common and harmless.
const RATIO_FREE_BYTES: u64 = 64 << 20;
/// First size of the window. Large enough that a read call costs nothing per line.
const WINDOW_BYTES: usize = 256 << 10;

/// What the raw end of the pipe tells the far end: bytes taken and whether the system, not the data, failed.
#[derive(Default)]
struct Raw {
    bytes: AtomicU64,
    failed: AtomicBool,
}

struct CountingReader<R> {
    inner: R,
    raw: Arc<Raw>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buf) {
            Ok(count) => {
                self.raw.bytes.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.raw.failed.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }
}

/// One line of a text input.
#[derive(Debug, Clone, Copy)]
pub(super) enum Line<'a> {
    /// Its bytes without the line end.
    Text(&'a [u8]),
    /// It was longer than the limit and is gone; this many bytes.
    TooLong(u64),
}

/// A window over the decompressed bytes of one file or buffer.
pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    raw: Arc<Raw>,
    path: PathBuf,
    bytes_total: u64,
    /// Bytes come when they come: never wait for more than is needed.
    stream: bool,
    compression: Option<&'static str>,
    bytes_max: u64,
    ratio_max: u64,
    line_bytes_max: usize,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Decompressed bytes before `start`.
    offset: u64,
    eof: bool,
    /// An error met while looking ahead; it comes when the bytes before it are used up.
    deferred: Option<ReadError>,
    line: u64,
}

impl Input {
    /// Whether its bytes come when they come.
    pub(super) fn is_stream(&self) -> bool {
        self.stream
    }

    /// Opens a file, looking through gzip and Zstandard.
    pub(super) fn open(path: &Path, options: &ReadOptions) -> Result<Self, ReadError> {
        let io_error = |source| ReadError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if metadata.is_dir() {
            return Err(io_error(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")));
        }
        Self::new(Box::new(file), metadata.len(), path.to_path_buf(), options)
    }

    /// Reads from memory, for tests and fuzzers; `label` stands for the path in messages.
    pub(super) fn from_bytes(bytes: Vec<u8>, label: &Path, options: &ReadOptions) -> Result<Self, ReadError> {
        let total = bytes.len() as u64;
        Self::new(Box::new(Cursor::new(bytes)), total, label.to_path_buf(), options)
    }

    /// Reads what comes through a pipe; `label` stands for the path in messages.
    pub(super) fn from_stream(
        stream: Box<dyn Read + Send>,
        label: &Path,
        options: &ReadOptions,
    ) -> Result<Self, ReadError> {
        Ok(Self { stream: true, ..Self::new(stream, 0, label.to_path_buf(), options)? })
    }

    fn new(
        inner: Box<dyn Read + Send>,
        bytes_total: u64,
        path: PathBuf,
        options: &ReadOptions,
    ) -> Result<Self, ReadError> {
        let raw = Arc::new(Raw::default());
        let mut counted =
            BufReader::with_capacity(128 << 10, CountingReader { inner, raw: Arc::clone(&raw) });
        let io_error = |source| ReadError::Io { path: path.clone(), source };
        let magic = io::BufRead::fill_buf(&mut counted).map_err(io_error)?;
        let (compression, reader): (_, Box<dyn Read + Send>) = if magic.starts_with(&[0x1f, 0x8b]) {
            (Some("gzip"), Box::new(flate2::bufread::MultiGzDecoder::new(counted)))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = zstd::stream::read::Decoder::with_buffer(counted).map_err(io_error)?;
            (Some("zstd"), Box::new(decoder))
        } else {
            (None, Box::new(counted))
        };
        Ok(Self {
            reader,
            raw,
            path,
            bytes_total,
            stream: false,
            compression,
            bytes_max: options.decompressed_bytes_max,
            ratio_max: options.decompressed_ratio_max,
            line_bytes_max: options.line_bytes_max,
            buf: vec![0; WINDOW_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            eof: false,
            deferred: None,
            line: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn compression(&self) -> Option<&'static str> {
        self.compression
    }

    pub(super) fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Number of the last line returned, from 1.
    pub(super) fn line_number(&self) -> u64 {
        self.line
    }

    /// Decompressed offset of the window's first byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { bytes: self.raw.bytes.load(Ordering::Relaxed), bytes_total: self.bytes_total }
    }

    /// The bytes at hand.
    pub(super) fn window(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Drops `count` bytes off the front of the window.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }

    /// Reads until `count` bytes are at hand; false when the input ends before.
    pub(super) fn ensure(&mut self, count: usize) -> Result<bool, ReadError> {
        while self.end - self.start < count {
            if !self.fill(count)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has up to `count` bytes at hand to look at. An error waits until the bytes before it are used up.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], ReadError> {
        match self.ensure(count) {
            Err(error) if self.window().is_empty() => return Err(error),
            Err(error) => self.deferred = Some(error),
            Ok(_) => {}
        }
        Ok(self.window())
    }

    /// Has the beginning at hand, up to `count` bytes; of a stream no more than is `enough`.
    pub(super) fn sniff(&mut self, count: usize, enough: impl Fn(&[u8]) -> bool) -> Result<&[u8], ReadError> {
        if !self.stream {
            return self.peek(count);
        }
        while self.window().len() < count && !self.eof && !enough(self.window()) {
            self.peek(self.window().len() + 1)?;
            if self.deferred.is_some() {
                break;
            }
        }
        Ok(self.window())
    }

    /// Reads once more into a window that may grow to `wanted` bytes; false at the end of the input.
    fn fill(&mut self, wanted: usize) -> Result<bool, ReadError> {
        if let Some(error) = self.deferred.take() {
            return Err(error);
        }
        if self.eof {
            return Ok(false);
        }
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buf.len() {
            let grown = (self.buf.len() * 2).max(wanted);
            self.buf.resize(grown, 0);
        }
        let count = loop {
            match self.reader.read(&mut self.buf[self.end..]) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.eof = true;
                    return Err(self.classify(error));
                }
            }
        };
        self.end += count;
        self.eof = count == 0;
        self.check_bomb()?;
        Ok(count > 0)
    }

    fn classify(&self, source: io::Error) -> ReadError {
        let place = Place::Byte(self.offset + self.window().len() as u64);
        if self.raw.failed.load(Ordering::Relaxed) {
            return ReadError::Io { path: self.path.clone(), source };
        }
        let kind = self.compression.unwrap_or("plain");
        ReadError::Damaged { path: self.path.clone(), place, reason: format!("{kind} stream: {source}") }
    }

    fn check_bomb(&mut self) -> Result<(), ReadError> {
        if self.compression.is_none() {
            return Ok(());
        }
        let out = self.offset + (self.end - self.start) as u64;
        let taken = self.raw.bytes.load(Ordering::Relaxed);
        let reason = if out > self.bytes_max {
            format!("over {} decompressed bytes; raise it with --decompressed-max", self.bytes_max)
        } else if out > RATIO_FREE_BYTES && out / taken.max(1) > self.ratio_max {
            format!(
                "{taken} bytes became {out}, over {}:1 past 64 MiB, which looks like a decompression bomb; \
                 decompress it yourself if it is meant",
                self.ratio_max
            )
        } else {
            return Ok(());
        };
        self.eof = true;
        Err(ReadError::Limit { path: self.path.clone(), place: Place::Byte(out), reason })
    }

    /// The next line, without its `\n` or `\r\n`; the last line needs none.
    pub(super) fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        let mut scanned = 0;
        loop {
            let window = &self.buf[self.start + scanned..self.end];
            if let Some(at) = memchr::memchr(b'\n', window) {
                let (from, length) = (self.start, scanned + at);
                self.consume(length + 1);
                self.line += 1;
                if length > self.line_bytes_max {
                    return Ok(Some(Line::TooLong(length as u64)));
                }
                return Ok(Some(Line::Text(trim_cr(&self.buf[from..from + length]))));
            }
            scanned = self.end - self.start;
            if scanned > self.line_bytes_max {
                return self.skip_long_line().map(Some);
            }
            if !self.fill(0)? {
                if scanned == 0 {
                    return Ok(None);
                }
                let from = self.start;
                self.consume(scanned);
                self.line += 1;
                return Ok(Some(Line::Text(trim_cr(&self.buf[from..from + scanned]))));
            }
        }
    }

    fn skip_long_line(&mut self) -> Result<Line<'static>, ReadError> {
        let mut skipped = 0;
        loop {
            let found = memchr::memchr(b'\n', self.window());
            let step = found.unwrap_or(self.window().len());
            skipped += step as u64;
            self.consume(step + usize::from(found.is_some()));
            if found.is_some() || !self.fill(0)? {
                self.line += 1;
                return Ok(Line::TooLong(skipped));
            }
        }
    }
}

/// Whether there is a whole line that is not blank.
pub(super) fn has_line(bytes: &[u8]) -> bool {
    let end = memchr::memrchr(b'\n', bytes).unwrap_or(0);
    !bytes[..end].trim_ascii().is_empty()
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(bytes: &[u8], options: &ReadOptions) -> Vec<Result<Vec<u8>, u64>> {
        let mut input = Input::from_bytes(bytes.to_vec(), Path::new("x"), options).unwrap();
        let mut all = Vec::new();
        while let Some(line) = input.next_line().unwrap() {
            all.push(match line {
                Line::Text(text) => Ok(text.to_vec()),
                Line::TooLong(length) => Err(length),
            });
        }
        all
    }

    #[test]
    fn lines_end_with_or_without_their_mark() {
        let options = ReadOptions { line_bytes_max: 4, ..ReadOptions::default() };
        let got = lines(b"ab\r\n\ncdefgh\nxy", &options);
        assert_eq!(got, [Ok(b"ab".to_vec()), Ok(vec![]), Err(6), Ok(b"xy".to_vec())]);
        let long = vec![b'z'; 3 * WINDOW_BYTES];
        assert_eq!(lines(&long, &options), [Err(long.len() as u64)]);
    }

    #[test]
    fn a_line_longer_than_the_window_is_whole() {
        let mut text = vec![b'a'; 2 * WINDOW_BYTES + 17];
        text.push(b'\n');
        text.push(b'b');
        let got = lines(&text, &ReadOptions::default());
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].as_ref().unwrap().len(), 2 * WINDOW_BYTES + 17);
    }

    #[test]
    fn gzip_members_are_joined_and_bombs_are_refused() {
        let gz = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let mut two = gz(b"a\nb");
        two.extend(gz(b"c\nd"));
        assert_eq!(lines(&two, &ReadOptions::default()).len(), 3);
        let bomb = gz(&vec![0; 100 << 20]);
        let mut input = Input::from_bytes(bomb, Path::new("bomb"), &ReadOptions::default()).unwrap();
        let error = loop {
            match input.next_line() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the bomb went through"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::Limit { .. }), "{error}");
        assert!(input.buf.len() < 32 << 20, "memory stays bounded");
    }
}
