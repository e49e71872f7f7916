//! Foreign files in: one decoder per format behind [`open`], which tells formats apart by their bytes.
//!
//! Detection asks the bytes first (magic numbers, then the look of the text) and the file name last. Compression (gzip,
//! Zstandard) is looked through. **Names over the quota** ([`ReadOptions::names_max`]) do not stop a reader: their
//! events go to the one name [`OVERFLOW_NAME`] and are counted by [`crate::ReadAccount::overflowed`].

mod columns;
mod core;
mod csv;
mod dbn;
mod eve;
mod flow;
mod input;
mod inspect;
mod json;
mod lines;
mod pages;
mod parquet;
mod pcap;
mod text;
mod traffic;
mod zeek;

pub use self::columns::{ColumnMap, ColumnMapError};
pub use self::core::OVERFLOW_NAME;
pub use self::dbn::{OhlcvBar, read_ohlcv};
pub use self::inspect::{Gap, Inspection, KeyCount, inspect};
pub use self::lines::{LineFate, LineReader, Times};
pub use self::traffic::{Traffic, TrafficReader};

use self::core::Core;
use self::input::{Input, has_line};
use crate::source::{ReadError, Source};
use std::io::Read;
use std::path::Path;
use tidegate_engine::EventTime;

/// The formats that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Trades in CSV with a header.
    Csv,
    /// Trades in Parquet.
    Parquet,
    /// Databento Binary Encoding.
    Dbn,
    /// JSON lines: exchange streams (Binance) or plain trades.
    Json,
    /// pcap or pcapng.
    Pcap,
    /// Zeek `conn.log`, tab-separated or JSON lines.
    Zeek,
    /// Suricata EVE JSON lines.
    Eve,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Csv, Self::Parquet, Self::Dbn, Self::Json, Self::Pcap, Self::Zeek, Self::Eve];

    /// Name as `--format` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Dbn => "dbn",
            Self::Json => "json",
            Self::Pcap => "pcap",
            Self::Zeek => "zeek",
            Self::Eve => "eve",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("`{text}` is no format; it must be one of {}", names_of_formats()))
    }
}

fn names_of_formats() -> String {
    Format::ALL.map(Format::name).join(", ")
}

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Columns of tables; what is left out is guessed.
    pub map: ColumnMap,
    /// Names taken before events go to [`OVERFLOW_NAME`].
    pub names_max: usize,
    /// Longest line; longer ones are refused and skipped.
    pub line_bytes_max: usize,
    /// Most decompressed bytes of one file.
    pub decompressed_bytes_max: u64,
    /// Most decompressed bytes per compressed byte, past the first 64 MiB.
    pub decompressed_ratio_max: u64,
    /// Leaves out events before this instant.
    pub from: Option<EventTime>,
    /// Leaves out events at and after this instant.
    pub to: Option<EventTime>,
    /// Stops at the first fault of the input instead of counting it.
    pub strict: bool,
    /// The format, when it is not to be told from the bytes.
    pub format: Option<Format>,
    /// Threads that decode Parquet row groups ahead of the reader; 0 decodes on the reader's own thread. The events
    /// and their order are the same for any number.
    pub decode_threads: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            map: ColumnMap::default(),
            names_max: 1_000_000,
            line_bytes_max: 4 << 20,
            decompressed_bytes_max: u64::MAX,
            decompressed_ratio_max: 1_000,
            from: None,
            to: None,
            strict: false,
            format: None,
            decode_threads: 1,
        }
    }
}

/// Opens a file.
///
/// # Errors
/// [`ReadError`] when it cannot be opened, is empty, of no known format, or damaged at its very start.
pub fn open(path: &Path, options: &ReadOptions) -> Result<Box<dyn Source>, ReadError> {
    let mut input = Input::open(path, options)?;
    let format = match options.format {
        Some(format) => format,
        None => detect(&mut input)?,
    };
    if format == Format::Parquet && input.compression().is_none() && input.bytes_total() > 0 {
        let core = Core::new(path, options);
        return Ok(Box::new(parquet::open(parquet::Store::open(path)?, core, options)?));
    }
    build(format, input, options)
}

/// Reads from memory what [`open`] reads from a file; for tests, fuzzers and embedded captures.
///
/// # Errors
/// As [`open`], with the path `memory`.
pub fn open_bytes(
    format: Format,
    bytes: Vec<u8>,
    options: &ReadOptions,
) -> Result<Box<dyn Source>, ReadError> {
    let label = Path::new("memory");
    if format == Format::Parquet && !bytes.is_empty() {
        let store = parquet::Store::Memory(bytes.into());
        return Ok(Box::new(parquet::open(store, Core::new(label, options), options)?));
    }
    let input = Input::from_bytes(bytes, label, options)?;
    build(format, input, options)
}

