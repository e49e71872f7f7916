//! Rows of numeric series to findings: values that leave the ranges a series has had, and changes of mean and variance.
//!
//! A row is judged at its place in the file: what is older than the row before it counts all the same, and is counted.

use super::judge::{Scores, finding, quoted, score_of, severity_of};
use super::{Joined, SeriesSpec};
use crate::exit::Failure;
use crate::render::instant;
use crate::series::alert_score;
use std::collections::{HashMap, VecDeque};
use tidegate_alert::{Finding, Range, Reason, Severity};
use tidegate_anomaly::{SeriesDetector, SeriesOptions, SeriesState, Verdict};
use tidegate_regime::segments::{Change, Piece};
use tidegate_regime::{SegmentOptions, Segments};

/// Series judged at once: under 2 KiB each, and some 10 KiB more where changes are looked for. Rows of further ones are counted.
pub(crate) const SERIES_MAX: usize = 65_536;
const CHANGING_MAX: usize = 16_384;
/// Rows of a series that its detector learns from before it says anything.
pub(crate) const LEARNING_ROWS: u64 = 150;
/// Rows whose place is remembered: a change lies back no further than the window, the outlier filter and a row.
const PLACES: usize = 256;
/// Longest name of a series, as alerts have it.
const ENTITY_CHARS_MAX: usize = 255;
const SECOND_NS: u64 = 1_000_000_000;

pub(super) const ANOMALY: &str = "series-anomaly";
pub(super) const CHANGE: &str = "change-point";

pub(super) const SCORES_HEADER: &str =
    "row,time,series,value,state,score,chance,alert,evidence,expected,spread,strongest";
pub(super) const CHANGES_HEADER: &str = "series,column,index,detected_index,row,time,detected_row,detected_time,score,gain,penalty,changed,\
     mean_before,mean,deviation_before,deviation,slope_before,slope";

/// What became of the rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) series: u64,
    /// Series that have had too few values to be judged.
    pub(crate) learning: u64,
    /// Values that were judged, and those that came while their series learnt.
    pub(crate) judged: u64,
    pub(crate) learnt: u64,
    /// Values that are missing or not finite.
    pub(crate) missing: u64,
    /// Rows that are older than the one before of their series, and as old.
    pub(crate) disordered: u64,
    pub(crate) repeated: u64,
    /// Rows of series beyond the most that are judged.
    pub(crate) refused: u64,
    pub(crate) changes: u64,
}

/// A row of one key.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) number: u64,
    pub(super) ts: u64,
    pub(super) key: Option<&'a str>,
    pub(super) columns: &'a [String],
    pub(super) values: &'a [f64],
}

/// Judges every series of one table, all with the same settings.
pub(super) struct SeriesJudge {
    spec: SeriesSpec,
    keys: HashMap<String, usize>,
    groups: Vec<Group>,
    counts: Counts,
    changes: Option<Scores>,
}

/// The series of one key: one for each column of values.
struct Group {
    name: String,
    /// By column.
    entities: Vec<String>,
    detectors: Vec<SeriesDetector>,
    /// None, one for all columns together, or one for each.
    segments: Vec<Segments>,
    /// Number and instant of the last rows.
    places: VecDeque<(u64, u64)>,
    last_ts: u64,
}

impl SeriesJudge {
    pub(super) fn new(spec: SeriesSpec) -> Self {
        Self { spec, keys: HashMap::new(), groups: Vec::new(), counts: Counts::default(), changes: None }
    }

    /// Writes every change from now on.
    pub(super) fn write_changes_to(&mut self, table: Scores) {
        self.changes = Some(table);
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.changes.take().map_or(Ok(()), Scores::finish)
    }

    pub(super) fn counts(&self) -> Counts {
        let learning = |detector: &&SeriesDetector| detector.rows() <= LEARNING_ROWS;
        let series = self.groups.iter().flat_map(|group| &group.detectors);
        let learning = series.filter(learning).count() as u64;
        Counts { learning, ..self.counts }
    }

