//! The store as lines: what is appended, and what a reader makes of them.
//!
//! A line is one JSON object: `v` (version), `type`, `more` (further lines of the same append follow) and `body`. An append counts once its
//! last line, the one without `more`, is there whole; what a crash left of an unfinished one is ignored by readers and cut off
//! by the next writer. The last word on each thing holds, so reading all lines in order gives the state.

use crate::desk::Desk;
use crate::episode::{Episode, EpisodeId, Held, Hold, Status};
use crate::policy::{Calibration, Quiet};
use crate::text;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Version of the lines.
pub const VERSION: u32 = 1;
/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Episodes kept of a store: beyond it those longest silent are forgotten.
pub const EPISODES_MAX: usize = 10_000;
/// Inputs, and suppressions and calibrations each, kept of a store.
pub const OTHERS_MAX: usize = 10_000;

/// An input that was judged, and everything the judgement depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name in the store: hash of all the rest but `path`.
    pub name: String,
    /// Where it was.
    pub path: String,
    /// BLAKE3 of its bytes, hexadecimal.
    pub digest: String,
    /// How it was read, in the words of the command line.
    pub options: BTreeMap<String, String>,
    /// Rules and patterns that judged it besides the detectors.
    #[serde(default)]
    pub rules: Vec<RuleSource>,
    /// Version of the program.
    pub program: String,
    /// Units given to the detectors.
    #[serde(with = "text::number")]
    pub units: u64,
    /// The whole of it was judged: reading did not end before the input did.
    pub whole: bool,
}

/// A rule file or pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSource {
    /// `sigma` or `pattern`.
    pub kind: String,
    /// The file's path, or the pattern itself.
    pub from: String,
    /// BLAKE3 of the text, hexadecimal.
    pub digest: String,
}

/// What an operator did to one episode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Which.
    pub id: EpisodeId,
    /// What it is now.
    pub status: Status,
    /// Why.
    #[serde(default)]
    pub note: Option<String>,
    /// When, by the clock of who did it, ns since 1970.
    #[serde(with = "text::number")]
    pub at_ts: u64,
}

/// Findings held back on one day for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// Days since 1970; 0 for all before the days kept.
    pub day: u64,
    /// Of whom.
    pub group: String,
    /// Why.
    pub hold: Hold,
    /// How many.
    #[serde(with = "text::number")]
    pub count: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An input was judged.
    Input(Input),
    /// An episode as it is now; what an operator made of it before stays.
    Episode(Box<Episode>),
    /// An operator judged an episode.
    Action(Action),
    /// A suppression or maintenance window begins to hold.
    Quiet(Quiet),
    /// A suppression or maintenance window, by number, holds no more.
    Lift(u32),
    /// Feedback.
    Calibration(Calibration),
    /// The feedback of this episode holds no more.
    Undo(EpisodeId),
    /// Findings held back since the last such line.
    Held(HeldRow),
    /// Nothing: closes an append whose parts all said `more`.
    Commit,
}

