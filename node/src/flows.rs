//! `tidegate flows`: the flows of captures.

use crate::capture::{self, Captured};
use crate::cli::{FlowsArgs, PrintArg};
use crate::collect;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::render::{Table, Ui, bytes, clean, duration, instant, thousands};
use crate::traffic::{self, Reading, Unit};
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use tidegate_flow::{
    Collector, CollectorOptions, EndCause, Flow, FlowRecord, Frame, Looker, Packet, Shown, Watch,
};
use tidegate_replay::decode::Traffic;

/// Rows of a table for people; more are counted.
const ROWS_MAX: usize = 1_000;

/// Open flows whose names, requests and fingerprints are kept until they end; of more, nothing is shown.
const SHOWN_MAX: usize = 1 << 16;
/// Letters of what a flow showed in a table.
const SHOWN_CHARS_MAX: usize = 60;

const COLUMNS: &str = "id,time,ts,duration_ns,originator,originator_port,responder,responder_port,protocol,state,history,\
bytes_out,bytes_in,packets_out,packets_in,ip_bytes_out,ip_bytes_in,first_packet,last_packet,vlan,tunnels,cause,sampling,community_id,shows";

pub(crate) fn run(args: &FlowsArgs, ui: &Ui) -> Outcome {
    let interrupt = Interrupt::listen()?;
    let mut exit = Exit::Ok;
    let several = args.files.len() > 1;
    let mut writer = Writer::new(args.output, several);
    if !args.listen.is_empty() {
        listen(args, &interrupt, &mut writer, ui)?;
        return Ok(exit);
    }
    if args.capture.interface.is_some() {
        live(args, &interrupt, &mut writer, ui)?;
        return Ok(exit);
    }
    for path in &args.files {
        if interrupt.raised() || !writer.open {
            break;
        }
        writer.begin(&path.display().to_string());
        let mut table = traffic::table(args.flows_max, args.interim);
        let read = traffic::read(path, &Reading::of(&args.read), false, &interrupt, ui, |unit| match unit {
            Unit::Traffic(Traffic::Frame(Frame::Ip(packet))) => table.packet(&packet, &mut writer),
            Unit::Traffic(Traffic::Frame(_)) | Unit::Row(_) | Unit::Cells(_) => {}
            Unit::Traffic(Traffic::Record(record)) => writer.write(&record),
            Unit::Pause(now) => table.advance(now, &mut writer),
        });
        let read = match read {
            Ok(read) => read,
            // The other files are still worth a look.
            Err(failure) => {
                ui.error(&failure.error);
                exit = failure.exit;
                continue;
            }
        };
        table.finish(&mut writer);
        writer.end(ui)?;
        traffic::notes(&read, table.counts(), ui);
        ui.note(&format!(
            "{}: {} flows from {} of {} {} units",
            clean(&path.display().to_string()),
            thousands(writer.count),
            thousands(read.account.accepted),
            thousands(read.account.units),
            read.format
        ));
        if let Some(error) = read.ended_early {
            ui.error(&error.into());
            exit = Exit::Input;
        }
    }
    Ok(exit)
}

/// Flows of exports that come in until the user wants no more.
fn listen(args: &FlowsArgs, interrupt: &Interrupt, writer: &mut Writer, ui: &Ui) -> Result<(), Failure> {
    writer.begin("exports");
    let mut collector = Collector::new(CollectorOptions { sampling: args.read.sampling });
    let dropped = collect::receive(&args.listen, interrupt, ui, |datagram| {
        if let Some(datagram) = datagram {
            let collect::Datagram { number, from, received_ns, bytes } = datagram;
            // What is no export is counted by the collector.
            let _ = collector.datagram(from, number, received_ns, bytes, |record| writer.write(record));
        } else {
            collector.advance(crate::serve::now_ns(), |record| writer.write(record));
            writer.flush();
        }
        writer.open
    })?;
    collector.finish(|record| writer.write(record));
    writer.end(ui)?;
    traffic::export_notes(&collector.counts(), ui);
    if dropped > 0 {
        ui.note(&format!(
            "{} datagrams were dropped here because flows were not written fast enough",
            thousands(dropped)
        ));
    }
    Ok(())
}

