//! A shard: operators, what they read beside their events, and their outputs. Synchronous and single-threaded; who
//! runs it, on which thread, is not its business.

use crate::event::{Event, kind};
use crate::ledger::Ledger;
use crate::operator::{Analyzer, Context, GapSpan, Operator};
use crate::output::{Emit, Lane, Output, OutputSink, SlotAccount, output_kind};
use crate::slot::{KeyMeta, SLOT_COUNT};
use crate::snapshot::{self, SnapshotError};
use crate::watermark::WatermarkTracker;
use rkyv::with::AsOwned;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

mod part;
mod regroup;

pub use part::{PartError, PartHead};
pub use regroup::{RegroupError, Share, ShareError, regroup};

/// Declared losses kept: enough for a feed that gaps every second over the longest default window.
const GAPS_MAX: usize = 1_024;

/// An operator over events, with the analyzers fused behind it.
pub struct Stage {
    operator: Box<dyn Operator>,
    lane: Lane,
    analyzers: Vec<AnalyzerStage>,
    /// Kept out of [`Ledger`] on purpose: control records are nobody's input.
    name: String,
    /// Events that the shard had applied before this stage was there.
    since: u64,
}

/// An analyzer over its upstream's outputs, with further analyzers behind it.
pub struct AnalyzerStage {
    analyzer: Box<dyn Analyzer>,
    lane: Lane,
    children: Vec<AnalyzerStage>,
    name: String,
}

impl Stage {
    /// A stage writing to stream number `stream`.
    #[must_use]
    pub fn new(name: impl Into<String>, stream: u16, operator: Box<dyn Operator>) -> Self {
        Self { operator, lane: Lane::new(stream), analyzers: Vec::new(), name: name.into(), since: 0 }
    }

    /// Adds an analyzer over this stage's outputs.
    #[must_use]
    pub fn with(mut self, analyzer: AnalyzerStage) -> Self {
        self.analyzers.push(analyzer);
        self
    }

    /// The stage's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator's account.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.operator.ledger()
    }

    /// See [`Operator::cut`].
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.operator.cut()
    }

    /// Events that the shard had applied before this stage was there; of those it knows nothing.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.since
    }
}

impl AnalyzerStage {
    /// A stage writing to stream number `stream`.
    #[must_use]
    pub fn new(name: impl Into<String>, stream: u16, analyzer: Box<dyn Analyzer>) -> Self {
        Self { analyzer, lane: Lane::new(stream), children: Vec::new(), name: name.into() }
    }

    /// Adds an analyzer over this one's outputs.
    #[must_use]
    pub fn with(mut self, child: AnalyzerStage) -> Self {
        self.children.push(child);
        self
    }

    fn on_outputs(&mut self, outputs: &[Output], out: &mut dyn OutputSink) {
        let mut fan = Fan { analyzers: &mut self.children, out };
        self.analyzer.on_outputs(outputs, &mut Emit::new(&mut self.lane, &mut fan));
    }

    fn on_watermark(&mut self, watermark: u64, out: &mut dyn OutputSink) {
        let mut fan = Fan { analyzers: &mut self.children, out };
        let mut emit = Emit::new(&mut self.lane, &mut fan);
        self.analyzer.on_watermark(watermark, &mut emit);
        emit.flush();
        for child in &mut self.children {
            child.on_watermark(watermark, out);
        }
    }

    fn on_end(&mut self, out: &mut dyn OutputSink) {
        let mut fan = Fan { analyzers: &mut self.children, out };
        let mut emit = Emit::new(&mut self.lane, &mut fan);
        self.analyzer.on_end(&mut emit);
        emit.flush();
        for child in &mut self.children {
            child.on_end(out);
        }
    }

