//! Which folder is meant: a journal's own, or the data folder of the server that keeps it.

use crate::exit::{Exit, Failure};
use crate::render::{Ui, bytes};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tidegate_journal::{Disk, Storage};

/// Where a server keeps its journal, in its data folder.
pub(crate) const FOLDER: &str = "journal";
/// How the files of a replica's log end, in the folder of a cluster's node.
const REPLICA_SUFFIX: &str = "tgr";
/// Logs and nodes that a message names one by one.
const NAMED_MAX: usize = 8;

/// The journal's folder, for the one that somebody gave; the other is said when it is another.
pub(super) fn find(given: &Path, ui: &Ui) -> Result<PathBuf, Failure> {
    let unreadable =
        |path: &Path, error| Failure::new(Exit::Input, anyhow::anyhow!("{}: {error}", path.display()));
    if has_segments(given).map_err(|error| unreadable(given, error))? {
        return Ok(given.to_owned());
    }
    let below = given.join(FOLDER);
    if below.is_dir() && has_segments(&below).map_err(|error| unreadable(&below, error))? {
        ui.note(&format!("reading {}, the journal of this data folder", below.display()));
        return Ok(below);
    }
    Err(Failure::new(Exit::Input, anyhow::anyhow!("{}: {}", given.display(), absence(given, below.is_dir()))))
}

fn has_segments(folder: &Path) -> io::Result<bool> {
    Ok(!Disk::open_read_only(folder)?.segments()?.is_empty())
}

/// Why nothing can be read here, and what there is instead.
fn absence(given: &Path, has_journal: bool) -> String {
    let logs = replica_logs(given);
    if !logs.is_empty() {
        let all: Vec<String> = logs.iter().map(|(group, log)| format!("group {group} ({log})")).collect();
        return format!(
            "this is the folder of a cluster's node, which keeps no journal but the log of each group that it holds: {}; those are \
             files of another format, which `tidegate serve --cluster` checks when it starts and of which `tidegate cluster status` \
             compares the digests",
            some_of(&all)
        );
    }
    if let Some(log) = Log::of(given) {
        return format!(
            "these files ({}) are the log of a cluster's node, no journal: `tidegate serve --cluster` checks them when it starts, and \
             `tidegate cluster status` compares the digests of all nodes",
            log.size()
        );
    }
    let nodes: Vec<String> =
        folders(given, "node-").into_values().map(|path| path.display().to_string()).collect();
    if !nodes.is_empty() {
        return format!(
            "this is a cluster's folder, whose nodes keep no journal but the logs of their groups, in {}",
            some_of(&nodes)
        );
    }
    if has_journal {
        return format!(
            "there is no journal here yet: `{FOLDER}` has no segments such as 0000000000000000.tgj"
        );
    }
    format!(
        "there is no journal here: neither segments such as 0000000000000000.tgj, nor a folder `{FOLDER}` with some, as in the data \
         folder of a server with a journal"
    )
}

/// A group's log.
struct Log {
    place: PathBuf,
    segments: usize,
    bytes: u64,
}

impl Log {
    /// What there is of one in a folder, if anything.
    fn of(place: &Path) -> Option<Self> {
        let files = std::fs::read_dir(place).ok()?.flatten();
        let of_log = files.filter(|file| file.path().extension().is_some_and(|end| end == REPLICA_SUFFIX));
        let sizes: Vec<u64> = of_log.filter_map(|file| Some(file.metadata().ok()?.len())).collect();
        let found = Self { place: place.to_owned(), segments: sizes.len(), bytes: sizes.iter().sum() };
        (found.segments > 0).then_some(found)
    }

    fn size(&self) -> String {
        let files = if self.segments == 1 { "1 file".to_owned() } else { format!("{} files", self.segments) };
        format!("{files}, {}", bytes(self.bytes))
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}, {}", self.place.display(), self.size())
    }
}

/// The logs in the folder of a node, by group.
fn replica_logs(node: &Path) -> BTreeMap<u16, Log> {
    let first = Log::of(&node.join("log")).map(|log| (0, log));
    let others = folders(node, "group-").into_iter();
    others.filter_map(|(group, path)| Some((group, Log::of(&path.join("log"))?))).chain(first).collect()
}

/// Folders with a number at the end of their name.
fn folders(within: &Path, begins: &str) -> BTreeMap<u16, PathBuf> {
    let found = std::fs::read_dir(within).into_iter().flatten().flatten();
    let numbered = |file: std::fs::DirEntry| {
        let number = file.file_name().to_str()?.strip_prefix(begins)?.parse().ok()?;
        file.path().is_dir().then(|| (number, file.path()))
    };
    found.filter_map(numbered).collect()
}

fn some_of(all: &[String]) -> String {
    match all.len().checked_sub(NAMED_MAX) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{}, and {more} more", all[..NAMED_MAX].join(", ")),
    }
}
