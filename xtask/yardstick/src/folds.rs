//! `nab --folds`: how well settings and thresholds do on folders that they were not chosen by.
//!
//! The scoring is the benchmark's (Lavin & Ahmad 2015, doi:10.1109/ICMLA.2015.141): in a labelled window the earliest detection counts, the
//! earlier the more; one outside costs, less so soon after a window; the first 15 % of a series, 750 rows at most, are free. A score of 0
//! says nothing, and is never a detection.

use crate::YardstickError;
use crate::nab::{self, File};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_anomaly::{SeriesDetector, SeriesOptions};

/// Weights of a hit, a miss and a false alarm.
struct Profile {
    name: &'static str,
    hit: f64,
    miss: f64,
    alarm: f64,
}

const PROFILES: [Profile; 3] = [
    Profile { name: "standard", hit: 1.0, miss: 1.0, alarm: 0.11 },
    Profile { name: "low FP", hit: 1.0, miss: 1.0, alarm: 0.22 },
    Profile { name: "low FN", hit: 1.0, miss: 2.0, alarm: 0.11 },
];
const FREE_SHARE: f64 = 0.15;
const FREE_ROWS_CAP: f64 = 5_000.0;
/// Random halves that thresholds and settings are chosen on.
const HALVES: u64 = 80;

/// A labelled series.
struct Series {
    folder: usize,
    rows: Vec<(i64, f64)>,
    /// Windows that have rows which count, with the value of a detection in each row.
    windows: Vec<Vec<(usize, f64)>>,
    /// Rows outside, with what a detection there is worth, 0 or less for most.
    outside: Vec<(usize, f64)>,
    /// All windows.
    labelled: usize,
}

/// What of silence is won or lost from a score on: sorted, the highest first.
type Gains = Vec<(f64, f64)>;

/// The series of all folders under one setting: by profile and series.
struct Judged {
    options: SeriesOptions,
    gains: [Vec<Gains>; 3],
}

/// Value of a detection at a place: -1 at a window's first row, 0 behind its last.
fn place_value(y: f64) -> f64 {
    if y > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * y).exp()) - 1.0 }
}

impl Series {
    fn new(folder: usize, rows: Vec<(i64, f64)>, windows: &[(i64, i64)]) -> Option<Self> {
        let place = |time: i64| rows.iter().position(|row| row.0 == time);
        let mut bounds = Vec::new();
        for &(first, last) in windows {
            bounds.push((place(first)?, place(last)?));
        }
        bounds.sort_unstable();
        let count = rows.len() as f64;
        let free = ((FREE_SHARE * count).floor().min(FREE_SHARE * FREE_ROWS_CAP)).ceil() as usize;
        let mut outside = Vec::new();
        let mut inside = Vec::new();
        let first = bounds.first().map_or(rows.len(), |bound| bound.0);
        outside.extend((0..first).map(|row| (row, -1.0)));
        for (at, &(from, to)) in bounds.iter().enumerate() {
            let width = (to - from + 1) as f64;
            let value = |row: usize| place_value(-((to - row + 1) as f64) / width) / place_value(-1.0);
            inside.push((from.max(free)..=to).map(|row| (row, value(row))).collect::<Vec<_>>());
            let stop = bounds.get(at + 1).map_or(rows.len(), |next| next.0);
            let value =
                |row: usize| if width > 1.0 { place_value((row - to) as f64 / (width - 1.0)) } else { -1.0 };
            outside.extend((to + 1..stop).map(|row| (row, value(row))));
        }
        outside.retain(|(row, _)| *row >= free);
        inside.retain(|rows| !rows.is_empty());
        Some(Self { folder, rows, windows: inside, outside, labelled: bounds.len() })
    }

    /// Scores of all rows.
    fn scores(&self, options: SeriesOptions) -> anyhow::Result<Vec<f64>> {
        let mut detector = SeriesDetector::new(options)?;
        Ok(self.rows.iter().map(|&(seconds, value)| detector.push(seconds, value).score).collect())
    }

    /// What each score wins or loses when it becomes a detection, those above it being so already.
    fn gains(&self, scores: &[f64], profile: &Profile) -> Gains {
        let mut gains: Gains =
            self.outside.iter().map(|&(row, value)| (scores[row], value * profile.alarm)).collect();
        for window in &self.windows {
            let mut order = window.clone();
            order.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]));
            let mut best = -profile.miss;
            for (row, value) in order {
                let value = (value * profile.hit).max(best);
                gains.push((scores[row], value - best));
                best = value;
            }
        }
        gains.retain(|(score, gain)| *score > 0.0 && *gain != 0.0);
        gains.sort_by(|a, b| b.0.total_cmp(&a.0));
        gains
    }
}

