//! The snapshots beside a journal, looked at whole.

use crate::exit::{Exit, Failure};
use crate::render::{Table, Tone, Ui, bytes, clean, instant, thousands};
use serde_json::{Value, json};
use std::path::Path;
use tidegate_journal::format::hex;
use tidegate_journal::{Lineage, Point, Scan, SnapshotFile, SnapshotFolder, SnapshotInfo};
use tidegate_live::{SavedNames, saved_names};

/// A snapshot, and what a start would say of it.
pub(super) struct Listed {
    file: SnapshotFile,
    info: Option<SnapshotInfo>,
    /// Why it is of no use; `None` when it is sound and belongs to the journal.
    problem: Option<String>,
}

/// Reads every snapshot in a journal's folder, newest first.
pub(super) fn look(folder: &Path, scan: Option<&Scan>) -> Result<Vec<Listed>, Failure> {
    let files = SnapshotFolder::new(folder)
        .list()
        .map_err(|error| Failure::new(Exit::Input, anyhow::anyhow!("{}: {error}", folder.display())))?;
    let mut buffer = Vec::new();
    let listed = files.into_iter().map(|file| {
        let (info, problem) = match file.read(&mut buffer) {
            Ok(snapshot) => (Some(snapshot.info), misfit(&snapshot.info, scan)),
            Err(error) => (file.info().ok(), Some(error.to_string())),
        };
        Listed { file, info, problem }
    });
    Ok(listed.collect())
}

/// Why a sound snapshot cannot be gone on from with this log. Of the chain of hashes nothing can be said without reading up to it.
fn misfit(info: &SnapshotInfo, scan: Option<&Scan>) -> Option<String> {
    let scan = scan?;
    let offset = info.point.offset;
    if info.point.lineage != scan.lineage {
        return Some(format!("it is of the lineage {:032x}", info.point.lineage));
    }
    if offset > scan.next_offset {
        return Some(format!("the journal ends at {}", scan.next_offset));
    }
    (offset < scan.first_offset).then(|| format!("the journal begins at {}", scan.first_offset))
}

/// Names, and the point of the log that they are of.
pub(super) struct NamesAt {
    pub(super) saved: SavedNames,
    pub(super) point: Point,
}

/// Names from the oldest snapshot that can be gone on from, of a journal that begins at `first`.
pub(super) fn names(folder: &Path, lineage: Lineage, first: u64) -> Result<NamesAt, Failure> {
    let input = |error: anyhow::Error| Failure::new(Exit::Input, error);
    let files = SnapshotFolder::new(folder)
        .list()
        .map_err(|error| input(anyhow::anyhow!("{}: {error}", folder.display())))?;
    let mut buffer = Vec::new();
    for file in files.iter().rev() {
        let Ok(snapshot) = file.read(&mut buffer) else { continue };
        let point = snapshot.info.point;
        if point.lineage == lineage
            && point.offset >= first
            && let Ok(saved) = saved_names(&snapshot)
        {
            return Ok(NamesAt { saved, point });
        }
    }
    Err(input(anyhow::anyhow!(
        "{}: the journal begins at offset {first}, and no snapshot has the names of what was in front of it; without --out its \
         records come as lines",
        folder.display()
    )))
}

/// Whether a start could go on from each of them.
pub(super) fn sound(listed: &[Listed]) -> bool {
    listed.iter().all(|snapshot| snapshot.problem.is_none())
}

pub(super) fn to_json(listed: &[Listed]) -> Value {
    let one = |snapshot: &Listed| {
        let info = snapshot.info.as_ref();
        json!({
            "file": snapshot.file.path.file_name().map(|name| name.to_string_lossy()),
            "offset": snapshot.file.offset, "bytes": snapshot.file.bytes, "sound": snapshot.problem.is_none(),
            "problem": snapshot.problem, "taken_ns": info.map(|info| info.taken_ns),
            "digest": info.map(|info| hex(&info.digest)), "settings": info.map(|info| hex(&info.settings)),
        })
    };
    listed.iter().map(one).collect()
}

pub(super) fn render(listed: &[Listed], ui: &Ui) -> String {
    if listed.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[">snapshot of", ">size", "taken", "digest", ""]);
    for snapshot in listed {
        let (tone, verdict) = match &snapshot.problem {
            None => (Tone::Good, "sound".to_owned()),
            Some(problem) => (Tone::Bad, clean(problem)),
        };
        let info = snapshot.info.as_ref();
        table.toned([
            (Tone::Plain, &thousands(snapshot.file.offset)),
            (Tone::Plain, &bytes(snapshot.file.bytes)),
            (Tone::Plain, &info.map_or_else(|| "-".to_owned(), |info| instant(info.taken_ns))),
            (Tone::Plain, &info.map_or_else(|| "-".to_owned(), |info| hex(&info.digest))),
            (tone, &verdict),
        ]);
    }
    format!("\n{}", table.render(ui, 2))
}
