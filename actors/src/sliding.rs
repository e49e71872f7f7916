//! Sliding bars: overlapping windows of time, each merged from slices that the windows share.

use crate::bars::{BarOptions, TimeBars};
use crate::rollup::{RollUp, RollUpError, RollUpOptions};
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{
    Analyzer, Cause, Context, Emit, Event, KeyMeta, Lane, Ledger, Operator, Output, Share, ShareError,
    output_kind,
};

/// Bars over sliding windows. A trade is applied once, to its slice; a window is merged from its slices when the
/// watermark reaches its end. Lateness, cancels and corrections are those of the slices, and an amended slice amends every
/// closed window it is in.
pub struct SlidingBars {
    slices: TimeBars,
    windows: RollUp,
    /// What slices and windows write on its way out: only the operator's own lane is numbered and digested for good.
    slice_lane: Lane,
    window_lane: Lane,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Saved {
    slices: Vec<u8>,
    windows: Vec<u8>,
}

impl SlidingBars {
    /// Windows as `windows` has them (its stream does not matter) over slices that treat trades as `bars` says.
    ///
    /// # Errors
    /// [`RollUpError`] naming the range that was left.
    pub fn new(windows: RollUpOptions, bars: BarOptions) -> Result<Self, RollUpError> {
        Ok(Self {
            slices: TimeBars::new(windows.slice, bars),
            windows: RollUp::new(RollUpOptions { stream: 0, ..windows })?,
            slice_lane: Lane::new(0),
            window_lane: Lane::new(0),
        })
    }

    /// Lets the slices work, then the windows on each thing they wrote, in its order.
    fn pass(
        &mut self,
        context: &Context,
        out: &mut Emit<'_>,
        work: impl FnOnce(&mut TimeBars, &mut Emit<'_>),
        close: bool,
    ) {
        let idle = close && context.idle_close();
        let mut publish = |outputs: &[Output]| {
            for output in outputs {
                out.push(if output.kind == output_kind::BAR {
                    complete(context, idle, output)
                } else {
                    *output
                });
            }
        };
        let windows = &mut self.windows;
        let mut merged = Emit::new(&mut self.window_lane, &mut publish);
        let mut merge = |outputs: &[Output]| {
            for output in outputs {
                match output.kind {
                    output_kind::BAR => windows.on_outputs(std::slice::from_ref(output), &mut merged),
                    _ => merged.push(*output), // a late trade set aside
                }
            }
        };
        let mut sliced = Emit::new(&mut self.slice_lane, &mut merge);
        work(&mut self.slices, &mut sliced);
        sliced.flush();
        if close {
            self.windows.on_watermark(context.watermark(), &mut merged);
        }
        merged.flush();
    }
}

/// A window's bar with what its slices do not know: a loss in those that saw no trade, and why it closed.
fn complete(context: &Context, idle: bool, output: &Output) -> Output {
    let mut bar = output.bar();
    let source = context.keys().get(output.key as usize).map_or(0, |key| key.source);
    bar.missing = context.missing(source, bar.ts_open, output.ts);
    let cause = match output.cause {
        cause if idle && cause == Cause::Watermark as u8 => Cause::Idle as u8,
        cause => cause,
    };
    Output { cause, words: bar.to_words(), ..*output }
}

impl Operator for SlidingBars {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        self.pass(context, out, |slices, emit| slices.on_events(context, events, emit), false);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        self.pass(context, out, |slices, emit| slices.on_watermark(context, emit), true);
    }

    fn ledger(&self) -> Ledger {
        self.slices.ledger()
    }

    fn cut(&self) -> u64 {
        self.slices.cut()
    }

    fn save(&self, bytes: &mut Vec<u8>) {
        let mut saved = Saved { slices: Vec::new(), windows: Vec::new() };
        self.slices.save(&mut saved.slices);
        self.windows.save(&mut saved.windows);
        snapshot::append(bytes, &saved);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let saved: Saved = snapshot::read(bytes, "sliding bars")?;
        self.slices.restore(&saved.slices)?;
        self.windows.restore(&saved.windows)
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        let saved: Result<Vec<Saved>, _> =
            shares.iter().map(|share| snapshot::read(share.state(), "sliding bars")).collect();
        let saved = saved?;
        let both = || shares.iter().zip(&saved);
        let slices: Vec<Share<'_>> = both().map(|(share, saved)| share.within(&saved.slices)).collect();
        let windows: Vec<Share<'_>> = both().map(|(share, saved)| share.within(&saved.windows)).collect();
        self.slices.regroup(keys, &slices)?;
        self.windows.regroup(keys, &windows)
    }
}