    fn flush(&mut self, out: &mut dyn OutputSink) {
        let mut fan = Fan { analyzers: &mut self.children, out };
        Emit::new(&mut self.lane, &mut fan).flush();
        for child in &mut self.children {
            child.flush(out);
        }
    }

    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a str, &'a Lane)) {
        see(&self.name, &self.lane);
        for child in &self.children {
            child.visit(see);
        }
    }

    fn save(&self, writer: &mut snapshot::Writer) {
        writer.section(section::LANE, |bytes| save_lane(&self.lane, bytes));
        writer.section(section::ANALYZER, |bytes| self.analyzer.save(bytes));
        for child in &self.children {
            child.save(writer);
        }
    }

    fn restore(&mut self, reader: &mut snapshot::Reader<'_>) -> Result<(), SnapshotError> {
        restore_lane(&mut self.lane, reader.section(section::LANE, "lane")?)?;
        self.analyzer.restore(reader.section(section::ANALYZER, "analyzer")?)?;
        self.children.iter_mut().try_for_each(|child| child.restore(reader))
    }
}

/// Hands outputs to the analyzers behind a stage and on to the sink.
struct Fan<'a> {
    analyzers: &'a mut [AnalyzerStage],
    out: &'a mut dyn OutputSink,
}

impl OutputSink for Fan<'_> {
    fn accept(&mut self, outputs: &[Output]) {
        for analyzer in self.analyzers.iter_mut() {
            analyzer.on_outputs(outputs, self.out);
        }
        self.out.accept(outputs);
    }
}

/// What [`Shard::process`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Records consumed.
    pub consumed: usize,
    /// The barrier it stopped behind, if it met one.
    pub barrier: Option<u64>,
}

/// Operators and their state for a set of slots.
pub struct Shard {
    context: Context,
    tracker: WatermarkTracker,
    stages: Vec<Stage>,
    /// Data records of the current frame still to come before its next control record.
    run_left: usize,
    events: u64,
    controls: u64,
    gaps_forgotten: u64,
}

mod section {
    pub(super) const SHARD: u32 = 1;
    pub(super) const LANE: u32 = 2;
    pub(super) const OPERATOR: u32 = 3;
    pub(super) const ANALYZER: u32 = 4;
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ShardState<'a> {
    #[rkyv(with = AsOwned)]
    keys: Cow<'a, [KeyMeta]>,
    frame: u64,
    watermark: u64,
    gaps: Vec<GapSpan>,
    ended: bool,
    run_left: u64,
    tracker: WatermarkTracker,
    events: u64,
    controls: u64,
    gaps_forgotten: u64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct LaneState<'a> {
    #[rkyv(with = AsOwned)]
    accounts: Cow<'a, [SlotAccount]>,
    emitted: u64,
}

impl LaneState<'_> {
    fn check(&self) -> Result<(), SnapshotError> {
        if self.accounts.len() == SLOT_COUNT {
            return Ok(());
        }
        Err(SnapshotError::Section { section: "lane", problem: "not one entry per slot" })
    }
}

fn save_lane(lane: &Lane, bytes: &mut Vec<u8>) {
    let state = LaneState { accounts: Cow::Borrowed(lane.accounts()), emitted: lane.emitted() };
    snapshot::append(bytes, &state);
}

fn restore_lane(lane: &mut Lane, bytes: &[u8]) -> Result<(), SnapshotError> {
    let state: LaneState<'_> = snapshot::read(bytes, "lane")?;
    state.check()?;
    lane.restore(&state.accounts, state.emitted);
    Ok(())
}

impl Shard {
    /// A shard running these stages.
    #[must_use]
    pub fn new(stages: Vec<Stage>) -> Self {
        Self {
            context: Context::default(),
            tracker: WatermarkTracker::default(),
            stages,
            run_left: 0,
            events: 0,
            controls: 0,
            gaps_forgotten: 0,
        }
    }

