//! What to compute: the streams of a replay and the stages that make them.

use std::collections::BTreeMap;
use tidegate_actors::WindowSpec;
use tidegate_actors::anomaly::{AnomalyAnalyzer, AnomalySpec};
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::hosts::{HOST_COLUMNS, HostOptions, HostWindows};
use tidegate_actors::indicators::{IndicatorAnalyzer, IndicatorError, IndicatorSpec};
use tidegate_actors::regime::{RegimeAnalyzer, RegimeSpec};
use tidegate_actors::rollup::RollUpError;
use tidegate_engine::{AnalyzerStage, Stage, WindowWidth};

/// What a pipeline computes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Bars, each a stream `bars.SPEC`. A roll-up needs the finer bars it reads among them.
    pub bars: Vec<WindowSpec>,
    /// Indicators over every bar stream, each a stream `ind.SPEC`. May be empty.
    pub indicators: Vec<IndicatorSpec>,
    /// Regimes over every bar stream, each a stream `regime.SPEC`.
    pub regime: Option<RegimeSpec>,
    /// Anomalies over every bar stream, each a stream `anomaly.SPEC`.
    pub anomaly: Option<AnomalySpec>,
    /// How bars treat late trades and what they keep.
    pub bar_options: BarOptions,
    /// Host windows, a stream `hosts.WIDTH` each.
    pub hosts: Vec<WindowWidth>,
    /// What some of `bars` have of their own.
    pub own: Vec<Own>,
}

/// What some bars have in place of what [`Plan`] says for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    /// Which bars.
    pub bars: WindowSpec,
    /// Indicators over them; may be none.
    pub indicators: Vec<IndicatorSpec>,
    /// Regimes over them; may be none.
    pub regime: Option<RegimeSpec>,
    /// Anomalies over them; may be none.
    pub anomaly: Option<AnomalySpec>,
    /// How they treat late trades and what they keep. Of a roll-up only the horizon has a meaning.
    pub options: BarOptions,
}

/// Windows a host may hold open: its own and seven of disorder.
const HOST_WINDOWS_MAX: u32 = 8;

/// What a stream's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Bars known by their name and end ([`tidegate_engine::BarWords`]).
    Bars,
    /// Bars by ticks, volume or value, known by their name and first trade.
    MeasureBars,
    /// Rows of floats: indicators, regimes and anomalies.
    Indicators,
    /// Rows of a host's counters.
    Hosts,
}

/// One stream of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Number in every output of it: its place in [`Plan::streams`], unless told otherwise.
    pub id: u16,
    /// Name for people: `bars.1s`, `ind.1s`, `regime.1s`, `anomaly.1s`, `hosts.1m`.
    pub name: String,
    /// What its records are.
    pub kind: StreamKind,
    /// Columns of indicator, regime, anomaly and host rows; empty for bars.
    pub columns: Vec<String>,
    /// Everything that its records depend on beside the log: equal for two streams that give the same.
    pub definition: String,
}

/// Why a plan cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It computes nothing.
    #[error("the plan is empty: ask for at least one of --bars and --hosts")]
    Empty,
    /// Indicators, regimes or anomalies without bars to compute them on.
    #[error(
        "indicators, regimes and anomalies need bars to be computed on: add --bars, for example --bars 1s"
    )]
    NoBars,
    /// The same stream twice.
    #[error("stream `{name}` is asked for twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// More streams than are numbered.
    #[error(
        "the plan has more than {} streams; indicators, regimes and anomalies are one more each for each of the bars",
        Plan::STREAMS_MAX
    )]
    TooMany,
    /// A roll-up without the bars it reads.
    #[error("`{bars}` is rolled up from `{finer}`: add that to the bars as well")]
    NoFiner {
        /// The roll-up.
        bars: String,
        /// What it reads.
        finer: String,
    },
    /// Windows that would hold more than they may.
    #[error("bars `{bars}` are not possible with this horizon")]
    Windows {
        /// The bars.
        bars: String,
        /// What is out of range.
        #[source]
        why: RollUpError,
    },
    /// The list of indicators is not possible.
    #[error(transparent)]
    Indicators(#[from] IndicatorError),
}

impl Plan {
    /// Streams a plan may have. Each costs its own numbering per slot.
    pub const STREAMS_MAX: usize = 64;

