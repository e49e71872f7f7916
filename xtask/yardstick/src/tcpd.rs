//! `tcpd/<series>.json` -> `tcpd/<series>.csv`: `index,detected_at`.

use crate::{YardstickError, create, inputs};
use anyhow::Context;
use std::path::Path;
use tidegate_regime::{Change, SegmentOptions, Segments};

/// A series as the Turing Change Point Dataset has it; of its other fields nothing is read.
#[derive(serde::Deserialize)]
struct Series {
    n_obs: usize,
    series: Vec<Dimension>,
}

/// The values of one dimension; `null` is missing.
#[derive(serde::Deserialize)]
struct Dimension {
    raw: Vec<Option<f64>>,
}

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for (stem, path) in inputs(&data.join("tcpd"), ".json", "<series>.json")? {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        // The people's answers may stand beside the series. What has no observations is none.
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("`{}` is not JSON", path.display()))?;
        if value.get("n_obs").is_none() {
            continue;
        }
        let series: Series =
            serde_json::from_value(value).with_context(|| format!("`{}` is not a series", path.display()))?;
        let wrong = |reason: String| YardstickError::BadSeries { path: path.clone(), reason };
        if let Some(short) = series.series.iter().find(|dimension| dimension.raw.len() != series.n_obs) {
            let (found, wanted) = (short.raw.len(), series.n_obs);
            return Err(wrong(format!("a dimension has {found} values, and n_obs is {wanted}")).into());
        }
        let changes = changes(&series).map_err(|error| wrong(error.to_string()))?;
        let mut table = create(&out.join("tcpd"), &format!("{stem}.csv"))?;
        table.write_record(["index", "detected_at"])?;
        for Change { index, detected_at, .. } in changes {
            table.write_record([index.to_string(), detected_at.to_string()])?;
        }
        table.flush()?;
        count += 1;
    }
    if count == 0 {
        return Err(YardstickError::NoInput { wanted: "<series>.json", folder: data.join("tcpd") }.into());
    }
    Ok(count)
}

/// The shipped configuration, the same for every series, observation by observation.
fn changes(series: &Series) -> Result<Vec<Change>, tidegate_regime::RegimeError> {
    let options = SegmentOptions { dimensions: series.series.len(), ..SegmentOptions::default() };
    let mut segments = Segments::new(options)?;
    let mut row = vec![f64::NAN; options.dimensions];
    let mut found = Vec::new();
    for at in 0..series.n_obs {
        for (value, dimension) in row.iter_mut().zip(&series.series) {
            *value = dimension.raw[at].unwrap_or(f64::NAN);
        }
        found.extend(segments.push(&row));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_written_with_when_they_were_known() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("tcpd")).unwrap();
        let noise = |at: usize| ((at * 7_919) % 101) as f64 / 50.0;
        let value =
            |at: usize| (!at.is_multiple_of(17)).then(|| noise(at) + if at < 60 { 0.0 } else { 20.0 });
        let raw: Vec<Option<f64>> = (0..120).map(value).collect();
        let series = serde_json::json!({"name": "a", "n_obs": 120, "n_dim": 1, "series": [{"raw": raw}]});
        std::fs::write(data.join("tcpd/a.json"), series.to_string()).unwrap();
        std::fs::write(data.join("tcpd/answers.json"), r#"{"a": {"6": [60]}}"#).unwrap();
        assert_eq!(write(&data, &out).unwrap(), 1);
        let table = std::fs::read_to_string(out.join("tcpd/a.csv")).unwrap();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!((rows.len(), rows[0]), (2, "index,detected_at"), "{table}");
        let (index, detected) = rows[1].split_once(',').unwrap();
        assert_eq!(index, "60");
        assert!((61..80).contains(&detected.parse::<u32>().unwrap()), "{table}");

        let short = serde_json::json!({"n_obs": 120, "series": [{"raw": [1.0, null]}]});
        std::fs::write(data.join("tcpd/a.json"), short.to_string()).unwrap();
        let error = write(&data, &out).unwrap_err().to_string();
        assert!(error.ends_with("a dimension has 2 values, and n_obs is 120"), "{error}");
        std::fs::write(data.join("tcpd/a.json"), r#"{"n_obs": 3, "series": []}"#).unwrap();
        let error = write(&data, &out).unwrap_err().to_string();
        assert!(error.contains("`dimensions` is 0: 1 to 64"), "{error}");
    }
}
