//! The thread that computes: bars in, rows out.

use super::batched::Batched;
use super::cross::Cross;
use super::stats::Shared;
use super::steps::Steps;
use super::surface::Surface;
use super::symbols::{Names, Symbols};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tidegate_actors::first_final;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::{BarState, Cause, Output, Sleeper, name_hash, output_kind, slot_of};
use tidegate_gpu::Accel;
use tidegate_live::HubHandle;
use tidegate_live::derived::{Began, FromHub, ToHub};

/// Records taken in one turn.
const TURN_MAX: usize = 8_192;
/// How long it sleeps at most.
const SLEEP: Duration = Duration::from_millis(500);

/// What is derived, where it is read from and where it goes.
pub(super) struct Class {
    pub(super) name: String,
    /// The number of the bars' stream.
    pub(super) reads: u16,
    /// The bars' stream, which is the key of what is of all symbols.
    pub(super) bars: String,
    /// The numbers of its streams.
    pub(super) first: u16,
    /// Columns of each.
    pub(super) columns: Vec<usize>,
    pub(super) symbols: Symbols,
    pub(super) work: Work,
}

pub(super) enum Work {
    Surface(Surface),
    /// Steps are as long as the bars, in nanoseconds.
    Cross {
        cross: Cross,
        steps: Box<Steps>,
        width_ns: u64,
        /// Steps whose rows gave way to those of newer ones.
        conflated: u64,
    },
}

/// Everything the thread has.
pub(super) struct Worker {
    pub(super) classes: Vec<Class>,
    pub(super) backend: Arc<Accel>,
    pub(super) hub: HubHandle,
    pub(super) shared: Arc<Shared>,
    pub(super) names: Names,
    pub(super) told: Told,
}

/// The last number told of each slot of each stream: none is told twice, however often the thread begins.
pub(super) type Told = HashMap<(u16, u16), u64>;

/// Why the thread goes no further.
pub(super) enum Over {
    /// The server ends, or somebody else computes from now on.
    Ended,
    /// Bars were lost on the way here: it begins anew with what the hub has kept. The rings are kept until it does: without them nobody would
    /// seem to compute, and who waits for what is derived would go on without it.
    Lost(Box<(FromHub, ToHub)>),
}

impl Worker {
    /// Takes what is known from before, and computes the newest of it.
    fn begin(&mut self, began: &Began, out: &mut Rows) {
        for key in &began.past {
            for class in self.classes.iter_mut().filter(|class| class.reads == key.stream) {
                if class.symbols.covers(&key.name)
                    && let Err(error) = class.past(&key.name, &key.records)
                {
                    self.shared.failed(&class.name, &error);
                }
            }
        }
        for class in &mut self.classes {
            if let Work::Cross { steps, .. } = &mut class.work {
                steps.begin(began.watermark);
            }
        }
        for key in &began.past {
            if let Some(record) = key.records.first() {
                self.names.learn(record.name, &key.name);
            }
        }
        self.compute(Some(began.watermark), out);
    }

    /// The life of the thread.
    pub(super) fn run(mut self, began: Began) -> (Self, Over) {
        let mut rows = Rows::default();
        self.begin(&began, &mut rows);
        let Began { mut from_hub, mut to_hub, .. } = began;
        let sleeper = Sleeper::default();
        from_hub.ring().wake_with(sleeper.waker());
        let mut taken: Vec<Output> = Vec::with_capacity(TURN_MAX);
        loop {
            if !self.hand_over(&mut rows, &mut to_hub, &mut from_hub) {
                return (self, Over::Ended);
            }
            taken.clear();
            from_hub.ring().drain(TURN_MAX, |run| taken.extend_from_slice(run));
            if taken.is_empty() {
                if from_hub.ring().is_finished() {
                    return (self, Over::Ended);
                }
                sleeper.sleep(SLEEP, || from_hub.ring().has_work());
                continue;
            }
            let backlog = from_hub.ring().depth() >= TURN_MAX;
            if self.take(&taken, backlog, &mut rows).is_none() {
                return (self, Over::Ended);
            }
            if from_hub.lost() > 0 {
                self.shared.lost.fetch_add(from_hub.lost(), Relaxed);
                return match self.hand_over(&mut rows, &mut to_hub, &mut from_hub) {
                    true => (self, Over::Lost(Box::new((from_hub, to_hub)))),
                    false => (self, Over::Ended),
                };
            }
        }
    }