impl Judged {
    fn new(all: &[Series], options: SeriesOptions) -> anyhow::Result<Self> {
        let scores = all.iter().map(|series| series.scores(options)).collect::<anyhow::Result<Vec<_>>>()?;
        let of = |profile: &Profile| {
            all.iter().zip(&scores).map(|(series, scores)| series.gains(scores, profile)).collect()
        };
        let [standard, low_fp, low_fn] = &PROFILES;
        Ok(Self { options, gains: [of(standard), of(low_fp), of(low_fn)] })
    }

    /// The threshold that wins most over the series that are `chosen`, and what it wins.
    fn best(&self, profile: usize, chosen: impl Fn(usize) -> bool) -> (f64, f64) {
        let of = self.gains[profile].iter().enumerate().filter(|(at, _)| chosen(*at));
        let mut gains: Gains = of.flat_map(|(_, gains)| gains.iter().copied()).collect();
        gains.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut sum, mut best) = (0.0, (f64::INFINITY, 0.0));
        for tied in gains.chunk_by(|a, b| a.0 == b.0) {
            sum += tied.iter().map(|(_, gain)| gain).sum::<f64>();
            if sum > best.1 {
                best = (tied[0].0, sum);
            }
        }
        best
    }

    /// What a threshold wins over the series that are `chosen`.
    fn wins(&self, profile: usize, threshold: f64, chosen: impl Fn(usize) -> bool) -> f64 {
        let of = self.gains[profile].iter().enumerate().filter(|(at, _)| chosen(*at));
        of.map(|(_, gains)| {
            gains.iter().take_while(|(score, _)| *score >= threshold).map(|(_, gain)| gain).sum::<f64>()
        })
        .sum()
    }
}

/// What all detections at their best would win, over the series that are `chosen`.
fn perfect(all: &[Series], profile: &Profile, chosen: impl Fn(usize) -> bool) -> f64 {
    let of = all.iter().enumerate().filter(|(at, _)| chosen(*at));
    of.map(|(_, series)| series.labelled as f64 * profile.hit + series.windows.len() as f64 * profile.miss)
        .sum()
}

/// The setting and threshold that win most over the series that are `chosen`.
fn choose(settings: &[Judged], profile: usize, chosen: impl Fn(usize) -> bool + Copy) -> (&Judged, f64) {
    let mut best = (&settings[0], f64::INFINITY, 0.0);
    for judged in settings {
        let (threshold, won) = judged.best(profile, chosen);
        if won > best.2 {
            best = (judged, threshold, won);
        }
    }
    (best.0, best.1)
}

/// Settings that folds choose among; the shipped ones come first.
fn grid() -> Vec<SeriesOptions> {
    let shipped = SeriesOptions::default();
    let mut grid = vec![shipped];
    for forget in [0.0, shipped.forget, 4.0 * shipped.forget] {
        for margin in [0.02, 0.05, 0.1, 0.2] {
            for hold_rows in [10, 20, 40] {
                let options = SeriesOptions { forget, margin, hold_rows, ..shipped };
                if options != shipped {
                    grid.push(options);
                }
            }
        }
    }
    grid
}

