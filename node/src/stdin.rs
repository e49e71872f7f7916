//! The standard input as events, as they come. Reading waits, so it has a thread of its own; what it has read is there at once.

use crate::interrupt::Interrupt;
use std::io::Read as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tidegate_engine::Event;
use tidegate_replay::decode::{ReadOptions, open_stream};
use tidegate_replay::{ReadError, Source};
use tokio::sync::Notify;

/// Bytes taken from a pipe at once, and how many such pieces wait.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 4;
/// How often somebody who waits for a pipe looks whether the user still wants it.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// A pipe as bytes, as they come, until the user wants no more. Then reading fails, so that half a line is not taken for a whole one.
pub(crate) struct Bytes {
    pieces: std::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>,
    piece: std::io::Cursor<Vec<u8>>,
    interrupt: Interrupt,
}

impl Bytes {
    /// Reads `stream` from now on. The thread ends with its input, or with the process.
    pub(crate) fn of(
        mut stream: Box<dyn std::io::Read + Send>,
        interrupt: Interrupt,
    ) -> std::io::Result<Self> {
        let (sender, pieces) = std::sync::mpsc::sync_channel(PIECES_MAX);
        std::thread::Builder::new().name("tg-pipe".to_owned()).spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match stream.read(&mut piece) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let over = !matches!(read, Ok(1..));
                let sent = sender.send(read.map(|count| {
                    piece.truncate(count);
                    piece
                }));
                if over || sent.is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { pieces, piece: std::io::Cursor::default(), interrupt })
    }
}

impl std::io::Read for Bytes {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        use std::sync::mpsc::RecvTimeoutError;
        loop {
            let count = self.piece.read(room)?;
            if count > 0 || room.is_empty() {
                return Ok(count);
            }
            if self.interrupt.raised() {
                return Err(std::io::Error::other("the user wants no more"));
            }
            match self.pieces.recv_timeout(LOOK) {
                Ok(Ok(piece)) if piece.is_empty() => return Ok(0),
                Ok(piece) => self.piece = std::io::Cursor::new(piece?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
    }
}

/// Events read ahead; then reading waits, and whoever writes into the pipe with it.
const AHEAD_MAX: usize = 1 << 16;

/// What has been read and not yet been taken.
#[derive(Default)]
pub(crate) struct Come {
    pub(crate) events: Vec<Event>,
    /// Names of the keys behind those taken before.
    pub(crate) names: Vec<Arc<str>>,
    /// Bytes read so far.
    pub(crate) bytes: u64,
    /// Units refused so far.
    pub(crate) refused: u64,
    /// How it ended, once everything is taken.
    pub(crate) end: Option<Result<(), ReadError>>,
}

#[derive(Default)]
struct Shared {
    come: Mutex<Come>,
    taken: Condvar,
    news: Notify,
}

impl Shared {
    fn come(&self) -> MutexGuard<'_, Come> {
        self.come.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe being read.
pub(crate) struct Pipe(Arc<Shared>);

impl Pipe {
    /// Reads the standard input from now on. The thread ends with its input, or with the process.
    pub(crate) fn stdin(options: ReadOptions) -> std::io::Result<Self> {
        Self::read(Box::new(std::io::stdin()), "stdin", options)
    }

    /// The same of any other stream; `label` stands for its path in messages.
    pub(crate) fn read(
        stream: Box<dyn std::io::Read + Send>,
        label: &str,
        options: ReadOptions,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let reading = Arc::clone(&shared);
        let label = std::path::PathBuf::from(label);
        std::thread::Builder::new().name("tg-stdin".to_owned()).spawn(move || {
            // Until its first bytes have come nobody knows what it is.
            let outcome = open_stream(stream, &label, &options)
                .and_then(|mut source| read_on(source.as_mut(), &reading));
            reading.come().end = Some(outcome);
            reading.news.notify_one();
        })?;
        Ok(Self(shared))
    }

    /// Takes at most `max` events and all that is known beside them; waits while there is nothing new. Safe to cancel.
    pub(crate) async fn next(&self, max: usize) -> Come {
        loop {
            let news = self.0.news.notified();
            {
                let mut come = self.0.come();
                if !come.events.is_empty() || come.end.is_some() {
                    let count = max.min(come.events.len());
                    let rest = come.events.split_off(count);
                    let end = if rest.is_empty() { come.end.take() } else { None };
                    let taken = Come {
                        events: std::mem::replace(&mut come.events, rest),
                        names: std::mem::take(&mut come.names),
                        end,
                        ..*come
                    };
                    self.0.taken.notify_one();
                    return taken;
                }
            }
            news.await;
        }
    }
}

fn read_on(source: &mut dyn Source, shared: &Shared) -> Result<(), ReadError> {
    let mut events = Vec::new();
    let mut named = 0;
    loop {
        // One at a time: asked for more, a source would wait for them.
        let outcome = source.read(&mut events, 1);
        let mut come = shared.come();
        while come.events.len() >= AHEAD_MAX {
            come = shared.taken.wait(come).unwrap_or_else(PoisonError::into_inner);
        }
        come.events.append(&mut events);
        come.names.extend(source.names().iter().skip(named).cloned());
        named = source.names().len();
        come.bytes = source.progress().bytes;
        come.refused = source.account().faults();
        drop(come);
        if outcome? == 0 {
            return Ok(());
        }
        shared.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn what_has_come_is_there_before_more_comes() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pipe = Pipe::read(Box::new(reader), "stdin", ReadOptions::default()).unwrap();
        runtime().block_on(async {
            writer.write_all(b"ts,symbol,price,size\n1,A,1,1\n").unwrap();
            let first = pipe.next(100).await;
            assert_eq!((first.events.len(), first.names.len(), first.end.is_none()), (1, 1, true));
            writer.write_all(b"2,A,1,1\n3,B,1,1\nnonsense\n").unwrap();
            drop(writer);
            let (mut events, mut names) = (0, 0);
            let last = loop {
                let come = pipe.next(1).await;
                events += come.events.len();
                names += come.names.len();
                if come.end.is_some() {
                    break come;
                }
            };
            assert_eq!((events, names, last.refused), (2, 1, 1));
            assert!(matches!(last.end, Some(Ok(()))));
        });
    }

    #[test]
    fn reading_waits_for_whoever_takes() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pipe = Pipe::read(Box::new(reader), "stdin", ReadOptions::default()).unwrap();
        let rows = 3 * AHEAD_MAX;
        let writing = std::thread::spawn(move || {
            writer.write_all(b"ts,symbol,price,size\n").unwrap();
            for ts in 0..rows {
                writeln!(writer, "{ts},A,1,1").unwrap();
            }
        });
        let mut events = 0;
        runtime().block_on(async {
            loop {
                let come = pipe.next(usize::MAX).await;
                assert!(come.events.len() <= AHEAD_MAX);
                events += come.events.len();
                if let Some(end) = come.end {
                    break end.unwrap();
                }
            }
        });
        writing.join().unwrap();
        assert_eq!(events, rows);
    }

    #[test]
    fn what_is_no_input_says_so() {
        let bytes: &[u8] = b"PAR1........PAR1";
        let pipe = Pipe::read(Box::new(bytes), "stdin", ReadOptions::default()).unwrap();
        let come = runtime().block_on(pipe.next(1));
        let error = come.end.expect("it has ended").unwrap_err().to_string();
        assert!(error.contains("`stdin`") && error.contains("pipe"), "{error}");
    }
}
