//! Tidegate's own capture format, `.tgc`: events in compressed, checksummed blocks that can be read alone, an index for
//! seeking, and a tail that may be missing.
//!
//! **Invariant:** every byte that is believed is under a checksum first, and every count is checked against a limit and
//! against the bytes at hand before anything is set aside for it. A capture cut short reads up to its last whole
//! block; a damaged one never reads as different events. `docs/capture-format.md` has the format byte by byte and
//! the measurements behind it.

mod columns;
mod format;
mod pack;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use format::{BLOCK_EVENTS_MAX, BlockInfo, MAGIC, NAMES_MAX, VERSION};
pub use reader::CaptureReader;
pub use writer::{CaptureOptions, CaptureSummary, CaptureWriter, Codec, WriteError};
