//! Reading captures and flow logs on behalf of `flows` and `detect`.

use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::render::{Ui, thousands};
use std::path::Path;
use tidegate_flow::{FlowTable, TableCounts};
use tidegate_replay::decode::{ReadOptions, Traffic, TrafficReader};
use tidegate_replay::{ReadAccount, ReadError, RejectCause};

/// Units read between two looks at Ctrl-C and the bar.
const STEP: usize = 16_384;

/// What was read of a file.
pub(crate) struct Read {
    pub(crate) format: &'static str,
    pub(crate) account: ReadAccount,
    /// Why reading ended before the file did.
    pub(crate) ended_early: Option<ReadError>,
}

/// Gives everything in a file to `take`, until its end, a damage, or Ctrl-C.
pub(crate) fn read(
    path: &Path,
    options: &ReadOptions,
    interrupt: &Interrupt,
    ui: &Ui,
    mut take: impl FnMut(Traffic<'_>),
) -> Result<Read, Failure> {
    let mut reader = TrafficReader::open(path, options)?;
    let bar = Bar::new(ui, "reading", reader.progress().bytes_total);
    let mut ended_early = None;
    while !interrupt.raised() {
        match reader.read(STEP, &mut take) {
            Ok(true) => bar.at(reader.progress().bytes, ""),
            Ok(false) => break,
            Err(error) => {
                ended_early = Some(error);
                break;
            }
        }
    }
    Ok(Read { format: reader.format(), account: reader.account().clone(), ended_early })
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
