//! `tidegate replay`: inputs through the engine, results into files.

use crate::cli::{OutputArg, ReplayArgs, RevisionsArg};
use crate::digest::Recorded;
use crate::exit::Outcome;
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::render::{Ui, rate};
use crate::{plan, summary};
use tidegate_actors::runtime::RuntimeOptions;
use tidegate_engine::Output;
use tidegate_replay::pipeline::SinkError;
use tidegate_replay::write::{BarRows, ResultFormat, ResultWriter, Revisions};
use tidegate_replay::{ReplayOptions, ResultSink, Speed, StreamInfo, replay};

/// Takes results only so that their latency is measured.
struct Nowhere;

impl ResultSink for Nowhere {
    fn record(&mut self, _: &StreamInfo, _: &str, _: &Output) -> Result<(), SinkError> {
        Ok(())
    }
}

pub(crate) fn run(args: &ReplayArgs, ui: &Ui) -> Outcome {
    let read = args.read.options();
    let inputs = plan::open_all(&args.files, &read)?;
    let (what, log) = plan::plan(&args.plan, &args.files, &read, ui)?;
    // Before the first file: a user who sees one may press Ctrl-C.
    let interrupt = Interrupt::listen()?;
    let mut writer = match &args.out {
        Some(folder) => {
            let bars = BarRows {
                revisions: match args.revisions {
                    RevisionsArg::All => Revisions::All,
                    RevisionsArg::Final => Revisions::Final,
                },
                horizon_ns: what.horizon_max_ns(),
                disorder_ns: log.disorder_ns,
            };
            let format = match args.output {
                OutputArg::Csv => ResultFormat::Csv,
                OutputArg::Jsonl => ResultFormat::Jsonl,
                OutputArg::Parquet => ResultFormat::Parquet,
            };
            Some(ResultWriter::create(folder, &what.streams()?, format, bars)?)
        }
        None => None,
    };
    let paced = args.speed != Speed::Max;
    let mut nowhere = Nowhere;
    let sink = match &mut writer {
        Some(writer) => Some(writer as &mut dyn ResultSink),
        None if paced => Some(&mut nowhere as &mut dyn ResultSink),
        None => None,
    };
    let options = ReplayOptions {
        runtime: RuntimeOptions {
            shards: args.shards,
            placement: args.placement,
            ..RuntimeOptions::default()
        },
        speed: args.speed,
        stop: interrupt.flag(),
    };
    let total = inputs.iter().map(|input| input.progress().bytes_total).sum();
    let bar = Bar::new(ui, "replaying", total);
    let mut report = replay(inputs, &what, log, &options, sink, &mut |live| {
        let seconds = live.elapsed.as_secs_f64().max(1e-9);
        bar.at(live.progress.bytes, rate(live.events as f64 / seconds));
    })?;
    bar.clear();
    let files = writer.map(ResultWriter::finish).transpose()?.unwrap_or_default();
    if let Some(path) = &args.digest_out {
        Recorded::of(&report.runtime.digest, &what, &log).write(path)?;
    }
    if args.json {
        ui.print_json(&summary::to_json(&report, &files, paced));
    } else {
        ui.print(&summary::render(&report, &files, paced, ui));
    }
    summary::verdict(&mut report)
}
