//! Which input was judged and how, so that it can be judged again.

use crate::exit::{Exit, Failure};
use crate::judge::Judge;
use crate::render::Ui;
use crate::rules::{self, Rules};
use crate::tabular;
use crate::traffic::Reading;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tidegate_alert::Input;
use tidegate_replay::decode::ReadOptions;
use tidegate_rules::Streams;

/// Digits of an input's name.
const NAME_DIGITS: usize = 12;

/// Option of an input that goes on: its first so many bytes are meant.
pub(crate) const BYTES: &str = "bytes";

/// Option of an input whose edges were judged: one in so many ordinary ones may be told.
pub(crate) const EDGES: &str = "edges";

/// Option of an input whose results were judged: what was computed of it.
pub(crate) const RESULTS: &str = "results";

/// BLAKE3 of a file's bytes, or of the first so many; `None` for what is no file, such as a pipe, which cannot be read twice.
pub(crate) fn digest(path: &Path, bytes: Option<u64>) -> Result<Option<String>, Failure> {
    if path == Path::new(tabular::PIPE) {
        return Ok(None);
    }
    let failure = |error: std::io::Error| {
        Failure::new(Exit::Input, anyhow::Error::new(error).context(path.display().to_string()))
    };
    if !std::fs::metadata(path).map_err(failure)?.is_file() {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(failure)?.take(bytes.unwrap_or(u64::MAX));
    hasher.update_reader(file).map_err(failure)?;
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

/// A file that is to be judged, nothing of it read yet.
pub(crate) fn of(
    path: &Path,
    flows_max: u32,
    reading: &Reading,
    rules: &Rules,
) -> Result<Option<Input>, Failure> {
    let Some(digest) = digest(path, None)? else { return Ok(None) };
    let mut options = read_as(&reading.options);
    options.insert("flows-max".to_owned(), flows_max.to_string());
    let mut put =
        |name: &str, value: Option<String>| value.map(|value| options.insert(name.to_owned(), value));
    let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    put("exports", reading.exports.as_ref().map(|ports| list(ports)));
    put("sampling", reading.sampling.map(|sampling| sampling.to_string()));
    put(EDGES, reading.edges.map(|one_in| one_in.to_string()));
    put(tabular::OPTION, reading.table.as_ref().and_then(|spec| serde_json::to_string(spec).ok()));
    Ok(Some(named(path, digest, options, rules)))
}

/// How a file is read, as options of an input.
fn read_as(read: &ReadOptions) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let mut put =
        |name: &str, value: Option<String>| value.map(|value| options.insert(name.to_owned(), value));
    put("format", read.format.map(|format| format.name().to_owned()));
    put("from", read.from.map(|from| from.0.to_string()));
    put("to", read.to.map(|to| to.0.to_string()));
    put("strict", read.strict.then(|| "true".to_owned()));
    options
}

/// A file whose results are to be judged, nothing of it read yet: `plan` says which results.
pub(crate) fn of_results(
    path: &Path,
    read: &ReadOptions,
    plan: &serde_json::Value,
    rules: &Rules,
) -> Result<Option<Input>, Failure> {
    let Some(digest) = digest(path, None)? else { return Ok(None) };
    let mut options = read_as(read);
    options.insert(RESULTS.to_owned(), plan.to_string());
    Ok(Some(named(path, digest, options, rules)))
}

fn named(path: &Path, digest: String, mut options: BTreeMap<String, String>, rules: &Rules) -> Input {
    options.extend(rules.streams.clone().map(|streams| (rules::STREAMS.to_owned(), streams)));
    let mut input = Input {
        name: String::new(),
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string(),
        digest,
        options,
        rules: rules.sources.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        units: 0,
        whole: false,
    };
    let identity = format!("{:?}", (&input.digest, &input.options, &input.rules, &input.program));
    input.name = blake3::hash(identity.as_bytes()).to_hex()[..NAME_DIGITS].to_owned();
    input
}

/// The rules of an input, as they were, and the streams of results that they were read with.
pub(crate) fn rules_and_streams(input: &Input, ui: &Ui) -> Result<(Rules, Streams), Failure> {
    let streams = input.options.get(rules::STREAMS).map(|text| rules::streams_of(text)).transpose();
    let streams = streams.context("the store has no valid `streams` of the input");
    let streams = streams.map_err(|error| Failure::new(Exit::Input, error))?.unwrap_or_default();
    Ok((rules::again(&input.rules, &streams, ui)?, streams))
}

/// How an input was read, and a judge as it had one, twice.
pub(crate) fn again(input: &Input, ui: &Ui) -> Result<(Reading, [Judge; 2]), Failure> {
    let (rules, _) = rules_and_streams(input, ui)?;
    let (flows_max, reading) = options(input).map_err(|error| Failure::new(Exit::Input, error))?;
    let judge = || Judge::reading(flows_max, rules.set.clone(), input.name.clone(), &reading);
    let judges = [judge()?, judge()?];
    Ok((reading, judges))
}

fn number(input: &Input, name: &str) -> Option<anyhow::Result<u64>> {
    let text = input.options.get(name)?;
    Some(text.parse::<u64>().with_context(|| format!("the store has `{text}` as `{name}` of the input")))
}

/// Inverse of [`read_as`].
pub(crate) fn read_again(input: &Input) -> anyhow::Result<ReadOptions> {
    let option = |name: &str| input.options.get(name).map(String::as_str);
    let format = option("format").map(str::parse).transpose();
    Ok(ReadOptions {
        format: format.map_err(|error| anyhow::anyhow!("the format of the input: {error}"))?,
        from: number(input, "from").transpose()?.map(tidegate_engine::EventTime),
        to: number(input, "to").transpose()?.map(tidegate_engine::EventTime),
        strict: option("strict").is_some(),
        ..ReadOptions::default()
    })
}

fn options(input: &Input) -> anyhow::Result<(u32, Reading)> {
    let option = |name: &str| input.options.get(name).map(String::as_str);
    let number = |name: &str| number(input, name);
    let options = read_again(input)?;
    let flows_max = number("flows-max").transpose()?.and_then(|n| u32::try_from(n).ok());
    let flows_max = flows_max.filter(|n| (64..=1 << 24).contains(n));
    let flows_max = flows_max.context("the store has no valid `flows-max` of the input")?;
    let ports =
        option("exports").map(|text| text.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>());
    let exports = ports.transpose().context("the store has no valid `exports` of the input")?;
    let sampling = number("sampling").transpose()?.and_then(|n| u32::try_from(n).ok());
    let edges = number(EDGES).transpose()?.and_then(|n| u32::try_from(n).ok());
    let table = option(tabular::OPTION).map(serde_json::from_str).transpose();
    let table: Option<tabular::Spec> = table.context("the store has no valid `table` of the input")?;
    anyhow::ensure!(
        table.as_ref().is_none_or(tabular::Spec::is_sound),
        "the store has a `table` of the input with a rate or a width of ticks of 0"
    );
    let bytes = number(BYTES).transpose()?;
    Ok((flows_max, Reading { options, exports, sampling, bytes, table, edges, interrupt: None }))
}
