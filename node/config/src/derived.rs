//! What is derived from whole sets of bars: surfaces, spectra and risks, as streams of their own.

use crate::sections::{Config, Risk, Spectrum, Surface};
use crate::units::{parse_span, short, show_span};
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tidegate_actors::indicators::{IndicatorSpec, SpecError};
use tidegate_actors::{BarSpec, WindowSpec};
use tidegate_engine::output::OUTPUT_WORDS;

/// Most indicators that one text of a sweep may stand for.
pub const SWEEP_MAX: usize = 1 << 24;
/// Columns of a stream of a surface that are parameters: the first says of how many bars they are.
pub const PARAMETERS_PER_STREAM: usize = OUTPUT_WORDS - 1;
/// Most parameters of a surface.
pub const PARAMETERS_MAX: usize = 15 * PARAMETERS_PER_STREAM;

/// Readings that the label of a cross-section is of.
pub const LABEL_READINGS: u32 = 32;

const FORMS: &str = "ema:N, rsi:N, atr:N, bb:N:K, macd:FAST:SLOW:SIGNAL, each number also A..B or A..B/STEP";

/// Whether streams may be called so, behind their kind.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len())
        && text.bytes().all(plain)
        // The parts of a surface of many parameters are numbered.
        && !text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Indicators of one form: `rsi:2..30`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    text: String,
    specs: Vec<IndicatorSpec>,
}

impl Sweep {
    /// The indicators, in the order of their parameters.
    #[must_use]
    pub fn specs(&self) -> &[IndicatorSpec] {
        &self.specs
    }

    /// What they are: `rsi`.
    #[must_use]
    pub fn indicator(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        if !["ema", "rsi", "atr", "bb", "macd"].contains(&name) {
            return Err(format!("`{}` cannot be swept; allowed are {FORMS}", short(name)));
        }
        let mut texts = vec![name.to_owned()];
        for part in parts {
            let values = range(text, part)?;
            let count = texts.len().saturating_mul(values.len());
            if count > SWEEP_MAX {
                return Err(format!("`{text}` is {count} indicators; at most {SWEEP_MAX} are swept at once"));
            }
            texts = texts.iter().flat_map(|head| values.iter().map(move |v| format!("{head}:{v}"))).collect();
        }
        let count = texts.len();
        let mut specs = Vec::with_capacity(count);
        for text in texts {
            match IndicatorSpec::parse(&text) {
                Ok(spec) => specs.push(spec),
                // The corner of a square of windows that is no MACD is left out.
                Err(SpecError::FastNotShorter { .. }) if count > 1 => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if specs.is_empty() {
            return Err(format!("`{text}`: the fast window must be shorter than the slow one"));
        }
        Ok(Self { text: text.to_owned(), specs })
    }
}

/// The numbers of `7`, `2..30` or `2..30/4`, as text.
fn range(whole: &str, part: &str) -> Result<Vec<String>, String> {
    let Some((from, rest)) = part.split_once("..") else { return Ok(vec![part.to_owned()]) };
    let (to, step) = rest.split_once('/').unwrap_or((rest, "1"));
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match (number(from), number(to), number(step)) {
        (Some(from), Some(to), Some(step)) if from <= to && step > 0 && to <= 100_000 => {
            Ok((from..=to).step_by(step as usize).map(|value| value.to_string()).collect())
        }
        _ => Err(format!(
            "`{}` in `{}` is no range; write e.g. 2..30 or 5..200/5, within 1 to 100000",
            short(part),
            short(whole)
        )),
    }
}

/// The indicators of all sweeps, each once.
#[must_use]
pub fn swept(sweeps: &[Sweep]) -> Vec<IndicatorSpec> {
    let mut seen = HashSet::new();
    let all = sweeps.iter().flat_map(Sweep::specs);
    all.filter(|spec| seen.insert(spec.to_string())).copied().collect()
}

/// How far ahead: a span of trading time, or a number of bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Horizon {
    /// Nanoseconds.
    Span(u64),
    /// Bars.
    Bars(u32),
}

impl FromStr for Horizon {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(count) = text.strip_suffix('b') {
            let count = count.parse::<u32>().ok().filter(|count| (1..=1_000_000).contains(count));
            return count
                .map(Self::Bars)
                .ok_or_else(|| format!("`{}` is no number of bars from 1b to 1000000b", short(text)));
        }
        match parse_span(text) {
            Ok(0) => Err(format!("`{text}` is no horizon; write e.g. 1h, 6.5h, or 390b")),
            Ok(ns) => Ok(Self::Span(ns)),
            Err(error) => Err(format!("{error}; or a number of bars such as 390b")),
        }
    }
}

impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Span(ns) => f.write_str(&show_span(*ns)),
            Self::Bars(count) => write!(f, "{count}b"),
        }
    }
}

impl Horizon {
    /// In bars of `bars`; `None` for a span where bars have no length in time.
    #[must_use]
    pub fn in_bars(self, bars: &WindowSpec) -> Option<f64> {
        match self {
            Self::Bars(count) => Some(count.into()),
            Self::Span(ns) => Some(ns as f64 / width_ns(bars)? as f64),
        }
    }
}

/// The width of tumbling bars of time, rolled up or not; others end at no common times.
#[must_use]
pub fn width_ns(bars: &WindowSpec) -> Option<u64> {
    match bars {
        WindowSpec::Tumbling(BarSpec::Time(width)) | WindowSpec::RollUp { width, .. } => Some(width.ns()),
        _ => None,
    }
}

/// How returns are distributed: `normal` or `t:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailSpec {
    /// Normal.
    Normal,
    /// Student's t of so many degrees of freedom.
    StudentT(u32),
}

impl FromStr for TailSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let freedom = text.strip_prefix("t:").and_then(|n| n.parse::<u32>().ok());
        match (text, freedom) {
            ("normal", _) => Ok(Self::Normal),
            (_, Some(freedom)) if (3..=100).contains(&freedom) => Ok(Self::StudentT(freedom)),
            _ => Err(format!(
                "`{}` is no tail; write normal, or t:N with N degrees of freedom from 3 to 100",
                short(text)
            )),
        }
    }
}

impl fmt::Display for TailSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::StudentT(freedom) => write!(f, "t:{freedom}"),
        }
    }
}

/// What a surface shows of each parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// The indicator's value; of a MACD the histogram.
    Value,
    /// The mean gain of its signals so far.
    Gain,
    /// The share of its signals that the price went along with.
    Hits,
}

impl FromStr for Shows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "value" => Ok(Self::Value),
            "gain" => Ok(Self::Gain),
            "hits" => Ok(Self::Hits),
            _ => Err(format!("`{}` is none of value, gain and hits", short(text))),
        }
    }
}

impl fmt::Display for Shows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Gain => "gain",
            Self::Hits => "hits",
        })
    }
}

/// A level of confidence, 0.5 to below 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level(pub f64);

impl Level {
    pub(crate) fn of(value: f64) -> Option<Self> {
        (0.5..1.0).contains(&value).then_some(Self(value))
    }

    /// As columns are named by it: `95`, `99_5`.
    fn label(self) -> String {
        let percent = (self.0 * 1e8).round() / 1e6;
        percent.to_string().replace('.', "_")
    }
}

/// A share above 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl Share {
    pub(crate) fn of(value: f64) -> Option<Self> {
        (value > 0.0 && value <= 1.0).then_some(Self(value))
    }
}