    pub(super) fn take(
        &mut self,
        row: Row<'_>,
        scores: &mut Option<Scores>,
        found: &mut impl FnMut(Finding),
    ) {
        let Some(at) = self.group(row) else {
            self.counts.refused += 1;
            return;
        };
        let Self { spec, groups, counts, changes, .. } = self;
        let group = &mut groups[at];
        match row.ts.cmp(&group.last_ts) {
            std::cmp::Ordering::Less if !group.places.is_empty() => counts.disordered += 1,
            std::cmp::Ordering::Equal if !group.places.is_empty() => counts.repeated += 1,
            _ => {}
        }
        group.last_ts = row.ts;
        if group.places.len() == PLACES {
            group.places.pop_front();
        }
        group.places.push_back((row.number, row.ts));
        let seconds = (row.ts / SECOND_NS) as i64;
        let series = group.detectors.iter_mut().zip(&group.entities).zip(row.values);
        for ((detector, entity), &value) in series {
            let verdict = detector.push(seconds, value);
            let missing = !value.is_finite();
            let learning = verdict.state == SeriesState::Learning;
            *(match (missing, learning) {
                (true, _) => &mut counts.missing,
                (_, true) => &mut counts.learnt,
                _ => &mut counts.judged,
            }) += 1;
            let alert = is_alert(spec, detector, &verdict);
            if let Some(scores) = scores {
                let state = match (missing, learning) {
                    (true, _) => "missing",
                    (_, true) => "learning",
                    _ => "judged",
                };
                scores.write(format_args!(
                    "{},{},{},{},{state},{},{:.6e},{},{},{},{},{}\n",
                    row.number,
                    instant(row.ts),
                    quoted(entity),
                    number(value),
                    verdict.score,
                    verdict.chance,
                    u8::from(alert),
                    verdict.evidence,
                    number(verdict.expected),
                    number(verdict.spread),
                    verdict.strongest.map_or("", |part| part.name()),
                ));
            }
            if alert {
                let threshold = detector.options().threshold;
                found(anomaly(spec, entity, value, &verdict, threshold, row.number, row.ts));
            }
        }
        match spec.changes {
            None => {}
            Some(Joined::Together) => {
                if let Some(change) = group.segments.first_mut().and_then(|one| one.push(row.values)) {
                    counts.changes += 1;
                    group.changed(&change, 0, row, changes, found);
                }
            }
            Some(Joined::Each) => {
                for (at, value) in row.values.iter().enumerate() {
                    if let Some(change) = group.segments[at].push(std::slice::from_ref(value)) {
                        counts.changes += 1;
                        group.changed(&change, at, row, changes, found);
                    }
                }
            }
        }
    }

    /// The place of the row's key; `None` where there are too many.
    fn group(&mut self, row: Row<'_>) -> Option<usize> {
        let key = row.key.unwrap_or_default();
        if let Some(&at) = self.keys.get(key) {
            return Some(at);
        }
        let columns = row.values.len() as u64;
        let most = if self.spec.changes.is_some() { CHANGING_MAX } else { SERIES_MAX };
        if self.counts.series + columns > most as u64 {
            return None;
        }
        let name = row.key.unwrap_or(&self.spec.label).to_owned();
        let group = Group::new(name, row.columns, self.spec.changes)?;
        self.groups.push(group);
        self.counts.series += columns;
        self.keys.insert(key.to_owned(), self.groups.len() - 1);
        Some(self.groups.len() - 1)
    }
}

impl Group {
    /// `None` where there are more columns than can change together, which was seen to before.
    fn new(name: String, columns: &[String], changes: Option<Joined>) -> Option<Self> {
        let entity = |column: &String| {
            let whole = if columns.len() > 1 { format!("{name}/{column}") } else { name.clone() };
            whole.chars().take(ENTITY_CHARS_MAX).collect()
        };
        let of = |dimensions| Segments::new(SegmentOptions { dimensions, ..SegmentOptions::default() }).ok();
        let segments = match changes {
            None => Some(Vec::new()),
            Some(Joined::Together) => of(columns.len()).map(|one| vec![one]),
            Some(Joined::Each) => columns.iter().map(|_| of(1)).collect(),
        };
        let detector = SeriesDetector::new(SeriesOptions::default()).ok()?;
        Some(Self {
            entities: columns.iter().map(entity).collect(),
            detectors: vec![detector; columns.len()],
            segments: segments?,
            places: VecDeque::with_capacity(PLACES),
            last_ts: 0,
            name,
        })
    }

