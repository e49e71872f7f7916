//! Streams that a thread of this process computes from the records of others, outside of the shards: what is derived from many keys at
//! once, or on a device. Nothing of it is state of the log: whoever computes it begins with what the hub has kept, and every record
//! reaches it once, in the order in which it was published, over a ring; the results come back over another one. Whoever only looks at
//! results in their order of time, as rules do, watches: the same, with no results of its own.

use crate::egress::{DRAIN_MAX, Wake};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_engine::{FullPolicy, Output, Receiver, Sender, output_kind, ring};
use tidegate_proto::hub::{Hub, StreamMeta, TapId};

/// Records on their way to who computes, 168 bytes each, and results on their way back.
const BARS_RING: usize = 1 << 14;
const ROWS_RING: usize = 1 << 13;
/// Records that wait for a place in the ring; beyond it they are lost to who computes, and counted.
const WAITING_MAX: usize = 1 << 18;
/// Watermarks on their way to who computes that are told apart; of more, the newest stand for those before them.
const MARKS_MAX: usize = 1_024;

/// What is to be computed.
#[derive(Debug, Clone, Default)]
pub struct Derive {
    /// Numbers of such streams that end.
    pub ended: Vec<u16>,
    /// Those that begin.
    pub coming: Vec<StreamMeta>,
    /// Keys of theirs that no feed names.
    pub keys: Vec<String>,
    /// Numbers of the streams they are computed from.
    pub reads: Vec<u16>,
    /// Records of each key of these that are known from before, at most.
    pub past: usize,
}

/// A key's records from before, oldest first, one for each window in its last revision.
#[derive(Debug, Clone)]
pub struct KeyPast {
    /// The stream.
    pub stream: u16,
    /// The key's name.
    pub name: Box<str>,
    /// Its records.
    pub records: Vec<Output>,
}

/// What it begins with.
pub struct Began {
    /// The number of the first stream that begins; the others follow.
    pub first: u16,
    /// What came before.
    pub past: Vec<KeyPast>,
    /// Event time up to which the past is complete; 0 where nobody knows.
    pub watermark: u64,
    /// What comes from now on.
    pub from_hub: FromHub,
    /// Where results go.
    pub to_hub: ToHub,
}

/// Records of the streams that are read, as they are published, and between them markers ([`output_kind::WATERMARK`]) of how far they are
/// complete on all shards.
pub struct FromHub {
    bars: Receiver<Output>,
    lost: Arc<AtomicU64>,
}

impl FromHub {
    /// The ring itself.
    pub fn ring(&mut self) -> &mut Receiver<Output> {
        &mut self.bars
    }

