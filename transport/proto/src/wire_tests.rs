//! Frames there and back, and everything that is none.

use crate::close::CloseCode;
use crate::frame::{
    Ack, AckMode, Credential, Frame, FrameWriter, Hello, HelloAck, Loss, LossCause, Plane, StreamKind,
};
use crate::frame::{SlotFrame, SlotWord};
use crate::groups::{GroupLead, GroupMap};
use crate::subscription::{Conflation, Keys, LagPolicy, Start, Subscription};
use crate::wire::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, FRAME_EVENTS_MAX, FrameBuffer, FrameError, FrameHead, FrameType,
    HEAD_BYTES,
};
use proptest::prelude::*;
use tidegate_engine::{Event, Output};

/// One frame of each type, small and with something in every field.
fn samples() -> Vec<(FrameType, Vec<u8>)> {
    fn one(kind: FrameType, write: impl FnOnce(&mut FrameWriter<'_>)) -> (FrameType, Vec<u8>) {
        let mut out = Vec::new();
        write(&mut FrameWriter::new(&mut out));
        (kind, out)
    }
    let event = Event { ts_event: 5, key: 1, kind: 1, payload: [7, 8], ..Event::default() };
    let output = Output { name: 9, sequence: 4, count: 2, words: [3; 16], ..Output::default() };
    let spec = Subscription {
        streams: vec!["bars.1s".into()],
        keys: Keys::of_patterns(["A*", "B"]),
        start: Start::Lookback(3),
        conflation: Conflation::Every(5),
        policy: LagPolicy::Disconnect,
        lag_budget: 17,
    };
    let mut subscribe = Vec::new();
    spec.encode(|_| Some(0), &mut subscribe).unwrap();
    let hello = Hello {
        version_min: 1,
        version_max: 4,
        plane: Plane::Feed,
        group: Some(2),
        ack_mode: AckMode::Leader,
        source_id: 11,
        session: 12,
        name: "näme",
        credential: Some(Credential { proof: &[7; 64], token: b"a.b.c" }),
    };
    let ack = HelloAck {
        version: 1,
        ack_mode: AckMode::Leader,
        incarnation: 2,
        last: 3,
        credit: 4,
        names: 5,
        names_max: 6,
        heartbeat_ms: 1_000,
        streams: 7,
        server: "server",
    };
    let lead = |node: u16| GroupLead {
        node: Some(node),
        address: Some(([10, 0, 0, node as u8], 7_443).into()),
        epoch: 7,
        held: node == 1,
    };
    let groups = GroupMap::new(9, vec![(0, 0), (2_048, 1)], vec![lead(1), lead(2)]).unwrap();
    let slot = SlotFrame { word: SlotWord::Stopped, slot: 4_095, to: 3, number: 7, sequence: 11 };
    let loss = Loss { stream: 1, cause: LossCause::Dropped, exact: true, count: 9 };
    vec![
        one(FrameType::Hello, |w| w.hello(&hello)),
        one(FrameType::HelloAck, |w| w.hello_ack(&ack)),
        one(FrameType::Groups, |w| w.groups(&groups)),
        one(FrameType::Define, |w| assert_eq!(w.define(3, ["one", "two"].into_iter()), 2)),
        one(FrameType::Events, |w| w.events(8, 4, [&[event], &[event, event]])),
        one(FrameType::Ack, |w| w.ack(Ack { mode: AckMode::Leader, sequence: 3, position: 4 })),
        one(FrameType::Credit, |w| w.credit(5)),
        one(FrameType::Resume, |w| w.resume(6)),
        one(FrameType::Position, |w| w.position(7, 8)),
        one(FrameType::Gap, |w| w.gap(5, 9)),
        one(FrameType::Packed, |w| assert_eq!(w.packed(9, 5, [&[event], &[event, event]]), 3)),
        one(FrameType::Slot, |w| w.slot(slot)),
        (FrameType::Subscribe, subscribe),
        one(FrameType::Subscribed, |w| w.subscribed(9, 1)),
        one(FrameType::Names, |w| assert_eq!(w.names([(1, "one"), (2, "two")].into_iter()), 2)),
        one(FrameType::Records, |w| {
            w.records(true, 3, |out| {
                out.extend_from_slice(output.record_bytes());
                1
            });
        }),
        one(FrameType::Loss, |w| w.loss(loss)),
        one(FrameType::Edge, |w| w.edge(1, [(5, 6), (4_095, 1)].into_iter())),
        one(FrameType::Stream, |w| w.stream(2, StreamKind::Values, "ind.1s", &["a".into(), "b".into()])),
        one(FrameType::Heartbeat, |w| w.heartbeat(1, 2)),
        one(FrameType::Close, |w| w.close(CloseCode::LAG, "because")),
    ]
}

fn read(bytes: &[u8]) -> Result<Option<()>, FrameError> {
    let mut buffer = FrameBuffer::new(1);
    assert_eq!(buffer.push(bytes), bytes.len());
    let Some((offset, head, body)) = buffer.next_frame()? else {
        return buffer.finish().map(|()| None);
    };
    Frame::read(offset, &head, body).map(|_| Some(()))
}

#[test]
fn every_type_is_read_and_is_what_it_was_written_as() {
    let samples = samples();
    assert_eq!(samples.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), FrameType::ALL);
    for (kind, bytes) in &samples {
        let mut buffer = FrameBuffer::new(1);
        buffer.push(bytes);
        let (_, head, body) = buffer.next_frame().unwrap().unwrap();
        assert_eq!((head.kind, head.frame_bytes()), (*kind, bytes.len()));
        assert_eq!(Frame::read(0, &head, body).unwrap().kind(), *kind);
    }
}

