//! Reading captures and flow logs on behalf of `flows` and `detect`.

use crate::cli::TrafficArgs;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::judge::Judge;
use crate::packets::{self, Packets};
use crate::progress::Bar;
use crate::recorded::{self, Recorded};
use crate::render::{Ui, thousands};
use crate::tabular::{self, Cells, Spec};
use std::path::Path;
use tidegate_alert::Finding;
use tidegate_flow::packet::{Fragment, protocol};
use tidegate_flow::{
    Collector, CollectorCounts, CollectorOptions, FlowRecord, FlowTable, Frame, TableCounts,
};
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
    /// What exports inside it told, where those were asked for.
    pub(crate) exports: Option<CollectorCounts>,
    /// Why reading ended before the file did.
    pub(crate) ended_early: Option<ReadError>,
}

/// How a file is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    pub(crate) options: ReadOptions,
    /// Ports whose datagrams are exports, read for what they tell.
    pub(crate) exports: Option<Vec<u16>>,
    /// One in so many packets was looked at, where exporters do not say.
    pub(crate) sampling: Option<u32>,
    /// Of a recording that goes on, what is meant.
    pub(crate) bytes: Option<u64>,
    /// A table of edges or records in place of traffic.
    pub(crate) table: Option<Spec>,
    /// One in so many ordinary edges between hosts may be told.
    pub(crate) edges: Option<u32>,
    /// Who ends the reading of a pipe.
    pub(crate) interrupt: Option<Interrupt>,
}

impl Reading {
    /// As the command line asks for it.
    pub(crate) fn of(args: &TrafficArgs) -> Self {
        let exports = args.exports.as_ref().map(|ports| ports.0.clone());
        Self { options: args.options(), exports, sampling: args.sampling, ..Self::default() }
    }
}

/// What a source gives.
#[derive(Clone, Copy)]
pub(crate) enum Unit<'a> {
    /// A packet, or a connection of a flow log.
    Traffic(Traffic<'a>),
    /// A row of another log, for rules.
    Row(&'a Record),
    /// A row of a table of edges or records.
    Cells(&'a Cells<'a>),
    /// Until this instant (ns since 1970) nothing came.
    Pause(u64),
}

impl Unit<'_> {
    /// Gives it to a judge.
    pub(crate) fn give(&self, judge: &mut Judge, found: impl FnMut(Finding)) {
        match self {
            Self::Traffic(traffic) => judge.take(traffic, found),
            Self::Row(record) => judge.row(record, found),
            Self::Cells(cells) => judge.cell(cells, found),
            Self::Pause(now) => judge.pause(*now, found),
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
            Self::Cells(cells) => Some(cells.number()),
            Self::Pause(_) => None,
        }
    }
}

/// A file that is read: traffic, or where there are rules, also a log that only they understand.
pub(crate) enum Source {
    Traffic { reader: Box<TrafficReader>, exports: Option<Box<(Vec<u16>, Collector)>> },
    Recorded(Box<Recorded>),
    Packets(Box<Packets>),
    Table(Box<tabular::Reader>),
    Rows { lines: Box<LineReader>, rows: Box<Rows>, options: Box<ReadOptions> },
}

/// Lines that a log has shown by what it is.
const HEADER_LINES_MAX: usize = 64;

impl Source {
    /// Opens a file.
    pub(crate) fn open(path: &Path, reading: &Reading, rules: bool) -> Result<Self, Failure> {
        let options = &reading.options;
        if let Some(spec) = &reading.table {
            return Ok(Self::Table(Box::new(tabular::Reader::open(
                path,
                spec,
                options,
                reading.interrupt.as_ref(),
            )?)));
        }
        if options.format.is_none() && recorded::is_one(path) {
            return Ok(Self::Recorded(Box::new(Recorded::open(path, reading.bytes, options)?)));
        }
        if options.format.is_none() && packets::is_one(path) {
            return Ok(Self::Packets(Box::new(Packets::open(path, reading.bytes, options)?)));
        }
        let text = options.format.is_none_or(|format| matches!(format, Format::Zeek | Format::Eve));
        if rules && text && only_rules_read(path, options)? {
            let lines = Box::new(LineReader::open(path, options)?);
            return Ok(Self::Rows { lines, rows: Box::default(), options: Box::new(options.clone()) });
        }
        let collector = || Collector::new(CollectorOptions { sampling: reading.sampling });
        let exports = reading.exports.as_ref().map(|ports| Box::new((ports.clone(), collector())));
        Ok(Self::Traffic { reader: Box::new(TrafficReader::open(path, options)?), exports })
    }

