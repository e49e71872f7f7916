//! What a server's journal says to people: what was recovered, and what keeps it from its promises.

use crate::render::{Tone, Ui, bytes, duration, thousands};
use std::path::Path;
use std::time::{Duration, Instant};
use tidegate_live::{Health, IngestReport, IngestStats, Live, Progress, Recovered, WriterStats};

/// How often the journal is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A word about a recovery that takes a while.
pub(super) fn recovering(progress: Progress) {
    let Progress { records, bytes, total_bytes } = progress;
    let percent = bytes.saturating_mul(100) / total_bytes.max(1);
    eprintln!("recovering from the journal: {} records, {percent} %", thousands(records));
}

/// What was found; `elsewhere` is where the log is, if not in the folder.
pub(super) fn note_recovered(live: &Live, data: &Path, elsewhere: Option<&str>, took: Duration, ui: &Ui) {
    let (found, folder) = (live.recovered(), data.join(crate::journal::place::FOLDER));
    let folder = elsewhere.map_or_else(|| folder.display().to_string(), str::to_owned);
    for note in &found.notes {
        ui.note(&format!("{}: {note}", ui.paint(Tone::Warn, "warning")));
    }
    let (events, took) = (thousands(found.events), duration(took.as_nanos() as u64));
    if let Some(offset) = found.snapshot {
        let (offset, size) = (thousands(offset), bytes(found.snapshot_bytes));
        ui.note(&format!(
            "went on from the snapshot of offset {offset} ({size}) and {events} events behind it, in {folder}, in {took}"
        ));
        regrouped(found, "", ui);
    } else if found.records == 0 {
        ui.note(&format!("the journal in {folder} begins empty"));
    } else {
        ui.note(&format!("recovered {events} events from the journal in {folder} in {took}"));
    }
    if found.torn_bytes > 0 {
        ui.note(&format!(
            "cut off {} bytes that were being written when it stopped",
            thousands(found.torn_bytes)
        ));
    }
    if found.refused > 0 {
        let refused = thousands(found.refused);
        ui.note(&format!("left out {refused} records of sources: feed.sources_max is lower than it was"));
    }
}

/// A word about a snapshot that other shards took; `of` says of which group, in front of it.
pub(super) fn regrouped(found: &Recovered, of: &str, ui: &Ui) {
    if let Some((took, take)) = found.regrouped {
        let shards = if took == 1 { "shard" } else { "shards" };
        ui.note(&format!("{of}the snapshot of {took} {shards} is taken over by {take}"));
    }
}

/// Says once what keeps the journal or its snapshots from their promises, and when that is over.
pub(super) struct Watch {
    next: Instant,
    health: Option<Health>,
    problem: Option<String>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { next: Instant::now(), health: None, problem: None }
    }

    /// Looks now and then.
    pub(super) fn tick(&mut self, live: &Live, ui: &Ui) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + EVERY;
            self.news(&live.ingest().stats()).iter().for_each(|news| ui.note(news));
        }
    }

    /// What is new since it was last asked.
    fn news(&mut self, stats: &IngestStats) -> Vec<String> {
        let mut news = Vec::new();
        let health = stats.journal.as_ref().map(|WriterStats { health, .. }| health.clone());
        if health != self.health {
            match (&health, &self.health) {
                (Some(Health::Working), Some(_)) => {
                    news.push("the journal works again: what is on disk is acknowledged as durable".to_owned());
                }
                (Some(Health::Working) | None, _) => {}
                (Some(Health::Reserve), _) => news.push(
                    "warning: less than the reserve is free on the journal's disk: nothing is acknowledged as durable"
                        .to_owned(),
                ),
                (Some(Health::Full), _) => news.push(
                    "warning: the journal's disk is full: what is accepted waits in memory, then feeds wait".to_owned(),
                ),
                (Some(Health::Away(why)), before) if !matches!(before, Some(Health::Away(_))) => news.push(format!(
                    "warning: the log cannot be reached ({why}): what is accepted waits in memory, then feeds wait"
                )),
                (Some(Health::Away(_)), _) => {}
                (Some(Health::Failed(why)), _) => news.push(format!("warning: {why}")),
            }
            self.health = health;
        }
        let problem = stats.snapshots.as_ref().and_then(|snapshots| snapshots.problem.clone());
        if problem != self.problem {
            news.extend(problem.as_ref().map(|why| format!("warning: a snapshot was given up: {why}")));
            self.problem = problem;
        }
        news
    }
}

/// What of the accepted the journal does not have at the end, if anything.
pub(super) fn unwritten(report: &IngestReport) -> Option<String> {
    let journal = report.stats.journal.as_ref().filter(|_| report.unwritten > 0)?;
    let why = match &journal.health {
        Health::Full => "its disk is full".to_owned(),
        Health::Away(why) => format!("it cannot be reached: {why}"),
        Health::Failed(why) => why.clone(),
        Health::Working | Health::Reserve => "it did not keep up".to_owned(),
    };
    let (count, taken) = (thousands(report.unwritten), thousands(journal.positions.taken));
    Some(format!(
        "the journal has not taken the last {count} of {taken} accepted records, which are gone with this process ({why}); none of \
         them was acknowledged as durable, so feeds with `--ack durable` still have them, and others may not"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_live::{Positions, SnapshotStats};

    #[test]
    fn what_was_not_written_is_said_with_the_reason() {
        let report = |unwritten, health: Health| {
            let positions = Positions { taken: 12_000, written: 2_000, durable: 2_000 };
            let journal = Some(WriterStats { health, positions, ..WriterStats::default() });
            let stats = IngestStats { journal, ..IngestStats::default() };
            IngestReport { stats, unwritten, ..IngestReport::default() }
        };
        assert_eq!(unwritten(&report(0, Health::Full)), None);
        let text = unwritten(&report(10_000, Health::Full)).unwrap();
        assert!(text.contains("last 10,000 of 12,000") && text.contains("disk is full"), "{text}");
        let away = Health::Away("brokers are down".to_owned());
        let text = unwritten(&report(1, away)).unwrap();
        assert!(
            text.contains("cannot be reached: brokers are down") && text.contains("--ack durable"),
            "{text}"
        );
    }

    #[test]
    fn what_stops_is_said_once_and_so_is_its_end() {
        let mut watch = Watch::new();
        let stats = |health: Health, problem: Option<&str>| IngestStats {
            journal: Some(WriterStats { health, ..WriterStats::default() }),
            snapshots: Some(SnapshotStats {
                problem: problem.map(str::to_owned),
                ..SnapshotStats::default()
            }),
            ..IngestStats::default()
        };
        assert_eq!(watch.news(&IngestStats::default()), Vec::<String>::new());
        assert_eq!(
            watch.news(&stats(Health::Working, None)),
            Vec::<String>::new(),
            "that it works is no news"
        );
        assert!(watch.news(&stats(Health::Full, Some("no room")))[0].contains("disk is full"));
        assert_eq!(watch.news(&stats(Health::Full, Some("no room"))), Vec::<String>::new());
        assert!(watch.news(&stats(Health::Reserve, None))[0].contains("less than the reserve"));
        assert!(watch.news(&stats(Health::Working, None))[0].contains("works again"));
        let failed = Health::Failed("the journal's disk failed".to_owned());
        assert_eq!(watch.news(&stats(failed, Some("it stalls"))).len(), 2);
    }
}