    /// Records that did not come because too many waited.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The way of results to the readers.
pub struct ToHub {
    rows: Sender<Output>,
    done: Arc<AtomicU64>,
    waker: Wake,
}

impl ToHub {
    /// Hands results over, waiting while there is no room: the hub always reads on. Each has a number above those before it of its stream
    /// and slot. Returns `false` once the server has ended.
    pub fn send(&mut self, mut rows: &[Output]) -> bool {
        while !rows.is_empty() {
            let taken = self.rows.offer(rows);
            rows = &rows[taken..];
            self.waker.wake();
            if self.rows.is_abandoned() {
                return false;
            }
            if taken == 0 {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
        true
    }

    /// Everything that followed from the first `received` records of the ring has been handed over. The end of the server waits for
    /// that, for a bounded time.
    pub fn done(&self, received: u64) {
        self.done.store(received, Ordering::Release);
        self.waker.wake();
    }
}

/// Hands results to the readers. Returns whether there were any.
pub(crate) fn publish(rows: &mut Receiver<Output>, hub: &mut Hub) -> bool {
    rows.drain(DRAIN_MAX, |run| hub.publish(run)) > 0
}

/// The hub's side.
pub(crate) struct Link {
    tap: TapId,
    bars: Sender<Output>,
    rows: Receiver<Output>,
    done: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    /// The watermark said last.
    said: u64,
    /// Whether what was copied waits for room in the ring.
    full: bool,
    /// Watermarks that were said, each with the number of records handed out by then, oldest first.
    marks: VecDeque<(u64, u64)>,
    /// Event time up to which everything that follows from what was handed out has been published.
    complete: u64,
}

impl Link {
    pub(crate) fn begin(hub: &mut Hub, asked: &Derive, first: u16, waker: &Wake) -> (Self, Began) {
        let (bars, from_hub) = ring(BARS_RING, FullPolicy::Wait);
        let (to_hub, rows) = ring(ROWS_RING, FullPolicy::Wait);
        let (done, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let tap = hub.tap(&asked.reads, WAITING_MAX);
        asked.keys.iter().for_each(|key| hub.define(key));
        let mut past: Vec<KeyPast> = Vec::new();
        for &stream in &asked.reads {
            hub.lookback_all(stream, asked.past, &mut |name, output| match past.last_mut() {
                Some(last) if last.stream == stream && *last.name == *name => last.records.push(*output),
                _ => past.push(KeyPast { stream, name: name.into(), records: vec![*output] }),
            });
        }
        let watermark = hub.watermark();
        let link = Self {
            tap,
            bars,
            rows,
            done: Arc::clone(&done),
            lost: Arc::clone(&lost),
            // The present one is said too: with it, what is known from before is done.
            said: 0,
            full: false,
            marks: VecDeque::new(),
            complete: 0,
        };
        let from_hub = FromHub { bars: from_hub, lost };
        let to_hub = ToHub { rows: to_hub, done, waker: waker.clone() };
        (link, Began { first, past, watermark, from_hub, to_hub })
    }

    /// Moves what there is, both ways. Nothing is said to be complete behind `until`. Returns whether records went out, and whether results
    /// came in.
    pub(crate) fn turn(&mut self, hub: &mut Hub, until: u64) -> (bool, bool) {
        let mut moved = false;
        self.full = false;
        if let Some(tapped) = hub.tapped(self.tap) {
            while !self.full && !tapped.is_empty() {
                let run = tapped.as_slices().0;
                let taken = self.bars.offer(run);
                self.full = taken < run.len();
                moved |= taken > 0;
                tapped.drain(..taken);
            }
        }
        let watermark = hub.watermark().min(until);
        if !self.full && watermark > self.said {
            let marker = Output { kind: output_kind::WATERMARK, ts: watermark, ..Output::default() };
            if self.bars.offer(&[marker]) == 1 {
                self.said = watermark;
                moved = true;
                if self.marks.len() == MARKS_MAX {
                    self.marks.pop_back();
                }
                self.marks.push_back((self.bars.sent(), watermark));
            } else {
                self.full = true;
            }
        }
        self.lost.store(hub.tap_lost(self.tap), Ordering::Relaxed);
        // First the count: results were put into the ring before it.
        let done = self.done.load(Ordering::Acquire);
        let came = publish(&mut self.rows, hub);
        if self.rows.depth() == 0 {
            while let Some((_, watermark)) = self.marks.pop_front_if(|(sent, _)| *sent <= done) {
                self.complete = watermark;
            }
        }
        (moved, came)
    }

    /// Event time up to which everything that follows from the records handed out has been published.
    pub(crate) fn complete(&self) -> u64 {
        self.complete
    }

    /// Somebody else computes from now on: who did so is told by the end of the ring, and what is on its way still counts.
    pub(crate) fn retire(self, hub: &mut Hub) -> Receiver<Output> {
        hub.untap(self.tap);
        self.rows
    }

    /// Nothing is copied any more.
    pub(crate) fn end(&self, hub: &mut Hub) {
        hub.untap(self.tap);
    }

    /// Whether who computes has left.
    pub(crate) fn is_over(&self) -> bool {
        self.bars.is_abandoned() || self.rows.is_finished()
    }

    pub(crate) fn has_work(&self) -> bool {
        let is_done = || self.done.load(Ordering::Acquire);
        self.rows.has_work()
            || (self.full && self.bars.free() > 0)
            || self.marks.front().is_some_and(|(sent, _)| *sent <= is_done())
    }

    /// Whether everything that was handed out has come back as results.
    pub(crate) fn is_even(&self) -> bool {
        // First the count: results were put into the ring before it.
        let done = self.done.load(Ordering::Acquire);
        self.is_over() || (!self.full && done == self.bars.sent() && self.rows.depth() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidegate_engine::{BarState, name_hash, slot_of};
    use tidegate_proto::StreamKind;
    use tidegate_proto::hub::HubOptions;
    use tokio::sync::Notify;

    fn meta(name: &str) -> StreamMeta {
        StreamMeta { name: name.to_owned(), kind: StreamKind::Values, columns: vec!["x".to_owned()] }
    }

    fn record(stream: u16, sequence: u64) -> Output {
        let name = name_hash(b"A");
        Output {
            name,
            slot: slot_of(name),
            stream,
            sequence,
            ts: sequence,
            kind: output_kind::VALUES,
            state: BarState::Final as u8,
            count: 1,
            ..Output::default()
        }
    }

    fn begin(hub: &mut Hub) -> (Link, Began) {
        let first = hub.announce(&[], vec![meta("derived")]).unwrap().first;
        hub.switch(&[]);
        let asked = Derive { reads: vec![0], past: 8, ..Derive::default() };
        Link::begin(hub, &asked, first, &Wake::Task(Arc::new(Notify::new())))
    }

    fn hub() -> Hub {
        let mut hub = Hub::new(vec![meta("bars")], HubOptions::default()).unwrap();
        hub.define("A");
        hub
    }

    fn taken(began: &mut Began) -> Vec<Output> {
        let mut all = Vec::new();
        began.from_hub.ring().drain(usize::MAX, |run| all.extend_from_slice(run));
        all
    }

    #[test]
    fn each_record_comes_once_and_the_watermark_behind_what_it_is_of() {
        let mut hub = hub();
        hub.publish(&[record(0, 1), record(0, 2)]);
        hub.set_watermark(2);
        let (mut link, mut began) = begin(&mut hub);
        assert_eq!((began.first, began.watermark, began.past[0].records.len()), (1, 2, 2));
        hub.publish(&[record(0, 3), record(1, 9)]);
        hub.set_watermark(3);
        assert_eq!(link.turn(&mut hub, u64::MAX), (true, false));
        let kinds: Vec<(u8, u64)> = taken(&mut began).iter().map(|output| (output.kind, output.ts)).collect();
        assert_eq!(kinds, [(output_kind::VALUES, 3), (output_kind::WATERMARK, 3)]);
        // What follows from it is waited for, and is delivered.
        assert!(!link.is_even() && !link.has_work());
        assert!(began.to_hub.send(&[record(1, 10)]));
        began.to_hub.done(began.from_hub.ring().received());
        assert!(!link.is_even() && link.has_work());
        assert_eq!(link.turn(&mut hub, u64::MAX), (false, true));
        assert!(link.is_even());
        assert_eq!(hub.latest(1, "A").map(|output| output.sequence), Some(10));
    }

    #[test]
    fn what_follows_is_complete_when_it_has_been_published() {
        let mut hub = hub();
        let (mut link, mut began) = begin(&mut hub);
        hub.publish(&[record(0, 3)]);
        hub.set_watermark(3);
        link.turn(&mut hub, u64::MAX);
        hub.publish(&[record(0, 5)]);
        hub.set_watermark(5);
        link.turn(&mut hub, u64::MAX);
        assert_eq!((taken(&mut began).len(), link.complete()), (4, 0));
        // The first record and its watermark.
        assert!(began.to_hub.send(&[record(1, 3)]));
        began.to_hub.done(2);
        link.turn(&mut hub, u64::MAX);
        assert_eq!(link.complete(), 3);
        // Who watches both streams hears of no later time than both have reached.
        let asked = Derive { reads: vec![0, 1], ..Derive::default() };
        let (mut watched, mut watching) =
            Link::begin(&mut hub, &asked, 0, &Wake::Task(Arc::new(Notify::new())));
        hub.publish(&[record(0, 7)]);
        hub.set_watermark(7);
        link.turn(&mut hub, u64::MAX);
        watched.turn(&mut hub, link.complete());
        let kinds =
            |all: Vec<Output>| all.iter().map(|one| (one.kind, one.stream, one.ts)).collect::<Vec<_>>();
        assert_eq!(
            kinds(taken(&mut watching)),
            [(output_kind::VALUES, 0, 7), (output_kind::WATERMARK, 0, 3)]
        );
        taken(&mut began);
        assert!(began.to_hub.send(&[record(1, 5), record(1, 7)]));
        began.to_hub.done(began.from_hub.ring().received());
        link.turn(&mut hub, u64::MAX);
        watched.turn(&mut hub, link.complete());
        let all = [(output_kind::VALUES, 1, 5), (output_kind::VALUES, 1, 7), (output_kind::WATERMARK, 0, 7)];
        assert_eq!(kinds(taken(&mut watching)), all);
    }

    #[test]
    fn however_many_watermarks_are_under_way_few_are_remembered() {
        let mut hub = hub();
        let (mut link, mut began) = begin(&mut hub);
        let last = 3 * MARKS_MAX as u64;
        for at in 1..=last {
            hub.set_watermark(at);
            link.turn(&mut hub, u64::MAX);
        }
        assert_eq!(link.marks.len(), MARKS_MAX);
        assert_eq!(taken(&mut began).len() as u64, last);
        // Those in the middle are passed with the last.
        for (done, complete) in [(10, 10), (last - 1, MARKS_MAX as u64 - 1), (last, last)] {
            began.to_hub.done(done);
            link.turn(&mut hub, u64::MAX);
            assert_eq!(link.complete(), complete);
        }
    }

    #[test]
    fn what_waits_comes_later_and_what_is_too_much_is_counted() {
        let mut hub = hub();
        let (mut link, mut began) = begin(&mut hub);
        let beyond = 7;
        let all: Vec<Output> = (1..=(WAITING_MAX + beyond) as u64).map(|at| record(0, at)).collect();
        hub.publish(&all);
        hub.set_watermark(1);
        assert_eq!(link.turn(&mut hub, u64::MAX), (true, false));
        assert_eq!(began.from_hub.lost(), beyond as u64);
        let mut numbers = Vec::new();
        while !link.is_even() {
            numbers.extend(taken(&mut began).iter().map(|output| (output.kind, output.sequence)));
            began.to_hub.done(began.from_hub.ring().received());
            link.turn(&mut hub, u64::MAX);
        }
        assert_eq!(numbers.len(), WAITING_MAX + 1);
        assert!(numbers[..WAITING_MAX].iter().map(|(_, number)| *number).eq(1..=WAITING_MAX as u64));
        assert_eq!(numbers.last(), Some(&(output_kind::WATERMARK, 0)));
    }

    #[test]
    fn who_is_replaced_is_told_and_what_it_sent_still_counts() {
        let mut hub = hub();
        let (link, mut began) = begin(&mut hub);
        assert!(began.to_hub.send(&[record(1, 1)]));
        let mut retired = link.retire(&mut hub);
        assert!(began.from_hub.ring().is_finished());
        assert!(publish(&mut retired, &mut hub) && !retired.is_finished());
        assert_eq!(hub.latest(1, "A").map(|output| output.sequence), Some(1));
        drop(began);
        assert!(retired.is_finished());
        // Without anybody at the other end nothing is held up.
        let (link, began) = begin_again(&mut hub);
        drop(began);
        assert!(link.is_over() && link.is_even());
    }

    fn begin_again(hub: &mut Hub) -> (Link, Began) {
        let asked = Derive { reads: vec![0], ..Derive::default() };
        Link::begin(hub, &asked, 1, &Wake::Task(Arc::new(Notify::new())))
    }
}