#[test]
fn fields_come_back() {
    for (kind, bytes) in samples() {
        let mut buffer = FrameBuffer::new(1);
        buffer.push(&bytes);
        let (_, head, body) = buffer.next_frame().unwrap().unwrap();
        let frame = Frame::read(0, &head, body).unwrap();
        match frame {
            Frame::Hello(hello) => {
                assert_eq!((hello.name, hello.session, hello.version_max), ("näme", 12, 4));
                assert_eq!(hello.group, Some(2));
            }
            Frame::Groups(groups) => {
                let map = GroupMap::of(&groups).unwrap();
                let lead = map.leads()[1];
                assert_eq!((map.revision(), map.group_of(2_047), map.group_of(2_048)), (9, 0, 1));
                assert_eq!((lead.node, lead.epoch, lead.held), (Some(2), 7, false));
                assert_eq!(lead.address, Some(([10, 0, 0, 2], 7_443).into()));
            }
            Frame::HelloAck(ack) => assert_eq!((ack.server, ack.credit, ack.streams), ("server", 4, 7)),
            Frame::Define(define) => {
                assert_eq!((define.first, define.names.iter().collect::<Vec<_>>()), (3, vec!["one", "two"]));
            }
            Frame::Events { sequence, names, events } => {
                assert_eq!((sequence, names, events.len(), events[2].payload), (8, 4, 3, [7, 8]));
            }
            Frame::Packed(packed) => {
                let mut events = Vec::new();
                packed.unpack(&mut events).unwrap();
                assert_eq!(
                    (packed.sequence, packed.names, events.len(), events[2].payload),
                    (9, 5, 3, [7, 8])
                );
            }
            Frame::Gap { first, last } => assert_eq!((first, last), (5, 9)),
            Frame::Slot(slot) => {
                assert_eq!((slot.word, slot.slot, slot.to), (SlotWord::Stopped, 4_095, 3));
                assert_eq!((slot.number, slot.sequence), (7, 11));
            }
            Frame::Names(names) => assert_eq!(names.iter().collect::<Vec<_>>(), [(1, "one"), (2, "two")]),
            Frame::Records(records) => {
                assert!(records.past && records.conflated == 3);
                let output = records.iter().next().unwrap();
                assert_eq!((output.name, output.sequence, output.words[1], output.words[2]), (9, 4, 3, 0));
            }
            Frame::Edge(edge) => assert_eq!(edge.iter().collect::<Vec<_>>(), [(5, 6), (4_095, 1)]),
            Frame::Stream(stream) => {
                assert_eq!(stream.texts.iter().collect::<Vec<_>>(), ["ind.1s", "a", "b"]);
            }
            Frame::Subscribe(subscribe) => {
                let spec = Subscription::decode(&subscribe, &[], |_| None).unwrap();
                assert_eq!(spec.keys, Keys::of_patterns(["A*", "B"]));
                assert_eq!((spec.start, spec.conflation), (Start::Lookback(3), Conflation::Every(5)));
            }
            Frame::Close { code, reason } => assert_eq!((code, reason), (CloseCode::LAG, "because")),
            Frame::Loss(loss) => assert_eq!((loss.count, loss.exact), (9, true)),
            _ => assert_eq!(frame.kind(), kind),
        }
    }
}