/// What is derived.
#[derive(Debug, Clone, PartialEq)]
pub enum Computes {
    /// A surface.
    Surface {
        /// The indicators, in the order of the columns.
        specs: Vec<IndicatorSpec>,
        /// What is shown of each.
        shows: Shows,
        /// A signal is judged by the close so many bars later.
        ahead: u32,
    },
    /// A cross-section.
    Spectrum {
        /// Rows that correlations are of.
        window: u32,
        /// How far correlations are drawn towards none for the turbulence.
        shrink: f64,
    },
    /// A risk.
    Risk {
        /// How far ahead, in bars.
        horizon_bars: f64,
        /// Shares of the capital; without them all symbols have the same.
        weights: Option<PathBuf>,
        /// Rows of returns.
        window: u32,
        /// Factors at most.
        factors: u32,
        /// How returns are distributed.
        tail: TailSpec,
        /// Levels of confidence.
        levels: Vec<f64>,
        /// Scenarios.
        paths: u64,
        /// Everything random follows from it.
        seed: u64,
    },
}

/// A stream of what is derived, or several where its columns do not fit one.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// Its name: `surface.rsi`, `corr.spectrum`, `risk.var`.
    pub name: String,
    /// The bars it is of.
    pub bars: WindowSpec,
    /// Names of its streams and their columns. A second stream of a surface is `surface.rsi.2`.
    pub streams: Vec<(String, Vec<String>)>,
    /// What is computed.
    pub computes: Computes,
    /// Symbols: names, or beginnings of names with a `*` behind.
    pub symbols: Vec<String>,
    /// Symbols at once.
    pub symbols_max: usize,
}

impl Derived {
    /// Everything that its rows depend on beside the bars: equal for two that give the same.
    #[must_use]
    pub fn definition(&self) -> String {
        format!("{:?} {:?} {} {}", self.computes, self.symbols, self.symbols_max, self.bars)
    }
}

/// Whether a stream is of this kind.
#[must_use]
pub fn is_derived(stream: &str) -> bool {
    DERIVED.iter().any(|prefix| stream.starts_with(prefix))
}

/// What names of derived streams begin with.
pub const DERIVED: [&str; 3] = [SURFACE, SPECTRUM, RISK];

const SURFACE: &str = "surface.";
const SPECTRUM: &str = "corr.";
const RISK: &str = "risk.";

fn owned(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}

impl Surface {
    /// Its stream; `None` where it has no name and none follows from its indicators.
    #[must_use]
    pub fn stream(&self) -> Option<String> {
        let indicator = self.sweep.first()?.indicator();
        let alike = self.sweep.iter().all(|sweep| sweep.indicator() == indicator);
        let name = self.name.as_deref().or_else(|| alike.then_some(indicator))?;
        Some(format!("{SURFACE}{name}"))
    }

    fn derived(&self) -> Option<Derived> {
        let name = self.stream()?;
        let specs = swept(&self.sweep);
        let part = |(at, specs): (usize, &[IndicatorSpec])| {
            let own = if at == 0 { name.clone() } else { format!("{name}.{}", at + 1) };
            let parameters = specs.iter().map(|spec| spec.to_string().replace(':', "_"));
            (own, ["bars".to_owned()].into_iter().chain(parameters).collect())
        };
        let streams = specs.chunks(PARAMETERS_PER_STREAM).enumerate().map(part).collect();
        Some(Derived {
            streams,
            name,
            bars: self.bars.clone()?,
            computes: Computes::Surface { specs, shows: self.shows, ahead: self.ahead },
            symbols: self.symbols.clone(),
            symbols_max: self.symbols_max,
        })
    }
}

impl Spectrum {
    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("{SPECTRUM}{}", self.name)
    }

    fn derived(&self) -> Option<Derived> {
        let columns = [
            "ready",
            "bars",
            "symbols",
            "correlation",
            "mode_share",
            "effective_rank",
            "absorption",
            "turbulence",
            "label",
            "change_probability",
        ];
        Some(Derived {
            name: self.stream(),
            bars: self.bars.clone()?,
            streams: vec![(self.stream(), owned(&columns))],
            computes: Computes::Spectrum { window: self.window, shrink: self.shrink.0 },
            symbols: self.symbols.clone(),
            symbols_max: self.symbols_max,
        })
    }
}

