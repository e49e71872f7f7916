//! Captures and flow logs through the flow table and every detector.

use tidegate_flow::{Detectors, Flow, FlowRecord, FlowTable, Frame, Looker, Packet, TableOptions, Watch};
use tidegate_replay::decode::{ReadOptions, Traffic, TrafficReader};

/// Counts records, and hands everything on.
#[derive(Default)]
struct Both {
    detectors: Detectors,
    looker: Looker,
    ended: u64,
}

impl Watch for Both {
    fn opened(&mut self, flow: &mut Flow, packet: &Packet<'_>) {
        self.detectors.opened(flow, packet);
    }

    fn packet(&mut self, flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) {
        let _ = self.looker.look(flow, from_originator, packet);
        self.detectors.packet(flow, from_originator, packet);
    }

    fn decided(&mut self, flow: &mut Flow, answer: tidegate_flow::Answer, now: u64) {
        self.detectors.decided(flow, answer, now);
    }

    fn matured(&mut self, flow: &mut Flow, now: u64) {
        self.detectors.matured(flow, now);
    }

    fn stepped(&mut self) {
        self.detectors.stepped();
    }

    fn record(&mut self, flow: &mut Flow, record: &FlowRecord) {
        assert!(
            record.last_ns >= record.start_ns || record.sent.packets + record.received.packets <= 1,
            "{record:?}"
        );
        self.ended += u64::from(record.cause != tidegate_flow::EndCause::Interim);
        self.detectors.record(flow, record);
    }
}

/// Whatever comes: units balance, a flow begun is a flow ended, the table keeps its bound, alerts say something.
///
/// # Panics
/// When one of these does not hold.
pub fn run(bytes: &[u8]) {
    let options =
        ReadOptions { line_bytes_max: 2_000, decompressed_bytes_max: 4 << 20, ..ReadOptions::default() };
    let Ok(mut reader) = TrafficReader::from_bytes(bytes.to_vec(), &options) else { return };
    let mut table =
        FlowTable::new(TableOptions { flows_max: 8, interim_ns: 1_000_000, ..TableOptions::default() });
    let mut both = Both::default();
    let mut taken = 0u64;
    let mut more = true;
    while more {
        more = reader
            .read(7, |traffic| {
                taken += 1;
                match traffic {
                    Traffic::Frame(Frame::Ip(packet)) => table.packet(&packet, &mut both),
                    Traffic::Frame(Frame::Arp(arp)) => both.detectors.arp(&arp),
                    Traffic::Frame(Frame::Other) => {}
                    Traffic::Record(record) => both.detectors.logged(&record),
                }
            })
            .unwrap_or(false);
        assert!(table.len() <= 8);
    }
    table.finish(&mut both);
    assert!(table.is_empty());
    assert_eq!(table.counts().opened, both.ended);
    let account = reader.account();
    assert_eq!((account.imbalance(), account.accepted), (0, taken), "{account:?}");
    for alert in both.detectors.alerts() {
        assert!((0.0..=1.0).contains(&alert.probability) && alert.reasons().count() > 0, "{alert:?}");
        assert!(
            alert.range.first <= alert.range.last && alert.range.first_ns <= alert.range.last_ns,
            "{alert:?}"
        );
    }
}
