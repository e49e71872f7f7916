//! What single values cannot tell: rules between keys, and the plan that streams come to.

use crate::derived::{Computes, LABEL_READINGS, PARAMETERS_MAX, swept, width_ns};
use crate::problem::{ProblemKind, Reader};
use crate::read::Origins;
use crate::sections::{Bars, Config, Stream};
use std::collections::BTreeMap;
use tidegate_actors::WindowSpec;
use tidegate_actors::bars::BarOptions;
use tidegate_replay::{Own, Plan, PlanError};

/// Indicators computed when no stream is named.
const INDICATORS: [&str; 7] = ["sma:20", "ema:20", "rsi:14", "atr:14", "vwap:20", "bb:20:2", "macd:12:26:9"];

/// Longest horizon of a risk, in bars.
const HORIZON_BARS_MAX: f64 = 1e6;

impl Bars {
    /// What all bars keep.
    #[must_use]
    pub fn options(&self) -> BarOptions {
        BarOptions {
            late: self.late,
            horizon_ns: self.horizon.0,
            history: self.history,
            history_ns: self.history_span.0,
            history_events_max: self.history_events_max,
            retained_bars_max: self.retained_bars_max,
        }
    }
}

impl Config {
    /// The streams served when none is named: bars of a second and a minute, with the usual indicators.
    #[must_use]
    pub fn usual_streams() -> Vec<Stream> {
        let indicators: Vec<_> = INDICATORS.iter().filter_map(|name| name.parse().ok()).collect();
        let stream = |width: &str| Stream {
            bars: width.parse().ok(),
            indicators: indicators.clone(),
            ..Stream::default()
        };
        ["1s", "1m"].map(stream).to_vec()
    }

    /// The streams to serve: those named, or the usual ones.
    #[must_use]
    pub fn streams(&self) -> Vec<Stream> {
        if self.stream.is_empty() { Self::usual_streams() } else { self.stream.clone() }
    }

    /// What to compute.
    ///
    /// # Errors
    /// [`PlanError`] when it cannot be built; what [`crate::read()`] returned can.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let streams = self.streams();
        let common = self.bars.options();
        let own = streams.iter().filter_map(|stream| {
            let bars = stream.bars.clone()?;
            // A roll-up follows the finest bars it is made of.
            let finest = std::iter::successors(Some(&bars), |bars| bars.over()).last();
            let base = streams.iter().find(|base| base.bars.as_ref() == finest).unwrap_or(stream);
            let options = BarOptions {
                late: base.late.unwrap_or(common.late),
                horizon_ns: base.horizon.map_or(common.horizon_ns, |span| span.0),
                history: base.history.unwrap_or(common.history),
                ..common
            };
            Some(Own {
                bars,
                indicators: stream.indicators.clone(),
                regime: stream.regime,
                anomaly: stream.anomaly,
                options,
            })
        });
        let mut own: Vec<Own> = own.collect();
        // What all have alike is nobody's own: the same computation is the same plan, however it was written.
        let (mut indicators, mut regime, mut anomaly) = (Vec::new(), None, None);
        let alike = |one: &Own| {
            let first = &own[0];
            one.options == common
                && one.indicators == first.indicators
                && (one.regime, one.anomaly) == (first.regime, first.anomaly)
        };
        if own.iter().all(alike) {
            (indicators, regime, anomaly) =
                own.drain(..).next().map(|one| (one.indicators, one.regime, one.anomaly)).unwrap_or_default();
        }
        let plan = Plan {
            bars: streams.iter().filter_map(|stream| stream.bars.clone()).collect(),
            indicators,
            regime,
            anomaly,
            bar_options: common,
            hosts: streams.iter().filter_map(|stream| stream.hosts).collect(),
            own,
        };
        plan.streams()?;
        Ok(plan)
    }
}

