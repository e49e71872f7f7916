//! Streams of results into files, one per stream.

use super::OutputError;
use super::csv::CsvTable;
use super::hold::Hold;
use super::jsonl::JsonlTable;
use super::parquet::ParquetTable;
use super::row::Layout;
use crate::pipeline::{ResultSink, SinkError};
use crate::plan::{StreamInfo, StreamKind};
use std::path::{Path, PathBuf};
use tidegate_engine::{Output, output_kind};

/// The formats results are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResultFormat {
    /// Comma-separated, a header, exact decimals.
    #[default]
    Csv,
    /// JSON lines as exchanges send them: short names, prices as decimal text.
    Jsonl,
    /// Parquet under zstd, prices as `decimal(38, 9)`.
    Parquet,
}

impl ResultFormat {
    /// Ending of its files.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }
}

/// Which records of an amended bar are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revisions {
    /// Each as it came: what a live subscriber saw.
    #[default]
    All,
    /// The last one only: one row per bar. Rows wait in memory until their bar can no longer be amended.
    Final,
}

/// How bars are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BarRows {
    /// Which revisions.
    pub revisions: Revisions,
    /// How long after its end a bar may be amended, as in the plan's bar options.
    pub horizon_ns: u64,
    /// How far behind the newest stamp an event is still on time, as in the log's options.
    pub disorder_ns: u64,
}

impl ResultSink for ResultWriter {
    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), SinkError> {
        Ok(ResultWriter::record(self, stream, name, output)?)
    }
}

/// What one file came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// The stream, or `STREAM.late` for late trades set aside.
    pub stream: String,
    /// The file.
    pub path: PathBuf,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One file of rows of one layout.
pub(super) trait ResultTable: Send {
    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError>;
    /// Ends the file and returns its bytes.
    fn finish(self: Box<Self>) -> Result<u64, OutputError>;
}

struct File {
    stream: String,
    path: PathBuf,
    table: Box<dyn ResultTable>,
    rows: u64,
}

impl File {
    fn create(
        folder: &Path,
        stream: String,
        layout: Layout,
        format: ResultFormat,
    ) -> Result<Self, OutputError> {
        let path = folder.join(format!("{}.{}", file_name(&stream), format.extension()));
        let table: Box<dyn ResultTable> = match format {
            ResultFormat::Csv => Box::new(CsvTable::create(&path, layout)?),
            ResultFormat::Jsonl => Box::new(JsonlTable::create(&path, layout, stream.clone())?),
            ResultFormat::Parquet => Box::new(ParquetTable::create(&path, layout)?),
        };
        Ok(Self { stream, path, table, rows: 0 })
    }

    fn row(&mut self, name: &str, output: &Output) -> Result<(), OutputError> {
        self.rows += 1;
        self.table.row(name, output)
    }

    fn finish(self) -> Result<FileSummary, OutputError> {
        let bytes = self.table.finish()?;
        Ok(FileSummary { stream: self.stream, path: self.path, rows: self.rows, bytes })
    }
}

/// `bars.1000$` without what a shell would trip over.
fn file_name(stream: &str) -> String {
    stream.replace('$', "usd")
}

struct StreamFiles {
    file: File,
    late: Option<File>,
    hold: Option<Hold>,
}

/// Writes every stream of a replay into a folder: `bars.1s.csv`, `ind.1s.csv`, `hosts.1m.csv`; late trades set aside
/// into `bars.1s.late.csv`.
pub struct ResultWriter {
    folder: PathBuf,
    format: ResultFormat,
    streams: Vec<StreamFiles>,
}