#[test]
fn cut_at_every_byte_is_cut() {
    for (kind, bytes) in samples() {
        for end in 1..bytes.len() {
            let error = read(&bytes[..end]).expect_err("a part is no frame");
            let needed = if end < HEAD_BYTES { HEAD_BYTES } else { bytes.len() } as u64;
            assert_eq!(error, FrameError::Truncated { offset: 0, needed, have: end as u64 }, "{kind:?}");
        }
        assert_eq!(read(&bytes[..0]), Ok(None));
        assert_eq!(read(&bytes), Ok(Some(())));
    }
}

#[test]
fn wrong_heads_are_named() {
    for (kind, good) in samples() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] ^= byte;
            read(&bytes)
        };
        for at in 0..4 {
            let found = b"TGP1"[at] ^ 0xff;
            assert_eq!(changed(at, 0xff), Err(FrameError::Magic { offset: at as u64, found }));
        }
        assert_eq!(changed(4, 3), Err(FrameError::Version { offset: 4, found: 2 }));
        assert!(matches!(changed(5, 0x80), Err(FrameError::Type { offset: 5, .. })));
        assert!(matches!(changed(6, 0x80), Err(FrameError::Flags { offset: 6, .. })));
        assert!(matches!(changed(12, 1), Err(FrameError::Field { offset: 12, field: "reserved", .. })));
        for length in [0u32, 1, BODY_BYTES_MAX as u32 + 1, 1 << 31, u32::MAX] {
            let mut bytes = good.clone();
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            let (min, max) = kind.body_bytes();
            let (min, max) = (min as u32, max as u32);
            // A length of more than the buffer could hold must be refused by its head alone.
            let want = FrameError::Length { offset: 8, kind, found: length, min, max };
            assert_eq!(FrameHead::read(&bytes, 0), Err(want));
        }
    }
    assert!(matches!(read(b"GET / HTTP/1.1\r\n\r\n"), Err(FrameError::Magic { .. })));
    assert!(matches!(read(b"G"), Err(FrameError::Magic { .. })), "at the first byte");
}

