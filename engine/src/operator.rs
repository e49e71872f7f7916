//! The two traits every computation implements, and what a shard shows them.

use crate::event::Event;
use crate::ledger::Ledger;
use crate::output::{Emit, Output};
use crate::shard::{Share, ShareError};
use crate::slot::KeyMeta;
use crate::snapshot::SnapshotError;

/// A loss that a source declared, kept as long as a window could still touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct GapSpan {
    /// The source that lost events.
    pub source: u16,
    /// Event time of the last event before the loss.
    pub from: u64,
    /// Event time at which the source resumed.
    pub to: u64,
    /// Events lost.
    pub lost: u64,
}

/// What a shard knows and its operators may read: keys, the frame at hand, the watermark, declared losses.
/// All of it follows from the shard's input log.
#[derive(Debug, Default)]
pub struct Context {
    pub(crate) keys: Vec<KeyMeta>,
    pub(crate) frame: u64,
    pub(crate) watermark: u64,
    pub(crate) gaps: Vec<GapSpan>,
    pub(crate) ended: bool,
    pub(crate) idle_close: bool,
}

impl Context {
    /// Keys defined so far; a key is an index into this.
    #[must_use]
    pub fn keys(&self) -> &[KeyMeta] {
        &self.keys
    }

    /// Sequence of the frame whose events are being applied.
    #[must_use]
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// Minimum over active sources: no on-time event is older. Never moves back.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Whether the input has ended: everything open closes now.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the watermark moved only because a source went idle.
    #[must_use]
    pub fn idle_close(&self) -> bool {
        self.idle_close
    }

    /// Events that `source` is known to have lost within `[from, to)`, at most [`u64::MAX`]: whoever declares losses may declare any
    /// number. An upper bound for any one key.
    #[must_use]
    pub fn missing(&self, source: u16, from: u64, to: u64) -> u64 {
        // Empty in a healthy feed, so the usual cost is one load and one branch per closed bar.
        self.gaps
            .iter()
            .filter(|gap| gap.source == source && gap.from < to && gap.to >= from)
            .fold(0, |sum: u64, gap| sum.saturating_add(gap.lost))
    }

    /// A context outside a shard, for tests and benches of single operators.
    #[must_use]
    pub fn standalone(keys: Vec<KeyMeta>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Moves a standalone context's watermark forward; returns whether it moved.
    pub fn advance(&mut self, watermark: u64) -> bool {
        let moved = watermark > self.watermark;
        self.watermark = self.watermark.max(watermark);
        moved
    }

    /// Marks a standalone context's input as ended.
    pub fn end(&mut self) {
        self.ended = true;
        self.watermark = u64::MAX;
    }

    /// Sets a standalone context's frame.
    pub fn set_frame(&mut self, frame: u64) {
        self.frame = frame;
    }
}

/// One stage of a shard that reads events: single-threaded, no I/O; the same inputs give the same bytes out.
pub trait Operator: Send {
    /// Takes one run of data events in log order (never control records). Allocates nothing once its keys are warm.
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>);

    /// [`Context::watermark`] moved (or the input ended): close the windows that end by then.
    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>);

    /// The account of every event delivered so far.
    fn ledger(&self) -> Ledger;

    /// Trades and closed bars that left memory before their time because a bound on their number was reached. They are in
    /// the results already; what is lost is that a late trade, cancel or correction could still have changed them.
    fn cut(&self) -> u64 {
        0
    }

    /// Appends the whole state. The inverse is [`Operator::restore`] on an operator of the same configuration.
    fn save(&self, snapshot: &mut Vec<u8>);

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are not a state of this operator; the operator is then unusable.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError>;

    /// Takes over, as one that has seen nothing yet, what operators of other shards leave to it: of each of `shares` the keys that come here, and
    /// its counts where [`Share::has_counts`] says so. `keys` are those of this shard. From here on it writes, for each slot, what the old ones
    /// would have written; keys of one slot come from one of them and keep their order. What shards at one place of the log know alike must
    /// be alike in all.
    ///
    /// An operator that does not say how is indivisible: its snapshots are of use to as many shards only as took them.
    ///
    /// # Errors
    /// [`ShareError`] by what is wrong; the operator is then unusable.
    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        let _ = (keys, shares);
        Err(ShareError::Indivisible)
    }
}

/// One stage that reads another stage's outputs (indicators over bars, roll-ups): same rules as [`Operator`].
pub trait Analyzer: Send {
    /// Takes outputs of its upstream stage in order.
    fn on_outputs(&mut self, outputs: &[Output], out: &mut Emit<'_>);

    /// Every upstream output with `ts <= watermark` has been delivered.
    fn on_watermark(&mut self, watermark: u64, out: &mut Emit<'_>) {
        let _ = (watermark, out);
    }

    /// The input ended: emit what is still open.
    fn on_end(&mut self, out: &mut Emit<'_>);

    /// Appends the whole state.
    fn save(&self, snapshot: &mut Vec<u8>);

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are not a state of this analyzer; it is then unusable.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError>;

    /// As [`Operator::regroup`].
    ///
    /// # Errors
    /// [`ShareError`] by what is wrong; the analyzer is then unusable.
    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        let _ = (keys, shares);
        Err(ShareError::Indivisible)
    }
}