    /// Tells a change that the row has settled.
    fn changed(
        &self,
        change: &Change,
        at: usize,
        row: Row<'_>,
        table: &mut Option<Scores>,
        found: &mut impl FnMut(Finding),
    ) {
        let segments = &self.segments[at];
        let together = segments.options().dimensions > 1;
        let entity = if together { &self.name } else { &self.entities[at] };
        let columns = if together { row.columns } else { &row.columns[at..=at] };
        let (before, after) = segments.pieces();
        let back = (change.detected_at - change.index) as usize;
        let place = self.places.len().saturating_sub(1 + back);
        let (first, first_ts) = self.places.get(place).copied().unwrap_or((row.number, row.ts));
        let penalty = segments.options().penalty * segments.options().dimensions as f64;
        let score = alert_score(penalty, penalty + change.gain.max(0.0));
        let mut most: Vec<(f64, usize)> = Vec::new();
        for (at, (was, is)) in before.iter().zip(after).enumerate() {
            most.push((difference(was, is), at));
            if let Some(table) = table {
                table.write(format_args!(
                    "{},{},{},{},{first},{},{},{},{score},{},{penalty},{},{},{},{},{},{},{}\n",
                    quoted(entity),
                    quoted(&columns[at]),
                    change.index,
                    change.detected_at,
                    instant(first_ts),
                    row.number,
                    instant(row.ts),
                    change.gain,
                    changed(was, is),
                    number(was.mean),
                    number(is.mean),
                    number(was.deviation),
                    number(is.deviation),
                    number(was.slope),
                    number(is.slope),
                ));
            }
        }
        // Where several columns changed, those that changed most speak.
        most.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut reasons = Vec::new();
        for &(_, at) in most.iter().take(2) {
            let of = |what: &str| {
                if together { format!("{what} of {}", columns[at]) } else { what.to_owned() }
            };
            let (was, is) = (&before[at], &after[at]);
            for (name, seen, expected) in
                [("mean", is.mean, was.mean), ("deviation", is.deviation, was.deviation)]
            {
                if seen.is_finite() && expected.is_finite() {
                    reasons.push(Reason::new(&of(name), seen, expected));
                }
            }
        }
        reasons.push(Reason::new("log-likelihood won by a change", penalty + change.gain, penalty));
        reasons.push(Reason::new("rows since it", back as f64 + 1.0, 0.0));
        let strongest = most.first().map_or(0, |(_, at)| *at);
        let mut finding = finding(CHANGE, entity.clone(), row.number, row.ts, Severity::Low, score);
        finding.method = changed(&before[strongest], &after[strongest]).to_owned();
        finding.reasons = reasons;
        finding.range = Range { first, last: row.number, first_ts, last_ts: row.ts };
        found(finding);
    }
}

/// Whether a row is told: by the shipped threshold, or by how seldom an undisturbed series scores so high.
fn is_alert(spec: &SeriesSpec, detector: &SeriesDetector, verdict: &Verdict) -> bool {
    match spec.one_in {
        None => verdict.score >= detector.options().threshold,
        Some(one_in) => verdict.score > 0.0 && verdict.chance <= 1.0 / f64::from(one_in),
    }
}

fn anomaly(
    spec: &SeriesSpec,
    entity: &str,
    value: f64,
    verdict: &Verdict,
    threshold: f64,
    row: u64,
    ts: u64,
) -> Finding {
    let mut reasons = vec![
        Reason::new("value", value, verdict.expected),
        Reason::new("distance from what was expected", (value - verdict.expected).abs(), verdict.spread),
    ];
    if let Some(part) = verdict.strongest {
        let (seen, end) = verdict.witness;
        reasons.push(Reason::new(&format!("{}, against the end of its range", part.name()), seen, end));
    }
    let (severity, score) = match spec.one_in {
        None => {
            reasons.push(Reason::new("score", verdict.score, threshold));
            let severity = match verdict.score / threshold {
                times if times >= 4.0 => Severity::High,
                times if times >= 2.0 => Severity::Medium,
                _ => Severity::Low,
            };
            (severity, alert_score(threshold, verdict.score))
        }
        Some(one_in) => {
            let rate = 1.0 / f64::from(one_in);
            reasons.push(Reason::new(
                "undisturbed rows for each that scores so high",
                1.0 / verdict.chance,
                f64::from(one_in),
            ));
            (severity_of(verdict.chance, rate), score_of(verdict.chance, rate))
        }
    };
    let method = verdict.strongest.map_or("", |part| part.name()).to_owned();
    Finding { method, reasons, ..finding(ANOMALY, entity.to_owned(), row, ts, severity, score) }
}

