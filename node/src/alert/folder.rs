//! The store of alerts on disk: one file of lines, appended to and synced; a lock for who writes.

use super::args::StoreArgs;
use crate::exit::{Exit, Failure};
use crate::place::data_folder;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tidegate_alert::store::{Ending, LINE_BYTES_MAX};
use tidegate_alert::{Entry, State};

const FILE: &str = "alerts.jsonl";
const LOCK: &str = "alerts.lock";
/// A file of this size is replaced by its state when that is half as long or shorter.
const COMPACT_BYTES: u64 = 64 << 20;
/// Largest file that is read: state is bounded, so one that was compacted in time cannot come near.
const READ_BYTES_MAX: u64 = 1 << 30;

/// The folder that is asked for, if one is.
pub(crate) fn asked(args: &StoreArgs) -> Option<PathBuf> {
    args.alerts.clone().or_else(|| args.data.as_ref().map(|data| data.join("alerts")))
}

/// The folder that is asked for, or the user's own.
pub(crate) fn folder(args: &StoreArgs) -> Result<PathBuf, Failure> {
    match asked(args) {
        Some(folder) => Ok(folder),
        None => Ok(data_folder(None)?.join("alerts")),
    }
}

/// What a store says, for those who only read. A store that is not there says nothing.
pub(crate) fn read(folder: &Path) -> Result<State, Failure> {
    let path = folder.join(FILE);
    match File::open(&path) {
        Ok(mut file) => Ok(load(&mut file, &path)?.0),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::new(
            Exit::Input,
            anyhow::anyhow!(
                "there are no alerts in {}: `tidegate detect FILE --alerts {}` writes them",
                folder.display(),
                folder.display()
            ),
        )),
        Err(error) => Err(input(error, &path)),
    }
}

fn input(error: std::io::Error, path: &Path) -> Failure {
    Failure::new(Exit::Input, anyhow::Error::new(error).context(path.display().to_string()))
}

fn load(file: &mut File, path: &Path) -> Result<(State, Ending), Failure> {
    let length = file.metadata().map_err(|error| input(error, path))?.len();
    if length > READ_BYTES_MAX {
        let text = format!(
            "{}: {length} bytes are more than a store of alerts can have ({READ_BYTES_MAX})",
            path.display()
        );
        return Err(Failure::new(Exit::Input, anyhow::anyhow!(text)));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| input(error, path))?;
    State::read(&bytes)
        .with_context(|| path.display().to_string())
        .map_err(|error| Failure::new(Exit::Input, error))
}

/// A node that writes to a store for as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Its process.
    pub(crate) pid: u32,
    /// Its gateway, if it has one.
    pub(crate) http: Option<String>,
}

/// The node that writes to a store, if one does and has said so.
pub(crate) fn holder(folder: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(folder.join(LOCK)).ok()?.take(4_096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Says that somebody else writes to a store.
pub(crate) fn held(folder: &Path) -> Failure {
    let who = match holder(folder) {
        Some(Holder { pid, .. }) => format!("the node of process {pid}"),
        None => "another process".to_owned(),
    };
    let text = format!("{}: {who} writes to these alerts; try again when it is done", folder.display());
    Failure::new(Exit::Output, anyhow::anyhow!(text))
}

/// A store that is written to.
pub(crate) struct Store {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// What it says.
    pub(crate) state: State,
    /// What a writer that was interrupted left, now cut off.
    pub(crate) torn_bytes: u64,
    /// A part of an append that failed may be behind the last whole one.
    unfinished: bool,
    /// Held while somebody writes.
    lock: File,
}

impl Store {
    /// Opens a store, and makes it where there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        Self::try_open(folder)?.ok_or_else(|| held(folder))
    }

    /// The same; `None` while another process writes to it.
    pub(crate) fn try_open(folder: &Path) -> Result<Option<Self>, Failure> {
        let output = |error: std::io::Error, path: &Path| {
            Failure::new(Exit::Output, anyhow::Error::new(error).context(path.display().to_string()))
        };
        std::fs::create_dir_all(folder).map_err(|error| output(error, folder))?;
        let lock_path = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| output(error, &lock_path))?;
        match lock.try_lock() {
            // What an earlier one wrote into it holds no more.
            Ok(()) => lock.set_len(0).map_err(|error| output(error, &lock_path))?,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(output(error, &lock_path)),
        }
        let path = folder.join(FILE);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(|error| output(error, &path))?;
        let (state, ending) = load(&mut file, &path)?;
        if ending.torn_bytes > 0 {
            file.set_len(ending.whole_bytes).map_err(|error| output(error, &path))?;
        }
        file.seek(SeekFrom::Start(ending.whole_bytes)).map_err(|error| output(error, &path))?;
        let (bytes, torn_bytes) = (ending.whole_bytes, ending.torn_bytes);
        Ok(Some(Self { path, file, bytes, state, torn_bytes, unfinished: false, lock }))
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Tells other processes where whoever holds the store takes what they have to say.
    pub(crate) fn held_by(&mut self, holder: &Holder) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(serde_json::to_string(holder)?.as_bytes())
    }

    /// Appends entries, all or none, and brings them to the disk.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> Result<(), Failure> {
        let mut text = String::new();
        let last = entries.len().saturating_sub(1);
        for (at, entry) in entries.iter().enumerate() {
            let line = entry.line(at < last);
            if line.len() > LINE_BYTES_MAX {
                let error = anyhow::anyhow!(
                    "{}: nothing of this was kept: an entry has {} bytes, and {LINE_BYTES_MAX} are the most that can be read again; so many \
                     rules cannot be named beside an alert",
                    self.path.display(),
                    line.len()
                );
                return Err(Failure::new(Exit::Output, error));
            }
            text.push_str(&line);
        }
        let written = self
            .cut_off()
            .and_then(|()| self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What there is of it is no append: readers know that as long as nothing comes behind it.
            self.unfinished = true;
            let _ = self.cut_off();
            let error = anyhow::Error::new(error)
                .context(format!("{}: nothing of this was kept", self.path.display()));
            return Err(Failure::new(Exit::Output, error));
        }
        self.bytes += text.len() as u64;
        entries.into_iter().for_each(|entry| self.state.take(entry));
        self.state.trim_inputs();
        // What was appended is on the disk. A store that cannot be made shorter now, for want of room, is made so another time.
        if self.compact().is_err() {
            let _ = std::fs::remove_file(self.path.with_extension("part"));
        }
        Ok(())
    }

    /// Cuts off what an append that failed left, and goes on behind the last whole one.
    fn cut_off(&mut self) -> std::io::Result<()> {
        if self.unfinished {
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::Start(self.bytes))?;
            self.unfinished = false;
        }
        Ok(())
    }

    fn compact(&mut self) -> std::io::Result<()> {
        if self.bytes < COMPACT_BYTES {
            return Ok(());
        }
        let text = self.state.lines();
        if text.len() as u64 > self.bytes / 2 {
            return Ok(());
        }
        let part = self.path.with_extension("part");
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, &self.path)?;
        // From here on this is the store, whatever becomes of the folder's entry.
        (self.file, self.bytes) = (file, text.len() as u64);
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}
