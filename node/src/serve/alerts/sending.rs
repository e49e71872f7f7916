//! Sinks of a server: a thread and a bounded queue each, so that none waits for another and nothing waits for any.

use super::board::Board;
use crate::exit::Failure;
use crate::sink::{SinkSpec, Sinks};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tidegate_alert::Episode;
use tidegate_alert::render::Event;

/// Alerts that wait for a sink; more are lost, and counted.
const QUEUE_MAX: usize = 256;
/// How long a sink that failed several times is left alone before it is opened anew.
const PAUSE: Duration = Duration::from_secs(30);
/// How long the end waits for what sinks have not sent yet.
const LINGER: Duration = Duration::from_secs(5);

/// A sink.
pub(super) struct Sending {
    queue: SyncSender<(Box<Episode>, Event)>,
    thread: std::thread::JoinHandle<()>,
    name: String,
}

impl Sending {
    /// Opens it: what cannot be reached at the start is told then.
    pub(super) fn start(spec: SinkSpec, board: &Arc<Board>) -> Result<Self, Failure> {
        let sinks = Sinks::open(std::slice::from_ref(&spec))?;
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        board.counts.sinks_room.fetch_add(QUEUE_MAX as u64, Relaxed);
        let name = sinks.names();
        let board = Arc::clone(board);
        let thread = std::thread::Builder::new()
            .name("tg-sink".to_owned())
            .spawn(move || send(&spec, sinks, &waiting, &board))
            .map_err(|error| Failure::internal(format!("no thread for a sink: {error}")))?;
        Ok(Self { queue, thread, name })
    }

    /// Takes an alert, unless there is no room for it.
    pub(super) fn tell(&self, episode: &Episode, event: Event, board: &Board) {
        match self.queue.try_send((Box::new(episode.clone()), event)) {
            Ok(()) => board.counts.to_sinks.fetch_add(1, Relaxed),
            Err(_) => board.counts.unsent.fetch_add(1, Relaxed),
        };
    }

    /// Waits a while until all is sent.
    pub(super) fn finish(self, board: &Board) {
        drop(self.queue);
        let end = Instant::now() + LINGER;
        while !self.thread.is_finished() {
            if Instant::now() >= end {
                board.note(format!("{}: it did not take everything in time", self.name));
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

fn send(spec: &SinkSpec, mut sinks: Sinks, waiting: &Receiver<(Box<Episode>, Event)>, board: &Board) {
    let mut again = None;
    for (episode, event) in waiting {
        board.counts.from_sinks.fetch_add(1, Relaxed);
        if again.is_some_and(|again| Instant::now() >= again)
            && let Ok(anew) = Sinks::open(std::slice::from_ref(spec))
        {
            (sinks, again) = (anew, None);
        }
        let before = sinks.sent();
        if again.is_none() {
            sinks.tell(&episode, event);
        }
        if sinks.sent() > before {
            board.counts.sent.fetch_add(1, Relaxed);
            continue;
        }
        board.counts.unsent.fetch_add(1, Relaxed);
        if again.is_none() && sinks.given_up() {
            again = Some(Instant::now() + PAUSE);
            board.note(format!(
                "warning: {}: left alone for {} s: {}",
                sinks.names(),
                PAUSE.as_secs(),
                sinks.example()
            ));
        } else if again.is_some_and(|again| Instant::now() >= again) {
            again = Some(Instant::now() + PAUSE);
        }
    }
}
