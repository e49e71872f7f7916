//! Rules of users: read from files and the command line.

use crate::exit::{Exit, Failure};
use crate::render::Ui;
use std::path::{Path, PathBuf};
use tidegate_alert::store::RuleSource;
use tidegate_rules::{Keys, Kind, Pattern, RuleSet, Streams, Type, sigma};

/// Largest rule file, bytes.
const BYTES_MAX: u64 = 4 << 20;
/// Files of one folder, and how deep it is looked into.
const FILES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;

/// Rules, and where each came from.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    pub(crate) set: RuleSet,
    pub(crate) sources: Vec<RuleSource>,
    /// The streams of results that rules were read with, as an input keeps them; none where no rule reads one.
    pub(crate) streams: Option<String>,
}

/// Option of an input whose rules read streams of results, or stood beside such.
pub(crate) const STREAMS: &str = "streams";

/// Streams as text: name, whose rows, and columns with what they hold.
fn describe(streams: &Streams) -> String {
    let all = streams.all().map(|(name, keys, columns)| {
        let columns: Vec<_> = columns.into_iter().map(|(name, of)| (name, of == Type::Text)).collect();
        serde_json::json!([name, keys == Keys::Hosts, columns])
    });
    serde_json::Value::Array(all.collect()).to_string()
}

/// Inverse of [`describe`].
pub(crate) fn streams_of(text: &str) -> anyhow::Result<Streams> {
    type Described = Vec<(String, bool, Vec<(String, bool)>)>;
    let mut streams = Streams::default();
    for (name, hosts, columns) in serde_json::from_str::<Described>(text)? {
        let of = |text: bool| if text { Type::Text } else { Type::Number };
        let keys = if hosts { Keys::Hosts } else { Keys::Symbols };
        let columns = columns.iter().map(|(name, text)| (name.as_str(), of(*text)));
        anyhow::ensure!(
            streams.add(&name, keys, columns).is_some(),
            "there are more streams than are numbered"
        );
    }
    Ok(streams)
}

/// Reads rule files, folders of them, and patterns. What is wrong with any is told, and then nothing is run.
pub(crate) fn load(
    sigma: &[PathBuf],
    patterns: &[String],
    streams: &Streams,
    ui: &Ui,
) -> Result<Rules, Failure> {
    let mut files = Vec::new();
    for path in sigma {
        collect(path, 0, &mut files)?;
    }
    let mut texts = Vec::new();
    let mut sources = Vec::new();
    for path in &files {
        let input = |error: std::io::Error| {
            Failure::new(Exit::Input, anyhow::Error::new(error).context(path.display().to_string()))
        };
        let bytes = std::fs::metadata(path).map_err(input)?.len();
        if bytes > BYTES_MAX {
            let text = format!(
                "{}: {bytes} bytes are more than a file of rules may have ({BYTES_MAX})",
                path.display()
            );
            return Err(Failure::new(Exit::Input, anyhow::anyhow!(text)));
        }
        let text = std::fs::read_to_string(path).map_err(input)?;
        let from = std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        sources.push(RuleSource { kind: "sigma".to_owned(), from, digest: digest(&text) });
        texts.push((path.display().to_string(), text));
    }
    let compiled = sigma::compile_over(&texts, streams).map_err(|errors| {
        let (last, others) =
            errors.split_last().map_or((None, &[][..]), |(last, others)| (Some(last), others));
        others.iter().for_each(|error| ui.error(&anyhow::Error::new(error.clone())));
        let last = last.map_or_else(
            || anyhow::anyhow!("the rules cannot be read"),
            |error| anyhow::Error::new(error.clone()),
        );
        Failure::new(Exit::Input, last)
    })?;
    let mut read: Vec<Pattern> = Vec::new();
    for text in patterns {
        let pattern = Pattern::over(text, streams)
            .map_err(|error| Failure::usage(format_args!("--pattern: {error}")))?;
        if read.iter().any(|other| other.name == pattern.name) {
            return Err(Failure::usage(format_args!(
                "--pattern: there are two of the name `{}`",
                pattern.name
            )));
        }
        sources.push(RuleSource { kind: "pattern".to_owned(), from: text.clone(), digest: digest(text) });
        read.push(pattern);
    }
    let set = RuleSet::new(compiled, read);
    let of_rows = set.looks_at(|kind| matches!(kind, Kind::Row(_)));
    Ok(Rules { set, sources, streams: of_rows.then(|| describe(streams)) })
}

/// The rules of then; an error where one of them has changed.
pub(crate) fn again(sources: &[RuleSource], streams: &Streams, ui: &Ui) -> Result<Rules, Failure> {
    let of = |kind: &'static str| sources.iter().filter(move |source| source.kind == kind);
    let sigma: Vec<PathBuf> = of("sigma").map(|source| PathBuf::from(&source.from)).collect();
    let patterns: Vec<String> = of("pattern").map(|source| source.from.clone()).collect();
    let rules = load(&sigma, &patterns, streams, ui)?;
    for (then, now) in sources.iter().zip(&rules.sources) {
        if then != now {
            let text = format!(
                "{} is not the rule of then: its BLAKE3 is {}, that of then {}",
                now.from, now.digest, then.digest
            );
            return Err(Failure::new(Exit::Input, anyhow::anyhow!(text)));
        }
    }
    Ok(rules)
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// The rule files at a path: itself, or those of a folder by name.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let input = |error: std::io::Error| {
        Failure::new(Exit::Input, anyhow::Error::new(error).context(path.display().to_string()))
    };
    if !std::fs::metadata(path).map_err(input)?.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let before = files.len();
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(input)? {
        entries.push(entry.map_err(input)?.path());
    }
    entries.sort();
    for entry in entries {
        let rule = entry.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        // A link may lead in circles; the depth ends that.
        if (entry.is_dir() && depth < DEPTH_MAX) || rule {
            collect(&entry, depth + 1, files)?;
        }
        if files.len() > FILES_MAX {
            let text = format!("{}: there are more than {FILES_MAX} files of rules", path.display());
            return Err(Failure::new(Exit::Input, anyhow::anyhow!(text)));
        }
    }
    if depth == 0 && files.len() == before {
        let text = format!("{}: there is no rule in it: no file *.yml or *.yaml", path.display());
        return Err(Failure::new(Exit::Input, anyhow::anyhow!(text)));
    }
    Ok(())
}
