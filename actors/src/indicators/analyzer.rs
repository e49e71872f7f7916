//! Indicators as a stage over a stream of bars.

use super::set::{IndicatorBar, IndicatorError, IndicatorSet};
use super::spec::IndicatorSpec;
use crate::finality::first_final;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::snapshot::SnapshotError;
use tidegate_engine::{Analyzer, BarState, Emit, KeyMeta, Output, Share, ShareError, output_kind};

/// Computes a row of indicators per final bar of one stream and emits it as [`output_kind::VALUES`].
///
/// Forming and amended bars are ignored: an indicator is as of its bar's first finality. So is a bar that only a late
/// trade or correction brought about (final, but behind bars already taken): it would break the series' time order. Values that are not
/// defined yet are [`super::UNDEFINED`].
#[derive(Clone, Debug)]
pub struct IndicatorAnalyzer {
    stream: u16,
    set: IndicatorSet,
}

impl IndicatorAnalyzer {
    /// Indicators `specs`, in this order of columns, over the bars of the `stream`-th stream.
    ///
    /// # Errors
    /// [`IndicatorError`] when the list is empty, has a duplicate or needs more than 16 columns.
    pub fn new(stream: u16, specs: &[IndicatorSpec]) -> Result<Self, IndicatorError> {
        Ok(Self { stream, set: IndicatorSet::new(specs)? })
    }

    /// Names of the columns, in order.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        self.set.columns()
    }

    /// The indicators and their state.
    #[must_use]
    pub fn set(&self) -> &IndicatorSet {
        &self.set
    }

    /// Makes room for keys below `keys`, so that none of them allocates later.
    pub fn reserve(&mut self, keys: usize) {
        self.set.reserve(keys);
    }

    /// The row `key` would have if its forming bar closed as `bar`; `row` is cut to the columns. State is unchanged.
    pub fn peek(&self, key: u32, bar: &IndicatorBar, row: &mut [f64; OUTPUT_WORDS]) {
        self.set.peek(key, bar, row);
    }
}

impl Analyzer for IndicatorAnalyzer {
    fn on_outputs(&mut self, outputs: &[Output], out: &mut Emit<'_>) {
        let columns = self.set.column_count() as u8;
        self.set.touch(outputs.iter().map(|output| output.key));
        for output in outputs {
            let Some(bar) = first_final(output, self.stream) else { continue };
            out.push_with(|row| {
                (row.name, row.ts, row.slot, row.key) = (output.name, output.ts, output.slot, output.key);
                (row.kind, row.state, row.cause) = (output_kind::VALUES, BarState::Final as u8, output.cause);
                row.count = columns;
                self.set.update(
                    output.key,
                    &IndicatorBar::from(bar),
                    zerocopy::transmute_mut!(&mut row.words),
                );
            });
        }
    }

    fn on_watermark(&mut self, _: u64, _: &mut Emit<'_>) {}

    fn on_end(&mut self, _: &mut Emit<'_>) {}

    fn save(&self, snapshot: &mut Vec<u8>) {
        self.set.save(snapshot);
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.set.restore(snapshot)
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        self.set.regroup(keys.len(), shares)
    }
}
