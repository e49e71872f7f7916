//! `portfolio/port<k>.txt` -> `portfolio/frontier<k>.csv`: `point,mean,variance`, from the largest mean down to that of the
//! least variance.

use crate::{YardstickError, create, inputs};
use anyhow::Context;
use std::path::Path;
use tidegate_gpu::Cpu;
use tidegate_gpu::portfolio::Assets;

/// Points of a front, as many as the published ones have.
const POINTS: usize = 2_000;

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let cpu = Cpu::new(0)?;
    let mut count = 0;
    for (stem, path) in inputs(&data.join("portfolio"), ".txt", "port<k>.txt")? {
        let Some(name) = stem.strip_prefix("port").filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue; // a published front
        };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let wrong = |reason: String| YardstickError::BadSeries { path: path.clone(), reason };
        let assets = assets(&text).map_err(wrong)?;
        let front = cpu.install(|| assets.front(POINTS)).map_err(|error| wrong(error.to_string()))?;
        let mut table = create(&out.join("portfolio"), &format!("frontier{name}.csv"))?;
        table.write_record(["point", "mean", "variance"])?;
        for (point, portfolio) in front.iter().enumerate() {
            table.write_record([
                point.to_string(),
                portfolio.mean.to_string(),
                portfolio.variance.to_string(),
            ])?;
        }
        table.flush()?;
        count += 1;
    }
    if count == 0 {
        return Err(YardstickError::NoInput { wanted: "port<k>.txt", folder: data.join("portfolio") }.into());
    }
    Ok(count)
}

/// The number of assets; mean and deviation of each; then `i j correlation`, from 1.
fn assets(text: &str) -> Result<Assets, String> {
    let mut words = text.split_ascii_whitespace();
    let mut number = |what: &str| -> Result<f64, String> {
        let word = words.next().ok_or(format!("ends before {what}"))?;
        word.parse().map_err(|_| format!("`{word}` is no number, where {what} should be"))
    };
    let count = number("the number of assets")?;
    if !(1.0..=4_096.0).contains(&count) || count.fract() != 0.0 {
        return Err(format!("{count} assets; allowed are 1 to 4096"));
    }
    let count = count as usize;
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    for asset in 1..=count {
        means.push(number(&format!("the mean of asset {asset}"))?);
        deviations.push(number(&format!("the deviation of asset {asset}"))?);
    }
    let mut covariances = vec![f64::NAN; count * count];
    for _ in 0..count * (count + 1) / 2 {
        let mut place = || {
            let asset = number("an asset's number")?;
            let known = asset >= 1.0 && asset <= count as f64 && asset.fract() == 0.0;
            if known { Ok(asset as usize - 1) } else { Err(format!("there is no asset {asset}")) }
        };
        let (row, column) = (place()?, place()?);
        let covariance = number("a correlation")? * deviations[row] * deviations[column];
        covariances[row * count + column] = covariance;
        covariances[column * count + row] = covariance;
    }
    Assets::new(&means, &covariances).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_a_front_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("portfolio")).unwrap();
        let problem = "2\n .1 .2\n .2 .3\n 1 1 1\n 1 2 .5\n 2 2 1\n";
        let path = data.join("portfolio/port7.txt");
        std::fs::write(&path, problem).unwrap();
        std::fs::write(data.join("portfolio/portef7.txt"), "published").unwrap();
        assert_eq!(write(&data, &out).unwrap(), 1);
        let table = std::fs::read_to_string(out.join("portfolio/frontier7.csv")).unwrap();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!((rows.len(), rows[0]), (2_001, "point,mean,variance"));
        let number =
            |row: usize, column: usize| rows[row].split(',').nth(column).unwrap().parse::<f64>().unwrap();
        assert_eq!(number(1, 1), 0.2);
        assert!((number(1, 2) - 0.09).abs() < 1e-12);
        // Least variance by hand: (0.09 - 0.03) / (0.04 + 0.09 - 0.06) in the first.
        let share = 0.06 / 0.07;
        assert!((number(2_000, 1) - (0.1 * share + 0.2 * (1.0 - share))).abs() < 1e-8);

        for (from, to, wrong) in [
            ("2 2 1", "2 2", "ends before a correlation"),
            ("1 2 .5", "1 3 .5", "there is no asset 3"),
            (".3", "x", "`x` is no number, where the deviation of asset 2 should be"),
            ("2\n", "0\n", "0 assets; allowed are 1 to 4096"),
        ] {
            std::fs::write(&path, problem.replacen(from, to, 1)).unwrap();
            let error = write(&data, &out).unwrap_err().to_string();
            assert!(error.ends_with(wrong), "{error}");
        }
    }
}
