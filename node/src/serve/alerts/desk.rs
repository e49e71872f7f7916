//! The thread that keeps alerts: findings become episodes, episodes go to the store, to subscribers and to sinks.

use super::board::{Board, Rows, refused};
use super::evidence::{Document, Evidence, SeriesFiles};
use super::sending::Sending;
use crate::alert::act::Act;
use crate::alert::folder::{Holder, Store};
use crate::detect::{held, judged_before, since};
use crate::render::clean;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tidegate_alert::render::Event;
use tidegate_alert::{Desk, DeskOptions, Entry, Episode, EpisodeId, Finding, Hold, Input, State, Told};
use tidegate_gateway::AlertError;
use tokio::sync::oneshot;

/// Findings and words of operators that wait, as long as the disk takes; whoever has more waits, or is told so.
pub(super) const QUEUE_MAX: usize = 16_384;
/// How long what is told may wait to be written, so that what comes together is written together.
const TOLD_WAIT: Duration = Duration::from_millis(100);
/// The same for what only counts up.
const COUNTED_WAIT: Duration = Duration::from_secs(5);
/// Forgotten episodes that wait to be written.
const GONE_MAX: usize = 1_000;

/// What the desk is told.
pub(super) enum ToDesk {
    /// Live detectors found something.
    Finding(Box<Finding>),
    /// Something was found in a stream; the last rows of its key, where they were asked for, and what it rests on.
    InStream(Box<Finding>, Rows, Option<Box<Document>>),
    /// A file is about to be judged: has it been before?
    Begin { input: Option<Input>, reply: Sender<Option<bool>> },
    /// Something was found in the file.
    InFile(Box<Finding>),
    /// The file was judged, up to where its input says.
    End { input: Option<Input> },
    /// An operator says something.
    Act { act: Act, reply: oneshot::Sender<Result<serde_json::Value, AlertError>> },
    /// Where the node takes what other processes have to say.
    Serving(Holder),
    /// There is no more.
    Stop,
}

/// Alerts being kept.
pub(super) struct Keeper {
    store: Store,
    options: DeskOptions,
    desk: Desk,
    /// The desk of a file that is judged again: what is known of it is replaced rather than counted twice.
    own: Option<Desk>,
    touched: BTreeSet<EpisodeId>,
    events: BTreeMap<EpisodeId, Event>,
    gone: Vec<Episode>,
    /// Inputs whose files are on the disk, and which an append that failed could not name yet.
    pending: Vec<Input>,
    /// What was held back and is in the store.
    held: BTreeMap<(u64, String, Hold), u64>,
    due: Option<Instant>,
    problem: Option<String>,
    board: Arc<Board>,
    sinks: Vec<Sending>,
    evidence: Vec<Arc<Evidence>>,
    series: SeriesFiles,
}

impl Keeper {
    pub(super) fn new(
        store: Store,
        options: DeskOptions,
        board: Arc<Board>,
        sinks: Vec<Sending>,
        evidence: Vec<Arc<Evidence>>,
        series: SeriesFiles,
    ) -> Self {
        let mut keeper = Self {
            store,
            desk: Desk::new(options.clone()),
            options,
            own: None,
            touched: BTreeSet::new(),
            events: BTreeMap::new(),
            gone: Vec::new(),
            pending: Vec::new(),
            held: BTreeMap::new(),
            due: None,
            problem: None,
            board,
            sinks,
            evidence,
            series,
        };
        keeper.begin_anew();
        keeper
    }

    /// The desk as the store has it: after an operator's word it heeds that, also where the word took an earlier one back.
    fn begin_anew(&mut self) {
        self.desk = Desk::new(self.options.clone());
        self.store.state.onto(&mut self.desk, true);
        self.held = held(&self.desk);
        self.board.show_all(
            &self.store.state,
            self.store.state.episodes.values(),
            true,
            self.problem.clone(),
        );
    }

