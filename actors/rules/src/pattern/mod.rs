//! Patterns of records in sequence: `a then b within 5m without c`.
//!
//! ```text
//! pattern := [NAME ":"] step ("then" step)* "within" SPAN clause*
//! clause  := "without" step | "by" FIELD ("," FIELD)* | "severity" low|medium|high
//! step    := KIND ["(" condition ")"] ["times" N]          KIND: flow dns http alert other any, or a stream of results
//! condition: FIELD OP VALUE, "FIELD in (VALUE, …)", "FIELD exists", joined by and, or, not and parentheses
//! OP      := = != < <= > >= contains startswith endswith matches in
//! ```
//!
//! Every record that meets the first step begins a match; each further record that meets the next step takes it on (records between
//! do not matter); the match is there when the last step is met, at most SPAN after the first. A record that meets a `without`
//! ends every match it falls into, also one that it would take on. With `by`, all records of a match have the same values in
//! those fields, and records without them are not looked at. A match over streams of results is always of one key, whatever `by` adds.

mod parse;

pub use parse::PatternError;

use crate::expr::Expr;
use crate::record::{Key, Kind, Record};
use crate::set::Level;
use crate::streams::Streams;
use std::collections::{BTreeSet, HashMap, VecDeque};
use tidegate_flow::hash::{Fixed, hash_of};

/// Steps of a pattern, repeats counted singly.
pub const STEPS_MAX: usize = 128;
/// Beginnings followed per group; beyond it the oldest is given up, and counted.
pub const PARTIALS_MAX: usize = 256;
/// Groups followed; beyond it those not touched for longest are given up, and counted.
pub const GROUPS_MAX: usize = 4_096;

/// What a record must be to meet a step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Of this kind; any but rows of results where left out.
    pub kind: Option<Kind>,
    /// And so.
    pub expr: Expr,
}

impl Step {
    fn takes(&self, record: &Record) -> bool {
        let meant = match self.kind {
            Some(kind) => kind == record.kind,
            None => !matches!(record.kind, Kind::Row(_)),
        };
        meant && self.expr.holds(record)
    }
}

/// A match under way.
#[derive(Debug, Clone, Copy)]
struct Partial {
    next: u32,
    first_ts: u64,
    first_unit: u64,
}

/// A match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched {
    /// Time of its first record, ns.
    pub first_ts: u64,
    /// First unit of its first record.
    pub first_unit: u64,
}

/// Matches under way by group; the group not touched for longest gives way.
#[derive(Debug, Clone, Default)]
struct Groups {
    held: HashMap<u64, (u64, VecDeque<Partial>), Fixed>,
    /// By the turn each was last touched in.
    order: BTreeSet<(u64, u64)>,
    turn: u64,
}

impl Groups {
    fn take(&mut self, key: u64) -> Option<VecDeque<Partial>> {
        let (turn, group) = self.held.remove(&key)?;
        self.order.remove(&(turn, key));
        Some(group)
    }

