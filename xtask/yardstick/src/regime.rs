//! `hamilton/<name>.csv` and `hamilton/parameters.json` -> `regime/<name>.csv`: `row,p1_filtered,p1_smoothed`.

use crate::{YardstickError, create, inputs};
use anyhow::Context;
use serde_json::Value;
use std::path::Path;
use tidegate_regime::SwitchingAr;

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let folder = data.join("hamilton");
    let files = inputs(&folder, ".csv", "<name>.csv")?;
    let path = folder.join("parameters.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let parameters: Value =
        serde_json::from_str(&text).with_context(|| format!("`{}` is not JSON", path.display()))?;
    let model = model(&parameters).map_err(|reason| YardstickError::BadSeries { path, reason })?;
    for (stem, path) in &files {
        let wrong = |reason: String| YardstickError::BadSeries { path: path.clone(), reason };
        let series = series(path)?;
        let filtered = model.filter(&series).map_err(|error| wrong(error.to_string()))?;
        let smoothed = model.smooth(&series).map_err(|error| wrong(error.to_string()))?;
        let mut table = create(&out.join("regime"), &format!("{stem}.csv"))?;
        let regimes = 1..model.regimes();
        table.write_field("row")?;
        table.write_record(
            regimes.clone().flat_map(|at| [format!("p{at}_filtered"), format!("p{at}_smoothed")]),
        )?;
        for row in 0..series.len() {
            table.write_field(row.to_string())?;
            for regime in regimes.clone() {
                // The first rows only start the autoregression.
                let at = row.checked_sub(filtered.skipped).map(|row| row * model.regimes() + regime);
                for rows in [&filtered.rows, &smoothed.rows] {
                    table.write_field(at.map_or(String::new(), |at| rows[at].to_string()))?;
                }
            }
            table.write_record(None::<&[u8]>)?;
        }
        table.flush()?;
    }
    Ok(files.len())
}

/// The model that parameters named `p[0->0]`, `mean[0]`, `sigma2` (or `sigma2[0]`) and `ar` describe.
fn model(parameters: &Value) -> Result<SwitchingAr, String> {
    let number = |name: String| parameters[&name].as_f64().ok_or(format!("there is no number `{name}`"));
    let regimes = (0..).take_while(|at| parameters.get(format!("mean[{at}]")).is_some()).count();
    let means = (0..regimes).map(|at| number(format!("mean[{at}]"))).collect::<Result<Vec<_>, _>>()?;
    let mut transition = Vec::new();
    for from in 0..regimes {
        let row: Vec<f64> =
            (1..regimes).map(|to| number(format!("p[{from}->{}]", to - 1))).collect::<Result<_, _>>()?;
        let rest = 1.0 - row.iter().sum::<f64>();
        transition.extend(row.into_iter().chain([rest]));
    }
    let variances = if parameters.get("sigma2").is_some() {
        vec![number("sigma2".into())?]
    } else {
        (0..regimes).map(|at| number(format!("sigma2[{at}]"))).collect::<Result<_, _>>()?
    };
    let ar = parameters["ar"].as_array().ok_or("there is no list `ar`")?;
    let ar =
        ar.iter().map(|value| value.as_f64().ok_or("`ar` holds something other than numbers".to_owned()));
    let ar = ar.collect::<Result<Vec<_>, _>>()?;
    SwitchingAr::new(&transition, &means, &variances, &ar).map_err(|error| error.to_string())
}

/// The first column that holds numbers.
fn series(path: &Path) -> anyhow::Result<Vec<f64>> {
    let mut rows = csv::Reader::from_path(path)?;
    let (mut series, mut column) = (Vec::new(), None);
    for record in rows.records() {
        let record = record?;
        let number = |at: usize| record.get(at).and_then(|text| text.trim().parse::<f64>().ok());
        let at = column.or_else(|| (0..record.len()).find(|&at| number(at).is_some()));
        let value = at.and_then(number).ok_or_else(|| YardstickError::BadRow {
            path: path.to_owned(),
            line: record.position().map_or(0, csv::Position::line),
            reason: "there is no number where the series should be".to_owned(),
        })?;
        column = at;
        series.push(value);
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_place_and_wrong_parameters_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("hamilton")).unwrap();
        let parameters =
            r#"{"p[0->0]": 0.9, "p[1->0]": 0.2, "mean[0]": -1, "mean[1]": 3, "sigma2": 1, "ar": [0.1]}"#;
        std::fs::write(data.join("hamilton/parameters.json"), parameters).unwrap();
        let rows: String = (0..8).map(|at| format!("Q{at},{}\n", if at < 4 { -1.0 } else { 3.5 })).collect();
        std::fs::write(data.join("hamilton/x.csv"), format!("quarter,y\n{rows}")).unwrap();
        assert_eq!(write(&data, &out).unwrap(), 1);
        let table = std::fs::read_to_string(out.join("regime/x.csv")).unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines[0], ["row", "p1_filtered", "p1_smoothed"]);
        assert_eq!(lines[1], ["0", "", ""]);
        let chance = |row: usize, column: usize| lines[row + 1][column].parse::<f64>().unwrap();
        assert!(chance(2, 1) < 0.01 && chance(7, 1) > 0.99 && chance(4, 2) > 0.99, "{table}");

        std::fs::write(data.join("hamilton/parameters.json"), parameters.replace("p[1->0]", "q")).unwrap();
        let error = write(&data, &out).unwrap_err().to_string();
        assert!(error.ends_with("there is no number `p[1->0]`"), "{error}");
        std::fs::write(data.join("hamilton/parameters.json"), parameters.replace("0.9", "1.9")).unwrap();
        let error = write(&data, &out).unwrap_err().to_string();
        assert!(error.contains("`transition` is 1.9: a probability"), "{error}");
    }
}
