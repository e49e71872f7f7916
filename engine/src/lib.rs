//! The kernel of Tidegate: events, rings, windows, watermarks, digests and the shard that runs operators.
//!
//! **Invariant:** nothing here reads a clock, opens a socket or a file, spawns a thread, or knows tokio or CUDA.
//! Time comes in as data, effects go out as values; the same input log gives the same bytes.
#![forbid(unsafe_code)]

pub mod units;

pub mod event;
pub mod slot;
pub mod table;

pub mod ring;
pub mod sequencer;
pub mod wake;
pub mod watermark;

pub mod router;

pub mod ledger;
pub mod operator;
pub mod output;
pub mod snapshot;

pub mod shard;

pub use event::{Event, FlowPayload, NamePayload, OrderPayload, flag, kind};
pub use ledger::{Fate, Ledger};
pub use operator::{Analyzer, Context, GapSpan, Operator};
pub use output::{BarState, BarWords, Cause, Emit, Lane, Output, OutputSink, SlotAccount, output_kind};
pub use ring::{FullPolicy, Receiver, RingStats, Sender, ring};
pub use router::{Placement, PlacementError, Router};
pub use sequencer::{FRAME_EVENTS, Sequencer, SequencerOptions, SequencerState};
pub use shard::{
    Analysis, AnalyzerStage, Digest, Legacy, PartError, PartHead, Progress, RegroupError, Shard, Share,
    ShareError, Stage, regroup,
};
pub use slot::{KeyMeta, SLOT_COUNT, name_hash, slot_of};
pub use table::Table;
pub use units::{EventTime, Notional, Price, Size, UnitError, Volume, WindowWidth};
pub use wake::{Sleeper, Waker};
pub use watermark::{Fence, FenceOptions, FenceState, IdleDetector, WatermarkTracker};
