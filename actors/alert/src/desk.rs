//! What is told and what is held back.

use crate::episode::{Episode, EpisodeId, Hold};
use crate::finding::{Finding, SILENCE_S_MAX, Severity};
use crate::policy::{Calibration, Groups, Quiet, QuietKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A day, ns.
pub const DAY_NS: u64 = 86_400 * 1_000_000_000;
/// Rows kept of each table by day and group; older ones are summed up in day 0.
const ROWS_MAX: usize = 4_096;

/// How a desk works.
#[derive(Debug, Clone)]
pub struct DeskOptions {
    /// What comes again within so long of the last time belongs to the same episode, ns; longer where its findings say so.
    pub gap_ns: u64,
    /// Alerts told per group and day of event time (UTC); `None` for no bound.
    pub budget: Option<u32>,
    /// Who shares a budget.
    pub groups: Groups,
    /// Episodes remembered; beyond it the one that was silent for longest is forgotten, and counted.
    pub episodes_max: usize,
}

impl Default for DeskOptions {
    fn default() -> Self {
        Self { gap_ns: 600 * 1_000_000_000, budget: None, groups: Groups::default(), episodes_max: 10_000 }
    }
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A new alert is told.
    New,
    /// An alert that was told is told again, since it is worse now.
    Worse {
        /// What it was told as before.
        from: Severity,
    },
    /// Counted into an alert that was told.
    Again,
    /// Held back.
    Held(Hold),
}

/// What became of a finding, and where it went.
#[derive(Debug)]
pub struct Verdict {
    /// Its episode.
    pub id: EpisodeId,
    /// What became of it.
    pub told: Told,
    /// The episode that was forgotten to make room.
    pub evicted: Option<Box<Episode>>,
}

/// Groups findings into episodes and decides which are told.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    options: DeskOptions,
    quiets: Vec<Quiet>,
    required: HashMap<(String, Option<String>), f64>,
    episodes: HashMap<EpisodeId, Episode>,
    open: HashMap<(String, String), EpisodeId>,
    /// Longest silent first.
    order: BTreeSet<(u64, EpisodeId)>,
    told: BTreeMap<(u64, String), u32>,
    held: BTreeMap<(u64, String, Hold), u64>,
    forgotten: u64,
    findings: u64,
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(options: DeskOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Heeds a suppression or maintenance window.
    pub fn heed(&mut self, quiet: Quiet) {
        self.quiets.push(quiet);
    }

    /// Heeds feedback; of several demands the highest holds.
    pub fn calibrate(&mut self, calibration: &Calibration) {
        let key = (calibration.kind.clone(), calibration.entity.clone());
        let required = self.required.entry(key).or_insert(0.0);
        *required = required.max(calibration.required);
    }

    /// Goes on from an episode of earlier. Those that were told have used their day's budget.
    pub fn resume(&mut self, episode: Episode) {
        if episode.told.is_some() {
            *self.told.entry((episode.first_ts / DAY_NS, episode.group.clone())).or_default() += 1;
        }
        if !self.episodes.contains_key(&episode.id) {
            self.make_room();
        }
        let key = (episode.kind.clone(), episode.entity.clone());
        let newer = self.open.get(&key).and_then(|id| self.episodes.get(id));
        if newer.is_none_or(|other| other.last_ts <= episode.last_ts) {
            self.open.insert(key, episode.id);
        }
        self.order.insert((episode.last_ts, episode.id));
        self.episodes.insert(episode.id, episode);
    }

    /// Takes a finding.
    pub fn offer(&mut self, finding: Finding) -> Verdict {
        let finding = finding.bounded();
        self.findings += 1;
        let (id, before, evicted) = self.place(&finding);
        let episode = self.episodes.get_mut(&id).expect("it was found or inserted");
        let worse = match (episode.told, before) {
            (Some(told), _) => finding.severity > told,
            (None, Some(before)) => finding.severity > before,
            (None, None) => false,
        };
        let told = match quiet(&self.quiets, &finding) {
            Some(hold) => Told::Held(hold),
            None if episode.told.is_some() && !worse => Told::Again,
            None if !worse && required(&self.required, &finding) > finding.score => {
                Told::Held(Hold::Calibrated)
            }
            None => {
                let spent = self.told.entry((finding.ts / DAY_NS, episode.group.clone())).or_default();
                if !worse && self.options.budget.is_some_and(|budget| *spent >= budget) {
                    Told::Held(Hold::Budget)
                } else {
                    // What gets worse is always told, and leaves the budget to others.
                    *spent += u32::from(!worse);
                    let from = episode.told.replace(finding.severity);
                    from.map_or(Told::New, |from| Told::Worse { from })
                }
            }
        };
        if let Told::Held(hold) = told {
            episode.held.add(hold, 1);
            *self.held.entry((finding.ts / DAY_NS, episode.group.clone(), hold)).or_default() += 1;
        }
        fold(&mut self.told, |(_, group)| (0, group.clone()));
        fold(&mut self.held, |(_, group, hold)| (0, group.clone(), *hold));
        Verdict { id, told, evicted }
    }

    /// Counts a finding into its episode: which, how severe it was before, what was forgotten for it.
    fn place(&mut self, finding: &Finding) -> (EpisodeId, Option<Severity>, Option<Box<Episode>>) {
        let key = (finding.kind.clone(), finding.entity.clone());
        if let Some(id) = self.open.get(&key).copied()
            && let Some(episode) = self.episodes.get_mut(&id)
        {
            let own = episode.silence_s.unwrap_or(0).min(SILENCE_S_MAX);
            let gap = self.options.gap_ns.max(u64::from(own) * 1_000_000_000);
            let late = finding.ts.saturating_sub(episode.last_ts) > gap;
            let early = episode.first_ts.saturating_sub(finding.ts) > gap;
            if !late && !early {
                let before = episode.severity;
                self.order.remove(&(episode.last_ts, id));
                episode.again(finding);
                self.order.insert((episode.last_ts, id));
                return (id, Some(before), None);
            }
        }
        let mut id = EpisodeId::of(finding);
        while self.episodes.contains_key(&id) {
            id = id.next();
        }
        // Room is made first: findings may come out of order, so the new one need not be the last.
        let evicted = self.make_room();
        let episode = Episode::new(id, finding, self.options.groups.of(&finding.entity));
        self.order.insert((episode.last_ts, id));
        self.open.insert(key, id);
        self.episodes.insert(id, episode);
        (id, None, evicted)
    }

    fn make_room(&mut self) -> Option<Box<Episode>> {
        if self.episodes.len() < self.options.episodes_max.max(1) {
            return None;
        }
        let (_, id) = self.order.pop_first()?;
        let episode = self.episodes.remove(&id)?;
        let key = (episode.kind.clone(), episode.entity.clone());
        if self.open.get(&key) == Some(&id) {
            self.open.remove(&key);
        }
        self.forgotten += 1;
        Some(Box::new(episode))
    }

    /// An episode.
    #[must_use]
    pub fn episode(&self, id: EpisodeId) -> Option<&Episode> {
        self.episodes.get(&id)
    }

    /// Every episode remembered, by beginning and name.
    #[must_use]
    pub fn episodes(&self) -> Vec<&Episode> {
        let mut all: Vec<&Episode> = self.episodes.values().collect();
        all.sort_unstable_by_key(|episode| (episode.first_ts, episode.id));
        all
    }

    /// Findings held back, by day (since 1970; 0 for all before the days kept), group and reason.
    pub fn held(&self) -> impl Iterator<Item = (u64, &str, Hold, u64)> {
        self.held.iter().map(|((day, group, hold), count)| (*day, group.as_str(), *hold, *count))
    }

    /// Episodes forgotten for lack of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Findings taken.
    #[must_use]
    pub fn findings(&self) -> u64 {
        self.findings
    }
}

fn quiet(quiets: &[Quiet], finding: &Finding) -> Option<Hold> {
    let of = |why: QuietKind| quiets.iter().any(|quiet| quiet.why == why && quiet.covers(finding));
    if of(QuietKind::Maintenance) {
        Some(Hold::Maintenance)
    } else {
        of(QuietKind::Suppression).then_some(Hold::Suppressed)
    }
}

fn required(required: &HashMap<(String, Option<String>), f64>, finding: &Finding) -> f64 {
    if required.is_empty() {
        return 0.0;
    }
    let of = |entity: Option<String>| required.get(&(finding.kind.clone(), entity)).copied().unwrap_or(0.0);
    of(None).max(of(Some(finding.entity.clone())))
}

/// Sums the oldest rows up in day 0, so that there are at most [`ROWS_MAX`] and nothing is lost.
fn fold<K: Ord + Clone, V: Default + std::ops::AddAssign + Copy>(
    rows: &mut BTreeMap<K, V>,
    earlier: impl Fn(&K) -> K,
) {
    while rows.len() > ROWS_MAX {
        let oldest = rows.keys().find(|key| earlier(key) != **key).cloned();
        let Some(oldest) = oldest else { return };
        let value = rows.remove(&oldest).unwrap_or_default();
        *rows.entry(earlier(&oldest)).or_default() += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Range, Reason, Severity::*};
    use crate::policy::Group;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn finding(entity: &str, seconds: u64, severity: Severity, score: f64) -> Finding {
        let ts = seconds * SECOND;
        Finding {
            kind: "scan".to_owned(),
            entity: entity.to_owned(),
            spoofed: false,
            peer: None,
            port: None,
            method: String::new(),
            technique: None,
            severity,
            score,
            reasons: Vec::new(),
            range: Range { first: seconds, last: seconds, first_ts: ts, last_ts: ts },
            ts,
            proof: None,
            unproven: None,
            silence_s: None,
        }
    }

    fn desk(budget: Option<u32>) -> Desk {
        Desk::new(DeskOptions { budget, ..DeskOptions::default() })
    }

    fn told(desk: &mut Desk, finding: Finding) -> Told {
        desk.offer(finding).told
    }

    #[test]
    fn repeats_are_one_episode_until_silence_and_a_rise_breaks_through() {
        let mut desk = desk(None);
        assert_eq!(told(&mut desk, finding("a", 10, Low, 0.8)), Told::New);
        assert_eq!(told(&mut desk, finding("a", 500, Low, 0.9)), Told::Again);
        assert_eq!(told(&mut desk, finding("b", 500, Low, 0.9)), Told::New);
        assert_eq!(told(&mut desk, finding("a", 1_000, High, 0.85)), Told::Worse { from: Low });
        assert_eq!(told(&mut desk, finding("a", 1_001, Medium, 0.99)), Told::Again);
        let first = desk.episodes()[0].clone();
        assert_eq!((first.count, first.severity, first.score), (4, High, 0.99));
        // The evidence is that of the score.
        assert_eq!((first.range.first, first.first_ts, first.last_ts), (1_001, 10 * SECOND, 1_001 * SECOND));
        assert_eq!(told(&mut desk, finding("a", 1_602, Low, 0.8)), Told::New);
        assert_eq!(desk.episodes().len(), 3);
    }

    /// What comes seldom asks for a longer silence: then repeats are one episode for so long, also by a desk that goes on from it.
    #[test]
    fn what_comes_seldom_is_one_episode_for_as_long_as_it_asks() {
        let slow = |seconds, silence_s| Finding { silence_s, ..finding("a", seconds, Medium, 0.8) };
        let mut desk = desk(None);
        assert_eq!(told(&mut desk, slow(0, Some(7_200))), Told::New);
        assert_eq!(told(&mut desk, slow(7_200, Some(28_800))), Told::Again);
        assert_eq!(told(&mut desk, slow(36_000, None)), Told::Again);
        let kept = desk.episodes()[0].clone();
        assert_eq!((kept.silence_s, kept.document()["silence_s"].as_u64()), (Some(28_800), Some(28_800)));
        let text = serde_json::to_string(&kept).unwrap();
        let mut next = self::desk(None);
        next.resume(serde_json::from_str(&text).unwrap());
        assert_eq!(told(&mut next, slow(64_800, None)), Told::Again);
        assert_eq!(told(&mut next, slow(93_601, None)), Told::New);
        // What says nothing is written as before, and ends as before.
        assert!(!serde_json::to_string(next.episodes()[1]).unwrap().contains("silence_s"));
        assert_eq!(told(&mut next, slow(94_202, Some(u32::MAX))), Told::New);
        // Nobody can ask for ever, whatever stands in a file.
        let week = u64::from(SILENCE_S_MAX);
        let mut forged = next.episodes()[2].clone();
        assert_eq!(forged.silence_s, Some(SILENCE_S_MAX));
        forged.silence_s = Some(u32::MAX);
        let mut last = self::desk(None);
        last.resume(forged);
        assert_eq!(told(&mut last, slow(94_202 + week + 1, None)), Told::New);
    }

    /// Whoever reads a score reads what it rests on, whatever else was more severe; of equal scores the more severe says why.
    #[test]
    fn reasons_are_those_of_the_highest_score() {
        let mut desk = desk(None);
        let expect = [
            (1, High, 0.5, 1),
            (2, High, 0.8, 2),
            (3, Low, 0.9, 3),
            (4, Medium, 0.6, 3),
            (5, High, 0.9, 3),
            (6, Low, 0.7, 3),
        ];
        for (second, severity, score, evidence) in expect {
            let reason = Reason { name: format!("at {second}"), seen: score, expected: 0.0 };
            let mut found = finding("a", second, severity, score);
            (found.method, found.reasons) = (format!("way {second}"), vec![reason]);
            desk.offer(found);
            let episode = &desk.episodes()[0];
            let told = (episode.range.first, &episode.method[..], &episode.features[0].name[..]);
            assert_eq!(told, (evidence, &format!("way {evidence}")[..], &format!("at {evidence}")[..]));
            assert_eq!((episode.severity, episode.features[0].seen), (High, episode.score));
        }
        // The same score by something more severe than all before.
        let mut desk = self::desk(None);
        for (second, severity) in [(1, Low), (2, Medium), (3, Medium)] {
            desk.offer(finding("a", second, severity, 0.9));
        }
        assert_eq!((desk.episodes()[0].range.first, desk.episodes()[0].severity), (2, Medium));
    }

    #[test]
    fn a_budget_is_per_group_and_day_and_what_it_holds_is_there() {
        let groups = Groups::new(vec!["lab=10.1.0.0/16".parse::<Group>().unwrap()]).unwrap();
        let mut desk = Desk::new(DeskOptions { budget: Some(2), groups, ..DeskOptions::default() });
        let hosts = ["8.8.8.1", "8.8.8.2", "8.8.8.3", "10.1.0.1"];
        let first: Vec<Told> = hosts.map(|host| told(&mut desk, finding(host, 100, Low, 0.8))).to_vec();
        assert_eq!(first, [Told::New, Told::New, Told::Held(Hold::Budget), Told::New]);
        // Worse is told all the same, and does not take the place of another.
        assert_eq!(told(&mut desk, finding("8.8.8.3", 101, Medium, 0.8)), Told::New);
        assert_eq!(told(&mut desk, finding("8.8.8.1", 102, High, 0.8)), Told::Worse { from: Low });
        assert_eq!(told(&mut desk, finding("8.8.8.4", 86_399, High, 0.8)), Told::Held(Hold::Budget));
        // The next day is another, also for what goes on.
        assert_eq!(told(&mut desk, finding("8.8.8.4", 86_401, High, 0.8)), Told::New);
        let rows: Vec<_> = desk.held().collect();
        assert_eq!(rows, [(0, "other", Hold::Budget, 2)]);
        let held = desk.episodes().into_iter().find(|episode| episode.entity == "8.8.8.3").unwrap();
        assert_eq!((held.held.budget, held.told, held.group.as_str()), (1, Some(Medium), "other"));
    }

    #[test]
    fn quiets_end_and_have_a_severity() {
        let quiet = |why, up_to| Quiet {
            number: 1,
            why,
            entity: Some("10.0.0.0/8".parse().unwrap()),
            kind: Some("scan".to_owned()),
            from_ts: 100 * SECOND,
            until_ts: 200 * SECOND,
            up_to,
            note: None,
        };
        let mut desk = desk(None);
        desk.heed(quiet(QuietKind::Suppression, Medium));
        assert_eq!(told(&mut desk, finding("10.0.0.1", 99, Medium, 0.9)), Told::New);
        assert_eq!(told(&mut desk, finding("10.0.0.2", 100, Medium, 0.9)), Told::Held(Hold::Suppressed));
        assert_eq!(told(&mut desk, finding("11.0.0.2", 100, Medium, 0.9)), Told::New);
        assert_eq!(told(&mut desk, finding("10.0.0.2", 150, High, 0.9)), Told::New);
        assert_eq!(told(&mut desk, finding("10.0.0.3", 199, Low, 0.9)), Told::Held(Hold::Suppressed));
        assert_eq!(told(&mut desk, finding("10.0.0.3", 200, Low, 0.9)), Told::New);
        desk.heed(quiet(QuietKind::Maintenance, High));
        assert_eq!(told(&mut desk, finding("10.0.0.4", 150, High, 0.9)), Told::Held(Hold::Maintenance));
    }

    #[test]
    fn feedback_raises_what_is_demanded() {
        let mut desk = desk(None);
        let id = desk.offer(finding("a", 10, Low, 0.9)).id;
        let required = Calibration::demanded(0.9);
        let calibration =
            Calibration { kind: "scan".to_owned(), entity: Some("a".to_owned()), required, episode: id };
        desk.calibrate(&calibration);
        assert_eq!(told(&mut desk, finding("a", 10_000, Low, 0.94)), Told::Held(Hold::Calibrated));
        assert_eq!(told(&mut desk, finding("b", 10_000, Low, 0.94)), Told::New);
        assert_eq!(told(&mut desk, finding("a", 10_001, Low, 0.96)), Told::New);
        desk.calibrate(&Calibration { entity: None, ..calibration });
        assert_eq!(told(&mut desk, finding("c", 10_000, Low, 0.94)), Told::Held(Hold::Calibrated));
        // Still a rise in severity is told.
        assert_eq!(told(&mut desk, finding("c", 10_001, Medium, 0.94)), Told::New);
    }

    #[test]
    fn memory_is_bounded_and_the_silent_go_first() {
        let mut desk = Desk::new(DeskOptions { episodes_max: 3, ..DeskOptions::default() });
        for (at, entity) in ["a", "b", "c", "a"].into_iter().enumerate() {
            assert!(desk.offer(finding(entity, at as u64, Low, 0.8)).evicted.is_none());
        }
        let evicted = desk.offer(finding("d", 9, Low, 0.8)).evicted.unwrap();
        assert_eq!((evicted.entity.as_str(), desk.forgotten(), desk.episodes().len()), ("b", 1, 3));
        // Older than all that is remembered, and still it finds its place.
        let last = desk.offer(finding("e", 0, Low, 0.8));
        assert_eq!((last.told, desk.episodes().len()), (Told::New, 3));
        for seconds in 0..100_000u64 {
            desk.offer(finding("x", seconds * 86_400, Low, 0.8));
        }
        assert!(
            desk.told.len() <= ROWS_MAX
                && desk.episodes.len() == 3
                && desk.order.len() == 3
                && desk.open.len() <= 3
        );
    }

    proptest! {
        /// However findings come: every one of them is in an episode or was forgotten with one, what is held is counted twice
        /// over alike, a severity above all before it is never held by budget, and a second run says the same.
        #[test]
        fn findings_balance(
            items in prop::collection::vec((0u8..4, 0u64..40_000, 0usize..3, 0u8..10), 1..200),
            budget in prop::option::of(0u32..4),
            room in 1usize..6,
        ) {
            let run = || {
                let mut desk = Desk::new(DeskOptions { budget, episodes_max: room, ..DeskOptions::default() });
                let (mut counted, mut held, mut verdicts) = (0, 0, Vec::new());
                for (entity, seconds, severity, score) in &items {
                    let severity = Severity::ALL[*severity];
                    let finding = finding(&entity.to_string(), *seconds, severity, 0.8 + f64::from(*score) / 100.0);
                    let verdict = desk.offer(finding);
                    if let Some(gone) = &verdict.evicted {
                        counted += gone.count;
                        held += gone.held.total();
                    }
                    verdicts.push((verdict.id, verdict.told));
                }
                counted += desk.episodes().iter().map(|episode| episode.count).sum::<u64>();
                held += desk.episodes().iter().map(|episode| episode.held.total()).sum::<u64>();
                assert_eq!(counted, items.len() as u64);
                assert_eq!(held, desk.held().map(|row| row.3).sum::<u64>());
                assert!(desk.episodes().len() <= room);
                verdicts
            };
            prop_assert_eq!(run(), run());
        }
    }
}
