//! `tidegate generate`: made-up inputs, the same for the same options on every machine.

use crate::cli::{GenerateArgs, GenerateOut, Generated};
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::Bar;
use crate::record::{finish, part_of};
use crate::render::{Ui, bytes, thousands};
use serde_json::json;
use tidegate_replay::Source;
use tidegate_replay::capture::{CaptureOptions, CaptureWriter};
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions, W1, W1Options};
use tidegate_replay::write::{TradeFormat, TradeWriter};

/// Events made at a time.
const BATCH: usize = 32_768;

pub(crate) fn run(args: &GenerateArgs, ui: &Ui) -> Outcome {
    match args.what {
        Generated::Market { ref out, events, symbols, session } => {
            let options = MarketOptions {
                seed: out.seed,
                events,
                symbols,
                session_ns: session,
                ..MarketOptions::default()
            };
            write(Box::new(Market::new(options)), "market", out, ui)
        }
        Generated::Network { ref out, events, desks, calm } => {
            if !is(out, "tgc") {
                return Err(Failure::usage(format!(
                    "`{}`: packets go into a capture only; name it FILE.tgc",
                    out.out.display()
                )));
            }
            let options = NetworkOptions { seed: out.seed, events, desks, ..NetworkOptions::default() };
            let options = if calm { options.quiet() } else { options };
            write(Box::new(Network::new(options)), "network", out, ui)
        }
        Generated::W1 { ref out, events, symbols } => {
            let options = W1Options { seed: out.seed, events, symbols, ..W1Options::default() };
            write(Box::new(W1::new(options)), "w1", out, ui)
        }
    }
}

fn is(out: &GenerateOut, extension: &str) -> bool {
    out.out.extension().is_some_and(|found| found == extension)
}

fn write(mut source: Box<dyn Source>, what: &str, out: &GenerateOut, ui: &Ui) -> Outcome {
    let bar = Bar::new(ui, "making", source.progress().bytes_total);
    let path = &out.out;
    let (written, left_out, size) = if is(out, "tgc") {
        let options = CaptureOptions::default().with_codec(out.codec.into());
        let mut writer = CaptureWriter::create(part_of(path), options)?;
        each(source.as_mut(), &bar, |events, source| {
            writer.define_all(source.names())?;
            Ok(writer.push(events)?)
        })?;
        let summary = finish(writer, path)?;
        (summary.events, 0, summary.bytes)
    } else {
        let format = match () {
            () if is(out, "csv") => TradeFormat::Csv,
            () if is(out, "parquet") => TradeFormat::Parquet,
            () => {
                return Err(Failure::usage(format!(
                    "`{}`: the name must end in .tgc, .csv or .parquet",
                    path.display()
                )));
            }
        };
        let mut writer = TradeWriter::create(path, format)?;
        each(source.as_mut(), &bar, |events, source| Ok(writer.push(events, source.names())?))?;
        let summary = writer.finish()?;
        (summary.trades, summary.left_out, summary.bytes)
    };
    bar.clear();
    let names = source.names().len();
    if left_out > 0 {
        ui.note(&format!(
            "{} cancels, corrections and gaps have no place in a table of trades; a .tgc keeps them",
            thousands(left_out)
        ));
    }
    if out.json {
        ui.print_json(&json!({
            "generated": what, "path": path.display().to_string(), "seed": out.seed,
            "events": written, "left_out": left_out, "keys": names, "bytes": size,
        }));
    } else {
        ui.print(&format!(
            "{}: {} events of {} keys, {} ({:.1} bytes an event)\n",
            path.display(),
            thousands(written),
            thousands(names as u64),
            bytes(size),
            size as f64 / written.max(1) as f64
        ));
    }
    Ok(Exit::Ok)
}

fn each(
    source: &mut dyn Source,
    bar: &Bar,
    mut take: impl FnMut(&[tidegate_engine::Event], &dyn Source) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut events = Vec::with_capacity(BATCH);
    while source.read(&mut events, BATCH)? > 0 {
        take(&events, source)?;
        events.clear();
        bar.at(source.progress().bytes, "");
    }
    Ok(())
}
