//! `tidegate-yardstick PART --data DIR --out DIR`: results of the product in the layout the scorers read.
//!
//! **Invariant:** only the product's public API computes; here files are found, and numbers become text. No file is
//! known by name.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bars;
mod darpa;
mod folds;
mod indicators;
mod measures;
mod nab;
mod nslkdd;
mod pcap;
mod portfolio;
mod pricing;
mod regime;
mod tcpd;

/// Writes one part's results.
#[derive(Parser)]
struct Arguments {
    /// Which part.
    part: String,
    /// Folder with the input, in the layout of the public data.
    #[arg(long)]
    data: PathBuf,
    /// Folder to write to; made if need be.
    #[arg(long)]
    out: PathBuf,
    /// `nab`: also how well settings and thresholds do on folders that they were not chosen by, from `nab/windows.json`.
    #[arg(long)]
    folds: bool,
    /// `darpa`: also MIDAS-F alone, beside the whole, by the labels in the fourth column.
    #[arg(long)]
    baseline: bool,
}

/// What a part does: reads below one folder, writes below another, returns how many files it wrote.
type Work = fn(&Path, &Path) -> anyhow::Result<usize>;

/// The parts there are.
const PARTS: [(&str, Work); 10] = [
    ("bars", bars::write),
    ("indicators", indicators::write),
    ("nab", nab::write),
    ("darpa", darpa::write),
    ("nslkdd", nslkdd::write),
    ("tcpd", tcpd::write),
    ("regime", regime::write),
    ("pcap", pcap::write),
    ("portfolio", portfolio::write),
    ("pricing", pricing::write),
];

/// Why nothing can be computed.
#[derive(Debug, thiserror::Error)]
enum YardstickError {
    /// No such part, or not in this version.
    #[error("there is no part `{part}`; available are: {available}")]
    UnknownPart { part: String, available: String },
    /// A part has no such extra.
    #[error("`{option}` is for part `{part}`")]
    Foreign { option: &'static str, part: &'static str },
    /// The folder has no input of this part's shape.
    #[error("no {wanted} in `{}`", folder.display())]
    NoInput { wanted: &'static str, folder: PathBuf },
    /// A file of several symbols cannot become bars of one.
    #[error("`{}` holds {symbols} symbols; a file of trades must hold one", path.display())]
    ManySymbols { path: PathBuf, symbols: usize },
    /// A row of daily bars is not one.
    #[error("`{}` line {line}: {reason}", path.display())]
    BadRow { path: PathBuf, line: u64, reason: String },
    /// A file is no series, or no parameters.
    #[error("`{}`: {reason}", path.display())]
    BadSeries { path: PathBuf, reason: String },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { part, data, out, folds, baseline }: Arguments) -> anyhow::Result<()> {
    for (is, option, of) in [(folds, "--folds", "nab"), (baseline, "--baseline", "darpa")] {
        if is && part != of {
            return Err(YardstickError::Foreign { option, part: of }.into());
        }
    }
    let known = PARTS.iter().find(|(name, _)| *name == part);
    let available = || PARTS.map(|(name, _)| name).join(", ");
    let (_, work) = known.ok_or_else(|| YardstickError::UnknownPart { part, available: available() })?;
    let count = work(&data, &out)?;
    println!("{count} files written to {}", out.display());
    if folds {
        print!("{}", folds::report(&data)?);
    }
    if baseline {
        print!("{}", darpa::baseline(&data, &out)?);
    }
    Ok(())
}

/// Files of `folder` whose name ends so, with what stands before the ending, in order of name.
fn inputs(folder: &Path, ending: &str, wanted: &'static str) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let listed = std::fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut found = Vec::new();
    for entry in listed {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(stem) = name.strip_suffix(ending).filter(|stem| !stem.is_empty())
            && path.is_file()
        {
            found.push((stem.to_owned(), path));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(YardstickError::NoInput { wanted, folder: folder.to_owned() }.into());
    }
    Ok(found)
}

/// A file's text, whatever its ending says it is packed with.
fn open(path: &Path) -> anyhow::Result<Box<dyn std::io::Read>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("xz") => Box::new(lzma_rust2::XzReader::new(std::io::BufReader::new(file), true)),
        _ => Box::new(file),
    })
}

/// Makes `folder` and a file in it.
fn create(folder: &Path, name: &str) -> anyhow::Result<csv::Writer<std::fs::File>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let path = folder.join(name);
    csv::Writer::from_path(&path).with_context(|| format!("cannot write `{}`", path.display()))
}
