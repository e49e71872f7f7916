//! Measures the reader's side alone: the sequencer over W1, by CPU time of its thread.
use tidegate_benches::measure::{Contestant, interleave};
use tidegate_benches::w1::{W1, generate};
use tidegate_engine::{Event, Sequencer, SequencerOptions};

fn main() {
    let work = W1 { events: 10_000_000, ..W1::default() };
    let events = generate(work);
    let events = &events[..];
    let run = move |chunk: usize| {
        let mut sequencer = Sequencer::new(SequencerOptions::default());
        let mut emit = |frame: &[Event]| {
            std::hint::black_box(frame);
        };
        for chunk in events.chunks(chunk) {
            sequencer.push(chunk, &mut emit);
        }
        sequencer.finish(&mut emit);
    };
    let mut contestants = vec![
        Contestant::cpu_rate("sequencer.4000", work.events, move || run(4_000)),
        Contestant::cpu_rate("sequencer.8192", work.events, move || run(8_192)),
    ];
    for measurement in interleave(1, 5, &mut contestants) {
        println!("{}", measurement.to_json());
    }
}
