//! Packets off a network interface.

use crate::cli::CaptureArgs;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::packets::Raw;
use crate::render::{Ui, thousands};
use tidegate_flow::Frame;
use tidegate_replay::ReadAccount;

#[cfg(all(feature = "live-capture", target_os = "linux"))]
mod socket;
#[cfg(all(feature = "live-capture", target_os = "linux"))]
pub(crate) use socket::Capture;

/// What is taken.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) interface: String,
    /// Bytes of each packet that are kept.
    pub(crate) snapshot_length: u32,
    /// Also packets that are meant for other hosts.
    pub(crate) promiscuous: bool,
}

impl Wanted {
    /// What the command line asks for.
    pub(crate) fn of(args: &CaptureArgs) -> Self {
        let CaptureArgs { interface, snapshot_length, promiscuous } = args;
        Self {
            interface: interface.clone().unwrap_or_default(),
            snapshot_length: *snapshot_length,
            promiscuous: *promiscuous,
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "packets on {}{}", self.interface, if self.promiscuous { ", promiscuous" } else { "" })
    }
}

/// Gives packets to `take` until Ctrl-C, or until it says no.
pub(crate) fn receive(
    args: &CaptureArgs,
    interrupt: &Interrupt,
    ui: &Ui,
    mut take: impl FnMut(Captured<'_>) -> bool,
) -> Result<Taken, Failure> {
    let wanted = Wanted::of(args);
    let capture = Capture::open(&wanted)?;
    ui.note(&format!("{wanted}; Ctrl-C ends"));
    capture.run(|| interrupt.raised(), |note| ui.note(&note), |captured, _| take(captured))
}

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

/// Packets that this build cannot take.
#[cfg(not(all(feature = "live-capture", target_os = "linux")))]
pub(crate) enum Capture {}

#[cfg(not(all(feature = "live-capture", target_os = "linux")))]
impl Capture {
    pub(crate) fn open(_wanted: &Wanted) -> Result<Self, Failure> {
        let why = "this build cannot capture: it takes Linux and the feature `live-capture`";
        Err(Failure::new(crate::exit::Exit::Usage, anyhow::anyhow!(why)))
    }

    pub(crate) fn name(&self) -> &str {
        match *self {}
    }

    pub(crate) fn link(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn run(
        self,
        _stop: impl Fn() -> bool,
        _say: impl FnMut(String),
        _take: impl FnMut(Captured<'_>, &Taken) -> bool,
    ) -> Result<Taken, Failure> {
        match self {}
    }
}
