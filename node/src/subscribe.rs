//! `tidegate subscribe`: a server's results as they come.

use crate::cli::{LagArg, PrintArg, SubscribeArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::render::{Ui, clean, instant, thousands};
use crate::{place, topic};
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::time::Duration;
use tidegate_engine::{BarState, Output, Price, output_kind};
use tidegate_proto::hub::StreamMeta;
use tidegate_proto::subscription::{Keys, LagPolicy, Subscription};
use tidegate_proto::{CloseCode, LossCause, StreamKind};
use tidegate_quic::{Continuation, Subscriber, Update};
use tidegate_replay::StreamInfo;
use tidegate_replay::write::{RowText, Rows};

/// How long a wait may be before Ctrl-C is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &SubscribeArgs, ui: &Ui) -> Outcome {
    let subscription = Subscription {
        streams: args.streams.clone(),
        keys: Keys::of_patterns(args.keys.iter().map(String::as_str)),
        start: args.from.clone(),
        conflation: args.conflate,
        policy: match args.on_lag {
            LagArg::Conflate => LagPolicy::Conflate,
            LagArg::DropOldest => LagPolicy::DropOldest,
            LagArg::Disconnect => LagPolicy::Disconnect,
        },
        lag_budget: args.lag_budget.unwrap_or(0),
    };
    let (output, sink) = match &args.to {
        Some(_) if args.output == PrintArg::Csv => {
            return Err(Failure::usage(
                "--output csv does not go with --to: a record in a topic is a line of jsonl",
            ));
        }
        Some(to) => (PrintArg::Jsonl, topic::writer(to, &args.kafka_client)?),
        None => (args.output, Box::new(BufWriter::new(std::io::stdout())) as Box<dyn Sink>),
    };
    let options = place::client(&args.server)?;
    let interrupt = Interrupt::listen()?;
    // A thread of its own: this one may wait for where records go.
    let network = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no runtime for the network: {error}")))?;
    network.block_on(async {
        let subscriber = Subscriber::connect(options, "tidegate subscribe", subscription).await;
        let mut subscriber = subscriber.map_err(place::failure)?;
        subscriber.outlive_server(args.follow);
        follow(args, subscriber, Printer::new(output, sink), &interrupt, ui).await
    })
}

/// Where records go.
pub(crate) trait Sink {
    /// Takes a record's lines; whether anybody still reads.
    fn take(&mut self, key: &str, lines: &[u8]) -> Result<bool, Failure>;

    /// All that was taken can be seen now; whether anybody still reads.
    fn settle(&mut self) -> Result<bool, Failure>;
}

impl Sink for BufWriter<std::io::Stdout> {
    fn take(&mut self, _key: &str, lines: &[u8]) -> Result<bool, Failure> {
        Ok(self.write_all(lines).is_ok())
    }

    fn settle(&mut self) -> Result<bool, Failure> {
        Ok(self.flush().is_ok())
    }
}