impl Risk {
    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("{RISK}{}", self.name)
    }

    fn derived(&self) -> Option<Derived> {
        let bars = self.bars.clone()?;
        let mut columns = owned(&["ready", "bars", "symbols", "explained", "deviation", "worst"]);
        for level in &self.levels {
            let label = level.label();
            let of_level = ["var", "var_low", "var_high", "shortfall", "shortfall_error"];
            columns.extend(of_level.map(|column| format!("{column}_{label}")));
        }
        Some(Derived {
            name: self.stream(),
            streams: vec![(self.stream(), columns)],
            computes: Computes::Risk {
                horizon_bars: self.horizon.in_bars(&bars)?,
                weights: self.weights.clone(),
                window: self.window,
                factors: self.factors,
                tail: self.tail,
                levels: self.levels.iter().map(|level| level.0).collect(),
                paths: self.paths,
                seed: self.seed,
            },
            bars,
            symbols: self.symbols.clone(),
            symbols_max: self.symbols_max,
        })
    }
}

impl Config {
    /// What is derived from bars, in the order of the sections: surfaces, spectra, risks.
    #[must_use]
    pub fn derived(&self) -> Vec<Derived> {
        let surfaces = self.surface.iter().filter_map(Surface::derived);
        let spectra = self.spectrum.iter().filter_map(Spectrum::derived);
        surfaces.chain(spectra).chain(self.risk.iter().filter_map(Risk::derived)).collect()
    }
}

