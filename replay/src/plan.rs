//! What to compute: the streams of a replay and the stages that make them.

use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::hosts::{HOST_COLUMNS, HostOptions, HostWindows};
use tidegate_actors::indicators::{IndicatorAnalyzer, IndicatorError, IndicatorSet, IndicatorSpec};
use tidegate_engine::{AnalyzerStage, Stage, WindowWidth};

/// What a pipeline computes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Bars, each a stream `bars.SPEC`.
    pub bars: Vec<BarSpec>,
    /// Indicators over every bar stream, each a stream `ind.SPEC`. May be empty.
    pub indicators: Vec<IndicatorSpec>,
    /// How bars treat late trades and what they keep.
    pub bar_options: BarOptions,
    /// Host windows, a stream `hosts.WIDTH` each.
    pub hosts: Vec<WindowWidth>,
}

/// Windows a host may hold open: its own and seven of disorder.
const HOST_WINDOWS_MAX: u32 = 8;

/// What a stream's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Bars ([`tidegate_engine::BarWords`]).
    Bars,
    /// Rows of floats.
    Indicators,
    /// Rows of a host's counters.
    Hosts,
}

/// One stream of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Number in every output of it: its place in [`Plan::streams`].
    pub id: u16,
    /// Name for people: `bars.1s`, `ind.1s`, `hosts.1m`.
    pub name: String,
    /// What its records are.
    pub kind: StreamKind,
    /// Columns of indicator and host rows; empty for bars.
    pub columns: Vec<String>,
}

/// Why a plan cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It computes nothing.
    #[error("the plan is empty: ask for at least one of --bars and --hosts")]
    Empty,
    /// Indicators without bars to compute them on.
    #[error("indicators need bars to be computed on: add --bars, for example --bars 1s")]
    NoBars,
    /// The same stream twice.
    #[error("stream `{name}` is asked for twice")]
    Twice {
        /// Its name.
        name: String,
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
        if self.bars.is_empty() && !self.indicators.is_empty() {
            return Err(PlanError::NoBars);
        }
        let columns = if self.indicators.is_empty() {
            Vec::new()
        } else {
            IndicatorSet::new(&self.indicators)?.columns()
        };
        let mut streams: Vec<StreamInfo> = Vec::new();
        let mut add = |name: String, kind, columns| {
            if streams.iter().any(|stream| stream.name == name) {
                return Err(PlanError::Twice { name });
            }
            streams.push(StreamInfo { id: streams.len() as u16, name, kind, columns });
            Ok(())
        };
        for bars in &self.bars {
            add(format!("bars.{bars}"), StreamKind::Bars, Vec::new())?;
            if !columns.is_empty() {
                add(format!("ind.{bars}"), StreamKind::Indicators, columns.clone())?;
            }
        }
        for &width in &self.hosts {
            let columns = HOST_COLUMNS.iter().map(ToString::to_string).collect();
            add(format!("hosts.{}", BarSpec::Time(width)), StreamKind::Hosts, columns)?;
        }
        if streams.is_empty() { Err(PlanError::Empty) } else { Ok(streams) }
    }

    /// The stages of one shard.
    ///
    /// # Errors
    /// [`PlanError`] as [`Plan::streams`].
    pub fn stages(&self) -> Result<Vec<Stage>, PlanError> {
        let streams = self.streams()?;
        let mut next = streams.into_iter();
        let mut stages = Vec::new();
        for bars in &self.bars {
            let Some(stream) = next.next() else { break };
            let mut stage = Stage::new(stream.name, stream.id, bars.operator(self.bar_options));
            if !self.indicators.is_empty() {
                let analyzer = IndicatorAnalyzer::new(stream.id, &self.indicators)?;
                if let Some(stream) = next.next() {
                    stage = stage.with(AnalyzerStage::new(stream.name, stream.id, Box::new(analyzer)));
                }
            }
            stages.push(stage);
        }
        for (&width, stream) in self.hosts.iter().zip(next) {
            let operator = HostWindows::new(HostOptions { width, open_max: HOST_WINDOWS_MAX });
            stages.push(Stage::new(stream.name, stream.id, Box::new(operator)));
        }
        Ok(stages)
    }
}
