//! What each host did per window of time: traffic, flows, distinct peers, ports and names, sizes, failures, regularity.

pub mod sketch;

use self::sketch::{Distinct, NONE, Pauses, Pool, REGISTERS, Scale, Sizes};
use crate::regroup::{Dues, count};
use rkyv::with::AsOwned;
use std::borrow::Cow;
use std::collections::VecDeque;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{
    BarState, Cause, Context, Emit, Event, Fate, KeyMeta, Ledger, Operator, Output, Share, ShareError,
    WindowWidth, flag, kind, output_kind,
};

/// Names of a [`output_kind::HOST`] record's words, in order.
///
/// | word | meaning |
/// |---|---|
/// | `ts_open` | start of the window, ns |
/// | `packets` | packets in both directions |
/// | `bytes_in`, `bytes_out` | bytes received and sent |
/// | `flows` | flows that started |
/// | `peers`, `ports` | distinct peers and service ports: exact up to 32; above it an estimate, standard error 3.25 % |
/// | `unanswered` | connections the host asked for (SYN) less those answered (SYN and ACK) in the same window |
/// | `resets` | records with RST in either direction: refused, failed or torn down |
/// | `names` | distinct names it looked up, counted like peers |
/// | `bytes_p50`, `bytes_p99` | bytes that half, and 99 of 100, of its records do not pass (nearest rank): packets of a capture, directions of flows of a log; exact for up to 24 records, then off by a sixteenth at most |
/// | `regularity` | how evenly the connections it opened follow each other: 1,000 as a clock, about 500 by chance, less in bunches; 0 for fewer than five of them |
/// | `frame_first`, `frame_last` | input frames of the first and last record |
/// | `missing` | events its source is known to have lost while the window was open |
pub const HOST_COLUMNS: [&str; 16] = [
    "ts_open",
    "packets",
    "bytes_in",
    "bytes_out",
    "flows",
    "peers",
    "ports",
    "unanswered",
    "resets",
    "names",
    "bytes_p50",
    "bytes_p99",
    "regularity",
    "frame_first",
    "frame_last",
    "missing",
];

/// Which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// Width of a window, aligned to the epoch.
    pub width: WindowWidth,
    /// Most windows a host may hold open, at least 2: the watermark's lag over the width, and one more. A record that
    /// would open one more counts as [`Fate::OverBound`].
    pub open_max: u32,
}

const SECTION: &str = "hosts";

