//! Which bars analyzers read: each as it first became final, in the order of time.

use tidegate_engine::{BarState, BarWords, Cause, Output, output_kind};

const FINAL: u8 = BarState::Final as u8;
const LATE: u8 = Cause::Late as u8;
const CORRECTION: u8 = Cause::Correction as u8;

/// The bar, if this is one of `stream` that has just become final. Not one that only a late trade or a correction brought about: it
/// is final, but behind bars already taken.
#[inline]
#[must_use]
pub fn first_final(output: &Output, stream: u16) -> Option<&BarWords> {
    let is_bar = output.kind == output_kind::BAR && output.stream == stream && output.state == FINAL;
    // A view: copying 128 bytes would show.
    (is_bar && !matches!(output.cause, LATE | CORRECTION)).then(|| zerocopy::transmute_ref!(&output.words))
}