    /// The streams, in the order of their numbers.
    ///
    /// # Errors
    /// [`PlanError`] when the plan cannot be built.
    pub fn streams(&self) -> Result<Vec<StreamInfo>, PlanError> {
        Ok(self.build(&BTreeMap::new())?.0)
    }

    /// The stages of one shard.
    ///
    /// # Errors
    /// [`PlanError`] as [`Plan::streams`].
    pub fn stages(&self) -> Result<Vec<Stage>, PlanError> {
        Ok(self.build(&BTreeMap::new())?.1)
    }

    /// The stages of one shard, whose streams have numbers of their own by name: those of a pipeline whose plan was another one before.
    ///
    /// # Errors
    /// [`PlanError`] as [`Plan::streams`].
    pub fn stages_numbered(&self, numbers: &BTreeMap<String, u16>) -> Result<Vec<Stage>, PlanError> {
        Ok(self.build(numbers)?.1)
    }

    /// The longest time after its end that any bar can be amended, in nanoseconds.
    #[must_use]
    pub fn horizon_max_ns(&self) -> u64 {
        self.bars
            .iter()
            .map(|bars| self.options_of(bars).horizon_ns)
            .max()
            .unwrap_or(self.bar_options.horizon_ns)
    }

    fn build(&self, numbers: &BTreeMap<String, u16>) -> Result<(Vec<StreamInfo>, Vec<Stage>), PlanError> {
        if self.bars.is_empty()
            && (!self.indicators.is_empty() || self.regime.is_some() || self.anomaly.is_some())
        {
            return Err(PlanError::NoBars);
        }
        let orphan = self.bars.iter().find(|bars| bars.over().is_some_and(|over| !self.bars.contains(over)));
        if let Some((bars, over)) = orphan.and_then(|bars| Some((bars, bars.over()?))) {
            return Err(PlanError::NoFiner { bars: bars.to_string(), finer: over.to_string() });
        }
        let mut streams = Streams { infos: Vec::new(), numbers };
        let mut stages = Vec::new();
        for bars in &self.bars {
            let Some(operator) = bars.operator(self.options_of(bars)).map_err(|why| refused(bars, why))?
            else {
                continue; // a roll-up stands behind the bars it reads
            };
            let definition = format!("{bars:?} {:?}", self.options_of(bars));
            let (id, name) = streams.add_bars(bars, definition)?;
            let stage = Stage::new(name, id, operator);
            stages.push(self.analyzers(bars, id, &mut streams)?.into_iter().fold(stage, Stage::with));
        }
        for &width in &self.hosts {
            let name = format!("hosts.{}", BarSpec::Time(width));
            let columns = HOST_COLUMNS.iter().map(ToString::to_string).collect();
            let options = HostOptions { width, open_max: HOST_WINDOWS_MAX };
            // Rows of other columns are another stream, and no snapshot of theirs is read.
            let definition = format!("{options:?} of {}", HOST_COLUMNS.join(" "));
            let (id, name) = streams.add(name, StreamKind::Hosts, columns, definition)?;
            let operator = HostWindows::new(options);
            stages.push(Stage::new(name, id, Box::new(operator)));
        }
        if stages.is_empty() { Err(PlanError::Empty) } else { Ok((streams.infos, stages)) }
    }

    fn own_of(&self, bars: &WindowSpec) -> Option<&Own> {
        self.own.iter().find(|own| own.bars == *bars)
    }

    fn options_of(&self, bars: &WindowSpec) -> BarOptions {
        self.own_of(bars).map_or(self.bar_options, |own| own.options)
    }