const TCP: u8 = 6;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[derive(Clone, Copy, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Window {
    start: u64,
    packets: u64,
    bytes_in: u64,
    bytes_out: u64,
    flows: u64,
    asked: u64,
    answered: u64,
    resets: u64,
    frame_first: u64,
    frame_last: u64,
    opened: Pauses,
    peers: Distinct,
    ports: Distinct,
    sizes: Sizes,
    names: Distinct,
    /// Next open window of the host, or next free place.
    next: u32,
}

/// Hosts that opened a window, in the order they did: closing walks this, not all hosts.
#[derive(Clone, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Due {
    start: u64,
    keys: Vec<u32>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Saved<'a> {
    width: u64,
    #[rkyv(with = AsOwned)]
    heads: Cow<'a, [u32]>,
    #[rkyv(with = AsOwned)]
    windows: Cow<'a, [Window]>,
    window_free: u32,
    #[rkyv(with = AsOwned)]
    registers: Cow<'a, [u8]>,
    #[rkyv(with = AsOwned)]
    sketch_free: Cow<'a, [u32]>,
    due: Vec<Due>,
    delivered: u64,
    by_fate: [u64; tidegate_engine::ledger::FATE_COUNT],
}

/// Tumbling windows over [`kind::FLOW`] and [`kind::NAME`] events of each host. Closed by the watermark; records of one window are written
/// in the order in which its hosts first appeared. Late events count as [`Fate::LateDropped`].
pub struct HostWindows {
    width: u64,
    open_max: u32,
    heads: Vec<u32>,
    windows: Vec<Window>,
    window_free: u32,
    pool: Pool,
    due: VecDeque<Due>,
    due_spare: Vec<Vec<u32>>,
    scale: Scale,
    ledger: Ledger,
}

impl HostWindows {
    /// Most bytes of state an open window of a host can take: its record and four sketches.
    pub const BYTES_PER_WINDOW_MAX: usize = Self::BYTES_PER_WINDOW + 4 * REGISTERS;
    /// The same of a host with few peers, ports, names and records.
    pub const BYTES_PER_WINDOW: usize = size_of::<Window>();

    /// Windows of `options.width`.
    #[must_use]
    pub fn new(options: HostOptions) -> Self {
        Self {
            width: options.width.ns(),
            open_max: options.open_max.max(2),
            heads: Vec::new(),
            windows: Vec::new(),
            window_free: NONE,
            pool: Pool::default(),
            due: VecDeque::new(),
            due_spare: Vec::new(),
            scale: Scale::default(),
            ledger: Ledger::default(),
        }
    }

    /// A saved state, of which every place is one.
    fn read(&self, snapshot: &[u8]) -> Result<Saved<'static>, SnapshotError> {
        let saved: Saved<'static> = snapshot::read(snapshot, SECTION)?;
        if saved.width != self.width {
            return Err(SnapshotError::Section { section: SECTION, problem: "of another width" });
        }
        let place = |at: u32| at == NONE || (at as usize) < saved.windows.len();
        let sketch = |at: u32| at == NONE || (at as usize + 1) * REGISTERS <= saved.registers.len();
        let set = |set: &Distinct| set.is_sound() && sketch(set.block);
        let sets = |w: &Window| [&w.peers, &w.ports, &w.names].into_iter().all(set);
        let sound = saved.heads.iter().all(|&head| place(head))
            && place(saved.window_free)
            && saved.windows.iter().all(|w| {
                place(w.next) && sets(w) && w.sizes.is_sound() && sketch(w.sizes.block) && w.opened.is_sound()
            })
            && saved.sketch_free.iter().all(|&at| sketch(at) && at != NONE)
            && saved.due.iter().flat_map(|due| &due.keys).all(|&key| (key as usize) < saved.heads.len());
        if !sound {
            return Err(SnapshotError::Section { section: SECTION, problem: "not valid state" });
        }
        Ok(saved)
    }

    fn take(&mut self, context: &Context, event: &Event) {
        if !matches!(event.kind, kind::FLOW | kind::NAME) {
            return self.ledger.count(Fate::NotMine);
        }
        let Some(&head) = self.heads.get(event.key as usize) else {
            return self.ledger.count(Fate::Undefined);
        };
        let start = event.ts_event - event.ts_event % self.width;
        let place = if head != NONE && self.windows[head as usize].start == start {
            head
        } else {
            if start.saturating_add(self.width) <= context.watermark() {
                return self.ledger.count(Fate::LateDropped);
            }
            match self.open(event.key, start, context.frame()) {
                Some(place) => place,
                None => return self.ledger.count(Fate::OverBound),
            }
        };
        let window = &mut self.windows[place as usize];
        window.frame_last = context.frame();
        if event.kind == kind::NAME {
            let name = event.as_name().name;
            return window.names.add((name ^ name >> 32) as u32, &mut self.pool);
        }
        let flow = event.as_flow();
        let outbound = event.flags & flag::FLOW_OUTBOUND != 0;
        window.packets += u64::from(flow.packets);
        let bytes = if outbound { &mut window.bytes_out } else { &mut window.bytes_in };
        *bytes += u64::from(flow.bytes);
        window.flows += u64::from(event.flags & flag::FLOW_START != 0);
        let is_record = event.flags & flag::FLOW_RECORD != 0;
        let mut opens = outbound && event.flags & flag::FLOW_ORIGINATOR != 0;
        if flow.protocol == TCP {
            let (syn, ack) = (flow.tcp_flags & SYN != 0, flow.tcp_flags & ACK != 0);
            opens = if is_record { opens } else { outbound && syn && !ack };
            if is_record {
                // One record has the flags of the whole connection: no ACK means that nobody answered.
                window.asked += u64::from(syn && !ack && event.flags & flag::FLOW_ORIGINATOR != 0);
            } else {
                window.asked += u64::from(syn && !ack && outbound);
                window.answered += u64::from(syn && ack && !outbound);
            }
            window.resets += u64::from(flow.tcp_flags & RST != 0);
        } else {
            opens &= event.flags & flag::FLOW_START != 0;
        }
        if opens {
            window.opened.add(event.ts_event);
        }
        window.sizes.add(flow.bytes, &mut self.pool);
        window.peers.add(flow.peer, &mut self.pool);
        window.ports.add(u32::from(flow.port), &mut self.pool);
    }

    /// The open window of `key` at `start`, opened if the host may.
    fn open(&mut self, key: u32, start: u64, frame: u64) -> Option<u32> {
        let (mut place, mut held) = (self.heads[key as usize], 0);
        while place != NONE {
            if self.windows[place as usize].start == start {
                return Some(place);
            }
            place = self.windows[place as usize].next;
            held += 1;
        }
        if held >= self.open_max {
            return None;
        }
        // The newest window comes first: nearly all records find it there.
        let head = self.heads[key as usize];
        let newest = head == NONE || start > self.windows[head as usize].start;
        let next = if newest { head } else { self.windows[head as usize].next };
        let window = Window {
            start,
            packets: 0,
            bytes_in: 0,
            bytes_out: 0,
            flows: 0,
            asked: 0,
            answered: 0,
            resets: 0,
            frame_first: frame,
            frame_last: frame,
            opened: Pauses::default(),
            peers: Distinct::EMPTY,
            ports: Distinct::EMPTY,
            sizes: Sizes::EMPTY,
            names: Distinct::EMPTY,
            next,
        };
        let place = if self.window_free == NONE {
            self.windows.push(window);
            self.windows.len() as u32 - 1
        } else {
            let place = self.window_free;
            self.window_free = std::mem::replace(&mut self.windows[place as usize], window).next;
            place
        };
        if newest {
            self.heads[key as usize] = place;
        } else {
            self.windows[head as usize].next = place;
        }
        self.note_due(key, start);
        Some(place)
    }

    fn note_due(&mut self, key: u32, start: u64) {
        let at = self.due.iter().rposition(|due| due.start <= start).map_or(0, |at| at + 1);
        if at > 0 && self.due[at - 1].start == start {
            return self.due[at - 1].keys.push(key);
        }
        let mut keys = self.due_spare.pop().unwrap_or_default();
        keys.push(key);
        self.due.insert(at, Due { start, keys });
    }

    /// Unlinks the window of `key` at `start`; its place is the caller's to free.
    fn unlink(&mut self, key: u32, start: u64) -> Option<u32> {
        let (mut before, mut place) = (NONE, self.heads[key as usize]);
        while place != NONE {
            let Window { start: found, next, .. } = self.windows[place as usize];
            if found == start {
                match before {
                    NONE => self.heads[key as usize] = next,
                    _ => self.windows[before as usize].next = next,
                }
                return Some(place);
            }
            (before, place) = (place, next);
        }
        None
    }

    fn close(&mut self, context: &Context, key: u32, start: u64, cause: Cause, out: &mut Emit<'_>) {
        let Some(place) = self.unlink(key, start) else { return };
        let window = &mut self.windows[place as usize];
        window.next = std::mem::replace(&mut self.window_free, place);
        let (meta, end) = (context.keys()[key as usize], start.saturating_add(self.width));
        let [peers, ports, names] =
            [&window.peers, &window.ports, &window.names].map(|set| set.count(&self.pool, &self.scale));
        let [median, most] = window.sizes.percentiles([50, 99], &self.pool);
        for block in [window.peers.block, window.ports.block, window.names.block, window.sizes.block] {
            self.pool.give_back(block);
        }
        let mut words = [0; OUTPUT_WORDS];
        words[..HOST_COLUMNS.len()].copy_from_slice(&[
            start,
            window.packets,
            window.bytes_in,
            window.bytes_out,
            window.flows,
            peers,
            ports,
            window.asked.saturating_sub(window.answered),
            window.resets,
            names,
            median,
            most,
            window.opened.per_mille(),
            window.frame_first,
            window.frame_last,
            context.missing(meta.source, start, end),
        ]);
        out.push(Output {
            name: meta.name,
            ts: end,
            slot: meta.slot,
            kind: output_kind::HOST,
            state: BarState::Final as u8,
            cause: cause as u8,
            count: HOST_COLUMNS.len() as u8,
            words,
            key,
            ..Output::default()
        });
    }
}