/// Checks what single values cannot tell.
pub(crate) fn check(config: &Config, origins: &Origins, reader: &mut Reader<'_>) {
    let mut rules = Rules { origins, reader };
    rules.streams(config);
    rules.derived(config);
    let (gateway, limits, feed) = (&config.gateway, &config.limits, &config.feed);
    rules.more("gateway.idle_timeout", gateway.idle_timeout.0, "gateway.ping_every", gateway.ping_every.0);
    if let Some(keep_alive) = limits.keep_alive.on() {
        rules.more("limits.idle_timeout", limits.idle_timeout.0, "limits.keep_alive", keep_alive.0);
    }
    rules.more("feed.silence", feed.silence.0, "feed.heartbeat", feed.heartbeat.0);
    rules.together("tls.cert", config.tls.cert.is_some(), "tls.key", config.tls.key.is_some());
    let journal = &config.journal;
    let (kafka, topic) = ("journal.kafka", "journal.kafka_topic");
    rules.together(kafka, journal.kafka.is_some(), topic, journal.kafka_topic.is_some());
    if journal.kafka.is_some() && !journal.enabled {
        let why = "there is no journal: set `journal.enabled = true`".to_owned();
        rules.refuse(kafka, ProblemKind::Conflict { why });
    }
    for (at, setting) in journal.kafka_client.iter().enumerate() {
        if setting.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            let why = format!("`{setting}` is not NAME=VALUE");
            rules.refuse(&format!("journal.kafka_client[{at}]"), ProblemKind::Conflict { why });
        }
    }
    if config.cluster.folder.is_some() {
        let conflict = |why: &str| ProblemKind::Conflict { why: why.to_owned() };
        if config.journal.enabled {
            let why = "a node of a cluster keeps its log in `cluster.folder`, and no journal";
            rules.refuse("journal.enabled", conflict(why));
        }
        if rules.origins.contains_key("listen.quic") {
            let why = "the address of a node of a cluster is in the `cluster.json` of `cluster.folder`";
            rules.refuse("listen.quic", conflict(why));
        }
    }
    let auth = &config.auth;
    rules.together("auth.token_keys", !auth.token_keys.is_empty(), "auth.audience", auth.audience.is_some());
    if auth.required == Some(true) && auth.token_keys.is_empty() && config.tls.client_ca.is_none() {
        let why =
            "there is no `tls.client_ca` and no `auth.token_keys`: nobody could show who they are".to_owned();
        rules.refuse("auth.required", ProblemKind::Conflict { why });
    }
    for (at, rule) in config.auth_rule.iter().enumerate() {
        let missing = |what: &str| ProblemKind::Missing { need: what.to_owned() };
        if rule.principal.is_none() {
            rules.refuse(&format!("auth.rule[{at}]"), missing("it says nobody's `principal`"));
        }
        if rule.verbs.is_empty() {
            rules.refuse(&format!("auth.rule[{at}]"), missing("it allows no `verbs`"));
        }
    }
}

struct Rules<'r, 'i> {
    origins: &'r Origins,
    reader: &'r mut Reader<'i>,
}

impl Rules<'_, '_> {
    /// Refuses a key where it stands; one that does not stand anywhere, at its section.
    fn refuse(&mut self, key: &str, kind: ProblemKind) {
        let mut place = key;
        let at = loop {
            if let Some(at) = self.origins.get(place) {
                break at.clone();
            }
            match place.rsplit_once('.') {
                Some((outer, _)) => place = outer,
                None => break 0..0,
            }
        };
        key.clone_into(&mut self.reader.key);
        self.reader.refuse(at, kind);
    }

    /// One time must be longer than another. The one that is set is to blame.
    fn more(&mut self, long: &str, long_ns: u64, short: &str, short_ns: u64) {
        if long_ns > short_ns {
            return;
        }
        let blamed = if self.origins.contains_key(long) { long } else { short };
        let [long_ns, short_ns] = [long_ns, short_ns].map(crate::units::show_span);
        let why = format!("`{long}` ({long_ns}) must be longer than `{short}` ({short_ns})");
        self.refuse(blamed, ProblemKind::Conflict { why });
    }

    /// Both or neither.
    fn together(&mut self, one: &str, has_one: bool, other: &str, has_other: bool) {
        if has_one != has_other {
            let (there, missing) = if has_one { (one, other) } else { (other, one) };
            self.refuse(there, ProblemKind::Missing { need: format!("it needs `{missing}` beside it") });
        }
    }

