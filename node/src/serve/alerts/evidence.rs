//! The flows that exporters told, and the packets of an interface, recorded, so that `tidegate alert replay` can judge them again and reach an alert's score to the bit.
//!
//! Detectors remember for as long as a node runs, and no recording can be as long. So there are files of a bounded size, each beginning
//! when the one before is half full, and each with a judge of its own who knows what is in the file and nothing else. What the node's
//! judge finds is proved by the oldest file whose judge finds the same, to the bit, at the same flow. Where none does the finding rests on
//! flows from before, and says so. The first file's judge is the node's own.
//!
//! ```text
//! tg-detect: flow -> the node's judge -> finding --.
//!                 -> files (and their judges) ------+-> finding with its proof -> tg-alerts: files to the disk, then the alert
//! ```

use crate::alert::input::{BYTES, EDGES};
use crate::exit::{Exit, Failure};
use crate::judge::Judge;
use crate::packets::{self, Raw};
use crate::recorded::MAGIC;
use crate::render::{bytes as size, instant};
use crate::results::RowsBehind;
use crate::rules::{Rules, STREAMS};
use crate::series::{self, Series};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_alert::store::RuleSource;
use tidegate_alert::{Finding, Input, Proof, State};
use tidegate_flow::{FlowRecord, Frame, Stored};
use tidegate_replay::decode::Traffic;

/// Files that fit what may be kept: two that are open, and those that were.
const FILES: u64 = 4;
/// Bytes that wait to be written.
const BUFFER_BYTES: usize = 1 << 16;
/// After the disk refused a file, how long until the next is tried.
const PAUSE: Duration = Duration::from_secs(5);

/// What is recorded.
pub(crate) struct Kind {
    extension: &'static str,
    prefix: &'static str,
    /// What a file begins with.
    head: Vec<u8>,
}

const EXPORTS: &str = "exports-";
const PACKETS: &str = "packets-";

impl Kind {
    /// Flows of exports.
    pub(crate) fn exports() -> Self {
        Self { extension: "flows", prefix: EXPORTS, head: MAGIC.to_vec() }
    }

    /// Packets of an interface of this link type.
    pub(crate) fn packets(link: u32) -> Self {
        Self { extension: "packets", prefix: PACKETS, head: packets::head(link) }
    }
}

/// One thing that is recorded and judged.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    Flow(&'a FlowRecord),
    Packet(&'a Frame<'a>, &'a Raw<'a>),
    /// Until then nothing came.
    Pause(u64),
}

impl Given<'_> {
    fn write(&self, stored: &mut Stored, into: &mut Vec<u8>) {
        match self {
            Self::Flow(record) => stored.write(record, into),
            Self::Packet(_, raw) => packets::write(raw, into),
            Self::Pause(now) => packets::write_pause(*now, into),
        }
    }

    /// Gives it to a judge.
    pub(crate) fn give(&self, judge: &mut Judge, found: impl FnMut(Finding)) {
        match self {
            Self::Flow(record) => judge.take(&Traffic::Record(**record), found),
            Self::Packet(frame, _) => judge.take(&Traffic::Frame(**frame), found),
            Self::Pause(now) => judge.pause(*now, found),
        }
    }

    fn start_ns(&self) -> u64 {
        match self {
            Self::Flow(record) => record.start_ns,
            Self::Packet(_, raw) => raw.ts,
            Self::Pause(now) => *now,
        }
    }
}
const SERIES_EXTENSION: &str = "series";
const SERIES_PREFIX: &str = "series-";
/// Anomalies whose evidence is kept: 8 MiB.
const SERIES_MAX: usize = 1_024;

/// What it takes to judge a file again as it was judged.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) flows_max: u32,
    pub(crate) edges: Option<u32>,
    pub(crate) rules: Rules,
}

