//! Reading captures and flow logs on behalf of `flows` and `detect`.

use crate::cli::TrafficArgs;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::render::{Ui, thousands};
use std::path::Path;
use tidegate_flow::packet::{Fragment, protocol};
use tidegate_flow::{Collector, CollectorCounts, CollectorOptions, FlowTable, Frame, TableCounts};
use tidegate_replay::decode::{Traffic, TrafficReader};
use tidegate_replay::{ReadAccount, ReadError, RejectCause};

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

/// Gives everything in a file to `take`, until its end, a damage, or Ctrl-C.
pub(crate) fn read(
    path: &Path,
    args: &TrafficArgs,
    interrupt: &Interrupt,
    ui: &Ui,
    mut take: impl FnMut(Traffic<'_>),
) -> Result<Read, Failure> {
    let mut reader = TrafficReader::open(path, &args.options())?;
    let mut exports = args
        .exports
        .as_ref()
        .map(|ports| (&ports.0, Collector::new(CollectorOptions { sampling: args.sampling })));
    let mut sort = |traffic: Traffic<'_>| match (&mut exports, traffic) {
        (Some((ports, collector)), Traffic::Frame(frame)) => {
            if let Frame::Ip(packet) = frame
                && packet.protocol == protocol::UDP
                && packet.fragment == Fragment::Whole
                && ports.contains(&packet.target_port)
            {
                // What is no export is counted by the collector.
                let _ =
                    collector.datagram(packet.source, packet.number, packet.ts, packet.payload, |record| {
                        take(Traffic::Record(*record));
                    });
            }
        }
        (_, traffic) => take(traffic),
    };
    let bar = Bar::new(ui, "reading", reader.progress().bytes_total);
    let mut ended_early = None;
    while !interrupt.raised() {
        match reader.read(STEP, &mut sort) {
            Ok(true) => bar.at(reader.progress().bytes, ""),
            Ok(false) => break,
            Err(error) => {
                ended_early = Some(error);
                break;
            }
        }
    }
    let exports = exports.map(|(_, mut collector)| {
        collector.finish(|record| take(Traffic::Record(*record)));
        collector.counts()
    });
    Ok(Read { format: reader.format(), account: reader.account().clone(), exports, ended_early })
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
        let what = if read.format == "eve" { "lines are no flows" } else { "packets are neither IP nor ARP" };
        ui.note(&format!("{} {what}", thousands(foreign)));
    }
    if let Some(exports) = &read.exports {
        export_notes(exports, ui);
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