/// The figures, as a table.
pub(crate) fn report(data: &Path) -> anyhow::Result<String> {
    let (folders, all) = read(data)?;
    let settings =
        grid().into_iter().map(|options| Judged::new(&all, options)).collect::<anyhow::Result<Vec<_>>>()?;
    let windows: usize = all.iter().map(|series| series.labelled).sum();
    let mut text = format!(
        "{} series of {} folders, {windows} windows, {} settings\n{:68}",
        all.len(),
        folders.len(),
        settings.len(),
        ""
    );
    PROFILES.iter().for_each(|profile| text += &format!("{:>10}", profile.name));
    text.push('\n');
    let mut line = |name: &str, of: &dyn Fn(usize) -> f64| {
        text += &format!("{name:68}");
        for profile in 0..PROFILES.len() {
            // A folder without windows has no perfect detector to be measured by.
            let value = of(profile);
            let shown = if value.is_finite() { format!("{value:.1}") } else { "-".to_owned() };
            text += &format!("{shown:>10}");
        }
        text.push('\n');
    };
    let everyone = |_: usize| true;
    let share = |profile: usize, won: f64| 100.0 * won / perfect(&all, &PROFILES[profile], everyone);
    let shipped = &settings[0];
    line("shipped, the threshold that is best over all", &|profile| {
        share(profile, shipped.best(profile, everyone).1)
    });
    let folds = |settings: &[Judged], profile: usize| -> f64 {
        let won = (0..folders.len()).map(|folder| {
            let (judged, threshold) = choose(settings, profile, |at| all[at].folder != folder);
            judged.wins(profile, threshold, |at| all[at].folder == folder)
        });
        share(profile, won.sum())
    };
    line("shipped, threshold chosen on the other folders", &|profile| folds(&settings[..1], profile));
    line("settings and threshold chosen on the other folders", &|profile| folds(&settings, profile));
    let halves = |settings: &[Judged], profile: usize| -> f64 {
        let mean = (0..HALVES).map(|seed| {
            let half = half(all.len(), seed);
            let (judged, threshold) = choose(settings, profile, |at| half[at]);
            let rest = |at: usize| !half[at];
            100.0 * judged.wins(profile, threshold, rest) / perfect(&all, &PROFILES[profile], rest)
        });
        mean.sum::<f64>() / HALVES as f64
    };
    let name = format!("shipped, threshold chosen on a random half, mean of {HALVES}");
    line(&name, &|profile| halves(&settings[..1], profile));
    line("settings and threshold chosen on a random half", &|profile| halves(&settings, profile));
    for (folder, name) in folders.iter().enumerate() {
        let of_folder = |at: usize| all[at].folder == folder;
        line(&format!("  {name}: shipped, threshold of the others"), &|profile| {
            let (judged, threshold) = choose(&settings[..1], profile, |at| !of_folder(at));
            100.0 * judged.wins(profile, threshold, of_folder) / perfect(&all, &PROFILES[profile], of_folder)
        });
    }
    for (folder, name) in folders.iter().enumerate() {
        text += &format!("  without {name} these are chosen:");
        for (at, profile) in PROFILES.iter().enumerate() {
            let (judged, threshold) = choose(&settings, at, |series| all[series].folder != folder);
            let SeriesOptions { forget, margin, hold_rows, .. } = judged.options;
            text += &format!(
                "{} {}: forget {forget} margin {margin} hold {hold_rows} threshold {threshold:.2}",
                if at == 0 { "" } else { ";" },
                profile.name
            );
        }
        text.push('\n');
    }
    Ok(text)
}