/// Flows of what comes by at an interface until the user wants no more.
fn live(args: &FlowsArgs, interrupt: &Interrupt, writer: &mut Writer, ui: &Ui) -> Result<(), Failure> {
    let name = args.capture.interface.as_deref().unwrap_or_default();
    writer.begin(name);
    let mut table = traffic::table(args.flows_max, args.interim);
    let taken = capture::receive(&args.capture, interrupt, ui, |captured| {
        match captured {
            Captured::Frame { frame: Frame::Ip(packet), .. } => table.packet(&packet, writer),
            Captured::Frame { .. } => {}
            Captured::Pause(now) => {
                table.advance(now, writer);
                writer.flush();
            }
        }
        writer.open
    })?;
    table.finish(writer);
    writer.end(ui)?;
    traffic::account_notes(&taken.account, "live", ui);
    traffic::table_notes(table.counts(), ui);
    taken.note(ui);
    ui.note(&format!(
        "{}: {} flows from {} of {} packets",
        clean(name),
        thousands(writer.count),
        thousands(taken.account.accepted),
        thousands(taken.account.units)
    ));
    Ok(())
}

/// Writes records as they come, or keeps the first for a table.
struct Writer {
    output: PrintArg,
    several: bool,
    file: String,
    out: BufWriter<std::io::Stdout>,
    /// False once the reader of our output went away (`| head`).
    open: bool,
    failed: Option<std::io::Error>,
    /// With what they showed.
    rows: Vec<(FlowRecord, String)>,
    looker: Looker,
    /// What open flows showed first, by their numbers.
    shown: HashMap<u64, Shown>,
    count: u64,
    begun: bool,
}

impl Writer {
    fn new(output: PrintArg, several: bool) -> Self {
        Self {
            output,
            several,
            file: String::new(),
            out: BufWriter::new(std::io::stdout()),
            open: true,
            failed: None,
            rows: Vec::new(),
            looker: Looker::default(),
            shown: HashMap::new(),
            count: 0,
            begun: false,
        }
    }

    fn begin(&mut self, file: &str) {
        file.clone_into(&mut self.file);
        self.count = 0;
        (self.looker, self.shown) = (Looker::default(), HashMap::new());
        if self.output == PrintArg::Csv && !self.begun {
            let line = format!("{COLUMNS}{}\n", if self.several { ",file" } else { "" });
            self.put(&line);
        }
        self.begun = true;
    }

    fn put(&mut self, text: &str) {
        if !self.open {
            return;
        }
        if let Err(error) = self.out.write_all(text.as_bytes()) {
            self.open = false;
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                self.failed = Some(error);
            }
        }
    }

    fn flush(&mut self) {
        if self.open
            && let Err(error) = self.out.flush()
        {
            self.open = false;
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                self.failed = Some(error);
            }
        }
    }

    fn write(&mut self, record: &FlowRecord) {
        self.tell(record, None);
    }

    fn tell(&mut self, record: &FlowRecord, shown: Option<&Shown>) {
        self.count += 1;
        match self.output {
            PrintArg::Table if self.rows.len() < ROWS_MAX => {
                self.rows.push((*record, shown.map(shown_text).unwrap_or_default()));
            }
            PrintArg::Table => {}
            PrintArg::Csv => {
                let mut line = csv(record, shown);
                if self.several {
                    line += &format!(",{}", quoted(&self.file));
                }
                self.put(&(line + "\n"));
            }
            PrintArg::Jsonl => {
                let mut value = to_json(record, shown);
                if self.several {
                    value["file"] = json!(self.file);
                }
                self.put(&format!("{value}\n"));
            }
        }
    }

    fn end(&mut self, ui: &Ui) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.rows);
        if self.output == PrintArg::Table {
            let mut text = render(&rows, ui);
            if self.several {
                text = format!("{}\n{text}\n", clean(&self.file));
            }
            let more = self.count - rows.len() as u64;
            if more > 0 {
                text += &format!("and {} more; --output csv or jsonl gives all\n", thousands(more));
            }
            self.put(&text);
        }
        self.flush();
        match self.failed.take() {
            Some(error) => Err(Failure::new(Exit::Output, error)),
            None => Ok(()),
        }
    }
}

