//! `nslkdd/*.csv.gz` -> `nslkdd.csv`: `score`, one per record.

use crate::{YardstickError, create, inputs};
use anyhow::Context;
use std::collections::HashMap;
use std::path::Path;
use tidegate_anomaly::{FeatureKind, RecordDetector};

/// Features of a connection, in the order of KDD Cup 1999.
const FEATURES: usize = 41;
/// Protocol, service and flag.
const CATEGORIES: [usize; 3] = [1, 2, 3];
/// Rates over connections of the last two seconds and of the last hundred to the host.
const SHARES: [std::ops::RangeInclusive<usize>; 2] = [24..=30, 33..=40];

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let files = inputs(&data.join("nslkdd"), ".csv.gz", "<name>.csv.gz")?;
    let mut table = create(out, "nslkdd.csv")?;
    table.write_record(["score"])?;
    let kinds: [FeatureKind; FEATURES] = std::array::from_fn(|feature| {
        if CATEGORIES.contains(&feature) {
            FeatureKind::Category
        } else if SHARES.iter().any(|shares| shares.contains(&feature)) {
            FeatureKind::Share
        } else {
            FeatureKind::Count
        }
    });
    let mut detector = RecordDetector::new(&kinds)?;
    let mut names: [HashMap<String, f64>; FEATURES] = std::array::from_fn(|_| HashMap::new());
    for (_, path) in &files {
        let mut rows =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(crate::open(path)?);
        let (mut row, mut features) = (csv::StringRecord::new(), [0.0; FEATURES]);
        while rows.read_record(&mut row).with_context(|| format!("cannot read `{}`", path.display()))? {
            let line = row.position().map_or(0, csv::Position::line);
            let wrong = |reason: String| YardstickError::BadRow { path: path.clone(), line, reason };
            if row.len() < FEATURES {
                return Err(wrong(format!("{} columns; a record has {FEATURES} features", row.len())).into());
            }
            for (feature, (text, value)) in row.iter().zip(&mut features).enumerate() {
                *value = if kinds[feature] == FeatureKind::Category {
                    let next = names[feature].len() as f64;
                    *names[feature].entry(text.to_owned()).or_insert(next)
                } else {
                    text.trim().parse().map_err(|_| wrong(format!("feature {}: `{text}`", feature + 1)))?
                };
            }
            table.write_record([detector.push(&features)?.score.to_string()])?;
        }
    }
    table.flush()?;
    Ok(1)
}