    /// Applies records in log order. Stops behind a BARRIER so that the caller can snapshot exactly there.
    pub fn process(&mut self, records: &[Event], out: &mut dyn OutputSink) -> Progress {
        let mut at = 0;
        while let Some(record) = records.get(at) {
            let rest = &records[at..];
            // A frame's head says how many data records follow, so they are not looked at twice: the first touch of a
            // record fetches it from another core, and that wait belongs into the operators' loop, where it overlaps
            // with work.
            let run = if self.run_left > 0 {
                self.run_left.min(rest.len())
            } else if record.is_control() {
                0
            } else {
                rest.iter().position(Event::is_control).unwrap_or(rest.len())
            };
            if run > 0 {
                self.run_left = self.run_left.saturating_sub(run);
                self.apply(&rest[..run], out);
                at += run;
                continue;
            }
            at += 1;
            self.control(record, out);
            if record.kind == kind::BARRIER {
                return Progress { consumed: at, barrier: Some(record.payload[0]) };
            }
        }
        Progress { consumed: at, barrier: None }
    }

    /// Hands everything buffered to the sink. Call once a turn, so that nothing waits for a full buffer.
    pub fn flush(&mut self, out: &mut dyn OutputSink) {
        for stage in &mut self.stages {
            let mut fan = Fan { analyzers: &mut stage.analyzers, out };
            Emit::new(&mut stage.lane, &mut fan).flush();
            for analyzer in &mut stage.analyzers {
                analyzer.flush(out);
            }
        }
    }

    fn apply(&mut self, events: &[Event], out: &mut dyn OutputSink) {
        self.events += events.len() as u64;
        for stage in &mut self.stages {
            let mut fan = Fan { analyzers: &mut stage.analyzers, out };
            stage.operator.on_events(&self.context, events, &mut Emit::new(&mut stage.lane, &mut fan));
        }
    }

    fn control(&mut self, record: &Event, out: &mut dyn OutputSink) {
        self.controls += 1;
        match record.kind {
            kind::MARK => {
                self.context.frame = record.payload[0];
                self.run_left = record.key as usize;
                self.observe(record, out);
            }
            kind::WATERMARK | kind::IDLE => self.observe(record, out),
            kind::DEFINE
                // Defined in order by the router; a repeated definition (a restart's replay) changes nothing.
                if record.key as usize == self.context.keys.len() => {
                    self.context.keys.push(KeyMeta {
                        name: record.payload[0],
                        slot: record.payload[1] as u16 % SLOT_COUNT as u16,
                        source: record.source,
                    });
                }
            kind::GAP => {
                if self.context.gaps.len() == GAPS_MAX {
                    self.context.gaps.remove(0);
                    self.gaps_forgotten += 1;
                }
                self.context.gaps.push(GapSpan {
                    source: record.source,
                    from: record.payload[1],
                    to: record.ts_event,
                    lost: record.payload[0],
                });
            }
            kind::END => {
                self.context.end();
                for stage in &mut self.stages {
                    let mut fan = Fan { analyzers: &mut stage.analyzers, out };
                    let mut emit = Emit::new(&mut stage.lane, &mut fan);
                    stage.operator.on_watermark(&self.context, &mut emit);
                    emit.flush();
                    for analyzer in &mut stage.analyzers {
                        analyzer.on_watermark(u64::MAX, out);
                        analyzer.on_end(out);
                    }
                }
                let end = Output { kind: output_kind::END, ..Output::default() };
                out.accept(std::slice::from_ref(&end));
            }
            kind::BARRIER => {
                // Whoever reads the outputs sees the barrier behind everything that came before it.
                self.flush(out);
                let marker =
                    Output { kind: output_kind::BARRIER, ts: record.payload[0], ..Output::default() };
                out.accept(std::slice::from_ref(&marker));
            }
            // A timer's effect (idle) is its own record. Kinds of later versions pass.
            _ => {}
        }
    }

    fn observe(&mut self, record: &Event, out: &mut dyn OutputSink) {
        if let Some(watermark) = self.tracker.observe(record) {
            self.advance(watermark, record.kind == kind::IDLE, out);
        }
    }

