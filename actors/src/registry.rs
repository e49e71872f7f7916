//! Operators by name: the built-in ones and those a user brings.

use crate::bars::{BarOptions, BarSpec};
use crate::hosts::{HostOptions, HostWindows};
use crate::regime::{RegimeAnalyzer, RegimeSpec};
use crate::session::{SessionBars, SessionLate, SessionOptions};
use crate::windows::WindowSpec;
use std::collections::BTreeMap;
use std::str::FromStr;
use tidegate_engine::{Analyzer, Operator, WindowWidth};

/// Makes an operator from its parameters.
pub type Factory = fn(&Params) -> Result<Box<dyn Operator>, ParamError>;

/// Makes an analyzer of the stream of this number from its parameters.
pub type AnalyzerFactory = fn(u16, &Params) -> Result<Box<dyn Analyzer>, ParamError>;

/// Named parameters of an operator, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

/// Why an operator's parameters were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// A text is no `name=value`, or names a parameter twice.
    #[error("`{text}` is not a parameter of the form name=value, or comes twice")]
    Form {
        /// The text found.
        text: String,
    },
    /// A parameter that must be given is not.
    #[error("parameter `{name}` is missing: {allowed}")]
    Missing {
        /// Its name.
        name: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
    /// A parameter has a value it may not have.
    #[error("parameter `{name}` is `{value}`: {allowed}")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// The value found.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A parameter the operator does not have.
    #[error("there is no parameter `{name}`; there are: {known}")]
    Unknown {
        /// The name found.
        name: String,
        /// Those there are.
        known: String,
    },
}

/// Why a registry could not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No operator or analyzer has this name.
    #[error("there is no {what} `{name}`{hint}; there are: {known}")]
    Unknown {
        /// What was looked for: an operator or an analyzer.
        what: &'static str,
        /// The name found.
        name: String,
        /// ` (did you mean ...?)`, or nothing when no name is near.
        hint: String,
        /// Names there are.
        known: String,
    },
    /// The name is in use.
    #[error("there is already an operator `{name}`")]
    Taken {
        /// The name.
        name: String,
    },
    /// The name cannot be written in a configuration.
    #[error("`{name}` is no name for an operator: 1 to 40 of a-z, 0-9, `-` and `_`")]
    Name {
        /// The name.
        name: String,
    },
    /// The operator refused its parameters.
    #[error("operator `{name}` refused its parameters")]
    Params {
        /// The operator.
        name: String,
        /// Why.
        #[source]
        source: ParamError,
    },
}

impl Params {
    /// No parameters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more; replaces an earlier value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// The text of a parameter, if given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Refuses parameters other than `known`, so that a misspelt one is not silently without effect.
    ///
    /// # Errors
    /// [`ParamError::Unknown`] for the first that is not in the list.
    pub fn only(&self, known: &[&str]) -> Result<(), ParamError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(ParamError::Unknown { name: name.clone(), known: known.join(", ") }),
            None => Ok(()),
        }
    }

    /// A number or other readable value, or `default` when it is not given.
    ///
    /// # Errors
    /// [`ParamError::Invalid`], saying what is `allowed`, when it cannot be read or `fits` says no.
    pub fn read_or<T: FromStr>(
        &self,
        name: &'static str,
        default: T,
        allowed: &'static str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<T, ParamError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let invalid = || ParamError::Invalid { name, value: text.into(), allowed };
        text.parse().ok().filter(fits).ok_or_else(invalid)
    }

    /// A width of event time: `250ms`, `10s`, `1m`, `1h`, `1d`.
    ///
    /// # Errors
    /// [`ParamError::Missing`], or [`ParamError::Invalid`] when it is none of these, zero or over 366 days.
    pub fn width(&self, name: &'static str) -> Result<WindowWidth, ParamError> {
        let allowed = "a width of time such as 250ms, 10s, 1m, 1h or 1d, at most 366d";
        let text = self.text(name).ok_or(ParamError::Missing { name, allowed })?;
        match text.parse() {
            Ok(BarSpec::Time(width)) => Ok(width),
            _ => Err(ParamError::Invalid { name, value: text.into(), allowed }),
        }
    }
}

/// Reads `name=value` separated by white space.
impl FromStr for Params {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        let mut params = BTreeMap::new();
        for part in text.split_whitespace() {
            let pair = part.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
            let fresh = pair.is_some_and(|(name, value)| params.insert(name.into(), value.into()).is_none());
            if !fresh {
                return Err(ParamError::Form { text: part.into() });
            }
        }
        Ok(Self(params))
    }
}

/// Factories by name.
#[derive(Clone, Debug)]
pub struct Registry {
    factories: BTreeMap<String, Factory>,
    analyzers: BTreeMap<String, AnalyzerFactory>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// The built-in operators: `bars` (`windows` as [`WindowSpec`] reads them, `late`, `horizon`, `history`), `hosts`
    /// (`width`, `open_max`) and `sessions` (`gap`, `late`, `open_max`); and the analyzer `regime` (`model` as
    /// [`RegimeSpec`] reads it).
    #[must_use]
    pub fn new() -> Self {
        let built_in: [(&str, Factory); 3] = [("bars", bars), ("hosts", hosts), ("sessions", sessions)];
        let reading: [(&str, AnalyzerFactory); 1] = [("regime", regime)];
        Self {
            factories: built_in.map(|(name, factory)| (name.to_string(), factory)).into(),
            analyzers: reading.map(|(name, factory)| (name.to_string(), factory)).into(),
        }
    }

