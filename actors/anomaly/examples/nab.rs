//! Scores one series: `seconds value` per line on standard input, `score evidence` per line on standard output.
//!
//! For trying settings out on many series; the product's own way is `cargo xtask yardstick nab`.

use std::io::{BufRead, Write};
use tidegate_anomaly::{SeriesDetector, SeriesOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut detector = SeriesDetector::new(SeriesOptions::default())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (seconds, value) = line.split_once(' ').ok_or("a line is `seconds value`")?;
        let verdict = detector.push(seconds.parse()?, value.parse()?);
        writeln!(out, "{} {}", verdict.score, verdict.evidence)?;
    }
    Ok(())
}
