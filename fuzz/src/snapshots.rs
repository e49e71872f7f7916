//! Snapshots beside a journal: a file somebody else may have written, and what is inside.

use tidegate_engine::{
    FenceOptions, Output, SLOT_COUNT, Sequencer, SequencerOptions, SequencerState, snapshot,
};
use tidegate_journal::snapshot::{Part, SNAPSHOT_HEADER_BYTES, encode};
use tidegate_journal::{Point, Snapshot, SnapshotInfo};
use tidegate_proto::StreamKind;
use tidegate_proto::feed::{FeedServer, FeedServerOptions, FeedServerState};
use tidegate_proto::hub::{Hub, HubOptions, StreamMeta, StreamPast};

const HASH_BYTES: usize = 32;

/// As it is, and with length and checksums made good, so that what lies behind them is reached.
pub fn file(bytes: &[u8]) {
    read(bytes);
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    read(&repaired);
}

/// What is read is written back byte by byte; what its parts say ends in a state or a refusal.
fn read(bytes: &[u8]) {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    let mut again = Vec::new();
    encode(snapshot.info, &snapshot.parts, &mut again).expect("memory takes it");
    let read = Snapshot::decode(&again).expect("what we wrote ourselves");
    assert_eq!((read.parts, read.info.point), (snapshot.parts.clone(), snapshot.info.point));
    for part in &snapshot.parts {
        match part.id % 3 {
            0 => past(part.bytes),
            1 => feeds(part.bytes),
            _ => sequencer(part.bytes),
        }
    }
}

fn past(bytes: &[u8]) {
    let meta = StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: Vec::new() };
    let options = HubOptions { ring_records: 64, keys_max: 8, ..HubOptions::default() };
    let mut hub = Hub::new(vec![meta], options).expect("options within their bounds");
    let heads = vec![u64::MAX / 2; SLOT_COUNT];
    let past = StreamPast { heads: &heads, published: 1_000, ring: &[bytes], histories: &[bytes] };
    if hub.restore(0, past).is_ok() {
        let stats = hub.stream_stats(0).expect("there is one");
        assert!(stats.retained <= 64 && hub.stats().keys <= 8);
        // What was read can be copied again, and read as the same.
        let mut copied = Vec::new();
        hub.copy_ring(0, u64::MAX, 64, &|_| true, &mut copied);
        let mut rest = copied.as_slice();
        for _ in 0..stats.retained {
            rest = Output::read_record(rest).expect("a record we wrote").1;
        }
        assert!(rest.is_empty());
    }
}

fn feeds(bytes: &[u8]) {
    let Ok(state) = snapshot::read::<FeedServerState>(bytes, "feeds") else { return };
    let mut server = FeedServer::new(FeedServerOptions::default());
    if server.restore(&state).is_ok() {
        let again = server.state();
        let mut other = FeedServer::new(FeedServerOptions::default());
        other.restore(&again).expect("a state of ours");
        assert_eq!(other.state(), again);
    }
}

fn sequencer(bytes: &[u8]) {
    let Ok(state) = snapshot::read::<SequencerState>(bytes, "sequencer") else { return };
    for fence in [None, Some(FenceOptions::default())] {
        let options = SequencerOptions { fence, ..SequencerOptions::default() };
        if let Some(sequencer) = Sequencer::resume(options, &state) {
            assert_eq!(sequencer.state(), state);
        }
    }
}

/// Puts the length and right checksums, see `docs/reliability.md`.
fn repair(bytes: &mut [u8]) {
    let Some(content) = bytes.len().checked_sub(SNAPSHOT_HEADER_BYTES + HASH_BYTES) else { return };
    bytes[72..80].copy_from_slice(&(content as u64).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..SNAPSHOT_HEADER_BYTES - 4]);
    bytes[SNAPSHOT_HEADER_BYTES - 4..SNAPSHOT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let end = bytes.len() - HASH_BYTES;
    let hash = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(hash.as_bytes());
}

/// A snapshot with a part of each kind, and one without parts.
///
/// # Panics
/// When a constant does not fit.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut server = FeedServer::new(FeedServerOptions::default());
    server.recover_source(7, 1, true, "feed", "desk");
    server.recover_names(0, ["AAPL", "MSFT"].into_iter(), 1);
    server.recover_events(0, 1, 9);
    let mut feeds = Vec::new();
    snapshot::append(&mut feeds, &server.state());
    let mut log = Sequencer::new(SequencerOptions::default());
    log.push(&[tidegate_engine::Event { ts_event: 5, kind: 1, ..Default::default() }; 20], &mut |_| {});
    let mut sequencer = Vec::new();
    snapshot::append(&mut sequencer, &log.state());
    let output = Output { name: 3, sequence: 4, kind: 1, count: 16, ..Output::default() };
    let ring = [output.record_bytes(), Output { count: 2, sequence: 5, ..output }.record_bytes()].concat();
    let part = |id, bytes| Part { id, index: 0, bytes };
    let info = SnapshotInfo {
        point: Point { lineage: 3, offset: 9, chain: [1; 16], epoch: 1 },
        taken_ns: 5,
        ..SnapshotInfo::default()
    };
    let write = |parts: &[Part<'_>]| {
        let mut bytes = Vec::new();
        encode(info, parts, &mut bytes).expect("memory takes it");
        bytes
    };
    vec![write(&[part(3, &ring), part(4, &feeds), part(5, &sequencer)]), write(&[])]
}