impl Config {
    /// Derives this from every stream of bars, as options of a command line ask for it: surfaces of each, spectra and risks of those whose
    /// bars end together. What is of more than one stream has the bars in its name.
    pub fn derive_from_all(&mut self, sweep: &[Sweep], spectrum: bool, risk: Option<Horizon>) {
        let bars: Vec<WindowSpec> = self.streams().into_iter().filter_map(|stream| stream.bars).collect();
        let name = |own: &str, bars: &WindowSpec, of: usize| {
            let bars = bars.name().to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            if of > 1 { format!("{own}-{bars}") } else { own.to_owned() }
        };
        let indicator = sweep.first().map(Sweep::indicator).unwrap_or_default();
        let alike = sweep.iter().all(|sweep| sweep.indicator() == indicator);
        let indicator = if alike { indicator } else { "all" };
        let together: Vec<WindowSpec> =
            bars.iter().filter(|bars| width_ns(bars).is_some()).cloned().collect();
        if !sweep.is_empty() {
            let surface = |own: &WindowSpec| Surface {
                name: Some(name(indicator, own, bars.len())),
                bars: Some(own.clone()),
                sweep: sweep.to_vec(),
                ..Surface::default()
            };
            self.surface = bars.iter().map(surface).collect();
        }
        if spectrum {
            let spectrum = |own: &WindowSpec| Spectrum {
                name: name("spectrum", own, together.len()),
                bars: Some(own.clone()),
                ..Spectrum::default()
            };
            self.spectrum = together.iter().map(spectrum).collect();
        }
        if let Some(horizon) = risk {
            let risk = |own: &WindowSpec| Risk {
                name: name("var", own, together.len()),
                bars: Some(own.clone()),
                horizon,
                ..Risk::default()
            };
            self.risk = together.iter().map(risk).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.parse::<Sweep>().unwrap().specs().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_become_indicators_and_wrong_ones_are_named() {
        assert_eq!(names("rsi:2..4"), ["rsi:2", "rsi:3", "rsi:4"]);
        assert_eq!(names("ema:5..20/10"), ["ema:5", "ema:15"]);
        assert_eq!(names("bb:20:2.5"), ["bb:20:2.5"]);
        assert_eq!(names("macd:2..3:3..4:9"), ["macd:2:3:9", "macd:2:4:9", "macd:3:4:9"]);
        for (text, wrong) in [
            ("vwap:3", "`vwap` cannot be swept; allowed are ema:N"),
            ("rsi:9..2", "`9..2` in `rsi:9..2` is no range"),
            ("rsi:2..9/0", "`2..9/0` in `rsi:2..9/0` is no range"),
            ("rsi:2..", "`2..` in `rsi:2..` is no range"),
            ("rsi", "`rsi` has 0 parameters, but the form is rsi:N"),
            ("rsi:0..3", "window `0` in `rsi:0` is not a whole number from 1"),
            ("macd:9:9:9", "`macd:9:9:9`: the fast window must be shorter"),
            ("macd:9..10:3..4:9", "`macd:9..10:3..4:9`: the fast window must be shorter"),
            ("macd:1..100000:1..100000:1..100000", "indicators; at most 16777216"),
        ] {
            let error = text.parse::<Sweep>().unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn horizons_and_tails_are_read_or_refused() {
        let minute: WindowSpec = "1m".parse().unwrap();
        let bars = |text: &str| text.parse::<Horizon>().unwrap().in_bars(&minute).unwrap();
        assert_eq!((bars("1h"), bars("390b"), bars("30s")), (60.0, 390.0, 0.5));
        for wrong in ["", "0", "0b", "b", "-3b", "1000001b", "yesterday"] {
            assert!(wrong.parse::<Horizon>().is_err(), "{wrong}");
        }
        let trades: WindowSpec = "100t".parse().unwrap();
        assert_eq!("1h".parse::<Horizon>().unwrap().in_bars(&trades), None);
        assert_eq!("normal".parse(), Ok(TailSpec::Normal));
        assert_eq!("t:5".parse(), Ok(TailSpec::StudentT(5)));
        for wrong in ["", "t", "t:2", "t:101", "normal:3"] {
            assert!(wrong.parse::<TailSpec>().is_err(), "{wrong}");
        }
        for text in ["390b", "1h", "1500us"] {
            assert_eq!(text.parse::<Horizon>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_surface_of_many_parameters_is_several_streams() {
        let text =
            "[[stream]]\nbars = \"1m\"\n[[surface]]\nbars = \"1m\"\nsweep = [\"rsi:2..30\", \"rsi:14\"]\n";
        let config = crate::read(text.as_bytes()).unwrap().config;
        let [surface] = &config.derived()[..] else { panic!("one surface") };
        let streams: Vec<_> =
            surface.streams.iter().map(|(name, columns)| (name.as_str(), columns.len())).collect();
        assert_eq!(streams, [("surface.rsi", 16), ("surface.rsi.2", 15)]);
        assert_eq!(surface.streams[1].1[..2], ["bars", "rsi_17"]);
    }

    #[test]
    fn options_derive_from_every_stream_of_bars() {
        let text = "[[stream]]\nbars = \"1s\"\n[[stream]]\nbars = \"1m@1s\"\n[[stream]]\nbars = \"1000$\"\n";
        let mut config = crate::read(text.as_bytes()).unwrap().config;
        config.derive_from_all(&["rsi:2..4".parse().unwrap()], true, Some(Horizon::Bars(9)));
        let derived = config.derived();
        let names: Vec<_> = derived.iter().map(|derived| derived.name.as_str()).collect();
        let surfaces = ["surface.rsi-1s", "surface.rsi-1m-1s", "surface.rsi-1000-"];
        let others = ["corr.spectrum-1s", "corr.spectrum-1m-1s", "risk.var-1s", "risk.var-1m-1s"];
        assert_eq!(names, [&surfaces[..], &others].concat());
        config.stream.truncate(1);
        config.derive_from_all(&["rsi:2..4".parse().unwrap()], true, None);
        assert_eq!(
            (config.derived()[0].name.as_str(), config.spectrum[0].name.as_str()),
            ("surface.rsi", "spectrum")
        );
    }

    #[test]
    fn levels_name_their_columns() {
        let labels = [0.95, 0.99, 0.995, 0.5].map(|level| Level::of(level).unwrap().label());
        assert_eq!(labels, ["95", "99", "99_5", "50"]);
        assert_eq!((Level::of(1.0), Level::of(0.49), Share::of(0.0)), (None, None, None));
        assert_eq!((Level::of(f64::NAN), Share::of(f64::INFINITY)), (None, None));
    }
}
