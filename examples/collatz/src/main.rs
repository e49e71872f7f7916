//! A user-defined operator registered by name: Collatz sequence lengths with a bounded memo.
#![forbid(unsafe_code)]
use std::time::Instant;
use tidegate_actors::registry::{ParamError, Params, Registry};
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{Context, Emit, Event, Fate, KeyMeta, Lane, Ledger, Operator, Output};
use tidegate_engine::{kind::INTEGER, output_kind::INTEGERS};

/// Direct-mapped memo of (n, terms from n down to 1): a collision replaces, so it never grows.
struct Collatz(Vec<(u64, u32)>, Ledger);

impl Collatz {
    fn build(params: &Params) -> Result<Box<dyn Operator>, ParamError> {
        params.only(&["memo_bits"])?;
        let bits = params.read_or("memo_bits", 20u32, "log2 entries, 1 to 26", |n| (1..=26).contains(n))?;
        Ok(Box::new(Self(vec![(1, 1); 1 << bits], Ledger::default())))
    }

    /// Terms from `n` to 1; `None` when a term leaves 64 bits, or for 0, which never gets to 1.
    fn terms(&mut self, n: u64) -> Option<u32> {
        let (mask, mut term, mut steps) = (self.0.len() - 1, n.ne(&0).then_some(n)?, 0);
        while term != 1 && self.0[term as usize & mask].0 != term {
            let next = if term % 2 == 0 { u128::from(term / 2) } else { u128::from(term) * 3 + 1 };
            term = u64::try_from(next).ok()?;
            steps += 1;
        }
        let known = if term == 1 { 1 } else { self.0[term as usize & mask].1 };
        self.0[n as usize & mask] = (n, steps + known);
        Some(steps + known)
    }
}

impl Operator for Collatz {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        let counted = self.1.counted();
        for &Event { kind, key, ts_event: ts, payload: [n, _], .. } in events {
            let meta = context.keys().get(key as usize).ok_or(Fate::Undefined);
            let meta = if kind == INTEGER { meta } else { Err(Fate::NotMine) };
            let row = meta.and_then(|meta| Ok((meta, self.terms(n).ok_or(Fate::OverBound)?)));
            let Ok((meta, terms)) = row.map_err(|fate| self.1.count(fate)) else { continue };
            let mut row = Output { name: meta.name, slot: meta.slot, key, ts, count: 2, ..Output::default() };
            (row.kind, row.state, row.words[0], row.words[1]) = (INTEGERS, 1, n, u64::from(terms));
            out.push(row);
        }
        self.1.close_batch(events.len() as u64, counted);
    }
    fn on_watermark(&mut self, _: &Context, _: &mut Emit<'_>) {}
    fn ledger(&self) -> Ledger {
        self.1
    }
    fn save(&self, bytes: &mut Vec<u8>) {
        snapshot::append(bytes, &(self.1.delivered, self.1.by_fate)); // the memo can be computed again
    }
    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        (self.1.delivered, self.1.by_fate) = snapshot::read(bytes, "collatz")?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut registry = Registry::new();
    registry.register("collatz", Collatz::build)?;
    let mut operator = registry.build("collatz", &"memo_bits=20".parse()?)?;
    let context = Context::standalone(vec![KeyMeta::default()]);
    let (start, mut lane, mut longest) = (Instant::now(), Lane::new(0), (0, 0));
    let mut sink =
        |rows: &[Output]| longest = rows.iter().map(|r| (r.words[1], r.words[0])).fold(longest, Ord::max);
    let mut out = Emit::new(&mut lane, &mut sink);
    for first in (1..=1_000_000u64).step_by(64) {
        let event = |at| Event { kind: INTEGER, payload: [first + at as u64, 0], ..Event::default() };
        operator.on_events(&context, &std::array::from_fn::<_, 64, _>(event), &mut out);
    }
    out.flush();
    let (rate, (terms, from)) = (1.0 / start.elapsed().as_secs_f64(), longest);
    println!("{rate:.1} M/s, longest: {terms} terms from {from}; {}", operator.ledger());
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}
