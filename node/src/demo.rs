//! `tidegate demo`: a made-up market and an office network through the real engine, four hours in a minute, with
//! a view of what happens inside.

mod board;
pub(crate) mod endless;
mod exporter;
mod feed;
mod view;

use crate::cli::DemoArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::plan::{minute, usual_bars};
use crate::render::{Ui, rate, short_duration, thousands};
use crate::summary;
use board::Board;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_actors::bars::BarOptions;
use tidegate_actors::runtime::RuntimeOptions;
use tidegate_replay::{LogOptions, Plan, ReplayError, ReplayOptions, ReplayReport, Speed, replay};

/// How often the view is drawn.
const FRAME: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &DemoArgs, ui: &Ui) -> Outcome {
    let feed = feed::Feed::new(args.seconds, args.seed);
    let plan = Plan {
        bars: usual_bars(),
        // A parse error here would be ours; a test reads them.
        indicators: feed::INDICATORS.iter().filter_map(|text| text.parse().ok()).collect(),
        bar_options: BarOptions { history: true, ..BarOptions::default() },
        hosts: vec![minute()],
        ..Plan::default()
    };
    let interrupt = Interrupt::listen()?;
    let options = ReplayOptions {
        runtime: RuntimeOptions { shards: args.shards, ..RuntimeOptions::default() },
        speed: Speed::Times(feed.speed),
        stop: interrupt.flag(),
    };
    let board = Arc::new(Mutex::new(Board::new(feed.speed, feed.first_ts())));
    let live = !args.plain && !args.json && std::io::stdout().is_terminal();
    let (sources, writer) = (feed.sources(), Arc::clone(&board));
    let engine = std::thread::Builder::new().name("tg-demo".to_owned()).spawn(move || {
        let mut sink = board::Sink(Arc::clone(&writer));
        let mut tell = |stats: &_| board::lock(&writer).live(stats);
        replay(sources, &plan, LogOptions::default(), &options, Some(&mut sink), &mut tell)
    });
    let engine = engine.map_err(|error| Failure::internal(format!("cannot start the demo: {error}")))?;
    if live {
        view::show(&board, &interrupt, || engine.is_finished(), feed.seconds)?;
    } else if !args.json {
        lines(&board, ui, || engine.is_finished());
    } else {
        while !engine.is_finished() {
            std::thread::park_timeout(FRAME);
        }
    }
    // The view was closed by the user: the engine ends cleanly too.
    interrupt.raise();
    let report = engine.join().map_err(|_| Failure::internal("the engine's thread panicked"))?;
    finish(report, args, &board, ui)
}

fn finish(
    report: Result<ReplayReport, ReplayError>,
    args: &DemoArgs,
    board: &Mutex<Board>,
    ui: &Ui,
) -> Outcome {
    let mut report = report?;
    if args.json {
        ui.print_json(&summary::to_json(&report, &[], true));
    } else {
        let text = summary::render(&report, &[], true, ui);
        let lag = board::lock(board).latency_text();
        ui.print(&format!("\n{text}\nevent time to closed bar in hand: {lag}\n"));
    }
    summary::verdict(&mut report).map(|_| Exit::Ok)
}

/// A line a second.
fn lines(board: &Mutex<Board>, ui: &Ui, done: impl Fn() -> bool) {
    let mut next = Instant::now() + Duration::from_secs(1);
    while !done() {
        std::thread::park_timeout(FRAME.min(next.saturating_duration_since(Instant::now())));
        if Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        let board = board::lock(board);
        let top = board.top(1).into_iter().next().map_or(String::new(), |(name, row)| {
            let rsi = row.rsi.map_or("-".to_owned(), |rsi| format!("{rsi:.1}"));
            format!("  {name} {} rsi {rsi}", row.last)
        });
        ui.print(&format!(
            "{:>4} s  {:>11} events  {:>10}  {}  lag {}  bars {} final {} amended{top}\n",
            board.elapsed.as_secs_f64().round(),
            thousands(board.events),
            rate(board.rate_now()),
            board.latency_text(),
            short_duration(board.watermark_lag()),
            thousands(board.bars_final),
            thousands(board.bars_amended),
        ));
    }
}