    /// Keeps a group; gives back the one that had to go for it.
    fn put(&mut self, key: u64, group: VecDeque<Partial>) -> Option<VecDeque<Partial>> {
        self.turn += 1;
        self.order.insert((self.turn, key));
        self.held.insert(key, (self.turn, group));
        if self.held.len() <= GROUPS_MAX {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.held.remove(&oldest).map(|(_, group)| group)
    }
}

/// A pattern and the matches under way.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Its name; the text where it has none.
    pub name: String,
    /// The text it was read from.
    pub text: String,
    /// How severe a match is.
    pub level: Level,
    /// What comes one after the other.
    pub steps: Vec<Step>,
    /// What must not come between.
    pub without: Vec<Step>,
    /// From first to last, ns.
    pub within_ns: u64,
    /// Fields that agree.
    pub by: Vec<Key>,
    groups: Groups,
    given_up: u64,
    now: u64,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] with the place that is wrong and what is allowed there.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::over(text, &Streams::default())
    }

    /// As [`Self::parse`], where there are streams of results as well.
    ///
    /// # Errors
    /// [`PatternError`] with the place that is wrong and what is allowed there.
    pub fn over(text: &str, streams: &Streams) -> Result<Self, PatternError> {
        parse::pattern(text, streams)
    }

    /// The kinds of records that it looks at; `None` for any of traffic.
    pub fn kinds(&self) -> impl Iterator<Item = Option<Kind>> + '_ {
        self.steps.iter().chain(&self.without).map(|step| step.kind)
    }

    /// Takes a record and adds the matches it completes, oldest first. Time goes on only: a record that is older than one before counts as
    /// being of that instant.
    pub fn take(&mut self, record: &Record, matches: &mut Vec<Matched>) {
        self.now = self.now.max(record.ts);
        let ends = self.without.iter().any(|step| step.takes(record));
        let relevant = ends || self.steps.iter().any(|step| step.takes(record));
        if !relevant {
            return;
        }
        let mut key = 0u64;
        for field in &self.by {
            let Some(value) = record.values(field).next() else { return };
            key = hash_of(&(key, value.text().as_ref()));
        }
        let begins = self.steps.first().is_some_and(|step| step.takes(record));
        let mut group = match self.groups.take(key) {
            Some(group) => group,
            None if begins => VecDeque::new(),
            None => return,
        };
        while group.front().is_some_and(|oldest| self.now - oldest.first_ts > self.within_ns) {
            group.pop_front();
        }
        if ends {
            group.clear();
        }
        let steps = &self.steps;
        group.retain_mut(|partial| {
            if !steps[partial.next as usize].takes(record) {
                return true;
            }
            partial.next += 1;
            let open = (partial.next as usize) < steps.len();
            if !open {
                matches.push(Matched { first_ts: partial.first_ts, first_unit: partial.first_unit });
            }
            open
        });
        if begins {
            let first = Partial { next: 1, first_ts: self.now, first_unit: record.units.0 };
            if steps.len() == 1 {
                matches.push(Matched { first_ts: first.first_ts, first_unit: first.first_unit });
            } else {
                if group.len() >= PARTIALS_MAX {
                    group.pop_front();
                    self.given_up += 1;
                }
                group.push_back(first);
            }
        }
        if !group.is_empty()
            && let Some(gone) = self.groups.put(key, group)
        {
            let alive = |partial: &&Partial| self.now - partial.first_ts <= self.within_ns;
            self.given_up += gone.iter().filter(alive).count() as u64;
        }
    }

    /// The group of a record, in words; empty without `by`.
    #[must_use]
    pub fn group(&self, record: &Record) -> String {
        let values = self.by.iter().filter_map(|field| record.values(field).next());
        values.map(|value| value.text().into_owned()).collect::<Vec<_>>().join(",")
    }

    /// Beginnings given up for lack of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;
    use proptest::prelude::*;

    fn flow(seconds: u64, state: &'static str, source: &'static str) -> Record {
        Record::new(Kind::Flow, Origin::Own, seconds * 1_000_000_000, (seconds + 1, seconds + 1))
            .with("conn_state", state)
            .with("id.orig_h", source)
    }

    /// Seconds at which each match began, by record.
    fn run(text: &str, records: &[Record]) -> Vec<Vec<u64>> {
        let mut pattern = Pattern::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let take = |record: &Record| {
            let mut matches = Vec::new();
            pattern.take(record, &mut matches);
            matches.iter().map(|found| found.first_ts / 1_000_000_000).collect()
        };
        records.iter().map(take).collect()
    }

    #[test]
    fn one_after_the_other_within_and_without() {
        let text =
            "flow(conn_state = S0) then flow(conn_state = SF) within 10s without flow(conn_state = REJ)";
        let of = |items: &[(u64, &'static str)]| {
            let records: Vec<Record> = items.iter().map(|(at, state)| flow(*at, state, "1")).collect();
            run(text, &records).concat()
        };
        assert_eq!(of(&[(0, "S0"), (10, "SF")]), [0]);
        assert_eq!(of(&[(0, "S0"), (11, "SF")]), [0u64; 0]);
        assert_eq!(of(&[(0, "S0"), (3, "REJ"), (4, "SF")]), [0u64; 0]);
        assert_eq!(of(&[(0, "S0"), (3, "RSTO"), (4, "SF"), (5, "SF")]), [0]);
        assert_eq!(of(&[(0, "S0"), (3, "S0"), (4, "SF")]), [0, 3]);
        assert_eq!(of(&[(0, "S0"), (9, "S0"), (12, "SF")]), [9]);
        assert_eq!(of(&[(0, "SF"), (9, "S0")]), [0u64; 0]);
        // A clock that goes back does not make time.
        assert_eq!(of(&[(20, "S0"), (5, "SF")]), [20]);
    }

    #[test]
    fn groups_repeats_and_one_step() {
        let records: Vec<Record> = [(0, "1"), (1, "2"), (2, "1"), (3, "2"), (4, "1")]
            .map(|(at, source)| flow(at, "REJ", source))
            .to_vec();
        let found = run("guess: flow(conn_state in (REJ, S0)) times 3 within 1m by id.orig_h", &records);
        assert_eq!(found, [vec![], vec![], vec![], vec![], vec![0]]);
        assert_eq!(run("any within 1s", &records).concat(), [0, 1, 2, 3, 4]);
        assert_eq!(run("flow within 1s by vlan", &records).concat(), [0u64; 0]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_given_up_is_counted() {
        let mut pattern =
            Pattern::parse("any(conn_state = S0) then any(conn_state = SF) within 1d by id.orig_h").unwrap();
        let mut matches = Vec::new();
        for at in 0..1_000 {
            pattern.take(&flow(at, "S0", "1"), &mut matches);
        }
        assert_eq!((matches.len(), pattern.forgotten()), (0, 1_000 - PARTIALS_MAX as u64));
        pattern.take(&flow(1_000, "SF", "1"), &mut matches);
        assert_eq!((matches.len(), matches[0].first_ts), (PARTIALS_MAX, 744_000_000_000));
        for n in 0..20_000u64 {
            let record = Record::new(Kind::Flow, Origin::Own, n, (n, n))
                .with("conn_state", "S0")
                .with("id.orig_h", n.to_string());
            pattern.take(&record, &mut matches);
        }
        assert_eq!((pattern.groups.held.len(), pattern.groups.order.len()), (GROUPS_MAX, GROUPS_MAX));
        assert_eq!(pattern.forgotten(), 744 + 20_000 - GROUPS_MAX as u64);
    }

    /// Every match, from its beginning on, the slow and obvious way: (record that completes it, record that begins it).
    fn obvious(
        letters: &[(u64, u8, bool)],
        steps: &[u8],
        without: Option<u8>,
        within: u64,
    ) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (begin, (start, first, group)) in letters.iter().enumerate() {
            if *first != steps[0] {
                continue;
            }
            let mut next = 1;
            if steps.len() == 1 {
                found.push((begin, begin));
                continue;
            }
            for (at, (now, letter, other)) in letters.iter().enumerate().skip(begin + 1) {
                if now - start > within || (other == group && Some(*letter) == without) {
                    break;
                }
                if other == group && *letter == steps[next] {
                    next += 1;
                    if next == steps.len() {
                        found.push((at, begin));
                        break;
                    }
                }
            }
        }
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn matches_are_those_of_an_obvious_matcher(
            items in prop::collection::vec((0u64..4, 0u8..4, any::<bool>()), 1..80),
            steps in prop::collection::vec(0u8..3, 1..4),
            without in prop::option::of(0u8..4),
            within in 1u64..20,
        ) {
            const NAMES: [&str; 4] = ["A", "B", "C", "D"];
            let step = |letter: &u8| format!("flow(conn_state = {})", NAMES[usize::from(*letter)]);
            let mut text = steps.iter().map(step).collect::<Vec<_>>().join(" then ");
            text += &format!(" within {within}s by id.orig_h");
            if let Some(without) = &without {
                text += &format!(" without {}", step(without));
            }
            let mut pattern = Pattern::parse(&text).unwrap();
            let (mut now, mut letters, mut found) = (0, Vec::new(), Vec::new());
            for (at, (gap, letter, group)) in items.into_iter().enumerate() {
                now += gap;
                letters.push((now, letter, group));
                let unit = at as u64;
                let record = Record::new(Kind::Flow, Origin::Own, now * 1_000_000_000, (unit, unit))
                    .with("conn_state", NAMES[usize::from(letter)])
                    .with("id.orig_h", if group { "x" } else { "y" });
                let mut matches = Vec::new();
                pattern.take(&record, &mut matches);
                found.extend(matches.iter().map(|found| (at, found.first_unit as usize)));
            }
            found.sort_unstable();
            prop_assert_eq!(found, obvious(&letters, &steps, without, within));
            prop_assert_eq!(pattern.forgotten(), 0);
        }
    }
}