/// The files. The thread that judges writes to them, the one that keeps alerts brings them to the disk.
pub(crate) struct Evidence {
    kind: Kind,
    folder: PathBuf,
    bytes_max: u64,
    about: About,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// At most two, oldest first.
    open: VecDeque<Open>,
    /// Closed ones that alerts point to, oldest first: path and bytes.
    kept: VecDeque<(PathBuf, u64)>,
    /// Closed since the keeper asked last.
    closed: Vec<(Input, Arc<File>)>,
    begun: u64,
}

struct Open {
    name: String,
    path: PathBuf,
    file: Arc<File>,
    stored: Stored,
    waiting: Vec<u8>,
    written: u64,
    /// Bytes and records in the file and waiting.
    bytes: u64,
    units: u64,
    hasher: blake3::Hasher,
    /// An alert points to it.
    needed: bool,
}

impl Open {
    fn write_out(&mut self) -> std::io::Result<()> {
        let mut file = &*self.file;
        // What an attempt that failed has left is written over.
        file.seek(SeekFrom::Start(self.written))?;
        file.write_all(&self.waiting)?;
        self.written += self.waiting.len() as u64;
        self.hasher.update(&self.waiting);
        self.waiting.clear();
        Ok(())
    }

    /// The file as it is now, all of it written.
    fn input(&self, about: &About) -> Input {
        let mut options = BTreeMap::from([
            ("flows-max".to_owned(), about.flows_max.to_string()),
            (BYTES.to_owned(), self.bytes.to_string()),
        ]);
        options.extend(about.rules.streams.clone().map(|streams| (STREAMS.to_owned(), streams)));
        options.extend(about.edges.map(|one_in| (EDGES.to_owned(), one_in.to_string())));
        Input {
            name: self.name.clone(),
            path: self.path.display().to_string(),
            digest: self.hasher.finalize().to_hex().to_string(),
            options,
            rules: about.rules.sources.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            units: self.units,
            whole: true,
        }
    }
}

fn refused(error: &std::io::Error, path: &Path) -> String {
    format!("{}: {error}", path.display())
}

impl Evidence {
    /// Files in `folder`, made if need be, of `bytes_max` in all. What earlier starts left and no alert points to goes.
    pub(crate) fn open(
        kind: Kind,
        folder: PathBuf,
        bytes_max: u64,
        about: About,
        state: &State,
    ) -> Result<Arc<Self>, Failure> {
        let folder = made(&folder)?;
        let mut kept = Vec::new();
        for (path, name, bytes) in left(&folder, kind.extension)? {
            if points_to(state, &name) {
                kept.push((path, bytes));
            } else {
                // What cannot be removed now is tried again at the next start.
                let _ = std::fs::remove_file(&path);
            }
        }
        let files = Mutex::new(Files { kept: kept.into(), ..Files::default() });
        Ok(Arc::new(Self { kind, folder, bytes_max, about, files }))
    }