impl Watch for Writer {
    fn packet(&mut self, flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) {
        if packet.payload.is_empty() || self.shown.len() >= SHOWN_MAX {
            return;
        }
        if let Some(shown) = self.looker.look(flow, from_originator, packet) {
            self.shown.entry(flow.record.id).or_insert(shown);
        }
    }

    fn record(&mut self, _flow: &mut Flow, record: &FlowRecord) {
        let shown = self.shown.remove(&record.id);
        self.tell(record, shown.as_ref());
        if let (EndCause::Interim, Some(shown)) = (record.cause, shown) {
            self.shown.insert(record.id, shown);
        }
    }
}

/// What a flow showed, in a line.
fn shown_text(shown: &Shown) -> String {
    let text = match shown {
        Shown::Tls { ja4, name } => format!("{ja4} {name}"),
        Shown::Http { request, host } => format!("{request} {host}"),
        Shown::Dns { name, .. } => name.clone(),
    };
    text.trim_end().to_owned()
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn csv(record: &FlowRecord, shown: Option<&Shown>) -> String {
    format!(
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
        record.id,
        instant(record.start_ns),
        record.start_ns,
        record.duration_ns().map(|ns| ns.to_string()).unwrap_or_default(),
        record.originator,
        record.originator_port,
        record.responder,
        record.responder_port,
        record.protocol_name(),
        record.state.name(),
        record.history.as_str(),
        record.sent.bytes,
        record.received.bytes,
        record.sent.packets,
        record.received.packets,
        record.sent.ip_bytes,
        record.received.ip_bytes,
        record.packets.0,
        record.packets.1,
        record.vlan,
        record.tunnels,
        record.cause.name(),
        record.sampling,
        record.community_id(),
        quoted(&shown.map(shown_text).unwrap_or_default()),
    )
}

/// A record with times as text, since they do not fit a double.
pub(crate) fn to_json(record: &FlowRecord, shown: Option<&Shown>) -> serde_json::Value {
    let shows = shown.map(|shown| match shown {
        Shown::Tls { ja4, name } => json!({ "tls": { "ja4": ja4, "server_name": name } }),
        Shown::Http { request, host } => json!({ "http": { "request": request, "host": host } }),
        Shown::Dns { name, kind } => json!({ "dns": { "name": name, "type": kind } }),
    });
    json!({
        "id": record.id,
        "time": instant(record.start_ns),
        "ts": record.start_ns.to_string(),
        "duration_ns": record.duration_ns(),
        "originator": record.originator.to_string(),
        "originator_port": record.originator_port,
        "responder": record.responder.to_string(),
        "responder_port": record.responder_port,
        "protocol": record.protocol_name(),
        "state": record.state.name(),
        "history": record.history.as_str(),
        "bytes_out": record.sent.bytes,
        "bytes_in": record.received.bytes,
        "packets_out": record.sent.packets,
        "packets_in": record.received.packets,
        "ip_bytes_out": record.sent.ip_bytes,
        "ip_bytes_in": record.received.ip_bytes,
        "first_packet": record.packets.0,
        "last_packet": record.packets.1,
        "vlan": record.vlan,
        "tunnels": record.tunnels,
        "cause": record.cause.name(),
        "sampling": record.sampling,
        "community_id": record.community_id(),
        "shows": shows,
    })
}

fn render(records: &[(FlowRecord, String)], ui: &Ui) -> String {
    let mut table = Table::new(&[
        "time",
        "originator",
        ">port",
        "responder",
        ">port",
        "proto",
        "state",
        "history",
        ">duration",
        ">out",
        ">in",
        ">packets",
        "shows",
    ]);
    for (record, shown) in records {
        table.row([
            &instant(record.start_ns),
            &record.originator.to_string(),
            &record.originator_port.to_string(),
            &record.responder.to_string(),
            &record.responder_port.to_string(),
            record.protocol_name(),
            record.state.name(),
            record.history.as_str(),
            &record.duration_ns().map(duration).unwrap_or_default(),
            &bytes(record.sent.bytes),
            &bytes(record.received.bytes),
            &format!("{} {}", record.sent.packets, record.received.packets),
            &shown.chars().take(SHOWN_CHARS_MAX).collect::<String>(),
        ]);
    }
    table.render(ui, 0)
}
