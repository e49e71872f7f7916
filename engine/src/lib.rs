//! The kernel of Tidegate: events, rings, windows, watermarks, digests and the shard that runs operators.
//!
//! **Invariant:** nothing here reads a clock, opens a socket or a file, spawns a thread, or knows tokio or CUDA.
//! Time comes in as data, effects go out as values; the same input log gives the same bytes.
#![deny(unsafe_code)]

pub mod event;
pub mod ledger;
pub mod operator;
pub mod output;
pub mod slot;
pub mod snapshot;
pub mod units;

pub use event::{Event, FlowPayload, NamePayload, OrderPayload, flag, kind};
pub use ledger::{Fate, Ledger};
pub use operator::{Analyzer, Context, GapSpan, Operator};
pub use output::{BarState, BarWords, Cause, Emit, Lane, Output, OutputSink, output_kind};
pub use slot::{KeyMeta, SLOT_COUNT, name_hash, slot_of};
pub use units::{EventTime, Notional, Price, Size, UnitError, Volume, WindowWidth};
