use super::*;
use crate::source::{Names, Place, ReadError, RejectCause, Source};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::Cursor;
use tidegate_engine::{Event, Price, Size, flag, kind};

type MemoryReader = CaptureReader<Cursor<Vec<u8>>>;

fn record(names: &[&str], batches: &[&[Event]], options: CaptureOptions) -> Vec<u8> {
    let mut writer = CaptureWriter::to_stream(Vec::new(), "memory", options).unwrap();
    for name in names {
        writer.define(name).unwrap();
    }
    for batch in batches {
        writer.push(batch).unwrap();
    }
    let (bytes, summary) = writer.finish_stream().unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(summary.events, batches.iter().map(|batch| batch.len() as u64).sum::<u64>());
    bytes
}

fn open(bytes: &[u8]) -> Result<MemoryReader, ReadError> {
    CaptureReader::from_stream(Cursor::new(bytes.to_vec()), "memory")
}

/// Reads to the end or the first error, in uneven batches.
fn drain(reader: &mut impl Source) -> (Vec<Event>, Option<ReadError>) {
    let mut events = Vec::new();
    for max in (0..).map(|turn| 1 + turn % 700) {
        match reader.read(&mut events, max) {
            Ok(0) => return (events, None),
            Ok(_) => {}
            Err(error) => return (events, Some(error)),
        }
    }
    unreachable!()
}

fn trades(count: u64) -> Vec<Event> {
    (0..count)
        .map(|at| {
            let price = Price((10_000 + (at * at) as i64 % 97) * 10_000_000);
            let size = Size((1 + at * 7 % 1000) * 100_000_000);
            let side = if at % 3 == 0 { flag::BUY } else { flag::SELL };
            Event::trade(1_700_000_000_000_000_000 + at * 10_000, (at * at % 11) as u32, 3, price, size, side)
        })
        .collect()
}