    /// What reads the bars of stream `id`: indicators, regimes, anomalies, and roll-ups with what reads them in turn.
    fn analyzers(
        &self,
        bars: &WindowSpec,
        id: u16,
        streams: &mut Streams<'_>,
    ) -> Result<Vec<AnalyzerStage>, PlanError> {
        let mut analyzers = Vec::new();
        // What reads other bars than before is another stream, whatever it is called.
        let over = streams.definition(id);
        let indicators = self.own_of(bars).map_or(&self.indicators, |own| &own.indicators);
        if !indicators.is_empty() {
            let definition = format!("{indicators:?} over {over}");
            let indicators = IndicatorAnalyzer::new(id, indicators)?;
            let name = format!("ind.{}", bars.name());
            let (id, name) = streams.add(name, StreamKind::Indicators, indicators.columns(), definition)?;
            analyzers.push(AnalyzerStage::new(name, id, Box::new(indicators)));
        }
        if let Some(spec) = self.own_of(bars).map_or(self.regime, |own| own.regime) {
            let name = format!("regime.{}", bars.name());
            let definition = format!("{spec:?} over {over}");
            let (own, name) = streams.add(name, StreamKind::Indicators, spec.columns(), definition)?;
            analyzers.push(AnalyzerStage::new(name, own, Box::new(RegimeAnalyzer::new(id, spec))));
        }
        if let Some(spec) = self.own_of(bars).map_or(self.anomaly, |own| own.anomaly) {
            let name = format!("anomaly.{}", bars.name());
            let columns = AnomalySpec::COLUMNS.map(str::to_owned).to_vec();
            let definition = format!("{spec:?} over {over}");
            let (own, name) = streams.add(name, StreamKind::Indicators, columns, definition)?;
            analyzers.push(AnalyzerStage::new(name, own, Box::new(AnomalyAnalyzer::new(id, spec))));
        }
        for wider in self.bars.iter().filter(|wider| wider.over() == Some(bars)) {
            let Some(roll_up) =
                wider.roll_up(id, self.options_of(wider)).map_err(|why| refused(wider, why))?
            else {
                continue;
            };
            let definition = format!("{wider:?} {:?} over {over}", self.options_of(wider));
            let (id, name) = streams.add_bars(wider, definition)?;
            let stage = AnalyzerStage::new(name, id, Box::new(roll_up));
            analyzers.push(self.analyzers(wider, id, streams)?.into_iter().fold(stage, AnalyzerStage::with));
        }
        Ok(analyzers)
    }
}

/// Streams as they get their numbers: in the order in which a shard lists its lanes, unless they have numbers already.
struct Streams<'n> {
    infos: Vec<StreamInfo>,
    numbers: &'n BTreeMap<String, u16>,
}

impl Streams<'_> {
    fn add(
        &mut self,
        name: String,
        kind: StreamKind,
        columns: Vec<String>,
        definition: String,
    ) -> Result<(u16, String), PlanError> {
        if self.infos.iter().any(|stream| stream.name == name) {
            return Err(PlanError::Twice { name });
        }
        if self.infos.len() == Plan::STREAMS_MAX {
            return Err(PlanError::TooMany);
        }
        let id = self.numbers.get(&name).copied().unwrap_or(self.infos.len() as u16);
        self.infos.push(StreamInfo { id, name: name.clone(), kind, columns, definition });
        Ok((id, name))
    }

    fn add_bars(&mut self, bars: &WindowSpec, definition: String) -> Result<(u16, String), PlanError> {
        let kind = if bars.is_by_measure() { StreamKind::MeasureBars } else { StreamKind::Bars };
        self.add(format!("bars.{}", bars.name()), kind, Vec::new(), definition)
    }

    fn definition(&self, id: u16) -> String {
        let stream = self.infos.iter().find(|stream| stream.id == id);
        stream.map(|stream| stream.definition.clone()).unwrap_or_default()
    }
}

