//! How fast this machine journals and recovers: `rate DIR [events] [batch events] [sync: always|NNN us|never]`.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};
use tidegate_engine::Event;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::writer::Refused;
use tidegate_journal::{Committer, Disk, Journal, JournalOptions, SyncPolicy, Writer, WriterOptions, scan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("a folder, please: it is filled with a journal")?;
    let total: u64 = arguments.next().map_or(Ok(5_000_000), |text| text.parse())?;
    let size: u64 = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let sync = match arguments.next().as_deref() {
        Some("always") => SyncPolicy::Always,
        Some("never") => SyncPolicy::Never,
        Some(text) => SyncPolicy::Every(1_000 * text.parse::<u64>()?),
        None => SyncPolicy::Every(1_000_000),
    };
    let events: Vec<Event> = (0..size)
        .map(|at| Event {
            ts_event: at,
            kind: 1,
            payload: [at.wrapping_mul(0x9e37_79b9_7f4a_7c15), at],
            ..Event::default()
        })
        .collect();
    let options = JournalOptions { lineage: 1, ..JournalOptions::default() };
    let (journal, _) = Journal::open(Disk::open(folder.as_ref())?, options.clone(), 0, |_| {})?;
    let commit = CommitOptions { sync, reserve_bytes: 0, ..CommitOptions::default() };
    let mut writer = Writer::start(Committer::new(journal, commit), WriterOptions::default(), |_, _| {})?;
    let start = Instant::now();
    let mut sequence = 1;
    while sequence <= total {
        let mut batch = writer.spare();
        if !batch.events(0, sequence, 1, &events) {
            return Err("batches of so many events do not fit".into());
        }
        sequence += size;
        loop {
            match writer.submit(batch, 1, 0) {
                Ok(_) => break,
                Err(Refused::Busy(back)) => {
                    batch = back;
                    std::thread::sleep(Duration::from_micros(50));
                }
                Err(Refused::Gone(_)) => return Err(format!("{:?}", writer.stats()).into()),
            }
        }
    }
    let handed = start.elapsed();
    let stats = writer.stop();
    let took = start.elapsed();
    let rate = |took: Duration| (sequence - 1) as f64 / took.as_secs_f64() / 1e6;
    println!(
        "written and synced: {:.2} M events/s in batches of {size} ({:.2} handed over)",
        rate(took),
        rate(handed)
    );
    println!("{stats:?}");
    let start = Instant::now();
    let mut sum = 0;
    let found = scan(&mut Disk::open_read_only(folder.as_ref())?, |view| {
        for entry in view.entries().flatten() {
            if let tidegate_journal::Entry::Events { events, .. } = entry {
                sum += events.iter().map(|event| event.ts_event).sum::<u64>();
            }
        }
        std::ops::ControlFlow::Continue(())
    })?;
    let records = found.map_or(0, |found| found.records());
    println!("recovered: {:.2} M events/s (sum {sum})", records as f64 / start.elapsed().as_secs_f64() / 1e6);
    Ok(())
}