/// Reads a stream, such as the standard input, as [`open`] reads a file; `label` stands for the path in messages. Nothing is
/// waited for beyond what is needed: asked for one event at a time, the source gives each as soon as its bytes have come.
///
/// # Errors
/// As [`open`], and [`ReadError::UnknownFormat`] for what can only be read from its end: Parquet, and our own captures.
pub fn open_stream(
    stream: Box<dyn Read + Send>,
    label: &Path,
    options: &ReadOptions,
) -> Result<Box<dyn Source>, ReadError> {
    let mut input = Input::from_stream(stream, label, options)?;
    let format = match options.format {
        Some(format) => format,
        None => detect(&mut input)?,
    };
    build(format, input, options)
}

fn build(format: Format, mut input: Input, options: &ReadOptions) -> Result<Box<dyn Source>, ReadError> {
    let unknown = |path: &Path, reason: &str| ReadError::UnknownFormat {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    if !input.ensure(1)? {
        return Err(unknown(input.path(), "it is empty"));
    }
    let core = Core::new(input.path(), options);
    match format {
        Format::Csv => Ok(Box::new(csv::open(input, core, options)?)),
        Format::Json => Ok(Box::new(json::open(input, core, options)?)),
        Format::Zeek => Ok(Box::new(zeek::open(input, core)?)),
        Format::Eve => Ok(Box::new(eve::open(input, core))),
        Format::Pcap => Ok(Box::new(pcap::open(input, core)?)),
        Format::Dbn => Ok(Box::new(dbn::open(input, core, options)?)),
        Format::Parquet => Err(unknown(
            input.path(),
            "Parquet is read from its end, so it cannot come through a pipe or be inside gzip or zstd; name the unpacked file",
        )),
    }
}

/// Bytes looked at to tell text formats apart.
const SNIFF_BYTES: usize = 64 << 10;

fn detect(input: &mut Input) -> Result<Format, ReadError> {
    // A damaged tail is the decoder's to report, with what came before it.
    let window = input.sniff(SNIFF_BYTES, |bytes| by_magic(bytes).is_some() || has_line(bytes))?;
    if window.starts_with(&crate::capture::MAGIC) {
        let reason =
            "a capture has its index at its end, so it cannot come through a pipe; name the file".to_owned();
        return Err(ReadError::UnknownFormat { path: input.path().to_path_buf(), reason });
    }
    let window = input.window();
    let format = by_magic(window).or_else(|| by_text(window)).or_else(|| by_extension(input.path()));
    format.ok_or_else(|| ReadError::UnknownFormat {
        path: input.path().to_path_buf(),
        reason: if window.is_empty() {
            "it is empty".to_owned()
        } else {
            format!(
                "neither its first bytes nor its name say; name it with --format (one of {})",
                names_of_formats()
            )
        },
    })
}

fn by_magic(bytes: &[u8]) -> Option<Format> {
    let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    match head {
        [b'P', b'A', b'R', b'1'] => Some(Format::Parquet),
        [b'D', b'B', b'N', 1..=3] => Some(Format::Dbn),
        [0xd4, 0xc3, 0xb2, 0xa1]
        | [0xa1, 0xb2, 0xc3, 0xd4]
        | [0x4d, 0x3c, 0xb2, 0xa1]
        | [0xa1, 0xb2, 0x3c, 0x4d]
        | [0x34, 0xcd, 0xb2, 0xa1]
        | [0x0a, 0x0d, 0x0d, 0x0a] => Some(Format::Pcap),
        _ => None,
    }
}

fn by_text(bytes: &[u8]) -> Option<Format> {
    let line = bytes.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty())?;
    if bytes.starts_with(b"#separator") || bytes.starts_with(b"#fields") {
        return Some(Format::Zeek);
    }
    let has = |needle: &[u8]| memchr::memmem::find(line, needle).is_some();
    // A receive time and a blank may stand before the JSON.
    let brace = line.iter().position(|&b| b == b'{');
    if brace.is_some_and(|at| line[..at].iter().all(|b| b.is_ascii_digit() || b.is_ascii_whitespace())) {
        return Some(if has(b"\"event_type\"") && has(b"\"timestamp\"") {
            Format::Eve
        } else if has(b"\"id.orig_h\"") {
            Format::Zeek
        } else {
            Format::Json
        });
    }
    let printable = line.iter().all(|&b| b >= 0x20 || b == b'\t');
    let delimited = line.iter().any(|b| matches!(b, b',' | b';' | b'\t' | b'|'));
    (printable && delimited).then_some(Format::Csv)
}