    /// What is derived: of bars that are there, under names of its own, and of sizes that go together.
    fn derived(&mut self, config: &Config) {
        let conflict = |why: String| ProblemKind::Conflict { why };
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (at, surface) in config.surface.iter().enumerate() {
            let path = format!("surface[{at}]");
            self.bars_of(config, &path, surface.bars.as_ref(), false);
            let Some(first) = surface.sweep.first() else {
                let need = "it sweeps nothing: write e.g. sweep = [\"rsi:2..30\"]".to_owned();
                self.refuse(&path, ProblemKind::Missing { need });
                continue;
            };
            let parameters = swept(&surface.sweep).len();
            if parameters > PARAMETERS_MAX {
                let why =
                    format!("these are {parameters} indicators, and a surface has at most {PARAMETERS_MAX}");
                self.refuse(&format!("{path}.sweep"), conflict(why));
            }
            match surface.stream() {
                Some(name) => self.named(&mut names, &path, name),
                None => {
                    let need = format!("it sweeps more than {}, so it needs a `name`", first.indicator());
                    self.refuse(&path, ProblemKind::Missing { need });
                }
            }
        }
        for (at, spectrum) in config.spectrum.iter().enumerate() {
            let path = format!("spectrum[{at}]");
            self.bars_of(config, &path, spectrum.bars.as_ref(), true);
            self.named(&mut names, &path, spectrum.stream());
            // One more for the turbulence, and a label is of so many readings.
            self.kept(config, &path, spectrum.window, 1 + LABEL_READINGS - 1);
        }
        for (at, risk) in config.risk.iter().enumerate() {
            let path = format!("risk[{at}]");
            self.bars_of(config, &path, risk.bars.as_ref(), true);
            self.named(&mut names, &path, risk.stream());
            self.kept(config, &path, risk.window, 0);
            if risk.levels.is_empty() {
                self.refuse(&format!("{path}.levels"), conflict("a risk has a level or two".to_owned()));
            }
            if let [one, other] = &risk.levels[..]
                && one == other
            {
                let what = format!("{} is there already", other.0);
                self.refuse(&format!("{path}.levels"), ProblemKind::Twice { what });
            }
            let bars = risk.bars.as_ref().and_then(|bars| risk.horizon.in_bars(bars));
            if bars.is_some_and(|bars| !(bars > 0.0 && bars <= HORIZON_BARS_MAX)) {
                let why = format!("a horizon is at most {HORIZON_BARS_MAX} bars");
                self.refuse(&format!("{path}.horizon"), conflict(why));
            }
            let beyond = |level: f64| (1.0 - level) * risk.paths as f64;
            if let Some(level) = risk.levels.iter().find(|level| beyond(level.0) < 9.999) {
                let why = format!(
                    "of {} scenarios {:.1} lie beyond {}, and it takes ten: more `paths`, or a lower level",
                    risk.paths,
                    beyond(level.0),
                    level.0
                );
                self.refuse(&format!("{path}.levels"), conflict(why));
            }
        }
        let streams = config.plan().and_then(|plan| plan.streams()).map_or(0, |streams| streams.len());
        let derived = config.derived();
        let count = streams + derived.iter().map(|derived| derived.streams.len()).sum::<usize>();
        if count > Plan::STREAMS_MAX
            && let Some(last) = derived.last()
        {
            let section = match last.computes {
                Computes::Surface { .. } => "surface",
                Computes::Spectrum { .. } => "spectrum",
                Computes::Risk { .. } => "risk",
            };
            let why = format!(
                "these are {count} streams, and there are at most {}; a surface is one for every 15 parameters",
                Plan::STREAMS_MAX
            );
            self.refuse(&format!("{section}[{}]", config.repeated(section).max(1) - 1), conflict(why));
        }
    }

    /// The bars that something is derived from must be there, and end together where it looks at all symbols at once.
    fn bars_of(&mut self, config: &Config, path: &str, bars: Option<&WindowSpec>, together: bool) {
        let Some(bars) = bars else {
            let need = "it is of no `bars`: write e.g. bars = \"1m\"".to_owned();
            self.refuse(path, ProblemKind::Missing { need });
            return;
        };
        let path = format!("{path}.bars");
        let streams = config.streams();
        if !streams.iter().any(|stream| stream.bars.as_ref() == Some(bars)) {
            let all: Vec<String> =
                streams.iter().filter_map(|stream| Some(stream.bars.as_ref()?.to_string())).collect();
            let need = format!("`{bars}` must be a [[stream]] as well; there are {}", all.join(", "));
            self.refuse(&path, ProblemKind::Missing { need });
        }
        if together && width_ns(bars).is_none() {
            let why = "symbols are compared by bars that end together, such as \"1m\"".to_owned();
            self.refuse(&path, ProblemKind::Conflict { why });
        }
    }