/// A store that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A line in the middle is none of ours.
    #[error("line {line}: {reason}")]
    Line {
        /// From 1.
        line: u64,
        /// Why.
        reason: String,
    },
    /// Written by a later version.
    #[error("line {line} is of version {version}; this program reads version {VERSION}")]
    Version {
        /// From 1.
        line: u64,
        /// What it says.
        version: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Line<B> {
    v: u32,
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'static, str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    body: B,
}

impl Entry {
    fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Episode(_) => "episode",
            Self::Action(_) => "action",
            Self::Quiet(_) => "quiet",
            Self::Lift(_) => "lift",
            Self::Calibration(_) => "calibration",
            Self::Undo(_) => "undo",
            Self::Held(_) => "held",
            Self::Commit => "commit",
        }
    }

    /// The line, with its end. `more` says that further lines belong to the same append.
    #[must_use]
    pub fn line(&self, more: bool) -> String {
        fn write<B: Serialize>(kind: &'static str, more: bool, body: B) -> String {
            let line = Line { v: VERSION, kind: kind.into(), more, body };
            let mut text = serde_json::to_string(&line).unwrap_or_default();
            text.push('\n');
            text
        }
        let kind = self.kind();
        match self {
            Self::Input(body) => write(kind, more, body),
            Self::Episode(body) => write(kind, more, body),
            Self::Action(body) => write(kind, more, body),
            Self::Quiet(body) => write(kind, more, body),
            Self::Lift(body) => write(kind, more, body),
            Self::Calibration(body) => write(kind, more, body),
            Self::Undo(body) => write(kind, more, body),
            Self::Held(body) => write(kind, more, body),
            Self::Commit => write(kind, more, ()),
        }
    }

    /// Reads a line: what it says, and whether more belongs to it.
    ///
    /// # Errors
    /// [`StoreError`] when it is none of ours.
    pub fn read(text: &str, number: u64) -> Result<(Self, bool), StoreError> {
        let wrong = |reason: String| StoreError::Line { line: number, reason };
        let line: Line<Box<RawValue>> =
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if line.v != VERSION {
            return Err(StoreError::Version { line: number, version: line.v });
        }
        fn body<T: for<'de> Deserialize<'de>>(raw: &RawValue) -> Result<T, String> {
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())
        }
        let raw = &line.body;
        let entry = match line.kind.as_ref() {
            "input" => body(raw).map(Self::Input),
            "episode" => body(raw).map(Self::Episode),
            "action" => body(raw).map(Self::Action),
            "quiet" => body(raw).map(Self::Quiet),
            "lift" => body(raw).map(Self::Lift),
            "calibration" => body(raw).map(Self::Calibration),
            "undo" => body(raw).map(Self::Undo),
            "held" => body(raw).map(Self::Held),
            "commit" => Ok(Self::Commit),
            other => Err(format!("`{}` is no kind of line", text::bounded(other, 40))),
        };
        Ok((entry.map_err(wrong)?, line.more))
    }
}

/// What a store says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Episodes by name.
    pub episodes: BTreeMap<EpisodeId, Episode>,
    /// Inputs by name.
    pub inputs: BTreeMap<String, Input>,
    /// Suppressions and maintenance windows that were not lifted, by number.
    pub quiets: BTreeMap<u32, Quiet>,
    /// Feedback that was not undone, by the episode it came from.
    pub calibrations: BTreeMap<EpisodeId, Calibration>,
    /// Findings held back, by day and group.
    pub held: BTreeMap<(u64, String), Held>,
    /// Highest number of a suppression or window ever given.
    pub number_max: u32,
    /// Episodes and other things forgotten for lack of room.
    pub forgotten: u64,
}

/// How the reading of a store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Bytes up to the end of the last whole append.
    pub whole_bytes: u64,
    /// Bytes behind it, left by a writer that was interrupted.
    pub torn_bytes: u64,
    /// Lines of whole appends.
    pub lines: u64,
}

impl State {
    /// Reads a store from its bytes.
    ///
    /// # Errors
    /// [`StoreError`] for a line that is none of ours, unless it is the torn end.
    pub fn read(bytes: &[u8]) -> Result<(Self, Ending), StoreError> {
        let (mut state, mut ending) = (Self::default(), Ending::default());
        let (mut open, mut at, mut number) = (Vec::new(), 0usize, 0);
        while let Some(length) = bytes[at..].iter().position(|&byte| byte == b'\n') {
            let line = &bytes[at..at + length];
            at += length + 1;
            number += 1;
            let text = std::str::from_utf8(line)
                .map_err(|_| StoreError::Line { line: number, reason: "it is no UTF-8".to_owned() });
            let long = line.len() > LINE_BYTES_MAX;
            let read = match text {
                _ if long => {
                    Err(StoreError::Line { line: number, reason: format!("over {LINE_BYTES_MAX} bytes") })
                }
                Ok(text) => Entry::read(text, number),
                Err(error) => Err(error),
            };
            match read {
                Ok((entry, more)) => {
                    open.push(entry);
                    if !more {
                        ending.lines += open.len() as u64;
                        open.drain(..).for_each(|entry| state.take(entry));
                        state.trim_inputs();
                        ending.whole_bytes = at as u64;
                    }
                }
                // A write that was cut short may have left a last line with rubbish in it; in the middle it is damage.
                Err(StoreError::Line { .. }) if at == bytes.len() => break,
                Err(error) => return Err(error),
            }
        }
        ending.torn_bytes = bytes.len() as u64 - ending.whole_bytes;
        Ok((state, ending))
    }