    /// Keeps alerts until it is told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<ToDesk>) {
        loop {
            let wait = self.due.map_or(COUNTED_WAIT, |due| due.saturating_duration_since(Instant::now()));
            match inbox.recv_timeout(wait) {
                Ok(ToDesk::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(said) => self.take(said),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.due.is_some_and(|due| due <= Instant::now()) {
                self.flush();
            }
        }
        self.flush();
        for sink in self.sinks {
            sink.finish(&self.board);
        }
    }

    fn take(&mut self, said: ToDesk) {
        match said {
            ToDesk::Finding(finding) => {
                self.offer(*finding, false);
            }
            ToDesk::InStream(mut finding, rows, document) => {
                if let Some(document) = document {
                    finding.proof = Some(self.series.wait(*document, &finding));
                }
                let id = self.offer(*finding, false);
                self.board.rows_behind(id, rows);
            }
            ToDesk::InFile(finding) => {
                self.offer(*finding, true);
            }
            ToDesk::Begin { input, reply } => {
                let known = input.as_ref().and_then(|input| judged_before(&self.store.state, input));
                if known == Some(false) {
                    self.flush();
                    let mut own = Desk::new(self.options.clone());
                    self.store.state.onto(&mut own, false);
                    self.own = Some(own);
                }
                // Whoever asked waits, or is gone.
                let _ = reply.send(known);
            }
            ToDesk::End { input } => self.end(input),
            ToDesk::Act { act, reply } => {
                // Whoever asked may be gone; it is done all the same.
                let _ = reply.send(self.act(&act));
            }
            ToDesk::Serving(holder) => {
                if let Err(error) = self.store.held_by(&holder) {
                    self.board.note(format!("warning: `tidegate alert` will not find this node: {error}"));
                }
            }
            ToDesk::Stop => {}
        }
    }

    fn offer(&mut self, finding: Finding, in_file: bool) -> EpisodeId {
        let own = self.own.as_mut().filter(|_| in_file);
        let desk = own.unwrap_or(&mut self.desk);
        let verdict = desk.offer(finding);
        let counts = &self.board.counts;
        counts.findings.fetch_add(1, Relaxed);
        let event = match verdict.told {
            Told::New => Some(Event::New),
            Told::Worse { .. } => Some(Event::Worse),
            Told::Held(hold) => {
                let place = Hold::ALL.iter().position(|one| *one == hold).unwrap_or_default();
                counts.held[place].fetch_add(1, Relaxed);
                None
            }
            Told::Again => None,
        };
        if let (Some(event), Some(episode)) = (event, desk.episode(verdict.id)) {
            match event {
                Event::New => &counts.new,
                Event::Worse => &counts.worse,
            }
            .fetch_add(1, Relaxed);
            self.sinks.iter().for_each(|sink| sink.tell(episode, event, &self.board));
            // What is new and worse at once is new to who listens.
            self.events.entry(verdict.id).or_insert(event);
        }
        self.touched.insert(verdict.id);
        if let Some(gone) = verdict.evicted {
            counts.forgotten.fetch_add(1, Relaxed);
            if self.touched.remove(&gone.id) && self.gone.len() < GONE_MAX {
                self.gone.push(*gone);
            }
        }
        let due = Instant::now() + if event.is_some() { TOLD_WAIT } else { COUNTED_WAIT };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        verdict.id
    }

    /// The file has been judged.
    fn end(&mut self, input: Option<Input>) {
        self.flush();
        let Some(input) = input else { return };
        if let Err(why) = self.append(vec![Entry::Input(input)]) {
            self.trouble(Some(why));
        }
        if self.own.take().is_some() {
            self.begin_anew();
        } else {
            self.board.show_all(&self.store.state, std::iter::empty(), false, self.problem.clone());
        }
    }

    fn act(&mut self, act: &Act) -> Result<serde_json::Value, AlertError> {
        self.flush();
        if let Some(problem) = &self.problem {
            return Err(AlertError::NotKept(problem.clone()));
        }
        let (entries, said) = act.entries(&self.store.state, super::super::now_ns()).map_err(refused)?;
        let number = entries.iter().find_map(|entry| match entry {
            Entry::Quiet(quiet) => Some(quiet.number),
            _ => None,
        });
        let concerned: Vec<EpisodeId> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Action(action) => Some(action.id),
                _ => None,
            })
            .collect();
        self.append(entries).map_err(AlertError::NotKept)?;
        if self.own.is_none() {
            self.begin_anew();
        } else {
            // The desk heeds it once the file has been judged.
            let episodes = concerned.iter().filter_map(|id| known(&self.store.state, *id));
            self.board.show_all(&self.store.state, episodes, false, None);
        }
        let of = |id: &EpisodeId| self.store.state.episodes.get(id);
        let alert = concerned.first().and_then(of).map(Episode::document);
        for episode in concerned.iter().filter_map(of) {
            self.board.tell(episode, "update");
        }
        Ok(serde_json::json!({ "said": clean(&said), "alert": alert, "number": number }))
    }

    fn append(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        self.store.append(entries).map_err(|failure| format!("{:#}", failure.error))
    }

    /// Says once that alerts are not written, and once that they are again.
    fn trouble(&mut self, problem: Option<String>) {
        match (&self.problem, &problem) {
            (None, Some(why)) => self.board.note(format!("warning: alerts are not written down: {why}")),
            (Some(_), None) => self.board.note("alerts are written down again".to_owned()),
            _ => {}
        }
        self.problem = problem;
    }

    /// Writes what has changed, then shows it and tells of it; what cannot be written is shown all the same, and tried again.
    fn flush(&mut self) {
        self.due = None;
        if self.touched.is_empty() && self.gone.is_empty() {
            return;
        }
        let desk = self.own.as_ref().unwrap_or(&self.desk);
        let now_held = held(&self.desk);
        let mut changed: Vec<Episode> = self
            .touched
            .iter()
            // A file that is judged again has a desk of its own, and its findings are not alone.
            .filter_map(|id| desk.episode(*id).or_else(|| self.desk.episode(*id)))
            .map(|episode| self.as_operators_have_it(episode))
            .collect();
        let mut gone: Vec<Episode> = self.gone.drain(..).collect();
        // What alerts rest on is on the disk before they say so.
        let inputs = self.evidence_of(&mut changed, &mut gone);
        let mut entries: Vec<Entry> = inputs.iter().cloned().map(Entry::Input).collect();
        entries.extend(gone.iter().cloned().map(|episode| Entry::Episode(Box::new(episode))));
        entries.extend(changed.iter().map(|episode| Entry::Episode(Box::new(episode.clone()))));
        entries.extend(since(&self.held, &self.desk).into_iter().map(Entry::Held));
        match self.append(entries) {
            Ok(()) => {
                self.held = now_held;
                self.touched.clear();
                self.trouble(None);
            }
            Err(why) => {
                self.gone = gone;
                self.pending = inputs;
                self.trouble(Some(why));
                self.due = Some(Instant::now() + COUNTED_WAIT);
            }
        }
        self.board.show_all(&self.store.state, changed.iter(), false, self.problem.clone());
        for episode in changed.iter().filter(|episode| episode.told.is_some()) {
            let event = self.events.remove(&episode.id).map_or("update", Event::name);
            self.board.tell(episode, event);
        }
        self.events.clear();
    }

    /// Brings to the disk what these rest on, and takes back proofs of what could not be written.
    fn evidence_of(&mut self, changed: &mut [Episode], gone: &mut [Episode]) -> Vec<Input> {
        let proofs = changed.iter().chain(&*gone).filter_map(|episode| episode.proof.as_ref());
        let names: BTreeSet<String> = proofs.map(|proof| proof.input.clone()).collect();
        let mut inputs = std::mem::take(&mut self.pending);
        inputs.extend(self.series.keep(&names));
        inputs.extend(self.evidence.iter().flat_map(|evidence| evidence.keep(&names)));
        for episode in changed.iter_mut().chain(gone) {
            let recorded = |name: &str| Evidence::is_one(name) || SeriesFiles::is_one(name);
            let Some(proof) = episode.proof.as_ref().filter(|proof| recorded(&proof.input)) else {
                continue;
            };
            // The newest: one that waited for an append knows less of it.
            let now = inputs.iter().rev().find(|input| input.name == proof.input);
            let known = now.or_else(|| self.store.state.inputs.get(&proof.input));
            if known.is_none_or(|input| input.units < proof.units) {
                episode.unproven = Some("what it rests on could not be written down".to_owned());
                episode.proof = None;
            }
        }
        inputs
    }

    fn as_operators_have_it(&self, episode: &Episode) -> Episode {
        let mut episode = episode.clone();
        if let Some(known) = known(&self.store.state, episode.id) {
            (episode.status, episode.note) = (known.status, known.note.clone());
        }
        episode
    }
}

fn known(state: &State, id: EpisodeId) -> Option<&Episode> {
    state.episodes.get(&id)
}