    fn named(&mut self, names: &mut BTreeMap<String, String>, path: &str, name: String) {
        if let Some(first) = names.get(&name) {
            let what = format!("`{name}` is {first} as well");
            let key = format!("{path}.name");
            let key = if self.origins.contains_key(&key) { key } else { path.to_owned() };
            self.refuse(&key, ProblemKind::Twice { what });
        }
        names.entry(name).or_insert_with(|| path.to_owned());
    }

    /// What must be known again after a restart is what readers can look back on: the bars that so many returns are between, `more` in front
    /// of them, and one that other symbols have yet to reach.
    fn kept(&mut self, config: &Config, path: &str, window: u32, more: u32) {
        let kept = config.subscribers.lookback_records;
        let restarts = config.journal.enabled || config.cluster.folder.is_some();
        let needed = window + 1 + more + 1;
        if restarts && needed as usize > kept {
            let why = format!(
                "after a restart a window of {window} needs {needed} bars of every symbol, and `subscribers.lookback_records` keeps {kept}"
            );
            self.refuse(&format!("{path}.window"), ProblemKind::Conflict { why });
        }
    }

    fn streams(&mut self, config: &Config) {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let mut whole = true;
        for (at, stream) in config.stream.iter().enumerate() {
            let path = format!("stream[{at}]");
            let mut refuse = |key: &str, kind| {
                whole = false;
                let key = if key.is_empty() { path.clone() } else { format!("{path}.{key}") };
                self.refuse(&key, kind);
            };
            let conflict = |why: &str| ProblemKind::Conflict { why: why.to_owned() };
            let Some(name) = stream.name() else {
                let need = "a stream is either `bars` or `hosts`, exactly one of them".to_owned();
                refuse("", ProblemKind::Missing { need });
                continue;
            };
            if let Some(first) = names.get(&name) {
                let what = format!("`{name}` is stream[{first}] as well");
                refuse(if stream.bars.is_some() { "bars" } else { "hosts" }, ProblemKind::Twice { what });
            }
            names.entry(name).or_insert(at);
            let own = [
                ("late", stream.late.is_some()),
                ("horizon", stream.horizon.is_some()),
                ("history", stream.history.is_some()),
            ];
            let own = own.iter().filter(|(_, set)| *set).map(|(key, _)| *key);
            match &stream.bars {
                None => {
                    let indicators = (!stream.indicators.is_empty()).then_some("indicators");
                    let regime = stream.regime.map(|_| "regime");
                    let anomaly = stream.anomaly.map(|_| "anomaly");
                    own.chain(indicators)
                        .chain(regime)
                        .chain(anomaly)
                        .for_each(|key| refuse(key, conflict("windows of hosts have none")));
                }
                Some(bars) => {
                    let Some(finer) = bars.over() else { continue };
                    own.for_each(|key| refuse(key, conflict("a roll-up follows the bars it reads")));
                    if !config.stream.iter().any(|other| other.bars.as_ref() == Some(finer)) {
                        let need =
                            format!("it is rolled up from `{finer}`, which must be a [[stream]] as well");
                        refuse("bars", ProblemKind::Missing { need });
                    }
                }
            }
        }
        if !whole {
            return;
        }
        if let Err(error) = config.plan() {
            // Which stream it is about, if the error says.
            let blamed = match &error {
                PlanError::Windows { bars, .. } => config
                    .stream
                    .iter()
                    .position(|stream| stream.bars.as_ref().is_some_and(|own| own.to_string() == *bars)),
                _ => None,
            };
            let mut why = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                why += &format!(": {cause}");
            }
            let key = blamed.map_or("stream".to_owned(), |at| format!("stream[{at}]"));
            let key = if self.origins.contains_key(&key) { key } else { "stream[0]".to_owned() };
            self.refuse(&key, ProblemKind::Conflict { why });
        }
    }
}
