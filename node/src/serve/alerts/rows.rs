//! Rules over streams of results of a server: rows off the hub in their order of time, on a thread of their own (`tg-rules`).

use super::board::{Board, Rows as Behind};
use super::desk::ToDesk;
use super::evidence::Document;
use crate::results::{FoundRow, RowJudge, Table};
use crate::serve::derived::symbols::Names;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tidegate_engine::{Output, Sleeper, output_kind};
use tidegate_live::HubHandle;
use tidegate_live::derived::Began;
use tidegate_proto::subscriber::Catalogue;
use tokio::runtime::Handle;

/// Records taken in one turn.
const TURN_MAX: usize = 4_096;
/// How often it is looked for streams that a reload has changed, and how long it sleeps at most.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be read, and where what is found goes.
pub(super) struct Rows {
    pub(super) hub: HubHandle,
    pub(super) network: Handle,
    pub(super) table: Arc<Table>,
    pub(super) judge: RowJudge,
    pub(super) board: Arc<Board>,
    pub(super) to_desk: SyncSender<ToDesk>,
}

/// Rows that are read.
pub(super) struct Begun {
    rows: Rows,
    began: Began,
    catalogue: Arc<Catalogue>,
    /// The place of a stream by its number.
    places: HashMap<u16, u16>,
    names: Names,
    /// By the number of a derived stream, event time up to which everything had come when it began to be read: it tells of that time as well,
    /// and bars do not.
    since: HashMap<u16, u64>,
    /// Event time up to which everything has come.
    done: u64,
    lost: u64,
    forgotten: u64,
}

/// The numbers of the streams that are wanted, with their places. One that a reload has given other columns is none of them: rules know those
/// that it had when they were read.
fn places(judge: &RowJudge, table: &Table, catalogue: &Catalogue) -> HashMap<u16, u16> {
    let wanted: Vec<u16> = judge.wanted().collect();
    let open = catalogue.open();
    let place = |name: &str| table.place(name).filter(|place| wanted.contains(place));
    let same = |place: &u16, columns: &[String]| table.columns(*place) == columns;
    open.filter_map(|(number, stream)| {
        Some((number, place(&stream.name).filter(|place| same(place, &stream.columns))?))
    })
    .collect()
}

impl Rows {
    /// Looks at rows from now on, which is best before feeds can come; `None` when the server ends already.
    pub(super) fn begin(self) -> Option<Begun> {
        let catalogue = self.hub.catalogue();
        let places = places(&self.judge, &self.table, &catalogue);
        let mut reads: Vec<u16> = places.keys().copied().collect();
        reads.sort_unstable();
        let began = self.network.block_on(self.hub.watch(reads)).ok()?;
        let (names, done) = (Names::default(), began.watermark);
        let since = places.keys().map(|number| (*number, done)).collect();
        Some(Begun { rows: self, began, catalogue, places, names, since, done, lost: 0, forgotten: 0 })
    }
}

