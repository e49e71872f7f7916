//! Packets off an interface, judged as they come, on a thread of their own.

use super::evidence::Given;
use super::judging::Judging;
use crate::capture::{Capture, Captured, Taken};
use crate::render::thousands;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Packets judged before flows and counters are shown.
const STEP: u64 = 1_024;

/// Starts the thread. It ends when `stop` is raised.
pub(super) fn start(
    capture: Capture,
    mut judging: Judging,
    stop: Arc<AtomicBool>,
) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("tg-packets".to_owned());
    thread.spawn(move || {
        let board = Arc::clone(&judging.board);
        let name = capture.name().to_owned();
        let count = |taken: &Taken| {
            board.counts.packets.store(taken.account.units, Relaxed);
            board.counts.packets_dropped.store(taken.dropped, Relaxed);
        };
        let ended = capture.run(
            || stop.load(Relaxed),
            |note| board.note(note),
            |captured, taken| {
                let given = match &captured {
                    Captured::Frame { frame, raw, .. } => Given::Packet(frame, raw),
                    // Before the first packet time passes for nobody.
                    Captured::Pause(_) if !judging.has_begun() => return true,
                    Captured::Pause(now) => Given::Pause(*now),
                };
                judging.take(&given);
                if taken.account.accepted.is_multiple_of(STEP) || matches!(given, Given::Pause(_)) {
                    count(taken);
                    judging.show();
                }
                true
            },
        );
        match ended {
            Ok(taken) => {
                count(&taken);
                let (judged, all) = (thousands(taken.account.accepted), thousands(taken.account.units));
                let dropped = thousands(taken.dropped);
                board.note(format!(
                    "{name}: {judged} of {all} packets were judged; the kernel dropped {dropped} more"
                ));
            }
            Err(failure) => {
                board.note(format!("warning: no packets are judged any more: {:#}", failure.error));
            }
        }
        judging.finish();
    })
}