    /// Time has come so far, if it had not yet.
    fn advance(&mut self, watermark: u64, idle: bool, out: &mut dyn OutputSink) {
        if !self.context.advance(watermark) {
            return;
        }
        self.context.idle_close = idle;
        for stage in &mut self.stages {
            let mut fan = Fan { analyzers: &mut stage.analyzers, out };
            let mut emit = Emit::new(&mut stage.lane, &mut fan);
            stage.operator.on_watermark(&self.context, &mut emit);
            // Analyzers are told only after everything up to the watermark reached them.
            emit.flush();
            for analyzer in &mut stage.analyzers {
                analyzer.on_watermark(watermark, out);
            }
        }
        let marker = Output { kind: output_kind::WATERMARK, ts: watermark, ..Output::default() };
        out.accept(std::slice::from_ref(&marker));
        self.context.idle_close = false;
    }

    /// What the shard knows of keys, frame and watermark.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Data events applied.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The stages, in order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Every output lane with its stage's name, operators and analyzers, in stream order of the configuration.
    #[must_use]
    pub fn lanes(&self) -> Vec<(&str, &Lane)> {
        let mut lanes = Vec::new();
        for stage in &self.stages {
            lanes.push((stage.name.as_str(), &stage.lane));
            for analyzer in &stage.analyzers {
                analyzer.visit(&mut |name, lane| lanes.push((name, lane)));
            }
        }
        lanes
    }

    /// The whole state, sealed. Outputs still buffered belong to nobody: flush first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.write(Vec::new()).finish()
    }

    /// As [`Shard::snapshot`], without a checksum, into memory that was used before: what a shard does between two turns. For
    /// [`Shard::load`].
    #[must_use]
    pub fn save(&self, memory: Vec<u8>) -> Vec<u8> {
        self.write(memory).unsealed()
    }

    fn write(&self, memory: Vec<u8>) -> snapshot::Writer {
        let mut writer = snapshot::Writer::over(memory);
        let state = ShardState {
            keys: Cow::Borrowed(&self.context.keys),
            frame: self.context.frame,
            watermark: self.context.watermark,
            gaps: self.context.gaps.clone(),
            ended: self.context.ended,
            run_left: self.run_left as u64,
            tracker: self.tracker.clone(),
            events: self.events,
            controls: self.controls,
            gaps_forgotten: self.gaps_forgotten,
        };
        writer.section(section::SHARD, |bytes| snapshot::append(bytes, &state));
        for stage in &self.stages {
            writer.section(section::LANE, |bytes| save_lane(&stage.lane, bytes));
            writer.section(section::OPERATOR, |bytes| stage.operator.save(bytes));
            for analyzer in &stage.analyzers {
                analyzer.save(&mut writer);
            }
        }
        writer
    }

    /// Takes over a snapshot written by a shard of the same stages.
    ///
    /// # Errors
    /// [`SnapshotError`] by what is wrong; the shard is then unusable and must be dropped.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.read(snapshot::Reader::open(bytes)?)
    }

    /// As [`Shard::restore`], of what [`Shard::save`] gave.
    ///
    /// # Errors
    /// As [`Shard::restore`].
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.read(snapshot::Reader::unsealed(bytes)?)
    }

    fn read(&mut self, mut reader: snapshot::Reader<'_>) -> Result<(), SnapshotError> {
        let state: ShardState<'_> = snapshot::read(reader.section(section::SHARD, "shard")?, "shard")?;
        self.context = Context {
            keys: state.keys.into_owned(),
            frame: state.frame,
            watermark: state.watermark,
            gaps: state.gaps,
            ended: state.ended,
            idle_close: false,
        };
        self.run_left = state.run_left as usize;
        self.tracker = state.tracker;
        self.events = state.events;
        self.controls = state.controls;
        self.gaps_forgotten = state.gaps_forgotten;
        for stage in &mut self.stages {
            restore_lane(&mut stage.lane, reader.section(section::LANE, "lane")?)?;
            stage.operator.restore(reader.section(section::OPERATOR, "operator")?)?;
            for analyzer in &mut stage.analyzers {
                analyzer.restore(&mut reader)?;
            }
        }
        Ok(())
    }
}

