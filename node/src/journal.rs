//! `tidegate journal`: what a journal holds, whether it is sound, and its events as something else.

pub(crate) mod place;
mod snapshots;

use crate::cli::{JournalCommand, JournalExportArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::record::{finish, part_of};
use crate::render::{Table, Tone, Ui, bytes, clean, duration, instant, thousands};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;
use tidegate_engine::{Event, kind};
use tidegate_journal::format::hex;
use tidegate_journal::scan::begin;
use tidegate_journal::{BatchView, Disk, Entry, Point, Scan, ScanError, Storage, Tail, scan, scan_from};
use tidegate_live::SavedNames;
use tidegate_replay::capture::{CaptureOptions, CaptureWriter, WriteError};

pub(crate) fn run(command: &JournalCommand, ui: &Ui) -> Outcome {
    match command {
        JournalCommand::Inspect { folder, json } => inspect(&place::find(folder, ui)?, *json, ui),
        JournalCommand::Verify { folder, json } => verify(&place::find(folder, ui)?, *json, ui),
        JournalCommand::Export(args) => export(&place::find(&args.folder, ui)?, args, ui),
    }
}

/// What was found on the way.
#[derive(Default)]
struct Found {
    entries: BTreeMap<&'static str, u64>,
    events: BTreeMap<u8, u64>,
    sources: BTreeMap<u16, Source>,
    batches: u64,
    bytes: u64,
    first_ns: Option<u64>,
    last_ns: u64,
    epochs: Option<(u32, u32)>,
}

#[derive(Default)]
struct Source {
    name: String,
    source_id: u64,
    session: u64,
    principal: String,
    names: u64,
    events: u64,
    last: u64,
    lost: u64,
}

impl Found {
    fn see(&mut self, view: &BatchView<'_>) {
        self.batches += 1;
        self.bytes += view.info.extent() as u64;
        self.first_ns.get_or_insert(view.info.ingest_ns);
        self.last_ns = self.last_ns.max(view.info.ingest_ns);
        let epoch = view.info.epoch;
        self.epochs = Some(self.epochs.map_or((epoch, epoch), |(first, _)| (first, epoch)));
        for entry in view.entries().flatten() {
            *self.entries.entry(entry.kind()).or_default() += entry.records();
            match entry {
                Entry::Source { rank, source_id, session, name, principal, .. } => {
                    let source = self.sources.entry(rank).or_default();
                    if source.session != session {
                        source.last = 0;
                    }
                    (source.source_id, source.session) = (source_id, session);
                    (source.name, source.principal) = (name.to_owned(), principal.to_owned());
                }
                Entry::Names { rank, overflowed, names, .. } => {
                    self.sources.entry(rank).or_default().names +=
                        u64::from(overflowed) + names.count() as u64;
                }
                Entry::Events { rank, sequence, events, .. } => {
                    let source = self.sources.entry(rank).or_default();
                    source.events += events.len() as u64;
                    source.last = sequence + events.len() as u64 - 1;
                    for event in events.iter() {
                        *self.events.entry(event.kind).or_default() += 1;
                    }
                }
                Entry::Lost { rank, last, count } => {
                    let source = self.sources.entry(rank).or_default();
                    (source.last, source.lost) = (last, source.lost + count);
                }
                _ => {}
            }
        }
    }
}

/// A folder as one opens it; the error names it.
fn open(folder: &Path) -> Result<Disk, Failure> {
    Disk::open_read_only(folder)
        .map_err(|error| Failure::new(Exit::Input, anyhow::anyhow!("{}: {error}", folder.display())))
}

/// Reads all of it with a bar.
fn read(
    folder: &Path,
    ui: &Ui,
    mut see: impl FnMut(&BatchView<'_>),
) -> Result<Result<Scan, ScanError>, Failure> {
    let mut disk = open(folder)?;
    let indexes = disk.segments().unwrap_or_default();
    let total = indexes.iter().map(|index| disk.bytes(*index).unwrap_or(0)).sum();
    let bar = Bar::new(ui, "reading", total);
    let mut done = 0;
    let found = scan(&mut disk, |view| {
        done += view.info.extent() as u64;
        bar.at(done, "");
        see(&view);
        ControlFlow::Continue(())
    });
    bar.clear();
    Ok(match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => return Err(Failure::internal("the journal's segments went away while it was read")),
        Err(error) => Err(error),
    })
}

fn tail_text(tail: &Tail) -> String {
    match tail {
        Tail::Clean => "clean".to_owned(),
        Tail::Torn { segment, at, bytes: torn } => format!(
            "torn: {} at byte {at} of segment {segment} were being written; cut off at the next start",
            bytes(*torn)
        ),
    }
}

fn tail_json(tail: &Tail) -> Value {
    match tail {
        Tail::Clean => json!({ "state": "clean" }),
        Tail::Torn { segment, at, bytes } => {
            json!({ "state": "torn", "segment": segment, "at": at, "bytes": bytes })
        }
    }
}

fn damage_json(error: &ScanError) -> Value {
    match error {
        ScanError::Damage(damage) => json!({
            "segment": damage.segment, "at": damage.at, "offset": damage.offset, "what": damage.what.to_string(),
        }),
        error => json!({ "what": with_cause(error) }),
    }
}

fn with_cause(error: &ScanError) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn inspect(folder: &Path, as_json: bool, ui: &Ui) -> Outcome {
    let mut found = Found::default();
    let result = read(folder, ui, |view| found.see(view))?;
    let listed = snapshots::look(folder, result.as_ref().ok())?;
    if as_json {
        let sources: Vec<Value> = found.sources.iter().map(|(rank, source)| {
            json!({
                "rank": rank, "name": source.name, "source_id": source.source_id, "session": source.session,
                "principal": source.principal, "names": source.names, "events": source.events,
                "last": source.last, "lost": source.lost,
            })
        }).collect();
        let kinds: serde_json::Map<_, _> = found
            .events
            .iter()
            .map(|(kind, count)| (kind::name(*kind).to_owned(), (*count).into()))
            .collect();
        let mut value = json!({
            "path": folder.display().to_string(), "batches": found.batches, "bytes_used": found.bytes,
            "entries": found.entries, "kinds": kinds, "sources": sources,
            "first_ns": found.first_ns, "last_ns": found.first_ns.map(|_| found.last_ns),
            "snapshots": snapshots::to_json(&listed),
        });
        if let Some(object) = value.as_object_mut() {
            match &result {
                Ok(scan) => object.extend(scan_json(scan)),
                Err(error) => drop(object.insert("damage".to_owned(), damage_json(error))),
            }
        }
        ui.print_json(&value);
    } else {
        let text = render(folder, &found, result.as_ref().ok(), ui);
        ui.print(&(text + &snapshots::render(&listed, ui)));
    }
    match result {
        Ok(_) => Ok(Exit::Ok),
        Err(error) => {
            Err(Failure::new(Exit::Input, anyhow::Error::from(error).context(folder.display().to_string())))
        }
    }
}

fn scan_json(scan: &Scan) -> serde_json::Map<String, Value> {
    let segments: Vec<Value> = scan
        .segments
        .iter()
        .map(|segment| {
            json!({
                "index": segment.info.index, "first_offset": segment.info.first_offset,
                "end_offset": segment.end_offset, "bytes": segment.info.bytes, "used": segment.used,
                "batches": segment.batches, "created_ns": segment.info.created_ns,
            })
        })
        .collect();
    let value = json!({
        "lineage": format!("{:032x}", scan.lineage), "epoch": scan.epoch, "first_offset": scan.first_offset,
        "next_offset": scan.next_offset, "records": scan.records(), "chain": hex(&scan.chain),
        "tail": tail_json(&scan.tail), "segments": segments,
    });
    if let Value::Object(object) = value { object } else { serde_json::Map::new() }
}

fn render(folder: &Path, found: &Found, scan: Option<&Scan>, ui: &Ui) -> String {
    let mut text = format!("{}\n", ui.paint(Tone::Strong, &clean(&folder.display().to_string())));
    let mut facts = Table::facts();
    if let Some(scan) = scan {
        facts.fact("lineage", format!("{:032x}", scan.lineage));
        facts.fact(
            "records",
            format!(
                "{}, offsets {} to {}",
                thousands(scan.records()),
                thousands(scan.first_offset),
                thousands(scan.next_offset)
            ),
        );
        facts.fact("chain", hex(&scan.chain));
        let set_aside: u64 = scan.segments.iter().map(|segment| segment.info.bytes).sum();
        facts.fact("segments", format!("{}, {} set aside", scan.segments.len(), bytes(set_aside)));
    }
    facts.fact("batches", format!("{}, {}", thousands(found.batches), bytes(found.bytes)));
    for (kind, count) in &found.entries {
        facts.fact(&format!("  {kind}"), thousands(*count));
    }
    if let Some((first, last)) = found.epochs {
        facts.fact("epochs", if first == last { first.to_string() } else { format!("{first} to {last}") });
    }
    if let Some(first) = found.first_ns {
        facts.fact("accepted from", instant(first));
        facts.fact("accepted to", instant(found.last_ns));
        facts.fact("span", duration(found.last_ns - first));
    }
    if let Some(scan) = scan {
        facts.fact("end", tail_text(&scan.tail));
    }
    text += &facts.render(ui, 2);
    if !found.sources.is_empty() {
        let mut table =
            Table::new(&["source", "principal", ">session", ">names", ">events", ">last", ">lost"]);
        for source in found.sources.values() {
            table.row([
                &clean(&source.name),
                &clean(&source.principal),
                &source.session.to_string(),
                &thousands(source.names),
                &thousands(source.events),
                &thousands(source.last),
                &thousands(source.lost),
            ]);
        }
        text += &format!("\n{}", table.render(ui, 2));
    }
    text
}

fn verify(folder: &Path, as_json: bool, ui: &Ui) -> Outcome {
    let started = Instant::now();
    let mut records = 0;
    let result = read(folder, ui, |view| records += u64::from(view.info.count))?;
    let seconds = started.elapsed().as_secs_f64();
    let listed = snapshots::look(folder, result.as_ref().ok())?;
    if as_json {
        let mut value = json!({
            "path": folder.display().to_string(), "sound": result.is_ok(), "records_read": records, "seconds": seconds,
            "snapshots": snapshots::to_json(&listed),
        });
        if let Some(object) = value.as_object_mut() {
            match &result {
                Ok(scan) => object.extend(scan_json(scan)),
                Err(error) => drop(object.insert("damage".to_owned(), damage_json(error))),
            }
        }
        ui.print_json(&value);
    } else {
        ui.print(&match &result {
            Ok(scan) => format!(
                "sound: {} records in {} batches of {} segments, offsets {} to {}, chain {}, end {} ({:.1} M records/s)\n",
                thousands(scan.records()),
                thousands(scan.batches()),
                scan.segments.len(),
                thousands(scan.first_offset),
                thousands(scan.next_offset),
                hex(&scan.chain),
                tail_text(&scan.tail),
                records as f64 / seconds / 1e6,
            ),
            Err(error) => {
                format!("damaged: {}\n{} records in front of it are sound\n", with_cause(error), thousands(records))
            }
        });
        ui.print(&snapshots::render(&listed, ui));
    }
    Ok(match result {
        Ok(_) if !snapshots::sound(&listed) => Exit::Differs,
        Ok(_) => Exit::Ok,
        Err(ScanError::Damage(_)) => Exit::Differs,
        Err(_) => Exit::Input,
    })
}

/// What an export writes to.
enum Target {
    Lines(Box<dyn Write>),
    Capture {
        writer: Box<CaptureWriter>,
        keys: BTreeMap<u16, Vec<u32>>,
        overflow: Option<u32>,
        events: Vec<Event>,
    },
}

/// The name of events whose own is over a quota, as the server has it.
const OVERFLOW_NAME: &str = "(overflow)";

fn export(folder: &Path, args: &JournalExportArgs, ui: &Ui) -> Outcome {
    let io = |path: &Path, source| Failure::from(WriteError::Io { path: path.to_owned(), source });
    let mut from_point: Option<Point> = None;
    let mut target = match &args.out {
        None => Target::Lines(Box::new(BufWriter::new(std::io::stdout()))),
        Some(path) if path.extension().is_some_and(|extension| extension == "tgc") => {
            // A journal that lost its front has its names in its snapshots.
            let names = match begin(&mut open(folder)?) {
                Ok(Some((lineage, first @ 1..))) => {
                    let names = snapshots::names(folder, lineage, first)?;
                    from_point = Some(names.point);
                    ui.note(&format!(
                        "it begins at offset {}: what is in front of the oldest snapshot has no names any more",
                        thousands(names.point.offset)
                    ));
                    names.saved
                }
                _ => SavedNames::default(),
            };
            let mut writer = Box::new(CaptureWriter::create(part_of(path), CaptureOptions::default())?);
            let given: Vec<u32> =
                names.names.iter().map(|name| writer.define(name)).collect::<Result<_, _>>()?;
            let overflow = names.names.iter().position(|name| name == OVERFLOW_NAME);
            let keys = names.keys.iter().map(|keys| keys.iter().map(|key| given[*key as usize]).collect());
            Target::Capture {
                writer,
                keys: (0u16..).zip(keys).collect(),
                overflow: overflow.map(|at| given[at]),
                events: Vec::new(),
            }
        }
        Some(path) if path.extension().is_some_and(|extension| extension == "jsonl") => Target::Lines(
            Box::new(BufWriter::new(File::create(part_of(path)).map_err(|error| io(path, error))?)),
        ),
        Some(path) => {
            let text =
                format!("`{}`: the name ends in .tgc for a capture or in .jsonl for lines", path.display());
            return Err(Failure::usage(text));
        }
    };
    let interrupt = Interrupt::listen()?;
    let mut failed = None;
    let (mut written, most) = (0u64, args.count.unwrap_or(u64::MAX));
    let mut disk = open(folder)?;
    let (from_offset, chain) = from_point.map_or((0, None), |point| (point.offset, Some(point.chain)));
    let result = scan_from(&mut disk, from_offset, chain, |view| {
        let mut offset = view.info.first_offset;
        for entry in view.entries().flatten() {
            match take(&mut target, &view, offset, &entry, args.from.unwrap_or(0), most - written) {
                Ok(count) => written += count,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            offset += entry.records();
        }
        if written >= most || interrupt.raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    // A reader of the pipe that has seen enough is no failure.
    if let Some(Failure { error, .. }) = &failed
        && args.out.is_none()
        && error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    {
        return Ok(Exit::Ok);
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    match (target, &args.out) {
        (Target::Capture { writer, .. }, Some(path)) => {
            let summary = finish(*writer, path)?;
            ui.note(&format!(
                "{}: {} events of {} keys",
                path.display(),
                thousands(summary.events),
                thousands(summary.names)
            ));
        }
        (Target::Lines(mut out), path) => {
            out.flush().map_err(|error| Failure::new(Exit::Output, error))?;
            drop(out);
            if let Some(path) = path {
                std::fs::rename(part_of(path), path).map_err(|error| io(path, error))?;
                ui.note(&format!("{}: {} records", path.display(), thousands(written)));
            }
        }
        (Target::Capture { .. }, None) => {}
    }
    match result {
        Ok(_) => Ok(Exit::Ok),
        Err(error) => {
            let error = anyhow::Error::from(error).context(folder.display().to_string());
            Err(Failure::new(Exit::Input, error))
        }
    }
}

/// Writes one entry, as far as it is asked for; returns how many records that were.
fn take(
    target: &mut Target,
    view: &BatchView<'_>,
    offset: u64,
    entry: &Entry<'_>,
    from: u64,
    most: u64,
) -> Result<u64, Failure> {
    let skip = from.saturating_sub(offset).min(entry.records());
    let count = (entry.records() - skip).min(most);
    match target {
        Target::Lines(out) => {
            if count == 0 {
                return Ok(0);
            }
            let mut line =
                |value: Value| writeln!(out, "{value}").map_err(|error| Failure::new(Exit::Output, error));
            let head = json!({ "offset": offset, "epoch": view.info.epoch, "ingest_ns": view.info.ingest_ns, "kind": entry.kind() });
            let with = |more: Value| {
                let mut head = head.clone();
                if let (Some(head), Value::Object(more)) = (head.as_object_mut(), more) {
                    head.extend(more);
                }
                head
            };
            match entry {
                Entry::Source { rank, source_id, session, new_session, name, principal } => {
                    line(with(json!({
                        "source": rank, "source_id": source_id, "session": session, "new_session": new_session,
                        "name": name, "principal": principal,
                    })))?
                }
                Entry::Names { rank, first, overflowed, names } => {
                    let names: Vec<&str> = names.collect();
                    line(with(
                        json!({ "source": rank, "first": first, "overflowed": overflowed, "names": names }),
                    ))?;
                }
                Entry::Events { rank, sequence, events, .. } => {
                    for (at, event) in events.iter().enumerate().skip(skip as usize).take(count as usize) {
                        let at = at as u64;
                        line(with(json!({
                            "offset": offset + at, "kind": kind::name(event.kind), "source": rank, "sequence": sequence + at,
                            "ts_event": event.ts_event, "key": event.key, "flags": event.flags,
                            "payload": [event.payload[0].to_string(), event.payload[1].to_string()],
                        })))?;
                    }
                }
                Entry::Lost { rank, last, count } => {
                    line(with(json!({ "source": rank, "last": last, "count": count })))?
                }
                Entry::Idle { rank } | Entry::Finished { rank } => line(with(json!({ "source": rank })))?,
                Entry::Digest { value } => line(with(json!({ "digest": format!("{value:016x}") })))?,
                Entry::Stopped => line(head)?,
            }
        }
        Target::Capture { writer, keys, overflow, events: scratch } => match entry {
            // Dictionaries count whatever part of the log is asked for.
            Entry::Source { rank, new_session, .. } => {
                let keys = keys.entry(*rank).or_default();
                if *new_session {
                    keys.clear();
                }
            }
            Entry::Names { rank, names, overflowed, .. } => {
                let keys = keys.entry(*rank).or_default();
                for name in *names {
                    keys.push(writer.define(name)?);
                }
                if *overflowed > 0 && overflow.is_none() {
                    *overflow = Some(writer.define(OVERFLOW_NAME)?);
                }
            }
            Entry::Events { rank, named, events, .. } if count > 0 => {
                let keys = keys.entry(*rank).or_default();
                let spill = overflow.unwrap_or(u32::MAX);
                scratch.clear();
                scratch.extend(events.iter().skip(skip as usize).take(count as usize).map(|event| {
                    let own = keys.get(event.key as usize).filter(|_| event.key < *named);
                    let key = if event.is_control() { event.key } else { own.copied().unwrap_or(spill) };
                    Event { key, source: *rank, ..event }
                }));
                writer.push(scratch)?;
            }
            _ => {}
        },
    }
    Ok(count)
}
