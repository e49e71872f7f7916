//! Journals: a segment somebody else may have written.

use std::ops::ControlFlow;
use tidegate_engine::Event;
use tidegate_journal::format::{
    BATCH_HEADER_BYTES, BatchInfo, SEGMENT_HEADER_BYTES, SegmentInfo, zero_sectors,
};
use tidegate_journal::sim::SimDisk;
use tidegate_journal::{Batch, Entry, Journal, JournalOptions, scan};

/// As it is, and with checksums and chain made good, so that what lies behind them is reached.
pub fn segment(bytes: &[u8]) {
    recover(bytes.to_vec());
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    recover(repaired);
}

/// A journal that is read is what is visited; one that is opened goes on behind it and reads as before, and one more.
fn recover(bytes: Vec<u8>) {
    // Larger than its header says or not, it has room.
    let disk = SimDisk::new(1 << 20);
    disk.put(0, bytes);
    let mut records = 0;
    let found = scan(&mut disk.clone(), |view| {
        let mut counted = 0;
        for entry in view.entries() {
            let entry = entry.expect("a body that was visited is sound");
            counted += entry.records();
            if let Entry::Names { names, .. } = entry {
                names.for_each(|name| assert!((1..=255).contains(&name.len())));
            }
        }
        assert_eq!(counted, u64::from(view.info.count));
        records += counted;
        ControlFlow::Continue(())
    });
    let Ok(Some(found)) = found else { return };
    assert_eq!(found.records(), records);
    let Ok((mut journal, _)) = Journal::open(disk.clone(), JournalOptions::default(), 0, |_| {}) else {
        return;
    };
    let mut batch = Batch::new();
    assert!(batch.digest(7));
    if found.next_offset < u64::MAX && journal.append(&batch, u32::MAX, 0).is_ok() && journal.sync().is_ok() {
        let again = scan(&mut disk.clone(), |_| ControlFlow::Continue(())).expect("what we wrote ourselves");
        assert_eq!(again.map(|again| again.next_offset), Some(found.next_offset + 1));
    }
}

/// Puts right checksums, offsets and chain, see `docs/reliability.md`.
fn repair(bytes: &mut [u8]) {
    let Some(header) = bytes.get_mut(..SEGMENT_HEADER_BYTES) else { return };
    let crc = crc32c::crc32c(&header[..SEGMENT_HEADER_BYTES - 4]);
    header[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    let Some(Ok(segment)) = header.first_chunk().map(SegmentInfo::decode) else { return };
    let (mut at, mut offset, mut chain) = (SEGMENT_HEADER_BYTES, segment.first_offset, segment.previous);
    while let Some(header) = bytes.get_mut(at..at + BATCH_HEADER_BYTES) {
        header[8..16].copy_from_slice(&offset.to_le_bytes());
        let crc = crc32c::crc32c(&header[..BATCH_HEADER_BYTES - 4]);
        header[BATCH_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let Some(Ok(mut info)) = header.first_chunk().map(BatchInfo::decode) else { return };
        let start = at + BATCH_HEADER_BYTES;
        let Some(body) = bytes.get(start..start + info.body_bytes as usize) else { return };
        info.body_crc = crc32c::crc32c(body);
        info.zero_sectors = zero_sectors(start as u64, body);
        info.chain = info.chained(&chain, body);
        bytes[at..start].copy_from_slice(&info.encode());
        (at, offset, chain) = (at + info.extent(), info.end(), info.chain);
    }
}

/// A journal with one of each entry, and one that is empty.
///
/// # Panics
/// When a constant does not fit.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let disk = SimDisk::new(1 << 20);
    let options = JournalOptions { segment_bytes: 4 << 10, lineage: 3, ..JournalOptions::default() };
    let (mut journal, _) = Journal::open(disk.clone(), options, 1, |_| {}).expect("an empty disk");
    let empty = disk.content(0).expect("it was made");
    let mut batch = Batch::new();
    let event = Event { ts_event: 1_700_000_000_000_000_000, kind: 1, payload: [5, 6], ..Event::default() };
    assert!(batch.source(0, 7, 1, true, "feed", "anonymous") && batch.names(0, 0, 1, &["AAPL", "MSFT"]));
    assert!(batch.events(0, 1, 2, &[event; 5]) && batch.lost(0, 9, 4));
    journal.append(&batch, 1, 2).expect("there is room");
    journal.sync().expect("it works");
    batch.clear();
    assert!(batch.idle(0) && batch.digest(9) && batch.finished(0) && batch.stopped());
    journal.append(&batch, 2, 3).expect("there is room");
    journal.sync().expect("it works");
    let whole = disk.content(0).expect("it was made");
    let torn = whole[..600].to_vec();
    vec![whole, torn, empty]
}
