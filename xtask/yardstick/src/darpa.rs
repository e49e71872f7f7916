//! `darpa/*.csv.xz` -> `darpa.csv`: `score`, one per connection.

use crate::measures::Labels;
use crate::{YardstickError, create, inputs};
use anyhow::Context;
use std::path::Path;
use tidegate_anomaly::{EdgeDetector, EdgeOptions, MidasF, MidasOptions};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let mut table = create(out, "darpa.csv")?;
    table.write_record(["score"])?;
    let mut detector = EdgeDetector::new(EdgeOptions::default())?;
    edges(data, |source, destination, minute, _| {
        Ok(table.write_record([detector.push(source, destination, minute).score.to_string()])?)
    })?;
    table.flush()?;
    Ok(1)
}

/// MIDAS-F alone into `darpa_midas.csv`, and how well it does beside the whole.
pub(crate) fn baseline(data: &Path, out: &Path) -> anyhow::Result<String> {
    let mut whole = EdgeDetector::new(EdgeOptions::default())?;
    let mut midas = MidasF::new(MidasOptions::default())?;
    let mut table = create(out, "darpa_midas.csv")?;
    table.write_record(["score"])?;
    let (mut labels, mut of_whole, mut of_midas) = (Labels::default(), Vec::new(), Vec::new());
    edges(data, |source, destination, minute, label| {
        labels.push(label);
        of_whole.push(whole.push(source, destination, minute).score);
        let score = midas.push(source, destination, minute);
        of_midas.push(score);
        Ok(table.write_record([score.to_string()])?)
    })?;
    table.flush()?;
    let mut text = format!(
        "{} connections, {} of them attacks of {} types\n{:24}{:>10}{:>26}{:>28}\n",
        labels.count(),
        labels.attacks(),
        labels.types(),
        "",
        "ROC-AUC",
        "recall at 1 % false pos.",
        "the same, mean over types"
    );
    for (name, scores) in [("whole", &of_whole), ("MIDAS-F alone", &of_midas)] {
        let found = labels.judge(scores, 0.01).ok_or(YardstickError::NoInput {
            wanted: "ordinary connections and attacks by their fourth column",
            folder: data.join("darpa"),
        })?;
        text += &format!(
            "{name:24}{:>10.4}{:>26.4}{:>28.4}\n",
            found.roc_auc, found.recall, found.recall_by_type
        );
    }
    Ok(text)
}

/// Gives the edges of all files, one stream in order of name: source, destination, minute, and what the fourth column says, if there is one.
fn edges(data: &Path, mut take: impl FnMut(u64, u64, u64, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let files = inputs(&data.join("darpa"), ".csv.xz", "<name>.csv.xz")?;
    for (_, path) in &files {
        let mut rows =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(crate::open(path)?);
        let (mut row, mut minute) = (csv::StringRecord::new(), (String::new(), 0));
        while rows.read_record(&mut row).with_context(|| format!("cannot read `{}`", path.display()))? {
            let line = row.position().map_or(0, csv::Position::line);
            let wrong = |reason: String| YardstickError::BadRow { path: path.clone(), line, reason };
            let (Some(source), Some(destination), Some(time)) = (row.get(0), row.get(1), row.get(2)) else {
                return Err(wrong("not source,destination,time".to_owned()).into());
            };
            if minute.0 != time {
                let at = jiff::civil::DateTime::strptime("%m/%d/%Y-%H:%M", time);
                let at = at.map_err(|_| wrong(format!("`{time}` is no time such as 06/01/1998-07:55")))?;
                let seconds = at.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_second();
                minute = (time.to_owned(), u64::try_from(seconds / 60).unwrap_or(0));
            }
            let (source, destination) = (xxh3_64(source.as_bytes()), xxh3_64(destination.as_bytes()));
            take(source, destination, minute.1, row.get(3).unwrap_or_default())?;
        }
    }
    Ok(())
}