    /// Whether this is the name of a recording, as inputs in the store have it.
    pub(super) fn is_one(name: &str) -> bool {
        [EXPORTS, PACKETS].iter().any(|prefix| name.starts_with(prefix))
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size at which a file is full.
    fn full(&self) -> u64 {
        self.bytes_max / FILES
    }

    /// Begins a file, after the oldest have made room for it.
    fn begin(&self) -> Result<String, String> {
        let mut files = self.lock();
        let room = self.full() * (FILES - 2);
        while files.kept.iter().map(|(_, bytes)| bytes).sum::<u64>() > room {
            if let Some((path, _)) = files.kept.pop_front() {
                // Nor is it held open for findings that nobody has asked about yet.
                let gone = path.display().to_string();
                files.closed.retain(|(input, _)| input.path != gone);
                // Gone already is gone too.
                let _ = std::fs::remove_file(path);
            }
        }
        let name = format!("{}{}-{}", self.kind.prefix, crate::serve::now_ns(), files.begun);
        files.begun += 1;
        let path = self.folder.join(&name).with_extension(self.kind.extension);
        let file = OpenOptions::new().create_new(true).write(true).open(&path);
        let file = Arc::new(file.map_err(|error| refused(&error, &path))?);
        let mut open = Open {
            name: name.clone(),
            path,
            file,
            stored: Stored::default(),
            waiting: self.kind.head.clone(),
            written: 0,
            bytes: self.kind.head.len() as u64,
            units: 0,
            hasher: blake3::Hasher::new(),
            needed: false,
        };
        if let Err(error) = open.write_out() {
            let why = refused(&error, &open.path);
            let _ = std::fs::remove_file(&open.path);
            return Err(why);
        }
        files.open.push_back(open);
        Ok(name)
    }

    /// Appends a flow or packet to the files that are open. How many bytes the oldest has.
    fn push(&self, given: &Given<'_>) -> Result<u64, String> {
        let mut files = self.lock();
        for open in &mut files.open {
            let before = open.waiting.len();
            given.write(&mut open.stored, &mut open.waiting);
            open.bytes += (open.waiting.len() - before) as u64;
            open.units += 1;
            if open.waiting.len() >= BUFFER_BYTES {
                open.write_out().map_err(|error| refused(&error, &open.path))?;
            }
        }
        Ok(files.open.front().map_or(0, |open| open.bytes))
    }

    /// An alert points to the `at`-th open file.
    fn need(&self, at: usize) {
        if let Some(open) = self.lock().open.get_mut(at) {
            open.needed = true;
        }
    }

    /// Ends the oldest file; one that no alert points to goes.
    fn close(&self) {
        let mut files = self.lock();
        let Some(mut open) = files.open.pop_front() else { return };
        if !open.needed {
            let _ = std::fs::remove_file(&open.path);
            return;
        }
        // Where this fails, what alerts had of it before is there all the same.
        if open.write_out().is_ok() {
            files.closed.push((open.input(&self.about), Arc::clone(&open.file)));
        }
        files.kept.push_back((open.path, open.bytes));
    }

    /// Gives the open files up; what is in them stays if an alert points to it.
    fn abandon(&self) {
        let mut files = self.lock();
        while let Some(open) = files.open.pop_front() {
            if open.needed {
                files.kept.push_back((open.path, open.bytes));
            } else {
                let _ = std::fs::remove_file(&open.path);
            }
        }
    }

    /// Brings the files of these names to the disk, and says how to judge them again as far as they go now. A name that is missing in
    /// the answer could not be written.
    pub(crate) fn keep(&self, names: &BTreeSet<String>) -> Vec<Input> {
        let written: Vec<(Input, Arc<File>)> = {
            let mut files = self.lock();
            let mut written = std::mem::take(&mut files.closed);
            for open in files.open.iter_mut().filter(|open| names.contains(&open.name)) {
                // What fails here fails again at the next flow, and is told there.
                if open.write_out().is_ok() {
                    written.push((open.input(&self.about), Arc::clone(&open.file)));
                }
            }
            written
        };
        let synced = |(input, file): (Input, Arc<File>)| file.sync_data().ok().map(|()| input);
        written.into_iter().filter_map(synced).collect()
    }
}

fn output(error: std::io::Error, path: &Path) -> Failure {
    Failure::new(Exit::Output, anyhow::Error::new(error).context(path.display().to_string()))
}

/// The folder, made if need be.
fn made(folder: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(folder).map_err(|error| output(error, folder))?;
    std::path::absolute(folder).map_err(|error| output(error, folder))
}

/// Files of earlier starts: path, name, bytes; by name, which is by age.
fn left(folder: &Path, extension: &str) -> Result<Vec<(PathBuf, String, u64)>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| output(error, folder))? {
        let path = entry.map_err(|error| output(error, folder))?.path();
        if path.extension().is_some_and(|of| of == extension) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = std::fs::metadata(&path).map_or(0, |of| of.len());
            found.push((path, name, bytes));
        }
    }
    found.sort();
    Ok(found)
}

fn points_to(state: &State, name: &str) -> bool {
    state.episodes.values().any(|episode| episode.proof.as_ref().is_some_and(|proof| proof.input == name))
}

