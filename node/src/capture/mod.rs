//! Packets off a network interface.

use crate::packets::Raw;
use crate::render::{Ui, thousands};
use tidegate_flow::Frame;
use tidegate_replay::ReadAccount;

#[cfg(all(feature = "live-capture", target_os = "linux"))]
mod socket;
#[cfg(all(feature = "live-capture", target_os = "linux"))]
pub(crate) use socket::receive;

/// What a capture gives.
#[cfg_attr(not(all(feature = "live-capture", target_os = "linux")), expect(dead_code))]
pub(crate) enum Captured<'a> {
    /// A packet, and as it came: what `raw` says through an interface of this link type is `frame`.
    Frame { frame: Frame<'a>, raw: Raw<'a>, link: u32 },
    /// Nothing came for a moment; ns since 1970.
    Pause(u64),
}

/// What became of the packets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) account: ReadAccount,
    /// Dropped by the kernel because they were not taken fast enough.
    pub(crate) dropped: u64,
}

impl Taken {
    /// Says what was lost.
    pub(crate) fn note(&self, ui: &Ui) {
        if self.dropped > 0 {
            ui.note(&format!(
                "{} packets were dropped by the kernel because they were not taken fast enough",
                thousands(self.dropped)
            ));
        }
    }
}

/// This build cannot.
#[cfg(not(all(feature = "live-capture", target_os = "linux")))]
pub(crate) fn receive(
    _args: &crate::cli::CaptureArgs,
    _interrupt: &crate::interrupt::Interrupt,
    _ui: &Ui,
    _take: impl FnMut(Captured<'_>) -> bool,
) -> Result<Taken, crate::exit::Failure> {
    let why = "this build cannot capture: it takes Linux and the feature `live-capture`";
    Err(crate::exit::Failure::new(crate::exit::Exit::Usage, anyhow::anyhow!(why)))
}