/// A half of so many, always the same for a seed.
fn half(count: usize, seed: u64) -> Vec<bool> {
    let word = |at: usize| {
        // A finaliser after Steele, Lea & Flood 2014 (SplitMix64).
        let mixed = (seed * count as u64 + at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| word(*at));
    let mut half = vec![false; count];
    order[..count / 2].iter().for_each(|at| half[*at] = true);
    half
}

/// The names of the folders, and their labelled series.
fn read(data: &Path) -> anyhow::Result<(Vec<String>, Vec<Series>)> {
    let path = data.join("nab/windows.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let labels: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&text)
        .with_context(|| format!("`{}` does not map series to windows", path.display()))?;
    let mut folders: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for File { folder, stem, path } in nab::files(data)? {
        let wrong = |reason: String| YardstickError::BadSeries { path: path.clone(), reason };
        let name = format!("{folder}/{stem}.csv");
        let windows = labels.get(&name).ok_or_else(|| wrong(format!("no windows for `{name}`")))?;
        let time = |text: &String| {
            nab::seconds(text).ok_or_else(|| wrong(format!("a window at `{text}`, which is no time")))
        };
        let windows = windows
            .iter()
            .map(|(first, last)| Ok((time(first)?, time(last)?)))
            .collect::<Result<Vec<_>, YardstickError>>()?;
        let mut rows = Vec::new();
        nab::rows(&path, |_, seconds, value| {
            rows.push((seconds, value));
            Ok(())
        })?;
        let at = folders.iter().position(|known| *known == folder).unwrap_or_else(|| {
            folders.push(folder);
            folders.len() - 1
        });
        let series = Series::new(at, rows, &windows);
        all.push(series.ok_or_else(|| wrong("a window begins or ends where there is no row".to_owned()))?);
    }
    Ok((folders, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty rows with a window of rows 20 to 29; the first six are free.
    fn series(scores: &[(usize, f64)]) -> (Series, Vec<f64>) {
        let rows = (0..40).map(|row| (row, 0.0)).collect();
        let mut all = vec![0.0; 40];
        scores.iter().for_each(|&(row, score)| all[row] = score);
        (Series::new(0, rows, &[(20, 29)]).unwrap(), all)
    }

    fn judged(all: &[Series], scores: &[Vec<f64>]) -> Judged {
        let of = |profile: &Profile| {
            all.iter().zip(scores).map(|(series, scores)| series.gains(scores, profile)).collect()
        };
        let [standard, low_fp, low_fn] = &PROFILES;
        Judged { options: SeriesOptions::default(), gains: [of(standard), of(low_fp), of(low_fn)] }
    }

    #[test]
    fn detections_are_worth_what_the_benchmark_says() {
        let everyone = |_: usize| true;
        let share = |scores: &[(usize, f64)], profile: usize, threshold: f64| {
            let (series, scores) = series(scores);
            let judged = judged(std::slice::from_ref(&series), &[scores]);
            let perfect = perfect(&[series], &PROFILES[profile], everyone);
            100.0 * judged.wins(profile, threshold, everyone) / perfect
        };
        assert!((share(&[(20, 1.0)], 0, 1.0) - 100.0).abs() < 1e-9, "the window's first row is perfect");
        assert_eq!(share(&[(20, 1.0)], 0, 1.1), 0.0, "silence");
        assert_eq!(share(&[(3, 1.0)], 0, 1.0), 0.0, "the beginning is free");
        assert!((share(&[(10, 1.0)], 0, 1.0) + 100.0 * 0.11 / 2.0).abs() < 1e-9);
        assert!((share(&[(10, 1.0)], 1, 1.0) + 100.0 * 0.22 / 2.0).abs() < 1e-9);
        assert!((share(&[(20, 1.0), (10, 1.0)], 2, 1.0) - 100.0 * (3.0 - 0.11) / 3.0).abs() < 1e-9);
        // Only the earliest of a window counts, whatever its score is beside the others.
        assert!((share(&[(20, 1.0), (25, 9.0)], 0, 1.0) - 100.0).abs() < 1e-9);
        let late = share(&[(29, 1.0)], 0, 1.0);
        assert!((50.0..70.0).contains(&late), "{late}");
        // Just behind a window a false alarm costs little.
        let behind = share(&[(30, 1.0)], 0, 1.0);
        assert!((-100.0 * 0.11 / 2.0 / 2.0..0.0).contains(&behind), "{behind}");
    }

    #[test]
    fn the_best_threshold_is_found_and_a_fold_does_not_see_itself() {
        let (first, scores) = series(&[(20, 5.0), (10, 3.0), (12, 2.0)]);
        let (second, other) = series(&[(22, 2.5), (9, 2.4)]);
        let judged = judged(&[first, second], &[scores, other]);
        let one = |at: usize| at == 0;
        assert_eq!(judged.best(0, one).0, 5.0);
        assert_eq!(judged.best(0, |at| at == 1).0, 2.5);
        let both = judged.best(0, |_| true);
        assert_eq!((both.0, both.1), (2.5, judged.wins(0, 2.5, |_| true)));
        assert_eq!(judged.wins(0, 5.0, |at| at == 1), 0.0);
    }

    #[test]
    fn a_report_needs_labels_that_fit() {
        let folder = tempfile::tempdir().unwrap();
        let nab = folder.path().join("nab/some");
        std::fs::create_dir_all(&nab).unwrap();
        let error = report(folder.path()).unwrap_err().to_string();
        assert!(error.contains("windows.json"), "{error}");
        let labels = |text: &str| std::fs::write(folder.path().join("nab/windows.json"), text).unwrap();
        let row = |at: u32| {
            let value = if at == 500 { 90.0 } else { f64::from(at * 7_919 % 101) / 50.0 };
            format!("2024-01-{:02} {:02}:{:02}:00,{value}\n", 1 + at / 288, at / 12 % 24, at % 12 * 5)
        };
        std::fs::write(
            nab.join("a.csv"),
            format!("timestamp,value\n{}", (0..600).map(row).collect::<String>()),
        )
        .unwrap();
        labels("{}");
        assert!(report(folder.path()).unwrap_err().to_string().contains("no windows for `some/a.csv`"));
        labels(r#"{"some/a.csv": [["2024-01-02 17:39:00", "2024-01-02 18:00:00"]]}"#);
        assert!(report(folder.path()).unwrap_err().to_string().contains("where there is no row"));
        // Row 500 is the second day's 17:40.
        labels(r#"{"some/a.csv": [["2024-01-02 17:40:00.000000", "2024-01-02 20:00:00.000000"]]}"#);
        let text = report(folder.path()).unwrap();
        let shipped = text.lines().find(|line| line.starts_with("shipped, the threshold")).unwrap();
        assert!(shipped.ends_with("100.0     100.0     100.0"), "{text}");
        assert!(text.contains("1 series of 1 folders, 1 windows"), "{text}");
    }
}
