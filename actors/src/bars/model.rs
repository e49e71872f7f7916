//! The slow, obvious model: every trade of every window is kept in a list, and a bar is computed from the list anew
//! each time one is written.

use std::collections::BTreeMap;
use tidegate_engine::{Event, flag, kind};

/// A bar as the model sees it: open, high, low, close, trades, volume, buy volume, notional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelBar {
    pub(super) key: u32,
    pub(super) start: u64,
    pub(super) prices: [i64; 4],
    pub(super) trades: u64,
    pub(super) sums: (u128, u128, i128),
    pub(super) revision: u64,
}

fn bar(key: u32, start: u64, trades: &[Event], revision: u64, by_time: bool) -> ModelBar {
    let mut ordered: Vec<&Event> = trades.iter().collect();
    if by_time {
        ordered.sort_by_key(|event| event.ts_event); // stable: arrival decides among equal stamps
    }
    let prices = match (ordered.first(), ordered.last()) {
        (Some(first), Some(last)) => [
            first.price(),
            ordered.iter().map(|e| e.price()).max().unwrap(),
            ordered.iter().map(|e| e.price()).min().unwrap(),
            last.price(),
        ],
        _ => [0; 4],
    };
    let sum =
        |keep: fn(&&Event) -> bool| ordered.iter().copied().filter(keep).map(|e| u128::from(e.size())).sum();
    let notional = ordered.iter().map(|e| i128::from(e.price()) * i128::from(e.size())).sum();
    let sums = (sum(|_| true), sum(|e| e.flags & flag::BUY != 0), notional);
    ModelBar { key, start, prices, trades: ordered.len() as u64, sums, revision }
}

/// Time bars with policy amend: every record in the order it is written.
pub(super) fn time_bars(log: &[Event], width: u64, horizon: u64) -> Vec<ModelBar> {
    #[derive(Default)]
    struct Window {
        trades: Vec<Event>,
        opened: usize,
        closed: bool,
        revision: u64,
    }
    let mut windows: BTreeMap<(u32, u64), Window> = BTreeMap::new();
    let mut written = Vec::new();
    let mut watermark = 0;
    let mut opened = 0;
    for event in log {
        match event.kind {
            kind::WATERMARK | kind::END => {
                watermark = if event.kind == kind::END { u64::MAX } else { watermark.max(event.ts_event) };
                let mut due: Vec<_> = windows
                    .iter_mut()
                    .filter(|((_, start), window)| !window.closed && start + width <= watermark)
                    .collect();
                due.sort_by_key(|((_, start), window)| (*start, window.opened));
                for ((key, start), window) in due {
                    window.closed = true;
                    if !window.trades.is_empty() {
                        written.push(bar(*key, *start, &window.trades, 0, true));
                    }
                }
                // What cancels emptied before it closed was never seen, so nothing is left to amend.
                windows
                    .retain(|_, window| !window.closed || window.revision > 0 || !window.trades.is_empty());
            }
            kind::TRADE => {
                let start = event.ts_event - event.ts_event % width;
                let end = start + width;
                let within = end + horizon > watermark;
                let cancel = event.flags & flag::CANCEL != 0;
                let window = windows.get_mut(&(event.key, start));
                if cancel {
                    let Some(window) = window else { continue };
                    let same = |e: &Event| e.ts_event == event.ts_event && e.payload == event.payload;
                    let Some(at) = window.trades.iter().rposition(same) else { continue };
                    if window.closed && !within {
                        continue;
                    }
                    window.trades.remove(at);
                    if window.closed {
                        window.revision += 1;
                        written.push(bar(event.key, start, &window.trades, window.revision, true));
                    }
                } else if end <= watermark {
                    if !within {
                        continue;
                    }
                    let fresh = window.is_none();
                    let window = windows.entry((event.key, start)).or_default();
                    window.closed = true;
                    window.trades.push(*event);
                    window.revision += u64::from(!fresh);
                    written.push(bar(event.key, start, &window.trades, window.revision, true));
                } else {
                    opened += 1;
                    let window = windows
                        .entry((event.key, start))
                        .or_insert_with(|| Window { opened, ..Window::default() });
                    window.trades.push(*event);
                }
            }
            _ => {}
        }
    }
    written
}

/// Tick bars without cancels: chunks of each key's trades, in order of completion; partial ones last by key.
pub(super) fn tick_bars(log: &[Event], ticks: usize) -> Vec<ModelBar> {
    let mut open: BTreeMap<u32, (u64, Vec<Event>)> = BTreeMap::new();
    let mut written = Vec::new();
    for event in log.iter().filter(|event| event.kind == kind::TRADE) {
        let (start, trades) = open.entry(event.key).or_default();
        trades.push(*event);
        if trades.len() == ticks {
            written.push(bar(event.key, *start, trades, 0, false));
            *start += ticks as u64;
            trades.clear();
        }
    }
    written.extend(
        open.iter()
            .filter(|(_, (_, trades))| !trades.is_empty())
            .map(|(&key, (start, trades))| bar(key, *start, trades, 0, false)),
    );
    written
}