impl Shard {
    /// Takes what the shard knows of keys and losses out of it, for a successor's [`Shard::resync`]. It is readable
    /// even after an operator panicked: operators only ever see it behind a shared reference.
    pub fn take_context(&mut self) -> Context {
        std::mem::take(&mut self.context)
    }

    /// Readies a restored shard for records other than those that followed its snapshot: it forgets how long the
    /// frame at hand was (data would be mistaken for it), and learns the keys and losses that `known` has beyond its own.
    pub fn resync(&mut self, known: Option<&Context>) {
        self.run_left = 0;
        let Some(known) = known else { return };
        if let Some(newer) = known.keys.get(self.context.keys.len()..) {
            self.context.keys.extend_from_slice(newer);
        }
        self.context.gaps.clone_from(&known.gaps);
    }
}

/// What a stage leaves to its successor of the same name.
enum Part {
    Operator(Box<dyn Operator>, Lane, u64),
    Analyzer(Box<dyn Analyzer>, Lane),
}

impl Part {
    fn lane(&self) -> &Lane {
        match self {
            Self::Operator(_, lane, _) | Self::Analyzer(_, lane) => lane,
        }
    }
}

/// What a stage has of those that ran before it under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// State, stream and numbers: it goes on as if nothing had happened.
    All,
    /// Numbers, if there is one just now: it begins with nothing, but nobody takes a new record for an old one.
    Numbers,
    /// The last number per slot of one that ended earlier.
    Behind(Arc<[u64]>),
}

fn number_on(lane: &mut Lane, before: Option<&Part>, legacy: &Legacy) {
    match (before, legacy) {
        (Some(part), _) => lane.restore(part.lane().accounts(), part.lane().emitted()),
        (None, Legacy::Behind(last)) => lane.begin_behind(last),
        (None, _) => {}
    }
}

impl AnalyzerStage {
    fn take_apart(self, parts: &mut HashMap<String, Part>) {
        parts.insert(self.name, Part::Analyzer(self.analyzer, self.lane));
        self.children.into_iter().for_each(|child| child.take_apart(parts));
    }

    fn take_over(&mut self, parts: &mut HashMap<String, Part>, of: &dyn Fn(&str) -> Legacy) {
        match (of(&self.name), parts.remove(&self.name)) {
            (Legacy::All, Some(Part::Analyzer(analyzer, lane))) => {
                (self.analyzer, self.lane) = (analyzer, lane);
            }
            (legacy, part) => number_on(&mut self.lane, part.as_ref(), &legacy),
        }
        self.children.iter_mut().for_each(|child| child.take_over(parts, of));
    }
}

impl Shard {
    /// Runs other stages from here on; what each takes over is said by its name. What has no successor ends without a word: the
    /// windows it held open are of no stream any more.
    ///
    /// To be called between two turns, everything flushed, at the same record of the log on every shard.
    pub fn restage(&mut self, stages: Vec<Stage>, of: &dyn Fn(&str) -> Legacy) {
        let mut parts = HashMap::new();
        for stage in std::mem::replace(&mut self.stages, stages) {
            parts.insert(stage.name, Part::Operator(stage.operator, stage.lane, stage.since));
            stage.analyzers.into_iter().for_each(|analyzer| analyzer.take_apart(&mut parts));
        }
        for stage in &mut self.stages {
            stage.since = self.events;
            match (of(&stage.name), parts.remove(&stage.name)) {
                (Legacy::All, Some(Part::Operator(operator, lane, since))) => {
                    (stage.operator, stage.lane, stage.since) = (operator, lane, since);
                }
                (legacy, part) => number_on(&mut stage.lane, part.as_ref(), &legacy),
            }
            stage.analyzers.iter_mut().for_each(|analyzer| analyzer.take_over(&mut parts, of));
        }
    }

    /// Says of each stage, in order, how many events the shard had applied before it was there: what a snapshot does not hold.
    pub fn set_since(&mut self, since: &[u64]) {
        self.stages.iter_mut().zip(since).for_each(|(stage, since)| stage.since = *since);
    }
}

