//! Bars of whole files for the commands that compute over all of them at once.

use crate::cli::ReadArgs;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::plan;
use crate::progress::Bar;
use crate::render::{Ui, rate};
use anyhow::anyhow;
use std::collections::BTreeMap;
use std::env::VarError;
use std::path::PathBuf;
use tidegate_actors::WindowSpec;
use tidegate_engine::{Output, output_kind};
use tidegate_gpu::sweep::SweepSeries;
use tidegate_gpu::{Accel, BatchError, GpuPolicy, Unavailable, UnknownPolicy};
use tidegate_replay::pipeline::SinkError;
use tidegate_replay::{LogOptions, Plan, ReplayOptions, ResultSink, StreamInfo, StreamKind, replay};

pub(crate) mod args;
pub(crate) mod risk;
pub(crate) mod spectrum;
pub(crate) mod surface;

/// Most bars kept, of all symbols together: 1.3 GB.
const BARS_MAX: usize = 32 << 20;

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Threads { .. } | BatchError::Solver { .. } => Self::new(Exit::Internal, error),
            error => Self::new(Exit::Usage, error),
        }
    }
}

/// Bars of one symbol, oldest first, in their last revision.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What orders them: the end, or the number of the first trade where bars are by trades, volume or value.
    orders: Vec<u64>,
    /// Ends of the windows.
    pub(crate) ends: Vec<u64>,
    pub(crate) high: Vec<i64>,
    pub(crate) low: Vec<i64>,
    pub(crate) close: Vec<i64>,
}

impl History {
    /// Takes a bar or a revision of one; says whether it is a new one.
    fn take(&mut self, order: u64, end: u64, [high, low, close]: [i64; 3]) -> bool {
        // Nearly always the last or one after it.
        let at = match self.orders.last() {
            Some(&last) if last >= order => self.orders.partition_point(|&known| known < order),
            _ => self.orders.len(),
        };
        if self.orders.get(at) == Some(&order) {
            (self.ends[at], self.high[at], self.low[at], self.close[at]) = (end, high, low, close);
            return false;
        }
        self.orders.insert(at, order);
        self.ends.insert(at, end);
        self.high.insert(at, high);
        self.low.insert(at, low);
        self.close.insert(at, close);
        true
    }

    /// A bar all of whose trades were taken back.
    fn drop(&mut self, order: u64) -> bool {
        let Ok(at) = self.orders.binary_search(&order) else { return false };
        self.orders.remove(at);
        self.ends.remove(at);
        self.high.remove(at);
        self.low.remove(at);
        self.close.remove(at);
        true
    }

    /// As the batches take it.
    pub(crate) fn series(&self) -> SweepSeries<'_> {
        SweepSeries { high: &self.high, low: &self.low, close: &self.close }
    }
}

/// Every symbol's bars, in order of name.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) symbols: BTreeMap<String, History>,
    bars: usize,
}

impl ResultSink for Histories {
    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), SinkError> {
        if output.kind != output_kind::BAR {
            return Ok(());
        }
        let bar = output.bar();
        let order = match stream.kind {
            StreamKind::MeasureBars => bar.first_trade.into(),
            _ => output.ts,
        };
        if !self.symbols.contains_key(name) {
            self.symbols.insert(name.to_owned(), History::default());
        }
        let Some(history) = self.symbols.get_mut(name) else { return Ok(()) };
        if bar.trades == 0 {
            self.bars -= usize::from(history.drop(order));
            return Ok(());
        }
        self.bars += usize::from(history.take(order, output.ts, [bar.high, bar.low, bar.close]));
        if self.bars > BARS_MAX {
            return Err(format!(
                "more than {BARS_MAX} bars; choose wider ones, or a part with --from and --to"
            )
            .into());
        }
        Ok(())
    }
}

/// All bars of `bars` that the files give.
pub(crate) fn histories(
    files: &[PathBuf],
    bars: &WindowSpec,
    read: &ReadArgs,
    ui: &Ui,
) -> Result<Histories, Failure> {
    let read = read.options();
    let inputs = plan::open_all(files, &read)?;
    let what = Plan { bars: vec![bars.clone()], ..Plan::default() };
    what.streams()?;
    let interrupt = Interrupt::listen()?;
    let options = ReplayOptions { stop: interrupt.flag(), ..ReplayOptions::default() };
    let total = inputs.iter().map(|input| input.progress().bytes_total).sum();
    let progress = Bar::new(ui, "reading", total);
    let mut found = Histories::default();
    let mut report = replay(inputs, &what, LogOptions::default(), &options, Some(&mut found), &mut |live| {
        let seconds = live.elapsed.as_secs_f64().max(1e-9);
        progress.at(live.progress.bytes, rate(live.events as f64 / seconds));
    })?;
    progress.clear();
    if report.stopped {
        ui.note("interrupted: what follows is of the bars read so far");
    }
    let refused: u64 = report.inputs.iter().map(|input| input.account.faults()).sum();
    if refused > 0 {
        ui.note(&format!("{refused} rows were refused; `tidegate inspect` says why"));
    }
    // What was lost or damaged on the way is as much an error here as in a replay.
    let exit = crate::summary::verdict(&mut report)?;
    if exit != Exit::Ok {
        return Err(Failure::new(
            exit,
            anyhow!("the bars are not whole; see `tidegate replay` of the same files"),
        ));
    }
    found.symbols.retain(|_, history| !history.close.is_empty());
    if found.symbols.is_empty() {
        return Err(Failure::new(Exit::Input, anyhow!("there are no trades in these files, so no bars")));
    }
    Ok(found)
}

/// What computes: the device where `TIDEGATE_GPU` lets it and there is one, else every core. Asked before files are read, so
/// that a device which is required and missing is said at once.
pub(crate) fn backend(ui: &Ui) -> Result<Accel, Failure> {
    let backend = Accel::open(gpu_policy()?, 0)?;
    match backend.unavailable() {
        // A machine without a GPU is no news.
        None | Some(Unavailable::NoLibrary) => {}
        Some(reason) => ui.note(&format!("{reason}; computing on the CPU")),
    }
    Ok(backend)
}

/// What `TIDEGATE_GPU` says.
pub(crate) fn gpu_policy() -> Result<GpuPolicy, Failure> {
    match std::env::var("TIDEGATE_GPU") {
        Ok(text) => policy(&text),
        Err(VarError::NotPresent) => Ok(GpuPolicy::Auto),
        Err(VarError::NotUnicode(text)) => policy(&text.to_string_lossy()),
    }
}

fn policy(text: &str) -> Result<GpuPolicy, Failure> {
    text.parse().map_err(|error: UnknownPolicy| Failure::usage(format!("TIDEGATE_GPU: {error}")))
}

/// Says so where the device failed on the way: the results are the CPU's, and as good.
pub(crate) fn note_failures(backend: &Accel, ui: &Ui) {
    if let Some(error) = backend.status().last_error {
        ui.note(&format!("the GPU did not compute this ({error}); the CPU did, with the same result"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_replace_and_late_bars_find_their_place() {
        let mut history = History::default();
        assert!(history.take(10, 10, [3, 1, 2]) && history.take(30, 30, [6, 4, 5]));
        assert!(!history.take(30, 30, [9, 4, 8]));
        assert!(history.take(20, 20, [5, 2, 3]));
        assert_eq!((&history.ends[..], &history.close[..]), (&[10, 20, 30][..], &[2, 3, 8][..]));
        assert!(history.drop(20) && !history.drop(25));
        assert_eq!((&history.high[..], &history.low[..]), (&[3, 9][..], &[1, 4][..]));
    }
}