fn by_extension(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match name.rsplit_once('.')?.1 {
        "csv" | "tsv" => Some(Format::Csv),
        "parquet" | "pq" => Some(Format::Parquet),
        "dbn" => Some(Format::Dbn),
        "json" | "jsonl" | "ndjson" => Some(Format::Json),
        "pcap" | "pcapng" | "cap" => Some(Format::Pcap),
        _ => None,
    }
}

/// The symbol a file is named after: up to the first `_` or `.`, in upper case.
fn symbol_from_path(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split(['_', '.']).next().unwrap_or_default().to_uppercase()
}

#[cfg(test)]
pub(crate) mod testing {
    //! Helpers of the decoders' tests.

    use super::*;
    use crate::source::ReadAccount;
    use tidegate_engine::Event;

    pub(crate) fn drain(source: &mut dyn Source) -> (Vec<Event>, Option<ReadError>) {
        let mut events = Vec::new();
        loop {
            match source.read(&mut events, 4096) {
                Ok(0) => return (events, None),
                Ok(_) => {}
                Err(error) => return (events, Some(error)),
            }
        }
    }

    pub(crate) fn read_all(
        format: Format,
        bytes: &[u8],
        options: &ReadOptions,
    ) -> (Vec<Event>, ReadAccount, Vec<String>) {
        let mut source = open_bytes(format, bytes.to_vec(), options).unwrap();
        let (events, error) = drain(source.as_mut());
        assert!(error.is_none(), "{error:?}");
        let account = source.account().clone();
        assert_eq!(account.imbalance(), 0, "{account:?}");
        assert_eq!(account.events, events.len() as u64);
        let names = source.names().iter().map(|name| name.to_string()).collect();
        (events, account, names)
    }

    pub(crate) fn read_err(format: Format, bytes: &[u8], options: &ReadOptions) -> ReadError {
        match open_bytes(format, bytes.to_vec(), options) {
            Ok(mut source) => drain(source.as_mut()).1.expect("reading should have failed"),
            Err(error) => error,
        }
    }