    /// Gives about `max` units to `take`. False once the input has ended.
    pub(crate) fn read(&mut self, max: usize, mut take: impl FnMut(Unit<'_>)) -> Result<bool, ReadError> {
        match self {
            Self::Traffic { reader, exports } => {
                reader.read(max, |traffic| match (exports.as_deref_mut(), traffic) {
                    (Some((ports, collector)), Traffic::Frame(frame)) => {
                        if let Frame::Ip(packet) = frame
                            && packet.protocol == protocol::UDP
                            && packet.fragment == Fragment::Whole
                            && ports.contains(&packet.target_port)
                        {
                            let give = |record: &FlowRecord| take(Unit::Traffic(Traffic::Record(*record)));
                            // What is no export is counted by the collector.
                            let _ = collector.datagram(
                                packet.source,
                                packet.number,
                                packet.ts,
                                packet.payload,
                                give,
                            );
                        }
                    }
                    (_, traffic) => take(Unit::Traffic(traffic)),
                })
            }
            Self::Recorded(recorded) => {
                recorded.read(max, |record| take(Unit::Traffic(Traffic::Record(*record))))
            }
            Self::Packets(packets) => packets.read(max, take),
            Self::Table(reader) => reader.read(max, |cells| take(Unit::Cells(cells))),
            Self::Rows { lines, rows, options } => lines.read(max, |number, line| {
                fate(rows, options, number, line, |record| take(Unit::Row(record)))
            }),
        }
    }

    /// The input has ended: gives what exports were still waiting for their other direction, and what became of all of them.
    pub(crate) fn finish(&mut self, mut take: impl FnMut(Unit<'_>)) -> Option<CollectorCounts> {
        if let Self::Table(reader) = self {
            reader.finish(|cells| take(Unit::Cells(cells)));
        }
        let Self::Traffic { exports: Some(exports), .. } = self else { return None };
        exports.1.finish(|record| take(Unit::Traffic(Traffic::Record(*record))));
        Some(exports.1.counts())
    }

    fn format(&self) -> &'static str {
        match self {
            Self::Traffic { reader, .. } => reader.format(),
            Self::Recorded(_) => "recorded flows",
            Self::Packets(_) => "recorded packets",
            Self::Table(reader) => reader.what().name(),
            Self::Rows { rows, .. } => rows.form().map_or("log", Form::name),
        }
    }

    fn account(&self) -> &ReadAccount {
        match self {
            Self::Traffic { reader, .. } => reader.account(),
            Self::Recorded(recorded) => recorded.account(),
            Self::Packets(packets) => packets.account(),
            Self::Table(reader) => reader.account(),
            Self::Rows { lines, .. } => lines.account(),
        }
    }

    fn progress(&self) -> Progress {
        match self {
            Self::Traffic { reader, .. } => reader.progress(),
            Self::Recorded(recorded) => recorded.progress(),
            Self::Packets(packets) => packets.progress(),
            Self::Table(reader) => reader.progress(),
            Self::Rows { lines, .. } => lines.progress(),
        }
    }
}

/// Whether the first lines show a log that rules read and detectors do not, or not all of: EVE, and Zeek's other than `conn.log`.
fn only_rules_read(path: &Path, options: &ReadOptions) -> Result<bool, ReadError> {
    let mut rows = Rows::default();
    let mut lines = LineReader::open(path, &ReadOptions { strict: false, ..options.clone() })?;
    for _ in 0..HEADER_LINES_MAX {
        let more = lines.read(1, |number, line| fate(&mut rows, options, number, line, |_| {}))?;
        let settled = rows.form().is_some_and(|form| form != Form::ZeekColumns || rows.has_columns());
        if !more || settled {
            break;
        }
    }
    Ok(rows.form().is_some() && !rows.is_conn())
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
    reading: &Reading,
    rules: bool,
    interrupt: &Interrupt,
    ui: &Ui,
    mut take: impl FnMut(Unit<'_>),
) -> Result<Read, Failure> {
    let mut source = Source::open(path, reading, rules)?;
    let bar = Bar::new(ui, "reading", source.progress().bytes_total);
    let mut ended_early = None;
    while !interrupt.raised() {
        match source.read(STEP, &mut take) {
            Ok(true) => bar.at(source.progress().bytes, ""),
            Ok(false) => break,
            // A pipe that nobody wants to wait for any more has not failed.
            Err(_) if reading.interrupt.is_some() && interrupt.raised() => break,
            Err(error) => {
                ended_early = Some(error);
                break;
            }
        }
    }
    let exports = source.finish(&mut take);
    if let Source::Table(reader) = &source {
        // What is wrong with all of a table is known once its first rows were looked at, which may be at the end.
        ended_early = ended_early.or(reader.problem());
        if let Some(said) = reader.said() {
            ui.note(&said);
        }
    }
    Ok(Read { format: source.format(), account: source.account().clone(), exports, ended_early })
}

/// What must be said of the reading, in words.
pub(crate) fn notes(read: &Read, counts: TableCounts, ui: &Ui) {
    account_notes(&read.account, read.format, ui);
    if let Some(exports) = &read.exports {
        export_notes(exports, ui);
    }
    table_notes(counts, ui);
}

/// What could not be read, in words.
pub(crate) fn account_notes(account: &ReadAccount, format: &str, ui: &Ui) {
    let faults = account.faults();
    if faults > 0 {
        let examples = account.examples.iter();
        let example = examples.map(|(_, place, why)| format!("{place}: {why}")).next().unwrap_or_default();
        ui.note(&format!(
            "{} of {} units cannot be read; the first: {example}",
            thousands(faults),
            thousands(account.units)
        ));
    }
    let foreign = account.refused(RejectCause::NotAnEvent);
    if foreign > 0 {
        let what = if format == "eve" { "lines are no flows" } else { "packets are neither IP nor ARP" };
        ui.note(&format!("{} {what}", thousands(foreign)));
    }
}

/// What the flow table had to do, in words.
pub(crate) fn table_notes(counts: TableCounts, ui: &Ui) {
    if counts.evicted > 0 {
        ui.note(&format!(
            "the table was full: {} flows were ended early (--flows-max)",
            thousands(counts.evicted)
        ));
    }
    if counts.disordered > 0 {
        ui.note(&format!("{} packets are older than one before", thousands(counts.disordered)));
    }
    if counts.unbelieved > 0 {
        ui.note(&format!(
            "{} packets are stamped more than an hour ahead of their neighbours",
            thousands(counts.unbelieved)
        ));
    }
    if counts.steps > 0 {
        ui.note(&format!(
            "the clock was set back by more than an hour ({} times): flows ended there",
            thousands(counts.steps)
        ));
    }
    if counts.orphan_fragments > 0 {
        ui.note(&format!(
            "{} fragments came without the first of their packet",
            thousands(counts.orphan_fragments)
        ));
    }
}

/// What must be said of exports, in words.
pub(crate) fn export_notes(counts: &CollectorCounts, ui: &Ui) {
    ui.note(&format!(
        "exports: {} datagrams, {} records, {} flows",
        thousands(counts.datagrams),
        thousands(counts.records),
        thousands(counts.flows)
    ));
    let what = [
        (counts.malformed, "datagrams, sets or records cannot be read"),
        (counts.without_template, "sets came before their template, or after it was forgotten"),
        (counts.lost, "records, datagrams or samples are missing by their sequence"),
        (counts.late, "datagrams came behind their turn"),
        (counts.restarts, "exporters began anew"),
        (counts.skewed, "datagrams had a clock more than an hour off and count as of their arrival"),
        (counts.templates_refused, "templates were refused for their size"),
        (counts.forgotten, "exporters or templates were forgotten for lack of room"),
        (counts.hurried, "flows did not wait for their other direction, for lack of room"),
        (counts.sampling_unknown, "records do not say how they were sampled (--sampling)"),
        (counts.foreign, "records are not about flows of IP"),
    ];
    for (count, text) in what {
        if count > 0 {
            ui.note(&format!("{} {text}", thousands(count)));
        }
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
