//! `tidegate flows`: the flows of captures.

use crate::cli::{FlowsArgs, PrintArg};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::render::{Table, Ui, bytes, clean, duration, instant, thousands};
use crate::traffic::{self, Unit};
use serde_json::json;
use std::io::{BufWriter, Write};
use tidegate_flow::{Flow, FlowRecord, Frame, Watch};
use tidegate_replay::decode::Traffic;

/// Rows of a table for people; more are counted.
const ROWS_MAX: usize = 1_000;

const COLUMNS: &str = "id,time,ts,duration_ns,originator,originator_port,responder,responder_port,protocol,state,history,\
bytes_out,bytes_in,packets_out,packets_in,ip_bytes_out,ip_bytes_in,first_packet,last_packet,vlan,tunnels,cause,community_id";

pub(crate) fn run(args: &FlowsArgs, ui: &Ui) -> Outcome {
    let interrupt = Interrupt::listen()?;
    let mut exit = Exit::Ok;
    let several = args.files.len() > 1;
    let mut writer = Writer::new(args.output, several);
    for path in &args.files {
        if interrupt.raised() || !writer.open {
            break;
        }
        writer.begin(&path.display().to_string());
        let mut table = traffic::table(args.flows_max, args.interim);
        let read = traffic::read(path, &args.read.options(), false, &interrupt, ui, |unit| match unit {
            Unit::Traffic(Traffic::Frame(Frame::Ip(packet))) => table.packet(&packet, &mut writer),
            Unit::Traffic(Traffic::Frame(_)) | Unit::Row(_) => {}
            Unit::Traffic(Traffic::Record(record)) => writer.write(&record),
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

/// Writes records as they come, or keeps the first for a table.
struct Writer {
    output: PrintArg,
    several: bool,
    file: String,
    out: BufWriter<std::io::Stdout>,
    /// False once the reader of our output went away (`| head`).
    open: bool,
    failed: Option<std::io::Error>,
    rows: Vec<FlowRecord>,
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
            count: 0,
            begun: false,
        }
    }

    fn begin(&mut self, file: &str) {
        file.clone_into(&mut self.file);
        self.count = 0;
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

    fn write(&mut self, record: &FlowRecord) {
        self.count += 1;
        match self.output {
            PrintArg::Table if self.rows.len() < ROWS_MAX => self.rows.push(*record),
            PrintArg::Table => {}
            PrintArg::Csv => {
                let mut line = csv(record);
                if self.several {
                    line += &format!(",{}", quoted(&self.file));
                }
                self.put(&(line + "\n"));
            }
            PrintArg::Jsonl => {
                let mut value = to_json(record);
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
        if self.open
            && let Err(error) = self.out.flush()
        {
            self.open = false;
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                self.failed = Some(error);
            }
        }
        match self.failed.take() {
            Some(error) => Err(Failure::new(Exit::Output, error)),
            None => Ok(()),
        }
    }
}

impl Watch for Writer {
    fn record(&mut self, _flow: &mut Flow, record: &FlowRecord) {
        self.write(record);
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn csv(record: &FlowRecord) -> String {
    format!(
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
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
        record.community_id(),
    )
}

/// A record with times as text, since they do not fit a double.
fn to_json(record: &FlowRecord) -> serde_json::Value {
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
        "community_id": record.community_id(),
    })
}

fn render(records: &[FlowRecord], ui: &Ui) -> String {
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
    ]);
    for record in records {
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
        ]);
    }
    table.render(ui, 0)
}