/// A number as it is, nothing for none.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

/// By how many of its errors the mean differs, or the logarithm of the deviation if that is more.
fn difference(before: &Piece, after: &Piece) -> f64 {
    let (mean, variance, _) = differences(before, after);
    mean.max(variance)
}

/// Differences of mean, deviation and slope, each in its own errors; 0 where one piece is too short to tell.
fn differences(before: &Piece, after: &Piece) -> (f64, f64, f64) {
    if !(before.count >= 3.0 && after.count >= 3.0) {
        return (0.0, 0.0, 0.0);
    }
    let squared = |piece: &Piece| piece.deviation * piece.deviation;
    let errors = |away: f64, error: f64| {
        if away == 0.0 { 0.0 } else { away / error }
    };
    let level = (squared(before) / before.count + squared(after) / after.count).sqrt();
    // The variance of a slope over n equal steps is that of the noise by n cubed over twelve.
    let cubed = |piece: &Piece| 12.0 * squared(piece) / (piece.count * piece.count * piece.count);
    let slope = (cubed(before) + cubed(after)).sqrt();
    let spread = (1.0 / (2.0 * before.count) + 1.0 / (2.0 * after.count)).sqrt();
    let ratio = if before.deviation == after.deviation {
        0.0
    } else {
        libm::log(after.deviation / before.deviation).abs()
    };
    (
        errors((after.mean - before.mean).abs(), level),
        errors(ratio, spread),
        errors((after.slope - before.slope).abs(), slope),
    )
}

/// Errors from which a difference is named.
const NAMED: f64 = 3.0;

/// What changed, in words.
fn changed(before: &Piece, after: &Piece) -> &'static str {
    let (mean, variance, slope) = differences(before, after);
    match (mean > NAMED, variance > NAMED, slope > NAMED) {
        (true, false, _) => "mean",
        (false, true, _) => "variance",
        (true, true, _) => "mean and variance",
        (false, false, true) => "slope",
        (false, false, false) => "shape",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(mean: f64, deviation: f64, slope: f64) -> Piece {
        Piece { count: 30.0, mean, slope, deviation }
    }

    #[test]
    fn what_changed_is_named() {
        let before = piece(1.0, 1.0, 0.0);
        for (after, name) in [
            (piece(5.0, 1.0, 0.0), "mean"),
            (piece(1.1, 9.0, 0.0), "variance"),
            (piece(9.0, 5.0, 0.0), "mean and variance"),
            (piece(1.0, 1.0, 0.5), "slope"),
            (piece(1.0, 1.0, 0.0), "shape"),
            (Piece { count: 2.0, ..piece(9.0, 1.0, 0.0) }, "shape"),
        ] {
            assert_eq!(changed(&before, &after), name, "{after:?}");
        }
        // Two constants have no noise to measure a step by.
        assert_eq!(changed(&piece(1.0, 0.0, 0.0), &piece(2.0, 0.0, 0.0)), "mean");
    }

    #[test]
    fn the_learning_rows_are_those_of_the_shipped_options() {
        let options = SeriesOptions::default();
        assert_eq!(u64::from(options.learning_rows), LEARNING_ROWS);
        let window = SegmentOptions::default().window;
        assert!(PLACES > window + tidegate_regime::outlier::REACH + 1);
    }

    #[test]
    fn series_beyond_the_most_are_counted_and_the_others_go_on() {
        let mut judge = SeriesJudge::new(SeriesSpec { changes: Some(Joined::Each), ..SeriesSpec::default() });
        judge.counts.series = CHANGING_MAX as u64 - 3;
        let columns = ["a".to_owned(), "b".to_owned()];
        let mut none = None;
        for (number, key) in ["x", "y", "x"].into_iter().enumerate() {
            let row = Row {
                number: number as u64 + 1,
                ts: 5 - number as u64,
                key: Some(key),
                columns: &columns,
                values: &[1.0, f64::NAN],
            };
            judge.take(row, &mut none, &mut |_| {});
        }
        let counts = judge.counts();
        assert_eq!((counts.refused, counts.disordered, counts.learnt, counts.missing), (1, 1, 2, 2));
        assert_eq!(judge.groups[0].entities, ["x/a", "x/b"]);
    }
}
