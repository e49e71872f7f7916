//! `pcap/*` -> `pcap/alerts.csv`: `file,source,kind,time`, one row per episode. Each file is judged by itself.

use crate::{YardstickError, create};
use anyhow::Context;
use std::path::Path;
use tidegate_flow::{Detectors, FlowTable, Frame, TableOptions};
use tidegate_replay::decode::{ReadOptions, Traffic, TrafficReader};
use tidegate_replay::{ReadError, RejectCause};

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let folder = data.join("pcap");
    let listed = std::fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut files = listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    let mut table = create(&out.join("pcap"), "alerts.csv")?;
    table.write_record(["file", "source", "kind", "time"])?;
    let mut judged = 0;
    for path in &files {
        let mut reader = match TrafficReader::open(path, &ReadOptions::default()) {
            Ok(reader) => reader,
            // Labels and notes lie beside the captures.
            Err(ReadError::UnknownFormat { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        judged += 1;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for (source, kind, ns) in judge(&mut reader)? {
            table.write_record([
                name.as_str(),
                &source,
                kind,
                &format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
            ])?;
        }
        let refused = reader.account().refused(RejectCause::Malformed);
        if refused > 0 {
            println!("note: {name}: {refused} packets are malformed");
        }
    }
    table.flush()?;
    if judged == 0 {
        return Err(YardstickError::NoInput { wanted: "capture or conn.log", folder }.into());
    }
    Ok(1)
}

fn judge(reader: &mut TrafficReader) -> anyhow::Result<Vec<(String, &'static str, u64)>> {
    let mut table = FlowTable::new(TableOptions::default());
    let mut detectors = Detectors::default();
    while reader.read(10_000, |traffic| match traffic {
        Traffic::Frame(Frame::Ip(packet)) => table.packet(&packet, &mut detectors),
        Traffic::Frame(Frame::Arp(arp)) => detectors.arp(&arp),
        Traffic::Frame(Frame::Other) => {}
        Traffic::Record(record) => detectors.logged(&record),
    })? {}
    table.finish(&mut detectors);
    Ok(detectors
        .alerts()
        .iter()
        .map(|alert| (alert.source.to_string(), alert.kind.name(), alert.raised_ns))
        .collect())
}