    /// Adds an operator under a name of its own.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] when the name is in use, [`RegistryError::Name`] when it is no name.
    pub fn register(&mut self, name: &str, factory: Factory) -> Result<(), RegistryError> {
        self.free(name)?;
        self.factories.insert(name.into(), factory);
        Ok(())
    }

    /// Adds an analyzer under a name of its own.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] when the name is in use, [`RegistryError::Name`] when it is no name.
    pub fn register_analyzer(&mut self, name: &str, factory: AnalyzerFactory) -> Result<(), RegistryError> {
        self.free(name)?;
        self.analyzers.insert(name.into(), factory);
        Ok(())
    }

    /// Operators and analyzers share their names, so that a name means one thing.
    fn free(&self, name: &str) -> Result<(), RegistryError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > 40 || !name.bytes().all(allowed) {
            return Err(RegistryError::Name { name: name.chars().take(60).collect() });
        }
        if self.factories.contains_key(name) || self.analyzers.contains_key(name) {
            return Err(RegistryError::Taken { name: name.into() });
        }
        Ok(())
    }

    /// Names of operators, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// Names of analyzers, in alphabetical order.
    pub fn analyzers(&self) -> impl Iterator<Item = &str> {
        self.analyzers.keys().map(String::as_str)
    }

    /// Makes the operator `name`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] with the nearest name, or [`RegistryError::Params`] with the operator's reason.
    pub fn build(&self, name: &str, params: &Params) -> Result<Box<dyn Operator>, RegistryError> {
        let factory = self.factories.get(name).ok_or_else(|| unknown("operator", name, self.names()))?;
        factory(params).map_err(|source| RegistryError::Params { name: name.into(), source })
    }

    /// Makes the analyzer `name` of the stream of number `stream`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] with the nearest name, or [`RegistryError::Params`] with the analyzer's reason.
    pub fn analyzer(
        &self,
        name: &str,
        stream: u16,
        params: &Params,
    ) -> Result<Box<dyn Analyzer>, RegistryError> {
        let factory = self.analyzers.get(name).ok_or_else(|| unknown("analyzer", name, self.analyzers()))?;
        factory(stream, params).map_err(|source| RegistryError::Params { name: name.into(), source })
    }
}

fn unknown<'a>(what: &'static str, name: &str, names: impl Iterator<Item = &'a str>) -> RegistryError {
    let name: String = name.chars().take(60).collect();
    let names: Vec<&str> = names.collect();
    // Further off than a third of the name is another word, not a misspelling.
    let near = names.iter().map(|known| (distance(&name, known), known)).min();
    let near = near.filter(|(edits, known)| *edits <= (known.len() / 3).max(1));
    let hint = near.map_or(String::new(), |(_, known)| format!(" (did you mean `{known}`?)"));
    RegistryError::Unknown { what, name, hint, known: names.join(", ") }
}

/// Single-character edits between two words (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, &wanted) in other.iter().enumerate() {
            let swap = diagonal + usize::from(letter != wanted);
            diagonal = row[column + 1];
            row[column + 1] = swap.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

fn bars(params: &Params) -> Result<Box<dyn Operator>, ParamError> {
    params.only(&["windows", "late", "horizon", "history"])?;
    let allowed = "windows over trades such as 1s, 1000t, 50000v, 1000000$, session:30s or sliding:1m/10s";
    let text = params.text("windows").ok_or(ParamError::Missing { name: "windows", allowed })?;
    let usual = BarOptions::default();
    let horizon_ns = match params.text("horizon") {
        Some(_) => params.width("horizon")?.ns(),
        None => usual.horizon_ns,
    };
    let options = BarOptions {
        late: params.read_or("late", usual.late, "amend, side or drop", |_| true)?,
        history: params.read_or("history", usual.history, "true or false", |_| true)?,
        horizon_ns,
        ..usual
    };
    // A roll-up reads bars and no events: it is an analyzer.
    let windows =
        text.parse::<WindowSpec>().ok().and_then(|windows| windows.operator(options).ok().flatten());
    windows.ok_or(ParamError::Invalid { name: "windows", value: text.into(), allowed })
}

fn hosts(params: &Params) -> Result<Box<dyn Operator>, ParamError> {
    params.only(&["width", "open_max"])?;
    let in_range = |n: &u32| (2..=64).contains(n);
    let open_max = params.read_or("open_max", 4, "open windows per host, 2 to 64", in_range)?;
    Ok(Box::new(HostWindows::new(HostOptions { width: params.width("width")?, open_max })))
}