    fn hand_over(&mut self, rows: &mut Rows, to_hub: &mut ToHub, from_hub: &mut FromHub) -> bool {
        let told = &mut self.told;
        rows.0.retain(|row| {
            let last = told.entry((row.stream, row.slot)).or_default();
            let new = row.sequence > *last;
            *last = row.sequence.max(*last);
            new
        });
        let sent = to_hub.send(&rows.0);
        self.shared.rows.fetch_add(rows.0.len() as u64, Relaxed);
        rows.0.clear();
        to_hub.done(from_hub.ring().received());
        sent
    }

    /// Takes records; `None` when the hub has ended.
    fn take(&mut self, taken: &[Output], backlog: bool, out: &mut Rows) -> Option<()> {
        let bars = |output: &&Output| output.kind == output_kind::BAR;
        self.names.ask(&self.hub, taken.iter().filter(bars).map(|bar| bar.name).collect()).ok()?;
        let mut watermark = None;
        for output in taken {
            if output.kind == output_kind::WATERMARK {
                watermark = Some(output.ts);
                continue;
            }
            let Some(name) = self.names.get(output.name) else { continue };
            for class in self.classes.iter_mut().filter(|class| class.reads == output.stream) {
                if class.symbols.covers(name)
                    && let Err(error) = class.take(name, output)
                {
                    self.shared.failed(&class.name, &error);
                }
            }
        }
        if backlog {
            self.classes.iter_mut().for_each(|class| match &mut class.work {
                Work::Surface(surface) => surface.conflate(),
                Work::Cross { .. } => {}
            });
        }
        self.compute(watermark, out);
        Some(())
    }

    fn compute(&mut self, watermark: Option<u64>, out: &mut Rows) {
        for class in &mut self.classes {
            if let Err(error) = class.compute(watermark, &self.backend, &self.shared, out) {
                self.shared.failed(&class.name, &error);
            }
        }
        self.shared.told(&self.backend, self.classes.iter().filter_map(Class::batched));
        let left_out: u64 = self.classes.iter().map(Class::left_out).sum();
        self.shared.left_out.store(left_out, Relaxed);
        let conflated: u64 = self.classes.iter().map(Class::conflated).sum();
        self.shared.conflated.store(conflated, Relaxed);
    }
}

/// Rows on their way to the hub.
#[derive(Default)]
struct Rows(Vec<Output>);

impl Rows {
    fn push(&mut self, head: Output, values: impl IntoIterator<Item = f64>) {
        let mut words = [0u64; OUTPUT_WORDS];
        let mut count = 0;
        for (word, value) in words.iter_mut().zip(values) {
            // Whatever is not a number is one thing to readers.
            *word = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            count += 1;
        }
        self.0.push(Output { kind: output_kind::VALUES, count, words, ..head });
    }
}

impl Class {
    /// A key's past, of bars as they first became final: those that came to be behind others count no more than when they come. Its newest bar
    /// is told again: a reader that comes after a restart finds it.
    fn past(&mut self, name: &str, records: &[Output]) -> Result<(), String> {
        let reads = self.reads;
        // Of one that was amended before anybody kept its first revision there is only the last.
        let counts = move |record: &&Output| {
            record.state == BarState::Amended as u8 || first_final(record, reads).is_some()
        };
        let bars = records.iter().filter(|record| record.kind == output_kind::BAR && record.bar().trades > 0);
        let bars = bars.filter(counts);
        let newest = bars.clone().next_back().map(|bar| bar.ts);
        for bar in bars {
            match &mut self.work {
                Work::Surface(surface) => {
                    surface.take(bar, Some(bar.ts) == newest && bar.state == BarState::Final as u8)?;
                }
                Work::Cross { steps, .. } => steps.take(name, bar.ts, bar.bar().close),
            }
        }
        Ok(())
    }

    /// A bar as it first became final; later revisions change nothing that was derived.
    fn take(&mut self, name: &str, output: &Output) -> Result<(), String> {
        let Some(bar) = first_final(output, self.reads) else { return Ok(()) };
        match &mut self.work {
            Work::Surface(surface) => surface.take(output, true)?,
            Work::Cross { steps, .. } => steps.take(name, output.ts, bar.close),
        }
        Ok(())
    }