/// The analyzers of a shard, taken off to run on a thread of their own behind a ring of outputs. The same analyzers in
/// the same order, so the same bytes: placement does not show.
pub struct Analysis {
    /// By the upstream stream they read.
    stages: Vec<(u16, Vec<AnalyzerStage>)>,
}

impl Shard {
    /// Takes the analyzers off: from now on [`Shard::process`] only runs operators, and everything it hands to its
    /// sink, watermark and end markers included, must go through [`Analysis::process`].
    pub fn split_analysis(&mut self) -> Analysis {
        let take = |stage: &mut Stage| (stage.lane.stream(), std::mem::take(&mut stage.analyzers));
        Analysis { stages: self.stages.iter_mut().map(take).collect() }
    }

    /// Puts back what [`Shard::split_analysis`] took, to snapshot or digest the shard as a whole.
    pub fn join_analysis(&mut self, analysis: Analysis) {
        for (stage, (_, analyzers)) in self.stages.iter_mut().zip(analysis.stages) {
            stage.analyzers = analyzers;
        }
    }
}

impl Analysis {
    /// Applies upstream outputs in order and passes them on, with the analyzers' own, to `out`.
    pub fn process(&mut self, outputs: &[Output], out: &mut dyn OutputSink) {
        let result = |output: &Output| output.kind < output_kind::WATERMARK;
        for run in outputs.chunk_by(|a, b| result(a) && result(b) && a.stream == b.stream) {
            let first = &run[0];
            match first.kind {
                output_kind::WATERMARK => self.each(|analyzer, _| analyzer.on_watermark(first.ts, out)),
                output_kind::END => self.each(|analyzer, _| {
                    analyzer.on_watermark(u64::MAX, out);
                    analyzer.on_end(out);
                }),
                output_kind::BARRIER => self.flush(out),
                _ => {
                    let wanted = first.stream;
                    self.each(|analyzer, stream| {
                        if stream == wanted {
                            analyzer.on_outputs(run, out);
                        }
                    });
                }
            }
            // A marker follows everything it speaks of.
            out.accept(run);
        }
    }

    fn each(&mut self, mut act: impl FnMut(&mut AnalyzerStage, u16)) {
        for (stream, analyzers) in &mut self.stages {
            for analyzer in analyzers {
                act(analyzer, *stream);
            }
        }
    }

    /// Hands everything buffered to the sink.
    pub fn flush(&mut self, out: &mut dyn OutputSink) {
        self.each(|analyzer, _| analyzer.flush(out));
    }
}

/// Sum of digests per slot over all lanes of all shards, and one number over all slots: what `verify` compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    slots: Vec<u64>,
    outputs: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { slots: vec![0; SLOT_COUNT], outputs: 0 }
    }
}

impl Digest {
    /// Adds a lane.
    pub fn add(&mut self, lane: &Lane) {
        for (sum, account) in self.slots.iter_mut().zip(lane.accounts()) {
            *sum = sum.wrapping_add(account.digest);
        }
        self.outputs += lane.emitted();
    }

    /// Adds all lanes of a shard.
    pub fn add_shard(&mut self, shard: &Shard) {
        for (_, lane) in shard.lanes() {
            self.add(lane);
        }
    }

    /// Adds another digest.
    pub fn merge(&mut self, other: &Self) {
        for (sum, digest) in self.slots.iter_mut().zip(&other.slots) {
            *sum = sum.wrapping_add(*digest);
        }
        self.outputs += other.outputs;
    }

    /// Digest of one slot.
    #[must_use]
    pub fn slots(&self) -> &[u64] {
        &self.slots
    }

    /// Outputs digested.
    #[must_use]
    pub fn outputs(&self) -> u64 {
        self.outputs
    }

    /// One number over all slots: BLAKE3 of the slot digests in order, first 16 bytes, as hex.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for digest in &self.slots {
            hasher.update(&digest.to_le_bytes());
        }
        hasher.finalize().as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