impl ResultWriter {
    /// Makes the folder and starts a file per stream, so that what cannot be written shows before any work.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn create(
        folder: &Path,
        streams: &[StreamInfo],
        format: ResultFormat,
        bars: BarRows,
    ) -> Result<Self, OutputError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| OutputError::Create { path: folder.to_owned(), source })?;
        let files = streams.iter().map(|stream| {
            let layout = Layout::of(stream);
            let hold = (bars.revisions == Revisions::Final && layout.is_bars())
                .then(|| Hold::new(bars.horizon_ns, bars.disorder_ns, stream.kind == StreamKind::Bars));
            let file = File::create(folder, stream.name.clone(), layout, format)?;
            Ok(StreamFiles { file, late: None, hold })
        });
        let streams = files.collect::<Result<_, OutputError>>()?;
        Ok(Self { folder: folder.to_owned(), format, streams })
    }

    /// Takes one record; records of a stream come in the pipeline's order.
    ///
    /// # Errors
    /// [`OutputError`]; nothing more can be written then.
    pub fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), OutputError> {
        let Some(files) = self.streams.get_mut(usize::from(stream.id)) else { return Ok(()) };
        match (output.kind, &mut files.hold) {
            (output_kind::LATE, _) => {
                let late = match &mut files.late {
                    Some(late) => late,
                    empty => {
                        let stream = format!("{}.late", stream.name);
                        empty.insert(File::create(&self.folder, stream, Layout::Late, self.format)?)
                    }
                };
                late.row(name, output)
            }
            (_, Some(hold)) => {
                hold.take(name, output);
                while let Some((name, output)) = hold.settled() {
                    files.file.row(&name, &output)?;
                }
                Ok(())
            }
            _ => files.file.row(name, output),
        }
    }

    /// Ends all files and gives them their names.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn finish(self) -> Result<Vec<FileSummary>, OutputError> {
        let mut summaries = Vec::new();
        for mut files in self.streams {
            if let Some(hold) = files.hold.take() {
                for (name, output) in hold.rest() {
                    files.file.row(&name, &output)?;
                }
            }
            summaries.push(files.file.finish()?);
            if let Some(late) = files.late {
                summaries.push(late.finish()?);
            }
        }
        Ok(summaries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{ReadOptions, open};
    use tidegate_engine::{BarState, BarWords, Cause};

    fn streams() -> Vec<StreamInfo> {
        let stream = |id, name: &str, kind, columns: &[&str]| StreamInfo {
            definition: String::new(),
            id,
            name: name.into(),
            kind,
            columns: columns.iter().map(ToString::to_string).collect(),
        };
        vec![
            stream(0, "bars.1s", StreamKind::Bars, &[]),
            stream(1, "ind.1s", StreamKind::Indicators, &["rsi_14", "ema_2"]),
            stream(2, "hosts.1m", StreamKind::Hosts, &["ts_open", "packets"]),
        ]
    }

    fn bar(ts: u64, revision: u32, close: i64) -> Output {
        let words = BarWords {
            ts_open: ts - 1_000_000_000,
            open: 1_500_000_000,
            high: 3_000_000_000,
            low: -1,
            close,
            volume: [200_000_000, 0],
            buy_volume: [50_000_000, 0],
            notional: [300_000_000_000_000_000, 0],
            trades: 2,
            frame_first: 7,
            frame_last: 8,
            missing: 0,
            revision,
            first_trade: 0,
        };
        let (state, cause) =
            if revision > 0 { (BarState::Amended, Cause::Late) } else { (BarState::Final, Cause::Watermark) };
        Output {
            name: 1,
            ts,
            sequence: 3,
            kind: output_kind::BAR,
            state: state as u8,
            cause: cause as u8,
            words: words.to_words(),
            ..Output::default()
        }
    }

    fn write(format: ResultFormat, revisions: Revisions) -> (tempfile::TempDir, Vec<FileSummary>) {
        let folder = tempfile::tempdir().unwrap();
        let streams = streams();
        let target = folder.path().join("new/folder");
        let mut writer = {
            let bars = BarRows { revisions, horizon_ns: 2_000_000_000, disorder_ns: 0 };
            ResultWriter::create(&target, &streams, format, bars).unwrap()
        };
        writer.record(&streams[0], "A,B", &bar(1_000_000_000, 0, 2_000_000_000)).unwrap();
        writer.record(&streams[0], "A,B", &bar(1_000_000_000, 1, 2_250_000_000)).unwrap();
        writer.record(&streams[0], "A,B", &bar(9_000_000_000, 0, 2_500_000_000)).unwrap();
        let mut values =
            Output { kind: output_kind::VALUES, count: 2, ts: 1_000_000_000, ..Output::default() };
        values.words[..2].copy_from_slice(&[f64::NAN.to_bits(), 1.5f64.to_bits()]);
        writer.record(&streams[1], "A,B", &values).unwrap();
        let mut host = Output { kind: output_kind::HOST, count: 2, ts: 60_000_000_000, ..Output::default() };
        host.words[..2].copy_from_slice(&[0, 12]);
        writer.record(&streams[2], "10.0.0.1", &host).unwrap();
        let mut late = Output { kind: output_kind::LATE, count: 5, ts: 5, ..Output::default() };
        late.words[..5].copy_from_slice(&[5, 1_500_000_000, 100_000_000, 1, 9]);
        writer.record(&streams[0], "A,B", &late).unwrap();
        let summaries = writer.finish().unwrap();
        (folder, summaries)
    }

    fn text(folder: &tempfile::TempDir, file: &str) -> String {
        std::fs::read_to_string(folder.path().join("new/folder").join(file)).unwrap()
    }

    #[test]
    fn csv_is_exact() {
        let (folder, summaries) = write(ResultFormat::Csv, Revisions::All);
        let names: Vec<_> = summaries.iter().map(|file| (file.stream.as_str(), file.rows)).collect();
        assert_eq!(names, [("bars.1s", 3), ("bars.1s.late", 1), ("ind.1s", 1), ("hosts.1m", 1)]);
        assert_eq!(
            text(&folder, "bars.1s.csv"),
            "symbol,ts_open,ts_close,open,high,low,close,volume,buy_volume,vwap,trades,revision,state,cause,\
             frame_first,frame_last,missing\n\
             \"A,B\",0,1000000000,1.5,3,-0.000000001,2,2,0.5,1.5,2,0,final,watermark,7,8,0\n\
             \"A,B\",0,1000000000,1.5,3,-0.000000001,2.25,2,0.5,1.5,2,1,amended,late,7,8,0\n\
             \"A,B\",8000000000,9000000000,1.5,3,-0.000000001,2.5,2,0.5,1.5,2,0,final,watermark,7,8,0\n"
        );
        assert_eq!(text(&folder, "ind.1s.csv"), "symbol,ts_close,rsi_14,ema_2\n\"A,B\",1000000000,,1.5\n");
        assert_eq!(
            text(&folder, "hosts.1m.csv"),
            "host,ts_open,ts_close,packets\n10.0.0.1,0,60000000000,12\n"
        );
        assert_eq!(
            text(&folder, "bars.1s.late.csv"),
            "symbol,ts_event,price,size,flags,frame\n\"A,B\",5,1.5,1,1,9\n"
        );
    }

    #[test]
    fn json_lines_are_json() {
        let (folder, _) = write(ResultFormat::Jsonl, Revisions::All);
        let lines = |file| -> Vec<serde_json::Value> {
            text(&folder, file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let bars = lines("bars.1s.jsonl");
        assert_eq!(bars.len(), 3);
        assert_eq!((bars[1]["k"].as_str(), bars[1]["c"].as_str()), (Some("A,B"), Some("2.25")));
        assert_eq!((bars[1]["rev"].as_u64(), bars[1]["x"].as_bool()), (Some(1), Some(true)));
        let values = &lines("ind.1s.jsonl")[0];
        assert!(values["rsi_14"].is_null() && values["ema_2"] == 1.5, "{values}");
        assert_eq!(lines("hosts.1m.jsonl")[0]["packets"], 12);
        assert_eq!(lines("bars.1s.late.jsonl")[0]["p"], "1.5");
    }

    #[test]
    fn only_the_last_revision_is_written_when_asked() {
        let (folder, summaries) = write(ResultFormat::Csv, Revisions::Final);
        assert_eq!(summaries[0].rows, 2);
        let bars = text(&folder, "bars.1s.csv");
        let closes: Vec<_> = bars.lines().skip(1).map(|row| row.rsplit(',').nth(10).unwrap()).collect();
        assert_eq!(closes, ["2.25", "2.5"]);
    }

    #[test]
    fn parquet_reads_back_as_a_table() {
        let (folder, summaries) = write(ResultFormat::Parquet, Revisions::All);
        assert!(summaries.iter().all(|file| file.bytes > 0 && file.path.exists()));
        let map = "ts=ts_close,symbol=symbol,price=close,size=volume".parse().unwrap();
        let path = folder.path().join("new/folder/bars.1s.parquet");
        let mut source = open(&path, &ReadOptions { map, ..ReadOptions::default() }).unwrap();
        let mut events = Vec::new();
        while source.read(&mut events, 100).unwrap() > 0 {}
        let closes: Vec<_> = events.iter().map(|event| (event.ts_event, event.price())).collect();
        assert_eq!(closes[1], (1_000_000_000, 2_250_000_000));
        assert_eq!(source.names().name(0).map(|name| &**name), Some("A,B"));
    }

    #[test]
    fn a_folder_that_cannot_be_is_a_typed_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error =
            ResultWriter::create(&file, &streams(), ResultFormat::Csv, BarRows::default()).err().unwrap();
        assert!(matches!(error, OutputError::Create { .. }), "{error}");
    }
}