/// What something that was found in streams rests on, on its way to the disk.
#[derive(Clone)]
pub(super) struct Document {
    bytes: Vec<u8>,
    rows: u64,
    options: BTreeMap<String, String>,
    rules: Vec<RuleSource>,
}

impl From<&Series> for Document {
    fn from(series: &Series) -> Self {
        let options = BTreeMap::from([(series::WHAT.0.to_owned(), series::WHAT.1.to_owned())]);
        Self { bytes: series.bytes(), rows: series.rows(), options, rules: Vec::new() }
    }
}

impl From<RowsBehind> for Document {
    fn from(of: RowsBehind) -> Self {
        Self { bytes: of.behind.bytes(), rows: of.behind.rows(), options: of.options, rules: of.rules }
    }
}

/// What anomalies of streams, and rules over them, rest on: a file of some kilobytes each.
pub(super) struct SeriesFiles {
    folder: PathBuf,
    /// On the disk, oldest first.
    kept: VecDeque<PathBuf>,
    /// Not yet written, by name.
    waiting: BTreeMap<String, Document>,
}

impl SeriesFiles {
    /// Files in `folder`, made if need be.
    pub(super) fn open(folder: PathBuf, state: &State) -> Result<Self, Failure> {
        let folder = made(&folder)?;
        let mut kept = Vec::new();
        for (path, name, _) in left(&folder, SERIES_EXTENSION)? {
            match state.inputs.get(&name).filter(|_| points_to(state, &name)) {
                Some(_) => {
                    let age = std::fs::metadata(&path).and_then(|of| of.modified()).ok();
                    kept.push((age, path));
                }
                None => drop(std::fs::remove_file(&path)),
            }
        }
        kept.sort();
        Ok(Self { folder, kept: kept.into_iter().map(|(_, path)| path).collect(), waiting: BTreeMap::new() })
    }

    /// Whether this is the name of such a file, as inputs in the store have it.
    pub(super) fn is_one(name: &str) -> bool {
        name.starts_with(SERIES_PREFIX)
    }

    /// Remembers what a finding rests on until it is told whether that is needed.
    pub(super) fn wait(&mut self, document: Document, finding: &Finding) -> Proof {
        let digest = blake3::hash(&document.bytes).to_hex();
        let input = format!("{SERIES_PREFIX}{}", &digest[..24]);
        let (units, score_bits) = (document.rows, finding.score.to_bits());
        // Between two calls of `keep` there are as many as there are findings, which the desk's queue bounds.
        self.waiting.insert(input.clone(), document);
        Proof { input, units, at_end: false, ts: finding.ts, score_bits }
    }