    /// Reads every prefix of `bytes` and every single-byte change of it. Nothing may panic, and the account balances.
    pub(crate) fn torture(format: Format, bytes: &[u8]) {
        let options = ReadOptions { decode_threads: 0, ..ReadOptions::default() };
        let check = |bytes: Vec<u8>| {
            if let Ok(mut source) = open_bytes(format, bytes, &options) {
                let (events, _) = drain(source.as_mut());
                assert_eq!(source.account().imbalance(), 0);
                assert_eq!(source.account().events, events.len() as u64);
                for event in &events {
                    assert!(source.names().name(event.key).is_some());
                }
            }
        };
        for cut in 0..bytes.len() {
            check(bytes[..cut].to_vec());
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= change;
                check(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn formats_are_told_by_their_bytes() {
        let of = |bytes: &[u8]| by_magic(bytes).or_else(|| by_text(bytes));
        assert_eq!(of(b"PAR1...."), Some(Format::Parquet));
        assert_eq!(of(b"DBN\x02...."), Some(Format::Dbn));
        assert_eq!(of(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]), Some(Format::Pcap));
        assert_eq!(of(b"ts,price,size\n"), Some(Format::Csv));
        assert_eq!(of(b"#separator \\x09\n"), Some(Format::Zeek));
        assert_eq!(of(b"{\"ts\":1,\"id.orig_h\":\"1.1.1.1\"}"), Some(Format::Zeek));
        assert_eq!(of(b"{\"timestamp\":\"x\",\"event_type\":\"dns\"}"), Some(Format::Eve));
        assert_eq!(of(b"17 {\"stream\":1}"), Some(Format::Json));
        assert_eq!(of(b"\x00\x01\x02"), None);
        assert_eq!(symbol_from_path(Path::new("/a/spy_20131007.csv.gz")), "SPY");
    }

    #[test]
    fn empty_missing_and_unknown_files_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let error = |path: &Path| open(path, &ReadOptions::default()).err().map(|error| error.to_string());
        assert!(error(&path).unwrap().contains("cannot read"));
        std::fs::write(&path, b"").unwrap();
        assert!(error(&path).unwrap().contains("it is empty"));
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"").unwrap();
        std::fs::write(&path, gz.finish().unwrap()).unwrap();
        assert!(error(&path).unwrap().contains("it is empty"));
        let path = folder.path().join("x");
        std::fs::write(&path, b"\x00\x01\x02").unwrap();
        assert!(error(&path).unwrap().contains("--format"));
        assert!(error(folder.path()).is_some());
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            let error = open_bytes(format, Vec::new(), &ReadOptions::default()).err().unwrap();
            assert!(error.to_string().contains("it is empty"), "{error}");
        }
    }

    /// Gives its pieces one by one and fails the test when asked for one that has not come yet.
    struct Pieces(std::sync::mpsc::Receiver<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            match self.0.try_recv() {
                Ok(piece) => {
                    to[..piece.len()].copy_from_slice(piece);
                    Ok(piece.len())
                }
                Err(std::sync::mpsc::TryRecvError::Disconnected) => Ok(0),
                Err(std::sync::mpsc::TryRecvError::Empty) => panic!("it waits for more than it needs"),
            }
        }
    }

    #[test]
    fn what_comes_through_a_pipe_is_read_as_it_comes() {
        type Bytes = [&'static [u8]];
        let lines: [(&Bytes, &Bytes); 4] = [
            (&[b"\nts,symbol,price,size\n", b"1,A,1,1\n"], &[b"2,B,", b"1,1\n"]),
            (&[b"{\"ts\":1,\"symbol\":\"A\",\"price\":1,\"size\":1}\n"], &[
                b"{\"ts\":2,\"symbol\":\"B\",\"price\":1,\"size\":1}\n",
            ]),
            (
                &[
                    b"#separator \\x09\n",
                    b"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tresp_bytes\n",
                    b"1.5\tC1\t10.0.0.1\t5\t10.0.0.2\t6\ttcp\t1\t2\t3\n",
                ],
                &[b"2.5\tC2\t10.0.0.1\t5\t10.0.0.3\t6\ttcp\t1\t2\t3\n"],
            ),
            (&[b"#separator \\x09\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\n1.5\tC1\t10.0.0.1\t5\t10.0.0.2\t6\ttcp\n"], &[
                b"2.5\tC2\t10.0.0.1\t5\t10.0.0.3\t6\ttcp\n",
            ]),
        ];
        for (first, then) in lines {
            let (sender, pieces) = std::sync::mpsc::channel();
            first.iter().for_each(|piece| sender.send(*piece).unwrap());
            let label = Path::new("stdin");
            let options = ReadOptions::default();
            let mut source = open_stream(Box::new(Pieces(pieces)), label, &options).unwrap();
            let mut events = Vec::new();
            assert!(source.read(&mut events, 1).unwrap() > 0);
            then.iter().for_each(|piece| sender.send(*piece).unwrap());
            assert!(source.read(&mut events, 1).unwrap() > 0);
            drop(sender);
            while source.read(&mut events, 1).unwrap() > 0 {}
            assert_eq!(source.account().accepted, 2, "{}", source.format());
        }
    }

    #[test]
    fn what_is_read_from_its_end_cannot_come_through_a_pipe() {
        let open = |bytes: &'static [u8]| {
            let source = open_stream(Box::new(bytes), Path::new("stdin"), &ReadOptions::default());
            source.err().expect("it is refused").to_string()
        };
        assert!(open(b"PAR1xxxxPAR1").contains("name the unpacked file"));
        let mut capture = crate::capture::MAGIC.to_vec();
        capture.extend([b'\n'; 64]);
        assert!(open(capture.leak()).contains("name the file"));
        assert!(open(b"").contains("it is empty"));
        assert!(open(b"\x00\x01").contains("--format"));
    }

    #[test]
    fn a_damaged_tail_is_reported_after_what_came_before() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"ts,symbol,price,size\n1,A,1,1\n2,A,1,1\n").unwrap();
        let whole = gz.finish().unwrap();
        for cut in [whole.len() - 1, whole.len() - 8] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.csv.gz");
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut source = open(&path, &ReadOptions::default()).unwrap();
            let (events, error) = testing::drain(source.as_mut());
            assert_eq!(events.len(), 2);
            assert!(matches!(error, Some(ReadError::Damaged { .. })), "{error:?}");
        }
        testing::torture(Format::Csv, &whole);
        testing::torture(Format::Csv, b"ts,symbol,price,size,side\n1,\"A\",1,1,b\n2,A,1.5,1e2,s\n");
        testing::torture(Format::Csv, &zstd::encode_all(&b"ts,p,v\n1,1,1\n"[..], 1).unwrap());
    }
}