fn sessions(params: &Params) -> Result<Box<dyn Operator>, ParamError> {
    params.only(&["gap", "late", "open_max"])?;
    let in_range = |n: &u32| (1..=1_024).contains(n);
    let open_max = params.read_or("open_max", 16, "open sessions per key, 1 to 1024", in_range)?;
    let late = match params.text("late") {
        None | Some("side") => SessionLate::Side,
        Some("drop") => SessionLate::Drop,
        Some(value) => {
            return Err(ParamError::Invalid { name: "late", value: value.into(), allowed: "side or drop" });
        }
    };
    Ok(Box::new(SessionBars::new(SessionOptions { gap: params.width("gap")?, late, open_max })))
}

fn regime(stream: u16, params: &Params) -> Result<Box<dyn Analyzer>, ParamError> {
    params.only(&["model"])?;
    let usual = RegimeSpec::new(2).ok_or(ParamError::Missing { name: "model", allowed: "hmm:2" })?;
    let spec = params.read_or("model", usual, "hmm:2, hmm:3 or hmm:4", |_| true)?;
    Ok(Box::new(RegimeAnalyzer::new(stream, spec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, params: &str) -> String {
        let error = Registry::new().build(name, &params.parse().unwrap()).err().unwrap();
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        format!("{error}{cause}")
    }

    #[test]
    fn built_in_operators_are_made_by_name() {
        let registry = Registry::new();
        let all = [
            ("bars", "windows=1s"),
            ("bars", "windows=1000t history=true"),
            ("bars", "windows=sliding:1m/10s late=side horizon=1m"),
            ("hosts", "width=10s"),
            ("sessions", "gap=5m late=drop open_max=3"),
        ];
        for (name, params) in all {
            let operator = registry.build(name, &params.parse().unwrap()).unwrap();
            assert_eq!(operator.ledger().delivered, 0);
        }
    }

    #[test]
    fn errors_name_what_is_allowed() {
        assert_eq!(
            refusal("sesions", ""),
            "there is no operator `sesions` (did you mean `sessions`?); there are: bars, hosts, sessions"
        );
        assert_eq!(
            refusal("bananas", ""),
            "there is no operator `bananas`; there are: bars, hosts, sessions"
        );
        assert!(refusal("hosts", "").contains("parameter `width` is missing: a width of time such as"));
        assert!(refusal("hosts", "width=0s").contains("parameter `width` is `0s`"));
        assert!(refusal("hosts", "width=9999999999999d").contains("at most 366d"));
        assert!(refusal("hosts", "width=1s open_max=1").contains("2 to 64"));
        assert!(
            refusal("hosts", "widht=1s")
                .contains("there is no parameter `widht`; there are: width, open_max")
        );
        assert!(
            refusal("bars", "windows=1m@1s").contains("parameter `windows` is `1m@1s`: windows over trades")
        );
        assert!(refusal("bars", "windows=sliding:2s/1s horizon=366d").contains("parameter `windows`"));
        assert!(refusal("bars", "windows=1s late=never").contains("amend, side or drop"));
        assert!(refusal("sessions", "gap=1s late=never").contains("side or drop"));
        for text in ["a", "=1", "a=", "a=1 a=2"] {
            assert!(matches!(text.parse::<Params>(), Err(ParamError::Form { .. })), "{text}");
        }
    }

    #[test]
    fn users_register_their_own_once() {
        let mut registry = Registry::new();
        registry.register("mine", hosts).unwrap();
        assert!(registry.build("mine", &Params::new().with("width", "1s")).is_ok());
        assert!(matches!(registry.register("mine", hosts), Err(RegistryError::Taken { .. })));
        assert!(matches!(registry.register("Not a name", hosts), Err(RegistryError::Name { .. })));
    }

    #[test]
    fn analyzers_are_made_by_name_too() {
        let mut registry = Registry::new();
        assert_eq!(registry.analyzers().collect::<Vec<_>>(), ["regime"]);
        let params: Params = "model=hmm:3".parse().unwrap();
        let (mut named, mut built) = (Vec::new(), Vec::new());
        registry.analyzer("regime", 4, &params).unwrap().save(&mut named);
        RegimeAnalyzer::new(4, "hmm:3".parse().unwrap()).save(&mut built);
        assert_eq!(named, built);
        let refusal = |name: &str, params: &str| {
            let error = Registry::new().analyzer(name, 0, &params.parse().unwrap()).err().unwrap();
            format!("{error:?}")
        };
        assert!(refusal("regimes", "").contains("did you mean `regime`?"));
        assert!(refusal("regime", "model=hmm:9").contains("hmm:2, hmm:3 or hmm:4"));
        assert!(refusal("regime", "modle=hmm:2").contains("modle"));
        registry.register_analyzer("mine", regime).unwrap();
        for name in ["mine", "bars", "regime"] {
            assert!(matches!(registry.register(name, hosts), Err(RegistryError::Taken { .. })));
            assert!(matches!(registry.register_analyzer(name, regime), Err(RegistryError::Taken { .. })));
        }
    }

    #[test]
    fn distances_are_edits() {
        for (one, other, edits) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (edits, edits));
        }
    }
}