#[test]
fn bodies_out_of_range_are_named() {
    let change = |kind: FrameType, at: usize, bytes: &[u8]| {
        let (_, mut frame) = samples().into_iter().find(|(other, _)| *other == kind).unwrap();
        frame[HEAD_BYTES + at..HEAD_BYTES + at + bytes.len()].copy_from_slice(bytes);
        read(&frame).expect_err("out of range").to_string()
    };
    assert_eq!(change(FrameType::Hello, 1, &[0]), "at byte 17: version_max is 0, allowed are 1 to 255");
    assert_eq!(change(FrameType::Hello, 2, &[9]), "at byte 18: plane is 9, allowed are 1 to 2");
    // A group is of version 4 on, a credential of version 2 on, and longer than its proof.
    assert_eq!(change(FrameType::Hello, 1, &[3]), "at byte 20: group is 3, allowed are 0 to 0");
    assert_eq!(
        change(FrameType::Hello, 4, &4_097u16.to_le_bytes()),
        "at byte 20: group is 4097, allowed are 0 to 4096"
    );
    assert_eq!(
        change(FrameType::Hello, 1, &[1, 1, 1, 0, 0]),
        "at byte 40: credential is 69, allowed are 0 to 0"
    );
    assert_eq!(
        change(FrameType::Hello, 24, &4_097u16.to_le_bytes()),
        "at byte 40: credential is 4097, allowed are 0 to 4096"
    );
    let short = change(FrameType::Hello, 24, &64u16.to_le_bytes());
    assert!(short.ends_with("token needs 65 bytes, 64 are left of the body"), "{short}");
    assert_eq!(change(FrameType::Hello, 34, &[0xff]), "at byte 49: name is not UTF-8 from its byte 1 on");
    assert_eq!(
        change(FrameType::Define, 4, &u32::MAX.to_le_bytes()),
        "at byte 20: count is 4294967295, allowed are 1 to 32776"
    );
    assert_eq!(change(FrameType::Define, 16, &[0]), "at byte 32: name is 0, allowed are 1 to 255");
    assert_eq!(
        change(FrameType::Define, 20, &[200]),
        "at byte 37: name needs 200 bytes, 3 are left of the body"
    );
    assert!(change(FrameType::Events, 0, &[0; 8]).starts_with("at byte 16: sequence is 0, allowed are 1 to"));
    assert!(
        change(FrameType::Events, 0, &[255; 8])
            .contains("sequence is 18446744073709551615, allowed are 1 to 4611686018427387904")
    );
    assert_eq!(change(FrameType::Groups, 8, &[0]), "at byte 24: runs is 0, allowed are 1 to 4096");
    assert_eq!(
        change(FrameType::Groups, 10, &4_097u16.to_le_bytes()),
        "at byte 26: groups is 4097, allowed are 1 to 4096"
    );
    assert_eq!(
        change(FrameType::Groups, 12, &513u16.to_le_bytes()),
        "at byte 28: places is 513, allowed are 0 to 512"
    );
    assert_eq!(change(FrameType::Groups, 16 + 6, &[2]), "at byte 38: group is 2, allowed are 0 to 1");
    assert_eq!(change(FrameType::Groups, 16 + 8 + 2, &[3]), "at byte 42: held is 3, allowed are 0 to 1");
    assert_eq!(
        change(FrameType::Groups, 12, &[3]),
        "at byte 56: places needs 60 bytes, 40 are left of the body"
    );
    assert_eq!(change(FrameType::Records, 16 + 31, &[17]), "at byte 63: words is 17, allowed are 0 to 16");
    assert_eq!(change(FrameType::Edge, 17, &[0x10]), "at byte 32: slot is 4101, allowed are 0 to 4095");
    assert_eq!(change(FrameType::Loss, 2, &[4]), "at byte 18: cause is 4, allowed are 1 to 3");
    assert_eq!(
        change(FrameType::Gap, 8, &[4]),
        "at byte 24: last is 4, allowed are 5 to 4611686018427387904"
    );
    // Bytes that mean nothing are zero, so that a later version can give them a meaning.
    assert_eq!(change(FrameType::Close, 15, &[1]), "at byte 31: reserved is 1, allowed are 0 to 0");
}

#[test]
fn the_largest_frame_fits_and_one_more_does_not() {
    let events = vec![Event::default(); FRAME_EVENTS_MAX];
    let mut out = Vec::new();
    FrameWriter::new(&mut out).events(1, 0, [&events, &[]]);
    assert_eq!(out.len(), FRAME_BYTES_MAX);
    assert_eq!(read(&out), Ok(Some(())));
    let all = (0..4_096).map(|slot| (slot, u64::MAX));
    let mut out = Vec::new();
    FrameWriter::new(&mut out).edge(0, all);
    assert_eq!(out.len(), FRAME_BYTES_MAX);
    assert_eq!(read(&out), Ok(Some(())));
    let long = "x".repeat(400);
    let mut out = Vec::new();
    FrameWriter::new(&mut out).close(CloseCode(77), &long);
    assert_eq!(read(&out), Ok(Some(())), "reasons are cut");
    let many = std::iter::repeat_n("y".repeat(255), 1_000).collect::<Vec<_>>();
    let mut out = Vec::new();
    assert_eq!(FrameWriter::new(&mut out).define(0, many.iter().map(String::as_str)), 256);
    assert_eq!(read(&out), Ok(Some(())));
}

