//! Reading captures and flow logs on behalf of `flows` and `detect`.

use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::judge::Judge;
use crate::progress::Bar;
use crate::render::{Ui, thousands};
use std::path::Path;
use tidegate_alert::Finding;
use tidegate_flow::{FlowTable, Frame, TableCounts};
use tidegate_replay::decode::{Format, LineFate, LineReader, ReadOptions, Traffic, TrafficReader};
use tidegate_replay::{Progress, ReadAccount, ReadError, RejectCause};
use tidegate_rules::rows::Form;
use tidegate_rules::{Record, Rows};

/// Units read between two looks at Ctrl-C and the bar.
const STEP: usize = 16_384;

/// What was read of a file.
pub(crate) struct Read {
    pub(crate) format: &'static str,
    pub(crate) account: ReadAccount,
    /// Why reading ended before the file did.
    pub(crate) ended_early: Option<ReadError>,
}

/// What a source gives.
#[derive(Clone, Copy)]
pub(crate) enum Unit<'a> {
    /// A packet, or a connection of a flow log.
    Traffic(Traffic<'a>),
    /// A row of another log, for rules.
    Row(&'a Record),
}

impl Unit<'_> {
    /// Gives it to a judge.
    pub(crate) fn give(&self, judge: &mut Judge, found: impl FnMut(Finding)) {
        match self {
            Self::Traffic(traffic) => judge.take(traffic, found),
            Self::Row(record) => judge.row(record, found),
        }
    }

    /// Its place in the input, from 1.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Traffic(Traffic::Frame(Frame::Ip(packet))) => Some(packet.number),
            Self::Traffic(Traffic::Frame(Frame::Arp(arp))) => Some(arp.number),
            Self::Traffic(Traffic::Frame(Frame::Other)) => None,
            Self::Traffic(Traffic::Record(record)) => Some(record.packets.0),
            Self::Row(record) => Some(record.units.0),
        }
    }
}

/// A file that is read: traffic, or where there are rules, also a log that only they understand.
pub(crate) enum Source {
    Traffic(Box<TrafficReader>),
    Rows { lines: Box<LineReader>, rows: Rows, options: ReadOptions },
}

/// Lines that a log has shown by what it is.
const HEADER_LINES_MAX: usize = 64;

impl Source {
    /// Opens a file.
    pub(crate) fn open(path: &Path, options: &ReadOptions, rules: bool) -> Result<Self, Failure> {
        if rules && options.format.is_none_or(|format| matches!(format, Format::Zeek | Format::Eve)) {
            let mut rows = Rows::default();
            let look = |rows: &mut Rows| -> Result<bool, ReadError> {
                let mut lines = LineReader::open(path, &ReadOptions { strict: false, ..options.clone() })?;
                let mut left = HEADER_LINES_MAX;
                while left > 0 && lines.read(1, |number, line| fate(rows, options, number, line, |_| {}))? {
                    let settled = match rows.form() {
                        None => false,
                        Some(Form::ZeekColumns) => rows.has_columns(),
                        Some(_) => true,
                    };
                    left = if settled { 0 } else { left - 1 };
                }
                Ok(rows.form().is_some() && !rows.is_conn())
            };
            if look(&mut rows)? {
                let lines = Box::new(LineReader::open(path, options)?);
                return Ok(Self::Rows { lines, rows: Rows::default(), options: options.clone() });
            }
        }
        Ok(Self::Traffic(Box::new(TrafficReader::open(path, options)?)))
    }

    /// Gives about `max` units to `take`. False once the input has ended.
    pub(crate) fn read(&mut self, max: usize, mut take: impl FnMut(Unit<'_>)) -> Result<bool, ReadError> {
        match self {
            Self::Traffic(reader) => reader.read(max, |traffic| take(Unit::Traffic(traffic))),
            Self::Rows { lines, rows, options } => lines.read(max, |number, line| {
                fate(rows, options, number, line, |record| take(Unit::Row(record)))
            }),
        }
    }

    fn format(&self) -> &'static str {
        match self {
            Self::Traffic(reader) => reader.format(),
            Self::Rows { rows, .. } => rows.form().map_or("log", Form::name),
        }
    }

    fn account(&self) -> &ReadAccount {
        match self {
            Self::Traffic(reader) => reader.account(),
            Self::Rows { lines, .. } => lines.account(),
        }
    }

    fn progress(&self) -> Progress {
        match self {
            Self::Traffic(reader) => reader.progress(),
            Self::Rows { lines, .. } => lines.progress(),
        }
    }
}

/// Reads a line; a row between the instants asked for goes to `take`.
fn fate(
    rows: &mut Rows,
    options: &ReadOptions,
    number: u64,
    line: &[u8],
    mut take: impl FnMut(&Record),
) -> LineFate {
    match rows.line(line, number) {
        None => LineFate::NoUnit,
        Some(Err(why)) => LineFate::Malformed(why),
        Some(Ok(record)) => {
            if LineReader::wants(options, record.ts) {
                take(&record);
            }
            LineFate::Row(record.ts)
        }
    }
}

/// Gives everything in a file to `take`, until its end, a damage, or Ctrl-C.
pub(crate) fn read(
    path: &Path,
    options: &ReadOptions,
    rules: bool,
    interrupt: &Interrupt,
    ui: &Ui,
    mut take: impl FnMut(Unit<'_>),
) -> Result<Read, Failure> {
    let mut source = Source::open(path, options, rules)?;
    let bar = Bar::new(ui, "reading", source.progress().bytes_total);
    let mut ended_early = None;
    while !interrupt.raised() {
        match source.read(STEP, &mut take) {
            Ok(true) => bar.at(source.progress().bytes, ""),
            Ok(false) => break,
            Err(error) => {
                ended_early = Some(error);
                break;
            }
        }
    }
    Ok(Read { format: source.format(), account: source.account().clone(), ended_early })
}

/// What must be said of the reading, in words.
pub(crate) fn notes(read: &Read, counts: TableCounts, ui: &Ui) {
    let faults = read.account.faults();
    if faults > 0 {
        let examples = read.account.examples.iter();
        let example = examples.map(|(_, place, why)| format!("{place}: {why}")).next().unwrap_or_default();
        ui.note(&format!(
            "{} of {} units cannot be read; the first: {example}",
            thousands(faults),
            thousands(read.account.units)
        ));
    }
    let foreign = read.account.refused(RejectCause::NotAnEvent);
    if foreign > 0 {
        ui.note(&format!("{} packets are neither IP nor ARP", thousands(foreign)));
    }
    if counts.evicted > 0 {
        ui.note(&format!(
            "the table was full: {} flows were ended early (--flows-max)",
            thousands(counts.evicted)
        ));
    }
    if counts.disordered > 0 {
        ui.note(&format!("{} packets are older than one before", thousands(counts.disordered)));
    }
    if counts.orphan_fragments > 0 {
        ui.note(&format!(
            "{} fragments came without the first of their packet",
            thousands(counts.orphan_fragments)
        ));
    }
}

/// An empty table of so many flows.
pub(crate) fn table(flows_max: u32, interim_ns: u64) -> FlowTable {
    FlowTable::new(tidegate_flow::TableOptions {
        flows_max: flows_max as usize,
        interim_ns,
        ..tidegate_flow::TableOptions::default()
    })
}
