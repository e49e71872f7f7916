//! How a running server is, in one line.

use crate::render::{rate, short_duration, thousands};
use std::time::Duration;
use tidegate_actors::runtime::ShardStats;
use tidegate_live::IngestStats;
use tidegate_proto::hub::HubStats;

/// Counts at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    at: Duration,
    events: u64,
    results: u64,
}

/// Remembers what it takes to say a rate.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    before: Option<Counts>,
}

impl Pulse {
    /// The line, `up` after the start; `now_ns` is the time of day. What is not known yet is left out or shown as `–`.
    pub(crate) fn line(
        &mut self,
        up: Duration,
        now_ns: u64,
        shards: &[ShardStats],
        ingest: &IngestStats,
        hub: Option<HubStats>,
    ) -> String {
        let sum = |of: fn(&ShardStats) -> u64| shards.iter().map(of).sum::<u64>();
        let now = Counts { at: up, events: sum(|shard| shard.events), results: sum(|shard| shard.outputs) };
        let before = self.before.replace(now);
        let per_second = |of: fn(&Counts) -> u64| {
            let seconds = before.map(|before| now.at.saturating_sub(before.at).as_secs_f64());
            match (seconds, before) {
                (Some(seconds), Some(before)) if seconds > 0.05 => {
                    rate(of(&now).saturating_sub(of(&before)) as f64 / seconds)
                }
                _ => "–".to_owned(),
            }
        };
        // Before the first watermark and after the last event there is no time to compare with.
        let slowest = shards.iter().map(|shard| shard.watermark).min();
        let lag = slowest
            .filter(|&watermark| watermark != 0 && watermark != u64::MAX)
            .map_or("–".to_owned(), |watermark| short_duration(now_ns.saturating_sub(watermark)));
        let feeds = ingest.sources.iter().filter(|source| source.connected).count();
        let (keys, readers) = hub.map_or(("–".to_owned(), "–".to_owned()), |hub| {
            (thousands(hub.keys), thousands(hub.subscribers))
        });
        format!(
            "{:>5} s  events {} ({})  results {} ({})  keys {keys}  feeds {feeds}  readers {readers}  watermark {lag} behind",
            up.as_secs(),
            thousands(now.events),
            per_second(|counts| counts.events),
            thousands(now.results),
            per_second(|counts| counts.results),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_actors::runtime::Phase;

    fn shard(events: u64, outputs: u64, watermark: u64) -> ShardStats {
        ShardStats {
            shard: 0,
            phase: Phase::Running,
            events,
            watermark,
            outputs,
            outputs_unread: 0,
            ring_depth: 0,
            turns_busy: 0,
            turns_idle: 0,
            panics: 0,
            restarts: 0,
            quarantined: 0,
            lost_in_restart: 0,
            pin_failures: 0,
            times: tidegate_actors::runtime::ThreadTimes::default(),
        }
    }

    #[test]
    fn a_line_says_what_is_known() {
        let mut pulse = Pulse::default();
        let ingest = IngestStats::default();
        let first = pulse.line(Duration::ZERO, 9_000_000_000, &[shard(0, 0, 0)], &ingest, None);
        assert_eq!(
            first,
            "    0 s  events 0 (–)  results 0 (–)  keys –  feeds 0  readers –  watermark – behind"
        );
        let hub = HubStats { keys: 1_200, subscribers: 3, ..HubStats::default() };
        let shards = [shard(4_000, 10, 8_900_000_000), shard(2_000, 20, 8_880_000_000)];
        let next = pulse.line(Duration::from_secs(2), 9_000_000_000, &shards, &ingest, Some(hub));
        assert_eq!(
            next,
            "    2 s  events 6,000 (3.0 k/s)  results 30 (15 /s)  keys 1,200  feeds 0  readers 3  watermark 120 ms behind"
        );
    }
}