proptest! {
    /// However the bytes of a stream are cut into reads and handed over, the frames in it are the same.
    #[test]
    fn any_cutting_gives_the_same_frames(
        order in proptest::collection::vec(0..FrameType::ALL.len(), 1..60),
        cuts in proptest::collection::vec(1usize..600, 1..20),
    ) {
        let samples = samples();
        let stream: Vec<u8> = order.iter().flat_map(|&at| samples[at].1.clone()).collect();
        let mut buffer = FrameBuffer::new(1);
        let mut other = FrameBuffer::new(1);
        let (mut rest, mut seen, mut place) = (stream.as_slice(), Vec::new(), 0);
        for cut in cuts.into_iter().cycle() {
            let count = buffer.push(&rest[..cut.min(rest.len())]);
            rest = &rest[count..];
            buffer.split_rest(&mut other);
            while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
                prop_assert_eq!(offset, place);
                place += head.frame_bytes() as u64;
                prop_assert_eq!(body.as_ptr() as usize % 8, 0, "aligned in place");
                prop_assert!(Frame::read(offset, &head, body).is_ok());
                seen.push(head.kind);
            }
            std::mem::swap(&mut buffer, &mut other);
            if rest.is_empty() {
                break;
            }
        }
        buffer.finish().unwrap();
        prop_assert_eq!(seen, order.iter().map(|&at| samples[at].0).collect::<Vec<_>>());
    }

    #[test]
    fn events_round_trip(words in proptest::collection::vec(any::<[u64; 4]>(), 1..200), sequence in 1u64..1 << 60, cut in 0usize..200) {
        let events: Vec<Event> = words.iter().map(|&words| zerocopy::transmute!(words)).collect();
        let (a, b) = events.split_at(cut.min(events.len()));
        let mut out = Vec::new();
        FrameWriter::new(&mut out).events(sequence, 3, [a, b]);
        let mut buffer = FrameBuffer::new(1);
        buffer.push(&out);
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        prop_assert_eq!(Frame::read(offset, &head, body), Ok(Frame::Events { sequence, names: 3, events: &events }));
    }

    #[test]
    fn subscriptions_round_trip(
        streams in proptest::collection::vec("[a-z.0-9]{1,20}", 1..5),
        names in proptest::collection::vec("[A-Zäß]{1,9}", 0..9),
        prefixes in proptest::collection::vec("[A-Z]{1,9}", 0..9),
        slots in proptest::collection::btree_map((0u16..5, 0u16..4_096), 1u64.., 0..50),
        start in 0..4, every in 0u32..3, budget: u64,
    ) {
        let mut streams = streams;
        streams.sort();
        streams.dedup();
        let slots: Vec<_> = slots.into_iter().filter(|((stream, _), _)| usize::from(*stream) < streams.len())
            .map(|((stream, slot), next)| (stream, slot, next)).collect();
        let spec = Subscription {
            keys: if names.is_empty() && prefixes.is_empty() { Keys::All } else { Keys::Some { names, prefixes } },
            start: match start {
                0 => Start::Latest,
                1 => Start::Snapshot,
                2 => Start::Lookback(9),
                _ => Start::Sequence { default: 7, slots },
            },
            conflation: match every { 0 => Conflation::None, 1 => Conflation::Latest, ms => Conflation::Every(ms) },
            policy: LagPolicy::Conflate,
            lag_budget: budget,
            streams,
        };
        let id = |name: &str| spec.streams.iter().rev().position(|stream| stream == name).map(|at| at as u16);
        let mut out = Vec::new();
        spec.encode(id, &mut out).unwrap();
        let (mut edges, mut back) = (Vec::new(), None);
        let mut buffer = FrameBuffer::new(8);
        buffer.push(&out);
        while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
            match Frame::read(offset, &head, body).unwrap() {
                Frame::Edge(edge) => edges.extend(edge.iter().map(|(slot, next)| (edge.stream, slot, next))),
                Frame::Subscribe(frame) => {
                    let name = |id: u16| spec.streams.iter().rev().nth(usize::from(id)).cloned();
                    back = Some(Subscription::decode(&frame, &edges, name).unwrap());
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(back, Some(spec));
    }

    /// Bytes of nobody in particular: an error or a frame, never more.
    #[test]
    fn noise_is_an_error(kind in 0..FrameType::ALL.len(), body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let kind = FrameType::ALL[kind];
        let mut bytes = samples().swap_remove(0).1;
        bytes.truncate(HEAD_BYTES);
        bytes[5] = kind as u8;
        bytes[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        let _ = read(&bytes);
    }
}