async fn follow(
    args: &SubscribeArgs,
    mut subscriber: Subscriber,
    mut printer: Printer,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome {
    let (mut records, mut lost) = (0u64, 0u64);
    let mut silent = Duration::ZERO;
    let mut changed = false;
    let idle = args.idle_exit.map(Duration::from_nanos);
    let outcome = loop {
        if interrupt.raised() || args.count.is_some_and(|count| records >= count) {
            break Exit::Ok;
        }
        let update = match tokio::time::timeout(LOOK, subscriber.next()).await {
            Ok(Ok(update)) => update,
            Ok(Err(error)) => {
                printer.sink.settle()?;
                return Err(place::failure(error));
            }
            Err(_) => {
                // Nothing waits, so what was printed can be seen.
                if !printer.sink.settle()? {
                    break Exit::Ok;
                }
                silent += LOOK;
                if idle.is_some_and(|idle| silent >= idle) {
                    break Exit::Ok;
                }
                continue;
            }
        };
        match update {
            Some(Update::Record { name, stream, output, .. }) => {
                silent = Duration::ZERO;
                records += 1;
                if !printer.record(&name, &stream, &output)? {
                    break Exit::Ok; // the reader of our output went away
                }
            }
            Some(Update::Loss(loss)) => {
                lost += loss.count;
                let streams = subscriber.streams();
                let stream = streams.get(usize::from(loss.stream)).map_or("?", |stream| &stream.name);
                let why = match loss.cause {
                    LossCause::Dropped => "dropped: this reader was behind",
                    LossCause::Conflated => "conflated: this reader was behind",
                    LossCause::Expired => "no longer kept by the server",
                };
                let most = if loss.exact { "" } else { "at most " };
                ui.note(&format!("{most}{} records of {stream} {why}", thousands(loss.count)));
            }
            Some(Update::Reconnected(continuation)) => {
                silent = Duration::ZERO;
                ui.note(match continuation {
                    Continuation::Resumed if std::mem::take(&mut changed) => "it goes on where it stopped",
                    Continuation::Resumed => "the connection broke; another one goes on where it stopped",
                    Continuation::Anew => {
                        "the connection broke before it had caught up; another one begins as asked for, records may come again"
                    }
                    Continuation::NewLineage { .. } => {
                        // Its streams may be others, under the same numbers.
                        printer.begin_anew();
                        "the server was started anew: what the old one had computed and not delivered is lost, numbers begin at 1 \
                         again, and records may speak of windows that came before"
                    }
                });
            }
            Some(Update::Live(_) | Update::Conflated(_)) => {}
            Some(Update::Changed(close)) => {
                // Other columns, perhaps, under other numbers.
                printer.begin_anew();
                changed = true;
                ui.note(&close.reason);
            }
            Some(Update::Ended(close)) => {
                ui.note(&format!("the server ended the subscription ({close})"));
                let orderly = matches!(close.code, CloseCode::SHUTTING_DOWN | CloseCode::FINISHED);
                break if orderly { Exit::Ok } else { Exit::Input };
            }
            None => break Exit::Ok,
        }
    };
    printer.sink.settle()?;
    subscriber.close().await;
    let losses = if lost > 0 { format!(", {} not received", thousands(lost)) } else { String::new() };
    ui.note(&format!("{} records{losses}", thousands(records)));
    Ok(outcome)
}

/// Records as text.
struct Printer {
    output: PrintArg,
    sink: Box<dyn Sink>,
    rows: HashMap<u16, Rows>,
    line: Vec<u8>,
    last: Option<u16>,
}

impl Printer {
    fn new(output: PrintArg, sink: Box<dyn Sink>) -> Self {
        Self { output, sink, rows: HashMap::new(), line: Vec::new(), last: None }
    }

    /// What is known of streams does not hold any more.
    fn begin_anew(&mut self) {
        self.rows.clear();
        self.last = None;
    }

    /// Prints a record; returns whether anybody still reads.
    fn record(&mut self, name: &str, stream: &StreamMeta, output: &Output) -> Result<bool, Failure> {
        self.line.clear();
        // Another stream has other columns.
        let changed = self.last.replace(output.stream) != Some(output.stream);
        match self.output {
            PrintArg::Table => table(name, stream, output, changed, &mut self.line),
            PrintArg::Jsonl | PrintArg::Csv => {
                let text = if self.output == PrintArg::Csv { RowText::Csv } else { RowText::Jsonl };
                let rows = self
                    .rows
                    .entry(output.stream)
                    .or_insert_with(|| Rows::new(&info(output.stream, stream), text));
                if changed && let Some(header) = rows.header() {
                    self.line.extend_from_slice(header.as_bytes());
                    self.line.push(b'\n');
                }
                rows.write(name, output, &mut self.line);
            }
        }
        self.sink.take(name, &self.line)
    }
}

fn info(id: u16, stream: &StreamMeta) -> StreamInfo {
    let kind = match stream.kind {
        StreamKind::Bars => tidegate_replay::StreamKind::Bars,
        StreamKind::MeasureBars => tidegate_replay::StreamKind::MeasureBars,
        StreamKind::Values | StreamKind::Integers => tidegate_replay::StreamKind::Indicators,
        StreamKind::Hosts => tidegate_replay::StreamKind::Hosts,
    };
    StreamInfo {
        id,
        name: stream.name.clone(),
        kind,
        columns: stream.columns.clone(),
        definition: String::new(),
    }
}

/// A line for people.
fn table(name: &str, stream: &StreamMeta, output: &Output, head: bool, line: &mut Vec<u8>) {
    let name = clean(name);
    let at = instant(output.ts);
    // Writing to memory cannot fail.
    let _ = match (output.kind, stream.kind) {
        (output_kind::LATE, _) => writeln!(line, "{:<9} {name:<12} {at:<30} late", stream.name),
        (_, StreamKind::Bars | StreamKind::MeasureBars) => {
            if head {
                let _ = writeln!(
                    line,
                    "{:<9} {:<12} {:<30} {:>12} {:>12} {:>12} {:>12} {:>14} {:>7} state",
                    "stream", "key", "close time", "open", "high", "low", "close", "volume", "trades"
                );
            }
            let bar = output.bar();
            let [open, high, low, close] =
                [bar.open, bar.high, bar.low, bar.close].map(|p| Price(p).to_string());
            let state = BarState::name(output.state);
            let revision = if bar.revision > 0 { format!(" {}", bar.revision) } else { String::new() };
            writeln!(
                line,
                "{:<9} {name:<12} {at:<30} {open:>12} {high:>12} {low:>12} {close:>12} {:>14} {:>7} {state}{revision}",
                stream.name,
                bar.volume().to_string(),
                bar.trades
            )
        }
        (_, StreamKind::Values) => {
            let values = stream.columns.iter().zip(output.values());
            let shown = |value: f64| match value {
                value if value.is_nan() => "–".to_owned(),
                value if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
                value => format!("{value:.6}"),
            };
            let values: Vec<String> =
                values.map(|(column, value)| format!("{column} {}", shown(value))).collect();
            writeln!(line, "{:<9} {name:<12} {at:<30} {}", stream.name, values.join("  "))
        }
        _ => {
            let values = stream.columns.iter().zip(output.words);
            let values: Vec<String> = values.map(|(column, value)| format!("{column} {value}")).collect();
            writeln!(line, "{:<9} {name:<12} {at:<30} {}", stream.name, values.join("  "))
        }
    };
}