fn any_event() -> impl Strategy<Value = Event> {
    let word = prop_oneof![
        any::<u64>(),
        0..300u64,
        Just(u64::MAX),
        Just(1 << 63),
        (0..90u64).prop_map(|n| n * 10_000_000)
    ];
    let ts = prop_oneof![any::<u64>(), 1_000_000..1_000_500u64];
    let key = prop_oneof![any::<u32>(), 0..9u32];
    (ts, key, any::<u16>(), any::<u8>(), prop_oneof![Just(0u8), any::<u8>()], [word.clone(), word]).prop_map(
        |(ts_event, key, source, kind, flags, payload)| Event { ts_event, key, source, kind, flags, payload },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_events_round_trip_bit_for_bit(
        events in vec(any_event(), 0..900),
        block_events in 1..700usize,
        codec in prop_oneof![Just(Codec::Auto), Just(Codec::Packed), Just(Codec::Planes), Just(Codec::Raw)],
    ) {
        let options = CaptureOptions::default().with_block_events(block_events).with_codec(codec);
        let bytes = record(&["a", "b"], &[&events], options);
        let mut reader = open(&bytes).unwrap().verbatim();
        let (back, error) = drain(&mut reader);
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(&back, &events);
        let mut blocks = Vec::new();
        for index in 0..reader.blocks().len() {
            reader.read_block(index, &mut blocks).unwrap();
        }
        prop_assert_eq!(blocks, events);
        prop_assert_eq!(reader.account().imbalance(), 0);
    }

    #[test]
    fn one_shape_of_event_round_trips(
        shape in any_event(), deltas in vec((0..50u64, 0..4u32, -9i64..9, 0..100u64), 1..2000),
    ) {
        let mut event = shape;
        let events: Vec<_> = deltas
            .into_iter()
            .map(|(ts, key, price, size)| {
                event.ts_event = event.ts_event.wrapping_add(ts * 1000);
                event.key = key;
                event.payload = [event.payload[0].wrapping_add_signed(price * 10_000_000), size * 100];
                event
            })
            .collect();
        let bytes = record(&[], &[&events], CaptureOptions::default().with_codec(Codec::Packed));
        let (back, error) = drain(&mut open(&bytes).unwrap().verbatim());
        prop_assert!(error.is_none());
        prop_assert_eq!(back, events);
    }

    #[test]
    fn ranges_agree_with_a_filter(events in vec(any_event(), 1..600), from in 999_900..1_000_600u64, width in 0..700u64) {
        let options = CaptureOptions::default().with_block_events(37);
        // Trades that a bar can sum: others are refused, which has a test of its own.
        let modest = |event: Event| Event { payload: event.payload.map(|word| word & ((1 << 40) - 1)), ..event };
        let events: Vec<Event> = events.into_iter().map(modest).collect();
        let bytes = record(&[], &[&events], options);
        let mut reader = open(&bytes).unwrap().between(from, from + width);
        let (back, error) = drain(&mut reader);
        prop_assert!(error.is_none());
        let wanted = |event: &&Event| (from..from + width).contains(&event.ts_event);
        let session = |event: &&Event| matches!(event.kind, kind::WATERMARK | kind::MARK);
        let expected: Vec<_> = events.iter().filter(wanted).filter(|event| !session(event)).copied().collect();
        prop_assert_eq!(back, expected);
        let account = reader.account();
        prop_assert_eq!(account.imbalance(), 0);
        prop_assert_eq!(account.units, events.len() as u64);
        prop_assert_eq!(account.refused(RejectCause::NotAnEvent), events.iter().filter(wanted).filter(session).count() as u64);
    }

    #[test]
    fn noise_after_a_header_is_no_panic(noise in vec(any::<u8>(), 0..600)) {
        let mut bytes = record(&[], &[], CaptureOptions::default())[..32].to_vec();
        bytes.extend(noise);
        let (events, error) = drain(&mut open(&bytes).unwrap());
        let damaged = matches!(error, Some(ReadError::Damaged { .. }));
        prop_assert!(events.is_empty() && damaged);
    }
}

#[test]
fn an_empty_capture_is_whole() {
    let bytes = record(&[], &[], CaptureOptions::default());
    let mut reader = open(&bytes).unwrap();
    assert_eq!(reader.damage(), None);
    assert!(matches!(drain(&mut reader), (events, None) if events.is_empty()));
    assert!(reader.names().is_empty() && reader.blocks().is_empty());
    assert!(reader.read_block(0, &mut Vec::new()).is_err());
}

fn small_file(codec: Codec) -> (Vec<Event>, Vec<u8>) {
    let events = trades(40);
    let mut writer = CaptureWriter::to_stream(
        Vec::new(),
        "memory",
        CaptureOptions::default().with_block_events(16).with_codec(codec),
    )
    .unwrap();
    writer.define("AAPL").unwrap();
    writer.push(&events[..20]).unwrap();
    writer.define("Škoda ČR").unwrap();
    writer.push(&events[20..]).unwrap();
    (events, writer.finish_stream().unwrap().0)
}

#[test]
fn names_arrive_with_the_block_after_them() {
    let (_, bytes) = small_file(Codec::Auto);
    let reader = open(&bytes).unwrap();
    let names: Vec<_> = reader.names().iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["AAPL", "Škoda ČR"]);
    assert_eq!(reader.blocks().iter().map(|block| block.names).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(reader.blocks().iter().map(|block| block.events).collect::<Vec<_>>(), [16, 16, 8]);
    assert!(reader.blocks()[0].has_kind(kind::TRADE) && !reader.blocks()[0].has_kind(kind::FLOW));
}

#[test]
fn a_file_cut_anywhere_reads_up_to_its_last_whole_block() {
    for codec in [Codec::Packed, Codec::Planes, Codec::Raw] {
        let (events, bytes) = small_file(codec);
        let blocks = open(&bytes).unwrap().blocks().to_vec();
        for cut in 0..bytes.len() {
            let mut reader = match open(&bytes[..cut]) {
                Ok(reader) => reader,
                Err(ReadError::UnknownFormat { .. }) => {
                    assert_eq!(cut, 0);
                    continue;
                }
                Err(error) => {
                    assert!(cut < 32 && matches!(error, ReadError::Damaged { .. }), "{cut}: {error}");
                    continue;
                }
            };
            let whole: Vec<_> =
                blocks.iter().filter(|block| block.offset + block.bytes() <= cut as u64).collect();
            let count = whole.iter().map(|block| block.events as usize).sum::<usize>();
            let (back, error) = drain(&mut reader);
            assert_eq!(back, events[..count], "cut at {cut}");
            assert_eq!(reader.names().len() as u32, whole.iter().map(|block| block.names).sum::<u32>());
            let expected = whole.last().map_or(32, |block| block.offset + block.bytes());
            assert!(
                matches!(error, Some(ReadError::Damaged { place: Place::Byte(at), .. }) if at == expected),
                "cut at {cut}: {error:?}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_is_found_and_never_misread() {
    for codec in [Codec::Packed, Codec::Planes, Codec::Raw] {
        let (events, bytes) = small_file(codec);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                let Ok(mut reader) = open(&bad) else {
                    assert!(at < 32, "byte {at}");
                    continue;
                };
                let (back, error) = drain(&mut reader);
                assert!(events.starts_with(&back), "byte {at} bit {bit}");
                assert!(back.len() % 16 == 0 || back.len() == events.len());
                assert!(matches!(error, Some(ReadError::Damaged { .. })), "byte {at} bit {bit}: {error:?}");
            }
        }
    }
}

/// Rewrites bytes and both checksums over them, as a hostile writer would.
fn forge(bytes: &mut [u8], header: usize, change: impl FnOnce(&mut [u8])) {
    let block = &mut bytes[header..header + 112];
    change(block);
    let crc = crc32fast::hash(&block[..108]);
    block[108..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn huge_counts_are_refused_before_memory_is_set_aside() {
    let (_, bytes) = small_file(Codec::Packed);
    for (at, what) in [(8, "body"), (12, "events"), (16, "names"), (20, "name bytes"), (24, "names before")] {
        // Without the index the headers are all there is to go by.
        let mut bad = bytes[..bytes.len() - 1].to_vec();
        forge(&mut bad, 32, |block| block[at..at + 4].fill(0xff));
        let (events, error) = drain(&mut open(&bad).unwrap());
        assert!(events.is_empty() && matches!(error, Some(ReadError::Damaged { .. })), "{what}");
        // And with it, the block contradicts the index.
        let mut bad = bytes.clone();
        forge(&mut bad, 32, |block| block[at..at + 4].fill(0xff));
        let (events, error) = drain(&mut open(&bad).unwrap());
        assert!(events.is_empty() && matches!(error, Some(ReadError::Damaged { .. })), "{what}");
    }
    // Counts of the index and lengths of the footer.
    let index = open(&bytes).unwrap().blocks().last().map(|block| block.offset + block.bytes()).unwrap();
    for at in [8usize, 16] {
        let mut bad = bytes.clone();
        let end = bad.len() - 32;
        let body = &mut bad[index as usize..end];
        body[at..at + 8].fill(0xff);
        let crc_at = body.len() - 4;
        let crc = crc32fast::hash(&body[..crc_at]);
        body[crc_at..].copy_from_slice(&crc.to_le_bytes());
        let (events, error) = drain(&mut open(&bad).unwrap());
        assert!(events.len() == 40 && matches!(error, Some(ReadError::Damaged { .. })));
    }
    for at in [0usize, 8] {
        let mut bad = bytes.clone();
        let start = bad.len() - 32;
        let footer = &mut bad[start..];
        footer[at..at + 8].fill(0xff);
        let crc = crc32fast::hash(&footer[..28]);
        footer[28..].copy_from_slice(&crc.to_le_bytes());
        let (events, error) = drain(&mut open(&bad).unwrap());
        assert!(events.len() == 40 && matches!(error, Some(ReadError::Damaged { .. })));
    }
}

#[test]
fn a_hostile_body_with_good_checksums_is_no_panic() {
    let (_, bytes) = small_file(Codec::Packed);
    let block = open(&bytes).unwrap().blocks()[0];
    for at in 0..block.body_bytes as usize {
        for value in [0, 1, 2, 3, 0x3f, 0x40, 0x41, 0x7f, 0x80, 0xff] {
            let mut bad = bytes[..bytes.len() - 1].to_vec();
            bad[144 + at] = value;
            let crc = crc32fast::hash(&bad[144..144 + block.body_bytes as usize]);
            forge(&mut bad, 32, |block| block[28..32].copy_from_slice(&crc.to_le_bytes()));
            let _ = drain(&mut open(&bad).unwrap());
        }
    }
}

#[test]
fn another_version_and_another_file_are_told_apart() {
    let mut bytes = record(&[], &[&trades(5)], CaptureOptions::default());
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let error = open(&bytes).err().unwrap();
    assert!(
        matches!(&error, ReadError::UnknownFormat { reason, .. } if reason.contains("version 9")),
        "{error}"
    );
    let error = open(b"timestamp,symbol,price\n1,A,2.0\n2,A,2.1\n").err().unwrap();
    assert!(matches!(error, ReadError::UnknownFormat { .. }));
}

#[test]
fn trades_that_no_bar_could_sum_are_refused_though_the_checksums_are_right() {
    let good = Event::trade(5, 0, 0, Price(100), Size(200), 0);
    let immense = Event::trade(6, 0, 0, Price(i64::MAX), Size(u64::MAX), 0);
    let late = Event { ts_event: u64::MAX, ..good };
    let flow = Event { kind: kind::FLOW, payload: [u64::MAX; 2], ..good };
    let events = [good, immense, flow, late, good];
    let bytes = record(&["A"], &[&events], CaptureOptions::default());
    let mut reader = open(&bytes).unwrap();
    let (read, error) = drain(&mut reader);
    assert!(error.is_none() && read == [good, flow, good]);
    let account = reader.account();
    assert_eq!((account.units, account.accepted), (5, 3));
    assert_eq!((account.refused(RejectCause::OutOfRange), account.refused(RejectCause::BadTime)), (1, 1));
    assert_eq!(drain(&mut open(&bytes).unwrap().verbatim()).0, events);
}

#[test]
fn a_whole_block_is_in_the_file_before_the_next_one_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tgc");
    let mut writer = CaptureWriter::create(&path, CaptureOptions::default().with_block_events(100)).unwrap();
    writer.push(&trades(250)).unwrap();
    // As after a crash: nothing was ended.
    let reader = CaptureReader::open(&path).unwrap();
    assert_eq!((reader.blocks().len(), reader.events_total()), (2, 200));
    drop(writer);
}

#[test]
fn dictionaries_must_continue_each_other() {
    let mut writer = CaptureWriter::to_stream(Vec::new(), "memory", CaptureOptions::default()).unwrap();
    let mut names = Names::default();
    names.intern("A");
    writer.define_all(&names).unwrap();
    names.intern("B");
    writer.define_all(&names).unwrap();
    assert_eq!(writer.names().len(), 2);
    let mut other = Names::default();
    for name in ["X", "Y", "B"] {
        other.intern(name);
    }
    assert!(matches!(writer.define_all(&other), Err(WriteError::NamesDiffer { key: 2, .. })));
    assert!(matches!(writer.define(&"x".repeat(256)), Err(WriteError::NameTooLong { bytes: 256 })));
}

#[test]
fn a_file_on_disk_is_read_by_two_readers_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tgc");
    let events = trades(100_000);
    let mut writer = CaptureWriter::create(&path, CaptureOptions::default().with_block_events(8192)).unwrap();
    writer.push(&events).unwrap();
    let summary = writer.finish().unwrap();
    assert_eq!((summary.events, summary.blocks), (100_000, 13));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), summary.bytes);
    let mut even = CaptureReader::open(&path).unwrap();
    let mut odd = even.fork().unwrap();
    let halves = std::thread::scope(|scope| {
        let half = |reader: &mut CaptureReader, first: usize| {
            (first..13)
                .step_by(2)
                .map(|index| {
                    let mut events = Vec::new();
                    reader.read_block(index, &mut events).unwrap();
                    events
                })
                .collect::<Vec<_>>()
        };
        let other = scope.spawn(move || half(&mut odd, 1));
        (half(&mut even, 0), other.join().unwrap())
    });
    let mut back = Vec::new();
    for index in 0..13 {
        back.extend_from_slice(if index % 2 == 0 { &halves.0[index / 2] } else { &halves.1[index / 2] });
    }
    assert_eq!(back, events);
}