    /// Brings those of these names to the disk, the oldest giving way, and forgets the others that wait. A name that is missing in the answer
    /// was kept before, or could not be written.
    pub(super) fn keep(&mut self, names: &BTreeSet<String>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (name, document) in std::mem::take(&mut self.waiting) {
            if !names.contains(&name) {
                continue;
            }
            let Document { bytes, rows, options, rules } = document;
            let path = self.folder.join(&name).with_extension(SERIES_EXTENSION);
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_data()
            });
            if written.is_err() {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            inputs.push(Input {
                name,
                path: path.display().to_string(),
                digest: blake3::hash(&bytes).to_hex().to_string(),
                options,
                rules,
                program: env!("CARGO_PKG_VERSION").to_owned(),
                units: rows,
                whole: true,
            });
            self.kept.push_back(path);
            while self.kept.len() > SERIES_MAX {
                if let Some(path) = self.kept.pop_front() {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        inputs
    }
}

/// A file that is open, and who judges what is in it.
struct Generation {
    name: String,
    /// Its first flow; 0 before it.
    since_ns: u64,
    /// None of its own: the node's judge has seen the same.
    judge: Option<Judge>,
    units: u64,
    found: Vec<Finding>,
}

/// What gives findings their proofs, on the thread that judges.
pub(crate) struct Recorder {
    evidence: Arc<Evidence>,
    generations: VecDeque<Generation>,
    trouble: Option<String>,
    again: Instant,
}

impl Recorder {
    pub(crate) fn new(evidence: Arc<Evidence>) -> Self {
        let mut recorder =
            Self { evidence, generations: VecDeque::new(), trouble: None, again: Instant::now() };
        recorder.begin(false);
        recorder
    }

    /// Begins a file, with a judge who knows nothing where `judged`.
    fn begin(&mut self, judged: bool) {
        match self.evidence.begin() {
            Ok(name) => {
                let About { flows_max, edges, rules } = &self.evidence.about;
                let new = || Judge::new(*flows_max, rules.set.clone(), String::new()).with_edges(*edges);
                let judge = judged.then(new);
                self.generations.push_back(Generation {
                    name,
                    since_ns: 0,
                    judge,
                    units: 0,
                    found: Vec::new(),
                });
            }
            Err(why) => self.fail(why),
        }
    }

    fn fail(&mut self, why: String) {
        self.evidence.abandon();
        self.generations.clear();
        (self.trouble, self.again) = (Some(why), Instant::now() + PAUSE);
    }

    /// Why flows are not recorded now.
    pub(crate) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref().filter(|_| self.generations.is_empty())
    }

    /// Records a flow or packet, and proves what the node's judge found with it.
    pub(crate) fn take(&mut self, given: &Given<'_>, findings: &mut [Finding]) {
        if self.generations.is_empty() && Instant::now() >= self.again {
            self.begin(true);
        }
        let bytes = match self.evidence.push(given) {
            Ok(bytes) => bytes,
            Err(why) => {
                self.fail(why);
                0
            }
        };
        for generation in &mut self.generations {
            let Generation { judge, units, found, since_ns, .. } = generation;
            *units += 1;
            if *since_ns == 0 {
                *since_ns = given.start_ns();
            }
            found.clear();
            judge.iter_mut().for_each(|judge| given.give(judge, |finding| found.push(finding)));
        }
        self.prove(findings, false);
        let full = self.evidence.full();
        if bytes >= full {
            self.evidence.close();
            self.generations.pop_front();
        }
        if self.generations.len() == 1 && bytes >= full / 2 {
            self.begin(true);
        }
    }

    /// There are no more flows: proves what the node's judge found at the end.
    pub(crate) fn finish(&mut self, findings: &mut [Finding]) {
        for generation in &mut self.generations {
            let Generation { judge, found, .. } = generation;
            found.clear();
            judge.iter_mut().for_each(|judge| judge.finish(|finding| found.push(finding)));
        }
        self.prove(findings, true);
        while self.generations.pop_front().is_some() {
            self.evidence.close();
        }
    }

    fn prove(&self, findings: &mut [Finding], at_end: bool) {
        for finding in findings {
            let same = |other: &Finding| {
                (&other.kind, &other.entity, other.ts) == (&finding.kind, &finding.entity, finding.ts)
                    && other.score.to_bits() == finding.score.to_bits()
            };
            let shows =
                |generation: &Generation| generation.judge.is_none() || generation.found.iter().any(same);
            let Some(at) = self.generations.iter().position(shows) else {
                finding.unproven = Some(self.why());
                continue;
            };
            self.evidence.need(at);
            let Generation { name, units, .. } = &self.generations[at];
            let (input, units, score_bits) = (name.clone(), *units, finding.score.to_bits());
            finding.proof = Some(Proof { input, units, at_end, ts: finding.ts, score_bits });
        }
    }

    fn why(&self) -> String {
        match (self.trouble(), self.generations.front()) {
            (Some(why), _) => format!("what it rests on could not be recorded: {why}"),
            (None, oldest) => format!(
                "it rests on what was before the recording, which begins at {} (`alerts.evidence` is {})",
                instant(oldest.map_or(0, |oldest| oldest.since_ns)),
                size(self.evidence.bytes_max)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
