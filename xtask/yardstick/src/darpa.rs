//! `darpa/*.csv.xz` -> `darpa.csv`: `score`, one per connection.

use crate::{YardstickError, create, inputs};
use anyhow::Context;
use std::path::Path;
use tidegate_anomaly::{EdgeDetector, EdgeOptions};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let files = inputs(&data.join("darpa"), ".csv.xz", "<name>.csv.xz")?;
    let mut table = create(out, "darpa.csv")?;
    table.write_record(["score"])?;
    // Files of one folder are one stream, in order of name.
    let mut detector = EdgeDetector::new(EdgeOptions::default())?;
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
            table.write_record([detector.push(source, destination, minute.1).score.to_string()])?;
        }
    }
    table.flush()?;
    Ok(1)
}