    fn batched(&self) -> Option<&Batched> {
        match &self.work {
            Work::Surface(surface) => surface.batched(),
            Work::Cross { .. } => None,
        }
    }

    fn left_out(&self) -> u64 {
        match &self.work {
            Work::Surface(surface) => surface.left_out,
            Work::Cross { steps, .. } => steps.left_out,
        }
    }

    fn conflated(&self) -> u64 {
        match &self.work {
            Work::Surface(surface) => surface.conflated(),
            Work::Cross { conflated, .. } => *conflated,
        }
    }

    fn compute(
        &mut self,
        watermark: Option<u64>,
        backend: &Arc<Accel>,
        shared: &Shared,
        out: &mut Rows,
    ) -> Result<(), String> {
        let (first, columns) = (self.first, &self.columns);
        match &mut self.work {
            Work::Surface(surface) => {
                let done = surface.compute(backend, |bar, count, values| {
                    let mut rest = values;
                    for (stream, columns) in (first..).zip(columns) {
                        let head = Output { stream, state: BarState::Final as u8, ..*bar };
                        let (own, behind) = rest.split_at((columns - 1).min(rest.len()));
                        out.push(head, std::iter::once(count as f64).chain(own.iter().copied()));
                        rest = behind;
                    }
                })?;
                shared.batches.fetch_add(u64::from(done > 0), Relaxed);
            }
            Work::Cross { cross, steps, width_ns, conflated } => {
                let Some(watermark) = watermark else { return Ok(()) };
                *conflated += steps.skip(watermark, cross.steps_at_once());
                let name = name_hash(self.bars.as_bytes());
                while let Some(step) = steps.next(watermark) {
                    let row = cross.row(steps, columns[0], backend);
                    shared.batches.fetch_add(1, Relaxed);
                    let head = Output {
                        name,
                        slot: slot_of(name),
                        // A function of the step alone: whoever computes it, and after whatever restarts.
                        sequence: step / (*width_ns).max(1),
                        ts: step,
                        stream: first,
                        state: BarState::Final as u8,
                        cause: Cause::Watermark as u8,
                        ..Output::default()
                    };
                    match row {
                        Ok(row) => out.push(head, row),
                        Err(error) => {
                            let learning = [0.0, 0.0].into_iter().chain(std::iter::repeat(f64::NAN));
                            out.push(head, learning.take(columns[0]));
                            shared.failed(&self.name, &error);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What there is from before is what would have been taken as it came: a bar that is amended later counts as it was, and one that came to
    /// be behind others does not count.
    #[test]
    fn bars_from_before_count_as_they_first_became_final() {
        const WIDTH: u64 = 1_000;
        let bar = |end: u64, close: i64, state: BarState, cause: Cause| {
            let mut bar = Output { ts: end, state: state as u8, cause: cause as u8, ..Output::default() };
            bar.kind = output_kind::BAR;
            // Where its close is, and how many trades it has.
            (bar.words[4], bar.words[11]) = (close as u64, 1);
            assert_eq!((bar.bar().close, bar.bar().trades), (close, 1));
            bar
        };
        let cross = Cross::Spectrum(super::super::cross::Spectrum::new(tidegate_regime::CrossOptions {
            rows: 4,
            shrink: 0.1,
        }));
        let mut class = Class {
            name: "corr.test".to_owned(),
            reads: 0,
            bars: "bars.1s".to_owned(),
            first: 1,
            columns: vec![10],
            symbols: Symbols::new(&[]),
            work: Work::Cross { cross, steps: Box::new(Steps::new(9, 9)), width_ns: WIDTH, conflated: 0 },
        };
        let records = [
            bar(WIDTH, 5, BarState::Final, Cause::Watermark),
            bar(2 * WIDTH, 6, BarState::Final, Cause::Late),
            bar(3 * WIDTH, 7, BarState::Final, Cause::Watermark),
            // Of this one nobody knows how it was at first.
            bar(4 * WIDTH, 8, BarState::Amended, Cause::Late),
        ];
        class.past("A", &records).unwrap();
        let Work::Cross { steps, .. } = &mut class.work else { panic!("it is a spectrum") };
        steps.begin(0);
        while steps.next(u64::MAX).is_some() {}
        assert_eq!(steps.last(9), [WIDTH, 3 * WIDTH, 4 * WIDTH]);
    }
}
