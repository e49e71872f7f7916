//! Lines of a text log as they are, for readers that know what they mean.

use super::ReadOptions;
use super::core::Core;
use super::input::{Input, Line};
use super::text::TimeForm;
use crate::source::{Place, Progress, ReadAccount, ReadError, RejectCause};
use std::io::Read;
use std::path::Path;

/// What a line was, for the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineFate {
    /// A header, a comment: nothing that counts.
    NoUnit,
    /// A row of this instant (ns since 1970). Whether it lies between the instants asked for is seen to before it counts.
    Row(u64),
    /// None that can be read, and why.
    Malformed(String),
}

/// Reads lines; gzip and Zstandard are looked through.
pub struct LineReader {
    input: Input,
    core: Core,
}

impl LineReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be opened.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, ReadError> {
        let input = Input::open(path, options)?;
        let core = Core::new(input.path(), options);
        Ok(Self { input, core })
    }

    /// Reads what comes through a pipe as [`LineReader::open`] reads a file; `label` stands for the path in messages. A line is given as soon as
    /// it has come.
    ///
    /// # Errors
    /// [`ReadError`] when the stream fails before its first byte.
    pub fn from_stream(
        stream: Box<dyn Read + Send>,
        label: &Path,
        options: &ReadOptions,
    ) -> Result<Self, ReadError> {
        let input = Input::from_stream(stream, label, options)?;
        let core = Core::new(input.path(), options);
        Ok(Self { input, core })
    }

    /// The beginning, up to `bytes_max` bytes, which stays to be read; of a stream no more is waited for than is `enough`.
    ///
    /// # Errors
    /// [`ReadError`] when not one byte can be read.
    pub fn head(&mut self, bytes_max: usize, enough: impl Fn(&[u8]) -> bool) -> Result<&[u8], ReadError> {
        self.input.sniff(bytes_max, enough)
    }

    /// Gives at most `max` lines, with their numbers from 1, to `take`. False once the input has ended.
    ///
    /// # Errors
    /// [`ReadError`] when nothing more can be read; what was given before stays valid.
    pub fn read(
        &mut self,
        max: usize,
        mut take: impl FnMut(u64, &[u8]) -> LineFate,
    ) -> Result<bool, ReadError> {
        for _ in 0..max {
            let number = self.input.line_number() + 1;
            let place = Place::Line(number);
            match self.input.next_line()? {
                None => return Ok(false),
                Some(Line::TooLong(bytes)) => {
                    self.core.refuse(RejectCause::Malformed, place, || {
                        format!("a line of {bytes} bytes is over the limit")
                    });
                }
                Some(Line::Text(line)) => match take(number, line) {
                    LineFate::NoUnit => {}
                    LineFate::Row(ts) if self.core.outside(ts) => self.core.refuse_filtered(),
                    LineFate::Row(_) => self.core.account.accept(1),
                    LineFate::Malformed(why) => self.core.refuse(RejectCause::Malformed, place, || why),
                },
            }
            if let Some(error) = self.core.stop() {
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Whether a row of this instant is one that was asked for.
    #[must_use]
    pub fn wants(options: &ReadOptions, ts: u64) -> bool {
        options.from.is_none_or(|from| ts >= from.0) && options.to.is_none_or(|to| ts < to.0)
    }

    /// What was read and refused so far.
    #[must_use]
    pub fn account(&self) -> &ReadAccount {
        &self.core.account
    }

    /// How far reading is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.input.progress()
    }
}

/// Reads instants as every reader of tables does: numbers of seconds to nanoseconds since 1970, told apart by their size, or texts such as
/// `2026-01-05T14:30:00Z`. The first one that can be read decides which it is.
#[derive(Debug, Clone, Default)]
pub struct Times(TimeForm);

impl Times {
    /// Nanoseconds since 1970.
    ///
    /// # Errors
    /// Why the text is no instant that can be kept.
    pub fn parse(&mut self, text: &[u8]) -> Result<u64, String> {
        self.0.parse(text).map_err(|(_, why)| why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::EventTime;

    #[test]
    fn times_stay_what_the_first_one_was() {
        let mut times = Times::default();
        assert!(times.parse(b"soon").is_err());
        assert_eq!(times.parse(b"1700000000"), Ok(1_700_000_000_000_000_000));
        assert_eq!(times.parse(b"1700000000.5"), Ok(1_700_000_000_500_000_000));
        assert!(times.parse(b"2026-01-05").is_err());
        assert_eq!(Times::default().parse(b"1970-01-01T00:00:01Z"), Ok(1_000_000_000));
    }

    #[test]
    fn the_head_of_a_stream_is_seen_and_still_read() {
        let options = ReadOptions::default();
        let stream = Box::new(std::io::Cursor::new(b"a\nb\nc".to_vec()));
        let mut reader = LineReader::from_stream(stream, Path::new("pipe"), &options).unwrap();
        assert!(reader.head(100, |bytes| bytes.contains(&b'\n')).unwrap().starts_with(b"a\n"));
        let mut lines = Vec::new();
        let take = |number, line: &[u8]| {
            lines.push((number, line.to_vec()));
            LineFate::Row(1)
        };
        assert!(!reader.read(10, take).unwrap());
        assert_eq!(lines, [(1, b"a".to_vec()), (2, b"b".to_vec()), (3, b"c".to_vec())]);
    }

    #[test]
    fn lines_balance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "#head\n5\nbad\n\n9\n").unwrap();
        let options = ReadOptions { from: Some(EventTime(6)), ..ReadOptions::default() };
        let mut reader = LineReader::open(&path, &options).unwrap();
        let mut numbers = Vec::new();
        let more = reader.read(100, |number, line| {
            numbers.push(number);
            match std::str::from_utf8(line).unwrap() {
                "" | "#head" => LineFate::NoUnit,
                text => {
                    text.parse().map_or_else(|_| LineFate::Malformed("no number".to_owned()), LineFate::Row)
                }
            }
        });
        assert!(!more.unwrap());
        let account = reader.account();
        assert_eq!(
            (numbers, account.units, account.accepted, account.faults()),
            (vec![1, 2, 3, 4, 5], 3, 1, 1)
        );
        assert_eq!(account.imbalance(), 0);
        assert!(LineReader::wants(&options, 6) && !LineReader::wants(&options, 5));
    }
}
