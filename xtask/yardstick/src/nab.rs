//! `nab/<category>/<name>.csv.gz` -> `nab/<category>/<name>.csv`: `timestamp,score`, one row per input row.

use crate::{YardstickError, create, inputs};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tidegate_anomaly::{SeriesDetector, SeriesOptions};

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let out = out.join("nab");
    let all = files(data)?;
    for file in &all {
        judge(&file.path, &out.join(&file.folder), &file.stem)?;
    }
    Ok(all.len())
}

/// A series' file.
pub(crate) struct File {
    /// The folder it lies in, a kind of series.
    pub(crate) folder: String,
    pub(crate) stem: String,
    pub(crate) path: PathBuf,
}

/// The files of all series below `nab`, in order of name.
pub(crate) fn files(data: &Path) -> anyhow::Result<Vec<File>> {
    let data = data.join("nab");
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&data).with_context(|| format!("cannot list `{}`", data.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    let mut all = Vec::new();
    for folder in &folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let compressed = inputs(folder, ".csv.gz", "<name>.csv.gz").unwrap_or_default();
        let plain = inputs(folder, ".csv", "<name>.csv").unwrap_or_default();
        let found = compressed.into_iter().chain(plain);
        all.extend(found.map(|(stem, path)| File { folder: name.clone(), stem, path }));
    }
    if all.is_empty() {
        return Err(YardstickError::NoInput { wanted: "<category>/<name>.csv.gz", folder: data }.into());
    }
    Ok(all)
}

/// One series, row by row, with the shipped configuration. The threshold chooses alerts, not scores.
fn judge(path: &Path, out: &Path, stem: &str) -> anyhow::Result<()> {
    let mut detector = SeriesDetector::new(SeriesOptions::default())?;
    let mut table = create(out, &format!("{stem}.csv"))?;
    table.write_record(["timestamp", "score"])?;
    rows(path, |time, seconds, value| {
        let verdict = detector.push(seconds, value);
        table.write_record([time, &verdict.score.to_string()])?;
        Ok(())
    })?;
    table.flush()?;
    Ok(())
}

/// Gives the rows of a series: time as it is written, in seconds, and the value, NaN where there is none.
pub(crate) fn rows(
    path: &Path,
    mut take: impl FnMut(&str, i64, f64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut rows = csv::Reader::from_reader(crate::open(path)?);
    let mut row = csv::StringRecord::new();
    while rows.read_record(&mut row).with_context(|| format!("cannot read `{}`", path.display()))? {
        let line = row.position().map_or(0, csv::Position::line);
        let wrong = |reason: String| YardstickError::BadRow { path: path.to_owned(), line, reason };
        let (Some(time), Some(value)) = (row.get(0), row.get(1)) else {
            return Err(wrong("not timestamp,value".to_owned()).into());
        };
        let seconds =
            seconds(time).ok_or_else(|| wrong(format!("`{time}` is no time such as 2024-01-31 23:55:00")))?;
        // A value that is missing is a row all the same.
        let value = if value.trim().is_empty() { Ok(f64::NAN) } else { value.trim().parse() };
        let value = value.map_err(|_| wrong("the value is no number".to_owned()))?;
        take(time, seconds, value)?;
    }
    Ok(())
}

/// Local time, as the people behind a series live by.
pub(crate) fn seconds(time: &str) -> Option<i64> {
    let at: jiff::civil::DateTime = time.parse().ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_gets_a_score_and_a_spike_the_highest() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("nab/some")).unwrap();
        let rows: Vec<String> = (0..600)
            .map(|at| {
                let value = if at == 500 { 30.0 } else { ((at * 7_919) % 101) as f64 / 50.0 };
                let value = if at == 400 { String::new() } else { value.to_string() };
                format!("2024-01-{:02} {:02}:{:02}:00,{value}", 1 + at / 288, at / 12 % 24, at % 12 * 5)
            })
            .collect();
        std::fs::write(data.join("nab/some/a.csv"), format!("timestamp,value\n{}\n", rows.join("\n")))
            .unwrap();
        assert_eq!(write(&data, &out).unwrap(), 1);
        let table = std::fs::read_to_string(out.join("nab/some/a.csv")).unwrap();
        let scores: Vec<f64> =
            table.lines().skip(1).map(|row| row.split_once(',').unwrap().1.parse().unwrap()).collect();
        assert_eq!((scores.len(), table.lines().next()), (600, Some("timestamp,score")));
        let most = scores.iter().copied().fold(0.0, f64::max);
        assert!(scores[500] == most && most > 2.0, "{most}");

        std::fs::write(data.join("nab/some/a.csv"), "timestamp,value\n2024-13-01 00:00:00,1\n").unwrap();
        let error = write(&data, &out).unwrap_err().to_string();
        assert!(error.contains("line 2: `2024-13-01 00:00:00` is no time"), "{error}");
        std::fs::remove_dir_all(data.join("nab/some")).unwrap();
        assert!(write(&data, &out).unwrap_err().to_string().starts_with("no <category>/<name>.csv.gz in"));
    }
}
