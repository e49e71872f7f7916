//! Flows as a node records them, so that its alerts can be judged again: a file of eight bytes that say so, and then records as
//! [`tidegate_flow::Stored`] writes them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tidegate_flow::stored::RECORD_BYTES_MAX;
use tidegate_flow::{FlowRecord, Stored, StoredError};
use tidegate_replay::decode::ReadOptions;
use tidegate_replay::{Place, Progress, ReadAccount, ReadError, RejectCause};

/// What a file begins with.
pub(crate) const MAGIC: [u8; 8] = *b"TGFLOWS1";
/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// Reads such a file.
pub(crate) struct Recorded {
    path: PathBuf,
    file: std::io::Take<File>,
    options: ReadOptions,
    stored: Stored,
    chunk: Vec<u8>,
    /// Of the chunk, what was given.
    given: usize,
    ended: bool,
    account: ReadAccount,
    progress: Progress,
}

/// Whether a file begins like one. What cannot be opened does not; whoever opens it next says why.
pub(crate) fn is_one(path: &Path) -> bool {
    begins_with(path, &MAGIC)
}

/// Whether what lies at a path is a file with these first bytes.
pub(crate) fn begins_with<const N: usize>(path: &Path, magic: &[u8; N]) -> bool {
    let mut head = [0; N];
    // A pipe's first bytes would be gone.
    std::fs::metadata(path).is_ok_and(|of| of.is_file())
        && File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok())
        && head == *magic
}

impl Recorded {
    /// Opens the first `bytes` of a file, or all of it.
    pub(crate) fn open(path: &Path, bytes: Option<u64>, options: &ReadOptions) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let bytes_total = bytes.map_or(length, |bytes| bytes.min(length));
        let mut head = [0; MAGIC.len()];
        file.read_exact(&mut head).map_err(io)?;
        Ok(Self {
            path: path.to_path_buf(),
            file: file.take(bytes_total.saturating_sub(MAGIC.len() as u64)),
            options: options.clone(),
            stored: Stored::default(),
            chunk: Vec::new(),
            given: 0,
            ended: false,
            account: ReadAccount::default(),
            progress: Progress { bytes: MAGIC.len() as u64, bytes_total },
        })
    }

    /// Gives about `max` records to `take`. False once the file has ended.
    pub(crate) fn read(&mut self, max: usize, mut take: impl FnMut(&FlowRecord)) -> Result<bool, ReadError> {
        for _ in 0..max {
            if self.chunk.len() - self.given < RECORD_BYTES_MAX && !self.ended {
                self.fill()?;
            }
            if self.given == self.chunk.len() {
                return Ok(false);
            }
            match self.stored.read(&self.chunk[self.given..]) {
                Ok((record, bytes)) => {
                    self.given += bytes;
                    self.progress.bytes += bytes as u64;
                    let ReadOptions { from, to, .. } = self.options;
                    let before = from.is_some_and(|from| record.start_ns < from.0);
                    if before || to.is_some_and(|to| record.start_ns >= to.0) {
                        let place = Place::Byte(self.progress.bytes);
                        self.account.refuse(RejectCause::Filtered, place, String::new);
                    } else {
                        self.account.accept(1);
                        take(&record);
                    }
                }
                Err(error) => return Err(self.damaged(error)),
            }
        }
        Ok(true)
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        self.chunk.drain(..self.given);
        self.given = 0;
        let before = self.chunk.len();
        let more = (&mut self.file).take(CHUNK_BYTES as u64).read_to_end(&mut self.chunk);
        more.map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        self.ended = self.chunk.len() == before;
        Ok(())
    }

    fn damaged(&self, error: StoredError) -> ReadError {
        ReadError::Damaged {
            path: self.path.clone(),
            place: Place::Byte(self.progress.bytes),
            reason: error.to_string(),
        }
    }

    pub(crate) fn account(&self) -> &ReadAccount {
        &self.account
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_flow::Ip;

    fn record(id: u64) -> FlowRecord {
        FlowRecord {
            id,
            start_ns: id * 1_000,
            last_ns: id * 1_000 + 1,
            originator: Ip::v4([10, 0, 0, 1]),
            originator_port: 1,
            responder: Ip::v4([10, 0, 0, 2]),
            responder_port: 2,
            protocol: 6,
            state: tidegate_flow::ConnState::Sf,
            history: "ShADadFf".into(),
            sent: tidegate_flow::Side::default(),
            received: tidegate_flow::Side::default(),
            packets: (id, id),
            vlan: 0,
            tunnels: 0,
            cause: tidegate_flow::EndCause::Logged,
            sampling: 1,
        }
    }

    #[test]
    fn a_recording_is_read_over_chunks_up_to_where_it_was_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.flows");
        let (mut bytes, mut stored) = (MAGIC.to_vec(), Stored::default());
        let mut then = 0;
        for id in 0..5_000 {
            stored.write(&record(id), &mut bytes);
            if id == 999 {
                then = bytes.len() as u64;
            }
        }
        assert!(bytes.len() > 2 * CHUNK_BYTES);
        std::fs::write(&path, &bytes).unwrap();
        assert!(is_one(&path));
        let all = |upto: Option<u64>, options: &ReadOptions| {
            let mut read = Recorded::open(&path, upto, options).unwrap();
            let mut ids = Vec::new();
            let end = loop {
                match read.read(7, |record| ids.push(record.id)) {
                    Ok(true) => {}
                    other => break other,
                }
            };
            (ids, end)
        };
        let usual = ReadOptions::default();
        let (ids, end) = all(None, &usual);
        assert!(ids == (0..5_000).collect::<Vec<_>>() && matches!(end, Ok(false)));
        let (ids, end) = all(Some(then), &usual);
        assert!(ids == (0..1_000).collect::<Vec<_>>() && matches!(end, Ok(false)));
        let (ids, end) = all(Some(then - 1), &usual);
        assert_eq!(ids.len(), 999);
        assert!(matches!(end, Err(ReadError::Damaged { .. })), "{end:?}");
        let some = ReadOptions {
            from: Some(tidegate_engine::EventTime(10_000)),
            to: Some(tidegate_engine::EventTime(12_000)),
            ..usual
        };
        assert_eq!(all(None, &some).0, [10, 11]);
        std::fs::write(&path, "TGFLOWS2").unwrap();
        assert!(!is_one(&path));
    }
}