    /// Takes one entry.
    pub fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Input(input) => {
                self.inputs.insert(input.name.clone(), input);
            }
            Entry::Episode(mut episode) => {
                if let Some(known) = self.episodes.get(&episode.id) {
                    (episode.status, episode.note) = (known.status, known.note.clone());
                }
                self.episodes.insert(episode.id, *episode);
            }
            Entry::Action(action) => {
                if let Some(episode) = self.episodes.get_mut(&action.id) {
                    (episode.status, episode.note) = (action.status, action.note);
                }
            }
            Entry::Quiet(quiet) => {
                self.number_max = self.number_max.max(quiet.number);
                self.quiets.insert(quiet.number, quiet);
            }
            Entry::Lift(number) => {
                self.quiets.remove(&number);
            }
            Entry::Calibration(calibration) => {
                self.calibrations.insert(calibration.episode, calibration);
            }
            Entry::Undo(id) => {
                self.calibrations.remove(&id);
            }
            Entry::Held(row) => {
                self.held.entry((row.day, row.group)).or_default().add(row.hold, row.count);
            }
            Entry::Commit => {}
        }
        self.make_room();
    }

    /// Forgets inputs beyond the bound, to be called behind whole appends, in which inputs come before what rests on them. Those that nothing rests
    /// on go first, and of these what was recorded for one alert: a file that was forgotten would be judged as a new one.
    pub fn trim_inputs(&mut self) {
        if self.inputs.len() <= OTHERS_MAX + OTHERS_MAX / 10 {
            return;
        }
        let proofs = self.episodes.values().filter_map(|episode| episode.proof.as_ref());
        let used: BTreeSet<&str> = proofs.map(|proof| proof.input.as_str()).collect();
        let is_recorded = |name: &str| name.contains('-');
        let mut order: Vec<(bool, bool, String)> = self
            .inputs
            .keys()
            .map(|name| (used.contains(name.as_str()), !is_recorded(name), name.clone()))
            .collect();
        order.sort_unstable();
        let over = self.inputs.len() - OTHERS_MAX;
        for (_, _, name) in order.into_iter().take(over) {
            self.inputs.remove(&name);
            self.forgotten += 1;
        }
    }

    fn make_room(&mut self) {
        // A tenth more than the bound before something is done, so that it costs little per line.
        if self.episodes.len() > EPISODES_MAX + EPISODES_MAX / 10 {
            let mut order: Vec<(u64, EpisodeId)> =
                self.episodes.values().map(|episode| (episode.last_ts, episode.id)).collect();
            order.sort_unstable();
            for (_, id) in order.into_iter().take(self.episodes.len() - EPISODES_MAX) {
                self.episodes.remove(&id);
                self.forgotten += 1;
            }
        }
        fn first<K: Ord, V>(map: &mut BTreeMap<K, V>, forgotten: &mut u64) {
            if map.len() > OTHERS_MAX {
                map.pop_first();
                *forgotten += 1;
            }
        }
        first(&mut self.quiets, &mut self.forgotten);
        first(&mut self.calibrations, &mut self.forgotten);
        first(&mut self.held, &mut self.forgotten);
    }

    /// All of it as lines that read back to the same: what a store that grew too long is replaced by.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let mut put = |entry: Entry| text.push_str(&entry.line(true));
        self.inputs.values().cloned().for_each(|input| put(Entry::Input(input)));
        for episode in self.episodes.values() {
            put(Entry::Episode(Box::new(episode.clone())));
        }
        self.quiets.values().cloned().for_each(|quiet| put(Entry::Quiet(quiet)));
        self.calibrations.values().cloned().for_each(|calibration| put(Entry::Calibration(calibration)));
        for ((day, group), held) in &self.held {
            for hold in Hold::ALL.into_iter().filter(|hold| held.of(*hold) > 0) {
                put(Entry::Held(HeldRow { day: *day, group: group.clone(), hold, count: held.of(hold) }));
            }
        }
        text + &Entry::Commit.line(false)
    }

    /// Puts what holds of this state onto a desk: policies always, episodes to go on from if `resume`.
    pub fn onto(&self, desk: &mut Desk, resume: bool) {
        self.quiets.values().cloned().for_each(|quiet| desk.heed(quiet));
        self.calibrations.values().for_each(|calibration| desk.calibrate(calibration));
        if resume {
            self.episodes.values().cloned().for_each(|episode| desk.resume(episode));
        }
    }

    /// The episodes whose name begins with `text`.
    #[must_use]
    pub fn named(&self, text: &str) -> Vec<&Episode> {
        let text = text.to_ascii_lowercase();
        self.episodes.values().filter(|episode| episode.id.to_string().starts_with(&text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Finding, Proof, Range, Reason, Severity};
    use crate::policy::QuietKind;
    use proptest::prelude::*;

    fn episode(entity: &str, ts: u64) -> Episode {
        let finding = Finding {
            kind: "scan".to_owned(),
            entity: entity.to_owned(),
            spoofed: true,
            peer: Some("::1".to_owned()),
            port: Some(7),
            method: "syn".to_owned(),
            technique: Some("T1046".to_owned()),
            severity: Severity::Medium,
            score: 1.0 - 0.2 * 15.0 / 37.0,
            reasons: vec![Reason::new("ports", 37.0, 15.0), Reason::new("odd", f64::NAN, f64::INFINITY)],
            range: Range { first: 1, last: u64::MAX, first_ts: ts, last_ts: ts + 1 },
            ts,
            proof: Some(Proof {
                input: "i".to_owned(),
                units: 9,
                at_end: true,
                ts,
                score_bits: 0.9f64.to_bits(),
            }),
            unproven: None,
            silence_s: None,
        };
        Episode::new(EpisodeId::of(&finding), &finding, "other")
    }

    fn entries() -> Vec<Entry> {
        let first = episode("10.0.0.1", 5);
        vec![
            Entry::Input(Input {
                name: "i".to_owned(),
                path: "a.pcap".to_owned(),
                digest: "00".to_owned(),
                options: BTreeMap::from([("flows-max".to_owned(), "64".to_owned())]),
                rules: vec![RuleSource {
                    kind: "pattern".to_owned(),
                    from: "a then b".to_owned(),
                    digest: "ff".to_owned(),
                }],
                program: "0.1.0".to_owned(),
                units: 80,
                whole: true,
            }),
            Entry::Episode(Box::new(first.clone())),
            Entry::Episode(Box::new(episode("10.0.0.2", 6))),
            Entry::Held(HeldRow { day: 3, group: "other".to_owned(), hold: Hold::Budget, count: 4 }),
            Entry::Commit,
            Entry::Action(Action {
                id: first.id,
                status: Status::FalsePositive,
                note: Some("the \"backup\"\n".to_owned()),
                at_ts: 1,
            }),
            Entry::Calibration(Calibration {
                kind: "scan".to_owned(),
                entity: None,
                required: 0.1 + 0.2,
                episode: first.id,
            }),
            Entry::Quiet(Quiet {
                number: 4,
                why: QuietKind::Maintenance,
                entity: Some("10.0.0.0/8".parse().unwrap()),
                kind: None,
                from_ts: 0,
                until_ts: u64::MAX,
                up_to: Severity::High,
                note: None,
            }),
        ]
    }

    fn store(entries: &[Entry]) -> String {
        // The first five are one append.
        entries.iter().enumerate().map(|(at, entry)| entry.line(at < 4)).collect()
    }

    #[test]
    fn what_is_written_reads_back_and_lines_say_it_all() {
        let entries = entries();
        for entry in &entries {
            assert_eq!(Entry::read(entry.line(true).trim_end(), 1), Ok((entry.clone(), true)));
        }
        let text = store(&entries);
        let (state, ending) = State::read(text.as_bytes()).unwrap();
        assert_eq!((ending.whole_bytes, ending.torn_bytes, ending.lines), (text.len() as u64, 0, 8));
        let first = episode("10.0.0.1", 5).id;
        assert_eq!(state.episodes[&first].status, Status::FalsePositive);
        assert_eq!(state.named(&first.to_string()[..6]).len(), 1);
        assert_eq!(State::read(state.lines().as_bytes()).unwrap().0, state);
        // An episode told again keeps what an operator made of it; what is lifted is gone.
        let more = [Entry::Episode(Box::new(episode("10.0.0.1", 5))), Entry::Lift(4), Entry::Undo(first)];
        let text = text + &more.iter().map(|entry| entry.line(false)).collect::<String>();
        let (state, _) = State::read(text.as_bytes()).unwrap();
        assert_eq!(state.episodes[&first].status, Status::FalsePositive);
        assert!(state.quiets.is_empty() && state.calibrations.is_empty() && state.number_max == 4);
    }

    #[test]
    fn damage_in_the_middle_is_named() {
        let text = store(&entries());
        let broken = text.replacen("\"scan\"", "scan", 1);
        let error = State::read(broken.as_bytes()).unwrap_err();
        assert!(matches!(error, StoreError::Line { line: 2, .. }), "{error}");
        let later = text.replacen("{\"v\":1", "{\"v\":2", 1);
        assert_eq!(State::read(later.as_bytes()), Err(StoreError::Version { line: 1, version: 2 }));
        let unknown = text.replacen("\"type\":\"held\"", "\"type\":\"felt\"", 1);
        assert!(State::read(unknown.as_bytes()).unwrap_err().to_string().contains("line 4: `felt`"));
    }

    proptest! {
        /// Cut anywhere, a store says what its whole appends say, and what is cut off goes on where they end.
        #[test]
        fn a_torn_end_is_no_damage(cut in 0usize..4_000, rubbish in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = store(&entries());
            let cut = cut.min(text.len());
            let mut bytes = text.as_bytes()[..cut].to_vec();
            bytes.extend(rubbish.iter().filter(|byte| **byte != b'\n'));
            let (state, ending) = State::read(&bytes).unwrap();
            let whole = &text.as_bytes()[..ending.whole_bytes as usize];
            prop_assert!(ending.whole_bytes as usize <= cut);
            prop_assert_eq!(State::read(whole).unwrap().0, state);
            prop_assert_eq!(ending.whole_bytes + ending.torn_bytes, bytes.len() as u64);
            // No append is half there.
            let first_append: usize = store(&entries()[..5]).len();
            prop_assert!(ending.whole_bytes == 0 || ending.whole_bytes as usize >= first_append);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = State::read(&bytes);
        }
    }

    #[test]
    fn of_too_many_inputs_those_go_first_that_nothing_rests_on() {
        let input = |name: String| {
            let first = entries().into_iter().find_map(|entry| match entry {
                Entry::Input(input) => Some(input),
                _ => None,
            });
            Input { name, ..first.expect("there is one") }
        };
        let mut state = State::default();
        // The episode rests on `i`, which is the name of a file that was judged.
        entries().into_iter().for_each(|entry| state.take(entry));
        state.take(Entry::Input(input("aaaa".to_owned())));
        for at in 0..OTHERS_MAX + OTHERS_MAX / 10 {
            state.take(Entry::Input(input(format!("series-{at:06}"))));
        }
        let forgotten = state.forgotten;
        state.trim_inputs();
        assert_eq!((state.inputs.len(), state.forgotten - forgotten), (OTHERS_MAX, 1_002));
        // Names say nothing: both stay, though they come first and last.
        assert!(state.inputs.contains_key("i") && state.inputs.contains_key("aaaa"));
        let before = state.clone();
        state.trim_inputs();
        assert_eq!(state, before);
    }
}