fn refused(bars: &WindowSpec, why: RollUpError) -> PlanError {
    PlanError::Windows { bars: bars.to_string(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use tidegate_engine::{
        Event, Legacy, Output, Price, SLOT_COUNT, Sequencer, SequencerOptions, Shard, Size, flag, kind,
        name_hash, output_kind, slot_of,
    };

    fn plan(bars: &str) -> Plan {
        let bars = bars.split(',').map(|text| text.parse().unwrap()).collect();
        let regime = Some("hmm:2".parse().unwrap());
        let anomaly = Some("volume".parse().unwrap());
        Plan { bars, indicators: vec!["rsi:14".parse().unwrap()], regime, anomaly, ..Plan::default() }
    }

    #[test]
    fn streams_are_numbered_as_shards_list_their_lanes() {
        let plan = plan("1h@1m@1s,1000t,1m@1s,session:30s,1s,sliding:1m/10s");
        let streams = plan.streams().unwrap();
        let shard = Shard::new(plan.stages().unwrap());
        let lanes: Vec<_> =
            shard.lanes().iter().map(|(name, lane)| (name.to_string(), lane.stream())).collect();
        let expected: Vec<_> = streams.iter().map(|stream| (stream.name.clone(), stream.id)).collect();
        assert_eq!(lanes, expected);
        let names: Vec<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
        assert_eq!(
            names.iter().filter(|name| name.starts_with("bars.")).copied().collect::<Vec<_>>(),
            [
                "bars.1000t",
                "bars.session-30s",
                "bars.1s",
                "bars.1m@1s",
                "bars.1h@1m@1s",
                "bars.sliding-1m-10s"
            ]
        );
        assert_eq!(names.len(), 24, "indicators, regimes and anomalies over each");
    }

    #[test]
    fn bars_may_have_indicators_and_options_of_their_own() {
        let own = |bars: &str, indicators: &[&str], horizon_ns| Own {
            bars: bars.parse().unwrap(),
            indicators: indicators.iter().map(|name| name.parse().unwrap()).collect(),
            regime: (bars == "5m").then(|| "hmm:4".parse().unwrap()),
            anomaly: (bars == "1s").then(|| "trades:2".parse().unwrap()),
            options: BarOptions { horizon_ns, ..BarOptions::default() },
        };
        let common = plan("1s,1m,5m");
        let plan = Plan {
            own: vec![own("1s", &[], 1), own("5m", &["sma:3", "ema:3"], 7_000_000_000_000)],
            ..common
        };
        let streams = plan.streams().unwrap();
        let names: Vec<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
        let all = [
            "bars.1s",
            "anomaly.1s",
            "bars.1m",
            "ind.1m",
            "regime.1m",
            "anomaly.1m",
            "bars.5m",
            "ind.5m",
            "regime.5m",
        ];
        assert_eq!(names, all);
        let columns = |at: usize| streams[at].columns.len();
        assert_eq!((columns(1), columns(3), columns(4), columns(7), columns(8)), (9, 1, 13, 2, 15));
        assert_eq!(plan.horizon_max_ns(), 7_000_000_000_000);
        let long =
            Plan { own: vec![own("sliding:2s/1s", &[], 1 << 60)], ..super::tests::plan("sliding:2s/1s") };
        assert!(matches!(long.streams(), Err(PlanError::Windows { .. })));
    }

    /// Results by stream name, in their order.
    type Results = BTreeMap<String, Vec<Output>>;

    /// A few keys' trades, some of them late or taken back, as a log.
    fn log(seed: u64) -> Vec<Event> {
        let mut state = seed | 1;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let names = ["A", "B", "C", "D", "E"].map(|name| name_hash(name.as_bytes()));
        let mut log: Vec<Event> = (0u32..)
            .zip(names)
            .map(|(key, name)| Event::control(kind::DEFINE, 0, key, 0, [name, u64::from(slot_of(name))]))
            .collect();
        let options = SequencerOptions { disorder_ns: 300_000_000, ..SequencerOptions::default() };
        let mut sequencer = Sequencer::new(options);
        let mut now = 1_000_000_000_000u64;
        for _ in 0..3_000 {
            now += random(90_000_000);
            let flags = if random(40) == 0 { flag::CANCEL } else { 0 };
            let ts = now - random(20) / 19 * 4_000_000_000;
            let (price, size) = (Price(1_000 + random(50) as i64), Size(1 + random(9)));
            let event = Event::trade(ts, random(5) as u32, 0, price, size, flags);
            sequencer.push(&[event], &mut |records| log.extend_from_slice(records));
        }
        sequencer.finish(&mut |records| log.extend_from_slice(records));
        log
    }

    /// The names of a plan's streams by their numbers.
    fn names(plan: &Plan, numbers: &BTreeMap<String, u16>) -> BTreeMap<u16, String> {
        let streams = plan.streams().unwrap().into_iter();
        streams.map(|stream| (numbers.get(&stream.name).copied().unwrap_or(stream.id), stream.name)).collect()
    }

    fn keep(names: &BTreeMap<u16, String>, results: &mut Results, outputs: &[Output]) {
        for output in outputs.iter().filter(|output| output.kind < output_kind::WATERMARK) {
            // Numbers of streams are the only thing that may differ.
            let (name, output) = (names[&output.stream].clone(), Output { stream: 0, ..*output });
            results.entry(name).or_default().push(output);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Wherever in the log the plan changes, streams that compute what they did before go on as if nothing had happened, and streams
        /// of a name number their records without a gap.
        #[test]
        fn a_change_of_plan_leaves_alone_what_stays(seed: u64, at in 0usize..3_500, again in 0usize..3_500) {
            let plans = ["1s,5s@1s,100t,sliding:2s/1s", "5s@1s,1s,7s,sliding:2s/1s", "1s,100t"];
            let mut plans = plans.map(plan);
            plans[1].indicators = vec!["rsi:14".parse().unwrap(), "sma:3".parse().unwrap()];
            let log = log(seed);
            let mut cuts = [at.min(log.len()), again.min(log.len())];
            cuts.sort_unstable();

            let mut calm: Vec<Results> = Vec::new();
            for plan in &plans {
                let (mut shard, mut results) = (Shard::new(plan.stages().unwrap()), Results::new());
                let names = names(plan, &BTreeMap::new());
                let mut sink = |outputs: &[Output]| keep(&names, &mut results, outputs);
                prop_assert_eq!(shard.process(&log, &mut sink).consumed, log.len());
                shard.flush(&mut sink);
                calm.push(results);
            }

            let mut numbers: BTreeMap<String, u16> =
                plans[0].streams().unwrap().into_iter().map(|stream| (stream.name, stream.id)).collect();
            let mut given = numbers.len() as u16;
            let (mut shard, mut results) = (Shard::new(plans[0].stages().unwrap()), Results::new());
            let mut stayed: Vec<String> = numbers.keys().cloned().collect();
            let (mut from, mut ended) = (0, BTreeMap::<String, Arc<[u64]>>::new());
            for (step, plan) in plans.iter().enumerate() {
                if step > 0 {
                    let before = plans[step - 1].streams().unwrap();
                    let kept: Vec<String> = plan
                        .streams()
                        .unwrap()
                        .into_iter()
                        .filter(|stream| before.iter().any(|old| (&old.name, &old.definition) == (&stream.name, &stream.definition)))
                        .map(|stream| stream.name)
                        .collect();
                    for stream in plan.streams().unwrap().into_iter().filter(|stream| !kept.contains(&stream.name)) {
                        numbers.insert(stream.name, given);
                        given += 1;
                    }
                    stayed.retain(|name| kept.contains(name));
                    let stages = plan.stages_numbered(&numbers).unwrap();
                    let legacy = |name: &str| match ended.get(name) {
                        _ if kept.iter().any(|kept| kept == name) => Legacy::All,
                        Some(last) => Legacy::Behind(Arc::clone(last)),
                        None => Legacy::Numbers,
                    };
                    // As the hub knows them: the last numbers of streams that ended before.
                    let lasts = results.iter().map(|(name, records)| {
                        let mut last = vec![0; SLOT_COUNT];
                        records.iter().for_each(|record| last[usize::from(record.slot)] = record.sequence);
                        (name.clone(), Arc::from(last))
                    });
                    let lasts: Vec<(String, Arc<[u64]>)> = lasts.collect();
                    shard.restage(stages, &legacy);
                    ended.extend(lasts);
                }
                let to = cuts.get(step).copied().unwrap_or(log.len());
                let names = names(plan, &numbers);
                let mut sink = |outputs: &[Output]| keep(&names, &mut results, outputs);
                prop_assert_eq!(shard.process(&log[from..to], &mut sink).consumed, to - from);
                shard.flush(&mut sink);
                from = to;
            }

            prop_assert_eq!(&stayed, &["anomaly.1s", "bars.1s", "regime.1s"]);
            for name in &stayed {
                prop_assert_eq!(&results[name], &calm[0][name], "{}", name);
            }
            let lengths = |results: &Results| results.values().map(Vec::len).sum::<usize>();
            prop_assert!(lengths(&results) > lengths(&calm[2]) / 2);
            for (name, records) in &results {
                let mut next = BTreeMap::new();
                for record in records {
                    let expected = next.entry(record.slot).or_insert(1);
                    prop_assert_eq!(record.sequence, *expected, "{}", name);
                    *expected += 1;
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Plan::default().streams(), Err(PlanError::Empty));
        let error = plan("1m,1h@1m@1s").streams().unwrap_err();
        assert_eq!(error.to_string(), "`1h@1m@1s` is rolled up from `1m@1s`: add that to the bars as well");
        assert!(matches!(plan("1s,1m@1s,1m@1s").streams(), Err(PlanError::Twice { .. })));
        let many: Vec<_> = (1..40).map(|n| format!("{n}t")).collect();
        assert_eq!(plan(&many.join(",")).streams(), Err(PlanError::TooMany));
        let long = BarOptions { horizon_ns: 1 << 60, ..BarOptions::default() };
        let error = Plan { bar_options: long, ..plan("sliding:2s/1s") }.streams().unwrap_err();
        assert!(error.to_string().contains("sliding:2s/1s"), "{error}");
    }
}