impl Begun {
    /// The life of the thread: until the hub ends.
    pub(super) fn run(mut self) {
        let sleeper = Sleeper::default();
        self.began.from_hub.ring().wake_with(sleeper.waker());
        let mut taken: Vec<Output> = Vec::with_capacity(TURN_MAX);
        let mut looked = Instant::now();
        loop {
            taken.clear();
            self.began.from_hub.ring().drain(TURN_MAX, |run| taken.extend_from_slice(run));
            if taken.is_empty() {
                if self.began.from_hub.ring().is_finished() {
                    break;
                }
                let ring = self.began.from_hub.ring();
                sleeper.sleep(LOOK, || ring.has_work());
            } else if !self.take(&taken) {
                break;
            }
            let received = self.began.from_hub.ring().received();
            self.began.to_hub.done(received);
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                if !self.look(&sleeper) {
                    break;
                }
            }
        }
        // There is nothing more that could come before what still waits.
        let Self { rows: Rows { judge, board, to_desk, .. }, .. } = &mut self;
        judge.complete(u64::MAX, &mut |found| tell(found, board, to_desk));
        self.count();
    }

    /// Takes records in their order; `false` when the hub has ended.
    fn take(&mut self, taken: &[Output]) -> bool {
        let row = |output: &&Output| output.kind < output_kind::WATERMARK;
        if self.names.ask(&self.rows.hub, taken.iter().filter(row).map(|row| row.name).collect()).is_err() {
            return false;
        }
        let Rows { judge, table, board, to_desk, .. } = &mut self.rows;
        for output in taken {
            if output.kind == output_kind::WATERMARK {
                self.done = self.done.max(output.ts);
                judge.complete(output.ts, &mut |found| tell(found, board, to_desk));
                continue;
            }
            // A name beyond the hub's bound stays unknown, and no rule is about it.
            let (Some(place), Some(name)) = (self.places.get(&output.stream), self.names.get(output.name))
            else {
                continue;
            };
            let is_old = || self.since.get(&output.stream).is_some_and(|since| output.ts <= *since);
            if table.is_derived(*place) && is_old() {
                continue;
            }
            judge.take(*place, name, output, &mut |found| tell(found, board, to_desk));
        }
        // The watermark may stand still while somebody tells of the past.
        judge.complete(0, &mut |found| tell(found, board, to_desk));
        self.count();
        true
    }

    fn count(&mut self) {
        let counts = &self.rows.board.counts;
        let lost = self.began.from_hub.lost() + self.rows.judge.early();
        counts.records_lost.fetch_add(lost.saturating_sub(self.lost), Relaxed);
        self.lost = self.lost.max(lost);
        let forgotten = self.rows.judge.forgotten();
        counts.rules_forgotten.fetch_add(forgotten - self.forgotten, Relaxed);
        self.forgotten = forgotten;
    }

    /// Looks whether a reload has changed what is read; `false` when the hub has ended.
    fn look(&mut self, sleeper: &Sleeper) -> bool {
        let catalogue = self.rows.hub.catalogue();
        if Arc::ptr_eq(&catalogue, &self.catalogue) {
            return true;
        }
        let places = places(&self.rows.judge, &self.rows.table, &catalogue);
        self.catalogue = catalogue;
        if places == self.places {
            return true;
        }
        for place in self.rows.judge.wanted() {
            if !places.values().any(|other| *other == place) {
                let name = self.rows.table.name(place);
                let there = self.catalogue.open().any(|(_, stream)| stream.name == name);
                let why = if there {
                    "which has other columns now: they read it again after a restart"
                } else {
                    "which is no longer computed"
                };
                self.rows.board.note(format!("warning: rules read {name}, {why}"));
            }
        }
        let mut reads: Vec<u16> = places.keys().copied().collect();
        reads.sort_unstable();
        let Ok(mut began) = self.rows.network.block_on(self.rows.hub.watch(reads)) else { return false };
        // What was on its way still counts.
        let mut last = Vec::new();
        self.began.from_hub.ring().drain(usize::MAX, |run| last.extend_from_slice(run));
        let goes_on = last.is_empty() || self.take(&last);
        let (rows, lost) = (&self.rows, self.began.from_hub.lost());
        rows.board
            .counts
            .records_lost
            .fetch_add((lost + rows.judge.early()).saturating_sub(self.lost), Relaxed);
        self.lost = rows.judge.early();
        began.from_hub.ring().wake_with(sleeper.waker());
        for number in places.keys() {
            self.since.entry(*number).or_insert(self.done);
        }
        (self.began, self.places) = (began, places);
        goes_on
    }
}

fn tell(found: FoundRow, board: &Board, to_desk: &SyncSender<ToDesk>) {
    let FoundRow { finding, behind, shown } = found;
    let document = behind.map(|behind| Box::new(Document::from(behind)));
    // This thread may wait; meanwhile rows wait for it, and what does not fit is counted.
    if to_desk
        .send(ToDesk::InStream(Box::new(finding), Behind::Several(shown.unwrap_or_default()), document))
        .is_err()
    {
        board.note("warning: the keeper of alerts has ended".to_owned());
    }
}