impl Operator for HostWindows {
    fn on_events(&mut self, context: &Context, events: &[Event], _: &mut Emit<'_>) {
        if self.heads.len() < context.keys().len() {
            self.heads.resize(context.keys().len(), NONE);
        }
        let counted = self.ledger.counted();
        for event in events {
            self.take(context, event);
        }
        self.ledger.close_batch(events.len() as u64, counted);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        let cause = match (context.ended(), context.idle_close()) {
            (true, _) => Cause::End,
            (_, true) => Cause::Idle,
            _ => Cause::Watermark,
        };
        let (width, watermark) = (self.width, context.watermark());
        while self.due.front().is_some_and(|due| due.start.saturating_add(width) <= watermark) {
            let Some(Due { start, mut keys }) = self.due.pop_front() else { break };
            for &key in &keys {
                self.close(context, key, start, cause, out);
            }
            keys.clear();
            self.due_spare.push(keys);
        }
    }

    fn ledger(&self) -> Ledger {
        self.ledger
    }

    fn save(&self, snapshot: &mut Vec<u8>) {
        let saved = Saved {
            width: self.width,
            heads: Cow::Borrowed(&self.heads),
            windows: Cow::Borrowed(&self.windows),
            window_free: self.window_free,
            registers: Cow::Borrowed(&self.pool.blocks),
            sketch_free: Cow::Borrowed(&self.pool.free),
            due: self.due.iter().cloned().collect(),
            delivered: self.ledger.delivered,
            by_fate: self.ledger.by_fate,
        };
        snapshot::append(snapshot, &saved);
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let saved = self.read(snapshot)?;
        self.heads = saved.heads.into_owned();
        (self.windows, self.window_free) = (saved.windows.into_owned(), saved.window_free);
        self.pool = Pool { blocks: saved.registers.into_owned(), free: saved.sketch_free.into_owned() };
        self.due = saved.due.into();
        self.ledger = Ledger { delivered: saved.delivered, by_fate: saved.by_fate };
        Ok(())
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        let (mut open, mut pools, mut dues) = (Vec::new(), Vec::new(), Dues::default());
        for (at, share) in shares.iter().enumerate() {
            let saved = self.read(share.state())?;
            for (old, new) in share.keys() {
                let (mut next, mut left) = (saved.heads.get(old).copied().unwrap_or(NONE), self.open_max);
                while let Some(window) = saved.windows.get(next as usize) {
                    if left == 0 {
                        return Err(
                            SnapshotError::Section { section: SECTION, problem: "not valid state" }.into()
                        );
                    }
                    left -= 1;
                    open.push((new, at, *window));
                    next = window.next;
                }
            }
            for Due { start, keys } in &saved.due {
                dues.take(*start, keys, share);
            }
            count(&mut self.ledger, share, saved.delivered, saved.by_fate);
            pools.push(Pool { blocks: saved.registers.into_owned(), free: Vec::new() });
        }
        // In the order of the keys, and of each key as its share had them: the first is found first.
        open.sort_by_key(|(key, ..)| *key);
        self.heads = vec![NONE; keys.len()];
        for (place, (key, share, window)) in open.iter().enumerate() {
            let more = open.get(place + 1).is_some_and(|(next, ..)| next == key);
            let mut window = Window { next: if more { place as u32 + 1 } else { NONE }, ..*window };
            for block in [
                &mut window.peers.block,
                &mut window.ports.block,
                &mut window.sizes.block,
                &mut window.names.block,
            ] {
                *block = self.pool.adopt(*block, &pools[*share]);
            }
            self.windows.push(window);
            if self.heads[*key] == NONE {
                self.heads[*key] = place as u32;
            }
        }
        self.due = dues.sorted(keys).map(|(start, keys)| Due { start, keys }).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use tidegate_engine::{FlowPayload, KeyMeta, Lane, NamePayload};

    /// Long enough for pauses of whole microseconds.
    const WIDTH: u64 = 10_000;

    fn hosts(open_max: u32) -> HostWindows {
        HostWindows::new(HostOptions { width: WindowWidth::from_ns(WIDTH).unwrap(), open_max })
    }

    fn context(count: u64) -> Context {
        Context::standalone((0..count).map(|name| KeyMeta { name, slot: 0, source: 0 }).collect())
    }

    fn written(work: impl FnOnce(&mut Emit<'_>)) -> Vec<Output> {
        let (mut lane, mut seen) = (Lane::new(0), Vec::new());
        let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
        let mut emit = Emit::new(&mut lane, &mut sink);
        work(&mut emit);
        emit.flush();
        seen
    }

    fn flow(ts: u64, key: u32, flags: u8, peer: u32, port: u16, tcp_flags: u8) -> Event {
        let payload =
            FlowPayload { peer, port, tcp_flags, bytes: 40 + peer, packets: 2, protocol: TCP, duration: 0 };
        Event::flow(ts, key, 0, flags, payload)
    }

    /// All but frames and `missing`, from the events of one window.
    fn row_of(all: &[Event]) -> [u64; 13] {
        let events: Vec<Event> = all.iter().filter(|event| event.kind == kind::FLOW).copied().collect();
        let names: BTreeSet<u64> =
            all.iter().filter(|event| event.kind == kind::NAME).map(|event| event.as_name().name).collect();
        let opened: Vec<u64> = events
            .iter()
            .filter(|e| outbound(e) && flags(e) & (SYN | ACK) == SYN)
            .map(|e| e.ts_event)
            .collect();
        let mut sizes: Vec<u64> = events.iter().map(|event| u64::from(event.as_flow().bytes)).collect();
        sizes.sort_unstable();
        let size = |percent: usize| {
            sizes.get((percent * sizes.len()).div_ceil(100).max(1) - 1).copied().unwrap_or(0)
        };
        let sum = |of: &dyn Fn(&Event) -> u64| events.iter().map(of).sum::<u64>();
        let distinct =
            |of: &dyn Fn(&Event) -> u32| events.iter().map(of).collect::<BTreeSet<_>>().len() as u64;
        let asked = sum(&|e| u64::from(outbound(e) && flags(e) & (SYN | ACK) == SYN));
        let answered = sum(&|e| u64::from(!outbound(e) && flags(e) & (SYN | ACK) == SYN | ACK));
        [
            all[0].ts_event / WIDTH * WIDTH,
            2 * events.len() as u64,
            sum(&|e| if outbound(e) { 0 } else { u64::from(e.as_flow().bytes) }),
            sum(&|e| if outbound(e) { u64::from(e.as_flow().bytes) } else { 0 }),
            sum(&|e| u64::from(e.flags & flag::FLOW_START != 0)),
            distinct(&|e| e.as_flow().peer),
            distinct(&|e| u32::from(e.as_flow().port)),
            asked.saturating_sub(answered),
            sum(&|e| u64::from(flags(e) & RST != 0)),
            names.len() as u64,
            size(50),
            size(99),
            regularity(&opened),
        ]
    }

    fn outbound(event: &Event) -> bool {
        event.flags & flag::FLOW_OUTBOUND != 0
    }

    fn flags(event: &Event) -> u8 {
        event.as_flow().tcp_flags
    }

    /// The square of the mean pause over the mean of squares, from the instants in whole microseconds, as they came.
    fn regularity(instants: &[u64]) -> u64 {
        let mut latest = 0;
        let pauses: Vec<u64> = instants
            .iter()
            .map(|ts| ts / 1_000)
            .enumerate()
            .filter_map(|(at, now)| {
                let pause = now.saturating_sub(latest);
                latest = latest.max(now);
                (at > 0).then_some(pause)
            })
            .collect();
        let (sum, squares) = (pauses.iter().sum::<u64>(), pauses.iter().map(|p| p * p).sum::<u64>());
        if pauses.len() < 4 || squares == 0 { 0 } else { 1_000 * sum * sum / (pauses.len() as u64 * squares) }
    }

    proptest! {
        #[test]
        fn windows_equal_the_obvious_model(
            steps in prop::collection::vec((0u32..3, 0u64..25, 0u8..8, 0u32..30, 0u16..30, 0u8..32, 0u64..4), 1..200),
            cut in 0usize..200,
        ) {
            let (mut context, mut operator) = (context(3), hosts(8));
            let mut model: BTreeMap<(u64, u32), Vec<Event>> = BTreeMap::new();
            let (mut seen, mut late, mut now) = (Vec::new(), 0, 0);
            for (at, &(key, back, flags, peer, port, tcp_flags, advance)) in steps.iter().enumerate() {
                if at == cut {
                    let mut bytes = Vec::new();
                    operator.save(&mut bytes);
                    operator = hosts(8);
                    operator.restore(&bytes).unwrap();
                }
                now += advance * 1_000;
                let ts = (now + 15_000).saturating_sub(back * 1_000);
                let mut event = flow(ts, key, flags, peer, port, tcp_flags);
                if tcp_flags == 31 {
                    event = Event::name(ts, key, 0, NamePayload { name: u64::from(peer), ..NamePayload::default() });
                }
                let start = event.ts_event / WIDTH * WIDTH;
                if start + WIDTH <= context.watermark() {
                    late += 1;
                } else {
                    model.entry((start, key)).or_default().push(event);
                }
                seen.extend(written(|emit| operator.on_events(&context, &[event], emit)));
                if context.advance(now) {
                    seen.extend(written(|emit| operator.on_watermark(&context, emit)));
                }
            }
            context.end();
            seen.extend(written(|emit| operator.on_watermark(&context, emit)));
            let starts: Vec<u64> = seen.iter().map(|output| output.words[0]).collect();
            prop_assert!(starts.is_sorted());
            let mut rows: Vec<_> = seen.iter().map(|o| ((o.words[0], o.key), o.words[..13].to_vec())).collect();
            rows.sort();
            // Sizes of many records are told as near as stated.
            for ((_, row), events) in rows.iter_mut().zip(model.values()) {
                let exact = row_of(events);
                for column in [10, 11] {
                    let many = events.len() > sketch::SIZES_MAX;
                    if many && row[column].abs_diff(exact[column]) <= exact[column] / 16 {
                        row[column] = exact[column];
                    }
                }
            }
            let expected: Vec<_> = model.iter().map(|(at, events)| (*at, row_of(events).to_vec())).collect();
            prop_assert_eq!(rows, expected);
            prop_assert_eq!(operator.ledger().of(Fate::LateDropped), late);
            prop_assert_eq!(operator.ledger().imbalance(), 0);
        }
    }

    #[test]
    fn estimates_stay_within_four_standard_errors() {
        let mut squares = 0.0;
        let mut runs = 0.0;
        for (run, distinct) in
            [33u32, 100, 500, 1_000, 2_000, 3_000, 5_000, 20_000, 60_000].into_iter().enumerate()
        {
            let (mut context, mut operator) = (context(1), hosts(2));
            for salt in 0..20u32 {
                let peer =
                    |at: u32| at.wrapping_mul(2_654_435_761).wrapping_add(salt * 7_777_777 + run as u32);
                let events: Vec<Event> =
                    (0..distinct).map(|at| flow(u64::from(salt) * WIDTH, 0, 0, peer(at), 443, 0)).collect();
                let rows = written(|emit| {
                    operator.on_events(&context, &events, emit);
                    operator.on_events(&context, &events, emit); // seen again, counted once
                    context.advance((u64::from(salt) + 1) * WIDTH);
                    operator.on_watermark(&context, emit);
                });
                let error = rows[0].words[5] as f64 / f64::from(distinct) - 1.0;
                assert!(error.abs() < 4.0 * 0.0325, "{distinct}: off by {error}");
                assert!(rows[0].words[5] > sketch::EXACT_MAX as u64);
                assert_eq!(rows[0].words[6], 1);
                squares += error * error;
                runs += 1.0;
            }
            assert_eq!(
                operator.pool.blocks.len(),
                2 * REGISTERS,
                "a sketch of peers and one of sizes, recycled"
            );
            assert_eq!(operator.windows.len(), 1);
        }
        let deviation = f64::sqrt(squares / runs);
        assert!(deviation < 0.0325, "root mean square error {deviation}");
    }

    #[test]
    fn bounds_are_counted() {
        let (context, mut operator) = (context(1), hosts(2));
        let events = [1_000, 11_000, 21_000, 2_000].map(|ts| flow(ts, 0, 0, 1, 1, 0));
        written(|emit| operator.on_events(&context, &events, emit));
        assert_eq!((operator.ledger().of(Fate::OverBound), operator.ledger().of(Fate::Applied)), (1, 3));
        const { assert!(HostWindows::BYTES_PER_WINDOW <= 768 && HostWindows::BYTES_PER_WINDOW_MAX <= 5_000) };
    }
}
